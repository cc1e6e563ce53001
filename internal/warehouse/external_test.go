package warehouse

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/hive"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/serde"
)

// countedBuckets are directories beside the lake, which count what is done with
// others' files.
type countedBuckets struct {
	dir string

	mu   sync.Mutex
	open map[string]*countedBucket
}

type countedBucket struct {
	*lake.LocalForeign
	listed, opened atomic.Int64
}

func (b *countedBuckets) bucket(_ context.Context, name string) (lake.Foreign, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if name != "lake" && name != "other" {
		return nil, fmt.Errorf("%w: no bucket %s", lake.ErrName, name)
	}
	if b.open[name] == nil {
		b.open[name] = &countedBucket{LocalForeign: lake.OpenLocalForeign(filepath.Join(b.dir, name))}
	}
	return b.open[name], nil
}

// take answers how many locations were listed and files opened since the last
// call.
func (b *countedBuckets) take() (listed, opened int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, x := range b.open {
		listed += x.listed.Swap(0)
		opened += x.opened.Swap(0)
	}
	return listed, opened
}

func (b *countedBucket) ListFiles(ctx context.Context, location string, fn func(lake.ForeignFile) error) error {
	b.listed.Add(1)
	return b.LocalForeign.ListFiles(ctx, location, fn)
}

func (b *countedBucket) OpenFile(ctx context.Context, f lake.ForeignFile) (lake.Reader, error) {
	b.opened.Add(1)
	return b.LocalForeign.OpenFile(ctx, f)
}

func (b *countedBucket) LinkFile(f lake.ForeignFile, path string) error {
	b.opened.Add(1)
	return b.LocalForeign.LinkFile(f, path)
}

func (h *house) file(t testing.TB, name string, content []byte) {
	t.Helper()
	p := filepath.Join(h.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

func (h *house) change(t testing.TB, c catalog.ExternalChange) {
	t.Helper()
	if err := h.catalog.ChangeExternals(context.Background(), []catalog.ExternalChange{c}); err != nil {
		t.Fatal(err)
	}
}

// TestExternalScripts runs the files of testdata/external: the cases of
// TestScripts, and
//
//	file name=lake/… [gzip]    a file that somebody drops into a bucket
//	parquet name=lake/…        the same, of a query's rows, by a DuckDB of its own
//	define table=ns.name       an external table, or its next version, as JSON
//	partitions table=ns.name   a JSON list of partitions
//	remove name=lake/…
//	counts                     how many locations were listed and files opened since
func TestExternalScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/external/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			h := newHouse(t)
			s := h.session(t)
			datadriven.RunTest(t, f, func(t *testing.T, d *datadriven.TestData) string {
				name := catalog.Name{}
				if d.HasArg("table") {
					var full string
					d.ScanArgs(t, "table", &full)
					name.Namespace, name.Table, _ = strings.Cut(full, ".")
				}
				path := ""
				d.MaybeScanArgs(t, "name", &path)
				switch d.Cmd {
				case "file":
					content := []byte(d.Input + "\n")
					if d.HasArg("gzip") {
						var b bytes.Buffer
						z := gzip.NewWriter(&b)
						_, err := z.Write(content)
						if err := errors.Join(err, z.Close()); err != nil {
							t.Fatal(err)
						}
						content = b.Bytes()
					}
					h.file(t, path, content)
					return ""
				case "parquet":
					h.file(t, path, nil)
					peer, err := engine.OpenPeer(t.Context(), 1)
					if err != nil {
						t.Fatal(err)
					}
					defer peer.Close()
					if err := peer.Exec(t.Context(), "COPY ("+d.Input+") TO "+engine.QuoteLiteral(filepath.Join(h.dir, path))+" (FORMAT parquet)"); err != nil {
						t.Fatal(err)
					}
					return ""
				case "remove":
					if err := os.Remove(filepath.Join(h.dir, path)); err != nil {
						t.Fatal(err)
					}
					return ""
				case "define":
					var table hive.Table
					if err := json.Unmarshal([]byte(d.Input), &table); err != nil {
						t.Fatal(err)
					}
					version := catalog.AnyVersion
					if _, err := h.catalog.External(t.Context(), name); errors.Is(err, catalog.ErrNotFound) {
						version = 0
					}
					h.change(t, catalog.ExternalChange{Table: name, IfVersion: int64(version), Define: &table})
					return ""
				case "partitions":
					var list []hive.Partition
					if err := json.Unmarshal([]byte(d.Input), &list); err != nil {
						t.Fatal(err)
					}
					h.change(t, catalog.ExternalChange{Table: name, IfVersion: catalog.AnyVersion, Put: list})
					return ""
				case "counts":
					listed, opened := h.buckets.take()
					return fmt.Sprintf("listed %d, opened %d\n", listed, opened)
				}
				return runCase(s, d)
			})
		})
	}
}

