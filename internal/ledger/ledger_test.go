package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/record"
)

var feedA = Feed{Source: "ME1-EXE", Session: "s1", Epoch: 0}

func hashes(from int64, n int, salt uint64) []uint64 {
	h := make([]uint64, n)
	for i := range h {
		h[i] = (uint64(from)+uint64(i))*0x9E3779B97F4A7C15 ^ salt
	}
	return h
}

func run(f Feed, seq int64, n int) Run { return Run{Feed: f, N: n, Sequence: seq, TradeDate: 20000} }

func TestReserveTellsNewDuplicateConflict(t *testing.T) {
	l := New(Options{})
	r, err := l.Reserve([]Run{run(feedA, 1, 10_000)}, hashes(1, 10_000, 0))
	if err != nil || len(r.Duplicates)+len(r.Conflicts) != 0 {
		t.Fatalf("first: %v %v %v", err, r.Duplicates, r.Conflicts)
	}
	r.Confirm()

	again, err := l.Reserve([]Run{run(feedA, 9_999, 4)}, hashes(9_999, 4, 0))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(again.Duplicates, []int32{0, 1}) || len(again.Conflicts) != 0 {
		t.Fatalf("resend: duplicates %v conflicts %v", again.Duplicates, again.Conflicts)
	}
	again.Confirm()

	other, err := l.Reserve([]Run{run(feedA, 5, 1)}, hashes(5, 1, 99))
	if err != nil || !slices.Equal(other.Conflicts, []int32{0}) {
		t.Fatalf("other content: %v %+v", err, other)
	}
	other.Release()

	// Another epoch is another feed: the same numbers are new there.
	e2 := feedA
	e2.Epoch = 1
	reset, err := l.Reserve([]Run{run(e2, 1, 3)}, hashes(1, 3, 7))
	if err != nil || len(reset.Duplicates)+len(reset.Conflicts) != 0 {
		t.Fatalf("raised epoch: %v %+v", err, reset)
	}
	reset.Confirm()
}

func TestDuplicateOfAPutInFlightWaitsForIt(t *testing.T) {
	l := New(Options{})
	first, _ := l.Reserve([]Run{run(feedA, 1, 5)}, hashes(1, 5, 0))
	second, err := l.Reserve([]Run{run(feedA, 1, 5)}, hashes(1, 5, 0))
	if err != nil || len(second.Duplicates) != 5 {
		t.Fatalf("%v %+v", err, second)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := second.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("wait returned %v before the first put ended", err)
	}
	first.Confirm()
	if err := second.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	second.Confirm()

	// If the put in flight fails, its duplicate must not be acknowledged.
	third, _ := l.Reserve([]Run{run(feedA, 6, 1)}, hashes(6, 1, 0))
	fourth, _ := l.Reserve([]Run{run(feedA, 6, 1)}, hashes(6, 1, 0))
	third.Release()
	if err := fourth.Wait(t.Context()); !errors.Is(err, ErrBusy) {
		t.Fatalf("duplicate of a failed put: %v", err)
	}
	fourth.Confirm()
	fifth, _ := l.Reserve([]Run{run(feedA, 6, 1)}, hashes(6, 1, 0))
	if len(fifth.Duplicates) != 0 {
		t.Fatal("a released number is still taken")
	}
	fifth.Confirm()
}

func TestWithinOnePut(t *testing.T) {
	l := New(Options{})
	h := append(hashes(1, 2, 0), hashes(1, 1, 0)...)
	h = append(h, 42)
	r, err := l.Reserve([]Run{run(feedA, 1, 2), {Feed: feedA, Row: 2, N: 1, Sequence: 1}, {Feed: feedA, Row: 3, N: 1, Sequence: 2}}, h)
	if err != nil || !slices.Equal(r.Duplicates, []int32{2}) || !slices.Equal(r.Conflicts, []int32{3}) {
		t.Fatalf("%v %+v", err, r)
	}
	r.Confirm()
	if err := r.Wait(t.Context()); err != nil {
		t.Fatal("a put waits for itself: ", err)
	}
}

