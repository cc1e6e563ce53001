package columnar

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"unicode/utf8"

	"github.com/tapehouse/tapehouse/internal/record"
)

// The kinds of payloads; docs/formats/frame.md draws both.
const (
	PayloadColumnar uint8 = 1
	PayloadRaw      uint8 = 2
)

const payloadVersion = 1

// Forms of a column's body.
const (
	formConstant   = 0
	formOffsets    = 1
	formDeltas     = 2
	formDictionary = 3
	formPlain      = 4
)

// ErrPayload is the root of errors about payload bytes that do not hold what
// docs/formats/frame.md says.
var ErrPayload = errors.New("malformed payload")

// LayoutError says that a payload was written under another layout.
type LayoutError struct{ Have, Want uint32 }

func (e *LayoutError) Error() string {
	return fmt.Sprintf("payload of layout %08x read with layout %08x: compile the schema that it was written under", e.Have, e.Want)
}

// PayloadFingerprint is the fingerprint of the layout under which a payload was
// written; false if it is too short to have one.
func PayloadFingerprint(payload []byte) (uint32, bool) {
	if len(payload) < 5 {
		return 0, false
	}
	return binary.LittleEndian.Uint32(payload[1:]), true
}

// Layout is what the batch was decoded by.
func (b *Batch) Layout() *Layout { return b.layout }

// AppendPayload appends the batch's log payload to dst and returns its kind and
// the extended buffer. The payload holds Docs documents.
func (b *Batch) AppendPayload(dst []byte) (kind uint8, out []byte) {
	dst = append(dst, payloadVersion)
	dst = binary.LittleEndian.AppendUint32(dst, b.layout.fingerprint)
	if !b.Exact || len(b.Rejects) > 0 {
		return PayloadRaw, b.appendRaw(dst)
	}
	dst = binary.AppendUvarint(dst, uint64(b.Rows))
	for i := range b.cols {
		if b.layout.columns[i].stored {
			dst = b.appendColumn(dst, i)
		}
	}
	return PayloadColumnar, dst
}

func (b *Batch) appendColumn(dst []byte, i int) []byte {
	v := &b.cols[i]
	if v.hasNull {
		dst = append(dst, 1)
		dst = appendBitmap(dst, v.nulls[:b.Rows], 1)
	} else {
		dst = append(dst, 0)
	}
	if b.layout.columns[i].isString {
		return appendStrings(dst, v, b.Rows)
	}
	return appendIntegers(dst, v.ints[:b.Rows])
}

// appendBitmap appends one bit for each element: is it equal to set?
func appendBitmap(dst []byte, s []byte, set byte) []byte {
	for ; len(s) > 0; s = s[min(8, len(s)):] {
		var x byte
		for k, c := range s[:min(8, len(s))] {
			if c == set {
				x |= 1 << k
			}
		}
		dst = append(dst, x)
	}
	return dst
}

func appendIntegers(dst []byte, v []int64) []byte {
	if len(v) == 0 {
		return append(dst, formConstant, 0)
	}
	lo, hi := v[0], v[0]
	// Deltas wrap, so their range is meaningful only where neighbours are near;
	// otherwise its width comes out as 64 and offsets win.
	dlo, dhi := int64(math.MaxInt64), int64(math.MinInt64)
	last := v[0]
	for _, x := range v[1:] {
		lo, hi = min(lo, x), max(hi, x)
		d := x - last
		dlo, dhi = min(dlo, d), max(dhi, d)
		last = x
	}
	if lo == hi {
		return appendVarint(append(dst, formConstant), lo)
	}
	w, dw := bits.Len64(uint64(hi)-uint64(lo)), bits.Len64(uint64(dhi)-uint64(dlo))
	if w <= dw {
		dst = appendVarint(append(dst, formOffsets), lo)
		return packOffsets(append(dst, byte(w)), v, lo, uint(w))
	}
	dst = appendVarint(append(dst, formDeltas), v[0])
	dst = appendVarint(dst, dlo)
	return packDeltas(append(dst, byte(dw)), v, dlo, uint(dw))
}

func appendStrings(dst []byte, v *vector, rows int) []byte {
	d := &v.dict
	n := d.len()
	if d.plain && n*8 > rows*7 {
		dst = append(dst, formPlain)
		total := 0
		for r, c := range v.codes[:rows] {
			e := v.text(r, c)
			total += len(e)
			dst = binary.AppendUvarint(dst, uint64(len(e)))
		}
		dst = slices.Grow(dst, total)
		for r, c := range v.codes[:rows] {
			dst = append(dst, v.text(r, c)...)
		}
		return dst
	}
	dst = binary.AppendUvarint(append(dst, formDictionary), uint64(n))
	var from uint32
	for _, e := range d.list {
		dst = binary.AppendUvarint(dst, uint64(e.end-from))
		from = e.end
	}
	dst = append(dst, d.data...)
	return packCodes(dst, v.codes[:rows], codeWidth(n))
}

