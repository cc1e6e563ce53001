package catalog

import (
	"context"
	"fmt"
	"slices"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// Delta is what changed from one snapshot to another, as a sum:
//
//	rows(to) = rows(from) + rows(Added) − rows(Removed) − rows(Deleted)
//
// A file that came and went within the range stands in neither. All files
// named exist as long as the snapshots of the range are retained.
type Delta struct {
	From, To int64
	Added    []DataFile // their Deletes are empty
	Removed  []DataFile // without the rows that their Deletes had taken before
	Deleted  []DeletedRows
}

// DeletedRows are rows taken from a file that stays: those at the positions of
// By, without those that File.Deletes had taken before.
type DeletedRows struct {
	File DataFile
	By   []DeleteFile
}

// IsEmpty reports whether no row changed.
func (d Delta) IsEmpty() bool {
	return len(d.Added) == 0 && len(d.Removed) == 0 && len(d.Deleted) == 0
}

// Delta computes what changed from snapshot from (0: the empty table) to
// snapshot to (0: the current one). Compactions are no change. ErrExpired when
// a snapshot between them is no longer retained, or from is not an ancestor.
func (c *Catalog) Delta(ctx context.Context, t *Table, from, to int64) (Delta, error) {
	if err := c.usable(false); err != nil {
		return Delta{}, err
	}
	if to == 0 {
		to = t.Snapshot()
	}
	d := Delta{From: from, To: to}
	if from == to {
		return d, nil
	}
	if from == 0 {
		return c.deltaFromEmpty(ctx, t, d)
	}
	var chain []*table.Snapshot // newest first
	for id := to; id != from; {
		s := t.meta.SnapshotByID(id)
		if s == nil || s.ParentSnapshotID == nil {
			return Delta{}, fmt.Errorf("table %s: delta from snapshot %d to %d: %w", t.Name, from, to, ErrExpired)
		}
		chain = append(chain, s)
		id = *s.ParentSnapshotID
	}
	if t.meta.SnapshotByID(from) == nil {
		return Delta{}, fmt.Errorf("table %s: delta from snapshot %d to %d: %w", t.Name, from, to, ErrExpired)
	}
	for _, s := range slices.Backward(chain) {
		if s.Summary != nil && s.Summary.Operation == table.OpReplace {
			continue
		}
		if err := c.addChanges(ctx, t, s, &d); err != nil {
			return Delta{}, fmt.Errorf("table %s: delta of snapshot %d: %w", t.Name, s.SnapshotID, err)
		}
	}
	d.cancel()
	return d, nil
}

// deltaFromEmpty is everything that is there, less what is deleted from it.
func (c *Catalog) deltaFromEmpty(ctx context.Context, t *Table, d Delta) (Delta, error) {
	files, err := c.plan(ctx, t, d.To)
	if err != nil {
		return Delta{}, err
	}
	for _, f := range files {
		if len(f.Deletes) > 0 {
			whole := f
			whole.Deletes = nil
			d.Deleted = append(d.Deleted, DeletedRows{whole, f.Deletes})
			f = whole
		}
		d.Added = append(d.Added, f)
	}
	return d, nil
}

// addChanges adds what snapshot s itself changed.
func (c *Catalog) addChanges(ctx context.Context, t *Table, s *table.Snapshot, d *Delta) error {
	list, err := c.manifestList(ctx, s)
	if err != nil {
		return err
	}
	var added, removed []entry
	var deletes []DeleteFile
	for _, m := range list {
		if m.SnapshotID() != s.SnapshotID {
			continue // carried over: nothing of it is this snapshot's
		}
		entries, err := c.manifest(ctx, m)
		if err != nil {
			return err
		}
		for _, e := range entries {
			switch {
			case e.snapshot != s.SnapshotID || e.status == iceberg.EntryStatusEXISTING:
			case e.content == iceberg.EntryContentEqDeletes || e.format != iceberg.ParquetFile:
				return fmt.Errorf("%w: %s file in format %s", ErrUnsupported, e.content, e.format)
			case e.content == iceberg.EntryContentData && e.status == iceberg.EntryStatusADDED:
				added = append(added, e)
			case e.content == iceberg.EntryContentData:
				removed = append(removed, e)
			case e.status == iceberg.EntryStatusADDED:
				deletes = append(deletes, e.deletes)
			}
		}
	}
	files, err := c.assemble(t, added)
	if err != nil {
		return err
	}
	d.Added = append(d.Added, files...)
	if len(removed) == 0 && len(deletes) == 0 {
		return nil
	}
	before, err := c.planOfParent(ctx, t, s)
	if err != nil {
		return err
	}
	for _, e := range removed {
		f, ok := before[e.data.uri]
		if !ok {
			return fmt.Errorf("removed file %s is not in the parent snapshot", e.data.uri)
		}
		d.Removed = append(d.Removed, f)
	}
	if len(deletes) == 0 {
		return nil
	}
	after, err := c.plan(ctx, t, s.SnapshotID)
	if err != nil {
		return err
	}
	for _, f := range after {
		var by []DeleteFile
		for _, del := range deletes {
			if slices.ContainsFunc(f.Deletes, func(o DeleteFile) bool { return o.uri == del.uri }) {
				by = append(by, del)
			}
		}
		if len(by) == 0 {
			continue
		}
		file, ok := before[f.uri]
		if !ok {
			file = f // added by the same snapshot
			file.Deletes = nil
		}
		d.Deleted = append(d.Deleted, DeletedRows{file, by})
	}
	return nil
}

func (c *Catalog) planOfParent(ctx context.Context, t *Table, s *table.Snapshot) (map[string]DataFile, error) {
	out := make(map[string]DataFile)
	if s.ParentSnapshotID == nil {
		return out, nil
	}
	files, err := c.plan(ctx, t, *s.ParentSnapshotID)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		out[f.uri] = f
	}
	return out, nil
}

// cancel removes files that stand on both sides of the sum: added and removed
// within the range, with the deletions from them.
func (d *Delta) cancel() {
	if len(d.Removed) == 0 {
		return
	}
	added := make(map[string]bool, len(d.Added))
	for _, f := range d.Added {
		added[f.uri] = true
	}
	both := make(map[string]bool)
	for _, f := range d.Removed {
		if added[f.uri] {
			both[f.uri] = true
		}
	}
	if len(both) == 0 {
		return
	}
	d.Added = slices.DeleteFunc(d.Added, func(f DataFile) bool { return both[f.uri] })
	d.Removed = slices.DeleteFunc(d.Removed, func(f DataFile) bool { return both[f.uri] })
	d.Deleted = slices.DeleteFunc(d.Deleted, func(r DeletedRows) bool { return both[r.File.uri] })
}
