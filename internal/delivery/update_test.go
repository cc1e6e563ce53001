package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"
)

func TestUpdate(t *testing.T) {
	h := start(t, nil)
	created, err := h.m.Stream("s")
	if err != nil {
		t.Fatal(err)
	}
	first := created.Config()
	if first.Version != 1 || first.UpdatedAt != first.CreatedAt {
		t.Fatalf("a new stream: %+v", first)
	}
	if _, err := h.put(doc(1, 1)); err != nil {
		t.Fatal(err)
	}

	// The hints are in effect at once: the stream's own would flush in an hour.
	got, err := h.m.Update(t.Context(), "s", 1, func(c Config) (Config, error) {
		c.Interval, c.SizeBytes, c.API = 0, 1, json.RawMessage(`{"changed":1}`)
		c.Name, c.Table, c.Version, c.CreatedAt = "other", "other", 99, time.Time{} // not the caller's to change
		return c, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Version != 2 || got.Name != "s" || got.Table != "t" || got.CreatedAt != first.CreatedAt || got.UpdatedAt.Before(first.CreatedAt) || got.Incarnation != first.Incarnation {
		t.Fatalf("after the update: %+v", got)
	}
	deadline := time.Now().Add(30 * time.Second)
	for created.Through() != 1 {
		if time.Now().After(deadline) {
			t.Fatal("the new interval did not flush")
		}
		time.Sleep(5 * time.Millisecond)
	}

	if _, err := h.m.Update(t.Context(), "s", 1, func(c Config) (Config, error) { return c, nil }); !errors.Is(err, ErrChanged) {
		t.Fatalf("with a version that has passed: %v", err)
	}
	no := errors.New("no")
	if _, err := h.m.Update(t.Context(), "s", 2, func(c Config) (Config, error) { c.SizeBytes = 77; return c, no }); !errors.Is(err, no) || created.Config().SizeBytes != 1 {
		t.Fatalf("a change that was refused: %v, %+v", err, created.Config())
	}
	// Beside the destination: the version stays.
	if got, err = h.m.Update(t.Context(), "s", 0, func(c Config) (Config, error) { c.API = json.RawMessage(`{"changed":2}`); return c, nil }); err != nil || got.Version != 2 {
		t.Fatal(got, err)
	}
	if _, err := h.m.Update(t.Context(), "nobody", 0, nil); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}

	// A restart has the last definition.
	h.abandon()
	if _, err := h.m.Update(t.Context(), "s", 0, func(c Config) (Config, error) { return c, nil }); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	again, err := openHouse(t, h.mem, h.w, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.abandon)
	s, err := again.m.Stream("s")
	if err != nil {
		t.Fatal(err)
	}
	if c := s.Config(); c.Version != 2 || c.SizeBytes != 1 || string(c.API) != `{"changed":2}` {
		t.Fatalf("after a restart: %+v", c)
	}
}

// Definitions that were stored before there were versions are at the first.
func TestDefinitionWithoutVersion(t *testing.T) {
	h := start(t, nil)
	h.abandon()
	h.w.mu.Lock()
	var c map[string]any
	if err := json.Unmarshal(h.w.docs[kindStream]["s"], &c); err != nil {
		t.Fatal(err)
	}
	delete(c, "version")
	delete(c, "updated_at")
	body, err := json.Marshal(c)
	h.w.docs[kindStream]["s"] = body
	h.w.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	again, err := openHouse(t, h.mem, h.w, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.abandon)
	s, err := again.m.Stream("s")
	if err != nil {
		t.Fatal(err)
	}
	if c := s.Config(); c.Version != 1 || c.UpdatedAt != c.CreatedAt || c.CreatedAt.IsZero() {
		t.Fatalf("%+v", c)
	}
}

// Of updates at one version one wins; none brings a deleted stream back.
func TestUpdatesRace(t *testing.T) {
	h := start(t, nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range 8 {
		wg.Go(func() {
			_, err := h.m.Update(context.Background(), "s", 1, func(c Config) (Config, error) {
				c.API = json.RawMessage(strconv.Itoa(i))
				return c, nil
			})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, ErrChanged) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Fatalf("%d updates of one version", won)
	}
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if _, err := h.m.Update(context.Background(), "s", 0, func(c Config) (Config, error) { return c, nil }); err != nil && !errors.Is(err, ErrNotFound) {
						t.Error(err)
					}
				}
			}
		})
	}
	if err := h.m.Delete(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Millisecond)
	close(stop)
	wg.Wait()
	if docs, err := h.w.List(t.Context(), kindStream); err != nil || len(docs) != 0 {
		t.Fatalf("the deleted stream is stored: %v %v", docs, err)
	}
}
