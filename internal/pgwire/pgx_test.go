package pgwire

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

var execModes = []pgx.QueryExecMode{
	pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
}

func TestPgxModes(t *testing.T) {
	ts := startServer(t)
	c := connect(t, ts, "")
	if _, err := c.Exec(t.Context(), "create table legs (id int8, sym text, px numeric, at timestamptz)"); err != nil {
		t.Fatal(err)
	}
	for i, mode := range execModes {
		for range 3 { // the second and third time from the cache
			if mode != pgx.QueryExecModeSimpleProtocol && mode != pgx.QueryExecModeExec {
				tag, err := c.Exec(t.Context(), "insert into legs values ($1, $2, $3, $4)", mode, int64(i), "AAPL", "191.0001", time.Unix(1e9, 5000))
				if err != nil || tag.String() != "INSERT 0 1" {
					t.Fatalf("%v: %v %v", mode, tag, err)
				}
			}
			rows, err := c.Query(t.Context(), "series 1000", mode)
			if err != nil {
				t.Fatalf("%v: %v", mode, err)
			}
			n := 0
			for rows.Next() {
				var i int32
				var text string
				var d pgtype.Numeric
				if err := rows.Scan(&i, &text, &d); err != nil {
					t.Fatalf("%v: %v", mode, err)
				}
				n++
				if want := big.NewInt(int64(n) * 10001); int(i) != n || text != fmt.Sprintf("row %d", n) || ratOf(number(d.Int, -d.Exp)).Cmp(ratOf(number(want, 4))) != 0 {
					t.Fatalf("%v: row %d: %d %q %v", mode, n, i, text, d)
				}
			}
			if rows.Err() != nil || n != 1000 || rows.CommandTag().String() != "SELECT 1000" {
				t.Fatalf("%v: %d rows, %v, %v", mode, n, rows.CommandTag(), rows.Err())
			}
		}
		_, err := c.Exec(t.Context(), "nonsense here", mode)
		if pe := wantCode(t, err, "42601"); pe.Hint != "Try harder." || pe.Position != 1 {
			t.Errorf("%v: %+v", mode, pe)
		}
		_, err = c.Exec(t.Context(), "failrow 100", mode)
		wantCode(t, err, "22012")
	}
	if n := ts.backend.open(); n != 1 {
		t.Errorf("%d sessions", n)
	}
}

// Every type travels to the server and back, in both directions and formats.
func TestPgxRoundTrip(t *testing.T) {
	ts := startServer(t)
	c := connect(t, ts, "timezone=America/New_York")
	at := time.Date(2026, 11, 23, 14, 30, 5, 123456000, time.UTC)
	for _, test := range []struct {
		typ  string
		in   any
		want string
	}{
		{"bool", true, "t"}, {"int2", int16(-5), "-5"}, {"int4", int32(1 << 30), "1073741824"}, {"int8", int64(-1 << 62), "-4611686018427387904"},
		{"float4", float32(1.5), "1.5"}, {"float8", 0.1, "0.1"}, {"text", "naïve\n", "naïve\n"}, {"varchar", "", ""}, {"bytea", []byte{0, 255}, `\x00ff`},
		{"numeric", pgtype.Numeric{Int: big.NewInt(-12345), Exp: -4, Valid: true}, "-1.2345"}, {"numeric", pgtype.Numeric{Int: big.NewInt(7), Exp: 5, Valid: true}, "700000"},
		{"date", time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), "2026-11-23"}, {"timestamptz", at, "2026-11-23 09:30:05.123456-05"}, {"timestamp", at, "2026-11-23 14:30:05.123456"},
		{"time", pgtype.Time{Microseconds: 1, Valid: true}, "00:00:00.000001"}, {"interval", pgtype.Interval{Months: 1, Days: -2, Microseconds: 3e6, Valid: true}, "1 mon -2 days +00:00:03"},
		{"uuid", pgtype.UUID{Bytes: [16]byte{1, 2, 3}, Valid: true}, "01020300-0000-0000-0000-000000000000"}, {"json", `{"a":1}`, `{"a":1}`}, {"jsonb", `[1]`, `[1]`},
		{"int4[]", []int32{1, 2}, "{1,2}"}, {"text[]", []string{"a b", `"`}, `{"a b","\""}`}, {"timestamptz[]", []time.Time{at}, `{"2026-11-23 09:30:05.123456-05"}`}, {"int8[]", []int64{}, "{}"},
		{"numeric[]", []pgtype.Numeric{{Int: big.NewInt(15), Exp: -1, Valid: true}}, "{1.5}"}, {"timestamptz", pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}, "-infinity"},
		{"date", pgtype.Date{InfinityModifier: pgtype.Infinity, Valid: true}, "infinity"}, {"oid", uint32(4e9), "4000000000"}, {"name", "n", "n"}, {"bpchar", "x ", "x "},
		{"numeric", nil, ""}, {"text[]", nil, ""},
	} {
		sql := "select $1::" + test.typ
		for _, format := range []int16{formatText, formatBinary} {
			rows, err := c.Query(t.Context(), sql, pgx.QueryResultFormats{format}, test.in)
			if err != nil {
				t.Fatalf("%s: %v", test.typ, err)
			}
			if !rows.Next() {
				t.Fatalf("%s: no row: %v", test.typ, rows.Err())
			}
			raw, field := rows.RawValues()[0], rows.FieldDescriptions()[0]
			if field.Format != format {
				t.Errorf("%s: format %d, want %d", test.typ, field.Format, format)
			}
			switch {
			case test.in == nil:
				if raw != nil {
					t.Errorf("%s: NULL came back as %q", test.typ, raw)
				}
			case format == formatText:
				if string(raw) != test.want {
					t.Errorf("%s: %q, want %q", test.typ, raw, test.want)
				}
			default:
				want, err := c.TypeMap().Encode(field.DataTypeOID, formatBinary, test.in, nil)
				if err != nil {
					t.Fatalf("%s: %v", test.typ, err)
				}
				if field.DataTypeOID == OIDNumeric || field.DataTypeOID == 1231 {
					break // pgtype's form is not canonical; TestNumericBinaryAgainstPgtype compares values
				}
				if s, ok := test.in.([]int64); ok && len(s) == 0 {
					break // pgtype gives an empty array a dimension, PostgreSQL does not
				}
				if !bytes.Equal(raw, want) {
					t.Errorf("%s: %x, want %x", test.typ, raw, want)
				}
			}
			rows.Close()
			if rows.Err() != nil {
				t.Errorf("%s: %v", test.typ, rows.Err())
			}
		}
	}
}

