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
	"github.com/tapehouse/tapehouse/internal/record"
)

const (
	// ownProperties is what the names of this program's properties begin with.
	ownProperties = "tapehouse."
	// propertyDataPath and propertyMetadataPath say where writers put files.
	propertyDataPath     = "write.data.path"
	propertyMetadataPath = "write.metadata.path"

	// foreignEntriesMax bounds the files that the new manifests of one change name.
	foreignEntriesMax = 1_000_000
	// foreignStatsMax is how many of a change's new files are looked for at once.
	foreignStatsMax = 16
)

// judge compares a table before and after a foreign change, whatever the updates
// were by which the client came from one to the other.
type judge struct {
	c       *Catalog
	guard   *Guard
	before  *Table         // nil: the table is made
	after   *Table         // in memory
	change  *foreignChange // that leads from one to the other; nil without before
	placed  bool           // the client chose a new table's location, and it was looked at
	adopted bool           // a new table comes with the snapshots of its files

	garbage []string // out: files that only removed snapshots referred to
}

func (j *judge) name() Name { return j.after.Name }

func (j *judge) invalid(format string, a ...any) error {
	return fmt.Errorf("%w commit of %s: %w", ErrInvalid, j.name(), fmt.Errorf(format, a...))
}

func (j *judge) unsupported(format string, a ...any) error {
	return fmt.Errorf("%w: table %s: %w", ErrUnsupported, j.name(), fmt.Errorf(format, a...))
}

func (j *judge) protected(format string, a ...any) error {
	return fmt.Errorf("%w: table %s: %w", ErrProtected, j.name(), fmt.Errorf(format, a...))
}

// all is every rule, the cheap ones first.
func (j *judge) all(ctx context.Context) error {
	for _, rule := range []func(context.Context) error{j.form, j.place, j.properties, j.schema, j.references, j.streams, j.files, j.removals} {
		if err := rule(ctx); err != nil {
			return err
		}
	}
	return nil
}

// form: what the engine reads.
func (j *judge) form(context.Context) error {
	if j.before != nil && j.guard.Kept != nil {
		if why := j.guard.Kept(j.before); why != "" {
			return j.protected("%s: it cannot be changed from outside", why)
		}
	}
	meta := j.after.meta
	if meta.Version() != formatVersion {
		return j.unsupported("format version %d: this program reads and writes %d: create it with format-version=%d", meta.Version(), formatVersion, formatVersion)
	}
	for range meta.EncryptionKeys() {
		return j.unsupported("encryption keys: encrypt the disk or the bucket instead")
	}
	for name, ref := range meta.Refs() {
		if name == table.MainBranch && ref.SnapshotRefType != table.BranchRef {
			return j.invalid("%s must be a branch", name)
		}
		if name == "" || len(name) > 255 {
			return j.invalid("reference %q: want 1 to 255 characters", name)
		}
	}
	return nil
}

// place: a table stays where it is, and begins where no other one is.
func (j *judge) place(context.Context) error {
	location := j.after.meta.Location()
	if j.before != nil {
		if location != j.before.meta.Location() {
			return j.protected("its location is %s and cannot be changed to %q: a table does not move", j.before.Location, location)
		}
		return nil
	}
	if j.placed || j.adopted {
		return nil
	}
	if want := j.c.defaultLocation(j.name(), j.after.UUID); location != want {
		return j.invalid("location %q: a table of this UUID begins at %s: begin with stage-create, which says so", location, want)
	}
	return nil
}

// properties: ours are ours, and files stay below the location.
func (j *judge) properties(context.Context) error {
	after := j.after.Properties
	if err := checkProperties(after); err != nil {
		return err
	}
	var before map[string]string
	if j.before != nil {
		before = j.before.Properties
	}
	for _, of := range []map[string]string{before, after} {
		for k := range of {
			if !strings.HasPrefix(k, ownProperties) {
				continue
			}
			b, had := before[k]
			a, has := after[k]
			if had != has || a != b {
				return j.protected("property %s is Tapehouse's own: it cannot be set, changed or removed from outside", k)
			}
		}
	}
	for _, k := range []string{propertyDataPath, propertyMetadataPath, "write.object-storage.path", "write.folder-storage.path"} {
		if p, ok := after[k]; ok && !j.inside(p) && p != before[k] {
			return j.invalid("property %s: %q lies outside the table's location %s", k, p, j.after.Location)
		}
	}
	return nil
}

