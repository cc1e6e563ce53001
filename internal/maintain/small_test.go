package maintain

import (
	"context"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
)

// TestMergeSmallFiles: small files become one when there are many, or when their
// partition has settled; no row changes, and nothing is merged twice.
func TestMergeSmallFiles(t *testing.T) {
	h := newHouse(t)
	for i := range mergeFiles - 1 {
		h.add(20000, i*10, 10)
	}
	h.add(20001, 5000, 10)
	m := h.maintainer(nil)
	if n := must[int](t)(m.merge(t.Context(), tableName, 0, nil)); n != 0 {
		t.Fatalf("%d groups merged while more files may come", n)
	}
	h.add(20000, 6000, 10)
	before := h.content(" ORDER BY seq")
	plan := must[Plan](t)(m.Plan(t.Context()))
	if len(plan.Tables) != 1 || plan.Tables[0].Merges != 1 || plan.Tables[0].MergeFiles != mergeFiles {
		t.Fatalf("plan %+v", plan)
	}
	if n := must[int](t)(m.merge(t.Context(), tableName, 0, nil)); n != 1 {
		t.Fatalf("%d groups merged, want 1", n)
	}
	if files := h.files(); len(files) != 2 || files[0].Rows != 10*mergeFiles || h.content(" ORDER BY seq") != before {
		t.Fatalf("%d files, or other rows", len(files))
	}
	if n := must[int](t)(m.merge(t.Context(), tableName, 0, nil)); n != 0 {
		t.Fatalf("merged again: %d groups", n)
	}

	h.add(20000, 7000, 10)
	before = h.content(" ORDER BY seq")
	h.now.Add(int64(settledAge + time.Second))
	if n := must[int](t)(m.merge(t.Context(), tableName, 0, nil)); n != 1 {
		t.Fatalf("%d groups merged of a settled partition, want 1", n)
	}
	if files := h.files(); len(files) != 2 || h.content(" ORDER BY seq") != before {
		t.Fatalf("%d files, or other rows", len(files))
	}
}

// TestMergeLeavesTaggedFilesAlone: what a seal's tag keeps would be stored twice.
func TestMergeLeavesTaggedFilesAlone(t *testing.T) {
	h := newHouse(t)
	for i := range 5 {
		h.add(20000, i*10, 10)
	}
	must[[]*catalog.Table](t)(h.catalog.Commit(t.Context(), []catalog.Commit{{Table: tableName, Tags: map[string]int64{"sealed": 0}}}))
	h.add(20000, 100, 10)
	h.add(20000, 200, 10)
	h.now.Add(int64(settledAge + time.Second))
	m := h.maintainer(nil)
	before := h.content(" ORDER BY seq")
	if n := must[int](t)(m.merge(t.Context(), tableName, 0, nil)); n != 1 {
		t.Fatalf("%d groups merged, want that of the two files after the tag", n)
	}
	if files := h.files(); len(files) != 6 || h.content(" ORDER BY seq") != before {
		t.Fatalf("%d files, want 5 tagged and 1 merged", len(files))
	}
}

// TestMergeAppliesDeletes: a merged file has no deletes, and the deleted rows
// do not come back.
func TestMergeAppliesDeletes(t *testing.T) {
	h := newHouse(t)
	h.add(20000, 0, 100)
	h.add(20000, 100, 100)
	h.remove(h.files()[0], 10, 30)
	before := h.content(" ORDER BY seq")
	h.now.Add(int64(settledAge + time.Second))
	if n := must[int](t)(h.maintainer(nil).merge(t.Context(), tableName, 0, nil)); n != 1 {
		t.Fatalf("%d groups merged", n)
	}
	if files := h.files(); len(files) != 1 || files[0].Rows != 180 || len(files[0].Deletes) != 0 || h.content(" ORDER BY seq") != before {
		t.Fatalf("%+v", files)
	}
}

// TestMergeBesideCommits: a commit that comes in between is not lost, and neither
// are the rows of the group.
func TestMergeBesideCommits(t *testing.T) {
	h := newHouse(t)
	for i := range 4 {
		h.add(20000, i*100, 100)
	}
	h.now.Add(int64(settledAge + time.Second))
	victim := h.files()[0]
	m := h.maintainer(func(o *Options) { o.Catalog = &between{Catalog: o.Catalog, do: func() { h.remove(victim, 0, 5) }} })
	if n := must[int](t)(m.merge(t.Context(), tableName, 0, nil)); n != 0 {
		t.Fatalf("%d groups merged under a delete that they did not see", n)
	}
	before := h.content(" ORDER BY seq")
	if n := must[int](t)(m.merge(t.Context(), tableName, 0, nil)); n != 1 {
		t.Fatalf("%d groups merged the second time", n)
	}
	if h.content(" ORDER BY seq") != before || h.files()[0].Rows != 395 {
		t.Fatal("other rows")
	}
}

// between commits something before the first commit that comes.
type between struct {
	Catalog
	do func()
}

func (b *between) Commit(ctx context.Context, commits []catalog.Commit, documents ...catalog.DocumentWrite) ([]*catalog.Table, error) {
	if do := b.do; do != nil {
		b.do = nil
		do()
	}
	return b.Catalog.Commit(ctx, commits, documents...)
}

// TestPace: merging waits nine times as long as it worked while records come in,
// and not at all otherwise.
func TestPace(t *testing.T) {
	h := newHouse(t)
	for day := range 3 {
		for i := range 3 {
			h.add(int32(20000+day), day*1000+i*10, 10)
		}
	}
	h.now.Add(int64(settledAge + time.Second))
	var waits []time.Duration
	must[int](t)(h.maintainer(nil).merge(t.Context(), tableName, 0, func(took time.Duration) time.Duration {
		waits = append(waits, took)
		return 0
	}))
	if len(waits) != 3 {
		t.Fatalf("asked %d times for a pause, want once a group", len(waits))
	}
	records := int64(0)
	m := h.maintainer(func(o *Options) { o.Ingested = func() int64 { return records } })
	p := m.pacing()
	if d := p(time.Second); d != 0 {
		t.Errorf("quiet: %s", d)
	}
	records += quietRecords + 1
	if d := p(time.Second); d != (mergeShare-1)*time.Second {
		t.Errorf("busy: %s", d)
	}
	if d := p(time.Second); d != 0 {
		t.Errorf("quiet again: %s", d)
	}
}

// TestBusyPutsMergingOff: under a heavy load nothing is merged, until it ends.
func TestBusyPutsMergingOff(t *testing.T) {
	h := newHouse(t)
	for i := range 3 {
		h.add(20000, i*10, 10)
	}
	h.now.Add(int64(settledAge + time.Second))
	records := int64(0)
	step := h.maintainer(func(o *Options) { o.Ingested = func() int64 { return records } }).mergeUnlessBusy()
	h.now.Add(int64(time.Minute))
	records += 61 * busyRate
	check(t, step(t.Context()))
	if n := len(h.files()); n != 3 {
		t.Fatalf("%d files: merged under load", n)
	}
	h.now.Add(int64(time.Minute))
	records += 59 * busyRate
	check(t, step(t.Context()))
	if n := len(h.files()); n != 1 {
		t.Fatalf("%d files: not merged once the load had fallen", n)
	}
}
