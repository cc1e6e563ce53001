package pgwire

import (
	"bytes"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// psql runs a script and returns what it printed on both outputs.
func psql(t *testing.T, ts *testServer, env []string, script string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("psql")
	if err != nil {
		t.Skip("NOT TESTED: psql is not installed; install postgresql-client to test against it")
	}
	cmd := exec.CommandContext(t.Context(), path, append([]string{"-X", "--no-psqlrc", "-v", "ON_ERROR_STOP=0", "-P", "pager=off"}, args...)...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "LC_ALL=C.UTF-8", "PGHOST=127.0.0.1", "PGPORT=" + ts.port(), "PGUSER=billing",
		"PGPASSWORD=" + testPassword, "PGDATABASE=tapehouse", "PGCONNECT_TIMEOUT=10"}, env...)
	cmd.Stdin = strings.NewReader(script)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	return out.String(), err
}

func TestPsql(t *testing.T) {
	ts := startServer(t)
	out, err := psql(t, ts, []string{"PGTZ=America/New_York", "PGOPTIONS=-c IntervalStyle=iso_8601"}, `
create table t (a int4, b text, at timestamptz, i interval);
insert into t values (1, 'naïve', '2026-11-23 14:30:00+00', '1 day');
insert into t values (2, null, null, null);
\copy t from stdin
3	tab\there	2026-07-01 00:00:00+00	2 hours
4	\N	\N	\N
\.
\copy t (a, b) from stdin csv
5,"quoted, and ""so"""
6,
\.
select * from t;
\copy t to stdout csv header
select 1 \; select 2;
nonsense;
begin;
fail 22012;
select 1;
rollback;
notice hello;
select $1::int4;
\echo :LAST_ERROR_SQLSTATE
`, "-A", "-P", "null=(null)")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"CREATE TABLE\nINSERT 0 1\nINSERT 0 1\nCOPY 2\nCOPY 2\n",
		"a|b|at|i\n1|naïve|2026-11-23 09:30:00-05|P1D\n2|(null)|(null)|(null)\n3|tab\there|2026-06-30 20:00:00-04|PT2H\n4|(null)|(null)|(null)\n5|quoted, and \"so\"|(null)|(null)\n6|(null)|(null)|(null)\n(6 rows)\n",
		"a,b,at,i\n1,naïve,2026-11-23 09:30:00-05,P1D\n2,,,\n",
		"c1\n1\n(1 row)\nc1\n2\n(1 row)\n",
		"ERROR:  syntax error at or near \"nonsense\"\nLINE 1: nonsense;\n        ^\nHINT:  Try harder.\n",
		"BEGIN\nERROR:  as asked\nERROR:  current transaction is aborted, commands ignored until end of transaction block\nROLLBACK\n",
		"NOTICE:  hello\nWARNING:  twice\n", "\n42P02\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("missing:\n%s\nin:\n%s", want, out)
		}
	}
}

func TestPsqlCursorFetch(t *testing.T) {
	ts := startServer(t)
	out, err := psql(t, ts, nil, "series 5000;\n", "-A", "-t")
	if err != nil || strings.Count(out, "\n") != 5000 || !strings.HasSuffix(out, "5000|row 5000|5000.5000\n") {
		t.Errorf("%v: %d lines", err, strings.Count(out, "\n"))
	}
}

func TestPsqlAuthentication(t *testing.T) {
	config, _ := testCertificate(t)
	ts := startServer(t, func(o *Options) { o.TLS = config })
	root := filepath.Join(t.TempDir(), "root.crt")
	if err := os.WriteFile(root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: config.Certificates[0].Certificate[0]}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		env  []string
		want string
	}{
		{[]string{"PGSSLMODE=disable"}, "c1"}, {nil, "c1"}, {[]string{"PGSSLMODE=verify-full", "PGSSLROOTCERT=" + root}, "c1"},
		{[]string{"PGSSLMODE=require", "PGCHANNELBINDING=require"}, "c1"}, {[]string{"PGSSLMODE=require", "PGCHANNELBINDING=disable"}, "c1"},
		{[]string{"PGPASSWORD=wrong"}, `FATAL:  password authentication failed for user "billing"`},
		{[]string{"PGUSER=nobody"}, `FATAL:  password authentication failed for user "nobody"`},
		{[]string{"PGDATABASE=nowhere"}, `FATAL:  database "nowhere" does not exist`},
	} {
		out, err := psql(t, ts, test.env, "", "-c", "select 1")
		if !strings.Contains(out, test.want) || (err == nil) != (test.want == "c1") {
			t.Errorf("%v: %v: %s", test.env, err, out)
		}
	}
}

// Ctrl-C in psql sends a cancel request.
func TestPsqlCancel(t *testing.T) {
	if _, err := exec.LookPath("psql"); err != nil {
		t.Skip("NOT TESTED: psql is not installed; install postgresql-client to test against it")
	}
	ts := startServer(t)
	cmd := exec.CommandContext(t.Context(), "psql", "-X", "-c", "sleep")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "PGHOST=127.0.0.1", "PGPORT=" + ts.port(), "PGUSER=billing", "PGPASSWORD=" + testPassword, "PGDATABASE=tapehouse"}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the statement runs", func() bool {
		ts.mu.Lock()
		defer ts.mu.Unlock()
		for _, c := range ts.sessions {
			c.mu.Lock()
			running := c.running != nil
			c.mu.Unlock()
			if running {
				return true
			}
		}
		return false
	})
	time.Sleep(20 * time.Millisecond) // psql arms its handler around the wait
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if !strings.Contains(out.String(), "ERROR:  canceling statement due to user request") {
		t.Errorf("psql printed %q", out.String())
	}
}
