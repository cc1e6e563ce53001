package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/delivery"
	"github.com/tapehouse/tapehouse/internal/fsys"
)

const (
	// watchInterval is how often the streams' progress is noted, and so the
	// exactness of the ages.
	watchInterval = time.Second
	// marksMax bounds what is noted of one stream, each number. When it is
	// reached every second mark goes, and the next ones come half as often, so
	// that ages are exact to a thousandth of the oldest.
	marksMax = 2048
)

// age tells how long the oldest record beyond a moving bound has been waiting:
// it notes when the end of the log was first seen where.
type age struct {
	marks  []mark        // of ends beyond the bound, oldest first
	spread time.Duration // at least between two marks
}

type mark struct {
	end uint64
	at  time.Time
}

// observe takes the end of the log and the bound that follows it.
func (a *age) observe(now time.Time, end, bound uint64) {
	done := 0
	for done < len(a.marks) && a.marks[done].end <= bound {
		done++
	}
	a.marks = append(a.marks[:0], a.marks[done:]...)
	if len(a.marks) == 0 {
		a.spread = 0
	} else if last := a.marks[len(a.marks)-1]; last.end >= end || now.Sub(last.at) < a.spread {
		return
	}
	if end <= bound {
		return
	}
	if len(a.marks) == marksMax {
		kept := a.marks[:0]
		for i := 0; i < marksMax; i += 2 {
			kept = append(kept, a.marks[i]) // the oldest stays
		}
		a.marks, a.spread = kept, max(2*a.spread, 2*watchInterval)
	}
	a.marks = append(a.marks, mark{end, now})
}

// seconds is 0 where nothing waits.
func (a *age) seconds(now time.Time) float64 {
	if len(a.marks) == 0 {
		return 0
	}
	return max(now.Sub(a.marks[0].at).Seconds(), 0)
}

// progress watches how far the streams are, and is their metrics.
type progress struct {
	streams func() []*delivery.Stream

	mu  sync.Mutex
	now map[string]*streamProgress

	stop chan struct{}
	done sync.WaitGroup
}

type streamProgress struct {
	stats              delivery.Stats
	visible, committed age
	lanes              map[string]*age // by name
}

var (
	invisibleRecords = prometheus.NewDesc("tapehouse_stream_invisible_records", "Acknowledged records that a query would have to wait for.", []string{"stream"}, nil)
	invisibleSeconds = prometheus.NewDesc("tapehouse_stream_invisible_seconds", "Age of the oldest acknowledged record that a query would have to wait for.", []string{"stream"}, nil)
	waitingRecords   = prometheus.NewDesc("tapehouse_stream_undelivered_records", "Acknowledged records that are not in the destination yet.", []string{"stream"}, nil)
	laneRecords      = prometheus.NewDesc("tapehouse_stream_lane_undelivered_records", "Acknowledged records that one destination of the stream does not have yet: its table, objects, backup or errors.", []string{"stream", "lane"}, nil)
	laneFreshness    = prometheus.NewDesc("tapehouse_stream_lane_data_freshness_seconds", "Age of the oldest acknowledged record that one destination of the stream does not have yet.", []string{"stream", "lane"}, nil)
	freshness        = prometheus.NewDesc("tapehouse_stream_data_freshness_seconds", "DataFreshness: age of the oldest acknowledged record that is not in the destination yet.", []string{"stream"}, nil)
	// The same by destination, under CloudWatch's names.
	firehoseFreshness = map[string]*prometheus.Desc{
		delivery.RoleTable:   prometheus.NewDesc("tapehouse_firehose_delivery_to_iceberg_data_freshness_seconds", "DeliveryToIceberg.DataFreshness: age of the oldest acknowledged record that a table does not have yet.", []string{"delivery_stream"}, nil),
		delivery.RoleObjects: prometheus.NewDesc("tapehouse_firehose_delivery_to_s3_data_freshness_seconds", "DeliveryToS3.DataFreshness: age of the oldest acknowledged record that is not in an object yet.", []string{"delivery_stream"}, nil),
		delivery.RoleBackup:  prometheus.NewDesc("tapehouse_firehose_backup_to_s3_data_freshness_seconds", "BackupToS3.DataFreshness: age of the oldest acknowledged record that is not in the backup yet.", []string{"delivery_stream"}, nil),
	}
)

