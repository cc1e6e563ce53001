package warehouse

import (
	"math/big"
	"sort"
	"strings"
)

// A form is a piece of Redshift or PostgreSQL grammar that DuckDB's parser
// does not read. It is recognised by its first word and rewritten on tokens;
// everything that DuckDB parses, whatever it means to it, is left for the walk
// over the syntax tree (rewrite.go).
type form struct {
	word string
	// rewrite looks at d.in[i], which is word. It answers how many tokens it
	// consumed (0: not this form) after it appended what stands for them.
	rewrite func(d *dialect, i int) (int, error)
}

// forms is the table that grows. The first that answers wins.
var forms []form

func init() {
	forms = []form{
		{"select", (*dialect).top},
		{"minus", (*dialect).minus},
		{"operator", (*dialect).operator},
		{"collate", (*dialect).collate},
		{"listagg", (*dialect).listagg},
		{"approximate", (*dialect).approximate},
		{"similar", (*dialect).similar},
		{"convert", (*dialect).convert},
		{"pg_catalog", (*dialect).qualifiedType},
		{"numeric", (*dialect).bareNumeric},
		{"decimal", (*dialect).bareNumeric},
		{"dec", (*dialect).bareNumeric},
	}
}

// dialect rewrites the tokens of one query.
type dialect struct {
	sql    string
	in     []token
	out    []token
	match  []int       // index of the token that closes the bracket at i, or -1
	limits map[int]top // index of the token before which a TOP becomes a LIMIT
}

type top struct{ tokens []token }

// duckdbText rewrites a query's tokens to text that DuckDB's parser reads, and
// remembers where each piece came from.
func duckdbText(sql string, tokens []token) (mappedText, error) {
	d := dialect{sql: sql, in: tokens, limits: map[int]top{}}
	if n := len(tokens); n == 0 || tokens[n-1].kind != tokenEOF {
		end := token{kind: tokenEOF}
		if n > 0 {
			end.start, end.end = tokens[n-1].end, tokens[n-1].end
		}
		d.in = append(append([]token{}, tokens...), end)
	}
	if err := d.pair(); err != nil {
		return mappedText{}, err
	}
	if err := d.run(0, len(d.in)); err != nil {
		return mappedText{}, err
	}
	return mapText(sql, d.out), nil
}

// pair finds the closing bracket of each opening one.
func (d *dialect) pair() error {
	d.match = make([]int, len(d.in))
	var open []int
	for i, t := range d.in {
		d.match[i] = -1
		switch {
		case t.punct("("), t.punct("["), t.punct("{"):
			open = append(open, i)
		case t.punct(")"), t.punct("]"), t.punct("}"):
			if len(open) == 0 {
				return syntaxError(d.sql, t.start, "syntax error at or near %q", t.value)
			}
			d.match[open[len(open)-1]] = i
			open = open[:len(open)-1]
		case t.punct(";"):
			return syntaxError(d.sql, t.start, "cannot insert multiple commands into a prepared statement")
		}
	}
	if len(open) > 0 {
		return syntaxError(d.sql, len(d.sql), "syntax error at end of input")
	}
	return nil
}

func (d *dialect) run(from, to int) error {
	for i := from; i < to; {
		if l, ok := d.limits[i]; ok {
			d.add(d.in[i], tokenIdent, "limit")
			d.out = append(d.out, l.tokens...)
			delete(d.limits, i)
		}
		t := d.in[i]
		switch t.kind {
		case tokenEOF:
			return nil
		case tokenNumber:
			text, err := exactNumber(d.sql, t)
			if err != nil {
				return err
			}
			t.value = text
		case tokenIdent:
			n, err := d.apply(t.value, i)
			if err != nil {
				return err
			}
			if n > 0 {
				i += n
				continue
			}
			if next := d.at(i + 1); duckdbKeywords[t.value] && !next.punct("(") && (t.value != "at" || !next.is("time") || !d.at(i+2).is("zone")) {
				t.kind = tokenQuoted
			}
		}
		d.out = append(d.out, t)
		i++
	}
	return nil
}

