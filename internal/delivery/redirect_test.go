package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/fsys"
)

func to(target string) Config {
	return Config{Name: "s", Objects: &ObjectConfig{SizeBytes: 1, Interval: time.Hour, Target: json.RawMessage(`"` + target + `"`)}}
}

func (w *world) breaks(target string, mute bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken, w.mute = `"`+target+`"`, mute
}

// A delivery that fails goes to where a change says, and what it wrote before
// is taken back.
func TestFailingDeliveryIsRedirected(t *testing.T) {
	for _, mute := range []bool{false, true} {
		t.Run(fmt.Sprintf("mute=%v", mute), func(t *testing.T) {
			h := startStream(t, to("old"))
			h.w.breaks("old", mute)
			if _, err := h.put("a"); err != nil {
				t.Fatal(err)
			}
			s := mustStream(t, h)
			lane := s.objects()[0]
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) { // it has written, and failed
				if n, err := h.lines(roleObjects); err != nil || n["0 a"] == 1 {
					break
				} else if time.Now().After(deadline) {
					t.Fatal(n)
				}
			}
			// A change that does not concern where it goes: the plan stays.
			if _, err := h.m.Update(t.Context(), "s", 1, func(c Config) (Config, error) { c.API = json.RawMessage(`1`); return c, nil }); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
			if lane.Through() != 0 {
				t.Fatal("delivered to a destination that fails")
			}
			if _, err := h.m.Update(t.Context(), "s", 2, func(Config) (Config, error) { return to("new"), nil }); err != nil {
				t.Fatal(err)
			}
			if _, err := h.put("b"); err != nil {
				t.Fatal(err)
			}
			if err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			got, err := h.lines(roleObjects)
			if err != nil {
				t.Fatal(err)
			}
			want := 1
			if mute { // the one exception that the protocol names
				want = 2
			}
			if got["0 a"] != want || got["1 b"] != 1 || len(got) != 2 {
				t.Errorf("%v", got)
			}
		})
	}
}

// TestCrashAmidRedirection crashes after every operation of a stream whose
// deliveries fail half done, and are redirected twice.
func TestCrashAmidRedirection(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 5
	}
	for n, end := 1, false; !end; n += step {
		done, err := crashRedirected(t, n)
		if err != nil {
			t.Fatalf("crash after operation %d: %v", n, err)
		}
		end = done
	}
}

func crashRedirected(t *testing.T, n int) (finished bool, err error) {
	mem, w := fsys.NewMem(), newWorld()
	var mu sync.Mutex
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
	targets := []string{"one", "two", "three"}
	acked := map[int]bool{}
	h, openErr := openHouse(t, mem, w, nil)
	if openErr == nil {
		if _, err := h.m.Create(context.Background(), to(targets[0])); err == nil {
			for i, target := range targets {
				if dead() {
					break
				}
				w.breaks(target, false)
				if i > 0 {
					if _, err := h.m.Update(context.Background(), "s", int64(i), func(Config) (Config, error) { return to(target), nil }); err != nil && !dead() {
						return false, err
					}
				}
				if i == len(targets)-1 {
					w.breaks("", false)
				}
				for k := range 2 {
					if _, err := h.put(fmt.Sprintf("%d.%d", i, k)); err == nil {
						acked[2*i+k] = true
					}
					ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
					_ = h.m.Flush(ctx)
					cancel()
				}
			}
		}
		h.abandon()
	}
	finished = !dead()
	w.breaks("", false)
	h2, err := openHouse(t, mem.Crash(uint64(n)), w, nil)
	if err != nil {
		return finished, fmt.Errorf("reopen: %w", err)
	}
	defer h2.abandon()
	if len(h2.m.Streams()) == 0 {
		if len(acked) > 0 {
			return finished, errors.New("the stream is gone")
		}
		return finished, nil
	}
	if err := h2.m.Close(context.Background()); err != nil {
		return finished, err
	}
	got, err := h2.lines(roleObjects)
	if err != nil {
		return finished, err
	}
	content := map[string]int{}
	for line, n := range got {
		content[line[len(line)-3:]] += n
	}
	for line, n := range content {
		if n != 1 {
			return finished, fmt.Errorf("%q is there %d times", line, n)
		}
	}
	for i := range acked {
		if content[fmt.Sprintf("%d.%d", i/2, i%2)] != 1 {
			return finished, fmt.Errorf("record %d was acknowledged and is missing: %v", i, content)
		}
	}
	return finished, nil
}

