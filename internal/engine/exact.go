package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// Exact arithmetic. In DuckDB decimal / and avg are DOUBLE. What a division
// should be depends on its operands' types, which only the binder knows, so:
//
//  1. every a / b becomes tapehouse_divide(a, b), and every avg(x)
//     tapehouse_avg(sum(x), count(x)), whose overloads for integers are right
//     already and whose overload for anything else stands for DOUBLE;
//  2. DuckDB binds the statement and says, as JSON (json_serialize_plan), which
//     types the operands of each call have; a call is found again by its
//     position in the text;
//  3. calls on decimals become tapehouse_div_L_R_S of their scales. What
//     depends on them has new types now, so from 2 again until nothing changes;
//  4. what is left has a floating-point operand and becomes
//     tapehouse_divide_float, or, for intervals and text, DuckDB's own /.
//
// Result types are Redshift's: of DECIMAL(p1,s1) / DECIMAL(p2,s2) the scale is
// max(4, s1+p2-s2+1) and the precision p1-s1+s2+scale; above 38 digits the
// scale gives way down to 4. avg of DECIMAL(p,s) is DECIMAL(38,s), of integers
// a truncated BIGINT. Integers divide to the wider of the two types.

// exactPasses bounds how deep divisions may depend on each other.
const exactPasses = 32

// exact returns the statement, whose tree and text are given, with exact
// divisions.
func (e *Engine) exact(ctx context.Context, c *conn, tree object, text string) (object, string, error) {
	if !strings.Contains(text, "/") && !strings.Contains(strings.ToLower(text), "avg") {
		return tree, text, nil
	}
	x := &exactRewriter{e: e, c: c}
	x.replace(tree)
	if !x.changed {
		return tree, text, nil
	}
	if err := e.divisions.prepare(c); err != nil {
		return nil, "", err
	}
	for pass := 0; ; pass++ {
		var err error
		if text, err = c.render(ctx, tree); err != nil {
			return nil, "", err
		}
		if tree, err = c.parse(ctx, text); err != nil {
			return nil, "", err
		}
		operands, err := x.operands(ctx, tree, text)
		if err != nil {
			return nil, "", err
		}
		x.changed, x.failed = false, nil
		x.resolve(tree, operands, false)
		if x.failed != nil {
			return nil, "", x.failed
		}
		if x.changed {
			if pass == exactPasses {
				return nil, "", &Error{Kind: Unsupported, Message: fmt.Sprintf("more than %d divisions depend on each other; cast an intermediate result", exactPasses)}
			}
			continue
		}
		x.resolve(tree, operands, true)
		if x.failed != nil {
			return nil, "", x.failed
		}
		if !x.changed {
			return tree, text, nil
		}
		text, err = c.render(ctx, tree)
		return tree, text, err
	}
}

type exactRewriter struct {
	e       *Engine
	c       *conn
	changed bool
	failed  error
}

// replace is step 1.
func (x *exactRewriter) replace(v any) {
	switch v := v.(type) {
	case []any:
		for i := range v {
			x.replace(v[i])
		}
	case object:
		for _, m := range v {
			x.replace(m)
		}
		if list, ok := v["select_list"].([]any); ok {
			nameColumns(list)
		}
		name := strings.ToLower(str(v, "function_name"))
		args, _ := v["children"].([]any)
		switch class := str(v, "class"); {
		case class == "FUNCTION" && (name == "/" || name == "divide") && len(args) == 2:
			setCall(v, divideName, args)
			x.changed = true
		case (class == "FUNCTION" || class == "WINDOW") && (name == "avg" || name == "mean") && len(args) == 1:
			sum, count := clone(v).(object), clone(v).(object)
			sum["function_name"], count["function_name"] = "sum", "count"
			sum["alias"], count["alias"] = "", ""
			alias := v["alias"]
			clear(v)
			v["alias"], v["query_location"] = alias, nowhere
			setCall(v, averageName, []any{sum, count})
			x.changed = true
		}
	}
}

// nameColumns keeps the names that a rewritten expression would have had
// without an alias, as PostgreSQL gives them.
func nameColumns(list []any) {
	for _, item := range list {
		n, _ := item.(object)
		if n == nil || str(n, "alias") != "" {
			continue
		}
		switch str(n, "function_name") {
		case divideName:
			n["alias"] = "?column?"
		case averageName:
			n["alias"] = "avg"
		}
	}
}

