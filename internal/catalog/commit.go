package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/apache/iceberg-go/table"

	"github.com/tapehouse/tapehouse/internal/record"
)

// Bounds of one commit.
const (
	commitTablesMax    = 200
	commitFilesMax     = 20_000
	commitDocumentsMax = 1_000
	// commitTriesMax bounds how often a commit is rebuilt because another writer
	// moved a pointer in between: a foreign one, or a server on the same database.
	commitTriesMax = 20
)

// FileStats describes a data file that was written: its counts, and for each
// column its statistics.
type FileStats struct {
	Rows, SizeBytes int64
	Columns         []ColumnStats
	SplitOffsets    []int64 // of the row groups
	SchemaID        int     // of the schema that the file was written with
}

// NewFile is a Parquet data file to be added: durable in the lake, with field
// ids, under a name never used before.
type NewFile struct {
	Path      string // its lake name, absolute path or URI
	Partition Partition
	Stats     FileStats
}

// NewDeletes is a Parquet file of positions deleted from one data file.
type NewDeletes struct {
	Path            string // as NewFile.Path
	Rows, SizeBytes int64
	From            DataFile // as Files returned it
}

// Commit changes one table. The zero value of each field changes nothing.
type Commit struct {
	Table Name

	Add []NewFile
	// Replace makes the commit a compaction: these files are exchanged for Add,
	// which holds the same rows. Files are as Files returned them; if one is no
	// longer live, or has other deletes than it had then, ErrConflict.
	Replace []DataFile
	// Remove takes these files and their rows away (with Add: an overwrite).
	// The same conditions hold as for Replace.
	Remove []DataFile
	// Deletes takes single rows away. ErrConflict if their data file is not live.
	Deletes []NewDeletes

	// Through sets the progress of the keys it names; others keep theirs.
	// A key that would go back is ErrConflict.
	Through record.Vector
	// RequireThrough, if set, is the former progress: for each key that it or
	// Through names (absent: 0) the table must have exactly that.
	RequireThrough *record.Vector
	// RequireSnapshot, if set, is the current snapshot's id; 0: there is none.
	RequireSnapshot *int64

	Properties map[string]string // set; "tapehouse.through" is Through's alone
	Summary    map[string]string // added to the summary of the snapshot, if one is made
	// Tags name snapshots for good; 0 stands for the one that this commit makes,
	// or the current one. A tag that names another snapshot already is ErrConflict.
	Tags     map[string]int64
	DropTags []string
}

func (m *Commit) check() error {
	switch {
	case len(m.Add)+len(m.Replace)+len(m.Remove)+len(m.Deletes) > commitFilesMax:
		return fmt.Errorf("%w commit of %s: more than %d files", ErrInvalid, m.Table, commitFilesMax)
	case len(m.Replace) > 0 && len(m.Remove)+len(m.Deletes) > 0:
		return fmt.Errorf("%w commit of %s: a compaction removes no rows", ErrInvalid, m.Table)
	case m.Properties[PropertyThrough] != "":
		return fmt.Errorf("%w commit of %s: %s is set by Through", ErrInvalid, m.Table, PropertyThrough)
	}
	for tag := range m.Tags {
		if tag == "" || tag == table.MainBranch || len(tag) > 255 {
			return fmt.Errorf("%w tag %q", ErrInvalid, tag)
		}
	}
	return checkProperties(m.Properties)
}

// errMoved says that a pointer moved since the commit was built. It stays here.
var errMoved = errors.New("pointer moved")

