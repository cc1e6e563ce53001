package server

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/exchange"
)

// tour runs a script in psql, echoing each line, and returns what each line
// that begins a section ("\echo == name") printed.
func tour(t *testing.T, s *Server, env []string, script string) map[string]string {
	t.Helper()
	out, err := run(t, append(environ(t, s), env...), script, look(t, "psql", "the README's tour was not run"), "-X", "-P", "pager=off", "-P", "null=(null)")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	sections := map[string]string{}
	for _, part := range strings.Split(out, "== ")[1:] {
		name, body, _ := strings.Cut(part, "\n")
		sections[name] = body
	}
	return sections
}

func TestPsqlTour(t *testing.T) {
	look(t, "psql", "the README's tour was not run")
	s := open(t, testConfig(t))
	counts := play(t, s, 3_000)
	conn := connect(t, s)
	file := filepath.Join(t.TempDir(), "members.csv")
	got := tour(t, s, nil, strings.ReplaceAll(`
\echo == connection
\conninfo
\echo == databases
\l
\echo == schemas
\dn
\echo == tables
\dt equities.*
\echo == views
\dm equities.*
\echo == executions
\d equities.executions
\echo == described
\d+ members
\echo == roles
\du
\echo == privileges
\dp equities.*
\echo == nothing
\di
\df
\dT
\dx
\echo == counts
select count(*) from equities.order_events;
select count(*) legs, count(distinct symbol) > 1 several from executions;
\pset format unaligned
\echo == join
select m.name, m.member_id, count(*) legs, sum(e.quantity) shares, sum(e.quantity * e.price) notional
  from executions e
  join mpids p on p.mpid = e.mpid and e.trade_date >= p.effective_from and (p.effective_to is null or e.trade_date < p.effective_to)
  join members m using (member_id)
 group by m.name, m.member_id order by notional desc, name;
\echo == total
select count(*), sum(quantity), sum(quantity * price) from executions;
\echo == zones
select timestamptz '2026-11-20 14:30:00.000001+00', timestamptz '2026-07-01 00:00:00+00';
set timezone = 'America/New_York';
select timestamptz '2026-11-20 14:30:00.000001+00', timestamptz '2026-07-01 00:00:00+00';
select executed_at from executions order by executed_at limit 1;
reset timezone;
select executed_at from executions order by executed_at limit 1;
\echo == copy
copy (select member_id, name, effective_to from members order by member_id limit 2) to stdout with (format csv, header);
\echo == file
\copy (select * from equities.members) to 'FILE' csv header
\echo == transaction
begin;
select count(*) from members;
select 1/0;
select 1;
rollback;
select 'after';
\echo == multiple
select 1 as a\; select 2 as b;
\echo == cursor
\set FETCH_COUNT 1000
select * from order_events;
\unset FETCH_COUNT
\echo == parameters
prepare p (int, text) as select $1 + 1, $2 || '!';
execute p (41, 'yes');
\echo == crosstab
select side, fee_code, count(*) > 0 from executions where fee_code in ('add', 'remove') and side in ('B', 'S') group by 1, 2 \crosstabview
\echo == verbose
\set VERBOSITY verbose
select * from nope;
select nope from executions;
selec 1;
select 'x'::int;
select 99999999999999999999::bigint;
select symbol from executions group by side;
insert into members values (null);
insert into executions (source) values ('x');
\echo == timeout
set statement_timeout = '20ms';
select count(*) from order_events a, order_events b, order_events c where a.seq + b.seq + c.seq = 7;
reset statement_timeout;
select 'still here';
`, "FILE", file))
	for _, want := range []struct{ section, pattern string }{
		{"connection", `^You are connected to database "tapehouse" as user "tapehouse" on host "127\.0\.0\.1"`},
		{"databases", `(?m)^ tapehouse +\| tapehouse +\| UTF8 `},
		{"schemas", `(?m)^ equities \| tapehouse$`},
		{"tables", `(?m)^ equities \| executions +\| table \| tapehouse$`},
		{"tables", `(?m)^ equities \| order_events +\| table \| tapehouse$`},
		{"executions", `(?m)^ +Table "equities.executions"$`},
		{"executions", `(?m)^ price +\| numeric\(18,4\) +\| +\| not null \| *$`},
		{"executions", `(?m)^ executed_at +\| timestamp with time zone +\| +\| not null \| *$`},
		{"executions", `(?m)^ order_ref +\| bigint +\| +\| +\| *$`},
		{"executions", `(?m)^ trade_date +\| date +\| +\| not null \| *$`},
		{"described", `(?m)^ billing_account +\| text .*not null`},
		{"roles", `(?m)^ tapehouse +\|`},
		{"privileges", `(?m)^ equities \| members +\| table`},
		{"counts", fmt.Sprintf(`(?s)^ count \n-+\n +%d\n.* %d \| t\n`, counts[exchange.StreamOrders], counts[exchange.StreamExecutions])},
		{"zones", `2026-11-20 14:30:00\.000001\+00\|2026-07-01 00:00:00\+00\n`},
		{"zones", `2026-11-20 09:30:00\.000001-05\|2026-06-30 20:00:00-04\n`},
		{"copy", `^member_id,name,effective_to\nM001,Alder Securities LLC,\nM002,Birkwood Markets LLC,\n$`},
		{"file", `^COPY \d+\n$`},
		{"transaction", `^BEGIN\ncount\n\d+\n\(1 row\)\n.*ERROR:  division by zero\nHINT:  .*\n.*ERROR:  current transaction is aborted, commands ignored until end of transaction block\n(HINT: .*\n)?ROLLBACK\n\?column\?\nafter\n`},
		{"multiple", `^a\n1\n\(1 row\)\nb\n2\n\(1 row\)\n$`},
		{"cursor", `ERROR:  DECLARE is not supported\n(.*\n)+HINT:  `},
		{"parameters", `42\|yes!\n`},
		{"crosstab", `(?m)^side\|(add\|remove|remove\|add)$`},
		{"verbose", `ERROR:  42P01: relation "nope" does not exist\nLINE 1: select \* from nope;\n +\^\n`},
		{"verbose", `ERROR:  42703: column "nope" does not exist\nLINE 1: `},
		{"verbose", `ERROR:  42601: syntax error at or near "selec"\nLINE 1: `},
		{"verbose", `ERROR:  22P02: `},
		{"verbose", `ERROR:  22003: value "99999999999999999999" is out of range for type bigint\n`},
		{"verbose", `ERROR:  42803: `},
		{"verbose", `ERROR:  23502: null value in column "member_id" of relation "members" violates not-null constraint\n`},
		{"verbose", `ERROR:  42809: table equities.executions is fed by a delivery stream\nHINT:  `},
		{"timeout", `^SET\n.*ERROR:  57014: canceling statement due to statement timeout\n(.*\n)*RESET\n.*\nstill here\n`},
	} {
		if !regexp.MustCompile(want.pattern).MatchString(got[want.section]) {
			t.Errorf("%s: no match of %s in\n%s", want.section, want.pattern, got[want.section])
		}
	}
	for section, out := range got {
		if section != "cursor" && section != "transaction" && section != "verbose" && section != "timeout" && strings.Contains(out, "ERROR:") {
			t.Errorf("%s:\n%s", section, out)
		}
	}
	if s.views != nil && !strings.Contains(got["views"], "symbol_daily_stats") {
		t.Errorf("\\dm: %s", got["views"])
	}
	// The joined sums are the whole: every MPID of a leg has its member.
	var legs, shares, total int64
	for _, line := range strings.Split(got["join"], "\n") {
		if f := strings.Split(line, "|"); len(f) == 5 && f[0] != "name" {
			var l, q, whole, part int64
			if _, err := fmt.Sscanf(f[2]+" "+f[3]+" "+strings.Replace(f[4], ".", " ", 1), "%d %d %d %d", &l, &q, &whole, &part); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			legs, shares, total = legs+l, shares+q, total+whole*10000+part
		}
	}
	if want := fmt.Sprintf("%d|%d|%d.%04d\n", legs, shares, total/10000, total%10000); !strings.Contains(got["total"], want) {
		t.Errorf("members' sums %q, of\n%s", want, got["total"])
	}
	body, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n, want := fmt.Sprint(strings.Count(string(body), "\n")-1), text(t, conn, "SELECT count(*) FROM members"); n != want || !strings.HasPrefix(string(body), "member_id,name,") {
		t.Errorf("\\copy wrote %s rows of %s", n, want)
	}
}

