package lake

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/google/uuid"
)

// The metadata that a put gives its object, in lower case as S3 answers.
const (
	metaPut      = "tapehouse-put"    // the put's id
	metaChecksum = "tapehouse-crc32c" // as S3 writes a CRC-32C; absent where it was not known in time
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	// ErrChecksum says that an object's content is not what was put.
	ErrChecksum = errors.New("object does not match its checksum")
	// errVanished says that a name was taken, and then no object was there.
	errVanished = errors.New("the object that was in the way has vanished")
)

// checksumText is a CRC-32C as S3 writes it.
func checksumText(sum uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
}

func checksum(b []byte) string { return checksumText(crc32.Checksum(b, castagnoli)) }

func fileChecksum(r io.Reader) (string, error) {
	h := crc32.New(castagnoli)
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return checksumText(h.Sum32()), nil
}

// objectHead is what the service says of an object.
type objectHead struct {
	sizeBytes  int64
	etag       string
	modifiedAt time.Time // UTC
	put        string    // id of the put that made it, "" of a foreign one
	checksum   string    // CRC-32C of the whole; "" where neither service nor put has it
}

func newHead(size *int64, etag *string, modified *time.Time, sum *string, kind types.ChecksumType, meta map[string]string) objectHead {
	h := objectHead{aws.ToInt64(size), aws.ToString(etag), aws.ToTime(modified).UTC(), meta[metaPut], meta[metaChecksum]}
	// A checksum of parts' checksums says nothing about the whole.
	if c := aws.ToString(sum); c != "" && kind != types.ChecksumTypeComposite && !strings.Contains(c, "-") {
		h.checksum = c
	}
	return h
}

// verify compares content with what the service says of it.
func (h objectHead) verify(sizeBytes int64, sum string) error {
	switch {
	case sizeBytes != h.sizeBytes:
		return fmt.Errorf("%w: %d bytes, want %d", ErrChecksum, sizeBytes, h.sizeBytes)
	case h.checksum != "" && sum != h.checksum:
		return fmt.Errorf("%w: CRC-32C %s, want %s", ErrChecksum, sum, h.checksum)
	}
	return nil
}

func (s *S3) head(ctx context.Context, key *string) (h objectHead, err error) {
	err = s.request(ctx, "HeadObject", 0, func(ctx context.Context) error {
		out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.o.Bucket, Key: key, ChecksumMode: types.ChecksumModeEnabled})
		if err == nil {
			h = newHead(out.ContentLength, out.ETag, out.LastModified, out.ChecksumCRC32C, out.ChecksumType, out.Metadata)
		}
		return err
	})
	if isMissing(err) {
		err = fmt.Errorf("%w (%s)", ErrNotFound, *key)
	}
	return h, err
}

// putID is one put: whatever attempts it takes, its object has this id.
type putID struct {
	id        string
	sizeBytes int64
	checksum  string
}

// put stores what r gives. sum is the whole's checksum where it is known.
func (s *S3) put(ctx context.Context, name string, r io.Reader, sizeBytes int64, sum string) error {
	if sizeBytes > s.o.PartBytes {
		return s.putParts(ctx, name, r, sizeBytes, sum)
	}
	buffer, err := s.takeSlot(ctx)
	if err != nil {
		return err
	}
	defer func() { s.slots <- buffer }()
	data := buffer[:sizeBytes]
	if err := readExactly(r, data, true, sizeBytes); err != nil {
		return err
	}
	return s.putBytes(ctx, name, data)
}

