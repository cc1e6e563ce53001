package catalog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/tapehouse/tapehouse/internal/lake"
)

const (
	// foreignEntriesMax bounds the files that the new manifests of one change name.
	foreignEntriesMax = 1_000_000
	// foreignStatsMax is how many of a change's new files are looked for at once.
	foreignStatsMax = 16
)

// files: every file of a new snapshot lies below the table's location, is there,
// and is of a kind that this program reads. A file that two tables shared would
// go when either of them lets it go.
func (j *judge) files(ctx context.Context) error {
	if err := j.statistics(); err != nil {
		return err
	}
	fresh := j.newSnapshots()
	known := make(map[string]bool) // manifests
	if j.before != nil && len(fresh) > 0 {
		for _, s := range j.before.meta.Snapshots() {
			list, err := j.c.manifestList(ctx, &s)
			if err != nil {
				return err
			}
			for _, m := range list {
				known[m.FilePath()] = true
			}
		}
	}
	var added []fileSize
	var wrote []string // by the client
	entries := 0
	for _, s := range fresh {
		if err := j.snapshot(&s); err != nil {
			return err
		}
		var list []manifestHeader
		if err := guarded(func() (err error) { list, err = j.c.manifestList(ctx, &s); return err }); err != nil {
			return j.unreadable(ctx, s.ManifestList, err)
		}
		wrote = append(wrote, s.ManifestList)
		for _, m := range list {
			if known[m.FilePath()] {
				continue
			}
			known[m.FilePath()] = true
			if !j.inside(m.FilePath()) {
				return j.outside("manifest", m.FilePath())
			}
			var es []entry
			if err := guarded(func() (err error) { es, err = j.c.manifest(ctx, m); return err }); err != nil {
				return j.unreadable(ctx, m.FilePath(), err)
			}
			wrote = append(wrote, m.FilePath())
			if entries += len(es); entries > foreignEntriesMax {
				return j.invalid("its new manifests name more than %d files: commit them in parts", foreignEntriesMax)
			}
			for _, e := range es {
				f, err := j.entry(e)
				if err != nil {
					return err
				}
				if e.status == iceberg.EntryStatusADDED || j.adopted && e.status != iceberg.EntryStatusDELETED {
					added = append(added, f)
				}
			}
		}
	}
	if j.change != nil { // what was found in the rehearsal
		added = slices.DeleteFunc(added, func(f fileSize) bool { return j.change.settled[f.uri] })
		wrote = slices.DeleteFunc(wrote, func(uri string) bool { return j.change.settled[uri] })
	}
	if err := j.present(ctx, added); err != nil {
		return err
	}
	for _, f := range added {
		wrote = append(wrote, f.uri)
	}
	if err := j.c.settle(ctx, wrote); err != nil {
		return err
	}
	if j.change != nil {
		for _, uri := range wrote {
			j.change.settled[uri] = true
		}
	}
	return nil
}

func (j *judge) snapshot(s *table.Snapshot) error {
	if s.SnapshotID <= 0 {
		return j.invalid("snapshot %d: want an id above 0", s.SnapshotID)
	}
	if s.ManifestList == "" || !j.inside(s.ManifestList) {
		return j.outside("manifest list", s.ManifestList)
	}
	if s.Summary == nil || j.adopted {
		return nil
	}
	for k := range s.Summary.Properties {
		if strings.HasPrefix(k, ownProperties) {
			return j.protected("summary property %s is Tapehouse's own: leave it out of the snapshot", k)
		}
	}
	return nil
}

// fileSize is a file as a manifest describes it.
type fileSize struct {
	uri       string
	sizeBytes int64
}

func (j *judge) entry(e entry) (fileSize, error) {
	f := fileSize{e.data.uri, e.data.SizeBytes}
	if e.content != iceberg.EntryContentData {
		f = fileSize{e.deletes.uri, e.deletes.SizeBytes}
	}
	if e.status == iceberg.EntryStatusDELETED {
		return f, nil
	}
	switch {
	case e.content == iceberg.EntryContentEqDeletes:
		return f, j.unsupported("equality deletes (%s): delete by position (merge-on-read or copy-on-write)", f.uri)
	case e.format != iceberg.ParquetFile:
		return f, j.unsupported("files in format %s (%s): write Parquet", e.format, f.uri)
	case !j.inside(f.uri):
		return f, j.outside("file", f.uri)
	case e.content == iceberg.EntryContentData && e.data.Rows < 0 || f.sizeBytes <= 0:
		return f, j.invalid("file %q: %d rows, %d bytes", f.uri, e.data.Rows, f.sizeBytes)
	}
	return f, nil
}

func (j *judge) outside(what, uri string) error {
	if _, name, ok := strings.Cut(uri, j.after.prefix+"/"); ok && !strings.Contains(name, "..") {
		return j.invalid("%s %q: its name has characters that Iceberg's readers do not spell alike: keep partition values out of names (write.object-storage.enabled=true, write.object-storage.partitioned-paths=false)", what, uri)
	}
	return j.invalid("%s %q lies outside the table's location %s: write it there; a file belongs to one table", what, uri, j.after.Location)
}

