package maintain

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/catalog"
)

// Maintainer compacts on demand and, once started, removes what is not needed.
// It is safe for concurrent use.
type Maintainer struct {
	o       Options
	metrics *metrics

	mu         sync.Mutex // one round at a time
	compacting sync.Mutex // one rewriting of files at a time, from its reading to its commit
	stop       chan struct{}
	stopped    sync.Once
	wg         sync.WaitGroup
}

// New makes a maintainer. It starts nothing: see Start.
func New(o Options) (*Maintainer, error) {
	if o.Catalog == nil || o.Engine == nil || o.Store == nil || o.Staging == "" {
		return nil, errors.New("maintain: catalog, engine, store and staging directory are required")
	}
	o.setDefaults()
	m := &Maintainer{o: o, stop: make(chan struct{})}
	var err error
	if m.metrics, err = newMetrics(o.Registerer); err != nil {
		return nil, fmt.Errorf("register the maintainer's metrics: %w", err)
	}
	return m, nil
}

// Start begins the loops, which end with Close. It is called at most once.
func (m *Maintainer) Start() {
	m.wg.Go(func() {
		m.loop(func(ctx context.Context) error {
			_, err := m.Round(ctx)
			return err
		})
	})
	m.wg.Go(func() { m.loop(m.mergeUnlessBusy()) })
}

// Hold keeps rounds from removing files until release: what is listed stays
// where it is. It waits for a round under way.
func (m *Maintainer) Hold(ctx context.Context) (release func(), err error) {
	taken := make(chan struct{})
	go func() {
		m.mu.Lock()
		close(taken)
	}()
	select {
	case <-taken:
		return sync.OnceFunc(m.mu.Unlock), nil
	case <-ctx.Done():
		go func() { // the lock comes late, to nobody
			<-taken
			m.mu.Unlock()
		}()
		return nil, context.Cause(ctx)
	}
}

// Close stops the loop and waits for it. A round under way is cancelled; what
// it has done stays done.
func (m *Maintainer) Close() error {
	m.stopped.Do(func() { close(m.stop) })
	m.wg.Wait()
	return nil
}

// loop runs work once an interval until the maintainer closes.
func (m *Maintainer) loop(work func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-m.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	t := time.NewTicker(m.o.Interval)
	defer t.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-t.C:
			if m.o.Turn != nil {
				ours, err := m.o.Turn(ctx)
				if err != nil && ctx.Err() == nil {
					m.o.Logger.Error("maintenance", "err", err)
				}
				if !ours {
					continue
				}
			}
			if err := work(ctx); err != nil && ctx.Err() == nil {
				m.o.Logger.Error("maintenance", "err", err)
			}
		}
	}
}

// RoundResult says what a round removed.
type RoundResult struct {
	Snapshots int // expired
	Files     int // that nothing referred to any longer
	Orphans   int // that were never committed
	Pinned    int // files that were due and are in use
	Rewritten int // groups of data files, without the rows that were deleted from them
}

// Round rewrites files of which many rows are deleted, expires the old snapshots
// of every table and removes garbage and orphans, once. An error about one table does not keep the others back.
func (m *Maintainer) Round(ctx context.Context) (r RoundResult, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	start := m.o.Now()
	defer func() { m.metrics.round(r, m.o.Now().Sub(start), err) }()
	var needs map[catalog.Name][]int64
	if m.o.Needs != nil {
		if needs, err = m.o.Needs(ctx); err != nil {
			return r, fmt.Errorf("ask what views still need: %w", err)
		}
	}
	names, err := m.o.Catalog.List(ctx, "")
	if err != nil {
		return r, err
	}
	var errs []error
	for _, n := range names {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		rewritten, err := m.ApplyDeletes(ctx, n)
		r.Rewritten += rewritten
		if err != nil && !errors.Is(err, catalog.ErrNotFound) {
			errs = append(errs, err)
		}
		e, err := m.o.Catalog.Expire(ctx, n, m.policy(needs[n]))
		r.Snapshots += e.Expired
		r.Files += e.Swept.Deleted
		r.Pinned += e.Swept.Pinned
		if err != nil {
			if !errors.Is(err, catalog.ErrNotFound) { // dropped meanwhile
				errs = append(errs, fmt.Errorf("expire snapshots of %s: %w", n, err))
			}
			continue
		}
		if err := m.orphans(ctx, n, &r); err != nil {
			errs = append(errs, fmt.Errorf("remove orphans of %s: %w", n, err))
		}
	}
	// Dropped tables have garbage too.
	s, err := m.o.Catalog.Sweep(ctx, catalog.SweepPolicy{Grace: m.o.Grace, Pinned: m.o.Engine.Pinned})
	r.Files += s.Deleted
	r.Pinned += s.Pinned
	err = errors.Join(append(errs, err)...)
	if r.Snapshots+r.Files+r.Orphans+r.Rewritten > 0 {
		m.o.Logger.Info("maintenance", "groups_rewritten", r.Rewritten, "snapshots_expired", r.Snapshots, "files_removed", r.Files, "orphans_removed", r.Orphans, "files_pinned", r.Pinned, "took", m.o.Now().Sub(start))
	}
	return r, err
}

