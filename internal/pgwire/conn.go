package pgwire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	formatText   int16 = 0
	formatBinary int16 = 1

	statusIdle = 'I'
)

// A conn is one client's connection. Everything but the fields under mu and
// the methods stop and interrupt belongs to the goroutine of run.
type conn struct {
	server  *Server
	log     *slog.Logger
	raw     net.Conn // the socket itself, for deadlines and to cut it off
	socket  net.Conn // raw, or TLS over it
	secure  bool
	outcome string
	in      *inlet
	out     outlet
	kill    context.CancelCauseFunc // of the whole connection
	user    string                  // of the session
	pid     uint32
	session Session

	statements     map[string]*statement
	statementBytes int
	portals        map[string]*portal
	doomed         []*statement      // deallocated by SQL in this cycle
	reported       map[string]string // parameters as the client last heard them
	style          *Style
	row            []any
	inCycle        bool // a message came since the last ReadyForQuery
	skipping       bool // to Sync, after an error

	stopping chan struct{} // closed by stop
	stopOnce sync.Once
	greeting atomic.Bool // before the first ReadyForQuery
	gone     atomic.Bool // the client has closed its side

	mu      sync.Mutex
	secret  []byte
	running context.CancelCauseFunc // of the statement that runs
}

func newConn(s *Server, socket net.Conn) *conn {
	return &conn{
		server: s, log: s.log.With("remote", socket.RemoteAddr().String()),
		raw: socket, socket: socket, outcome: outcomeRefused,
		out:        outlet{socket: socket, sizeBytes: s.o.SendBufferBytes, sent: func(int) {}},
		statements: map[string]*statement{}, portals: map[string]*portal{}, reported: map[string]string{},
		style: NewStyle(nil), stopping: make(chan struct{}),
	}
}

// stop asks the connection to end as soon as it is idle. One that is still
// shaking hands is cut off: it would wait for the client.
func (c *conn) stop() {
	c.stopOnce.Do(func() {
		close(c.stopping)
		if c.greeting.Load() {
			_ = c.raw.SetDeadline(time.Unix(1, 0))
		}
	})
}

// interrupt cancels the statement that runs, if one does.
func (c *conn) interrupt(cause error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil {
		return false
	}
	c.running(cause)
	return true
}

// begin derives a context that interrupt cancels until end is called. The
// context itself lives on: that of a suspended portal does until it is closed.
func (c *conn) begin(cancel context.CancelCauseFunc) (end func()) {
	c.mu.Lock()
	c.running = cancel
	c.mu.Unlock()
	if c.gone.Load() && c.in.abandoned() {
		cancel(causeClientGone)
	}
	return func() {
		c.mu.Lock()
		c.running = nil
		c.mu.Unlock()
	}
}

// step is begin for a call that leaves nothing open.
func (c *conn) step(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	end := c.begin(cancel)
	return ctx, func() {
		end()
		cancel(nil)
	}
}

// run serves the connection from accept to close.
func (c *conn) run(ctx context.Context) {
	defer func() {
		// Closing TLS says goodbye, for which it may wait a little; the raw
		// socket is closed in any case.
		_ = c.raw.SetDeadline(time.Now().Add(farewell))
		_ = c.socket.Close()
		_ = c.raw.Close()
		if c.in != nil {
			c.in.close()
		}
	}()
	err := c.guard(ctx, c.converse)
	// The session is closed however the conversation ended, and under a guard
	// of its own: it may be what panicked.
	if cerr := c.guard(ctx, c.closeSession); cerr != nil {
		c.log.Error("session not closed", "err", cerr)
	}
	c.server.leave(c)
	c.server.metrics.accepted.WithLabelValues(c.outcome).Inc()
	var broken *socketError
	switch {
	case err == nil, errors.Is(err, errHandled):
	case errors.As(err, &broken):
		if !errors.Is(err, io.EOF) {
			c.log.Debug("SQL connection lost", "err", err)
		}
	default:
		e, internal := describe(causeOf(ctx, err))
		if internal {
			c.log.Error("SQL connection ended", "err", err)
		} else {
			c.log.Info("SQL connection ended", "code", e.Code, "reason", e.Message)
		}
		final := *e
		final.Severity = severityFatal
		c.server.metrics.failed(final.Code)
		// Nothing is left to be done about an error of this last write.
		_ = c.raw.SetWriteDeadline(time.Now().Add(farewell))
		c.out.timeout = 0
		if c.out.send(final.response()) == nil && c.out.flush() == nil && final.Code == codeProtocolViolation {
			c.linger()
		}
	}
}

