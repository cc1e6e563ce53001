package serde

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// cellsMax bounds the cells of one document, which a hostile one could otherwise make
// many: [{},{},…] in an array of wide structs.
const cellsMax = 1 << 20

// cell is a value converted to its column's type: a node of a tree in one slice, the
// children of a node side by side.
type cell struct {
	valid bool
	first int32  // array, map, struct: index of the first child
	count int32  // array: elements; map: keys and elements together
	hi    uint64 // decimal
	lo    uint64 // integers, days, nanoseconds, bits of floats, decimal
	text  []byte
}

// Decoder reads records by a Converter. It is not safe for concurrent use.
type Decoder struct {
	c       *Converter
	scan    scanner
	cells   []cell
	names   map[string]string // of members, as they came → in compared form; bounded
	chosen  []int32           // a struct's values, by field; used as a stack
	scratch []byte            // texts that were made rather than found
}

// NewDecoder returns a Decoder.
func (c *Converter) NewDecoder() *Decoder {
	return &Decoder{c: c, names: map[string]string{}}
}

// Check reports whether a record can be converted, and how many documents it holds.
// The error is a *RecordError.
func (d *Decoder) Check(record []byte) (documents int, err error) {
	return d.each(record, nil)
}

// each converts a record's documents one by one and calls fn, if not nil, with each.
// The row is in cells[0] until the next.
func (d *Decoder) each(record []byte, fn func()) (documents int, err error) {
	d.release()
	if !d.scan.begin(record) {
		return 0, d.parseError()
	}
	for d.scan.more() {
		if !d.scan.document() {
			return documents, d.parseError()
		}
		if err := d.row(); err != nil {
			return documents, err
		}
		if fn != nil {
			fn()
		}
		documents++
	}
	if documents == 0 {
		d.scan.fail(0, "the record is empty")
		return 0, d.parseError()
	}
	return documents, nil
}

func (d *Decoder) parseError() error {
	return &RecordError{Code: ParseError, Message: "Encountered malformed JSON. " + d.scan.fault}
}

// Documents parts a record into its documents, which alias it: Firehose's record
// deaggregation of type JSON. All must be objects. The error is a *RecordError.
func Documents(record []byte) ([][]byte, error) {
	d := Decoder{}
	if !d.scan.begin(record) {
		return nil, d.parseError()
	}
	var documents [][]byte
	for d.scan.more() {
		start := d.scan.pos
		if !d.scan.document() {
			return nil, d.parseError()
		}
		if kind := d.scan.values[0].kind; kind != '{' {
			return nil, notAnObject(kind, int32(start))
		}
		documents = append(documents, record[start:d.scan.pos:d.scan.pos])
	}
	if len(documents) == 0 {
		d.scan.fail(0, "the record is empty")
		return nil, d.parseError()
	}
	return documents, nil
}

func notAnObject(kind byte, at int32) error {
	return &RecordError{Code: MalformedData, Message: fmt.Sprintf("Data does not match the schema. A JSON object is required, not %s at byte %d", kindText(kind), at)}
}

// Buffers that one large record left behind are not kept for ever.
const (
	keepValues    = 1 << 14
	keepBytes     = 1 << 20
	keepNames     = 1 << 12
	keepNameBytes = 128
)

func (d *Decoder) release() {
	if cap(d.scan.values) > keepValues {
		d.scan.values = nil
	}
	if cap(d.cells) > keepValues {
		d.cells = nil
	}
	if cap(d.scan.text) > keepBytes {
		d.scan.text = nil
	}
	if cap(d.scratch) > keepBytes {
		d.scratch = nil
	}
}

// mismatch is a RecordError in the making: on its way out of the tree each level puts
// its name before member.
type mismatch struct {
	member string
	text   string
}

func (m *mismatch) within(name string) *mismatch {
	switch {
	case m.member == "":
		m.member = name
	case m.member[0] == '[':
		m.member = name + m.member
	default:
		m.member = name + "." + m.member
	}
	return m
}

func (m *mismatch) element(index int) *mismatch { return m.within("[" + strconv.Itoa(index) + "]") }

// row converts the scanned document into cells.
func (d *Decoder) row() error {
	d.cells, d.scratch, d.chosen = d.cells[:0], d.scratch[:0], d.chosen[:0]
	root := &d.scan.values[0]
	if root.kind != '{' {
		return notAnObject(root.kind, root.at)
	}
	d.cells = append(d.cells, cell{})
	if m := d.structure(&d.c.root, 0, 0); m != nil {
		text := "Data does not match the schema. "
		if m.member != "" {
			text += "member " + strconv.Quote(m.member) + ": "
		}
		return &RecordError{Code: MalformedData, Member: m.member, Message: text + m.text}
	}
	return nil
}

