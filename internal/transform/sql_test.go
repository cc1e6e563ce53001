package transform

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/engine"
)

func newEngine(t testing.TB) (e *engine.Engine, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "stage")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(t.Context(), engine.Options{TempDir: t.TempDir(), AllowedDirs: []string{dir}, MemoryLimitBytes: 400_000_000, Threads: 2})
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

func newSQL(t testing.TB, e *engine.Engine, dir, statement string) *SQL {
	t.Helper()
	s, err := NewSQL(t.Context(), SQLOptions{Statement: statement, Engine: e, Dir: dir})
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

const tradeColumns = `(symbol varchar, price decimal(18,4), qty bigint, executed_at timestamptz, trade_date date, member varchar, ok boolean, n integer, x double precision)`

func trade(i int) []byte {
	return fmt.Appendf(nil, `{"symbol":"S%03d","price":%d.%04d,"qty":%d,"executed_at":"2026-11-27T14:30:%02d.%06dZ","trade_date":"2026-11-27","member":"MEMBER%02d","ok":true,"n":%d,"x":%d.25,"match":%d,"venue":"XNAS","leg":"B","currency":"USD","account":"A-%08d","comment":"none"}`+"\n",
		i%500, i%1000, i%10000, i%900+100, i%60, i%1000000, i%40, i%9+1, i, i, i)
}

func tradeBatch(n int) []Record {
	out := make([]Record, n)
	for i := range out {
		out[i] = Record{ID: fmt.Sprintf("%062d", i), ArrivedAt: time.Now(), Data: trade(i)}
	}
	return out
}

// cpuTime is what the process has used: on a shared machine it says more than
// the clock.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkSQL(b *testing.B) {
	e, dir := newEngine(b)
	wide := make([]string, 60)
	for i := range wide {
		wide[i] = fmt.Sprintf("n + %d AS n%d", i, i)
	}
	for _, bc := range []struct{ name, sql string }{
		{"wide", "SELECT " + strings.Join(wide, ", ") + " FROM records AS r " + tradeColumns},
		{"list", "SELECT symbol, price, qty, price * qty AS notional, executed_at, trade_date, md5(member) AS member, n, x FROM records AS r " + tradeColumns + " WHERE qty > 150"},
		{"filter", "SELECT symbol AS _partition_symbol FROM records AS r (symbol varchar, qty bigint) WHERE qty > 150"},
		{"data", "SELECT data->>'symbol' AS symbol, CAST(data->>'price' AS decimal(18,4)) AS price, data->'match' AS match FROM records WHERE CAST(data->>'qty' AS bigint) > 150"},
	} {
		s := newSQL(b, e, dir, bc.sql)
		for _, n := range []int{500, 3300, 13000} {
			in := tradeBatch(n)
			size := 0
			for i := range in {
				size += len(in[i].Data)
			}
			b.Run(fmt.Sprintf("%s/%d", bc.name, n), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				before := cpuTime(b)
				for b.Loop() {
					if _, err := s.Apply(b.Context(), in); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "records/s")
				b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N*n), "cpu-ns/record")
			})
		}
	}
}

// apply runs one record through a statement of its own and describes what came.
func apply(t testing.TB, e *engine.Engine, dir, statement, document string) string {
	t.Helper()
	s, err := NewSQL(t.Context(), SQLOptions{Statement: statement, Engine: e, Dir: dir})
	if err != nil {
		return err.Error()
	}
	defer func() { _ = s.Close() }()
	got, err := s.Apply(t.Context(), records(document))
	if err != nil {
		return err.Error()
	}
	return describe(got[0])
}

