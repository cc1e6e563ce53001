package warehouse

import (
	"regexp"
	"strings"
)

// The engine's own time zone is UTC and cannot be changed. Whatever PostgreSQL
// evaluates in the session's TimeZone is therefore written out here.

// clockless is x, a timestamptz, on the session's wall clock: a timestamp.
func (r *rewriter) wallClock(x node) node {
	return call("timezone", stringConstant(r.env.zone), castTo(x, sqlType{kind: kindTimestampTZ}))
}

// utc reports whether wall clock and UTC are the same, so that DuckDB's own
// conversions are right.
func (r *rewriter) utc() bool {
	switch strings.ToUpper(r.env.zone) {
	case "UTC", "GMT", "ETC/UTC", "ETC/GMT", "UCT", "ZULU", "ETC/UCT", "ETC/ZULU", "ETC/UNIVERSAL", "UNIVERSAL":
		return true
	}
	return false
}

// toInstant converts a date or timestamp of the session's wall clock.
func (r *rewriter) toInstant(x node, t sqlType) node {
	if t.kind == kindTimestampTZ {
		return x
	}
	if r.utc() {
		return castTo(x, sqlType{kind: kindTimestampTZ})
	}
	return call("timezone", stringConstant(r.env.zone), castTo(x, sqlType{kind: kindTimestamp}))
}

var offsetRE = regexp.MustCompile(`(?i)(\d\d?:\d\d(:\d\d(\.\d+)?)?\s*([+-]\d\d?(:?\d\d)?|z|utc|gmt)|[a-z]+/[a-z_/]+)\s*$`)

// instantLiteral reads a timestamptz literal: one without an offset is on the
// session's wall clock.
func (r *rewriter) instantLiteral(text string) node {
	if r.utc() || offsetRE.MatchString(text) {
		return castTo(stringConstant(text), sqlType{kind: kindTimestampTZ})
	}
	return call("timezone", stringConstant(r.env.zone), castTo(stringConstant(text), sqlType{kind: kindTimestamp}))
}

// cast rewrites CAST and ::.
func (r *rewriter) cast(s *scope, n node) (node, sqlType, error) {
	want, name, ok := typeOfTree(child(n, "cast_type"))
	if !ok {
		return nil, want, errorf(codeUndefinedObject, "type %q does not exist", name).
			hint("docs/sql.md lists the types").at(r.src.position(location(n)))
	}
	if want.kind == kindDecimal && (want.precision < 1 || want.precision > decimalDigitsMax || want.scale < 0 || want.scale > want.precision) {
		return nil, want, errorf(codeInvalidParameter, "NUMERIC precision %d and scale %d must be between 1 and 38, and 0 and the precision", want.precision, want.scale).
			at(r.src.position(location(n)))
	}
	inner := child(n, "child")
	if class(inner) == "PARAMETER" {
		_, t, err := r.parameter(inner)
		if err != nil {
			return nil, t, err
		}
		if t.kind == kindNull && want.known() && strings.HasPrefix(name, "reg") {
			want = sqlType{kind: kindText}
		}
		if t.kind == kindNull && want.known() && want.kind != kindList {
			i := atoi(str(inner, "identifier"))
			r.params[i-1].typ = want
		}
	}
	x, t, err := r.expr(s, inner)
	if err != nil {
		return nil, t, err
	}
	if f, ok := registered[name]; ok {
		e, ft, err := f(r, x, t)
		return place(e, n), ft, err
	}
	// The type that DuckDB leaves unbound gets its DuckDB name.
	if id := str(child(n, "cast_type"), "id"); id == "UNBOUND" || id == "USER" || id == "LIST" || id == "ARRAY" {
		n["cast_type"] = want.tree()
	}
	n["child"] = bare(x)
	if flag(n, "try_cast") {
		return n, want, nil
	}
	if text, lit := constantText(inner); lit && want.kind == kindTimestampTZ {
		switch strings.ToLower(strings.TrimSpace(text)) {
		case "now":
			return place(r.nowNode(), n), want, nil
		}
		return place(r.instantLiteral(text), n), want, nil
	}
	if r.utc() {
		return n, want, nil
	}
	switch {
	case want.kind == kindTimestampTZ && (t.kind == kindDate || t.kind == kindTimestamp):
		return place(r.toInstant(x, t), n), want, nil
	case t.kind == kindTimestampTZ && (want.kind == kindDate || want.kind == kindTimestamp || want.kind == kindTime):
		return place(castTo(r.wallClock(x), want), n), want, nil
	case t.kind == kindTimestampTZ && want.kind == kindText:
		return place(r.instantText(x), n), want, nil
	case want.kind == kindTimestampTZ && (t.kind == kindText || t.kind == kindLiteral):
		// Text with an offset says itself where it is.
		says := call("regexp_matches", copyOf(x), stringConstant(`[0-9]:[0-9][0-9](:[0-9][0-9](\.[0-9]+)?)? *([+-][0-9][0-9]?(:?[0-9][0-9])?|[zZ])\s*$`))
		local := call("timezone", stringConstant(r.env.zone), castTo(copyOf(x), sqlType{kind: kindTimestamp}))
		return place(caseNode(local, says, castTo(x, want)), n), want, nil
	}
	return n, want, nil
}

