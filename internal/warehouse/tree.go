package warehouse

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// A node is one object of DuckDB's syntax tree as json_serialize_sql writes
// it. Its numbers stay json.Number, because query_location and the halves of a
// HUGEINT do not fit a float64.
type node = map[string]any

// noLocation is what DuckDB writes for a node that stands nowhere in the text.
const noLocation = "18446744073709551615"

// parseTree reads the answer of json_serialize_sql: one SELECT statement.
func parseTree(data []byte) (node, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var root node
	if err := d.Decode(&root); err != nil {
		return nil, err
	}
	return root, nil
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

func flag(n node, key string) bool {
	b, _ := n[key].(bool)
	return b
}

func class(n node) string { return str(n, "class") }

// location is the byte offset of n in the parsed text, or -1.
func location(n node) int {
	v, ok := n["query_location"].(json.Number)
	if !ok || v.String() == noLocation {
		return -1
	}
	i, err := strconv.Atoi(v.String())
	if err != nil {
		return -1
	}
	return i
}

// clone copies a tree, so that an operand can stand twice.
func clone(v any) any {
	switch v := v.(type) {
	case node:
		c := make(node, len(v))
		for k, x := range v {
			c[k] = clone(x)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, x := range v {
			c[i] = clone(x)
		}
		return c
	}
	return v
}

func copyOf(n node) node { return clone(n).(node) }

func expression(class, kind string) node {
	return node{"class": class, "type": kind, "alias": "", "query_location": json.Number(noLocation)}
}

// call is a function call; an operator is a function too.
func call(name string, args ...node) node {
	n := expression("FUNCTION", "FUNCTION")
	children := make([]any, len(args))
	for i, a := range args {
		children[i] = bare(a)
	}
	n["function_name"], n["schema"], n["catalog"] = name, "", ""
	n["children"] = children
	n["filter"] = nil
	n["order_bys"] = node{"type": "ORDER_MODIFIER", "orders": []any{}}
	n["distinct"], n["is_operator"], n["export_state"] = false, strings.IndexByte(operatorBytes, name[0]) >= 0, false
	return n
}

// bare drops the alias of an expression that becomes a part of another.
func bare(n node) node {
	if str(n, "alias") == "" {
		return n
	}
	c := make(node, len(n))
	for k, v := range n {
		c[k] = v
	}
	c["alias"] = ""
	return c
}

func constant(id string, value any) node {
	n := expression("CONSTANT", "VALUE_CONSTANT")
	n["value"] = node{"type": node{"id": id, "type_info": nil}, "is_null": false, "value": value}
	return n
}

func stringConstant(s string) node { return constant("VARCHAR", s) }

func intConstant(i int64) node { return constant("BIGINT", json.Number(strconv.FormatInt(i, 10))) }

func nullConstant() node {
	n := expression("CONSTANT", "VALUE_CONSTANT")
	n["value"] = node{"type": node{"id": "NULL", "type_info": nil}, "is_null": true}
	return n
}

func boolConstant(b bool) node {
	if b {
		return castTo(stringConstant("t"), sqlType{kind: kindBool})
	}
	return castTo(stringConstant("f"), sqlType{kind: kindBool})
}

// numberConstant writes a decimal literal through a cast, which is exact at
// any width and folds to a constant.
func numberConstant(text string, t sqlType) node { return castTo(stringConstant(text), t) }

func castTo(n node, t sqlType) node {
	c := expression("CAST", "OPERATOR_CAST")
	c["child"], c["cast_type"], c["try_cast"] = bare(n), t.tree(), false
	return c
}

func comparison(kind string, left, right node) node {
	n := expression("COMPARISON", kind)
	n["left"], n["right"] = bare(left), bare(right)
	return n
}

func operatorNode(kind string, children ...node) node {
	n := expression("OPERATOR", kind)
	c := make([]any, len(children))
	for i := range children {
		c[i] = bare(children[i])
	}
	n["children"] = c
	return n
}

// caseNode is CASE WHEN w1 THEN t1 … ELSE e END.
func caseNode(otherwise node, whenThen ...node) node {
	n := expression("CASE", "CASE_EXPR")
	checks := make([]any, 0, len(whenThen)/2)
	for i := 0; i+1 < len(whenThen); i += 2 {
		checks = append(checks, node{"when_expr": bare(whenThen[i]), "then_expr": bare(whenThen[i+1])})
	}
	n["case_checks"], n["else_expr"] = checks, bare(otherwise)
	return n
}

// place gives n the alias and the location of the expression that it replaces.
func place(n, former node) node {
	if a := str(former, "alias"); a != "" && str(n, "alias") == "" {
		n["alias"] = a
	}
	if location(n) < 0 && former["query_location"] != nil {
		n["query_location"] = former["query_location"]
	}
	return n
}

// constantText answers the text of a non-null string constant.
func constantText(n node) (string, bool) {
	if class(n) != "CONSTANT" {
		return "", false
	}
	v := child(n, "value")
	if str(child(v, "type"), "id") != "VARCHAR" {
		return "", false
	}
	s, ok := v["value"].(string)
	return s, ok
}

// constantInt answers the value of a small integer constant.
func constantInt(n node) (int, bool) {
	if class(n) == "CAST" {
		return constantInt(child(n, "child"))
	}
	if class(n) != "CONSTANT" {
		return 0, false
	}
	v, ok := child(n, "value")["value"].(json.Number)
	if !ok || flag(child(n, "value"), "is_null") {
		return 0, false
	}
	if id := str(child(child(n, "value"), "type"), "id"); id == "DECIMAL" || id == "DOUBLE" || id == "FLOAT" {
		return 0, false
	}
	i, err := strconv.Atoi(v.String())
	return i, err == nil
}
