package warehouse

import (
	"strings"
)

// expr rewrites one expression, bottom-up, and answers what stands in its
// place with its type. kindUnknown is an honest answer: whoever needs the type
// then asks DuckDB (need).
func (r *rewriter) expr(s *scope, n node) (node, sqlType, error) {
	if r.depth++; r.depth > depthMax {
		return nil, sqlType{}, errorf(codeTooComplex, "the expression nests too deeply")
	}
	defer func() { r.depth-- }()
	switch class(n) {
	case "CONSTANT":
		return n, constantType(n), nil
	case "COLUMN_REF":
		return r.column(s, n)
	case "PARAMETER":
		return r.parameter(n)
	case "FUNCTION":
		return r.function(s, n)
	case "WINDOW":
		return r.window(s, n)
	case "COMPARISON":
		return r.comparison(s, n)
	case "BETWEEN":
		return r.between(s, n)
	case "CONJUNCTION":
		return n, sqlType{kind: kindBool}, r.expressions(s, n, "children")
	case "OPERATOR":
		return r.operator(s, n)
	case "CAST":
		return r.cast(s, n)
	case "CASE":
		return r.caseExpr(s, n)
	case "SUBQUERY":
		return r.subquery(s, n)
	case "COLLATE":
		x, t, err := r.expr(s, child(n, "child"))
		return x, t, err
	case "STAR", "POSITIONAL_REFERENCE":
		return n, sqlType{}, nil // of count(*) and the like; a place of ORDER BY
	case "LAMBDA", "LAMBDA_REF":
		return n, sqlType{}, unsupported("a lambda", "unnest the list").at(r.src.position(location(n)))
	}
	return nil, sqlType{}, unsupported("this expression ("+strings.ToLower(class(n))+")", "rewrite it with operators and functions of docs/sql.md").
		at(r.src.position(location(n)))
}

// need types an expression that the context cannot do without.
func (r *rewriter) need(s *scope, n node, t sqlType) (sqlType, error) {
	if t.kind != kindUnknown {
		return t, nil
	}
	probe := node{"type": "SELECT_NODE", "modifiers": []any{}, "cte_map": node{"map": r.visibleCTEs()}, "select_list": []any{bare(n)},
		"from_table": s.probeFrom(), "where_clause": nil, "group_expressions": []any{}, "group_sets": []any{}, "aggregate_handling": "STANDARD_HANDLING",
		"having": nil, "sample": nil, "qualify": nil}
	if s.groups != nil {
		// An operand may mix aggregates and grouping columns.
		probe["group_expressions"], probe["group_sets"] = r.plainGroups(s.groups)
	}
	root := node{"error": false, "statements": []any{node{"node": probe, "named_param_map": []any{}}}}
	sql, err := r.env.print(r.ctx, root)
	if err != nil {
		return t, err
	}
	d, err := r.env.describe(r.ctx, r, sql)
	if err != nil {
		return t, err
	}
	if d.kind == kindUnknown {
		return t, errorf(codeUndeterminedType, "could not determine the type of an operand").
			hint("add a cast, for instance x::numeric(18,4)").at(r.src.position(location(n)))
	}
	return d, nil
}

// probeFrom is the FROM of the scope and, joined to it, of the scopes around,
// so that an operand of a correlated subquery binds.
func (s *scope) probeFrom() node {
	var from node
	for at := s; at != nil; at = at.parent {
		f, ok := at.from.(node)
		if !ok || str(f, "type") == "EMPTY" {
			continue
		}
		if from == nil {
			from = copyOf(f)
			continue
		}
		from = node{"type": "JOIN", "alias": "", "sample": nil, "query_location": f["query_location"], "left": copyOf(f), "right": from, "condition": nil,
			"join_type": "INNER", "ref_type": "CROSS", "using_columns": []any{}, "delim_flipped": false, "duplicate_eliminated_columns": []any{}}
	}
	if from == nil {
		return node{"type": "EMPTY", "alias": "", "sample": nil}
	}
	return from
}

func (r *rewriter) visibleCTEs() []any {
	var all []any
	for _, m := range r.cteMaps {
		all = append(all, list(m, "map")...)
	}
	return append([]any{}, all...)
}

// plainGroups writes the groups of a SELECT without positions and aliases.
func (r *rewriter) plainGroups(n node) (groups, sets []any) {
	items := list(n, "select_list")
	groups, sets = []any{}, []any{}
	for _, g := range list(n, "group_expressions") {
		g, _ := g.(node)
		if i, ok := constantInt(g); ok && i >= 1 && i <= len(items) {
			item, _ := items[i-1].(node)
			g = bare(item)
		}
		groups = append(groups, clone(g))
	}
	if len(groups) > 0 {
		sets, _ = clone(list(n, "group_sets")).([]any)
	}
	return groups, sets
}

