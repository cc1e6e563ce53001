package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Code says what kind of error an answer is.
type Code string

// The codes.
const (
	CodeInvalid      Code = "invalid"      // the request makes no sense
	CodeUnauthorized Code = "unauthorized" // no, or wrong, credentials
	CodeForbidden    Code = "forbidden"    // the user may not do this
	CodeNotFound     Code = "not-found"
	CodeRefused      Code = "refused"     // the trade date is not complete
	CodeConflict     Code = "conflict"    // the state does not allow it: not sealed, sealed already
	CodeUnavailable  Code = "unavailable" // not ready, or going down
	CodeCanceled     Code = "canceled"    // the client went away
	CodeInternal     Code = "internal"
)

// statusOf is the HTTP status of each code.
var statusOf = map[Code]int{
	CodeInvalid:      http.StatusBadRequest,
	CodeUnauthorized: http.StatusUnauthorized,
	CodeForbidden:    http.StatusForbidden,
	CodeNotFound:     http.StatusNotFound,
	CodeRefused:      http.StatusUnprocessableEntity,
	CodeConflict:     http.StatusConflict,
	CodeUnavailable:  http.StatusServiceUnavailable,
	CodeCanceled:     499, // nobody reads it
	CodeInternal:     http.StatusInternalServerError,
}

// Error is an error of the API, as a Backend returns it and as Client does.
type Error struct {
	Code     Code      `json:"code"`
	Message  string    `json:"message"`
	Remedy   string    `json:"remedy,omitempty"`
	Problems []Problem `json:"problems,omitempty"` // of CodeRefused
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Errorf returns an *Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// IsCode reports whether err is, or wraps, an *Error of that code.
func IsCode(err error, code Code) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// errorOf finds the *Error in err, or makes one.
func errorOf(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.Canceled):
		return &Error{Code: CodeCanceled, Message: err.Error()}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: CodeUnavailable, Message: err.Error()}
	default:
		return &Error{Code: CodeInternal, Message: err.Error()}
	}
}
