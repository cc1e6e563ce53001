package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/record"
)

var (
	tableT, tableU = catalog.Name{Namespace: "n", Table: "t"}, catalog.Name{Namespace: "n", Table: "u"}

	directT  = Config{Name: "s", Namespace: "n", Table: "t", SizeBytes: 1 << 30, Interval: time.Hour}
	directU  = Config{Name: "s", Namespace: "n", Table: "u", SizeBytes: 1 << 30, Interval: time.Hour}
	evolving = Config{Name: "s", Namespace: "n", Table: "t", SizeBytes: 1 << 30, Interval: time.Hour, Evolve: true}
	routedT  = Config{Name: "s", SizeBytes: 1 << 30, Interval: time.Hour, Processing: json.RawMessage(`"one table"`), Tables: []catalog.Name{tableT}, Failed: &objectHints}

	plainObjects = Config{Name: "s", Objects: &objectHints}
	keptObjects  = Config{Name: "s", Objects: &objectHints, Backup: &objectHints}
	madeObjects  = Config{Name: "s", Objects: &objectHints, Processing: json.RawMessage(`"steady"`)}
)

// chains are definitions that a stream has one after the other.
var chains = map[string][]Config{
	"table to table":            {directT, directU, directT},
	"processing comes and goes": {directT, routedStream, directU, routedT},
	"tables come and go":        {routedStream, routedT, routedStream},
	"records change the table":  {directT, evolving, directU},
	"objects are processed":     {plainObjects, madeObjects, plainObjects},
	"objects are kept":          {plainObjects, keptObjects, objectStream},
	"objects are not processed": {objectStream, keptObjects, objectStream},
}

// changing drives a stream through a chain and remembers what it may find.
type changing struct {
	chain     []Config
	confirmed int // the last definition that was answered for
	attempted int
	acked     map[int]int // by number, the definition that was in force at least
}

func (c *changing) texts(i int) []string {
	if c.chain[0].Objects == nil {
		return []string{doc(int64(i), i), doc(int64(1000+i), i)}
	}
	return []string{fmt.Sprintf("a%d", i), fmt.Sprintf("two%d", i), fmt.Sprintf("drop%d", i)}
}

func (c *changing) update(ctx context.Context, m *Manager, to int) error {
	c.attempted = max(c.attempted, to)
	next := c.chain[to]
	for {
		s, err := m.Stream("s")
		if err != nil {
			return err
		}
		_, err = m.Update(ctx, "s", s.Config().Version, func(old Config) (Config, error) {
			next.API = json.RawMessage(strconv.Itoa(to))
			return next, nil
		})
		switch {
		case err == nil:
			c.confirmed = to
			return nil
		case errors.Is(err, ErrChanging) && ctx.Err() == nil:
			time.Sleep(time.Millisecond)
		default:
			return err
		}
	}
}

func (c *changing) put(h *house, i int) error {
	at := c.confirmed
	_, err := h.put(c.texts(i)...)
	if err == nil {
		c.acked[i] = at
	}
	return err
}

// check holds what came out against what was acknowledged.
func (c *changing) check(h *house) error {
	if c.chain[0].Objects == nil {
		return c.checkTables(h)
	}
	objects, err := h.lines(roleObjects)
	if err != nil {
		return err
	}
	backup, err := h.lines(roleBackup)
	if err != nil {
		return err
	}
	have := map[string]int{} // by content alone
	for line, n := range objects {
		_, content, _ := strings.Cut(line, " ")
		have[content] += n
	}
	kept := map[string]int{}
	for line, n := range backup {
		if n != 1 {
			return fmt.Errorf("backup: %q is there %d times", line, n)
		}
		_, content, _ := strings.Cut(line, " ")
		kept[content] += n
	}
	for i, from := range c.acked {
		t := c.texts(i)
		processed, plain := false, false
		for _, v := range c.chain[from : c.attempted+1] {
			processed, plain = processed || len(v.Processing) > 0, plain || len(v.Processing) == 0
		}
		raw, made, other := have[t[1]], have[t[1]+"/1"], have["key-"+t[1]+"/2"]
		switch {
		case have[t[0]] != 1:
			return fmt.Errorf("%q was acknowledged and is there %d times", t[0], have[t[0]])
		case raw+made != 1 || made != other:
			return fmt.Errorf("%q is there %d times as it came, %d and %d times processed", t[1], raw, made, other)
		case raw == 1 && !plain || made == 1 && !processed:
			return fmt.Errorf("%q was put under definition %d, and processed: %v", t[1], from, made == 1)
		}
		for _, x := range t {
			if n := kept[x]; n > 1 || n == 0 && c.chain[from].Backup != nil {
				return fmt.Errorf("backup: %q is there %d times, put under definition %d", x, n, from)
			}
		}
	}
	return nil
}

