package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/record"
)

var corrections = Name{"equities", "corrections"}

func TestMultiTableAtomicity(t *testing.T) {
	ctx := t.Context()
	boom := errors.New("disk")
	for _, test := range []struct {
		name string
		hook func(n *int) hooks
		done bool
		err  error
	}{
		{"no fault", func(*int) hooks { return hooks{} }, true, nil},
		{"before commit, once", func(n *int) hooks {
			return hooks{beforeCommit: func() error {
				if *n++; *n == 1 {
					return boom
				}
				return nil
			}}
		}, true, nil},
		{"before commit, always", func(*int) hooks {
			return hooks{beforeCommit: func() error { return boom }}
		}, false, boom},
		{"after commit", func(*int) hooks {
			return hooks{afterCommit: func() error { return boom }}
		}, true, nil},
		{"after commit, lookup fails a while", func(n *int) hooks {
			return hooks{afterCommit: func() error { return boom }, lookup: func() error {
				if *n++; *n < 3 {
					return boom
				}
				return nil
			}}
		}, true, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			c := w.open()
			a, b := mustCreate(t, c, executionsSpec(executions)), mustCreate(t, c, executionsSpec(corrections))
			before := countFiles(t, w.store, "")
			n := 0
			c.hook = test.hook(&n)
			out, err := c.Commit(ctx, []Commit{
				{Table: executions, Add: []NewFile{ghost(a, date0, 0, 3)}, Through: through(3), RequireThrough: &record.Vector{}},
				{Table: corrections, Add: []NewFile{ghost(b, date0, 0, 4)}, Through: through(4), RequireThrough: &record.Vector{}},
			}, DocumentWrite{Kind: "seal", Key: "2026-11-23", Body: json.RawMessage(`{"sealed":true}`)})
			c.hook = hooks{}
			if !errors.Is(err, test.err) || (err == nil) != test.done {
				t.Fatalf("Commit = %v", err)
			}
			if test.done && (out[0].Name != executions || out[1].Through()[key0] != 4) {
				t.Errorf("returned states %+v", out)
			}
			if !test.done {
				if after := countFiles(t, w.store, ""); after != before {
					t.Errorf("a refused commit left %d files", after-before)
				}
			}
			for _, c := range []*Catalog{c, w.open()} {
				ts, err := c.LoadAll(ctx, []Name{executions, corrections})
				if err != nil {
					t.Fatal(err)
				}
				_, docErr := c.GetDocument(ctx, "seal", "2026-11-23")
				have := []bool{ts[0].Through()[key0] == 3, ts[1].Through()[key0] == 4, rowsOf(files(t, c, ts[0], At{})) == 3, rowsOf(files(t, c, ts[1], At{})) == 4, docErr == nil}
				for i, h := range have {
					if h != test.done {
						t.Errorf("part %d done = %v, want %v", i, h, test.done)
					}
				}
			}
		})
	}
}

func TestConflictInOneTableStopsAll(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	c := w.open()
	a := mustCreate(t, c, executionsSpec(executions))
	mustCreate(t, c, executionsSpec(corrections))
	add := Commit{Table: executions, Add: []NewFile{ghost(a, date0, 0, 3)}, Through: through(3)}
	before := countFiles(t, w.store, "")
	if _, err := c.Commit(ctx, []Commit{add, {Table: corrections, Through: through(1), RequireThrough: ptr(through(9))}}); !errors.Is(err, ErrConflict) {
		t.Errorf("Commit = %v", err)
	}
	if _, err := c.Commit(ctx, []Commit{add}, DocumentWrite{Kind: "k", Key: "v", IfVersion: 7, Body: json.RawMessage(`1`)}); !errors.Is(err, ErrConflict) {
		t.Errorf("Commit = %v", err)
	}
	if _, err := c.Commit(ctx, []Commit{add, add}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a table twice: %v", err)
	}
	tbl, err := c.Load(ctx, executions)
	if err != nil || tbl.Snapshot() != 0 {
		t.Errorf("snapshot %d, %v", tbl.Snapshot(), err)
	}
	if after := countFiles(t, w.store, ""); after != before {
		t.Errorf("%d files were left", after-before)
	}
}

