package wal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/record"
)

func testKey(i int) record.Key {
	return record.Key{Incarnation: uuid.UUID{0: byte(i), 15: 0xaa}, Shard: record.Shard(i % 3)}
}

// smallOptions make everything happen often: a segment holds three or four groups.
func smallOptions() Options {
	return Options{SegmentBytes: segmentBytesMin, RetentionBytes: 2 * segmentBytesMin, StallSegments: 2,
		Linger: -1, markAfter: -1, ReserveBytes: -1}
}

// fill is a payload that can be recognised.
func fill(k record.Key, first record.Offset, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(k.Incarnation[0]), uint64(first)))
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b
}

type modelFrame struct {
	first record.Offset
	count uint32
	size  int
}

// model is what must be true of a log.
type model struct {
	frames    map[record.Key][]modelFrame // everything enqueued, in order
	acked     map[record.Key]record.Offset
	trim      map[record.Key]record.Offset
	forgotten map[record.Key]bool
}

func newModel() *model {
	return &model{map[record.Key][]modelFrame{}, map[record.Key]record.Offset{}, map[record.Key]record.Offset{}, map[record.Key]bool{}}
}

func (m *model) end(k record.Key) record.Offset {
	fs := m.frames[k]
	if len(fs) == 0 {
		return 0
	}
	return fs[len(fs)-1].first + record.Offset(fs[len(fs)-1].count)
}

// check compares a log that is at rest with the model. exact: nothing may be
// there that was not acknowledged.
func (m *model) check(l *Log) error {
	for k := range m.frames {
		if m.forgotten[k] {
			continue
		}
		next, oldest := l.Next(k), l.Oldest(k)
		if next != l.Synced(k) {
			return fmt.Errorf("%s: next %d, synced %d", k, next, l.Synced(k))
		}
		if next < m.acked[k] || next > m.end(k) {
			return fmt.Errorf("%s: next is %d, acknowledged %d, enqueued %d", k, next, m.acked[k], m.end(k))
		}
		if oldest > m.trim[k] && oldest != 0 {
			return fmt.Errorf("%s: oldest is %d, trimmed to %d only", k, oldest, m.trim[k])
		}
		err := m.read(l, k, oldest, next)
		for gone := new(TrimmedError); errors.As(err, &gone) && gone.Oldest > oldest && gone.Oldest <= m.trim[k]; {
			oldest = gone.Oldest // the keeper was faster
			err = m.read(l, k, oldest, next)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *model) read(l *Log, k record.Key, from, until record.Offset) error {
	i := 0
	fs := m.frames[k]
	for i < len(fs) && fs[i].first < from {
		i++
	}
	at := from
	err := l.Read(context.Background(), k, from, func(f Frame) error {
		if i >= len(fs) {
			return fmt.Errorf("%s: a frame at %d behind the end", k, f.First)
		}
		want := fs[i]
		if f.Key != k || f.First != want.first || f.First != at || f.Count != want.count || f.SchemaID != 7 || f.ArrivedAt != int64(want.first)+1000 ||
			!bytes.Equal(f.Payload, fill(k, want.first, want.size)) {
			return fmt.Errorf("%s: frame at %d (count %d, %d bytes), want %+v", k, f.First, f.Count, len(f.Payload), want)
		}
		at += record.Offset(f.Count)
		i++
		return nil
	})
	if err == nil && at != until {
		err = fmt.Errorf("%s: read ended at %d, want %d", k, at, until)
	}
	return err
}

// recovered makes the model forget what the crash took.
func (m *model) recovered(l *Log) {
	for k, fs := range m.frames {
		if m.forgotten[k] {
			delete(m.frames, k)
			continue
		}
		next := l.Next(k)
		for len(fs) > 0 && fs[len(fs)-1].first >= next {
			fs = fs[:len(fs)-1]
		}
		m.frames[k] = fs
		m.acked[k] = next
	}
}

func (m *model) enqueue(l *Log, k record.Key, r *rand.Rand) (Ticket, error) {
	first := l.Next(k)
	f := modelFrame{first: first, count: uint32(1 + r.IntN(20)), size: r.IntN(400)}
	if r.IntN(6) == 0 {
		f.size = r.IntN(l.maxPayload + 1)
	}
	f.size &^= 7
	t, err := l.Enqueue(k, Entry{Kind: 1, SchemaID: 7, Count: f.count, ArrivedAt: int64(first) + 1000, Payload: fill(k, first, f.size)})
	if err != nil {
		return t, err
	}
	if t.First() != first {
		return t, fmt.Errorf("%s: first is %d, want %d", k, t.First(), first)
	}
	m.frames[k] = append(m.frames[k], f)
	return t, nil
}

// script runs a workload until it ends or an operation fails.
func (m *model) script(fs fsys.FS, dir string, opt Options, seed uint64, steps int) (l *Log, err error) {
	ctx := context.Background()
	r := rand.New(rand.NewPCG(seed, 1))
	if l, err = Open(ctx, fs, dir, opt); err != nil {
		return nil, err
	}
	keys := []record.Key{testKey(1), testKey(2), testKey(3), testKey(4)}
	stalled := testKey(4)
	if m.forgotten[testKey(3)] {
		keys = append(keys[:2], keys[3:]...)
	}
	for step := range steps {
		switch c := r.IntN(20); {
		case c < 14:
			type put struct {
				k record.Key
				t Ticket
			}
			var puts []put
			for range 1 + r.IntN(4) {
				k := keys[r.IntN(len(keys))]
				if k == stalled && r.IntN(4) != 0 {
					continue
				}
				t, err := m.enqueue(l, k, r)
				if err != nil {
					return l, err
				}
				puts = append(puts, put{k, t})
			}
			for _, p := range puts {
				if err := p.t.Wait(ctx); err != nil {
					return l, err
				}
				fs := m.frames[p.k]
				for _, f := range fs {
					if f.first == p.t.First() {
						m.acked[p.k] = max(m.acked[p.k], f.first+record.Offset(f.count))
					}
				}
			}
		case c < 18:
			points := map[record.Key]record.Offset{}
			for _, k := range keys {
				if k == stalled && step < steps*3/4 {
					continue
				}
				points[k] = m.trim[k] + record.Offset(r.IntN(int(m.acked[k]-m.trim[k])+1))
				if r.IntN(2) == 0 {
					points[k] = m.acked[k]
				}
				m.trim[k] = points[k]
			}
			if err := l.Trim(ctx, points); err != nil {
				return l, err
			}
		case c == 18:
			if err := l.Close(); err != nil {
				return l, err
			}
			if l, err = Open(ctx, fs, dir, opt); err != nil {
				return nil, err
			}
			if err := m.check(l); err != nil {
				return l, err
			}
		default:
			if k := testKey(3); step > steps/2 && !m.forgotten[k] {
				m.forgotten[k] = true
				keys = append(keys[:2], keys[3:]...)
				l.Forget(k)
			}
		}
	}
	return l, nil
}

var errPowerLoss = errors.New("power loss")

// TestCrashEverywhere stops a workload after each of its operations, takes away
// what was not synced, and recovers: once more stopped at a random operation of
// the recovery.
func TestCrashEverywhere(t *testing.T) {
	seeds := 10
	if testing.Short() {
		seeds = 3
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			for stop := 1; ; stop++ {
				mem := fsys.NewMem()
				mem.SetHook(func(_, _ string, n int) error {
					if n > stop {
						return errPowerLoss
					}
					return nil
				})
				m := newModel()
				l, err := m.script(mem, "data/log", smallOptions(), seed, 40)
				if l != nil {
					_ = l.Close()
				}
				if err != nil && !errors.Is(err, errPowerLoss) {
					t.Fatalf("stop after %d: %v", stop, err)
				}
				done := err == nil
				left := mem.Crash(seed*1000 + uint64(stop))
				if stop%5 == 0 {
					left = mem // only the process died: what it wrote is in the page cache
				}
				// A second loss of power, during recovery.
				r := rand.New(rand.NewPCG(seed, uint64(stop)))
				again := r.IntN(8)
				left.SetHook(func(_, _ string, n int) error {
					if n > again {
						return errPowerLoss
					}
					return nil
				})
				if l, err := Open(context.Background(), left, "data/log", smallOptions()); err == nil {
					_ = l.Close()
				} else if !errors.Is(err, errPowerLoss) {
					t.Fatalf("stop after %d, again after %d: %v", stop, again, err)
				}
				if stop%5 != 0 {
					left = left.Crash(uint64(stop) * 77)
				}
				left.SetHook(nil)
				if err := m.afterCrash(left, seed); err != nil {
					t.Fatalf("stop after %d, again after %d: %v", stop, again, err)
				}
				if done {
					return
				}
			}
		})
	}
}

