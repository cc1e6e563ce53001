package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/tapehouse/tapehouse/internal/record"
)

// foreignFile writes a query's rows as anybody would: no field ids.
func foreignFile(t testing.TB, path, sql string, rows int64, f *Foreign, constants ...Constant) File {
	t.Helper()
	p, err := OpenPeer(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Exec(t.Context(), "COPY ("+sql+") TO "+QuoteLiteral(path)+" (FORMAT parquet)"); err != nil {
		t.Fatal(err)
	}
	return File{Path: path, Rows: rows, Foreign: f, Constants: constants}
}

// fakeSource has partitions of one key, k, each with files.
type fakeSource struct {
	partitions []int32
	files      map[int32][]File
	err        error
	changed    error

	mu       sync.Mutex
	asked    int
	chosen   []int32
	released int
}

type keyRange int32

func (k keyRange) Range(id int) (lower, upper []byte) {
	if id != 3 {
		return nil, nil
	}
	b := binary.LittleEndian.AppendUint32(nil, uint32(k))
	return b, b
}

func (s *fakeSource) Files(_ context.Context, may func(Ranges) bool) (SourceFiles, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	s.chosen = nil
	if s.err != nil {
		return SourceFiles{}, s.err
	}
	var out SourceFiles
	for _, k := range s.partitions {
		if may(keyRange(k)) {
			s.chosen = append(s.chosen, k)
			out.Files = append(out.Files, s.files[k]...)
		}
	}
	out.Release = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.released++
	}
	out.Unchanged = func() error { return s.changed }
	return out, nil
}

// foreignHouse is a foreign relation of two columns, the key k from 1 to 40, one
// row each, and two hidden columns.
func foreignHouse(t *testing.T) (*Engine, *fakeSource, *Pin) {
	e, dir := newEngine(t)
	s := &fakeSource{files: map[int32][]File{}}
	layout := &Foreign{Columns: []Origin{{Name: "ID", Step: Step{Kind: StepCast, Type: "BIGINT"}}, {Name: "note", Step: Step{Kind: StepSame, Type: "VARCHAR"}}}}
	for k := int32(1); k <= 40; k++ {
		path := filepath.Join(dir, fmt.Sprintf("k%d.parquet", k))
		text := Constant{Text: fmt.Sprint(k)}
		s.partitions = append(s.partitions, k)
		s.files[k] = []File{foreignFile(t, path, fmt.Sprintf("SELECT %d::INTEGER AS \"ID\", 'n%[1]d' AS note", 10*k), 1, layout, text, Constant{Text: "s3://b/it's " + fmt.Sprint(k)}, Constant{Text: fmt.Sprint(1000 + k)})}
	}
	r := Relation{Source: s, Hidden: 2, Schema: record.Schema{Fields: []record.Field{
		{ID: 1, Name: "id", Type: record.Type{Kind: record.Long}}, {ID: 2, Name: "note", Type: record.Type{Kind: record.String}},
		{ID: 3, Name: "k", Type: record.Type{Kind: record.Int}},
		{ID: 4, Name: "$path", Type: record.Type{Kind: record.String}}, {ID: 5, Name: "$size", Type: record.Type{Kind: record.Long}},
	}}}
	p := NewPin(map[Name]Relation{{"x", "t"}: r})
	t.Cleanup(p.Release)
	return e, s, p
}

