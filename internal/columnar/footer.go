package columnar

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/tapehouse/tapehouse/internal/record"
)

// Parquet's enumerations, as far as they occur here.
const (
	physBoolean   = 0
	physInt32     = 1
	physInt64     = 2
	physFloat     = 4
	physDouble    = 5
	physByteArray = 6
	physFixed     = 7

	encPlain      = 0
	encRLE        = 3
	encDelta      = 5
	encDictionary = 8

	codecNone = 0
	codecZstd = 6

	pageData       = 0
	pageDictionary = 2

	convUTF8            = 0
	convDecimal         = 5
	convDate            = 6
	convTimestampMicros = 10
)

const (
	magic         = "PAR1"
	createdBy     = "tapehouse columnar version 1"
	schemaIDKey   = "tapehouse.schema-id"
	icebergKey    = "iceberg.schema"
	maxFooterSize = 256 << 20
)

// element is a node of a Parquet schema.
type element struct {
	physical  int // -1: a group
	optional  bool
	repeated  bool
	name      string
	children  int
	converted int // -1: none
	fieldID   int // 0: none
}

// chunk is the footer's entry for one column of one row group.
type chunk struct {
	physical     int
	encodings    []int
	path         []string
	codec        int
	values       int64 // nulls included
	uncompressed int64
	compressed   int64
	dataOffset   int64
	dictOffset   int64 // 0: none
	nulls        int64 // -1: unknown
	hasBounds    bool
	min, max     []byte
	minInexact   bool
	maxInexact   bool
	pages        [2]int64 // pages' encoding stats: dictionary pages, data pages; 0 data pages: not known
	dataEncoding int
	stringBytes  int64   // -1: not known
	levels       []int64 // histogram of definition levels; nil: not known
}

func (c *chunk) start() int64 {
	if c.dictOffset > 0 && c.dictOffset < c.dataOffset {
		return c.dictOffset
	}
	return c.dataOffset
}

type rowGroup struct {
	rows   int64
	chunks []chunk
}

func (g *rowGroup) offset() int64 {
	at := int64(math.MaxInt64)
	for i := range g.chunks {
		at = min(at, g.chunks[i].start())
	}
	return at
}

// footer is a Parquet file's metadata.
type footer struct {
	schema    []byte // the schema's elements as they stand in the file
	elements  []element
	leaves    []int // the elements that are columns
	rows      int64
	groups    []rowGroup
	keyValues [][2]string
	ours      bool
}

// schemaElements makes the schema part of the layout's footers.
func (l *Layout) schemaElements() *footer {
	f := &footer{ours: true, keyValues: [][2]string{{schemaIDKey, strconv.Itoa(l.schema.ID)}, {icebergKey, icebergSchema(l.schema)}}}
	t := thriftWriter{}
	t.begin()
	t.binary(4, "table")
	t.i32(5, len(l.columns))
	t.end()
	f.elements = append(f.elements, element{physical: -1, name: "table", children: len(l.columns), converted: -1})
	for i := range l.columns {
		fd := l.columns[i].field
		e := element{physical: physicalType(fd.Type), optional: !fd.Required, name: fd.Name, converted: -1, fieldID: fd.ID}
		t.begin()
		t.i32(1, e.physical)
		repetition := 0
		if e.optional {
			repetition = 1
		}
		t.i32(3, repetition)
		t.binary(4, fd.Name)
		switch fd.Type.Kind {
		case record.String:
			e.converted = convUTF8
		case record.Decimal:
			e.converted = convDecimal
		case record.Date:
			e.converted = convDate
		case record.TimestampTZ:
			e.converted = convTimestampMicros
		}
		if e.converted >= 0 {
			t.i32(6, e.converted)
		}
		if e.converted == convDecimal {
			t.i32(7, fd.Type.Scale)
			t.i32(8, fd.Type.Precision)
		}
		t.i32(9, fd.ID)
		if e.converted >= 0 {
			t.structure(10, func() { logicalType(&t, fd.Type) })
		}
		t.end()
		f.leaves = append(f.leaves, len(f.elements))
		f.elements = append(f.elements, e)
	}
	f.schema = t.b
	return f
}

