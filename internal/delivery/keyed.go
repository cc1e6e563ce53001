package delivery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/record"
)

// A table with keys takes changes instead of rows; docs/protocols/keyed.md has
// the invariants. Its entries are made from the log alone: what an entry holds
// is the fold of the changes in its stretch.

// stretchChangesMax bounds the changes that are folded in memory before they
// become an entry: about 100 bytes each, and a second reading of the log.
const stretchChangesMax = 64 << 10

// changeEntriesMax is the number of entries at which a table with keys is flushed
// whatever its buffer hints: changes of few keys fold to small files, however many
// they are, but a query looks into the files of every entry.
const changeEntriesMax = 64

// changesFlushSpacing is the least time between two flushes of a table with keys
// that nobody waits for: each can leave a file of deletes for each data file, which
// maintenance, every few minutes, takes away again.
const changesFlushSpacing = 10 * time.Second

// keyLayouts are the layouts of a table with keys, beside those of its rows.
type keyLayouts struct {
	names []string
	by    map[*columnar.Layout]*keyLayout // by the rows' layout, and by its own
}

// keyLayout is what goes with one layout of the rows.
type keyLayout struct {
	rows    *columnar.Layout
	deletes *columnar.Layout // of records that name rows: no column is required
	file    *columnar.Layout // of files of removed keys
	keys    *columnar.Keys   // of batches of rows and of deletes
}

func newKeyLayouts(names []string) *keyLayouts {
	return &keyLayouts{names: names, by: map[*columnar.Layout]*keyLayout{}}
}

// pair compiles what goes with a layout of rows. REQUIRES: y.mu.
func (y *layouts) pair(rows *columnar.Layout, o columnar.Options) error {
	k := y.keyed
	if k == nil || k.by[rows] != nil {
		return nil
	}
	x := &keyLayout{rows: rows}
	var err error
	if x.keys, err = rows.Keys(k.names); err != nil {
		return err
	}
	if x.deletes, err = columnar.Compile(columnar.KeySchema(rows.Schema()), o); err != nil {
		return err
	}
	if x.deletes.Fingerprint() == rows.Fingerprint() { // nothing is required anyway
		x.deletes = rows
	} else if known := y.all[x.deletes.Fingerprint()]; known != nil {
		x.deletes = known
	}
	file := record.Schema{ID: rows.Schema().ID}
	for _, n := range k.names {
		f := rows.Schema().Fields[rows.Schema().Index(n)]
		file.Fields = append(file.Fields, record.Field{ID: f.ID, Name: f.Name, Type: f.Type, Required: true})
	}
	if x.file, err = columnar.Compile(file, columnar.Options{}); err != nil {
		return err
	}
	y.all[x.deletes.Fingerprint()] = x.deletes
	k.by[rows], k.by[x.deletes] = x, x
	return nil
}

// keysOf is what goes with a layout of rows or of deletes.
func (y *layouts) keysOf(l *columnar.Layout) *keyLayout {
	y.mu.RLock()
	defer y.mu.RUnlock()
	return y.keyed.by[l]
}

// fate is what a change comes to at the end of its stretch.
type fate uint8

const (
	fateRow     fate = 1 << iota // its row stands
	fateRemoval                  // it is the one by which its key's removal is written
)

// stretch folds changes. Those of the frames that it was given are numbered in
// the order in which the frames hold them, so that a second reading finds their
// fates.
type stretch struct {
	fates   []fate
	rows    map[string][]int32 // key → the changes whose rows stand
	removed map[string]int32   // key → the change with fateRemoval
	buf     []byte
	list    []keyedChange
	second  *decoders // of the second reading
}

type keyedChange struct {
	change
	number int32
	key    string
	ok     bool // it has no null
}

