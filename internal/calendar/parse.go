package calendar

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/goccy/go-yaml"
)

// The limits of a calendar. They are far above any real one and keep a hostile
// file from costing memory.
const (
	sizeBytesMax = 1 << 20
	yearsMax     = 100
	sessionsMax  = 16
)

// document is the YAML form. Strings carry wall clock times and dates, so that
// a mistake is reported with the words of the file.
type document struct {
	Format   int               `yaml:"format"`
	Name     string            `yaml:"name"`
	TimeZone string            `yaml:"time_zone"`
	Deadline string            `yaml:"deadline"`
	Sessions []documentSession `yaml:"sessions"`
	Years    []documentYear    `yaml:"years"`
}

type documentSession struct {
	Name          string `yaml:"name"`
	Open          string `yaml:"open"`
	Close         string `yaml:"close"`
	HalfOpen      string `yaml:"half_day_open"`
	HalfClose     string `yaml:"half_day_close"`
	PreviousDay   bool   `yaml:"opens_on_previous_day"`
	EffectiveFrom string `yaml:"effective_from"`
	EffectiveTo   string `yaml:"effective_to"`
}

type documentYear struct {
	Year   int      `yaml:"year"`
	Closed []string `yaml:"closed"`
	Half   []string `yaml:"half_days"`
}

// formatVersion is the form of the YAML that this program reads.
const formatVersion = 1

