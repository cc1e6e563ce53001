package producer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapehouse/tapehouse/internal/auth"
)

const (
	targetPrefix = "Firehose_20150804."

	// answerBytesMax bounds what is read of an answer; the largest, to 500
	// records, has 50 KB.
	answerBytesMax = 1 << 20

	backoffFirst = 50 * time.Millisecond
	backoffMax   = 5 * time.Second
)

// Config says where to put and as whom. Endpoint, AccessKey and Secret are
// required.
type Config struct {
	Endpoint  string // http://127.0.0.1:4566
	Region    string // us-east-1 if empty
	AccessKey string
	Secret    string

	Connections int           // kept open, and so the useful number of concurrent puts; 32 if 0
	Timeout     time.Duration // of one attempt; 30 s if 0
	RetryFor    time.Duration // how long a call is tried without any progress; 2 min if 0
}

// Client calls the Firehose API. It is safe for concurrent use.
type Client struct {
	config  Config
	url     *url.URL
	signer  *auth.Signer
	http    *http.Client
	batches sync.Pool
	answers sync.Pool

	requests atomic.Int64
	retries  atomic.Int64
}

// New returns a client.
func New(c Config) (*Client, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("endpoint %q: want http://host:port or https://host", c.Endpoint)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("endpoint %q: want no user, query or fragment", u.Redacted())
	}
	if c.AccessKey == "" || c.Secret == "" {
		return nil, errors.New("an access key and its secret are required")
	}
	if u.Path == "" {
		u.Path = "/"
	}
	if c.Region == "" {
		c.Region = "us-east-1"
	}
	if c.Connections == 0 {
		c.Connections = 32
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.RetryFor == 0 {
		c.RetryFor = 2 * time.Minute
	}
	return &Client{
		config: c,
		url:    u,
		signer: auth.NewSigner(auth.AccessKey{ID: c.AccessKey, Secret: c.Secret}, c.Region, "firehose"),
		http: &http.Client{
			Transport: newTransport(u, c.Connections),
			// The signature is for this host: a redirect could not be followed.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		batches: sync.Pool{New: func() any { return &batch{} }},
		answers: sync.Pool{New: func() any { return new(bytes.Buffer) }},
	}, nil
}

// newTransport returns how requests to u travel.
func newTransport(u *url.URL, connections int) http.RoundTripper {
	dialer := net.Dialer{Timeout: 30 * time.Second}
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u}); u.Scheme == "http" && proxy == nil && err == nil {
		return &direct{dialer: dialer, idleMax: connections}
	}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		MaxIdleConns:        connections,
		MaxIdleConnsPerHost: connections,
		IdleConnTimeout:     90 * time.Second,
		TLSHandshakeTimeout: 10 * time.Second,
		DisableCompression:  true,
		DialContext:         dialer.DialContext,
		ReadBufferSize:      readBufferBytes,
	}
}

// Close closes the connections that are idle.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Requests returns how many requests were sent, and how many of them were
// sent again.
func (c *Client) Requests() (sent, retried int64) { return c.requests.Load(), c.retries.Load() }

// APIError is an error that the service answered.
type APIError struct {
	Operation string
	Status    int
	Code      string
	Message   string
	RequestID string
}

// Error implements error.
func (e *APIError) Error() string {
	return fmt.Sprintf("%s: %s: %s (status %d, request %s)", e.Operation, e.Code, e.Message, e.Status, e.RequestID)
}

// retryable reports whether the same call may succeed later.
func (e *APIError) retryable() bool {
	if e.Status >= http.StatusInternalServerError || e.Status == http.StatusTooManyRequests || e.Status == http.StatusRequestTimeout {
		return true
	}
	switch e.Code {
	case "ServiceUnavailableException", "ThrottlingException", "RequestTimeout", "RequestTimeoutException":
		return true
	}
	return false
}

// IsCode reports whether err is an answer of the service with that code, as
// "ResourceNotFoundException".
func IsCode(err error, code string) bool {
	var e *APIError
	return errors.As(err, &e) && e.Code == code
}