func (d *dialect) apply(word string, i int) (int, error) {
	for _, f := range forms {
		if f.word != word {
			continue
		}
		if n, err := f.rewrite(d, i); n > 0 || err != nil {
			return n, err
		}
	}
	return 0, nil
}

// duckdbKeywords are names to PostgreSQL and keywords to DuckDB.
var duckdbKeywords = map[string]bool{"describe": true, "lambda": true, "pivot_longer": true, "pivot_wider": true, "show": true, "summarize": true, "unpivot": true,
	"anti": true, "asof": true, "at": true, "columns": true, "generated": true, "glob": true, "map": true, "positional": true, "semi": true, "struct": true, "unpack": true}

// add appends a token that stands for the source at like.
func (d *dialect) add(like token, kind tokenKind, value string) {
	d.out = append(d.out, token{kind: kind, space: true, start: like.start, end: like.end, value: value})
}

// at is the token at i, or the end.
func (d *dialect) at(i int) token {
	if i >= 0 && i < len(d.in) {
		return d.in[i]
	}
	return token{kind: tokenEOF, start: len(d.sql), end: len(d.sql)}
}

// exactNumber writes a literal with an exponent as the exact decimal that it
// is in PostgreSQL; DuckDB would read a double. It refuses what 38 digits
// cannot hold instead of letting it become a double.
func exactNumber(sql string, t token) (string, error) {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(t.value), "e")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	e := 0
	if exponent != "" {
		n, ok := new(big.Int).SetString(strings.TrimPrefix(exponent, "+"), 10)
		if !ok || !n.IsInt64() || n.Int64() > 1000 || n.Int64() < -1000 {
			return "", numberTooWide(sql, t)
		}
		e = int(n.Int64())
	}
	if exponent == "" && fraction == "" && !strings.Contains(mantissa, ".") {
		if len(strings.TrimLeft(whole, "0")) > 38 {
			return "", numberTooWide(sql, t)
		}
		return t.value, nil
	}
	digits := whole + fraction
	point := len(whole) + e
	for point < 0 {
		digits, point = "0"+digits, point+1
	}
	for point > len(digits) {
		digits += "0"
	}
	w := strings.TrimLeft(digits[:point], "0")
	f := digits[point:]
	if len(w)+len(f) > 38 {
		return "", numberTooWide(sql, t)
	}
	if w == "" {
		w = "0"
	}
	if f == "" && len(w) < 38 {
		f = "0" // else it would be an integer, and divide as one
	}
	return w + "." + f, nil
}

func numberTooWide(sql string, t token) error {
	return errorf(codeNumericOutOfRange, "numeric literal %s has more than 38 digits", t.value).
		hint("cast a string to DOUBLE PRECISION if an approximate value will do").at(position(sql, t.start))
}

// top rewrites SELECT TOP n … to SELECT … LIMIT n.
func (d *dialect) top(i int) (int, error) {
	at := i + 1
	distinct := d.at(at).is("distinct") || d.at(at).is("all")
	if distinct {
		at++
	}
	if !d.at(at).is("top") {
		return 0, nil
	}
	var n []token
	next := at + 1
	switch t := d.at(next); {
	case t.kind == tokenNumber || t.kind == tokenParam:
		n = []token{t}
	case t.punct("("):
		n = d.in[next : d.match[next]+1]
		next = d.match[next]
	default:
		return 0, nil // a column that is named top
	}
	next++
	end := next
	for end < len(d.in)-1 && !d.in[end].punct(")") {
		t := d.in[end]
		if t.is("union") || t.is("intersect") || t.is("except") || t.is("minus") {
			return 0, unsupported("TOP in a branch of a set operation", "put the branch in parentheses with LIMIT").at(position(d.sql, d.in[at].start))
		}
		if t.is("limit") {
			return 0, errorf(codeSyntax, "TOP and LIMIT in one query").at(position(d.sql, t.start))
		}
		if d.match[end] > 0 {
			end = d.match[end]
		}
		end++
	}
	d.out = append(d.out, d.in[i:at]...)
	for j := range n {
		n[j].space = true
	}
	d.limits[end] = top{n}
	if end == len(d.in)-1 || end < len(d.in) {
		// run emits the LIMIT when it reaches end; the end token itself is
		// never consumed by another form, because it closes this one.
		if d.in[end].kind == tokenEOF {
			if err := d.run(next, end); err != nil {
				return 0, err
			}
			d.add(d.in[i], tokenIdent, "limit")
			d.out = append(d.out, n...)
			delete(d.limits, end)
			return end - i, nil
		}
	}
	return next - i, nil
}

