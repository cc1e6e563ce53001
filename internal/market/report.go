package market

import (
	"fmt"
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/ledger"
)

// Check names what a finding is about.
type Check string

// The checks of a close.
const (
	CheckSilent     Check = "silent-source"     // an expected source sent nothing at all
	CheckUnexpected Check = "unexpected-source" // a source that the roster does not name
	CheckMarker     Check = "marker"            // each feed has its end-of-trade-date marker
	CheckMarkers    Check = "marker-conflict"   // two markers of a feed say different things
	CheckGap        Check = "gap"               // sequence numbers never received
	CheckRejected   Check = "rejected"          // records that were rejected and not sent again right
	CheckConflict   Check = "conflict"          // one sequence number, two contents
	CheckCount      Check = "count"             // rows + rejected + missing = the source's count
	CheckTotals     Check = "totals"            // quantity and notional = the source's totals
	CheckReference  Check = "unknown-reference" // corrections of executions that are not here
)

// Status is a finding's outcome.
type Status string

// The outcomes of a check.
const (
	Passed Status = "passed"
	Failed Status = "failed"
	Waived Status = "waived"
)

// Range is an inclusive range of sequence numbers.
type Range struct {
	First int64 `json:"first"`
	Last  int64 `json:"last"`
}

func (r Range) String() string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// Finding is the outcome of one check of one feed (source, session, epoch), of
// one source, or of the trade date.
type Finding struct {
	Check   Check   `json:"check"`
	Status  Status  `json:"status"`
	Stream  string  `json:"stream,omitempty"`
	Source  string  `json:"source,omitempty"`
	Session string  `json:"session,omitempty"` // or the pattern of one, for a silent source
	Epoch   int64   `json:"epoch,omitempty"`
	Ranges  []Range `json:"ranges,omitempty"` // at most rangesMax; Count counts all
	Count   int64   `json:"count,omitempty"`  // of records
	Message string  `json:"message"`
	Remedy  string  `json:"remedy,omitempty"`
	Waiver  string  `json:"waiver,omitempty"` // key of the waiver
	// Records names some of the records concerned.
	Records []RecordSample `json:"records,omitempty"`
}

func (f Finding) String() string {
	s := fmt.Sprintf("%s %s: %s", f.Check, f.Status, f.Message)
	if f.Remedy != "" && f.Status == Failed {
		s += "; " + f.Remedy
	}
	return s
}

// RecordSample names one record that a finding is about.
type RecordSample struct {
	RecordID string `json:"record_id,omitempty"`
	Sequence int64  `json:"sequence,omitempty"`
	Code     string `json:"code,omitempty"`
	Message  string `json:"message,omitempty"`
}

const (
	rangesMax  = 200 // of a finding
	samplesMax = 20  // records of a finding
)

// Marker is a source's own account of one feed on a trade date.
type Marker struct {
	First         int64     `json:"first"`
	Last          int64     `json:"last"` // First - 1 if nothing was sent
	Count         int64     `json:"count"`
	QuantityTotal string    `json:"quantity_total"`
	NotionalTotal string    `json:"notional_total"`
	SentAt        time.Time `json:"sent_at"`
	RecordID      string    `json:"record_id"`
}

// SourceAccount is what one feed brought for the trade date.
type SourceAccount struct {
	Stream  string  `json:"stream"`
	Source  string  `json:"source"`
	Session string  `json:"session"`
	Epoch   int64   `json:"epoch"`
	Marker  *Marker `json:"marker"` // null: none was received
	// First and Last are the least and greatest sequence number among Rows, 0
	// if there are none.
	First    int64  `json:"first"`
	Last     int64  `json:"last"`
	Rows     int64  `json:"rows"`
	Quantity string `json:"quantity"`
	Notional string `json:"notional"`
	Rejected int64  `json:"rejected"` // unresolved
	Missing  int64  `json:"missing"`
}

func (a *SourceAccount) feed() ledger.Feed {
	return ledger.Feed{Source: a.Source, Session: a.Session, Epoch: a.Epoch}
}

// Report tells whether a trade date is complete, and if not, what is missing
// and what to do about it.
type Report struct {
	TradeDate string          `json:"trade_date"`
	At        time.Time       `json:"at"`
	Ready     bool            `json:"ready"` // no finding failed
	Findings  []Finding       `json:"findings"`
	Sources   []SourceAccount `json:"sources"`
	// UnknownReferences are corrections that name executions which are not here.
	UnknownReferences []Correction `json:"unknown_references,omitempty"`
	// Unnumbered counts rejected records whose sequence number could not be
	// read, by source, of all trade dates. They are behind a gap if there is one.
	Unnumbered map[string]int64 `json:"unnumbered,omitempty"`
	Waivers    []Waiver         `json:"waivers,omitempty"` // in force

	date calendar.TradeDate
}

// Failures lists the findings that refuse the seal.
func (r *Report) Failures() []Finding {
	var out []Finding
	for _, f := range r.Findings {
		if f.Status == Failed {
			out = append(out, f)
		}
	}
	return out
}

// Correction is a bust or correction of an execution.
type Correction struct {
	RecordID    string `json:"record_id"`
	Action      string `json:"action"`
	MatchNumber int64  `json:"match_number"`
	Leg         *int64 `json:"leg"` // null: every leg of the match
	NewPrice    string `json:"new_price,omitempty"`
	NewQuantity string `json:"new_quantity,omitempty"`
	Reason      string `json:"reason,omitempty"`
	KnownAt     string `json:"known_at,omitempty"`
	Source      string `json:"source"`
	Session     string `json:"session"`
	Epoch       int64  `json:"epoch"`
	Sequence    int64  `json:"sequence"`
}

// RefusedError is returned by Seal for a trade date that is not proven complete.
type RefusedError struct {
	TradeDate calendar.TradeDate
	Report    *Report
}

func (e *RefusedError) Error() string {
	failed := e.Report.Failures()
	lines := make([]string, 0, len(failed)+1)
	lines = append(lines, fmt.Sprintf("trade date %s is not sealed: %d of %d checks failed", e.TradeDate, len(failed), len(e.Report.Findings)))
	for _, f := range failed {
		lines = append(lines, f.String())
	}
	return strings.Join(lines, "\n  ")
}

// Waiver accepts named failed findings of a trade date.
type Waiver struct {
	Key       string  `json:"key"` // given by Waive: "<trade date>/<n>"
	TradeDate string  `json:"trade_date"`
	Check     Check   `json:"check"`
	Source    string  `json:"source,omitempty"`
	Session   string  `json:"session,omitempty"` // "": every session of the source
	Epoch     int64   `json:"epoch,omitempty"`   // 0: every epoch
	Ranges    []Range `json:"ranges,omitempty"`  // required for gap, rejected and conflict
	Reason    string  `json:"reason"`
	By        string  `json:"by"`
	// Second is the second person who agreed; not the same as By.
	Second string    `json:"second,omitempty"`
	At     time.Time `json:"at"`
}
