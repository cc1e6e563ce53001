package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/delivery"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/internal/warehouse"
)

// recordError gives delivery's errors the console's codes.
func recordError(err error) error {
	switch {
	case errors.Is(err, delivery.ErrNotFound), errors.Is(err, lake.ErrNotFound):
		return &console.Error{Code: console.CodeNotFound, Message: err.Error()}
	case errors.Is(err, delivery.ErrReplay), errors.Is(err, record.ErrInvalid), errors.Is(err, lake.ErrName), errors.Is(err, lake.ErrTooLarge):
		return &console.Error{Code: console.CodeInvalid, Message: err.Error()}
	case errors.Is(err, delivery.ErrUnavailable), errors.Is(err, delivery.ErrClosed):
		return &console.Error{Code: console.CodeUnavailable, Message: err.Error(), Remedy: "try again in a moment"}
	}
	return err
}

// Trace implements console.Backend.
func (s closeBackend) Trace(ctx context.Context, q console.TraceRequest) (console.Trace, error) {
	out := console.Trace{RecordID: q.RecordID, Places: []console.TracePlace{}}
	id, err := record.ParseID(q.RecordID)
	if err != nil {
		return out, recordError(err)
	}
	t, err := s.delivery.Trace(ctx, id)
	if err != nil {
		return out, recordError(err)
	}
	out.Stream, out.Offset, out.InLog, out.Record = string(t.Stream), int64(id.Offset), t.InLog, string(t.Document)
	if !t.ArrivedAt.IsZero() {
		out.ArrivedAt = &t.ArrivedAt
	}
	switch {
	case t.Duplicate:
		out.State = fmt.Sprintf("a duplicate: the record with the sequence number %d of its feed was here before, and this resend was not stored", id.Offset)
	case !t.Known:
		out.State = "unknown: the stream has acknowledged no such record"
	case t.InLog:
		out.State = "acknowledged, on disk, and still in the log"
	default:
		out.State = "acknowledged; the log's retention has let go of it"
	}
	for i := range t.Destinations {
		p, err := s.place(ctx, t, &t.Destinations[i])
		if err != nil {
			return out, err
		}
		out.Places = append(out.Places, p)
	}
	return out, nil
}

// place tells of one destination.
func (s closeBackend) place(ctx context.Context, t *delivery.Trace, d *delivery.TraceDestination) (p console.TracePlace, err error) {
	p = console.TracePlace{Destination: "table " + d.Table.String(), Outcome: string(d.Outcome), Code: d.Code, Message: d.Message, Objects: d.Objects, ObjectCount: d.ObjectTotal}
	names := map[string]string{"objects": "objects", "errors": "error output", "backup": "backup"}
	if d.Role != "table" {
		p.Destination = names[d.Role]
	}
	switch {
	case d.Outcome == delivery.TraceWaiting:
		p.State = "waits for processing"
	case d.Outcome == delivery.TraceNothing:
		p.State = "nothing of it belongs here, or it was a duplicate"
	case d.Outcome == delivery.TraceDropped:
		p.State = "dropped by a rule of the stream's processing"
	case d.Outcome == delivery.TraceRejected || d.Outcome == delivery.TraceConflict || d.Outcome == delivery.TraceFailed:
		p.State = "in the log; it goes to the error output with the next delivery"
		p.Remedy = "correct it and put it again: tapehouse replay --help"
		if d.Outcome == delivery.TraceConflict {
			p.Remedy = "both are kept: put a correction with a sequence number of its own"
		}
		if d.Delivered {
			p.State = "in the error output"
			if len(p.Objects) == 0 {
				p.Objects, err = s.errorObject(ctx, t)
			}
		}
	case d.Outcome == delivery.TraceDelete:
		p.State = "a delete: rows with its key that came before are gone"
	case d.Outcome == delivery.TraceLate:
		p.State = "overtaken: the row with its key carried a later number of the same source, so it changed nothing"
	case d.Role != "table" && d.Delivered:
		p.State = "delivered"
	case d.Role != "table":
		p.State = "in the log; the next delivery writes it"
	case d.Delivered:
		p.State = "a row of the table, if the table took it"
		if d.Outcome == delivery.TraceRow {
			p.State = "a row of the table"
		}
		p.File, p.Snapshot, err = s.dataFile(ctx, t, d)
		if p.File != "" {
			p.State = "a row of the table"
		} else if d.Keyed && d.Outcome == delivery.TraceRow {
			p.State = "was made a row of the table, which a later record of its key may have updated or deleted"
		}
	case d.Visible:
		p.State = "visible to SQL; the next commit brings it into the table"
	default:
		p.State = "in the log; visible to SQL in a moment"
	}
	return p, err
}

