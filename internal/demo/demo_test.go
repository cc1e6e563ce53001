package demo

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/producer"
	"github.com/tapehouse/tapehouse/internal/terminal"
	"github.com/tapehouse/tapehouse/packs"
)

func TestShareOfRealDay(t *testing.T) {
	for records, want := range map[int64]string{
		268_700_000: "100 %", 26_870_000: "10 %", 5_000_000: "2 %", 2_000_000: "0.7 %", 100_000: "0.04 %", 30_000: "0.01 %", 2_000: "0.001 %",
	} {
		if have := ShareOfRealDay(records); have != want {
			t.Errorf("%d: %s, want %s", records, have, want)
		}
	}
}

func TestTradeDate(t *testing.T) {
	pack, err := packs.Load(packs.Equities())
	if err != nil {
		t.Fatal(err)
	}
	newYork := pack.Calendar.Location()
	for _, c := range []struct {
		text string
		now  time.Time
		want string
	}{
		{"", time.Date(2026, 11, 23, 3, 40, 0, 0, newYork), "2026-11-20"},
		{"", time.Date(2026, 11, 23, 19, 59, 0, 0, newYork), "2026-11-20"},
		{"", time.Date(2026, 11, 23, 20, 1, 0, 0, newYork), "2026-11-23"},
		{"", time.Date(2026, 11, 27, 17, 1, 0, 0, newYork), "2026-11-27"}, // a half day
		{"", time.Date(2126, 1, 1, 0, 0, 0, 0, newYork), "2027-12-31"},    // beyond the calendar
		{"2019-12-30", time.Date(2026, 11, 27, 17, 1, 0, 0, newYork), "2019-12-30"},
	} {
		d, err := TradeDate(pack.Calendar, c.text, c.now)
		if err != nil || d.String() != c.want {
			t.Errorf("%q at %s: %s %v, want %s", c.text, c.now, d, err, c.want)
		}
	}
	for _, text := range []string{"2026-11-21", "20.11.2026", "2019-13-01"} {
		if _, err := TradeDate(pack.Calendar, text, time.Now()); err == nil {
			t.Errorf("%s is no trade date", text)
		}
	}
	if _, err := TradeDate(pack.Calendar, "", time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)); err == nil {
		t.Error("the calendar did not exist")
	}
}

func TestDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for range 2 { // made, then emptied
		have, err := prepareDirectory(dir)
		if err != nil || have != dir {
			t.Fatal(have, err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || entries[0].Name() != markerFile {
			t.Fatal(entries, err)
		}
		if err := os.MkdirAll(filepath.Join(dir, "lake", "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// A server runs on it.
	lock, err := fsys.OS.Lock(filepath.Join(dir, "LOCK"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := prepareDirectory(dir); !errors.Is(err, ErrDirectory) || !strings.Contains(err.Error(), "stop it") {
		t.Error(err)
	}
	_ = lock.Close()
	if _, err := os.Stat(filepath.Join(dir, "lake", "x")); err != nil {
		t.Error("the directory of a running server was touched")
	}
	// Somebody's data.
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "thesis.txt"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := prepareDirectory(foreign); !errors.Is(err, ErrDirectory) || !strings.Contains(err.Error(), "--data") {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(foreign, "thesis.txt")); err != nil {
		t.Error("somebody's data is gone")
	}
	// A file.
	if _, err := prepareDirectory(filepath.Join(foreign, "thesis.txt")); !errors.Is(err, ErrDirectory) {
		t.Error(err)
	}
}

func TestFreshness(t *testing.T) {
	f := newFreshness()
	begin := time.Now()
	f.acknowledge(100)
	f.acknowledge(100)
	f.acknowledge(100)
	f.answer(250, begin.Add(time.Second))
	if lag, last := f.now(); lag != 50 || last < 900*time.Millisecond || last > time.Second {
		t.Error(lag, last)
	}
	if len(f.samples) != 2 || len(f.waiting) != 1 {
		t.Error(f.samples, f.waiting)
	}
	f.interrupted() // whatever waited is not measured
	f.answer(300, begin.Add(time.Hour))
	if lag, _ := f.now(); lag != 0 || f.quantile(1) > 1000 || f.quantile(0.5) < 900 {
		t.Error(lag, f.samples)
	}
	f = newFreshness()
	if f.quantile(0.99) != 0 {
		t.Error("a quantile of nothing")
	}
	for i := range 2*samplesMax + 1000 {
		f.add(time.Duration(i))
	}
	if len(f.samples) > samplesMax {
		t.Errorf("%d samples", len(f.samples))
	}
	if half := f.quantile(0.5) * 1e6; half < 0.4*2*samplesMax || half > 0.6*2*samplesMax {
		t.Errorf("the median of 0…%d is %f", 2*samplesMax, half)
	}
}

func TestProgressLineFits(t *testing.T) {
	d := &demo{o: Options{Records: 2_000_000}, fresh: newFreshness()}
	for _, p := range []producer.Progress{{}, {Acknowledged: 1_234_567}, {Acknowledged: 2_000_011}} {
		line := d.line(p, 3*time.Second)
		if n := len([]rune(line)); n >= terminal.Width {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if line := d.line(producer.Progress{Acknowledged: 1_000_000}, 2*time.Second); line != "   ████████░░░░░░░░  50%  1,000,000  500,000/s  lag 0  fresh -" {
		t.Errorf("%q", line)
	}
}

func TestRefusalNames(t *testing.T) {
	r := refusal{console.ProblemGap, "ME1-ORD", 7}
	for _, c := range []struct {
		p    console.Problem
		want bool
	}{
		{console.Problem{Kind: "gap", Source: "ME1-ORD", FirstSeq: 7, LastSeq: 7}, true},
		{console.Problem{Kind: "gap", Source: "ME1-ORD", FirstSeq: 5, LastSeq: 9}, true},
		{console.Problem{Kind: "gap", Source: "ME1-ORD", FirstSeq: 8, LastSeq: 9}, false},
		{console.Problem{Kind: "gap", Source: "ME2-ORD", FirstSeq: 7, LastSeq: 7}, false},
		{console.Problem{Kind: "conflict", Source: "ME1-ORD", FirstSeq: 7, LastSeq: 7}, false},
	} {
		if r.names(c.p) != c.want {
			t.Errorf("%+v", c.p)
		}
	}
	if whole := (refusal{console.ProblemSilent, "X", 0}); !whole.names(console.Problem{Kind: "silent-source", Source: "X"}) {
		t.Error("a silent source has no sequence number")
	}
}

func TestSummaryFits(t *testing.T) {
	for _, s := range append(Sabotages(), NoSabotage) {
		var b bytes.Buffer
		d := &demo{o: Options{Records: 2_000_000, Data: "/home/user/tapehouse-data/demo", Out: &b, JSON: true, Sabotage: s, Invocation: "bin/tapehouse"}, streamed: 4 * time.Second}
		d.result = Result{RecordsSent: 2_000_011, RecordsAcknowledged: 2_000_011, RowsInLake: 2_000_011, RecordsPerSecond: 1_500_000, FreshnessP50: 80, FreshnessP99: 300,
			SealSeconds: 3.2, Certificate: strings.Repeat("a1b2", 16), Verified: true, Statements: 20, MemoryPeakBytes: 1 << 30, Kills: 3, Adjustments: 3, OK: true}
		d.run.Statements = []console.Statement{{ID: "2026-11-20/v1/M001"}}
		if err := d.summarize(); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		for _, line := range lines[:len(lines)-1] {
			if strings.HasPrefix(line, "    ") {
				continue // a command, which must not be broken
			}
			if n := len([]rune(line)); n > terminal.Width {
				t.Errorf("%d columns: %s", n, line)
			}
		}
		if last := lines[len(lines)-1]; !strings.HasPrefix(last, `{"records_sent":2000011,"records_acknowledged":2000011,"rows_in_lake":2000011,"lost":0,"duplicates":0,"records_per_second":1500000,"freshness_p50_ms":80,"freshness_p99_ms":300,"seal_seconds":3.2,"statements":20,"certificate":"`) {
			t.Errorf("the last line is %s", last)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{
		{Records: 10}, {Records: 1 << 50}, {Records: 5000, Sabotage: "fire"}, {Records: 5000, TradeDate: "2026-11-21"},
	} {
		o.Out, o.Errs, o.Data = &bytes.Buffer{}, &bytes.Buffer{}, filepath.Join(t.TempDir(), "d")
		if _, err := Run(t.Context(), o); !errors.Is(err, ErrOptions) {
			t.Errorf("%+v: %v", o, err)
		}
		if _, err := os.Stat(o.Data); err == nil {
			t.Error("refused options made a directory")
		}
	}
}

func TestServerThatDoesNotStart(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho cannot do that >&2\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := StartServer(t.Context(), Launch{Program: program, Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "ended at once") || !strings.Contains(err.Error(), "cannot do that") {
		t.Error(err)
	}
	// One that never becomes ready is killed.
	if err := os.WriteFile(program, []byte("#!/bin/sh\nexec sleep 100\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := StartServer(ctx, Launch{Program: program, Dir: t.TempDir()}); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 30*time.Second {
		t.Error(err)
	}
	if _, err := StartServer(t.Context(), Launch{Program: "/nowhere/tapehouse", Dir: t.TempDir()}); err == nil {
		t.Error("no error")
	}
}
