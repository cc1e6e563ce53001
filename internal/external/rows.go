package external

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/tapehouse/tapehouse/internal/serde"
)

// readBytes is how much of a file is read at a time: a request of S3's.
const readBytes = 1 << 20

// rowWriter is what rows are written to; *serde.Writer is.
type rowWriter interface {
	Append(document []byte) error
	AppendText(fields [][]byte) error
	AppendNull() error
	Close() error
	Rows() int64
}

// converter compiles the columns for a format that is not Parquet.
func (t *Table) converter(f *format) (*serde.Converter, error) {
	columns := make([]serde.Column, len(t.Columns))
	for i, c := range t.Columns {
		columns[i] = serde.Column{Name: c.Name, Type: c.Type}
	}
	var c *serde.Converter
	var err error
	if f.kind == documents {
		d := f.json
		if o := d.OpenX; o != nil { // mappings are by the column's name as it is declared
			named := *o
			named.ColumnToJSONKeyMappings = map[string]string{}
			for _, col := range columns {
				if key, ok := o.ColumnToJSONKeyMappings[strings.ToLower(col.Name)]; ok {
					named.ColumnToJSONKeyMappings[col.Name] = key
				}
			}
			d.OpenX = &named
		}
		c, err = serde.NewConverter(columns, d)
	} else {
		c, err = serde.NewTextConverter(columns, f.text)
	}
	if err != nil {
		return nil, fail(ErrDefinition, "", "external table %s: %v", t.Name, err)
	}
	return c, nil
}

// convert writes the rows of one file, compressed or not. name is how messages
// call the file.
func (t *Table) convert(ctx context.Context, f *format, name string, in io.ReaderAt, sizeBytes int64, w rowWriter) error {
	source := bufio.NewReaderSize(&cancelReader{ctx, io.NewSectionReader(in, 0, sizeBytes)}, int(min(max(sizeBytes, 4<<10), readBytes)))
	r, end, err := plain(name, source)
	if err != nil {
		return unreadable(name, err)
	}
	defer end()
	rows := source
	if r != io.Reader(source) {
		rows = bufio.NewReaderSize(r, 64<<10)
	}
	if mark, _ := rows.Peek(3); string(mark) == "\ufeff" {
		_, _ = rows.Discard(3) // it was peeked
	}
	switch f.kind {
	case documents:
		err = f.convertDocuments(name, rows, w)
	case delimited:
		err = f.convertLines(name, rows, w, t.places(f))
	case quoted:
		err = f.convertQuoted(name, rows, w, t.places(f))
	default:
		panic(fmt.Sprintf("external: convert kind %d", f.kind))
	}
	if err == nil {
		err = w.Close()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// places says for each column at which place its field stands in the file, -1
// for one that the file's columns do not have.
func (t *Table) places(f *format) []int {
	out := make([]int, len(t.Columns))
	for i, c := range t.Columns {
		out[i] = slices.Index(f.columns, strings.ToLower(c.Name))
	}
	return out
}

type cancelReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

func unreadable(name string, err error) error {
	var known *Error
	if errors.As(err, &known) {
		return err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fail(ErrData, "it may still be written to, or was cut off", "file %s ends too early: %v", name, err)
	}
	return fail(ErrData, "", "file %s: %v", name, err)
}

// rowError is what is wrong with one row of a file.
func rowError(name, unit string, number int64, err error) error {
	var refused *serde.RecordError
	if !errors.As(err, &refused) {
		return err // of writing
	}
	return fail(ErrData, "correct the file, or declare the column otherwise: as string it takes any text", "file %s, %s %d: %s", name, unit, number, refused.Message)
}

// lineReader cuts a file at LF, CR and CRLF, as Hadoop's TextInputFormat does.
type lineReader struct {
	r      *bufio.Reader
	number int64 // of the line that was returned last
	line   []byte
}

// next returns a line without its end, until the next call; io.EOF after the last.
func (l *lineReader) next() ([]byte, error) {
	l.line = l.line[:0]
	for {
		_, err := l.r.Peek(1) // fills the buffer
		if err != nil {
			if errors.Is(err, io.EOF) && len(l.line) > 0 {
				l.number++
				return l.line, nil
			}
			return nil, err
		}
		ready, _ := l.r.Peek(l.r.Buffered())
		end := bytes.IndexAny(ready, "\r\n")
		if end < 0 {
			end = len(ready)
		}
		if len(l.line)+end > rowBytesMax {
			return nil, fmt.Errorf("line %d is longer than %d bytes", l.number+1, rowBytesMax)
		}
		l.line = append(l.line, ready[:end]...)
		if end == len(ready) {
			_, _ = l.r.Discard(end) // it was peeked
			continue
		}
		carriage := ready[end] == '\r'
		_, _ = l.r.Discard(end + 1)
		if carriage {
			if after, _ := l.r.Peek(1); len(after) == 1 && after[0] == '\n' {
				_, _ = l.r.Discard(1)
			}
		}
		l.number++
		return l.line, nil
	}
}

func (f *format) convertLines(name string, r *bufio.Reader, w rowWriter, places []int) error {
	lines := lineReader{r: r}
	var s splitter
	row := make([][]byte, len(places))
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return unreadable(name, err)
		}
		if lines.number <= int64(f.headers) || len(line) == 0 && len(f.columns) > 1 {
			continue
		}
		fields := s.split(line, f.delimiter, f.escape, f.nullText())
		for i, at := range places {
			row[i] = nil
			if at >= 0 && at < len(fields) {
				row[i] = fields[at]
			}
		}
		if err := w.AppendText(row); err != nil {
			return rowError(name, "line", lines.number, err)
		}
	}
}

