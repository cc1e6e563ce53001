package serde

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"

	"github.com/tapehouse/tapehouse/internal/readertest"
)

const wide = "b boolean; t tinyint; s smallint; i int; l bigint; f float; d double; m decimal(38,9); n decimal(9,4); x string; v varchar(9); y binary; " +
	"e date; ts timestamp; a array<int>; k map<string,decimal(6,2)>; z struct<p:int,q:array<struct<r:timestamp,u:string>>>"

// sample makes records for wide with every type, nulls, and the ends of ranges.
func sample(r *rand.Rand, n int) []string {
	pick := func(options ...string) string { return options[r.IntN(len(options))] }
	records := make([]string, n)
	for i := range records {
		var b strings.Builder
		b.WriteString(`{"id":0`)
		member := func(name string, options ...string) {
			if r.IntN(8) > 0 {
				fmt.Fprintf(&b, `,%q:%s`, name, pick(options...))
			}
		}
		number := fmt.Sprint(r.IntN(100_000))
		member("b", "true", "false")
		member("t", "-128", "127", fmt.Sprint(r.IntN(100)))
		member("s", "-32768", "32767", fmt.Sprint(r.IntN(1000)))
		member("i", "-2147483648", "2147483647", number)
		member("l", "-9223372036854775808", "9223372036854775807", number)
		member("f", "1.5", "-3.4e38", number+".25")
		member("d", "0.1", "-1.7e308", number+".125")
		member("m", "-99999999999999999999999999999.999999999", "0.000000001", number+".5")
		member("n", "-99999.9999", "0.0001", number)
		member("x", `"é\u0000"`, `""`, `"S`+number+`"`, `{"raw":[1]}`)
		member("v", `"x"`, `"ééééééééé"`)
		member("y", `"AAECAw=="`, `""`)
		member("e", `"0001-01-01"`, `"9999-12-31"`, fmt.Sprintf(`"2026-%d-%d"`, 1+r.IntN(12), 1+r.IntN(28)))
		member("ts", `"2262-04-11 23:47:15.999999999"`, `"1677-09-22 00:00:00"`, "1518033528.123456789", "1518033528123")
		member("a", "[]", "null", "[1,null,3]", "7")
		member("k", "{}", `{"a":1.5}`, `{"a":null,"b":-9999.99}`)
		member("z", "{}", "null", `{"p":1,"q":[{"r":0,"u":"x"},null,{}]}`, `[5]`)
		b.WriteString("}")
		records[i] = b.String()
	}
	return records
}

var allOptions = []ParquetOptions{
	{}, {Compression: "GZIP"}, {Compression: "UNCOMPRESSED"}, {WriterVersion: "V2"}, {EnableDictionaryCompression: true},
	{WriterVersion: "V2", EnableDictionaryCompression: true, PageSizeBytes: 64 << 10, BlockSizeBytes: 64 << 20, MaxPaddingBytes: 8 << 20},
}

func TestFilesAreDeterministicAndAlike(t *testing.T) {
	c := converter(t, wide, openX)
	records := sample(rand.New(rand.NewPCG(1, 2)), 3000)
	var want []string
	for _, o := range allOptions {
		one := write(t, c, o, records...)
		if !bytes.Equal(one, write(t, c, o, records...)) {
			t.Errorf("%+v: other bytes the second time", o)
		}
		rows := read(t, one)
		if want == nil {
			want = rows
		}
		if len(rows) != len(records) || strings.Join(rows, "\n") != strings.Join(want, "\n") {
			t.Errorf("%+v: rows differ from those of the first options", o)
		}
	}
}

// TestOptionsAreInTheFile looks at what the options did.
func TestOptionsAreInTheFile(t *testing.T) {
	c := converter(t, "i bigint; x string; ts timestamp", openX)
	var records []string
	for i := range 20_000 {
		records = append(records, fmt.Sprintf(`{"i":%d,"x":"s%d","ts":%d}`, i, i%10, 1_518_033_528+i))
	}
	for _, o := range allOptions {
		f, err := file.NewParquetReader(bytes.NewReader(write(t, c, o, records...)))
		if err != nil {
			t.Fatal(err)
		}
		group := f.MetaData().RowGroup(0)
		column, err := group.ColumnChunk(1)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := column.Compression(), codecs[o.Compression]; got != want {
			t.Errorf("%+v: codec %v, want %v", o, got, want)
		}
		if column.HasDictionaryPage() != o.EnableDictionaryCompression {
			t.Errorf("%+v: dictionary %v", o, column.HasDictionaryPage())
		}
		time, err := group.ColumnChunk(2)
		if err != nil {
			t.Fatal(err)
		}
		if time.Type() != parquet.Types.Int96 {
			t.Errorf("%+v: timestamps are %v", o, time.Type())
		}
		reader, err := f.RowGroup(0).GetColumnPageReader(0)
		if err != nil {
			t.Fatal(err)
		}
		pages := map[string]bool{}
		for reader.Next() {
			pages[reader.Page().Type().String()+" "+reader.Page().Encoding().String()] = true
		}
		want := "DATA_PAGE PLAIN"
		if o.WriterVersion == "V2" {
			want = "DATA_PAGE_V2 DELTA_BINARY_PACKED"
		}
		if !o.EnableDictionaryCompression && (len(pages) != 1 || !pages[want]) {
			t.Errorf("%+v: pages %v, want %s", o, pages, want)
		}
		if f.MetaData().GetCreatedBy() != createdBy {
			t.Errorf("created by %s", f.MetaData().GetCreatedBy())
		}
	}
}