// TestForeignPartitions: the conditions on keys choose the partitions, and with
// them the files that are opened at all; whatever the conditions are, the rows
// are right.
func TestForeignPartitions(t *testing.T) {
	e, source, p := foreignHouse(t)
	s := newSession(t, e)
	all := func(from, to int32) (out []int32) {
		for k := from; k <= to; k++ {
			out = append(out, k)
		}
		return out
	}
	for _, c := range []struct {
		where  string
		args   []any
		rows   int
		chosen []int32
	}{
		{"k = 7", nil, 1, []int32{7}},
		{"7 = k", nil, 1, []int32{7}},
		{"k = $1", []any{int32(9)}, 1, []int32{9}},
		{"k = $1", []any{Decimal{Unscaled: big.NewInt(11)}}, 1, []int32{11}},
		{"k <> 7", nil, 39, slices.DeleteFunc(all(1, 40), func(k int32) bool { return k == 7 })},
		{"k <> $1 AND k < 4", []any{int64(2)}, 2, []int32{1, 3, 4}},
		{"k NOT IN (1, 2) AND k < 5", nil, 2, []int32{3, 4, 5}},
		{"k < 3", nil, 2, []int32{1, 2, 3}},
		{"k <= 3", nil, 3, []int32{1, 2, 3}},
		{"k > 39", nil, 1, []int32{39, 40}},
		{"k >= 39", nil, 2, []int32{39, 40}},
		{"k BETWEEN 5 AND 6", nil, 2, []int32{5, 6}},
		{"k BETWEEN $1 AND $2", []any{int32(5), int32(6)}, 2, []int32{5, 6}},
		{"k IN (3, 30, 99)", nil, 2, []int32{3, 30}},
		{"k IN ($1, $2)", []any{int32(3), int32(30)}, 2, []int32{3, 30}},
		{"k = 1 OR k = 2", nil, 2, []int32{1, 2}},
		{"(k = 1 OR k = 2) AND id > 10", nil, 1, []int32{1, 2}},
		{"k = 1 OR id = 20", nil, 2, all(1, 40)},
		{"k = 99", nil, 0, nil},
		{"k + 0 = 5", nil, 1, all(1, 40)},
		{"k = 2.5", nil, 0, []int32{2, 3}},
		{"note = 'n50'", nil, 1, all(1, 40)},
		{"true", nil, 40, all(1, 40)},
	} {
		got := mustRows(t, s, Query{SQL: "SELECT id, note, k FROM x.t WHERE " + c.where, Args: c.args, Pin: p})
		if len(got) != c.rows {
			t.Errorf("%s: rows %q, want %d", c.where, got, c.rows)
		}
		if !slices.Equal(source.chosen, c.chosen) { // bounds count with their ends
			t.Errorf("%s chose %v, want %v", c.where, source.chosen, c.chosen)
		}
		for _, row := range got {
			var id, note, k int
			if _, err := fmt.Sscanf(row, "%d|n%d|%d", &id, &note, &k); err != nil || id != 10*k || note != id {
				t.Errorf("%s: row %q", c.where, row)
			}
		}
	}
	wantRows(t, s, Query{SQL: "SELECT count(*), sum(k) FROM x.t", Pin: p}, "40|820")
	wantRows(t, s, Query{SQL: "SELECT a.k, b.k FROM x.t a JOIN x.t b ON a.id = b.id WHERE a.k = 3 AND b.k = 3", Pin: p}, "3|3")
	if source.asked != source.released {
		t.Errorf("asked %d times, released %d", source.asked, source.released)
	}
}

func TestForeignHidden(t *testing.T) {
	e, source, p := foreignHouse(t)
	s := newSession(t, e)
	wantRows(t, s, Query{SQL: "SELECT * FROM x.t WHERE k = 4", Pin: p}, "40|n40|4")
	wantRows(t, s, Query{SQL: `SELECT id, "$path", "$size" FROM x.t WHERE k IN (4, 5) ORDER BY k`, Pin: p}, "40|s3://b/it's 4|1004", "50|s3://b/it's 5|1005")
	wantRows(t, s, Query{SQL: `SELECT count(*) FROM x.t WHERE "$size" > 1038`, Pin: p}, "2")
	wantRows(t, s, Query{SQL: `SELECT DISTINCT "$Path" FROM x.t WHERE k = 4`, Pin: p}, "s3://b/it's 4")
	asked := source.asked
	_, cols, err := s.Describe(t.Context(), Query{SQL: `SELECT *, "$size" AS s FROM x.t`, Pin: p})
	if err != nil || len(cols) != 6 {
		t.Errorf("%v, %v", cols, err)
	}
	if _, cols, err = s.Describe(t.Context(), Query{SQL: `SELECT * FROM x.t`, Pin: p}); err != nil || len(cols) != 3 {
		t.Errorf("%v, %v", cols, err)
	}
	if source.asked != asked {
		t.Error("describing a statement looked for files")
	}
}

