package columnar

import (
	"slices"

	"github.com/tapehouse/tapehouse/internal/record"
)

// vector holds one column of a batch. A null row holds 0 in ints and codes.
type vector struct {
	ints    []int64 // booleans, numbers, unscaled decimals, dates, timestamps, bits of doubles
	codes   []uint32
	dict    dictionary
	mixed   []uint64 // each dictionary entry's share of a row's content hash
	nulls   []byte   // 1 where a row is null; allocated for columns that may be
	hasNull bool
}

type span struct{ from, to int32 }

// Batch is a set of typed rows decoded from the documents of one put or one log
// frame. One goroutine uses it at a time. It is valid until Release; Rejects
// and raw payloads alias the documents that were decoded, so these must stay
// unchanged until then.
type Batch struct {
	Rows    int
	Doc     []int32  // the index of each row's document
	Hash    []uint64 // the content hash of each row; empty if the layout has no sequence
	Rejects []Reject
	// Exact is true if every document's members all have their place in the row,
	// so that the rows stand for the documents.
	Exact bool

	layout    *Layout
	cols      []vector
	arrivedAt int64 // µs UTC
	key       record.Key
	first     record.Offset

	arena   []byte
	spans   []span // the documents in arena; nil after a columnar payload
	own     []byte // buffer for an arena of our own
	docs    int    // documents, dropped ones included
	dropped []bool // by document; nil: none
	place   []int32
	texts   map[string]string // interned sources and sessions
}

// maxTexts bounds the interned strings, of at most internBytesMax; beyond it they
// are forgotten.
const (
	maxTexts       = 4096
	internBytesMax = 256
)

func newBatch(l *Layout) *Batch {
	b := &Batch{layout: l, cols: make([]vector, len(l.columns))}
	for i := range b.cols {
		if l.columns[i].isString && l.columns[i].stored {
			b.cols[i].dict.init(256)
		}
	}
	return b
}

// batch returns an empty batch with room for n documents.
func (l *Layout) batch(n int, arrivedAt int64) *Batch {
	if n > MaxDocs {
		panic("columnar: more documents than MaxDocs in a batch") // No replay could read its payload.
	}
	var b *Batch
	select {
	case b = <-l.batches:
	default:
		b = newBatch(l)
	}
	b.prepare(n, arrivedAt)
	return b
}

// prepare makes an empty batch with room for n documents.
func (b *Batch) prepare(n int, arrivedAt int64) {
	b.Rows, b.Exact, b.arrivedAt, b.docs = 0, true, arrivedAt, n
	b.key, b.first = record.Key{}, 0
	b.Rejects, b.spans, b.arena = b.Rejects[:0], b.spans[:0], nil
	b.dropped, b.place = b.dropped[:0], b.place[:0]
	b.Doc = sized(b.Doc, n)
	for i := range b.cols {
		c, v := &b.layout.columns[i], &b.cols[i]
		v.hasNull = false
		if !c.stored {
			continue
		}
		if c.isString {
			v.codes = sized(v.codes, n)
			v.dict.reset()
		} else {
			v.ints = sized(v.ints, n)
		}
		if !c.required {
			v.nulls = sized(v.nulls, n)
			clear(v.nulls)
		}
	}
}

// sized returns s with length n, its contents undefined.
func sized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, max(n, 2*cap(s), 64))
	}
	return s[:n]
}

// seal ends decoding: it cuts the row slices and computes the content hashes,
// if there is a sequence that they are for.
func (b *Batch) seal() {
	b.Doc = b.Doc[:b.Rows]
	if b.layout.sequence < 0 {
		b.Hash = b.Hash[:0]
		return
	}
	b.hashRows()
}

// Release gives the batch's memory back to its layout. The batch and everything
// reached through it must not be used afterwards.
func (b *Batch) Release() {
	b.arena = nil
	clear(b.Rejects[:cap(b.Rejects)])
	select {
	case b.layout.batches <- b:
	default:
	}
}

