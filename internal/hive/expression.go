package hive

import (
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The grammar of conditions on partitions, as Glue's GetPartitions has it:
//
//	condition  = conjunction { OR conjunction }
//	conjunction = negation { AND negation }
//	negation   = NOT negation | "(" condition ")" | predicate
//	predicate  = operand comparison operand
//	           | key [NOT] IN "(" literal { "," literal } ")"
//	           | key [NOT] BETWEEN literal AND literal
//	           | key [NOT] LIKE literal
//	           | key IS [NOT] NULL
//	comparison = "=" | "<>" | "!=" | "<" | "<=" | ">" | ">="
//	literal    = number | 'text' | "text" | DATE 'text' | TIMESTAMP 'text'
//
// One operand of a comparison is a key, the other a literal. Keywords and keys are
// the same in any case. A quote within quotes is doubled. In LIKE's pattern, which
// is for text alone, % stands for any characters, _ for one, and a backslash takes
// the next character as it is.
//
// A value is compared as its key's type is: text by code points, numbers exactly,
// dates and timestamps by time; never a number as text or as a float. Null, which
// Hive spells DefaultPartition, is neither equal nor unequal to anything, and
// neither is a value that its key's type has not: as in SQL, NOT of that is not
// true either.

// Bounds of an expression.
const (
	ExpressionCharactersMax = 2048 // Glue's
	expressionDepthMax      = 100
	numberDigitsMax         = 100
)

// ErrExpression is the root of every *ExpressionError.
var ErrExpression = errors.New("invalid expression")

// ExpressionError says where an expression is not understood.
type ExpressionError struct {
	Character int // from 1
	Reason    string
}

func (e *ExpressionError) Error() string {
	return fmt.Sprintf("%v: at character %d: %s", ErrExpression, e.Character, e.Reason)
}

// Unwrap makes errors.Is(err, ErrExpression) true.
func (e *ExpressionError) Unwrap() error { return ErrExpression }

// Expression is a condition on the values of partition keys. It is immutable and
// safe for concurrent use.
type Expression struct{ root node }

// ParseExpression reads a condition on partitions of a table with these keys. An
// empty text is true for all. Errors are *ExpressionError.
func ParseExpression(text string, keys []Column) (*Expression, error) {
	if n := utf8.RuneCountInString(text); n > ExpressionCharactersMax {
		return nil, &ExpressionError{ExpressionCharactersMax + 1, fmt.Sprintf("it has %d characters, the limit is %d", n, ExpressionCharactersMax)}
	}
	if !utf8.ValidString(text) {
		return nil, &ExpressionError{1, "it is not valid UTF-8"}
	}
	p := &expressionParser{text: text, keys: keys}
	if err := p.scan(); err != nil {
		return nil, err
	}
	if p.token.kind == tokenEnd {
		return &Expression{}, nil
	}
	root, err := p.condition(0)
	if err == nil && p.token.kind != tokenEnd {
		err = p.unexpected("AND, OR or the end")
	}
	if err != nil {
		return nil, err
	}
	return &Expression{root}, nil
}

// Matches reports whether the condition is true for a partition's values, which
// stand in the order of the keys. A value that is missing counts as null.
func (e *Expression) Matches(values []string) bool {
	return e.root == nil || e.root.judge(values) == yes
}

// truth is SQL's: what is not known is neither true nor false.
type truth int8

const (
	no      truth = -1
	unknown truth = 0
	yes     truth = 1
)

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

type node interface{ judge(values []string) truth }

type (
	both    struct{ a, b node } // AND
	either  struct{ a, b node } // OR
	inverse struct{ of node }   // NOT
	// isNull is IS NULL.
	isNull struct{ key int }
	// relation compares a key with a literal.
	relation struct {
		key     int
		class   class
		literal operand
		holds   func(order int) bool
	}
	// member is IN.
	member struct {
		key      int
		class    class
		literals []operand
	}
	// like is LIKE: the parts of a pattern.
	like struct {
		key   int
		parts []likePart
	}
)

func (n both) judge(v []string) truth    { return min(n.a.judge(v), n.b.judge(v)) }
func (n either) judge(v []string) truth  { return max(n.a.judge(v), n.b.judge(v)) }
func (n inverse) judge(v []string) truth { return -n.of.judge(v) }

// valueOf is the value of a key; false if it is null.
func valueOf(values []string, key int) (string, bool) {
	if key >= len(values) || values[key] == DefaultPartition {
		return "", false
	}
	return values[key], true
}

func (n isNull) judge(values []string) truth {
	_, ok := valueOf(values, n.key)
	return truthOf(!ok)
}

func (n relation) judge(values []string) truth {
	if s, ok := valueOf(values, n.key); ok {
		if v, err := n.class.parse(s); err == nil {
			return truthOf(n.holds(v.compare(n.literal)))
		}
	}
	return unknown
}

func (n member) judge(values []string) truth {
	if s, ok := valueOf(values, n.key); ok {
		if v, err := n.class.parse(s); err == nil {
			return truthOf(slices.ContainsFunc(n.literals, func(l operand) bool { return v.compare(l) == 0 }))
		}
	}
	return unknown
}

func (n like) judge(values []string) truth {
	s, ok := valueOf(values, n.key)
	if !ok {
		return unknown
	}
	return truthOf(likeMatches(n.parts, s))
}

// likePart is one character of a pattern, or what stands for others.
type likePart struct {
	r        rune
	one, any bool
}

func likeParts(pattern string) []likePart {
	var out []likePart
	escaped := false
	for _, r := range pattern {
		switch {
		case escaped:
			out, escaped = append(out, likePart{r: r}), false
		case r == '\\':
			escaped = true
		case r == '_':
			out = append(out, likePart{one: true})
		case r == '%':
			if n := len(out); n == 0 || !out[n-1].any {
				out = append(out, likePart{any: true})
			}
		default:
			out = append(out, likePart{r: r})
		}
	}
	if escaped {
		out = append(out, likePart{r: '\\'})
	}
	return out
}

// likeMatches takes at most len(parts) times len(s) steps: only the last % is ever
// tried again.
func likeMatches(parts []likePart, text string) bool {
	s := []rune(text)
	i, j, last, from := 0, 0, -1, 0 // last: the last % before i; from: where it ends for now
	for j < len(s) {
		switch {
		case i < len(parts) && parts[i].any:
			last, from = i, j
			i++
		case i < len(parts) && (parts[i].one || parts[i].r == s[j]):
			i++
			j++
		case last >= 0:
			from++
			i, j = last+1, from
		default:
			return false
		}
	}
	for i < len(parts) && parts[i].any {
		i++
	}
	return i == len(parts)
}

// class says how a type's values compare.
type class int8

const (
	classText class = iota + 1
	classNumber
	classDate
	classTimestamp
)

var classWords = map[class]string{classText: "text", classNumber: "a number", classDate: "a date as 2026-11-20", classTimestamp: "a timestamp as 2026-11-20 09:30:00"}

// classOf reads a key's type; 0 if its values cannot be compared.
func classOf(hiveType string) class {
	word, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(hiveType)), "(")
	switch strings.TrimSpace(word) {
	case "string", "char", "varchar", "":
		return classText
	case "tinyint", "smallint", "int", "integer", "bigint", "long", "decimal", "numeric":
		return classNumber
	case "date":
		return classDate
	case "timestamp":
		return classTimestamp
	}
	return 0
}