// instantText writes a timestamptz in the session's zone, as its output has it.
func (r *rewriter) instantText(x node) node {
	wall := r.wallClock(x)
	offset := call("-", call("epoch", copyOf(wall)), call("epoch", castTo(copyOf(x), sqlType{kind: kindTimestampTZ})))
	minutes := castTo(call("round", call("/", offset, intConstant(60))), sqlType{kind: kindInt})
	abs := call("abs", minutes)
	sign := caseNode(stringConstant("+"), comparison("COMPARE_LESSTHAN", copyOf(minutes), intConstant(0)), stringConstant("-"))
	hours := call("lpad", castTo(call("//", copyOf(abs), intConstant(60)), sqlType{kind: kindText}), castTo(intConstant(2), sqlType{kind: kindInt}), stringConstant("0"))
	rest := call("%", copyOf(abs), intConstant(60))
	tail := caseNode(stringConstant(""), comparison("COMPARE_NOTEQUAL", rest, intConstant(0)),
		call("||", stringConstant(":"), call("lpad", castTo(copyOf(rest), sqlType{kind: kindText}), castTo(intConstant(2), sqlType{kind: kindInt}), stringConstant("0"))))
	return call("||", call("||", call("||", castTo(copyOf(wall), sqlType{kind: kindText}), sign), hours), tail)
}

func (r *rewriter) nowNode() node {
	r.mutable = true
	return castTo(stringConstant(r.env.now+"+00"), sqlType{kind: kindTimestampTZ})
}

// timeArithmetic types + and - on dates, times and intervals.
func (r *rewriter) timeArithmetic(n node, op string, ops []operand) (node, sqlType, error) {
	a, b := &ops[0], &ops[1]
	interval := sqlType{kind: kindInterval}
	if a.t.kind == kindLiteral && (b.t.temporal() || b.t.kind == kindInterval) || b.t.kind == kindLiteral && (a.t.temporal() || a.t.kind == kindInterval) {
		// The literal takes the other's type for -, and an interval's for +.
		i := 0
		if b.t.kind == kindLiteral {
			i = 1
		}
		t := ops[1-i].t
		if op == "+" || t.kind == kindInterval {
			t = interval
		}
		ops[i].n, ops[i].t = castTo(ops[i].n, t), t
	}
	out := sqlType{}
	switch {
	case a.t.temporal() && b.t.temporal() && op == "-":
		if a.t.kind == kindTimestampTZ || b.t.kind == kindTimestampTZ {
			a.n, b.n = r.toInstant(a.n, a.t), r.toInstant(b.n, b.t)
		}
		out = interval
		if a.t.kind == kindDate && b.t.kind == kindDate {
			out = sqlType{kind: kindInt}
			n["children"] = []any{bare(a.n), bare(b.n)}
			return place(castTo(n, out), n), out, nil
		}
	case a.t.temporal() && b.t.kind == kindInterval && (op == "+" || op == "-"):
		out = a.t
		if out.kind == kindDate {
			out.kind = kindTimestamp
		}
		// A day is a wall-clock day where the zone has them longer or shorter.
		if out.kind == kindTimestampTZ && !r.utc() {
			e := call("timezone", stringConstant(r.env.zone), call(op, r.wallClock(a.n), b.n))
			return place(e, n), out, nil
		}
	case a.t.kind == kindInterval && b.t.temporal() && op == "+":
		return r.timeArithmetic(n, op, []operand{*b, *a})
	case a.t.kind == kindDate && b.t.integer() && (op == "+" || op == "-"):
		out = a.t
		b.n = castTo(b.n, sqlType{kind: kindInt})
	case a.t.integer() && b.t.kind == kindDate && op == "+":
		out = b.t
		a.n = castTo(a.n, sqlType{kind: kindInt})
	case a.t.kind == kindInterval || b.t.kind == kindInterval:
		out = interval
	}
	n["children"] = []any{bare(a.n), bare(b.n)}
	return n, out, nil
}

