package delivery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/ledger"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/internal/wal"
)

// kindConflict marks a log frame whose records bear known keys with other
// content: they are kept and shown, but are no rows. The low bits are the
// payload's kind.
const kindConflict uint8 = 0x80

// duplicateShard is the shard of the RecordId of a duplicate, which has no
// offset of its own: its Offset is the record's sequence number at the source.
const duplicateShard = record.Shard(0xFFFF)

// Stream is one delivery stream. Put may be called concurrently.
type Stream struct {
	m    *Manager
	cfg  Config
	key  record.Key
	ids  record.IDs // of key
	dest Destination

	layout   *columnar.Layout
	sequence bool
	decoders sync.Pool // *columnar.Decoder

	mu         sync.Mutex // makes the queue's order the log's
	queue      []pending
	queuedRows int
	refused    error // answered to every put while set

	tail     tail
	through  atomic.Uint64
	appended atomic.Uint64 // offset up to which the pump has taken records
	fatal    atomic.Pointer[error]
	planned  *plan // a flush that a former process had begun, to be executed exactly

	wake     chan struct{}
	requests chan request
	flushed  chan flushResult
	stop     chan struct{}
	done     sync.WaitGroup
	stopOnce sync.Once

	// The pump's own.
	builder *columnar.Builder
	merger  *columnar.Builder // empty, kept for its memory; or nil
	pumpState
}

// pending is a decoded put on its way to the pump.
type pending struct {
	first record.Offset
	count int
	batch *columnar.Batch
	conf  bool // a conflict frame: its batch is read for the ledger only
	// ticket tells whether the log kept the frame: when the disk is full it
	// takes offsets back, and another frame may bear them.
	ticket wal.Ticket
}

// Docs are the documents of a put: document i is Arena[Ends[i-1]:Ends[i]]. The
// arena has columnar.Slack readable bytes behind its length. The caller keeps
// it unchanged until Put returns.
type Docs struct {
	Arena []byte
	Ends  []int32
}

// Receipt answers a put: every document of it is on disk, or a duplicate of
// one that is.
type Receipt struct {
	ids       record.IDs
	first     record.Offset
	confFirst record.Offset
	// place tells for each document: ≥ 0 its place in the frame, -1-n its
	// place n in the conflict frame, placeDuplicate a duplicate. nil: document
	// i stands at place i.
	place      []int32
	sequences  []int64 // of duplicates, by document; nil where there are none
	Duplicates int
	Conflicts  int
}

const placeDuplicate = int32(-1 << 31)

// AppendRecordID appends document i's RecordId to dst.
func (r *Receipt) AppendRecordID(dst []byte, i int) []byte {
	switch {
	case r.place == nil:
		return r.ids.AppendText(dst, r.first+record.Offset(i))
	case r.place[i] == placeDuplicate:
		key := r.ids.Key()
		key.Shard = duplicateShard
		return record.ID{Key: key, Offset: record.Offset(r.sequences[i])}.AppendText(dst)
	case r.place[i] < 0:
		return r.ids.AppendText(dst, r.confFirst+record.Offset(-1-r.place[i]))
	}
	return r.ids.AppendText(dst, r.first+record.Offset(r.place[i]))
}

// openStream compiles the stream's layout and checks the log against the table.
func (m *Manager) openStream(ctx context.Context, cfg Config) (*Stream, error) {
	m.metrics.open(cfg.Name)
	dest, err := m.o.Destination(cfg)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", cfg.Name, err)
	}
	key := record.Key{Incarnation: cfg.Incarnation}
	st, err := dest.State(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("stream %s: load its destination: %w", cfg.Name, err)
	}
	layout, err := columnar.Compile(st.Schema, columnar.Options{Calendar: m.o.Calendar, Sequence: st.Sequence, Partition: st.Partition})
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", cfg.Name, err)
	}
	if end := m.o.Log.Next(key); end < st.Through {
		return nil, fmt.Errorf("%w: stream %s: %s.%s contains records up to offset %d, the log ends at %d; this data directory's log has been replaced by an older one: restore the log that belongs to it",
			ErrLogBehind, cfg.Name, cfg.Namespace, cfg.Table, st.Through, end)
	}
	s := &Stream{
		m: m, cfg: cfg, key: key, ids: record.NewIDs(key), dest: dest, layout: layout, sequence: !st.Sequence.IsZero(),
		tail: tail{fs: m.o.FS, end: st.Through},
		wake: make(chan struct{}, 1), requests: make(chan request), flushed: make(chan flushResult, 1), stop: make(chan struct{}),
		builder: layout.NewBuilder(),
	}
	s.decoders.New = func() any { return layout.NewDecoder() }
	s.through.Store(uint64(st.Through))
	s.appended.Store(uint64(st.Through))
	return s, nil
}

