// Package maintain keeps tables in good shape: it sorts a partition's many
// small files into few large ones, and removes what nothing needs any more.
//
// Invariants:
//   - A compaction changes no row: count and content of what was written are
//     compared with what was read before the commit, and the commit fails if a
//     file has changed in between.
//   - A tagged snapshot, a file that a query has pinned, and what a view still
//     has to read are never removed.
//   - A file is removed only after a grace period, so that a query that has just
//     resolved a table finds its files.
package maintain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/record"
)

// PropertySort is the table property that says how compaction sorts: columns,
// parted by commas.
const PropertySort = "tapehouse.sort"

// compactPrefix begins the names of files that a compaction wrote.
const compactPrefix = "compact-"

// fileSizeBytesMax is the size that a compacted file stays below, as far as the
// sizes of the files that go into it tell.
const fileSizeBytesMax = 256 << 20

// ErrContent says that a compaction would have changed rows. Nothing was done.
var ErrContent = errors.New("compaction would change rows")

// ErrForeign says that a table has columns which this program does not write.
var ErrForeign = errors.New("table has columns of types that are not compacted")

// Catalog is what maintenance needs of the catalog. *catalog.Catalog meets it.
type Catalog interface {
	Load(ctx context.Context, name catalog.Name) (*catalog.Table, error)
	List(ctx context.Context, namespace string) ([]catalog.Name, error)
	Files(ctx context.Context, t *catalog.Table, at catalog.At) ([]catalog.DataFile, error)
	Commit(ctx context.Context, commits []catalog.Commit, documents ...catalog.DocumentWrite) ([]*catalog.Table, error)
	Expire(ctx context.Context, name catalog.Name, policy catalog.ExpirePolicy) (catalog.ExpireResult, error)
	Sweep(ctx context.Context, policy catalog.SweepPolicy) (catalog.SweepResult, error)
	Expirable(ctx context.Context, name catalog.Name, policy catalog.ExpirePolicy) (catalog.ExpireResult, error)
	Sweepable(ctx context.Context, policy catalog.SweepPolicy) (catalog.SweepResult, error)
	Orphans(ctx context.Context, name catalog.Name, minAge time.Duration) ([]catalog.Orphan, error)
	DeleteOrphans(ctx context.Context, name catalog.Name, minAge time.Duration, pinned func(path string) bool) ([]catalog.Orphan, error)
}

// Options configure New. Catalog, Engine, Store and Staging are required.
type Options struct {
	Catalog Catalog
	Engine  *engine.Engine
	Store   lake.Store
	Staging string // directory for files in the making; one of the engine's AllowedDirs

	Interval     time.Duration // between rounds of the loop; default 5 min
	SnapshotAge  time.Duration // younger snapshots are kept; default 1 h
	SnapshotsMin int           // newest snapshots kept whatever their age; default 10
	SnapshotsMax int           // more are not kept, however young; default 1000
	Grace        time.Duration // from a file's last reference to its removal; default 1 h
	// OrphanAge is how old a file that was never committed must be before it is
	// removed; it exceeds the longest time from writing to commit. Default 24 h.
	OrphanAge time.Duration
	// Ingested is how many records have been taken in so far: while it grows, merging
	// small files takes a tenth of the time. nil: it never does.
	Ingested func() int64
	// Needs tells the snapshots that deltas are still read from, by table; nil:
	// none. If it fails nothing is expired.
	Needs func(ctx context.Context) (map[catalog.Name][]int64, error)
	// Turn says whether the next round of the loop is this server's; nil: each is.
	Turn func(ctx context.Context) (bool, error)

	Logger     *slog.Logger          // nil: discard
	Registerer prometheus.Registerer // nil: no metrics
	Now        func() time.Time      // nil: time.Now
}

