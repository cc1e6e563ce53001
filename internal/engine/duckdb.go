package engine

import (
	"context"
	"errors"
	"io"
	"time"

	bindings "github.com/duckdb/duckdb-go-bindings"
)

// The adapter in this file is the only code that calls DuckDB to run a
// statement. It uses the bindings below the database/sql driver, because the
// driver materialises every result outside DuckDB's memory limit; the bindings
// reach streaming execution, which holds at most streaming_buffer_size of a
// result that its reader has not fetched.

// interruptEvery is how often an interrupt is repeated: DuckDB clears the flag
// when a statement starts, so that one sent just before is lost.
const interruptEvery = 20 * time.Millisecond

// conn is one DuckDB connection. It is used by one goroutine at a time.
type conn struct {
	c bindings.Connection

	// unfinished is set while a stream that was not read to its end has its
	// transaction: DuckDB ends it with the connection's next statement.
	unfinished bool

	// The parser's two statements, prepared on first use.
	serialize, deserialize *stmt
}

func connect(db bindings.Database) (*conn, error) {
	c := &conn{}
	if bindings.Connect(db, &c.c) == bindings.StateError {
		return nil, &Error{Kind: Internal, Message: "DuckDB refused a connection"}
	}
	return c, nil
}

func (c *conn) close() {
	if c.serialize != nil {
		c.serialize.close()
	}
	if c.deserialize != nil {
		c.deserialize.close()
	}
	bindings.Disconnect(&c.c)
}

// watch interrupts c for as long as ctx is done and stop has not been called.
// stop waits, so that no interrupt can hit the connection's next statement.
func (c *conn) watch(ctx context.Context) (stop func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	quit, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		select {
		case <-ctx.Done():
		case <-quit:
			return
		}
		tick := time.NewTicker(interruptEvery)
		defer tick.Stop()
		for {
			bindings.Interrupt(c.c)
			select {
			case <-tick.C:
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-gone }
}

// settle ends the transaction of a stream that was given up, so that an idle
// connection holds no state and what is registered next is not rolled back.
func (c *conn) settle() error {
	if !c.unfinished {
		return nil
	}
	c.unfinished = false
	return c.exec(context.Background(), "SELECT 1")
}

// exec runs trusted statements for their effect.
func (c *conn) exec(ctx context.Context, sql string) error {
	if err := ctx.Err(); err != nil {
		return contextError(err)
	}
	defer c.watch(ctx)()
	var res bindings.Result
	defer bindings.DestroyResult(&res)
	if bindings.Query(c.c, sql, &res) == bindings.StateError {
		return duckError(ctx, bindings.ResultError(&res))
	}
	return nil
}

// strings runs a trusted statement of one VARCHAR column.
func (c *conn) strings(ctx context.Context, sql string) ([]string, error) {
	s, err := c.prepare(ctx, sql)
	if err != nil {
		return nil, err
	}
	defer s.close()
	st, err := s.stream(ctx)
	if err != nil {
		return nil, err
	}
	defer st.close()
	var out []string
	dst := make([]any, 1)
	for {
		if err := st.next(dst); err != nil {
			if errors.Is(err, io.EOF) {
				return out, nil
			}
			return nil, err
		}
		v, _ := dst[0].(string)
		out = append(out, v)
	}
}

// stmt is one prepared statement of a connection.
type stmt struct {
	c *conn
	p bindings.PreparedStatement
}

func (c *conn) prepare(ctx context.Context, sql string) (*stmt, error) {
	if err := ctx.Err(); err != nil {
		return nil, contextError(err)
	}
	defer c.watch(ctx)()
	s := &stmt{c: c}
	if bindings.Prepare(c.c, sql, &s.p) == bindings.StateError {
		err := duckError(ctx, bindings.PrepareError(s.p))
		bindings.DestroyPrepare(&s.p)
		return nil, err
	}
	return s, nil
}

func (s *stmt) close() { bindings.DestroyPrepare(&s.p) }

func (s *stmt) params() []Type {
	ts := make([]Type, bindings.NParams(s.p))
	for i := range ts {
		lt := bindings.ParamLogicalType(s.p, bindings.IdxT(i+1))
		if lt.Ptr != nil {
			ts[i] = typeOf(lt)
			bindings.DestroyLogicalType(&lt)
		}
	}
	return ts
}

func (s *stmt) columns() []Column {
	cols := make([]Column, bindings.PreparedStatementColumnCount(s.p))
	for i := range cols {
		lt := bindings.PreparedStatementColumnLogicalType(s.p, bindings.IdxT(i))
		cols[i] = Column{Name: bindings.PreparedStatementColumnName(s.p, bindings.IdxT(i)), Type: typeOf(lt)}
		bindings.DestroyLogicalType(&lt)
	}
	return cols
}

// stream is a running statement: chunks are computed as they are fetched.
type stream struct {
	c    *conn
	ctx  context.Context // of the statement; it is not kept past close
	stop func()
	res  bindings.Result
	cols []Column

	chunk   bindings.DataChunk
	readers []reader
	row     int
	rows    int // of chunk
	done    bool
}

// stream starts s, whose parameters are bound. Cancelling ctx interrupts the
// statement until the stream is closed.
func (s *stmt) stream(ctx context.Context) (*stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, contextError(err)
	}
	st := &stream{c: s.c, ctx: ctx, stop: s.c.watch(ctx)}
	var pending bindings.PendingResult
	if bindings.PendingPreparedStreaming(s.p, &pending) == bindings.StateError {
		err := duckError(ctx, bindings.PendingError(pending))
		bindings.DestroyPending(&pending)
		st.stop()
		return nil, err
	}
	await(pending)
	state := bindings.ExecutePending(pending, &st.res)
	bindings.DestroyPending(&pending)
	if state == bindings.StateError {
		err := duckError(ctx, bindings.ResultError(&st.res))
		bindings.DestroyResult(&st.res)
		st.stop()
		return nil, err
	}
	n := int(bindings.ColumnCount(&st.res))
	st.cols = make([]Column, n)
	st.readers = make([]reader, n)
	for i := range st.cols {
		lt := bindings.ColumnLogicalType(&st.res, bindings.IdxT(i))
		st.cols[i] = Column{Name: bindings.ColumnName(&st.res, bindings.IdxT(i)), Type: typeOf(lt)}
		r, err := newReader(lt)
		bindings.DestroyLogicalType(&lt)
		if err != nil {
			st.close()
			return nil, err
		}
		st.readers[i] = r
	}
	return st, nil
}