// Parse reads a calendar. Unknown keys are refused with their line. Errors wrap
// ErrInvalid.
//
//	format: 1
//	name: us-equities
//	time_zone: America/New_York
//	deadline: "04:00"              # of the next trade date
//	sessions:                      # in the order of a trade date
//	  - {name: night, open: "21:00", close: "04:00", opens_on_previous_day: true}
//	  - {name: core, open: "09:30", close: "16:00", half_day_close: "13:00"}
//	years:                         # consecutive; other years have no trade dates
//	  - {year: 2026, closed: ["01-01"], half_days: ["11-27"]}
//
// Saturdays and Sundays are never trade dates. A session may be limited to the
// trade dates [effective_from, effective_to).
func Parse(text []byte) (*Calendar, error) {
	if len(text) > sizeBytesMax {
		return nil, fmt.Errorf("%w: %d bytes exceed the limit of %d", ErrInvalid, len(text), sizeBytesMax)
	}
	var doc document
	if err := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(&doc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	c := &Calendar{name: doc.Name, version: contentVersion(text)}
	if doc.Format != formatVersion {
		return nil, fmt.Errorf("%w: format %d is not known to this program, which reads %d", ErrInvalid, doc.Format, formatVersion)
	}
	if doc.Name == "" || doc.TimeZone == "" {
		return nil, fmt.Errorf("%w: name and time_zone are required", ErrInvalid)
	}
	loc, err := time.LoadLocation(doc.TimeZone)
	if err != nil {
		return nil, fmt.Errorf("%w: time zone %q: %w", ErrInvalid, doc.TimeZone, err)
	}
	c.location = loc
	if c.deadline, err = parseClock("deadline", doc.Deadline); err != nil {
		return nil, err
	}
	if err := c.parseSessions(doc.Sessions); err != nil {
		return nil, err
	}
	if err := c.parseYears(doc.Years); err != nil {
		return nil, err
	}
	return c, c.lay()
}

func (c *Calendar) parseSessions(in []documentSession) error {
	if len(in) == 0 || len(in) > sessionsMax {
		return fmt.Errorf("%w: %d sessions: want 1 to %d", ErrInvalid, len(in), sessionsMax)
	}
	for i, s := range in {
		where := fmt.Sprintf("session %d (%s)", i+1, s.Name)
		if s.Name == "" {
			return fmt.Errorf("%w: session %d has no name", ErrInvalid, i+1)
		}
		r := sessionRule{name: s.Name, previousDay: s.PreviousDay, from: math.MinInt32, to: math.MaxInt32}
		var err error
		if r.open, err = parseClock(where+" open", s.Open); err != nil {
			return err
		}
		if r.close, err = parseClock(where+" close", s.Close); err != nil {
			return err
		}
		r.halfOpen, r.halfClose = r.open, r.close
		if s.HalfOpen != "" {
			if r.halfOpen, err = parseClock(where+" half_day_open", s.HalfOpen); err != nil {
				return err
			}
		}
		if s.HalfClose != "" {
			if r.halfClose, err = parseClock(where+" half_day_close", s.HalfClose); err != nil {
				return err
			}
		}
		if s.EffectiveFrom != "" {
			if r.from, err = ParseTradeDate(s.EffectiveFrom); err != nil {
				return fmt.Errorf("%s effective_from: %w", where, err)
			}
		}
		if s.EffectiveTo != "" {
			if r.to, err = ParseTradeDate(s.EffectiveTo); err != nil {
				return fmt.Errorf("%s effective_to: %w", where, err)
			}
		}
		c.sessions = append(c.sessions, r)
	}
	return nil
}

func (c *Calendar) parseYears(in []documentYear) error {
	if len(in) == 0 || len(in) > yearsMax {
		return fmt.Errorf("%w: %d years: want 1 to %d", ErrInvalid, len(in), yearsMax)
	}
	c.holidays, c.halves = map[TradeDate]bool{}, map[TradeDate]bool{}
	for i, y := range in {
		if y.Year < 1970 || y.Year > 2200 {
			return fmt.Errorf("%w: year %d: want 1970 to 2200", ErrInvalid, y.Year)
		}
		if i > 0 && y.Year != in[i-1].Year+1 {
			return fmt.Errorf("%w: year %d follows %d: years must be consecutive, so that no gap is taken for holidays", ErrInvalid, y.Year, in[i-1].Year)
		}
		for _, list := range []struct {
			name  string
			dates []string
			into  map[TradeDate]bool
		}{{"closed", y.Closed, c.holidays}, {"half_days", y.Half, c.halves}} {
			for _, md := range list.dates {
				d, err := ParseTradeDate(strconv.Itoa(y.Year) + "-" + md)
				if err != nil {
					return fmt.Errorf("%w: year %d %s: %q: want the form 01-02", ErrInvalid, y.Year, list.name, md)
				}
				if weekend(d) {
					return fmt.Errorf("%w: year %d %s: %s is a %s", ErrInvalid, y.Year, list.name, d, d.Weekday())
				}
				if c.holidays[d] || c.halves[d] {
					return fmt.Errorf("%w: year %d %s: %s stands twice", ErrInvalid, y.Year, list.name, d)
				}
				list.into[d] = true
			}
		}
	}
	c.first = Date(in[0].Year, time.January, 1)
	c.last = Date(in[len(in)-1].Year, time.December, 31)
	return nil
}

// lay computes every trade date and its intervals, and checks that no two
// sessions overlap.
func (c *Calendar) lay() error {
	for d := c.first; d <= c.last; d++ {
		if weekend(d) || c.holidays[d] {
			continue
		}
		day := c.day(d)
		if len(day.Sessions) == 0 {
			return fmt.Errorf("%w: %s has no session in effect", ErrInvalid, d)
		}
		c.dates = append(c.dates, d)
		for _, s := range day.Sessions {
			v := interval{s.OpenAt.UnixNano(), s.CloseAt.UnixNano(), d}
			if v.to <= v.from {
				return fmt.Errorf("%w: session %s of %s closes at or before it opens", ErrInvalid, s.Name, d)
			}
			n := len(c.intervals)
			switch {
			case n > 0 && v.from < c.intervals[n-1].to:
				return fmt.Errorf("%w: session %s of %s opens before the session before it closes (sessions stand in time order)", ErrInvalid, s.Name, d)
			case n > 0 && v.from == c.intervals[n-1].to && c.intervals[n-1].date == d:
				c.intervals[n-1].to = v.to
			default:
				c.intervals = append(c.intervals, v)
			}
		}
	}
	c.dates = slices.Clip(c.dates)
	c.intervals = slices.Clip(c.intervals)
	return nil
}

func weekend(d TradeDate) bool {
	w := d.Weekday()
	return w == time.Saturday || w == time.Sunday
}

// parseClock reads "09:30".
func parseClock(what, s string) (wallClock, error) {
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != 5 {
		return wallClock{}, fmt.Errorf("%w: %s: %q: want the form \"09:30\"", ErrInvalid, what, s)
	}
	return wallClock{t.Hour()*60 + t.Minute()}, nil
}
