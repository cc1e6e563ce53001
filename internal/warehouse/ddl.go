package warehouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/record"
)

// define executes DDL. Each statement is one change of the catalog, durable
// when it is answered.
func (s *Session) define(ctx context.Context, st *Statement) (*Result, error) {
	var tag string
	switch p := st.parsed.(type) {
	case createSchema:
		tag = "CREATE SCHEMA"
	case dropSchema:
		tag = "DROP SCHEMA"
	case createTable:
		tag = "CREATE TABLE"
	case dropRelation:
		tag = "DROP TABLE"
		if p.view {
			tag = "DROP MATERIALIZED VIEW"
		}
	case addColumn:
		tag = "ALTER TABLE"
	case createView:
		tag = "CREATE MATERIALIZED VIEW"
	case refreshView:
		tag = "REFRESH MATERIALIZED VIEW"
	default:
		return nil, errorf(codeInternal, "a statement without an executor: %T", st.parsed)
	}
	if err := s.outsideBlock(tag); err != nil {
		return nil, err
	}
	var err error
	switch p := st.parsed.(type) {
	case createSchema:
		err = s.createSchema(ctx, p)
	case dropSchema:
		err = s.dropSchema(ctx, p)
	case createTable:
		if p.as != nil {
			return s.createTableAs(ctx, st, p)
		}
		err = s.createTable(ctx, p)
	case dropRelation:
		err = s.drop(ctx, p)
	case addColumn:
		err = s.addColumn(ctx, p)
	case createView:
		err = s.createView(ctx, st, p)
	case refreshView:
		err = s.refreshView(ctx, p)
	}
	return done(tag), err
}

func systemSchema(name string) bool {
	return name == "information_schema" || strings.HasPrefix(name, "pg_")
}

func (s *Session) createSchema(ctx context.Context, p createSchema) error {
	if systemSchema(p.name) {
		return errorf("42939", "unacceptable schema name %q", p.name).detail("The prefix \"pg_\" is reserved for system schemas.")
	}
	err := s.w.o.Catalog.CreateNamespace(ctx, p.name, nil)
	if errors.Is(err, catalog.ErrExists) {
		if p.ifNotExists {
			s.notice("NOTICE", codeDuplicateSchema, fmt.Sprintf("schema %q already exists, skipping", p.name))
			return nil
		}
		return errorf(codeDuplicateSchema, "schema %q already exists", p.name)
	}
	return err
}

func (s *Session) dropSchema(ctx context.Context, p dropSchema) error {
	err := s.w.o.Catalog.DropNamespace(ctx, p.name)
	switch {
	case errors.Is(err, catalog.ErrNotFound):
		if p.ifExists {
			s.notice("NOTICE", codeInvalidSchemaName, fmt.Sprintf("schema %q does not exist, skipping", p.name))
			return nil
		}
		return errorf(codeInvalidSchemaName, "schema %q does not exist", p.name)
	case errors.Is(err, catalog.ErrConflict):
		return errorf("2BP01", "cannot drop schema %q because tables depend on it", p.name).hint("drop its tables first")
	}
	return err
}

// target is the name of a table to be made: in the given schema, or the first
// of the search path.
func (s *Session) target(ctx context.Context, schema, name string) (catalog.Name, error) {
	namespaces, err := s.w.o.Catalog.Namespaces(ctx)
	if err != nil {
		return catalog.Name{}, err
	}
	if schema == "" {
		path, _ := s.setting("search_path")
		schemas, err := parseSearchPath(path)
		if err != nil {
			return catalog.Name{}, err
		}
		if len(schemas) == 0 {
			return catalog.Name{}, errorf(codeInvalidSchemaName, "no schema has been selected to create in").hint("SET search_path, or name the schema")
		}
		schema = schemas[0]
	}
	if systemSchema(schema) {
		return catalog.Name{}, errorf(codePrivilege, "permission denied for schema %s", schema)
	}
	if schema != "public" && !slices.Contains(namespaces, schema) {
		return catalog.Name{}, errorf(codeInvalidSchemaName, "schema %q does not exist", schema).hint("CREATE SCHEMA %s", schema)
	}
	return catalog.Name{Namespace: schema, Table: name}, nil
}

