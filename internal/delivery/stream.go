package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
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

// Stream is one delivery stream: the intake, which logs and acknowledges, and
// the lanes behind it. Put may be called concurrently.
//
// A stream into one table, without processing, is direct: a put is decoded by
// the table's layout before it is logged, and the table's lane takes the batch
// over from memory. Any other stream logs records as they came.
type Stream struct {
	m    *Manager
	name record.StreamName
	cfg  atomic.Pointer[Config]

	definition sync.Mutex // held while the stored definition changes
	deleted    bool       // the stored definition is gone; guarded by definition
	closing    bool       // no lane starts any more; guarded by definition

	key record.Key
	ids record.IDs // of key

	direct atomic.Pointer[tableLane] // nil: records are logged as they came; changes under mu
	intake atomic.Pointer[intake]    // of direct

	quota     bucket
	replaying sync.Mutex // one Replay at a time

	mu        sync.Mutex    // makes the lanes' queues' order the log's
	refused   error         // answered to every put while set
	unsure    error         // why refused stays, until a restart
	following []*objectLane // lanes on the intake itself, for push

	stage    atomic.Pointer[stage] // nil: records go on as they came
	ordinals atomic.Int32          // tells tables' lanes apart
	frozen   int                   // seals that hold the stream; guarded by definition

	lanesMu sync.RWMutex
	lanes   []lane

	stop       chan struct{}
	stopOnce   sync.Once
	background sync.WaitGroup
}

