package catalog

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
)

// stage builds a table's next state in memory.
func (c *Catalog) stage(ctx context.Context, t *Table, m *Commit) (*stagedCommit, error) {
	if err := m.require(t); err != nil {
		return nil, err
	}
	s := c.newStaging(ctx)
	tx, err := table.New(t.Name.identifier(), t.meta, t.pointer, s.fs, c.Library()).NewTransactionOnBranchWithError(table.MainBranch)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", t.Name, err)
	}
	if err := c.stageFiles(ctx, tx, t, m); err != nil {
		if !errors.Is(err, ErrConflict) && !errors.Is(err, ErrInvalid) {
			err = fmt.Errorf("commit %s: %w", t.Name, err)
		}
		return nil, err
	}
	if err := tx.SetProperties(m.nextProperties(t)); err != nil {
		return nil, fmt.Errorf("commit %s: %w", t.Name, err)
	}
	tc, err := tx.TableCommit()
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", t.Name, err)
	}
	updates := tc.Updates
	if len(m.Tags)+len(m.DropTags) > 0 {
		if updates, err = c.stageTags(s, tx, t, m, updates); err != nil {
			return nil, fmt.Errorf("commit %s: %w", t.Name, err)
		}
	}
	if len(updates) == 0 {
		return nil, fmt.Errorf("%w commit of %s: it changes nothing", ErrInvalid, t.Name)
	}
	return c.stageUpdates(ctx, s, t, updates)
}

// stageFiles adds the commit's snapshots to the library's transaction.
func (c *Catalog) stageFiles(ctx context.Context, tx *table.Transaction, t *Table, m *Commit) error {
	if len(m.Replace)+len(m.Deletes) > 0 && !t.Rewritable() {
		return fmt.Errorf("%w: the partitions of table %s are those of another program: change its rows there", ErrUnsupported, t.Name)
	}
	summary := make(iceberg.Properties, len(m.Summary)+1)
	maps.Copy(summary, m.Summary)
	summary[PropertyThrough] = m.nextThrough(t).String()
	add, err := c.newDataFiles(t, m.Add)
	if err != nil {
		return err
	}
	switch {
	case len(m.Replace) > 0:
		old, err := c.requireFiles(ctx, t, m.Replace, true)
		if err != nil {
			return err
		}
		data, deletes, err := c.stubs(old)
		if err != nil {
			return err
		}
		r := tx.NewRewrite(summary)
		r.ApplyResult(table.CompactionGroupResult{OldDataFiles: data, NewDataFiles: add, SafePosDeletes: deletes})
		return r.Commit(ctx)
	case len(m.Remove) > 0:
		old, err := c.requireFiles(ctx, t, m.Remove, true)
		if err != nil {
			return err
		}
		data, deletes, err := c.stubs(old)
		if err != nil {
			return err
		}
		with := add
		if len(m.Deletes) > 0 {
			with = nil // they come with the deletes, in a second snapshot
		}
		if err := tx.ReplaceFiles(ctx, data, with, deletes, summary, table.WithoutAutoNameMapping()); err != nil {
			return err
		}
	}
	if len(m.Deletes) > 0 {
		deletes, err := c.newDeleteFiles(ctx, t, m.Deletes)
		if err != nil {
			return err
		}
		return tx.NewRowDelta(summary).AddRows(add...).AddDeletes(deletes...).Commit(ctx)
	}
	if len(m.Remove) > 0 || len(add) == 0 {
		return nil
	}
	return tx.AddDataFiles(ctx, add, summary, table.WithoutDuplicateCheck(), table.WithoutAutoNameMapping())
}

// newDataFiles describes files to the library, which opens none of them.
func (c *Catalog) newDataFiles(t *Table, files []NewFile) ([]iceberg.DataFile, error) {
	out := make([]iceberg.DataFile, len(files))
	for i, f := range files {
		if f.Stats.Rows <= 0 || f.Stats.SizeBytes <= 0 {
			return nil, fmt.Errorf("%w file %s: %d rows, %d bytes", ErrInvalid, f.Path, f.Stats.Rows, f.Stats.SizeBytes)
		}
		b, err := c.fileBuilder(t, iceberg.EntryContentData, f.Path, f.Partition, f.Stats.Rows, f.Stats.SizeBytes)
		if err != nil {
			return nil, err
		}
		values, nulls, sizes := make(map[int]int64), make(map[int]int64), make(map[int]int64)
		lower, upper := make(map[int][]byte), make(map[int][]byte)
		for _, s := range f.Stats.Columns {
			for m, n := range map[*map[int]int64]int64{&values: s.Values, &nulls: s.Nulls, &sizes: s.SizeBytes} {
				if n >= 0 {
					(*m)[s.FieldID] = n
				}
			}
			if s.Lower != nil {
				lower[s.FieldID] = s.Lower
			}
			if s.Upper != nil {
				upper[s.FieldID] = s.Upper
			}
		}
		b.ValueCounts(values).NullValueCounts(nulls).ColumnSizes(sizes).LowerBoundValues(lower).UpperBoundValues(upper)
		if len(f.Stats.SplitOffsets) > 0 {
			b.SplitOffsets(f.Stats.SplitOffsets)
		}
		out[i] = b.Build()
	}
	return out, nil
}

