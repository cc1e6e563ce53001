package benchmark

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// viewed is one benchmark of a view.
type viewed struct {
	BaseRows  int64   `json:"base_rows"`
	DeltaRows int64   `json:"delta_rows"`
	Groups    int64   `json:"groups"`
	Query     float64 `json:"query_ms"`   // the view's query, computed anew and read
	Create    float64 `json:"create_ms"`  // CREATE MATERIALIZED VIEW: the same, and stored
	Refresh   float64 `json:"refresh_ms"` // REFRESH after the delta
	Read      float64 `json:"read_ms"`    // the view, read, before the refresh: fresh all the same
	Ratio     float64 `json:"ratio"`      // refresh / query
}

const (
	baseTable  = "bench.base"
	baseView   = "bench.base_totals"
	againView  = "bench.base_totals_again"
	baseSQL    = `SELECT symbol, side, count(*) AS trades, sum(quantity) AS shares, sum(quantity * price) AS notional, min(price) AS low, max(price) AS high FROM bench.base GROUP BY symbol, side`
	deltaShare = 100 // one in a hundred
)

// viewRefresh fills a table, makes a view of it and measures, delta by delta,
// what a refresh costs against computing the view's query again.
func viewRefresh(ctx context.Context, o Options, r *reporter) (_ any, err error) {
	rows := int64(orDefault(o.Records, 10_000_000))
	s, err := start(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if _, err := prepare(ctx, s, false); err != nil {
		return nil, err
	}
	if _, err := (load{connections: 16, records: rows}).run(ctx, s); err != nil {
		return nil, err
	}
	conn, err := s.sql(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is left to lose
	for _, sql := range []string{
		"CREATE TABLE " + baseTable + " AS SELECT * FROM " + table,
		"CREATE MATERIALIZED VIEW " + baseView + " AUTO REFRESH NO AS " + baseSQL,
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return nil, fmt.Errorf("%.40s…: %w", sql, err)
		}
	}
	v := viewed{}
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM "+baseTable).Scan(&v.BaseRows); err != nil {
		return nil, err
	}
	v.DeltaRows = v.BaseRows / deltaShare
	r.printf("%s rows, %s more a run\n", grouped(v.BaseRows), grouped(v.DeltaRows))
	var query, create, refresh, read []time.Duration
	for i := range orDefault(o.Runs, 5) {
		insert := fmt.Sprintf("INSERT INTO %s SELECT * FROM %s WHERE seq >= %d LIMIT %d", baseTable, table, numberFirst+int64(i)*1000, v.DeltaRows)
		if _, err := conn.Exec(ctx, insert); err != nil {
			return nil, fmt.Errorf("insert the delta: %w", err)
		}
		steps := []struct {
			sql  string
			took *[]time.Duration
		}{
			{"SELECT * FROM " + baseView, &read},
			{"REFRESH MATERIALIZED VIEW " + baseView, &refresh},
			{baseSQL, &query},
			{"CREATE MATERIALIZED VIEW " + againView + " AUTO REFRESH NO AS " + baseSQL, &create},
		}
		for _, st := range steps {
			began := time.Now()
			if v.Groups, err = drain(ctx, conn, st.sql, v.Groups); err != nil {
				return nil, fmt.Errorf("%.40s…: %w", st.sql, err)
			}
			*st.took = append(*st.took, time.Since(began))
		}
		if err := sameView(ctx, conn); err != nil {
			return nil, err
		}
		if _, err := conn.Exec(ctx, "DROP MATERIALIZED VIEW "+againView); err != nil {
			return nil, err
		}
		r.printf("run %d: refresh %.1f ms, query %.1f ms, create %.1f ms, read before the refresh %.1f ms\n", i+1,
			ms(refresh[i]), ms(query[i]), ms(create[i]), ms(read[i]))
	}
	mid := func(d []time.Duration) float64 {
		return ms(medianBy(d, func(d time.Duration) float64 { return float64(d) }))
	}
	v.Query, v.Create, v.Refresh, v.Read = mid(query), mid(create), mid(refresh), mid(read)
	v.Ratio = v.Refresh / v.Query
	r.printf("median: refresh %.1f ms, query %.1f ms (%.1f %%), create %.1f ms (%.1f %%), %s groups\n",
		v.Refresh, v.Query, 100*v.Ratio, v.Create, 100*v.Refresh/v.Create, grouped(v.Groups))
	return v, nil
}

// drain runs a statement and reads all that it answers; it returns the number
// of rows, or before if it is no query.
func drain(ctx context.Context, conn *pgx.Conn, sql string, before int64) (int64, error) {
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		return before, err
	}
	defer rows.Close()
	n := int64(0)
	for rows.Next() {
		n++
	}
	if err := rows.Err(); err != nil {
		return before, err
	}
	if !strings.HasPrefix(sql, "SELECT") {
		return before, nil
	}
	return n, nil
}

// sameView holds the refreshed view against its query.
func sameView(ctx context.Context, conn *pgx.Conn) error {
	sums := "SELECT count(*)::text, sum(trades)::text, sum(shares)::text, sum(notional)::text, sum(low)::text, sum(high)::text FROM "
	read := func(from string) (out [6]string, err error) {
		err = conn.QueryRow(ctx, sums+from).Scan(&out[0], &out[1], &out[2], &out[3], &out[4], &out[5])
		return out, err
	}
	a, err := read(baseView)
	if err != nil {
		return fmt.Errorf("verify the view: %w", err)
	}
	b, err := read("(" + baseSQL + ") q")
	if err != nil {
		return fmt.Errorf("verify the view: %w", err)
	}
	if a != b {
		return fmt.Errorf("verify: the view sums to %v, its query to %v", a, b)
	}
	return nil
}
