package view

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
)

// stagedPrefix begins the names of files that are not in the lake yet.
const stagedPrefix = "view-"

const (
	// refreshTriesMax bounds how often a refresh starts anew because somebody
	// else changed the state.
	refreshTriesMax = 5
	// outcomeWait bounds how long the state is asked whether a commit was done.
	outcomeWait = 10 * time.Second
)

// foldLimits say when a state is folded. A reading opens every file of the
// state and merges every row.
type foldLimits struct {
	files      int   // at most that many
	rowsFactor int64 // at most that many rows for each row of the largest file
	rows       int64 // below that, the rows do not matter
}

var foldLimitsDefault = foldLimits{files: 32, rowsFactor: 4, rows: 50_000}

// Words of svl_mv_refresh_status.
const (
	statusIncremental = "Refresh successfully updated MV incrementally"
	statusRecomputed  = "Refresh successfully recomputed MV from scratch"
	statusUpToDate    = "MV was already updated"
)

// Refresh brings a view's state up to the tables' current snapshots. The view
// is right before and after; what changes is the cost of a reading.
func (m *Manager) Refresh(ctx context.Context, name catalog.Name) (Result, error) {
	v, err := m.find(name)
	if err != nil {
		return Result{}, err
	}
	return m.refresh(ctx, v, byUser)
}

// Rebuild computes a view's state from scratch, whatever it is: the peer of
// Refresh in a benchmark, and what an operator who mistrusts a state asks for.
func (m *Manager) Rebuild(ctx context.Context, name catalog.Name) (Result, error) {
	v, err := m.find(name)
	if err != nil {
		return Result{}, err
	}
	return m.refresh(ctx, v, byRebuild)
}

// trigger is who asks for a refresh.
type trigger uint8

const (
	byUser trigger = iota
	byLoop
	byRebuild
)

func (m *Manager) refresh(ctx context.Context, v *view, by trigger) (r Result, err error) {
	release, err := v.acquire(ctx)
	if err != nil {
		return r, err
	}
	defer release()
	start, startedAt := time.Now(), m.now().UTC()
	defer func() {
		r.Took = time.Since(start)
		m.metrics.refreshed(r, err, r.Took.Seconds())
		status := map[Outcome]string{UpToDate: statusUpToDate, Incremental: statusIncremental, Recomputed: statusRecomputed}[r.Outcome]
		if err != nil {
			status = "Refresh failed. " + err.Error()
		}
		if by != byLoop || r.Outcome != UpToDate {
			m.remember(Refresh{View: v.def.Name, Owner: v.def.Owner, StartedAt: startedAt, EndedAt: m.now().UTC(), Auto: by == byLoop, Status: status})
		}
	}()
	if v.layout.Mode == modeQuery {
		return Result{Outcome: Recomputed, Reason: "it is computed at each reading (" + v.layout.Reason + ")"}, nil
	}
	for try := 1; ; try++ {
		r, err = m.refreshOnce(ctx, v, by == byRebuild)
		if err == nil {
			break
		}
		if !errors.Is(err, catalog.ErrConflict) || try == refreshTriesMax {
			return r, fmt.Errorf("refresh view %s: %w", v.def.Name, err)
		}
	}
	if r.Outcome != UpToDate {
		v.mu.Lock()
		v.refreshedAt = m.now().UTC()
		v.mu.Unlock()
		m.log.Debug("view refreshed", "view", v.def.Name.String(), "outcome", r.Outcome.String(), "reason", r.Reason, "delta_rows", r.DeltaRows, "state_rows", r.StateRows,
			"seconds", time.Since(start).Seconds())
	}
	if v.layout.Mode == modeDelta {
		// The state is right whether it is folded or not.
		if r.Folded, err = m.fold(ctx, v); err != nil {
			m.log.Warn("state was not folded", "view", v.def.Name.String(), "error", err)
		}
	}
	return r, nil
}

// job is what a refresh has to do.
type job struct {
	outcome Outcome
	reason  string
	delta   []engine.File // of Incremental
	rows    int64         // of the fact, that are read
	next    progress
	moved   bool // next differs from what the state says
}

// judge compares the state's progress with the tables. tables are as v.tables.
func (m *Manager) judge(ctx context.Context, v *view, tables []*catalog.Table) (job, error) {
	j := job{next: newProgress(tables[1:])}
	p, ok, err := progressAt(tables[0], tables[0].Snapshot())
	if err != nil {
		return j, err
	}
	if !ok {
		j.outcome, j.reason, j.moved = Recomputed, "it has no state yet", true
		return j, m.countRows(ctx, v, tables, &j)
	}
	have, err := p.text()
	if err != nil {
		return j, err
	}
	want, err := j.next.text()
	if err != nil {
		return j, err
	}
	if j.moved = have != want; !j.moved {
		j.outcome = UpToDate
		return j, nil
	}
	for _, t := range tables[1:] {
		from, known := p.of(t)
		c, err := m.since(ctx, t, from, known, t.Snapshot())
		switch {
		case err != nil:
			return j, err
		case c.none():
		case c.other != "":
			j.reason = c.other
		case v.layout.Mode == modeStored:
			j.reason = v.layout.Reason
		case t.Name != v.layout.Fact:
			j.reason = "table " + t.Name.String() + ", which is joined, has changed"
		default:
			j.delta, j.rows = c.gained, c.rows
		}
	}
	switch {
	case j.reason != "":
		j.outcome = Recomputed
		return j, m.countRows(ctx, v, tables, &j)
	case len(j.delta) > 0:
		j.outcome = Incremental
	default:
		j.outcome = UpToDate // the same rows in other files
	}
	return j, nil
}

