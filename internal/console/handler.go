package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// requestSizeBytesMax bounds a request's body.
	requestSizeBytesMax = ReplayBytesMax + 64<<10
	// legsMax bounds the legs that one explanation lists.
	legsMax     = 100_000
	legsDefault = 1000
)

// Options are what a handler stands on. Backend, Authenticate and Authorize are
// required.
type Options struct {
	Backend Backend
	// Authenticate reports whether these are a user's name and password. It must
	// take the same time for a wrong name as for a wrong password.
	Authenticate func(user, password string) bool
	// Authorize reports whether a user who was authenticated may use a path: its
	// name under /api/v1/ ("seal"), or "page" for the pages for people.
	Authorize func(user, operation string) bool
	// Ready reports nil once the server takes requests, and the reason why not
	// before that and while it drains. nil is always ready.
	Ready    func() error
	Gatherer prometheus.Gatherer // nil serves no /metrics
	Logger   *slog.Logger        // nil discards
}

// Handler serves the HTTP port.
type Handler struct {
	o   Options
	mux *http.ServeMux
}

// NewHandler returns the handler of every path of the package.
func NewHandler(o Options) *Handler {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Handler{o: o, mux: http.NewServeMux()}
	h.mux.HandleFunc("GET /healthz", h.healthz)
	h.mux.HandleFunc("GET /readyz", h.readyz)
	if o.Gatherer != nil {
		h.mux.Handle("GET /metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	}
	h.mux.Handle("GET /{$}", h.guard("page", h.index))
	h.mux.Handle("GET /status", h.guard("page", h.page))
	b := o.Backend
	read(h, "info", func(ctx context.Context, _ struct{}) (Info, error) { return b.Info(ctx) })
	read(h, "status", b.Status)
	read(h, "explain-charge", func(ctx context.Context, q ExplainRequest) (Explanation, error) {
		if q.Limit == 0 {
			q.Limit = legsDefault
		}
		if q.Statement == "" || q.Line < 1 || q.Limit < 0 || q.Limit > legsMax {
			return Explanation{}, Errorf(CodeInvalid, "explain-charge wants a statement, a line from 1, and a limit of at most %d", legsMax)
		}
		return b.Explain(ctx, q)
	})
	read(h, "trace", func(ctx context.Context, q TraceRequest) (Trace, error) {
		if q.RecordID == "" {
			return Trace{}, Errorf(CodeInvalid, "trace wants a record_id")
		}
		return b.Trace(ctx, q)
	})
	write(h, "replay", func(ctx context.Context, q ReplayRequest) (Replay, error) {
		given := 0
		for _, there := range []bool{len(q.Lines) > 0, q.Object != "", q.From != nil} {
			if there {
				given++
			}
		}
		switch {
		case q.Stream == "" || given != 1:
			return Replay{}, Errorf(CodeInvalid, "replay wants a stream, and one of lines, object and from")
		case len(q.Lines) > ReplayLinesMax:
			return Replay{}, Errorf(CodeInvalid, "replay takes at most %d lines at once, not %d", ReplayLinesMax, len(q.Lines))
		}
		return b.Replay(ctx, q)
	})
	write(h, "crawl", func(ctx context.Context, q CrawlRequest) (Crawl, error) {
		if q.Name == "" || q.Path == "" || q.Database == "" {
			return Crawl{}, Errorf(CodeInvalid, "crawl wants a name, a path and a database")
		}
		return b.Crawl(ctx, q)
	})
	write(h, "flush", func(ctx context.Context, _ struct{}) (Flushed, error) { return b.Flush(ctx) })
	read(h, "maintenance", func(ctx context.Context, _ struct{}) (MaintainPlan, error) { return b.PlanMaintenance(ctx) })
	write(h, "maintain", func(ctx context.Context, _ struct{}) (Maintained, error) { return b.Maintain(ctx) })
	read(h, "backup-status", func(ctx context.Context, _ struct{}) (BackupStatus, error) { return b.BackupStatus(ctx) })
	write(h, "backup", func(ctx context.Context, q BackupRequest) (Backup, error) {
		if q.To == "" {
			return Backup{}, Errorf(CodeInvalid, "backup wants a place to copy to")
		}
		return b.Backup(ctx, q)
	})
	write(h, "seal", dated(b.Seal, func(q SealRequest) string { return q.TradeDate }))
	write(h, "waive", dated(b.Waive, func(q WaiveRequest) string { return q.TradeDate }))
	write(h, "verify", dated(b.Verify, func(q VerifyRequest) string { return q.TradeDate }))
	write(h, "statements", dated(b.Statements, func(q StatementsRequest) string { return q.TradeDate }))
	return h
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Cache-Control", "no-store")
	h.mux.ServeHTTP(w, r)
}

// healthz says that the process serves requests, and nothing more.
func (h *Handler) healthz(w http.ResponseWriter, _ *http.Request) { h.text(w, http.StatusOK, "ok\n") }

func (h *Handler) readyz(w http.ResponseWriter, _ *http.Request) {
	if h.o.Ready != nil {
		if err := h.o.Ready(); err != nil {
			h.text(w, http.StatusServiceUnavailable, err.Error()+"\n")
			return
		}
	}
	h.text(w, http.StatusOK, "ready\n")
}

func (h *Handler) text(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // a client that left needs no answer
}

// guard lets in whom Authenticate knows and Authorize allows.
func (h *Handler) guard(operation string, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, ok := r.BasicAuth()
		if !ok || !h.o.Authenticate(user, password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="tapehouse", charset="UTF-8"`)
			h.fail(w, r, &Error{Code: CodeUnauthorized, Message: "a user's name and password are required",
				Remedy: "use the SQL user of the data directory's credentials.json"})
			return
		}
		if !h.o.Authorize(user, operation) {
			h.fail(w, r, &Error{Code: CodeForbidden, Message: "the user " + user + " is not allowed to use " + operation,
				Remedy: "tapehouse credentials list shows who may; tapehouse credentials create --sql makes another user"})
			return
		}
		next(w, r)
	})
}

// read registers a GET whose query parameters are the members of Q's JSON.
func read[Q, A any](h *Handler, name string, call func(context.Context, Q) (A, error)) {
	h.mux.Handle("GET /api/v1/"+name, h.guard(name, func(w http.ResponseWriter, r *http.Request) {
		q, err := fromQuery[Q](r)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		answer(h, w, r, q, call)
	}))
}

// write registers a POST of JSON.
func write[Q, A any](h *Handler, name string, call func(context.Context, Q) (A, error)) {
	h.mux.Handle("POST /api/v1/"+name, h.guard(name, func(w http.ResponseWriter, r *http.Request) {
		if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
			h.fail(w, r, Errorf(CodeInvalid, "Content-Type must be application/json"))
			return
		}
		var q Q
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, requestSizeBytesMax))
		d.DisallowUnknownFields()
		if err := d.Decode(&q); err != nil {
			h.fail(w, r, Errorf(CodeInvalid, "decode the request: %s", err))
			return
		}
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			h.fail(w, r, Errorf(CodeInvalid, "decode the request: something follows the JSON object"))
			return
		}
		answer(h, w, r, q, call)
	}))
}

// dated checks the request's trade date before call sees it.
func dated[Q, A any](call func(context.Context, Q) (A, error), date func(Q) string) func(context.Context, Q) (A, error) {
	return func(ctx context.Context, q Q) (A, error) {
		if err := checkDate(date(q)); err != nil {
			var none A
			return none, err
		}
		return call(ctx, q)
	}
}

func checkDate(s string) error {
	if _, err := time.Parse(time.DateOnly, s); err != nil {
		return Errorf(CodeInvalid, "trade_date: want the form 2006-01-02, not %q", s)
	}
	return nil
}

func answer[Q, A any](h *Handler, w http.ResponseWriter, r *http.Request, q Q, call func(context.Context, Q) (A, error)) {
	if h.o.Ready != nil {
		if err := h.o.Ready(); err != nil {
			h.fail(w, r, &Error{Code: CodeUnavailable, Message: err.Error(), Remedy: "try again in a moment"})
			return
		}
	}
	a, err := call(r.Context(), q)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.json(w, r, http.StatusOK, a)
}

// fromQuery reads a request from the URL: strings and integers only.
func fromQuery[Q any](r *http.Request) (q Q, err error) {
	members := map[string]any{}
	for k, v := range r.URL.Query() {
		if len(v) != 1 {
			return q, Errorf(CodeInvalid, "parameter %s stands %d times", k, len(v))
		}
		switch k {
		case "line", "limit":
			n, err := strconv.ParseInt(v[0], 10, 64)
			if err != nil {
				return q, Errorf(CodeInvalid, "parameter %s: want a number, not %q", k, v[0])
			}
			members[k] = n
		default:
			members[k] = v[0]
		}
	}
	if s, ok := members["trade_date"].(string); ok && s != "" {
		if err := checkDate(s); err != nil {
			return q, err
		}
	}
	text, err := json.Marshal(members)
	if err != nil {
		return q, Errorf(CodeInvalid, "parameters: %s", err)
	}
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return q, Errorf(CodeInvalid, "parameters: %s", err)
	}
	return q, nil
}

// fail answers with an error, and logs those for which someone must act.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := errorOf(err)
	status, ok := statusOf[e.Code]
	if !ok {
		status = http.StatusInternalServerError
	}
	if status == http.StatusInternalServerError {
		h.o.Logger.Error("console request", "path", r.URL.Path, "error", err)
	}
	h.json(w, r, status, struct {
		Error *Error `json:"error"`
	}{e})
}

func (h *Handler) json(w http.ResponseWriter, r *http.Request, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		h.o.Logger.Error("console request", "path", r.URL.Path, "error", fmt.Errorf("encode the answer: %w", err))
		http.Error(w, "encode the answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // a client that left needs no answer
}
