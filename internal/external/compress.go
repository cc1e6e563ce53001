package external

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
)

// zstdWindowMax bounds the memory of a frame's window: 128 MiB is what the zstd
// command takes without being asked to.
const zstdWindowMax = 128 << 20

// blockBytesMax bounds a block of Hadoop's or snappy-java's framing.
const blockBytesMax = 64 << 20

var (
	gzipMagic   = []byte{0x1f, 0x8b}
	zstdMagic   = []byte{0x28, 0xb5, 0x2f, 0xfd}
	framedMagic = []byte("\xff\x06\x00\x00sNaPpY")
	javaMagic   = []byte("\x82SNAPPY\x00")
	blockMagic  = []byte{0x31, 0x41, 0x59, 0x26, 0x53, 0x59} // begins a block of bzip2
	endMagic    = []byte{0x17, 0x72, 0x45, 0x38, 0x50, 0x90} // ends a file of bzip2
)

// unreadExtensions are compressions that are not read.
var unreadExtensions = []string{".lzo", ".lz4", ".xz", ".lzma", ".br", ".zip", ".deflate", ".z", ".7z", ".rar"}

// plain undoes a file's compression. That is told by how the file begins, and for
// Hadoop's blocks of Snappy, which begin with a length, by the name.
func plain(name string, r *bufio.Reader) (io.Reader, func(), error) {
	none := func() {}
	head, err := r.Peek(16)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	lower := strings.ToLower(name)
	switch {
	case bytes.HasPrefix(head, gzipMagic):
		z, err := gzip.NewReader(r) // reads several members, one behind the other
		if err != nil {
			return nil, nil, fmt.Errorf("gzip: %w", err)
		}
		return prefixed{"gzip", z}, none, nil
	case bytes.HasPrefix(head, zstdMagic):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindowMax), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, nil, fmt.Errorf("zstd: %w", err)
		}
		return prefixed{"zstd", z}, z.Close, nil
	case len(head) >= 10 && head[0] == 'B' && head[1] == 'Z' && head[2] == 'h' && (bytes.Equal(head[4:10], blockMagic) || bytes.Equal(head[4:10], endMagic)):
		return prefixed{"bzip2", bzip2.NewReader(r)}, none, nil
	case bytes.HasPrefix(head, framedMagic):
		return prefixed{"snappy", s2.NewReader(r, s2.ReaderMaxBlockSize(64<<10))}, none, nil
	case bytes.HasPrefix(head, javaMagic):
		if _, err := r.Discard(len(head)); err != nil {
			return nil, nil, fmt.Errorf("snappy: %w", err)
		}
		return prefixed{"snappy", &blockReader{r: r}}, none, nil
	case strings.HasSuffix(lower, ".snappy") || strings.HasSuffix(lower, ".hsnappy"):
		return prefixed{"snappy", &blockReader{r: r, hadoop: true}}, none, nil
	}
	for _, x := range unreadExtensions {
		if strings.HasSuffix(lower, x) {
			return nil, nil, fmt.Errorf("compression %s is not supported: use gzip, zstd, snappy or bzip2", x)
		}
	}
	for _, x := range []string{".gz", ".zst", ".zstd", ".bz2"} {
		if strings.HasSuffix(lower, x) && len(head) > 0 {
			return nil, nil, fmt.Errorf("it is named %s and is not compressed so", x)
		}
	}
	return r, none, nil
}

// prefixed names the compression in errors.
type prefixed struct {
	what string
	r    io.Reader
}

func (p prefixed) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%s: %w", p.what, err)
	}
	return n, err
}

// blockReader reads raw blocks of Snappy behind their lengths: snappy-java's
// stream after its header, or Hadoop's blocks, which may consist of several
// chunks each.
type blockReader struct {
	r      *bufio.Reader
	hadoop bool
	left   int // bytes of the present Hadoop block that are still to come, uncompressed
	packed []byte
	block  []byte
	rest   []byte // of block, not yet read
}

func (b *blockReader) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		if err := b.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

func (b *blockReader) length() (int, error) {
	var head [4]byte
	if _, err := io.ReadFull(b.r, head[:]); err != nil {
		return 0, err // io.EOF at a block's beginning is the file's end
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > blockBytesMax {
		return 0, fmt.Errorf("a block of %d bytes, the limit is %d", n, blockBytesMax)
	}
	return int(n), nil
}

func (b *blockReader) next() error {
	if b.hadoop && b.left == 0 {
		n, err := b.length()
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		b.left = n
	}
	n, err := b.length()
	if err != nil {
		if errors.Is(err, io.EOF) && b.hadoop {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if cap(b.packed) < n {
		b.packed = make([]byte, n)
	}
	b.packed = b.packed[:n]
	if _, err := io.ReadFull(b.r, b.packed); err != nil {
		return io.ErrUnexpectedEOF
	}
	size, err := snappy.DecodedLen(b.packed)
	if err != nil {
		return err
	}
	if size > blockBytesMax || b.hadoop && size > b.left {
		return fmt.Errorf("a block of %d bytes is longer than it says", size)
	}
	if b.block, err = snappy.Decode(b.block[:cap(b.block)], b.packed); err != nil {
		return err
	}
	b.rest = b.block
	b.left -= size
	return nil
}
