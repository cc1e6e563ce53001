package view

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/tapehouse/tapehouse/internal/engine"
)

// node is one node of DuckDB's syntax tree as JSON. Numbers are json.Number:
// some locations do not fit a float.
type node = map[string]any

// serializer turns text to trees and back by DuckDB's own parser.
type serializer struct{ e *engine.Engine }

// parse returns the one SELECT that sql holds.
func (z serializer) parse(ctx context.Context, sql string) (node, error) {
	text, err := z.call(ctx, "SELECT json_serialize_sql($1::VARCHAR)", sql)
	if err != nil {
		return nil, err
	}
	var out struct {
		Error      bool   `json:"error"`
		Message    string `json:"error_message"`
		Statements []node `json:"statements"`
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		return nil, fmt.Errorf("parse a view's query: %w", err)
	}
	if out.Error || len(out.Statements) != 1 {
		return nil, &UnsupportedError{What: "this form of query", Hint: out.Message}
	}
	return out.Statements[0], nil
}

// print is the inverse of parse.
func (z serializer) print(ctx context.Context, statement node) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(node{"error": false, "statements": []any{statement}}); err != nil {
		return "", fmt.Errorf("print a view's query: %w", err)
	}
	return z.call(ctx, "SELECT json_deserialize_sql($1::JSON)", b.String())
}

// printNode prints a SELECT node.
func (z serializer) printNode(ctx context.Context, n node) (string, error) {
	return z.print(ctx, node{"node": n, "named_param_map": []any{}})
}

func (z serializer) call(ctx context.Context, sql, argument string) (string, error) {
	row, err := oneRow(ctx, z.e, engine.Query{SQL: sql, Args: []any{argument}})
	if err != nil {
		return "", err
	}
	out, _ := row[0].(string)
	return out, nil
}

// oneRow runs a query of the program's own making that answers one row.
func oneRow(ctx context.Context, e *engine.Engine, q engine.Query) ([]any, error) {
	s, err := e.InternalSession(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }() // it never fails
	rows, err := s.Query(ctx, q)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // it never fails
	row := make([]any, len(rows.Columns))
	if err := rows.Next(row); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("a query of one row answered none")
		}
		return nil, err
	}
	return row, nil
}

func str(n node, key string) string {
	s, _ := n[key].(string)
	return s
}

func child(n node, key string) node {
	c, _ := n[key].(node)
	return c
}

func list(n node, key string) []any {
	l, _ := n[key].([]any)
	return l
}

// isTable reports whether n stands for a table, not for a WITH query.
func isTable(n node) bool { return str(n, "type") == "BASE_TABLE" && str(n, "schema_name") != "" }

// walk calls fn for every node below v, the outer before the inner. fn returns
// false to leave a node's inside out.
func walk(v any, fn func(node) bool) {
	switch v := v.(type) {
	case []any:
		for i := range v {
			walk(v[i], fn)
		}
	case node:
		if !fn(v) {
			return
		}
		for _, m := range v {
			walk(m, fn)
		}
	}
}

func clone(v any) any {
	switch v := v.(type) {
	case []any:
		c := make([]any, len(v))
		for i := range v {
			c[i] = clone(v[i])
		}
		return c
	case node:
		c := make(node, len(v))
		for k, m := range v {
			c[k] = clone(m)
		}
		return c
	}
	return v
}

func cloneNode(n node) node {
	c, _ := clone(n).(node)
	return c
}

// shape is n without positions and its own alias: equal expressions have equal
// shapes. Names are compared without case, as SQL does.
func shape(n node) string {
	c := cloneNode(n)
	c["alias"] = ""
	walk(c, func(m node) bool {
		delete(m, "query_location")
		if str(m, "class") == "COLUMN_REF" {
			for i, part := range list(m, "column_names") {
				s, _ := part.(string)
				list(m, "column_names")[i] = strings.ToLower(s)
			}
		}
		if name := str(m, "function_name"); name != "" {
			m["function_name"] = strings.ToLower(name)
		}
		return true
	})
	b, err := json.Marshal(c)
	if err != nil {
		return "" // it was decoded from JSON
	}
	return string(b)
}

func columnRef(name string) node {
	return node{"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "query_location": json.Number("0"), "column_names": []any{name}}
}

func call(name string, args ...any) node {
	if args == nil {
		args = []any{} // null is no list
	}
	return node{"class": "FUNCTION", "type": "FUNCTION", "alias": "", "query_location": json.Number("0"), "function_name": name, "schema": "", "children": args,
		"filter": nil, "order_bys": node{"type": "ORDER_MODIFIER", "orders": []any{}}, "distinct": false, "is_operator": false, "export_state": false, "catalog": ""}
}

func integer(n int) node {
	return node{"class": "CONSTANT", "type": "VALUE_CONSTANT", "alias": "", "query_location": json.Number("0"),
		"value": node{"type": node{"id": "INTEGER", "type_info": nil}, "is_null": false, "value": n}}
}

func compareGreater(left, right node) node {
	return node{"class": "COMPARISON", "type": "COMPARE_GREATERTHAN", "alias": "", "query_location": json.Number("0"), "left": left, "right": right}
}

func tableRef(schema, name, alias string) node {
	return node{"type": "BASE_TABLE", "alias": alias, "sample": nil, "query_location": json.Number("0"), "schema_name": schema, "table_name": name,
		"column_name_alias": []any{}, "catalog_name": "", "at_clause": nil}
}

// aliased is a copy of n under another name.
func aliased(n node, alias string) node {
	c := cloneNode(n)
	c["alias"] = alias
	return c
}
