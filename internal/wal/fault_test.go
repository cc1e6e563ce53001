package wal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/record"
)

func TestPoison(t *testing.T) {
	for name, fault := range map[string]struct {
		op  string
		err error
	}{
		"write":       {fsys.OpWrite, syscall.EIO},
		"short write": {fsys.OpWrite, &fsys.ShortWrite{N: 100, Err: syscall.ENOSPC}},
		"fsync":       {fsys.OpDatasync, syscall.EIO},
	} {
		t.Run(name, func(t *testing.T) {
			mem := fsys.NewMem()
			var armed atomic.Bool
			fs := fsys.NewFaulty(mem, func(op, name string, _ int) error {
				if armed.Load() && op == fault.op && strings.HasSuffix(name, segmentSuffix) {
					return fault.err
				}
				return nil
			})
			opt := smallOptions()
			opt.SegmentBytes *= 4
			l := open(t, fs, opt)
			k := testKey(1)
			put(t, l, k, 4, 100)
			put(t, l, k, 4, 100)
			closeLog(t, l)
			l = open(t, fs, opt) // the segment now has its own name
			armed.Store(true)
			tk, err := l.Enqueue(k, Entry{Count: 1, Payload: []byte("lost?")})
			if err != nil {
				t.Fatal(err)
			}
			if err := tk.Wait(t.Context()); !errors.Is(err, ErrPoisoned) {
				t.Fatalf("wait: %v", err)
			}
			armed.Store(false) // too late
			if _, err := l.Enqueue(k, Entry{Count: 1}); !errors.Is(err, ErrPoisoned) {
				t.Fatalf("enqueue: %v", err)
			}
			var short *fsys.ShortWrite
			if _, err := l.Enqueue(k, Entry{Count: 1}); !errors.As(fault.err, &short) && !errors.Is(err, syscall.EIO) {
				t.Fatalf("the cause is missing: %v", err)
			}
			if got := firsts(t, l, k, 0); !same(got, 0, 4) || !l.Stats().Poisoned {
				t.Fatalf("read %v of a poisoned log", got)
			}
			if err := l.Close(); !errors.Is(err, ErrPoisoned) {
				t.Fatalf("close: %v", err)
			}
			l = open(t, fs, opt)
			if n := l.Next(k); n != 8 && n != 9 {
				t.Fatalf("next %d", n)
			}
			put(t, l, k, 1, 50)
		})
	}
}

func TestDiskFull(t *testing.T) {
	mem := fsys.NewMem()
	opt := smallOptions()
	opt.retryAfter = 5 * time.Millisecond
	opt.RetentionBytes = -1
	mem.SetCapacity(4*segmentBytesMin + 100)
	l := open(t, mem, opt)
	a, b := testKey(1), testKey(2)
	acked := map[record.Key]record.Offset{}
	fillUp := func() error {
		for i := 0; ; i++ {
			k := []record.Key{a, b}[i%2]
			first := l.Next(k)
			tk, err := l.Enqueue(k, Entry{SchemaID: 7, Count: 2, ArrivedAt: 1, Payload: fill(k, first, 3000)})
			if err != nil {
				return err
			}
			if err := tk.Wait(context.Background()); err != nil {
				return err
			}
			acked[k] = first + 2
		}
	}
	for round := range 4 {
		if err := fillUp(); !errors.Is(err, ErrDiskFull) || !errors.Is(err, ErrFull) || errors.Is(err, ErrPoisoned) {
			t.Fatalf("round %d: %v", round, err)
		}
		eventually(t, "puts are refused at once", func() bool {
			_, err := l.Enqueue(a, Entry{Count: 1})
			return errors.Is(err, ErrDiskFull)
		})
		if l.Next(a) != acked[a] || l.Next(b) != acked[b] || !l.Stats().DiskFull {
			t.Fatalf("offsets were not taken back: %d %d, acknowledged %v", l.Next(a), l.Next(b), acked)
		}
		if round%2 == 0 { // room comes from outside
			mem.SetCapacity(int64(4*(round+2)) * segmentBytesMin)
		} else if err := l.Trim(t.Context(), acked); err != nil { // or from trimming
			t.Fatal(err)
		}
		eventually(t, "the log recovers", func() bool { return !l.Stats().DiskFull })
	}
	closeLog(t, l)
	l = open(t, mem, opt)
	if l.Next(a) < acked[a] || l.Next(b) < acked[b] {
		t.Fatal("acknowledged frames lost")
	}
	_ = firsts(t, l, a, l.Oldest(a))
}

func TestBounds(t *testing.T) {
	mem := fsys.NewMem()
	mem.SetCapacity(10 * segmentBytesMin)
	opt := smallOptions()
	opt.ReserveBytes = 9*segmentBytesMin + 1
	if _, err := Open(t.Context(), mem, "log", opt); !errors.Is(err, ErrDiskFull) {
		t.Fatalf("open without room: %v", err)
	}
	opt.ReserveBytes, opt.MaxBytes = -1, 3*segmentBytesMin
	l := open(t, mem, opt)
	var err error
	for n := 0; err == nil; n++ {
		var tk Ticket
		if tk, err = l.Enqueue(testKey(1), Entry{Count: 1, Payload: make([]byte, 4000)}); err == nil {
			err = tk.Wait(t.Context())
		}
		if n > 12 {
			t.Fatal("more than the bound")
		}
	}
	if !errors.Is(err, ErrDiskFull) || l.Stats().Segments != 3 {
		t.Fatalf("%d segments: %v", l.Stats().Segments, err)
	}
}