// Call runs one operation, retrying what may be retried, and decodes its
// answer into out, which may be nil.
func (c *Client) Call(ctx context.Context, operation string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("%s: encode: %w", operation, err)
	}
	answer := c.answers.Get().(*bytes.Buffer)
	defer c.answers.Put(answer)
	b := newBackoff(c.config.RetryFor)
	for {
		err := c.attempt(ctx, operation, body, answer)
		if err == nil {
			break
		}
		if err := c.again(ctx, b, err); err != nil {
			return err
		}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer.Bytes(), out); err != nil {
		return fmt.Errorf("%s: decode the answer: %w", operation, err)
	}
	return nil
}

// attempt sends one request and reads its answer to the end. An error that is
// no *APIError means that the outcome is unknown.
func (c *Client) attempt(ctx context.Context, operation string, body []byte, answer *bytes.Buffer) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	sent := &requestBody{bytes: body, closed: make(chan struct{})}
	sent.Reset(body)
	r := (&http.Request{
		Method: http.MethodPost, URL: c.url, Host: c.url.Host, ContentLength: int64(len(body)),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: sent,
		Header: http.Header{
			"Content-Type": {"application/x-amz-json-1.1"},
			"User-Agent":   {"tapehouse-producer"},
			"X-Amz-Target": {targetPrefix + operation},
		},
	}).WithContext(ctx)
	c.signer.Sign(r, auth.PayloadSum(body), time.Now())
	c.requests.Add(1)
	response, err := c.http.Do(r)
	// The transport may read the body after Do has returned, until it closes it.
	defer func() { <-sent.closed }()
	if err != nil {
		return fmt.Errorf("%s: %w", operation, err)
	}
	answer.Reset()
	n, err := answer.ReadFrom(io.LimitReader(response.Body, answerBytesMax+1))
	_ = response.Body.Close() // what matters was read, or reading it failed
	if err != nil {
		return fmt.Errorf("%s: read the answer: %w", operation, err)
	}
	if n > answerBytesMax {
		return fmt.Errorf("%s: the answer is longer than %d bytes", operation, answerBytesMax)
	}
	if response.StatusCode == http.StatusOK {
		return nil
	}
	e := &APIError{Operation: operation, Status: response.StatusCode, RequestID: response.Header.Get("X-Amzn-Requestid")}
	var text struct {
		Type    string `json:"__type"`
		Message string `json:"message"`
	}
	if json.Unmarshal(answer.Bytes(), &text) == nil {
		e.Code, e.Message = text.Type[strings.LastIndexByte(text.Type, '#')+1:], text.Message
	}
	if e.Code == "" {
		e.Code, e.Message = "UnknownError", response.Status
	}
	return e
}

// requestBody tells when the transport is done with it, because the buffer
// behind it is used again.
type requestBody struct {
	bytes.Reader
	bytes  []byte // all of it
	once   sync.Once
	closed chan struct{}
}

// rest is what has not been read.
func (b *requestBody) rest() []byte { return b.bytes[len(b.bytes)-b.Len():] }

// Close implements io.Closer.
func (b *requestBody) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

// again waits before the next attempt after err. It returns an error if there
// must not be one.
func (c *Client) again(ctx context.Context, b *backoff, err error) error {
	var e *APIError
	if errors.As(err, &e) && !e.retryable() {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w (last: %w)", context.Cause(ctx), err)
	}
	wait, ok := b.next()
	if !ok {
		return fmt.Errorf("gave up after %s without progress: %w", c.config.RetryFor, err)
	}
	c.retries.Add(1)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w (last: %w)", context.Cause(ctx), err)
	}
}

// backoff doubles the wait from attempt to attempt. Half of each wait is
// random, so that producers that failed together do not come back together.
type backoff struct {
	limit   time.Duration
	wait    time.Duration
	failing time.Time // since when; zero while there is progress
}

func newBackoff(limit time.Duration) *backoff { return &backoff{limit: limit, wait: backoffFirst} }

// progress starts over: something was acknowledged.
func (b *backoff) progress() { b.wait, b.failing = backoffFirst, time.Time{} }

func (b *backoff) next() (time.Duration, bool) {
	now := time.Now()
	if b.failing.IsZero() {
		b.failing = now
	}
	if now.Sub(b.failing) > b.limit {
		return 0, false
	}
	wait := b.wait/2 + rand.N(b.wait/2)
	b.wait = min(2*b.wait, backoffMax)
	return wait, true
}
