package columnar

import (
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"

	"github.com/tapehouse/tapehouse/internal/record"
)

// The general parser reads any document into a row, or says why not. It holds
// to RFC 8259 and accepts what encoding/json accepts, with these differences,
// all towards refusing what would change data unseen:
//   - bytes that are no UTF-8, and escaped halves of surrogate pairs, are
//     refused (encoding/json puts U+FFFD there);
//   - a column's member that stands twice is refused (encoding/json takes the
//     last); members that belong to no column may stand twice;
//   - nesting ends at MaxDepth (encoding/json: 10,000);
//   - member names are compared byte by byte.
//
// Members that belong to no column are skipped and make the batch inexact. The
// name of a derived column belongs to no column.
//
// Values: boolean takes true and false; int, long, decimal and double take a
// number, or a string that holds one in JSON's grammar; int, long and decimal
// take it only if its value is exactly representable (1.50 and 15e-1 are 1.5;
// 1e2 is the integer 100); double takes the nearest double; string, date and
// timestamptz take strings.
type parser struct {
	doc     []byte
	pos     int
	fault   fault
	scratch []byte // unescaped strings; one value at a time
	key     []byte // an unescaped key
	seen    []uint32
	stamp   uint32 // seen[col] == stamp: the member was there
	exact   bool
	order   []int // columns as they came
}

// general reads arena[start:end] into row. It returns false with d.parser.fault
// set if the document is to be rejected.
func (d *Decoder) general(b *Batch, doc []byte, row int) bool {
	p := &d.parser
	p.doc, p.pos, p.fault, p.exact = doc, 0, fault{}, true
	p.order = p.order[:0]
	p.nextStamp()
	b.clearNulls(row)
	if !utf8.Valid(doc) {
		at := 0
		for {
			r, n := utf8.DecodeRune(doc[at:])
			if r == utf8.RuneError && n == 1 {
				break
			}
			at += n
		}
		return p.fail(InvalidUTF8, at, "no UTF-8")
	}
	p.space()
	if p.pos == len(doc) {
		return p.fail(MalformedJSON, p.pos, "empty document")
	}
	if doc[p.pos] != '{' {
		return p.fail(NotAnObject, p.pos, "want an object")
	}
	p.pos++
	if !d.members(b, row) {
		return false
	}
	p.space()
	if p.pos != len(doc) {
		return p.fail(MalformedJSON, p.pos, "something follows the object")
	}
	for _, i := range d.layout.json {
		c := &d.layout.columns[i]
		if p.seen[i] == p.stamp {
			continue
		}
		if c.required {
			return p.failMember(c, MissingMember, -1, "is missing")
		}
		b.setNull(i, row)
	}
	if !d.derive(b, row, b.Doc[row]) {
		return false
	}
	b.Exact = b.Exact && p.exact
	return true
}

// nextStamp forgets which members were there.
func (p *parser) nextStamp() {
	if p.stamp++; p.stamp == 0 { // wrapped
		clear(p.seen)
		p.stamp = 1
	}
}

// members parses from behind the opening brace to behind the closing one.
func (d *Decoder) members(b *Batch, row int) bool {
	p := &d.parser
	p.space()
	if p.peek() == '}' {
		p.pos++
		return true
	}
	for {
		p.space()
		at := p.pos
		key, ok := p.string(&p.key, "a member's name")
		if !ok {
			return false
		}
		i, known := d.layout.byName[string(key)]
		p.space()
		if p.peek() != ':' {
			return p.fail(MalformedJSON, p.pos, "want a colon")
		}
		p.pos++
		p.space()
		if known {
			c := &d.layout.columns[i]
			if p.seen[i] == p.stamp {
				return p.failMember(c, DuplicateMember, at, "stands twice")
			}
			p.seen[i] = p.stamp
			p.order = append(p.order, i)
			if !d.value(b, c, i, row) {
				return false
			}
		} else {
			p.exact = false
			if !p.skip(2) {
				return false
			}
		}
		p.space()
		switch p.peek() {
		case ',':
			p.pos++
		case '}':
			p.pos++
			return true
		default:
			return p.fail(MalformedJSON, p.pos, "want a comma or a closing brace")
		}
	}
}

