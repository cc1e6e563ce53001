package engine

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

// TestFunctionsReviewed compares the allow-list with the running DuckDB: each
// of its functions must be in exactly one of the reviewed lists.
func TestFunctionsReviewed(t *testing.T) {
	e, _ := newEngine(t)
	s, err := e.InternalSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	denied := func(name string) bool {
		for _, d := range functionsDenied {
			if p, ok := strings.CutSuffix(d, "*"); ok && strings.HasPrefix(name, p) || d == name {
				return true
			}
		}
		return false
	}
	known := map[string]bool{}
	for _, row := range mustRows(t, s, Query{SQL: `SELECT DISTINCT function_type LIKE 'table%' OR function_type = 'pragma', lower(function_name) FROM duckdb_functions()`}) {
		table, name, _ := strings.Cut(row, "|")
		known[name] = true
		allowed := functionsAllowed[name]
		if table == "t" {
			allowed = tableFunctionsAllowed[name]
			if functionsAllowed[name] && !allowed {
				continue // a scalar of the same name was reviewed
			}
		} else if tableFunctionsAllowed[name] && !allowed {
			continue
		}
		switch {
		case !allowed && !denied(name):
			t.Errorf("function %s (table: %s) was never reviewed", name, table)
		case allowed && denied(name) && !functionsAllowed[name]:
			t.Errorf("function %s is both allowed and denied", name)
		}
	}
	// Names that the parser makes and the catalog does not list.
	for _, n := range strings.Fields("coalesce ifnull unnest grouping grouping_id") {
		known[n] = true
	}
	for n := range functionsAllowed {
		if !known[n] {
			t.Errorf("allowed function %s does not exist", n)
		}
	}
}

