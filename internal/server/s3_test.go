package server

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/checker"
	"github.com/tapehouse/tapehouse/internal/delivery"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/exchange"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/market"
	"github.com/tapehouse/tapehouse/internal/s3test"
)

// s3Config is a server's whose lake is on S3, behind a network that may fail.
func s3Config(t *testing.T) (Config, *s3test.Server, *s3test.Proxy) {
	server := s3test.Start(t)
	p := s3test.StartProxy(t, server.Endpoint, 700*time.Millisecond)
	cfg := testConfig(t)
	cfg.Lake.URL, cfg.Lake.Endpoint, cfg.Lake.PathStyle = "s3://"+server.Bucket+"/tape/house", p.Endpoint, true
	cfg.Lake.AccessKeyID, cfg.Lake.SecretAccessKey = s3test.AccessKeyID, s3test.SecretAccessKey
	cfg.Lake.AttemptTimeout = Duration(500 * time.Millisecond)
	cfg.Log.SegmentBytes = 16 << 20
	return cfg, server, p
}

// TestS3Lake lets a trade date go the whole way over a lake on S3, through a
// network that fails: put, flushed, read by SQL, sealed, billed, verified; the
// server crashes in between; and the checker, which reads the server's own
// files, finds each record once.
func TestS3Lake(t *testing.T) {
	cfg, server, p := s3Config(t)
	faults := s3test.Random(5, 0.3, s3test.All()...)
	p.Plan(faults)
	s := open(t, cfg)
	date := calendar.Date(2026, time.November, 20)
	x, err := exchange.New(exchange.DefaultConfig(s.pack.Calendar, date, 1, 3_000))
	if err != nil {
		t.Fatal(err)
	}
	var manifest bytes.Buffer
	noted, err := exchange.NewManifestWriter(&manifest)
	if err != nil {
		t.Fatal(err)
	}
	counts := playAll(t, s, notedPlayer{x, noted}, nil)
	if err := noted.Close(); err != nil {
		t.Fatal(err)
	}
	const perSource = `SELECT source, count(*), sum(quantity), sum(price * quantity) FROM executions GROUP BY source ORDER BY source`
	before := table(t, connect(t, s), perSource)
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := table(t, connect(t, s), perSource); fmt.Sprint(got) != fmt.Sprint(before) {
		t.Errorf("from S3 %q, from the tail %q", got, before)
	}
	// A transaction reads the rows that it wrote, and drops them.
	conn := connect(t, s)
	execute1(t, conn, `CREATE TABLE public.own (a int, b varchar)`)
	execute1(t, conn, `INSERT INTO public.own VALUES (1, 'kept')`)
	execute1(t, conn, `BEGIN`)
	execute1(t, conn, `INSERT INTO public.own VALUES (2, 'dropped')`)
	if got := text(t, conn, `SELECT count(*) FROM public.own`); got != "2" {
		t.Errorf("a transaction sees %s of 2 rows", got)
	}
	execute1(t, conn, `ROLLBACK`)
	if got := table(t, conn, `SELECT * FROM public.own`); fmt.Sprint(got) != "[1|kept]" {
		t.Errorf("own = %q", got)
	}
	put(t, client(t, s), "executions", []byte(`{"source":"X","session":"X-1","epoch":1,"seq":1000,"price":"1.00001"}`))
	if lines := errorOutput(t, s); len(lines) != 1 {
		t.Errorf("%d lines in the error output", len(lines))
	}

	// A crash, and a new machine's empty cache.
	s.delivery.Abandon()
	closeNow(t, s)
	s = open(t, cfg)
	if got := table(t, connect(t, s), perSource); fmt.Sprint(got) != fmt.Sprint(before) {
		t.Errorf("after a restart %q, before %q", got, before)
	}
	for stream, name := range map[string]string{exchange.StreamOrders: "order_events", exchange.StreamExecutions: "executions", exchange.StreamMarkers: "markers"} {
		if got := text(t, connect(t, s), "SELECT count(*) FROM equities."+name); got != fmt.Sprint(counts[stream]) {
			t.Errorf("%s: %s rows of %d", name, got, counts[stream])
		}
	}
	if got := text(t, connect(t, s), `SELECT sum(volume) FROM equities.symbol_daily_stats`); got == "NULL" || got == "0" {
		t.Errorf("the view's volume is %s", got)
	}
	if _, err := s.market.Seal(t.Context(), date, market.SealOptions{By: "test"}); err != nil {
		var refused *market.RefusedError
		if !errors.As(err, &refused) {
			t.Fatal(err)
		}
		t.Fatalf("refused: %v", refused)
	}
	if v, err := s.market.Verify(t.Context(), date, 0); err != nil || v.Rows == 0 {
		t.Errorf("Verify = %+v, %v", v, err)
	}
	first, err := s.market.Statements(t.Context(), date, 0)
	if err != nil {
		t.Fatal(err)
	}
	closeNow(t, s)
	s = open(t, cfg)
	if again, err := s.market.Statements(t.Context(), date, 0); err != nil || !again.Identical || len(again.Manifest.Statements) != len(first.Manifest.Statements) {
		t.Errorf("statements again: %v", err)
	}
	if got := table(t, connect(t, s), perSource); fmt.Sprint(got) != fmt.Sprint(before) {
		t.Errorf("after the seal %q, before %q", got, before)
	}
	closeNow(t, s)
	p.Plan(nil)
	p.Settle()

	r, err := checker.Check(t.Context(), checker.Options{Manifest: &manifest, Lake: filepath.Join(server.Root, server.Bucket, "tape", "house"), Location: cfg.Lake.URL})
	if err != nil {
		t.Fatal(err)
	}
	if !r.OK() {
		t.Errorf("the checker: %+v", r)
	}
	if left, err := os.ReadDir(filepath.Join(cfg.Data, "lake")); err != nil || len(left) != 0 {
		t.Errorf("the local lake holds %v: %v", left, err)
	}
	t.Logf("%d records, %d rows, %d faults", r.Records, r.Rows, p.Injected())
	if p.Injected() < 20 {
		t.Errorf("only %d faults", p.Injected())
	}
}

