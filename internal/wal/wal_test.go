package wal

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/record"
)

func open(t testing.TB, fs fsys.FS, opt Options) *Log {
	t.Helper()
	l, err := Open(t.Context(), fs, "log", opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func closeLog(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// put appends one frame of the model's kind and waits for it.
func put(t testing.TB, l *Log, k record.Key, count uint32, size int) record.Offset {
	t.Helper()
	first := l.Next(k)
	tk, err := l.Enqueue(k, Entry{Kind: 1, SchemaID: 7, Count: count, ArrivedAt: int64(first) + 1000, Payload: fill(k, first, size)})
	if err != nil {
		t.Fatal(err)
	}
	if err := tk.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	return tk.First()
}

// firsts reads the first offsets of k's frames from an offset on.
func firsts(t testing.TB, l *Log, k record.Key, from record.Offset) []record.Offset {
	t.Helper()
	var got []record.Offset
	if err := l.Read(t.Context(), k, from, func(f Frame) error {
		got = append(got, f.First)
		if string(f.Payload) != string(fill(k, f.First, len(f.Payload))) {
			return fmt.Errorf("payload of %d differs", f.First)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

func same(a []record.Offset, b ...record.Offset) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

// eventually waits for what a background goroutine does.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestAppendReadReopen(t *testing.T) {
	mem := fsys.NewMem()
	l := open(t, mem, smallOptions())
	a, b := testKey(1), testKey(2)
	put(t, l, a, 3, 100)
	put(t, l, b, 5, 0)
	put(t, l, a, 2, l.maxPayload)
	for range 2 {
		if l.Next(a) != 5 || l.Synced(a) != 5 || l.Oldest(a) != 0 || l.Next(b) != 5 || l.Next(testKey(9)) != 0 {
			t.Fatalf("a %d %d %d, b %d", l.Next(a), l.Synced(a), l.Oldest(a), l.Next(b))
		}
		if got := firsts(t, l, a, 0); !same(got, 0, 3) {
			t.Fatalf("from 0: %v", got)
		}
		for from, want := range map[record.Offset]int{1: 2, 2: 2, 3: 1, 4: 1, 5: 0, 6: 0} {
			if got := firsts(t, l, a, from); len(got) != want {
				t.Fatalf("from %d: %v", from, got)
			}
		}
		if got := l.Ends(); got.String() != (record.Vector{a: 5, b: 5}).String() {
			t.Fatalf("ends %v", got)
		}
		closeLog(t, l)
		l = open(t, mem, smallOptions())
	}
	stop := errors.New("stop")
	if err := l.Read(t.Context(), a, 0, func(Frame) error { return stop }); err != stop {
		t.Fatalf("read returned %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Read(ctx, a, 0, func(Frame) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Fatalf("read returned %v", err)
	}
}

func TestLimits(t *testing.T) {
	opt := smallOptions()
	opt.QueueBytes = 1000
	l := open(t, fsys.NewMem(), opt)
	k := testKey(1)
	for name, c := range map[string]struct {
		e    Entry
		want error
	}{
		"no records": {Entry{}, ErrInvalidEntry},
		"too large":  {Entry{Count: 1, Payload: make([]byte, l.maxPayload+1)}, ErrTooLarge},
	} {
		if _, err := l.Enqueue(k, c.e); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l.Stats().Keys != 0 {
		t.Error("a refused entry made a key")
	}
	for i := range l.maxKeys {
		put(t, l, record.Key{Incarnation: [16]byte{1, 2, byte(i)}}, 1, 0)
	}
	if _, err := l.Enqueue(k, Entry{Count: 1}); !errors.Is(err, ErrTooManyKeys) {
		t.Errorf("one key too many: %v", err)
	}
	for range 5 { // a table of the greatest size leaves room for a frame of the greatest size
		put(t, l, record.Key{Incarnation: [16]byte{1, 2, 3}}, 1, l.maxPayload)
	}
	closeLog(t, l)
	if _, err := l.Enqueue(k, Entry{Count: 1}); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if err := l.Trim(t.Context(), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	for _, size := range []int64{1, 5000, 2 << 30} {
		if _, err := Open(t.Context(), fsys.NewMem(), "log", Options{SegmentBytes: size}); err == nil {
			t.Errorf("segment size %d accepted", size)
		}
	}
}

// TestQueueBound holds the writer in an fsync while producers go on.
func TestQueueBound(t *testing.T) {
	mem := fsys.NewMem()
	opt := smallOptions()
	opt.QueueBytes = 1000
	l := open(t, mem, opt)
	gate := make(chan struct{})
	mem.SetHook(func(op, _ string, _ int) error {
		if op == fsys.OpDatasync {
			<-gate
		}
		return nil
	})
	var tickets []Ticket
	var err error
	for err == nil {
		var tk Ticket
		if tk, err = l.Enqueue(testKey(1), Entry{Count: 1, Payload: make([]byte, 200)}); err == nil {
			tickets = append(tickets, tk)
		}
	}
	if !errors.Is(err, ErrFull) || errors.Is(err, ErrDiskFull) || len(tickets) != 3 {
		t.Fatalf("%d frames, then %v", len(tickets), err)
	}
	if l.Synced(testKey(1)) != 0 || l.Next(testKey(1)) != 3 {
		t.Fatal("synced before the fsync")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := tickets[0].Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	close(gate)
	for _, tk := range tickets {
		if err := tk.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	put(t, l, testKey(1), 1, 200)
}

func TestSecondOpener(t *testing.T) {
	for name, fs := range map[string]fsys.FS{"mem": fsys.NewMem(), "os": fsys.OS} {
		dir := "log"
		if name == "os" {
			dir = t.TempDir()
		}
		l, err := Open(t.Context(), fs, dir, smallOptions())
		if err != nil {
			t.Fatal(err)
		}
		var locked fsys.ErrLocked
		if _, err := Open(t.Context(), fs, dir, smallOptions()); !errors.As(err, &locked) || locked.PID == 0 {
			t.Fatalf("%s: second opener got %v", name, err)
		}
		closeLog(t, l)
		if l, err = Open(t.Context(), fs, dir, smallOptions()); err != nil {
			t.Fatal(err)
		}
		closeLog(t, l)
	}
}

func TestTrimAndRetention(t *testing.T) {
	now := time.UnixMicro(1000).UTC()
	var mu sync.Mutex
	opt := smallOptions()
	opt.RetentionBytes, opt.Retention, opt.StallSegments = 100*segmentBytesMin, time.Hour, 1000
	opt.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	set := func(at time.Time) { mu.Lock(); defer mu.Unlock(); now = at }
	mem := fsys.NewMem()
	l := open(t, mem, opt)
	k := testKey(1)
	for range 30 {
		put(t, l, k, 10, 2000)
	}
	trim := func(o record.Offset) {
		t.Helper()
		if err := l.Trim(t.Context(), map[record.Key]record.Offset{k: o, testKey(8): 99}); err != nil {
			t.Fatal(err)
		}
	}
	trim(200)
	if l.Oldest(k) != 0 {
		t.Fatal("gone before the retention")
	}
	set(time.UnixMicro(1000).Add(-time.Hour * 1000)) // the clock jumps back
	trim(210)
	if l.Oldest(k) != 0 {
		t.Fatal("gone because the clock jumped back")
	}
	set(time.UnixMicro(2000).Add(time.Hour))
	trim(205) // trim points only rise
	if got := l.Oldest(k); got == 0 || got > 210 {
		t.Fatalf("oldest %d, want what is above 210 and its segment", got)
	}
	var gone *TrimmedError
	if err := l.Read(t.Context(), k, 5, nil); !errors.As(err, &gone) || gone.Oldest != l.Oldest(k) {
		t.Fatalf("read of trimmed frames: %v", err)
	}
	var ahead *TrimAheadError
	if err := l.Trim(t.Context(), map[record.Key]record.Offset{k: 301}); !errors.As(err, &ahead) || ahead.Synced != 300 {
		t.Fatalf("trim ahead: %v", err)
	}
	trim(300)
	if got := l.Stats().Segments; got != 1 {
		t.Fatalf("%d segments", got)
	}
	closeLog(t, l)
	l = open(t, mem, opt)
	if l.Next(k) != 300 || l.Synced(k) != 300 {
		t.Fatalf("next %d after trim and restart", l.Next(k))
	}
	// Another key pushes the last frames of k out; its offsets go on.
	for range 20 {
		put(t, l, testKey(2), 1, 4000)
	}
	if err := l.Trim(t.Context(), map[record.Key]record.Offset{k: 300, testKey(2): 20}); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	l = open(t, mem, opt)
	if l.Oldest(k) != 300 || len(firsts(t, l, k, 300)) != 0 || put(t, l, k, 1, 8) != 300 {
		t.Fatalf("oldest %d, next %d", l.Oldest(k), l.Next(k))
	}
}

func TestRetentionBytes(t *testing.T) {
	l := open(t, fsys.NewMem(), smallOptions())
	a, b := testKey(1), testKey(2)
	for range 40 {
		put(t, l, a, 1, 4000)
		put(t, l, b, 1, 4000)
	}
	if err := l.Trim(t.Context(), map[record.Key]record.Offset{a: 40, b: 30}); err != nil {
		t.Fatal(err)
	}
	s := l.Stats()
	if l.Oldest(b) > 30 || l.Oldest(b) < 25 || s.Segments > 21 {
		t.Fatalf("oldest of b %d, %d segments", l.Oldest(b), s.Segments)
	}
	// A segment that was let go is removed in the background.
	eventually(t, "the disk space comes back", func() bool {
		s := l.Stats()
		return s.DiskBytes <= int64(s.Segments+sparesMax+1)*segmentBytesMin
	})
}

// TestStalledKeyMoves: one stream stands still while another is trimmed at once.
func TestStalledKeyMoves(t *testing.T) {
	mem := fsys.NewMem()
	l := open(t, mem, smallOptions())
	slow, fast := testKey(1), testKey(2)
	var want []record.Offset
	for i := range 400 {
		if i%40 == 0 {
			want = append(want, put(t, l, slow, 7, 300))
		}
		put(t, l, fast, 1, 3000)
		if err := l.Trim(t.Context(), map[record.Key]record.Offset{fast: l.Next(fast)}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		eventually(t, "the log shrinks", func() bool { return l.Stats().Segments <= 10 })
		if got := firsts(t, l, slow, 0); !same(got, want...) {
			t.Fatalf("read %v, want %v", got, want)
		}
		for _, from := range want {
			if got := firsts(t, l, slow, from+3); got[0] != from {
				t.Fatalf("from %d: %v", from+3, got)
			}
		}
		closeLog(t, l)
		l = open(t, mem, smallOptions())
		if err := l.Trim(t.Context(), map[record.Key]record.Offset{fast: l.Next(fast)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Trim(t.Context(), map[record.Key]record.Offset{slow: want[5]}); err != nil {
		t.Fatal(err)
	}
	if l.Oldest(slow) > want[5] {
		t.Fatalf("oldest %d", l.Oldest(slow))
	}
	put(t, l, slow, 1, 10)
	if got := firsts(t, l, slow, want[5]); len(got) != len(want)-5+1 {
		t.Fatalf("read %v", got)
	}
}

// TestAllNeededDoesNotMove: where nothing is trimmed, moving would free nothing.
func TestAllNeededDoesNotMove(t *testing.T) {
	l := open(t, fsys.NewMem(), smallOptions())
	for range 60 {
		put(t, l, testKey(1), 1, 3000)
	}
	segments := l.Stats().Segments
	kick(l.keeperKick)
	time.Sleep(20 * time.Millisecond)
	if got := l.Stats().Segments; got != segments {
		t.Fatalf("%d segments became %d", segments, got)
	}
	if got := firsts(t, l, testKey(1), 0); len(got) != 60 {
		t.Fatalf("%d frames", len(got))
	}
}

func TestForget(t *testing.T) {
	mem := fsys.NewMem()
	l := open(t, mem, smallOptions())
	k, other := testKey(1), testKey(2)
	put(t, l, k, 5, 100)
	l.Forget(k)
	l.Forget(k)
	l.Forget(testKey(7))
	if l.Next(k) != 0 || len(firsts(t, l, k, 0)) != 0 {
		t.Fatal("a forgotten key is known")
	}
	eventually(t, "the key is free again", func() bool {
		_, err := l.Enqueue(k, Entry{Count: 1, SchemaID: 7, ArrivedAt: 1000})
		if err != nil && !errors.Is(err, ErrForgotten) {
			t.Fatal(err)
		}
		return err == nil
	})
	put(t, l, other, 1, 10)
	closeLog(t, l)
	l = open(t, mem, smallOptions())
	if l.Next(k) != 1 || !same(firsts(t, l, k, 0), 0) {
		t.Fatalf("next %d after the second life", l.Next(k))
	}
	l.Forget(k)
	for range 40 {
		put(t, l, other, 1, 4000)
	}
	closeLog(t, l)
	l = open(t, mem, smallOptions())
	if _, known := l.Ends()[k]; known {
		t.Fatal("a forgotten key came back")
	}
	if err := l.Trim(t.Context(), map[record.Key]record.Offset{other: 41}); err != nil {
		t.Fatal(err)
	}
	if got := l.Stats().Segments; got > 2 {
		t.Fatalf("the frames of a forgotten key hold %d segments", got)
	}
}

// TestConcurrent is for the race detector: producers, readers, trims, stats.
func TestConcurrent(t *testing.T) {
	opt := smallOptions()
	opt.Linger, opt.SegmentBytes, opt.markAfter = 0, 64<<10, time.Millisecond
	opt.RetentionBytes = 4 * opt.SegmentBytes
	reg := prometheus.NewRegistry()
	opt.Registerer = reg
	mem := fsys.NewMem()
	l := open(t, mem, opt)
	const producers, frames = 8, 150
	ctx, cancel := context.WithCancel(t.Context())
	var work, helpers sync.WaitGroup
	for i := range producers {
		k := testKey(i % 4)
		work.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 2))
			for range frames {
				tk, err := l.Enqueue(k, Entry{Count: 1 + r.Uint32N(9), Payload: make([]byte, r.IntN(3000))})
				if err == nil {
					err = tk.Wait(ctx)
				}
				if err != nil {
					t.Error(err)
					return
				}
				if l.Synced(k) <= tk.First() {
					t.Errorf("acknowledged %d, synced %d", tk.First(), l.Synced(k))
				}
			}
		})
	}
	for i := range 4 {
		k := testKey(i)
		helpers.Go(func() { // one pump a key
			var at record.Offset
			for ctx.Err() == nil {
				err := l.Read(ctx, k, at, func(f Frame) error {
					if f.First != at {
						return fmt.Errorf("frame %d, want %d", f.First, at)
					}
					at += record.Offset(f.Count)
					return nil
				})
				if err == nil {
					err = l.Trim(ctx, map[record.Key]record.Offset{k: at})
				}
				if err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	helpers.Go(func() {
		for ctx.Err() == nil {
			l.Stats()
			if _, err := reg.Gather(); err != nil {
				t.Error(err)
			}
			time.Sleep(3 * time.Millisecond)
		}
	})
	work.Wait()
	cancel()
	helpers.Wait()
	ends := l.Ends().String()
	closeLog(t, l)
	l = open(t, mem, Options{SegmentBytes: opt.SegmentBytes})
	if got := l.Ends().String(); got != ends {
		t.Fatalf("ends %s, were %s", got, ends)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	opt := smallOptions()
	opt.Registerer = reg
	l := open(t, fsys.NewMem(), opt)
	for range 5 {
		put(t, l, testKey(1), 1, 4000)
	}
	got := map[string]float64{}
	fams, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fams {
		for _, m := range f.Metric {
			got[f.GetName()] += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for name, want := range map[string]float64{
		"tapehouse_wal_appended_bytes_total": 5 * 8192, "tapehouse_wal_fsync_seconds": 5, "tapehouse_wal_group_frames": 5,
		"tapehouse_wal_segments": 5, "tapehouse_wal_oldest_segment": 1, "tapehouse_wal_newest_segment": 5, "tapehouse_wal_keys": 1,
		"tapehouse_wal_untrimmed_bytes": 5 * 4056, "tapehouse_wal_poisoned": 0, "tapehouse_wal_disk_full": 0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
	if _, err := Open(t.Context(), fsys.NewMem(), "log", opt); err == nil || !strings.Contains(err.Error(), "duplicate") {
		t.Errorf("metrics registered twice: %v", err)
	}
	closeLog(t, l)
	if fams, err := reg.Gather(); err != nil || len(fams) != 0 {
		t.Errorf("%d metrics after Close, %v", len(fams), err)
	}
}
