package pgwire

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Text input of dates and times. Read are ISO 8601 and the form in which this
// package and PostgreSQL write times under DateStyle ISO; other styles are
// ambiguous and no driver sends them.

func badTime(oid uint32, text string) error {
	return errorf(codeInvalidDatetime, "invalid input syntax for type %s: %q", typeName(oid), clip(text))
}

func outOfRange(oid uint32, text string) error {
	return errorf(codeDatetimeOverflow, "%s out of range: %q", typeName(oid), clip(text))
}

// digits reads between atLeast and atMost decimal digits at the start of s.
func digits(s string, atLeast, atMost int) (n int, rest string, ok bool) {
	i := 0
	for i < len(s) && i < atMost && s[i] >= '0' && s[i] <= '9' {
		n = n*10 + int(s[i]-'0')
		i++
	}
	return n, s[i:], i >= atLeast
}

// cutEra removes a trailing " BC" or " AD".
func cutEra(s string) (rest string, bc bool) {
	if len(s) > 3 {
		switch lower(s[len(s)-3:]) {
		case " bc":
			return trimSpace(s[:len(s)-3]), true
		case " ad":
			return trimSpace(s[:len(s)-3]), false
		}
	}
	return s, false
}

// readCivil reads YYYY-MM-DD or YYYYMMDD.
func readCivil(s string, bc bool) (days int64, rest string, ok bool) {
	var year, month, day int
	if len(s) >= 8 && !strings.ContainsAny(s[:8], "-") {
		var ok2, ok3 bool
		year, rest, ok = digits(s, 4, 4)
		month, rest, ok2 = digits(rest, 2, 2)
		day, rest, ok3 = digits(rest, 2, 2)
		ok = ok && ok2 && ok3
	} else {
		if year, rest, ok = digits(s, 1, 7); !ok || !strings.HasPrefix(rest, "-") {
			return 0, s, false
		}
		if month, rest, ok = digits(rest[1:], 1, 2); !ok || !strings.HasPrefix(rest, "-") {
			return 0, s, false
		}
		day, rest, ok = digits(rest[1:], 1, 2)
	}
	if !ok || year == 0 || month < 1 || month > 12 || day < 1 {
		return 0, s, false
	}
	y := int64(year)
	if bc {
		y = 1 - y
	}
	days = daysOf(y, month, day)
	if _, m, d := civil(days); m != month || d != day {
		return 0, s, false // February 30
	}
	return days, rest, true
}

// readClock reads HH:MM[:SS[.ffffff]]; further digits round.
func readClock(s string) (micros int64, rest string, ok bool) {
	h, rest, ok := digits(s, 1, 2)
	if !ok || !strings.HasPrefix(rest, ":") {
		return 0, s, false
	}
	m, rest, ok := digits(rest[1:], 2, 2)
	if !ok || h > 24 || m > 59 {
		return 0, s, false
	}
	micros = int64(h*3600+m*60) * microsPerSecond
	if strings.HasPrefix(rest, ":") {
		var sec int
		if sec, rest, ok = digits(rest[1:], 2, 2); !ok || sec > 60 {
			return 0, s, false
		}
		micros += int64(sec) * microsPerSecond
		if strings.HasPrefix(rest, ".") {
			var fraction int64
			fraction, rest = readFraction(rest[1:])
			micros += fraction
		}
	}
	return micros, rest, micros <= microsPerDay
}

// readFraction reads the digits behind a point as microseconds.
func readFraction(s string) (micros int64, rest string) {
	i, unit := 0, microsPerSecond/10
	for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
		switch {
		case unit > 0:
			micros += int64(s[i]-'0') * unit
		case i == 6 && s[i] >= '5':
			micros++
		}
		unit /= 10
	}
	return micros, s[i:]
}

// parseOffset reads +HH[[:]MM[[:]SS]] as seconds east of Greenwich.
func parseOffset(s string) (seconds int, rest string, ok bool) {
	if s == "" || (s[0] != '+' && s[0] != '-') {
		return 0, s, false
	}
	h, rest, ok := digits(s[1:], 1, 2)
	if !ok || h > 15 {
		return 0, s, false
	}
	seconds = h * 3600
	for unit := 60; unit > 0 && rest != ""; unit /= 60 {
		part := strings.TrimPrefix(rest, ":")
		n, after, ok := digits(part, 2, 2)
		if !ok {
			break
		}
		if n > 59 {
			return 0, s, false
		}
		seconds += n * unit
		rest = after
	}
	if s[0] == '-' {
		seconds = -seconds
	}
	return seconds, rest, true
}

