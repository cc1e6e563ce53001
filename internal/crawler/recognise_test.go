package crawler

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
)

func recognise(t testing.TB, name, data string, classifiers ...classifier) learnt {
	t.Helper()
	b := newBucket()
	b.put(name, data)
	r := &recogniser{classifiers: classifiers, now: func() time.Time { return epoch }, settle: time.Minute, intern: newInterner()}
	l, err := r.recognise(context.Background(), b, Object{Name: name, SizeBytes: int64(len(data)), ModifiedAt: b.now})
	must(t, err)
	return l
}

func TestParquetTypes(t *testing.T) {
	list := func(e arrow.DataType) arrow.DataType { return arrow.ListOf(e) }
	fields := []arrow.Field{
		{Name: "Bool", Type: arrow.FixedWidthTypes.Boolean},
		{Name: "i8", Type: arrow.PrimitiveTypes.Int8}, {Name: "i16", Type: arrow.PrimitiveTypes.Int16}, {Name: "i32", Type: arrow.PrimitiveTypes.Int32}, {Name: "i64", Type: arrow.PrimitiveTypes.Int64},
		{Name: "u8", Type: arrow.PrimitiveTypes.Uint8}, {Name: "u16", Type: arrow.PrimitiveTypes.Uint16}, {Name: "u32", Type: arrow.PrimitiveTypes.Uint32}, {Name: "u64", Type: arrow.PrimitiveTypes.Uint64},
		{Name: "f32", Type: arrow.PrimitiveTypes.Float32}, {Name: "f64", Type: arrow.PrimitiveTypes.Float64},
		{Name: "d9", Type: &arrow.Decimal128Type{Precision: 9, Scale: 2}}, {Name: "d18", Type: &arrow.Decimal128Type{Precision: 18, Scale: 4}}, {Name: "d38", Type: &arrow.Decimal128Type{Precision: 38, Scale: 10}},
		{Name: "s", Type: arrow.BinaryTypes.String}, {Name: "b", Type: arrow.BinaryTypes.Binary}, {Name: "fixed", Type: &arrow.FixedSizeBinaryType{ByteWidth: 16}},
		{Name: "day", Type: arrow.FixedWidthTypes.Date32},
		{Name: "ms", Type: arrow.FixedWidthTypes.Timestamp_ms}, {Name: "us", Type: &arrow.TimestampType{Unit: arrow.Microsecond}}, {Name: "ns", Type: arrow.FixedWidthTypes.Timestamp_ns},
		{Name: "tod", Type: arrow.FixedWidthTypes.Time64us},
		{Name: "l", Type: list(arrow.PrimitiveTypes.Int32)}, {Name: "ll", Type: list(list(arrow.BinaryTypes.String))},
		{Name: "m", Type: arrow.MapOf(arrow.BinaryTypes.String, arrow.PrimitiveTypes.Float64)},
		{Name: "st", Type: arrow.StructOf(arrow.Field{Name: "X", Type: arrow.PrimitiveTypes.Int64}, arrow.Field{Name: "y", Type: list(arrow.StructOf(arrow.Field{Name: "z", Type: arrow.FixedWidthTypes.Date32}))})},
	}
	l := recognise(t, "a.parquet", parquetFile(t, 3, fields...))
	want := "bool boolean, i8 tinyint, i16 smallint, i32 int, i64 bigint, u8 smallint, u16 int, u32 bigint, u64 decimal(20,0), f32 float, f64 double, " +
		"d9 decimal(9,2), d18 decimal(18,4), d38 decimal(38,10), s string, b binary, fixed binary, day date, ms timestamp, us timestamp, ns timestamp, " +
		"l array<int>, ll array<array<string>>, m map<string,double>, st struct<x:bigint,y:array<struct<z:date>>>"
	if got := columnsText(l.Columns); got != want || l.rows != 3 || l.Outcome != outcomeTable {
		t.Errorf("%d rows, outcome %d %s\n got %s\nwant %s", l.rows, l.Outcome, l.Reason, got, want)
	}
	if len(l.Notes) != 1 || !strings.Contains(l.Notes[0], "column tod is left out") {
		t.Errorf("notes %q", l.Notes)
	}
	if l := recognise(t, "e.parquet", parquetFile(t, 0, fields[:2]...)); l.Outcome != outcomeEmpty {
		t.Errorf("a file without rows: outcome %d", l.Outcome)
	}
}

// TestParquetFooterBeyondTheTail: a footer that is larger than what is read at once.
func TestParquetFooterBeyondTheTail(t *testing.T) {
	var fields []arrow.Field
	for i := range 1_000 {
		fields = append(fields, arrow.Field{Name: fmt.Sprintf("column_%d_%s", i, strings.Repeat("x", 60)), Type: arrow.PrimitiveTypes.Int32})
	}
	if l := recognise(t, "wide.parquet", parquetFile(t, 1, fields...)); len(l.Columns) != 1_000 || l.rows != 1 {
		t.Errorf("%d columns, %d rows, %s", len(l.Columns), l.rows, l.Reason)
	}
}

