package benchmark

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/server"
)

// TestMain makes this test's binary the server that it measures, when it is
// started as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		if err := serve(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func serve(args []string) error {
	stop, err := StartProfile()
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	c := server.DefaultConfig()
	for i := 0; i+1 < len(args); i += 2 {
		switch args[i] {
		case "--data":
			c.Data = args[i+1]
		case "--aws-addr":
			c.Listen.AWS = args[i+1]
		case "--sql-addr":
			c.Listen.SQL = args[i+1]
		case "--http-addr":
			c.Listen.HTTP = args[i+1]
		}
	}
	s, err := server.Open(ctx, c, server.Options{Version: "test"})
	if err != nil {
		return err
	}
	return errors.Join(s.Wait(ctx), s.Close(context.Background()), stop())
}

// run runs a benchmark and decodes its last line.
func run[T any](t *testing.T, name string, o Options) T {
	t.Helper()
	o.Dir, o.JSON = t.TempDir(), true
	var out bytes.Buffer
	if err := Run(t.Context(), name, o, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	t.Log(out.String())
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var report struct {
		Benchmark string
		Machine   machine
		Result    T
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &report); err != nil {
		t.Fatal(err)
	}
	if report.Benchmark != name || report.Machine.Cores == 0 || report.Machine.Date == "" {
		t.Errorf("report of %q on %+v", report.Benchmark, report.Machine)
	}
	left, err := os.ReadDir(o.Dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	return report.Result
}

func TestIngestMeasuresAServerProcess(t *testing.T) {
	profile := t.TempDir() + "/cpu.pprof"
	got := run[ingested](t, "ingest", Options{Seconds: 1, Runs: 1, Connections: 4, Server: []string{os.Args[0], "serve"}, CPUProfile: profile})
	if got.Records == 0 || got.RecordsPerSecond == 0 || got.ServerNanos == 0 || got.ClientNanos == 0 || got.BothNanos {
		t.Errorf("%+v", got)
	}
	if got.PeakBytes == 0 || got.Ack.P50 == 0 || got.Fresh.N == 0 || !got.View {
		t.Errorf("%+v", got)
	}
	if size, err := sizeOf(profile); err != nil || size == 0 {
		t.Errorf("CPU profile: %d bytes, %v", size, err)
	}
}

func TestFreshnessKeepsItsRate(t *testing.T) {
	got := run[ingested](t, "freshness", Options{Seconds: 1, Runs: 1, Connections: 2, Rate: 5000})
	if got.Records == 0 || got.Records > 6000 { // a busy machine may be slower
		t.Errorf("%d records in a second, want at most 6000", got.Records)
	}
	if !got.BothNanos || got.ServerNanos != 0 || got.Fresh.N == 0 {
		t.Errorf("%+v", got)
	}
}

func TestLatencyAtHalfTheRate(t *testing.T) {
	got := run[halved](t, "latency", Options{Seconds: 1, Runs: 1, Connections: 2, Rate: 4000, Server: []string{os.Args[0], "serve"}})
	if got.MaxPerSecond != 8000 || got.Half.Records == 0 || got.Half.Records > 5000 || got.Half.Ack.P50 == 0 {
		t.Errorf("%+v", got)
	}
}

func TestSoakReportsStretches(t *testing.T) {
	got := run[soaked](t, "soak", Options{Seconds: 2, Connections: 2, Rate: 10_000, Server: []string{os.Args[0], "serve"}})
	if n := len(got.Stretches); n < soakStretches-1 || n > soakStretches || got.Whole.Records == 0 {
		t.Fatalf("%d stretches, %+v", n, got.Whole)
	}
	records := 0.0
	for i, s := range got.Stretches {
		if s.ResidentBytes == 0 || s.Files == 0 || s.OpenFiles == 0 || s.DataBytes == 0 {
			t.Errorf("stretch %d: %+v", i, s)
		}
		records += s.RecordsPerSecond * 0.2
	}
	if records < float64(got.Whole.Records)/2 || records > float64(got.Whole.Records)*3/2 {
		t.Errorf("%.0f records in the stretches, %d in all", records, got.Whole.Records)
	}
}

func TestReplaySeesEverything(t *testing.T) {
	got := run[replayed](t, "replay", Options{Seconds: 1, Runs: 1, Connections: 4, Server: []string{os.Args[0], "serve"}})
	if got.Records == 0 || got.VisibleSeconds < got.ReadySeconds || got.Ratio == 0 {
		t.Errorf("%+v", got)
	}
	if err := Run(t.Context(), "replay", Options{Seconds: 1, Runs: 1}, &bytes.Buffer{}); !errors.Is(err, errNoProcess) {
		t.Error(err)
	}
}

func TestConvertComparesEqualFiles(t *testing.T) {
	got := run[converted](t, "convert", Options{Records: 60_123, Runs: 1, Threads: 2}) // more than one chunk, no full put at the end
	if got.Ratio == 0 || got.Records != 60_123 || got.Tapehouse.OutputBytes == 0 || got.DuckDB.OutputBytes == 0 {
		t.Errorf("%+v", got)
	}
}

func TestConvertGeneral(t *testing.T) {
	got := run[converted](t, "convert", Options{Records: 40_007, Runs: 1, Threads: 2, General: true})
	if got.Ratio == 0 || !got.General || got.Records != 40_007 {
		t.Errorf("%+v", got)
	}
}

func TestViewRefreshIsVerified(t *testing.T) {
	got := run[viewed](t, "view", Options{Records: 24_000, Runs: 2})
	if got.BaseRows != 24_000 || got.DeltaRows != 240 || got.Groups == 0 || got.Refresh == 0 || got.Query == 0 {
		t.Errorf("%+v", got)
	}
}

func TestLogAlone(t *testing.T) {
	got := run[logged](t, "log", Options{Seconds: 1, Runs: 1})
	if got.Messages < logProducers || got.Durable.N == 0 {
		t.Errorf("%+v", got)
	}
}

func TestUnknownBenchmark(t *testing.T) {
	if err := Run(t.Context(), "nonsense", Options{}, &bytes.Buffer{}); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}

// TestSourceRecords: numbered without a gap, all distinct, the same for the
// same seed, of the size that the reports are about.
func TestSourceRecords(t *testing.T) {
	m := newMarket(1)
	s, same := newSource(m, 3, 1), newSource(newMarket(1), 3, 1)
	seen := map[string]bool{}
	want, quantity, size := int64(numberFirst), int64(0), 0
	var last time.Time
	for range 2*puts + 1 {
		again := same.put()
		for i, doc := range s.put() {
			if !bytes.Equal(doc, again[i]) {
				t.Fatalf("%s\n%s", doc, again[i])
			}
			var r struct {
				Source     string    `json:"source"`
				Seq        int64     `json:"seq"`
				ExecutedAt time.Time `json:"executed_at"`
				Quantity   int64     `json:"quantity"`
				Buy        int64     `json:"buy_order_id"`
				Sell       int64     `json:"sell_order_id"`
			}
			if err := json.Unmarshal(doc, &r); err != nil {
				t.Fatalf("%s: %v", doc, err)
			}
			if r.Source != "b03" || r.Seq != want || r.ExecutedAt.Before(last) || r.Buy > r.Sell {
				t.Fatalf("%s: want number %d", doc, want)
			}
			want++
			last = r.ExecutedAt
			quantity += r.Quantity
			size += len(doc)
			if key := string(doc[bytes.Index(doc, []byte(`"symbol"`)):]); seen[key] {
				t.Fatalf("%s was sent before", key)
			} else {
				seen[key] = true
			}
		}
	}
	if s.records() != want-numberFirst || s.quantity != quantity {
		t.Errorf("%d records, %d shares; want %d and %d", s.records(), s.quantity, want-numberFirst, quantity)
	}
	if mean := size / int(s.records()); mean < 285 || mean > 305 {
		t.Errorf("%d bytes a record", mean)
	}
}

func TestQuantilesAndMedian(t *testing.T) {
	var d []time.Duration
	for i := range 100 {
		d = append(d, time.Duration(100-i)*time.Millisecond)
	}
	if q := quantilesOf(d); q.P50 != 51 || q.P99 != 100 || q.Max != 100 || q.N != 100 {
		t.Errorf("%+v", q)
	}
	if q := quantilesOf(nil); q != (quantiles{}) {
		t.Errorf("%+v", q)
	}
	for _, c := range []struct {
		in   []float64
		want float64
	}{{[]float64{3, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2}, {[]float64{7}, 7}} {
		if got := medianBy(c.in, func(f float64) float64 { return f }); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.in, got, c.want)
		}
	}
	if s := grouped(1234567); s != "1,234,567" || grouped(12) != "12" || grouped(-1234) != "-1,234" {
		t.Error(s)
	}
}
