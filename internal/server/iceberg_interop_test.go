//go:build interop

package server

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/readertest"
)

// mixed is a row of the table public.mixed, which has a column of each kind.
type mixed struct {
	n       int64
	note    any // nil for null
	price   string
	size    int64
	ratio   float64
	ok      bool
	settled int // days since 1970-01-01
	at      int64
	venue   any // a column that later records make
}

const mixedTable = `CREATE TABLE public.mixed (n bigint NOT NULL, note varchar, price numeric(9,4), size integer, ratio double precision, ok boolean, settled date, at timestamptz)`

// newMixed is row number n. From 3000 on rows do not fit the table as it was made:
// they have another column, larger sizes, and prices with more digits.
func newMixed(n int64) mixed {
	m := mixed{n: n, price: fmt.Sprintf("%d.%04d", n%90_000, n*37%10_000), size: n % 700, ratio: float64(n)/3 - 100, ok: n%3 == 0, settled: int(18_000 + n%400), at: 1_795_787_939_000_000 + n*1001}
	if n%4 > 0 {
		m.note = []string{"", "naïve 😀", "line\nbreak \"quoted\"", "ACME"}[n%4] + strconv.FormatInt(n%50, 10)
	}
	if n >= 3000 {
		m.size, m.price, m.venue = math.MaxInt32+n, fmt.Sprintf("%d.%04d", 10_000_000+n, n%10_000), "X"+strconv.FormatInt(n%3, 10)
	}
	return m
}

