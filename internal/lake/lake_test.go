package lake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tapehouse/tapehouse/internal/fsys"
)

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "equities/executions-0f/data/00-ff_x.parquet", "a=b/c+d@e~f"} {
		if err := CheckName(name); err != nil {
			t.Errorf("CheckName(%q) = %v", name, err)
		}
	}
	for _, name := range []string{
		"", "/a", "a/", "a//b", "..", "a/../b", ".hidden", "a/.b", "a b", "a%20b", "ä", "a\x00",
		strings.Repeat("x", 256), strings.Repeat("x/", 450) + "x",
	} {
		if err := CheckName(name); !errors.Is(err, ErrName) {
			t.Errorf("CheckName(%q) = %v, want ErrName", name, err)
		}
	}
}

func FuzzCheckName(f *testing.F) {
	f.Add("a/b")
	f.Add("../x")
	f.Fuzz(func(t *testing.T, name string) {
		if CheckName(name) != nil {
			return
		}
		root := "/root"
		if p := filepath.Join(root, name); !strings.HasPrefix(p, root+"/") || p != root+"/"+name {
			t.Fatalf("%q leaves the store or is not clean: %s", name, p)
		}
	})
}

// forEach runs the suite over the operating system's and the memory's files.
func forEach(t *testing.T, test func(t *testing.T, s Store, dir string)) {
	t.Run("os", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "lake")
		s, err := OpenLocal(fsys.OS, dir)
		if err != nil {
			t.Fatal(err)
		}
		test(t, s, dir)
	})
	t.Run("mem", func(t *testing.T) {
		s, err := OpenLocal(fsys.NewMem(), "/lake")
		if err != nil {
			t.Fatal(err)
		}
		test(t, s, "/lake")
	})
}

