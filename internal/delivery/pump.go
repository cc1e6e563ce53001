package delivery

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/ledger"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/internal/wal"
)

// Bounds of the tail's files.
const (
	mergeFanIn = 10 // small neighbours that are merged into one
	// Entries of at least mergeRowsMax rows are left alone: merging costs about
	// 300 ns a row, a fifth of what a row costs on its whole way, and with row
	// groups of this size files are not much larger, nor reads slower. Under load
	// every entry is that large.
	mergeRowsMax = 32 << 10
	// joinFanIn entries that are left alone are joined into one: their row groups
	// are copied as bytes, 10 ns a record, because a query opens every file of the
	// tail while it is planned and while it runs: with ten queries a second beside
	// it, a stream at its limit takes 12 % more.
	joinFanIn  = 10
	rejectsMax = 64 << 10 // frames with rejects that are remembered one by one
)

// pumpState is what only the pump goroutine touches.
type pumpState struct {
	building     record.Offset // where the builder's rows begin
	firstAt      time.Time     // when the oldest record not yet in a flush was taken
	encodedAt    time.Time
	flushing     bool
	flushEnd     record.Offset // entries below it are in a flush or at a cut: not to be merged
	retry        *plan         // a flush that failed, to be executed again exactly
	retryAt      time.Time
	retryWait    time.Duration
	lastFlush    time.Time
	stalledUntil time.Time
	waiters      []waiter
	frozen       bool
	rejects      []record.Offset // first offsets of frames with rejects or conflicts, from through on
	rejectsAll   bool            // too many to remember: look at every frame
}

// request asks the pump for something; reply is answered when it is done.
type request struct {
	kind  requestKind
	reply chan reply
}

type requestKind uint8

const (
	askVisible requestKind = iota // everything synced is in the tail
	askFlush                      // everything synced is in the table
	askFreeze                     // the same, and nothing further is committed
	askRelease
)

type reply struct {
	at  record.Offset
	err error
}

// waiter waits for a through.
type waiter struct {
	at    record.Offset
	reply chan reply
}

// recoverLedger brings the ledger up to the log's end: what the log still holds
// is learned, what the checkpoint lacks is applied.
func (s *Stream) recoverLedger(ctx context.Context) error {
	applied := s.m.o.Ledger.Applied()[s.key]
	from := s.m.o.Log.Oldest(s.key)
	if need := min(applied, s.Through()); from > need && s.m.o.Log.Synced(s.key) > need {
		return fmt.Errorf("%w: stream %s: records from offset %d on are needed, the log begins at %d", ErrLogBehind, s.cfg.Name, need, from)
	}
	d := s.layout.NewDecoder()
	started := s.m.o.Now()
	var records int64
	err := s.m.o.Log.Read(ctx, s.key, from, func(f wal.Frame) error {
		batch, err := s.decode(d, f)
		if err != nil {
			return err
		}
		defer batch.Release()
		records += int64(f.Count)
		if s.sequence && f.Kind&kindConflict == 0 {
			if err := s.m.o.Ledger.Learn(runsOf(batch), batch.Hash); err != nil && !errors.Is(err, ledger.ErrBusy) {
				return err
			}
		}
		return s.apply(pending{first: f.First, count: int(f.Count), batch: batch, conf: f.Kind&kindConflict != 0})
	})
	if err != nil {
		return fmt.Errorf("stream %s: recover from the log: %w", s.cfg.Name, err)
	}
	if records > 0 {
		s.m.o.Logger.Info("stream recovered", "stream", s.cfg.Name, "records_read", records, "through", s.Through(), "end", s.m.o.Log.Next(s.key), "took", s.m.o.Now().Sub(started))
	}
	return nil
}

// decode reads a frame of the log back into a batch with its origin.
func (s *Stream) decode(d *columnar.Decoder, f wal.Frame) (*columnar.Batch, error) {
	b, err := d.DecodePayload(f.Kind&^kindConflict, f.Payload, int(f.Count), f.ArrivedAt)
	if err != nil {
		return nil, fmt.Errorf("frame at offset %d: %w", f.First, err)
	}
	b.SetOrigin(s.key, f.First)
	return b, nil
}