// TestSQLValues holds what one select list gives for one document.
func TestSQLValues(t *testing.T) {
	e, dir := newEngine(t)
	const full = `{"symbol":"AB\"é\n","price":12345678901234.5678,"qty":9223372036854775807,"executed_at":"2026-11-27T10:00:00.123456789+02:00","trade_date":"2026-11-27","member":"m","ok":true,"n":-7,"x":0.1}`
	for _, tc := range []struct{ list, document, want string }{
		{`*`, full, `Ok {"symbol":"AB\"é\n","price":12345678901234.5678,"qty":9223372036854775807,"executed_at":"2026-11-27T08:00:00.123456Z","trade_date":"2026-11-27","member":"m","ok":true,"n":-7,"x":0.1}`},
		{`r.*, 1 AS one`, `{}`, `Ok {"symbol":null,"price":null,"qty":null,"executed_at":null,"trade_date":null,"member":null,"ok":null,"n":null,"x":null,"one":1}`},
		{`symbol, R.PRICE AS p`, `{"symbol":"A","price":"0.1"}`, `Ok {"symbol":"A","p":0.1000}`},
		{`SYMBOL`, `{"symbol":"A"}`, `Ok {"symbol":"A"}`},
		{`symbol AS "a""b\c"`, `{"symbol":"A"}`, `Ok {"a\"b\\c":"A"}`},
		// exact numbers
		{`price * qty AS a`, `{"price":12345678901234.5678,"qty":100000}`, `Ok {"a":1234567890123456780.0000}`},
		{`price + 0.0001 AS a`, `{"price":99999999999999.9998}`, `Ok {"a":99999999999999.9999}`},
		{`price / 3 AS a`, `{"price":1}`, `Ok {"a":0.333333333333333}`},
		{`qty / 2 AS a, qty % 2 AS b, -qty AS c`, `{"qty":9223372036854775807}`, `Ok {"a":4611686018427387903,"b":1,"c":-9223372036854775807}`},
		{`CAST(price AS decimal(18,2)) AS a`, `{"price":1.005}`, `Ok {"a":1.01}`},
		{`CAST(price AS decimal(38,20)) AS a`, `{"price":1.0005}`, `Ok {"a":1.00050000000000000000}`},
		{`round(price, 2) AS a, abs(price) AS b`, `{"price":-2.345}`, `Ok {"a":-2.35,"b":2.3450}`},
		{`CAST('123456789012345678901234567890.12' AS decimal(38,2)) AS a`, `{}`, `Ok {"a":123456789012345678901234567890.12}`},
		{`x * 2 AS a, CAST(x AS real) AS b, x / 4 AS c`, `{"x":0.25}`, `Ok {"a":0.5,"b":0.25,"c":0.0625}`},
		// time
		{`date_trunc('minute', executed_at) AS a, CAST(executed_at AS date) AS b, CAST(CAST(executed_at AS timestamp) AS time) AS c, CAST(executed_at AS timestamp) AS d`, `{"executed_at":"2026-11-27T23:59:59.5-05:00"}`, `Ok {"a":"2026-11-28T04:59:00Z","b":"2026-11-28","c":"04:59:59.5","d":"2026-11-28T04:59:59.5"}`},
		{`timezone('America/New_York', executed_at) AS a, trade_date + 1 AS b, extract(year FROM trade_date) AS c`, `{"executed_at":"2026-11-28T04:59:59Z","trade_date":"2026-12-31"}`, `Ok {"a":"2026-11-27T23:59:59","b":"2027-01-01","c":2026}`},
		// text
		{`regexp_replace(member, '.', '*', 'g') AS a, left(symbol, 2) || '…' AS b, md5(symbol) AS c, lpad(member, 5, '0') AS d`, `{"member":"abc","symbol":"XYZ"}`, `Ok {"a":"***","b":"XY…","c":"e65075d550f9b5bf9992fa1d71a131be","d":"00abc"}`},
		{`symbol IS DISTINCT FROM member AS a, coalesce(member, 'none') AS b, nullif(symbol, 'A') AS c, symbol IN ('A', 'B') AS d, symbol LIKE 'A%' AS f, symbol ~ '^A$' AS g`, `{"symbol":"A"}`, `Ok {"a":true,"b":"none","c":null,"d":true,"f":true,"g":true}`},
		{`CASE WHEN n > 0 THEN 'up' WHEN n < 0 THEN 'down' ELSE 'flat' END AS a, substring(symbol FROM 2 FOR 1) AS b, trim(both ' ' from member) AS c`, `{"n":-1,"symbol":"XYZ","member":" m "}`, `Ok {"a":"down","b":"Y","c":"m"}`},
		// nested
		{`[n, 2] AS a, {'k': price, 'd': trade_date} AS b, to_json([price]) AS c, json_object('p', price, 't', executed_at) AS d`, `{"n":1,"price":1.5,"trade_date":"2026-11-27"}`, `Ok {"a":[1,2],"b":{"k":1.5000,"d":"2026-11-27"},"c":[1.5000],"d":{"p":1.5000,"t":null}}`},
		// reserved names
		{`symbol, symbol AS _partition_symbol, n AS _partition_n, trade_date AS "_partition_trade date", 'd' AS _database, symbol AS _table, 'insert' AS _operation`, `{"symbol":"A","n":5,"trade_date":"2026-11-27"}`, `Ok {"symbol":"A"} map[n:5 symbol:A trade date:2026-11-27] d.A insert`},
		{`symbol AS _partition_s`, "{\"symbol\":\"A\", \"more\":[1.50]}\n", "Ok {\"symbol\":\"A\", \"more\":[1.50]}\n map[s:A]"},
		{`CAST(NULL AS varchar) AS _table, symbol AS _operation`, `{}`, `Ok {}`},
		{`symbol AS _operation`, `{"symbol":"upsert"}`, `SQL.CastError: record id-0: "_operation": it is "upsert": it must be insert, update or delete`},
		{`symbol AS _partition_s, n`, `{"n":1}`, `SQL.CastError: record id-0: "_partition_s": it is null`},
		{`json_object('s', symbol) AS _document, symbol AS _table`, `{"symbol":"A"}`, `Ok {"s":"A"} .A `},
		{`symbol || ',' || n AS _document`, `{"symbol":"A","n":1}`, `Ok A,1`},
		{`symbol AS _document`, `{}`, `SQL.CastError: record id-0: "_document": it is null`},
		// failures
		{`100 / n AS a`, `{"n":0}`, `SQL.CastError: record id-0: division by zero`},
		{`price / n AS a`, `{"price":1,"n":0}`, `SQL.CastError: record id-0: division by zero`},
		{`CAST(symbol AS integer) AS a`, `{"symbol":"x"}`, `SQL.CastError: record id-0: Could not convert string 'x' to INT32`},
		{`TRY_CAST(symbol AS integer) AS a`, `{"symbol":"x"}`, `Ok {"a":null}`},
		{`qty + 1 AS a`, `{"qty":9223372036854775807}`, `SQL.CastError: record id-0: Overflow in addition`},
		{`price + 0.0001 AS a`, `{"price":99999999999999.9999}`, `SQL.CastError: record id-0: Overflow in addition`},
		{`CAST(qty AS integer) AS a`, `{"qty":3000000000}`, `SQL.CastError: record id-0: Type INT64 with value 3000000000 can't be cast`},
		{`CAST(price AS decimal(5,2)) AS a`, `{"price":1000}`, `SQL.CastError: record id-0: Casting value "1000.0000" to type DECIMAL(5,2) failed`},
		{`sqrt(x) / 0 AS a`, `{"x":1}`, `SQL.CastError: record id-0: division by zero`},
		{`CAST(symbol AS double precision) AS a`, `{"symbol":"NaN"}`, `SQL.CastError: record id-0: "a": a number that is infinite or none has no JSON form`},
		{`CAST(symbol AS date) AS a`, `{"symbol":"infinity"}`, `SQL.CastError: record id-0: "a": an infinite date has no JSON form`},
		// documents
		{`n`, `{"n":1.5}`, `SQL.MalformedData: record id-0: Inexact: member "n" at byte 5: has digits beyond`},
		{`n`, `{"n":"1"}`, `Ok {"n":1}`},
		{`n`, `{"price":1.00001}`, `SQL.MalformedData: record id-0: Inexact`},
		{`n`, `{"n":1,"n":2}`, `SQL.MalformedData: record id-0: DuplicateMember`},
		{`n`, `{"n":[1]}`, `SQL.MalformedData: record id-0: WrongType: member "n" at byte 5: is an array`},
		{`n`, `[]`, `SQL.MalformedData: record id-0: NotAnObject`},
		{`n`, ``, `SQL.MalformedData: record id-0: MalformedJSON: empty document`},
		{`n`, `{"n":1}{"n":2}`, `SQL.MalformedData: record id-0: MalformedJSON`},
		{`n`, "{\"symbol\":\"\xff\"}", `SQL.MalformedData: record id-0: InvalidUTF8`},
		{`n`, `{"N":1}`, `Ok {"n":null}`},
	} {
		got := apply(t, e, dir, "SELECT "+tc.list+" FROM records AS r "+tradeColumns, tc.document)
		if got != tc.want && (!strings.HasPrefix(tc.want, "SQL.") || !strings.HasPrefix(got, tc.want)) {
			t.Errorf("%s of %s\n got %s\nwant %s", tc.list, tc.document, got, tc.want)
		}
	}
}

