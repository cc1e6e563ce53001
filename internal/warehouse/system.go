package warehouse

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"sort"
	"strings"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/record"
)

// The system catalog is made from the tables' catalog for each statement that
// asks: each relation is a common table expression over one JSON text, which is
// a parameter of the statement, so that a large catalog costs the parser
// nothing.

// relationOID is a relation's stable identity for clients: from its name, in
// the range of OIDs that PostgreSQL gives to users' objects. Two names collide
// with a probability of one in two thousand million.
func relationOID(schema, name string) int64 { return stableOID("r\x00" + schema + "\x00" + name) }

func schemaOID(schema string) int64 {
	switch schema {
	case "pg_catalog":
		return 11
	case "public":
		return 2200
	}
	return stableOID("n\x00" + schema)
}

func stableOID(key string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key)) // a hash never fails
	return int64(h.Sum64()%(1<<31-20000)) + 16384
}

// catalogState is everything that the system relations are made from.
type catalogState struct {
	env     *environment
	tables  Tables
	version string
	schemas []string
	objects []catalogObject
	config  [][2]string
}

type catalogObject struct {
	schema, name string
	kind         string // relkind: r, m
	external     *catalog.External
	columns      []catalogColumn
	table        *catalog.Table
	view         *View
}

type catalogColumn struct {
	name    string
	typ     sqlType
	notNull bool
}

// state loads the catalog as the session sees it now.
func (s *Session) state(ctx context.Context) (*catalogState, error) {
	w := s.w
	c := &catalogState{env: s.env, tables: w.o.Catalog, version: w.version()}
	namespaces, err := w.o.Catalog.Namespaces(ctx)
	if err != nil {
		return nil, err
	}
	names, err := w.o.Catalog.List(ctx, "")
	if err != nil {
		return nil, err
	}
	views := map[catalog.Name]*View{}
	if w.o.Views != nil {
		all, err := w.o.Views.List(ctx)
		if err != nil {
			return nil, err
		}
		for i := range all {
			views[all[i].Name] = &all[i]
		}
	}
	seen := map[string]bool{"pg_catalog": true, "information_schema": true, "public": true}
	c.schemas = []string{"pg_catalog", "information_schema", "public"}
	for _, n := range namespaces {
		if !seen[n] {
			seen[n] = true
			c.schemas = append(c.schemas, n)
		}
	}
	loaded, err := w.o.Catalog.LoadAll(ctx, names)
	if err != nil {
		return nil, err
	}
	for _, t := range loaded {
		if t == nil || views[t.Name] != nil || t.Properties[propertyView] != "" {
			continue
		}
		c.objects = append(c.objects, catalogObject{schema: t.Name.Namespace, name: t.Name.Table, kind: "r", columns: tableColumns(t), table: t})
	}
	for _, v := range views {
		o := catalogObject{schema: v.Name.Namespace, name: v.Name.Table, kind: "m", view: v}
		for _, f := range v.Columns {
			o.columns = append(o.columns, catalogColumn{f.Name, fromIceberg(f.Type), false})
		}
		c.objects = append(c.objects, o)
	}
	externals, err := w.o.Catalog.Externals(ctx, "")
	if err != nil {
		return nil, err
	}
	for i := range externals {
		e := &externals[i]
		c.objects = append(c.objects, catalogObject{schema: e.Name.Namespace, name: e.Name.Table, kind: "r", columns: externalColumns(e), external: e})
	}
	sort.Slice(c.objects, func(i, j int) bool {
		a, b := &c.objects[i], &c.objects[j]
		return a.schema < b.schema || a.schema == b.schema && a.name < b.name
	})
	for _, name := range sortedSettings() {
		if v, ok := s.setting(name); ok {
			c.config = append(c.config, [2]string{name, v})
		}
	}
	return c, nil
}

// The table that holds a materialized view's state: it has the property, and
// its name is the view's after the prefix. SQL does not see it.
const (
	propertyView    = "tapehouse.view"
	prefixViewState = "__state_"
)

// isViewState reports whether a table holds a view's state.
func (s *Session) isViewState(ctx context.Context, name catalog.Name) (bool, error) {
	own, ok := strings.CutPrefix(name.Table, prefixViewState)
	if !ok {
		return false, nil
	}
	v, err := s.w.o.Views.Read(ctx, catalog.Name{Namespace: name.Namespace, Table: own})
	if err == nil && v != nil && v.Release != nil {
		v.Release()
	}
	return v != nil, err
}

// tableColumns are all columns of a managed table with their SQL types.
func tableColumns(t *catalog.Table) []catalogColumn {
	out := make([]catalogColumn, 0, len(t.Columns))
	for _, col := range t.Columns {
		out = append(out, catalogColumn{col.Name, fromIceberg(col.Type), col.Required})
	}
	return out
}

