// Package warehouse is the SQL that clients speak: PostgreSQL's lexical rules
// and a small grammar of statements of our own, Redshift's dialect over DuckDB,
// transactions, the tables' DDL, and the system catalog that psql and drivers
// look into.
//
// A query goes this way:
//
//	text ─ tokenize ─▶ tokens ─ forms (dialect.go) ─▶ text that DuckDB's parser reads
//	     ─ json_serialize_sql ─▶ tree ─ rewriter (rewrite.go …) ─▶ tree ─▶ text ─▶ engine
//
// The forms are grammar that DuckDB lacks; the walk over the tree is meaning:
// names, types, times, functions. Division and averages are made exact by the
// engine. Every other statement is recognised by the grammar in parse.go and
// executed here.
//
// Invariants:
//   - A statement that the grammar does not know is refused by name. Nothing is
//     passed through because it looked harmless.
//   - Only SELECTs reach the engine, and only through its allow-list.
//   - A table that an explicit transaction has read stays at the state of that
//     first reading until the transaction ends.
//   - What a transaction writes becomes visible in one commit, or not at all.
//   - An error leaves an explicit transaction failed until it is ended.
package warehouse

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/external"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/record"
)

// Database is the name of the one database of a server.
const Database = "tapehouse"

// Tables is what the warehouse needs of the catalog; *catalog.Catalog has it.
type Tables interface {
	Load(ctx context.Context, name catalog.Name) (*catalog.Table, error)
	LoadAll(ctx context.Context, names []catalog.Name) ([]*catalog.Table, error)
	List(ctx context.Context, namespace string) ([]catalog.Name, error)
	Namespaces(ctx context.Context) ([]string, error)
	CreateNamespace(ctx context.Context, namespace string, properties map[string]string) error
	DropNamespace(ctx context.Context, namespace string) error
	CreateTable(ctx context.Context, spec catalog.TableSpec) (*catalog.Table, error)
	DropTable(ctx context.Context, name catalog.Name) error
	AddColumn(ctx context.Context, name catalog.Name, field record.Field) (*catalog.Table, error)
	Files(ctx context.Context, t *catalog.Table, at catalog.At) ([]catalog.DataFile, error)
	Commit(ctx context.Context, commits []catalog.Commit, documents ...catalog.DocumentWrite) ([]*catalog.Table, error)
	InspectFiles(ctx context.Context, t *catalog.Table) ([]catalog.InspectedFile, error)
	External(ctx context.Context, name catalog.Name) (catalog.External, error)
	Externals(ctx context.Context, namespace string) ([]catalog.External, error)
	ExternalPartitions(ctx context.Context, name catalog.Name, page catalog.PartitionsPage, fn func(catalog.ExternalPartition) bool) error
	ChangeExternals(ctx context.Context, changes []catalog.ExternalChange, documents ...catalog.DocumentWrite) error
}

// A ViewDefinition is a CREATE MATERIALIZED VIEW.
type ViewDefinition struct {
	Name        catalog.Name
	AutoRefresh bool
	// Text is the query as the client wrote it; Query is it in DuckDB's SQL
	// with every table qualified, to be run with engine.Query.Exact.
	Text, Query string
	Columns     []catalog.Column // of the result; ids are not set
	Tables      []catalog.Name   // that the query reads
	Owner       string
}

// View describes a materialized view to the system catalog.
type View struct {
	ViewDefinition
	Incremental bool // state 1, else 0: recomputed
	Stale       bool
}

// ViewRead is how to read a view: a DuckDB SELECT over Tables and what Bind
// adds that answers the view's columns.
type ViewRead struct {
	Query   string
	Columns []catalog.Column
	Tables  []catalog.Name // to be pinned, if they are not yet
	// Bind adds hand-made relations, such as the files of a delta, to those of
	// Tables as the statement sees them: pinned, and with the transaction's own
	// rows. nil adds none.
	Bind    func(ctx context.Context, pin *engine.Pin, relations map[engine.Name]engine.Relation) error
	Release func() // nil, or to be called when the query has ended
}

