package maintain

import (
	"context"
	"errors"
	"fmt"

	"github.com/tapehouse/tapehouse/internal/catalog"
)

// Plan is what maintenance would do now.
type Plan struct {
	Tables  []TablePlan // those with something to do
	Dropped int         // files of tables that were dropped, to be removed
}

// TablePlan is what maintenance would do with one table.
type TablePlan struct {
	Table        catalog.Name
	Snapshots    int   // to be expired
	Unreferenced int   // files that only they refer to: removed after the grace period
	Due          int   // files unreferenced for longer than that, to be removed
	Pinned       int   // of those, in use and so kept
	Orphans      int   // files that were never committed, to be removed
	OrphanBytes  int64 //
	Deletes      int   // groups of files with many deleted rows, to be rewritten
	Merges       int   // groups of small files, each to become one
	MergeFiles   int   // small files in them
	MergeBytes   int64 //
}

func (p *TablePlan) empty() bool { return *p == TablePlan{Table: p.Table} }

// Plan tells what a round and the merging of small files would do now, and does
// nothing.
func (m *Maintainer) Plan(ctx context.Context) (Plan, error) {
	var out Plan
	var needs map[catalog.Name][]int64
	var err error
	if m.o.Needs != nil {
		if needs, err = m.o.Needs(ctx); err != nil {
			return out, fmt.Errorf("ask what views still need: %w", err)
		}
	}
	names, err := m.o.Catalog.List(ctx, "")
	if err != nil {
		return out, err
	}
	of := 0
	for _, n := range names {
		p, err := m.plan(ctx, n, needs[n])
		if errors.Is(err, catalog.ErrNotFound) {
			continue // dropped meanwhile
		}
		if err != nil {
			return out, fmt.Errorf("plan the maintenance of %s: %w", n, err)
		}
		of += p.Due + p.Pinned
		if !p.empty() {
			out.Tables = append(out.Tables, p)
		}
	}
	all, err := m.o.Catalog.Sweepable(ctx, catalog.SweepPolicy{Grace: m.o.Grace, Pinned: m.o.Engine.Pinned})
	if err != nil {
		return out, err
	}
	out.Dropped = max(all.Deleted+all.Pinned-of, 0)
	return out, nil
}

func (m *Maintainer) plan(ctx context.Context, name catalog.Name, needs []int64) (TablePlan, error) {
	p := TablePlan{Table: name}
	e, err := m.o.Catalog.Expirable(ctx, name, m.policy(needs))
	if err != nil {
		return p, err
	}
	p.Snapshots, p.Unreferenced, p.Due, p.Pinned = e.Expired, e.Unreferenced, e.Swept.Deleted, e.Swept.Pinned
	orphans, err := m.o.Catalog.Orphans(ctx, name, m.o.OrphanAge)
	if err != nil {
		return p, err
	}
	p.Orphans = len(orphans)
	for _, o := range orphans {
		p.OrphanBytes += o.SizeBytes
	}
	t, err := m.o.Catalog.Load(ctx, name)
	if err != nil {
		return p, err
	}
	all, err := m.o.Catalog.Files(ctx, t, catalog.At{})
	if err != nil {
		return p, err
	}
	if len(t.Foreign()) == 0 && t.DataDir() != "" && t.Rewritable() {
		eachPartition(all, func(files []catalog.DataFile) bool {
			for _, group := range groups(files) {
				if burdened(group) {
					p.Deletes++
				}
			}
			return true
		})
	}
	for _, g := range smallGroups(t, all, m.o.Now()) {
		p.Merges++
		p.MergeFiles += len(g.files)
		p.MergeBytes += g.bytes
	}
	return p, nil
}

// eachPartition calls fn with the files of each partition, until it returns
// false. files are sorted by partition.
func eachPartition(files []catalog.DataFile, fn func(files []catalog.DataFile) bool) {
	for from := 0; from < len(files); {
		to := from
		for to < len(files) && files[to].Partition == files[from].Partition {
			to++
		}
		if !fn(files[from:to]) {
			return
		}
		from = to
	}
}
