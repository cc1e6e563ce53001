package catalog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/apache/iceberg-go"
	icebergcatalog "github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
)

// Library is the catalog as Iceberg's library knows one: its transactions and
// scans work on it, and commits that were built elsewhere (the Iceberg REST
// protocol's requirements and updates) pass through the same fenced
// transaction as all others. Namespaces have one level.
type Library struct{ c *Catalog }

var (
	_ icebergcatalog.Catalog              = Library{}
	_ icebergcatalog.TransactionalCatalog = Library{}
)

// Library returns the catalog in the form of Iceberg's library.
func (c *Catalog) Library() Library { return Library{c} }

// CatalogType is the kind whose tables in the database these are.
func (l Library) CatalogType() icebergcatalog.Type { return icebergcatalog.SQL }

func libraryName(id table.Identifier) (Name, error) {
	if len(id) != 2 {
		return Name{}, fmt.Errorf("%w: %v", icebergcatalog.ErrInvalidIdentifier, id)
	}
	return Name{id[0], id[1]}, nil
}

func libraryNamespace(id table.Identifier) (string, error) {
	if len(id) != 1 {
		return "", fmt.Errorf("%w: %v", icebergcatalog.ErrInvalidIdentifier, id)
	}
	return id[0], nil
}

// libraryError adds the library's sentinel to an error of ours.
func libraryError(err, notFound, exists error) error {
	switch {
	case errors.Is(err, ErrNotFound):
		return fmt.Errorf("%w: %w", notFound, err)
	case errors.Is(err, ErrExists):
		return fmt.Errorf("%w: %w", exists, err)
	case errors.Is(err, ErrConflict), errors.Is(err, errMoved):
		return fmt.Errorf("%w: %w", table.ErrCommitFailed, err)
	}
	return err
}

func tableError(err error) error {
	return libraryError(err, icebergcatalog.ErrNoSuchTable, icebergcatalog.ErrTableAlreadyExists)
}

func namespaceError(err error) error {
	return libraryError(err, icebergcatalog.ErrNoSuchNamespace, icebergcatalog.ErrNamespaceAlreadyExists)
}

// wrap makes the library's table of ours. What its transactions write goes to
// the lake at once.
func (l Library) wrap(ctx context.Context, t *Table) *table.Table {
	s := l.c.newStaging(context.WithoutCancel(ctx))
	s.direct = true
	return table.New(t.Name.identifier(), t.meta, t.pointer, s.fs, l)
}

// LoadTable implements the library's Catalog.
func (l Library) LoadTable(ctx context.Context, id table.Identifier) (*table.Table, error) {
	name, err := libraryName(id)
	if err != nil {
		return nil, err
	}
	t, err := l.c.Load(ctx, name)
	if err != nil {
		return nil, tableError(err)
	}
	return l.wrap(ctx, t), nil
}

// CreateTable implements the library's Catalog.
func (l Library) CreateTable(ctx context.Context, id table.Identifier, schema *iceberg.Schema, opts ...icebergcatalog.CreateTableOpt) (*table.Table, error) {
	name, err := libraryName(id)
	if err == nil {
		err = name.check()
	}
	if err != nil {
		return nil, err
	}
	cfg := icebergcatalog.NewCreateTableCfg()
	for _, o := range opts {
		o(&cfg)
	}
	properties := maps.Clone(defaultProperties)
	properties["format-version"] = "2"
	maps.Copy(properties, cfg.Properties)
	spec := cfg.PartitionSpec
	if spec == nil {
		spec = iceberg.UnpartitionedSpec
	}
	uid := uuid.New()
	location := cfg.Location
	if location == "" {
		location = l.c.defaultLocation(name, uid)
	}
	meta, err := table.NewMetadataWithUUID(schema, spec, cfg.SortOrder, location, properties, uid)
	if err != nil {
		return nil, err
	}
	t, err := l.c.createTable(ctx, name, meta)
	if err != nil {
		return nil, tableError(err)
	}
	return l.wrap(ctx, t), nil
}

// CommitTable implements the library's Catalog. A requirement that does not hold
// is table.ErrCommitFailed, by which the library knows that it may retry.
func (l Library) CommitTable(ctx context.Context, id table.Identifier, requirements []table.Requirement, updates []table.Update) (table.Metadata, string, error) {
	out, err := l.commit(ctx, []table.TableCommit{{Identifier: id, Requirements: requirements, Updates: updates}})
	if err != nil {
		return nil, "", err
	}
	return out[0].meta, out[0].pointer, nil
}

// CommitTransaction implements the library's TransactionalCatalog: all tables or none.
func (l Library) CommitTransaction(ctx context.Context, commits []table.TableCommit) error {
	_, err := l.commit(ctx, commits)
	return err
}

func (l Library) commit(ctx context.Context, commits []table.TableCommit) ([]*Table, error) {
	if len(commits) == 0 {
		return nil, icebergcatalog.ErrEmptyCommitList
	}
	if err := l.c.usable(true); err != nil {
		return nil, err
	}
	names := make([]Name, len(commits))
	for i, tc := range commits {
		var err error
		if names[i], err = libraryName(tc.Identifier); err != nil {
			return nil, err
		}
	}
	sorted := slices.SortedFunc(slices.Values(names), compareNames)
	if len(slices.Compact(slices.Clone(sorted))) != len(names) {
		return nil, fmt.Errorf("%w commit: a table stands twice", ErrInvalid)
	}
	unlock, err := l.c.lock(ctx, sorted)
	if err != nil {
		return nil, err
	}
	defer unlock()
	states, err := l.c.LoadAll(ctx, names)
	if err != nil {
		return nil, tableError(err)
	}
	staged := make([]*stagedCommit, len(commits))
	for i, tc := range commits {
		for _, r := range tc.Requirements {
			if err := r.Validate(states[i].meta); err != nil {
				return nil, fmt.Errorf("%w: %w", table.ErrCommitFailed, err)
			}
		}
		if staged[i], err = l.c.stageUpdates(ctx, l.c.newStaging(ctx), states[i], tc.Updates); err != nil {
			return nil, err
		}
		if !staged[i].after.through.Covers(states[i].through) {
			return nil, &ConflictError{names[i].String(), "through", "at least " + states[i].through.String(), staged[i].after.through.String()}
		}
	}
	out, err := l.c.swap(ctx, staged, nil, nil)
	return out, tableError(err)
}