func put(t *testing.T, s Store, name, data string) {
	t.Helper()
	if err := s.Put(t.Context(), name, strings.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
}

func listed(t *testing.T, s Store, prefix string) []string {
	t.Helper()
	var names []string
	if err := s.List(t.Context(), prefix, func(i Info) error {
		names = append(names, fmt.Sprintf("%s:%d", i.Name, i.SizeBytes))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func TestStore(t *testing.T) {
	forEach(t, func(t *testing.T, s Store, dir string) {
		ctx := t.Context()
		if got := listed(t, s, ""); len(got) != 0 {
			t.Errorf("a new store lists %v", got)
		}
		put(t, s, "ns/t-1/data/a.parquet", "hello")
		put(t, s, "ns/t-1/data/b.parquet", "")
		put(t, s, "ns/t-10/data/c.parquet", "x")

		if err := s.Put(ctx, "ns/t-1/data/a.parquet", strings.NewReader("other"), 5); !errors.Is(err, ErrExists) {
			t.Errorf("second put: %v, want ErrExists", err)
		}
		if err := s.Put(ctx, "ns/t-1/data/short", strings.NewReader("abc"), 5); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("short put: %v", err)
		}
		if _, err := s.Stat(ctx, "ns/t-1/data/short"); !errors.Is(err, ErrNotFound) {
			t.Errorf("short put left an object: %v", err)
		}
		if b, err := s.Get(ctx, "ns/t-1/data/a.parquet"); err != nil || string(b) != "hello" {
			t.Errorf("Get = %q, %v", b, err)
		}
		if b, err := s.Get(ctx, "ns/t-1/data/b.parquet"); err != nil || len(b) != 0 {
			t.Errorf("Get of an empty object = %q, %v", b, err)
		}
		if _, err := s.Get(ctx, "ns/none"); !errors.Is(err, ErrNotFound) {
			t.Errorf("Get of nothing: %v", err)
		}
		r, err := s.Open(ctx, "ns/t-1/data/a.parquet")
		if err != nil {
			t.Fatal(err)
		}
		var part [3]byte
		if _, err := r.ReadAt(part[:], 1); err != nil || string(part[:]) != "ell" || r.SizeBytes() != 5 {
			t.Errorf("ReadAt = %q, %v, size %d", part, err, r.SizeBytes())
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if got, want := listed(t, s, "ns/t-1"), []string{"ns/t-1/data/a.parquet:5", "ns/t-1/data/b.parquet:0", "ns/t-10/data/c.parquet:1"}; !slices.Equal(got, want) {
			t.Errorf("List = %v, want %v", got, want)
		}
		if got, want := listed(t, s, "ns/t-1/"), []string{"ns/t-1/data/a.parquet:5", "ns/t-1/data/b.parquet:0"}; !slices.Equal(got, want) {
			t.Errorf("List = %v, want %v", got, want)
		}
		stop := errors.New("stop")
		if err := s.List(ctx, "", func(Info) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("List does not stop: %v", err)
		}
		if err := s.Delete(ctx, "ns/t-1/data/a.parquet", "ns/none"); err != nil {
			t.Error(err)
		}
		if err := s.Delete(ctx, "../etc"); !errors.Is(err, ErrName) {
			t.Errorf("delete outside: %v", err)
		}
		uri := s.URI("ns/t-10/data/c.parquet")
		if uri != "file://"+dir+"/ns/t-10/data/c.parquet" {
			t.Errorf("URI = %s", uri)
		}
		for _, form := range []string{uri, "file:" + strings.TrimPrefix(uri, "file://"), strings.TrimPrefix(uri, "file://")} {
			if name, ok := s.Name(form); !ok || name != "ns/t-10/data/c.parquet" {
				t.Errorf("Name(%s) = %s, %v", form, name, ok)
			}
		}
		for _, uri := range []string{"s3://b/x", "file:///etc/passwd", "file://" + dir + "/../x", "file://" + dir + "x/y", "relative"} {
			if name, ok := s.Name(uri); ok {
				t.Errorf("Name(%s) = %s", uri, name)
			}
		}
	})
}

func TestPutAll(t *testing.T) {
	forEach(t, func(t *testing.T, s Store, _ string) {
		ctx := t.Context()
		objects := []Object{{"a/1", []byte("one")}, {"a/2", []byte("two")}, {"b/3", nil}}
		if err := s.PutAll(ctx, objects); err != nil {
			t.Fatal(err)
		}
		if err := s.PutAll(ctx, nil); err != nil {
			t.Fatal(err)
		}
		if got := listed(t, s, ""); !slices.Equal(got, []string{"a/1:3", "a/2:3", "b/3:0"}) {
			t.Errorf("List = %v", got)
		}
		if err := s.PutAll(ctx, []Object{{"c/1", nil}, {"a/1", nil}}); !errors.Is(err, ErrExists) {
			t.Errorf("PutAll over an object: %v", err)
		}
		put(t, s, "c/1", "") // its claim was given back
	})
}

func TestPutFile(t *testing.T) {
	forEach(t, func(t *testing.T, s Store, dir string) {
		l := s.(*Local)
		path := filepath.Join(dir, "..", "work.parquet")
		if err := fsys.WriteFileAtomic(l.fs, path, []byte("rows"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := s.PutFile(t.Context(), "x/y", path); err != nil {
			t.Fatal(err)
		}
		if b, err := s.Get(t.Context(), "x/y"); err != nil || string(b) != "rows" {
			t.Errorf("Get = %q, %v", b, err)
		}
		if _, err := l.fs.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the source is still there: %v", err)
		}
		if err := s.PutFile(t.Context(), "x/z", path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("PutFile of nothing: %v", err)
		}
	})
}

func TestPutConcurrentSameName(t *testing.T) {
	forEach(t, func(t *testing.T, s Store, _ string) {
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() {
				errs[i] = s.Put(t.Context(), "n/same", bytes.NewReader([]byte{byte(i)}), 1)
			})
		}
		wg.Wait()
		done := 0
		for _, err := range errs {
			switch {
			case err == nil:
				done++
			case !errors.Is(err, ErrExists):
				t.Error(err)
			}
		}
		if done != 1 {
			t.Errorf("%d puts of one name succeeded", done)
		}
	})
}

func TestPutCancelled(t *testing.T) {
	s, err := OpenLocal(fsys.NewMem(), "/lake")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Put(ctx, "a/b", strings.NewReader("x"), 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Put = %v", err)
	}
	if got := listed(t, s, ""); len(got) != 0 {
		t.Errorf("left %v", got)
	}
}

// TestCrash stops a put at each of its file-system operations and crashes: what
// was acknowledged is there, and nothing is there in part.
func TestCrash(t *testing.T) {
	data := bytes.Repeat([]byte("tape"), 5000)
	crashed := errors.New("power cut")
	for stop := 0; ; stop++ {
		mem := fsys.NewMem()
		s, err := OpenLocal(mem, "/data/lake")
		if err != nil {
			t.Fatal(err)
		}
		var n atomic.Int64
		mem.SetHook(func(string, string, int) error {
			if n.Add(1) > int64(stop) {
				return crashed
			}
			return nil
		})
		var acked []string
		if s.Put(t.Context(), "ns/t/data/one", bytes.NewReader(data), int64(len(data))) == nil {
			acked = append(acked, "ns/t/data/one")
		}
		if s.PutAll(t.Context(), []Object{{"ns/t/metadata/two", data}, {"ns/t/metadata/three", data}}) == nil {
			acked = append(acked, "ns/t/metadata/two", "ns/t/metadata/three")
		}
		for seed := range uint64(4) {
			after, err := OpenLocal(mem.Crash(seed), "/data/lake")
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range acked {
				if b, err := after.Get(t.Context(), name); err != nil || !bytes.Equal(b, data) {
					t.Fatalf("stop %d seed %d: %s was acknowledged, reads %d bytes, %v", stop, seed, name, len(b), err)
				}
			}
			if err := after.List(t.Context(), "", func(i Info) error {
				if b, err := after.Get(t.Context(), i.Name); err != nil || !bytes.Equal(b, data) {
					t.Errorf("stop %d seed %d: %s is there in part: %d bytes, %v", stop, seed, i.Name, len(b), err)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			put(t, after, "ns/t/data/next", "x") // clears the staging directory
			left, err := after.fs.ReadDir("/data/lake/.staging")
			if err != nil || len(left) != 0 {
				t.Fatalf("stop %d: staging holds %d files, %v", stop, len(left), err)
			}
		}
		if n.Load() <= int64(stop) {
			if len(acked) != 3 {
				t.Fatalf("no fault, but acknowledged %v", acked)
			}
			return
		}
	}
}

func TestOpenLocalRefuses(t *testing.T) {
	for _, dir := range []string{"relative", "/with space", "/percent%20", "/ä"} {
		if _, err := OpenLocal(fsys.OS, dir); err == nil {
			t.Errorf("OpenLocal(%q) succeeded", dir)
		}
	}
}

func TestPutLeavesNothingOnError(t *testing.T) {
	boom := errors.New("boom")
	mem := fsys.NewMem()
	s, err := OpenLocal(fsys.NewFaulty(mem, func(op, name string, n int) error {
		if op == "sync" && strings.Contains(name, StagingDir) {
			return boom
		}
		return nil
	}), "/lake")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "a/b", strings.NewReader("x"), 1); !errors.Is(err, boom) {
		t.Fatalf("Put = %v", err)
	}
	if _, err := mem.Stat("/lake/a/b"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("object after a failed fsync: %v", err)
	}
}
