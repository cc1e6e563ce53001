// Package columnar turns JSON records into typed columns, columns into log
// payloads, and columns into Parquet files.
//
//	JSON docs ──Decoder.Decode──▶ Batch ──AppendPayload──▶ log frame
//	log frame ──Decoder.DecodePayload──▶ Batch ──Builder.Append──▶ Builder.Flush ──▶ Parquet parts ──Concat──▶ data file
//
// A schema is compiled once into a Layout; each goroutine that decodes owns a
// Decoder. Records in the expected member order and the canonical forms go
// through a single-pass scanner (scanner.go); whatever deviates goes, record by
// record, through a general parser (general.go), which alone decides what is
// rejected and why. The byte layouts are in docs/formats/frame.md and
// docs/formats/parquet.md.
//
// Invariants:
//   - A row holds exactly what its document says, or the document is a Reject:
//     nothing is rounded, wrapped, truncated or guessed, with the one exception
//     that Iceberg demands: timestamps are floored to microseconds.
//   - The same document gives the same row, content hash and reject whichever of
//     scanner, general parser, columnar payload and raw payload it came through.
//   - Bytes from outside (documents, payloads, footers) never cause a panic.
package columnar

import (
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/tapehouse/tapehouse/internal/record"
)

// Bounds on what a layout, a batch and a file may be.
const (
	// MaxFields bounds the columns of a schema.
	MaxFields = 1024
	// MaxDocs bounds the documents of one batch and of one payload.
	MaxDocs = 1 << 20
	// MaxDepth bounds the nesting of a document; the document itself is level 1.
	MaxDepth = 64
	// MaxRowGroupRows bounds the rows of one Parquet row group.
	MaxRowGroupRows = 1 << 18
	// spareBatches bounds the released batches that a layout keeps. They are not in
	// a sync.Pool, because their memory, once touched, is worth more than what a
	// garbage collection would get back.
	spareBatches = 32
	// Slack is how many readable bytes the scanner wants behind its input.
	Slack = 64
)

// ErrSchema is the root of errors about a schema or options that cannot be compiled.
var ErrSchema = errors.New("schema cannot be compiled")

// Calendar tells the trade date of an instant. Interval returns the maximal
// half-open interval [from, to) of instants (ns since the epoch, UTC) around
// unixNanos with the same answer, so that the caller may cache it; ok is false
// when the instant lies outside every session.
type Calendar interface {
	Interval(unixNanos int64) (from, to int64, tradeDate int32, ok bool)
	Version() string
}

// CalendarOf adapts a calendar whose trade date is a type of its own.
func CalendarOf[D ~int32](c interface {
	Interval(unixNanos int64) (from, to int64, tradeDate D, ok bool)
	Version() string
}) Calendar {
	return calendarOf[D]{c}
}

type calendarOf[D ~int32] struct {
	c interface {
		Interval(unixNanos int64) (from, to int64, tradeDate D, ok bool)
		Version() string
	}
}

func (a calendarOf[D]) Interval(ns int64) (from, to int64, tradeDate int32, ok bool) {
	f, t, d, ok := a.c.Interval(ns)
	return f, t, int32(d), ok
}

func (a calendarOf[D]) Version() string { return a.c.Version() }

// Options are what a layout needs beside the schema.
type Options struct {
	Calendar  Calendar               // required if a column is derived as trade-date
	Sequence  record.SequenceColumns // zero: records are not numbered
	Partition string                 // the Date column that splits files, or ""
	ZstdLevel int                    // 1 to 4 as in klauspost/compress; 0 means 1
}

// column is a compiled field.
type column struct {
	field    record.Field
	json     int   // index among the JSON columns, or -1
	from     int   // the source column of trade-date and epoch-ns, or -1
	nanos    bool  // a timestamp kept in ns because an epoch-ns column reads it
	required bool  // the field's, and every sequence column's
	isString bool  // stored as dictionary codes
	stored   bool  // part of a columnar payload
	maxInt   int   // Decimal: digits allowed before the point
	limit    int64 // Decimal: 10^precision
	seed     uint64
	seed2    uint64
}

