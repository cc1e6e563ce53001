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
	joinFanIn = 10
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
	renewedAt    time.Time // when the table's schema was looked at
	faults       faults    // taken since building
}

// errFrozen: a second freeze, or a flush beyond the cut of one.
var errFrozen = errors.New("the stream is frozen by a seal; try again when it has ended")

// renewInterval is how often a lane looks whether its table's schema was changed.
const renewInterval = time.Second

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
func (l *tableLane) recoverLedger(ctx context.Context) error {
	if err := l.m.pass(l.key, l.span.from); err != nil {
		return err
	}
	applied := l.m.o.Ledger.Applied()[l.key]
	from := max(l.m.o.Log.Oldest(l.key), l.span.from)
	if need := max(min(applied, l.Through()), l.span.from); from > need && l.m.o.Log.Synced(l.key) > need {
		return fmt.Errorf("%w: stream %s: records from offset %d on are needed, the log begins at %d", ErrLogBehind, l.s.name, need, from)
	}
	d := l.newDecoders()
	started := l.m.o.Now()
	var records int64
	err := l.m.read(ctx, l.key, from, func(f frame) error {
		if !l.span.has(f.First) {
			return errStop
		}
		records += int64(f.Count)
		e := f.effect(l.key)
		if err := l.eachBatch(d, f, func(b *columnar.Batch, conflict bool) error {
			if l.sequence && !conflict {
				if err := l.m.o.Ledger.Learn(runsOf(b), b.Hash); err != nil && !errors.Is(err, ledger.ErrBusy) {
					return err
				}
			}
			l.addEffect(&e, b, conflict)
			return nil
		}); err != nil {
			return err
		}
		return l.m.o.Ledger.Apply(e)
	})
	if err != nil && !errors.Is(err, errStop) {
		return fmt.Errorf("stream %s: recover from the log: %w", l.s.name, err)
	}
	if records > 0 {
		l.m.o.Logger.Info("stream recovered", "stream", l.s.name, "records_read", records, "through", l.Through(), "end", l.m.o.Log.Next(l.key), "took", l.m.o.Now().Sub(started))
	}
	return nil
}

// eachBatch decodes what a frame of the log has for the lane's table and calls
// fn with it; the batch is released afterwards.
func (l *tableLane) eachBatch(d *decoders, f frame, fn func(b *columnar.Batch, conflict bool) error) error {
	if f.Kind == payloadGap {
		return nil
	}
	if f.Kind != payloadStaged {
		decoder, err := d.of(f.Payload)
		if err != nil {
			return fmt.Errorf("frame at offset %d: %w", f.First, err)
		}
		b, err := decoder.DecodePayload(f.Kind&^kindConflict, f.Payload, int(f.Count), f.ArrivedAt)
		if err != nil {
			return fmt.Errorf("frame at offset %d: %w", f.First, err)
		}
		defer b.Release()
		b.SetOrigin(l.key, f.First)
		return fn(b, f.Kind&kindConflict != 0)
	}
	st, err := readStaged(f.Payload, int(f.Count))
	if err != nil {
		return fmt.Errorf("frame at offset %d: %w", f.First, err)
	}
	for i := range st.Sections {
		if c := &st.Sections[i]; c.Table == l.table {
			if err := l.section(d, f, c, fn); err != nil {
				return fmt.Errorf("frame at offset %d: %w", f.First, err)
			}
		}
	}
	return nil
}

func (l *tableLane) decodeSection(d *decoders, f frame, c *stagedSection) (*columnar.Batch, error) {
	decoder, err := d.of(c.Payload)
	if err != nil {
		return nil, err
	}
	return decoder.DecodePayload(c.Kind, c.Payload, len(c.Places), f.ArrivedAt)
}

func (l *tableLane) section(d *decoders, f frame, c *stagedSection, fn func(b *columnar.Batch, conflict bool) error) error {
	b, err := l.decodeSection(d, f, c)
	if err != nil {
		return err
	}
	defer b.Release()
	b.SetPlaces(l.s.key, f.First, c.Places)
	return fn(b, c.Conflict)
}