func TestSimpleQuery(t *testing.T) {
	ts := startServer(t)
	c := connect(t, ts, "").PgConn()
	run := func(sql string) ([]*pgconn.Result, error) { return c.Exec(t.Context(), sql).ReadAll() }
	results, err := run("create table a (x int4); insert into a values (1); insert into a values (null); select * from a;")
	if err != nil || len(results) != 4 || len(results[3].Rows) != 2 || string(results[3].Rows[0][0]) != "1" || results[3].Rows[1][0] != nil {
		t.Fatalf("%d results, %v", len(results), err)
	}
	// All of a query's statements are one transaction.
	results, err = run("insert into a values (2); select 1; fail 22012; select 2")
	wantCode(t, err, "22012")
	if len(results) < 2 {
		t.Errorf("%d results before the error", len(results))
	}
	if results, err = run("select * from a"); err != nil || len(results[0].Rows) != 2 {
		t.Errorf("rolled back: %d rows, %v", len(results[0].Rows), err)
	}
	// But an explicit one is not the query's to end.
	if _, err = run("begin; insert into a values (3); select 1"); err != nil || c.TxStatus() != 'T' {
		t.Fatalf("%c %v", c.TxStatus(), err)
	}
	_, err = run("select 1; nonsense")
	if pe := wantCode(t, err, "42601"); pe.Position != int32(len("select 1; n")) {
		t.Errorf("position %d in a query of two statements", pe.Position)
	}
	if c.TxStatus() != 'E' {
		t.Errorf("status %c", c.TxStatus())
	}
	_, err = run("select 1")
	wantCode(t, err, "25P02")
	if results, err = run("commit"); err != nil || results[0].CommandTag.String() != "ROLLBACK" || c.TxStatus() != 'I' {
		t.Errorf("%v %c", err, c.TxStatus())
	}
	// Nothing at all.
	for _, sql := range []string{"", " ; ;\n"} {
		if results, err := run(sql); err != nil || len(results) > 1 {
			t.Errorf("%q: %d results, %v", sql, len(results), err)
		}
	}
	_, err = run("select $1::int4")
	wantCode(t, err, "42P02")
	_, err = run("select 'open")
	wantCode(t, err, "42601")

	// A commit that fails is told instead of the tag, by either protocol.
	if _, err = run("create table poison (a int4)"); err == nil {
		t.Error("the failed commit was reported as done")
	}
	wantCode(t, err, "40001")
	err = c.ExecParams(t.Context(), "create table poison (a int4)", nil, nil, nil, nil).Read().Err
	wantCode(t, err, "40001")
	if results, err = run("select 1"); err != nil || len(results) != 1 {
		t.Errorf("afterwards: %v", err)
	}
}

