package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/record"
)

// newEngine opens an engine whose data directory may be read and written.
func newEngine(t testing.TB, change ...func(*Options)) (e *Engine, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "lake")
	temp := filepath.Join(filepath.Dir(dir), "temp")
	for _, d := range []string{dir, temp} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	o := Options{TempDir: temp, AllowedDirs: []string{dir}, MemoryLimitBytes: 400_000_000, Threads: 2}
	for _, c := range change {
		c(&o)
	}
	e, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e, dir
}

func newSession(t testing.TB, e *Engine) *Session {
	t.Helper()
	s, err := e.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// collectRows runs q and returns its rows as text, columns joined by "|".
func collectRows(ctx context.Context, s *Session, q Query) ([]string, error) {
	rows, err := s.Query(ctx, q)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var out []string
	dst := make([]any, len(rows.Columns))
	for {
		err := rows.Next(dst)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		line := make([]string, len(dst))
		for i, v := range dst {
			if v == nil {
				line[i] = "NULL"
			} else {
				line[i] = string(AppendText(nil, v, nil))
			}
		}
		out = append(out, strings.Join(line, "|"))
	}
}

func mustRows(t testing.TB, s *Session, q Query) []string {
	t.Helper()
	out, err := collectRows(t.Context(), s, q)
	if err != nil {
		t.Fatalf("%s: %v", q.SQL, err)
	}
	return out
}

func wantRows(t testing.TB, s *Session, q Query, want ...string) {
	t.Helper()
	if got := mustRows(t, s, q); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s\n got: %s\nwant: %s", q.SQL, strings.Join(got, "\n      "), strings.Join(want, "\n      "))
	}
}

var trades = record.Schema{Fields: []record.Field{
	{ID: 1, Name: "id", Type: record.Type{Kind: record.Long}},
	{ID: 2, Name: "symbol", Type: record.Type{Kind: record.String}},
	{ID: 3, Name: "price", Type: record.Type{Kind: record.Decimal, Precision: 18, Scale: 4}},
	{ID: 4, Name: "qty", Type: record.Type{Kind: record.Int}},
	{ID: 5, Name: "trade_date", Type: record.Type{Kind: record.Date}},
	{ID: 6, Name: "executed_at", Type: record.Type{Kind: record.TimestampTZ}},
}}

const tradesSelect = `SELECT i AS id, 'S' || (i %% 50) AS symbol, CAST(i AS DECIMAL(18,4)) / 1 + 0.5 AS price, CAST(i %% 10 AS INTEGER) AS qty,
	DATE '2026-11-23' AS trade_date, TIMESTAMPTZ '2026-11-23 14:30:00+00' + to_seconds(i) AS executed_at FROM range(%d, %d) t(i)`

// writeTrades writes rows [from, to) to a file and returns it.
func writeTrades(t testing.TB, e *Engine, path string, from, to int) File {
	t.Helper()
	x, err := e.Export(t.Context(), Query{SQL: fmt.Sprintf(tradesSelect, from, to)}, ExportSpec{Path: path, Schema: trades})
	if err != nil {
		t.Fatal(err)
	}
	if x.Rows != int64(to-from) || x.SizeBytes == 0 {
		t.Fatalf("exported %+v, want %d rows", x, to-from)
	}
	return File{Path: path, Rows: x.Rows}
}

var tradesName = Name{"equities", "executions"}

func TestQueryOverManyFiles(t *testing.T) {
	e, dir := newEngine(t)
	var files []File
	for i := range 9 {
		files = append(files, writeTrades(t, e, filepath.Join(dir, fmt.Sprintf("f%d.parquet", i)), i*1000, (i+1)*1000))
	}
	pin := NewPin(map[Name]Relation{tradesName: {Schema: trades, Files: files}})
	defer pin.Release()
	s := newSession(t, e)
	for _, tc := range []struct {
		sql  string
		args []any
		want []string
	}{
		{sql: `SELECT count(*), sum(price) FROM "equities"."executions"`, want: []string{"9000|40500000.0000"}},
		{sql: `SELECT id, price FROM equities.executions WHERE symbol = 'S7' AND id < 120 ORDER BY id`, want: []string{"7|7.5000", "57|57.5000", "107|107.5000"}},
		{sql: `SELECT count(*) FROM equities.executions WHERE id BETWEEN 950 AND 1049`, want: []string{"100"}},
		{sql: `SELECT count(*) FROM Equities.EXECUTIONS e WHERE e.id >= $1 AND symbol = $2`, args: []any{int64(8000), "S3"}, want: []string{"20"}},
		{sql: `SELECT executions.id FROM equities.executions WHERE equities.executions.id = 5`, want: []string{"5"}},
		{sql: `WITH executions AS (SELECT * FROM equities.executions WHERE id < 3) SELECT max(id) FROM executions`, want: []string{"2"}},
		{sql: `SELECT executed_at, trade_date FROM equities.executions WHERE id = 1`, want: []string{"2026-11-23 14:30:01+00|2026-11-23"}},
		{sql: `SELECT id FROM equities.executions ORDER BY id DESC LIMIT CAST($1 AS BIGINT)`, args: []any{int64(2)}, want: []string{"8999", "8998"}},
		{sql: `SELECT a.id FROM equities.executions a JOIN equities.executions b ON a.id = b.id + 8998 ORDER BY 1`, want: []string{"8998", "8999"}},
	} {
		wantRows(t, s, Query{SQL: tc.sql, Args: tc.args, Pin: pin}, tc.want...)
		wantRows(t, s, Query{SQL: tc.sql, Args: tc.args, Pin: pin}, tc.want...) // from the cache of statements
	}
}

