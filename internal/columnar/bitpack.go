package columnar

import (
	"encoding/binary"
	"slices"
)

// Packing appends n values of w bits each, least significant bit first, which
// is the order of Parquet's bit-packed runs and miniblocks and of our payloads.
// Every function appends exactly ceil(n·w/8) bytes.

// packer collects bits and stores them word by word. It needs 8 bytes of room
// beyond what it writes.
type packer struct {
	dst  []byte
	at   int
	acc  uint64
	bits uint // in acc, < 64
}

func newPacker(dst []byte, n int, w uint) packer {
	need := packedLen(n, w)
	at := len(dst)
	dst = slices.Grow(dst, need+8)
	return packer{dst: dst[:at+need+8], at: at}
}

func packedLen(n int, w uint) int { return (n*int(w) + 7) / 8 }

// put32 adds a value of w ≤ 32 bits.
func (p *packer) put32(x uint64, w uint) {
	p.acc |= x << (p.bits & 63)
	p.bits += w
	if p.bits >= 32 {
		binary.LittleEndian.PutUint32(p.dst[p.at:], uint32(p.acc))
		p.at += 4
		p.acc >>= 32
		p.bits -= 32
	}
}

// put64 adds a value of w ≤ 64 bits.
func (p *packer) put64(x uint64, w uint) {
	p.acc |= x << (p.bits & 63)
	if p.bits += w; p.bits >= 64 {
		binary.LittleEndian.PutUint64(p.dst[p.at:], p.acc)
		p.at += 8
		p.bits -= 64
		p.acc = x >> ((w - p.bits) & 63)
		if p.bits == 0 {
			p.acc = 0
		}
	}
}

func (p *packer) finish(end int) []byte {
	binary.LittleEndian.PutUint64(p.dst[p.at:], p.acc)
	return p.dst[:end]
}

// packCodes appends codes of w ≤ 32 bits.
func packCodes(dst []byte, codes []uint32, w uint) []byte {
	end := len(dst) + packedLen(len(codes), w)
	if w == 0 {
		return dst
	}
	p := newPacker(dst, len(codes), w)
	for _, c := range codes {
		p.put32(uint64(c), w)
	}
	return p.finish(end)
}

// packOffsets appends v[i] - base.
func packOffsets(dst []byte, v []int64, base int64, w uint) []byte {
	end := len(dst) + packedLen(len(v), w)
	if w == 0 {
		return dst
	}
	p := newPacker(dst, len(v), w)
	if w <= 32 {
		for _, x := range v {
			p.put32(uint64(x-base), w)
		}
	} else {
		for _, x := range v {
			p.put64(uint64(x-base), w)
		}
	}
	return p.finish(end)
}

// packDeltas appends v[i+1] - v[i] - base, so len(v)-1 values.
func packDeltas(dst []byte, v []int64, base int64, w uint) []byte {
	end := len(dst) + packedLen(len(v)-1, w)
	if w == 0 {
		return dst
	}
	p := newPacker(dst, len(v)-1, w)
	last := v[0]
	if w <= 32 {
		for _, x := range v[1:] {
			p.put32(uint64(x-last-base), w)
			last = x
		}
	} else {
		for _, x := range v[1:] {
			p.put64(uint64(x-last-base), w)
			last = x
		}
	}
	return p.finish(end)
}

// unpack calls put with each of n values of w bits from src, which holds at
// least packedLen(n, w) bytes.
func unpack(src []byte, n int, w uint, put func(i int, x uint64)) {
	if w == 0 {
		for i := range n {
			put(i, 0)
		}
		return
	}
	mask := ^uint64(0) >> (64 - w)
	for i := range n {
		bit := uint(i) * w
		at, off := int(bit>>3), bit&7
		var x uint64
		if at+8 <= len(src) {
			x = binary.LittleEndian.Uint64(src[at:]) >> off
		} else {
			x = word(src[at:]) >> off
		}
		if off+w > 64 { // The ninth byte exists, or the length check was wrong.
			x |= uint64(src[at+8]) << (64 - off)
		}
		put(i, x&mask)
	}
}
