// Package benchmark measures what docs/BENCHMARKS.md promises: ingestion over
// the real front door, conversion against DuckDB, freshness, views and the log.
//
// A benchmark prints what it measured, run by run, and the median run. It
// fails if what it measured was wrong: a number of a server that loses records
// is no number. Nothing here is a timed test; the figures depend on the
// machine, which every report names.
//
// What is held fixed: seeds, record shape (record.go), 500 records a put, and
// the server's shipped defaults. What the clients cost is reported beside the
// server's figures, because both share the machine's cores.
package benchmark

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/producer"
)

// ErrUnknown is returned by Run for a name that Commands does not list.
var ErrUnknown = errors.New("no such benchmark")

// Options say how much to measure. Zero values choose each benchmark's default.
type Options struct {
	Seconds     int // how long to load, a run; ingest 30, soak 600, latency 30, replay 20, freshness 30, log 5
	Runs        int // runs, of which the median counts; 3
	Connections int // producers with one put outstanding each; 16
	Rate        int // records/s in all; 0: as fast as possible (freshness: 100,000)
	Records     int // convert: records of the file (4,000,000); view: base rows (10,000,000); longrun: a date's (5,000,000)
	Days        int // longrun: trade dates; 30
	Threads     int // convert: threads; one a core
	// General makes convert read records whose members come in any order, with
	// nulls, escapes, other alphabets and members that belong to no column.
	General bool
	// Dir is where data directories are made, and removed; it should be on the
	// disk to be measured. "" is the system's temporary directory.
	Dir string
	// Server is the command that starts a server, `tapehouse serve`, to which
	// --data and the addresses are added. nil: the server runs in this process,
	// and its CPU cannot be told from the clients'.
	Server []string
	// Client makes the producers' client in place of the raw signed one, to
	// measure another beside it.
	Client func(endpoint, accessKey, secret string, connections int) (Client, error)
	// CPUProfile names a file for the server's CPU profile of the last run.
	CPUProfile string
	// OwnProfile names a file for this process's CPU profile: the clients', or
	// all of a benchmark that starts no server.
	OwnProfile string
	JSON       bool // the last line printed is the report as JSON
}

// Client puts records: *producer.Client by default.
type Client interface {
	// PutBatch returns when all documents are acknowledged.
	PutBatch(ctx context.Context, stream string, docs [][]byte) (producer.Result, error)
	// Requests returns how many requests were sent, and how many of them again.
	Requests() (sent, retried int64)
	Close()
}

// ProfileEnv is the environment variable by which a server process learns
// where to write its CPU profile: see StartProfile.
const ProfileEnv = "TAPEHOUSE_CPU_PROFILE"

// Command is one benchmark.
type Command struct {
	Name    string
	Summary string
	run     func(context.Context, Options, *reporter) (any, error)
}

// Commands lists the benchmarks.
func Commands() []Command {
	return []Command{
		{"ingest", "records/s through HTTP, SigV4, fsync, ledger, Parquet and commit, with a view and SQL queries", ingest},
		{"soak", "80 % of the maximum rate for ten minutes, or --seconds: whether memory, latencies and files stay as they are", soak},
		{"longrun", "30 trade dates (--days) with a flush a minute: whether metadata, planning and queries stay as they are", longrun},
		{"latency", "acknowledgements at half the maximum rate, counted from when a put was due", latency},
		{"replay", "the log read again after kill -9, against the rate at which it was written", replay},
		{"convert", "JSON to Parquet against DuckDB's COPY (read_json)", convert},
		{"freshness", "time from the acknowledgement to the answer of a SQL query, at 100,000 records/s", freshness},
		{"view", "refresh of a materialized view after 1 % more rows, against its query", viewRefresh},
		{"log", "the log alone: 300-byte messages, every one fsynced", logAlone},
	}
}

// Run runs one benchmark, or "all" but those that take long (soak, longrun), and prints its report to out.
func Run(ctx context.Context, name string, o Options, out io.Writer) (err error) {
	stop, err := profile(o.OwnProfile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	m := thisMachine()
	ran := false
	for _, c := range Commands() {
		if name != c.Name && (name != "all" || c.Name == "soak" || c.Name == "longrun") {
			continue
		}
		ran = true
		r := &reporter{out: out}
		r.printf("%s: %s\n%s\n", c.Name, c.Summary, m)
		result, err := c.run(ctx, o, r)
		if err != nil {
			return fmt.Errorf("bench %s: %w", c.Name, err)
		}
		if o.JSON {
			line, err := json.Marshal(struct {
				Benchmark string  `json:"benchmark"`
				Machine   machine `json:"machine"`
				Result    any     `json:"result"`
			}{c.Name, m, result})
			if err != nil {
				return err
			}
			r.printf("%s\n", line)
		}
		if r.err != nil {
			return fmt.Errorf("bench %s: write the report: %w", c.Name, r.err)
		}
	}
	if !ran {
		return fmt.Errorf("%w: %q", ErrUnknown, name)
	}
	return nil
}

// reporter prints lines and remembers the first error.
type reporter struct {
	out io.Writer
	err error
}

func (r *reporter) printf(format string, args ...any) {
	if r.err == nil {
		_, r.err = fmt.Fprintf(r.out, format, args...)
	}
}

// medianBy returns the middle one of runs in the order of figure; of an even
// number the lower one.
func medianBy[T any](runs []T, figure func(T) float64) T {
	sorted := slices.Clone(runs)
	slices.SortFunc(sorted, func(a, b T) int {
		switch x, y := figure(a), figure(b); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	return sorted[(len(sorted)-1)/2]
}

// quantiles of durations, in milliseconds.
type quantiles struct {
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
	Max float64 `json:"max_ms"`
	N   int     `json:"samples"`
}

func quantilesOf(d []time.Duration) quantiles {
	if len(d) == 0 {
		return quantiles{}
	}
	slices.Sort(d)
	at := func(p float64) float64 { return ms(d[min(len(d)-1, int(p*float64(len(d))))]) }
	return quantiles{P50: at(0.50), P99: at(0.99), Max: ms(d[len(d)-1]), N: len(d)}
}

func (q quantiles) String() string {
	return fmt.Sprintf("p50 %.1f ms, p99 %.1f ms, max %.1f ms", q.P50, q.P99, q.Max)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// grouped writes an integer with commas.
func grouped[T int | int64 | float64](v T) string {
	s := fmt.Sprintf("%.0f", float64(v))
	var b strings.Builder
	for i, c := range s {
		if i > 0 && (len(s)-i)%3 == 0 && s[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteRune(c)
	}
	return b.String()
}

func orDefault(v, def int) int {
	if v > 0 {
		return v
	}
	return def
}
