package transform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/record"
)

// run is one evaluation of the statement over records of a batch.
type run struct {
	s       *SQL
	records []Record
	results []Result
	room    int // bytes of documents that may still come out

	settled []bool // the record has its result
	spans   []span // of the documents in arena, by record
	arena   []byte
	scratch []byte
	failed  []int // records whose evaluation failed, to be explained

	halvings int // runs that something failed which TRY does not catch
}

type span struct{ from, to int }

func (r *run) fail(i int, code, format string, args ...any) {
	r.results[i] = Result{Kind: Failed, Code: code, Message: "record " + r.records[i].ID + ": " + fmt.Sprintf(format, args...), Attempts: 1}
	r.settled[i] = true
}

// apply gives every record its result.
func (r *run) apply(ctx context.Context, w *worker) error {
	r.settled = make([]bool, len(r.records))
	r.spans = make([]span, len(r.records))
	file, rows, err := r.stage(w)
	if err != nil || rows == 0 {
		return err
	}
	size := 0
	for i := range r.records {
		size += len(r.records[i].Data)
	}
	r.arena = make([]byte, 0, size)
	defer func() { _ = os.Remove(file.Path) }() // Close removes the directory
	pin := r.s.relation(r.s.layout.Schema(), file)
	defer pin.Release()
	session, err := r.s.o.Engine.Session(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = session.Close() }() // it never fails
	if err := r.evaluate(ctx, session, pin, 0, len(r.records)); err != nil {
		return err
	}
	if err := r.explain(ctx, session, pin); err != nil {
		return err
	}
	for i := range r.results {
		if !r.settled[i] {
			return fmt.Errorf("transform: the statement gave nothing for record %s", r.records[i].ID)
		}
		if r.results[i].Kind == Ok {
			x := r.spans[i]
			r.results[i].Data = r.arena[x.from:x.to:x.to]
		}
	}
	r.room -= len(r.arena)
	return nil
}

// stage decodes the records into a file and gives those that do not fit their
// result. Without rows there is no file.
func (r *run) stage(w *worker) (file engine.File, rows int, err error) {
	var batch *columnar.Batch
	if r.s.list {
		w.docs = w.docs[:0]
		for i := range r.records {
			w.docs = append(w.docs, r.records[i].Data)
		}
		batch = w.decoder.DecodeDocs(w.docs, 0)
		clear(w.docs) // they are the caller's
	} else {
		r.wrap(w)
		batch = w.decoder.Decode(w.arena, w.ends, 0)
	}
	defer batch.Release()
	for _, x := range batch.Rejects {
		if i := int(x.Doc); !r.settled[i] {
			r.fail(i, MalformedData, "%s: %s", x.Code, x.Message)
		}
	}
	if batch.Rows == 0 {
		return engine.File{}, 0, nil
	}
	batch.SetOrigin(record.Key{}, 0)
	w.builder.Append(batch)
	parts, err := w.builder.Flush()
	if err != nil {
		return engine.File{}, 0, fmt.Errorf("encode records for a transform: %w", err)
	}
	path := filepath.Join(r.s.dir, strconv.FormatUint(r.s.serial.Add(1), 10)+".parquet")
	if err := os.WriteFile(path, parts[0].Data, 0o600); err != nil {
		_ = os.Remove(path) // it may not have been created
		return engine.File{}, 0, fmt.Errorf("write records for a transform: %w", err)
	}
	return engine.File{Path: path, Rows: int64(batch.Rows), SchemaID: r.s.layout.Schema().ID}, batch.Rows, nil
}

// wrap makes documents of one member, data, for a statement without a list.
func (r *run) wrap(w *worker) {
	w.arena, w.ends = w.arena[:0], w.ends[:0]
	for i := range r.records {
		data := r.records[i].Data
		problem := ""
		switch {
		case !utf8.Valid(data):
			problem = columnar.InvalidUTF8 + ": the record is no UTF-8 text"
		case r.s.strict:
			problem = inexactJSON(data)
		}
		w.arena = append(w.arena, `{"`+dataColumn+`":`...)
		if problem != "" {
			// Its place is kept, and its row is passed over.
			r.fail(i, MalformedData, "%s", problem)
			w.arena = append(w.arena, "null"...)
		} else {
			w.arena = engine.AppendJSONString(w.arena, string(data))
		}
		w.arena = append(w.arena, '}')
		w.ends = append(w.ends, int32(len(w.arena)))
	}
}