// traceFilesMax bounds the data files that are looked into.
const traceFilesMax = 1000

// dataFile finds the file that holds a record's row, and the snapshot that
// added it, by the columns that name stream and offset.
func (s closeBackend) dataFile(ctx context.Context, t *delivery.Trace, d *delivery.TraceDestination) (file string, snapshot int64, err error) {
	tab, err := s.catalog.Load(ctx, d.Table)
	if err != nil {
		return "", 0, err
	}
	var stream, offset string
	for _, f := range tab.Schema.Fields {
		switch f.Derive {
		case record.RecordStream:
			stream = f.Name
		case record.RecordOffset:
			offset = f.Name
		}
	}
	if offset == "" { // the table does not say which record a row was
		return "", 0, nil
	}
	files, err := s.catalog.Files(ctx, tab, catalog.At{})
	if err != nil {
		return "", 0, err
	}
	where := fmt.Sprintf("%s = %d", engine.QuoteIdentifier(offset), t.ID.Offset)
	if stream != "" {
		where += fmt.Sprintf(" AND %s = %s", engine.QuoteIdentifier(stream), engine.QuoteLiteral(t.ID.Key.String()))
	}
	session, err := s.engine.InternalSession(ctx)
	if err != nil {
		return "", 0, err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	schema, types := warehouse.RelationSchema(tab)
	for _, f := range files[:min(len(files), traceFilesMax)] {
		pin := engine.NewPin(map[engine.Name]engine.Relation{{Namespace: "trace", Table: "file"}: {Schema: schema, Types: types, Files: relationFiles([]catalog.DataFile{f})}})
		n, err := countRows(ctx, session, pin, `SELECT count(*) FROM trace.file WHERE `+where)
		pin.Release()
		if err != nil {
			return "", 0, err
		}
		if n > 0 {
			return f.Path, f.AddedBy, nil
		}
	}
	return "", 0, nil
}

func countRows(ctx context.Context, session *engine.Session, pin *engine.Pin, sql string) (n int64, err error) {
	rows, err := session.Query(ctx, engine.Query{Pin: pin, SQL: sql})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	row := make([]any, 1)
	if err := rows.Next(row); err != nil {
		return 0, err
	}
	n, _ = row[0].(int64)
	return n, nil
}

// errorObject looks for a record in the error output that was written since it
// arrived.
func (s closeBackend) errorObject(ctx context.Context, t *delivery.Trace) ([]string, error) {
	st, err := s.delivery.Stream(t.Stream)
	if err != nil {
		return nil, recordError(err)
	}
	store, prefix, err := s.delivery.ErrorOutput(st)
	if err != nil {
		return nil, err
	}
	var found []lake.Info
	if err := store.List(ctx, prefix, func(i lake.Info) error {
		if !i.ModifiedAt.Before(t.ArrivedAt.Add(-time.Second)) && i.SizeBytes <= lake.GetBytesMax && strings.Contains(path.Base(i.Name), string(t.Stream)+"-") {
			found = append(found, i)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b lake.Info) int { return a.ModifiedAt.Compare(b.ModifiedAt) })
	id := []byte(t.ID.String())
	for _, i := range found[:min(len(found), traceFilesMax)] {
		b, err := store.Get(ctx, i.Name)
		if err != nil {
			return nil, err
		}
		if bytes.Contains(b, id) {
			return []string{i.Name}, nil
		}
	}
	return nil, nil
}

// replayBatchBytes bounds the records of one put of a replay.
const replayBatchBytes = 4 << 20

// replayer collects records and puts them in batches.
type replayer struct {
	stream *delivery.Stream
	out    console.Replay
	items  []delivery.ReplayItem
	size   int
}

func (r *replayer) add(ctx context.Context, item delivery.ReplayItem) error {
	if len(r.items) == console.ReplayLinesMax || r.size+len(item.Data) > replayBatchBytes && r.size > 0 {
		if err := r.flush(ctx); err != nil {
			return err
		}
	}
	r.items, r.size = append(r.items, item), r.size+len(item.Data)
	return nil
}

func (r *replayer) flush(ctx context.Context) error {
	if len(r.items) == 0 {
		return nil
	}
	res, err := r.stream.Replay(ctx, r.items)
	if err != nil {
		return err
	}
	r.out.Put += int64(res.Put)
	r.out.Known += int64(res.Known)
	r.items, r.size = nil, 0
	return nil
}

// line adds a line of the error output.
func (r *replayer) line(ctx context.Context, number int64, line []byte) error {
	item, _, err := delivery.ParseFailed(line)
	if err == nil && len(item.Data) > recordBytesMax {
		err = fmt.Errorf("the record has %d bytes, at most %d are taken", len(item.Data), recordBytesMax)
	}
	if err != nil {
		r.out.Refuse(number, err.Error())
		return nil
	}
	return r.add(ctx, item)
}

// recordBytesMax bounds a record, as a put does.
const recordBytesMax = 1_024_000

// Replay implements console.Backend.
func (s closeBackend) Replay(ctx context.Context, q console.ReplayRequest) (console.Replay, error) {
	st, err := s.delivery.Stream(record.StreamName(q.Stream))
	if err != nil {
		return console.Replay{}, recordError(err)
	}
	r := &replayer{stream: st, out: console.Replay{Stream: q.Stream}}
	switch {
	case q.From != nil:
		err = s.replayRange(ctx, r, q.From)
	case q.Object != "":
		err = s.replayObject(ctx, r, q.Object)
	default:
		for i, line := range q.Lines {
			if err = r.line(ctx, int64(i+1), line); err != nil {
				break
			}
		}
	}
	if err == nil {
		err = r.flush(ctx)
	}
	if err == nil {
		s.logger.Info("replayed", "stream", q.Stream, "put", r.out.Put, "known", r.out.Known, "refused", r.out.RefusedCount)
	}
	return r.out, recordError(err)
}

func (s closeBackend) replayObject(ctx context.Context, r *replayer, name string) error {
	store, _, err := s.delivery.ErrorOutput(r.stream)
	if err != nil {
		return err
	}
	b, err := store.Get(ctx, name)
	if err != nil {
		return err
	}
	number := int64(0)
	for line := range bytes.Lines(b) {
		number++
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if err := r.line(ctx, number, line); err != nil {
			return err
		}
	}
	return nil
}

func (s closeBackend) replayRange(ctx context.Context, r *replayer, q *console.ReplayRange) error {
	from, err := s.delivery.Stream(record.StreamName(q.Stream))
	if err != nil {
		return err
	}
	if q.First < 0 || q.Last < q.First || q.Last == math.MaxInt64 {
		return fmt.Errorf("%w: offsets %d to %d are no range", delivery.ErrReplay, q.First, q.Last)
	}
	return from.Documents(ctx, record.Offset(q.First), record.Offset(q.Last)+1, func(id record.ID, doc []byte, rejected bool) error {
		item := delivery.ReplayItem{ID: id, Data: bytes.Clone(doc)}
		if rejected {
			item.Rejected = item.Data
		}
		return r.add(ctx, item)
	})
}
