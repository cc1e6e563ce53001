package external

import (
	"container/list"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// stageBlockBytes is what the smallest file counts for, so that the bound on
// bytes also bounds the number of files.
const stageBlockBytes = 4 << 10

// errAbandoned is the end of a staging whose caller gave up.
var errAbandoned = errors.New("staging was abandoned")

// stage is a bounded directory of local files, each made once however many ask for
// it, and kept while somebody holds it. What was converted, copied or fetched
// stays afterwards, until its room is needed; a second name does not, because it
// would keep the disk space of what its owner deletes.
type stage struct {
	dir   string
	max   int64
	gauge prometheus.Gauge // of used

	mu    sync.Mutex
	files map[string]*staged // by key
	idle  *list.List         // of *staged that nobody holds, the longest unused first
	used  int64              // bytes of all
}

// staged is one local file.
type staged struct {
	key     string
	path    string
	bytes   int64
	rows    int64
	schema  *fileSchema
	linked  bool // it is a second name
	holders int
	idle    *list.Element
	made    chan struct{} // closed when making has ended
	err     error         // of making; then it is no longer in stage.files
}

func openStage(dir string, bytesMax int64, gauge prometheus.Gauge) (*stage, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("open staging of external tables: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open staging of external tables: %w", err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return nil, fmt.Errorf("empty staging of external tables: %w", err)
		}
	}
	return &stage{dir: dir, max: bytesMax, gauge: gauge, files: map[string]*staged{}, idle: list.New()}, nil
}

// hold returns the file of that key, which make makes if it is not there: under
// the path that the file is given. release must follow.
func (s *stage) hold(ctx context.Context, key string, make func(f *staged) error) (*staged, error) {
	for {
		f, mine := s.enter(key)
		if mine {
			err := make(f)
			if err != nil && ctx.Err() != nil {
				err = errors.Join(errAbandoned, context.Cause(ctx))
			}
			s.ended(f, err)
			if err != nil {
				return nil, err
			}
			return f, nil
		}
		select {
		case <-f.made:
			if f.err == nil {
				return f, nil
			}
			if !errors.Is(f.err, errAbandoned) {
				return nil, f.err
			} // else it is ours to make now
		case <-ctx.Done():
			s.release(f)
			return nil, context.Cause(ctx)
		}
	}
}

// enter holds the file of that key; mine: the caller is to make it.
func (s *stage) enter(key string) (f *staged, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.files[key]; f != nil {
		if f.idle != nil {
			s.idle.Remove(f.idle)
			f.idle = nil
		}
		f.holders++
		return f, false
	}
	// The path depends on the content, by which an engine may keep what it knows.
	f = &staged{key: key, path: filepath.Join(s.dir, hex.EncodeToString([]byte(key))+".parquet"), holders: 1, made: make(chan struct{})}
	s.files[key] = f
	return f, true
}

// ended closes the making of a file.
func (s *stage) ended(f *staged, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		f.err = err
		delete(s.files, f.key)
		s.use(-f.bytes)
		_ = os.Remove(f.path) // it may not be there
	}
	close(f.made)
}

// release gives a hold back.
func (s *stage) release(f *staged) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.holders--
	if f.holders > 0 || f.err != nil {
		return
	}
	f.idle = s.idle.PushBack(f)
	if f.linked {
		s.drop(f)
	}
}

// drop removes an idle file. s.mu is locked.
func (s *stage) drop(f *staged) {
	s.idle.Remove(f.idle)
	f.idle = nil
	delete(s.files, f.key)
	s.use(-f.bytes)
	_ = os.Remove(f.path) // if it stays, the next start removes it
}

// grow takes room for so many bytes more of a file.
func (s *stage) grow(f *staged, n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.used+n > s.max && s.idle.Len() > 0 {
		s.drop(s.idle.Front().Value.(*staged))
	}
	if s.used+n > s.max {
		return fail(ErrLimit, "read less of the table at a time, by its partition keys, or raise external.staging in the server's configuration",
			"the files of external tables that statements read need more than the %d bytes of local staging", s.max)
	}
	s.use(n)
	f.bytes += n
	return nil
}

// use counts bytes. s.mu is locked.
func (s *stage) use(n int64) {
	s.used += n
	s.gauge.Set(float64(s.used))
}

// create makes the file and returns what writes to it.
func (s *stage) create(f *staged) (*stageWriter, error) {
	if err := s.grow(f, stageBlockBytes); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(f.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("stage: %w", err)
	}
	return &stageWriter{s: s, f: f, file: file, room: stageBlockBytes}, nil
}

// stageRoomBytes is how much room is taken at a time.
const stageRoomBytes = 1 << 20

// stageWriter writes to a staged file within the stage's bound.
type stageWriter struct {
	s    *stage
	f    *staged
	file *os.File
	room int64 // taken and not yet written
}

func (w *stageWriter) Write(p []byte) (int, error) {
	if need := int64(len(p)) - w.room; need > 0 {
		need = (need + stageRoomBytes - 1) / stageRoomBytes * stageRoomBytes
		if err := w.s.grow(w.f, need); err != nil {
			return 0, err
		}
		w.room += need
	}
	n, err := w.file.Write(p)
	w.room -= int64(n)
	return n, err
}

var _ io.Writer = (*stageWriter)(nil)
