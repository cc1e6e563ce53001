package ledger

import "math/bits"

// chunkSize is the number of consecutive sequence numbers in one chunk: at
// four bytes a hash a chunk is 16.5 KiB.
const chunkSize = 4096

// chunk holds the content hashes of one aligned range of a feed's sequence.
// Hashes are kept to 32 bits: a resend with other content passes for a
// duplicate once in 4 billion resends, at half the memory of 64.
type chunk struct {
	feed    *feed
	base    int64
	present [chunkSize / 64]uint64
	hash    [chunkSize]uint32
}

func fold(h uint64) uint32 { return uint32(h>>32) ^ uint32(h) }

func (c *chunk) has(i int) bool { return c.present[i>>6]>>(i&63)&1 == 1 }

// vacant reports whether none of [lo, hi) is present.
func (c *chunk) vacant(lo, hi int) bool {
	for w := lo >> 6; w <= (hi-1)>>6; w++ {
		if c.present[w]&wordMask(w, lo, hi) != 0 {
			return false
		}
	}
	return true
}

func (c *chunk) mark(lo, hi int) {
	for w := lo >> 6; w <= (hi-1)>>6; w++ {
		c.present[w] |= wordMask(w, lo, hi)
	}
}

func (c *chunk) clear(lo, hi int) {
	for w := lo >> 6; w <= (hi-1)>>6; w++ {
		c.present[w] &^= wordMask(w, lo, hi)
	}
}

// wordMask has the bits of word w that lie in [lo, hi).
func wordMask(w, lo, hi int) uint64 {
	m := ^uint64(0)
	if a := lo - w<<6; a > 0 {
		m &= ^uint64(0) << a
	}
	if b := hi - w<<6; b < 64 {
		m &= 1<<b - 1
	}
	return m
}

// runs calls fn for each run of present sequence numbers, as [lo, hi).
func (c *chunk) runs(fn func(lo, hi int64)) {
	start := -1
	for w, x := range c.present {
		switch {
		case x == ^uint64(0):
			if start < 0 {
				start = w << 6
			}
			continue
		case x == 0:
			if start >= 0 {
				fn(c.base+int64(start), c.base+int64(w<<6))
				start = -1
			}
			continue
		}
		for b := 0; b < 64; {
			if start < 0 {
				n := bits.TrailingZeros64(x >> b)
				if b += n; b < 64 {
					start = w<<6 + b
				}
			} else {
				n := bits.TrailingZeros64(^(x >> b))
				if b += n; b < 64 {
					fn(c.base+int64(start), c.base+int64(w<<6+b))
					start = -1
				}
			}
		}
	}
	if start >= 0 {
		fn(c.base+int64(start), c.base+chunkSize)
	}
}

// evictable reports whether everything that the chunk knows to be present is
// in the applied account, so that forgetting the chunk forgets only hashes.
// REQUIRES: the feed's lock.
func (c *chunk) evictable() bool {
	ok := true
	c.runs(func(lo, hi int64) { ok = ok && c.feed.account.Seen.Contains(lo, hi) })
	return ok
}
