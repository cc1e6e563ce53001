package server

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/delivery"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/ledger"
	"github.com/tapehouse/tapehouse/internal/market"
	"github.com/tapehouse/tapehouse/internal/record"
)

// update rewrites the golden data directory. Do that for a new version of the
// layout only, under a new name: the point of the old one is that it stays.
var update = flag.Bool("update", false, "write the golden data directory and its description anew")

const (
	goldenArchive  = "testdata/golden-v1.tar.gz"
	goldenExpected = "testdata/golden-v1.json"
	// goldenDir is where the directory was written and must be opened: Iceberg's
	// metadata holds absolute paths.
	goldenDir = "/tmp/tapehouse-golden-v1"
	// goldenBytesMax keeps the repository small. The log's segments are mostly zeros.
	goldenBytesMax = 300 << 10
)

// golden is what a server of the version that wrote the directory answered.
type golden struct {
	Version int                  `json:"data_version"`
	Queries map[string][]string  `json:"queries"`
	Errors  []string             `json:"error_output"` // code and record, sorted
	Feeds   []ledger.FeedAccount `json:"ledger"`
	// The sealed trade date: its certificate's hash, what Verify compared, and
	// every member's statement with its hash.
	Certificate string   `json:"certificate"`
	Verified    []int64  `json:"verified"` // rows, figures
	Statements  []string `json:"statements"`
	Late        int64    `json:"late_originals"`
}

// goldenDate is sealed in the directory.
var goldenDate = calendar.Date(2026, time.November, 20)

// goldenQueries cover each kind of table: fed by a stream, in part from the log
// alone; reference data; a user's own; and a view.
var goldenQueries = []string{
	`SELECT count(*), count(DISTINCT seq), min(seq), max(seq), sum(quantity), sum(price * quantity), sum(executed_at_ns), min(executed_at), max(trade_date) FROM equities.executions`,
	`SELECT symbol, side, count(*), sum(price * quantity) / sum(quantity) FROM equities.executions GROUP BY symbol, side ORDER BY symbol, side`,
	`SELECT min(record_offset), max(record_offset), count(DISTINCT record_stream), min(arrived_at), max(arrived_at) FROM equities.executions`,
	`SELECT * FROM equities.executions WHERE seq IN (1, 150) ORDER BY seq`,
	`SELECT event_type, count(*) FROM equities.order_events GROUP BY event_type ORDER BY event_type`,
	`SELECT source, record_count, notional_total FROM equities.markers ORDER BY source`,
	`SELECT count(*), min(name), max(known_at) FROM equities.members`,
	`SELECT trade_date, symbol, volume, notional, trades, high, low FROM equities.symbol_daily_stats ORDER BY trade_date, symbol`,
	`SELECT * FROM public.own ORDER BY a`,
}

func goldenConfig(t *testing.T) Config {
	cfg := testConfig(t)
	cfg.Data = goldenDir
	cfg.Log.SegmentBytes = 16 << 20
	cfg.Log.Retention = Duration(200 * 365 * 24 * time.Hour) // the log stays whole, however old the archive is
	return cfg
}

