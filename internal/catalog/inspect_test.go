package catalog

import (
	"maps"
	"slices"
	"testing"
)

// TestInspect: the metadata tables' rows after appends, a compaction, position
// deletes and a tag, on both kinds of lake.
func TestInspect(t *testing.T) { onEachLake(t, testInspect) }

func testInspect(t *testing.T, w *world) {
	c := w.open()
	tbl := mustCreate(t, c, executionsSpec(executions))
	if got, err := c.InspectFiles(t.Context(), tbl); err != nil || len(got) != 0 || len(tbl.Refs()) != 0 || len(tbl.History()) != 0 {
		t.Errorf("of an empty table: %v, %v, refs %v, history %v", got, err, tbl.Refs(), tbl.History())
	}
	for i := range 4 {
		tbl = commit(t, c, Commit{Table: executions, Add: []NewFile{written(t, c, tbl, date0+int32(i%2), int64(i)*100, 100)}})
	}
	first := tbl.Snapshots()[0].ID
	tbl = commit(t, c, Commit{Table: executions, Tags: map[string]int64{"seal-0": first}})
	f := FilesIn(files(t, c, tbl, At{}), date0)[0]
	tbl = commit(t, c, Commit{Table: executions, Deletes: []NewDeletes{positions(t, c, tbl, f, 0, 7)}})

	got, err := c.InspectFiles(t.Context(), tbl)
	if err != nil {
		t.Fatal(err)
	}
	byContent, byPartition := map[int]int{}, map[string]int64{}
	for _, x := range got {
		byContent[x.Content]++
		byPartition[x.Partition["trade_date"]] += x.Rows
		if x.Format != "PARQUET" || x.SizeBytes == 0 || x.SpecID != 0 {
			t.Errorf("%+v", x)
		}
		if x.Content == 0 && x.Path == f.URI() && (x.Lower[4] != "0" || x.Upper[4] != "99" || x.Values[4] != 100 || len(x.SplitOffsets) != 1) {
			t.Errorf("statistics of the first file: %+v", x)
		}
	}
	if !maps.Equal(byContent, map[int]int{0: 4, 1: 1}) {
		t.Errorf("contents %v", byContent)
	}
	if want := map[string]int64{"2026-11-23": 202, "2026-11-24": 200}; !maps.Equal(byPartition, want) {
		t.Errorf("partitions %v, want %v", byPartition, want)
	}

	refs := tbl.Refs()
	if names := []string{refs[0].Name, refs[len(refs)-1].Name}; len(refs) != 2 || !slices.Equal(names, []string{"main", "seal-0"}) || refs[0].Type != "branch" || refs[1].Type != "tag" || refs[1].SnapshotID != first {
		t.Errorf("refs %+v", refs)
	}
	history := tbl.History()
	if len(history) != len(tbl.Snapshots()) || history[0].Parent != 0 || history[len(history)-1].SnapshotID != tbl.Snapshot() {
		t.Errorf("history %+v", history)
	}
	for i, h := range history {
		if !h.IsCurrentAncestor || h.MadeCurrentAt.IsZero() || i > 0 && h.Parent != history[i-1].SnapshotID {
			t.Errorf("history %d: %+v", i, h)
		}
	}
	if tbl.ManifestList(first) == "" || tbl.ManifestList(1) != "" {
		t.Errorf("manifest lists %q, %q", tbl.ManifestList(first), tbl.ManifestList(1))
	}
}
