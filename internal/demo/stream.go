package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tapehouse/tapehouse/internal/exchange"
	"github.com/tapehouse/tapehouse/internal/producer"
	"github.com/tapehouse/tapehouse/internal/terminal"
)

// visibleQuery counts what SQL sees of the stream whose freshness is measured:
// the one with nine of ten records.
const visibleQuery = "SELECT count(*) FROM equities.order_events"

const (
	redrawEvery = 100 * time.Millisecond
	barWidth    = 16
	// flushWait bounds how long the last acknowledgements may take: a killed
	// server needs seconds to come back.
	flushWait = 5 * time.Minute
)

// example is a query that is shown while records stream in.
type example struct {
	at    float64 // share of the records
	title string
	sql   string
}

func (d *demo) examples() []example {
	return []example{
		{0.35, "the most traded symbols", fmt.Sprintf(`SELECT symbol, volume, trades, high, low
  FROM equities.symbol_daily_stats WHERE trade_date = DATE '%s'
 ORDER BY volume DESC, symbol LIMIT 4`, d.date)},
		{0.7, "the members that pay and earn most", fmt.Sprintf(`SELECT mpid, sum(legs) AS legs, sum(shares) AS shares, sum(notional) AS notional
  FROM equities.member_daily_activity WHERE trade_date = DATE '%s'
 GROUP BY mpid ORDER BY notional DESC, mpid LIMIT 4`, d.date)},
	}
}

// stream puts the whole trade date, asks SQL meanwhile, and with Kill kills the
// server. It returns when everything is acknowledged.
func (d *demo) stream(ctx context.Context) error {
	d.head("Stream", "%s records, %d sources, through HTTP with SigV4", terminal.Count(d.o.Records), len(d.sources))
	d.pipeline = producer.NewPipeline(d.client, producer.PipelineOptions{Workers: workers, OnAck: func(a producer.Ack) {
		if a.Stream == exchange.StreamOrders {
			d.fresh.acknowledge(a.Records)
		}
	}})
	ctx, cancel := context.WithCancelCause(ctx)
	var wait sync.WaitGroup
	defer func() {
		cancel(nil)
		wait.Wait()
	}()
	wait.Go(func() { d.fresh.probe(ctx, d.connect, visibleQuery) })
	began := time.Now()
	wait.Go(func() { d.draw(ctx, began) })

	moments := d.moments(ctx, &wait, cancel)
	play := Play{Player: d.exchange, Pipeline: d.pipeline, Manifest: d.manifest, OnPut: func(n int64) {
		for len(moments) > 0 && n >= moments[0].at {
			moments[0].reached <- struct{}{} // it has room
			moments = moments[1:]
		}
	}}
	played, err := play.Run(ctx)
	if err == nil {
		err = d.flush(ctx)
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) {
			err = cause
		}
		return fmt.Errorf("stream: %w", err)
	}
	d.streamed = time.Since(began)
	d.result.RecordsSent = played.Records
	d.waitVisible(ctx)
	cancel(nil)
	wait.Wait()
	p := d.pipeline.Progress()
	d.progress.Set(d.line(p, d.streamed))
	d.progress.Done()
	d.result.RecordsAcknowledged = p.Acknowledged
	d.result.StreamSeconds = d.streamed.Seconds()
	d.result.RecordsPerSecond = int64(float64(p.Acknowledged) / d.streamed.Seconds())
	d.result.FreshnessP50, d.result.FreshnessP99 = d.fresh.quantile(0.5), d.fresh.quantile(0.99)
	d.say("   acknowledged %s in %s: %s records/s, each on disk first\n   visible to SQL after %.0f ms (median), %.0f ms (p99)\n",
		terminal.Count(p.Acknowledged), terminal.Took(d.streamed), terminal.Count(d.result.RecordsPerSecond), d.result.FreshnessP50, d.result.FreshnessP99)
	if d.result.Kills > 0 {
		_, retried := d.client.Requests()
		d.say("   %d requests were sent again; the ledger knows what it has\n", retried)
	}
	return nil
}

// flush waits until everything that was put is acknowledged.
func (d *demo) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushWait)
	defer cancel()
	return d.pipeline.Flush(ctx)
}

// waitVisible gives the last records the time to be seen by the probe.
func (d *demo) waitVisible(ctx context.Context) {
	for range 100 {
		if lag, _ := d.fresh.now(); lag == 0 || sleepUntil(ctx, time.Now().Add(20*time.Millisecond)) != nil {
			return
		}
	}
}

func (d *demo) connect(ctx context.Context) (*pgx.Conn, error) {
	s := d.server.Load()
	return Connect(ctx, s.Endpoints, s.Credentials.Users[0])
}

// draw shows the progress until ctx ends.
func (d *demo) draw(ctx context.Context, began time.Time) {
	tick := time.NewTicker(redrawEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.progress.Set(d.line(d.pipeline.Progress(), time.Since(began)))
		case <-ctx.Done():
			return
		}
	}
}

