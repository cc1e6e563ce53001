package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// Query is one SELECT in DuckDB's SQL. Its tables are "namespace"."table",
// found in Pin, or a temporary table of the session.
type Query struct {
	SQL string
	// Args are row values for $1, $2, …
	Args []any
	// ParamTypes, where they are not Unknown, are the types of $1, $2, …
	ParamTypes []Type
	Pin        *Pin // nil: no tables
	// Exact computes decimal and integer division and avg as Redshift does,
	// never in floating point, and makes a division by zero an error.
	Exact bool
	// Once says that the files will not be read again soon: what is in their
	// footers is not kept.
	Once bool
}

// Session runs the statements of one client. Queries whose rows are open do
// not stop others. A Session is for one goroutine at a time; its open Rows may
// be read by others.
type Session struct {
	e       *Engine
	trusted bool

	mu     sync.Mutex
	own    *conn // holds the temporary tables; made with the first
	busy   bool  // an open query uses own
	closed bool
	temps  map[string]string // lower case → as created
}

// Session returns a user's session: its statements pass the allow-list.
func (e *Engine) Session(ctx context.Context) (*Session, error) { return e.session(ctx, false) }

// InternalSession returns a session for the product's own statements, which
// may use any function. It must never run text that a user wrote.
func (e *Engine) InternalSession(ctx context.Context) (*Session, error) { return e.session(ctx, true) }

func (e *Engine) session(ctx context.Context, trusted bool) (*Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, contextError(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	return &Session{e: e, trusted: trusted, temps: map[string]string{}}, nil
}

// Close drops the session's temporary tables. Rows that are open stay usable.
func (s *Session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.own != nil && !s.busy {
		s.e.discard(s.own)
		s.own = nil
	}
	return nil
}

// conn returns the connection for the next statement: the session's own if it
// has temporary tables and no open query uses it, else one of the pool, where
// temporary tables cannot be seen.
func (s *Session) conn() (c *conn, temps map[string]string, done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, nil, ErrClosed
	}
	if s.own != nil && !s.busy {
		s.busy = true
		return s.own, s.temps, s.ownDone, nil
	}
	c, err = s.e.acquire()
	if err != nil {
		return nil, nil, nil, err
	}
	return c, nil, func() { s.e.giveBack(c) }, nil
}

func (s *Session) ownDone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
	if err := s.own.settle(); err != nil {
		s.e.log.Warn("connection was not settled", "error", err)
	}
	if s.closed {
		s.e.discard(s.own)
		s.own = nil
	}
}

// Rows is a result as it is computed. It must be closed; it holds its pin, a
// connection and at most a megabyte of rows until then.
type Rows struct {
	Columns []Column

	e      *Engine
	st     *stream
	stmt   *stmt
	pin    *Pin
	narrow *Pin // of pin, what the statement's conditions leave; may be nil
	done   func()
	cancel context.CancelFunc
	start  time.Time
	sql    string
	text   string
	count  int64
	err    error // the first, io.EOF apart
	closed bool
}

// Query starts a statement. ctx governs it until the rows are closed: its end
// interrupts DuckDB.
func (s *Session) Query(ctx context.Context, q Query) (rows *Rows, err error) {
	start := time.Now()
	defer func() {
		if err != nil {
			s.e.metrics.observe(start, err)
		}
	}()
	c, temps, done, err := s.conn()
	if err != nil {
		return nil, err
	}
	r := &Rows{e: s.e, done: done, start: start, sql: q.SQL}
	defer func() {
		if err != nil {
			r.free()
		}
	}()
	ctx, r.cancel = context.WithCancel(ctx)
	if err := s.e.enter(r); err != nil {
		return nil, err
	}
	if q.Pin != nil {
		if err := q.Pin.ref(); err != nil {
			return nil, err
		}
		r.pin = q.Pin
	}
	if r.narrow, err = s.e.narrowed(ctx, c, q); err != nil {
		return nil, err
	}
	if r.narrow != nil {
		q.Pin = r.narrow
	}
	b, err := s.e.bindStatement(ctx, c, q, temps, s.trusted)
	if err != nil {
		return nil, err
	}
	r.text = b.text
	if len(temps) == 0 { // else only the session's own connection has them
		on, back := s.e.swap(c, q.Once || q.Pin.fleeting())
		c, r.done = on, func() { back(); done() }
	}
	if r.stmt, err = c.prepare(ctx, b.text); err != nil {
		return nil, locate(err, b.text, q.SQL)
	}
	if err := r.stmt.bind(q.Args); err != nil {
		return nil, err
	}
	if r.st, err = r.stmt.stream(ctx); err != nil {
		return nil, locate(err, b.text, q.SQL)
	}
	r.Columns = r.st.cols
	return r, nil
}

