package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
)

// namespaceMark is the property of a namespace that has none of its own: the
// JDBC catalog knows a namespace by its having one.
const namespaceMark = "exists"

// CreateNamespace makes a namespace. ErrExists if there is one of that name.
func (c *Catalog) CreateNamespace(ctx context.Context, namespace string, properties map[string]string) error {
	if err := checkNamespace(namespace); err != nil {
		return err
	}
	if err := checkProperties(properties); err != nil {
		return err
	}
	return c.update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		ok, err := namespaceExists(ctx, tx, namespace)
		if err != nil {
			return err
		}
		if ok {
			return fmt.Errorf("namespace %s: %w", namespace, ErrExists)
		}
		p := map[string]string{namespaceMark: "true"}
		maps.Copy(p, properties)
		return setNamespaceProperties(ctx, tx, namespace, p)
	})
}

func setNamespaceProperties(ctx context.Context, tx *sql.Tx, namespace string, p map[string]string) error {
	for _, k := range slices.Sorted(maps.Keys(p)) {
		if _, err := tx.ExecContext(ctx, `INSERT INTO iceberg_namespace_properties (catalog_name, namespace, property_key, property_value)
			VALUES (?, ?, ?, ?) ON CONFLICT (catalog_name, namespace, property_key) DO UPDATE SET property_value = excluded.property_value`, catalogName, namespace, k, p[k]); err != nil {
			return fmt.Errorf("set property of namespace %s: %w", namespace, err)
		}
	}
	return nil
}

type querier interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}

func namespaceExists(ctx context.Context, q querier, namespace string) (ok bool, err error) {
	err = q.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM iceberg_namespace_properties WHERE catalog_name = ? AND namespace = ?)
		OR EXISTS (SELECT 1 FROM iceberg_tables WHERE catalog_name = ? AND table_namespace = ?)`,
		catalogName, namespace, catalogName, namespace).Scan(&ok)
	if err != nil {
		return false, fmt.Errorf("look up namespace %s: %w", namespace, err)
	}
	return ok, nil
}

// Namespaces lists the namespaces, sorted.
func (c *Catalog) Namespaces(ctx context.Context) (out []string, err error) {
	if err := c.usable(false); err != nil {
		return nil, err
	}
	rows, err := c.reader.QueryContext(ctx, `SELECT namespace FROM iceberg_namespace_properties WHERE catalog_name = ?
		UNION SELECT table_namespace FROM iceberg_tables WHERE catalog_name = ? ORDER BY 1`, catalogName, catalogName)
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var ns string
		if err := rows.Scan(&ns); err != nil {
			return nil, fmt.Errorf("list namespaces: %w", err)
		}
		out = append(out, ns)
	}
	return out, rows.Err()
}

// NamespaceProperties returns a namespace's properties.
func (c *Catalog) NamespaceProperties(ctx context.Context, namespace string) (p map[string]string, err error) {
	if err := c.usable(false); err != nil {
		return nil, err
	}
	if ok, err := namespaceExists(ctx, c.reader, namespace); err != nil || !ok {
		return nil, errors.Join(err, fmt.Errorf("namespace %s: %w", namespace, ErrNotFound))
	}
	rows, err := c.reader.QueryContext(ctx, `SELECT property_key, property_value FROM iceberg_namespace_properties
		WHERE catalog_name = ? AND namespace = ?`, catalogName, namespace)
	if err != nil {
		return nil, fmt.Errorf("read properties of namespace %s: %w", namespace, err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	p = make(map[string]string)
	for rows.Next() {
		var k string
		var v sql.NullString
		if err := rows.Scan(&k, &v); err != nil {
			return nil, fmt.Errorf("read properties of namespace %s: %w", namespace, err)
		}
		p[k] = v.String
	}
	return p, rows.Err()
}

// UpdateNamespace removes and sets properties of a namespace.
func (c *Catalog) UpdateNamespace(ctx context.Context, namespace string, remove []string, set map[string]string) error {
	if err := checkProperties(set); err != nil {
		return err
	}
	return c.update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		ok, err := namespaceExists(ctx, tx, namespace)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("namespace %s: %w", namespace, ErrNotFound)
		}
		for _, k := range remove {
			if k == namespaceMark {
				continue
			}
			if _, err := tx.ExecContext(ctx, `DELETE FROM iceberg_namespace_properties
				WHERE catalog_name = ? AND namespace = ? AND property_key = ?`, catalogName, namespace, k); err != nil {
				return fmt.Errorf("remove property of namespace %s: %w", namespace, err)
			}
		}
		p := map[string]string{namespaceMark: "true"}
		maps.Copy(p, set)
		return setNamespaceProperties(ctx, tx, namespace, p)
	})
}

// DropNamespace removes an empty namespace; ErrConflict if it holds tables.
func (c *Catalog) DropNamespace(ctx context.Context, namespace string) error {
	return c.update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		var tables int
		if err := tx.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM iceberg_tables WHERE catalog_name = ? AND table_namespace = ?)
			+ (SELECT count(*) FROM external_tables WHERE table_namespace = ?)`, catalogName, namespace, namespace).Scan(&tables); err != nil {
			return fmt.Errorf("drop namespace %s: %w", namespace, err)
		}
		if tables > 0 {
			return &ConflictError{namespace, "empty", "0 tables", fmt.Sprintf("%d tables", tables)}
		}
		res, err := tx.ExecContext(ctx, `DELETE FROM iceberg_namespace_properties WHERE catalog_name = ? AND namespace = ?`, catalogName, namespace)
		if err != nil {
			return fmt.Errorf("drop namespace %s: %w", namespace, err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(fmt.Errorf("namespace %s: %w", namespace, ErrNotFound), err)
		}
		return nil
	})
}

