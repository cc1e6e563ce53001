package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A statement is never changed as text. DuckDB's own parser gives its syntax
// tree as JSON (json_serialize_sql, SELECT only), the tree is checked and
// rewritten here, and DuckDB turns it back to text (json_deserialize_sql). So
// there is no second idea of what quoting, comments or casing mean.

// object is one node of a syntax tree. Numbers are json.Number, so that none
// loses digits on the way.
type object = map[string]any

// statementMax bounds a statement's text, and so its tree.
const statementMax = 1 << 20

// parse returns the syntax tree of the one SELECT that sql holds.
func (c *conn) parse(ctx context.Context, sql string) (object, error) {
	if len(sql) > statementMax {
		return nil, &Error{Kind: Unsupported, Message: "the statement is longer than 1 MiB"}
	}
	if strings.IndexByte(sql, 0) >= 0 {
		return nil, &Error{Kind: Syntax, Message: "the statement contains a zero byte"}
	}
	text, err := c.convert(ctx, &c.serialize, "SELECT json_serialize_sql($1::VARCHAR)", sql)
	if err != nil {
		return nil, err
	}
	var out struct {
		Error      bool     `json:"error"`
		Type       string   `json:"error_type"`
		Message    string   `json:"error_message"`
		Position   string   `json:"position"`
		Statements []object `json:"statements"`
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		return nil, &Error{Kind: Unsupported, Message: "the statement holds a value that has no exact form"}
	}
	if out.Error {
		e := &Error{Kind: Syntax, Message: cleanMessage(out.Message)}
		if out.Type == "not implemented" {
			e.Kind = Unsupported
		}
		if n, err := strconv.Atoi(out.Position); err == nil {
			e.Position = n + 1
		}
		return nil, e
	}
	if len(out.Statements) != 1 {
		return nil, &Error{Kind: Syntax, Message: "want exactly one statement"}
	}
	return out.Statements[0], nil
}

// render is the inverse of parse.
func (c *conn) render(ctx context.Context, tree object) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(object{"error": false, "statements": []object{tree}}); err != nil {
		return "", &Error{Kind: Internal, Message: "encode a syntax tree: " + err.Error()}
	}
	return c.convert(ctx, &c.deserialize, "SELECT json_deserialize_sql($1::JSON)", b.String())
}

// convert runs one of the parser's statements, VARCHAR to VARCHAR.
func (c *conn) convert(ctx context.Context, s **stmt, sql, arg string) (string, error) {
	if *s == nil {
		p, err := c.prepare(ctx, sql)
		if err != nil {
			return "", err
		}
		*s = p
	}
	if err := (*s).bind([]any{arg}); err != nil {
		return "", err
	}
	st, err := (*s).stream(ctx)
	if err != nil {
		return "", err
	}
	defer st.close()
	row := make([]any, 1)
	if err := st.next(row); err != nil {
		if errors.Is(err, io.EOF) {
			return "", &Error{Kind: Internal, Message: "the parser returned nothing"}
		}
		return "", err
	}
	out, _ := row[0].(string)
	if err := st.next(row); !errors.Is(err, io.EOF) {
		return "", errors.Join(&Error{Kind: Internal, Message: "the parser returned two rows"}, err)
	}
	return out, nil
}

// position is the node's byte offset plus one, or 0.
func position(n object) int {
	l, _ := n["query_location"].(json.Number)
	if v, err := strconv.ParseInt(string(l), 10, 32); err == nil {
		return int(v) + 1
	}
	return 0
}

func str(n object, key string) string {
	s, _ := n[key].(string)
	return s
}

// scope is the set of common table expressions visible at a node.
type scope struct {
	name  string // in lower case
	outer *scope
}

func (s *scope) has(name string) bool {
	for ; s != nil; s = s.outer {
		if s.name == name {
			return true
		}
	}
	return false
}

// rewriter walks a tree once: it checks it against the allow-list, replaces
// every table reference, and types the parameters.
type rewriter struct {
	trusted bool // the allow-list does not apply; names are resolved all the same
	// table gives a table reference its DuckDB name. A nil field accepts
	// every name and leaves the tree alone.
	table  func(schema, name string, position int) (catalog, duckSchema, duckName string, err error)
	params []Type
	// bound, if not nil, means that the tree is rewritten already: the tables
	// that it may name, as catalog, schema and name.
	bound map[[3]string]bool

	inferred map[int]Type // of $i, from CAST($i AS t)
	products []product    // that the statement calls

	dotted []object        // column references of three or more parts
	plain  map[string]bool // "schema.table", in lower case, of tables without an alias
}

