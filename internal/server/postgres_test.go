package server

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/exchange"
	"github.com/tapehouse/tapehouse/internal/pgtest"
	"github.com/tapehouse/tapehouse/internal/readertest"
	"github.com/tapehouse/tapehouse/internal/s3test"
)

func TestMain(m *testing.M) {
	code := m.Run()
	pgtest.Stop()
	s3test.Clean()
	os.Exit(code)
}

// postgresConfig is a server's whose catalog is in PostgreSQL.
func postgresConfig(t *testing.T) Config {
	server := pgtest.Start(t)
	cfg := testConfig(t)
	cfg.Catalog = pgtest.URL(server.Addr, server.Database(t))
	return cfg
}

// TestCatalogInPostgreSQL: a trade date goes in, is read, and is there after a
// restart and after a crash; the checks of a start find what does not belong
// together.
func TestCatalogInPostgreSQL(t *testing.T) {
	cfg := postgresConfig(t)
	s := open(t, cfg)
	counts := play(t, s, 5_000)
	const sums = `SELECT source, count(*), sum(quantity), sum(price * quantity) FROM executions GROUP BY source ORDER BY source`
	before := table(t, connect(t, s), sums)
	check := func(when string) {
		t.Helper()
		if got := table(t, connect(t, s), sums); fmt.Sprint(got) != fmt.Sprint(before) {
			t.Errorf("%s: %q, want %q", when, got, before)
		}
		for stream, name := range map[string]string{exchange.StreamOrders: "order_events", exchange.StreamExecutions: "executions", exchange.StreamMarkers: "markers"} {
			if got := text(t, connect(t, s), "SELECT count(*) FROM equities."+name); got != fmt.Sprint(counts[stream]) {
				t.Errorf("%s: %s has %s rows of %d", when, name, got, counts[stream])
			}
		}
		if got := text(t, connect(t, s), `SELECT sum(volume) FROM equities.symbol_daily_stats`); got == "NULL" || got == "0" {
			t.Errorf("%s: the view's volume is %s", when, got)
		}
	}
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("flushed")
	execute1(t, connect(t, s), `CREATE TABLE public.own AS SELECT 1 AS a`)
	closeNow(t, s)
	s = open(t, cfg)
	check("restarted")
	s.delivery.Abandon()
	closeNow(t, s)
	s = open(t, cfg)
	check("after a crash")
	if got := text(t, connect(t, s), `SELECT a FROM public.own`); got != "1" {
		t.Errorf("own table: %s", got)
	}
	closeNow(t, s)

	for name, change := range map[string]func(*Config){
		"are in PostgreSQL": func(c *Config) { c.Catalog = "" },
		"share the lake":    func(c *Config) { c.Data = t.TempDir() },
		"PGPASSWORD":        func(c *Config) { c.Catalog = withPassword(t, c.Catalog, "wrong-secret") },
		"in the clear":      func(c *Config) { c.Catalog = "postgres://u:wrong-secret@db.example/x" },
	} {
		other := cfg
		change(&other)
		s, err := Open(t.Context(), other, Options{})
		if err == nil {
			closeNow(t, s)
		}
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "wrong-secret") {
			t.Errorf("Open = %v, want it to say %q and no password", err, name)
		}
	}
}

func withPassword(t *testing.T, text, password string) string {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(u.User.Username(), password)
	return u.String()
}

