package wal

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	appendedBytes prometheus.Counter
	movedBytes    prometheus.Counter
	recycled      prometheus.Counter
	refused       *prometheus.CounterVec // by reason: queue, disk
	fsyncSeconds  prometheus.Histogram
	groupFrames   prometheus.Histogram
}

// newMetrics registers the log's metrics with reg, which may be nil. The gauges
// read the log when they are scraped.
func newMetrics(reg prometheus.Registerer, l *Log) (*metrics, []prometheus.Collector, error) {
	m := &metrics{
		appendedBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tapehouse_wal_appended_bytes_total", Help: "Bytes written to the log, headers and padding included."}),
		movedBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tapehouse_wal_moved_bytes_total", Help: "Bytes of frames rewritten forward because their stream stands still."}),
		recycled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tapehouse_wal_segments_recycled_total", Help: "Segments that were trimmed and left the log."}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tapehouse_wal_refused_total", Help: "Frames refused because the queue or the disk was full."}, []string{"reason"}),
		fsyncSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tapehouse_wal_fsync_seconds", Help: "Time to write and fsync one group.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 15)}),
		groupFrames: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tapehouse_wal_group_frames", Help: "Frames made durable by one fsync.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 14)}),
	}
	// Series begin at 0, so that the first event is an increase.
	for _, reason := range []string{"queue", "disk"} {
		m.refused.WithLabelValues(reason)
	}
	gauge := func(name, help string, value func(Stats) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help},
			func() float64 { return value(l.Stats()) })
	}
	flag := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	all := []prometheus.Collector{m.appendedBytes, m.movedBytes, m.recycled, m.refused, m.fsyncSeconds, m.groupFrames,
		gauge("tapehouse_wal_segments", "Segments in the log.", func(s Stats) float64 { return float64(s.Segments) }),
		gauge("tapehouse_wal_bytes", "Bytes on disk taken by segments and spares.", func(s Stats) float64 { return float64(s.DiskBytes) }),
		gauge("tapehouse_wal_untrimmed_bytes", "Bytes of frames above their trim point.", func(s Stats) float64 { return float64(s.UntrimmedBytes) }),
		gauge("tapehouse_wal_oldest_segment", "Number of the oldest segment.", func(s Stats) float64 { return float64(s.OldestSegment) }),
		gauge("tapehouse_wal_newest_segment", "Number of the newest segment.", func(s Stats) float64 { return float64(s.NewestSegment) }),
		gauge("tapehouse_wal_queue_bytes", "Bytes waiting for their fsync.", func(s Stats) float64 { return float64(s.QueueBytes) }),
		gauge("tapehouse_wal_keys", "Keys that the log knows.", func(s Stats) float64 { return float64(s.Keys) }),
		gauge("tapehouse_wal_disk_full", "1 while the next segment has no room.", func(s Stats) float64 { return flag(s.DiskFull) }),
		gauge("tapehouse_wal_poisoned", "1 after a failed write, until restart.", func(s Stats) float64 { return flag(s.Poisoned) }),
	}
	if reg == nil {
		return m, nil, nil
	}
	for i, c := range all {
		if err := reg.Register(c); err != nil {
			for _, done := range all[:i] {
				reg.Unregister(done)
			}
			return nil, nil, err
		}
	}
	return m, all, nil
}
