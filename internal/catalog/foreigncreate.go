package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
)

// ForeignTable describes a table that another program wants made, schema,
// partitions and order in the JSON of Iceberg's specification.
type ForeignTable struct {
	Name          Name
	Schema        json.RawMessage
	PartitionSpec json.RawMessage // nil: none
	WriteOrder    json.RawMessage // nil: none
	Location      string          // "": chosen here
	Properties    map[string]string
}

// foreignMetadata builds the first metadata of the table.
func (c *Catalog) foreignMetadata(spec ForeignTable) (meta table.Metadata, err error) {
	if err := errors.Join(spec.Name.check(), checkProperties(spec.Properties)); err != nil {
		return nil, err
	}
	err = guarded(func() error {
		var schema *iceberg.Schema
		if err := json.Unmarshal(spec.Schema, &schema); err != nil {
			return fmt.Errorf("schema: %w", err)
		}
		if schema == nil {
			return errors.New("schema: it is missing")
		}
		partitions := iceberg.UnpartitionedSpec
		if len(spec.PartitionSpec) > 0 && string(spec.PartitionSpec) != "null" {
			var p iceberg.UnboundPartitionSpec
			if err := json.Unmarshal(spec.PartitionSpec, &p); err != nil {
				return fmt.Errorf("partition-spec: %w", err)
			}
			partitions = &p.PartitionSpec
		}
		order := table.UnsortedSortOrder
		if len(spec.WriteOrder) > 0 && string(spec.WriteOrder) != "null" {
			var o table.UnboundSortOrder
			if err := json.Unmarshal(spec.WriteOrder, &o); err != nil {
				return fmt.Errorf("write-order: %w", err)
			}
			order = o.SortOrder
		}
		id := uuid.New()
		location := spec.Location
		if location == "" {
			location = c.defaultLocation(spec.Name, id)
		}
		properties := maps.Clone(defaultProperties)
		properties[table.PropertyFormatVersion] = fmt.Sprint(formatVersion)
		maps.Copy(properties, spec.Properties)
		meta, err = table.NewMetadataWithUUID(schema, partitions, order, location, properties, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w table %s: %w", ErrInvalid, spec.Name, err)
	}
	return meta, nil
}

// StageForeign returns the metadata that the table would begin with, as JSON,
// and makes nothing: the client writes data below its location and then commits
// with assert-create.
func (c *Catalog) StageForeign(ctx context.Context, spec ForeignTable, g Guard) (json.RawMessage, error) {
	if spec.Location != "" {
		return nil, fmt.Errorf("%w: a staged table's location is chosen here: leave it out", ErrUnsupported)
	}
	s, err := c.judgedTable(ctx, spec, g)
	if err != nil {
		return nil, err
	}
	if ok, err := namespaceExists(ctx, c.reader, spec.Name.Namespace); err != nil || !ok {
		return nil, errors.Join(err, fmt.Errorf("namespace %s: %w", spec.Name.Namespace, ErrNotFound))
	}
	if _, err := c.pointers(ctx, []Name{spec.Name}); err == nil {
		return nil, fmt.Errorf("table %s: %w", spec.Name, ErrExists)
	} else if !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	return s.after.Metadata(false)
}

func (c *Catalog) judgedTable(ctx context.Context, spec ForeignTable, g Guard) (*stagedCommit, error) {
	if err := c.usable(true); err != nil {
		return nil, err
	}
	if spec.Location != "" {
		var err error
		if spec.Location, err = c.chosenLocation(ctx, spec.Location); err != nil {
			return nil, err
		}
	}
	meta, err := c.foreignMetadata(spec)
	if err != nil {
		return nil, err
	}
	s, err := c.stageNew(ctx, spec.Name, meta)
	if err != nil && !errors.Is(err, ErrUnsupported) {
		err = fmt.Errorf("%w table %s: %w", ErrInvalid, spec.Name, err) // it reads nothing
	}
	if err != nil {
		return nil, err
	}
	j := judge{c: c, guard: &g, after: s.after, placed: spec.Location != ""}
	return s, j.all(ctx)
}

// CreateForeign makes a table without rows in a namespace that exists. ErrExists
// if the name is taken, ErrNotFound if there is no such namespace.
func (c *Catalog) CreateForeign(ctx context.Context, spec ForeignTable, g Guard) (*Table, error) {
	s, err := c.judgedTable(ctx, spec, g)
	if err != nil {
		return nil, err
	}
	unlock, err := c.lock(ctx, []Name{spec.Name})
	if err != nil {
		return nil, err
	}
	defer unlock()
	return c.make(ctx, s)
}

// stageNew stages a new table's first metadata file.
func (c *Catalog) stageNew(ctx context.Context, name Name, meta table.Metadata) (*stagedCommit, error) {
	if meta.TableUUID() == uuid.Nil {
		return nil, fmt.Errorf("%w: table %s has no UUID: begin with assign-uuid", ErrInvalid, name)
	}
	s := c.newStaging(ctx)
	pointer, err := writeMetadata(s, meta, 0)
	if err != nil {
		return nil, fmt.Errorf("create table %s: %w", name, err)
	}
	t, err := c.newTable(name, pointer, meta)
	if err != nil {
		return nil, err
	}
	return &stagedCommit{after: t, staging: s, write: []string{pointer}}, nil
}

// make writes a staged table's files and gives it its name. REQUIRES: the name is locked.
func (c *Catalog) make(ctx context.Context, s *stagedCommit) (*Table, error) {
	names, err := s.staging.put(ctx, s.write)
	if err == nil {
		err = c.update(ctx, func(ctx context.Context, tx *sql.Tx) error { return c.insertTable(ctx, tx, s.after) })
	}
	if err != nil {
		c.discard(ctx, names, err)
		return nil, err
	}
	c.tables.put(s.after.Name.String()+"\x00"+s.after.pointer, s.after)
	return s.after, nil
}

// insertTable gives a new table its name, in a namespace that is there and a
// place that no other table has.
func (c *Catalog) insertTable(ctx context.Context, tx *sql.Tx, t *Table) error {
	ok, err := namespaceExists(ctx, tx, t.Name.Namespace)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("namespace %s: %w", t.Name.Namespace, ErrNotFound)
	}
	if err := notExternal(ctx, tx, t.Name); err != nil {
		return err
	}
	if err := c.placeIsFree(ctx, tx, t.Location); err != nil {
		return err
	}
	res, err := tx.ExecContext(ctx, `INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location, iceberg_type)
		VALUES (?, ?, ?, ?, 'TABLE') ON CONFLICT DO NOTHING`, catalogName, t.Name.Namespace, t.Name.Table, t.pointer)
	if err != nil {
		return fmt.Errorf("create table %s: %w", t.Name, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(fmt.Errorf("table %s: %w", t.Name, ErrExists), err)
	}
	return setNamespaceProperties(ctx, tx, t.Name.Namespace, map[string]string{namespaceMark: "true"})
}

// placeIsFree refuses a location in which, below which or above which another
// table lies, and one whose files are about to be deleted: dropping either table
// would take the other's files.
func (c *Catalog) placeIsFree(ctx context.Context, tx *sql.Tx, location string) error {
	taken := func(query string, args ...any) error {
		var n int
		if err := tx.QueryRowContext(ctx, query, args...).Scan(&n); err != nil {
			return fmt.Errorf("look up location %s: %w", location, err)
		}
		if n > 0 {
			return fmt.Errorf("%w location %s: another table's files lie there: choose another, or none", ErrInvalid, location)
		}
		return nil
	}
	below := location + "/"
	if err := taken(`SELECT count(*) FROM iceberg_tables WHERE catalog_name = ? AND substr(metadata_location, 1, length(?)) = ?`,
		catalogName, below, below); err != nil {
		return err
	}
	root := c.store.URI("")
	for above := location; len(above) > len(root); above = above[:strings.LastIndexByte(above, '/')] {
		if err := taken(`SELECT count(*) FROM catalog_garbage WHERE path = ?`, above+"/"); err != nil {
			return err
		}
		metadata := above + "/metadata/"
		if err := taken(`SELECT count(*) FROM iceberg_tables WHERE catalog_name = ? AND substr(metadata_location, 1, length(?)) = ?`,
			catalogName, metadata, metadata); err != nil {
			return err
		}
	}
	return nil
}