func TestCompression(t *testing.T) {
	rows := "id,price\n" + strings.Repeat("1,2.50\n", 200)
	for _, c := range []struct{ how, name, want string }{
		{gzipC, "a.csv.gz", gzipC}, {gzipC, "no-extension", gzipC}, {zstdC, "a.csv.zst", zstdC}, {bzip2C, "a.csv.bz2", bzip2C},
		{snappy, "a.csv.sz", snappy}, {"java", "a.csv.snappy", snappy}, {"hadoop", "a.csv.snappy", snappy},
	} {
		t.Run(c.how+" "+c.name, func(t *testing.T) {
			l := recognise(t, c.name, compressed(t, c.how, rows))
			if got := columnsText(l.Columns); got != "id bigint, price decimal(18,4)" || l.Compression != c.want || l.rows != 200 {
				t.Errorf("%s, %s, %d rows: %s", got, l.Compression, l.rows, l.Reason)
			}
		})
	}
}

// TestRowsOfLargeFiles: a sample is scaled up.
func TestRowsOfLargeFiles(t *testing.T) {
	var text strings.Builder
	text.WriteString("id,price\n")
	r := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		fmt.Fprintf(&text, "%07d,%d.5000\n", 1_000_000+r.IntN(8_000_000), 1+r.IntN(9))
	}
	rows := text.String()
	for how, data := range map[string]string{plain: rows, gzipC: compressed(t, gzipC, rows)} {
		if l := recognise(t, "a", data); l.rows < 180_000 || l.rows > 220_000 {
			t.Errorf("%s: %d rows, want about 200,000", how, l.rows)
		}
	}
}

func TestOtherFiles(t *testing.T) {
	bomb := compressed(t, zstdC, strings.Repeat("\x00", 64<<20))
	for _, c := range []struct {
		name, data string
		outcome    outcome
		reason     string
	}{
		{"empty", "", outcomeEmpty, "no rows"},
		{"blank.json", "\n\n", outcomeEmpty, "no rows"},
		{"a.avro", "Obj\x01xxxxxxxxxxxxxxxxxxxxxxxxx", outcomeRefused, "Avro is not supported"},
		{"a.orc", "ORCxxxxxxxxxxxxxxxxxxxxxxxxxxxx", outcomeRefused, "ORC is not supported"},
		{"a.xml", "<?xml version='1.0'?><a/>", outcomeRefused, "XML is not supported"},
		{"a.zip", "PK\x03\x04xxxxxxxxxxxxxxxxxxxxxxxx", outcomeRefused, "ZIP is not supported"},
		{"a.txt", "some words\nand others\n", outcomeRefused, "no delimiter"},
		{"a.bin", "\x00\x01\x02\x03", outcomeRefused, "format is not known"},
		{"utf16.csv", "\xff\xfea\x00,\x00", outcomeBad, "UTF-16"},
		{"cut.parquet", parquetFile(t, 1, arrow.Field{Name: "a", Type: arrow.PrimitiveTypes.Int32})[:40], outcomeBad, "ends within"},
		{"cut.csv.gz", compressed(t, gzipC, "a,b\n"+strings.Repeat("1,2\n", 9999))[:60], outcomeBad, "ends within"},
		{"cut.json", `{"a":1}` + "\n" + `{"a":`, outcomeBad, "ends within"},
		{"bomb.csv.zst", bomb, outcomeBad, "grows more than"},
		{"gzipped.parquet.gz", compressed(t, gzipC, "PAR1xxxxxxxxxxxxxxxxxxxx"), outcomeRefused, "Parquet within"},
	} {
		l := recognise(t, c.name, c.data)
		if l.Outcome != c.outcome || !strings.Contains(l.Reason, c.reason) {
			t.Errorf("%s: outcome %d, %q; want %d, %q", c.name, l.Outcome, l.Reason, c.outcome, c.reason)
		}
	}
}

// TestClassifiersComeFirst and give way to the built-in recognition.
func TestClassifiersComeFirst(t *testing.T) {
	c := classifier{Classifier: &Classifier{CSV: &CSVClassifier{Name: "semi", Delimiter: ";", Header: []string{"x", "y"}, ContainsHeader: HeaderAbsent}}}
	j := classifier{Classifier: &Classifier{JSON: &JSONClassifier{Name: "records", JSONPath: "$.records[*]"}}, path: jsonPath{{member: "records"}, {each: true}}}
	if l := recognise(t, "a", "1;2\n3;4\n", c, j); columnsText(l.Columns) != "x bigint, y bigint" {
		t.Errorf("%s %s", columnsText(l.Columns), l.Reason)
	}
	if l := recognise(t, "a", `{"records":[{"id":1}]}`, c, j); columnsText(l.Columns) != "id bigint" || l.Path != "$.records[*]" {
		t.Errorf("%s %s", columnsText(l.Columns), l.Reason)
	}
	if l := recognise(t, "a", "p,q\n1,2.5\n", c, j); columnsText(l.Columns) != "p bigint, q decimal(18,4)" {
		t.Errorf("%s %s", columnsText(l.Columns), l.Reason)
	}
}

