package wal

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"sync"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/record"
)

// windowBytes is the unit in which segments are read: many small frames at
// once, and little waste for one.
const windowBytes = 256 << 10

// window is a view on a stretch of a file that moves as it is asked for bytes.
type window struct {
	file  fsys.File
	base  int64
	valid []byte // the bytes from base on; aliases store
	store []byte
}

var windows = sync.Pool{New: func() any { return &window{store: make([]byte, windowBytes)} }}

// release gives the window back. A buffer that a large frame made is dropped.
func (w *window) release() {
	w.file, w.valid = nil, nil
	if len(w.store) == windowBytes {
		windows.Put(w)
	}
}

// at returns n bytes at pos, reading ahead up to limit. They are valid until the next call.
func (w *window) at(pos int64, n int, limit int64) ([]byte, error) {
	if from := pos - w.base; from >= 0 && from+int64(n) <= int64(len(w.valid)) {
		return w.valid[from : from+int64(n)], nil
	}
	if pos+int64(n) > limit {
		return nil, errTruncated
	}
	if n > len(w.store) {
		w.store = make([]byte, n)
	}
	w.base, w.valid = pos, w.store[:min(int64(len(w.store)), limit-pos)]
	if got, err := w.file.ReadAt(w.valid, pos); err != nil && got < len(w.valid) {
		w.valid = nil
		return nil, err
	}
	return w.valid[:n], nil
}

// scanner walks the synced frames of a segment.
type scanner struct {
	seg   *segment
	w     *window
	limit int64 // the synced end
	group int64 // position of the group at hand
	next  int64 // position of the group after it
	left  int   // frames left in it
	frame int64 // position of the frame at hand
	ahead int64 // position of the frame after it
	head  frameHeader
}

func newScanner(seg *segment, from, limit int64) *scanner {
	w := windows.Get().(*window)
	w.file, w.valid = seg.file, nil
	return &scanner{seg: seg, w: w, limit: limit, next: from}
}

func (s *scanner) close() { s.w.release() }

// fail makes an error of the format a CorruptionError.
func (s *scanner) fail(pos int64, err error) error {
	switch {
	case errors.Is(err, fs.ErrClosed):
		return ErrClosed
	case errors.Is(err, errChecksum), errors.Is(err, errTruncated), errors.Is(err, errLayout):
		return &CorruptionError{Segment: baseName(s.seg), Offset: pos, Err: err}
	}
	return fmt.Errorf("read segment %s at %d: %w", s.seg.name, pos, err)
}

// step moves to the next frame; false at the end.
func (s *scanner) step() (bool, error) {
	for s.left == 0 {
		if s.next >= s.limit {
			return false, nil
		}
		b, err := s.w.at(s.next, groupHeaderBytes, s.limit)
		if err != nil {
			return false, s.fail(s.next, err)
		}
		g, err := decodeGroupHeader(b, s.seg.sum, s.seg.number, s.next)
		if err != nil {
			return false, s.fail(s.next, err)
		}
		s.group, s.left, s.ahead = s.next, g.count, s.next+groupHeaderBytes
		s.next += groupBytes(g.bytes)
	}
	s.frame = s.ahead
	b, err := s.w.at(s.frame, frameHeaderBytes, s.limit)
	if err == nil {
		s.head, err = decodeFrameHeader(b, s.seg.sum)
	}
	if err != nil {
		return false, s.fail(s.frame, err)
	}
	s.left--
	s.ahead = s.frame + frameBytes(s.head.payloadLen)
	return true, nil
}

// payload returns the payload of the frame at hand, valid until the next call of anything.
func (s *scanner) payload() ([]byte, error) {
	b, err := s.w.at(s.frame+frameHeaderBytes, s.head.payloadLen, s.limit)
	if err == nil && crc32.Checksum(b, castagnoli) != s.head.payloadSum {
		err = errChecksum
	}
	if err != nil {
		return nil, s.fail(s.frame, err)
	}
	return b, nil
}

// Read calls fn for each frame of k in order, from the one that contains from
// up to the end that was synced when Read was called. It returns nil at that
// end, at once if from is not synced yet. The payload is valid during fn only.
// An error of fn ends the read and is returned as it is.
//
// If from is no longer in the log, Read returns a *TrimmedError. That can also
// happen half way, when frames that are trimmed go while they are read. Damage is a *CorruptionError.
//
// Read holds no lock while it reads or calls fn; it holds the segment it is in
// from being recycled.
func (l *Log) Read(ctx context.Context, k record.Key, from record.Offset, fn func(Frame) error) error {
	st := l.state(k)
	if st == nil {
		return nil
	}
	l.ix.RLock()
	until := st.synced
	l.ix.RUnlock()
	for from < until {
		next, err := l.readExtent(ctx, st, from, until, fn)
		if err != nil {
			return err
		}
		from = next
	}
	return nil
}

// readExtent reads the frames of one extent and returns the offset after them.
func (l *Log) readExtent(ctx context.Context, st *keyState, from, until record.Offset, fn func(Frame) error) (record.Offset, error) {
	l.ix.Lock()
	e := st.extentOf(from)
	if e == nil {
		oldest := st.oldest()
		l.ix.Unlock()
		return 0, &TrimmedError{Key: st.key, Wanted: from, Oldest: oldest}
	}
	seg, end := e.seg, min(e.end, until)
	sc := newScanner(seg, e.find(from), seg.end)
	seg.refs++
	l.ix.Unlock()

	defer func() {
		l.ix.Lock()
		seg.refs--
		if from < e.end && sc.group > 0 {
			e.cursor = mark{from, uint32(sc.group / blockBytes)}
		}
		idle := seg.refs == 0 && seg != l.segments[len(l.segments)-1]
		l.ix.Unlock()
		sc.close()
		if idle {
			kick(l.keeperKick) // it may have waited for the segment
		}
	}()
	for from < end {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		ok, err := sc.step()
		if err != nil {
			return 0, err
		}
		if !ok {
			return 0, &CorruptionError{Segment: baseName(seg), Offset: sc.limit,
				Err: fmt.Errorf("offset %d of %s is not where the index says", from, st.key)}
		}
		h := &sc.head
		if h.key != st.key || h.first > from || h.end() <= from {
			continue
		}
		payload, err := sc.payload()
		if err != nil {
			return 0, err
		}
		if err := fn(Frame{Key: h.key, First: h.first, Entry: Entry{
			Kind: h.kind, SchemaID: h.schemaID, Count: h.count, ArrivedAt: h.arrivedAt, Payload: payload}}); err != nil {
			return 0, err
		}
		from = h.end()
	}
	return from, nil
}
