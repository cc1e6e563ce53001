package prefix

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A pattern is a DateTimeFormatter pattern, as Java's ofPattern reads it with the
// US locale and ISO weeks. Its letters:
//
//	G        era                      AD, Anno Domini, A
//	u y      year                     2026, yy: 26
//	Y        week-based year          2026, YY: 26
//	Q q      quarter                  4, 04, Q4, 4th quarter
//	M L      month                    9, 09, Sep, September, S
//	w        week of the year         1 to 53, ISO
//	W        week of the month        0 to 5, ISO
//	D        day of the year          1, 001
//	d        day of the month         1, 01
//	F        day of week in month     1 to 7: the day within the month's n-th seven days
//	E        day of the week          Tue, Tuesday, T
//	e c      day of the week          1 to 7 from Monday; eee as E
//	g        modified Julian day
//	a        half of the day          AM, PM
//	h K      hour of the half         1 to 12, 0 to 11
//	H k      hour of the day          0 to 23, 1 to 24
//	m s      minute, second
//	S        fraction of the second   SSS: milliseconds
//	A n N    milliseconds of the day, nanoseconds of the second, of the day
//	V z      zone                     VV: America/New_York, z: EST
//	Z O X x  offset                   -0500, GMT-5, -05 (Z for none), -05
//	'text'   text; '' is one quote
//	[ ]      nothing: an optional section is always there
//
// Not supported, and refused by name: p (padding with spaces), B and v (newer than
// the Java 8 that AWS documents), zzzz (names of zones depend on a Java's data),
// years of more than ten digits, and a pattern that writes nothing.
type pattern struct {
	zone   *time.Location
	fields []field
}

// field is a run of one letter, or literal text (letter 0).
type field struct {
	letter byte
	count  int
	text   string
}

// countMax is the longest run of a letter whose count is a minimum width.
const (
	countMax = 19
	yearMax  = 10 // Java's formatter fails beyond it
)

func parsePattern(s string, zone *time.Location) (*pattern, error) {
	p := &pattern{zone: zone}
	literal := func(text string) {
		if n := len(p.fields); n > 0 && p.fields[n-1].letter == 0 {
			p.fields[n-1].text += text
			return
		}
		p.fields = append(p.fields, field{text: text})
	}
	depth := 0
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z':
			n := 1
			for i+n < len(s) && s[i+n] == c {
				n++
			}
			f := field{letter: c, count: n}
			if err := p.check(f); err != nil {
				return nil, err
			}
			p.fields = append(p.fields, f)
			i += n
			continue
		case c == '\'':
			text, n, ok := quoted(s[i:])
			if !ok {
				return nil, fmt.Errorf("pattern %q ends within quotes", s)
			}
			literal(text)
			i += n
			continue
		case c == '[':
			depth++
		case c == ']':
			if depth--; depth < 0 {
				return nil, fmt.Errorf("pattern %q has a ']' without '['", s)
			}
		case c == '{' || c == '}' || c == '#':
			return nil, fmt.Errorf("pattern %q: %q is reserved: put it in single quotes", s, c)
		default:
			literal(string(c))
		}
		i++
	}
	if len(p.fields) == 0 {
		return nil, fmt.Errorf("the pattern is empty")
	}
	return p, nil
}

// quoted reads '…' at the beginning of s: its text and its length. ” is a quote,
// within quotes and without.
func quoted(s string) (text string, length int, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != '\'' {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '\'' {
			b.WriteByte('\'')
			i++
			continue
		}
		if i == 1 {
			return "'", 2, true
		}
		return b.String(), i + 1, true
	}
	return "", 0, false
}

// letterMax is, for each letter, the longest run that Java allows.
var letterMax = map[byte]int{
	'G': 5, 'u': yearMax, 'y': yearMax, 'Y': yearMax, 'Q': 5, 'q': 5, 'M': 5, 'L': 5,
	'w': 2, 'W': 1, 'D': 3, 'd': 2, 'F': 1, 'E': 5, 'e': 5, 'c': 5, 'g': countMax, 'a': 1,
	'h': 2, 'K': 2, 'H': 2, 'k': 2, 'm': 2, 's': 2, 'S': 9, 'A': countMax, 'n': countMax, 'N': countMax,
	'V': 2, 'z': 3, 'Z': 5, 'O': 4, 'X': 5, 'x': 5,
}

