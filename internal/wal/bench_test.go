package wal

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/record"
)

// BenchmarkAppend is producers that each wait for their fsync, on a real disk.
// One op is one frame.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct{ producers, payload, records int }{
		{1, 300, 1}, {32, 300, 1}, {32, 20 << 10, 70}, {32, 160 << 10, 500},
	} {
		b.Run(fmt.Sprintf("producers=%d/bytes=%d", c.producers, c.payload), func(b *testing.B) {
			dir := filepath.Join(b.TempDir(), "log")
			l, err := Open(b.Context(), fsys.OS, dir, Options{Retention: -1, RetentionBytes: -1, ReserveBytes: -1})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close() //nolint:errcheck // a benchmark's
			payload := make([]byte, c.payload)
			var left atomic.Int64
			left.Store(int64(b.N))
			b.SetBytes(int64(c.payload))
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for i := range c.producers {
				k := testKey(i % 4)
				wg.Go(func() {
					for n := 0; left.Add(-1) >= 0; n++ {
						t, err := l.Enqueue(k, Entry{Count: uint32(c.records), Payload: payload})
						if err == nil {
							err = t.Wait(b.Context())
						}
						if err == nil && n%100 == 99 {
							err = l.Trim(b.Context(), map[record.Key]record.Offset{k: l.Synced(k)})
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			var m dto.Metric
			if err := l.met.fsyncSeconds.(prometheus.Metric).Write(&m); err != nil {
				b.Fatal(err)
			}
			fsyncs := float64(m.Histogram.GetSampleCount())
			b.ReportMetric(fsyncs/b.Elapsed().Seconds(), "fsyncs/s")
			b.ReportMetric(float64(b.N)/fsyncs, "frames/fsync")
			b.ReportMetric(m.Histogram.GetSampleSum()/fsyncs*1e6, "µs/fsync")
			b.ReportMetric(float64(b.N*c.records)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkRead is a pump that follows, through the page cache.
func BenchmarkRead(b *testing.B) {
	l, err := Open(b.Context(), fsys.OS, filepath.Join(b.TempDir(), "log"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a benchmark's
	const frames, size = 2000, 20 << 10
	for i := range frames {
		t, err := l.Enqueue(testKey(i%4), Entry{Count: 70, Payload: make([]byte, size)})
		if err != nil {
			b.Fatal(err)
		}
		if i == frames-1 {
			if err := t.Wait(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.SetBytes(frames / 4 * size)
	for b.Loop() {
		n := 0
		if err := l.Read(b.Context(), testKey(1), 0, func(Frame) error { n++; return nil }); err != nil || n != frames/4 {
			b.Fatal(n, err)
		}
	}
}
