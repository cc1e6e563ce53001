package delivery

import (
	"fmt"
	"slices"

	"github.com/tapehouse/tapehouse/internal/columnar"
)

// codeKeys is the code of updates and deletes that cannot find their rows.
const codeKeys = "Iceberg.InvalidUniqueKeys"

// layoutOf is what the documents are decoded by.
func (t *routed) layoutOf() *columnar.Layout {
	if t.layout != nil {
		return t.layout
	}
	return t.lane.layouts.present()
}

// keep leaves the documents for which fn is true.
func (t *routed) keep(fn func(i int) bool) {
	out := routed{name: t.name, lane: t.lane, layout: t.layout, written: t.written}
	for i := range t.docs {
		if !fn(i) {
			continue
		}
		out.docs, out.places, out.ops = append(out.docs, t.docs[i]), append(out.places, t.places[i]), append(out.ops, t.ops[i])
		if t.changes != nil {
			out.changes = append(out.changes, t.changes[i])
		}
	}
	*t = out
}

// changes parts a table's documents into those that are rows and those that only
// name rows, and decides which of them cannot be carried out: they are entered as
// failed and counted.
func (g *stage) changes(st *staged, t *routed) (parts []*routed, failed int) {
	if t.lane.keys == nil {
		if !slices.ContainsFunc(t.ops, operation.removes) {
			return []*routed{t}, 0
		}
		t.keep(func(i int) bool {
			if t.ops[i].removes() {
				failed++
				st.Entries = append(st.Entries, stagedEntry{Place: int(t.places[i]), Kind: stagedFailed, Code: codeKeys,
					Message: fmt.Sprintf("The table %s has no UniqueKeys in the delivery stream: its rows cannot be updated or deleted.", t.lane.table)})
			}
			return !t.ops[i].removes()
		})
		if len(t.docs) > 0 {
			parts = append(parts, t)
		}
		return parts, failed
	}
	x := t.lane.layouts.keysOf(t.lane.layouts.present())
	rows := &routed{name: t.name, lane: t.lane, layout: x.rows, written: written{}}
	deletes := &routed{name: t.name, lane: t.lane, layout: x.deletes, written: rows.written}
	for i, op := range t.ops {
		p := rows
		if op == opDelete {
			p = deletes
		}
		p.docs, p.places, p.ops = append(p.docs, t.docs[i]), append(p.places, t.places[i]), append(p.ops, op)
		p.changes = append(p.changes, change{order: int32(i), op: op})
	}
	for _, p := range []*routed{rows, deletes} {
		if len(p.docs) > 0 {
			parts = append(parts, p)
		}
	}
	return parts, failed
}

// keyed takes the updates and deletes that lack a part of their key out of a
// batch of a part's documents, and enters them as failed.
func (g *stage) keyed(st *staged, t *routed, d *columnar.Decoder, b *columnar.Batch, arrivedAt int64) *columnar.Batch {
	if !slices.ContainsFunc(t.changes, func(c change) bool { return c.op.removes() }) {
		return b
	}
	keys := t.lane.layouts.keysOf(b.Layout()).keys
	bad := map[int]bool{}
	var buf []byte
	for row := range b.Rows {
		doc := int(b.Doc[row])
		if !t.changes[doc].op.removes() {
			continue
		}
		var ok bool
		if buf, ok = keys.Append(buf[:0], b, row); !ok {
			bad[doc] = true
			st.Entries = append(st.Entries, stagedEntry{Place: int(t.places[doc]), Kind: stagedFailed, Code: codeKeys,
				Message: fmt.Sprintf("The record has no value for every one of the unique keys %v of %s, so that it is unknown which rows it is for.", t.lane.keys, t.lane.table)})
		}
	}
	if len(bad) == 0 {
		return b
	}
	t.keep(func(i int) bool { return !bad[i] })
	t.keyless = len(bad)
	b.Release()
	return d.DecodeDocs(t.docs, arrivedAt)
}
