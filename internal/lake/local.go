package lake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/fsys"
)

// StagingDir holds objects of a Local that are being written. It lies in the store, so
// that the last step is a rename within one file system. No object's name
// begins with '.', so it cannot be mistaken for one.
const StagingDir = ".staging"

// knownDirsMax bounds the memory of directories that were made; past it the
// memory starts anew, which costs a few system calls.
const knownDirsMax = 10_000

const (
	dirPerm  = 0o755
	filePerm = 0o644
)

// Local is a Store in a directory of the local file system.
//
// An object is written to the staging directory, fsynced, renamed to its name,
// and its directory fsynced. One process at a time may put (the data directory
// has one owner); any number may read.
type Local struct {
	fs     fsys.FS
	dir    string   // absolute, clean
	uri    string   // "file://" + dir
	former []string // URIs of directories that the store was in before, see NoteFormer

	sweep sync.Once // clears the staging directory before the first put
	temp  atomic.Uint64
	life  string // makes this process's staging names its own

	mu    sync.Mutex
	busy  map[string]struct{} // names being put: makes create-if-absent atomic
	known map[string]struct{} // directories that were made
}

var _ Store = (*Local)(nil)

// OpenLocal opens the store in dir, which need not exist yet. The path must be
// absolute and spelt with characters that no URI escapes (see CheckName), as it
// becomes part of every location in Iceberg metadata.
func OpenLocal(fsystem fsys.FS, dir string) (*Local, error) {
	dir = filepath.Clean(dir)
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("open lake %q: want an absolute path", dir)
	}
	for i := range len(dir) {
		if dir[i] != '/' && dir[i] != ',' && !allowedByte(dir[i]) {
			return nil, fmt.Errorf("open lake %q: character %q in the path is escaped differently by Iceberg's readers; use letters, digits and . , _ = + @ ~ -", dir, dir[i])
		}
	}
	former, err := readFormer(fsystem, dir)
	if err != nil {
		return nil, fmt.Errorf("open lake %q: %w", dir, err)
	}
	return &Local{
		fs: fsystem, dir: dir, uri: "file://" + dir, former: former,
		life: strconv.Itoa(os.Getpid()) + "-" + uuid.NewString()[:8],
		busy: make(map[string]struct{}), known: make(map[string]struct{}),
	}, nil
}

// Dir is the store's directory.
func (l *Local) Dir() string { return l.dir }

// URI implements Store.
func (l *Local) URI(name string) string { return l.uri + "/" + name }

// Name implements Store. It also takes file:/path and plain absolute paths,
// which other Iceberg writers use.
func (l *Local) Name(uri string) (string, bool) {
	p := uri
	switch {
	case strings.HasPrefix(p, "file://"):
		p = strings.TrimPrefix(p, "file://")
	case strings.HasPrefix(p, "file:/"):
		p = strings.TrimPrefix(p, "file:")
	}
	name, ok := strings.CutPrefix(p, l.dir+"/")
	for i := 0; !ok && i < len(l.former); i++ {
		name, ok = strings.CutPrefix(p, strings.TrimPrefix(l.former[i], "file://")+"/")
	}
	if !ok || CheckName(strings.TrimSuffix(name, "/")) != nil {
		return "", false
	}
	return name, true
}

// LocalPath implements Store.
func (l *Local) LocalPath(name string) (string, bool) { return l.path(name), true }

func (l *Local) path(name string) string { return filepath.Join(l.dir, filepath.FromSlash(name)) }

// Put implements Store.
func (l *Local) Put(ctx context.Context, name string, r io.Reader, sizeBytes int64) error {
	release, err := l.claim(name)
	if err != nil {
		return err
	}
	defer release()
	temp, err := l.stage(ctx, name, r, sizeBytes)
	if err != nil {
		return err
	}
	if err := l.publish(temp, name); err != nil {
		return err
	}
	return l.syncDirOf(name)
}

