package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/ledger"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/internal/wal"
)

// ObjectPlan is a flush into objects. It is stored before the first object is
// written and fixes everything that their names and bytes depend on, so that a
// replay writes the same objects: a second write finds them there.
type ObjectPlan struct {
	From, To record.Offset
	At       time.Time // of the cut
	OldestAt time.Time // arrival of the oldest record
	Seed     uuid.UUID // of random names
	Version  int64     // of the stream's definition
	// Target is the destination's part of the definition at the cut; Prepared
	// once it has all that it depends on.
	Target   json.RawMessage
	Prepared bool
	// ErrorObjectBytes bounds an object of the error output; 0, of a plan stored by
	// a version that had no bound: none.
	ErrorObjectBytes int64 `json:",omitempty"`

	failures, retractions int // of this process
}

// ObjectRecord is a record on its way into an object. Data is the caller's.
type ObjectRecord struct {
	Offset    record.Offset
	ID        record.ID // as the producer was answered
	ArrivedAt int64     // µs UTC
	Data      []byte
	Keys      map[string]string // partition keys, where processing gave any
	// Code and Message, if Code is not "", say why processing failed; Data is
	// then what the producer sent.
	Code, Message string
}

func arrival(r ObjectRecord) time.Time { return time.UnixMicro(r.ArrivedAt).UTC() }

// ObjectDestination writes objects.
type ObjectDestination interface {
	// Prepare adds to a target what it depends on beside itself, such as a
	// table's columns, so that the plan is complete.
	Prepare(ctx context.Context, target json.RawMessage) (json.RawMessage, error)
	// Write executes a plan over the records that each yields, in offset order.
	// It may be called again for the same plan, by this process or the next,
	// and then leaves the same objects. An error of the function that each was
	// given ends it and is returned.
	Write(ctx context.Context, plan ObjectPlan, each func(func(ObjectRecord) error) error) (ObjectResult, error)
}

// ObjectResult counts what an executed plan wrote.
type ObjectResult struct {
	Objects, Records, Failed int64
	Bytes                    int64    // as the objects hold them
	Names                    []string // of the first namesMax objects

	Partitions         int  // active ones
	PartitionsExceeded bool // there were more than PartitionsMax
	// Of a conversion: the records that it took, and their Parquet; those that it
	// did not, as they were sent.
	Converted, ConvertedBytes     int64
	Unconverted, UnconvertedBytes int64
}

// namesMax bounds how many names of objects are kept for Trace.
const namesMax = 32

// objectState is the document that an object lane's progress lives in. Plan, if
// any, begins at Through and is not known to be executed.
type objectState struct {
	Through record.Offset `json:"through"`
	Plan    *ObjectPlan   `json:"plan,omitempty"`
	// Done is the plan executed last; the document's history has those before.
	Done *objectsDone `json:"done,omitempty"`
}

// objectsDone says what a plan wrote.
type objectsDone struct {
	From    record.Offset `json:"from"`
	To      record.Offset `json:"to"`
	At      time.Time     `json:"at"`
	Objects int64         `json:"objects"`
	Names   []string      `json:"names,omitempty"`
}

// KindProgress are the documents of objectState. Their history is how Trace
// finds the objects of a record: the more versions are kept, the further back.
const KindProgress = "object-progress"

// ObjectConfig defines an object lane. It is part of a stream's definition.
type ObjectConfig struct {
	SizeBytes int64           `json:"size_bytes"`  // buffer hint, before compression
	Interval  time.Duration   `json:"interval_ns"` // buffer hint
	Target    json.RawMessage `json:"target"`      // the destination's
}

