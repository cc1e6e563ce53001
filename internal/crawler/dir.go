package crawler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/zeebo/xxh3"
)

// Dir is a local directory as a Source. It opens regular files below the directory
// only: symbolic links are listed as refused, whatever they lead to, and a link that
// is put in a folder's place meanwhile does not lead out.
type Dir struct {
	root *os.Root
	uri  string
}

var _ Watcher = (*Dir)(nil)

// OpenDir opens a directory. Locations are uri with the names behind it, as they are;
// it ends in '/', file:///lake/ for one.
func OpenDir(dir, uri string) (*Dir, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Dir{root, strings.TrimRight(uri, "/") + "/"}, nil
}

// Close releases the directory.
func (d *Dir) Close() error { return d.root.Close() }

// URI is a name's location.
func (d *Dir) URI(name string) string { return d.uri + name }

// Open opens a regular file.
func (d *Dir) Open(_ context.Context, name string) (Reader, error) {
	info, err := d.root.Lstat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		return nil, err
	}
	return d.root.Open(name)
}

// List lists the files, in the order of their names. It holds one directory's
// entries for each level.
func (d *Dir) List(ctx context.Context, prefix string, fn func(Object) error) error {
	top := path.Dir(prefix + "x") // the folder that the names lie in
	return d.list(ctx, top, prefix, true, fn)
}

func (d *Dir) list(ctx context.Context, dir, prefix string, must bool, fn func(Object) error) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	entries, err := d.read(dir)
	if err != nil {
		if !must && errors.Is(err, fs.ErrNotExist) {
			return nil // it went meanwhile
		}
		return err
	}
	order := func(e fs.DirEntry) string {
		if e.IsDir() {
			return e.Name() + "/"
		}
		return e.Name()
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(order(a), order(b)) })
	for _, e := range entries {
		name := e.Name()
		if dir != "." {
			name = dir + "/" + name
		}
		if e.IsDir() {
			if below := name + "/"; strings.HasPrefix(below, prefix) || strings.HasPrefix(prefix, below) {
				if err := d.list(ctx, name, prefix, false, fn); err != nil {
					return err
				}
			}
			continue
		}
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		o := Object{Name: name}
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			o.Refused = "a symbolic link"
		case !e.Type().IsRegular():
			o.Refused = "not a regular file"
		default:
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			o.SizeBytes, o.ModifiedAt = info.Size(), info.ModTime().UTC()
		}
		if err := fn(o); err != nil {
			return err
		}
	}
	return nil
}

func (d *Dir) read(dir string) ([]fs.DirEntry, error) {
	f, err := d.root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	return f.ReadDir(-1)
}

// watchedMax bounds the folders that a watch remembers.
const watchedMax = 250_000

// hotFor is how long after a change a folder is read again though its time stays: a
// clock's tick may hide a second change.
const hotFor = 2 * time.Second

type watched struct {
	modified time.Time
	names    uint64 // a hash of the entries
	folders  []string
}

// Watch looks at the times of the folders, which change when entries come or go, and
// reads those that changed.
func (d *Dir) Watch(prefix string) func(context.Context) (bool, error) {
	seen := map[string]*watched{}
	top := path.Dir(prefix + "x")
	return func(ctx context.Context) (changed bool, err error) {
		next := make(map[string]*watched, len(seen))
		changed, err = d.poll(ctx, top, seen, next)
		if err == nil {
			changed = changed || len(next) != len(seen)
			seen = next
		}
		return changed, err
	}
}

func (d *Dir) poll(ctx context.Context, dir string, seen, next map[string]*watched) (changed bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, context.Cause(ctx)
	}
	if len(next) >= watchedMax {
		return false, fmt.Errorf("%w folders to watch: more than %d", ErrTooMany, watchedMax)
	}
	info, err := d.root.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return seen[dir] != nil, nil
	}
	if err != nil {
		return false, err
	}
	old := seen[dir]
	w := old
	if old == nil || !old.modified.Equal(info.ModTime()) || time.Since(info.ModTime()) < hotFor {
		entries, err := d.read(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
		w = &watched{modified: info.ModTime()}
		h := xxh3.New()
		for _, e := range entries {
			_, _ = h.WriteString(e.Name() + "\x00") // a hash's Write never fails
			if e.IsDir() {
				w.folders = append(w.folders, e.Name())
			}
		}
		w.names = h.Sum64()
		changed = old == nil || !old.modified.Equal(w.modified) || old.names != w.names
	}
	next[dir] = w
	for _, name := range w.folders {
		c, err := d.poll(ctx, path.Join(dir, name), seen, next)
		if err != nil {
			return false, err
		}
		changed = changed || c
	}
	return changed, nil
}
