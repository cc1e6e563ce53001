package engine

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tapehouse/tapehouse/internal/record"
)

// TestColumnsOfStatements runs each statement over a state of the tables, when
// it is rewritten, and over others, when it is known and the tables stand in it
// with the columns that it names: it must see the same.
func TestColumnsOfStatements(t *testing.T) {
	e, dir := newEngine(t)
	wide := record.Schema{ID: 1}
	for i, name := range []string{"id", "Symbol", "price", "qty", "odd name", "größe", "filename2"} {
		wide.Fields = append(wide.Fields, record.Field{ID: i + 1, Name: name, Type: record.Type{Kind: record.Long}})
	}
	wide.Fields[2].Type = record.Type{Kind: record.Decimal, Precision: 18, Scale: 4}
	file := func(name string, from int) File {
		sql := fmt.Sprintf(`SELECT i::BIGINT AS id, i %% 3 AS "Symbol", CAST(i / 4 AS DECIMAL(18,4)) AS price, i * 2 AS qty, -i AS "odd name", i + 100 AS "größe", i AS filename2 FROM range(%d, %d) t(i)`, from, from+6)
		x, err := e.Export(t.Context(), Query{SQL: sql}, ExportSpec{Path: filepath.Join(dir, name), Schema: wide})
		if err != nil {
			t.Fatal(err)
		}
		return File{Path: filepath.Join(dir, name), Rows: x.Rows}
	}
	files := []File{file("a.parquet", 0), file("b.parquet", 6), file("c.parquet", 12)}
	w, v := Name{"n", "w"}, Name{"n", "v"}
	for _, c := range []struct {
		sql     string
		columns int // that w stands with, größe always among them; 0: not looked at
	}{
		{`SELECT count(*) FROM n.w`, 1},
		{`SELECT sum(QTY) FROM n.w WHERE symbol = 1`, 3},
		{`SELECT w.qty, "odd name" FROM n.w ORDER BY id`, 4},
		{`SELECT n.w.qty FROM n.w ORDER BY 1`, 2},
		{`SELECT * FROM n.w ORDER BY 1`, 7},
		{`SELECT x.* FROM n.w x ORDER BY 1`, 7},
		{`SELECT * EXCLUDE (id, price) FROM n.w ORDER BY 1, 2`, 7},
		{`SELECT COLUMNS('.*ty') FROM n.w ORDER BY 1`, 7},
		{`SELECT x FROM n.w x ORDER BY x.id`, 7},
		{`SELECT count(w) FROM n.w`, 7},
		{`SELECT struct_extract(x, 'qty') FROM n.w x ORDER BY 1`, 7},
		{`SELECT #2 FROM n.w ORDER BY 1`, 7},
		{`SELECT c FROM n.w AS x(a, b, c) ORDER BY 1`, 7},
		{`SELECT count(*) FROM n.w NATURAL JOIN n.v`, 7},
		{`SELECT count(*), sum(a.qty) FROM n.w a JOIN n.v b USING (id)`, 3},
		{`SELECT count(*) FROM n.w a JOIN n.v b ON a.id = b.qty`, 3},
		{`SELECT a.id, (SELECT max(b.qty) FROM n.v b WHERE b.id <= a.id) FROM n.w a ORDER BY 1`, 3},
		{`WITH x AS (SELECT id, qty FROM n.w) SELECT * FROM x ORDER BY 1`, 7},
		{`WITH x AS (SELECT id, qty FROM n.w) SELECT id FROM x ORDER BY qty`, 3},
		{`SELECT symbol, sum(price) FROM n.w GROUP BY ALL ORDER BY ALL`, 7},
		{`SELECT DISTINCT ON (symbol) symbol, id FROM n.w ORDER BY symbol, id`, 3},
		{`SELECT id FROM n.w UNION BY NAME SELECT qty AS id FROM n.v ORDER BY 1`, 3},
		{`SELECT "GRÖSSE" FROM n.w`, 0},
		{`SELECT "größe" FROM n.w ORDER BY 1`, 1},
		{`SELECT filename2 FROM n.w ORDER BY 1`, 0},
		{`SELECT filename FROM n.w`, 0},
		{`SELECT qty, row_number() OVER win FROM n.w WINDOW win AS (PARTITION BY symbol ORDER BY id) ORDER BY 1`, 4},
		{`SELECT list_transform([1, 2], lambda x: x + qty) FROM n.w ORDER BY id`, 3},
		{`SELECT unnest([id, qty]) AS u FROM n.w ORDER BY 1`, 3},
		{`FROM (PIVOT n.w ON symbol USING sum(qty) GROUP BY id) ORDER BY id`, 0},
		{`FROM (PIVOT n.w ON symbol USING sum(qty)) ORDER BY id`, 0},
		{`FROM (UNPIVOT (SELECT id, qty FROM n.w) ON id, qty) ORDER BY ALL`, 0},
		{`SELECT no_such FROM n.w`, 0},
	} {
		var want []string
		var wantErr error
		for i := range 3 {
			state := [][]File{{files[0], files[1]}, {files[1], files[0]}, {files[0], files[1], files[2]}}[i] // the first two hold the same rows
			pin := NewPin(map[Name]Relation{w: {Schema: wide, Files: state}, v: {Schema: wide, Files: files[:1]}})
			known, err := e.InternalSession(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got, err := collectRows(t.Context(), known, Query{SQL: c.sql, Pin: pin})
			_ = known.Close()
			switch {
			case i == 0:
				want, wantErr = got, err
			case (err == nil) != (wantErr == nil):
				t.Errorf("%s: first %v, then %v", c.sql, wantErr, err)
			case i == 1 && !slices.Equal(got, want):
				t.Errorf("%s\n  first %q\n  then  %q", c.sql, want, got)
			}
			pin.Release()
		}
		if c.columns == 0 {
			continue
		}
		conn, err := e.acquire()
		if err != nil {
			t.Fatal(err)
		}
		tree, err := conn.parse(t.Context(), c.sql)
		e.giveBack(conn)
		if err != nil {
			t.Fatal(err)
		}
		r := Relation{Schema: wide, Files: files}
		if n := len(r.only(namedColumns(tree)).Schema.Fields); n != c.columns {
			t.Errorf("%s: %d columns, want %d", c.sql, n, c.columns)
		}
	}
}