func (c *changing) checkTables(h *house) error {
	in := map[int64][]catalog.Name{}
	for _, n := range []catalog.Name{tableT, tableU} {
		w := h.w.of(n)
		w.mu.Lock()
		for _, r := range w.rows {
			in[r.seq] = append(in[r.seq], n)
		}
		w.mu.Unlock()
	}
	for seq, tables := range in {
		if len(tables) != 1 {
			return fmt.Errorf("record %d is in %v", seq, tables)
		}
	}
	for i, from := range c.acked {
		for _, seq := range []int64{int64(i), int64(1000 + i)} {
			if len(in[seq]) == 0 {
				return fmt.Errorf("record %d was acknowledged under definition %d and is missing", seq, from)
			}
			allowed := false
			for _, v := range c.chain[from : c.attempted+1] {
				v.settle()
				want := v.Tables[0]
				allowed = allowed || in[seq][0] == want
			}
			if !allowed {
				return fmt.Errorf("record %d was put under definition %d and is in %v", seq, from, in[seq])
			}
		}
	}
	return nil
}

// settled waits until the stream's change is complete.
func settled(t *testing.T, h *house) *Stream {
	t.Helper()
	s, err := h.m.Stream("s")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.changed(ctx); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestDestinationChanges drives every chain without a fault, and restarts at
// its end.
func TestDestinationChanges(t *testing.T) {
	for name, chain := range chains {
		t.Run(name, func(t *testing.T) {
			h := startStream(t, chain[0])
			c := &changing{chain: chain, acked: map[int]int{}}
			n := 0
			for to := range chain {
				if to > 0 {
					if err := c.update(t.Context(), h.m, to); err != nil {
						t.Fatal(err)
					}
				}
				for range 5 {
					if err := c.put(h, n); err != nil {
						t.Fatal(err)
					}
					n++
				}
			}
			s := settled(t, h)
			cfg := s.Config()
			if want := len(cfg.laneIDs()); len(s.lanes) != want {
				t.Errorf("%d lanes, want %d", len(s.lanes), want)
			}
			if (s.stage.Load() != nil) != cfg.staged() || (s.direct.Load() != nil) != cfg.direct() {
				t.Error("the stream's form is not its definition's")
			}
			if err := h.m.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := c.check(h); err != nil {
				t.Fatal(err)
			}
			if end := h.m.o.Log.Synced(s.key); s.Through() != end {
				t.Errorf("delivered up to %d of %d", s.Through(), end)
			}
			if chain[0].Objects == nil {
				if a, _ := h.m.o.Ledger.Accounts(); a[0].Seen.Total() != int64(2*n) {
					t.Errorf("the ledger's account: %d records of %d", a[0].Seen.Total(), 2*n)
				}
			}
			// Nothing holds the log any more.
			if err := h.m.checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
			upTo := record.Vector{}
			s.trimmable(h.m.o.Ledger.Applied(), upTo)
			for _, k := range []record.Key{s.key, s.staged()} {
				if upTo[k] != h.m.o.Log.Synced(k) {
					t.Errorf("%s: trimmed up to %d of %d", k, upTo[k], h.m.o.Log.Synced(k))
				}
			}
			h.abandon()
			again, err := openHouse(t, h.mem, h.w, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(again.abandon)
			for i := range n { // what was put before any change is known
				if _, err := again.put(c.texts(i)...); err != nil {
					t.Fatal(err)
				}
				if chain[0].Objects != nil {
					break
				}
			}
			if err := again.m.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if chain[0].Objects == nil {
				if err := c.check(again); err != nil {
					t.Fatal(err)
				}
			}
			if err := again.m.Delete(t.Context(), "s"); err != nil {
				t.Fatal(err)
			}
			if docs, _ := again.w.List(t.Context(), KindProgress); len(docs) != 0 {
				t.Errorf("progress of a deleted stream: %v", docs)
			}
		})
	}
}

// TestCrashAmidChanges crashes after every operation of a stream that is
// changed again and again, with commits and definitions whose outcome is open.
func TestCrashAmidChanges(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 11
	}
	for name, chain := range chains {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			end := false
			for n := 1; !end; n += step {
				done, err := crashChanging(t, chain, n)
				if err != nil {
					t.Fatalf("crash after operation %d: %v", n, err)
				}
				end = done
			}
		})
	}
}

