package catalog

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
)

// Partition is a file's value of the table's identity partition on a Date
// column. Has is false for a table without partitions, for a null, and for a
// file written under a former partition spec.
type Partition struct {
	Value int32 // days since 1970-01-01
	Has   bool
}

// ColumnStats describes one column of a file. Bounds are in Iceberg's
// single-value binary form; nil means not known. They may be truncated: a lower
// bound is not above, an upper bound not below any value.
type ColumnStats struct {
	FieldID                  int
	Values, Nulls, SizeBytes int64 // Values counts nulls too; -1 means not known
	Lower, Upper             []byte
}

// DataFile is a live data file of a snapshot. Its slices are shared and must not
// be modified.
type DataFile struct {
	Path            string // absolute where the lake is local, otherwise the URI
	Partition       Partition
	Rows, SizeBytes int64 // Rows does not account for Deletes
	SchemaID        int   // of the snapshot that added it; -1 if that has expired. Columns are found by field id in any case
	Columns         []ColumnStats
	SplitOffsets    []int64
	AddedBy         int64        // snapshot
	Deletes         []DeleteFile // position deletes that apply, sorted by path

	uri string
	seq int64
}

// Range gives the bounds of a column's values, nil if they are not known.
func (f *DataFile) Range(fieldID int) (lower, upper []byte) {
	for i := range f.Columns {
		if c := &f.Columns[i]; c.FieldID == fieldID {
			return c.Lower, c.Upper
		}
	}
	return nil, nil
}

// DeleteFile is a Parquet file of positions deleted from data files: columns
// file_path (the data file's location as in the metadata, see DataFile.URI) and pos.
type DeleteFile struct {
	Path            string
	Rows, SizeBytes int64
	DataFile        string // URI of the one data file it is about, or "" if of several

	uri string
	seq int64
}

// URI is the file's location as Iceberg metadata spells it.
func (f DataFile) URI() string { return f.uri }

// entry is a decoded manifest entry.
type entry struct {
	status       iceberg.ManifestEntryStatus
	snapshot     int64
	content      iceberg.ManifestEntryContent
	format       iceberg.FileFormat
	partitionKey string // spec and values, to match deletes with data
	spec         int32
	data         DataFile   // content data
	deletes      DeleteFile // otherwise
}

type manifestHeader = iceberg.ManifestFile

type planKey struct {
	table    uuid.UUID
	snapshot int64
}

// positionDeletePath is the reserved field id of file_path in delete files.
const positionDeletePath = 2147483546

// Files lists the data files of the state that at selects, sorted by partition
// and path, with the position deletes that apply. The result is shared.
func (c *Catalog) Files(ctx context.Context, t *Table, at At) ([]DataFile, error) {
	if err := c.usable(false); err != nil {
		return nil, err
	}
	id, err := t.Resolve(at)
	if err != nil {
		return nil, err
	}
	if id == 0 {
		return nil, nil
	}
	return c.plan(ctx, t, id)
}

// FilesIn keeps of files those that may hold rows of one of the partitions
// (days since 1970-01-01). A file without a partition value is always kept.
func FilesIn(files []DataFile, partitions ...int32) []DataFile {
	out := make([]DataFile, 0, len(files))
	for _, f := range files {
		if !f.Partition.Has || slices.Contains(partitions, f.Partition.Value) {
			out = append(out, f)
		}
	}
	return out
}

// plan reads the live files of a snapshot.
func (c *Catalog) plan(ctx context.Context, t *Table, snapshot int64) ([]DataFile, error) {
	key := planKey{t.UUID, snapshot}
	if files, ok := c.plans.get(key); ok {
		return files, nil
	}
	s := t.meta.SnapshotByID(snapshot)
	if s == nil {
		return nil, fmt.Errorf("table %s: snapshot %d: %w", t.Name, snapshot, ErrNotFound)
	}
	live, err := c.live(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("plan table %s at snapshot %d: %w", t.Name, snapshot, err)
	}
	files, err := c.assemble(t, live)
	if err != nil {
		return nil, fmt.Errorf("plan table %s at snapshot %d: %w", t.Name, snapshot, err)
	}
	c.plans.put(key, files)
	return files, nil
}