// TestTwoServersShareACatalog: two servers with a data directory each, one
// PostgreSQL and one lake on S3. Each has its own streams; both feed the same
// tables, and both read all of it.
func TestTwoServersShareACatalog(t *testing.T) {
	lakeConfig, server, _ := s3Config(t)
	a := postgresConfig(t)
	a.Lake = lakeConfig.Lake
	a.Lake.Endpoint = server.Endpoint
	b := a
	b.Data = t.TempDir()
	first := open(t, a)
	second := open(t, b)
	const each = 1000
	for i, s := range []*Server{first, second} {
		putLegs(t, s, string(rune('A'+i)), 1, each)
	}
	for _, s := range []*Server{first, second} {
		if err := s.delivery.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for i, s := range []*Server{first, second} {
		if got := table(t, connect(t, s), `SELECT source, count(*), sum(seq) FROM executions GROUP BY source ORDER BY source`); fmt.Sprint(got) != "[A|1000|500500 B|1000|500500]" {
			t.Errorf("server %d reads %q", i, got)
		}
		for _, r := range s.pack.References {
			if got := text(t, connect(t, s), `SELECT count(*) FROM `+r.Table); got != fmt.Sprint(len(r.Rows)) {
				t.Errorf("server %d reads %s rows of %s, the pack has %d", i, got, r.Table, len(r.Rows))
			}
		}
	}
	// A table that one makes, the other one reads and appends to.
	execute1(t, connect(t, first), `CREATE TABLE public.common (a int)`)
	for n, s := range []*Server{first, second, first, second} {
		execute1(t, connect(t, s), fmt.Sprintf(`INSERT INTO public.common VALUES (%d)`, n))
	}
	if got := table(t, connect(t, first), `SELECT a FROM public.common ORDER BY a`); fmt.Sprint(got) != "[0 1 2 3]" {
		t.Errorf("common = %q", got)
	}
	// One restarts: its streams, and only its, go on.
	closeNow(t, second)
	second = open(t, b)
	putLegs(t, second, "B", each+1, each)
	putLegs(t, first, "A", each+1, each)
	for _, s := range []*Server{second, first} {
		if err := s.delivery.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := table(t, connect(t, second), `SELECT source, count(*), max(seq) FROM executions GROUP BY source ORDER BY source`); fmt.Sprint(got) != "[A|2000|2000 B|2000|2000]" {
		t.Errorf("after a restart %q", got)
	}
	// Crawlers run on one of them, until it is stopped.
	crawl := console.CrawlRequest{Name: "others", Path: "s3://others/", Database: "others"}
	dropFile(t, filepath.Join(server.Root, "others", "q", "a.csv"), "symbol,lot\nABC,1\n")
	if _, err := (closeBackend{second}).Crawl(t.Context(), crawl); !console.IsCode(err, console.CodeUnavailable) {
		t.Errorf("the second server crawls: %v", err)
	}
	root := second.Credentials().Keys[0]
	if answer, code := glueCall(t, second, root.ID, root.Secret, "GetCrawlers", `{}`); code != "OperationNotSupportedException" || !strings.Contains(answer, "another server") {
		t.Errorf("the second server's crawlers: %s %s", code, answer)
	}
	if c, err := (closeBackend{first}).Crawl(t.Context(), crawl); err != nil || len(c.Tables) != 1 {
		t.Errorf("the first server's crawl: %+v, %v", c, err)
	}
	if got := text(t, connect(t, second), `SELECT lot FROM others.q`); got != "1" {
		t.Errorf("the second server reads %q", got)
	}
	closeNow(t, first)
	closeNow(t, second)
	second = open(t, b)
	if _, err := (closeBackend{second}).Crawl(t.Context(), crawl); err != nil {
		t.Errorf("the crawlers were not taken over: %v", err)
	}

	// Another catalog finds the lake taken.
	third := postgresConfig(t)
	third.Lake = a.Lake
	if s, err := Open(t.Context(), third, Options{}); err == nil || !strings.Contains(err.Error(), "choose another prefix") {
		if err == nil {
			_ = s.Close(context.Background())
		}
		t.Errorf("another catalog's server on the same lake: %v", err)
	}
}

// TestPyIcebergReadsPostgreSQL: PyIceberg's SqlCatalog reads the tables through
// the same database.
func TestPyIcebergReadsPostgreSQL(t *testing.T) {
	cfg := postgresConfig(t)
	s := open(t, cfg)
	putLegs(t, s, "J", 1, 1000)
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := readertest.Read(t, "pyiceberg", strings.Replace(cfg.Catalog, "postgres://", "postgresql+psycopg2://", 1), "tapehouse", "equities.executions")
	if len(got.Rows) != 1000 {
		t.Errorf("%d rows, want 1000", len(got.Rows))
	}
	for _, column := range []string{"seq", "quantity", "price"} {
		if want := text(t, connect(t, s), "SELECT sum("+column+") FROM executions"); got.Sums[column] != want {
			t.Errorf("sum of %s: %s, SQL says %s", column, got.Sums[column], want)
		}
	}
}
