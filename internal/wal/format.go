package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/tapehouse/tapehouse/internal/record"
)

// The sizes of the format, version 1. See docs/formats/wal.md.
const (
	formatVersion = 1

	blockBytes       = 4096 // groups start at multiples: a write never touches a synced block
	headerFixedBytes = 64
	tableEntryBytes  = 26
	groupHeaderBytes = 48
	frameHeaderBytes = 56
	frameAlignBytes  = 8

	groupMagic = 0x31505247 // "GRP1"

	// segmentBytesMax keeps block numbers in 32 bits and recovery's buffer bounded.
	segmentBytesMax = 1 << 30
)

var segmentMagic = [8]byte{'T', 'P', 'H', 'S', 'L', 'O', 'G', 0}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The flags of a frame.
const (
	flagMoved  = 1 << 0 // a copy of a frame of an older segment
	flagForget = 1 << 1 // the key is deleted
	flagsKnown = flagMoved | flagForget
)

func alignUp(n, to int64) int64 { return (n + to - 1) &^ (to - 1) }

// frameBytes is what a frame takes in its group.
func frameBytes(payload int) int64 {
	return alignUp(frameHeaderBytes+int64(payload), frameAlignBytes)
}

// groupBytes is what a group takes in its segment.
func groupBytes(frames int64) int64 { return alignUp(groupHeaderBytes+frames, blockBytes) }

// tableEntry is a key's next offset when a segment starts.
type tableEntry struct {
	key  record.Key
	next record.Offset
}

// segmentHeader is what the first blocks of a segment say.
type segmentHeader struct {
	number   uint64
	salt     uint64
	size     int64
	prevEnd  int64  // 0 in segment 1
	prevSalt uint64 // 0 in segment 1
	table    []tableEntry
}

// headerBytes is the room that a header with n table entries takes.
func headerBytes(n int) int64 { return alignUp(headerFixedBytes+int64(n)*tableEntryBytes, blockBytes) }

// saltSum is the checksum state that every checksum of a segment starts from.
func saltSum(salt uint64) uint32 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], salt)
	return crc32.Checksum(b[:], castagnoli)
}

func compareKeys(a, b record.Key) int {
	if c := bytes.Compare(a.Incarnation[:], b.Incarnation[:]); c != 0 {
		return c
	}
	return int(a.Shard) - int(b.Shard)
}

// appendHeader appends h, padded to whole blocks; it sorts h.table.
func appendHeader(dst []byte, h *segmentHeader) []byte {
	slices.SortFunc(h.table, func(a, b tableEntry) int { return compareKeys(a.key, b.key) })
	at := len(dst)
	dst = append(dst, make([]byte, headerBytes(len(h.table)))...)
	b := dst[at:]
	copy(b, segmentMagic[:])
	binary.LittleEndian.PutUint16(b[12:], formatVersion)
	binary.LittleEndian.PutUint64(b[16:], h.number)
	binary.LittleEndian.PutUint64(b[24:], h.salt)
	binary.LittleEndian.PutUint64(b[32:], uint64(h.size))
	binary.LittleEndian.PutUint64(b[40:], uint64(h.prevEnd))
	binary.LittleEndian.PutUint64(b[48:], h.prevSalt)
	binary.LittleEndian.PutUint32(b[56:], uint32(len(h.table)))
	end := headerFixedBytes
	for _, e := range h.table {
		copy(b[end:], e.key.Incarnation[:])
		binary.LittleEndian.PutUint16(b[end+16:], uint16(e.key.Shard))
		binary.LittleEndian.PutUint64(b[end+18:], uint64(e.next))
		end += tableEntryBytes
	}
	binary.LittleEndian.PutUint32(b[8:], headerSum(b, end))
	return dst
}

func headerSum(b []byte, end int) uint32 {
	return crc32.Update(crc32.Checksum(b[24:32], castagnoli), castagnoli, b[12:end])
}

// The reasons of a CorruptionError.
var (
	errNotSegment   = errors.New("this is not a segment of the log")
	errChecksum     = errors.New("checksum mismatch")
	errTruncated    = errors.New("it ends too early")
	errLayout       = errors.New("its fields contradict each other")
	errNotDense     = errors.New("a frame does not continue its key's offsets")
	errTableDiffers = errors.New("its table of next offsets contradicts the frames before it")
	errChain        = errors.New("it does not continue the segment before it")
	errMissing      = errors.New("the segment is missing")
	errSyncedLost   = errors.New("an invalid group, though a later one says that it was synced")
	errSealedLost   = errors.New("an invalid group in a sealed segment")
)

// headerClaim is the room that a header says, unchecked, it takes.
func headerClaim(b []byte) int64 {
	return headerBytes(int(binary.LittleEndian.Uint32(b[56:])))
}

