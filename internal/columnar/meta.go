package columnar

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/tapehouse/tapehouse/internal/record"
)

// ColumnStats are what an Iceberg manifest says of a column in a data file.
type ColumnStats struct {
	FieldID   int
	Values    int64 // nulls included
	Nulls     int64 // -1 if the file does not say
	SizeBytes int64 // compressed, page headers included
	// Lower and Upper are bounds in Iceberg's binary single-value serialisation;
	// nil if there are none (no value but nulls, or unknown).
	Lower, Upper []byte
}

// FileMeta describes a Parquet file.
type FileMeta struct {
	SchemaID     int // Iceberg schema id
	Rows         int64
	SizeBytes    int64
	Columns      []ColumnStats
	SplitOffsets []int64 // where the row groups start

	footer *footer // nil for one that was not made here: Concat reads it then
}

// Range gives the bounds of a column's values, nil if they are not known.
func (m *FileMeta) Range(fieldID int) (lower, upper []byte) {
	for i := range m.Columns {
		if c := &m.Columns[i]; c.FieldID == fieldID {
			return c.Lower, c.Upper
		}
	}
	return nil, nil
}

// ReadMeta reads the description of a file that this package wrote, of size
// bytes, from its footer.
func ReadMeta(r io.ReaderAt, size int64) (FileMeta, error) {
	f, err := readFooter(r, size)
	if err != nil {
		return FileMeta{}, err
	}
	id := -1
	for _, kv := range f.keyValues {
		if kv[0] == schemaIDKey {
			if id, err = strconv.Atoi(kv[1]); err != nil {
				return FileMeta{}, fmt.Errorf("%w: %s is %q", ErrFooter, schemaIDKey, kv[1])
			}
		}
	}
	if !f.ours || id < 0 {
		return FileMeta{}, fmt.Errorf("%w: not written by %s", ErrFooter, createdBy)
	}
	return f.meta(id, size, nil), nil
}

// MetaFromParquet describes any Parquet file of size bytes whose columns carry
// the schema's field ids. Columns that the schema does not know are left out;
// a field of the schema that the file lacks must be optional. An error that
// wraps ErrFooter says what does not fit.
func MetaFromParquet(r io.ReaderAt, size int64, schema record.Schema) (FileMeta, error) {
	f, err := readFooter(r, size)
	if err != nil {
		return FileMeta{}, err
	}
	types := map[int]record.Type{}
	for _, fd := range schema.Fields {
		types[fd.ID] = fd.Type
		at := slices.IndexFunc(f.leaves, func(i int) bool { return f.elements[i].fieldID == fd.ID })
		if at < 0 && fd.Required {
			return FileMeta{}, fmt.Errorf("%w: no column with field id %d for the required field %q", ErrFooter, fd.ID, fd.Name)
		}
		if at >= 0 && !readableAs(f.elements[f.leaves[at]].physical, fd.Type) {
			return FileMeta{}, fmt.Errorf("%w: field %q is %s, its column of physical type %d", ErrFooter, fd.Name, fd.Type, f.elements[f.leaves[at]].physical)
		}
	}
	return f.meta(schema.ID, size, types), nil
}

// readableAs reports whether Iceberg reads a physical type as t, promotions
// (int to long, decimals to more digits) included.
func readableAs(physical int, t record.Type) bool {
	want := physicalType(t)
	switch {
	case physical == want:
		return true
	case t.Kind == record.Long:
		return physical == physInt32
	case t.Kind == record.Decimal:
		return physical == physInt32 || physical == physInt64 || physical == physFixed || physical == physByteArray
	case t.Kind == record.Double:
		return physical == physFloat
	}
	return false
}

// meta summarises the footer. types, by field id, say how to serialise bounds
// and which columns to describe; nil: by the file's own types, all.
func (f *footer) meta(schemaID int, size int64, types map[int]record.Type) FileMeta {
	m := FileMeta{SchemaID: schemaID, Rows: f.rows, SizeBytes: size, footer: f}
	for i := range f.groups {
		m.SplitOffsets = append(m.SplitOffsets, f.groups[i].offset())
	}
	for k, at := range f.leaves {
		e := &f.elements[at]
		if e.fieldID == 0 || e.repeated {
			continue
		}
		target, ok := types[e.fieldID]
		if types != nil && !ok {
			continue
		}
		m.Columns = append(m.Columns, f.columnStats(k, e, target))
	}
	return m
}

func (f *footer) columnStats(k int, e *element, target record.Type) ColumnStats {
	s := ColumnStats{FieldID: e.fieldID}
	bounded := true
	var lo, hi []byte
	for i := range f.groups {
		c := &f.groups[i].chunks[k]
		s.Values += c.values
		s.SizeBytes += c.compressed
		if c.nulls < 0 || s.Nulls < 0 {
			s.Nulls = -1
		} else {
			s.Nulls += c.nulls
		}
		if !c.hasBounds {
			bounded = bounded && c.nulls >= 0 && c.nulls == c.values
			continue
		}
		if !wellFormed(e, c.min) || !wellFormed(e, c.max) {
			bounded = false
			continue
		}
		if lo == nil || compareValues(e, c.min, lo) < 0 {
			lo = c.min
		}
		if hi == nil || compareValues(e, c.max, hi) > 0 {
			hi = c.max
		}
	}
	if bounded && lo != nil {
		s.Lower, s.Upper = singleValue(e, target, lo, false), singleValue(e, target, hi, true)
	}
	return s
}

