package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/ledger"
	"github.com/tapehouse/tapehouse/internal/wal"
)

// lakehouse is a running delivery into a real table with the key (a, b).
type lakehouse struct {
	t       testing.TB
	dir     string
	catalog *catalog.Catalog
	engine  *engine.Engine
	store   *lake.Local
	m       *Manager
	deliver func(Delivery, func() error) error // around the destination's
}

// around lets a test act around commits.
type around struct {
	*Iceberg
	h *lakehouse
}

func (a around) Deliver(ctx context.Context, d Delivery) error {
	return a.h.deliver(d, func() error { return a.Iceberg.Deliver(ctx, d) })
}

var keyedT = catalog.Name{Namespace: "n", Table: "t"}

func openLakehouse(t testing.TB) *lakehouse {
	t.Helper()
	h := &lakehouse{t: t, dir: t.TempDir(), deliver: func(_ Delivery, do func() error) error { return do() }}
	sub := func(name string) string { return filepath.Join(h.dir, name) }
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"lake", "staging", "spill", "tail"} {
		check(os.Mkdir(sub(d), 0o700))
	}
	ctx := context.Background()
	var err error
	h.store, err = lake.OpenLocal(fsys.OS, sub("lake"))
	check(err)
	h.catalog, err = catalog.Open(ctx, catalog.Options{Dir: h.dir, Warehouse: h.store, Owner: "test"})
	check(err)
	h.engine, err = engine.Open(ctx, engine.Options{TempDir: sub("spill"), Threads: 2, AllowedDirs: []string{sub("lake"), sub("staging"), sub("tail")}})
	check(err)
	check(h.catalog.CreateNamespace(ctx, "n", nil))
	_, err = h.catalog.CreateTable(ctx, catalog.TableSpec{Name: keyedT, Fields: keyedSchema.Fields})
	check(err)
	log, err := wal.Open(ctx, fsys.OS, sub("log"), wal.Options{SegmentBytes: 4 << 20})
	check(err)
	led, err := ledger.Open(fsys.OS, LedgerCheckpoint(h.dir), ledger.Options{})
	check(err)
	h.m, err = Open(ctx, Options{
		FS: fsys.OS, Dir: h.dir, Log: log, Ledger: led, Documents: newWorld(), Errors: h.store,
		Destination: func(c Config, n catalog.Name) (Destination, error) {
			return around{&Iceberg{Catalog: h.catalog, Lake: h.store, FS: fsys.OS, Staging: sub("staging"), Table: n, Stream: c.Name, Keys: c.Keys[n.String()], Engine: h.engine}, h}, nil
		},
		Objects:   func(_ Config, role string) (ObjectDestination, error) { return objects{role, h.store, newWorld()}, nil },
		Processor: func(context.Context, Config) (Processor, error) { return operator{}, nil },
		Logger:    slog.New(slog.DiscardHandler), RetryWait: time.Millisecond,
	})
	check(err)
	_, err = h.m.Create(ctx, keyedConfig)
	check(err)
	t.Cleanup(func() {
		check(h.m.Close(context.Background()))
		check(log.Close())
		check(h.engine.Close())
		check(h.catalog.Close())
	})
	return h
}

