package packs

import (
	"errors"
	"time"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/record"
)

// ErrInvalid is the root of every error about a malformed pack. The message
// names the file and the place within it.
var ErrInvalid = errors.New("invalid pack")

// Pack is one market as data. It is immutable after Load.
type Pack struct {
	Name        string
	Version     string // the pack's own version, part of every certificate
	Hash        string // content hash of every file of the pack, 32 hexadecimal digits
	Namespace   string // the schema that holds the pack's tables
	Streams     []Stream
	References  []Reference
	Views       string // SQL script of CREATE MATERIALIZED VIEW statements
	Statements  []Statement
	Close       Close
	Calendar    *calendar.Calendar
	CalendarRaw []byte // the calendar's bytes, as Calendar.Version hashes them
}

// Stream is one delivery stream and the table that it fills.
type Stream struct {
	Name           record.StreamName
	Table          string
	Comment        string
	Schema         record.Schema // field ids count from 1 in the order of the columns
	Sequence       record.SequenceColumns
	Partition      string // a Date column, or "" for none
	BufferSizeMiB  int
	BufferInterval time.Duration
}

// Reference is a small table of reference data. Cells are texts that were
// checked against their columns' types; an empty cell is null.
type Reference struct {
	Table   string
	Comment string
	File    string
	Schema  record.Schema
	Rows    [][]string
}

// Column returns the position of the named column, or -1.
func (r *Reference) Column(name string) int { return r.Schema.Index(name) }

// Role says what a statement is for.
type Role string

// The roles. Every statement takes the trade date as $1.
const (
	// MemberStatement lists the lines of all members' bills of a trade date.
	MemberStatement Role = "member-statement"
	// ExplainCharge lists the legs behind one line; the parameters after the
	// trade date are the statement's Key columns, in order.
	ExplainCharge Role = "explain-charge"
	// Report is a report on a trade date.
	Report Role = "report"
)

// Statement is a parameterized query.
type Statement struct {
	Name    string
	Role    Role
	File    string
	Comment string
	// Key names the columns of a member statement that identify a line.
	Key []string
	// Explains names the member statement that an ExplainCharge explains.
	Explains string
	SQL      string
}

// Close says what the close of a trade date rests on.
type Close struct {
	Roster      string            // the reference table of expected sources
	Markers     record.StreamName // the stream of end-of-trade-date markers
	Corrections record.StreamName // the stream of busts and corrections
	Facts       []Fact
}

// Fact is a stream whose completeness the close proves. Quantity and Price name
// the columns whose sums a marker's totals are compared with; "" where a record
// has none. A record without a price adds nothing to the notional.
type Fact struct {
	Stream   record.StreamName
	Quantity string
	Price    string
}

// Stream returns the stream of that name.
func (p *Pack) Stream(name record.StreamName) (*Stream, bool) {
	for i := range p.Streams {
		if p.Streams[i].Name == name {
			return &p.Streams[i], true
		}
	}
	return nil, false
}

// Reference returns the reference table of that name.
func (p *Pack) Reference(table string) (*Reference, bool) {
	for i := range p.References {
		if p.References[i].Table == table {
			return &p.References[i], true
		}
	}
	return nil, false
}

// Statement returns the statement of that name.
func (p *Pack) Statement(name string) (*Statement, bool) {
	for i := range p.Statements {
		if p.Statements[i].Name == name {
			return &p.Statements[i], true
		}
	}
	return nil, false
}