func TestErrors(t *testing.T) {
	e, dir := newEngine(t)
	f := writeTrades(t, e, filepath.Join(dir, "a.parquet"), 0, 10)
	pin := NewPin(map[Name]Relation{tradesName: {Schema: trades, Files: []File{f}}, {"x", "gone"}: {Schema: trades, Files: []File{{Path: filepath.Join(dir, "gone.parquet")}}}})
	defer pin.Release()
	s := newSession(t, e)
	for _, tc := range []struct {
		sql      string
		kind     ErrorKind
		position int
	}{
		{`SELECT 1 +`, Syntax, 11},
		{`SELEC 1`, Syntax, 1},
		{`SELECT 1; SELECT 2`, Syntax, 0},
		{``, Syntax, 0},
		{`CREATE TABLE x(i INT)`, Unsupported, 0},
		{`SELECT nosuch FROM equities.executions`, Binder, 8},
		{`SELECT * FROM equities.nosuch`, Catalog, 15},
		{`SELECT * FROM nosuch`, Catalog, 15},
		{`SELECT * FROM db.equities.executions`, Catalog, 15},
		{`SELECT 'abc'::INTEGER`, Conversion, 0},
		{`SELECT 127::TINYINT + 1::TINYINT`, OutOfRange, 0},
		{`SELECT x::nosuch FROM (SELECT 1) t(x)`, Catalog, 0},
		{`SELECT sum(symbol) FROM equities.executions`, Binder, 8},
		{`SELECT * FROM x.gone`, IO, 0},
		{`SELECT $1`, Binder, 0},
	} {
		_, err := collectRows(t.Context(), s, Query{SQL: tc.sql, Pin: pin})
		var x *Error
		if !errors.As(err, &x) {
			t.Errorf("%s: %v (%T), want *Error", tc.sql, err, err)
			continue
		}
		if x.Kind != tc.kind || x.Position != tc.position {
			t.Errorf("%s: kind %v position %d (%s), want %v at %d", tc.sql, x.Kind, x.Position, x.Message, tc.kind, tc.position)
		}
		if strings.Contains(x.Message, dir) || strings.Contains(x.Message, pinSchema) || strings.Contains(x.Message, "r_") || strings.Contains(x.Message, ".parquet") {
			t.Errorf("%s: message leaks: %s", tc.sql, x.Message)
		}
	}
}

func TestCancel(t *testing.T) {
	e, _ := newEngine(t)
	s := newSession(t, e)
	const long = `SELECT count(*) FROM range(200000000000) a WHERE hash(a.range) % 7 = 3`
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := collectRows(ctx, s, Query{SQL: long})
	var x *Error
	if !errors.As(err, &x) || x.Kind != Interrupted || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("deadline: %v", err)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Fatalf("interrupt took %v", d)
	}
	// Cancelled between fetches of a stream.
	ctx, cancel = context.WithCancel(t.Context())
	rows, err := s.Query(ctx, Query{SQL: `SELECT range FROM range(100000000)`})
	if err != nil {
		t.Fatal(err)
	}
	dst := make([]any, 1)
	if err := rows.Next(dst); err != nil {
		t.Fatal(err)
	}
	cancel()
	for err == nil {
		err = rows.Next(dst)
	}
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("cancel: %v", err)
	}
	_ = rows.Close()
	wantRows(t, s, Query{SQL: `SELECT 1`}, "1")
}

// TestCachesAreBounded: files come and go, as those of a tail do, and what the
// engine keeps of them stays within its memory limit.
func TestCachesAreBounded(t *testing.T) {
	const limit = 8 << 20
	e, dir := newEngine(t, func(o *Options) { o.MemoryLimitBytes = limit })
	first := writeTrades(t, e, filepath.Join(dir, "0.parquet"), 0, 12_000)
	data, err := os.ReadFile(first.Path)
	if err != nil {
		t.Fatal(err)
	}
	internal, err := e.InternalSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer internal.Close() //nolint:errcheck // nothing is left to lose
	s := newSession(t, e)
	kept := func(what string) (bytes int64) {
		rows := mustRows(t, internal, Query{SQL: "SELECT CAST(coalesce(sum(memory_usage_bytes), 0) AS BIGINT) FROM duckdb_memory() WHERE tag LIKE " + QuoteLiteral(what)})
		bytes, err := strconv.ParseInt(rows[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return bytes
	}
	most := int64(0)
	ask := func(i int, fleeting bool) {
		path := filepath.Join(dir, fmt.Sprintf("t%d-%t.parquet", i, fleeting))
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		pin := NewPin(map[Name]Relation{tradesName: {Schema: trades, Files: []File{{Path: path, Rows: first.Rows, Fleeting: fleeting}}}})
		mustRows(t, s, Query{SQL: "SELECT count(*) FROM equities.executions WHERE id = $1", Args: []any{int64(i)}, Pin: pin})
		pin.Release()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		ask(i, true)
	}
	if n := kept("OBJECT_CACHE"); n != 0 {
		t.Errorf("%d bytes of fleeting files' metadata are kept", n)
	}
	for i := range 1200 {
		ask(i, false)
		if i%100 == 99 {
			most = max(most, kept("%"))
		}
	}
	t.Logf("at most %d KiB, %d KiB of files' metadata at the end", most>>10, kept("OBJECT_CACHE")>>10)
	if most > limit+limit/10 {
		t.Errorf("%d bytes are kept, the limit is %d", most, limit)
	}
	if n := kept("EXTERNAL_FILE_CACHE"); n != 0 {
		t.Errorf("%d bytes of files are kept", n)
	}
	if kept("OBJECT_CACHE") < limit/2 {
		t.Error("the limit was never near: the test proves little")
	}
}