// ListTables implements the library's Catalog.
func (l Library) ListTables(ctx context.Context, namespace table.Identifier) iter.Seq2[table.Identifier, error] {
	return func(yield func(table.Identifier, error) bool) {
		ns, err := libraryNamespace(namespace)
		var ok bool
		if err == nil {
			if ok, err = namespaceExists(ctx, l.c.reader, ns); err == nil && !ok {
				err = namespaceError(fmt.Errorf("namespace %s: %w", ns, ErrNotFound))
			}
		}
		var names []Name
		if err == nil {
			names, err = l.c.List(ctx, ns)
		}
		if err != nil {
			yield(nil, err)
			return
		}
		for _, n := range names {
			if !yield(n.identifier(), nil) {
				return
			}
		}
	}
}

// DropTable implements the library's Catalog.
func (l Library) DropTable(ctx context.Context, id table.Identifier) error {
	name, err := libraryName(id)
	if err != nil {
		return err
	}
	return tableError(l.c.DropTable(ctx, name))
}

// RenameTable implements the library's Catalog.
func (l Library) RenameTable(ctx context.Context, from, to table.Identifier) (*table.Table, error) {
	a, errA := libraryName(from)
	b, errB := libraryName(to)
	if err := errors.Join(errA, errB); err != nil {
		return nil, err
	}
	if err := l.c.RenameTable(ctx, a, b); err != nil {
		return nil, tableError(err)
	}
	return l.LoadTable(ctx, to)
}

// CheckTableExists implements the library's Catalog.
func (l Library) CheckTableExists(ctx context.Context, id table.Identifier) (bool, error) {
	name, err := libraryName(id)
	if err != nil {
		return false, err
	}
	_, err = l.c.pointers(ctx, []Name{name})
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// ListNamespaces implements the library's Catalog; no namespace has children.
func (l Library) ListNamespaces(ctx context.Context, parent table.Identifier) ([]table.Identifier, error) {
	if len(parent) > 0 {
		if ok, err := l.CheckNamespaceExists(ctx, parent); err != nil || !ok {
			return nil, errors.Join(err, namespaceError(fmt.Errorf("namespace %v: %w", parent, ErrNotFound)))
		}
		return nil, nil
	}
	namespaces, err := l.c.Namespaces(ctx)
	out := make([]table.Identifier, len(namespaces))
	for i, ns := range namespaces {
		out[i] = table.Identifier{ns}
	}
	return out, err
}

// CreateNamespace implements the library's Catalog.
func (l Library) CreateNamespace(ctx context.Context, namespace table.Identifier, properties iceberg.Properties) error {
	ns, err := libraryNamespace(namespace)
	if err != nil {
		return err
	}
	return namespaceError(l.c.CreateNamespace(ctx, ns, properties))
}

// DropNamespace implements the library's Catalog: an empty namespace only.
func (l Library) DropNamespace(ctx context.Context, namespace table.Identifier) error {
	ns, err := libraryNamespace(namespace)
	if err != nil {
		return err
	}
	err = l.c.DropNamespace(ctx, ns)
	if errors.Is(err, ErrConflict) {
		return fmt.Errorf("%w: %w", icebergcatalog.ErrNamespaceNotEmpty, err)
	}
	return namespaceError(err)
}

// CheckNamespaceExists implements the library's Catalog.
func (l Library) CheckNamespaceExists(ctx context.Context, namespace table.Identifier) (bool, error) {
	ns, err := libraryNamespace(namespace)
	if err != nil {
		return false, err
	}
	return namespaceExists(ctx, l.c.reader, ns)
}

// LoadNamespaceProperties implements the library's Catalog.
func (l Library) LoadNamespaceProperties(ctx context.Context, namespace table.Identifier) (iceberg.Properties, error) {
	ns, err := libraryNamespace(namespace)
	if err != nil {
		return nil, err
	}
	p, err := l.c.NamespaceProperties(ctx, ns)
	return p, namespaceError(err)
}

// UpdateNamespaceProperties implements the library's Catalog.
func (l Library) UpdateNamespaceProperties(ctx context.Context, namespace table.Identifier, removals []string, updates iceberg.Properties) (icebergcatalog.PropertiesUpdateSummary, error) {
	var summary icebergcatalog.PropertiesUpdateSummary
	before, err := l.LoadNamespaceProperties(ctx, namespace)
	if err != nil {
		return summary, err
	}
	for _, k := range removals {
		if _, ok := updates[k]; ok {
			return summary, fmt.Errorf("%w: property %q is both removed and set", ErrInvalid, k)
		}
		if _, ok := before[k]; ok {
			summary.Removed = append(summary.Removed, k)
		} else {
			summary.Missing = append(summary.Missing, k)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(updates)) {
		if before[k] != updates[k] {
			summary.Updated = append(summary.Updated, k)
		}
	}
	return summary, namespaceError(l.c.UpdateNamespace(ctx, namespace[0], removals, updates))
}