// logicalType writes the member of the LogicalType union.
func logicalType(t *thriftWriter, typ record.Type) {
	switch typ.Kind {
	case record.String:
		t.structure(1, func() {})
	case record.Decimal:
		t.structure(5, func() {
			t.i32(1, typ.Scale)
			t.i32(2, typ.Precision)
		})
	case record.Date:
		t.structure(6, func() {})
	case record.TimestampTZ:
		t.structure(8, func() {
			t.bool(1, true) // isAdjustedToUTC
			t.structure(2, func() { t.structure(2, func() {}) /* MICROS */ })
		})
	}
}

func physicalType(t record.Type) int {
	switch t.Kind {
	case record.Boolean:
		return physBoolean
	case record.Int, record.Date:
		return physInt32
	case record.Decimal:
		if t.Precision <= 9 {
			return physInt32
		}
		return physInt64
	case record.Double:
		return physDouble
	case record.String:
		return physByteArray
	}
	return physInt64
}

// appendTo appends the footer, its length and the closing magic.
func (f *footer) appendTo(dst []byte) []byte {
	at := len(dst)
	t := thriftWriter{b: dst}
	t.begin()
	t.i32(1, 2)
	t.list(2, thriftStruct, len(f.elements))
	t.b = append(t.b, f.schema...)
	t.i64(3, f.rows)
	t.list(4, thriftStruct, len(f.groups))
	for i := range f.groups {
		f.groups[i].write(&t, i)
	}
	t.list(5, thriftStruct, len(f.keyValues))
	for _, kv := range f.keyValues {
		t.begin()
		t.binary(1, kv[0])
		t.binary(2, kv[1])
		t.end()
	}
	t.binary(6, createdBy)
	t.list(7, thriftStruct, len(f.leaves))
	for range f.leaves { // TypeDefinedOrder, without which min_value and max_value mean nothing
		t.begin()
		t.structure(1, func() {})
		t.end()
	}
	t.end()
	t.b = binary.LittleEndian.AppendUint32(t.b, uint32(len(t.b)-at))
	return append(t.b, magic...)
}

func (g *rowGroup) write(t *thriftWriter, ordinal int) {
	var raw, compressed int64
	t.begin()
	t.list(1, thriftStruct, len(g.chunks))
	for i := range g.chunks {
		c := &g.chunks[i]
		raw, compressed = raw+c.uncompressed, compressed+c.compressed
		t.begin()
		t.i64(2, c.start())
		t.structure(3, func() { c.write(t) })
		t.end()
	}
	t.i64(2, raw)
	t.i64(3, g.rows)
	t.i64(5, g.offset())
	t.i64(6, compressed)
	if ordinal <= math.MaxInt16 {
		t.field(7, thriftI16)
		t.uvarint(zigzag(int64(ordinal)))
	}
	t.end()
}

func (c *chunk) write(t *thriftWriter) {
	t.i32(1, c.physical)
	t.list(2, thriftI32, len(c.encodings))
	for _, e := range c.encodings {
		t.uvarint(zigzag(int64(e)))
	}
	t.list(3, thriftBinary, len(c.path))
	for _, p := range c.path {
		t.element(p)
	}
	t.i32(4, c.codec)
	t.i64(5, c.values)
	t.i64(6, c.uncompressed)
	t.i64(7, c.compressed)
	t.i64(9, c.dataOffset)
	if c.dictOffset > 0 {
		t.i64(11, c.dictOffset)
	}
	t.structure(12, func() {
		if c.nulls >= 0 {
			t.i64(3, c.nulls)
		}
		if c.hasBounds {
			t.binary(5, string(c.max))
			t.binary(6, string(c.min))
			t.bool(7, !c.maxInexact)
			t.bool(8, !c.minInexact)
		}
	})
	if c.pages[1] > 0 {
		n := 1
		if c.pages[0] > 0 {
			n = 2
		}
		t.list(13, thriftStruct, n)
		stat := func(page, encoding int, count int64) {
			t.begin()
			t.i32(1, page)
			t.i32(2, encoding)
			t.i32(3, int(count))
			t.end()
		}
		if c.pages[0] > 0 {
			stat(pageDictionary, encPlain, c.pages[0])
		}
		stat(pageData, c.dataEncoding, c.pages[1])
	}
	if c.stringBytes >= 0 || c.levels != nil {
		t.structure(16, func() {
			if c.stringBytes >= 0 {
				t.i64(1, c.stringBytes)
			}
			if c.levels != nil {
				t.list(3, thriftI64, len(c.levels))
				for _, n := range c.levels {
					t.uvarint(zigzag(n))
				}
			}
		})
	}
}

