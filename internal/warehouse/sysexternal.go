package warehouse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/hive"
	"github.com/tapehouse/tapehouse/internal/serde"
)

// Redshift's system views of external tables, and Iceberg's metadata tables of
// managed ones.

// externalColumns are an external table's columns as the system catalog shows
// them. A type that is not known is shown as text: reading it says what is wrong.
func externalColumns(e *catalog.External) []catalogColumn {
	var out []catalogColumn
	for _, c := range hiveColumns(e) {
		t := sqlType{kind: kindText}
		if typ, err := serde.ParseType(c.Type); err == nil {
			t = fromHive(typ)
		}
		out = append(out, catalogColumn{name: c.Name, typ: t})
	}
	return out
}

// hiveColumns are the columns of the files and the partition keys.
func hiveColumns(e *catalog.External) []hive.Column {
	var columns []hive.Column
	if s := e.Definition.Storage; s != nil {
		columns = s.Columns
	}
	return slices.Concat(columns, e.Definition.PartitionKeys)
}

func eachExternal(c *catalogState, row func(e *catalog.External) [][]any) [][]any {
	var rows [][]any
	for i := range c.objects {
		if e := c.objects[i].external; e != nil {
			rows = append(rows, row(e)...)
		}
	}
	return rows
}

func externalSchemaRows(_ context.Context, c *catalogState) ([][]any, error) {
	seen := map[string]bool{}
	return eachExternal(c, func(e *catalog.External) [][]any {
		s := e.Name.Namespace
		if seen[s] {
			return nil
		}
		seen[s] = true
		return [][]any{{schemaOID(s), 1, s, ownerOID, s, "{}"}}
	}), nil
}

// storageColumns are what the views show of a storage descriptor: location,
// input_format, output_format, serialization_lib, serde_parameters, compressed.
func storageColumns(s *hive.Storage) []any {
	if s == nil {
		s = &hive.Storage{}
	}
	library, parameters := "", map[string]string(nil)
	if s.Serde != nil {
		library, parameters = s.Serde.Library, s.Serde.Parameters
	}
	compressed := 0
	if s.Compressed {
		compressed = 1
	}
	return []any{s.Location, s.InputFormat, s.OutputFormat, library, jsonText(parameters), compressed}
}

// jsonText is a map as JSON, its keys sorted.
func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil || string(b) == "null" {
		return "{}"
	}
	return string(b)
}

func externalTableRows(_ context.Context, c *catalogState) ([][]any, error) {
	return eachExternal(c, func(e *catalog.External) [][]any {
		row := append([]any{c.env.database, e.Name.Namespace, e.Name.Table, "TABLE"}, storageColumns(e.Definition.Storage)...)
		return [][]any{append(row, jsonText(e.Definition.Parameters))}
	}), nil
}

func externalColumnRows(_ context.Context, c *catalogState) ([][]any, error) {
	return eachExternal(c, func(e *catalog.External) [][]any {
		var rows [][]any
		columns := hiveColumns(e)
		plain := len(columns) - len(e.Definition.PartitionKeys)
		for i, col := range columns {
			key := 0
			if i >= plain {
				key = i - plain + 1
			}
			rows = append(rows, []any{e.Name.Namespace, e.Name.Table, col.Name, col.Type, i + 1, key, "true"})
		}
		return rows
	}), nil
}

// shownPartitionsMax bounds the rows of svv_external_partitions.
const shownPartitionsMax = 100_000

