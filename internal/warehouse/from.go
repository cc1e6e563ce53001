package warehouse

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tapehouse/tapehouse/internal/catalog"
)

// tableRef resolves one FROM item, adds what it brings to s, and answers what
// stands in its place.
func (r *rewriter) tableRef(s *scope, n node) (node, error) {
	if r.depth++; r.depth > depthMax {
		return nil, errorf(codeTooComplex, "the query nests too deeply")
	}
	defer func() { r.depth-- }()
	if n == nil {
		return nil, nil
	}
	if n["sample"] != nil {
		return nil, unsupported("TABLESAMPLE", "filter by a hash of a key, for instance WHERE md5(id) < '1'")
	}
	switch str(n, "type") {
	case "EMPTY":
		return n, nil
	case "BASE_TABLE":
		return r.baseTable(s, n)
	case "SUBQUERY":
		columns, err := r.query(s, child(child(n, "subquery"), "node"))
		if err != nil {
			return nil, err
		}
		s.items = append(s.items, fromItem{alias: str(n, "alias"), columns: renamed(columns, stringList(n, "column_name_alias"))})
		return n, nil
	case "JOIN":
		return r.join(s, n)
	case "TABLE_FUNCTION":
		return r.tableFunction(s, n)
	case "EXPRESSION_LIST":
		return r.values(s, n)
	}
	return nil, unsupported("this FROM item ("+strings.ToLower(str(n, "type"))+")", "select from tables, subqueries and functions").at(r.src.position(location(n)))
}

func (r *rewriter) baseTable(s *scope, n node) (node, error) {
	schema, name := str(n, "schema_name"), str(n, "table_name")
	at := r.src.position(location(n))
	if db := str(n, "catalog_name"); db != "" && db != r.env.database {
		return nil, errorf(codeFeatureNotSupported, "cross-database references are not implemented: \"%s.%s.%s\"", db, schema, name).
			hint("this server has one database, %s", r.env.database).at(at)
	}
	n["catalog_name"] = ""
	if n["at_clause"] != nil {
		return nil, unsupported("AT in FROM", "query the table as it is now").at(at)
	}
	alias := str(n, "alias")
	if alias == "" {
		alias = name
	}
	item := fromItem{alias: alias}
	if schema == "" {
		for i := len(r.ctes) - 1; i >= 0; i-- {
			if c, ok := r.ctes[i][name]; ok {
				item.columns, item.opaque = renamed(c.columns, stringList(n, "column_name_alias")), c.columns == nil
				s.items = append(s.items, item)
				return n, nil
			}
		}
	}
	rel, err := r.env.lookup(r.ctx, schema, name)
	if err != nil {
		return nil, err
	}
	if rel == nil {
		if schema != "" {
			name = schema + "." + name
		}
		return nil, errorf(codeUndefinedTable, "relation %q does not exist", name).
			hint("\\dt *.* lists the tables; the search path is %s", strings.Join(r.env.searchPath, ", ")).at(at)
	}
	n["alias"] = alias
	if rel.system {
		cte := systemName(rel)
		n["schema_name"], n["table_name"] = "", cte
		r.system[cte] = rel
	} else if rel.external != nil {
		if rel.external.err != nil {
			return nil, asError(rel.external.err, "").at(at)
		}
		n["schema_name"], n["table_name"] = rel.schema, rel.name
		if !slices.ContainsFunc(r.foreign, func(x *relation) bool { return x.schema == rel.schema && x.name == rel.name }) {
			r.foreign = append(r.foreign, rel)
		}
		if r.pseudo {
			item.hidden = pseudoColumns
		}
	} else if rel.view != nil {
		n["schema_name"], n["table_name"] = "", systemName(rel)
		found := false
		for _, v := range r.views {
			found = found || v.schema == rel.schema && v.name == rel.name
		}
		if !found {
			r.views = append(r.views, rel)
		} else if rel.view.Release != nil {
			rel.view.Release()
		}
	} else {
		n["schema_name"], n["table_name"] = rel.schema, rel.name
		key := catalog.Name{Namespace: rel.schema, Table: rel.name}
		if !r.seen[key] {
			r.seen[key] = true
			r.tables = append(r.tables, key)
		}
	}
	item.columns = renamed(rel.columns, stringList(n, "column_name_alias"))
	s.items = append(s.items, item)
	return n, nil
}