// TestSandbox runs what an attacker would, as a user session, with a pin in
// hand. Every one must be refused before DuckDB runs it, and DuckDB's own lock
// is tried as well by TestLocked.
func TestSandbox(t *testing.T) {
	e, dir := newEngine(t)
	f := writeTrades(t, e, filepath.Join(dir, "a.parquet"), 0, 10)
	pin := NewPin(map[Name]Relation{tradesName: {Schema: trades, Files: []File{f}}})
	defer pin.Release()
	s := newSession(t, e)
	// The pin's view exists, so that its name is worth guessing.
	wantRows(t, s, Query{SQL: `SELECT count(*) FROM equities.executions`, Pin: pin}, "10")
	view := pin.tables[tradesName].bound.view

	path := f.Path
	for _, sql := range []string{
		// table functions over files
		`SELECT count(*) FROM read_parquet('` + path + `')`,
		`SELECT count(*) FROM parquet_scan('` + path + `')`,
		`SELECT * FROM READ_TEXT('/etc/passwd')`, `SELECT * FROM "read_text"('/etc/passwd')`, `SELECT * FROM read_blob('/proc/self/environ')`,
		`SELECT * FROM read_csv('/etc/passwd')`, `SELECT * FROM read_csv_auto('/dev/stdin')`, `SELECT * FROM read_json('/x')`, `SELECT * FROM read_ndjson_objects('/x')`,
		`SELECT * FROM read_duckdb('/x')`, `SELECT * FROM glob('/etc/*')`, `SELECT * FROM sniff_csv('/etc/passwd')`, `SELECT * FROM parquet_metadata('` + path + `')`,
		`SELECT * FROM parquet_schema('` + path + `')`, `SELECT * FROM parquet_kv_metadata('` + path + `')`, `SELECT * FROM system.main.read_text('/etc/passwd')`,
		`SELECT * FROM /* x */ read_text /* y */ ('/etc/passwd')`, "SELECT * FROM read_text\n--\n('/etc/passwd')", `SELECT * FROM rEaD_tExT('/etc/passwd')`,
		`SELECT * FROM U&"read_text"('/etc/passwd')`, `SELECT * FROM main.glob('*')`,
		// paths as tables
		`SELECT * FROM '` + path + `'`, `SELECT * FROM "` + path + `"`, `SELECT * FROM "s3://b/x.parquet"`, `FROM '` + path + `'`, `TABLE "` + path + `"`,
		`WITH "` + path + `" AS (SELECT 1) SELECT * FROM "` + path + `"`, `SELECT (SELECT count(*) FROM '` + path + `')`,
		`SELECT * FROM (VALUES (1)) t(x) WHERE EXISTS (SELECT 1 FROM '` + path + `')`, `SELECT * FROM equities.executions JOIN '` + path + `' USING (id)`,
		// places to hide a call
		`SELECT * FROM (SELECT * FROM read_text('/etc/passwd'))`, `WITH x AS (FROM read_text('/etc/passwd')) SELECT * FROM x`,
		`WITH RECURSIVE x AS (SELECT 1 AS a UNION ALL SELECT a FROM x, read_text('/etc/passwd')) SELECT * FROM x`,
		`SELECT 1 UNION ALL SELECT size FROM read_text('/etc/passwd')`, `SELECT * FROM equities.executions, LATERAL (SELECT * FROM read_text('/etc/passwd'))`,
		`SELECT id FROM equities.executions ORDER BY (SELECT count(*) FROM read_text('/etc/passwd'))`, `SELECT 1 LIMIT (SELECT count(*) FROM read_text('/x'))`,
		`SELECT id FROM equities.executions QUALIFY row_number() OVER (ORDER BY (SELECT max(size) FROM glob('*'))) = 1`,
		`SELECT list_transform([1], x -> (SELECT count(*) FROM read_text('/x')))`, `SELECT count(*) FILTER (WHERE (SELECT true FROM glob('*'))) FROM equities.executions`,
		`VALUES ((SELECT content FROM read_text('/etc/passwd')))`, `SELECT CASE WHEN true THEN (SELECT content FROM read_text('/etc/passwd')) END`,
		// SQL as text
		`SELECT * FROM query('SELECT 1')`, `SELECT * FROM query_table('x')`, `SELECT query('SELECT 1')`, `SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))`,
		`SELECT json_serialize_plan('SELECT * FROM read_text(''/etc/passwd'')')`, `SELECT json_serialize_sql('SELECT 1')`, `SELECT * FROM check_peg_parser('SELECT 1')`,
		// the instance and others
		`SELECT getenv('PATH')`, `SELECT current_setting('temp_directory')`, `SELECT getvariable('x')`, `SELECT * FROM duckdb_settings()`, `SELECT * FROM duckdb_secrets()`,
		`SELECT * FROM duckdb_views`, `SELECT * FROM duckdb_views()`, `SELECT * FROM duckdb_temporary_files()`, `SELECT * FROM duckdb_external_file_cache()`, `SELECT * FROM pragma_version()`,
		`SELECT * FROM pragma_database_size()`, `SELECT * FROM which_secret('a','b')`, `SELECT * FROM information_schema.tables`, `SELECT * FROM pg_catalog.pg_class`,
		`SELECT * FROM sqlite_master`, `SELECT * FROM sqlite_schema`, `SELECT current_query()`, `SELECT x.current_query() FROM (SELECT 1) t(x)`, `SELECT stats(id) FROM equities.executions`,
		`SELECT '/etc/passwd'.read_text()`, `SELECT pg_get_viewdef(1)`, `SELECT txid_current()`, `SELECT nextval('s')`, `SELECT setseed(0.5)`, `SELECT sleep_ms(1000)`, `SELECT pg_sleep(10)`,
		`SELECT write_log('x')`, `SELECT * FROM enable_logging(level='trace', storage='file')`, `CALL enable_logging(storage='file', storage_config={'path':'/tmp/x'})`, `SELECT * FROM force_checkpoint()`,
		`SELECT * FROM truncate_duckdb_logs()`, `SELECT * FROM duckdb_logs`, `SELECT error('division by zero')`, `SELECT * FROM test_all_types()`, `SELECT * FROM seq_scan('x')`, `SELECT * FROM arrow_scan(1,2,3)`,
		// internal names
		`SELECT * FROM ` + pinSchema + `.` + view, `SELECT * FROM memory.` + pinSchema + `.` + view, `SELECT * FROM ` + view, `SELECT * FROM temp.main.t_1`,
		`WITH ` + view + ` AS (SELECT 1) SELECT * FROM ` + pinSchema + `.` + view,
		// time travel and scopes of common table expressions
		`SELECT * FROM equities.executions AT (VERSION => 1)`, `WITH duckdb_settings AS (SELECT 1) SELECT * FROM (WITH x AS (SELECT 1) SELECT * FROM x), duckdb_tables`,
		`SELECT * FROM (WITH duckdb_views AS (SELECT 1) SELECT * FROM duckdb_views), duckdb_views`, `WITH duckdb_views AS (SELECT * FROM duckdb_views) SELECT * FROM duckdb_views`,
		// other statements
		`DESCRIBE SELECT 1`, `SHOW TABLES`, `FROM (SHOW TABLES)`, `SUMMARIZE equities.executions`, `FROM (DESCRIBE SELECT 1)`, `PIVOT equities.executions ON symbol USING sum(qty)`,
		`FROM (PIVOT equities.executions ON symbol USING sum(qty))`, `EXPLAIN SELECT 1`, `EXPLAIN ANALYZE SELECT 1`, `COPY (SELECT 1) TO '` + dir + `/evil.csv'`, `COPY x FROM '/etc/passwd'`,
		`ATTACH '` + dir + `/evil.db' AS e`, `ATTACH ':memory:' AS e`, `DETACH memory`, `INSTALL httpfs`, `LOAD '` + dir + `/x'`, `SET threads=64`, `RESET allowed_directories`, `PRAGMA threads=4`,
		`PRAGMA database_list`, `EXPORT DATABASE '` + dir + `'`, `IMPORT DATABASE '` + dir + `'`, `CREATE SECRET (TYPE s3)`, `CREATE VIEW v AS SELECT 1`, `CREATE MACRO m() AS 1`,
		`DROP VIEW ` + pinSchema + `.` + view, `INSERT INTO x VALUES (1)`, `DELETE FROM x`, `UPDATE x SET a = 1`, `PREPARE p AS SELECT 1`, `EXECUTE p`, `DEALLOCATE p`, `BEGIN`, `COMMIT`, `ROLLBACK`,
		`VACUUM`, `ANALYZE`, `CHECKPOINT`, `USE memory`, `SET VARIABLE x = 1`, `SELECT 1; DROP SCHEMA ` + pinSchema, `SELECT 1;COPY (SELECT 1) TO '` + dir + `/evil.csv'`,
		`SELECT 1 -- ` + "\n" + `; SELECT 2`, "SELECT 1\x00; SELECT 2",
		// types
		`SELECT 1::main.foo`, `SELECT NULL::"read_text"`,
	} {
		rows, err := s.Query(t.Context(), Query{SQL: sql, Pin: pin})
		if err == nil {
			_ = rows.Close()
			t.Errorf("ran: %s", sql)
			continue
		}
		var d *DeniedError
		var x *Error
		if !errors.As(err, &d) && !(errors.As(err, &x) && (x.Kind == Syntax || x.Kind == Catalog || x.Kind == Unsupported)) {
			t.Errorf("%s: refused late: %v", sql, err)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "evil*")); files != nil {
		t.Errorf("files were written: %v", files)
	}
	wantRows(t, s, Query{SQL: `SELECT count(*) FROM equities.executions`, Pin: pin}, "10")
}