// minus rewrites MINUS, Redshift's other word for EXCEPT.
func (d *dialect) minus(i int) (int, error) {
	next := d.at(i + 1)
	if i == 0 || !next.is("select") && !next.is("values") && !next.is("with") && (!next.punct("(") || !d.at(i+2).is("select")) {
		return 0, nil
	}
	if p := d.at(i - 1); p.kind == tokenOperator || p.punct(",") || p.punct(".") || p.punct("(") || p.is("as") || p.is("select") {
		return 0, nil
	}
	d.add(d.in[i], tokenIdent, "except")
	return 1, nil
}

// operator rewrites OPERATOR(schema.op), as psql writes it, to op.
func (d *dialect) operator(i int) (int, error) {
	if !d.at(i + 1).punct("(") {
		return 0, nil
	}
	end := d.match[i+1]
	op := d.at(end - 1)
	if op.kind != tokenOperator || end != i+3 && (end != i+5 || !d.at(i+3).punct(".") || !d.at(i+2).is("pg_catalog")) {
		return 0, syntaxError(d.sql, d.in[i].start, "syntax error at or near \"OPERATOR\"")
	}
	d.add(op, tokenOperator, op.value)
	return end + 1 - i, nil
}

// collate drops the collations that mean the database's own order.
func (d *dialect) collate(i int) (int, error) {
	at := i + 1
	if d.at(at).is("pg_catalog") && d.at(at+1).punct(".") {
		at += 2
	}
	switch t := d.at(at); {
	case t.name() && (t.value == "default" || t.value == "C" || t.value == "c" || t.value == "POSIX" || t.value == "ucs_basic"):
		return at + 1 - i, nil
	case t.name():
		return 0, errorf(codeUndefinedObject, "collation %q for encoding \"UTF8\" does not exist", t.value).
			hint("strings are ordered by their bytes; leave COLLATE out or use lower()").at(position(d.sql, t.start))
	}
	return 0, nil
}

// listagg rewrites LISTAGG([DISTINCT] x [, d]) [WITHIN GROUP (ORDER BY …)].
func (d *dialect) listagg(i int) (int, error) {
	if !d.at(i + 1).punct("(") {
		return 0, nil
	}
	end := d.match[i+1]
	d.add(d.in[i], tokenIdent, "listagg")
	d.out = append(d.out, d.in[i+1])
	delimited := false
	for j := i + 2; j < end; j++ {
		if d.match[j] > 0 {
			j = d.match[j]
			continue
		}
		delimited = delimited || d.in[j].punct(",")
	}
	if err := d.run(i+2, end); err != nil {
		return 0, err
	}
	if !delimited {
		d.add(d.in[end], tokenPunct, ",")
		d.add(d.in[end], tokenString, "")
	}
	next := end + 1
	if d.at(next).is("within") && d.at(next+1).is("group") && d.at(next+2).punct("(") {
		close := d.match[next+2]
		if err := d.run(next+3, close); err != nil {
			return 0, err
		}
		next = close + 1
	}
	d.out = append(d.out, d.in[end])
	return next - i, nil
}