func setCall(n object, name string, args []any) {
	n["class"], n["type"] = "FUNCTION", "FUNCTION"
	n["function_name"], n["schema"], n["catalog"] = name, "", ""
	n["children"], n["is_operator"], n["distinct"], n["export_state"] = args, false, false, false
	n["filter"], n["order_bys"] = nil, object{"type": "ORDER_MODIFIER", "orders": []any{}}
}

func clone(v any) any {
	switch v := v.(type) {
	case []any:
		c := make([]any, len(v))
		for i := range v {
			c[i] = clone(v[i])
		}
		return c
	case object:
		c := make(object, len(v))
		for k, m := range v {
			c[k] = clone(m)
		}
		return c
	}
	return v
}

// operandTypes are the two types of a call.
type operandTypes [2]boundType

// boundType is a type in a plan. ok is false for types that do not matter
// here.
type boundType struct {
	t    Type
	huge bool // a HUGEINT, an integer in spite of its kind
	ok   bool

	narrow bool // TINYINT or unsigned: no overload takes it as it is

	literal bool // a quoted constant, which takes the other operand's type
}

// calls maps a call to its operands' types, by position and, for the
// occurrences that the binder merged with an equal one, by shape.
type calls struct {
	at    map[string]operandTypes
	shape map[string]*operandTypes // nil: equal calls of different types
}

func (cs *calls) of(n object) (operandTypes, bool) {
	if t, ok := cs.at[str2(n["query_location"])]; ok {
		return t, true
	}
	if t := cs.shape[shape(n)]; t != nil {
		return *t, true
	}
	return operandTypes{}, false
}

func str2(v any) string { n, _ := v.(json.Number); return string(n) }

func isCall(n object) bool {
	name := str(n, "function_name")
	return str(n, "class") == "FUNCTION" && (name == divideName || name == averageName)
}

// shape is n without its positions and its alias.
func shape(n object) string {
	c := clone(n).(object)
	c["alias"] = ""
	unplace(c)
	b, _ := json.Marshal(c) // it was decoded from JSON
	return string(b)
}

func unplace(v any) {
	switch v := v.(type) {
	case []any:
		for i := range v {
			unplace(v[i])
		}
	case object:
		delete(v, "query_location")
		for _, m := range v {
			unplace(m)
		}
	}
}

// operands is step 2.
func (x *exactRewriter) operands(ctx context.Context, tree object, text string) (*calls, error) {
	if strings.Contains(text, "$") {
		return x.operandsOfParameters(ctx, tree)
	}
	plan, err := x.plan(ctx, text)
	if err != nil {
		return nil, err
	}
	at := map[string]operandTypes{}
	collect(plan, at)
	return withShapes(tree, at), nil
}

// operandsOfParameters plans a copy of tree with constants for parameters,
// which a plan cannot have, and finds its calls in the same places of tree.
func (x *exactRewriter) operandsOfParameters(ctx context.Context, tree object) (*calls, error) {
	text, err := x.c.render(ctx, withoutParameters(clone(tree), "").(object))
	if err != nil {
		return nil, err
	}
	copied, err := x.c.parse(ctx, text)
	if err != nil {
		return nil, err
	}
	plan, err := x.plan(ctx, text)
	if err != nil {
		return nil, err
	}
	at := map[string]operandTypes{}
	collect(plan, at)
	found := withShapes(copied, at)
	own := map[string]operandTypes{}
	pair(tree, copied, func(here, there object) {
		if !isCall(here) {
			return
		}
		if t, ok := found.of(there); ok {
			own[str2(here["query_location"])] = t
		}
	})
	return withShapes(tree, own), nil
}

// withoutParameters puts constants of the right types in place of parameters:
// not NULLs, which the binder would fold calls over. An operand without a type
// takes the other operand's.
func withoutParameters(v any, t string) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = withoutParameters(v[i], "")
		}
	case object:
		if isParameter(v) {
			return object{"class": "CONSTANT", "type": "VALUE_CONSTANT", "alias": "", "query_location": nowhere,
				"value": object{"type": object{"id": "VARCHAR", "type_info": nil}, "is_null": false, "value": sampleText(t)}}
		}
		if args, _ := v["children"].([]any); isCall(v) && len(args) == 2 {
			switch {
			case isParameter(args[0]) && !isParameter(args[1]):
				args[0] = clone(args[1])
			case isParameter(args[1]) && !isParameter(args[0]):
				args[1] = clone(args[0])
			}
		}
		castType, _ := v["cast_type"].(object)
		for k, m := range v {
			v[k] = withoutParameters(m, str(castType, "id"))
		}
	}
	return v
}

