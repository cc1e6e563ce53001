package engine

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	queries    *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	pinned     prometheus.Gauge
	open       prometheus.Gauge
	pinRetries prometheus.Counter
	rows       prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		queries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tapehouse_engine_queries_total",
			Help: "Statements by outcome: ok, denied, error, cancelled, timeout."}, []string{"outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tapehouse_engine_query_seconds",
			Help: "Time from a statement's arrival until its rows were closed.", Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 14)}, []string{"outcome"}),
		pinned:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "tapehouse_engine_pinned_relations", Help: "Table states held by pins; equal ones count once."}),
		open:       prometheus.NewGauge(prometheus.GaugeOpts{Name: "tapehouse_engine_open_queries", Help: "Statements that run or whose rows are open."}),
		pinRetries: prometheus.NewCounter(prometheus.CounterOpts{Name: "tapehouse_engine_pin_retries_total", Help: "Pins that a commit overtook."}),
		rows:       prometheus.NewCounter(prometheus.CounterOpts{Name: "tapehouse_engine_rows_total", Help: "Rows returned."}),
	}
	// Series begin at 0, so that the first event is an increase.
	for _, o := range []string{"ok", "denied", "error", "cancelled", "timeout"} {
		m.queries.WithLabelValues(o)
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.queries, m.seconds, m.pinned, m.open, m.pinRetries, m.rows} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// outcome is the label of err; the set is closed.
func outcome(err error) string {
	var d *DeniedError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &d):
		return "denied"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	}
	return "error"
}

func (m *metrics) observe(start time.Time, err error) {
	o := outcome(err)
	m.queries.WithLabelValues(o).Inc()
	m.seconds.WithLabelValues(o).Observe(time.Since(start).Seconds())
}
