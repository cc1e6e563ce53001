package view

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/record"
)

// histories is how many random histories TestHistories plays.
var histories = flag.Uint64("histories", 3, "random histories to play")

var errCrash = errors.New("crash")

// crashing runs fn, which stops at the nth step that it comes to: by an error,
// or as a process does that dies. It reports whether fn got there.
func (w *world) crashing(n int, dies bool, fn func()) (crashed bool) {
	defer func() {
		w.views.step = nil
		if r := recover(); r != nil {
			if r != errCrash {
				panic(r)
			}
			crashed = true
		}
	}()
	w.views.step = func(string) error {
		if n--; n != 0 {
			return nil
		}
		if dies {
			panic(errCrash)
		}
		crashed = true
		return errCrash
	}
	fn()
	return crashed
}

// TestHistories is the invariant: whatever happens to the tables and to the
// refreshes, a view read through any pin equals its query run on that pin.
func TestHistories(t *testing.T) {
	for seed := range *histories {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			history(t, rand.New(rand.NewPCG(seed, 7)), 20)
		})
	}
}

func history(t *testing.T, r *rand.Rand, steps int) {
	w := newWorld(t)
	w.views.limits = foldLimits{files: 3, rowsFactor: 3, rows: 50}
	w.add(members, memberRows)
	var views []Definition
	for _, i := range r.Perm(len(deltaViews))[:4] {
		views = append(views, w.createView(fmt.Sprintf("v%d", i), deltaViews[i].sql, tablesOf(deltaViews[i].joined)...))
	}
	views = append(views, w.createView("joined", deltaViews[4].sql, trades, members), w.createView("stored", `SELECT DISTINCT symbol, mpid FROM eq.trades`))
	var log []string
	defer func() {
		if t.Failed() {
			t.Log(strings.Join(log, "\n"))
		}
	}()
	type held struct {
		d   Definition
		pin *engine.Pin
	}
	var old []held
	seed := 0
	next := func() string { seed++; return tradeRows(seed, 1+r.IntN(60)) }
	files := func() []catalog.DataFile {
		f := w.files(trades)
		r.Shuffle(len(f), func(i, j int) { f[i], f[j] = f[j], f[i] })
		return f
	}
	for step := range steps {
		d := views[r.IntN(len(views))]
		what := ""
		switch n := r.IntN(100); {
		case n < 18:
			what = "append"
			w.add(trades, next())
		case n < 32:
			what = "tail"
			w.addTail(trades, next())
		case n < 40:
			what = "flush"
			w.flush(trades)
		case n < 58:
			what = "refresh " + d.Name.Table
			what += fmt.Sprintf(" %+v", w.refresh(d))
		case n < 66:
			at, dies := 1+r.IntN(7), r.IntN(2) == 0
			what = fmt.Sprintf("crash %t in step %d of refreshing %s", dies, at, d.Name.Table)
			w.crashing(at, dies, func() { _, _ = w.views.Refresh(t.Context(), d.Name) })
			if r.IntN(2) == 0 {
				w.reopen(Options{Interval: -1})
				w.views.limits = foldLimits{files: 3, rowsFactor: 3, rows: 50}
			}
		case n < 76:
			if f := files(); len(f) > 1 {
				what = "compact"
				w.rewrite(trades, append([]catalog.DataFile(nil), f[:2]...))
			}
		case n < 81:
			what = "expire keeping what views need"
			keep, err := w.views.KeepSnapshots(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			w.expire(trades, keep[trades])
			for _, v := range views {
				w.expire(stateName(v.Name), nil)
			}
		case n < 84:
			what = "expire"
			w.expire(trades, nil)
		case n < 88:
			what = "dimension"
			w.add(members, fmt.Sprintf(`SELECT 'M%d' AS mpid, 'Firm %d' AS firm, %d AS tier`, r.IntN(5), step, r.IntN(4)))
		case n < 90:
			what = "compact the dimension"
			if f := w.files(members); len(f) > 1 {
				w.rewrite(members, f)
			}
		case n < 92:
			what = "dimension's tail"
			w.addTail(members, fmt.Sprintf(`SELECT 'M%d' AS mpid, 'Tail %d' AS firm, %d AS tier`, r.IntN(5), step, r.IntN(4)))
		case n < 95:
			if f := files(); len(f) > 0 {
				what = "remove a file"
				w.commit(catalog.Commit{Table: trades, Remove: []catalog.DataFile{f[0]}})
			}
		case n < 98:
			if f := files(); len(f) > 0 {
				what = "delete rows"
				w.deleteRows(trades, f[0], 1)
			}
		default:
			what = "add a column"
			if _, err := w.catalog.AddColumn(t.Context(), trades, record.Field{Name: fmt.Sprintf("extra_%d", step), Type: record.Type{Kind: record.Long}}); err != nil {
				t.Fatal(err)
			}
		}
		log = append(log, fmt.Sprintf("%d: %s", step, what))
		w.checkNow(views...)
		for _, h := range old {
			w.check(h.d, h.pin)
		}
		if len(old) == 3 {
			old[0].pin.Release()
			old = old[1:]
		}
		if r.IntN(4) == 0 {
			v := views[r.IntN(len(views))]
			old = append(old, held{v, w.pinView(v)})
		}
	}
	for _, h := range old {
		h.pin.Release()
	}
	for _, d := range views {
		w.refresh(d)
		if r := w.refresh(d); r.Outcome != UpToDate {
			t.Errorf("%s: %+v after a refresh", d.Name, r)
		}
	}
	w.checkNow(views...)
}

func (w *world) expire(n catalog.Name, keep []int64) {
	w.t.Helper()
	_, err := w.catalog.Expire(w.t.Context(), n, catalog.ExpirePolicy{RetainLast: 1, KeepDeltaFrom: keep, Pinned: w.engine.Pinned})
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestCrashes stops a refresh and a creation at each of their steps.
func TestCrashes(t *testing.T) {
	for _, dies := range []bool{false, true} {
		w := newWorld(t)
		w.views.limits = foldLimits{files: 1, rowsFactor: 1, rows: 1} // each refresh folds
		w.add(trades, tradeRows(1, 100))
		d := w.createView("v", deltaViews[0].sql)
		steps := 0
		for at := 1; ; at++ {
			w.add(trades, tradeRows(at+1, 20))
			var err error
			if !w.crashing(at, dies, func() { _, err = w.views.Refresh(t.Context(), d.Name) }) {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
			steps++
			w.checkNow(d)
			w.reopen(Options{Interval: -1})
			w.views.limits = foldLimits{files: 1, rowsFactor: 1, rows: 1}
			w.checkNow(d)
			w.refresh(d)
			w.checkNow(d)
		}
		if steps != 7 { // judged, exported, stored, committed; exported, stored, committed
			t.Errorf("a refresh has %d steps", steps)
		}
		for at := 1; ; at++ {
			c := w.define("c", deltaViews[1].sql)
			var err error
			crashed := w.crashing(at, dies, func() { err = w.views.Create(t.Context(), c) })
			if !crashed && err != nil {
				t.Fatal(err)
			}
			w.reopen(Options{Interval: -1})
			r, e := w.views.Read(t.Context(), c.Name)
			if e != nil {
				t.Fatal(e)
			}
			if _, e := w.catalog.Load(t.Context(), stateName(c.Name)); (e == nil) != (r != nil) {
				t.Errorf("step %d: view %v, state %v", at, r != nil, e)
			}
			if r != nil {
				w.checkNow(c)
				if err := w.views.Drop(t.Context(), c.Name); err != nil {
					t.Fatal(err)
				}
			}
			if !crashed {
				break
			}
		}
	}
}

func TestReasonsToRecompute(t *testing.T) {
	w := newWorld(t)
	w.views.limits = foldLimits{files: 100, rowsFactor: 100, rows: 1 << 40}
	w.add(members, memberRows)
	w.add(trades, tradeRows(1, 100))
	d := w.createView("v", deltaViews[4].sql, trades, members)
	for _, tc := range []struct {
		change func()
		want   string
	}{
		{func() { w.add(members, `SELECT 'M3' AS mpid, 'Gamma' AS firm, 1 AS tier`) }, "table eq.members, which is joined, has changed"},
		{func() { w.commit(catalog.Commit{Table: trades, Remove: w.files(trades)[:1]}) }, "rows of eq.trades were changed or removed"},
		{func() { w.add(trades, tradeRows(2, 10)); w.deleteRows(trades, w.files(trades)[0], 2) }, "rows of eq.trades were changed or removed"},
		{func() { w.add(trades, tradeRows(3, 10)); w.add(trades, tradeRows(4, 10)); w.expire(trades, nil) }, "a snapshot of eq.trades has expired"},
		{func() {
			if err := w.catalog.DropTable(t.Context(), members); err != nil {
				t.Fatal(err)
			}
			w.create(members, record.Field{Name: "mpid", Type: record.Type{Kind: record.String}}, record.Field{Name: "firm", Type: record.Type{Kind: record.String}},
				record.Field{Name: "tier", Type: record.Type{Kind: record.Int}})
			w.add(members, memberRows)
		}, "table eq.members was created anew"},
	} {
		tc.change()
		w.checkNow(d)
		if r := w.refresh(d); r.Outcome != Recomputed || r.Reason != tc.want {
			t.Errorf("%+v, want %q", r, tc.want)
		}
		w.checkNow(d)
		if got := w.info(d.Name); got.StateFiles > 1 || got.Stale {
			t.Errorf("%+v", got)
		}
	}
	if got := w.refresh(d); got.Outcome != UpToDate {
		t.Error(got)
	}
	before := w.info(d.Name).Progress[trades]
	w.add(trades, tradeRows(5, 10))
	w.refresh(d)
	w.rewrite(trades, w.files(trades))
	if r := w.refresh(d); r.Outcome != UpToDate || w.info(d.Name).Stale || w.info(d.Name).Progress[trades] == before {
		t.Errorf("after a compaction: %+v", r)
	}
}

func TestFold(t *testing.T) {
	w := newWorld(t)
	w.views.limits = foldLimits{files: 4, rowsFactor: 1 << 20, rows: 1}
	w.add(trades, tradeRows(1, 500))
	d := w.createView("v", deltaViews[0].sql)
	folds := 0
	for i := range 10 {
		w.add(trades, tradeRows(i+2, 30))
		if w.refresh(d).Folded {
			folds++
		}
		if n := w.info(d.Name).StateFiles; n > 4 {
			t.Errorf("%d files", n)
		}
		w.checkNow(d)
	}
	if folds < 2 {
		t.Errorf("%d folds", folds)
	}
	for _, s := range w.load(stateName(d.Name)).Snapshots() {
		if s.Summary[PropertyProgress] == "" {
			t.Errorf("snapshot %d has no progress", s.ID)
		}
	}
}

// TestAutoRefresh lets the background refresh, readers and writers run at once.
func TestAutoRefresh(t *testing.T) {
	w := newWorld(t)
	w.add(trades, tradeRows(1, 200))
	d := w.createView("v", deltaViews[0].sql)
	var mu sync.Mutex
	busy := true
	w.reopen(Options{Interval: 5 * time.Millisecond, AgeMin: time.Millisecond, DeferMax: time.Hour, Busy: func() bool { mu.Lock(); defer mu.Unlock(); return busy }})
	w.add(trades, tradeRows(2, 20))
	time.Sleep(50 * time.Millisecond)
	if !w.info(d.Name).Stale {
		t.Error("refreshed although ingestion is busy")
	}
	mu.Lock()
	busy = false
	mu.Unlock()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 15 {
				pin := w.pinView(d)
				got, err := w.readAt(d, pin)
				want, e := w.scratchAt(d, pin)
				pin.Release()
				if err != nil || e != nil || strings.Join(got, "\n") != strings.Join(want, "\n") {
					t.Errorf("read %v, query %v:\n got %v\nwant %v", err, e, got, want)
					return
				}
			}
		})
	}
	for i := range 10 {
		w.add(trades, tradeRows(i+3, 20))
		if i%3 == 0 {
			w.rewrite(trades, w.files(trades))
		}
	}
	wg.Wait()
	deadline := time.Now().Add(10 * time.Second)
	for w.info(d.Name).Stale && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	if w.info(d.Name).Stale {
		t.Error("the view was not refreshed")
	}
	w.checkNow(d)
	if h := w.views.History(); len(h) == 0 || !h[0].Auto || h[0].Status != statusIncremental {
		t.Errorf("history %+v", h)
	}
}
