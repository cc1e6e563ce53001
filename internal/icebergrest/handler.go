package icebergrest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/catalog"
)

const (
	// Mount is the path under which Handler is served.
	Mount = "/iceberg"
	// Warehouse is the only warehouse there is, and the prefix of its paths.
	Warehouse = "tapehouse"

	// bodyBytesMax bounds a commit: a snapshot and its updates need some KB, a
	// schema of thousands of columns some hundred.
	bodyBytesMax = 16 << 20
	// smallBytesMax bounds all other bodies.
	smallBytesMax = 1 << 20
	// inFlightBytesMax bounds the bodies of all requests in progress; decoded
	// they take several times as much.
	inFlightBytesMax = 64 << 20
	// requestsMax bounds the requests in progress.
	requestsMax = 128
	// drainBytesMax is how much of a refused body is read and thrown away, so
	// that the client reads the answer instead of a connection reset.
	drainBytesMax = 1 << 20

	defaultBodyTimeout = 60 * time.Second
	// strangerTimeout is for the bodies of requests whose principal is not known
	// before they were read.
	strangerTimeout = 10 * time.Second
	defaultTimeout  = 120 * time.Second
)

// Options configure a Handler. Catalog, Verifier and Tokens are required.
type Options struct {
	Catalog  *catalog.Catalog
	Verifier *auth.Verifier
	Tokens   *auth.Tokens
	// Guard says what clients must leave alone.
	Guard catalog.Guard
	// Files is the configuration by which clients reach the tables' files, such
	// as s3.endpoint. It goes to everybody who may read a table: no secrets.
	Files map[string]string
	// AccountID is another name of the warehouse, as AWS has it; "" is none.
	AccountID  string
	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil registers nothing

	// BodyTimeout bounds how long a body may take to arrive, and then how long an
	// answer may take to leave; Timeout how long an operation may take between.
	// 0 means 60 and 120 s.
	BodyTimeout, Timeout time.Duration
}

// Handler answers the protocol's requests. It is safe for concurrent use.
type Handler struct {
	o        Options
	catalog  *catalog.Catalog
	metrics  *metrics
	inFlight atomic.Int64
	requests atomic.Int64
}

