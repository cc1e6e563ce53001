package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/iceberg-go/table"
)

// Register takes over a table that lies in the lake and has no name: one that
// was dropped without its files, or that another program wrote there. Its
// metadata file lies in metadata/ below the table's own location, and all its
// files below that too. Properties of this program's are taken off it, the
// progress of a stream above all: no stream feeds it. ErrExists if the name is
// taken, ErrNotFound if there is no such namespace.
func (c *Catalog) Register(ctx context.Context, name Name, metadataLocation string, g Guard) (*Table, error) {
	if err := errors.Join(name.check(), c.usable(true)); err != nil {
		return nil, err
	}
	s, err := c.stageRegistered(ctx, name, metadataLocation)
	if err != nil {
		return nil, err
	}
	j := judge{c: c, guard: &g, after: s.after, adopted: true}
	if err := j.all(ctx); err != nil {
		return nil, err
	}
	if len(s.write) == 0 { // the client's own file becomes the table's
		if err := c.settle(ctx, []string{s.after.pointer}); err != nil {
			return nil, err
		}
	}
	unlock, err := c.lock(ctx, []Name{name})
	if err != nil {
		return nil, err
	}
	defer unlock()
	return c.make(ctx, s)
}

func (c *Catalog) stageRegistered(ctx context.Context, name Name, metadataLocation string) (*stagedCommit, error) {
	invalid := func(format string, a ...any) error {
		return fmt.Errorf("%w registration of %s: %w", ErrInvalid, name, fmt.Errorf(format, a...))
	}
	file, ok := c.store.Name(metadataLocation)
	if !ok {
		return nil, invalid("metadata-location %q lies outside the lake %s", metadataLocation, c.store.URI(""))
	}
	if err := c.withinLake(file); err != nil {
		return nil, invalid("metadata-location %q: %w", metadataLocation, err)
	}
	if _, err := c.store.Stat(ctx, file); isNotFound(err) {
		return nil, invalid("metadata-location %q: there is no such file", metadataLocation)
	} else if err != nil {
		return nil, err
	}
	pointer := c.store.URI(file)
	var t *Table
	if err := guarded(func() (err error) { t, err = c.tableAt(ctx, name, pointer); return err }); err != nil {
		return nil, invalid("metadata-location %q: %w", metadataLocation, err)
	}
	dir, ok := c.store.Name(t.Location)
	if !ok || !strings.Contains(dir, "/") {
		return nil, invalid("the table's location %q is not a directory of a directory of the lake %s", t.Location, c.store.URI(""))
	}
	if t.Location != c.store.URI(dir) { // or two tables could be told that a place is free
		return nil, invalid("the table's location is spelt %q: write its metadata with %s", t.Location, c.store.URI(dir))
	}
	if !strings.HasPrefix(pointer, t.Location+"/metadata/") {
		return nil, invalid("metadata-location %q: want a file below %s/metadata/, which is the table's own place", metadataLocation, t.Location)
	}
	var own []string
	for k := range t.Properties {
		if strings.HasPrefix(k, ownProperties) {
			own = append(own, k)
		}
	}
	s := &stagedCommit{after: t, staging: c.newStaging(ctx)}
	if len(own) == 0 {
		return s, nil
	}
	slices.Sort(own)
	err := guarded(func() error {
		meta, err := table.UpdateTableMetadata(t.meta, []table.Update{table.NewRemovePropertiesUpdate(own)}, pointer)
		if err != nil {
			return err
		}
		if pointer, err = writeMetadata(s.staging, meta, metadataVersion(pointer)+1); err != nil {
			return err
		}
		s.write = []string{pointer}
		s.after, err = c.newTable(name, pointer, meta)
		return err
	})
	if err != nil {
		return nil, invalid("%w", err)
	}
	return s, nil
}

// removable objects to the dropping or renaming of what is kept under its name.
func (g *Guard) removable(t *Table) error {
	if g.Kept != nil {
		if why := g.Kept(t); why != "" {
			return fmt.Errorf("%w: table %s: %s", ErrProtected, t.Name, why)
		}
	}
	if g.Sealed != nil {
		for tag := range t.Tags() {
			if g.Sealed(tag) {
				return fmt.Errorf("%w: table %s: its tag %s keeps a sealed trade date", ErrProtected, t.Name, tag)
			}
		}
	}
	return nil
}

func (g *Guard) release(ctx context.Context, name Name, fn func() error) error {
	if g.Release == nil {
		return fn()
	}
	return g.Release(ctx, name, fn)
}

// DropForeign drops a table for a client. With purge its files are deleted by a
// later Sweep; without they stay where they are, and Register takes the table
// over again. ErrProtected if something relies on it.
func (c *Catalog) DropForeign(ctx context.Context, name Name, purge bool, g Guard) error {
	return g.release(ctx, name, func() error { return c.dropTable(ctx, name, purge, g.removable) })
}

// RenameForeign renames a table for a client, into a namespace that exists.
func (c *Catalog) RenameForeign(ctx context.Context, from, to Name, g Guard) error {
	if err := to.check(); err != nil {
		return err
	}
	if ok, err := namespaceExists(ctx, c.reader, to.Namespace); err != nil || !ok {
		return errors.Join(err, fmt.Errorf("namespace %s: %w", to.Namespace, ErrNotFound))
	}
	return g.release(ctx, from, func() error { return c.renameTable(ctx, from, to, g.removable) })
}
