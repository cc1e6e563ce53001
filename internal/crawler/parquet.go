package crawler

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	parquetMagic     = "PAR1"
	parquetEncrypted = "PARE"
	// footerReadMax bounds what is read of a footer. The schema stands at its
	// beginning, before the row groups, which make footers large.
	footerReadMax = 4 << 20
	// footerTail is read at once: most footers are in it.
	footerTail = 64 << 10
	// elementsMax bounds a schema's nodes.
	elementsMax = 20_000
)

// Parquet's enumerations (parquet.thrift), as far as types depend on them.
const (
	physBoolean   = 0
	physInt32     = 1
	physInt64     = 2
	physInt96     = 3
	physFloat     = 4
	physDouble    = 5
	physByteArray = 6
	physFixed     = 7

	repRepeated = 2

	convUTF8            = 0
	convMap             = 1
	convMapKeyValue     = 2
	convList            = 3
	convEnum            = 4
	convDecimal         = 5
	convDate            = 6
	convTimeMillis      = 7
	convTimeMicros      = 8
	convTimestampMillis = 9
	convTimestampMicros = 10
	convUint8           = 11
	convUint16          = 12
	convUint32          = 13
	convUint64          = 14
	convInt8            = 15
	convInt16           = 16
	convJSON            = 19
	convBSON            = 20
	convInterval        = 21
)

// parquetNode is a node of a file's schema.
type parquetNode struct {
	name             string
	physical         int // -1: a group
	repetition       int
	children         int
	converted        int // -1: none
	precision, scale int
	logical          int // the field of LogicalType that is set; 0: none
	bits             int // of an INTEGER
	unsigned         bool
}

// readParquet reads a file's schema and rows from its footer, without the row
// groups.
func readParquet(r io.ReaderAt, size int64) (columns []Field, rows int64, notes []string, err error) {
	if size < 12 {
		return nil, 0, nil, errUnfinished
	}
	tail := make([]byte, min(size, footerTail))
	if err := readFull(r, tail, size-int64(len(tail))); err != nil {
		return nil, 0, nil, err
	}
	end := tail[len(tail)-8:]
	switch string(end[4:]) {
	case parquetMagic:
	case parquetEncrypted:
		return nil, 0, nil, errors.New("the Parquet footer is encrypted, which is not supported: write it with a plaintext footer")
	default:
		return nil, 0, nil, errUnfinished // no footer yet, or never
	}
	length := int64(binary.LittleEndian.Uint32(end))
	if length < 1 || length > size-12 {
		return nil, 0, nil, fmt.Errorf("a Parquet footer of %d bytes in a file of %d", length, size)
	}
	footer := make([]byte, min(length, footerReadMax))
	if length+8 <= int64(len(tail)) {
		copy(footer, tail[int64(len(tail))-8-length:])
	} else if err := readFull(r, footer, size-8-length); err != nil {
		return nil, 0, nil, err
	}
	nodes, rows, err := parseFooter(footer)
	if err != nil {
		return nil, 0, nil, fmt.Errorf("read the Parquet footer: %w", err)
	}
	p := schemaReader{nodes: nodes}
	root, err := p.take()
	if err != nil {
		return nil, 0, nil, fmt.Errorf("read the Parquet schema: %w", err)
	}
	for range root.children {
		f, err := p.field(1)
		if err != nil {
			return nil, 0, nil, fmt.Errorf("read the Parquet schema: %w", err)
		}
		why := badColumn(f.Name)
		switch {
		case f.State == nil:
			why = fmt.Sprintf("the column %s is left out: no Hive type is like its Parquet type", f.Name)
		case why == "" && slices.ContainsFunc(columns, func(c Field) bool { return c.Name == f.Name }):
			why = fmt.Sprintf("the column %s is there twice, in other letters: readers cannot tell which one is meant", f.Name)
		}
		if why != "" {
			notes = append(notes, why)
			continue
		}
		columns = append(columns, f)
	}
	if p.at != len(nodes) {
		return nil, 0, nil, errors.New("read the Parquet schema: nodes without a parent")
	}
	return columns, rows, notes, nil
}

func readFull(r io.ReaderAt, b []byte, at int64) error {
	n, err := r.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return errUnfinished // it shrank
	}
	return err
}

