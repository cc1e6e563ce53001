package lake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/s3test"
)

func TestMain(m *testing.M) { s3test.Main(m) }

// openS3 opens a store on the server, behind whatever endpoint is given.
func openS3(t testing.TB, server *s3test.Server, endpoint, prefix string, change func(*S3Options)) *S3 {
	t.Helper()
	o := S3Options{Bucket: server.Bucket, Prefix: prefix, Region: s3test.Region, Endpoint: endpoint, PathStyle: true,
		AccessKeyID: s3test.AccessKeyID, SecretAccessKey: s3test.SecretAccessKey, PartBytes: partBytesMin}
	if change != nil {
		change(&o)
	}
	s, err := OpenS3(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	s.backoff = backoff{time.Millisecond, 50 * time.Millisecond}
	t.Cleanup(func() {
		if len(s.slots) != cap(s.slots) {
			t.Errorf("%d buffers were not given back", cap(s.slots)-len(s.slots))
		}
	})
	return s
}

// TestConformance holds every kind of store to the contract of Store.
func TestConformance(t *testing.T) {
	t.Run("os", func(t *testing.T) {
		conformance(t, func(t *testing.T) (Store, string) {
			dir := filepath.Join(t.TempDir(), "lake")
			s, err := OpenLocal(fsys.OS, dir)
			if err != nil {
				t.Fatal(err)
			}
			return s, "file://" + dir
		})
	})
	server := s3test.Start(t)
	n := 0
	for _, shape := range []string{"a/lake%d", "/lake%d/", ""} {
		t.Run("s3 prefix "+fmt.Sprintf("%q", shape), func(t *testing.T) {
			conformance(t, func(t *testing.T) (Store, string) {
				n++
				prefix, bucket := shape, server.Bucket
				if shape == "" {
					bucket = fmt.Sprintf("bucket%d", n)
					if err := os.Mkdir(filepath.Join(server.Root, bucket), 0o755); err != nil {
						t.Fatal(err)
					}
				} else {
					prefix = fmt.Sprintf(shape, n)
				}
				s := openS3(t, server, server.Endpoint, prefix, func(o *S3Options) { o.Bucket = bucket })
				return s, strings.TrimSuffix("s3://"+bucket+"/"+strings.Trim(prefix, "/"), "/")
			})
		})
	}
	t.Run("cache", func(t *testing.T) {
		conformance(t, func(t *testing.T) (Store, string) {
			n++
			prefix := fmt.Sprintf("cached%d", n)
			c, err := OpenCache(openS3(t, server, server.Endpoint, prefix, nil), CacheOptions{Dir: filepath.Join(t.TempDir(), "cache")})
			if err != nil {
				t.Fatal(err)
			}
			return c, "s3://" + server.Bucket + "/" + prefix
		})
	})
}

// random is n bytes that no compression shortens.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	_, _ = r.Read(b)
	return b
}

