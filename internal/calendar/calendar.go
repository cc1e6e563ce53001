// Package calendar answers which trade date an instant belongs to.
//
// A trade date is the exchange's day, not the clock's: its first session may
// open on the evening before, and an instant between two sessions belongs to
// no trade date at all. A Calendar is parsed once from YAML and is immutable
// afterwards, so that any number of goroutines may ask it.
//
// Invariants:
//   - the sessions of all trade dates, in time order, never overlap;
//   - an instant belongs to at most one trade date;
//   - wall clock times are those of the calendar's time zone on the session's
//     own civil day, so that a session that spans a change of the clocks is an
//     hour longer or shorter, as it is on the trading floor;
//   - only the years the calendar covers have trade dates: what lies outside is
//     refused, never guessed from weekdays;
//   - Version is a hash of the calendar's bytes: two calendars of one version
//     give one answer (for one edition of the time zone database).
package calendar

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"sort"
	"time"
)

// ErrInvalid is the root of every error about a malformed calendar or date.
var ErrInvalid = errors.New("invalid calendar")

// TradeDate is the exchange's day, as days since 1970-01-01 of the civil date
// it is named after.
type TradeDate int32

// Date returns the TradeDate named after the civil date.
func Date(year int, month time.Month, day int) TradeDate {
	return TradeDate(time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix() / 86400)
}

// ParseTradeDate reads "2026-11-23". It checks the form only; whether the
// exchange trades on it is for Calendar.Session to say.
func ParseTradeDate(s string) (TradeDate, error) {
	t, err := time.ParseInLocation(time.DateOnly, s, time.UTC)
	if err != nil {
		return 0, fmt.Errorf("%w: trade date %q: want the form 2006-01-02", ErrInvalid, s)
	}
	return TradeDate(t.Unix() / 86400), nil
}

// String is "2026-11-23".
func (d TradeDate) String() string { return d.midnightUTC().Format(time.DateOnly) }

// Civil returns the civil date that d is named after.
func (d TradeDate) Civil() (int, time.Month, int) { return d.midnightUTC().Date() }

// Weekday returns the day of the week of the civil date.
func (d TradeDate) Weekday() time.Weekday { return d.midnightUTC().Weekday() }

func (d TradeDate) midnightUTC() time.Time { return time.Unix(int64(d)*86400, 0).UTC() }

// Session is one named stretch of trading, [OpenAt, CloseAt), in UTC.
type Session struct {
	Name    string
	OpenAt  time.Time
	CloseAt time.Time
}

// Day is one trade date: its sessions in time order.
type Day struct {
	Date     TradeDate
	Sessions []Session
	Half     bool // the market closes early
}

// Find returns the day's session of that name.
func (d Day) Find(name string) (Session, bool) {
	for _, s := range d.Sessions {
		if s.Name == name {
			return s, true
		}
	}
	return Session{}, false
}

// interval is a maximal stretch [from, to) of one trade date.
type interval struct {
	from, to int64 // nanoseconds since the epoch
	date     TradeDate
}

// Calendar is a parsed session calendar. It is immutable.
type Calendar struct {
	name     string
	version  string
	location *time.Location
	sessions []sessionRule
	holidays map[TradeDate]bool
	halves   map[TradeDate]bool
	first    TradeDate // first civil date covered
	last     TradeDate // last civil date covered
	deadline wallClock

	dates     []TradeDate // every trade date covered, ascending
	intervals []interval  // ascending, disjoint
}

// Name is the calendar's own name, such as "us-equities".
func (c *Calendar) Name() string { return c.name }

// Version is a hash of the calendar's bytes, 32 hexadecimal digits.
func (c *Calendar) Version() string { return c.version }

// Location is the time zone of the calendar's wall clock.
func (c *Calendar) Location() *time.Location { return c.location }

// Covers returns the first and the last civil date that the calendar knows.
func (c *Calendar) Covers() (first, last TradeDate) { return c.first, c.last }

