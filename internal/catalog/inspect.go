package catalog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
)

// What Iceberg's metadata tables show of a table.

// Ref is a branch or tag. What is nil is not set.
type Ref struct {
	Name, Type           string // Type: branch, tag
	SnapshotID           int64
	MaxRefAgeMillis      *int64
	MinSnapshotsToKeep   *int
	MaxSnapshotAgeMillis *int64
}

// Refs lists the branches and tags, sorted by name.
func (t *Table) Refs() []Ref {
	refs := maps.Collect(t.meta.Refs())
	out := make([]Ref, 0, len(refs))
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		r := refs[name]
		out = append(out, Ref{name, string(r.SnapshotRefType), r.SnapshotID, r.MaxRefAgeMs, r.MinSnapshotsToKeep, r.MaxSnapshotAgeMs})
	}
	return out
}

// HistoryEntry says when a snapshot became the current one.
type HistoryEntry struct {
	MadeCurrentAt     time.Time // UTC
	SnapshotID        int64
	Parent            int64 // 0 for none, and for a snapshot that has expired
	IsCurrentAncestor bool
}

// History lists which snapshots were current, in that order.
func (t *Table) History() []HistoryEntry {
	ancestors := map[int64]bool{}
	for s := t.meta.CurrentSnapshot(); s != nil && !ancestors[s.SnapshotID]; s = t.parent(s) {
		ancestors[s.SnapshotID] = true
	}
	var out []HistoryEntry
	for e := range t.meta.SnapshotLogs() {
		h := HistoryEntry{MadeCurrentAt: time.UnixMilli(e.TimestampMs).UTC(), SnapshotID: e.SnapshotID, IsCurrentAncestor: ancestors[e.SnapshotID]}
		if s := t.meta.SnapshotByID(e.SnapshotID); s != nil && s.ParentSnapshotID != nil {
			h.Parent = *s.ParentSnapshotID
		}
		out = append(out, h)
	}
	return out
}

// ManifestList is the location of a snapshot's list of manifests, "" if it is not
// known.
func (t *Table) ManifestList(snapshot int64) string {
	if s := t.meta.SnapshotByID(snapshot); s != nil {
		return s.ManifestList
	}
	return ""
}

// InspectedFile is a file as the current snapshot's manifests describe it. Maps
// are by field id; bounds are values as text.
type InspectedFile struct {
	Content             int    // 0 data, 1 position deletes, 2 equality deletes
	Path                string // the location
	Format              string
	SpecID              int32
	Partition           map[string]string // values by the partition fields' names; a null is not there
	PartitionKey        string            // tells partitions apart
	Rows, SizeBytes     int64
	ColumnSizes         map[int]int64
	Values, Nulls, NaNs map[int]int64
	Lower, Upper        map[int]string
	KeyMetadata         []byte
	SplitOffsets        []int64
	EqualityIDs         []int
	SortOrderID         *int
	AddedBy             int64 // snapshot
}

// inspectedMax bounds the files that are inspected at once.
const inspectedMax = 100_000

// InspectFiles lists the live files of the current snapshot, deletes among them.
// ErrUnsupported above 100,000 files.
func (c *Catalog) InspectFiles(ctx context.Context, t *Table) ([]InspectedFile, error) {
	if err := c.usable(false); err != nil {
		return nil, err
	}
	s := t.meta.CurrentSnapshot()
	if s == nil {
		return nil, nil
	}
	list, err := c.manifestList(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("inspect table %s: %w", t.Name, err)
	}
	var out []InspectedFile
	for _, m := range list {
		for r, err := range m.Entries(c.newStaging(ctx), true) {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return nil, fmt.Errorf("inspect table %s: read manifest %s: %w", t.Name, m.FilePath(), err)
			}
			if len(out) >= inspectedMax {
				return nil, fmt.Errorf("inspect table %s: %w: more than %d files", t.Name, ErrUnsupported, inspectedMax)
			}
			out = append(out, t.inspect(r))
		}
	}
	slices.SortFunc(out, func(a, b InspectedFile) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

func (t *Table) inspect(r iceberg.ManifestEntry) InspectedFile {
	df := r.DataFile()
	f := InspectedFile{
		Content: int(df.ContentType()), Path: df.FilePath(), Format: strings.ToUpper(string(df.FileFormat())), SpecID: df.SpecID(),
		Partition: map[string]string{}, Rows: df.Count(), SizeBytes: df.FileSizeBytes(), ColumnSizes: df.ColumnSizes(), Values: df.ValueCounts(),
		Nulls: df.NullValueCounts(), NaNs: df.NaNValueCounts(), KeyMetadata: df.KeyMetadata(), SplitOffsets: df.SplitOffsets(),
		EqualityIDs: df.EqualityFieldIDs(), SortOrderID: df.SortOrderID(), AddedBy: r.SnapshotID(),
	}
	f.Lower, f.Upper = t.bounds(df.LowerBoundValues()), t.bounds(df.UpperBoundValues())
	names, dates := map[int]string{}, map[int]bool{}
	for _, spec := range t.meta.PartitionSpecs() {
		if spec.ID() != int(df.SpecID()) {
			continue
		}
		for _, p := range spec.Fields() {
			names[p.FieldID] = p.Name
			if _, identity := p.Transform.(iceberg.IdentityTransform); identity && len(p.SourceIDs) == 1 {
				source, ok := t.meta.CurrentSchema().FindFieldByID(p.SourceIDs[0])
				dates[p.FieldID] = ok && source.Type.Equals(iceberg.PrimitiveTypes.Date)
			}
		}
	}
	key := fmt.Sprint(df.SpecID())
	values := df.Partition()
	for _, id := range slices.Sorted(maps.Keys(values)) {
		v := values[id]
		key += fmt.Sprintf(",%d=%v", id, v)
		switch d := dateOf(v); {
		case v == nil || names[id] == "":
		case dates[id] && d.Has:
			f.Partition[names[id]] = time.Unix(int64(d.Value)*86_400, 0).UTC().Format(time.DateOnly)
		default:
			f.Partition[names[id]] = fmt.Sprint(v)
		}
	}
	f.PartitionKey = key
	return f
}

// bounds are bounds as texts. What has no text is left out.
func (t *Table) bounds(binary map[int][]byte) map[int]string {
	out := make(map[int]string, len(binary))
	for id, b := range binary {
		field, ok := t.meta.CurrentSchema().FindFieldByID(id)
		if !ok {
			continue
		}
		if l, err := iceberg.LiteralFromBytes(field.Type, b); err == nil {
			out[id] = l.String()
		}
	}
	return out
}