func (h *lakehouse) put(docs ...string) {
	h.t.Helper()
	s, err := h.m.Stream("s")
	if err == nil {
		_, err = s.Put(context.Background(), docsOf(docs...))
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *lakehouse) files() []catalog.DataFile {
	h.t.Helper()
	t, err := h.catalog.Load(context.Background(), keyedT)
	if err != nil {
		h.t.Fatal(err)
	}
	files, err := h.catalog.Files(context.Background(), t, catalog.At{})
	if err != nil {
		h.t.Fatal(err)
	}
	return files
}

// published is what the table's files hold.
func (h *lakehouse) published() string {
	h.t.Helper()
	r := engine.Relation{Schema: keyedSchema}
	for _, f := range h.files() {
		r.Files = append(r.Files, engineFile(f))
	}
	pin := engine.NewPin(map[engine.Name]engine.Relation{engine.Name(keyedT): r})
	defer pin.Release()
	var out []string
	d := &Iceberg{Engine: h.engine}
	if err := d.query(context.Background(), engine.Query{SQL: "SELECT concat(a, '/', CAST(b AS VARCHAR), '=', v) FROM n.t ORDER BY 1", Pin: pin}, 1, func(row []any) error {
		out = append(out, fmt.Sprint(row[0]))
		return nil
	}); err != nil {
		h.t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func (h *lakehouse) flush() {
	h.t.Helper()
	if err := h.m.Flush(context.Background()); err != nil {
		h.t.Fatal(err)
	}
}

// A flush finds each row that it removes once, and only in files that may hold
// it; what is removed already is not removed again.
func TestFlushFindsRows(t *testing.T) {
	h := openLakehouse(t)
	h.put(`insert {"a":"x","b":1,"v":1}`, `insert {"a":"y","b":1,"v":2}`, `insert {"a":"x","b":1,"v":3}`)
	h.flush()
	h.put(`insert {"a":"p","b":1,"v":4}`)
	h.flush()
	for v := range 5 {
		h.put(fmt.Sprintf(`update {"a":"x","b":1.00,"v":%d}`, 10+v))
		h.flush()
	}
	if got := h.published(); got != "p/1.00=4 x/1.00=14 y/1.00=2" {
		t.Error(got)
	}
	var rows, deleted int64
	for _, f := range h.files() {
		rows += f.Rows
		for _, d := range f.Deletes {
			if d.DataFile != f.URI() {
				t.Errorf("deletes of %s stand with %s", d.DataFile, f.URI())
			}
			deleted += d.Rows
		}
	}
	if rows-deleted != 3 {
		t.Errorf("%d rows, %d of them deleted", rows, deleted)
	}
	h.put(`delete {"a":"nobody","b":1}`, `insert {"a":"z","b":1,"v":20}`, `delete {"a":"z","b":1}`)
	before := len(h.files())
	h.flush()
	if len(h.files()) != before {
		t.Error("a stretch that leaves nothing has made a file")
	}
	if left, err := os.ReadDir(filepath.Join(h.dir, "staging")); err != nil || len(left) != 0 {
		t.Errorf("left in staging: %v %v", left, err)
	}
}

// farLake is a lake elsewhere.
type farLake struct{ lake.Store }

func (farLake) Name(string) (string, bool)      { return "n/t/f", true }
func (farLake) LocalPath(string) (string, bool) { return "", false }

// Files of a lake elsewhere are looked into as many at a time as fit into any
// cache.
func TestLookupsFitTheCache(t *testing.T) {
	var files []catalog.DataFile
	for _, mib := range []int64{40, 40, 20, 10, 100, 1, 63, 1} {
		files = append(files, catalog.DataFile{SizeBytes: mib << 20})
	}
	var got []int
	for _, g := range (&Iceberg{Lake: farLake{}}).lookups(files) {
		got = append(got, len(g))
	}
	if fmt.Sprint(got) != "[1 2 1 1 2 1]" {
		t.Error(got)
	}
	h := openLakehouse(t)
	for range 2 {
		h.put(`insert {"a":"x","b":1,"v":1}`)
		h.flush()
	}
	if groups := (&Iceberg{Lake: h.store}).lookups(h.files()); len(groups) != 1 || len(groups[0]) != 2 {
		t.Error(groups)
	}
}

// What is committed between the look-up and the commit makes the flush look
// again; an open outcome is decided by the table.
func TestFlushLooksAgain(t *testing.T) {
	h := openLakehouse(t)
	h.put(`insert {"a":"x","b":1,"v":1}`)
	h.flush()
	file := h.files()[0]
	tries := 0
	h.deliver = func(_ Delivery, do func() error) error {
		if tries++; tries == 1 {
			return errors.New("not today")
		}
		err := do()
		if tries == 2 && err == nil {
			return errors.New("done, but the answer is lost")
		}
		return err
	}
	h.put(`update {"a":"x","b":1,"v":2}`)
	h.flush()
	if got := h.published(); got != "x/1.00=2" || tries != 2 {
		t.Error(got, tries)
	}
	// A foreign writer appends a row with the key while the flush is on its way.
	at := filepath.Join(h.dir, "staging", "foreign.parquet")
	inserted := false
	h.deliver = func(d Delivery, do func() error) error {
		if !inserted {
			inserted = true
			// The flush has loaded its snapshot when its first lake file appears;
			// here the commit comes before it is tried at all.
			if _, err := h.engine.Export(context.Background(), engine.Query{SQL: "SELECT 'x' AS a, 1 AS b, 9 AS v, 0 AS record_offset"}, engine.ExportSpec{Path: at, Schema: keyedSchema}); err != nil {
				return err
			}
			stats, err := catalog.ReadStats(at, keyedSchema)
			if err != nil {
				return err
			}
			name := strings.TrimSuffix(file.Path, ".parquet") + "-foreign.parquet"
			rel, _ := h.store.Name("file://" + name)
			if err := h.store.PutFile(context.Background(), rel, at); err != nil {
				return err
			}
			stale, err := h.catalog.Load(context.Background(), keyedT)
			if err != nil {
				return err
			}
			if _, err := h.catalog.Commit(context.Background(), []catalog.Commit{{Table: keyedT, Add: []catalog.NewFile{{Path: name, Stats: stats}}}}); err != nil {
				return err
			}
			d := d
			err = (&Iceberg{Catalog: h.catalog, Lake: h.store, FS: fsys.OS, Staging: filepath.Join(h.dir, "staging"), Table: keyedT, Stream: "s", Keys: []string{"a", "b"}, Engine: h.engine}).deliverChanges(context.Background(), stale, d)
			if !errors.Is(err, catalog.ErrConflict) {
				t.Errorf("a flush by a stale snapshot: %v", err)
			}
			return err
		}
		return do()
	}
	h.put(`update {"a":"x","b":1,"v":3}`)
	h.flush()
	if got := h.published(); got != "x/1.00=3" {
		t.Error(got)
	}
}

// BenchmarkFlushChanges publishes 10,000 updates of random keys, of a million.
func BenchmarkFlushChanges(b *testing.B) {
	h := openLakehouse(b)
	const keys, step = 1_000_000, 50_000
	r := rng(1)
	doc := func(op string, k int) string {
		return fmt.Sprintf(`%s {"a":"account-%d","b":%d,"v":%d}`, op, k, k%7, k)
	}
	batch := func(n int, next func(i int) string) {
		for from := 0; from < n; from += 500 {
			docs := make([]string, 0, 500)
			for i := from; i < min(n, from+500); i++ {
				docs = append(docs, next(i))
			}
			h.put(docs...)
		}
	}
	for from := 0; from < keys; from += step {
		batch(step, func(i int) string { return doc("insert", from+i) })
		if from%(2*step) == 0 {
			h.flush()
		}
	}
	h.flush()
	b.ResetTimer()
	var took time.Duration
	for b.Loop() {
		batch(10_000, func(int) string { return doc("update", r.IntN(keys)) })
		s, err := h.m.Stream("s")
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.tables()[0].ask(context.Background(), askVisible); err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		h.flush()
		took += time.Since(start)
	}
	b.ReportMetric(float64(took.Milliseconds())/float64(b.N), "flush-ms")
	b.ReportMetric(float64(len(h.files())), "files")
}