// TestModel holds the ledger against a map over random puts, resends, faults
// and a window much smaller than the feed.
func TestModel(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		l := New(Options{WindowRecords: 1}) // the least window: 16 chunks
		key := record.Key{Incarnation: uuid.UUID{1}}
		model := map[int64]uint64{}
		var next record.Offset
		var unchecked int
		for step := range 400 {
			seq, n := rng.Int64N(200_000), 1+rng.IntN(700)
			salt := uint64(0)
			if rng.IntN(4) == 0 {
				salt = 1
			}
			h := hashes(seq, n, salt)
			r, err := l.Reserve([]Run{run(feedA, seq, n)}, h)
			if err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
			var fresh []Run
			for i := range n {
				want, known := model[seq+int64(i)]
				dup := slices.Contains(r.Duplicates, int32(i))
				con := slices.Contains(r.Conflicts, int32(i))
				switch {
				case !known && (dup || con):
					t.Fatalf("seed %d: new record %d taken for known", seed, seq+int64(i))
				case known && !dup && !con:
					t.Fatalf("seed %d: known record %d taken for new", seed, seq+int64(i))
				case known && want == h[i] && con:
					t.Fatalf("seed %d: same content is a conflict", seed)
				case known && want != h[i] && dup:
					unchecked++ // allowed only past the window; the account counts them
				}
				if !known {
					fresh = append(fresh, Run{Feed: feedA, Row: i, N: 1, Sequence: seq + int64(i), TradeDate: 20000})
				}
			}
			if rng.IntN(10) == 0 {
				r.Release()
				continue
			}
			r.Confirm()
			for _, f := range fresh {
				model[f.Sequence] = h[f.Row]
			}
			if err := l.Apply(Effect{Key: key, First: next, Count: len(fresh), Runs: fresh}); err != nil {
				t.Fatal(err)
			}
			next += record.Offset(len(fresh))
		}
		acc, applied := l.Accounts()
		if acc[0].Seen.Total() != int64(len(model)) || applied[key] != next || acc[0].Dates[20000].Rows != int64(len(model)) {
			t.Fatalf("seed %d: account has %d of %d", seed, acc[0].Seen.Total(), len(model))
		}
		if int64(unchecked) > acc[0].Unchecked {
			t.Fatalf("seed %d: %d conflicts passed as duplicates, %d counted as unchecked", seed, unchecked, acc[0].Unchecked)
		}
	}
}

func TestApplyIsIdempotentAndRefusesHoles(t *testing.T) {
	l := New(Options{})
	key := record.Key{Incarnation: uuid.UUID{1}}
	e := Effect{Key: key, Count: 3, Runs: []Run{run(feedA, 1, 3)}}
	for range 2 {
		if err := l.Apply(e); err != nil {
			t.Fatal(err)
		}
	}
	if acc, _ := l.Accounts(); acc[0].Dates[20000].Rows != 3 {
		t.Fatalf("applied twice: %+v", acc[0].Dates[20000])
	}
	if err := l.Apply(Effect{Key: key, First: 5, Count: 1}); err == nil {
		t.Fatal("a hole in the log was not noticed")
	}
}

func TestRejectIsResolvedByAGoodRecord(t *testing.T) {
	l := New(Options{})
	key := record.Key{Incarnation: uuid.UUID{1}}
	bad := Reject{Feed: feedA, HasSequence: true, Sequence: 2, Code: "X", Message: "m", Offset: 1}
	must(t, l.Apply(Effect{Key: key, Count: 3, Runs: []Run{run(feedA, 1, 1), {Feed: feedA, N: 1, Sequence: 3, TradeDate: 20000}}, Rejects: []Reject{bad}}))
	acc, _ := l.Accounts()
	if !slices.Equal(acc[0].Rejected, Intervals{{2, 3}}) || len(acc[0].Samples) != 1 {
		t.Fatalf("%+v", acc[0])
	}
	must(t, l.Apply(Effect{Key: key, First: 3, Count: 1, Runs: []Run{run(feedA, 2, 1)}}))
	acc, _ = l.Accounts()
	if len(acc[0].Rejected) != 0 || len(acc[0].Samples) != 0 || !acc[0].Seen.Contains(1, 4) {
		t.Fatalf("not resolved: %+v", acc[0])
	}
	// A malformed resend of a number that is already stored is a conflict.
	must(t, l.Apply(Effect{Key: key, First: 4, Count: 1, Rejects: []Reject{bad}}))
	acc, _ = l.Accounts()
	if acc[0].ConflictCount != 1 || len(acc[0].Rejected) != 0 {
		t.Fatalf("malformed resend: %+v", acc[0])
	}
}

// Records that name other sources each do not make the account grow without
// bound, nor leave no room for good ones; each is still counted, and resolved.
func TestStraysAreBounded(t *testing.T) {
	l := New(Options{})
	key := record.Key{Incarnation: uuid.UUID{1}}
	reject := func(i int) Reject {
		return Reject{Feed: Feed{Source: fmt.Sprint("stray ", i)}, HasSequence: i%2 == 0, Sequence: 7, Code: "X", Offset: record.Offset(i)}
	}
	const n = 3 * straysMax
	for i := range n {
		must(t, l.Apply(Effect{Key: key, First: record.Offset(i), Count: 1, Rejects: []Reject{reject(i)}}))
	}
	count := func() (total int64) {
		for _, k := range l.Unkeyed() {
			total += k
		}
		acc, _ := l.Accounts()
		for _, a := range acc {
			total += a.Rejected.Total()
		}
		return total
	}
	acc, _ := l.Accounts()
	if len(acc) > straysMax || len(l.Unkeyed()) > straysMax+1 || count() != n {
		t.Fatalf("%d feeds, %d sources, %d rejects of %d", len(acc), len(l.Unkeyed()), count(), n)
	}
	if _, err := l.Reserve([]Run{run(feedA, 1, 1)}, []uint64{1}); err != nil {
		t.Fatalf("no room for a good record: %v", err)
	}
	for i := range n {
		r := reject(i)
		must(t, l.Apply(Effect{Key: key, First: record.Offset(n + i), Count: 1, Replayed: []Replayed{{Key: key, Offset: record.Offset(i), Resolves: &r}}}))
	}
	if left := count(); left != 0 {
		t.Fatalf("%d rejects are left after all were resolved", left)
	}
}

