package pgwire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5/pgproto3"
)

// The head of binary COPY data: signature, flags, length of an extension.
var copySignature = []byte("PGCOPY\n\xff\r\n\x00")

const (
	copyFlagOIDs     = 1 << 16
	copyFlagsUnknown = 0xffff0000 // a reader must refuse those it does not know
	copyTrailer      = 0xffff
)

// copyOptions are Copy with its defaults filled in.
type copyOptions struct {
	*Copy
	delimiter, quote, escape byte
	null                     string
}

func (c *Copy) options() copyOptions {
	o := copyOptions{Copy: c, delimiter: c.Delimiter, quote: c.Quote, escape: c.Escape}
	if o.delimiter == 0 {
		o.delimiter = '\t'
		if c.Format == CopyCSV {
			o.delimiter = ','
		}
	}
	if o.quote == 0 {
		o.quote = '"'
	}
	if o.escape == 0 {
		o.escape = o.quote
	}
	switch {
	case c.Null != nil:
		o.null = *c.Null
	case c.Format == CopyText:
		o.null = `\N`
	}
	return o
}

func flag(flags []bool, i int) bool { return i < len(flags) && flags[i] }

// formats is the overall and the per-column format of a COPY response.
func (c *Copy) formats(columns int) (byte, []uint16) {
	codes := make([]uint16, columns)
	if c.Format != CopyBinary {
		return 0, codes
	}
	for i := range codes {
		codes[i] = 1
	}
	return 1, codes
}

// copyOut sends a result as COPY data, one row a message.
func (c *conn) copyOut(ctx context.Context, cp *Copy, result Result) (tag string, err error) {
	columns := result.Columns()
	overall, codes := cp.formats(len(columns))
	if err := c.out.send(&pgproto3.CopyOutResponse{OverallFormat: overall, ColumnFormatCodes: codes}); err != nil {
		return "", err
	}
	w := copyWriter{copyOptions: cp.options(), style: c.currentStyle(), columns: columns}
	start := c.out.begin('d')
	if c.out.buf = w.appendHead(c.out.buf); len(c.out.buf) == start+frameHeaderSizeBytes {
		c.out.buf = c.out.buf[:start]
	} else if err := c.out.end(start, nil); err != nil {
		return "", err
	}
	row := c.rowBuffer(len(columns))
	n := uint64(0)
	defer func() { c.server.metrics.rows.Add(float64(n)) }()
	for ; ; n++ {
		switch err := result.Next(row); {
		case errors.Is(err, io.EOF):
			if cp.Format == CopyBinary {
				start := c.out.begin('d')
				c.out.buf = binary.BigEndian.AppendUint16(c.out.buf, copyTrailer)
				if err := c.out.end(start, nil); err != nil {
					return "", err
				}
			}
			return fmt.Sprintf("COPY %d", n), c.out.send(&pgproto3.CopyDone{})
		case err != nil:
			return "", err
		}
		start := c.out.begin('d')
		c.out.buf, err = w.appendRow(c.out.buf, row)
		if err := c.out.end(start, err); err != nil {
			return "", err
		}
		if err := c.out.drain(); err != nil {
			return "", err
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
	}
}

// copyWriter formats rows.
type copyWriter struct {
	copyOptions
	style   *Style
	columns []Column
	field   []byte
}

func (w *copyWriter) appendHead(dst []byte) []byte {
	if w.Format == CopyBinary {
		return append(append(dst, copySignature...), 0, 0, 0, 0, 0, 0, 0, 0)
	}
	if !w.Header {
		return dst
	}
	for i, col := range w.columns {
		if i > 0 {
			dst = append(dst, w.delimiter)
		}
		if w.Format == CopyCSV {
			dst = w.appendCSV(dst, []byte(col.Name), false)
		} else {
			dst = w.appendEscaped(dst, []byte(col.Name))
		}
	}
	return append(dst, '\n')
}

func (w *copyWriter) appendRow(dst []byte, row []any) ([]byte, error) {
	var err error
	if w.Format == CopyBinary {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(row)))
		for i, v := range row {
			if v == nil {
				dst = append(dst, 0xff, 0xff, 0xff, 0xff)
				continue
			}
			at := len(dst)
			if dst, err = w.style.appendBinary(append(dst, 0, 0, 0, 0), w.columns[i].OID, v); err != nil {
				return dst, err
			}
			putLength(dst, at)
		}
		return dst, nil
	}
	for i, v := range row {
		if i > 0 {
			dst = append(dst, w.delimiter)
		}
		if v == nil {
			dst = append(dst, w.null...)
			continue
		}
		if w.field, err = w.style.AppendText(w.field[:0], v); err != nil {
			return dst, err
		}
		if w.Format == CopyCSV {
			dst = w.appendCSV(dst, w.field, flag(w.ForceQuote, i))
		} else {
			dst = w.appendEscaped(dst, w.field)
		}
	}
	return append(dst, '\n'), nil
}

