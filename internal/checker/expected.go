package checker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"sync"

	"github.com/tapehouse/tapehouse/internal/exchange"
)

// pageSize is the number of sequence numbers of a page; a power of two.
const pageSize = 1024

type page struct {
	hash       [pageSize]uint64
	want, seen [pageSize / 64]uint64
}

// repeated is mark's answer to a control record that came again.
const repeated = "repeated"

type feedID struct {
	stream, source, session string
	epoch                   int64
}

// feed is what the manifest says of one sequence, and what was seen of it. mark
// may be called concurrently.
type feed struct {
	mu    sync.Mutex
	pages map[int64]*page // by sequence number / pageSize
	// The control record: sequence number 0.
	control              uint64
	controlIn, controlAt bool // wanted, seen
}

// expected is the manifest by feed.
type expected struct {
	feeds   map[feedID]*feed
	order   []feedID         // of their appearance
	streams map[string]int64 // records
	pages   int
}

func readManifest(ctx context.Context, o Options) (*expected, error) {
	m, err := exchange.NewManifestReader(o.Manifest)
	if err != nil {
		return nil, err
	}
	x := &expected{feeds: map[feedID]*feed{}, streams: map[string]int64{}}
	var last *feed
	var lastID feedID
	for n := 0; ; n++ {
		if n%65536 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		e, err := m.Next()
		if errors.Is(err, io.EOF) || o.Truncated && errors.Is(err, exchange.ErrManifestTruncated) {
			return x, nil
		}
		if err != nil {
			return nil, err
		}
		id := feedID{e.Stream, e.Key.Source, e.Key.Session, e.Key.Epoch}
		if last == nil || id != lastID {
			if last, lastID = x.feeds[id], id; last == nil {
				last = &feed{pages: map[int64]*page{}}
				x.feeds[id] = last
				x.order = append(x.order, id)
			}
		}
		added, err := x.add(last, e.Key.Seq, e.Hash, o.PagesMax)
		if err != nil {
			return nil, fmt.Errorf("%s %s epoch %d sequence %d: %w", e.Stream, e.Key.Source, e.Key.Epoch, e.Key.Seq, err)
		}
		if added {
			x.streams[e.Stream]++
		}
	}
}

// add notes one record; false if it was noted before, as a source notes again
// what it sends again.
func (x *expected) add(f *feed, seq int64, hash uint64, pagesMax int) (bool, error) {
	if seq == 0 {
		if f.controlIn {
			return false, contradiction(f.control, hash)
		}
		f.control, f.controlIn = hash, true
		return true, nil
	}
	n, i := split(seq)
	p := f.pages[n]
	if p == nil {
		if x.pages == pagesMax {
			return false, fmt.Errorf("%w: %d pages of %d", ErrTooMany, pagesMax, pageSize)
		}
		x.pages++
		p = &page{}
		f.pages[n] = p
	}
	word, bit := i/64, uint64(1)<<(i%64)
	if p.want[word]&bit != 0 {
		return false, contradiction(p.hash[i], hash)
	}
	p.want[word] |= bit
	p.hash[i] = hash
	return true, nil
}

func contradiction(a, b uint64) error {
	if a == b {
		return nil
	}
	return ErrContradiction
}

// split gives the page of a sequence number and its place there, also of a
// negative one.
func split(seq int64) (n int64, i uint64) { return seq >> 10, uint64(seq) & (pageSize - 1) }

// mark notes a row and says what it is: "" if it is as it should be.
func (f *feed) mark(seq int64, hash uint64) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if seq == 0 {
		was := f.controlAt
		f.controlAt = true
		switch {
		case !f.controlIn:
			return Unexpected
		case f.control != hash:
			return Altered
		case was:
			return repeated
		}
		return ""
	}
	n, i := split(seq)
	p := f.pages[n]
	word, bit := i/64, uint64(1)<<(i%64)
	switch {
	case p == nil || p.want[word]&bit == 0:
		return Unexpected
	case p.seen[word]&bit != 0:
		return Duplicate
	}
	p.seen[word] |= bit
	if p.hash[i] != hash {
		return Altered
	}
	return ""
}

// missing calls fn for each record that was not seen, in the order of numbers.
func (f *feed) missing(fn func(seq int64)) {
	if f.controlIn && !f.controlAt {
		fn(0)
	}
	numbers := make([]int64, 0, len(f.pages))
	for n := range f.pages {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		p := f.pages[n]
		for word := range p.want {
			for left := p.want[word] &^ p.seen[word]; left != 0; left &= left - 1 {
				fn(n*pageSize + int64(word*64+bits.TrailingZeros64(left)))
			}
		}
	}
}
