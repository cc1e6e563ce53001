package catalog

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/lake"
)

// hookedStore calls a function before objects are written.
type hookedStore struct {
	lake.Store
	before func()
}

func (s hookedStore) PutAll(ctx context.Context, objects []lake.Object) error {
	s.before()
	return s.Store.PutAll(ctx, objects)
}

func infoSum(count *int, size *int64) func(lake.Info) error {
	return func(i lake.Info) error { *count++; *size += i.SizeBytes; return nil }
}

// sum applies a delta to counts of rows by file, as a consumer would.
func sum(d Delta) (added, removed int64) {
	for _, r := range d.Deleted {
		for _, by := range r.By {
			removed += by.Rows
		}
	}
	for _, f := range d.Removed {
		removed += f.Rows
		for _, del := range f.Deletes {
			removed -= del.Rows
		}
	}
	return rowsOf(d.Added), removed
}

func TestDelta(t *testing.T) { onEachLake(t, testDelta) }

func testDelta(t *testing.T, w *world) {
	ctx := t.Context()
	c := w.open()
	tbl := mustCreate(t, c, executionsSpec(executions))
	snaps := []int64{0}
	live := []int64{0} // rows at each
	step := func(rows int64, m Commit) {
		t.Helper()
		m.Table = executions
		tbl = commit(t, c, m)
		snaps, live = append(snaps, tbl.Snapshot()), append(live, rows)
	}
	step(10, Commit{Add: []NewFile{ghost(tbl, date0, 0, 10)}, Through: through(10)})
	step(15, Commit{Add: []NewFile{ghost(tbl, date0, 10, 5)}, Through: through(15)})
	step(15, Commit{Replace: FilesIn(files(t, c, tbl, At{}), date0), Add: []NewFile{ghost(tbl, date0, 0, 15)}}) // compaction
	step(18, Commit{Add: []NewFile{ghost(tbl, date0+1, 15, 3)}, Through: through(18)})
	compacted := FilesIn(files(t, c, tbl, At{}), date0)[0]
	step(13, Commit{Remove: []DataFile{compacted}, Add: []NewFile{ghost(tbl, date0, 0, 10)}}) // overwrite
	f := FilesIn(files(t, c, tbl, At{}), date0)[0]
	step(11, Commit{Deletes: []NewDeletes{{Path: tbl.DataDir() + "/d1.parquet", Rows: 2, SizeBytes: 9, From: f}}})
	f = FilesIn(files(t, c, tbl, At{}), date0)[0]
	step(14, Commit{Deletes: []NewDeletes{{Path: tbl.DataDir() + "/d2.parquet", Rows: 1, SizeBytes: 9, From: f}}, Add: []NewFile{ghost(tbl, date0+1, 20, 4)}})
	f = FilesIn(files(t, c, tbl, At{}), date0)[0]
	if len(f.Deletes) != 2 {
		t.Fatalf("deletes = %+v", f.Deletes)
	}
	step(14, Commit{Replace: []DataFile{f}, Add: []NewFile{ghost(tbl, date0, 0, 7)}}) // compaction with deletes
	step(7, Commit{Remove: FilesIn(files(t, c, tbl, At{}), date0)})                   // whole partition

	check := func(c *Catalog, tbl *Table) {
		t.Helper()
		for i := range snaps {
			for j := i; j < len(snaps); j++ {
				if snaps[j] == 0 {
					continue
				}
				d, err := c.Delta(ctx, tbl, snaps[i], snaps[j])
				if err != nil {
					t.Errorf("delta %d→%d: %v", i, j, err)
					continue
				}
				added, removed := sum(d)
				if live[i]+added-removed != live[j] {
					t.Errorf("delta %d→%d: %d + %d − %d, want %d", i, j, live[i], added, removed, live[j])
				}
			}
		}
	}
	check(c, tbl)
	again, err := w.open().Load(ctx, executions)
	if err != nil {
		t.Fatal(err)
	}
	c = w.open()
	check(c, again)

	if d, err := c.Delta(ctx, tbl, snaps[2], snaps[3]); err != nil || !d.IsEmpty() {
		t.Errorf("compaction is a change: %+v, %v", d, err)
	}
	if d, err := c.Delta(ctx, tbl, snaps[1], snaps[4]); err != nil || len(d.Added) != 2 || len(d.Removed) != 0 {
		t.Errorf("appends around a compaction: %+v, %v", d, err)
	}
	if d, err := c.Delta(ctx, tbl, snaps[5], snaps[6]); err != nil || len(d.Deleted) != 1 || d.Deleted[0].By[0].Rows != 2 || len(d.Deleted[0].File.Deletes) != 0 {
		t.Errorf("position deletes: %+v, %v", d, err)
	}
	if d, err := c.Delta(ctx, tbl, snaps[4], 0); err != nil || d.To != tbl.Snapshot() {
		t.Errorf("to the current one: %+v, %v", d, err)
	}
	if _, err := c.Delta(ctx, tbl, snaps[5], snaps[2]); !errors.Is(err, ErrExpired) {
		t.Errorf("backwards: %v", err)
	}
	if _, err := c.Delta(ctx, tbl, 12345, 0); !errors.Is(err, ErrExpired) {
		t.Errorf("from nowhere: %v", err)
	}

	// Requirements on files: other deletes than the caller saw are a conflict.
	stale := compacted
	if _, err := c.Commit(ctx, []Commit{{Table: executions, Replace: []DataFile{stale}, Add: []NewFile{ghost(tbl, date0, 0, 15)}}}); !errors.Is(err, ErrConflict) {
		t.Errorf("replacing a file that is gone: %v", err)
	}
	g := FilesIn(files(t, c, tbl, At{}), date0+1)[0]
	tbl = commit(t, c, Commit{Table: executions, Deletes: []NewDeletes{{Path: tbl.DataDir() + "/d3.parquet", Rows: 1, SizeBytes: 9, From: g}}})
	if _, err := c.Commit(ctx, []Commit{{Table: executions, Replace: []DataFile{g}, Add: []NewFile{ghost(tbl, date0+1, 0, 3)}}}); !errors.Is(err, ErrConflict) {
		t.Errorf("replacing a file with new deletes: %v", err)
	}
}

