package pgwire

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/bits"
	"strconv"
)

// The binary form of numeric (src/backend/utils/adt/numeric.c, numeric_send):
//
//	ndigits(2) weight(2) sign(2) dscale(2) digit(2) × ndigits
//
// The value is ± Σ digit[i] × 10000^(weight-i); dscale is the number of decimal
// digits shown behind the point. Digits have no leading or trailing zeros.
const (
	numericBase     = 10000
	numericDigits   = 4 // decimal digits in one base-10000 digit
	numericNegative = 0x4000
	numericNaN      = 0xC000
	numericPlusInf  = 0xD000
	numericMinusInf = 0xF000

	numericScaleMax = 16383 // PostgreSQL's limit of dscale
	// PostgreSQL's limit of digits before the point; it bounds what a hundred
	// bytes like 1e999999999 can make us allocate.
	numericWholeDigitsMax = 131072
)

var (
	bigBase     = big.NewInt(numericBase)
	bigTen      = big.NewInt(10)
	errNumericX = errorf(codeNumericOutOfRange, "value overflows numeric format")
)

// appendNumericText appends d as PostgreSQL prints numeric: all Scale digits,
// never an exponent.
func appendNumericText(dst []byte, d Decimal) []byte {
	if d.Unscaled.IsInt64() && d.Scale >= 0 && d.Scale <= 38 {
		return appendScaled64(dst, d.Unscaled.Int64(), int(d.Scale))
	}
	if d.Unscaled.Sign() < 0 {
		dst = append(dst, '-')
	}
	start := len(dst)
	dst = new(big.Int).Abs(d.Unscaled).Append(dst, 10)
	if d.Scale < 0 {
		if d.Unscaled.Sign() != 0 {
			for range -d.Scale {
				dst = append(dst, '0')
			}
		}
		return dst
	}
	return insertPoint(dst, start, int(d.Scale))
}

func appendScaled64(dst []byte, v int64, scale int) []byte {
	u := uint64(v)
	if v < 0 {
		dst = append(dst, '-')
		u = -u
	}
	start := len(dst)
	return insertPoint(strconv.AppendUint(dst, u, 10), start, scale)
}

// insertPoint sets the decimal point scale digits before the end of the digits
// that begin at start, with zeros in front where they are too few.
func insertPoint(dst []byte, start, scale int) []byte {
	if scale == 0 {
		return dst
	}
	for missing := scale + 1 - (len(dst) - start); missing > 0; missing-- {
		dst = append(dst, '0')
		copy(dst[start+1:], dst[start:])
		dst[start] = '0'
	}
	dst = append(dst, 0)
	point := len(dst) - 1 - scale
	copy(dst[point+1:], dst[point:])
	dst[point] = '.'
	return dst
}

// appendNumericBinary appends the binary form of d.
func appendNumericBinary(dst []byte, d Decimal) ([]byte, error) {
	scale := int(d.Scale)
	if scale > numericScaleMax || scale < -numericWholeDigitsMax {
		return dst, errNumericX
	}
	if d.Unscaled.IsInt64() && scale >= 0 {
		v := d.Unscaled.Int64()
		u := uint64(v)
		if v < 0 {
			u = -u
		}
		// Shift left so that the point falls between base-10000 digits.
		if hi, lo := bits.Mul64(u, pow10small[pad(scale)]); hi == 0 {
			return appendNumeric64(dst, lo, v < 0, scale), nil
		}
	}
	n := new(big.Int).Abs(d.Unscaled)
	shown := scale
	if scale < 0 {
		n.Mul(n, new(big.Int).Exp(bigTen, big.NewInt(int64(-scale)), nil))
		scale, shown = 0, 0
	}
	n.Mul(n, big.NewInt(int64(pow10small[pad(scale)])))
	// Least significant digit first. Division in place is quadratic, which is
	// nothing at the 38 digits that the engine has.
	var digits []uint16
	rest := new(big.Int)
	for n.Sign() > 0 {
		n.DivMod(n, bigBase, rest)
		digits = append(digits, uint16(rest.Uint64()))
	}
	return appendNumericDigits(dst, digits, d.Unscaled.Sign() < 0, shown), nil
}

var pow10small = [numericDigits]uint64{1, 10, 100, 1000}

// pad is the number of decimal zeros that make scale a multiple of four.
func pad(scale int) int { return (numericDigits - scale%numericDigits) % numericDigits }

func appendNumeric64(dst []byte, v uint64, negative bool, scale int) []byte {
	var digits [5]uint16 // 10000^5 > 2^64
	n := 0
	for ; v > 0; n++ {
		digits[n] = uint16(v % numericBase)
		v /= numericBase
	}
	return appendNumericDigits(dst, digits[:n], negative, scale)
}