func (p *pattern) check(f field) error {
	run := strings.Repeat(string(f.letter), f.count)
	switch f.letter {
	case 'p':
		return fmt.Errorf("%s pads with spaces, which object names do not have: write the letter twice, as in HH", run)
	case 'B', 'v':
		return fmt.Errorf("pattern letter %c is not supported: use a for AM and PM, VV or Z for the zone", f.letter)
	}
	longest, known := letterMax[f.letter]
	switch {
	case !known:
		return fmt.Errorf("unknown pattern letter: %c; text stands in single quotes", f.letter)
	case f.letter == 'z' && f.count == 4:
		return fmt.Errorf("pattern zzzz is not supported: use VV, Z or z")
	case f.count > longest:
		return fmt.Errorf("too many pattern letters: %s; at most %d", run, longest)
	case f.letter == 'V' && f.count != 2:
		return fmt.Errorf("pattern letter count must be 2: V")
	case f.letter == 'O' && f.count != 1 && f.count != 4:
		return fmt.Errorf("pattern letter count must be 1 or 4: O")
	case f.letter == 'c' && f.count == 2:
		return fmt.Errorf("invalid pattern \"cc\"")
	case f.letter == 'z':
		for month := range 12 {
			name, _ := time.Date(2026, time.Month(month+1), 1, 0, 0, 0, 0, p.zone).Zone()
			if name == "" || name[0] == '+' || name[0] == '-' {
				return fmt.Errorf("time zone %s has no abbreviation: use Z or VV instead of %s", p.zone, run)
			}
		}
	}
	return nil
}

// widest is a text in which each segment is as long as the pattern makes it in the
// two years from 2027, of which one is a leap year, and whose characters are checked. Values that
// only grow with the time, such as the year's digits, do not grow for ages.
func (p *pattern) widest() (string, error) {
	at := time.Date(2027, 1, 1, 23, 59, 59, 999_999_999, p.zone)
	var widest []string
	for range 2 * 366 {
		for _, hour := range []int{11, 23} {
			s := p.format(time.Date(at.Year(), at.Month(), at.Day(), hour, 59, 59, 999_999_999, p.zone))
			if err := checkCharacters(s); err != nil {
				return "", fmt.Errorf("%q: %w", s, err)
			}
			segments := strings.Split(s, "/")
			if widest == nil {
				widest = segments
			}
			for i := range widest {
				if len(segments[i]) > len(widest[i]) {
					widest[i] = segments[i]
				}
			}
		}
		at = at.AddDate(0, 0, 1)
	}
	return strings.Join(widest, "/"), nil
}

// format evaluates the pattern at an instant in the pattern's zone.
func (p *pattern) format(at time.Time) string {
	b := make([]byte, 0, 64)
	for _, f := range p.fields {
		if f.letter == 0 {
			b = append(b, f.text...)
		} else {
			b = f.append(b, at)
		}
	}
	return string(b)
}

func (f field) append(b []byte, at time.Time) []byte {
	n := f.count
	switch f.letter {
	case 'G':
		return append(b, era(at.Year(), n)...)
	case 'u':
		return appendYear(b, at.Year(), n)
	case 'y':
		year := at.Year()
		if year < 1 {
			year = 1 - year
		}
		return appendYear(b, year, n)
	case 'Y':
		year, _ := at.ISOWeek()
		return appendYear(b, year, n)
	case 'Q', 'q':
		quarter := (int(at.Month())-1)/3 + 1
		switch n {
		case 3:
			return append(b, 'Q', byte('0'+quarter))
		case 4:
			return append(b, [...]string{"1st quarter", "2nd quarter", "3rd quarter", "4th quarter"}[quarter-1]...)
		case 5:
			return append(b, byte('0'+quarter))
		}
		return appendNumber(b, int64(quarter), n)
	case 'M', 'L':
		return appendName(b, at.Month().String(), int(at.Month()), n)
	case 'E':
		return appendName(b, at.Weekday().String(), 0, max(n, 3))
	case 'e', 'c':
		return appendName(b, at.Weekday().String(), isoWeekday(at), n)
	case 'w':
		_, week := at.ISOWeek()
		return appendNumber(b, int64(week), n)
	case 'W':
		return appendNumber(b, int64(weekOfMonth(at)), n)
	case 'D':
		return appendNumber(b, int64(at.YearDay()), n)
	case 'd':
		return appendNumber(b, int64(at.Day()), n)
	case 'F':
		return appendNumber(b, int64((at.Day()-1)%7+1), n)
	case 'g':
		return appendNumber(b, julianDay(at), n)
	case 'a':
		if at.Hour() < 12 {
			return append(b, "AM"...)
		}
		return append(b, "PM"...)
	case 'h':
		return appendNumber(b, int64((at.Hour()+11)%12+1), n)
	case 'K':
		return appendNumber(b, int64(at.Hour()%12), n)
	case 'H':
		return appendNumber(b, int64(at.Hour()), n)
	case 'k':
		return appendNumber(b, int64((at.Hour()+23)%24+1), n)
	case 'm':
		return appendNumber(b, int64(at.Minute()), n)
	case 's':
		return appendNumber(b, int64(at.Second()), n)
	case 'S':
		nanos := appendNumber(nil, int64(at.Nanosecond()), 9)
		return append(b, nanos[:n]...)
	case 'A':
		return appendNumber(b, nanoOfDay(at)/1e6, n)
	case 'n':
		return appendNumber(b, int64(at.Nanosecond()), n)
	case 'N':
		return appendNumber(b, nanoOfDay(at), n)
	case 'V':
		return append(b, at.Location().String()...)
	case 'z':
		name, _ := at.Zone()
		return append(b, name...)
	}
	_, seconds := at.Zone()
	return appendZoneOffset(b, f.letter, n, seconds)
}

