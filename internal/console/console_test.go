package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/fsys"
)

// fake answers with what it was asked.
type fake struct {
	err error
	pid int
}

func (f *fake) Info(context.Context) (Info, error) {
	return Info{Version: "v1", PID: f.pid, Data: "/d", Pack: "equities 1", StartedAt: time.Unix(1, 0).UTC(),
		Streams: []Stream{{Name: "executions", Table: "equities.executions", Acknowledged: 7}}}, f.err
}

func (f *fake) Status(_ context.Context, q StatusRequest) (Status, error) {
	at := time.Date(2026, 11, 21, 2, 0, 0, 0, time.UTC)
	return Status{TradeDates: []TradeDateStatus{{TradeDate: q.TradeDate, State: StateBlocked, DeadlineAt: at, DeadlineState: "at-risk", ExpectedSealAt: &at,
		Sources: []Source{{Source: "ME1-ORD", Session: "ME1-1", Epoch: 1, Expected: true, State: SourceDefect, Announced: 1234, Rows: 1233, Missing: 1},
			{Source: "<script>", State: SourceSilent, Announced: -1}},
		Problems: []Problem{{Kind: ProblemGap, Source: "ME1-ORD", Epoch: 1, FirstSeq: 5, LastSeq: 5, Message: "ME1-ORD lacks 5", Remedy: "send it again"},
			{Kind: ProblemSilent, Source: "X", Message: "X is silent", Waived: true}}}}}, f.err
}

func (f *fake) Seal(_ context.Context, q SealRequest) (Seal, error) {
	return Seal{TradeDate: q.TradeDate, Version: 1, Certificate: "abc", Tag: "eod-" + q.TradeDate, Rows: 12345, Sources: 9}, f.err
}

func (f *fake) Waive(_ context.Context, q WaiveRequest) (Waiver, error) {
	return Waiver{ID: "w1", WaiveRequest: q}, f.err
}

func (f *fake) Verify(_ context.Context, q VerifyRequest) (Verification, error) {
	return Verification{TradeDate: q.TradeDate, Version: q.Version, Checks: []Check{{"rows", "1", "2", false}, {"hash", "a", "a", true}}}, f.err
}

func (f *fake) Statements(_ context.Context, q StatementsRequest) (StatementRun, error) {
	return StatementRun{TradeDate: q.TradeDate, Total: "-1234.5600", Statements: []Statement{{ID: "s1", MemberName: "Alder", Lines: 3, Amount: "10.0000", SHA256: strings.Repeat("a", 64)}},
		Adjustments: []Adjustment{{Statement: "s1", Charge: "transaction remove C over-1", Cause: "bust", MatchNumber: 17, Amount: "-0.3000"}}}, f.err
}

func (f *fake) Explain(_ context.Context, q ExplainRequest) (Explanation, error) {
	v := "1"
	return Explanation{Statement: q.Statement, Line: q.Line, Legs: int64(q.Limit), Columns: []string{"match_number", "reason"}, Rows: [][]*string{{&v, nil}}}, f.err
}

func (f *fake) Trace(_ context.Context, q TraceRequest) (Trace, error) {
	return Trace{RecordID: q.RecordID, Stream: "s", Offset: 7, State: "in the table", Record: "{}\n", Places: []TracePlace{{Destination: "table n.t", State: "a row", File: "f.parquet", Snapshot: 9},
		{Destination: "objects", State: "written", Objects: []string{"o"}, ObjectCount: 3, Code: "C", Message: "m", Remedy: "r"}}}, f.err
}

func (f *fake) Replay(_ context.Context, q ReplayRequest) (Replay, error) {
	r := Replay{Stream: q.Stream, Put: int64(len(q.Lines))}
	for i := range RefusedMax + 2 {
		r.Refuse(int64(i+1), "no")
	}
	return r, f.err
}