// dateParts are the words that Redshift's date functions take bare, with
// DuckDB's name of the part.
var dateParts = map[string]string{
	"year": "year", "years": "year", "y": "year", "yr": "year", "yrs": "year", "yy": "year", "yyyy": "year",
	"quarter": "quarter", "quarters": "quarter", "qtr": "quarter", "qtrs": "quarter", "q": "quarter",
	"month": "month", "months": "month", "mon": "month", "mons": "month", "mm": "month",
	"week": "week", "weeks": "week", "w": "week", "wk": "week",
	"day": "day", "days": "day", "d": "day", "dd": "day",
	"hour": "hour", "hours": "hour", "h": "hour", "hr": "hour", "hrs": "hour", "hh": "hour",
	"minute": "minute", "minutes": "minute", "m": "minute", "min": "minute", "mins": "minute", "mi": "minute", "n": "minute",
	"second": "second", "seconds": "second", "s": "second", "sec": "second", "secs": "second", "ss": "second",
	"millisecond": "millisecond", "milliseconds": "millisecond", "ms": "millisecond", "msec": "millisecond", "msecs": "millisecond",
	"microsecond": "microsecond", "microseconds": "microsecond", "us": "microsecond", "microsec": "microsecond", "microsecs": "microsecond", "usec": "microsecond",
	"decade": "decade", "decades": "decade", "dec": "decade", "century": "century", "centuries": "century", "c": "century", "cent": "century",
	"millennium": "millennium", "millennia": "millennium", "mil": "millennium", "epoch": "epoch", "dow": "dow", "dayofweek": "dow", "weekday": "dow", "dw": "dow",
	"doy": "doy", "dayofyear": "doy", "dy": "doy", "yearday": "doy", "isodow": "isodow", "isoyear": "isoyear", "timezone": "timezone",
}

// datePart reads the first argument of a date function: a bare word, which the
// parser took for a column, or a string.
func (r *rewriter) datePart(n node) (string, error) {
	word, ok := constantText(n)
	if !ok && class(n) == "COLUMN_REF" {
		if names := stringList(n, "column_names"); len(names) == 1 {
			word, ok = names[0], true
		}
	}
	part, known := dateParts[strings.ToLower(word)]
	if !ok || !known {
		return "", errorf(codeInvalidParameter, "unit %q not recognized for a date function", word).
			hint("use year, quarter, month, week, day, hour, minute, second, millisecond or microsecond").at(r.src.position(location(n)))
	}
	return part, nil
}

// onWallClock makes a timestamptz argument a timestamp of the session's zone.
func (r *rewriter) onWallClock(o operand) operand {
	if o.t.kind == kindTimestampTZ && !r.utc() {
		return operand{r.wallClock(o.n), sqlType{kind: kindTimestamp}}
	}
	return o
}