func (c *Catalog) newDeleteFiles(ctx context.Context, t *Table, deletes []NewDeletes) ([]iceberg.DataFile, error) {
	from := make([]DataFile, len(deletes))
	for i, d := range deletes {
		from[i] = d.From
	}
	from, err := c.requireFiles(ctx, t, from, false)
	if err != nil {
		return nil, err
	}
	out := make([]iceberg.DataFile, len(deletes))
	for i, d := range deletes {
		b, err := c.fileBuilder(t, iceberg.EntryContentPosDeletes, d.Path, from[i].Partition, d.Rows, d.SizeBytes)
		if err != nil {
			return nil, err
		}
		bound := map[int][]byte{positionDeletePath: []byte(from[i].uri)}
		out[i] = b.ReferencedDataFile(from[i].uri).LowerBoundValues(bound).UpperBoundValues(bound).Build()
	}
	return out, nil
}

func (c *Catalog) fileBuilder(t *Table, content iceberg.ManifestEntryContent, file string, p Partition, rows, sizeBytes int64) (*iceberg.DataFileBuilder, error) {
	spec := t.meta.PartitionSpec()
	values := map[int]any{}
	switch {
	case spec.NumFields() == 0 && p.Has:
		return nil, fmt.Errorf("%w file %s: a partition for table %s, which has none", ErrInvalid, file, t.Name)
	case spec.NumFields() > 0 && t.PartitionBy == "":
		return nil, fmt.Errorf("%w: table %s is partitioned by other than one date column", ErrUnsupported, t.Name)
	case t.PartitionBy != "" && p.Has:
		values[t.specDate] = iceberg.Date(p.Value)
	case t.PartitionBy != "":
		values[t.specDate] = nil
	}
	b, err := iceberg.NewDataFileBuilder(spec, content, c.uriOf(file), iceberg.ParquetFile, values, nil, nil, rows, sizeBytes)
	if err != nil {
		return nil, fmt.Errorf("%w file %s: %w", ErrInvalid, file, err)
	}
	return b, nil
}

// stubs names live files to the library, which finds them by location, and the
// delete files that are about nothing but them.
func (c *Catalog) stubs(files []DataFile) (data, deletes []iceberg.DataFile, err error) {
	seen := make(map[string]bool)
	for _, f := range files {
		s, err := stub(iceberg.EntryContentData, f.uri)
		if err != nil {
			return nil, nil, err
		}
		data = append(data, s)
		for _, d := range f.Deletes {
			if d.DataFile == "" || seen[d.uri] {
				continue
			}
			seen[d.uri] = true
			if s, err = stub(iceberg.EntryContentPosDeletes, d.uri); err != nil {
				return nil, nil, err
			}
			deletes = append(deletes, s)
		}
	}
	return data, deletes, nil
}

func stub(content iceberg.ManifestEntryContent, uri string) (iceberg.DataFile, error) {
	b, err := iceberg.NewDataFileBuilder(*iceberg.UnpartitionedSpec, content, uri, iceberg.ParquetFile, nil, nil, nil, 0, 0)
	if err != nil {
		return nil, err
	}
	return b.Build(), nil
}

// stageTags appends the updates for tags. A table without any snapshot gets an
// empty one, so that "nothing at this time" can be tagged too.
func (c *Catalog) stageTags(s *staging, tx *table.Transaction, t *Table, m *Commit, updates []table.Update) ([]table.Update, error) {
	current := int64(0)
	staged, err := tx.StagedTable()
	if err != nil {
		return nil, err
	}
	if sn := staged.CurrentSnapshot(); sn != nil {
		current = sn.SnapshotID
	}
	updates = slices.Clone(updates)
	for _, tag := range m.DropTags {
		updates = append(updates, table.NewRemoveSnapshotRefUpdate(tag))
	}
	for _, tag := range slices.Sorted(maps.Keys(m.Tags)) {
		id := m.Tags[tag]
		if id == 0 && current == 0 {
			empty, err := emptySnapshot(s, t, m)
			if err != nil {
				return nil, err
			}
			current = empty.SnapshotID
			updates = append(updates, table.NewAddSnapshotUpdate(empty),
				table.NewSetSnapshotRefUpdate(table.MainBranch, current, table.BranchRef, 0, 0, 0))
		}
		if id == 0 {
			id = current
		}
		updates = append(updates, table.NewSetSnapshotRefUpdate(tag, id, table.TagRef, 0, 0, 0))
	}
	return updates, nil
}

