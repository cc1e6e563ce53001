package transform

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/tapehouse/tapehouse/internal/record"
)

// Bounds and defaults of the contract over HTTP.
const (
	// DefaultTimeout is how long a call may take, its answer read: Firehose's.
	DefaultTimeout = 5 * time.Minute
	// DefaultRetries is Firehose's NumberOfRetries where none is given.
	DefaultRetries = 3
	// MaxRetries is the largest NumberOfRetries.
	MaxRetries = 300
	// DefaultBatchBytes is Firehose's BufferSizeInMBs where none is given.
	DefaultBatchBytes = 1 << 20
	// MaxBatchBytes is the largest BufferSizeInMBs: as base64 it still fits a call.
	MaxBatchBytes = 3 << 20

	tokenBytesMax  = 8 << 10
	headerBytesMax = 64 << 10
	// Between retries: full jitter below a bound that doubles, so that streams
	// which failed together do not come back together.
	backoffBase = 100 * time.Millisecond
	backoffMax  = 10 * time.Second
)

// HTTPOptions configure NewHTTP.
type HTTPOptions struct {
	// URL is called with POST: a service that takes the contract's body, or a
	// Lambda runtime's invocation path (/2015-03-31/functions/<name>/invocations).
	// It is http or https and carries no credentials.
	URL string
	// TokenFile, if not "", holds a token that is sent as Authorization: Bearer.
	// It is read anew for each call, so that it can be replaced. It needs https,
	// or a URL of this machine.
	TokenFile string

	Stream    record.StreamName // of metrics and log
	StreamARN string            // deliveryStreamArn of the call
	Region    string            // region of the call

	Timeout       time.Duration // of one call; 0 is DefaultTimeout
	Retries       int           // NumberOfRetries, 0 to MaxRetries: calls after the first
	BatchBytesMax int           // 0 is DefaultBatchBytes; at most MaxBatchBytes

	RootCAs *x509.CertPool // who may sign the server's certificate; nil: the system's
	Logger  *slog.Logger   // nil: discard
	Metrics *Metrics       // nil: none
}

// HTTP calls a function over HTTP as Data Firehose calls a Lambda function: a
// call that fails as a whole (no connection, a time-out, a status of 5xx or 429,
// an error instead of records) is made again after a pause; what is wrong with
// an answer that came is not, for it would come again. Redirects are not
// followed, certificates are verified, proxies are not used, and nothing but
// the configured URL is ever called.
type HTTP struct {
	o      HTTPOptions
	call   call
	invoke bool          // URL is a Lambda runtime's
	turn   chan struct{} // of calls to a runtime, which takes one at a time; nil: any number
	client *http.Client
	life   life

	mu    sync.Mutex
	token string // as last read

	pause func(ctx context.Context, retry int) error
}

// invocationPath is that of Lambda's Invoke and of the runtime emulator.
var invocationPath = regexp.MustCompile(`/2015-03-31/functions/[^/]+/invocations$`)

