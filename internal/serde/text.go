package serde

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/parquet"
)

// Rows of texts, as delimited files have them, and the form in which both they and
// JSON are staged for an engine that reads Parquet.

// Text is how rows of texts are read. What a text is to a type:
//
//	boolean           true, t, 1, false, f, 0 in any case
//	tinyint … bigint  an integer in range (1.0 and 1e2 are)
//	float, double     a number, NaN, Infinity, -Infinity
//	decimal(p,s)      a number of exactly that value
//	string            itself
//	varchar, char     itself, of at most n characters
//	binary            base64 (RFC 4648, padded)
//	date              yyyy-[M]M-[d]d
//	timestamp         TimestampFormats; yyyy-[M]M-[d]d [H]H:[m]m:[s]s[.f]; yyyy-MM-ddTHH:mm:ss[.f][Z]; a date
//
// Spaces around all but texts make no difference. A text that is no value of its
// type is NULL, as in Hive. Except, because a sum must not miss what it cannot
// hold: a number that has digits beyond a decimal's scale or is beyond its range,
// a text longer than its varchar, and bytes that are no UTF-8 are errors.
type Text struct {
	// TimestampFormats are Joda patterns, and "millis".
	TimestampFormats []string
	// Epochs also takes whole numbers for dates, days since 1970-01-01, and for
	// timestamps, milliseconds since then, as OpenCSVSerde has them.
	Epochs bool
	// OverflowNull makes NULL of numbers that do not fit their decimal.
	OverflowNull bool
}

// NewTextConverter compiles columns for rows of texts, which are scalars. Errors
// wrap ErrInvalid.
func NewTextConverter(columns []Column, t Text) (*Converter, error) {
	for _, c := range columns {
		if !c.Type.scalar() {
			return nil, fmt.Errorf("%w column %q: a text of a delimited file is no %s: declare the column as string", ErrInvalid, c.Name, brief(c.Type))
		}
	}
	c, err := NewConverter(columns, Deserializer{OpenX: &OpenX{}})
	if err != nil {
		return nil, err
	}
	for _, s := range t.TimestampFormats {
		f, err := parseJoda(s)
		if err != nil {
			return nil, err
		}
		c.formats = append(c.formats, f)
	}
	c.text = t
	return c, nil
}

// stageGroupBytes is a row group of a staged file: small enough for several
// threads to share a file.
const stageGroupBytes = 16 << 20

// NewStage begins a Parquet file that is read soon and by one engine only:
// timestamps are microseconds, so that every year of four digits fits, with finer
// digits cut off.
func (c *Converter) NewStage(w io.Writer) (*Writer, error) {
	staged := *c
	staged.rules.micros = true
	x, err := staged.newWriter(w, ParquetOptions{}, parquet.WithStoreDecimalAsInteger(true))
	if err != nil {
		return nil, err
	}
	x.groupMax = stageGroupBytes
	return x, nil
}

// microsOf is a timestamp in microseconds, of what was read as nanoseconds if
// those can hold it.
func microsOf(nanos int64, why status, ok bool, s []byte) (int64, bool) {
	if ok {
		micros := nanos / 1000
		if nanos%1000 < 0 {
			micros--
		}
		return micros, true
	}
	if why != tooLarge {
		return 0, false
	}
	s = bytes.TrimSuffix(s, []byte("Z"))
	c, ok := readClock(s, ' ', 1)
	if !ok {
		c, ok = readClock(s, 'T', 2)
	}
	if !ok {
		return 0, false
	}
	return c.unixMicros()
}

// AppendNull adds a row of nulls.
func (w *Writer) AppendNull() error {
	if w.err == nil {
		w.d.cells = append(w.d.cells[:0], cell{valid: true, first: 1, count: int32(len(w.d.c.root.parts))})
		for range w.d.c.root.parts {
			w.d.cells = append(w.d.cells, cell{})
		}
		w.row(1)
	}
	return w.err
}

