package columnar

import (
	"encoding/json"
	"math"
	"strconv"
	"time"

	"github.com/tapehouse/tapehouse/internal/record"
)

// AppendDocument appends a JSON document that decodes to the row: members in
// schema order, nulls left out. Where the batch still has the document that was
// put, it is that one.
func (b *Batch) AppendDocument(dst []byte, row int) []byte {
	if doc := b.Document(row); doc != nil {
		return append(dst, doc...)
	}
	dst = append(dst, '{')
	first := true
	for _, i := range b.layout.json {
		c, v := &b.layout.columns[i], &b.cols[i]
		if v.hasNull && v.nulls[row] == 1 {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(appendQuoted(dst, c.field.Name), ':')
		if c.isString {
			dst = appendQuoted(dst, string(v.text(row, v.codes[row])))
			continue
		}
		dst = c.appendValue(dst, v.ints[row])
	}
	return append(dst, '}')
}

func (c *column) appendValue(dst []byte, x int64) []byte {
	switch c.field.Type.Kind {
	case record.Boolean:
		return strconv.AppendBool(dst, x != 0)
	case record.Decimal:
		return appendDecimal(dst, x, c.field.Type.Scale)
	case record.Double:
		return strconv.AppendFloat(dst, math.Float64frombits(uint64(x)), 'g', -1, 64)
	case record.Date:
		return time.Unix(x*86_400, 0).UTC().AppendFormat(dst, `"2006-01-02"`)
	case record.TimestampTZ:
		at := time.UnixMicro(x)
		if c.nanos {
			at = time.Unix(0, x)
		}
		return at.UTC().AppendFormat(dst, `"2006-01-02T15:04:05.999999999Z"`)
	}
	return strconv.AppendInt(dst, x, 10)
}

// appendDecimal writes an unscaled value with its point.
func appendDecimal(dst []byte, unscaled int64, scale int) []byte {
	u := uint64(unscaled)
	if unscaled < 0 {
		dst = append(dst, '-')
		u = -u
	}
	var digits [20]byte
	text := strconv.AppendUint(digits[:0], u, 10)
	for len(text) <= scale {
		text = append([]byte{'0'}, text...)
	}
	dst = append(dst, text[:len(text)-scale]...)
	if scale == 0 {
		return dst
	}
	return append(append(dst, '.'), text[len(text)-scale:]...)
}

func appendQuoted(dst []byte, s string) []byte {
	q, err := json.Marshal(s)
	if err != nil {
		panic("columnar: a string that JSON cannot hold: " + err.Error()) // strings always marshal
	}
	return append(dst, q...)
}