// column rewrites a column reference, or one of the words that PostgreSQL
// treats as a function without parentheses.
func (r *rewriter) column(s *scope, n node) (node, sqlType, error) {
	names := stringList(n, "column_names")
	if len(names) == 0 {
		return n, sqlType{}, nil
	}
	t, found := s.resolve(names)
	if found {
		if len(names) > 2 {
			n["column_names"] = []any{names[len(names)-2], names[len(names)-1]}
		}
		return n, t, nil
	}
	if len(names) == 1 {
		if x, t, ok, err := r.word(names[0]); ok || err != nil {
			return place(x, n), t, err
		}
	}
	name := names[len(names)-1]
	at := r.src.position(location(n))
	if len(names) > 1 {
		table := names[len(names)-2]
		for p := s; p != nil; p = p.parent {
			for _, item := range p.items {
				if strings.EqualFold(item.alias, table) {
					return nil, t, errorf(codeUndefinedColumn, "column %s.%s does not exist", table, name).hint("%s", s.suggest(name)).at(at)
				}
			}
		}
		// table.column.field of a struct keeps DuckDB's reading.
		for i := 1; i < len(names); i++ {
			if u, ok := s.resolve(names[:i]); ok && (u.kind == kindStruct || u.kind == kindUnknown) {
				return n, sqlType{}, nil
			}
		}
		return nil, t, errorf(codeUndefinedTable, "missing FROM-clause entry for table %q", table).at(at)
	}
	for p := s; p != nil; p = p.parent {
		for _, item := range p.items {
			if item.opaque || strings.EqualFold(item.alias, name) {
				return n, sqlType{}, nil // a whole row, or what only DuckDB knows
			}
		}
	}
	return nil, t, errorf(codeUndefinedColumn, "column %q does not exist", name).hint("%s", s.suggest(name)).at(at)
}

// suggest names the columns that look most like the missing one.
func (s *scope) suggest(name string) string {
	best, distance := "", 3
	for at := s; at != nil; at = at.parent {
		for _, item := range at.items {
			for _, c := range item.columns {
				if d := editDistance(name, c.name, distance); d < distance {
					best, distance = item.alias+"."+c.name, d
				}
			}
		}
	}
	if best != "" {
		return "perhaps you meant " + best
	}
	return "\\d TABLE lists a table's columns"
}

// editDistance is Levenshtein's, given up at limit.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit || len(a) > 64 || len(b) > 64 {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

// outputName is the name that PostgreSQL gives to an item of a select list.
func outputName(n node) string {
	if a := str(n, "alias"); a != "" {
		return a
	}
	if name := innerName(n); name != "" {
		return name
	}
	return "?column?"
}

func innerName(n node) string {
	switch class(n) {
	case "COLUMN_REF":
		names := stringList(n, "column_names")
		if len(names) > 0 {
			return names[len(names)-1]
		}
	case "FUNCTION", "WINDOW":
		name := str(n, "function_name")
		switch {
		case flag(n, "is_operator") || strings.IndexByte(operatorBytes, name[0]) >= 0:
			return ""
		case name == "count_star":
			return "count"
		case name == "date_part":
			return "extract"
		case name == "trim":
			return "btrim"
		case name == "regexp_full_match" || name == "like_escape" || name == "not_like_escape" || name == "ilike_escape":
			return ""
		case name == "list_value" || name == "row" || name == "struct_pack":
			return map[string]string{"list_value": "array", "row": "row", "struct_pack": "row"}[name]
		}
		return name
	case "CAST":
		if text, ok := constantText(child(n, "child")); ok && (text == "t" || text == "f") && location(n) < 0 && str(child(n, "cast_type"), "id") == "BOOLEAN" {
			return "" // TRUE or FALSE
		}
		if name := innerName(child(n, "child")); name != "" {
			return name
		}
		t, name, _ := typeOfTree(child(n, "cast_type"))
		if pg, ok := pgTypes[t.kind]; ok && (name == "" || t.kind != kindText || name == "varchar") {
			return pg.name
		}
		return name
	case "CASE":
		if name := innerName(child(n, "else_expr")); name != "" && class(child(n, "else_expr")) == "COLUMN_REF" {
			return name
		}
		return "case"
	case "OPERATOR":
		return map[string]string{"OPERATOR_COALESCE": "coalesce", "GROUPING_FUNCTION": "grouping", "ARRAY_CONSTRUCTOR": "array"}[str(n, "type")]
	case "SUBQUERY":
		switch str(n, "subquery_type") {
		case "EXISTS":
			return "exists"
		case "SCALAR":
			body := child(child(n, "subquery"), "node")
			if items := list(body, "select_list"); len(items) == 1 {
				item, _ := items[0].(node)
				if class(item) == "CASE" && str(child(item, "else_expr"), "class") == "FUNCTION" {
					return "array"
				}
				return outputName(item)
			}
		}
	case "COLLATE":
		return innerName(child(n, "child"))
	}
	return ""
}

