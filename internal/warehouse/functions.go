package warehouse

import (
	"strconv"
	"strings"

	"github.com/tapehouse/tapehouse/internal/engine"
)

func itoa(i int) string { return strconv.Itoa(i) }

func atoi(s string) int {
	i, _ := strconv.Atoi(s)
	return i
}

// handler rewrites a call whose arguments are rewritten already.
type handler func(r *rewriter, s *scope, n node, args []operand) (node, sqlType, error)

// rawHandlers see the call before its arguments are rewritten, because one of
// them is a bare word.
var rawHandlers map[string]handler

// handlers is the table of functions that mean something else to DuckDB, or
// nothing. It grows with the dialect.
var handlers map[string]handler

func init() {
	rawHandlers = map[string]handler{
		"dateadd": dateAdd, "date_add": dateAdd, "datediff": dateDiff, "date_diff": dateDiff,
		"date_trunc": dateTrunc, "datetrunc": dateTrunc, "date_part": datePart, "datepart": datePart, "pgdate_part": datePart,
	}
	handlers = map[string]handler{
		"nvl": nvl, "isnull": nvl, "ifnull": nvl, "nvl2": nvl2, "decode": decode, "nullif": nullIf,
		"greatest": extremum, "least": extremum,
		"getdate": getDate, "now": nowCall, "transaction_timestamp": nowCall, "statement_timestamp": clockCall, "clock_timestamp": clockCall,
		"get_current_timestamp": nowCall, "current_localtimestamp": wordCall("localtimestamp"), "today": wordCall("current_date"),
		"timezone": timezone, "convert_timezone": convertTimezone, "add_months": addMonths,
		"to_char": toChar, "to_date": toDate,
		"round": rounding, "trunc": rounding, "ceil": rounding, "ceiling": rounding, "floor": rounding,
		"abs": sameType, "mod": func(r *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
			if len(args) != 2 {
				return n, sqlType{}, nil
			}
			return r.modulo(n, args)
		},
		"sign": castResult(sqlType{kind: kindInt}),
		"regexp_full_match": func(_ *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
			return matching("", args, n)
		},
		"~": func(_ *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
			return matching("", args, n)
		},
		"~*": func(_ *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
			return matching("i", args, n)
		},
		"!~": func(_ *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
			return negated(matching("", args, n))
		},
		"!~*": func(_ *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
			return negated(matching("i", args, n))
		},
		"~~": likeEscape("like_escape"), "~~*": likeEscape("ilike_escape"), "!~~": likeEscape("not_like_escape"), "!~~*": likeEscape("not_ilike_escape"),
		"sum": func(r *rewriter, s *scope, n node, args []operand) (node, sqlType, error) {
			return oneArgument(r, n, args, (*rewriter).total)
		},
		"avg": func(r *rewriter, s *scope, n node, args []operand) (node, sqlType, error) {
			return oneArgument(r, n, args, (*rewriter).average)
		},
		"mean": refuse("mean()", "use avg()"), "favg": refuse("favg()", "use avg()"), "fsum": refuse("fsum()", "use sum()"),
		"median": median, "strpos": renamedCall("strpos", kindInt), "charindex": charIndex, "len": renamedCall("length", kindInt), "length": renamedCall("length", kindInt),
		"char_length": renamedCall("length", kindInt), "character_length": renamedCall("length", kindInt), "position": renamedCall("position", kindInt),
		"||": concat, "approx_count_distinct": typed(kindBigint), "listagg": renamedCall("string_agg", kindText),
		"pg_typeof": pgTypeof, "array_agg": listOf, "list": listOf, "list_value": listOf, "generate_series": listOfFirst, "unnest": unnestCall,
	}
	for name, k := range resultKinds {
		if _, ok := handlers[name]; !ok {
			handlers[name] = typed(k)
		}
	}
	for name := range firstArgument {
		handlers[name] = func(_ *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
			if len(args) == 0 {
				return n, sqlType{}, nil
			}
			return n, args[0].t, nil
		}
	}
}

