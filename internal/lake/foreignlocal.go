package lake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
)

// listBatch is how many entries of a directory are read at a time.
const listBatch = 1024

// LocalForeign reads the files below one directory of the local file system.
// Nothing outside of it can be reached: symbolic links are followed while they
// stay inside, and are an error when they lead out.
type LocalForeign struct {
	dir string

	mu   sync.Mutex
	root *os.Root // nil until the directory exists and was needed
}

var _ Foreign = (*LocalForeign)(nil)

// OpenLocalForeign reads the bucket at dir, which need not exist yet.
func OpenLocalForeign(dir string) *LocalForeign { return &LocalForeign{dir: filepath.Clean(dir)} }

// Close ends the use of the directory.
func (l *LocalForeign) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.root == nil {
		return nil
	}
	err := l.root.Close()
	l.root = nil
	return err
}

// open returns the directory, nil if it does not exist. again: it may be another
// one by now.
func (l *LocalForeign) open(again bool) (*os.Root, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.root != nil && again {
		now, err := os.Stat(l.dir)
		var had fs.FileInfo
		if err == nil {
			had, err = l.root.Stat(".")
		}
		if err != nil || !os.SameFile(now, had) {
			l.root = nil // whoever still uses it has it; it is closed when nobody does
		}
	}
	if l.root != nil {
		return l.root, nil
	}
	r, err := os.OpenRoot(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	l.root = r
	return r, nil
}

// localPath is a location as a path below the directory.
func localPath(location string) (string, error) {
	if err := checkLocation(location); err != nil {
		return "", err
	}
	p := strings.TrimSuffix(location, "/")
	if p == "" {
		return ".", nil
	}
	for segment := range strings.SplitSeq(p, "/") {
		switch {
		case segment == "":
			return "", fmt.Errorf("%w: the location %q has an empty segment, which a directory cannot have", ErrName, location)
		case len(segment) > 255:
			return "", fmt.Errorf("%w: the location %q has a segment longer than 255 bytes", ErrName, location)
		}
	}
	return p, nil
}

// ListFiles implements Foreign.
func (l *LocalForeign) ListFiles(ctx context.Context, location string, fn func(ForeignFile) error) error {
	p, err := localPath(location)
	if err != nil {
		return err
	}
	root, err := l.open(true)
	if err != nil || root == nil {
		return err
	}
	fi, err := root.Stat(p)
	switch {
	case errors.Is(err, fs.ErrNotExist) || notADirectory(err):
		return nil
	case err != nil:
		return listError(p, err)
	case fi.IsDir():
		return l.walk(ctx, root, p, 1, fn)
	case strings.HasSuffix(location, "/"):
		return nil
	case !fi.Mode().IsRegular():
		return irregular(p)
	}
	return fn(localFile(p, fi))
}

func listError(name string, err error) error {
	var p *fs.PathError
	if errors.As(err, &p) && p.Err.Error() == "path escapes from parent" {
		return fmt.Errorf("%w: %q is a symbolic link that leads out of its bucket: copy what it names into the bucket, or remove it", ErrName, name)
	}
	return fmt.Errorf("list %q: %w", name, err)
}

func irregular(name string) error {
	return fmt.Errorf("%w: %q is neither a file nor a folder", ErrName, name)
}

func localFile(name string, fi fs.FileInfo) ForeignFile {
	return ForeignFile{Name: name, SizeBytes: fi.Size(), ModifiedAt: fi.ModTime().UTC(), Version: localVersion(fi)}
}

func (l *LocalForeign) walk(ctx context.Context, root *os.Root, dir string, depth int, fn func(ForeignFile) error) error {
	if depth > foreignDepthMax {
		return fmt.Errorf("%w: the folder %q is nested more than %d deep: a symbolic link may lead back to a folder above", ErrName, dir, foreignDepthMax)
	}
	d, err := root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed while it was listed
	}
	if err != nil {
		return listError(dir, err)
	}
	defer d.Close() //nolint:errcheck // it was read from only
	for {
		entries, err := d.ReadDir(listBatch)
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := l.visit(ctx, root, path.Join(dir, e.Name()), e, depth, fn); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return listError(dir, err)
		}
	}
}

func (l *LocalForeign) visit(ctx context.Context, root *os.Root, name string, e fs.DirEntry, depth int, fn func(ForeignFile) error) error {
	if hiddenName(e.Name()) {
		return nil
	}
	if e.IsDir() {
		return l.walk(ctx, root, name, depth+1, fn)
	}
	fi, err := root.Stat(name) // follows a link
	if errors.Is(err, fs.ErrNotExist) {
		if _, gone := root.Lstat(name); gone == nil {
			return fmt.Errorf("%w: %q is a symbolic link to nothing: remove it, or give its name a dot in front", ErrName, name)
		}
		return nil // removed while it was listed
	}
	switch {
	case err != nil:
		return listError(name, err)
	case fi.IsDir():
		return l.walk(ctx, root, name, depth+1, fn)
	case !fi.Mode().IsRegular():
		return irregular(name)
	}
	return fn(localFile(name, fi))
}

// OpenFile implements Foreign.
func (l *LocalForeign) OpenFile(_ context.Context, f ForeignFile) (Reader, error) {
	r, err := l.openFile(f)
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", f.Name, err)
	}
	return foreignReader{r, f.SizeBytes}, nil
}

type foreignReader struct {
	*os.File
	sizeBytes int64
}

func (r foreignReader) SizeBytes() int64 { return r.sizeBytes }

func (l *LocalForeign) openFile(f ForeignFile) (*os.File, error) {
	root, err := l.open(false)
	if err != nil {
		return nil, err
	}
	if root == nil {
		return nil, ErrNotFound
	}
	file, err := root.OpenFile(f.Name, os.O_RDONLY|openNonblock, 0)
	if err != nil {
		return nil, notFound(err)
	}
	fi, err := file.Stat()
	if err == nil && (!fi.Mode().IsRegular() || localVersion(fi) != f.Version || fi.Size() != f.SizeBytes) {
		err = ErrChanged
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// Unchanged implements Foreign.
func (l *LocalForeign) Unchanged(_ context.Context, f ForeignFile) error {
	file, err := l.openFile(f)
	if err == nil {
		err = file.Close()
	}
	if err != nil {
		return fmt.Errorf("%q: %w", f.Name, err)
	}
	return nil
}

// LinkFile gives a file that was listed a second name, path, which must be new.
// The content stays there when the first name is removed or given to another
// file. It fails where the file system does not allow that, between two of them
// above all; ErrChanged and ErrNotFound are OpenFile's.
func (l *LocalForeign) LinkFile(f ForeignFile, path string) error {
	file, err := l.openFile(f)
	if err != nil {
		return fmt.Errorf("open %q: %w", f.Name, err)
	}
	defer file.Close() //nolint:errcheck // it was read from only
	if err := os.Link(filepath.Join(l.dir, filepath.FromSlash(f.Name)), path); err != nil {
		return fmt.Errorf("link %q: %w", f.Name, err)
	}
	// The name may have come to mean another file in between.
	opened, err := file.Stat()
	if err == nil {
		var linked fs.FileInfo
		if linked, err = os.Lstat(path); err == nil && !os.SameFile(opened, linked) {
			err = errors.New("a symbolic link")
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("link %q: %w", f.Name, err), os.Remove(path))
	}
	return nil
}
