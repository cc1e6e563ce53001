package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/record"
)

// Trace says where a record is.
type Trace struct {
	Stream    record.StreamName
	ID        record.ID
	Known     bool      // the stream has given out this id
	Duplicate bool      // it answered a resend: the offset is the record's sequence number
	ArrivedAt time.Time // zero where the log no longer has it
	Document  []byte    // as it was put, or what decodes to the same; nil where the log no longer has it
	InLog     bool
	// Destinations has an entry for each lane that concerns the record, as far as
	// is known: without the log, for every lane.
	Destinations []TraceDestination
}

// TraceDestination is what became of a record on one way.
type TraceDestination struct {
	Table     catalog.Name // of a table; zero for objects
	Role      string       // of objects: objects, errors, backup; "table"
	Outcome   TraceOutcome
	Code      string // of a failure
	Message   string
	Delivered bool // the destination has it; else it waits in the log (and, for a table's row, is visible to SQL)
	Visible   bool // to SQL
	Keyed     bool // a later record may update or delete the row
	// Objects are names in which it may stand, of Total, where they are known.
	Objects     []string
	ObjectTotal int64
}

// TraceOutcome says what a record is to a destination.
type TraceOutcome string

// The outcomes of a record.
const (
	TraceUnknown  TraceOutcome = "unknown" // the log no longer has it
	TraceRow      TraceOutcome = "row"
	TraceRejected TraceOutcome = "rejected"
	TraceConflict TraceOutcome = "conflict"
	TraceDropped  TraceOutcome = "dropped"
	TraceFailed   TraceOutcome = "failed"
	TraceObject   TraceOutcome = "object"
	TraceWaiting  TraceOutcome = "waiting" // for processing
	TraceDelete   TraceOutcome = "delete"  // it takes rows away, by its key
	TraceLate     TraceOutcome = "late"    // an update or delete that a later one of its source had overtaken
	TraceNothing  TraceOutcome = "nothing" // the destination has no part of it: it is another's, or a duplicate
)

// Trace finds a record by the id that its producer was answered. ErrNotFound
// if no stream that is there has given it out.
func (m *Manager) Trace(ctx context.Context, id record.ID) (*Trace, error) {
	for _, s := range m.Streams() {
		if s.key.Incarnation == id.Key.Incarnation {
			return s.trace(ctx, id)
		}
	}
	return nil, fmt.Errorf("%w: record %s is of a stream that is not there any more, or never was; its rows, if any, are still in their table (columns record_stream and record_offset)", ErrNotFound, id)
}

func (s *Stream) trace(ctx context.Context, id record.ID) (*Trace, error) {
	t := &Trace{Stream: s.name, ID: id}
	if id.Key.Shard == duplicateShard {
		t.Known, t.Duplicate = true, true
		return t, nil
	}
	if id.Key.Shard != 0 || id.Offset >= s.m.o.Log.Synced(s.key) {
		return t, nil
	}
	t.Known = true
	if id.Offset >= s.m.o.Log.Oldest(s.key) {
		if err := s.traceSource(ctx, t); err != nil {
			return nil, err
		}
	}
	lanes := s.former(ctx, id.Offset)
	s.each(func(l lane) {
		if l.bounds().has(id.Offset) {
			lanes = append(lanes, l)
		}
	})
	for _, l := range lanes {
		d := TraceDestination{Outcome: TraceUnknown, Delivered: id.Offset < l.Through()}
		var err error
		if id.Offset >= s.m.o.Log.Synced(l.log()) {
			d.Outcome = TraceWaiting
		} else if id.Offset >= s.m.o.Log.Oldest(l.log()) {
			err = s.traceFrame(ctx, l, id.Offset, &d)
		}
		switch l := l.(type) {
		case *tableLane:
			d.Table, d.Role, d.Keyed = l.table, "table", l.keys != nil
			_, _, _, end := l.tail.stats()
			d.Visible = (d.Outcome == TraceRow || d.Outcome == TraceUnknown) && (d.Delivered || id.Offset < end)
		case *objectLane:
			d.Role = l.role
			if d.Delivered && err == nil {
				err = l.traceObjects(ctx, id.Offset, &d)
			}
		}
		if err != nil {
			return nil, err
		}
		t.Destinations = append(t.Destinations, d)
	}
	return t, nil
}

// traceSource reads the record from the log.
func (s *Stream) traceSource(ctx context.Context, t *Trace) error {
	err := s.m.read(ctx, s.key, t.ID.Offset, func(f frame) error {
		t.InLog, t.ArrivedAt = true, time.UnixMicro(f.ArrivedAt).UTC()
		return errStop
	})
	if err != nil && !errors.Is(err, errStop) {
		return fmt.Errorf("trace: %w", err)
	}
	return s.Documents(ctx, t.ID.Offset, t.ID.Offset+1, func(_ record.ID, doc []byte, _ bool) error {
		t.Document = append([]byte(nil), doc...)
		return nil
	})
}

// traceFrame finds what a lane makes of the record at the offset.
func (s *Stream) traceFrame(ctx context.Context, l lane, at record.Offset, d *TraceDestination) error {
	err := s.m.read(ctx, l.log(), at, func(f frame) error {
		if t, ok := l.(*tableLane); ok {
			d.Outcome = TraceNothing
			if err := t.traceBatches(f, at, d); err != nil {
				return err
			}
			return errStop
		}
		if f.Kind == payloadPlain {
			d.Outcome = TraceObject
			return errStop
		}
		d.Outcome = TraceNothing
		st, err := readStaged(f.Payload, int(f.Count))
		if err != nil {
			return err
		}
		for _, e := range st.Entries {
			if f.First+record.Offset(e.Place) != at {
				continue
			}
			switch e.Kind {
			case stagedDocument:
				d.Outcome = TraceObject
			case stagedDropped:
				d.Outcome = TraceDropped
			case stagedFailed:
				d.Outcome, d.Code, d.Message = TraceFailed, e.Code, e.Message
			}
		}
		return errStop
	})
	if err != nil && !errors.Is(err, errStop) {
		return fmt.Errorf("trace: %w", err)
	}
	return nil
}

func (l *tableLane) traceBatches(f frame, at record.Offset, d *TraceDestination) error {
	err := l.eachBatch(l.newDecoders(), f, func(b *columnar.Batch, conflict bool) error {
		for row := range b.Rows {
			if b.Offset(row) != at {
				continue
			}
			d.Outcome = TraceRow
			if conflict {
				d.Outcome, d.Code = TraceConflict, SequenceConflict
				d.Message = "another content is stored under its sequence number"
			}
		}
		for i := range b.Rejects {
			if r := &b.Rejects[i]; f.First+record.Offset(r.Doc) == at {
				d.Outcome, d.Code, d.Message = TraceRejected, r.Code, r.Message
			}
		}
		return nil
	})
	if err == nil && l.keys != nil && d.Outcome == TraceRow {
		err = l.traceChange(f, at, d)
	}
	return err
}

// traceObjects finds the objects of the plan that had the offset, as far as the
// history of the lane's progress goes back.
func (l *objectLane) traceObjects(ctx context.Context, at record.Offset, d *TraceDestination) error {
	bodies, err := l.m.o.Documents.History(ctx, KindProgress, l.stateKey())
	if err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	for _, body := range bodies {
		var st objectState
		if err := json.Unmarshal(body, &st); err != nil {
			return fmt.Errorf("trace: read the progress of %s: %w", l.s.name, err)
		}
		if p := st.Done; p != nil && p.From <= at && at < p.To {
			d.Objects, d.ObjectTotal = p.Names, p.Objects
			return nil
		}
	}
	return nil
}
