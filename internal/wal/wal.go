// Package wal is the embedded log: the place where an acknowledged record is
// safe until a table holds it.
//
// One log serves all keys of a data directory. Frames of all keys are written
// one after the other to segments of fixed size, many frames to one fsync:
//
//	directory   LOCK  000000000000002a.wal  000000000000002b.wal  spare-00000007
//	segment     [header: number, salt, size, end of the former, key → next offset] [group] [group] … [zeros or stale bytes]
//	group       [magic, sum, segment, position, synced, bytes, frames] [frame] … padding to 4 KiB   one fsync
//	frame       [sum, payload sum, length, count, key, kind, flags, schema, first offset, arrival] [payload] padding to 8
//
// The bytes are drawn in docs/formats/wal.md, the protocols and their reasons in
// docs/protocols/log.md. The invariants:
//
//   - Acknowledged is recovered: a frame whose Ticket reported success is read
//     again after any crash, with the same key, offsets and bytes, until trimmed.
//   - The offsets of a key are dense from 0, and go on after trims and restarts.
//   - A block of 4 KiB that holds synced bytes is never written to again, but
//     for the last group at recovery, with the same bytes.
//   - Damage to synced bytes is reported, never skipped. A torn tail, which was
//     never acknowledged, is cut.
//   - A failed write or fsync of a group poisons the log until restart. A full disk does not.
//
// Three goroutines belong to a Log: the writer, which alone writes to the
// current segment; the preparer, which keeps a spare segment ready; and the
// keeper, which lets segments go and moves the frames of stalled keys. Close
// waits for them.
//
// Locks, in the order in which they may be nested: maintain, then mu, then ix or
// spareMu.
package wal

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/record"
)

// MaxPayloadBytes bounds a frame's payload. Where SegmentBytes is below 16 MiB
// the limit is half a segment, less the headers.
const MaxPayloadBytes = 8 << 20

// Options configure a Log. The zero value of each field means its default.
type Options struct {
	// SegmentBytes is the size of a segment, 64 MiB; at least 16 KiB, at most
	// 1 GiB, a multiple of 4096. Existing segments keep theirs.
	SegmentBytes int64
	// QueueBytes bounds what waits for its fsync, 64 MiB.
	QueueBytes int64
	// GroupBytes bounds one group, 4 MiB, and a quarter of a segment. A larger
	// frame is a group of its own.
	GroupBytes int64
	// Linger bounds how long the writer waits for the producers of the last
	// group to come back, 2 ms (which is also the most); it never waits longer
	// than the last fsync took. Negative: never.
	Linger time.Duration
	// Retention is how long trimmed segments are kept for replay, 24 h. Negative: not at all.
	Retention time.Duration
	// RetentionBytes is the size of the log above which trimmed segments go at
	// once, 1 GiB. Negative: 0.
	RetentionBytes int64
	// StallSegments is how many segments a key may fall behind before its frames are moved, 8.
	StallSegments int
	// MaxBytes bounds the log's files; reaching it is as a full disk. 0: unbounded.
	MaxBytes int64
	// ReserveBytes is left free on the disk, 128 MiB: the commits that let the
	// log be trimmed need room too. Negative: nothing.
	ReserveBytes int64

	Logger     *slog.Logger          // nil: discard
	Registerer prometheus.Registerer // nil: no metrics
	Now        func() time.Time      // for Retention only; nil: time.Now

	// markAfter is the idleness after which a mark vouches for the last group;
	// negative: only Close writes one. For tests, which count operations.
	markAfter time.Duration
	// retryAfter is the time between attempts to get room for a segment.
	retryAfter time.Duration
}

// payloadSpareBytes is more than the headers of a group and a frame: a frame of
// the greatest size fits a segment whose table of keys has the greatest size.
const payloadSpareBytes = 128

const (
	segmentBytesDefault   = 64 << 20
	segmentBytesMin       = 16 << 10
	queueBytesDefault     = 64 << 20
	groupBytesDefault     = 4 << 20
	lingerMax             = 2 * time.Millisecond
	retentionDefault      = 24 * time.Hour
	retentionBytesDefault = 1 << 30
	stallSegmentsDefault  = 8
	reserveBytesDefault   = 128 << 20
	markAfterDefault      = time.Second
	retryAfterDefault     = time.Second

	// keepEvery is the time between looks at the retention when nothing else
	// gives occasion.
	keepEvery = 30 * time.Second
)