// block adds n cells, all null, and returns the index of the first.
func (d *Decoder) block(n int) (int32, *mismatch) {
	i := len(d.cells)
	if i+n > cellsMax {
		return 0, &mismatch{text: fmt.Sprintf("the document has more than %d values", cellsMax)}
	}
	for range n {
		d.cells = append(d.cells, cell{})
	}
	return int32(i), nil
}

// convert fills cell at from value v.
func (d *Decoder) convert(p *plan, v, at int32) *mismatch {
	x := &d.scan.values[v]
	if x.kind == 'n' {
		return nil
	}
	switch p.typ.Kind {
	case Array:
		return d.array(p, v, at)
	case Map:
		return d.mapping(p, v, at)
	case Struct:
		return d.structure(p, v, at)
	}
	return d.scalar(p, x, &d.cells[at])
}

func (d *Decoder) structure(p *plan, v, at int32) *mismatch {
	x := d.scan.values[v]
	if x.kind != '{' && (x.kind != '[' || !d.c.rules.lenient) {
		return wrong(p, &x)
	}
	first, m := d.block(len(p.parts))
	if m != nil {
		return m
	}
	d.cells[at].valid, d.cells[at].first = true, first
	if x.kind == '[' {
		if int(x.count) > len(p.parts) {
			return &mismatch{text: fmt.Sprintf("%d elements for the %d fields of %s", x.count, len(p.parts), p.typ)}
		}
		i := 0
		for v := x.first; v != 0; v = d.scan.values[v].next {
			if m := d.convert(&p.parts[i], v, first+int32(i)); m != nil {
				return m.within(p.typ.Fields[i].Name)
			}
			i++
		}
		return nil
	}
	// The last of several members of one name counts: they are chosen first.
	base := len(d.chosen)
	for range p.parts {
		d.chosen = append(d.chosen, 0)
	}
	for v := x.first; v != 0; v = d.scan.values[v].next {
		if i, ok := p.fields[d.name(d.scan.values[v].name)]; ok {
			d.chosen[base+i] = v
		}
	}
	for i := range p.parts {
		if v := d.chosen[base+i]; v != 0 {
			if m := d.convert(&p.parts[i], v, first+int32(i)); m != nil {
				return m.within(p.typ.Fields[i].Name)
			}
		}
	}
	d.chosen = d.chosen[:base]
	return nil
}

// name is a member's name in compared form.
func (d *Decoder) name(raw []byte) string {
	if s, ok := d.names[string(raw)]; ok {
		return s
	}
	s := d.c.rules.name(string(raw))
	if len(raw) <= keepNameBytes {
		if len(d.names) >= keepNames {
			clear(d.names)
		}
		d.names[string(raw)] = s
	}
	return s
}

func (d *Decoder) array(p *plan, v, at int32) *mismatch {
	x := d.scan.values[v]
	n := int(x.count)
	if x.kind != '[' {
		if !d.c.rules.lenient {
			return wrong(p, &x)
		}
		n = 1
	}
	first, m := d.block(n)
	if m != nil {
		return m
	}
	d.cells[at].valid, d.cells[at].first, d.cells[at].count = true, first, int32(n)
	if x.kind != '[' {
		return d.convert(&p.parts[0], v, first)
	}
	i := 0
	for v := x.first; v != 0; v = d.scan.values[v].next {
		if m := d.convert(&p.parts[0], v, first+int32(i)); m != nil {
			return m.element(i)
		}
		i++
	}
	return nil
}

func (d *Decoder) mapping(p *plan, v, at int32) *mismatch {
	x := d.scan.values[v]
	if x.kind != '{' {
		return wrong(p, &x)
	}
	// Keys that are equal once converted count once, the last.
	last := make(map[string]int32, x.count)
	key := func(v int32) string {
		name := d.scan.values[v].name
		if d.c.rules.foldKeys {
			return strings.ToLower(string(name))
		}
		return string(name)
	}
	for v := x.first; v != 0; v = d.scan.values[v].next {
		last[key(v)] = v
	}
	first, m := d.block(2 * len(last))
	if m != nil {
		return m
	}
	d.cells[at].valid, d.cells[at].first, d.cells[at].count = true, first, int32(2*len(last))
	i := first
	for v := x.first; v != 0; v = d.scan.values[v].next {
		k := key(v)
		if last[k] != v {
			continue
		}
		name := value{kind: '"', text: []byte(k), at: d.scan.values[v].at}
		if m := d.key(&p.parts[0], &name, &d.cells[i]); m != nil {
			return m.within(short(k))
		}
		if m := d.convert(&p.parts[1], v, i+1); m != nil {
			return m.within(short(k))
		}
		i += 2
	}
	return nil
}

