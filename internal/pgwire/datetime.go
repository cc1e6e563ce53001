package pgwire

import (
	"math"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	microsPerSecond int64 = 1_000_000
	microsPerDay          = 86_400 * microsPerSecond
	// PostgreSQL counts from 2000-01-01, the values here from 1970-01-01.
	epochDays   = 10_957
	epochMicros = epochDays * microsPerDay
)

// Infinite instants. The engine has them one off the least integer, the wire at
// it; both are taken for minus infinity.
const (
	infinityMicros = math.MaxInt64
	infinityDays   = math.MaxInt32
)

func infiniteMicros(v int64) int {
	switch v {
	case infinityMicros:
		return 1
	case math.MinInt64, -infinityMicros:
		return -1
	}
	return 0
}

func infiniteDays(v int32) int {
	switch v {
	case infinityDays:
		return 1
	case math.MinInt32, -infinityDays:
		return -1
	}
	return 0
}

// civil turns days since 1970-01-01 into a date of the proleptic Gregorian
// calendar with astronomical years (0 is 1 BC). H. Hinnant, "chrono-Compatible
// Low-Level Date Algorithms", civil_from_days.
func civil(days int64) (year int64, month, day int) {
	days += 719_468
	era := days / 146_097
	if days < 0 {
		era = (days - 146_096) / 146_097
	}
	doe := days - era*146_097
	yoe := (doe - doe/1460 + doe/36_524 - doe/146_096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	day = int(doy - (153*mp+2)/5 + 1)
	month = int(mp + 3)
	year = yoe + era*400
	if month > 12 {
		month -= 12
		year++
	}
	return year, month, day
}

// daysOf is the inverse of civil.
func daysOf(year int64, month, day int) int64 {
	if month <= 2 {
		year--
	}
	era := year / 400
	if year < 0 {
		era = (year - 399) / 400
	}
	yoe := year - era*400
	mp := int64(month) - 3
	if month <= 2 {
		mp = int64(month) + 9
	}
	doy := (153*mp+2)/5 + int64(day) - 1
	doe := yoe*365 + yoe/4 - yoe/100 + doy
	return era*146_097 + doe - 719_468
}

func floorDiv(a, b int64) (q, r int64) {
	q, r = a/b, a%b
	if r < 0 {
		q, r = q-1, r+b
	}
	return q, r
}

// dateStyle is the first word of DateStyle.
type dateStyle uint8

const (
	styleISO dateStyle = iota
	styleSQL
	stylePostgres
	styleGerman
)

// A Style is how a session wants times written: its parameters TimeZone,
// DateStyle and IntervalStyle.
type Style struct {
	zone          *time.Location
	date          dateStyle
	dayFirst      bool
	iso8601       bool // intervals
	timeZone      string
	dateStyle     string
	intervalStyle string
}

// NewStyle reads the parameters. What is missing or unknown is PostgreSQL's
// default, and UTC for the zone: the instant stays right, since the offset is
// printed with it.
func NewStyle(parameters map[string]string) *Style {
	s := &Style{
		timeZone: parameters["TimeZone"], dateStyle: parameters["DateStyle"], intervalStyle: parameters["IntervalStyle"],
	}
	s.zone = time.UTC
	if z, ok := lookupZone(s.timeZone); ok {
		s.zone = z
	}
	for word := range strings.SplitSeq(lower(s.dateStyle), ",") {
		switch trimSpace(word) {
		case "iso":
			s.date = styleISO
		case "sql":
			s.date = styleSQL
		case "postgres":
			s.date = stylePostgres
		case "german":
			s.date = styleGerman
		case "dmy":
			s.dayFirst = true
		}
	}
	s.iso8601 = lower(s.intervalStyle) == "iso_8601"
	return s
}

// current reports whether s still is what parameters say.
func (s *Style) current(parameters map[string]string) bool {
	return s.timeZone == parameters["TimeZone"] && s.dateStyle == parameters["DateStyle"] &&
		s.intervalStyle == parameters["IntervalStyle"]
}

var zones sync.Map // lower-case name → *time.Location; only names that exist

// lookupZone finds a zone by name: IANA, or a fixed offset "+05:30", "-8"
// (hours east of Greenwich, as in ISO 8601).
func lookupZone(name string) (*time.Location, bool) {
	switch lower(name) {
	case "":
		return nil, false
	case "utc", "gmt", "z", "zulu", "etc/utc":
		return time.UTC, true
	case "local", "localtime": // the server's zone is nobody's business
		return nil, false
	}
	key := lower(name)
	if z, ok := zones.Load(key); ok {
		return z.(*time.Location), true
	}
	if offset, rest, ok := parseOffset(name); ok && rest == "" {
		return time.FixedZone("", offset), true
	}
	z, err := time.LoadLocation(name)
	if err != nil {
		return nil, false
	}
	zones.Store(key, z)
	return z, true
}

func append2(dst []byte, v int) []byte { return append(dst, byte('0'+v/10), byte('0'+v%10)) }

func appendYear(dst []byte, year int64) []byte {
	if year <= 0 {
		year = 1 - year
	}
	for limit := int64(1000); limit > year && limit > 1; limit /= 10 {
		dst = append(dst, '0')
	}
	return strconv.AppendInt(dst, year, 10)
}

func appendInfinity(dst []byte, sign int) []byte {
	if sign < 0 {
		dst = append(dst, '-')
	}
	return append(dst, "infinity"...)
}

func appendBC(dst []byte, year int64) []byte {
	if year <= 0 {
		dst = append(dst, " BC"...)
	}
	return dst
}

// appendCivil appends the date without the era.
func (s *Style) appendCivil(dst []byte, year int64, month, day int) []byte {
	first, second, separator := month, day, byte('/')
	switch s.date {
	case styleISO:
		dst = appendYear(dst, year)
		dst = append2(append(dst, '-'), month)
		return append2(append(dst, '-'), day)
	case styleGerman:
		first, second, separator = day, month, '.'
	case stylePostgres:
		separator = '-'
		fallthrough
	default:
		if s.dayFirst {
			first, second = day, month
		}
	}
	dst = append(append2(dst, first), separator)
	dst = append(append2(dst, second), separator)
	return appendYear(dst, year)
}

func (s *Style) appendDate(dst []byte, v Date) []byte {
	if sign := infiniteDays(int32(v)); sign != 0 {
		return appendInfinity(dst, sign)
	}
	year, month, day := civil(int64(v))
	return appendBC(s.appendCivil(dst, year, month, day), year)
}

// appendClock appends HH:MM:SS and the fraction without trailing zeros.
func appendClock(dst []byte, micros int64) []byte {
	seconds := micros / microsPerSecond
	if hours := seconds / 3600; hours < 100 {
		dst = append2(dst, int(hours))
	} else {
		dst = strconv.AppendInt(dst, hours, 10)
	}
	dst = append2(append(dst, ':'), int(seconds/60%60))
	dst = append2(append(dst, ':'), int(seconds%60))
	return appendFraction(dst, micros%microsPerSecond)
}

func appendFraction(dst []byte, micros int64) []byte {
	if micros == 0 {
		return dst
	}
	dst = append(dst, '.')
	for unit := microsPerSecond / 10; micros > 0; unit /= 10 {
		dst = append(dst, byte('0'+micros/unit))
		micros %= unit
	}
	return dst
}

var (
	weekdays = [7]string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}
	months   = [12]string{"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"}
)