func TestCheckpointRoundTrip(t *testing.T) {
	mem := fsys.NewMem()
	must(t, mem.MkdirAll("d", 0o700))
	l, err := Open(mem, "d/ledger", Options{})
	must(t, err)
	key := record.Key{Incarnation: uuid.UUID{1}}
	must(t, l.Apply(Effect{Key: key, Count: 6, Runs: []Run{run(feedA, 1, 3)},
		Rejects:   []Reject{{Feed: feedA, HasSequence: true, Sequence: 9, Code: "c", Message: "m"}, {Code: "unreadable"}},
		Conflicts: []ConflictOf{{feedA, Conflict{Sequence: 1, Offset: 5, Reason: "r"}}}}))
	v, err := l.Checkpoint(mem, "d/ledger")
	must(t, err)
	if v[key] != 6 {
		t.Fatalf("vector %v", v)
	}
	again, err := Open(mem, "d/ledger", Options{})
	must(t, err)
	a, va := l.Accounts()
	b, vb := again.Accounts()
	if !reflect.DeepEqual(a, b) || !reflect.DeepEqual(va, vb) || !reflect.DeepEqual(l.Unkeyed(), again.Unkeyed()) {
		t.Fatalf("round trip:\n%+v\n%+v", a, b)
	}
	raw, err := fsys.ReadFile(mem, "d/ledger")
	must(t, err)
	for i := range raw {
		bad := slices.Clone(raw)
		bad[i] ^= 0x40
		must(t, fsys.WriteFileAtomic(mem, "d/ledger", bad, 0o600))
		if _, err := Open(mem, "d/ledger", Options{}); err == nil {
			t.Fatalf("damage at byte %d was not noticed", i)
		}
	}
}

func TestConcurrentResends(t *testing.T) {
	l := New(Options{})
	const workers, puts = 8, 50
	var wg sync.WaitGroup
	var mu sync.Mutex
	stored := map[int64]int{}
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 2))
			for range puts {
				seq := rng.Int64N(5000)
				r, err := l.Reserve([]Run{run(feedA, seq, 100)}, hashes(seq, 100, 0))
				if err != nil {
					t.Error(err)
					return
				}
				if rng.IntN(5) == 0 {
					r.Release()
					continue
				}
				mu.Lock()
				for i := range int64(100) {
					if !slices.Contains(r.Duplicates, int32(i)) {
						stored[seq+i]++
					}
				}
				mu.Unlock()
				r.Confirm()
				if err := r.Wait(t.Context()); err != nil && !errors.Is(err, ErrBusy) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for s, n := range stored {
		if n != 1 {
			t.Fatalf("record %d stored %d times", s, n)
		}
	}
}

func TestIntervalsModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var s Intervals
	in := make([]bool, 300)
	for range 3000 {
		lo := rng.Int64N(300)
		hi := min(300, lo+rng.Int64N(20))
		add := rng.IntN(2) == 0
		if add {
			s.Add(lo, hi)
		} else {
			s.Remove(lo, hi)
		}
		for k := lo; k < hi; k++ {
			in[k] = add
		}
		var n int64
		for k, x := range in {
			if s.Contains(int64(k), int64(k)+1) != x {
				t.Fatalf("%d: %v in %v", k, x, s)
			}
			if x {
				n++
			}
		}
		a, b := rng.Int64N(300), int64(300)
		if s.Total() != n || s.Count(a, b)+s.Gaps(a, b).Total() != b-a || s.Within(a, b).Total() != s.Count(a, b) {
			t.Fatalf("counts of %v", s)
		}
		for i := 1; i < len(s); i++ {
			if s[i-1].Hi >= s[i].Lo {
				t.Fatalf("not disjoint: %v", s)
			}
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func BenchmarkReserve(b *testing.B) {
	l := New(Options{})
	h := hashes(0, 500, 0)
	key := record.Key{Incarnation: uuid.UUID{1}}
	for i := 0; b.Loop(); i++ {
		runs := []Run{run(feedA, int64(i)*500, 500)}
		r, err := l.Reserve(runs, h)
		if err != nil {
			b.Fatal(err)
		}
		r.Confirm()
		if err := l.Apply(Effect{Key: key, First: record.Offset(i * 500), Count: 500, Runs: runs}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/500, "ns/record")
}