// add folds a frame's changes.
func (x *stretch) add(l *tableLane, d *decoders, f frame) error {
	if x.rows == nil {
		x.rows, x.removed = map[string][]int32{}, map[string]int32{}
	}
	x.list = x.list[:0]
	err := l.eachSection(d, f, func(b *columnar.Batch, c *stagedSection) error {
		x.gather(l.layouts.keysOf(b.Layout()).keys, b, c)
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(x.list, func(a, b keyedChange) int { return cmp.Compare(a.order, b.order) })
	for i := range x.list {
		x.apply(&x.list[i])
	}
	return nil
}

// gather numbers the changes of a section.
func (x *stretch) gather(keys *columnar.Keys, b *columnar.Batch, c *stagedSection) {
	if c.Conflict {
		return
	}
	for row := range b.Rows {
		k := keyedChange{number: int32(len(x.fates)), change: c.changeOf(int(b.Doc[row]))}
		x.buf, k.ok = keys.Append(x.buf[:0], b, row)
		k.key = string(x.buf)
		x.fates = append(x.fates, 0)
		x.list = append(x.list, k)
	}
}

// changeOf is what a document of the section does.
func (c *stagedSection) changeOf(doc int) change {
	if c.Changes == nil {
		return change{order: int32(doc)}
	}
	return c.Changes[doc]
}

func (x *stretch) apply(k *keyedChange) {
	if k.op.removes() {
		if !k.ok {
			panic("delivery: a change without its key was logged")
		}
		for _, n := range x.rows[k.key] {
			x.fates[n] &^= fateRow
		}
		delete(x.rows, k.key)
		if n, ok := x.removed[k.key]; ok {
			x.fates[n] &^= fateRemoval
		}
		x.removed[k.key] = k.number
		x.fates[k.number] |= fateRemoval
	}
	if k.op != opInsert && k.op != opUpdate {
		return
	}
	x.fates[k.number] |= fateRow
	if k.ok {
		x.rows[k.key] = append(x.rows[k.key], k.number)
	}
}

// reset forgets the changes and keeps the memory.
func (x *stretch) reset() {
	x.fates = x.fates[:0]
	clear(x.rows)
	clear(x.removed)
}

// eachSection decodes what a frame has for the lane's table, as it was logged:
// the batch has no places yet.
func (l *tableLane) eachSection(d *decoders, f frame, fn func(b *columnar.Batch, c *stagedSection) error) error {
	st, err := readStaged(f.Payload, int(f.Count))
	if err != nil {
		return fmt.Errorf("frame at offset %d: %w", f.First, err)
	}
	for i := range st.Sections {
		c := &st.Sections[i]
		if c.Table != l.table {
			continue
		}
		b, err := l.decodeSection(d, f, c)
		if err == nil {
			err = fn(b, c)
			b.Release()
		}
		if err != nil {
			return fmt.Errorf("frame at offset %d: %w", f.First, err)
		}
	}
	return nil
}

// takeChanges takes a frame of the log, of a table with keys.
func (l *tableLane) takeChanges(d *decoders, f frame) error {
	e := f.effect(l.key)
	var of *columnar.Layout
	if err := l.eachSection(d, f, func(b *columnar.Batch, c *stagedSection) error {
		of = l.layouts.keysOf(b.Layout()).rows
		b.SetPlaces(l.s.key, f.First, c.Places)
		l.addEffect(&e, b, c.Conflict)
		if len(b.Rejects) > 0 || c.Conflict {
			l.faults.add(faultsOf(b, c.Conflict))
			l.m.metrics.rejected(l.s.name, len(b.Rejects), c.Conflict, b.Docs())
		}
		return nil
	}); err != nil {
		return err
	}
	if of != nil && of != l.builder.Layout() { // the schema was changed: an entry has one
		if err := l.encode(nil); err != nil {
			return err
		}
		l.builder = of.NewBuilder()
	}
	if of != nil {
		if err := l.stretch.add(l, d, f); err != nil {
			return err
		}
	}
	return l.taking(e)
}

// full reports whether what was taken should become an entry now.
func (l *tableLane) full() bool {
	switch {
	case l.faults.bytes >= l.m.o.ErrorObjectBytes:
		return true
	case l.keys != nil:
		return len(l.stretch.fates) >= stretchChangesMax
	}
	return l.builder.Rows() >= columnar.MaxRowGroupRows
}

// foldEntry writes the entry of the stretch [first, next), whose changes x has
// folded, reading the log again. b is an empty builder of its rows' layout.
func (l *tableLane) foldEntry(d *decoders, b *columnar.Builder, x *stretch, first, next record.Offset, tier int) (*entry, error) {
	removals := l.layouts.keysOf(b.Layout()).file.NewBuilder()
	number := 0
	var gone, removed []int32
	err := l.m.read(context.Background(), l.key, first, func(f frame) error {
		if f.First >= next {
			return errStop
		}
		return l.eachSection(d, f, func(batch *columnar.Batch, c *stagedSection) error {
			if c.Conflict {
				return nil
			}
			gone, removed = gone[:0], removed[:0]
			for row := range int32(batch.Rows) {
				if x.fates[number]&fateRow == 0 {
					gone = append(gone, row)
				}
				if x.fates[number]&fateRemoval != 0 {
					removed = append(removed, row)
				}
				number++
			}
			if len(removed) > 0 {
				keys := batch.Project(l.layouts.keysOf(batch.Layout()).file, removed)
				removals.Append(keys)
				keys.Release()
			}
			if len(gone) < batch.Rows {
				batch.Drop(gone)
				batch.SetPlaces(l.s.key, f.First, c.Places)
				b.Append(batch)
			}
			return nil
		})
	})
	if err != nil && !errors.Is(err, errStop) {
		return nil, fmt.Errorf("read changes from the log: %w", err)
	}
	if number != len(x.fates) {
		panic(fmt.Sprintf("delivery: %d changes between %d and %d, %d were folded", number, first, next, len(x.fates)))
	}
	e, err := l.writeEntry(b, first, next, tier)
	if err != nil {
		return nil, err
	}
	if removals.Rows() > 0 {
		if err := l.writeRemovals(e, removals, tier); err != nil {
			l.tail.remove([]*entry{e})
			return nil, err
		}
	}
	e.rows = int64(len(x.fates))
	return e, nil
}

func (l *tableLane) writeRemovals(e *entry, b *columnar.Builder, tier int) error {
	parts, err := b.Flush()
	if err != nil {
		return fmt.Errorf("encode removals: %w", err)
	}
	r := TailFile{Path: l.tailName(e, fmt.Sprint("r", tier), 0), Meta: parts[0].Meta}
	if err := l.m.writeTail(r.Path, parts[0].Data); err != nil {
		_ = l.m.o.FS.Remove(r.Path)
		return fmt.Errorf("%w: %w", errTailWrite, err)
	}
	e.removals = &r
	e.sizeBytes += int64(len(parts[0].Data))
	return nil
}

// encodeChanges makes an entry of the changes that were taken.
func (l *tableLane) encodeChanges(to record.Offset) (*entry, error) {
	if l.stretch.second == nil {
		l.stretch.second = l.newDecoders()
	}
	e, err := l.foldEntry(l.stretch.second, l.builder, &l.stretch, l.building, to, 0)
	if err == nil {
		l.stretch.reset()
	}
	return e, err
}

// foldAgain makes one entry of neighbours.
func (l *tableLane) foldAgain(b *columnar.Builder, old []*entry, d *decoders) (*entry, error) {
	first, next := old[0].first, old[len(old)-1].next
	var x stretch
	err := l.m.read(context.Background(), l.key, first, func(f frame) error {
		if f.First >= next {
			return errStop
		}
		return x.add(l, d, f)
	})
	if err != nil && !errors.Is(err, errStop) {
		return nil, fmt.Errorf("merge tail entries: %w", err)
	}
	return l.foldEntry(d, b, &x, first, next, old[0].tier+1)
}

// traceChange tells what a record that is no reject does to a table with keys.
func (l *tableLane) traceChange(f frame, at record.Offset, d *TraceDestination) error {
	return l.eachSection(l.newDecoders(), f, func(b *columnar.Batch, c *stagedSection) error {
		for row := range b.Rows {
			if c.Conflict || f.First+record.Offset(c.Places[b.Doc[row]]) != at {
				continue
			}
			switch c.changeOf(int(b.Doc[row])).op {
			case opDelete:
				d.Outcome = TraceDelete
			case opNothing:
				d.Outcome = TraceLate
			default:
				d.Outcome = TraceRow
				return nil
			}
		}
		return nil
	})
}

// ordered are the files of entries, each with its place in the order.
func ordered(entries []*entry) (rows, removals []TailFile) {
	for i, e := range entries {
		for _, f := range e.files {
			f.Order = i + 1
			rows = append(rows, f)
		}
		if e.removals != nil {
			r := *e.removals
			r.Order = i + 1
			removals = append(removals, r)
		}
	}
	return rows, removals
}

// addChanges adds entries to what a query sees.
func (l *tableLane) addChanges(out *engine.Tail, entries []*entry) {
	rows, removals := ordered(entries)
	for i := range rows {
		f := &rows[i]
		out.Files = append(out.Files, engine.TailFile{Path: f.Path, SchemaID: f.Meta.SchemaID, Rows: f.Meta.Rows, Ranges: &f.Meta, Order: f.Order})
	}
	for _, r := range removals {
		out.Removals = append(out.Removals, engine.Removal{Path: r.Path, Order: r.Order, SchemaID: r.Meta.SchemaID, Rows: r.Meta.Rows})
	}
	out.Keys = l.keys
}

// alone refuses a stream that would share a table with keys: two logs have no
// common order. REQUIRES: m.mu.
func (m *Manager) alone(cfg Config) error {
	cfg.settle()
	for _, s := range m.streams {
		for _, t := range s.Config().Tables {
			if err := shared(t, cfg, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// shared is the refusal of a table that a stream feeds already, if one of the
// two gives it keys.
func shared(t catalog.Name, cfg Config, s *Stream) error {
	if s.name == cfg.Name || !slices.Contains(cfg.Tables, t) {
		return nil
	}
	switch n := t.String(); {
	case len(s.Config().Keys[n]) > 0:
		return fmt.Errorf("%w stream %s: the delivery stream %s feeds %s with UniqueKeys, so no other can: put the records there", record.ErrInvalid, cfg.Name, s.name, n)
	case len(cfg.Keys[n]) > 0:
		return fmt.Errorf("%w stream %s: UniqueKeys of %s: the delivery stream %s feeds the table as well, and records of two streams have no order: delete it, or use another table", record.ErrInvalid, cfg.Name, n, s.name)
	}
	return nil
}
