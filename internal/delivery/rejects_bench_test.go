package delivery

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/ledger"
	"github.com/tapehouse/tapehouse/internal/wal"
)

// BenchmarkPut measures a record's whole way: put, log, tail, flush; good
// records, and records of which each is rejected.
//
//	go test -run - -bench Put -benchtime 2000000x ./internal/delivery
func BenchmarkPut(b *testing.B) {
	for _, kind := range []struct {
		name string
		doc  func(seq int64) string
	}{
		{"good", func(seq int64) string { return doc(seq, int(seq%1000)) }},
		{"rejected", func(seq int64) string {
			return fmt.Sprintf(`{"source":"A","session":"1","epoch":0,"seq":%d,"price":"x"}`, seq)
		}},
		{"no_json", func(seq int64) string {
			return fmt.Sprintf(`"source":"A","session":"1","epoch":0,"seq":%d,"price":"x"}`, seq)
		}},
	} {
		b.Run(kind.name, func(b *testing.B) {
			benchmarkPut(b, Config{Namespace: "n", Table: "t", SizeBytes: 128 << 20, Interval: 5 * time.Second}, kind.doc)
		})
	}
}

// BenchmarkPutProcessed does the same through a stage into objects, which takes
// every record, or fails it.
func BenchmarkPutProcessed(b *testing.B) {
	for _, kind := range []string{"good", "failed"} {
		b.Run(kind, func(b *testing.B) {
			c := &ObjectConfig{SizeBytes: 128 << 20, Interval: 5 * time.Second, Target: json.RawMessage(`{"bucket":"","prefix":"p/"}`)}
			benchmarkPut(b, Config{Objects: c, Processing: json.RawMessage(`"` + kind + `"`)}, func(seq int64) string { return doc(seq, int(seq%1000)) })
		})
	}
}

// failing is a processor that fails every record.
type failing struct{ identity }

func (failing) Process(_ context.Context, records []SourceRecord) ([][]Outcome, error) {
	out := make([][]Outcome, len(records))
	for i := range out {
		out[i] = []Outcome{{Kind: Failed, Code: "Lambda.FunctionError", Message: "it broke"}}
	}
	return out, nil
}

// discarding is a table that keeps its progress only.
type discarding struct{ dest }

func (d discarding) Deliver(ctx context.Context, dl Delivery) error {
	dl.Parts = nil
	return d.dest.Deliver(ctx, dl)
}

func benchmarkPut(b *testing.B, cfg Config, doc func(int64) string) {
	ctx, fs, dir, w := b.Context(), fsys.OS, b.TempDir(), newWorld()
	log, err := wal.Open(ctx, fs, dir+"/log", wal.Options{SegmentBytes: 64 << 20, Retention: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	led, err := ledger.Open(fs, LedgerCheckpoint(dir), ledger.Options{})
	if err != nil {
		b.Fatal(err)
	}
	errs, err := lake.OpenLocal(fs, dir+"/lake")
	if err != nil {
		b.Fatal(err)
	}
	m, err := Open(ctx, Options{
		FS: fs, Dir: dir, Log: log, Ledger: led, Documents: w, Errors: errs,
		Destination: func(_ Config, n catalog.Name) (Destination, error) { return discarding{dest{w.of(n), fs}}, nil },
		Objects: func(Config, string) (ObjectDestination, error) {
			return &Prefix{Stream: "s", FS: fs, Staging: dir, Bucket: func(string) (lake.Store, error) { return errs, nil }}, nil
		},
		Processor: func(_ context.Context, c Config) (Processor, error) {
			if string(c.Processing) == `"failed"` {
				return failing{}, nil
			}
			return identity{}, nil
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close(context.Background())
	cfg.Name = "s"
	if _, err := m.Create(ctx, cfg); err != nil {
		b.Fatal(err)
	}
	s, err := m.Stream("s")
	if err != nil {
		b.Fatal(err)
	}
	const each, producers = 500, 4
	var next atomic.Int64
	var slowest atomic.Int64
	var failed atomic.Int64
	b.ResetTimer()
	var wg sync.WaitGroup
	for range producers {
		wg.Go(func() {
			for {
				from := next.Add(each) - each
				if from >= int64(b.N) {
					return
				}
				docs := make([]string, each)
				for i := range docs {
					docs[i] = doc(from + int64(i))
				}
				put := docsOf(docs...)
				for {
					started := time.Now()
					_, err := s.Put(ctx, put)
					slowest.Store(max(slowest.Load(), int64(time.Since(started))))
					if err == nil {
						break
					}
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(time.Duration(slowest.Load()).Seconds(), "s/slowest-put")
	b.ReportMetric(float64(failed.Load()), "refused-puts")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/acknowledged")
	if err := m.Flush(ctx); err != nil {
		b.Fatal(err)
	}
}
