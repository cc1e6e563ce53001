package delivery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/record"
)

// A record is found, and can be read again, whatever the stream was when it was
// put.
func TestTraceAcrossChanges(t *testing.T) {
	h := startStream(t, directT)
	c := &changing{chain: []Config{directT, routedStream, directU}, acked: map[int]int{}}
	var ids []record.ID
	put := func(text string) {
		t.Helper()
		r, err := h.put(text)
		if err != nil {
			t.Fatal(err)
		}
		id, err := record.ParseID(string(r.AppendRecordID(nil, 0)))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	put(doc(0, 0))
	put(`{"source":"A","session":"1","epoch":0,"seq":"no"}`)
	for to := 1; to < 3; to++ {
		if err := c.update(t.Context(), h.m, to); err != nil {
			t.Fatal(err)
		}
		if to == 1 {
			put("u:" + doc(2, 2))
			put("fail")
			if err := h.m.Flush(t.Context()); err != nil { // or they may be processed by the next definition
				t.Fatal(err)
			}
		} else {
			put(doc(4, 4))
		}
		settled(t, h)
	}
	check := func(h *house) {
		t.Helper()
		s := settled(t, h)
		for i, want := range []string{"table n.t row", "table n.t rejected", "table n.t nothing, table n.u row, errors  nothing", "table n.t nothing, table n.u nothing, errors  failed", "table n.u row"} {
			tr, err := h.m.Trace(t.Context(), ids[i])
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, d := range tr.Destinations {
				name := ""
				if d.Table.Table != "" {
					name = d.Table.String()
				}
				got = append(got, fmt.Sprintf("%s %s %s", d.Role, name, d.Outcome))
				if i < 4 && !d.Delivered {
					t.Errorf("record %d is not delivered to %s %s", i, d.Role, name)
				}
			}
			if strings.Join(got, ", ") != want {
				t.Errorf("record %d: %q, want %q", i, got, want)
			}
		}
		var docs []string
		if err := s.Documents(t.Context(), 0, 5, func(id record.ID, doc []byte, rejected bool) error {
			docs = append(docs, fmt.Sprintf("%d %v %s", id.Offset, rejected, doc))
			return nil
		}); err != nil || len(docs) != 5 || !strings.HasPrefix(docs[1], "1 true") || docs[2] != "2 false u:"+doc(2, 2) || docs[3] != "3 false fail" {
			t.Errorf("%q %v", docs, err)
		}
	}
	check(h)
	if err := h.m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.abandon()
	again, err := openHouse(t, h.mem, h.w, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.abandon)
	check(again)

	// A reject of a former table is resolved by a replay into the present one.
	s, err := again.m.Stream("s")
	if err != nil {
		t.Fatal(err)
	}
	for want := 1; want >= 0; want-- {
		res, err := s.Replay(t.Context(), []ReplayItem{{ID: ids[1], Rejected: []byte(`{}`), Data: []byte(doc(1, 1))}})
		if err != nil || res.Put != want {
			t.Fatalf("%+v %v", res, err)
		}
	}
	if n := again.m.o.Ledger.Unkeyed()["A"]; n != 0 {
		t.Errorf("%d rejects are open", n)
	}
}

// A seal waits for a change to be complete, and holds the next one up.
func TestFreezeAmidChanges(t *testing.T) {
	h := startStream(t, routedStream)
	c := &changing{chain: []Config{routedStream, directU, directT}, acked: map[int]int{}}
	if err := c.put(h, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.update(t.Context(), h.m, 1); err != nil {
		t.Fatal(err)
	}
	if err := c.put(h, 1); err != nil {
		t.Fatal(err)
	}
	f, err := h.m.Freeze(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := h.m.Stream("s")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Tables() {
		w := h.w.of(p.Table)
		w.mu.Lock()
		if w.through[p.Key] != f.At[p.Key] || f.At[p.Key] != 4 {
			t.Errorf("%s contains %d, the cut is at %d", p.Table, w.through[p.Key], f.At[p.Key])
		}
		w.mu.Unlock()
	}
	if err := c.put(h, 2); err != nil {
		t.Fatal(err)
	}
	if _, err := h.m.Update(t.Context(), "s", 0, func(Config) (Config, error) { return directT, nil }); !errors.Is(err, ErrChanging) || !strings.Contains(err.Error(), "a seal holds the stream") {
		t.Fatal(err)
	}
	if _, err := h.m.Update(t.Context(), "s", 0, func(old Config) (Config, error) { old.Interval = time.Minute; return old, nil }); err != nil {
		t.Fatal(err)
	}
	f.Release()
	if err := c.update(t.Context(), h.m, 2); err != nil {
		t.Fatal(err)
	}
	if err := c.put(h, 3); err != nil {
		t.Fatal(err)
	}
	if err := h.m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.check(h); err != nil {
		t.Fatal(err)
	}
}

// While a table cannot be written to, one change is taken, and no other with a
// boundary; what is acknowledged stays visible, and comes out when it can.
func TestChangeWaitsForAFailingTable(t *testing.T) {
	h := startStream(t, directT)
	c := &changing{chain: []Config{directT, directU, directT}, acked: map[int]int{}}
	h.w.decide(func() outcome { return commitBefore })
	if err := c.put(h, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.update(t.Context(), h.m, 1); err != nil {
		t.Fatal(err)
	}
	if err := c.put(h, 1); err != nil {
		t.Fatal(err)
	}
	_, err := h.m.Update(t.Context(), "s", 0, func(Config) (Config, error) { return directT, nil })
	if !errors.Is(err, ErrChanging) || !strings.Contains(err.Error(), "the table n.t is delivered up to offset 0 of 2") {
		t.Fatal(err)
	}
	if _, err := h.m.Update(t.Context(), "s", 0, func(old Config) (Config, error) { old.Interval = time.Minute; return old, nil }); err != nil {
		t.Fatal(err)
	}
	if rows, err := h.visible(true); err != nil || len(rows) != 2 {
		t.Fatal(rows, err)
	}
	if err := c.put(h, 2); err != nil {
		t.Fatal(err)
	}
	if st := mustStream(t, h).Stats(); st.Through != 0 || st.Table != "n.t, n.u" || st.Acknowledged != 6 {
		t.Errorf("%+v", st)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := h.m.Freeze(ctx); !errors.Is(err, ErrChanging) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a seal of a stream whose change is not complete: %v", err)
	}
	h.w.decide(func() outcome { return commitDone })
	settled(t, h)
	if err := c.update(t.Context(), h.m, 2); err != nil {
		t.Fatal(err)
	}
	// Deleted in the midst of a change.
	if err := h.m.Delete(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	if err := c.check(h); err != nil {
		t.Fatal(err)
	}
}

func mustStream(t *testing.T, h *house) *Stream {
	t.Helper()
	s, err := h.m.Stream("s")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What a table gets before and after a boundary, it gets in this order.
func TestTableIsWrittenInTheOrderOfTheBoundary(t *testing.T) {
	h := startStream(t, directT)
	c := &changing{chain: []Config{directT, evolving}, acked: map[int]int{}}
	s := mustStream(t, h)
	old := s.direct.Load()
	h.w.decide(func() outcome { return commitBefore })
	if err := c.put(h, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.update(t.Context(), h.m, 1); err != nil {
		t.Fatal(err)
	}
	if err := c.put(h, 1); err != nil {
		t.Fatal(err)
	}
	var first sync.Once
	h.w.decide(func() outcome { // called with the table's lock
		first.Do(func() {
			if len(h.w.rows) != 0 {
				t.Error("the later rows were first")
			}
		})
		return commitDone
	})
	if err := h.m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if old.Through() != 2 {
		t.Errorf("the ending lane is at %d", old.Through())
	}
	h.w.mu.Lock()
	for i, r := range h.w.rows {
		if r.offset != record.Offset(i) {
			t.Errorf("row %d has offset %d", i, r.offset)
		}
	}
	h.w.mu.Unlock()
	if err := c.check(h); err != nil {
		t.Fatal(err)
	}
}

// seen is what a query sees of a table: its rows, and the tail above its through.
func (h *house) seen(table catalog.Name) ([]row, error) {
	w := h.w.of(table)
	for {
		w.mu.Lock()
		rows := append([]row(nil), w.rows...)
		through := w.through.Clone()
		w.mu.Unlock()
		tail, err := h.m.Tail(context.Background(), engine.Name(table), through, true)
		if errors.Is(err, engine.ErrTailMoved) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, f := range tail.Files {
			got, err := readParquet(h.mem, f.Path)
			if err != nil {
				tail.Release()
				return nil, err
			}
			rows = append(rows, got...)
		}
		tail.Release()
		return rows, nil
	}
}

// TestChangesUnderLoad puts, resends, changes and queries at the same time:
// what was acknowledged is visible at once, and once.
func TestChangesUnderLoad(t *testing.T) {
	h, err := openHouse(t, fsys.NewMem(), newWorld(), func(o *Options) { o.PutWait = time.Minute })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.abandon)
	c := &changing{chain: []Config{directT, routedStream, directU, evolving, directT, directU, routedT, evolving, routedStream}, acked: map[int]int{}}
	if _, err := h.m.Create(t.Context(), c.chain[0]); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	acked := map[int64]bool{}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for p := range 3 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				seq := int64(p*1_000_000 + i)
				text := doc(seq, i)
				again := []string{text}
				if i%5 == 0 { // also what is known: duplicates are found whatever the stream's form
					again = append(again, doc(int64(p*1_000_000+i/2), i/2))
				}
				if _, err := h.put(again...); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acked[seq] = true
				mu.Unlock()
			}
		})
	}
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			mu.Lock()
			want := maps.Clone(acked)
			mu.Unlock()
			have := map[int64]int{}
			for _, table := range []catalog.Name{tableT, tableU} {
				rows, err := h.seen(table)
				if err != nil {
					t.Error(err)
					return
				}
				for _, r := range rows {
					have[r.seq]++
				}
			}
			for seq := range want {
				if have[seq] != 1 {
					t.Errorf("record %d is visible %d times", seq, have[seq])
					return
				}
			}
		}
	})
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	for range rounds {
		for to := range c.chain {
			time.Sleep(5 * time.Millisecond)
			if err := c.update(t.Context(), h.m, to); err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	wg.Wait()
	if err := h.m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	have := map[int64]int{}
	for _, table := range []catalog.Name{tableT, tableU} {
		for _, r := range h.w.of(table).rows {
			have[r.seq]++
		}
	}
	if len(have) != len(acked) {
		t.Errorf("%d records, %d acknowledged", len(have), len(acked))
	}
	accounts, _ := h.m.o.Ledger.Accounts()
	if len(accounts) != 1 || accounts[0].Seen.Total() != int64(len(acked)) {
		t.Errorf("the ledger's account: %d records of %d", accounts[0].Seen.Total(), len(acked))
	}
	for seq, n := range have {
		if n != 1 || !acked[seq] {
			t.Errorf("record %d is there %d times, acknowledged: %v", seq, n, acked[seq])
		}
	}
	t.Logf("%d records", len(acked))
}

// gate blocks operations of the disk while it is closed.
type gate struct {
	mu   sync.Mutex
	open chan struct{}
	here chan struct{} // closed when an operation waits
	once *sync.Once
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open, g.here, g.once = make(chan struct{}), make(chan struct{}), &sync.Once{}
}

func (g *gate) pass() {
	g.mu.Lock()
	open, here, once := g.open, g.here, g.once
	g.mu.Unlock()
	if open != nil {
		once.Do(func() { close(here) })
		<-open
	}
}

// The ledger follows the log frame by frame: the account has what a lane that
// is late has yet to look at, before what the lane after it takes.
func TestLedgerFollowsALateLane(t *testing.T) {
	h := startStream(t, directT)
	var g gate
	h.mem.SetHook(func(_, name string, _ int) error {
		if strings.Contains(name, "/tail/") {
			g.pass()
		}
		return nil
	})
	g.shut()
	c := &changing{chain: []Config{directT, directU}, acked: map[int]int{}}
	if err := c.put(h, 0); err != nil {
		t.Fatal(err)
	}
	<-g.here // the pump stands still
	if err := c.put(h, 1); err != nil {
		t.Fatal(err)
	}
	if err := c.update(t.Context(), h.m, 1); err != nil {
		t.Fatal(err)
	}
	if err := c.put(h, 2); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	close(g.open)
	settled(t, h)
	if err := h.m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a, _ := h.m.o.Ledger.Accounts(); a[0].Seen.Total() != 6 {
		t.Errorf("the ledger's account: %d records of 6", a[0].Seen.Total())
	}
	if err := c.check(h); err != nil {
		t.Fatal(err)
	}
}

// What is not synced may be taken back: no boundary is drawn above it.
func TestBoundaryWaitsForTheLog(t *testing.T) {
	h := startStream(t, directT)
	var g gate
	h.mem.SetHook(func(_, name string, _ int) error {
		if strings.Contains(name, "/log/") {
			g.pass()
		}
		return nil
	})
	g.shut()
	c := &changing{chain: []Config{directT, directU}, acked: map[int]int{}}
	done := make(chan error, 2)
	go func() { done <- c.put(h, 0) }()
	<-g.here
	changed := make(chan error, 1)
	go func() { changed <- c.update(context.Background(), h.m, 1) }()
	time.Sleep(20 * time.Millisecond)
	if s := mustStream(t, h); s.Config().Table != "t" || h.m.o.Log.Next(s.key) != 2 || h.m.o.Log.Synced(s.key) != 0 {
		t.Errorf("%+v, %d of %d synced", s.Config(), h.m.o.Log.Synced(s.key), h.m.o.Log.Next(s.key))
	}
	close(g.open)
	for _, ch := range []chan error{done, changed} {
		if err := <-ch; err != nil {
			t.Fatal(err)
		}
	}
	if err := c.put(h, 1); err != nil {
		t.Fatal(err)
	}
	if err := h.m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.check(h); err != nil {
		t.Fatal(err)
	}
}

// A change whose outcome nobody can tell: no record is taken in a form that the
// definition may not have, until a restart tells.
func TestChangeOfUnknownOutcome(t *testing.T) {
	for _, stored := range []bool{false, true} {
		h := startStream(t, directT)
		c := &changing{chain: []Config{directT, evolving}, acked: map[int]int{}}
		if err := c.put(h, 0); err != nil {
			t.Fatal(err)
		}
		h.w.mu.Lock()
		h.w.listing, h.w.store = errCommit, func() outcome {
			if stored {
				return commitAfter
			}
			return commitBefore
		}
		h.w.mu.Unlock()
		if err := c.update(t.Context(), h.m, 1); !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
		if err := c.put(h, 1); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("a put of unknown form: %v", err)
		}
		h.w.mu.Lock()
		h.w.listing, h.w.store = nil, nil
		h.w.mu.Unlock()
		if err := c.update(t.Context(), h.m, 1); !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
		h.abandon()
		again, err := openHouse(t, h.mem, h.w, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(again.abandon)
		if err := c.put(again, 1); err != nil {
			t.Fatal(err)
		}
		if cfg := settled(t, again).Config(); cfg.Evolve != stored {
			t.Errorf("stored: %v, the definition is %+v", stored, cfg)
		}
		if err := again.m.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.check(again); err != nil {
			t.Fatal(err)
		}
	}
}
