package delivery

import (
	"context"
	"fmt"
	"sync"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/record"
)

// TailFile is one partition's rows of a tail entry: a local Parquet file that
// never changes.
type TailFile struct {
	Path      string
	Partition catalog.Partition
	Meta      columnar.FileMeta
	// Order is the place of the file's entry among those that it was taken with,
	// from 1, where the table has keys; else 0.
	Order int
}

// entry is an immutable stretch [first, next) of the log as files. Its files
// are deleted when it is dropped and nobody has it pinned.
type entry struct {
	first, next record.Offset
	files       []TailFile
	removals    *TailFile // the keys whose earlier rows are gone; nil: none
	rows        int64     // changes, of a table with keys
	sizeBytes   int64
	tier        int // how many merges made it
	layout      *columnar.Layout
	joined      bool // its files hold the row groups of entries that were joined
	faults      faults
	pins        int
	dropped     bool
}

// work is how many documents of the log must be read for the entry to be made
// again.
func (e *entry) work() int64 { return e.rows + e.faults.records }

// tail is the list of a stream's entries: contiguous, from the table's through
// (or a little below it, until the drop) up to what is visible.
type tail struct {
	fs fsys.FS

	mu      sync.Mutex
	entries []*entry
	end     record.Offset // one past the last entry
}

// push publishes a new entry. REQUIRES: e.first == end.
func (t *tail) push(e *entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.first != t.end {
		panic(fmt.Sprintf("delivery: tail entry [%d, %d) does not follow %d", e.first, e.next, t.end))
	}
	t.entries = append(t.entries, e)
	t.end = e.next
}

// pin returns the entries from offset from on, pinned, and the visible offset.
// ErrTailMoved if they no longer reach down to from.
func (t *tail) pin(from record.Offset) ([]*entry, record.Offset, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := 0
	for i < len(t.entries) && t.entries[i].first < from {
		i++
	}
	switch {
	case i < len(t.entries) && t.entries[i].first != from,
		i == len(t.entries) && t.end != from:
		return nil, 0, ErrTailMoved
	}
	got := append([]*entry(nil), t.entries[i:]...)
	for _, e := range got {
		e.pins++
	}
	return got, t.end, nil
}

// release unpins entries and deletes the files of those that are dropped.
func (t *tail) release(entries []*entry) {
	t.mu.Lock()
	var gone []*entry
	for _, e := range entries {
		e.pins--
		if e.pins == 0 && e.dropped {
			gone = append(gone, e)
		}
	}
	t.mu.Unlock()
	t.remove(gone)
}

// span returns the entries of [from, to), unpinned: the pump alone drops and
// merges, so it may read them without a pin.
func (t *tail) span(from, to record.Offset) []*entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []*entry
	for _, e := range t.entries {
		if e.first >= from && e.next <= to {
			out = append(out, e)
		}
	}
	return out
}

// faults are those of [from, to).
func (t *tail) faults(from, to record.Offset) (f faults) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.entries {
		if e.first >= from && e.next <= to {
			f.add(e.faults)
		}
	}
	return f
}

// cut is the end of the first entries of [from, to) whose faults stay within
// bytesMax; at least one entry's.
func (t *tail) cut(from, to record.Offset, bytesMax int64) record.Offset {
	at, size := from, int64(0)
	for _, e := range t.span(from, to) {
		if size += e.faults.bytes; size > bytesMax && at > from {
			return at
		}
		at = e.next
	}
	return to
}

// drop forgets the entries below through: the table contains them.
func (t *tail) drop(through record.Offset) {
	t.mu.Lock()
	var gone []*entry
	i := 0
	for ; i < len(t.entries) && t.entries[i].next <= through; i++ {
		e := t.entries[i]
		e.dropped = true
		if e.pins == 0 {
			gone = append(gone, e)
		}
	}
	t.entries = append([]*entry(nil), t.entries[i:]...)
	t.mu.Unlock()
	t.remove(gone)
}

// replace puts one merged entry in the place of the neighbours it was made of.
func (t *tail) replace(old []*entry, merged *entry) {
	t.mu.Lock()
	var gone []*entry
	var kept []*entry
	for _, e := range t.entries {
		switch {
		case e == old[0]:
			kept = append(kept, merged)
			fallthrough
		case e.first > old[0].first && e.next <= old[len(old)-1].next:
			e.dropped = true
			if e.pins == 0 {
				gone = append(gone, e)
			}
		default:
			kept = append(kept, e)
		}
	}
	t.entries = kept
	t.mu.Unlock()
	t.remove(gone)
}

// reset empties the tail and sets where it begins.
func (t *tail) reset(at record.Offset) {
	t.drop(^record.Offset(0))
	t.mu.Lock()
	t.end = at
	t.mu.Unlock()
}

// remove deletes files; one that cannot be deleted is swept at the next start.
func (t *tail) remove(entries []*entry) {
	for _, e := range entries {
		for _, f := range e.files {
			_ = t.fs.Remove(f.Path)
		}
		if e.removals != nil {
			_ = t.fs.Remove(e.removals.Path)
		}
	}
}

// stats are the tail's totals and where it ends.
func (t *tail) stats() (entries int, rows, sizeBytes int64, end record.Offset) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.entries {
		rows += e.rows
		sizeBytes += e.sizeBytes
	}
	return len(t.entries), rows, sizeBytes, t.end
}

// Tail implements engine.TailSource: the rows of n's streams from through on.
func (m *Manager) Tail(ctx context.Context, n engine.Name, through record.Vector, fresh bool) (engine.Tail, error) {
	lanes, err := m.tailsOf(catalog.Name(n), through)
	if err != nil {
		return engine.Tail{}, fmt.Errorf("%w: %w", engine.ErrTailMoved, err)
	}
	out := engine.Tail{Through: record.Vector{}}
	type held struct {
		t       *tail
		entries []*entry
	}
	var pins []held
	out.Release = func() {
		for _, h := range pins {
			h.t.release(h.entries)
		}
	}
	for _, l := range lanes {
		if g := l.s.stage.Load(); fresh && g != nil && l.key == g.out && g.present().processor.Local() {
			if err := l.s.processed(ctx); err != nil {
				out.Release()
				return engine.Tail{}, m.invisible(l.s, err)
			}
		}
		if fresh {
			if _, err := l.ask(ctx, askVisible); err != nil {
				out.Release()
				return engine.Tail{}, m.invisible(l.s, err)
			}
		}
		entries, visible, err := l.tail.pin(through[l.key])
		if err != nil {
			out.Release()
			return engine.Tail{}, fmt.Errorf("%w: %w", engine.ErrTailMoved, err)
		}
		pins = append(pins, held{&l.tail, entries})
		out.Through[l.key] = visible
		if l.keys != nil {
			l.addChanges(&out, entries)
			continue
		}
		for _, e := range entries {
			for i := range e.files {
				f := &e.files[i]
				out.Files = append(out.Files, engine.TailFile{Path: f.Path, SchemaID: f.Meta.SchemaID, Rows: f.Meta.Rows, Ranges: &f.Meta})
			}
		}
	}
	return out, nil
}
