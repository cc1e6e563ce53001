package catalog

import (
	"context"
	"errors"
	"fmt"
)

// ExternalNames lists the names of a namespace's external tables, sorted, without
// their definitions. "" is all namespaces.
func (c *Catalog) ExternalNames(ctx context.Context, namespace string) (out []Name, err error) {
	if err := c.usable(false); err != nil {
		return nil, err
	}
	rows, err := c.reader.QueryContext(ctx, `SELECT table_namespace, table_name FROM external_tables
		WHERE (? = '' OR table_namespace = ?) ORDER BY table_namespace, table_name`, namespace, namespace)
	if err != nil {
		return nil, fmt.Errorf("list external tables: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var n Name
		if err := rows.Scan(&n.Namespace, &n.Table); err != nil {
			return nil, fmt.Errorf("list external tables: %w", err)
		}
		out = append(out, n)
	}
	return out, rows.Err()
}