// pending is a decoded put on its way to the pump.
type pending struct {
	first record.Offset
	count int
	bytes int64 // that the batch keeps from being freed
	batch *columnar.Batch
	conf  bool // a conflict frame: its batch is read for the ledger only
	// replays are the earlier records that records of the frame stand for.
	replays []replayed
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
	// replays names the earlier records that the documents stand for, one each.
	replays []replayed
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

// openStream opens a stream's lanes. states are the stored progresses of
// object lanes.
func (m *Manager) openStream(ctx context.Context, cfg Config, states map[string]json.RawMessage) (*Stream, error) {
	cfg.settle()
	s := &Stream{m: m, name: cfg.Name, key: record.Key{Incarnation: cfg.Incarnation}, stop: make(chan struct{})}
	s.cfg.Store(&cfg)
	s.ids = record.NewIDs(s.key)
	if m.o.Quota != nil {
		s.quota.quota = m.o.Quota(string(cfg.Name))
	}
	if err := s.openLanes(ctx, &cfg, states); err != nil {
		if g := s.stage.Load(); g != nil {
			err = errors.Join(err, g.closeProcessor())
		}
		return nil, err
	}
	m.metrics.open(&cfg, s.quota.quota)
	return s, nil
}

// tablesMax bounds the tables that a stream feeds.
const tablesMax = 100

// addTable makes a table, notes it in the stream's definition, and opens its
// lane. key is whose log it follows.
func (s *Stream) addTable(ctx context.Context, key record.Key, name catalog.Name, fields []record.Field) (*tableLane, error) {
	s.definition.Lock()
	defer s.definition.Unlock()
	cfg := s.Config()
	if s.deleted {
		return nil, ErrNotFound
	}
	if !cfg.CreateTables { // not any more
		return nil, &noTableError{fmt.Errorf("the record is for table %s, which is not one of the stream's", name)}
	}
	if l := s.laneOf(laneID{shard: key.Shard, table: name}); l != nil {
		return nil, fmt.Errorf("%w: a former lane into %s has yet to end", ErrChanging, name)
	}
	if !slices.Contains(cfg.Tables, name) {
		if len(cfg.Tables) >= tablesMax {
			return nil, &noTableError{fmt.Errorf("the stream feeds %d tables already, and the record is for another: %s", tablesMax, name)}
		}
		cfg.Tables = append(slices.Clone(cfg.Tables), name)
		if err := s.enlist(ctx, &cfg); err != nil {
			return nil, err
		}
	}
	if err := s.m.o.CreateTable(ctx, cfg, name, fields); err != nil {
		return nil, err
	}
	l, err := s.m.openTable(ctx, s, key, name)
	if err != nil {
		return nil, err
	}
	// Nothing that was logged before is for the table: its progress begins here.
	if err := l.advance(ctx, s.m.o.Log.Next(key)); err != nil {
		return nil, err
	}
	l.start()
	s.addLanes(l)
	s.m.o.Logger.Info("table created for a stream", "stream", s.name, "table", name.String(), "columns", len(fields))
	return l, nil
}

// enlist stores a definition with one more table. While it is judged whether the
// table is free, no other stream can come to feed it.
func (s *Stream) enlist(ctx context.Context, cfg *Config) error {
	s.m.mu.RLock()
	defer s.m.mu.RUnlock()
	if err := s.m.alone(*cfg); err != nil {
		return &noTableError{err}
	}
	body, err := json.Marshal(cfg)
	if err != nil {
		return fmt.Errorf("encode stream %s: %w", s.name, err)
	}
	if err := s.m.o.Documents.Put(ctx, kindStream, string(s.name), body); err != nil {
		return fmt.Errorf("store stream %s: %w", s.name, err)
	}
	s.cfg.Store(cfg)
	return nil
}

// The roles of object lanes: the destination itself, the error output of a
// stream into tables, and the copy of what producers sent.
const (
	roleObjects = "objects"
	roleErrors  = "errors"
	roleBackup  = "backup"
)

// tableOf returns the lane of a table that a stage's definition names.
func (g *stage) tableOf(name catalog.Name) (*tableLane, error) {
	s, cfg := g.s, g.present().cfg
	for _, l := range s.tables() {
		if l.key == g.out && l.table == name && slices.Contains(cfg.Tables, name) {
			return l, nil
		}
	}
	if name == (catalog.Name{}) {
		return nil, errors.New("the record names no destination table, and the stream has several")
	}
	return nil, fmt.Errorf("the record is for table %s, which is not one of the stream's", name)
}

// forget removes the stored definition, so that no change can bring it back.
func (s *Stream) forget(ctx context.Context) error {
	s.definition.Lock()
	defer s.definition.Unlock()
	if err := s.m.o.Documents.Delete(ctx, kindStream, string(s.name)); err != nil {
		return err
	}
	s.deleted = true
	return nil
}

// Config returns the stream's definition. Its slices and maps are shared.
func (s *Stream) Config() Config { return *s.cfg.Load() }

// Key returns the key of the offsets that producers are answered.
func (s *Stream) Key() record.Key { return s.key }

// each calls fn for every lane.
func (s *Stream) each(fn func(lane)) {
	s.lanesMu.RLock()
	lanes := s.lanes
	s.lanesMu.RUnlock()
	for _, l := range lanes {
		fn(l)
	}
}

// tables returns the lanes that deliver into tables.
func (s *Stream) tables() (out []*tableLane) {
	s.each(func(l lane) {
		if t, ok := l.(*tableLane); ok {
			out = append(out, t)
		}
	})
	return out
}

// objects returns the lanes that deliver into objects.
func (s *Stream) objects() (out []*objectLane) {
	s.each(func(l lane) {
		if o, ok := l.(*objectLane); ok {
			out = append(out, o)
		}
	})
	return out
}

// Through is the offset below which every destination has every record.
func (s *Stream) Through() record.Offset {
	through := ^record.Offset(0)
	s.each(func(l lane) { through = min(through, max(l.Through(), l.bounds().from)) })
	return through
}

// TableProgress names a table that a stream feeds, and the key of the stream's
// progress in that table's through.
type TableProgress struct {
	Table catalog.Name
	Key   record.Key
}

// Tables lists the tables that the stream feeds.
func (s *Stream) Tables() (out []TableProgress) {
	for _, t := range s.tables() {
		out = append(out, TableProgress{t.table, t.key})
	}
	return out
}

// refuse makes puts fail with err, or lets them in again (nil).
func (s *Stream) refuse(err error) {
	s.mu.Lock()
	s.refused = err
	if err == nil {
		s.refused = s.unsure
	}
	s.mu.Unlock()
}

// failure is why a lane has stopped for good, or nil.
func (s *Stream) failure() (err error) {
	s.each(func(l lane) {
		if err == nil {
			err = l.failure()
		}
	})
	if g := s.stage.Load(); err == nil && g != nil {
		err = g.failure()
	}
	return err
}

func (s *Stream) start() {
	s.each(lane.start)
	if g := s.stage.Load(); g != nil {
		g.start()
	}
	s.watch()
}

func (s *Stream) close() {
	s.stopOnce.Do(func() { close(s.stop) })
	s.definition.Lock()
	s.closing = true
	s.definition.Unlock()
	s.background.Wait()
	if g := s.stage.Load(); g != nil {
		g.shut()
	}
	s.each(lane.close)
}

func (s *Stream) signal() {
	if g := s.stage.Load(); g != nil {
		g.signal()
	}
	s.each(lane.signal)
}

// processed waits until processing has caught up with what is synced now.
func (s *Stream) processed(ctx context.Context) error {
	g := s.stage.Load()
	if g == nil {
		return nil
	}
	return g.await(ctx, g.span.cap(s.m.o.Log.Synced(s.key)))
}

// Flush delivers everything that is synced now.
func (s *Stream) Flush(ctx context.Context) error {
	if err := s.processed(ctx); err != nil {
		return err
	}
	return s.all(func(l lane) error {
		err := l.Flush(ctx)
		if errors.Is(err, ErrClosed) && l.Through() >= l.bounds().last() { // it ended meanwhile
			return nil
		}
		return err
	})
}

// all runs fn for every lane at the same time.
func (s *Stream) all(fn func(lane) error) error {
	s.lanesMu.RLock()
	lanes := s.lanes
	s.lanesMu.RUnlock()
	errs := make([]error, len(lanes))
	var wg sync.WaitGroup
	for i, l := range lanes {
		wg.Go(func() { errs[i] = fn(l) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// settle waits until everything that was enqueued is synced. REQUIRES: puts are
// refused.
func (s *Stream) settle(ctx context.Context) error {
	for s.m.o.Log.Synced(s.key) < s.m.o.Log.Next(s.key) {
		select {
		case <-s.stop:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// Put stores documents: when it returns nil every one of them is on disk. On an
// error some of them may be: the producer sends all again.
func (s *Stream) Put(ctx context.Context, docs Docs) (Receipt, error) {
	if err := s.quota.take(s.m.o.Now(), len(docs.Ends), len(docs.Arena)); err != nil {
		s.m.metrics.throttled(s.name)
		return Receipt{}, err
	}
	if err := s.room(ctx); err != nil {
		return Receipt{}, err
	}
	return s.put(ctx, docs)
}

func (s *Stream) put(ctx context.Context, docs Docs) (Receipt, error) {
	for {
		var receipt Receipt
		var err error
		if l := s.direct.Load(); l != nil {
			receipt, err = s.putDirect(ctx, l, docs)
		} else {
			receipt, err = s.putPlain(ctx, docs)
		}
		if !errors.Is(err, errForm) { // else the destination was changed meanwhile, and nothing was logged
			return receipt, err
		}
	}
}

// putPlain logs records as they came.
func (s *Stream) putPlain(ctx context.Context, docs Docs) (Receipt, error) {
	count := len(docs.Ends)
	s.m.metrics.decoded(s.name, count, len(docs.Arena))
	buf := payloads.Get().(*[]byte)
	defer payloads.Put(buf)
	kind := payloadPlain
	*buf = (*buf)[:0]
	if docs.replays != nil {
		kind, *buf = kind|kindReplay, appendReplayed(*buf, docs.replays)
	}
	*buf = appendPlain(*buf, docs)
	arrived := s.m.o.Now().UnixMicro()
	s.mu.Lock()
	if s.refused != nil {
		s.mu.Unlock()
		return Receipt{}, s.refused
	}
	if s.direct.Load() != nil {
		s.mu.Unlock()
		return Receipt{}, errForm
	}
	t, err := s.m.o.Log.Enqueue(s.key, wal.Entry{Kind: kind, Count: uint32(count), ArrivedAt: arrived, Payload: *buf})
	if err == nil {
		for _, l := range s.following {
			l.push(note{first: t.First(), count: count, bytes: int64(len(docs.Arena)), arrivedAt: arrived, replays: docs.replays, ticket: t})
		}
	}
	s.mu.Unlock()
	if err != nil {
		return Receipt{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	// A put that is cancelled must still wait: the payload is the log's until then.
	if err := t.Wait(context.WithoutCancel(ctx)); err != nil {
		return Receipt{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	s.signal()
	return Receipt{ids: s.ids, first: t.First()}, nil
}

// intake is what decodes new records: the table's present layout.
type intake struct {
	layout   *columnar.Layout
	decoders sync.Pool // *columnar.Decoder
}

func newIntake(y *columnar.Layout) *intake {
	in := &intake{layout: y}
	in.decoders.New = func() any { return y.NewDecoder() }
	return in
}

// newest is the intake by the table's present layout.
func (s *Stream) newest(l *tableLane) *intake {
	y := l.layouts.present()
	if in := s.intake.Load(); in != nil && in.layout == y {
		return in
	}
	in := newIntake(y)
	s.intake.Store(in)
	return in
}

// putDirect decodes before it logs.
func (s *Stream) putDirect(ctx context.Context, l *tableLane, docs Docs) (Receipt, error) {
	arrived := s.m.o.Now().UnixMicro()
	in := s.newest(l)
	d := in.decoders.Get().(*columnar.Decoder)
	defer in.decoders.Put(d)
	batch := d.Decode(docs.Arena, docs.Ends, arrived)
	s.m.metrics.decoded(s.name, len(docs.Ends), len(docs.Arena))

	receipt := Receipt{ids: s.ids}
	var res *ledger.Reservation
	var conflicts *columnar.Batch
	if l.sequence && batch.Rows > 0 {
		var err error
		if res, err = s.m.o.Ledger.Reserve(runsOf(batch), batch.Hash); err != nil {
			batch.Release()
			return Receipt{}, s.ledgerError(err)
		}
		if len(res.Duplicates)+len(res.Conflicts) > 0 {
			receipt.fill(len(docs.Ends), batch, res)
			if len(res.Conflicts) > 0 {
				conflicts = s.conflictBatch(l, docs, batch, res.Conflicts, arrived)
			}
			batch.Drop(mergeRows(res.Duplicates, res.Conflicts))
		}
	}
	err := s.log(ctx, l, &receipt, batch, conflicts, docs.replays, arrived)
	if res != nil {
		if errors.Is(err, errHalfLogged) {
			res.Confirm()
			return Receipt{}, err
		}
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
func (s *Stream) log(ctx context.Context, l *tableLane, receipt *Receipt, batch, conflicts *columnar.Batch, replays []replayed, arrived int64) error {
	buf := payloads.Get().(*[]byte)
	defer payloads.Put(buf)
	var tickets [2]wal.Ticket
	n := 0
	enqueue := func(b *columnar.Batch, flag uint8, replays []replayed, first *record.Offset) error {
		if b == nil {
			return nil
		}
		count := b.Docs()
		if count == 0 {
			b.Release()
			return nil
		}
		at := len(*buf)
		mark := uint8(0)
		if len(replays) > 0 {
			mark, *buf = kindReplay, appendReplayed(*buf, replays)
		}
		kind, out := b.AppendPayload(*buf)
		*buf = out
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.refused != nil {
			b.Release()
			return s.refused
		}
		if s.direct.Load() != l {
			b.Release()
			if n > 0 {
				return errHalfLogged
			}
			return errForm
		}
		t, err := s.m.o.Log.Enqueue(s.key, wal.Entry{Kind: kind | flag | mark, SchemaID: b.Layout().Fingerprint(), Count: uint32(count), ArrivedAt: arrived, Payload: out[at:]})
		if err != nil {
			b.Release()
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		*first = t.First()
		tickets[n] = t
		n++
		l.push(pending{first: t.First(), count: count, bytes: b.HeldBytes(), batch: b, conf: flag != 0, replays: replays, ticket: t})
		return nil
	}
	*buf = (*buf)[:0]
	err := enqueue(batch, 0, replays, &receipt.first)
	// The conflict frame's payload follows in the same buffer; growing it must
	// not move what the log already reads, so it gets one of its own.
	if err == nil && conflicts != nil {
		own := make([]byte, 0, 64<<10)
		shared := buf
		buf = &own
		err = enqueue(conflicts, kindConflict, nil, &receipt.confFirst)
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

// room waits, for a bounded time, until visibility has caught up enough to take
// more records.
func (s *Stream) room(ctx context.Context) error {
	if err := s.failure(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	lag := s.lag
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
			s.m.metrics.throttled(s.name)
			return fmt.Errorf("%w: %d records wait to become visible", ErrThrottled, lag())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lag is how many synced records a lane has not looked at yet.
func (s *Stream) lag() (rows int64) {
	s.each(func(l lane) { rows = max(rows, int64(l.bounds().cap(s.m.o.Log.Synced(l.log())))-int64(l.taken())) })
	if g := s.stage.Load(); g != nil {
		rows += int64(g.span.cap(s.m.o.Log.Synced(s.key))) - int64(g.taken())
	}
	return rows
}

// conflictBatch decodes the conflicting documents into a batch of their own.
func (s *Stream) conflictBatch(l *tableLane, docs Docs, batch *columnar.Batch, rows []int32, arrived int64) *columnar.Batch {
	var arena []byte
	var ends []int32
	for _, r := range rows {
		arena = append(arena, docs.at(int(batch.Doc[r]))...)
		ends = append(ends, int32(len(arena)))
	}
	arena = append(arena, make([]byte, columnar.Slack)...)[:len(arena)]
	in := s.newest(l)
	if in.layout != batch.Layout() { // the schema was changed in the midst of the put
		in = newIntake(batch.Layout())
	}
	d := in.decoders.Get().(*columnar.Decoder)
	defer in.decoders.Put(d)
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