// operand is a value of a class.
type operand struct {
	text  string
	whole int64    // a number, where big is nil; a date's days; a timestamp's seconds
	nanos int      // of a timestamp
	big   *big.Rat // a number that is not whole, or too large
}

func (a operand) compare(b operand) int {
	switch {
	case a.big != nil || b.big != nil:
		return a.rat().Cmp(b.rat())
	case a.whole != b.whole:
		return cmpInt(a.whole, b.whole)
	case a.nanos != b.nanos:
		return cmpInt(int64(a.nanos), int64(b.nanos))
	}
	return strings.Compare(a.text, b.text)
}

func (a operand) rat() *big.Rat {
	if a.big != nil {
		return a.big
	}
	return new(big.Rat).SetInt64(a.whole)
}

func cmpInt(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

var errValue = errors.New("not a value of the type")

// parse reads a value as the class has it.
func (c class) parse(s string) (operand, error) {
	switch c {
	case classText:
		return operand{text: s}, nil
	case classNumber:
		return parseNumber(s)
	case classDate:
		t, err := time.Parse(time.DateOnly, s)
		return operand{whole: t.Unix()}, err
	case classTimestamp:
		for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02T15:04:05Z07:00", "2006-01-02 15:04", time.DateOnly} {
			if t, err := time.Parse(layout, s); err == nil { // a fraction of the second may follow
				return operand{whole: t.Unix(), nanos: t.Nanosecond()}, nil
			}
		}
	}
	return operand{}, errValue
}

