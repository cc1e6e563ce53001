// Package view keeps materialized views: the answers of queries over growing
// tables, kept by deltas and right at every reading.
//
// A view's state is an Iceberg table of partial rows,
//
//	key_1 … key_k │ partial aggregates (sum_1, count_2, min_3 …) │ weight
//
// of which any number may stand for one group; weight is the number of joined
// rows that a partial row was made of. A refresh appends the partial rows of
// what the base table gained, and its commit carries the snapshots up to which
// the state is now true. A reading merges the state with the aggregate of what
// the base gained since, the tail included. Partial rows of the same groups are
// folded into one another from time to time, which changes no answer. See
// docs/protocols/views.md.
//
// Invariants:
//   - The state's rows and the snapshots that they stand for move in one commit.
//   - For every pin, a view read through it equals its query run on it, to the
//     last digit.
//   - What cannot be kept by deltas is recomputed, and Info.Reason says why. A
//     stored result is only used for a pin whose tables have not changed since.
//   - Numbers are exact: nothing that depends on the order of additions is kept
//     by deltas, and an overflow is an error.
package view

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/lake"
)

var (
	// ErrNotFound is returned for a name that no view has.
	ErrNotFound = errors.New("materialized view does not exist")
	// ErrExists is returned by Create for a name that is taken.
	ErrExists = errors.New("relation already exists")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("views are closed")
	// ErrUnsupported is the root of *UnsupportedError.
	ErrUnsupported = errors.New("not supported in a materialized view")
)

// UnsupportedError is a query that no view may have.
type UnsupportedError struct {
	What string // "random()", "a materialized view over no table"
	Hint string
}

func (e *UnsupportedError) Error() string { return e.What + ": " + ErrUnsupported.Error() }

// Unwrap makes errors.Is(err, ErrUnsupported) true.
func (e *UnsupportedError) Unwrap() error { return ErrUnsupported }

// PropertyView is the property of a state table that names its view. Tables
// that have it are not listed to users.
const PropertyView = "tapehouse.view"

// A Definition is a CREATE MATERIALIZED VIEW.
type Definition struct {
	Name        catalog.Name `json:"name"`
	AutoRefresh bool         `json:"auto_refresh"`
	// Text is the query as the client wrote it; Query is it in DuckDB's SQL
	// with every table qualified, to be run with engine.Query.Exact. It has
	// passed the engine's allow-list.
	Text    string           `json:"text"`
	Query   string           `json:"query"`
	Columns []catalog.Column `json:"columns"` // of the result; ids are not set
	Tables  []catalog.Name   `json:"tables"`  // that the query reads
	Owner   string           `json:"owner,omitempty"`
}

// Info describes a view and how its state stands.
type Info struct {
	Definition
	CreatedAt   time.Time
	Incremental bool   // kept by deltas; else recomputed
	Reason      string // why it is recomputed; "" if it is not
	// Stale says that the state is behind the tables' commits. Readings are
	// fresh all the same.
	Stale       bool
	Progress    map[catalog.Name]int64 // snapshot of each table that the state is true for
	StateTable  catalog.Name           // zero if nothing can be stored
	StateRows   int64                  // partial rows, or rows of the stored result
	StateFiles  int
	RefreshedAt time.Time // last change of the state by this process; zero if none
}

// Read is how to read a view: a DuckDB SELECT (for engine.Query.Exact) that
// answers the view's columns. It names Tables, which the reader pins with those
// of the rest of its statement, and hand-made relations that Bind adds.
type Read struct {
	Query   string
	Columns []catalog.Column
	Tables  []catalog.Name
	// Bind adds to relations what Query names beside Tables. relations holds
	// Tables as the statement is to see them: as pinned, or with rows of its
	// own transaction added to them. It is called once for each pin.
	Bind func(ctx context.Context, pin *engine.Pin, relations map[engine.Name]engine.Relation) error
}

// Outcome is what a refresh did.
type Outcome uint8

// The outcomes.
const (
	UpToDate    Outcome = iota + 1 // nothing had changed
	Incremental                    // the delta was added
	Recomputed                     // everything was computed anew
)

func (o Outcome) String() string {
	switch o {
	case UpToDate:
		return "up_to_date"
	case Incremental:
		return "incremental"
	case Recomputed:
		return "recomputed"
	}
	return fmt.Sprintf("outcome(%d)", uint8(o))
}

// Result is a refresh that succeeded.
type Result struct {
	Outcome   Outcome
	Reason    string // of Recomputed
	DeltaRows int64  // rows of the base that were read
	StateRows int64  // rows that were written
	Folded    bool   // the partial rows were folded as well
	Took      time.Duration
}

// Notice is what Redshift's client is told.
func (r Result) Notice(view string) string {
	switch r.Outcome {
	case UpToDate:
		return "Materialized view " + view + " is already up to date."
	case Incremental:
		return "Materialized view " + view + " was incrementally updated successfully."
	}
	return "Materialized view " + view + " was recomputed successfully: " + r.Reason + "."
}

// Refresh is one entry of the log of refreshes.
type Refresh struct {
	View               catalog.Name
	Owner              string
	StartedAt, EndedAt time.Time
	Auto               bool
	Status             string // Redshift's words, as svl_mv_refresh_status has them
}

// Catalog is what the views need of the catalog; *catalog.Catalog has it.
type Catalog interface {
	LoadAll(ctx context.Context, names []catalog.Name) ([]*catalog.Table, error)
	Load(ctx context.Context, name catalog.Name) (*catalog.Table, error)
	List(ctx context.Context, namespace string) ([]catalog.Name, error)
	CreateTable(ctx context.Context, spec catalog.TableSpec) (*catalog.Table, error)
	DropTable(ctx context.Context, name catalog.Name) error
	Files(ctx context.Context, t *catalog.Table, at catalog.At) ([]catalog.DataFile, error)
	Delta(ctx context.Context, t *catalog.Table, from, to int64) (catalog.Delta, error)
	Commit(ctx context.Context, commits []catalog.Commit, documents ...catalog.DocumentWrite) ([]*catalog.Table, error)
	GetDocument(ctx context.Context, kind, key string) (catalog.Document, error)
	ListDocuments(ctx context.Context, kind, prefix string) ([]catalog.Document, error)
	PutDocument(ctx context.Context, w catalog.DocumentWrite) (catalog.Document, error)
}

// Options configure Open. Zero values take the defaults named here.
type Options struct {
	Catalog Catalog
	Engine  *engine.Engine // opened over the same catalog
	Store   lake.Store     // where the states' files are put
	Staging string         // directory of files before they are put; one of the engine's AllowedDirs

	// AutoRefresh of views that ask for it: every Interval (default 1 s, below
	// 0: never) the views are looked at, and one whose delta has RowsMin rows
	// (default 250,000) or has been waiting for AgeMin (default 5 s) is
	// refreshed, one at a time.
	Interval time.Duration
	RowsMin  int64
	AgeMin   time.Duration
	// Busy says that ingestion wants the machine: refreshes that nobody waits
	// for are put off, by at most DeferMax (default 1 min). nil: never.
	Busy     func() bool
	DeferMax time.Duration

	// Shared says that other servers may make views in the same catalog.
	Shared bool

	Logger     *slog.Logger          // nil: discard
	Registerer prometheus.Registerer // nil: no metrics
	Now        func() time.Time      // nil: time.Now
}