// TestExternalPartitionsMany: a statement that names few of many partitions lists
// and opens no other.
func TestExternalPartitionsMany(t *testing.T) {
	const many, each = 1000, 2
	h := newHouse(t)
	s := h.session(t)
	if err := h.catalog.CreateNamespace(t.Context(), "ext", nil); err != nil {
		t.Fatal(err)
	}
	table := hive.Table{PartitionKeys: []hive.Column{{Name: "dt", Type: "string"}, {Name: "n", Type: "int"}},
		Storage: &hive.Storage{Location: "s3://lake/many/", Columns: []hive.Column{{Name: "a", Type: "int"}}, Serde: &hive.Serde{Library: hive.CSVSerde}}}
	c := catalog.ExternalChange{Table: catalog.Name{Namespace: "ext", Table: "many"}, Define: &table}
	for i := range many {
		dt := fmt.Sprintf("2026-%04d", i)
		c.Put = append(c.Put, hive.Partition{Values: []string{dt, fmt.Sprint(i)}})
		for j := range each {
			h.file(t, fmt.Sprintf("lake/many/dt=%s/n=%d/%d.csv", dt, i, j), fmt.Appendf(nil, "%d\n", i))
		}
	}
	h.change(t, c)
	for _, q := range []struct {
		where  string
		args   []any
		opened int64
	}{
		{"dt = '2026-0007'", nil, each},
		{"n BETWEEN 10 AND 12", nil, 3 * each},
		{"n >= $1 AND n < 20 AND dt <> '2026-0015'", []any{int64(15)}, 5 * each}, // 20 is at the bound
		{"dt IN ('2026-0001', '2026-0999') OR n = 5", nil, 3 * each},
		{"n < 0", nil, each}, // the bound counts
		{"n < -1", nil, 0},
	} {
		h.buckets.take()
		out, err := run(s, "SELECT count(*), sum(a) FROM ext.many WHERE "+q.where, q.args...)
		if err != nil {
			t.Fatalf("%s: %v", q.where, err)
		}
		listed, opened := h.buckets.take()
		if opened != q.opened || listed*each != opened {
			t.Errorf("%s: %d locations listed and %d files opened, want %d; rows %v", q.where, listed, opened, q.opened, out.rows)
		}
	}
	out, err := run(s, "SELECT count(*), count(DISTINCT dt), sum(a) FROM ext.many")
	if err != nil || fmt.Sprint(out.rows) != "[[2000 1000 999000]]" {
		t.Errorf("%v, %v", out, err)
	}
}

