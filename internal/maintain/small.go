package maintain

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
)

// Flushes that serve freshness leave small files, and a statement opens each.
// They are merged in the background, in the order in which they came, so that
// each row is rewritten once where files are large, and a few times where they
// are tiny: a merged file that is still small takes part in later merges.
const (
	// smallFileBytes is the size from which a file stays as it is.
	smallFileBytes = 64 << 20
	// mergeBytes is the size at which a group of small files is merged at once.
	mergeBytes = 128 << 20
	// mergeFiles is the number of small files at which they are, whatever their
	// size.
	mergeFiles = 64
	// settledAge is how old the youngest file of a partition is when fewer small
	// files are merged too.
	settledAge = 10 * time.Minute
	// mergeGroupFiles bounds the files of one merge.
	mergeGroupFiles = 512
)

// due is a group of small files of one partition that is worth merging.
type due struct {
	table *catalog.Table
	files []catalog.DataFile
	bytes int64
}

// smallGroups chooses the files of a table that are to be merged. Files that a
// tag keeps are left alone: they would take their space twice.
func smallGroups(t *catalog.Table, all []catalog.DataFile, now time.Time) []due {
	if len(t.Foreign()) > 0 || t.DataDir() == "" || !t.Rewritable() {
		return nil
	}
	tagged := t.Tagged()
	committed := map[int64]time.Time{}
	for _, s := range t.Snapshots() {
		committed[s.ID] = s.CommittedAt
	}
	var out []due
	eachPartition(all, func(files []catalog.DataFile) bool {
		settled := true
		g := due{table: t}
		for i := range files {
			f := &files[i]
			if now.Sub(committed[f.AddedBy]) < settledAge { // one whose snapshot has expired is old
				settled = false
			}
			if f.SizeBytes >= smallFileBytes || tagged(f) {
				continue
			}
			g.files = append(g.files, *f)
			g.bytes += f.SizeBytes
			if g.bytes >= mergeBytes || len(g.files) == mergeGroupFiles {
				out, g = append(out, g), due{table: t}
			}
		}
		if len(g.files) >= mergeFiles || settled && len(g.files) > 1 {
			out = append(out, g)
		}
		return true
	})
	return out
}

// merge merges small files of a table that has at least so many, and returns how
// many groups. Between two groups it waits as long as pace says for the time that
// the last one took; nil is not at all. A commit that comes in between costs the
// group, which the next call takes up again.
func (m *Maintainer) merge(ctx context.Context, name catalog.Name, least int, pace func(took time.Duration) time.Duration) (merged int, err error) {
	t, err := m.o.Catalog.Load(ctx, name)
	if err != nil {
		return 0, err
	}
	all, err := m.o.Catalog.Files(ctx, t, catalog.At{})
	if err != nil {
		return 0, err
	}
	groups, files := smallGroups(t, all, m.o.Now()), 0
	for _, g := range groups {
		files += len(g.files)
	}
	if files < least {
		return 0, nil
	}
	for _, g := range groups {
		if err := ctx.Err(); err != nil {
			return merged, err
		}
		start := time.Now()
		err := m.replace(ctx, g.table, g.files, "small files")
		switch {
		case errors.Is(err, catalog.ErrConflict):
			m.o.Logger.Debug("small files were not merged: a commit came in between", "table", name.String())
		case err != nil:
			return merged, fmt.Errorf("merge small files of %s: %w", name, err)
		default:
			merged++
		}
		if pace != nil && !m.sleep(ctx, pace(time.Since(start))) {
			return merged, context.Cause(ctx)
		}
	}
	return merged, nil
}

// sleep waits, and reports whether it was to the end.
func (m *Maintainer) sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// mergeShare is the part of the time that merging takes while records come in:
// it works for so long and then waits nine times as long.
const mergeShare = 10

// quietRecords is how many records may come in during a merge that still counts
// as quiet.
const quietRecords = 1000

// busyRate is how many records a second come in when merging is put off: the
// sorting of millions of rows would be felt by producers, and flushes are large
// then. backlogFiles small files of a table are merged all the same.
const (
	busyRate     = 100_000
	backlogFiles = 5_000
)

// mergeUnlessBusy is a step of the loop.
func (m *Maintainer) mergeUnlessBusy() func(ctx context.Context) error {
	at, records := m.o.Now(), m.ingested()
	return func(ctx context.Context) error {
		now, more := m.o.Now(), m.ingested()
		busy := float64(more-records) > busyRate*now.Sub(at).Seconds()
		at, records = now, more
		least := 0
		if busy {
			least = backlogFiles
		}
		_, err := m.mergeTables(ctx, least, m.pacing())
		return err
	}
}

// MergeAll merges the small files of all tables, one table after the other, and
// returns how many groups: at once, whatever else is to be done.
func (m *Maintainer) MergeAll(ctx context.Context) (merged int, err error) {
	return m.mergeTables(ctx, 0, nil)
}

// mergeTables merges the small files of the tables that have at least so many.
func (m *Maintainer) mergeTables(ctx context.Context, least int, pace func(took time.Duration) time.Duration) (merged int, err error) {
	names, err := m.o.Catalog.List(ctx, "")
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, n := range names {
		k, err := m.merge(ctx, n, least, pace)
		merged += k
		if err != nil && !errors.Is(err, catalog.ErrNotFound) {
			if ctx.Err() != nil {
				return merged, err
			}
			errs = append(errs, err)
		}
	}
	return merged, errors.Join(errs...)
}

// pacing tells after each merge how long to wait.
func (m *Maintainer) pacing() func(took time.Duration) time.Duration {
	before := m.ingested()
	return func(took time.Duration) time.Duration {
		now := m.ingested()
		busy := now-before > quietRecords
		before = now
		if !busy {
			return 0
		}
		return (mergeShare - 1) * took
	}
}

func (m *Maintainer) ingested() int64 {
	if m.o.Ingested == nil {
		return 0
	}
	return m.o.Ingested()
}
