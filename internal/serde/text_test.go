package serde

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
)

// staged reads back what a stage holds, a cell as text, null as "∅".
func staged(t testing.TB, b []byte) [][]string {
	t.Helper()
	r, err := file.NewParquetReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	a, err := pqarrow.NewFileReader(r, pqarrow.ArrowReadProperties{}, memory.NewGoAllocator())
	if err != nil {
		t.Fatal(err)
	}
	tab, err := a.ReadTable(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tab.Release()
	rows := make([][]string, tab.NumRows())
	for c := range int(tab.NumCols()) {
		i := 0
		for _, chunk := range tab.Column(c).Data().Chunks() {
			for j := range chunk.Len() {
				v := "∅"
				if !chunk.IsNull(j) {
					v = chunk.ValueStr(j)
				}
				rows[i] = append(rows[i], v)
				i++
			}
		}
	}
	return rows
}

func columnsOf(t testing.TB, types ...string) []Column {
	t.Helper()
	out := make([]Column, len(types))
	for i, s := range types {
		typ, err := ParseType(s)
		if err != nil {
			t.Fatal(err)
		}
		out[i] = Column{fmt.Sprintf("c%d", i+1), typ}
	}
	return out
}

func TestText(t *testing.T) {
	for _, c := range []struct {
		typ, text, want string // want: a value, ∅ for null, ! for an error
	}{
		{"boolean", "true", "true"}, {"boolean", "TRUE", "true"}, {"boolean", "0", "false"}, {"boolean", " f ", "false"}, {"boolean", "yes", "∅"}, {"boolean", "", "∅"},
		{"tinyint", "127", "127"}, {"tinyint", "128", "∅"}, {"smallint", "-32768", "-32768"}, {"int", "+007", "7"}, {"int", "1.0", "1"}, {"int", "1.5", "∅"},
		{"int", "1e3", "1000"}, {"int", "0x10", "∅"}, {"int", "1_000", "∅"}, {"int", "1,000", "∅"}, {"int", "", "∅"}, {"bigint", "9223372036854775807", "9223372036854775807"},
		{"bigint", "9223372036854775808", "∅"},
		{"double", "1.5", "1.5"}, {"double", "NaN", "NaN"}, {"double", "-Infinity", "-Inf"}, {"double", "1e400", "∅"}, {"double", "0x1p-2", "∅"}, {"double", "abc", "∅"}, {"float", "0.1", "0.1"},
		{"decimal(10,2)", "1.50", "1.5"}, {"decimal(10,2)", "1.500", "1.5"}, {"decimal(10,2)", "1.505", "!digits beyond the scale"}, {"decimal(10,2)", "1e-3", "!digits"},
		{"decimal(10,2)", "99999999.99", "99999999.99"}, {"decimal(10,2)", "100000000", "!range"}, {"decimal(10,2)", "abc", "∅"}, {"decimal(10,2)", "$1", "∅"}, {"decimal(10,2)", "", "∅"},
		{"decimal(38,18)", "12345678901234567890.123456789012345678", "12345678901234567890.123456789012345678"}, {"decimal(10,2)", "-0.10", "-0.1"}, {"decimal(10,2)", " 7 ", "7"},
		{"string", " a ", " a "}, {"string", "", ""}, {"string", "\xff", "!UTF-8"}, {"varchar(3)", "abc", "abc"}, {"varchar(3)", "äöü", "äöü"}, {"varchar(3)", "abcd", "!length"}, {"char(2)", "a", "a"},
		{"binary", "aGk=", "aGk="}, {"binary", "hi", "∅"},
		{"date", "2026-01-02", "2026-01-02"}, {"date", "2026-1-2", "2026-01-02"}, {"date", "2026-02-30", "∅"}, {"date", "20260102", "∅"}, {"date", "9999-12-31", "9999-12-31"}, {"date", "0001-01-01", "0001-01-01"},
		{"timestamp", "2026-01-02 03:04:05.123456789", "2026-01-02 03:04:05.123456"}, {"timestamp", "2026-01-02T03:04:05Z", "2026-01-02 03:04:05"}, {"timestamp", "2026-01-02", "2026-01-02 00:00:00"},
		{"timestamp", "9999-12-31 23:59:59.999999", "9999-12-31 23:59:59.999999"}, {"timestamp", "0001-01-01 00:00:00", "0001-01-01 00:00:00"}, {"timestamp", "2026-01-02 25:00:00", "∅"}, {"timestamp", "1969-12-31 23:59:59.9999999", "1969-12-31 23:59:59.999999"},
		{"timestamp", "1700000000000", "∅"},
	} {
		conv, err := NewTextConverter(columnsOf(t, c.typ), Text{})
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		w, err := conv.NewStage(&b)
		if err != nil {
			t.Fatal(err)
		}
		err = w.AppendText([][]byte{[]byte(c.text)})
		if want, refused := strings.CutPrefix(c.want, "!"); refused {
			var r *RecordError
			if !errors.As(err, &r) || !strings.Contains(r.Message, want) || r.Member != "c1" {
				t.Errorf("%s %q: %v, want an error with %q", c.typ, c.text, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s %q: %v", c.typ, c.text, err)
			continue
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got := staged(t, b.Bytes())[0][0]; strings.Replace(got, "T", " ", 1) != c.want {
			t.Errorf("%s %q: %q, want %q", c.typ, c.text, got, c.want)
		}
	}
}

func TestTextOptions(t *testing.T) {
	conv, err := NewTextConverter(columnsOf(t, "date", "timestamp", "timestamp", "decimal(4,1)", "string"), Text{Epochs: true, OverflowNull: true, TimestampFormats: []string{"dd/MM/yyyy HH:mm"}})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := conv.NewStage(&b)
	if err != nil {
		t.Fatal(err)
	}
	row := func(fields ...string) {
		t.Helper()
		f := make([][]byte, len(fields))
		for i, s := range fields {
			if s != "∅" {
				f[i] = []byte(s)
			}
		}
		if err := w.AppendText(f); err != nil {
			t.Fatal(err)
		}
	}
	row("1", "1500", "02/01/2026 10:30", "1.25", "x")
	row("∅", "∅", "∅", "∅", "∅")
	if err := w.AppendNull(); err != nil {
		t.Fatal(err)
	}
	row("2026-01-01", "2026-01-01 00:00:00", "-1", "12345", "")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	want := "[[1970-01-02 1970-01-01 00:00:01.5 2026-01-02 10:30:00 ∅ x] [∅ ∅ ∅ ∅ ∅] [∅ ∅ ∅ ∅ ∅] [2026-01-01 2026-01-01 00:00:00 1969-12-31 23:59:59.999 ∅ ]]"
	if got := strings.ReplaceAll(fmt.Sprint(staged(t, b.Bytes())), "T", " "); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTextRefuses(t *testing.T) {
	for _, typ := range []string{"array<int>", "map<string,int>", "struct<a:int>"} {
		if _, err := NewTextConverter(columnsOf(t, typ), Text{}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "declare the column as string") {
			t.Errorf("%s: %v", typ, err)
		}
	}
	if _, err := NewTextConverter(columnsOf(t, "timestamp"), Text{TimestampFormats: []string{"GG"}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a format without a year: %v", err)
	}
}

// TestStageJSON: timestamps beyond nanoseconds are read, nested ones too.
func TestStageJSON(t *testing.T) {
	conv, err := NewConverter(columnsOf(t, "timestamp", "array<timestamp>", "map<string,decimal(20,4)>", "struct<a:int,b:struct<c:timestamp>>"), Deserializer{OpenX: &OpenX{}})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := conv.NewStage(&b)
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range []string{
		`{"c1":"9999-12-31T23:59:59Z","C2":["0001-01-01 00:00:00",1700000000.5],"c3":{"k":1.2345},"c4":{"A":1,"b":{"c":"2026-01-01 00:00:00"}}}`, `{}`,
	} {
		if err := w.Append([]byte(doc)); err != nil {
			t.Fatal(err)
		}
	}
	var refused *RecordError
	if err := w.Append([]byte(`{"c3":{"k":1.23456}}`)); !errors.As(err, &refused) || refused.Member != "c3.k" {
		t.Errorf("a decimal with a digit too many: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got := staged(t, b.Bytes())
	if len(got) != 2 || got[0][0] != "9999-12-31T23:59:59" || !strings.Contains(got[0][1], "0001-01-01") || !strings.Contains(got[0][2], "1.2345") || got[1][3] != "∅" {
		t.Errorf("%q", got)
	}
}

func FuzzText(f *testing.F) {
	f.Add("1.50", "2026-01-01 10:00:00")
	f.Add("1e309", "9999-12-31T23:59:59.999999999Z")
	conv, err := NewTextConverter(columnsOf(f, "decimal(18,4)", "timestamp", "date", "bigint", "double", "boolean", "binary", "varchar(5)"), Text{Epochs: true, TimestampFormats: []string{"MM/dd/yyyy"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		var out bytes.Buffer
		w, err := conv.NewStage(&out)
		if err != nil {
			t.Fatal(err)
		}
		added := 0
		for _, row := range [][]string{{a, b, a, a, a, b, a, b}, {b, a, b, b, b, a, b, a}} {
			fields := make([][]byte, len(row))
			for i, s := range row {
				fields[i] = []byte(s)
			}
			var r *RecordError
			switch err := w.AppendText(fields); {
			case err == nil:
				added++
			case !errors.As(err, &r):
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got := staged(t, out.Bytes()); len(got) != added {
			t.Errorf("%d rows, want %d", len(got), added)
		}
	})
}