// fromIceberg is the SQL type of an Iceberg type by its spelling. Nested types
// are shown as text.
func fromIceberg(spelling string) sqlType {
	if t, err := record.ParseType(spelling); err == nil {
		return fromRecord(t)
	}
	s := strings.ToLower(strings.TrimSpace(spelling))
	var p, sc int
	if n, err := fmt.Sscanf(strings.ReplaceAll(s, " ", ""), "decimal(%d,%d)", &p, &sc); err == nil && n == 2 {
		return decimal(p, sc)
	}
	switch {
	case s == "float":
		return sqlType{kind: kindReal}
	case s == "timestamp", s == "timestamp_ns":
		return sqlType{kind: kindTimestamp}
	case s == "timestamptz_ns":
		return sqlType{kind: kindTimestampTZ}
	case s == "time":
		return sqlType{kind: kindTime}
	case s == "uuid":
		return sqlType{kind: kindUUID}
	case s == "binary", strings.HasPrefix(s, "fixed"):
		return sqlType{kind: kindBytes}
	}
	return sqlType{kind: kindText}
}

// A systemRelation is one relation of pg_catalog or information_schema: its
// columns as "name type" words, and its rows. nil rows make it empty.
type systemRelation struct {
	columns string
	rows    func(ctx context.Context, c *catalogState) ([][]any, error)
}

// systemKinds are the column types of the definitions.
var systemKinds = map[string]sqlType{"oid": {kind: kindBigint}, "int8": {kind: kindBigint}, "int4": {kind: kindInt}, "int2": {kind: kindSmallint},
	"text": {kind: kindText}, "name": {kind: kindText}, "char": {kind: kindText}, "bool": {kind: kindBool}, "float4": {kind: kindReal},
	"timestamptz": {kind: kindTimestampTZ},
	"text[]":      {kind: kindList, element: &sqlType{kind: kindText}}, "oid[]": {kind: kindList, element: &sqlType{kind: kindBigint}}, "int2[]": {kind: kindList, element: &sqlType{kind: kindSmallint}}}

func (d systemRelation) parse() []relColumn {
	f := strings.Fields(d.columns)
	out := make([]relColumn, 0, len(f)/2)
	for i := 0; i+1 < len(f); i += 2 {
		out = append(out, relColumn{f[i], systemKinds[f[i+1]]})
	}
	return out
}

// systemLookup finds a system relation; schema "" finds those of pg_catalog.
func systemLookup(schema, name string) *relation {
	for _, s := range []string{"pg_catalog", "information_schema"} {
		if schema == s || schema == "" && s == "pg_catalog" {
			if d, ok := systemRelations[s+"."+name]; ok {
				return &relation{schema: s, name: name, columns: d.parse(), system: true}
			}
		}
	}
	return nil
}

// systemCTE writes a system relation as a common table expression over the
// parameter of that number, and answers the parameter's value.
func systemCTE(ctx context.Context, rel *relation, c *catalogState, number int) (sql, value string, err error) {
	produce := rel.rows
	if produce == nil {
		produce = systemRelations[rel.schema+"."+rel.name].rows
	}
	var rows [][]any
	if produce != nil {
		if rows, err = produce(ctx, c); err != nil {
			return "", "", err
		}
	}
	var shape, data strings.Builder
	shape.WriteString(`[{`)
	for i, col := range rel.columns {
		if i > 0 {
			shape.WriteByte(',')
		}
		name, t := col.typ.String(), `"`+col.typ.String()+`"`
		if e, ok := strings.CutSuffix(name, "[]"); ok {
			t = `["` + e + `"]`
		}
		fmt.Fprintf(&shape, "%q:%s", col.name, t)
	}
	shape.WriteString(`}]`)
	data.WriteByte('[')
	for i, row := range rows {
		if len(row) != len(rel.columns) {
			return "", "", errorf(codeInternal, "system relation %s.%s: a row of %d values for %d columns", rel.schema, rel.name, len(row), len(rel.columns))
		}
		if i > 0 {
			data.WriteByte(',')
		}
		data.WriteByte('{')
		first := true
		for j, v := range row {
			if v == nil {
				continue
			}
			b, err := json.Marshal(v)
			if err != nil {
				return "", "", err
			}
			if !first {
				data.WriteByte(',')
			}
			first = false
			fmt.Fprintf(&data, "%q:%s", rel.columns[j].name, b)
		}
		data.WriteByte('}')
	}
	data.WriteByte(']')
	sql = fmt.Sprintf("%s AS (SELECT unnest(from_json(CAST($%d AS VARCHAR), %s), max_depth := 2))", quoteIdent(systemName(rel)), number, quoteLiteral(shape.String()))
	return sql, data.String(), nil
}

// withSystem puts the system relations that a query uses in front of it. Their
// rows are parameters from number on.
func withSystem(ctx context.Context, sql string, used map[string]*relation, c *catalogState, number int) (string, []any, error) {
	names := make([]string, 0, len(used))
	for n := range used {
		names = append(names, n)
	}
	sort.Strings(names)
	parts := make([]string, len(names))
	values := make([]any, len(names))
	for i, n := range names {
		cte, value, err := systemCTE(ctx, used[n], c, number+i)
		if err != nil {
			return "", nil, err
		}
		parts[i], values[i] = cte, value
	}
	return inFront(parts, sql), values, nil
}

// inFront adds common table expressions to a query that may have some.
func inFront(parts []string, sql string) string {
	head := strings.Join(parts, ", ")
	for _, with := range []string{"WITH RECURSIVE ", "WITH "} {
		if rest, ok := strings.CutPrefix(sql, with); ok {
			return with + head + ", " + rest
		}
	}
	return "WITH " + head + " " + sql
}
