package wal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/record"
)

// Open recovers the log in dir, which it makes if need be, and takes its lock.
// A torn tail is cut; damage to what was synced is a *CorruptionError, and
// nothing is changed then. Other errors: fsys.ErrLocked, ErrDiskFull (a new log
// has no room for its first segment), those of the file system.
//
// ctx bounds the recovery only.
func Open(ctx context.Context, fs fsys.FS, dir string, opt Options) (*Log, error) {
	opt, err := opt.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	lock, err := fs.Lock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	l := &Log{
		fs: fs, dir: dir, opt: opt, lock: lock,
		maxPayload:   int(min(MaxPayloadBytes, opt.SegmentBytes/2-payloadSpareBytes)),
		maxKeys:      int((opt.SegmentBytes/4 - headerFixedBytes) / tableEntryBytes),
		keys:         map[record.Key]*keyState{},
		wake:         make(chan struct{}, 1),
		keeperKick:   make(chan struct{}, 1),
		preparerKick: make(chan struct{}, 1),
		stop:         make(chan struct{}),
		writerDone:   make(chan struct{}),
	}
	l.spareCond = sync.NewCond(&l.spareMu)
	l.w.idleTimer = time.NewTimer(time.Hour)
	l.w.idleTimer.Stop()
	if err := l.recover(ctx); err != nil {
		l.abandon()
		return nil, fmt.Errorf("open log: %w", err)
	}
	if l.met, l.all, err = newMetrics(opt.Registerer, l); err != nil {
		l.abandon()
		return nil, fmt.Errorf("open log: %w", err)
	}
	l.background.Add(2)
	go l.run()
	go l.prepare()
	go l.keep()
	return l, nil
}

// abandon closes what a failed Open opened.
func (l *Log) abandon() {
	for _, seg := range l.segments {
		_ = seg.file.Close()
	}
	for _, sp := range l.spares {
		_ = sp.file.Close()
	}
	_ = l.lock.Close()
}

// recover builds the state from the directory.
func (l *Log) recover(ctx context.Context) error {
	numbers, spares, err := l.list()
	if err != nil {
		return err
	}
	headers := make([]*segmentHeader, len(numbers))
	for i, number := range numbers {
		if headers[i], err = l.openSegment(number); err != nil {
			return err
		}
		if i == 0 {
			continue
		}
		if number != numbers[i-1]+1 {
			return &CorruptionError{Segment: segmentName(numbers[i-1] + 1), Err: errMissing}
		}
		if headers[i].prevSalt != headers[i-1].salt {
			return &CorruptionError{Segment: segmentName(number), Err: errChain}
		}
	}
	var buf []byte
	for i, seg := range l.segments {
		if err := ctx.Err(); err != nil {
			return err
		}
		sealedEnd := int64(0)
		if i+1 < len(headers) {
			sealedEnd = headers[i+1].prevEnd
			if sealedEnd == 0 {
				return &CorruptionError{Segment: segmentName(headers[i+1].number), Err: errChain}
			}
		}
		if int64(cap(buf)) < seg.size {
			buf = alignedBuffer(seg.size)
		}
		if err := l.recoverSegment(seg, headers[i], buf[:seg.size], sealedEnd); err != nil {
			return err
		}
	}
	for _, st := range l.keys {
		st.dropBelowHoles()
	}
	if len(l.keys) > l.maxKeys {
		return fmt.Errorf("%w: it has %d; segments of %d bytes have room for %d", ErrTooManyKeys, len(l.keys), l.opt.SegmentBytes, l.maxKeys)
	}
	return l.tidy(spares)
}

// list reads the directory: segment numbers, ascending, and the spares, finished or not.
func (l *Log) list() (numbers []uint64, spares []string, err error) {
	entries, err := l.fs.ReadDir(l.dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		name := e.Name()
		if number, ok := parseSegmentName(name); ok {
			numbers = append(numbers, number)
			continue
		}
		for _, prefix := range []string{sparePrefix, newPrefix} {
			digits, ok := strings.CutPrefix(name, prefix)
			if !ok {
				continue
			}
			n, err := strconv.ParseUint(digits, 10, 64)
			if err != nil {
				continue // not ours
			}
			l.spareNext = max(l.spareNext, n)
			spares = append(spares, name)
		}
	}
	slices.Sort(numbers)
	return numbers, spares, nil
}

