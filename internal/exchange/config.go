package exchange

import (
	"fmt"

	"github.com/tapehouse/tapehouse/internal/calendar"
)

// Config says what a trade date the generator makes. DefaultConfig fills it.
type Config struct {
	Seed      uint64
	Calendar  *calendar.Calendar
	TradeDate calendar.TradeDate
	// Records is the number of records of all streams that the exchange
	// numbers, markers apart; those that sabotage withholds count.
	Records int64
	// Symbols trade, the most active first; 1 to 8,906.
	Symbols int
	// MPIDs take part, the largest first; 2 to 1,000.
	MPIDs []string
	// Sources is the number of matching engines; 1 to 64. Engine n has the
	// sources MEn-ORD and MEn-EXE.
	Sources int
	// Restarts is the number of engines that restart in mid-day, with a new
	// epoch whose sequence begins at 1; 0 to Sources.
	Restarts int
	// Corrections is the number of busts and corrections made during the day.
	Corrections int
	Sabotage    Sabotage
}

// Sabotage makes the exchange's records defective, to show what the close finds.
type Sabotage struct {
	// DropSequence withholds one order event in mid-day.
	DropSequence bool
	// MalformRecord gives one execution leg of mid-day a price with six digits
	// after the point.
	MalformRecord bool
	// SilentSource names a source that never speaks: no records, no marker.
	SilentSource string
}

// What the generator's configuration is bounded by.
const (
	recordsMax     = 1 << 40
	mpidsMax       = 1000
	sourcesMax     = 64
	correctionsMax = 1 << 20
)

// The sizes that DefaultConfig derives from the number of records.
const (
	recordsPerSymbol     = 1000 // so that every book is alive
	symbolsMin           = 50
	recordsPerCorrection = 50_000
)

// DefaultConfig is a trade date of the embedded pack's exchange, of as many
// symbols as the records can keep busy.
func DefaultConfig(cal *calendar.Calendar, d calendar.TradeDate, seed uint64, records int64) Config {
	c := Config{
		Seed: seed, Calendar: cal, TradeDate: d, Records: records,
		Symbols: int(min(max(records/recordsPerSymbol, symbolsMin), symbolsMax)),
		MPIDs:   DefaultMPIDs,
		Sources: 4,
	}
	if records >= 10_000 {
		c.Restarts = 1
		c.Corrections = int(min(max(records/recordsPerCorrection, 2), 1000))
	}
	return c
}

func (c *Config) check() (calendar.Day, error) {
	for _, b := range []struct {
		name         string
		v, low, high int64
	}{
		{"records", c.Records, 0, recordsMax},
		{"symbols", int64(c.Symbols), 1, symbolsMax},
		{"MPIDs", int64(len(c.MPIDs)), 2, mpidsMax},
		{"sources", int64(c.Sources), 1, sourcesMax},
		{"restarts", int64(c.Restarts), 0, int64(c.Sources)},
		{"corrections", int64(c.Corrections), 0, correctionsMax},
	} {
		if b.v < b.low || b.v > b.high {
			return calendar.Day{}, fmt.Errorf("%w: %d %s: want %d to %d", ErrConfig, b.v, b.name, b.low, b.high)
		}
	}
	for _, m := range c.MPIDs {
		if m == "" || len(m) > 16 || printable(m) != m {
			return calendar.Day{}, fmt.Errorf("%w: MPID %q", ErrConfig, m)
		}
	}
	if c.Calendar == nil {
		return calendar.Day{}, fmt.Errorf("%w: no calendar", ErrConfig)
	}
	day, ok := c.Calendar.Session(c.TradeDate)
	if !ok {
		return calendar.Day{}, fmt.Errorf("%w: %s is not a trade date of the calendar %s", ErrConfig, c.TradeDate, c.Calendar.Name())
	}
	if _, ok := day.Find(sessionCore); !ok {
		return calendar.Day{}, fmt.Errorf("%w: the calendar %s has no session %q", ErrConfig, c.Calendar.Name(), sessionCore)
	}
	if (c.Sabotage.DropSequence || c.Sabotage.MalformRecord) && c.Records < 1000 {
		return calendar.Day{}, fmt.Errorf("%w: sabotage needs at least 1000 records", ErrConfig)
	}
	if s := c.Sabotage.SilentSource; s != "" {
		known := s == deskSource
		for i := range c.Sources {
			known = known || s == engineName(i)+"-ORD" || s == engineName(i)+"-EXE"
		}
		if !known {
			return calendar.Day{}, fmt.Errorf("%w: %q is none of the sources ME1-ORD, ME1-EXE to %s-EXE and %s", ErrConfig, s, engineName(c.Sources-1), deskSource)
		}
	}
	return day, nil
}

// The names of the calendar's sessions that the generator trades in. A calendar
// may lack all but the core session.
const (
	sessionNight = "night"
	sessionPre   = "pre"
	sessionCore  = "core"
	sessionPost  = "post"
)

// deskSource is the source of breaks and corrections.
const deskSource = "TRADEDESK"

func engineName(i int) string { return fmt.Sprintf("ME%d", i+1) }

// printable replaces what is not printable ASCII by '?', so that a text needs
// little escaping and hashes as it is written.
func printable(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if b[i] < ' ' || b[i] > '~' {
					b[i] = '?'
				}
			}
			return string(b)
		}
	}
	return s
}
