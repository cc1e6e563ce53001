package crawler

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The types of Thrift's compact protocol that Parquet's footers use.
const (
	thriftTrue   = 1
	thriftFalse  = 2
	thriftByte   = 3
	thriftI16    = 4
	thriftI32    = 5
	thriftI64    = 6
	thriftDouble = 7
	thriftBinary = 8
	thriftList   = 9
	thriftSet    = 10
	thriftMap    = 11
	thriftStruct = 12
	thriftUUID   = 13
)

const thriftDepthMax = 16

var errThrift = errors.New("it ends within a value")

// thrift reads Thrift's compact protocol out of bytes that nobody vouches for. The
// first error stays, and everything after it reads as zero.
type thrift struct {
	b   []byte
	err error
}

func (t *thrift) fail(err error) {
	if t.err == nil {
		t.err = err
	}
	t.b = nil
}

func (t *thrift) byte() byte {
	if len(t.b) == 0 {
		t.fail(errThrift)
		return 0
	}
	c := t.b[0]
	t.b = t.b[1:]
	return c
}

func (t *thrift) uvarint() uint64 {
	v, n := binary.Uvarint(t.b)
	if n <= 0 {
		t.fail(errThrift)
		return 0
	}
	t.b = t.b[n:]
	return v
}

func (t *thrift) varint() int64 {
	u := t.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// fields reads a struct's fields until its end, or until fn returns false. fn
// consumes the value.
func (t *thrift) fields(fn func(id int16, typ byte) bool) {
	id := int16(0)
	for t.err == nil {
		head := t.byte()
		if head == 0 {
			return
		}
		if delta := int16(head >> 4); delta != 0 {
			id += delta
		} else {
			id = int16(t.varint())
		}
		if t.err != nil || !fn(id, head&15) {
			return
		}
	}
}

// structure is fields for a value that must be a struct.
func (t *thrift) structure(typ byte, fn func(id int16, typ byte) bool) {
	if typ != thriftStruct {
		t.fail(fmt.Errorf("type %d where a struct should be", typ))
		return
	}
	t.fields(fn)
}

func (t *thrift) integer(typ byte) int64 {
	switch typ {
	case thriftByte:
		return int64(int8(t.byte()))
	case thriftI16, thriftI32, thriftI64:
		return t.varint()
	}
	t.fail(fmt.Errorf("type %d where an integer should be", typ))
	return 0
}

func (t *thrift) text(typ byte) []byte {
	if typ != thriftBinary {
		t.fail(fmt.Errorf("type %d where text should be", typ))
		return nil
	}
	return t.take(t.uvarint())
}

func (t *thrift) take(n uint64) []byte {
	if n > uint64(len(t.b)) {
		t.fail(errThrift)
		return nil
	}
	b := t.b[:n]
	t.b = t.b[n:]
	return b
}

func (t *thrift) list(typ byte, most uint64, fn func(typ byte)) {
	if typ != thriftList && typ != thriftSet {
		t.fail(fmt.Errorf("type %d where a list should be", typ))
		return
	}
	head := t.byte()
	n := uint64(head >> 4)
	if n == 15 {
		n = t.uvarint()
	}
	if n > most {
		t.fail(fmt.Errorf("a list of %d, the limit is %d", n, most))
	}
	for i := uint64(0); i < n && t.err == nil; i++ {
		fn(head & 15)
	}
}

// skip passes over a value. Within lists, a boolean takes a byte.
func (t *thrift) skip(typ byte, depth int) {
	if depth > thriftDepthMax {
		t.fail(fmt.Errorf("nested deeper than %d", thriftDepthMax))
		return
	}
	switch typ {
	case thriftTrue, thriftFalse:
	case thriftByte:
		t.byte()
	case thriftI16, thriftI32, thriftI64:
		t.uvarint()
	case thriftDouble:
		t.take(8)
	case thriftUUID:
		t.take(16)
	case thriftBinary:
		t.take(t.uvarint())
	case thriftList, thriftSet:
		t.list(typ, uint64(len(t.b)), func(typ byte) { t.skipElement(typ, depth) })
	case thriftMap:
		n := t.uvarint()
		if n == 0 {
			return
		}
		if n > uint64(len(t.b)) {
			t.fail(errThrift)
			return
		}
		types := t.byte()
		for i := uint64(0); i < n && t.err == nil; i++ {
			t.skipElement(types>>4, depth)
			t.skipElement(types&15, depth)
		}
	case thriftStruct:
		t.fields(func(_ int16, typ byte) bool { t.skip(typ, depth+1); return true })
	default:
		t.fail(fmt.Errorf("type %d is not Thrift's", typ))
	}
}

func (t *thrift) skipElement(typ byte, depth int) {
	if typ == thriftTrue || typ == thriftFalse {
		t.byte()
		return
	}
	t.skip(typ, depth+1)
}
