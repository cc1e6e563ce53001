package lake

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
)

// transferBytesPerSecond is the least speed at which a body may come: an
// attempt's time-out grows by a second for so many bytes.
const transferBytesPerSecond = 1 << 20

// ErrShut is the end of a request of a store that was shut.
var ErrShut = errors.New("the store was shut")

// Shut ends all requests, now and from now on. It is for a process that has to
// stop and whose service does not answer: what a request was to do may yet be
// done.
func (s *S3) Shut() { s.shut() }

// backoff is the wait between attempts: exponential, with full jitter.
type backoff struct{ first, most time.Duration }

// wait is a random time below first·2ⁿ and most; n counts from 0.
func (b backoff) wait(n int) time.Duration {
	most := b.most
	if n < 30 {
		most = min(most, b.first<<n)
	}
	return rand.N(most) + 1
}

// request makes attempts until one succeeds, is refused for good, or Attempts
// of them have failed; then it returns the last error. sizeBytes is what an
// attempt carries at most. An attempt that failed may have been carried out.
func (s *S3) request(ctx context.Context, operation string, sizeBytes int64, attempt func(context.Context) error) error {
	timeout := s.o.AttemptTimeout + time.Duration(sizeBytes/transferBytesPerSecond)*time.Second
	for n := 0; ; n++ {
		started := time.Now()
		actx, cancel := context.WithTimeout(ctx, timeout)
		forget := context.AfterFunc(s.life, cancel)
		err := attempt(actx)
		timedOut := errors.Is(actx.Err(), context.DeadlineExceeded)
		forget()
		cancel()
		s.metrics.attempted(operation, time.Since(started), err)
		switch {
		case err == nil:
			return nil
		case s.life.Err() != nil:
			return permanentError{fmt.Errorf("%s: %w: %w", operation, ErrShut, err)}
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w", operation, errors.Join(context.Cause(ctx), err))
		case !retryable(err):
			return err
		}
		if timedOut {
			err = fmt.Errorf("no answer within %s: %w", timeout, err)
		}
		if n+1 >= s.o.Attempts {
			return fmt.Errorf("%d attempts: %w", n+1, err)
		}
		wait := s.backoff.wait(n)
		s.o.Logger.Debug("S3 request failed, will be tried again", "operation", operation, "attempt", n+1, "wait", wait, "error", err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", operation, errors.Join(context.Cause(ctx), err))
		case <-s.life.Done():
			return permanentError{fmt.Errorf("%s: %w: %w", operation, ErrShut, err)}
		case <-time.After(wait):
		}
	}
}

// permanentError is a failure that no further attempt mends.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

// keyError is the failure of one key of a batch.
type keyError struct{ code, message, key string }

func (e *keyError) Error() string { return fmt.Sprintf("%s: %s: %s", e.key, e.code, e.message) }

// transientCodes are refusals that pass, whatever their status: the service is
// busy, or the request was damaged on its way.
var transientCodes = map[string]bool{
	"SlowDown": true, "ServiceUnavailable": true, "InternalError": true, "InternalFailure": true, "Throttling": true,
	"ThrottlingException": true, "RequestThrottled": true, "TooManyRequests": true, "RequestTimeout": true, "RequestTimeoutException": true,
	"OperationAborted": true, "ConditionalRequestConflict": true, "PriorRequestNotComplete": true,
	"BadDigest": true, "XAmzContentSHA256Mismatch": true, "XAmzContentChecksumMismatch": true, "InvalidDigest": true, "IncompleteBody": true,
	"RequestTimeTooSkewed": true, "ExpiredToken": true,
}

// retryable reports whether a further attempt may succeed. What is no answer of
// the service is a failure of the way there or back.
func retryable(err error) bool {
	var permanent permanentError
	if errors.As(err, &permanent) {
		return false
	}
	var key *keyError
	if errors.As(err, &key) {
		return transientCodes[key.code]
	}
	var api smithy.APIError
	if errors.As(err, &api) && transientCodes[api.ErrorCode()] {
		return true
	}
	switch status := statusOf(err); {
	case status == 0:
		return true
	case status == http.StatusNotImplemented:
		return false
	case status >= 500, status == http.StatusTooManyRequests, status == http.StatusRequestTimeout:
		return true
	case status < 400: // the answer's head says that it went well; its body did not come
		return true
	}
	return false
}

// statusOf is the status of the service's answer, or 0 without one.
func statusOf(err error) int {
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) && answer.Response != nil {
		return answer.HTTPStatusCode()
	}
	return 0
}

func codeOf(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// isTaken reports that If-None-Match did not hold.
func isTaken(err error) bool { return statusOf(err) == http.StatusPreconditionFailed }

// isMissing reports that the key does not exist. HEAD's answers have no code.
func isMissing(err error) bool {
	if statusOf(err) != http.StatusNotFound {
		return false
	}
	switch codeOf(err) {
	case "NoSuchBucket", "NoSuchUpload":
		return false
	}
	return true
}

// InParallel calls fn for 0 … n−1, at most width at a time, until one fails; it
// returns the first error when all have ended.
func InParallel(ctx context.Context, width, n int, fn func(ctx context.Context, i int) error) error {
	if n == 1 {
		return fn(ctx, 0)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, width)
	var wg sync.WaitGroup
	for i := range n {
		select {
		case <-ctx.Done():
		case slots <- struct{}{}:
		}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := fn(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
