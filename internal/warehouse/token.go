package warehouse

import (
	"strings"
	"unicode/utf8"
)

// tokenKind tells the lexical classes of PostgreSQL apart.
type tokenKind uint8

const (
	tokenEOF      tokenKind = iota
	tokenIdent              // unquoted; value is folded to lower case
	tokenQuoted             // "quoted"; value without the quotes
	tokenString             // any of '' E'' $tag$; value is decoded
	tokenNumber             // value is the text
	tokenParam              // $1; value is "1"
	tokenOperator           // one of PostgreSQL's operator names, or :: and :=
	tokenPunct              // ( ) [ ] , ; . : and braces
)

// token is one lexical element. Start and end are byte offsets in the text
// that was given to tokenize; space tells that white space or a comment stood
// in front of it.
type token struct {
	kind       tokenKind
	space      bool
	start, end int
	value      string
}

// statementBytesMax bounds what one statement may cost to read. A larger load
// belongs in COPY or in the ingestion API.
const statementBytesMax = 16 << 20

// nestingMax bounds parentheses, which every recursive step below relies on.
const nestingMax = 200

// is reports whether the token is the unquoted word w (lower case).
func (t token) is(w string) bool { return t.kind == tokenIdent && t.value == w }

// punct reports whether the token is the punctuation or operator s.
func (t token) punct(s string) bool {
	return (t.kind == tokenPunct || t.kind == tokenOperator) && t.value == s
}

// name reports whether the token can name something.
func (t token) name() bool { return t.kind == tokenIdent || t.kind == tokenQuoted }

// lexer walks over the text by PostgreSQL's lexical rules (manual, 4.1).
type lexer struct {
	sql string
	pos int
}

// tokenize splits sql into tokens; the last one is tokenEOF. Comments are
// dropped. Errors carry 42601 and a position.
func tokenize(sql string) ([]token, error) {
	if len(sql) > statementBytesMax {
		return nil, errorf(codeLimitExceeded, "statement of %d bytes is longer than %d", len(sql), statementBytesMax).
			hint("load data with COPY or through the Firehose API")
	}
	if !utf8.ValidString(sql) {
		return nil, errorf("22021", "invalid byte sequence for encoding \"UTF8\"")
	}
	if i := strings.IndexByte(sql, 0); i >= 0 {
		return nil, syntaxError(sql, i, "a statement cannot contain a zero byte")
	}
	x := lexer{sql: sql}
	tokens := make([]token, 0, len(sql)/5+2)
	depth := 0
	for {
		space, err := x.skip()
		if err != nil {
			return nil, err
		}
		t := token{start: x.pos, space: space}
		if x.pos >= len(sql) {
			t.end = x.pos
			return append(tokens, t), nil
		}
		if err := x.next(&t); err != nil {
			return nil, err
		}
		t.end = x.pos
		switch {
		case t.punct("(") || t.punct("[") || t.punct("{"):
			if depth++; depth > nestingMax {
				return nil, errorf(codeTooComplex, "statement nests deeper than %d", nestingMax).at(position(sql, t.start))
			}
		case t.punct(")") || t.punct("]") || t.punct("}"):
			depth--
		}
		// 'a' newline 'b' is one string.
		if n := len(tokens); t.kind == tokenString && n > 0 && tokens[n-1].kind == tokenString && sql[t.start] == '\'' &&
			strings.ContainsAny(sql[tokens[n-1].end:t.start], "\n\r") {
			tokens[n-1].value += t.value
			tokens[n-1].end = t.end
			continue
		}
		tokens = append(tokens, t)
	}
}

func syntaxError(sql string, at int, format string, args ...any) *Error {
	return errorf(codeSyntax, format, args...).at(position(sql, at))
}

// position is the 1-based character of a byte offset.
func position(sql string, at int) int {
	return utf8.RuneCountInString(sql[:min(at, len(sql))]) + 1
}

// skip passes over white space and comments, which nest.
func (x *lexer) skip() (bool, error) {
	from := x.pos
	for x.pos < len(x.sql) {
		switch c := x.sql[x.pos]; {
		case isSpace(c):
			x.pos++
		case strings.HasPrefix(x.sql[x.pos:], "--"):
			if n := strings.IndexAny(x.sql[x.pos:], "\n\r"); n >= 0 {
				x.pos += n
			} else {
				x.pos = len(x.sql)
			}
		case strings.HasPrefix(x.sql[x.pos:], "/*"):
			if err := x.comment(); err != nil {
				return false, err
			}
		default:
			return x.pos > from, nil
		}
	}
	return x.pos > from, nil
}

