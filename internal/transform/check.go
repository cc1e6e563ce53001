package transform

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// node is one object of DuckDB's syntax tree as json_serialize_sql writes it.
// Numbers are json.Number, so that none loses digits on the way.
type node = map[string]any

func str(n node, key string) string { s, _ := n[key].(string); return s }

func child(n node, key string) node { c, _ := n[key].(node); return c }

func list(n node, key string) []any { l, _ := n[key].([]any); return l }

// parseTree reads the answer of json_serialize_sql: the one SELECT of sql.
func parseTree(sql, text string) (node, error) {
	var out struct {
		Error      bool   `json:"error"`
		Type       string `json:"error_type"`
		Message    string `json:"error_message"`
		Position   string `json:"position"`
		Statements []node `json:"statements"`
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		return nil, &StatementError{"the statement holds a value that has no exact form", 0, sql}
	}
	if out.Error {
		e := &StatementError{out.Message, 0, sql}
		if out.Type == "not implemented" {
			e.Message = "want one SELECT: " + out.Message
		}
		if n, err := strconv.Atoi(out.Position); err == nil && n >= 0 && n < len(sql) {
			e.Position = n + 1
		}
		return nil, e
	}
	if len(out.Statements) != 1 {
		return nil, &StatementError{"want exactly one SELECT", 0, sql}
	}
	return out.Statements[0], nil
}

// treeText is the inverse: the argument of json_deserialize_sql.
func treeText(tree node) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(node{"error": false, "statements": []any{tree}})
	return b.String(), err
}

// item is one element of the select list.
type item struct {
	name string
	expr node
}

// selection is a statement that was checked.
type selection struct {
	alias string // of the table
	items []item
	where node // nil: none
	// readsJSON is set if numbers of the record's text are read by JSON
	// functions.
	readsJSON bool
}

// checker checks a tree against what a transform may be: one row out for at
// most one row in, the same at every replay.
type checker struct {
	d     *definition
	sql   string
	alias string // of the table
	out   selection
}

func (c *checker) refuse(position int, format string, args ...any) error {
	if position > len(c.sql) {
		position = 0
	}
	return &StatementError{fmt.Sprintf(format, args...), position, c.sql}
}

// place is the node's byte offset plus one, or 0.
func place(n node) int {
	l, _ := n["query_location"].(json.Number)
	if v, err := strconv.ParseInt(string(l), 10, 32); err == nil {
		return int(v) + 1
	}
	return 0
}

// check checks the statement's tree.
func (c *checker) check(tree node) (*selection, error) {
	n := child(tree, "node")
	switch str(n, "type") {
	case "SELECT_NODE":
	case "SET_OPERATION_NODE":
		return nil, c.refuse(c.d.keyword("union", "intersect", "except"), "a set operation is refused: one record gives at most one")
	default:
		return nil, c.refuse(c.d.keyword("with"), "WITH is refused: put the expression where it is used")
	}
	if m := child(n, "cte_map"); len(list(m, "map")) > 0 {
		return nil, c.refuse(c.d.keyword("with"), "WITH is refused: put the expression where it is used")
	}
	if err := c.clauses(n); err != nil {
		return nil, err
	}
	if err := c.from(child(n, "from_table")); err != nil {
		return nil, err
	}
	for _, x := range list(n, "select_list") {
		if err := c.item(x.(node)); err != nil {
			return nil, err
		}
	}
	if w := child(n, "where_clause"); w != nil {
		if err := c.expression(w); err != nil {
			return nil, err
		}
		c.out.where = w
	}
	return &c.out, nil
}

// clauses refuses what makes of many rows fewer, others or another order.
func (c *checker) clauses(n node) error {
	for _, m := range list(n, "modifiers") {
		switch str(m.(node), "type") {
		case "DISTINCT_MODIFIER":
			return c.refuse(c.d.keyword("distinct"), "DISTINCT is refused: each record is looked at alone")
		case "ORDER_MODIFIER":
			return c.refuse(c.d.keyword("order"), "ORDER BY is refused: records keep their order")
		default:
			return c.refuse(c.d.keyword("limit", "offset", "fetch"), "LIMIT and OFFSET are refused: each record is looked at alone")
		}
	}
	switch {
	case len(list(n, "group_expressions")) > 0, len(list(n, "group_sets")) > 0, str(n, "aggregate_handling") != "STANDARD_HANDLING":
		return c.refuse(c.d.keyword("group"), "GROUP BY is refused: each record is looked at alone")
	case n["having"] != nil:
		return c.refuse(c.d.keyword("having"), "HAVING is refused: each record is looked at alone; use WHERE")
	case n["qualify"] != nil:
		return c.refuse(c.d.keyword("qualify"), "QUALIFY is refused: each record is looked at alone; use WHERE")
	case n["sample"] != nil:
		return c.refuse(c.d.keyword("sample", "tablesample", "using"), "a sample is refused: a replay must give the same")
	}
	return nil
}