// Commit changes tables and documents in one step: all of it or nothing, visible
// at one instant and durable when Commit returns. It returns the tables' new
// states, in the order of commits. Errors: *ConflictError (ErrConflict),
// ErrFenced, ErrNotFound, ErrInvalid, ErrPoisoned. After an error other than
// ErrPoisoned, nothing was done. See docs/protocols/commit.md.
func (c *Catalog) Commit(ctx context.Context, commits []Commit, documents ...DocumentWrite) (_ []*Table, err error) {
	start := time.Now()
	defer func() { c.metrics.committed(start, err) }()
	if err := c.usable(true); err != nil {
		return nil, err
	}
	names := make([]Name, len(commits))
	for i := range commits {
		if err := commits[i].check(); err != nil {
			return nil, err
		}
		names[i] = commits[i].Table
	}
	if len(commits) > commitTablesMax || len(documents) > commitDocumentsMax {
		return nil, fmt.Errorf("%w commit: %d tables and %d documents, the limits are %d and %d", ErrInvalid, len(commits), len(documents), commitTablesMax, commitDocumentsMax)
	}
	for _, d := range documents {
		if err := d.check(); err != nil {
			return nil, err
		}
	}
	sorted := slices.SortedFunc(slices.Values(names), compareNames)
	if len(slices.Compact(slices.Clone(sorted))) != len(names) {
		return nil, fmt.Errorf("%w commit: a table stands twice", ErrInvalid)
	}
	unlock, err := c.lock(ctx, sorted)
	if err != nil {
		return nil, err
	}
	defer unlock()
	for try := 1; ; try++ {
		states, err := c.LoadAll(ctx, names)
		if err != nil {
			return nil, err
		}
		staged := make([]*stagedCommit, len(commits))
		for i := range commits {
			if staged[i], err = c.stage(ctx, states[i], &commits[i]); err != nil {
				return nil, err
			}
		}
		out, err := c.swap(ctx, staged, documents, nil)
		if !errors.Is(err, errMoved) {
			return out, err
		}
		if try == commitTriesMax {
			return nil, &ConflictError{"commit", "pointer", "unmoved", fmt.Sprintf("moved by another writer %d times", try)}
		}
		if err := c.moved(ctx, try); err != nil {
			return nil, err
		}
	}
}

// moved waits a little before a commit is rebuilt, the longer the more often it
// was: two servers that met would meet again.
func (c *Catalog) moved(ctx context.Context, try int) error {
	c.metrics.rebuilt.Inc()
	return pause(ctx, min(time.Millisecond<<try, 100*time.Millisecond))
}

// stagedCommit is one table's next state, in memory.
type stagedCommit struct {
	before, after *Table
	staging       *staging
	write         []string // URIs of the staged files that the state refers to
}