func TestErrorsLeaveTheFileWhole(t *testing.T) {
	c := converter(t, "a int; b array<struct<c:int>>", openX)
	var b bytes.Buffer
	w, err := c.NewWriter(&b, ParquetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	good := 0
	for i := range 1000 {
		record := fmt.Sprintf(`{"a":%d,"b":[{"c":%d}]}`, i, i)
		switch i % 4 {
		case 1:
			record = record[:len(record)-3]
		case 2:
			record = fmt.Sprintf(`{"a":%d,"b":[{"c":1},{"c":"x"}]}`, i)
		case 3:
			record += record + `{"a":[]}` // the third of three
		}
		err := w.Append([]byte(record))
		var bad *RecordError
		if i%4 == 0 {
			good++
		} else if !errors.As(err, &bad) {
			t.Fatalf("%s: %v", record, err)
		}
		if i%4 == 0 && err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	rows := read(t, b.Bytes())
	if len(rows) != good || w.Rows() != int64(good) || w.Records() != int64(good) {
		t.Errorf("%d rows, %d counted, want %d", len(rows), w.Rows(), good)
	}
	if !sameJSON(t, rows[10], `{"a":40,"b":[{"c":40}]}`) {
		t.Error(rows[10])
	}
	if err := w.Append([]byte(`{}`)); !errors.Is(err, errClosed) {
		t.Errorf("a closed file takes records: %v", err)
	}
}

func TestEmptyFile(t *testing.T) {
	if rows := read(t, write(t, converter(t, wide, openX), ParquetOptions{})); len(rows) != 0 {
		t.Errorf("%d rows", len(rows))
	}
}

// closes counts Close, which a Writer must leave to its caller.
type closes struct {
	io.Writer
	n int
}

func (c *closes) Close() error { c.n++; return nil }

func TestTheUnderlyingWriterStaysOpen(t *testing.T) {
	under := &closes{Writer: io.Discard}
	w, err := converter(t, "a int", openX).NewWriter(under, ParquetOptions{})
	if err != nil || w.Append([]byte(`{"a":1}`)) != nil || w.Close() != nil || under.n != 0 {
		t.Errorf("%v; closed %d times", err, under.n)
	}
}

type failing struct{ left int }

var errDisk = errors.New("disk is on fire")

func (f *failing) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errDisk
	}
	return len(p), nil
}

func TestWriteErrorsAreFinal(t *testing.T) {
	c := converter(t, wide, openX)
	records := sample(rand.New(rand.NewPCG(3, 3)), 2000)
	whole := len(write(t, c, ParquetOptions{}, records...))
	for _, left := range []int{0, 3, 4, 100, whole / 2, whole - 9, whole - 1} {
		w, err := c.NewWriter(&failing{left}, ParquetOptions{})
		for _, r := range records {
			if err == nil {
				err = w.Append([]byte(r))
			}
		}
		if w != nil {
			closed := w.Close()
			if err == nil {
				err = closed
			} else if closed == nil {
				t.Errorf("after %d bytes: Close forgets %v", left, err)
			}
		}
		if !errors.Is(err, errDisk) {
			t.Errorf("after %d of %d bytes: %v", left, whole, err)
		}
	}
}

// TestMemoryIsBounded writes more than a row group and looks at the heap.
func TestMemoryIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: -short")
	}
	c := converter(t, "i bigint; x string", openX)
	w, err := c.NewWriter(io.Discard, ParquetOptions{Compression: "UNCOMPRESSED"})
	if err != nil {
		t.Fatal(err)
	}
	pad := strings.Repeat("x", 2000)
	var peak uint64
	for i := range 100_000 {
		if err := w.Append(fmt.Appendf(nil, `{"i":%d,"x":"%d%s"}`, i, i, pad)); err != nil {
			t.Fatal(err)
		}
		if i%10_000 == 0 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if w.SizeBytes() < 3*rowGroupBytesMax || peak > 4*rowGroupBytesMax {
		t.Errorf("%d bytes took a heap of %d", w.SizeBytes(), peak)
	}
}