// key converts a map's key, which JSON always writes as text.
func (d *Decoder) key(p *plan, x *value, c *cell) *mismatch {
	number := p.typ.Kind >= TinyInt && p.typ.Kind <= Decimal
	switch {
	case number:
		tok, ok := numericText(x.text)
		if !ok {
			return wrong(p, x)
		}
		return numeric(p, tok, c)
	case p.typ.Kind == Boolean:
		return boolean(p, x, c)
	}
	return d.scalar(p, x, c)
}

// wrong is the mismatch of a value's JSON type.
func wrong(p *plan, x *value) *mismatch {
	text := kindText(x.kind)
	if x.kind == '"' || x.kind == '0' {
		text += " " + quote(x.text)
	}
	return &mismatch{text: fmt.Sprintf("%s does not fit %s", text, brief(p.typ))}
}

func kindText(kind byte) string {
	switch kind {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "the text"
	case '0':
		return "the number"
	case 'n':
		return "null"
	}
	return "a boolean"
}

// short is the beginning of a text, for messages.
func short(s string) string {
	n := 100
	if len(s) <= n {
		return s
	}
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

func quote(s []byte) string { return strconv.Quote(short(string(s))) }

func brief(t *Type) string { return short(t.String()) }

// scalar converts a value that is not null.
func (d *Decoder) scalar(p *plan, x *value, c *cell) *mismatch {
	switch p.typ.Kind {
	case Boolean:
		if x.kind == '"' && !d.c.rules.lenient {
			return wrong(p, x)
		}
		return boolean(p, x, c)
	case TinyInt, SmallInt, Int, BigInt, Float, Double, Decimal:
		tok := x.text
		switch {
		case x.kind == '0':
		case x.kind == '"' && d.c.rules.lenient:
			var ok bool
			if tok, ok = numericText(x.text); !ok {
				return wrong(p, x)
			}
		default:
			return wrong(p, x)
		}
		return numeric(p, tok, c)
	case String, Varchar, Char:
		return d.text(p, x, c)
	case Binary:
		if x.kind != '"' {
			return wrong(p, x)
		}
		start := len(d.scratch)
		var err error
		d.scratch, err = base64.StdEncoding.Strict().AppendDecode(d.scratch, x.text)
		if err != nil || bytes.ContainsAny(x.text, "\r\n") { // which the decoder passes over
			return &mismatch{text: fmt.Sprintf("the text %s is no base64", quote(x.text))}
		}
		c.valid, c.text = true, d.scratch[start:len(d.scratch):len(d.scratch)]
		return nil
	case Date:
		days, ok := parseDate(x.text)
		if x.kind != '"' || !ok {
			return wrong(p, x)
		}
		c.valid, c.lo = true, uint64(int64(days))
		return nil
	case Timestamp:
		return d.timestamp(p, x, c)
	}
	panic(fmt.Sprintf("serde: scalar %s", p.typ))
}

func boolean(p *plan, x *value, c *cell) *mismatch {
	switch {
	case x.kind == 't' || x.kind == '"' && strings.EqualFold(string(x.text), "true"):
		c.valid, c.lo = true, 1
	case x.kind == 'f' || x.kind == '"' && strings.EqualFold(string(x.text), "false"):
		c.valid = true
	default:
		return wrong(p, x)
	}
	return nil
}

// numericText is a text that holds a number: JSON's grammar, and a plus sign and
// leading zeros, which Java reads too.
func numericText(s []byte) (tok []byte, ok bool) {
	sign := len(s) > 0 && (s[0] == '+' || s[0] == '-')
	digits := s
	if sign {
		digits = s[1:]
	}
	zeros := 0
	for zeros+1 < len(digits) && digits[zeros] == '0' && digits[zeros+1]-'0' <= 9 {
		zeros++
	}
	switch {
	case len(digits) == 0 || digits[0]-'0' > 9:
		return nil, false
	case !sign || s[0] == '+':
		tok = digits[zeros:]
	case zeros > 0:
		tok = append([]byte{'-'}, digits[zeros:]...)
	default:
		tok = s
	}
	return tok, numberLength(tok) == len(tok)
}

// number1 converts a number's text, which matches JSON's grammar.
func numeric(p *plan, tok []byte, c *cell) *mismatch {
	t := p.typ
	switch t.Kind {
	case Float, Double:
		size := 64
		if t.Kind == Float {
			size = 32
		}
		f, err := strconv.ParseFloat(string(tok), size)
		if err != nil {
			return outOfRange(t, tok)
		}
		c.valid, c.lo = true, math.Float64bits(f)
		return nil
	case Decimal:
		m, negative, why := fixed(tok, t.Scale)
		if why == inexact {
			return &mismatch{text: fmt.Sprintf("the number %s has digits beyond the scale of %s", quote(tok), t)}
		}
		if why == tooLarge || !m.less(p.limit) {
			return outOfRange(t, tok)
		}
		if negative {
			m = m.negated()
		}
		c.valid, c.hi, c.lo = true, m.hi, m.lo
		return nil
	}
	bits := 8 << (t.Kind - TinyInt) // 8, 16, 32, 64
	m, negative, why := fixed(tok, 0)
	if why == inexact {
		return &mismatch{text: fmt.Sprintf("the number %s is no integer, as %s is", quote(tok), t)}
	}
	v, ok := m.int64(negative, bits)
	if why == tooLarge || !ok {
		return outOfRange(t, tok)
	}
	c.valid, c.lo = true, uint64(v)
	return nil
}

func outOfRange(t *Type, tok []byte) *mismatch {
	return &mismatch{text: fmt.Sprintf("the number %s is out of the range of %s", quote(tok), t)}
}

func (d *Decoder) text(p *plan, x *value, c *cell) *mismatch {
	s := x.text
	switch x.kind {
	case 't':
		s = []byte("true")
	case 'f':
		s = []byte("false")
	case '{', '[':
		if !d.c.rules.lenient {
			return wrong(p, x)
		}
		var b bytes.Buffer
		if err := json.Compact(&b, x.text); err != nil {
			panic(fmt.Sprintf("serde: compact what was scanned: %v", err))
		}
		s = b.Bytes()
	}
	if n := p.typ.Length; n > 0 && utf8.RuneCount(s) > n {
		return &mismatch{text: fmt.Sprintf("the text %s has %d characters, above the length of %s", quote(s), utf8.RuneCount(s), p.typ)}
	}
	c.valid, c.text = true, s
	return nil
}

func (d *Decoder) timestamp(p *plan, x *value, c *cell) *mismatch {
	if x.kind != '"' && x.kind != '0' {
		return wrong(p, x)
	}
	nanos, why, ok := d.instant(x)
	if d.c.rules.micros {
		if micros, ok := microsOf(nanos, why, ok, x.text); ok {
			c.valid, c.lo = true, uint64(micros)
			return nil
		}
	}
	if !ok {
		switch why {
		case tooLarge:
			return &mismatch{text: fmt.Sprintf("the time %s is outside 1677-09-21 to 2262-04-11, which a timestamp in nanoseconds holds", quote(x.text))}
		case inexact:
			return &mismatch{text: fmt.Sprintf("the time %s is finer than a nanosecond", quote(x.text))}
		}
		return wrong(p, x)
	}
	c.valid, c.lo = true, uint64(nanos)
	return nil
}

// instant reads a timestamp by the deserializer's forms. why tells a form that fits
// with a value that does not from no form at all.
func (d *Decoder) instant(x *value) (nanos int64, why status, ok bool) {
	if !d.c.rules.lenient {
		for _, f := range d.c.formats {
			n, w, ok := f.parse(x.text)
			if ok {
				return n, fits, true
			}
			why = max(why, w)
		}
		n, w, ok := parseValueOf(x.text)
		return n, max(why, w), ok
	}
	if x.kind == '0' {
		return parseEpoch(x.text)
	}
	for _, parse := range []func([]byte) (int64, status, bool){parseISO, parseValueOf} {
		n, w, ok := parse(x.text)
		if ok || w != fits {
			return n, w, ok
		}
	}
	if tok, ok := numericText(x.text); ok {
		return parseEpoch(tok)
	}
	return 0, fits, false
}
