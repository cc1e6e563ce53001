package transform

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/record"
)

// Metrics are those of all transformers. The stream's name is a bounded label:
// streams are created by an administrator, not by records.
type Metrics struct {
	records *prometheus.CounterVec   // stream, result
	bytes   *prometheus.CounterVec   // stream
	calls   *prometheus.CounterVec   // stream, outcome
	seconds *prometheus.HistogramVec // stream
	strays  *prometheus.CounterVec   // stream
	// The same under CloudWatch's names: ExecuteProcessing.Success as two counters.
	attempts, successes *prometheus.CounterVec
	durations           *prometheus.SummaryVec
}

// NewMetrics registers the metrics. Every transformer of the process shares
// them. r may be nil.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "tapehouse", Subsystem: "transform", Name: name, Help: help}, append([]string{"stream"}, labels...))
	}
	m := &Metrics{
		records: counter("records_total", "Records by what became of them: ok, dropped, failed.", "result"),
		bytes:   counter("bytes_total", "Bytes of the documents that came out."),
		calls:   counter("calls_total", "Calls of a function and runs of a statement: ok, or error, which a function's retries follow.", "outcome"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "tapehouse", Subsystem: "transform", Name: "seconds",
			Help: "Time of one call or run.", Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 15)}, []string{"stream"}),
		strays: counter("unknown_records_total", "Elements of answers that named no record of the call; they are ignored."),
	}
	firehose := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "tapehouse", Subsystem: "firehose", Name: name, Help: help}, []string{"delivery_stream"})
	}
	m.attempts = firehose("execute_processing_attempts_total", "Calls of a transform; ExecuteProcessing.Success is successes by attempts.")
	m.successes = firehose("execute_processing_success_total", "ExecuteProcessing.Success: calls of a transform that succeeded.")
	m.durations = prometheus.NewSummaryVec(prometheus.SummaryOpts{Namespace: "tapehouse", Subsystem: "firehose", Name: "execute_processing_duration_seconds",
		Help: "ExecuteProcessing.Duration: time of the calls of a transform, sum and count."}, []string{"delivery_stream"})
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.records, m.bytes, m.calls, m.seconds, m.strays, m.attempts, m.successes, m.durations} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// open begins the series of a stream's calls at 0.
func (m *Metrics) open(s record.StreamName) {
	if m == nil {
		return
	}
	for _, outcome := range []string{"ok", "error"} {
		m.calls.WithLabelValues(string(s), outcome)
	}
	m.attempts.WithLabelValues(string(s))
	m.successes.WithLabelValues(string(s))
	m.durations.WithLabelValues(string(s))
}

// called counts one call or run.
func (m *Metrics) called(s record.StreamName, start time.Time, ok bool) {
	if m == nil {
		return
	}
	outcome := "ok"
	if !ok {
		outcome = "error"
	}
	took := time.Since(start).Seconds()
	m.calls.WithLabelValues(string(s), outcome).Inc()
	m.seconds.WithLabelValues(string(s)).Observe(took)
	m.attempts.WithLabelValues(string(s)).Inc()
	m.durations.WithLabelValues(string(s)).Observe(took)
	if ok {
		m.successes.WithLabelValues(string(s)).Inc()
	}
}

// stray counts elements of an answer that belong to no record.
func (m *Metrics) stray(s record.StreamName, n int) {
	if m != nil && n > 0 {
		m.strays.WithLabelValues(string(s)).Add(float64(n))
	}
}

// done counts the results of an Apply.
func (m *Metrics) done(s record.StreamName, results []Result) {
	if m == nil {
		return
	}
	var n [3]int
	size := 0
	for i := range results {
		n[results[i].Kind]++
		size += len(results[i].Data)
	}
	for kind, word := range []string{Ok: "ok", Dropped: "dropped", Failed: "failed"} {
		m.records.WithLabelValues(string(s), word).Add(float64(n[kind]))
	}
	m.bytes.WithLabelValues(string(s)).Add(float64(size))
}