func parseDate(text string) (Date, error) {
	t := trimSpace(text)
	switch lower(t) {
	case "infinity", "+infinity":
		return infinityDays, nil
	case "-infinity":
		return -infinityDays, nil
	case "epoch":
		return 0, nil
	}
	t, bc := cutEra(t)
	days, rest, ok := readCivil(t, bc)
	if !ok {
		return 0, badTime(OIDDate, text)
	}
	if rest != "" { // a time of day is read and dropped, as PostgreSQL does
		if _, after, ok := readClock(strings.TrimLeft(rest, " Tt")); !ok || after != "" && !isZone(after) {
			return 0, badTime(OIDDate, text)
		}
	}
	if days >= math.MaxInt32 || days <= -math.MaxInt32 {
		return 0, outOfRange(OIDDate, text)
	}
	return Date(days), nil
}

func isZone(s string) bool {
	_, ok := zoneOffset(trimSpace(s), 0)
	return ok
}

func parseTime(text string) (Time, error) {
	micros, rest, ok := readClock(trimSpace(text))
	if !ok || rest != "" {
		return 0, badTime(OIDTime, text)
	}
	return Time(micros), nil
}

// zoneOffset resolves a zone written behind a time of day: Z, an offset or a
// name; local is the reading of the clock in microseconds.
func zoneOffset(s string, local int64) (seconds int, ok bool) {
	if offset, rest, ok := parseOffset(s); ok {
		return offset, rest == ""
	}
	zone, ok := lookupZone(s)
	if !ok {
		return 0, false
	}
	return localOffset(zone, local), true
}

// localOffset is the offset that zone has when its clocks read local. In the
// hour that exists twice it is the first, in the one that does not exist the
// offset before the change, as time.Date has it.
func localOffset(zone *time.Location, local int64) int {
	if zone == time.UTC {
		return 0
	}
	days, clock := floorDiv(local, microsPerDay)
	year, month, day := civil(days)
	t := time.Date(int(year), time.Month(month), day, 0, 0, int(clock/microsPerSecond), 0, zone)
	return int(days*86_400 + clock/microsPerSecond - t.Unix())
}

// parseTimestamp reads a date and an optional time of day and zone. zone is the
// zone of a text that names none; nil reads a timestamp without time zone, for
// which a zone in the text is ignored.
func parseTimestamp(text string, zone *time.Location) (int64, error) {
	oid := OIDTimestamp
	if zone != nil {
		oid = OIDTimestampTZ
	}
	t := trimSpace(text)
	switch lower(t) {
	case "infinity", "+infinity":
		return infinityMicros, nil
	case "-infinity":
		return -infinityMicros, nil
	case "epoch":
		return 0, nil
	}
	t, bc := cutEra(t)
	days, rest, ok := readCivil(t, bc)
	if !ok {
		return 0, badTime(oid, text)
	}
	// 292,277 years around 1970 fit an int64 of microseconds.
	if days > 106_751_990 || days < -106_751_990 {
		return 0, outOfRange(oid, text)
	}
	micros := days * microsPerDay
	if rest != "" {
		if strings.IndexByte(" Tt", rest[0]) < 0 {
			return 0, badTime(oid, text)
		}
		var clock int64
		if clock, rest, ok = readClock(strings.TrimLeft(rest[1:], " ")); !ok {
			return 0, badTime(oid, text)
		}
		micros += clock
	}
	rest = trimSpace(rest)
	switch {
	case rest != "":
		offset, ok := zoneOffset(rest, micros)
		if !ok {
			return 0, badTime(oid, text)
		}
		if zone != nil {
			micros -= int64(offset) * microsPerSecond
		}
	case zone != nil:
		micros -= int64(localOffset(zone, micros)) * microsPerSecond
	}
	return micros, nil
}

// intervalUnits gives the unit's length: months, days or microseconds.
var intervalUnits = map[string]Interval{
	"millennium": {Months: 12_000}, "century": {Months: 1200}, "decade": {Months: 120},
	"year": {Months: 12}, "yr": {Months: 12}, "y": {Months: 12},
	"month": {Months: 1}, "mon": {Months: 1},
	"week": {Days: 7}, "w": {Days: 7}, "day": {Days: 1}, "d": {Days: 1},
	"hour": {Micros: 3600 * microsPerSecond}, "hr": {Micros: 3600 * microsPerSecond}, "h": {Micros: 3600 * microsPerSecond},
	"minute": {Micros: 60 * microsPerSecond}, "min": {Micros: 60 * microsPerSecond}, "m": {Micros: 60 * microsPerSecond},
	"second": {Micros: microsPerSecond}, "sec": {Micros: microsPerSecond}, "s": {Micros: microsPerSecond},
	"millisecond": {Micros: 1000}, "msec": {Micros: 1000}, "ms": {Micros: 1000},
	"microsecond": {Micros: 1}, "usec": {Micros: 1}, "us": {Micros: 1},
}

