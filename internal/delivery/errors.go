package delivery

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/prefix"
	"github.com/tapehouse/tapehouse/internal/record"
)

// Bounds of the error output. Rejects are kept nowhere in memory: entries of the
// tail count them, and a flush reads them from the log again, through one line's
// buffer and a local file.
const (
	// errorObjectBytesMax bounds an object of the error output; what is beyond it
	// goes to the plan's next. It is part of each plan.
	errorObjectBytesMax = 64 << 20
	// flushErrorObjects bounds the rejects of one flush, as producers sent them, to
	// this many objects' size: a backlog of nothing else is delivered step by step.
	flushErrorObjects = 4
)

// faults counts records for the error output: rejects and conflicts.
type faults struct {
	records, bytes           int64 // bytes as producers sent them
	conflicts, conflictBytes int64 // of those, conflicts
}

func (f *faults) add(o faults) {
	f.records, f.bytes = f.records+o.records, f.bytes+o.bytes
	f.conflicts, f.conflictBytes = f.conflicts+o.conflicts, f.conflictBytes+o.conflictBytes
}

// faultsOf counts a batch's.
func faultsOf(b *columnar.Batch, conflict bool) (f faults) {
	for i := range b.Rejects {
		f.bytes += int64(len(b.Rejects[i].Raw))
	}
	if conflict {
		for row := range b.Rows {
			f.conflictBytes += int64(len(b.Document(row)))
		}
		f.conflicts = int64(b.Rows)
	}
	f.records, f.bytes = int64(len(b.Rejects))+f.conflicts, f.bytes+f.conflictBytes
	return f
}

// errorPlan fixes the names and bytes of a flush's error output: object n is
// named by the seed's n-th, and ends before the line with which it would exceed
// ObjectBytes.
type errorPlan struct {
	Bucket      string    `json:"bucket,omitempty"` // "": Options.Errors
	Prefix      string    `json:"prefix"`
	Version     int64     `json:"version"` // of the stream's definition
	Seed        uuid.UUID `json:"seed"`
	ObjectBytes int64     `json:"object_bytes"`
}

// planErrors plans the error output by the stream's present definition.
func (l *tableLane) planErrors() (*errorPlan, error) {
	cfg := l.s.Config()
	p := &errorPlan{Bucket: cfg.ErrorBucket, Prefix: cfg.ErrorPrefix, Version: cfg.Version, Seed: uuid.UUID(prefix.NewSeed()), ObjectBytes: l.m.o.ErrorObjectBytes}
	if p.Prefix == "" {
		p.Prefix = "errors/" + string(l.s.name) + "/"
	}
	if _, err := prefix.Parse(p.Prefix, prefix.Error, ""); err != nil {
		return nil, fmt.Errorf("error prefix: %w", err)
	}
	return p, nil
}

// failTable is the dataCatalogTable of a line about a record that was not
// converted.
type failTable struct {
	CatalogID    *string `json:"catalogId"`
	DatabaseName string  `json:"databaseName"`
	TableName    string  `json:"tableName"`
	Region       *string `json:"region"`
	VersionID    string  `json:"versionId"`
	CatalogARN   *string `json:"catalogArn"`
}

// failedLine appends lines of either form. It writes what encoding/json would,
// with HTML left alone, at a fifth of its cost: a stream may have nothing else.
type failedLine struct {
	table []byte // dataCatalogTable's value
	arn   string // lambdaArn; "": none
	ids   record.IDs
}

func newFailedLine(key record.Key, database, table string) *failedLine {
	text, err := json.Marshal(failTable{DatabaseName: database, TableName: table, VersionID: "LATEST"})
	if err != nil {
		panic(fmt.Sprintf("delivery: encode a table's name: %v", err)) // strings always encode
	}
	return &failedLine{table: text, ids: record.NewIDs(key)}
}

// failure is why a record goes to the error output.
type failure struct {
	arrivedAt int64 // µs
	endedAt   time.Time
	offset    record.Offset
	raw       []byte
	aws       string // Firehose's code
	message   string
	code      string // this program's
}

// appendConversion appends a failedRecord.
func (w *failedLine) appendConversion(dst []byte, f *failure) []byte {
	dst = append(dst, `{"attemptsMade":1,"arrivalTimestamp":`...)
	dst = strconv.AppendInt(dst, f.arrivedAt/1000, 10)
	dst = appendText(append(dst, `,"lastErrorCode":`...), f.aws)
	dst = appendText(append(dst, `,"lastErrorMessage":`...), f.message)
	dst = strconv.AppendInt(append(dst, `,"attemptEndingTimestamp":`...), f.endedAt.UnixMilli(), 10)
	dst = base64.StdEncoding.AppendEncode(append(dst, `,"rawData":"`...), f.raw)
	dst = strconv.AppendUint(append(dst, `","sequenceNumber":"`...), uint64(f.offset), 10)
	dst = append(append(dst, `","subSequenceNumber":null,"dataCatalogTable":`...), w.table...)
	dst = w.ids.AppendText(append(dst, `,"recordId":"`...), f.offset)
	dst = appendText(append(dst, `","tapehouseCode":`...), f.code)
	return append(dst, '}', '\n')
}

