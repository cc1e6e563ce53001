package wal

import (
	"fmt"
	"time"
	"unsafe"
)

// writer is what belongs to the writer goroutine alone, but for frames.
type writer struct {
	frames     framePool
	stage      []byte        // the group as it goes to disk; aligned to blocks
	pos        int64         // where the next group goes in the current segment
	lastFrames int           // in the last group: as many producers may come back
	lastSync   time.Duration // of the last group: to wait longer than that does not pay
	marked     bool          // nothing was written since the last mark
	idleTimer  *time.Timer
}

// stageBytesKept bounds the staging buffer between groups: one group of the
// default size, or the largest frame.
const stageBytesKept = MaxPayloadBytes + 2*blockBytes

// framePool recycles the frame slices of settled batches.
type framePool struct {
	free [][]pending
}

const (
	framePoolMax      = 4
	frameSliceKeepMax = 1 << 15
)

// get REQUIRES: Log.mu.
func (p *framePool) get() []pending {
	if n := len(p.free); n > 0 {
		s := p.free[n-1]
		p.free = p.free[:n-1]
		return s
	}
	return make([]pending, 0, 64)
}

// put REQUIRES: Log.mu.
func (p *framePool) put(s []pending) {
	clear(s) // the payloads go back to their owners
	if len(p.free) < framePoolMax && cap(s) <= frameSliceKeepMax {
		p.free = append(p.free, s[:0])
	}
}

// run is the writer goroutine.
func (l *Log) run() {
	defer close(l.writerDone)
	for {
		b, idle := l.take()
		switch {
		case b != nil:
			l.settle(b, l.commit(b))
		case idle:
			l.markTail()
		default:
			l.markTail()
			return
		}
	}
}

// take waits for the next batch. It returns nil and true when the log was idle
// for a while, nil and false when the log closes and the queue is empty.
func (l *Log) take() (b *batch, idle bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) == 0 {
		if l.closing {
			return nil, false
		}
		l.wakeAt = 1
		if !l.await(l.opt.markAfter, !l.w.marked && l.opt.markAfter > 0) {
			l.wakeAt = 0
			if len(l.queue) == 0 && !l.closing {
				return nil, true
			}
		}
	}
	// The producers of the last group come back within microseconds of each
	// other, and a new fsync for the first of them would make the others wait
	// for it. One producer alone is never made to wait, and nobody for longer than
	// the fsync that he would otherwise have missed.
	if want := l.w.lastFrames; l.opt.Linger > 0 && want > 1 && l.waiting < want &&
		l.queueBytes < l.opt.GroupBytes && !l.closing && l.poison == nil {
		l.wakeAt = want
		l.await(min(l.opt.Linger, l.w.lastSync), true)
		l.wakeAt = 0
	}
	b = l.queue[0]
	l.queue[0] = nil
	l.queue = l.queue[1:]
	l.waiting -= len(b.frames)
	l.w.lastFrames = len(b.frames)
	return b, false
}

// await releases mu until the writer is woken, or, if timed, until d passed. It
// reports whether it was woken. REQUIRES: mu.
func (l *Log) await(d time.Duration, timed bool) bool {
	select {
	case <-l.wake: // for an earlier wait, which had timed out
	default:
	}
	l.mu.Unlock()
	defer l.mu.Lock()
	if !timed {
		<-l.wake
		return true
	}
	l.w.idleTimer.Reset(d)
	select {
	case <-l.wake:
		l.w.idleTimer.Stop()
		return true
	case <-l.w.idleTimer.C:
		return false
	}
}

// commit makes a batch durable.
func (l *Log) commit(b *batch) error {
	l.mu.Lock()
	err := l.poison
	l.mu.Unlock()
	if err != nil {
		return err
	}
	size := groupBytes(b.bytes)
	if l.w.pos+size > l.current().size-blockBytes { // the last block is for a mark
		if err := l.rotate(); err != nil {
			return err
		}
	}
	seg := l.current()
	buf := l.layOut(seg, b)
	start := time.Now()
	if err := l.writeSynced(seg, buf); err != nil {
		return l.poisoned(err)
	}
	l.w.lastSync = time.Since(start)
	l.met.fsyncSeconds.Observe(l.w.lastSync.Seconds())
	l.met.groupFrames.Observe(float64(len(b.frames)))
	l.met.appendedBytes.Add(float64(len(buf)))
	pos := l.w.pos
	l.w.pos += size
	l.w.marked = false

	l.ix.Lock()
	defer l.ix.Unlock()
	seg.end = l.w.pos
	for i := range b.frames {
		p := &b.frames[i]
		if p.head.flags&flagForget != 0 {
			p.st.leaveKey() // settle drops the key
			continue
		}
		if p.head.flags&flagMoved == 0 {
			p.st.written = p.head.end()
		}
		publish(seg, pos, p.st, &p.head)
		if p.head.flags&flagMoved != 0 {
			p.st.dropBelowHoles()
		}
	}
	return nil
}

// current is the segment written to; only the writer changes which one it is.
func (l *Log) current() *segment {
	l.ix.RLock()
	defer l.ix.RUnlock()
	return l.segments[len(l.segments)-1]
}

