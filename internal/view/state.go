package view

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
)

// PropertyProgress is the property of a state table, and of the summary of each
// of its snapshots, that says up to which snapshots of its tables it is true.
const PropertyProgress = "tapehouse.view.progress"

// progressVersion is the version of progress's form.
const progressVersion = 1

// progress names a state of each table of a view.
type progress struct {
	Version int                   `json:"version"`
	Tables  map[string]tableState `json:"tables"` // by catalog.Name.String
}

// tableState is a snapshot of one life of a table. Snapshot 0 is the table
// before its first commit.
type tableState struct {
	UUID     string `json:"uuid"`
	Snapshot int64  `json:"snapshot"`
}

func newProgress(tables []*catalog.Table) progress {
	p := progress{Version: progressVersion, Tables: make(map[string]tableState, len(tables))}
	for _, t := range tables {
		p.Tables[t.Name.String()] = tableState{UUID: t.UUID.String(), Snapshot: t.Snapshot()}
	}
	return p
}

// text is the property's value; equal progresses have equal texts.
func (p progress) text() (string, error) {
	b, err := json.Marshal(p)
	return string(b), err
}

func parseProgress(s string) (progress, error) {
	var p progress
	if err := json.Unmarshal([]byte(s), &p); err != nil {
		return p, fmt.Errorf("property %s: %w", PropertyProgress, err)
	}
	if p.Version != progressVersion {
		return p, fmt.Errorf("property %s has version %d, this program knows %d: run the newer program", PropertyProgress, p.Version, progressVersion)
	}
	return p, nil
}

// of is the state of a table; ok is false for a table that the progress does
// not name, or names in a former life.
func (p progress) of(t *catalog.Table) (tableState, bool) {
	s, ok := p.Tables[t.Name.String()]
	return s, ok && s.UUID == t.UUID.String()
}

// progressAt is the progress of a snapshot of the state, 0 being the state
// without rows. ok is false when the snapshot's is not known any more.
func progressAt(state *catalog.Table, snapshot int64) (p progress, ok bool, err error) {
	text := ""
	if snapshot == state.Snapshot() {
		text = state.Properties[PropertyProgress]
	} else {
		byID := map[int64]catalog.Snapshot{}
		for _, s := range state.Snapshots() {
			byID[s.ID] = s
		}
		// A compaction by somebody else names no progress: it has its parent's.
		for s, found := byID[snapshot]; found; s, found = byID[s.Parent] {
			if text = s.Summary[PropertyProgress]; text != "" || s.Operation != "replace" {
				break
			}
		}
	}
	if text == "" {
		return progress{}, false, nil
	}
	p, err = parseProgress(text)
	return p, err == nil, err
}

// change is how a table differs from an earlier state.
type change struct {
	gained []engine.File // files that came, with the rows taken from them
	rows   int64         // of gained
	// other, if not "", is a change beyond gained: why the earlier state is of
	// no use.
	other string
}

func (c change) none() bool { return c.other == "" && len(c.gained) == 0 }

// since says what t's snapshot to gained over from. Errors of the catalog about
// snapshots that are gone are a change, not an error.
func (m *Manager) since(ctx context.Context, t *catalog.Table, from tableState, known bool, to int64) (change, error) {
	switch {
	case !known:
		return change{other: "table " + t.Name.String() + " was created anew"}, nil
	case from.Snapshot == to:
		return change{}, nil
	case to == 0:
		return change{other: "table " + t.Name.String() + " is seen before its first commit"}, nil
	case from.Snapshot == 0:
		files, err := m.o.Catalog.Files(ctx, t, catalog.At{SnapshotID: to})
		if err != nil {
			return gone(t, err)
		}
		return gainedFiles(files), nil
	}
	d, err := m.o.Catalog.Delta(ctx, t, from.Snapshot, to)
	if err != nil {
		return gone(t, err)
	}
	if len(d.Removed)+len(d.Deleted) > 0 {
		return change{other: "rows of " + t.Name.String() + " were changed or removed"}, nil
	}
	return gainedFiles(d.Added), nil
}

// gone turns the catalog's word that a snapshot is not there into a change.
func gone(t *catalog.Table, err error) (change, error) {
	if errors.Is(err, catalog.ErrExpired) || errors.Is(err, catalog.ErrNotFound) {
		return change{other: "a snapshot of " + t.Name.String() + " has expired"}, nil
	}
	return change{}, err
}

func gainedFiles(files []catalog.DataFile) change {
	c := change{gained: make([]engine.File, len(files))}
	for i, f := range files {
		c.gained[i] = relationFile(f)
		c.rows += f.Rows
	}
	return c
}

func relationFile(f catalog.DataFile) engine.File {
	out := engine.File{Path: f.Path, Rows: f.Rows, SchemaID: f.SchemaID, URI: f.URI()}
	if f.Partition.Has {
		d := f.Partition.Value
		out.PartitionTradeDate = &d
	}
	for _, del := range f.Deletes {
		out.Deletes = append(out.Deletes, del.Path)
	}
	return out
}

