package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/tapehouse/tapehouse/internal/record"
)

// AddColumn adds an optional column, with a new field id and as the last one.
// Files written before read as null in it. ErrExists if the name is taken.
func (c *Catalog) AddColumn(ctx context.Context, name Name, field record.Field) (*Table, error) {
	if field.Required {
		return nil, fmt.Errorf("%w: column %q of table %s: a column added later is optional", ErrInvalid, field.Name, name)
	}
	return c.evolve(ctx, name, func(t *Table, tx *table.Transaction) error {
		spec := TableSpec{Name: name, Fields: append(append([]record.Field{}, t.Schema.Fields...), field)}
		for _, col := range t.Columns {
			if col.Name == field.Name {
				return fmt.Errorf("column %q: %w", field.Name, ErrExists)
			}
		}
		if err := spec.checkField(field); err != nil {
			return err
		}
		typ, err := parseType(field.Type.String())
		if err != nil {
			return fmt.Errorf("%w column %q: %w", ErrInvalid, field.Name, err)
		}
		if err := tx.UpdateSchema(true, false).AddColumn([]string{field.Name}, typ, "", false, nil).Commit(); err != nil {
			return err
		}
		if field.Derive == record.FromJSON {
			return nil
		}
		return tx.SetProperties(iceberg.Properties{propertyDerive + field.Name: formatDerivation(field)})
	})
}

// Widen gives a column a type that holds every value of its present one: int
// becomes long, a decimal gets more digits before its point. Files written
// before are read as the new type.
func (c *Catalog) Widen(ctx context.Context, name Name, column string, to record.Type) (*Table, error) {
	return c.evolve(ctx, name, func(t *Table, tx *table.Transaction) error {
		i := t.Schema.Index(column)
		if i < 0 {
			return fmt.Errorf("column %q: %w", column, ErrNotFound)
		}
		from := t.Schema.Fields[i].Type
		if from == to {
			return nil // another had it done
		}
		ok := from.Kind == record.Int && to.Kind == record.Long ||
			from.Kind == record.Decimal && to.Kind == record.Decimal && to.Scale == from.Scale && to.Precision > from.Precision
		if !ok {
			return fmt.Errorf("%w: column %q of table %s: %s cannot be widened to %s", ErrInvalid, column, name, from, to)
		}
		typ, err := parseType(to.String())
		if err != nil {
			return fmt.Errorf("%w column %q: %w", ErrInvalid, column, err)
		}
		return tx.UpdateSchema(true, false).UpdateColumn([]string{column}, table.ColumnUpdate{FieldType: iceberg.Optional[iceberg.Type]{Val: typ, Valid: true}}).Commit()
	})
}

// evolve commits a change of metadata that no requirement of Commit expresses.
func (c *Catalog) evolve(ctx context.Context, name Name, change func(*Table, *table.Transaction) error) (*Table, error) {
	if err := c.usable(true); err != nil {
		return nil, err
	}
	unlock, err := c.lock(ctx, []Name{name})
	if err != nil {
		return nil, err
	}
	defer unlock()
	for try := 1; ; try++ {
		t, err := c.Load(ctx, name)
		if err != nil {
			return nil, err
		}
		s := c.newStaging(ctx)
		tx := table.New(name.identifier(), t.meta, t.pointer, s.fs, c.Library()).NewTransaction()
		if err := change(t, tx); err != nil {
			return nil, fmt.Errorf("change table %s: %w", name, err)
		}
		tc, err := tx.TableCommit()
		if err != nil {
			return nil, fmt.Errorf("change table %s: %w", name, err)
		}
		staged, err := c.stageUpdates(ctx, s, t, tc.Updates)
		if err != nil {
			return nil, err
		}
		out, err := c.swap(ctx, []*stagedCommit{staged}, nil, nil)
		if errors.Is(err, errMoved) && try < commitTriesMax {
			if err := c.moved(ctx, try); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("change table %s: %w", name, err)
		}
		return out[0], nil
	}
}
