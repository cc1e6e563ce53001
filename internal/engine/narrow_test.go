package engine

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/record"
)

// narrowHouse is an engine with four trade dates, 2026-11-20 to 23, of ten rows
// each, and a file of two dates or none: as local files, and as files of a lake
// elsewhere, with ranges of their other columns or without.
func narrowHouse(t *testing.T, ranges bool) (e *Engine, f *fakeFiles, local, remote Relation) {
	f = &fakeFiles{held: map[string]int{}}
	e, dir := newEngine(t, func(o *Options) {
		root := filepath.Dir(o.AllowedDirs[0])
		f.far, f.near = o.AllowedDirs[0], filepath.Join(root, "near")
		if err := os.Mkdir(f.near, 0o755); err != nil {
			t.Fatal(err)
		}
		o.AllowedDirs = append(o.AllowedDirs, f.near)
		o.Files = f
	})
	local, remote = Relation{Schema: trades, PartitionBy: "trade_date"}, Relation{Schema: trades, PartitionBy: "trade_date"}
	for d := range int32(5) {
		name := fmt.Sprintf("%d.parquet", d)
		date := fmt.Sprintf("DATE '2026-11-20' + %d", d)
		if d == 4 {
			date = "CASE WHEN i % 2 = 0 THEN DATE '2026-11-22' END"
		}
		sql := fmt.Sprintf(`SELECT i + %d AS id, 'S' || chr(97 + (%[1]d + i)::INTEGER // 2) || repeat('-', 20) || i AS symbol, CAST(i * i - 2.25 * %[2]d AS DECIMAL(18,4)) AS price, CAST(i - %[2]d AS INTEGER) AS qty,
			%s AS trade_date, TIMESTAMPTZ '2026-11-23 14:30:00.000001+00' + INTERVAL 1 HOUR * (i + 3 * %[2]d) AS executed_at FROM range(10) t(i)`, 10*d, d, date)
		x, err := e.Export(t.Context(), Query{SQL: sql}, ExportSpec{Path: filepath.Join(dir, name), Schema: trades})
		if err != nil {
			t.Fatal(err)
		}
		file := File{Path: filepath.Join(dir, name), Rows: x.Rows}
		if ranges {
			file.Ranges = rangesOf(t, file.Path)
		}
		if d < 4 {
			day := day0 + d
			file.PartitionTradeDate = &day
		}
		local.Files = append(local.Files, file)
		file.Path = "far://" + name
		remote.Files = append(remote.Files, file)
	}
	return e, f, local, remote
}

// rangesOf reads a file's bounds as a commit does.
func rangesOf(t *testing.T, path string) Ranges {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	m, err := columnar.MetaFromParquet(f, info.Size(), trades)
	if err != nil {
		t.Fatal(err)
	}
	return &m
}

const day0 = int32(20_777) // 2026-11-20

