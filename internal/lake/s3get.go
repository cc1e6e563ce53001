package lake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// downloadsWidth is the number of ranges of one object that are fetched together.
const downloadsWidth = 4

// getSmall reads an object of at most smallBytesMax, checked against its
// checksum; of a larger one it returns nil and the head alone.
func (s *S3) getSmall(ctx context.Context, name string) (b []byte, h objectHead, err error) {
	err = s.request(ctx, "GetObject", smallBytesMax, func(ctx context.Context) error {
		out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.o.Bucket, Key: s.key(name), ChecksumMode: types.ChecksumModeEnabled})
		if err != nil {
			return err
		}
		defer out.Body.Close() //nolint:errcheck // an unread rest is dropped with its connection
		h = newHead(out.ContentLength, out.ETag, out.LastModified, out.ChecksumCRC32C, out.ChecksumType, out.Metadata)
		if h.sizeBytes > smallBytesMax {
			b = nil
			return nil
		}
		b = make([]byte, h.sizeBytes)
		if _, err := io.ReadFull(out.Body, b); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		return h.verify(int64(len(b)), checksum(b))
	})
	if isMissing(err) {
		err = fmt.Errorf("%w (%s)", ErrNotFound, *s.key(name))
	}
	if err != nil {
		return nil, h, err
	}
	return b, h, nil
}

// get reads an object of at most GetBytesMax, checked against its checksum.
func (s *S3) get(ctx context.Context, name string) ([]byte, error) {
	b, h, err := s.getSmall(ctx, name)
	if err != nil || b != nil {
		return b, err
	}
	if h.sizeBytes > GetBytesMax {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, h.sizeBytes, GetBytesMax)
	}
	b = make([]byte, h.sizeBytes)
	err = whileDamaged(func() error {
		if err := InParallel(ctx, downloadsWidth, s.partsOf(h.sizeBytes), func(ctx context.Context, i int) error {
			off := int64(i) * s.o.PartBytes
			return s.getRange(ctx, name, h.etag, b[off:min(off+s.o.PartBytes, h.sizeBytes)], off)
		}); err != nil {
			return err
		}
		return h.verify(int64(len(b)), checksum(b))
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// partsOf is the number of parts of an object.
func (s *S3) partsOf(sizeBytes int64) int {
	return int((sizeBytes + s.o.PartBytes - 1) / s.o.PartBytes)
}

// whileDamaged repeats a fetch whose content came damaged, within reason: if it
// is the object that is damaged, it stays so.
func whileDamaged(fetch func() error) error {
	var err error
	for range 3 {
		if err = fetch(); !errors.Is(err, ErrChecksum) {
			return err
		}
	}
	return err
}

// getRange fills p from off on, of the object that has the ETag.
func (s *S3) getRange(ctx context.Context, name, etag string, p []byte, off int64) error {
	err := s.request(ctx, "GetObject", int64(len(p)), func(ctx context.Context) error {
		out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.o.Bucket, Key: s.key(name), IfMatch: nonEmpty(etag),
			Range: aws.String(fmt.Sprintf("bytes=%d-%d", off, off+int64(len(p))-1))})
		if err != nil {
			return err
		}
		defer out.Body.Close() //nolint:errcheck // an unread rest is dropped with its connection
		if n := aws.ToInt64(out.ContentLength); n != int64(len(p)) {
			return permanentError{fmt.Errorf("asked for %d bytes, the answer has %d", len(p), n)}
		}
		if _, err := io.ReadFull(out.Body, p); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		return nil
	})
	switch {
	case isMissing(err):
		return fmt.Errorf("%w (%s)", ErrNotFound, *s.key(name))
	case statusOf(err) == http.StatusPreconditionFailed:
		return fmt.Errorf("the object was replaced while it was read: %w", err)
	}
	return err
}

// download writes the object that h describes to f, in ranges if it is large,
// and checks what it wrote.
func (s *S3) download(ctx context.Context, name string, h objectHead, f *os.File) error {
	return whileDamaged(func() error {
		if err := InParallel(ctx, downloadsWidth, s.partsOf(h.sizeBytes), func(ctx context.Context, i int) error {
			buffer, err := s.takeSlot(ctx)
			if err != nil {
				return err
			}
			defer func() { s.slots <- buffer }()
			off := int64(i) * s.o.PartBytes
			part := buffer[:min(s.o.PartBytes, h.sizeBytes-off)]
			if err := s.getRange(ctx, name, h.etag, part, off); err != nil {
				return err
			}
			_, err = f.WriteAt(part, off)
			return err
		}); err != nil {
			return err
		}
		sum, err := fileChecksum(io.NewSectionReader(f, 0, h.sizeBytes))
		if err != nil {
			return err
		}
		return h.verify(h.sizeBytes, sum)
	})
}
