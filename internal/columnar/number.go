package columnar

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// pow10[n] is 10^n for every n that an int64 holds.
var pow10 = func() (p [19]int64) {
	p[0] = 1
	for i := 1; i < len(p); i++ {
		p[i] = 10 * p[i-1]
	}
	return p
}()

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
	zeros = 0x3030303030303030 // '0' in every byte
)

// digitCount returns how many of the 8 bytes of w, from the lowest, are ASCII
// digits before the first that is not.
func digitCount(w uint64) int {
	t := w ^ zeros
	return bits.TrailingZeros64((t|(t+0x7676767676767676))&highs) >> 3
}

// eightDigits is the value of the 8 digit values (0 to 9) in w, the first in
// the lowest byte: pairs, then quads, then all, in three multiplications.
func eightDigits(w uint64) uint64 {
	w = w*10 + w>>8
	return ((w&0x000000FF000000FF)*(100+1000000<<32) + (w>>16&0x000000FF000000FF)*(1+10000<<32)) >> 32
}

// someDigits is the value of the first n ASCII digits in w, 1 ≤ n ≤ 8.
func someDigits(w uint64, n int) uint64 {
	return eightDigits((w - zeros) << (uint(64-8*n) & 63))
}

// A numberStatus says why a number does not fit its column.
type numberStatus uint8

const (
	numberOK numberStatus = iota
	numberRange
	numberInexact
)

// parseFixed reads tok, which matches JSON's number grammar, as an unscaled
// integer of at most 19 significant digits with the given scale, exactly. The
// magnitude must not exceed limit, nor limit+1 if it is negative and low is
// set (the two's complement minimum).
func parseFixed(tok []byte, scale int, limit uint64, low bool) (int64, numberStatus) {
	negative := false
	i := 0
	if tok[0] == '-' {
		negative, i = true, 1
	}
	// The mantissa without leading zeros; trailing zeros wait in `held` until a
	// further digit shows that they matter.
	var v uint64
	digits, held, exponent := 0, 0, 0
	point, over := false, false
	for ; i < len(tok); i++ {
		c := tok[i]
		if c == '.' {
			point = true
			continue
		}
		if c == 'e' || c == 'E' {
			break
		}
		if point {
			exponent--
		}
		if c == '0' {
			if digits > 0 {
				held++
			} // A zero before the first other digit counts for the exponent only.
			continue
		}
		digits += held + 1
		if digits > 19 {
			over = true
		}
		if !over {
			for ; held > 0; held-- {
				v *= 10
			}
			v = v*10 + uint64(c-'0')
		}
		held = 0
	}
	if digits == 0 {
		return 0, numberOK
	}
	exponent += held // value = mantissa × 10^exponent
	if i < len(tok) {
		exponent += parseExponent(tok[i+1:])
	}
	exponent += scale
	if exponent < 0 {
		return 0, numberInexact
	}
	if over || digits+exponent > 19 {
		return 0, numberRange
	}
	for ; exponent > 0; exponent-- {
		v *= 10
	}
	if negative {
		if low && v == limit+1 {
			return -int64(limit) - 1, numberOK
		}
		if v > limit {
			return 0, numberRange
		}
		return -int64(v), numberOK
	}
	if v > limit {
		return 0, numberRange
	}
	return int64(v), numberOK
}

// parseExponent reads [+-]digits, saturating far beyond any column's range.
func parseExponent(s []byte) int {
	sign := 1
	if s[0] == '-' || s[0] == '+' {
		if s[0] == '-' {
			sign = -1
		}
		s = s[1:]
	}
	e := 0
	for _, c := range s {
		if e < math.MaxInt32/16 {
			e = e*10 + int(c-'0')
		}
	}
	return sign * e
}

