package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
)

// CopyTo writes the database as it is at one instant to a new directory, which
// Open takes. Commits go on meanwhile.
func (c *Catalog) CopyTo(ctx context.Context, dir string) error {
	if err := c.usable(false); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("copy the catalog: %w", err)
	}
	// A connection of its own: those for reading refuse to write, and that for
	// writing is for commits, which a copy does not keep waiting.
	db, err := sql.Open("sqlite", dsn(c.path, url.Values{"_pragma": {"busy_timeout(10000)"}}))
	if err != nil {
		return fmt.Errorf("copy the catalog: %w", err)
	}
	_, err = db.ExecContext(ctx, `VACUUM INTO ?`, filepath.Join(dir, databaseName))
	if err = errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("copy the catalog: %w", err)
	}
	return nil
}

// DatabaseFile is the name of the file that CopyTo writes.
const DatabaseFile = databaseName

// Referenced returns the names in the lake of all files that tables refer to: of
// every retained snapshot, and their metadata.
func (c *Catalog) Referenced(ctx context.Context) (map[string]bool, error) {
	names, err := c.List(ctx, "")
	if err != nil {
		return nil, err
	}
	used := make(map[string]bool)
	for _, n := range names {
		if err := c.addReferenced(ctx, n, used); err != nil {
			return nil, err
		}
	}
	return used, nil
}

// InTableDirectory reports whether a lake name lies where CreateTable puts a
// table's files.
func InTableDirectory(name string) bool { return tableDirRE.MatchString(name) }