// Layout is a compiled schema. It is immutable and safe for concurrent use.
type Layout struct {
	schema      record.Schema
	opts        Options
	columns     []column
	json        []int          // columns that come from JSON, in schema order
	byName      map[string]int // JSON member → column
	trade       []int          // trade-date columns
	partition   int            // column, or -1
	runDate     int            // the column whose value is a Run's TradeDate, or -1
	source      int            // sequence columns, or -1
	session     int
	epoch       int
	sequence    int
	fingerprint uint32

	footer   *footer     // without row groups
	batches  chan *Batch // released ones, for reuse
	encoders sync.Pool
}

// Compile checks s and o and makes the layout. Errors wrap ErrSchema.
func Compile(s record.Schema, o Options) (*Layout, error) {
	fail := func(format string, args ...any) (*Layout, error) {
		return nil, fmt.Errorf("%w: "+format, append([]any{ErrSchema}, args...)...)
	}
	if len(s.Fields) == 0 || len(s.Fields) > MaxFields {
		return fail("%d fields: want 1 to %d", len(s.Fields), MaxFields)
	}
	l := &Layout{opts: o, byName: map[string]int{}, partition: -1, runDate: -1, source: -1, session: -1, epoch: -1, sequence: -1}
	l.schema = record.Schema{ID: s.ID, Fields: append([]record.Field(nil), s.Fields...)}
	names, ids := map[string]bool{}, map[int]bool{}
	for _, f := range l.schema.Fields {
		c := column{field: f, json: -1, from: -1, required: f.Required, isString: f.Type.Kind == record.String}
		if f.Name == "" || len(f.Name) > 255 || names[f.Name] {
			return fail("field name %q: empty, longer than 255 bytes or used twice", f.Name)
		}
		if !utf8.ValidString(f.Name) || strings.ContainsFunc(f.Name, func(r rune) bool { return r < 0x20 || r == '"' || r == '\\' }) {
			return fail("field name %q: no UTF-8, or has a control character, quote or backslash", f.Name)
		}
		if f.ID < 1 || ids[f.ID] {
			return fail("field %q: id %d is not positive or used twice", f.Name, f.ID)
		}
		names[f.Name], ids[f.ID] = true, true
		if _, err := record.ParseType(f.Type.String()); err != nil {
			return fail("field %q: %w", f.Name, err)
		}
		if f.Type.Kind == record.Decimal {
			c.maxInt, c.limit = f.Type.Precision-f.Type.Scale, pow10[f.Type.Precision]
		}
		c.seed, c.seed2 = seedsOf(f.ID)
		i := len(l.columns)
		if f.Derive == record.FromJSON {
			c.json, c.stored = len(l.json), true
			l.json = append(l.json, i)
			l.byName[f.Name] = i
		}
		l.columns = append(l.columns, c)
	}
	if len(l.json) == 0 {
		return fail("no column comes from JSON")
	}
	for i := range l.columns {
		if err := l.compileDerived(i); err != nil {
			return fail("field %q: %w", l.columns[i].field.Name, err)
		}
	}
	if err := l.compileKeys(); err != nil {
		return fail("%w", err)
	}
	if len(l.trade) > 0 && o.Calendar == nil {
		return fail("field %q is derived from a calendar, and there is none", l.columns[l.trade[0]].field.Name)
	}
	if o.ZstdLevel < 0 || o.ZstdLevel > 4 {
		return fail("zstd level %d: want 0 to 4", o.ZstdLevel)
	}
	l.fingerprint = crc32.Checksum([]byte(l.describe()), crc32.MakeTable(crc32.Castagnoli))
	l.footer = l.schemaElements()
	l.batches = make(chan *Batch, spareBatches)
	l.encoders.New = func() any { return newEncoder(l) }
	return l, nil
}

