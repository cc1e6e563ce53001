package view

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
)

// documentKind is the kind of the views' documents; their key is the name.
const documentKind = "view"

// documentVersion is the version of document.
const documentVersion = 1

// document is a view in the catalog.
type document struct {
	Version    int        `json:"version"`
	Definition Definition `json:"definition"`
	Layout     layout     `json:"layout"`
	CreatedAt  time.Time  `json:"created_at"`
}

// view is one view of this process. def, layout and tables never change.
type view struct {
	def       Definition
	layout    layout
	createdAt time.Time
	tables    []catalog.Name // the state's, then def.Tables; without a state only these
	busy      chan struct{}  // holds a token while the state is being changed

	mu          sync.Mutex
	dropped     bool
	refreshedAt time.Time
	schedule    schedule
}

// schedule is when the automatic refresh is due.
type schedule struct {
	staleAt   time.Time // when the view was first seen behind; zero: it is not
	notBefore time.Time
	failures  int
}

func newView(d document) *view {
	v := &view{def: d.Definition, layout: d.Layout, createdAt: d.CreatedAt, busy: make(chan struct{}, 1)}
	if v.layout.Mode != modeQuery {
		v.tables = append(v.tables, stateName(v.def.Name))
	}
	v.tables = append(v.tables, v.def.Tables...)
	return v
}

// acquire waits until nobody else changes the state.
func (v *view) acquire(ctx context.Context) (release func(), err error) {
	select {
	case v.busy <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	v.mu.Lock()
	dropped := v.dropped
	v.mu.Unlock()
	if dropped {
		<-v.busy
		return nil, fmt.Errorf("view %s: %w", v.def.Name, ErrNotFound)
	}
	return func() { <-v.busy }, nil
}

// Defaults of Options.
const (
	intervalDefault = time.Second
	rowsMinDefault  = 250_000
	ageMinDefault   = 5 * time.Second
	deferMaxDefault = time.Minute
)

// viewsMax bounds the views of a catalog; historyMax the refreshes remembered.
const (
	viewsMax   = 1_000
	historyMax = 1_000
	// sharedStateAge exceeds the longest time from the making of a view's state to
	// that of its document.
	sharedStateAge = 24 * time.Hour
)

// Manager keeps the views of one catalog. It is safe for concurrent use.
type Manager struct {
	o       Options
	log     *slog.Logger
	now     func() time.Time
	metrics *metrics

	define sync.Mutex // held by Create and Drop

	mu      sync.Mutex
	views   map[catalog.Name]*view
	history []Refresh // a ring from historyAt on
	oldest  int
	closed  bool

	stop context.CancelFunc
	done chan struct{}

	limits foldLimits
	step   func(string) error // tests fail refreshes here; nil
}

// Open loads the views' definitions, removes what interrupted operations left
// behind, and starts the automatic refresh. The catalog and the engine stay the
// caller's to close, after Close.
func Open(ctx context.Context, o Options) (*Manager, error) {
	if o.Interval == 0 {
		o.Interval = intervalDefault
	}
	if o.RowsMin == 0 {
		o.RowsMin = rowsMinDefault
	}
	if o.AgeMin == 0 {
		o.AgeMin = ageMinDefault
	}
	if o.DeferMax == 0 {
		o.DeferMax = deferMaxDefault
	}
	m := &Manager{o: o, log: o.Logger, now: o.Now, views: map[catalog.Name]*view{}, done: make(chan struct{}), limits: foldLimitsDefault}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.now == nil {
		m.now = time.Now
	}
	var err error
	if m.metrics, err = newMetrics(o.Registerer); err != nil {
		return nil, err
	}
	if err := m.load(ctx); err != nil {
		return nil, fmt.Errorf("open views: %w", err)
	}
	if err := m.sweep(ctx); err != nil {
		return nil, fmt.Errorf("open views: %w", err)
	}
	loop, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stop = stop
	if o.Interval < 0 {
		close(m.done)
	} else {
		go m.run(loop)
	}
	m.log.Info("views opened", "views", len(m.views))
	return m, nil
}

// Close stops the automatic refresh and waits for it.
func (m *Manager) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.stop()
	<-m.done
	return nil
}