// notedPlayer writes a manifest of what it plays.
type notedPlayer struct {
	*exchange.Exchange
	manifest *exchange.ManifestWriter
}

func (p notedPlayer) Next(dst []byte) ([]byte, exchange.Record, error) {
	doc, rec, err := p.Exchange.Next(dst)
	if err == nil {
		err = p.manifest.Append(rec.Stream, rec.Key, p.Hash())
	}
	return doc, rec, err
}

// TestSoakS3 is the soak over a lake on S3 and a network that fails.
func TestSoakS3(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: the soak takes ten seconds, and -short was given")
	}
	cfg, _, p := s3Config(t)
	p.Plan(s3test.Random(uint64(time.Now().UnixNano()), 0.1, s3test.Quick()...))
	soak(t, cfg, soakFor)
	t.Logf("%d faults", p.Injected())
}

func TestLakeRefusals(t *testing.T) {
	cfg, server, _ := s3Config(t)
	cfg.Lake.AttemptTimeout = Duration(10 * time.Second) // the network is whole: only a busy machine is slow
	other := cfg
	other.Lake.SecretAccessKey = "wrong"
	refuses(t, other, "lake", "Signature")
	other = cfg
	other.Lake.URL = "s3://elsewhere/x"
	refuses(t, other, "NoSuchBucket")

	s := open(t, cfg)
	closeNow(t, s)
	local := cfg
	local.Lake = DefaultConfig().Lake
	refuses(t, local, "s3://"+server.Bucket+"/tape/house", "lake.url")
	moved := cfg
	moved.Lake.URL = "s3://" + server.Bucket + "/tape/other"
	refuses(t, moved, "tape/house", "tape/other")
	second := cfg
	second.Data = t.TempDir()
	if err := refuses(t, second, "another data directory"); !errors.Is(err, lake.ErrOwned) {
		t.Error(err)
	}
	second.Lake.URL = moved.Lake.URL // is free, and the first choice is forgotten
	closeNow(t, open(t, second))
	slash := cfg
	slash.Lake.URL += "/"
	closeNow(t, open(t, slash))

	old := testConfig(t)
	closeNow(t, open(t, old))
	old.Lake = moved.Lake
	refuses(t, old, "its directory lake/")
}

