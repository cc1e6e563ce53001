// Package backup copies a data directory at one point while the server works, and
// brings it back. docs/protocols/backup.md has the order and why it is right.
//
// A backup lies in a store: a directory or a bucket.
//
//	points/<id>/manifest.json   every file of the point; written last
//	points/<id>/…               catalog, ledger, log of the point
//	tables/<lake name>          files of tables: immutable, shared by all points
//	contents/<sha256>           other files, by their content, shared as well
package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/wal"
)

var (
	// ErrNotFound is returned for a point that is not there.
	ErrNotFound = errors.New("no such backup")
	// ErrDamaged is returned for a backup whose files are not what its manifest says.
	ErrDamaged = errors.New("the backup is damaged")
	// ErrNotEmpty is returned for a directory to restore into that holds something.
	ErrNotEmpty = errors.New("the directory is not empty")
)

const (
	manifestFormat = 1
	manifestName   = "manifest.json"
	// copiers is how many files are copied at a time.
	copiers = 4
	// pointForm is a point's id, of when it was begun.
	pointForm = "20060102T150405Z"
)

// Manifest describes a point.
type Manifest struct {
	Format  int       `json:"format"`
	ID      string    `json:"id"`
	TakenAt time.Time `json:"taken_at"` // when the copy of the log was begun: what was acknowledged before is in it
	Program string    `json:"program"`
	Data    string    `json:"data"` // the directory
	Lake    string    `json:"lake"` // URI of the lake's root
	Files   []File    `json:"files"`
	// Elsewhere are names in a lake on S3 that the point needs and does not have.
	Elsewhere []string `json:"elsewhere,omitempty"`
}

// File is a file of a point.
type File struct {
	Path   string      `json:"path"`   // below the data directory, with slashes
	Object string      `json:"object"` // in the backup
	Size   int64       `json:"size"`   // bytes of the object
	SHA256 string      `json:"sha256"`
	Mode   fs.FileMode `json:"mode"`
	// ModifiedAt tells whether the file has changed since.
	ModifiedAt time.Time `json:"modified_at"`
	// PaddedTo is the file's size, if zeros follow the object: segments of the log.
	PaddedTo int64 `json:"padded_to,omitempty"`
}

// Source is the running server.
type Source struct {
	Data    string // absolute
	Program string
	Catalog *catalog.Catalog
	Log     *wal.Log
	Lake    lake.Store
	// LocalLake says that Lake is the directory lake/ of Data.
	LocalLake bool
	Staging   string // directory for the catalog's copy
	// Hold keeps maintenance from removing files until release.
	Hold   func(ctx context.Context) (release func(), err error)
	Logger *slog.Logger
}

// Options say what is copied.
type Options struct {
	// WithLake copies the files of tables from a lake on S3 too. A local lake is
	// always copied.
	WithLake bool
	// WithoutCredentials leaves keys and passwords out: the restored server makes
	// new ones.
	WithoutCredentials bool
	// Progress, if not nil, is told what is done, now and then.
	Progress func(Progress)
}

// Progress is how far a backup or a restore is.
type Progress struct {
	Files, FilesAll int
	Bytes           int64
}

// Report says what Take did.
type Report struct {
	ID             string
	TakenAt        time.Time
	Files          int   // of the point
	Bytes          int64 // of the point
	Copied         int   // files that no earlier backup had
	CopiedBytes    int64
	Elsewhere      int
	Took, LogAfter time.Duration // of it, until the log was copied
}

// Take makes a backup in to.
func Take(ctx context.Context, src Source, to lake.Store, o Options) (Report, error) {
	start := time.Now()
	former, err := latest(ctx, to)
	if err != nil {
		return Report{}, err
	}
	t := &taking{src: src, to: to, o: o, known: map[string]File{}}
	if former != nil {
		for _, f := range former.Files {
			t.known[f.Path] = f
		}
	}
	t.m = Manifest{Format: manifestFormat, ID: start.UTC().Format(pointForm), Program: src.Program, Data: src.Data, Lake: strings.TrimSuffix(src.Lake.URI("x"), "/x")}
	if former != nil && former.ID >= t.m.ID {
		return Report{}, fmt.Errorf("there is a backup %s already, of the same second or a later one: look at the clock", former.ID)
	}
	release, err := src.Hold(ctx)
	if err != nil {
		return Report{}, err
	}
	defer release()
	defer src.Log.Hold()()
	if err := t.run(ctx); err != nil {
		return Report{}, fmt.Errorf("back up to %s: %w", strings.TrimSuffix(to.URI("x"), "/x"), err)
	}
	r := t.report
	r.ID, r.TakenAt, r.Files, r.Elsewhere, r.Took = t.m.ID, t.m.TakenAt, len(t.m.Files), len(t.m.Elsewhere), time.Since(start)
	for _, f := range t.m.Files {
		r.Bytes += f.Size
	}
	return r, nil
}

// taking is a backup in the making.
type taking struct {
	src   Source
	to    lake.Store
	o     Options
	known map[string]File // of the backup before, by path

	mu     sync.Mutex // of what follows
	m      Manifest
	report Report
	all    int
}

