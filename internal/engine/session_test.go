package engine

import (
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/tapehouse/tapehouse/internal/record"
)

// residentBytes is the process's resident memory, or 0 where /proc is missing.
func residentBytes() int64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10
		}
	}
	return 0
}

// TestStreamingIsFlat reads 5M rows, which materialised are about 900 MB.
func TestStreamingIsFlat(t *testing.T) {
	e, _ := newEngine(t)
	s := newSession(t, e)
	rows, err := s.Query(t.Context(), Query{SQL: `SELECT range AS i, 'symbol-' || (range % 1000) AS s, CAST(range AS DECIMAL(18,4)) AS p, 'a string of more than twelve bytes' AS x FROM range(5000000)`})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	before, most := residentBytes(), int64(0)
	dst := make([]any, 4)
	n := int64(0)
	for ; ; n++ {
		if err := rows.Next(dst); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			break
		}
		if n%250_000 == 0 {
			if dst[0] != n || dst[1] != fmt.Sprintf("symbol-%d", n%1000) || dst[3] != "a string of more than twelve bytes" {
				t.Fatalf("row %d: %v", n, dst)
			}
			most = max(most, residentBytes())
		}
	}
	if n != 5_000_000 {
		t.Fatalf("%d rows", n)
	}
	t.Logf("resident %d MB before, at most %d MB while reading", before>>20, most>>20)
	if most-before > 200<<20 {
		t.Errorf("resident memory grew by %d MB", (most-before)>>20)
	}
}

