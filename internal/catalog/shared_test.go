package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/hive"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/internal/s3test"
)

func writeFile(name, text string) error { return os.WriteFile(name, []byte(text), 0o600) }

// appendBeside lets two catalogs append to one table and to one each, at once.
func appendBeside(t *testing.T, a, b *Catalog, each int) {
	t.Helper()
	ctx := t.Context()
	mustCreate(t, a, executionsSpec(executions))
	for shard := range 2 {
		mustCreate(t, a, executionsSpec(ownTable(shard)))
	}
	var wg sync.WaitGroup
	for shard, c := range []*Catalog{a, b} {
		wg.Go(func() {
			key := shardKey(shard)
			tables, err := c.LoadAll(ctx, []Name{executions, ownTable(shard)})
			if err != nil {
				t.Error(err)
				return
			}
			for n := range each {
				var commits []Commit
				for _, tbl := range tables {
					commits = append(commits, Commit{Table: tbl.Name, Add: []NewFile{ghost(tbl, date0, int64(n), 1)},
						Through: record.Vector{key: record.Offset(n + 1)}, RequireThrough: &record.Vector{key: record.Offset(n)}})
				}
				if _, err := c.Commit(ctx, commits, counted(shard, n+1)); err != nil {
					t.Errorf("shard %d, commit %d: %v", shard, n+1, err)
					return
				}
			}
		})
	}
	wg.Wait()
	checkShards(t, a, []int{each, each})
	checkShards(t, b, []int{each, each})
}

// checkShards holds tables and documents against what the shards have committed.
func checkShards(t *testing.T, c *Catalog, done []int) {
	t.Helper()
	sum := 0
	for shard, n := range done {
		sum += n
		tbl, err := c.Load(t.Context(), ownTable(shard))
		must(t, err)
		if got := int(tbl.Through()[shardKey(shard)]); got != n {
			t.Errorf("shard %d: its own table is at %d, want %d", shard, got, n)
		}
		if rows := rowsOf(files(t, c, tbl, At{})); rows != int64(n) {
			t.Errorf("shard %d: its own table has %d rows, want %d", shard, rows, n)
		}
		doc, err := c.GetDocument(t.Context(), "count", strconv.Itoa(shard))
		if n > 0 && (err != nil || int(doc.Version) != n || string(doc.Body) != strconv.Itoa(n)) {
			t.Errorf("shard %d: the document was written %d times and says %s (%v), want %d", shard, doc.Version, doc.Body, err, n)
		}
	}
	tbl, err := c.Load(t.Context(), executions)
	must(t, err)
	for shard, n := range done {
		if got := int(tbl.Through()[shardKey(shard)]); got != n {
			t.Errorf("shard %d: the common table is at %d, want %d", shard, got, n)
		}
	}
	seen := map[string]bool{}
	for _, f := range files(t, c, tbl, At{}) {
		if seen[f.URI()] {
			t.Errorf("%s stands there twice", f.URI())
		}
		seen[f.URI()] = true
	}
	if rows := rowsOf(files(t, c, tbl, At{})); rows != int64(sum) {
		t.Errorf("the common table has %d rows, want %d", rows, sum)
	}
}