// TestNarrow: a statement brings the files here that its conditions on the
// partition column leave, and its rows are those that all files give.
func TestNarrow(t *testing.T) {
	e, f, local, remote := narrowHouse(t, false)
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
		{`SELECT id FROM equities.executions WHERE trade_date NOT IN ('2026-11-20') ORDER BY 1`, nil, "1234"},
		{`SELECT id FROM equities.executions WHERE trade_date = '2026-11-20' OR trade_date = '2026-11-21' ORDER BY 1`, nil, "014"},
		{`SELECT id FROM equities.executions WHERE trade_date = '2026-11-20' OR qty = 5 ORDER BY 1`, nil, "01234"},
		{`SELECT id FROM equities.executions WHERE trade_date = '2026-11-20' OR trade_date IS NULL ORDER BY 1`, nil, "01234"},
		{`SELECT id FROM equities.executions WHERE NOT (trade_date = '2026-11-20') ORDER BY 1`, nil, "1234"},
		{`SELECT id FROM equities.executions WHERE trade_date <> '2026-11-20' ORDER BY 1`, nil, "1234"},
		{`SELECT id FROM equities.executions WHERE trade_date = '1999-01-01' ORDER BY 1`, nil, "4"},
		{`SELECT id FROM equities.executions WHERE trade_date = '2026-11-21' AND symbol <> '` + strings.Repeat("x", cachedStatementMax) + `' ORDER BY 1`, nil, "14"}, // too long to be kept
		{`SELECT id FROM equities.executions WHERE trade_date + 1 = '2026-11-21' ORDER BY 1`, nil, "01234"},
		{`SELECT id FROM equities.executions WHERE trade_date = $1 ORDER BY 1`, []any{Date(day0 + 2)}, "24"},
		{`SELECT id FROM equities.executions WHERE trade_date = CAST($1 AS DATE) AND qty >= $2 ORDER BY 1`, []any{Date(day0 + 3), int64(2)}, "34"},
		{`SELECT id FROM equities.executions WHERE trade_date = (SELECT max(trade_date) FROM equities.executions) ORDER BY 1`, nil, "01234"},
		// The same table twice: what both want.
		{`SELECT id FROM equities.executions WHERE trade_date = '2026-11-20' UNION ALL SELECT id FROM equities.executions WHERE trade_date = '2026-11-22' ORDER BY 1`, nil, "024"},
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

// TestNarrowIsNeverWrong: random statements give the same rows from the files
// that they choose as from all.
func TestNarrowIsNeverWrong(t *testing.T) {
	e, f, local, remote := narrowHouse(t, true)
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	date := func() string {
		d := fmt.Sprintf("2026-11-%d", 18+r.IntN(8))
		if r.IntN(12) == 0 {
			return "DATE '" + d + "' + 1"
		}
		return pick("'"+d+"'", "DATE '"+d+"'", "CAST('"+d+"' AS DATE)")
	}
	order := []string{" = ", " < ", " <= ", " > ", " >= ", " <> ", " IS DISTINCT FROM "}
	other := func(table string) string {
		number := func() string {
			return pick(fmt.Sprint(r.IntN(60)), fmt.Sprint(r.IntN(60)), fmt.Sprintf("%d.%d", r.IntN(60), r.IntN(30)), fmt.Sprintf("%d::BIGINT", r.IntN(60)), fmt.Sprintf("-%d", r.IntN(9)), fmt.Sprintf("%d.5e0", r.IntN(60)),
				fmt.Sprintf("'%d'", r.IntN(60)), "NULL", fmt.Sprintf("CAST(%d.5 AS DECIMAL(4,1))", r.IntN(60)), fmt.Sprintf("CAST(%d.5 AS INTEGER)", r.IntN(60)), fmt.Sprintf("$1 + %d", r.IntN(9)), "$1")
		}
		switch r.IntN(4) {
		case 0:
			text := func() string {
				return pick(fmt.Sprintf("'S%c'", 'a'+r.IntN(26)), fmt.Sprintf("'S%c--------------------%d'", 'a'+r.IntN(26), r.IntN(10)), "''", "'é'", "CAST('Sd' AS VARCHAR)", "NULL", "$2")
			}
			return pick(table+"symbol"+pick(order...)+text(), text()+pick(order...)+table+"symbol", table+"symbol IN ("+text()+", "+text()+")", table+"symbol BETWEEN "+text()+" AND "+text(), table+"symbol LIKE 'S%'")
		case 1:
			at := func() string {
				return pick(fmt.Sprintf("TIMESTAMPTZ '2026-11-%d %02d:30:00+00'", 23+r.IntN(2), r.IntN(24)), fmt.Sprintf("TIMESTAMPTZ '2026-11-23 %02d:30:00.000001+02:30'", r.IntN(24)),
					"'2026-11-24'", "TIMESTAMP '2026-11-24 01:02:03'", "$3", "now()")
			}
			return table + "executed_at" + pick(order...) + at()
		}
		column := pick("id", "qty", "price")
		return pick(table+column+pick(order...)+number(), number()+pick(order...)+table+column, table+column+" IN ("+number()+", "+number()+")", table+column+" BETWEEN "+number()+" AND "+number(), table+column+" + 1 < "+number())
	}
	var condition func(table string, depth int) string
	condition = func(table string, depth int) string {
		c := table + pick("trade_date", "TRADE_DATE", `"trade_date"`)
		switch n := r.IntN(24); {
		case n >= 20 && depth > 0:
			return "(" + condition(table, depth-1) + " AND " + condition(table, depth-1) + ")"
		case n < 4 && depth > 0:
			return "(" + condition(table, depth-1) + " OR " + condition(table, depth-1) + ")"
		case n == 4 && depth > 0:
			return "NOT (" + condition(table, depth-1) + ")"
		case n == 5:
			return c + pick(" BETWEEN ", " NOT BETWEEN ") + date() + " AND " + date()
		case n == 6:
			return c + pick(" IN (", " NOT IN (") + date() + ", " + date() + ")"
		case n == 7:
			return c + pick(" IS NULL", " IS NOT NULL", " IS DISTINCT FROM "+date(), " IS NOT DISTINCT FROM "+date())
		case n == 8:
			return table + "qty " + pick("<", ">", "=") + fmt.Sprint(r.IntN(10))
		case n >= 14 && n < 18:
			return other(table)
		case n == 9:
			return "coalesce(" + c + ", DATE '2026-11-21') = " + date()
		case n < 14:
			return date() + pick(" = ", " < ", " <= ", " > ", " >= ", " <> ") + c
		}
		return c + pick(" = ", " < ", " <= ", " > ", " >= ", " <> ") + date()
	}
	statement := func() string {
		switch r.IntN(5) {
		case 0:
			return "SELECT x.id, y.id FROM equities.executions x " + pick("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN") + " equities.executions y ON x.qty = y.qty + " + fmt.Sprint(r.IntN(12)) +
				" WHERE " + condition("x.", 2) + pick("", " AND "+condition("y.", 2))
		case 1:
			return "SELECT x.id FROM equities.executions x WHERE " + condition("x.", 2) + pick(" AND EXISTS ", " AND NOT EXISTS ", " OR EXISTS ") +
				"(SELECT 1 FROM equities.executions y WHERE y.qty > x.qty AND " + pick(condition("y.", 2), condition("x.", 2)) + ")"
		case 2:
			return "SELECT id FROM equities.executions WHERE " + condition("", 2) + pick(" UNION ALL ", " EXCEPT ", " INTERSECT ") + "SELECT id FROM equities.executions WHERE " + condition("", 1)
		}
		return "SELECT id FROM equities.executions WHERE " + condition("", 3)
	}
	narrowed, refused := 0, 0
	for range 700 {
		sql := "SELECT count(*), md5(string_agg(q::VARCHAR, ',' ORDER BY q::VARCHAR)) FROM (" + statement() + ") AS q"
		all, pin := NewPin(map[Name]Relation{tradesName: local}), NewPin(map[Name]Relation{tradesName: remote})
		internal, err := e.InternalSession(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var args []any // as many as the statement has: $1 is a number, $2 a text, $3 a time
		for i, a := range []any{[]any{int64(r.IntN(60)), Decimal{big.NewInt(int64(r.IntN(6000))), 2}, int32(r.IntN(9))}[r.IntN(3)], fmt.Sprintf("S%c-", 'a'+r.IntN(26)), TimestampTZ(1_795_444_200_000_000 + 3600_000_000*int64(r.IntN(30)))} {
			if strings.Contains(sql, fmt.Sprintf("$%d", i+1)) {
				for len(args) < i {
					args = append(args, nil)
					sql += fmt.Sprintf(" WHERE $%d::VARCHAR IS NULL", len(args))
				}
				args = append(args, a)
			}
		}
		want, wantErr := collectRows(t.Context(), internal, Query{SQL: sql, Pin: all, Args: args})
		have, err := collectRows(t.Context(), internal, Query{SQL: sql, Pin: pin, Args: args})
		if (err == nil) != (wantErr == nil) || !slices.Equal(have, want) {
			t.Errorf("%s\n  all files give %q, %v\n  have %q, %v", sql, want, wantErr, have, err)
		}
		if err != nil {
			refused++
		}
		if held, _ := f.count(); held == 0 && err == nil {
			narrowed++ // else the pin itself holds them
		}
		_ = internal.Close()
		all.Release()
		pin.Release()
	}
	t.Logf("%d of 700 statements were narrowed, %d refused", narrowed, refused)
	if narrowed < 100 || refused > 250 {
		t.Errorf("%d of 700 statements were narrowed, %d refused: the test proves little", narrowed, refused)
	}
}

type fakeRanges struct{ lower, upper []byte }

func (f fakeRanges) Range(fieldID int) (lower, upper []byte) {
	if fieldID != 7 {
		return nil, nil
	}
	return f.lower, f.upper
}

// TestRangeEnds: both ends of a file's range belong to it.
func TestRangeEnds(t *testing.T) {
	for _, c := range []struct {
		name         string
		kind         record.Kind
		lower, upper []byte
		inside, out  []any // int64, or string
	}{
		{"int", record.Int, []byte{0xfe, 0xff, 0xff, 0xff}, []byte{5, 0, 0, 0}, []any{int64(-2), int64(0), int64(5)}, []any{int64(-3), int64(6)}},
		{"long of a file with ints", record.Long, []byte{1, 0, 0, 0}, []byte{0, 0, 0, 0, 1, 0, 0, 0}, []any{int64(1), int64(1) << 32}, []any{int64(0), int64(1)<<32 + 1}},
		{"decimal", record.Decimal, []byte{0x80}, []byte{0x00, 0xff}, []any{int64(-128), int64(255)}, []any{int64(-129), int64(256)}},
		{"text", record.String, []byte("b"), []byte("dz"), []any{"b", "ba", "dz"}, []any{"a", "az", "dza", "é"}},
		{"text from the empty one on", record.String, []byte{}, []byte("a"), []any{"", "a"}, []any{"b"}},
		{"no bounds", record.Long, nil, nil, []any{int64(0)}, nil},
		{"bounds of no such type", record.Long, []byte{1, 2}, []byte{3, 4}, []any{int64(1 << 40)}, nil},
	} {
		f := &File{Ranges: fakeRanges{c.lower, c.upper}}
		check := func(v any, want bool) {
			k := &comparison{fieldID: 7, kind: c.kind}
			if text, ok := v.(string); ok {
				k.fromText, k.toText = text, text
			} else {
				k.from, k.to = v.(int64), v.(int64)
			}
			if k.may(f) != want {
				t.Errorf("%s: %v may be there: %t", c.name, v, !want)
			}
		}
		for _, v := range c.inside {
			check(v, true)
		}
		for _, v := range c.out {
			check(v, false)
		}
	}
}