// daysOf returns the days since 1970-01-01 of a date of the proleptic Gregorian
// calendar. Years start in March, so that the leap day is the last of its year.
func daysOf(year, month, day int) int {
	if month <= 2 {
		year--
		month += 12
	}
	era := year / 400
	if year < 0 {
		era = (year - 399) / 400
	}
	y := year - 400*era // of the era, 0 to 399
	return era*146097 + y*365 + y/4 - y/100 + (153*(month-3)+2)/5 + day - 1 - 719468
}

var monthDays = [13]int{0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}

// parseDate reads exactly YYYY-MM-DD as days since 1970-01-01.
func parseDate(s []byte) (days int, ok bool) {
	if len(s) != 10 || s[4] != '-' || s[7] != '-' {
		return 0, false
	}
	y, ok1 := number4(s)
	m, ok2 := number2(s[5:])
	d, ok3 := number2(s[8:])
	if !ok1 || !ok2 || !ok3 || m < 1 || m > 12 || d < 1 {
		return 0, false
	}
	last := monthDays[m]
	if m == 2 && y%4 == 0 && (y%100 != 0 || y%400 == 0) {
		last = 29
	}
	if d > last {
		return 0, false
	}
	return daysOf(y, m, d), true
}

func number2(s []byte) (int, bool) {
	a, b := s[0]-'0', s[1]-'0'
	return int(a)*10 + int(b), a <= 9 && b <= 9
}

func number4(s []byte) (int, bool) {
	a, ok1 := number2(s)
	b, ok2 := number2(s[2:])
	return a*100 + b, ok1 && ok2
}

// parseTimestamp reads an RFC 3339 date-time with capital T and Z, an offset of
// any size up to 23:59, and at most 9 fraction digits. A leap second (:60) is
// refused, as by package time.
func parseTimestamp(s []byte) (seconds int64, nanos int, ok bool) {
	if len(s) < len("2006-01-02T15:04:05Z") || s[10] != 'T' || s[13] != ':' || s[16] != ':' {
		return 0, 0, false
	}
	days, ok := parseDate(s[:10])
	h, ok1 := number2(s[11:])
	m, ok2 := number2(s[14:])
	sec, ok3 := number2(s[17:])
	if !ok || !ok1 || !ok2 || !ok3 || h > 23 || m > 59 || sec > 59 {
		return 0, 0, false
	}
	seconds = int64(days)*86400 + int64(h*3600+m*60+sec)
	s = s[19:]
	if s[0] == '.' {
		n := 1
		for n < len(s) && s[n]-'0' <= 9 {
			if n > 9 {
				return 0, 0, false
			}
			nanos = nanos*10 + int(s[n]-'0')
			n++
		}
		if n == 1 {
			return 0, 0, false
		}
		nanos *= int(pow10[10-n])
		s = s[n:]
	}
	switch {
	case len(s) == 1 && s[0] == 'Z':
		return seconds, nanos, true
	case len(s) == 6 && (s[0] == '+' || s[0] == '-') && s[3] == ':':
		oh, ok1 := number2(s[1:])
		om, ok2 := number2(s[4:])
		if !ok1 || !ok2 || oh > 23 || om > 59 {
			return 0, 0, false
		}
		offset := int64(oh*3600 + om*60)
		if s[0] == '-' {
			offset = -offset
		}
		return seconds - offset, nanos, true
	}
	return 0, 0, false
}

// nanosFit reports whether an instant is representable in ns since the epoch.
func nanosFit(seconds int64) bool {
	return seconds > math.MinInt64/1_000_000_000 && seconds < math.MaxInt64/1_000_000_000
}

// floorMicros is ⌊ns/1000⌋.
func floorMicros(ns int64) int64 {
	q := ns / 1000
	if ns < 0 && q*1000 != ns {
		q--
	}
	return q
}

// zigzag maps small magnitudes of either sign to small unsigned integers.
func zigzag(v int64) uint64 { return uint64(v<<1) ^ uint64(v>>63) }

func appendVarint(dst []byte, v int64) []byte { return binary.AppendUvarint(dst, zigzag(v)) }
