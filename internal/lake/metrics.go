package lake

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type s3Metrics struct {
	attempts  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	recovered prometheus.Counter
}

func newS3Metrics(r prometheus.Registerer) *s3Metrics {
	m := &s3Metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "tapehouse", Subsystem: "lake", Name: "s3_attempts_total",
			Help: "Attempts of requests to S3, by operation and result: ok, retry, refused.",
		}, []string{"operation", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "tapehouse", Subsystem: "lake", Name: "s3_attempt_seconds",
			Help:    "Duration of an attempt, from its start to the last byte of the answer.",
			Buckets: prometheus.ExponentialBuckets(0.002, 2, 14),
		}, []string{"operation"}),
		recovered: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "tapehouse", Subsystem: "lake", Name: "s3_puts_recovered_total",
			Help: "Puts that had been carried out although their answer was lost.",
		}),
	}
	if r != nil {
		r.MustRegister(m.attempts, m.seconds, m.recovered)
	}
	return m
}

func (m *s3Metrics) attempted(operation string, took time.Duration, err error) {
	result := "ok"
	switch {
	case err == nil:
	case retryable(err):
		result = "retry"
	default:
		result = "refused"
	}
	m.attempts.WithLabelValues(operation, result).Inc()
	m.seconds.WithLabelValues(operation).Observe(took.Seconds())
}

type cacheMetrics struct {
	lookups      *prometheus.CounterVec
	fetchedBytes prometheus.Counter
	evictions    prometheus.Counter
	usedBytes    prometheus.Gauge
}

func newCacheMetrics(r prometheus.Registerer) *cacheMetrics {
	m := &cacheMetrics{
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "tapehouse", Subsystem: "lake", Name: "cache_lookups_total",
			Help: "Objects that queries asked for, by result: hit, miss.",
		}, []string{"result"}),
		fetchedBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "tapehouse", Subsystem: "lake", Name: "cache_fetched_bytes_total",
			Help: "Bytes of objects fetched into the cache.",
		}),
		evictions: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "tapehouse", Subsystem: "lake", Name: "cache_evictions_total",
			Help: "Copies removed to make room.",
		}),
		usedBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "tapehouse", Subsystem: "lake", Name: "cache_used_bytes",
			Help: "Bytes of local copies, those being fetched included.",
		}),
	}
	if r != nil {
		r.MustRegister(m.lookups, m.fetchedBytes, m.evictions, m.usedBytes)
	}
	return m
}

func (m *cacheMetrics) held(hits, misses int, usedBytes int64) {
	m.lookups.WithLabelValues("hit").Add(float64(hits))
	m.lookups.WithLabelValues("miss").Add(float64(misses))
	m.usedBytes.Set(float64(usedBytes))
}
