package demo

import (
	"context"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/console"
)

const (
	probeEvery = 100 * time.Millisecond
	// waitingMax bounds the acknowledgements whose records are not visible yet.
	waitingMax = 1 << 16
	// samplesMax bounds the samples; beyond it every second one is dropped.
	samplesMax = 1 << 18
)

// freshness measures how long a record needs from its acknowledgement to the
// answer of a new SQL query that counts it. It asks every 100 ms, so a sample
// is up to that much, and the query's own time, too long: never too short, but
// for a put in flight, which may be counted in place of one acknowledged.
type freshness struct {
	mu           sync.Mutex
	acknowledged int64
	visible      int64
	waiting      []acknowledgement // in order
	samples      []time.Duration
	stride       int // every stride-th sample is kept
	seen         int
	last         time.Duration
}

type acknowledgement struct {
	at    time.Time
	count int64 // of all records up to it
}

func newFreshness() *freshness { return &freshness{stride: 1} }

// acknowledge notes records that were acknowledged now.
func (f *freshness) acknowledge(n int) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.acknowledged += int64(n)
	if len(f.waiting) < waitingMax {
		f.waiting = append(f.waiting, acknowledgement{now, f.acknowledged})
	}
}

// answer notes the count that a query returned now.
func (f *freshness) answer(visible int64, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.visible = visible
	n := 0
	for n < len(f.waiting) && f.waiting[n].count <= visible {
		f.last = max(now.Sub(f.waiting[n].at), 0)
		f.add(f.last)
		n++
	}
	f.waiting = slices.Delete(f.waiting, 0, n)
}

func (f *freshness) add(d time.Duration) {
	if f.seen++; f.seen%f.stride != 0 {
		return
	}
	if len(f.samples) == samplesMax {
		kept := f.samples[:0]
		for i := 0; i < len(f.samples); i += 2 {
			kept = append(kept, f.samples[i])
		}
		f.samples = kept
		f.stride *= 2
	}
	f.samples = append(f.samples, d)
}

// interrupted forgets what waits: the server was killed, and how long it was
// down is not what is measured.
func (f *freshness) interrupted() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = f.waiting[:0]
}

// now returns the records acknowledged but not visible, and the last sample.
func (f *freshness) now() (lag int64, last time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return max(f.acknowledged-f.visible, 0), f.last
}

// quantile returns a quantile of the samples in milliseconds.
func (f *freshness) quantile(q float64) float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.samples) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(f.samples))
	i := min(int(q*float64(len(sorted))), len(sorted)-1)
	return float64(sorted[i].Microseconds()) / 1000
}

// probe asks until ctx ends. While the server is down it tries to connect.
func (f *freshness) probe(ctx context.Context, connect func(context.Context) (*pgx.Conn, error), query string) {
	var conn *pgx.Conn
	defer func() { closeConn(conn) }()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if conn == nil || conn.IsClosed() {
			conn, _ = connect(ctx) // no server: the next tick tries again
			if conn == nil {
				continue
			}
		}
		var n int64
		if err := conn.QueryRow(ctx, query).Scan(&n); err != nil {
			closeConn(conn)
			conn = nil
			continue
		}
		f.answer(n, time.Now())
	}
}

func closeConn(conn *pgx.Conn) {
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // it was only read from
}

// Connect opens a SQL connection to a server.
func Connect(ctx context.Context, e console.Endpoints, user auth.SQLUser) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user.Name, user.Password), Host: e.SQL, Path: "/" + e.Database,
		RawQuery: url.Values{"sslmode": {"disable"}, "application_name": {"tapehouse demo"}}.Encode()}
	if host, _, err := net.SplitHostPort(e.SQL); err != nil || host == "" {
		return nil, &net.AddrError{Err: "no SQL address", Addr: e.SQL}
	}
	return pgx.Connect(ctx, u.String())
}