// parseNumber reads a decimal number, exactly.
func parseNumber(s string) (operand, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return operand{whole: n}, nil
	}
	digits, points := 0, 0
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			digits++
		case c == '.':
			points++
		case i > 0 || c != '-' && c != '+':
			return operand{}, errValue
		}
	}
	if digits == 0 || digits > numberDigitsMax || points > 1 {
		return operand{}, errValue
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return operand{}, errValue
	}
	return operand{big: r}, nil
}

type tokenKind int8

const (
	tokenEnd    tokenKind = iota
	tokenWord             // a key or a keyword
	tokenName             // `a key`
	tokenText             // 'text'
	tokenQuoted           // "text", or a key
	tokenNumber
	tokenSign // one of = <> != < <= > >= ( ) ,
)

type token struct {
	kind tokenKind
	text string
	at   int // byte
}

type expressionParser struct {
	text  string
	keys  []Column
	next  int // byte
	token token
}

func (p *expressionParser) fail(at int, format string, args ...any) error {
	return &ExpressionError{utf8.RuneCountInString(p.text[:at]) + 1, fmt.Sprintf(format, args...)}
}

func (p *expressionParser) unexpected(want string) error {
	if p.token.kind == tokenEnd {
		return p.fail(p.token.at, "it ends where %s should stand", want)
	}
	return p.fail(p.token.at, "%.40q stands where %s should", p.token.text, want)
}

// scan reads the next token.
func (p *expressionParser) scan() error {
	for p.next < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.next]) >= 0 {
		p.next++
	}
	at := p.next
	p.token = token{at: at}
	if at == len(p.text) {
		return nil
	}
	rest := p.text[at:]
	switch c := rest[0]; {
	case c == '\'' || c == '"' || c == '`':
		return p.scanQuoted(c)
	case c >= '0' && c <= '9', c == '.', (c == '-' || c == '+') && len(rest) > 1 && strings.IndexByte("0123456789.", rest[1]) >= 0:
		end := 1
		for end < len(rest) && strings.IndexByte("0123456789.", rest[end]) >= 0 {
			end++
		}
		if _, err := parseNumber(rest[:end]); err != nil {
			return p.fail(at, "%.40q is not a number", rest[:end])
		}
		if r, _ := utf8.DecodeRuneInString(rest[end:]); end < len(rest) && (r == '_' || unicode.IsLetter(r)) {
			return p.fail(at+end, "%q follows a number: put text into quotes", r)
		}
		p.token.kind, p.token.text = tokenNumber, rest[:end]
		p.next += end
		return nil
	}
	for _, sign := range []string{"<>", "!=", "<=", ">=", "=", "<", ">", "(", ")", ","} {
		if strings.HasPrefix(rest, sign) {
			p.token.kind, p.token.text = tokenSign, sign
			p.next += len(sign)
			return nil
		}
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	if end < 0 {
		end = len(rest)
	}
	if end == 0 {
		r, _ := utf8.DecodeRuneInString(rest)
		return p.fail(at, "%q is no part of an expression", r)
	}
	p.token.kind, p.token.text = tokenWord, rest[:end]
	p.next += end
	return nil
}

// scanQuoted reads what stands between quotes; a doubled quote is one.
func (p *expressionParser) scanQuoted(quote byte) error {
	var b strings.Builder
	for i := p.next + 1; i < len(p.text); i++ {
		if p.text[i] != quote {
			b.WriteByte(p.text[i])
			continue
		}
		if i+1 < len(p.text) && p.text[i+1] == quote {
			b.WriteByte(quote)
			i++
			continue
		}
		p.token.kind, p.token.text = map[byte]tokenKind{'\'': tokenText, '"': tokenQuoted, '`': tokenName}[quote], b.String()
		p.next = i + 1
		return nil
	}
	return p.fail(p.next, "a %c is not closed", quote)
}

func (p *expressionParser) keyword(words ...string) bool {
	return p.token.kind == tokenWord && slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(w, p.token.text) })
}

func (p *expressionParser) sign(text string) bool {
	return p.token.kind == tokenSign && p.token.text == text
}

// take scans over the keyword, if it is next.
func (p *expressionParser) take(word string) (bool, error) {
	if !p.keyword(word) {
		return false, nil
	}
	return true, p.scan()
}

func (p *expressionParser) want(sign string) error {
	if !p.sign(sign) {
		return p.unexpected(sign)
	}
	return p.scan()
}

func (p *expressionParser) condition(depth int) (node, error) {
	if depth > expressionDepthMax {
		return nil, p.fail(p.token.at, "it is nested deeper than %d", expressionDepthMax)
	}
	out, err := p.conjunction(depth)
	for err == nil && p.keyword("OR") {
		if err = p.scan(); err != nil {
			break
		}
		var next node
		if next, err = p.conjunction(depth); err == nil {
			out = either{out, next}
		}
	}
	return out, err
}

