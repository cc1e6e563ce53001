package crawler

import (
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// The compressions, as Glue's compressionType spells them.
const (
	plain  = "none"
	gzipC  = "gzip"
	zstdC  = "zstd"
	bzip2C = "bzip2"
	snappy = "snappy"
)

const (
	// zstdWindowMax bounds what a zstd frame may make its reader keep.
	zstdWindowMax = 32 << 20
	// snappyBlockMax bounds one block of Hadoop's framing.
	snappyBlockMax = 16 << 20
	// ratioMax is the expansion from which a file is a bomb: gzip's own limit is
	// 1,032, and data that people query does not come near it. A sample that expands
	// more than ratioSuspect times is decompressed further, up to bombProbe bytes, to see.
	ratioMax     = 1_000
	ratioSuspect = 100
	bombProbe    = 256 << 20
)

var (
	// errUnfinished marks a file that ends too early, as one that is still being
	// written does.
	errUnfinished = errors.New("the file ends within its data")
	snappyFramed  = []byte("\xff\x06\x00\x00sNaPpY")
	snappyJava    = []byte("\x82SNAPPY\x00")
)

// compressionOf tells a file's compression from its first bytes; its name only
// decides for Hadoop's Snappy, which has no mark.
func compressionOf(name string, head []byte) string {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzipC
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return zstdC
	case len(head) > 3 && bytes.HasPrefix(head, []byte("BZh")) && head[3] >= '1' && head[3] <= '9':
		return bzip2C
	case bytes.HasPrefix(head, snappyFramed), bytes.HasPrefix(head, snappyJava):
		return snappy
	case strings.HasSuffix(strings.ToLower(name), ".snappy") && !bytes.HasPrefix(head, []byte(parquetMagic)):
		return snappy
	}
	return plain
}

// decompress returns up to limit bytes of what r holds. done reports that this is
// all; used is how many of r's size bytes it took, roughly. The output is bounded by
// limit, and an input that gives more than ratioMax times its size is refused.
func decompress(compression string, r io.Reader, size int64, limit int) (out []byte, used int64, done bool, err error) {
	counted := &countingReader{r: r}
	var in io.Reader
	switch compression {
	case plain:
		in = counted
	case gzipC:
		z, err := gzip.NewReader(counted)
		if err != nil {
			return nil, 0, false, readError(err)
		}
		defer func() { _ = z.Close() }()
		in = z
	case zstdC:
		z, err := zstd.NewReader(counted, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindowMax), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, 0, false, readError(err)
		}
		defer z.Close()
		in = z
	case bzip2C:
		in = bzip2.NewReader(counted)
	case snappy:
		if in, err = snappyReader(counted); err != nil {
			return nil, 0, false, readError(err)
		}
	}
	out, err = io.ReadAll(io.LimitReader(in, int64(limit)))
	if err != nil {
		return out, counted.n, false, readError(err)
	}
	if compression != plain && len(out) == limit && int64(limit) > ratioSuspect*size {
		more, _ := io.Copy(io.Discard, io.LimitReader(in, bombProbe)) // an error is the sample's next reader's
		if int64(limit)+more > ratioMax*size {
			return nil, counted.n, false, fmt.Errorf("it grows more than %d times when it is decompressed", ratioMax)
		}
	}
	return out, counted.n, len(out) < limit, nil
}

// readError names an early end by one error, whatever the library calls it.
func readError(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return errUnfinished
	}
	return err
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// snappyReader reads Snappy's framing format, snappy-java's stream, or Hadoop's
// blocks.
func snappyReader(r io.Reader) (io.Reader, error) {
	head := make([]byte, len(snappyFramed))
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	head = head[:n]
	all := io.MultiReader(bytes.NewReader(head), r)
	switch {
	case bytes.Equal(head, snappyFramed):
		return s2.NewReader(all, s2.ReaderMaxBlockSize(1<<20)), nil
	case bytes.HasPrefix(head, snappyJava):
		if _, err := io.CopyN(io.Discard, all, 16); err != nil {
			return nil, err
		}
		return &snappyBlocks{r: all}, nil
	}
	return &snappyBlocks{r: all, hadoop: true}, nil
}

// snappyBlocks reads length-prefixed blocks; in Hadoop's form, the length of what
// some blocks hold together goes before them.
type snappyBlocks struct {
	r      io.Reader
	hadoop bool
	left   int // of the stretch that hadoop announced
	block  []byte
}

func (s *snappyBlocks) Read(p []byte) (int, error) {
	for len(s.block) == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.block)
	s.block = s.block[n:]
	return n, nil
}

func (s *snappyBlocks) next() error {
	if s.hadoop && s.left <= 0 {
		n, err := s.length()
		if err != nil {
			return err
		}
		s.left = n
		if n == 0 {
			return nil
		}
	}
	n, err := s.length()
	if err != nil {
		if s.hadoop && errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	in := make([]byte, n)
	if _, err := io.ReadFull(s.r, in); err != nil {
		return io.ErrUnexpectedEOF
	}
	size, err := s2.DecodedLen(in)
	if err != nil || size > snappyBlockMax {
		return fmt.Errorf("not Snappy: a block of %d bytes", size)
	}
	if s.block, err = s2.Decode(nil, in); err != nil {
		return fmt.Errorf("not Snappy: %w", err)
	}
	s.left -= len(s.block)
	return nil
}

func (s *snappyBlocks) length() (int, error) {
	var b [4]byte
	if _, err := io.ReadFull(s.r, b[:]); err != nil {
		return 0, err
	}
	n := binary.BigEndian.Uint32(b[:])
	if n > snappyBlockMax {
		return 0, fmt.Errorf("not Snappy: a block of %d bytes", n)
	}
	return int(n), nil
}
