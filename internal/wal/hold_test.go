package wal

import (
	"fmt"
	"io"
	"os"
	"sync"
	"testing"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/record"
)

// copyLog copies a log's segments into a directory of their own.
func copyLog(t *testing.T, l *Log) fsys.FS {
	t.Helper()
	to := fsys.NewMem()
	if err := to.MkdirAll("log", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := l.Segments(t.Context(), func(s Segment) error {
		f, err := to.OpenFile("log/"+s.Name, os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(io.NewSectionReader(s, 0, s.Bytes))
		if err == nil && int64(len(b)) != s.Bytes {
			err = fmt.Errorf("%d bytes, want %d", len(b), s.Bytes)
		}
		if err == nil {
			_, err = f.Write(b)
		}
		if err == nil {
			err = f.Truncate(s.SizeBytes)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return to
}

// TestSegmentsAreALog: a copy made while producers append opens, and has what was
// synced before it was begun.
func TestSegmentsAreALog(t *testing.T) {
	l := open(t, fsys.NewMem(), smallOptions())
	keys := []record.Key{{Shard: 1}, {Shard: 2}}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, k := range keys {
		put(t, l, k, 1, 100)
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					put(t, l, k, 3, 500)
				}
			}
		})
	}
	for range 20 {
		before := map[record.Key]record.Offset{}
		for _, k := range keys {
			before[k] = l.Synced(k)
		}
		copied := open(t, copyLog(t, l), smallOptions())
		for _, k := range keys {
			got := firsts(t, copied, k, 0)
			if copied.Synced(k) < before[k] || len(got) == 0 || got[0] != 0 {
				t.Fatalf("the copy of %s ends at %d, want at least %d", k, copied.Synced(k), before[k])
			}
		}
		closeLog(t, copied)
	}
	close(stop)
	wg.Wait()
}

// TestHoldKeepsSegments: what is trimmed under a hold stays until it is released.
func TestHoldKeepsSegments(t *testing.T) {
	l := open(t, fsys.NewMem(), smallOptions())
	k := record.Key{Shard: 1}
	put(t, l, k, 1, 100)
	release := l.Hold()
	for range 200 {
		put(t, l, k, 1, 1000)
	}
	if err := l.Trim(t.Context(), map[record.Key]record.Offset{k: l.Synced(k)}); err != nil {
		t.Fatal(err)
	}
	if o := l.Oldest(k); o != 0 {
		t.Fatalf("the oldest offset is %d while the log is held", o)
	}
	release()
	release()
	if err := l.Trim(t.Context(), map[record.Key]record.Offset{k: l.Synced(k)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "trimmed segments to go", func() bool { return l.Oldest(k) > 0 })
}
