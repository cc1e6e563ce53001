package view

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	refreshes *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	rows      *prometheus.CounterVec
	folds     prometheus.Counter
	reads     *prometheus.CounterVec
	deferred  prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		refreshes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tapehouse_view_refreshes_total",
			Help: "Refreshes of materialized views by outcome: up_to_date, incremental, recomputed, failed."}, []string{"outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tapehouse_view_refresh_seconds",
			Help: "Time of a refresh: delta, computation, durable commit.", Buckets: prometheus.ExponentialBuckets(0.002, 2.5, 14)}, []string{"outcome"}),
		rows: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tapehouse_view_rows_total",
			Help: "Rows that refreshes read from base tables (delta) and wrote to states (state)."}, []string{"of"}),
		folds: prometheus.NewCounter(prometheus.CounterOpts{Name: "tapehouse_view_folds_total", Help: "Times that partial rows were merged."}),
		reads: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tapehouse_view_reads_total",
			Help: "Statements bound to a view: from its state, or without it because a table had changed."}, []string{"mode", "state"}),
		deferred: prometheus.NewCounter(prometheus.CounterOpts{Name: "tapehouse_view_deferred_total", Help: "Automatic refreshes put off for ingestion."}),
	}
	// Series begin at 0, so that the first event is an increase.
	for _, outcome := range []string{"up_to_date", "incremental", "recomputed", "failed"} {
		m.refreshes.WithLabelValues(outcome)
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.refreshes, m.seconds, m.rows, m.folds, m.reads, m.deferred} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register view metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) read(of mode, reason string) {
	state := "used"
	if reason != "" {
		state = "left_out"
	}
	m.reads.WithLabelValues(string(of), state).Inc()
}

func (m *metrics) refreshed(r Result, err error, seconds float64) {
	outcome := "failed"
	if err == nil {
		outcome = r.Outcome.String()
		m.rows.WithLabelValues("delta").Add(float64(r.DeltaRows))
		m.rows.WithLabelValues("state").Add(float64(r.StateRows))
	}
	m.refreshes.WithLabelValues(outcome).Inc()
	m.seconds.WithLabelValues(outcome).Observe(seconds)
}