// HeldBytes is the size of the documents that the batch keeps from being freed
// until Release.
func (b *Batch) HeldBytes() int64 { return int64(len(b.arena)) }

// Docs returns how many documents the batch's log frame holds: rows and
// rejects, without those that were dropped.
func (b *Batch) Docs() int { return b.Rows + len(b.Rejects) }

// hashRows computes Hash: for each row the sum over its columns that come from
// JSON of a 64-bit mix of field id and value; nulls add nothing. So it depends
// neither on the members' order and spelling nor on columns that were added to
// the schema later. The ledger stores it: the function is a format.
func (b *Batch) hashRows() {
	b.Hash = sized(b.Hash, b.Rows)
	h := b.Hash
	clear(h)
	for _, i := range b.layout.json {
		c, v := &b.layout.columns[i], &b.cols[i]
		switch {
		case c.isString:
			b.hashStrings(c, v)
		case v.hasNull:
			for r, x := range v.ints[:len(h)] {
				if v.nulls[r] == 0 {
					h[r] += mix(uint64(x)^c.seed, c.seed2)
				}
			}
		default:
			s1, s2 := c.seed, c.seed2
			for r, x := range v.ints[:len(h)] {
				h[r] += mix(uint64(x)^s1, s2)
			}
		}
	}
	for r, x := range h {
		h[r] = mix(x^hashMultiplier, 0xD6E8FEB86659FD93)
	}
}

func (b *Batch) hashStrings(c *column, v *vector) {
	h := b.Hash
	n := v.dict.len()
	v.mixed = sized(v.mixed, n)
	e := v.mixed
	var from uint32
	for i, x := range v.dict.list {
		e[i] = mix(x.hash(x.end-from)^c.seed, c.seed2)
		from = x.end
	}
	codes := v.codes[:len(h)]
	switch {
	case v.hasNull:
		for r, code := range codes {
			if v.nulls[r] == 0 {
				h[r] += e[code]
			}
		}
	case n == 1:
		for r := range h {
			h[r] += e[0]
		}
	default:
		for r, code := range codes {
			h[r] += e[code]
		}
	}
}

// intern returns s as a string that outlives the batch, without allocating for
// strings seen before.
func (b *Batch) intern(s []byte) string {
	if len(s) > internBytesMax {
		return string(s)
	}
	if t, ok := b.texts[string(s)]; ok {
		return t
	}
	if b.texts == nil || len(b.texts) >= maxTexts {
		b.texts = map[string]string{}
	}
	t := string(s)
	b.texts[t] = t
	return t
}

// Run is a range of rows that carry consecutive sequence numbers.
type Run struct {
	Row, N          int // first row and number of rows
	Source, Session string
	Epoch, Sequence int64 // Sequence is the first row's
	TradeDate       int32 // of the partition column, else of the first trade-date column, else 0
}

// Runs yields, in row order, the maximal ranges of rows with equal source,
// session, epoch and trade date whose sequence numbers rise by one (maximal but
// for columns with thousands of distinct sources, where a run may be split). It yields
// nothing if the layout has no sequence columns. It can be ranged over.
func (b *Batch) Runs(yield func(Run) bool) {
	l := b.layout
	if l.sequence < 0 || b.Rows == 0 {
		return
	}
	codes := func(i int) []uint32 {
		if i < 0 {
			return nil
		}
		return b.cols[i].codes[:b.Rows]
	}
	ints := func(i int) []int64 {
		if i < 0 {
			return nil
		}
		return b.cols[i].ints[:b.Rows]
	}
	source, session := codes(l.source), codes(l.session)
	epoch, date, sequence := ints(l.epoch), ints(l.runDate), ints(l.sequence)
	text := func(i, row int) string {
		if i < 0 {
			return ""
		}
		return b.intern(b.cols[i].dict.entry(b.cols[i].codes[row]))
	}
	for from := 0; from < b.Rows; {
		to := from + 1
		for ; to < b.Rows; to++ {
			if sequence[to] != sequence[to-1]+1 || source != nil && source[to] != source[from] ||
				session != nil && session[to] != session[from] ||
				epoch != nil && epoch[to] != epoch[from] || date != nil && date[to] != date[from] {
				break
			}
		}
		r := Run{Row: from, N: to - from, Source: text(l.source, from), Session: text(l.session, from), Sequence: sequence[from]}
		if epoch != nil {
			r.Epoch = epoch[from]
		}
		if date != nil {
			r.TradeDate = int32(date[from])
		}
		if !yield(r) {
			return
		}
		from = to
	}
}

