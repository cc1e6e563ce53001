package pgwire

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Bounds of what one connection may keep. Drivers cache some hundred
// statements; a loop that never closes any is a bug that should be told.
const (
	statementsMax         = 4096
	statementSizeBytesMax = 64 << 20 // of all texts together
	portalsMax            = 1024
)

// A statement is one that Parse made.
type statement struct {
	*Statement
	sizeBytes int
}

func (st *Statement) release() error {
	if h, ok := st.Handle.(io.Closer); ok {
		return h.Close()
	}
	return nil
}

// A portal is a bound statement, perhaps with its result half read.
type portal struct {
	name    string
	st      *Statement
	args    []any
	formats []int16
	result  Result // nil until Execute
	// ctx is that of result, which outlives the Execute that opened it.
	ctx       context.Context
	cancel    context.CancelCauseFunc
	suspended bool
	done      bool
}

func (p *portal) close() {
	if p.result != nil {
		_ = p.result.Close() // the statement's outcome has been told already
		p.result = nil
	}
	if p.cancel != nil {
		p.cancel(nil)
	}
}

// extended serves Parse, Bind, Describe, Execute and Close.
func (c *conn) extended(ctx context.Context, kind byte, body []byte) error {
	malformed := func(what string) error { return errorf(codeProtocolViolation, "invalid message format: %s", what) }
	switch kind {
	case 'P':
		var m pgproto3.Parse
		if m.Decode(body) != nil {
			return malformed("Parse")
		}
		return c.parse(ctx, &m)
	case 'B':
		var m pgproto3.Bind
		if m.Decode(body) != nil {
			return malformed("Bind")
		}
		return c.bind(&m)
	case 'D':
		var m pgproto3.Describe
		if m.Decode(body) != nil {
			return malformed("Describe")
		}
		return c.describe(m.ObjectType, m.Name)
	case 'E':
		var m pgproto3.Execute
		if m.Decode(body) != nil {
			return malformed("Execute")
		}
		rowsMax := m.MaxRows
		if int32(rowsMax) < 0 {
			rowsMax = 0
		}
		return c.execute(ctx, m.Portal, rowsMax)
	}
	var m pgproto3.Close
	if m.Decode(body) != nil {
		return malformed("Close")
	}
	switch m.ObjectType {
	case 'S':
		c.dropStatement(m.Name)
	case 'P':
		c.closePortal(m.Name)
	default:
		return errorf(codeProtocolViolation, "invalid CLOSE message subtype %d", m.ObjectType)
	}
	return c.out.send(&pgproto3.CloseComplete{})
}

func (c *conn) parse(ctx context.Context, m *pgproto3.Parse) error {
	if !utf8.ValidString(m.Query) || !utf8.ValidString(m.Name) {
		return errEncoding
	}
	if m.Name == "" {
		c.dropStatement("")
	} else if c.statements[m.Name] != nil {
		return errorf(codeDuplicateStatement, "prepared statement %q already exists", clip(m.Name))
	}
	if len(c.statements)+len(c.doomed) >= statementsMax || c.statementBytes+len(m.Query) > statementSizeBytesMax {
		return &Error{Code: codeLimitExceeded, Message: "too many prepared statements",
			Detail: fmt.Sprintf("A session may hold %d statements with together %d bytes of text.", statementsMax, statementSizeBytesMax),
			Hint:   "Close statements, or let the driver keep fewer."}
	}
	sctx, end := c.step(ctx)
	defer end()
	st, err := c.session.Prepare(sctx, m.Query, m.ParameterOIDs)
	if err != nil {
		return causeOf(sctx, err)
	}
	c.statements[m.Name] = &statement{Statement: st, sizeBytes: len(m.Query)}
	c.statementBytes += len(m.Query)
	return c.out.send(&pgproto3.ParseComplete{})
}

// dropStatement forgets a statement and reports whether there was one.
func (c *conn) dropStatement(name string) bool {
	st := c.statements[name]
	if st == nil {
		return false
	}
	delete(c.statements, name)
	c.releaseStatement(st)
	return true
}

