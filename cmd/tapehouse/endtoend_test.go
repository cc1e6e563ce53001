package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/demo"
)

const anyAddress = "127.0.0.1:0"

// tapehouse runs the built binary and returns its output and exit code.
func tapehouse(t *testing.T, args ...string) (out, errs string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	c := exec.CommandContext(t.Context(), build(t), args...)
	c.Stdout, c.Stderr = &o, &e
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return o.String(), e.String(), c.ProcessState.ExitCode()
}

// runDemo plays a demo and returns its story and its result.
func runDemo(t *testing.T, data string, args ...string) (string, demo.Result) {
	t.Helper()
	out, errs, code := tapehouse(t, append([]string{"demo", "--exit", "--json", "--data", data, "--trade-date", "2026-11-20",
		"--aws-addr", anyAddress, "--sql-addr", anyAddress, "--http-addr", anyAddress}, args...)...)
	if code != exitOK {
		log, _ := os.ReadFile(filepath.Join(data, demo.LogFile))
		t.Fatalf("exit %d:\n%s\n%s\nlog of the server:\n%s", code, out, errs, log)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var r demo.Result
	d := json.NewDecoder(strings.NewReader(lines[len(lines)-1]))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatalf("the last line is no result: %v: %s", err, lines[len(lines)-1])
	}
	if !r.OK || r.Lost != 0 || r.Duplicates != 0 || r.Altered != 0 || r.Unexpected != 0 || !r.Verified || len(r.Certificate) != 64 || r.Statements == 0 {
		t.Errorf("%+v", r)
	}
	if r.RecordsSent != r.RecordsAcknowledged || r.RowsInLake == 0 || r.RecordsPerSecond == 0 || r.SealSeconds == 0 {
		t.Errorf("%+v", r)
	}
	return out, r
}

func contains(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, w := range wants {
		if !strings.Contains(text, w) {
			t.Errorf("lacks %q:\n%s", w, text)
		}
	}
}

// TestDemoEndToEnd plays the demo, and then uses its directory with the other
// commands: first without a server, then with one.
func TestDemoEndToEnd(t *testing.T) {
	data := filepath.Join(t.TempDir(), "demo")
	out, r := runDemo(t, data, "--records", "50000")
	contains(t, out, "while it streams, the most traded symbols", "ZAAA", "proven complete", "it holds", "nothing lost, nothing twice", "of a real day", "fees are illustrative")
	if r.FreshnessP50 <= 0 || r.FreshnessP99 < r.FreshnessP50 {
		t.Errorf("freshness %f, %f", r.FreshnessP50, r.FreshnessP99)
	}

	t.Run("without a server", func(t *testing.T) {
		out, errs, code := tapehouse(t, "verify", "2026-11-20", "--data", data, "--json")
		var v console.Verification
		if err := json.Unmarshal([]byte(out), &v); err != nil || code != exitOK || !v.OK || v.Certificate != r.Certificate {
			t.Errorf("exit %d: %s %s %v", code, out, errs, err)
		}
		if out, errs, code := tapehouse(t, "sql", "--csv", "--data", data, "select count(*) as n from equities.order_events"); code != exitOK || !strings.HasPrefix(out, "n\n") {
			t.Errorf("exit %d: %s %s", code, out, errs)
		}
		if _, errs, code := tapehouse(t, "seal", "2026-11-20", "--data", data); code != exitFailure || !strings.Contains(errs, "tapehouse serve") {
			t.Errorf("exit %d: %s", code, errs)
		}
		manifest := filepath.Join(data, demo.ManifestFile)
		if out, errs, code := tapehouse(t, "check", "--data", data, "--manifest", manifest); code != exitOK {
			t.Errorf("exit %d: %s %s", code, out, errs)
		}
		other := filepath.Join(t.TempDir(), "other.manifest")
		if _, errs, code := tapehouse(t, "generate", "--seed", "2", "--records", "2000", "--trade-date", "2026-11-20", "--ndjson", t.TempDir(), "--manifest", other); code != exitOK {
			t.Fatalf("exit %d: %s", code, errs)
		}
		if out, errs, code := tapehouse(t, "check", "--data", data, "--manifest", other, "--json"); code != exitMismatch || !strings.Contains(out, `"ok":false`) {
			t.Errorf("exit %d: %s %s", code, out, errs)
		}
	})

	server := start(t, demo.Launch{Program: build(t), Dir: data, Addresses: demo.Addresses{AWS: anyAddress, SQL: anyAddress, HTTP: anyAddress}})
	t.Run("with a server", func(t *testing.T) { useServer(t, data, r) })
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(data, console.EndpointsFile)); !os.IsNotExist(err) {
		t.Error("a server that stopped left its addresses")
	}
}