// readFooter reads the metadata of a Parquet file of size bytes.
func readFooter(r io.ReaderAt, size int64) (*footer, error) {
	const tail = 8
	if size < int64(len(magic))+tail {
		return nil, fmt.Errorf("%w: %d bytes are no Parquet file", ErrFooter, size)
	}
	var end [tail]byte
	if err := readAt(r, end[:], size-tail); err != nil {
		return nil, err
	}
	n := int64(binary.LittleEndian.Uint32(end[:]))
	if string(end[4:]) != magic || n > size-int64(len(magic))-tail || n > maxFooterSize {
		return nil, fmt.Errorf("%w: no magic at the end, or a length of %d in a file of %d bytes", ErrFooter, n, size)
	}
	b := make([]byte, n)
	if err := readAt(r, b, size-tail-n); err != nil {
		return nil, err
	}
	f, err := parseFooter(b)
	if err != nil {
		return nil, err
	}
	return f, f.check(size - tail - n)
}

func readAt(r io.ReaderAt, b []byte, at int64) error {
	if n, err := r.ReadAt(b, at); n < len(b) {
		return fmt.Errorf("read Parquet footer: %w", err)
	}
	return nil
}

func parseFooter(b []byte) (*footer, error) {
	f := &footer{}
	t := &thriftReader{b: b}
	t.fields(func(id int16, typ byte) {
		switch id {
		case 2:
			from := 0
			t.elements(typ, func(typ byte) {
				if from == 0 {
					from = t.at
				}
				f.elements = append(f.elements, readElement(t, typ))
			})
			if t.err == nil && from > 0 {
				f.schema = t.b[from:t.at:t.at]
			}
		case 3:
			f.rows = t.integer(typ)
		case 4:
			t.elements(typ, func(typ byte) { f.groups = append(f.groups, readRowGroup(t, typ)) })
		case 5:
			t.elements(typ, func(typ byte) {
				var kv [2]string
				t.structure(typ, func(id int16, typ byte) {
					if id == 1 || id == 2 {
						kv[id-1] = string(t.text(typ))
						return
					}
					t.skip(typ)
				})
				f.keyValues = append(f.keyValues, kv)
			})
		case 6:
			f.ours = string(t.text(typ)) == createdBy
		default:
			t.skip(typ)
		}
	})
	return f, t.err
}

func readElement(t *thriftReader, typ byte) element {
	e := element{physical: -1, converted: -1}
	t.structure(typ, func(id int16, typ byte) {
		switch id {
		case 1:
			e.physical = int(t.integer(typ))
		case 3:
			r := t.integer(typ)
			e.optional, e.repeated = r == 1, r == 2
		case 4:
			e.name = string(t.text(typ))
		case 5:
			e.children = int(t.integer(typ))
		case 6:
			e.converted = int(t.integer(typ))
		case 9:
			e.fieldID = int(t.integer(typ))
		default:
			t.skip(typ)
		}
	})
	return e
}