func TestUnknownOutcomePoisons(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	c := w.open()
	mustCreate(t, c, executionsSpec(executions))
	c.lookupMax = time.Second
	boom := errors.New("disk")
	c.hook = hooks{afterCommit: func() error { return boom }, lookup: func() error { return boom }}
	if _, err := c.Commit(ctx, []Commit{{Table: executions, Through: through(3)}}); !errors.Is(err, ErrPoisoned) {
		t.Fatalf("Commit = %v", err)
	}
	c.hook = hooks{}
	if _, err := c.Load(ctx, executions); !errors.Is(err, ErrPoisoned) {
		t.Errorf("Load = %v", err)
	}
	// Opened again, it shows what was done.
	c = w.open()
	if tbl, err := c.Load(ctx, executions); err != nil || tbl.Through()[key0] != 3 {
		t.Errorf("through after reopening: %v, %v", tbl, err)
	}
	// The caller who repeats its commit learns that it was superseded.
	if _, err := c.Commit(ctx, []Commit{{Table: executions, Through: through(3), RequireThrough: &record.Vector{}}}); !errors.Is(err, ErrConflict) {
		t.Errorf("repeated commit: %v", err)
	}
}

func TestFencing(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	zombie := w.open()
	tbl := mustCreate(t, zombie, executionsSpec(executions))
	owner := w.open()
	if owner.Epoch() <= zombie.Epoch() {
		t.Fatalf("epochs %d, %d", zombie.Epoch(), owner.Epoch())
	}
	before := countFiles(t, w.store, "")
	for name, f := range map[string]func() error{
		"commit": func() error {
			_, err := zombie.Commit(ctx, []Commit{{Table: executions, Add: []NewFile{ghost(tbl, date0, 0, 3)}, Through: through(3)}})
			return err
		},
		"document": func() error {
			_, err := zombie.PutDocument(ctx, DocumentWrite{Kind: "k", Key: "v", Body: json.RawMessage(`1`)})
			return err
		},
		"create": func() error { _, err := zombie.CreateTable(ctx, executionsSpec(corrections)); return err },
		"drop":   func() error { return zombie.DropTable(ctx, executions) },
		"column": func() error {
			_, err := zombie.AddColumn(ctx, executions, record.Field{Name: "x", Type: record.Type{Kind: record.Long}})
			return err
		},
		"namespace": func() error { return zombie.CreateNamespace(ctx, "x", nil) },
	} {
		if err := f(); !errors.Is(err, ErrFenced) {
			t.Errorf("%s by the former owner: %v, want ErrFenced", name, err)
		}
	}
	if after := countFiles(t, w.store, ""); after != before {
		t.Errorf("the fenced process left %d files", after-before)
	}
	commit(t, owner, Commit{Table: executions, Add: []NewFile{ghost(tbl, date0, 0, 3)}, Through: through(3)})

	// An outcome is exact even when a new owner came between commit and lookup.
	owner.hook.afterCommit = func() error { w.open(); return errors.New("disk") }
	tbl = commit(t, owner, Commit{Table: executions, Through: through(9)})
	if tbl.Through()[key0] != 9 {
		t.Errorf("through = %v", tbl.Through())
	}
	owner.hook = hooks{}
	if _, err := owner.Commit(ctx, []Commit{{Table: executions, Through: through(10)}}); !errors.Is(err, ErrFenced) {
		t.Errorf("commit after the third open: %v", err)
	}
}