// recordTypes maps SQL types to those that streams' tables have.
func recordType(t sqlType) (record.Type, bool) {
	switch t.kind {
	case kindBool:
		return record.Type{Kind: record.Boolean}, true
	case kindTinyint, kindSmallint, kindInt:
		return record.Type{Kind: record.Int}, true
	case kindBigint:
		return record.Type{Kind: record.Long}, true
	case kindDecimal:
		return record.Type{Kind: record.Decimal, Precision: t.precision, Scale: t.scale}, t.precision <= 18
	case kindDouble:
		return record.Type{Kind: record.Double}, true
	case kindText, kindJSON, kindLiteral, kindNull:
		return record.Type{Kind: record.String}, true
	case kindDate:
		return record.Type{Kind: record.Date}, true
	case kindTimestampTZ:
		return record.Type{Kind: record.TimestampTZ}, true
	}
	return record.Type{}, false
}

// icebergType is the spelling of a column's type in a table.
func icebergType(t sqlType) (string, error) {
	if r, ok := recordType(t); ok {
		return r.String(), nil
	}
	switch t.kind {
	case kindDecimal:
		return fmt.Sprintf("decimal(%d, %d)", t.precision, t.scale), nil
	case kindHugeint:
		return "decimal(38, 0)", nil
	case kindReal:
		return "float", nil
	case kindTimestamp:
		return "timestamp", nil
	case kindTime:
		return "time", nil
	case kindUUID:
		return "uuid", nil
	case kindBytes:
		return "binary", nil
	}
	return "", unsupported("a column of type "+displayType(t), "cast it, for instance to text")
}

func (s *Session) createTable(ctx context.Context, p createTable) error {
	name, err := s.target(ctx, p.schema, p.name)
	if err != nil {
		return err
	}
	spec := catalog.TableSpec{Name: name, PartitionBy: p.partitionBy, Properties: p.properties}
	fields, plain := make([]record.Field, 0, len(p.columns)), true
	for _, c := range p.columns {
		t, ok := recordType(c.typ)
		plain = plain && ok
		fields = append(fields, record.Field{Name: c.name, Type: t, Required: c.notNull})
		spelling, err := icebergType(c.typ)
		if err != nil {
			return err
		}
		spec.Columns = append(spec.Columns, catalog.Column{Name: c.name, Type: spelling, Required: c.notNull})
		if c.name == p.partitionBy && c.typ.kind != kindDate {
			return errorf(codeDatatypeMismatch, "partition column %q is %s, and must be a date", c.name, displayType(c.typ)).hint("add a DATE column, for instance the trade date")
		}
	}
	if p.partitionBy != "" && !slices.ContainsFunc(p.columns, func(c columnDefinition) bool { return c.name == p.partitionBy }) {
		return errorf(codeUndefinedColumn, "partition column %q does not exist", p.partitionBy)
	}
	if plain {
		spec.Fields, spec.Columns = fields, nil
	}
	_, err = s.w.o.Catalog.CreateTable(ctx, spec)
	if errors.Is(err, catalog.ErrExists) {
		if p.ifNotExists {
			s.notice("NOTICE", codeDuplicateTable, fmt.Sprintf("relation %q already exists, skipping", name.Table))
			return nil
		}
		return errorf(codeDuplicateTable, "relation %q already exists", name.String())
	}
	return err
}