// releaseStatement closes a statement and the portals made of it.
func (c *conn) releaseStatement(st *statement) {
	for name, p := range c.portals {
		if p.st == st.Statement {
			c.closePortal(name)
		}
	}
	c.statementBytes -= st.sizeBytes
	if err := st.release(); err != nil {
		c.log.Error("prepared statement not released", "err", err)
	}
}

// deallocate is SessionOptions.Deallocate. The statement that says DEALLOCATE
// may itself be one of those it names, and runs: so they lose their names now
// and the rest at the end of the cycle. The unnamed statement stays, as in
// PostgreSQL.
func (c *conn) deallocate(name string) bool {
	if name == "" {
		for name := range c.statements {
			if name != "" {
				c.deallocate(name)
			}
		}
		return true
	}
	st := c.statements[name]
	if st == nil {
		return false
	}
	delete(c.statements, name)
	c.doomed = append(c.doomed, st)
	return true
}

func (c *conn) releaseDoomed() {
	for _, st := range c.doomed {
		c.releaseStatement(st)
	}
	c.doomed = c.doomed[:0]
}

func (c *conn) closePortal(name string) {
	if p := c.portals[name]; p != nil {
		delete(c.portals, name)
		p.close()
	}
}

func (c *conn) closePortals() {
	for name := range c.portals {
		c.closePortal(name)
	}
}

func (c *conn) bind(m *pgproto3.Bind) error {
	st := c.statements[m.PreparedStatement]
	if st == nil {
		return noStatement(m.PreparedStatement)
	}
	if m.DestinationPortal == "" {
		c.closePortal("")
	} else if c.portals[m.DestinationPortal] != nil {
		return errorf(codeDuplicateCursor, "cursor %q already exists", clip(m.DestinationPortal))
	}
	if len(c.portals) >= portalsMax {
		return errorf(codeLimitExceeded, "too many open portals (%d)", portalsMax)
	}
	if !utf8.ValidString(m.DestinationPortal) {
		return errEncoding
	}
	if n := len(m.ParameterFormatCodes); n > 1 && n != len(m.Parameters) {
		return errorf(codeProtocolViolation, "bind message has %d parameter formats but %d parameters", n, len(m.Parameters))
	}
	if len(m.Parameters) != len(st.ParamOIDs) {
		return errorf(codeProtocolViolation, "bind message supplies %d parameters, but prepared statement %q requires %d",
			len(m.Parameters), clip(m.PreparedStatement), len(st.ParamOIDs))
	}
	if n := len(m.ResultFormatCodes); n > 1 && n != len(st.Columns) {
		return errorf(codeProtocolViolation, "bind message has %d result formats but query has %d columns", n, len(st.Columns))
	}
	for i, col := range st.Columns {
		if rowFormat(m.ResultFormatCodes, i) == formatBinary && !hasBinary(col.OID) {
			return noBinary(col.OID)
		}
	}
	for _, format := range append(m.ParameterFormatCodes, m.ResultFormatCodes...) {
		if format != formatText && format != formatBinary {
			return errorf(codeInvalidParameter, "unsupported format code: %d", format)
		}
	}
	style := c.currentStyle()
	args := make([]any, len(m.Parameters))
	for i, raw := range m.Parameters {
		if raw == nil {
			continue
		}
		v, err := style.DecodeParameter(st.ParamOIDs[i], rowFormat(m.ParameterFormatCodes, i), raw)
		if err != nil {
			if e, internal := describe(err); !internal {
				located := *e
				located.Where = fmt.Sprintf("parameter $%d", i+1)
				err = &located
			}
			return err
		}
		args[i] = v
	}
	c.portals[m.DestinationPortal] = &portal{
		name: m.DestinationPortal, st: st.Statement, args: args, formats: append([]int16(nil), m.ResultFormatCodes...),
	}
	return c.out.send(&pgproto3.BindComplete{})
}

