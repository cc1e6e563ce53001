package warehouse

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestScripts runs the files of testdata/sql. Each case is
//
//	exec              statements; the answer is their tags and notices
//	query [types]     one query; the answer is its columns and rows
//	error             one statement that must fail
//
// against one warehouse a file, with a real engine and catalog. -rewrite
// writes the answers anew.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/sql/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			h := newHouse(t)
			sessions := map[string]*Session{}
			datadriven.RunTest(t, f, func(t *testing.T, d *datadriven.TestData) string {
				name := "main"
				d.MaybeScanArgs(t, "session", &name)
				s := sessions[name]
				if s == nil {
					s = h.session(t)
					sessions[name] = s
				}
				return runCase(s, d)
			})
		})
	}
}

func runCase(s *Session, d *datadriven.TestData) string {
	var b strings.Builder
	statements, err := s.Split(d.Input)
	if err != nil {
		return describeError(err)
	}
	for _, sql := range statements {
		out, err := run(s, sql)
		for _, n := range out.notices {
			fmt.Fprintf(&b, "%s: %s\n", n.Severity, n.Message)
		}
		if err != nil {
			b.WriteString(describeError(err))
			continue
		}
		if len(out.columns) == 0 || d.Cmd == "exec" {
			fmt.Fprintln(&b, out.tag)
			continue
		}
		head := make([]string, len(out.columns))
		for i, c := range out.columns {
			head[i] = c.Name
			if d.HasArg("types") {
				head[i] += ":" + typeText(c)
			}
		}
		fmt.Fprintln(&b, strings.Join(head, " | "))
		for _, r := range out.rows {
			fmt.Fprintln(&b, strings.Join(r, " | "))
		}
	}
	return b.String()
}

func typeText(c Column) string {
	for _, t := range allTypes() {
		if t.oid == c.OID {
			if c.OID == 1700 && c.Modifier >= 4 {
				return fmt.Sprintf("numeric(%d,%d)", (c.Modifier-4)>>16, (c.Modifier-4)&0xffff)
			}
			return t.name
		}
	}
	return fmt.Sprint(c.OID)
}

func describeError(err error) string {
	var e *Error
	if !errors.As(err, &e) {
		return "not an *Error: " + err.Error() + "\n"
	}
	s := fmt.Sprintf("ERROR %s: %s", e.Code, e.Message)
	if e.Position > 0 {
		s += fmt.Sprintf(" at %d", e.Position)
	}
	s += "\n"
	if e.Detail != "" {
		s += "DETAIL: " + e.Detail + "\n"
	}
	if e.Hint != "" {
		s += "HINT: " + e.Hint + "\n"
	}
	return s
}

// TestPsql runs the queries that psql 15 sends for its \d family, captured
// from it, and keeps what they answer.
func TestPsql(t *testing.T) {
	h := newHouse(t)
	s := h.session(t)
	for _, sql := range []string{
		"CREATE SCHEMA eq", "SET search_path = eq, public",
		"CREATE TABLE eq.t (a int NOT NULL, b numeric(18,4), c timestamptz, d date, e varchar(20), f bigint) PARTITIONED BY (d)",
		"INSERT INTO eq.t VALUES (1, 2.5, '2026-01-01 10:00:00+00', '2026-01-01', 'x', 7)",
	} {
		if _, err := run(s, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	oid := fmt.Sprint(relationOID("eq", "t"))
	datadriven.RunTest(t, "testdata/psql15", func(t *testing.T, d *datadriven.TestData) string {
		d.Input = strings.ReplaceAll(d.Input, "@OID@", oid)
		return strings.ReplaceAll(runCase(s, d), oid, "@OID@")
	})
}

func TestMain(m *testing.M) {
	os.Exit(m.Run())
}
