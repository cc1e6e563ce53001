// Package engine runs SQL over the files of tables. It is the only package
// that knows DuckDB.
//
// DuckDB holds nothing that lasts: a query pins a consistent set of immutable
// files (data files of a snapshot, and the tail files above its progress), each
// table becomes a view over its files in an internal schema, and the tables
// that the statement names are replaced by those views in its syntax tree.
//
// Invariants:
//   - A statement of a user session reaches the rows of the tables that its
//     pin holds, its own session's temporary tables, and nothing else: no file,
//     setting, other session or other statement kind. Three fences stand one
//     behind the other: only one SELECT passes DuckDB's serializer; the syntax
//     tree may hold only what the allow-list names, and every table in it must
//     resolve through the pin; and DuckDB itself is locked to the lake's, the
//     tail's and the temporary directories.
//   - A reader of a pin sees each record once, whatever commits meanwhile.
//   - Files of a lake that lies elsewhere are brought to the local disk when the
//     first statement reads their table, and kept there while it is pinned.
//   - A pinned file is not deleted: whoever deletes asks Pinned first, and lets
//     a grace period pass between a file's leaving the table and its deletion.
//   - Memory is bounded: DuckDB's by memory_limit with a bounded spill, results
//     by streaming.
//   - Decimals stay exact: values are unscaled integers, and statements that
//     ask for it have their divisions and averages computed without floats.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	bindings "github.com/duckdb/duckdb-go-bindings"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// Options configure Open. Zero values take the defaults named here.
type Options struct {
	Tables Tables     // nil: only hand-made pins
	Tail   TailSource // nil: tables have no tail
	Files  Files      // nil: all files lie on the local disk

	TempDir           string // exists; DuckDB spills here; required
	TempSizeMaxBytes  int64  // default 8 GiB
	MemoryLimitBytes  int64  // default 600 MB
	Threads           int    // default runtime.NumCPU()
	AllowedDirs       []string
	OpenQueriesMax    int // statements that run or whose rows are open; default 128
	StatementCacheMax int // rewritten statements kept; default 512

	Logger     *slog.Logger          // nil: discard
	Registerer prometheus.Registerer // nil: no metrics
}

const (
	memoryLimitDefault = 600_000_000
	tempSizeDefault    = 8 << 30
	openQueriesDefault = 128
	statementsDefault  = 512
	idleConnsMax       = 16
	closeWait          = 10 * time.Second
)

// Files brings files of a lake that lies elsewhere to the local disk, which is
// all that DuckDB reads. A File's paths are then locations that it knows.
type Files interface {
	// Local is where the file lies while it is held; false for a path that is
	// local already. It depends on the path alone, and lies in an allowed
	// directory.
	Local(path string) (local string, ok bool)
	// Hold returns when all paths, for which Local is true, are there, and keeps
	// them until release is called. An *Error is shown to whoever sent the
	// statement; another is logged.
	Hold(ctx context.Context, paths []string) (release func(), err error)
}

// Engine is one DuckDB instance in this process. It is safe for concurrent
// use.
type Engine struct {
	options    Options
	log        *slog.Logger
	db         bindings.Database
	metrics    *metrics
	relations  *relations
	statements *lru.Cache[string, *boundStatement]
	templates  *lru.Cache[string, *template]
	mentions   *lru.Cache[string, *mention]
	fleeting   chan *conn // idle ones, for files that are soon gone
	divisions  *divisions
	products   *products

	mu     sync.Mutex
	idle   []*conn
	open   int // connections handed out
	closed bool
	active map[*Rows]context.CancelFunc
	gone   chan struct{} // closed when closed and open is 0
}

