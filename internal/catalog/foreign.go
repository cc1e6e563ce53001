package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/apache/iceberg-go/table"
)

// ErrProtected is returned for a foreign change that would take away what this
// program has promised to keep: a sealed trade date's tag, a stream's records, a
// snapshot that somebody still needs.
var ErrProtected = errors.New("protected")

// Foreign is a change of one table that another program built: requirements and
// updates in the JSON of the Iceberg REST protocol, each an array or nil. With
// the requirement assert-create it makes the table.
type Foreign struct {
	Table        Name
	Requirements json.RawMessage
	Updates      json.RawMessage
}

// Guard says what foreign changes must leave alone. A nil member protects
// nothing.
type Guard struct {
	// Stream names the delivery stream that feeds the table; "" if none does.
	Stream func(table Name) (string, error)
	// Kept says why the table is nobody's to change, a materialized view's state
	// for example; "" if it is not so.
	Kept func(*Table) string
	// Sealed reports whether tags of that name are set by this program alone.
	Sealed func(tag string) bool
	// Needed lists snapshots that are kept with everything after them, as
	// ExpirePolicy.KeepDeltaFrom.
	Needed func(context.Context, Name) ([]int64, error)
	// Pinned reports whether a query reads the file, as DataFile.Path.
	Pinned func(path string) bool
	// Release runs fn, which drops or renames the table, unless something else
	// relies on the table's being there under its name.
	Release func(ctx context.Context, table Name, fn func() error) error
}

// foreignChange is a Foreign that was read.
type foreignChange struct {
	name         Name
	requirements table.Requirements
	updates      json.RawMessage
	empty        bool            // no updates
	creates      bool            // the table
	adds         bool            // snapshots
	removes      bool            // snapshots
	dropsRef     map[string]bool // by remove-snapshot-ref

	stream  string          // that feeds the table
	needed  []int64         // as Guard.Needed says
	settled map[string]bool // files that were found there and made durable, by URI
}

func (f Foreign) parse() (foreignChange, error) {
	out := foreignChange{name: f.Table, updates: f.Updates, dropsRef: make(map[string]bool), settled: make(map[string]bool)}
	if err := f.Table.check(); err != nil {
		return out, err
	}
	var actions []struct {
		Action string `json:"action"`
		Ref    string `json:"ref-name"`
	}
	var updates table.Updates
	for _, part := range []struct {
		what string
		raw  json.RawMessage
		into any
	}{{"requirements", f.Requirements, &out.requirements}, {"updates", f.Updates, &updates}, {"updates", f.Updates, &actions}} {
		if len(part.raw) == 0 {
			continue
		}
		if err := guarded(func() error { return json.Unmarshal(part.raw, part.into) }); err != nil {
			return out, fmt.Errorf("%w commit of %s: %s: %w", ErrInvalid, f.Table, part.what, err)
		}
	}
	for _, a := range actions {
		if a.Action == table.UpdateRemoveSnapshotRef {
			out.dropsRef[a.Ref] = true
		}
		out.adds = out.adds || a.Action == table.UpdateAddSnapshot
		out.removes = out.removes || a.Action == table.UpdateRemoveSnapshots
	}
	out.empty = len(updates) == 0
	for _, r := range out.requirements {
		out.creates = out.creates || r.GetType() == table.AssertCreate().GetType()
	}
	return out, nil
}

// ask asks those who have locks of their own, under which they may come to the
// catalog: so it is done before the tables are locked. What it learns stays
// true enough: a stream that begins to feed the table now finds it as SQL's
// writes may have left it too, and what a view needs only moves on.
func (f *foreignChange) ask(ctx context.Context, g *Guard) (err error) {
	if !f.creates && g.Stream != nil {
		if f.stream, err = g.Stream(f.name); err != nil {
			return err
		}
	}
	if f.removes && g.Needed != nil {
		if f.needed, err = g.Needed(ctx, f.name); err != nil {
			return fmt.Errorf("ask what views still need: %w", err)
		}
	}
	return nil
}

// guarded runs a function of Iceberg's library on what a stranger wrote. A panic
// there is an answer to a malformed request, not an end of the program.
func guarded(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: it cannot be read: %v", ErrInvalid, p)
		}
	}()
	return fn()
}

