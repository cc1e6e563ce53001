package columnar

import (
	"math/bits"
	"unicode/utf8"
	"unsafe"
)

// Where the scanner finds something else than the program expects, it looks at
// what is there (deviate), and finds other members by their names.

// What deviate returns in place of an op.
const (
	scanned = -1 // the document has ended, and its row is whole
	givenUp = -2 // the general parser must look at it
)

// deviate looks at what stands at i where op k does not, as it is written: white
// space, another member, one that belongs to no column, a null, the end. It
// returns the op whose value stands at `at` (behind the quote of kinds that are
// always strings) with value set; or the op to be expected at `at`; or scanned
// or givenUp. first says that no member came before.
//
//go:noinline
func (d *Decoder) deviate(b *Batch, base unsafe.Pointer, i, k, start, end, row int, first bool) (next, at int, value bool) {
	if i = skipSpace(base, i, end); i >= end {
		return givenUp, i, false
	}
	c := load8(unsafe.Add(base, i))
	if c == '}' && !first {
		return d.finish(b, i, k, end, row)
	}
	if c != lead(first) {
		return givenUp, i, false
	}
	if i = skipSpace(base, i+1, end); i >= end {
		return givenUp, i, false
	}
	switch c := load8(unsafe.Add(base, i)); {
	case c == '}' && first:
		return d.finish(b, i, k, end, row)
	case c != '"':
		return givenUp, i, false
	}
	i++
	from := i
	n, ok := keyLength(base, i, end)
	if !ok {
		return givenUp, i, false
	}
	found := d.program.find(unsafe.Add(base, i), n)
	i = skipSpace(base, i+n+1, end)
	if i >= end || load8(unsafe.Add(base, i)) != ':' {
		return givenUp, i, false
	}
	if i = skipSpace(base, i+1, end); i >= end {
		return givenUp, i, false
	}
	if !d.loose && found != k {
		d.loosen(k)
	}
	if found < 0 {
		p := &d.parser
		p.doc, p.pos = unsafe.Slice((*byte)(unsafe.Add(base, start)), end-start), i-start
		// An escaped name may be a column's.
		if !plainString(p.doc[from-start:from-start+n]) || !p.skip(2) {
			return givenUp, i, false
		}
		at = start + p.pos
		if !utf8.Valid(unsafe.Slice((*byte)(unsafe.Add(base, from)), at-from)) {
			return givenUp, i, false
		}
		d.inexact = true
		return k, at, false
	}
	o := &d.program.ops[found]
	if d.loose && !d.mark(o.col) {
		return givenUp, i, false
	}
	if o.n > o.key { // always a string
		if load8(unsafe.Add(base, i)) == '"' {
			return found, i + 1, true
		}
		if !o.optional || load32(unsafe.Add(base, i)) != null {
			return givenUp, i, false
		}
		b.setNull(o.col, row)
		return found + 1, i + 4, false
	}
	return found, i, true
}

// finish ends a document whose closing brace stands at i.
func (d *Decoder) finish(b *Batch, i, k, end, row int) (next, at int, value bool) {
	if i != end-1 {
		return givenUp, i, false
	}
	p := &d.parser
	ops := d.program.ops
	if !d.loose {
		ops = ops[k:]
	} else if len(p.order) == len(ops) {
		return scanned, i, false
	}
	for m := range ops {
		o := &ops[m]
		switch {
		case d.loose && p.seen[o.col] == p.stamp:
		case o.optional:
			b.setNull(o.col, row)
		default:
			return givenUp, i, false
		}
	}
	return scanned, i, false
}

// loosen begins to note which members were there: the first k in order, so far.
func (d *Decoder) loosen(k int) {
	d.loose = true
	p := &d.parser
	p.nextStamp()
	p.order = p.order[:0]
	for m := range d.program.ops[:k] {
		d.mark(d.program.ops[m].col)
	}
}

