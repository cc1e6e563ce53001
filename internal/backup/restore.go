package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
)

const versionFile = "VERSION"

// Restored says what Restore did.
type Restored struct {
	Files int
	Bytes int64
	Took  time.Duration
	// Moved is set if the directory is another than the backup's: locations in the
	// tables' metadata are then those of the former one.
	Moved bool
}

// Restore brings a point back into dir, which is absent or empty, and compares
// every file with the manifest. On an error dir is left as far as it came; its
// VERSION says so, and no server starts on it.
func Restore(ctx context.Context, from lake.Store, m *Manifest, dir string, progress func(Progress)) (Restored, error) {
	start := time.Now()
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return Restored{}, fmt.Errorf("restore into %s: %w: choose another, or move away what is there", dir, ErrNotEmpty)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Restored{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Restored{}, err
	}
	// The version comes last: what stands in its place until then is refused.
	at := slices.IndexFunc(m.Files, func(f File) bool { return f.Path == versionFile })
	if at < 0 {
		return Restored{}, fmt.Errorf("%w: it has no %s", ErrDamaged, versionFile)
	}
	version, files := m.Files[at], slices.Delete(slices.Clone(m.Files), at, at+1)
	unfinished := filepath.Join(dir, versionFile)
	if err := fsys.WriteFileAtomic(fsys.OS, unfinished, []byte("unfinished restore of backup "+m.ID+"\n"), 0o600); err != nil {
		return Restored{}, err
	}
	r := restoring{from: from, dir: dir, progress: progress, all: len(m.Files)}
	if err := each(ctx, files, r.file); err != nil {
		return Restored{}, fmt.Errorf("restore %s: %w", m.ID, err)
	}
	out := Restored{Moved: m.Data != dir && strings.HasPrefix(m.Lake, "file://")}
	if out.Moved {
		if err := lake.NoteFormer(fsys.OS, filepath.Join(dir, "lake"), m.Lake); err != nil {
			return Restored{}, fmt.Errorf("restore %s: %w", m.ID, err)
		}
	}
	if err := syncTree(dir); err != nil {
		return Restored{}, fmt.Errorf("restore %s: %w", m.ID, err)
	}
	text, err := r.from.Get(ctx, version.Object)
	if err != nil {
		return Restored{}, fmt.Errorf("restore %s: %w", m.ID, err)
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != version.SHA256 {
		return Restored{}, fmt.Errorf("restore %s: %w: %s is not as the manifest says", m.ID, ErrDamaged, version.Object)
	}
	if err := fsys.WriteFileAtomic(fsys.OS, unfinished, text, version.Mode.Perm()); err != nil {
		return Restored{}, fmt.Errorf("restore %s: %w", m.ID, err)
	}
	out.Files, out.Bytes, out.Took = r.files+1, r.bytes+int64(len(text)), time.Since(start)
	return out, nil
}

type restoring struct {
	from     lake.Store
	dir      string
	progress func(Progress)
	all      int

	mu    sync.Mutex
	files int
	bytes int64
}

// file brings one file back.
func (r *restoring) file(ctx context.Context, f File) (err error) {
	name := filepath.FromSlash(f.Path)
	if !filepath.IsLocal(name) {
		return fmt.Errorf("%w: the manifest names %q", ErrDamaged, f.Path)
	}
	source, err := r.from.Open(ctx, f.Object)
	if errors.Is(err, lake.ErrNotFound) {
		return fmt.Errorf("%w: %s lacks %s", ErrDamaged, f.Path, f.Object)
	}
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	to := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.Mode.Perm())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, h), io.NewSectionReader(source, 0, source.SizeBytes()))
	if err != nil {
		return fmt.Errorf("%s: %w", f.Path, err)
	}
	if sum := hex.EncodeToString(h.Sum(nil)); n != f.Size || sum != f.SHA256 {
		return fmt.Errorf("%w: %s has %d bytes with SHA-256 %s, the manifest says %d and %s", ErrDamaged, f.Object, n, sum, f.Size, f.SHA256)
	}
	if f.PaddedTo > n {
		if err := out.Truncate(f.PaddedTo); err != nil {
			return err
		}
	}
	if err := out.Sync(); err != nil {
		return err
	}
	if !f.ModifiedAt.IsZero() {
		if err := os.Chtimes(to, f.ModifiedAt, f.ModifiedAt); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files++
	r.bytes += n
	if r.progress != nil {
		r.progress(Progress{r.files, r.all, r.bytes})
	}
	return nil
}

// syncTree makes the directories durable.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return fsys.OS.SyncDir(p)
	})
}
