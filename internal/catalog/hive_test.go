package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/hive"
)

func hiveTable() *hive.Table {
	return &hive.Table{Description: "notes of the desk", Parameters: map[string]string{"owner": "desk", hive.ParamTableType: "ICEBERG"}, PartitionKeys: []hive.Column{{Name: "trade_date", Type: "date"}},
		Storage: &hive.Storage{Columns: []hive.Column{
			{Name: "n", Type: "bigint", Comment: "number"}, {Name: "small", Type: "smallint"}, {Name: "price", Type: "decimal(18,4)"}, {Name: "at", Type: "timestamp"},
			{Name: "tags", Type: "array<struct<k:string,v:map<string,array<int>>>>"}, {Name: "raw", Type: "binary"}, {Name: "code", Type: "varchar(4)"}}}}
}

func TestHive(t *testing.T) {
	ctx := t.Context()
	c := newWorld(t).open()
	name := Name{"desk", "notes"}
	if _, err := c.CreateHiveTable(ctx, name, hiveTable()); !errors.Is(err, ErrNotFound) {
		t.Fatalf("without a namespace: %v", err)
	}
	must(t, c.CreateNamespace(ctx, "desk", nil))
	tbl, err := c.CreateHiveTable(ctx, name, hiveTable())
	must(t, err)
	if tbl.PartitionBy != "trade_date" || tbl.MetadataVersion() != 0 {
		t.Errorf("partitioned by %q, version %d", tbl.PartitionBy, tbl.MetadataVersion())
	}
	h := tbl.Hive()
	var columns []string
	for _, col := range h.Storage.Columns {
		columns = append(columns, col.Name+" "+col.Type+" "+col.Comment)
	}
	if got, want := strings.Join(columns, "; "), "n bigint number; small int ; price decimal(18,4) ; at timestamp ; tags array<struct<k:string,v:map<string,array<int>>>> ; raw binary ; code string ; trade_date date "; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if p := h.Storage.Columns[2].Parameters; p["iceberg.field.id"] != "3" || p["iceberg.field.optional"] != "true" || p["iceberg.field.current"] != "true" {
		t.Error(p)
	}
	if got, want := fmt.Sprint(h.Parameters), fmt.Sprintf("map[metadata_location:%s owner:desk table_type:ICEBERG]", tbl.MetadataLocation()); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if h.Description != "notes of the desk" || h.Type != hive.ExternalTable || h.Storage.Location != tbl.Location || len(h.PartitionKeys) != 0 {
		t.Errorf("%+v", h)
	}
	if _, err := c.CreateHiveTable(ctx, name, hiveTable()); !errors.Is(err, ErrExists) {
		t.Errorf("twice: %v", err)
	}
	for what, change := range map[string]func(*hive.Table){
		"unknown type":    func(t *hive.Table) { t.Storage.Columns[0].Type = "uniontype<int,string>" },
		"column twice":    func(t *hive.Table) { t.Storage.Columns[1].Name = "N" },
		"text partition":  func(t *hive.Table) { t.PartitionKeys[0].Type = "string" },
		"two partitions":  func(t *hive.Table) { t.PartitionKeys = append(t.PartitionKeys, hive.Column{Name: "d2", Type: "date"}) },
		"our property":    func(t *hive.Table) { t.Parameters[PropertyThrough] = "x" },
		"format version":  func(t *hive.Table) { t.Parameters["format-version"] = "3" },
		"without columns": func(t *hive.Table) { t.Storage, t.PartitionKeys = nil, nil },
	} {
		def := hiveTable()
		change(def)
		if _, err := c.CreateHiveTable(ctx, Name{"desk", "other"}, def); !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// client writes the metadata file of a commit as a client of a catalog that keeps
// a pointer alone does.
func client(t *testing.T, c *Catalog, from *Table, edit func(map[string]any), updates ...table.Update) string {
	t.Helper()
	meta, err := table.UpdateTableMetadata(from.meta, updates, from.pointer)
	must(t, err)
	b, err := json.Marshal(meta)
	must(t, err)
	if edit != nil {
		var m map[string]any
		must(t, json.Unmarshal(b, &m))
		edit(m)
		b, err = json.Marshal(m)
		must(t, err)
	}
	uri := from.Location + "/metadata/00009-" + uuid.NewString() + ".metadata.json"
	name, ok := c.store.Name(uri)
	if !ok {
		t.Fatal(uri)
	}
	must(t, c.store.Put(t.Context(), name, bytes.NewReader(b), int64(len(b))))
	return uri
}

func TestCommitMetadata(t *testing.T) {
	ctx := t.Context()
	c := newWorld(t).open()
	first := mustCreate(t, c, executionsSpec(executions))
	tbl := commit(t, c, Commit{Table: executions, Add: []NewFile{ghost(first, date0, 0, 1)}, Through: through(5), Tags: map[string]int64{"sealed": 0}})
	set := table.NewSetPropertiesUpdate(map[string]string{"a": "b"})

	after, err := c.CommitMetadata(ctx, executions, tbl.MetadataLocation(), client(t, c, tbl, nil, set), true)
	must(t, err)
	if after.Properties["a"] != "b" || after.Snapshot() != tbl.Snapshot() || after.Through()[key0] != 5 || after.MetadataVersion() != tbl.MetadataVersion()+1 {
		t.Errorf("%+v", after)
	}
	if h := after.Hive(); h.Parameters[hive.ParamFormerMetadata] != tbl.MetadataLocation() || h.Parameters["a"] != "b" {
		t.Error(h.Parameters)
	}
	loaded, err := c.Load(ctx, executions)
	must(t, err)
	if loaded.MetadataLocation() != after.MetadataLocation() {
		t.Errorf("%s, want %s", loaded.MetadataLocation(), after.MetadataLocation())
	}
	if other := commit(t, c, Commit{Table: executions, Add: []NewFile{ghost(after, date0, 5, 1)}, Through: through(6)}); other.Properties["a"] != "b" {
		t.Error("the next commit lost the client's")
	}
	tbl, err = c.Load(ctx, executions)
	must(t, err)

	lake := c.store.URI("elsewhere/metadata/00001-x.metadata.json")
	for _, bad := range []struct {
		what           string
		previous, next string
		want           error
	}{
		{"a former state", after.MetadataLocation(), client(t, c, after, nil, set), ErrConflict},
		{"made from a former state", tbl.MetadataLocation(), client(t, c, after, nil, set), ErrConflict},
		{"progress set back", tbl.MetadataLocation(), client(t, c, tbl, nil, table.NewSetPropertiesUpdate(map[string]string{PropertyThrough: through(4).String()})), ErrConflict},
		{"progress taken away", tbl.MetadataLocation(), client(t, c, tbl, nil, table.NewRemovePropertiesUpdate([]string{PropertyThrough})), ErrConflict},
		{"progress advanced", tbl.MetadataLocation(), client(t, c, tbl, nil, table.NewSetPropertiesUpdate(map[string]string{PropertyThrough: through(9).String()})), ErrConflict},
		{"made a view's", tbl.MetadataLocation(), client(t, c, tbl, nil, table.NewSetPropertiesUpdate(map[string]string{"tapehouse.view": "x"})), ErrConflict},
		{"a tag taken away", tbl.MetadataLocation(), client(t, c, tbl, nil, table.NewRemoveSnapshotRefUpdate("sealed")), ErrConflict},
		{"another table's", tbl.MetadataLocation(), client(t, c, tbl, func(m map[string]any) { m["table-uuid"] = uuid.NewString() }), ErrInvalid},
		{"another place", tbl.MetadataLocation(), client(t, c, tbl, func(m map[string]any) { m["location"] = "file:///elsewhere" }), ErrInvalid},
		{"an older sequence", tbl.MetadataLocation(), client(t, c, tbl, func(m map[string]any) { m["last-sequence-number"] = 0 }, set), ErrInvalid},
		{"outside", tbl.MetadataLocation(), lake, ErrInvalid},
		{"not there", tbl.MetadataLocation(), tbl.Location + "/metadata/00001-x.metadata.json", ErrInvalid},
		{"above", tbl.MetadataLocation(), tbl.Location + "/../../x.metadata.json", ErrInvalid},
	} {
		if _, err := c.CommitMetadata(ctx, executions, bad.previous, bad.next, false); !errors.Is(err, bad.want) {
			t.Errorf("%s: %v, want %v", bad.what, err, bad.want)
		}
		if now, err := c.Load(ctx, executions); err != nil || now.MetadataLocation() != tbl.MetadataLocation() {
			t.Fatalf("%s: the table moved: %v", bad.what, err)
		}
	}
	if _, err := c.CommitMetadata(ctx, Name{"equities", "none"}, "x", "y", false); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}

	// What feeds a table, or reads it, stands on more than its progress.
	column := table.NewAddSchemaUpdate(iceberg.NewSchema(1, append(tbl.meta.CurrentSchema().Fields(), iceberg.NestedField{ID: 99, Name: "more", Type: iceberg.PrimitiveTypes.String})...))
	for what, next := range map[string]string{
		"another schema":     client(t, c, tbl, nil, column, table.NewSetCurrentSchemaUpdate(-1)),
		"back":               client(t, c, tbl, nil, table.NewSetSnapshotRefUpdate(table.MainBranch, *tbl.meta.CurrentSnapshot().ParentSnapshotID, table.BranchRef, 0, 0, 0)),
		"a dropped snapshot": client(t, c, tbl, nil, table.NewSetSnapshotRefUpdate(table.MainBranch, *tbl.meta.CurrentSnapshot().ParentSnapshotID, table.BranchRef, 0, 0, 0), table.NewRemoveSnapshotsUpdate([]int64{tbl.meta.CurrentSnapshot().SnapshotID}, false)),
	} {
		if _, err := c.CommitMetadata(ctx, executions, tbl.MetadataLocation(), next, true); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v, want %v", what, err, ErrUnsupported)
		}
	}
}
