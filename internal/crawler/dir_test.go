package crawler

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	dto "github.com/prometheus/client_model/go"

	"github.com/tapehouse/tapehouse/internal/catalog"
)

func write(t testing.TB, path, data string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(data), 0o644))
}

// TestDirLists as a bucket lists: by the bytes of whole names, whatever folders are.
func TestDirLists(t *testing.T) {
	root := t.TempDir()
	b := newBucket()
	for _, name := range []string{"a/x", "a-b/x", "a.csv", "a/b/c", "a!", "a0", "a/b.x", "b", "é/ü", "a b/c%20d", "z/y/x/w"} {
		write(t, filepath.Join(root, name), name)
		b.put(name, name)
	}
	must(t, os.Mkdir(filepath.Join(root, "empty"), 0o755))
	d, err := OpenDir(root, "file:///lake")
	must(t, err)
	defer func() { must(t, d.Close()) }()
	list := func(s Source, prefix string) (out []string) {
		must(t, s.List(context.Background(), prefix, func(o Object) error {
			if o.SizeBytes != int64(len(o.Name)) || o.Refused != "" {
				t.Errorf("%+v", o)
			}
			out = append(out, o.Name)
			return nil
		}))
		return out
	}
	for _, prefix := range []string{"", "a", "a/", "a/b", "a/b/", "é/", "nothing", "a-"} {
		if got, want := list(d, prefix), list(b, prefix); !slices.Equal(got, want) {
			t.Errorf("prefix %q: %q, a bucket lists %q", prefix, got, want)
		}
	}
	if err := d.List(context.Background(), "not/there/", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
	if uri := d.URI("a b/c%20d"); uri != "file:///lake/a b/c%20d" {
		t.Error(uri)
	}
}

// TestDirStaysInside: symbolic links and other than regular files are refused, in the
// listing and when they are opened.
func TestDirStaysInside(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	write(t, filepath.Join(outside, "secret.csv"), "a,b\n1,2\n")
	write(t, filepath.Join(root, "in", "a.csv"), "a,b\n1,2\n")
	for name, to := range map[string]string{"file.csv": filepath.Join(outside, "secret.csv"), "folder": outside, "within.csv": "in/a.csv", "within": "in", "loop": "."} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Skipf("SKIPPED: no symbolic links here: %v", err)
		}
	}
	d, err := OpenDir(root, "file:///lake/")
	must(t, err)
	defer func() { must(t, d.Close()) }()
	var names []string
	must(t, d.List(context.Background(), "", func(o Object) error {
		if (o.Refused == "") != (o.Name == "in/a.csv") {
			t.Errorf("%+v", o)
		}
		names = append(names, o.Name)
		return nil
	}))
	if len(names) != 6 {
		t.Errorf("%q", names)
	}
	for _, name := range []string{"file.csv", "within.csv", "folder/secret.csv", "../" + filepath.Base(outside) + "/secret.csv", "in", "/etc/passwd"} {
		if r, err := d.Open(context.Background(), name); err == nil {
			t.Errorf("%s was opened", name)
			_ = r.Close()
		}
	}
	if _, err := d.Open(context.Background(), "nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestDirWatch(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "a", "b", "1"), "x")
	write(t, filepath.Join(root, "other", "1"), "x")
	d, err := OpenDir(root, "file:///lake/")
	must(t, err)
	defer func() { must(t, d.Close()) }()
	poll := d.Watch("a/")
	expect := func(what string, want bool) {
		t.Helper()
		if changed, err := poll(context.Background()); err != nil || changed != want {
			t.Errorf("%s: %t, %v; want %t", what, changed, err, want)
		}
	}
	expect("the first look", true)
	expect("nothing", false)
	write(t, filepath.Join(root, "a", "b", "2"), "x")
	expect("a file", true)
	expect("nothing", false)
	write(t, filepath.Join(root, "a", "c", "d", "1"), "x")
	expect("folders", true)
	write(t, filepath.Join(root, "a", "c", "d", "2"), "x")
	expect("a file in a new folder", true)
	write(t, filepath.Join(root, "other", "2"), "x")
	expect("a file elsewhere", false)
	must(t, os.Remove(filepath.Join(root, "a", "b", "1")))
	expect("a file less", true)
	write(t, filepath.Join(root, "a", "b", "3.tmp"), "x")
	expect("a file", true)
	must(t, os.Rename(filepath.Join(root, "a", "b", "3.tmp"), filepath.Join(root, "a", "b", "3")))
	expect("another name", true)
	must(t, os.RemoveAll(filepath.Join(root, "a", "c")))
	expect("folders less", true)
	expect("nothing", false)
	// A folder whose time does not change is read while it is young.
	info, err := os.Stat(filepath.Join(root, "a", "b"))
	must(t, err)
	write(t, filepath.Join(root, "a", "b", "4"), "x")
	must(t, os.Chtimes(filepath.Join(root, "a", "b"), info.ModTime(), info.ModTime()))
	expect("a file within the clock's tick", true)
}

