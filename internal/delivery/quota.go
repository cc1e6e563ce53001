package delivery

import (
	"fmt"
	"sync"
	"time"
)

// Quota bounds what a stream takes a second; 0 is no bound. A second's worth
// may come at once.
type Quota struct {
	RecordsPerSecond int64
	BytesPerSecond   int64
}

// bucket keeps account of a quota. Its zero time is full.
type bucket struct {
	quota Quota

	mu      sync.Mutex
	at      time.Time
	records float64 // that may come now
	bytes   float64
}

// take takes a put's records and bytes, or says that they are too many now. A
// put larger than a second's worth is let through on a full bucket, which then
// owes the rest: it could never come otherwise.
func (b *bucket) take(now time.Time, records, bytes int) error {
	q := b.quota
	if q == (Quota{}) {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	fill := func(have *float64, rate int64, elapsed float64) {
		*have = min(*have+elapsed*float64(rate), float64(rate))
	}
	if b.at.IsZero() {
		b.records, b.bytes = float64(q.RecordsPerSecond), float64(q.BytesPerSecond)
	} else if elapsed := now.Sub(b.at).Seconds(); elapsed > 0 {
		fill(&b.records, q.RecordsPerSecond, elapsed)
		fill(&b.bytes, q.BytesPerSecond, elapsed)
	}
	b.at = now
	enough := func(have float64, want int, rate int64) bool {
		return rate == 0 || have >= min(float64(want), float64(rate))
	}
	switch {
	case !enough(b.records, records, q.RecordsPerSecond):
		return fmt.Errorf("%w: more than %d records a second", ErrThrottled, q.RecordsPerSecond)
	case !enough(b.bytes, bytes, q.BytesPerSecond):
		return fmt.Errorf("%w: more than %d bytes a second", ErrThrottled, q.BytesPerSecond)
	}
	b.records -= float64(records)
	b.bytes -= float64(bytes)
	return nil
}
