package benchmark

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// soakStretches is into how many equal stretches a soak is cut.
const soakStretches = 10

// stretch is a part of a soak: what was acknowledged in it, and what the server
// held at its end.
type stretch struct {
	EndSeconds       float64   `json:"end_seconds"`
	RecordsPerSecond float64   `json:"records_per_second"`
	Ack              quantiles `json:"acknowledgement"`
	Fresh            quantiles `json:"freshness"`
	ServerNanos      float64   `json:"server_cpu_ns_per_record,omitempty"`
	ResidentBytes    int64     `json:"resident_bytes"`
	OpenFiles        int       `json:"open_files"`
	Files            int       `json:"files"` // of the data directory
	DataBytes        int64     `json:"data_bytes"`
}

// soaked is what soak reports.
type soaked struct {
	MaxPerSecond float64   `json:"max_records_per_second,omitempty"`
	Stretches    []stretch `json:"stretches"`
	Whole        ingested  `json:"whole"`
}

// soak loads a server for long, at 80 % of the maximum rate or the rate given,
// and reports stretch by stretch whether memory, latencies and files stay as
// they are. Acknowledgements count from when their put was due.
func soak(ctx context.Context, o Options, r *reporter) (any, error) {
	l := load{connections: orDefault(o.Connections, 16), rate: o.Rate, length: time.Duration(orDefault(o.Seconds, 600)) * time.Second, probes: true, due: true}
	out := soaked{}
	if l.rate == 0 {
		most, err := ingestOnce(ctx, o, load{connections: l.connections, length: max(min(l.length/10, 30*time.Second), time.Second), probes: true})
		if err != nil {
			return nil, err
		}
		out.MaxPerSecond = most.RecordsPerSecond
		l.rate = int(most.RecordsPerSecond * 0.8)
		r.printf("at most %s records/s; ", grouped(most.RecordsPerSecond))
	}
	r.printf("%s records/s for %s, a SQL query every %s\n", grouped(l.rate), l.length, probeEvery)
	r.printf("%8s %10s %8s %8s %10s %9s %9s %7s %7s %9s\n", "until", "records/s", "ack p50", "ack p99", "fresh p99", "ns/record", "RSS MiB", "fds", "files", "data MiB")
	l.stretches = soakStretches
	l.each = func(s stretch) {
		out.Stretches = append(out.Stretches, s)
		r.printf("%7.0fs %10s %8.1f %8.1f %10.1f %9.0f %9d %7d %7d %9d\n", s.EndSeconds, grouped(s.RecordsPerSecond), s.Ack.P50, s.Ack.P99, s.Fresh.P99, s.ServerNanos,
			s.ResidentBytes>>20, s.OpenFiles, s.Files, s.DataBytes>>20)
	}
	var err error
	if out.Whole, err = ingestOnce(ctx, o, l); err != nil {
		return nil, err
	}
	r.printf("in all: ")
	out.Whole.print(r)
	return out, nil
}

// watch reports stretches of the load until stop is closed.
func (l load) watch(s *subject, lanes []*lane, fresh *durations, began time.Time, stop <-chan struct{}) error {
	tick := time.NewTicker(l.length / time.Duration(l.stretches))
	defer tick.Stop()
	acks := make([]int, len(lanes))
	probes := 0
	from := began
	cpu, err := cpuOf(s.pid)
	if err != nil {
		return err
	}
	for n := 1; n <= l.stretches; n++ {
		select {
		case <-stop:
			return nil
		case <-tick.C:
		}
		now := time.Now()
		one := stretch{EndSeconds: now.Sub(began).Seconds()}
		var took []time.Duration
		for i, ln := range lanes {
			got := ln.acks.from(acks[i])
			acks[i] += len(got)
			took = append(took, got...)
		}
		records := float64(len(took) * batchSize)
		one.RecordsPerSecond = records / now.Sub(from).Seconds()
		one.Ack = quantilesOf(took)
		got := fresh.from(probes)
		probes += len(got)
		one.Fresh = quantilesOf(got)
		used, err := cpuOf(s.pid)
		if err == nil && s.serving == nil {
			one.ServerNanos = float64(used-cpu) / max(records, 1)
		}
		cpu, from = used, now
		var errs [3]error
		one.ResidentBytes, errs[0] = memoryOf(s.pid, "VmRSS")
		one.OpenFiles, errs[1] = openFilesOf(s.pid)
		one.Files, one.DataBytes, errs[2] = filesBelow(s.dir)
		if err = errors.Join(append(errs[:], err)...); err != nil {
			return err
		}
		l.each(one)
	}
	return nil
}

func openFilesOf(pid int) (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(entries), err
}

// filesBelow counts the files below a directory, in which files come and go.
func filesBelow(dir string) (n int, bytes int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return ignoreGone(err)
		}
		info, err := d.Info()
		if err != nil {
			return ignoreGone(err)
		}
		n++
		bytes += info.Size()
		return nil
	})
	return n, bytes, err
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