func noStatement(name string) error {
	if name == "" {
		return errorf(codeInvalidStatementName, "unnamed prepared statement does not exist")
	}
	return errorf(codeInvalidStatementName, "prepared statement %q does not exist", clip(name))
}

func (c *conn) describe(object byte, name string) error {
	var columns []Column
	var formats []int16
	switch object {
	case 'S':
		st := c.statements[name]
		if st == nil {
			return noStatement(name)
		}
		if err := c.out.send(&pgproto3.ParameterDescription{ParameterOIDs: st.ParamOIDs}); err != nil {
			return err
		}
		columns = st.rowColumns()
	case 'P':
		p := c.portals[name]
		if p == nil {
			return errorf(codeInvalidCursorName, "portal %q does not exist", clip(name))
		}
		columns, formats = p.st.rowColumns(), p.formats
	default:
		return errorf(codeProtocolViolation, "invalid DESCRIBE message subtype %d", object)
	}
	if len(columns) == 0 {
		return c.out.send(&pgproto3.NoData{})
	}
	return c.describeRows(columns, formats)
}

// rowColumns are the columns of the rows that come as DataRow: COPY's do not.
func (st *Statement) rowColumns() []Column {
	if st.Copy != nil {
		return nil
	}
	return st.Columns
}

// execute runs a portal, or goes on with a suspended one.
func (c *conn) execute(ctx context.Context, name string, rowsMax uint32) error {
	p := c.portals[name]
	switch {
	case p == nil:
		return errorf(codeInvalidCursorName, "portal %q does not exist", clip(name))
	case p.st.Empty:
		return c.out.send(&pgproto3.EmptyQueryResponse{})
	case p.done && len(p.st.rowColumns()) > 0:
		return c.complete("SELECT 0")
	case p.done:
		return errorf(codeNotInPrerequisite, "portal %q cannot be run", clip(name))
	}
	if p.ctx == nil {
		p.ctx, p.cancel = context.WithCancelCause(ctx)
	}
	started, before := time.Now(), c.session.Status()
	end := c.begin(p.cancel)
	tag, err := c.runPortal(p, rowsMax)
	end()
	if err != nil {
		return causeOf(p.ctx, err)
	}
	if tag == "" { // suspended
		return c.out.send(&pgproto3.PortalSuspended{})
	}
	if before != statusIdle && c.session.Status() == statusIdle {
		c.closePortals() // COMMIT, ROLLBACK
	}
	c.server.metrics.completed(tag, started)
	return c.complete(tag)
}

// runPortal returns the command tag, or "" if rowsMax rows were sent before the end.
func (c *conn) runPortal(p *portal, rowsMax uint32) (tag string, err error) {
	if p.st.Copy != nil && p.st.Copy.In {
		p.done = true
		return c.copyIn(p.ctx, p.st)
	}
	if p.result == nil {
		if p.result, err = c.session.Execute(p.ctx, p.st, p.args); err != nil {
			p.result = nil
			return "", err
		}
	}
	if p.st.Copy != nil {
		p.done = true
		tag, err = c.copyOut(p.ctx, p.st.Copy, p.result)
	} else {
		columns := p.result.Columns()
		if !sameTypes(columns, p.st.Columns) {
			return "", errorf(codeFeatureNotSupported, "cached plan must not change result type")
		}
		var n uint32
		n, p.done, err = c.sendRows(p.ctx, p.result, columns, p.formats, rowsMax)
		if err != nil {
			return "", err
		}
		if !p.done {
			p.suspended = true
			return "", nil
		}
		tag = p.result.Tag()
		if word, _, ok := strings.Cut(tag, " "); ok && p.suspended && word == "SELECT" {
			tag = word + " " + strconv.FormatUint(uint64(n), 10) // counts this Execute only
		}
	}
	result := p.result
	p.result = nil
	if cerr := result.Close(); err == nil {
		err = cerr
	}
	return tag, err
}

func sameTypes(a, b []Column) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].OID != b[i].OID {
			return false
		}
	}
	return true
}