// PutAll implements Store: the files are fsynced at the same time, each
// directory once.
func (l *Local) PutAll(ctx context.Context, objects []Object) error {
	temps := make([]string, len(objects))
	for _, o := range objects {
		release, err := l.claim(o.Name)
		if err != nil {
			return err
		}
		defer release()
	}
	errs := make([]error, len(objects))
	var wg sync.WaitGroup
	for i, o := range objects {
		wg.Go(func() {
			temps[i], errs[i] = l.stage(ctx, o.Name, bytes.NewReader(o.Data), int64(len(o.Data)))
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		for i, t := range temps {
			if errs[i] == nil {
				_ = l.fs.Remove(t)
			}
		}
		return err
	}
	dirs := make(map[string]string) // directory → one name in it
	for i, o := range objects {
		if err := l.publish(temps[i], o.Name); err != nil {
			for _, t := range temps[i+1:] {
				_ = l.fs.Remove(t)
			}
			return err
		}
		dirs[path.Dir(o.Name)] = o.Name
	}
	for _, name := range dirs {
		if err := l.syncDirOf(name); err != nil {
			return err
		}
	}
	return nil
}

// PutFile implements Store: a rename where path is on the store's file system,
// otherwise a copy.
func (l *Local) PutFile(ctx context.Context, name, path string) error {
	release, err := l.claim(name)
	if err != nil {
		return err
	}
	defer release()
	f, err := l.fs.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	defer func() { _ = f.Close() }()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("put %s: sync %s: %w", name, path, err)
	}
	if err := l.makeDir(name); err != nil {
		return err
	}
	if err := l.fs.Rename(path, l.path(name)); err == nil {
		return l.syncDirOf(name)
	}
	size, err := f.Size()
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	temp, err := l.stage(ctx, name, io.NewSectionReader(f, 0, size), size)
	if err != nil {
		return err
	}
	if err := l.publish(temp, name); err != nil {
		return err
	}
	if err := l.syncDirOf(name); err != nil {
		return err
	}
	return l.fs.Remove(path)
}

// claim checks that name is free and holds it against other puts of this
// process until release.
func (l *Local) claim(name string) (release func(), err error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	l.sweep.Do(l.clearStaging)
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, taken := l.busy[name]; taken {
		return nil, fmt.Errorf("put %s: %w", name, ErrExists)
	}
	switch _, err := l.fs.Stat(l.path(name)); {
	case err == nil:
		// An earlier put may have failed between its rename and the sync of the
		// directory: who is told that the object is there may rely on it.
		if err := l.syncDirOf(name); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("put %s: %w", name, ErrExists)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("put %s: %w", name, err)
	}
	l.busy[name] = struct{}{}
	return func() {
		l.mu.Lock()
		delete(l.busy, name)
		l.mu.Unlock()
	}, nil
}

// stage writes a fsynced file to the staging directory and returns its path.
func (l *Local) stage(ctx context.Context, name string, r io.Reader, sizeBytes int64) (temp string, err error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := l.makeDir(StagingDir + "/x"); err != nil {
		return "", err
	}
	temp = filepath.Join(l.dir, StagingDir, l.life+"-"+strconv.FormatUint(l.temp.Add(1), 10))
	f, err := l.fs.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, filePerm)
	if err != nil {
		return "", fmt.Errorf("put %s: %w", name, err)
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			_ = l.fs.Remove(temp)
			err = fmt.Errorf("put %s: %w", name, err)
		}
	}()
	n, err := io.Copy(f, &cancelReader{ctx, r})
	if err != nil {
		return "", err
	}
	if n != sizeBytes {
		return "", fmt.Errorf("%d bytes announced, %d read: %w", sizeBytes, n, io.ErrUnexpectedEOF)
	}
	return temp, f.Sync()
}

// publish gives a staged file its name. REQUIRES: the name is claimed.
func (l *Local) publish(temp, name string) error {
	if err := l.makeDir(name); err != nil {
		_ = l.fs.Remove(temp)
		return err
	}
	if err := l.fs.Rename(temp, l.path(name)); err != nil {
		_ = l.fs.Remove(temp)
		return fmt.Errorf("put %s: %w", name, err)
	}
	return nil
}

func (l *Local) syncDirOf(name string) error {
	if err := l.fs.SyncDir(filepath.Dir(l.path(name))); err != nil {
		return fmt.Errorf("sync the directory of %s: %w", name, err)
	}
	return nil
}