// document is the row as its producer writes it, times in a layout.
func (m mixed) document(t *testing.T, layout string) []byte {
	t.Helper()
	doc := jsonObject{"n": m.n, "price": m.price, "size": m.size, "ratio": m.ratio, "ok": m.ok, "settled": time.Unix(int64(m.settled)*86400, 0).UTC().Format(time.DateOnly), "at": time.UnixMicro(m.at).UTC().Format(layout)}
	if m.note != nil {
		doc["note"] = m.note
	}
	if m.venue != nil {
		doc["venue"] = m.venue
	}
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// cells is the row in readertest's text.
func (m mixed) cells() map[string]any {
	return map[string]any{"n": strconv.FormatInt(m.n, 10), "note": m.note, "price": m.price, "size": strconv.FormatInt(m.size, 10), "ratio": fmt.Sprintf("%016x", math.Float64bits(m.ratio)),
		"ok": strconv.FormatBool(m.ok), "settled": strconv.Itoa(m.settled), "at": strconv.FormatInt(m.at, 10), "venue": m.venue}
}

// checkContent holds what a reader found against the rows that must be there, in
// any order.
func checkContent(t *testing.T, got readertest.Content, want map[int64]mixed) {
	t.Helper()
	at := slices.Index(got.Columns, "n")
	number := func(row []any) int64 {
		n, err := strconv.ParseInt(row[at].(string), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	slices.SortFunc(got.Rows, func(a, b []any) int { return cmp.Compare(number(a), number(b)) })
	n, size, price := new(big.Int), new(big.Int), new(big.Rat)
	for i, key := range slices.Sorted(maps.Keys(want)) {
		m := want[key]
		n.Add(n, big.NewInt(m.n))
		size.Add(size, big.NewInt(m.size))
		p, ok := new(big.Rat).SetString(m.price)
		if !ok {
			t.Fatal(m.price)
		}
		price.Add(price, p)
		if i >= len(got.Rows) {
			continue
		}
		cells := m.cells()
		for c, name := range got.Columns {
			if got.Rows[i][c] != cells[name] {
				t.Fatalf("row %d, %s: %#v, want %#v", key, name, got.Rows[i][c], cells[name])
			}
		}
	}
	if len(got.Rows) != len(want) {
		t.Errorf("%d rows, want %d", len(got.Rows), len(want))
	}
	if sums := map[string]string{"n": n.String(), "size": size.String(), "price": price.FloatString(4)}; !maps.Equal(got.Sums, sums) {
		t.Errorf("sums %v, want %v", got.Sums, sums)
	}
}

// parquetFiles are the Parquet files below a directory.
func parquetFiles(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".parquet") {
			out = append(out, path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// checkFiles has every reader read files that together hold the rows.
func checkFiles(t *testing.T, what string, files []string, want map[int64]mixed) {
	t.Helper()
	if len(files) == 0 {
		t.Fatalf("%s: no files", what)
	}
	for _, reader := range readertest.ParquetReaders {
		t.Run(what+" "+reader, func(t *testing.T) {
			var all readertest.Content
			total := map[string]*big.Rat{}
			for _, file := range files {
				c := readertest.Read(t, reader, file)
				all.Columns = c.Columns
				all.Rows = append(all.Rows, c.Rows...)
				for name, sum := range c.Sums {
					v, _ := new(big.Rat).SetString(cmp.Or(sum, "0"))
					if total[name] == nil {
						total[name] = new(big.Rat)
					}
					total[name].Add(total[name], v)
				}
			}
			all.Sums = map[string]string{}
			for name, v := range total {
				all.Sums[name] = v.FloatString(map[string]int{"price": 4}[name])
			}
			checkContent(t, all, want)
		})
	}
}

// TestIcebergReaders has programs that nobody here wrote read a table while it is
// fed and changed: the tail's files, the data files, and the whole table through
// the catalog, with position deletes and columns that came, grew and widened.
func TestIcebergReaders(t *testing.T) {
	s := open(t, testConfig(t))
	conn, aws := connect(t, s), client(t, s)
	execute1(t, conn, mixedTable)
	create := iceberg("mixed", jsonObject{"SchemaEvolutionConfiguration": jsonObject{"Enabled": true}, "DestinationTableConfigurationList": []jsonObject{{"DestinationDatabaseName": "public", "DestinationTableName": "mixed"}}})
	if err := aws.Call(t.Context(), "CreateDeliveryStream", create, nil); err != nil {
		t.Fatal(err)
	}
	rows := map[int64]mixed{}
	send := func(from, to int64) map[int64]mixed {
		sent := map[int64]mixed{}
		for ; from < to; from += 500 {
			var docs [][]byte
			for n := from; n < min(from+500, to); n++ {
				sent[n] = newMixed(n)
				docs = append(docs, sent[n].document(t, time.RFC3339Nano))
			}
			put(t, aws, "mixed", docs...)
		}
		maps.Copy(rows, sent)
		return sent
	}
	flush := func() {
		t.Helper()
		if err := s.delivery.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	checkTable := func(when string) {
		t.Helper()
		if got := text(t, conn, "SELECT count(*) FROM public.mixed"); got != strconv.Itoa(len(rows)) {
			t.Errorf("%s: SQL counts %s rows, want %d", when, got, len(rows))
		}
		t.Run(when+" pyiceberg", func(t *testing.T) {
			checkContent(t, readertest.Read(t, "pyiceberg", filepath.Join(s.dir("catalog"), "catalog.db"), "tapehouse", "public.mixed"), rows)
		})
		t.Run(when+" clickhouse", func(t *testing.T) {
			dirs, err := filepath.Glob(filepath.Join(s.dir("lake"), "public", "mixed-*"))
			if err != nil || len(dirs) != 1 {
				t.Fatalf("%v %v", dirs, err)
			}
			checkContent(t, readertest.Read(t, "clickhouse-iceberg", dirs[0]), rows)
		})
	}

	sent := send(0, 2000)
	if got := text(t, conn, "SELECT count(*) FROM public.mixed"); got != "2000" { // and now they are in the tail's files
		t.Fatal(got)
	}
	checkFiles(t, "tail", parquetFiles(t, s.dir("tail")), sent)
	flush()
	checkFiles(t, "data file", parquetFiles(t, filepath.Join(s.dir("lake"), "public")), sent)
	send(2000, 3000)
	flush()
	checkTable("appended")

	deletePositions(t, s, "n % 5 = 2")
	maps.DeleteFunc(rows, func(n int64, _ mixed) bool { return n%5 == 2 })
	checkTable("rows deleted")

	send(3000, 4000)
	appeared(t, conn, "SELECT venue FROM public.mixed LIMIT 1")
	flush()
	deletePositions(t, s, "n BETWEEN 3500 AND 3510 OR n = 100")
	maps.DeleteFunc(rows, func(n int64, _ mixed) bool { return n >= 3500 && n <= 3510 || n == 100 })
	checkTable("evolved")

	// What SQL writes itself, with more digits than a stream's table has, and a
	// partitioned table of the pack.
	execute1(t, conn, "CREATE TABLE public.own AS SELECT n, CAST(n AS numeric(38,20)) * 1.0000000001 AS wide, note, settled, at FROM public.mixed")
	putLegs(t, s, "J", 1, 1000)
	flush()
	for table, columns := range map[string][]string{"public.own": {"n", "wide"}, "equities.executions": {"seq", "quantity", "price"}} {
		for _, reader := range []string{"pyiceberg", "clickhouse-iceberg"} {
			t.Run(table+" "+reader, func(t *testing.T) {
				args := []string{filepath.Join(s.dir("catalog"), "catalog.db"), "tapehouse", table}
				if reader == "clickhouse-iceberg" {
					namespace, name, _ := strings.Cut(table, ".")
					if args, _ = filepath.Glob(filepath.Join(s.dir("lake"), namespace, name+"-*")); len(args) != 1 {
						t.Fatal(args)
					}
				}
				got := readertest.Read(t, reader, args...)
				if want := text(t, conn, "SELECT count(*) FROM "+table); strconv.Itoa(len(got.Rows)) != want {
					t.Errorf("%d rows, want %s", len(got.Rows), want)
				}
				for _, column := range columns {
					if want := text(t, conn, "SELECT sum("+column+") FROM "+table); got.Sums[column] != want {
						t.Errorf("sum of %s: %s, SQL says %s", column, got.Sums[column], want)
					}
				}
			})
		}
	}
}

// deletePositions deletes the rows for which a condition holds, as engines that
// write Iceberg's position deletes do.
func deletePositions(t *testing.T, s *Server, condition string) {
	t.Helper()
	tbl, err := s.catalog.Load(t.Context(), catalog.Name{Namespace: "public", Table: "mixed"})
	if err != nil {
		t.Fatal(err)
	}
	files, err := s.catalog.Files(t.Context(), tbl, catalog.At{})
	if err != nil {
		t.Fatal(err)
	}
	peer, err := engine.OpenPeer(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	commit := catalog.Commit{Table: tbl.Name}
	for i, f := range files {
		source := "FROM read_parquet('" + strings.TrimPrefix(f.URI(), "file://") + "', file_row_number = true) WHERE " + condition
		count, err := peer.Strings(t.Context(), "SELECT count(*)::VARCHAR "+source)
		if err != nil {
			t.Fatal(err)
		}
		if count[0] == "0" {
			continue
		}
		rows, err := strconv.ParseInt(count[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("%s/%d-%d-deletes.parquet", tbl.DataDir(), tbl.Snapshot(), i)
		path := filepath.Join(s.dir("lake"), filepath.FromSlash(name))
		if err := peer.Exec(t.Context(), "COPY (SELECT '"+f.URI()+"' AS file_path, file_row_number AS pos "+source+" ORDER BY pos) TO '"+path+
			"' (FORMAT parquet, FIELD_IDS {file_path: 2147483546, pos: 2147483545})"); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		commit.Deletes = append(commit.Deletes, catalog.NewDeletes{Path: name, Rows: rows, SizeBytes: info.Size(), From: f})
	}
	if _, err := s.catalog.Commit(t.Context(), []catalog.Commit{commit}); err != nil {
		t.Fatal(err)
	}
}

// TestOtherReaders has them read the objects of a stream that converts, and that
// this table's schema describes.
func TestOtherReaders(t *testing.T) {
	s := open(t, testConfig(t))
	execute1(t, connect(t, s), mixedTable)
	aws := client(t, s)
	role := "arn:aws:iam::000000000000:role/r"
	for name, parquet := range map[string]jsonObject{
		"snappy":     {},
		"gzip":       {"Compression": "GZIP", "EnableDictionaryCompression": true},
		"plain":      {"Compression": "UNCOMPRESSED", "WriterVersion": "V2"},
		"dictionary": {"Compression": "SNAPPY", "EnableDictionaryCompression": true, "WriterVersion": "V2"},
	} {
		if err := aws.Call(t.Context(), "CreateDeliveryStream", extended(name, jsonObject{"Prefix": name + "/", "DataFormatConversionConfiguration": jsonObject{
			"SchemaConfiguration":       jsonObject{"RoleARN": role, "DatabaseName": "public", "TableName": "mixed"},
			"InputFormatConfiguration":  jsonObject{"Deserializer": jsonObject{"OpenXJsonSerDe": jsonObject{}}},
			"OutputFormatConfiguration": jsonObject{"Serializer": jsonObject{"ParquetSerDe": parquet}}}}), nil); err != nil {
			t.Fatal(err)
		}
		sent := map[int64]mixed{}
		var docs [][]byte
		for n := range int64(400) {
			sent[n] = newMixed(n)
			docs = append(docs, sent[n].document(t, "2006-01-02 15:04:05.999999"))
		}
		put(t, aws, name, docs...)
		var files []string
		for _, data := range flushed(t, s, name, name) {
			files = append(files, filepath.Join(t.TempDir(), "x.parquet"))
			if err := os.WriteFile(files[len(files)-1], []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		checkFiles(t, name, files, sent)
	}
}