func crashChanging(t *testing.T, chain []Config, n int) (finished bool, err error) {
	mem, w := fsys.NewMem(), newWorld()
	r := rng(uint64(n))
	var mu sync.Mutex
	draw := func() outcome { mu.Lock(); defer mu.Unlock(); return outcome(r.IntN(3)) }
	w.decide(draw)
	ops := 0
	mem.SetHook(func(string, string, int) error {
		mu.Lock()
		defer mu.Unlock()
		if ops++; ops > n {
			return errCrashed
		}
		return nil
	})
	dead := func() bool { mu.Lock(); defer mu.Unlock(); return ops > n }
	c := &changing{chain: chain, acked: map[int]int{}}
	h, openErr := openHouse(t, mem, w, nil)
	if openErr == nil {
		if _, err := h.m.Create(context.Background(), chain[0]); err == nil {
			w.mu.Lock()
			w.store = func() outcome { // one in three is certain
				return draw()
			}
			w.mu.Unlock()
			i := 0
			for to := range chain {
				beside := make(chan error, 1) // a put at the time of the change
				at, number := c.confirmed, i
				if i++; to > 0 && !dead() {
					go func() { _, err := h.put(c.texts(number)...); beside <- err }()
				} else {
					beside <- errCrashed
				}
				for range 20 { // until it is answered, as a client would
					if to == 0 || dead() {
						break
					}
					ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
					err := c.update(ctx, h.m, to)
					cancel()
					if err == nil {
						break
					}
				}
				if <-beside == nil {
					c.acked[number] = at
				}
				for k := range 3 {
					if dead() {
						break
					}
					_ = c.put(h, i)
					i++
					if k == 1 {
						ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
						_ = h.m.Flush(ctx)
						cancel()
					}
				}
			}
		}
		h.abandon()
	}
	finished = !dead()
	w.decide(func() outcome { return commitDone })
	w.mu.Lock()
	w.store = nil
	w.mu.Unlock()
	h2, err := openHouse(t, mem.Crash(uint64(n)), w, nil)
	if err != nil {
		return finished, fmt.Errorf("reopen: %w", err)
	}
	defer h2.abandon()
	if len(h2.m.Streams()) == 0 {
		if len(c.acked) > 0 {
			return finished, errors.New("the stream is gone")
		}
		return finished, nil
	}
	if chain[0].Objects == nil { // a producer that did not get its answer sends again
		for i := range 4 * len(chain) {
			if _, err := h2.put(c.texts(i)...); err != nil {
				return finished, fmt.Errorf("put again: %w", err)
			}
			if _, ok := c.acked[i]; !ok {
				c.acked[i] = c.confirmed
			}
		}
	}
	s, err := h2.m.Stream("s")
	if err != nil {
		return finished, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.changed(ctx); err != nil {
		return finished, err
	}
	if err := h2.m.Close(ctx); err != nil {
		return finished, fmt.Errorf("close: %w", err)
	}
	return finished, c.check(h2)
}
