package view

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/warehouse"
)

// sqlViews gives the warehouse the views, as the server does.
type sqlViews struct{ m *Manager }

func (v sqlViews) Create(ctx context.Context, d warehouse.ViewDefinition) error {
	return v.m.Create(ctx, Definition(d))
}

func (v sqlViews) Refresh(ctx context.Context, name catalog.Name) (string, error) {
	r, err := v.m.Refresh(ctx, name)
	return r.Notice(name.Table), err
}

func (v sqlViews) Drop(ctx context.Context, name catalog.Name) error { return v.m.Drop(ctx, name) }

func (v sqlViews) List(ctx context.Context) ([]warehouse.View, error) {
	infos, err := v.m.List(ctx)
	out := make([]warehouse.View, len(infos))
	for i, in := range infos {
		out[i] = warehouse.View{ViewDefinition: warehouse.ViewDefinition(in.Definition), Incremental: in.Incremental, Stale: in.Stale}
	}
	return out, err
}

func (v sqlViews) Read(ctx context.Context, name catalog.Name) (*warehouse.ViewRead, error) {
	r, err := v.m.Read(ctx, name)
	if r == nil {
		return nil, err
	}
	return &warehouse.ViewRead{Query: r.Query, Columns: r.Columns, Tables: r.Tables, Bind: r.Bind}, err
}

type client struct {
	t *testing.T
	s *warehouse.Session
}

func (c client) try(sql string) ([]string, error) {
	ctx := c.t.Context()
	st, err := c.s.Prepare(ctx, sql, nil)
	if err != nil {
		return nil, err
	}
	r, err := c.s.Execute(ctx, st, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	var out []string
	dst := make([]any, len(r.Columns()))
	for len(dst) > 0 {
		err := r.Next(dst)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		line := make([]string, len(dst))
		for i, v := range dst {
			line[i] = fmt.Sprint(v)
		}
		out = append(out, strings.Join(line, "|"))
	}
	return out, r.Close()
}

func (c client) run(sql string) []string {
	c.t.Helper()
	out, err := c.try(sql)
	if err == nil {
		err = c.s.SyncPoint(c.t.Context(), true)
	}
	if err != nil {
		c.t.Fatalf("%s: %v", sql, err)
	}
	return out
}

func (c client) want(sql string, want ...string) {
	c.t.Helper()
	if got := c.run(sql); !slices.Equal(got, want) {
		c.t.Errorf("%s\n got %q\nwant %q", sql, got, want)
	}
}

func TestThroughSQL(t *testing.T) {
	w := newWorld(t)
	house := warehouse.New(warehouse.Options{Engine: w.engine, Catalog: w.catalog, Store: w.store, Staging: filepath.Join(w.dir, "staging"), Views: sqlViews{w.views}})
	connect := func() client {
		s, err := house.NewSession(t.Context(), warehouse.SessionOptions{User: "analyst", Database: warehouse.Database})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return client{t, s}
	}
	a, b := connect(), connect()
	a.run(`CREATE SCHEMA billing`)
	a.run(`CREATE TABLE billing.legs (trade_date date, mpid varchar(8), side char(1), quantity integer, price numeric(18,4))`)
	a.run(`CREATE TABLE billing.members (mpid varchar(8), firm varchar(40))`)
	a.run(`INSERT INTO billing.members VALUES ('AAA', 'Alpha'), ('BBB', 'Beta')`)
	a.run(`INSERT INTO billing.legs VALUES ('2026-11-23', 'AAA', 'B', 100, 10.0001), ('2026-11-23', 'BBB', 'S', 200, 10.5)`)
	a.run(`CREATE MATERIALIZED VIEW billing.daily AUTO REFRESH YES AS SELECT trade_date, mpid, count(*) AS legs, sum(quantity) AS shares, sum(quantity * price) AS notional,
		sum(quantity * price) / sum(quantity) AS vwap, avg(price) FROM billing.legs GROUP BY trade_date, mpid`)
	a.run(`CREATE MATERIALIZED VIEW billing.by_firm AS SELECT m.firm, CAST(date_trunc('month', l.trade_date) AS date) AS month, sum(CASE WHEN side = 'B' THEN quantity ELSE 0 END) AS bought
		FROM billing.legs l JOIN billing.members m ON l.mpid = m.mpid WHERE price > 1 GROUP BY m.firm, CAST(date_trunc('month', l.trade_date) AS date)`)
	for _, info := range []Info{w.info(catalog.Name{Namespace: "billing", Table: "daily"}), w.info(catalog.Name{Namespace: "billing", Table: "by_firm"})} {
		if !info.Incremental {
			t.Errorf("%s: %s", info.Name, info.Reason)
		}
	}
	const daily = `SELECT mpid, legs, shares, notional, vwap, avg FROM billing.daily ORDER BY mpid`
	a.want(daily, "AAA|1|100|1000.0100|10.0001|10.0001", "BBB|1|200|2100.0000|10.5000|10.5000")
	a.want(`SELECT firm, bought FROM billing.by_firm ORDER BY firm`, "Alpha|100", "Beta|0")
	b.run(`BEGIN`)
	b.want(daily, "AAA|1|100|1000.0100|10.0001|10.0001", "BBB|1|200|2100.0000|10.5000|10.5000")
	a.run(`INSERT INTO billing.legs VALUES ('2026-11-23', 'AAA', 'B', 1, 10.0002)`)
	if got := a.run(daily); got[0] != "AAA|2|101|1010.0102|10.0001|10.0002" { // 10.00010099… and 10.00015
		t.Errorf("fresh: %q", got)
	}
	a.want(`SELECT firm, bought FROM billing.by_firm ORDER BY firm`, "Alpha|101", "Beta|0")
	a.run(`REFRESH MATERIALIZED VIEW billing.daily`)
	if n := a.s.TakeNotices(); len(n) != 1 || n[0].Message != "Materialized view daily was incrementally updated successfully." {
		t.Errorf("notices %+v", n)
	}
	// A transaction sees the view as of its first reading, with its own rows.
	b.want(daily, "AAA|1|100|1000.0100|10.0001|10.0001", "BBB|1|200|2100.0000|10.5000|10.5000")
	b.run(`INSERT INTO billing.legs VALUES ('2026-11-23', 'BBB', 'B', 100, 10.5)`)
	b.want(`SELECT d.legs, (SELECT count(*) FROM billing.legs WHERE mpid = 'BBB') FROM billing.daily d WHERE mpid = 'BBB'`, "2|2")
	b.run(`COMMIT`)
	b.want(`SELECT sum(legs), (SELECT count(*) FROM billing.legs) FROM billing.daily`, "4|4")
	a.run(`INSERT INTO billing.members VALUES ('AAA', 'Alpha twin')`)
	a.want(`SELECT firm, bought FROM billing.by_firm ORDER BY firm`, "Alpha|101", "Alpha twin|101", "Beta|100")
	// The state is nobody's table.
	a.want(`SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'billing' ORDER BY 1`, "by_firm", "daily", "legs", "members")
	for _, sql := range []string{`SELECT * FROM billing.__state_daily`, `DROP TABLE billing.__state_daily`, `INSERT INTO billing.__state_daily SELECT * FROM billing.daily`} {
		if out, err := a.try(sql); err == nil {
			t.Errorf("%s: %q", sql, out)
		}
	}
	a.run(`DROP MATERIALIZED VIEW billing.daily`)
	if _, err := a.try(daily); err == nil {
		t.Error("a dropped view is read")
	}
}
