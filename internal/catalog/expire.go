package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// ExpirePolicy says which snapshots are kept, and when files go. A snapshot that
// a tag or branch names is always kept.
type ExpirePolicy struct {
	RetainLast    int           // newest snapshots kept whatever their age; less than 1 is 1
	MinAge        time.Duration // younger snapshots are kept …
	RetainMost    int           // … but no more than so many; 0: all
	KeepSnapshots []int64       // kept: those that queries have pinned
	// KeepDeltaFrom are kept with everything after them, so that Delta from them
	// still works: the states of the views that are furthest behind.
	KeepDeltaFrom []int64

	Grace  time.Duration          // time from the expiry of a file's last snapshot to its deletion
	Pinned func(path string) bool // true for files in use, as DataFile.Path; nil: none
}

// ExpireResult says what Expire did.
type ExpireResult struct {
	Expired      int // snapshots removed
	Unreferenced int // files that became garbage
	Swept        SweepResult
}

// Expire removes snapshots that the policy does not keep, and deletes files that
// have been unreferenced for longer than the grace period. A file is deleted
// only if no retained snapshot refers to it and it is not pinned.
func (c *Catalog) Expire(ctx context.Context, name Name, policy ExpirePolicy) (ExpireResult, error) {
	var r ExpireResult
	if err := c.usable(true); err != nil {
		return r, err
	}
	t, err := c.Load(ctx, name)
	if err != nil {
		return r, err
	}
	// Read the manifests before taking the lock: what follows finds them in the
	// cache and so does not hold up the commits of a busy table.
	if _, err := c.unreferencedBy(ctx, t, c.expired(t, policy)); err != nil {
		return r, err
	}
	if err := c.expireLocked(ctx, name, policy, &r); err != nil {
		return r, err
	}
	r.Swept, err = c.sweep(ctx, SweepPolicy{Grace: policy.Grace, Pinned: policy.Pinned}, t.Location)
	return r, err
}

func (c *Catalog) expireLocked(ctx context.Context, name Name, policy ExpirePolicy, r *ExpireResult) error {
	unlock, err := c.lock(ctx, []Name{name})
	if err != nil {
		return err
	}
	defer unlock()
	for try := 1; ; try++ {
		t, err := c.Load(ctx, name)
		if err != nil {
			return err
		}
		ids := c.expired(t, policy)
		if len(ids) == 0 {
			return nil
		}
		garbage, err := c.unreferencedBy(ctx, t, ids)
		if err != nil {
			return err
		}
		staged, err := c.stageUpdates(ctx, c.newStaging(ctx), t, []table.Update{table.NewRemoveSnapshotsUpdate(ids, false)})
		if err != nil {
			return fmt.Errorf("expire: %w", err)
		}
		_, err = c.swap(ctx, []*stagedCommit{staged}, nil, func(ctx context.Context, tx *sql.Tx) error {
			return c.addGarbage(ctx, tx, t.Location, garbage)
		})
		if errors.Is(err, errMoved) && try < commitTriesMax {
			if err := c.moved(ctx, try); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("expire: %w", err)
		}
		for _, id := range ids {
			c.plans.remove(planKey{t.UUID, id})
		}
		r.Expired, r.Unreferenced = len(ids), len(garbage)
		return nil
	}
}

// expired lists the snapshots that the policy does not keep.
func (c *Catalog) expired(t *Table, p ExpirePolicy) []int64 {
	keep := make(map[int64]bool)
	for _, ref := range t.meta.Refs() {
		keep[ref.SnapshotID] = true
	}
	for _, id := range p.KeepSnapshots {
		keep[id] = true
	}
	n := 0
	for s := t.meta.CurrentSnapshot(); s != nil && n < max(p.RetainLast, 1); s = t.parent(s) {
		keep[s.SnapshotID] = true
		n++
	}
	for _, from := range p.KeepDeltaFrom {
		var chain []int64
		for s := t.meta.CurrentSnapshot(); s != nil; s = t.parent(s) {
			chain = append(chain, s.SnapshotID)
			if s.SnapshotID == from {
				for _, id := range chain {
					keep[id] = true
				}
				break
			}
		}
	}
	youngest := c.now().Add(-p.MinAge).UnixMilli()
	all := t.meta.Snapshots() // the oldest first
	tooMany := 0
	if p.RetainMost > 0 {
		tooMany = len(all) - p.RetainMost
	}
	var ids []int64
	for i, s := range all {
		if !keep[s.SnapshotID] && (s.TimestampMs <= youngest || i < tooMany) {
			ids = append(ids, s.SnapshotID)
		}
	}
	return ids
}

