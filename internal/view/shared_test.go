package view

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
)

// TestSharedCatalog: what another server is making or has made in the catalog is
// left alone.
func TestSharedCatalog(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	d := w.define("volume", "SELECT symbol, sum(qty) AS shares FROM eq.trades GROUP BY symbol", trades)
	state := catalog.Name{Namespace: d.Name.Namespace, Table: prefixState + d.Name.Table}
	unfinished := func() {
		t.Helper()
		if _, err := w.catalog.CreateTable(ctx, catalog.TableSpec{Name: state, Columns: []catalog.Column{{Name: "a", Type: "int"}}, Properties: map[string]string{PropertyView: d.Name.String()}}); err != nil {
			t.Fatal(err)
		}
	}
	unfinished()
	w.reopen(Options{Interval: -1, Shared: true})
	if _, err := w.catalog.Load(ctx, state); err != nil {
		t.Fatalf("a state that another server is making: %v", err)
	}
	if err := w.views.Create(ctx, d); !errors.Is(err, ErrExists) {
		t.Errorf("create over a state that another server is making: %v, want ErrExists", err)
	}
	w.reopen(Options{Interval: -1, Shared: true, Now: func() time.Time { return time.Now().Add(sharedStateAge + time.Minute) }})
	if _, err := w.catalog.Load(ctx, state); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("a state that nobody finished: %v, want it dropped", err)
	}
	unfinished()
	w.reopen(Options{Interval: -1})
	if _, err := w.catalog.Load(ctx, state); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("a state that nobody finished, in a catalog of one server: %v, want it dropped", err)
	}

	// Another server finishes a view that this one does not know.
	if _, err := w.catalog.PutDocument(ctx, catalog.DocumentWrite{Kind: documentKind, Key: d.Name.String(), Body: json.RawMessage(`{}`)}); err != nil {
		t.Fatal(err)
	}
	if err := w.views.Create(ctx, d); !errors.Is(err, ErrExists) {
		t.Errorf("create over another server's view: %v, want ErrExists", err)
	}
}
