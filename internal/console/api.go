package console

import (
	"context"
	"time"
)

// Backend is what the console stands before. The texts of its errors reach the
// operator; an *Error chooses the code. It must be safe for concurrent use.
type Backend interface {
	// Info says who serves what.
	Info(ctx context.Context) (Info, error)
	// Status reports on the trade dates asked for: one, or with an empty
	// TradeDate all that have records, a marker or a seal, the latest first.
	Status(ctx context.Context, q StatusRequest) (Status, error)
	// Seal closes a trade date. If it cannot be, the error is an *Error of
	// CodeRefused with every problem and its remedy.
	Seal(ctx context.Context, q SealRequest) (Seal, error)
	// Waive accepts named problems of a trade date, so that it can be sealed.
	Waive(ctx context.Context, q WaiveRequest) (Waiver, error)
	// Verify recomputes a certificate from the data. A certificate that does not
	// hold is no error: it is a Verification that is not OK.
	Verify(ctx context.Context, q VerifyRequest) (Verification, error)
	// Statements writes the bills of a sealed trade date, or returns the run
	// that was made before; with Adjustments, the lines that became due since.
	Statements(ctx context.Context, q StatementsRequest) (StatementRun, error)
	// Explain lists the legs behind one line of a statement.
	Explain(ctx context.Context, q ExplainRequest) (Explanation, error)
	// Trace says where a record is. CodeNotFound: no stream that is there has
	// given out the id.
	Trace(ctx context.Context, q TraceRequest) (Trace, error)
	// Replay puts records through a stream again, each at most once.
	Replay(ctx context.Context, q ReplayRequest) (Replay, error)
	// Crawl makes tables of files that others wrote.
	Crawl(ctx context.Context, q CrawlRequest) (Crawl, error)
	// Flush writes what the streams have acknowledged to their tables now.
	Flush(ctx context.Context) (Flushed, error)
	// PlanMaintenance tells what Maintain would do now.
	PlanMaintenance(ctx context.Context) (MaintainPlan, error)
	// Maintain merges small files and removes what nothing needs, once.
	Maintain(ctx context.Context) (Maintained, error)
	// Backup makes a backup. CodeConflict while another one is being made.
	Backup(ctx context.Context, q BackupRequest) (Backup, error)
	// BackupStatus is how far it is.
	BackupStatus(ctx context.Context) (BackupStatus, error)
}

// Info describes a running server.
type Info struct {
	Version   string    `json:"version"`
	PID       int       `json:"pid"`
	Data      string    `json:"data"` // absolute path of the data directory
	Pack      string    `json:"pack"`
	StartedAt time.Time `json:"started_at"`
	Streams   []Stream  `json:"streams"`
}

// Stream is the progress of one delivery stream, in records since its creation.
type Stream struct {
	Name         string `json:"name"`
	Table        string `json:"table"` // namespace.table
	Acknowledged int64  `json:"acknowledged"`
	Visible      int64  `json:"visible"`   // to SQL
	Committed    int64  `json:"committed"` // in the lake
}

// StatusRequest asks for one trade date ("2006-01-02") or, empty, all.
type StatusRequest struct {
	TradeDate string `json:"trade_date,omitempty"`
}

// Status is the state of trade dates.
type Status struct {
	TradeDates []TradeDateStatus `json:"trade_dates"`
}

// The states of a trade date.
const (
	StateOpen    = "open"    // sources still speak, or have not spoken yet
	StateReady   = "ready"   // a seal would succeed
	StateBlocked = "blocked" // every marker came, and something is wrong
	StateSealed  = "sealed"
)

// TradeDateStatus is one trade date: what is expected, what came, what is
// missing, and when it will be done.
type TradeDateStatus struct {
	TradeDate      string     `json:"trade_date"`
	State          string     `json:"state"`
	Version        int        `json:"version,omitempty"`     // of the seal
	Certificate    string     `json:"certificate,omitempty"` // its SHA-256
	SealedAt       *time.Time `json:"sealed_at,omitempty"`
	ExpectedSealAt *time.Time `json:"expected_seal_at,omitempty"`
	DeadlineAt     time.Time  `json:"deadline_at"`
	// DeadlineState is "met", "expected", "at-risk" or "missed".
	DeadlineState string    `json:"deadline_state"`
	Sources       []Source  `json:"sources"`
	Problems      []Problem `json:"problems,omitempty"`
	Waivers       []Waiver  `json:"waivers,omitempty"`
	// Late counts originals that came after the seal, Corrections the breaks and
	// corrections that did.
	Late        int64 `json:"late,omitempty"`
	Corrections int64 `json:"corrections,omitempty"`
}

