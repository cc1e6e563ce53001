package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// manyFiles is a relation of n small files, copies of one.
func manyFiles(b *testing.B, e *Engine, dir string, n int) Relation {
	b.Helper()
	first := writeTrades(b, e, filepath.Join(dir, "0.parquet"), 0, 1000)
	data, err := os.ReadFile(first.Path)
	if err != nil {
		b.Fatal(err)
	}
	files := []File{first}
	for i := 1; i < n; i++ {
		p := filepath.Join(dir, fmt.Sprintf("%d.parquet", i))
		if err := os.WriteFile(p, data, 0o644); err != nil {
			b.Fatal(err)
		}
		files = append(files, File{Path: p, Rows: first.Rows})
	}
	return Relation{Schema: trades, Files: files}
}

// BenchmarkBind measures, for 10, 100 and 1000 files: new = everything before
// DuckDB plans, of a known statement over a new state (the files, or a view that
// is made for them, are put into the kept text); plan = Describe
// of a state and statement that are known; query = a count with a filter.
func BenchmarkBind(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		e, dir := newEngine(b)
		rel := manyFiles(b, e, dir, n)
		s := newSession(b, e)
		const sql = `SELECT count(*) FROM equities.executions WHERE id < 0`
		b.Run(fmt.Sprintf("new/files=%d", n), func(b *testing.B) {
			c, err := e.acquire()
			if err != nil {
				b.Fatal(err)
			}
			defer e.giveBack(c)
			for i := 0; b.Loop(); i++ {
				pin := NewPin(map[Name]Relation{tradesName: rel})
				pin.tables[tradesName].version = fmt.Sprint("v", i)
				if _, err := e.bindStatement(b.Context(), c, Query{SQL: sql, Pin: pin}, nil, false); err != nil {
					b.Fatal(err)
				}
				pin.Release()
			}
		})
		pin := NewPin(map[Name]Relation{tradesName: rel})
		defer pin.Release()
		b.Run(fmt.Sprintf("plan/files=%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, _, err := s.Describe(b.Context(), Query{SQL: sql, Pin: pin}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("query/files=%d", n), func(b *testing.B) {
			for b.Loop() {
				mustRows(b, s, Query{SQL: sql, Pin: pin})
			}
		})
	}
}

// BenchmarkRewrite measures a statement's way through the parser, the
// allow-list and back, twice, and with exact arithmetic.
func BenchmarkRewrite(b *testing.B) {
	e, dir := newEngine(b)
	pin := NewPin(map[Name]Relation{tradesName: manyFiles(b, e, dir, 1)})
	defer pin.Release()
	c, err := e.acquire()
	if err != nil {
		b.Fatal(err)
	}
	defer e.giveBack(c)
	q := Query{SQL: `SELECT symbol, sum(price * qty) / sum(qty) AS vwap, avg(price) FROM equities.executions WHERE trade_date = DATE '2026-11-23' GROUP BY symbol ORDER BY vwap DESC LIMIT 10`, Pin: pin}
	for _, exact := range []bool{false, true} {
		b.Run(fmt.Sprintf("exact=%t", exact), func(b *testing.B) {
			q.Exact = exact
			for b.Loop() {
				if _, _, err := e.rewrite(b.Context(), c, q, nil, false); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDivide is the cost of an exact quotient a row, against DuckDB's own
// floating-point one.
func BenchmarkDivide(b *testing.B) {
	e, _ := newEngine(b)
	s := newSession(b, e)
	for _, exact := range []bool{false, true} {
		b.Run(fmt.Sprintf("exact=%t", exact), func(b *testing.B) {
			for b.Loop() {
				mustRows(b, s, Query{SQL: `SELECT max(CAST(range AS DECIMAL(18,4)) / 7) FROM range(1000000)`, Exact: exact})
			}
		})
	}
}

// BenchmarkRows is the cost of a row of five columns read as values.
func BenchmarkRows(b *testing.B) {
	e, _ := newEngine(b)
	s := newSession(b, e)
	for b.Loop() {
		rows, err := s.Query(b.Context(), Query{SQL: `SELECT range, 'S' || range % 50, CAST(range AS DECIMAL(18,4)), DATE '2026-11-23', now() FROM range(1000000)`})
		if err != nil {
			b.Fatal(err)
		}
		dst := make([]any, len(rows.Columns))
		for rows.Next(dst) == nil {
		}
		_ = rows.Close()
	}
}