// countRows sets the rows that computing everything reads.
func (m *Manager) countRows(ctx context.Context, v *view, tables []*catalog.Table, j *job) error {
	j.rows = 0
	for _, t := range tables[1:] {
		if v.layout.Mode == modeDelta && t.Name != v.layout.Fact {
			continue
		}
		files, err := m.o.Catalog.Files(ctx, t, catalog.At{})
		if err != nil {
			return err
		}
		for _, f := range files {
			j.rows += f.Rows
		}
	}
	return nil
}

// refreshOnce is steps 1 to 4 of the protocol. ErrConflict means that the state
// was changed meanwhile. anew recomputes in any case; documents become visible
// with the state.
func (m *Manager) refreshOnce(ctx context.Context, v *view, anew bool, documents ...catalog.DocumentWrite) (Result, error) {
	tables, err := m.o.Catalog.LoadAll(ctx, v.tables)
	if err != nil {
		return Result{}, err
	}
	j, err := m.judge(ctx, v, tables)
	if err != nil {
		return Result{}, err
	}
	if anew && j.outcome != Recomputed {
		j.outcome, j.reason, j.moved = Recomputed, "it was asked for", true
		if err := m.countRows(ctx, v, tables, &j); err != nil {
			return Result{}, err
		}
	}
	r := Result{Outcome: j.outcome, Reason: j.reason, DeltaRows: j.rows}
	if !j.moved && len(documents) == 0 {
		return r, nil
	}
	if err := m.at("judged"); err != nil {
		return r, err
	}
	c := catalog.Commit{Table: v.tables[0]}
	if j.outcome != UpToDate {
		q, release, err := m.fillQuery(ctx, v, tables, j)
		if err != nil {
			return r, err
		}
		file, err := m.compute(ctx, v, tables[0], q)
		release()
		if err != nil {
			return r, err
		}
		if file != nil {
			c.Add = []catalog.NewFile{*file}
			r.StateRows = file.Stats.Rows
		}
		if j.outcome == Recomputed {
			if c.Remove, err = m.o.Catalog.Files(ctx, tables[0], catalog.At{}); err != nil {
				return r, err
			}
		}
	}
	return r, m.commit(ctx, tables[0], c, j.next, documents...)
}

// fillQuery is the query for the state's new rows over the tables' snapshots.
func (m *Manager) fillQuery(ctx context.Context, v *view, tables []*catalog.Table, j job) (_ engine.Query, release func(), err error) {
	names := make([]engine.Name, 0, len(tables))
	at := map[engine.Name]engine.At{}
	for _, t := range tables[1:] {
		n := engine.Name(t.Name)
		names = append(names, n)
		if t.Snapshot() != 0 {
			at[n] = engine.At{Snapshot: t.Snapshot()}
		}
	}
	pin, err := m.o.Engine.Pin(ctx, names, at)
	if err != nil {
		return engine.Query{}, nil, err
	}
	relations := make(map[engine.Name]engine.Relation, len(names)+1)
	for _, n := range names {
		rel, _ := pin.Relation(n)
		if at[n].IsZero() {
			rel.Files = nil // it has no snapshot; the tail is no part of the state
		}
		relations[n] = rel
	}
	if v.layout.Mode == modeDelta {
		delta := relations[engine.Name(v.layout.Fact)]
		if j.outcome == Incremental {
			delta.Files = j.delta
		}
		relations[deltaName(v.def.Name)] = delta
	} else {
		for i, n := range v.def.Tables {
			relations[fullName(v.def.Name, i)] = relations[engine.Name(n)]
		}
	}
	made := engine.NewPin(relations)
	return engine.Query{SQL: v.layout.Fill, Pin: made, Exact: true, Once: true}, func() { made.Release(); pin.Release() }, nil
}