func (p *expressionParser) conjunction(depth int) (node, error) {
	out, err := p.negation(depth)
	for err == nil && p.keyword("AND") {
		if err = p.scan(); err != nil {
			break
		}
		var next node
		if next, err = p.negation(depth); err == nil {
			out = both{out, next}
		}
	}
	return out, err
}

func (p *expressionParser) negation(depth int) (node, error) {
	// A key may bear a keyword's name where it stands before an operator.
	not, err := p.take("NOT")
	if err != nil {
		return nil, err
	}
	if not {
		if depth > expressionDepthMax {
			return nil, p.fail(p.token.at, "it is nested deeper than %d", expressionDepthMax)
		}
		of, err := p.negation(depth + 1)
		return inverse{of}, err
	}
	if !p.sign("(") {
		return p.predicate()
	}
	if err := p.scan(); err != nil {
		return nil, err
	}
	out, err := p.condition(depth + 1)
	if err == nil {
		err = p.want(")")
	}
	return out, err
}

// key returns the index of the key that the token names, or -1.
func (p *expressionParser) key(t token) int {
	if t.kind != tokenWord && t.kind != tokenName && t.kind != tokenQuoted {
		return -1
	}
	return slices.IndexFunc(p.keys, func(k Column) bool { return strings.EqualFold(k.Name, t.text) })
}

// comparisons are the operators, by what they say of the order of key and literal.
var comparisons = map[string]func(order int) bool{
	"=":  func(order int) bool { return order == 0 },
	"<>": func(order int) bool { return order != 0 },
	"!=": func(order int) bool { return order != 0 },
	"<":  func(order int) bool { return order < 0 },
	"<=": func(order int) bool { return order <= 0 },
	">":  func(order int) bool { return order > 0 },
	">=": func(order int) bool { return order >= 0 },
}