// appendProcessing appends a failedProcessing.
func (w *failedLine) appendProcessing(dst []byte, f *failure) []byte {
	dst = append(dst, `{"attemptsMade":1,"arrivalTimestamp":`...)
	dst = strconv.AppendInt(dst, f.arrivedAt/1000, 10)
	dst = appendText(append(dst, `,"errorCode":`...), f.aws)
	dst = appendText(append(dst, `,"errorMessage":`...), f.message)
	dst = strconv.AppendInt(append(dst, `,"attemptEndingTimestamp":`...), f.endedAt.UnixMilli(), 10)
	dst = base64.StdEncoding.AppendEncode(append(dst, `,"rawData":"`...), f.raw)
	dst = append(dst, '"')
	if w.arn != "" {
		dst = appendText(append(dst, `,"lambdaArn":`...), w.arn)
	}
	dst = w.ids.AppendText(append(dst, `,"recordId":"`...), f.offset)
	return append(dst, '"', '}', '\n')
}

// appendText appends a JSON string, without the escapes that HTML would need.
func appendText(dst []byte, s string) []byte {
	at := len(dst)
	dst = append(dst, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c < 0x20 || c > 0x7E:
			var out strings.Builder
			enc := json.NewEncoder(&out)
			enc.SetEscapeHTML(false)
			if err := enc.Encode(s); err != nil {
				panic(fmt.Sprintf("delivery: encode a string: %v", err)) // strings always encode
			}
			return append(dst[:at], strings.TrimSuffix(out.String(), "\n")...)
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}

// SequenceConflict is the code of a record whose key is known with other content.
const SequenceConflict = "SequenceConflict"

const conflictMessage = "a record with this source, session, epoch and sequence number but other content is stored already; both are kept"

// awsCode is Firehose's code for a reject's.
func awsCode(code string) string {
	switch code {
	case columnar.MalformedJSON, columnar.NotAnObject, columnar.InvalidUTF8:
		return "DataFormatConversion.ParseError"
	}
	return "DataFormatConversion.MalformedData"
}

// writeErrors stores the plan and writes its error output: the rejected and
// conflicting records of the stretch, read again from the log.
func (l *tableLane) writeErrors(ctx context.Context, p *plan) error {
	body, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode flush plan: %w", err)
	}
	if err := l.m.o.Documents.Put(ctx, kindPlan, l.planKey(), body); err != nil {
		return fmt.Errorf("store flush plan: %w", err)
	}
	w, err := l.openErrors(p)
	if err != nil {
		return fmt.Errorf("open the error output: %w", err)
	}
	defer w.discard()
	d := l.newDecoders()
	// Stretches without faults are not read.
	for _, e := range l.tail.span(p.From, p.To) {
		if e.faults.records == 0 {
			continue
		}
		err := l.m.read(ctx, l.key, e.first, func(f frame) error {
			switch {
			case f.First >= e.next:
				return errStop
			case f.Kind == columnar.PayloadColumnar || f.Kind == payloadGap: // good rows only, or none
				return nil
			}
			return l.eachBatch(d, f, func(b *columnar.Batch, conflict bool) error { return w.batch(ctx, f, b, conflict) })
		})
		if err != nil && !errors.Is(err, errStop) {
			return fmt.Errorf("write the rejected records: %w", err)
		}
	}
	return w.store(ctx)
}

// errorWriter writes one flush's error output, an object at a time.
type errorWriter struct {
	m          *Manager
	p          *plan
	expr       *prefix.Expression // nil: the plan names its one object
	stream     record.StreamName
	version    int64
	seed       prefix.Seed
	limitBytes int64
	to         lake.Store
	path       string // of the object in the making
	line       *failedLine

	buf       []byte
	object    int   // its number in the plan
	sizeBytes int64 // of its lines so far
	file      fsys.File
	out       *bufio.Writer // reused
}