// CreateTable makes a table without rows, and its namespace if there is none.
// ErrExists if the name is taken.
func (c *Catalog) CreateTable(ctx context.Context, spec TableSpec) (*Table, error) {
	if err := errors.Join(spec.Name.check(), c.usable(true)); err != nil {
		return nil, err
	}
	sc, err := spec.schema()
	if err != nil {
		return nil, err
	}
	properties, err := spec.properties()
	if err != nil {
		return nil, err
	}
	partition, err := spec.partition(sc)
	if err != nil {
		return nil, err
	}
	id := uuid.New()
	meta, err := table.NewMetadataWithUUID(sc, partition, table.UnsortedSortOrder, c.defaultLocation(spec.Name, id), properties, id)
	if err != nil {
		return nil, fmt.Errorf("create table %s: %w", spec.Name, err)
	}
	return c.createTable(ctx, spec.Name, meta)
}

// defaultLocation is a directory that no other table has: 12 hexadecimal digits
// of the UUID tell it from those of dropped tables of the same name.
func (c *Catalog) defaultLocation(name Name, id uuid.UUID) string {
	return c.store.URI(name.Namespace + "/" + name.Table + "-" + strings.ReplaceAll(id.String(), "-", "")[:12])
}

// createTable writes a table's first metadata file and its pointer.
func (c *Catalog) createTable(ctx context.Context, name Name, meta table.Metadata) (*Table, error) {
	unlock, err := c.lock(ctx, []Name{name})
	if err != nil {
		return nil, err
	}
	defer unlock()
	s := c.newStaging(ctx)
	pointer, err := writeMetadata(s, meta, 0)
	if err != nil {
		return nil, fmt.Errorf("create table %s: %w", name, err)
	}
	t, err := c.newTable(name, pointer, meta)
	if err != nil {
		return nil, err
	}
	names, err := s.put(ctx, []string{pointer})
	if err == nil {
		err = c.update(ctx, func(ctx context.Context, tx *sql.Tx) error {
			if err := notExternal(ctx, tx, name); err != nil {
				return err
			}
			res, err := tx.ExecContext(ctx, `INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location, iceberg_type)
				VALUES (?, ?, ?, ?, 'TABLE') ON CONFLICT DO NOTHING`, catalogName, name.Namespace, name.Table, pointer)
			if err != nil {
				return err
			}
			if n, err := res.RowsAffected(); err != nil || n == 0 {
				return errors.Join(ErrExists, err)
			}
			return setNamespaceProperties(ctx, tx, name.Namespace, map[string]string{namespaceMark: "true"})
		})
	}
	if err != nil {
		c.discard(ctx, names, err)
		return nil, fmt.Errorf("create table %s: %w", name, err)
	}
	c.tables.put(name.String()+"\x00"+pointer, t)
	return t, nil
}

