// Package ledger knows which sequence numbers of which source are here, and
// so tells a duplicate, a conflict and a gap from a record that is new.
//
// A record's key at its source is (source, session, epoch, sequence); the
// first three name a feed. The ledger keeps two things:
//
//   - The window, volatile: for each recently received sequence number a hash
//     of its content, present from the moment a put reserves it. It answers
//     "new, duplicate or conflict?" while puts race.
//   - The account, durable: for each feed the exact set of sequence numbers
//     received, those rejected, conflicts, and counts by trade date. It is
//     changed only by Apply, in log order, and a checkpoint of it carries the
//     offsets up to which it is true. The log is not trimmed past a checkpoint.
//
// Invariants: account ⊆ window ∪ account (a sequence number once accepted is
// never accepted again, however old); a checkpoint's account is the effect of
// exactly the frames below its vector; a sequence number is acknowledged as a
// duplicate only when the record that holds it is on disk.
//
// Memory is bounded: the window holds Options.WindowRecords hashes, oldest
// forgotten first. A resend older than the window is still known to be a
// duplicate, but its content is no longer compared; it is counted apart.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/tapehouse/tapehouse/internal/record"
)

// Errors that decide what a put answers.
var (
	// ErrBusy: the window is full of records that are not yet applied.
	ErrBusy = errors.New("sequence ledger is behind; try again")
	// ErrFragmented: a feed's sequence numbers come with so many holes that
	// the account would outgrow its bound.
	ErrFragmented = errors.New("sequence numbers of this source have too many holes to keep account of")
)

// Feed names one numbered sequence of a source.
type Feed struct {
	Source  string `json:"source"`
	Session string `json:"session"`
	Epoch   int64  `json:"epoch"`
}

func (f Feed) String() string { return fmt.Sprintf("%s/%s/%d", f.Source, f.Session, f.Epoch) }

// Run is a stretch of one feed: rows Row..Row+N-1 of a batch bear the sequence
// numbers Sequence..Sequence+N-1 and one trade date (days since 1970-01-01).
type Run struct {
	Feed
	Row       int
	N         int
	Sequence  int64
	TradeDate int32
}

// Reject is a record that was refused by the decoder. HasSequence tells whether
// its key could be read in spite of what is wrong with it.
type Reject struct {
	Feed
	HasSequence bool
	Sequence    int64
	Code        string
	Message     string
	Offset      record.Offset
}

// Conflict is a record whose key is known with another content. Both are kept:
// the first in the table, the second in the log and the error output.
type Conflict struct {
	Sequence int64         `json:"sequence"`
	Offset   record.Offset `json:"offset"`
	Reason   string        `json:"reason"`
}

// Limits of the account, so that no producer can make it grow without bound.
const (
	intervalsMax = 1 << 20 // intervals a feed
	samplesMax   = 100     // rejects and conflicts of a feed that are kept with their text
	feedsMax     = 100_000
	// straysMax bounds the feeds and the sources that rejects alone make known, so
	// that bad records leave room for good ones. Further rejects are counted
	// without a feed.
	straysMax = feedsMax / 2
)

// Options configure a ledger. Zero values choose the defaults.
type Options struct {
	WindowRecords int // content hashes kept; default 16 Mi records (66 MiB)
}

// Ledger is safe for concurrent use.
type Ledger struct {
	chunksMax int

	// Lock order: mu, then a feed's, then windowMu.
	mu       sync.Mutex // guards what follows
	feeds    map[Feed]*feed
	applied  record.Vector
	unkeyed  map[string]int64                         // rejects without a sequence, by source ("" where unknown)
	replayed map[record.Key]map[record.Key]*Intervals // into which key, of which key: offsets

	windowMu sync.Mutex
	order    []*chunk // window chunks, oldest first
}

type feed struct {
	id       Feed
	mu       sync.Mutex
	chunks   map[int64]*chunk
	inflight []inflight
	account  Account
}

type inflight struct {
	lo, hi int64
	res    *Reservation
}

// New returns an empty ledger.
func New(o Options) *Ledger {
	if o.WindowRecords <= 0 {
		o.WindowRecords = 16 << 20
	}
	return &Ledger{
		chunksMax: max(o.WindowRecords/chunkSize, 16),
		feeds:     map[Feed]*feed{},
		applied:   record.Vector{},
		unkeyed:   map[string]int64{},
		replayed:  map[record.Key]map[record.Key]*Intervals{},
	}
}