// The states of a source on a trade date.
const (
	SourceSilent   = "silent"   // nothing came
	SourceSpeaking = "speaking" // records came, no marker yet
	SourceComplete = "complete"
	SourceDefect   = "defect"
	SourceWaived   = "waived" // defects, all of them waived
)

// Source is the account of one (source, session, epoch) on a trade date.
// Counts are records. Announced is -1 as long as its marker did not come.
type Source struct {
	Source     string `json:"source"`
	Session    string `json:"session,omitempty"`
	Epoch      int64  `json:"epoch,omitempty"`
	Stream     string `json:"stream"`
	Expected   bool   `json:"expected"` // the roster names it
	State      string `json:"state"`
	Announced  int64  `json:"announced"`
	Rows       int64  `json:"rows"`
	Rejected   int64  `json:"rejected"`
	Duplicates int64  `json:"duplicates"` // resends of the feed, whatever their trade date
	Conflicts  int64  `json:"conflicts"`
	Missing    int64  `json:"missing"`
	FirstSeq   int64  `json:"first_seq,omitempty"`
	LastSeq    int64  `json:"last_seq,omitempty"`
}

// The kinds of problems that refuse a seal.
const (
	ProblemSilent     = "silent-source"
	ProblemUnexpected = "unexpected-source" // the roster does not name it
	ProblemMarker     = "marker"            // no end-of-trade-date marker came
	ProblemMarkers    = "marker-conflict"   // two markers say different things
	ProblemGap        = "gap"
	ProblemRejected   = "rejected"
	ProblemConflict   = "conflict"
	ProblemCount      = "count"  // the source announced another number of records
	ProblemTotals     = "totals" // the source announced other totals
	ProblemReference  = "unknown-reference"
)

// Problem is one reason why a trade date cannot be sealed.
type Problem struct {
	Kind     string `json:"kind"`
	Source   string `json:"source"`
	Session  string `json:"session,omitempty"`
	Epoch    int64  `json:"epoch,omitempty"`
	Stream   string `json:"stream,omitempty"`
	FirstSeq int64  `json:"first_seq,omitempty"`
	LastSeq  int64  `json:"last_seq,omitempty"`
	Message  string `json:"message"`
	Remedy   string `json:"remedy"`
	Waived   bool   `json:"waived,omitempty"`
}

// SealRequest closes a trade date.
type SealRequest struct {
	TradeDate string `json:"trade_date"`
	By        string `json:"by"` // who seals
	// Again asks for a new version of a seal that exists; the former is kept.
	Again bool `json:"again,omitempty"`
}

// Seal is a sealed trade date.
type Seal struct {
	TradeDate   string    `json:"trade_date"`
	Version     int       `json:"version"`
	Certificate string    `json:"certificate"` // SHA-256 of the certificate document
	Tag         string    `json:"tag"`         // of the Iceberg tables
	SealedAt    time.Time `json:"sealed_at"`
	Sources     int       `json:"sources"`
	Rows        int64     `json:"rows"`
	Waivers     int       `json:"waivers,omitempty"`
	Existed     bool      `json:"existed,omitempty"` // it was sealed before; nothing was done
	// Differences compares a new version with the former, a line a member.
	Differences []Difference `json:"differences,omitempty"`
}

// Difference is what a re-seal changed for one member.
type Difference struct {
	Member string `json:"member"`
	Legs   int64  `json:"legs"`
	Amount string `json:"amount"` // decimal
}