func (m *model) afterCrash(left *fsys.Mem, seed uint64) error {
	l, err := Open(context.Background(), left, "data/log", smallOptions())
	if err != nil {
		return err
	}
	if err := m.check(l); err != nil {
		_ = l.Close()
		return err
	}
	m.recovered(l)
	// What Open found is as good as acknowledged, and what is put after it:
	// power fails again at once.
	r := rand.New(rand.NewPCG(seed, 5))
	for i := 1; i <= 2; i++ {
		k := testKey(i)
		tk, err := m.enqueue(l, k, r)
		if err == nil {
			err = tk.Wait(context.Background())
		}
		if err != nil {
			return fmt.Errorf("put after recovery: %w", err)
		}
		m.acked[k] = m.end(k)
	}
	left = left.Crash(4 * seed)
	_ = l.Close()
	if l, err = Open(context.Background(), left, "data/log", smallOptions()); err != nil {
		return fmt.Errorf("after recovery: %w", err)
	}
	if err := m.check(l); err != nil {
		_ = l.Close()
		return fmt.Errorf("after recovery: %w", err)
	}
	if err := l.Close(); err != nil {
		return err
	}
	// The log goes on where it stopped.
	if l, err = m.script(left, "data/log", smallOptions(), seed+100, 6); err != nil {
		return fmt.Errorf("go on: %w", err)
	}
	if err := m.check(l); err != nil {
		return fmt.Errorf("gone on: %w", err)
	}
	return l.Close()
}