func (t *taking) run(ctx context.Context) error {
	began := time.Now() // T of the protocol
	referenced, err := t.catalog(ctx)
	if err != nil {
		return err
	}
	if err := t.file(ctx, "ledger/checkpoint", t.point("ledger")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // a server that never wrote one has its ledger in the log
	}
	t.m.TakenAt = time.Now().UTC()
	if err := t.log(ctx); err != nil {
		return err
	}
	t.report.LogAfter = time.Since(began)
	if err := t.tables(ctx, referenced); err != nil {
		return err
	}
	if err := t.others(ctx, began); err != nil {
		return err
	}
	slices.SortFunc(t.m.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	slices.Sort(t.m.Elsewhere)
	b, err := json.MarshalIndent(t.m, "", " ")
	if err != nil {
		return err
	}
	return t.to.PutAll(ctx, []lake.Object{{Name: t.point(manifestName), Data: b}})
}

// point is the name of an object of this point alone.
func (t *taking) point(name string) string { return "points/" + t.m.ID + "/" + name }

// catalog copies the catalog's database and returns what its tables refer to.
func (t *taking) catalog(ctx context.Context) (referenced map[string]bool, err error) {
	dir, err := os.MkdirTemp(t.src.Staging, "backup-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := t.src.Catalog.CopyTo(ctx, dir); err != nil {
		return nil, err
	}
	copied, err := catalog.Open(ctx, catalog.Options{Dir: dir, Warehouse: t.src.Lake, ReadOnly: true, Logger: t.src.Logger})
	if err != nil {
		return nil, err
	}
	referenced, err = copied.Referenced(ctx)
	if err = errors.Join(err, copied.Close()); err != nil {
		return nil, err
	}
	name := filepath.Join(dir, catalog.DatabaseFile)
	fi, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return referenced, t.put(ctx, File{Path: "catalog/" + catalog.DatabaseFile, Object: t.point("catalog.db"), Size: fi.Size(), Mode: 0o600, ModifiedAt: fi.ModTime().UTC()}, f)
}

// log copies the log's segments.
func (t *taking) log(ctx context.Context) error {
	return t.src.Log.Segments(ctx, func(s wal.Segment) error {
		return t.put(ctx, File{Path: "log/" + s.Name, Object: t.point("log/" + s.Name), Size: s.Bytes, PaddedTo: s.SizeBytes, Mode: 0o644, ModifiedAt: t.m.TakenAt},
			io.NewSectionReader(s, 0, s.Bytes))
	})
}

// tables copies the files that tables refer to.
func (t *taking) tables(ctx context.Context, referenced map[string]bool) error {
	names := make([]string, 0, len(referenced))
	for n := range referenced {
		names = append(names, n)
	}
	slices.Sort(names)
	if !t.src.LocalLake && !t.o.WithLake {
		t.m.Elsewhere = names
		return nil
	}
	t.all += len(names)
	return each(ctx, names, func(ctx context.Context, name string) error {
		p := "lake/" + name
		if f, ok := t.known[p]; ok { // a name is used once
			t.have(f)
			return nil
		}
		r, err := t.src.Lake.Open(ctx, name)
		if err != nil {
			return err
		}
		defer func() { _ = r.Close() }()
		return t.put(ctx, File{Path: p, Object: "tables/" + name, Size: r.SizeBytes(), Mode: 0o644}, io.NewSectionReader(r, 0, r.SizeBytes()))
	})
}

// others copies what lies in the data directory beside: delivered objects and
// error output that were written before the point, what others put into the lake,
// statements, credentials.
func (t *taking) others(ctx context.Context, began time.Time) error {
	roots := []string{"VERSION", "LAKE", "buckets", "statements", "lake"}
	if !t.o.WithoutCredentials {
		roots = append(roots, "credentials.json", "credentials-used.json")
	}
	var names []string
	for _, root := range roots {
		err := filepath.WalkDir(filepath.Join(t.src.Data, root), func(p string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // never made, or deleted while we listed
			}
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(t.src.Data, p)
			if err != nil {
				return err
			}
			rel = filepath.ToSlash(rel)
			if d.IsDir() {
				if d.Name() == lake.StagingDir {
					return filepath.SkipDir
				}
				return nil
			}
			if !d.Type().IsRegular() {
				return nil // links lead elsewhere
			}
			if name, ok := strings.CutPrefix(rel, "lake/"); ok && catalog.InTableDirectory(name) {
				return nil
			}
			info, err := d.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			if delivered := root == "buckets" || root == "lake"; delivered && info.ModTime().After(began) {
				return nil
			}
			names = append(names, rel)
			return nil
		})
		if err != nil {
			return err
		}
	}
	t.all += len(names)
	return each(ctx, names, func(ctx context.Context, name string) error {
		err := t.content(ctx, name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // deleted meanwhile
		}
		return err
	})
}

