package catalog

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	commits       *prometheus.CounterVec
	commitSeconds prometheus.Histogram
	unknown       prometheus.Counter
	repeated      prometheus.Counter
	rebuilt       prometheus.Counter
	manifestsRead prometheus.Counter
	filesDeleted  prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		commits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "tapehouse", Subsystem: "catalog", Name: "commits_total",
			Help: "Commits by result: done, conflict, fenced, error.",
		}, []string{"result"}),
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "tapehouse", Subsystem: "catalog", Name: "commit_seconds",
			Help:    "Duration of a commit, from its call to its answer.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		unknown: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "tapehouse", Subsystem: "catalog", Name: "unknown_outcomes_total",
			Help: "Transactions whose outcome had to be looked up.",
		}),
		repeated: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "tapehouse", Subsystem: "catalog", Name: "transactions_repeated_total",
			Help: "Transactions that were certainly not done and were repeated: a lost connection, a server that restarts, a deadlock.",
		}),
		rebuilt: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "tapehouse", Subsystem: "catalog", Name: "commits_rebuilt_total",
			Help: "Commits that were built again, because another server or program had committed to the table meanwhile.",
		}),
		manifestsRead: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "tapehouse", Subsystem: "catalog", Name: "manifests_read_total",
			Help: "Manifests decoded, that is not found in the cache.",
		}),
		filesDeleted: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "tapehouse", Subsystem: "catalog", Name: "files_deleted_total",
			Help: "Files deleted after expiry, drop or as orphans.",
		}),
	}
	// Series begin at 0, so that the first event is an increase.
	for _, result := range []string{"done", "conflict", "fenced", "error"} {
		m.commits.WithLabelValues(result)
	}
	if r != nil {
		r.MustRegister(m.commits, m.commitSeconds, m.unknown, m.repeated, m.rebuilt, m.manifestsRead, m.filesDeleted)
	}
	return m
}

func (m *metrics) committed(start time.Time, err error) {
	result := "done"
	switch {
	case errors.Is(err, ErrConflict):
		result = "conflict"
	case errors.Is(err, ErrFenced):
		result = "fenced"
	case err != nil:
		result = "error"
	}
	m.commits.WithLabelValues(result).Inc()
	m.commitSeconds.Observe(time.Since(start).Seconds())
}
