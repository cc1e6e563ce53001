package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestNarrow: a statement brings the files here that its conditions on the
// partition column leave, and its rows are those that all files give.
func TestNarrow(t *testing.T) {
	f := &fakeFiles{held: map[string]int{}}
	e, dir := newEngine(t, func(o *Options) {
		root := filepath.Dir(o.AllowedDirs[0])
		f.far, f.near = o.AllowedDirs[0], filepath.Join(root, "near")
		if err := os.Mkdir(f.near, 0o755); err != nil {
			t.Fatal(err)
		}
		o.AllowedDirs = append(o.AllowedDirs, f.near)
		o.Files = f
	})
	// Four trade dates, 2026-11-20 to 23, ten rows each, and a file of no date.
	local, remote := Relation{Schema: trades, PartitionBy: "trade_date"}, Relation{Schema: trades, PartitionBy: "trade_date"}
	const day0 = int32(20_777) // 2026-11-20
	for d := range int32(5) {
		name := fmt.Sprintf("%d.parquet", d)
		date := fmt.Sprintf("DATE '2026-11-20' + %d", d)
		if d == 4 {
			date = "CASE WHEN i % 2 = 0 THEN DATE '2026-11-22' END"
		}
		sql := fmt.Sprintf(`SELECT i + %d AS id, 'S' || i AS symbol, CAST(i AS DECIMAL(18,4)) AS price, CAST(i AS INTEGER) AS qty, %s AS trade_date, TIMESTAMPTZ '2026-11-23 14:30:00+00' AS executed_at FROM range(10) t(i)`, 10*d, date)
		x, err := e.Export(t.Context(), Query{SQL: sql}, ExportSpec{Path: filepath.Join(dir, name), Schema: trades})
		if err != nil {
			t.Fatal(err)
		}
		file := File{Path: filepath.Join(dir, name), Rows: x.Rows}
		if d < 4 {
			day := day0 + d
			file.PartitionTradeDate = &day
		}
		local.Files = append(local.Files, file)
		file.Path = "far://" + name
		remote.Files = append(remote.Files, file)
	}
	tags := Name{"equities", "tags"}
	s := newSession(t, e)
	for _, c := range []struct {
		sql   string
		args  []any
		files string // that are held while rows are open; 4 has no date and is always
	}{
		{`SELECT id FROM equities.executions ORDER BY 1`, nil, "01234"},
		{`SELECT id FROM equities.executions WHERE trade_date = DATE '2026-11-21' ORDER BY 1`, nil, "14"},
		{`SELECT id FROM equities.executions WHERE trade_date = '2026-11-21' AND qty > 3 ORDER BY 1`, nil, "14"},
		{`SELECT id FROM equities.executions WHERE DATE '2026-11-21' >= Trade_Date ORDER BY 1`, nil, "014"},
		{`SELECT id FROM equities.executions x WHERE x.trade_date > '2026-11-21' AND x.trade_date < '2026-11-23' ORDER BY 1`, nil, "1234"}, // strict ends are kept
		{`SELECT id FROM equities.executions WHERE trade_date BETWEEN '2026-11-21' AND '2026-11-22' ORDER BY 1`, nil, "124"},
		{`SELECT id FROM equities.executions WHERE trade_date NOT BETWEEN '2026-11-21' AND '2026-11-22' ORDER BY 1`, nil, "01234"},
		{`SELECT id FROM equities.executions WHERE trade_date IN ('2026-11-20', DATE '2026-11-21') ORDER BY 1`, nil, "014"},
		{`SELECT id FROM equities.executions WHERE trade_date NOT IN ('2026-11-20') ORDER BY 1`, nil, "01234"},
		{`SELECT id FROM equities.executions WHERE trade_date = '2026-11-20' OR trade_date = '2026-11-21' ORDER BY 1`, nil, "014"},
		{`SELECT id FROM equities.executions WHERE trade_date = '2026-11-20' OR qty = 5 ORDER BY 1`, nil, "01234"},
		{`SELECT id FROM equities.executions WHERE trade_date = '2026-11-20' OR trade_date IS NULL ORDER BY 1`, nil, "01234"},
		{`SELECT id FROM equities.executions WHERE NOT (trade_date = '2026-11-20') ORDER BY 1`, nil, "01234"},
		{`SELECT id FROM equities.executions WHERE trade_date <> '2026-11-20' ORDER BY 1`, nil, "01234"},
		{`SELECT id FROM equities.executions WHERE trade_date = '1999-01-01' ORDER BY 1`, nil, "4"},
		{`SELECT id FROM equities.executions WHERE trade_date + 1 = '2026-11-21' ORDER BY 1`, nil, "01234"},
		{`SELECT id FROM equities.executions WHERE trade_date = $1 ORDER BY 1`, []any{Date(day0 + 2)}, "24"},
		{`SELECT id FROM equities.executions WHERE trade_date = CAST($1 AS DATE) AND qty >= $2 ORDER BY 1`, []any{Date(day0 + 3), int64(2)}, "34"},
		{`SELECT id FROM equities.executions WHERE trade_date = (SELECT max(trade_date) FROM equities.executions) ORDER BY 1`, nil, "01234"},
		// The same table twice: what both want.
		{`SELECT id FROM equities.executions WHERE trade_date = '2026-11-20' UNION ALL SELECT id FROM equities.executions WHERE trade_date = '2026-11-22' ORDER BY 1`, nil, "0124"},
		{`SELECT id FROM equities.executions WHERE trade_date = '2026-11-20' AND qty IN (SELECT qty FROM equities.executions) ORDER BY 1`, nil, "01234"},
		{`WITH x AS (SELECT * FROM equities.executions WHERE trade_date = '2026-11-20') SELECT id FROM x WHERE trade_date > '2000-01-01' ORDER BY 1`, nil, "04"},
		// A condition outside of a subquery is not looked at.
		{`SELECT id FROM (SELECT * FROM equities.executions) x WHERE x.trade_date = '2026-11-20' ORDER BY 1`, nil, "01234"},
		// Joins.
		{`SELECT x.id, t.id FROM equities.executions x JOIN equities.tags t ON x.qty = t.id WHERE x.trade_date = '2026-11-21' ORDER BY 1, 2`, nil, "14"},
		{`SELECT x.id, t.id FROM equities.executions x JOIN equities.tags t ON x.qty = t.id WHERE id > 3 AND executed_at > '2000-01-01' ORDER BY 1, 2`, nil, "error"},
		{`SELECT t.id, x.id FROM equities.tags t LEFT JOIN equities.executions x ON x.qty = t.id WHERE x.trade_date = '2026-11-21' ORDER BY 1, 2`, nil, "14"},
		{`SELECT t.id, x.id FROM equities.tags t LEFT JOIN equities.executions x ON x.qty = t.id WHERE x.trade_date = '2026-11-21' OR x.id IS NULL ORDER BY 1, 2`, nil, "01234"},
		{`SELECT t.id, x.id FROM equities.tags t FULL JOIN equities.executions x ON x.qty = t.id WHERE x.trade_date = '2026-11-21' ORDER BY 1, 2`, nil, "14"},
		{`SELECT t.id, x.id FROM equities.tags t LEFT JOIN equities.executions x ON x.qty = t.id AND x.trade_date = '2026-11-21' ORDER BY 1, 2`, nil, "01234"},
		{`SELECT t.id, x.id FROM equities.tags t ASOF JOIN equities.executions x ON t.id >= x.id WHERE x.trade_date = '2026-11-20' ORDER BY 1, 2`, nil, "01234"},
		{`SELECT a.id, b.id FROM equities.executions a JOIN equities.executions b ON a.qty = b.qty WHERE a.trade_date = '2026-11-20' AND b.trade_date = '2026-11-21' ORDER BY 1, 2`, nil, "014"},
		{`SELECT a.id, b.id FROM equities.executions a JOIN equities.executions b ON a.qty = b.qty WHERE a.trade_date = '2026-11-20' AND b.trade_date = a.trade_date ORDER BY 1, 2`, nil, "01234"},
		{`SELECT d FROM equities.executions x(a, b, c, q, d) WHERE d = '2026-11-20' ORDER BY 1`, nil, "01234"},
		{`SELECT trade_date, count(*) FROM equities.executions WHERE trade_date >= '2026-11-22' GROUP BY trade_date HAVING count(*) > 1 ORDER BY 1`, nil, "234"},
	} {
		pinned := func(r Relation) *Pin {
			return NewPin(map[Name]Relation{tradesName: r, tags: {Schema: trades, Files: local.Files[:1]}})
		}
		all, pin := pinned(local), pinned(remote)
		want, wantErr := collectRows(t.Context(), s, Query{SQL: c.sql, Args: c.args, Pin: all})
		all.Release()
		_, _, err := s.Describe(t.Context(), Query{SQL: c.sql, Pin: pin})
		if held, _ := f.count(); held != 0 || err != nil && wantErr == nil {
			t.Errorf("%s: to describe it %d files were held, %v", c.sql, held, err)
		}
		rows, err := s.Query(t.Context(), Query{SQL: c.sql, Args: c.args, Pin: pin})
		if c.files == "error" {
			if wantErr == nil || err == nil {
				t.Errorf("%s: %v, %v", c.sql, wantErr, err)
			}
			pin.Release()
			continue
		}
		if err != nil || wantErr != nil {
			t.Fatal(c.sql, wantErr, err)
		}
		var names []string
		f.mu.Lock()
		for p, n := range f.held {
			if n > 0 {
				names = append(names, strings.TrimSuffix(strings.TrimPrefix(p, "far://"), ".parquet"))
			}
		}
		f.mu.Unlock()
		slices.Sort(names)
		if got := strings.Join(names, ""); got != c.files {
			t.Errorf("%s: brings files %s, want %s", c.sql, got, c.files)
		}
		_ = rows.Close()
		if have, err := collectRows(t.Context(), s, Query{SQL: c.sql, Args: c.args, Pin: pin}); err != nil || !slices.Equal(have, want) {
			t.Errorf("%s\n  all files give %q\n  have %q, %v", c.sql, want, have, err)
		}
		pin.Release()
		if held, _ := f.count(); held != 0 {
			t.Errorf("%s: %d files are held afterwards", c.sql, held)
		}
	}
}