func TestConcurrentSessions(t *testing.T) {
	e, dir := newEngine(t)
	f := writeTrades(t, e, filepath.Join(dir, "a.parquet"), 0, 20_000)
	pin := NewPin(map[Name]Relation{tradesName: {Schema: trades, Files: []File{f}}})
	defer pin.Release()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			s, err := e.Session(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = s.Close() }()
			for i := range 20 {
				sql := fmt.Sprintf(`SELECT count(*), sum(price) / 2 FROM equities.executions WHERE id %% 8 = %d AND id >= %d`, g, i%3)
				if _, err := collectRows(t.Context(), s, Query{SQL: sql, Pin: pin, Exact: i%2 == 0}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestOpenQueriesBounded(t *testing.T) {
	e, _ := newEngine(t, func(o *Options) { o.OpenQueriesMax = 2 })
	s := newSession(t, e)
	var open []*Rows
	for range 2 {
		r, err := s.Query(t.Context(), Query{SQL: `SELECT range FROM range(10000000)`})
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, r)
	}
	var x *Error
	if _, err := s.Query(t.Context(), Query{SQL: `SELECT 1`}); !errors.As(err, &x) || x.Kind != Busy {
		t.Fatalf("third query: %v", err)
	}
	for _, r := range open {
		_ = r.Close()
		if err := r.Next(make([]any, 1)); !errors.Is(err, ErrClosed) {
			t.Errorf("next after close: %v", err)
		}
	}
	wantRows(t, s, Query{SQL: `SELECT 1`}, "1")
}

func TestMemoryLimit(t *testing.T) {
	e, _ := newEngine(t, func(o *Options) { o.MemoryLimitBytes, o.TempSizeMaxBytes = 60_000_000, 20_000_000 })
	s := newSession(t, e)
	_, err := collectRows(t.Context(), s, Query{SQL: `SELECT count(*) FROM (SELECT range % 4000000 AS k, list(range) FROM range(8000000) GROUP BY k)`})
	var x *Error
	if !errors.As(err, &x) || x.Kind != OutOfMemory {
		t.Fatalf("a query above the limits: %v", err)
	}
	wantRows(t, s, Query{SQL: `SELECT 1`}, "1")
}

func TestDescribe(t *testing.T) {
	e, dir := newEngine(t)
	f := writeTrades(t, e, filepath.Join(dir, "a.parquet"), 0, 10)
	pin := NewPin(map[Name]Relation{tradesName: {Schema: trades, Files: []File{f}}})
	defer pin.Release()
	s := newSession(t, e)
	for _, tc := range []struct{ sql, params, cols string }{
		{`SELECT id, price FROM equities.executions WHERE symbol = $1 AND qty > $2 LIMIT $3`, "[VARCHAR INTEGER BIGINT]", "[{id BIGINT} {price DECIMAL(18,4)}]"},
		{`SELECT $1 AS a, $2::INTEGER + 1 AS b`, "[VARCHAR INTEGER]", "[{a VARCHAR} {b INTEGER}]"},
		{`SELECT count(*) AS n, sum(qty) AS q, [1] AS l, NULL AS z, gen_random_uuid() AS u FROM equities.executions`, "[]", "[{n BIGINT} {q DECIMAL(38,0)} {l VARCHAR} {z INTEGER} {u VARCHAR}]"},
		{`SELECT price / $1 AS x FROM equities.executions WHERE trade_date = $2`, "[INTEGER DATE]", "[{x DECIMAL(29,15)}]"},
		{`SELECT (price / $1) / 2 AS y, qty / $2 AS z FROM equities.executions`, "[DECIMAL(38,4) INTEGER]", "[{y DECIMAL(38,20)} {z INTEGER}]"},
	} {
		q := Query{SQL: tc.sql, Pin: pin, Exact: true}
		if strings.Contains(tc.sql, "price / $1 AS x") {
			q.ParamTypes = []Type{{Kind: Integer}}
		}
		params, cols, err := s.Describe(t.Context(), q)
		if err != nil {
			t.Errorf("%s: %v", tc.sql, err)
			continue
		}
		if fmt.Sprint(params) != tc.params || fmt.Sprint(cols) != tc.cols {
			t.Errorf("%s:\n got %v %v\nwant %s %s", tc.sql, params, cols, tc.params, tc.cols)
		}
	}
}

func TestParameters(t *testing.T) {
	e, _ := newEngine(t)
	s := newSession(t, e)
	big38, _ := new(big.Int).SetString("-99999999999999999999999999999999999999", 10)
	for _, v := range []any{true, int16(-3), int32(7), int64(-1 << 62), float32(1.5), 2.25, "text of more than twelve bytes, ü", []byte{0, 1, 255}, Decimal{big38, 20}, Decimal{big.NewInt(0), 0},
		Decimal{big.NewInt(-5), 3}, Date(-800000), Time(86399999999), Timestamp(-62135596800000000), TimestampTZ(1795444201000001), Interval{14, -3, 4000000}, nil, "", []byte{}} {
		rows, err := s.Query(t.Context(), Query{SQL: `SELECT $1`, Args: []any{v}})
		if err != nil {
			t.Errorf("%v: %v", v, err)
			continue
		}
		dst := make([]any, 1)
		if err := rows.Next(dst); err != nil {
			t.Errorf("%v: %v", v, err)
		} else if got, want := fmt.Sprintf("%T %v", dst[0], dst[0]), fmt.Sprintf("%T %v", v, v); got != want {
			t.Errorf("parameter %s came back as %s", want, got)
		}
		_ = rows.Close()
	}
	var x *Error
	if _, err := s.Query(t.Context(), Query{SQL: `SELECT $1`, Args: []any{Decimal{pow10(38), 0}}}); !errors.As(err, &x) || x.Kind != OutOfRange {
		t.Errorf("39 digits: %v", err)
	}
	if _, err := s.Query(t.Context(), Query{SQL: `SELECT $1, $2`, Args: []any{int32(1)}}); !errors.As(err, &x) || x.Kind != Binder {
		t.Errorf("a missing parameter: %v", err)
	}
}

func TestTemporaryTables(t *testing.T) {
	e, dir := newEngine(t)
	f := writeTrades(t, e, filepath.Join(dir, "a.parquet"), 0, 10)
	pin := NewPin(map[Name]Relation{tradesName: {Schema: trades, Files: []File{f}}})
	defer pin.Release()
	s, other := newSession(t, e), newSession(t, e)
	ctx := t.Context()
	if n, err := s.CreateTemp(ctx, "Top", Query{SQL: `SELECT id, price / 2 AS half FROM equities.executions WHERE id < $1`, Args: []any{int64(3)}, Pin: pin, Exact: true}); err != nil || n != 3 {
		t.Fatalf("create: %d %v", n, err)
	}
	wantRows(t, s, Query{SQL: `SELECT * FROM top ORDER BY id`}, "0|0.250000000000000", "1|0.750000000000000", "2|1.250000000000000")
	wantRows(t, s, Query{SQL: `SELECT count(*) FROM pg_temp.TOP t JOIN equities.executions e USING (id)`, Pin: pin}, "3")
	var x *Error
	if _, err := collectRows(ctx, other, Query{SQL: `SELECT * FROM top`}); !errors.As(err, &x) || x.Kind != Catalog {
		t.Errorf("another session sees it: %v", err)
	}
	if n, err := s.InsertTemp(ctx, "top", []string{"id"}, Query{SQL: `SELECT 100`}); err != nil || n != 1 {
		t.Fatalf("insert: %d %v", n, err)
	}
	if n, err := s.ReplaceTemp(ctx, "top", Query{SQL: `SELECT id + 1, half FROM top WHERE id <> 1`}); err != nil || n != 3 {
		t.Fatalf("replace: %d %v", n, err)
	}
	wantRows(t, s, Query{SQL: `SELECT id FROM top ORDER BY id`}, "1", "3", "101")
	if _, err := s.ReplaceTemp(ctx, "top", Query{SQL: `SELECT 'x', 'y'`}); err == nil {
		t.Error("replaced by rows of other types")
	}
	wantRows(t, s, Query{SQL: `SELECT count(*) FROM top`}, "3")
	if _, err := s.CreateTemp(ctx, "TOP", Query{SQL: `SELECT 1 AS i`}); !errors.Is(err, ErrExists) {
		t.Errorf("created twice: %v", err)
	}
	if _, err := s.CreateTemp(ctx, "bad", Query{SQL: `SELECT * FROM read_text('/etc/passwd')`}); err == nil {
		t.Error("a temporary table of a file")
	}
	if err := s.CreateTempColumns(ctx, `we"ird`, []Column{{`c"1`, Type{Numeric, 18, 4}}, {"c2", Type{Kind: Varchar}}}); err != nil {
		t.Fatal(err)
	}
	wantRows(t, s, Query{SQL: `SELECT count(*), sum("c""1") FROM "we""ird"`}, "0|NULL")
	// Open rows keep the connection; other statements go on elsewhere.
	rows, err := s.Query(ctx, Query{SQL: `SELECT * FROM top, range(1000000)`})
	if err != nil {
		t.Fatal(err)
	}
	wantRows(t, s, Query{SQL: `SELECT count(*) FROM equities.executions`, Pin: pin}, "10")
	if err := s.DropTemp(ctx, "top"); !errors.As(err, &x) || x.Kind != Busy {
		t.Errorf("dropped while read: %v", err)
	}
	_ = rows.Close()
	if err := s.DropTemp(ctx, "top"); err != nil {
		t.Error(err)
	}
	if s.HasTemp("top") || !s.HasTemp(`WE"IRD`) {
		t.Error("HasTemp")
	}
}

func TestExport(t *testing.T) {
	e, dir := newEngine(t)
	path := filepath.Join(dir, "sorted.parquet")
	pin := NewPin(map[Name]Relation{tradesName: {Schema: trades, Files: []File{writeTrades(t, e, filepath.Join(dir, "a.parquet"), 0, 300_000)}}})
	defer pin.Release()
	x, err := e.Export(t.Context(), Query{SQL: `SELECT * FROM equities.executions WHERE id >= $1`, Args: []any{int64(1000)}, Pin: pin},
		ExportSpec{Path: path, Schema: trades, OrderBy: []string{"symbol", "id"}, RowGroupRows: 100_000})
	if err != nil || x.Rows != 299_000 {
		t.Fatalf("export: %+v %v", x, err)
	}
	sorted := NewPin(map[Name]Relation{tradesName: {Schema: trades, Files: []File{{Path: path, Rows: 299_000}}}})
	defer sorted.Release()
	s, err := e.InternalSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	wantRows(t, s, Query{SQL: `SELECT symbol, id FROM equities.executions LIMIT 2`, Pin: sorted}, "S0|1000", "S0|1050")
	wantRows(t, s, Query{SQL: `SELECT name, field_id FROM parquet_schema('` + path + `') WHERE field_id IS NOT NULL ORDER BY 2`}, "id|1", "symbol|2", "price|3", "qty|4", "trade_date|5", "executed_at|6")
	wantRows(t, s, Query{SQL: `SELECT count(DISTINCT row_group_id), any_value(compression) FROM parquet_metadata('` + path + `')`}, "3|ZSTD")
	if _, err := e.Export(t.Context(), Query{SQL: `SELECT 1 AS id`}, ExportSpec{Path: path, Schema: trades}); !errors.Is(err, os.ErrExist) {
		t.Errorf("overwrote: %v", err)
	}
	bad := filepath.Join(dir, "bad.parquet")
	one := record.Schema{Fields: []record.Field{{ID: 1, Name: "x", Type: record.Type{Kind: record.Int}}}}
	if _, err := e.Export(t.Context(), Query{SQL: `SELECT CASE WHEN range = 200000 THEN 'no' ELSE '1' END AS x FROM range(300000)`}, ExportSpec{Path: bad, Schema: one}); err == nil {
		t.Error("exported a value that does not convert")
	}
	if _, err := os.Stat(bad); err == nil {
		t.Error("a failed export left a file")
	}
	if _, err := e.Export(t.Context(), Query{SQL: `SELECT 1 AS x`}, ExportSpec{Path: "/tmp/tapehouse-outside.parquet", Schema: one}); err == nil {
		t.Error("exported outside the allowed directories")
	}
}

func TestClose(t *testing.T) {
	dir := t.TempDir()
	e, err := Open(t.Context(), Options{TempDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	s, err := e.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rows, err := s.Query(t.Context(), Query{SQL: `SELECT range FROM range(1000000000)`})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- e.Close() }()
	dst := make([]any, 1)
	for err == nil {
		err = rows.Next(dst)
	}
	var x *Error
	if !errors.As(err, &x) || x.Kind != Interrupted {
		t.Errorf("a query of a closing engine: %v", err)
	}
	_ = rows.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := s.Query(t.Context(), Query{SQL: `SELECT 1`}); !errors.Is(err, ErrClosed) {
		t.Errorf("a query after close: %v", err)
	}
	if _, err := e.Session(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("a session after close: %v", err)
	}
}
