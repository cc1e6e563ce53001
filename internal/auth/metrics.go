package auth

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// storeMetrics tell whether the credentials file is in force.
type storeMetrics struct {
	reloads *prometheus.CounterVec
	valid   prometheus.Gauge
}

// newStoreMetrics registers with r, which may be nil.
func newStoreMetrics(r prometheus.Registerer, s *Store) (*storeMetrics, error) {
	m := &storeMetrics{
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tapehouse_auth_reloads_total",
			Help: "Changed credentials files by result: done, failed."}, []string{"result"}),
		valid: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tapehouse_auth_credentials_valid",
			Help: "1 while the credentials file is what is in force, 0 while it cannot be read or understood and the former one is."}),
	}
	m.valid.Set(1)
	for _, result := range []string{"done", "failed"} {
		m.reloads.WithLabelValues(result)
	}
	if r == nil {
		return m, nil
	}
	expiry := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tapehouse_auth_next_key_expiry_timestamp_seconds",
		Help: "When the next access key of a rotation ends, in Unix seconds; 0 if none does."}, func() float64 {
		var next time.Time
		for _, k := range s.Credentials().Keys {
			if !k.ExpiresAt.IsZero() && !k.Expired(time.Now()) && (next.IsZero() || k.ExpiresAt.Before(next)) {
				next = k.ExpiresAt
			}
		}
		if next.IsZero() {
			return 0
		}
		return float64(next.Unix())
	})
	stale := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tapehouse_auth_expiring_keys_in_use",
		Help: "Access keys that end within a day and were used within the last ten minutes: producers that have not changed over."}, func() float64 {
		now, n := time.Now(), 0
		for _, k := range s.Credentials().Keys {
			if !k.ExpiresAt.IsZero() && !k.Expired(now) && k.ExpiresAt.Sub(now) < 24*time.Hour && k.used != nil && now.Unix()-k.used.Load() < int64(quietMin/time.Second) {
				n++
			}
		}
		return float64(n)
	})
	for _, c := range []prometheus.Collector{m.reloads, m.valid, expiry, stale} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *storeMetrics) loaded() {
	m.reloads.WithLabelValues("done").Inc()
	m.valid.Set(1)
}

func (m *storeMetrics) failed() {
	m.reloads.WithLabelValues("failed").Inc()
	m.valid.Set(0)
}
