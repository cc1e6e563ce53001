package crawler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/catalog"
)

func TestManager(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	d := w.define(Definition{Name: "b", Schedule: "cron(0 6 * * ? *)"})
	w.define(Definition{Name: "a"})
	if err := w.m.Create(ctx, d); !errors.Is(err, ErrExists) {
		t.Errorf("create twice: %v", err)
	}
	if err := w.m.Update(ctx, Definition{Name: "x", Database: "d", Targets: []Target{{Path: "s3://lake/"}}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("update what is not there: %v", err)
	}
	d.Description = "changed"
	must(t, w.m.Update(ctx, d))
	must(t, w.m.SetSchedule(ctx, "a", "cron(0/5 * * * ? *)"))
	must(t, w.m.StopSchedule(ctx, "a"))
	if err := w.m.StopSchedule(ctx, "a"); !errors.Is(err, ErrScheduled) {
		t.Errorf("stop a schedule twice: %v", err)
	}
	w.reopen()
	list := w.m.List()
	if len(list) != 2 || list[0].Name != "a" || list[1].Name != "b" || list[1].Description != "changed" || list[1].Version != 2 || list[1].ScheduleState != Scheduled || list[0].ScheduleState != NotScheduled || list[1].State != StateReady {
		t.Fatalf("%+v", list)
	}
	must(t, w.m.StartSchedule(ctx, "a"))
	must(t, w.m.SetSchedule(ctx, "a", ""))
	if err := w.m.StartSchedule(ctx, "a"); !errors.Is(err, ErrInvalid) {
		t.Errorf("start no schedule: %v", err)
	}
	for name, err := range map[string]error{
		"start": func() error { _, err := w.m.Start(ctx, "x"); return err }(), "stop": w.m.Stop("x"), "delete": w.m.Delete(ctx, "x"),
		"get": func() error { _, err := w.m.Get("x"); return err }(), "crawls": func() error { _, err := w.m.Crawls("x"); return err }(),
		"metrics": func() error { _, err := w.m.Metrics("x"); return err }(), "schedule": w.m.SetSchedule(ctx, "x", ""),
	} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s of a crawler that is not there: %v", name, err)
		}
	}
	if err := w.m.Stop("a"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("stop a crawler that does not run: %v", err)
	}
	w.bucket.put("t/a.csv", "a,b\n1,2\n")
	w.crawl("a")
	must(t, w.m.Delete(ctx, "a"))
	if _, err := w.m.Get("a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("get a deleted crawler: %v", err)
	}
	// A new one of the name has no history, and does not take the tables of another.
	w.define(Definition{Name: "a"})
	if crawls, err := w.m.Crawls("a"); err != nil || len(crawls) != 0 {
		t.Errorf("%v, %v", crawls, err)
	}
	w.reopen()
	if r := w.crawl("a"); r.Tables[0].Action != ActionNone {
		t.Errorf("%+v", r.Tables)
	}
}