// newProgress begins to watch; the caller closes it.
func newProgress(streams func() []*delivery.Stream) *progress {
	p := &progress{streams: streams, now: map[string]*streamProgress{}, stop: make(chan struct{})}
	p.observe(time.Now())
	p.done.Go(func() {
		tick := time.NewTicker(watchInterval)
		defer tick.Stop()
		for {
			select {
			case <-p.stop:
				return
			case now := <-tick.C:
				p.observe(now)
			}
		}
	})
	return p
}

func (p *progress) close(context.Context) error {
	close(p.stop)
	p.done.Wait()
	return nil
}

func (p *progress) observe(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := make(map[string]*streamProgress, len(p.now))
	for _, s := range p.streams() {
		stats := s.Stats()
		name := string(stats.Stream)
		sp := p.now[name]
		// A stream created again begins anew: its numbers start at 0.
		if sp == nil || stats.Acknowledged < sp.stats.Acknowledged {
			sp = &streamProgress{lanes: map[string]*age{}}
		}
		sp.stats = stats
		sp.visible.observe(now, stats.Acknowledged, stats.Visible)
		sp.committed.observe(now, stats.Acknowledged, stats.Through)
		for _, l := range stats.Lanes {
			if sp.lanes[l.Name] == nil {
				sp.lanes[l.Name] = &age{}
			}
			sp.lanes[l.Name].observe(now, stats.Acknowledged, l.Through)
		}
		next[name] = sp
	}
	p.now = next
}

// Describe implements prometheus.Collector.
func (p *progress) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{invisibleRecords, invisibleSeconds, waitingRecords, freshness, laneRecords, laneFreshness} {
		out <- d
	}
	for _, d := range firehoseFreshness {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (p *progress) Collect(out chan<- prometheus.Metric) {
	now := time.Now()
	p.observe(now)
	p.mu.Lock()
	defer p.mu.Unlock()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	behind := func(end, bound uint64) float64 { return float64(end - min(end, bound)) }
	for name, s := range p.now {
		gauge(invisibleRecords, behind(s.stats.Acknowledged, s.stats.Visible), name)
		gauge(invisibleSeconds, s.visible.seconds(now), name)
		gauge(waitingRecords, behind(s.stats.Acknowledged, s.stats.Through), name)
		gauge(freshness, s.committed.seconds(now), name)
		oldest := map[string]float64{} // by role
		for _, l := range s.stats.Lanes {
			seconds := s.lanes[l.Name].seconds(now)
			gauge(laneRecords, behind(s.stats.Acknowledged, l.Through), name, l.Name)
			gauge(laneFreshness, seconds, name, l.Name)
			oldest[l.Role] = max(oldest[l.Role], seconds)
		}
		for role, seconds := range oldest {
			if d := firehoseFreshness[role]; d != nil {
				gauge(d, seconds, name)
			}
		}
	}
}

// registerMetrics registers the server's own metrics.
func (s *Server) registerMetrics() error {
	p := newProgress(s.delivery.Streams)
	s.onClose(p.close)
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "tapehouse", Subsystem: "server", Name: name, Help: help}, value)
	}
	for _, c := range []prometheus.Collector{p,
		gauge("ready", "1 while the server takes requests, 0 while it starts and stops.", func() float64 {
			if s.ready.Load() {
				return 1
			}
			return 0
		}),
		gauge("data_free_bytes", "Bytes that may still be written under the data directory.", func() float64 {
			free, err := fsys.OS.Free(s.cfg.Data)
			if err != nil {
				return -1 // cannot be told: an alert of its own
			}
			return float64(free)
		}),
		gauge("tls_expiry_timestamp_seconds", "When the TLS certificate ends, in Unix seconds; 0 without TLS.", func() float64 {
			if s.certificateEnds.IsZero() {
				return 0
			}
			return float64(s.certificateEnds.Unix())
		}),
	} {
		if err := s.metrics.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// endOf returns when the first certificate of a chain to end does.
func endOf(pair tls.Certificate) (end time.Time) {
	for _, der := range pair.Certificate {
		c, err := x509.ParseCertificate(der)
		if err == nil && (end.IsZero() || c.NotAfter.Before(end)) {
			end = c.NotAfter
		}
	}
	return end
}
