package columnar

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Parquet's footers and page headers are Thrift structs in the compact
// protocol. These two types are as much of it as they need.

// Types of the compact protocol.
const (
	thriftTrue   = 1
	thriftFalse  = 2
	thriftI16    = 4
	thriftI32    = 5
	thriftI64    = 6
	thriftDouble = 7
	thriftBinary = 8
	thriftList   = 9
	thriftSet    = 10
	thriftMap    = 11
	thriftStruct = 12
)

// thriftWriter appends to b.
type thriftWriter struct {
	b    []byte
	last []int16 // the field written last, for each open struct
}

func (t *thriftWriter) uvarint(v uint64) { t.b = binary.AppendUvarint(t.b, v) }
func (t *thriftWriter) begin()           { t.last = append(t.last, 0) }
func (t *thriftWriter) end()             { t.b = append(t.b, 0); t.last = t.last[:len(t.last)-1] }

func (t *thriftWriter) field(id int16, typ byte) {
	last := &t.last[len(t.last)-1]
	if d := id - *last; d > 0 && d < 16 {
		t.b = append(t.b, byte(d)<<4|typ)
	} else {
		t.b = append(t.b, typ)
		t.uvarint(zigzag(int64(id)))
	}
	*last = id
}

func (t *thriftWriter) i32(id int16, v int)   { t.field(id, thriftI32); t.uvarint(zigzag(int64(v))) }
func (t *thriftWriter) i64(id int16, v int64) { t.field(id, thriftI64); t.uvarint(zigzag(v)) }

func (t *thriftWriter) bool(id int16, v bool) {
	if v {
		t.field(id, thriftTrue)
	} else {
		t.field(id, thriftFalse)
	}
}

func (t *thriftWriter) binary(id int16, s string) {
	t.field(id, thriftBinary)
	t.element(s)
}

func (t *thriftWriter) element(s string) {
	t.uvarint(uint64(len(s)))
	t.b = append(t.b, s...)
}

func (t *thriftWriter) list(id int16, typ byte, n int) {
	t.field(id, thriftList)
	if n < 15 {
		t.b = append(t.b, byte(n)<<4|typ)
		return
	}
	t.b = append(t.b, 0xf0|typ)
	t.uvarint(uint64(n))
}

// structure writes a field that is a struct.
func (t *thriftWriter) structure(id int16, body func()) {
	t.field(id, thriftStruct)
	t.begin()
	body()
	t.end()
}

// ErrFooter is the root of errors about bytes that are no Parquet file of ours
// to read.
var ErrFooter = errors.New("malformed Parquet footer")

// thriftReader takes b apart. After its first error everything it returns is
// zero.
type thriftReader struct {
	b     []byte
	at    int
	depth int
	err   error
}

func (t *thriftReader) fail(format string, args ...any) {
	if t.err == nil {
		t.err = fmt.Errorf("%w: at byte %d: "+format, append([]any{ErrFooter, t.at}, args...)...)
	}
}

func (t *thriftReader) byte() byte {
	if t.err == nil && t.at >= len(t.b) {
		t.fail("it ends too early")
	}
	if t.err != nil {
		return 0
	}
	t.at++
	return t.b[t.at-1]
}

func (t *thriftReader) uvarint() uint64 {
	if t.err != nil {
		return 0
	}
	x, n := binary.Uvarint(t.b[t.at:])
	if n <= 0 {
		t.fail("malformed number")
		return 0
	}
	t.at += n
	return x
}

func (t *thriftReader) int() int64 {
	x := t.uvarint()
	return int64(x>>1) ^ -int64(x&1)
}

func (t *thriftReader) bytes() []byte {
	n := t.uvarint()
	if t.err == nil && n > uint64(len(t.b)-t.at) {
		t.fail("%d bytes wanted, %d left", n, len(t.b)-t.at)
	}
	if t.err != nil {
		return nil
	}
	t.at += int(n)
	return t.b[t.at-int(n) : t.at : t.at]
}

// fields calls field for each field of a struct; field must consume it, by a
// typed read or skip.
func (t *thriftReader) fields(field func(id int16, typ byte)) {
	if t.depth++; t.depth > 32 {
		t.fail("nested too deep")
	}
	defer func() { t.depth-- }()
	var id int16
	for t.err == nil {
		h := t.byte()
		if t.err != nil || h == 0 {
			return
		}
		if d := h >> 4; d != 0 {
			id += int16(d)
		} else {
			id = int16(t.int())
		}
		field(id, h&15)
	}
}

// elements calls element for each element of a list.
func (t *thriftReader) elements(typ byte, element func(typ byte)) {
	if typ != thriftList && typ != thriftSet {
		t.fail("type %d where a list is wanted", typ)
		return
	}
	h := t.byte()
	n := uint64(h >> 4)
	if n == 15 {
		n = t.uvarint()
	}
	if t.err == nil && n > uint64(len(t.b)-t.at) { // Each takes a byte or more.
		t.fail("list of %d elements in %d bytes", n, len(t.b)-t.at)
	}
	for ; n > 0 && t.err == nil; n-- {
		element(h & 15)
	}
}

// integer reads a field of any integer type.
func (t *thriftReader) integer(typ byte) int64 {
	if typ < thriftI16 || typ > thriftI64 {
		t.fail("type %d where an integer is wanted", typ)
		return 0
	}
	return t.int()
}

func (t *thriftReader) text(typ byte) []byte {
	if typ != thriftBinary {
		t.fail("type %d where bytes are wanted", typ)
		return nil
	}
	return t.bytes()
}

func (t *thriftReader) structure(typ byte, field func(id int16, typ byte)) {
	if typ != thriftStruct {
		t.fail("type %d where a struct is wanted", typ)
		return
	}
	t.fields(field)
}

// skip passes over a field's value.
func (t *thriftReader) skip(typ byte) {
	switch typ {
	case thriftTrue, thriftFalse:
	case 3:
		t.byte()
	case thriftI16, thriftI32, thriftI64:
		t.int()
	case thriftDouble:
		for range 8 {
			t.byte()
		}
	case thriftBinary:
		t.bytes()
	case thriftList, thriftSet:
		t.elements(typ, t.skipElement)
	case thriftMap:
		n := t.uvarint()
		if n == 0 {
			return
		}
		kv := t.byte()
		for ; n > 0 && t.err == nil; n-- {
			t.skipElement(kv >> 4)
			t.skipElement(kv & 15)
		}
	case thriftStruct:
		t.fields(func(_ int16, typ byte) { t.skip(typ) })
	default:
		t.fail("unknown type %d", typ)
	}
}

// skipElement passes over a value in a collection, where booleans take a byte.
func (t *thriftReader) skipElement(typ byte) {
	if t.depth++; t.depth > 32 {
		t.fail("nested too deep")
	}
	defer func() { t.depth-- }()
	if typ == thriftTrue || typ == thriftFalse {
		t.byte()
		return
	}
	t.skip(typ)
}
