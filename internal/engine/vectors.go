package engine

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"time"
	"unsafe"

	bindings "github.com/duckdb/duckdb-go-bindings"
)

// reader turns one column of a chunk into row values. A chunk's vectors are
// flat arrays in DuckDB's memory, with one validity bit a row:
//
//	validity  uint64[rows/64]      bit i of word i/64; no array if all are valid
//	fixed     T[rows]              integers, floats, days, microseconds
//	int128    {lower uint64, upper int64}[rows]
//	string    {length uint32, prefix [4]byte, pointer}[rows]; inline from byte 4 up to 12 bytes
//	list      {offset, length uint64}[rows] into the child vector
//	struct    one child vector a field
//
// Values are copied out, so that none points into a chunk that is gone.
type reader interface {
	reset(v bindings.Vector)
	null(row int) bool
	value(row int) any
}

// flat is the part that all readers share.
type flat struct {
	data     unsafe.Pointer
	validity unsafe.Pointer
}

func (f *flat) reset(v bindings.Vector) {
	f.data = bindings.VectorGetData(v)
	f.validity = bindings.VectorGetValidity(v)
}

func (f *flat) null(row int) bool {
	return f.validity != nil && *(*uint64)(unsafe.Add(f.validity, row/64*8))>>(row%64)&1 == 0
}

func at[T any](f *flat, row int) T {
	var z T
	return *(*T)(unsafe.Add(f.data, uintptr(row)*unsafe.Sizeof(z)))
}

// fixed reads elements of Go type T and converts them.
type fixed[T any] struct {
	flat
	convert func(T) any
	// json, if not nil, appends an element as a document has it, without the
	// value between.
	json func(dst []byte, v T) ([]byte, error)
}

// document appends the element, which is not null, as JSON.
func (r *fixed[T]) document(dst []byte, row int) ([]byte, error) {
	v := at[T](&r.flat, row)
	if r.json != nil {
		return r.json(dst, v)
	}
	return appendDocumentValue(dst, r.convert(v))
}

func (r *fixed[T]) value(row int) any {
	if r.null(row) {
		return nil
	}
	return r.convert(at[T](&r.flat, row))
}

// int128 is DuckDB's hugeint. Its unsigned form has the same lower half.
type int128 struct {
	lower uint64
	upper int64
}

func (v int128) big() *big.Int {
	b := big.NewInt(v.upper)
	b.Lsh(b, 64)
	return b.Add(b, new(big.Int).SetUint64(v.lower))
}

func bigUint128(v int128) *big.Int {
	b := new(big.Int).SetUint64(uint64(v.upper))
	b.Lsh(b, 64)
	return b.Add(b, new(big.Int).SetUint64(v.lower))
}

// duckString is DuckDB's string_t.
type duckString struct {
	length uint32
	inline [12]byte
}

const stringInlineMax = 12

// decimal reads DECIMAL, whose unscaled value is an integer of size bytes.
type decimal struct {
	flat
	size  int
	scale int32
}

func (r *decimal) value(row int) any {
	if r.null(row) {
		return nil
	}
	if r.size == 16 {
		return Decimal{at[int128](&r.flat, row).big(), r.scale}
	}
	return Decimal{big.NewInt(r.small(row)), r.scale}
}

// small is the unscaled value. REQUIRES: size is not 16.
func (r *decimal) small(row int) int64 {
	switch r.size {
	case 2:
		return int64(at[int16](&r.flat, row))
	case 4:
		return int64(at[int32](&r.flat, row))
	}
	return at[int64](&r.flat, row)
}

// appendTo appends the value, which is not null, in plain notation.
func (r *decimal) appendTo(dst []byte, row int) []byte {
	if r.size < 16 {
		return appendScaled(dst, r.small(row), int(r.scale))
	}
	v := at[int128](&r.flat, row)
	if v.upper == int64(v.lower)>>63 {
		return appendScaled(dst, int64(v.lower), int(r.scale))
	}
	return Decimal{v.big(), r.scale}.appendTo(dst)
}

// text reads VARCHAR and BLOB.
type text struct {
	flat
	blob bool
	json bool // a VARCHAR of the type JSON
}

func (r *text) value(row int) any {
	if r.null(row) {
		return nil
	}
	b := r.bytes(row)
	if r.blob {
		return append(make([]byte, 0, len(b)), b...)
	}
	return string(b)
}

// bytes is the value, which is not null, in DuckDB's memory.
func (r *text) bytes(row int) []byte {
	p := unsafe.Add(r.data, uintptr(row)*unsafe.Sizeof(duckString{}))
	n := int((*duckString)(p).length)
	if n <= stringInlineMax {
		return unsafe.Slice((*byte)(unsafe.Add(p, 4)), n)
	}
	return unsafe.Slice(*(**byte)(unsafe.Add(p, 8)), n)
}

// enum reads an ENUM through its dictionary.
type enum struct {
	flat
	size  int // bytes of an index
	words []string
}

