package warehouse

import (
	"strings"
)

// intervalMakers are DuckDB's functions from a number of parts to an interval.
var intervalMakers = map[string]string{"year": "to_years", "quarter": "to_quarters", "month": "to_months", "week": "to_weeks", "day": "to_days", "hour": "to_hours",
	"minute": "to_minutes", "second": "to_seconds", "millisecond": "to_milliseconds", "microsecond": "to_microseconds", "decade": "to_decades",
	"century": "to_centuries", "millennium": "to_millennia"}

// raw reads a date part and rewrites the arguments after it.
func (r *rewriter) raw(s *scope, n node, count int, want string) (string, []operand, error) {
	l := list(n, "children")
	if len(l) != count {
		return "", nil, wrongArguments(r, n, want)
	}
	first, _ := l[0].(node)
	part, err := r.datePart(first)
	if err != nil {
		return "", nil, err
	}
	var args []operand
	for _, c := range l[1:] {
		c, _ := c.(node)
		x, t, err := r.expr(s, c)
		if err != nil {
			return "", nil, err
		}
		args = append(args, operand{bare(x), t})
	}
	return part, args, nil
}

// moment gives a literal or a parameter the type of a point in time.
func (r *rewriter) moment(s *scope, o operand) (operand, error) {
	if o.t.kind == kindLiteral || o.t.kind == kindNull {
		t := sqlType{kind: kindTimestamp}
		if class(o.n) == "PARAMETER" {
			return operand{r.assign(o.n, o.t, t), t}, nil
		}
		return operand{castTo(o.n, t), t}, nil
	}
	t, err := r.need(s, o.n, o.t)
	return operand{o.n, t}, err
}

// dateAdd is DATEADD(part, n, x).
func dateAdd(r *rewriter, s *scope, n node, _ []operand) (node, sqlType, error) {
	part, args, err := r.raw(s, n, 3, "DATEADD(day, 1, x)")
	if err != nil {
		return nil, sqlType{}, err
	}
	maker, ok := intervalMakers[part]
	if !ok {
		return nil, sqlType{}, errorf(codeInvalidParameter, "DATEADD does not add the part %s", part).at(r.src.position(location(n)))
	}
	count := castTo(args[0].n, sqlType{kind: kindBigint})
	switch part {
	case "hour", "minute", "microsecond":
	case "second", "millisecond":
		count = castTo(args[0].n, sqlType{kind: kindDouble})
	default:
		count = castTo(args[0].n, sqlType{kind: kindInt})
	}
	x, err := r.moment(s, args[1])
	if err != nil {
		return nil, sqlType{}, err
	}
	if x.t.kind == kindTimestampTZ {
		sum := call("+", r.wallClock(x.n), call(maker, count))
		return place(call("timezone", stringConstant(r.env.zone), sum), n), x.t, nil
	}
	t := sqlType{kind: kindTimestamp}
	return place(castTo(call("+", castTo(x.n, t), call(maker, count)), t), n), t, nil
}

// dateDiff is DATEDIFF(part, a, b): the boundaries of the part between the two.
func dateDiff(r *rewriter, s *scope, n node, _ []operand) (node, sqlType, error) {
	part, args, err := r.raw(s, n, 3, "DATEDIFF(day, a, b)")
	if err != nil {
		return nil, sqlType{}, err
	}
	for i := range args {
		if args[i], err = r.moment(s, args[i]); err != nil {
			return nil, sqlType{}, err
		}
		args[i].n = castTo(r.onWallClock(args[i]).n, sqlType{kind: kindTimestamp})
	}
	return place(call("date_diff", stringConstant(part), args[0].n, args[1].n), n), sqlType{kind: kindBigint}, nil
}

func dateTrunc(r *rewriter, s *scope, n node, _ []operand) (node, sqlType, error) {
	part, args, err := r.raw(s, n, 2, "DATE_TRUNC('day', x)")
	if err != nil {
		return nil, sqlType{}, err
	}
	x, err := r.moment(s, args[0])
	if err != nil {
		return nil, sqlType{}, err
	}
	if x.t.kind == kindTimestampTZ {
		return place(call("timezone", stringConstant(r.env.zone), call("date_trunc", stringConstant(part), r.wallClock(x.n))), n), x.t, nil
	}
	t := sqlType{kind: kindTimestamp}
	return place(call("date_trunc", stringConstant(part), castTo(x.n, t)), n), t, nil
}