func contentVersion(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// TradeDate returns the trade date of an instant, given in nanoseconds since
// the epoch, or false if no session is open then.
func (c *Calendar) TradeDate(unixNanos int64) (TradeDate, bool) {
	_, _, d, ok := c.Interval(unixNanos)
	return TradeDate(d), ok
}

// Interval returns the longest stretch [from, to) around an instant, all in
// nanoseconds since the epoch, of which every instant has the same answer: the
// trade date (days since 1970-01-01) if ok, else no trade date. A decoder keeps
// the stretch and asks again only when an instant leaves it. The first and the
// last stretch end at the limits of int64, where to is inclusive.
func (c *Calendar) Interval(unixNanos int64) (from, to int64, date int32, ok bool) {
	// n is the number of intervals that begin at or before the instant.
	n := sort.Search(len(c.intervals), func(i int) bool { return c.intervals[i].from > unixNanos })
	if n > 0 {
		if v := c.intervals[n-1]; unixNanos < v.to {
			return v.from, v.to, int32(v.date), true
		}
	}
	from, to = math.MinInt64, math.MaxInt64
	if n > 0 {
		from = c.intervals[n-1].to
	}
	if n < len(c.intervals) {
		to = c.intervals[n].from
	}
	return from, to, 0, false
}

// Session returns the trade date's sessions, or false if d is no trade date or
// lies outside the years covered.
func (c *Calendar) Session(d TradeDate) (Day, bool) {
	if !c.trades(d) {
		return Day{}, false
	}
	return c.day(d), true
}

// Next returns the first trade date after d, or false at the end of what the
// calendar covers. d need not be a trade date.
func (c *Calendar) Next(d TradeDate) (TradeDate, bool) {
	i := sort.Search(len(c.dates), func(i int) bool { return c.dates[i] > d })
	if i == len(c.dates) || d < c.first {
		return 0, false
	}
	return c.dates[i], true
}

// Prev returns the last trade date before d, or false at the beginning of what
// the calendar covers. d need not be a trade date.
func (c *Calendar) Prev(d TradeDate) (TradeDate, bool) {
	i := sort.Search(len(c.dates), func(i int) bool { return c.dates[i] >= d })
	if i == 0 || d > c.last {
		return 0, false
	}
	return c.dates[i-1], true
}

// DeadlineAfter returns the instant by which the bills of d must be ready: the
// calendar's deadline, wall clock, on the next trade date. It is the zero time
// where the calendar covers no next trade date.
func (c *Calendar) DeadlineAfter(d TradeDate) time.Time {
	next, ok := c.Next(d)
	if !ok {
		return time.Time{}
	}
	return c.deadline.on(next, c.location)
}

// Midnight returns the first instant of the civil date in the calendar's zone,
// from which feeds count their nanoseconds.
func (c *Calendar) Midnight(d TradeDate) time.Time { return wallClock{}.on(d, c.location) }

func (c *Calendar) trades(d TradeDate) bool {
	i := sort.Search(len(c.dates), func(i int) bool { return c.dates[i] >= d })
	return i < len(c.dates) && c.dates[i] == d
}

// day lays the session rules over one civil date.
func (c *Calendar) day(d TradeDate) Day {
	day := Day{Date: d, Half: c.halves[d]}
	for _, r := range c.sessions {
		if d < r.from || d >= r.to {
			continue
		}
		day.Sessions = append(day.Sessions, r.on(d, day.Half, c.location))
	}
	return day
}

// wallClock is a time of day, in minutes after midnight.
type wallClock struct{ minutes int }

// on returns the instant at which a clock in loc shows w on the civil date d. A
// time that the clocks skip is the instant of the change's other side, as
// time.Date has it; a time shown twice is its first showing.
func (w wallClock) on(d TradeDate, loc *time.Location) time.Time {
	y, m, dd := d.Civil()
	return time.Date(y, m, dd, w.minutes/60, w.minutes%60, 0, 0, loc).UTC()
}

// sessionRule is a session as declared: wall clock times of [from, to) dates.
type sessionRule struct {
	name                string
	open, close         wallClock
	halfOpen, halfClose wallClock
	previousDay         bool // opens on the evening before the trade date
	from, to            TradeDate
}

func (r sessionRule) on(d TradeDate, half bool, loc *time.Location) Session {
	opens, closes := r.open, r.close
	if half {
		opens, closes = r.halfOpen, r.halfClose
	}
	openDate := d
	if r.previousDay {
		openDate--
	}
	return Session{Name: r.name, OpenAt: opens.on(openDate, loc), CloseAt: closes.on(d, loc)}
}
