package catalog

import (
	"context"
	"fmt"
)

// Tagged reports whether a live file may be one that a tag keeps. It errs only
// towards true.
func (t *Table) Tagged() func(f *DataFile) bool {
	newest := int64(-1)
	for _, id := range t.Tags() {
		if s := t.meta.SnapshotByID(id); s != nil {
			newest = max(newest, s.SequenceNumber)
		}
	}
	return func(f *DataFile) bool { return f.seq <= newest }
}

// Expirable tells what Expire would do now. Its Swept counts what is due of the
// garbage that is listed already, of this table.
func (c *Catalog) Expirable(ctx context.Context, name Name, policy ExpirePolicy) (ExpireResult, error) {
	var r ExpireResult
	if err := c.usable(false); err != nil {
		return r, err
	}
	t, err := c.Load(ctx, name)
	if err != nil {
		return r, err
	}
	ids := c.expired(t, policy)
	garbage, err := c.unreferencedBy(ctx, t, ids)
	if err != nil {
		return r, err
	}
	r.Expired, r.Unreferenced = len(ids), len(garbage)
	r.Swept, err = c.sweepable(ctx, SweepPolicy{Grace: policy.Grace, Pinned: policy.Pinned}, t.Location)
	return r, err
}

// Sweepable tells what Sweep would delete now.
func (c *Catalog) Sweepable(ctx context.Context, policy SweepPolicy) (SweepResult, error) {
	if err := c.usable(false); err != nil {
		return SweepResult{}, err
	}
	return c.sweepable(ctx, policy, "")
}

func (c *Catalog) sweepable(ctx context.Context, policy SweepPolicy, location string) (r SweepResult, err error) {
	due := c.now().Add(-policy.Grace).UnixMicro()
	for after := ""; ; {
		paths, err := c.garbage(ctx, location, due, after)
		if err != nil || len(paths) == 0 {
			return r, err
		}
		after = paths[len(paths)-1]
		for _, uri := range paths {
			name, ok := c.store.Name(uri)
			if !ok {
				continue
			}
			names, err := c.garbageNames(ctx, name)
			if err != nil {
				return r, fmt.Errorf("sweep: %w", err)
			}
			for _, n := range names {
				if policy.Pinned != nil && policy.Pinned(c.pathOf(c.store.URI(n))) {
					r.Pinned++
				} else {
					r.Deleted++
				}
			}
		}
	}
}