func (l *Layout) compileDerived(i int) error {
	c := &l.columns[i]
	want := map[record.Derivation]record.Kind{record.TradeDate: record.Date, record.EpochNanos: record.Long,
		record.RecordStream: record.String, record.RecordOffset: record.Long, record.ArrivedAt: record.TimestampTZ}
	if c.field.Derive == record.FromJSON {
		return nil
	}
	kind, ok := want[c.field.Derive]
	if !ok {
		return fmt.Errorf("unknown derivation %q", c.field.Derive)
	}
	if c.field.Type.Kind != kind {
		return fmt.Errorf("%s is %s, not %s", c.field.Derive, record.Type{Kind: kind}, c.field.Type)
	}
	if c.field.Derive != record.TradeDate && c.field.Derive != record.EpochNanos {
		return nil
	}
	from := l.schema.Index(c.field.From)
	if from < 0 || l.columns[from].json < 0 || l.columns[from].field.Type.Kind != record.TimestampTZ {
		return fmt.Errorf("%s wants a timestamptz column that comes from JSON, not %q", c.field.Derive, c.field.From)
	}
	c.from = from
	if c.field.Derive == record.EpochNanos {
		l.columns[from].nanos = true
	} else {
		c.stored = true
		l.trade = append(l.trade, i)
	}
	// A required derivation needs its source.
	if c.required {
		l.columns[from].required = true
	}
	return nil
}

// compileKeys resolves the sequence columns and the partition column.
func (l *Layout) compileKeys() error {
	q := l.opts.Sequence
	for _, k := range []struct {
		name string
		kind record.Kind
		at   *int
	}{{q.Source, record.String, &l.source}, {q.Session, record.String, &l.session}, {q.Epoch, record.Long, &l.epoch}, {q.Sequence, record.Long, &l.sequence}} {
		if k.name == "" {
			continue
		}
		i := l.schema.Index(k.name)
		if i < 0 || l.columns[i].json < 0 || l.columns[i].field.Type.Kind != k.kind {
			return fmt.Errorf("sequence column %q is no %s column that comes from JSON", k.name, record.Type{Kind: k.kind})
		}
		*k.at = i
		// A record without its number cannot be told from its duplicate.
		l.columns[i].required = true
	}
	if !q.IsZero() && l.sequence < 0 {
		return fmt.Errorf("sequence columns %+v lack the sequence itself", q)
	}
	if l.opts.Partition != "" {
		l.partition = l.schema.Index(l.opts.Partition)
		if l.partition < 0 || !l.columns[l.partition].stored || l.columns[l.partition].field.Type.Kind != record.Date {
			return fmt.Errorf("partition %q is no date column", l.opts.Partition)
		}
		l.runDate = l.partition
	} else if len(l.trade) > 0 {
		l.runDate = l.trade[0]
	}
	return nil
}

// describe is the text whose checksum is the fingerprint. It is part of the
// frame format: a change of its form makes logged frames unreadable.
func (l *Layout) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "schema %d\n", l.schema.ID)
	for _, f := range l.schema.Fields {
		fmt.Fprintf(&b, "%d %q %s %t %s %q\n", f.ID, f.Name, f.Type, f.Required, f.Derive, f.From)
	}
	q := l.opts.Sequence
	fmt.Fprintf(&b, "sequence %q %q %q %q\n", q.Source, q.Session, q.Epoch, q.Sequence)
	return b.String()
}

// Fingerprint identifies the layout in log frames: two layouts with the same
// fingerprint read each other's payloads. The calendar is not part of it,
// because payloads carry the trade dates that were decided.
func (l *Layout) Fingerprint() uint32 { return l.fingerprint }

// CalendarVersion names the calendar that decides the trade dates, "" if there
// is none.
func (l *Layout) CalendarVersion() string {
	if l.opts.Calendar == nil {
		return ""
	}
	return l.opts.Calendar.Version()
}

// Schema returns the compiled schema; the caller must not change it.
func (l *Layout) Schema() record.Schema { return l.schema }