func TestReadOnly(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	if _, err := Open(ctx, Options{Dir: w.dir, Postgres: w.postgres, Warehouse: w.store, ReadOnly: true}); err == nil {
		t.Fatal("read-only open of nothing succeeded")
	}
	c := w.open()
	tbl := mustCreate(t, c, executionsSpec(executions))
	reader := w.open(func(o *Options) { o.ReadOnly = true })
	commit(t, c, Commit{Table: executions, Add: []NewFile{ghost(tbl, date0, 0, 3)}}) // not fenced
	seen, err := reader.Load(ctx, executions)
	if err != nil || rowsOf(files(t, reader, seen, At{})) != 3 {
		t.Errorf("reader sees %v, %v", seen, err)
	}
	if _, err := reader.Commit(ctx, []Commit{{Table: executions, Through: through(1)}}); !errors.Is(err, ErrReadOnly) {
		t.Errorf("commit: %v", err)
	}
	if _, err := reader.Expire(ctx, executions, ExpirePolicy{}); !errors.Is(err, ErrReadOnly) {
		t.Errorf("expire: %v", err)
	}
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Load(ctx, executions); !errors.Is(err, ErrClosed) {
		t.Errorf("load after close: %v", err)
	}
}

func TestVersionIsChecked(t *testing.T) {
	w := newWorld(t)
	if err := w.open().Close(); err != nil {
		t.Fatal(err)
	}
	o := Options{Dir: w.dir, Postgres: w.postgres, Warehouse: w.store}
	w.exec(`UPDATE schema_version SET version = 99`)
	_, err := Open(t.Context(), o)
	var v *VersionError
	if !errors.As(err, &v) || v.Have != 99 || v.Know != schemaVersion {
		t.Errorf("Open = %v, want a VersionError", err)
	}
	w.exec(`DROP TABLE schema_version`)
	if _, err = Open(t.Context(), o); err == nil {
		t.Error("opened another program's database")
	}
}

func TestWriterIsDurable(t *testing.T) {
	c := newSQLiteWorld(t).open()
	var mode string
	var synchronous int
	if err := errors.Join(c.writer.QueryRow(`PRAGMA journal_mode`).Scan(&mode), c.writer.QueryRow(`PRAGMA synchronous`).Scan(&synchronous)); err != nil {
		t.Fatal(err)
	}
	if mode != "wal" || synchronous != 2 {
		t.Errorf("journal_mode=%s synchronous=%d", mode, synchronous)
	}
}

func TestReaderDoesNotWrite(t *testing.T) {
	c := newWorld(t).open()
	if _, err := c.reader.Exec(`DELETE FROM catalog_owner`); err == nil {
		t.Error("the read connection writes")
	}
	tx, err := c.reader.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	var epoch int
	if err := tx.QueryRow(`DELETE FROM catalog_owner RETURNING epoch`).Scan(&epoch); err == nil {
		t.Error("a transaction of the read connection writes")
	}
}