// load reads the documents.
func (m *Manager) load(ctx context.Context) error {
	docs, err := m.o.Catalog.ListDocuments(ctx, documentKind, "")
	if err != nil {
		return err
	}
	for _, d := range docs {
		var body document
		if err := json.Unmarshal(d.Body, &body); err != nil {
			return fmt.Errorf("document %s/%s: %w", d.Kind, d.Key, err)
		}
		if body.Version > documentVersion || body.Layout.Version > layoutVersion {
			return fmt.Errorf("document %s/%s was written by a newer program: run that one", d.Kind, d.Key)
		}
		m.views[body.Definition.Name] = newView(body)
	}
	return nil
}

// sweep drops state tables that no view has, and staged files of a former
// process: an interrupted Create or Drop left the ones, a crash the others.
func (m *Manager) sweep(ctx context.Context) error {
	names, err := m.o.Catalog.List(ctx, "")
	if err != nil {
		return err
	}
	for _, n := range names {
		own, ok := strings.CutPrefix(n.Table, prefixState)
		if !ok || m.views[catalog.Name{Namespace: n.Namespace, Table: own}] != nil {
			continue
		}
		t, err := m.o.Catalog.Load(ctx, n)
		if err != nil {
			return err
		}
		if t.Properties[PropertyView] == "" {
			continue // a user's
		}
		if m.o.Shared && m.now().Sub(t.UpdatedAt()) < sharedStateAge {
			continue // another server may be making the view
		}
		if err := m.o.Catalog.DropTable(ctx, n); err != nil {
			return err
		}
		m.log.Info("state of no view dropped", "table", n.String())
	}
	staged, err := filepath.Glob(filepath.Join(m.o.Staging, stagedPrefix+"*.parquet"))
	if err != nil {
		return err
	}
	for _, path := range staged {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// find returns a view, or ErrNotFound.
func (m *Manager) find(name catalog.Name) (*view, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	if v := m.views[name]; v != nil {
		return v, nil
	}
	return nil, fmt.Errorf("view %s: %w", name, ErrNotFound)
}

// sorted lists the views by name.
func (m *Manager) sorted() []*view {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*view, 0, len(m.views))
	for _, v := range m.views {
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b *view) int { return strings.Compare(a.def.Name.String(), b.def.Name.String()) })
	return out
}

// Create makes a view with its first state. When it returns an error, there is
// no view. Errors: ErrExists, *UnsupportedError, and the engine's and the
// catalog's.
func (m *Manager) Create(ctx context.Context, d Definition) error {
	m.define.Lock()
	defer m.define.Unlock()
	if _, err := m.find(d.Name); err == nil {
		return fmt.Errorf("create view %s: %w", d.Name, ErrExists)
	} else if !errors.Is(err, ErrNotFound) {
		return err
	}
	if len(d.Tables) == 0 {
		return &UnsupportedError{What: "a materialized view over no table"}
	}
	m.mu.Lock()
	full := len(m.views) >= viewsMax
	m.mu.Unlock()
	if full {
		return &UnsupportedError{What: fmt.Sprintf("more than %d views", viewsMax)}
	}
	if _, err := m.o.Catalog.Load(ctx, d.Name); err == nil {
		return fmt.Errorf("create view %s: %w", d.Name, ErrExists)
	} else if !errors.Is(err, catalog.ErrNotFound) {
		return fmt.Errorf("create view %s: %w", d.Name, err)
	}
	if _, err := m.o.Catalog.GetDocument(ctx, documentKind, d.Name.String()); err == nil {
		return fmt.Errorf("create view %s: %w: another server made it, and this one knows it after a restart", d.Name, ErrExists)
	} else if !errors.Is(err, catalog.ErrNotFound) {
		return fmt.Errorf("create view %s: %w", d.Name, err)
	}
	v, err := m.create(ctx, d)
	if err != nil {
		return fmt.Errorf("create view %s: %w", d.Name, err)
	}
	m.mu.Lock()
	m.views[d.Name] = v
	m.mu.Unlock()
	m.log.Info("view created", "view", d.Name.String(), "mode", string(v.layout.Mode), "reason", v.layout.Reason)
	return nil
}