func (c *checker) from(n node) error {
	at := c.d.keyword("from")
	switch str(n, "type") {
	case "BASE_TABLE":
	case "EMPTY":
		return c.refuse(0, "the statement reads nothing: write FROM %s, with the columns to read or without", table)
	case "JOIN":
		return c.refuse(at, "a join is refused: a transform reads %s only", table)
	case "SUBQUERY":
		return c.refuse(at, "a subquery is refused: a transform reads %s only", table)
	case "TABLE_FUNCTION":
		return c.refuse(at, "a table function is refused: a transform reads %s only", table)
	case "EXPRESSION_LIST":
		return c.refuse(c.d.keyword("values"), "VALUES is refused: a transform reads %s only", table)
	default:
		return c.refuse(at, "a transform reads %s only", table)
	}
	name := str(n, "table_name")
	switch {
	case str(n, "schema_name") != "" || str(n, "catalog_name") != "" || !strings.EqualFold(name, table):
		return c.refuse(at, "the table %q is refused: a transform reads %s only", name, table)
	case n["at_clause"] != nil:
		return c.refuse(at, "AT is refused: a transform reads %s only", table)
	case n["sample"] != nil:
		return c.refuse(at, "a sample is refused: a replay must give the same")
	case len(list(n, "column_name_alias")) > 0:
		return c.refuse(at, "columns are declared with their types: FROM %s AS r(symbol varchar, …)", table)
	}
	c.alias = name
	if a := str(n, "alias"); a != "" {
		c.alias = a
	}
	c.out.alias = c.alias
	return nil
}

// item checks one element of the select list and names it.
func (c *checker) item(n node) error {
	if str(n, "class") == "STAR" {
		if n["expr"] != nil || n["columns"] == true || len(list(n, "exclude_list"))+len(list(n, "qualified_exclude_list"))+len(list(n, "replace_list"))+len(list(n, "rename_list")) > 0 {
			return c.refuse(place(n), "of the forms of *, only * and %s.* are supported", c.alias)
		}
		if r := str(n, "relation_name"); r != "" && !strings.EqualFold(r, c.alias) {
			return c.refuse(place(n), "there is no table %q: a transform reads %s only", r, table)
		}
		for _, f := range c.d.columns {
			if err := c.add(f.Name, node{"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "query_location": n["query_location"], "column_names": []any{f.Name}}); err != nil {
				return err
			}
		}
		return nil
	}
	if err := c.expression(n); err != nil {
		return err
	}
	name := str(n, "alias")
	if name == "" && str(n, "class") == "COLUMN_REF" {
		names := list(n, "column_names")
		name, _ = names[len(names)-1].(string)
		// As it is declared: members' names have a case.
		name = c.d.columns[c.column(name)].Name
	}
	if name == "" {
		return c.refuse(place(n), "element %d of the select list has no name: give it one with AS", len(c.out.items)+1)
	}
	return c.add(name, n)
}

func (c *checker) add(name string, n node) error {
	if slices.ContainsFunc(c.out.items, func(i item) bool { return i.name == name }) {
		return c.refuse(place(n), "the name %q stands twice in the select list", name)
	}
	c.out.items = append(c.out.items, item{name, n})
	return nil
}

// column is the index of the declared column of that name, or -1.
func (c *checker) column(name string) int {
	for i, f := range c.d.columns {
		if strings.EqualFold(f.Name, name) {
			return i
		}
	}
	return -1
}

// expression checks n and everything below it.
func (c *checker) expression(n node) error {
	switch class := str(n, "class"); class {
	case "BETWEEN", "CASE", "COMPARISON", "CONJUNCTION", "CONSTANT", "COLLATE":
	case "CAST":
		from := child(n, "child")
		read := str(from, "class") == "LAMBDA" || jsonValues[strings.ToLower(str(from, "function_name"))]
		if read && str(child(n, "cast_type"), "id") == "DECIMAL" {
			return c.refuse(place(n), "a JSON number is a double on its way to a decimal: cast its text, %s->>'member'", dataColumn)
		}
	case "COLUMN_REF":
		return c.reference(n)
	case "OPERATOR":
		if k := str(n, "type"); k == "GROUPING_FUNCTION" || k == "OPERATOR_UNPACK" {
			return c.refuse(place(n), "%s is refused", strings.ToLower(strings.ReplaceAll(k, "_", " ")))
		}
	case "FUNCTION":
		if err := c.function(n); err != nil {
			return err
		}
	case "LAMBDA":
		// data -> 'member': the parser cannot tell it from a lambda.
		if err := c.json("->", child(n, "lhs")); err != nil {
			return err
		}
	case "SUBQUERY":
		return c.refuse(place(n), "a subquery is refused: each record is looked at alone")
	case "WINDOW":
		return c.refuse(place(n), "the window function %s is refused: each record is looked at alone", str(n, "function_name"))
	case "PARAMETER":
		return c.refuse(place(n), "a parameter has no value in a transform")
	case "STAR":
		return c.refuse(place(n), "* stands alone in the select list")
	case "POSITIONAL_REFERENCE":
		return c.refuse(place(n), "name a column instead of its number")
	default:
		return c.refuse(place(n), "the expression %s is refused", strings.ToLower(strings.ReplaceAll(class, "_", " ")))
	}
	return c.below(n)
}

// below checks the expressions that stand under n, wherever the class of n
// keeps them.
func (c *checker) below(n node) error {
	for _, v := range n {
		if err := c.inside(v); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) inside(v any) error {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			if err := c.inside(x); err != nil {
				return err
			}
		}
	case node:
		if _, ok := v["class"].(string); ok {
			return c.expression(v)
		}
		return c.below(v)
	}
	return nil
}

