package delivery

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/record"
)

// The relations of a flush's own queries.
var (
	stretchRows = engine.Name{Namespace: "flush", Table: "rows"}
	storedRows  = engine.Name{Namespace: "flush", Table: "stored"}
	removedKeys = engine.Name{Namespace: "flush", Table: "removed"}
	foundRows   = engine.Name{Namespace: "flush", Table: "found"}
)

// Iceberg's reserved columns of a file of position deletes.
var positionSchema = record.Schema{Fields: []record.Field{
	{ID: 2147483546, Name: "file_path", Type: record.Type{Kind: record.String}, Required: true},
	{ID: 2147483545, Name: "pos", Type: record.Type{Kind: record.Long}, Required: true},
}}

// publishTriesMax bounds how often the rows of a flush are looked up anew because
// another commit came in between.
const publishTriesMax = 5

// publish is deliverChanges until no other commit comes in between.
func (d *Iceberg) publish(ctx context.Context, t *catalog.Table, dl Delivery) error {
	for try := 1; ; try++ {
		err := d.deliverChanges(ctx, t, dl)
		if !errors.Is(err, catalog.ErrConflict) || try == publishTriesMax {
			return err
		}
		again, lerr := d.Catalog.Load(ctx, d.Table)
		if lerr != nil || again.Through()[dl.Key] != dl.From || again.Snapshot() == t.Snapshot() {
			return errors.Join(err, lerr) // it is not that; the caller looks
		}
		t = again
	}
}

// deliverChanges publishes a stretch that removes rows: new files with what is
// left of its own, position deletes for what the table has, in one commit that
// requires the snapshot in which they were found. t is the table's present state.
func (d *Iceberg) deliverChanges(ctx context.Context, t *catalog.Table, dl Delivery) error {
	snapshot := t.Snapshot()
	commit := catalog.Commit{
		Table:           d.Table,
		Through:         record.Vector{dl.Key: dl.To},
		RequireThrough:  &record.Vector{dl.Key: dl.From},
		RequireSnapshot: &snapshot,
		Summary:         d.summary(dl),
	}
	if t.Through()[dl.Key] != dl.From {
		return fmt.Errorf("publish changes: %s contains records up to offset %d, not %d", d.Table, t.Through()[dl.Key], dl.From)
	}
	f := changeFlush{d: d, t: t, dl: dl}
	defer f.discard()
	var err error
	if commit.Deletes, err = f.deletes(ctx); err != nil {
		return fmt.Errorf("find the rows that changes remove: %w", err)
	}
	if commit.Add, err = f.rows(ctx); err != nil {
		return fmt.Errorf("write the rows that changes leave: %w", err)
	}
	_, err = d.Catalog.Commit(ctx, []catalog.Commit{commit})
	return err
}

// changeFlush is one flush of changes.
type changeFlush struct {
	d     *Iceberg
	t     *catalog.Table
	dl    Delivery
	local []string // files in the making
}

// discard removes what is not in the lake.
func (f *changeFlush) discard() {
	for _, name := range f.local {
		_ = os.Remove(name) // PutFile has consumed it, or it is of no use
	}
}

func (f *changeFlush) staging() string {
	name := filepath.Join(f.d.Staging, "flush-"+uuid.NewString()+".parquet")
	f.local = append(f.local, name)
	return name
}

// rows writes the rows of the stretch that nothing in it removes, one file a
// partition.
func (f *changeFlush) rows(ctx context.Context) (out []catalog.NewFile, err error) {
	relation := engine.Relation{Schema: f.t.Schema, Keys: f.d.Keys}
	for _, r := range f.dl.Removals {
		relation.Removals = append(relation.Removals, engine.Removal{Path: r.Path, Order: r.Order, SchemaID: r.Meta.SchemaID, Rows: r.Meta.Rows})
	}
	var order []catalog.Partition
	parts := map[catalog.Partition][]engine.File{}
	for _, p := range f.dl.Parts {
		if parts[p.Partition] == nil {
			order = append(order, p.Partition)
		}
		parts[p.Partition] = append(parts[p.Partition], engine.File{Path: p.Path, Rows: p.Meta.Rows, SchemaID: p.Meta.SchemaID, Order: p.Order})
	}
	for _, value := range order {
		relation.Files = parts[value]
		path, rows, err := f.export(ctx, map[engine.Name]engine.Relation{stretchRows: relation}, `SELECT * FROM "flush"."rows"`, engine.ExportSpec{Schema: f.t.Schema})
		if err != nil {
			return nil, err
		}
		if rows.Rows == 0 {
			continue
		}
		stats, err := catalog.ReadStats(path, f.t.Schema)
		if err != nil {
			return nil, err
		}
		at, err := f.d.store(ctx, f.d.fileName(f.t, f.dl, value, uuid.NewString()), path)
		if err != nil {
			return nil, err
		}
		out = append(out, catalog.NewFile{Path: at, Partition: value, Stats: stats})
	}
	return out, nil
}

// export writes a query over relations to a new local file.
func (f *changeFlush) export(ctx context.Context, relations map[engine.Name]engine.Relation, sql string, spec engine.ExportSpec, args ...any) (string, engine.Exported, error) {
	pin := engine.NewPin(relations)
	defer pin.Release()
	spec.Path = f.staging()
	out, err := f.d.Engine.Export(ctx, engine.Query{SQL: sql, Pin: pin, Args: args}, spec)
	return spec.Path, out, err
}

