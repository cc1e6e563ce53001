package delivery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/record"
)

var engineName = engine.Name{Namespace: "n", Table: "t"}

func start(t *testing.T, tune func(*Options)) *house {
	t.Helper()
	h, err := openHouse(t, fsys.NewMem(), newWorld(), tune)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.abandon)
	if err := h.create(); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestPutIsVisibleAtOnceAndDeliveredOnce(t *testing.T) {
	h := start(t, nil)
	want := map[int64]int64{}
	for i := range int64(50) {
		if _, err := h.put(doc(2*i, int(i)), doc(2*i+1, int(i))); err != nil {
			t.Fatal(err)
		}
		want[2*i], want[2*i+1] = i*10000+5000, i*10000+5000
		rows, err := h.visible(true)
		if err != nil {
			t.Fatal(err)
		}
		if err := once(rows, want); err != nil || len(rows) != len(want) {
			t.Fatalf("after put %d: %d rows of %d: %v", i, len(rows), len(want), err)
		}
		if i%7 == 3 {
			if err := h.m.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := h.m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := once(h.w.rows, want); err != nil || len(h.w.rows) != len(want) {
		t.Fatalf("table: %d rows: %v", len(h.w.rows), err)
	}
}

func TestDuplicatesConflictsRejects(t *testing.T) {
	h := start(t, nil)
	put := func(docs ...string) Receipt {
		t.Helper()
		r, err := h.put(docs...)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	put(doc(1, 1), doc(2, 2))
	r := put(doc(2, 2), doc(3, 3), doc(1, 9), `{"source":"A","session":"1","epoch":0,"seq":4,"price":"1.00005"}`, `no json`)
	if r.Duplicates != 1 || r.Conflicts != 1 {
		t.Fatalf("%+v", r)
	}
	ids := map[string]bool{}
	for i := range 5 {
		id := string(r.AppendRecordID(nil, i))
		if _, err := record.ParseID(id); err != nil || ids[id] {
			t.Fatalf("record id %d: %s %v", i, id, err)
		}
		ids[id] = true
	}
	if err := h.m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := map[int64]int64{1: 15000, 2: 25000, 3: 35000}
	if err := once(h.w.rows, want); err != nil || len(h.w.rows) != 3 {
		t.Fatalf("%v %+v", err, h.w.rows)
	}
	lines, err := h.errorLines()
	if err != nil || len(lines) != 3 {
		t.Fatalf("error output: %v %v", err, lines)
	}
	for i := 2; i < 5; i++ {
		if lines[string(r.AppendRecordID(nil, i))] != 1 {
			t.Fatalf("document %d is not in the error output once: %v", i, lines)
		}
	}
	acc, _ := h.m.o.Ledger.Accounts()
	a := acc[0].Account
	if a.Seen.Total() != 3 || a.Rejected.Total() != 1 || a.ConflictCount != 1 || a.Duplicates != 1 || h.m.o.Ledger.Unkeyed()[""] != 1 {
		t.Fatalf("account %+v unkeyed %v", a, h.m.o.Ledger.Unkeyed())
	}
	// The remedy: the rejected record is put again, right.
	put(doc(4, 4))
	if err := h.m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	acc, _ = h.m.o.Ledger.Accounts()
	if acc[0].Rejected.Total() != 0 || acc[0].Seen.Total() != 4 {
		t.Fatalf("the good record did not resolve the reject: %+v", acc[0])
	}
}

func TestUnknownCommitOutcomes(t *testing.T) {
	for seed := range uint64(30) {
		r := rng(seed)
		h := start(t, nil)
		h.w.decide(func() outcome { return outcome(r.IntN(3)) })
		want := map[int64]int64{}
		for i := range int64(6) {
			if _, err := h.put(doc(i, int(i)), fmt.Sprintf("bad %d", i)); err != nil {
				t.Fatal(err)
			}
			want[i] = i*10000 + 5000
			s, _ := h.m.Stream("s")
			done := make(chan error, 1)
			go func() { done <- s.Flush(context.Background()) }()
			if err := <-done; err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		if err := once(h.w.rows, want); err != nil || len(h.w.rows) != 6 {
			t.Fatalf("seed %d: %d rows: %v", seed, len(h.w.rows), err)
		}
		lines, err := h.errorLines()
		if err != nil || len(lines) != 6 {
			t.Fatalf("seed %d: %d error lines %v", seed, len(lines), err)
		}
		for id, n := range lines {
			if n != 1 {
				t.Fatalf("seed %d: %s stands %d times in the error output", seed, id, n)
			}
		}
		h.abandon()
	}
}

// TestCrashAfterEveryOperation runs a workload, crashes the disk after its n-th
// mutating operation, for every n, and recovers: everything acknowledged is
// visible, nothing twice; then the producer sends all again and the table ends
// with each record exactly once, each reject once in the error output.
func TestCrashAfterEveryOperation(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 5
	}
	end := false
	for n := 1; !end; n += step {
		for seed := range uint64(2) {
			done, err := crashAt(t, n, seed)
			if err != nil {
				t.Fatalf("crash after operation %d, seed %d: %v", n, seed, err)
			}
			end = end || done
		}
	}
}

var errCrashed = errors.New("crashed")

func crashAt(t *testing.T, n int, seed uint64) (finished bool, err error) {
	mem, w := fsys.NewMem(), newWorld()
	r := rng(seed*1000 + uint64(n))
	w.decide(func() outcome { return outcome(r.IntN(3)) })
	var mu sync.Mutex
	ops, crashed := 0, false
	mem.SetHook(func(string, string, int) error {
		mu.Lock()
		defer mu.Unlock()
		if ops++; ops > n {
			crashed = true
		}
		if crashed {
			return errCrashed
		}
		return nil
	})
	dead := func() bool { mu.Lock(); defer mu.Unlock(); return crashed }

	want := map[int64]int64{}
	acked := map[int64]bool{}
	ackedBad := 0
	batches := make([][]string, 12)
	for i := range batches {
		for k := range 3 {
			seq := int64(i*3 + k)
			want[seq] = seq*10000 + 5000
			batches[i] = append(batches[i], doc(seq, int(seq)))
		}
		if i%4 == 1 {
			for k := range int64(3) {
				batches[i] = append(batches[i], badDoc(int64(1000+10*i)+k))
			}
		}
	}
	send := func(h *house, i int) {
		if _, err := h.put(batches[i]...); err == nil {
			for k := range 3 {
				acked[int64(i*3+k)] = true
			}
			ackedBad += len(batches[i]) - 3
		}
	}
	bounded := func(bytesMax int64) func(o *Options) {
		return func(o *Options) {
			o.CheckpointInterval, o.ErrorObjectBytes = time.Hour, bytesMax
			o.Errors = sameBytes{Store: o.Errors, disk: o.FS}
		}
	}
	h, openErr := openHouse(t, mem, w, bounded(900)) // two lines an object
	if openErr == nil {
		if h.create() == nil {
			for i := range batches {
				if dead() {
					break
				}
				send(h, i)
				if i%3 == 2 && !dead() {
					ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
					_ = h.m.Flush(ctx)
					cancel()
				}
				if i == 7 && !dead() {
					_ = h.m.checkpoint(context.Background())
				}
			}
		}
		h.abandon()
	}
	finished = !dead()

	after := mem.Crash(seed)
	// Plans that were stored are executed by their own bound.
	h2, err := openHouse(t, after, w, bounded(2000))
	if err != nil {
		return finished, fmt.Errorf("reopen: %w", err)
	}
	defer h2.abandon()
	w.decide(func() outcome { return commitDone })
	if len(h2.m.Streams()) == 0 {
		if len(acked) > 0 {
			return finished, errors.New("the stream is gone")
		}
		return finished, nil
	}
	rows, err := h2.visible(true)
	if err != nil {
		return finished, fmt.Errorf("query after recovery: %w", err)
	}
	if err := errors.Join(once(rows, want), contains(rows, acked)); err != nil {
		return finished, err
	}
	for i := range batches { // the producer, unsure, sends everything again
		if _, err := h2.put(batches[i]...); err != nil {
			return finished, fmt.Errorf("resend: %w", err)
		}
	}
	if err := h2.m.Close(context.Background()); err != nil {
		return finished, fmt.Errorf("close: %w", err)
	}
	if err := once(w.rows, want); err != nil {
		return finished, err
	}
	if len(w.rows) != len(want) {
		return finished, fmt.Errorf("%d rows of %d", len(w.rows), len(want))
	}
	lines, err := h2.errorLines()
	if err != nil {
		return finished, err
	}
	for id, k := range lines {
		if k != 1 {
			return finished, fmt.Errorf("%s stands %d times in the error output", id, k)
		}
	}
	if len(lines) < ackedBad {
		return finished, fmt.Errorf("%d rejects in the error output, %d were acknowledged", len(lines), ackedBad)
	}
	return finished, nil
}

func TestLogBehindTableRefuses(t *testing.T) {
	h := start(t, nil)
	if _, err := h.put(doc(1, 1)); err != nil {
		t.Fatal(err)
	}
	if err := h.m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.abandon()
	for k := range h.w.through {
		h.w.through[k] = 100
	}
	_, err := openHouse(t, h.mem, h.w, nil)
	if !errors.Is(err, ErrLogBehind) || !strings.Contains(err.Error(), "older") {
		t.Fatalf("opened with a log behind the table: %v", err)
	}
}

func TestSupersededOwnerStops(t *testing.T) {
	h := start(t, nil)
	if _, err := h.put(doc(1, 1)); err != nil {
		t.Fatal(err)
	}
	h.w.mu.Lock()
	for _, s := range h.m.Streams() {
		h.w.through[s.key] = 77
	}
	h.w.mu.Unlock()
	if err := h.m.Flush(t.Context()); !errors.Is(err, ErrSuperseded) {
		t.Fatalf("flush: %v", err)
	}
	if _, err := h.put(doc(2, 2)); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("put after being superseded: %v", err)
	}
}

// A delete that races with puts loses nothing that was acknowledged, and a
// query that loaded the table before it is told to load it again.
func TestDeleteKeepsWhatWasAcknowledged(t *testing.T) {
	for range 20 {
		h := start(t, nil)
		var acked sync.Map
		var puts sync.WaitGroup
		for p := range int64(4) {
			puts.Go(func() {
				for i := range int64(10_000) {
					seq := p*10_000 + i
					if _, err := h.put(doc(seq, int(seq))); err != nil {
						return
					}
					acked.Store(seq, seq*10000+5000)
				}
			})
		}
		s, err := h.m.Stream("s")
		if err != nil {
			t.Fatal(err)
		}
		for s.Stats().Acknowledged == 0 {
			time.Sleep(100 * time.Microsecond)
		}
		if err := h.m.Delete(t.Context(), "s"); err != nil {
			t.Fatal(err)
		}
		puts.Wait()
		want := map[int64]int64{}
		acked.Range(func(k, v any) bool { want[k.(int64)] = v.(int64); return true })
		if err := once(h.w.rows, want); err != nil || len(h.w.rows) < len(want) {
			t.Fatalf("%d rows of %d acknowledged: %v", len(h.w.rows), len(want), err)
		}
		if _, err := h.m.Tail(t.Context(), engineName, record.Vector{}, true); !errors.Is(err, engine.ErrTailMoved) {
			t.Fatalf("a table from before the delete was read without its tail: %v", err)
		}
		tail, err := h.m.Tail(t.Context(), engineName, h.w.through, true)
		if err != nil || len(tail.Files) != 0 {
			t.Fatalf("%v %v", tail.Files, err)
		}
		tail.Release()
	}
}

// A fenced owner stops at once instead of trying for ever.
func TestFencedOwnerStops(t *testing.T) {
	h := start(t, nil)
	h.w.decide(func() outcome { return commitFenced })
	if _, err := h.put(doc(1, 1)); err != nil {
		t.Fatal(err)
	}
	if err := h.m.Flush(t.Context()); !errors.Is(err, ErrSuperseded) || !errors.Is(err, catalog.ErrFenced) {
		t.Fatal(err)
	}
	if _, err := h.put(doc(2, 2)); err == nil {
		t.Fatal("a fenced owner acknowledged a record")
	}
	if err := h.m.Close(t.Context()); err == nil {
		t.Fatal("close says that everything was delivered")
	}
}

// Whatever the clock does, what was acknowledged is visible at once, delivered
// by a flush, and there once.
func TestClockJumps(t *testing.T) {
	var mu sync.Mutex
	r, now := rng(5), time.Date(2026, 11, 20, 15, 0, 0, 0, time.UTC)
	clock := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Millisecond)
		if r.IntN(5) == 0 { // hours forth and back
			now = now.Add(time.Duration(r.Int64N(int64(12*time.Hour))) - 6*time.Hour)
		}
		return now
	}
	h, err := openHouse(t, fsys.NewMem(), newWorld(), func(o *Options) { o.Now = clock })
	if err != nil {
		t.Fatal(err)
	}
	if err := h.create(); err != nil {
		t.Fatal(err)
	}
	want := map[int64]int64{}
	for i := range int64(120) {
		if _, err := h.put(doc(i, int(i)), "bad"); err != nil {
			t.Fatal(err)
		}
		want[i] = i*10000 + 5000
		switch {
		case i%40 == 39: // a crash
			h.abandon()
			if h, err = openHouse(t, h.mem.Crash(uint64(i)), h.w, func(o *Options) { o.Now = clock }); err != nil {
				t.Fatal(err)
			}
		case i%7 == 6:
			if err := h.m.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		rows, err := h.visible(true)
		if err != nil {
			t.Fatal(err)
		}
		if err := once(rows, want); err != nil || len(rows) != len(want) {
			t.Fatalf("after put %d: %d rows of %d: %v", i, len(rows), len(want), err)
		}
	}
	if err := h.m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := once(h.w.rows, want); err != nil || len(h.w.rows) != len(want) {
		t.Fatalf("table: %d rows: %v", len(h.w.rows), err)
	}
	lines, err := h.errorLines()
	if err != nil || len(lines) != 120 {
		t.Fatalf("%d lines in the error output: %v", len(lines), err)
	}
	_ = h.log.Close()
}

func TestFreezeCutsExactly(t *testing.T) {
	h := start(t, nil)
	if _, err := h.put(doc(1, 1), doc(2, 2)); err != nil {
		t.Fatal(err)
	}
	f, err := h.m.Freeze(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.put(doc(3, 3)); err != nil {
		t.Fatal("a put during a freeze: ", err)
	}
	rows, err := h.visible(true)
	if err != nil || len(rows) != 3 || len(h.w.rows) != 2 {
		t.Fatalf("%v visible %d, in the table %d", err, len(rows), len(h.w.rows))
	}
	if _, err := h.m.Freeze(t.Context()); err == nil {
		t.Fatal("two freezes at once")
	}
	if err := h.m.Flush(t.Context()); err == nil {
		t.Fatal("a flush beyond the cut while frozen")
	}
	f.Release()
	if err := h.m.Flush(t.Context()); err != nil || len(h.w.rows) != 3 {
		t.Fatalf("after release: %v, %d rows", err, len(h.w.rows))
	}
}

func TestSmallEntriesMergeAndPinnedFilesStay(t *testing.T) {
	h := start(t, nil)
	want := map[int64]int64{}
	var pinned []engine.Tail
	for i := range int64(250) {
		if _, err := h.put(doc(i, int(i))); err != nil {
			t.Fatal(err)
		}
		want[i] = i*10000 + 5000
		tail, err := h.m.Tail(t.Context(), engineName, h.w.through, true)
		if err != nil {
			t.Fatal(err)
		}
		pinned = append(pinned, tail)
	}
	s, _ := h.m.Stream("s")
	if n, rows, _, _ := s.direct.Load().tail.stats(); n > 30 || rows != 250 {
		t.Fatalf("%d entries for 250 one-record puts (%d rows)", n, rows)
	}
	if err := h.m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, tail := range pinned {
		n := 0
		for _, f := range tail.Files {
			got, err := readParquet(h.mem, f.Path)
			if err != nil {
				t.Fatalf("pin %d: %v", i, err)
			}
			n += len(got)
		}
		if n != i+1 {
			t.Fatalf("pin %d reads %d rows", i, n)
		}
		tail.Release()
	}
	left, err := h.mem.ReadDir(s.m.tailDir())
	if err != nil || len(left) != 0 {
		t.Fatalf("files left in the tail: %d %v", len(left), err)
	}
	if err := once(h.w.rows, want); err != nil || len(h.w.rows) != 250 {
		t.Fatal(err)
	}
}

func TestQueueOverflowReadsTheLog(t *testing.T) {
	h := start(t, func(o *Options) { o.QueueRows = 1; o.TailInterval = 50 * time.Millisecond })
	want := map[int64]int64{}
	var wg sync.WaitGroup
	for w := range int64(8) {
		for i := range int64(40) {
			want[w*1000+i] = (w*1000+i)*10000 + 5000
		}
		wg.Go(func() {
			for i := range int64(40) {
				if _, err := h.put(doc(w*1000+i, int(w*1000+i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := h.m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := once(h.w.rows, want); err != nil || len(h.w.rows) != 320 {
		t.Fatalf("%d rows: %v", len(h.w.rows), err)
	}
}

func TestDeleteAndCreateIsANewIncarnation(t *testing.T) {
	h := start(t, nil)
	if _, err := h.put(doc(1, 1)); err != nil {
		t.Fatal(err)
	}
	s, _ := h.m.Stream("s")
	if err := h.m.Delete(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.put(doc(2, 2)); !errors.Is(err, ErrNotFound) {
		t.Fatalf("put to a deleted stream: %v", err)
	}
	if err := h.create(); err != nil {
		t.Fatal(err)
	}
	again, _ := h.m.Stream("s")
	if again.key == s.key {
		t.Fatal("the incarnation was used again")
	}
	// What the source has sent stays sent.
	if r, err := h.put(doc(1, 1), doc(2, 2)); err != nil || r.Duplicates != 1 {
		t.Fatalf("%v %+v", err, r)
	}
	if err := h.m.Close(t.Context()); err != nil || len(h.w.rows) != 2 {
		t.Fatalf("%v %+v", err, h.w.rows)
	}
}

// TestDiskFull fills the disk under concurrent puts: they are turned away with
// a clear error, nothing is lost or mixed up, and puts go on by themselves when
// there is room again.
func TestDiskFull(t *testing.T) {
	h := start(t, nil)
	want := map[int64]int64{}
	acked := map[int64]bool{}
	var mu sync.Mutex
	full := 0
	round := func(base int64) {
		var wg sync.WaitGroup
		for w := range int64(4) {
			wg.Go(func() {
				for i := range int64(30) {
					seq := base + w*1000 + i
					pad := strings.Repeat(" ", 2000)
					_, err := h.put(doc(seq, int(seq)) + pad)
					mu.Lock()
					want[seq] = seq*10000 + 5000
					switch {
					case err == nil:
						acked[seq] = true
					case errors.Is(err, ErrUnavailable) && strings.Contains(err.Error(), "disk"):
						full++
					default:
						t.Errorf("put %d: %v", seq, err)
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
	}
	round(0)
	h.mem.SetCapacity(1) // full from here on
	for i := int64(1); i < 40 && full == 0; i++ {
		round(i * 10_000)
	}
	if full == 0 {
		t.Fatal("the disk never became full")
	}
	h.mem.SetCapacity(0) // as much as there is
	deadline := time.Now().Add(10 * time.Second)
	for {
		if _, err := h.put(doc(999_999, 999_999)); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("puts did not recover: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	want[999_999] = 999_999*10000 + 5000
	if err := h.m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(once(h.w.rows, want), contains(h.w.rows, acked)); err != nil {
		t.Fatal(err)
	}
}

// TestLargeEntriesAreJoined: ten large entries become one file of their row
// groups, under the eyes of queries that have them pinned, and are delivered
// from it.
func TestLargeEntriesAreJoined(t *testing.T) {
	h := start(t, nil)
	const rows = mergeRowsMax
	want := map[int64]int64{}
	s, _ := h.m.Stream("s")
	var before engine.Tail
	for n := range int64(joinFanIn) {
		var docs []string
		for i := n * rows; i < (n+1)*rows; i++ {
			docs = append(docs, doc(i, int(i&1023)))
			want[i] = i&1023*10000 + 5000
			if len(docs) < 4096 {
				continue
			}
			if _, err := h.put(docs...); err != nil {
				t.Fatal(err)
			}
			docs = docs[:0]
		}
		tail, err := h.m.Tail(t.Context(), engineName, h.w.through, true)
		if err != nil {
			t.Fatal(err)
		}
		if n == joinFanIn-2 {
			before = tail
			continue
		}
		tail.Release()
	}
	if n, all, _, _ := s.direct.Load().tail.stats(); n != 1 || all != joinFanIn*rows {
		t.Fatalf("%d entries with %d rows", n, all)
	}
	seen := 0
	for _, f := range before.Files {
		got, err := readParquet(h.mem, f.Path)
		if err != nil {
			t.Fatal(err)
		}
		seen += len(got)
	}
	before.Release()
	if len(before.Files) != joinFanIn-1 || seen != (joinFanIn-1)*rows {
		t.Fatalf("the pin reads %d rows in %d files", seen, len(before.Files))
	}
	left, err := h.mem.ReadDir(s.m.tailDir())
	if err != nil || len(left) != 1 {
		t.Fatalf("%d files in the tail: %v", len(left), err)
	}
	got, err := h.visible(true)
	if err != nil || len(got) != len(want) {
		t.Fatalf("%d rows visible: %v", len(got), err)
	}
	if err := h.m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := once(h.w.rows, want); err != nil || len(h.w.rows) != len(want) {
		t.Fatalf("table: %d rows: %v", len(h.w.rows), err)
	}
}