func TestDeltaAfterExpiry(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	c := w.open()
	tbl := mustCreate(t, c, executionsSpec(executions))
	var snaps []int64
	for i := range 10 {
		tbl = commit(t, c, Commit{Table: executions, Add: []NewFile{ghost(tbl, date0, int64(i), 1)}, Through: through(i + 1)})
		snaps = append(snaps, tbl.Snapshot())
	}
	w.later(time.Hour)
	if r, err := c.Expire(ctx, executions, ExpirePolicy{KeepDeltaFrom: []int64{snaps[5]}, KeepSnapshots: []int64{snaps[1]}}); err != nil || r.Expired != 4 {
		t.Fatalf("Expire = %+v, %v", r, err)
	}
	tbl, err := c.Load(ctx, executions)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := c.Delta(ctx, tbl, snaps[5], 0); err != nil || rowsOf(d.Added) != 4 {
		t.Errorf("kept delta: %+v, %v", d, err)
	}
	if d, err := c.Delta(ctx, tbl, 0, 0); err != nil || rowsOf(d.Added) != 10 {
		t.Errorf("from the empty table: %+v, %v", d, err)
	}
	if got := rowsOf(files(t, c, tbl, At{SnapshotID: snaps[1]})); got != 2 {
		t.Errorf("kept snapshot has %d rows", got)
	}
	for _, from := range []int64{snaps[1], snaps[2], snaps[4]} {
		if _, err := c.Delta(ctx, tbl, from, 0); !errors.Is(err, ErrExpired) {
			t.Errorf("broken chain: %v", err)
		}
	}
	if _, err := c.Files(ctx, tbl, At{SnapshotID: snaps[2]}); !errors.Is(err, ErrNotFound) {
		t.Errorf("expired snapshot: %v", err)
	}
	if got := files(t, c, tbl, At{})[0]; got.SchemaID != -1 && got.SchemaID != 0 {
		t.Errorf("schema id %d", got.SchemaID)
	}
}