func externalPartitionRows(ctx context.Context, c *catalogState) ([][]any, error) {
	var rows [][]any
	for i := range c.objects {
		e := c.objects[i].external
		if e == nil || len(e.Definition.PartitionKeys) == 0 {
			continue
		}
		err := c.tables.ExternalPartitions(ctx, e.Name, catalog.PartitionsPage{}, func(p catalog.ExternalPartition) bool {
			row := append([]any{e.Name.Namespace, e.Name.Table, jsonText(p.Values)}, storageColumns(p.Storage)...)
			rows = append(rows, append(row, jsonText(p.Parameters)))
			return len(rows) <= shownPartitionsMax
		})
		if err != nil {
			return nil, err
		}
		if len(rows) > shownPartitionsMax {
			return nil, errorf(codeLimitExceeded, "there are more than %d partitions of external tables", shownPartitionsMax).hint("list them through the Glue API: aws glue get-partitions")
		}
	}
	return rows, nil
}

// metadataTables are the kinds of Iceberg's metadata tables, with their columns.
// Maps and partitions are JSON.
var metadataTables = map[string]string{
	"snapshots": "committed_at timestamptz snapshot_id int8 parent_id int8 operation text manifest_list text summary text",
	"history":   "made_current_at timestamptz snapshot_id int8 parent_id int8 is_current_ancestor bool",
	"refs":      "name text type text snapshot_id int8 max_reference_age_in_ms int8 min_snapshots_to_keep int4 max_snapshot_age_in_ms int8",
	"files": `content int4 file_path text file_format text spec_id int4 partition text record_count int8 file_size_in_bytes int8 column_sizes text value_counts text
		null_value_counts text nan_value_counts text lower_bounds text upper_bounds text key_metadata text split_offsets text equality_ids text sort_order_id int4`,
	"partitions": `partition text spec_id int4 record_count int8 file_count int8 total_data_file_size_in_bytes int8 position_delete_record_count int8
		position_delete_file_count int8 equality_delete_record_count int8 equality_delete_file_count int8 last_updated_at timestamptz last_updated_snapshot_id int8`,
}

// metadataTable splits a name such as executions$snapshots.
func metadataTable(name string) (table, kind string, ok bool) {
	table, kind, ok = strings.Cut(name, "$")
	return table, kind, ok && table != ""
}

// metadataRelation is a metadata table of a managed table; nil if there is no such
// table.
func (s *Session) metadataRelation(ctx context.Context, schema, table, kind string) (*relation, error) {
	name := catalog.Name{Namespace: schema, Table: table}
	t, err := s.w.o.Catalog.Load(ctx, name)
	if err != nil {
		if !errors.Is(err, catalog.ErrNotFound) && !errors.Is(err, catalog.ErrInvalid) {
			return nil, err
		}
		if _, err := s.w.o.Catalog.External(ctx, name); err == nil {
			return nil, unsupported("a metadata table of the external table "+name.String(), "pg_catalog.svv_external_tables and svv_external_partitions describe it")
		}
		return nil, nil
	}
	columns, ok := metadataTables[kind]
	if !ok {
		return nil, errorf(codeUndefinedTable, "relation %q does not exist", name.String()+"$"+kind).
			hint("the metadata tables of a table end in $%s", strings.Join(slices.Sorted(maps.Keys(metadataTables)), ", $"))
	}
	rows := map[string]func(context.Context, *catalogState) ([][]any, error){
		"snapshots": func(context.Context, *catalogState) ([][]any, error) { return snapshotRows(t), nil },
		"history":   func(context.Context, *catalogState) ([][]any, error) { return historyRows(t), nil },
		"refs":      func(context.Context, *catalogState) ([][]any, error) { return refRows(t), nil },
		"files":     func(ctx context.Context, c *catalogState) ([][]any, error) { return fileRows(ctx, c.tables, t) },
		"partitions": func(ctx context.Context, c *catalogState) ([][]any, error) {
			return partitionRows(ctx, c.tables, t)
		},
	}
	return &relation{schema: schema, name: table + "$" + kind, columns: systemRelation{columns: columns}.parse(), system: true, rows: rows[kind]}, nil
}

// orNull is nil for 0, by which the catalog says that there is none.
func orNull(id int64) any {
	if id == 0 {
		return nil
	}
	return id
}