// addEffect adds what a batch of the lane's table does to the ledger's account.
// REQUIRES: the batch has its origin.
func (l *tableLane) addEffect(e *ledger.Effect, b *columnar.Batch, conflict bool) {
	switch {
	case l.sequence && !conflict:
		e.Runs = append(e.Runs, runsOf(b)...)
	case l.sequence:
		for r := range b.Runs {
			for k := range r.N {
				e.Conflicts = append(e.Conflicts, ledger.ConflictOf{
					Feed:     ledger.Feed{Source: r.Source, Session: r.Session, Epoch: r.Epoch},
					Conflict: ledger.Conflict{Sequence: r.Sequence + int64(k), Offset: b.Offset(r.Row + k), Reason: "same sequence number, other content"},
				})
			}
		}
	}
	for i := range b.Rejects {
		r := &b.Rejects[i]
		e.Rejects = append(e.Rejects, ledger.Reject{
			Feed:        ledger.Feed{Source: r.Source, Session: r.Session, Epoch: r.Epoch},
			HasSequence: r.HasSequence, Sequence: r.Sequence, Code: r.Code, Message: r.Message,
			Offset: e.First + record.Offset(r.Doc),
		})
	}
}

func (l *tableLane) start() {
	l.building = l.taken()
	if l.building > l.Through() { // what it passes over is committed with the first flush, which does not wait for a record
		l.firstAt = l.m.o.Now()
	}
	l.done.Go(l.pump)
}

// close stops the pump; what is not delivered stays in the log.
func (l *tableLane) close() {
	l.stopOnce.Do(func() { close(l.stop) })
	l.done.Wait()
	l.tail.reset(l.Through())
}

// ask sends a request to the lane's pump and waits for its answer.
func (l *tableLane) ask(ctx context.Context, kind requestKind) (record.Offset, error) {
	return ask(ctx, l.requests, l.stop, kind)
}