func conformance(t *testing.T, open func(t *testing.T) (s Store, uri string)) {
	t.Run("objects", func(t *testing.T) {
		s, _ := open(t)
		ctx := t.Context()
		if got := listed(t, s, ""); len(got) != 0 {
			t.Errorf("a new store lists %v", got)
		}
		put(t, s, "ns/t-1/data/a.parquet", "hello")
		put(t, s, "ns/t-1/data/b=c+d@e~f", "")
		put(t, s, "ns/t-10/data/c.parquet", "x")
		before := time.Now().Add(-time.Minute)

		if err := s.Put(ctx, "ns/t-1/data/a.parquet", strings.NewReader("other"), 5); !errors.Is(err, ErrExists) {
			t.Errorf("second put: %v, want ErrExists", err)
		}
		if err := s.Put(ctx, "ns/t-1/data/a.parquet", strings.NewReader("hello"), 5); !errors.Is(err, ErrExists) {
			t.Errorf("second put of the same content: %v, want ErrExists", err)
		}
		if err := s.Put(ctx, "ns/t-1/data/short", strings.NewReader("abc"), 5); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("short put: %v", err)
		}
		if err := s.Put(ctx, "ns/t-1/data/long", strings.NewReader("abcdef"), 5); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("long put: %v", err)
		}
		for _, name := range []string{"ns/t-1/data/short", "ns/t-1/data/long"} {
			if _, err := s.Stat(ctx, name); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s left an object: %v", name, err)
			}
		}
		boom := errors.New("boom")
		if err := s.Put(ctx, "ns/t-1/data/broken", iotest.ErrReader(boom), 5); !errors.Is(err, boom) {
			t.Errorf("put of a broken source: %v", err)
		}
		for _, name := range []string{"", "/a", "../x", "a/.b", "a b"} {
			if err := s.Put(ctx, name, strings.NewReader(""), 0); !errors.Is(err, ErrName) {
				t.Errorf("Put(%q) = %v", name, err)
			}
			if _, err := s.Stat(ctx, name); !errors.Is(err, ErrName) {
				t.Errorf("Stat(%q) = %v", name, err)
			}
			if _, err := s.Get(ctx, name); !errors.Is(err, ErrName) {
				t.Errorf("Get(%q) = %v", name, err)
			}
			if err := s.Delete(ctx, name); !errors.Is(err, ErrName) {
				t.Errorf("Delete(%q) = %v", name, err)
			}
		}
		if b, err := s.Get(ctx, "ns/t-1/data/a.parquet"); err != nil || string(b) != "hello" {
			t.Errorf("Get = %q, %v", b, err)
		}
		if b, err := s.Get(ctx, "ns/t-1/data/b=c+d@e~f"); err != nil || len(b) != 0 {
			t.Errorf("Get of an empty object = %q, %v", b, err)
		}
		if _, err := s.Get(ctx, "ns/none"); !errors.Is(err, ErrNotFound) {
			t.Errorf("Get of nothing: %v", err)
		}
		if _, err := s.Open(ctx, "ns/none"); !errors.Is(err, ErrNotFound) {
			t.Errorf("Open of nothing: %v", err)
		}
		if i, err := s.Stat(ctx, "ns/t-1/data/a.parquet"); err != nil || i.Name != "ns/t-1/data/a.parquet" || i.SizeBytes != 5 || i.ModifiedAt.Location() != time.UTC || i.ModifiedAt.Before(before) {
			t.Errorf("Stat = %+v, %v", i, err)
		}
		if _, err := s.Stat(ctx, "ns/t-1"); !errors.Is(err, ErrNotFound) {
			t.Errorf("Stat of a directory: %v", err)
		}
		if got, want := listed(t, s, "ns/t-1"), []string{"ns/t-1/data/a.parquet:5", "ns/t-1/data/b=c+d@e~f:0", "ns/t-10/data/c.parquet:1"}; !slices.Equal(got, want) {
			t.Errorf("List = %v, want %v", got, want)
		}
		if got, want := listed(t, s, "ns/t-1/"), []string{"ns/t-1/data/a.parquet:5", "ns/t-1/data/b=c+d@e~f:0"}; !slices.Equal(got, want) {
			t.Errorf("List = %v, want %v", got, want)
		}
		if err := s.List(ctx, "../x", func(Info) error { return nil }); !errors.Is(err, ErrName) {
			t.Errorf("List outside: %v", err)
		}
		if err := s.List(ctx, "", func(Info) error { return boom }); !errors.Is(err, boom) {
			t.Errorf("List does not stop: %v", err)
		}
		if err := s.Delete(ctx); err != nil {
			t.Error(err)
		}
		if err := s.Delete(ctx, "ns/t-1/data/a.parquet", "ns/none"); err != nil {
			t.Error(err)
		}
		if err := s.Delete(ctx, "ns/t-1/data/a.parquet"); err != nil {
			t.Errorf("second delete: %v", err)
		}
		if got := listed(t, s, "ns/t-1/"); !slices.Equal(got, []string{"ns/t-1/data/b=c+d@e~f:0"}) {
			t.Errorf("after Delete: %v", got)
		}
	})
	t.Run("ranges", func(t *testing.T) {
		s, _ := open(t)
		for _, size := range []int{5, partBytesMin, smallBytesMax + 1, 3*partBytesMin + 7} {
			name := fmt.Sprintf("data/%d.bin", size)
			data := random(uint64(size), size)
			if err := s.Put(t.Context(), name, iotest.HalfReader(bytes.NewReader(data)), int64(size)); err != nil {
				t.Fatal(err)
			}
			if b, err := s.Get(t.Context(), name); err != nil || !bytes.Equal(b, data) {
				t.Errorf("Get of %d bytes: %d bytes, %v", size, len(b), err)
			}
			r, err := s.Open(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if r.SizeBytes() != int64(size) {
				t.Errorf("SizeBytes = %d, want %d", r.SizeBytes(), size)
			}
			var wg sync.WaitGroup
			for i := range 4 { // ReadAt is concurrent
				wg.Go(func() {
					off := i * size / 5
					part := make([]byte, size/5)
					if n, err := r.ReadAt(part, int64(off)); n != len(part) || err != nil || !bytes.Equal(part, data[off:off+len(part)]) {
						t.Errorf("ReadAt %d of %d: %d, %v", off, size, n, err)
					}
				})
			}
			wg.Wait()
			over := make([]byte, 4)
			if n, err := r.ReadAt(over, int64(size)-2); n != 2 || !errors.Is(err, io.EOF) || !bytes.Equal(over[:2], data[size-2:]) {
				t.Errorf("ReadAt over the end: %d, %v", n, err)
			}
			if n, err := r.ReadAt(over, int64(size)); n != 0 || !errors.Is(err, io.EOF) {
				t.Errorf("ReadAt behind the end: %d, %v", n, err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if err := s.Put(t.Context(), name, bytes.NewReader(data), int64(size)); !errors.Is(err, ErrExists) {
				t.Errorf("second put of %d bytes: %v", size, err)
			}
			if err := s.Put(t.Context(), name+"-short", bytes.NewReader(data[1:]), int64(size)); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("short put of %d bytes: %v", size, err)
			}
		}
		if got := listed(t, s, ""); len(got) != 4 {
			t.Errorf("List = %v", got)
		}
	})
	t.Run("PutAll", func(t *testing.T) {
		s, _ := open(t)
		ctx := t.Context()
		if err := s.PutAll(ctx, []Object{{"a/1", []byte("one")}, {"a/2", []byte("two")}, {"b/3", nil}}); err != nil {
			t.Fatal(err)
		}
		if err := s.PutAll(ctx, nil); err != nil {
			t.Fatal(err)
		}
		if got := listed(t, s, ""); !slices.Equal(got, []string{"a/1:3", "a/2:3", "b/3:0"}) {
			t.Errorf("List = %v", got)
		}
		if err := s.PutAll(ctx, []Object{{"a/1", nil}}); !errors.Is(err, ErrExists) {
			t.Errorf("PutAll over an object: %v", err)
		}
		if err := s.PutAll(ctx, []Object{{"c/1", nil}, {"c/../1", nil}}); !errors.Is(err, ErrName) {
			t.Errorf("PutAll of a bad name: %v", err)
		}
		if b, err := s.Get(ctx, "a/1"); err != nil || string(b) != "one" {
			t.Errorf("Get = %q, %v", b, err)
		}
	})
	t.Run("PutFile", func(t *testing.T) {
		s, _ := open(t)
		for _, size := range []int{0, 1000, 2*partBytesMin + 1} {
			name, path := fmt.Sprintf("x/%d", size), filepath.Join(t.TempDir(), "work.parquet")
			data := random(7, size)
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := s.PutFile(t.Context(), name, path); err != nil {
				t.Fatal(err)
			}
			if b, err := s.Get(t.Context(), name); err != nil || !bytes.Equal(b, data) {
				t.Errorf("Get = %d bytes, %v", len(b), err)
			}
			if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the source is still there: %v", err)
			}
			if err := s.PutFile(t.Context(), "x/none", path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("PutFile of nothing: %v", err)
			}
			if err := os.WriteFile(path, []byte("other"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := s.PutFile(t.Context(), name, path); !errors.Is(err, ErrExists) {
				t.Errorf("PutFile over an object: %v", err)
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != "other" {
				t.Errorf("a refused source: %q, %v", b, err)
			}
		}
	})
	t.Run("one of many", func(t *testing.T) {
		s, _ := open(t)
		for _, size := range []int{100, partBytesMin + 1} {
			name := fmt.Sprintf("n/same-%d", size)
			var wg sync.WaitGroup
			errs := make([]error, 6)
			for i := range errs {
				wg.Go(func() {
					errs[i] = s.Put(t.Context(), name, bytes.NewReader(bytes.Repeat([]byte{byte('a' + i)}, size)), int64(size))
				})
			}
			wg.Wait()
			winner := -1
			for i, err := range errs {
				switch {
				case err == nil && winner >= 0:
					t.Errorf("puts %d and %d of one name succeeded", winner, i)
				case err == nil:
					winner = i
				case !errors.Is(err, ErrExists):
					t.Error(err)
				}
			}
			if b, err := s.Get(t.Context(), name); err != nil || winner < 0 || !bytes.Equal(b, bytes.Repeat([]byte{byte('a' + winner)}, size)) {
				t.Errorf("the object is not the winner's (%d): %v", winner, err)
			}
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		s, _ := open(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Put(ctx, "a/b", strings.NewReader("x"), 1); !errors.Is(err, context.Canceled) {
			t.Errorf("Put = %v", err)
		}
		if _, err := s.Open(ctx, "a/b"); !errors.Is(err, context.Canceled) {
			t.Errorf("Open = %v", err)
		}
		if err := s.List(ctx, "", func(Info) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("List = %v", err)
		}
		if got := listed(t, s, ""); len(got) != 0 {
			t.Errorf("left %v", got)
		}
	})
	t.Run("URIs", func(t *testing.T) {
		s, root := open(t)
		uri := s.URI("ns/t-10/data/c.parquet")
		if uri != root+"/ns/t-10/data/c.parquet" {
			t.Errorf("URI = %s, want it below %s", uri, root)
		}
		if name, ok := s.Name(uri); !ok || name != "ns/t-10/data/c.parquet" {
			t.Errorf("Name(%s) = %s, %v", uri, name, ok)
		}
		if name, ok := s.Name(root + "/ns/t-1/"); !ok || name != "ns/t-1/" {
			t.Errorf("Name of a directory = %s, %v", name, ok)
		}
		for _, uri := range []string{"s3://b/x", "s3://", "file:///etc/passwd", root + "/../x", root + "x/y", "relative", root, root + "/a b"} {
			if name, ok := s.Name(uri); ok {
				t.Errorf("Name(%s) = %s", uri, name)
			}
		}
	})
}