// No statement reaches a file, the network or a setting, and no answer names a
// path of the server's, though the statement may have asked for one.
func TestPsqlSandbox(t *testing.T) {
	look(t, "psql", "the sandbox was not tried with it")
	s := open(t, testConfig(t))
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("the secret itself\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(t.TempDir(), "written")
	statements := []string{
		`select * from read_text('SECRET')`, `select * from read_blob('SECRET')`, `select * from read_csv('SECRET')`, `select * from read_csv_auto('SECRET')`,
		`select * from read_json('SECRET')`, `select * from read_parquet('DATA/lake/**/*.parquet')`, `select * from parquet_metadata('DATA/lake/x.parquet')`,
		`select * from glob('DATA/**')`, `select * from 'SECRET'`, `select * from "SECRET"`, `select * from "DATA/credentials.json"`, `from read_text('SECRET')`,
		`with x as (select * from read_text('SECRET')) select * from x`, `select (select content from read_text('SECRET'))`,
		`select * from members where name in (select content from read_text('SECRET'))`, `values ((select content from read_text('SECRET')))`,
		`select * from sniff_csv('SECRET')`, `select * from iceberg_scan('DATA')`, `select * from sqlite_scan('DATA/catalog/catalog.db', 'x')`, `select * from postgres_scan('', '', '')`,
		`select * from query('select 1')`, `select * from query_table('members')`, `select pg_read_file('SECRET')`, `select pg_ls_dir('DATA')`, `select lo_import('SECRET')`,
		`copy (select 1) to 'TARGET'`, `copy members to 'TARGET'`, `copy members to program 'cat'`, `copy members from 'SECRET'`, `copy members from program 'id'`,
		`copy (select * from read_text('SECRET')) to stdout`, `create table public.t as select * from read_text('SECRET')`,
		`insert into members select content from read_text('SECRET')`, `prepare p as select * from read_text('SECRET')`, `explain select * from read_text('SECRET')`,
		`attach 'TARGET' as x`, `detach x`, `use memory`, `install httpfs`, `load httpfs`, `load 'SECRET'`, `create secret s (type s3)`, `export database 'TARGET'`, `import database 'DATA'`,
		`set memory_limit = '1TB'`, `set threads = 64`, `set temp_directory = 'DATA'`, `set enable_external_access = true`, `set global lock_configuration = false`, `reset memory_limit`,
		`select current_setting('temp_directory')`, `select current_setting('data_directory')`, `show data_directory`, `show config_file`, `select set_config('temp_directory', 'DATA', false)`,
		`pragma database_list`, `pragma version`, `pragma memory_limit = '1TB'`, `call pragma_version()`, `select * from pragma_database_list`, `select * from duckdb_settings()`,
		`select * from duckdb_databases()`, `select * from duckdb_secrets()`, `select * from duckdb_temporary_files()`, `select * from duckdb_extensions()`, `select getenv('HOME')`, `select write_log('x')`,
		`create function f() returns int as 'select 1' language sql`, `create macro f(a) as a`, `create temp table x as select 1`, `create view v as select 1`, `create extension x`,
		`update members set name = 'x'`, `delete from executions`, `truncate executions`, `insert into executions select * from executions`, `drop table executions`,
		`unload ('select 1') to 's3://bucket/x'`, `select * from 's3://bucket/x.parquet'`, `select * from 'https://example.com/x.csv'`, `do $$ begin end $$`, `listen x`, `lock table members`,
		`alter system set x = 1`, `create user x`, `checkpoint`, `vacuum`, `describe members`, `summarize members`,
	}
	var script strings.Builder
	script.WriteString("\\set VERBOSITY sqlstate\n")
	data := s.cfg.Data
	fill := strings.NewReplacer("SECRET", secret, "TARGET", target, "DATA", data)
	for i, sql := range statements {
		fmt.Fprintf(&script, "\\echo == %d\n%s;\n", i, fill.Replace(sql))
	}
	got := tour(t, s, nil, script.String())
	refused := regexp.MustCompile(`^(psql:\S+ )?ERROR:  (42501|0A000|42601|42883|42P01|42704|42809|2BP01)\n$`)
	for i, sql := range statements {
		if !refused.MatchString(got[fmt.Sprint(i)]) {
			t.Errorf("%s:\n%s", sql, got[fmt.Sprint(i)])
		}
	}
	// The same again in full: what the messages say.
	own := regexp.MustCompile(`(?i)duckdb|sqlite|/internal/|\.go:\d|\.parquet|secret itself|goroutine`)
	for i, body := range tour(t, s, nil, strings.Replace(script.String(), "sqlstate", "verbose", 1)) {
		// psql repeats the statement below LINE; and a name that was asked for may be repeated.
		asked := fill.Replace(statements[atoi(t, i)])
		for _, line := range strings.Split(body, "\n") {
			if strings.HasPrefix(line, "LINE ") || strings.HasPrefix(line, "LOCATION:") {
				continue
			}
			for _, leak := range append(own.FindAllString(line, -1), data) {
				if strings.Contains(line, leak) && !strings.Contains(asked, leak) {
					t.Errorf("%s: %q shows %q", asked, line, leak)
				}
			}
		}
	}
	if _, err := os.Stat(target); err == nil {
		t.Error("a statement wrote a file")
	}
	conn := connect(t, s)
	if rows := table(t, conn, "SELECT table_name FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"); slices.Contains(rows, "t") || slices.Contains(rows, "v") {
		t.Errorf("tables: %q", rows)
	}
}

func atoi(t *testing.T, s string) (n int) {
	t.Helper()
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatal(err)
	}
	return n
}
