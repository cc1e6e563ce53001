package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/record"
)

// fakeTable is a stream's table and its tail: rows 0 … visible-1, of which the
// first committed ones are in data files.
type fakeTable struct {
	t    *testing.T
	e    *Engine
	dir  string
	name Name
	key  record.Key

	mu        sync.Mutex
	snapshot  int64
	data      []File
	committed int
	tail      []tailRange
	history   map[int64]Resolved
	released  int
	held      int
}

type tailRange struct {
	from, to int
	file     File
}

func newFakeTable(t *testing.T, dir string) *fakeTable {
	return &fakeTable{t: t, dir: dir, name: tradesName, key: record.Key{Incarnation: uuid.New()}, history: map[int64]Resolved{}}
}

// append adds n rows to the tail as one file.
func (f *fakeTable) append(n int) {
	f.mu.Lock()
	from := f.committed
	if len(f.tail) > 0 {
		from = f.tail[len(f.tail)-1].to
	}
	f.mu.Unlock()
	file := writeTrades(f.t, f.e, filepath.Join(f.dir, fmt.Sprintf("tail-%d-%d.parquet", from, from+n)), from, from+n)
	f.mu.Lock()
	f.tail = append(f.tail, tailRange{from, from + n, file})
	f.mu.Unlock()
}

// commit moves the tail to the table in one step.
func (f *fakeTable) commit() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.tail {
		f.data = append(f.data[:len(f.data):len(f.data)], r.file)
		f.committed = r.to
	}
	f.tail = nil
	f.snapshot++
	f.history[f.snapshot] = f.state()
}

func (f *fakeTable) state() Resolved {
	return Resolved{Name: f.name, Relation: Relation{Schema: trades, Files: f.data}, Snapshot: f.snapshot,
		Through: record.Vector{f.key: record.Offset(f.committed)}, Version: strconv.FormatInt(f.snapshot, 10)}
}

func (f *fakeTable) Resolve(_ context.Context, names []Name, at map[Name]At) ([]Resolved, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Resolved
	for _, n := range names {
		if n != f.name {
			return nil, &Error{Kind: Catalog, Message: "relation " + n.String() + " does not exist"}
		}
		if a := at[n]; !a.IsZero() {
			out = append(out, f.history[a.Snapshot])
			continue
		}
		out = append(out, f.state())
	}
	return out, nil
}

func (f *fakeTable) Tail(_ context.Context, _ Name, through record.Vector, _ bool) (Tail, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if int(through[f.key]) != f.committed {
		return Tail{}, ErrTailMoved
	}
	out := Tail{Through: record.Vector{f.key: record.Offset(f.committed)}, Release: func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.released++
		f.held--
	}}
	for _, r := range f.tail {
		out.Files = append(out.Files, TailFile{Path: r.file.Path, Rows: r.file.Rows})
		out.Through[f.key] = record.Offset(r.to)
	}
	f.held++
	return out, nil
}

func withFake(t *testing.T) (*Engine, *fakeTable) {
	f := newFakeTable(t, "")
	e, dir := newEngine(t, func(o *Options) { o.Tables, o.Tail, o.Registerer = f, f, prometheus.NewRegistry() })
	f.e, f.dir = e, dir
	return e, f
}

const countSQL = `SELECT count(*), count(DISTINCT id), coalesce(max(id), -1) FROM equities.executions`

