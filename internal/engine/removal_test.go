package engine

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/tapehouse/tapehouse/internal/record"
)

// removalOf writes a file of keys (symbol, qty).
func removalOf(t testing.TB, e *Engine, path, values string, order int) Removal {
	t.Helper()
	schema := record.Schema{Fields: []record.Field{trades.Fields[3], trades.Fields[1]}} // in another order than the table's
	x, err := e.Export(t.Context(), Query{SQL: "SELECT * FROM (VALUES " + values + ") v(symbol, qty)"}, ExportSpec{Path: path, Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	return Removal{Path: path, Order: order, Rows: x.Rows}
}

// A removal takes rows with its key from the files before it: data files, with
// their position deletes, and the tail's; not from its own, nor from later ones.
func TestRemovals(t *testing.T) {
	e, dir := newEngine(t)
	at := func(name string) string { return filepath.Join(dir, name+".parquet") }
	data := writeTrades(t, e, at("data"), 0, 10) // id i has symbol S<i> and qty i
	deletes := at("deletes")
	if _, err := e.Export(t.Context(), Query{SQL: "SELECT '" + data.Path + "' AS file_path, CAST(9 AS BIGINT) AS pos"}, ExportSpec{Path: deletes,
		Schema: record.Schema{Fields: []record.Field{{ID: 2147483546, Name: "file_path", Type: record.Type{Kind: record.String}}, {ID: 2147483545, Name: "pos", Type: record.Type{Kind: record.Long}}}}}); err != nil {
		t.Fatal(err)
	}
	more := writeTrades(t, e, at("more"), 20, 22) // S20, 0 and S21, 1
	data.Deletes = []string{deletes}
	first := writeTrades(t, e, at("first"), 1, 4) // S1 to S3 again
	first.Order = 1
	second := writeTrades(t, e, at("second"), 2, 3) // S2 once more
	second.Order = 2
	r := Relation{Schema: trades, Keys: []string{"symbol", "qty"}, Files: []File{data, more, first, second}, Removals: []Removal{
		removalOf(t, e, at("r1"), "('S1', 1), ('S2', 2), ('S20', 7)", 1),
		removalOf(t, e, at("r2"), "('S2', 2), ('S3', 3), ('S21', 1), ('S77', 7)", 2),
	}}
	s := newSession(t, e)
	all := func(r Relation, want ...string) {
		t.Helper()
		pin := NewPin(map[Name]Relation{tradesName: r})
		defer pin.Release()
		wantRows(t, s, Query{SQL: "SELECT symbol, count(*) FROM equities.executions GROUP BY symbol ORDER BY CAST(symbol[2:] AS INTEGER)", Pin: pin}, want...)
	}
	// S1: gone from the data, there again in the first entry. S2: in the second alone. S3: gone everywhere.
	all(r, "S0|1", "S1|1", "S2|1", "S4|1", "S5|1", "S6|1", "S7|1", "S8|1", "S20|1")
	only := r
	only.Files = []File{first, second}
	all(only, "S1|1", "S2|1")
	only.Removals = r.Removals[:1] // its own removals do not concern the first entry
	all(only, "S1|1", "S2|2", "S3|1")
	only.Files = nil
	all(only)

	// Conditions choose files, and what is removed from them stays removed.
	many := r
	many.Files = []File{data, more, first, second}
	for i := range 2 * narrowFilesMin {
		many.Files = append(many.Files, writeTrades(t, e, at(fmt.Sprint("far", i)), 1000+10*i, 1005+10*i))
	}
	for i := range many.Files {
		many.Files[i].Ranges = rangesOf(t, many.Files[i].Path)
	}
	chosen := NewPin(map[Name]Relation{tradesName: many})
	defer chosen.Release()
	few := Query{SQL: "SELECT symbol, count(*) FROM equities.executions WHERE id < 5 GROUP BY symbol ORDER BY symbol", Pin: chosen}
	wantRows(t, s, few, "S0|1", "S1|1", "S2|1", "S4|1")
	c, err := e.acquire()
	if err != nil {
		t.Fatal(err)
	}
	narrow, err := e.narrowed(t.Context(), c, few)
	e.giveBack(c)
	if err != nil || narrow == nil {
		t.Fatal(narrow, err)
	}
	if left, _ := narrow.Relation(tradesName); len(left.Files) != 3 || len(left.Removals) != 2 {
		t.Errorf("%d files and %d removals are left", len(left.Files), len(left.Removals))
	}
	narrow.Release()

	pin := NewPin(map[Name]Relation{tradesName: {Schema: trades, Files: []File{data, more}, Positions: true}})
	defer pin.Release()
	sql := fmt.Sprintf(`SELECT symbol, %s, %s FROM equities.executions WHERE id >= 7 ORDER BY id`, QuoteIdentifier(PositionFile), QuoteIdentifier(PositionRow))
	wantRows(t, s, Query{SQL: sql, Pin: pin}, "S7|"+data.Path+"|7", "S8|"+data.Path+"|8", "S20|"+more.Path+"|0", "S21|"+more.Path+"|1")
	bad := r
	bad.Keys = []string{"isin"}
	pin = NewPin(map[Name]Relation{tradesName: bad})
	defer pin.Release()
	if _, err := collectRows(t.Context(), s, Query{SQL: "SELECT * FROM equities.executions", Pin: pin}); err == nil {
		t.Error("a key that is no column")
	}
}

// BenchmarkRemovals reads a table of a million rows whose tail has removed some.
func BenchmarkRemovals(b *testing.B) {
	e, dir := newEngine(b)
	var files []File
	for i := range 10 {
		files = append(files, writeTrades(b, e, filepath.Join(dir, fmt.Sprintf("f%d.parquet", i)), i*100_000, (i+1)*100_000))
	}
	s := newSession(b, e)
	for _, n := range []int{0, 1000, 100_000} {
		r := Relation{Schema: trades, Keys: []string{"id"}, Files: files}
		if n > 0 {
			path := filepath.Join(dir, fmt.Sprintf("r%d.parquet", n))
			x, err := e.Export(b.Context(), Query{SQL: fmt.Sprintf("SELECT CAST(i * 7 AS BIGINT) AS id FROM range(%d) t(i)", n)}, ExportSpec{Path: path, Schema: record.Schema{Fields: trades.Fields[:1]}})
			if err != nil {
				b.Fatal(err)
			}
			r.Removals = []Removal{{Path: path, Order: 1, Rows: x.Rows}}
		}
		pin := NewPin(map[Name]Relation{tradesName: r})
		for name, sql := range map[string]string{"sum": "SELECT sum(price) FROM equities.executions", "point": "SELECT price FROM equities.executions WHERE id = 500"} {
			b.Run(fmt.Sprintf("%s/removals=%d", name, n), func(b *testing.B) {
				for b.Loop() {
					mustRows(b, s, Query{SQL: sql, Pin: pin})
				}
			})
		}
		pin.Release()
	}
}