// appendEscaped appends a field of the text format.
func (w *copyWriter) appendEscaped(dst, field []byte) []byte {
	for _, ch := range field {
		switch ch {
		case '\\':
			dst = append(dst, '\\', '\\')
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		case '\v':
			dst = append(dst, '\\', 'v')
		case w.delimiter:
			dst = append(dst, '\\', ch)
		default:
			dst = append(dst, ch)
		}
	}
	return dst
}

// appendCSV appends a field, in quotes where a reader would misread it bare.
func (w *copyWriter) appendCSV(dst, field []byte, force bool) []byte {
	quote := force || string(field) == w.null || (len(w.columns) == 1 && string(field) == `\.`)
	for _, ch := range field {
		if quote {
			break
		}
		quote = ch == w.delimiter || ch == w.quote || ch == '\n' || ch == '\r'
	}
	if !quote {
		return append(dst, field...)
	}
	dst = append(dst, w.quote)
	for _, ch := range field {
		if ch == w.quote || ch == w.escape {
			dst = append(dst, w.escape)
		}
		dst = append(dst, ch)
	}
	return append(dst, w.quote)
}

// copyIn asks the client for data and hands its rows to the session.
func (c *conn) copyIn(ctx context.Context, st *Statement) (tag string, err error) {
	cp := st.Copy
	for _, col := range cp.Columns {
		if cp.Format == CopyBinary && !hasBinary(col.OID) {
			return "", noBinary(col.OID)
		}
	}
	overall, codes := cp.formats(len(cp.Columns))
	c.sendNotices()
	if err := c.sendNow(&pgproto3.CopyInResponse{OverallFormat: overall, ColumnFormatCodes: codes}); err != nil {
		return "", err
	}
	r := newCopyReader(cp, c.currentStyle(), c.server.o.MaxMessageBytes, func() ([]byte, error) { return c.copyData(ctx) })
	tag, err = c.session.CopyIn(ctx, st, r)
	if r.err != nil && !errors.Is(r.err, io.EOF) {
		return "", r.err // the session's own error is but its echo
	}
	if err != nil {
		return "", err
	}
	// A session may stop before the end of the data, but not of the messages.
	for !r.ended {
		if _, err := c.copyData(ctx); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return "", err
		}
	}
	return tag, nil
}

// copyData waits for the next CopyData; io.EOF at CopyDone. The data is valid
// until the next call.
func (c *conn) copyData(ctx context.Context) ([]byte, error) {
	for {
		kind, body, err := c.receive(ctx)
		if err != nil {
			return nil, err
		}
		switch kind {
		case 'd':
			return body, nil
		case 'c':
			return nil, io.EOF
		case 'f':
			var m pgproto3.CopyFail
			if m.Decode(body) != nil {
				return nil, errorf(codeProtocolViolation, "invalid message format: CopyFail")
			}
			return nil, errorf(codeQueryCanceled, "COPY from stdin failed: %s", m.Message)
		case 'H', 'S': // a client of the extended protocol may have sent them ahead
		case 'X':
			return nil, &socketError{"read from", io.EOF}
		default:
			return nil, fatalf(codeProtocolViolation, "unexpected message type 0x%02X during COPY from stdin", kind)
		}
	}
}