// resultKinds are functions that DuckDB has with PostgreSQL's meaning, and the
// type of their result. A function that is not listed types by Describe, when
// its type matters at all.
var resultKinds = func() map[string]kind {
	m := map[string]kind{}
	for k, names := range map[kind]string{
		kindText: `lower upper trim ltrim rtrim btrim lpad rpad left right substring substr replace repeat reverse translate concat concat_ws md5 chr
			split_part regexp_replace regexp_extract string_agg to_hex format strftime monthname dayname sha256 sha1 json_extract_string json_extract_path_text quote_ident
			array_to_string pg_size_pretty`,
		kindBigint: `count count_star row_number rank dense_rank ntile rank_dense regr_count epoch_ms epoch_us epoch_ns approx_count_distinct`,
		kindDouble: `sqrt cbrt exp ln log log10 log2 power pow sin cos tan asin acos atan atan2 radians degrees pi random percent_rank cume_dist stddev stddev_pop
			stddev_samp variance var_pop var_samp corr covar_pop covar_samp regr_slope regr_intercept regr_r2 epoch`,
		kindBool: `bool_and bool_or every starts_with ends_with contains regexp_matches like_escape ilike_escape not_like_escape not_ilike_escape ~~~`,
		kindDate: `last_day make_date`, kindTimestamp: `make_timestamp strptime`, kindTimestampTZ: `to_timestamp make_timestamptz`,
		kindInterval: `age to_days to_months to_years to_hours to_minutes to_seconds to_weeks to_milliseconds to_microseconds`,
		kindInt:      `ascii octet_length bit_length`,
	} {
		for _, name := range strings.Fields(names) {
			m[name] = k
		}
	}
	return m
}()

// firstArgument are functions whose result has the type of their first argument.
var firstArgument = map[string]bool{"min": true, "max": true, "any_value": true, "first": true, "last": true, "mode": true, "first_value": true,
	"last_value": true, "lag": true, "lead": true, "nth_value": true, "arg_max": true, "arg_min": true, "max_by": true, "min_by": true, "bit_and": true, "bit_or": true}

func typed(k kind) handler {
	return func(_ *rewriter, _ *scope, n node, _ []operand) (node, sqlType, error) {
		return n, sqlType{kind: k}, nil
	}
}

func refuse(what, instead string) handler {
	return func(r *rewriter, _ *scope, n node, _ []operand) (node, sqlType, error) {
		return nil, sqlType{}, unsupported(what, instead).at(r.src.position(location(n)))
	}
}

func renamedCall(name string, k kind) handler {
	return func(_ *rewriter, _ *scope, n node, _ []operand) (node, sqlType, error) {
		n["function_name"] = name
		if k == kindInt {
			return place(castTo(n, sqlType{kind: k}), n), sqlType{kind: k}, nil
		}
		return n, sqlType{kind: k}, nil
	}
}

func castResult(t sqlType) handler {
	return func(_ *rewriter, _ *scope, n node, _ []operand) (node, sqlType, error) {
		return place(castTo(n, t), n), t, nil
	}
}

func sameType(_ *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
	if len(args) != 1 || !args[0].t.numeric() {
		return n, sqlType{}, nil
	}
	return n, args[0].t, nil
}

// function rewrites a call or an operator.
func (r *rewriter) function(s *scope, n node) (node, sqlType, error) {
	name := strings.ToLower(str(n, "function_name"))
	switch schema := str(n, "schema"); schema {
	case "", "pg_catalog", "main", "information_schema":
		n["schema"] = ""
	default:
		return nil, sqlType{}, errorf(codeUndefinedFunction, "function %s.%s does not exist", schema, name).at(r.src.position(location(n)))
	}
	n["catalog"] = ""
	if engine.IsProductName(name) { // only decimalArithmetic knows that its result fits
		return nil, sqlType{}, errorf(codeUndefinedFunction, "function %s does not exist", name).hint("docs/sql.md lists the functions").at(r.src.position(location(n)))
	}
	if f, ok := rawHandlers[name]; ok {
		return f(r, s, n, nil)
	}
	args, err := r.arguments(s, n)
	if err != nil {
		return nil, sqlType{}, err
	}
	if len(args) == 2 && (name == "+" || name == "-" || name == "*" || name == "/" || name == "%") {
		return r.arithmetic(n, name, args)
	}
	if (name == "-" || name == "+") && len(args) == 1 {
		return n, args[0].t, nil
	}
	if f, ok := systemFunctions[name]; ok {
		x, t, err := f(r, n, args)
		if err != nil {
			return nil, t, err
		}
		return place(x, n), t, nil
	}
	if f, ok := handlers[name]; ok {
		return f(r, s, n, args)
	}
	return n, sqlType{}, nil
}