func TestNoticesAndParameters(t *testing.T) {
	ts := startServer(t)
	cc, err := pgx.ParseConfig(ts.dsn("sslmode=disable"))
	if err != nil {
		t.Fatal(err)
	}
	var notices []string
	cc.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		notices = append(notices, n.Severity+" "+n.Code+" "+n.Message)
	}
	c, err := pgx.ConnectConfig(t.Context(), cc)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		if _, err := c.Exec(t.Context(), "notice mind the gap", mode); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(notices, "; "); got != "NOTICE 00000 mind the gap; WARNING 01000 twice; NOTICE 00000 mind the gap; WARNING 01000 twice" {
		t.Error(got)
	}
	if _, err := c.Exec(t.Context(), "set timezone to 'Asia/Kolkata'"); err != nil {
		t.Fatal(err)
	}
	if got := c.PgConn().ParameterStatus("TimeZone"); got != "Asia/Kolkata" {
		t.Errorf("TimeZone reported as %q", got)
	}
	// It is in force at once, within the same query too.
	results, err := c.PgConn().Exec(t.Context(), "set timezone to 'UTC'; select '2026-11-23 00:00+00'::timestamptz; set timezone to 'America/New_York'; select '2026-11-23 00:00+00'::timestamptz").ReadAll()
	if err != nil || string(results[1].Rows[0][0]) != "2026-11-23 00:00:00+00" || string(results[3].Rows[0][0]) != "2026-11-22 19:00:00-05" {
		t.Errorf("%v: %q %q", err, results[1].Rows, results[3].Rows)
	}
}