func snapshotRows(t *catalog.Table) [][]any {
	var rows [][]any
	for _, s := range t.Snapshots() {
		rows = append(rows, []any{stamp(s.CommittedAt) + "+00", s.ID, orNull(s.Parent), s.Operation, t.ManifestList(s.ID), jsonText(s.Summary)})
	}
	return rows
}

func historyRows(t *catalog.Table) [][]any {
	var rows [][]any
	for _, h := range t.History() {
		rows = append(rows, []any{stamp(h.MadeCurrentAt) + "+00", h.SnapshotID, orNull(h.Parent), h.IsCurrentAncestor})
	}
	return rows
}

// pointed is what p points to, or nil.
func pointed[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}

func refRows(t *catalog.Table) [][]any {
	var rows [][]any
	for _, r := range t.Refs() {
		rows = append(rows, []any{r.Name, strings.ToUpper(r.Type), r.SnapshotID, pointed(r.MaxRefAgeMillis), pointed(r.MinSnapshotsToKeep), pointed(r.MaxSnapshotAgeMillis)})
	}
	return rows
}

func fileRows(ctx context.Context, tables Tables, t *catalog.Table) ([][]any, error) {
	files, err := tables.InspectFiles(ctx, t)
	if err != nil {
		return nil, err
	}
	rows := make([][]any, len(files))
	for i := range files {
		f := &files[i]
		var key, offsets, ids any
		if f.KeyMetadata != nil {
			key = fmt.Sprintf("%x", f.KeyMetadata)
		}
		if f.SplitOffsets != nil {
			offsets = jsonText(f.SplitOffsets)
		}
		if f.EqualityIDs != nil {
			ids = jsonText(f.EqualityIDs)
		}
		rows[i] = []any{f.Content, f.Path, f.Format, f.SpecID, jsonText(f.Partition), f.Rows, f.SizeBytes, jsonText(f.ColumnSizes), jsonText(f.Values),
			jsonText(f.Nulls), jsonText(f.NaNs), jsonText(f.Lower), jsonText(f.Upper), key, offsets, ids, pointed(f.SortOrderID)}
	}
	return rows, nil
}

func partitionRows(ctx context.Context, tables Tables, t *catalog.Table) ([][]any, error) {
	files, err := tables.InspectFiles(ctx, t)
	if err != nil {
		return nil, err
	}
	committed := map[int64]any{}
	order := map[int64]int{}
	for i, s := range t.Snapshots() {
		committed[s.ID], order[s.ID] = stamp(s.CommittedAt)+"+00", i+1
	}
	type sums struct {
		partition                            string
		spec                                 int32
		rows, files, size                    int64
		positionRows, positionFiles          int64
		equalityRows, equalityFiles, updated int64
	}
	by := map[string]*sums{}
	for i := range files {
		f := &files[i]
		p := by[f.PartitionKey]
		if p == nil {
			p = &sums{partition: jsonText(f.Partition), spec: f.SpecID, updated: f.AddedBy}
			by[f.PartitionKey] = p
		}
		switch f.Content {
		case 0:
			p.rows, p.files, p.size = p.rows+f.Rows, p.files+1, p.size+f.SizeBytes
		case 1:
			p.positionRows, p.positionFiles = p.positionRows+f.Rows, p.positionFiles+1
		default:
			p.equalityRows, p.equalityFiles = p.equalityRows+f.Rows, p.equalityFiles+1
		}
		if order[f.AddedBy] > order[p.updated] {
			p.updated = f.AddedBy
		}
	}
	var rows [][]any
	for _, key := range slices.Sorted(maps.Keys(by)) {
		p := by[key]
		var at, id any
		if order[p.updated] > 0 { // its snapshot has not expired
			at, id = committed[p.updated], p.updated
		}
		rows = append(rows, []any{p.partition, p.spec, p.rows, p.files, p.size, p.positionRows, p.positionFiles, p.equalityRows, p.equalityFiles, at, id})
	}
	return rows, nil
}