// takeSlot takes a buffer of a part's size, to be given back to slots.
func (s *S3) takeSlot(ctx context.Context) ([]byte, error) {
	select {
	case b := <-s.slots:
		if b == nil {
			b = make([]byte, s.o.PartBytes)
		}
		return b, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// readExactly fills b; if it is the last of an object, nothing may follow.
func readExactly(r io.Reader, b []byte, last bool, sizeBytes int64) error {
	n, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%d bytes announced, %d fewer read: %w", sizeBytes, len(b)-n, io.ErrUnexpectedEOF)
	}
	if err != nil || !last {
		return err
	}
	var more [1]byte
	if n, err := io.ReadFull(r, more[:]); n > 0 {
		return fmt.Errorf("%d bytes announced, more read: %w", sizeBytes, io.ErrUnexpectedEOF)
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// putBytes stores an object with one request.
func (s *S3) putBytes(ctx context.Context, name string, data []byte) error {
	p := putID{uuid.NewString(), int64(len(data)), checksum(data)}
	for n := 0; ; n++ {
		err := s.request(ctx, "PutObject", p.sizeBytes, func(ctx context.Context) error {
			_, err := s.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &s.o.Bucket, Key: s.key(name), Body: bytes.NewReader(data), ContentLength: &p.sizeBytes,
				IfNoneMatch: aws.String("*"), ChecksumCRC32C: &p.checksum, Metadata: map[string]string{metaPut: p.id, metaChecksum: p.checksum}})
			return err
		})
		if err = s.settle(ctx, name, p, err); !errors.Is(err, errVanished) || n+1 >= s.o.Attempts {
			return err
		}
	}
}

// settle tells what a put came to whose last answer was err: the object that
// now has the name says so. Nil: the object is there, and it is this put's.
func (s *S3) settle(ctx context.Context, name string, p putID, err error) error {
	taken := isTaken(err)
	if err == nil || ctx.Err() != nil || !taken && !retryable(err) && codeOf(err) != "NoSuchUpload" {
		return err // done, or refused for a reason that leaves no doubt
	}
	h, herr := s.head(ctx, s.key(name))
	switch {
	case errors.Is(herr, ErrNotFound) && taken:
		return fmt.Errorf("%w: %w", errVanished, err)
	case errors.Is(herr, ErrNotFound):
		return err
	case herr != nil:
		return fmt.Errorf("%w; whether it was done cannot be told: %w", err, herr)
	case h.put != p.id:
		return ErrExists
	}
	if err := h.verify(p.sizeBytes, p.checksum); err != nil {
		return fmt.Errorf("stored, but %w", err)
	}
	s.metrics.recovered.Inc()
	s.o.Logger.Debug("put was done although its answer was lost", "name", name)
	return nil
}

// putParts stores an object in parts. Its memory is the buffers of the parts in
// flight.
func (s *S3) putParts(ctx context.Context, name string, r io.Reader, sizeBytes int64, sum string) error {
	if sizeBytes > s.o.PartBytes*partsMax {
		return fmt.Errorf("%w: %d bytes, %d parts of %d bytes are the limit: raise the size of a part", ErrTooLarge, sizeBytes, partsMax, s.o.PartBytes)
	}
	p := putID{uuid.NewString(), sizeBytes, sum}
	meta := map[string]string{metaPut: p.id}
	if sum != "" {
		meta[metaChecksum] = sum
	}
	var upload *string
	if err := s.request(ctx, "CreateMultipartUpload", 0, func(ctx context.Context) error {
		out, err := s.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &s.o.Bucket, Key: s.key(name), Metadata: meta,
			ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c, ChecksumType: types.ChecksumTypeFullObject})
		if err == nil {
			upload = out.UploadId
		}
		return err
	}); err != nil {
		return err // a lost answer leaves an upload without parts, see AbortLeftovers
	}
	parts, sum, err := s.uploadParts(ctx, name, upload, r, sizeBytes)
	if err != nil {
		s.abort(ctx, name, upload)
		return err
	}
	if p.checksum == "" {
		p.checksum = sum
	}
	if sum != p.checksum {
		s.abort(ctx, name, upload)
		return fmt.Errorf("%w: the source changed while it was read", ErrChecksum)
	}
	err = s.request(ctx, "CompleteMultipartUpload", 0, func(ctx context.Context) error {
		_, err := s.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: &s.o.Bucket, Key: s.key(name), UploadId: upload, IfNoneMatch: aws.String("*"),
			MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}, MpuObjectSize: &sizeBytes,
			ChecksumCRC32C: &p.checksum, ChecksumType: types.ChecksumTypeFullObject})
		return err
	})
	if err != nil {
		// First the abort, then the look: an upload that is gone can no longer
		// be completed, so that what is seen is final.
		s.abort(ctx, name, upload)
	}
	return s.settle(ctx, name, p, err)
}

