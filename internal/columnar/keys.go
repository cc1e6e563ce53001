package columnar

import (
	"encoding/binary"
	"fmt"

	"github.com/tapehouse/tapehouse/internal/record"
)

// Keys reads the values of some of a layout's columns, the key of a row.
type Keys struct {
	layout  *Layout
	columns []int
}

// Keys compiles key columns, in their order. Errors wrap ErrSchema: a column
// that is not there, one that records do not decide, and one of a type whose
// values are not simply equal or different.
func (l *Layout) Keys(names []string) (*Keys, error) {
	k := &Keys{layout: l}
	for _, n := range names {
		i := l.schema.Index(n)
		switch {
		case i < 0:
			return nil, fmt.Errorf("%w: key column %q does not exist", ErrSchema, n)
		case !l.columns[i].stored:
			return nil, fmt.Errorf("%w: key column %q is not in the records, but derived by %s", ErrSchema, n, l.columns[i].field.Derive)
		case l.columns[i].field.Type.Kind == record.Double:
			return nil, fmt.Errorf("%w: key column %q is a double, whose values are not exact: use a decimal", ErrSchema, n)
		}
		k.columns = append(k.columns, i)
	}
	return k, nil
}

// KeySchema is s with every column optional: what a record must fit that names
// rows by their key without being one.
func KeySchema(s record.Schema) record.Schema {
	out := record.Schema{ID: s.ID, Fields: append([]record.Field(nil), s.Fields...)}
	for i := range out.Fields {
		out.Fields[i].Required = false
	}
	return out
}

// Append appends a row's key to dst: the same bytes for equal keys, other bytes
// for others, whatever the batches. ok is false if a column of it is null.
// REQUIRES: b is of k's layout, or of another with the same columns.
func (k *Keys) Append(dst []byte, b *Batch, row int) (_ []byte, ok bool) {
	for _, i := range k.columns {
		v := &b.cols[i]
		switch {
		case v.hasNull && v.nulls[row] != 0:
			return dst, false
		case k.layout.columns[i].isString:
			s := v.dict.entry(v.codes[row])
			dst = append(binary.AppendUvarint(dst, uint64(len(s))), s...)
		default:
			dst = binary.LittleEndian.AppendUint64(dst, uint64(stored(b.layout, i, v.ints[row])))
		}
	}
	return dst, true
}

// stored is a column's value as a file has it.
func stored(l *Layout, i int, x int64) int64 {
	if l.columns[i].nanos {
		return floorMicros(x)
	}
	return x
}

// Project copies rows into a batch of another layout, whose columns all come
// from JSON and are found by name and type; none of the rows is null in them.
// It is the caller's to Release.
func (b *Batch) Project(to *Layout, rows []int32) *Batch {
	out := to.batch(len(rows), b.arrivedAt)
	for c := range to.columns {
		from := b.layout.schema.Index(to.columns[c].field.Name)
		src, dst := &b.cols[from], &out.cols[c]
		for n, r := range rows {
			if to.columns[c].isString {
				dst.codes[n] = dst.dict.code(src.dict.entry(src.codes[r]), n)
			} else {
				dst.ints[n] = stored(b.layout, from, src.ints[r])
			}
		}
	}
	out.Rows, out.Doc = len(rows), out.Doc[:0]
	for n := range rows {
		out.Doc = append(out.Doc, int32(n))
	}
	out.key, out.first = b.key, b.first
	return out
}
