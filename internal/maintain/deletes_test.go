package maintain

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/record"
)

// remove deletes the rows at positions from to to of a file.
func (h *house) remove(f catalog.DataFile, from, to int) {
	h.t.Helper()
	ctx := context.Background()
	local := filepath.Join(h.dir, "staging", uuid.NewString()+".parquet")
	x := must[engine.Exported](h.t)(h.engine.Export(ctx, engine.Query{SQL: fmt.Sprintf("SELECT '%s' AS file_path, i AS pos FROM range(%d, %d) t(i)", f.URI(), from, to)}, engine.ExportSpec{Path: local,
		Schema: record.Schema{Fields: []record.Field{{ID: 2147483546, Name: "file_path", Type: record.Type{Kind: record.String}}, {ID: 2147483545, Name: "pos", Type: record.Type{Kind: record.Long}}}}}))
	name := h.table.DataDir() + "/" + filepath.Base(local)
	check(h.t, h.store.PutFile(ctx, name, local))
	must[[]*catalog.Table](h.t)(h.catalog.Commit(ctx, []catalog.Commit{{Table: tableName, Deletes: []catalog.NewDeletes{{Path: name, Rows: x.Rows, SizeBytes: x.SizeBytes, From: f}}}}))
}

// A round takes deleted rows out of the files that have many, and changes no row.
func TestRoundAppliesDeletes(t *testing.T) {
	h := newHouse(t)
	h.add(20000, 0, 1000)
	h.add(20000, 1000, 1000)
	h.add(20001, 2000, 1000)
	find := func(day int32) catalog.DataFile {
		t.Helper()
		for _, f := range h.files() {
			if f.Partition.Value == day && f.Rows == 1000 {
				return f
			}
		}
		t.Fatal("the file is gone")
		return catalog.DataFile{}
	}
	h.remove(find(20001), 0, 900) // too few rows to matter
	m := h.maintainer(nil)
	if r := must[RoundResult](t)(m.Round(t.Context())); r.Rewritten != 0 {
		t.Fatalf("%+v", r)
	}
	for i := range deleteFilesMax {
		h.remove(find(20000), 10*i, 10*i+3)
	}
	before := h.content(" ORDER BY seq")
	if r := must[RoundResult](t)(m.Round(t.Context())); r.Rewritten != 1 {
		t.Fatalf("%+v", r)
	}
	files := h.files()
	if len(files) != 2 || files[0].Rows != 2000-3*deleteFilesMax || len(files[0].Deletes) != 0 || len(files[1].Deletes) != 1 || h.content(" ORDER BY seq") != before {
		t.Fatalf("%+v", files)
	}
	if r := must[RoundResult](t)(m.Round(t.Context())); r.Rewritten != 0 {
		t.Fatalf("again: %+v", r)
	}
	// A file without a row left goes.
	for i := range deleteFilesMax {
		h.remove(find(20001), 900+i*3, 900+i*3+3)
	}
	h.remove(find(20001), 990, 1000)
	must[RoundResult](t)(m.Round(t.Context()))
	if files := h.files(); len(files) != 1 {
		t.Fatalf("%+v", files)
	}
}

// A table whose partitions another program has changed is left to that program.
func TestForeignPartitionsAreLeft(t *testing.T) {
	h := newHouse(t)
	h.add(20000, 0, 1000)
	for i := range deleteFilesMax {
		h.remove(h.files()[0], 10*i, 10*i+3)
	}
	spec := `[{"action":"add-spec","spec":{"fields":[{"name":"symbol_bucket","transform":"bucket[4]","source-id":1}]}},{"action":"set-default-spec","spec-id":-1}]`
	must[[]*catalog.Table](t)(h.catalog.CommitForeign(t.Context(), []catalog.Foreign{{Table: tableName, Updates: []byte(spec)}}, catalog.Guard{}))
	before := h.content(" ORDER BY seq")
	if r := must[RoundResult](t)(h.maintainer(nil).Round(t.Context())); r.Rewritten != 0 {
		t.Fatalf("%+v", r)
	}
	if files := h.files(); len(files) != 1 || len(files[0].Deletes) != deleteFilesMax || h.content(" ORDER BY seq") != before {
		t.Fatalf("%+v", files)
	}
}