func (r *rewriter) parameter(n node) (node, sqlType, error) {
	i := 0
	for _, c := range str(n, "identifier") {
		if c < '0' || c > '9' {
			i = 0
			break
		}
		i = i*10 + int(c-'0')
	}
	if i < 1 || i > parametersMax {
		return nil, sqlType{}, errorf(codeUndefinedParameter, "there is no parameter $%s", str(n, "identifier"))
	}
	for len(r.params) < i {
		r.params = append(r.params, parameter{})
	}
	p := &r.params[i-1]
	p.used = true
	if p.typ.known() {
		return castTo(n, p.typ), p.typ, nil
	}
	return n, sqlType{kind: kindNull}, nil
}

// parametersMax is the protocol's own bound.
const parametersMax = 65535

// assign gives the bare parameter or the string literal n the type that its
// context wants, as PostgreSQL does.
func (r *rewriter) assign(n node, t, want sqlType) node {
	if !want.known() {
		return n
	}
	switch {
	case class(n) == "PARAMETER" && t.kind == kindNull:
		_, _, _ = r.parameter(n)
		i := 0
		for _, c := range str(n, "identifier") {
			i = i*10 + int(c-'0')
		}
		if p := &r.params[i-1]; !p.typ.known() {
			if want.kind == kindDecimal {
				want = parameterDecimal
			}
			p.typ = want
		}
		return castTo(n, r.params[i-1].typ)
	case t.kind == kindLiteral && (want.exact() || want.kind == kindTimestampTZ):
		text, ok := constantText(n)
		if !ok {
			return n
		}
		if want.kind == kindTimestampTZ {
			return r.instantLiteral(text)
		}
		if d, ok := literalDecimal(text); ok && want.kind == kindDecimal {
			return place(numberConstant(strings.TrimSpace(text), d), n)
		}
	}
	return n
}

// parameterDecimal stands for a numeric parameter until its value, which
// brings its own precision and scale, is there.
var parameterDecimal = decimal(38, 10)

// literalDecimal is the type of a plain decimal number in a string.
func literalDecimal(text string) (sqlType, bool) {
	t := strings.TrimLeft(strings.TrimSpace(text), "+-")
	whole, fraction, _ := strings.Cut(t, ".")
	if whole+fraction == "" {
		return sqlType{}, false
	}
	for _, c := range whole + fraction {
		if c < '0' || c > '9' {
			return sqlType{}, false
		}
	}
	p := len(strings.TrimLeft(whole, "0")) + len(fraction)
	if p > decimalDigitsMax {
		return sqlType{}, false
	}
	return decimal(max(p, 1), len(fraction)), true
}

func (r *rewriter) subquery(s *scope, n node) (node, sqlType, error) {
	columns, err := r.query(s, child(child(n, "subquery"), "node"))
	if err != nil {
		return nil, sqlType{}, err
	}
	switch str(n, "subquery_type") {
	case "SCALAR":
		if len(columns) == 1 {
			return n, columns[0].typ, nil
		}
		return n, sqlType{}, nil
	case "ANY":
		if c := child(n, "child"); c != nil {
			x, t, err := r.expr(s, c)
			if err != nil {
				return nil, t, err
			}
			if len(columns) == 1 {
				if w, wide, ok := common(t, columns[0].typ); ok && wide {
					x = castTo(x, w)
				}
			}
			n["child"] = x
		}
	}
	return n, sqlType{kind: kindBool}, nil
}

func (r *rewriter) caseExpr(s *scope, n node) (node, sqlType, error) {
	var results []operand
	checks := list(n, "case_checks")
	for _, c := range checks {
		c, _ := c.(node)
		w, _, err := r.expr(s, child(c, "when_expr"))
		if err != nil {
			return nil, sqlType{}, err
		}
		c["when_expr"] = w
		x, t, err := r.expr(s, child(c, "then_expr"))
		if err != nil {
			return nil, sqlType{}, err
		}
		results = append(results, operand{x, t})
	}
	x, t, err := r.expr(s, child(n, "else_expr"))
	if err != nil {
		return nil, sqlType{}, err
	}
	results = append(results, operand{x, t})
	out := r.unify(results)
	for i, c := range checks {
		c.(node)["then_expr"] = bare(results[i].n)
	}
	n["else_expr"] = bare(results[len(results)-1].n)
	return n, out, nil
}