// TestSQLOfText is the form without a column definition list.
func TestSQLOfText(t *testing.T) {
	e, dir := newEngine(t)
	deep := strings.Repeat(`{"a":`, 70) + "1" + strings.Repeat("}", 70)
	for _, tc := range []struct{ sql, document, want string }{
		{`SELECT data FROM records`, "a \"line\"\twith\\ é\n", `Ok {"data":"a \"line\"\twith\\ é\n"}`},
		{`SELECT * FROM records`, `{}`, `Ok {"data":"{}"}`},
		{`SELECT split_part(data, ',', 1) AS a, CAST(split_part(data, ',', 2) AS decimal(18,4)) AS b FROM records`, "x,1.5", `Ok {"a":"x","b":1.5000}`},
		{`SELECT split_part(data, ',', 1) AS a, CAST(split_part(data, ',', 2) AS decimal(18,4)) AS b FROM records`, "x,", `SQL.CastError: record id-0: Could not convert string ""`},
		{`SELECT data->>'s' AS s, CAST(data->>'p' AS decimal(18,4)) AS p, data->'legs' AS legs, data->'legs'->0->>'q' AS q, json_array_length(data, 'legs') AS n FROM records`,
			`{"s":"A","p":123.4567,"legs":[{"q":"1"},null,1.50,"é"]}`, `Ok {"s":"A","p":123.4567,"legs":[{"q":"1"},null,1.5,"é"],"q":"1","n":4}`},
		{`SELECT CAST(data->>'n' AS bigint) AS n, data->'big' AS big FROM records`, `{"n":9223372036854775807,"big":123456789012345678901234567890}`, `Ok {"n":9223372036854775807,"big":123456789012345678901234567890}`},
		{`SELECT data::json AS whole FROM records`, ` {"a" : 1.50}`, `Ok {"whole": {"a" : 1.50}}`},
		{`SELECT data AS _document, data->>'v' AS _partition_venue FROM records AS r WHERE r.data->>'v' <> 'X'`, `{"v":"Y","p":1.50}`, `Ok {"v":"Y","p":1.50} map[venue:Y]`},
		{`SELECT data AS _document, data->>'v' AS _partition_venue FROM records AS r WHERE r.data->>'v' <> 'X'`, `{"v":"X"}`, `Dropped`},
		{`SELECT data AS _document, data->>'v' AS _partition_venue FROM records AS r WHERE r.data->>'v' <> 'X'`, `{}`, `Dropped`},
		// what JSON functions would change unseen
		{`SELECT data->>'p' AS p FROM records`, `{"p":123456789012.3456}`, `SQL.MalformedData: record id-0: Inexact: JSON functions read the number 123456789012.3456`},
		{`SELECT data->>'p' AS p FROM records`, `{"p":12345678901.34560000}`, `Ok {"p":"12345678901.3456"}`},
		{`SELECT data->>'p' AS p FROM records`, `{"p":-0.000000123456789012345}`, `Ok {"p":"-1.23456789012345e-7"}`},
		{`SELECT data->>'p' AS p FROM records`, `{"q":[{"p":1234567890123456e-2}]}`, `SQL.MalformedData: record id-0: Inexact`},
		{`SELECT data->>'p' AS p FROM records`, `{"p":"123456789012.3456"}`, `Ok {"p":"123456789012.3456"}`},
		{`SELECT data->>'p' AS p FROM records`, `{"p":NaN}`, `SQL.MalformedData: record id-0: MalformedJSON: no JSON at byte 5`},
		{`SELECT data->>'p' AS p FROM records`, `{"p":1,}`, `SQL.MalformedData: record id-0: MalformedJSON`},
		{`SELECT data->>'p' AS p FROM records`, `nothing`, `SQL.MalformedData: record id-0: MalformedJSON`},
		{`SELECT data->>'p' AS p FROM records`, "\xff", `SQL.MalformedData: record id-0: InvalidUTF8`},
		{`SELECT data->>'p' AS p FROM records`, deep, `SQL.MalformedData: record id-0: MalformedJSON`},
		{`SELECT data::json AS p FROM records`, `nothing`, `SQL.CastError: record id-0: Malformed JSON`},
		{`SELECT repeat(data, 100) AS a FROM records`, strings.Repeat("x", 20_000), `SQL.OutputTooLarge: record id-0: `},
		{`SELECT repeat(data, 100) AS _table FROM records`, strings.Repeat("x", 20_000), `SQL.CastError: record id-0: "_table": it is longer than 1024 bytes`},
		{`SELECT data FROM records`, strings.Repeat("x", MaxRecordBytes-20), `Ok {"data":"xxx`},
	} {
		got := apply(t, e, dir, tc.sql, tc.document)
		if got != tc.want && (!strings.HasPrefix(tc.want, "SQL.") && len(got) < 1000 || !strings.HasPrefix(got, tc.want)) {
			t.Errorf("%s of %.100s\n got %.300s\nwant %s", tc.sql, tc.document, got, tc.want)
		}
	}
}
