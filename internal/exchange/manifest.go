package exchange

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// RowHash computes the content hash of one row from its values, whatever file
// they were read from: xxHash64 (seed 0) of the canonical text, which has for
// each column in the order of the table
//
//	name '=' value '\n'
//
// A null column is left out. Record-stream, record-offset and arrived-at are
// left out too: they say where the record went, not what it says. An integer is
// decimal; a decimal is its unscaled integer; a timestamptz is microseconds and a
// date days since 1970-01-01; a string is its bytes.
//
// The zero value is ready. A RowHash is not safe for concurrent use.
type RowHash struct{ text []byte }

// Reset begins a row.
func (h *RowHash) Reset() { h.text = h.text[:0] }

// Text adds a string column.
func (h *RowHash) Text(column, value string) {
	h.text = append(h.text, column...)
	h.text = append(h.text, '=')
	h.text = append(h.text, value...)
	h.text = append(h.text, '\n')
}

// Letter adds a string column of one character.
func (h *RowHash) Letter(column string, c byte) {
	h.text = append(h.text, column...)
	h.text = append(h.text, '=', c, '\n')
}

// Integer adds a column of any other kind.
func (h *RowHash) Integer(column string, value int64) {
	h.text = append(h.text, column...)
	h.text = append(h.text, '=')
	h.text = strconv.AppendInt(h.text, value, 10)
	h.text = append(h.text, '\n')
}

// Sum returns the hash of the row.
func (h *RowHash) Sum() uint64 { return xxhash.Sum64(h.text) }

// The manifest's layout is drawn in docs/formats/manifest.md.
const (
	manifestMagic   = "TAPEMAN1"
	manifestFeed    = 1
	manifestEnd     = 2
	manifestControl = 0
	feedsMax        = 1 << 16
	nameSizeBytes   = 1 << 10
)

var (
	// ErrManifest is the root of every error about a malformed manifest.
	ErrManifest = errors.New("invalid manifest")
	// ErrManifestTruncated says that a manifest lacks its end: its writer did
	// not come to Close. What was read until then is good.
	ErrManifestTruncated = fmt.Errorf("%w: it has no end", ErrManifest)
)

var manifestTable = crc32.MakeTable(crc32.Castagnoli)

// Entry is one record of a manifest.
type Entry struct {
	Stream string
	Key    Key
	Hash   uint64
}

// manifestFeedKey identifies a feed within a manifest.
type manifestFeedKey struct {
	stream, source, session string
	epoch                   int64
}

type manifestFeedState struct {
	number uint64
	seq    int64 // of the entry before
}

// ManifestWriter writes the generator's own account of its records. It is not
// safe for concurrent use.
type ManifestWriter struct {
	w     *bufio.Writer
	sum   hash.Hash32
	feeds map[manifestFeedKey]*manifestFeedState
	count uint64
	buf   []byte
}

// NewManifestWriter writes the header. Close must be called for the manifest to
// be complete; closing w is the caller's.
func NewManifestWriter(w io.Writer) (*ManifestWriter, error) {
	m := &ManifestWriter{sum: crc32.New(manifestTable), feeds: map[manifestFeedKey]*manifestFeedState{}}
	m.w = bufio.NewWriterSize(io.MultiWriter(w, m.sum), 1<<16)
	_, err := m.w.WriteString(manifestMagic)
	return m, err
}

// Append adds one record. An error of the underlying writer stays.
func (m *ManifestWriter) Append(stream string, k Key, hash uint64) error {
	id := manifestFeedKey{stream, k.Source, k.Session, k.Epoch}
	f := m.feeds[id]
	m.buf = m.buf[:0]
	if f == nil {
		if len(m.feeds) == feedsMax {
			return fmt.Errorf("%w: more than %d feeds", ErrManifest, feedsMax)
		}
		f = &manifestFeedState{number: uint64(len(m.feeds) + 1)}
		m.feeds[id] = f
		m.buf = append(m.buf, manifestControl, manifestFeed)
		for _, s := range []string{stream, k.Source, k.Session} {
			if len(s) > nameSizeBytes {
				return fmt.Errorf("%w: a name of %d bytes", ErrManifest, len(s))
			}
			m.buf = binary.AppendUvarint(m.buf, uint64(len(s)))
			m.buf = append(m.buf, s...)
		}
		m.buf = binary.AppendVarint(m.buf, k.Epoch)
	}
	m.buf = binary.AppendUvarint(m.buf, f.number)
	m.buf = binary.AppendVarint(m.buf, k.Seq-f.seq)
	m.buf = binary.LittleEndian.AppendUint64(m.buf, hash)
	f.seq = k.Seq
	m.count++
	_, err := m.w.Write(m.buf)
	return err
}

// Count returns the number of records appended.
func (m *ManifestWriter) Count() uint64 { return m.count }

