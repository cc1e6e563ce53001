package delivery

import (
	"encoding/binary"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/record"
)

// bigEndian is a decimal's bound: two's complement in as few bytes as it takes.
func bigEndian(x int64) []byte {
	n := 1
	for v := x; v > 127 || v < -128; v >>= 8 {
		n++
	}
	v := big.NewInt(x)
	if x < 0 {
		v.Add(v, new(big.Int).Lsh(big.NewInt(1), uint(8*n)))
	}
	return v.FillBytes(make([]byte, n))
}

// Files that have a key in common are never taken for files that have not; those
// whose ranges are apart are.
func TestBoundsOfKeys(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	le32 := func(x int64) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(int32(x))) }
	le64 := func(x int64) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(x)) }
	forms := map[record.Kind][]func(int64) []byte{
		record.Int: {le32}, record.Long: {le64, le32}, record.Date: {le32}, record.TimestampTZ: {le64}, record.Decimal: {bigEndian},
		record.String: {func(x int64) []byte { return []byte{byte(x + 128)} }},
	}
	for kind, list := range forms {
		keys := record.Schema{Fields: []record.Field{{ID: 1, Type: record.Type{Kind: kind}}, {ID: 2, Type: record.Type{Kind: record.Long}}}}
		for range 2000 {
			span := func() (lo, hi int64, c []catalog.ColumnStats) {
				lo = int64(r.IntN(256)) - 128
				hi = min(lo+int64(r.IntN(40)), 127)
				form := list[r.IntN(len(list))]
				return lo, hi, []catalog.ColumnStats{{FieldID: 2}, {FieldID: 1, Lower: form(lo), Upper: form(hi)}}
			}
			lo, hi, a := span()
			lo2, hi2, b := span()
			want := lo <= hi2 && lo2 <= hi
			if got := mayShare(a, b, keys); got != want && !(got && kind == record.String && (lo == -128 || lo2 == -128)) {
				t.Fatalf("kind %v: [%d, %d] and [%d, %d]: %t", kind, lo, hi, lo2, hi2, got)
			}
		}
	}
	for _, x := range []int64{0, 1, -1, 127, 128, -128, -129, 255, 256, -256, 1 << 40, -1 << 40} {
		if got := signed(bigEndian(x)); got.Int64() != x {
			t.Errorf("%d reads as %s", x, got)
		}
	}
	unknown := []catalog.ColumnStats{{FieldID: 1, Lower: le64(9), Upper: nil}}
	if !mayShare(unknown, []catalog.ColumnStats{{FieldID: 1, Lower: le64(1), Upper: le64(20)}}, record.Schema{Fields: []record.Field{{ID: 1, Type: record.Type{Kind: record.Long}}}}) {
		t.Error("a bound that is not known excludes a file")
	}
}