// apply enters a frame's effect into the ledger's account.
func (s *Stream) apply(p pending) error {
	e := ledger.Effect{Key: s.key, First: p.first, Count: p.count}
	if s.sequence && !p.conf {
		e.Runs = runsOf(p.batch)
	}
	if s.sequence && p.conf {
		for r := range p.batch.Runs {
			for k := range r.N {
				e.Conflicts = append(e.Conflicts, ledger.ConflictOf{
					Feed:     ledger.Feed{Source: r.Source, Session: r.Session, Epoch: r.Epoch},
					Conflict: ledger.Conflict{Sequence: r.Sequence + int64(k), Offset: p.batch.Offset(r.Row + k), Reason: "same sequence number, other content"},
				})
			}
		}
	}
	for i := range p.batch.Rejects {
		r := &p.batch.Rejects[i]
		e.Rejects = append(e.Rejects, ledger.Reject{
			Feed:        ledger.Feed{Source: r.Source, Session: r.Session, Epoch: r.Epoch},
			HasSequence: r.HasSequence, Sequence: r.Sequence, Code: r.Code, Message: r.Message,
			Offset: p.first + record.Offset(r.Doc),
		})
	}
	return s.m.o.Ledger.Apply(e)
}

func (s *Stream) start() {
	s.building = s.Through()
	s.done.Go(s.pump)
}

// close stops the pump; what is not delivered stays in the log.
func (s *Stream) close() {
	s.stopOnce.Do(func() { close(s.stop) })
	s.done.Wait()
	s.tail.reset(s.Through())
}