func (f *fake) Crawl(_ context.Context, q CrawlRequest) (Crawl, error) {
	return Crawl{Crawler: q.Name, Database: q.Database, DryRun: q.DryRun, Objects: 3, Bytes: 5 << 20, Examined: 2, Known: 1, Seconds: 0.2, TablesLeft: 1, Notes: []string{"a note"},
		Tables:  []CrawledTable{{Name: "symbols", Location: "s3://lake/symbols/", Action: "create", Reason: "new", Columns: []string{"column a int is new, by x.csv"}, PartitionsAdded: 2, Objects: 3, Rows: 1234, Notes: []string{"of the table"}}},
		Skipped: []CrawlSkip{{"it is no table", 1, []string{"a.txt"}}}}, f.err
}

func (f *fake) Flush(context.Context) (Flushed, error) { return Flushed{Streams: 3, Records: 1}, f.err }

func (f *fake) PlanMaintenance(context.Context) (MaintainPlan, error) {
	return MaintainPlan{Tables: []MaintainTable{{Table: "n.t", Snapshots: 1234, Merges: 2, MergeFiles: 70, MergeBytes: 3 << 20}}, Dropped: 1}, f.err
}

func (f *fake) Maintain(context.Context) (Maintained, error) {
	return Maintained{Snapshots: 3, Files: 4, Pinned: 5, Orphans: 6, Deletes: 7, Merges: 8}, f.err
}

func (f *fake) Backup(_ context.Context, q BackupRequest) (Backup, error) {
	return Backup{To: q.To, ID: "20261127T173412Z", Files: 1234, Bytes: 3 << 30, Copied: 12, CopiedBytes: 1 << 20, Elsewhere: 2, Seconds: 3.5}, f.err
}

func (f *fake) BackupStatus(context.Context) (BackupStatus, error) {
	return BackupStatus{Running: true, Files: 3, FilesAll: 9, Bytes: 7}, f.err
}

var user = auth.SQLUser{Name: "tapehouse", Password: "secret"}

// open serves a fake and returns a client of it.
func open(t *testing.T, f *fake, change func(*Options)) (*Client, string) {
	t.Helper()
	o := Options{Backend: f, Gatherer: prometheus.NewRegistry(), Authenticate: func(u, p string) bool { return u == user.Name && p == user.Password },
		Authorize: func(string, string) bool { return true }}
	if change != nil {
		change(&o)
	}
	s := httptest.NewServer(NewHandler(o))
	t.Cleanup(s.Close)
	c := NewClient(Endpoints{HTTP: strings.TrimPrefix(s.URL, "http://")}, user)
	t.Cleanup(c.Close)
	return c, s.URL
}