// TestPartitionConstants reads partition values by the keys' types.
func TestPartitionConstants(t *testing.T) {
	for _, c := range []struct{ typ, value, want string }{
		{"int", "7", "7"}, {"int", "007", "7"}, {"int", "-7", "-7"}, {"int", "", "NULL"}, {"int", hive.DefaultPartition, "NULL"}, {"int", "2147483648", "!"}, {"int", "1.0", "!"}, {"int", "x", "!"},
		{"tinyint", "128", "!"}, {"bigint", "9223372036854775807", "9223372036854775807"}, {"string", "", ""}, {"string", "a/b c%", "a/b c%"}, {"string", hive.DefaultPartition, "NULL"}, {"varchar(3)", "abc", "abc"},
		{"date", "2026-01-02", "2026-01-02"}, {"date", "2026-02-30", "!"}, {"date", "20260102", "!"}, {"timestamp", "2026-01-02 03:04:05", "2026-01-02 03:04:05"}, {"timestamp", "2026-01-02", "2026-01-02"}, {"timestamp", "now", "!"},
		{"boolean", "TRUE", "true"}, {"boolean", "1", "!"}, {"decimal(5,2)", "1.5", "1.5"}, {"decimal(5,2)", "1.500", "1.500"}, {"decimal(5,2)", "1.505", "!"}, {"decimal(5,2)", "1000", "!"}, {"decimal(5,2)", "+1", "+1"}, {"decimal(5,2)", "1e2", "!"},
	} {
		typ, err := serde.ParseType(c.typ)
		if err != nil {
			t.Fatal(err)
		}
		got, err := partitionConstant(typ, c.value)
		text := got.Text
		if got.Null {
			text = "NULL"
		}
		if err != nil {
			text = "!"
		}
		if text != c.want {
			t.Errorf("%s %q: %s, want %s", c.typ, c.value, text, c.want)
		}
	}
}