// TestEventMode: a dropped file is a table's by itself, one that is written slowly is
// waited for, and never told as bad.
func TestEventMode(t *testing.T) {
	dir := t.TempDir()
	cat, m, source := dirWorld(t, dir, Options{WatchInterval: 20 * time.Millisecond, Settle: 500 * time.Millisecond})
	defer func() { must(t, errors.Join(m.Close(), cat.Close(), source.Close())) }()
	must(t, m.Create(t.Context(), Definition{Name: "c", Database: "files", Targets: []Target{{Path: "file:///lake/"}}, Recrawl: EventMode}))
	m.Serve()
	data := filepath.Join(dir, "data")
	until := func(what string, ok func() bool) {
		t.Helper()
		began := time.Now()
		for !ok() {
			if time.Since(began) > time.Minute {
				t.Fatalf("%s: not within a minute", what)
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Logf("%s: after %v", what, time.Since(began).Round(time.Millisecond))
	}
	table := func(name string) *catalog.External {
		e, err := cat.External(t.Context(), catalog.Name{Namespace: "files", Table: name})
		if errors.Is(err, catalog.ErrNotFound) {
			return nil
		}
		must(t, err)
		return &e
	}
	write(t, filepath.Join(data, "quotes", "a.csv"), "id,bid\n1,2.5\n")
	until("a dropped file", func() bool { return table("quotes") != nil })
	write(t, filepath.Join(data, "quotes", "b.csv"), "id,bid,ask\n1,2.5,2.6\n")
	until("another column", func() bool { return len(table("quotes").Definition.Storage.Columns) == 3 })

	// A Parquet file that is being written has no footer yet.
	file := parquetFile(t, 3, arrow.Field{Name: "id", Type: arrow.PrimitiveTypes.Int64})
	slow := filepath.Join(data, "trades", "k=1", "slow.parquet")
	write(t, slow, file[:len(file)/2])
	until("a look at half a file", func() bool {
		var seen dto.Metric
		must(t, m.metrics.skipped.Write(&seen))
		return seen.GetCounter().GetValue() > 0
	})
	if table("trades") != nil {
		t.Error("half a file is a table")
	}
	f, err := os.OpenFile(slow, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = f.WriteString(file[len(file)/2:])
	must(t, errors.Join(err, f.Close()))
	until("the rest of the file", func() bool { return table("trades") != nil })

	// A text file that grows is read again when it has settled, and its types widen.
	write(t, filepath.Join(data, "grows", "a.csv"), "id,bid\n1,2\n")
	until("the beginning of a file", func() bool { return table("grows") != nil })
	f, err = os.OpenFile(filepath.Join(data, "grows", "a.csv"), os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = f.WriteString("2,2.5\n")
	must(t, errors.Join(err, f.Close()))
	until("the end of the file", func() bool {
		return strings.HasPrefix(table("grows").Definition.Storage.Columns[1].Type, "decimal")
	})
	crawls, err := m.Crawls("c")
	must(t, err)
	for _, c := range crawls {
		r, err := m.Report(t.Context(), "c", c.ID)
		must(t, err)
		for _, s := range r.Skipped {
			if !strings.HasPrefix(s.Reason, pendingReason) {
				t.Errorf("crawl %d tells of %+v", c.Sequence, s)
			}
		}
		if c.State != CrawlSucceeded || c.Sequence > 1 && !(&run{Crawl: c}).changed() {
			t.Errorf("crawl %+v is in the history", c)
		}
	}
	// Notify does for other sources what the watch does here.
	m.Notify("file:///lake/quotes/x.csv")
	m.mu.Lock()
	dirty := m.crawlers["c"].watch.dirty
	m.mu.Unlock()
	if !dirty {
		t.Log("the notice was taken already")
	}
	must(t, os.RemoveAll(filepath.Join(data, "quotes")))
	until("a folder that goes", func() bool { return table("quotes").Definition.Parameters[paramDeprecated] != "" })
}