// decodeHeader reads a segment's header; size is the file's size and bounds what
// the header may claim.
func decodeHeader(b []byte, size int64) (*segmentHeader, error) {
	if len(b) < headerFixedBytes || !bytes.Equal(b[:8], segmentMagic[:]) {
		return nil, errNotSegment
	}
	count := binary.LittleEndian.Uint32(b[56:])
	end := headerFixedBytes + int64(count)*tableEntryBytes
	if end > int64(len(b)) || headerBytes(int(count)) > size {
		return nil, errTruncated
	}
	if headerSum(b, int(end)) != binary.LittleEndian.Uint32(b[8:]) {
		return nil, errChecksum
	}
	if v := binary.LittleEndian.Uint16(b[12:]); v != formatVersion {
		return nil, fmt.Errorf("format version %d is not known to this program, which knows %d", v, formatVersion)
	}
	h := &segmentHeader{
		number:   binary.LittleEndian.Uint64(b[16:]),
		salt:     binary.LittleEndian.Uint64(b[24:]),
		size:     int64(binary.LittleEndian.Uint64(b[32:])),
		prevEnd:  int64(binary.LittleEndian.Uint64(b[40:])),
		prevSalt: binary.LittleEndian.Uint64(b[48:]),
		table:    make([]tableEntry, count),
	}
	if h.size != size || h.number == 0 || h.prevEnd < 0 {
		return nil, errLayout
	}
	for i := range h.table {
		e := b[headerFixedBytes+i*tableEntryBytes:]
		copy(h.table[i].key.Incarnation[:], e)
		h.table[i].key.Shard = record.Shard(binary.LittleEndian.Uint16(e[16:]))
		h.table[i].next = record.Offset(binary.LittleEndian.Uint64(e[18:]))
		if i > 0 && compareKeys(h.table[i-1].key, h.table[i].key) >= 0 {
			return nil, errLayout
		}
	}
	return h, nil
}

// groupHeader precedes the frames that one fsync made durable.
type groupHeader struct {
	segment uint64
	pos     int64
	synced  int64 // everything below it was durable before this group was written
	bytes   int64 // of the frames
	count   int   // of the frames
}

// putGroupHeader fills the first groupHeaderBytes of b.
func putGroupHeader(b []byte, sum uint32, g groupHeader) {
	binary.LittleEndian.PutUint32(b, groupMagic)
	binary.LittleEndian.PutUint64(b[8:], g.segment)
	binary.LittleEndian.PutUint64(b[16:], uint64(g.pos))
	binary.LittleEndian.PutUint64(b[24:], uint64(g.synced))
	binary.LittleEndian.PutUint32(b[32:], uint32(g.bytes))
	binary.LittleEndian.PutUint32(b[36:], uint32(g.count))
	clear(b[40:groupHeaderBytes])
	binary.LittleEndian.PutUint32(b[4:], crc32.Update(sum, castagnoli, b[8:groupHeaderBytes]))
}

// decodeGroupHeader reads the header of the group at pos. b starts there.
func decodeGroupHeader(b []byte, sum uint32, number uint64, pos int64) (groupHeader, error) {
	if len(b) < groupHeaderBytes {
		return groupHeader{}, errTruncated
	}
	if binary.LittleEndian.Uint32(b) != groupMagic ||
		binary.LittleEndian.Uint32(b[4:]) != crc32.Update(sum, castagnoli, b[8:groupHeaderBytes]) {
		return groupHeader{}, errChecksum
	}
	g := groupHeader{
		segment: binary.LittleEndian.Uint64(b[8:]),
		pos:     int64(binary.LittleEndian.Uint64(b[16:])),
		synced:  int64(binary.LittleEndian.Uint64(b[24:])),
		bytes:   int64(binary.LittleEndian.Uint32(b[32:])),
		count:   int(binary.LittleEndian.Uint32(b[36:])),
	}
	if g.segment != number || g.pos != pos || g.synced > pos || g.synced < 0 ||
		int64(g.count)*frameHeaderBytes > g.bytes || (g.count == 0) != (g.bytes == 0) {
		return groupHeader{}, errLayout
	}
	return g, nil
}

// frameHeader is a frame without its payload.
type frameHeader struct {
	key        record.Key
	first      record.Offset
	arrivedAt  int64 // µs since 1970 UTC
	count      uint32
	schemaID   uint32
	payloadLen int
	payloadSum uint32
	kind       uint8
	flags      uint8
}

func (h *frameHeader) end() record.Offset { return h.first + record.Offset(h.count) }

// putFrameHeader fills the first frameHeaderBytes of b.
func putFrameHeader(b []byte, sum uint32, h *frameHeader) {
	binary.LittleEndian.PutUint32(b[4:], h.payloadSum)
	binary.LittleEndian.PutUint32(b[8:], uint32(h.payloadLen))
	binary.LittleEndian.PutUint32(b[12:], h.count)
	copy(b[16:], h.key.Incarnation[:])
	binary.LittleEndian.PutUint16(b[32:], uint16(h.key.Shard))
	b[34], b[35] = h.kind, h.flags
	binary.LittleEndian.PutUint32(b[36:], h.schemaID)
	binary.LittleEndian.PutUint64(b[40:], uint64(h.first))
	binary.LittleEndian.PutUint64(b[48:], uint64(h.arrivedAt))
	binary.LittleEndian.PutUint32(b, crc32.Update(sum, castagnoli, b[4:frameHeaderBytes]))
}