// operand is a rewritten expression with its type.
type operand struct {
	n node
	t sqlType
}

// unify brings operands to their common type where DuckDB's own rule would
// lose digits or would read a literal or a time differently.
func (r *rewriter) unify(ops []operand) sqlType {
	t := ops[0].t
	for _, o := range ops[1:] {
		var ok bool
		if t, _, ok = common(t, o.t); !ok {
			return sqlType{}
		}
	}
	for i := range ops {
		ops[i].n = r.assign(ops[i].n, ops[i].t, t)
		if t.kind == kindDecimal && ops[i].t.exact() && !ops[i].t.equal(t) {
			ops[i].n = castTo(ops[i].n, t)
		}
		if t.kind == kindTimestampTZ && ops[i].t.temporal() {
			ops[i].n = r.toInstant(ops[i].n, ops[i].t)
		}
	}
	if t.kind == kindLiteral {
		t.kind = kindText
	}
	return t
}

func (r *rewriter) comparison(s *scope, n node) (node, sqlType, error) {
	pair, err := r.pair(s, child(n, "left"), child(n, "right"))
	if err != nil {
		return nil, sqlType{}, err
	}
	r.comparable(pair)
	n["left"], n["right"] = bare(pair[0].n), bare(pair[1].n)
	return n, sqlType{kind: kindBool}, nil
}

func (r *rewriter) pair(s *scope, left, right node) ([]operand, error) {
	a, at, err := r.expr(s, left)
	if err != nil {
		return nil, err
	}
	b, bt, err := r.expr(s, right)
	if err != nil {
		return nil, err
	}
	return []operand{{a, at}, {b, bt}}, nil
}

// comparable makes a comparison exact: DuckDB would round the finer decimal to
// the scale that is left beside a wide one.
func (r *rewriter) comparable(ops []operand) {
	t := ops[0].t
	wide := false
	for _, o := range ops[1:] {
		c, w, ok := common(t, o.t)
		if !ok {
			return
		}
		t, wide = c, wide || w
	}
	// A string literal may be finer than the decimal that it is compared with.
	for i := range ops {
		if d, ok := literalOf(ops[i]); ok && t.exact() {
			c, w, _ := common(t, d)
			t, wide = c, wide || w
		}
	}
	for i := range ops {
		ops[i].n = r.assign(ops[i].n, ops[i].t, t)
		switch {
		case wide && ops[i].t.exact():
			ops[i].n = castTo(ops[i].n, t)
		case t.kind == kindTimestampTZ && ops[i].t.temporal():
			ops[i].n = r.toInstant(ops[i].n, ops[i].t)
		}
	}
}

func literalOf(o operand) (sqlType, bool) {
	if o.t.kind != kindLiteral {
		return sqlType{}, false
	}
	text, ok := constantText(o.n)
	if !ok {
		return sqlType{}, false
	}
	d, ok := literalDecimal(text)
	return d, ok && d.scale > 0
}

func (r *rewriter) between(s *scope, n node) (node, sqlType, error) {
	ops := make([]operand, 3)
	for i, key := range []string{"input", "lower", "upper"} {
		x, t, err := r.expr(s, child(n, key))
		if err != nil {
			return nil, t, err
		}
		ops[i] = operand{x, t}
	}
	r.comparable(ops)
	n["input"], n["lower"], n["upper"] = bare(ops[0].n), bare(ops[1].n), bare(ops[2].n)
	return n, sqlType{kind: kindBool}, nil
}

func (r *rewriter) operator(s *scope, n node) (node, sqlType, error) {
	l := list(n, "children")
	ops := make([]operand, len(l))
	for i := range l {
		c, _ := l[i].(node)
		x, t, err := r.expr(s, c)
		if err != nil {
			return nil, t, err
		}
		ops[i] = operand{x, t}
	}
	out := sqlType{kind: kindBool}
	switch str(n, "type") {
	case "COMPARE_IN", "COMPARE_NOT_IN":
		r.comparable(ops)
	case "OPERATOR_COALESCE":
		out = r.unify(ops)
	case "OPERATOR_NOT", "OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL":
	case "ARRAY_EXTRACT":
		out = sqlType{}
		if len(ops) == 2 && ops[0].t.kind == kindList {
			out = *ops[0].t.element
		}
	case "ARRAY_SLICE":
		out = ops[0].t
	case "ARRAY_CONSTRUCTOR":
		e := r.unify(ops)
		out = sqlType{kind: kindList, element: &e}
	default:
		out = sqlType{}
	}
	for i := range ops {
		l[i] = bare(ops[i].n)
	}
	return n, out, nil
}
