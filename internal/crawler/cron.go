package crawler

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Schedule is a time table in AWS's syntax: cron(minutes hours day-of-month month
// day-of-week year), in UTC. One of the two days is '?'.
//
//	field         values          special
//	minutes       0-59            , - * /
//	hours         0-23            , - * /
//	day-of-month  1-31            , - * / ? L W
//	month         1-12, JAN-DEC   , - * /
//	day-of-week   1-7, SUN-SAT    , - * / ? L #
//	year          1970-2199       , - * /
type Schedule struct {
	text                 string
	minutes, hours       [60]bool
	days                 [32]bool
	months               [13]bool
	weekdays             [8]bool
	years                [yearMax - yearMin + 1]bool
	byWeekday            bool
	lastDay              bool // L
	lastWorkday          bool // LW
	nearest              int  // nW: the weekday nearest to day n
	lastWeekday          int  // nL: the last weekday n of the month
	nthWeekday, nthCount int  // n#k: the k-th weekday n
}

const (
	yearMin      = 1970
	yearMax      = 2199
	cronBytesMax = 255
)

var (
	monthNames   = []string{"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"}
	weekdayNames = []string{"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"}
)

// ParseSchedule reads a schedule. Errors wrap ErrInvalid and name the field.
func ParseSchedule(text string) (*Schedule, error) {
	s := &Schedule{text: text}
	if err := s.parse(text); err != nil {
		return nil, fmt.Errorf("%w: schedule %.100q: %w", ErrInvalid, text, err)
	}
	return s, nil
}

// String is the text that the schedule was read from.
func (s *Schedule) String() string { return s.text }

func (s *Schedule) parse(text string) error {
	body, ok := strings.CutPrefix(text, "cron(")
	if ok {
		body, ok = strings.CutSuffix(body, ")")
	}
	if !ok || len(text) > cronBytesMax {
		return fmt.Errorf("want cron(minutes hours day-of-month month day-of-week year)")
	}
	f := strings.Fields(body)
	if len(f) != 6 {
		return fmt.Errorf("%d fields, want 6: minutes hours day-of-month month day-of-week year", len(f))
	}
	if (f[2] == "?") == (f[4] == "?") {
		return fmt.Errorf("one of day-of-month and day-of-week, and only one, must be ?")
	}
	if err := cronField("minutes", f[0], 0, 59, nil, s.minutes[:]); err != nil {
		return err
	}
	if err := cronField("hours", f[1], 0, 23, nil, s.hours[:24]); err != nil {
		return err
	}
	if err := cronField("month", f[3], 1, 12, monthNames, s.months[:]); err != nil {
		return err
	}
	years := make([]bool, yearMax+1)
	if err := cronField("year", f[5], yearMin, yearMax, nil, years); err != nil {
		return err
	}
	copy(s.years[:], years[yearMin:])
	if f[2] != "?" {
		return s.parseDays(f[2])
	}
	s.byWeekday = true
	return s.parseWeekdays(f[4])
}

func (s *Schedule) parseDays(f string) error {
	switch {
	case f == "L":
		s.lastDay = true
		return nil
	case f == "LW" || f == "WL":
		s.lastWorkday = true
		return nil
	case strings.HasSuffix(f, "W"):
		n, err := cronNumber(f[:len(f)-1], 1, 31, nil)
		s.nearest = n
		return cronError("day-of-month", f, err)
	}
	return cronField("day-of-month", f, 1, 31, nil, s.days[:])
}

func (s *Schedule) parseWeekdays(f string) error {
	if f == "L" {
		s.weekdays[7] = true
		return nil
	}
	if day, n, ok := strings.Cut(f, "#"); ok {
		var err error
		if s.nthWeekday, err = cronNumber(day, 1, 7, weekdayNames); err == nil {
			s.nthCount, err = cronNumber(n, 1, 5, nil)
		}
		return cronError("day-of-week", f, err)
	}
	if day, ok := strings.CutSuffix(f, "L"); ok {
		n, err := cronNumber(day, 1, 7, weekdayNames)
		s.lastWeekday = n
		return cronError("day-of-week", f, err)
	}
	return cronField("day-of-week", f, 1, 7, weekdayNames, s.weekdays[:])
}

