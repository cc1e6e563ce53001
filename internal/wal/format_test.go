package wal

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/record"
)

func putLE32(b []byte, v uint32) { binary.LittleEndian.PutUint32(b, v) }

func TestHeaderRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 155, 156, 1000} {
		h := &segmentHeader{number: 42, salt: 7, size: 1 << 20, prevEnd: 8192, prevSalt: 6}
		for i := range n {
			k := record.Key{Shard: record.Shard(i % 5)}
			binary.BigEndian.PutUint32(k.Incarnation[3:], uint32(n-i))
			h.table = append(h.table, tableEntry{k, record.Offset(i * 1000)})
		}
		b := appendHeader(nil, h)
		if int64(len(b)) != headerBytes(n) || len(b)%blockBytes != 0 || headerClaim(b) != int64(len(b)) {
			t.Fatalf("%d entries take %d bytes", n, len(b))
		}
		got, err := decodeHeader(b, h.size)
		if err != nil {
			t.Fatal(err)
		}
		if got.number != 42 || got.salt != 7 || got.prevEnd != 8192 || got.prevSalt != 6 || len(got.table) != n {
			t.Fatalf("%+v", got)
		}
		for i := range got.table {
			if got.table[i] != h.table[i] {
				t.Fatalf("entry %d: %v", i, got.table[i])
			}
		}
		if _, err := decodeHeader(b, h.size-blockBytes); !errors.Is(err, errLayout) && !errors.Is(err, errTruncated) {
			t.Fatalf("another file size: %v", err)
		}
	}
}

func TestFrameRoundTrip(t *testing.T) {
	sum := saltSum(99)
	want := frameHeader{key: testKey(3), first: 1 << 40, arrivedAt: -5, count: 9, schemaID: 8, payloadLen: 77, payloadSum: 6, kind: 5, flags: flagMoved}
	b := make([]byte, frameHeaderBytes)
	putFrameHeader(b, sum, &want)
	got, err := decodeFrameHeader(b, sum)
	if err != nil || got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := decodeFrameHeader(b, saltSum(98)); !errors.Is(err, errChecksum) {
		t.Fatalf("another salt: %v", err)
	}
	for name, h := range map[string]frameHeader{
		"flags":    {count: 1, flags: 4},
		"count":    {},
		"forget":   {count: 1, flags: flagForget},
		"length":   {count: 1, payloadLen: MaxPayloadBytes + 1},
		"overflow": {count: 2, first: 1<<64 - 1},
	} {
		putFrameHeader(b, sum, &h)
		if _, err := decodeFrameHeader(b, sum); !errors.Is(err, errLayout) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// resum makes checksums right, so that fuzzing gets past them. Groups are taken
// where the sizes say that they are.
func resum(b []byte) {
	if len(b) < blockBytes {
		return
	}
	end := headerFixedBytes + int64(binary.LittleEndian.Uint32(b[56:]))*tableEntryBytes
	if end > int64(len(b)) {
		return
	}
	copy(b, segmentMagic[:])
	binary.LittleEndian.PutUint16(b[12:], formatVersion)
	binary.LittleEndian.PutUint64(b[32:], uint64(len(b)))
	putLE32(b[8:], headerSum(b, int(end)))
	sum := saltSum(binary.LittleEndian.Uint64(b[24:]))
	for pos := headerClaim(b); pos+blockBytes <= int64(len(b)); {
		g := b[pos:]
		if binary.LittleEndian.Uint32(g) != groupMagic {
			return
		}
		size := int64(binary.LittleEndian.Uint32(g[32:]))
		rest := g[groupHeaderBytes:]
		for range binary.LittleEndian.Uint32(g[36:]) {
			if len(rest) < frameHeaderBytes {
				break
			}
			n := int64(binary.LittleEndian.Uint32(rest[8:]))
			if frameHeaderBytes+n <= int64(len(rest)) {
				putLE32(rest[4:], crc32.Checksum(rest[frameHeaderBytes:frameHeaderBytes+n], castagnoli))
			}
			putLE32(rest, crc32.Update(sum, castagnoli, rest[4:frameHeaderBytes]))
			if frameBytes(int(n)) > int64(len(rest)) {
				break
			}
			rest = rest[frameBytes(int(n)):]
		}
		putLE32(g[4:], crc32.Update(sum, castagnoli, g[8:groupHeaderBytes]))
		pos += groupBytes(size)
	}
}

// FuzzDecodeSegment opens a log whose only segment is arbitrary. It must open
// or report, and what it opens must be readable and dense, and stay the same.
func FuzzDecodeSegment(f *testing.F) {
	mem := fsys.NewMem()
	l := open(f, mem, smallOptions())
	put(f, l, testKey(1), 3, 100)
	put(f, l, testKey(2), 1, 0)
	l.Forget(testKey(2))
	put(f, l, testKey(1), 2, 40)
	closeLog(f, l)
	seed := takeImage(f, mem)[segmentName(1)]
	f.Add(seed, true)
	f.Add(seed[:8192], false)
	f.Add([]byte("TPHSLOG"), false)
	f.Fuzz(func(t *testing.T, b []byte, sums bool) {
		if len(b) > 64<<10 {
			return
		}
		b = append([]byte(nil), b...)
		if sums {
			resum(b)
		}
		img := image{segmentName(1): b}
		var ends string
		mem := img.mem(t)
		for range 2 {
			l, err := Open(t.Context(), mem, "log", smallOptions())
			if err != nil {
				var c *CorruptionError
				if !errors.As(err, &c) && !errors.Is(err, ErrTooManyKeys) {
					t.Fatal(err)
				}
				return
			}
			for k, end := range l.Ends() {
				at := l.Oldest(k)
				if err := l.Read(t.Context(), k, at, func(f Frame) error {
					if f.First != at && f.First > at {
						t.Fatalf("frame %d, want %d", f.First, at)
					}
					at = f.First + record.Offset(f.Count)
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				if at != end {
					t.Fatalf("read to %d of %d", at, end)
				}
			}
			if now := l.Ends().String(); ends != "" && now != ends {
				t.Fatalf("ends %s, were %s", now, ends)
			} else {
				ends = now
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestDirectory is what docs/formats/wal.md says of names, on the real file system.
func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(t.Context(), fsys.OS, filepath.Join(dir, "a", "log"), smallOptions())
	if err != nil {
		t.Fatal(err)
	}
	put(t, l, testKey(1), 1, 100)
	eventually(t, "a spare", func() bool { return l.Stats().DiskBytes == 2*segmentBytesMin })
	closeLog(t, l)
	var names []string
	entries, err := os.ReadDir(filepath.Join(dir, "a", "log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if len(names) != 3 || names[0] != "0000000000000001.wal" || names[1] != "LOCK" || names[2][:6] != sparePrefix {
		t.Fatalf("%q", names)
	}
}