// createTableAs makes a table of a query's columns and inserts its rows.
func (s *Session) createTableAs(ctx context.Context, st *Statement, p createTable) (*Result, error) {
	q := &Statement{sql: st.sql}
	if err := s.describe(ctx, q, p.as, nil); err != nil {
		return nil, err
	}
	for i, c := range q.Columns {
		p.columns = append(p.columns, columnDefinition{name: c.Name, typ: q.types[i]})
	}
	name, err := s.target(ctx, p.schema, p.name)
	if err != nil {
		return nil, err
	}
	_, err = s.w.o.Catalog.Load(ctx, name)
	switch {
	case err == nil && p.ifNotExists:
		s.notice("NOTICE", codeDuplicateTable, fmt.Sprintf("relation %q already exists, skipping", name.Table))
		return done("CREATE TABLE AS"), nil
	case err == nil:
		return nil, errorf(codeDuplicateTable, "relation %q already exists", name.String())
	case !errors.Is(err, catalog.ErrNotFound):
		return nil, err
	}
	if _, err := s.w.o.Catalog.External(ctx, name); err == nil {
		return nil, errorf(codeDuplicateTable, "relation %q already exists", name.String()).detail("It is an external table.")
	}
	if err := s.createTable(ctx, p); err != nil {
		return nil, err
	}
	rows, err := s.write(ctx, &Statement{sql: st.sql}, name, nil, p.as, nil)
	if err != nil {
		// The table was ours alone: nothing else can have come into it.
		return nil, errors.Join(err, s.w.o.Catalog.DropTable(context.WithoutCancel(ctx), name))
	}
	return done(fmt.Sprintf("SELECT %d", rows)), nil
}

