package market

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/maintain"
	"github.com/tapehouse/tapehouse/internal/record"
)

// state is one table at one snapshot, under that snapshot's own schema.
type state struct {
	tableRole
	table    *catalog.Table
	snapshot int64
	schema   record.Schema
	files    []catalog.DataFile
}

// rowsIn is the number of rows that the files of a partition hold, as the
// manifests say.
func (s *state) rowsIn(d calendar.TradeDate) (n int64) {
	for _, f := range catalog.FilesIn(s.files, int32(d)) {
		n += f.Rows
	}
	return n
}

// states are tables of the pack at one instant, by table.
type states map[string]*state

// load returns the named tables of the pack, each at its tag where tags has one
// and else in its current state, tail apart.
func (m *Market) load(ctx context.Context, roles []tableRole, tags map[string]string) (states, error) {
	names := make([]catalog.Name, len(roles))
	for i, r := range roles {
		names[i] = m.name(r.table)
	}
	tables, err := m.o.Catalog.LoadAll(ctx, names)
	if err != nil {
		return nil, err
	}
	out := states{}
	for i, t := range tables {
		if out[roles[i].table], err = m.stateAt(ctx, t, roles[i], catalog.At{Tag: tags[roles[i].table]}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (m *Market) stateAt(ctx context.Context, t *catalog.Table, role tableRole, at catalog.At) (*state, error) {
	s := &state{tableRole: role, table: t, schema: t.Schema}
	var err error
	if s.snapshot, err = t.Resolve(at); err != nil {
		return nil, err
	}
	if s.snapshot != 0 && s.snapshot != t.Snapshot() {
		for _, sn := range t.Snapshots() {
			if sn.ID != s.snapshot || sn.SchemaID < 0 {
				continue
			}
			former, ok := t.SchemaByID(sn.SchemaID)
			if !ok {
				return nil, fmt.Errorf("table %s: schema %d of snapshot %d: %w", t.Name, sn.SchemaID, s.snapshot, catalog.ErrNotFound)
			}
			s.schema = former
		}
	}
	s.files, err = m.o.Catalog.Files(ctx, t, at)
	return s, err
}

// pin makes a pin of the states' whole tables.
func (st states) pin() *engine.Pin {
	return st.pinned(func(s *state) []catalog.DataFile { return s.files })
}

// pinDate makes a pin that holds what the close of date d reads: of a table with
// trade dates the files of d alone, unless its records may be about other dates
// than the one on which their source sent them.
func (m *Market) pinDate(st states, d calendar.TradeDate) *engine.Pin {
	return st.pinned(func(s *state) []catalog.DataFile {
		for i := range m.facts {
			if f := &m.facts[i]; f.stream.Table == s.tableRole.table && !f.derived {
				return s.files
			}
		}
		if s.partition == "" {
			return s.files
		}
		return catalog.FilesIn(s.files, int32(d))
	})
}

func (st states) pinned(files func(*state) []catalog.DataFile) *engine.Pin {
	relations := map[engine.Name]engine.Relation{}
	for _, s := range st {
		relations[engine.Name(s.table.Name)] = maintain.Relation(s.schema, files(s))
	}
	return engine.NewPin(relations)
}

// quoted is the table's name in SQL.
func (s *state) quoted() string { return quoteName(s.table.Name) }

func quoteName(n catalog.Name) string {
	return engine.QuoteIdentifier(n.Namespace) + "." + engine.QuoteIdentifier(n.Table)
}

// dateLiteral is d in SQL.
func dateLiteral(d calendar.TradeDate) string { return "DATE " + engine.QuoteLiteral(d.String()) }

// query runs one of our own statements and calls fn for each row, whose values
// fn may keep but not the slice.
func (m *Market) query(ctx context.Context, pin *engine.Pin, sql string, fn func(row []any) error) (err error) {
	s, err := m.o.Engine.InternalSession(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return each(ctx, s, engine.Query{SQL: sql, Pin: pin}, func(_ []engine.Column, row []any) error { return fn(row) })
}

func each(ctx context.Context, s *engine.Session, q engine.Query, fn func(cols []engine.Column, row []any) error) (err error) {
	rows, err := s.Query(ctx, q)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	row := make([]any, len(rows.Columns))
	for {
		switch err := rows.Next(row); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := fn(rows.Columns, row); err != nil {
			return err
		}
	}
}

// result is a small result, whole.
type result struct {
	columns []engine.Column
	rows    [][]any
}

func (r *result) index(column string) int {
	return slices.IndexFunc(r.columns, func(c engine.Column) bool { return c.Name == column })
}

// resultRowsMax bounds what a pack's statement may answer.
const resultRowsMax = 5_000_000

// run executes a pack's statement, which passes the allow-list as a user's does
// and is computed exactly, over a pin.
func (m *Market) run(ctx context.Context, what string, pin *engine.Pin, sql string, args ...any) (_ *result, err error) {
	s, err := m.o.Engine.Session(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	types := make([]engine.Type, len(args))
	for i, a := range args {
		if _, text := a.(string); text {
			types[i] = engine.Type{Kind: engine.Varchar}
		}
	}
	r := &result{}
	err = each(ctx, s, engine.Query{SQL: sql, Args: args, ParamTypes: types, Pin: pin, Exact: true}, func(cols []engine.Column, row []any) error {
		r.columns = cols
		if len(r.rows) == resultRowsMax {
			return fmt.Errorf("%w: more than %d rows", ErrInvalid, resultRowsMax)
		}
		r.rows = append(r.rows, slices.Clone(row))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return r, nil
}

// text is a value as statements, certificates and messages show it; "" for null.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case int16:
		return strconv.FormatInt(int64(v), 10)
	case int32:
		return strconv.FormatInt(int64(v), 10)
	case int64:
		return strconv.FormatInt(v, 10)
	case engine.Decimal:
		return v.String()
	case engine.Date:
		return calendar.TradeDate(v).String()
	case engine.TimestampTZ:
		return instant(int64(v)).Format("2006-01-02T15:04:05.000000Z")
	case engine.Timestamp:
		return strings.TrimSuffix(instant(int64(v)).Format("2006-01-02T15:04:05.000000Z"), "Z")
	}
	return fmt.Sprint(v)
}

// integer is a value of any integer type; 0 for null.
func integer(v any) int64 {
	switch v := v.(type) {
	case int16:
		return int64(v)
	case int32:
		return int64(v)
	case int64:
		return v
	case engine.Decimal:
		if v.Scale == 0 && v.Unscaled.IsInt64() {
			return v.Unscaled.Int64()
		}
	}
	return 0
}

// recordID is the RecordId of the record behind a row; "" where the columns do
// not say.
func recordID(stream, offset any) string {
	k, err := record.ParseKey(text(stream))
	if err != nil {
		return ""
	}
	return record.ID{Key: k, Offset: record.Offset(integer(offset))}.String()
}
