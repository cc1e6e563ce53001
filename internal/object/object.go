// Package object assembles one delivery object from records: a record's bytes, the
// delimiter if one is configured, the next record, all of it compressed as the
// destination says, byte for byte as Data Firehose frames it.
//
//	UNCOMPRESSED   the records, nothing else
//	GZIP           one gzip member (RFC 1952), no name, no time, operating system unknown
//	ZIP            one deflated entry, dated 1980-01-01
//	Snappy         snappy-java's stream, which is not Snappy's own framing format:
//	                 82 'S' 'N' 'A' 'P' 'P' 'Y' 00  version:u32=1  compatible:u32=1
//	                 { length:u32  block }*                           of up to 32 KiB each
//	HADOOP_SNAPPY  Hadoop's blocks:
//	                 { uncompressed:u32  length:u32  block }*         of up to 32 KiB each
//
// Integers are big-endian, a block is Snappy's raw format, an object of no bytes has
// no block. See docs/formats/object.md.
//
// The bytes depend on the records and the options alone, never on the clock or on
// how records were cut into calls: a flush plan carried out again by the same
// program overwrites an object with the same bytes. (A later program may compress
// otherwise; what it writes then stands for the same records.)
//
// A Writer holds one block or one compressor's window, whatever the object's size.
package object

import (
	"archive/zip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
)

// ErrInvalid is the root of every error about options.
var ErrInvalid = errors.New("invalid object options")

// Compression is the API's CompressionFormat.
type Compression string

// The compressions.
const (
	Uncompressed Compression = "UNCOMPRESSED"
	Gzip         Compression = "GZIP"
	Zip          Compression = "ZIP"
	Snappy       Compression = "Snappy"
	HadoopSnappy Compression = "HADOOP_SNAPPY"
)

// extensions are those of AWS's documentation, which is the list of all formats.
var extensions = map[Compression]string{Uncompressed: "", Gzip: ".gz", Zip: ".zip", Snappy: ".snappy", HadoopSnappy: ".hsnappy"}

// ParseCompression reads a CompressionFormat; "" is UNCOMPRESSED. Case matters, as
// in the API.
func ParseCompression(s string) (Compression, error) {
	if s == "" {
		return Uncompressed, nil
	}
	if _, ok := extensions[Compression(s)]; !ok {
		return "", fmt.Errorf("%w: CompressionFormat %q: want UNCOMPRESSED, GZIP, ZIP, Snappy or HADOOP_SNAPPY", ErrInvalid, s)
	}
	return Compression(s), nil
}

// Extension is what the name of an object ends in: the configured FileExtension,
// which replaces that of the compression, or the compression's own.
func Extension(c Compression, fileExtension string) string {
	if fileExtension != "" {
		return fileExtension
	}
	return extensions[c]
}

// delimiterBytesMax bounds a delimiter.
const delimiterBytesMax = 64

