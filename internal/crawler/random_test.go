package crawler

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
)

// randomTree fills a bucket with folders of all kinds, and returns those with files.
func randomTree(t *testing.T, r *rand.Rand, b *bucket, parquetFiles []string) (folders []string) {
	content := func(kind int) (ext, data string) {
		n := r.IntN(1000)
		switch kind {
		case 0:
			return ".csv", fmt.Sprintf("id,price,at\n%d,%d.5,2026-11-25\n%d,,\n", n, n, n)
		case 1:
			return ".csv", fmt.Sprintf("%d;x;%d\n%d;y;%d\n", n, n, n, n)
		case 2:
			return ".json", fmt.Sprintf(`{"a":%d,"b":{"c":"x"}}`+"\n", n)
		case 3:
			return ".json", fmt.Sprintf(`{"a":%d.25,"d":[%d]}`+"\n", n, n)
		}
		return ".parquet", parquetFiles[r.IntN(len(parquetFiles))]
	}
	var fill func(path string, depth, kind int)
	fill = func(path string, depth, kind int) {
		files := depth >= 3 || r.IntN(3) == 0
		if files {
			folders = append(folders, path)
			for i := range 1 + r.IntN(4) {
				k := kind
				if r.IntN(12) == 0 {
					k = r.IntN(5)
				}
				ext, data := content(k)
				b.put(fmt.Sprintf("%sf%d%s", path, i, ext), data)
			}
		}
		if depth >= 3 || files && r.IntN(3) > 0 {
			return
		}
		names := [][]string{{"k=1/", "k=2/", "k=3/"}, {"aapl/", "msft/", "zed/"}, {"2025/", "2026/"}, {"one/"}, {"a=1/", "b=2/"}}[r.IntN(5)]
		for _, n := range names {
			k := kind
			if r.IntN(6) == 0 {
				k = r.IntN(5)
			}
			fill(path+n, depth+1, k)
		}
	}
	for _, top := range []string{"x/", "y/", "z/"} {
		fill(top, 1, r.IntN(5))
	}
	return folders
}

// outline is what readers of the tables depend on, without figures.
func (w *world) outline() string {
	w.t.Helper()
	list, err := w.cat.Externals(context.Background(), "files")
	must(w.t, err)
	var b strings.Builder
	for _, e := range list {
		d := e.Definition
		fmt.Fprintf(&b, "%s %s %v by %v", e.Name.Table, d.Storage.Location, d.Storage.Columns, d.PartitionKeys)
		if d.Parameters[paramDeprecated] != "" {
			b.WriteString(" deprecated")
		}
		b.WriteByte('\n')
		for _, p := range w.partitions(e.Name.Table) {
			fmt.Fprintf(&b, "  %q %s %q\n", p.Values, p.Storage.Location, p.Parameters[paramDeprecated])
		}
	}
	return b.String()
}