// appendLocal appends a reading of the clock; zone is appended before the era.
func (s *Style) appendLocal(dst []byte, micros int64, zone func([]byte) []byte) []byte {
	days, clock := floorDiv(micros, microsPerDay)
	year, month, day := civil(days)
	if s.date == stylePostgres {
		_, weekday := floorDiv(days+4, 7)
		dst = append(append(dst, weekdays[weekday]...), ' ')
		if s.dayFirst {
			dst = append(append(append2(dst, day), ' '), months[month-1]...)
		} else {
			dst = append2(append(append(dst, months[month-1]...), ' '), day)
		}
		dst = appendYear(append(appendClock(append(dst, ' '), clock), ' '), year)
	} else {
		dst = appendClock(append(s.appendCivil(dst, year, month, day), ' '), clock)
	}
	if zone != nil {
		dst = zone(dst)
	}
	return appendBC(dst, year)
}

func (s *Style) appendTimestamp(dst []byte, v Timestamp) []byte {
	if sign := infiniteMicros(int64(v)); sign != 0 {
		return appendInfinity(dst, sign)
	}
	return s.appendLocal(dst, int64(v), nil)
}

func (s *Style) appendTimestampTZ(dst []byte, v TimestampTZ) []byte {
	if sign := infiniteMicros(int64(v)); sign != 0 {
		return appendInfinity(dst, sign)
	}
	abbreviation, offset := "UTC", 0
	if s.zone != time.UTC {
		seconds, _ := floorDiv(int64(v), microsPerSecond)
		abbreviation, offset = time.Unix(seconds, 0).In(s.zone).Zone()
	}
	return s.appendLocal(dst, int64(v)+int64(offset)*microsPerSecond, func(dst []byte) []byte {
		if s.date != styleISO && abbreviation != "" && abbreviation[0] >= 'A' {
			return append(append(dst, ' '), abbreviation...)
		}
		return appendOffset(dst, offset)
	})
}

