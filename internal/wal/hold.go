package wal

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"sync"
)

// Hold keeps every segment in the log until release is called, however its
// records are delivered meanwhile. The log grows by what comes in.
func (l *Log) Hold() (release func()) {
	l.ix.Lock()
	defer l.ix.Unlock()
	oldest := l.segments[0] // segments go oldest first
	oldest.refs++
	var once sync.Once
	return func() {
		once.Do(func() {
			l.ix.Lock()
			oldest.refs--
			l.ix.Unlock()
			kick(l.keeperKick)
		})
	}
}

// Segment is a part of the log as it lies on disk.
type Segment struct {
	Name      string // of the file, within the log's directory
	SizeBytes int64  // of the file
	Bytes     int64  // from its beginning, durable: what follows has no meaning
	io.ReaderAt
}

// Segments calls fn for each segment, the oldest first, until fn fails. The
// segments are those of one instant. Files of the same names and sizes that begin
// with the same Bytes and go on with zeros are a log that holds everything that
// was synced at that instant.
func (l *Log) Segments(ctx context.Context, fn func(Segment) error) error {
	l.ix.Lock()
	held := append([]*segment(nil), l.segments...)
	ends := make([]int64, len(held))
	for i, seg := range held {
		seg.refs++
		ends[i] = seg.end
	}
	l.ix.Unlock()
	defer func() {
		l.ix.Lock()
		for _, seg := range held {
			seg.refs--
		}
		l.ix.Unlock()
		kick(l.keeperKick)
	}()
	for i, seg := range held {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := fn(Segment{filepath.Base(seg.name), seg.size, ends[i], seg.file}); err != nil {
			return fmt.Errorf("segment %s: %w", filepath.Base(seg.name), err)
		}
	}
	return nil
}