// New returns a handler over o.Catalog.
func New(o Options) (*Handler, error) {
	if o.Catalog == nil || o.Verifier == nil || o.Tokens == nil {
		return nil, errors.New("icebergrest: catalog, verifier and tokens are required")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.BodyTimeout == 0 {
		o.BodyTimeout = defaultBodyTimeout
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	h := &Handler{o: o, catalog: o.Catalog}
	var err error
	if h.metrics, err = newMetrics(o.Registerer, h.inFlight.Load); err != nil {
		return nil, fmt.Errorf("register Iceberg REST metrics: %w", err)
	}
	return h, nil
}

// call is one request that is being answered.
type call struct {
	r         *http.Request
	id        string
	key       auth.AccessKey
	namespace []string
	table     string
	body      []byte
	query     url.Values

	operation *operation
	reserved  int64
	// missing is the type of a catalog.ErrNotFound.
	missing string

	status int    // 200 if 0
	etag   string // of the answer
	out    any    // nil: no body
}

func (c *call) name() catalog.Name {
	return catalog.Name{Namespace: c.namespace[0], Table: c.table}
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	c := &call{r: r, id: uuid.NewString()}
	defer func() {
		h.inFlight.Add(-c.reserved)
		h.requests.Add(-1)
	}()
	ctx, cancel := context.WithTimeout(r.Context(), h.o.Timeout)
	defer cancel()
	var err error
	if h.requests.Add(1) > requestsMax {
		err = errBusy
	} else {
		err = h.serve(ctx, w, c)
	}
	name := ""
	if c.operation != nil {
		name = c.operation.name
	}
	var body []byte
	if err == nil && c.out != nil {
		if body, err = json.Marshal(c.out); err != nil {
			err = fmt.Errorf("encode the answer: %w", err)
		}
	}
	var e *apiError
	if err != nil {
		e = h.refuse(w, c, err)
	} else {
		h.answer(w, c, body)
	}
	h.metrics.observe(name, e, time.Since(began))
}

// serve runs the request up to its answer in c.
func (h *Handler) serve(ctx context.Context, w http.ResponseWriter, c *call) error {
	found, err := c.route()
	if err != nil {
		return err
	}
	if found.open { // it brings its own credentials
		c.operation = found
		if err := h.read(w, c, found.bodyMax); err != nil {
			return err
		}
		return found.run(h, ctx, c)
	}
	if err := h.authenticate(w, c, found); err != nil {
		return err
	}
	c.operation, c.missing = found, found.missing
	if found.refusal != "" {
		return unsupported("%s", found.refusal)
	}
	if c.query, err = url.ParseQuery(c.r.URL.RawQuery); err != nil {
		return badRequest("The query cannot be read: %v", err)
	}
	if err := c.checkPath(); err != nil {
		return err
	}
	if found.action != "" {
		table := c.table
		if found.all {
			table = anyTable
		}
		if err := c.authorize(found.action, c.namespace, table); err != nil {
			return err
		}
	}
	return found.run(h, ctx, c)
}

// checkPath refuses namespaces that cannot be: they have one level.
func (c *call) checkPath() error {
	if c.operation.about == aboutNothing || len(c.namespace) == 1 && c.namespace[0] != "" {
		return nil
	}
	if c.operation.about == aboutTable {
		return newError(http.StatusNotFound, typeNoSuchTable, "Table %s.%s does not exist: namespaces have one level", quotedNamespace(c.namespace), c.table)
	}
	return noSuchNamespace(c.namespace)
}

// read reads the body into c.body, within its bounds of size and time.
func (h *Handler) read(w http.ResponseWriter, c *call, limit int64) error {
	for _, encoding := range c.r.Header["Content-Encoding"] {
		if encoding != "" && encoding != "identity" {
			return newError(http.StatusUnsupportedMediaType, typeBadRequest, "Content-Encoding is not supported: send the body uncompressed.")
		}
	}
	n := c.r.ContentLength
	if n > limit {
		return newError(http.StatusRequestEntityTooLarge, typeBadRequest, "The body has %d bytes; this operation takes %d.", n, limit)
	}
	if n < 0 { // it may become as long as any
		n = limit
	}
	c.reserved = n
	if h.inFlight.Add(n) > inFlightBytesMax {
		return errBusy
	}
	// The deadline must be gone before the operation waits: net/http reads ahead,
	// and a time-out there would cancel the request's context.
	control := http.NewResponseController(w)
	wait := h.o.BodyTimeout
	if c.key.ID == "" { // nobody yet: what a stranger can hold up is little
		wait = min(wait, strangerTimeout)
	}
	if control.SetReadDeadline(time.Now().Add(wait)) == nil {
		defer func() { _ = control.SetReadDeadline(time.Time{}) }()
	}
	body, err := io.ReadAll(io.LimitReader(c.r.Body, limit+1))
	if err != nil {
		return newError(http.StatusBadRequest, typeBadRequest, "The body of the request did not arrive as announced.")
	}
	if int64(len(body)) > limit {
		return newError(http.StatusRequestEntityTooLarge, typeBadRequest, "The body has more than the %d bytes that this operation takes.", limit)
	}
	c.body = body
	return nil
}

// decode reads the body's JSON. Members that are not known are passed over: the
// protocol grows by them.
func (c *call) decode(into any) error {
	if err := json.Unmarshal(c.body, into); err != nil {
		return badRequest("The body is not what the operation takes: %s", bounded(err.Error()))
	}
	return nil
}

func (h *Handler) answer(w http.ResponseWriter, c *call, body []byte) {
	if c.etag != "" {
		w.Header().Set("Etag", c.etag)
	}
	status := c.status
	if status == 0 {
		status = http.StatusOK
	}
	h.write(w, c, status, body)
}

// errorAnswer is the protocol's form of an error.
type errorAnswer struct {
	Error struct {
		Message string `json:"message"`
		Type    string `json:"type"`
		Code    int    `json:"code"`
	} `json:"error"`
}

// refuse answers err and returns the form that the client got.
func (h *Handler) refuse(w http.ResponseWriter, c *call, err error) *apiError {
	e, internal := visible(err, c.missing)
	if e.kind == typeStateUnknown && (c.r.Method == http.MethodGet || c.r.Method == http.MethodHead) { // it is another's outcome
		e = &apiError{http.StatusServiceUnavailable, typeUnavailable, e.message}
	}
	if internal && c.r.Context().Err() == nil {
		h.o.Logger.Error("iceberg request failed", "request_id", c.id, "operation", c.operationName(), "error", err)
	}
	// Reading would make a client that waits for "100 Continue" send its body.
	if c.body == nil && c.r.Header["Expect"] == nil && c.r.Body != nil {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.CopyN(io.Discard, c.r.Body, drainBytesMax)
	}
	switch e.status {
	case http.StatusUnauthorized:
		w.Header().Set("Www-Authenticate", `Bearer realm="tapehouse"`)
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
	}
	var o *oauthError
	if errors.As(err, &o) {
		b, _ := json.Marshal(o) // strings alone: it never fails
		h.write(w, c, e.status, b)
		return e
	}
	var a errorAnswer
	a.Error.Message, a.Error.Type, a.Error.Code = e.message, e.kind, e.status
	b, _ := json.Marshal(a) // strings and a number: it never fails
	h.write(w, c, e.status, b)
	return e
}

func (c *call) operationName() string {
	if c.operation == nil {
		return ""
	}
	return c.operation.name
}

// write sends an answer. A client that is gone is no error of ours; one that does
// not read would keep its connection for good: hence the deadline.
func (h *Handler) write(w http.ResponseWriter, c *call, status int, body []byte) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(h.o.BodyTimeout))
	header := w.Header()
	header.Set("X-Amzn-Requestid", c.id)
	header.Set("Cache-Control", "no-store")
	if status != http.StatusNoContent && status != http.StatusNotModified {
		header.Set("Content-Type", "application/json")
		header.Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// quotedNamespace shows a namespace of a path.
func quotedNamespace(namespace []string) string {
	return strconv.Quote(bounded(strings.Join(namespace, ".")))
}

func bounded(s string) string {
	const bytesMax = 300
	if len(s) > bytesMax {
		return s[:bytesMax] + "…"
	}
	return s
}