func (r *rewriter) deny(what string, n object) error {
	return &DeniedError{What: what, Position: position(n)}
}

// statement rewrites tree in place.
func (r *rewriter) statement(tree object) error {
	r.plain = map[string]bool{}
	if _, err := r.walk(tree, nil); err != nil {
		return err
	}
	for _, n := range r.dotted {
		// "schema"."table"."column": the table is known by its alias, its own name.
		names := n["column_names"].([]any)
		a, _ := names[0].(string)
		b, _ := names[1].(string)
		if r.plain[strings.ToLower(a+"."+b)] {
			n["column_names"] = names[1:]
		}
	}
	return nil
}

// walk checks and rewrites v, and returns what stands in its place.
func (r *rewriter) walk(v any, s *scope) (any, error) {
	switch v := v.(type) {
	case []any:
		for i := range v {
			w, err := r.walk(v[i], s)
			if err != nil {
				return nil, err
			}
			v[i] = w
		}
		return v, nil
	case object:
		return r.node(v, s)
	}
	return v, nil
}

func (r *rewriter) members(n object, s *scope, except ...string) error {
next:
	for k, v := range n {
		for _, e := range except {
			if k == e {
				continue next
			}
		}
		switch v.(type) {
		case []any, object:
		default:
			continue
		}
		w, err := r.walk(v, s)
		if err != nil {
			return err
		}
		n[k] = w
	}
	return nil
}

func (r *rewriter) node(n object, s *scope) (any, error) {
	if class, ok := n["class"].(string); ok {
		return r.expression(class, n, s)
	}
	kind, ok := n["type"].(string)
	if !ok {
		return n, r.members(n, s)
	}
	if !r.trusted && !nodesAllowed[kind] {
		return nil, r.deny(nodeName(kind), n)
	}
	switch kind {
	case "SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE":
		inner, err := r.ctes(n, s)
		if err != nil {
			return nil, err
		}
		return n, r.members(n, inner, "cte_map")
	case "BASE_TABLE":
		if err := r.baseTable(n, s); err != nil {
			return nil, err
		}
		return n, r.members(n, s)
	case "TABLE_FUNCTION":
		f, _ := n["function"].(object)
		if f == nil || str(f, "class") != "FUNCTION" {
			return nil, r.deny("a table function that is no call", n)
		}
		if name := strings.ToLower(str(f, "function_name")); !r.trusted && !tableFunctionsAllowed[name] {
			return nil, r.deny("table function "+name, f)
		}
		if err := r.members(f, s); err != nil {
			return nil, err
		}
		return n, r.members(n, s, "function")
	case "UNBOUND_TYPE_INFO":
		if name := strings.ToLower(str(n, "name")); !r.trusted && (!typesByNameAllowed[name] || str(n, "schema") != "" || str(n, "catalog") != "") {
			return nil, &Error{Kind: Catalog, Message: "type " + strconv.Quote(str(n, "name")) + " does not exist"}
		}
	}
	return n, r.members(n, s)
}

func nodeName(kind string) string {
	switch kind {
	case "SHOW_REF":
		return "DESCRIBE, SHOW or SUMMARIZE"
	case "PIVOT":
		return "PIVOT"
	}
	return "construct " + strings.ToLower(strings.ReplaceAll(kind, "_", " "))
}

// ctes walks the WITH clause of n and returns the scope of n's other members.
// A common table expression sees those before it, and itself only if it is
// recursive.
func (r *rewriter) ctes(n object, s *scope) (*scope, error) {
	m, _ := n["cte_map"].(object)
	list, _ := m["map"].([]any)
	for _, e := range list {
		entry, _ := e.(object)
		name := strings.ToLower(str(entry, "key"))
		// No replacement scan can take such a name for a file, should DuckDB
		// ever see its scope otherwise than we do.
		if !r.trusted && strings.ContainsAny(name, `./\:*?[`) {
			return nil, &DeniedError{What: "a WITH query named " + strconv.Quote(name)}
		}
		value, _ := entry["value"].(object)
		query, _ := value["query"].(object)
		body, _ := query["node"].(object)
		inner := s
		if str(body, "type") == "RECURSIVE_CTE_NODE" {
			inner = &scope{name, s}
		}
		if err := r.members(value, inner); err != nil {
			return nil, err
		}
		s = &scope{name, s}
	}
	return s, nil
}