// Retract finds the names that Write gave, and removes no other object.
func TestPrefixRetracts(t *testing.T) {
	d, store := newPrefix(t)
	errs := "bad/!{firehose:error-output-type}/"
	plan := planOf(t, d, Target{Bucket: "b", Prefix: "by/symbol=!{partitionKeyFromQuery:symbol}/!{firehose:random-string}/", ErrorPrefix: &errs})
	texts := records("symbol=A 1", "!broken", "symbol=B 2", "symbol=A 3")
	other := plan
	other.Seed[0]++
	if _, err := d.Write(t.Context(), other, texts); err != nil {
		t.Fatal(err)
	}
	rest := contents(t, store)
	if _, err := d.Write(t.Context(), plan, texts); err != nil {
		t.Fatal(err)
	}
	all := contents(t, store)
	if len(rest) != 3 || len(all) != 6 {
		t.Fatal(rest, all)
	}
	for range 2 { // the second finds nothing
		if err := d.Retract(t.Context(), plan, texts); err != nil {
			t.Fatal(err)
		}
		if got := contents(t, store); !maps.Equal(got, rest) {
			t.Fatalf("left: %v", got)
		}
	}
	if _, err := d.Write(t.Context(), plan, texts); err != nil || !maps.Equal(contents(t, store), all) {
		t.Fatal("written again, it is something else", err)
	}
	plan.Target = json.RawMessage(`{"bucket":"gone"}`)
	if err := d.Retract(t.Context(), plan, texts); err == nil {
		t.Fatal("a bucket that is not there was asked")
	}
	if left, err := d.FS.ReadDir("/staging"); err != nil || len(left) != 0 {
		t.Fatal("left in staging", left, err)
	}
}

// A target remembers the prefixes of which records may have the keys.
func TestFormerPrefixes(t *testing.T) {
	d, store := newPrefix(t)
	c := &ObjectConfig{Target: json.RawMessage(`{"bucket":"b","prefix":"plain/"}`)}
	for _, key := range []string{"a", "b", "b", "c", "d", "e", "f"} {
		target, err := json.Marshal(Target{Bucket: "b", Prefix: key + "=!{partitionKeyFromQuery:" + key + "}/"})
		if err != nil {
			t.Fatal(err)
		}
		next := &ObjectConfig{Target: target}
		if err := next.Succeed(c); err != nil {
			t.Fatal(err)
		}
		c = next
	}
	var got Target
	if err := json.Unmarshal(c.Target, &got); err != nil || len(got.FormerPrefixes) != formerPrefixesMax || got.FormerPrefixes[0] != "e=!{partitionKeyFromQuery:e}/" {
		t.Fatalf("%+v %v", got, err)
	}
	errs := "bad/!{firehose:error-output-type}/"
	got.ErrorPrefix = &errs
	plan := planOf(t, d, got)
	for range 2 {
		if r, err := d.Write(t.Context(), plan, records("f=1 1", "c=2 2", "a=3 3", "e=4 4", "f=1 5")); err != nil || r.Failed != 1 || r.Objects != 4 {
			t.Fatalf("%+v %v", r, err)
		}
	}
	have := map[string]string{}
	for name, body := range contents(t, store) {
		have[name[:3]] += body
	}
	if have["f=1"] != "15" || have["c=2"] != "2" || have["e=4"] != "4" || have["a=3"] != "" || len(have) != 4 {
		t.Fatal(have)
	}
}
