package external

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/hive"
)

func TestDelimited(t *testing.T) {
	columns := []string{"id int", "price decimal(10,2)", "note string"}
	for name, c := range map[string]struct {
		parameters map[string]string
		content    string
		want       []string
	}{
		"default delimiter": {nil, "1\x012.50\x01x\n", []string{"1|2.50|x"}},
		"comma":             {map[string]string{"field.delim": ","}, "1,2.50,x\n2,,\n3\n4,5,six,seven\n", []string{"1|2.50|x", "2|∅|", "3|∅|∅", "4|5.00|six"}},
		"tab by number":     {map[string]string{"field.delim": "9"}, "1\t2.50\tx y", []string{"1|2.50|x y"}},
		"tab spelt":         {map[string]string{"field.delim": `\t`}, "1\t2.50\tx", []string{"1|2.50|x"}},
		"unicode spelt":     {map[string]string{"field.delim": "\\u0001"}, "1\x012.50\x01x", []string{"1|2.50|x"}},
		"format's":          {map[string]string{"serialization.format": "|"}, "1|2.50|x", []string{"1|2.50|x"}},
		"null":              {map[string]string{"field.delim": ","}, "\\N,\\N,\\N\n1,2,\\Nx\n", []string{"∅|∅|∅", `1|2.00|\Nx`}},
		"another null":      {map[string]string{"field.delim": ",", "serialization.null.format": "NULL"}, "NULL,1,NULL\n2,3,\\N\n", []string{"∅|1.00|∅", `2|3.00|\N`}},
		"empty null":        {map[string]string{"field.delim": ",", "serialization.null.format": ""}, "1,,\n", []string{"1|∅|∅"}},
		"escape":            {map[string]string{"field.delim": ",", "escape.delim": `\`}, `1,2,a\,b\\c\d` + "\n" + `2,3,\N` + "\n" + `3,4,x\`, []string{`1|2.00|a,b\cd`, "2|3.00|∅", `3|4.00|x\`}},
		"header":            {map[string]string{"field.delim": ",", "skip.header.line.count": "2"}, "id,price,note\n\n1,2,x\n", []string{"1|2.00|x"}},
		"line ends":         {map[string]string{"field.delim": ","}, "1,1,a\r\n2,2,b\r3,3,c\n\n\r\n4,4,d", []string{"1|1.00|a", "2|2.00|b", "3|3.00|c", "4|4.00|d"}},
		"byte order mark":   {map[string]string{"field.delim": ","}, "\ufeff1,1,a", []string{"1|1.00|a"}},
		"quotes are text":   {map[string]string{"field.delim": ","}, `1,1,"a"`, []string{`1|1.00|"a"`}},
		"malformed is null": {map[string]string{"field.delim": ","}, "x,y,z\n1.5,-,\n", []string{"∅|∅|z", "∅|∅|"}},
		"exact":             {map[string]string{"field.delim": ","}, "1,1.500,a\n2,1e1,b\n", []string{"1|1.50|a", "2|10.00|b"}},
		"overflow to null":  {map[string]string{"field.delim": ",", "numeric_overflow_handling": "SET_TO_NULL"}, "1,1.505,a\n2,123456789,b\n", []string{"1|∅|a", "2|∅|b"}},
	} {
		t.Run(name, func(t *testing.T) {
			for extension, compress := range compressions {
				b := newBucketDir(t, nil, nil)
				z := compress(t, []byte(c.content))
				if z == nil {
					continue
				}
				b.write("t/data"+extension, z)
				got, err := b.rows(definition(hive.LazySerde, c.parameters, columns...), nil)
				// arrow prints decimals without the zeros behind.
				if want := strings.NewReplacer(".00", "", ".50", ".5").Replace(strings.Join(c.want, "\n")); err != nil || strings.NewReplacer(".00", "", ".50", ".5").Replace(strings.Join(got, "\n")) != want {
					t.Errorf("%q: got\n%s, %v\nwant\n%s", extension, strings.Join(got, "\n"), err, want)
				}
			}
		})
	}
}

func TestQuoted(t *testing.T) {
	columns := []string{"a string", "b string", "c date"}
	for name, c := range map[string]struct {
		parameters map[string]string
		content    string
		want       []string
	}{
		"plain":           {nil, "x,y,2026-01-02\n", []string{"x|y|2026-01-02"}},
		"quotes":          {nil, `"x,1","say ""hi""","2026-01-02"` + "\n", []string{`x,1|say "hi"|2026-01-02`}},
		"escape":          {nil, `"a\"b","c\\d",` + "\n" + `"C:\temp",\x,` + "\n", []string{`a"b|c\d|∅`, `C:\temp|\x|∅`}},
		"lines in quotes": {nil, "\"a\nb\r\nc\",y,2026-01-02\nz,,", []string{"a\nb\r\nc|y|2026-01-02", "z||∅"}},
		"spaces":          {nil, ` "a" , b,2026-01-02`, []string{"a | b|2026-01-02"}},
		"epoch day":       {nil, "x,y,1", []string{"x|y|1970-01-02"}},
		"others":          {map[string]string{"separatorChar": ";", "quoteChar": "'", "escapeChar": "^"}, `'a;^'b';"c";`, []string{`a;'b|"c"|∅`}},
		"no quotes":       {map[string]string{"quoteChar": `\0`, "escapeChar": `\0`}, `"a",b,`, []string{`"a"|b|∅`}},
		"blank":           {nil, "\n\nx,y,\n\r\n\"\"\n", []string{"x|y|∅", "|∅|∅"}},
		"header":          {map[string]string{"skip.header.line.count": "1"}, "a,b,c\nx,y,\n", []string{"x|y|∅"}},
		"quote within":    {nil, `a"b,c"",`, []string{`a"b|c""|∅`}},
		"null is text":    {nil, `\N,NULL,`, []string{`\N|NULL|∅`}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, extension := range []string{"", ".gz", ".zst"} {
				b := newBucketDir(t, nil, nil)
				b.write("t/data.csv"+extension, compressions[extension](t, []byte(c.content)))
				b.want(definition(hive.CSVSerde, c.parameters, columns...), c.want...)
			}
		})
	}
}

func TestDocuments(t *testing.T) {
	columns := []string{"id int", "price decimal(10,2)", "Note string", "legs array<struct<qty:int,px:decimal(6,3)>>", "m map<string,int>"}
	for name, c := range map[string]struct {
		library    string
		parameters map[string]string
		content    string
		want       []string
	}{
		"lines":      {"", nil, `{"id":1,"price":2.5,"note":"x"}` + "\n\n  " + `{"ID":2,"NOTE":"y","other":{}}` + "\r\n", []string{"1|2.5|x|∅|∅", "2|∅|y|∅|∅"}},
		"array":      {"", nil, ` [ {"id":1} , {"id":2,"note":"a]b\"}{"}` + "\n,\n" + `{"id":3}] `, []string{"1|∅|∅|∅|∅", `2|∅|a]b"}{|∅|∅`, "3|∅|∅|∅|∅"}},
		"empty":      {"", nil, "[]", nil},
		"space":      {"", nil, " \n\n", nil},
		"arrays":     {"", nil, `[{"id":1}] [{"id":2}]`, []string{"1|∅|∅|∅|∅", "2|∅|∅|∅|∅"}},
		"nested":     {"", nil, `{"legs":[{"qty":1,"px":1.125},{"QTY":2}],"m":{"k":7}}`, []string{`∅|∅|∅|[{"px":"1.125","qty":1},{"px":null,"qty":2}]|[{"key":"k","value":7}]`}},
		"mapping":    {"", map[string]string{"mapping.note": "the.note", "Mapping.ID": "Key"}, `{"key":1,"the.note":"x","note":"y"}`, []string{"1|∅|x|∅|∅"}},
		"dots":       {"", map[string]string{"dots.in.keys": "true", "mapping.note": "a_b"}, `{"a.b":"x"}`, []string{"∅|∅|x|∅|∅"}},
		"malformed":  {"", map[string]string{"ignore.malformed.json": "true"}, "{\"id\":1}\nnonsense\n{\"id\":3}", []string{"1|∅|∅|∅|∅", "∅|∅|∅|∅|∅", "3|∅|∅|∅|∅"}},
		"hive":       {hive.HiveJSONSerde, nil, `{"id":1,"price":1e1}`, []string{"1|10|∅|∅|∅"}},
		"text":       {"", nil, `{"id":"7","price":"1.10"}`, []string{"7|1.1|∅|∅|∅"}},
		"one a line": {"", nil, `{"id":1}{"id":2}`, []string{"1|∅|∅|∅|∅", "2|∅|∅|∅|∅"}},
	} {
		t.Run(name, func(t *testing.T) {
			library := c.library
			if library == "" {
				library = hive.OpenXSerde
			}
			for extension, compress := range compressions {
				z := compress(t, []byte(c.content))
				if z == nil {
					continue
				}
				b := newBucketDir(t, nil, nil)
				b.write("t/data.json"+extension, z)
				got, err := b.rows(definition(library, c.parameters, columns...), nil)
				strip := strings.NewReplacer(".00", "", ".50", ".5", "1.10", "1.1").Replace
				if err != nil || strip(strings.Join(got, "\n")) != strings.Join(c.want, "\n") {
					t.Errorf("%q: got\n%s, %v\nwant\n%s", extension, strings.Join(got, "\n"), err, strings.Join(c.want, "\n"))
				}
			}
		})
	}
}

func TestMalformedFiles(t *testing.T) {
	lazy := definition(hive.LazySerde, map[string]string{"field.delim": ","}, "a int", "p decimal(6,2)", "s varchar(3)")
	quotes := definition(hive.CSVSerde, nil, "a string", "b string")
	json := definition(hive.OpenXSerde, nil, "a int", "p decimal(6,2)")
	for name, c := range map[string]struct {
		d       hive.Table
		content string
		words   []string
	}{
		"digits":             {lazy, "1,1.00,a\n2,1.005,b\n", []string{"s3://lake/t/data", "line 2", `"p"`, "decimal(6,2)", "1.005", "declare"}},
		"range":              {lazy, "1,99999,a\n", []string{"line 1", "range"}},
		"length":             {lazy, "1,1,abcd\n", []string{"varchar(3)"}},
		"no UTF-8":           {lazy, "1,1,\xff\n", []string{"UTF-8"}},
		"open quote":         {quotes, "a,b\nc,\"d\ne\n", []string{"line 2"}},
		"no JSON":            {json, "{\"a\":1}\n{\"a\":}\n", []string{"line 2", "malformed JSON"}},
		"wrong type":         {json, `{"a":"x"}`, []string{"line 1", `member "a"`}},
		"JSON digits":        {json, `{"p":1.001}`, []string{"scale"}},
		"no object":          {json, `[1]`, []string{"element 1", "object"}},
		"open array":         {json, `[{"a":1}`, []string{"too early"}},
		"trailing comma":     {json, `[{"a":1},]`, []string{"element 2"}},
		"no comma":           {json, `[{"a":1}{"a":2}]`, []string{"element 2"}},
		"pretty":             {json, "{\n\"a\":1}", []string{"line 1"}},
		"behind the array":   {json, `[{"a":1}]x`, []string{"behind the array"}},
		"gzip cut off":       {lazy, string(compressions[".gz"](t, []byte(strings.Repeat("1,1,a\n", 100)))[:40]), []string{"gzip"}},
		"gzip damaged":       {lazy, "\x1f\x8bnonsense", []string{"gzip"}},
		"a line of 17 MB":    {lazy, strings.Repeat("x", 17<<20), []string{"longer than"}},
		"a row of 17 MB":     {quotes, `"` + strings.Repeat("x", 17<<20), []string{"longer than"}},
		"a document of 17MB": {json, `[{"a":"` + strings.Repeat("x", 17<<20), []string{"longer than"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBucketDir(t, nil, nil)
			b.write("t/data", []byte(c.content))
			b.refused(c.d, ErrData, c.words...)
		})
	}
	for name, words := range map[string][]string{"data.xz": {".xz", "gzip"}, "data.lzo": {".lzo"}, "data.gz": {"is not compressed"}, "data.zip": {".zip"}, "data.snappy": {"snappy"}} {
		b := newBucketDir(t, nil, nil)
		b.write("t/"+name, []byte("1,1,a\n2,2,b and so on and on"))
		b.refused(lazy, ErrData, words...)
	}
}

// TestStagedOnce: a file that did not change is converted once, however many
// read it, and again when it or the columns change.
func TestStagedOnce(t *testing.T) {
	b := newBucketDir(t, nil, nil)
	b.write("t/a.csv", []byte("1\n2\n"))
	d := definition(hive.CSVSerde, nil, "a int")
	table, err := b.table(d)
	if err != nil {
		t.Fatal(err)
	}
	path := func(table *Table) string {
		t.Helper()
		f, err := table.Files(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Release()
		return f.Files[0].Path
	}
	first := path(table)
	if again := path(table); again != first {
		t.Errorf("converted again: %s, %s", first, again)
	}
	other, err := b.table(definition(hive.CSVSerde, nil, "a bigint"))
	if err != nil {
		t.Fatal(err)
	}
	if path(other) == first {
		t.Error("another type has the same staged file")
	}
	b.write("t/a.csv", []byte("1\n2\n3\n"))
	if path(table) == first {
		t.Error("a changed file has the same staged file")
	}
}

func FuzzFormat(f *testing.F) {
	f.Add("field.delim", ",", "escape.delim", `\`, uint8(0))
	f.Add("separatorChar", ";", "quoteChar", "'", uint8(1))
	f.Add("mapping.a", "b", "case.insensitive", "false", uint8(2))
	f.Add("timestamp.formats", "yyyy-MM-dd", "skip.header.line.count", "1", uint8(3))
	libraries := []string{hive.LazySerde, hive.CSVSerde, hive.OpenXSerde, hive.HiveJSONSerde, ""}
	b := newBucketDir(f, nil, nil)
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string, library uint8) {
		d := definition(libraries[int(library)%len(libraries)], map[string]string{k1: v1, k2: v2}, "a int", "b string", "c timestamp")
		table, err := b.table(d)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Message == "" {
				t.Fatalf("%v is no *Error", err)
			}
			return
		}
		form, err := table.format(d.Storage, nil)
		if err != nil {
			t.Fatal(err)
		}
		if form.kind == delimited && (form.delimiter >= 0x80 || form.delimiter == '\n' || form.delimiter == form.escape) {
			t.Errorf("delimiter %q, escape %q", form.delimiter, form.escape)
		}
		if form.kind != parquet {
			if _, err := table.converter(form); err != nil {
				t.Errorf("a format that was accepted has no converter: %v", err)
			}
		}
	})
}

// sink counts rows; it keeps nothing.
type sink struct{ rows, bytes int64 }

func (s *sink) Append(b []byte) error { s.rows++; s.bytes += int64(len(b)); return nil }
func (s *sink) AppendText(f [][]byte) error {
	s.rows++
	for _, x := range f {
		s.bytes += int64(len(x))
	}
	return nil
}
func (s *sink) AppendNull() error { s.rows++; return nil }
func (s *sink) Close() error      { return nil }
func (s *sink) Rows() int64       { return s.rows }

func FuzzRows(f *testing.F) {
	for _, s := range []string{"a,b\n", `"a""b","c`, `a\,b`, "[{\"a\":1},{}]", "{}\n{}", "\x1f\x8b\x08", "\x28\xb5\x2f\xfd", "\xff\x06\x00\x00sNaPpY\x01", "\x82SNAPPY\x00\x00\x00\x00\x01", "BZh91AY&SY"} {
		f.Add([]byte(s), uint8(len(s)))
	}
	libraries := []string{hive.LazySerde, hive.CSVSerde, hive.OpenXSerde}
	r, err := Open(Options{Dir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, content []byte, choice uint8) {
		d := definition(libraries[int(choice)%len(libraries)], map[string]string{"field.delim": ",", "escape.delim": `\`}, "a string", "b string")
		table, err := r.Table(&catalog.External{Name: catalog.Name{Namespace: "n", Table: "t"}, Definition: d})
		if err != nil {
			t.Fatal(err)
		}
		form, err := table.format(d.Storage, nil)
		if err != nil {
			t.Fatal(err)
		}
		name := "f"
		if choice >= 128 {
			name = "f.snappy"
		}
		var s sink
		err = table.convert(context.Background(), form, name, bytes.NewReader(content), int64(len(content)), &s)
		var e *Error
		if err != nil && !errors.As(err, &e) {
			t.Errorf("%v is no *Error", err)
		}
	})
}

// TestSplitAgainstNaive holds the splitter against the plainest one.
func FuzzSplit(f *testing.F) {
	f.Add(`a,b\,c,\\,\N,`)
	f.Fuzz(func(t *testing.T, line string) {
		if strings.ContainsAny(line, "\r\n") {
			t.Skip()
		}
		var s splitter
		got := s.split([]byte(line), ',', '\\', []byte(`\N`))
		var want []string
		raw, plain := "", ""
		end := func() {
			if raw == `\N` {
				plain = "∅"
			}
			want = append(want, plain)
			raw, plain = "", ""
		}
		for i := 0; i < len(line); i++ {
			switch {
			case line[i] == '\\' && i+1 < len(line):
				raw += line[i : i+2]
				i++
				plain += line[i : i+1]
			case line[i] == ',':
				end()
			default:
				raw += line[i : i+1]
				plain += line[i : i+1]
			}
		}
		end()
		texts := make([]string, len(got))
		for i, g := range got {
			texts[i] = string(g)
			if g == nil {
				texts[i] = "∅"
			}
		}
		if fmt.Sprintf("%q", texts) != fmt.Sprintf("%q", want) {
			t.Errorf("%q:\n%q\nwant\n%q", line, texts, want)
		}
	})
}

func BenchmarkDelimited(b *testing.B) {
	line := "2026-11-23,ACME,1000123,101.2500,300,XNAS,regular\n"
	content := []byte(strings.Repeat(line, 200_000))
	r, err := Open(Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	d := definition(hive.LazySerde, map[string]string{"field.delim": ","}, "d date", "sym string", "id bigint", "px decimal(18,4)", "qty int", "mkt string", "k string")
	table, err := r.Table(&catalog.External{Definition: d})
	if err != nil {
		b.Fatal(err)
	}
	form, _ := table.format(d.Storage, nil)
	c, err := table.converter(form)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		w, err := c.NewStage(bufio.NewWriter(&bytes.Buffer{}))
		if err != nil {
			b.Fatal(err)
		}
		if err := table.convert(b.Context(), form, "f", bytes.NewReader(content), int64(len(content)), w); err != nil {
			b.Fatal(err)
		}
	}
}