// arguments rewrites a call's arguments, filter and order in place.
func (r *rewriter) arguments(s *scope, n node) ([]operand, error) {
	l := list(n, "children")
	args := make([]operand, 0, len(l))
	for i := range l {
		c, _ := l[i].(node)
		alias := ""
		if class(n) == "FUNCTION" {
			alias = str(c, "alias") // a named argument
		}
		x, t, err := r.expr(s, c)
		if err != nil {
			return nil, err
		}
		if alias == "" {
			x = bare(x)
		}
		l[i] = x
		args = append(args, operand{x, t})
	}
	for _, key := range []string{"filter", "filter_expr", "start_expr", "end_expr", "offset_expr", "default_expr"} {
		if err := r.field(s, n, key); err != nil {
			return nil, err
		}
	}
	if err := r.orders(s, list(child(n, "order_bys"), "orders"), false); err != nil {
		return nil, err
	}
	for _, key := range []string{"orders", "arg_orders"} {
		if err := r.orders(s, list(n, key), false); err != nil {
			return nil, err
		}
	}
	return args, r.expressions(s, n, "partitions")
}

// window rewrites f(…) OVER (…).
func (r *rewriter) window(s *scope, n node) (node, sqlType, error) {
	n["schema"], n["catalog"] = "", ""
	args, err := r.arguments(s, n)
	if err != nil {
		return nil, sqlType{}, err
	}
	name := strings.ToLower(str(n, "function_name"))
	if name == "ratio_to_report" && len(args) == 1 {
		sum := copyOf(n)
		sum["alias"], sum["function_name"], sum["type"] = "", "sum", "WINDOW_AGGREGATE"
		sum["children"] = []any{copyOf(bare(args[0].n))}
		total, t, err := r.total(sum, args[0])
		if err != nil {
			return nil, t, err
		}
		x, t, err := r.arithmetic(call("/", args[0].n, total), "/", []operand{args[0], {total, t}})
		return place(x, n), t, err
	}
	if f, ok := handlers[name]; ok {
		return f(r, s, n, args)
	}
	return n, sqlType{}, nil
}

func oneArgument(r *rewriter, n node, args []operand, f func(*rewriter, node, operand) (node, sqlType, error)) (node, sqlType, error) {
	if len(args) != 1 {
		return n, sqlType{}, nil // DuckDB says that there is no such signature
	}
	return f(r, n, args[0])
}

func nvl(r *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
	if len(args) == 0 {
		return n, sqlType{}, nil
	}
	t := r.unify(args)
	return place(operatorNode("OPERATOR_COALESCE", nodesOf(args)...), n), t, nil
}

func nodesOf(args []operand) []node {
	out := make([]node, len(args))
	for i := range args {
		out[i] = args[i].n
	}
	return out
}

func nvl2(r *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
	if len(args) != 3 {
		return nil, sqlType{}, wrongArguments(r, n, "NVL2(expression, not_null, null)")
	}
	t := r.unify(args[1:])
	return place(caseNode(args[2].n, operatorNode("OPERATOR_IS_NOT_NULL", args[0].n), args[1].n), n), t, nil
}

func wrongArguments(r *rewriter, n node, want string) error {
	return errorf(codeUndefinedFunction, "function %s does not take these arguments", str(n, "function_name")).hint("%s", want).at(r.src.position(location(n)))
}

// decode is Redshift's DECODE(e, v1, r1, …[, default]), in which NULL equals
// NULL.
func decode(r *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
	if len(args) < 3 {
		return nil, sqlType{}, wrongArguments(r, n, "DECODE(expression, value, result, …[, default])")
	}
	e := args[0]
	var results []operand
	for i := 2; i < len(args); i += 2 {
		results = append(results, args[i])
	}
	otherwise := operand{nullConstant(), sqlType{kind: kindNull}}
	if len(args)%2 == 0 {
		otherwise = args[len(args)-1]
	}
	results = append(results, otherwise)
	t := r.unify(results)
	var checks []node
	for i := 1; i+1 < len(args); i += 2 {
		pair := []operand{{copyOf(e.n), e.t}, args[i]}
		r.comparable(pair)
		checks = append(checks, comparison("COMPARE_NOT_DISTINCT_FROM", pair[0].n, pair[1].n), results[(i-1)/2].n)
	}
	return place(caseNode(results[len(results)-1].n, checks...), n), t, nil
}

func nullIf(r *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
	if len(args) != 2 {
		return nil, sqlType{}, wrongArguments(r, n, "NULLIF(a, b)")
	}
	pair := []operand{{copyOf(args[0].n), args[0].t}, args[1]}
	r.comparable(pair)
	t := args[0].t
	return place(caseNode(args[0].n, comparison("COMPARE_EQUAL", pair[0].n, pair[1].n), nullConstant()), n), t, nil
}

func extremum(r *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
	if len(args) == 0 {
		return n, sqlType{}, nil
	}
	t := r.unify(args)
	l := make([]any, len(args))
	for i := range args {
		l[i] = bare(args[i].n)
	}
	n["children"] = l
	return n, t, nil
}

