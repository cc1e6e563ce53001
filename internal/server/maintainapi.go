package server

import (
	"context"

	"github.com/tapehouse/tapehouse/internal/console"
)

// Flush implements console.Backend.
func (s closeBackend) Flush(ctx context.Context) (console.Flushed, error) {
	var out console.Flushed
	before := map[string]uint64{}
	for _, st := range s.delivery.Streams() {
		f := st.Stats()
		before[string(f.Stream)] = f.Through
	}
	if err := s.delivery.Flush(ctx); err != nil {
		return out, err
	}
	for _, st := range s.delivery.Streams() {
		f := st.Stats()
		was, ok := before[string(f.Stream)]
		if ok {
			out.Streams++
			out.Records += int64(f.Through - min(was, f.Through))
		}
	}
	return out, nil
}

// PlanMaintenance implements console.Backend.
func (s closeBackend) PlanMaintenance(ctx context.Context) (console.MaintainPlan, error) {
	p, err := s.maintainer.Plan(ctx)
	if err != nil {
		return console.MaintainPlan{}, err
	}
	out := console.MaintainPlan{Tables: []console.MaintainTable{}, Dropped: p.Dropped}
	for _, t := range p.Tables {
		out.Tables = append(out.Tables, console.MaintainTable{Table: t.Table.String(), Snapshots: t.Snapshots, Unreferenced: t.Unreferenced, Due: t.Due, Pinned: t.Pinned,
			Orphans: t.Orphans, OrphanBytes: t.OrphanBytes, Deletes: t.Deletes, Merges: t.Merges, MergeFiles: t.MergeFiles, MergeBytes: t.MergeBytes})
	}
	return out, nil
}

// Maintain implements console.Backend.
func (s closeBackend) Maintain(ctx context.Context) (console.Maintained, error) {
	r, err := s.maintainer.Round(ctx)
	if err != nil {
		return console.Maintained{}, err
	}
	merged, err := s.maintainer.MergeAll(ctx)
	return console.Maintained{Snapshots: r.Snapshots, Files: r.Files, Pinned: r.Pinned, Orphans: r.Orphans, Deletes: r.Rewritten, Merges: merged}, err
}
