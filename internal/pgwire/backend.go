package pgwire

import (
	"context"
)

// A Backend makes sessions; the server wires it to the warehouse.
type Backend interface {
	// NewSession opens a session for a user who has proved who he is. An error
	// refuses the connection (for instance 3D000 for an unknown database). ctx
	// lives as long as the connection.
	NewSession(ctx context.Context, o SessionOptions) (Session, error)
}

// SessionOptions describes the connection that a session is for.
type SessionOptions struct {
	User            string
	Database        string // the user's name where the client names none
	ApplicationName string
	RemoteAddr      string
	ProcessID       uint32 // what pg_backend_pid() should answer
	// Parameters are run-time settings asked for at startup, from the startup
	// packet and from its "options" (-c name=value); names as the client wrote
	// them. The session refuses or ignores those it does not know.
	Parameters map[string]string
	// Deallocate drops a statement that was prepared by protocol message, and
	// reports whether there was one; "" drops all. It may be called only from
	// within the session's methods, for DEALLOCATE and DISCARD ALL.
	Deallocate func(name string) bool
}

// A Session executes one connection's statements. Its methods are called by
// one goroutine at a time. Errors that a client should understand implement
// [StatementError] or are an [*Error]; all others reach the client as XX000
// without their text.
//
// After an error the connection calls SyncPoint with ok false, whoever raised
// it; the session then rolls back an implicit transaction and marks an explicit
// one failed, in which state it refuses everything but its end with 25P02.
type Session interface {
	// Split cuts the text of a simple query into statements; empty ones are
	// left out. The pieces are substrings of sql, in order.
	Split(sql string) ([]string, error)
	// Prepare analyses one statement. paramOIDs holds the parameter types that
	// the client names, 0 for unknown; it may be shorter than the number of
	// parameters.
	Prepare(ctx context.Context, sql string, paramOIDs []uint32) (*Statement, error)
	// Execute runs a statement that is not COPY FROM STDIN. args has one value
	// of the kinds listed at [DecodeParameter] for each parameter. The Result
	// lives until its Close and under ctx until then; several may be open at
	// once (suspended portals), also across Execute calls of others.
	Execute(ctx context.Context, st *Statement, args []any) (Result, error)
	// CopyIn runs a COPY FROM STDIN, taking its rows from rows, and returns
	// the command tag ("COPY 5").
	CopyIn(ctx context.Context, st *Statement, rows RowReader) (tag string, err error)
	// SyncPoint ends the implicit transaction, if one is open: commit when ok,
	// else roll back. Within an explicit transaction ok does nothing and !ok
	// marks it failed. It may be called when nothing is open.
	SyncPoint(ctx context.Context, ok bool) error
	// Status is 'I' outside a transaction, 'T' within and 'E' in a failed one.
	Status() byte
	// Parameters holds the current run-time parameters by canonical name; those
	// that PostgreSQL reports are reported when they change. DateStyle,
	// IntervalStyle and TimeZone choose the text form of times. The map is
	// read before the next call of a method and not kept.
	Parameters() map[string]string
	// TakeNotices returns the notices since the last call.
	TakeNotices() []Notice
	Close() error
}

// A RowReader yields the rows of COPY FROM STDIN.
type RowReader interface {
	// Next fills dst, which has one element for each of Copy.Columns, with
	// values of the kinds listed at [DecodeParameter], and returns io.EOF after
	// the last row. The values are the caller's to keep.
	Next(dst []any) error
}

// A Result is what a statement yields. Its methods are called by one goroutine
// at a time.
type Result interface {
	Columns() []Column // empty: the statement yields no rows
	// Next fills dst, one element per column, with values of the kinds listed
	// at [AppendText]; io.EOF after the last row. A []byte is valid until the
	// next call.
	Next(dst []any) error
	// Tag is the command tag, final after io.EOF: "SELECT 5", "CREATE TABLE".
	Tag() string
	Close() error
}

// A Column is one column of a result, as RowDescription tells it.
type Column struct {
	Name     string
	OID      uint32
	Modifier int32 // of the type, e.g. precision and scale; 0 and -1: none
	Size     int16 // of the type; 0: as the type has it
}

// A Statement is an analysed statement.
type Statement struct {
	ParamOIDs []uint32 // one per parameter, none 0
	Columns   []Column // empty: it yields no rows
	Copy      *Copy    // it is COPY … STDIN or STDOUT
	Empty     bool     // nothing but white space and comments
	// Handle is the session's own. If it is an io.Closer it is closed when the
	// statement is dropped, at the latest before the session is closed.
	Handle any
}

// A CopyFormat is a format of COPY data.
type CopyFormat uint8

// The formats of COPY.
const (
	CopyText CopyFormat = iota
	CopyCSV
	CopyBinary
)

// Copy describes a COPY statement to the framing. The rows of COPY TO STDOUT
// are the statement's Result; those of COPY FROM STDIN go to Session.CopyIn.
type Copy struct {
	In        bool // FROM STDIN; else TO STDOUT
	Format    CopyFormat
	Delimiter byte    // 0: tab for text, comma for CSV
	Null      *string // nil: \N for text, empty for CSV
	Quote     byte    // CSV; 0: "
	Escape    byte    // CSV; 0: as Quote
	Header    bool    // first line holds the column names
	// MatchHeader refuses an input whose header differs from the columns.
	MatchHeader  bool
	ForceQuote   []bool // CSV out, per column: quote all but NULL
	ForceNotNull []bool // CSV in, per column: nothing matches Null
	ForceNull    []bool // CSV in, per column: a quoted Null is NULL too
	Columns      []Column
}

// A Notice is a message that accompanies a result.
type Notice struct {
	Severity string // NOTICE (default), WARNING, INFO, LOG, DEBUG
	Code     string // SQLSTATE; 00000 by default, 01000 for a warning
	Message  string
	Detail   string
	Hint     string
}