func isParameter(v any) bool {
	n, _ := v.(object)
	return str(n, "class") == "PARAMETER"
}

// sampleText is a text that casts to the type.
func sampleText(id string) string {
	switch {
	case id == "DATE" || strings.HasPrefix(id, "TIMESTAMP"):
		return "2000-01-01"
	case strings.HasPrefix(id, "TIME"):
		return "00:00:00"
	case id == "INTERVAL":
		return "1 day"
	}
	return "1"
}

// pair calls fn for the nodes of a and those of b in the same places. What
// stands in b for a parameter of a is skipped.
func pair(a, b any, fn func(a, b object)) {
	if isParameter(a) {
		return
	}
	switch a := a.(type) {
	case []any:
		b, _ := b.([]any)
		for i := range min(len(a), len(b)) {
			pair(a[i], b[i], fn)
		}
	case object:
		b, _ := b.(object)
		if b == nil {
			return
		}
		fn(a, b)
		for k := range a {
			pair(a[k], b[k], fn)
		}
	}
}

func withShapes(tree object, at map[string]operandTypes) *calls {
	cs := &calls{at: at, shape: map[string]*operandTypes{}}
	walkSorted(tree, func(n object) {
		if !isCall(n) {
			return
		}
		t, ok := at[str2(n["query_location"])]
		if !ok {
			return
		}
		s := shape(n)
		if old, seen := cs.shape[s]; seen && (old == nil || *old != t) {
			cs.shape[s] = nil
			return
		}
		cs.shape[s] = &t
	})
	return cs
}

func (x *exactRewriter) plan(ctx context.Context, text string) (any, error) {
	out, err := x.c.strings(ctx, "SELECT json_serialize_plan("+QuoteLiteral(text)+")")
	if err != nil {
		return nil, err
	}
	var p struct {
		Error   bool   `json:"error"`
		Type    string `json:"error_type"`
		Message string `json:"error_message"`
		Pos     string `json:"position"`
		Plans   any    `json:"plans"`
	}
	d := json.NewDecoder(strings.NewReader(strings.Join(out, "")))
	d.UseNumber()
	if err := d.Decode(&p); err != nil {
		return nil, &Error{Kind: Unsupported, Message: "the statement's plan has no exact form"}
	}
	if p.Error {
		m, _ := json.Marshal(map[string]string{"exception_type": planErrorType(p.Type), "exception_message": p.Message, "position": p.Pos}) // strings marshal
		return nil, duckError(ctx, string(m))
	}
	return p.Plans, nil
}

// planErrorType is the exception's type as errors_as_json has it.
func planErrorType(t string) string {
	for k := range duckKinds {
		if strings.EqualFold(k, t) {
			return k
		}
	}
	return t
}

// collect finds the calls in a plan.
func collect(v any, at map[string]operandTypes) {
	switch v := v.(type) {
	case []any:
		for i := range v {
			collect(v[i], at)
		}
	case object:
		if name := str(v, "name"); name == divideName || name == averageName {
			if args, _ := v["children"].([]any); len(args) == 2 {
				at[str2(v["query_location"])] = operandTypes{returnType(args[0]), returnType(args[1])}
			}
		}
		for _, m := range v {
			collect(m, at)
		}
	}
}

// returnType is the type of a bound expression.
func returnType(v any) boundType {
	n, _ := v.(object)
	t, _ := n["return_type"].(object)
	if t == nil {
		value, _ := n["value"].(object)
		t, _ = value["type"].(object)
	}
	if t == nil {
		return boundType{}
	}
	info, _ := t["type_info"].(object)
	kind, ok := map[string]Type{"TINYINT": {Kind: SmallInt}, "SMALLINT": {Kind: SmallInt}, "UTINYINT": {Kind: SmallInt}, "INTEGER": {Kind: Integer}, "USMALLINT": {Kind: Integer},
		"BIGINT": {Kind: BigInt}, "UINTEGER": {Kind: BigInt}, "UBIGINT": {Numeric, 20, 0}, "HUGEINT": {Numeric, 38, 0}, "UHUGEINT": {Numeric, 38, 0}, "INTEGER_LITERAL": {Kind: Integer},
		"FLOAT": {Kind: Real}, "DOUBLE": {Kind: Double}, "INTERVAL": {Kind: IntervalType}, "NULL": {Kind: Null}}[str(t, "id")]
	if str(t, "id") == "DECIMAL" {
		w, _ := info["width"].(json.Number)
		s, _ := info["scale"].(json.Number)
		p, err1 := w.Int64()
		q, err2 := s.Int64()
		return boundType{t: Type{Numeric, int(p), int(q)}, ok: err1 == nil && err2 == nil}
	}
	id := str(t, "id")
	if (id == "VARCHAR" || id == "STRING_LITERAL") && str(n, "expression_class") == "BOUND_CONSTANT" {
		return boundType{literal: true}
	}
	return boundType{t: kind, huge: id == "HUGEINT", narrow: id == "TINYINT" || kind.Kind <= BigInt && strings.HasPrefix(id, "U"), ok: ok}
}