// text returns a row's string; nil where it is null.
func (v *vector) text(row int, code uint32) []byte {
	if v.hasNull && v.nulls[row] != 0 {
		return nil
	}
	return v.dict.entry(code)
}

// codeWidth is the number of bits that hold the codes of n entries.
func codeWidth(n int) uint {
	if n < 2 {
		return 0
	}
	return uint(bits.Len(uint(n - 1)))
}

func (b *Batch) appendRaw(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(b.Docs()))
	kept := func(doc int) bool { return len(b.dropped) == 0 || !b.dropped[doc] }
	dates := make([]int64, 0, b.Docs())
	for _, i := range b.layout.trade {
		v := &b.cols[i]
		dates = dates[:0]
		row := 0
		for doc := range b.spans {
			switch {
			case !kept(doc):
			case row < b.Rows && int(b.Doc[row]) == doc:
				x := v.ints[row]
				if v.hasNull && v.nulls[row] != 0 {
					x = undecided
				}
				dates = append(dates, x)
				row++
			default:
				dates = append(dates, undecided)
			}
		}
		dst = appendIntegers(dst, dates)
	}
	for doc, s := range b.spans {
		if kept(doc) {
			dst = binary.AppendUvarint(dst, uint64(s.to-s.from))
			dst = append(dst, b.arena[s.from:s.to]...)
		}
	}
	return dst
}

// DecodePayload decodes a log frame's payload of count documents into the batch
// that it was made from, with the documents numbered from 0. The payload is
// copied as far as the batch needs it. Bytes that do not follow the format give
// an error that wraps ErrPayload, another layout's a *LayoutError.
func (d *Decoder) DecodePayload(kind uint8, payload []byte, count int, arrivedAt int64) (*Batch, error) {
	r := reader{b: payload}
	if v := r.byte(); r.err == nil && v != payloadVersion {
		return nil, fmt.Errorf("%w: version %d is not known to this program", ErrPayload, v)
	}
	if f := r.take(4); f != nil && binary.LittleEndian.Uint32(f) != d.layout.fingerprint {
		return nil, &LayoutError{binary.LittleEndian.Uint32(f), d.layout.fingerprint}
	}
	n := r.uvarint(MaxDocs)
	if r.err == nil && n != count {
		return nil, fmt.Errorf("%w: %d documents where the frame says %d", ErrPayload, n, count)
	}
	if r.err != nil {
		return nil, r.err
	}
	b := d.layout.batch(n, arrivedAt)
	switch kind {
	case PayloadColumnar:
		d.readColumns(&r, b, n)
	case PayloadRaw:
		d.readRaw(&r, b, n)
	default:
		r.fail("kind %d is not known to this program", kind)
	}
	if r.err == nil && len(r.b) != 0 {
		r.fail("%d bytes follow its end", len(r.b))
	}
	if r.err != nil {
		b.Release()
		return nil, r.err
	}
	if kind == PayloadRaw {
		d.decode(b, b.own)
		d.decided = nil
	} else {
		b.Rows = n
		b.seal()
	}
	return b, nil
}

func (d *Decoder) readColumns(r *reader, b *Batch, n int) {
	for row := range n {
		b.Doc[row] = int32(row)
	}
	for i := range b.cols {
		c, v := &d.layout.columns[i], &b.cols[i]
		if !c.stored {
			continue
		}
		flags := r.byte()
		if flags > 1 || flags == 1 && c.required {
			r.fail("column %q has flags %d", c.field.Name, flags)
		}
		if flags == 1 {
			bitmap := r.take(packedLen(n, 1))
			if r.err != nil {
				return
			}
			unpack(bitmap, n, 1, func(row int, x uint64) { v.nulls[row] = byte(x) })
			v.hasNull = slices.Contains(v.nulls[:n], 1)
		}
		if c.isString {
			r.strings(v, n)
		} else {
			r.integers(v.ints[:n])
			r.check(c, v, n)
		}
		if r.err != nil {
			r.err = fmt.Errorf("column %q: %w", c.field.Name, r.err)
			return
		}
	}
}

// check holds integers against their column's type.
func (r *reader) check(c *column, v *vector, n int) {
	lo, hi := int64(math.MinInt64), int64(math.MaxInt64)
	switch c.field.Type.Kind {
	case record.Boolean:
		lo, hi = 0, 1
	case record.Int, record.Date:
		lo, hi = math.MinInt32, math.MaxInt32
	case record.Decimal:
		lo, hi = 1-c.limit, c.limit-1
	}
	for row, x := range v.ints[:n] {
		if x < lo || x > hi || c.field.Type.Kind == record.Double && !finite(x) {
			r.fail("value %d is beyond %s", x, c.field.Type)
			return
		}
		if v.hasNull && v.nulls[row] != 0 && x != 0 {
			r.fail("null row %d has a value", row)
			return
		}
	}
}

