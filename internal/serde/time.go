package serde

import (
	"bytes"
	"math"
	"time"
)

// A clock is a date and time of day as a text spells it, before it is judged.
type clock struct {
	year, month, day           int
	hour, minute, second, nano int
}

// unixNanos is the instant in UTC. It is false unless the date exists, the time is one
// of the day, and the instant is within what 64 bits of nanoseconds hold: from
// 1677-09-21 to 2262-04-11. AWS lets it overflow into another century.
func (c clock) unixNanos() (int64, status, bool) {
	if !dateExists(c.year, c.month, c.day) || c.hour > 23 || c.minute > 59 || c.second > 59 {
		return 0, fits, false
	}
	seconds := time.Date(c.year, time.Month(c.month), c.day, c.hour, c.minute, c.second, 0, time.UTC).Unix()
	return nanosOf(seconds, c.nano)
}

// nanosOf is seconds and nanoseconds (0 to 10⁹-1) since the epoch in nanoseconds.
func nanosOf(seconds int64, nano int) (int64, status, bool) {
	const limit = math.MaxInt64 / 1_000_000_000
	if seconds < -limit || seconds >= limit {
		return 0, tooLarge, false
	}
	return seconds*1_000_000_000 + int64(nano), fits, true
}

// unixMicros is the instant in UTC, cut to microseconds, which hold every year
// of four digits. It is false unless date and time exist.
func (c clock) unixMicros() (int64, bool) {
	if !dateExists(c.year, c.month, c.day) || c.hour > 23 || c.minute > 59 || c.second > 59 {
		return 0, false
	}
	return time.Date(c.year, time.Month(c.month), c.day, c.hour, c.minute, c.second, c.nano, time.UTC).UnixMicro(), true
}

func dateExists(year, month, day int) bool {
	if month < 1 || month > 12 || day < 1 || day > 31 {
		return false
	}
	return time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC).Day() == day
}

// take reads between low and high digits off *s.
func take(s *[]byte, low, high int) (v int, ok bool) {
	n := 0
	for n < len(*s) && n < high && (*s)[n]-'0' <= 9 {
		v = v*10 + int((*s)[n]-'0')
		n++
	}
	*s = (*s)[n:]
	return v, n >= low
}

// skip reads c off *s.
func skip(s *[]byte, c byte) bool {
	if len(*s) == 0 || (*s)[0] != c {
		return false
	}
	*s = (*s)[1:]
	return true
}

// takeFraction reads an optional point and 1 to 9 digits as nanoseconds.
func takeFraction(s *[]byte) (nanos int, ok bool) {
	if !skip(s, '.') {
		return 0, true
	}
	before := len(*s)
	v, ok := take(s, 1, 9)
	for range 9 - (before - len(*s)) {
		v *= 10
	}
	return v, ok
}

// parseDate reads yyyy-[M]M-[d]d as days since 1970-01-01.
func parseDate(s []byte) (days int32, ok bool) {
	y, m, d, ok := takeDate(&s, 1)
	if !ok || len(s) > 0 || !dateExists(y, m, d) {
		return 0, false
	}
	return int32(time.Date(y, time.Month(m), d, 0, 0, 0, 0, time.UTC).Unix() / 86400), true
}

func takeDate(s *[]byte, low int) (y, m, d int, ok bool) {
	y, ok = take(s, 4, 4)
	ok = ok && skip(s, '-')
	if ok {
		m, ok = take(s, low, 2)
	}
	ok = ok && skip(s, '-')
	if ok {
		d, ok = take(s, low, 2)
	}
	return y, m, d, ok
}

// parseValueOf reads what java.sql.Timestamp.valueOf does: yyyy-[M]M-[d]d
// [H]H:[m]m:[s]s[.f…], with up to 9 digits of fraction.
func parseValueOf(s []byte) (nanos int64, why status, ok bool) {
	return parseClock(s, ' ', 1)
}

// parseISO reads yyyy-MM-ddTHH:mm:ss[.f…][Z].
func parseISO(s []byte) (nanos int64, why status, ok bool) {
	s, _ = bytes.CutSuffix(s, []byte("Z"))
	return parseClock(s, 'T', 2)
}

// parseClock reads a date, the separator, and a time, with at least low digits in each
// field but the year.
func parseClock(s []byte, separator byte, low int) (nanos int64, why status, ok bool) {
	c, ok := readClock(s, separator, low)
	if !ok {
		return 0, fits, false
	}
	return c.unixNanos()
}

func readClock(s []byte, separator byte, low int) (c clock, ok bool) {
	c.year, c.month, c.day, ok = takeDate(&s, low)
	ok = ok && skip(&s, separator)
	for i, field := range []*int{&c.hour, &c.minute, &c.second} {
		if ok && i > 0 {
			ok = skip(&s, ':')
		}
		if ok {
			*field, ok = take(&s, low, 2)
		}
	}
	if ok {
		c.nano, ok = takeFraction(&s)
	}
	return c, ok && len(s) == 0
}

// epochMillisFrom is the number from which an epoch counts milliseconds and no longer
// seconds, as Firehose has it: 10¹² seconds are in the year 33658, 10¹² milliseconds
// in 2001.
var epochMillisFrom = pow10(12 + 9)

// parseEpoch reads a number, seconds or milliseconds since the epoch, exactly.
func parseEpoch(tok []byte) (nanos int64, why status, ok bool) {
	m, negative, why := fixed(tok, 9)
	if why == fits && !m.less(epochMillisFrom) || why == tooLarge {
		m, negative, why = fixed(tok, 6)
	}
	if why != fits {
		return 0, why, false
	}
	nanos, ok = m.int64(negative, 64)
	if !ok {
		return 0, tooLarge, false
	}
	return nanos, fits, true
}