func TestUnreachableLakeIsToldInTime(t *testing.T) {
	cfg := testConfig(t)
	cfg.Lake.URL, cfg.Lake.Endpoint, cfg.Lake.Attempts = "s3://lake/x", "http://127.0.0.1:1", 3
	cfg.Lake.AccessKeyID, cfg.Lake.SecretAccessKey = "a", "b"
	start := time.Now()
	refuses(t, cfg, "lake s3://lake/x", "3 attempts", "refused")
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("a start without its lake took %s", took)
	}
}

func TestCacheTooSmallIsSaid(t *testing.T) {
	cfg, server, _ := s3Config(t)
	s := open(t, cfg)
	put(t, client(t, s), "executions", newLeg("A", 1).document(t))
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The configuration allows no cache as small as this, but a table can outgrow any.
	store, err := lake.OpenS3(t.Context(), lake.S3Options{Bucket: server.Bucket, Prefix: "tape/house", Region: s3test.Region, Endpoint: server.Endpoint, PathStyle: true,
		AccessKeyID: s3test.AccessKeyID, SecretAccessKey: s3test.SecretAccessKey})
	if err != nil {
		t.Fatal(err)
	}
	small, err := lake.OpenCache(store, lake.CacheOptions{Dir: t.TempDir(), SizeBytesMax: 1000})
	if err != nil {
		t.Fatal(err)
	}
	var uris []string
	if err := store.List(t.Context(), "equities/executions-", func(i lake.Info) error {
		uris = append(uris, store.URI(i.Name))
		return nil
	}); err != nil || len(uris) == 0 {
		t.Fatal(uris, err)
	}
	_, err = localCopies{small}.Hold(t.Context(), uris)
	var said *engine.Error
	if !errors.As(err, &said) || said.Kind != engine.OutOfMemory || !strings.Contains(said.Message, "lake.cache") || strings.Contains(said.Message, ".parquet") {
		t.Errorf("a cache too small: %v", err)
	}
}

