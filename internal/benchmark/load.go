package benchmark

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	seed = 20261123
	// probeEvery is how often a SQL query looks for a record that was just
	// acknowledged.
	probeEvery = 100 * time.Millisecond
)

// load is what producers do to a server.
type load struct {
	connections int
	rate        int           // records/s in all; 0: as fast as possible
	length      time.Duration // of the load; 0: until records are reached
	records     int64         // at most so many, in full puts; 0: no limit
	probes      bool
	// due makes an acknowledgement's time run from when its put was due, not from
	// when it was sent. It needs a rate.
	due bool
	// each is told of each of so many equal stretches of length; nil: of none.
	each      func(stretch)
	stretches int
}

// durations are added by one goroutine while others read them.
type durations struct {
	mu  sync.Mutex
	all []time.Duration
}

func (d *durations) add(t time.Duration) {
	d.mu.Lock()
	d.all = append(d.all, t)
	d.mu.Unlock()
}

// from is a copy of those from the nth on.
func (d *durations) from(n int) []time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.all[n:])
}

// loaded is what they saw.
type loaded struct {
	sources []*source
	records int64
	bytes   int64 // of JSON
	wall    time.Duration
	acks    []time.Duration
	fresh   []time.Duration
	retried int64
}

// lane is one producer: one source, one connection, one put outstanding.
type lane struct {
	source       *source
	acks         durations
	bytes        int64
	acknowledged atomic.Int64 // sequence number of the last record
	_            [64]byte     // the next lane's counter is on another cache line
}

// run puts load on the server and waits until all of it is acknowledged.
func (l load) run(ctx context.Context, s *subject) (*loaded, error) {
	client, err := s.client(l.connections)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	m := newMarket(seed)
	lanes := make([]*lane, l.connections)
	for i := range lanes {
		lanes[i] = &lane{source: newSource(m, i, seed)}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out := &loaded{}
	began := time.Now()
	var probing, putting sync.WaitGroup
	var fresh durations
	stop := make(chan struct{})
	if l.probes {
		conn, err := s.sql(ctx)
		if err != nil {
			return nil, err
		}
		defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is left to lose
		probing.Go(func() {
			if err := probe(ctx, conn, lanes, &fresh, stop); err != nil {
				cancel(err)
			}
		})
	}
	if l.each != nil {
		probing.Go(func() {
			if err := l.watch(s, lanes, &fresh, began, stop); err != nil {
				cancel(err)
			}
		})
	}
	for i, ln := range lanes {
		putting.Go(func() {
			if err := ln.put(ctx, client, l, i, began); err != nil {
				cancel(err)
			}
		})
	}
	putting.Wait()
	out.wall = time.Since(began)
	close(stop)
	probing.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	for _, ln := range lanes {
		out.sources = append(out.sources, ln.source)
		out.records += ln.source.records()
		out.bytes += ln.bytes
		out.acks = append(out.acks, ln.acks.from(0)...)
	}
	out.fresh = fresh.from(0)
	_, out.retried = client.Requests()
	return out, nil
}

// put sends batches until the time is over.
func (ln *lane) put(ctx context.Context, client Client, l load, number int, began time.Time) error {
	var every time.Duration // between this lane's puts
	next := began
	if l.rate > 0 {
		every = time.Duration(float64(time.Second) * float64(l.connections*batchSize) / float64(l.rate))
		next = began.Add(every * time.Duration(number) / time.Duration(l.connections))
	}
	for {
		if every > 0 {
			if wait := time.Until(next); wait > 0 {
				select {
				case <-time.After(wait):
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			next = next.Add(every)
		}
		due := next.Add(-every)
		if l.length > 0 && time.Since(began) >= l.length {
			return nil
		}
		if l.records > 0 && ln.source.records()*int64(l.connections) >= l.records {
			return nil
		}
		docs := ln.source.put()
		sent := time.Now()
		r, err := client.PutBatch(ctx, stream, docs)
		if err != nil {
			return err
		}
		if r.Records != batchSize {
			return fmt.Errorf("%d of %d records acknowledged", r.Records, batchSize)
		}
		if l.due {
			sent = due
		}
		ln.acks.add(time.Since(sent))
		ln.bytes += r.Bytes
		ln.acknowledged.Store(ln.source.next - 1)
	}
}

// errInvisible: a query that began after the acknowledgement did not see the
// record. That is no figure but a fault.
var errInvisible = errors.New("an acknowledged record was not visible to a query that began afterwards")

// probe asks, every probeEvery, for the record that a producer has had
// acknowledged last, and measures from the acknowledgement seen to the answer.
func probe(ctx context.Context, conn *pgx.Conn, lanes []*lane, took *durations, stop <-chan struct{}) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return nil
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		ln := lanes[n%len(lanes)]
		asked := time.Now()
		seq := ln.acknowledged.Load()
		if seq == 0 {
			continue
		}
		var rows int
		err := conn.QueryRow(ctx, "SELECT count(*) FROM bench.trades WHERE source = $1 AND seq = $2", ln.source.name, seq).Scan(&rows)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("freshness query: %w", err)
		case rows != 1:
			return fmt.Errorf("%w: %d rows of source %s, sequence %d; %s", errInvisible, rows, ln.source.name, seq, later(ctx, conn, ln.source.name, seq))
		}
		took.add(time.Since(asked))
	}
}