func TestRowGroups(t *testing.T) {
	c := converter(t, "x string", openX)
	pad := strings.Repeat("x", 100_000)
	var records []string
	for i := range 1500 { // 150 MB
		records = append(records, fmt.Sprintf(`{"x":"%d%s"}`, i, pad))
	}
	f, err := file.NewParquetReader(bytes.NewReader(write(t, c, ParquetOptions{}, records...)))
	if err != nil {
		t.Fatal(err)
	}
	if n := f.NumRowGroups(); n != 3 || f.NumRows() != 1500 {
		t.Errorf("%d row groups of %d rows", n, f.NumRows())
	}
}

// TestDecimalsAreExact holds decimals and integers to math/big.
func TestDecimalsAreExact(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	digits := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte('0' + r.IntN(10))
		}
		return string(b)
	}
	for range 50_000 {
		tok := "-"[:r.IntN(2)]
		if r.IntN(4) == 0 {
			tok += "0"
		} else {
			tok += string(rune('1'+r.IntN(9))) + digits(r.IntN(38))
		}
		if r.IntN(2) == 0 {
			tok += "." + digits(1+r.IntN(12)) + strings.Repeat("0", r.IntN(8))
		}
		if r.IntN(3) == 0 {
			tok += fmt.Sprintf("e%+d", r.IntN(40)-20)
		}
		scale := r.IntN(39)
		m, negative, why := fixed([]byte(tok), scale)
		want, ok := new(big.Rat).SetString(tok)
		if !ok {
			t.Fatal(tok)
		}
		want.Mul(want, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil)))
		limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(digitsMax), nil)
		switch {
		case !want.IsInt():
			if why != inexact {
				t.Fatalf("%s at scale %d: %v, want inexact", tok, scale, why)
			}
		case want.Num().CmpAbs(limit) >= 0:
			if why != tooLarge {
				t.Fatalf("%s at scale %d: %v, want too large", tok, scale, why)
			}
		default:
			got := new(big.Int).SetUint64(m.hi)
			got.Lsh(got, 64).Or(got, new(big.Int).SetUint64(m.lo))
			if why != fits || got.CmpAbs(want.Num()) != 0 || got.Sign() != 0 && negative != (want.Sign() < 0) {
				t.Fatalf("%s at scale %d: %v %v %v, want %v", tok, scale, got, negative, why, want)
			}
		}
	}
}

// TestOtherReaders has DuckDB, pyarrow and ClickHouse read the files that every
// option gives, and compares sums that a mistake anywhere would change.
func TestOtherReaders(t *testing.T) {
	python := os.Getenv(readertest.PythonEnv)
	if python == "" {
		python = "python3"
	}
	c := converter(t, wide, openX)
	records := sample(rand.New(rand.NewPCG(5, 5)), 5000)
	dir := t.TempDir()
	var paths, want []string
	for i, o := range allOptions {
		path := filepath.Join(dir, fmt.Sprintf("%d.parquet", i))
		data := write(t, c, o, records...)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
		if i == 0 {
			want = read(t, data)
		}
	}
	sums := expectedSums(t, want)
	check := func(t *testing.T, sums string, cmd *exec.Cmd) {
		t.Helper()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if len(lines) != len(allOptions) {
			t.Fatalf("%s", out)
		}
		for i, line := range lines {
			if line != sums {
				t.Errorf("%+v: %s, want %s", allOptions[i], line, sums)
			}
		}
	}
	for _, reader := range []string{"duckdb", "pyarrow"} {
		t.Run(reader, func(t *testing.T) {
			if out, err := exec.Command(python, "-c", "import "+reader).CombinedOutput(); err != nil {
				out = bytes.TrimSpace(out)
				t.Skipf("SKIPPED: %s has no %s: %s", python, reader, out[bytes.LastIndexByte(out, '\n')+1:])
			}
			check(t, sums, exec.Command(python, append([]string{"testdata/read.py", reader}, paths...)...))
		})
	}
	t.Run("clickhouse", func(t *testing.T) {
		modules := os.Getenv(readertest.ChdbEnv)
		node, err := exec.LookPath("node")
		if err != nil || modules == "" {
			t.Skipf("SKIPPED: no Node, or %s does not name a node_modules with chdb", readertest.ChdbEnv)
		}
		figures := strings.Fields(sums)
		figures[9], figures[11] = "-", "-" // arrays and maps that are not null
		cmd := exec.Command(node, append([]string{"testdata/read.js"}, paths...)...)
		cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
		check(t, strings.Join(figures, " "), cmd)
	})
}
