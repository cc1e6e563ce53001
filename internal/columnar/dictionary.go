package columnar

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/zeebo/xxh3"
)

// A dictionary numbers the distinct strings of a column, from 0, in the order
// in which they came. Strings of up to 8 bytes without control characters and
// backslashes are found by their bytes packed into a word; all others by hash
// and comparison. Since the scanner looks raw JSON bytes up in the packed table
// before it has validated them, that table must hold nothing whose JSON form
// differs from its value: hence no backslash, no control character; and it
// holds valid UTF-8 only.
//
// A dictionary of which nearly every string is new turns plain: it no longer
// looks for equal strings and numbers every string it is given. Then equal
// strings may have several codes, which readers of codes must not mind.
type dictionary struct {
	data  []byte // the entries' bytes, one after the other
	list  []entry
	short table
	long  table
	plain bool
	// plainAfter is the number of entries from which on the dictionary considers
	// to turn plain: below it, a wrong guess could cost more than lookups do.
	plainAfter int
}

// entry is one string of a dictionary.
type entry struct {
	key  uint64 // the packed bytes, or the hash of a long string
	end  uint32 // where it ends in data
	long bool   // in the table of long strings
}

type slot struct {
	key  uint64
	code uint32 // code + 1; 0: free
}

// table is open addressing with linear probing, at most a quarter full: the scanner
// looks at the first slot only before it calls a function (measured against half full: a tenth of the builder's time).
type table struct {
	slots []slot
	shift uint8
	used  []uint32 // taken slots, so that a reset touches only those
}

const hashMultiplier = 0x9E3779B97F4A7C15 // 2^64 / golden ratio

func (t *table) at(key uint64) uint64 { return (key * hashMultiplier) >> (t.shift & 63) }

func (t *table) init(size int) {
	t.slots = make([]slot, size)
	t.shift = uint8(64 - bits.Len(uint(size-1)))
	t.used = t.used[:0]
}

func (t *table) reset() {
	if len(t.used)*8 > len(t.slots) {
		clear(t.slots)
	} else {
		for _, i := range t.used {
			t.slots[i] = slot{}
		}
	}
	t.used = t.used[:0]
}

// put stores key → code in a free slot; the caller has looked before.
func (t *table) put(key uint64, code uint32) {
	if (len(t.used)+1)*4 > len(t.slots) {
		old := t.slots
		was := append([]uint32(nil), t.used...)
		t.init(max(64, 2*len(old)))
		for _, i := range was {
			t.place(old[i].key, old[i].code)
		}
	}
	t.place(key, code+1)
}

// putAt is put where the search for key has ended at the free slot h.
func (t *table) putAt(h, key uint64, code uint32) {
	if (len(t.used)+1)*4 > len(t.slots) {
		t.put(key, code)
		return
	}
	t.slots[h] = slot{key, code + 1}
	t.used = append(t.used, uint32(h))
}

func (t *table) place(key uint64, code uint32) {
	mask := uint64(len(t.slots) - 1)
	h := t.at(key)
	for t.slots[h].code != 0 {
		h = (h + 1) & mask
	}
	t.slots[h] = slot{key, code}
	t.used = append(t.used, uint32(h))
}

func (d *dictionary) init(plainAfter int) {
	d.plainAfter = plainAfter
	d.short.init(64)
	d.long.init(64)
}

func (d *dictionary) reset() {
	d.data, d.list, d.plain = d.data[:0], d.list[:0], false
	d.short.reset()
	d.long.reset()
}

func (d *dictionary) len() int { return len(d.list) }

// entry returns the bytes of an entry, valid until the next reset.
func (d *dictionary) entry(code uint32) []byte {
	var from uint32
	if code > 0 {
		from = d.list[code-1].end
	}
	to := d.list[code].end
	return d.data[from:to:to]
}

// add appends an entry without looking for an equal one.
func (d *dictionary) add(s []byte, key uint64, long bool) uint32 {
	if long || len(s) > 8 {
		d.data = append(d.data, s...)
	} else { // A word is cheaper than a copy of unknown length.
		n := len(d.data) + len(s)
		d.data = binary.LittleEndian.AppendUint64(d.data, key)[:n]
	}
	d.list = append(d.list, entry{key, uint32(len(d.data)), long})
	return uint32(len(d.list) - 1)
}

// turnPlain decides, at a miss in row `rows`, whether further lookups pay.
func (d *dictionary) turnPlain(rows int) {
	if n := len(d.list); n >= d.plainAfter && n*8 > rows*7 {
		d.plain = true
	}
}

// keyOf returns what a string is looked up by.
func keyOf(s []byte) (key uint64, long bool) {
	if len(s) <= 8 {
		if w := word(s); packable(w, len(s)) {
			return w, false
		}
	}
	return xxh3.Hash(s), true
}

// code returns the number of s, which is valid UTF-8, and numbers it if it is
// new. rows is how many strings came before.
func (d *dictionary) code(s []byte, rows int) uint32 {
	key, long := keyOf(s)
	return d.codeOf(s, key, long, rows)
}

// codeOf is code for a string whose key is known.
func (d *dictionary) codeOf(s []byte, key uint64, long bool, rows int) uint32 {
	if d.plain {
		return d.add(s, key, long)
	}
	t := &d.short
	if long {
		t = &d.long
	}
	mask := uint64(len(t.slots) - 1)
	h := t.at(key)
	for ; ; h = (h + 1) & mask {
		e := &t.slots[h]
		if e.code == 0 {
			break
		}
		if e.key == key && (!long || bytes.Equal(d.entry(e.code-1), s)) {
			return e.code - 1
		}
	}
	c := d.add(s, key, long)
	t.putAt(h, key, c)
	d.turnPlain(rows)
	return c
}

// packable reports whether the string of n ≤ 8 bytes in w may stand in the
// packed table: no control character, no backslash.
func packable(w uint64, n int) bool {
	w |= ones << (8 * n & 63) * 0x20 & -uint64(1-n>>3) // spaces behind the end
	return (w-0x20*ones)&^w&highs|firstOf(w, '\\') == 0
}

// word loads up to 8 bytes, little-endian, padded with zeros. Overlapping loads
// make it a third of the cost of copying into an array.
func word(s []byte) uint64 {
	le := binary.LittleEndian
	switch n := len(s); {
	case n >= 8:
		return le.Uint64(s)
	case n >= 4:
		return uint64(le.Uint32(s)) | uint64(le.Uint32(s[n-4:]))<<(8*(n-4)&63)
	case n >= 2:
		return uint64(le.Uint16(s)) | uint64(s[n-1])<<(8*(n-1)&63)
	case n == 1:
		return uint64(s[0])
	}
	return 0
}

// hash is the content hash of the entry of n bytes, part of the ledger's format:
// for up to 8 bytes of plain characters a mix of bytes and length, XXH3 for all
// others.
func (e entry) hash(n uint32) uint64 {
	if e.long {
		return e.key
	}
	return mix(e.key^uint64(n)<<56, hashMultiplier)
}

// mix folds the 128-bit product of two words.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// seedsOf are the constants that tell the columns apart in a content hash. They
// depend on the field id alone, so that a hash survives renames and new
// columns.
func seedsOf(fieldID int) (a, b uint64) {
	x := uint64(fieldID) * hashMultiplier
	next := func() uint64 { // splitmix64
		x += hashMultiplier
		z := x
		z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
		z = (z ^ z>>27) * 0x94D049BB133111EB
		return z ^ z>>31
	}
	a = next()
	return a, next() | 1
}
