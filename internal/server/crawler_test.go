package server

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/console"
)

func dropFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestCrawlAndJoin: files of others become tables that SQL joins with a stream; a
// second crawl changes nothing; what lies in the directories of managed tables is
// no file of others; a sealed-off key may not crawl.
func TestCrawlAndJoin(t *testing.T) {
	cfg := testConfig(t)
	s := open(t, cfg)
	putLegs(t, s, "ME1-EXE", 1, 20)
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	lake := filepath.Join(cfg.Data, "lake")
	dropFile(t, filepath.Join(lake, "ref", "symbols", "venue=XNAS", "s.csv"), "symbol,company,lot\nACME,\"Acme, Inc.\",100\nZZZ,Zed,1\n")
	dropFile(t, filepath.Join(lake, "ref", "symbols", "venue=XNYS", "s.csv"), "symbol,company,lot\nIBM,IBM,10\n")
	dropFile(t, filepath.Join(lake, "ref", "notes", "n.json"), `{"id":1,"amount":"12.50"}`+"\n"+`{"id":2,"amount":"0.01"}`+"\n")
	b := closeBackend{s}
	dry, err := b.Crawl(t.Context(), console.CrawlRequest{Name: "all", Path: "s3://lake/", Database: "ref", DryRun: true})
	if err != nil || len(dry.Tables) != 2 || dry.CrawlID != "" {
		t.Fatalf("dry run: %+v, %v", dry, err)
	}
	conn := connect(t, s)
	if _, err := conn.Exec(t.Context(), "SELECT * FROM ref.symbols"); err == nil {
		t.Fatal("a dry run made a table")
	}
	first, err := b.Crawl(t.Context(), console.CrawlRequest{Name: "all", Path: "s3://lake/", Database: "ref"})
	if err != nil || len(first.Tables) != 2 || first.Tables[0].Action != "create" {
		t.Fatalf("%+v, %v", first, err)
	}
	for _, table := range first.Tables {
		if strings.Contains(table.Location, "executions") {
			t.Errorf("a managed table was crawled: %+v", table)
		}
	}
	if got := table(t, conn, `SELECT e.symbol, s.company, count(*), sum(e.quantity * s.lot) FROM equities.executions e JOIN ref.symbols s USING (symbol) WHERE s.venue = 'XNAS' GROUP BY 1, 2`); len(got) != 1 || !strings.HasPrefix(got[0], "ACME|Acme, Inc.|20|") {
		t.Errorf("joined: %q", got)
	}
	if got := text(t, conn, `SELECT count(*) FROM ref.notes`); got != "2" {
		t.Errorf("%s notes", got)
	}
	again, err := b.Crawl(t.Context(), console.CrawlRequest{Name: "all", Path: "s3://lake/", Database: "ref"})
	if err != nil || again.Examined != 0 {
		t.Errorf("again: %+v, %v", again, err)
	}
	for _, table := range again.Tables {
		if table.Action != "unchanged" {
			t.Errorf("again: %+v", table)
		}
	}
	for _, path := range []string{"s3://lake/../x", "file:///etc", "s3://no/such", "ref"} {
		if _, err := b.Crawl(t.Context(), console.CrawlRequest{Name: "bad", Path: path, Database: "ref"}); err == nil {
			t.Errorf("%s was crawled", path)
		}
	}
}

// TestDroppedFilesAreSeen: a crawler in event mode makes a dropped file queryable by
// itself, also after a restart.
func TestDroppedFilesAreSeen(t *testing.T) {
	cfg := testConfig(t)
	s := open(t, cfg)
	dropped := filepath.Join(cfg.Data, "buckets", "inbox", "quotes")
	dropFile(t, filepath.Join(dropped, "day=1", "a.csv"), "symbol,bid\nABC,1.25\nDEF,2.5\n")
	if _, err := (closeBackend{s}).Crawl(t.Context(), console.CrawlRequest{Name: "inbox", Path: "s3://inbox/quotes/", Database: "inbox", Watch: true}); err != nil {
		t.Fatal(err)
	}
	wait := func(s *Server, want string) {
		t.Helper()
		conn, began := connect(t, s), time.Now()
		for {
			got, err := rowsOf(t.Context(), conn, `SELECT count(*), sum(bid) FROM inbox.quotes`)
			if err == nil && fmt.Sprint(got) == "["+want+"]" {
				t.Logf("seen after %s", time.Since(began).Round(10*time.Millisecond))
				return
			}
			if time.Since(began) > time.Minute {
				t.Fatalf("%v, %v; want %s", got, err, want)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	wait(s, "2|3.7500")
	dropFile(t, filepath.Join(dropped, "day=2", "b.csv"), "symbol,bid\nGHI,10.125\n")
	wait(s, "3|13.8750")
	closeNow(t, s)
	s = open(t, cfg)
	dropFile(t, filepath.Join(dropped, "day=3", "c.csv"), "symbol,bid\nJKL,1\n")
	wait(s, "4|14.8750")
}

// TestCrawlOnS3 crawls a bucket of the S3 on which the lake is.
func TestCrawlOnS3(t *testing.T) {
	cfg, server, p := s3Config(t)
	p.Plan(nil)
	s := open(t, cfg)
	putLegs(t, s, "ME1-EXE", 1, 20)
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	dropFile(t, filepath.Join(server.Root, "others", "symbols", "s.csv"), "symbol,company,lot\nACME,Acme,100\n")
	if _, err := (closeBackend{s}).Crawl(t.Context(), console.CrawlRequest{Name: "others", Path: "s3://others/symbols/", Database: "others"}); err != nil {
		t.Fatal(err)
	}
	if got := table(t, connect(t, s), `SELECT s.company, count(*) FROM equities.executions e JOIN others.symbols s USING (symbol) GROUP BY 1`); fmt.Sprint(got) != "[Acme|20]" {
		t.Errorf("joined: %q", got)
	}
}