// discard deletes files of a commit that was certainly not done.
func (c *Catalog) discard(ctx context.Context, names []string, cause error) {
	if errors.Is(cause, ErrPoisoned) || len(names) == 0 {
		return
	}
	if err := c.store.Delete(context.WithoutCancel(ctx), names...); err != nil {
		c.logger.Warn("delete files of a refused commit", "error", err)
	}
}

// DropTable removes the table from the catalog. Its files, if they lie in the
// lake, are deleted by a later Sweep.
func (c *Catalog) DropTable(ctx context.Context, name Name) error {
	return c.dropTable(ctx, name, true, nil)
}

// dropTable is DropTable, if check has no objection; without purge the files
// stay, for the table to be registered again.
func (c *Catalog) dropTable(ctx context.Context, name Name, purge bool, check func(*Table) error) error {
	unlock, err := c.lock(ctx, []Name{name})
	if err != nil {
		return err
	}
	defer unlock()
	t, err := c.Load(ctx, name)
	if err == nil && check != nil {
		err = check(t)
	}
	if err != nil {
		return err
	}
	return c.update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM iceberg_tables WHERE catalog_name = ? AND table_namespace = ? AND table_name = ?`,
			catalogName, name.Namespace, name.Table)
		if err != nil {
			return fmt.Errorf("drop table %s: %w", name, err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(fmt.Errorf("table %s: %w", name, ErrNotFound), err)
		}
		if !purge || t.prefix == "" || strings.Count(t.prefix, "/") != 1 {
			return nil // not one of our own locations: another table may share it
		}
		return c.addGarbage(ctx, tx, t.Location, []string{t.Location + "/"})
	})
}

// RenameTable gives a table another name; its files stay where they are.
func (c *Catalog) RenameTable(ctx context.Context, from, to Name) error {
	return c.renameTable(ctx, from, to, nil)
}

// renameTable is RenameTable, if check has no objection to the table's state.
func (c *Catalog) renameTable(ctx context.Context, from, to Name, check func(*Table) error) error {
	if err := to.check(); err != nil {
		return err
	}
	names := []Name{from, to}
	slices.SortFunc(names, compareNames)
	if from == to {
		return nil
	}
	unlock, err := c.lock(ctx, names)
	if err != nil {
		return err
	}
	defer unlock()
	if check != nil {
		t, err := c.Load(ctx, from)
		if err == nil {
			err = check(t)
		}
		if err != nil {
			return err
		}
	}
	return c.update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if _, err := pointer(ctx, tx, to); err == nil {
			return fmt.Errorf("rename table %s to %s: %w", from, to, ErrExists)
		} else if !errors.Is(err, ErrNotFound) {
			return err
		}
		if err := notExternal(ctx, tx, to); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, `UPDATE iceberg_tables SET table_namespace = ?, table_name = ?
			WHERE catalog_name = ? AND table_namespace = ? AND table_name = ?`, to.Namespace, to.Table, catalogName, from.Namespace, from.Table)
		if err != nil {
			return fmt.Errorf("rename table %s: %w", from, err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(fmt.Errorf("table %s: %w", from, ErrNotFound), err)
		}
		return setNamespaceProperties(ctx, tx, to.Namespace, map[string]string{namespaceMark: "true"})
	})
}
