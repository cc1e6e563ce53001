package crawler

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
)

// benchTree makes objects in partitions: Parquet, CSV, gzipped CSV and NDJSON by turns
// of tables.
func benchTree(b testing.TB, partitions, each int, put func(name, data string)) {
	parquetData := parquetFile(b, 100, arrow.Field{Name: "id", Type: arrow.PrimitiveTypes.Int64}, arrow.Field{Name: "price", Type: &arrow.Decimal128Type{Precision: 18, Scale: 4}},
		arrow.Field{Name: "symbol", Type: arrow.BinaryTypes.String}, arrow.Field{Name: "at", Type: arrow.FixedWidthTypes.Timestamp_us})
	var csvData, jsonData strings.Builder
	csvData.WriteString("id,symbol,price,at\n")
	for i := range 100 {
		fmt.Fprintf(&csvData, "%d,AAPL,%d.25,2026-11-25 09:30:%02d\n", i, 100+i, i%60)
		fmt.Fprintf(&jsonData, `{"id":%d,"symbol":"AAPL","price":%d.25,"at":"2026-11-25T09:30:%02dZ"}`+"\n", i, 100+i, i%60)
	}
	kinds := []struct{ table, ext, data string }{
		{"parquet", ".parquet", parquetData}, {"csv", ".csv", csvData.String()}, {"gz", ".csv.gz", compressed(b, gzipC, csvData.String())}, {"json", ".json", jsonData.String()},
	}
	for p := range partitions {
		k := kinds[p%len(kinds)]
		for i := range each {
			put(fmt.Sprintf("%s/trade_date=%05d/part-%05d%s", k.table, p, i, k.ext), k.data)
		}
	}
}

// heapMax samples the live heap while fn runs.
func heapMax(fn func()) uint64 {
	done := make(chan struct{})
	result := make(chan uint64)
	go func() {
		var most uint64
		var s runtime.MemStats
		for {
			runtime.ReadMemStats(&s)
			most = max(most, s.HeapInuse)
			select {
			case <-done:
				result <- most
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	fn()
	close(done)
	return <-result
}

// BenchmarkCrawl crawls 100,000 objects in 1,000 partitions, the first time and again.
// TAPEHOUSE_BENCH_OBJECTS changes the number for each partition, 100.
func BenchmarkCrawl(b *testing.B) {
	each := 100
	if s := os.Getenv("TAPEHOUSE_BENCH_OBJECTS"); s != "" {
		if _, err := fmt.Sscan(s, &each); err != nil {
			b.Fatal(err)
		}
	}
	const partitions = 1_000
	b.Run("memory", func(b *testing.B) {
		w := newWorld(b)
		benchTree(b, partitions, each, w.bucket.put)
		w.define(Definition{})
		benchCrawls(b, w.m, partitions*each)
	})
	b.Run("disk", func(b *testing.B) {
		dir := b.TempDir()
		cat, m, source := dirWorld(b, dir, Options{Settle: time.Nanosecond})
		made := ""
		benchTree(b, partitions, each, func(name, data string) {
			path := filepath.Join(dir, "data", name)
			if folder := filepath.Dir(path); folder != made {
				must(b, os.MkdirAll(folder, 0o755))
				made = folder
			}
			must(b, os.WriteFile(path, []byte(data), 0o644))
		})
		must(b, m.Create(context.Background(), Definition{Name: "c", Database: "files", Targets: []Target{{Path: "file:///lake/"}}}))
		benchCrawls(b, m, partitions*each)
		must(b, errors.Join(m.Close(), cat.Close(), source.Close()))
	})
}

func benchCrawls(b *testing.B, m *Manager, objects int) {
	crawl := func() (*Report, time.Duration) {
		began := time.Now()
		r, err := m.Run(context.Background(), "c")
		must(b, err)
		return r, time.Since(began)
	}
	var r *Report
	var first time.Duration
	heap := heapMax(func() { r, first = crawl() })
	if r.Totals.Examined != int64(objects) || len(r.Tables) != 4 {
		b.Fatalf("%+v, %d tables", r.Totals, len(r.Tables))
	}
	for b.Loop() {
		var again time.Duration
		if r, again = crawl(); r.Totals.Examined != 0 || r.Tables[0].Action != ActionNone {
			b.Fatalf("%+v", r)
		}
		b.ReportMetric(again.Seconds(), "again-s")
	}
	b.ReportMetric(first.Seconds(), "first-s")
	b.ReportMetric(float64(heap)/(1<<20), "heap-MiB")
}
