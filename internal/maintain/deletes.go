package maintain

import (
	"context"
	"errors"
	"fmt"

	"github.com/tapehouse/tapehouse/internal/catalog"
)

// A table whose rows are updated and deleted gathers files of position deletes,
// one for each data file that a flush hits. A group of data files is rewritten
// without its deleted rows when it has as many of them as a reading notices.
const (
	deleteFilesMax   = 32
	deletedRowsShare = 4 // or when one row in so many is deleted
	deletedRowsMin   = 10_000
)

// ApplyDeletes rewrites the groups of a table's data files that have many
// deletes, and returns how many. Each is a commit of its own, so that a flush
// that comes in between costs one of them.
func (m *Maintainer) ApplyDeletes(ctx context.Context, name catalog.Name) (rewritten int, err error) {
	t, err := m.o.Catalog.Load(ctx, name)
	if err != nil || !t.Rewritable() {
		return 0, err
	}
	all, err := m.o.Catalog.Files(ctx, t, catalog.At{})
	if err != nil || len(t.Foreign()) > 0 || t.DataDir() == "" {
		return 0, err
	}
	eachPartition(all, func(files []catalog.DataFile) bool {
		for _, group := range groups(files) {
			if err = ctx.Err(); err != nil {
				return false
			}
			if !burdened(group) {
				continue
			}
			switch err = m.replace(ctx, t, group, "deletes"); {
			case errors.Is(err, catalog.ErrConflict): // the next round, then
				m.o.Logger.Debug("deletes were not applied: a commit came in between", "table", name.String())
				err = nil
			case err != nil:
				err = fmt.Errorf("apply deletes of %s: %w", name, err)
				return false
			default:
				rewritten++
			}
		}
		return true
	})
	return rewritten, err
}

// burdened reports whether a group has many deletes.
func burdened(group []catalog.DataFile) bool {
	files := map[string]bool{}
	var rows, deleted int64
	for _, f := range group {
		rows += f.Rows
		for _, d := range f.Deletes {
			if !files[d.Path] {
				files[d.Path] = true
				deleted += d.Rows
			}
		}
	}
	return len(files) >= deleteFilesMax || deleted >= deletedRowsMin && deleted*deletedRowsShare >= rows
}

// replace rewrites files of one partition into one, sorted and without the rows
// that were deleted from them.
func (m *Maintainer) replace(ctx context.Context, t *catalog.Table, files []catalog.DataFile, why string) (err error) {
	m.compacting.Lock()
	defer m.compacting.Unlock()
	start, r := m.o.Now(), CompactResult{FilesBefore: len(files)}
	defer func() {
		r.Took = max(m.o.Now().Sub(start), 1)
		m.metrics.compacted(&r, r.Took, err)
	}()
	order, err := sortColumns(t, nil)
	if err != nil {
		return err
	}
	added, err := m.rewrite(ctx, t, files[0].Partition, files, order)
	if err != nil {
		return err
	}
	commit := catalog.Commit{Table: t.Name, Replace: files, Summary: map[string]string{"tapehouse.compaction": why}}
	if r.Rows = added.Stats.Rows; r.Rows > 0 {
		commit.Add = []catalog.NewFile{added}
	}
	_, err = m.o.Catalog.Commit(ctx, []catalog.Commit{commit})
	return err
}
