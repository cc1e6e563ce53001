package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tapehouse/tapehouse/internal/record"
)

// Tables finds the files of tables. Resolve answers for all names from one
// state of the catalog, in the order of names, or fails with an *Error of kind
// Catalog that names the missing one.
type Tables interface {
	Resolve(ctx context.Context, names []Name, at map[Name]At) ([]Resolved, error)
}

// Resolved is a table's state.
type Resolved struct {
	Name Name
	Relation
	Snapshot int64         // 0: nothing was committed yet
	Through  record.Vector // what Files contain
	// Version, if not "", changes whenever Relation does: equal versions of a
	// name spare comparing the files.
	Version string
}

// TailSource gives the rows that are acknowledged and not yet in a table.
type TailSource interface {
	// Tail returns the files that hold the records of n's streams from through
	// on: together with a table state of that progress, every visible record
	// once. fresh asks for what has arrived until now, else the newest files
	// there are will do. A table that no stream feeds has an empty tail. If
	// files no longer reach back to through, because a commit has overtaken
	// the caller's state, the error is ErrTailMoved.
	Tail(ctx context.Context, n Name, through record.Vector, fresh bool) (Tail, error)
}

// Tail is part of a pin until Release is called, once; nil needs no release.
type Tail struct {
	Files []TailFile
	// Keys and Removals are Relation's, of a table whose records update and
	// delete.
	Keys     []string
	Removals []Removal
	Through  record.Vector // visible with Files
	Release  func()
}

// TailFile is one small local Parquet file with the table's field ids.
type TailFile struct {
	Path     string
	SchemaID int
	Rows     int64
	Ranges   Ranges // nil: nothing is known of the columns
	Order    int    // File's
}

// tailAttempts bounds how often a pin is retried when commits overtake it. A
// table commits at most once a second, so that two are enough in practice.
const (
	tailAttempts = 8
	tailBackoff  = 2 * time.Millisecond
)

// Pin is a consistent set of table states: lists of immutable files, which are
// neither changed nor deleted while it is held. It may be used by several
// goroutines and sessions. A query that runs keeps it until its rows are
// closed, whoever calls Release in the meantime.
type Pin struct {
	mu     sync.Mutex
	tables map[Name]*pinned
	refs   int // the holder's and one for each open query
	freed  bool
}

type pinned struct {
	relation Relation
	version  string
	snapshot int64
	visible  record.Vector
	release  func() // of the tail, or of foreign files
	// unchanged is SourceFiles'; may be nil
	unchanged func() error
	bound     *boundRelation
	engine    *Engine // of bound
}

// NewPin makes a pin of relations that the caller assembled, such as the files
// that a delta added. The files are the caller's to keep until Release.
func NewPin(relations map[Name]Relation) *Pin {
	p := &Pin{tables: make(map[Name]*pinned, len(relations)), refs: 1}
	for n, r := range relations {
		p.tables[n] = &pinned{relation: r}
	}
	return p
}

// Pin pins the named tables, each at its tag or snapshot if at has one and
// else in its current state with its tail as it stands, at most one tail
// interval old. The caller must Release it.
func (e *Engine) Pin(ctx context.Context, names []Name, at map[Name]At) (*Pin, error) {
	return e.pin(ctx, names, at, false)
}

// PinFresh is Pin with everything that was acknowledged before the call.
func (e *Engine) PinFresh(ctx context.Context, names []Name, at map[Name]At) (*Pin, error) {
	return e.pin(ctx, names, at, true)
}

func (e *Engine) pin(ctx context.Context, names []Name, at map[Name]At, fresh bool) (*Pin, error) {
	names = slices.Clone(names)
	slices.SortFunc(names, func(a, b Name) int { return strings.Compare(a.String(), b.String()) })
	names = slices.Compact(names)
	if len(names) > 0 && e.options.Tables == nil {
		return nil, &Error{Kind: Catalog, Message: "relation " + names[0].String() + " does not exist"}
	}
	for attempt := 0; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return nil, contextError(err)
		}
		p, err := e.pinOnce(ctx, names, at, fresh)
		if !errors.Is(err, ErrTailMoved) {
			return p, err
		}
		e.metrics.pinRetries.Inc()
		if attempt+1 == tailAttempts {
			return nil, fmt.Errorf("pin tables: commits overtook %d attempts: %w", tailAttempts, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(tailBackoff << attempt):
		}
	}
}