// content copies a file that is stored by what it holds.
func (t *taking) content(ctx context.Context, name string) error {
	local := filepath.Join(t.src.Data, filepath.FromSlash(name))
	fi, err := os.Stat(local)
	if err != nil {
		return err
	}
	if f, ok := t.known[name]; ok && f.Size == fi.Size() && f.ModifiedAt.Equal(fi.ModTime()) {
		t.have(f)
		return nil
	}
	f, err := os.Open(local)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	sum, n, err := sumOf(f)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	return t.put(ctx, File{Path: name, Object: "contents/" + sum, Size: n, SHA256: sum, Mode: fi.Mode().Perm(), ModifiedAt: fi.ModTime().UTC()}, io.LimitReader(f, n))
}

// file copies a file of the data directory under a name of its own.
func (t *taking) file(ctx context.Context, name, object string) error {
	f, err := os.Open(filepath.Join(t.src.Data, filepath.FromSlash(name)))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	return t.put(ctx, File{Path: name, Object: object, Size: fi.Size(), Mode: fi.Mode().Perm(), ModifiedAt: fi.ModTime().UTC()}, io.LimitReader(f, fi.Size()))
}

// put stores a file's bytes and enters it. A file that the backup has already, of
// an earlier attempt, is only read.
func (t *taking) put(ctx context.Context, f File, r io.Reader) error {
	h := sha256.New()
	read := &counting{r: io.TeeReader(r, h)}
	err := t.to.Put(ctx, f.Object, read, f.Size)
	exists := errors.Is(err, lake.ErrExists)
	if exists {
		var there lake.Info
		if there, err = t.to.Stat(ctx, f.Object); err == nil && there.SizeBytes != f.Size {
			err = fmt.Errorf("%w: %s has %d bytes, the file %d", ErrDamaged, f.Object, there.SizeBytes, f.Size)
		}
	}
	if err == nil {
		_, err = io.Copy(io.Discard, read) // what Put did not read
	}
	if err == nil && read.n != f.Size {
		err = fmt.Errorf("has %d bytes, want %d: it changed while it was copied", read.n, f.Size)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.Path, err)
	}
	sum := hex.EncodeToString(h.Sum(nil))
	if f.SHA256 != "" && f.SHA256 != sum {
		return fmt.Errorf("%s: it changed while it was copied", f.Path)
	}
	f.SHA256 = sum
	t.mu.Lock()
	defer t.mu.Unlock()
	t.m.Files = append(t.m.Files, f)
	if !exists {
		t.report.Copied++
		t.report.CopiedBytes += f.Size
	}
	t.progress()
	return nil
}

// have enters a file that an earlier backup has.
func (t *taking) have(f File) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.m.Files = append(t.m.Files, f)
	t.progress()
}

// progress REQUIRES: mu.
func (t *taking) progress() {
	if t.o.Progress != nil {
		t.o.Progress(Progress{len(t.m.Files), max(t.all, len(t.m.Files)), t.report.CopiedBytes})
	}
}

type counting struct {
	r io.Reader
	n int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func sumOf(r io.Reader) (sum string, n int64, err error) {
	h := sha256.New()
	n, err = io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), n, err
}

// each calls fn for every item, some at a time, and ends with the first error.
func each[T any](ctx context.Context, items []T, fn func(ctx context.Context, item T) error) error {
	return lake.InParallel(ctx, copiers, len(items), func(ctx context.Context, i int) error { return fn(ctx, items[i]) })
}

// Points lists the ids of the backups in a store, the oldest first.
func Points(ctx context.Context, from lake.Store) ([]string, error) {
	var ids []string
	err := from.List(ctx, "points/", func(i lake.Info) error {
		if dir, name := path.Split(i.Name); name == manifestName {
			ids = append(ids, path.Base(dir))
		}
		return nil
	})
	slices.Sort(ids)
	return ids, err
}

// Load reads a point's manifest; "" is the latest. ErrNotFound if there is none.
func Load(ctx context.Context, from lake.Store, id string) (*Manifest, error) {
	where := strings.TrimSuffix(from.URI("x"), "/x")
	if id == "" {
		m, err := latest(ctx, from)
		if err == nil && m == nil {
			err = fmt.Errorf("%w in %s", ErrNotFound, where)
		}
		return m, err
	}
	b, err := from.Get(ctx, "points/"+id+"/"+manifestName)
	if errors.Is(err, lake.ErrNotFound) {
		return nil, fmt.Errorf("%w: %s in %s", ErrNotFound, id, where)
	}
	if err != nil {
		return nil, err
	}
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil || m.Format < 1 {
		return nil, fmt.Errorf("%w: the manifest of %s: %w", ErrDamaged, id, err)
	}
	if m.Format > manifestFormat {
		return nil, fmt.Errorf("the backup %s has format %d, this program knows up to %d: use the newer program", id, m.Format, manifestFormat)
	}
	return &m, nil
}

// latest reads the newest point's manifest; nil if there is none.
func latest(ctx context.Context, from lake.Store) (*Manifest, error) {
	ids, err := Points(ctx, from)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	return Load(ctx, from, ids[len(ids)-1])
}