// approximate rewrites APPROXIMATE COUNT(DISTINCT x).
func (d *dialect) approximate(i int) (int, error) {
	if !d.at(i+1).is("count") || !d.at(i+2).punct("(") || !d.at(i+3).is("distinct") {
		return 0, nil
	}
	d.add(d.in[i], tokenIdent, "approx_count_distinct")
	d.out = append(d.out, d.in[i+2])
	return 4, nil
}

// qualifiedType drops the schema of a type in x::pg_catalog.text, which DuckDB
// reads only of types that are no keywords.
func (d *dialect) qualifiedType(i int) (int, error) {
	if !d.at(i+1).punct(".") || !d.at(i-1).punct("::") {
		return 0, nil
	}
	return 2, nil
}

// bareNumeric gives NUMERIC without modifiers Redshift's (18,0) in a cast;
// DuckDB's is (18,3).
func (d *dialect) bareNumeric(i int) (int, error) {
	before, after := d.at(i-1), d.at(i+1)
	if i == 0 || after.punct("(") || !before.punct("::") && (!before.is("as") || !after.punct(")")) &&
		(!before.punct(".") || !d.at(i-2).is("pg_catalog") || !d.at(i-3).punct("::")) {
		return 0, nil
	}
	d.out = append(d.out, d.in[i])
	for _, t := range []struct {
		kind  tokenKind
		value string
	}{{tokenPunct, "("}, {tokenNumber, "18"}, {tokenPunct, ","}, {tokenNumber, "0"}, {tokenPunct, ")"}} {
		d.add(d.in[i], t.kind, t.value)
	}
	return 1, nil
}

func (d *dialect) similar(i int) (int, error) {
	if !d.at(i + 1).is("to") {
		return 0, nil
	}
	return 0, unsupported("SIMILAR TO", "use LIKE, or a regular expression with ~").at(position(d.sql, d.in[i].start))
}

// convert rewrites Redshift's CONVERT(type, x) to CAST(x AS type).
func (d *dialect) convert(i int) (int, error) {
	if !d.at(i + 1).punct("(") {
		return 0, nil
	}
	end, comma := d.match[i+1], -1
	for j := i + 2; j < end; j++ {
		if d.match[j] > 0 {
			j = d.match[j]
		} else if d.in[j].punct(",") {
			comma = j
			break
		}
	}
	if comma < 0 {
		return 0, nil
	}
	d.add(d.in[i], tokenIdent, "cast")
	d.out = append(d.out, d.in[i+1])
	if err := d.run(comma+1, end); err != nil {
		return 0, err
	}
	d.add(d.in[comma], tokenIdent, "as")
	for _, t := range d.in[i+2 : comma] {
		t.space = true
		d.out = append(d.out, t)
	}
	d.out = append(d.out, d.in[end])
	return end + 1 - i, nil
}

// mappedText is a rewritten text that remembers, for each of its tokens, the
// byte offset in the client's statement.
type mappedText struct {
	text    string
	sql     string
	offsets [][2]int // ascending: offset in text, offset in sql
}

func mapText(sql string, tokens []token) mappedText {
	m := mappedText{sql: sql}
	var b strings.Builder
	for i, t := range tokens {
		if i > 0 && (t.space || glue(tokens[i-1], t)) {
			b.WriteByte(' ')
		}
		m.offsets = append(m.offsets, [2]int{b.Len(), t.start})
		one := t
		one.space = false
		b.WriteString(render([]token{one}))
	}
	m.text = b.String()
	return m
}

// position maps a byte offset of the rewritten text to the 1-based character
// of the client's statement.
func (m mappedText) position(offset int) int {
	i := sort.Search(len(m.offsets), func(i int) bool { return m.offsets[i][0] > offset })
	if i == 0 {
		return 0
	}
	return position(m.sql, m.offsets[i-1][1])
}