func (o *Options) setDefaults() {
	for _, d := range []struct {
		v *time.Duration
		d time.Duration
	}{{&o.Interval, 5 * time.Minute}, {&o.SnapshotAge, time.Hour}, {&o.Grace, time.Hour}, {&o.OrphanAge, 24 * time.Hour}} {
		if *d.v <= 0 {
			*d.v = d.d
		}
	}
	if o.SnapshotsMin <= 0 {
		o.SnapshotsMin = 10
	}
	if o.SnapshotsMax <= 0 {
		o.SnapshotsMax = 1000
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// CompactOptions say how one compaction goes.
type CompactOptions struct {
	// OrderBy are the columns to sort by, ascending, nulls last. nil: the
	// table's property, else its symbol, its time and its sequence columns.
	OrderBy []string
}

// CompactResult says what Compact did.
type CompactResult struct {
	Rows                    int64
	FilesBefore, FilesAfter int
	BytesBefore, BytesAfter int64
	Took                    time.Duration
}

// Compact sorts the live files of one partition (the zero Partition: of a table
// without partitions) into few. It does nothing where that was done already.
// A flush or a delete that overtakes it is either unharmed or makes it fail
// with catalog.ErrConflict; nothing was done then.
func (m *Maintainer) Compact(ctx context.Context, name catalog.Name, partition catalog.Partition, o CompactOptions) (r CompactResult, err error) {
	m.compacting.Lock()
	defer m.compacting.Unlock()
	start := m.o.Now()
	defer func() { m.metrics.compacted(&r, m.o.Now().Sub(start), err) }()
	t, err := m.o.Catalog.Load(ctx, name)
	if err != nil {
		return r, err
	}
	if len(t.Foreign()) > 0 {
		return r, fmt.Errorf("compact %s: %w: %s", name, ErrForeign, t.Foreign()[0].Name)
	}
	all, err := m.o.Catalog.Files(ctx, t, catalog.At{})
	if err != nil {
		return r, err
	}
	var files []catalog.DataFile
	for _, f := range all {
		if f.Partition == partition {
			files = append(files, f)
			r.FilesBefore++
			r.BytesBefore += f.SizeBytes
		}
	}
	order, err := sortColumns(t, o.OrderBy)
	if err != nil {
		return r, err
	}
	commit := catalog.Commit{Table: name, Summary: map[string]string{"tapehouse.compaction": strings.Join(order, ",")}}
	for _, group := range groups(files) {
		if isCompacted(group) {
			r.FilesAfter++
			r.BytesAfter += group[0].SizeBytes
			r.Rows += group[0].Rows
			continue
		}
		added, err := m.rewrite(ctx, t, partition, group, order)
		if err != nil {
			return r, fmt.Errorf("compact %s: %w", name, err)
		}
		if added.Stats.Rows > 0 {
			commit.Add = append(commit.Add, added)
			r.FilesAfter++
			r.BytesAfter += added.Stats.SizeBytes
			r.Rows += added.Stats.Rows
		}
		commit.Replace = append(commit.Replace, group...)
	}
	r.Took = m.o.Now().Sub(start)
	if len(commit.Replace) == 0 {
		return r, nil
	}
	if _, err := m.o.Catalog.Commit(ctx, []catalog.Commit{commit}); err != nil {
		return r, fmt.Errorf("compact %s: %w", name, err)
	}
	r.Took = m.o.Now().Sub(start)
	m.o.Logger.Info("partition compacted", "table", name.String(), "partition", calendar.TradeDate(partition.Value).String(),
		"rows", r.Rows, "files_before", r.FilesBefore, "files_after", r.FilesAfter, "took", r.Took)
	return r, nil
}

// sortColumns chooses the order and checks that the columns exist.
func sortColumns(t *catalog.Table, order []string) ([]string, error) {
	if len(order) == 0 && t.Properties[PropertySort] != "" {
		order = strings.Split(t.Properties[PropertySort], ",")
	}
	if len(order) == 0 {
		order = defaultOrder(t)
	}
	for _, c := range order {
		if t.Schema.Index(c) < 0 {
			return nil, fmt.Errorf("compact %s: sort column %q does not exist", t.Name, c)
		}
	}
	return order, nil
}

// symbolColumn is the column that files are sorted by where a table has one.
const symbolColumn = "symbol"

// defaultOrder is by symbol and time, so that row groups can be passed over, then
// by the sequence, so that it is total.
func defaultOrder(t *catalog.Table) (order []string) {
	if t.Schema.Index(symbolColumn) >= 0 {
		order = append(order, symbolColumn)
	}
	instant := ""
	for _, f := range t.Schema.Fields {
		if f.Derive == record.EpochNanos || instant == "" && f.Type.Kind == record.TimestampTZ && f.Derive != record.ArrivedAt {
			instant = f.Name
		}
	}
	if instant != "" {
		order = append(order, instant)
	}
	for _, c := range []string{t.Sequence.Source, t.Sequence.Session, t.Sequence.Epoch, t.Sequence.Sequence} {
		if c != "" {
			order = append(order, c)
		}
	}
	return order
}

// groups parts files into groups that each make one file: compacted ones stand
// alone, the others are packed in order up to the size bound.
func groups(files []catalog.DataFile) [][]catalog.DataFile {
	var out [][]catalog.DataFile
	var group []catalog.DataFile
	var size int64
	for _, f := range files {
		if size+f.SizeBytes > fileSizeBytesMax && len(group) > 0 {
			out, group, size = append(out, group), nil, 0
		}
		group, size = append(group, f), size+f.SizeBytes
	}
	if len(group) > 0 {
		out = append(out, group)
	}
	return out
}

// isCompacted reports whether rewriting the group would change nothing.
func isCompacted(group []catalog.DataFile) bool {
	return len(group) == 1 && len(group[0].Deletes) == 0 && strings.HasPrefix(filepath.Base(group[0].Path), compactPrefix)
}

// rewrite writes one sorted file of a group's rows into the lake.
func (m *Maintainer) rewrite(ctx context.Context, t *catalog.Table, partition catalog.Partition, group []catalog.DataFile, order []string) (catalog.NewFile, error) {
	id := uuid.NewString()
	local := filepath.Join(m.o.Staging, compactPrefix+id+".parquet")
	defer func() { _ = os.Remove(local) }() // gone already when all went well
	source := engine.Name(t.Name)
	pin := engine.NewPin(map[engine.Name]engine.Relation{source: Relation(t.Schema, group)})
	defer pin.Release()
	query := engine.Query{SQL: "SELECT * FROM " + engine.QuoteIdentifier(source.Namespace) + "." + engine.QuoteIdentifier(source.Table), Pin: pin, Once: true}
	if _, err := m.o.Engine.Export(ctx, query, engine.ExportSpec{Path: local, Schema: t.Schema, OrderBy: order}); err != nil {
		return catalog.NewFile{}, err
	}
	stats, err := catalog.ReadStats(local, t.Schema)
	if err != nil {
		return catalog.NewFile{}, err
	}
	written := Relation(t.Schema, nil)
	written.Files = []engine.File{{Path: local, Rows: stats.Rows}}
	if err := m.compare(ctx, t.Schema, pin, source, written); err != nil {
		return catalog.NewFile{}, err
	}
	if stats.Rows == 0 {
		return catalog.NewFile{Stats: catalog.FileStats{}}, nil
	}
	name := t.DataDir() + "/"
	if partition.Has {
		name += t.PartitionBy + "=" + calendar.TradeDate(partition.Value).String() + "/"
	}
	name += compactPrefix + id + ".parquet"
	if err := m.o.Store.PutFile(ctx, name, local); err != nil {
		return catalog.NewFile{}, fmt.Errorf("store %s: %w", name, err)
	}
	path, ok := m.o.Store.LocalPath(name)
	if !ok {
		path = m.o.Store.URI(name)
	}
	return catalog.NewFile{Path: path, Partition: partition, Stats: stats}, nil
}

// compare proves that a written file has the rows that were read: their number,
// and the sum over rows of a hash of all columns.
func (m *Maintainer) compare(ctx context.Context, schema record.Schema, before *engine.Pin, name engine.Name, written engine.Relation) error {
	after := engine.NewPin(map[engine.Name]engine.Relation{name: written})
	defer after.Release()
	columns := make([]string, len(schema.Fields))
	for i, f := range schema.Fields {
		columns[i] = engine.QuoteIdentifier(f.Name)
	}
	sql := "SELECT count(*), coalesce(sum(CAST(hash(" + strings.Join(columns, ", ") + ") AS HUGEINT)), 0) FROM " +
		engine.QuoteIdentifier(name.Namespace) + "." + engine.QuoteIdentifier(name.Table)
	was, err := m.sums(ctx, engine.Query{SQL: sql, Pin: before, Once: true})
	if err != nil {
		return err
	}
	is, err := m.sums(ctx, engine.Query{SQL: sql, Pin: after, Once: true})
	if err != nil {
		return err
	}
	if was.rows != is.rows || was.hash.Cmp(is.hash) != 0 {
		return fmt.Errorf("%w: read %d rows with content sum %s, wrote %d with %s", ErrContent, was.rows, was.hash, is.rows, is.hash)
	}
	return nil
}

type contentSum struct {
	rows int64
	hash *big.Int
}

func (m *Maintainer) sums(ctx context.Context, q engine.Query) (s contentSum, err error) {
	session, err := m.o.Engine.InternalSession(ctx)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	rows, err := session.Query(ctx, q)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	row := make([]any, len(rows.Columns))
	if err := rows.Next(row); err != nil {
		return s, err
	}
	n, ok := row[0].(int64)
	h, ok2 := row[1].(engine.Decimal)
	if !ok || !ok2 {
		return s, fmt.Errorf("content sum has the types %T, %T", row[0], row[1])
	}
	return contentSum{n, h.Unscaled}, nil
}

// Relation is what a table's files stand for under a schema, for a hand-made pin.
func Relation(schema record.Schema, files []catalog.DataFile) engine.Relation {
	r := engine.Relation{Schema: schema, Files: make([]engine.File, 0, len(files))}
	for _, f := range files {
		file := engine.File{Path: f.Path, Rows: f.Rows, SchemaID: f.SchemaID, URI: f.URI()}
		for _, d := range f.Deletes {
			file.Deletes = append(file.Deletes, d.Path)
		}
		if f.Partition.Has {
			v := f.Partition.Value
			file.PartitionTradeDate = &v
		}
		r.Files = append(r.Files, file)
	}
	return r
}