// inside reports whether the URI lies below the table's location, within the lake.
func (j *judge) inside(uri string) bool {
	if _, ok := j.c.store.Name(strings.TrimSuffix(uri, "/")); !ok {
		return false
	}
	return strings.HasPrefix(uri, j.after.Location+"/")
}

// schema: the bounds of every table.
func (j *judge) schema(context.Context) error {
	after := j.after.meta.CurrentSchema()
	if j.before != nil && after.ID == j.before.meta.CurrentSchema().ID {
		return nil
	}
	if n := len(after.Fields()); n == 0 || n > columnsMax {
		return j.invalid("%d columns: want 1 to %d", n, columnsMax)
	}
	seen := make(map[string]bool)
	for _, f := range after.Fields() {
		lower := strings.ToLower(f.Name)
		if f.Name == "" || len(f.Name) > columnBytesMax || seen[lower] {
			return j.invalid("column name %q: want 1 to %d bytes, and no two that differ only by case", f.Name, columnBytesMax)
		}
		seen[lower] = true
	}
	return nil
}

// references: tags of sealed dates are never set, moved or removed.
func (j *judge) references(context.Context) error {
	if j.guard.Sealed == nil {
		return nil
	}
	was, is := make(map[string]table.SnapshotRef), make(map[string]table.SnapshotRef)
	if j.before != nil {
		for name, ref := range j.before.meta.Refs() {
			was[name] = ref
		}
	}
	for name, ref := range j.after.meta.Refs() {
		is[name] = ref
	}
	for name, ref := range was {
		if now, ok := is[name]; j.guard.Sealed(name) && (!ok || !now.Equals(ref)) {
			return j.protected("tag %s keeps a sealed trade date: it cannot be moved or removed", name)
		}
	}
	for name := range is {
		if _, ok := was[name]; j.guard.Sealed(name) && !ok && !j.adopted {
			return j.protected("tag %s: names like it are for sealed trade dates: choose another", name)
		}
	}
	return nil
}

// streams: what a stream has delivered stays, and it can go on: columns are added
// at the end, optional, and widened, as streams themselves do it.
func (j *judge) streams(context.Context) error {
	if j.before == nil {
		return nil
	}
	why := ""
	if len(j.before.through) > 0 {
		why = "a delivery stream has fed it"
	} else if j.change.stream != "" {
		why = "delivery stream " + j.change.stream + " feeds it"
	}
	if why == "" {
		return nil
	}
	if from := j.before.current; from != 0 && j.after.current != from {
		s := j.after.meta.CurrentSnapshot()
		for s != nil && s.SnapshotID != from {
			s = j.after.parent(s)
		}
		if s == nil {
			return j.protected("%s: main can only go on from snapshot %d, not back or elsewhere: the records since would be lost", why, from)
		}
	}
	if j.after.meta.DefaultPartitionSpec() != j.before.meta.DefaultPartitionSpec() {
		return j.protected("%s: its partitions cannot be changed", why)
	}
	if j.after.meta.CurrentSchema().ID == j.before.meta.CurrentSchema().ID {
		return nil
	}
	was, is := j.before.meta.CurrentSchema().Fields(), j.after.meta.CurrentSchema().Fields()
	for i, f := range was {
		if i >= len(is) || is[i].ID != f.ID || is[i].Name != f.Name || is[i].Required != f.Required || !widens(f.Type, is[i].Type) {
			return j.protected("%s: column %q cannot be dropped, moved, renamed or given another type; an int may become a long, a decimal may get more digits, columns may be added at the end", why, f.Name)
		}
	}
	for _, f := range is[len(was):] {
		if f.Required {
			return j.protected("%s: column %q: a column added later is optional", why, f.Name)
		}
	}
	return nil
}

