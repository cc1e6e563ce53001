package serde

import (
	"math/bits"
)

// uint128 is an unsigned integer of 128 bits.
type uint128 struct{ hi, lo uint64 }

// status says why a number does not fit.
type status uint8

const (
	fits status = iota
	tooLarge
	inexact
)

// digitsMax is the number of decimal digits that are taken exactly: 10³⁸ < 2¹²⁷.
const digitsMax = 38

// fixed reads tok, which matches JSON's number grammar, as an integer of units of
// 10^-scale, exactly: 1.50 and 15e-1 are 15 tenths, 1.05 is inexact.
func fixed(tok []byte, scale int) (magnitude uint128, negative bool, s status) {
	i := 0
	if tok[0] == '-' {
		negative, i = true, 1
	}
	// The mantissa without leading zeros; trailing zeros are held until a further
	// digit shows that they matter.
	var m uint128
	digits, held, exponent := 0, 0, 0
	point := false
	for ; i < len(tok) && tok[i]|0x20 != 'e'; i++ {
		c := tok[i]
		if c == '.' {
			point = true
			continue
		}
		if point {
			exponent--
		}
		if c == '0' {
			if digits > 0 {
				held++
			}
			continue
		}
		if digits += held + 1; digits <= digitsMax {
			for ; held > 0; held-- {
				m = m.times10(0)
			}
			m = m.times10(uint64(c - '0'))
		}
		held = 0
	}
	if digits == 0 {
		return uint128{}, negative, fits
	}
	exponent += held // the number is m × 10^exponent
	if i < len(tok) {
		exponent += parseExponent(tok[i+1:])
	}
	exponent += scale
	switch {
	case exponent < 0:
		return m, negative, inexact
	case digits+exponent > digitsMax:
		return m, negative, tooLarge
	}
	for ; exponent > 0; exponent-- {
		m = m.times10(0)
	}
	return m, negative, fits
}

// parseExponent reads [+-]digits, saturating far beyond any type's range.
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
		if e < 1<<40 {
			e = e*10 + int(c-'0')
		}
	}
	return sign * e
}

// times10 is 10m + digit.
func (m uint128) times10(digit uint64) uint128 {
	hi, lo := bits.Mul64(m.lo, 10)
	lo, carry := bits.Add64(lo, digit, 0)
	return uint128{m.hi*10 + hi + carry, lo}
}

func (m uint128) less(n uint128) bool { return m.hi < n.hi || m.hi == n.hi && m.lo < n.lo }

// int64 is ±m, if it has bits or fewer, counting the sign.
func (m uint128) int64(negative bool, bits int) (int64, bool) {
	limit := uint64(1) << (bits - 1) // of negative numbers
	if m.hi != 0 || m.lo > limit || m.lo == limit && !negative {
		return 0, false
	}
	if negative {
		return -int64(m.lo), true // -(−2⁶³) is itself
	}
	return int64(m.lo), true
}

// negated is the two's complement.
func (m uint128) negated() uint128 {
	lo, borrow := bits.Sub64(0, m.lo, 0)
	hi, _ := bits.Sub64(0, m.hi, borrow)
	return uint128{hi, lo}
}

// pow10 is 10^n for n up to digitsMax.
func pow10(n int) uint128 {
	m := uint128{0, 1}
	for range n {
		m = m.times10(0)
	}
	return m
}
