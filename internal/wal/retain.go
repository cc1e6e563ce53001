package wal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tapehouse/tapehouse/internal/record"
)

// TrimAheadError means a trim point above what the log holds: a table claims to
// contain records that the log never made durable, so one of the two is not the other's.
type TrimAheadError struct {
	Key    record.Key
	Trim   record.Offset
	Synced record.Offset
}

func (e *TrimAheadError) Error() string {
	return fmt.Sprintf("trim of %s to %d, but the log ends at %d; was the log's directory replaced by an older copy?",
		e.Key, e.Trim, e.Synced)
}

// Trim says that for each key everything below the offset is in a table.
// Segments that are trimmed as a whole leave the log, oldest first, when the
// retention allows. Trim points only rise; unknown keys are ignored. They are
// not stored: after Open they must be given again before anything goes.
//
// A point above Synced is a *TrimAheadError, and then nothing is changed. An
// error of the file system says that a segment could not go; that is tried again.
func (l *Log) Trim(ctx context.Context, points map[record.Key]record.Offset) error {
	states := make(map[*keyState]record.Offset, len(points))
	l.mu.Lock()
	for k, o := range points {
		if st := l.keys[k]; st != nil && !st.forgotten {
			states[st] = o
		}
	}
	l.mu.Unlock()
	l.ix.Lock()
	for st, o := range states {
		if o > st.synced {
			err := &TrimAheadError{st.key, o, st.synced}
			l.ix.Unlock()
			return err
		}
	}
	for st, o := range states {
		st.trim = max(st.trim, o)
	}
	l.ix.Unlock()

	l.maintain.Lock()
	defer l.maintain.Unlock()
	if l.ended {
		return ErrClosed
	}
	kick(l.keeperKick)
	return l.letGo(ctx)
}

// keep is the keeper goroutine: it looks after retention and stalled keys
// whenever a segment was begun, a trim point rose, or time has passed.
func (l *Log) keep() {
	defer l.background.Done()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-l.keeperKick:
		case <-tick.C:
		}
		l.maintain.Lock()
		err := l.letGo(ctx)
		if err == nil {
			err = l.moveStalled(ctx)
		}
		l.maintain.Unlock()
		if err != nil && !errors.Is(err, ErrClosed) && !errors.Is(err, ErrPoisoned) && !errors.Is(err, ErrFull) {
			l.opt.Logger.Error("log cannot let segments go", "error", err)
		}
	}
}

// letGo lets the oldest segments leave the log as long as they may.
// REQUIRES: maintain.
func (l *Log) letGo(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(l.retired) == 0 && !l.retireOldest() {
			return nil
		}
		// One after the other, each durably: only a prefix of the numbers may be
		// missing after a crash.
		if err := l.recycle(l.retired[0]); err != nil {
			return err
		}
		l.retired = slices.Delete(l.retired, 0, 1)
		l.met.recycled.Inc()
	}
}

// retireOldest takes the oldest segment out of the index, if it may go.
func (l *Log) retireOldest() bool {
	l.ix.Lock()
	defer l.ix.Unlock()
	seg := l.segments[0]
	if len(l.segments) == 1 || seg.refs > 0 || !seg.trimmed() {
		return false
	}
	// A clock that jumped back makes the age negative: then the bytes decide.
	age := time.Duration(l.opt.Now().UnixMicro()-seg.arrivedAt) * time.Microsecond
	if age <= l.opt.Retention && l.opt.Retention > 0 && l.segmentBytes() <= l.opt.RetentionBytes {
		return false
	}
	seg.leaveIndex()
	l.segments = slices.Delete(l.segments, 0, 1)
	l.retired = append(l.retired, seg)
	return true
}

// segmentBytes REQUIRES: ix.
func (l *Log) segmentBytes() int64 {
	var sum int64
	for _, seg := range l.segments {
		sum += seg.size
	}
	return sum
}

// recycle makes a spare of a segment that left the index, or removes it. It can
// be called again after an error.
func (l *Log) recycle(seg *segment) error {
	if seg.spareName == "" {
		name := l.spareName(sparePrefix)
		if err := l.fs.Rename(seg.name, name); err != nil {
			return fmt.Errorf("recycle segment %s: %w", seg.name, err)
		}
		seg.spareName = name
	}
	// Before the file is used again its old name must be gone for good.
	if err := l.fs.SyncDir(l.dir); err != nil {
		return fmt.Errorf("recycle segment %s: %w", seg.name, err)
	}
	l.spareMu.Lock()
	full := len(l.spares) >= sparesMax
	l.spareMu.Unlock()
	if !full && seg.size == l.opt.SegmentBytes {
		l.offerSpare(&spare{seg.spareName, seg.file}, nil)
		return nil
	}
	if err := seg.file.Close(); err != nil {
		l.opt.Logger.Warn("close recycled segment", "name", seg.spareName, "error", err)
	}
	if err := l.fs.Remove(seg.spareName); err != nil {
		// Only room is lost, until the next Open removes it.
		l.opt.Logger.Warn("remove recycled segment", "name", seg.spareName, "error", err)
	}
	return nil
}