// prepare creates the measured table, its stream and, if asked to, the view. It
// reports whether there is a view now: a server may keep none.
func prepare(ctx context.Context, s *subject, view bool) (kept bool, err error) {
	conn, err := s.sql(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is left to lose
	for _, sql := range []string{"CREATE SCHEMA " + schema, createTable} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return false, fmt.Errorf("prepare the table: %w", err)
		}
	}
	client, err := s.producer(1)
	if err != nil {
		return false, err
	}
	defer client.Close()
	// The buffer hints are those of the equities pack's streams.
	err = client.Call(ctx, "CreateDeliveryStream", map[string]any{
		"DeliveryStreamName": stream, "DeliveryStreamType": "DirectPut",
		"IcebergDestinationConfiguration": map[string]any{
			"RoleARN":                           "arn:aws:iam::000000000000:role/bench",
			"CatalogConfiguration":              map[string]any{"CatalogARN": "arn:aws:glue:us-east-1:000000000000:catalog"},
			"BufferingHints":                    map[string]any{"SizeInMBs": 128, "IntervalInSeconds": 60},
			"DestinationTableConfigurationList": []any{map[string]any{"DestinationDatabaseName": schema, "DestinationTableName": "trades"}},
			"S3Configuration":                   map[string]any{"RoleARN": "arn:aws:iam::000000000000:role/bench", "BucketARN": "arn:aws:s3:::lake"},
		},
	}, nil)
	if err != nil {
		return false, fmt.Errorf("create the stream: %w", err)
	}
	if !view {
		return false, nil
	}
	_, err = conn.Exec(ctx, "CREATE MATERIALIZED VIEW "+viewName+" AUTO REFRESH YES AS "+viewQuery)
	return err == nil, nil
}

// verify holds the table against what the producers had acknowledged: the
// number of rows of each source, their least and greatest sequence number, and
// two sums that a missing or a repeated row would change.
func verify(ctx context.Context, s *subject, l *loaded) error {
	conn, err := s.sql(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is left to lose
	rows, err := conn.Query(ctx, "SELECT source, count(*), min(seq), max(seq), sum(seq)::bigint, sum(quantity)::bigint FROM "+table+" GROUP BY source")
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	type totals struct{ Rows, First, Last, Sequences, Quantity int64 }
	have := map[string]totals{}
	var name string
	var t totals
	if _, err := pgx.ForEachRow(rows, []any{&name, &t.Rows, &t.First, &t.Last, &t.Sequences, &t.Quantity}, func() error {
		have[name] = t
		return nil
	}); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	for _, src := range l.sources {
		n := src.records()
		want := totals{n, src.first, src.next - 1, n * (src.first + src.next - 1) / 2, src.quantity}
		if n > 0 && have[src.name] != want {
			return fmt.Errorf("verify: source %s has %+v in the table, %+v was acknowledged", src.name, have[src.name], want)
		}
	}
	return nil
}

// verifyView holds the view against the table.
func verifyView(ctx context.Context, s *subject, l *loaded) error {
	conn, err := s.sql(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is left to lose
	var trades, shares int64
	if err := conn.QueryRow(ctx, "SELECT sum(trades)::bigint, sum(shares)::bigint FROM "+viewName).Scan(&trades, &shares); err != nil {
		return fmt.Errorf("verify the view: %w", err)
	}
	want := int64(0)
	for _, src := range l.sources {
		want += src.quantity
	}
	if trades != l.records || shares != want {
		return fmt.Errorf("verify: the view counts %d trades and %d shares, %d and %d were acknowledged", trades, shares, l.records, want)
	}
	return nil
}

// sizes of documents, for the report.
func (l *loaded) documentBytes() float64 { return float64(l.bytes) / float64(max(l.records, 1)) }

func (l *loaded) ackQuantiles() quantiles   { return quantilesOf(slices.Clone(l.acks)) }
func (l *loaded) freshQuantiles() quantiles { return quantilesOf(slices.Clone(l.fresh)) }

// later says when a query sees a record that one did not see, to tell what is
// late from what is lost.
func later(ctx context.Context, conn *pgx.Conn, source string, seq int64) string {
	began := time.Now()
	for range 40 {
		var rows int
		if err := conn.QueryRow(ctx, "SELECT count(*) FROM bench.trades WHERE source = $1 AND seq = $2", source, seq).Scan(&rows); err != nil {
			return "then the query failed: " + err.Error()
		}
		if rows == 1 {
			return fmt.Sprintf("a query saw it %s later", time.Since(began).Round(time.Millisecond))
		}
		select {
		case <-ctx.Done():
			return "then the run ended"
		case <-time.After(250 * time.Millisecond):
		}
	}
	return fmt.Sprintf("%s later it was not to be seen either", time.Since(began).Round(time.Second))
}
