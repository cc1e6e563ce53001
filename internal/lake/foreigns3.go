package lake

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

var _ Foreign = (*S3)(nil)

// ListFiles implements Foreign: of the keys below the store's prefix.
func (s *S3) ListFiles(ctx context.Context, location string, fn func(ForeignFile) error) error {
	if err := checkLocation(location); err != nil {
		return err
	}
	if location != "" && !strings.HasSuffix(location, "/") {
		// The key itself is the first that begins with it.
		found := errors.New("found")
		err := s.listKeys(ctx, location, 1, func(f ForeignFile) error {
			if f.Name == location {
				if err := fn(f); err != nil {
					return err
				}
			}
			return found
		})
		if err != nil && !errors.Is(err, found) {
			return err
		}
		location += "/"
	}
	return s.listKeys(ctx, location, listPage, func(f ForeignFile) error {
		below := strings.TrimPrefix(f.Name, location)
		if below == "" || strings.HasSuffix(below, "/") && f.SizeBytes == 0 || hiddenBelow(below) {
			return nil // a folder's mark, or hidden
		}
		return fn(f)
	})
}

// listKeys calls fn for the objects whose names begin with prefix, in order.
func (s *S3) listKeys(ctx context.Context, prefix string, page int32, fn func(ForeignFile) error) error {
	var token *string
	for {
		var out *s3.ListObjectsV2Output
		if err := s.request(ctx, "ListObjectsV2", 0, func(ctx context.Context) (err error) {
			out, err = s.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &s.o.Bucket, Prefix: s.key(prefix), ContinuationToken: token, MaxKeys: aws.Int32(page)})
			return err
		}); err != nil {
			return fmt.Errorf("list %q: %w", prefix, err)
		}
		for _, o := range out.Contents {
			name, ok := strings.CutPrefix(aws.ToString(o.Key), s.prefix)
			if !ok {
				continue
			}
			f := ForeignFile{Name: name, SizeBytes: aws.ToInt64(o.Size), ModifiedAt: aws.ToTime(o.LastModified).UTC(), Version: aws.ToString(o.ETag)}
			if err := fn(f); err != nil {
				return err
			}
		}
		if !aws.ToBool(out.IsTruncated) || aws.ToString(out.NextContinuationToken) == "" {
			return nil
		}
		token = out.NextContinuationToken
	}
}

// OpenFile implements Foreign. Nothing is read yet: the first range tells
// whether the object still is the one that was listed.
func (s *S3) OpenFile(ctx context.Context, f ForeignFile) (Reader, error) {
	if f.Name == "" {
		return nil, fmt.Errorf("open %q: %w", f.Name, ErrName)
	}
	return foreignRanges{&rangeReader{ctx: ctx, s: s, name: f.Name, head: objectHead{sizeBytes: f.SizeBytes, etag: f.Version}}}, nil
}

type foreignRanges struct{ *rangeReader }

func (r foreignRanges) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.rangeReader.ReadAt(p, off)
	if statusOf(err) == http.StatusPreconditionFailed {
		err = fmt.Errorf("read %q: %w", r.name, ErrChanged)
	}
	return n, err
}

// Unchanged implements Foreign.
func (s *S3) Unchanged(ctx context.Context, f ForeignFile) error {
	h, err := s.head(ctx, s.key(f.Name))
	if err == nil && (h.etag != f.Version || h.sizeBytes != f.SizeBytes) {
		err = ErrChanged
	}
	if err != nil {
		return fmt.Errorf("%q: %w", f.Name, err)
	}
	return nil
}