// TestPrepareFails: a broken disk under the spare is no reason to poison.
func TestPrepareFails(t *testing.T) {
	var armed atomic.Bool
	fs := fsys.NewFaulty(fsys.NewMem(), func(op, name string, _ int) error {
		if armed.Load() && op == fsys.OpSync && strings.Contains(name, newPrefix) {
			return syscall.EIO
		}
		return nil
	})
	opt := smallOptions()
	opt.retryAfter = time.Millisecond
	l := open(t, fs, opt)
	eventually(t, "a spare", func() bool { return l.Stats().DiskBytes == 2*segmentBytesMin })
	armed.Store(true)
	var err error
	for err == nil {
		var tk Ticket
		if tk, err = l.Enqueue(testKey(1), Entry{Count: 1, Payload: make([]byte, 4000)}); err == nil {
			err = tk.Wait(t.Context())
		}
	}
	if !errors.Is(err, ErrFull) || errors.Is(err, ErrDiskFull) || !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	armed.Store(false)
	eventually(t, "the log recovers", func() bool { return !l.Stats().DiskFull })
	put(t, l, testKey(1), 1, 4000)
	// The one that is made just now is renamed in a moment; what failed would stay.
	eventually(t, "no half-made file is left", func() bool {
		entries, err := fs.ReadDir("log")
		if err != nil {
			t.Fatal(err)
		}
		return !slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), newPrefix) })
	})
}

// image is the content of a log's directory.
type image map[string][]byte

