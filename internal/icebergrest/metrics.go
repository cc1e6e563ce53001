package icebergrest

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	reports  *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer, inFlight func() int64) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tapehouse_iceberg_requests_total",
			Help: "Iceberg REST requests by operation and answer (OK or the error's type).",
		}, []string{"operation", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tapehouse_iceberg_request_duration_seconds",
			Help:    "Time from the request's headers to its answer.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 10, 60},
		}, []string{"operation"}),
		reports: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tapehouse_iceberg_reports_total",
			Help: "Reports of scans and commits that clients sent, by kind.",
		}, []string{"kind"}),
	}
	for _, o := range operations {
		m.requests.WithLabelValues(o.name, codeOK)
		for _, kind := range kinds {
			m.requests.WithLabelValues(o.name, kind)
		}
	}
	m.requests.WithLabelValues("", typeNotAuthorized) // of requests whose principal is not known
	for _, kind := range []string{reportScan, reportCommit, reportOther} {
		m.reports.WithLabelValues(kind)
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.reports, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tapehouse_iceberg_in_flight_bytes",
		Help: "Bytes reserved for the bodies of Iceberg REST requests that are not answered yet.",
	}, func() float64 { return float64(inFlight()) })} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

const codeOK = "OK"

// observe counts one answer. The operation is "" where none was named that is
// served: labels never come from strangers.
func (m *metrics) observe(operation string, e *apiError, took time.Duration) {
	code := codeOK
	if e != nil {
		code = e.kind
	}
	m.requests.WithLabelValues(operation, code).Inc()
	if operation != "" {
		m.seconds.WithLabelValues(operation).Observe(took.Seconds())
	}
}