// parseInterval reads "1 year 2 mons -3 days +04:05:06.7", with or without @
// and ago, and ISO 8601 (P1Y2M3DT4H5M6.7S). A fraction is allowed where it
// leaves whole months and days: on seconds and smaller, and on hours, minutes.
func parseInterval(text string) (Interval, error) {
	t := lower(trimSpace(text))
	bad := badTime(OIDInterval, text)
	if strings.HasPrefix(t, "p") {
		return parseIntervalISO(t[1:], text)
	}
	words := strings.Fields(strings.TrimPrefix(t, "@"))
	ago := len(words) > 0 && words[len(words)-1] == "ago"
	if ago {
		words = words[:len(words)-1]
	}
	if len(words) == 0 {
		return Interval{}, bad
	}
	var sum intervalSum
	for i := 0; i < len(words); i++ {
		w := words[i]
		if strings.Contains(w, ":") {
			negative := strings.HasPrefix(w, "-")
			clock, ok := readSpanClock(strings.TrimLeft(w, "+-"))
			if !ok {
				return Interval{}, bad
			}
			if negative {
				clock = -clock
			}
			sum.micros += clock
			continue
		}
		number := strings.TrimRight(w, "abcdefghijklmnopqrstuvwxyz")
		unit := w[len(number):]
		if unit == "" && i+1 < len(words) {
			i++
			unit = words[i]
		} else if unit == "" {
			unit = "s" // a bare number counts seconds
		}
		if !sum.add(number, unit) {
			return Interval{}, bad
		}
	}
	return sum.interval(ago, text)
}

func parseIntervalISO(t, text string) (Interval, error) {
	bad := badTime(OIDInterval, text)
	var sum intervalSum
	clock, parts := false, 0
	for t != "" {
		if t[0] == 't' && !clock {
			clock, t = true, t[1:]
			continue
		}
		end := strings.IndexAny(t, "ymwdhs")
		if end <= 0 {
			return Interval{}, bad
		}
		unit := t[end : end+1]
		if unit == "m" && !clock {
			unit = "mon"
		}
		if clock != (unit == "h" || unit == "m" || unit == "s") || !sum.add(t[:end], unit) {
			return Interval{}, bad
		}
		t, parts = t[end+1:], parts+1
	}
	if parts == 0 {
		return Interval{}, bad
	}
	return sum.interval(false, text)
}

// readSpanClock reads HH:MM[:SS[.f]] without a bound on the hours.
func readSpanClock(s string) (int64, bool) {
	h, rest, ok := digits(s, 1, 9)
	if !ok || !strings.HasPrefix(rest, ":") {
		return 0, false
	}
	clock, rest, ok := readClock("0" + rest)
	return int64(h)*3600*microsPerSecond + clock, ok && rest == ""
}

// intervalSum adds parts in 64 bits; interval checks that the sum fits.
type intervalSum struct{ months, days, micros int64 }

func (s *intervalSum) add(number, unit string) bool {
	u, ok := intervalUnits[unit]
	if !ok {
		if u, ok = intervalUnits[strings.TrimSuffix(unit, "s")]; !ok {
			return false
		}
	}
	whole, fraction, fractional := strings.Cut(number, ".")
	negative := strings.HasPrefix(whole, "-")
	if whole == "" || whole == "-" || whole == "+" {
		whole += "0"
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	const bound = 1 << 40 // far beyond what fits, and no product overflows
	if err != nil || n > bound || n < -bound {
		return false
	}
	if u.Micros > 1 && magnitude(n) > uint64(math.MaxInt64/u.Micros) {
		return false
	}
	s.months += n * int64(u.Months)
	s.days += n * int64(u.Days)
	s.micros += n * u.Micros
	if !fractional {
		return true
	}
	millionths, rest := readFraction(fraction)
	if rest != "" || (millionths != 0 && u.Micros == 0) {
		return false
	}
	part := u.Micros / 1000 * millionths / 1000
	if u.Micros < 1000 {
		part = u.Micros * millionths / microsPerSecond
	}
	if negative {
		part = -part
	}
	s.micros += part
	return true
}

func (s *intervalSum) interval(ago bool, text string) (Interval, error) {
	if ago {
		s.months, s.days, s.micros = -s.months, -s.days, -s.micros
	}
	if s.months != int64(int32(s.months)) || s.days != int64(int32(s.days)) {
		return Interval{}, errorf(codeDatetimeOverflow, "interval field value out of range: %q", clip(text))
	}
	return Interval{Months: int32(s.months), Days: int32(s.days), Micros: s.micros}, nil
}
