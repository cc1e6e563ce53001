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

	_ "modernc.org/sqlite" // the "sqlite" driver
)

// databaseName is the file within Options.Dir.
const databaseName = "catalog.db"

// sqlite keeps the catalog in one file. The statements of this package are
// written in its words.
type sqlite struct {
	dir  string
	path string
}

func newSQLite(dir string) *sqlite { return &sqlite{dir, filepath.Join(dir, databaseName)} }

func (s *sqlite) label() string { return s.path }

func (s *sqlite) open(ctx context.Context, readOnly bool) (writer, reader *sql.DB, err error) {
	if readOnly {
		if _, err := os.Stat(s.path); err != nil {
			return nil, nil, err
		}
	} else {
		if err := errors.Join(CheckDirectory(s.dir, ""), os.MkdirAll(s.dir, 0o755)); err != nil {
			return nil, nil, err
		}
		if writer, err = openWriter(ctx, s.path); err != nil {
			return nil, nil, err
		}
	}
	reader, err = sql.Open("sqlite", dsn(s.path, url.Values{"_pragma": {"busy_timeout(10000)", "query_only(1)"}}))
	if err != nil {
		return nil, nil, errors.Join(err, closeIf(writer))
	}
	reader.SetMaxOpenConns(readersMax)
	reader.SetMaxIdleConns(readersMax)
	return writer, reader, nil
}

func closeIf(db *sql.DB) error {
	if db == nil {
		return nil
	}
	return db.Close()
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

// bind has nothing to do: the file lies in the directory, and no other one has it.
func (s *sqlite) bind(context.Context, *Catalog) (Identity, error) { return Identity{}, nil }

func (s *sqlite) have(ctx context.Context, tx *sql.Tx) (version int, err error) {
	var ours, others int
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(sum(name = 'schema_version'), 0), count(*) FROM sqlite_schema WHERE type = 'table'`).Scan(&ours, &others); err != nil {
		return 0, err
	}
	switch {
	case ours == 1:
		if err := tx.QueryRowContext(ctx, `SELECT version FROM schema_version WHERE id = 1`).Scan(&version); err != nil {
			return 0, fmt.Errorf("read schema version: %w", err)
		}
	case others > 0:
		return 0, fmt.Errorf("%s is a SQLite database of another program", s.path)
	}
	return version, nil
}

// copyTo takes a connection of its own: those for reading refuse to write, and that
// for writing is for commits, which a copy does not keep waiting.
func (s *sqlite) copyTo(ctx context.Context, path string) error {
	db, err := sql.Open("sqlite", dsn(s.path, url.Values{"_pragma": {"busy_timeout(10000)"}}))
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, `VACUUM INTO ?`, path)
	return errors.Join(err, db.Close())
}

func (s *sqlite) ddl(statement string) string { return statement }

// enter has nothing to do: the transaction was begun by BEGIN IMMEDIATE.
func (s *sqlite) enter(context.Context, *sql.Tx) error { return nil }

func (s *sqlite) lastCommit() string { return `SELECT last_commit FROM catalog_owner WHERE epoch = ?` }

func (s *sqlite) lookupMax() time.Duration { return time.Second }

func (s *sqlite) passing(error) bool { return false }

func (s *sqlite) invalid(error) bool { return false }

func (s *sqlite) explain(err error) error { return err }
