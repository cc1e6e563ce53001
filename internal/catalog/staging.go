package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	icebergio "github.com/apache/iceberg-go/io"

	"github.com/tapehouse/tapehouse/internal/lake"
)

// readFile reads a metadata file of the lake.
func (c *Catalog) readFile(ctx context.Context, uri string) ([]byte, error) {
	name, ok := c.store.Name(uri)
	if !ok {
		return nil, fmt.Errorf("%w: %s lies outside the lake", ErrUnsupported, uri)
	}
	return c.store.Get(ctx, name)
}

func isNotFound(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, lake.ErrNotFound)
}

// staging is the file system that Iceberg's library writes a commit's metadata
// to. Files stay in memory until the commit knows which of them it refers to;
// those go to the lake together, fsynced at the same time. The library's own
// local file system never fsyncs.
type staging struct {
	ctx    context.Context // the library's interface has none; a staging lives for one commit
	cat    *Catalog
	direct bool // files go to the lake at once: for transactions that the library itself commits
	mu     sync.Mutex
	files  map[string][]byte // by URI; direct: the files made here, without content
}

var (
	_ icebergio.WriteFileIO = (*staging)(nil)
	_ icebergio.ReadFileIO  = (*staging)(nil)
)

func (c *Catalog) newStaging(ctx context.Context) *staging {
	return &staging{ctx: ctx, cat: c, files: make(map[string][]byte)}
}

// fs is staging as the library's table takes it.
func (s *staging) fs(context.Context) (icebergio.IO, error) { return s, nil }

// ReadFile returns a staged file, or one of the lake.
func (s *staging) ReadFile(uri string) ([]byte, error) {
	s.mu.Lock()
	b, ok := s.files[uri]
	s.mu.Unlock()
	if ok && !s.direct {
		return b, nil
	}
	b, err := s.cat.readFile(s.ctx, uri)
	if isNotFound(err) {
		err = errors.Join(err, fs.ErrNotExist)
	}
	return b, err
}

// Open implements icebergio.IO. Files of the lake are opened, not read whole:
// the library's scan, in tests and tools, opens data files through it.
func (s *staging) Open(uri string) (icebergio.File, error) {
	s.mu.Lock()
	b, staged := s.files[uri]
	s.mu.Unlock()
	if staged && !s.direct {
		return &stagedFile{name: uri, size: int64(len(b)), SectionReader: io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))}, nil
	}
	name, ok := s.cat.store.Name(uri)
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: uri, Err: fs.ErrNotExist}
	}
	r, err := s.cat.store.Open(s.ctx, name)
	if err != nil {
		if isNotFound(err) {
			err = errors.Join(err, fs.ErrNotExist)
		}
		return nil, err
	}
	return &stagedFile{name: uri, size: r.SizeBytes(), closer: r, SectionReader: io.NewSectionReader(r, 0, r.SizeBytes())}, nil
}

// Create returns a writer whose content becomes visible when it is closed.
func (s *staging) Create(uri string) (icebergio.FileWriter, error) {
	return &stagedWriter{staging: s, uri: uri}, nil
}

// WriteFile stages a whole file.
func (s *staging) WriteFile(uri string, b []byte) error {
	if s.direct {
		return s.writeThrough(uri, b)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[uri] = bytes.Clone(b)
	return nil
}

func (s *staging) writeThrough(uri string, b []byte) error {
	name, ok := s.cat.store.Name(uri)
	if !ok {
		return fmt.Errorf("%w: %s lies outside the lake", ErrUnsupported, uri)
	}
	if err := s.cat.store.Put(s.ctx, name, bytes.NewReader(b), int64(len(b))); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[uri] = nil
	return nil
}

// Remove takes back a file that was written here. All others are deleted by
// expiry alone.
func (s *staging) Remove(uri string) error {
	s.mu.Lock()
	_, mine := s.files[uri]
	delete(s.files, uri)
	s.mu.Unlock()
	if name, ok := s.cat.store.Name(uri); ok && mine && s.direct {
		return s.cat.store.Delete(s.ctx, name)
	}
	return nil
}

// put writes the named staged files to the lake, durably, and returns their names.
func (s *staging) put(ctx context.Context, uris []string) (names []string, err error) {
	var objects []lake.Object
	for _, uri := range uris {
		s.mu.Lock()
		b, ok := s.files[uri]
		s.mu.Unlock()
		if !ok {
			continue // carried over from an earlier snapshot
		}
		name, ok := s.cat.store.Name(uri)
		if !ok {
			return names, fmt.Errorf("%w: %s lies outside the lake", ErrUnsupported, uri)
		}
		objects = append(objects, lake.Object{Name: name, Data: b})
		names = append(names, name)
	}
	if err := s.cat.store.PutAll(ctx, objects); err != nil {
		return names, fmt.Errorf("write metadata: %w", err)
	}
	return names, nil
}

type stagedWriter struct {
	bytes.Buffer
	staging *staging
	uri     string
}

func (w *stagedWriter) Close() error { return w.staging.WriteFile(w.uri, w.Bytes()) }

type stagedFile struct {
	*io.SectionReader
	name   string
	size   int64
	closer io.Closer
}

func (f *stagedFile) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}

func (f *stagedFile) Stat() (fs.FileInfo, error) { return f, nil }

// The file's own fs.FileInfo.

func (f *stagedFile) Name() string       { return f.name }
func (f *stagedFile) Mode() fs.FileMode  { return 0o444 }
func (f *stagedFile) ModTime() time.Time { return time.Time{} }
func (f *stagedFile) IsDir() bool        { return false }
func (f *stagedFile) Sys() any           { return nil }
func (f *stagedFile) Size() int64        { return f.size }
