package engine

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// idleViewsMax bounds the views that nobody pins and that are kept because the
// next query of an unchanged table will want them again. They pin no file.
const idleViewsMax = 64

// boundRelation is a relation of one engine: its files are pinned while refs
// is above 0, and its view is made at the first query that needs one.
type boundRelation struct {
	key      string
	view     string
	relation Relation // its files where they are, or will be, on the local disk
	paths    []string // as Relation had them
	remote   []string // of these, the ones that are brought here for as long as refs is above 0
	shape    string   // a hash of the columns

	refs int           // guarded by relations.mu
	idle *list.Element // in relations.idle while refs is 0
	held func()        // gives remote back; nil: not held; guarded by relations.mu

	mu     sync.Mutex
	made   bool
	inline map[string]string // the relation as a subquery, by the names of its columns
}

// inlineFilesMax is up to how many files a relation stands in a statement as it
// is. A view spares reading the list of files anew with each statement, and costs
// 1 ms to make.
const inlineFilesMax = 32

// inlineFormsMax bounds the forms that are kept of one relation.
const inlineFormsMax = 64

// source is what stands for b in a statement: a subquery, or its view, made.
// The caller has a pin of b; c is any idle connection.
// columns are the names of those that the statement takes, nil for all.
func (r *relations) source(ctx context.Context, b *boundRelation, c *conn, columns map[string]bool) (string, error) {
	if len(b.relation.Files) > inlineFilesMax {
		return "memory." + pinSchema + "." + b.view, r.make(ctx, b, c)
	}
	if err := r.hold(ctx, b); err != nil {
		return "", err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.made {
		return "memory." + pinSchema + "." + b.view, nil
	}
	part := b.relation.only(columns)
	var key strings.Builder
	for i := range part.Schema.Fields {
		key.WriteString(part.Schema.Fields[i].Name + "\x00")
	}
	sql, ok := b.inline[key.String()]
	if !ok {
		var err error
		if sql, err = part.viewSQL(); err != nil {
			return "", err
		}
		if b.inline == nil || len(b.inline) >= inlineFormsMax {
			b.inline = map[string]string{}
		}
		sql = "(" + sql + ")"
		b.inline[key.String()] = sql
	}
	return sql, nil
}

// relations is the registry of an engine's pinned relations. Pins of the same
// state share one, so that a view is made once however many sessions ask.
type relations struct {
	e *Engine

	mu     sync.Mutex
	byKey  map[string]*boundRelation
	pinned map[string]int // path → relations in use that hold it
	inUse  int
	idle   *list.List // of *boundRelation, the longest idle first
	serial uint64
}

func newRelations(e *Engine) *relations {
	return &relations{e: e, byKey: map[string]*boundRelation{}, pinned: map[string]int{}, idle: list.New()}
}

// acquire returns the relation of t, pinned.
func (r *relations) acquire(n Name, t *pinned) *boundRelation {
	id := t.version
	if id == "" {
		id = t.relation.identity()
	}
	sum := sha256.Sum256([]byte(n.Namespace + "\x00" + n.Table + "\x00" + id))
	key := string(sum[:])

	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.byKey[key]
	if b == nil {
		r.serial++
		b = &boundRelation{key: key, view: fmt.Sprintf("r_%s%016x", hex.EncodeToString(sum[:8]), r.serial), paths: t.relation.paths(), shape: t.relation.shape()}
		b.relation, b.remote = localized(t.relation, r.e.options.Files)
		r.byKey[key] = b
	}
	if b.idle != nil {
		r.idle.Remove(b.idle)
		b.idle = nil
	}
	if b.refs == 0 {
		r.inUse++
		r.e.metrics.pinned.Set(float64(r.inUse))
		for _, p := range b.paths {
			r.pinned[p]++
		}
	}
	b.refs++
	return b
}

func (r *relations) release(b *boundRelation) {
	r.mu.Lock()
	b.refs--
	var drop []*boundRelation
	var held func()
	if b.refs == 0 {
		held, b.held = b.held, nil
		r.inUse--
		r.e.metrics.pinned.Set(float64(r.inUse))
		for _, p := range b.paths {
			if r.pinned[p]--; r.pinned[p] == 0 {
				delete(r.pinned, p)
			}
		}
		b.idle = r.idle.PushBack(b)
		for r.idle.Len() > idleViewsMax || r.idle.Len() > 0 && b.idle != nil && b.relation.foreign() {
			oldest := r.idle.Front()
			if b.relation.foreign() {
				oldest = b.idle // its files may be listed anew and differ
			}
			old := r.idle.Remove(oldest).(*boundRelation)
			old.idle = nil
			delete(r.byKey, old.key)
			drop = append(drop, old)
		}
	}
	r.mu.Unlock()
	if held != nil {
		held()
	}
	for _, d := range drop {
		r.drop(d)
	}
}

// hold brings b's remote files here until the last pin of b is released. The
// caller has one.
func (r *relations) hold(ctx context.Context, b *boundRelation) error {
	if len(b.remote) == 0 {
		return nil
	}
	r.mu.Lock()
	done := b.held != nil
	r.mu.Unlock()
	if done {
		return nil
	}
	release, err := r.e.options.Files.Hold(ctx, b.remote)
	if err != nil {
		var known *Error
		switch {
		case errors.As(err, &known):
			return err
		case ctx.Err() != nil:
			return contextError(ctx.Err())
		}
		r.e.log.Error("a table's files could not be fetched", "files", len(b.remote), "error", err)
		return &Error{Kind: IO, Message: "files of a table could not be fetched from the lake"}
	}
	r.mu.Lock()
	if b.held == nil {
		b.held, release = release, nil
	}
	r.mu.Unlock()
	if release != nil {
		release() // another query was faster
	}
	return nil
}

// drop removes the view of a relation that is no longer in the registry.
func (r *relations) drop(b *boundRelation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.made {
		return
	}
	b.made = false
	c, err := r.e.acquireAbove(idleConnsMax)
	if errors.Is(err, ErrClosed) {
		return // the view went with the instance
	}
	if err == nil {
		err = c.exec(context.Background(), "DROP VIEW IF EXISTS "+pinSchema+"."+b.view)
		r.e.giveBack(c)
	}
	if err != nil {
		r.e.log.Warn("view of a released relation was not dropped", "view", b.view, "error", err)
	}
}

func (r *relations) has(path string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pinned[path] > 0
}

// make brings b's files here and creates its view unless it exists. c is any
// idle connection; the caller has a pin of b.
func (r *relations) make(ctx context.Context, b *boundRelation, c *conn) error {
	if err := r.hold(ctx, b); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.made {
		return nil
	}
	sql, err := b.relation.viewSQL()
	if err != nil {
		return err
	}
	if err := c.exec(ctx, "CREATE VIEW "+pinSchema+"."+b.view+" AS "+sql); err != nil {
		var x *Error
		if errors.As(err, &x) {
			x.Position = 0 // it is in a text that nobody wrote
		}
		return err
	}
	b.made = true
	return nil
}
