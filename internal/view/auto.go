package view

import (
	"context"
	"errors"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
)

const (
	// recomputeShare bounds what recomputing takes of the time when nobody
	// asked for it: one part of that many.
	recomputeShare = 10
	// backoffMax bounds the wait after failures in a row.
	backoffMax = time.Minute
)

// run is the automatic refresh: it looks at the views one after the other, so
// that at most one is refreshed at a time.
func (m *Manager) run(ctx context.Context) {
	defer close(m.done)
	t := time.NewTicker(m.o.Interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for _, v := range m.sorted() {
			if v.def.AutoRefresh && v.layout.Mode != modeQuery {
				m.consider(ctx, v)
			}
			if ctx.Err() != nil {
				return
			}
		}
	}
}

// consider refreshes v if it is due.
func (m *Manager) consider(ctx context.Context, v *view) {
	due, err := m.due(ctx, v)
	if err == nil && !due {
		return
	}
	var r Result
	if err == nil {
		r, err = m.refresh(ctx, v, byLoop)
	}
	now := time.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	s := &v.schedule
	switch {
	case err == nil:
		*s = schedule{}
		if r.Outcome == Recomputed {
			s.notBefore = now.Add((recomputeShare - 1) * r.Took)
		}
	case ctx.Err() != nil || errors.Is(err, ErrNotFound):
	default:
		s.failures++
		s.notBefore = now.Add(min(time.Second<<min(s.failures, 10), backoffMax))
		if s.failures == 1 {
			m.log.Warn("automatic refresh of a view failed and is tried again", "view", v.def.Name.String(), "error", err)
		}
	}
}

// due reports whether v is behind by enough rows or for long enough.
func (m *Manager) due(ctx context.Context, v *view) (bool, error) {
	v.mu.Lock()
	s := v.schedule
	v.mu.Unlock()
	now := time.Now()
	if now.Before(s.notBefore) {
		return false, nil
	}
	tables, err := m.o.Catalog.LoadAll(ctx, v.tables)
	if errors.Is(err, catalog.ErrNotFound) {
		return false, nil // dropped, or its base is
	}
	if err != nil {
		return false, err
	}
	j, err := m.judge(ctx, v, tables)
	if err != nil || !j.moved {
		return false, err
	}
	if s.staleAt.IsZero() {
		s.staleAt = now
		v.mu.Lock()
		v.schedule.staleAt = now
		v.mu.Unlock()
	}
	age := now.Sub(s.staleAt)
	if age < m.o.AgeMin && (j.outcome != Incremental || j.rows < m.o.RowsMin) {
		return false, nil
	}
	if m.o.Busy != nil && age < m.o.DeferMax && m.o.Busy() {
		m.metrics.deferred.Inc()
		return false, nil
	}
	return true, nil
}