// objectLane delivers records into objects.
type objectLane struct {
	s    *Stream
	m    *Manager
	key  record.Key // whose log it follows
	role string     // names it among the stream's lanes
	dest ObjectDestination
	cfg  func() ObjectConfig
	last atomic.Pointer[ObjectConfig] // what cfg is once the stream's definition has no such lane
	// keeper: the lane enters what it takes into the ledger's account, because
	// neither a table's lane nor a stage does.
	keeper bool

	span     span
	through  atomic.Uint64
	appended atomic.Uint64
	fatal    atomic.Pointer[error]

	mu    sync.Mutex
	notes []note

	wake     chan struct{}
	requests chan request
	flushed  chan objectFlush
	stop     chan struct{}
	done     sync.WaitGroup
	stopOnce sync.Once

	// The pump's own.
	cuts     []cut // from through on, contiguous
	flushing bool
	retry    *ObjectPlan
	retryAt  time.Time
	wait     time.Duration
	waiters  []waiter
}

var _ lane = (*objectLane)(nil)

// note tells a lane of a frame on its way into the log.
type note struct {
	first     record.Offset
	count     int
	bytes     int64
	arrivedAt int64
	replays   []replayed
	ticket    wal.Ticket
}

// notesMax bounds the notes that wait for a pump; what has none is read from
// the log.
const notesMax = 64 << 10

// cut is a stretch that one flush delivers.
type cut struct {
	from, to record.Offset
	bytes    int64
	oldestAt time.Time // arrival
	openedAt time.Time // when its first record was taken
}

type objectFlush struct {
	plan *ObjectPlan
	res  ObjectResult
	took time.Duration
	err  error
}

// openObjects opens a lane at its stored progress.
func (m *Manager) openObjects(s *Stream, key record.Key, role string, cfg func() ObjectConfig, dest ObjectDestination, states map[string]json.RawMessage) (*objectLane, error) {
	l := &objectLane{s: s, m: m, key: key, role: role, dest: dest, cfg: cfg,
		wake: make(chan struct{}, 1), requests: make(chan request), flushed: make(chan objectFlush, 1), stop: make(chan struct{})}
	var st objectState
	if body, ok := states[l.stateKey()]; ok {
		if err := json.Unmarshal(body, &st); err != nil {
			return nil, fmt.Errorf("stream %s: read its progress: %w", s.name, err)
		}
	}
	if end := m.o.Log.Next(key); end < st.Through {
		return nil, fmt.Errorf("%w: stream %s has delivered records up to offset %d, the log ends at %d; this data directory's log has been replaced by an older one: restore the log that belongs to it",
			ErrLogBehind, s.name, st.Through, end)
	}
	l.through.Store(uint64(st.Through))
	l.appended.Store(uint64(st.Through))
	if st.Plan != nil && st.Plan.From == st.Through && st.Plan.To <= m.o.Log.Next(key) {
		l.retry = st.Plan
	}
	return l, nil
}

func (l *objectLane) stateKey() string { return l.key.String() + " " + l.role }

func (l *objectLane) log() record.Key { return l.key }

// Through implements lane.
func (l *objectLane) Through() record.Offset { return record.Offset(l.through.Load()) }

func (l *objectLane) taken() record.Offset { return record.Offset(l.appended.Load()) }

func (l *objectLane) failure() error {
	if p := l.fatal.Load(); p != nil {
		return *p
	}
	return nil
}

func (l *objectLane) fail(err error) {
	if l.fatal.CompareAndSwap(nil, &err) {
		l.m.o.Logger.Error("stream stopped", "stream", l.s.name, "lane", l.role, "err", err)
	}
}

func (l *objectLane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// push tells of a frame that was enqueued. REQUIRES: the caller's pushes come
// in the order of their offsets.
func (l *objectLane) push(n note) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.notes) < notesMax {
		l.notes = append(l.notes, n)
	}
}

func (l *objectLane) start() {
	if l.keeper {
		if err := l.m.pass(l.key, l.span.from); err != nil {
			l.fail(err)
		}
	}
	l.done.Go(l.pump)
}

func (l *objectLane) close() {
	l.stopOnce.Do(func() { close(l.stop) })
	l.done.Wait()
}

// Flush implements lane.
func (l *objectLane) Flush(ctx context.Context) error {
	_, err := ask(ctx, l.requests, l.stop, askFlush)
	return err
}

