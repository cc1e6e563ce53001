package delivery

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/record"
)

// lane is the way of a stream's records from its log to one destination. It
// has a progress of its own: the log is kept for the slowest lane.
type lane interface {
	start()
	// close stops the lane's goroutines; what is not delivered stays in the log.
	close()
	// signal says that there is something new below synced.
	signal()
	// log is the key whose offsets the lane follows.
	log() record.Key
	// Through is the offset below which the destination has every record.
	Through() record.Offset
	// taken is the offset up to which the lane has looked at records.
	taken() record.Offset
	// Flush delivers everything that is synced now.
	Flush(ctx context.Context) error
	// failure is why the lane has stopped for good, or nil.
	failure() error
	// bounds is the stretch of its log that is the lane's.
	bounds() *span
	id() laneID
}

// tableLane delivers into one table. Its rows are visible in the tail until
// the table has them.
type tableLane struct {
	s     *Stream
	m     *Manager
	key   record.Key // whose log it follows
	table catalog.Name
	// ordinal tells the files of one stream's tails apart.
	ordinal int
	dest    Destination

	layouts  layouts
	sequence bool     // the table numbers its records
	keys     []string // the columns by which records update and delete; nil: they only append

	mu          sync.Mutex // makes the queue's order the log's
	queue       []pending
	queuedRows  int
	queuedBytes int64

	span     span
	after    *tableLane // the direct lane before this one, which the ledger follows first; or nil
	behind   *tableLane // an ending lane into the same table, which commits first; or nil
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
	stretch stretch // of a table with keys: what is not yet in an entry
}

var _ lane = (*tableLane)(nil)

// openTable compiles the table's layout and checks the log against the table.
func (m *Manager) openTable(ctx context.Context, s *Stream, key record.Key, table catalog.Name) (*tableLane, error) {
	cfg := s.Config()
	dest, err := m.o.Destination(cfg, table)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", cfg.Name, err)
	}
	st, err := dest.State(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("stream %s: load its destination: %w", cfg.Name, err)
	}
	if end := m.o.Log.Next(key); end < st.Through {
		return nil, fmt.Errorf("%w: stream %s: %s contains records up to offset %d, the log ends at %d; this data directory's log has been replaced by an older one: restore the log that belongs to it",
			ErrLogBehind, cfg.Name, table, st.Through, end)
	}
	l := &tableLane{
		s: s, m: m, key: key, table: table, ordinal: int(s.ordinals.Add(1)), dest: dest, sequence: !st.Sequence.IsZero(),
		tail: tail{fs: m.o.FS, end: st.Through},
		wake: make(chan struct{}, 1), requests: make(chan request), flushed: make(chan flushResult, 1), stop: make(chan struct{}),
	}
	if key.Shard == stagedShard { // otherwise every record is an insert
		l.keys = cfg.Keys[table.String()]
	}
	if l.keys != nil {
		l.layouts.keyed = newKeyLayouts(l.keys)
	}
	if err := l.layouts.adopt(m.o.Calendar, st); err != nil {
		return nil, fmt.Errorf("stream %s: %w", cfg.Name, err)
	}
	l.builder = l.layouts.present().NewBuilder()
	l.through.Store(uint64(st.Through))
	l.appended.Store(uint64(st.Through))
	return l, nil
}

// advance moves the table's progress over records of which none is for it.
// REQUIRES: the lane is not started.
func (l *tableLane) advance(ctx context.Context, to record.Offset) error {
	from := l.Through()
	if to <= from {
		return nil
	}
	err := l.dest.Deliver(ctx, Delivery{Key: l.key, From: from, To: to})
	if err != nil { // the table tells the outcome
		if st, serr := l.dest.State(ctx, l.key); serr != nil || st.Through != to {
			return fmt.Errorf("begin the progress of %s: %w", l.table, err)
		}
	}
	l.through.Store(uint64(to))
	l.appended.Store(uint64(to))
	l.tail.end = to
	return nil
}

func (l *tableLane) log() record.Key { return l.key }

// Through implements lane.
func (l *tableLane) Through() record.Offset { return record.Offset(l.through.Load()) }

func (l *tableLane) taken() record.Offset { return record.Offset(l.appended.Load()) }

// push appends to the queue; a batch for which there is no room is let go, and
// the pump reads its frame from the log. REQUIRES: the caller's pushes come in
// the order of their offsets.
func (l *tableLane) push(p pending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if (l.queuedRows+p.count > l.m.o.QueueRows || l.queuedBytes+p.bytes > l.m.o.QueueBytes) && len(l.queue) > 0 {
		p.batch.Release()
		return
	}
	p.batch.SetOrigin(l.s.key, p.first)
	l.queue = append(l.queue, p)
	l.queuedRows, l.queuedBytes = l.queuedRows+p.count, l.queuedBytes+p.bytes
}

// signal wakes the pump.
func (l *tableLane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// fail stops the lane for good: puts and flushes return err.
func (l *tableLane) fail(err error) {
	if l.fatal.CompareAndSwap(nil, &err) {
		l.m.o.Logger.Error("stream stopped", "stream", l.s.name, "table", l.table.String(), "err", err)
	}
}

func (l *tableLane) failure() error {
	if p := l.fatal.Load(); p != nil {
		return *p
	}
	return nil
}