// ask sends a request to a pump and waits for its answer.
func ask(ctx context.Context, requests chan<- request, stop <-chan struct{}, kind requestKind) (record.Offset, error) {
	r := request{kind, make(chan reply, 1)}
	select {
	case requests <- r:
	case <-stop:
		return 0, ErrClosed
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	select {
	case a := <-r.reply:
		return a.at, a.err
	case <-stop:
		return 0, ErrClosed
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// answer gives the waiters their reply for whom fn has one, and keeps the rest.
func answer(waiters *[]waiter, fn func(waiter) (reply, bool)) {
	kept := (*waiters)[:0]
	for _, w := range *waiters {
		if r, ok := fn(w); ok {
			w.reply <- r
		} else {
			kept = append(kept, w)
		}
	}
	*waiters = kept
}

// Flush delivers everything that is synced now.
func (l *tableLane) Flush(ctx context.Context) error {
	_, err := l.ask(ctx, askFlush)
	return err
}

func (l *tableLane) freeze(ctx context.Context) (record.Offset, error) { return l.ask(ctx, askFreeze) }

func (l *tableLane) release() {
	_, _ = l.ask(context.Background(), askRelease)
}

// pump is the stream's one consumer of its log.
func (l *tableLane) pump() {
	tick := time.NewTicker(l.m.o.TailInterval)
	defer tick.Stop()
	var flush sync.WaitGroup // the one flush under way
	defer flush.Wait()
	d := l.newDecoders()
	if err := l.await(); err != nil {
		l.fail(err)
	}
	if err := l.executePlan(d); err != nil {
		l.fail(err)
	}
	for {
		select {
		case <-l.stop:
			return
		case <-l.wake:
		case <-tick.C:
		case r := <-l.requests:
			l.serve(r, d)
		case res := <-l.flushed:
			l.finishFlush(res)
		}
		if err := l.failure(); err != nil {
			answer(&l.waiters, func(waiter) (reply, bool) { return reply{err: err}, true })
			continue
		}
		if now := l.m.o.Now(); now.Sub(l.renewedAt) >= renewInterval {
			l.renewedAt = now
			if err := l.renew(context.Background()); err != nil { // the next time, then
				l.m.o.Logger.Warn("schema", "stream", l.s.name, "err", err)
			}
		}
		err := l.step(d)
		if err == nil {
			if p := l.due(); p != nil {
				err = l.beginFlush(p, d, &flush)
			}
		}
		l.handle(err)
		answer(&l.waiters, func(w waiter) (reply, bool) { return reply{at: l.Through()}, l.Through() >= w.at })
	}
}

// errTailWrite: a tail file could not be written, because the disk is full for
// example. The log has the records, so the stream waits and tries again.
var errTailWrite = errors.New("write tail file")

// handle stops the stream on an error, unless waiting can mend it.
func (l *tableLane) handle(err error) {
	switch {
	case err == nil:
	case errors.Is(err, errTailWrite):
		l.stall(err)
	default:
		l.fail(err)
	}
}

// stall forgets the rows that no entry holds: they are read from the log again
// after a wait.
func (l *tableLane) stall(err error) {
	l.m.o.Logger.Error("tail cannot be written, will be tried again", "stream", l.s.name, "wait", l.m.o.RetryWait, "err", err)
	l.m.metrics.failedFlush(l.s.name)
	l.builder = l.builder.Layout().NewBuilder()
	l.faults = faults{}
	l.stretch.reset()
	l.appended.Store(uint64(l.building))
	l.stalledUntil = l.m.o.Now().Add(l.m.o.RetryWait)
}

// step takes what is durable and encodes it when it is time.
func (l *tableLane) step(d *decoders) error {
	if l.m.o.Now().Before(l.stalledUntil) {
		return nil
	}
	if err := l.absorb(d, l.limit()); err != nil {
		return err
	}
	now := l.m.o.Now()
	if l.full() || l.pending() && now.Sub(l.encodedAt) >= l.m.o.TailInterval {
		return l.encode(d)
	}
	return nil
}

// pending reports whether records were taken that no entry holds yet.
func (l *tableLane) pending() bool { return record.Offset(l.appended.Load()) > l.building }

// absorb takes frames up to limit, from the queue or, where the queue lacks
// them, from the log.
func (l *tableLane) absorb(d *decoders, limit record.Offset) error {
	for {
		at := record.Offset(l.appended.Load())
		if at >= limit {
			return nil
		}
		l.mu.Lock()
		// Frames that were read from the log meanwhile are passed over.
		for len(l.queue) > 0 && l.queue[0].first < at {
			l.popLocked().batch.Release()
		}
		if len(l.queue) > 0 && l.queue[0].first == at {
			p := l.popLocked()
			l.mu.Unlock()
			if p.ticket.Wait(context.Background()) != nil { // settled: at is below synced
				p.batch.Release()
				continue
			}
			err := l.take(p)
			p.batch.Release()
			if err == nil && l.faults.bytes >= l.m.o.ErrorObjectBytes {
				err = l.encode(d)
			}
			if err != nil {
				return err
			}
			continue
		}
		to := limit
		if len(l.queue) > 0 {
			to = min(to, l.queue[0].first)
		}
		l.mu.Unlock()
		if err := l.readLog(d, at, to); err != nil {
			return err
		}
	}
}

// popLocked removes the queue's head. REQUIRES: l.mu.
func (l *tableLane) popLocked() pending {
	p := l.queue[0]
	l.queue[0] = pending{}
	l.queue = l.queue[1:]
	l.queuedRows, l.queuedBytes = l.queuedRows-p.count, l.queuedBytes-p.bytes
	return p
}

var errStop = errors.New("stop reading")

// readLog takes the frames of [from, to) from the log.
func (l *tableLane) readLog(d *decoders, from, to record.Offset) error {
	err := l.m.read(context.Background(), l.key, from, func(f frame) error {
		if f.First >= to {
			return errStop
		}
		if err := l.takeFrame(d, f); err != nil {
			return err
		}
		if l.full() {
			return l.encode(d)
		}
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return fmt.Errorf("read the log: %w", err)
	}
	if record.Offset(l.appended.Load()) < to {
		return fmt.Errorf("read the log: it ends at offset %d, %d was expected", l.appended.Load(), to)
	}
	return nil
}

// take applies one frame from the queue and appends its rows.
func (l *tableLane) take(p pending) error {
	e := ledger.Effect{Key: l.key, First: p.first, Count: p.count, Replayed: effects(p.replays)}
	if err := l.takeBatch(&e, p.batch, p.conf); err != nil {
		return err
	}
	return l.taking(e)
}

// takeFrame does the same with a frame of the log.
func (l *tableLane) takeFrame(d *decoders, f frame) error {
	if l.keys != nil {
		return l.takeChanges(d, f)
	}
	e := f.effect(l.key)
	if err := l.eachBatch(d, f, func(b *columnar.Batch, conflict bool) error {
		return l.takeBatch(&e, b, conflict)
	}); err != nil {
		return err
	}
	return l.taking(e)
}

func (l *tableLane) takeBatch(e *ledger.Effect, b *columnar.Batch, conflict bool) error {
	if b.Layout() != l.builder.Layout() { // the schema was changed: an entry has one
		if !l.pending() && l.builder.Rows() > 0 {
			panic(fmt.Sprintf("delivery: a frame of %s for %s has two schemas", l.s.name, l.table))
		}
		if err := l.encode(nil); err != nil {
			return err
		}
		l.builder = b.Layout().NewBuilder()
	}
	l.addEffect(e, b, conflict)
	if len(b.Rejects) > 0 || conflict {
		l.faults.add(faultsOf(b, conflict))
		l.m.metrics.rejected(l.s.name, len(b.Rejects), conflict, b.Docs())
	}
	if !conflict {
		l.builder.Append(b)
	}
	return nil
}

// taking ends the taking of a frame. Of a staged stream the stage applies the
// effects, once for all tables.
func (l *tableLane) taking(e ledger.Effect) error {
	if l.direct() {
		if err := l.m.o.Ledger.Apply(e); err != nil {
			return err
		}
	}
	if !l.pending() && l.firstAt.IsZero() {
		l.firstAt = l.m.o.Now()
	}
	l.appended.Store(uint64(e.First) + uint64(e.Count))
	return nil
}

// encode turns what the builder holds into a tail entry. d, if not nil, serves
// to merge it with its neighbours.
func (l *tableLane) encode(d *decoders) error {
	if !l.pending() {
		return nil
	}
	to := record.Offset(l.appended.Load())
	var e *entry
	var err error
	if l.keys != nil {
		e, err = l.encodeChanges(to)
	} else {
		e, err = l.writeEntry(l.builder, l.building, to, 0)
	}
	if err != nil {
		return err
	}
	e.faults, l.faults = l.faults, faults{}
	l.tail.push(e)
	l.building = to
	l.encodedAt = l.m.o.Now()
	if d == nil { // in the midst of a frame
		return nil
	}
	if err := l.mergeSmall(d); err != nil {
		return err
	}
	if l.keys == nil {
		l.joinLarge()
	}
	return nil
}

// joinLarge puts the files of the last entries together, once joinFanIn large
// ones stand in a row. It only saves work: if it fails, the entries stay. One
// that is large for its faults has as much to be read again.
func (l *tableLane) joinLarge() {
	all := l.tail.span(max(l.Through(), l.flushEnd), l.building)
	from := len(all)
	for from > 0 && len(all)-from < joinFanIn && !all[from-1].joined && all[from-1].work() >= mergeRowsMax && all[from-1].layout == all[len(all)-1].layout {
		from--
	}
	old := all[from:]
	if len(old) < joinFanIn {
		return
	}
	e := &entry{first: old[0].first, next: old[len(old)-1].next, joined: true, layout: old[0].layout}
	if l.tail.faults(e.first, e.next).bytes > flushErrorObjects*l.m.o.ErrorObjectBytes { // as in mergeSmall
		return
	}
	byPartition := map[catalog.Partition][]TailFile{}
	var order []catalog.Partition
	for _, o := range old {
		e.rows += o.rows
		e.faults.add(o.faults)
		for _, f := range o.files {
			if byPartition[f.Partition] == nil {
				order = append(order, f.Partition)
			}
			byPartition[f.Partition] = append(byPartition[f.Partition], f)
		}
	}
	for i, p := range order {
		f := TailFile{Path: l.tailName(e, "j", i), Partition: p}
		var err error
		if f.Meta, err = concatFiles(l.m.o.FS, f.Path, byPartition[p]); err != nil {
			l.m.o.Logger.Warn("tail files were not joined", "stream", l.s.name, "err", err)
			l.tail.remove([]*entry{e})
			return
		}
		e.files = append(e.files, f)
		e.sizeBytes += f.Meta.SizeBytes
	}
	l.tail.replace(old, e)
}

// tailName names file i of an entry that was made in the given way.
func (l *tableLane) tailName(e *entry, made string, i int) string {
	return filepath.Join(l.m.tailDir(), fmt.Sprintf("%s-%d-%d-%d-%d-%s-%d.parquet", l.key.Incarnation, l.key.Shard, l.ordinal, e.first, e.next, made, i))
}

// writeEntry flushes a builder into the files of an entry. They are not
// fsynced: the log has what they hold.
func (l *tableLane) writeEntry(b *columnar.Builder, first, next record.Offset, tier int) (*entry, error) {
	e := &entry{first: first, next: next, tier: tier, layout: b.Layout()}
	if b.Rows() == 0 {
		return e, nil
	}
	parts, err := b.Flush()
	if err != nil {
		return nil, fmt.Errorf("encode row groups: %w", err)
	}
	for i, p := range parts {
		name := l.tailName(e, fmt.Sprint("t", tier), i)
		if err := l.m.writeTail(name, p.Data); err != nil {
			_ = l.m.o.FS.Remove(name)
			l.tail.remove([]*entry{e})
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
func (l *tableLane) mergeSmall(d *decoders) error {
	for {
		all := l.tail.span(max(l.Through(), l.flushEnd), l.building)
		from, work, size, full := len(all), int64(0), int64(0), false
		for from > 0 && len(all)-from < mergeFanIn && work < mergeRowsMax {
			e := all[from-1]
			// A flush cuts between entries, also where there is much to be rejected.
			if size += e.faults.bytes; size > l.m.o.ErrorObjectBytes {
				full = true
				break
			}
			if e.tier != all[len(all)-1].tier || e.work() >= mergeRowsMax || e.layout != all[len(all)-1].layout {
				break
			}
			work += e.work()
			from--
		}
		last := all[from:]
		if len(last) < 2 || len(last) < mergeFanIn && work < mergeRowsMax && !full {
			return nil
		}
		if err := l.merge(last, d); err != nil {
			if errors.Is(err, errTailWrite) { // later, then
				return nil
			}
			return err
		}
	}
}

// merge replaces neighbouring entries by one.
func (l *tableLane) merge(old []*entry, d *decoders) error {
	first, next := old[0].first, old[len(old)-1].next
	var rows int64
	var faulty faults
	for _, e := range old {
		rows += e.rows
		faulty.add(e.faults)
	}
	if rows == 0 { // nothing to read for
		l.tail.replace(old, &entry{first: first, next: next, tier: old[0].tier + 1, layout: old[0].layout, faults: faulty})
		return nil
	}
	b := l.merger
	if b == nil || b.Layout() != old[0].layout {
		b = old[0].layout.NewBuilder()
	}
	l.merger = nil // unless it comes out empty
	if l.keys != nil {
		e, err := l.foldAgain(b, old, d)
		if err != nil {
			return err
		}
		l.merger = b
		e.faults = faulty
		l.tail.replace(old, e)
		return nil
	}
	err := l.m.read(context.Background(), l.key, first, func(f frame) error {
		if f.First >= next {
			return errStop
		}
		if f.Kind&kindConflict != 0 {
			return nil
		}
		return l.eachBatch(d, f, func(batch *columnar.Batch, conflict bool) error {
			if !conflict {
				b.Append(batch)
			}
			return nil
		})
	})
	if err != nil && !errors.Is(err, errStop) {
		return fmt.Errorf("merge tail entries: %w", err)
	}
	e, err := l.writeEntry(b, first, next, old[0].tier+1)
	if err != nil {
		return err
	}
	l.merger = b
	e.faults = faulty
	l.tail.replace(old, e)
	return nil
}

// serve answers a request, or keeps it until it can be answered.
func (l *tableLane) serve(r request, d *decoders) {
	if err := l.failure(); err != nil {
		r.reply <- reply{err: err}
		return
	}
	switch r.kind {
	case askRelease:
		l.frozen = false
		r.reply <- reply{at: l.Through()}
		return
	case askVisible, askFlush, askFreeze:
		err := l.absorb(d, l.limit())
		if err == nil {
			err = l.encode(d)
		}
		if err != nil {
			l.handle(err)
			r.reply <- reply{err: err}
			return
		}
	}
	at := record.Offset(l.appended.Load())
	switch {
	case r.kind == askVisible:
		r.reply <- reply{at: at}
	case l.frozen && r.kind == askFreeze:
		r.reply <- reply{err: errFrozen}
	case l.frozen && at > l.Through():
		r.reply <- reply{err: errFrozen}
	default:
		l.waiters = append(l.waiters, waiter{at, r.reply})
		if r.kind == askFreeze {
			l.frozen, l.flushEnd = true, at
		}
	}
}

// due returns the flush that is to begin now, or nil.
func (l *tableLane) due() *plan {
	now := l.m.o.Now()
	if l.flushing || now.Before(l.retryAt) || l.waits() {
		return nil
	}
	if l.retry != nil {
		return l.retry
	}
	through, end := l.Through(), l.building
	wanted := l.span.ends()
	for _, w := range l.waiters {
		wanted = wanted || w.at > through
	}
	if l.frozen { // exactly to the cut, and no further
		end = l.flushEnd
	}
	if end <= through {
		return nil
	}
	if !wanted {
		cfg := l.s.Config() // the hints may change while the stream runs
		entries, _, size, _ := l.tail.stats()
		size += l.tail.faults(through, end).bytes
		crowded := l.keys != nil && entries >= changeEntriesMax
		old := !l.firstAt.IsZero() && now.Sub(l.firstAt) >= cfg.Interval
		// One commit a second is what a table takes with ease; more would only
		// make the files smaller.
		spacing := time.Second
		if l.keys != nil {
			spacing = changesFlushSpacing
		}
		if now.Sub(l.lastFlush) < spacing || !old && !crowded && size < cfg.SizeBytes {
			return nil
		}
	}
	return &plan{From: through, To: l.tail.cut(through, end, flushErrorObjects*l.m.o.ErrorObjectBytes), At: now.UTC()}
}