// swap writes the staged files to the lake and moves the pointers. extra runs in
// the same transaction. On errors but ErrPoisoned the files are deleted again.
func (c *Catalog) swap(ctx context.Context, staged []*stagedCommit, documents []DocumentWrite, extra func(context.Context, *sql.Tx) error) (_ []*Table, err error) {
	var written []string
	defer func() {
		if err != nil {
			c.discard(ctx, written, err)
		}
	}()
	for _, s := range staged {
		names, err := s.staging.put(ctx, s.write)
		written = append(written, names...)
		if err != nil {
			return nil, fmt.Errorf("commit %s: %w", s.before.Name, err)
		}
	}
	err = c.update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for _, s := range staged {
			n := s.before.Name
			res, err := tx.ExecContext(ctx, `UPDATE iceberg_tables SET metadata_location = ?, previous_metadata_location = ?
				WHERE catalog_name = ? AND table_namespace = ? AND table_name = ? AND metadata_location = ?`,
				s.after.pointer, s.before.pointer, catalogName, n.Namespace, n.Table, s.before.pointer)
			if err != nil {
				return fmt.Errorf("commit %s: %w", n, err)
			}
			if rows, err := res.RowsAffected(); err != nil || rows != 1 {
				return errors.Join(fmt.Errorf("commit %s: %w", n, errMoved), err)
			}
		}
		for _, d := range documents {
			if _, err := c.writeDocument(ctx, tx, d); err != nil {
				return err
			}
		}
		if extra != nil {
			return extra(ctx, tx)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := make([]*Table, len(staged))
	for i, s := range staged {
		out[i] = s.after
		c.tables.put(s.after.Name.String()+"\x00"+s.after.pointer, s.after)
		c.deleteOldMetadata(ctx, s.before, s.after)
	}
	return out, nil
}

// deleteOldMetadata deletes metadata files that fell out of the log of previous
// versions. The commit is done: a failure leaves an orphan.
func (c *Catalog) deleteOldMetadata(ctx context.Context, before, after *Table) {
	if after.Properties["write.metadata.delete-after-commit.enabled"] != "true" {
		return
	}
	kept := make(map[string]bool)
	for f := range after.meta.PreviousFiles() {
		kept[f.MetadataFile] = true
	}
	var names []string
	for f := range before.meta.PreviousFiles() {
		if kept[f.MetadataFile] {
			continue
		}
		if name, ok := c.store.Name(f.MetadataFile); ok {
			names = append(names, name)
		}
	}
	if err := c.store.Delete(context.WithoutCancel(ctx), names...); err != nil {
		c.logger.Warn("delete former metadata files", "table", after.Name.String(), "error", err)
	}
}

// require judges a commit's requirements against the table's current state.
func (m *Commit) require(t *Table) error {
	if m.RequireSnapshot != nil && *m.RequireSnapshot != t.Snapshot() {
		return &ConflictError{t.Name.String(), "snapshot", strconv.FormatInt(*m.RequireSnapshot, 10), strconv.FormatInt(t.Snapshot(), 10)}
	}
	if m.RequireThrough != nil {
		want := make(record.Vector)
		for _, v := range []record.Vector{m.Through, *m.RequireThrough} {
			for k := range v {
				want[k] = (*m.RequireThrough)[k]
			}
		}
		for k, o := range want {
			if t.through[k] != o {
				return &ConflictError{t.Name.String(), "through", want.String(), t.through.String()}
			}
		}
	}
	for k, o := range m.Through {
		if o < t.through[k] {
			return &ConflictError{t.Name.String(), "through", "at most " + m.Through.String(), t.through.String()}
		}
	}
	tags := t.Tags()
	for tag, id := range m.Tags {
		if have, ok := tags[tag]; ok && have != id && !slices.Contains(m.DropTags, tag) {
			return &ConflictError{t.Name.String(), "tag", tag + "=" + strconv.FormatInt(id, 10), tag + "=" + strconv.FormatInt(have, 10)}
		}
		if id != 0 && t.meta.SnapshotByID(id) == nil {
			return fmt.Errorf("table %s: tag %q: snapshot %d: %w", t.Name, tag, id, ErrNotFound)
		}
	}
	for _, tag := range m.DropTags {
		if _, ok := tags[tag]; !ok {
			return fmt.Errorf("table %s: tag %q: %w", t.Name, tag, ErrNotFound)
		}
	}
	return nil
}

// requireFiles checks that files are live and carry the deletes that the caller saw.
func (c *Catalog) requireFiles(ctx context.Context, t *Table, files []DataFile, sameDeletes bool) ([]DataFile, error) {
	if len(files) == 0 {
		return nil, nil
	}
	live, err := c.Files(ctx, t, At{})
	if err != nil {
		return nil, err
	}
	byURI := make(map[string]int, len(live))
	for i := range live {
		byURI[live[i].uri] = i
	}
	out := make([]DataFile, len(files))
	for i, f := range files {
		j, ok := byURI[f.uri]
		if !ok {
			return nil, &ConflictError{t.Name.String(), "files", f.uri, "not live"}
		}
		out[i] = live[j]
		if sameDeletes && !slices.EqualFunc(f.Deletes, out[i].Deletes, func(a, b DeleteFile) bool { return a.uri == b.uri }) {
			return nil, &ConflictError{t.Name.String(), "files", f.uri, "other rows of it are deleted"}
		}
	}
	return out, nil
}

// nextProperties are the properties that the commit sets, with its progress.
func (m *Commit) nextProperties(t *Table) map[string]string {
	p := maps.Clone(m.Properties)
	if len(m.Through) > 0 {
		if p == nil {
			p = make(map[string]string)
		}
		p[PropertyThrough] = m.nextThrough(t).String()
	}
	return p
}

func (m *Commit) nextThrough(t *Table) record.Vector {
	v := t.through.Clone()
	maps.Copy(v, m.Through)
	return v
}
