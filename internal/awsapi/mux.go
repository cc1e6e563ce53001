package awsapi

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/auth"
)

const (
	// drainBytesMax is how much of a refused body is read and thrown away, so
	// that the client reads the answer instead of a connection reset.
	drainBytesMax = 32 << 20
	drainTimeout  = 5 * time.Second
	// answerRetainBytes is the largest answer buffer that is kept for the next
	// request; 500 RecordIds need 40 KB.
	answerRetainBytes = 1 << 20
	// defaultBodyTimeout is how long a body may take, in or out.
	defaultBodyTimeout = 60 * time.Second
)

// Operation answers one call: it appends the JSON of the answer to c.Out. An
// error that is, or wraps, an *Error goes to the client as it is; any other is
// logged and becomes InternalFailure.
type Operation func(ctx context.Context, c *Call) error

// Call is one authenticated request.
type Call struct {
	Operation string
	RequestID string
	Principal string // the access key's name
	Region    string // of the credential scope
	// Body is the request's body: valid until the operation returns, with
	// SlackBytes of capacity behind its length.
	Body []byte
	// Out is the answer, empty at first. An operation that leaves it empty
	// answers {}.
	Out []byte
}

// Service is one AWS service of the JSON 1.1 protocol.
type Service struct {
	SigningName  string // in the credential scope: "firehose"
	TargetPrefix string // of X-Amz-Target, with its dot: "Firehose_20150804."
	Operations   map[string]Operation
	// Refusals answer operations that the service has elsewhere and not here, to whom
	// they would be allowed. They are counted together, under no operation's name.
	Refusals      map[string]*Error
	BodyBytesMax  int64
	MessageMember string // the member of the error's text: "message" if empty
	// ResourceMember is the member of every body that names what the operation
	// is about: "DeliveryStreamName". ResourceType stands before that name in
	// ARNs: "deliverystream". Both are empty if grants are for all or nothing.
	ResourceMember string
	ResourceType   string
	// Resource, in their place, finds what an operation is about where that takes
	// more than one member: a name for grants, "*" for none or if there is a doubt,
	// and its ARN for refusals. It must find what the operation itself will: Member
	// is beyond doubt.
	Resource func(operation string, body []byte) (name, arn string)
}

// Options configure a Mux.
type Options struct {
	Verifier   *auth.Verifier
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Region and AccountID stand in the ARNs of refusals. "" means us-east-1 and
	// 000000000000.
	Region, AccountID string
	// InFlightBytesMax bounds the bodies of all requests that are not answered
	// yet. 0 means 128 MiB.
	InFlightBytesMax int64
	// BodyTimeout bounds how long a body may take to arrive, and then how long
	// an answer may take to leave. 0 means 60 s.
	BodyTimeout time.Duration
}

// Mux is the handler of the AWS port. Services are registered before it
// serves; it is safe for concurrent use afterwards.
type Mux struct {
	verifier *auth.Verifier
	logger   *slog.Logger
	metrics  *metrics
	services map[string]*Service
	buffers  *Buffers
	calls    sync.Pool
	region   string
	account  string

	bodyTimeout time.Duration
	inFlightMax int64
	inFlight    atomic.Int64
}

// NewMux returns a mux that serves nothing yet.
func NewMux(o Options) (*Mux, error) {
	if o.InFlightBytesMax == 0 {
		o.InFlightBytesMax = 128 << 20
	}
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	if o.AccountID == "" {
		o.AccountID = "000000000000"
	}
	if o.BodyTimeout == 0 {
		o.BodyTimeout = defaultBodyTimeout
	}
	m := &Mux{verifier: o.Verifier, region: o.Region, account: o.AccountID, logger: o.Logger, services: map[string]*Service{}, buffers: NewBuffers(8 << 20), bodyTimeout: o.BodyTimeout, inFlightMax: o.InFlightBytesMax}
	m.calls.New = func() any { return &exchange{} }
	var err error
	if m.metrics, err = newMetrics(o.Registerer, m.inFlight.Load); err != nil {
		return nil, fmt.Errorf("register AWS metrics: %w", err)
	}
	return m, nil
}

// Register adds a service. REQUIRES: the mux does not serve yet.
func (m *Mux) Register(s Service) error {
	if _, ok := m.services[s.SigningName]; ok {
		return fmt.Errorf("register AWS service %s: it is registered already", s.SigningName)
	}
	if s.BodyBytesMax <= 0 || s.BodyBytesMax > m.inFlightMax {
		return fmt.Errorf("register AWS service %s: its largest body, %d bytes, does not fit into the %d bytes allowed in flight", s.SigningName, s.BodyBytesMax, m.inFlightMax)
	}
	if s.MessageMember == "" {
		s.MessageMember = "message"
	}
	m.services[s.SigningName] = &s
	m.metrics.add(s.SigningName, s.Operations)
	return nil
}

