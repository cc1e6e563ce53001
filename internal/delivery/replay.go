package delivery

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/ledger"
	"github.com/tapehouse/tapehouse/internal/record"
)

// ErrReplay is the root of what a replay refuses.
var ErrReplay = errors.New("cannot be replayed")

// ReplayItem is a record to be put in the place of an earlier one.
type ReplayItem struct {
	ID record.ID // of the earlier record, of this stream or another
	// Rejected is what the earlier record was, if the stream rejected it. The
	// replay resolves the reject, which the log tells of; without the log this
	// does.
	Rejected []byte
	Data     []byte // what is put now
}

// ReplayResult counts what a replay did.
type ReplayResult struct {
	Put   int // records that are on disk now
	Known int // records that were replayed before and were not put again
}

// replayDocsMax bounds one call of Replay.
const replayDocsMax = 500

// Replay puts records through the stream, each at most once: one whose earlier
// record was replayed into the stream before is passed over, however often and
// after whatever crash it is asked for. At most 500 records.
func (s *Stream) Replay(ctx context.Context, items []ReplayItem) (res ReplayResult, err error) {
	if len(items) > replayDocsMax {
		return res, fmt.Errorf("%w: %d records at once, at most %d", ErrReplay, len(items), replayDocsMax)
	}
	s.replaying.Lock()
	defer s.replaying.Unlock()
	if err := s.room(ctx); err != nil {
		return res, err
	}
	// What earlier calls logged must be in the account before it is asked.
	if err := s.accounted(ctx); err != nil {
		return res, err
	}
	var docs Docs
	var list []replayed
	for i := range items {
		x := &items[i]
		if x.ID.Key.Shard == duplicateShard {
			return res, fmt.Errorf("%w: record %s was a duplicate: there is nothing to replay", ErrReplay, x.ID)
		}
		if s.m.o.Ledger.Replayed(s.key, x.ID.Key, x.ID.Offset) || s.m.o.Ledger.Replayed(s.staged(), x.ID.Key, x.ID.Offset) || twice(list, x.ID) {
			res.Known++
			continue
		}
		r := replayed{Key: x.ID.Key, Offset: x.ID.Offset}
		if x.ID.Key == s.key {
			if r.Resolves, err = s.rejectOf(ctx, x); err != nil {
				return res, err
			}
		}
		list = append(list, r)
		docs.Arena = append(docs.Arena, x.Data...)
		docs.Ends = append(docs.Ends, int32(len(docs.Arena)))
	}
	if len(list) == 0 {
		return res, nil
	}
	docs.Arena = append(docs.Arena, make([]byte, columnar.Slack)...)[:len(docs.Arena)]
	docs.replays = list
	receipt, err := s.put(ctx, docs)
	if err != nil {
		return res, err
	}
	// A numbered record that came in the meantime is a duplicate.
	res.Put, res.Known = len(list)-receipt.Duplicates, res.Known+receipt.Duplicates
	return res, nil
}

