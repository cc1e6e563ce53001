package crawler

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	crawls  *prometheus.CounterVec
	seconds prometheus.Histogram
	files   *prometheus.CounterVec
	skipped prometheus.Counter
	changes *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	const ns, sub = "tapehouse", "crawler"
	m := &metrics{
		crawls: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "crawls_total", Help: "Crawls by result: succeeded, cancelled, failed."}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: ns, Subsystem: sub, Name: "crawl_seconds", Help: "Duration of a crawl.",
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 8)}),
		files:   prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "files_total", Help: "Files by how they were known: read, remembered."}, []string{"by"}),
		skipped: prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "skipped_files_total", Help: "Files that crawls passed over, with a reason in their reports."}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "changes_total", Help: "Changes by kind: table, partition."}, []string{"kind"}),
	}
	// Series begin at 0, so that the first event is an increase.
	for _, result := range []string{"succeeded", "cancelled", "failed"} {
		m.crawls.WithLabelValues(result)
	}
	for _, by := range []string{"read", "remembered"} {
		m.files.WithLabelValues(by)
	}
	for _, kind := range []string{"table", "partition"} {
		m.changes.WithLabelValues(kind)
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.crawls, m.seconds, m.files, m.skipped, m.changes} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) crawled(c *Crawl, r *Report) {
	result := map[string]string{CrawlSucceeded: "succeeded", CrawlCancelled: "cancelled", CrawlFailed: "failed"}[c.State]
	m.crawls.WithLabelValues(result).Inc()
	m.seconds.Observe(c.EndedAt.Sub(c.StartedAt).Seconds())
	if r != nil {
		m.files.WithLabelValues("read").Add(float64(r.Totals.Examined))
		m.files.WithLabelValues("remembered").Add(float64(r.Totals.Reused))
	}
	s := &c.Summary
	m.skipped.Add(float64(s.Skipped))
	m.changes.WithLabelValues("table").Add(float64(s.TablesAdded.Count + s.TablesUpdated.Count + s.TablesDeleted.Count))
	m.changes.WithLabelValues("partition").Add(float64(s.PartitionsAdded + s.PartitionsUpdated + s.PartitionsDeleted))
}