// Config returns the stream's definition.
func (s *Stream) Config() Config { return s.cfg }

// Key returns the key of the stream's offsets.
func (s *Stream) Key() record.Key { return s.key }

// Through is the offset below which the table contains every record.
func (s *Stream) Through() record.Offset { return record.Offset(s.through.Load()) }

// refuse makes puts fail with err, or lets them in again (nil).
func (s *Stream) refuse(err error) {
	s.mu.Lock()
	s.refused = err
	s.mu.Unlock()
}

// fail stops the stream for good: puts and flushes return err.
func (s *Stream) fail(err error) {
	if s.fatal.CompareAndSwap(nil, &err) {
		s.m.o.Logger.Error("stream stopped", "stream", s.cfg.Name, "err", err)
	}
}

func (s *Stream) failure() error {
	if p := s.fatal.Load(); p != nil {
		return *p
	}
	return nil
}

// Put stores documents: when it returns nil every one of them is on disk. On an
// error some of them may be: the producer sends all again.
func (s *Stream) Put(ctx context.Context, docs Docs) (Receipt, error) {
	if err := s.room(ctx); err != nil {
		return Receipt{}, err
	}
	arrived := s.m.o.Now().UnixMicro()
	d := s.decoders.Get().(*columnar.Decoder)
	defer s.decoders.Put(d)
	batch := d.Decode(docs.Arena, docs.Ends, arrived)
	s.m.metrics.decoded(s.cfg.Name, len(docs.Ends), len(docs.Arena))

	receipt := Receipt{ids: s.ids}
	var res *ledger.Reservation
	var conflicts *columnar.Batch
	if s.sequence && batch.Rows > 0 {
		var err error
		if res, err = s.m.o.Ledger.Reserve(runsOf(batch), batch.Hash); err != nil {
			batch.Release()
			return Receipt{}, s.ledgerError(err)
		}
		if len(res.Duplicates)+len(res.Conflicts) > 0 {
			receipt.fill(len(docs.Ends), batch, res)
			if len(res.Conflicts) > 0 {
				conflicts = s.conflictBatch(docs, batch, res.Conflicts, arrived)
			}
			batch.Drop(mergeRows(res.Duplicates, res.Conflicts))
		}
	}
	err := s.log(ctx, &receipt, batch, conflicts, arrived)
	if res != nil {
		if err != nil {
			res.Release()
			return Receipt{}, err
		}
		res.Confirm()
		if err := res.Wait(ctx); err != nil {
			return Receipt{}, s.ledgerError(err)
		}
	}
	return receipt, err
}