// Drop removes rows and their documents, so that they are neither logged nor
// appended to a table. rows are indexes of rows in ascending order; Doc keeps
// naming the documents as they were numbered. REQUIRES: SetOrigin not called.
func (b *Batch) Drop(rows []int32) {
	if len(rows) == 0 {
		return
	}
	if len(b.dropped) == 0 {
		b.dropped = sized(b.dropped, b.docs)
		clear(b.dropped)
	}
	for _, r := range rows {
		b.dropped[b.Doc[r]] = true
	}
	b.Doc = without(b.Doc, rows)
	if len(b.Hash) > 0 {
		b.Hash = without(b.Hash, rows)
	}
	for i := range b.cols {
		c, v := &b.layout.columns[i], &b.cols[i]
		if !c.stored {
			continue
		}
		if c.isString {
			v.codes = without(v.codes[:b.Rows], rows)
		} else {
			v.ints = without(v.ints[:b.Rows], rows)
		}
		if v.hasNull {
			v.nulls = without(v.nulls[:b.Rows], rows)
			v.hasNull = slices.Contains(v.nulls, 1)
		}
	}
	b.Rows -= len(rows)
}

// without removes the elements at the ascending indexes.
func without[T any](s []T, at []int32) []T {
	to := int(at[0])
	for k, i := range at {
		next := len(s)
		if k+1 < len(at) {
			next = int(at[k+1])
		}
		to += copy(s[to:], s[i+1:next])
	}
	return s[:to]
}

// SetOrigin says where the log put the batch: first is the offset of the first
// document that was not dropped. A row's offset is first plus its document's
// place among those.
func (b *Batch) SetOrigin(k record.Key, first record.Offset) {
	b.key, b.first = k, first
	b.place = b.place[:0]
	if b.Rows == b.Docs() {
		return // Without rejects, row and place are the same.
	}
	b.place = sized(b.place, b.Rows)
	reject := 0
	for row, doc := range b.Doc {
		for reject < len(b.Rejects) && b.Rejects[reject].Doc < doc {
			reject++
		}
		b.place[row] = int32(row + reject)
	}
}

// SetPlaces is SetOrigin for a batch whose documents are some of a frame's
// records: document i stands at first + places[i]. The rejects' Doc then names
// that place too. places ascend; a place may repeat.
func (b *Batch) SetPlaces(k record.Key, first record.Offset, places []int32) {
	b.key, b.first = k, first
	b.place = sized(b.place, b.Rows)
	for row, doc := range b.Doc {
		b.place[row] = places[doc]
	}
	for i := range b.Rejects {
		b.Rejects[i].Doc = places[b.Rejects[i].Doc]
	}
}

// Offset returns the log offset of a row. REQUIRES: SetOrigin.
func (b *Batch) Offset(row int) record.Offset {
	if len(b.place) > 0 {
		row = int(b.place[row])
	}
	return b.first + record.Offset(row)
}

// Document returns the JSON document of a row. It is there only in batches that
// were decoded from documents or from a raw payload, else it is nil; it aliases
// what was decoded.
func (b *Batch) Document(row int) []byte {
	if len(b.spans) == 0 {
		return nil
	}
	s := b.spans[b.Doc[row]]
	return b.arena[s.from:s.to]
}