// Close writes the end and flushes. It does not sync or close the file.
func (m *ManifestWriter) Close() error {
	end := binary.LittleEndian.AppendUint64([]byte{manifestControl, manifestEnd}, m.count)
	if _, err := m.w.Write(end); err != nil {
		return err
	}
	if err := m.w.Flush(); err != nil {
		return err
	}
	if _, err := m.w.Write(binary.LittleEndian.AppendUint32(nil, m.sum.Sum32())); err != nil {
		return err
	}
	return m.w.Flush()
}

// ManifestReader reads a manifest from its beginning to its end.
type ManifestReader struct {
	r     *bufio.Reader
	sum   uint32
	feeds []Entry // the last entry of each feed
	count uint64
	err   error
}

// NewManifestReader checks the header.
func NewManifestReader(r io.Reader) (*ManifestReader, error) {
	m := &ManifestReader{r: bufio.NewReaderSize(r, 1<<16)}
	var magic [len(manifestMagic)]byte
	if err := m.full(magic[:]); err != nil {
		return nil, err
	}
	if string(magic[:]) != manifestMagic {
		return nil, fmt.Errorf("%w: it begins with %q, not %q", ErrManifest, magic, manifestMagic)
	}
	return m, nil
}

// Next returns the next record; io.EOF after the last, once the count and the
// checksum were found right.
func (m *ManifestReader) Next() (Entry, error) {
	if m.err != nil {
		return Entry{}, m.err
	}
	e, err := m.next()
	m.err = err
	return e, err
}

func (m *ManifestReader) next() (Entry, error) {
	for {
		n, err := binary.ReadUvarint(m)
		if err != nil {
			return Entry{}, m.fault(err)
		}
		if n != manifestControl {
			if n > uint64(len(m.feeds)) {
				return Entry{}, fmt.Errorf("%w: feed %d is not declared", ErrManifest, n)
			}
			delta, err := binary.ReadVarint(m)
			if err != nil {
				return Entry{}, m.fault(err)
			}
			var h [8]byte
			if err := m.full(h[:]); err != nil {
				return Entry{}, err
			}
			e := &m.feeds[n-1]
			e.Key.Seq += delta
			e.Hash = binary.LittleEndian.Uint64(h[:])
			m.count++
			return *e, nil
		}
		tag, err := m.ReadByte()
		if err != nil {
			return Entry{}, m.fault(err)
		}
		switch tag {
		case manifestFeed:
			if err := m.declare(); err != nil {
				return Entry{}, err
			}
		case manifestEnd:
			return Entry{}, m.end()
		default:
			return Entry{}, fmt.Errorf("%w: control %d is not known to this program", ErrManifest, tag)
		}
	}
}

func (m *ManifestReader) declare() error {
	if len(m.feeds) == feedsMax {
		return fmt.Errorf("%w: more than %d feeds", ErrManifest, feedsMax)
	}
	var names [3]string
	for i := range names {
		n, err := binary.ReadUvarint(m)
		if err != nil {
			return m.fault(err)
		}
		if n > nameSizeBytes {
			return fmt.Errorf("%w: a name of %d bytes", ErrManifest, n)
		}
		b := make([]byte, n)
		if err := m.full(b); err != nil {
			return err
		}
		names[i] = string(b)
	}
	epoch, err := binary.ReadVarint(m)
	if err != nil {
		return m.fault(err)
	}
	m.feeds = append(m.feeds, Entry{Stream: names[0], Key: Key{Source: names[1], Session: names[2], Epoch: epoch}})
	return nil
}

func (m *ManifestReader) end() error {
	var b [8]byte
	if err := m.full(b[:]); err != nil {
		return err
	}
	if n := binary.LittleEndian.Uint64(b[:]); n != m.count {
		return fmt.Errorf("%w: %d records, but its end says %d", ErrManifest, m.count, n)
	}
	sum := m.sum
	if err := m.full(b[:4]); err != nil {
		return err
	}
	if want := binary.LittleEndian.Uint32(b[:]); want != sum {
		return fmt.Errorf("%w: checksum %08x, but its end says %08x", ErrManifest, sum, want)
	}
	if _, err := m.r.ReadByte(); err != io.EOF {
		return fmt.Errorf("%w: bytes after its end", ErrManifest)
	}
	return io.EOF
}

// ReadByte is for package binary: it keeps the checksum.
func (m *ManifestReader) ReadByte() (byte, error) {
	c, err := m.r.ReadByte()
	if err == nil {
		m.sum = crc32.Update(m.sum, manifestTable, []byte{c})
	}
	return c, err
}

func (m *ManifestReader) full(b []byte) error {
	if _, err := io.ReadFull(m.r, b); err != nil {
		return m.fault(err)
	}
	m.sum = crc32.Update(m.sum, manifestTable, b)
	return nil
}

func (m *ManifestReader) fault(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrManifestTruncated
	}
	return fmt.Errorf("%w: %w", ErrManifest, err)
}
