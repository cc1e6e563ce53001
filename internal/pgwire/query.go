package pgwire

import (
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgproto3"
)

// query serves a simple query: one or more statements, in one implicit
// transaction unless they say otherwise.
func (c *conn) query(ctx context.Context, body []byte) error {
	var m pgproto3.Query
	if err := m.Decode(body); err != nil {
		return fatalf(codeProtocolViolation, "malformed Query message")
	}
	c.dropStatement("")
	c.closePortal("")
	qctx, end := c.step(ctx)
	err := causeOf(qctx, c.runQuery(qctx, m.String))
	end()
	if err != nil {
		if err = c.fail(ctx, err); err != nil {
			return err
		}
	}
	return c.ready(ctx)
}

func (c *conn) runQuery(ctx context.Context, sql string) error {
	if !utf8.ValidString(sql) {
		return errEncoding
	}
	parts, err := c.session.Split(sql)
	if err != nil {
		return err
	}
	sent, at := false, 0
	for i, part := range parts {
		if n := strings.Index(sql[at:], part); n >= 0 {
			at += n
		}
		tag, err := c.runStatement(ctx, part)
		if err != nil {
			return displace(err, utf8.RuneCountInString(sql[:at]))
		}
		at = min(at+len(part), len(sql))
		if i == len(parts)-1 {
			// A client that reads the tag may take the work for done.
			if err := c.session.SyncPoint(ctx, true); err != nil {
				return err
			}
		}
		if tag != nil {
			if err := c.complete(*tag); err != nil {
				return err
			}
			sent = true
		}
	}
	if !sent {
		return c.out.send(&pgproto3.EmptyQueryResponse{})
	}
	return nil
}

// displace moves the position of an error in one of several statements to where
// it is in the text that the client sent.
func displace(err error, by int) error {
	if by == 0 {
		return err
	}
	e, internal := describe(err)
	if internal || e.Position == 0 {
		return err
	}
	moved := *e
	moved.Position += by
	return &moved
}

func (c *conn) complete(tag string) error {
	c.sendNotices()
	return c.out.send(&pgproto3.CommandComplete{CommandTag: []byte(tag)})
}

// runStatement runs one statement of a simple query and sends its rows. A nil
// tag is that of an empty statement.
func (c *conn) runStatement(ctx context.Context, sql string) (tag *string, err error) {
	started := time.Now()
	st, err := c.session.Prepare(ctx, sql, nil)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := st.release(); err == nil && cerr != nil {
			err = cerr
		}
	}()
	if st.Empty {
		return nil, nil
	}
	if len(st.ParamOIDs) > 0 {
		return nil, errorf(codeUndefinedParameter, "there is no parameter $1")
	}
	done, err := c.runPlain(ctx, st)
	if err != nil {
		return nil, err
	}
	c.server.metrics.completed(done, started)
	return &done, nil
}

func (c *conn) runPlain(ctx context.Context, st *Statement) (tag string, err error) {
	if st.Copy != nil && st.Copy.In {
		return c.copyIn(ctx, st)
	}
	result, err := c.session.Execute(ctx, st, nil)
	if err != nil {
		return "", err
	}
	defer func() {
		if cerr := result.Close(); err == nil && cerr != nil {
			err = cerr
		}
	}()
	if st.Copy != nil {
		return c.copyOut(ctx, st.Copy, result)
	}
	columns := result.Columns()
	if len(columns) > 0 {
		if err := c.describeRows(columns, nil); err != nil {
			return "", err
		}
	}
	if _, _, err := c.sendRows(ctx, result, columns, nil, 0); err != nil {
		return "", err
	}
	return result.Tag(), nil
}

// describeRows sends RowDescription; formats is as in rowFormat.
func (c *conn) describeRows(columns []Column, formats []int16) error {
	fields := make([]pgproto3.FieldDescription, len(columns))
	for i, col := range columns {
		modifier := col.Modifier
		if modifier == 0 {
			modifier = -1
		}
		fields[i] = pgproto3.FieldDescription{
			Name: []byte(wireText(col.Name)), DataTypeOID: col.OID, DataTypeSize: typeSize(col), TypeModifier: modifier,
			Format: rowFormat(formats, i),
		}
	}
	if len(fields) > math.MaxUint16 {
		return errorf(codeLimitExceeded, "result has %d columns", len(fields))
	}
	return c.out.send(&pgproto3.RowDescription{Fields: fields})
}

// rowFormat is the format of column i: none given is text, one is for all.
func rowFormat(formats []int16, i int) int16 {
	switch len(formats) {
	case 0:
		return formatText
	case 1:
		return formats[0]
	}
	return formats[i]
}

// sendRows sends up to rowsMax rows, or all if it is 0. done is whether the result
// has ended.
func (c *conn) sendRows(ctx context.Context, result Result, columns []Column, formats []int16, rowsMax uint32) (n uint32, done bool, err error) {
	style := c.currentStyle()
	defer func() { c.server.metrics.rows.Add(float64(n)) }()
	row := c.rowBuffer(len(columns))
	for ; rowsMax == 0 || n < rowsMax; n++ {
		switch err := result.Next(row); {
		case errors.Is(err, io.EOF):
			return n, true, nil
		case err != nil:
			return n, false, err
		}
		start := c.out.begin('D')
		err := c.out.end(start, c.appendRow(style, columns, formats, row))
		if err != nil {
			return n, false, err
		}
		if len(c.out.buf) >= c.out.sizeBytes {
			if err := c.out.flush(); err != nil {
				return n, false, err
			}
			if ctx.Err() != nil {
				return n, false, context.Cause(ctx)
			}
		}
	}
	return n, false, nil
}

// rowBuffer is emptied, so that a result that fills too little shows no value
// of another row.
func (c *conn) rowBuffer(n int) []any {
	if cap(c.row) < n {
		c.row = make([]any, n)
	}
	row := c.row[:n]
	clear(row)
	return row
}

// appendRow appends the body of DataRow.
func (c *conn) appendRow(style *Style, columns []Column, formats []int16, row []any) error {
	buf := append(c.out.buf, byte(len(columns)>>8), byte(len(columns)))
	var err error
	for i, v := range row {
		if v == nil {
			buf = append(buf, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		at := len(buf)
		buf = append(buf, 0, 0, 0, 0)
		if rowFormat(formats, i) == formatBinary {
			buf, err = style.appendBinary(buf, columns[i].OID, v)
		} else {
			buf, err = style.AppendText(buf, v)
		}
		if err != nil {
			break
		}
		putLength(buf, at)
	}
	c.out.buf = buf
	return err
}

// putLength sets the length field at at to what follows it.
func putLength(buf []byte, at int) {
	n := len(buf) - at - 4
	buf[at], buf[at+1], buf[at+2], buf[at+3] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
}