// parseFooter reads FileMetaData up to its schema (2) and number of rows (3).
func parseFooter(b []byte) (nodes []parquetNode, rows int64, err error) {
	t := &thrift{b: b}
	seen := 0
	t.fields(func(id int16, typ byte) bool {
		switch id {
		case 2:
			seen |= 1
			t.list(typ, elementsMax, func(typ byte) { nodes = append(nodes, readNode(t, typ)) })
		case 3:
			seen |= 2
			rows = t.integer(typ)
		default:
			t.skip(typ, 0)
		}
		return seen != 3
	})
	switch {
	case t.err != nil:
		return nil, 0, t.err
	case seen != 3 || len(nodes) == 0 || rows < 0:
		return nil, 0, errors.New("it has no schema or no number of rows")
	}
	return nodes, rows, nil
}

func readNode(t *thrift, typ byte) parquetNode {
	n := parquetNode{physical: -1, converted: -1}
	t.structure(typ, func(id int16, typ byte) bool {
		switch id {
		case 1:
			n.physical = int(t.integer(typ))
		case 3:
			n.repetition = int(t.integer(typ))
		case 4:
			n.name = string(t.text(typ))
		case 5:
			n.children = int(t.integer(typ))
		case 6:
			n.converted = int(t.integer(typ))
		case 7:
			n.scale = int(t.integer(typ))
		case 8:
			n.precision = int(t.integer(typ))
		case 10:
			readLogical(t, typ, &n)
		default:
			t.skip(typ, 0)
		}
		return true
	})
	if n.children > 0 {
		n.physical = -1
	}
	return n
}

// The fields of the union LogicalType.
const (
	logicalString    = 1
	logicalMap       = 2
	logicalList      = 3
	logicalEnum      = 4
	logicalDecimal   = 5
	logicalDate      = 6
	logicalTime      = 7
	logicalTimestamp = 8
	logicalInteger   = 10
	logicalUnknown   = 11 // of a column of nulls
	logicalJSON      = 12
	logicalUUID      = 14
)

func readLogical(t *thrift, typ byte, n *parquetNode) {
	t.structure(typ, func(id int16, typ byte) bool {
		n.logical = int(id)
		t.structure(typ, func(member int16, typ byte) bool {
			switch {
			case id == logicalDecimal && member == 1:
				n.scale = int(t.integer(typ))
			case id == logicalDecimal && member == 2:
				n.precision = int(t.integer(typ))
			case id == logicalInteger && member == 1:
				n.bits = int(int8(t.byte()))
			case id == logicalInteger && member == 2:
				n.unsigned = typ == thriftFalse
			default:
				t.skip(typ, 0)
			}
			return true
		})
		return true
	})
}

type schemaReader struct {
	nodes []parquetNode
	at    int
}

func (p *schemaReader) take() (*parquetNode, error) {
	if p.at >= len(p.nodes) {
		return nil, errors.New("it ends within a group")
	}
	n := &p.nodes[p.at]
	p.at++
	if n.children < 0 || n.children > elementsMax {
		return nil, fmt.Errorf("a group of %d members", n.children)
	}
	return n, nil
}

// field reads a node with what is below it. The State is nil where Hive has no type
// for it.
func (p *schemaReader) field(depth int) (Field, error) {
	n, err := p.take()
	if err != nil {
		return Field{}, err
	}
	s, err := p.state(n, depth)
	if err == nil && s != nil && n.repetition == repRepeated {
		s = &State{Kinds: kindArray, Elem: s} // a list without the annotation
	}
	return Field{strings.ToLower(n.name), s}, err
}

func (p *schemaReader) state(n *parquetNode, depth int) (*State, error) {
	if depth > depthMax {
		return nil, fmt.Errorf("nested deeper than %d", depthMax)
	}
	if n.physical >= 0 {
		return n.scalar(), nil
	}
	if n.children == 0 {
		return nil, nil
	}
	switch {
	case n.children == 1 && (n.logical == logicalList || n.converted == convList):
		return p.list(n, depth)
	case n.children == 1 && (n.logical == logicalMap || n.converted == convMap || n.converted == convMapKeyValue):
		return p.mapping(depth)
	}
	return p.group(n.children, depth)
}

func (p *schemaReader) group(children, depth int) (*State, error) {
	s := &State{Kinds: kindStruct}
	for range children {
		f, err := p.field(depth + 1)
		if err != nil {
			return nil, err
		}
		if badMember(f.Name) == "" && f.State != nil {
			s.Fields = joinFields(s.Fields, []Field{f})
		}
	}
	if len(s.Fields) == 0 {
		return nil, nil
	}
	return s, nil
}

