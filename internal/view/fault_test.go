package view

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/lake"
)

var errDisk = errors.New("disk on fire")

// faultyCatalog fails commits before or after they are done.
type faultyCatalog struct {
	*catalog.Catalog
	before, after error
}

func (c *faultyCatalog) Commit(ctx context.Context, commits []catalog.Commit, documents ...catalog.DocumentWrite) ([]*catalog.Table, error) {
	if c.before != nil {
		return nil, c.before
	}
	out, err := c.Catalog.Commit(ctx, commits, documents...)
	if err == nil && c.after != nil {
		return nil, c.after
	}
	return out, err
}

// TestUnknownOutcome lets commits fail that were done, and others that were not.
func TestUnknownOutcome(t *testing.T) {
	w := newWorld(t)
	w.add(trades, tradeRows(1, 50))
	faulty := &faultyCatalog{Catalog: w.catalog}
	m, err := Open(t.Context(), Options{Catalog: faulty, Engine: w.engine, Store: w.store, Staging: filepath.Join(w.dir, "staging"), Interval: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.views.Close(); err != nil {
		t.Fatal(err)
	}
	w.views = m
	d := w.define("v", deltaViews[0].sql)
	faulty.before = errDisk
	if err := m.Create(t.Context(), d); !errors.Is(err, errDisk) {
		t.Errorf("create: %v", err)
	}
	if _, err := w.catalog.Load(t.Context(), stateName(d.Name)); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("state of a view that was not made: %v", err)
	}
	faulty.before, faulty.after = nil, errDisk
	if err := m.Create(t.Context(), d); err != nil {
		t.Errorf("create that was done: %v", err)
	}
	w.checkNow(d)
	w.add(trades, tradeRows(2, 30))
	if r, err := m.Refresh(t.Context(), d.Name); err != nil || r.Outcome != Incremental {
		t.Errorf("refresh that was done: %+v, %v", r, err)
	}
	w.checkNow(d)
	w.add(trades, tradeRows(3, 30))
	faulty.before, faulty.after = errDisk, nil
	if _, err := m.Refresh(t.Context(), d.Name); !errors.Is(err, errDisk) {
		t.Errorf("refresh that was not done: %v", err)
	}
	w.checkNow(d)
	state := w.load(stateName(d.Name))
	objects := 0
	err = w.store.List(t.Context(), state.DataDir()+"/", func(lake.Info) error { objects++; return nil })
	if err != nil || objects != len(w.files(state.Name)) {
		t.Errorf("%d objects for %d files, %v", objects, len(w.files(state.Name)), err)
	}
	faulty.before = nil
	if r := w.refresh(d); r.Outcome != Incremental || r.DeltaRows != 30 {
		t.Errorf("refresh after a failure: %+v", r)
	}
	w.checkNow(d)
	if h := m.History(); len(h) != 3 || !strings.Contains(h[1].Status, "Refresh failed. ") {
		t.Errorf("history %+v", h)
	}
}

// TestRivals refreshes one view from two managers at once, as two processes
// would if the fence failed, and each of them twice.
func TestRivals(t *testing.T) {
	w := newWorld(t)
	w.views.limits = foldLimits{files: 3, rowsFactor: 1 << 20, rows: 1}
	w.add(trades, tradeRows(1, 50))
	d := w.createView("v", deltaViews[0].sql)
	rival, err := Open(t.Context(), Options{Catalog: w.catalog, Engine: w.engine, Store: w.store, Staging: filepath.Join(w.dir, "staging"), Interval: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rival.Close() }()
	for i := range 8 {
		w.add(trades, tradeRows(i+2, 25))
		var wg sync.WaitGroup
		for _, m := range []*Manager{w.views, w.views, rival, rival} {
			wg.Go(func() {
				if _, err := m.Refresh(t.Context(), d.Name); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if info := w.info(d.Name); info.Stale {
			t.Errorf("%+v", info)
		}
		w.checkNow(d)
	}
}

// TestExpiryKeepsDeltas expires everything but what the views ask for.
func TestExpiryKeepsDeltas(t *testing.T) {
	w := newWorld(t)
	w.add(trades, tradeRows(1, 50))
	d := w.createView("v", deltaViews[0].sql)
	for i := range 4 {
		w.add(trades, tradeRows(i+2, 10))
	}
	w.rewrite(trades, w.files(trades))
	keep, err := w.views.KeepSnapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.expire(trades, keep[trades])
	w.checkNow(d)
	if r := w.refresh(d); r.Outcome != Incremental || r.DeltaRows != 40 {
		t.Errorf("%+v", r)
	}
	w.checkNow(d)
	if r, err := w.views.Rebuild(t.Context(), d.Name); err != nil || r.Outcome != Recomputed || r.DeltaRows != 90 {
		t.Errorf("%+v, %v", r, err)
	}
	w.checkNow(d)
}
