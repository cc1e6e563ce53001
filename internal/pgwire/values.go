package pgwire

import "math/big"

// The values that travel between a session and the wire besides nil, bool, the
// integers, float32, float64, string and []byte.
type (
	// Decimal is Unscaled × 10^-Scale, exact. Unscaled is never nil.
	Decimal struct {
		Unscaled *big.Int
		Scale    int32
	}
	// Date counts days since 1970-01-01 in the proleptic Gregorian calendar.
	Date int32
	// Time counts microseconds since midnight, up to and including 24:00.
	Time int64
	// Timestamp counts microseconds since 1970-01-01 00:00 on an unnamed clock.
	Timestamp int64
	// TimestampTZ counts microseconds since 1970-01-01 00:00 UTC.
	TimestampTZ int64
	// Interval is a span with three independent parts.
	Interval struct {
		Months, Days int32
		Micros       int64
	}
)