// exchange is the pooled state of one request.
type exchange struct {
	call     Call
	auth     auth.Authorization
	service  *Service
	reserved int64 // bytes in flight
	id       [36]byte
}

// ServeHTTP implements http.Handler.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	x := m.calls.Get().(*exchange)
	out := x.call.Out[:0]
	*x = exchange{}
	x.call.Out = out
	x.call.RequestID = newRequestID(&x.id)

	// What is reserved is given back even if an operation panics, which net/http
	// survives; the buffers are then left to the garbage collector.
	finished := false
	defer func() {
		if !finished {
			m.inFlight.Add(-x.reserved)
		}
	}()
	err := m.serve(w, r, x)
	body := x.call.Body
	var e *Error
	if err != nil {
		e = m.refuse(w, r, x, err)
	} else {
		m.answer(w, x)
	}
	service := ""
	if x.service != nil {
		service = x.service.SigningName
	}
	m.metrics.observe(service, x.call.Operation, e, time.Since(began))
	m.inFlight.Add(-x.reserved)
	finished = true // x belongs to another request from here on
	m.buffers.Put(body)
	x.call.Body = nil
	if cap(x.call.Out) > answerRetainBytes {
		x.call.Out = nil
	}
	m.calls.Put(x)
}

// serve runs the request up to its answer in x.call.Out. The bytes that it
// reserves stay reserved until the answer is written.
func (m *Mux) serve(w http.ResponseWriter, r *http.Request, x *exchange) (err error) {
	if err := m.verifier.Parse(r, &x.auth); err != nil {
		return err
	}
	service := m.services[x.auth.Service]
	if service == nil {
		return m.unknownService(x.auth.Service)
	}
	x.service = service
	for _, encoding := range r.Header["Content-Encoding"] {
		if encoding != "" && encoding != "identity" {
			return &Error{http.StatusUnsupportedMediaType, CodeUnsupportedMedia, "Content-Encoding is not supported: send the body uncompressed."}
		}
	}
	if r.ContentLength > service.BodyBytesMax {
		return tooLarge(service.BodyBytesMax)
	}
	// A body without a length may become as long as any.
	x.reserved = r.ContentLength
	if x.reserved < 0 {
		x.reserved = service.BodyBytesMax
	}
	if m.inFlight.Add(x.reserved) > m.inFlightMax {
		m.metrics.refused.Inc()
		return ErrSlowDown
	}
	if x.call.Body, err = m.read(w, r, service.BodyBytesMax); err != nil {
		return err
	}
	if err := m.verifier.Check(r, &x.auth, auth.PayloadSum(x.call.Body)); err != nil {
		return err
	}
	target := r.Header.Get("X-Amz-Target")
	name, ok := strings.CutPrefix(target, service.TargetPrefix)
	operation := service.Operations[name]
	refusal := service.Refusals[name]
	if !ok || operation == nil && refusal == nil || r.Method != http.MethodPost {
		return BadRequest(CodeUnknownOperation, "The operation "+strconv.Quote(bounded(target))+" is not one of "+service.SigningName+"'s.")
	}
	x.call.Principal, x.call.Region = x.auth.Key.Name, x.auth.Region
	if operation == nil {
		if err := m.authorize(x, name); err != nil {
			return err
		}
		return refusal
	}
	x.call.Operation = name
	if err := m.authorize(x, name); err != nil {
		return err
	}
	return operation(r.Context(), &x.call)
}