// CommitForeign makes changes that another program built: all of them or none,
// visible at one instant and durable when it returns, as Commit does. It returns
// the tables' new states, in the order of changes. The requirements are judged
// against the state that is changed. Errors are Commit's, and ErrExists for a
// table to be made that is there, ErrProtected, ErrUnsupported for what this
// program could not read again.
func (c *Catalog) CommitForeign(ctx context.Context, changes []Foreign, g Guard) (_ []*Table, err error) {
	start := time.Now()
	defer func() { c.metrics.committed(start, err) }()
	if err := c.usable(true); err != nil {
		return nil, err
	}
	if len(changes) == 0 || len(changes) > commitTablesMax {
		return nil, fmt.Errorf("%w commit: %d tables: want 1 to %d", ErrInvalid, len(changes), commitTablesMax)
	}
	parsed := make([]foreignChange, len(changes))
	names := make([]Name, len(changes))
	for i, f := range changes {
		if parsed[i], err = f.parse(); err != nil {
			return nil, err
		}
		if err := parsed[i].ask(ctx, &g); err != nil {
			return nil, err
		}
		if parsed[i].adds || parsed[i].removes {
			c.rehearse(ctx, &parsed[i], &g)
		}
		names[i] = f.Table
	}
	slices.SortFunc(names, compareNames)
	if len(slices.Compact(slices.Clone(names))) != len(names) {
		return nil, fmt.Errorf("%w commit: a table stands twice", ErrInvalid)
	}
	unlock, err := c.lock(ctx, names)
	if err != nil {
		return nil, err
	}
	defer unlock()
	for try := 1; ; try++ {
		out, err := c.commitForeign(ctx, parsed, g)
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

// rehearse reads what a change's snapshots, new or removed, name, finds its files
// and makes them durable, before the table's lock is taken: what follows finds it
// done, and does not hold up the commits of a busy table. Whatever is wrong is
// said there.
func (c *Catalog) rehearse(ctx context.Context, f *foreignChange, g *Guard) {
	states, err := c.foreignStates(ctx, []foreignChange{*f})
	if err != nil {
		return
	}
	s, err := c.stageForeign(ctx, *f, states[0])
	if err != nil {
		return
	}
	j := judge{c: c, guard: g, before: states[0], after: s.after, change: f}
	if err = j.files(ctx); err == nil {
		err = j.removals(ctx)
	}
	if err != nil {
		c.logger.Debug("a client's commit will be refused", "table", f.name.String(), "error", err)
	}
}

// commitForeign tries once. REQUIRES: the tables are locked.
func (c *Catalog) commitForeign(ctx context.Context, changes []foreignChange, g Guard) (_ []*Table, err error) {
	states, err := c.foreignStates(ctx, changes)
	if err != nil {
		return nil, err
	}
	var moved, made []*stagedCommit
	var garbage []garbageOf
	out := make([]*Table, len(changes))
	for i, f := range changes {
		before := states[i]
		if err := f.require(before); err != nil {
			return nil, err
		}
		if before != nil && f.empty {
			out[i] = before
			continue
		}
		s, err := c.stageForeign(ctx, f, before)
		if err != nil {
			return nil, err
		}
		j := judge{c: c, guard: &g, before: before, after: s.after, change: &f}
		if err := j.all(ctx); err != nil {
			return nil, err
		}
		out[i] = s.after
		if before == nil {
			made = append(made, s)
			continue
		}
		moved = append(moved, s)
		garbage = append(garbage, garbageOf{before.Location, j.garbage})
	}
	var written []string
	defer func() {
		if err != nil {
			c.discard(ctx, written, err)
		}
	}()
	for _, s := range made {
		names, err := s.staging.put(ctx, s.write)
		written = append(written, names...)
		if err != nil {
			return nil, fmt.Errorf("create table %s: %w", s.after.Name, err)
		}
	}
	if len(moved)+len(made) == 0 {
		return out, nil
	}
	_, err = c.swap(ctx, moved, nil, func(ctx context.Context, tx *sql.Tx) error {
		for _, s := range made {
			if err := c.insertTable(ctx, tx, s.after); err != nil {
				return err
			}
		}
		for _, g := range garbage {
			if err := c.addGarbage(ctx, tx, g.location, g.uris); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, s := range made {
		c.tables.put(s.after.Name.String()+"\x00"+s.after.pointer, s.after)
	}
	return out, nil
}

// garbageOf are files that nothing refers to after a commit.
type garbageOf struct {
	location string
	uris     []string
}

// foreignStates loads the tables, all at one instant; nil for one to be made.
func (c *Catalog) foreignStates(ctx context.Context, changes []foreignChange) ([]*Table, error) {
	var names []Name
	for _, f := range changes {
		if !f.creates {
			names = append(names, f.name)
			continue
		}
		_, err := c.pointers(ctx, []Name{f.name})
		if err == nil {
			return nil, fmt.Errorf("table %s: %w", f.name, ErrExists)
		}
		if !errors.Is(err, ErrNotFound) {
			return nil, err
		}
	}
	loaded, err := c.LoadAll(ctx, names)
	if err != nil {
		return nil, err
	}
	out := make([]*Table, len(changes))
	for i, f := range changes {
		if !f.creates {
			out[i], loaded = loaded[0], loaded[1:]
		}
	}
	return out, nil
}

// require judges the client's requirements.
func (f *foreignChange) require(t *Table) error {
	var meta table.Metadata
	if t != nil {
		meta = t.meta
	}
	for _, r := range f.requirements {
		if err := r.Validate(meta); err != nil {
			return &ConflictError{f.name.String(), r.GetType(), "what the client saw", err.Error()}
		}
	}
	return nil
}

// stageForeign applies the client's updates in memory. It reads nothing, so that
// whatever fails is the client's doing.
func (c *Catalog) stageForeign(ctx context.Context, f foreignChange, before *Table) (s *stagedCommit, err error) {
	err = guarded(func() error {
		// Decoded for each try: applying an update changes it.
		var updates table.Updates
		if len(f.updates) > 0 {
			if err := json.Unmarshal(f.updates, &updates); err != nil {
				return err
			}
		}
		if before == nil {
			meta, err := newForeignMetadata(updates)
			if err != nil {
				return err
			}
			s, err = c.stageNew(ctx, f.name, meta)
			return err
		}
		meta, err := table.UpdateTableMetadata(before.meta, updates, before.pointer)
		if err != nil {
			return err
		}
		staging := c.newStaging(ctx)
		pointer, err := writeMetadata(staging, meta, metadataVersion(before.pointer)+1)
		if err != nil {
			return err
		}
		after, err := c.newTable(f.name, pointer, meta)
		s = &stagedCommit{before: before, after: after, staging: staging, write: []string{pointer}}
		return err
	})
	if err != nil && !errors.Is(err, ErrUnsupported) {
		return nil, fmt.Errorf("%w commit of %s: %w", ErrInvalid, f.name, err)
	}
	return s, err
}

// newForeignMetadata makes a table's first metadata of updates alone.
func newForeignMetadata(updates []table.Update) (table.Metadata, error) {
	b, err := table.NewMetadataBuilder(formatVersion)
	if err != nil {
		return nil, err
	}
	if err := b.SetProperties(maps.Clone(defaultProperties)); err != nil {
		return nil, err
	}
	for _, u := range updates {
		if err := u.Apply(b); err != nil {
			return nil, err
		}
	}
	return b.Build()
}

// formatVersion is the only version of Iceberg's table format that is written.
const formatVersion = 2

// Rewritable reports whether this program can write files in the place of the
// table's own: all of them are partitioned as it writes, in one way that never
// changed. Another program may have made or changed it otherwise; such a table
// is read, added to, and kept in order by that program.
func (t *Table) Rewritable() bool {
	return len(t.meta.PartitionSpecs()) == 1 && (t.PartitionBy != "" || t.meta.PartitionSpecs()[0].NumFields() == 0)
}

// MetadataLocation is where the metadata file of this state lies.
func (t *Table) MetadataLocation() string { return t.pointer }

// Metadata is the JSON of Iceberg's table metadata. With refsOnly, snapshots that
// no branch or tag names are left out.
func (t *Table) Metadata(refsOnly bool) (json.RawMessage, error) {
	b, err := json.Marshal(t.meta)
	if err != nil {
		return nil, fmt.Errorf("metadata of table %s: %w", t.Name, err)
	}
	if !refsOnly || len(t.meta.Snapshots()) == 0 {
		return b, nil
	}
	named := make(map[int64]bool)
	for _, ref := range t.meta.Refs() {
		named[ref.SnapshotID] = true
	}
	var all map[string]json.RawMessage
	var snapshots, kept []json.RawMessage
	if err := errors.Join(json.Unmarshal(b, &all), json.Unmarshal(all["snapshots"], &snapshots)); err != nil {
		return nil, fmt.Errorf("metadata of table %s: %w", t.Name, err)
	}
	for _, s := range snapshots {
		var id struct {
			ID int64 `json:"snapshot-id"`
		}
		if err := json.Unmarshal(s, &id); err != nil {
			return nil, fmt.Errorf("metadata of table %s: %w", t.Name, err)
		}
		if named[id.ID] {
			kept = append(kept, s)
		}
	}
	if all["snapshots"], err = json.Marshal(kept); err != nil {
		return nil, fmt.Errorf("metadata of table %s: %w", t.Name, err)
	}
	return json.Marshal(all)
}
