package delivery

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/big"
	"slices"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/record"
)

// mayShare reports whether two files can have a row with the same key, as far as
// the bounds of their columns tell.
func mayShare(a, b []catalog.ColumnStats, keys record.Schema) bool {
	for i := range keys.Fields {
		f := &keys.Fields[i]
		x, y := statsOf(a, f.ID), statsOf(b, f.ID)
		if x == nil || y == nil {
			continue
		}
		if above(f.Type.Kind, x.Lower, y.Upper) || above(f.Type.Kind, y.Lower, x.Upper) {
			return false
		}
	}
	return true
}

func statsOf(columns []catalog.ColumnStats, id int) *catalog.ColumnStats {
	i := slices.IndexFunc(columns, func(c catalog.ColumnStats) bool { return c.FieldID == id })
	if i < 0 {
		return nil
	}
	return &columns[i]
}

// above reports whether a lower bound is certainly above an upper one. They are
// values in Iceberg's binary form: an integer or decimal may be of a former,
// narrower type.
func above(kind record.Kind, lower, upper []byte) bool {
	if len(lower) == 0 || len(upper) == 0 { // not known; or the empty text, which is above nothing
		return false
	}
	switch kind {
	case record.String:
		return bytes.Compare(lower, upper) > 0
	case record.Decimal:
		return signed(lower).Cmp(signed(upper)) > 0
	case record.Boolean, record.Int, record.Long, record.Date, record.TimestampTZ:
		x, ok := integer(lower)
		y, ok2 := integer(upper)
		return ok && ok2 && cmp.Compare(x, y) > 0
	}
	return false
}

func integer(b []byte) (int64, bool) {
	switch len(b) {
	case 1:
		return int64(b[0]), true
	case 4:
		return int64(int32(binary.LittleEndian.Uint32(b))), true
	case 8:
		return int64(binary.LittleEndian.Uint64(b)), true
	}
	return 0, false
}

// signed reads a big-endian number in two's complement.
func signed(b []byte) *big.Int {
	x := new(big.Int).SetBytes(b)
	if b[0]&0x80 != 0 {
		x.Sub(x, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return x
}