// TestForeignChanged: what changed while it was read is an error at the end, and
// what the source says reaches whoever asked.
func TestForeignChanged(t *testing.T) {
	e, source, p := foreignHouse(t)
	s := newSession(t, e)
	source.changed = errors.New("the file x was written to")
	if _, err := collectRows(t.Context(), s, Query{SQL: "SELECT * FROM x.t WHERE k < 5", Pin: p}); !errors.Is(err, source.changed) {
		t.Errorf("a file that was written to: %v", err)
	}
	if _, err := e.Export(t.Context(), Query{SQL: "SELECT id FROM x.t", Pin: p}, ExportSpec{Path: filepath.Join(e.options.AllowedDirs[0], "out.parquet"),
		Schema: record.Schema{Fields: []record.Field{{ID: 1, Name: "id", Type: record.Type{Kind: record.Long}}}}}); !errors.Is(err, source.changed) {
		t.Errorf("an export of a file that was written to: %v", err)
	}
	source.changed, source.err = nil, errors.New("the file y is gone")
	if _, err := collectRows(t.Context(), s, Query{SQL: "SELECT * FROM x.t", Pin: p}); !errors.Is(err, source.err) {
		t.Errorf("a file that is gone: %v", err)
	}
	source.err = nil
	wantRows(t, s, Query{SQL: "SELECT count(*) FROM x.t", Pin: p}, "40")
}

