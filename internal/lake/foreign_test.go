package lake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// oddNames are files that others may well write, and that must be read.
var oddNames = []string{
	"a.csv", "with space.csv", "percent%20escape.csv", "%41.csv", "plus+and&.csv", "quote'single.csv", `quote"double.csv`, "semi;colon.csv",
	"back\\slash.csv", "tab\there.csv", "line\nfeed.csv", "ünïcødé/мир/世界.csv", "k=v/dt=2026-01-01/part-0000", "brackets[0]{1}.csv", "star*?.csv",
	"hash#.csv", "dollar$path.csv", "a..b.csv", "trailing.", "deep/er/and/deeper/x.csv", "emoji 🙂.csv", "comma,colon:.csv", "~tilde.csv", "-dash.csv",
	strings.Repeat("long", 60) + ".csv",
}

// hiddenNames are passed over.
var hiddenNames = []string{".hidden.csv", "_SUCCESS", "_temporary/0/part.csv", ".staging/x.csv", "sub/_delta_log/0.json", "sub/.x"}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	p := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, f Foreign, location string) []string {
	t.Helper()
	var out []string
	if err := f.ListFiles(t.Context(), location, func(x ForeignFile) error { out = append(out, x.Name); return nil }); err != nil {
		t.Fatalf("list %q: %v", location, err)
	}
	slices.Sort(out)
	return out
}