// turned is the operator with its operands exchanged.
var turned = map[string]string{"=": "=", "<>": "<>", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

func (p *expressionParser) predicate() (node, error) {
	first := p.token
	key := p.key(first)
	if key < 0 {
		return p.reversed()
	}
	c := classOf(p.keys[key].Type)
	if err := p.scan(); err != nil {
		return nil, err
	}
	if is, err := p.take("IS"); err != nil || is {
		return p.null(key, err)
	}
	if c == 0 {
		return nil, p.fail(first.at, "the key %s has the type %s, whose values are not compared: want string, char, varchar, date, timestamp, tinyint, smallint, int, bigint or decimal", p.keys[key].Name, p.keys[key].Type)
	}
	not, err := p.take("NOT")
	if err != nil {
		return nil, err
	}
	var out node
	switch {
	case p.keyword("IN"):
		out, err = p.in(key, c)
	case p.keyword("BETWEEN"):
		out, err = p.between(key, c)
	case p.keyword("LIKE"):
		out, err = p.like(key, c)
	case !not && p.token.kind == tokenSign && comparisons[p.token.text] != nil:
		operator := p.token.text
		if err := p.scan(); err != nil {
			return nil, err
		}
		l, err := p.literal(key, c, operator != "=" && operator != "<>" && operator != "!=")
		return relation{key, c, l, comparisons[operator]}, err
	default:
		return nil, p.unexpected("an operator (=, <>, !=, <, <=, >, >=, IN, BETWEEN, LIKE, IS NULL)")
	}
	if not {
		out = inverse{out}
	}
	return out, err
}

// reversed reads a comparison whose literal comes first.
func (p *expressionParser) reversed() (node, error) {
	at, first := p.next, p.token
	if first.kind == tokenWord && !p.keyword("DATE", "TIMESTAMP") || first.kind == tokenName {
		return nil, p.fail(first.at, "%.80q is not a partition key: want one of %s", first.text, p.keyNames())
	}
	if first.kind == tokenSign || first.kind == tokenEnd {
		return nil, p.unexpected("a partition key")
	}
	// The literal's type is the key's, which follows: look ahead, and come back.
	if p.keyword("DATE", "TIMESTAMP") {
		if err := p.scan(); err != nil {
			return nil, err
		}
	}
	if err := p.scan(); err != nil {
		return nil, err
	}
	operator := p.token.text
	if p.token.kind != tokenSign || comparisons[operator] == nil {
		return nil, p.unexpected("a comparison")
	}
	if err := p.scan(); err != nil {
		return nil, err
	}
	key, last := p.key(p.token), p.token
	if key < 0 {
		return nil, p.fail(last.at, "a comparison needs a partition key: want one of %s", p.keyNames())
	}
	after := p.next
	p.next, p.token = at, first
	c := classOf(p.keys[key].Type)
	if c == 0 {
		return nil, p.fail(last.at, "the key %s has the type %s, whose values are not compared", p.keys[key].Name, p.keys[key].Type)
	}
	l, err := p.literal(key, c, operator != "=" && operator != "<>" && operator != "!=")
	if err != nil {
		return nil, err
	}
	p.next = after
	return relation{key, c, l, comparisons[turned[operator]]}, p.scan()
}

func (p *expressionParser) keyNames() string {
	if len(p.keys) == 0 {
		return "none, for the table has no partition keys"
	}
	names := make([]string, len(p.keys))
	for i, k := range p.keys {
		names[i] = k.Name
	}
	return strings.Join(names, ", ")
}

func (p *expressionParser) null(key int, err error) (node, error) {
	if err != nil {
		return nil, err
	}
	not, err := p.take("NOT")
	if err != nil {
		return nil, err
	}
	if !p.keyword("NULL") {
		return nil, p.unexpected("NULL")
	}
	var out node = isNull{key}
	if not {
		out = inverse{out}
	}
	return out, p.scan()
}

func (p *expressionParser) in(key int, c class) (node, error) {
	err := p.scan()
	if err == nil {
		err = p.want("(")
	}
	out := member{key: key, class: c}
	for err == nil {
		var l operand
		if l, err = p.literal(key, c, false); err != nil {
			break
		}
		out.literals = append(out.literals, l)
		if !p.sign(",") {
			return out, p.want(")")
		}
		err = p.scan()
	}
	return nil, err
}

func (p *expressionParser) between(key int, c class) (node, error) {
	if err := p.scan(); err != nil {
		return nil, err
	}
	low, err := p.literal(key, c, true)
	if err != nil {
		return nil, err
	}
	if and, err := p.take("AND"); err != nil || !and {
		if err == nil {
			err = p.unexpected("AND")
		}
		return nil, err
	}
	high, err := p.literal(key, c, true)
	return both{relation{key, c, low, comparisons[">="]}, relation{key, c, high, comparisons["<="]}}, err
}

func (p *expressionParser) like(key int, c class) (node, error) {
	if c != classText {
		return nil, p.fail(p.token.at, "LIKE is for text, and the key %s has the type %s", p.keys[key].Name, p.keys[key].Type)
	}
	if err := p.scan(); err != nil {
		return nil, err
	}
	if p.token.kind != tokenText && p.token.kind != tokenQuoted {
		return nil, p.unexpected("a pattern in quotes")
	}
	parts := likeParts(p.token.text)
	return like{key, parts}, p.scan()
}

// literal reads a literal of the key's type. Of text, a number without quotes can
// be equal, but has no place in its order: '9' is above '10'.
func (p *expressionParser) literal(key int, c class, ordered bool) (operand, error) {
	t := p.token
	if p.keyword("DATE", "TIMESTAMP") {
		word := strings.ToLower(t.text)
		if want := map[class]string{classDate: "date", classTimestamp: "timestamp"}[c]; word != want {
			return operand{}, p.fail(t.at, "a %s does not compare with the key %s, which has the type %s", word, p.keys[key].Name, p.keys[key].Type)
		}
		if err := p.scan(); err != nil {
			return operand{}, err
		}
		if t = p.token; t.kind != tokenText && t.kind != tokenQuoted {
			return operand{}, p.unexpected("text in quotes")
		}
	}
	switch {
	case t.kind == tokenNumber && c == classText && ordered:
		return operand{}, p.fail(t.at, "the key %s is text, which has another order than numbers: put %s into quotes, or give the key the type int, bigint or decimal", p.keys[key].Name, t.text)
	case t.kind == tokenNumber || t.kind == tokenText || t.kind == tokenQuoted:
	case p.keyword("NULL"):
		return operand{}, p.fail(t.at, "nothing compares with NULL: use IS NULL")
	case p.key(t) >= 0:
		return operand{}, p.fail(t.at, "a key is compared with a literal, not with another key")
	default:
		return operand{}, p.unexpected("a literal")
	}
	v, err := c.parse(t.text)
	if err != nil {
		return operand{}, p.fail(t.at, "%.80q is no value of the key %s, which has the type %s: want %s", t.text, p.keys[key].Name, p.keys[key].Type, classWords[c])
	}
	return v, p.scan()
}
