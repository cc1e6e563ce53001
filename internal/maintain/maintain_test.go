package maintain

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/record"
)

var tableName = catalog.Name{Namespace: "n", Table: "t"}

// house is a table over a real catalog, lake and engine.
type house struct {
	t       testing.TB
	dir     string
	store   lake.Store
	catalog *catalog.Catalog
	engine  *engine.Engine
	table   *catalog.Table
	now     atomic.Int64 // nanoseconds that the clock is ahead
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *house) clock() time.Time { return time.Now().Add(time.Duration(h.now.Load())) }

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir()}
	for _, d := range []string{"lake", "staging", "spill"} {
		check(t, os.Mkdir(filepath.Join(h.dir, d), 0o700))
	}
	ctx := context.Background()
	h.store = must[*lake.Local](t)(lake.OpenLocal(fsys.OS, filepath.Join(h.dir, "lake")))
	h.catalog = must[*catalog.Catalog](t)(catalog.Open(ctx, catalog.Options{Dir: h.dir, Warehouse: h.store, Owner: "test", Now: h.clock}))
	h.engine = must[*engine.Engine](t)(engine.Open(ctx, engine.Options{TempDir: filepath.Join(h.dir, "spill"), Threads: 2, AllowedDirs: []string{filepath.Join(h.dir, "lake"), filepath.Join(h.dir, "staging")}}))
	t.Cleanup(func() {
		check(t, h.engine.Close())
		check(t, h.catalog.Close())
	})
	check(t, h.catalog.CreateNamespace(ctx, "n", nil))
	h.table = must[*catalog.Table](t)(h.catalog.CreateTable(ctx, catalog.TableSpec{Name: tableName, PartitionBy: "day", Fields: []record.Field{
		{Name: "symbol", Type: record.Type{Kind: record.String}, Required: true},
		{Name: "seq", Type: record.Type{Kind: record.Long}, Required: true},
		{Name: "price", Type: record.Type{Kind: record.Decimal, Precision: 18, Scale: 4}},
		{Name: "day", Type: record.Type{Kind: record.Date}, Required: true},
	}}))
	return h
}

func (h *house) maintainer(edit func(*Options)) *Maintainer {
	o := Options{Catalog: h.catalog, Engine: h.engine, Store: h.store, Staging: filepath.Join(h.dir, "staging"), Now: h.clock}
	if edit != nil {
		edit(&o)
	}
	return must[*Maintainer](h.t)(New(o))
}

// add commits a file of n rows of a day, in no useful order.
func (h *house) add(day int32, first, n int) {
	h.t.Helper()
	ctx := context.Background()
	local := filepath.Join(h.dir, "staging", uuid.NewString()+".parquet")
	sql := fmt.Sprintf(`SELECT chr(CAST(65 + hash(i) %% 20 AS INTEGER)) AS symbol, CAST(i AS BIGINT) AS seq, CASE WHEN i %% 7 = 0 THEN NULL ELSE CAST(i AS DECIMAL(18,4)) / 10000 END AS price,
		CAST(DATE '1970-01-01' + %d AS DATE) AS day FROM range(%d, %d) AS r(i) ORDER BY hash(i)`, day, first, first+n)
	must[engine.Exported](h.t)(h.engine.Export(ctx, engine.Query{SQL: sql}, engine.ExportSpec{Path: local, Schema: h.table.Schema}))
	meta := must[catalog.FileStats](h.t)(catalog.ReadStats(local, h.table.Schema))
	name := fmt.Sprintf("%s/day=x/%s", h.table.DataDir(), filepath.Base(local))
	check(h.t, h.store.PutFile(ctx, name, local))
	path, _ := h.store.LocalPath(name)
	must[[]*catalog.Table](h.t)(h.catalog.Commit(ctx, []catalog.Commit{{Table: tableName, Add: []catalog.NewFile{{Path: path, Partition: catalog.Partition{Value: day, Has: true}, Stats: meta}}}}))
}

func (h *house) files() []catalog.DataFile {
	h.t.Helper()
	h.table = must[*catalog.Table](h.t)(h.catalog.Load(context.Background(), tableName))
	return must[[]catalog.DataFile](h.t)(h.catalog.Files(context.Background(), h.table, catalog.At{}))
}

// content is the table's rows as one text.
func (h *house) content(order string) string {
	h.t.Helper()
	files := h.files()
	pin := engine.NewPin(map[engine.Name]engine.Relation{engine.Name(tableName): Relation(h.table.Schema, files)})
	defer pin.Release()
	s := must[*engine.Session](h.t)(h.engine.InternalSession(context.Background()))
	defer func() { check(h.t, s.Close()) }()
	rows := must[*engine.Rows](h.t)(s.Query(context.Background(), engine.Query{Pin: pin, SQL: "SELECT md5(string_agg(symbol || seq || coalesce(CAST(price AS VARCHAR), '~') || day, '|'" + order + ")) FROM n.t"}))
	defer func() { check(h.t, rows.Close()) }()
	row := make([]any, 1)
	check(h.t, rows.Next(row))
	return row[0].(string)
}

