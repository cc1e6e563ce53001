package pgwire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A copyReader turns COPY data, cut into messages anywhere, into rows. It holds
// one row at a time, of at most rowSizeMax bytes.
type copyReader struct {
	copyOptions
	style      *Style
	rowSizeMax int
	more       func() ([]byte, error) // next piece of data; io.EOF

	data  []byte // data[start:] is not yet consumed
	start int
	ended bool  // more has returned io.EOF
	err   error // sticky, io.EOF included

	line     int // of the row in hand, from 1
	begun    bool
	fields   [][]byte // nil is NULL
	scratch  []byte
	scanned  int  // bytes of buf known to hold no end of row
	quoted   bool // state at scanned: within quotes
	escaping bool // state at scanned: behind an escape
}

func newCopyReader(cp *Copy, style *Style, rowSizeMax int, more func() ([]byte, error)) *copyReader {
	return &copyReader{copyOptions: cp.options(), style: style, rowSizeMax: rowSizeMax, more: more, fields: make([][]byte, 0, len(cp.Columns))}
}

// Next implements RowReader.
func (r *copyReader) Next(dst []any) error {
	if r.err != nil {
		return r.err
	}
	var err error
	if r.Format == CopyBinary {
		err = r.nextBinary(dst)
	} else {
		err = r.nextLine(dst)
	}
	if err != nil {
		r.err = r.locate(err)
	}
	return r.err
}

// locate adds the line to an error about the data.
func (r *copyReader) locate(err error) error {
	var e *Error
	if !errors.As(err, &e) || e.Severity == severityFatal || e.Code == codeQueryCanceled {
		return err
	}
	located := *e
	what := "line"
	if r.Format == CopyBinary {
		what = "row"
	}
	located.Where = fmt.Sprintf("COPY, %s %d", what, r.line)
	if e.Where != "" {
		located.Where += ", " + e.Where
	}
	return &located
}

// rest is the data at hand.
func (r *copyReader) rest() []byte { return r.data[r.start:] }

// take consumes n bytes of it; valid until the next fill.
func (r *copyReader) take(n int) []byte {
	b := r.data[r.start : r.start+n]
	r.start += n
	return b
}

// fill appends the next piece of data; io.EOF at the end of data.
func (r *copyReader) fill() error {
	if r.ended {
		return io.EOF
	}
	if len(r.rest()) > r.rowSizeMax {
		return errorf(codeLimitExceeded, "a row of COPY data exceeds %d bytes", r.rowSizeMax)
	}
	piece, err := r.more()
	if err != nil {
		r.ended = errors.Is(err, io.EOF)
		return err
	}
	if r.start > 0 { // what was consumed makes room
		r.data = r.data[:copy(r.data, r.rest())]
		r.start = 0
	}
	r.data = append(r.data, piece...)
	return nil
}

func (r *copyReader) field(dst []any, i int, format int16, raw []byte) error {
	v, err := r.style.DecodeParameter(r.Columns[i].OID, format, raw)
	if err != nil {
		if e, internal := describe(err); !internal {
			located := *e
			located.Where = "column " + r.Columns[i].Name
			return &located
		}
		return err
	}
	dst[i] = v
	return nil
}

// --- text and CSV ---

func (r *copyReader) nextLine(dst []any) error {
	if !r.begun {
		r.begun = true
		if r.Header {
			line, err := r.readLine()
			if err != nil {
				return err
			}
			if err := r.checkHeader(line); err != nil {
				return err
			}
		}
	}
	line, err := r.readLine()
	if err != nil {
		return err
	}
	if string(line) == `\.` {
		return r.discard()
	}
	if err := r.split(line); err != nil {
		return err
	}
	switch {
	case len(r.fields) < len(r.Columns):
		return errorf(codeBadCopyFormat, "missing data for column %q", r.Columns[len(r.fields)].Name)
	case len(r.fields) > len(r.Columns):
		return errorf(codeBadCopyFormat, "extra data after last expected column")
	}
	for i, raw := range r.fields {
		dst[i] = nil
		if raw == nil {
			continue
		}
		if err := r.field(dst, i, formatText, raw); err != nil {
			return err
		}
	}
	return nil
}

// discard reads on to the end of the messages, behind an explicit end of data.
func (r *copyReader) discard() error {
	for {
		r.take(len(r.rest()))
		if err := r.fill(); err != nil {
			return err
		}
	}
}