func finite(bits int64) bool { return bits>>52&0x7ff != 0x7ff }

func (d *Decoder) readRaw(r *reader, b *Batch, n int) {
	decided := make([][]int64, 0, len(d.layout.trade))
	for range d.layout.trade {
		v := make([]int64, n)
		r.integers(v)
		for _, x := range v {
			if x != int64(int32(x)) {
				r.fail("trade date %d is beyond a date", x)
				return
			}
		}
		decided = append(decided, v)
	}
	b.own = b.own[:0]
	for range n {
		doc := r.take(r.uvarint(math.MaxInt32))
		if r.err != nil {
			return
		}
		from := len(b.own)
		b.own = append(b.own, doc...)
		b.spans = append(b.spans, span{int32(from), int32(len(b.own))})
	}
	b.own = slices.Grow(b.own, Slack)
	d.decided = decided
}

// reader takes bytes apart. After its first error everything it returns is
// zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{ErrPayload}, args...)...)
	}
}

func (r *reader) byte() byte {
	if s := r.take(1); s != nil {
		return s[0]
	}
	return 0
}

func (r *reader) take(n int) []byte {
	if r.err == nil && (n < 0 || n > len(r.b)) {
		r.fail("%d bytes wanted, %d left", n, len(r.b))
	}
	if r.err != nil {
		return nil
	}
	s := r.b[:n:n]
	r.b = r.b[n:]
	return s
}

func (r *reader) uvarint(limit int) int {
	x, n := binary.Uvarint(r.b)
	if r.err == nil && (n <= 0 || x > uint64(limit)) {
		r.fail("number at %d bytes before the end is malformed or above %d", len(r.b), limit)
	}
	if r.err != nil {
		return 0
	}
	r.b = r.b[n:]
	return int(x)
}

func (r *reader) varint() int64 {
	x, n := binary.Varint(r.b)
	if r.err == nil && n <= 0 {
		r.fail("malformed number")
	}
	if r.err != nil {
		return 0
	}
	r.b = r.b[n:]
	return x
}

func (r *reader) integers(v []int64) {
	form := r.byte()
	base := r.varint()
	if r.err != nil {
		return
	}
	if form == formConstant || len(v) == 0 {
		for i := range v {
			v[i] = base
		}
		return
	}
	n := len(v)
	first := base
	switch form {
	case formOffsets:
	case formDeltas:
		base = r.varint()
		n--
	default:
		r.fail("integers in form %d", form)
	}
	w := r.byte()
	if w > 64 {
		r.fail("integers of %d bits", w)
	}
	src := r.take(packedLen(n, uint(w)))
	if r.err != nil {
		return
	}
	if form == formOffsets {
		unpack(src, n, uint(w), func(i int, x uint64) { v[i] = base + int64(x) })
		return
	}
	v[0] = first
	unpack(src, n, uint(w), func(i int, x uint64) { v[i+1] = v[i] + base + int64(x) })
}

func (r *reader) strings(v *vector, rows int) {
	form := r.byte()
	entries := rows
	switch form {
	case formDictionary:
		entries = r.uvarint(MaxDocs)
	case formPlain:
	default:
		r.fail("strings in form %d", form)
	}
	if r.err != nil {
		return
	}
	if entries > len(r.b) { // Each has a length of one byte or more.
		r.fail("%d strings in %d bytes", entries, len(r.b))
		return
	}
	d := &v.dict
	total := 0
	for range entries {
		if total += r.uvarint(math.MaxInt32 - total); r.err != nil {
			return
		}
		d.list = append(d.list, entry{end: uint32(total)})
	}
	data := r.take(total)
	if r.err != nil {
		return
	}
	if !utf8.Valid(data) {
		r.fail("a string is no UTF-8")
		return
	}
	d.data = append(d.data, data...)
	for i := range d.list { // No character may straddle two entries.
		s := d.entry(uint32(i))
		if len(s) > 0 && !utf8.RuneStart(s[0]) {
			r.fail("a string is no UTF-8")
			return
		}
		d.list[i].key, d.list[i].long = keyOf(s)
	}
	if form == formPlain {
		d.plain = true
		for row := range v.codes[:rows] {
			v.codes[row] = uint32(row)
			if v.hasNull && v.nulls[row] != 0 {
				v.codes[row] = 0
			}
		}
		return
	}
	w := codeWidth(entries)
	src := r.take(packedLen(rows, w))
	if r.err != nil {
		return
	}
	top := uint32(0)
	unpack(src, rows, w, func(i int, x uint64) {
		v.codes[i] = uint32(x)
		top = max(top, uint32(x))
	})
	if rows > 0 && int(top) >= entries && (entries > 0 || !v.hasNull || bytes.IndexByte(v.nulls[:rows], 0) >= 0) {
		r.fail("code %d of %d entries", top, entries)
	}
}