func TestExpireDeletesFiles(t *testing.T) { onEachLake(t, testExpireDeletesFiles) }

func testExpireDeletesFiles(t *testing.T, w *world) {
	ctx := t.Context()
	c := w.open()
	tbl := mustCreate(t, c, executionsSpec(executions))
	exists := func(f DataFile) bool {
		name, _ := w.store.Name(f.URI())
		_, err := w.store.Stat(ctx, name)
		if err != nil && !errors.Is(err, lake.ErrNotFound) {
			t.Fatal(err)
		}
		return err == nil
	}
	for i := range 4 {
		tbl = commit(t, c, Commit{Table: executions, Add: []NewFile{written(t, c, tbl, date0, int64(i)*10, 10)}})
	}
	sealed := files(t, c, tbl, At{})
	tbl = commit(t, c, Commit{Table: executions, Tags: map[string]int64{"seal": 0}})
	tbl = commit(t, c, Commit{Table: executions, Add: []NewFile{written(t, c, tbl, date0, 100, 10)}})
	late := slices.DeleteFunc(slices.Clone(files(t, c, tbl, At{})), func(f DataFile) bool {
		return slices.ContainsFunc(sealed, func(s DataFile) bool { return s.Path == f.Path })
	})
	tbl = commit(t, c, Commit{Table: executions, Replace: files(t, c, tbl, At{}), Add: []NewFile{written(t, c, tbl, date0, 0, 50)}})
	current := files(t, c, tbl, At{})

	w.later(time.Hour)
	policy := ExpirePolicy{RetainLast: 1, MinAge: 2 * time.Hour, Grace: time.Hour}
	if r, err := c.Expire(ctx, executions, policy); err != nil || r.Expired != 0 {
		t.Errorf("everything is younger than the policy's age: %+v, %v", r, err)
	}
	policy.MinAge = time.Minute
	r, err := c.Expire(ctx, executions, policy)
	if err != nil || r.Expired != 4 || r.Swept.Deleted != 0 {
		t.Errorf("Expire = %+v, %v", r, err)
	}
	if !exists(late[0]) {
		t.Error("a file went within the grace period")
	}
	if _, err := c.Load(ctx, executions); err != nil {
		t.Fatal(err)
	}
	w.later(2 * time.Hour)
	policy.Pinned = func(p string) bool { return p == late[0].Path }
	if r, err = c.Expire(ctx, executions, policy); err != nil || r.Swept.Pinned != 1 || r.Swept.Deleted == 0 {
		t.Errorf("Expire = %+v, %v", r, err)
	}
	if !exists(late[0]) {
		t.Error("a pinned file was deleted")
	}
	policy.Pinned = nil
	if r, err = c.Expire(ctx, executions, policy); err != nil || r.Swept.Deleted != 1 {
		t.Errorf("Expire = %+v, %v", r, err)
	}
	if exists(late[0]) {
		t.Error("an unreferenced file is still there")
	}
	tbl, err = c.Load(ctx, executions)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(sealed, current...) {
		if !exists(f) {
			t.Errorf("%s is gone, but the tag or the table needs it", f.Path)
		}
	}
	fresh := w.open()
	for at, rows := range map[At]int64{{Tag: "seal"}: 40, {}: 50} {
		if got := rowsOf(files(t, fresh, tbl, at)); got != rows {
			t.Errorf("%+v has %d rows after expiry, want %d", at, got, rows)
		}
	}
}

func TestOrphans(t *testing.T) { onEachLake(t, testOrphans) }