// list follows Parquet's rules for lists, those for older writers included.
func (p *schemaReader) list(list *parquetNode, depth int) (*State, error) {
	n, err := p.take()
	if err != nil {
		return nil, err
	}
	var elem *State
	switch {
	case n.repetition != repRepeated:
		return nil, fmt.Errorf("the list %q does not repeat", list.name)
	case n.physical >= 0:
		elem = n.scalar()
	case n.children == 1 && n.name != "array" && n.name != list.name+"_tuple":
		f, err := p.field(depth + 1)
		if err != nil {
			return nil, err
		}
		elem = f.State
	default:
		if elem, err = p.group(n.children, depth+1); err != nil {
			return nil, err
		}
	}
	if elem == nil {
		return nil, nil
	}
	return &State{Kinds: kindArray, Elem: elem}, nil
}

func (p *schemaReader) mapping(depth int) (*State, error) {
	n, err := p.take()
	if err != nil {
		return nil, err
	}
	if n.physical >= 0 || n.children < 1 || n.children > 2 || n.repetition != repRepeated {
		return nil, errors.New("a map that is not made of keys and values")
	}
	key, err := p.field(depth + 1)
	if err != nil {
		return nil, err
	}
	value := Field{State: stateString}
	if n.children == 2 {
		if value, err = p.field(depth + 1); err != nil {
			return nil, err
		}
	}
	if key.State == nil || value.State == nil {
		return nil, nil
	}
	return &State{Kinds: kindMap, Key: key.State, Elem: value.State}, nil
}

// scalar is the state of a leaf, or nil: Hive has no type for times of day, intervals
// and half floats, and engines do not agree on one. Unsigned numbers take the next
// wider type, and those of 64 bits a decimal.
func (n *parquetNode) scalar() *State {
	switch {
	case n.logical == logicalDecimal || n.converted == convDecimal:
		if n.precision < 1 || n.precision > precisionMax || n.scale < 0 || n.scale > n.precision {
			return nil
		}
		return decimal(n.precision-n.scale, n.scale)
	case n.logical == logicalDate || n.converted == convDate:
		return stateDate
	case n.logical == logicalTimestamp || n.converted == convTimestampMillis || n.converted == convTimestampMicros || n.physical == physInt96:
		return stateTimestamp
	case n.logical == logicalTime || n.converted == convTimeMillis || n.converted == convTimeMicros || n.converted == convInterval || n.converted == convBSON:
		return nil
	case n.logical == logicalUUID && n.physical == physFixed:
		return stateString // engines show a UUID as its text
	}
	switch n.physical {
	case physBoolean:
		return stateBoolean
	case physInt32, physInt64:
		return n.integer()
	case physFloat:
		return &State{Kinds: kindFloat}
	case physDouble:
		return stateDouble
	case physByteArray:
		switch {
		case n.logical == logicalString, n.logical == logicalEnum, n.logical == logicalJSON,
			n.converted == convUTF8, n.converted == convEnum, n.converted == convJSON:
			return stateString
		}
	case physFixed:
	default:
		return nil
	}
	if n.logical != 0 && n.logical != logicalUnknown {
		return nil
	}
	return &State{Kinds: kindBinary}
}

func (n *parquetNode) integer() *State {
	bits, unsigned := n.bits, n.unsigned
	switch n.converted {
	case convInt8, convInt16:
		bits = 8 << (n.converted - convInt8)
	case convUint8, convUint16, convUint32, convUint64:
		bits, unsigned = 8<<(n.converted-convUint8), true
	}
	if bits != 8 && bits != 16 && bits != 32 && bits != 64 {
		bits = 32
		if n.physical == physInt64 {
			bits = 64
		}
	}
	if unsigned {
		if bits == 64 {
			return decimal(20, 0)
		}
		bits *= 2
	}
	return integer(uint8(bits))
}

// badColumn says why no table can have a column of that name; "": it can.
func badColumn(name string) string {
	switch {
	case name == "":
		return "a column without a name is left out"
	case len(name) > nameBytesMax:
		return fmt.Sprintf("the column %.40q… is left out: its name is longer than %d bytes", name, nameBytesMax)
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\ufffd' }):
		return fmt.Sprintf("the column %q is left out: its name has control characters or is not UTF-8", name)
	}
	return ""
}

// badMember is badColumn for a struct's member, whose name stands in a type's text.
func badMember(name string) string {
	if why := badColumn(name); why != "" {
		return why
	}
	if strings.ContainsAny(name, "<>,:`() \t") {
		return fmt.Sprintf("the member %q is left out: Hive's types cannot spell it", name)
	}
	return ""
}