func TestPgxBatch(t *testing.T) {
	ts := startServer(t)
	c := connect(t, ts, "")
	if _, err := c.Exec(t.Context(), "create table b (x int4)"); err != nil {
		t.Fatal(err)
	}
	var batch pgx.Batch
	for i := range 100 {
		batch.Queue("insert into b values ($1)", i)
	}
	batch.Queue("select x from b")
	br := c.SendBatch(t.Context(), &batch)
	for range 100 {
		if _, err := br.Exec(); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := br.Query()
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil || len(got) != 100 || got[99] != 99 {
		t.Errorf("%d rows, %v", len(got), err)
	}
	if err := br.Close(); err != nil {
		t.Error(err)
	}
	// An error rolls the whole pipeline back to its last Sync.
	var failing pgx.Batch
	failing.Queue("insert into b values ($1)", 100)
	failing.Queue("fail 22012")
	failing.Queue("insert into b values ($1)", 101)
	wantCode(t, c.SendBatch(t.Context(), &failing).Close(), "22012")
	var n []int32
	rows, _ = c.Query(t.Context(), "select x from b")
	if n, err = pgx.CollectRows(rows, pgx.RowTo[int32]); err != nil || len(n) != 100 {
		t.Errorf("%d rows after the roll-back, %v", len(n), err)
	}
}

func TestPgxCopy(t *testing.T) {
	ts := startServer(t)
	c := connect(t, ts, "")
	if _, err := c.Exec(t.Context(), "create table t (id int8, sym text, px numeric, at timestamptz, raw bytea)"); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 23, 14, 30, 0, 0, time.UTC)
	const n = 20_000
	got, err := c.CopyFrom(t.Context(), pgx.Identifier{"t"}, []string{"sym", "id", "px", "at"}, pgx.CopyFromSlice(n, func(i int) ([]any, error) {
		if i%10 == 9 {
			return []any{nil, int64(i), nil, at}, nil
		}
		return []any{fmt.Sprintf("S%d\t\"x\"\n", i), int64(i), pgtype.Numeric{Int: big.NewInt(int64(i)), Exp: -2, Valid: true}, at.Add(time.Duration(i) * time.Microsecond)}, nil
	}))
	if err != nil || got != n {
		t.Fatalf("%d rows, %v", got, err)
	}
	var text, csvText, bin bytes.Buffer
	for dst, sql := range map[*bytes.Buffer]string{&text: "copy t to stdout", &csvText: "copy t to stdout (format csv, header)", &bin: "copy t to stdout binary"} {
		tag, err := c.PgConn().CopyTo(t.Context(), dst, sql)
		if err != nil || tag.RowsAffected() != n {
			t.Fatalf("%s: %v %v", sql, tag, err)
		}
	}
	if want := "0\tS0\\t\"x\"\\n\t0.00\t2026-11-23 14:30:00+00\t\\N\n"; !strings.HasPrefix(text.String(), want) {
		t.Errorf("text: %q", text.String()[:100])
	}
	records, err := csv.NewReader(&csvText).ReadAll()
	if err != nil || len(records) != n+1 || records[0][1] != "sym" || records[2][1] != "S1\t\"x\"\n" || records[10][1] != "" {
		t.Errorf("csv: %d records, %v", len(records), err)
	}
	// Each of the three goes back in and comes out the same.
	csvText.Reset()
	if _, err := c.PgConn().CopyTo(t.Context(), &csvText, "copy t to stdout csv header"); err != nil {
		t.Fatal(err)
	}
	for name, src := range map[string]*bytes.Buffer{"text": &text, "csv header match": &csvText, "binary": &bin} {
		data := src.String()
		if _, err := c.Exec(t.Context(), "create table u (id int8, sym text, px numeric, at timestamptz, raw bytea)"); err != nil {
			t.Fatal(err)
		}
		tag, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader(data), "copy u from stdin "+name)
		if err != nil || tag.RowsAffected() != n {
			t.Fatalf("%s: %v %v", name, tag, err)
		}
		var again bytes.Buffer
		if _, err := c.PgConn().CopyTo(t.Context(), &again, "copy u to stdout "+name); err != nil || again.String() != data {
			t.Errorf("%s: came back different: %v", name, err)
		}
	}
	// Failures leave the connection usable and the table as it was.
	for _, test := range []struct{ sql, data, code, where string }{
		{"copy u from stdin", "1\tx\t1\tnot a time\t\\N\n", "22007", "COPY, line 1, column at"}, {"copy u from stdin", "1\tx\n", "22P04", "line 1"},
		{"copy u from stdin", "1\tx\t1\t\\N\t\\N\t7\n", "22P04", ""}, {"copy u from stdin csv", "1,x,1,,\n2,\"open", "22P04", "line 2"},
		{"copy u from stdin binary", "not binary at all, no", "22P04", ""}, {"copy u from stdin binary", "PG", "22P04", ""},
		{"copy u from stdin", strings.Repeat("1\tx\t1\t\\N\t\\N\n", 5000) + "2\tpoison\t\\N\t\\N\t\\N\n" + strings.Repeat("1\tx\t1\t\\N\t\\N\n", 50_000), "23514", ""},
		{"copy u from stdin csv header match", "id,SYM,px,at,raw\n", "22P04", "line 1"}, {"copy nope from stdin", "", "42P01", ""},
	} {
		_, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader(test.data), test.sql)
		if pe := wantCode(t, err, test.code); !strings.Contains(pe.Where, test.where) {
			t.Errorf("%s: where %q, want %q", test.sql, pe.Where, test.where)
		}
	}
	_, err = c.PgConn().CopyFrom(t.Context(), failingReader{}, "copy u from stdin")
	if err == nil || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("CopyFail: %v", err)
	}
	var buf bytes.Buffer
	if _, err := c.PgConn().CopyTo(t.Context(), &buf, "copy (series 3) to stdout csv"); err != nil || buf.String() != "1,row 1,1.0001\n2,row 2,2.0002\n3,row 3,3.0003\n" {
		t.Errorf("%q %v", buf.String(), err)
	}
	_, err = c.PgConn().CopyTo(t.Context(), &buf, "copy (failrow 3) to stdout")
	wantCode(t, err, "22012")
	rows, err := c.Query(t.Context(), "select id from u")
	if err != nil {
		t.Fatal(err)
	}
	if ids, err := pgx.CollectRows(rows, pgx.RowTo[int64]); err != nil || len(ids) != n {
		t.Errorf("%d rows left in the table, %v", len(ids), err)
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("disk on fire") }

// A large result is streamed: the session's rows are not gathered anywhere.
func TestStreamingMemory(t *testing.T) {
	ts := startServer(t)
	c := connect(t, ts, "")
	rows, err := c.Query(t.Context(), "series 300000")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for rows.Next() {
		n++
	}
	if rows.Err() != nil || n != 300_000 {
		t.Fatalf("%d rows, %v", n, rows.Err())
	}
	ts.mu.Lock()
	conn := ts.sessions[c.PgConn().PID()]
	ts.mu.Unlock()
	// The session's goroutine must have ended before its buffer is looked at.
	_ = c.Close(t.Context())
	_ = ts.Close()
	if cap(conn.out.buf) > 4*sendBufferBytesDefault {
		t.Errorf("send buffer of %d bytes", cap(conn.out.buf))
	}
}

func BenchmarkRows(b *testing.B) {
	ts := startServer(b)
	c := connect(b, ts, "")
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeSimpleProtocol} {
		b.Run(mode.String(), func(b *testing.B) {
			rows, err := c.Query(context.Background(), fmt.Sprintf("series %d", b.N), mode)
			if err != nil {
				b.Fatal(err)
			}
			for rows.Next() {
				_ = rows.RawValues()
			}
			if rows.Err() != nil {
				b.Fatal(rows.Err())
			}
		})
	}
}