// TestStates: a crawl that runs is seen, can be stopped once, and is waited for by
// Close.
func TestStates(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.bucket.put("t/a.csv", "a,b\n1,2\n")
	w.define(Definition{})
	reached, release := make(chan struct{}), make(chan struct{})
	block := func(step string) error {
		if step == "target scanned" {
			reached <- struct{}{}
			<-release
		}
		return nil
	}
	w.m.hook = block
	id, err := w.m.Start(ctx, "c")
	must(t, err)
	<-reached
	info, err := w.m.Get("c")
	must(t, err)
	crawls, err := w.m.Crawls("c")
	must(t, err)
	if info.State != StateRunning || info.LastCrawl != nil || len(crawls) != 1 || crawls[0].ID != id || crawls[0].State != CrawlRunning {
		t.Errorf("%+v %+v", info, crawls)
	}
	if _, err := w.m.Start(ctx, "c"); !errors.Is(err, ErrRunning) {
		t.Errorf("start twice: %v", err)
	}
	if err := w.m.Delete(ctx, "c"); !errors.Is(err, ErrRunning) {
		t.Errorf("delete while it runs: %v", err)
	}
	if err := w.m.Update(ctx, info.Definition); !errors.Is(err, ErrRunning) {
		t.Errorf("update while it runs: %v", err)
	}
	must(t, w.m.Stop("c"))
	if err := w.m.Stop("c"); !errors.Is(err, ErrStopping) {
		t.Errorf("stop twice: %v", err)
	}
	if info, _ = w.m.Get("c"); info.State != StateStopping {
		t.Errorf("state %s", info.State)
	}
	if _, err := w.m.Start(ctx, "c"); !errors.Is(err, ErrStopping) {
		t.Errorf("start while it stops: %v", err)
	}
	release <- struct{}{}
	for info.State != StateReady {
		time.Sleep(time.Millisecond)
		info, err = w.m.Get("c")
		must(t, err)
	}
	if info.LastCrawl == nil || info.LastCrawl.State != CrawlCancelled || w.dump() != "" {
		t.Errorf("%+v, catalog %q", info.LastCrawl, w.dump())
	}

	_, err = w.m.Start(ctx, "c")
	must(t, err)
	<-reached
	closed := make(chan error)
	go func() { closed <- w.m.Close() }()
	release <- struct{}{}
	must(t, <-closed)
	if _, err := w.m.Start(ctx, "c"); !errors.Is(err, ErrClosed) {
		t.Errorf("start after Close: %v", err)
	}
	w.reopen()
	if info, _ = w.m.Get("c"); info.LastCrawl.State != CrawlCancelled || !strings.Contains(info.LastCrawl.Error, "program stopped") {
		t.Errorf("%+v", info.LastCrawl)
	}
	// One waits while others have the places.
	w.m.slots <- struct{}{}
	w.m.slots <- struct{}{}
	_, err = w.m.Start(ctx, "c")
	must(t, err)
	if info, _ = w.m.Get("c"); info.State != StateRunning {
		t.Errorf("a crawl that waits its turn: %s", info.State)
	}
	must(t, w.m.Stop("c"))
	for info.State != StateReady {
		time.Sleep(time.Millisecond)
		info, err = w.m.Get("c")
		must(t, err)
	}
	<-w.m.slots
	<-w.m.slots
}

// TestFailures: what ends a crawl changes nothing, above all no table is taken to be
// gone.
func TestFailures(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.bucket.put("t/a.csv", "a,b\n1,2\n")
	w.bucket.put("u/a.csv", "a,b\n1,2\n")
	w.define(Definition{Policy: SchemaChangePolicy{DeleteBehavior: Delete}})
	w.crawl("c")
	before := w.dump()
	for name, breakIt := range map[string]func(){
		"the listing ends early": func() { w.bucket.lists = errors.New("connection reset") },
		"the bucket is gone":     func() { w.bucket.gone = true },
		"a classifier is gone":   func() { w.m.crawlers["c"].Definition.Classifiers = []string{"x"} },
		"a bad configuration":    func() { w.m.crawlers["c"].Definition.Configuration = "{" },
		"the names are not in order": func() {
			w.m.o.Open = func(context.Context, string) (Source, string, error) { return backwards{w.bucket}, "", nil }
		},
	} {
		breakIt()
		_, err := w.m.Run(ctx, "c")
		info, _ := w.m.Get("c")
		if err == nil || info.LastCrawl.State != CrawlFailed || info.LastCrawl.Error == "" || w.dump() != before {
			t.Errorf("%s: %v, %+v\n%s", name, err, info.LastCrawl, w.dump())
		}
		w.bucket.lists, w.bucket.gone = nil, false
		w.reopen()
	}
	// One file that the store does not give is no failure, and is tried again.
	w.bucket.put("t/b.csv", "a,b\n1,2.5\n")
	w.bucket.fail["t/b.csv"] = errors.New("access denied")
	r := w.crawl("c")
	if len(r.Skipped) != 1 || r.Skipped[0].Reason != "access denied" {
		t.Errorf("%+v", r.Skipped)
	}
	delete(w.bucket.fail, "t/b.csv")
	if r = w.crawl("c"); r.Totals.Examined != 1 || len(r.Tables[0].Columns) != 1 {
		t.Errorf("%+v", r)
	}
}