func (m *Manager) create(ctx context.Context, d Definition) (*view, error) {
	// The state is computed by a trusted session: the text must be one that its
	// owner could have run.
	if err := m.o.Engine.Check(ctx, d.Query); err != nil {
		return nil, err
	}
	relations, err := m.shapes(ctx, d)
	if err != nil {
		return nil, err
	}
	doc := document{Version: documentVersion, Definition: d, CreatedAt: m.now().UTC().Truncate(time.Microsecond)}
	if doc.Layout, err = analyze(ctx, m.o.Engine, d, relations); err != nil {
		return nil, err
	}
	body, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	write := catalog.DocumentWrite{Kind: documentKind, Key: d.Name.String(), Body: body}
	v := newView(doc)
	if v.layout.Mode == modeQuery {
		_, err := m.o.Catalog.PutDocument(ctx, write)
		return v, err
	}
	if err := m.createState(ctx, v); err != nil {
		return nil, err
	}
	if err := m.at("state created"); err != nil {
		return nil, err // as after a crash
	}
	if _, err := m.refreshOnce(ctx, v, false, write); err != nil {
		if errors.Is(err, catalog.ErrPoisoned) {
			return nil, err
		}
		if e := m.o.Catalog.DropTable(context.WithoutCancel(ctx), v.tables[0]); e != nil {
			m.log.Warn("state of a refused view is left for the next start", "view", d.Name.String(), "error", e)
		}
		return nil, err
	}
	return v, nil
}

// shapes are the relations of the definition's tables.
func (m *Manager) shapes(ctx context.Context, d Definition) (map[engine.Name]engine.Relation, error) {
	names := make([]engine.Name, len(d.Tables))
	for i, n := range d.Tables {
		names[i] = engine.Name(n)
	}
	pin, err := m.o.Engine.Pin(ctx, names, nil)
	if err != nil {
		return nil, err
	}
	defer pin.Release()
	out := make(map[engine.Name]engine.Relation, len(names))
	for _, n := range names {
		out[n], _ = pin.Relation(n)
	}
	return out, nil
}

// createState makes the state table, in place of one that a Create which did
// not finish has left.
func (m *Manager) createState(ctx context.Context, v *view) error {
	spec := catalog.TableSpec{Name: v.tables[0], Columns: v.layout.columns(), Properties: map[string]string{PropertyView: v.def.Name.String()}}
	_, err := m.o.Catalog.CreateTable(ctx, spec)
	if !errors.Is(err, catalog.ErrExists) {
		return err
	}
	old, err := m.o.Catalog.Load(ctx, spec.Name)
	if err != nil {
		return err
	}
	if old.Properties[PropertyView] == "" {
		return fmt.Errorf("table %s: %w", spec.Name, ErrExists)
	}
	if m.o.Shared && m.now().Sub(old.UpdatedAt()) < sharedStateAge {
		return fmt.Errorf("table %s: %w: another server may be making the view; if none is, drop the table", spec.Name, ErrExists)
	}
	if err := m.o.Catalog.DropTable(ctx, spec.Name); err != nil {
		return err
	}
	_, err = m.o.Catalog.CreateTable(ctx, spec)
	return err
}

// Drop removes a view and its state.
func (m *Manager) Drop(ctx context.Context, name catalog.Name) error {
	m.define.Lock()
	defer m.define.Unlock()
	v, err := m.find(name)
	if err != nil {
		return err
	}
	release, err := v.acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	// Without its document there is no view, whatever happens next.
	if _, err := m.o.Catalog.PutDocument(ctx, catalog.DocumentWrite{Kind: documentKind, Key: name.String(), IfVersion: catalog.AnyVersion, Delete: true}); err != nil {
		return fmt.Errorf("drop view %s: %w", name, err)
	}
	v.mu.Lock()
	v.dropped = true
	v.mu.Unlock()
	m.mu.Lock()
	delete(m.views, name)
	m.mu.Unlock()
	if v.layout.Mode != modeQuery {
		if err := m.o.Catalog.DropTable(ctx, v.tables[0]); err != nil {
			m.log.Warn("state of a dropped view is left for the next start", "view", name.String(), "error", err)
		}
	}
	m.log.Info("view dropped", "view", name.String())
	return nil
}

