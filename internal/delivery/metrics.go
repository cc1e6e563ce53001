package delivery

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/record"
)

// metrics of all streams; the stream's name is a bounded label (streams are
// created by an administrator, not by records).
type metrics struct {
	records, bytes, rejects, conflicts, throttles *prometheus.CounterVec
	rows, objectBytes, failures                   *prometheus.CounterVec
	objectFailures, objectRecords, holds          *prometheus.CounterVec
	processings                                   *prometheus.CounterVec // by result
	flushSeconds                                  *prometheus.HistogramVec
	firehose                                      *cloudwatch
}

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "tapehouse", Subsystem: "delivery", Name: name, Help: help}, []string{"stream"})
		r.MustRegister(c)
		return c
	}
	m := &metrics{
		records:        counter("decoded_records_total", "Records decoded by puts; less the rejected ones they are SucceedConversion.Records."),
		bytes:          counter("decoded_bytes_total", "Bytes of JSON decoded by puts."),
		rejects:        counter("rejected_records_total", "FailedConversion.Records: records that do not fit the table's schema."),
		conflicts:      counter("conflicting_records_total", "Records whose key is known with other content."),
		throttles:      counter("throttled_puts_total", "Puts turned away because visibility lags behind the log."),
		rows:           counter("delivered_rows_total", "DeliveryTo….Records: rows delivered to the destination."),
		objectBytes:    counter("delivered_bytes_total", "DeliveryTo….Bytes: bytes of data files delivered to the destination."),
		failures:       counter("failed_flushes_total", "Flushes into tables that failed and are tried again."),
		objectFailures: counter("failed_object_flushes_total", "Flushes into objects (destination, backup, error output) that failed and are tried again."),
		objectRecords:  counter("failed_object_records_total", "Records that went to the error output of an object destination: not processed, not converted, without a partition."),
		holds:          counter("failed_processings_total", "Batches that could not be processed or logged, and are tried again: the stream stands meanwhile."),
		flushSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "tapehouse", Subsystem: "delivery", Name: "flush_seconds",
			Help: "Time of a delivery: copy, fsync, commit. The count is DeliveryTo….Success.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 14)}, []string{"stream"}),
	}
	m.processings = prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "tapehouse", Subsystem: "delivery", Name: "processed_records_total",
		Help: "Records that went through processing, by result: done, dropped, failed."}, []string{"stream", "result"})
	r.MustRegister(m.flushSeconds, m.processings)
	m.firehose = newCloudwatch(r)
	return m
}

func (m *metrics) counters() []*prometheus.CounterVec {
	return []*prometheus.CounterVec{m.records, m.bytes, m.rejects, m.conflicts, m.throttles, m.rows, m.objectBytes, m.failures, m.objectFailures, m.objectRecords, m.holds}
}

// open begins the series of a stream at 0, so that its first reject, conflict
// or failure is an increase.
func (m *metrics) open(cfg *Config, q Quota) {
	s := string(cfg.Name)
	for _, v := range m.counters() {
		v.WithLabelValues(s)
	}
	m.flushSeconds.WithLabelValues(s)
	m.processed(cfg.Name, 0, 0, 0)
	m.firehose.open(cfg, q)
}

// close ends the series of a deleted stream.
func (m *metrics) close(s record.StreamName) {
	labels := prometheus.Labels{"stream": string(s)}
	for _, v := range m.counters() {
		v.DeletePartialMatch(labels)
	}
	m.flushSeconds.DeletePartialMatch(labels)
	m.processings.DeletePartialMatch(labels)
	m.firehose.close(s)
}

func (m *metrics) decoded(s record.StreamName, records, bytes int) {
	m.records.WithLabelValues(string(s)).Add(float64(records))
	m.bytes.WithLabelValues(string(s)).Add(float64(bytes))
}

func (m *metrics) rejected(s record.StreamName, rejects int, conflict bool, count int) {
	m.rejects.WithLabelValues(string(s)).Add(float64(rejects))
	if conflict {
		m.conflicts.WithLabelValues(string(s)).Add(float64(count))
	}
}

func (m *metrics) processed(s record.StreamName, count, dropped, failed int) {
	m.processings.WithLabelValues(string(s), "dropped").Add(float64(dropped))
	m.processings.WithLabelValues(string(s), "failed").Add(float64(failed))
	m.processings.WithLabelValues(string(s), "done").Add(float64(max(count-dropped-failed, 0)))
}

func (m *metrics) throttled(s record.StreamName) { m.throttles.WithLabelValues(string(s)).Inc() }

func (m *metrics) delivered(s record.StreamName, rows, bytes int64, took time.Duration) {
	m.rows.WithLabelValues(string(s)).Add(float64(rows))
	m.objectBytes.WithLabelValues(string(s)).Add(float64(bytes))
	m.flushSeconds.WithLabelValues(string(s)).Observe(took.Seconds())
}

func (m *metrics) failedFlush(s record.StreamName) { m.failures.WithLabelValues(string(s)).Inc() }

func (m *metrics) failedObjects(s record.StreamName) {
	m.objectFailures.WithLabelValues(string(s)).Inc()
}

func (m *metrics) failedRecords(s record.StreamName, n int64) {
	m.objectRecords.WithLabelValues(string(s)).Add(float64(n))
}

// held counts a batch that is to be processed again.
func (m *metrics) held(s record.StreamName) { m.holds.WithLabelValues(string(s)).Inc() }