// widens reports whether a stream's records of one type go into the other.
func widens(from, to iceberg.Type) bool {
	if from.Equals(to) {
		return true
	}
	a, errA := record.ParseType(from.String())
	b, errB := record.ParseType(to.String())
	if errA != nil || errB != nil {
		return false
	}
	return a.Kind == record.Int && b.Kind == record.Long ||
		a.Kind == record.Decimal && b.Kind == record.Decimal && a.Scale == b.Scale && b.Precision > a.Precision
}

// removals: a snapshot goes when nothing needs it. What only it referred to is
// garbage, whether or not the client deletes it.
func (j *judge) removals(ctx context.Context) error {
	if j.before == nil {
		return nil
	}
	removed := make(map[int64]bool)
	var ids []int64
	for _, s := range j.before.meta.Snapshots() {
		if j.after.meta.SnapshotByID(s.SnapshotID) == nil {
			removed[s.SnapshotID] = true
			ids = append(ids, s.SnapshotID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	still := make(map[string]bool)
	for name := range j.after.meta.Refs() {
		still[name] = true
	}
	for name, ref := range j.before.meta.Refs() {
		if removed[ref.SnapshotID] && !still[name] && !j.change.dropsRef[name] {
			return j.protected("snapshot %d is kept by %s %s: remove that first", ref.SnapshotID, ref.SnapshotRefType, name)
		}
	}
	for _, from := range j.change.needed {
		if removed[from] {
			return j.protected("a materialized view still needs snapshot %d: refresh it first", from)
		}
		for s := j.before.meta.CurrentSnapshot(); s != nil && s.SnapshotID != from; s = j.before.parent(s) {
			if removed[s.SnapshotID] && j.descends(s.SnapshotID, from) {
				return j.protected("a materialized view still needs snapshot %d: refresh it first", s.SnapshotID)
			}
		}
	}
	garbage, err := j.c.unreferencedBy(ctx, j.before, ids)
	if err != nil {
		return err
	}
	if garbage, err = j.stillReferred(ctx, garbage); err != nil {
		return err
	}
	for _, uri := range garbage {
		if j.guard.Pinned != nil && j.guard.Pinned(j.c.pathOf(uri)) {
			return &ConflictError{j.name().String(), "snapshots", "not read by a query", uri + " is: try again later"}
		}
	}
	j.garbage = garbage
	return nil
}

// descends reports whether the snapshot comes after from, before the change.
func (j *judge) descends(id, from int64) bool {
	for s := j.before.meta.SnapshotByID(id); s != nil; s = j.before.parent(s) {
		if s.SnapshotID == from {
			return true
		}
	}
	return false
}

// stillReferred leaves out what the change's own snapshots refer to.
func (j *judge) stillReferred(ctx context.Context, garbage []string) ([]string, error) {
	candidates := make(map[string]bool, len(garbage))
	for _, uri := range garbage {
		candidates[uri] = true
	}
	for _, s := range j.newSnapshots() {
		list, err := j.c.manifestList(ctx, &s)
		if err != nil {
			return nil, j.unreadable(ctx, s.ManifestList, err)
		}
		delete(candidates, s.ManifestList)
		for _, m := range list {
			delete(candidates, m.FilePath())
			if err := j.c.eachLive(ctx, m, func(uri string) { delete(candidates, uri) }); err != nil {
				return nil, j.unreadable(ctx, m.FilePath(), err)
			}
		}
	}
	return slices.DeleteFunc(garbage, func(uri string) bool { return !candidates[uri] }), nil
}

func (j *judge) newSnapshots() []table.Snapshot {
	var out []table.Snapshot
	for _, s := range j.after.meta.Snapshots() {
		if j.before == nil || j.before.meta.SnapshotByID(s.SnapshotID) == nil {
			out = append(out, s)
		}
	}
	return out
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

func (j *judge) outside(what, uri string) error {
	if name, ok := strings.CutPrefix(uri, j.after.Location+"/"); ok && !strings.Contains(name, "..") {
		return j.invalid("%s %q: its name has characters that Iceberg's readers do not spell alike: keep partition values out of names (write.object-storage.enabled=true, write.object-storage.partitioned-paths=false)", what, uri)
	}
	return j.invalid("%s %q lies outside the table's location %s: write it there; a file belongs to one table", what, uri, j.after.Location)
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