// Views creates and reads materialized views. A nil Views refuses them.
type Views interface {
	Create(ctx context.Context, d ViewDefinition) error
	// Refresh answers what to tell the client, as Redshift words it.
	Refresh(ctx context.Context, name catalog.Name) (notice string, err error)
	Drop(ctx context.Context, name catalog.Name) error
	// List answers all views.
	List(ctx context.Context) ([]View, error)
	// Read answers nil for a name that is no view.
	Read(ctx context.Context, name catalog.Name) (*ViewRead, error)
}

// Options configure New.
type Options struct {
	Engine  *engine.Engine
	Catalog Tables
	Store   lake.Store // where INSERT puts data files
	Staging string     // directory of local files before they are put; one of the engine's AllowedDirs
	Views   Views      // nil: there are none
	// External reads the files of external tables; nil: they cannot be read.
	External *external.Reader
	// Unfed runs drop unless a delivery stream feeds the table, and holds new
	// streams back meanwhile; where one does, drop is not run and the stream is
	// named. nil: there are no streams.
	Unfed   func(table catalog.Name, drop func() error) (stream string, err error)
	Logger  *slog.Logger
	Now     func() time.Time // nil: time.Now
	Version string           // the program's version
	// SearchPath is where unqualified names are looked up; default "public".
	SearchPath []string
	// StatementTimeout bounds a statement unless the session sets another; 0: none.
	StatementTimeout time.Duration
}

// Warehouse makes sessions. It is safe for concurrent use.
type Warehouse struct {
	o       Options
	started time.Time
	serial  atomic.Uint64 // names staged files

	converted *lru.Cache[conversion, string]
}

// conversion is a call of convert. Its answer depends on nothing else, so that a
// statement that comes again, as a prepared one does, is not parsed and printed
// again: 2 ms of a short query's 13.
type conversion struct{ sql, argument string }

const (
	convertedMax      = 256
	convertedBytesMax = 32 << 10 // of an argument that is kept, or an answer
)

// New returns a warehouse over an open engine and catalog, which stay the
// caller's to close after the last session.
func New(o Options) *Warehouse {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if len(o.SearchPath) == 0 {
		o.SearchPath = []string{"public"}
	}
	converted, err := lru.New[conversion, string](convertedMax)
	if err != nil {
		panic("warehouse: " + err.Error()) // Only for a size below 1.
	}
	return &Warehouse{o: o, started: o.Now().UTC(), converted: converted}
}

// version is what version() answers. The first words are what drivers parse.
func (w *Warehouse) version() string {
	v := w.o.Version
	if v == "" {
		v = "devel"
	}
	return fmt.Sprintf("PostgreSQL 8.0.2 compatible, Tapehouse %s on DuckDB %s", v, w.o.Engine.Version())
}

// serverVersion is the parameter server_version, by which psql and drivers
// choose their catalog queries.
const serverVersion = "15.0"

// parse runs DuckDB's parser. The text is an argument, never part of the SQL.
func (w *Warehouse) parse(ctx context.Context, sql string) (node, error) {
	text, err := w.convert(ctx, "SELECT json_serialize_sql($1::VARCHAR)", sql)
	if err != nil {
		return nil, err
	}
	return parseTree([]byte(text))
}

// convert answers a function of DuckDB's from text to text.
func (w *Warehouse) convert(ctx context.Context, sql, argument string) (string, error) {
	call := conversion{sql, argument}
	if out, ok := w.converted.Get(call); ok {
		return out, nil
	}
	s, err := w.o.Engine.InternalSession(ctx)
	if err != nil {
		return "", err
	}
	defer func() { _ = s.Close() }() // it never fails
	rows, err := s.Query(ctx, engine.Query{SQL: sql, Args: []any{argument}})
	if err != nil {
		return "", err
	}
	defer func() { _ = rows.Close() }()
	dst := make([]any, 1)
	if err := rows.Next(dst); err != nil {
		return "", err
	}
	out, _ := dst[0].(string)
	if len(argument) <= convertedBytesMax && len(out) <= convertedBytesMax {
		w.converted.Add(call, out)
	}
	return out, nil
}