// pump is the lane's one consumer of its log.
func (l *objectLane) pump() {
	tick := time.NewTicker(l.m.o.TailInterval)
	defer tick.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	var flush sync.WaitGroup
	defer flush.Wait()
	defer cancel()
	for {
		select {
		case <-l.stop:
			return
		case <-l.wake:
		case <-tick.C:
		case r := <-l.requests:
			l.serve(r)
		case f := <-l.flushed:
			l.finish(f)
		}
		if err := l.failure(); err != nil {
			answer(&l.waiters, func(waiter) (reply, bool) { return reply{err: err}, true })
			continue
		}
		if err := l.absorb(l.limit()); err != nil {
			l.fail(err)
			continue
		}
		if p := l.due(); p != nil {
			l.flushing = true
			flush.Go(func() { l.flushed <- l.deliver(ctx, p) })
		}
		answer(&l.waiters, func(w waiter) (reply, bool) { return reply{at: l.Through()}, l.Through() >= w.at })
	}
}

func (l *objectLane) serve(r request) {
	if err := l.failure(); err != nil {
		r.reply <- reply{err: err}
		return
	}
	if err := l.absorb(l.limit()); err != nil {
		l.fail(err)
		r.reply <- reply{err: err}
		return
	}
	at := l.taken()
	l.waiters = append(l.waiters, waiter{at, r.reply})
}

// absorb takes notice of the frames up to limit.
func (l *objectLane) absorb(limit record.Offset) error {
	for {
		at := l.taken()
		if at >= limit {
			return nil
		}
		l.mu.Lock()
		for len(l.notes) > 0 && l.notes[0].first < at {
			l.notes = l.notes[1:]
		}
		if len(l.notes) > 0 && l.notes[0].first == at {
			n := l.notes[0]
			l.notes = l.notes[1:]
			l.mu.Unlock()
			if n.ticket.Wait(context.Background()) != nil { // another frame bears its offsets
				continue
			}
			if err := l.take(n); err != nil {
				return err
			}
			continue
		}
		to := limit
		if len(l.notes) > 0 {
			to = min(to, l.notes[0].first)
		}
		l.mu.Unlock()
		if err := l.readNotes(at, to); err != nil {
			return err
		}
	}
}

// readNotes takes notice of the frames of [from, to) from the log itself.
func (l *objectLane) readNotes(from, to record.Offset) error {
	err := l.m.read(context.Background(), l.key, from, func(f frame) error {
		if f.First >= to {
			return errStop
		}
		return l.take(note{first: f.First, count: int(f.Count), bytes: int64(len(f.Payload)), arrivedAt: f.ArrivedAt, replays: f.replays})
	})
	if err != nil && !errors.Is(err, errStop) {
		return fmt.Errorf("read the log: %w", err)
	}
	if l.taken() < to {
		return fmt.Errorf("read the log: it ends at offset %d, %d was expected", l.taken(), to)
	}
	return nil
}

// take adds a frame to the last cut, or begins a new one.
func (l *objectLane) take(n note) error {
	if l.keeper {
		if err := l.m.o.Ledger.Apply(ledger.Effect{Key: l.key, First: n.first, Count: n.count, Replayed: effects(n.replays)}); err != nil {
			return err
		}
	}
	next := n.first + record.Offset(n.count)
	if p := l.retry; p != nil && n.first < p.To && len(l.cuts) == 0 {
		l.cuts = append(l.cuts, cut{from: p.From, to: p.From})
	}
	last := len(l.cuts) - 1
	if last < 0 || l.closed(last, n.first) {
		l.cuts = append(l.cuts, cut{from: n.first, to: n.first, oldestAt: time.UnixMicro(n.arrivedAt).UTC(), openedAt: l.m.o.Now()})
		last++
	}
	c := &l.cuts[last]
	c.to = next
	c.bytes += n.bytes
	l.appended.Store(uint64(next))
	return nil
}

