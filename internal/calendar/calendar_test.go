package calendar_test

import (
	"errors"
	"io/fs"
	"math"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/packs"
)

func equities(t testing.TB) *calendar.Calendar {
	t.Helper()
	text, err := fs.ReadFile(packs.Equities(), "calendar.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := calendar.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTradeDateOfInstant(t *testing.T) {
	c := equities(t)
	for _, tt := range []struct{ at, want string }{
		// Real captures lie on these.
		{"2012-06-21T09:30:00-04:00", "2012-06-21"},
		{"2013-10-08T10:00:00-04:00", "2013-10-08"},
		{"2019-12-30T09:30:00.002-05:00", "2019-12-30"},
		{"2020-01-30T03:07:00-05:00", "2020-01-30"},
		// Sessions and the hours between them.
		{"2026-11-20T04:00:00-05:00", "2026-11-20"},
		{"2026-11-20T19:59:59.999999999-05:00", "2026-11-20"},
		{"2026-11-20T20:00:00-05:00", ""},
		{"2026-11-18T20:30:00-05:00", ""},
		// The night session belongs to the next trade date.
		{"2026-11-18T20:59:59.999999999-05:00", ""},
		{"2026-11-18T21:00:00-05:00", "2026-11-19"},
		{"2026-11-19T03:59:59-05:00", "2026-11-19"},
		// Friday evening opens nothing; Sunday evening opens Monday.
		{"2026-11-20T21:30:00-05:00", ""},
		{"2026-11-21T12:00:00-05:00", ""},
		{"2026-11-22T20:59:59-05:00", ""},
		{"2026-11-22T21:00:00-05:00", "2026-11-23"},
		// Thanksgiving: no evening before it, none on it but for Friday's.
		{"2026-11-25T21:00:00-05:00", ""},
		{"2026-11-26T12:00:00-05:00", ""},
		{"2026-11-26T21:00:00-05:00", "2026-11-27"},
		// The half day after it.
		{"2026-11-27T12:59:59-05:00", "2026-11-27"},
		{"2026-11-27T16:59:59-05:00", "2026-11-27"},
		{"2026-11-27T17:00:00-05:00", ""},
		// No night session before 2026.
		{"2025-06-10T22:00:00-04:00", ""},
		{"2025-06-11T02:59:59-04:00", ""},
		// Outside the years covered, never a guess from the weekday.
		{"2011-12-30T12:00:00-05:00", ""},
		{"2028-01-03T12:00:00-05:00", ""},
	} {
		at, err := time.Parse(time.RFC3339Nano, tt.at)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := c.TradeDate(at.UnixNano())
		if ok != (tt.want != "") || ok && got.String() != tt.want {
			t.Errorf("TradeDate(%s) = %s, %v, want %q", tt.at, got, ok, tt.want)
		}
	}
}

func TestClocksChange(t *testing.T) {
	c := equities(t)
	// 2026-03-08 and 2026-11-01 are the Sundays on which the clocks change; the
	// night session of the Monday after is of ordinary length, the offset new.
	for _, tt := range []struct {
		date     string
		nightUTC string
		openUTC  string
	}{
		{"2026-03-06", "2026-03-06T02:00:00Z", "2026-03-06T14:30:00Z"},
		{"2026-03-09", "2026-03-09T01:00:00Z", "2026-03-09T13:30:00Z"},
		{"2026-10-30", "2026-10-30T01:00:00Z", "2026-10-30T13:30:00Z"},
		{"2026-11-02", "2026-11-02T02:00:00Z", "2026-11-02T14:30:00Z"},
	} {
		d, err := calendar.ParseTradeDate(tt.date)
		if err != nil {
			t.Fatal(err)
		}
		day, ok := c.Session(d)
		if !ok {
			t.Fatalf("%s is no trade date", d)
		}
		night, _ := day.Find("night")
		core, _ := day.Find("core")
		if got := night.OpenAt.Format(time.RFC3339); got != tt.nightUTC {
			t.Errorf("%s night opens %s, want %s", d, got, tt.nightUTC)
		}
		if got := core.OpenAt.Format(time.RFC3339); got != tt.openUTC {
			t.Errorf("%s core opens %s, want %s", d, got, tt.openUTC)
		}
	}
}

func TestSessionSpansClockChange(t *testing.T) {
	// US clocks change on Sundays, when nothing trades; the arithmetic must hold
	// anyway, so a zone is used whose clocks changed before a Friday.
	c, err := calendar.Parse([]byte(`
format: 1
name: weekday-change
time_zone: Asia/Amman
deadline: "04:00"
sessions: [{name: night, open: "21:00", close: "04:00", opens_on_previous_day: true}]
years: [{year: 2021}]
`))
	if err != nil {
		t.Fatal(err)
	}
	// Amman moved its clocks forward at the end of Thursday 2021-03-25.
	day, _ := c.Session(calendar.Date(2021, 3, 26))
	if got := day.Sessions[0].CloseAt.Sub(day.Sessions[0].OpenAt); got != 6*time.Hour {
		t.Errorf("the night of the change lasts %s, want 6h", got)
	}
}

func TestIntervalIsMaximal(t *testing.T) {
	c := equities(t)
	at := int64(math.MinInt64)
	n := 0
	for {
		from, to, d, ok := c.Interval(at)
		if from != at {
			t.Fatalf("interval at %d begins at %d", at, from)
		}
		if ok {
			n++
			for _, x := range []int64{from, from + (to-from)/2, to - 1} {
				f2, t2, d2, ok2 := c.Interval(x)
				if f2 != from || t2 != to || d2 != d || !ok2 {
					t.Fatalf("interval within [%d, %d) differs at %d", from, to, x)
				}
			}
		}
		if to == math.MaxInt64 {
			break
		}
		at = to
	}
	if n < 4000 {
		t.Errorf("%d trade dates over 16 years, want about 4,030", n)
	}
}

// TestHolidaysFollowTheRules recomputes the regular holidays, so that a typing
// error in the list is found. Closures decreed for a day are named here.
func TestHolidaysFollowTheRules(t *testing.T) {
	c := equities(t)
	decreed := map[string]bool{"2012-10-29": true, "2012-10-30": true, "2018-12-05": true, "2025-01-09": true}
	for year := 2012; year <= 2027; year++ {
		closed := map[calendar.TradeDate]bool{}
		nth := func(m time.Month, w time.Weekday, n int) {
			d := calendar.Date(year, m, 1)
			for d.Weekday() != w {
				d++
			}
			closed[d+calendar.TradeDate(7*(n-1))] = true
		}
		observed := func(m time.Month, day int) {
			d := calendar.Date(year, m, day)
			switch d.Weekday() {
			case time.Saturday:
				// New Year's Day on a Saturday is not made up for in December.
				if m != time.January {
					closed[d-1] = true
				}
			case time.Sunday:
				closed[d+1] = true
			default:
				closed[d] = true
			}
		}
		observed(time.January, 1)
		nth(time.January, time.Monday, 3)
		nth(time.February, time.Monday, 3)
		closed[easter(year)-2] = true
		last := calendar.Date(year, time.May, 31)
		for last.Weekday() != time.Monday {
			last--
		}
		closed[last] = true
		if year >= 2022 {
			observed(time.June, 19)
		}
		observed(time.July, 4)
		nth(time.September, time.Monday, 1)
		nth(time.November, time.Thursday, 4)
		observed(time.December, 25)
		for d := calendar.Date(year, 1, 1); d <= calendar.Date(year, 12, 31); d++ {
			if w := d.Weekday(); w == time.Saturday || w == time.Sunday {
				continue
			}
			_, trades := c.Session(d)
			if want := !closed[d] && !decreed[d.String()]; trades != want {
				t.Errorf("%s: trades %v, want %v", d, trades, want)
			}
		}
	}
}

// easter is the anonymous Gregorian computus.
func easter(y int) calendar.TradeDate {
	a, b, c := y%19, y/100, y%100
	d, e, f := b/4, b%4, (b+8)/25
	g := (b - f + 1) / 3
	h := (19*a + b - d - g + 15) % 30
	i, k := c/4, c%4
	l := (32 + 2*e + 2*i - h - k) % 7
	m := (a + 11*h + 22*l) / 451
	month := (h + l - 7*m + 114) / 31
	return calendar.Date(y, time.Month(month), (h+l-7*m+114)%31+1)
}

func TestNextPrevDeadline(t *testing.T) {
	c := equities(t)
	d := calendar.Date(2026, 11, 25)
	next, ok := c.Next(d)
	if !ok || next.String() != "2026-11-27" {
		t.Errorf("Next(%s) = %s, %v", d, next, ok)
	}
	if prev, ok := c.Prev(next); !ok || prev != d {
		t.Errorf("Prev(%s) = %s, %v", next, prev, ok)
	}
	if got := c.DeadlineAfter(d).Format(time.RFC3339); got != "2026-11-27T09:00:00Z" {
		t.Errorf("DeadlineAfter(%s) = %s", d, got)
	}
	if _, ok := c.Next(calendar.Date(2027, 12, 31)); ok {
		t.Error("a trade date after the last covered")
	}
	if _, ok := c.Prev(calendar.Date(2012, 1, 3)); ok {
		t.Error("a trade date before the first covered")
	}
	if !c.DeadlineAfter(calendar.Date(2027, 12, 31)).IsZero() {
		t.Error("a deadline beyond what is covered")
	}
	if day, _ := c.Session(calendar.Date(2026, 12, 24)); !day.Half {
		t.Error("2026-12-24 is a half day")
	}
	if _, ok := c.Session(calendar.Date(2028, 1, 3)); ok {
		t.Error("2028 is not covered")
	}
}

func TestParseRefuses(t *testing.T) {
	const head = "format: 1\nname: x\ntime_zone: UTC\ndeadline: \"04:00\"\n"
	const session = "sessions: [{name: core, open: \"09:30\", close: \"16:00\"}]\n"
	const years = "years: [{year: 2026}]\n"
	for _, tt := range []struct{ name, text, want string }{
		{"unknown key", head + session + years + "holiday: []\n", "holiday"},
		{"format", strings.Replace(head, "1", "2", 1) + session + years, "format 2"},
		{"zone", strings.Replace(head, "UTC", "Mars/Olympus", 1) + session + years, "Mars/Olympus"},
		{"clock", head + "sessions: [{name: core, open: \"9:30\", close: \"16:00\"}]\n" + years, "9:30"},
		{"backward", head + "sessions: [{name: core, open: \"16:00\", close: \"09:30\"}]\n" + years, "closes at or before"},
		{"overlap", head + "sessions: [{name: a, open: \"09:00\", close: \"16:00\"}, {name: b, open: \"15:00\", close: \"17:00\"}]\n" + years, "opens before"},
		{"gap of years", head + session + "years: [{year: 2026}, {year: 2028}]\n", "consecutive"},
		{"weekend", head + session + "years: [{year: 2026, closed: [\"11-21\"]}]\n", "Saturday"},
		{"twice", head + session + "years: [{year: 2026, closed: [\"11-20\"], half_days: [\"11-20\"]}]\n", "twice"},
		{"date", head + session + "years: [{year: 2026, closed: [\"02-30\"]}]\n", "02-30"},
		{"no session", head + "sessions: [{name: a, open: \"09:00\", close: \"16:00\", effective_from: 2026-06-01}]\n" + years, "no session in effect"},
		{"empty", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := calendar.Parse([]byte(tt.text))
			if !errors.Is(err, calendar.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want it to name %q", err, tt.want)
			}
		})
	}
}

func TestVersionIsContent(t *testing.T) {
	text, err := fs.ReadFile(packs.Equities(), "calendar.yaml")
	if err != nil {
		t.Fatal(err)
	}
	a, b := equities(t), equities(t)
	if a.Version() != b.Version() || len(a.Version()) != 32 {
		t.Errorf("versions %q and %q", a.Version(), b.Version())
	}
	other, err := calendar.Parse([]byte(strings.Replace(string(text), "\"10-29\", ", "", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if other.Version() == a.Version() {
		t.Error("another calendar has the same version")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("format: 1\nname: x\ntime_zone: UTC\ndeadline: \"04:00\"\nsessions: [{name: core, open: \"09:30\", close: \"16:00\"}]\nyears: [{year: 2026}]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := calendar.Parse(text)
		if err != nil {
			if !errors.Is(err, calendar.ErrInvalid) {
				t.Errorf("error %v is not ErrInvalid", err)
			}
			return
		}
		c.Interval(0)
	})
}

func BenchmarkInterval(b *testing.B) {
	c := equities(b)
	at := time.Date(2026, 11, 20, 15, 0, 0, 0, time.UTC).UnixNano()
	for b.Loop() {
		c.Interval(at)
	}
}