func TestCompactSortsAndChangesNothing(t *testing.T) {
	h := newHouse(t)
	for i := range 6 {
		h.add(int32(20000+i%2), i*1000, 1000)
	}
	before := h.content(" ORDER BY seq")
	m := h.maintainer(nil)
	day := catalog.Partition{Value: 20000, Has: true}
	r := must[CompactResult](t)(m.Compact(t.Context(), tableName, day, CompactOptions{OrderBy: []string{"symbol", "seq"}}))
	if r.Rows != 3000 || r.FilesBefore != 3 || r.FilesAfter != 1 {
		t.Fatalf("%+v", r)
	}
	files := h.files()
	if len(files) != 4 || h.content(" ORDER BY seq") != before {
		t.Fatalf("%d files", len(files))
	}
	for _, f := range files {
		if f.Partition == day && (f.Rows != 3000 || len(f.Columns) != 4 || f.Columns[0].Lower == nil) {
			t.Fatalf("%+v", f)
		}
	}
	// The snapshot is a replacement: a delta sees nothing.
	snapshots := h.table.Snapshots()
	last := snapshots[len(snapshots)-1]
	d := must[catalog.Delta](t)(h.catalog.Delta(t.Context(), h.table, last.Parent, last.ID))
	if last.Operation != "replace" || !d.IsEmpty() {
		t.Fatalf("%s %+v", last.Operation, d)
	}
	// Again: nothing to do.
	head := h.table.Snapshot()
	must[CompactResult](t)(m.Compact(t.Context(), tableName, day, CompactOptions{}))
	if h.files(); h.table.Snapshot() != head {
		t.Fatal("compacted twice")
	}
	// One more small file is taken in.
	h.add(20000, 90_000, 10)
	r = must[CompactResult](t)(m.Compact(t.Context(), tableName, day, CompactOptions{}))
	if r.Rows != 3010 || r.FilesAfter != 1 {
		t.Fatalf("%+v", r)
	}
	if staged := must[[]os.DirEntry](t)(os.ReadDir(filepath.Join(h.dir, "staging"))); len(staged) != 0 {
		t.Fatalf("left behind: %v", staged)
	}
	if _, err := m.Compact(t.Context(), tableName, day, CompactOptions{OrderBy: []string{"nope"}}); err == nil {
		t.Fatal("unknown sort column")
	}
	if r, err := m.Compact(t.Context(), tableName, catalog.Partition{Value: 1, Has: true}, CompactOptions{}); err != nil || r.FilesBefore != 0 {
		t.Fatal(err)
	}
}

func TestGroupsStayBelowTheBound(t *testing.T) {
	var files []catalog.DataFile
	for range 10 {
		files = append(files, catalog.DataFile{SizeBytes: 100 << 20})
	}
	files = append(files, catalog.DataFile{SizeBytes: 300 << 20})
	total := 0
	for _, g := range groups(files) {
		var size int64
		for _, f := range g {
			size += f.SizeBytes
		}
		if size > fileSizeBytesMax && len(g) > 1 {
			t.Errorf("a group of %d files, %d bytes", len(g), size)
		}
		total += len(g)
	}
	if total != len(files) {
		t.Fatalf("%d files of %d", total, len(files))
	}
}

// racing is a catalog whose files change just before a compaction commits.
type racing struct {
	*catalog.Catalog
	before func()
}

func (r racing) Commit(ctx context.Context, commits []catalog.Commit, docs ...catalog.DocumentWrite) ([]*catalog.Table, error) {
	r.before()
	return r.Catalog.Commit(ctx, commits, docs...)
}

func TestCompactBesideOtherCommits(t *testing.T) {
	h := newHouse(t)
	h.add(20000, 0, 100)
	h.add(20000, 100, 100)
	day := catalog.Partition{Value: 20000, Has: true}
	// A flush in between is unharmed.
	m := h.maintainer(func(o *Options) { o.Catalog = racing{h.catalog, func() { h.add(20000, 200, 100) }} })
	must[CompactResult](t)(m.Compact(t.Context(), tableName, day, CompactOptions{}))
	if files := h.files(); len(files) != 2 {
		t.Fatalf("%d files", len(files))
	}
	// Another compaction in between makes this one fail, without a trace.
	other := h.maintainer(nil)
	m = h.maintainer(func(o *Options) {
		o.Catalog = racing{h.catalog, func() { must[CompactResult](t)(other.Compact(t.Context(), tableName, day, CompactOptions{})) }}
	})
	before := h.content(" ORDER BY seq")
	if _, err := m.Compact(t.Context(), tableName, day, CompactOptions{}); !errors.Is(err, catalog.ErrConflict) {
		t.Fatal(err)
	}
	if h.content(" ORDER BY seq") != before || len(h.files()) != 1 {
		t.Fatal("changed")
	}
}

