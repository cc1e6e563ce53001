package warehouse

import (
	"context"
	"errors"
	"fmt"
)

// Error is what a client sees: the fields of PostgreSQL's ErrorResponse.
// Position is the 1-based character in the statement that the client sent,
// or 0 where no place in the text is to blame.
type Error struct {
	Code     string // SQLSTATE, five characters
	Severity string // ERROR or FATAL
	Message  string
	Detail   string
	Hint     string
	Position int
	cause    error
}

func (e *Error) Error() string {
	if e.Detail != "" {
		return e.Code + ": " + e.Message + " (" + e.Detail + ")"
	}
	return e.Code + ": " + e.Message
}

// Unwrap returns the error of the layer below, if one is behind this error.
func (e *Error) Unwrap() error { return e.cause }

// The SQLSTATEs that this package answers with. The words are PostgreSQL's.
const (
	codeConnectionLimit        = "53300"
	codeFeatureNotSupported    = "0A000"
	codeNumericOutOfRange      = "22003"
	codeDivisionByZero         = "22012"
	codeInvalidText            = "22P02"
	codeInvalidParameter       = "22023"
	codeInvalidDatetime        = "22007"
	codeNotNullViolation       = "23502"
	codeActiveTransaction      = "25001"
	codeReadOnlyTransaction    = "25006"
	codeNoActiveTransaction    = "25P01"
	codeFailedTransaction      = "25P02"
	codeInvalidStatementName   = "26000"
	codeInvalidCatalogName     = "3D000"
	codeInvalidSchemaName      = "3F000"
	codeSerializationFailure   = "40001"
	codeSyntax                 = "42601"
	codePrivilege              = "42501"
	codeUndefinedColumn        = "42703"
	codeUndefinedFunction      = "42883"
	codeUndefinedTable         = "42P01"
	codeUndefinedObject        = "42704"
	codeAmbiguousColumn        = "42702"
	codeDuplicateColumn        = "42701"
	codeDuplicateTable         = "42P07"
	codeDuplicateSchema        = "42P06"
	codeDuplicateStatement     = "42P05"
	codeGrouping               = "42803"
	codeDatatypeMismatch       = "42804"
	codeInvalidColumnReference = "42P10"
	codeWrongObjectType        = "42809"
	codeUndeterminedType       = "42P18"
	codeUndefinedParameter     = "42P02"
	codeDiskFull               = "53100"
	codeOutOfMemory            = "53200"
	codeLimitExceeded          = "54000"
	codeTooComplex             = "54001"
	codeCannotChangeNow        = "55P02"
	codeQueryCanceled          = "57014"
	codeAdminShutdown          = "57P01"
	codeIO                     = "58030"
	codeInternal               = "XX000"
)

func errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Severity: "ERROR", Message: fmt.Sprintf(format, args...)}
}

func (e *Error) hint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

func (e *Error) detail(format string, args ...any) *Error {
	e.Detail = fmt.Sprintf(format, args...)
	return e
}

func (e *Error) at(position int) *Error {
	e.Position = position
	return e
}

func (e *Error) because(err error) *Error {
	e.cause = err
	return e
}

// unsupported refuses a statement or form by name and says what to do instead.
func unsupported(what, instead string) *Error {
	return errorf(codeFeatureNotSupported, "%s is not supported", what).hint("%s", instead)
}

// asError is the one place where errors of the layers below become SQLSTATEs.
// sql is the client's statement; it locates the identifier to blame.
func asError(err error, sql string) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errorf(codeQueryCanceled, "canceling statement due to statement timeout").
			hint("raise it with SET statement_timeout, or narrow the query by its partition column").because(err)
	case errors.Is(err, context.Canceled):
		return errorf(codeQueryCanceled, "canceling statement due to user request").because(err)
	}
	for _, m := range mappings {
		if e := m(err, sql); e != nil {
			return e.because(err)
		}
	}
	// What no table knows may name files and internals: the log has it.
	return errorf(codeInternal, "internal error").hint("the server's log says more").because(err)
}