// deletes finds the rows of the table with a removed key, and writes for each
// data file that has some a file of their positions.
func (f *changeFlush) deletes(ctx context.Context) ([]catalog.NewDeletes, error) {
	files, err := f.d.Catalog.Files(ctx, f.t, catalog.At{})
	if err != nil || len(files) == 0 {
		return nil, err
	}
	keys := record.Schema{ID: f.t.Schema.ID}
	for _, k := range f.d.Keys {
		i := f.t.Schema.Index(k)
		if i < 0 {
			return nil, fmt.Errorf("key column %q is gone", k)
		}
		keys.Fields = append(keys.Fields, f.t.Schema.Fields[i])
	}
	removed := engine.Relation{Schema: keys}
	for _, r := range f.dl.Removals {
		removed.Files = append(removed.Files, engine.File{Path: r.Path, Rows: r.Meta.Rows, SchemaID: r.Meta.SchemaID})
	}
	var out []catalog.NewDeletes
	for _, group := range f.d.lookups(candidates(files, f.dl.Removals, keys)) {
		stored := engine.Relation{Schema: keys, Positions: true}
		byURI := map[string]catalog.DataFile{}
		for _, x := range group {
			byURI[x.URI()] = x
			stored.Files = append(stored.Files, engineFile(x))
		}
		path, found, err := f.export(ctx, map[engine.Name]engine.Relation{storedRows: stored, removedKeys: removed},
			"SELECT s."+engine.QuoteIdentifier(engine.PositionFile)+` AS "file_path", s.`+engine.QuoteIdentifier(engine.PositionRow)+` AS "pos" FROM "flush"."stored" AS s SEMI JOIN "flush"."removed" AS r ON `+
				sameKey(f.d.Keys, "s", "r"), engine.ExportSpec{Schema: positionSchema, OrderBy: []string{"file_path", "pos"}})
		if err != nil {
			return nil, err
		}
		if found.Rows == 0 {
			continue
		}
		deletes, err := f.positions(ctx, path, byURI)
		if err != nil {
			return nil, err
		}
		out = append(out, deletes...)
	}
	return out, nil
}

// lookupBytesMax bounds the data files of a lake elsewhere that one query looks
// into, because they are brought here for it, all of them: it is the least cache
// that there can be.
const lookupBytesMax = 64 << 20

// lookups parts files into groups that are looked into together.
func (d *Iceberg) lookups(files []catalog.DataFile) (groups [][]catalog.DataFile) {
	if len(files) == 0 {
		return nil
	}
	if name, ok := d.Lake.Name(files[0].URI()); ok {
		if _, local := d.Lake.LocalPath(name); local {
			return [][]catalog.DataFile{files}
		}
	}
	size := int64(0)
	for _, x := range files {
		if size += x.SizeBytes; len(groups) == 0 || size > lookupBytesMax {
			groups, size = append(groups, nil), x.SizeBytes
		}
		last := len(groups) - 1
		groups[last] = append(groups[last], x)
	}
	return groups
}

// positions parts the positions that were found by their files.
func (f *changeFlush) positions(ctx context.Context, path string, byURI map[string]catalog.DataFile) (out []catalog.NewDeletes, err error) {
	found := map[engine.Name]engine.Relation{foundRows: {Schema: positionSchema, Files: []engine.File{{Path: path}}}}
	pin := engine.NewPin(found)
	defer pin.Release()
	var uris []string
	if err := f.d.query(ctx, engine.Query{SQL: `SELECT DISTINCT "file_path" FROM "flush"."found" ORDER BY 1`, Pin: pin}, 1, func(row []any) error {
		uri, ok := row[0].(string)
		if !ok {
			return fmt.Errorf("a file's location is of type %T", row[0])
		}
		uris = append(uris, uri)
		return nil
	}); err != nil {
		return nil, err
	}
	for _, uri := range uris {
		from, ok := byURI[uri]
		if !ok {
			return nil, fmt.Errorf("a row was found in %s, which was not looked at", uri)
		}
		one, rows, err := f.export(ctx, found, `SELECT "file_path", "pos" FROM "flush"."found" WHERE "file_path" = $1`,
			engine.ExportSpec{Schema: positionSchema, OrderBy: []string{"file_path", "pos"}}, uri)
		if err != nil {
			return nil, err
		}
		at, err := f.d.store(ctx, f.d.fileName(f.t, f.dl, from.Partition, "deletes-"+uuid.NewString()), one)
		if err != nil {
			return nil, err
		}
		out = append(out, catalog.NewDeletes{Path: at, Rows: rows.Rows, SizeBytes: rows.SizeBytes, From: from})
	}
	return out, nil
}

// candidates are the data files that may hold one of the keys: the bounds of each
// key column meet those of one file of keys.
func candidates(files []catalog.DataFile, of []TailFile, keys record.Schema) []catalog.DataFile {
	return slices.DeleteFunc(slices.Clone(files), func(x catalog.DataFile) bool {
		return !slices.ContainsFunc(of, func(r TailFile) bool { return mayShare(x.Columns, catalog.StatsOf(r.Meta).Columns, keys) })
	})
}

func engineFile(x catalog.DataFile) engine.File {
	out := engine.File{Path: x.Path, Rows: x.Rows, SchemaID: x.SchemaID, URI: x.URI()}
	for _, del := range x.Deletes {
		out.Deletes = append(out.Deletes, del.Path)
	}
	return out
}