func FuzzPartitionConstant(f *testing.F) {
	for _, s := range []string{"1", "-0.5", "2026-01-01", "true", "9999999999999999999", "+"} {
		f.Add(s)
	}
	var types []*serde.Type
	for _, s := range []string{"tinyint", "bigint", "decimal(18,4)", "decimal(38,10)", "date", "timestamp", "boolean", "string"} {
		t, err := serde.ParseType(s)
		if err != nil {
			f.Fatal(err)
		}
		types = append(types, t)
	}
	f.Fuzz(func(t *testing.T, value string) {
		for _, typ := range types {
			c, err := partitionConstant(typ, value)
			if err == nil && !c.Null && strings.ContainsAny(c.Text, "'\"") && typ.Kind != serde.String {
				t.Errorf("%s %q gives %q", typ, value, c.Text)
			}
		}
	})
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// BenchmarkExternalFiles reads one partition of 1,000 with 20 Parquet files each,
// and all of them.
func BenchmarkExternalFiles(b *testing.B) {
	h := newHouse(b)
	s := h.session(b)
	if err := h.catalog.CreateNamespace(b.Context(), "ext", nil); err != nil {
		b.Fatal(err)
	}
	peer, err := engine.OpenPeer(b.Context(), 1)
	if err != nil {
		b.Fatal(err)
	}
	one := filepath.Join(h.dir, "one.parquet")
	if err := peer.Exec(b.Context(), "COPY (SELECT range AS a, range::DECIMAL(18,4) AS p FROM range(1000)) TO "+engine.QuoteLiteral(one)+" (FORMAT parquet)"); err != nil {
		b.Fatal(err)
	}
	peer.Close()
	table := hive.Table{PartitionKeys: []hive.Column{{Name: "n", Type: "int"}}, Storage: &hive.Storage{Location: "s3://lake/many/", Serde: &hive.Serde{Library: hive.ParquetSerde},
		Columns: []hive.Column{{Name: "a", Type: "bigint"}, {Name: "p", Type: "decimal(18,4)"}}}}
	c := catalog.ExternalChange{Table: catalog.Name{Namespace: "ext", Table: "many"}, Define: &table}
	for i := range 1000 {
		c.Put = append(c.Put, hive.Partition{Values: []string{fmt.Sprint(i)}})
		dir := filepath.Join(h.dir, fmt.Sprintf("lake/many/n=%d", i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		for j := range 20 {
			if err := os.Link(one, filepath.Join(dir, fmt.Sprintf("%d.parquet", j))); err != nil {
				b.Fatal(err)
			}
		}
	}
	h.change(b, c)
	for _, q := range []string{"SELECT sum(p) FROM ext.many WHERE n = 500", "SELECT sum(p), count(DISTINCT n) FROM ext.many"} {
		b.Run(q, func(b *testing.B) {
			for b.Loop() {
				if _, err := run(s, q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestExternalKeyTypes: partitions are chosen by keys of every type that is
// compared, and conditions on others give the right rows all the same.
func TestExternalKeyTypes(t *testing.T) {
	h := newHouse(t)
	s := h.session(t)
	if err := h.catalog.CreateNamespace(t.Context(), "ext", nil); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		typ    string
		values []string
		where  string
		args   []any
		rows   string
		opened int64
	}{
		{"tinyint", []string{"1", "2", "3"}, "k = 2", nil, "[[2]]", 1},
		{"smallint", []string{"1", "2", hive.DefaultPartition}, "k <> 1", nil, "[[2]]", 1},
		{"bigint", []string{"1", "9223372036854775807", "-5"}, "k > $1", []any{int64(5)}, "[[9223372036854775807]]", 1},
		{"decimal(5,2)", []string{"1.50", "2.5", "-3"}, "k = 1.5", nil, "[[1.50]]", 1},
		{"decimal(5,2)", []string{"1.50", "2.5", "-3"}, "k BETWEEN -4 AND 0", nil, "[[-3.00]]", 1},
		{"decimal(30,2)", []string{"1.50", "2.5", "-3"}, "k = 1.5", nil, "[[1.50]]", 3},
		{"varchar(10)", []string{"a", "b c/d%", "it's"}, "k = 'it''s'", nil, "[[it's]]", 1},
		{"string", []string{"a", "b", "ü"}, "k IN ('ü', 'z')", nil, "[[ü]]", 1},
		{"date", []string{"2026-01-01", "2026-01-02", "1969-12-31"}, "k < '2026-01-01' OR k = date '2026-01-02'", nil, "[[1969-12-31] [2026-01-02]]", 3}, // the bound counts
		{"date", []string{"2026-01-01", "2026-01-02", "1969-12-31"}, "k NOT IN ('2026-01-01', '2026-01-02')", nil, "[[1969-12-31]]", 1},
		{"timestamp", []string{"2026-01-01 10:00:00", "2026-01-02", "1969-12-31 23:59:59.5"}, "k = '2026-01-02 00:00:00'", nil, "[[2026-01-02 00:00:00]]", 3},
		{"boolean", []string{"true", "FALSE", hive.DefaultPartition}, "NOT k", nil, "[[f]]", 3},
	} {
		name := fmt.Sprintf("k%d", i)
		d := hive.Table{PartitionKeys: []hive.Column{{Name: "k", Type: c.typ}}, Storage: &hive.Storage{Location: "s3://lake/" + name,
			Columns: []hive.Column{{Name: "a", Type: "int"}}, Serde: &hive.Serde{Library: hive.CSVSerde}}}
		change := catalog.ExternalChange{Table: catalog.Name{Namespace: "ext", Table: name}, Define: &d}
		for j, v := range c.values {
			h.file(t, fmt.Sprintf("lake/%s/%d", name, j), []byte("1\n"))
			change.Put = append(change.Put, hive.Partition{Values: []string{v}, Storage: &hive.Storage{Location: fmt.Sprintf("s3://lake/%s/%d", name, j)}})
		}
		h.change(t, change)
		h.buckets.take()
		out, err := run(s, "SELECT k FROM ext."+name+" WHERE "+c.where+" ORDER BY k", c.args...)
		if err != nil {
			t.Errorf("%s, %s: %v", c.typ, c.where, err)
			continue
		}
		if _, opened := h.buckets.take(); opened != c.opened || fmt.Sprint(out.rows) != c.rows {
			t.Errorf("%s, %s: rows %v of %d files, want %s of %d", c.typ, c.where, out.rows, opened, c.rows, c.opened)
		}
	}
}