// linger takes in what a client is still sending, for a moment: a socket that
// is closed on unread data resets the connection, and the client would lose the
// error that explains it.
func (c *conn) linger() {
	if c.in == nil {
		return
	}
	_ = c.raw.SetReadDeadline(time.Now().Add(farewell))
	if t, ok := c.raw.(*net.TCPConn); ok && !c.secure {
		_ = t.CloseWrite()
	}
	for c.in.fill(context.Background(), nil, nil) == nil {
		c.in.consume(len(c.in.rest))
	}
}

// guard turns a panic into an error, so that a broken session ends alone.
func (c *conn) guard(ctx context.Context, f func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.server.metrics.panics.Inc()
			c.log.Error("panic in SQL session", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fatalf(codeInternal, "internal error")
		}
	}()
	return f(ctx)
}

func (c *conn) closeSession(context.Context) error {
	if c.session == nil {
		return nil
	}
	defer func() { c.session = nil }()
	c.closePortals()
	c.deallocate("")
	c.dropStatement("")
	c.releaseDoomed()
	return c.session.Close()
}

func (c *conn) converse(ctx context.Context) error {
	c.greeting.Store(true)
	err := c.greet(ctx)
	c.greeting.Store(false)
	if err != nil {
		if c.outcome == outcomeRefused {
			if e, _ := describe(err); e.Code == codeProtocolViolation {
				c.outcome = outcomeProtocol
			}
		}
		return err
	}
	if err := c.raw.SetDeadline(time.Time{}); err != nil {
		return &socketError{"set deadline of", err}
	}
	m := c.server.metrics
	c.out.timeout = c.server.o.SendTimeout
	c.out.sent = func(n int) { m.sent.Add(float64(n)) }
	c.in = newInlet(c.socket, c.server.o.MaxMessageBytes, func(n int) { m.received.Add(float64(n)) }, c.clientGone)
	c.log.Debug("SQL session opened", "tls", c.secure)
	if err := c.ready(ctx); err != nil {
		return err
	}
	return c.loop(ctx)
}

// clientGone is called by the inlet's pump.
func (c *conn) clientGone(in *inlet) {
	c.gone.Store(true)
	if in.abandoned() {
		c.interrupt(causeClientGone)
	}
}

// receive waits for the next message, within the time-outs and until asked to
// stop while idle.
func (c *conn) receive(ctx context.Context) (kind byte, body []byte, err error) {
	limit, timedOut := c.server.o.IdleTimeout, fatalf(codeIdleTimeout, "terminating connection due to idle-session timeout")
	if c.inCycle || c.session.Status() != statusIdle {
		limit = c.server.o.IdleInTransactionTimeout
		timedOut = fatalf(codeIdleInTransaction, "terminating connection due to idle-in-transaction timeout")
	}
	var timeout <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		timeout = timer.C
	}
	var stop <-chan struct{}
	if !c.inCycle {
		stop = c.stopping
	}
	kind, body, err = c.in.next(ctx, timeout, stop)
	switch {
	case errors.Is(err, errWaitTimeout):
		return 0, nil, timedOut
	case errors.Is(err, errStop):
		return 0, nil, causeShutdown
	}
	return kind, body, err
}

