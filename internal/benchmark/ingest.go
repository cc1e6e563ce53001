package benchmark

import (
	"context"
	"errors"
	"runtime"
	"time"
)

// ingested is one run of ingest or freshness.
type ingested struct {
	RecordsPerSecond float64   `json:"records_per_second"`
	Records          int64     `json:"records"`
	DocumentBytes    float64   `json:"document_bytes"`
	Seconds          float64   `json:"seconds"`
	ServerNanos      float64   `json:"server_cpu_ns_per_record,omitempty"`
	ClientNanos      float64   `json:"client_cpu_ns_per_record"`
	BothNanos        bool      `json:"server_in_this_process,omitempty"` // ClientNanos is of both
	PeakBytes        int64     `json:"server_peak_rss_bytes"`
	Ack              quantiles `json:"acknowledgement"`
	Fresh            quantiles `json:"freshness"`
	View             bool      `json:"view"`
	Retries          int64     `json:"retries"`
	Others           float64   `json:"other_processes_percent"` // of the machine's processor time
}

func ingest(ctx context.Context, o Options, r *reporter) (any, error) {
	l := load{connections: orDefault(o.Connections, 16), rate: o.Rate, length: time.Duration(orDefault(o.Seconds, 30)) * time.Second, probes: true}
	r.printf("%d producers, %d records a put, %s a run, a SQL query every %s\n", l.connections, batchSize, l.length, probeEvery)
	return repeat(ctx, o, r, l, func(i ingested) float64 { return i.RecordsPerSecond })
}

func freshness(ctx context.Context, o Options, r *reporter) (any, error) {
	l := load{connections: orDefault(o.Connections, 4), rate: orDefault(o.Rate, 100_000), length: time.Duration(orDefault(o.Seconds, 30)) * time.Second, probes: true}
	r.printf("%s records/s by %d producers, %s a run, a SQL query every %s\n", grouped(l.rate), l.connections, l.length, probeEvery)
	return repeat(ctx, o, r, l, func(i ingested) float64 { return i.Fresh.P99 })
}

// repeat runs the load on new servers and returns the median run.
func repeat(ctx context.Context, o Options, r *reporter, l load, figure func(ingested) float64) (any, error) {
	var runs []ingested
	for i := range orDefault(o.Runs, 3) {
		one, err := ingestOnce(ctx, o, l)
		if err != nil {
			return nil, err
		}
		runs = append(runs, one)
		r.printf("run %d: ", i+1)
		one.print(r)
	}
	m := medianBy(runs, figure)
	r.printf("median: ")
	m.print(r)
	return m, nil
}

func (i ingested) print(r *reporter) {
	r.printf("%s records/s (%s in %.1f s, %.0f B each)", grouped(i.RecordsPerSecond), grouped(i.Records), i.Seconds, i.DocumentBytes)
	if i.BothNanos {
		r.printf(", server and clients %.0f ns CPU a record", i.ClientNanos)
	} else {
		r.printf(", server %.0f ns CPU a record, clients %.0f ns", i.ServerNanos, i.ClientNanos)
	}
	r.printf(", peak RSS %d MiB\n  acknowledgement %s\n  freshness       %s (%d queries)\n", i.PeakBytes>>20, i.Ack, i.Fresh, i.Fresh.N)
	if i.Others >= 2 {
		r.printf("  other processes had %.0f %% of the machine\n", i.Others)
	}
	if !i.View {
		r.printf("  without a view: this server keeps none\n")
	}
	if i.Retries > 0 {
		r.printf("  %d requests were sent again\n", i.Retries)
	}
}

func ingestOnce(ctx context.Context, o Options, l load) (_ ingested, err error) {
	s, err := start(ctx, o)
	if err != nil {
		return ingested{}, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	view, err := prepare(ctx, s, true)
	if err != nil {
		return ingested{}, err
	}
	server, err := cpuOf(s.pid)
	if err != nil {
		return ingested{}, err
	}
	all, err := busy()
	if err != nil {
		return ingested{}, err
	}
	client := ownCPU()
	got, err := l.run(ctx, s)
	if err != nil {
		return ingested{}, err
	}
	client = ownCPU() - client
	after, err := cpuOf(s.pid)
	if err != nil {
		return ingested{}, err
	}
	server = after - server
	others, err := busy()
	if err != nil {
		return ingested{}, err
	}
	others -= all + client
	if s.serving == nil {
		others -= server
	}
	n := float64(got.records)
	one := ingested{
		RecordsPerSecond: n / got.wall.Seconds(), Records: got.records, DocumentBytes: got.documentBytes(), Seconds: got.wall.Seconds(),
		ServerNanos: float64(server) / n, ClientNanos: float64(client) / n,
		Ack: got.ackQuantiles(), Fresh: got.freshQuantiles(), View: view, Retries: got.retried,
		Others: max(0, 100*float64(others)/float64(got.wall)/float64(runtime.NumCPU())),
	}
	if s.serving != nil {
		one.ServerNanos, one.BothNanos = 0, true
	}
	if one.PeakBytes, err = peakMemoryOf(s.pid); err != nil {
		return ingested{}, err
	}
	if err := verify(ctx, s, got); err != nil {
		return ingested{}, err
	}
	if view {
		if err := verifyView(ctx, s, got); err != nil {
			return ingested{}, err
		}
	}
	return one, nil
}
