package wal

import (
	"slices"
	"sort"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/record"
)

// Marks are set so that finding an offset scans little and the index stays
// small: a segment of 64 MiB takes at most 1024 marks for the bytes of all keys
// together, and 64 more for each key.
const (
	markOwnBytes   = 64 << 10 // of the key's frames since its last mark
	markSpanBytes  = 1 << 20  // of the segment since the key's last mark
	cursorDistance = 4        // an extent's cursor is used if the mark is this many blocks behind it
)

// keyState is what the log knows of one key.
type keyState struct {
	key record.Key

	// Guarded by Log.mu.
	next      record.Offset // one past the last enqueued
	forgotten bool

	// written is one past the last frame that the writer took for good. The
	// writer alone uses it, and recovery before there is one.
	written record.Offset

	// Guarded by Log.ix.
	synced  record.Offset
	trim    record.Offset // everything below is in a table
	extents []*extent     // ascending and disjoint; gapless from the first to synced
}

// segment is a file of the log that has a number.
type segment struct {
	number uint64
	salt   uint64
	sum    uint32 // saltSum(salt)
	name   string // path
	file   fsys.File
	size   int64
	start  int64 // of the first group

	// Guarded by Log.ix.
	end       int64 // after the last synced group
	bytes     int64 // of all frames ever put into it, without padding
	arrivedAt int64 // latest arrival of a frame in it, µs since 1970 UTC; 0 if none
	refs      int   // reads under way; the file must not change its use
	extents   []*extent

	spareName string // once it left the log; guarded by Log.maintain
}

// extent is a run of consecutive offsets of one key in one segment, in order.
// The frames of others lie between.
type extent struct {
	key        *keyState
	seg        *segment
	first, end record.Offset
	bytes      int64 // of its frames
	moved      bool
	marks      []mark
	sinceMark  int64 // bytes of the key's frames since the last mark

	cursor mark // where the last read stopped; zero block: none
}

// mark says that the first frame of the extent in the group at a block starts
// at an offset.
type mark struct {
	first record.Offset
	block uint32
}

// find returns the block of the group where a scan for o starts.
func (e *extent) find(o record.Offset) int64 {
	i := sort.Search(len(e.marks), func(i int) bool { return e.marks[i].first > o })
	m := e.marks[max(i-1, 0)]
	if c := e.cursor; c.block > m.block+cursorDistance && c.first <= o {
		m = c
	}
	return int64(m.block) * blockBytes
}

// add counts a frame that continues the extent.
func (e *extent) add(h *frameHeader, pos int64) {
	block := uint32(pos / blockBytes)
	last := mark{}
	if n := len(e.marks); n > 0 {
		last = e.marks[n-1]
	}
	if len(e.marks) == 0 || (block != last.block &&
		(e.sinceMark >= markOwnBytes || int64(block-last.block)*blockBytes >= markSpanBytes)) {
		e.marks = append(e.marks, mark{h.first, block})
		e.sinceMark = 0
	}
	n := frameBytes(h.payloadLen)
	e.end = h.end()
	e.bytes += n
	e.sinceMark += n
}

// publish puts a synced frame of the group at pos into the index.
// REQUIRES: Log.ix, and the frame belongs to st.
func publish(seg *segment, pos int64, st *keyState, h *frameHeader) {
	seg.bytes += frameBytes(h.payloadLen)
	if h.arrivedAt > seg.arrivedAt && h.flags&flagMoved == 0 {
		seg.arrivedAt = h.arrivedAt
	}
	if h.flags&flagMoved != 0 {
		publishMoved(seg, pos, st, h)
		return
	}
	st.synced = h.end()
	if n := len(st.extents); n > 0 {
		if e := st.extents[n-1]; e.seg == seg && !e.moved && e.end == h.first {
			e.add(h, pos)
			return
		}
	}
	e := &extent{key: st, seg: seg, first: h.first}
	e.add(h, pos)
	st.extents = append(st.extents, e)
	seg.extents = append(seg.extents, e)
}

// publishMoved makes the moved copy of a frame the one that counts.
func publishMoved(seg *segment, pos int64, st *keyState, h *frameHeader) {
	// What the older copy's extent holds below the frame was not moved because
	// it is trimmed; it goes with the older copy.
	i := sort.Search(len(st.extents), func(i int) bool { return st.extents[i].end > h.first })
	if i < len(st.extents) && st.extents[i].first < h.end() {
		old := st.extents[i]
		old.bytes = max(old.bytes-frameBytes(h.payloadLen), 0)
		old.first = min(h.end(), old.end)
		if old.first == old.end {
			st.extents = slices.Delete(st.extents, i, i+1)
		}
	}
	if i > 0 {
		if e := st.extents[i-1]; e.seg == seg && e.moved && e.end == h.first {
			e.add(h, pos)
			return
		}
	}
	e := &extent{key: st, seg: seg, first: h.first, moved: true}
	e.add(h, pos)
	st.extents = slices.Insert(st.extents, i, e)
	seg.extents = append(seg.extents, e)
}

// oldest is the first offset that can be read; synced if none.
func (st *keyState) oldest() record.Offset {
	if len(st.extents) == 0 {
		return st.synced
	}
	return st.extents[0].first
}

// dropBelowHoles forgets extents that do not reach synced without a gap. A gap
// arises when moved frames outlive the trimmed ones that followed them; so what
// lies before it is trimmed as well. REQUIRES: Log.ix.
func (st *keyState) dropBelowHoles() {
	want := st.synced
	for i := len(st.extents) - 1; i >= 0; i-- {
		if st.extents[i].end != want {
			st.dropFirst(i + 1)
			return
		}
		want = st.extents[i].first
	}
}

// dropFirst forgets the first n extents.
func (st *keyState) dropFirst(n int) {
	for _, e := range st.extents[:n] {
		e.first, e.bytes = e.end, 0
	}
	st.extents = slices.Delete(st.extents, 0, n)
}

// extentOf returns the extent that holds o, or nil. REQUIRES: Log.ix.
func (st *keyState) extentOf(o record.Offset) *extent {
	i := sort.Search(len(st.extents), func(i int) bool { return st.extents[i].end > o })
	if i == len(st.extents) || st.extents[i].first > o {
		return nil
	}
	return st.extents[i]
}

// needed reports whether the extent holds frames above the trim point.
func (e *extent) needed() bool { return e.first < e.end && e.end > e.key.trim }

// neededBytes is the room of a segment's frames above their trim points, whole
// extents. REQUIRES: Log.ix.
func (s *segment) neededBytes() int64 {
	var sum int64
	for _, e := range s.extents {
		if e.needed() {
			sum += e.bytes
		}
	}
	return sum
}

// trimmed reports whether nothing in the segment is needed. REQUIRES: Log.ix.
func (s *segment) trimmed() bool {
	return !slices.ContainsFunc(s.extents, (*extent).needed)
}

// leaveIndex forgets the segment's frames, all of which are trimmed.
// REQUIRES: Log.ix.
func (s *segment) leaveIndex() {
	for _, e := range s.extents {
		if e.first == e.end {
			continue
		}
		// Whatever lies below is trimmed too, wherever it is.
		i := slices.Index(e.key.extents, e)
		e.key.dropFirst(i + 1)
	}
	s.extents = nil
}

// leaveKey forgets the frames of a key that was deleted. REQUIRES: Log.ix.
func (st *keyState) leaveKey() { st.dropFirst(len(st.extents)) }