func cronError(field, text string, err error) error {
	if err != nil {
		return fmt.Errorf("%s %q: %w", field, text, err)
	}
	return nil
}

func cronNumber(s string, low, high int, names []string) (int, error) {
	for i, n := range names {
		if strings.EqualFold(s, n) {
			return i + low, nil
		}
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < low || n > high || len(s) > 4 {
		return 0, fmt.Errorf("%q: want %d to %d", s, low, high)
	}
	return n, nil
}

// cronField reads a list of numbers, ranges and steps into set.
func cronField(field, text string, low, high int, names []string, set []bool) error {
	for part := range strings.SplitSeq(text, ",") {
		from, to, step := low, high, 1
		body, every, stepped := strings.Cut(part, "/")
		var err error
		if stepped {
			if step, err = cronNumber(every, 1, max(1, high-low+1), nil); err != nil {
				return cronError(field, text, err)
			}
		}
		if body != "*" {
			first, last, ranged := strings.Cut(body, "-")
			if from, err = cronNumber(first, low, high, names); err != nil {
				return cronError(field, text, err)
			}
			switch {
			case ranged:
				if to, err = cronNumber(last, low, high, names); err != nil {
					return cronError(field, text, err)
				}
			case !stepped:
				to = from
			}
		}
		if from > to {
			return fmt.Errorf("%s %q: %q goes backwards", field, text, part)
		}
		for n := from; n <= to; n += step {
			set[n] = true
		}
	}
	return nil
}

// Next is the first time after t that the schedule names, to the minute, in UTC; the
// zero time if there is none up to the year 2199. It looks at each day once at most.
func (s *Schedule) Next(after time.Time) time.Time {
	t := after.UTC().Truncate(time.Minute).Add(time.Minute)
	for t.Year() <= yearMax {
		year, month, day := t.Date()
		switch {
		case year < yearMin || !s.years[year-yearMin]:
			t = time.Date(year+1, 1, 1, 0, 0, 0, 0, time.UTC)
			continue
		case !s.months[month]:
			t = time.Date(year, month+1, 1, 0, 0, 0, 0, time.UTC)
			continue
		}
		if s.onDay(year, month, day) {
			for h := t.Hour(); h < 24; h++ {
				if !s.hours[h] {
					continue
				}
				m := 0
				if h == t.Hour() {
					m = t.Minute()
				}
				for ; m < 60; m++ {
					if s.minutes[m] {
						return time.Date(year, month, day, h, m, 0, 0, time.UTC)
					}
				}
			}
		}
		t = time.Date(year, month, day+1, 0, 0, 0, 0, time.UTC)
	}
	return time.Time{}
}

func (s *Schedule) onDay(year int, month time.Month, day int) bool {
	days := daysIn(year, int(month))
	weekday := int(time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Weekday()) + 1
	switch {
	case s.lastDay:
		return day == days
	case s.lastWorkday:
		return day == nearestWorkday(year, month, days, days)
	case s.nearest > 0:
		return s.nearest <= days && day == nearestWorkday(year, month, s.nearest, days)
	case s.lastWeekday > 0:
		return weekday == s.lastWeekday && day+7 > days
	case s.nthCount > 0:
		return weekday == s.nthWeekday && (day-1)/7+1 == s.nthCount
	case s.byWeekday:
		return s.weekdays[weekday]
	}
	return s.days[day]
}

// nearestWorkday is the Monday to Friday nearest to a day, within its month.
func nearestWorkday(year int, month time.Month, day, days int) int {
	switch time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Weekday() {
	case time.Saturday:
		if day == 1 {
			return 3
		}
		return day - 1
	case time.Sunday:
		if day == days {
			return day - 2
		}
		return day + 1
	}
	return day
}