func era(year, count int) string {
	names := [...]string{"AD", "Anno Domini", "A"}
	if year < 1 {
		names = [...]string{"BC", "Before Christ", "B"}
	}
	return names[max(count-3, 0)]
}

// appendYear writes two digits for a count of two, otherwise at least count
// digits, with a plus sign where more than four or more were asked for and needed.
func appendYear(b []byte, year, count int) []byte {
	if count == 2 {
		return appendNumber(b, int64((year%100+100)%100), 2)
	}
	digits := appendNumber(nil, int64(max(year, -year)), count)
	if year < 0 {
		b = append(b, '-')
	} else if count >= 4 && len(digits) > count {
		b = append(b, '+')
	}
	return append(b, digits...)
}

// appendName writes a number for counts of one and two, then the name's first three
// letters, the name, its first letter.
func appendName(b []byte, name string, number, count int) []byte {
	switch count {
	case 3:
		return append(b, name[:3]...)
	case 4:
		return append(b, name...)
	case 5:
		return append(b, name[0])
	}
	return appendNumber(b, int64(number), count)
}

func appendNumber(b []byte, v int64, width int) []byte {
	s := strconv.FormatInt(v, 10)
	for range width - len(s) {
		b = append(b, '0')
	}
	return append(b, s...)
}

// isoWeekday is 1 for Monday to 7 for Sunday.
func isoWeekday(at time.Time) int { return (int(at.Weekday())+6)%7 + 1 }

// weekOfMonth is ISO's: week 1 is the first with at least four days in the month,
// what stands before it is week 0.
func weekOfMonth(at time.Time) int {
	first := isoWeekday(at.AddDate(0, 0, 1-at.Day())) // of the month's first day
	week := (at.Day() + first - 2) / 7                // whole weeks since the one of the first day
	if first <= 4 {
		week++
	}
	return week
}

// julianDay is the modified Julian day: days since 1858-11-17.
func julianDay(at time.Time) int64 {
	year, month, day := at.Date()
	const epoch = 40587 // 1970-01-01
	seconds := time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix()
	return (seconds-((seconds%86400)+86400)%86400)/86400 + epoch
}

func nanoOfDay(at time.Time) int64 {
	return int64(at.Hour()*3600+at.Minute()*60+at.Second())*1e9 + int64(at.Nanosecond())
}

// appendZoneOffset writes the offset from UTC in one of the forms of Z, O, X and x.
func appendZoneOffset(b []byte, letter byte, count, seconds int) []byte {
	sign := byte('+')
	if seconds < 0 {
		sign, seconds = '-', -seconds
	}
	h, m, s := seconds/3600, seconds/60%60, seconds%60
	none := h == 0 && m == 0 && s == 0
	number := func(colon bool, v int) {
		if colon {
			b = append(b, ':')
		}
		b = appendNumber(b, int64(v), 2)
	}
	switch {
	case letter == 'O' || letter == 'Z' && count == 4: // GMT+1, GMT+01:00
		b = append(b, "GMT"...)
		if none {
			return b
		}
		b = append(b, sign)
		if count == 4 {
			number(false, h)
			number(true, m)
		} else {
			b = strconv.AppendInt(b, int64(h), 10)
			if m != 0 || s != 0 {
				number(true, m)
			}
		}
		if s != 0 {
			number(true, s)
		}
		return b
	case letter == 'X' && none, letter == 'Z' && count == 5 && none:
		return append(b, 'Z')
	case letter == 'Z':
		if count < 4 {
			count = 2
		} else {
			count = 5
		}
	}
	if none { // x and ZZZ
		sign = '+'
	}
	b = append(b, sign)
	number(false, h)
	colon := count == 3 || count == 5
	if count > 1 || m != 0 {
		number(colon, m)
	}
	if count > 3 && s != 0 {
		number(colon, s)
	}
	return b
}
