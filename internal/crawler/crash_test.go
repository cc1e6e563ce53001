package crawler

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
)

// dump is all that the catalog has of the database's tables.
func (w *world) dump() string {
	w.t.Helper()
	var b strings.Builder
	list, err := w.cat.Externals(context.Background(), "files")
	must(w.t, err)
	for _, e := range list {
		text, err := json.Marshal(e.Definition)
		must(w.t, err)
		fmt.Fprintf(&b, "%s %s\n", e.Name, text)
		for _, p := range w.partitions(e.Name.Table) {
			text, err := json.Marshal(p.Partition)
			must(w.t, err)
			fmt.Fprintf(&b, "  %s\n", text)
		}
	}
	return b.String()
}

// crashStory leaves a bucket that differs from what the catalog has in every way.
func crashStory(t *testing.T) *world {
	w := newWorld(t)
	for i := range 3 {
		w.bucket.put(fmt.Sprintf("t/k=%d/a.csv", i), "id,v\n1,2\n")
	}
	w.bucket.put("gone/a.json", `{"a":1}`+"\n")
	w.define(Definition{})
	w.crawl("c")
	w.tick(time.Hour)
	w.bucket.now = w.now().Add(-time.Minute)
	w.bucket.remove("gone/")
	w.bucket.remove("t/k=1/")
	w.bucket.put("t/k=0/b.csv", "id,v\n1,2.5\n")
	w.bucket.put("t/k=9/a.csv", "id,v\n1,2\n")
	w.bucket.put("new/a.json", `{"x":1}`+"\n")
	return w
}

// TestCrashAtEveryStep ends the program at each step of a crawl: the catalog is then
// the old one or the new one, the history says truly what became of the crawl, and the
// next crawl makes the new one.
func TestCrashAtEveryStep(t *testing.T) {
	w := crashStory(t)
	before := w.dump()
	w.crawl("c")
	after := w.dump()
	if before == after {
		t.Fatal("the story changes nothing")
	}
	steps := 0
	for crashAt := 1; ; crashAt++ {
		w := crashStory(t)
		n := 0
		at := ""
		w.m.hook = func(step string) error {
			if n++; n == crashAt {
				at = step
				return errCrash
			}
			return nil
		}
		_, err := w.m.Run(context.Background(), "c")
		if err == nil {
			if steps < 7 {
				t.Errorf("%d steps", steps)
			}
			return
		}
		if !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		steps++
		w.reopen()
		crawls, err := w.m.Crawls("c")
		must(t, err)
		switch got := w.dump(); got {
		case before:
			if crawls[0].State != CrawlFailed || !strings.Contains(crawls[0].Error, "program ended") {
				t.Errorf("crash at %s: the catalog is the old one, the history says %+v", at, crawls[0])
			}
		case after:
			if crawls[0].State != CrawlSucceeded {
				t.Errorf("crash at %s: the catalog is the new one, the history says %+v", at, crawls[0])
			}
		default:
			t.Fatalf("crash at %s: the catalog is neither the old nor the new one:\n%s", at, got)
		}
		info, err := w.m.Get("c")
		must(t, err)
		if info.State != StateReady {
			t.Errorf("crash at %s: the crawler is %s", at, info.State)
		}
		w.crawl("c")
		if w.dump() != after {
			t.Errorf("crash at %s: the next crawl makes another catalog:\n%s", at, w.dump())
		}
		w.close()
	}
}

// TestResumable: a crawl that is stopped in the middle reads no file again.
func TestResumable(t *testing.T) {
	w := newWorld(t)
	const n = 300
	for i := range n {
		w.bucket.put(fmt.Sprintf("t/k=%d/%03d.csv", i%10, i), fmt.Sprintf("id,v\n%d,2\n", i))
	}
	w.define(Definition{})
	files := 0
	w.m.hook = func(step string) error {
		if strings.HasPrefix(step, "file ") {
			if files++; files == n/2 {
				return w.m.Stop("c")
			}
		}
		return nil
	}
	if _, err := w.m.Run(context.Background(), "c"); !errors.Is(err, errStopped) {
		t.Fatalf("a stopped crawl: %v", err)
	}
	w.m.hook = nil
	crawls, err := w.m.Crawls("c")
	must(t, err)
	if crawls[0].State != CrawlCancelled || w.dump() != "" {
		t.Errorf("%+v, and the catalog has %q", crawls[0], w.dump())
	}
	w.bucket.opened()
	r := w.crawl("c")
	if opened := len(w.bucket.opened()); opened > n/2 || r.Totals.Reused < n/2 || r.Totals.Objects != n {
		t.Errorf("after a stop: %d files opened, %+v", opened, r.Totals)
	}
	if got := len(w.partitions("t")); got != 10 {
		t.Errorf("%d partitions", got)
	}
}

