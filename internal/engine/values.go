package engine

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// The values of a row are nil, bool, int16, int32, int64, float32, float64,
// string, []byte, and the types below. They are the caller's: nothing of them
// is reused by the next row.

// Decimal is Unscaled / 10^Scale, exactly. Unscaled is not nil.
type Decimal struct {
	Unscaled *big.Int
	Scale    int32
}

// Date is days since 1970-01-01.
type Date int32

// Time is microseconds since midnight.
type Time int64

// Timestamp is microseconds since 1970-01-01 00:00 of a clock without zone.
type Timestamp int64

// TimestampTZ is microseconds since the epoch, UTC.
type TimestampTZ int64

// Interval is a span of months, days and microseconds, each with its own sign.
type Interval struct {
	Months, Days int32
	Micros       int64
}

// The infinite dates and timestamps, as DuckDB and PostgreSQL have them.
const (
	dateInfinity      = math.MaxInt32
	timestampInfinity = math.MaxInt64
)

// ErrInvalidNumber is the error of ParseDecimal.
var ErrInvalidNumber = errors.New("invalid number")

// decimalDigitsMax bounds what ParseDecimal reads: far more than DECIMAL(38).
const decimalDigitsMax = 400

// ParseDecimal reads a plain or exponent decimal ("-12.50", "1e3"). The scale
// is the number of digits after the point, at least 0.
func ParseDecimal(s string) (Decimal, error) {
	bad := func() (Decimal, error) { return Decimal{}, fmt.Errorf("%w: %.40q", ErrInvalidNumber, s) }
	t := strings.TrimSpace(s)
	exp := 0
	if i := strings.IndexAny(t, "eE"); i >= 0 {
		e, err := strconv.Atoi(t[i+1:])
		if err != nil || e > decimalDigitsMax || e < -decimalDigitsMax {
			return bad()
		}
		exp, t = e, t[:i]
	}
	neg := false
	if t != "" && (t[0] == '-' || t[0] == '+') {
		neg, t = t[0] == '-', t[1:]
	}
	whole, frac, _ := strings.Cut(t, ".")
	digits := whole + frac
	if digits == "" || len(digits) > decimalDigitsMax || strings.Trim(digits, "0123456789") != "" {
		return bad()
	}
	n, _ := new(big.Int).SetString(digits, 10)
	scale := len(frac) - exp
	if max(scale+1, len(digits)-min(scale, 0)) > decimalDigitsMax {
		return bad()
	}
	if scale < 0 {
		n.Mul(n, pow10(-scale))
		scale = 0
	}
	if neg {
		n.Neg(n)
	}
	return Decimal{n, int32(scale)}, nil
}

func pow10(n int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil) }

// appendTo appends the plain notation with exactly Scale digits after the
// point.
func (d Decimal) appendTo(dst []byte) []byte {
	if d.Unscaled.IsInt64() {
		return appendScaled(dst, d.Unscaled.Int64(), int(d.Scale))
	}
	if d.Unscaled.Sign() < 0 {
		dst = append(dst, '-')
	}
	return appendPoint(dst, new(big.Int).Abs(d.Unscaled).Append(nil, 10), int(d.Scale))
}

// appendScaled is appendTo of v / 10^scale.
func appendScaled(dst []byte, v int64, scale int) []byte {
	u := uint64(v)
	if v < 0 {
		dst, u = append(dst, '-'), -u
	}
	var b [20]byte
	return appendPoint(dst, strconv.AppendUint(b[:0], u, 10), scale)
}

// appendPoint appends digits with the point before the last scale of them.
func appendPoint(dst, digits []byte, scale int) []byte {
	if scale <= 0 {
		return append(dst, digits...)
	}
	if len(digits) <= scale {
		dst = append(dst, '0', '.')
		for range scale - len(digits) {
			dst = append(dst, '0')
		}
		return append(dst, digits...)
	}
	dst = append(dst, digits[:len(digits)-scale]...)
	dst = append(dst, '.')
	return append(dst, digits[len(digits)-scale:]...)
}

// String is the plain notation, with exactly Scale digits after the point.
func (d Decimal) String() string { return string(d.appendTo(nil)) }

func appendPadded(dst []byte, v, width int) []byte {
	var b [20]byte
	s := strconv.AppendInt(b[:0], int64(v), 10)
	for range width - len(s) {
		dst = append(dst, '0')
	}
	return append(dst, s...)
}

// appendDate appends PostgreSQL's ISO date; years before 1 are counted BC, and
// the caller appends the suffix after the time of day.
func appendDate(dst []byte, t time.Time) (out []byte, bc bool) {
	y, m, d := t.Date()
	if y <= 0 {
		y, bc = 1-y, true
	}
	dst = appendPadded(dst, y, 4)
	dst = appendPadded(append(dst, '-'), int(m), 2)
	return appendPadded(append(dst, '-'), d, 2), bc
}

// String is the date in ISO form, "infinity" or "-infinity".
func (d Date) String() string { return string(d.appendTo(nil)) }

func (d Date) appendTo(dst []byte) []byte {
	switch d {
	case dateInfinity:
		return append(dst, "infinity"...)
	case -dateInfinity:
		return append(dst, "-infinity"...)
	}
	dst, bc := appendDate(dst, time.Unix(int64(d)*86400, 0).UTC())
	if bc {
		dst = append(dst, " BC"...)
	}
	return dst
}

func appendClock(dst []byte, micros int64) []byte {
	sec := micros / 1e6
	dst = appendPadded(dst, int(sec/3600), 2)
	dst = appendPadded(append(dst, ':'), int(sec/60%60), 2)
	dst = appendPadded(append(dst, ':'), int(sec%60), 2)
	return appendFraction(dst, micros%1e6)
}