func (r *rewriter) join(s *scope, n node) (node, error) {
	before := len(s.items)
	left, err := r.tableRef(s, child(n, "left"))
	if err != nil {
		return nil, err
	}
	middle := len(s.items)
	right, err := r.tableRef(s, child(n, "right"))
	if err != nil {
		return nil, err
	}
	n["left"], n["right"] = left, right
	if cond := child(n, "condition"); cond != nil {
		inner := &scope{parent: s.parent, items: s.items[before:], aliases: map[string]sqlType{}, from: n}
		x, _, err := r.expr(inner, cond)
		if err != nil {
			return nil, err
		}
		n["condition"] = x
	}
	using := stringList(n, "using_columns")
	if str(n, "ref_type") == "NATURAL" {
		if slices.ContainsFunc(s.items[before:], func(item fromItem) bool { return len(item.hidden) > 0 }) {
			return nil, unsupported("NATURAL JOIN of an external table in a statement that names "+columnPath+" or "+columnSize, "join USING the columns")
		}
		for _, a := range s.items[before:middle] {
			for _, c := range a.columns {
				for _, b := range s.items[middle:] {
					if columnIndex(b.columns, c.name) >= 0 {
						using = append(using, c.name)
					}
				}
			}
		}
	}
	// A column of USING stands once in *: under its first table. By its table's
	// name it can be had from either.
	for _, name := range using {
		for i := middle; i < len(s.items); i++ {
			if columnIndex(s.items[i].columns, name) >= 0 {
				s.items[i].merged = append(s.items[i].merged, name)
			}
		}
	}
	return n, nil
}

func columnIndex(columns []relColumn, name string) int {
	for i := range columns {
		if strings.EqualFold(columns[i].name, name) {
			return i
		}
	}
	return -1
}

// tableFunctions are those that may stand in FROM. Everything else, and with
// it whatever reads a file, is refused by name here and again by the engine.
var tableFunctions = map[string]bool{"generate_series": true, "range": true, "unnest": true}

func (r *rewriter) tableFunction(s *scope, n node) (node, error) {
	f := child(n, "function")
	name := str(f, "function_name")
	at := r.src.position(location(n))
	if sc := str(f, "schema"); !tableFunctions[name] || sc != "" && sc != "pg_catalog" && sc != "main" {
		return nil, errorf(codeUndefinedFunction, "function %s does not exist as a table", name).
			hint("generate_series and unnest can stand in FROM").at(at)
	}
	f["schema"] = ""
	args := list(f, "children")
	elem := sqlType{}
	for i := range args {
		e, _ := args[i].(node)
		x, t, err := r.expr(s, e)
		if err != nil {
			return nil, err
		}
		args[i] = x
		if i == 0 {
			elem = t
			if t.kind == kindList {
				elem = *t.element
			}
		}
	}
	if name != "unnest" && elem.integer() {
		elem = sqlType{kind: kindBigint}
	}
	alias := str(n, "alias")
	if alias == "" {
		alias = name
		n["alias"] = name
	}
	// PostgreSQL names the column of a scalar function after the alias.
	names := stringList(n, "column_name_alias")
	if len(names) == 0 {
		names = []string{alias}
		n["column_name_alias"] = []any{alias}
	}
	s.items = append(s.items, fromItem{alias: alias, columns: []relColumn{{names[0], elem}}, opaque: len(names) > 1 || elem.kind == kindStruct})
	return n, nil
}

// values types a VALUES list by PostgreSQL's rule for UNION.
func (r *rewriter) values(s *scope, n node) (node, error) {
	var columns []relColumn
	wide := map[int]bool{}
	rows := list(n, "values")
	for i, row := range rows {
		row, _ := row.([]any)
		if i > 0 && len(row) != len(columns) {
			return nil, errorf(codeSyntax, "VALUES lists must all be the same length")
		}
		for j := range row {
			e, _ := row[j].(node)
			x, t, err := r.expr(s, e)
			if err != nil {
				return nil, err
			}
			row[j] = x
			if i == 0 {
				columns = append(columns, relColumn{fmt.Sprintf("column%d", j+1), t})
				continue
			}
			c, _, _ := common(columns[j].typ, t)
			if c.kind == kindDecimal && !c.equal(columns[j].typ) {
				wide[j] = true
			}
			columns[j].typ = c
		}
	}
	for j := range wide {
		for _, row := range rows {
			row := row.([]any)
			row[j] = castTo(row[j].(node), columns[j].typ)
		}
	}
	names := stringList(n, "column_name_alias")
	if len(names) == 0 && str(n, "alias") == "valueslist" {
		all := make([]any, len(columns))
		for j := range columns {
			all[j] = columns[j].name
		}
		n["expected_names"] = all
	}
	for j := range columns {
		if columns[j].typ.kind == kindLiteral {
			columns[j].typ.kind = kindText
		}
	}
	s.items = append(s.items, fromItem{alias: str(n, "alias"), columns: renamed(columns, names)})
	return n, nil
}

// resolve finds the type of a column reference. found is false where no table
// of the scope has it, which DuckDB's binder then says better.
func (s *scope) resolve(names []string) (t sqlType, found bool) {
	table, column := "", names[len(names)-1]
	if len(names) > 1 {
		table = names[len(names)-2]
	}
	for at := s; at != nil; at = at.parent {
		for _, item := range at.items {
			if table != "" && !strings.EqualFold(item.alias, table) {
				continue
			}
			if j := columnIndex(item.columns, column); j >= 0 {
				return item.columns[j].typ, true
			}
			if j := columnIndex(item.hidden, column); j >= 0 {
				return item.hidden[j].typ, true
			}
			if item.opaque {
				return sqlType{}, true
			}
		}
		if t, ok := at.aliases[column]; ok && table == "" {
			return t, true
		}
	}
	return sqlType{}, false
}