// crawlKillEnv makes the test binary crawl for ever in the directory that it names.
const crawlKillEnv = "TAPEHOUSE_TEST_CRAWL_DIR"

// dirWorld is a manager over a local directory.
func dirWorld(t testing.TB, dir string, o Options) (*catalog.Catalog, *Manager, *Dir) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Join(dir, "data"), 0o755))
	source, err := OpenDir(filepath.Join(dir, "data"), "file:///lake")
	must(t, err)
	store, err := lake.OpenLocal(fsys.OS, filepath.Join(dir, "lake"))
	must(t, err)
	cat, err := catalog.Open(context.Background(), catalog.Options{Dir: filepath.Join(dir, "catalog"), Warehouse: store, Owner: "test"})
	must(t, err)
	o.Catalog, o.Dir = cat, filepath.Join(dir, "crawler")
	o.Open = func(_ context.Context, path string) (Source, string, error) {
		return source, strings.Trim(strings.TrimPrefix(path, "file:///lake"), "/"), nil
	}
	m, err := New(context.Background(), o)
	must(t, err)
	return cat, m, source
}

// TestKill kills a crawling process with SIGKILL, several times: what it acknowledged
// is in the catalog, and the next crawl finds the rest.
func TestKill(t *testing.T) {
	if dir := os.Getenv(crawlKillEnv); dir != "" {
		crawlForEver(t, dir)
		return
	}
	dir := t.TempDir()
	name := catalog.Name{Namespace: "files", Table: "t"}
	acked := 0
	for round := range 4 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), crawlKillEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		must(t, err)
		lines := bufio.NewScanner(out)
		for n := 0; n < 3+3*round && lines.Scan(); n++ {
			if acked, err = strconv.Atoi(lines.Text()); err != nil {
				t.Fatalf("the process says %q", lines.Text())
			}
		}
		time.Sleep(time.Duration(round) * 7 * time.Millisecond) // somewhere in a crawl
		must(t, cmd.Process.Kill())
		for lines.Scan() {
			if n, err := strconv.Atoi(lines.Text()); err == nil {
				acked = n
			}
		}
		_ = cmd.Wait() // killed

		cat, m, source := dirWorld(t, dir, Options{Settle: time.Nanosecond})
		count := func() (n int) {
			must(t, cat.ExternalPartitions(t.Context(), name, catalog.PartitionsPage{}, func(catalog.ExternalPartition) bool { n++; return true }))
			return n
		}
		if n := count(); n < acked || n > acked+1 {
			t.Errorf("%d partitions after %d were acknowledged", n, acked)
		}
		crawls, err := m.Crawls("c")
		must(t, err)
		for _, c := range crawls {
			if c.State == CrawlRunning {
				t.Errorf("a crawl of the killed process runs: %+v", c)
			}
		}
		if _, err := m.Run(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(dir, "data", "t", "k=*", "a.csv"))
		must(t, err)
		folders := 0
		for _, f := range files { // the last one may have been cut
			info, err := os.Stat(f)
			must(t, err)
			if info.Size() > 0 {
				folders++
			}
		}
		if n := count(); n != folders {
			t.Errorf("%d partitions of %d folders", n, folders)
		}
		must(t, errors.Join(m.Close(), cat.Close(), source.Close()))
	}
	if acked == 0 {
		t.Error("nothing was crawled")
	}
}

func crawlForEver(t *testing.T, dir string) {
	_, m, _ := dirWorld(t, dir, Options{Settle: time.Nanosecond})
	err := m.Create(context.Background(), Definition{Name: "c", Database: "files", Targets: []Target{{Path: "file:///lake/"}}})
	if err != nil && !errors.Is(err, ErrExists) {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		folder := filepath.Join(dir, "data", "t", fmt.Sprintf("k=%05d", n))
		must(t, os.MkdirAll(folder, 0o755))
		for _, f := range []string{"a.csv", "b.csv", "c.csv"} {
			must(t, os.WriteFile(filepath.Join(folder, f), []byte("id,v\n1,2\n"), 0o644))
		}
		if _, err := m.Run(context.Background(), "c"); err != nil {
			t.Fatal(err)
		}
		fmt.Println(n + 1)
	}
}
