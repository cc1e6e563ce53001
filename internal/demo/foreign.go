package demo

import (
	"context"
	"encoding/csv"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/terminal"
)

// othersFolder is where the demo drops files that Tapehouse did not write.
const othersFolder = "others"

// foreign drops a symbol directory in CSV and the trade date before in Parquet into
// the lake, crawls them, and joins them with what was streamed.
func (d *demo) foreign(ctx context.Context) (err error) {
	d.head("Foreign", "files of others dropped into the lake: a CSV and a Parquet file")
	server := d.server.Load()
	conn, err := Connect(ctx, server.Endpoints, server.Credentials.Users[0])
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows, err := conn.Query(ctx, "SELECT DISTINCT symbol FROM equities.executions ORDER BY symbol")
	if err != nil {
		return fmt.Errorf("list the symbols: %w", err)
	}
	symbols, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("list the symbols: %w", err)
	}
	before, ok := d.pack.Calendar.Prev(d.date)
	if !ok {
		before = d.date - 1
	}
	folder := filepath.Join(LakeDir(d.o.Data), othersFolder)
	if err := writeSymbols(filepath.Join(folder, "symbols"), symbols); err != nil {
		return fmt.Errorf("write the symbol directory: %w", err)
	}
	if err := writeHistory(ctx, filepath.Join(folder, "daily_volumes", "trade_date="+before.String()), filepath.Join(folder, "symbols", "symbols.csv")); err != nil {
		return fmt.Errorf("write the trade date before: %w", err)
	}
	began := time.Now()
	crawl, err := d.console().Crawl(ctx, console.CrawlRequest{Name: "demo", Path: "s3://lake/" + othersFolder + "/", Database: othersFolder})
	if err != nil {
		return fmt.Errorf("crawl: %w", err)
	}
	const join = ` FROM equities.executions e JOIN others.symbols s ON s.symbol = e.symbol JOIN others.daily_volumes v ON v.symbol = e.symbol AND v.trade_date = $1`
	var joined int64
	if err := conn.QueryRow(ctx, `SELECT count(DISTINCT e.symbol)`+join, before.String()).Scan(&joined); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	took := time.Since(began)
	d.result.ForeignTables, d.result.ForeignSymbols = len(crawl.Tables), joined
	if len(crawl.Tables) != 2 || joined != int64(len(symbols)) {
		d.result.OK = false
		d.say("   ✗ %s and %d of %d symbols joined\n", terminal.Plural(int64(len(crawl.Tables)), "table"), joined, len(symbols))
	}
	for _, t := range crawl.Tables {
		d.say("   %s.%-14s %s\n", crawl.Database, t.Name, t.Location)
	}
	d.say("   crawled and joined in %s: the most traded symbols, and their volume on %s\n", terminal.Took(took), before)
	top, err := conn.Query(ctx, `SELECT e.symbol, s.company, sum(e.quantity)::bigint, max(v.volume)`+join+` GROUP BY e.symbol, s.company ORDER BY 3 DESC, 1 LIMIT 3`, before.String())
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	defer top.Close()
	t := terminal.Table{Indent: "     ", Columns: []terminal.Column{terminal.Left("symbol"), terminal.Left("company"), terminal.Right("shares"), terminal.Right("before")}}
	for top.Next() {
		var symbol, company string
		var shares, volume int64
		if err := top.Scan(&symbol, &company, &shares, &volume); err != nil {
			return fmt.Errorf("join: %w", err)
		}
		t.Add(symbol, company, terminal.Count(shares), terminal.Count(volume))
	}
	if err := top.Err(); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	d.progress.Above(func() { err = t.Write(d.o.Out) })
	return err
}

// writeSymbols writes a directory of symbols as a listing exchange publishes one.
func writeSymbols(dir string, symbols []string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "symbols.csv"))
	if err != nil {
		return err
	}
	defer func() {
		if closed := f.Close(); err == nil {
			err = closed
		}
	}()
	kinds := []string{"Holdings, Inc.", "Industries", "Energy plc", "Bancorp", "Therapeutics"}
	w := csv.NewWriter(f)
	if err := w.Write([]string{"symbol", "company", "round_lot", "listed_on"}); err != nil {
		return err
	}
	for _, s := range symbols {
		h := fnv.New32a()
		_, _ = h.Write([]byte(s)) // it never fails
		n := h.Sum32()
		name := s[:1] + strings.ToLower(s[1:]) + " " + kinds[n%uint32(len(kinds))]
		if err := w.Write([]string{s, name, "100", fmt.Sprintf("%04d-%02d-%02d", 1990+n%30, 1+n%12, 1+n%28)}); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

// writeHistory lets DuckDB write a Parquet file of the trade date before, as another
// program would.
func writeHistory(ctx context.Context, dir, symbols string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	peer, err := engine.OpenPeer(ctx, 1)
	if err != nil {
		return err
	}
	defer peer.Close()
	return peer.Exec(ctx, "COPY (SELECT symbol, CAST(100 * (1 + hash(symbol) % 50000) AS BIGINT) AS volume, CAST(CAST(hash(symbol) % 5000000 AS DOUBLE) / 10000 AS DECIMAL(18,4)) AS last_price FROM read_csv("+
		engine.QuoteLiteral(symbols)+", header = true)) TO "+engine.QuoteLiteral(filepath.Join(dir, "volumes.parquet"))+" (FORMAT parquet)")
}