// Open starts the instance and locks it. ctx bounds the start only.
func Open(ctx context.Context, o Options) (_ *Engine, err error) {
	if o.TempDir == "" {
		return nil, errors.New("open engine: no directory for temporary files")
	}
	if o.MemoryLimitBytes == 0 {
		o.MemoryLimitBytes = memoryLimitDefault
	}
	if o.TempSizeMaxBytes == 0 {
		o.TempSizeMaxBytes = tempSizeDefault
	}
	if o.Threads == 0 {
		o.Threads = runtime.NumCPU()
	}
	if o.OpenQueriesMax == 0 {
		o.OpenQueriesMax = openQueriesDefault
	}
	if o.StatementCacheMax == 0 {
		o.StatementCacheMax = statementsDefault
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	e := &Engine{options: o, log: o.Logger, active: map[*Rows]context.CancelFunc{}, gone: make(chan struct{})}
	if e.metrics, err = newMetrics(o.Registerer); err != nil {
		return nil, fmt.Errorf("register engine metrics: %w", err)
	}
	if e.statements, err = lru.New[string, *boundStatement](o.StatementCacheMax); err != nil {
		return nil, fmt.Errorf("open engine: statement cache: %w", err)
	}
	if e.mentions, err = lru.New[string, *mention](o.StatementCacheMax); err != nil {
		return nil, fmt.Errorf("open engine: statement cache: %w", err)
	}
	if e.templates, err = lru.New[string, *template](o.StatementCacheMax); err != nil {
		return nil, fmt.Errorf("open engine: statement cache: %w", err)
	}
	e.relations = newRelations(e)

	var config bindings.Config
	if bindings.CreateConfig(&config) == bindings.StateError {
		return nil, errors.New("open engine: DuckDB gave no configuration")
	}
	defer bindings.DestroyConfig(&config)
	var msg string
	if bindings.OpenExt(":memory:", &e.db, config, &msg) == bindings.StateError {
		bindings.Close(&e.db)
		return nil, fmt.Errorf("open engine: %s", msg)
	}
	defer func() {
		if err != nil {
			bindings.Close(&e.db)
		}
	}()
	c, err := connect(e.db)
	if err != nil {
		return nil, fmt.Errorf("open engine: %w", err)
	}
	defer c.close()
	settings, err := o.settings()
	if err != nil {
		return nil, fmt.Errorf("open engine: %w", err)
	}
	for _, s := range settings {
		if err := c.exec(ctx, s); err != nil {
			return nil, fmt.Errorf("open engine: %s: %w", s, err)
		}
	}
	if err := e.openFleeting(ctx); err != nil {
		return nil, fmt.Errorf("open engine: %w", err)
	}
	defer func() {
		if err != nil {
			e.closeFleeting()
		}
	}()
	if err := c.exec(ctx, lockSettings); err != nil {
		return nil, fmt.Errorf("open engine: %s: %w", lockSettings, err)
	}
	e.divisions = &divisions{registered: map[division]bool{}}
	e.products = &products{registered: map[product]bool{}}
	e.log.Info("engine opened", "duckdb_version", bindings.LibraryVersion(), "memory_limit_bytes", o.MemoryLimitBytes, "threads", o.Threads)
	return e, nil
}

// settings are the statements that prepare and then lock the instance. Their
// order matters: nothing can be set after the last one.
func (o *Options) settings() ([]string, error) {
	dirs := make([]string, 0, len(o.AllowedDirs)+1)
	for _, d := range append([]string{o.TempDir}, o.AllowedDirs...) {
		abs, err := filepath.Abs(d)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, QuoteLiteral(strings.TrimSuffix(abs, "/")+"/"))
	}
	temp, err := filepath.Abs(o.TempDir)
	if err != nil {
		return nil, err
	}
	return []string{
		"CREATE SCHEMA " + pinSchema,
		// Errors come with their kind and position instead of a drawing.
		"SET GLOBAL errors_as_json = true",
		fmt.Sprintf("SET GLOBAL memory_limit = '%d B'", o.MemoryLimitBytes),
		fmt.Sprintf("SET GLOBAL threads = %d", o.Threads),
		"SET GLOBAL temp_directory = " + QuoteLiteral(temp),
		fmt.Sprintf("SET GLOBAL max_temp_directory_size = '%d B'", o.TempSizeMaxBytes),
		// Zones are evaluated and rendered by the layers above, explicitly.
		"SET GLOBAL TimeZone = 'UTC'",
		"SET GLOBAL preserve_insertion_order = true",
		// PostgreSQL's and Redshift's order of nulls.
		"SET GLOBAL default_null_order = 'nulls_last_on_asc_first_on_desc'",
		// Data files never change, so their footers are read once.
		"SET GLOBAL parquet_metadata_cache = true",
		// The page cache has the files' bytes. DuckDB's own copies of them stay
		// until the memory limit is reached, those of deleted tail files too.
		"SET GLOBAL enable_external_file_cache = false",
		"SET GLOBAL autoinstall_known_extensions = false",
		"SET GLOBAL autoload_known_extensions = false",
		"SET GLOBAL allow_community_extensions = false",
		"SET GLOBAL allow_persistent_secrets = false",
		"SET GLOBAL allowed_directories = [" + strings.Join(dirs, ", ") + "]",
		"SET GLOBAL enable_external_access = false",
	}, nil
}