// uploadParts uploads r as it is read, several parts at a time, and returns the
// parts and the checksum of the whole.
func (s *S3) uploadParts(ctx context.Context, name string, upload *string, r io.Reader, sizeBytes int64) ([]types.CompletedPart, string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	count := s.partsOf(sizeBytes)
	parts := make([]types.CompletedPart, count)
	whole := crc32.New(castagnoli)
	var wg sync.WaitGroup
	for i := range count {
		buffer, err := s.takeSlot(ctx)
		if err != nil {
			break // cancelled
		}
		data := buffer[:min(s.o.PartBytes, sizeBytes-int64(i)*s.o.PartBytes)]
		if err := readExactly(r, data, i == count-1, sizeBytes); err != nil {
			s.slots <- buffer
			cancel(err)
			break
		}
		_, _ = whole.Write(data) // a hash never fails
		wg.Go(func() {
			defer func() { s.slots <- buffer }()
			if err := s.uploadPart(ctx, name, upload, int32(i+1), data, &parts[i]); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, "", context.Cause(ctx)
	}
	return parts, checksumText(whole.Sum32()), nil
}

func (s *S3) uploadPart(ctx context.Context, name string, upload *string, number int32, data []byte, done *types.CompletedPart) error {
	sum, size := checksum(data), int64(len(data))
	err := s.request(ctx, "UploadPart", size, func(ctx context.Context) error {
		out, err := s.client.UploadPart(ctx, &s3.UploadPartInput{Bucket: &s.o.Bucket, Key: s.key(name), UploadId: upload, PartNumber: &number,
			Body: bytes.NewReader(data), ContentLength: &size, ChecksumCRC32C: &sum})
		if err == nil {
			*done = types.CompletedPart{ETag: out.ETag, PartNumber: &number, ChecksumCRC32C: &sum}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("part %d: %w", number, err)
	}
	return nil
}

// abort removes an upload's parts. What it cannot remove AbortLeftovers does.
func (s *S3) abort(ctx context.Context, name string, upload *string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortWait)
	defer cancel()
	err := s.request(ctx, "AbortMultipartUpload", 0, func(ctx context.Context) error {
		_, err := s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.o.Bucket, Key: s.key(name), UploadId: upload})
		return err
	})
	if err != nil && codeOf(err) != "NoSuchUpload" {
		s.o.Logger.Warn("parts of a failed upload are left in the bucket until the next sweep", "name", name, "error", err)
	}
}

// AbortLeftovers removes the parts of uploads below the prefix that were begun
// more than minAge ago and never completed, as a crash leaves them. minAge must
// exceed the longest upload. It returns how many there were.
func (s *S3) AbortLeftovers(ctx context.Context, minAge time.Duration) (int, error) {
	n := 0
	var keyMarker, idMarker *string
	for {
		var page *s3.ListMultipartUploadsOutput
		if err := s.request(ctx, "ListMultipartUploads", 0, func(ctx context.Context) (err error) {
			page, err = s.client.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: &s.o.Bucket, Prefix: nonEmpty(s.prefix), KeyMarker: keyMarker, UploadIdMarker: idMarker})
			return err
		}); err != nil {
			return n, fmt.Errorf("list unfinished uploads: %w", err)
		}
		for _, u := range page.Uploads {
			name, ok := strings.CutPrefix(aws.ToString(u.Key), s.prefix)
			if !ok || CheckName(name) != nil || time.Since(aws.ToTime(u.Initiated)) < minAge {
				continue
			}
			s.abort(ctx, name, u.UploadId)
			n++
		}
		if !aws.ToBool(page.IsTruncated) {
			return n, nil
		}
		keyMarker, idMarker = page.NextKeyMarker, page.NextUploadIdMarker
	}
}