func (e *Engine) enter(r *Rows) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	e.active[r] = r.cancel
	return nil
}

// Next reads one row into dst, which has len(Columns) elements, or returns
// io.EOF. After another error the rows are only good for Close.
func (r *Rows) Next(dst []any) error {
	if r.closed {
		return ErrClosed
	}
	if r.err != nil {
		return r.err
	}
	if len(dst) != len(r.Columns) {
		return &Error{Kind: Internal, Message: fmt.Sprintf("%d destinations for %d columns", len(dst), len(r.Columns))}
	}
	err := r.st.next(dst)
	if err == nil {
		r.count++
		return nil
	}
	return r.failed(err)
}

// failed keeps the first error, io.EOF apart, and returns it.
func (r *Rows) failed(err error) error {
	if errors.Is(err, io.EOF) {
		if changed := r.narrow.unchanged(); changed != nil {
			r.err = changed
			return changed
		}
		return err
	}
	r.err = locate(err, r.text, r.sql)
	return r.err
}

// Close stops the statement if it still runs. Further calls do nothing.
func (r *Rows) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	r.e.metrics.observe(r.start, r.err)
	r.e.metrics.rows.Add(float64(r.count))
	r.free()
	return nil
}

func (r *Rows) free() {
	if r.st != nil {
		r.st.close()
	}
	if r.stmt != nil {
		r.stmt.close()
	}
	if r.cancel != nil {
		r.cancel()
	}
	r.e.mu.Lock()
	delete(r.e.active, r)
	r.e.mu.Unlock()
	r.done()
	if r.narrow != nil {
		r.narrow.Release()
	}
	if r.pin != nil {
		r.pin.unref()
	}
}

// Describe gives the types of a statement's parameters and columns without
// running it. A parameter that the statement leaves open is VARCHAR.
func (s *Session) Describe(ctx context.Context, q Query) (params []Type, cols []Column, err error) {
	c, temps, done, err := s.conn()
	if err != nil {
		return nil, nil, err
	}
	defer done()
	if q.Pin != nil {
		if err := q.Pin.ref(); err != nil {
			return nil, nil, err
		}
		defer q.Pin.unref()
	}
	empty, err := s.e.described(ctx, c, q)
	if err != nil {
		return nil, nil, err
	}
	if empty != nil {
		defer empty.Release()
		q.Pin = empty
	}
	for attempt := 0; ; attempt++ {
		b, err := s.e.bindStatement(ctx, c, q, temps, s.trusted)
		if err != nil {
			return nil, nil, err
		}
		p, err := c.prepare(ctx, b.text)
		if err != nil {
			return nil, nil, locate(err, b.text, q.SQL)
		}
		params, cols = p.params(), p.columns()
		p.close()
		open := false
		for i := range params {
			if i < len(q.ParamTypes) && q.ParamTypes[i].Kind != Unknown {
				params[i] = q.ParamTypes[i]
			}
			if params[i].Kind == Unknown || params[i].Kind == Null {
				params[i], open = Type{Kind: Varchar}, true
				if t, ok := b.inferred[i+1]; ok {
					params[i] = t
				}
			}
		}
		if !open || attempt > 0 {
			return params, cols, nil
		}
		q.ParamTypes = params // a statement with open parameters has no column types
	}
}

// locate maps an error's position in the rewritten text to the caller's text:
// to the word that stands there, if the caller wrote it exactly once.
func locate(err error, text, sql string) error {
	var e *Error
	if !errors.As(err, &e) || e.Position == 0 {
		return err
	}
	at := e.Position - 1
	e.Position = 0
	if at >= len(text) {
		return err
	}
	end := at
	for end < len(text) && (text[end] == '_' || text[end] >= '0' && text[end] <= '9' || text[end]|0x20 >= 'a' && text[end]|0x20 <= 'z' || text[end] >= 0x80) {
		end++
	}
	word := strings.ToLower(text[at:end])
	lower := strings.ToLower(sql)
	if word == "" || len(lower) != len(sql) || strings.Count(lower, word) != 1 {
		return err
	}
	e.Position = strings.Index(lower, word) + 1
	return err
}