func TestRoundRemovesWhatNothingNeeds(t *testing.T) {
	h := newHouse(t)
	for i := range 5 {
		h.add(20000, i*10, 10)
	}
	old := h.files()
	tagged := h.table.Snapshots()[1].ID
	must[[]*catalog.Table](t)(h.catalog.Commit(t.Context(), []catalog.Commit{{Table: tableName, Tags: map[string]int64{"eod": tagged}}}))
	var needs map[catalog.Name][]int64
	m := h.maintainer(func(o *Options) {
		o.SnapshotsMin, o.SnapshotAge, o.Grace, o.OrphanAge = 1, time.Minute, time.Minute, time.Hour
		o.Needs = func(context.Context) (map[catalog.Name][]int64, error) { return needs, nil }
	})
	must[CompactResult](t)(m.Compact(t.Context(), tableName, catalog.Partition{Value: 20000, Has: true}, CompactOptions{}))
	orphan := filepath.Join(filepath.Dir(old[0].Path), "executions-orphan.parquet")
	check(t, os.WriteFile(orphan, []byte("x"), 0o600))
	// A query holds one of the old files that no tag keeps. Files are sorted by
	// their random names, so it is the one that the last snapshot added.
	last := slices.IndexFunc(old, func(f catalog.DataFile) bool { return f.AddedBy == h.table.Snapshot() })
	held := old[last]
	pin := engine.NewPin(map[engine.Name]engine.Relation{engine.Name(tableName): Relation(h.table.Schema, old[last:last+1])})
	s := must[*engine.Session](t)(h.engine.InternalSession(t.Context()))
	rows := must[*engine.Rows](t)(s.Query(t.Context(), engine.Query{Pin: pin, SQL: "SELECT * FROM n.t"}))

	h.now.Store(int64(2 * time.Hour))
	h.files()
	needs = map[catalog.Name][]int64{tableName: {h.table.Snapshots()[0].ID}}
	if r := must[RoundResult](t)(m.Round(t.Context())); r.Snapshots != 0 {
		t.Fatalf("a view still needs them: %+v", r)
	}
	needs = nil
	r := must[RoundResult](t)(m.Round(t.Context()))
	if r.Snapshots != 4 || r.Files != 0 && r.Orphans > 1 {
		t.Fatalf("%+v", r)
	}
	if _, err := os.Stat(orphan); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("the orphan is still there")
	}
	h.now.Store(int64(3 * time.Hour))
	if r = must[RoundResult](t)(m.Round(t.Context())); r.Files == 0 || r.Pinned == 0 {
		t.Fatalf("%+v", r)
	}
	if _, err := os.Stat(held.Path); err != nil {
		t.Fatal("a pinned file was removed")
	}
	check(t, rows.Close())
	check(t, s.Close())
	pin.Release()
	must[RoundResult](t)(m.Round(t.Context()))
	if _, err := os.Stat(held.Path); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("released, and still there")
	}
	// The tag's two files are there, and readable.
	h.files()
	files := must[[]catalog.DataFile](t)(h.catalog.Files(t.Context(), h.table, catalog.At{Tag: "eod"}))
	for _, f := range files {
		if _, err := os.Stat(f.Path); err != nil {
			t.Fatal(err)
		}
	}
	if len(files) != 2 {
		t.Fatalf("%d files", len(files))
	}
}

func TestLoopRunsAndEnds(t *testing.T) {
	h := newHouse(t)
	asked := make(chan struct{}, 100)
	m := h.maintainer(func(o *Options) {
		o.Interval = time.Millisecond
		o.Needs = func(context.Context) (map[catalog.Name][]int64, error) {
			select {
			case asked <- struct{}{}:
			default:
			}
			return nil, errors.New("not now")
		}
	})
	m.Start()
	<-asked
	<-asked
	check(t, m.Close())
	check(t, m.Close())
}

// TestLoopWaitsForItsTurn: rounds of the loop are made when it is this server's
// turn, and a question that fails is no turn.
func TestLoopWaitsForItsTurn(t *testing.T) {
	h := newHouse(t)
	var turns atomic.Int64
	rounds := make(chan int64, 100)
	m := h.maintainer(func(o *Options) {
		o.Interval = time.Millisecond
		o.Turn = func(context.Context) (bool, error) {
			n := turns.Add(1)
			if n == 2 {
				return false, errors.New("not now")
			}
			return n > 3, nil
		}
		o.Needs = func(context.Context) (map[catalog.Name][]int64, error) {
			select {
			case rounds <- turns.Load():
			default:
			}
			return nil, errors.New("not now")
		}
	})
	m.Start()
	if first := <-rounds; first < 4 {
		t.Errorf("a round was made at turn %d, want none before the fourth", first)
	}
	check(t, m.Close())
}