// idleFirst and idleMax bound the pauses in which await looks for work again.
const (
	idleFirst = 20 * time.Microsecond
	idleMax   = 320 * time.Microsecond
)

// await runs the statement's tasks until its result, or error, is there. It does
// what ExecutePending does first, but while DuckDB's own threads have all the
// tasks it sleeps, where ExecutePending asks for another without a pause: beside
// ingestion at full rate that spinning took 5 % of both processors.
func await(pending bindings.PendingResult) {
	idle := idleFirst
	for {
		switch state := bindings.PendingExecuteTask(pending); {
		case bindings.PendingExecutionIsFinished(state) || state == bindings.PendingStateError:
			return
		case state == bindings.PendingStateNoTasksAvailable:
			time.Sleep(idle)
			idle = min(2*idle, idleMax)
		default:
			idle = idleFirst
		}
	}
}

// next reads one row into dst, or returns io.EOF.
func (st *stream) next(dst []any) error {
	for st.row == st.rows {
		if err := st.fetch(); err != nil {
			return err
		}
	}
	for i := range st.readers {
		dst[i] = st.readers[i].value(st.row)
	}
	st.row++
	return nil
}

func (st *stream) fetch() error {
	if st.done {
		return io.EOF
	}
	if err := st.ctx.Err(); err != nil {
		return contextError(err)
	}
	bindings.DestroyDataChunk(&st.chunk)
	st.row, st.rows = 0, 0
	// Not StreamFetchChunk: DuckDB materialises some small results, such as a
	// COPY's count, whatever was asked for. No chunk is the end or an error.
	st.chunk = bindings.FetchChunk(st.res)
	if st.chunk.Ptr == nil {
		st.done = true
		if text := bindings.ResultError(&st.res); text != "" {
			return duckError(st.ctx, text)
		}
		if err := st.ctx.Err(); err != nil {
			return contextError(err)
		}
		return io.EOF
	}
	st.rows = int(bindings.DataChunkGetSize(st.chunk))
	if st.rows == 0 {
		st.done = true
		return io.EOF
	}
	for i := range st.readers {
		st.readers[i].reset(bindings.DataChunkGetVector(st.chunk, bindings.IdxT(i)))
	}
	return nil
}

func (st *stream) close() {
	bindings.DestroyDataChunk(&st.chunk)
	bindings.DestroyResult(&st.res)
	st.stop()
	st.c.unfinished = st.c.unfinished || !st.done
}