func (r *copyReader) checkHeader(line []byte) error {
	if !r.MatchHeader {
		return nil
	}
	if err := r.split(line); err != nil {
		return err
	}
	if len(r.fields) != len(r.Columns) {
		return errorf(codeBadCopyFormat, "wrong number of fields in header line: got %d, expected %d", len(r.fields), len(r.Columns))
	}
	for i, name := range r.fields {
		if string(name) != r.Columns[i].Name {
			return errorf(codeBadCopyFormat, "column name mismatch in header line field %d: got %q, expected %q",
				i+1, clip(string(name)), r.Columns[i].Name)
		}
	}
	return nil
}

// readLine returns the next row without its line end; valid until the next
// call. The last row may lack its line end.
func (r *copyReader) readLine() ([]byte, error) {
	r.line++
	r.scanned, r.quoted, r.escaping = 0, false, false
	for {
		if end := r.scan(); end >= 0 {
			line := r.take(end + 1)[:end]
			if n := len(line); n > 0 && line[n-1] == '\r' {
				line = line[:n-1]
			}
			return line, nil
		}
		switch err := r.fill(); {
		case errors.Is(err, io.EOF) && r.quoted:
			return nil, errorf(codeBadCopyFormat, "unterminated CSV quoted field")
		case errors.Is(err, io.EOF) && len(r.rest()) > 0:
			return r.take(len(r.rest())), nil
		case err != nil:
			return nil, err
		}
	}
}

// scan looks for the end of the row from where it left off: a line feed that is
// neither escaped nor quoted. It returns its index or -1.
func (r *copyReader) scan() int {
	buf := r.rest()
	if r.Format == CopyText {
		for i := r.scanned; i < len(buf); i++ {
			switch {
			case r.escaping:
				r.escaping = false
			case buf[i] == '\\':
				r.escaping = true
			case buf[i] == '\n':
				return i
			}
		}
		r.scanned = len(buf)
		return -1
	}
	for i := r.scanned; i < len(buf); i++ {
		ch := buf[i]
		switch {
		case r.escaping:
			r.escaping = false
		case r.quoted && ch == r.escape && r.escape != r.quote:
			r.escaping = true
		case ch == r.quote: // a doubled quote leaves and enters again
			r.quoted = !r.quoted
		case ch == '\n' && !r.quoted:
			return i
		}
	}
	r.scanned = len(buf)
	return -1
}

// split cuts a row into r.fields.
func (r *copyReader) split(line []byte) error {
	r.fields = r.fields[:0]
	r.scratch = r.scratch[:0]
	if cap(r.scratch) < len(line) {
		r.scratch = make([]byte, 0, 2*len(line)) // the fields point into it: it must not move
	}
	if r.Format == CopyText {
		return r.splitText(line)
	}
	return r.splitCSV(line)
}

// push adds a field; there may be far more in hostile data than columns.
func (r *copyReader) push(field []byte) error {
	if len(r.fields) > len(r.Columns) {
		return errorf(codeBadCopyFormat, "extra data after last expected column")
	}
	r.fields = append(r.fields, field)
	return nil
}

func (r *copyReader) splitText(line []byte) error {
	for {
		end, escaped := 0, false
		for end < len(line) && line[end] != r.delimiter {
			if line[end] == '\\' {
				escaped = true
				end++
			}
			end++
		}
		end = min(end, len(line))
		raw := line[:end]
		var field []byte
		switch {
		case string(raw) == r.null: // before escapes are read: \N is NULL, \\N is text
		case escaped:
			field = r.unescape(raw)
		default:
			field = raw[:len(raw):len(raw)]
		}
		if err := r.push(field); err != nil {
			return err
		}
		if end == len(line) {
			return nil
		}
		line = line[end+1:]
	}
}

