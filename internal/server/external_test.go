package server

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/hive"
)

// foreignTables drops files into a bucket and defines tables over them.
func foreignTables(t *testing.T, s *Server, bucketDir string) {
	t.Helper()
	write := func(name string, content []byte) {
		t.Helper()
		p := filepath.Join(bucketDir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write([]byte("symbol,name\nZTWO,Zwei AG\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	write("symbols/a b%20ü.csv", []byte("symbol,name\nZONE,\"One, Inc.\"\n"))
	write("symbols/deeper/b.csv.gz", z.Bytes())
	peer, err := engine.OpenPeer(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	for i, date := range []string{"2026-11-18", "2026-11-19"} {
		name := "history/trade_date=" + date + "/part.parquet"
		write(name, nil)
		if err := peer.Exec(t.Context(), fmt.Sprintf("COPY (SELECT 'ZONE' AS symbol, %d::INTEGER AS quantity, 1.25::DECIMAL(9,2) AS price) TO %s (FORMAT parquet)", i+1, engine.QuoteLiteral(filepath.Join(bucketDir, name)))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.catalog.CreateNamespace(t.Context(), "drop", nil); err != nil {
		t.Fatal(err)
	}
	change := func(c catalog.ExternalChange) {
		t.Helper()
		if err := s.catalog.ChangeExternals(t.Context(), []catalog.ExternalChange{c}); err != nil {
			t.Fatal(err)
		}
	}
	change(catalog.ExternalChange{Table: catalog.Name{Namespace: "drop", Table: "symbols"}, Define: &hive.Table{Type: hive.ExternalTable, Parameters: map[string]string{hive.ParamSkipHeader: "1"},
		Storage: &hive.Storage{Location: "s3://dropped/symbols", Serde: &hive.Serde{Library: hive.CSVSerde}, Columns: []hive.Column{{Name: "symbol", Type: "string"}, {Name: "name", Type: "string"}}}}})
	change(catalog.ExternalChange{Table: catalog.Name{Namespace: "drop", Table: "history"}, Define: &hive.Table{Type: hive.ExternalTable, PartitionKeys: []hive.Column{{Name: "trade_date", Type: "date"}},
		Storage: &hive.Storage{Location: "s3://dropped/history/", Serde: &hive.Serde{Library: hive.ParquetSerde}, InputFormat: hive.ParquetInput,
			Columns: []hive.Column{{Name: "symbol", Type: "string"}, {Name: "quantity", Type: "bigint"}, {Name: "price", Type: "decimal(18,4)"}}}},
		Put: []hive.Partition{{Values: []string{"2026-11-18"}}, {Values: []string{"2026-11-19"}, Storage: &hive.Storage{Location: "s3://dropped/history/trade_date=2026-11-19/"}}}})
}

// queryForeign asks over the wire, external tables joined with each other and with
// one of the lake.
func queryForeign(t *testing.T, s *Server) {
	t.Helper()
	conn := connect(t, s)
	execute1(t, conn, `CREATE TABLE public.own (symbol varchar, member int)`)
	execute1(t, conn, `INSERT INTO public.own VALUES ('ZONE', 7)`)
	if got := table(t, conn, `SELECT h.trade_date::text, s.name, o.member, h.quantity * h.price AS notional FROM drop.history h JOIN drop.symbols s USING (symbol) JOIN public.own o USING (symbol) ORDER BY 1`); strings.Join(got, "\n") !=
		"2026-11-18|One, Inc.|7|1.2500\n2026-11-19|One, Inc.|7|2.5000" {
		t.Errorf("joined: %q", got)
	}
	if got := table(t, conn, `SELECT "$path", "$size" > 10, name FROM drop.symbols ORDER BY 1`); strings.Join(got, "\n") != "s3://dropped/symbols/a b%20ü.csv|t|One, Inc.\ns3://dropped/symbols/deeper/b.csv.gz|t|Zwei AG" {
		t.Errorf("paths: %q", got)
	}
	if got := table(t, conn, `SELECT quantity FROM drop.history WHERE trade_date = $1::date`, "2026-11-19"); fmt.Sprint(got) != "[2]" {
		t.Errorf("a partition by a parameter: %q", got)
	}
	execute1(t, conn, `CREATE TABLE public.kept AS SELECT * FROM drop.history`)
	if got := text(t, conn, `SELECT count(*) FROM public.kept`); got != "2" {
		t.Errorf("%s rows were copied", got)
	}
	if got := table(t, conn, `SELECT operation, count(*) FROM public."kept$snapshots" GROUP BY 1`); fmt.Sprint(got) != "[append|1]" {
		t.Errorf("snapshots: %q", got)
	}
	var refused *pgconn.PgError
	if _, err := conn.Exec(t.Context(), `CREATE MATERIALIZED VIEW public.v AS SELECT symbol, sum(quantity) AS q FROM drop.history GROUP BY 1`); !errors.As(err, &refused) || refused.Code != "0A000" || !strings.Contains(refused.Message, "external table drop.history") {
		t.Errorf("a view over an external table: %v", err)
	}
	execute1(t, conn, `DROP TABLE drop.symbols`)
	if _, err := rowsOf(context.Background(), conn, `SELECT * FROM drop.symbols`); !errors.As(err, &refused) || refused.Code != "42P01" {
		t.Errorf("a dropped external table: %v", err)
	}
}

func TestExternalTables(t *testing.T) {
	s := open(t, testConfig(t))
	dir := filepath.Join(s.cfg.Data, "buckets", "dropped")
	foreignTables(t, s, dir)
	queryForeign(t, s)
	if _, err := os.Stat(filepath.Join(dir, "symbols", "deeper", "b.csv.gz")); err != nil {
		t.Errorf("a file of a dropped external table: %v", err)
	}
	out, err := os.ReadDir(s.dir("external"))
	if err != nil || len(out) > 2 {
		t.Errorf("%d staged files are left, %v", len(out), err)
	}
}

// TestExternalTablesS3: the bucket is beside the lake's on S3.
func TestExternalTablesS3(t *testing.T) {
	cfg, server, _ := s3Config(t)
	s := open(t, cfg)
	foreignTables(t, s, filepath.Join(server.Root, "dropped"))
	queryForeign(t, s)
}

// TestExternalPsql: psql's \d of an external table.
func TestExternalPsql(t *testing.T) {
	look(t, "psql", "psql's \\d of external tables was not run")
	s := open(t, testConfig(t))
	foreignTables(t, s, filepath.Join(s.cfg.Data, "buckets", "dropped"))
	got := tour(t, s, nil, "\\echo == tables\n\\dt drop.*\n\\echo == described\n\\d drop.history\n\\d+ drop.history\n")
	if !strings.Contains(got["tables"], "history") || !strings.Contains(got["tables"], "symbols") {
		t.Errorf("\\dt:\n%s", got["tables"])
	}
	for _, want := range []string{"symbol", "quantity", "bigint", "numeric(18,4)", "trade_date", "date"} {
		if !strings.Contains(got["described"], want) {
			t.Errorf("\\d does not show %s:\n%s", want, got["described"])
		}
	}
}
