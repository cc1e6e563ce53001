package catalog

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/tapehouse/tapehouse/internal/record"
)

const (
	// ownProperties is what the names of this program's properties begin with.
	ownProperties = "tapehouse."
	// propertyDataPath and propertyMetadataPath say where writers put files.
	propertyDataPath     = "write.data.path"
	propertyMetadataPath = "write.metadata.path"
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

// inside reports whether the URI lies below the table's location, within the
// lake, however it is spelt: Hadoop's file systems write file:/ for file:///.
func (j *judge) inside(uri string) bool {
	name, ok := j.c.store.Name(strings.TrimSuffix(uri, "/"))
	return ok && j.after.prefix != "" && strings.HasPrefix(name, j.after.prefix+"/")
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