// unescape reads the backslash sequences of the text format.
func (r *copyReader) unescape(raw []byte) []byte {
	start := len(r.scratch)
	for i := 0; i < len(raw); i++ {
		ch := raw[i]
		if ch != '\\' || i+1 == len(raw) {
			r.scratch = append(r.scratch, ch)
			continue
		}
		i++
		switch ch = raw[i]; ch {
		case 'b':
			ch = '\b'
		case 'f':
			ch = '\f'
		case 'n':
			ch = '\n'
		case 'r':
			ch = '\r'
		case 't':
			ch = '\t'
		case 'v':
			ch = '\v'
		case '0', '1', '2', '3', '4', '5', '6', '7':
			ch -= '0'
			for n := 1; n < 3 && i+1 < len(raw) && raw[i+1] >= '0' && raw[i+1] <= '7'; n++ {
				i++
				ch = ch<<3 + raw[i] - '0'
			}
		case 'x':
			n := 0
			value := byte(0)
			for ; n < 2 && i+1 < len(raw); n++ {
				digit, ok := hexDigit(raw[i+1])
				if !ok {
					break
				}
				value = value<<4 + digit
				i++
			}
			if n > 0 {
				ch = value
			}
		}
		r.scratch = append(r.scratch, ch)
	}
	return r.scratch[start:len(r.scratch):len(r.scratch)]
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

func (r *copyReader) splitCSV(line []byte) error {
	for i := 0; ; {
		start := len(r.scratch)
		quoted := false
		for i < len(line) && line[i] != r.delimiter {
			if line[i] != r.quote {
				r.scratch = append(r.scratch, line[i])
				i++
				continue
			}
			quoted = true
			closed := false
			for i++; i < len(line); i++ {
				if line[i] == r.escape && i+1 < len(line) && (line[i+1] == r.quote || line[i+1] == r.escape) {
					i++
					r.scratch = append(r.scratch, line[i])
					continue
				}
				if line[i] == r.quote {
					i++
					closed = true
					break
				}
				r.scratch = append(r.scratch, line[i])
			}
			if !closed {
				return errorf(codeBadCopyFormat, "unterminated CSV quoted field")
			}
		}
		field := r.scratch[start:len(r.scratch):len(r.scratch)]
		if at := len(r.fields); string(field) == r.null && (!quoted || flag(r.ForceNull, at)) && !flag(r.ForceNotNull, at) {
			field = nil
		}
		if err := r.push(field); err != nil {
			return err
		}
		if i >= len(line) {
			return nil
		}
		i++ // the delimiter; behind a last one stands an empty field
	}
}

// --- binary ---

// need makes at least n bytes available.
func (r *copyReader) need(n int) error {
	for len(r.rest()) < n {
		if n > r.rowSizeMax {
			return errorf(codeLimitExceeded, "a row of COPY data exceeds %d bytes", r.rowSizeMax)
		}
		if err := r.fill(); errors.Is(err, io.EOF) {
			return errorf(codeBadCopyFormat, "unexpected EOF in COPY data")
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (r *copyReader) nextBinary(dst []any) error {
	if !r.begun {
		r.begun = true
		if err := r.readBinaryHead(); err != nil {
			return err
		}
	}
	r.line++
	for len(r.rest()) == 0 { // between rows the data may end without its trailer
		if err := r.fill(); err != nil {
			return err
		}
	}
	if err := r.need(2); err != nil {
		return err
	}
	n := binary.BigEndian.Uint16(r.take(2))
	if n == copyTrailer {
		for len(r.rest()) == 0 {
			if err := r.fill(); err != nil {
				return err
			}
		}
		return errorf(codeBadCopyFormat, "received copy data after EOF marker")
	}
	if int(n) != len(r.Columns) {
		return errorf(codeBadCopyFormat, "row field count is %d, expected %d", int16(n), len(r.Columns))
	}
	for i := range r.Columns {
		if err := r.need(4); err != nil {
			return err
		}
		size := int32(binary.BigEndian.Uint32(r.take(4)))
		if size == -1 {
			dst[i] = nil
			continue
		}
		if size < 0 {
			return errorf(codeBadCopyFormat, "invalid field size")
		}
		if err := r.need(int(size)); err != nil {
			return err
		}
		if err := r.field(dst, i, formatBinary, r.take(int(size))); err != nil {
			return err
		}
	}
	return nil
}

func (r *copyReader) readBinaryHead() error {
	if err := r.need(len(copySignature) + 8); err != nil {
		return err
	}
	if !bytes.Equal(r.take(len(copySignature)), copySignature) {
		return errorf(codeBadCopyFormat, "COPY file signature not recognized")
	}
	flags, extension := binary.BigEndian.Uint32(r.take(4)), int32(binary.BigEndian.Uint32(r.take(4)))
	switch {
	case flags&copyFlagOIDs != 0:
		return errorf(codeBadCopyFormat, "invalid COPY file header (WITH OIDS)")
	case flags&copyFlagsUnknown != 0:
		return errorf(codeBadCopyFormat, "unrecognized critical flags in COPY file header")
	case extension < 0:
		return errorf(codeBadCopyFormat, "invalid COPY file header")
	}
	if err := r.need(int(extension)); err != nil {
		return err
	}
	r.take(int(extension))
	return nil
}
