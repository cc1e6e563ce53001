package engine

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestAppendJSON(t *testing.T) {
	e, _ := newEngine(t)
	s := newSession(t, e)
	for _, tc := range []struct{ expr, want string }{
		{`true`, `true`},
		{`CAST(NULL AS INTEGER)`, `null`},
		{`CAST(-7 AS TINYINT)`, `-7`},
		{`CAST(4294967295 AS UINTEGER)`, `4294967295`},
		{`9223372036854775807`, `9223372036854775807`},
		{`-170141183460469231731687303715884105727::HUGEINT`, `-170141183460469231731687303715884105727`},
		{`CAST('1.5' AS DECIMAL(4,2))`, `1.50`},
		{`CAST('-0.05' AS DECIMAL(9,4))`, `-0.0500`},
		{`CAST('123456789012345.678' AS DECIMAL(18,3))`, `123456789012345.678`},
		{`CAST('-1.5' AS DECIMAL(38,2))`, `-1.50`},
		{`CAST('999999999999999999999999999999999999.99' AS DECIMAL(38,2))`, `999999999999999999999999999999999999.99`},
		{`CAST('-999999999999999999999999999999999999.99' AS DECIMAL(38,2))`, `-999999999999999999999999999999999999.99`},
		{`CAST('0.00' AS DECIMAL(18,2))`, `0.00`},
		{`CAST(0.1 AS DOUBLE)`, `0.1`},
		{`CAST(1e21 AS DOUBLE)`, `1e+21`},
		{`CAST(123456789 AS DOUBLE)`, `123456789`},
		{`CAST(0.1 AS FLOAT)`, `0.1`},
		{`'a"b\' || chr(10) || chr(1) || 'é<'`, "\"a\\\"b\\\\\\n\\u0001é<\""},
		{`'a string longer than twelve bytes'`, `"a string longer than twelve bytes"`},
		{`CAST('{"a":[1.50,{"b":null}]}' AS JSON)`, `{"a":[1.50,{"b":null}]}`},
		{`DATE '2026-11-27'`, `"2026-11-27"`},
		{`DATE '0001-01-01'`, `"0001-01-01"`},
		{`TIMESTAMPTZ '9999-12-31 23:59:59.999999+00'`, `"9999-12-31T23:59:59.999999Z"`},
		{`TIMESTAMP '1969-12-31 23:59:59.5'`, `"1969-12-31T23:59:59.5"`},
		{`DATE '0001-01-01 (BC)'`, `!a date outside`},
		{`TIME '01:02:03.04'`, `"01:02:03.04"`},
		{`TIMESTAMP '2026-11-27 01:02:03'`, `"2026-11-27T01:02:03"`},
		{`TIMESTAMPTZ '2026-11-27 01:02:03.000006+02'`, `"2026-11-26T23:02:03.000006Z"`},
		{`[1.50, NULL]`, `[1.50,null]`},
		{`{'a': CAST(0.5 AS DOUBLE), 'b"': [DATE '2026-11-27'], 'c': CAST('[1]' AS JSON)}`, `{"a":0.5,"b\"":["2026-11-27"],"c":[1]}`},
		{`map(['k'], [1])`, `[{"key":"k","value":1}]`},
		{`array_value(1, 2)`, `[1,2]`},
		{`INTERVAL 1 day`, `"1 day"`},
		{`CAST('00000000-0000-0000-0000-00000000000a' AS UUID)`, `"00000000-0000-0000-0000-00000000000a"`},
		{`CAST('NaN' AS DOUBLE)`, `!a number`},
		{`CAST('-inf' AS FLOAT)`, `!a number`},
		{`[CAST('inf' AS DOUBLE)]`, `!a number`},
		{`{'a': CAST('infinity' AS DATE)}`, `!an infinite date`},
		{`CAST('infinity' AS TIMESTAMP)`, `!an infinite timestamp`},
		{`CAST('-infinity' AS TIMESTAMPTZ)`, `!an infinite timestamp`},
		{`DATE '10000-01-01'`, `!a date outside`},
		{`encode('x')`, `!a value of bytes`},
		{`CAST('{"a":NaN}' AS JSON)`, `!a value of the type JSON`},
	} {
		rows, err := s.Query(t.Context(), Query{SQL: "SELECT " + tc.expr})
		if err != nil {
			t.Errorf("%s: %v", tc.expr, err)
			continue
		}
		if err := rows.Step(); err != nil {
			t.Errorf("%s: %v", tc.expr, err)
			_ = rows.Close()
			continue
		}
		got, err := rows.AppendJSON([]byte("x"), 0, 1<<20)
		if message, refused := strings.CutPrefix(tc.want, "!"); refused {
			var x *Error
			if !errors.As(err, &x) || x.Kind != Conversion || !strings.Contains(x.Message, message) {
				t.Errorf("%s: %s %v, want the error %s", tc.expr, got, err, message)
			}
		} else if err != nil || string(got) != "x"+tc.want || !json.Valid(got[1:]) {
			t.Errorf("%s: %s %v, want %s", tc.expr, got, err, tc.want)
		}
		if null := rows.Null(0); null != (tc.want == "null") {
			t.Errorf("%s: null is %t", tc.expr, null)
		}
		if err := rows.Step(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v behind the last row", tc.expr, err)
		}
		_ = rows.Close()
	}
}

// Values read in place are the values of Next, over several chunks and with
// nulls among them.
func TestStepReadsWhatNextReads(t *testing.T) {
	e, _ := newEngine(t)
	s := newSession(t, e)
	q := Query{SQL: `SELECT CASE WHEN i % 3 > 0 THEN i END AS a, CASE WHEN i % 5 > 0 THEN repeat('x', CAST(i % 40 AS INTEGER)) END AS b, CAST(i AS DECIMAL(18,4)) AS c FROM range(5000) t(i)`}
	want := mustRows(t, s, q)
	rows, err := s.Query(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for n := 0; ; n++ {
		err := rows.Step()
		if errors.Is(err, io.EOF) {
			if n != len(want) {
				t.Fatalf("%d rows, want %d", n, len(want))
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		line := make([]string, 3)
		for i := range line {
			switch {
			case rows.Null(i):
				line[i] = "NULL"
			case i == 1:
				line[i] = string(must(rows.AppendString(nil, i, 1<<20)))
			default:
				line[i] = string(AppendText(nil, rows.Value(i), nil))
			}
		}
		if got := strings.Join(line, "|"); got != want[n] {
			t.Fatalf("row %d is %s, want %s", n, got, want[n])
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestAppendJSONIsBounded(t *testing.T) {
	e, _ := newEngine(t)
	rows, err := newSession(t, e).Query(t.Context(), Query{SQL: "SELECT repeat('x', 5000000), range(5000000), 1"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	if err := rows.Step(); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if b, err := rows.AppendJSON(nil, i, 1000); !errors.Is(err, ErrTooLong) || len(b) > 1100 {
			t.Errorf("column %d: %d bytes, %v", i, len(b), err)
		}
	}
	if _, err := rows.AppendString(nil, 0, 1000); !errors.Is(err, ErrTooLong) {
		t.Error(err)
	}
	if b, err := rows.AppendJSON([]byte("0"), 2, 1000); err != nil || string(b) != "01" {
		t.Errorf("%s %v", b, err)
	}
}

func FuzzAppendJSONString(f *testing.F) {
	f.Add("a\"\\\x00\x1f\u2028é")
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) {
			return
		}
		var back string
		if err := json.Unmarshal(AppendJSONString(nil, s), &back); err != nil || back != s {
			t.Fatalf("%q came back as %q, %v", s, back, err)
		}
	})
}