func (r *rewriter) baseTable(n object, s *scope) error {
	schema, name := str(n, "schema_name"), str(n, "table_name")
	if n["at_clause"] != nil {
		return r.deny("AT: a tag or snapshot is chosen when the tables are pinned", n)
	}
	if r.bound != nil && str(n, "catalog_name") != "" {
		if !r.bound[[3]string{str(n, "catalog_name"), schema, name}] {
			return r.deny("a table that is not pinned", n)
		}
		return nil
	}
	if str(n, "catalog_name") != "" {
		return &Error{Kind: Catalog, Message: "relation " + strconv.Quote(str(n, "catalog_name")+"."+schema+"."+name) + " does not exist", Position: position(n)}
	}
	if schema == "" && s.has(strings.ToLower(name)) {
		return nil
	}
	if r.bound != nil {
		return r.deny("a table that is not pinned", n)
	}
	if r.table == nil {
		return nil
	}
	c, ds, dn, err := r.table(schema, name, position(n))
	if err != nil {
		return err
	}
	if str(n, "alias") == "" {
		n["alias"] = name
		r.plain[strings.ToLower(schema+"."+name)] = true
	}
	n["catalog_name"], n["schema_name"], n["table_name"] = c, ds, dn
	return nil
}

func (r *rewriter) expression(class string, n object, s *scope) (any, error) {
	if !r.trusted && !expressionsAllowed[class] {
		return nil, r.deny("expression "+strings.ToLower(class), n)
	}
	switch class {
	case "FUNCTION", "WINDOW":
		name := strings.ToLower(str(n, "function_name"))
		// A window function without a name of its own is told by its type.
		if p, ok := productOf(name); ok {
			r.products = append(r.products, p)
		} else if !r.trusted && name != "" && !functionsAllowed[name] {
			return nil, r.deny("function "+name, n)
		}
		if !r.trusted && (class == "FUNCTION" && name == "" || n["export_state"] == true) {
			return nil, r.deny("a function without a name", n)
		}
	case "COLUMN_REF":
		if names, _ := n["column_names"].([]any); len(names) > 2 {
			r.dotted = append(r.dotted, n)
		}
	case "PARAMETER":
		i, err := strconv.Atoi(str(n, "identifier"))
		if err != nil || i < 1 {
			return nil, &Error{Kind: Syntax, Message: "parameters are $1, $2, …", Position: position(n)}
		}
		if i <= len(r.params) {
			if t := r.params[i-1]; t.Kind != Unknown {
				c := castNode(n, t)
				c["alias"], n["alias"] = n["alias"], ""
				return c, nil
			}
		}
	case "CAST":
		if p, _ := n["child"].(object); isParameter(p) {
			if i, err := strconv.Atoi(str(p, "identifier")); err == nil {
				if t := typeFromNode(n["cast_type"]); t.Kind != Unknown {
					if r.inferred == nil {
						r.inferred = map[int]Type{}
					}
					r.inferred[i] = t
				}
			}
		}
	}
	return n, r.members(n, s)
}

const nowhere = json.Number("18446744073709551615")

// castNode is CAST(child AS t).
func castNode(child any, t Type) object {
	return object{"class": "CAST", "type": "OPERATOR_CAST", "alias": "", "query_location": nowhere, "child": child, "cast_type": typeNode(t), "try_cast": false}
}

// typeFromNode is the inverse of typeNode, Unknown for other types.
func typeFromNode(v any) Type {
	n, _ := v.(object)
	id := str(n, "id")
	if id == "DECIMAL" {
		info, _ := n["type_info"].(object)
		w, _ := info["width"].(json.Number)
		s, _ := info["scale"].(json.Number)
		p, err1 := w.Int64()
		q, err2 := s.Int64()
		if err1 == nil && err2 == nil {
			return Type{Numeric, int(p), int(q)}
		}
	}
	for k, name := range typeSQL {
		if name == id && k != Null && k != Nested {
			return Type{Kind: k}
		}
	}
	return Type{}
}

func typeNode(t Type) object {
	if t.Kind == Numeric {
		p := t.Precision
		if p == 0 {
			p = 38
		}
		return object{"id": "DECIMAL", "type_info": object{"type": "DECIMAL_TYPE_INFO", "alias": "", "extension_info": nil, "width": p, "scale": t.Scale}}
	}
	return object{"id": t.SQL(), "type_info": nil}
}

// walkSorted calls fn for every node of v, members in the order of their keys,
// so that equal trees are visited alike.
func walkSorted(v any, fn func(object)) {
	switch v := v.(type) {
	case []any:
		for i := range v {
			walkSorted(v[i], fn)
		}
	case object:
		fn(v)
		for _, k := range slices.Sorted(maps.Keys(v)) {
			walkSorted(v[k], fn)
		}
	}
}
