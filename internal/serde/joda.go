package serde

import (
	"fmt"
	"strings"
	"time"
)

// A jodaFormat is a pattern of Joda-Time's DateTimeFormat, as HiveJsonSerDe's
// TimestampFormats have it. Its letters, for reading:
//
//	y Y      year; yy reads 00 to 49 as 2000 to 2049 and 50 to 99 as 1950 to 1999
//	         (Joda takes the hundred years around the clock's own)
//	M        month: 9, 09; MMM and more: Sep or September
//	d D      day of the month, of the year
//	E        day of the week: Tue or Tuesday, which must be that of the date
//	a        AM or PM
//	h K H k  hour: 1 to 12, 0 to 11, 0 to 23, 1 to 24
//	m s      minute, second
//	S        fraction of the second: at most as many digits as letters; all are kept,
//	         where Joda stops at milliseconds
//	Z ZZ     offset: Z, +01, +0100, +01:00
//	'text'   text; '' is one quote
//
// Numbers may have fewer digits than letters. Without Z the text is UTC. What a
// pattern does not say is the year's first day, the day's beginning. Refused by
// name: a pattern without a year, and G C x w e z ZZZ, which read eras, weeks and
// zone names.
type jodaFormat struct {
	pattern string
	millis  bool // the special format "millis"
	fields  []jodaField
}

// jodaField is a run of a letter, or text (letter 0).
type jodaField struct {
	letter byte
	count  int
	text   string
	digits int // the most that are read
}

// jodaDigits is how many digits a letter's number has at most.
var jodaDigits = map[byte]int{'y': 9, 'Y': 9, 'M': 2, 'd': 2, 'D': 3, 'h': 2, 'K': 2, 'H': 2, 'k': 2, 'm': 2, 's': 2}

func parseJoda(s string) (*jodaFormat, error) {
	if s == "millis" {
		return &jodaFormat{pattern: s, millis: true}, nil
	}
	f := &jodaFormat{pattern: s}
	literal := func(text string) {
		if n := len(f.fields); n > 0 && f.fields[n-1].letter == 0 {
			f.fields[n-1].text += text
			return
		}
		f.fields = append(f.fields, jodaField{text: text})
	}
	year := false
	for i := 0; i < len(s); {
		c := s[i]
		if c == '\'' {
			text, n, ok := jodaQuoted(s[i:])
			if !ok {
				return nil, fmt.Errorf("%w timestamp format %q: ends within quotes", ErrInvalid, s)
			}
			literal(text)
			i += n
			continue
		}
		if c|0x20 < 'a' || c|0x20 > 'z' {
			literal(s[i : i+1])
			i++
			continue
		}
		n := 1
		for i+n < len(s) && s[i+n] == c {
			n++
		}
		i += n
		x := jodaField{letter: c, count: n, digits: jodaDigits[c]}
		switch c {
		case 'y', 'Y':
			year = true
		case 'M', 'd', 'D', 'E', 'a', 'h', 'K', 'H', 'k', 'm', 's':
		case 'S':
			if n > 9 {
				return nil, fmt.Errorf("%w timestamp format %q: more than 9 digits of fraction", ErrInvalid, s)
			}
			x.digits = n
		case 'Z':
			if n > 2 {
				return nil, fmt.Errorf("%w timestamp format %q: ZZZ, a zone's name, is not supported: use Z and send the offset", ErrInvalid, s)
			}
		case 'G', 'C', 'x', 'w', 'e', 'z':
			return nil, fmt.Errorf("%w timestamp format %q: letter %c is not supported: use y, M, d, D, H, m, s, S, a and Z", ErrInvalid, s, c)
		default:
			return nil, fmt.Errorf("%w timestamp format %q: illegal pattern component: %s", ErrInvalid, s, strings.Repeat(string(c), n))
		}
		f.fields = append(f.fields, x)
	}
	if !year {
		return nil, fmt.Errorf("%w timestamp format %q: has no year", ErrInvalid, s)
	}
	// A year before another number takes no more digits than letters, so that
	// yyyyMMdd can be read.
	for i := range f.fields[:len(f.fields)-1] {
		x, next := &f.fields[i], &f.fields[i+1]
		if x.letter|0x20 == 'y' && (next.digits > 0 && (next.letter != 'M' || next.count < 3)) {
			x.digits = x.count
		}
	}
	return f, nil
}

// jodaQuoted reads '…' at the beginning of s; ” is a quote, within and without.
func jodaQuoted(s string) (text string, length int, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] != '\'':
			b.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == '\'' && i > 1:
			b.WriteByte('\'')
			i++
		case i == 1:
			return "'", 2, true
		default:
			return b.String(), i + 1, true
		}
	}
	return "", 0, false
}

