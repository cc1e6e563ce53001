package columnar

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"

	"github.com/tapehouse/tapehouse/internal/record"
)

const (
	// numberEntriesMax bounds a numeric dictionary.
	numberEntriesMax = 1 << 16
	// directRange is the span of values up to which a numeric dictionary is an
	// array and not a hash table.
	directRange = 1 << 16
)

// numberColumn encodes everything that is stored in INT32, INT64 or DOUBLE.
func (e *encoder) numberColumn(c *chunk, col *column, v *growing, rows int) {
	values := e.present(v, rows)
	width := 8
	if c.physical == physInt32 {
		width = 4
	}
	if len(values) == 0 {
		e.dataPages(col, v, rows, encPlain, func(_, _ int) {})
		return
	}
	lo, hi := values[0], values[0]
	for _, x := range values {
		lo, hi = min(lo, x), max(hi, x)
	}
	double := col.field.Type.Kind == record.Double
	slo, shi := lo, hi
	if double {
		slo, shi = doubleBounds(values)
	}
	c.min, c.max, c.hasBounds = appendNumber(nil, slo, width), appendNumber(nil, shi, width), true

	// What the column costs without a dictionary, in bits a value.
	delta := !double && (width == 8 || uint64(hi)-uint64(lo) < math.MaxInt32)
	other := float64(8 * width)
	if delta {
		other = deltaBits(values)
	}
	if e.dictionaryPays(values, lo, hi, width, other) && e.numberCodes(values, lo, hi) {
		for _, x := range e.values {
			e.raw = appendNumber(e.raw, x, width)
		}
		e.close(pageDictionary, len(e.values), encPlain, 0)
		e.codePages(col, v, rows, e.codes[:len(values)], len(e.values))
		return
	}
	if delta {
		e.dataPages(col, v, rows, encDelta, func(from, to int) { e.raw = appendDelta(e.raw, values[from:to]) })
		return
	}
	e.dataPages(col, v, rows, encPlain, func(from, to int) {
		for _, x := range values[from:to] {
			e.raw = appendNumber(e.raw, x, width)
		}
	})
}

func appendNumber(dst []byte, x int64, width int) []byte {
	if width == 4 {
		return binary.LittleEndian.AppendUint32(dst, uint32(x))
	}
	return binary.LittleEndian.AppendUint64(dst, uint64(x))
}

// deltaBits estimates, from a few stretches of the column, what a value costs
// in delta encoding.
func deltaBits(v []int64) float64 {
	const stretches, length = 8, 32
	total, n := 0, 0
	for k := range stretches {
		from := k * (len(v) / stretches)
		s := v[from:min(len(v), from+length+1)]
		if len(s) < 2 {
			continue
		}
		lo, hi := int64(math.MaxInt64), int64(math.MinInt64)
		for i, x := range s[1:] {
			d := x - s[i]
			lo, hi = min(lo, d), max(hi, d)
		}
		total += bits.Len64(uint64(hi) - uint64(lo))
		n++
	}
	if n == 0 {
		return 64
	}
	return float64(total) / float64(n)
}

// dictionaryPays estimates, from a sample, whether a dictionary is smaller than
// `other` bits a value.
func (e *encoder) dictionaryPays(v []int64, lo, hi int64, width int, other float64) bool {
	if lo == hi {
		return true
	}
	const samples = 512
	t := &e.sample
	t.reset()
	e.counts = e.counts[:0]
	step := max(1, len(v)/samples)
	n := 0
	mask := uint64(len(t.slots) - 1)
	for i := 0; i < len(v) && n < samples; i += step {
		x := uint64(v[i])
		n++
		h := t.at(x)
		for t.slots[h].code != 0 && t.slots[h].key != x {
			h = (h + 1) & mask
		}
		if t.slots[h].code == 0 {
			t.put(x, uint32(len(e.counts)))
			e.counts = append(e.counts, 1)
		} else {
			e.counts[t.slots[h].code-1]++
		}
	}
	// Chao's estimate of how many distinct values there are, from those seen once
	// and twice.
	var once, twice float64
	for _, c := range e.counts {
		switch c {
		case 1:
			once++
		case 2:
			twice++
		}
	}
	distinct := float64(len(e.counts))
	if step > 1 {
		distinct += once * once / (2*twice + 1)
	}
	distinct = min(distinct, float64(len(v)), float64(uint64(hi)-uint64(lo))+1)
	if distinct > numberEntriesMax {
		return false
	}
	cost := float64(bits.Len64(uint64(distinct))) + distinct*float64(8*width)/float64(len(v))
	return cost < other*0.9 // A dictionary costs more to write and to read.
}

