package market

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	seals       *prometheus.CounterVec
	sealSeconds prometheus.Histogram
	verifies    *prometheus.CounterVec
	failed      *prometheus.GaugeVec
	late        prometheus.Gauge
	deadline    *prometheus.GaugeVec
	misses      *prometheus.CounterVec
	webhooks    *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	const ns, sub = "tapehouse", "market"
	m := &metrics{
		seals: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "seals_total", Help: "Seals by result: sealed, existing, refused, error."}, []string{"result"}),
		sealSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: ns, Subsystem: sub, Name: "seal_seconds", Help: "Duration of a seal that was made.",
			Buckets: prometheus.ExponentialBuckets(0.25, 2, 12)}),
		verifies: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "verifications_total", Help: "Verifications by result: verified, mismatch, error."}, []string{"result"}),
		failed:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "failed_checks", Help: "Failed checks of the trade dates watched, by check."}, []string{"check"}),
		late:     prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "late_originals", Help: "Rows that arrived after the seal of their trade date, of the dates watched."}),
		deadline: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "deadline_trade_dates", Help: "Trade dates watched, by state: sealed, open, ready, predicted_miss, missed."}, []string{"state"}),
		misses:   prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "deadline_events_total", Help: "Deadline events by state: predicted_miss, missed, recovered."}, []string{"state"}),
		webhooks: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "webhook_posts_total", Help: "Webhook posts by result: done, failed."}, []string{"result"}),
	}
	// Series begin at 0, so that the first event is an increase.
	for vec, results := range map[*prometheus.CounterVec][]string{
		m.seals: {"sealed", "existing", "refused", "error"}, m.verifies: {"verified", "mismatch", "error"},
		m.misses: {"predicted_miss", "missed", "recovered"}, m.webhooks: {"done", "failed"},
	} {
		for _, result := range results {
			vec.WithLabelValues(result)
		}
	}
	for _, state := range []string{"sealed", "open", "ready", "predicted_miss", "missed"} {
		m.deadline.WithLabelValues(state)
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.seals, m.sealSeconds, m.verifies, m.failed, m.late, m.deadline, m.misses, m.webhooks} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
