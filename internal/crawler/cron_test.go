package crawler

import (
	"errors"
	"testing"
	"time"
)

func TestSchedule(t *testing.T) {
	const form = "2006-01-02 15:04"
	for _, c := range []struct {
		schedule, after string
		next            []string
	}{
		{"cron(15 12 * * ? *)", "2026-11-27 12:15", []string{"2026-11-28 12:15", "2026-11-29 12:15"}},
		{"cron(0/15 * * * ? *)", "2026-11-27 12:14", []string{"2026-11-27 12:15", "2026-11-27 12:30"}},
		{"cron(0 8-10/2 ? * MON-FRI *)", "2026-11-27 09:00", []string{"2026-11-27 10:00", "2026-11-30 08:00"}},
		{"cron(0 0 L * ? *)", "2027-02-01 00:00", []string{"2027-02-28 00:00", "2027-03-31 00:00"}},
		{"cron(0 0 L FEB ? *)", "2027-03-01 00:00", []string{"2028-02-29 00:00", "2029-02-28 00:00"}},
		{"cron(0 6 15W * ? *)", "2026-11-01 00:00", []string{"2026-11-16 06:00", "2026-12-15 06:00", "2027-01-15 06:00"}},
		{"cron(0 6 1W * ? *)", "2026-07-31 07:00", []string{"2026-08-03 06:00"}},
		{"cron(0 6 LW * ? *)", "2026-10-01 00:00", []string{"2026-10-30 06:00", "2026-11-30 06:00"}},
		{"cron(0 6 31W * ? *)", "2026-09-01 00:00", []string{"2026-10-30 06:00", "2026-12-31 06:00"}},
		{"cron(0 6 ? * 6L *)", "2026-11-01 00:00", []string{"2026-11-27 06:00", "2026-12-25 06:00"}},
		{"cron(0 6 ? * THU#4 *)", "2026-11-01 00:00", []string{"2026-11-26 06:00", "2026-12-24 06:00"}},
		{"cron(0 6 ? * 2#5 *)", "2026-11-01 00:00", []string{"2026-11-30 06:00", "2027-03-29 06:00"}},
		{"cron(0 6 ? * L *)", "2026-11-27 00:00", []string{"2026-11-28 06:00"}},
		{"cron(0 6 29 2 ? *)", "2026-11-27 00:00", []string{"2028-02-29 06:00", "2032-02-29 06:00"}},
		{"cron(30 22 1,15 JAN,jul ? 2027-2028)", "2026-11-27 00:00", []string{"2027-01-01 22:30", "2027-01-15 22:30", "2027-07-01 22:30"}},
		{"cron(0 6 30 2 ? *)", "2026-11-27 00:00", []string{""}},
		{"cron(0 6 1 1 ? 1999)", "2026-11-27 00:00", []string{""}},
		{"cron(59 23 31 12 ? *)", "2199-12-31 23:59", []string{""}},
	} {
		s, err := ParseSchedule(c.schedule)
		if err != nil {
			t.Errorf("%s: %v", c.schedule, err)
			continue
		}
		at, err := time.Parse(form, c.after)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range c.next {
			at = s.Next(at)
			got := ""
			if !at.IsZero() {
				got = at.Format(form)
			}
			if got != want {
				t.Errorf("%s after %s: %q, want %q", c.schedule, c.after, got, want)
			}
		}
	}
	for _, bad := range []string{"", "15 12 * * ? *", "cron(15 12 * * ?)", "cron(15 12 * * * *)", "cron(15 12 ? * ? *)", "cron(60 * * * ? *)", "cron(* 24 * * ? *)",
		"cron(* * 32 * ? *)", "cron(* * 0 * ? *)", "cron(* * * 13 ? *)", "cron(* * ? * 8 *)", "cron(* * ? * 0 *)", "cron(5-1 * * * ? *)", "cron(*/0 * * * ? *)", "cron(1, * * * ? *)",
		"cron(* * ? * MON#6 *)", "cron(* * 32W * ? *)", "cron(* * * * ? 1969)", "cron(* * * * ? 2200)", "rate(5 minutes)", "cron(-1 * * * ? *)", "cron(* * * FOO ? *)"} {
		if _, err := ParseSchedule(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v, want ErrInvalid", bad, err)
		}
	}
}

// FuzzSchedule: the next time is later, named by the schedule, and nothing before it
// is, as far as an hour tells.
func FuzzSchedule(f *testing.F) {
	f.Add("cron(0/7 1,5-9/2 L * ? *)", int64(1_795_000_000))
	f.Add("cron(5 4 ? FEB 2#3 2028)", int64(0))
	f.Fuzz(func(t *testing.T, text string, at int64) {
		s, err := ParseSchedule(text)
		if err != nil {
			return
		}
		after := time.Unix(at%(8_000_000_000), 0)
		next := s.Next(after)
		if next.IsZero() {
			return
		}
		named := func(t time.Time) bool {
			y, m, d := t.Date()
			return y >= yearMin && y <= yearMax && s.years[y-yearMin] && s.months[m] && s.onDay(y, m, d) && s.hours[t.Hour()] && s.minutes[t.Minute()]
		}
		if !next.After(after) || next.Second() != 0 || !named(next) {
			t.Fatalf("%s after %v: %v", text, after, next)
		}
		for i := 1; i < 60; i++ {
			if b := next.Add(-time.Duration(i) * time.Minute); b.After(after) && named(b) {
				t.Fatalf("%s after %v: %v, but %v is named", text, after, next, b)
			}
		}
	})
}