// TestYoungFilesArePending, bad or not known; and those that the store does not give
// are read again.
func TestYoungFilesArePending(t *testing.T) {
	b := newBucket()
	b.now = epoch.Add(-time.Second)
	b.put("cut.json", `{"a":`)
	b.put("good.json", `{"a":1}`+"\n")
	b.fail["locked"] = fs.ErrPermission
	r := &recogniser{now: func() time.Time { return epoch }, settle: time.Minute, intern: newInterner()}
	ask := func(name string, modified time.Time) learnt {
		l, err := r.recognise(context.Background(), b, Object{Name: name, SizeBytes: int64(len(b.files[name].data)), ModifiedAt: modified})
		must(t, err)
		return l
	}
	if l := ask("cut.json", b.now); l.Outcome != outcomePending || !l.again {
		t.Errorf("a young file that is cut: %+v", l)
	}
	if l := ask("cut.json", b.now.Add(-time.Hour)); l.Outcome != outcomeBad || l.again {
		t.Errorf("an old file that is cut: %+v", l)
	}
	if l := ask("good.json", b.now); l.Outcome != outcomeTable {
		t.Errorf("a young file that is whole: %+v", l)
	}
	b.files["locked"] = bucketFile{data: []byte("x")}
	if l := ask("locked", b.now.Add(-time.Hour)); l.Outcome != outcomeBad || !l.again {
		t.Errorf("a file that the store does not give: %+v", l)
	}
	// Longer than the listing says.
	l, err := r.recognise(context.Background(), b, Object{Name: "good.json", SizeBytes: 8, ModifiedAt: b.now.Add(-time.Hour)})
	b.put("good.json", `{"a":1}`+"\n"+`{"a":1}`+"\n")
	must(t, err)
	if l.Outcome != outcomeTable {
		t.Errorf("%+v", l)
	}
	if l, _ = r.recognise(context.Background(), b, Object{Name: "good.json", SizeBytes: 8, ModifiedAt: b.now.Add(-time.Hour)}); l.Outcome != outcomePending {
		t.Errorf("a file that grew: %+v", l)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b.fail["good.json"] = context.Canceled
	if _, err := r.recognise(ctx, b, Object{Name: "good.json", SizeBytes: 8}); !errors.Is(err, context.Canceled) {
		t.Errorf("a crawl that is stopped: %v", err)
	}
}

func FuzzParquet(f *testing.F) {
	file := parquetFile(f, 2, arrow.Field{Name: "a", Type: arrow.ListOf(arrow.PrimitiveTypes.Int32)}, arrow.Field{Name: "m", Type: arrow.MapOf(arrow.BinaryTypes.String, arrow.PrimitiveTypes.Float64)})
	n := binary.LittleEndian.Uint32([]byte(file[len(file)-8:]))
	f.Add([]byte(file[len(file)-8-int(n) : len(file)-8]))
	f.Fuzz(func(t *testing.T, footer []byte) {
		whole := append([]byte("PAR1"), footer...)
		whole = binary.LittleEndian.AppendUint32(whole, uint32(len(footer)))
		whole = append(whole, "PAR1"...)
		columns, rows, _, err := readParquet(bytes.NewReader(whole), int64(len(whole)))
		if err != nil {
			return
		}
		if rows < 0 {
			t.Errorf("%d rows", rows)
		}
		for _, c := range columns {
			if c.State == nil || badColumn(c.Name) != "" {
				t.Errorf("column %+v", c)
			}
			_ = c.State.typeText()
		}
	})
}

func FuzzDecompress(f *testing.F) {
	for _, how := range []string{gzipC, zstdC, snappy, "java", "hadoop"} {
		f.Add([]byte(compressed(f, how, "a,b\n1,2\n")))
	}
	f.Add([]byte("BZh91AY&SY"))
	f.Fuzz(func(t *testing.T, data []byte) {
		head := data[:min(len(data), 32)]
		for _, name := range []string{"a", "a.snappy"} {
			out, _, _, _ := decompress(compressionOf(name, head), bytes.NewReader(data), int64(len(data)), 1<<20)
			if len(out) > 1<<20 {
				t.Errorf("%d bytes", len(out))
			}
		}
	})
}