// sincePinned is since up to what is pinned: relation is t as pinned at
// snapshot to, with its tail and with rows of the reader's own transaction,
// which are gained as well.
func (m *Manager) sincePinned(ctx context.Context, t *catalog.Table, from tableState, known bool, to int64, relation engine.Relation) (change, error) {
	c, err := m.since(ctx, t, from, known, to)
	if err != nil || c.other != "" {
		return c, err
	}
	if len(relation.Removals) > 0 {
		return change{other: "rows of " + t.Name.String() + " are updated or deleted in its tail"}, nil
	}
	live := map[string]int{} // path → deletes
	if to != 0 {
		files, err := m.o.Catalog.Files(ctx, t, catalog.At{SnapshotID: to})
		if err != nil {
			return gone(t, err)
		}
		for _, f := range files {
			live[f.Path] = len(f.Deletes)
		}
	}
	missing := len(live)
	gained := append([]engine.File(nil), c.gained...)
	for _, f := range relation.Files {
		deletes, ok := live[f.Path]
		switch {
		case !ok:
			gained = append(gained, f)
			c.rows += f.Rows
		case deletes != len(f.Deletes):
			return change{other: "the statement sees rows of " + t.Name.String() + " as changed"}, nil
		default:
			missing--
		}
	}
	if missing != 0 {
		return change{other: "the statement does not see all of " + t.Name.String()}, nil
	}
	c.gained = gained
	return c, nil
}

// bind adds a view's hand-made relations for a pin.
func (m *Manager) bind(ctx context.Context, v *view, pin *engine.Pin, relations map[engine.Name]engine.Relation) error {
	if v.layout.Mode == modeQuery {
		return nil
	}
	for _, n := range v.tables {
		if _, ok := relations[engine.Name(n)]; !ok {
			return fmt.Errorf("read view %s: table %s is not pinned", v.def.Name, n)
		}
	}
	changes, reason, err := m.changes(ctx, v, pin, relations)
	if err != nil {
		return fmt.Errorf("read view %s: %w", v.def.Name, err)
	}
	state := relations[engine.Name(v.tables[0])]
	if v.layout.Mode == modeStored {
		for i := range v.def.Tables {
			if reason == "" && !changes[i].none() {
				reason = "table " + v.def.Tables[i].String() + " has changed"
			}
		}
		for i, n := range v.def.Tables {
			full := relations[engine.Name(n)]
			if reason == "" {
				full.Files = nil
			}
			relations[fullName(v.def.Name, i)] = full
		}
		if reason != "" {
			state.Files = nil
		}
		relations[storedName(v.def.Name)] = state
		m.metrics.read(v.layout.Mode, reason)
		return nil
	}
	delta := engine.Relation{}
	for i, n := range v.def.Tables {
		switch {
		case n == v.layout.Fact:
			delta = relations[engine.Name(n)]
			if reason == "" {
				delta.Files = changes[i].gained
			}
		case reason == "" && !changes[i].none():
			// The delta was not bound yet, or was bound too small.
			return m.bindWhole(v, relations, "dimension "+n.String()+" has changed")
		}
	}
	if reason != "" {
		return m.bindWhole(v, relations, reason)
	}
	relations[partialsName(v.def.Name)], relations[deltaName(v.def.Name)] = state, delta
	m.metrics.read(v.layout.Mode, "")
	return nil
}

// bindWhole leaves the state out: the partials are of everything pinned.
func (m *Manager) bindWhole(v *view, relations map[engine.Name]engine.Relation, reason string) error {
	state := relations[engine.Name(v.tables[0])]
	state.Files = nil
	relations[partialsName(v.def.Name)] = state
	relations[deltaName(v.def.Name)] = relations[engine.Name(v.layout.Fact)]
	m.metrics.read(v.layout.Mode, reason)
	m.log.Debug("view is read without its state", "view", v.def.Name.String(), "reason", reason)
	return nil
}

// changes are how the pinned tables differ from what the pinned state is true
// for. reason, if not "", says why the state is of no use.
func (m *Manager) changes(ctx context.Context, v *view, pin *engine.Pin, relations map[engine.Name]engine.Relation) (_ []change, reason string, err error) {
	tables, err := m.o.Catalog.LoadAll(ctx, v.tables)
	if errors.Is(err, catalog.ErrNotFound) {
		return nil, "a table was dropped", nil
	}
	if err != nil {
		return nil, "", err
	}
	p, ok, err := progressAt(tables[0], pin.Snapshot(engine.Name(v.tables[0])))
	if err != nil {
		return nil, "", err
	}
	if !ok {
		return nil, "the state's snapshot has expired", nil
	}
	// Someone may have added to the state's files what is no part of it.
	if c, err := m.sincePinned(ctx, tables[0], tableState{Snapshot: pin.Snapshot(engine.Name(v.tables[0]))}, true, pin.Snapshot(engine.Name(v.tables[0])), relations[engine.Name(v.tables[0])]); err != nil {
		return nil, "", err
	} else if !c.none() {
		return nil, "the state is not as it was committed", nil
	}
	out := make([]change, len(v.def.Tables))
	for i, t := range tables[1:] {
		name := engine.Name(t.Name)
		from, known := p.of(t)
		if out[i], err = m.sincePinned(ctx, t, from, known, pin.Snapshot(name), relations[name]); err != nil {
			return nil, "", err
		}
		if out[i].other != "" {
			return nil, out[i].other, nil
		}
	}
	return out, "", nil
}