func emptySnapshot(s *staging, t *Table, m *Commit) (*table.Snapshot, error) {
	random := uuid.New()
	id := int64(binary.BigEndian.Uint64(random[:8])>>1 | 1)
	provider, err := table.LoadLocationProvider(t.meta.Location(), t.meta.Properties())
	if err != nil {
		return nil, err
	}
	location := provider.NewMetadataLocation(fmt.Sprintf("snap-%d-0-%s.avro", id, uuid.New()))
	seq := t.meta.LastSequenceNumber() + 1
	var list bytes.Buffer
	if err := iceberg.WriteManifestList(2, &list, id, nil, &seq, 0, nil); err != nil {
		return nil, err
	}
	if err := s.WriteFile(location, list.Bytes()); err != nil {
		return nil, err
	}
	schema := t.meta.CurrentSchema().ID
	summary := iceberg.Properties{PropertyThrough: m.nextThrough(t).String()}
	maps.Copy(summary, m.Summary)
	return &table.Snapshot{
		SnapshotID: id, SequenceNumber: seq, TimestampMs: time.Now().UnixMilli(), ManifestList: location, SchemaID: &schema,
		Summary: &table.Summary{Operation: table.OpAppend, Properties: summary},
	}, nil
}

// stageUpdates applies updates to the table's metadata and gathers the staged
// files that the result refers to: manifests that were merged at once are not
// among them, and so never reach the disk.
func (c *Catalog) stageUpdates(ctx context.Context, s *staging, t *Table, updates []table.Update) (*stagedCommit, error) {
	meta, err := table.UpdateTableMetadata(t.meta, updates, t.pointer)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", t.Name, err)
	}
	pointer, err := writeMetadata(s, meta, metadataVersion(t.pointer)+1)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", t.Name, err)
	}
	write := []string{pointer}
	for _, sn := range meta.Snapshots() {
		if t.meta.SnapshotByID(sn.SnapshotID) != nil {
			continue
		}
		write = append(write, sn.ManifestList)
		manifests, err := sn.Manifests(s)
		if err != nil {
			return nil, fmt.Errorf("commit %s: %w", t.Name, err)
		}
		for _, m := range manifests {
			write = append(write, m.FilePath())
		}
	}
	slices.Sort(write)
	after, err := c.newTable(t.Name, pointer, meta)
	if err != nil {
		return nil, err
	}
	return &stagedCommit{before: t, after: after, staging: s, write: slices.Compact(write)}, ctx.Err()
}

// writeMetadata stages the metadata file of the given version.
func writeMetadata(s *staging, meta table.Metadata, version int) (location string, err error) {
	provider, err := table.LoadLocationProvider(meta.Location(), meta.Properties())
	if err != nil {
		return "", err
	}
	if location, err = provider.NewTableMetadataFileLocation(version); err != nil {
		return "", err
	}
	b, err := json.Marshal(meta)
	if err != nil {
		return "", err
	}
	switch codec := meta.Properties().Get(table.MetadataCompressionKey, table.MetadataCompressionDefault); codec {
	case table.MetadataCompressionCodecNone:
	case table.MetadataCompressionCodecGzip:
		if b, err = gzipped(b); err != nil {
			return "", err
		}
	default:
		return "", fmt.Errorf("%w: metadata compression %q", ErrUnsupported, codec)
	}
	return location, s.WriteFile(location, b)
}

// compressors are kept: a new one costs 800 KB of cleared memory, which was a
// third of a commit's CPU.
var compressors = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

func gzipped(b []byte) ([]byte, error) {
	var z bytes.Buffer
	w := compressors.Get().(*gzip.Writer)
	defer compressors.Put(w)
	w.Reset(&z)
	_, err := w.Write(b)
	err = errors.Join(err, w.Close())
	return z.Bytes(), err
}

var metadataVersionRE = regexp.MustCompile(`^v?(\d+)[-.]`)

// metadataVersion reads the version from a metadata file's name; 0 if it has none.
func metadataVersion(location string) int {
	m := metadataVersionRE.FindStringSubmatch(path.Base(location))
	if m == nil {
		return 0
	}
	v, err := strconv.Atoi(m[1])
	if err != nil {
		return 0
	}
	return v
}