func readRowGroup(t *thriftReader, typ byte) rowGroup {
	var g rowGroup
	t.structure(typ, func(id int16, typ byte) {
		switch id {
		case 1:
			t.elements(typ, func(typ byte) {
				c := chunk{nulls: -1, stringBytes: -1}
				t.structure(typ, func(id int16, typ byte) {
					if id == 3 {
						t.structure(typ, func(id int16, typ byte) { c.read(t, id, typ) })
						return
					}
					t.skip(typ)
				})
				g.chunks = append(g.chunks, c)
			})
		case 3:
			g.rows = t.integer(typ)
		default:
			t.skip(typ)
		}
	})
	return g
}

func (c *chunk) read(t *thriftReader, id int16, typ byte) {
	switch id {
	case 1:
		c.physical = int(t.integer(typ))
	case 2:
		t.elements(typ, func(typ byte) { c.encodings = append(c.encodings, int(t.integer(typ))) })
	case 3:
		t.elements(typ, func(typ byte) { c.path = append(c.path, string(t.text(typ))) })
	case 4:
		c.codec = int(t.integer(typ))
	case 5:
		c.values = t.integer(typ)
	case 6:
		c.uncompressed = t.integer(typ)
	case 7:
		c.compressed = t.integer(typ)
	case 9:
		c.dataOffset = t.integer(typ)
	case 11:
		c.dictOffset = t.integer(typ)
	case 12:
		var lo, hi bool
		t.structure(typ, func(id int16, typ byte) {
			switch id {
			case 3:
				c.nulls = t.integer(typ)
			case 5:
				c.max, hi = t.text(typ), true
			case 6:
				c.min, lo = t.text(typ), true
			case 7:
				c.maxInexact = typ == thriftFalse
			case 8:
				c.minInexact = typ == thriftFalse
			default:
				t.skip(typ)
			}
		})
		c.hasBounds = lo && hi
	case 13:
		t.elements(typ, func(typ byte) {
			var page, encoding, count int64
			t.structure(typ, func(id int16, typ byte) {
				switch id {
				case 1:
					page = t.integer(typ)
				case 2:
					encoding = t.integer(typ)
				case 3:
					count = t.integer(typ)
				default:
					t.skip(typ)
				}
			})
			if page == pageDictionary {
				c.pages[0] += count
			} else {
				c.pages[1] += count
				c.dataEncoding = int(encoding)
			}
		})
	case 16:
		t.structure(typ, func(id int16, typ byte) {
			switch id {
			case 1:
				c.stringBytes = t.integer(typ)
			case 3:
				t.elements(typ, func(typ byte) { c.levels = append(c.levels, t.integer(typ)) })
			default:
				t.skip(typ)
			}
		})
	default:
		t.skip(typ)
	}
}

// check holds the footer against the bytes before it, and finds the leaves.
func (f *footer) check(dataEnd int64) error {
	if len(f.elements) == 0 {
		return fmt.Errorf("%w: no schema", ErrFooter)
	}
	for i, e := range f.elements[1:] {
		if e.children == 0 && e.physical >= 0 {
			f.leaves = append(f.leaves, i+1)
		}
	}
	if len(f.leaves) == 0 {
		return fmt.Errorf("%w: no columns", ErrFooter)
	}
	var rows int64
	for i := range f.groups {
		g := &f.groups[i]
		if len(g.chunks) != len(f.leaves) || g.rows < 0 {
			return fmt.Errorf("%w: row group %d has %d columns and %d rows, the schema %d columns", ErrFooter, i, len(g.chunks), g.rows, len(f.leaves))
		}
		rows += g.rows
		for k := range g.chunks {
			c := &g.chunks[k]
			if c.physical != f.elements[f.leaves[k]].physical {
				return fmt.Errorf("%w: row group %d column %d has physical type %d, the schema %d", ErrFooter, i, k, c.physical, f.elements[f.leaves[k]].physical)
			}
			if at := c.start(); at < int64(len(magic)) || c.compressed < 0 || at > dataEnd || c.compressed > dataEnd-at {
				return fmt.Errorf("%w: row group %d column %d lies outside the file", ErrFooter, i, k)
			}
		}
	}
	if rows != f.rows {
		return fmt.Errorf("%w: %d rows, its row groups %d", ErrFooter, f.rows, rows)
	}
	return nil
}