func TestDocuments(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	c := w.open()
	write := func(d DocumentWrite) error { _, err := c.PutDocument(ctx, d); return err }
	body := func(n int) json.RawMessage { return json.RawMessage(fmt.Sprintf(`{"n":%d}`, n)) }
	doc := DocumentWrite{Kind: "stream", Key: "orders", Body: body(1)}
	if err := write(doc); err != nil {
		t.Fatal(err)
	}
	if err := write(doc); !errors.Is(err, ErrConflict) {
		t.Errorf("create over a document: %v", err)
	}
	doc.IfVersion, doc.Body = 1, body(2)
	if err := write(doc); err != nil {
		t.Fatal(err)
	}
	if err := write(doc); !errors.Is(err, ErrConflict) {
		t.Errorf("stale version: %v", err)
	}
	c = w.open()
	got, err := c.GetDocument(ctx, "stream", "orders")
	if err != nil || got.Version != 2 || string(got.Body) != `{"n":2}` || time.Since(got.WrittenAt) > time.Minute {
		t.Errorf("GetDocument = %+v, %v", got, err)
	}
	for _, key := range []string{"orders-b", "executions", "o", "orders%"} {
		if err := write(DocumentWrite{Kind: "stream", Key: key, Body: body(0), IfVersion: AnyVersion}); err != nil {
			t.Fatal(err)
		}
	}
	list, err := c.ListDocuments(ctx, "stream", "orders")
	if err != nil || len(list) != 3 || list[0].Key != "orders" || list[0].Version != 2 {
		t.Errorf("ListDocuments = %+v, %v", list, err)
	}
	if err := write(DocumentWrite{Kind: "stream", Key: "orders", IfVersion: 2, Delete: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.GetDocument(ctx, "stream", "orders"); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleted document: %v", err)
	}
	if err := write(DocumentWrite{Kind: "stream", Key: "orders", IfVersion: AnyVersion, Delete: true}); !errors.Is(err, ErrNotFound) {
		t.Errorf("second delete: %v", err)
	}
	if list, err = c.ListDocuments(ctx, "stream", ""); err != nil || len(list) != 4 {
		t.Errorf("ListDocuments = %+v, %v", list, err)
	}
	if err := write(DocumentWrite{Kind: "stream", Key: "orders", Body: body(4)}); err != nil {
		t.Fatal(err)
	}
	history, err := c.DocumentHistory(ctx, "stream", "orders")
	if err != nil || len(history) != 4 || history[2].Body != nil || history[3].Version != 4 {
		t.Errorf("history = %+v, %v", history, err)
	}
	if err := write(DocumentWrite{Kind: "stream", Key: "orders", Body: body(5), IfVersion: 4, KeepVersions: 2}); err != nil {
		t.Fatal(err)
	}
	if history, err = c.DocumentHistory(ctx, "stream", "orders"); err != nil || len(history) != 2 {
		t.Errorf("history = %+v, %v", history, err)
	}
	for name, d := range map[string]DocumentWrite{
		"no kind": {Key: "x", Body: body(1)}, "no key": {Kind: "x", Body: body(1)}, "not JSON": {Kind: "x", Key: "y", Body: json.RawMessage(`{`)},
		"no body": {Kind: "x", Key: "y"}, "version": {Kind: "x", Key: "y", Body: body(1), IfVersion: -2},
	} {
		if err := write(d); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestConcurrentCommitters lets appenders, a compactor, an expirer and a foreign
// writer work on one table. Nothing may be lost or doubled.
func TestConcurrentCommitters(t *testing.T) {
	ctx := t.Context()
	w := newFastWorld(t)
	c := w.open()
	tbl := mustCreate(t, c, executionsSpec(executions))
	const appenders, each = 4, 15
	var appending, rest sync.WaitGroup
	var compactions atomic.Int64
	stop := make(chan struct{})
	running := func() bool {
		select {
		case <-stop:
			return false
		default:
			return true
		}
	}
	for shard := range record.Shard(appenders) {
		appending.Go(func() {
			key := record.Key{Incarnation: key0.Incarnation, Shard: shard}
			for i := range each {
				if _, err := c.Commit(ctx, []Commit{{
					Table: executions, Add: []NewFile{ghost(tbl, date0+int32(i%2), int64(i), 7)},
					Through: record.Vector{key: record.Offset(7 * (i + 1))}, RequireThrough: &record.Vector{key: record.Offset(7 * i)},
				}}); err != nil {
					t.Errorf("append: %v", err)
				}
			}
		})
	}
	rest.Go(func() { // compactor
		for running() {
			cur, err := c.Load(ctx, executions)
			if err != nil {
				t.Errorf("load: %v", err)
				return
			}
			old := FilesIn(files(t, c, cur, At{}), date0)
			if len(old) < 2 {
				continue
			}
			_, err = c.Commit(ctx, []Commit{{Table: executions, Replace: old, Add: []NewFile{ghost(cur, date0, 0, rowsOf(old))}}})
			if err != nil {
				t.Errorf("compact: %v", err)
				return
			}
			compactions.Add(1)
		}
	})
	rest.Go(func() {
		for running() {
			if _, err := c.Expire(ctx, executions, ExpirePolicy{RetainLast: 3, Grace: time.Hour}); err != nil {
				t.Errorf("expire: %v", err)
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	rest.Go(func() { // a client of Iceberg's library with its own optimism
		for i := 0; running(); i++ {
			lt, err := c.Library().LoadTable(ctx, executions.identifier())
			if err != nil {
				t.Errorf("library load: %v", err)
				return
			}
			tx := lt.NewTransaction()
			if err := tx.SetProperties(map[string]string{"beat": fmt.Sprint(i)}); err != nil {
				t.Errorf("library: %v", err)
			}
			_, _ = tx.Commit(ctx) // it may lose a race; it must not hurt anybody
			time.Sleep(5 * time.Millisecond)
		}
	})
	appending.Wait()
	close(stop)
	rest.Wait()
	for _, c := range []*Catalog{c, w.open()} {
		after, err := c.Load(ctx, executions)
		if err != nil {
			t.Fatal(err)
		}
		if got := rowsOf(files(t, c, after, At{})); got != appenders*each*7 {
			t.Errorf("%d rows, want %d", got, appenders*each*7)
		}
		for shard := range record.Shard(appenders) {
			if o := after.Through()[record.Key{Incarnation: key0.Incarnation, Shard: shard}]; o != each*7 {
				t.Errorf("shard %d: through %d", shard, o)
			}
		}
	}
	if compactions.Load() == 0 {
		t.Error("no compaction came through")
	}
}

// TestForeignWriterMovesPointer: another program moves the pointer between our
// reading and our commit. The commit is built again on the new state.
func TestForeignWriterMovesPointer(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	c := w.open()
	tbl := mustCreate(t, c, executionsSpec(executions))
	moved := false
	foreign := func() { // what PyIceberg does: compare and swap, no epoch
		if moved {
			return
		}
		moved = true
		cur, err := c.Load(ctx, executions)
		if err != nil {
			t.Error(err)
			return
		}
		s := c.newStaging(ctx)
		at, err := writeMetadata(s, cur.meta, metadataVersion(cur.pointer)+1)
		if err == nil {
			_, err = s.put(ctx, []string{at})
		}
		if err == nil {
			_, err = c.writer.ExecContext(ctx, `UPDATE iceberg_tables SET metadata_location = ? WHERE metadata_location = ?`, at, cur.pointer)
		}
		if err != nil {
			t.Error(err)
		}
	}
	// The swap's staged files are written between load and transaction: the
	// hook of the store is where the foreign writer comes in.
	c.store = hookedStore{w.store, foreign}
	tbl = commit(t, c, Commit{Table: executions, Add: []NewFile{ghost(tbl, date0, 0, 3)}, Through: through(3), RequireThrough: &record.Vector{}})
	if !moved || tbl.Through()[key0] != 3 || rowsOf(files(t, c, tbl, At{})) != 3 {
		t.Errorf("moved %v, table %+v", moved, tbl)
	}
}

// TestManySmallCommits: metadata stays small and old files go.
func TestManySmallCommits(t *testing.T) {
	ctx := t.Context()
	n := 300
	if os.Getenv("TAPEHOUSE_LONG") != "" {
		n = 5000
	}
	w := newFastWorld(t)
	c := w.open()
	tbl := mustCreate(t, c, executionsSpec(executions))
	var latencies []time.Duration
	for i := range n {
		start := time.Now()
		tbl = commit(t, c, Commit{Table: executions, Add: []NewFile{ghost(tbl, date0+int32(i/250), int64(i), 1)}, Through: through(i + 1), RequireThrough: ptr(through(i))})
		latencies = append(latencies, time.Since(start))
		if i%50 == 49 {
			w.later(time.Second)
			if _, err := c.Expire(ctx, executions, ExpirePolicy{RetainLast: 20}); err != nil {
				t.Fatal(err)
			}
		}
	}
	count, size := 0, int64(0)
	if err := w.store.List(ctx, tbl.prefix+"/metadata/", infoSum(&count, &size)); err != nil {
		t.Fatal(err)
	}
	pointer, err := c.readFile(ctx, tbl.pointer)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(latencies)
	t.Logf("%d commits: p50 %v p99 %v; metadata.json %d bytes; %d metadata files, %d bytes", n, latencies[n/2], latencies[n*99/100], len(pointer), count, size)
	if len(pointer) > 40<<10 || count > 260 || size > 16<<20 {
		t.Errorf("metadata grew: metadata.json %d bytes, %d files, %d bytes", len(pointer), count, size)
	}
	if got := rowsOf(files(t, c, tbl, At{})); got != int64(n) {
		t.Errorf("%d rows, want %d", got, n)
	}
}

// TestReaderBesideCommitter: loads and plans beside a fast committer, whose old
// metadata files are deleted, never fail and never see a state in between.
func TestReaderBesideCommitter(t *testing.T) {
	ctx := t.Context()
	w := newFastWorld(t)
	c := w.open()
	a, b := mustCreate(t, c, executionsSpec(executions)), mustCreate(t, c, executionsSpec(corrections))
	reader := w.open(func(o *Options) { o.ReadOnly = true })
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		for i := range 40 {
			if _, err := c.Commit(ctx, []Commit{
				{Table: executions, Add: []NewFile{ghost(a, date0, int64(i), 1)}, Through: through(i + 1)},
				{Table: corrections, Add: []NewFile{ghost(b, date0, int64(i), 1)}, Through: through(i + 1)},
			}); err != nil {
				t.Errorf("commit: %v", err)
			}
		}
	})
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			ts, err := reader.LoadAll(ctx, []Name{executions, corrections})
			if err != nil {
				t.Errorf("load: %v", err)
				return
			}
			x, y := ts[0].Through()[key0], ts[1].Through()[key0]
			if x != y || rowsOf(files(t, reader, ts[0], At{})) != int64(x) || rowsOf(files(t, reader, ts[1], At{})) != int64(x) {
				t.Errorf("through %d and %d", x, y)
			}
		}
	})
	wg.Wait()
}

func BenchmarkCommit(b *testing.B) {
	w := newWorld(b)
	c := w.open()
	tbl := mustCreate(b, c, executionsSpec(executions))
	var latencies []time.Duration
	rng := rand.New(rand.NewPCG(1, 1))
	i := 0
	for b.Loop() {
		start := time.Now()
		tbl = commit(b, c, Commit{Table: executions, Add: []NewFile{ghost(tbl, date0+int32(rng.IntN(2)), int64(i), 1)}, Through: through(i + 1), RequireThrough: ptr(through(i))})
		latencies = append(latencies, time.Since(start))
		if i++; i%50 == 0 {
			if _, err := c.Expire(context.Background(), executions, ExpirePolicy{RetainLast: 20}); err != nil {
				b.Fatal(err)
			}
		}
	}
	slices.Sort(latencies)
	b.ReportMetric(float64(latencies[len(latencies)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(latencies[len(latencies)*99/100].Microseconds()), "p99-µs")
}

func BenchmarkPlan(b *testing.B) {
	w := newWorld(b)
	c := w.open(func(o *Options) { o.CachedFilesMax = 1 }) // nothing is cached
	tbl := mustCreate(b, c, executionsSpec(executions))
	for d := range int32(100) {
		var add []NewFile
		for i := range int64(100) {
			add = append(add, ghost(tbl, date0+d, i, 1000))
		}
		tbl = commit(b, c, Commit{Table: executions, Add: add})
	}
	for b.Loop() {
		if n := len(files(b, c, tbl, At{})); n != 10_000 {
			b.Fatal(n)
		}
	}
}