// WaiveRequest accepts problems. Source is required; Kind, Session, Epoch and
// the range narrow it down. Kind "" waives every kind of problem.
type WaiveRequest struct {
	TradeDate string `json:"trade_date"`
	Kind      string `json:"kind,omitempty"`
	Source    string `json:"source"`
	Session   string `json:"session,omitempty"`
	Epoch     int64  `json:"epoch,omitempty"`
	FirstSeq  int64  `json:"first_seq,omitempty"`
	LastSeq   int64  `json:"last_seq,omitempty"`
	Reason    string `json:"reason"`
	By        string `json:"by"`
	Second    string `json:"second,omitempty"` // a second person, where the configuration asks for one
}

// Waiver is an accepted problem.
type Waiver struct {
	ID       string    `json:"id"`
	WaivedAt time.Time `json:"waived_at"`
	WaiveRequest
}

// VerifyRequest names a certificate; Version 0 is the latest.
type VerifyRequest struct {
	TradeDate string `json:"trade_date"`
	Version   int    `json:"version,omitempty"`
}

// Verification is a certificate recomputed from the data.
type Verification struct {
	TradeDate   string  `json:"trade_date"`
	Version     int     `json:"version"`
	Certificate string  `json:"certificate"`
	OK          bool    `json:"ok"`
	Rows        int64   `json:"rows"`
	Checks      []Check `json:"checks"`
}

// Check is one comparison of a verification.
type Check struct {
	Name string `json:"name"`
	Want string `json:"want"` // as certified
	Have string `json:"have"` // as recomputed
	OK   bool   `json:"ok"`
}

// StatementsRequest asks for the bills of a sealed trade date.
type StatementsRequest struct {
	TradeDate string `json:"trade_date"`
	Version   int    `json:"version,omitempty"` // of the seal; 0 is the latest
	// Adjustments asks for the lines that corrections since the seal make due.
	Adjustments bool `json:"adjustments,omitempty"`
}

// StatementRun is a set of bills, or of adjustments.
type StatementRun struct {
	TradeDate   string       `json:"trade_date"`
	Version     int          `json:"version"`
	Run         string       `json:"run"` // its identity
	Tag         string       `json:"tag"`
	Directory   string       `json:"directory"` // where the files are
	Existed     bool         `json:"existed,omitempty"`
	Statements  []Statement  `json:"statements"`
	Adjustments []Adjustment `json:"adjustments,omitempty"`
	Total       string       `json:"total"` // decimal: charges less rebates
	Lines       int64        `json:"lines"`
	// SHA256 is over the statements' own hashes, in order.
	SHA256 string `json:"sha256"`
}

// Statement is one member's bill.
type Statement struct {
	ID         string `json:"id"`
	Member     string `json:"member"`
	MemberName string `json:"member_name,omitempty"`
	Lines      int64  `json:"lines"`
	Amount     string `json:"amount"` // decimal; negative is a rebate
	File       string `json:"file"`   // path of the document
	SHA256     string `json:"sha256"`
}

// Adjustment is one line that an event after the seal makes due.
type Adjustment struct {
	ID          string `json:"id"`
	Statement   string `json:"statement"` // the sealed bill that it refers to
	Member      string `json:"member"`
	MPID        string `json:"mpid"`
	Charge      string `json:"charge"` // the line of it: charge, fee code, tape, price band
	Cause       string `json:"cause"`  // bust, correct, late
	MatchNumber int64  `json:"match_number"`
	Leg         int64  `json:"leg,omitempty"`
	Amount      string `json:"amount"` // decimal
	Reason      string `json:"reason,omitempty"`
}

// ExplainRequest names a line of a statement, from 1.
type ExplainRequest struct {
	Statement string `json:"statement"`
	Line      int64  `json:"line"`
	Limit     int    `json:"limit,omitempty"` // of legs; 0 is the default of 1,000
}

// Explanation is the legs behind a line. Cells are text; null is nil.
type Explanation struct {
	Statement string      `json:"statement"`
	Line      int64       `json:"line"`
	Charge    string      `json:"charge"` // the line in words
	Amount    string      `json:"amount"`
	Legs      int64       `json:"legs"` // all of them, listed or not
	Columns   []string    `json:"columns"`
	Rows      [][]*string `json:"rows"`
}