func orDefault[T int | int64 | time.Duration](v, def T) T {
	switch {
	case v == 0:
		return def
	case v < 0:
		return 0
	}
	return v
}

func (o Options) withDefaults() (Options, error) {
	o.SegmentBytes = orDefault(o.SegmentBytes, segmentBytesDefault)
	if o.SegmentBytes < segmentBytesMin || o.SegmentBytes > segmentBytesMax || o.SegmentBytes%blockBytes != 0 {
		return o, fmt.Errorf("log segment size %d: want a multiple of %d from %d to %d",
			o.SegmentBytes, blockBytes, segmentBytesMin, segmentBytesMax)
	}
	o.QueueBytes = orDefault(o.QueueBytes, queueBytesDefault)
	o.GroupBytes = min(orDefault(o.GroupBytes, groupBytesDefault), o.SegmentBytes/4)
	o.Linger = min(orDefault(o.Linger, lingerMax), lingerMax)
	o.Retention = orDefault(o.Retention, retentionDefault)
	o.RetentionBytes = orDefault(o.RetentionBytes, retentionBytesDefault)
	o.StallSegments = max(orDefault(o.StallSegments, stallSegmentsDefault), 1)
	o.ReserveBytes = orDefault(o.ReserveBytes, reserveBytesDefault)
	o.markAfter = orDefault(o.markAfter, markAfterDefault)
	o.retryAfter = orDefault(o.retryAfter, retryAfterDefault)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o, nil
}

// Entry is what a producer puts: one or more records under one payload.
type Entry struct {
	Kind      uint8  // how Payload is encoded; the log does not look
	SchemaID  uint32 // of the stream's schema when it was encoded
	Count     uint32 // records in Payload, at least 1
	ArrivedAt int64  // µs since 1970 UTC
	Payload   []byte
}

// Frame is an entry and its place.
type Frame struct {
	Key   record.Key
	First record.Offset // of the first of Count records
	Entry
}

// Log is a log that is open. All methods may be called concurrently.
type Log struct {
	fs   fsys.FS
	dir  string
	opt  Options
	lock io.Closer
	met  *metrics
	all  []prometheus.Collector

	maxPayload int
	maxKeys    int

	mu         sync.Mutex
	keys       map[record.Key]*keyState
	queue      []*batch // oldest first; only the last one still grows
	queueBytes int64    // frames enqueued and not yet settled
	waiting    int      // frames in queue
	wakeAt     int      // the writer wants to be woken when waiting reaches it; 0: it works
	refusal    error    // why Enqueue refuses: poisoned, disk full, closed
	poison     error
	closing    bool
	wake       chan struct{} // to the writer, capacity 1

	ix       sync.RWMutex
	segments []*segment // ascending, without gaps; the last is written to. Never empty

	spareMu   sync.Mutex
	spareCond *sync.Cond
	spares    []*spare
	spareErr  error // the last attempt to prepare one
	spareNext uint64

	maintain sync.Mutex // whoever lets segments go or moves frames; guards the next two
	ended    bool       // nobody may any more
	retired  []*segment // out of the index, not yet renamed; they come before segments[0]

	keeperKick   chan struct{}
	preparerKick chan struct{}
	stop         chan struct{} // to preparer and keeper
	background   sync.WaitGroup
	writerDone   chan struct{}
	closeOnce    sync.Once
	closeErr     error

	w writer // the writer's own
}

// pending is a frame on its way to disk. The payload belongs to its producer.
type pending struct {
	st      *keyState
	payload []byte
	head    frameHeader
}

// batch is the frames that one fsync will make durable, and their tickets.
type batch struct {
	frames []pending
	bytes  int64 // of the frames, headers and padding to 8 included
	done   chan struct{}
	err    error // valid when done is closed
}

// Ticket stands for a frame on its way to disk.
type Ticket struct {
	b     *batch
	first record.Offset
}

// First is the offset of the frame's first record. It is final when Wait
// returned nil; if Wait reports ErrDiskFull, another frame will get it.
func (t Ticket) First() record.Offset { return t.first }

// Done is closed when the frame's fate is known and the log no longer owns its payload.
func (t Ticket) Done() <-chan struct{} { return t.b.done }