// Close cancels what runs, waits for its rows to be closed by their owners and
// stops the instance. If rows stay open it gives up and says so.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	idle := e.idle
	e.idle = nil
	for _, cancel := range e.active {
		cancel()
	}
	open := e.open
	e.mu.Unlock()
	for _, c := range idle {
		c.close()
	}
	if open > 0 {
		select {
		case <-e.gone:
		case <-time.After(closeWait):
			return errors.New("close engine: queries or sessions are still open")
		}
	}
	e.closeFleeting()
	bindings.Close(&e.db)
	return nil
}

// acquire hands out a connection; giveBack or discard must follow.
func (e *Engine) acquire() (*conn, error) { return e.acquireAbove(0) }

// acquireAbove is acquire with some connections more than the limit allows,
// for cleaning up.
func (e *Engine) acquireAbove(extra int) (*conn, error) {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil, ErrClosed
	}
	if e.open >= e.options.OpenQueriesMax+extra {
		e.mu.Unlock()
		return nil, &Error{Kind: Busy, Message: fmt.Sprintf("%d queries are open already", e.options.OpenQueriesMax)}
	}
	e.open++
	e.metrics.open.Set(float64(e.open))
	if n := len(e.idle); n > 0 {
		c := e.idle[n-1]
		e.idle = e.idle[:n-1]
		e.mu.Unlock()
		return c, nil
	}
	e.mu.Unlock()
	c, err := connect(e.db)
	if err != nil {
		e.handedBack(nil)
	}
	return c, err
}

// giveBack returns a connection without temporary tables.
func (e *Engine) giveBack(c *conn) {
	if err := c.settle(); err != nil {
		e.log.Warn("connection was not settled", "error", err)
		e.discard(c)
		return
	}
	e.handedBack(c)
}

// discard closes a connection instead of keeping it.
func (e *Engine) discard(c *conn) {
	c.close()
	e.handedBack(nil)
}

func (e *Engine) handedBack(c *conn) {
	e.mu.Lock()
	keep := c != nil && !e.closed && len(e.idle) < idleConnsMax
	if keep {
		e.idle = append(e.idle, c)
	}
	e.mu.Unlock()
	if c != nil && !keep {
		c.close()
	}
	e.mu.Lock()
	e.open--
	e.metrics.open.Set(float64(e.open))
	if e.closed && e.open == 0 {
		close(e.gone)
	}
	e.mu.Unlock()
}

// Pinned reports whether a pin holds the file. Nobody may delete it then.
func (e *Engine) Pinned(path string) bool { return e.relations.has(path) }

// Version is DuckDB's version.
func (e *Engine) Version() string { return bindings.LibraryVersion() }

// Check reports whether a user session would run sql as far as the allow-list
// goes: *DeniedError if not, *Error of kind Syntax or Unsupported if it is not
// one SELECT. Tables are not looked up.
func (e *Engine) Check(ctx context.Context, sql string) error {
	c, err := e.acquire()
	if err != nil {
		return err
	}
	defer e.giveBack(c)
	tree, err := c.parse(ctx, sql)
	if err != nil {
		return err
	}
	return (&rewriter{}).statement(tree)
}

// References lists the qualified tables that the SELECT names, in no order and
// each once, so that they can be pinned. Unqualified names that no WITH query
// explains come with an empty Namespace.
func (e *Engine) References(ctx context.Context, sql string) ([]Name, error) {
	c, err := e.acquire()
	if err != nil {
		return nil, err
	}
	defer e.giveBack(c)
	tree, err := c.parse(ctx, sql)
	if err != nil {
		return nil, err
	}
	seen := map[Name]bool{}
	var names []Name
	r := &rewriter{trusted: true, table: func(schema, name string, _ int) (string, string, string, error) {
		if n := (Name{schema, name}); !seen[n] {
			seen[n] = true
			names = append(names, n)
		}
		return "", schema, name, nil
	}}
	return names, r.statement(tree)
}
