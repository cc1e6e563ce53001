package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// ErrorKind says what went wrong, so that a front door can choose its code.
type ErrorKind uint8

// The kinds of Error.
const (
	Internal       ErrorKind = iota // a bug, ours or DuckDB's
	Syntax                          // the text is no statement
	Catalog                         // a table, function or type does not exist
	Binder                          // a column, a signature or a grouping is wrong
	Conversion                      // a value does not convert
	OutOfRange                      // a value is outside its type
	DivisionByZero                  //
	Constraint                      // a constraint of a temporary table
	Unsupported                     // valid SQL that this engine does not run
	InvalidInput                    // a function's argument is unusable
	OutOfMemory                     // the memory or spill limit was reached
	Interrupted                     // cancelled or past its deadline
	IO                              // a data file could not be read or written
	Busy                            // too many open queries
)

var kindNames = [...]string{"internal error", "syntax error", "catalog error", "binder error", "conversion error", "value out of range",
	"division by zero", "constraint violation", "not supported", "invalid input", "out of memory", "interrupted", "I/O error", "busy"}

func (k ErrorKind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Error is a statement that failed. Message names no file of the lake and no
// internal relation, so that it can be shown to whoever sent the statement.
// Position is the byte offset in the statement's text plus one, or 0 if
// unknown.
type Error struct {
	Kind     ErrorKind
	Message  string
	Position int

	cause error // context.Canceled or DeadlineExceeded for Interrupted
}

func (e *Error) Error() string { return e.Kind.String() + ": " + e.Message }

// Unwrap gives the context's error of an Interrupted statement, so that
// errors.Is tells a deadline from a cancellation.
func (e *Error) Unwrap() error { return e.cause }

// DeniedError is a statement that the allow-list refuses. What names the
// function, table function or construct. Position is as in Error.
type DeniedError struct {
	What     string
	Position int
}

func (e *DeniedError) Error() string { return "permission denied: " + e.What }

// ErrTailMoved is what a TailSource returns when the table's through is older
// than what its tail still holds: the caller reloads the table and retries.
var ErrTailMoved = errors.New("tail has moved past the table's progress")

// ErrClosed is returned by an Engine, Session or Pin after it was closed.
var ErrClosed = errors.New("engine is closed")

func contextError(err error) error {
	m := "the query was cancelled"
	if errors.Is(err, context.DeadlineExceeded) {
		m = "the query ran past its deadline"
	}
	return &Error{Kind: Interrupted, Message: m, cause: err}
}

var duckKinds = map[string]ErrorKind{
	"Parser": Syntax, "Syntax": Syntax, "Catalog": Catalog, "Binder": Binder, "Parameter Not Resolved": Binder, "Planner": Binder, "Expression": Binder,
	"Conversion": Conversion, "Mismatch Type": Conversion, "Invalid type": Conversion, "Decimal": Conversion, "Out of Range": OutOfRange,
	"Divide by Zero": DivisionByZero, "Constraint": Constraint, "Not implemented": Unsupported, "Invalid Input": InvalidInput,
	"Out of Memory": OutOfMemory, "INTERRUPT": Interrupted, "IO": IO, "Permission": Unsupported, "Missing Extension": Unsupported,
	"Extension Autoloading": Unsupported, "Object Size": OutOfRange, "Parameter Not Allowed": Unsupported, "Settings": Unsupported, "Sequence": OutOfRange,
}

// duckMessage is DuckDB's error with errors_as_json set.
type duckMessage struct {
	Type     string `json:"exception_type"`
	Message  string `json:"exception_message"`
	Position string `json:"position"`
}

// duckError maps what DuckDB said about a statement. Its position is in the
// rewritten text: locate maps it to the caller's.
func duckError(ctx context.Context, text string) error {
	var m duckMessage
	if i := strings.IndexByte(text, '{'); i < 0 || json.Unmarshal([]byte(text[i:]), &m) != nil || m.Type == "" {
		if p, rest, ok := strings.Cut(text, ": "); ok {
			m.Type, m.Message = strings.TrimSuffix(p, " Error"), rest
		} else {
			m.Message = text
		}
	}
	kind, known := duckKinds[m.Type]
	if !known {
		kind = Internal
	}
	if kind == Interrupted {
		if err := ctx.Err(); err != nil {
			return contextError(err)
		}
		return contextError(context.Canceled)
	}
	e := &Error{Kind: kind, Message: cleanMessage(m.Message)}
	if strings.Contains(m.Message, divideByZero) {
		e.Kind, e.Message = DivisionByZero, divideByZero
	}
	if strings.Contains(m.Message, decimalOverflow) {
		e.Kind, e.Message = OutOfRange, decimalOverflow
	}
	if n, err := strconv.Atoi(m.Position); err == nil && n >= 0 {
		e.Position = n + 1
	}
	return e
}

var (
	pathRE     = regexp.MustCompile(`(?:[a-z]+://|/|[A-Za-z]:\\)[^\s"',;()\[\]]*[/\\.][^\s"',;()\[\]]*`)
	relationRE = regexp.MustCompile(`"?` + pinSchema + `"?\.?|"?\br_[0-9a-f]{32}\b"?`)
)

// cleanMessage removes paths, internal relations, the echoed line of the
// rewritten text, and anything that names another kind of statement.
func cleanMessage(s string) string {
	if i := strings.Index(s, "\n\nLINE "); i >= 0 {
		s = s[:i]
	}
	if i := strings.Index(s, "\nLINE "); i >= 0 {
		s = s[:i]
	}
	s = pathRE.ReplaceAllString(s, "(a file)")
	s = relationRE.ReplaceAllString(s, "")
	return strings.TrimSpace(s)
}
