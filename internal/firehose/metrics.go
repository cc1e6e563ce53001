package firehose

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/record"
)

// metrics are CloudWatch's AWS/Firehose metrics under Prometheus's naming:
// IncomingRecords is tapehouse_firehose_incoming_records_total. The label is
// a stream's name and appears only once the stream has taken a put.
type metrics struct {
	records, bytes, requests, throttled, failed *prometheus.CounterVec

	mu      sync.Mutex                                // writers of streams
	streams atomic.Pointer[map[string]*streamMetrics] // replaced, never changed
}

// streamMetrics are the resolved series of one stream, and its name, so that a
// put converts and looks up nothing.
type streamMetrics struct {
	name                                        record.StreamName
	records, bytes, requests, throttled, failed prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	vec := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tapehouse_firehose_" + name, Help: help}, []string{"delivery_stream"})
	}
	m := &metrics{
		records:   vec("incoming_records_total", "IncomingRecords: records acknowledged."),
		bytes:     vec("incoming_bytes_total", "IncomingBytes: bytes of data of the puts acknowledged."),
		requests:  vec("incoming_put_requests_total", "IncomingPutRequests: PutRecord and PutRecordBatch calls acknowledged, also in part."),
		throttled: vec("throttled_records_total", "ThrottledRecords: records refused because of back-pressure."),
		failed:    vec("failed_records_total", "Records of acknowledged batches that were not stored (FailedPutCount)."),
	}
	for _, c := range []prometheus.Collector{m.records, m.bytes, m.requests, m.throttled, m.failed} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	m.streams.Store(&map[string]*streamMetrics{})
	return m, nil
}

// find returns nil for a stream that has not taken a put.
func (m *metrics) find(name []byte) *streamMetrics { return (*m.streams.Load())[string(name)] }

func (m *metrics) add(name record.StreamName) *streamMetrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := *m.streams.Load()
	if s := old[string(name)]; s != nil {
		return s
	}
	label := string(name)
	s := &streamMetrics{name, m.records.WithLabelValues(label), m.bytes.WithLabelValues(label), m.requests.WithLabelValues(label),
		m.throttled.WithLabelValues(label), m.failed.WithLabelValues(label)}
	next := maps.Clone(old)
	next[label] = s
	m.streams.Store(&next)
	return s
}

// remove forgets a deleted stream, so that labels do not pile up.
func (m *metrics) remove(name record.StreamName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := *m.streams.Load()
	if old[string(name)] == nil {
		return
	}
	next := maps.Clone(old)
	delete(next, string(name))
	m.streams.Store(&next)
	for _, v := range []*prometheus.CounterVec{m.records, m.bytes, m.requests, m.throttled, m.failed} {
		v.DeleteLabelValues(string(name))
	}
}