func appendOffset(dst []byte, seconds int) []byte {
	sign := byte('+')
	if seconds < 0 {
		sign, seconds = '-', -seconds
	}
	dst = append2(append(dst, sign), seconds/3600)
	if seconds%3600 != 0 {
		dst = append2(append(dst, ':'), seconds/60%60)
		if seconds%60 != 0 {
			dst = append2(append(dst, ':'), seconds%60)
		}
	}
	return dst
}

func (s *Style) appendInterval(dst []byte, v Interval) []byte {
	if s.iso8601 {
		return appendIntervalISO(dst, v)
	}
	empty, before := true, false
	for _, part := range [...]struct {
		value int32
		unit  string
	}{{v.Months / 12, "year"}, {v.Months % 12, "mon"}, {v.Days, "day"}} {
		if part.value == 0 {
			continue
		}
		if !empty {
			dst = append(dst, ' ')
		}
		if before && part.value > 0 {
			dst = append(dst, '+')
		}
		dst = append(append(strconv.AppendInt(dst, int64(part.value), 10), ' '), part.unit...)
		if part.value != 1 {
			dst = append(dst, 's')
		}
		empty, before = false, part.value < 0
	}
	if v.Micros == 0 && !empty {
		return dst
	}
	if !empty {
		dst = append(dst, ' ')
	}
	if v.Micros < 0 {
		dst = append(dst, '-')
	} else if before {
		dst = append(dst, '+')
	}
	return appendBigClock(dst, magnitude(v.Micros))
}

func magnitude(v int64) uint64 {
	if v < 0 {
		return -uint64(v)
	}
	return uint64(v)
}

// appendBigClock is appendClock for the whole range of an interval.
func appendBigClock(dst []byte, micros uint64) []byte {
	hours := micros / (3600 * uint64(microsPerSecond))
	rest := int64(micros % (3600 * uint64(microsPerSecond)))
	if hours < 10 {
		dst = append(dst, '0')
	}
	dst = strconv.AppendUint(dst, hours, 10)
	dst = append2(append(dst, ':'), int(rest/(60*microsPerSecond)))
	dst = append2(append(dst, ':'), int(rest/microsPerSecond%60))
	return appendFraction(dst, rest%microsPerSecond)
}

func appendIntervalISO(dst []byte, v Interval) []byte {
	if v == (Interval{}) {
		return append(dst, "PT0S"...)
	}
	dst = append(dst, 'P')
	part := func(value int64, unit byte) {
		if value != 0 {
			dst = append(strconv.AppendInt(dst, value, 10), unit)
		}
	}
	part(int64(v.Months/12), 'Y')
	part(int64(v.Months%12), 'M')
	part(int64(v.Days), 'D')
	if v.Micros == 0 {
		return dst
	}
	dst = append(dst, 'T')
	part(v.Micros/(3600*microsPerSecond), 'H')
	part(v.Micros/(60*microsPerSecond)%60, 'M')
	if rest := v.Micros % (60 * microsPerSecond); rest != 0 {
		if rest < 0 {
			dst, rest = append(dst, '-'), -rest
		}
		dst = strconv.AppendInt(dst, rest/microsPerSecond, 10)
		dst = append(appendFraction(dst, rest%microsPerSecond), 'S')
	}
	return dst
}
