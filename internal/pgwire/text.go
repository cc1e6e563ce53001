package pgwire

import (
	"encoding/hex"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// AppendText appends the text form of v to dst and returns the extended
// buffer. The kinds of v are bool, the integers, float32, float64, string,
// []byte (bytea), *big.Int, Decimal, Date, Time, Timestamp, TimestampTZ,
// Interval, and []any of these or nil for an array. NULL has no text form: nil
// is an error except inside an array.
func (s *Style) AppendText(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case string:
		return append(dst, v...), nil
	case int32:
		return strconv.AppendInt(dst, int64(v), 10), nil
	case int64:
		return strconv.AppendInt(dst, v, 10), nil
	case Decimal:
		return appendNumericText(dst, v), nil
	case TimestampTZ:
		return s.appendTimestampTZ(dst, v), nil
	case Timestamp:
		return s.appendTimestamp(dst, v), nil
	case Date:
		return s.appendDate(dst, v), nil
	case float64:
		return appendFloat(dst, v, 64), nil
	case float32:
		return appendFloat(dst, float64(v), 32), nil
	case bool:
		if v {
			return append(dst, 't'), nil
		}
		return append(dst, 'f'), nil
	case []byte:
		return hex.AppendEncode(append(dst, `\x`...), v), nil
	case Time:
		return appendClock(dst, int64(v)), nil
	case Interval:
		return s.appendInterval(dst, v), nil
	case *big.Int:
		return v.Append(dst, 10), nil
	case []any:
		return s.appendArrayText(dst, v)
	case uint64:
		return strconv.AppendUint(dst, v, 10), nil
	}
	if n, ok := toInt64(v); ok {
		return strconv.AppendInt(dst, n, 10), nil
	}
	return dst, errorf(codeInternal, "no text form for a value of Go type %T", v)
}

// appendFloat writes the shortest digits that read back the same, with an
// exponent where PostgreSQL has one (below 1e-4, and from 1e15 or 1e6 on).
func appendFloat(dst []byte, v float64, bits int) []byte {
	switch {
	case math.IsNaN(v):
		return append(dst, "NaN"...)
	case math.IsInf(v, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(v, -1):
		return append(dst, "-Infinity"...)
	}
	high := 1e15
	if bits == 32 {
		high = 1e6
	}
	if a := math.Abs(v); a != 0 && (a < 1e-4 || a >= high) {
		return strconv.AppendFloat(dst, v, 'e', -1, bits)
	}
	return strconv.AppendFloat(dst, v, 'f', -1, bits)
}

func (s *Style) appendArrayText(dst []byte, elems []any) ([]byte, error) {
	var err error
	dst = append(dst, '{')
	for i, v := range elems {
		if i > 0 {
			dst = append(dst, ',')
		}
		switch v := v.(type) {
		case nil:
			dst = append(dst, "NULL"...)
		case []any:
			dst, err = s.appendArrayText(dst, v)
		default:
			start := len(dst)
			if dst, err = s.AppendText(dst, v); err == nil && arrayNeedsQuotes(dst[start:]) {
				dst = quoteArrayElement(dst, start)
			}
		}
		if err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

func arrayNeedsQuotes(b []byte) bool {
	if len(b) == 0 || (len(b) == 4 && strings.EqualFold(string(b), "null")) {
		return true
	}
	for _, c := range b {
		switch c {
		case '{', '}', ',', '"', '\\', ' ', '\t', '\n', '\r', '\v', '\f':
			return true
		}
	}
	return false
}

// quoteArrayElement puts the text from start on in quotes.
func quoteArrayElement(dst []byte, start int) []byte {
	raw := string(dst[start:])
	dst = append(dst[:start], '"')
	for i := range len(raw) {
		if raw[i] == '"' || raw[i] == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, raw[i])
	}
	return append(dst, '"')
}

// toInt64 widens any integer that fits.
func toInt64(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case int32:
		return int64(v), true
	case int16:
		return int64(v), true
	case int8:
		return int64(v), true
	case int:
		return int64(v), true
	case uint8:
		return int64(v), true
	case uint16:
		return int64(v), true
	case uint32:
		return int64(v), true
	case uint64:
		return int64(v), v <= math.MaxInt64
	case *big.Int:
		return v.Int64(), v.IsInt64()
	case Decimal:
		if v.Scale == 0 {
			return v.Unscaled.Int64(), v.Unscaled.IsInt64()
		}
	}
	return 0, false
}