func (x *lexer) comment() error {
	from, depth := x.pos, 0
	for x.pos < len(x.sql) {
		switch {
		case strings.HasPrefix(x.sql[x.pos:], "/*"):
			depth++
			x.pos += 2
		case strings.HasPrefix(x.sql[x.pos:], "*/"):
			depth--
			x.pos += 2
			if depth == 0 {
				return nil
			}
		default:
			x.pos++
		}
	}
	return syntaxError(x.sql, from, "unterminated /* comment")
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isStart(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}
func isWord(c byte) bool { return isStart(c) || isDigit(c) || c == '$' }

const operatorBytes = "+-*/<>=~!@#%^&|`?"

func (x *lexer) peek(n int) byte {
	if x.pos+n < len(x.sql) {
		return x.sql[x.pos+n]
	}
	return 0
}

func (x *lexer) next(t *token) error {
	c := x.sql[x.pos]
	switch {
	case c == '\'':
		return x.str(t, false)
	case (c == 'e' || c == 'E') && x.peek(1) == '\'':
		x.pos++
		return x.str(t, true)
	case (c == 'b' || c == 'B' || c == 'x' || c == 'X') && x.peek(1) == '\'':
		return unsupported("a bit-string literal", "write the number in decimal").at(position(x.sql, x.pos))
	case (c == 'u' || c == 'U') && x.peek(1) == '&' && (x.peek(2) == '\'' || x.peek(2) == '"'):
		return unsupported("U& escaping", `write the character itself, or use E'\u....'`).at(position(x.sql, x.pos))
	case isStart(c):
		from := x.pos
		for x.pos < len(x.sql) && isWord(x.sql[x.pos]) {
			x.pos++
		}
		t.kind, t.value = tokenIdent, foldASCII(x.sql[from:x.pos])
	case c == '"':
		return x.quoted(t)
	case isDigit(c) || c == '.' && isDigit(x.peek(1)):
		return x.number(t)
	case c == '$':
		return x.dollar(t)
	case strings.IndexByte("()[],;.{}", c) >= 0:
		x.pos++
		t.kind, t.value = tokenPunct, x.sql[x.pos-1:x.pos]
	case c == ':':
		n := 1
		if x.peek(1) == ':' || x.peek(1) == '=' {
			n = 2
		}
		t.kind, t.value = tokenOperator, x.sql[x.pos:x.pos+n]
		x.pos += n
	case strings.IndexByte(operatorBytes, c) >= 0:
		x.operator(t)
	default:
		return syntaxError(x.sql, x.pos, "syntax error at or near %q", string(c))
	}
	return nil
}

// foldASCII lowers A to Z only, as PostgreSQL does in a UTF-8 database.
func foldASCII(s string) string {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if b[i] >= 'A' && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

func (x *lexer) str(t *token, escapes bool) error {
	from := x.pos
	x.pos++
	var b strings.Builder
	for x.pos < len(x.sql) {
		switch c := x.sql[x.pos]; {
		case c == '\'' && x.peek(1) == '\'':
			b.WriteByte('\'')
			x.pos += 2
		case c == '\'':
			x.pos++
			t.kind, t.value = tokenString, b.String()
			if !utf8.ValidString(t.value) || strings.IndexByte(t.value, 0) >= 0 {
				return errorf("22021", "invalid byte sequence for encoding \"UTF8\" in a string literal").at(position(x.sql, from))
			}
			return nil
		case c == '\\' && escapes:
			if err := x.escape(&b); err != nil {
				return err
			}
		default:
			b.WriteByte(c)
			x.pos++
		}
	}
	return syntaxError(x.sql, from, "unterminated quoted string")
}

// escape reads one backslash sequence of an E string.
func (x *lexer) escape(b *strings.Builder) error {
	at := x.pos
	c := x.peek(1)
	x.pos += 2
	if i := strings.IndexByte("bfnrt", c); i >= 0 && c != 0 {
		b.WriteByte("\b\f\n\r\t"[i])
		return nil
	}
	switch {
	case c == 0:
		return syntaxError(x.sql, at, "unterminated quoted string")
	case c == 'x' || c == 'u' || c == 'U':
		most := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
		v, n := 0, 0
		for n < most && x.pos < len(x.sql) && hexValue(x.sql[x.pos]) >= 0 {
			v = v<<4 | hexValue(x.sql[x.pos])
			x.pos++
			n++
		}
		if n == 0 || c != 'x' && (n != most || !utf8.ValidRune(rune(v))) {
			return errorf("22025", "invalid escape sequence in a string").at(position(x.sql, at))
		}
		if c == 'x' {
			b.WriteByte(byte(v))
		} else {
			b.WriteRune(rune(v))
		}
	case c >= '0' && c <= '7':
		v := int(c - '0')
		for n := 1; n < 3 && x.pos < len(x.sql) && x.sql[x.pos] >= '0' && x.sql[x.pos] <= '7'; n++ {
			v = v<<3 | int(x.sql[x.pos]-'0')
			x.pos++
		}
		b.WriteByte(byte(v))
	default:
		b.WriteByte(c)
	}
	return nil
}

func hexValue(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func (x *lexer) quoted(t *token) error {
	from := x.pos
	x.pos++
	var b strings.Builder
	for x.pos < len(x.sql) {
		c := x.sql[x.pos]
		if c != '"' {
			b.WriteByte(c)
			x.pos++
			continue
		}
		if x.peek(1) != '"' {
			x.pos++
			if b.Len() == 0 {
				return syntaxError(x.sql, from, "zero-length delimited identifier")
			}
			t.kind, t.value = tokenQuoted, b.String()
			return nil
		}
		b.WriteByte('"')
		x.pos += 2
	}
	return syntaxError(x.sql, from, "unterminated quoted identifier")
}

func (x *lexer) number(t *token) error {
	from := x.pos
	digits := func() {
		for x.pos < len(x.sql) && isDigit(x.sql[x.pos]) {
			x.pos++
		}
	}
	digits()
	if x.peek(0) == '.' && x.peek(1) != '.' {
		x.pos++
		digits()
	}
	if c := x.peek(0); c == 'e' || c == 'E' {
		n := 1
		if s := x.peek(1); s == '+' || s == '-' {
			n = 2
		}
		if isDigit(x.peek(n)) {
			x.pos += n
			digits()
		}
	}
	if x.pos < len(x.sql) && isStart(x.sql[x.pos]) {
		return syntaxError(x.sql, from, "trailing junk after numeric literal at or near %q", x.sql[from:x.pos+1])
	}
	t.kind, t.value = tokenNumber, x.sql[from:x.pos]
	return nil
}

// dollar reads $1 or a $tag$ string.
func (x *lexer) dollar(t *token) error {
	from := x.pos
	if isDigit(x.peek(1)) {
		x.pos++
		for x.pos < len(x.sql) && isDigit(x.sql[x.pos]) {
			x.pos++
		}
		if x.pos-from > 6 {
			return syntaxError(x.sql, from, "there is no parameter %s", x.sql[from:x.pos])
		}
		t.kind, t.value = tokenParam, x.sql[from+1:x.pos]
		return nil
	}
	n := 1
	for from+n < len(x.sql) && isWord(x.sql[from+n]) && x.sql[from+n] != '$' {
		n++
	}
	if from+n >= len(x.sql) || x.sql[from+n] != '$' {
		return syntaxError(x.sql, from, "syntax error at or near \"$\"")
	}
	tag := x.sql[from : from+n+1]
	body := x.sql[from+n+1:]
	end := strings.Index(body, tag)
	if end < 0 {
		return syntaxError(x.sql, from, "unterminated dollar-quoted string")
	}
	x.pos = from + len(tag) + end + len(tag)
	t.kind, t.value = tokenString, body[:end]
	return nil
}

// operator takes the longest run of operator bytes that stops before a comment
// and does not end in + or - unless one of ~!@#%^&|`? is in it (manual, 4.1.3).
func (x *lexer) operator(t *token) {
	from := x.pos
	n := 0
	for from+n < len(x.sql) && strings.IndexByte(operatorBytes, x.sql[from+n]) >= 0 {
		if rest := x.sql[from+n:]; n > 0 && (strings.HasPrefix(rest, "--") || strings.HasPrefix(rest, "/*")) {
			break
		}
		n++
	}
	op := x.sql[from : from+n]
	if !strings.ContainsAny(op, "~!@#%^&|`?") {
		for len(op) > 1 && (op[len(op)-1] == '+' || op[len(op)-1] == '-') {
			op = op[:len(op)-1]
		}
	}
	x.pos = from + len(op)
	t.kind, t.value = tokenOperator, op
}

// Split cuts a simple query into its statements at the semicolons that stand
// outside of strings, comments and parentheses. Empty statements are dropped.
func Split(sql string) ([]string, error) {
	tokens, err := tokenize(sql)
	if err != nil {
		return nil, err
	}
	var out []string
	from, depth := -1, 0
	for i, t := range tokens {
		switch {
		case t.kind == tokenEOF, t.punct(";") && depth <= 0:
			if from >= 0 {
				out = append(out, sql[tokens[from].start:tokens[i-1].end])
			}
			from, depth = -1, 0
			continue
		case t.punct("("):
			depth++
		case t.punct(")"):
			depth--
		}
		if from < 0 {
			from = i
		}
	}
	return out, nil
}

// quoteIdent writes a name so that both dialects read exactly it.
func quoteIdent(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// quoteLiteral writes a string literal.
func quoteLiteral(s string) string { return `'` + strings.ReplaceAll(s, `'`, `''`) + `'` }

// render writes tokens back as text, without comments, with every string in
// the plain form that DuckDB's parser reads too.
func render(tokens []token) string {
	var b strings.Builder
	for i, t := range tokens {
		if t.kind == tokenEOF {
			break
		}
		if i > 0 && (t.space || glue(tokens[i-1], t)) {
			b.WriteByte(' ')
		}
		switch t.kind {
		case tokenQuoted:
			b.WriteString(quoteIdent(t.value))
		case tokenString:
			b.WriteString(quoteLiteral(t.value))
		case tokenParam:
			b.WriteString("$" + t.value)
		default:
			b.WriteString(t.value)
		}
	}
	return b.String()
}

// glue reports whether a and b would read as something else if no space stood
// between them.
func glue(a, b token) bool {
	word := func(k tokenKind) bool {
		return k == tokenIdent || k == tokenNumber || k == tokenParam || k == tokenString || k == tokenQuoted
	}
	return word(a.kind) && word(b.kind) || a.kind == tokenOperator && b.kind == tokenOperator
}