// doubleDigits is how many significant digits a double keeps of any decimal.
const doubleDigits = 15

// inexactJSON says why JSON functions cannot read data without changing it, or
// "". They take a fraction for a double, and integers of any size as they are.
func inexactJSON(data []byte) (problem string) {
	s := &scanner{b: data}
	s.number = func(text []byte) {
		digits, zeros, fraction := 0, 0, false
		for _, c := range text {
			switch {
			case c == '.':
				fraction = true
				continue
			case c|0x20 == 'e':
				fraction = true
			case c-'0' > 9:
				continue
			case c == '0':
				if digits > 0 {
					zeros++
				}
				continue
			default:
				digits += zeros + 1
				zeros = 0
				continue
			}
			break
		}
		if fraction && digits > doubleDigits {
			problem = columnar.Inexact + fmt.Sprintf(": JSON functions read the number %.40s as a double, which does not hold its digits; declare its member as a column", text)
		}
	}
	s.space()
	if !s.skip(1) || !s.end() {
		return columnar.MalformedJSON + fmt.Sprintf(": no JSON at byte %d", s.pos)
	}
	return problem
}

// evaluate runs the statement over the records [from, to). If something fails
// it that TRY does not catch, the records are halved until the one stands alone.
func (r *run) evaluate(ctx context.Context, session *engine.Session, pin *engine.Pin, from, to int) error {
	mark, failed := len(r.arena), len(r.failed)
	q := engine.Query{SQL: r.s.tried, Pin: pin, Exact: true}
	if from > 0 || to < len(r.records) {
		q = engine.Query{SQL: r.s.part, Pin: pin, Exact: true, Args: []any{int64(from), int64(to)}}
	}
	err := r.read(ctx, session, q)
	if err == nil {
		return nil
	}
	var e *engine.Error
	if !errors.As(err, &e) || transient(e.Kind) {
		return err
	}
	r.halvings++
	r.arena, r.failed = r.arena[:mark], r.failed[:failed]
	if to-from == 1 {
		if !r.settled[from] || r.results[from].Kind != Failed {
			r.failWith(from, e)
		}
		return nil
	}
	middle := (from + to) / 2
	if err := r.evaluate(ctx, session, pin, from, middle); err != nil {
		return err
	}
	return r.evaluate(ctx, session, pin, middle, to)
}

// failWith fails a record with what the engine says about it alone.
func (r *run) failWith(i int, e *engine.Error) {
	if e.Kind == engine.OutOfMemory {
		r.fail(i, OutputTooLarge, "the statement needs more memory for it than there is")
		return
	}
	r.fail(i, CastError, "%s", e.Message)
}

