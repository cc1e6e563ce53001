// Package catalog keeps the lake's tables: their names, their schemas, and the
// commits that change them. Apache Iceberg's library is confined to it.
//
// A table is an Iceberg table (format version 2). Its pointer, with those of all
// other tables, lies in one database, SQLite or PostgreSQL, beside the program's
// documents (docs/formats/catalog.md), so that one transaction moves any number
// of tables and documents at once (docs/protocols/commit.md).
//
// Invariants:
//   - A commit moves data and progress (Table.Through) in one step.
//   - Progress never goes back.
//   - Metadata files are durable before a pointer names them.
//   - Of a data directory, only the process with the greatest epoch commits.
//   - A file that a retained snapshot or a pin needs is not deleted.
//   - A loaded *Table is immutable and may be shared between goroutines.
package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/apache/iceberg-go/table"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/lake"
)

var (
	// ErrNotFound is returned for a table, namespace, snapshot, tag or document
	// that does not exist.
	ErrNotFound = errors.New("not found")
	// ErrExists is returned when a name to be created is taken.
	ErrExists = errors.New("exists already")
	// ErrConflict is returned when a commit's requirement does not hold. The
	// chain contains a *ConflictError. The caller reloads and decides anew.
	ErrConflict = errors.New("conflict")
	// ErrFenced is returned when another process has taken the catalog. The
	// process must stop writing for good.
	ErrFenced = errors.New("fenced: another process owns the catalog")
	// ErrExpired is returned by Delta when a snapshot between the two has expired.
	ErrExpired = errors.New("snapshot expired")
	// ErrInvalid is returned for a malformed specification or request.
	ErrInvalid = errors.New("invalid")
	// ErrUnsupported is returned for Iceberg features that this program does not
	// read, equality deletes for example.
	ErrUnsupported = errors.New("unsupported")
	// ErrReadOnly is returned for a write to a catalog opened read-only.
	ErrReadOnly = errors.New("catalog is open read-only")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("catalog is closed")
	// ErrPoisoned is returned once the outcome of a commit could not be learnt.
	// Open the catalog again: it then shows what was done.
	ErrPoisoned = errors.New("the outcome of an earlier commit is unknown; restart to recover")
)

// ConflictError says which requirement did not hold.
type ConflictError struct {
	Object      string // the table's name or the document's kind/key
	Requirement string // "through", "snapshot", "files", "tag", "version"
	Want, Have  string
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s: conflict: %s required %q, is %q", e.Object, e.Requirement, e.Want, e.Have)
}

// Unwrap makes errors.Is(err, ErrConflict) true.
func (e *ConflictError) Unwrap() error { return ErrConflict }

// VersionError is returned by Open for a database that a newer program wrote.
type VersionError struct {
	Path       string
	Have, Know int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("catalog %s has version %d, this program knows up to %d: run the newer program, or restore a copy from before the upgrade", e.Path, e.Have, e.Know)
}

// Options configures Open.
type Options struct {
	Dir       string     // holds catalog.db, or whose catalog it is; made if absent
	Warehouse lake.Store // holds the tables' files
	Owner     string     // who opens, for operators: host, process
	// Postgres is the URL of the PostgreSQL database that keeps the catalog, see
	// docs/postgresql.md; "" is SQLite in Dir. It is in no log and no error.
	Postgres string
	// StartWait is how long a PostgreSQL server that cannot be reached yet is
	// waited for.
	StartWait time.Duration
	// ReadOnly opens without taking an epoch; writes return ErrReadOnly.
	ReadOnly   bool
	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil registers nothing
	Now        func() time.Time      // nil is time.Now

	// CachedFilesMax bounds the data files kept in plans, and again those kept
	// in decoded manifests; about 2 KB each for a table of 20 columns.
	// 0 is 50,000.
	CachedFilesMax int
}

const cachedFilesDefault = 50_000

// cachedSnapshotsMax bounds the snapshots of all tables that are kept loaded, each
// about 1.5 KB: a table that commits every second holds thousands, in each of its
// versions anew.
const cachedSnapshotsMax = 20_000