// ParseDelimiter reads the Delimiter parameter of AppendDelimiterToRecord, in which
// \n, \r, \t and \\ stand for what they do in programs; "" is \n.
func ParseDelimiter(s string) ([]byte, error) {
	if s == "" {
		return []byte("\n"), nil
	}
	text := strings.NewReplacer(`\n`, "\n", `\r`, "\r", `\t`, "\t", `\\`, `\`).Replace(s)
	if len(text) > delimiterBytesMax {
		return nil, fmt.Errorf("%w: delimiter of %d bytes, above the limit of %d", ErrInvalid, len(text), delimiterBytesMax)
	}
	return []byte(text), nil
}

const (
	// blockBytes is snappy-java's default block, which Firehose uses.
	blockBytes = 32 << 10
	// snappyVersion stands twice in snappy-java's header: the version, and the
	// lowest that reads it.
	snappyVersion = 1
)

// zipTime is the earliest that a ZIP entry can be dated.
var zipTime = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// Options say how an object is assembled.
type Options struct {
	Compression Compression
	// Delimiter is written behind each record (Firehose's AppendDelimiterToRecord,
	// its escapes already undone); nil for none.
	Delimiter []byte
	// EntryName names the entry of a ZIP, without '/'.
	EntryName string
}

// Writer assembles one object. It is not safe for concurrent use. After an error it
// is good for nothing but Close.
type Writer struct {
	options   Options
	out       io.Writer    // what records are written to
	finish    func() error // writes what ends the framing
	sizeBytes int64
	records   int64
	err       error
}

// NewWriter returns a Writer onto w, which stays the caller's to close.
func NewWriter(w io.Writer, o Options) (*Writer, error) {
	x := &Writer{options: o, out: w, finish: func() error { return nil }}
	switch o.Compression {
	case Uncompressed:
	case Gzip:
		z := gzip.NewWriter(w)
		z.ModTime = time.Unix(0, 0) // "no time" in the header; a zero Time is written as 2042
		x.out, x.finish = z, z.Close
	case Zip:
		if o.EntryName == "" || strings.ContainsAny(o.EntryName, `/\`) {
			return nil, fmt.Errorf("%w: ZIP entry name %q", ErrInvalid, o.EntryName)
		}
		z := zip.NewWriter(w)
		z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) {
			return flate.NewWriter(w, flate.DefaultCompression)
		})
		entry, err := z.CreateHeader(&zip.FileHeader{Name: o.EntryName, Method: zip.Deflate, Modified: zipTime})
		if err != nil {
			return nil, fmt.Errorf("begin ZIP entry: %w", err)
		}
		x.out, x.finish = entry, z.Close
	case Snappy, HadoopSnappy:
		b := &blockWriter{out: w, hadoop: o.Compression == HadoopSnappy}
		if !b.hadoop {
			header := append([]byte{0x82}, "SNAPPY\x00"...)
			header = binary.BigEndian.AppendUint32(header, snappyVersion)
			header = binary.BigEndian.AppendUint32(header, snappyVersion)
			if _, err := w.Write(header); err != nil {
				return nil, fmt.Errorf("begin object: %w", err)
			}
		}
		x.out, x.finish = b, b.flush
	default:
		return nil, fmt.Errorf("%w: compression %q", ErrInvalid, o.Compression)
	}
	return x, nil
}

// Append adds one record. It does not keep it.
func (w *Writer) Append(record []byte) error {
	if w.err != nil {
		return w.err
	}
	if _, w.err = w.out.Write(record); w.err == nil && len(w.options.Delimiter) > 0 {
		_, w.err = w.out.Write(w.options.Delimiter)
	}
	if w.err != nil {
		w.err = fmt.Errorf("append record to object: %w", w.err)
		return w.err
	}
	w.records++
	w.sizeBytes += RecordBytes(record, w.options.Delimiter)
	return nil
}

// RecordBytes is what a record adds to SizeBytes.
func RecordBytes(record, delimiter []byte) int64 { return int64(len(record) + len(delimiter)) }

// SizeBytes is the object's size before compression, which is what buffer hints
// measure.
func (w *Writer) SizeBytes() int64 { return w.sizeBytes }

// Records is the number of records appended.
func (w *Writer) Records() int64 { return w.records }

// Close ends the object. It does not close the writer underneath. It returns the
// first error of any call.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	if err := w.finish(); err != nil {
		w.err = fmt.Errorf("end object: %w", err)
		return w.err
	}
	w.finish = func() error { return nil }
	w.err = errClosed
	return nil
}

var errClosed = errors.New("object is closed")

// blockWriter cuts what it is given into blocks.
type blockWriter struct {
	out    io.Writer
	hadoop bool
	plain  []byte // of the block in the making
	frame  []byte
}

func (b *blockWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if b.plain == nil {
			b.plain = make([]byte, 0, blockBytes)
		}
		room := min(blockBytes-len(b.plain), len(p))
		b.plain = append(b.plain, p[:room]...)
		p = p[room:]
		if len(b.plain) == blockBytes {
			if err := b.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

// flush writes the block in the making, if it has any bytes.
func (b *blockWriter) flush() error {
	if len(b.plain) == 0 {
		return nil
	}
	header := 4
	if b.hadoop {
		header = 8
	}
	if b.frame == nil {
		b.frame = make([]byte, header+s2.MaxEncodedLen(blockBytes))
	}
	block := s2.EncodeSnappy(b.frame[header:], b.plain)
	if b.hadoop {
		binary.BigEndian.PutUint32(b.frame, uint32(len(b.plain)))
	}
	binary.BigEndian.PutUint32(b.frame[header-4:], uint32(len(block)))
	b.plain = b.plain[:0]
	_, err := b.out.Write(b.frame[:header+len(block)])
	return err
}