// TestTwoServers: two catalogs on one PostgreSQL, with data directories of their
// own, do at the same time everything that two servers would. Nothing is lost,
// nothing is there twice, progress never goes back.
func TestTwoServers(t *testing.T) {
	ctx := t.Context()
	w := newPostgresWorld(t)
	other := w.beside()
	a, b := w.open(), other.open()
	both := []*Catalog{a, b}
	const each = 25

	stop := make(chan struct{})
	var watching sync.WaitGroup
	for _, c := range both {
		watching.Go(func() { // progress is monotone, and agrees with the rows, for every reader
			last := record.Vector{}
			for {
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond):
				}
				tbl, err := c.Load(ctx, executions)
				if errors.Is(err, ErrNotFound) {
					continue
				}
				if err != nil {
					t.Errorf("load: %v", err)
					return
				}
				sum := int64(0)
				for k, o := range tbl.Through() {
					sum += int64(o)
					if o < last[k] {
						t.Errorf("progress of %v went from %d to %d", k, last[k], o)
					}
				}
				last = tbl.Through()
				if f, err := c.Files(ctx, tbl, At{}); err == nil && rowsOf(f) != sum {
					t.Errorf("%d rows at %v", rowsOf(f), last)
				}
			}
		})
	}
	var work sync.WaitGroup
	var counted atomic.Int64
	for i, c := range both {
		work.Go(func() { // a counter that both raise: read, add, write if unchanged
			for n := 0; n < each; {
				doc, err := c.GetDocument(ctx, "shared", "counter")
				if err != nil && !errors.Is(err, ErrNotFound) {
					t.Errorf("read the counter: %v", err)
					return
				}
				value := 0
				_ = json.Unmarshal(doc.Body, &value)
				_, err = c.PutDocument(ctx, DocumentWrite{Kind: "shared", Key: "counter", IfVersion: doc.Version, Body: json.RawMessage(strconv.Itoa(value + 1))})
				switch {
				case err == nil:
					n++
					counted.Add(1)
				case !errors.Is(err, ErrConflict):
					t.Errorf("raise the counter: %v", err)
					return
				}
			}
		})
		work.Go(func() { // expiry of the common table, with the other one committing
			for range each {
				if _, err := c.Expire(ctx, executions, ExpirePolicy{RetainLast: 3, Grace: time.Hour}); err != nil && !errors.Is(err, ErrNotFound) {
					t.Errorf("expire: %v", err)
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
		work.Go(func() { // the same tables, made and dropped by both
			for n := range each {
				name := Name{"scratch", fmt.Sprintf("t%d", n%3)}
				if _, err := c.CreateTable(ctx, executionsSpec(name)); err != nil && !errors.Is(err, ErrExists) {
					t.Errorf("create: %v", err)
				}
				if err := c.DropTable(ctx, name); err != nil && !errors.Is(err, ErrNotFound) {
					t.Errorf("drop: %v", err)
				}
			}
		})
		_ = i
	}
	appendBeside(t, a, b, each)
	work.Wait()
	close(stop)
	watching.Wait()
	for _, c := range both {
		doc, err := c.GetDocument(ctx, "shared", "counter")
		must(t, err)
		if string(doc.Body) != strconv.FormatInt(counted.Load(), 10) || doc.Version != counted.Load() {
			t.Errorf("the counter says %s in version %d after it was raised %d times", doc.Body, doc.Version, counted.Load())
		}
		checkShards(t, c, []int{each, each})
	}
}

// TestNamesOfTwoServers: what is checked before it is written (names of managed
// and external tables, partitions, empty namespaces) is not outrun by the other
// server.
func TestNamesOfTwoServers(t *testing.T) {
	ctx := t.Context()
	w := newPostgresWorld(t)
	a, b := w.open(), w.beside().open()
	for round := range 15 {
		ns := fmt.Sprintf("ns%d", round)
		must(t, a.CreateNamespace(ctx, ns, nil))
		name := Name{ns, "t"}
		var managed, external, dropped error
		var wg sync.WaitGroup
		wg.Go(func() { _, managed = a.CreateTable(ctx, executionsSpec(name)) })
		wg.Go(func() { external = b.ChangeExternals(ctx, []ExternalChange{{Table: name, Define: symbolsTable()}}) })
		wg.Go(func() { dropped = b.DropNamespace(ctx, ns) })
		wg.Wait()
		_, errM := a.Load(ctx, name)
		_, errE := b.External(ctx, name)
		if (errM == nil) == (errE == nil) {
			t.Fatalf("round %d: managed: %v, external: %v; calls: %v, %v, %v", round, errM, errE, managed, external, dropped)
		}
		if (managed == nil) != (errM == nil) || (external == nil) != (errE == nil) {
			t.Fatalf("round %d: told %v and %v, found %v and %v", round, managed, external, errM, errE)
		}
		spaces, err := a.Namespaces(ctx)
		must(t, err)
		if !contains(spaces, ns) {
			t.Fatalf("round %d: the namespace is gone, its table is not", round)
		}
	}
	// Each partition is added by one of the two.
	name := Name{"files", "symbols"}
	must(t, a.CreateNamespace(ctx, "files", nil))
	must(t, a.ChangeExternals(ctx, []ExternalChange{{Table: name, Define: symbolsTable()}}))
	var added atomic.Int64
	var wg sync.WaitGroup
	const partitions = 40
	for _, c := range []*Catalog{a, b} {
		wg.Go(func() {
			for n := range partitions {
				taken, err := c.AddPartitions(ctx, name, []hive.Partition{{Values: []string{strconv.Itoa(n)}}})
				if err != nil {
					t.Error(err)
				}
				added.Add(int64(1 - len(taken)))
			}
		})
	}
	wg.Wait()
	if added.Load() != partitions {
		t.Errorf("%d partitions were added, want %d", added.Load(), partitions)
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// TestKillTwoServers kills two processes that commit to one PostgreSQL, each
// several times and at any moment: what either acknowledged is there, once.
func TestKillTwoServers(t *testing.T) {
	if !inPostgres {
		t.Skip("it is about PostgreSQL")
	}
	server := s3test.Start(t) // a directory is one process's lake
	w := newS3World(t, server, server.Endpoint)
	other := w.beside()
	c := w.open()
	mustCreate(t, c, executionsSpec(executions))
	for shard := range 2 {
		mustCreate(t, c, executionsSpec(ownTable(shard)))
	}
	must(t, c.Close())
	reader := w.open(func(o *Options) { o.ReadOnly = true })
	acked := make([]int, 2)
	for round := range 4 {
		var wg sync.WaitGroup
		for shard, at := range []*world{w, other} {
			wg.Go(func() {
				cmd, lines := startKillable(t, at, server.Endpoint, shard)
				note := func() {
					n, err := strconv.Atoi(lines.Text())
					if err != nil {
						t.Errorf("round %d: shard %d says %q", round, shard, lines.Text())
						return
					}
					acked[shard] = n
				}
				for n := 0; n < 4+6*round+3*shard && lines.Scan(); n++ {
					note()
				}
				time.Sleep(time.Duration(round*3+shard) * time.Millisecond) // somewhere in a commit
				if err := cmd.Process.Kill(); err != nil {
					t.Error(err)
				}
				for lines.Scan() {
					note()
				}
				_ = cmd.Wait() // killed
			})
		}
		wg.Wait()
		// A transaction whose COMMIT was on its way may still be decided.
		var done []int
		for settled := time.Now(); time.Since(settled) < 200*time.Millisecond; time.Sleep(20 * time.Millisecond) {
			tbl, err := reader.Load(t.Context(), executions)
			must(t, err)
			now := []int{int(tbl.Through()[shardKey(0)]), int(tbl.Through()[shardKey(1)])}
			if done == nil || now[0] != done[0] || now[1] != done[1] {
				settled = time.Now()
			}
			done = now
		}
		for shard := range done {
			if done[shard] < acked[shard] || done[shard] > acked[shard]+1 {
				t.Errorf("round %d: shard %d is at %d after %d was acknowledged", round, shard, done[shard], acked[shard])
			}
		}
		checkShards(t, reader, done)
	}
	if acked[0] == 0 || acked[1] == 0 {
		t.Errorf("acknowledged %v", acked)
	}
}