func (s *Stream) ledgerError(err error) error {
	if errors.Is(err, ledger.ErrBusy) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// log enqueues the frames and waits for their fsync. It hands the batches to
// the pump, or releases them.
func (s *Stream) log(ctx context.Context, receipt *Receipt, batch, conflicts *columnar.Batch, arrived int64) error {
	buf := payloads.Get().(*[]byte)
	defer payloads.Put(buf)
	var tickets [2]wal.Ticket
	n := 0
	enqueue := func(b *columnar.Batch, flag uint8, first *record.Offset) error {
		if b == nil {
			return nil
		}
		count := b.Docs()
		if count == 0 {
			b.Release()
			return nil
		}
		at := len(*buf)
		kind, out := b.AppendPayload(*buf)
		*buf = out
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.refused != nil {
			b.Release()
			return s.refused
		}
		t, err := s.m.o.Log.Enqueue(s.key, wal.Entry{Kind: kind | flag, SchemaID: s.layout.Fingerprint(), Count: uint32(count), ArrivedAt: arrived, Payload: out[at:]})
		if err != nil {
			b.Release()
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		*first = t.First()
		tickets[n] = t
		n++
		s.push(pending{first: t.First(), count: count, batch: b, conf: flag != 0, ticket: t})
		return nil
	}
	*buf = (*buf)[:0]
	err := enqueue(batch, 0, &receipt.first)
	// The conflict frame's payload follows in the same buffer; growing it must
	// not move what the log already reads, so it gets one of its own.
	if err == nil && conflicts != nil {
		own := make([]byte, 0, 64<<10)
		shared := buf
		buf = &own
		err = enqueue(conflicts, kindConflict, &receipt.confFirst)
		buf = shared
	} else if conflicts != nil {
		conflicts.Release()
	}
	for _, t := range tickets[:n] {
		// A put that is cancelled while its frame is on the way must still wait
		// for it: the payload is the log's until then.
		if werr := t.Wait(context.WithoutCancel(ctx)); werr != nil && err == nil {
			err = fmt.Errorf("%w: %w", ErrUnavailable, werr)
		}
	}
	if n > 0 {
		s.signal()
	}
	return err
}

var payloads = sync.Pool{New: func() any { b := make([]byte, 0, 256<<10); return &b }}

// push appends to the queue; a batch for which there is no room is let go, and
// the pump reads its frame from the log. REQUIRES: s.mu.
func (s *Stream) push(p pending) {
	if s.queuedRows+p.count > s.m.o.QueueRows && len(s.queue) > 0 {
		p.batch.Release()
		return
	}
	p.batch.SetOrigin(s.key, p.first)
	s.queue = append(s.queue, p)
	s.queuedRows += p.count
}

// signal wakes the pump.
func (s *Stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// room waits, for a bounded time, until visibility has caught up enough to take
// more records.
func (s *Stream) room(ctx context.Context) error {
	if err := s.failure(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	lag := func() int64 {
		return int64(s.m.o.Log.Synced(s.key)) - int64(s.appended.Load())
	}
	if lag() < int64(s.m.o.LagRows) {
		return nil
	}
	deadline := time.NewTimer(s.m.o.PutWait)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if lag() < int64(s.m.o.LagRows) {
				return nil
			}
		case <-deadline.C:
			s.m.metrics.throttled(s.cfg.Name)
			return fmt.Errorf("%w: %d records wait to become visible", ErrUnavailable, lag())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// conflictBatch decodes the conflicting documents into a batch of their own.
func (s *Stream) conflictBatch(docs Docs, batch *columnar.Batch, rows []int32, arrived int64) *columnar.Batch {
	var arena []byte
	var ends []int32
	for _, r := range rows {
		arena = append(arena, docs.at(int(batch.Doc[r]))...)
		ends = append(ends, int32(len(arena)))
	}
	arena = append(arena, make([]byte, columnar.Slack)...)[:len(arena)]
	d := s.decoders.Get().(*columnar.Decoder)
	defer s.decoders.Put(d)
	b := d.Decode(arena, ends, arrived)
	b.Exact = false // logged as they came: the error output shows them so
	return b
}

func (d Docs) at(i int) []byte {
	from := int32(0)
	if i > 0 {
		from = d.Ends[i-1]
	}
	return d.Arena[from:d.Ends[i]]
}

// fill computes where each document of a put with duplicates or conflicts
// stands, before these are dropped from the batch.
func (r *Receipt) fill(docs int, b *columnar.Batch, res *ledger.Reservation) {
	r.Duplicates, r.Conflicts = len(res.Duplicates), len(res.Conflicts)
	r.place, r.sequences = make([]int32, docs), make([]int64, docs)
	for _, row := range res.Duplicates {
		r.place[b.Doc[row]] = placeDuplicate
	}
	for i, row := range res.Conflicts {
		r.place[b.Doc[row]] = int32(-1 - i)
	}
	for run := range b.Runs {
		for k := range run.N {
			r.sequences[b.Doc[run.Row+k]] = run.Sequence + int64(k)
		}
	}
	next := int32(0)
	for i := range r.place {
		if r.place[i] == 0 {
			r.place[i] = next
			next++
		}
	}
}

// runsOf converts a batch's runs to the ledger's.
func runsOf(b *columnar.Batch) []ledger.Run {
	runs := make([]ledger.Run, 0, 4)
	for r := range b.Runs {
		runs = append(runs, ledger.Run{Feed: ledger.Feed{Source: r.Source, Session: r.Session, Epoch: r.Epoch},
			Row: r.Row, N: r.N, Sequence: r.Sequence, TradeDate: r.TradeDate})
	}
	return runs
}

// mergeRows merges two ascending lists of rows.
func mergeRows(a, b []int32) []int32 {
	out := make([]int32, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if a[0] < b[0] {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(append(out, a...), b...)
}
