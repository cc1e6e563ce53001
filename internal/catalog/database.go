package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	_ "modernc.org/sqlite" // the "sqlite" driver
)

const (
	// databaseName is the file within Options.Dir.
	databaseName = "catalog.db"
	// schemaVersion is the version of the schema below.
	schemaVersion = 2
	// catalogName is iceberg_tables.catalog_name of every row.
	catalogName = "tapehouse"
	// ownersKept bounds the history of owners.
	ownersKept = 100
	// readersMax bounds the read connections.
	readersMax = 4
	// transactionTimeout bounds one SQLite transaction. It runs without the
	// caller's context: a cancellation in the middle would make the outcome
	// unknown for nothing.
	transactionTimeout = 30 * time.Second
	// transactionTriesMax bounds how often a transaction that certainly was not
	// done is repeated after a failed COMMIT.
	transactionTriesMax = 3
	// lookupTriesMax and lookupWait bound the search for an unknown outcome.
	lookupTriesMax = 20
	lookupWait     = 50 * time.Millisecond
)

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
}}

func (c *Catalog) openDatabase(ctx context.Context, dir, owner string) (err error) {
	path := filepath.Join(dir, databaseName)
	c.path = path
	if c.readOnly {
		if _, err := os.Stat(path); err != nil {
			return err
		}
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
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
	if !c.readOnly {
		if c.writer, err = openWriter(ctx, path); err != nil {
			return err
		}
		if err := upgradeSchema(ctx, c.writer, path); err != nil {
			return err
		}
	}
	if c.reader, err = sql.Open("sqlite", dsn(path, url.Values{"_pragma": {"busy_timeout(10000)", "query_only(1)"}})); err != nil {
		return err
	}
	c.reader.SetMaxOpenConns(readersMax)
	c.reader.SetMaxIdleConns(readersMax)
	if err := checkVersion(ctx, c.reader, path); err != nil {
		return err
	}
	if !c.readOnly {
		return c.takeEpoch(ctx, owner)
	}
	return nil
}

func dsn(path string, values url.Values) string {
	return (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: values.Encode()}).String()
}

// openWriter opens the single write connection and reads back what makes a
// commit durable: a driver that ignored a pragma would lose acknowledged
// progress at a power cut, silently.
func openWriter(ctx context.Context, path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", dsn(path, url.Values{
		"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)"},
		"_txlock": {"immediate"},
	}))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	db.SetMaxIdleConns(1)
	db.SetConnMaxLifetime(0)
	var mode string
	var synchronous int
	err = errors.Join(
		db.QueryRowContext(ctx, `PRAGMA journal_mode`).Scan(&mode),
		db.QueryRowContext(ctx, `PRAGMA synchronous`).Scan(&synchronous),
	)
	if err == nil && (mode != "wal" || synchronous != 2) {
		err = fmt.Errorf("SQLite runs with journal_mode=%s synchronous=%d, want wal and 2 (FULL): commits would not be durable", mode, synchronous)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// upgradeSchema makes the tables that this program knows and the database has
// not: all of them in an empty one.
func upgradeSchema(ctx context.Context, db *sql.DB, path string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var ours, others int
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(sum(name = 'schema_version'), 0), count(*) FROM sqlite_schema WHERE type = 'table'`).Scan(&ours, &others); err != nil {
		return err
	}
	version := 0
	switch {
	case ours == 1:
		if err := tx.QueryRowContext(ctx, `SELECT version FROM schema_version WHERE id = 1`).Scan(&version); err != nil {
			return fmt.Errorf("read schema version: %w", err)
		}
	case others > 0:
		return fmt.Errorf("%s is a SQLite database of another program", path)
	}
	if version >= schemaVersion {
		return nil // checkVersion refuses what is newer
	}
	for _, step := range schema[version:] {
		for _, statement := range step {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
	}
	if _, err := tx.ExecContext(ctx, `UPDATE schema_version SET version = ? WHERE id = 1`, schemaVersion); err != nil {
		return err
	}
	return tx.Commit()
}

func checkVersion(ctx context.Context, db *sql.DB, path string) error {
	var have int
	if err := db.QueryRowContext(ctx, `SELECT version FROM schema_version WHERE id = 1`).Scan(&have); err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if have < schemaVersion {
		return fmt.Errorf("%s has version %d: start the server on it once, which upgrades it to %d", path, have, schemaVersion)
	}
	if have > schemaVersion {
		return &VersionError{path, have, schemaVersion}
	}
	return nil
}

func (c *Catalog) takeEpoch(ctx context.Context, owner string) error {
	tx, err := c.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if err := tx.QueryRowContext(ctx, `INSERT INTO catalog_owner (epoch, owner, opened_at, last_commit)
		SELECT coalesce(max(epoch), 0) + 1, ?, ?, '' FROM catalog_owner RETURNING epoch`,
		owner, c.now().UnixMicro()).Scan(&c.epoch); err != nil {
		return fmt.Errorf("take epoch: %w", err)
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM catalog_owner WHERE epoch <= ?`, c.epoch-ownersKept); err != nil {
		return fmt.Errorf("take epoch: %w", err)
	}
	return tx.Commit()
}

// update runs fn in one SQLite transaction of the owner. It returns nil only if
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
	for try := 1; ; try++ {
		id := uuid.NewString()
		unknown, err := c.transact(ctx, id, fn)
		if err == nil || !unknown {
			return err
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
	res, err := tx.ExecContext(ctx, `UPDATE catalog_owner SET last_commit = ?
		WHERE epoch = ? AND epoch = (SELECT max(epoch) FROM catalog_owner)`, id, c.epoch)
	if err != nil {
		return false, fmt.Errorf("check epoch: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return false, errors.Join(fmt.Errorf("epoch %d: %w", c.epoch, ErrFenced), err)
	}
	if err := fn(ctx, tx); err != nil {
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
	for range lookupTriesMax {
		last, lookupErr := c.lastCommit(ctx)
		if lookupErr == nil {
			return last == id, nil
		}
		err = lookupErr
		time.Sleep(lookupWait)
	}
	return false, fmt.Errorf("look up outcome: %w", err)
}

func (c *Catalog) lastCommit(ctx context.Context) (id string, err error) {
	if c.hook.lookup != nil {
		if err := c.hook.lookup(); err != nil {
			return "", err
		}
	}
	err = c.writer.QueryRowContext(ctx, `SELECT last_commit FROM catalog_owner WHERE epoch = ?`, c.epoch).Scan(&id)
	return id, err
}