// Reservation holds the sequence numbers that a put is about to log. Exactly
// one of Confirm and Release ends it.
type Reservation struct {
	// Duplicates and Conflicts are the rows that must not be stored as rows,
	// ascending.
	Duplicates []int32
	Conflicts  []int32

	ledger *Ledger
	held   []held
	waits  []*Reservation
	done   chan struct{}
	failed bool // written before done is closed
}

type held struct {
	feed   *feed
	lo, hi int64
}

// Reserve decides for each row of runs whether it is new, a duplicate or a
// conflict; hashes[row] is the row's content hash. What is new is held by the
// reservation, so that a concurrent resend is seen as a duplicate of it.
func (l *Ledger) Reserve(runs []Run, hashes []uint64) (*Reservation, error) {
	r := &Reservation{ledger: l, done: make(chan struct{})}
	for i := range runs {
		if err := l.reserveRun(r, &runs[i], hashes); err != nil {
			r.Release()
			return nil, err
		}
	}
	return r, nil
}

func (l *Ledger) feed(id Feed) (*feed, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.feeds[id]
	if f == nil {
		if len(l.feeds) >= feedsMax {
			return nil, fmt.Errorf("%w: more than %d feeds", ErrFragmented, feedsMax)
		}
		f = &feed{id: id, chunks: map[int64]*chunk{}}
		f.account.init()
		l.feeds[id] = f
	}
	return f, nil
}

func (l *Ledger) reserveRun(r *Reservation, run *Run, hashes []uint64) error {
	if run.Sequence < 0 || run.Sequence > math.MaxInt64-int64(run.N)-chunkSize {
		return fmt.Errorf("%w sequence number %d of %s", record.ErrInvalid, run.Sequence, run.Feed)
	}
	f, err := l.feed(run.Feed)
	if err != nil {
		return err
	}
	f.mu.Lock()
	if len(f.account.Seen) >= intervalsMax {
		f.mu.Unlock()
		return fmt.Errorf("%w: %s has %d", ErrFragmented, run.Feed, len(f.account.Seen))
	}
	seq, row, end := run.Sequence, run.Row, run.Sequence+int64(run.N)
	for seq < end {
		base := seq &^ (chunkSize - 1)
		next := min(end, base+chunkSize)
		c := f.chunks[base]
		if c == nil {
			if c, err = l.addChunk(f, base); err != nil {
				f.mu.Unlock()
				return err
			}
		}
		lo, hi := int(seq-base), int(next-base)
		if c.vacant(lo, hi) && len(f.account.Seen.Within(seq, next)) == 0 {
			c.mark(lo, hi)
			for k := lo; k < hi; k++ {
				c.hash[k] = fold(hashes[row+k-lo])
			}
			f.hold(r, seq, next)
		} else {
			for k := lo; k < hi; k++ {
				f.reserveOne(r, c, k, int32(row+k-lo), fold(hashes[row+k-lo]))
			}
		}
		row += int(next - seq)
		seq = next
	}
	f.mu.Unlock()
	return nil
}

// reserveOne is the path for a sequence number that may be known.
// REQUIRES: f.mu.
func (f *feed) reserveOne(r *Reservation, c *chunk, k int, row int32, h uint32) {
	seq := c.base + int64(k)
	switch {
	case c.has(k):
		if c.hash[k] != h {
			r.Conflicts = append(r.Conflicts, row)
			return
		}
		r.Duplicates = append(r.Duplicates, row)
		for _, in := range f.inflight {
			if in.lo <= seq && seq < in.hi && in.res != r {
				r.waits = append(r.waits, in.res)
			}
		}
		f.account.Duplicates++
	case f.account.Seen.Contains(seq, seq+1):
		// Older than the window: the content can no longer be compared.
		r.Duplicates = append(r.Duplicates, row)
		f.account.Duplicates++
		f.account.Unchecked++
	default:
		c.mark(k, k+1)
		c.hash[k] = h
		f.hold(r, seq, seq+1)
	}
}