// datePart is DATE_PART('day', x) and EXTRACT(day FROM x).
func datePart(r *rewriter, s *scope, n node, _ []operand) (node, sqlType, error) {
	part, args, err := r.raw(s, n, 2, "DATE_PART('day', x)")
	if err != nil {
		return nil, sqlType{}, err
	}
	x := args[0]
	if x.t.kind != kindInterval {
		if x, err = r.moment(s, x); err != nil {
			return nil, sqlType{}, err
		}
	}
	t := sqlType{kind: kindBigint}
	if part == "epoch" {
		return place(call("date_part", stringConstant(part), x.n), n), sqlType{kind: kindDouble}, nil
	}
	return place(call("date_part", stringConstant(part), r.onWallClock(x).n), n), t, nil
}

func getDate(r *rewriter, _ *scope, n node, _ []operand) (node, sqlType, error) {
	r.mutable = true
	x := castTo(stringConstant(r.env.clock+"+00"), sqlType{kind: kindTimestampTZ})
	return place(r.wallClock(x), n), sqlType{kind: kindTimestamp}, nil
}

func nowCall(r *rewriter, _ *scope, n node, _ []operand) (node, sqlType, error) {
	return place(r.nowNode(), n), sqlType{kind: kindTimestampTZ}, nil
}

func clockCall(r *rewriter, _ *scope, n node, _ []operand) (node, sqlType, error) {
	r.mutable = true
	t := sqlType{kind: kindTimestampTZ}
	return place(castTo(stringConstant(r.env.clock+"+00"), t), n), t, nil
}

// wordCall is a function that stands for one of the words.
func wordCall(word string) handler {
	return func(r *rewriter, _ *scope, n node, _ []operand) (node, sqlType, error) {
		x, t, _, err := r.word(word)
		return place(x, n), t, err
	}
}

// word rewrites a function that is called without parentheses.
func (r *rewriter) word(name string) (node, sqlType, bool, error) {
	text := sqlType{kind: kindText}
	switch name {
	case "current_timestamp":
		return r.nowNode(), sqlType{kind: kindTimestampTZ}, true, nil
	case "sysdate", "localtimestamp":
		return r.wallClock(r.nowNode()), sqlType{kind: kindTimestamp}, true, nil
	case "current_date":
		t := sqlType{kind: kindDate}
		return castTo(r.wallClock(r.nowNode()), t), t, true, nil
	case "localtime", "current_time":
		t := sqlType{kind: kindTime}
		return castTo(r.wallClock(r.nowNode()), t), t, true, nil
	case "current_user", "user", "session_user", "current_role":
		return stringConstant(r.env.user), text, true, nil
	case "current_schema":
		return r.currentSchema(), text, true, nil
	case "current_catalog", "current_database":
		return stringConstant(r.env.database), text, true, nil
	}
	return nil, text, false, nil
}

func (r *rewriter) currentSchema() node {
	if len(r.env.schemas) == 0 {
		return castTo(nullConstant(), sqlType{kind: kindText})
	}
	return stringConstant(r.env.schemas[0])
}

// timezone is AT TIME ZONE.
func timezone(r *rewriter, s *scope, n node, args []operand) (node, sqlType, error) {
	if len(args) != 2 {
		return nil, sqlType{}, wrongArguments(r, n, "x AT TIME ZONE 'America/New_York'")
	}
	x := args[1]
	if x.t.kind == kindLiteral {
		text, _ := constantText(x.n)
		x = operand{r.instantLiteral(text), sqlType{kind: kindTimestampTZ}}
	}
	t, err := r.need(s, x.n, x.t)
	if err != nil {
		return nil, t, err
	}
	zone := args[0].n
	if z, ok := constantText(zone); ok {
		if loc, err := loadZone(z); err != nil {
			return nil, t, errorf(codeInvalidParameter, "time zone %q not recognized", z).hint("use a name such as America/New_York or UTC").at(r.src.position(location(n)))
		} else {
			zone = stringConstant(loc.String())
		}
	}
	if t.kind == kindDate {
		x, t = operand{r.toInstant(x.n, t), sqlType{kind: kindTimestampTZ}}, sqlType{kind: kindTimestampTZ}
	}
	out := sqlType{kind: kindTimestampTZ}
	if t.kind == kindTimestampTZ {
		out.kind = kindTimestamp
	}
	return place(call("timezone", zone, x.n), n), out, nil
}

// convertTimezone is CONVERT_TIMEZONE([from,] to, x): a timestamp.
func convertTimezone(r *rewriter, s *scope, n node, args []operand) (node, sqlType, error) {
	if len(args) != 2 && len(args) != 3 {
		return nil, sqlType{}, wrongArguments(r, n, "CONVERT_TIMEZONE(['source',] 'target', x)")
	}
	from, to := stringConstant("UTC"), args[0].n
	if len(args) == 3 {
		from, to = args[0].n, args[1].n
	}
	for _, z := range []node{from, to} {
		if text, ok := constantText(z); ok {
			if _, err := loadZone(text); err != nil {
				return nil, sqlType{}, errorf(codeInvalidParameter, "time zone %q not recognized", text).at(r.src.position(location(n)))
			}
		}
	}
	x, err := r.moment(s, args[len(args)-1])
	if err != nil {
		return nil, sqlType{}, err
	}
	instant := x.n
	if x.t.kind != kindTimestampTZ {
		instant = call("timezone", from, castTo(x.n, sqlType{kind: kindTimestamp}))
	}
	return place(call("timezone", to, instant), n), sqlType{kind: kindTimestamp}, nil
}

