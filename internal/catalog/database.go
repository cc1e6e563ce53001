package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

const (
	// schemaVersion is the version of the schema below.
	schemaVersion = 3
	// catalogName is iceberg_tables.catalog_name of every row.
	catalogName = "tapehouse"
	// ownersKept bounds the history of a directory's owners.
	ownersKept = 100
	// readersMax bounds the read connections.
	readersMax = 4
	// transactionTimeout bounds one transaction. It runs without the caller's
	// context: a cancellation in the middle would make the outcome unknown for
	// nothing.
	transactionTimeout = 30 * time.Second
	// transactionTriesMax bounds how often a transaction that certainly was not
	// done is repeated after a failed COMMIT.
	transactionTriesMax = 3
	// refusedTriesMax bounds how often one is repeated that failed before, for a
	// reason that may pass: in all about five seconds.
	refusedTriesMax = 8
	// The wait before a repetition or another look-up begins and doubles so.
	waitMin, waitMax = 50 * time.Millisecond, time.Second
	// lookupTryMax bounds one look-up, so that a connection that hangs is given up
	// for a new one. It exceeds postgresIdleMax.
	lookupTryMax = 15 * time.Second
	// rowsMax bounds the rows of one statement: a database that is not on this
	// machine takes as long for one as for many.
	rowsMax = 500
)

// backend is what SQLite and PostgreSQL do differently. Every statement that is
// not its own is the same on both; parameters are written as "?".
type backend interface {
	// open opens the connections; writer is nil if the catalog is read-only.
	open(ctx context.Context, readOnly bool) (writer, reader *sql.DB, err error)
	// label names the database in messages, without a password.
	label() string
	// bind makes sure that this catalog, this directory and this lake belong
	// together, and says which they are. The schema is there.
	bind(ctx context.Context, c *Catalog) (Identity, error)
	// have locks the catalog in a write transaction and returns the version of
	// its schema; 0: there are no tables at all.
	have(ctx context.Context, tx *sql.Tx) (version int, err error)
	// ddl is a statement of the schema in the backend's words.
	ddl(statement string) string
	// enter begins a write transaction: until that ends, no other one runs.
	enter(ctx context.Context, tx *sql.Tx) error
	// lastCommit is the query for last_commit of an epoch. Its answer stays true:
	// no transaction of the epoch that was begun before it is undecided.
	lastCommit() string
	// lookupMax bounds the time for which an unknown outcome is looked up.
	lookupMax() time.Duration
	// passing reports whether a transaction that failed before COMMIT may do
	// better when it is repeated.
	passing(err error) bool
	// invalid reports whether the database does not take a value that it was given.
	invalid(err error) bool
	// copyTo writes the database as it is at one instant to a new SQLite file.
	copyTo(ctx context.Context, path string) error
	// explain adds to an error of opening what can be done about it.
	explain(err error) error
}

// schema holds what makes each version of the one before it, from an empty
// database on. See docs/formats/catalog.md.
var schema = [schemaVersion][]string{{
	`CREATE TABLE schema_version (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL)`,
	`CREATE TABLE iceberg_tables (
		catalog_name VARCHAR(255) NOT NULL, table_namespace VARCHAR(255) NOT NULL, table_name VARCHAR(255) NOT NULL,
		metadata_location VARCHAR(1000), previous_metadata_location VARCHAR(1000), iceberg_type VARCHAR(5),
		PRIMARY KEY (catalog_name, table_namespace, table_name))`,
	`CREATE TABLE iceberg_namespace_properties (
		catalog_name VARCHAR(255) NOT NULL, namespace VARCHAR(255) NOT NULL,
		property_key VARCHAR(255) NOT NULL, property_value VARCHAR(1000),
		PRIMARY KEY (catalog_name, namespace, property_key))`,
	`CREATE TABLE catalog_owner (
		epoch INTEGER PRIMARY KEY, owner TEXT NOT NULL, opened_at INTEGER NOT NULL, last_commit TEXT NOT NULL)`,
	`CREATE TABLE catalog_documents (
		kind TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, body TEXT, written_at INTEGER NOT NULL,
		PRIMARY KEY (kind, key, version)) WITHOUT ROWID`,
	`CREATE TABLE catalog_garbage (
		path TEXT PRIMARY KEY, location TEXT NOT NULL, unreferenced_at INTEGER NOT NULL) WITHOUT ROWID`,
	`INSERT INTO schema_version (id, version) VALUES (1, 1)`,
}, {
	`CREATE TABLE external_tables (
		table_namespace VARCHAR(255) NOT NULL, table_name VARCHAR(255) NOT NULL, table_id VARCHAR(36) NOT NULL UNIQUE,
		version INTEGER NOT NULL, created_at INTEGER NOT NULL,
		PRIMARY KEY (table_namespace, table_name))`,
	`CREATE TABLE external_table_versions (
		table_id VARCHAR(36) NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL, written_at INTEGER NOT NULL,
		PRIMARY KEY (table_id, version)) WITHOUT ROWID`,
	`CREATE TABLE external_partitions (
		table_id VARCHAR(36) NOT NULL, partition_key TEXT NOT NULL, body TEXT NOT NULL, created_at INTEGER NOT NULL,
		PRIMARY KEY (table_id, partition_key)) WITHOUT ROWID`,
}, {
	`ALTER TABLE catalog_owner ADD COLUMN directory VARCHAR(36) NOT NULL DEFAULT ''`,
}}