func appendFraction(dst []byte, micros int64) []byte {
	if micros == 0 {
		return dst
	}
	dst = appendPadded(append(dst, '.'), int(micros), 6)
	for dst[len(dst)-1] == '0' {
		dst = dst[:len(dst)-1]
	}
	return dst
}

// String is "15:04:05.000006" without trailing zeros.
func (t Time) String() string { return string(appendClock(nil, int64(t))) }

// String is "2006-01-02 15:04:05.000006" without trailing zeros.
func (t Timestamp) String() string { return string(appendTimestamp(nil, int64(t), nil)) }

// String is AppendText's form in UTC.
func (t TimestampTZ) String() string { return string(appendTimestamp(nil, int64(t), time.UTC)) }

// appendTimestamp appends the instant in loc with its offset, or without one
// if loc is nil.
func appendTimestamp(dst []byte, micros int64, loc *time.Location) []byte {
	switch micros {
	case timestampInfinity:
		return append(dst, "infinity"...)
	case -timestampInfinity:
		return append(dst, "-infinity"...)
	}
	zone := time.UTC
	if loc != nil {
		zone = loc
	}
	t := time.UnixMicro(micros).In(zone)
	dst, bc := appendDate(dst, t)
	h, m, s := t.Clock()
	dst = appendPadded(append(dst, ' '), h, 2)
	dst = appendPadded(append(dst, ':'), m, 2)
	dst = appendPadded(append(dst, ':'), s, 2)
	dst = appendFraction(dst, int64(t.Nanosecond()/1000))
	if loc != nil {
		_, off := t.Zone()
		sign := byte('+')
		if off < 0 {
			sign, off = '-', -off
		}
		dst = appendPadded(append(dst, sign), off/3600, 2)
		if off%3600 != 0 {
			dst = appendPadded(append(dst, ':'), off/60%60, 2)
			if off%60 != 0 {
				dst = appendPadded(append(dst, ':'), off%60, 2)
			}
		}
	}
	if bc {
		dst = append(dst, " BC"...)
	}
	return dst
}

// String is PostgreSQL's default interval style: "1 year 2 mons 3 days
// 04:05:06.7".
func (v Interval) String() string { return string(v.appendTo(nil)) }

func (v Interval) appendTo(dst []byte) []byte {
	start, negative := len(dst), false
	unit := func(n int64, one, many string) {
		if n == 0 {
			return
		}
		if len(dst) > start {
			dst = append(dst, ' ')
		}
		if negative && n > 0 {
			dst = append(dst, '+')
		}
		dst = strconv.AppendInt(dst, n, 10)
		dst = append(dst, ' ')
		if n == 1 {
			dst = append(dst, one...)
		} else {
			dst = append(dst, many...)
		}
		negative = n < 0
	}
	unit(int64(v.Months/12), "year", "years")
	unit(int64(v.Months%12), "mon", "mons")
	unit(int64(v.Days), "day", "days")
	if v.Micros != 0 || len(dst) == start {
		if len(dst) > start {
			dst = append(dst, ' ')
		}
		u := uint64(v.Micros)
		switch {
		case v.Micros < 0:
			dst, u = append(dst, '-'), -u
		case negative:
			dst = append(dst, '+')
		}
		sec := u / 1e6
		dst = appendPadded(dst, int(sec/3600), 2)
		dst = appendPadded(append(dst, ':'), int(sec/60%60), 2)
		dst = appendPadded(append(dst, ':'), int(sec%60), 2)
		dst = appendFraction(dst, int64(u%1e6))
	}
	return dst
}

// appendFloat appends the shortest text that reads back as f, in PostgreSQL's
// notation: an exponent below 1e-4 and from 10^exponentFrom on.
func appendFloat(dst []byte, f float64, bits, exponentFrom int) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, "NaN"...)
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...)
	case f == 0:
		if math.Signbit(f) {
			dst = append(dst, '-')
		}
		return append(dst, '0')
	}
	var b [32]byte
	e := strconv.AppendFloat(b[:0], f, 'e', -1, bits)
	i := len(e) - 1
	for e[i] != 'e' {
		i--
	}
	exp, _ := strconv.Atoi(string(e[i+1:]))
	if exp < -4 || exp >= exponentFrom {
		return append(dst, e...)
	}
	return strconv.AppendFloat(dst, f, 'f', -1, bits)
}

// AppendText appends v, a value of a row that is not nil, as PostgreSQL's text
// format under DateStyle ISO has it. loc is the zone that TimestampTZ is shown
// in; nil is UTC. A value of another type is a broken invariant and panics.
func AppendText(dst []byte, v any, loc *time.Location) []byte {
	switch v := v.(type) {
	case bool:
		if v {
			return append(dst, 't')
		}
		return append(dst, 'f')
	case int16:
		return strconv.AppendInt(dst, int64(v), 10)
	case int32:
		return strconv.AppendInt(dst, int64(v), 10)
	case int64:
		return strconv.AppendInt(dst, v, 10)
	case float32:
		return appendFloat(dst, float64(v), 32, 6)
	case float64:
		return appendFloat(dst, v, 64, 15)
	case string:
		return append(dst, v...)
	case []byte:
		return hex.AppendEncode(append(dst, `\x`...), v)
	case Decimal:
		return v.appendTo(dst)
	case Date:
		return v.appendTo(dst)
	case Time:
		return appendClock(dst, int64(v))
	case Timestamp:
		return appendTimestamp(dst, int64(v), nil)
	case TimestampTZ:
		if loc == nil {
			loc = time.UTC
		}
		return appendTimestamp(dst, int64(v), loc)
	case Interval:
		return v.appendTo(dst)
	}
	panic(fmt.Sprintf("engine: %T is no row value", v))
}