// live returns the entries of a snapshot that are not deletions.
func (c *Catalog) live(ctx context.Context, s *table.Snapshot) ([]entry, error) {
	list, err := c.manifestList(ctx, s)
	if err != nil {
		return nil, err
	}
	var out []entry
	for _, m := range list {
		entries, err := c.manifest(ctx, m)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.status != iceberg.EntryStatusDELETED {
				out = append(out, e)
			}
		}
	}
	return out, nil
}

// assemble makes data files of live entries and gives each its deletes.
func (c *Catalog) assemble(t *Table, live []entry) ([]DataFile, error) {
	schemaOf := make(map[int64]int)
	for _, s := range t.meta.Snapshots() {
		if s.SchemaID != nil {
			schemaOf[s.SnapshotID] = *s.SchemaID
		}
	}
	spec := int32(t.meta.DefaultPartitionSpec())
	byFile := make(map[string][]DeleteFile)      // by data file
	byPartition := make(map[string][]DeleteFile) // those of several data files
	files := make([]DataFile, 0, len(live))
	keys := make([]string, 0, len(live))
	for _, e := range live {
		switch {
		case e.content == iceberg.EntryContentData && e.format == iceberg.ParquetFile:
			f := e.data
			if id, ok := schemaOf[f.AddedBy]; ok {
				f.SchemaID = id
			}
			if t.PartitionBy == "" || e.spec != spec {
				f.Partition = Partition{}
			}
			files, keys = append(files, f), append(keys, e.partitionKey)
		case e.content == iceberg.EntryContentPosDeletes && e.format == iceberg.ParquetFile && e.deletes.DataFile != "":
			byFile[e.deletes.DataFile] = append(byFile[e.deletes.DataFile], e.deletes)
		case e.content == iceberg.EntryContentPosDeletes && e.format == iceberg.ParquetFile:
			byPartition[e.partitionKey] = append(byPartition[e.partitionKey], e.deletes)
		default:
			return nil, fmt.Errorf("%w: %s file in format %s: %s", ErrUnsupported, e.content, e.format, cmp.Or(e.data.uri, e.deletes.uri))
		}
	}
	for i := range files {
		f := &files[i]
		for _, d := range byFile[f.uri] {
			if d.seq >= f.seq {
				f.Deletes = append(f.Deletes, d)
			}
		}
		for _, d := range byPartition[keys[i]] {
			if d.seq >= f.seq {
				f.Deletes = append(f.Deletes, d)
			}
		}
		slices.SortFunc(f.Deletes, func(a, b DeleteFile) int { return strings.Compare(a.uri, b.uri) })
	}
	slices.SortFunc(files, compareFiles)
	return files, nil
}

func compareFiles(a, b DataFile) int {
	return cmp.Or(cmp.Compare(a.Partition.Value, b.Partition.Value), strings.Compare(a.uri, b.uri))
}

// manifestList reads, or finds in the cache, a snapshot's list of manifests.
func (c *Catalog) manifestList(ctx context.Context, s *table.Snapshot) ([]manifestHeader, error) {
	if s.ManifestList != "" {
		if l, ok := c.lists.get(s.ManifestList); ok {
			return l, nil
		}
	}
	l, err := s.Manifests(c.newStaging(ctx))
	if err != nil {
		return nil, fmt.Errorf("read manifest list %s: %w", s.ManifestList, err)
	}
	if s.ManifestList != "" {
		c.lists.put(s.ManifestList, l)
	}
	return l, nil
}