type backwards struct{ *bucket }

func (b backwards) List(ctx context.Context, prefix string, fn func(Object) error) error {
	var all []Object
	if err := b.bucket.List(ctx, prefix, func(o Object) error { all = append(all, o); return nil }); err != nil {
		return err
	}
	slices.Reverse(all)
	for _, o := range all {
		if err := fn(o); err != nil {
			return err
		}
	}
	return nil
}

// TestConflict: somebody changes a table while it is crawled.
func TestConflict(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.bucket.put("t/a.json", `{"a":1}`+"\n")
	w.define(Definition{})
	w.crawl("c")
	w.bucket.put("t/b.json", `{"a":1,"b":2}`+"\n")
	w.bucket.put("new/b.json", `{"z":1}`+"\n")
	meddled := 0
	w.m.hook = func(step string) error {
		if step != "before apply" || meddled == 2 {
			return nil
		}
		meddled++
		e := w.table("t")
		def := cloneTable(e.Definition)
		def.Description = fmt.Sprint("theirs ", meddled)
		change := catalog.ExternalChange{Table: e.Name, IfVersion: e.Version, Define: &def}
		other := catalog.ExternalChange{Table: catalog.Name{Namespace: "files", Table: "new"}, Define: &def}
		if meddled == 2 {
			return w.cat.ChangeExternals(ctx, []catalog.ExternalChange{change, other})
		}
		return w.cat.ChangeExternals(ctx, []catalog.ExternalChange{change})
	}
	w.bucket.opened()
	w.crawl("c")
	e := w.table("t")
	if e.Definition.Description != "theirs 2" || len(e.Definition.Storage.Columns) != 2 || len(w.tables()) != 3 {
		t.Errorf("%+v, tables %v", e, w.tables())
	}
	if n := len(w.bucket.opened()); n != 2 {
		t.Errorf("%d files read by three tries", n)
	}
}

// TestNoWrites: a crawl that finds nothing new makes no version and changes no
// partition.
func TestNoWrites(t *testing.T) {
	w := newWorld(t)
	for i := range 5 {
		w.bucket.put(fmt.Sprintf("t/k=%d/a.csv", i), "id,v\n1,2\n")
	}
	w.define(Definition{})
	w.crawl("c")
	before := w.dump()
	for range 3 {
		w.tick(time.Hour)
		if r := w.crawl("c"); r.Tables[0].Action != ActionNone || r.Totals.Examined != 0 {
			t.Errorf("%+v", r)
		}
	}
	versions, err := w.cat.ExternalVersions(context.Background(), w.table("t").Name)
	must(t, err)
	if w.dump() != before || len(versions) != 1 {
		t.Errorf("%d versions", len(versions))
	}
	// The figures of new files make a version, and none is kept for them.
	w.bucket.put("t/k=0/b.csv", "id,v\n1,2\n")
	w.crawl("c")
	if versions, err = w.cat.ExternalVersions(context.Background(), w.table("t").Name); err != nil || len(versions) != 1 || versions[0].Version != 2 {
		t.Errorf("%v, %v", versions, err)
	}
}

