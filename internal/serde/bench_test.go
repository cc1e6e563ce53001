package serde

import (
	"fmt"
	"io"
	"testing"
)

// BenchmarkWriter converts records of 15 members.
func BenchmarkWriter(b *testing.B) {
	c := converter(b, "sequence bigint; symbol string; mpid string; side string; price decimal(18,4); quantity int; leg int; match_number bigint; "+
		"executed_at timestamp; trade_date date; tape string; capacity string; fee_code string; source string; odd_lot boolean", openX)
	var records [][]byte
	var size int64
	for i := range 1000 {
		r := fmt.Appendf(nil, `{"sequence":%d,"symbol":"S%d","mpid":"M%d","side":"B","price":"%d.%04d","quantity":%d,"leg":1,"match_number":%d,"executed_at":"2026-11-23T10:00:%02d.%06dZ","trade_date":"2026-11-23","tape":"C","capacity":"A","fee_code":"R","source":"itch-1","odd_lot":false}`,
			i, i%100, i%10, 10+i%90, i, 100+i, 1_000_000+i, i%60, i*997)
		records = append(records, r)
		size += int64(len(r))
	}
	b.SetBytes(size)
	for b.Loop() {
		w, err := c.NewWriter(io.Discard, ParquetOptions{})
		if err != nil {
			b.Fatal(err)
		}
		for _, r := range records {
			if err := w.Append(r); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(records)), "ns/record")
}