func TestEveryCallGoesThere(t *testing.T) {
	c, _ := open(t, &fake{pid: 5}, nil)
	ctx := t.Context()
	if err := c.Ready(ctx); err != nil {
		t.Error(err)
	}
	if v, err := c.Info(ctx); err != nil || v.PID != 5 || len(v.Streams) != 1 {
		t.Error(v, err)
	}
	if v, err := c.Status(ctx, StatusRequest{"2026-11-20"}); err != nil || v.TradeDates[0].TradeDate != "2026-11-20" || v.TradeDates[0].Sources[0].Missing != 1 {
		t.Error(v, err)
	}
	if v, err := c.Seal(ctx, SealRequest{TradeDate: "2026-11-20", By: "me"}); err != nil || v.Tag != "eod-2026-11-20" {
		t.Error(v, err)
	}
	if v, err := c.Crawl(ctx, CrawlRequest{Name: "n", Path: "s3://lake/x", Database: "d"}); err != nil || v.Tables[0].Rows != 1234 {
		t.Error(v, err)
	}
	if _, err := c.Crawl(ctx, CrawlRequest{Name: "n"}); !IsCode(err, CodeInvalid) {
		t.Error(err)
	}
	if v, err := c.Flush(ctx); err != nil || v.Streams != 3 {
		t.Error(v, err)
	}
	if v, err := c.PlanMaintenance(ctx); err != nil || v.Tables[0].MergeFiles != 70 || v.Dropped != 1 {
		t.Error(v, err)
	}
	if v, err := c.Maintain(ctx); err != nil || v.Merges != 8 {
		t.Error(v, err)
	}
	if v, err := c.Backup(ctx, BackupRequest{To: "/b"}); err != nil || v.To != "/b" || v.Copied != 12 {
		t.Error(v, err)
	}
	if _, err := c.Backup(ctx, BackupRequest{}); !IsCode(err, CodeInvalid) {
		t.Error(err)
	}
	if v, err := c.BackupStatus(ctx); err != nil || !v.Running || v.FilesAll != 9 {
		t.Error(v, err)
	}
	q := WaiveRequest{TradeDate: "2026-11-20", Source: "ME1-ORD", Kind: ProblemGap, FirstSeq: 3, LastSeq: 4, Reason: "r", By: "me", Second: "you"}
	if v, err := c.Waive(ctx, q); err != nil || v.WaiveRequest != q || v.ID != "w1" {
		t.Error(v, err)
	}
	if v, err := c.Verify(ctx, VerifyRequest{TradeDate: "2026-11-20", Version: 2}); err != nil || v.Version != 2 || len(v.Checks) != 2 {
		t.Error(v, err)
	}
	if v, err := c.Statements(ctx, StatementsRequest{TradeDate: "2026-11-20", Adjustments: true}); err != nil || v.Total != "-1234.5600" {
		t.Error(v, err)
	}
	if v, err := c.Trace(ctx, TraceRequest{"0102"}); err != nil || v.RecordID != "0102" || len(v.Places) != 2 {
		t.Error(v, err)
	}
	if v, err := c.Replay(ctx, ReplayRequest{Stream: "s", Lines: []json.RawMessage{[]byte("{}")}}); err != nil || v.Put != 1 || v.RefusedCount != RefusedMax+2 {
		t.Error(v, err)
	}
	for _, q := range []ReplayRequest{{Stream: "s"}, {Object: "o"}, {Stream: "s", Object: "o", From: &ReplayRange{}}, {Stream: "s", Lines: make([]json.RawMessage, ReplayLinesMax+1)}} {
		if _, err := c.Replay(ctx, q); !IsCode(err, CodeInvalid) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	if v, err := c.Explain(ctx, ExplainRequest{Statement: "a/b c&d", Line: 3}); err != nil || v.Statement != "a/b c&d" || v.Line != 3 || v.Legs != legsDefault || v.Rows[0][1] != nil {
		t.Error(v, err)
	}
}

func TestErrorsArriveWhole(t *testing.T) {
	f := &fake{err: &Error{Code: CodeRefused, Message: "no", Remedy: "do", Problems: []Problem{{Kind: ProblemGap, Source: "S", FirstSeq: 1, LastSeq: 2}}}}
	c, _ := open(t, f, nil)
	_, err := c.Seal(t.Context(), SealRequest{TradeDate: "2026-11-20"})
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeRefused || e.Remedy != "do" || len(e.Problems) != 1 || e.Problems[0].LastSeq != 2 {
		t.Fatal(err)
	}
	for _, w := range []struct {
		err  error
		code Code
	}{
		{errors.New("boom"), CodeInternal}, {context.DeadlineExceeded, CodeUnavailable}, {Errorf(CodeConflict, "sealed"), CodeConflict},
		{&Error{Code: "made-up"}, "made-up"},
	} {
		f.err = w.err
		if _, err := c.Seal(t.Context(), SealRequest{TradeDate: "2026-11-20"}); !IsCode(err, w.code) {
			t.Errorf("%v: %v", w.err, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	_, url := open(t, &fake{}, nil)
	type request struct {
		method, path, body, contentType string
		anonymous                       bool
		status                          int
	}
	const asJSON = "application/json"
	for _, r := range []request{
		{"GET", "/healthz", "", "", true, 200},
		{"GET", "/readyz", "", "", true, 200},
		{"GET", "/metrics", "", "", true, 200},
		{"GET", "/status", "", "", true, 401},
		{"GET", "/", "", "", true, 401},
		{"GET", "/api/v1/info", "", "", true, 401},
		{"POST", "/api/v1/seal", `{"trade_date":"2026-11-20"}`, asJSON, true, 401},
		{"GET", "/api/v1/seal", "", "", false, 405},
		{"POST", "/api/v1/info", "{}", asJSON, false, 405},
		{"GET", "/nowhere", "", "", false, 404},
		{"POST", "/api/v1/seal", `{"trade_date":"2026-11-20"}`, "text/plain", false, 400},
		{"POST", "/api/v1/seal", `{"trade_date":"2026-11-20"}`, "application/x-www-form-urlencoded", false, 400},
		{"POST", "/api/v1/seal", `{"trade_date":"2026-11-20"}`, "application/json; charset=utf-8", false, 200},
		{"POST", "/api/v1/seal", `{"trade_date":"20.11.2026"}`, asJSON, false, 400},
		{"POST", "/api/v1/seal", `{}`, asJSON, false, 400},
		{"POST", "/api/v1/seal", `{"trade_date":"2026-11-20","x":1}`, asJSON, false, 400},
		{"POST", "/api/v1/seal", `{"trade_date":"2026-11-20"} {}`, asJSON, false, 400},
		{"POST", "/api/v1/seal", `{"trade_date":"` + strings.Repeat("9", 2<<20) + `"}`, asJSON, false, 400},
		{"POST", "/api/v1/seal", `not json`, asJSON, false, 400},
		{"GET", "/api/v1/status?trade_date=yesterday", "", "", false, 400},
		{"GET", "/api/v1/status?trade_date=2026-11-20&trade_date=2026-11-23", "", "", false, 400},
		{"GET", "/api/v1/status?unknown=1", "", "", false, 400},
		{"GET", "/api/v1/explain-charge?statement=s", "", "", false, 400},
		{"GET", "/api/v1/explain-charge?statement=s&line=x", "", "", false, 400},
		{"GET", "/api/v1/explain-charge?statement=s&line=1&limit=1000000", "", "", false, 400},
		{"GET", "/api/v1/explain-charge?statement=s&line=1", "", "", false, 200},
	} {
		q, err := http.NewRequestWithContext(t.Context(), r.method, url+r.path, strings.NewReader(r.body))
		if err != nil {
			t.Fatal(err)
		}
		if r.contentType != "" {
			q.Header.Set("Content-Type", r.contentType)
		}
		if !r.anonymous {
			q.SetBasicAuth(user.Name, user.Password)
		}
		a, err := http.DefaultTransport.RoundTrip(q)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(a.Body)
		_ = a.Body.Close()
		if err != nil || a.StatusCode != r.status {
			t.Errorf("%s %.60s: status %d, want %d: %s", r.method, r.path, a.StatusCode, r.status, text)
		}
		if a.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: no nosniff", r.path)
		}
		if strings.Contains(string(text), user.Password) {
			t.Errorf("%s tells the password", r.path)
		}
	}
}

func TestNotReady(t *testing.T) {
	var ready atomic.Bool
	c, url := open(t, &fake{}, func(o *Options) {
		o.Ready = func() error {
			if !ready.Load() {
				return errors.New("replaying the log")
			}
			return nil
		}
	})
	if err := c.Ready(t.Context()); !IsCode(err, CodeUnavailable) || !strings.Contains(err.Error(), "replaying") {
		t.Error(err)
	}
	if _, err := c.Info(t.Context()); !IsCode(err, CodeUnavailable) {
		t.Error(err)
	}
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := http.DefaultClient.Do(q); err != nil || a.StatusCode != 200 {
		t.Error(a, err)
	} else {
		_ = a.Body.Close()
	}
	ready.Store(true)
	if err := c.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestStatusPage(t *testing.T) {
	_, url := open(t, &fake{}, nil)
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/status?trade_date=2026-11-20", nil)
	if err != nil {
		t.Fatal(err)
	}
	q.SetBasicAuth(user.Name, user.Password)
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(a.Body)
	_ = a.Body.Close()
	if err != nil || a.StatusCode != 200 {
		t.Fatal(a.Status, err)
	}
	for _, want := range []string{"2026-11-20", "ME1-ORD lacks 5", "send it again", "1234", "&lt;script&gt;", "waived: X is silent"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if bytes.Contains(text, []byte("<script>")) {
		t.Error("a source's name became markup")
	}
}

func TestEndpoints(t *testing.T) {
	mem := fsys.NewMem()
	if err := mem.MkdirAll("/d", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadEndpoints(mem, "/d"); !errors.Is(err, ErrNotRunning) {
		t.Error(err)
	}
	if err := RemoveEndpoints(mem, "/d"); err != nil {
		t.Error(err)
	}
	e := Endpoints{AWS: "127.0.0.1:1", SQL: "127.0.0.1:2", HTTP: "127.0.0.1:3", TLS: true, Region: "eu-west-1", Database: "d", PID: 4, Version: "v"}
	if err := WriteEndpoints(mem, "/d", e); err != nil {
		t.Fatal(err)
	}
	if have, err := ReadEndpoints(mem, "/d"); err != nil || have != e || have.AWSURL() != "https://127.0.0.1:1" {
		t.Error(have, err)
	}
	if err := RemoveEndpoints(mem, "/d"); err != nil {
		t.Error(err)
	}
	if _, err := ReadEndpoints(mem, "/d"); !errors.Is(err, ErrNotRunning) {
		t.Error(err)
	}
	if err := fsys.WriteFileAtomic(mem, "/d/server.json", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadEndpoints(mem, "/d"); err == nil || errors.Is(err, ErrNotRunning) {
		t.Error(err)
	}
}

func TestDial(t *testing.T) {
	dir := t.TempDir()
	if _, err := Dial(t.Context(), fsys.OS, dir); !errors.Is(err, ErrNotRunning) {
		t.Error(err)
	}
	credentials, err := auth.LoadOrCreate(fsys.OS, dir)
	if err != nil {
		t.Fatal(err)
	}
	// Nobody listens there any more.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := l.Addr().String()
	_ = l.Close()
	e := Endpoints{HTTP: gone, PID: os.Getpid()}
	write := func() {
		if err := WriteEndpoints(fsys.OS, dir, e); err != nil {
			t.Fatal(err)
		}
	}
	write()
	if _, err := Dial(t.Context(), fsys.OS, dir); !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), "nobody answers") {
		t.Error(err)
	}
	// Another program took the port.
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	e.HTTP = other.Listener.Addr().String()
	write()
	if _, err := Dial(t.Context(), fsys.OS, dir); !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), "another program") {
		t.Error(err)
	}
	// Another server took the port: its credentials are others, or its process is.
	f := &fake{pid: 1}
	mine := httptest.NewServer(NewHandler(Options{Backend: f, Authenticate: func(u, p string) bool { return p == credentials.Users[0].Password },
		Authorize: func(string, string) bool { return true }}))
	defer mine.Close()
	e.HTTP, e.PID = mine.Listener.Addr().String(), 2
	write()
	if _, err := Dial(t.Context(), fsys.OS, dir); !errors.Is(err, ErrNotRunning) {
		t.Error(err)
	}
	f.pid = 2
	c, err := Dial(t.Context(), fsys.OS, dir)
	if err != nil {
		t.Fatal(err)
	}
	if c.Endpoints().PID != 2 {
		t.Error(c.Endpoints())
	}
	c.Close()
	if err := os.Remove(dir + "/" + auth.CredentialsFile); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), fsys.OS, dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestTexts(t *testing.T) {
	f := &fake{}
	var b bytes.Buffer
	status, _ := f.Status(t.Context(), StatusRequest{"2026-11-20"})
	seal, _ := f.Seal(t.Context(), SealRequest{TradeDate: "2026-11-20"})
	waiver, _ := f.Waive(t.Context(), WaiveRequest{TradeDate: "2026-11-20", Kind: "gap", Source: "S", FirstSeq: 1, LastSeq: 2, By: "a", Second: "b"})
	verification, _ := f.Verify(t.Context(), VerifyRequest{})
	run, _ := f.Statements(t.Context(), StatementsRequest{})
	explanation, _ := f.Explain(t.Context(), ExplainRequest{Limit: 5})
	plan, _ := f.PlanMaintenance(t.Context())
	maintained, _ := f.Maintain(t.Context())
	crawl, _ := f.Crawl(t.Context(), CrawlRequest{Name: "n", Database: "files", DryRun: true})
	backup, _ := f.Backup(t.Context(), BackupRequest{To: "/b"})
	for _, v := range []interface{ WriteText(io.Writer) error }{Status{}, status, seal, waiver, verification, run, explanation, MaintainPlan{}, plan, maintained, backup, Flushed{Streams: 3, Records: 1}, crawl} {
		if err := v.WriteText(&b); err != nil {
			t.Error(err)
		}
	}
	for _, want := range []string{"No trade date yet", "✗ ME1-ORD lacks 5\n    → send it again", "~ X is silent", "12,345 rows of 9 feeds", "by      a and b",
		"NOT verified", "✗ rows: certified 1, found 2", "✓ hash", "-1,234.5600", "bust", "… and 4 more",
		"Nothing to do.", "1,234", "1 file of dropped tables", "8 groups of small files merged",
		"1,234, 3.0 GiB", "2 files of the lake's", "Flushed 1 record of 3 streams",
		"Would crawl 3 files", "files.symbols: create", "2 added", "skipped 1 file: it is no table (a.txt)"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("lacks %q:\n%s", want, b.String())
		}
	}
	for line := range strings.Lines(b.String()) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

func TestWrap(t *testing.T) {
	long := strings.Repeat("word ", 40)
	for line := range strings.Lines("    " + wrap(long, 4)) {
		if len(strings.TrimRight(line, "\n")) > 80 {
			t.Errorf("%q", line)
		}
	}
	if have := wrap("a  b\nc", 2); have != "a b c" {
		t.Errorf("%q", have)
	}
}

func TestAnswersAreJSONObjects(t *testing.T) {
	for _, v := range []any{Info{}, Status{}, Seal{}, Waiver{}, Verification{}, StatementRun{}, Explanation{}} {
		text, err := json.Marshal(v)
		if err != nil || text[0] != '{' {
			t.Errorf("%T: %s %v", v, text, err)
		}
	}
}

// Every path asks for leave under its own name, and does nothing without it.
func TestForbidden(t *testing.T) {
	f := &fake{}
	var asked []string
	c, url := open(t, f, func(o *Options) {
		o.Authorize = func(u, operation string) bool {
			if u != user.Name {
				t.Errorf("asked for %q", u)
			}
			asked = append(asked, operation)
			return operation == "info"
		}
	})
	ctx := t.Context()
	if _, err := c.Info(ctx); err != nil {
		t.Error(err)
	}
	day := "2026-11-20"
	for name, call := range map[string]func() error{
		"status":         func() error { _, err := c.Status(ctx, StatusRequest{day}); return err },
		"seal":           func() error { _, err := c.Seal(ctx, SealRequest{TradeDate: day}); return err },
		"waive":          func() error { _, err := c.Waive(ctx, WaiveRequest{TradeDate: day}); return err },
		"verify":         func() error { _, err := c.Verify(ctx, VerifyRequest{TradeDate: day}); return err },
		"statements":     func() error { _, err := c.Statements(ctx, StatementsRequest{TradeDate: day}); return err },
		"explain-charge": func() error { _, err := c.Explain(ctx, ExplainRequest{Statement: "s", Line: 1}); return err },
		"maintenance":    func() error { _, err := c.PlanMaintenance(ctx); return err },
		"backup":         func() error { _, err := c.Backup(ctx, BackupRequest{To: "/b"}); return err },
		"backup-status":  func() error { _, err := c.BackupStatus(ctx); return err },
		"crawl":          func() error { _, err := c.Crawl(ctx, CrawlRequest{Name: "n", Path: "p", Database: "d"}); return err },
		"flush":          func() error { _, err := c.Flush(ctx); return err },
		"maintain":       func() error { _, err := c.Maintain(ctx); return err },
	} {
		if err := call(); !IsCode(err, CodeForbidden) || asked[len(asked)-1] != name {
			t.Errorf("%s: %v (asked for %v)", name, err, asked)
		}
	}
	for _, path := range []string{"/", "/status"} {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth(user.Name, user.Password)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusForbidden || asked[len(asked)-1] != "page" {
			t.Errorf("%s: %s (asked for %v)", path, answer.Status, asked)
		}
	}
	known := auth.Operations(auth.ServiceConsole)
	for _, operation := range asked {
		if known[operation] == "" {
			t.Errorf("%s stands in no grant that could be given", operation)
		}
	}
}