// unreferencedBy lists the files that only the snapshots to be expired refer to.
func (c *Catalog) unreferencedBy(ctx context.Context, t *Table, ids []int64) ([]string, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	var garbage []string
	kept := make(map[string]manifestHeader)
	gone := make(map[string]manifestHeader)
	for _, expire := range []bool{false, true} {
		for _, s := range t.meta.Snapshots() {
			if slices.Contains(ids, s.SnapshotID) != expire {
				continue
			}
			list, err := c.manifestList(ctx, &s)
			if err != nil {
				return nil, fmt.Errorf("expire: %w", err)
			}
			for _, m := range list {
				if !expire {
					kept[m.FilePath()] = m
				} else if _, ok := kept[m.FilePath()]; !ok {
					gone[m.FilePath()] = m
				}
			}
			if expire && s.ManifestList != "" {
				garbage = append(garbage, s.ManifestList)
			}
		}
	}
	candidates := make(map[string]bool)
	for path, m := range gone {
		garbage = append(garbage, path)
		if err := c.eachLive(ctx, m, func(uri string) { candidates[uri] = true }); err != nil {
			return nil, fmt.Errorf("expire: %w", err)
		}
	}
	// Most manifests that went were merged into ones that stay, so that few
	// candidates are left soon.
	for _, m := range kept {
		if len(candidates) == 0 {
			break
		}
		if err := c.eachLive(ctx, m, func(uri string) { delete(candidates, uri) }); err != nil {
			return nil, fmt.Errorf("expire: %w", err)
		}
	}
	for uri := range candidates {
		garbage = append(garbage, uri)
	}
	return garbage, nil
}

func (c *Catalog) eachLive(ctx context.Context, m manifestHeader, fn func(uri string)) error {
	entries, err := c.manifest(ctx, m)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.status == iceberg.EntryStatusDELETED {
			continue
		}
		if e.content == iceberg.EntryContentData {
			fn(e.data.uri)
		} else {
			fn(e.deletes.uri)
		}
	}
	return nil
}

// addGarbage lists files to be deleted. Files outside the lake are not ours.
func (c *Catalog) addGarbage(ctx context.Context, tx *sql.Tx, location string, uris []string) error {
	ours := slices.DeleteFunc(slices.Clone(uris), func(uri string) bool { _, ok := c.store.Name(uri); return !ok })
	for some := range batches(ours) {
		args := make([]any, 0, 3*len(some))
		for _, uri := range some {
			args = append(args, uri, location, c.now().UnixMicro())
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO catalog_garbage (path, location, unreferenced_at) VALUES `+rows(len(some), 3)+` ON CONFLICT DO NOTHING`, args...); err != nil {
			return fmt.Errorf("list garbage: %w", err)
		}
	}
	return nil
}

// SweepPolicy says which garbage is deleted.
type SweepPolicy struct {
	Grace  time.Duration          // garbage must be that old
	Pinned func(path string) bool // true for files in use, as DataFile.Path; nil: none
}

// SweepResult says what a sweep did.
type SweepResult struct {
	Deleted int // files
	Pinned  int // files due but in use
}

// sweepBatch bounds how many rows one step of a sweep handles.
const sweepBatch = rowsMax

// Sweep deletes the garbage of all tables, dropped ones included, that is due.
func (c *Catalog) Sweep(ctx context.Context, policy SweepPolicy) (SweepResult, error) {
	return c.sweep(ctx, policy, "")
}

func (c *Catalog) sweep(ctx context.Context, policy SweepPolicy, location string) (r SweepResult, err error) {
	due := c.now().Add(-policy.Grace).UnixMicro()
	for after := ""; ; {
		paths, err := c.garbage(ctx, location, due, after)
		if err != nil || len(paths) == 0 {
			return r, err
		}
		after = paths[len(paths)-1]
		var done []any
		for _, uri := range paths {
			gone, err := c.sweepPath(ctx, policy, uri, &r)
			if err != nil {
				return r, fmt.Errorf("sweep: %w", err)
			}
			if gone {
				done = append(done, uri)
			}
		}
		if len(done) == 0 {
			continue
		}
		if err := c.update(ctx, func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, `DELETE FROM catalog_garbage WHERE path IN `+rows(1, len(done)), done...); err != nil {
				return fmt.Errorf("sweep: %w", err)
			}
			return nil
		}); err != nil {
			return r, err
		}
	}
}

// sweepPath deletes one file, or all below a path that ends in '/'. It reports
// whether nothing is left of it.
func (c *Catalog) sweepPath(ctx context.Context, policy SweepPolicy, uri string, r *SweepResult) (gone bool, err error) {
	name, ok := c.store.Name(uri)
	if !ok {
		return true, nil
	}
	names, err := c.garbageNames(ctx, name)
	if err != nil {
		return false, err
	}
	gone = true
	for _, n := range names {
		if policy.Pinned != nil && policy.Pinned(c.pathOf(c.store.URI(n))) {
			r.Pinned++
			gone = false
			continue
		}
		if err := c.store.Delete(ctx, n); err != nil {
			return false, err
		}
		r.Deleted++
		c.metrics.filesDeleted.Inc()
	}
	return gone, nil
}

// garbageNames lists the objects that a path of the garbage stands for.
func (c *Catalog) garbageNames(ctx context.Context, name string) ([]string, error) {
	if strings.HasSuffix(name, "/") {
		return c.namesBelow(ctx, name)
	}
	return []string{name}, nil
}

func (c *Catalog) garbage(ctx context.Context, location string, due int64, after string) (paths []string, err error) {
	rows, err := c.reader.QueryContext(ctx, `SELECT path FROM catalog_garbage
		WHERE unreferenced_at <= ? AND (? = '' OR location = ?) AND path > ? ORDER BY path LIMIT ?`, due, location, location, after, sweepBatch)
	if err != nil {
		return nil, fmt.Errorf("read garbage: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var p string
		if err := rows.Scan(&p); err != nil {
			return nil, fmt.Errorf("read garbage: %w", err)
		}
		paths = append(paths, p)
	}
	return paths, rows.Err()
}