// nullText is what stands for null, nil if nothing does.
func (f *format) nullText() []byte {
	if !f.hasNull {
		return nil
	}
	return []byte(f.null)
}

// splitter cuts lines into fields. What it returns lasts until the next line.
type splitter struct {
	fields [][]byte
	plain  []byte // fields without their escapes
}

// split cuts a line at delimiters that no escape precedes. A field that is
// written as null is nil, no other is.
func (s *splitter) split(line []byte, delimiter, escape byte, null []byte) [][]byte {
	s.fields, s.plain = s.fields[:0], s.plain[:0]
	if cap(s.plain) < len(line) {
		s.plain = make([]byte, 0, len(line)) // so that appending moves nothing
	}
	start, escaped := 0, false
	add := func(end int) {
		field := line[start:end:end]
		switch {
		case null != nil && bytes.Equal(field, null):
			field = nil
		case escaped:
			from := len(s.plain)
			for i := 0; i < len(field); i++ {
				if field[i] == escape && i+1 < len(field) {
					i++
				}
				s.plain = append(s.plain, field[i])
			}
			field = s.plain[from:len(s.plain):len(s.plain)]
		}
		s.fields = append(s.fields, field)
		start, escaped = end+1, false
	}
	if escape == 0 {
		for {
			n := bytes.IndexByte(line[start:], delimiter)
			if n < 0 {
				break
			}
			add(start + n)
		}
	} else {
		for i := 0; i < len(line); i++ {
			switch line[i] {
			case escape:
				escaped = true
				i++
			case delimiter:
				add(i)
			}
		}
	}
	add(len(line))
	return s.fields
}

func (f *format) convertQuoted(name string, r *bufio.Reader, w rowWriter, places []int) error {
	q := quotedReader{r: r, delimiter: f.delimiter, quote: f.quote, escape: f.escape, line: 1}
	row := make([][]byte, len(places))
	for n := 0; ; n++ {
		at := q.line
		fields, blank, err := q.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return unreadable(name, err)
		}
		if n < f.headers || blank && len(f.columns) > 1 {
			continue
		}
		for i, place := range places {
			row[i] = nil
			if place >= 0 && place < len(fields) {
				row[i] = fields[place]
			}
		}
		if err := w.AppendText(row); err != nil {
			return rowError(name, "line", at, err)
		}
	}
}

// quotedReader reads records whose fields may stand in quotes, and then hold
// delimiters and ends of lines. Within quotes a quote is written twice or behind
// the escape; an escape before anything else stands for itself.
type quotedReader struct {
	r                        *bufio.Reader
	delimiter, quote, escape byte
	line                     int64 // from 1, of what comes next

	text   []byte
	ends   []int
	fields [][]byte
}

func (q *quotedReader) peek() (byte, bool) {
	b, _ := q.r.Peek(1)
	if len(b) == 0 {
		return 0, false
	}
	return b[0], true
}