// line is the progress, in less than a terminal's width.
func (d *demo) line(p producer.Progress, took time.Duration) string {
	share := float64(p.Acknowledged) / float64(max(d.o.Records, 1))
	lag, last := d.fresh.now()
	fresh := "-"
	if last > 0 {
		fresh = terminal.Took(last)
	}
	text := fmt.Sprintf("   %s %3.0f%%  %s  %s/s  lag %s  fresh %s", terminal.Bar(share, barWidth), min(share, 1)*100,
		terminal.Count(p.Acknowledged), terminal.Count(int64(float64(p.Acknowledged)/max(took.Seconds(), 0.001))), terminal.Count(lag), fresh)
	if d.down.Load() {
		text += "  server killed"
	}
	return text
}

// moment is a point of the stream at which something happens beside it.
type moment struct {
	at      int64 // records put
	reached chan struct{}
}

// moments starts what waits for them. A failure cancels the stream.
func (d *demo) moments(ctx context.Context, wait *sync.WaitGroup, cancel context.CancelCauseFunc) []moment {
	var all []moment
	add := func(share float64, fn func() error) {
		m := moment{int64(share * float64(d.o.Records)), make(chan struct{}, 1)}
		all = append(all, m)
		wait.Go(func() {
			select {
			case <-m.reached:
				if err := fn(); err != nil && ctx.Err() == nil {
					cancel(err)
				}
			case <-ctx.Done():
			}
		})
	}
	if d.o.Sabotage == Kill {
		var once sync.Mutex // one kill after another
		for range 2 + rand.N(2) {
			add(0.1+0.8*rand.Float64(), func() error {
				once.Lock()
				defer once.Unlock()
				return d.kill(ctx)
			})
		}
	} else {
		for _, e := range d.examples() {
			add(e.at, func() error { return d.ask(ctx, e) })
		}
	}
	slices.SortFunc(all, func(a, b moment) int { return int(a.at - b.at) })
	return all
}

// ask shows a query and its answer.
func (d *demo) ask(ctx context.Context, e example) error {
	conn, err := d.connect(ctx)
	if err != nil {
		return fmt.Errorf("query while streaming: %w", err)
	}
	defer closeConn(conn)
	began := time.Now()
	t, err := queryTable(ctx, conn, e.sql)
	if err != nil {
		return fmt.Errorf("query while streaming: %w", err)
	}
	took := time.Since(began)
	t.Indent = "     "
	d.progress.Above(func() {
		fmt.Fprintf(d.o.Out, "   while it streams, %s (%s):\n", e.title, terminal.Took(took))
		_ = t.Write(d.o.Out) // the story's own writer fails on its next line, too
	})
	return nil
}

// queryTable runs a query and makes a table of its text.
func queryTable(ctx context.Context, conn *pgx.Conn, sql string) (*terminal.Table, error) {
	// The simple protocol answers in text, which needs no types to be shown.
	m := conn.PgConn().Exec(ctx, sql)
	t := &terminal.Table{}
	for m.NextResult() {
		r := m.ResultReader()
		var amount []bool
		for _, f := range r.FieldDescriptions() {
			n := f.DataTypeOID == pgtype.NumericOID || f.DataTypeOID == pgtype.Int8OID || f.DataTypeOID == pgtype.Int4OID
			amount = append(amount, n)
			t.Columns = append(t.Columns, terminal.Column{Name: f.Name, Right: n})
		}
		for r.NextRow() {
			cells := make([]string, len(t.Columns))
			for i, v := range r.Values() {
				if cells[i] = string(v); amount[i] {
					cells[i] = terminal.Amount(cells[i])
				}
			}
			t.Rows = append(t.Rows, cells)
		}
		if _, err := r.Close(); err != nil {
			_ = m.Close() // it has the same error
			return nil, err
		}
	}
	return t, m.Close()
}

// kill ends the server in the midst of everything and starts it again, where
// the producer looks for it.
func (d *demo) kill(ctx context.Context) error {
	d.down.Store(true)
	defer d.down.Store(false)
	d.notePeak()
	before := d.pipeline.Progress().Acknowledged
	began := time.Now()
	killed := d.server.Load()
	killed.Kill()
	d.fresh.interrupted()
	next, err := StartServer(ctx, Launch{Program: d.o.Program, Dir: d.o.Data, Addresses: killed.Addresses()})
	if err != nil {
		return fmt.Errorf("start the server again after it was killed: %w", err)
	}
	d.server.Store(next)
	d.fresh.interrupted()
	d.result.Kills++
	d.say("   killed (SIGKILL) at %s acknowledged records; serving again after %s\n", terminal.Count(before), terminal.Took(time.Since(began)))
	return nil
}

// notePeak remembers the greatest resident memory of all servers.
func (d *demo) notePeak() {
	d.result.MemoryPeakBytes = max(d.result.MemoryPeakBytes, d.server.Load().MemoryPeakBytes())
}
