// Package record holds the words that every layer shares: stream names,
// incarnations, shards, offsets, record ids, progress vectors and schemas.
//
// An offset is the dense index, from 0, of a record within one (incarnation,
// shard). A stream that is deleted and created again is a new incarnation, so
// that its offsets can never be taken for the former ones.
package record

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// ErrInvalid is the root of every error about a malformed name, id or vector.
var ErrInvalid = errors.New("invalid")

// StreamName is a delivery stream's name: 1 to 64 characters of
// [a-zA-Z0-9_.-], as in the Firehose API's model.
type StreamName string

var streamNameRE = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,64}$`)

// ParseStreamName checks s against the Firehose API's constraint.
func ParseStreamName(s string) (StreamName, error) {
	if !streamNameRE.MatchString(s) {
		return "", fmt.Errorf("%w stream name %q: 1 to 64 characters of a-z A-Z 0-9 _ . -", ErrInvalid, s)
	}
	return StreamName(s), nil
}

// Incarnation identifies one life of a stream.
type Incarnation = uuid.UUID

// Offset is the dense index of a record within (incarnation, shard), from 0.
type Offset uint64

// Shard numbers a stream's independent sequences of offsets, from 0.
type Shard uint16

// Key names one sequence of offsets.
type Key struct {
	Incarnation Incarnation
	Shard       Shard
}

// String is "incarnation/shard", the form stored in tables and properties.
func (k Key) String() string { return k.Incarnation.String() + "/" + strconv.Itoa(int(k.Shard)) }

// ParseKey reads the form that Key.String writes.
func ParseKey(s string) (Key, error) {
	id, shard, ok := strings.Cut(s, "/")
	if !ok {
		return Key{}, fmt.Errorf("%w offset key %q: want incarnation/shard", ErrInvalid, s)
	}
	u, err := uuid.Parse(id)
	if err != nil {
		return Key{}, fmt.Errorf("%w offset key %q: %w", ErrInvalid, s, err)
	}
	n, err := strconv.ParseUint(shard, 10, 16)
	if err != nil {
		return Key{}, fmt.Errorf("%w offset key %q: %w", ErrInvalid, s, err)
	}
	return Key{u, Shard(n)}, nil
}

// ID is the identity of an acknowledged record: where it stands in the log.
// Its text is what PutRecord answers as RecordId.
type ID struct {
	Key
	Offset Offset
}

const idVersion = 1

var idTable = crc32.MakeTable(crc32.Castagnoli)

// String is the RecordId: hexadecimal version(1) incarnation(16) shard(2)
// offset(8) crc32c(4), big-endian, 62 characters.
func (id ID) String() string { return string(id.AppendText(nil)) }

// AppendText appends the RecordId to dst and returns the extended buffer.
func (id ID) AppendText(dst []byte) []byte {
	var b [31]byte
	b[0] = idVersion
	copy(b[1:], id.Incarnation[:])
	binary.BigEndian.PutUint16(b[17:], uint16(id.Shard))
	binary.BigEndian.PutUint64(b[19:], uint64(id.Offset))
	binary.BigEndian.PutUint32(b[27:], crc32.Checksum(b[:27], idTable))
	return hex.AppendEncode(dst, b[:])
}

// IDs writes the RecordIds of one key. What the key contributes to the text and
// to the checksum is computed once, and what an offset does is looked up byte by
// byte, because a CRC is linear: 23 ns an id instead of 74; a put answers with
// 500.
type IDs struct {
	key  Key
	head [38]byte
	sum  uint32 // of head's bytes and the offset 0
}

// NewIDs returns the writer of k's RecordIds.
func NewIDs(k Key) IDs {
	ids := IDs{key: k}
	var b [19]byte
	b[0] = idVersion
	copy(b[1:], k.Incarnation[:])
	binary.BigEndian.PutUint16(b[17:], uint16(k.Shard))
	ids.sum = crc32.Update(crc32.Checksum(b[:], idTable), idTable, make([]byte, 8))
	hex.Encode(ids.head[:], b[:])
	return ids
}

// Key returns the key.
func (ids *IDs) Key() Key { return ids.key }

// hexPairs are the two digits of every byte, the first in the low bits.
var hexPairs = func() (pairs [256]uint16) {
	const digits = "0123456789abcdef"
	for i := range pairs {
		pairs[i] = uint16(digits[i>>4]) | uint16(digits[i&15])<<8
	}
	return pairs
}()

// offsetSums[k][b] is what the offset b<<8k changes in the checksum of offset 0.
var offsetSums = func() (t [8][256]uint32) {
	var b [8]byte
	zero := crc32.Checksum(b[:], idTable)
	for k := range t {
		for x := range t[k] {
			binary.BigEndian.PutUint64(b[:], uint64(x)<<(8*k))
			t[k][x] = crc32.Checksum(b[:], idTable) ^ zero
		}
	}
	return t
}()

// AppendText appends ID{key, o}.AppendText to dst.
func (ids *IDs) AppendText(dst []byte, o Offset) []byte {
	sum := ids.sum
	for k, x := 0, uint64(o); x != 0; k, x = k+1, x>>8 {
		sum ^= offsetSums[k&7][x&0xff]
	}
	n := len(dst)
	dst = append(dst, ids.head[:]...)
	dst = append(dst, zeros...)
	text := (*[24]byte)(dst[n+len(ids.head):])
	for i, x := 14, uint64(o); x != 0; i, x = i-2, x>>8 {
		binary.LittleEndian.PutUint16(text[i:], hexPairs[x&0xff])
	}
	binary.LittleEndian.PutUint64(text[16:], uint64(hexPairs[sum>>24])|uint64(hexPairs[sum>>16&0xff])<<16|
		uint64(hexPairs[sum>>8&0xff])<<32|uint64(hexPairs[sum&0xff])<<48)
	return dst
}

// zeros is room for the offset and the checksum.
const zeros = "000000000000000000000000"

// ParseID reads a RecordId and checks its checksum, so that a mistyped id is
// told apart from an unknown one.
func ParseID(s string) (ID, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 31 {
		return ID{}, fmt.Errorf("%w record id %q: want 62 hexadecimal digits", ErrInvalid, s)
	}
	if b[0] != idVersion {
		return ID{}, fmt.Errorf("%w record id %q: version %d is not known to this program", ErrInvalid, s, b[0])
	}
	if crc32.Checksum(b[:27], idTable) != binary.BigEndian.Uint32(b[27:]) {
		return ID{}, fmt.Errorf("%w record id %q: checksum does not match; check for a typing error", ErrInvalid, s)
	}
	var id ID
	copy(id.Incarnation[:], b[1:17])
	id.Shard = Shard(binary.BigEndian.Uint16(b[17:]))
	id.Offset = Offset(binary.BigEndian.Uint64(b[19:]))
	return id, nil
}

// Vector is a progress vector: for each key the number of records contained,
// which is the offset of the next record wanted. It is the form of a table's
// through: "contains every record below v[k]". An absent key is 0.
type Vector map[Key]Offset

// Clone returns an independent copy.
func (v Vector) Clone() Vector {
	c := make(Vector, len(v))
	for k, o := range v {
		c[k] = o
	}
	return c
}

// Covers reports whether v contains at least what w contains.
func (v Vector) Covers(w Vector) bool {
	for k, o := range w {
		if v[k] < o {
			return false
		}
	}
	return true
}

// String is "incarnation/shard=next;…", sorted by key; "" for the empty vector.
// It is stored as a table property, so its form is part of the format.
func (v Vector) String() string {
	parts := make([]string, 0, len(v))
	for k, o := range v {
		parts = append(parts, k.String()+"="+strconv.FormatUint(uint64(o), 10))
	}
	slices.Sort(parts)
	return strings.Join(parts, ";")
}

// ParseVector reads the form that Vector.String writes.
func ParseVector(s string) (Vector, error) {
	v := Vector{}
	if s == "" {
		return v, nil
	}
	for part := range strings.SplitSeq(s, ";") {
		ks, os, ok := strings.Cut(part, "=")
		if !ok {
			return nil, fmt.Errorf("%w progress vector %q: %q lacks '='", ErrInvalid, s, part)
		}
		k, err := ParseKey(ks)
		if err != nil {
			return nil, err
		}
		n, err := strconv.ParseUint(os, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%w progress vector %q: %w", ErrInvalid, s, err)
		}
		if _, dup := v[k]; dup {
			return nil, fmt.Errorf("%w progress vector %q: %s stands twice", ErrInvalid, s, k)
		}
		v[k] = Offset(n)
	}
	return v, nil
}