// AppendText adds a row of texts, one for each column; nil is null. A *RecordError
// means that the row was not added and that the next may be; any other error is one
// of writing, and final. The texts are not kept. REQUIRES: NewTextConverter.
func (w *Writer) AppendText(fields [][]byte) error {
	if w.err != nil {
		return w.err
	}
	d := w.d
	d.cells, d.scratch = d.cells[:0], d.scratch[:0]
	d.cells = append(d.cells, cell{valid: true, first: 1, count: int32(len(fields))})
	size := int64(0)
	for i, f := range fields {
		d.cells = append(d.cells, cell{})
		if f == nil {
			continue
		}
		size += int64(len(f))
		p := &d.c.root.parts[i]
		if m := d.field(p, f, &d.cells[i+1]); m != nil {
			name := p.typ
			return &RecordError{Code: MalformedData, Member: d.c.columns[i].Name, Message: fmt.Sprintf("column %q, %s: %s", d.c.columns[i].Name, name, m.text)}
		}
	}
	w.row(size)
	return w.err
}

// field converts one text. What is no value of the type leaves the cell null.
func (d *Decoder) field(p *plan, s []byte, c *cell) *mismatch {
	switch p.typ.Kind {
	case String, Varchar, Char:
		if !utf8.Valid(s) {
			return &mismatch{text: fmt.Sprintf("the text %s is no UTF-8: convert the file, or declare the column as binary", quote(s))}
		}
		x := value{kind: '"', text: s}
		return d.text(p, &x, c)
	}
	s = bytes.TrimSpace(s)
	x := value{kind: '"', text: s}
	switch p.typ.Kind {
	case Boolean:
		switch strings.ToLower(string(s)) {
		case "true", "t", "1":
			c.valid, c.lo = true, 1
		case "false", "f", "0":
			c.valid = true
		}
	case Float, Double:
		d.float(p, s, c)
	case Decimal:
		tok, ok := numericText(s)
		if !ok {
			return nil
		}
		if m := numeric(p, tok, c); m != nil && !d.c.text.OverflowNull {
			return m
		}
	case Date:
		if d.scalar(p, &x, c) != nil && d.c.text.Epochs {
			if n, err := strconv.ParseInt(string(s), 10, 32); err == nil {
				c.valid, c.lo = true, uint64(n)
			}
		}
	case Timestamp:
		d.textTimestamp(s, c)
	default: // integers, binary
		_ = d.scalar(p, &x, c)
	}
	return nil
}

func (d *Decoder) float(p *plan, s []byte, c *cell) {
	switch strings.ToLower(string(s)) {
	case "nan":
		c.valid, c.lo = true, math.Float64bits(math.NaN())
	case "infinity", "+infinity":
		c.valid, c.lo = true, math.Float64bits(math.Inf(1))
	case "-infinity":
		c.valid, c.lo = true, math.Float64bits(math.Inf(-1))
	default:
		if tok, ok := numericText(s); ok {
			_ = numeric(p, tok, c)
		}
	}
}

func (d *Decoder) textTimestamp(s []byte, c *cell) {
	set := func(nanos int64, why status, ok bool) bool {
		micros, ok := microsOf(nanos, why, ok, s)
		if ok {
			c.valid, c.lo = true, uint64(micros)
		}
		return ok
	}
	for _, f := range d.c.formats {
		if set(f.parse(s)) {
			return
		}
	}
	if set(parseValueOf(s)) || set(parseISO(s)) {
		return
	}
	if days, ok := parseDate(s); ok {
		c.valid, c.lo = true, uint64(int64(days)*86_400_000_000)
		return
	}
	if n, err := strconv.ParseInt(string(s), 10, 64); err == nil && d.c.text.Epochs && n > math.MinInt64/1000 && n < math.MaxInt64/1000 {
		c.valid, c.lo = true, uint64(n*1000)
	}
}