// decodeFrameHeader reads and checks the header at the start of b.
func decodeFrameHeader(b []byte, sum uint32) (frameHeader, error) {
	if len(b) < frameHeaderBytes {
		return frameHeader{}, errTruncated
	}
	if binary.LittleEndian.Uint32(b) != crc32.Update(sum, castagnoli, b[4:frameHeaderBytes]) {
		return frameHeader{}, errChecksum
	}
	h := frameHeader{
		payloadSum: binary.LittleEndian.Uint32(b[4:]),
		count:      binary.LittleEndian.Uint32(b[12:]),
		kind:       b[34],
		flags:      b[35],
		schemaID:   binary.LittleEndian.Uint32(b[36:]),
		first:      record.Offset(binary.LittleEndian.Uint64(b[40:])),
		arrivedAt:  int64(binary.LittleEndian.Uint64(b[48:])),
	}
	n := binary.LittleEndian.Uint32(b[8:])
	copy(h.key.Incarnation[:], b[16:])
	h.key.Shard = record.Shard(binary.LittleEndian.Uint16(b[32:]))
	forget := h.flags&flagForget != 0
	if n > MaxPayloadBytes || h.flags&^flagsKnown != 0 || (h.count == 0) != forget || h.end() < h.first {
		return frameHeader{}, errLayout
	}
	h.payloadLen = int(n)
	return h, nil
}

// decodeGroup checks the whole group at pos of a segment and calls fn for each
// frame; payload aliases b, which starts at pos. It returns the group's header,
// which is valid (for the size) as soon as its own checksum is.
func decodeGroup(b []byte, sum uint32, number uint64, pos int64, fn func(h *frameHeader, payload []byte) error) (groupHeader, error) {
	g, err := decodeGroupHeader(b, sum, number, pos)
	if err != nil {
		return groupHeader{}, err
	}
	if groupHeaderBytes+g.bytes > int64(len(b)) {
		return g, errTruncated
	}
	rest := b[groupHeaderBytes : groupHeaderBytes+g.bytes]
	for range g.count {
		h, err := decodeFrameHeader(rest, sum)
		if err != nil {
			return g, err
		}
		n := frameBytes(h.payloadLen)
		if n > int64(len(rest)) {
			return g, errTruncated
		}
		payload := rest[frameHeaderBytes : frameHeaderBytes+h.payloadLen]
		if crc32.Checksum(payload, castagnoli) != h.payloadSum {
			return g, errChecksum
		}
		if err := fn(&h, payload); err != nil {
			return g, err
		}
		rest = rest[n:]
	}
	if len(rest) != 0 {
		return g, errLayout
	}
	return g, nil
}

// group is one valid group of a segment, as scanGroups reports it.
type group struct {
	groupHeader
	frames []frameHeader // valid until the next group
	raw    []byte        // from its header to the end of its padding; aliases the segment
}

// scanGroups walks the groups of a segment whose whole content is b. It stops
// at sealedEnd, if that is not 0, or before the first invalid group of an open
// segment, and returns where. fn gets each group after all of it was checked.
//
// An invalid group is an error (with its position) in a sealed segment, and in
// an open one if any later group says that the position was synced.
func scanGroups(b []byte, h *segmentHeader, sealedEnd int64, fn func(group) error) (end int64, err error) {
	sum := saltSum(h.salt)
	limit := int64(len(b))
	if sealedEnd != 0 {
		if sealedEnd > limit || sealedEnd < headerBytes(len(h.table)) || sealedEnd%blockBytes != 0 {
			return 0, errLayout
		}
		limit = sealedEnd
	}
	pos := headerBytes(len(h.table))
	var frames []frameHeader
	keep := func(h *frameHeader, _ []byte) error { frames = append(frames, *h); return nil }
	for pos+blockBytes <= limit {
		frames = frames[:0]
		g, gerr := decodeGroup(b[pos:limit], sum, h.number, pos, keep)
		size := groupBytes(g.bytes)
		if gerr == nil && size > limit-pos {
			gerr = errTruncated // the padding belongs to the group
		}
		if gerr != nil {
			if sealedEnd != 0 {
				return pos, fmt.Errorf("%w: %w", errSealedLost, gerr)
			}
			for at := pos + blockBytes; at+blockBytes <= limit; at += blockBytes {
				if later, err := decodeGroupHeader(b[at:], sum, h.number, at); err == nil && later.synced > pos {
					return pos, fmt.Errorf("%w (the one at %d): %w", errSyncedLost, at, gerr)
				}
			}
			return pos, nil
		}
		if err := fn(group{g, frames, b[pos : pos+size]}); err != nil {
			return pos, err
		}
		pos += size
	}
	if sealedEnd != 0 && pos != sealedEnd {
		return pos, fmt.Errorf("%w: %w", errSealedLost, errTruncated)
	}
	return pos, nil
}