// read returns the body in a pooled buffer, also when it fails.
func (m *Mux) read(w http.ResponseWriter, r *http.Request, limit int64) (body []byte, err error) {
	// The deadline must be gone before the operation waits for the disk: net/http
	// reads ahead, and a time-out there would cancel the request's context.
	control := http.NewResponseController(w)
	if control.SetReadDeadline(time.Now().Add(m.bodyTimeout)) == nil {
		defer func() { _ = control.SetReadDeadline(time.Time{}) }()
	}
	if r.Header["Expect"] != nil { // "100 Continue" is written when the body is read
		_ = control.SetWriteDeadline(time.Time{})
	}
	if n := r.ContentLength; n >= 0 {
		body = m.buffers.Get(int(n))[:n]
		water := lowWaterOf(r.Context())
		defer water.want(0)
		for have := 0; have < len(body); {
			got, err := r.Body.Read(body[have:])
			have += got
			if err != nil && have < len(body) {
				return body, incompleteBody(err)
			}
			water.want(len(body) - have)
		}
		return body, nil
	}
	body = m.buffers.Get(0)
	for {
		if cap(body)-len(body) <= SlackBytes {
			if int64(len(body)) > limit {
				return body, tooLarge(limit)
			}
			grown := append(m.buffers.Get(2*len(body)), body...)
			m.buffers.Put(body)
			body = grown
		}
		n, err := r.Body.Read(body[len(body) : cap(body)-SlackBytes])
		body = body[:len(body)+n]
		switch {
		case int64(len(body)) > limit:
			return body, tooLarge(limit)
		case errors.Is(err, io.EOF):
			return body, nil
		case err != nil:
			return body, incompleteBody(err)
		}
	}
}

func incompleteBody(err error) error {
	return fmt.Errorf("read body: %w: %w", &Error{http.StatusBadRequest, "RequestTimeout", "The body of the request did not arrive as announced."}, err)
}

func (m *Mux) unknownService(name string) error {
	served := make([]string, 0, len(m.services))
	for s := range m.services {
		served = append(served, s)
	}
	slices.Sort(served)
	return BadRequest(CodeUnknownService, "The request is signed for the service "+strconv.Quote(bounded(name))+"; this endpoint serves: "+strings.Join(served, ", ")+".")
}

var (
	contentTypeJSON = []string{"application/x-amz-json-1.1"}
	contentTypeXML  = []string{"text/xml"}
)

func (m *Mux) answer(w http.ResponseWriter, x *exchange) {
	if len(x.call.Out) == 0 {
		x.call.Out = append(x.call.Out, '{', '}')
	}
	m.write(w, x, http.StatusOK, contentTypeJSON)
}

// refuse answers err and returns the form that the client got.
func (m *Mux) refuse(w http.ResponseWriter, r *http.Request, x *exchange, err error) *Error {
	e, internal := visible(err)
	if internal && r.Context().Err() == nil {
		m.logger.Error("aws request failed", "request_id", x.call.RequestID, "service", x.auth.Service, "operation", x.call.Operation, "error", err)
	}
	// Reading would make a client that waits for "100 Continue" send its body.
	if x.call.Body == nil && r.Header["Expect"] == nil && r.Body != nil {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(drainTimeout))
		_, _ = io.CopyN(io.Discard, r.Body, drainBytesMax)
	}
	if x.service == nil && r.Header["X-Amz-Target"] == nil {
		x.call.Out = appendXMLError(x.call.Out[:0], e, x.call.RequestID)
		m.write(w, x, e.Status, contentTypeXML)
		return e
	}
	member := "message"
	if x.service != nil {
		member = x.service.MessageMember
	}
	if e.Code == CodeAccessDenied { // it comes from what stands before AWS's services, and so is spelt
		member = "Message"
	}
	x.call.Out = appendJSONError(x.call.Out[:0], e, member)
	m.write(w, x, e.Status, contentTypeJSON)
	return e
}

// write sends x.call.Out. A client that is gone is no error of ours. One that
// does not read would keep the request's bytes reserved for good: hence the
// deadline. It stays, because net/http flushes after this; the next answer on
// the connection sets its own.
func (m *Mux) write(w http.ResponseWriter, x *exchange, status int, contentType []string) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(m.bodyTimeout))
	h := w.Header()
	h["Content-Type"] = contentType
	h["X-Amzn-Requestid"] = []string{x.call.RequestID}
	h["Content-Length"] = []string{strconv.Itoa(len(x.call.Out))}
	w.WriteHeader(status)
	_, _ = w.Write(x.call.Out)
}

// newRequestID returns a random UUID. It names a request in logs; nothing
// relies on it being hard to guess.
func newRequestID(b *[36]byte) string {
	var u [16]byte
	binary.LittleEndian.PutUint64(u[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(u[8:], rand.Uint64())
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	hex.Encode(b[0:8], u[0:4])
	hex.Encode(b[9:13], u[4:6])
	hex.Encode(b[14:18], u[6:8])
	hex.Encode(b[19:23], u[8:10])
	hex.Encode(b[24:36], u[10:16])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

func bounded(s string) string {
	const bytesMax = 80
	if len(s) > bytesMax {
		return s[:bytesMax] + "…"
	}
	return s
}