// layOut puts the batch into the staging buffer as a group. One copy and one
// WriteAt: payloads are small against a block, and the buffer is what could be written past the page cache.
func (l *Log) layOut(seg *segment, b *batch) []byte {
	buf := l.staging(groupBytes(b.bytes))
	putGroupHeader(buf, seg.sum, groupHeader{
		segment: seg.number, pos: l.w.pos, synced: l.w.pos, bytes: b.bytes, count: len(b.frames)})
	at := int64(groupHeaderBytes)
	for i := range b.frames {
		p := &b.frames[i]
		putFrameHeader(buf[at:], seg.sum, &p.head)
		n := copy(buf[at+frameHeaderBytes:], p.payload)
		end := at + frameBytes(n)
		clear(buf[at+frameHeaderBytes+int64(n) : end])
		at = end
	}
	clear(buf[at:])
	return buf
}

// staging returns n bytes that start at a multiple of the block size.
func (l *Log) staging(n int64) []byte {
	if int64(cap(l.w.stage)) < n || (cap(l.w.stage) > 2*stageBytesKept && n < stageBytesKept) {
		l.w.stage = alignedBuffer(max(n, min(l.opt.GroupBytes, 1<<20)))
	}
	return l.w.stage[:n]
}

func alignedBuffer(n int64) []byte {
	b := make([]byte, n+blockBytes)
	skip := -int64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (blockBytes - 1)
	return b[skip : skip+n : skip+n]
}

func (l *Log) writeSynced(seg *segment, buf []byte) error {
	if _, err := seg.file.WriteAt(buf, l.w.pos); err != nil {
		return fmt.Errorf("write segment %s: %w", seg.name, err)
	}
	if err := seg.file.Datasync(); err != nil {
		return fmt.Errorf("sync segment %s: %w", seg.name, err)
	}
	return nil
}

// markTail writes a group without frames, which vouches for the last one.
func (l *Log) markTail() {
	l.mu.Lock()
	poison := l.poison
	l.mu.Unlock()
	seg := l.current()
	if l.w.marked || poison != nil || l.w.pos+blockBytes > seg.size {
		l.w.marked = true // the last block may be taken in segments of other sizes only
		return
	}
	buf := l.staging(blockBytes)
	clear(buf)
	putGroupHeader(buf, seg.sum, groupHeader{segment: seg.number, pos: l.w.pos, synced: l.w.pos})
	if err := l.writeSynced(seg, buf); err != nil {
		l.fail(nil, l.poisoned(err))
		return
	}
	l.w.pos += blockBytes
	l.w.marked = true
	l.ix.Lock()
	seg.end = l.w.pos
	l.ix.Unlock()
}

// poisoned makes the log refuse everything from now on.
func (l *Log) poisoned(cause error) error {
	err := fmt.Errorf("%w: %w", ErrPoisoned, cause)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.poison == nil {
		l.poison, l.refusal = err, err
		l.opt.Logger.Error("log poisoned", "error", cause)
	}
	return l.poison
}

// settle tells a batch's producers its fate. If it was not written, the whole
// queue shares the fate: later frames of a key cannot stay without the former.
func (l *Log) settle(b *batch, err error) {
	if err != nil {
		l.fail(b, err)
		return
	}
	l.mu.Lock()
	l.queueBytes -= b.bytes
	for i := range b.frames {
		if p := &b.frames[i]; p.head.flags&flagForget != 0 && l.keys[p.st.key] == p.st {
			delete(l.keys, p.st.key)
		}
	}
	frames := b.frames
	b.frames = nil
	l.w.frames.put(frames)
	l.mu.Unlock()
	close(b.done)
}

// fail settles b, if it is not nil, and everything queued behind it.
func (l *Log) fail(b *batch, err error) {
	l.mu.Lock()
	lost := l.queue
	if b != nil {
		lost = append([]*batch{b}, lost...)
	}
	l.queue, l.waiting, l.w.lastFrames = nil, 0, 0
	for _, b := range lost {
		l.queueBytes -= b.bytes
		l.takeBack(b)
		b.err, b.frames = err, nil
	}
	l.mu.Unlock()
	for _, b := range lost {
		close(b.done)
	}
}

// takeBack gives the offsets of frames that were not written out again. A
// poisoned log keeps them: it gives none out any more. REQUIRES: mu.
func (l *Log) takeBack(b *batch) {
	if l.poison != nil {
		return
	}
	for i := range b.frames {
		st := b.frames[i].st
		st.next = st.written
		if st.written == 0 && l.keys[st.key] == st {
			delete(l.keys, st.key) // it was never more than an attempt
		}
	}
}

// table is the next offset of every key, as the writer left it. Keys that were
// forgotten and have nothing on its way are dropped.
func (l *Log) table() []tableEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := make([]tableEntry, 0, len(l.keys))
	for k, st := range l.keys {
		if st.forgotten && st.written == st.next {
			delete(l.keys, k)
			l.ix.Lock()
			st.leaveKey()
			l.ix.Unlock()
			continue
		}
		if st.written > 0 {
			t = append(t, tableEntry{k, st.written})
		}
	}
	return t
}
