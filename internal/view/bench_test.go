package view

import (
	"flag"
	"fmt"
	"testing"
)

var benchRows = flag.Int("base-rows", 2_000_000, "rows of the base table in BenchmarkRefresh")

// BenchmarkRefresh measures a refresh after 1 % more rows against computing the
// state anew. Both end in a durable commit.
func BenchmarkRefresh(b *testing.B) {
	const files = 8
	base := *benchRows
	w := newWorld(b)
	rows := func(seed, n int) string {
		return fmt.Sprintf(`SELECT DATE '2026-11-23' + CAST(i %% 2 AS INTEGER) AS trade_date, 'S' || (hash(i + %[1]d) %% 4000) AS symbol, 'M' || (hash(i * 3 + %[1]d) %% 500) AS mpid,
			CAST(hash(i + 7 * %[1]d) %% 9000000 + 10000 AS DECIMAL(18,0)) * 0.0001 AS price, CAST(hash(i + 1) %% 1000 AS INTEGER) AS qty, CAST(1.25 AS DECIMAL(9,2)) AS fee,
			0.5 AS ratio, TIMESTAMPTZ '2026-11-23 14:30:00+00' AS ts FROM range(%[2]d) t(i)`, seed, n)
	}
	for i := range files {
		w.add(trades, rows(i, base/files))
	}
	d := w.createView("v", `SELECT trade_date, mpid, count(*) AS legs, sum(qty) AS shares, sum(CAST(qty AS DECIMAL(19,0)) * price) AS notional, avg(price) AS ap FROM eq.trades GROUP BY trade_date, mpid`)
	b.Run("delta", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			b.StopTimer()
			w.add(trades, rows(100+i, base/100))
			b.StartTimer()
			if r := w.refresh(d); r.Outcome != Incremental {
				b.Fatalf("%+v", r)
			}
		}
	})
	b.Run("recompute", func(b *testing.B) {
		for b.Loop() {
			if _, err := w.views.Rebuild(b.Context(), d.Name); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		w.addTail(trades, rows(99, 1000))
		for b.Loop() {
			pin := w.pinView(d)
			if _, err := w.readAt(d, pin); err != nil {
				b.Fatal(err)
			}
			pin.Release()
		}
	})
}