// TestLocked tries DuckDB's own fence, without the allow-list.
func TestLocked(t *testing.T) {
	e, dir := newEngine(t)
	writeTrades(t, e, filepath.Join(dir, "a.parquet"), 0, 10)
	c, err := e.acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer e.giveBack(c)
	for _, sql := range []string{
		`SELECT * FROM read_text('/etc/passwd')`, `SELECT count(*) FROM read_text('` + dir + `/../../../../etc/passwd')`, `SELECT * FROM glob('/etc/*')`, `COPY (SELECT 1) TO '/tmp/tapehouse-evil.csv'`,
		`ATTACH '/tmp/tapehouse-evil.db' AS e`, `INSTALL httpfs`, `LOAD httpfs`, `SET enable_external_access = true`, `SET memory_limit = '1TB'`, `RESET allowed_directories`, `SET threads = 64`,
		`SET GLOBAL lock_configuration = false`, `SET TimeZone = 'Asia/Tokyo'`, `SELECT * FROM read_parquet('s3://b/x.parquet')`, `CREATE PERSISTENT SECRET s (TYPE http, BEARER_TOKEN 'a')`,
	} {
		if err := c.exec(t.Context(), sql); err == nil {
			t.Errorf("ran: %s", sql)
		}
	}
	if err := c.exec(t.Context(), `SELECT count(*) FROM read_parquet('`+dir+`/a.parquet')`); err != nil {
		t.Error(err)
	}
}