// loop serves messages until the client or an error ends the connection.
func (c *conn) loop(ctx context.Context) error {
	for {
		kind, body, err := c.receive(ctx)
		if err != nil {
			return err
		}
		c.inCycle = true
		if c.skipping && kind != 'S' && kind != 'X' {
			continue
		}
		switch kind {
		case 'Q':
			err = c.query(ctx, body)
		case 'P', 'B', 'D', 'E', 'C':
			if err = c.extended(ctx, kind, body); err != nil {
				if err = c.fail(ctx, err); err == nil {
					c.skipping = true
					err = c.out.flush()
				}
			}
		case 'H':
			err = c.out.flush()
		case 'S':
			err = c.sync(ctx)
		case 'X':
			return nil
		case 'd', 'c', 'f':
			// What a client still sends after its COPY has failed.
		case 'F':
			if err = c.fail(ctx, errorf(codeFeatureNotSupported, "fastpath function calls are not supported")); err == nil {
				err = c.ready(ctx)
			}
		default: // 'p': nobody asked for a password
			err = fatalf(codeProtocolViolation, "invalid frontend message type %d", kind)
		}
		if err != nil {
			return err
		}
	}
}

// sendNow sends a message without waiting for more.
func (c *conn) sendNow(m pgproto3.BackendMessage) error {
	if err := c.out.send(m); err != nil {
		return err
	}
	return c.out.flush()
}

// fail tells the client of err and ends what depends on it: the implicit
// transaction and the portals. The error returned is one that the connection
// does not survive.
func (c *conn) fail(ctx context.Context, err error) error {
	var broken *socketError
	if errors.As(err, &broken) {
		return err
	}
	e, internal := describe(causeOf(ctx, err))
	if internal {
		c.log.Error("statement failed", "err", err)
	}
	if e.Severity == severityFatal {
		return e
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	c.server.metrics.failed(e.Code)
	c.sendNotices()
	if err := c.out.send(e.response()); err != nil {
		return err
	}
	c.closePortals()
	if err := c.session.SyncPoint(ctx, false); err != nil {
		return fmt.Errorf("roll back: %w", err)
	}
	return nil
}

// causeOf brings the cause of ctx, if it has ended, in front of err, so that a
// cancelled statement is reported by who cancelled it and not by where.
func causeOf(ctx context.Context, err error) error {
	var broken *socketError
	if err == nil || errors.As(err, &broken) {
		return err
	}
	var e *Error
	if ctx.Err() != nil && errors.As(context.Cause(ctx), &e) {
		return e
	}
	return err
}

// sync ends an extended-protocol cycle.
func (c *conn) sync(ctx context.Context) error {
	c.skipping = false
	sctx, end := c.step(ctx)
	err := causeOf(sctx, c.session.SyncPoint(sctx, true))
	end()
	if err != nil {
		if err = c.fail(ctx, err); err != nil {
			return err
		}
	}
	return c.ready(ctx)
}

// ready ends a cycle: all that was done is told, and the client may speak.
func (c *conn) ready(ctx context.Context) error {
	c.sendNotices()
	c.reportParameters()
	status := c.session.Status()
	if status == statusIdle {
		c.closePortals()
	}
	c.releaseDoomed()
	if err := c.sendNow(&pgproto3.ReadyForQuery{TxStatus: status}); err != nil {
		return err
	}
	c.inCycle = false
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (c *conn) sendNotices() {
	for _, n := range c.session.TakeNotices() {
		// A notice cannot fail: its texts are clipped.
		_ = c.out.send(n.response())
	}
}

// reportable are the parameters that PostgreSQL reports when they change.
var reportable = [...]string{
	"application_name", "client_encoding", "DateStyle", "default_transaction_read_only", "in_hot_standby", "integer_datetimes",
	"IntervalStyle", "is_superuser", "server_encoding", "server_version", "session_authorization", "standard_conforming_strings",
	"TimeZone",
}

func (c *conn) reportParameters() {
	current := c.session.Parameters()
	for _, name := range reportable {
		value, ok := current[name]
		if last, told := c.reported[name]; !ok || told && last == value {
			continue
		}
		c.reported[name] = value
		_ = c.out.send(&pgproto3.ParameterStatus{Name: name, Value: wireText(value)}) // short texts cannot fail
	}
}

// currentStyle is how the session wants times written now.
func (c *conn) currentStyle() *Style {
	if p := c.session.Parameters(); !c.style.current(p) {
		c.style = NewStyle(p)
	}
	return c.style
}
