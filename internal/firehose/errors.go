package firehose

import (
	"errors"
	"net/http"

	"github.com/tapehouse/tapehouse/internal/awsapi"
)

const (
	codeInvalidArgument = "InvalidArgumentException"
	codeNotFound        = "ResourceNotFoundException"
	codeInUse           = "ResourceInUseException"
	codeLimit           = "LimitExceededException"
	codeConcurrent      = "ConcurrentModificationException"
	codeInvalidKMS      = "InvalidKMSResourceException"
)

// answers maps every decision of Streams to AWS's status and code. The message
// stands where the error has none for the client.
var answers = []struct {
	kind    error
	status  int
	code    string
	message string
}{
	{ErrNotFound, http.StatusBadRequest, codeNotFound, "The delivery stream does not exist."},
	{ErrInUse, http.StatusBadRequest, codeInUse, "The delivery stream is in use."},
	{ErrLimit, http.StatusBadRequest, codeLimit, "A limit is exceeded."},
	{ErrInvalid, http.StatusBadRequest, codeInvalidArgument, "An argument is not valid."},
	{ErrConcurrent, http.StatusBadRequest, codeConcurrent, "Another call changed the delivery stream meanwhile."},
	{ErrThrottled, http.StatusInternalServerError, awsapi.CodeServiceUnavailable, "Slow down."},
	{ErrUnavailable, http.StatusInternalServerError, awsapi.CodeServiceUnavailable, "The service is unavailable. Back off and retry the operation."},
}

// answerTo turns an error of Streams into what the client gets; an error that
// is none of the decisions is returned unchanged and becomes InternalFailure.
func answerTo(err error) error {
	for _, a := range answers {
		if !errors.Is(err, a.kind) {
			continue
		}
		message := a.message
		var r *Refusal
		if errors.As(err, &r) && r.Message != "" {
			message = r.Message
		}
		return &awsapi.Error{Status: a.status, Code: a.code, Message: message}
	}
	return err
}

// invalid is InvalidArgumentException.
func invalid(message string) error { return awsapi.BadRequest(codeInvalidArgument, message) }