// value parses a column's value.
func (d *Decoder) value(b *Batch, c *column, col, row int) bool {
	p := &d.parser
	v := &b.cols[col]
	at := p.pos
	kind := c.field.Type.Kind
	switch ch := p.peek(); {
	case ch == 'n':
		if !p.literal("null") {
			return false
		}
		if c.required {
			return p.failMember(c, MissingMember, at, "is null")
		}
		b.setNull(col, row)
		return true
	case ch == 't' || ch == 'f':
		word, x := "false", int64(0)
		if ch == 't' {
			word, x = "true", 1
		}
		if !p.literal(word) {
			return false
		}
		if kind != record.Boolean {
			return p.wrongType(c, at, "a boolean")
		}
		v.ints[row] = x
		return true
	case ch == '"':
		s, ok := p.string(&p.scratch, "")
		if !ok {
			return false
		}
		return p.text(b, c, v, s, at, row)
	case ch == '-' || ch-'0' <= 9:
		n := numberLength(p.doc[p.pos:])
		if n == 0 {
			return p.fail(MalformedJSON, p.pos, "malformed number")
		}
		tok := p.doc[p.pos : p.pos+n]
		p.pos += n
		switch kind {
		case record.Int, record.Long, record.Decimal, record.Double:
			return p.number(c, v, tok, at, row)
		}
		// The number may be cut short by a malformed rest; that comes out next.
		return p.wrongType(c, at, "a number")
	case ch == '{' || ch == '[':
		if !p.skip(2) {
			return false
		}
		if ch == '[' {
			return p.wrongType(c, at, "an array")
		}
		return p.wrongType(c, at, "an object")
	default:
		return p.fail(MalformedJSON, p.pos, "want a value")
	}
}

// text stores a string's value.
func (p *parser) text(b *Batch, c *column, v *vector, s []byte, at, row int) bool {
	switch c.field.Type.Kind {
	case record.String:
		v.codes[row] = v.dict.code(s, row)
	case record.Date:
		days, ok := parseDate(s)
		if !ok {
			return p.failMember(c, BadDate, at, "want a date YYYY-MM-DD")
		}
		v.ints[row] = int64(days)
	case record.TimestampTZ:
		sec, ns, ok := parseTimestamp(s)
		if !ok {
			return p.failMember(c, BadTimestamp, at, "want an RFC 3339 time with an offset and at most 9 fraction digits")
		}
		if c.nanos {
			if !nanosFit(sec) {
				return p.failMember(c, OutOfRange, at, "beyond what nanoseconds since 1970 can hold")
			}
			v.ints[row] = sec*1e9 + int64(ns)
			break
		}
		v.ints[row] = sec*1e6 + int64(ns/1000)
		p.exact = p.exact && ns%1000 == 0
	case record.Int, record.Long, record.Decimal, record.Double:
		if n := numberLength(s); n == 0 || n != len(s) {
			return p.wrongType(c, at, "a string that holds no number")
		}
		return p.number(c, v, s, at, row)
	default:
		return p.wrongType(c, at, "a string")
	}
	return true
}

// number stores the value of tok, which matches JSON's grammar.
func (p *parser) number(c *column, v *vector, tok []byte, at, row int) bool {
	var status numberStatus
	t := c.field.Type
	switch t.Kind {
	case record.Int:
		v.ints[row], status = parseFixed(tok, 0, math.MaxInt32, true)
	case record.Long:
		v.ints[row], status = parseFixed(tok, 0, math.MaxInt64, true)
	case record.Decimal:
		v.ints[row], status = parseFixed(tok, t.Scale, uint64(c.limit-1), false)
	default:
		f, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(tok), len(tok)), 64)
		if err != nil {
			status = numberRange
		}
		v.ints[row] = int64(math.Float64bits(f))
	}
	switch status {
	case numberRange:
		return p.failMember(c, OutOfRange, at, "beyond the range of "+t.String())
	case numberInexact:
		return p.failMember(c, Inexact, at, "has digits beyond the scale of "+t.String())
	}
	return true
}

// skip checks and passes over a value that stands at the given depth.
func (p *parser) skip(depth int) bool {
	switch ch := p.peek(); {
	case ch == '{' || ch == '[':
		if depth > MaxDepth {
			return p.fail(TooDeep, p.pos, "nested deeper than "+strconv.Itoa(MaxDepth))
		}
		closing := ch + 2 // '{'+2 is '}', '['+2 is ']'
		p.pos++
		p.space()
		if p.peek() == closing {
			p.pos++
			return true
		}
		for {
			p.space()
			if ch == '{' {
				if _, ok := p.string(&p.scratch, "a member's name"); !ok {
					return false
				}
				p.space()
				if p.peek() != ':' {
					return p.fail(MalformedJSON, p.pos, "want a colon")
				}
				p.pos++
				p.space()
			}
			if !p.skip(depth + 1) {
				return false
			}
			p.space()
			switch p.peek() {
			case ',':
				p.pos++
			case closing:
				p.pos++
				return true
			default:
				return p.fail(MalformedJSON, p.pos, "want a comma or the closing bracket")
			}
		}
	case ch == '"':
		_, ok := p.string(&p.scratch, "")
		return ok
	case ch == 't':
		return p.literal("true")
	case ch == 'f':
		return p.literal("false")
	case ch == 'n':
		return p.literal("null")
	case ch == '-' || ch-'0' <= 9:
		n := numberLength(p.doc[p.pos:])
		if n == 0 {
			return p.fail(MalformedJSON, p.pos, "malformed number")
		}
		p.pos += n
		return true
	}
	return p.fail(MalformedJSON, p.pos, "want a value")
}