func testOrphans(t *testing.T, w *world) {
	ctx := t.Context()
	c := w.open()
	tbl := mustCreate(t, c, executionsSpec(executions))
	for i := range 30 {
		tbl = commit(t, c, Commit{Table: executions, Add: []NewFile{written(t, c, tbl, date0, int64(i), 1)}})
	}
	lost := written(t, c, tbl, date0, 500, 5)
	kept := written(t, c, tbl, date0, 600, 5)
	notATable := "equities/exports/2026.parquet"
	abandoned := "equities/old-0123456789ab/metadata/00000-x.metadata.json"
	for _, name := range []string{notATable, abandoned} {
		if err := w.store.Put(ctx, name, strings.NewReader("x"), 1); err != nil {
			t.Fatal(err)
		}
	}
	if o, err := c.Orphans(ctx, executions, time.Hour); err != nil || len(o) != 0 {
		t.Errorf("young files are orphans: %v, %v", o, err)
	}
	w.later(2 * time.Hour)
	names := func(o []Orphan, err error) []string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, x := range o {
			out = append(out, x.Name)
		}
		slices.Sort(out)
		return out
	}
	if got, want := names(c.Orphans(ctx, executions, time.Hour)), []string{lost.Path, kept.Path}; !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("orphans = %v, want %v", got, want)
	}
	all := names(c.Orphans(ctx, Name{}, time.Hour))
	if !slices.Contains(all, abandoned) || slices.Contains(all, notATable) || len(all) != 3 {
		t.Errorf("orphans = %v", all)
	}
	// One of them is committed after all.
	tbl = commit(t, c, Commit{Table: executions, Add: []NewFile{kept}})
	keptPath := w.path(kept.Path)
	if got := names(c.DeleteOrphans(ctx, executions, time.Hour, func(p string) bool { return p == keptPath })); !slices.Equal(got, []string{lost.Path}) {
		t.Errorf("deleted %v", got)
	}
	if got := names(c.DeleteOrphans(ctx, Name{}, time.Hour, nil)); !slices.Equal(got, []string{abandoned}) {
		t.Errorf("deleted %v", got)
	}
	if got := rowsOf(files(t, w.open(), tbl, At{})); got != 35 {
		t.Errorf("%d rows, want 35", got)
	}
}

// TestExpireRetainsAtMost: of young snapshots only so many stay, but for those
// that a tag, a reader or a view needs; and a table's former states take no more
// memory than the cache allows.
func TestExpireRetainsAtMost(t *testing.T) {
	w := newFastWorld(t)
	c := w.open()
	tbl := mustCreate(t, c, executionsSpec(executions))
	var ids []int64
	for i := range 20 {
		m := Commit{Table: executions, Add: []NewFile{ghost(tbl, 20000, int64(i), 1)}}
		if i == 3 {
			m.Tags = map[string]int64{"kept": 0}
		}
		ids = append(ids, commit(t, c, m).Snapshot())
	}
	r, err := c.Expire(t.Context(), executions, ExpirePolicy{RetainLast: 2, MinAge: time.Hour, RetainMost: 5, KeepSnapshots: ids[7:8], Grace: time.Hour})
	must(t, err)
	var left []int64
	loaded, err := c.Load(t.Context(), executions)
	must(t, err)
	for _, s := range loaded.Snapshots() {
		left = append(left, s.ID)
	}
	want := append([]int64{ids[3], ids[7]}, ids[15:]...)
	if r.Expired != 13 || !slices.Equal(left, want) {
		t.Errorf("expired %d, left %v, want %v", r.Expired, left, want)
	}
	c.tables.mu.Lock()
	weight := c.tables.weight // by snapshots, not by tables
	c.tables.mu.Unlock()
	if weight < 20*20/2 || weight > cachedSnapshotsMax {
		t.Errorf("the loaded tables weigh %d", weight)
	}
}