// NewHTTP checks o. It calls nothing: a function may come up later than we do.
// Errors wrap ErrOptions.
func NewHTTP(o HTTPOptions) (*HTTP, error) {
	u, err := url.Parse(o.URL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: the URL %q cannot be read", ErrOptions, o.URL)
	case u.User != nil:
		return nil, fmt.Errorf("%w: the URL carries credentials; put a token into a file and name it", ErrOptions)
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.Fragment != "":
		return nil, fmt.Errorf("%w: the URL %q must be http or https, with a host and no fragment", ErrOptions, o.URL)
	case o.Retries < 0 || o.Retries > MaxRetries:
		return nil, fmt.Errorf("%w: %d retries: want 0 to %d", ErrOptions, o.Retries, MaxRetries)
	case o.Timeout < 0 || o.Timeout > DefaultTimeout:
		return nil, fmt.Errorf("%w: a time-out of %s: want at most %s", ErrOptions, o.Timeout, DefaultTimeout)
	case o.BatchBytesMax < 0 || o.BatchBytesMax > MaxBatchBytes:
		return nil, fmt.Errorf("%w: batches of %d bytes: want at most %d", ErrOptions, o.BatchBytesMax, MaxBatchBytes)
	case o.TokenFile != "" && u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, fmt.Errorf("%w: a token would be sent to %s unencrypted; use https", ErrOptions, u.Host)
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.BatchBytesMax == 0 {
		o.BatchBytesMax = DefaultBatchBytes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	h := &HTTP{o: o, call: call{stream: o.StreamARN, region: o.Region}, invoke: invocationPath.MatchString(u.Path), pause: pause}
	if h.invoke {
		h.turn = make(chan struct{}, 1)
	}
	if o.TokenFile != "" {
		if h.token, err = readToken(o.TokenFile); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrOptions, err)
		}
	}
	h.client = &http.Client{
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
			TLSHandshakeTimeout:    10 * time.Second,
			ForceAttemptHTTP2:      true,
			DisableCompression:     true, // an answer's size is what it is on the wire
			MaxResponseHeaderBytes: headerBytesMax,
			MaxIdleConnsPerHost:    8,
			IdleConnTimeout:        90 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	o.Metrics.open(o.Stream)
	return h, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// readToken reads a bearer token (RFC 6750): one word of visible characters.
func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("open token file: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(f, tokenBytesMax+1))
	if err != nil {
		return "", fmt.Errorf("read token file: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" || len(b) > tokenBytesMax || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("token file %s: want one word of visible ASCII characters, at most %d bytes", path, tokenBytesMax)
	}
	return token, nil
}

// bearer is the token to send. A file that cannot be read while it is replaced
// leaves the last one.
func (h *HTTP) bearer() string {
	if h.o.TokenFile == "" {
		return ""
	}
	token, err := readToken(h.o.TokenFile)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.o.Logger.Warn("transform token was not read; the last one is used", "stream", h.o.Stream, "error", err)
		return h.token
	}
	h.token = token
	return token
}

// BatchBytesMax is as the Transformer's.
func (h *HTTP) BatchBytesMax() int { return h.o.BatchBytesMax }

// Close ends the calls that run and waits for them.
func (h *HTTP) Close() error {
	h.life.end()
	h.client.CloseIdleConnections()
	return nil
}

// Apply is as the Transformer's. Small records that together exceed a call's
// size as JSON are sent in several calls, one after the other.
func (h *HTTP) Apply(ctx context.Context, records []Record) ([]Result, error) {
	ctx, leave, err := h.life.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if h.turn != nil {
		select {
		case h.turn <- struct{}{}:
			defer func() { <-h.turn }()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	ids := make(map[string]struct{}, len(records))
	for i := range records {
		ids[records[i].ID] = struct{}{}
	}
	if len(ids) != len(records) {
		return nil, errDuplicateID
	}
	results := make([]Result, len(records))
	for from := 0; from < len(records); {
		n := h.call.cut(records[from:])
		if n == 0 {
			results[from] = Result{Kind: Failed, Code: FunctionError, Message: fmt.Sprintf("the record's %d bytes are more than a function can be called with", len(records[from].Data))}
			from++
			continue
		}
		if err := h.batch(ctx, records[from:from+n], results[from:from+n]); err != nil {
			return nil, err
		}
		from += n
	}
	h.o.Metrics.done(h.o.Stream, results)
	return results, nil
}

// callError is a call that failed as a whole.
type callError struct {
	message   string
	permanent bool // another call would end alike
}

// batch makes one call, and again as often as the retries allow.
func (h *HTTP) batch(ctx context.Context, records []Record, results []Result) error {
	body := h.call.body(records)
	for attempt := 1; ; attempt++ {
		start := time.Now()
		failure := h.once(ctx, body, records, results)
		if err := context.Cause(ctx); err != nil {
			return err // whatever the call came to
		}
		h.o.Metrics.called(h.o.Stream, start, failure == nil)
		if failure == nil {
			for i := range results {
				results[i].Attempts = attempt
			}
			return nil
		}
		if failure.permanent || attempt > h.o.Retries {
			h.o.Logger.Warn("transform function failed; its records go to the error output", "stream", h.o.Stream, "records", len(records), "attempts", attempt, "error", failure.message)
			for i := range results {
				results[i] = Result{Kind: Failed, Code: FunctionError, Message: failure.message, Attempts: attempt}
			}
			return nil
		}
		if err := h.pause(ctx, attempt); err != nil {
			return err
		}
	}
}

// pause waits before the retry with the number retry, from 1.
func pause(ctx context.Context, retry int) error {
	t := time.NewTimer(time.Duration(rand.Int64N(int64(pauseMax(retry)))))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func pauseMax(retry int) time.Duration {
	return min(backoffMax, backoffBase<<min(retry-1, 10))
}

// once makes one call.
func (h *HTTP) once(ctx context.Context, body []byte, records []Record, results []Result) *callError {
	ctx, cancel := context.WithTimeout(ctx, h.o.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.o.URL, bytes.NewReader(body))
	if err != nil {
		return &callError{message: "the request cannot be made: " + err.Error(), permanent: true}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "tapehouse")
	if h.invoke {
		req.Header.Set("X-Amz-Invocation-Type", "RequestResponse")
	}
	if t := h.bearer(); t != "" {
		req.Header.Set("Authorization", "Bearer "+t)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return h.transportError(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	answer, err := readAnswer(resp)
	if err != nil {
		return h.transportError(ctx, err)
	}
	if failure := h.status(resp, answer); failure != nil {
		return failure
	}
	strays, said := decodeAnswer(answer, records, results)
	if said != nil {
		return &callError{message: "the function failed: " + said.String()}
	}
	if strays > 0 {
		h.o.Metrics.stray(h.o.Stream, strays)
		h.o.Logger.Warn("transform answer holds records that were not sent; they are ignored", "stream", h.o.Stream, "records", strays)
	}
	return nil
}

var errAnswerTooLarge = fmt.Errorf("the answer is larger than %d bytes", callBytesMax)

// readAnswer reads a bounded body.
func readAnswer(resp *http.Response) ([]byte, error) {
	if e := resp.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, fmt.Errorf("the answer is encoded as %s, which was not asked for", shown(e))
	}
	if resp.ContentLength > callBytesMax {
		return nil, errAnswerTooLarge
	}
	var b bytes.Buffer
	if resp.ContentLength > 0 {
		b.Grow(int(resp.ContentLength) + bytes.MinRead)
	}
	if _, err := b.ReadFrom(io.LimitReader(resp.Body, callBytesMax+1)); err != nil {
		return nil, err
	}
	if b.Len() > callBytesMax {
		return nil, errAnswerTooLarge
	}
	return b.Bytes(), nil
}

// transportError is a call without an answer. The URL is left out: messages
// reach the error output.
func (h *HTTP) transportError(ctx context.Context, err error) *callError {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &callError{message: fmt.Sprintf("the function did not answer within %s", h.o.Timeout)}
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return &callError{message: "the call failed: " + err.Error()}
}

// status is the failure that the answer's status, headers or, where a runtime
// says it in plain text, body tell; nil if the answer is to be decoded.
func (h *HTTP) status(resp *http.Response, answer []byte) *callError {
	detail := func() string {
		if _, said := decodeAnswer(answer, nil, nil); said != nil {
			return ": " + said.String()
		}
		return ""
	}
	code := resp.StatusCode
	switch {
	case code >= 200 && code < 300:
	case code >= 300 && code < 400:
		return &callError{message: fmt.Sprintf("the function answered %d, and redirects are not followed: configure the URL that it leads to", code), permanent: true}
	default:
		again := code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code == http.StatusTooEarly
		// The runtime emulator's answer when another call has it.
		again = again || h.invoke && code == http.StatusBadRequest && len(answer) == 0
		return &callError{message: fmt.Sprintf("the function answered %d %s%s", code, http.StatusText(code), detail()), permanent: !again}
	}
	if kind := resp.Header.Get("X-Amz-Function-Error"); kind != "" {
		return &callError{message: "the function failed (" + shown(kind) + ")" + detail()}
	}
	// The runtime emulator's answer when a function runs out of its own time.
	if h.invoke && bytes.HasPrefix(answer, []byte("Task timed out after ")) {
		return &callError{message: "the function failed: " + shown(string(answer))}
	}
	return nil
}