// string parses a string. The result aliases the document, or *buf if the
// string has escapes. what names what was wanted if there is no string.
func (p *parser) string(buf *[]byte, what string) ([]byte, bool) {
	if p.peek() != '"' {
		return nil, p.fail(MalformedJSON, p.pos, "want "+what)
	}
	p.pos++
	from := p.pos
	for p.pos+8 <= len(p.doc) {
		w := binary.LittleEndian.Uint64(p.doc[p.pos:])
		if firstOf(w, '"')|firstOf(w, '\\')|(w-0x20*ones)&^w&highs != 0 {
			break
		}
		p.pos += 8
	}
	for p.pos < len(p.doc) {
		switch c := p.doc[p.pos]; {
		case c == '"':
			p.pos++
			return p.doc[from : p.pos-1], true
		case c == '\\':
			*buf = append((*buf)[:0], p.doc[from:p.pos]...)
			return p.escaped(buf)
		case c < 0x20:
			return nil, p.fail(MalformedJSON, p.pos, "control character in a string")
		default:
			p.pos++
		}
	}
	return nil, p.fail(MalformedJSON, p.pos, "string does not end")
}

// escaped goes on with a string from its first backslash.
func (p *parser) escaped(buf *[]byte) ([]byte, bool) {
	out := *buf
	defer func() { *buf = out }()
	for p.pos < len(p.doc) {
		c := p.doc[p.pos]
		switch {
		case c == '"':
			p.pos++
			return out, true
		case c < 0x20:
			return nil, p.fail(MalformedJSON, p.pos, "control character in a string")
		case c != '\\':
			out = append(out, c)
			p.pos++
			continue
		}
		if p.pos+1 >= len(p.doc) {
			break
		}
		at := p.pos
		e := p.doc[p.pos+1]
		p.pos += 2
		switch e {
		case '"', '\\', '/':
			out = append(out, e)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, ok := p.hex4(p.pos)
			if !ok {
				return nil, p.fail(MalformedJSON, at, "malformed escape")
			}
			p.pos += 4
			if utf16.IsSurrogate(r) {
				if p.pos+1 >= len(p.doc) || p.doc[p.pos] != '\\' || p.doc[p.pos+1] != 'u' {
					return nil, p.fail(InvalidUTF8, at, "half of a surrogate pair")
				}
				low, ok := p.hex4(p.pos + 2)
				if !ok {
					return nil, p.fail(MalformedJSON, p.pos, "malformed escape")
				}
				if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
					return nil, p.fail(InvalidUTF8, at, "half of a surrogate pair")
				}
				p.pos += 6
			}
			out = utf8.AppendRune(out, r)
		default:
			return nil, p.fail(MalformedJSON, at, "malformed escape")
		}
	}
	return nil, p.fail(MalformedJSON, len(p.doc), "string does not end")
}

func (p *parser) hex4(at int) (rune, bool) {
	if at+4 > len(p.doc) {
		return 0, false
	}
	var r rune
	for _, c := range p.doc[at : at+4] {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c|0x20-'a' < 6:
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

func (p *parser) literal(word string) bool {
	if len(p.doc)-p.pos < len(word) || string(p.doc[p.pos:p.pos+len(word)]) != word {
		return p.fail(MalformedJSON, p.pos, "want a value")
	}
	p.pos += len(word)
	return true
}

func (p *parser) space() {
	for p.pos < len(p.doc) && isSpace(p.doc[p.pos]) {
		p.pos++
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

// peek returns the next byte, 0 at the end (which is no byte of JSON).
func (p *parser) peek() byte {
	if p.pos < len(p.doc) {
		return p.doc[p.pos]
	}
	return 0
}

func (p *parser) fail(code string, pos int, text string) bool {
	p.fault = fault{code: code, pos: pos, text: text}
	return false
}

func (p *parser) failMember(c *column, code string, pos int, text string) bool {
	p.fault = fault{code: code, member: c.field.Name, pos: pos, text: text}
	return false
}

func (p *parser) wrongType(c *column, at int, have string) bool {
	return p.failMember(c, WrongType, at, "is "+have+", and its column "+c.field.Type.String())
}

// numberLength returns the length of the JSON number that s begins with, 0 if
// it begins with none.
func numberLength(s []byte) int {
	i := 0
	digits := func() bool {
		from := i
		for i < len(s) && s[i]-'0' <= 9 {
			i++
		}
		return i > from
	}
	if i < len(s) && s[i] == '-' {
		i++
	}
	switch {
	case i < len(s) && s[i] == '0':
		i++
	case !digits():
		return 0
	}
	if i < len(s) && s[i] == '.' {
		i++
		if !digits() {
			return 0
		}
	}
	if i < len(s) && s[i]|0x20 == 'e' {
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		if !digits() {
			return 0
		}
	}
	return i
}