// next returns a record until the next call; io.EOF after the last.
func (q *quotedReader) next() (fields [][]byte, blank bool, err error) {
	q.text, q.ends, q.fields = q.text[:0], q.ends[:0], q.fields[:0]
	start := 0                                 // of the present field in text
	within, closed, any := false, false, false // a quote is open, was closed; anything was read
	opened := int64(0)
	for {
		c, err := q.r.ReadByte()
		if err != nil {
			switch {
			case !errors.Is(err, io.EOF):
				return nil, false, err
			case within:
				return nil, false, fmt.Errorf("the quote that line %d opens is not closed", opened)
			case !any:
				return nil, false, io.EOF
			}
			break
		}
		any = true
		if len(q.text) >= rowBytesMax {
			return nil, false, fmt.Errorf("the row that begins in line %d is longer than %d bytes", q.line, rowBytesMax)
		}
		if within {
			switch next, more := q.peek(); {
			case c == q.quote && q.quote != 0 && more && next == q.quote:
				q.text = append(q.text, c)
				_, _ = q.r.Discard(1) // it was peeked
			case c == q.quote:
				within, closed = false, true
			case c == q.escape && q.escape != 0 && more && (next == q.quote || next == q.escape):
				q.text = append(q.text, next)
				_, _ = q.r.Discard(1)
			default:
				if c == '\n' {
					q.line++
				}
				q.text = append(q.text, c)
			}
			continue
		}
		switch {
		case c == q.delimiter:
			q.ends = append(q.ends, len(q.text))
			start, closed = len(q.text), false
			continue
		case c == '\r' || c == '\n':
			if next, more := q.peek(); c == '\r' && more && next == '\n' {
				_, _ = q.r.Discard(1)
			}
			q.line++
		case c == q.quote && q.quote != 0 && !closed && len(bytes.TrimLeft(q.text[start:], " \t")) == 0:
			q.text = q.text[:start]
			within, opened = true, q.line
			continue
		default:
			q.text = append(q.text, c)
			continue
		}
		break
	}
	blank = len(q.ends) == 0 && len(q.text) == 0 && !closed
	q.ends = append(q.ends, len(q.text))
	from := 0
	if q.text == nil {
		q.text = []byte{}
	}
	for _, end := range q.ends {
		q.fields = append(q.fields, q.text[from:end:end])
		from = end
	}
	return q.fields, blank, nil
}

func (f *format) convertDocuments(name string, r *bufio.Reader, w rowWriter) error {
	for { // over the space in front
		b, err := r.Peek(1)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return unreadable(name, err)
		}
		if !isSpace(b[0]) {
			if b[0] == '[' {
				return f.convertArray(name, r, w)
			}
			break
		}
		_, _ = r.Discard(1)
	}
	lines := lineReader{r: r}
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return unreadable(name, err)
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if err := f.document(w, line); err != nil {
			return rowError(name, "line", lines.number, err)
		}
	}
}

// document adds one document, or a row of nulls where the table wants that for
// what is malformed.
func (f *format) document(w rowWriter, b []byte) error {
	err := w.Append(b)
	var refused *serde.RecordError
	if err != nil && f.nullRows && errors.As(err, &refused) && refused.Code == serde.ParseError {
		return w.AppendNull()
	}
	return err
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// convertArray reads one array of documents, or several, one behind the other.
func (f *format) convertArray(name string, r *bufio.Reader, w rowWriter) error {
	var element []byte
	number := int64(0)
	malformed := func(what string) error {
		return fail(ErrData, "", "file %s, element %d: %s", name, number+1, what)
	}
	inside, comma := false, false // of the array; an element must be followed by a comma or the end
	expected := false             // a comma was read: an element must follow
	for {
		c, err := r.ReadByte()
		if errors.Is(err, io.EOF) {
			if inside {
				return unreadable(name, fmt.Errorf("the array is not closed: %w", io.ErrUnexpectedEOF))
			}
			return nil
		}
		if err != nil {
			return unreadable(name, err)
		}
		switch {
		case isSpace(c):
		case !inside && c == '[':
			inside, comma, expected = true, false, false
		case !inside:
			return malformed(fmt.Sprintf("%q stands behind the array", c))
		case c == ']' && !expected:
			inside = false
		case c == ',' && comma:
			comma, expected = false, true
		case comma || c == ',' || c == ']':
			return malformed(fmt.Sprintf("%q is not expected between elements", c))
		default:
			if element, err = readElement(r, append(element[:0], c)); err != nil {
				return unreadable(name, err)
			}
			if err := f.document(w, element); err != nil {
				return rowError(name, "element", number+1, err)
			}
			number++
			comma, expected = true, false
		}
	}
}

// readElement reads a value of JSON of which one byte is in b already. It finds
// its end only: what is wrong inside is the converter's to say.
func readElement(r *bufio.Reader, b []byte) ([]byte, error) {
	depth, quoted, escaped := 0, false, false
	c := b[0]
	for {
		switch {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		}
		if depth == 0 && !quoted && (c == '}' || c == ']' || c == '"') {
			return b, nil
		}
		if len(b) >= rowBytesMax {
			return nil, fmt.Errorf("a document is longer than %d bytes", rowBytesMax)
		}
		var err error
		if c, err = r.ReadByte(); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if depth == 0 && !quoted && (isSpace(c) || c == ',' || c == ']') { // behind a number or a word
			return b, r.UnreadByte()
		}
		b = append(b, c)
	}
}