// useServer is a day of an operator.
func useServer(t *testing.T, data string, r demo.Result) {
	do := func(want int, args ...string) (string, string) {
		t.Helper()
		out, errs, code := tapehouse(t, append(args, "--data", data)...)
		if code != want {
			t.Errorf("tapehouse %s: exit %d, want %d:\n%s%s", strings.Join(args, " "), code, want, out, errs)
		}
		return out, errs
	}
	decode := func(text string, v any) {
		t.Helper()
		if err := json.Unmarshal([]byte(text), v); err != nil {
			t.Errorf("%v: %s", err, text)
		}
	}
	out, _ := do(exitOK, "flush")
	contains(t, out, "to the lake")
	do(exitOK, "maintain", "--dry-run")
	out, _ = do(exitOK, "maintain")
	contains(t, out, "Maintained")
	place, restored := filepath.Join(t.TempDir(), "backups"), filepath.Join(t.TempDir(), "restored")
	out, _ = do(exitOK, "backup", "--to", place)
	contains(t, out, "Backup ", "copied")
	if out, errs, code := tapehouse(t, "restore", "--from", place, "--list"); code != exitOK || len(strings.Fields(out)) != 1 {
		t.Errorf("restore --list: exit %d: %s%s", code, out, errs)
	}
	if out, errs, code := tapehouse(t, "restore", "--from", place, "--data", restored); code != exitOK || !strings.Contains(out, "✓ sealed     2026-11-20") {
		t.Errorf("restore: exit %d: %s%s", code, out, errs)
	}
	if _, errs, code := tapehouse(t, "restore", "--from", place, "--data", restored); code != exitFailure || !strings.Contains(errs, "not empty") {
		t.Errorf("restore again: exit %d: %s", code, errs)
	}
	out, _ = do(exitOK, "status")
	contains(t, out, "2026-11-20", "sealed", r.Certificate)
	var status console.Status
	out, _ = do(exitOK, "status", "2026-11-20", "--json")
	decode(out, &status)
	if len(status.TradeDates) != 1 || status.TradeDates[0].State != console.StateSealed || status.TradeDates[0].Certificate != r.Certificate {
		t.Errorf("%s", out)
	}
	out, _ = do(exitOK, "seal", "--trade-date", "2026-11-20", "--json")
	var seal console.Seal
	decode(out, &seal)
	if !seal.Existed || seal.Certificate != r.Certificate || seal.Version != 1 {
		t.Errorf("%s", out)
	}
	out, _ = do(exitOK, "verify", "2026-11-20")
	contains(t, out, "the data is what the certificate says", r.Certificate)

	var first, second console.StatementRun
	out, _ = do(exitOK, "statements", "2026-11-20", "--json")
	decode(out, &first)
	out, _ = do(exitOK, "statements", "2026-11-20", "--json")
	decode(out, &second)
	if first.SHA256 == "" || first.SHA256 != second.SHA256 || len(first.Statements) != r.Statements {
		t.Errorf("statements %s and %s", first.SHA256, second.SHA256)
	}
	if len(first.Statements) > 0 {
		out, _ = do(exitOK, "explain-charge", first.Statements[0].ID, "1", "--json")
		var e console.Explanation
		decode(out, &e)
		if e.Legs == 0 || len(e.Rows) == 0 || len(e.Columns) == 0 || e.Amount == "" {
			t.Errorf("%s", out)
		}
		out, _ = do(exitOK, "explain-charge", first.Statements[0].ID, "1")
		contains(t, out, e.Charge)
	}
	_, errs := do(exitFailure, "explain-charge", "nonsense", "1")
	contains(t, errs, "nonsense")

	// The next trade date has begun, and is not complete.
	_, errs = do(exitRefused, "seal", "2026-11-19")
	contains(t, errs, "ME1-ORD", "→")
	_, errs = do(exitUsage, "waive", "2026-11-19", "--source", "ME1-ORD")
	contains(t, errs, "--reason")
	out, _ = do(exitOK, "waive", "2026-11-19", "--source", "ME1-ORD", "--kind", console.ProblemSilent, "--reason", "a test", "--by", "somebody")
	contains(t, out, "silent-source of ME1-ORD", "somebody")

	// A second run of the same trade date changes nothing.
	manifest := filepath.Join(t.TempDir(), "manifest")
	for range 2 {
		out, _ = do(exitOK, "generate", "--seed", "9", "--records", "3000", "--trade-date", "2026-11-19", "--manifest", manifest, "--json")
		var o outcome
		decode(out, &o)
		if o.Records < 3000 || o.Acknowledged != o.Records || o.Manifest != uint64(o.Records) {
			t.Errorf("%s", out)
		}
	}
	out, _ = do(exitOK, "sql", "--json", "select count(*) as n from equities.order_events where trade_date = date '2026-11-19' union all select count(*) from equities.executions where trade_date = date '2026-11-19' union all select count(*) from equities.corrections where trade_date = date '2026-11-19'")
	total := 0
	for line := range strings.Lines(out) {
		var row struct{ N int }
		decode(line, &row)
		total += row.N
	}
	if total != 3000 {
		t.Errorf("%d rows after two runs of the same 3,000 records", total)
	}
	out, _ = do(exitOK, "status", "2026-11-19")
	contains(t, out, "ME1-ORD", "ME4-EXE", "TRADEDESK")
	out, _ = do(exitOK, "seal", "2026-11-19", "--json")
	seal = console.Seal{}
	decode(out, &seal)
	if seal.Rows != 3000 || seal.Existed {
		t.Errorf("%s", out)
	}

	_, errs = do(exitFailure, "sql", "selec 1")
	contains(t, errs, "42601")
	out, _ = do(exitOK, "env")
	contains(t, out, "export AWS_ENDPOINT_URL='http://127.0.0.1:", "export PGPASSWORD='", "export PGDATABASE='tapehouse'")
	_, errs = do(exitFailure, "serve", "--aws-addr", anyAddress, "--sql-addr", anyAddress, "--http-addr", anyAddress)
	contains(t, errs, "in use")
	if _, errs, code := tapehouse(t, "demo", "--data", data, "--exit"); code != exitFailure || !strings.Contains(errs, "stop it") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

func TestSabotage(t *testing.T) {
	for _, c := range []struct {
		sabotage demo.Sabotage
		wants    []string
	}{
		{demo.Kill, []string{"killed (SIGKILL)", "nothing lost, nothing twice"}},
		{demo.Gap, []string{"refused, as it must be", "withheld the record", "→", "sent again, it sealed"}},
		{demo.Reject, []string{"refused, as it must be", "error output", "rawData", "corrected, it sealed"}},
		{demo.SilentSource, []string{"refused, as it must be", "ME3-EXE", "tapehouse waive", "it came, and it sealed"}},
		{demo.Bust, []string{`"action":"bust"`, "clearly erroneous", "transaction", "byte for byte", "the sealed bills stand"}},
	} {
		t.Run(string(c.sabotage), func(t *testing.T) {
			out, r := runDemo(t, filepath.Join(t.TempDir(), "demo"), "--records", "30000", "--sabotage", string(c.sabotage))
			contains(t, out, c.wants...)
			switch {
			case c.sabotage == demo.Kill && r.Kills < 2,
				c.sabotage == demo.Bust && r.Adjustments < 1,
				c.sabotage == demo.Reject && r.Rejected != 1,
				r.Sabotage != string(c.sabotage):
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestDemoEndsWithItsServer interrupts a demo that serves on.
func TestDemoEndsWithItsServer(t *testing.T) {
	data := filepath.Join(t.TempDir(), "demo")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := exec.CommandContext(ctx, build(t), "demo", "--records", "5000", "--data", data, "--aws-addr", anyAddress, "--sql-addr", anyAddress, "--http-addr", anyAddress)
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	errs, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	c.Stdout = &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	buf := make([]byte, 1024)
	for !strings.Contains(text.String(), "Serving on") {
		n, err := errs.Read(buf)
		text.Write(buf[:n])
		if err != nil {
			t.Fatalf("%v: %s", err, text.String())
		}
	}
	cancel()
	_ = c.Wait()
	contains(t, out.String(), "What to type next", "psql -c", "aws firehose")
	if code := c.ProcessState.ExitCode(); code != exitOK {
		t.Errorf("exit %d", code)
	}
	if _, err := os.Stat(filepath.Join(data, console.EndpointsFile)); !os.IsNotExist(err) {
		t.Error("the server was not stopped in order")
	}
}
