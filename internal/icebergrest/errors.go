package icebergrest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/catalog"
)

// The protocol's names of errors.
const (
	typeAlreadyExists     = "AlreadyExistsException"
	typeBadRequest        = "BadRequestException"
	typeCommitFailed      = "CommitFailedException"
	typeForbidden         = "ForbiddenException"
	typeInternal          = "InternalServerError"
	typeNamespaceNotEmpty = "NamespaceNotEmptyException"
	typeNoSuchNamespace   = "NoSuchNamespaceException"
	typeNoSuchTable       = "NoSuchTableException"
	typeNoSuchWarehouse   = "NoSuchWarehouseException"
	typeNotAuthorized     = "NotAuthorizedException"
	typeNotFound          = "NotFoundException"
	typeStateUnknown      = "CommitStateUnknownException"
	typeUnavailable       = "ServiceUnavailableException"
	typeUnprocessable     = "UnprocessableEntityException"
	typeUnsupported       = "UnsupportedOperationException"
)

// apiError is what a client gets to see.
type apiError struct {
	status  int
	kind    string
	message string
}

func (e *apiError) Error() string { return e.kind + ": " + e.message }

func newError(status int, kind, format string, a ...any) *apiError {
	return &apiError{status, kind, fmt.Sprintf(format, a...)}
}

func badRequest(format string, a ...any) *apiError {
	return newError(http.StatusBadRequest, typeBadRequest, format, a...)
}

func unsupported(format string, a ...any) *apiError {
	return newError(http.StatusNotAcceptable, typeUnsupported, format, a...)
}

func noSuchNamespace(namespace []string) *apiError {
	return newError(http.StatusNotFound, typeNoSuchNamespace, "Namespace %s does not exist", quotedNamespace(namespace))
}

var errBusy = &apiError{http.StatusServiceUnavailable, typeUnavailable, "Too many requests are in progress: try again."}

// errorTable maps the catalog's errors, the first that fits. An empty message is
// the error's own. missing is what ErrNotFound is about where the operation does
// not say.
var errorTable = []struct {
	is     error
	status int
	kind   string
}{
	{catalog.ErrPoisoned, http.StatusInternalServerError, typeStateUnknown},
	{catalog.ErrProtected, http.StatusBadRequest, typeBadRequest},
	{catalog.ErrUnsupported, http.StatusNotAcceptable, typeUnsupported},
	{catalog.ErrInvalid, http.StatusBadRequest, typeBadRequest},
	{catalog.ErrExists, http.StatusConflict, typeAlreadyExists},
	{catalog.ErrConflict, http.StatusConflict, typeCommitFailed},
	{catalog.ErrFenced, http.StatusServiceUnavailable, typeUnavailable},
	{catalog.ErrReadOnly, http.StatusServiceUnavailable, typeUnavailable},
	{catalog.ErrClosed, http.StatusServiceUnavailable, typeUnavailable},
	{context.DeadlineExceeded, http.StatusServiceUnavailable, typeUnavailable},
	{context.Canceled, http.StatusServiceUnavailable, typeUnavailable},
}

// visible returns the form of err that the client gets; internal is true when
// that form hides it.
func visible(err error, missing string) (e *apiError, internal bool) {
	if errors.As(err, &e) {
		return e, false
	}
	var a *auth.Error
	if errors.As(err, &a) {
		return &apiError{http.StatusUnauthorized, typeNotAuthorized, a.Message}, false
	}
	for _, row := range errorTable {
		if errors.Is(err, row.is) {
			return &apiError{row.status, row.kind, err.Error()}, false
		}
	}
	if errors.Is(err, catalog.ErrNotFound) {
		return &apiError{http.StatusNotFound, missing, err.Error()}, false
	}
	return &apiError{http.StatusInternalServerError, typeInternal, "The request failed because of an internal error; the server's log has it under this request's id."}, true
}

// kinds are the errors that a series begins at 0 for, because somebody may be
// woken by them.
var kinds = slices.Clip([]string{typeNotAuthorized, typeForbidden, typeCommitFailed, typeStateUnknown, typeInternal, typeUnavailable})