func TestPinSnapshotAndTail(t *testing.T) {
	e, f := withFake(t)
	s := newSession(t, e)
	empty, err := e.Pin(t.Context(), []Name{tradesName}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Release()
	wantRows(t, s, Query{SQL: countSQL, Pin: empty}, "0|0|-1")
	wantRows(t, s, Query{SQL: `SELECT sum(price) + 1.5, max(executed_at) FROM equities.executions`, Pin: empty}, "NULL|NULL")

	f.append(100)
	f.commit()
	f.append(20)
	p1, err := e.Pin(t.Context(), []Name{tradesName, tradesName}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p1.Visible(tradesName)[f.key] != 120 || p1.Snapshot(tradesName) != 1 {
		t.Fatalf("pin: visible %v snapshot %d", p1.Visible(tradesName), p1.Snapshot(tradesName))
	}
	wantRows(t, s, Query{SQL: countSQL, Pin: p1}, "120|120|119")
	f.append(5)
	f.commit()
	f.append(7)
	wantRows(t, s, Query{SQL: countSQL, Pin: p1}, "120|120|119")
	p2, err := e.PinFresh(t.Context(), []Name{tradesName}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantRows(t, s, Query{SQL: countSQL, Pin: p2}, "132|132|131")
	// The kept tree of one state serves the other.
	average := Query{SQL: `SELECT sum(price) / count(*) FROM equities.executions a WHERE EXISTS (SELECT 1 FROM equities.executions)`, Exact: true}
	before := e.templates.Len()
	for pin, want := range map[*Pin]string{p1: "60.0000", p2: "66.0000", empty: "NULL"} {
		average.Pin = pin
		wantRows(t, s, average, want)
	}
	if n := e.templates.Len() - before; n != 1 {
		t.Errorf("the statement was rewritten %d times", n)
	}
	p3, err := e.Pin(t.Context(), []Name{tradesName}, map[Name]At{tradesName: {Snapshot: 1}})
	if err != nil {
		t.Fatal(err)
	}
	wantRows(t, s, Query{SQL: countSQL, Pin: p3}, "100|100|99")

	// Equal states are one view; files are pinned until the last release.
	p4, err := e.Pin(t.Context(), []Name{tradesName}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p4.tables[tradesName].bound != p2.tables[tradesName].bound {
		t.Error("equal states have two views")
	}
	tail := f.tail[0].file.Path
	p2.Release()
	p2.Release()
	if !e.Pinned(tail) {
		t.Error("a file of a held pin is not pinned")
	}
	rows, err := s.Query(t.Context(), Query{SQL: `SELECT id FROM equities.executions`, Pin: p4})
	if err != nil {
		t.Fatal(err)
	}
	p4.Release()
	if !e.Pinned(tail) {
		t.Error("a file of an open query is not pinned")
	}
	_ = rows.Close()
	if e.Pinned(tail) {
		t.Error("a file is pinned by nobody")
	}
	if _, err := s.Query(t.Context(), Query{SQL: countSQL, Pin: p4}); !errors.Is(err, ErrClosed) {
		t.Errorf("a released pin: %v", err)
	}
	p1.Release()
	p3.Release()
	empty.Release()
	if f.held != 0 || e.relations.inUse != 0 {
		t.Errorf("%d tails held, %v relations pinned", f.held, e.relations.inUse)
	}
	if _, err := e.Pin(t.Context(), []Name{{"no", "where"}}, nil); err == nil {
		t.Error("pinned a table that does not exist")
	}
}

// TestPinConsistency reads while rows arrive and commits move them: every pin
// must see a dense prefix, each row once, never fewer than before.
func TestPinConsistency(t *testing.T) {
	e, f := withFake(t)
	ctx, stop := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer stop()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			s, err := e.Session(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = s.Close() }()
			last := int64(0)
			for ctx.Err() == nil {
				p, err := e.Pin(t.Context(), []Name{tradesName}, nil)
				if err != nil {
					t.Error(err)
					return
				}
				want := int64(p.Visible(tradesName)[f.key])
				got, err := collectRows(t.Context(), s, Query{SQL: countSQL, Pin: p})
				p.Release()
				if err != nil {
					t.Error(err)
					return
				}
				if w := fmt.Sprintf("%d|%d|%d", want, want, want-1); got[0] != w {
					t.Errorf("pin of %d rows: %s", want, got[0])
				}
				if want < last {
					t.Errorf("went back from %d to %d", last, want)
				}
				last = want
			}
		})
	}
	for i := 0; ctx.Err() == nil; i++ {
		f.append(10 + i%7)
		if i%4 == 3 {
			f.commit()
		}
	}
	wg.Wait()
	if n := len(e.relations.pinned); n != 0 {
		t.Errorf("%d files are still pinned", n)
	}
	c, err := e.acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer e.giveBack(c)
	views, err := c.strings(t.Context(), `SELECT view_name FROM duckdb_views() WHERE schema_name = '`+pinSchema+`'`)
	if err != nil || len(views) > idleViewsMax {
		t.Errorf("%d views are left (%v)", len(views), err)
	}
}

func TestTailAlwaysMoving(t *testing.T) {
	f := &movingTail{fakeTable: newFakeTable(t, "")}
	e, _ := newEngine(t, func(o *Options) { o.Tables, o.Tail = f.fakeTable, f })
	if _, err := e.Pin(t.Context(), []Name{tradesName}, nil); !errors.Is(err, ErrTailMoved) {
		t.Fatalf("pin: %v", err)
	}
	if f.calls != tailAttempts {
		t.Fatalf("%d attempts", f.calls)
	}
}

type movingTail struct {
	*fakeTable
	calls int
}

func (m *movingTail) Tail(context.Context, Name, record.Vector, bool) (Tail, error) {
	m.calls++
	return Tail{}, ErrTailMoved
}

func TestSchemaEvolution(t *testing.T) {
	e, dir := newEngine(t)
	s := newSession(t, e)
	long, i32, text := record.Type{Kind: record.Long}, record.Type{Kind: record.Int}, record.Type{Kind: record.String}
	dec := func(p int) record.Type { return record.Type{Kind: record.Decimal, Precision: p, Scale: 2} }
	old := record.Schema{ID: 0, Fields: []record.Field{{ID: 1, Name: "a", Type: i32}, {ID: 2, Name: "price", Type: dec(9)}, {ID: 3, Name: "dropped", Type: text}}}
	a, b := filepath.Join(dir, "a.parquet"), filepath.Join(dir, "b.parquet")
	if _, err := e.Export(t.Context(), Query{SQL: `SELECT 1 AS a, 2.50 AS price, 'x' AS dropped`}, ExportSpec{Path: a, Schema: old}); err != nil {
		t.Fatal(err)
	}
	// a became long, price was renamed and widened, dropped went and its name
	// came back as another column.
	now := record.Schema{ID: 1, Fields: []record.Field{{ID: 4, Name: "dropped", Type: long}, {ID: 2, Name: "Cost 'n' \"fee\"", Type: dec(18)}, {ID: 1, Name: "a", Type: long}}}
	if _, err := e.Export(t.Context(), Query{SQL: `SELECT 5000000000 AS a, 1234567890123.25 AS "Cost 'n' ""fee""", 7 AS dropped`}, ExportSpec{Path: b, Schema: now}); err != nil {
		t.Fatal(err)
	}
	pin := NewPin(map[Name]Relation{{"t", "t"}: {Schema: now, Files: []File{{Path: a, Rows: 1}, {Path: b, Rows: 1, SchemaID: 1}}}})
	defer pin.Release()
	wantRows(t, s, Query{SQL: `SELECT * FROM t.t ORDER BY a`, Pin: pin}, "NULL|2.50|1", "7|1234567890123.25|5000000000")
	wantRows(t, s, Query{SQL: `SELECT a FROM t.t WHERE dropped IS NULL AND "Cost 'n' ""fee""" < 3`, Pin: pin}, "1")
	_, cols, err := s.Describe(t.Context(), Query{SQL: `SELECT * FROM t.t`, Pin: pin})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(cols) != "[{dropped BIGINT} {Cost 'n' \"fee\" DECIMAL(18,2)} {a BIGINT}]" {
		t.Errorf("columns: %v", cols)
	}
}

func TestPositionDeletes(t *testing.T) {
	e, dir := newEngine(t)
	s := newSession(t, e)
	f := []File{writeTrades(t, e, filepath.Join(dir, "a.parquet"), 0, 100), writeTrades(t, e, filepath.Join(dir, "b.parquet"), 100, 200), writeTrades(t, e, filepath.Join(dir, "c.parquet"), 200, 300)}
	del := filepath.Join(dir, "deletes.parquet")
	schema := record.Schema{Fields: []record.Field{{ID: 2147483546, Name: "file_path", Type: record.Type{Kind: record.String}}, {ID: 2147483545, Name: "pos", Type: record.Type{Kind: record.Long}}}}
	f[1].URI = "file://" + f[1].Path
	sql := `VALUES (` + QuoteLiteral(f[0].Path) + `, 3), (` + QuoteLiteral(f[0].Path) + `, 99), (` + QuoteLiteral(f[1].URI) + `, 0), ('elsewhere', 5)`
	if _, err := e.Export(t.Context(), Query{SQL: `SELECT * FROM (` + sql + `) AS v(file_path, pos)`}, ExportSpec{Path: del, Schema: schema}); err != nil {
		t.Fatal(err)
	}
	f[0].Deletes, f[1].Deletes = []string{del}, []string{del}
	pin := NewPin(map[Name]Relation{tradesName: {Schema: trades, Files: f}})
	defer pin.Release()
	wantRows(t, s, Query{SQL: `SELECT count(*), sum(id) FROM equities.executions`, Pin: pin}, "297|44648") // 44850 - 3 - 99 - 100
	wantRows(t, s, Query{SQL: `SELECT id FROM equities.executions WHERE id IN (2, 3, 99, 100, 101, 205) ORDER BY id`, Pin: pin}, "2", "101", "205")
	if !e.Pinned(del) {
		t.Error("the delete file is not pinned")
	}
}

func TestForeignFilesByName(t *testing.T) {
	e, dir := newEngine(t)
	c, err := e.acquire()
	if err != nil {
		t.Fatal(err)
	}
	a, b := filepath.Join(dir, "a.parquet"), filepath.Join(dir, "b.parquet")
	for path, sql := range map[string]string{a: `SELECT 1 AS x, 'p' AS y`, b: `SELECT 'q' AS y, 2::BIGINT AS x, 3 AS z`} {
		if err := c.exec(t.Context(), `COPY (`+sql+`) TO '`+path+`' (FORMAT parquet)`); err != nil {
			t.Fatal(err)
		}
	}
	e.giveBack(c)
	schema := record.Schema{Fields: []record.Field{{Name: "y", Type: record.Type{Kind: record.String}}, {Name: "x", Type: record.Type{Kind: record.Long}}, {Name: "z"}}}
	pin := NewPin(map[Name]Relation{{"ext", "t"}: {Schema: schema, Types: []string{"", "", "SMALLINT"}, ByName: true, Files: []File{{Path: a}, {Path: b}}}})
	defer pin.Release()
	wantRows(t, newSession(t, e), Query{SQL: `SELECT y, x, z FROM ext.t ORDER BY x`, Pin: pin}, "p|1|NULL", "q|2|3")
}
