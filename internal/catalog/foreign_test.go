package catalog

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/apache/iceberg-go/table"

	"github.com/tapehouse/tapehouse/internal/lake"
)

// foreignAppend is what a client of the table would send to add the file: its
// manifests lie in the lake, its pointer is where it was.
func foreignAppend(t *testing.T, c *Catalog, name Name, f NewFile) Foreign {
	t.Helper()
	tbl, err := c.Library().LoadTable(t.Context(), name.identifier())
	if err != nil {
		t.Fatal(err)
	}
	ours, err := c.Load(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	data, err := c.newDataFiles(ours, []NewFile{f})
	if err != nil {
		t.Fatal(err)
	}
	tx := tbl.NewTransaction()
	if err := tx.AddDataFiles(t.Context(), data, nil, table.WithoutDuplicateCheck(), table.WithoutAutoNameMapping()); err != nil {
		t.Fatal(err)
	}
	tc, err := tx.TableCommit()
	if err != nil {
		t.Fatal(err)
	}
	out := Foreign{Table: name}
	if out.Requirements, err = json.Marshal(tc.Requirements); err != nil {
		t.Fatal(err)
	}
	if out.Updates, err = json.Marshal(tc.Updates); err != nil {
		t.Fatal(err)
	}
	return out
}

// lakeNames lists the objects below a prefix.
func lakeNames(t *testing.T, w *world, prefix string) (out []string) {
	t.Helper()
	if err := w.store.List(t.Context(), prefix, func(i lake.Info) error { out = append(out, i.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// TestForeign commits what a client built, on each kind of lake, through each way
// in which a commit can end.
func TestForeign(t *testing.T) {
	onEachLake(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		c := w.open()
		tbl := mustCreate(t, c, executionsSpec(executions))
		other := mustCreate(t, c, executionsSpec(corrections))
		tbl = commit(t, c, Commit{Table: executions, Add: []NewFile{written(t, c, tbl, date0, 0, 5)}, Through: through(5)})
		one := foreignAppend(t, c, executions, written(t, c, tbl, date0, 5, 5))
		stale := foreignAppend(t, c, executions, written(t, c, tbl, date0, 10, 5))
		two := foreignAppend(t, c, corrections, written(t, c, other, date0, 0, 3))

		// One that does not hold keeps all back, and leaves nothing of ours behind.
		before := lakeNames(t, w, "")
		bad := two
		bad.Requirements = json.RawMessage(`[{"type":"assert-ref-snapshot-id","ref":"main","snapshot-id":7}]`)
		if _, err := c.CommitForeign(ctx, []Foreign{one, bad}, Guard{}); !errors.Is(err, ErrConflict) {
			t.Errorf("a stale requirement: %v", err)
		}
		made := Foreign{Table: Name{"nowhere", "x"}, Requirements: json.RawMessage(`[{"type":"assert-create"}]`), Updates: createUpdates(t, c, Name{"nowhere", "x"})}
		if _, err := c.CommitForeign(ctx, []Foreign{one, made}, Guard{}); !errors.Is(err, ErrNotFound) {
			t.Errorf("a table in no namespace: %v", err)
		}
		if after := lakeNames(t, w, ""); !slices.Equal(before, after) {
			t.Errorf("a refused commit left %v", after)
		}
		made = Foreign{Table: Name{"equities", "x"}, Requirements: made.Requirements, Updates: createUpdates(t, c, Name{"equities", "x"})}
		out, err := c.CommitForeign(ctx, []Foreign{one, two, made}, Guard{})
		if err != nil {
			t.Fatal(err)
		}
		if rowsOf(files(t, c, out[0], At{})) != 10 || rowsOf(files(t, c, out[1], At{})) != 3 || out[2].Name.Table != "x" || out[0].Through()[key0] != 5 {
			t.Errorf("states %+v", out)
		}
		if _, err := c.CommitForeign(ctx, []Foreign{stale}, Guard{}); !errors.Is(err, ErrConflict) {
			t.Errorf("built on a former state: %v", err)
		}
		if _, err := c.CommitForeign(ctx, []Foreign{made}, Guard{}); !errors.Is(err, ErrExists) {
			t.Errorf("made twice: %v", err)
		}

		// COMMIT reports an error: done, or not done.
		fails := errors.New("the disk hiccups")
		next := foreignAppend(t, c, executions, written(t, c, tbl, date0, 20, 5))
		c.hook.afterCommit = func() error { c.hook.afterCommit = nil; return fails }
		if out, err = c.CommitForeign(ctx, []Foreign{next}, Guard{}); err != nil || rowsOf(files(t, c, out[0], At{})) != 15 {
			t.Errorf("done, with an error: %v", err)
		}
		next = foreignAppend(t, c, executions, written(t, c, tbl, date0, 30, 5))
		tries := 0
		c.hook.beforeCommit = func() error { tries++; return fails }
		if _, err = c.CommitForeign(ctx, []Foreign{next}, Guard{}); !errors.Is(err, fails) || errors.Is(err, ErrPoisoned) || tries < 2 {
			t.Errorf("not done: %v after %d tries", err, tries)
		}
		c.hook.beforeCommit = nil
		if out, err = c.CommitForeign(ctx, []Foreign{next}, Guard{}); err != nil || rowsOf(files(t, c, out[0], At{})) != 20 {
			t.Errorf("again: %v", err)
		}

		// The catalog has another owner.
		next = foreignAppend(t, c, executions, written(t, c, tbl, date0, 40, 5))
		c2 := w.open()
		if _, err := c.CommitForeign(ctx, []Foreign{next}, Guard{}); !errors.Is(err, ErrFenced) {
			t.Errorf("by a former owner: %v", err)
		}
		if out, err = c2.CommitForeign(ctx, []Foreign{next}, Guard{}); err != nil || rowsOf(files(t, c2, out[0], At{})) != 25 {
			t.Errorf("by the owner: %v", err)
		}
		if d, err := c2.Delta(ctx, out[0], out[0].Snapshots()[0].ID, out[0].Snapshot()); err != nil || rowsOf(d.Added) != 20 {
			t.Errorf("delta: %v", err)
		}
		if err := c2.DropForeign(ctx, Name{"equities", "x"}, true, Guard{}); err != nil {
			t.Error(err)
		}
		if _, err := c2.Sweep(ctx, SweepPolicy{}); err != nil {
			t.Error(err)
		}
		if left := lakeNames(t, w, "equities/x-"); len(left) > 0 {
			t.Errorf("a purged table left %v", left)
		}
	})
}

// createUpdates are the updates by which a client makes a table that was staged.
func createUpdates(t *testing.T, c *Catalog, name Name) json.RawMessage {
	t.Helper()
	if !strings.HasPrefix(name.Namespace, "nowhere") {
		if _, err := c.StageForeign(t.Context(), ForeignTable{Name: name, Schema: json.RawMessage(`{"type":"struct","fields":[{"id":1,"name":"a","required":false,"type":"int"}]}`)}, Guard{}); err != nil {
			t.Fatal(err)
		}
	}
	meta, err := c.foreignMetadata(ForeignTable{Name: name, Schema: json.RawMessage(`{"type":"struct","fields":[{"id":1,"name":"a","required":false,"type":"int"}]}`)})
	if err != nil {
		t.Fatal(err)
	}
	spec := meta.PartitionSpec()
	b, err := json.Marshal([]table.Update{table.NewAssignUUIDUpdate(meta.TableUUID()), table.NewUpgradeFormatVersionUpdate(2), table.NewAddSchemaUpdate(meta.CurrentSchema()), table.NewSetCurrentSchemaUpdate(-1),
		table.NewAddPartitionSpecUpdate(&spec, false), table.NewSetDefaultSpecUpdate(-1), table.NewAddSortOrderUpdate(&table.UnsortedSortOrder), table.NewSetDefaultSortOrderUpdate(-1),
		table.NewSetLocationUpdate(meta.Location())})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestForeignStatistics: statistics that a client computed are not orphans.
func TestForeignStatistics(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	c := w.open()
	tbl := mustCreate(t, c, executionsSpec(executions))
	tbl = commit(t, c, Commit{Table: executions, Add: []NewFile{written(t, c, tbl, date0, 0, 5)}, Through: through(5)})
	name := tbl.DataDir() + "/x.puffin"
	for _, n := range []string{name, tbl.DataDir() + "/stray.puffin"} {
		if err := w.store.Put(ctx, n, strings.NewReader("PFA1"), 4); err != nil {
			t.Fatal(err)
		}
	}
	update, err := json.Marshal([]any{map[string]any{"action": "set-statistics", "snapshot-id": tbl.Snapshot(), "statistics": map[string]any{"snapshot-id": tbl.Snapshot(),
		"statistics-path": w.store.URI(name), "file-size-in-bytes": 4, "file-footer-size-in-bytes": 4, "blob-metadata": []any{}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CommitForeign(ctx, []Foreign{{Table: executions, Updates: update}}, Guard{}); err != nil {
		t.Fatal(err)
	}
	orphans, err := c.Orphans(ctx, executions, 0)
	if err != nil || len(orphans) != 1 || !strings.HasSuffix(orphans[0].Name, "stray.puffin") {
		t.Errorf("orphans %v, %v", orphans, err)
	}
}

// TestForeignPartitions: a table whose partitions another program changed is
// added to and read, and no row of it is deleted or rewritten under the wrong ones.
func TestForeignPartitions(t *testing.T) {
	ctx := t.Context()
	c := newWorld(t).open()
	name := Name{"desk", "trades"}
	tbl := mustCreate(t, c, TableSpec{Name: name, Columns: []Column{{Name: "n", Type: "long"}, {Name: "settled", Type: "date"}}})
	if !tbl.Rewritable() {
		t.Error("a table of our own cannot be rewritten")
	}
	tbl = commit(t, c, Commit{Table: name, Add: []NewFile{{Path: ghost(tbl, date0, 0, 1).Path, Stats: FileStats{Rows: 1, SizeBytes: 10}}}})
	before := files(t, c, tbl, At{})
	spec := json.RawMessage(`[{"action":"add-spec","spec":{"fields":[{"name":"settled","transform":"identity","source-id":2}]}},{"action":"set-default-spec","spec-id":-1}]`)
	out, err := c.CommitForeign(ctx, []Foreign{{Table: name, Updates: spec}}, Guard{})
	if err != nil {
		t.Fatal(err)
	}
	if tbl = out[0]; tbl.Rewritable() || tbl.PartitionBy != "settled" {
		t.Errorf("partitioned by %q", tbl.PartitionBy)
	}
	added := NewFile{Path: ghost(tbl, date0, 1, 1).Path, Partition: Partition{date0, true}, Stats: FileStats{Rows: 1, SizeBytes: 10}}
	for what, m := range map[string]Commit{
		"a deletion":   {Deletes: []NewDeletes{{Path: tbl.DataDir() + "/d.parquet", Rows: 1, SizeBytes: 10, From: before[0]}}},
		"a compaction": {Replace: before, Add: []NewFile{added}},
	} {
		m.Table = name
		if _, err := c.Commit(ctx, []Commit{m}); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", what, err)
		}
	}
	tbl = commit(t, c, Commit{Table: name, Add: []NewFile{added}})
	if all := files(t, c, tbl, At{}); len(all) != 2 || all[0].Partition.Has == all[1].Partition.Has {
		t.Errorf("files %+v", all)
	}
}