func addMonths(r *rewriter, s *scope, n node, args []operand) (node, sqlType, error) {
	if len(args) != 2 {
		return nil, sqlType{}, wrongArguments(r, n, "ADD_MONTHS(x, 1)")
	}
	x, err := r.moment(s, args[0])
	if err != nil {
		return nil, sqlType{}, err
	}
	x = r.onWallClock(x)
	t := sqlType{kind: kindTimestamp}
	months := castTo(args[1].n, sqlType{kind: kindInt})
	// The last day of a month stays the last day.
	moved := call("+", castTo(x.n, t), call("to_months", months))
	end := comparison("COMPARE_EQUAL", call("last_day", castTo(copyOf(x.n), t)), castTo(copyOf(x.n), sqlType{kind: kindDate}))
	clock := call("-", castTo(copyOf(x.n), t), call("date_trunc", stringConstant("day"), castTo(copyOf(x.n), t)))
	last := call("+", castTo(call("last_day", copyOf(moved)), t), clock)
	return place(caseNode(moved, end, last), n), t, nil
}

// formatCodes maps PostgreSQL's template patterns to strftime's, longest first.
var formatCodes = []struct{ pg, c string }{
	{"HH24", "%H"}, {"HH12", "%I"}, {"YYYY", "%Y"}, {"Month", "%B"}, {"DDD", "%j"}, {"Mon", "%b"}, {"Day", "%A"},
	{"HH", "%I"}, {"MI", "%M"}, {"SS", "%S"}, {"MS", "%g"}, {"US", "%f"}, {"YY", "%y"}, {"MM", "%m"}, {"DD", "%d"}, {"Dy", "%a"}, {"AM", "%p"}, {"PM", "%p"}, {"IW", "%V"},
}

func timeFormat(format string) (string, bool) {
	var b strings.Builder
scan:
	for format != "" {
		if format[0] == '"' {
			end := strings.IndexByte(format[1:], '"')
			if end < 0 {
				return "", false
			}
			b.WriteString(strings.ReplaceAll(format[1:1+end], "%", "%%"))
			format = format[end+2:]
			continue
		}
		for _, f := range formatCodes {
			if strings.HasPrefix(format, f.pg) || f.pg == strings.ToUpper(f.pg) && strings.HasPrefix(format, strings.ToLower(f.pg)) {
				b.WriteString(f.c)
				format = format[len(f.pg):]
				continue scan
			}
		}
		if c := format[0]; c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			return "", false
		} else if c == '%' {
			b.WriteByte('%')
		}
		b.WriteByte(format[0])
		format = format[1:]
	}
	return b.String(), true
}

func toChar(r *rewriter, s *scope, n node, args []operand) (node, sqlType, error) {
	if len(args) != 2 {
		return nil, sqlType{}, wrongArguments(r, n, "TO_CHAR(timestamp, 'YYYY-MM-DD')")
	}
	x, err := r.moment(s, args[0])
	if err != nil {
		return nil, sqlType{}, err
	}
	text, constant := constantText(args[1].n)
	format, ok := timeFormat(text)
	if !constant || !ok || !x.t.temporal() {
		return nil, sqlType{}, unsupported("TO_CHAR with this value or format", "it formats dates and timestamps with YYYY YY MM Mon Month DD DDD Dy Day HH24 HH12 MI SS MS US AM IW and \"text\"; cast numbers to text").
			at(r.src.position(location(n)))
	}
	return place(call("strftime", castTo(r.onWallClock(x).n, sqlType{kind: kindTimestamp}), stringConstant(format)), n), sqlType{kind: kindText}, nil
}

func toDate(r *rewriter, _ *scope, n node, args []operand) (node, sqlType, error) {
	t := sqlType{kind: kindDate}
	if len(args) != 2 {
		return nil, t, wrongArguments(r, n, "TO_DATE('2026-11-23', 'YYYY-MM-DD')")
	}
	text, constant := constantText(args[1].n)
	format, ok := timeFormat(text)
	if !constant || !ok {
		return nil, t, unsupported("TO_DATE with this format", "use YYYY MM DD Mon Month DDD").at(r.src.position(location(n)))
	}
	return place(castTo(call("strptime", args[0].n, stringConstant(format)), t), n), t, nil
}