// foreignConformance holds an implementation that put can write to.
func foreignConformance(t *testing.T, f Foreign, put func(name, content string), list []string) {
	want := []string{}
	for i, n := range list {
		put("table/"+n, fmt.Sprintf("content %d", i))
		want = append(want, "table/"+n)
	}
	for _, n := range hiddenNames {
		put("table/"+n, "hidden")
	}
	put("table2/x.csv", "another table's")
	put("table.csv", "a file beside")
	slices.Sort(want)
	for _, location := range []string{"table", "table/"} {
		if got := names(t, f, location); !slices.Equal(got, want) {
			t.Errorf("list %q:\n%q\nwant\n%q", location, got, want)
		}
	}
	for i, n := range list {
		// A file is a location too, without a slash behind it.
		if got := names(t, f, "table/"+n); !slices.Equal(got, []string{"table/" + n}) {
			t.Errorf("list %q: %q", n, got)
		}
		if got := names(t, f, "table/"+n+"/"); len(got) != 0 {
			t.Errorf("list %q as a folder: %q", n, got)
		}
		err := f.ListFiles(t.Context(), "table/"+n, func(x ForeignFile) error {
			if err := f.Unchanged(t.Context(), x); err != nil {
				t.Errorf("unchanged %q: %v", n, err)
			}
			r, err := f.OpenFile(t.Context(), x)
			if err != nil {
				return err
			}
			defer r.Close() //nolint:errcheck // it was read from only
			b, err := io.ReadAll(io.NewSectionReader(r, 0, r.SizeBytes()))
			if want := fmt.Sprintf("content %d", i); string(b) != want {
				t.Errorf("%q holds %q, want %q", n, b, want)
			}
			return err
		})
		if err != nil {
			t.Errorf("read %q: %v", n, err)
		}
	}
	for _, location := range []string{"nowhere", "nowhere/", "table/nowhere/x", "table/a.csv/x"} {
		if got := names(t, f, location); len(got) != 0 {
			t.Errorf("list %q: %q", location, got)
		}
	}
	for _, location := range []string{"..", "../x", "table/..", "table/../table", "./table", "table/.", "/table", "/etc", "a\x00b", strings.Repeat("x/", 600)} {
		err := f.ListFiles(t.Context(), location, func(ForeignFile) error { return nil })
		if !errors.Is(err, ErrName) {
			t.Errorf("list %q: %v, want ErrName", location, err)
		}
	}
	stop := errors.New("stop")
	if err := f.ListFiles(t.Context(), "table", func(ForeignFile) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("a listing that is stopped: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.ListFiles(ctx, "table", func(ForeignFile) error { return nil }); err == nil {
		t.Error("a listing whose context has ended did not end")
	}
}

func TestLocalForeign(t *testing.T) {
	dir := t.TempDir()
	l := OpenLocalForeign(dir)
	t.Cleanup(func() { _ = l.Close() })
	foreignConformance(t, l, func(name, content string) { write(t, dir, name, content) }, oddNames)
	if err := l.ListFiles(t.Context(), "table//x", func(ForeignFile) error { return nil }); !errors.Is(err, ErrName) {
		t.Errorf("an empty segment: %v", err)
	}
	if got := names(t, l, ""); len(got) != len(oddNames)+2 {
		t.Errorf("the whole bucket: %q", got)
	}
}

// TestLocalForeignAbsent: a bucket's directory may come later.
func TestLocalForeignAbsent(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bucket")
	l := OpenLocalForeign(dir)
	t.Cleanup(func() { _ = l.Close() })
	if got := names(t, l, "x"); len(got) != 0 {
		t.Errorf("%q", got)
	}
	write(t, dir, "x/a", "1")
	if got := names(t, l, "x"); len(got) != 1 {
		t.Errorf("%q", got)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if got := names(t, l, "x"); len(got) != 0 {
		t.Errorf("of a directory that is gone: %q", got)
	}
	write(t, dir, "x/b", "1")
	if got := names(t, l, "x"); len(got) != 1 {
		t.Errorf("of a directory that was made anew: %q", got)
	}
}

func TestLocalForeignLinks(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	write(t, outside, "secret", "secret")
	write(t, dir, "t/a", "a")
	write(t, dir, "inner/b", "b")
	l := OpenLocalForeign(dir)
	t.Cleanup(func() { _ = l.Close() })
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Skipf("SKIPPED: no symbolic links here: %v", err)
		}
	}
	list := func(location string) error {
		return l.ListFiles(t.Context(), location, func(ForeignFile) error { return nil })
	}
	link("../inner", "t/folder")
	link("../inner/b", "t/file")
	if got, want := names(t, l, "t"), []string{"t/a", "t/file", "t/folder/b"}; !slices.Equal(got, want) {
		t.Errorf("links that stay inside: %q, want %q", got, want)
	}
	for i, target := range []string{outside, filepath.Join(outside, "secret"), "../../" + filepath.Base(outside), "/etc/passwd"} {
		name := fmt.Sprintf("t/out%d", i)
		link(target, name)
		if err := list("t"); !errors.Is(err, ErrName) || !strings.Contains(err.Error(), name) {
			t.Errorf("a link to %s: %v, want ErrName that names it", target, err)
		}
		if err := list(name); !errors.Is(err, ErrName) {
			t.Errorf("a location that is a link to %s: %v", target, err)
		}
		if err := list(name + "/secret"); !errors.Is(err, ErrName) && err != nil {
			t.Logf("a location below a link to %s: %v", target, err)
		}
		if r, err := l.OpenFile(t.Context(), ForeignFile{Name: name, SizeBytes: 6}); err == nil {
			_ = r.Close()
			t.Errorf("a link to %s was opened", target)
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("nothing", "t/dangling")
	if err := list("t"); !errors.Is(err, ErrName) {
		t.Errorf("a link to nothing: %v", err)
	}
	_ = os.Remove(filepath.Join(dir, "t/dangling"))
	link(".", "t/loop")
	if err := list("t"); err == nil || !strings.Contains(err.Error(), "loop") {
		t.Errorf("a loop: %v", err)
	}
}

// TestLocalForeignChanges: who has listed a file gets that file or an error.
func TestLocalForeignChanges(t *testing.T) {
	dir := t.TempDir()
	l := OpenLocalForeign(dir)
	t.Cleanup(func() { _ = l.Close() })
	for name, c := range map[string]struct {
		change func(p string) error
		want   error
	}{
		"removed": {os.Remove, ErrNotFound},
		"replaced": {func(p string) error {
			if err := os.WriteFile(p+".new", []byte("abc"), 0o600); err != nil {
				return err
			}
			return os.Rename(p+".new", p)
		}, ErrChanged},
		"appended": {func(p string) error { return os.WriteFile(p, []byte("abcdef"), 0o600) }, ErrChanged},
		"rewritten": {func(p string) error {
			if err := os.WriteFile(p, []byte("xyz"), 0o600); err != nil {
				return err
			}
			return os.Chtimes(p, time.Time{}, time.Unix(1, 0))
		}, ErrChanged},
		"a folder": {func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) }, ErrChanged},
	} {
		write(t, dir, name+"/f", "abc")
		var listed ForeignFile
		if err := l.ListFiles(t.Context(), name, func(f ForeignFile) error { listed = f; return nil }); err != nil {
			t.Fatal(err)
		}
		second := filepath.Join(t.TempDir(), "second")
		if err := l.LinkFile(listed, second); err != nil {
			t.Fatal(err)
		}
		if err := l.Unchanged(t.Context(), listed); err != nil {
			t.Errorf("%s: a second name made it another file: %v", name, err)
		}
		if err := c.change(filepath.Join(dir, name, "f")); err != nil {
			t.Fatal(err)
		}
		if _, err := l.OpenFile(t.Context(), listed); !errors.Is(err, c.want) {
			t.Errorf("open a file that was %s: %v, want %v", name, err, c.want)
		}
		if err := l.Unchanged(t.Context(), listed); !errors.Is(err, c.want) {
			t.Errorf("a file that was %s: %v, want %v", name, err, c.want)
		}
		if err := l.LinkFile(listed, second+"2"); !errors.Is(err, c.want) {
			t.Errorf("link a file that was %s: %v, want %v", name, err, c.want)
		}
		if name == "removed" || name == "replaced" {
			if b, err := os.ReadFile(second); err != nil || !bytes.Equal(b, []byte("abc")) {
				t.Errorf("the second name of a file that was %s: %q, %v", name, b, err)
			}
		}
	}
}