// ask sends a request to the pump and waits for its answer.
func (s *Stream) ask(ctx context.Context, kind requestKind) (record.Offset, error) {
	r := request{kind, make(chan reply, 1)}
	select {
	case s.requests <- r:
	case <-s.stop:
		return 0, ErrClosed
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	select {
	case a := <-r.reply:
		return a.at, a.err
	case <-s.stop:
		return 0, ErrClosed
	case <-ctx.Done():
		return 0, ctx.Err()
	}
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

// Flush delivers everything that is synced now.
func (s *Stream) Flush(ctx context.Context) error {
	_, err := s.ask(ctx, askFlush)
	return err
}

func (s *Stream) freeze(ctx context.Context) (record.Offset, error) { return s.ask(ctx, askFreeze) }

func (s *Stream) release() {
	_, _ = s.ask(context.Background(), askRelease)
}

// pump is the stream's one consumer of its log.
func (s *Stream) pump() {
	tick := time.NewTicker(s.m.o.TailInterval)
	defer tick.Stop()
	var flush sync.WaitGroup // the one flush under way
	defer flush.Wait()
	d := s.layout.NewDecoder()
	if err := s.executePlan(d); err != nil {
		s.fail(err)
	}
	for {
		select {
		case <-s.stop:
			return
		case <-s.wake:
		case <-tick.C:
		case r := <-s.requests:
			s.serve(r, d)
		case res := <-s.flushed:
			s.finishFlush(res)
		}
		if s.failure() != nil {
			s.answerAll()
			continue
		}
		err := s.step(d)
		if err == nil {
			if p := s.due(); p != nil {
				err = s.beginFlush(p, d, &flush)
			}
		}
		s.handle(err)
		s.answerReady()
	}
}

// errTailWrite: a tail file could not be written, because the disk is full for
// example. The log has the records, so the stream waits and tries again.
var errTailWrite = errors.New("write tail file")

// handle stops the stream on an error, unless waiting can mend it.
func (s *Stream) handle(err error) {
	switch {
	case err == nil:
	case errors.Is(err, errTailWrite):
		s.stall(err)
	default:
		s.fail(err)
	}
}

// stall forgets the rows that no entry holds: they are read from the log again
// after a wait.
func (s *Stream) stall(err error) {
	s.m.o.Logger.Error("tail cannot be written, will be tried again", "stream", s.cfg.Name, "wait", s.m.o.RetryWait, "err", err)
	s.m.metrics.failedFlush(s.cfg.Name)
	s.builder = s.layout.NewBuilder()
	s.appended.Store(uint64(s.building))
	s.stalledUntil = s.m.o.Now().Add(s.m.o.RetryWait)
}

// step takes what is durable and encodes it when it is time.
func (s *Stream) step(d *columnar.Decoder) error {
	if s.m.o.Now().Before(s.stalledUntil) {
		return nil
	}
	if err := s.absorb(d, s.m.o.Log.Synced(s.key)); err != nil {
		return err
	}
	now := s.m.o.Now()
	if s.builder.Rows() >= columnar.MaxRowGroupRows || s.pending() && now.Sub(s.encodedAt) >= s.m.o.TailInterval {
		return s.encode(d)
	}
	return nil
}

// pending reports whether records were taken that no entry holds yet.
func (s *Stream) pending() bool { return record.Offset(s.appended.Load()) > s.building }

// absorb takes frames up to limit, from the queue or, where the queue lacks
// them, from the log.
func (s *Stream) absorb(d *columnar.Decoder, limit record.Offset) error {
	for {
		at := record.Offset(s.appended.Load())
		if at >= limit {
			return nil
		}
		s.mu.Lock()
		// Frames that were read from the log meanwhile are passed over.
		for len(s.queue) > 0 && s.queue[0].first < at {
			s.popLocked().batch.Release()
		}
		if len(s.queue) > 0 && s.queue[0].first == at {
			p := s.popLocked()
			s.mu.Unlock()
			if p.ticket.Wait(context.Background()) != nil { // settled: at is below synced
				p.batch.Release()
				continue
			}
			err := s.take(p)
			p.batch.Release()
			if err != nil {
				return err
			}
			continue
		}
		to := limit
		if len(s.queue) > 0 {
			to = min(to, s.queue[0].first)
		}
		s.mu.Unlock()
		if err := s.readLog(d, at, to); err != nil {
			return err
		}
	}
}

// popLocked removes the queue's head. REQUIRES: s.mu.
func (s *Stream) popLocked() pending {
	p := s.queue[0]
	s.queue[0] = pending{}
	s.queue = s.queue[1:]
	s.queuedRows -= p.count
	return p
}

var errStop = errors.New("stop reading")

// readLog takes the frames of [from, to) from the log.
func (s *Stream) readLog(d *columnar.Decoder, from, to record.Offset) error {
	err := s.m.o.Log.Read(context.Background(), s.key, from, func(f wal.Frame) error {
		if f.First >= to {
			return errStop
		}
		b, err := s.decode(d, f)
		if err != nil {
			return err
		}
		defer b.Release()
		if err := s.take(pending{first: f.First, count: int(f.Count), batch: b, conf: f.Kind&kindConflict != 0}); err != nil {
			return err
		}
		if s.builder.Rows() >= columnar.MaxRowGroupRows {
			return s.encode(d)
		}
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return fmt.Errorf("read the log: %w", err)
	}
	if record.Offset(s.appended.Load()) < to {
		return fmt.Errorf("read the log: it ends at offset %d, %d was expected", s.appended.Load(), to)
	}
	return nil
}

// take applies one frame and appends its rows.
func (s *Stream) take(p pending) error {
	if err := s.apply(p); err != nil {
		return err
	}
	if len(p.batch.Rejects) > 0 || p.conf {
		s.noteReject(p.first)
		s.m.metrics.rejected(s.cfg.Name, len(p.batch.Rejects), p.conf, p.count)
	}
	if !s.pending() && s.firstAt.IsZero() {
		s.firstAt = s.m.o.Now()
	}
	if !p.conf {
		s.builder.Append(p.batch)
	}
	s.appended.Store(uint64(p.first) + uint64(p.count))
	return nil
}

func (s *Stream) noteReject(first record.Offset) {
	if len(s.rejects) >= rejectsMax {
		s.rejectsAll = true
		return
	}
	s.rejects = append(s.rejects, first)
}

// encode turns what the builder holds into a tail entry.
func (s *Stream) encode(d *columnar.Decoder) error {
	if !s.pending() {
		return nil
	}
	to := record.Offset(s.appended.Load())
	e, err := s.writeEntry(s.builder, s.building, to, 0)
	if err != nil {
		return err
	}
	s.tail.push(e)
	s.building = to
	s.encodedAt = s.m.o.Now()
	if err := s.mergeSmall(d); err != nil {
		return err
	}
	s.joinLarge()
	return nil
}

// joinLarge puts the files of the last entries together, once joinFanIn large
// ones stand in a row. It only saves work: if it fails, the entries stay.
func (s *Stream) joinLarge() {
	all := s.tail.span(max(s.Through(), s.flushEnd), s.building)
	from := len(all)
	for from > 0 && len(all)-from < joinFanIn && !all[from-1].joined && all[from-1].rows >= mergeRowsMax {
		from--
	}
	old := all[from:]
	if len(old) < joinFanIn {
		return
	}
	e := &entry{first: old[0].first, next: old[len(old)-1].next, joined: true}
	byPartition := map[catalog.Partition][]TailFile{}
	var order []catalog.Partition
	for _, o := range old {
		e.rows += o.rows
		for _, f := range o.files {
			if byPartition[f.Partition] == nil {
				order = append(order, f.Partition)
			}
			byPartition[f.Partition] = append(byPartition[f.Partition], f)
		}
	}
	for i, p := range order {
		f := TailFile{Path: s.tailName(e, "j", i), Partition: p}
		var err error
		if f.Meta, err = concatFiles(s.m.o.FS, f.Path, byPartition[p]); err != nil {
			s.m.o.Logger.Warn("tail files were not joined", "stream", s.cfg.Name, "err", err)
			s.tail.remove([]*entry{e})
			return
		}
		e.files = append(e.files, f)
		e.sizeBytes += f.Meta.SizeBytes
	}
	s.tail.replace(old, e)
}

// tailName names file i of an entry that was made in the given way.
func (s *Stream) tailName(e *entry, made string, i int) string {
	return filepath.Join(s.m.tailDir(), fmt.Sprintf("%s-%d-%d-%d-%s-%d.parquet", s.key.Incarnation, s.key.Shard, e.first, e.next, made, i))
}

// writeEntry flushes a builder into the files of an entry. They are not
// fsynced: the log has what they hold.
func (s *Stream) writeEntry(b *columnar.Builder, first, next record.Offset, tier int) (*entry, error) {
	e := &entry{first: first, next: next, tier: tier}
	if b.Rows() == 0 {
		return e, nil
	}
	parts, err := b.Flush()
	if err != nil {
		return nil, fmt.Errorf("encode row groups: %w", err)
	}
	for i, p := range parts {
		name := s.tailName(e, fmt.Sprint("t", tier), i)
		if err := s.m.writeTail(name, p.Data); err != nil {
			_ = s.m.o.FS.Remove(name)
			s.tail.remove([]*entry{e})
			return nil, fmt.Errorf("%w: %w", errTailWrite, err)
		}
		e.files = append(e.files, TailFile{Path: name, Partition: catalog.Partition{Value: p.Partition, Has: p.HasPartition}, Meta: p.Meta})
		e.rows += p.Meta.Rows
		e.sizeBytes += int64(len(p.Data))
	}
	return e, nil
}

// mergeSmall merges the last entries, by encoding their stretch of the log
// again, when ten small neighbours of one tier stand together, or fewer that
// are large enough together to be left alone ever after. So the pump never
// merges many rows at once, and a flush finds few small entries.
func (s *Stream) mergeSmall(d *columnar.Decoder) error {
	for {
		all := s.tail.span(max(s.Through(), s.flushEnd), s.building)
		from, rows := len(all), int64(0)
		for from > 0 && len(all)-from < mergeFanIn && rows < mergeRowsMax {
			e := all[from-1]
			if e.tier != all[len(all)-1].tier || e.rows >= mergeRowsMax {
				break
			}
			rows += e.rows
			from--
		}
		last := all[from:]
		if len(last) < 2 || len(last) < mergeFanIn && rows < mergeRowsMax {
			return nil
		}
		if err := s.merge(last, d); err != nil {
			if errors.Is(err, errTailWrite) { // later, then
				return nil
			}
			return err
		}
	}
}

// merge replaces neighbouring entries by one.
func (s *Stream) merge(old []*entry, d *columnar.Decoder) error {
	first, next := old[0].first, old[len(old)-1].next
	b := s.merger
	if b == nil {
		b = s.layout.NewBuilder()
	}
	s.merger = nil // unless it comes out empty
	err := s.m.o.Log.Read(context.Background(), s.key, first, func(f wal.Frame) error {
		if f.First >= next {
			return errStop
		}
		if f.Kind&kindConflict != 0 {
			return nil
		}
		batch, err := s.decode(d, f)
		if err != nil {
			return err
		}
		b.Append(batch)
		batch.Release()
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return fmt.Errorf("merge tail entries: %w", err)
	}
	e, err := s.writeEntry(b, first, next, old[0].tier+1)
	if err != nil {
		return err
	}
	s.merger = b
	s.tail.replace(old, e)
	return nil
}

// serve answers a request, or keeps it until it can be answered.
func (s *Stream) serve(r request, d *columnar.Decoder) {
	if err := s.failure(); err != nil {
		r.reply <- reply{err: err}
		return
	}
	switch r.kind {
	case askRelease:
		s.frozen = false
		r.reply <- reply{at: s.Through()}
		return
	case askVisible, askFlush, askFreeze:
		err := s.absorb(d, s.m.o.Log.Synced(s.key))
		if err == nil {
			err = s.encode(d)
		}
		if err != nil {
			s.handle(err)
			r.reply <- reply{err: err}
			return
		}
	}
	at := record.Offset(s.appended.Load())
	switch {
	case r.kind == askVisible:
		r.reply <- reply{at: at}
	case s.frozen && r.kind == askFreeze:
		r.reply <- reply{err: errors.New("the stream is frozen by another seal")}
	case s.frozen && at > s.Through():
		r.reply <- reply{err: errors.New("the stream is frozen by a seal; try again when it has ended")}
	default:
		s.waiters = append(s.waiters, waiter{at, r.reply})
		if r.kind == askFreeze {
			s.frozen, s.flushEnd = true, at
		}
	}
}

// answerReady answers the waiters whose offset the table contains.
func (s *Stream) answerReady() {
	kept := s.waiters[:0]
	for _, w := range s.waiters {
		if s.Through() >= w.at {
			w.reply <- reply{at: s.Through()}
		} else {
			kept = append(kept, w)
		}
	}
	s.waiters = kept
}

// answerAll tells every waiter that the stream has stopped.
func (s *Stream) answerAll() {
	for _, w := range s.waiters {
		w.reply <- reply{err: s.failure()}
	}
	s.waiters = nil
}

// due returns the flush that is to begin now, or nil.
func (s *Stream) due() *plan {
	now := s.m.o.Now()
	if s.flushing || now.Before(s.retryAt) {
		return nil
	}
	if s.retry != nil {
		return s.retry
	}
	through, end := s.Through(), s.building
	wanted := false
	for _, w := range s.waiters {
		wanted = wanted || w.at > through
	}
	if s.frozen { // exactly to the cut, and no further
		end = s.flushEnd
	}
	if end <= through {
		return nil
	}
	if !wanted {
		_, _, size, _ := s.tail.stats()
		hints := s.current.Load()
		old := !s.firstAt.IsZero() && now.Sub(s.firstAt) >= hints.Interval
		// One commit a second is what a table takes with ease; more would only
		// make the files smaller.
		if now.Sub(s.lastFlush) < time.Second || !old && size < hints.SizeBytes {
			return nil
		}
	}
	return &plan{From: through, To: end, At: now.UTC()}
}