// moveBytes bounds the frames that are moved by one group, so that those who
// wait for the same group hardly notice.
const moveBytes = 1 << 20

// moveStalled rewrites what is still needed of the oldest segments, if that
// frees room. See docs/protocols/log.md. REQUIRES: maintain.
func (l *Log) moveStalled(ctx context.Context) error {
	l.ix.RLock()
	rounds := len(l.segments) // each segment is looked at once
	l.ix.RUnlock()
	for range rounds {
		seg := l.stalled()
		if seg == nil {
			return nil
		}
		err := l.moveFrames(ctx, seg)
		l.ix.Lock()
		seg.refs--
		l.ix.Unlock()
		if err != nil {
			return err
		}
		if err := l.letGo(ctx); err != nil {
			return err
		}
	}
	return nil
}

// stalled returns the oldest segment, held by a reference, if it is to be emptied.
func (l *Log) stalled() *segment {
	l.ix.Lock()
	defer l.ix.Unlock()
	seg := l.segments[0]
	if len(l.segments)-1 < l.opt.StallSegments || l.segmentBytes() <= l.opt.RetentionBytes || seg.trimmed() {
		return nil
	}
	// Padding is on neither side: moving may not save any. So the sum of what is
	// not needed falls with each segment that goes, and moving comes to an end.
	var all, needed int64
	for _, s := range l.segments {
		all += s.bytes
		needed += s.neededBytes()
	}
	if all-needed < needed {
		return nil // moving would mostly move; the log really is that large
	}
	seg.refs++
	return seg
}

// moveFrames appends the needed frames of a segment again and waits until they
// are on disk, which takes them out of it.
func (l *Log) moveFrames(ctx context.Context, seg *segment) error {
	wanted := map[record.Key]*keyState{}
	l.ix.RLock()
	for _, e := range seg.extents {
		if e.needed() {
			wanted[e.key.key] = e.key
		}
	}
	sc := newScanner(seg, seg.start, seg.end)
	l.ix.RUnlock()
	defer sc.close()

	var frames []pending
	var size int64
	for {
		ok, err := sc.step()
		if err != nil {
			return err
		}
		if size >= moveBytes || (!ok && len(frames) > 0) {
			if err := l.appendMoved(ctx, frames); err != nil {
				return err
			}
			frames, size = frames[:0], 0
		}
		if !ok {
			return nil
		}
		st := wanted[sc.head.key]
		if st == nil || !l.countsIn(seg, st, &sc.head) {
			continue
		}
		payload, err := sc.payload()
		if err != nil {
			return err
		}
		p := pending{st: st, payload: slices.Clone(payload), head: sc.head}
		p.head.flags |= flagMoved
		frames = append(frames, p)
		size += frameBytes(len(payload))
	}
}

// countsIn reports whether a frame of the segment is needed, and this copy of it is the one that counts.
func (l *Log) countsIn(seg *segment, st *keyState, h *frameHeader) bool {
	l.ix.RLock()
	defer l.ix.RUnlock()
	e := st.extentOf(h.first)
	return e != nil && e.seg == seg && h.end() > st.trim
}

// appendMoved queues copies of frames and waits for them.
func (l *Log) appendMoved(ctx context.Context, frames []pending) error {
	var tickets []Ticket
	l.mu.Lock()
	for _, p := range frames {
		if p.st.forgotten {
			continue
		}
		n := frameBytes(len(p.payload))
		if err := l.admit(n); err != nil {
			l.mu.Unlock()
			return errors.Join(err, waitAll(ctx, tickets))
		}
		b := l.push(p)
		if len(tickets) == 0 || tickets[len(tickets)-1].b != b {
			tickets = append(tickets, Ticket{b, p.head.first})
		}
		l.met.movedBytes.Add(float64(n))
	}
	l.mu.Unlock()
	return waitAll(ctx, tickets)
}

func waitAll(ctx context.Context, tickets []Ticket) error {
	for _, t := range tickets {
		if err := t.Wait(ctx); err != nil {
			return fmt.Errorf("move frames: %w", err)
		}
	}
	return nil
}
