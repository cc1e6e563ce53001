package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/exchange"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/producer"
)

// What the integration tests of this package share: a program of this machine
// with a server's own environment, execution legs made by hand, the error
// output, and values as SQL shows them.

// look finds a program, or skips the test and says what stays untested.
func look(t *testing.T, program, untested string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("SKIPPED: no %s on this machine: %s", program, untested)
	}
	return path
}

// environ is the environment of a client of s: what `tapehouse env` exports, and
// nothing of this machine's own configuration.
func environ(t *testing.T, s *Server) []string {
	t.Helper()
	a := s.Addresses()
	scheme := "http://"
	if s.cfg.TLS.Cert != "" {
		scheme = "https://"
	}
	vars, err := s.Credentials().Env(auth.Endpoints{AWSURL: scheme + a.AWS, Region: s.cfg.Region, SQLAddr: a.SQL, Database: "tapehouse"})
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	// PATH and pyenv's variables only: a proxy or a profile would lead elsewhere.
	env := []string{"HOME=" + home, "LC_ALL=C.UTF-8", "AWS_CONFIG_FILE=" + filepath.Join(home, "none"), "AWS_SHARED_CREDENTIALS_FILE=" + filepath.Join(home, "none"),
		"AWS_MAX_ATTEMPTS=1", "AWS_PAGER=", "AWS_EC2_METADATA_DISABLED=true", "PSQL_PAGER=", "PGCONNECT_TIMEOUT=20"}
	for _, name := range []string{"PATH", "PYENV_ROOT", "PYENV_VERSION", "JAVA_HOME"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	if root := os.Getenv("HOME"); os.Getenv("PYENV_ROOT") == "" { // where pyenv looks by itself
		env = append(env, "PYENV_ROOT="+filepath.Join(root, ".pyenv"))
	}
	for _, v := range vars {
		env = append(env, v.Name+"="+v.Value)
	}
	return env
}

// run runs a program to its end and returns both outputs as one.
func run(t *testing.T, env []string, stdin, program string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env, cmd.Stdin = env, strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// text returns a query's only value as SQL shows it.
func text(t *testing.T, conn *pgx.Conn, sql string, args ...any) string {
	t.Helper()
	rows := table(t, conn, sql, args...)
	if len(rows) != 1 || strings.Contains(rows[0], "|") {
		t.Fatalf("%s: not one value: %q", sql, rows)
	}
	return rows[0]
}

// table returns a query's rows as SQL shows them, the columns parted by "|".
func table(t *testing.T, conn *pgx.Conn, sql string, args ...any) []string {
	t.Helper()
	out, err := rowsOf(t.Context(), conn, sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return out
}

func rowsOf(ctx context.Context, conn *pgx.Conn, sql string, args ...any) ([]string, error) {
	// The simple protocol gives every value as its text.
	rows, err := conn.Query(ctx, sql, append([]any{pgx.QueryExecModeSimpleProtocol}, args...)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var b strings.Builder
		for i, v := range rows.RawValues() {
			if i > 0 {
				b.WriteByte('|')
			}
			if v == nil {
				b.WriteString("NULL")
			}
			b.Write(v)
		}
		out = append(out, b.String())
	}
	return out, rows.Err()
}

func execute1(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// leg is an execution leg as its source writes it. Price is its text.
type leg struct {
	Source   string `json:"source"`
	Session  string `json:"session"`
	Epoch    int64  `json:"epoch"`
	Seq      int64  `json:"seq"`
	Match    int64  `json:"match_number"`
	Leg      int    `json:"leg"`
	Symbol   string `json:"symbol"`
	MPID     string `json:"mpid"`
	Side     string `json:"side"`
	FeeCode  string `json:"fee_code"`
	Quantity int64  `json:"quantity"`
	Price    string `json:"price"`
	At       string `json:"executed_at"`
}

// newLeg is leg number seq of source, complete.
func newLeg(source string, seq int64) leg {
	return leg{Source: source, Session: source + "-1", Epoch: 1, Seq: seq, Match: (seq + 1) / 2, Leg: int(2 - seq%2), Symbol: "ACME", MPID: "ALDR",
		Side: []string{"S", "B"}[seq%2], FeeCode: []string{"remove", "add"}[seq%2], Quantity: 100 + seq%7, Price: fmt.Sprintf("%d.%04d", 10+seq%90, seq*37%10000),
		At: "2026-11-20T15:00:00.123456789Z"}
}

func (l leg) document(t testing.TB) []byte {
	b, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t *testing.T, c *producer.Client, stream string, docs ...[]byte) {
	t.Helper()
	if _, err := c.PutBatch(t.Context(), stream, docs); err != nil {
		t.Fatal(err)
	}
}

// failed is a line of the error output.
type failed struct {
	Code     string `json:"lastErrorCode"`
	Message  string `json:"lastErrorMessage"`
	Raw      string `json:"rawData"`
	RecordID string `json:"recordId"`
	Reason   string `json:"tapehouseCode"`
	Table    struct {
		Database string `json:"databaseName"`
		Table    string `json:"tableName"`
	} `json:"dataCatalogTable"`
}

// errorOutput flushes and returns every line of the error output, Raw decoded.
func errorOutput(t *testing.T, s *Server) []failed {
	t.Helper()
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	var names []string
	if err := s.lake.List(t.Context(), "errors/", func(i lake.Info) error { names = append(names, i.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	var out []failed
	for _, name := range names {
		b, err := s.lake.Get(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(bytes.NewReader(b))
		lines.Buffer(nil, 4<<20)
		for lines.Scan() {
			var f failed
			if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			raw, err := base64.StdEncoding.DecodeString(f.Raw)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			f.Raw = string(raw)
			out = append(out, f)
		}
		if err := lines.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// playAll puts everything that a player plays and returns the number of records
// of each stream. each, if not nil, sees every document.
func playAll(t *testing.T, s *Server, p exchange.Player, each func(stream string, doc []byte)) map[string]int {
	t.Helper()
	c := client(t, s)
	counts := map[string]int{}
	batches := map[string][][]byte{}
	for {
		doc, rec, err := p.Next(nil)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if each != nil {
			each(rec.Stream, doc)
		}
		counts[rec.Stream]++
		if batches[rec.Stream] = append(batches[rec.Stream], doc); len(batches[rec.Stream]) == 500 {
			put(t, c, rec.Stream, batches[rec.Stream]...)
			batches[rec.Stream] = nil
		}
	}
	for stream, b := range batches {
		if len(b) > 0 {
			put(t, c, stream, b...)
		}
	}
	return counts
}