func TestParseForeignLocation(t *testing.T) {
	for _, c := range [][3]string{
		{"s3://lake/a/b/", "lake", "a/b/"}, {"s3a://b/x", "b", "x"}, {"s3n://b/", "b", ""}, {"s3://b", "b", ""},
		{"s3://b/a%20b/%2e%2e/", "b", "a%20b/%2e%2e/"}, {"s3://b/a b//c", "b", "a b//c"}, {"s3://b/ä?x=1#y", "b", "ä?x=1#y"},
	} {
		if bucket, location, err := ParseForeignLocation(c[0]); err != nil || bucket != c[1] || location != c[2] {
			t.Errorf("%q: %q, %q, %v", c[0], bucket, location, err)
		}
	}
	for _, uri := range []string{"", "/etc", "file:///etc", "hdfs://x/y", "s3:/b/x", "s3://", "s3:///x", "s3://b/../x", "s3://b/x/..", "s3://b//etc", "s3://b/./x", "b/x"} {
		if bucket, location, err := ParseForeignLocation(uri); !errors.Is(err, ErrName) {
			t.Errorf("%q: %q, %q, %v", uri, bucket, location, err)
		}
	}
}

func FuzzForeignLocation(f *testing.F) {
	for _, s := range append(slices.Clone(oddNames), "..", "a/../b", "/etc/passwd", "t/./x", "%2e%2e/x", "..\\x") {
		f.Add(s)
	}
	dir := f.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "bucket", "t"), 0o700); err != nil {
		f.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("x"), 0o600); err != nil {
		f.Fatal(err)
	}
	l := OpenLocalForeign(filepath.Join(dir, "bucket"))
	f.Fuzz(func(t *testing.T, location string) {
		err := l.ListFiles(t.Context(), location, func(x ForeignFile) error {
			t.Errorf("location %q has the file %q of an empty bucket", location, x.Name)
			return nil
		})
		if err != nil && !errors.Is(err, ErrName) {
			t.Logf("%q: %v", location, err)
		}
	})
}