// compute writes a query's rows, in the state's layout, to a new file of the
// lake. nil: there are none.
func (m *Manager) compute(ctx context.Context, v *view, state *catalog.Table, q engine.Query) (*catalog.NewFile, error) {
	path := filepath.Join(m.o.Staging, stagedPrefix+uuid.NewString()+".parquet")
	defer func() { _ = os.Remove(path) }() // PutFile has consumed it, or it is of no use
	schema := v.layout.schema(state.Schema.ID)
	written, err := m.o.Engine.Export(ctx, q, engine.ExportSpec{Path: path, Schema: schema, OrderBy: v.layout.keys()})
	if err != nil {
		return nil, err
	}
	if err := m.at("exported"); err != nil {
		return nil, err
	}
	if written.Rows == 0 {
		return nil, nil
	}
	stats, err := catalog.ReadStats(path, schema)
	if err != nil {
		return nil, err
	}
	name := state.DataDir() + "/partial-" + uuid.NewString() + ".parquet"
	if v.layout.Mode == modeStored {
		name = state.DataDir() + "/result-" + uuid.NewString() + ".parquet"
	}
	if err := m.o.Store.PutFile(ctx, name, path); err != nil {
		return nil, err
	}
	if err := m.at("stored"); err != nil {
		return nil, err
	}
	return &catalog.NewFile{Path: name, Stats: stats}, nil
}

// commit changes the state and its progress in one step, if the state is still
// the one that c was made from. An error's text is never believed: the state is
// asked.
func (m *Manager) commit(ctx context.Context, state *catalog.Table, c catalog.Commit, next progress, documents ...catalog.DocumentWrite) error {
	text, err := next.text()
	if err != nil {
		return err
	}
	snapshot := state.Snapshot()
	c.RequireSnapshot = &snapshot
	c.Properties = map[string]string{PropertyProgress: text}
	c.Summary = map[string]string{PropertyProgress: text}
	_, err = m.o.Catalog.Commit(ctx, []catalog.Commit{c}, documents...)
	if err == nil {
		err = m.at("committed")
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, catalog.ErrPoisoned) || errors.Is(err, catalog.ErrFenced) || errors.Is(err, catalog.ErrClosed) {
		return err // nothing can be asked; the files are orphans or part of the state
	}
	ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), outcomeWait)
	defer cancel()
	done, e := m.committed(ask, c, text)
	switch {
	case e != nil:
		return errors.Join(err, e)
	case done:
		m.log.Warn("commit of a view's state was done in spite of an error", "table", c.Table.String(), "error", err)
		return nil
	}
	var names []string
	for _, f := range c.Add {
		names = append(names, f.Path)
	}
	if e := m.o.Store.Delete(ask, names...); e != nil {
		m.log.Warn("file of a refused refresh is left as an orphan", "table", c.Table.String(), "error", e)
	}
	return err
}

// committed reports whether the state is what c makes of it.
func (m *Manager) committed(ctx context.Context, c catalog.Commit, progressText string) (bool, error) {
	t, err := m.o.Catalog.Load(ctx, c.Table)
	if err != nil || t.Properties[PropertyProgress] != progressText {
		return false, err
	}
	if len(c.Add) == 0 {
		return true, nil
	}
	files, err := m.o.Catalog.Files(ctx, t, catalog.At{})
	if err != nil {
		return false, err
	}
	path, _ := m.o.Store.LocalPath(c.Add[0].Path)
	uri := m.o.Store.URI(c.Add[0].Path)
	for _, f := range files {
		if f.Path == path || f.URI() == uri {
			return true, nil
		}
	}
	return false, nil
}

// fold merges partial rows if there are too many. It reports whether it did.
func (m *Manager) fold(ctx context.Context, v *view) (bool, error) {
	state, err := m.o.Catalog.Load(ctx, v.tables[0])
	if err != nil {
		return false, err
	}
	files, err := m.o.Catalog.Files(ctx, state, catalog.At{})
	if err != nil {
		return false, err
	}
	chosen := m.limits.choose(files)
	if len(chosen) == 0 {
		return false, nil
	}
	p, ok, err := progressAt(state, state.Snapshot())
	if err != nil || !ok {
		return false, err
	}
	schema := v.layout.schema(state.Schema.ID)
	pin := engine.NewPin(map[engine.Name]engine.Relation{partialsName(v.def.Name): {Schema: schema, Files: gainedFiles(chosen).gained}})
	defer pin.Release()
	file, err := m.compute(ctx, v, state, engine.Query{SQL: v.layout.Fold, Pin: pin, Exact: true})
	if err != nil {
		return false, err
	}
	c := catalog.Commit{Table: v.tables[0]}
	if file != nil {
		c.Add, c.Replace = []catalog.NewFile{*file}, chosen
	} else {
		c.Remove = chosen // their groups have no rows left
	}
	if err := m.commit(ctx, state, c, p); err != nil {
		return false, err
	}
	m.metrics.folds.Inc()
	return true, nil
}

// choose chooses the files to be merged: all, when the rows are many for the
// groups; all but a large one, when only the files are many.
func (l foldLimits) choose(files []catalog.DataFile) []catalog.DataFile {
	var rows, largest int64
	for _, f := range files {
		rows += f.Rows
		largest = max(largest, f.Rows)
	}
	switch {
	case len(files) < 2:
		return nil
	case rows > l.rows && rows > l.rowsFactor*largest:
		return files
	case len(files) <= l.files:
		return nil
	}
	small := make([]catalog.DataFile, 0, len(files))
	for _, f := range files {
		if 2*f.Rows <= rows {
			small = append(small, f)
		}
	}
	if len(small) < 2 {
		return files
	}
	return small
}