// reference checks that n is a declared column: names that DuckDB would take
// for the clock or the session are no columns.
func (c *checker) reference(n node) error {
	var names []string
	for _, x := range list(n, "column_names") {
		s, _ := x.(string)
		names = append(names, s)
	}
	switch {
	case len(names) == 1 && c.column(names[0]) >= 0:
		return nil
	case len(names) == 2 && strings.EqualFold(names[0], c.alias) && c.column(names[1]) >= 0:
		return nil
	}
	name := strings.Join(names, ".")
	if why := refusedFunctions[strings.ToLower(name)]; why != "" {
		return c.refuse(place(n), "%s is refused: %s", name, why)
	}
	if !c.d.list {
		return c.refuse(place(n), "there is no column %q: without a column definition list the only column is %s; declare columns as in FROM %s AS r(%s varchar)", name, dataColumn, table, names[len(names)-1])
	}
	return c.refuse(place(n), "there is no column %q: declare it in the list behind FROM %s", name, table)
}

func (c *checker) function(n node) error {
	name := strings.ToLower(str(n, "function_name"))
	if why := refusedFunctions[name]; why != "" {
		return c.refuse(place(n), "the function %s is refused: %s", name, why)
	}
	if n["distinct"] == true || n["filter"] != nil || n["export_state"] == true || len(list(child(n, "order_bys"), "orders")) > 0 {
		return c.refuse(place(n), "the aggregate %s is refused: each record is looked at alone", name)
	}
	if s := str(n, "schema"); !rowFunctions[name] || s != "" && s != "main" || str(n, "catalog") != "" {
		return c.refuse(place(n), "the function %s is refused: it is none of those that give one value for one record (docs/transform.md)", name)
	}
	args := list(n, "children")
	if jsonReaders[name] {
		if len(args) == 0 {
			return c.refuse(place(n), "the function %s lacks its argument", name)
		}
		first, _ := args[0].(node)
		if err := c.json(name, first); err != nil {
			return err
		}
	}
	for _, want := range constantArguments[name] {
		if len(args) <= want.at {
			continue // the binder says so, or its default is a constant
		}
		arg, _ := args[want.at].(node)
		if !want.met(arg) {
			if want.text {
				return c.refuse(place(n), "argument %d of the function %s must be a constant text of at most %d bytes", want.at+1, name, want.max)
			}
			return c.refuse(place(n), "argument %d of the function %s must be a constant number up to %d", want.at+1, name, want.max)
		}
	}
	return nil
}

// met reports whether n is the constant that is wanted.
func (want constantArgument) met(n node) bool {
	if str(n, "class") != "CONSTANT" {
		return false
	}
	value := child(n, "value")
	if value["is_null"] == true {
		return true
	}
	if want.text {
		s, ok := value["value"].(string)
		return ok && len(s) <= want.max
	}
	number, ok := value["value"].(json.Number)
	i, err := number.Int64()
	return ok && err == nil && i <= int64(want.max)
}

// json checks the first argument of a function that reads JSON.
func (c *checker) json(function string, n node) error {
	c.out.readsJSON = true
	for root := n; ; {
		switch class := str(root, "class"); {
		case class == "COLUMN_REF" && !c.d.list:
			return nil
		case class == "LAMBDA":
			root = child(root, "lhs")
			continue
		case class == "CAST" && strings.EqualFold(castName(root), "json"):
			root = child(root, "child")
			continue
		case class == "FUNCTION" && jsonReaders[strings.ToLower(str(root, "function_name"))]:
			if args := list(root, "children"); len(args) > 0 {
				root, _ = args[0].(node)
				continue
			}
		}
		return c.refuse(place(n), "%s reads JSON, numbers as doubles, and so from the text of the record only: FROM %s without a list, %s%s", function, table, dataColumn, map[bool]string{true: "->'member'", false: ""}[strings.HasPrefix(function, "->")])
	}
}

// castName is the name of the type that n casts to, where the parser leaves
// types to the binder.
func castName(n node) string {
	t := child(n, "cast_type")
	if name := str(child(t, "type_info"), "name"); name != "" {
		return name
	}
	return str(t, "id")
}