// TestObjectsOnS3 delivers into a bucket on S3 through a network that fails:
// each record lies there once.
func TestObjectsOnS3(t *testing.T) {
	cfg, server, p := s3Config(t)
	const bucket = "archive"
	if err := os.Mkdir(filepath.Join(server.Root, bucket), 0o755); err != nil {
		t.Fatal(err)
	}
	s := open(t, cfg)
	aws := client(t, s)
	in := extended("raw", jsonObject{"BucketARN": "arn:aws:s3:::" + bucket, "Prefix": "raw/", "ProcessingConfiguration": processors(processor("AppendDelimiterToRecord"))})
	if err := aws.Call(t.Context(), "CreateDeliveryStream", in, nil); err != nil {
		t.Fatal(err)
	}
	refusal(t, "no bucket", aws.Call(t.Context(), "CreateDeliveryStream", extended("other", jsonObject{"BucketARN": "arn:aws:s3:::nobody-has-it"}), nil), "InvalidArgumentException", "nobody-has-it")
	p.Plan(s3test.Random(9, 0.3, s3test.All()...))
	st, err := s.delivery.Stream("raw")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		put(t, aws, "raw", fmt.Appendf(nil, "record %d", i))
		if i%3 == 0 {
			if err := st.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.Plan(nil)
	o := lake.S3Options{Bucket: bucket, Endpoint: server.Endpoint, Region: "us-east-1", PathStyle: true, AccessKeyID: s3test.AccessKeyID, SecretAccessKey: s3test.SecretAccessKey}
	store, err := lake.OpenS3(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Shut()
	count := map[string]int{}
	if err := store.List(t.Context(), "raw/", func(i lake.Info) error {
		b, err := store.Get(t.Context(), i.Name)
		for line := range strings.Lines(string(b)) {
			count[line]++
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if n := count[fmt.Sprintf("record %d\n", i)]; n != 1 {
			t.Errorf("record %d is there %d times", i, n)
		}
	}
	if len(count) != 20 {
		t.Errorf("%d records", len(count))
	}
}

// TestQueryFetchesItsPartitions: a query of one trade date brings that date's
// files here and no others, however it is asked.
func TestQueryFetchesItsPartitions(t *testing.T) {
	cfg, _, _ := s3Config(t)
	s := open(t, cfg)
	dates := []string{"2026-11-18", "2026-11-19", "2026-11-20"}
	for i, d := range dates {
		l := newLeg("A", int64(i+1))
		l.At = d + "T15:00:00Z"
		put(t, client(t, s), "executions", l.document(t))
	}
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	copies := func() int {
		entries, err := os.ReadDir(s.cache.Dir())
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	if n := copies(); n < len(dates) {
		t.Errorf("%d files are in the cache after a flush", n)
	}
	ask := map[string]func(conn *pgx.Conn, date string) (n int, err error){
		"text": func(conn *pgx.Conn, date string) (n int, err error) {
			rows, err := rowsOf(t.Context(), conn, `SELECT count(*) FROM executions WHERE trade_date = '`+date+`'`)
			return atoi(t, rows[0]), err
		},
		"parameter": func(conn *pgx.Conn, date string) (n int, err error) {
			at, err := time.Parse(time.DateOnly, date)
			if err == nil {
				err = conn.QueryRow(t.Context(), `SELECT count(*) FROM executions e WHERE e.trade_date = $1`, at).Scan(&n)
			}
			return n, err
		},
	}
	for how, query := range ask {
		closeNow(t, s)
		s = open(t, cfg)
		before := copies() // the reference tables that a start reads
		conn := connect(t, s)
		for i, d := range dates[:2] {
			if n, err := query(conn, d); err != nil || n != 1 {
				t.Errorf("%s: %d rows of %s: %v", how, n, d, err)
			}
			if n := copies() - before; n != i+1 {
				t.Errorf("%s: %d files were fetched for %d trade dates", how, n, i+1)
			}
		}
	}
}

// TestRejectsOnS3 writes the error output of a table's stream to S3 through a
// network that fails: each reject lies there once, and can be put again from
// there.
func TestRejectsOnS3(t *testing.T) {
	cfg, server, p := s3Config(t)
	s := open(t, cfg)
	aws := client(t, s)
	st, err := s.delivery.Stream("executions")
	if err != nil {
		t.Fatal(err)
	}
	p.Plan(s3test.Random(11, 0.3, s3test.All()...))
	const n = 40
	for i := range n {
		put(t, aws, "executions", fmt.Appendf(nil, `{"no":"leg %d"}`, i))
		if i%7 == 0 {
			if err := st.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.Plan(nil)
	store, err := lake.OpenS3(t.Context(), lake.S3Options{Bucket: server.Bucket, Prefix: "tape/house", Region: s3test.Region, Endpoint: server.Endpoint, PathStyle: true,
		AccessKeyID: s3test.AccessKeyID, SecretAccessKey: s3test.SecretAccessKey})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Shut()
	count, objects := map[string]int{}, 0
	if err := store.List(t.Context(), "errors/", func(i lake.Info) error {
		objects++
		b, err := store.Get(t.Context(), i.Name)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			item, original, err := delivery.ParseFailed([]byte(line))
			if err != nil {
				return err
			}
			count[item.ID.String()+string(original)]++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for line, k := range count {
		if k != 1 {
			t.Errorf("%s is there %d times", line, k)
		}
	}
	if len(count) != n || objects < n/7 {
		t.Errorf("%d rejects of %d in %d objects", len(count), n, objects)
	}
	t.Logf("%d objects, %d faults", objects, p.Injected())
}