// makeDir makes the directory of name, durably.
func (l *Local) makeDir(name string) error {
	dir := filepath.Dir(l.path(name))
	l.mu.Lock()
	_, ok := l.known[dir]
	l.mu.Unlock()
	if ok {
		return nil
	}
	if err := l.fs.MkdirAll(dir, dirPerm); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.known) >= knownDirsMax {
		clear(l.known)
	}
	l.known[dir] = struct{}{}
	return nil
}

// clearStaging removes what a crash left half written. Errors are of no
// consequence: the names of this process differ.
func (l *Local) clearStaging() {
	dir := filepath.Join(l.dir, StagingDir)
	entries, err := l.fs.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		_ = l.fs.Remove(filepath.Join(dir, e.Name()))
	}
}

// Get implements Store.
func (l *Local) Get(ctx context.Context, name string) ([]byte, error) {
	r, err := l.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	if r.SizeBytes() > GetBytesMax {
		return nil, fmt.Errorf("get %s: %w: %d bytes, the limit is %d", name, ErrTooLarge, r.SizeBytes(), GetBytesMax)
	}
	b := make([]byte, r.SizeBytes())
	if _, err := r.ReadAt(b, 0); err != nil && (!errors.Is(err, io.EOF) || len(b) > 0) {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	return b, nil
}

type localReader struct {
	fsys.File
	sizeBytes int64
}

func (r localReader) SizeBytes() int64 { return r.sizeBytes }

// Open implements Store.
func (l *Local) Open(ctx context.Context, name string) (Reader, error) {
	if err := errors.Join(ctx.Err(), CheckName(name)); err != nil {
		return nil, err
	}
	f, err := l.fs.OpenFile(l.path(name), os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open object %s: %w", name, notFound(err))
	}
	size, err := f.Size()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open object %s: %w", name, err), f.Close())
	}
	return localReader{f, size}, nil
}

// Stat implements Store.
func (l *Local) Stat(ctx context.Context, name string) (Info, error) {
	if err := errors.Join(ctx.Err(), CheckName(name)); err != nil {
		return Info{}, err
	}
	fi, err := l.fs.Stat(l.path(name))
	if err != nil {
		return Info{}, fmt.Errorf("stat object %s: %w", name, notFound(err))
	}
	if fi.IsDir() {
		return Info{}, fmt.Errorf("stat object %s: %w", name, ErrNotFound)
	}
	return Info{name, fi.Size(), fi.ModTime().UTC()}, nil
}

// List implements Store.
func (l *Local) List(ctx context.Context, prefix string, fn func(Info) error) error {
	dir := "" // the deepest directory that holds every name with the prefix
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		dir = prefix[:i]
		if err := CheckName(dir); err != nil {
			return err
		}
	}
	return l.walk(ctx, dir, prefix, fn)
}

func (l *Local) walk(ctx context.Context, dir, prefix string, fn func(Info) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := l.fs.ReadDir(l.path(dir))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("list %s: %w", dir, err)
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), "."):
		case e.IsDir():
			if strings.HasPrefix(name, prefix) || strings.HasPrefix(prefix, name) {
				if err := l.walk(ctx, name, prefix, fn); err != nil {
					return err
				}
			}
		case strings.HasPrefix(name, prefix):
			fi, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // deleted while we listed
			}
			if err != nil {
				return fmt.Errorf("list %s: %w", name, err)
			}
			if err := fn(Info{name, fi.Size(), fi.ModTime().UTC()}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Delete implements Store.
func (l *Local) Delete(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := errors.Join(ctx.Err(), CheckName(name)); err != nil {
			return err
		}
		if err := l.fs.Remove(l.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete object %s: %w", name, err)
		}
	}
	synced := map[string]bool{}
	for _, name := range names {
		if dir := path.Dir(name); !synced[dir] {
			synced[dir] = true
			if err := l.syncDirOf(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("delete object %s: %w", name, err)
			}
		}
	}
	return nil
}

func notFound(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotFound
	}
	return err
}

// cancelReader ends a copy when its context ends.
type cancelReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