// manifest reads, or finds in the cache, a manifest's entries. A manifest never
// changes, so the path is the key.
func (c *Catalog) manifest(ctx context.Context, m manifestHeader) ([]entry, error) {
	if entries, ok := c.manifests.get(m.FilePath()); ok {
		return entries, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	c.metrics.manifestsRead.Inc()
	var entries []entry
	for r, err := range m.Entries(c.newStaging(ctx), false) {
		if err != nil {
			return nil, fmt.Errorf("read manifest %s: %w", m.FilePath(), err)
		}
		entries = append(entries, c.decodeEntry(r))
	}
	c.manifests.put(m.FilePath(), entries)
	return entries, nil
}

func (c *Catalog) decodeEntry(r iceberg.ManifestEntry) entry {
	df := r.DataFile()
	e := entry{
		status: r.Status(), snapshot: r.SnapshotID(), content: df.ContentType(), format: df.FileFormat(), spec: df.SpecID(),
	}
	values := df.Partition()
	var key strings.Builder
	key.WriteString(strconv.Itoa(int(df.SpecID())))
	for _, id := range slices.Sorted(maps.Keys(values)) {
		fmt.Fprintf(&key, ",%d=%v", id, values[id])
	}
	e.partitionKey = key.String()
	uri := df.FilePath()
	if e.content == iceberg.EntryContentData {
		e.data = DataFile{
			Path: c.pathOf(uri), Rows: df.Count(), SizeBytes: df.FileSizeBytes(), SchemaID: -1,
			Columns: statsOf(df), SplitOffsets: df.SplitOffsets(), AddedBy: r.SnapshotID(), uri: uri, seq: r.SequenceNum(),
		}
		if len(values) == 1 {
			for _, v := range values {
				e.data.Partition = dateOf(v)
			}
		}
		return e
	}
	e.deletes = DeleteFile{Path: c.pathOf(uri), Rows: df.Count(), SizeBytes: df.FileSizeBytes(), uri: uri, seq: r.SequenceNum()}
	if ref := df.ReferencedDataFile(); ref != nil {
		e.deletes.DataFile = *ref
	} else if lo, hi := df.LowerBoundValues()[positionDeletePath], df.UpperBoundValues()[positionDeletePath]; len(lo) > 0 && string(lo) == string(hi) {
		e.deletes.DataFile = string(lo)
	}
	return e
}

// pathOf is a location as the engine opens it.
func (c *Catalog) pathOf(uri string) string {
	if name, ok := c.store.Name(uri); ok {
		if p, ok := c.store.LocalPath(name); ok {
			return p
		}
	}
	return strings.TrimPrefix(uri, "file://")
}

// uriOf is the location of a file given as a path, a URI or a lake name.
func (c *Catalog) uriOf(path string) string {
	if strings.Contains(path, "://") {
		return path
	}
	if name, ok := c.store.Name(path); ok {
		return c.store.URI(name)
	}
	if strings.HasPrefix(path, "/") {
		return "file://" + path
	}
	return c.store.URI(path)
}

func dateOf(v any) Partition {
	switch d := v.(type) {
	case iceberg.Date:
		return Partition{int32(d), true}
	case int32:
		return Partition{d, true}
	case time.Time:
		return Partition{int32(d.Unix() / 86_400), true}
	}
	return Partition{}
}

func statsOf(df iceberg.DataFile) []ColumnStats {
	values, nulls, sizes := df.ValueCounts(), df.NullValueCounts(), df.ColumnSizes()
	lower, upper := df.LowerBoundValues(), df.UpperBoundValues()
	ids := make(map[int]struct{}, len(values))
	for id := range values {
		ids[id] = struct{}{}
	}
	for id := range sizes {
		ids[id] = struct{}{}
	}
	for id := range lower {
		ids[id] = struct{}{}
	}
	out := make([]ColumnStats, 0, len(ids))
	known := func(m map[int]int64, id int) int64 {
		if n, ok := m[id]; ok {
			return n
		}
		return -1
	}
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		out = append(out, ColumnStats{id, known(values, id), known(nulls, id), known(sizes, id), lower[id], upper[id]})
	}
	return out
}