// Catalog is an open catalog. It is safe for concurrent use.
type Catalog struct {
	store    lake.Store
	logger   *slog.Logger
	now      func() time.Time
	metrics  *metrics
	readOnly bool
	epoch    int64
	identity Identity

	backend   backend
	writer    *sql.DB // one connection; nil when read-only
	reader    *sql.DB
	lookupMax time.Duration

	tables    *lru[string, *Table]           // by metadata location
	manifests *lru[string, []entry]          // by manifest path
	plans     *lru[planKey, []DataFile]      // by table and snapshot
	lists     *lru[string, []manifestHeader] // by manifest-list path

	mu       sync.Mutex
	locks    map[Name]chan struct{} // a table's commit lock: holds one token
	poisoned error
	closed   bool

	hook hooks
}

// hooks let tests fail a commit where only a disk could.
type hooks struct {
	beforeCommit func() error // before COMMIT: certainly not done
	afterCommit  func() error // after COMMIT: done, but the caller sees an error
	lookup       func() error // while the outcome is looked up
}

// Open opens the catalog of o.Dir, creating it if absent (unless ReadOnly).
// A writing open takes a new epoch and so fences every earlier one of o.Dir.
func Open(ctx context.Context, o Options) (*Catalog, error) {
	if o.Warehouse == nil {
		return nil, fmt.Errorf("open catalog: %w: no warehouse", ErrInvalid)
	}
	c := &Catalog{
		store: o.Warehouse, logger: o.Logger, now: o.Now, readOnly: o.ReadOnly,
		locks: make(map[Name]chan struct{}),
	}
	if c.logger == nil {
		c.logger = slog.New(slog.DiscardHandler)
	}
	if c.now == nil {
		c.now = time.Now
	}
	files := o.CachedFilesMax
	if files <= 0 {
		files = cachedFilesDefault
	}
	c.tables = newLRU[string](cachedSnapshotsMax, func(t *Table) int { return 1 + len(t.meta.Snapshots()) })
	c.manifests = newLRU[string](files, func(e []entry) int { return 1 + len(e) })
	c.plans = newLRU[planKey](files, func(f []DataFile) int { return 1 + len(f) })
	c.lists = newLRU[string](20_000, func(m []manifestHeader) int { return 1 + len(m) })
	c.metrics = newMetrics(o.Registerer)
	if o.Postgres != "" {
		p, err := newPostgres(&o, c.logger)
		if err != nil {
			return nil, fmt.Errorf("open catalog: %w", err)
		}
		c.backend = p
	} else {
		c.backend = newSQLite(o.Dir)
	}
	if err := c.openDatabase(ctx, o.Owner); err != nil {
		return nil, fmt.Errorf("open catalog %s: %w", c.backend.label(), c.backend.explain(err))
	}
	if !o.ReadOnly {
		c.logger.Info("catalog opened", "catalog", c.backend.label(), "epoch", c.epoch, "owner", o.Owner, "directory", c.identity.Directory)
	}
	return c, nil
}

// Epoch is the fencing epoch that this open took; 0 when read-only.
func (c *Catalog) Epoch() int64 { return c.epoch }

// Close releases the database. Commits in progress must have ended.
func (c *Catalog) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	var err error
	if c.writer != nil {
		err = c.writer.Close()
	}
	return errors.Join(err, c.reader.Close())
}

// usable returns the error that every operation begins with.
func (c *Catalog) usable(write bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return ErrClosed
	case c.poisoned != nil:
		return fmt.Errorf("%w: %w", ErrPoisoned, c.poisoned)
	case write && c.readOnly:
		return ErrReadOnly
	}
	return nil
}

// lock takes the commit locks of the named tables, which must be sorted, so
// that two commits over the same tables cannot wait for each other.
func (c *Catalog) lock(ctx context.Context, names []Name) (unlock func(), err error) {
	held := make([]chan struct{}, 0, len(names))
	unlock = func() {
		for _, l := range held {
			<-l
		}
	}
	for _, n := range names {
		c.mu.Lock()
		l, ok := c.locks[n]
		if !ok {
			l = make(chan struct{}, 1)
			c.locks[n] = l
		}
		c.mu.Unlock()
		select {
		case l <- struct{}{}:
			held = append(held, l)
		case <-ctx.Done():
			unlock()
			return nil, context.Cause(ctx)
		}
	}
	return unlock, nil
}

// identifier is n as the Iceberg library spells it.
func (n Name) identifier() table.Identifier { return table.Identifier{n.Namespace, n.Table} }