func (e *Engine) pinOnce(ctx context.Context, names []Name, at map[Name]At, fresh bool) (_ *Pin, err error) {
	p := NewPin(nil)
	if len(names) == 0 {
		return p, nil
	}
	resolved, err := e.options.Tables.Resolve(ctx, names, at)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.Release()
		}
	}()
	for i := range resolved {
		r := &resolved[i]
		t := &pinned{relation: r.Relation, version: r.Version, snapshot: r.Snapshot, visible: r.Through.Clone()}
		if at[r.Name].IsZero() && e.options.Tail != nil {
			tail, err := e.options.Tail.Tail(ctx, r.Name, r.Through, fresh)
			if err != nil {
				return nil, err
			}
			t.release = tail.Release
			if newer(tail, r.Relation.Schema.ID) {
				p.tables[r.Name] = t // for its release
				return nil, ErrTailMoved
			}
			t.addTail(tail)
		}
		p.tables[r.Name] = t
		// Pinned before the tail of the next table is asked for, so that a
		// long wait does not outlast the grace period of deleted files.
		t.bound, t.engine = e.relations.acquire(r.Name, t), e
	}
	for _, n := range names {
		if p.tables[n] == nil {
			return nil, &Error{Kind: Catalog, Message: "relation " + n.String() + " does not exist"}
		}
	}
	return p, nil
}

// newer reports whether the tail was written under a later schema than the one
// that the table was loaded with: it may hold what that one does not.
func newer(tail Tail, schema int) bool {
	return slices.ContainsFunc(tail.Files, func(f TailFile) bool { return f.SchemaID > schema }) ||
		slices.ContainsFunc(tail.Removals, func(r Removal) bool { return r.SchemaID > schema })
}

func (t *pinned) addTail(tail Tail) {
	t.release = tail.Release
	for k, o := range tail.Through {
		if o > t.visible[k] {
			t.visible[k] = o
		}
	}
	t.relation.Keys, t.relation.Removals = tail.Keys, tail.Removals
	for _, r := range tail.Removals {
		if t.version != "" {
			t.version += "\x00" + r.Path
		}
	}
	if len(tail.Files) == 0 {
		return
	}
	files := make([]File, 0, len(t.relation.Files)+len(tail.Files))
	files = append(files, t.relation.Files...)
	for _, f := range tail.Files {
		files = append(files, File{Path: f.Path, Rows: f.Rows, SchemaID: f.SchemaID, Ranges: f.Ranges, Order: f.Order, Fleeting: true})
		if t.version != "" {
			t.version += "\x00" + f.Path
		}
	}
	t.relation.Files = files
}

// Snapshot is the snapshot that n is pinned at, 0 if it has none.
func (p *Pin) Snapshot(n Name) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.tables[n]; t != nil {
		return t.snapshot
	}
	return 0
}

// Visible is the progress that n shows, its tail included. It is the caller's.
func (p *Pin) Visible(n Name) record.Vector {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.tables[n]; t != nil {
		return t.visible.Clone()
	}
	return nil
}

// Relation is what n stands for, and whether p has it. Its slices are shared:
// they must not be changed.
func (p *Pin) Relation(n Name) (Relation, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.tables[n]; t != nil {
		return t.relation, true
	}
	return Relation{}, false
}

// Names lists the pinned tables, sorted.
func (p *Pin) Names() []Name {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.SortedFunc(maps.Keys(p.tables), func(a, b Name) int { return strings.Compare(a.String(), b.String()) })
}

// Release gives the holder's part back. Further calls do nothing.
func (p *Pin) Release() {
	p.mu.Lock()
	freed := p.freed
	p.freed = true
	p.mu.Unlock()
	if !freed {
		p.unref()
	}
}

func (p *Pin) ref() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refs == 0 {
		return fmt.Errorf("use a pin that was released: %w", ErrClosed)
	}
	p.refs++
	return nil
}

func (p *Pin) unref() {
	p.mu.Lock()
	p.refs--
	last := p.refs == 0
	p.mu.Unlock()
	if !last {
		return
	}
	for _, t := range p.tables {
		if t.bound != nil {
			t.engine.relations.release(t.bound)
		}
		if t.release != nil {
			t.release()
		}
	}
}

// find returns the table that a reference names. Names are compared as
// written, then without case if that is unambiguous.
func (p *Pin) find(schema, table string) (Name, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := Name{schema, table}
	if p.tables[n] != nil {
		return n, true
	}
	var found Name
	count := 0
	for c := range p.tables {
		if strings.EqualFold(c.Namespace, schema) && strings.EqualFold(c.Table, table) {
			found = c
			count++
		}
	}
	return found, count == 1
}

// bind returns n's view in e, which is held as long as p is.
func (p *Pin) bind(e *Engine, n Name) (*boundRelation, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tables[n]
	if t.bound == nil {
		t.bound, t.engine = e.relations.acquire(n, t), e
	}
	if t.engine != e {
		return nil, &Error{Kind: Internal, Message: "a pin of another engine"}
	}
	return t.bound, nil
}