func (r *enum) value(row int) any {
	if r.null(row) {
		return nil
	}
	var i uint32
	switch r.size {
	case 1:
		i = uint32(at[uint8](&r.flat, row))
	case 2:
		i = uint32(at[uint16](&r.flat, row))
	default:
		i = at[uint32](&r.flat, row)
	}
	return r.words[i]
}

// sequence reads LIST, MAP (a list of key-value structs) and ARRAY as JSON.
type sequence struct {
	flat
	child reader
	array int // elements a row of an ARRAY, or 0
}

func (r *sequence) reset(v bindings.Vector) {
	r.flat.reset(v)
	if r.array > 0 {
		r.child.reset(bindings.ArrayVectorGetChild(v))
		return
	}
	r.child.reset(bindings.ListVectorGetChild(v))
}

func (r *sequence) value(row int) any {
	if r.null(row) {
		return nil
	}
	return string(r.appendJSON(nil, row))
}

// span is where the elements of a row stand in the child vector.
func (r *sequence) span(row int) (from, n int) {
	if r.array > 0 {
		return row * r.array, r.array
	}
	e := at[[2]uint64](&r.flat, row)
	return int(e[0]), int(e[1])
}

func (r *sequence) appendJSON(dst []byte, row int) []byte {
	from, n := r.span(row)
	dst = append(dst, '[')
	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendJSON(dst, r.child, from+i)
	}
	return append(dst, ']')
}

// structure reads STRUCT as JSON.
type structure struct {
	flat
	names    []string
	children []reader
}

func (r *structure) reset(v bindings.Vector) {
	r.flat.reset(v)
	for i, c := range r.children {
		c.reset(bindings.StructVectorGetChild(v, bindings.IdxT(i)))
	}
}

func (r *structure) value(row int) any {
	if r.null(row) {
		return nil
	}
	return string(r.appendJSON(nil, row))
}

func (r *structure) appendJSON(dst []byte, row int) []byte {
	dst = append(dst, '{')
	for i, c := range r.children {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendJSONString(dst, r.names[i])
		dst = appendJSON(append(dst, ':'), c, row)
	}
	return append(dst, '}')
}

func appendJSONString(dst []byte, s string) []byte {
	b, _ := json.Marshal(s) // a string always marshals
	return append(dst, b...)
}

// appendJSON appends one nested value: numbers and booleans as JSON has them,
// everything else as a string of its text form.
func appendJSON(dst []byte, r reader, row int) []byte {
	switch n := r.(type) {
	case *sequence:
		if !n.null(row) {
			return n.appendJSON(dst, row)
		}
	case *structure:
		if !n.null(row) {
			return n.appendJSON(dst, row)
		}
	}
	switch v := r.value(row).(type) {
	case nil:
		return append(dst, "null"...)
	case bool:
		return fmt.Append(dst, v)
	case int16, int32, int64, Decimal:
		return AppendText(dst, v, nil)
	default:
		return appendJSONString(dst, string(AppendText(nil, v, time.UTC)))
	}
}

func direct[T any](v T) any { return v }

// newReader returns a reader for columns of type lt, which stays the caller's.
func newReader(lt bindings.LogicalType) (reader, error) {
	switch id := bindings.GetTypeId(lt); id {
	case bindings.TypeBoolean:
		return &fixed[bool]{convert: direct[bool]}, nil
	case bindings.TypeTinyInt:
		return &fixed[int8]{convert: func(v int8) any { return int16(v) }}, nil
	case bindings.TypeUTinyInt:
		return &fixed[uint8]{convert: func(v uint8) any { return int16(v) }}, nil
	case bindings.TypeSmallInt:
		return &fixed[int16]{convert: direct[int16]}, nil
	case bindings.TypeUSmallInt:
		return &fixed[uint16]{convert: func(v uint16) any { return int32(v) }}, nil
	case bindings.TypeInteger, bindings.TypeSQLNull:
		return &fixed[int32]{convert: direct[int32], json: appendJSONInt[int32]}, nil
	case bindings.TypeUInteger:
		return &fixed[uint32]{convert: func(v uint32) any { return int64(v) }}, nil
	case bindings.TypeBigInt:
		return &fixed[int64]{convert: direct[int64], json: appendJSONInt[int64]}, nil
	case bindings.TypeUBigInt:
		return &fixed[uint64]{convert: func(v uint64) any { return Decimal{new(big.Int).SetUint64(v), 0} }}, nil
	case bindings.TypeHugeInt:
		return &fixed[int128]{convert: func(v int128) any { return Decimal{v.big(), 0} }}, nil
	case bindings.TypeUHugeInt:
		return &fixed[int128]{convert: func(v int128) any { return Decimal{bigUint128(v), 0} }}, nil
	case bindings.TypeDecimal:
		return newDecimalReader(lt)
	case bindings.TypeFloat:
		return &fixed[float32]{convert: direct[float32]}, nil
	case bindings.TypeDouble:
		return &fixed[float64]{convert: direct[float64]}, nil
	case bindings.TypeVarchar:
		return &text{json: bindings.LogicalTypeGetAlias(lt) == "JSON"}, nil
	case bindings.TypeBlob:
		return &text{blob: true}, nil
	case bindings.TypeUUID:
		return &fixed[int128]{convert: func(v int128) any { return uuidText(v) }}, nil
	case bindings.TypeDate:
		return &fixed[int32]{convert: func(v int32) any { return Date(v) }, json: appendJSONDate}, nil
	case bindings.TypeTime:
		return &fixed[int64]{convert: func(v int64) any { return Time(v) }}, nil
	case bindings.TypeTimestamp:
		return &fixed[int64]{convert: func(v int64) any { return Timestamp(v) }, json: func(dst []byte, v int64) ([]byte, error) { return appendJSONTimestamp(dst, v, false) }}, nil
	case bindings.TypeTimestampTZ:
		return &fixed[int64]{convert: func(v int64) any { return TimestampTZ(v) }, json: func(dst []byte, v int64) ([]byte, error) { return appendJSONTimestamp(dst, v, true) }}, nil
	case bindings.TypeTimestampS:
		return &fixed[int64]{convert: func(v int64) any { return timestampScaled(v, 1_000_000) }}, nil
	case bindings.TypeTimestampMS:
		return &fixed[int64]{convert: func(v int64) any { return timestampScaled(v, 1_000) }}, nil
	case bindings.TypeTimestampNS:
		return &fixed[int64]{convert: timestampNanos}, nil
	case bindings.TypeInterval:
		return &fixed[Interval]{convert: direct[Interval]}, nil
	case bindings.TypeEnum:
		return newEnumReader(lt), nil
	case bindings.TypeList, bindings.TypeMap, bindings.TypeArray, bindings.TypeStruct:
		return newNestedReader(id, lt)
	}
	return nil, &Error{Kind: Unsupported, Message: "a result column has a type that this engine does not return; cast it to VARCHAR"}
}