// appendNumericDigits takes the digits with the least significant first; scale
// decimal digits, rounded up to whole digits, are behind the point.
func appendNumericDigits(dst []byte, digits []uint16, negative bool, scale int) []byte {
	behind := (scale + numericDigits - 1) / numericDigits
	weight := len(digits) - behind - 1
	for len(digits) > 0 && digits[0] == 0 {
		digits = digits[1:]
	}
	sign := uint16(0)
	if len(digits) == 0 {
		weight = 0
	} else if negative {
		sign = numericNegative
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(digits)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(int16(weight)))
	dst = binary.BigEndian.AppendUint16(dst, sign)
	dst = binary.BigEndian.AppendUint16(dst, uint16(scale))
	for i := len(digits) - 1; i >= 0; i-- {
		dst = binary.BigEndian.AppendUint16(dst, digits[i])
	}
	return dst
}

// parseNumericBinary reads the binary form. NaN and the infinities, which no
// DECIMAL holds, are refused.
func parseNumericBinary(b []byte) (Decimal, error) {
	if len(b) < 8 {
		return Decimal{}, errorf(codeInvalidBinary, "invalid length in external \"numeric\" value")
	}
	n := int(binary.BigEndian.Uint16(b))
	weight := int(int16(binary.BigEndian.Uint16(b[2:])))
	sign := binary.BigEndian.Uint16(b[4:])
	scale := int(binary.BigEndian.Uint16(b[6:]))
	b = b[8:]
	switch sign {
	case 0, numericNegative:
	case numericNaN, numericPlusInf, numericMinusInf:
		return Decimal{}, errNotANumber
	default:
		return Decimal{}, errorf(codeInvalidBinary, "invalid sign in external \"numeric\" value")
	}
	if scale > numericScaleMax {
		return Decimal{}, errorf(codeInvalidBinary, "invalid scale in external \"numeric\" value")
	}
	if len(b) != 2*n {
		return Decimal{}, errorf(codeInvalidBinary, "invalid length in external \"numeric\" value")
	}
	// 13 digits make a word: gather them there before touching the big number.
	value := new(big.Int)
	for i := 0; i < n; {
		var word, base uint64 = 0, 1
		for ; i < n && base < math.MaxUint64/numericBase/numericBase; i++ {
			digit := uint64(binary.BigEndian.Uint16(b[2*i:]))
			if digit >= numericBase {
				return Decimal{}, errorf(codeInvalidBinary, "invalid digit in external \"numeric\" value")
			}
			word = word*numericBase + digit
			base *= numericBase
		}
		value.Mul(value, new(big.Int).SetUint64(base))
		value.Add(value, new(big.Int).SetUint64(word))
	}
	// value × 10000^(weight-n+1), to be shown with scale decimal digits.
	exponent := (weight-n+1)*numericDigits + scale
	value = scaleBig(value, exponent)
	if sign == numericNegative {
		value.Neg(value)
	}
	return Decimal{Unscaled: value, Scale: int32(scale)}, nil
}

var errNotANumber = errorf(codeFeatureNotSupported, "NaN and infinity are not supported for type numeric")

// scaleBig is v × 10^exponent, cut towards zero as numeric_recv cuts digits
// beyond dscale.
func scaleBig(v *big.Int, exponent int) *big.Int {
	if exponent >= 0 {
		return v.Mul(v, new(big.Int).Exp(bigTen, big.NewInt(int64(exponent)), nil))
	}
	return v.Quo(v, new(big.Int).Exp(bigTen, big.NewInt(int64(-exponent)), nil))
}

// parseNumericText reads [+-] digits [. digits] [e [+-] digits].
func parseNumericText(s string) (Decimal, error) {
	invalid := func() (Decimal, error) {
		return Decimal{}, errorf(codeInvalidText, "invalid input syntax for type numeric: %q", clip(s))
	}
	t := trimSpace(s)
	switch lower(t) {
	case "nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity":
		return Decimal{}, errNotANumber
	}
	digits := make([]byte, 0, len(t))
	i, scale, point := 0, 0, false
	if i < len(t) && (t[i] == '+' || t[i] == '-') {
		if t[i] == '-' {
			digits = append(digits, '-')
		}
		i++
	}
	first := len(digits)
	for ; i < len(t); i++ {
		switch c := t[i]; {
		case c >= '0' && c <= '9':
			digits = append(digits, c)
			if point {
				scale++
			}
			continue
		case c == '.' && !point:
			point = true
			continue
		}
		break
	}
	if len(digits) == first {
		return invalid()
	}
	exponent := 0
	if i < len(t) {
		if t[i] != 'e' && t[i] != 'E' {
			return invalid()
		}
		n, err := strconv.Atoi(t[i+1:])
		if err != nil {
			return invalid()
		}
		if n > numericWholeDigitsMax || n < -numericScaleMax {
			return Decimal{}, errNumericX
		}
		exponent = n
	}
	if len(digits) > numericWholeDigitsMax+numericScaleMax {
		return Decimal{}, errNumericX
	}
	value, ok := new(big.Int).SetString(string(digits), 10)
	if !ok {
		return invalid()
	}
	scale -= exponent
	if scale < 0 {
		value, scale = scaleBig(value, -scale), 0
	}
	if scale > numericScaleMax {
		return Decimal{}, errNumericX
	}
	return Decimal{Unscaled: value, Scale: int32(scale)}, nil
}