// Wait returns nil when the frame is on disk. It returns ctx's error if that
// comes first: then the fate is open, and the payload stays the log's until
// Done is closed. After ErrDiskFull the frame is certainly not in the log; after
// ErrPoisoned it may be found at the next start.
func (t Ticket) Wait(ctx context.Context) error {
	select {
	case <-t.b.done:
		return t.b.err
	default:
	}
	select {
	case <-t.b.done:
		return t.b.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Enqueue gives e the next offsets of k, in the order of the calls, and queues
// it for the next fsync. It copies nothing: the payload is the log's until the
// ticket is Done, and must not change.
//
// Errors: ErrFull (the queue), ErrDiskFull, ErrPoisoned, ErrClosed, ErrTooLarge,
// ErrTooManyKeys, ErrForgotten, ErrInvalidEntry.
func (l *Log) Enqueue(k record.Key, e Entry) (Ticket, error) {
	if e.Count == 0 {
		return Ticket{}, ErrInvalidEntry
	}
	if len(e.Payload) > l.maxPayload {
		return Ticket{}, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(e.Payload), l.maxPayload)
	}
	p := pending{payload: e.Payload, head: frameHeader{
		key: k, arrivedAt: e.ArrivedAt, count: e.Count, schemaID: e.SchemaID, kind: e.Kind,
		payloadLen: len(e.Payload), payloadSum: crc32.Checksum(e.Payload, castagnoli), // here, where it runs beside others
	}}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.admit(frameBytes(len(e.Payload))); err != nil {
		return Ticket{}, err
	}
	st := l.keys[k]
	if st == nil {
		if len(l.keys) >= l.maxKeys {
			return Ticket{}, fmt.Errorf("%w: %d", ErrTooManyKeys, l.maxKeys)
		}
		st = &keyState{key: k}
		l.keys[k] = st
	}
	if st.forgotten {
		return Ticket{}, ErrForgotten
	}
	p.st, p.head.first = st, st.next
	if p.head.end() < p.head.first {
		return Ticket{}, fmt.Errorf("%w: offsets of %s exhausted", ErrTooLarge, k)
	}
	st.next = p.head.end()
	return Ticket{l.push(p), p.head.first}, nil
}

// admit says whether a frame may join the queue. REQUIRES: mu.
func (l *Log) admit(bytes int64) error {
	if l.refusal != nil {
		if !errors.Is(l.refusal, ErrClosed) && l.poison == nil {
			l.met.refused.WithLabelValues("disk").Inc()
		}
		return l.refusal
	}
	// A queue that is empty takes any frame, so that a small bound stops nothing forever.
	if l.queueBytes > 0 && l.queueBytes+bytes > l.opt.QueueBytes {
		l.met.refused.WithLabelValues("queue").Inc()
		return fmt.Errorf("%w: %d bytes wait for the disk", ErrFull, l.queueBytes)
	}
	return nil
}

// push appends a frame to the open batch. REQUIRES: mu.
func (l *Log) push(p pending) *batch {
	n := frameBytes(len(p.payload))
	var b *batch
	if len(l.queue) > 0 {
		b = l.queue[len(l.queue)-1]
	}
	if b == nil || groupHeaderBytes+b.bytes+n > l.opt.GroupBytes {
		b = &batch{frames: l.w.frames.get(), done: make(chan struct{})}
		l.queue = append(l.queue, b)
	}
	b.frames = append(b.frames, p)
	b.bytes += n
	l.queueBytes += n
	l.waiting++
	if l.wakeAt > 0 && (l.waiting >= l.wakeAt || l.queueBytes >= l.opt.GroupBytes) {
		l.wakeWriter()
	}
	return b
}

// wakeWriter REQUIRES: mu.
func (l *Log) wakeWriter() {
	l.wakeAt = 0
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Forget drops a key whose stream was deleted: its frames are no longer needed
// and cannot be read. Its name is free again, from offset 0, when the log has
// written that down. Unknown keys are ignored.
func (l *Log) Forget(k record.Key) {
	l.mu.Lock()
	st := l.keys[k]
	if st == nil || st.forgotten {
		l.mu.Unlock()
		return
	}
	st.forgotten = true
	if l.refusal == nil {
		l.push(pending{st: st, head: frameHeader{key: k, first: st.next, flags: flagForget}})
		// If the disk is full it is the next segment's table that forgets.
	}
	l.mu.Unlock()
	l.ix.Lock()
	st.leaveKey()
	l.ix.Unlock()
	kick(l.keeperKick)
}

func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// state returns a key's state, or nil.
func (l *Log) state(k record.Key) *keyState {
	l.mu.Lock()
	defer l.mu.Unlock()
	st := l.keys[k]
	if st == nil || st.forgotten {
		return nil
	}
	return st
}

// Next is one past the last offset given out for k; 0 for an unknown key.
func (l *Log) Next(k record.Key) record.Offset {
	l.mu.Lock()
	defer l.mu.Unlock()
	if st := l.keys[k]; st != nil && !st.forgotten {
		return st.next
	}
	return 0
}

// Synced is one past the last offset of k that is on disk.
func (l *Log) Synced(k record.Key) record.Offset {
	st := l.state(k)
	if st == nil {
		return 0
	}
	l.ix.RLock()
	defer l.ix.RUnlock()
	return st.synced
}

// Oldest is the first offset of k that can still be read; Synced if there is none.
func (l *Log) Oldest(k record.Key) record.Offset {
	st := l.state(k)
	if st == nil {
		return 0
	}
	l.ix.RLock()
	defer l.ix.RUnlock()
	return st.oldest()
}

// Ends returns Synced of every key that the log knows.
func (l *Log) Ends() record.Vector {
	l.mu.Lock()
	keys := maps.Clone(l.keys)
	for k, st := range keys {
		if st.forgotten {
			delete(keys, k)
		}
	}
	l.mu.Unlock()
	v := make(record.Vector, len(keys))
	l.ix.RLock()
	defer l.ix.RUnlock()
	for k, st := range keys {
		v[k] = st.synced
	}
	return v
}

// Stats is a picture of the log.
type Stats struct {
	Segments       int
	OldestSegment  uint64
	NewestSegment  uint64
	DiskBytes      int64 // segments and spares
	UntrimmedBytes int64 // frames above their trim points
	QueueBytes     int64
	QueueFrames    int
	Keys           int
	DiskFull       bool
	Poisoned       bool
}

// Stats returns a picture of the log.
func (l *Log) Stats() Stats {
	var s Stats
	l.mu.Lock()
	s.QueueBytes, s.QueueFrames, s.Keys = l.queueBytes, l.waiting, len(l.keys)
	s.Poisoned = l.poison != nil
	s.DiskFull = !s.Poisoned && l.refusal != nil && !errors.Is(l.refusal, ErrClosed)
	l.mu.Unlock()
	l.ix.RLock()
	s.Segments = len(l.segments)
	s.OldestSegment, s.NewestSegment = l.segments[0].number, l.segments[len(l.segments)-1].number
	for _, seg := range l.segments {
		s.DiskBytes += seg.size
		s.UntrimmedBytes += seg.neededBytes()
	}
	l.ix.RUnlock()
	l.spareMu.Lock()
	s.DiskBytes += int64(len(l.spares)) * l.opt.SegmentBytes
	l.spareMu.Unlock()
	return s
}

// Close refuses further puts, makes the queued ones durable, marks the tail,
// and releases the directory. It returns the first error of these, and the same one when called again.
func (l *Log) Close() error {
	l.closeOnce.Do(func() { l.closeErr = l.close() })
	return l.closeErr
}

func (l *Log) close() error {
	l.mu.Lock()
	l.closing = true
	if l.poison == nil {
		l.refusal = ErrClosed
	}
	l.wakeWriter()
	l.mu.Unlock()
	<-l.writerDone
	close(l.stop)
	l.background.Wait()
	l.maintain.Lock() // a Trim may be under way
	defer l.maintain.Unlock()
	l.ended = true

	l.mu.Lock()
	err := l.poison
	l.refusal = ErrClosed
	l.mu.Unlock()
	l.ix.Lock()
	for _, seg := range l.segments {
		// Reads that are still under way get fs.ErrClosed.
		if cerr := seg.file.Close(); err == nil {
			err = cerr
		}
	}
	l.ix.Unlock()
	for _, seg := range l.retired {
		_ = seg.file.Close() // its content is of no more use
	}
	for _, s := range l.spares {
		_ = s.file.Close()
	}
	for _, c := range l.all {
		l.opt.Registerer.Unregister(c)
	}
	if cerr := l.lock.Close(); err == nil {
		err = cerr
	}
	return err
}