func takeImage(t testing.TB, fs fsys.FS) image {
	t.Helper()
	entries, err := fs.ReadDir("log")
	if err != nil {
		t.Fatal(err)
	}
	img := image{}
	for _, e := range entries {
		if img[e.Name()], err = fsys.ReadFile(fs, filepath.Join("log", e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

func (img image) mem(t testing.TB) *fsys.Mem {
	t.Helper()
	mem := fsys.NewMem()
	if err := mem.MkdirAll("log", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, b := range img {
		f, err := mem.OpenFile(filepath.Join("log", name), os.O_RDWR|os.O_CREATE, 0o644)
		if err == nil {
			_, err = f.WriteAt(b, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return mem
}

// flipWorld is a log of several segments as a crash leaves it: without a mark.
func flipWorld(t testing.TB, marked bool) (image, *model, record.Key) {
	mem := fsys.NewMem()
	opt := smallOptions()
	l := open(t, mem, opt)
	m := newModel()
	r := rand.New(rand.NewPCG(3, 3))
	k := testKey(1)
	for i := range 30 {
		tk, err := m.enqueue(l, testKey(1+i%2), r)
		if err != nil {
			t.Fatal(err)
		}
		if err := tk.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "a spare", func() bool { return l.Stats().DiskBytes > int64(l.Stats().Segments)*segmentBytesMin })
	if marked {
		closeLog(t, l)
	}
	for k := range m.frames {
		m.acked[k] = m.end(k)
	}
	return takeImage(t, mem), m, k
}

// TestBitFlips damages one bit anywhere and opens. Either it is reported, or
// what is read is right; acknowledged frames are lost only from the last group,
// and only where no mark vouches for it.
func TestBitFlips(t *testing.T) {
	for _, marked := range []bool{false, true} {
		t.Run(fmt.Sprintf("marked=%v", marked), func(t *testing.T) {
			img, m, _ := flipWorld(t, marked)
			names := slices.Sorted(maps.Keys(img))
			names = slices.DeleteFunc(names, func(n string) bool { _, ok := parseSegmentName(n); return !ok })
			r := rand.New(rand.NewPCG(9, 9))
			reported, cut := 0, 0
			for range 1500 {
				name := names[r.IntN(len(names))]
				at := r.IntN(len(img[name]))
				if r.IntN(3) == 0 {
					at = at&^4095 + r.IntN(200) // headers are small
				}
				bad := maps.Clone(img)
				bad[name] = slices.Clone(img[name])
				bad[name][at] ^= 1 << r.IntN(8)
				mem := bad.mem(t)
				l, err := Open(t.Context(), mem, "log", smallOptions())
				if err != nil {
					var c *CorruptionError
					if !errors.As(err, &c) || c.Segment != name || !strings.Contains(err.Error(), "restore") {
						t.Fatalf("%s at %d: %v", name, at, err)
					}
					if c.Offset > int64(at) || !mapsEqual(bad, takeImage(t, mem)) {
						t.Fatalf("%s at %d: %v (or the directory was changed)", name, at, err)
					}
					reported++
					continue
				}
				if err := m.check(l); err != nil {
					if marked || name != names[len(names)-1] {
						t.Fatalf("%s at %d: %v", name, at, err)
					}
					cut++
					lost := 0
					for k := range m.frames {
						if n := l.Next(k); n != m.acked[k] {
							lost++
							last := m.frames[k][len(m.frames[k])-1]
							if n != last.first {
								t.Fatalf("%s at %d: more than the last group is lost", name, at)
							}
						}
						if err := m.read(l, k, 0, l.Next(k)); err != nil {
							t.Fatal(err)
						}
					}
					if lost != 1 {
						t.Fatalf("%s at %d: %d keys lost frames", name, at, lost)
					}
				}
				_ = l.Close()
			}
			t.Logf("%d reported, %d cut the last group", reported, cut)
			if reported < 200 {
				t.Errorf("only %d flips were reported", reported)
			}
		})
	}
}

func mapsEqual(a, b image) bool {
	return maps.EqualFunc(a, b, func(x, y []byte) bool { return string(x) == string(y) })
}

func TestMissingAndForeignSegments(t *testing.T) {
	img, _, _ := flipWorld(t, true)
	names := slices.Sorted(maps.Keys(img))
	names = slices.DeleteFunc(names, func(n string) bool { _, ok := parseSegmentName(n); return !ok })
	other, _, _ := flipWorld(t, true)
	short := func(img image) { img[names[2]] = img[names[2]][:8192] }
	for name, spoil := range map[string]func(image){
		"missing":           func(img image) { delete(img, names[2]) },
		"of another log":    func(img image) { img[names[2]] = other[names[2]] },
		"short":             short,
		"empty":             func(img image) { img[names[2]] = nil },
		"odd size":          func(img image) { img[names[2]] = append(slices.Clone(img[names[2]]), 1) },
		"under a new name":  func(img image) { img[segmentName(uint64(len(names)+1))] = img[names[0]] },
		"last of all zeros": func(img image) { img[names[len(names)-1]] = make([]byte, segmentBytesMin) },
	} {
		bad := maps.Clone(img)
		spoil(bad)
		var c *CorruptionError
		if _, err := Open(t.Context(), bad.mem(t), "log", smallOptions()); !errors.As(err, &c) {
			t.Errorf("%s: %v", name, err)
		}
	}
	newer := maps.Clone(img)
	b := slices.Clone(img[names[0]])
	b[12] = 9
	h := b[:headerClaim(b)]
	putLE32(h[8:], headerSum(h, headerFixedBytes+26*int(h[56])))
	newer[names[0]] = b
	if _, err := Open(t.Context(), newer.mem(t), "log", smallOptions()); err == nil || !strings.Contains(err.Error(), "version 9") {
		t.Errorf("a newer version: %v", err)
	}
	// The oldest may be gone: they were trimmed.
	fewer := maps.Clone(img)
	delete(fewer, names[0])
	l := open(t, fewer.mem(t), smallOptions())
	if l.Oldest(testKey(1)) == 0 {
		t.Error("the first segment is gone, but not its frames")
	}
}

// TestStaleFrames: a recycled segment is full of valid frames of its former
// life, at the places where groups are looked for.
func TestStaleFrames(t *testing.T) {
	mem := fsys.NewMem()
	opt := smallOptions()
	opt.RetentionBytes = -1
	l := open(t, mem, opt)
	k := testKey(1)
	for range 40 { // every segment in use has been one before
		put(t, l, k, 1, 4000)
		if err := l.Trim(t.Context(), map[record.Key]record.Offset{k: l.Next(k)}); err != nil {
			t.Fatal(err)
		}
	}
	end := l.Next(k)
	for stop := range uint64(4) {
		crashed := mem.Crash(stop)
		r, err := Open(t.Context(), crashed, "log", opt)
		if err != nil {
			t.Fatal(err)
		}
		if r.Next(k) != end {
			t.Fatalf("next %d, want %d", r.Next(k), end)
		}
		for i := range 6 {
			if got := put(t, r, k, 1, 4000); got != end+record.Offset(i) {
				t.Fatalf("first %d", got)
			}
		}
		closeLog(t, r)
	}
}

// TestReadDuringRecycling holds a read while its segment is trimmed.
func TestReadDuringRecycling(t *testing.T) {
	opt := smallOptions()
	opt.RetentionBytes = -1
	l := open(t, fsys.NewMem(), opt)
	k := testKey(1)
	for range 12 {
		put(t, l, k, 1, 3000)
	}
	n := 0
	err := l.Read(t.Context(), k, 0, func(f Frame) error {
		if n == 0 {
			if err := l.Trim(t.Context(), map[record.Key]record.Offset{k: 12}); err != nil {
				return err
			}
			for range 12 {
				put(t, l, k, 1, 3000)
			}
			if l.Oldest(k) != 0 {
				return errors.New("the segment went while it was read")
			}
		}
		n++
		if string(f.Payload) != string(fill(k, f.First, 3000)) {
			return fmt.Errorf("frame %d has other bytes", f.First)
		}
		return nil
	})
	var gone *TrimmedError
	if err != nil && !errors.As(err, &gone) {
		t.Fatal(err)
	}
	eventually(t, "the segments go afterwards", func() bool { return l.Oldest(k) >= 9 })
}