// recover brings the ledger up to the log's end.
func (l *objectLane) recover(ctx context.Context) error {
	if err := l.m.pass(l.key, l.span.from); err != nil {
		return err
	}
	applied := l.m.o.Ledger.Applied()[l.key]
	if from := l.m.o.Log.Oldest(l.key); from > applied && l.m.o.Log.Synced(l.key) > applied {
		return fmt.Errorf("%w: stream %s: records from offset %d on are needed, the log begins at %d", ErrLogBehind, l.s.name, applied, from)
	}
	err := l.m.read(ctx, l.key, applied, func(f frame) error {
		if !l.span.has(f.First) {
			return errStop
		}
		return l.m.o.Ledger.Apply(f.effect(l.key))
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

// closed reports whether cut i takes no more frames, from offset at on.
func (l *objectLane) closed(i int, at record.Offset) bool {
	c := &l.cuts[i]
	if p := l.retry; p != nil && c.from == p.From {
		return at >= p.To // the plan is what it was
	}
	return c.bytes >= l.cfg().SizeBytes || i == 0 && l.flushing
}

// due returns the plan that is to be executed now, or nil.
func (l *objectLane) due() *ObjectPlan {
	now := l.m.o.Now()
	if l.flushing || now.Before(l.retryAt) || len(l.cuts) == 0 {
		return nil
	}
	c := &l.cuts[0]
	if l.retry != nil {
		if c.to < l.retry.To { // not read again yet
			return nil
		}
		return l.retry
	}
	version := l.s.Config().Version // before what may be newer: see redirect
	cfg := l.cfg()
	wanted := l.span.ends()
	for _, w := range l.waiters {
		wanted = wanted || w.at > l.Through()
	}
	if !wanted && c.bytes < cfg.SizeBytes && now.Sub(c.openedAt) < cfg.Interval {
		return nil
	}
	seed, err := uuid.NewRandom()
	if err != nil {
		panic(fmt.Sprintf("delivery: no randomness: %v", err)) // crypto/rand never fails
	}
	return &ObjectPlan{From: c.from, To: c.to, At: now.UTC(), OldestAt: c.oldestAt, Seed: seed, Version: version, Target: cfg.Target, ErrorObjectBytes: l.m.o.ErrorObjectBytes}
}

// deliver executes a plan; it may be executed again.
func (l *objectLane) deliver(ctx context.Context, p *ObjectPlan) objectFlush {
	started := l.m.o.Now()
	f := objectFlush{plan: p}
	if p, f.err = l.redirect(ctx, p); f.err != nil {
		return f
	}
	f.plan = p
	if !p.Prepared {
		if p.Target, f.err = l.dest.Prepare(ctx, p.Target); f.err != nil {
			return f
		}
		p.Prepared = true
	}
	if f.err = l.store(ctx, objectState{Through: p.From, Plan: p}); f.err != nil {
		return f
	}
	f.res, f.err = l.dest.Write(ctx, *p, func(fn func(ObjectRecord) error) error { return l.eachRecord(ctx, p, fn) })
	if f.err == nil {
		f.err = l.store(ctx, objectState{Through: p.To, Done: &objectsDone{p.From, p.To, p.At, f.res.Objects, f.res.Names}})
	}
	f.took = l.m.o.Now().Sub(started)
	return f
}

func (l *objectLane) store(ctx context.Context, st objectState) error {
	body, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("encode the progress: %w", err)
	}
	if err := l.m.o.Documents.Put(ctx, KindProgress, l.stateKey(), body); err != nil {
		return superseded(fmt.Errorf("store the progress: %w", err))
	}
	return nil
}

func (l *objectLane) finish(f objectFlush) {
	l.flushing = false
	now := l.m.o.Now()
	l.m.metrics.firehose.wrote(l.s.name, l.role, f.err == nil, &f.res)
	if f.err != nil {
		if errors.Is(f.err, ErrSuperseded) {
			l.fail(f.err)
			return
		}
		l.retry = f.plan
		l.retry.failures++
		l.wait = min(max(2*l.wait, l.m.o.RetryWait), retryWaitMax)
		l.retryAt = now.Add(l.wait)
		l.m.metrics.failedObjects(l.s.name)
		l.m.o.Logger.Error("delivery failed, will be tried again", "stream", l.s.name, "lane", l.role, "from", f.plan.From, "to", f.plan.To, "wait", l.wait, "err", f.err)
		return
	}
	l.retry, l.retryAt, l.wait = nil, time.Time{}, 0
	l.through.Store(uint64(f.plan.To))
	l.cuts = l.cuts[1:]
	l.m.metrics.failedRecords(l.s.name, f.res.Failed)
	l.m.metrics.delivered(l.s.name, f.res.Records, f.res.Bytes, f.took)
}

// eachRecord yields the records of a plan from the log.
func (l *objectLane) eachRecord(ctx context.Context, p *ObjectPlan, fn func(ObjectRecord) error) error {
	err := l.m.read(ctx, l.key, p.From, func(f frame) error {
		if f.First >= p.To {
			return errStop
		}
		return l.s.eachOf(ctx, f, fn)
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

// eachOf yields what the stream has for object destinations in a frame.
func (s *Stream) eachOf(ctx context.Context, f frame, fn func(ObjectRecord) error) error {
	switch f.Kind {
	case payloadPlain:
		docs, err := readPlain(f.Payload, int(f.Count))
		if err != nil {
			return fmt.Errorf("frame at offset %d: %w", f.First, err)
		}
		for i, d := range docs {
			if err := fn(s.objectRecord(f, i, d)); err != nil {
				return err
			}
		}
		return nil
	case payloadStaged:
		st, err := readStaged(f.Payload, int(f.Count))
		if err != nil {
			return fmt.Errorf("frame at offset %d: %w", f.First, err)
		}
		var sent [][]byte // by the producer
		for i := range st.Entries {
			e := &st.Entries[i]
			r := s.objectRecord(f, e.Place, e.Data)
			switch e.Kind {
			case stagedDropped:
				continue
			case stagedDocument:
				r.Keys = e.Keys
			case stagedFailed:
				if sent == nil {
					if sent, err = s.source(ctx, f.First, int(f.Count)); err != nil {
						return err
					}
				}
				r.Data, r.Code, r.Message = sent[e.Place], e.Code, e.Message
			}
			if err := fn(r); err != nil {
				return err
			}
		}
		return nil
	}
	if f.Kind == payloadGap {
		return nil
	}
	return fmt.Errorf("frame at offset %d: %w: kind %d is not for objects", f.First, errPayload, f.Kind)
}

func (s *Stream) objectRecord(f frame, place int, data []byte) ObjectRecord {
	at := f.First + record.Offset(place)
	return ObjectRecord{Offset: at, ID: record.ID{Key: s.key, Offset: at}, ArrivedAt: f.ArrivedAt, Data: data}
}

// source returns records of the source frame that has the offset, as they came:
// the frame of their outcomes begins and ends within it.
func (s *Stream) source(ctx context.Context, first record.Offset, count int) (docs [][]byte, err error) {
	rerr := s.m.read(ctx, s.key, first, func(f frame) error {
		skip := int(first - f.First)
		if f.First > first || skip+count > int(f.Count) || f.Kind != payloadPlain {
			return fmt.Errorf("frame at offset %d does not match its source", first)
		}
		docs, err = readPlain(append([]byte(nil), f.Payload...), int(f.Count))
		if err != nil {
			return err
		}
		docs = docs[skip : skip+count]
		return errStop
	})
	if rerr != nil && !errors.Is(rerr, errStop) {
		return nil, fmt.Errorf("read the source of offset %d: %w", first, rerr)
	}
	if docs == nil {
		return nil, fmt.Errorf("read the source of offset %d: it is not in the log any more", first)
	}
	return docs, nil
}
