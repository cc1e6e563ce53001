package warehouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
)

func mustRun(t testing.TB, s *Session, sql string, args ...any) *outcome {
	t.Helper()
	out, err := run(s, sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return out
}

func code(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

const inferenceTable = `CREATE TABLE t (i int, n bigint, p numeric(18,4), r numeric(9,6), w numeric(38,2), f double precision, g real, s varchar, b boolean,
	d date, ts timestamp, tz timestamptz, by bytea)`

// TestInference holds the rewriter's idea of types against DuckDB's: a wrong
// one would put casts where they lose digits.
func TestInference(t *testing.T) {
	h := newHouse(t)
	s := h.session(t)
	mustRun(t, s, inferenceTable)
	leaves := []string{"i", "n", "p", "r", "w", "f", "s", "b", "d", "ts", "tz", "1", "2.50", "NULL", "1.5::numeric(10,3)"}
	exprs := append([]string(nil), leaves...)
	numbers := []string{"i", "n", "p", "r", "f", "1", "2.50", "1.5::numeric(10,3)", "12345678901"}
	for _, a := range numbers {
		for _, b := range numbers {
			for _, op := range []string{"+", "-", "*", "/", "%"} {
				exprs = append(exprs, a+" "+op+" "+b)
			}
			exprs = append(exprs, "coalesce("+a+", "+b+")", "CASE WHEN b THEN "+a+" ELSE "+b+" END", "greatest("+a+", "+b+")", "nullif("+a+", "+b+")")
		}
		for _, f := range []string{"round(%s)", "abs(%s)", "-%s", "sum(%s) OVER ()", "avg(%s) OVER ()", "max(%s) OVER ()", "lag(%s) OVER ()", "sign(%s)", "%s::numeric(20,5)", "%s::float8",
			"sqrt(%s)", "power(%s, 2)", "ratio_to_report(%s) OVER ()", "%s::text", "floor(%s)"} {
			exprs = append(exprs, fmt.Sprintf(f, a))
		}
	}
	exprs = append(exprs, "(p/i)/3", "(p*r)*r", "p*p/p", "sum(p*n) OVER () / sum(n) OVER ()", "round(p/3, 2)", "round(r, 8)", "trunc(p, 1)", "ceil(p)", "i/2*1.5", "p + i * r",
		"d + 1", "d - d", "d + interval '1 day'", "tz - tz", "ts + interval '1 hour'", "tz::date", "date_trunc('day', tz)", "date_trunc('day', d)", "extract(year from tz)", "extract(epoch from tz)",
		"dateadd(day, 1, d)", "dateadd(hour, 1, tz)", "datediff(day, d, tz)", "tz at time zone 'UTC'", "ts at time zone 'UTC'", "getdate()", "now()", "current_date", "s || i", "upper(s)", "length(s)", "s = 'a'",
		"i IN (1,2)", "i IS NULL", "s LIKE 'a%'", "b AND b", "nvl(s, 'x')", "nvl(p, 0)", "decode(i, 1, p, r)", "nvl2(s, p, n)", "(SELECT max(p) FROM t)", "(SELECT count(*) FROM t)", "EXISTS (SELECT 1)",
		"row_number() OVER (ORDER BY i)", "to_char(tz, 'YYYY')", "md5(s)", "interval '1 day' * 2", "random()", "array[1,2]", "last_day(d)", "i = n", "count(*) OVER ()", "strpos(s, 'a')", "split_part(s, ',', 1)",
		"substring(s from 1 for 2)", "w + 1", "w / 3", "w * i", "least(w, p)", "add_months(d, 1)", "convert_timezone('UTC', ts)", "convert(bigint, i)", "pg_typeof(p)", "format_type(23, NULL)")
	known := 0
	for _, e := range exprs {
		sql := "SELECT " + e + " AS x FROM t"
		tokens, err := tokenize(sql)
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.plan(context.Background(), sql, tokens, nil)
		if err != nil {
			t.Errorf("%s: %v", e, err)
			continue
		}
		pin, release, err := s.pin(context.Background(), p, false)
		if err != nil {
			t.Fatal(err)
		}
		_, cols, err := s.engine.Describe(context.Background(), engine.Query{SQL: p.text, Pin: pin, Exact: true})
		release()
		if err != nil {
			t.Errorf("%s: %v\n  %s", e, err, p.text)
			continue
		}
		got, want := p.columns[0].typ, fromEngine(cols[0].Type)
		switch got.kind {
		case kindUnknown:
			t.Errorf("%s: type not inferred, DuckDB says %s", e, want)
			continue
		case kindHugeint:
			got = decimal(38, 0)
		case kindTinyint:
			got.kind = kindSmallint
		case kindList, kindLiteral, kindJSON:
			got = textType
		case kindNull:
			continue
		}
		known++
		if !got.equal(want) {
			t.Errorf("%s: inferred %s, DuckDB says %s\n  %s", e, got, want, p.text)
		}
	}
	t.Logf("%d types agree", known)
}

// TestExactArithmetic compares random arithmetic with rationals.
func TestExactArithmetic(t *testing.T) {
	h := newHouse(t)
	s := h.session(t)
	rng := rand.New(rand.NewPCG(1, 2))
	number := func() (string, *big.Rat) {
		digits, scale := 1+rng.IntN(14), rng.IntN(7)
		text := ""
		for range digits {
			text += string(rune('0' + rng.IntN(10)))
		}
		text = strings.TrimLeft(text, "0") + "1"
		if scale > 0 {
			text += "."
			for range scale {
				text += string(rune('0' + rng.IntN(10)))
			}
		}
		if rng.IntN(3) == 0 {
			text = "-" + text
		}
		r, ok := new(big.Rat).SetString(text)
		if !ok {
			t.Fatalf("%q is no number", text)
		}
		return text, r
	}
	type want struct {
		sql string
		r   *big.Rat
	}
	for range 25 {
		var cases []want
		for range 12 {
			at, a := number()
			bt, b := number()
			if !strings.Contains(at+bt, ".") {
				at += ".5"
				a, _ = new(big.Rat).SetString(at)
			}
			cases = append(cases, want{"(" + at + ") + (" + bt + ")", new(big.Rat).Add(a, b)}, want{"(" + at + ") - (" + bt + ")", new(big.Rat).Sub(a, b)},
				want{"(" + at + ") * (" + bt + ")", new(big.Rat).Mul(a, b)}, want{"(" + at + ") / (" + bt + ")", new(big.Rat).Quo(a, b)})
		}
		items := make([]string, len(cases))
		for i, c := range cases {
			items[i] = c.sql
		}
		out := mustRun(t, s, "SELECT "+strings.Join(items, ", "))
		for i, c := range cases {
			got := out.rows[0][i]
			_, fraction, _ := strings.Cut(got, ".")
			if rounded := c.r.FloatString(len(fraction)); got != rounded && strings.TrimLeft(rounded, "-0.") != "" {
				t.Errorf("%s = %s, exactly %s", c.sql, got, rounded)
			}
		}
	}
}

// TestFees is the sum that floating point gets wrong.
func TestFees(t *testing.T) {
	h := newHouse(t)
	s := h.session(t)
	out := mustRun(t, s, "SELECT sum(price * qty * 0.0030) AS fee, sum(price * qty) / sum(qty) AS vwap, avg(price) AS mean FROM (SELECT 0.0001::numeric(18,4) AS price, 1 AS qty FROM generate_series(1, 1000000) g) q")
	if got := strings.Join(out.rows[0], " "); got != "0.30000000 0.0001 0.0001" {
		t.Errorf("fee, vwap and mean are %s", got)
	}
}

func TestParameters(t *testing.T) {
	h := newHouse(t)
	s := h.session(t)
	mustRun(t, s, inferenceTable)
	mustRun(t, s, "INSERT INTO t (i, p, tz, s) VALUES ($1, $2, '2026-01-01 00:00:00+00', 'a')", int64(7), engine.Decimal{Unscaled: big.NewInt(15), Scale: 1})
	d := engine.Decimal{Unscaled: big.NewInt(30), Scale: 2}
	if got := mustRun(t, s, "SELECT p * $1 AS x, p / $1 AS y, p > $1 AS z FROM t WHERE i = $2", d, int64(7)); strings.Join(got.rows[0], " ") != "0.450000 5.00000 t" {
		t.Errorf("got %q", got.rows)
	}
	ctx := context.Background()
	for _, c := range []struct {
		sql  string
		oids []uint32
		want string
	}{
		{"SELECT $1", nil, "[25]"}, {"SELECT $1::int", nil, "[23]"}, {"SELECT * FROM t WHERE i = $1 AND p < $2 AND s = $3 AND tz >= $4", nil, "[23 1700 25 1184]"},
		{"SELECT i + $1 FROM t LIMIT $2", nil, "[23 20]"}, {"SELECT $2::date, $1", []uint32{20}, "[20 1082]"}, {"INSERT INTO t (d, n) VALUES ($1, $2)", nil, "[1082 20]"},
		{"SELECT dateadd(day, 1, $1)", nil, "[1114]"},
	} {
		st, err := s.Prepare(ctx, c.sql, c.oids)
		if err != nil {
			t.Errorf("%s: %v", c.sql, err)
			continue
		}
		if got := fmt.Sprint(st.ParamOIDs); got != c.want {
			t.Errorf("%s: parameters %s, want %s", c.sql, got, c.want)
		}
	}
	if _, err := run(s, "SELECT $1::int + 1"); code(err) != "08P01" {
		t.Errorf("a missing value: %v", err)
	}
}

type rowsOf [][]any

func (r *rowsOf) Next(dst []any) error {
	if len(*r) == 0 {
		return io.EOF
	}
	copy(dst, (*r)[0])
	*r = (*r)[1:]
	return nil
}

func TestCopy(t *testing.T) {
	h := newHouse(t)
	s := h.session(t)
	ctx := context.Background()
	mustRun(t, s, "CREATE TABLE t (i int NOT NULL, p numeric(18,4), tz timestamptz, d date, s varchar, by bytea, b boolean, w numeric(38,2)) PARTITIONED BY (d)")
	copyIn := func(sql string, rows rowsOf) (string, error) {
		st, err := s.Prepare(ctx, sql, nil)
		if err != nil {
			return "", err
		}
		if st.Copy == nil || !st.Copy.In || len(st.Copy.Columns) != len(st.Columns) {
			t.Fatalf("%s: %+v", sql, st.Copy)
		}
		tag, err := s.CopyIn(ctx, st, &rows)
		if e := s.SyncPoint(ctx, err == nil); err == nil {
			err = e
		}
		return tag, err
	}
	dec := func(u int64, scale int32) engine.Decimal {
		return engine.Decimal{Unscaled: big.NewInt(u), Scale: scale}
	}
	tag, err := copyIn("COPY t FROM STDIN", rowsOf{
		{int32(1), dec(10001, 4), engine.TimestampTZ(1_767_225_600_000_001), engine.Date(20454), "a\"\\\n'é", []byte{0, 255}, true, dec(1, 2)},
		{int32(2), nil, nil, nil, nil, nil, nil, nil},
		{int32(3), dec(-5, 0), nil, engine.Date(20455), "", nil, false, dec(99, 0)},
	})
	if err != nil || tag != "COPY 3" {
		t.Fatalf("%s, %v", tag, err)
	}
	out := mustRun(t, s, "SELECT * FROM t ORDER BY i")
	want := []string{"1 1.0001 2026-01-01 00:00:00.000001+00 2026-01-01 a\"\\\n'é \\x00ff t 0.01", "2 NULL NULL NULL NULL NULL NULL NULL", "3 -5.0000 NULL 2026-01-02  NULL f 99.00"}
	for i, w := range want {
		if got := strings.Join(out.rows[i], " "); got != w {
			t.Errorf("row %d is %q, want %q", i, got, w)
		}
	}
	if _, err := copyIn("COPY t (s, i) FROM STDIN (FORMAT csv, HEADER, DELIMITER ';', NULL 'nil')", rowsOf{{"x", nil}}); code(err) != "23502" {
		t.Errorf("a null: %v", err)
	}
	st, err := s.Prepare(ctx, "COPY (SELECT i, p FROM t WHERE p IS NOT NULL ORDER BY i) TO STDOUT WITH CSV HEADER FORCE QUOTE i", nil)
	if err != nil || st.Copy == nil || st.Copy.In || st.Copy.Format != CopyCSV || !st.Copy.Header || !st.Copy.ForceQuote[0] || st.Copy.ForceQuote[1] {
		t.Fatalf("%+v, %v", st, err)
	}
	res, err := s.Execute(ctx, st, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	row := make([]any, 2)
	for ; res.Next(row) == nil; n++ {
	}
	if n != 2 || res.Tag() != "COPY 2" {
		t.Errorf("%d rows, %s", n, res.Tag())
	}
	_ = res.Close()
	if got := mustRun(t, s, "COPY t (i) TO STDOUT"); len(got.rows) != 3 {
		t.Errorf("%d rows", len(got.rows))
	}
}

// fakeViews keeps views that are always recomputed.
type fakeViews struct {
	views    map[catalog.Name]ViewDefinition
	released int
}

func (f *fakeViews) Create(_ context.Context, d ViewDefinition) error {
	f.views[d.Name] = d
	return nil
}
func (f *fakeViews) Drop(_ context.Context, n catalog.Name) error { delete(f.views, n); return nil }
func (f *fakeViews) Refresh(_ context.Context, n catalog.Name) (string, error) {
	return "Materialized view " + n.Table + " was incrementally updated successfully.", nil
}
func (f *fakeViews) List(context.Context) ([]View, error) {
	var out []View
	for _, d := range f.views {
		out = append(out, View{ViewDefinition: d, Incremental: true})
	}
	return out, nil
}
func (f *fakeViews) Read(_ context.Context, n catalog.Name) (*ViewRead, error) {
	d, ok := f.views[n]
	if !ok {
		return nil, nil
	}
	return &ViewRead{Query: d.Query, Columns: d.Columns, Tables: d.Tables, Release: func() { f.released++ }}, nil
}

func TestViews(t *testing.T) {
	h := newHouse(t)
	f := &fakeViews{views: map[catalog.Name]ViewDefinition{}}
	h.w.o.Views = f
	s := h.session(t)
	mustRun(t, s, "CREATE TABLE t (sym varchar, qty int, price numeric(18,4))")
	mustRun(t, s, "INSERT INTO t VALUES ('A', 1, 1.5), ('A', 3, 2.5), ('B', 2, 9)")
	mustRun(t, s, "CREATE MATERIALIZED VIEW v DISTKEY(sym) SORTKEY(sym) AUTO REFRESH YES AS SELECT sym, sum(qty) AS shares, sum(price*qty)/sum(qty) AS vwap FROM t GROUP BY sym")
	d := f.views[catalog.Name{Namespace: "public", Table: "v"}]
	if !d.AutoRefresh || d.Text != "SELECT sym, sum(qty) AS shares, sum(price*qty)/sum(qty) AS vwap FROM t GROUP BY sym" || fmt.Sprint(d.Columns) != "[{0 sym string false} {0 shares long false} {0 vwap decimal(38, 4) false}]" {
		t.Errorf("%+v", d)
	}
	if got := mustRun(t, s, "SELECT v.sym, shares, vwap, w.price FROM v JOIN t w ON w.sym = v.sym AND w.qty > 1 ORDER BY 1"); fmt.Sprint(got.rows) != "[[A 4 2.2500 2.5000] [B 2 9.0000 9.0000]]" {
		t.Errorf("%v", got.rows)
	}
	if got := mustRun(t, s, "WITH x AS (SELECT max(vwap) AS m FROM public.v) SELECT m FROM x"); fmt.Sprint(got.rows) != "[[9.0000]]" {
		t.Errorf("%v", got.rows)
	}
	if got := mustRun(t, s, "REFRESH MATERIALIZED VIEW v"); len(got.notices) != 1 || got.notices[0].Severity != "INFO" {
		t.Errorf("%v", got.notices)
	}
	if got := mustRun(t, s, "SELECT name, state, autorefresh FROM svv_mv_info"); fmt.Sprint(got.rows) != "[[v 1 t]]" {
		t.Errorf("%v", got.rows)
	}
	if got := mustRun(t, s, "SELECT pg_get_viewdef('v'::regclass) IS NOT NULL, c.relkind FROM pg_class c WHERE c.relname = 'v'"); fmt.Sprint(got.rows) != "[[t m]]" {
		t.Errorf("%v", got.rows)
	}
	for sql, want := range map[string]string{
		"CREATE MATERIALIZED VIEW v AS SELECT sym FROM t": "42P07", "DROP TABLE v": "42809", "DROP TABLE t": "2BP01", "INSERT INTO v VALUES (1)": "42809",
		"REFRESH MATERIALIZED VIEW t": "42809", "CREATE MATERIALIZED VIEW w AS SELECT now() AS n, qty FROM t": "0A000", "CREATE MATERIALIZED VIEW w AS SELECT qty+1, qty+2 FROM t": "42701",
		"DROP MATERIALIZED VIEW t": "42809", "CREATE MATERIALIZED VIEW w AS SELECT * FROM v": "0A000",
	} {
		if _, err := run(s, sql); code(err) != want {
			t.Errorf("%s: %v, want %s", sql, err, want)
		}
	}
	mustRun(t, s, "BEGIN")
	mustRun(t, s, "SELECT * FROM v")
	mustRun(t, s, "COMMIT")
	mustRun(t, s, "DROP MATERIALIZED VIEW v")
	if _, err := run(s, "SELECT * FROM v"); code(err) != "42P01" {
		t.Error(err)
	}
}

// TestLargeCatalog reads a catalog whose description is longer than a statement
// may be.
func TestLargeCatalog(t *testing.T) {
	h := newHouse(t)
	s := h.session(t)
	columns := make([]string, 200)
	for i := range columns {
		columns[i] = fmt.Sprintf("a_column_with_quite_a_long_name_%d numeric(18,4)", i)
	}
	for i := range 20 {
		mustRun(t, s, fmt.Sprintf("CREATE TABLE t%d (%s)", i, strings.Join(columns, ", ")))
	}
	out := mustRun(t, s, "SELECT count(*), count(DISTINCT attrelid) FROM pg_attribute WHERE atttypid = $1", int64(1700))
	if fmt.Sprint(out.rows) != "[[4000 20]]" {
		t.Error(out.rows)
	}
	mustRun(t, s, "CREATE TABLE names AS SELECT table_name, count(*) AS n FROM information_schema.columns WHERE table_name LIKE 't%' GROUP BY 1")
	if out := mustRun(t, s, "SELECT count(*), sum(n) FROM names"); fmt.Sprint(out.rows) != "[[20 4000]]" {
		t.Error(out.rows)
	}
}

func TestTimeoutAndCancel(t *testing.T) {
	h := newHouse(t)
	s := h.session(t)
	mustRun(t, s, "SET statement_timeout = '100ms'")
	if got := mustRun(t, s, "SHOW statement_timeout"); got.rows[0][0] != "100ms" {
		t.Error(got.rows)
	}
	slow := "SELECT count(*) FROM generate_series(1, 100000000) a, generate_series(1, 1000) b WHERE (a + b) % 7 = 3"
	start := time.Now()
	_, err := run(s, slow)
	if code(err) != "57014" || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("%v", err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("the timeout took %s", d)
	}
	mustRun(t, s, "RESET statement_timeout")
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	st, err := s.Prepare(ctx, slow, nil)
	if err == nil {
		var res *Result
		if res, err = s.Execute(ctx, st, nil); err == nil {
			err = res.Next(make([]any, 1))
			_ = res.Close()
		}
	}
	if code(err) != "57014" {
		t.Errorf("%v", err)
	}
	mustRun(t, s, "SELECT 1")
}

func TestSessionRefusals(t *testing.T) {
	h := newHouse(t)
	ctx := context.Background()
	if _, err := h.w.NewSession(ctx, SessionOptions{User: "u", Database: "nope"}); code(err) != "3D000" {
		t.Error(err)
	}
	if _, err := h.w.NewSession(ctx, SessionOptions{User: "u", Parameters: map[string]string{"TimeZone": "Nowhere/Here"}}); code(err) != "22023" {
		t.Error(err)
	}
	s, err := h.w.NewSession(ctx, SessionOptions{User: "u", Parameters: map[string]string{"TimeZone": "america/new_york", "options": "x"}})
	if err != nil {
		// Names of zones are case-sensitive where the host's file system is.
		if s, err = h.w.NewSession(ctx, SessionOptions{User: "u", Parameters: map[string]string{"TimeZone": "America/New_York"}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Prepare(ctx, "SELECT 1", nil); code(err) != "57P01" {
		t.Error(err)
	}
}

// TestRewrite keeps the DuckDB text that queries become.
func TestRewrite(t *testing.T) {
	h := newHouse(t)
	s := h.session(t)
	mustRun(t, s, inferenceTable)
	datadriven.RunTest(t, "testdata/rewrite", func(t *testing.T, d *datadriven.TestData) string {
		if d.HasArg("zone") {
			mustRun(t, s, "SET timezone = 'America/New_York'")
			defer mustRun(t, s, "RESET timezone")
		}
		st, err := parseStatement(d.Input)
		if err != nil {
			return describeError(err)
		}
		p, err := s.plan(context.Background(), d.Input, st.(queryStatement).tokens, nil)
		if err != nil {
			return describeError(err)
		}
		return p.text + "\n"
	})
}
