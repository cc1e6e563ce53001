package delivery

import (
	"errors"
	"testing"
	"time"
)

func TestQuota(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	b := bucket{quota: Quota{RecordsPerSecond: 10, BytesPerSecond: 1000}}
	take := func(records, bytes int, ok bool) {
		t.Helper()
		if err := b.take(now, records, bytes); (err == nil) != ok || err != nil && !errors.Is(err, ErrThrottled) {
			t.Errorf("%d records, %d bytes: %v", records, bytes, err)
		}
	}
	take(10, 100, true)
	take(1, 1, false)
	now = now.Add(500 * time.Millisecond)
	take(5, 100, true)
	take(1, 1, false)
	now = now.Add(time.Hour) // no more than a second's worth is saved
	take(10, 1000, true)
	take(1, 1, false)
	now = now.Add(time.Second)
	take(1, 900, true)
	take(1, 200, false) // bytes
	take(1, 100, true)
	now = now.Add(time.Second)
	take(35, 10, true) // larger than the quota: let through once, and owed
	now = now.Add(2 * time.Second)
	take(1, 1, false)
	now = now.Add(1600 * time.Millisecond)
	take(1, 1, true)
	now = now.Add(-time.Hour) // a clock that jumps back gives nothing
	take(10, 1, false)

	free := bucket{}
	if err := free.take(now, 1<<30, 1<<30); err != nil {
		t.Error(err)
	}
}

func TestQuotaTurnsPutsAway(t *testing.T) {
	h := start(t, func(o *Options) {
		o.Quota = func(name string) Quota { return Quota{RecordsPerSecond: 2} }
		fixed := time.Unix(1_800_000_000, 0)
		o.Now = func() time.Time { return fixed }
	})
	if _, err := h.put(doc(1, 1), doc(2, 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.put(doc(3, 3)); !errors.Is(err, ErrThrottled) {
		t.Fatal(err)
	}
	s, _ := h.m.Stream("s")
	if n := h.log.Next(s.key); n != 2 {
		t.Fatalf("%d records were logged", n)
	}
}