// openSegment opens a segment, reads its header and appends it to l.segments.
func (l *Log) openSegment(number uint64) (*segmentHeader, error) {
	seg := &segment{number: number, name: filepath.Join(l.dir, segmentName(number))}
	f, err := l.fs.OpenFile(seg.name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	seg.file = f
	l.segments = append(l.segments, seg) // abandon closes it
	if seg.size, err = f.Size(); err != nil {
		return nil, err
	}
	if seg.size < blockBytes || seg.size > segmentBytesMax || seg.size%blockBytes != 0 {
		return nil, &CorruptionError{Segment: baseName(seg), Err: fmt.Errorf("%w: its size is %d", errLayout, seg.size)}
	}
	b := make([]byte, blockBytes)
	if err := readFull(f, b, 0); err != nil {
		return nil, fmt.Errorf("read segment %s: %w", seg.name, err)
	}
	if want := headerClaim(b); want > blockBytes && want <= seg.size {
		b = make([]byte, want)
		if err := readFull(f, b, 0); err != nil {
			return nil, fmt.Errorf("read segment %s: %w", seg.name, err)
		}
	}
	h, err := decodeHeader(b, seg.size)
	if err == nil && h.number != number {
		err = fmt.Errorf("%w: it calls itself segment %d", errLayout, h.number)
	}
	if err != nil {
		return nil, &CorruptionError{Segment: baseName(seg), Err: err}
	}
	seg.salt, seg.sum, seg.start = h.salt, saltSum(h.salt), headerBytes(len(h.table))
	return h, nil
}

func readFull(f fsys.File, b []byte, pos int64) error {
	n, err := f.ReadAt(b, pos)
	if n == len(b) || errors.Is(err, io.EOF) {
		clear(b[n:]) // shorter than a moment ago: the checksums will tell
		return nil
	}
	return err
}

// recoverSegment checks a segment and puts its frames into the index.
func (l *Log) recoverSegment(seg *segment, h *segmentHeader, b []byte, sealedEnd int64) error {
	corrupt := func(pos int64, err error) error {
		return &CorruptionError{Segment: baseName(seg), Offset: pos, Err: err}
	}
	if err := readFull(seg.file, b, 0); err != nil {
		return fmt.Errorf("read segment %s: %w", seg.name, err)
	}
	if err := l.recoverTable(seg, h); err != nil {
		return corrupt(headerFixedBytes, err)
	}
	var last group
	end, err := scanGroups(b, h, sealedEnd, func(g group) error {
		last = g
		for i := range g.frames {
			if err := l.recoverFrame(seg, g.pos, &g.frames[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return corrupt(end, err)
	}
	seg.end = end
	if sealedEnd != 0 {
		return nil
	}
	l.w.pos, l.w.marked = end, last.count == 0
	if end < seg.size {
		if _, err := decodeGroupHeader(b[end:], seg.sum, seg.number, end); err == nil {
			l.opt.Logger.Warn("torn tail of the log cut", "segment", baseName(seg), "offset", end)
		}
	}
	if last.raw == nil {
		return nil
	}
	// The page cache may hold what the disk does not; see docs/protocols/log.md.
	if _, err := seg.file.WriteAt(last.raw, last.pos); err != nil {
		return fmt.Errorf("write the last group of %s again: %w", seg.name, err)
	}
	if err := seg.file.Datasync(); err != nil {
		return fmt.Errorf("sync segment %s: %w", seg.name, err)
	}
	return nil
}

// recoverTable takes the next offsets from the oldest segment, and checks those
// of the others against the frames before.
func (l *Log) recoverTable(seg *segment, h *segmentHeader) error {
	if seg == l.segments[0] {
		for _, e := range h.table {
			l.keys[e.key] = &keyState{key: e.key, next: e.next, written: e.next, synced: e.next}
		}
		return nil
	}
	kept := make(map[record.Key]*keyState, len(h.table))
	for _, e := range h.table {
		st := l.keys[e.key]
		if st == nil || st.written != e.next {
			return fmt.Errorf("%w: next of %s is %d", errTableDiffers, e.key, e.next)
		}
		kept[e.key] = st
	}
	for k, st := range l.keys {
		if kept[k] == nil {
			st.leaveKey() // forgotten before the segment began
		}
	}
	l.keys = kept
	return nil
}

func (l *Log) recoverFrame(seg *segment, pos int64, h *frameHeader) error {
	st := l.keys[h.key]
	switch {
	case h.flags&flagForget != 0:
		if st != nil {
			st.leaveKey()
			delete(l.keys, h.key)
		}
		return nil
	case h.flags&flagMoved != 0:
		if st == nil {
			return nil // forgotten meanwhile
		}
		if h.end() > st.written {
			return fmt.Errorf("%w: moved frame of %s at %d, which ends at %d", errNotDense, h.key, h.first, st.written)
		}
		publish(seg, pos, st, h)
		return nil
	case st == nil:
		st = &keyState{key: h.key}
		l.keys[h.key] = st
	}
	if h.first != st.written {
		return fmt.Errorf("%w: %s has %d where %d comes next", errNotDense, h.key, h.first, st.written)
	}
	st.written, st.next = h.end(), h.end()
	publish(seg, pos, st, h)
	return nil
}

// tidy makes the names durable, which a crash of the process may have left in
// the page cache, keeps good spares, and begins the first segment of a new log.
func (l *Log) tidy(spares []string) error {
	for _, name := range spares {
		path := filepath.Join(l.dir, name)
		if strings.HasPrefix(name, sparePrefix) && len(l.spares) < sparesMax {
			fi, err := l.fs.Stat(path)
			if err == nil && fi.Size() == l.opt.SegmentBytes {
				f, err := l.fs.OpenFile(path, os.O_RDWR, 0)
				if err != nil {
					return err
				}
				l.spares = append(l.spares, &spare{path, f})
				continue
			}
		}
		if err := l.fs.Remove(path); err != nil {
			return err
		}
	}
	if err := l.fs.SyncDir(l.dir); err != nil {
		return err
	}
	if len(l.segments) > 0 {
		return nil
	}
	var sp *spare
	if len(l.spares) > 0 {
		sp, l.spares = l.spares[0], l.spares[1:]
	} else {
		var err error
		if sp, err = l.makeSpare(); err != nil {
			return err
		}
	}
	seg, err := l.activate(sp, &segmentHeader{number: 1})
	if err != nil {
		_ = sp.file.Close()
		return err
	}
	l.segments = append(l.segments, seg)
	l.w.pos, l.w.marked = seg.end, true
	return nil
}