// matching is a regular expression that may match anywhere, as PostgreSQL has
// it; DuckDB's ~ wants the whole text to match.
func matching(flags string, args []operand, n node) (node, sqlType, error) {
	if len(args) < 2 {
		return n, sqlType{}, nil
	}
	text := args[0].n
	if args[0].t.kind != kindText && args[0].t.kind != kindLiteral {
		text = castTo(text, sqlType{kind: kindText})
	}
	c := call("regexp_matches", text, args[1].n)
	if flags != "" {
		c = call("regexp_matches", text, args[1].n, stringConstant(flags))
	}
	return place(c, n), sqlType{kind: kindBool}, nil
}

func negated(n node, t sqlType, err error) (node, sqlType, error) {
	if err != nil {
		return nil, t, err
	}
	return place(operatorNode("OPERATOR_NOT", n), n), t, nil
}

// likeEscape gives LIKE its backslash, which DuckDB's has not by default.
func likeEscape(name string) handler {
	return func(_ *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
		t := sqlType{kind: kindBool}
		if len(args) != 2 {
			return n, t, nil
		}
		if text, ok := constantText(args[1].n); ok && !strings.Contains(text, `\`) {
			return n, t, nil
		}
		return place(call(name, args[0].n, args[1].n, stringConstant(`\`)), n), t, nil
	}
}

func concat(_ *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
	for _, a := range args {
		if a.t.kind == kindList {
			return n, a.t, nil
		}
	}
	for i, a := range args {
		if a.t.known() && a.t.kind != kindText && a.t.kind != kindBytes {
			list(n, "children")[i] = castTo(a.n, sqlType{kind: kindText})
		}
	}
	return n, sqlType{kind: kindText}, nil
}

func charIndex(_ *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
	if len(args) != 2 {
		return n, sqlType{}, nil
	}
	t := sqlType{kind: kindInt}
	return place(castTo(call("strpos", args[1].n, args[0].n), t), n), t, nil
}

// rounding types round, trunc, ceil and floor, which DuckDB does exactly on
// decimals.
func rounding(r *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
	if len(args) == 0 || len(args) > 2 {
		return n, sqlType{}, nil
	}
	t := args[0].t
	switch {
	case t.integer() && (len(args) == 1 || str(n, "function_name") == "trunc"):
		return place(args[0].n, n), t, nil
	case t.integer() && str(n, "function_name") == "round":
		return place(castTo(n, t), n), t, nil
	case t.kind == kindDecimal && len(args) == 1:
		return n, decimal(t.precision, 0), nil
	case t.kind == kindDecimal:
		places, ok := constantInt(args[1].n)
		if !ok {
			return nil, t, unsupported("rounding to a number of places that is no constant", "write the places as a number").at(r.src.position(location(n)))
		}
		if places >= t.scale {
			return place(args[0].n, n), t, nil
		}
		return n, decimal(t.precision, max(places, 0)), nil
	case t.temporal():
		return place(castTo(r.onWallClock(operand{args[0].n, t}).n, sqlType{kind: kindDate}), n), sqlType{kind: kindDate}, nil
	case t.float():
		return n, sqlType{kind: kindDouble}, nil
	}
	return n, sqlType{}, nil
}

func median(_ *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
	switch {
	case len(args) == 1 && args[0].t.kind == kindDecimal:
		return n, args[0].t, nil
	case len(args) == 1 && args[0].t.numeric():
		return n, sqlType{kind: kindDouble}, nil
	}
	return n, sqlType{}, nil
}

func pgTypeof(_ *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
	name := "unknown"
	if len(args) == 1 {
		if pg, ok := pgTypes[args[0].t.kind]; ok {
			name = pg.display
		}
	}
	return place(stringConstant(name), n), sqlType{kind: kindText}, nil
}

func listOfFirst(_ *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
	if len(args) == 0 {
		return n, sqlType{}, nil
	}
	e := sqlType{kind: kindBigint}
	if !args[0].t.integer() {
		e = args[0].t
	}
	// In a select list PostgreSQL's is a set: a row for each.
	return place(call("unnest", n), n), e, nil
}

func listOf(_ *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
	e := sqlType{kind: kindNull}
	if len(args) > 0 {
		e = args[0].t
	}
	return n, sqlType{kind: kindList, element: &e}, nil
}

func unnestCall(_ *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
	if len(args) > 0 && args[0].t.kind == kindList {
		return n, *args[0].t.element, nil
	}
	return n, sqlType{}, nil
}
