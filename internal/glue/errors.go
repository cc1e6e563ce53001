package glue

import (
	"errors"
	"net/http"

	"github.com/tapehouse/tapehouse/internal/awsapi"
	"github.com/tapehouse/tapehouse/internal/catalog"
)

const (
	codeNotFound    = "EntityNotFoundException"
	codeExists      = "AlreadyExistsException"
	codeInvalid     = "InvalidInputException"
	codeConcurrent  = "ConcurrentModificationException"
	codeLimit       = "ResourceNumberLimitExceededException"
	codeUnsupported = "OperationNotSupportedException"
	codeInternal    = "InternalServiceException"
)

// answers maps every decision of the catalog to AWS's status and code. "" as the
// message is the error's own text.
var answers = []struct {
	kind    error
	status  int
	code    string
	message string
}{
	{catalog.ErrNotFound, http.StatusBadRequest, codeNotFound, "Entity Not Found"},
	{catalog.ErrExists, http.StatusBadRequest, codeExists, "The entity exists already."},
	{catalog.ErrConflict, http.StatusBadRequest, codeConcurrent, ""},
	{catalog.ErrInvalid, http.StatusBadRequest, codeInvalid, ""},
	{catalog.ErrUnsupported, http.StatusBadRequest, codeInvalid, ""},
	{catalog.ErrFenced, http.StatusInternalServerError, codeInternal, "Another process has taken the catalog: this one serves no more changes."},
	{catalog.ErrPoisoned, http.StatusInternalServerError, codeInternal, "The outcome of an earlier change is not known. Back off and retry the operation."},
	{catalog.ErrClosed, http.StatusInternalServerError, codeInternal, "The service is stopping. Back off and retry the operation."},
}

// answerTo turns an error of the catalog into what the client gets; an error that
// is none of its decisions is returned unchanged and becomes InternalFailure.
func answerTo(err error) error {
	var needed *NeededError
	if errors.As(err, &needed) {
		return invalid(needed.Error())
	}
	var own *awsapi.Error
	if err == nil || errors.As(err, &own) {
		return err
	}
	for _, a := range answers {
		if errors.Is(err, a.kind) {
			message := a.message
			if message == "" {
				message = err.Error()
			}
			return &awsapi.Error{Status: a.status, Code: a.code, Message: message}
		}
	}
	return err
}

// invalid is InvalidInputException.
func invalid(message string) error { return awsapi.BadRequest(codeInvalid, message) }

func notFound(message string) error { return awsapi.BadRequest(codeNotFound, message) }

func concurrent(message string) error { return awsapi.BadRequest(codeConcurrent, message) }

// errorDetail is an error within an answer that is none as a whole.
type errorDetail struct {
	ErrorCode    string
	ErrorMessage string
}

// detailOf is the form of an error within an answer; false if the whole operation
// must fail with it.
func detailOf(err error) (errorDetail, bool) {
	var e *awsapi.Error
	if !errors.As(answerTo(err), &e) || e.Status != http.StatusBadRequest {
		return errorDetail{}, false
	}
	return errorDetail{e.Code, e.Message}, true
}
