package benchmark

import (
	"context"
	"errors"
	"time"
)

// halved is what latency reports: the ingestion at its limit and at half of it.
type halved struct {
	MaxPerSecond float64  `json:"max_records_per_second"`
	Half         ingested `json:"half"`
}

// latency measures the acknowledgement at half the maximum rate: first what the
// maximum is, unless a rate is given, then half of it for the whole length. An
// acknowledgement's time runs from when the put was due, so that a server that
// stalls cannot hide the puts that had to wait for it.
func latency(ctx context.Context, o Options, r *reporter) (any, error) {
	full := load{connections: orDefault(o.Connections, 16), length: time.Duration(orDefault(o.Seconds, 30)) * time.Second, probes: true}
	var runs []halved
	for i := range orDefault(o.Runs, 3) {
		h := halved{MaxPerSecond: float64(o.Rate) * 2}
		if o.Rate == 0 {
			probe := full
			probe.length = max(full.length/3, time.Second)
			most, err := ingestOnce(ctx, o, probe)
			if err != nil {
				return nil, err
			}
			h.MaxPerSecond = most.RecordsPerSecond
		}
		half := full
		half.rate, half.due = int(h.MaxPerSecond/2), true
		var err error
		if h.Half, err = ingestOnce(ctx, o, half); err != nil {
			return nil, err
		}
		runs = append(runs, h)
		r.printf("run %d: of %s records/s at most, ", i+1, grouped(h.MaxPerSecond))
		h.Half.print(r)
	}
	m := medianBy(runs, func(h halved) float64 { return h.Half.Ack.P99 })
	r.printf("median: at %s records/s, acknowledgement %s\n", grouped(m.Half.RecordsPerSecond), m.Half.Ack)
	return m, nil
}

// replayed is one run of replay.
type replayed struct {
	Records         int64   `json:"records"` // in the log: all are read again
	IngestPerSecond float64 `json:"ingest_records_per_second"`
	ReadySeconds    float64 `json:"ready_seconds"`   // from the start to the first answer
	VisibleSeconds  float64 `json:"visible_seconds"` // from the start to the query that saw every record
	ReplayPerSecond float64 `json:"replay_records_per_second"`
	Ratio           float64 `json:"ratio"` // to the rate of ingestion
}

// errNoProcess: only a process can be killed.
var errNoProcess = errors.New("replay kills the server, which must be a process of its own")

// replay kills the server while it takes puts at full rate, starts it again on
// its directory, and measures until a query sees every record.
func replay(ctx context.Context, o Options, r *reporter) (any, error) {
	if o.Server == nil {
		return nil, errNoProcess
	}
	l := load{connections: orDefault(o.Connections, 16), length: time.Duration(orDefault(o.Seconds, 20)) * time.Second}
	var runs []replayed
	for i := range orDefault(o.Runs, 3) {
		one, err := replayOnce(ctx, o, l)
		if err != nil {
			return nil, err
		}
		runs = append(runs, one)
		r.printf("run %d: %s records of the log at %s records/s, ready after %.2f s, all visible after %.2f s; ingested at %s: ratio %.2f\n",
			i+1, grouped(one.Records), grouped(one.ReplayPerSecond), one.ReadySeconds, one.VisibleSeconds, grouped(one.IngestPerSecond), one.Ratio)
	}
	m := medianBy(runs, func(r replayed) float64 { return r.Ratio })
	r.printf("median: %s records/s replayed, %s ingested: ratio %.2f\n", grouped(m.ReplayPerSecond), grouped(m.IngestPerSecond), m.Ratio)
	return m, nil
}

func replayOnce(ctx context.Context, o Options, l load) (_ replayed, err error) {
	s, err := start(ctx, o)
	if err != nil {
		return replayed{}, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if _, err := prepare(ctx, s, false); err != nil {
		return replayed{}, err
	}
	got, err := l.run(ctx, s)
	if err != nil {
		return replayed{}, err
	}
	one := replayed{Records: got.records, IngestPerSecond: float64(got.records) / got.wall.Seconds()}
	if err := s.kill(); err != nil {
		return replayed{}, err
	}
	began := time.Now()
	if err := s.spawn(ctx, o); err != nil {
		return replayed{}, err
	}
	one.ReadySeconds = time.Since(began).Seconds()
	conn, err := s.sql(ctx)
	if err != nil {
		return replayed{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is left to lose
	var rows int64
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM "+table).Scan(&rows); err != nil {
		return replayed{}, err
	}
	one.VisibleSeconds = time.Since(began).Seconds()
	one.ReplayPerSecond = float64(one.Records) / one.VisibleSeconds
	one.Ratio = one.ReplayPerSecond / one.IngestPerSecond
	return one, verify(ctx, s, got)
}