// TestForeignConversions reads each kind of step, from files of several layouts
// together.
func TestForeignConversions(t *testing.T) {
	e, dir := newEngine(t)
	s := newSession(t, e)
	columns := []struct{ name, typ string }{
		{"i", "BIGINT"}, {"d", "DOUBLE"}, {"p", "DECIMAL(18,4)"}, {"t", "VARCHAR"}, {"ts", "TIMESTAMP"}, {"dt", "DATE"}, {"b", "BLOB"},
		{"l", "INTEGER[]"}, {"st", "STRUCT(a BIGINT, c VARCHAR, z DATE)"}, {"ls", "STRUCT(x DECIMAL(10,2), y VARCHAR)[]"}, {"m", "MAP(VARCHAR, BIGINT)"}, {"ms", "MAP(VARCHAR, STRUCT(a BIGINT))"}, {"k", "VARCHAR"},
	}
	cast := func(typ string) Step { return Step{Kind: StepCast, Type: typ} }
	same := func(typ string) Step { return Step{Kind: StepSame, Type: typ} }
	part := func(name string, s Step) Origin { return Origin{Name: name, Step: s} }
	first := &Foreign{Columns: []Origin{
		part("I", cast("BIGINT")), part("d", cast("DOUBLE")), part("p", cast("DECIMAL(18,4)")), part("t", Step{Kind: StepDecode, Type: "VARCHAR"}), part("ts", cast("TIMESTAMP")), part("dt", same("DATE")), part("b", same("BLOB")),
		part("l", Step{Kind: StepList, Type: "INTEGER[]", Parts: []Origin{part("element", cast("INTEGER"))}}),
		part("st", Step{Kind: StepStruct, Type: columns[8].typ, Fields: []string{"a", "c", "z"}, Parts: []Origin{part("A", cast("BIGINT")), part("c", cast("VARCHAR")), {Step: same("DATE")}}}),
		part("ls", Step{Kind: StepList, Type: columns[9].typ, Parts: []Origin{part("element", Step{Kind: StepStruct, Type: "STRUCT(x DECIMAL(10,2), y VARCHAR)", Fields: []string{"x", "y"},
			Parts: []Origin{part("x", cast("DECIMAL(10,2)")), part("Y", Step{Kind: StepDecode, Type: "VARCHAR"})}})}}),
		part("m", Step{Kind: StepMap, Type: columns[10].typ, Parts: []Origin{part("key", cast("VARCHAR")), part("value", cast("BIGINT"))}}),
		part("ms", Step{Kind: StepMap, Type: columns[11].typ, Parts: []Origin{part("key", cast("VARCHAR")), part("value", Step{Kind: StepStruct, Type: "STRUCT(a BIGINT)", Fields: []string{"a"}, Parts: []Origin{part("a", cast("BIGINT"))}})}}),
	}}
	second := &Foreign{Columns: make([]Origin, 12)} // all missing but one
	second.Columns[0] = part("file_index", cast("BIGINT"))
	second.Shadowed = true
	r := Relation{}
	for i, c := range columns {
		r.Schema.Fields = append(r.Schema.Fields, record.Field{ID: i + 1, Name: c.name})
		r.Types = append(r.Types, c.typ)
	}
	r.Files = []File{
		foreignFile(t, filepath.Join(dir, "1.parquet"), `SELECT 1::SMALLINT AS "I", 0.5::FLOAT AS d, 1.25::DECIMAL(9,2) AS p, encode('ä') AS t, TIMESTAMPTZ '2026-01-02 03:04:05.123456+00' AS ts, DATE '9999-12-31' AS dt, '\x00\xFF'::BLOB AS b,
			[1::SMALLINT, NULL] AS l, {'A': 7::INTEGER, 'c': 'x', 'q': 1} AS st, [{'x': 1.5::DECIMAL(5,1), 'Y': encode('z')}, NULL] AS ls, MAP {'a': 1::SMALLINT} AS m, MAP {'a': {'a': 5::INTEGER}} AS ms, 'other' AS other`, 1, first, Constant{Text: "k1"}),
		foreignFile(t, filepath.Join(dir, "2.parquet"), `SELECT 2::SMALLINT AS "I", NULL::FLOAT AS d, NULL::DECIMAL(9,2) AS p, NULL::BLOB AS t, NULL::TIMESTAMPTZ AS ts, NULL::DATE AS dt, NULL::BLOB AS b,
			NULL::SMALLINT[] AS l, NULL::STRUCT("A" INTEGER, c VARCHAR, q INTEGER) AS st, NULL::STRUCT(x DECIMAL(5,1), "Y" BLOB)[] AS ls, NULL::MAP(VARCHAR, SMALLINT) AS m, NULL::MAP(VARCHAR, STRUCT(a INTEGER)) AS ms, 'other' AS other`, 1, first, Constant{Null: true}),
		foreignFile(t, filepath.Join(dir, "3.parquet"), `SELECT 3::INTEGER AS file_index`, 1, second, Constant{Text: "k3"}),
		foreignFile(t, filepath.Join(dir, "4.parquet"), `SELECT 4::INTEGER AS file_index`, 1, second, Constant{Text: "k4"}),
	}
	p := NewPin(map[Name]Relation{{"x", "t"}: r})
	defer p.Release()
	wantRows(t, s, Query{SQL: "SELECT i, d, p, t, ts, dt, b, k FROM x.t ORDER BY i", Pin: p},
		`1|0.5|1.2500|ä|2026-01-02 03:04:05.123456|9999-12-31|\x00ff|k1`, "2|NULL|NULL|NULL|NULL|NULL|NULL|NULL", "3|NULL|NULL|NULL|NULL|NULL|NULL|k3", "4|NULL|NULL|NULL|NULL|NULL|NULL|k4")
	wantRows(t, s, Query{SQL: "SELECT l, st, ls, m, ms FROM x.t WHERE i < 4 ORDER BY i", Pin: p},
		`[1,null]|{"a":7,"c":"x","z":null}|[{"x":1.50,"y":"z"},null]|[{"key":"a","value":1}]|[{"key":"a","value":{"a":5}}]`, "NULL|NULL|NULL|NULL|NULL", "NULL|NULL|NULL|NULL|NULL")
	wantRows(t, s, Query{SQL: "SELECT t.st.a, t.ls[1].x, t.m['a'] FROM x.t t WHERE i = 1", Pin: p}, "7|1.50|1")
	wantRows(t, s, Query{SQL: "SELECT k, count(*) FROM x.t WHERE k >= 'k2' GROUP BY k ORDER BY k", Pin: p}, "k3|1", "k4|1")
	wantRows(t, s, Query{SQL: "SELECT count(*) FROM x.t", Pin: p}, "4")
}

// TestForeignManyFiles: a thousand files with a value each.
func TestForeignManyFiles(t *testing.T) {
	e, dir := newEngine(t)
	s := newSession(t, e)
	layout := &Foreign{Columns: []Origin{{Name: "a", Step: Step{Kind: StepSame, Type: "INTEGER"}}}}
	r := Relation{Schema: record.Schema{Fields: []record.Field{{ID: 1, Name: "a", Type: record.Type{Kind: record.Int}}, {ID: 2, Name: "d", Type: record.Type{Kind: record.Date}}}}}
	path := filepath.Join(dir, "f.parquet")
	f := foreignFile(t, path, "SELECT range::INTEGER AS a FROM range(3)", 3, layout)
	for i := range 1000 {
		f.Constants = []Constant{{Text: fmt.Sprintf("2026-%02d-%02d", 1+i%12, 1+i%28)}}
		r.Files = append(r.Files, f)
	}
	p := NewPin(map[Name]Relation{{"x", "t"}: r})
	defer p.Release()
	wantRows(t, s, Query{SQL: "SELECT count(*), count(DISTINCT d), min(d), max(d), sum(a) FROM x.t", Pin: p}, "3000|84|2026-01-01|2026-12-28|3000")
}