// numberCodes fills codes and values; false if there are too many values.
func (e *encoder) numberCodes(v []int64, lo, hi int64) bool {
	e.codes = sized(e.codes, len(v))
	codes := e.codes
	e.values = e.values[:0]
	if lo == hi {
		e.values = append(e.values, lo)
		clear(codes)
		return true
	}
	if uint64(hi)-uint64(lo) < directRange {
		direct := e.direct
		for i, x := range v {
			at := uint16(x - lo)
			c := direct[at]
			if c == 0 {
				e.values = append(e.values, x)
				c = uint32(len(e.values))
				direct[at] = c
			}
			codes[i] = c - 1
		}
		for _, x := range e.values {
			direct[uint16(x-lo)] = 0
		}
		return true
	}
	t := &e.numbers
	t.reset()
	for i, x := range v {
		mask := uint64(len(t.slots) - 1)
		h := t.at(uint64(x))
		for {
			s := &t.slots[h]
			if s.key == uint64(x) && s.code != 0 {
				codes[i] = s.code - 1
				break
			}
			if s.code == 0 {
				if len(e.values) == numberEntriesMax {
					return false
				}
				codes[i] = uint32(len(e.values))
				t.put(uint64(x), codes[i])
				e.values = append(e.values, x)
				break
			}
			h = (h + 1) & mask
		}
	}
	return true
}

// appendDelta appends v in DELTA_BINARY_PACKED: blocks of 128 values in 4
// miniblocks. Deltas wrap at 64 bits, as INT64 wants; for INT32 the caller sees
// to it that none exceeds 32.
func appendDelta(dst []byte, v []int64) []byte {
	const block, minis, mini = 128, 4, 32
	dst = binary.AppendUvarint(dst, block)
	dst = binary.AppendUvarint(dst, minis)
	dst = binary.AppendUvarint(dst, uint64(len(v)))
	if len(v) == 0 {
		return appendVarint(dst, 0)
	}
	dst = appendVarint(dst, v[0])
	var deltas [block]int64
	last := v[0]
	for v = v[1:]; len(v) > 0; v = v[min(block, len(v)):] {
		n := min(block, len(v))
		least := int64(math.MaxInt64)
		for i, x := range v[:n] {
			d := x - last
			last = x
			deltas[i&(block-1)] = d
			least = min(least, d)
		}
		// What is missing in the last miniblock is filled; further ones are empty.
		for i := n; i < block; i++ {
			deltas[i] = least
		}
		dst = appendVarint(dst, least)
		at := len(dst)
		dst = slices.Grow(dst, minis+block*8+8)[:at+minis]
		clear(dst[at:])
		for m := 0; m*mini < n; m++ {
			s := (*[mini]int64)(deltas[m*mini:])
			var or uint64
			for i := range s {
				s[i] -= least
				or |= uint64(s[i])
			}
			w := uint(bits.Len64(or))
			dst[at+m] = byte(w)
			dst = packMini(dst, s, w)
		}
	}
	return dst
}

// packMini appends 32 values of w bits. REQUIRES: room for 4·w+8 bytes.
func packMini(dst []byte, s *[32]int64, w uint) []byte {
	if w == 0 {
		return dst
	}
	p := packer{dst: dst[:len(dst)+4*int(w)+8], at: len(dst)}
	end := len(dst) + 4*int(w)
	if w <= 32 {
		for _, x := range s {
			p.put32(uint64(x), w)
		}
	} else {
		for _, x := range s {
			p.put64(uint64(x), w)
		}
	}
	return p.finish(end)
}