func (l *tableLane) openErrors(p *plan) (w *errorWriter, err error) {
	w = &errorWriter{m: l.m, p: p, stream: l.s.name, limitBytes: math.MaxInt64, line: newFailedLine(l.s.key, l.table.Namespace, l.table.Table),
		path: filepath.Join(l.m.tailDir(), fmt.Sprintf("errors-%s-%d-%d", l.key.Incarnation, l.key.Shard, l.ordinal))}
	bucket := l.s.Config().ErrorBucket
	if e := p.Errors; e != nil {
		bucket, w.seed, w.version, w.limitBytes = e.Bucket, prefix.Seed(e.Seed), e.Version, e.ObjectBytes
		if w.expr, err = prefix.Parse(e.Prefix, prefix.Error, ""); err != nil {
			return nil, err
		}
	}
	w.to, err = l.m.errorBucket(bucket)
	return w, err
}

// batch writes a batch's faults.
func (w *errorWriter) batch(ctx context.Context, f frame, b *columnar.Batch, conflict bool) error {
	x := failure{arrivedAt: f.ArrivedAt, endedAt: w.p.At}
	for i := range b.Rejects {
		r := &b.Rejects[i]
		x.offset, x.raw, x.aws, x.message, x.code = f.First+record.Offset(r.Doc), r.Raw, awsCode(r.Code), r.Message, r.Code
		if err := w.add(ctx, &x); err != nil {
			return err
		}
	}
	if !conflict {
		return nil
	}
	x.aws, x.message, x.code = "Tapehouse."+SequenceConflict, conflictMessage, SequenceConflict
	for row := range b.Rows {
		x.offset, x.raw = b.Offset(row), b.Document(row)
		if err := w.add(ctx, &x); err != nil {
			return err
		}
	}
	return nil
}

func (w *errorWriter) add(ctx context.Context, x *failure) error {
	w.buf = w.line.appendConversion(w.buf[:0], x)
	if w.sizeBytes > 0 && w.sizeBytes+int64(len(w.buf)) > w.limitBytes {
		if err := w.store(ctx); err != nil {
			return err
		}
	}
	w.sizeBytes += int64(len(w.buf))
	if w.object < w.p.errorsStored { // by an earlier try
		return nil
	}
	if w.file == nil {
		f, err := w.m.o.FS.OpenFile(w.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return fmt.Errorf("begin an object: %w", err)
		}
		w.file = f
		if w.out == nil {
			w.out = bufio.NewWriterSize(f, 256<<10)
		}
		w.out.Reset(f)
	}
	_, err := w.out.Write(w.buf)
	return err
}

// store ends the object and stores it, unless it is there already: by this plan,
// in an earlier try or before a crash.
func (w *errorWriter) store(ctx context.Context) error {
	if w.file != nil {
		err := w.out.Flush()
		if cerr := w.file.Close(); err == nil {
			err = cerr
		}
		w.file = nil
		if err != nil {
			return fmt.Errorf("end an object: %w", err)
		}
		name, err := w.name()
		if err != nil {
			return fmt.Errorf("name an object: %w", err)
		}
		if err := w.to.PutFile(ctx, name, w.path); err != nil && !errors.Is(err, lake.ErrExists) {
			return fmt.Errorf("store an object: %w", err)
		}
		w.p.errorsStored = w.object + 1
	}
	w.object, w.sizeBytes = w.object+1, 0
	return nil
}

func (w *errorWriter) name() (string, error) {
	if w.expr == nil {
		return w.p.ErrorObject, nil
	}
	return w.expr.Name(prefix.Object{Stream: string(w.stream), Version: int(w.version), OldestAt: w.p.At, Seed: w.seed.Object(w.object), ErrorType: errorConversion})
}

// discard removes what was not stored.
func (w *errorWriter) discard() {
	if w.file != nil {
		_ = w.file.Close()
	}
	_ = w.m.o.FS.Remove(w.path) // gone where it was stored
}

// errorBucket opens the bucket of an error output.
func (m *Manager) errorBucket(name string) (lake.Store, error) {
	if name == "" {
		return m.o.Errors, nil
	}
	return m.o.Bucket(name)
}

// ErrorOutput is where a stream's failed records go: the bucket, and what every
// object's name begins with.
func (m *Manager) ErrorOutput(s *Stream) (lake.Store, string, error) {
	cfg := s.Config()
	bucket, text := cfg.ErrorBucket, cfg.ErrorPrefix
	if cfg.Objects != nil {
		var t Target
		if err := json.Unmarshal(cfg.Objects.Target, &t); err != nil {
			return nil, "", fmt.Errorf("read the target: %w", err)
		}
		bucket, text = t.Bucket, t.Prefix
		if t.ErrorPrefix != nil {
			text = *t.ErrorPrefix
		}
	} else if text == "" {
		text = "errors/" + string(cfg.Name) + "/"
	}
	store, err := m.errorBucket(bucket)
	if err != nil {
		return nil, "", err
	}
	text, _, _ = strings.Cut(text, "!{")
	return store, text, nil
}
