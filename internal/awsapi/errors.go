package awsapi

import (
	"encoding/xml"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tapehouse/tapehouse/internal/auth"
)

// Codes that every JSON service answers.
const (
	CodeInternalFailure    = "InternalFailure"
	CodeSerialization      = "SerializationException"
	CodeServiceUnavailable = "ServiceUnavailableException"
	CodeTooLarge           = "RequestEntityTooLargeException"
	CodeUnknownOperation   = "UnknownOperationException"
	CodeUnknownService     = "UnknownServiceException"
	CodeUnsupportedMedia   = "UnsupportedMediaTypeException"
	CodeValidation         = "ValidationException"
)

// Error is what a client gets to see.
type Error struct {
	Status  int
	Code    string
	Message string
}

// Error implements error.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// BadRequest is an Error with status 400.
func BadRequest(code, message string) *Error {
	return &Error{http.StatusBadRequest, code, message}
}

// ErrSlowDown refuses a request because too much is in flight.
var ErrSlowDown = &Error{http.StatusInternalServerError, CodeServiceUnavailable, "Slow down."}

var errInternal = &Error{http.StatusInternalServerError, CodeInternalFailure, "The request processing has failed because of an unknown error, exception or failure."}

// visible returns the form of err that the client gets; internal is true when
// that form hides it.
func visible(err error) (e *Error, internal bool) {
	if errors.As(err, &e) {
		return e, false
	}
	var a *auth.Error
	if errors.As(err, &a) {
		return &Error{http.StatusBadRequest, a.Code, a.Message}, false
	}
	return errInternal, true
}

// AppendString appends s as a JSON string. Invalid UTF-8 becomes U+FFFD.
func AppendString(dst []byte, s string) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c < ' ' || c == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		case c < utf8.RuneSelf:
			dst = append(dst, c)
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
			continue
		}
		i++
	}
	return append(dst, '"')
}

// appendJSONError appends the body of an error in AWS JSON 1.1. Glue spells
// the member "Message", most services "message".
func appendJSONError(dst []byte, e *Error, member string) []byte {
	dst = append(dst, `{"__type":`...)
	dst = AppendString(dst, e.Code)
	dst = append(dst, ',')
	dst = AppendString(dst, member)
	dst = append(dst, ':')
	dst = AppendString(dst, e.Message)
	return append(dst, '}')
}

// appendXMLError appends the body of an error as the query and REST-XML
// protocols have it: a client of such a service would choke on JSON and hide
// the message that says what is served here.
func appendXMLError(dst []byte, e *Error, requestID string) []byte {
	fault := "Sender"
	if e.Status >= http.StatusInternalServerError {
		fault = "Receiver"
	}
	var message strings.Builder
	_ = xml.EscapeText(&message, []byte(e.Message)) // a Builder never fails
	dst = append(dst, "<ErrorResponse><Error><Type>"+fault+"</Type><Code>"+e.Code+"</Code><Message>"...)
	dst = append(dst, message.String()...)
	return append(dst, "</Message></Error><RequestId>"+requestID+"</RequestId></ErrorResponse>"...)
}

func tooLarge(limit int64) *Error {
	return &Error{http.StatusRequestEntityTooLarge, CodeTooLarge, "The request body is larger than the " + strconv.FormatInt(limit, 10) + " bytes that this operation takes."}
}