// mark notes that a column's member is there; false if it was before.
func (d *Decoder) mark(col int) bool {
	p := &d.parser
	if p.seen[col] == p.stamp {
		return false
	}
	p.seen[col] = p.stamp
	p.order = append(p.order, col)
	return true
}

func skipSpace(base unsafe.Pointer, i, end int) int {
	for i < end && isSpace(load8(unsafe.Add(base, i))) {
		i++
	}
	return i
}

// keyLength returns how many bytes stand before the next quote.
func keyLength(base unsafe.Pointer, i, end int) (n int, ok bool) {
	for j := i; j < end; j += 8 {
		if z := firstOf(load64(unsafe.Add(base, j)), '"'); z != 0 {
			n = j - i + bits.TrailingZeros64(z)>>3
			return n, i+n < end
		}
	}
	return 0, false
}

// plainString reports whether s has neither backslash nor control character.
func plainString(s []byte) bool {
	for _, c := range s {
		if c == '\\' || c < 0x20 {
			return false
		}
	}
	return true
}

// name is a member's name in the table by which find looks it up: open
// addressing, at most a quarter full. Names of up to 16 bytes are told apart by
// their first and last 8.
type name struct {
	first, last uint64 // last is 0 for names of up to 8 bytes
	n           int32
	op          int32 // + 1; 0: free
}

func (n *name) hash() uint64 {
	h := (n.first ^ n.last*0xD6E8FEB86659FD93 ^ uint64(n.n)) * hashMultiplier
	return h ^ h>>32
}

// nameAt reads the name of n bytes at p, which has 8 readable bytes.
func nameAt(p unsafe.Pointer, n int) name {
	x := name{first: load64(p), n: int32(n)}
	if n > 8 {
		x.last = load64(unsafe.Add(p, n-8))
	} else {
		x.first &= ^uint64(0) >> (uint(64-8*n) & 63) & -uint64((n+7)>>3)
	}
	return x
}

// guess returns the op whose name begins like the one at p, by its first 8 bytes
// or those before its quote; -1 if there is none. It has no branch that would
// depend on the name.
func (p *program) guess(at unsafe.Pointer) int {
	w := load64(at)
	z := firstOf(w, '"')
	w &= (z&-z)>>7 - 1
	return int(p.guesses[w*hashMultiplier>>(p.guessShift&63)]) - 1
}

// find returns the op of the member whose name of n bytes stands at p, or -1.
func (p *program) find(at unsafe.Pointer, n int) int {
	x := nameAt(at, n)
	mask := uint64(len(p.names) - 1)
	for h := x.hash() & mask; ; h = (h + 1) & mask {
		m := &p.names[h]
		if m.op == 0 {
			return -1
		}
		if m.first == x.first && m.last == x.last && m.n == x.n {
			if o := &p.ops[m.op-1]; n <= 16 || unsafe.String((*byte)(at), n) == o.name() {
				return int(m.op - 1)
			}
		}
	}
}

// index makes the table of names.
func (p *program) index() {
	p.names = make([]name, max(16, 4<<bits.Len(uint(len(p.ops)))))
	mask := uint64(len(p.names) - 1)
	for k := range p.ops {
		s := append([]byte(p.ops[k].name()), make([]byte, 8)...)
		x := nameAt(unsafe.Pointer(&s[0]), len(s)-8)
		x.op = int32(k + 1)
		h := x.hash() & mask
		for p.names[h].op != 0 {
			h = (h + 1) & mask
		}
		p.names[h] = x
	}
	size := 8 * len(p.names)
	p.guesses, p.guessShift = make([]int16, size), uint8(64-bits.Len(uint(size-1)))
	for k := range p.ops {
		g := &p.guesses[word([]byte(p.ops[k].name()))*hashMultiplier>>p.guessShift]
		if *g == 0 { // Of names that begin alike, find tells the others.
			*g = int16(k + 1)
		}
	}
}

func (o *op) name() string { return o.literal[2 : o.key-2] }