func (c *Catalog) openDatabase(ctx context.Context, owner string) (err error) {
	if c.writer, c.reader, err = c.backend.open(ctx, c.readOnly); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			for _, db := range []*sql.DB{c.writer, c.reader} {
				if db != nil {
					_ = db.Close()
				}
			}
		}
	}()
	c.lookupMax = c.backend.lookupMax()
	if !c.readOnly {
		if err := c.once(ctx, c.upgradeSchema); err != nil {
			return err
		}
	}
	if err := c.checkVersion(ctx); err != nil {
		return err
	}
	if c.identity, err = c.backend.bind(ctx, c); err != nil || c.readOnly {
		return err
	}
	return c.once(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if err := c.backend.enter(ctx, tx); err != nil {
			return err
		}
		return c.takeEpoch(ctx, tx, owner)
	})
}

// once runs fn in a write transaction of the opening, which has no epoch yet: an
// unknown outcome is an error, and who opens again finds what was done.
func (c *Catalog) once(ctx context.Context, fn func(context.Context, *sql.Tx) error) error {
	for try, wait := 1, waitMin; ; try, wait = try+1, min(2*wait, waitMax) {
		sent, err := func() (sent bool, err error) {
			ctx, cancel := context.WithTimeout(ctx, transactionTimeout)
			defer cancel()
			tx, err := c.writer.BeginTx(ctx, nil)
			if err != nil {
				return false, err
			}
			defer func() { _ = tx.Rollback() }()
			if err := fn(ctx, tx); err != nil {
				return false, err
			}
			return true, tx.Commit()
		}()
		if err == nil || sent || try == refusedTriesMax || !c.backend.passing(err) {
			return err
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// pause waits for about d, at random, so that two who met do not meet again.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d/2 + rand.N(d)):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// upgradeSchema makes the tables that this program knows and the database has
// not: all of them in an empty one.
func (c *Catalog) upgradeSchema(ctx context.Context, tx *sql.Tx) error {
	version, err := c.backend.have(ctx, tx)
	if err != nil {
		return err
	}
	if version >= schemaVersion {
		return nil // checkVersion refuses what is newer
	}
	for _, step := range schema[version:] {
		for _, statement := range step {
			if _, err := tx.ExecContext(ctx, c.backend.ddl(statement)); err != nil {
				return fmt.Errorf("make the catalog's tables: %w", err)
			}
		}
	}
	_, err = tx.ExecContext(ctx, `UPDATE schema_version SET version = ? WHERE id = 1`, schemaVersion)
	return err
}

func (c *Catalog) checkVersion(ctx context.Context) error {
	var have int
	if err := c.reader.QueryRowContext(ctx, `SELECT version FROM schema_version WHERE id = 1`).Scan(&have); err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if have < schemaVersion {
		return fmt.Errorf("%s has version %d: start the server on it once, which upgrades it to %d", c.backend.label(), have, schemaVersion)
	}
	if have > schemaVersion {
		return &VersionError{c.backend.label(), have, schemaVersion}
	}
	return nil
}

func (c *Catalog) takeEpoch(ctx context.Context, tx *sql.Tx, owner string) error {
	if err := tx.QueryRowContext(ctx, `INSERT INTO catalog_owner (epoch, owner, opened_at, last_commit, directory)
		SELECT coalesce(max(epoch), 0) + 1, ?, ?, '', ? FROM catalog_owner RETURNING epoch`,
		owner, c.now().UnixMicro(), c.identity.Directory).Scan(&c.epoch); err != nil {
		return fmt.Errorf("take epoch: %w", err)
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM catalog_owner WHERE directory = ? AND epoch NOT IN
		(SELECT epoch FROM catalog_owner WHERE directory = ? ORDER BY epoch DESC LIMIT ?)`, c.identity.Directory, c.identity.Directory, ownersKept); err != nil {
		return fmt.Errorf("take epoch: %w", err)
	}
	return nil
}

// update runs fn in one transaction of the owner. It returns nil only if
// the transaction is durable, and an error other than ErrPoisoned only if it
// was certainly not done. fn may run more than once.
func (c *Catalog) update(ctx context.Context, fn func(context.Context, *sql.Tx) error) error {
	if err := c.usable(true); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	ctx = context.WithoutCancel(ctx)
	refused := 0
	for try := 1; ; try++ {
		id := uuid.NewString()
		unknown, err := c.transact(ctx, id, fn)
		if err == nil {
			return nil
		}
		if !unknown {
			if refused++; refused == refusedTriesMax || !c.backend.passing(err) {
				return err
			}
			try--
			c.metrics.repeated.Inc()
			if err := pause(ctx, min(waitMin<<(refused-1), waitMax)); err != nil {
				return err
			}
			continue
		}
		c.metrics.unknown.Inc()
		done, lookupErr := c.outcome(ctx, id)
		switch {
		case lookupErr != nil:
			err = errors.Join(err, lookupErr)
			c.mu.Lock()
			c.poisoned = err
			c.mu.Unlock()
			c.logger.Error("catalog poisoned: commit outcome unknown", "error", err)
			return fmt.Errorf("%w: %w", ErrPoisoned, err)
		case done:
			c.logger.Warn("commit reported an error but was done", "error", err)
			return nil
		case try == transactionTriesMax:
			return fmt.Errorf("commit: not done after %d tries: %w", try, err)
		}
		c.logger.Warn("commit was not done, repeating", "error", err, "try", try)
	}
}

// transact runs fn once; unknown means that the error says nothing about
// whether the transaction was done.
func (c *Catalog) transact(ctx context.Context, id string, fn func(context.Context, *sql.Tx) error) (unknown bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, transactionTimeout)
	defer cancel()
	tx, err := c.writer.BeginTx(ctx, nil)
	if err != nil {
		return false, fmt.Errorf("begin catalog transaction: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	if err := c.backend.enter(ctx, tx); err != nil {
		return false, err
	}
	res, err := tx.ExecContext(ctx, `UPDATE catalog_owner SET last_commit = ?
		WHERE epoch = ? AND epoch = (SELECT max(epoch) FROM catalog_owner WHERE directory = ?)`, id, c.epoch, c.identity.Directory)
	if err != nil {
		return false, fmt.Errorf("check epoch: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return false, errors.Join(fmt.Errorf("epoch %d: %w", c.epoch, ErrFenced), err)
	}
	if err := fn(ctx, tx); err != nil {
		if c.backend.invalid(err) {
			err = fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		return false, err
	}
	if c.hook.beforeCommit != nil {
		if err := c.hook.beforeCommit(); err != nil {
			return true, errors.Join(err, tx.Rollback())
		}
	}
	if err := tx.Commit(); err != nil {
		return true, fmt.Errorf("commit catalog transaction: %w", err)
	}
	if c.hook.afterCommit != nil {
		if err := c.hook.afterCommit(); err != nil {
			return true, err
		}
	}
	return false, nil
}

// outcome reads whether the transaction was done.
func (c *Catalog) outcome(ctx context.Context, id string) (done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.lookupMax)
	defer cancel()
	for wait := waitMin; ; wait = min(2*wait, waitMax) {
		last, lookupErr := c.lastCommit(ctx)
		if lookupErr == nil {
			return last == id, nil
		}
		err = lookupErr
		if pause(ctx, wait) != nil {
			return false, fmt.Errorf("look up outcome: %w", err)
		}
	}
}

func (c *Catalog) lastCommit(ctx context.Context) (id string, err error) {
	if c.hook.lookup != nil {
		if err := c.hook.lookup(); err != nil {
			return "", err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTryMax)
	defer cancel()
	err = c.writer.QueryRowContext(ctx, c.backend.lastCommit(), c.epoch).Scan(&id)
	return id, err
}

// batches cuts a list into what one statement takes.
func batches[T any](list []T) func(yield func([]T) bool) { return slices.Chunk(list, rowsMax) }

// rows writes the parameters of n rows: "(?, ?), (?, ?)".
func rows(n, columns int) string {
	row := "(" + strings.TrimSuffix(strings.Repeat("?, ", columns), ", ") + ")"
	return strings.TrimSuffix(strings.Repeat(row+", ", n), ", ")
}
