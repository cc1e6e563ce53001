package lake

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tapehouse/tapehouse/internal/s3test"
)

func TestS3Foreign(t *testing.T) {
	server := s3test.Start(t)
	for _, prefix := range []string{"", "some/where"} {
		t.Run("prefix "+prefix, func(t *testing.T) {
			s := openS3(t, server, server.Endpoint, prefix, nil)
			put := func(name, content string) {
				t.Helper()
				if _, err := s.client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &s.o.Bucket, Key: s.key(name), Body: strings.NewReader(content)}); err != nil {
					t.Fatalf("put %q: %v", name, err)
				}
			}
			// The test's server keeps keys as paths of its file system.
			list := slices.DeleteFunc(slices.Clone(oddNames), func(n string) bool { return strings.ContainsAny(n, "\n\t\\") })
			foreignConformance(t, s, put, list)

			var listed ForeignFile
			put("changes/f", "abc")
			if err := s.ListFiles(t.Context(), "changes", func(f ForeignFile) error { listed = f; return nil }); err != nil {
				t.Fatal(err)
			}
			read := func() error {
				r, err := s.OpenFile(t.Context(), listed)
				if err != nil {
					return err
				}
				_, err = io.ReadAll(io.NewSectionReader(r, 0, r.SizeBytes()))
				return err
			}
			if err := read(); err != nil {
				t.Error(err)
			}
			put("changes/f", "xyz")
			if err := read(); !errors.Is(err, ErrChanged) {
				t.Errorf("an object that was replaced: %v", err)
			}
			if err := s.Unchanged(t.Context(), listed); !errors.Is(err, ErrChanged) {
				t.Errorf("an object that was replaced: %v", err)
			}
			if _, err := s.client.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &s.o.Bucket, Key: aws.String(s.prefix + "changes/f")}); err != nil {
				t.Fatal(err)
			}
			if err := read(); !errors.Is(err, ErrNotFound) {
				t.Errorf("an object that was deleted: %v", err)
			}
			if err := s.Unchanged(t.Context(), listed); !errors.Is(err, ErrNotFound) {
				t.Errorf("an object that was deleted: %v", err)
			}
		})
	}
}