// Documents calls fn for the records of [from, to) of the log as producers put
// them, or, where the log has their values only, as documents that decode to
// the same; rejected tells of those that the table did not take. It ends at
// what is synced; ErrReplay if the log does not reach back to from. doc is
// valid during the call.
func (s *Stream) Documents(ctx context.Context, from, to record.Offset, fn func(id record.ID, doc []byte, rejected bool) error) error {
	if oldest := s.m.o.Log.Oldest(s.key); from < oldest {
		return fmt.Errorf("%w: the log of %s begins at offset %d: its retention has let go of %d", ErrReplay, s.name, oldest, from)
	}
	each := func(at record.Offset, doc []byte, rejected bool) error {
		if at < from || at >= to {
			return nil
		}
		return fn(record.ID{Key: s.key, Offset: at}, doc, rejected)
	}
	var l *tableLane // whose frames they are
	var d *decoders
	// A frame that begins below from may reach into it.
	err := s.m.read(ctx, s.key, from, func(f frame) error {
		if f.First >= to {
			return errStop
		}
		if f.Kind == payloadPlain {
			docs, err := readPlain(f.Payload, int(f.Count))
			if err != nil {
				return fmt.Errorf("frame at offset %d: %w", f.First, err)
			}
			for i, d := range docs {
				if err := each(f.First+record.Offset(i), d, false); err != nil {
					return err
				}
			}
			return nil
		}
		if l == nil || !l.span.has(f.First) {
			var err error
			if l, err = s.directAt(ctx, f.First); err != nil {
				return err
			}
			d = l.newDecoders()
		}
		return l.eachBatch(d, f, func(b *columnar.Batch, conflict bool) error {
			var buf []byte
			for row := range b.Rows {
				buf = b.AppendDocument(buf[:0], row)
				if err := each(b.Offset(row), buf, conflict); err != nil {
					return err
				}
			}
			for i := range b.Rejects {
				if err := each(f.First+record.Offset(b.Rejects[i].Doc), b.Rejects[i].Raw, true); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

// ParseFailed reads a line of the error output, or of a file that was made of
// one by correcting it: {"recordId": …, "data": …}, where data is the record,
// as JSON or as a string. original is what failed, nil in a corrected line.
func ParseFailed(line []byte) (item ReplayItem, original []byte, err error) {
	var f struct {
		RecordID string          `json:"recordId"`
		RawData  *string         `json:"rawData"`
		Data     json.RawMessage `json:"data"`
		Code     string          `json:"tapehouseCode"`
	}
	if err := json.Unmarshal(line, &f); err != nil {
		return item, nil, fmt.Errorf("%w: not a line of the error output: %w", ErrReplay, err)
	}
	if f.Code == SequenceConflict {
		return item, nil, fmt.Errorf("%w: record %s is a conflict: another content is stored under its number; put a correction with a number of its own", ErrReplay, f.RecordID)
	}
	if item.ID, err = record.ParseID(f.RecordID); err != nil {
		return item, nil, fmt.Errorf("%w: recordId: %w", ErrReplay, err)
	}
	if f.RawData != nil {
		if original, err = base64.StdEncoding.DecodeString(*f.RawData); err != nil {
			return item, nil, fmt.Errorf("%w: rawData: %w", ErrReplay, err)
		}
	}
	var text string
	switch {
	case len(f.Data) == 0 && original == nil:
		return item, nil, fmt.Errorf("%w: record %s: the line has neither rawData nor data", ErrReplay, f.RecordID)
	case len(f.Data) == 0:
		item.Data = original
	case json.Unmarshal(f.Data, &text) == nil && f.Data[0] == '"':
		item.Data = []byte(text)
	default:
		item.Data = f.Data
	}
	item.Rejected = original
	return item, original, nil
}

func twice(list []replayed, id record.ID) bool {
	for i := range list {
		if list[i].Key == id.Key && list[i].Offset == id.Offset {
			return true
		}
	}
	return false
}

// accounted waits until the ledger's account has everything that is synced.
func (s *Stream) accounted(ctx context.Context) error {
	if err := s.processed(ctx); err != nil {
		return err
	}
	want := record.Vector{}
	if g := s.stage.Load(); g != nil { // it enters what it logged right after the sync
		want[g.out] = s.m.o.Log.Synced(g.out)
	}
	want[s.key] = s.followed()
	for {
		applied, done := s.m.o.Ledger.Applied(), true
		for k, at := range want {
			done = done && applied[k] >= at
		}
		if done {
			return nil
		}
		s.signal()
		select {
		case <-s.stop:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// rejectOf is the reject that a table's lane made of the earlier record: as the
// log has it, or else what decoding it again makes of it. nil: none.
func (s *Stream) rejectOf(ctx context.Context, x *ReplayItem) (found *ledger.Reject, err error) {
	take := func(r *columnar.Reject) {
		found = &ledger.Reject{Feed: ledger.Feed{Source: r.Source, Session: r.Session, Epoch: r.Epoch}, HasSequence: r.HasSequence, Sequence: r.Sequence, Offset: x.ID.Offset}
	}
	for _, l := range s.tablesAt(ctx, x.ID.Offset) {
		if x.ID.Offset < s.m.o.Log.Oldest(l.key) {
			if b := l.newDecoders().present().DecodeDocs([][]byte{x.Rejected}, s.m.o.Now().UnixMicro()); x.Rejected != nil && len(b.Rejects) == 1 {
				take(&b.Rejects[0])
			}
			continue
		}
		err := s.m.read(ctx, l.key, x.ID.Offset, func(f frame) error {
			if err := l.eachBatch(l.newDecoders(), f, func(b *columnar.Batch, _ bool) error {
				for i := range b.Rejects {
					if r := &b.Rejects[i]; f.First+record.Offset(r.Doc) == x.ID.Offset {
						take(r)
					}
				}
				return nil
			}); err != nil {
				return err
			}
			return errStop
		})
		if err != nil && !errors.Is(err, errStop) {
			return nil, fmt.Errorf("look for the reject: %w", err)
		}
	}
	return found, nil
}