// parse reads a text that the format describes whole.
func (f *jodaFormat) parse(s []byte) (nanos int64, why status, ok bool) {
	if f.millis {
		return parseMillis(s)
	}
	c := clock{month: 1, day: 1}
	afternoon, half, yearDay, offset := false, false, 0, 0
	weekday := time.Weekday(-1)
	for _, x := range f.fields {
		ok := true
		switch x.letter {
		case 0:
			ok = len(s) >= len(x.text) && string(s[:len(x.text)]) == x.text
			if ok {
				s = s[len(x.text):]
			}
		case 'y', 'Y':
			c.year, ok = takeYear(&s, x)
		case 'M':
			if x.count >= 3 {
				c.month, ok = takeName(&s, 12, func(i int) string { return time.Month(i).String() })
			} else {
				c.month, ok = take(&s, 1, x.digits)
			}
		case 'd':
			c.day, ok = take(&s, 1, x.digits)
		case 'D':
			yearDay, ok = take(&s, 1, x.digits)
			ok = ok && yearDay >= 1
		case 'E':
			var i int
			i, ok = takeName(&s, 7, func(i int) string { return time.Weekday(i % 7).String() })
			weekday = time.Weekday(i % 7)
		case 'a':
			half = true
			if afternoon = skipName(&s, "PM"); !afternoon {
				ok = skipName(&s, "AM")
			}
		case 'h', 'k':
			c.hour, ok = take(&s, 1, x.digits)
			top := 12
			if x.letter == 'k' {
				top = 24
			}
			ok = ok && c.hour >= 1 && c.hour <= top
			c.hour %= top
		case 'K':
			c.hour, ok = take(&s, 1, x.digits)
			ok = ok && c.hour < 12
		case 'H':
			c.hour, ok = take(&s, 1, x.digits)
		case 'm':
			c.minute, ok = take(&s, 1, x.digits)
		case 's':
			c.second, ok = take(&s, 1, x.digits)
		case 'S':
			before := len(s)
			c.nano, ok = take(&s, 1, x.digits)
			for range 9 - (before - len(s)) {
				c.nano *= 10
			}
		case 'Z':
			offset, ok = takeOffset(&s)
		}
		if !ok {
			return 0, fits, false
		}
	}
	if len(s) > 0 {
		return 0, fits, false
	}
	if half {
		if c.hour %= 12; afternoon {
			c.hour += 12
		}
	}
	if yearDay > 0 {
		at := time.Date(c.year, 1, yearDay, 0, 0, 0, 0, time.UTC)
		if at.Year() != c.year {
			return 0, fits, false
		}
		c.month, c.day = int(at.Month()), at.Day()
	}
	nanos, why, ok = c.unixNanos()
	if !ok {
		return 0, why, false
	}
	if weekday >= 0 && time.Date(c.year, time.Month(c.month), c.day, 0, 0, 0, 0, time.UTC).Weekday() != weekday {
		return 0, fits, false
	}
	return nanosOf(time.Unix(0, nanos).Unix()-int64(offset), c.nano)
}

func takeYear(s *[]byte, x jodaField) (int, bool) {
	negative := false
	if x.count != 2 && !skip(s, '+') {
		negative = skip(s, '-')
	}
	before := len(*s)
	v, ok := take(s, 1, x.digits)
	if x.count == 2 && before-len(*s) == 2 {
		if v += 2000; v >= 2050 {
			v -= 100
		}
	}
	if negative {
		v = -v
	}
	return v, ok
}

// skipName reads a name as it is spelled, in capitals or in small letters: Joda
// takes no mixture.
func skipName(s *[]byte, name string) bool {
	if len(*s) < len(name) {
		return false
	}
	text := string((*s)[:len(name)])
	if text != name && text != strings.ToLower(name) && text != strings.ToUpper(name) {
		return false
	}
	*s = (*s)[len(name):]
	return true
}

// takeName reads one of the names of 1 to n, whole or its first three letters.
func takeName(s *[]byte, n int, name func(int) string) (int, bool) {
	for _, short := range []bool{false, true} {
		for i := 1; i <= n; i++ {
			text := name(i)
			if short {
				text = text[:3]
			}
			if skipName(s, text) {
				return i, true
			}
		}
	}
	return 0, false
}

// takeOffset reads Z, +hh, +hhmm or +hh:mm as seconds.
func takeOffset(s *[]byte) (int, bool) {
	if skip(s, 'Z') {
		return 0, true
	}
	sign := 1
	if skip(s, '-') {
		sign = -1
	} else if !skip(s, '+') {
		return 0, false
	}
	h, ok := take(s, 2, 2)
	m := 0
	if ok && len(*s) > 0 {
		colon := skip(s, ':')
		if colon || (*s)[0]-'0' <= 9 {
			m, ok = take(s, 2, 2)
		}
	}
	return sign * (h*3600 + m*60), ok && h <= 23 && m <= 59
}

// parseMillis reads milliseconds since the epoch, a fraction of which is kept as far
// as nanoseconds.
func parseMillis(s []byte) (nanos int64, why status, ok bool) {
	if n := numberLength(s); n == 0 || n != len(s) {
		return 0, fits, false
	}
	m, negative, why := fixed(s, 6)
	if why != fits {
		return 0, why, false
	}
	if nanos, ok = m.int64(negative, 64); !ok {
		return 0, tooLarge, false
	}
	return nanos, fits, true
}