// TestRandomTrees: whatever lies there, the plan is what the crawl does, a second crawl
// does nothing, bad files change no table, and no file is in two tables.
func TestRandomTrees(t *testing.T) {
	parquetFiles := []string{
		parquetFile(t, 2, arrow.Field{Name: "id", Type: arrow.PrimitiveTypes.Int64}, arrow.Field{Name: "price", Type: &arrow.Decimal128Type{Precision: 18, Scale: 4}}),
		parquetFile(t, 2, arrow.Field{Name: "id", Type: arrow.PrimitiveTypes.Int32}, arrow.Field{Name: "price", Type: &arrow.Decimal128Type{Precision: 20, Scale: 6}}),
		parquetFile(t, 2, arrow.Field{Name: "id", Type: arrow.PrimitiveTypes.Float64}, arrow.Field{Name: "venue", Type: arrow.BinaryTypes.String}),
	}
	seeds := uint64(60)
	if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 7))
		w := newWorld(t)
		folders := randomTree(t, r, w.bucket, parquetFiles)
		d := w.define(Definition{Policy: SchemaChangePolicy{DeleteBehavior: Delete}})
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("seed %d: %s", seed, fmt.Sprintf(format, args...))
		}
		plan, err := w.m.Plan(context.Background(), d)
		must(t, err)
		if w.outline() != "" {
			fail("a plan changed the catalog")
		}
		did := w.crawl("c")
		if text(t, plan) != text(t, did) {
			fail("the plan was\n%s\nthe crawl did\n%s", text(t, plan), text(t, did))
		}
		before := w.outline()
		again := w.crawl("c")
		for _, table := range again.Tables {
			if table.Changed() {
				fail("a second crawl changed %+v\nfirst\n%s\nsecond\n%s", table, text(t, did), text(t, again))
			}
		}
		if w.outline() != before {
			fail("a second crawl made\n%s\nof\n%s", w.outline(), before)
		}
		for range 1 + r.IntN(6) {
			f := folders[r.IntN(len(folders))]
			bad := [][2]string{{"bad.parquet", "PAR1 and no footer"}, {"empty.csv", ""}, {"blank.json", "\n"}, {"notes.txt", "some words\nand more\n"}, {"head.csv", "id,price,at\n"},
				{"cut.json", `{"a":`}, {"0.bin", "\x00\x01"}, {"a.orc", "ORC and more than that"}}[r.IntN(8)]
			w.bucket.put(f+bad[0], bad[1])
		}
		third := w.crawl("c")
		if w.outline() != before {
			fail("bad files made\n%s\nof\n%s\nreport\n%s", w.outline(), before, text(t, third))
		}
		w.close()
	}
}

// text is a report without what differs between a plan and a crawl.
func text(t *testing.T, r *Report) string {
	var b strings.Builder
	_, err := r.WriteTo(&b)
	must(t, err)
	_, rest, _ := strings.Cut(b.String(), "\n")
	return rest
}

// TestBoundsOfNames: what is too deep or too long is named.
func TestBoundsOfNames(t *testing.T) {
	w := newWorld(t)
	w.bucket.put(strings.Repeat("d/", folderDepthMax+1)+"a.csv", "a,b\n1,2\n")
	w.bucket.put("x/"+strings.Repeat("n", nameLengthMax)+".csv", "a,b\n1,2\n")
	w.bucket.put(strings.Repeat("e/", folderDepthMax)+"a.csv", "a,b\n1,2\n")
	w.define(Definition{})
	r := w.crawl("c")
	if len(r.Skipped) != 2 || len(r.Tables) != 1 {
		t.Errorf("%+v", r)
	}
	long := strings.Repeat("long", 60)
	w.bucket.put("l/"+long+"1/a.json", `{"a":1}`+"\n")
	w.bucket.put("l/"+long+"2/a.json", `{"b":1,"c":2}`+"\n")
	w.crawl("c")
	for _, name := range w.tables() {
		if len(name) > tableNameMax {
			t.Errorf("table %s", name)
		}
	}
	if n := len(w.tables()); n != 3 {
		t.Errorf("%d tables: %v", n, w.tables())
	}
}

// TestOrderOfFiles: the columns' types do not depend on the order of files.
func TestOrderOfFiles(t *testing.T) {
	files := []string{`{"a":1,"b":"2026-11-25"}`, `{"a":1.5,"c":{"x":1}}`, `{"a":1e3,"b":"2026-11-25T00:00:00Z"}`, `{"c":{"y":[1,2.5]}}`, `{"a":"x","c":null}`}
	want := ""
	r := rand.New(rand.NewPCG(1, 1))
	for range 30 {
		r.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
		w := newWorld(t)
		for i, f := range files {
			w.bucket.put(fmt.Sprintf("t/k=%d/a.json", i), f+"\n")
		}
		w.define(Definition{})
		w.crawl("c")
		var columns []string
		for _, c := range w.table("t").Definition.Storage.Columns {
			s := canonical(parseType(c.Type))
			columns = append(columns, c.Name+" "+s)
		}
		slices.Sort(columns)
		got := strings.Join(columns, "\n")
		if want == "" {
			want = got
		}
		if got != want {
			t.Fatalf("%q gives\n%s\nanother order gave\n%s", files, got, want)
		}
		w.close()
	}
}