// hold records that r has [lo, hi) in flight. REQUIRES: f.mu.
func (f *feed) hold(r *Reservation, lo, hi int64) {
	if n := len(r.held); n > 0 && r.held[n-1].feed == f && r.held[n-1].hi == lo {
		r.held[n-1].hi = hi
		for i := range f.inflight {
			if f.inflight[i].res == r && f.inflight[i].hi == lo {
				f.inflight[i].hi = hi
				return
			}
		}
	}
	r.held = append(r.held, held{f, lo, hi})
	f.inflight = append(f.inflight, inflight{lo, hi, r})
}

// addChunk makes room for a chunk and adds it. REQUIRES: f.mu.
func (l *Ledger) addChunk(f *feed, base int64) (*chunk, error) {
	l.windowMu.Lock()
	defer l.windowMu.Unlock()
	// What is not yet applied cannot be forgotten: the window may outgrow its
	// bound twofold while the pump catches up, and then puts are turned away.
	if len(l.order) >= l.chunksMax && !l.evict(f) && len(l.order) >= 2*l.chunksMax {
		return nil, ErrBusy
	}
	c := &chunk{feed: f, base: base}
	l.order = append(l.order, c)
	f.chunks[base] = c
	return c, nil
}

// evict forgets the oldest chunk whose content is wholly applied, among the
// first few. REQUIRES: l.windowMu and own.mu; other feeds' locks are only tried
// for, as they come before windowMu in the order.
func (l *Ledger) evict(own *feed) bool {
	for i := 0; i < len(l.order) && i < 64; i++ {
		c := l.order[i]
		if c.feed != own && !c.feed.mu.TryLock() {
			continue
		}
		ok := c.evictable()
		if ok {
			delete(c.feed.chunks, c.base)
		}
		if c.feed != own {
			c.feed.mu.Unlock()
		}
		if ok {
			l.order = append(l.order[:i], l.order[i+1:]...)
			return true
		}
	}
	return false
}

// Wait blocks until every record that this put's duplicates stand for is on
// disk. If one of them failed, the duplicate was never stored: the caller must
// answer with a fault, so that the producer sends it again.
func (r *Reservation) Wait(ctx context.Context) error {
	for _, w := range r.waits {
		select {
		case <-w.done:
			if w.failed {
				return ErrBusy
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Confirm ends the reservation: what it holds is on disk.
func (r *Reservation) Confirm() { r.end(false) }

// Release ends the reservation: nothing of it was stored.
func (r *Reservation) Release() { r.end(true) }

func (r *Reservation) end(failed bool) {
	for i := 0; i < len(r.held); i++ {
		f := r.held[i].feed
		f.mu.Lock()
		for ; i < len(r.held) && r.held[i].feed == f; i++ {
			h := r.held[i]
			if failed {
				f.forget(h.lo, h.hi)
			}
			for k := range f.inflight {
				if f.inflight[k].res == r && f.inflight[k].lo == h.lo {
					last := len(f.inflight) - 1
					f.inflight[k] = f.inflight[last]
					f.inflight = f.inflight[:last]
					break
				}
			}
		}
		i--
		f.mu.Unlock()
	}
	r.failed = failed
	close(r.done)
}

// forget takes [lo, hi) out of the window. REQUIRES: f.mu.
func (f *feed) forget(lo, hi int64) {
	for lo < hi {
		base := lo &^ (chunkSize - 1)
		next := min(hi, base+chunkSize)
		if c := f.chunks[base]; c != nil {
			c.clear(int(lo-base), int(next-base))
		}
		lo = next
	}
}

// Learn puts the content hashes of records that are already in the log back
// into the window, at recovery. It changes no account.
func (l *Ledger) Learn(runs []Run, hashes []uint64) error {
	for i := range runs {
		run := &runs[i]
		f, err := l.feed(run.Feed)
		if err != nil {
			return err
		}
		f.mu.Lock()
		for k := 0; k < run.N; k++ {
			seq := run.Sequence + int64(k)
			base := seq &^ (chunkSize - 1)
			c := f.chunks[base]
			if c == nil {
				if c, err = l.addChunk(f, base); err != nil {
					f.mu.Unlock()
					return err
				}
			}
			c.mark(int(seq-base), int(seq-base)+1)
			c.hash[seq-base] = fold(hashes[run.Row+k])
		}
		f.mu.Unlock()
	}
	return nil
}