// read runs q and settles the records of its rows.
func (r *run) read(ctx context.Context, session *engine.Session, q engine.Query) error {
	rows, err := session.Query(ctx, q)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for {
		if err := rows.Step(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		i, ok := rows.Value(indexAt).(int64)
		if !ok || i < 0 || int(i) >= len(r.records) {
			return fmt.Errorf("transform: the statement gave a row for record %v of %d", rows.Value(indexAt), len(r.records))
		}
		r.row(rows, int(i))
	}
}

// row settles record i with the row that rows stands at.
func (r *run) row(rows *engine.Rows, i int) {
	if r.settled[i] && r.results[i].Kind == Failed {
		return // it was no document, and its row holds nulls
	}
	r.settled[i] = true
	if tried, _ := rows.Value(triedAt).(bool); !tried {
		r.failed = append(r.failed, i)
		return
	}
	if given, _ := rows.Value(whereAt).(bool); !given {
		r.results[i] = Result{Kind: Dropped, Attempts: 1}
		return
	}
	if given, _ := rows.Value(givenAt).(bool); !given {
		r.failed = append(r.failed, i)
		return
	}
	from := len(r.arena)
	result := Result{Kind: Ok, Attempts: 1}
	name, err := r.document(rows, i, &result)
	switch {
	case errors.Is(err, engine.ErrTooLong):
		r.arena = r.arena[:from]
		r.fail(i, OutputTooLarge, "the document is longer than %d bytes, or those of its batch than %d", MaxRecordBytes, outputMax)
	case err != nil:
		r.arena = r.arena[:from]
		message := err.Error()
		if e := (*engine.Error)(nil); errors.As(err, &e) {
			message = e.Message
		}
		r.fail(i, CastError, "%q: %s", name, message)
	default:
		r.results[i] = result
		r.spans[i] = span{from, len(r.arena)}
	}
}

// document appends the row's document to the arena and sets what else the row
// says. name is the output that an error is about.
func (r *run) document(rows *engine.Rows, i int, result *Result) (name string, err error) {
	s := r.s
	from := len(r.arena)
	limit := from + min(MaxRecordBytes, r.room-from)
	for k := range s.outputs {
		o, at := &s.outputs[k], resultColumns+k
		switch o.kind {
		case member:
			r.arena = append(r.arena, o.label...)
			if r.arena, err = rows.AppendJSON(r.arena, at, limit); err != nil {
				return o.name, err
			}
		case wholeDocument:
			if rows.Null(at) {
				return documentName, errNull
			}
			if o.text {
				r.arena, err = rows.AppendString(r.arena, at, limit)
			} else {
				r.arena, err = rows.AppendJSON(r.arena, at, limit)
			}
			if err != nil {
				return documentName, err
			}
		default:
			if err := r.reserved(rows, at, o, result); err != nil {
				return o.reservedName(), err
			}
		}
	}
	switch {
	case s.members > 0:
		r.arena = append(r.arena, '}')
	case s.document < 0:
		// Nothing but reserved names: the document stays as it came.
		r.arena = append(r.arena, r.records[i].Data...)
	}
	if len(r.arena) > limit {
		return "", engine.ErrTooLong
	}
	return "", nil
}

var errNull = errors.New("it is null")

// reservedMax bounds the text of a reserved output.
const reservedMax = 1024

func (o *output) reservedName() string {
	switch o.kind {
	case database:
		return databaseName
	case tableOf:
		return tableName
	case operation:
		return operationName
	}
	return partitionPrefix + o.name
}

// reserved sets what column at says about the record.
func (r *run) reserved(rows *engine.Rows, at int, o *output, result *Result) (err error) {
	if rows.Null(at) {
		if o.kind == partitionKey {
			return errNull
		}
		return nil
	}
	r.scratch = r.scratch[:0]
	if o.text {
		r.scratch, err = rows.AppendString(r.scratch, at, reservedMax)
	} else {
		r.scratch, err = rows.AppendJSON(r.scratch, at, reservedMax)
	}
	if errors.Is(err, engine.ErrTooLong) {
		return fmt.Errorf("it is longer than %d bytes", reservedMax)
	}
	if err != nil {
		return err
	}
	text := string(r.scratch)
	if !o.text && text[0] == '"' {
		text = unquote(r.scratch)
	}
	switch o.kind {
	case database:
		result.Database = text
	case tableOf:
		result.Table = text
	case operation:
		if !operations[text] {
			return fmt.Errorf("it is %s: it must be insert, update or delete", shown(text))
		}
		result.Operation = text
	default:
		if result.Keys == nil {
			result.Keys = make(map[string]string, 2)
		}
		result.Keys[o.name] = text
	}
	return nil
}

// explain asks for the first failed records why.
func (r *run) explain(ctx context.Context, session *engine.Session, pin *engine.Pin) error {
	slices.Sort(r.failed)
	for k, i := range r.failed {
		if k >= explainedMax {
			r.fail(i, CastError, "an expression of the statement has no value for it, as for record %s", r.records[r.failed[0]].ID)
			continue
		}
		rows, err := session.Query(ctx, engine.Query{SQL: r.s.alone, Pin: pin, Exact: true, Args: []any{int64(i)}})
		if err == nil {
			err = rows.Step()
			_ = rows.Close()
		}
		var e *engine.Error
		switch {
		case err == nil || errors.Is(err, io.EOF):
			r.fail(i, CastError, "an expression of the statement has no value for it")
		case !errors.As(err, &e) || transient(e.Kind):
			return err
		default:
			r.failWith(i, e)
		}
	}
	return nil
}