// TestAllowed runs ordinary SQL, which the allow-list must not hinder.
func TestAllowed(t *testing.T) {
	e, dir := newEngine(t)
	f := writeTrades(t, e, filepath.Join(dir, "a.parquet"), 0, 100)
	pin := NewPin(map[Name]Relation{tradesName: {Schema: trades, Files: []File{f}}})
	defer pin.Release()
	s := newSession(t, e)
	for _, sql := range []string{
		`SELECT count(*), count(DISTINCT symbol), sum(price) FILTER (WHERE qty > 1), string_agg(symbol, ',' ORDER BY id) FROM equities.executions`,
		`SELECT symbol, sum(qty) OVER (PARTITION BY symbol ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW), row_number() OVER w, lag(price, 1) OVER w FROM equities.executions WINDOW w AS (ORDER BY id)`,
		`SELECT date_trunc('hour', executed_at), extract(epoch FROM executed_at), executed_at AT TIME ZONE 'America/New_York', current_date, now() FROM equities.executions LIMIT 3 OFFSET 1`,
		`SELECT symbol FROM equities.executions GROUP BY ROLLUP (symbol, qty) HAVING count(*) > 1 ORDER BY 1 NULLS FIRST`,
		`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT sum(i) FROM n`,
		`WITH a AS MATERIALIZED (SELECT * FROM equities.executions), b AS (SELECT * FROM a) SELECT count(*) FROM a JOIN b USING (id)`,
		`SELECT * EXCLUDE (price) FROM equities.executions UNION ALL BY NAME SELECT * EXCLUDE (price) FROM equities.executions`,
		`SELECT CASE qty WHEN 1 THEN 'a' ELSE 'b' END, coalesce(NULL, qty), nullif(qty, 1), qty IN (1, 2), symbol LIKE 'S%', symbol SIMILAR TO 'S.*', qty BETWEEN 1 AND 2, NOT true, -qty, qty IS NULL FROM equities.executions`,
		`SELECT DISTINCT ON (symbol) symbol, id FROM equities.executions ORDER BY symbol, id`,
		`SELECT * FROM generate_series(1, 3) g(x), unnest([1, 2]) u(y)`, `SELECT [1,2][1], {'a': 1}.a, MAP {'k': 1}, list_transform([1, 2], x -> x + 1), (1, 2)`,
		`SELECT e.id FROM equities.executions e WHERE EXISTS (SELECT 1 FROM equities.executions x WHERE x.id = e.id AND x.qty > (SELECT avg(qty) FROM equities.executions))`,
		`SELECT '{"a":1}'::JSON ->> '$.a', gen_random_uuid(), INTERVAL 3 DAY, DATE '2026-01-01' + 1, 'x' || 'y', 7 % 3, 7 // 2, 2 ** 3, 'a' COLLATE NOCASE, TRY_CAST('x' AS INTEGER)`,
		`SELECT * FROM equities.executions a LEFT JOIN equities.executions b ON a.id = b.id + 1 ASOF JOIN equities.executions c ON a.symbol = c.symbol AND a.executed_at >= c.executed_at`,
		`SELECT * FROM equities.executions TABLESAMPLE 10%`, `(SELECT 1) INTERSECT (SELECT 1) EXCEPT (SELECT 2)`, `VALUES (1, 'a'), (2, NULL)`, `SELECT COLUMNS('i.*') FROM equities.executions`,
		`SELECT median(price), quantile_cont(price, 0.5), stddev(qty), arg_max(symbol, price) FROM equities.executions`,
	} {
		if err := e.Check(t.Context(), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
			continue
		}
		mustRows(t, s, Query{SQL: sql, Pin: pin})
	}
}

func TestReferences(t *testing.T) {
	e, _ := newEngine(t)
	names, err := e.References(t.Context(), `WITH x AS (SELECT * FROM a.b) SELECT * FROM x JOIN "C d".e USING (i) WHERE i IN (SELECT i FROM a.b UNION SELECT i FROM tmp)`)
	if err != nil {
		t.Fatal(err)
	}
	got := map[Name]bool{}
	for _, n := range names {
		got[n] = true
	}
	if len(names) != 3 || !got[Name{"a", "b"}] || !got[Name{"C d", "e"}] || !got[Name{"", "tmp"}] {
		t.Fatalf("references: %v", names)
	}
}