// Read answers nil for a name that is no view.
func (m *Manager) Read(_ context.Context, name catalog.Name) (*Read, error) {
	v, err := m.find(name)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &Read{
		Query: v.layout.Read, Columns: v.def.Columns, Tables: v.tables,
		Bind: func(ctx context.Context, pin *engine.Pin, relations map[engine.Name]engine.Relation) error {
			return m.bind(ctx, v, pin, relations)
		},
	}, nil
}

// List describes all views, sorted by name.
func (m *Manager) List(ctx context.Context) ([]Info, error) {
	views := m.sorted()
	out := make([]Info, 0, len(views))
	for _, v := range views {
		info, err := m.info(ctx, v)
		if err != nil {
			return nil, fmt.Errorf("describe view %s: %w", v.def.Name, err)
		}
		out = append(out, info)
	}
	return out, nil
}

func (m *Manager) info(ctx context.Context, v *view) (Info, error) {
	v.mu.Lock()
	info := Info{Definition: v.def, CreatedAt: v.createdAt, Incremental: v.layout.Mode == modeDelta, Reason: v.layout.Reason, RefreshedAt: v.refreshedAt}
	v.mu.Unlock()
	if v.layout.Mode == modeQuery {
		return info, nil
	}
	info.StateTable = v.tables[0]
	tables, err := m.o.Catalog.LoadAll(ctx, v.tables)
	if errors.Is(err, catalog.ErrNotFound) {
		info.Stale = true // a table was dropped, or the view is
		return info, nil
	}
	if err != nil {
		return info, err
	}
	files, err := m.o.Catalog.Files(ctx, tables[0], catalog.At{})
	if err != nil {
		return info, err
	}
	info.StateFiles = len(files)
	for _, f := range files {
		info.StateRows += f.Rows
	}
	p, ok, err := progressAt(tables[0], tables[0].Snapshot())
	if err != nil {
		return info, err
	}
	info.Stale, info.Progress = !ok, map[catalog.Name]int64{}
	for _, t := range tables[1:] {
		s, known := p.of(t)
		info.Stale = info.Stale || !known || s.Snapshot != t.Snapshot()
		info.Progress[t.Name] = s.Snapshot
	}
	return info, nil
}

// KeepSnapshots lists, for each table, the snapshots that views stand at: from
// them on the catalog must keep what deltas need (ExpirePolicy.KeepDeltaFrom).
func (m *Manager) KeepSnapshots(ctx context.Context) (map[catalog.Name][]int64, error) {
	out := map[catalog.Name][]int64{}
	for _, v := range m.sorted() {
		info, err := m.info(ctx, v)
		if err != nil {
			return nil, fmt.Errorf("snapshots of view %s: %w", v.def.Name, err)
		}
		for n, id := range info.Progress {
			if id != 0 && !slices.Contains(out[n], id) {
				out[n] = append(out[n], id)
			}
		}
	}
	return out, nil
}

// History lists the latest refreshes, oldest first.
func (m *Manager) History() []Refresh {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append(append([]Refresh(nil), m.history[m.oldest:]...), m.history[:m.oldest]...)
}

func (m *Manager) remember(r Refresh) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.history) < historyMax {
		m.history = append(m.history, r)
		return
	}
	m.history[m.oldest] = r
	m.oldest = (m.oldest + 1) % historyMax
}

// at lets a test stop an operation between two steps.
func (m *Manager) at(step string) error {
	if m.step == nil {
		return nil
	}
	return m.step(step)
}