// unreadable tells a file that the client should have written from a store that
// does not answer.
func (j *judge) unreadable(ctx context.Context, uri string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if name, ok := j.c.store.Name(uri); ok && !isNotFound(err) {
		if _, statErr := j.c.store.Stat(ctx, name); statErr != nil && !isNotFound(statErr) {
			return err
		}
	}
	return j.invalid("%w", err)
}

func (j *judge) statistics() error {
	was := make(map[string]bool)
	if j.before != nil {
		eachStatistics(j.before.meta, func(uri string) { was[uri] = true })
	}
	var bad string
	eachStatistics(j.after.meta, func(uri string) {
		if !was[uri] && !j.inside(uri) {
			bad = uri
		}
	})
	if bad != "" {
		return j.outside("statistics file", bad)
	}
	return nil
}

// eachStatistics visits the statistics files of a table.
func eachStatistics(meta table.Metadata, fn func(uri string)) {
	for s := range meta.Statistics() {
		fn(s.StatisticsPath)
	}
	for s := range meta.PartitionStatistics() {
		fn(s.StatisticsPath)
	}
}

// present looks for the files that a change adds: one that is not there would
// break every reading of the table.
func (j *judge) present(ctx context.Context, files []fileSize) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan fileSize)
	var wg sync.WaitGroup
	for range min(foreignStatsMax, len(files)) {
		wg.Go(func() {
			for f := range next {
				if err := j.presentOne(ctx, f); err != nil {
					cancel(err)
				}
			}
		})
	}
feed:
	for _, f := range files {
		select {
		case next <- f:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

func (j *judge) presentOne(ctx context.Context, f fileSize) error {
	name, _ := j.c.store.Name(f.uri) // inside has looked
	info, err := j.c.store.Stat(ctx, name)
	switch {
	case isNotFound(err):
		return j.invalid("file %q is not there", f.uri)
	case err != nil:
		return err
	case info.SizeBytes != f.sizeBytes:
		return j.invalid("file %q has %d bytes, the commit says %d", f.uri, info.SizeBytes, f.sizeBytes)
	}
	if err := j.c.unlinked(name, j.after.prefix); err != nil {
		return j.invalid("file %q: %w", f.uri, err)
	}
	return nil
}

// settle makes files durable that a client wrote into a local lake: it may not
// have synced them, and the pointer that is about to name them is durable.
func (c *Catalog) settle(ctx context.Context, uris []string) error {
	local, ok := c.store.(interface {
		Settle(ctx context.Context, names ...string) error
	})
	if !ok || len(uris) == 0 {
		return nil
	}
	names := make([]string, 0, len(uris))
	for _, uri := range uris {
		if name, ok := c.store.Name(uri); ok {
			names = append(names, name)
		}
	}
	return local.Settle(ctx, names...)
}

// unlinked returns an error if symbolic links lead from the object away from the
// directory that it seems to lie in. A lake that is not local has none.
func (c *Catalog) unlinked(name, dir string) error {
	path, ok := c.store.LocalPath(name)
	if !ok {
		return nil
	}
	root, ok := c.store.LocalPath(dir)
	if !ok {
		return nil
	}
	really, err := filepath.EvalSymlinks(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // a lake in memory
	}
	if err != nil {
		return err
	}
	reallyRoot, err := filepath.EvalSymlinks(root)
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(root, path); err != nil || really != filepath.Join(reallyRoot, rel) {
		return errors.New("a symbolic link leads elsewhere")
	}
	return nil
}

// chosenLocation checks a location that a client chose for a new table, and
// spells it as the lake does: two segments, nothing there yet.
func (c *Catalog) chosenLocation(ctx context.Context, location string) (string, error) {
	name, ok := c.store.Name(strings.TrimSuffix(location, "/"))
	if !ok {
		return "", fmt.Errorf("%w location %q: it lies outside the lake %s; leave it out, and one is chosen", ErrInvalid, location, c.store.URI(""))
	}
	if strings.Count(name, "/") != 1 {
		return "", fmt.Errorf("%w location %q: want %sNAMESPACE/DIRECTORY; leave it out, and one is chosen", ErrInvalid, location, c.store.URI(""))
	}
	occupied := errors.New("occupied")
	err := c.store.List(ctx, name+"/", func(lake.Info) error { return occupied })
	if errors.Is(err, occupied) {
		return "", fmt.Errorf("%w location %q: files lie there already: choose another, or register the table", ErrInvalid, location)
	}
	if err != nil {
		return "", err
	}
	if err := c.withinLake(name); err != nil {
		return "", fmt.Errorf("%w location %q: %w", ErrInvalid, location, err)
	}
	return c.store.URI(name), nil
}

// withinLake follows the directories of a name that exist.
func (c *Catalog) withinLake(name string) error {
	for dir := name; ; {
		if path, ok := c.store.LocalPath(dir); ok {
			if _, err := os.Lstat(path); err == nil {
				return c.unlinked(dir, "")
			}
		}
		i := strings.LastIndexByte(dir, '/')
		if i < 0 {
			return nil
		}
		dir = dir[:i]
	}
}