// policy is how a table's snapshots expire. needs are those that views still
// read from.
func (m *Maintainer) policy(needs []int64) catalog.ExpirePolicy {
	return catalog.ExpirePolicy{RetainLast: m.o.SnapshotsMin, MinAge: m.o.SnapshotAge, RetainMost: m.o.SnapshotsMax, KeepDeltaFrom: needs, Grace: m.o.Grace, Pinned: m.o.Engine.Pinned}
}

func (m *Maintainer) orphans(ctx context.Context, n catalog.Name, r *RoundResult) error {
	found, err := m.o.Catalog.DeleteOrphans(ctx, n, m.o.OrphanAge, m.o.Engine.Pinned)
	r.Orphans += len(found)
	if errors.Is(err, catalog.ErrNotFound) {
		return nil
	}
	return err
}

type metrics struct {
	compactions *prometheus.CounterVec
	seconds     prometheus.Histogram
	rows        prometheus.Counter
	rounds      *prometheus.CounterVec
	removed     *prometheus.CounterVec
	lastRound   prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	const ns, sub = "tapehouse", "maintain"
	m := &metrics{
		compactions: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "compactions_total", Help: "Compactions by result: done, nothing, error."}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: ns, Subsystem: sub, Name: "compaction_seconds", Help: "Duration of a compaction that wrote something.",
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 8)}),
		rows:      prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "compacted_rows_total", Help: "Rows in compacted partitions."}),
		rounds:    prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "rounds_total", Help: "Maintenance rounds by result: done, error."}, []string{"result"}),
		removed:   prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "removed_total", Help: "What rounds removed: snapshot, file, orphan."}, []string{"kind"}),
		lastRound: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "round_seconds", Help: "Duration of the last round."}),
	}
	// Series begin at 0, so that the first event is an increase.
	for _, result := range []string{"done", "error"} {
		m.rounds.WithLabelValues(result)
		m.compactions.WithLabelValues(result)
	}
	m.compactions.WithLabelValues("nothing")
	for _, kind := range []string{"snapshot", "file", "orphan"} {
		m.removed.WithLabelValues(kind)
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.compactions, m.seconds, m.rows, m.rounds, m.removed, m.lastRound} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) compacted(r *CompactResult, took time.Duration, err error) {
	switch {
	case err != nil:
		m.compactions.WithLabelValues("error").Inc()
	case r.Took == 0 || r.FilesBefore == 0:
		m.compactions.WithLabelValues("nothing").Inc()
	default:
		m.compactions.WithLabelValues("done").Inc()
		m.seconds.Observe(took.Seconds())
		m.rows.Add(float64(r.Rows))
	}
}

func (m *metrics) round(r RoundResult, took time.Duration, err error) {
	result := "done"
	if err != nil {
		result = "error"
	}
	m.rounds.WithLabelValues(result).Inc()
	m.removed.WithLabelValues("snapshot").Add(float64(r.Snapshots))
	m.removed.WithLabelValues("file").Add(float64(r.Files))
	m.removed.WithLabelValues("orphan").Add(float64(r.Orphans))
	m.lastRound.Set(took.Seconds())
}
