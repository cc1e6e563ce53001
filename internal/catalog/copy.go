package catalog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// CopyTo writes the database as it is at one instant to a new directory, which
// Open takes. Commits go on meanwhile. ErrUnsupported for a catalog in PostgreSQL,
// which has tools of its own.
func (c *Catalog) CopyTo(ctx context.Context, dir string) error {
	if err := c.usable(false); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("copy the catalog: %w", err)
	}
	if err := c.backend.copyTo(ctx, filepath.Join(dir, databaseName)); err != nil {
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