// decimalOf is the decimal that an integer operand counts as.
func decimalOf(t Type) (p, s int, ok bool) {
	switch t.Kind {
	case SmallInt:
		return 5, 0, true
	case Integer:
		return 10, 0, true
	case BigInt:
		return 19, 0, true
	case Numeric:
		return t.Precision, t.Scale, true
	}
	return 0, 0, false
}

// open reports whether b takes the other operand's type.
func (b boundType) open() bool { return b.literal || b.ok && b.t.Kind == Null }

func (b boundType) integer() bool { return b.huge || b.t.Kind >= SmallInt && b.t.Kind <= BigInt }

// resolve is steps 3 and, if last, 4.
func (x *exactRewriter) resolve(v any, cs *calls, last bool) {
	switch v := v.(type) {
	case []any:
		for i := range v {
			x.resolve(v[i], cs, last)
		}
	case object:
		// Looked up before the operands change: its shape is that of the tree
		// that was bound. Rewritten after them, for it may move them.
		var t operandTypes
		found := false
		if isCall(v) {
			t, found = cs.of(v)
		}
		for _, m := range v {
			x.resolve(m, cs, last)
		}
		if found && x.failed == nil {
			x.call(v, t, last)
		}
	}
}

// call rewrites one call if its operands are known to be exact, or in any case
// if it is the last pass.
func (x *exactRewriter) call(n object, types operandTypes, last bool) {
	left, right := types[0], types[1]
	average := str(n, "function_name") == averageName
	if left.open() {
		left, left.narrow = right, true
	} else if right.open() {
		right, right.narrow = left, true
	}
	args := n["children"].([]any)
	p1, s1, ok1 := decimalOf(left.t)
	p2, s2, ok2 := decimalOf(right.t)
	switch {
	case left.ok && right.ok && ok1 && ok2:
		if left.integer() && right.integer() {
			// The overload for integers is the division itself.
			for i, o := range []boundType{left, right} {
				if isParameter(args[i]) || o.narrow {
					args[i] = castNode(args[i], o.t)
					x.changed = true
				}
			}
			return
		}
		t := quotientType(p1, s1, p2, s2)
		if average {
			t = Type{Numeric, 38, s1}
		}
		d := division{s1, s2, t.Scale}
		if err := x.e.divisions.need(x.c, d); err != nil {
			x.failed = err
			return
		}
		n["function_name"] = d.name()
		n["children"] = []any{castNode(args[0], Type{Numeric, 38, s1}), castNode(args[1], Type{Numeric, 38, s2})}
		if t.Precision < 38 {
			x.cast(n, t)
		}
		x.changed = true
	case !last:
	case left.ok && right.ok && left.t.Kind != IntervalType && right.t.Kind != IntervalType:
		n["function_name"] = divideFloatName
		x.changed = true
	default:
		n["function_name"], n["is_operator"] = "/", true
		x.changed = true
	}
}

// cast puts CAST(n AS t) in n's place.
func (x *exactRewriter) cast(n object, t Type) {
	inner := object{}
	for k, v := range n {
		inner[k] = v
	}
	alias := n["alias"]
	inner["alias"] = ""
	clear(n)
	for k, v := range castNode(inner, t) {
		n[k] = v
	}
	n["alias"] = alias
	x.changed = true
}

// quotientType is Redshift's type of a decimal quotient.
func quotientType(p1, s1, p2, s2 int) Type {
	scale := max(4, s1+p2-s2+1)
	precision := p1 - s1 + s2 + scale
	if precision > 38 {
		scale = max(38+scale-precision, 4)
		precision = 38
	}
	return Type{Numeric, precision, min(scale, 38)}
}
