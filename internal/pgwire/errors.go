package pgwire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgproto3"
)

// The SQLSTATEs that this package itself raises (PostgreSQL manual, appendix A).
const (
	codeProtocolViolation    = "08P01"
	codeConnectionFailure    = "08006"
	codeFeatureNotSupported  = "0A000"
	codeInvalidAuthorization = "28000"
	codeInvalidPassword      = "28P01"
	codeInvalidStatementName = "26000"
	codeInvalidCursorName    = "34000"
	codeDuplicateCursor      = "42P03"
	codeDuplicateStatement   = "42P05"
	codeUndefinedFunction    = "42883"
	codeUndefinedParameter   = "42P02"
	codeDatatypeMismatch     = "42804"
	codeNotInPrerequisite    = "55000"
	codeNumericOutOfRange    = "22003"
	codeInvalidDatetime      = "22007"
	codeDatetimeOverflow     = "22008"
	codeInvalidParameter     = "22023"
	codeCharacterRepertoire  = "22021"
	codeInvalidText          = "22P02"
	codeInvalidBinary        = "22P03"
	codeBadCopyFormat        = "22P04"
	codeTooManyConnections   = "53300"
	codeLimitExceeded        = "54000"
	codeCannotConnectNow     = "57P03"
	codeQueryCanceled        = "57014"
	codeAdminShutdown        = "57P01"
	codeIdleTimeout          = "57P05"
	codeIdleInTransaction    = "25P03"
	codeInternal             = "XX000"
)

// An Error is what the client is told: the fields of ErrorResponse.
type Error struct {
	Severity string // ERROR (default) or FATAL, which ends the connection
	Code     string // SQLSTATE
	Message  string
	Detail   string
	Hint     string
	Where    string // context: where in COPY data
	Position int    // 1-based character in the statement; 0: none
}

func (e *Error) Error() string { return e.Message + " (SQLSTATE " + e.Code + ")" }

// SQLState returns the five-character code.
func (e *Error) SQLState() string { return e.Code }

// ErrorFields implements [StatementError].
func (e *Error) ErrorFields() (severity, message, detail, hint string, position int) {
	return e.Severity, e.Message, e.Detail, e.Hint, e.Position
}

// A StatementError is an error that is meant for the client. It has plain types
// only, so that other layers can meet it without importing this package.
type StatementError interface {
	error
	SQLState() string
	ErrorFields() (severity, message, detail, hint string, position int)
}

func errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func fatalf(code, format string, args ...any) *Error {
	return &Error{Severity: severityFatal, Code: code, Message: fmt.Sprintf(format, args...)}
}

const (
	severityError = "ERROR"
	severityFatal = "FATAL"
)

// Causes with which contexts of statements and connections are cancelled.
var (
	causeCancelRequest = errorf(codeQueryCanceled, "canceling statement due to user request")
	causeClientGone    = fatalf(codeConnectionFailure, "connection to client lost")
	causeShutdown      = &Error{Severity: severityFatal, Code: codeAdminShutdown,
		Message: "terminating connection due to administrator command"}
)

// A socketError marks an error of the connection itself: nobody is left to be told.
type socketError struct {
	op  string
	err error
}

func (e *socketError) Error() string { return e.op + " client: " + e.err.Error() }
func (e *socketError) Unwrap() error { return e.err }

// codesOf maps the errors of the standard library that may surface from a
// session to what the client is told.
var codesOf = []struct {
	is      error
	code    string
	message string
}{
	{context.DeadlineExceeded, codeQueryCanceled, "canceling statement due to statement timeout"},
	{context.Canceled, codeQueryCanceled, "canceling statement due to user request"},
	{io.ErrUnexpectedEOF, codeConnectionFailure, "unexpected end of data"},
}

// describe turns any error into what the client is told; internal is true where
// the error's own text is withheld and should be logged.
func describe(err error) (e *Error, internal bool) {
	if errors.As(err, &e) {
		return e, false
	}
	var se StatementError
	if errors.As(err, &se) {
		e = &Error{Code: se.SQLState()}
		e.Severity, e.Message, e.Detail, e.Hint, e.Position = se.ErrorFields()
		if !validSQLState(e.Code) {
			e.Code = codeInternal
		}
		return e, false
	}
	for _, c := range codesOf {
		if errors.Is(err, c.is) {
			return &Error{Code: c.code, Message: c.message}, false
		}
	}
	return &Error{Code: codeInternal, Message: "internal error"}, true
}

func validSQLState(code string) bool {
	if len(code) != 5 {
		return false
	}
	for i := range 5 {
		if c := code[i]; (c < '0' || c > '9') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

// response is the message for e.
func (e *Error) response() *pgproto3.ErrorResponse {
	severity := e.Severity
	if severity == "" {
		severity = severityError
	}
	position := int32(0)
	if e.Position > 0 && e.Position < 1<<30 {
		position = int32(e.Position)
	}
	return &pgproto3.ErrorResponse{
		Severity: severity, SeverityUnlocalized: severity, Code: e.Code,
		Message: wireText(e.Message), Detail: wireText(e.Detail), Hint: wireText(e.Hint), Where: wireText(e.Where), Position: position,
	}
}

func (n Notice) response() *pgproto3.NoticeResponse {
	severity, code := n.Severity, n.Code
	if severity == "" {
		severity = "NOTICE"
	}
	if code == "" {
		if code = "00000"; severity == "WARNING" {
			code = "01000"
		}
	}
	return &pgproto3.NoticeResponse{
		Severity: severity, SeverityUnlocalized: severity, Code: code,
		Message: wireText(n.Message), Detail: wireText(n.Detail), Hint: wireText(n.Hint),
	}
}

// wireText makes s fit for a zero-terminated UTF-8 field of bounded length.
func wireText(s string) string {
	const sizeBytesMax = 8 << 10 // a statement quoted whole in an error helps nobody
	if len(s) > sizeBytesMax {
		s = s[:sizeBytesMax] + "…"
	}
	clean := true
	for i := 0; i < len(s); i++ {
		if s[i] == 0 || s[i] >= utf8.RuneSelf {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if r == 0 {
			r = utf8.RuneError
		}
		b = utf8.AppendRune(b, r)
	}
	return string(b)
}
