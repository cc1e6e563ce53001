package awsapi

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/auth"
)

type metrics struct {
	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	refused   prometheus.Counter
	inFlight  prometheus.GaugeFunc
	byService map[string]*serviceMetrics
}

// serviceMetrics holds the resolved series of the operations, so that the hot
// path looks up no labels.
type serviceMetrics struct {
	accepted map[string]prometheus.Counter
	seconds  map[string]prometheus.Observer
}

func newMetrics(r prometheus.Registerer, inFlight func() int64) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tapehouse_aws_requests_total",
			Help: "AWS API requests by service, operation and answer (OK or the error's code).",
		}, []string{"service", "operation", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tapehouse_aws_request_duration_seconds",
			Help:    "Time from the authorization header to the answer, including the wait for durability.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 10},
		}, []string{"service", "operation"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tapehouse_aws_requests_refused_total",
			Help: "Requests refused with \"Slow down.\" because the bound on bytes in flight was reached.",
		}),
		inFlight: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tapehouse_aws_in_flight_bytes",
			Help: "Bytes reserved for the bodies of requests that are not answered yet.",
		}, func() float64 { return float64(inFlight()) }),
		byService: map[string]*serviceMetrics{},
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.refused, m.inFlight} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) add(service string, operations map[string]Operation) {
	s := &serviceMetrics{map[string]prometheus.Counter{}, map[string]prometheus.Observer{}}
	// Series that somebody may be woken by begin at 0, so that the first event
	// is an increase.
	for _, code := range []string{auth.CodeMissingToken, auth.CodeIncompleteSignature, auth.CodeUnrecognizedClient, auth.CodeInvalidSignature} {
		m.requests.WithLabelValues(service, "", code)
	}
	for name := range operations {
		for _, code := range []string{CodeAccessDenied, CodeInternalFailure, CodeServiceUnavailable} {
			m.requests.WithLabelValues(service, name, code)
		}
		s.accepted[name] = m.requests.WithLabelValues(service, name, "OK")
		s.seconds[name] = m.seconds.WithLabelValues(service, name)
	}
	m.byService[service] = s
}

// observe counts one answer. Service and operation are "" where the request
// did not name one that is served: labels never come from strangers.
func (m *metrics) observe(service, operation string, e *Error, took time.Duration) {
	s := m.byService[service]
	if s == nil || operation == "" {
		m.requests.WithLabelValues(service, "", e.Code).Inc()
		return
	}
	s.seconds[operation].Observe(took.Seconds())
	if e == nil {
		s.accepted[operation].Inc()
		return
	}
	m.requests.WithLabelValues(service, operation, e.Code).Inc()
}
