package transform

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tapehouse/tapehouse/internal/engine"
)

// TestSQLRefusals: what is refused when the transform is made, by name and with
// the place. The mark ¶ stands before the place that the error tells.
func TestSQLRefusals(t *testing.T) {
	e, dir := newEngine(t)
	const from = " FROM records AS r (symbol varchar, price decimal(18,4), n integer, done timestamptz)"
	for _, tc := range []struct{ sql, want string }{
		{``, "want exactly one SELECT"},
		{`¶nonsense`, "syntax error"},
		{`SELECT 1 AS a FROM records; SELECT 2 AS b FROM records`, "want exactly one SELECT"},
		{`DELETE FROM records`, "want one SELECT"},
		{`SELECT 1 AS a`, "reads nothing"},
		{`SELECT a ¶FROM trades`, `the table "trades" is refused`},
		{`SELECT a ¶FROM lake.records`, `the table "records" is refused`},
		{`SELECT n ¶FROM records AS r (n integer), records`, "a join is refused"},
		{`SELECT n ¶FROM records JOIN x USING (n)`, "a join is refused"},
		{`SELECT a ¶FROM (SELECT 1 AS a)`, "a subquery is refused"},
		{`SELECT a ¶FROM range(5) t(a)`, "a table function is refused"},
		{`SELECT a ¶FROM read_csv('/etc/passwd')`, "a table function is refused"},
		{`SELECT a ¶FROM '/etc/passwd'`, `the table "/etc/passwd" is refused`},
		{`¶VALUES (1)`, "VALUES is refused"},
		{`¶WITH x AS (SELECT 1) SELECT n` + from, "WITH is refused"},
		{`SELECT n` + from + ` ¶UNION ALL SELECT 1`, "a set operation is refused"},
		{`SELECT ¶DISTINCT n` + from, "DISTINCT is refused"},
		{`SELECT n` + from + ` ¶ORDER BY n`, "ORDER BY is refused"},
		{`SELECT n` + from + ` ¶LIMIT 1`, "LIMIT and OFFSET are refused"},
		{`SELECT n` + from + ` ¶OFFSET 1`, "LIMIT and OFFSET are refused"},
		{`SELECT n` + from + ` ¶GROUP BY n`, "GROUP BY is refused"},
		{`SELECT n` + from + ` ¶GROUP BY ALL`, "GROUP BY is refused"},
		{`SELECT 1 AS a` + from + ` ¶HAVING true`, "HAVING is refused"},
		{`SELECT n` + from + ` ¶QUALIFY true`, "QUALIFY is refused"},
		{`SELECT n` + from + ` ¶USING SAMPLE 1`, "a sample is refused"},
		{`SELECT n ¶FROM records TABLESAMPLE 1%`, "a sample is refused"},
		{`SELECT ¶sum(n) AS a` + from, "the function sum is refused"},
		{`SELECT ¶count(*) AS a` + from, "the function count_star is refused"},
		{`SELECT ¶string_agg(symbol ORDER BY n) AS a` + from, "aggregate string_agg is refused"},
		{`SELECT ¶max(n) FILTER (WHERE true) AS a` + from, "aggregate max is refused"},
		{`SELECT ¶row_number() OVER () AS a` + from, "the window function row_number is refused"},
		{`SELECT n` + from + ` WHERE n = ¶(SELECT 1)`, "a subquery is refused"},
		{`SELECT n` + from + ` WHERE ¶EXISTS (SELECT 1)`, "a subquery is refused"},
		{`SELECT ¶unnest([1]) AS a` + from, "the function unnest is refused: one record gives at most one"},
		{`SELECT ¶now() AS a` + from, "the function now is refused: a replay must give the same"},
		{`SELECT n` + from + ` WHERE price > 1 AND ¶current_date > DATE '2026-01-01'`, "current_date is refused: a replay"},
		{`SELECT ¶current_timestamp AS a` + from, "current_timestamp is refused: a replay"},
		{`SELECT ¶age(DATE '2020-01-01') AS a` + from, "the function age is refused"},
		{`SELECT ¶random() AS a` + from, "the function random is refused: a replay"},
		{`SELECT ¶gen_random_uuid() AS a` + from, "the function gen_random_uuid is refused"},
		{`SELECT ¶current_user AS a` + from, "current_user is refused"},
		{`SELECT ¶getenv('HOME') AS a` + from, "the function getenv is refused"},
		{`SELECT ¶nextval('x') AS a` + from, "the function nextval is refused"},
		{`SELECT ¶query('x') AS a` + from, "the function query is refused"},
		{`SELECT ¶read_text('/etc/passwd') AS a` + from, "the function read_text is refused"},
		{`SELECT ¶levenshtein(symbol, symbol) AS a` + from, "the function levenshtein is refused"},
		{`SELECT ¶range(n) AS a` + from, "the function range is refused"},
		{`SELECT ¶repeat(symbol, n) AS a` + from, "argument 2 of the function repeat must be a constant number up to 100"},
		{`SELECT ¶repeat(symbol, 101) AS a` + from, "argument 2 of the function repeat must be"},
		{`SELECT ¶lpad(symbol, 100000, 'x') AS a` + from, "argument 2 of the function lpad must be"},
		{`SELECT ¶replace(symbol, 'a', symbol) AS a` + from, "argument 3 of the function replace must be a constant text"},
		{`SELECT ¶regexp_replace(symbol, symbol, '') AS a` + from, "argument 2 of the function regexp_replace must be"},
		{`SELECT ¶printf(symbol, n) AS a` + from, "argument 1 of the function printf must be"},
		{`SELECT ¶symbol->>'a' AS a` + from, "->> reads JSON, numbers as doubles"},
		{`SELECT ¶json_object('a', 1.5)->'a' AS a FROM records`, "-> reads JSON"},
		{`SELECT (data->'a')¶::decimal(18,4) AS a FROM records`, "a JSON number is a double on its way to a decimal"},
		{`SELECT ¶list_transform([n], x -> x + 1) AS a` + from, "the function list_transform is refused"},
		{`SELECT ¶missing` + from, `there is no column "missing": declare it`},
		{`SELECT ¶symbol FROM records`, `without a column definition list the only column is data`},
		{`SELECT ¶x.symbol` + from, `there is no column "x.symbol"`},
		{`SELECT ¶_transform_index` + from, `there is no column "_transform_index"`},
		{`SELECT price AS p, n` + from + ` WHERE ¶p > 1`, `there is no column "p"`},
		{`SELECT price ¶+ 1` + from, "element 1 of the select list has no name"},
		{`SELECT n, ¶n` + from, `the name "n" stands twice`},
		{`SELECT n, ¶symbol AS n` + from, `the name "n" stands twice`},
		{`SELECT ¶* EXCLUDE (n)` + from, "only * and r.* are supported"},
		{`SELECT ¶x.*` + from, `there is no table "x"`},
		{`SELECT ¶COLUMNS('n')` + from, "of the forms of *"},
		{`SELECT $1 AS a` + from, "a parameter has no value"},
		{`SELECT ¶#1 AS a` + from, "name a column"},
		{`SELECT ¶encode(symbol) AS a` + from, "is bytes"},
		{`SELECT ¶to_days(n) AS a` + from, "is an interval"},
		{`SELECT [n] AS _table` + from, "is a list or a struct"},
		{`SELECT n, ¶symbol AS _document` + from, "_document is the whole document"},
		{`SELECT ¶sin(symbol) AS a` + from, "No function matches"},
		{`SELECT CAST(n AS nonsense) AS a` + from, `type "nonsense" does not exist`},
		{`SELECT CAST(done AS time) AS a` + from, "Unimplemented type for cast"},
		{`SELECT n` + from + ` WHERE ¶symbol`, "WHERE takes a boolean, not VARCHAR"},
		// the column definition list
		{`SELECT n FROM records AS r (¶n)`, `column "n" has no type`},
		{`SELECT n FROM records AS r ¶()`, "lacks a column"},
		{`SELECT n FROM records AS r ¶(n integer,)`, "lacks a column"},
		{`SELECT n FROM records AS r ¶(n integer`, "does not end"},
		{`SELECT n FROM records AS r (n integer, ¶N bigint)`, `column "N" is declared twice`},
		{`SELECT n FROM records AS r (n ¶timestamp)`, "a local time names no instant"},
		{`SELECT n FROM records AS r (n ¶json)`, "read nested members from the text"},
		{`SELECT n FROM records AS r (n ¶integer[])`, "the type integer[] is not supported"},
		{`SELECT n FROM records AS r (n ¶smallint)`, "the type smallint is not supported: want boolean"},
		{`SELECT n FROM records AS r (n ¶decimal(19,4))`, "precision 1 to 18"},
		{`SELECT n FROM records AS r (n ¶decimal(4,5))`, "a scale within it"},
		{`SELECT n FROM records AS r (n ¶integer(5))`, "not supported"},
		{`SELECT n FROM records AS r (¶_transform_index bigint)`, "are reserved"},
		{`SELECT n FROM records AS r (¶5 bigint)`, "is no column name"},
		{`SELECT n ¶FROM records AS r (n integer) TABLESAMPLE 10%`, "a sample is refused"},
		{"SELECT n, 'é' AS e, ¶now() AS a" + from, "now is refused"},
		{`SELECT 1 AS a FROM records -- ` + strings.Repeat("x", statementMax), "longer than"},
		{"SELECT 1 AS a\x00 FROM records", "no UTF-8 text"},
	} {
		sql := strings.Replace(tc.sql, "¶", "", 1)
		s, err := NewSQL(t.Context(), SQLOptions{Statement: sql, Engine: e, Dir: dir})
		if err == nil {
			t.Errorf("%.200s: was taken", sql)
			_ = s.Close()
			continue
		}
		var x *StatementError
		if !errors.As(err, &x) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%.200s: %v, want %s", sql, err, tc.want)
			continue
		}
		if at := strings.Index(tc.sql, "¶"); at >= 0 && x.Position != at+1 {
			t.Errorf("%.200s: %v: position %d, want %d", sql, err, x.Position, at+1)
		} else if at >= 0 && !strings.Contains(err.Error(), fmt.Sprintf("character %d:", utf8.RuneCountInString(tc.sql[:at])+1)) {
			t.Errorf("%.200s: %v does not tell the character", sql, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("refused statements left %v, %v", entries, err)
	}
}

// Every function that a statement may call is there, gives one value a row, the
// same each time, and passes the engine's allow-list.
func TestRowFunctionsAreWhatTheyShouldBe(t *testing.T) {
	e, _ := newEngine(t)
	s, err := e.InternalSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	rows, err := s.Query(t.Context(), engine.Query{SQL: `SELECT lower(function_name), bool_and(function_type = 'macro' OR function_type = 'scalar' AND stability = 'CONSISTENT')
		FROM duckdb_functions() WHERE function_type <> 'pragma' AND (function_type <> 'table' OR function_name <> 'repeat') GROUP BY 1`})
	if err != nil {
		t.Fatal(err)
	}
	right := map[string]bool{}
	for rows.Step() == nil {
		right[rows.Value(0).(string)] = rows.Value(1) == true
	}
	_ = rows.Close()
	for name := range rowFunctions {
		if ok, there := right[name]; !ok {
			t.Errorf("%s: there is %t, of the right kind %t", name, there, ok)
		}
		if refusedFunctions[name] != "" {
			t.Errorf("%s is both allowed and refused", name)
		}
		var denied *engine.DeniedError
		if c := name[0]; c == '_' || c >= 'a' && c <= 'z' {
			if err := e.Check(t.Context(), "SELECT "+engine.QuoteIdentifier(name)+"(1)"); errors.As(err, &denied) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for name := range jsonReaders {
		if !rowFunctions[name] {
			t.Errorf("%s is no row function", name)
		}
	}
	for name := range jsonValues {
		if !jsonReaders[name] {
			t.Errorf("%s reads no JSON", name)
		}
	}
	for name := range constantArguments {
		if !rowFunctions[name] {
			t.Errorf("%s is no row function", name)
		}
	}
}

// The lexer keeps what is no column definition list as it is, and the list's
// place in the text.
func TestDefine(t *testing.T) {
	for _, tc := range []struct{ sql, text string }{
		{`SELECT a FROM records AS r(a integer) WHERE a > 0`, `SELECT a FROM records AS r            WHERE a > 0`},
		{"select 1 from RECORDS r\n(a integer,\n b varchar(5))", "select 1 from RECORDS r\n                          "},
		{`SELECT a FROM records (a int)`, `SELECT a FROM records        `},
		{`SELECT a FROM "records" AS "r r" ("a,)" int)`, `SELECT a FROM "records" AS "r r"            `},
		{`SELECT 'FROM records r(a int)' AS x FROM records`, ``},
		{`SELECT $$FROM records r(a int)$$ AS x, E'\'FROM records r(a int)' AS y FROM records`, ``},
		{`SELECT 1 AS x /* FROM records r(a int) /* */ */ FROM records -- FROM records r(a int)`, ``},
		{`SELECT a IS DISTINCT FROM b FROM records r(a int, b int)`, `SELECT a IS DISTINCT FROM b FROM records r              `},
		{`SELECT extract(year FROM records) FROM records r WHERE (a)`, ``},
		{`SELECT a FROM records WHERE (a > 1)`, ``},
		{`SELECT a FROM records AS r WHERE (a > 1)`, ``},
	} {
		d, err := define(tc.sql)
		want := tc.text
		if want == "" {
			want = tc.sql
		}
		if err != nil || d.text != want {
			t.Errorf("%s\n got %q %v\nwant %q", tc.sql, d.text, err, want)
		} else if d.list != (tc.text != "") {
			t.Errorf("%s: a list is %t", tc.sql, d.list)
		}
	}
	d, err := define(`SELECT 1 FROM records r(a bool, "B c" DOUBLE PRECISION, c numeric(5), d timestamp with time zone, e text, f decimal ( 4 , 2 ), g character varying(10), h date, i int8, j decimal)`)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range d.columns {
		got = append(got, fmt.Sprintf("%d %s %s", f.ID, f.Name, f.Type))
	}
	if s := strings.Join(got, ", "); s != "1 a boolean, 2 B c double, 3 c decimal(5, 0), 4 d timestamptz, 5 e string, 6 f decimal(4, 2), 7 g string, 8 h date, 9 i long, 10 j decimal(18, 0)" {
		t.Error(s)
	}
}

func FuzzDefine(f *testing.F) {
	for _, s := range []string{`SELECT a FROM records AS r(a integer) WHERE a > 0`, `SELECT 'x''' "y""" $t$ $t$ E'\'' /* /* */ -- `, `from records r(a int, b decimal(4,2)`, `FROM records(`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		end := 0
		for _, k := range lex(sql) {
			if k.from < end || k.to <= k.from || k.to > len(sql) || sql[k.from:k.to] != k.text {
				t.Fatalf("%q: token %+v behind %d", sql, k, end)
			}
			end = k.to
		}
		d, err := define(sql)
		if err != nil {
			var x *StatementError
			if !errors.As(err, &x) || x.Position > len(sql) {
				t.Fatalf("%q: %v", sql, err)
			}
			_ = err.Error()
			return
		}
		if len(d.text) != len(sql) || len(d.columns) == 0 {
			t.Fatalf("%q became %q", sql, d.text)
		}
	})
}