func (s *Session) drop(ctx context.Context, p dropRelation) error {
	for _, n := range p.names {
		if systemSchema(n[0]) {
			return errorf(codePrivilege, "permission denied for schema %s", n[0])
		}
		if _, err := s.environment(ctx); err != nil {
			return err
		}
		rel, err := s.lookup(ctx, n[0], n[1])
		if err != nil {
			return err
		}
		if rel != nil && rel.view != nil && rel.view.Release != nil {
			rel.view.Release()
		}
		switch {
		case rel == nil || rel.system:
			if !p.ifExists {
				return errorf(codeUndefinedTable, "relation %q does not exist", n[1])
			}
			s.notice("NOTICE", codeUndefinedTable, fmt.Sprintf("relation %q does not exist, skipping", n[1]))
			continue
		case p.view != (rel.view != nil):
			kind := "a materialized view"
			if p.view {
				kind = "a table"
			}
			return errorf(codeWrongObjectType, "%q is %s", n[1], kind)
		}
		name := catalog.Name{Namespace: rel.schema, Table: rel.name}
		if rel.external != nil {
			err = s.dropExternal(ctx, name)
		} else if p.view {
			err = s.w.o.Views.Drop(ctx, name)
		} else {
			err = s.dropTable(ctx, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dropTable refuses while a view reads the table or a stream feeds it.
func (s *Session) dropTable(ctx context.Context, name catalog.Name) error {
	if s.w.o.Views != nil {
		views, err := s.w.o.Views.List(ctx)
		if err != nil {
			return err
		}
		for _, v := range views {
			if slices.Contains(v.Tables, name) {
				return errorf("2BP01", "cannot drop table %s because materialized view %s depends on it", name, v.Name).hint("DROP MATERIALIZED VIEW %s", v.Name)
			}
		}
	}
	t, err := s.w.o.Catalog.Load(ctx, name)
	if err != nil {
		return err
	}
	if len(t.Through()) > 0 {
		return errorf("2BP01", "cannot drop table %s because a delivery stream has fed it", name).hint("delete the stream; its table is kept as the record of what it delivered")
	}
	drop := func() error { return s.w.o.Catalog.DropTable(ctx, name) }
	if s.w.o.Unfed == nil {
		return drop()
	}
	// A stream that has delivered nothing yet may hold acknowledged records.
	stream, err := s.w.o.Unfed(name, drop)
	if stream != "" {
		return errorf("2BP01", "cannot drop table %s because delivery stream %s feeds it", name, stream).hint("delete the stream first; a table to which it has delivered is kept")
	}
	return err
}

func (s *Session) addColumn(ctx context.Context, p addColumn) error {
	if _, err := s.environment(ctx); err != nil {
		return err
	}
	rel, err := s.lookup(ctx, p.schema, p.name)
	if err != nil {
		return err
	}
	if rel == nil || rel.system {
		return errorf(codeUndefinedTable, "relation %q does not exist", p.name)
	}
	if rel.view != nil {
		return errorf(codeWrongObjectType, "%q is a materialized view", p.name)
	}
	if err := refuseExternal(rel); err != nil {
		return err
	}
	t, ok := recordType(p.column.typ)
	if !ok {
		return unsupported("adding a column of type "+displayType(p.column.typ), "add boolean, integer, bigint, numeric up to 18 digits, double precision, varchar, date or timestamptz")
	}
	_, err = s.w.o.Catalog.AddColumn(ctx, catalog.Name{Namespace: rel.schema, Table: rel.name}, record.Field{Name: p.column.name, Type: t})
	if errors.Is(err, catalog.ErrExists) {
		if p.ifNotExists {
			s.notice("NOTICE", codeDuplicateColumn, fmt.Sprintf("column %q of relation %q already exists, skipping", p.column.name, rel.name))
			return nil
		}
		return errorf(codeDuplicateColumn, "column %q of relation %q already exists", p.column.name, rel.name)
	}
	return err
}

func (s *Session) createView(ctx context.Context, st *Statement, p createView) error {
	if s.w.o.Views == nil {
		return unsupported("CREATE MATERIALIZED VIEW on this server", "query the table itself")
	}
	name, err := s.target(ctx, p.schema, p.name)
	if err != nil {
		return err
	}
	if _, err := s.environment(ctx); err != nil {
		return err
	}
	rel, err := s.lookup(ctx, name.Namespace, name.Table)
	if err != nil {
		return err
	}
	if rel != nil {
		if rel.view != nil && rel.view.Release != nil {
			rel.view.Release()
		}
		if p.ifNotExists {
			s.notice("NOTICE", codeDuplicateTable, fmt.Sprintf("relation %q already exists, skipping", name.Table))
			return nil
		}
		return errorf(codeDuplicateTable, "relation %q already exists", name.String())
	}
	pl, err := s.plan(ctx, st.sql, p.query, nil)
	if err != nil {
		return err
	}
	if len(pl.params) > 0 {
		return errorf(codeUndefinedParameter, "a materialized view has no parameters")
	}
	if pl.mutable {
		return unsupported("a materialized view of the current time", "filter by the time when you read the view")
	}
	if len(pl.foreign) > 0 {
		return unsupported("a materialized view over the external table "+pl.foreign[0].schema+"."+pl.foreign[0].name, "INSERT INTO a table of your own SELECT … FROM it, and make the view over that")
	}
	if len(pl.views) > 0 || len(pl.tables) == 0 {
		return unsupported("a materialized view over views, or over no table", "read the base tables in its query")
	}
	pin, release, err := s.pin(ctx, pl, false)
	if err != nil {
		return err
	}
	defer release()
	_, columns, err := s.engine.Describe(ctx, engine.Query{SQL: pl.text, Pin: pin, Exact: true})
	if err != nil {
		return err
	}
	d := ViewDefinition{Name: name, AutoRefresh: p.autoRefresh, Query: pl.text, Tables: pl.tables, Owner: s.o.User}
	first, last := p.query[0], p.query[max(len(p.query)-2, 0)]
	d.Text = st.sql[first.start:last.end]
	seen := map[string]bool{}
	for _, c := range columns {
		spelling, err := icebergType(fromEngine(c.Type))
		if err != nil {
			return err
		}
		if seen[c.Name] || c.Name == "?column?" {
			return errorf(codeDuplicateColumn, "a materialized view needs a distinct name for each column; %q is not", c.Name).hint("give the expression an alias with AS")
		}
		seen[c.Name] = true
		d.Columns = append(d.Columns, catalog.Column{Name: c.Name, Type: spelling})
	}
	return s.w.o.Views.Create(ctx, d)
}

func (s *Session) refreshView(ctx context.Context, p refreshView) error {
	if _, err := s.environment(ctx); err != nil {
		return err
	}
	rel, err := s.lookup(ctx, p.schema, p.name)
	if err != nil {
		return err
	}
	if rel == nil {
		return errorf(codeUndefinedTable, "materialized view %q does not exist", p.name)
	}
	if rel.view == nil {
		return errorf(codeWrongObjectType, "%q is not a materialized view", p.name)
	}
	if rel.view.Release != nil {
		rel.view.Release()
	}
	notice, err := s.w.o.Views.Refresh(ctx, catalog.Name{Namespace: rel.schema, Table: rel.name})
	if err == nil && notice != "" {
		s.notice("INFO", "00000", notice)
	}
	return err
}