// observe asks a server all that golden holds.
func observe(t *testing.T, s *Server) golden {
	t.Helper()
	conn := connect(t, s)
	g := golden{Version: dataVersion, Queries: map[string][]string{}}
	for _, sql := range goldenQueries {
		g.Queries[sql] = table(t, conn, sql)
	}
	for _, f := range errorOutput(t, s) {
		g.Errors = append(g.Errors, f.Reason+" "+f.Raw+" "+f.RecordID)
	}
	sort.Strings(g.Errors)
	g.Feeds, _ = s.ledger.Accounts()
	for i := range g.Feeds { // exact only while no server crashes
		g.Feeds[i].Duplicates, g.Feeds[i].Unchecked = 0, 0
	}
	v, err := s.market.Verify(t.Context(), goldenDate, 0)
	if err != nil {
		t.Fatal(err)
	}
	g.Certificate, g.Verified = v.Certificate.Hash, []int64{v.Rows, int64(v.Figures)}
	st, err := s.market.Statements(t.Context(), goldenDate, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !st.Identical {
		t.Error("the statements were not there")
	}
	for _, f := range st.Manifest.Statements {
		g.Statements = append(g.Statements, f.ID+" "+f.Amount+" "+f.SHA256)
	}
	later, err := s.market.Later(t.Context(), goldenDate)
	if err != nil {
		t.Fatal(err)
	}
	g.Late = later.LateOriginalCount
	return g
}

func goldenLegs(from, n int64) [][]byte {
	var docs [][]byte
	for seq := from; seq < from+n; seq++ {
		l := newLeg("GOLD", seq)
		l.Symbol = []string{"ACME", "ZYX", "é"}[seq%3]
		b, _ := json.Marshal(l)
		docs = append(docs, b)
	}
	return docs
}

// writeGolden makes the directory: a sealed trade date with its statements, 120 legs, some order events and a reject in
// tables, 80 legs and a conflict in the log only, as a crash leaves it.
func writeGolden(t *testing.T, cfg Config) {
	s := open(t, cfg)
	counts := play(t, s, 300)
	t.Logf("records %v", counts)
	if _, err := s.market.Seal(t.Context(), goldenDate, market.SealOptions{By: "golden"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.market.Statements(t.Context(), goldenDate, 0); err != nil {
		t.Fatal(err)
	}
	conn, c := connect(t, s), client(t, s)
	execute1(t, conn, `CREATE TABLE public.own (a int, b numeric(18,4), c timestamptz, d date, e varchar, f double precision, g boolean)`)
	execute1(t, conn, `INSERT INTO public.own VALUES (1, 1.5, '2026-11-20 14:30:00.000001+00', '2026-11-20', 'naïve', 0.1, true), (2, NULL, NULL, NULL, NULL, NULL, NULL)`)
	put(t, c, "executions", goldenLegs(1, 120)...)
	put(t, c, "executions", []byte(`{"source":"GOLD","session":"GOLD-1","epoch":1,"seq":1000,"price":"1.00001"}`))
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, c, "executions", goldenLegs(121, 80)...)
	other := newLeg("GOLD", 7)
	other.Quantity = 1
	put(t, c, "executions", other.document(t))
	s.delivery.Abandon()
	closeNow(t, s)
}

func TestGoldenDirectory(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("SKIPPED: the golden data directory can be opened in /tmp only")
	}
	lock := lockGolden(t)
	defer lock.Close() //nolint:errcheck // the process's end would release it as well
	cfg := goldenConfig(t)
	remove := func() {
		if err := os.RemoveAll(goldenDir); err != nil {
			t.Fatal(err)
		}
	}
	remove()
	defer remove()
	if *update {
		writeGolden(t, cfg)
		archive := pack(t, goldenDir)
		if len(archive) > goldenBytesMax {
			t.Fatalf("the archive has %d bytes, more than %d", len(archive), goldenBytesMax)
		}
		s := open(t, cfg)
		body, err := json.MarshalIndent(observe(t, s), "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		closeNow(t, s)
		if err := errors.Join(os.WriteFile(goldenArchive, archive, 0o644), os.WriteFile(goldenExpected, append(body, '\n'), 0o644)); err != nil {
			t.Fatal(err)
		}
		remove()
	}
	body, err := os.ReadFile(goldenExpected)
	if err != nil {
		t.Fatal(err)
	}
	var want golden
	if err := json.Unmarshal(body, &want); err != nil {
		t.Fatal(err)
	}
	unpack(t, goldenDir)

	s := open(t, cfg)
	check := func(what string) {
		t.Helper()
		got := observe(t, s)
		for sql, rows := range want.Queries {
			// ORDER BY leaves ties open.
			if !slices.Equal(slices.Sorted(slices.Values(got.Queries[sql])), slices.Sorted(slices.Values(rows))) {
				t.Errorf("%s: %s\n got %q\nwant %q", what, sql, got.Queries[sql], rows)
			}
		}
		if !slices.Equal(got.Errors, want.Errors) {
			t.Errorf("%s: error output\n got %q\nwant %q", what, got.Errors, want.Errors)
		}
		a, _ := json.Marshal(got.Feeds)
		b, _ := json.Marshal(want.Feeds)
		if !bytes.Equal(a, b) {
			t.Errorf("%s: ledger\n got %s\nwant %s", what, a, b)
		}
		if got.Certificate != want.Certificate || !slices.Equal(got.Verified, want.Verified) || !slices.Equal(got.Statements, want.Statements) || got.Late != want.Late {
			t.Errorf("%s: the close\n got %s %v %v %d\nwant %s %v %v %d", what, got.Certificate, got.Verified, got.Statements, got.Late,
				want.Certificate, want.Verified, want.Statements, want.Late)
		}
	}
	check("opened")
	// Stored records are known, wherever they were when the directory was written.
	send := func(docs ...[]byte) delivery.Receipt {
		t.Helper()
		st, err := s.delivery.Stream("executions")
		if err != nil {
			t.Fatal(err)
		}
		var d delivery.Docs
		for _, doc := range docs {
			d.Arena = append(d.Arena, doc...)
			d.Ends = append(d.Ends, int32(len(d.Arena)))
		}
		d.Arena = append(d.Arena, make([]byte, columnar.Slack)...)[:len(d.Arena)]
		r, err := st.Put(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	again := goldenLegs(1, 200)
	r := send(again...)
	if r.Duplicates != len(again) || r.Conflicts != 0 {
		t.Errorf("resent: %+v", r)
	}
	ids := map[string]bool{}
	for i := range again { // each is answered with an id of its own, of this stream
		text := string(r.AppendRecordID(nil, i))
		id, err := record.ParseID(text)
		if err != nil || ids[text] {
			t.Fatalf("%s: %v", text, err)
		}
		ids[text] = true
		if stored := want.Queries[goldenQueries[3]][0]; !strings.Contains(stored, id.Key.Incarnation.String()) {
			t.Fatalf("the resent record's id is of %s, stored is %q", id.Key, stored)
		}
	}
	check("resent")
	closeNow(t, s)
	s = open(t, cfg)
	check("opened again")
	// And it goes on: a new record, and one that contradicts a stored one.
	other := newLeg("GOLD", 190)
	other.Quantity = 2
	if r := send(goldenLegs(201, 1)[0], other.document(t)); r.Duplicates != 0 || r.Conflicts != 1 {
		t.Errorf("new records: %+v", r)
	}
	conn := connect(t, s)
	if got := text(t, conn, "SELECT count(*) || ' ' || max(seq) FROM equities.executions WHERE source = 'GOLD'"); got != "201 201" {
		t.Errorf("rows, last: %s", got)
	}
	if lines := errorOutput(t, s); len(lines) != len(want.Errors)+1 {
		t.Errorf("%d lines of errors after another conflict", len(lines))
	}
	closeNow(t, s)
}

// lockGolden waits until no other test of this machine uses the directory.
func lockGolden(t *testing.T) io.Closer {
	t.Helper()
	for {
		l, err := fsys.OS.Lock(goldenDir + ".lock")
		if err == nil {
			return l
		}
		if _, held := errors.AsType[fsys.ErrLocked](err); !held {
			t.Fatalf("%v: if another user left it, remove it", err)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// pack makes an archive of dir's files. Times and owners stay out of it.
func pack(t *testing.T, dir string) []byte {
	t.Helper()
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	root := os.DirFS(dir)
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." || d.Name() == "LOCK" {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if d.IsDir() {
			return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: int64(info.Mode().Perm())})
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(info.Mode().Perm()), Size: info.Size()}); err != nil {
			return err
		}
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		defer f.Close() //nolint:errcheck // read only
		_, err = io.Copy(w, f)
		return err
	})
	if err := errors.Join(err, w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// unpack writes the golden archive's files below dir, which is new.
func unpack(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(goldenArchive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // read only
	if info, err := f.Stat(); err != nil || info.Size() > goldenBytesMax {
		t.Fatalf("%s: more than %d bytes, or %v", goldenArchive, goldenBytesMax, err)
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir) // no name of the archive leads out of it
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close() //nolint:errcheck // nothing is buffered
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeDir {
			err = root.MkdirAll(filepath.Clean(h.Name), fs.FileMode(h.Mode))
		} else {
			var out *os.File
			if out, err = root.OpenFile(h.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fs.FileMode(h.Mode)); err == nil {
				_, err = io.Copy(out, r) //nolint:gosec // our own archive
				err = errors.Join(err, out.Close())
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