func newDecimalReader(lt bindings.LogicalType) (reader, error) {
	r := &decimal{scale: int32(bindings.DecimalScale(lt))}
	switch bindings.DecimalInternalType(lt) {
	case bindings.TypeSmallInt:
		r.size = 2
	case bindings.TypeInteger:
		r.size = 4
	case bindings.TypeBigInt:
		r.size = 8
	case bindings.TypeHugeInt:
		r.size = 16
	default:
		return nil, &Error{Kind: Internal, Message: "DECIMAL with an unknown representation"}
	}
	return r, nil
}

func newEnumReader(lt bindings.LogicalType) reader {
	r := &enum{size: 4}
	switch bindings.EnumInternalType(lt) {
	case bindings.TypeUTinyInt:
		r.size = 1
	case bindings.TypeUSmallInt:
		r.size = 2
	}
	for i := range bindings.EnumDictionarySize(lt) {
		r.words = append(r.words, bindings.EnumDictionaryValue(lt, bindings.IdxT(i)))
	}
	return r
}

func newNestedReader(id bindings.Type, lt bindings.LogicalType) (reader, error) {
	child := func(c bindings.LogicalType) (reader, error) {
		defer bindings.DestroyLogicalType(&c)
		return newReader(c)
	}
	switch id {
	case bindings.TypeArray:
		c, err := child(bindings.ArrayTypeChildType(lt))
		return &sequence{child: c, array: int(bindings.ArrayTypeArraySize(lt))}, err
	case bindings.TypeList:
		c, err := child(bindings.ListTypeChildType(lt))
		return &sequence{child: c}, err
	case bindings.TypeMap:
		k, err := child(bindings.MapTypeKeyType(lt))
		if err != nil {
			return nil, err
		}
		v, err := child(bindings.MapTypeValueType(lt))
		return &sequence{child: &structure{names: []string{"key", "value"}, children: []reader{k, v}}}, err
	}
	r := &structure{}
	for i := range bindings.StructTypeChildCount(lt) {
		c, err := child(bindings.StructTypeChildType(lt, i))
		if err != nil {
			return nil, err
		}
		r.names = append(r.names, bindings.StructTypeChildName(lt, i))
		r.children = append(r.children, c)
	}
	return r, nil
}

// uuidText undoes DuckDB's flipped sign bit, which makes UUIDs sort as int128.
func uuidText(v int128) string {
	var b [16]byte
	hi := uint64(v.upper) ^ 1<<63
	for i := range 8 {
		b[i] = byte(hi >> (56 - 8*i))
		b[8+i] = byte(v.lower >> (56 - 8*i))
	}
	h := hex.EncodeToString(b[:])
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

func timestampScaled(v, micros int64) any {
	if v == timestampInfinity || v == -timestampInfinity {
		return Timestamp(v)
	}
	return Timestamp(v * micros)
}

func timestampNanos(v int64) any {
	if v == timestampInfinity || v == -timestampInfinity {
		return Timestamp(v)
	}
	q := v / 1000
	if v%1000 < 0 {
		q--
	}
	return Timestamp(q)
}