func TestHistory(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.define(Definition{})
	for i := range historyMax + 5 {
		w.tick(time.Minute)
		if i%50 == 0 {
			w.bucket.put(fmt.Sprintf("t%d/a.json", i), fmt.Sprintf(`{"a%d":1}`, i)+"\n")
		}
		w.crawl("c")
	}
	check := func() {
		crawls, err := w.m.Crawls("c")
		must(t, err)
		if len(crawls) != historyMax || crawls[0].Sequence != historyMax+5 || crawls[historyMax-1].Sequence != 6 {
			t.Fatalf("%d crawls, from %d", len(crawls), crawls[0].Sequence)
		}
		r, err := w.m.Report(ctx, "c", crawls[4].ID) // the 101st made a table
		must(t, err)
		if r.CrawlID != crawls[4].ID || crawls[4].Summary.TablesAdded.Count != 1 || r.Tables[0].Name != "t0" && r.Tables[0].Name != "t100" {
			t.Errorf("%+v", r)
		}
	}
	check()
	w.reopen()
	check()
	if _, err := w.m.Report(ctx, "c", "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the report of no crawl: %v", err)
	}
	m, err := w.m.Metrics("c")
	if err != nil || m.Created != 0 || m.Estimating {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestScheduledCrawls by a clock of the test's.
func TestScheduledCrawls(t *testing.T) {
	w := newWorld(t)
	w.bucket.put("t/a.json", `{"a":1}`+"\n")
	w.define(Definition{Schedule: "cron(0 13 * * ? *)"}) // it is 12:00
	w.define(Definition{Name: "often", Database: "often", Schedule: "cron(* * * * ? *)"})
	count := func(name string) int {
		for {
			info, err := w.m.Get(name)
			must(t, err)
			if info.State == StateReady {
				break
			}
			time.Sleep(time.Millisecond)
		}
		crawls, err := w.m.Crawls(name)
		must(t, err)
		return len(crawls)
	}
	if wait := w.m.startDue(); wait > time.Minute || count("c") != 0 {
		t.Errorf("wait %v, %d crawls", wait, count("c"))
	}
	for range 61 {
		w.tick(time.Minute)
		w.m.startDue()
		count("often")
	}
	if n := count("c"); n != 1 {
		t.Errorf("%d crawls at 13:01, want 1", n)
	}
	if n := count("often"); n < 12 || n > 13 { // every five minutes at most
		t.Errorf("%d crawls in an hour, want 12", n)
	}
	must(t, w.m.StopSchedule(context.Background(), "c"))
	w.tick(48 * time.Hour)
	w.m.startDue()
	if n := count("c"); n != 1 {
		t.Errorf("%d crawls of a stopped schedule", n)
	}
	// What passed while the program was down is left out.
	w.tick(90 * time.Second)
	w.reopen()
	w.m.startDue()
	if n := count("often"); n > 14 {
		t.Errorf("%d crawls", n)
	}
}

func TestClassifiers(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	c := Classifier{CSV: &CSVClassifier{Name: "tilde", Delimiter: "~", ContainsHeader: HeaderAbsent}}
	must(t, w.m.CreateClassifier(ctx, c))
	if err := w.m.CreateClassifier(ctx, c); !errors.Is(err, ErrExists) {
		t.Errorf("create twice: %v", err)
	}
	for _, bad := range []Classifier{{}, {CSV: &CSVClassifier{Name: "x", Delimiter: "ab"}}, {CSV: &CSVClassifier{Name: "x", ContainsHeader: "MAYBE"}},
		{CSV: &CSVClassifier{Name: "x", Serde: "Y"}}, {CSV: &CSVClassifier{Name: "a/b"}}, {CSV: &CSVClassifier{Name: "x", Header: []string{"a"}, CustomDatatypes: []string{"INT", "INT"}}},
		{CSV: &CSVClassifier{Name: "x", CustomDatatypes: []string{"MONEY"}}}, {JSON: &JSONClassifier{Name: "x", JSONPath: "a"}}} {
		if err := w.m.CreateClassifier(ctx, bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := w.m.Create(ctx, Definition{Name: "c", Database: "files", Targets: []Target{{Path: "s3://lake/"}}, Classifiers: []string{"x"}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a crawler with a classifier that is not there: %v", err)
	}
	w.define(Definition{Classifiers: []string{"tilde"}})
	w.bucket.put("t/a", "1~2\n3~4\n")
	w.crawl("c")
	if e := w.table("t"); e.Definition.Storage.Columns[0].Name != "col0" {
		t.Errorf("%+v", e.Definition.Storage)
	}
	// A changed classifier reads all files again.
	c.CSV.Header = []string{"x", "y"}
	must(t, w.m.UpdateClassifier(ctx, c))
	if r := w.crawl("c"); r.Totals.Examined != 1 {
		t.Errorf("%+v", r.Totals)
	}
	got, err := w.m.Classifier(ctx, "tilde")
	if list, e := w.m.Classifiers(ctx); err != nil || e != nil || got.Version != 2 || len(list) != 1 {
		t.Errorf("%+v, %v, %v, %v", got, err, list, e)
	}
	must(t, w.m.DeleteClassifier(ctx, "tilde"))
	if err := w.m.DeleteClassifier(ctx, "tilde"); !errors.Is(err, ErrNotFound) {
		t.Errorf("delete twice: %v", err)
	}
	if err := w.m.UpdateClassifier(ctx, c); !errors.Is(err, ErrNotFound) {
		t.Errorf("update a deleted one: %v", err)
	}
}

func TestDefinitions(t *testing.T) {
	ok := Definition{Name: "c", Database: "files", Targets: []Target{{Path: "s3://lake/"}}}
	for name, change := range map[string]func(*Definition){
		"no name":              func(d *Definition) { d.Name = "" },
		"a slash in the name":  func(d *Definition) { d.Name = "a/b" },
		"no database":          func(d *Definition) { d.Database = "" },
		"no target":            func(d *Definition) { d.Targets = nil },
		"a path twice":         func(d *Definition) { d.Targets = []Target{{Path: "s3://lake/x"}, {Path: "s3://lake/x/"}} },
		"dots":                 func(d *Definition) { d.Targets = []Target{{Path: "s3://lake/a/../b"}} },
		"two slashes":          func(d *Definition) { d.Targets = []Target{{Path: "s3://lake/a//b"}} },
		"a large sample":       func(d *Definition) { d.Targets[0].SampleSize = 250 },
		"a bad exclusion":      func(d *Definition) { d.Targets[0].Exclusions = []string{"[a"} },
		"a bad schedule":       func(d *Definition) { d.Schedule = "rate(5 minutes)" },
		"a prefix in capitals": func(d *Definition) { d.TablePrefix = "A" },
		"update":               func(d *Definition) { d.Policy.UpdateBehavior = Delete },
		"delete":               func(d *Definition) { d.Policy.DeleteBehavior = Update },
		"recrawl":              func(d *Definition) { d.Recrawl = "NEVER" },
		"configuration":        func(d *Definition) { d.Configuration = `{"Version":1.0,"Grouping":{"TableGroupingPolicy":"X"}}` },
		"unknown member":       func(d *Definition) { d.Configuration = `{"Version":1.0,"Colour":"red"}` },
		"level":                func(d *Definition) { d.Configuration = `{"Grouping":{"TableLevelConfiguration":-1}}` },
		"version":              func(d *Definition) { d.Configuration = `{"Version":2}` },
	} {
		d := ok
		d.Targets = slices.Clone(ok.Targets)
		change(&d)
		if err := d.normalize(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	d := ok
	d.Configuration = `{"Version":1.0,"CrawlerOutput":{"Tables":{"AddOrUpdateBehavior":"MergeNewColumns"},"Partitions":{"AddOrUpdateBehavior":"InheritFromTable"}},"Grouping":{"TableGroupingPolicy":"CombineCompatibleSchemas","TableLevelConfiguration":2},"CreatePartitionIndex":true}`
	if err := d.normalize(); err != nil || d.Policy.UpdateBehavior != Update || d.Policy.DeleteBehavior != Deprecate || d.Recrawl != Everything {
		t.Errorf("%v, %+v", err, d)
	}
}

func TestMetricsAreRegistered(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	if _, err := newMetrics(r); err != nil {
		t.Fatal(err)
	}
	if families, err := r.Gather(); err != nil || len(families) == 0 {
		t.Errorf("%v, %v", families, err)
	}
}