// wellFormed reports whether b can be a statistic of e's physical type.
func wellFormed(e *element, b []byte) bool {
	switch e.physical {
	case physBoolean:
		return len(b) == 1
	case physInt32, physFloat:
		return len(b) == 4
	case physInt64, physDouble:
		return len(b) == 8
	case physByteArray:
		return e.converted != convDecimal || len(b) > 0
	case physFixed:
		return len(b) > 0
	}
	return false
}

func compareValues(e *element, a, b []byte) int {
	le := binary.LittleEndian
	switch e.physical {
	case physInt32:
		return int(max(-1, min(1, int64(int32(le.Uint32(a)))-int64(int32(le.Uint32(b))))))
	case physInt64:
		x, y := int64(le.Uint64(a)), int64(le.Uint64(b))
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	case physFloat, physDouble:
		x, y := float(a), float(b)
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	}
	if e.converted == convDecimal { // big-endian two's complement
		return compareSigned(a, b)
	}
	return bytes.Compare(a, b)
}

func float(b []byte) float64 {
	if len(b) == 4 {
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(b))
}

func compareSigned(a, b []byte) int {
	if na, nb := a[0] >= 0x80, b[0] >= 0x80; na != nb {
		if na {
			return -1
		}
		return 1
	}
	a, b = minimal(a), minimal(b)
	if len(a) != len(b) {
		longer := len(a) > len(b)
		if longer != (a[0] >= 0x80) { // the longer positive, or the shorter negative, is greater
			return 1
		}
		return -1
	}
	return bytes.Compare(a, b)
}

// minimal strips the leading bytes of a big-endian two's complement number that
// only repeat its sign.
func minimal(b []byte) []byte {
	for len(b) > 1 && (b[0] == 0 && b[1] < 0x80 || b[0] == 0xff && b[1] >= 0x80) {
		b = b[1:]
	}
	return b
}

// singleValue turns a Parquet statistic into Iceberg's binary form; nil if there
// is no such bound. target has Kind 0 if the file's own type holds.
func singleValue(e *element, target record.Type, b []byte, upper bool) []byte {
	switch {
	case e.converted == convDecimal && (e.physical == physInt32 || e.physical == physInt64):
		var x int64
		if e.physical == physInt32 {
			x = int64(int32(binary.LittleEndian.Uint32(b)))
		} else {
			x = int64(binary.LittleEndian.Uint64(b))
		}
		return minimal(binary.BigEndian.AppendUint64(nil, uint64(x)))
	case e.converted == convDecimal:
		return bytes.Clone(minimal(b))
	case target.Kind == record.Long && e.physical == physInt32:
		return binary.LittleEndian.AppendUint64(nil, uint64(int64(int32(binary.LittleEndian.Uint32(b)))))
	case target.Kind == record.Double && e.physical == physFloat:
		return binary.LittleEndian.AppendUint64(nil, math.Float64bits(float(b)))
	case (e.physical == physFloat || e.physical == physDouble) && math.IsNaN(float(b)):
		return nil
	case e.physical == physByteArray && upper:
		return truncateUp(b, boundBytes)
	case e.physical == physByteArray:
		return truncateDown(b, boundBytes)
	}
	return bytes.Clone(b)
}

// boundBytes is how much of a string a bound keeps, as Iceberg's default
// metrics mode truncate(16).
const boundBytes = 16

// truncateDown cuts s to at most n bytes at a character: a lower bound.
func truncateDown(s []byte, n int) []byte {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return append([]byte{}, s...)
}

// truncateUp is truncateDown with the last character raised, if anything was
// cut: an upper bound. It returns nil if there is none of that length.
func truncateUp(s []byte, n int) []byte {
	cut := truncateDown(s, n)
	if len(cut) == len(s) {
		return cut
	}
	for len(cut) > 0 {
		r, size := utf8.DecodeLastRune(cut)
		cut = cut[:len(cut)-size]
		if r == utf8.RuneError && size == 1 {
			return nil // no UTF-8: no order of characters to raise it in
		}
		switch r {
		case utf8.MaxRune:
			continue
		case 0xD7FF: // surrogates are no characters
			r = 0xE000
		default:
			r++
		}
		raised := utf8.AppendRune(cut, r)
		if len(raised) <= n {
			return raised
		}
	}
	return nil
}

// icebergSchema is the schema as Iceberg's JSON, which readers of Parquet files
// outside a table may use.
func icebergSchema(s record.Schema) string {
	type field struct {
		ID       int    `json:"id"`
		Name     string `json:"name"`
		Required bool   `json:"required"`
		Type     string `json:"type"`
	}
	fields := make([]field, 0, len(s.Fields))
	for _, f := range s.Fields {
		fields = append(fields, field{f.ID, f.Name, f.Required, f.Type.String()})
	}
	b, err := json.Marshal(struct {
		Type     string  `json:"type"`
		SchemaID int     `json:"schema-id"`
		Fields   []field `json:"fields"`
	}{"struct", s.ID, fields})
	if err != nil {
		return "" // Strings and numbers always marshal.
	}
	return string(b)
}
