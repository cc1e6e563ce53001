package warehouse

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/hive"
	"github.com/tapehouse/tapehouse/internal/serde"
)

// The same three rows in every format: one of ordinary values, one of extremes and
// one of nulls.
var (
	formatColumns = []string{"id int", "b boolean", "t tinyint", "s smallint", "l bigint", "f float", "g double", "p decimal(10,2)", "q decimal(38,10)", "x string", "v varchar(20)", "d date", "ts timestamp"}
	formatTexts   = [][]string{
		{"1", "true", "-7", "300", "9223372036854775807", "0.5", "1.25", "12345678.90", "1234567890123456789012345678.0123456789", "text, with; \"all\" 'sorts' | of", "ünï 世界", "2026-11-23", "2026-11-23 14:30:00.123456"},
		{"2", "false", "127", "-32768", "-9223372036854775808", "-1.5", "0", "-0.01", "0.0000000001", "", "x", "9999-12-31", "9999-12-31 23:59:59.999999"},
		{"3", "", "", "", "", "", "", "", "", "", "", "", ""},
	}
	formatWant = []string{
		`1 | t | -7 | 300 | 9223372036854775807 | 0.5 | 1.25 | 12345678.90 | 1234567890123456789012345678.0123456789 | text, with; "all" 'sorts' | of | ünï 世界 | 2026-11-23 | 2026-11-23 14:30:00.123456`,
		`2 | f | 127 | -32768 | -9223372036854775808 | -1.5 | 0 | -0.01 | 0.0000000001 |  | x | 9999-12-31 | 9999-12-31 23:59:59.999999`,
		`3 | NULL | NULL | NULL | NULL | NULL | NULL | NULL | NULL | NULL | NULL | NULL | NULL`,
	}
)

// written are the rows as files of each format: the SerDe, its parameters, and
// the bytes.
type written struct {
	library    string
	parameters map[string]string
	content    []byte
	own        bool // it is not to be compressed
	nulls      bool // texts cannot be null in it
}

func formatFiles(t *testing.T, dir string) map[string]written {
	out := map[string]written{}
	var lazy, tabs, quoted, lines, array strings.Builder
	array.WriteString("[\n")
	for i, row := range formatTexts {
		var fields, plain, inQuotes, members []string
		for j, text := range row {
			name, typ, _ := strings.Cut(formatColumns[j], " ")
			null := i == 2 && j > 0
			field := strings.NewReplacer(`\`, `\\`, "|", `\|`).Replace(text)
			if null {
				field = `\N`
			}
			fields = append(fields, field)
			plain = append(plain, strings.ReplaceAll(field, `\|`, "|"))
			inQuotes = append(inQuotes, `"`+strings.ReplaceAll(text, `"`, `""`)+`"`)
			value := text
			switch {
			case null:
				value = "null"
			case typ == "string" || strings.HasPrefix(typ, "varchar") || typ == "date" || typ == "timestamp":
				value = string(engine.AppendJSONString(nil, text))
			}
			members = append(members, fmt.Sprintf("%q: %s", strings.ToUpper(name), value))
		}
		lazy.WriteString(strings.Join(fields, "|") + "\n")
		tabs.WriteString(strings.Join(plain, "\t") + "\r\n")
		quoted.WriteString(strings.Join(inQuotes, ";") + "\n")
		doc := "{" + strings.Join(members, ", ") + "}"
		lines.WriteString(doc + "\n")
		if i > 0 {
			array.WriteString(",\n")
		}
		array.WriteString(doc)
	}
	array.WriteString("]")
	out["delimited"] = written{library: hive.LazySerde, parameters: map[string]string{"field.delim": "|", "escape.delim": `\`}, content: []byte(lazy.String())}
	out["tabs"] = written{library: hive.LazySerde, parameters: map[string]string{"field.delim": "9"}, content: []byte(tabs.String())}
	out["quoted"] = written{library: hive.CSVSerde, parameters: map[string]string{"separatorChar": ";"}, content: []byte(quoted.String()), nulls: true}
	out["openx"] = written{library: hive.OpenXSerde, content: []byte(lines.String())}
	out["openx array"] = written{library: hive.OpenXSerde, content: []byte(array.String())}
	out["hive json"] = written{library: hive.HiveJSONSerde, content: []byte(lines.String())}

	// Parquet as DuckDB writes it: no field ids, its own encodings.
	peer, err := engine.OpenPeer(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	sql := `SELECT * FROM (VALUES
		(1::INTEGER, true, -7::TINYINT, 300::SMALLINT, 9223372036854775807::BIGINT, 0.5::FLOAT, 1.25::DOUBLE, 12345678.90::DECIMAL(10,2), '1234567890123456789012345678.0123456789'::DECIMAL(38,10), 'text, with; "all" ''sorts'' | of', 'ünï 世界', DATE '2026-11-23', TIMESTAMP '2026-11-23 14:30:00.123456'),
		(2, false, 127, -32768, -9223372036854775808, -1.5, 0, -0.01, 0.0000000001, '', 'x', DATE '9999-12-31', TIMESTAMP '9999-12-31 23:59:59.999999'),
		(3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)) AS t("ID", b, t, s, l, f, g, p, q, x, v, d, ts)`
	for _, codec := range []string{"uncompressed", "snappy", "gzip", "zstd"} {
		for _, version := range []string{"V1", "V2"} {
			path := filepath.Join(dir, "peer.parquet")
			if err := peer.Exec(t.Context(), "COPY ("+sql+") TO "+engine.QuoteLiteral(path)+" (FORMAT parquet, COMPRESSION "+codec+", PARQUET_VERSION "+version+")"); err != nil {
				t.Fatal(err)
			}
			out["parquet of a peer, "+codec+" "+version] = written{library: hive.ParquetSerde, content: readFile(t, path), own: true}
		}
	}
	return out
}

// compressed is content in each form of compression.
func compressed(t *testing.T, content []byte) map[string][]byte {
	t.Helper()
	out := map[string][]byte{"": content}
	stream := func(extension string, open func(io.Writer) (io.WriteCloser, error)) {
		var b bytes.Buffer
		w, err := open(&b)
		if err == nil {
			_, err = w.Write(content)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		out[extension] = b.Bytes()
	}
	stream(".gz", func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil })
	stream(".zst", func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) })
	stream(".sz", func(w io.Writer) (io.WriteCloser, error) { return snappy.NewBufferedWriter(w), nil })
	z := snappy.Encode(nil, content)
	hadoop := binary.BigEndian.AppendUint32(nil, uint32(len(content)))
	out[".snappy"] = append(binary.BigEndian.AppendUint32(hadoop, uint32(len(z))), z...)
	if bzip2, err := exec.LookPath("bzip2"); err != nil {
		t.Log("SKIPPED: no bzip2 to write with")
	} else {
		c := exec.Command(bzip2, "-c")
		c.Stdin = bytes.NewReader(content)
		if out[".bz2"], err = c.Output(); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// TestFormatsAgree reads the same rows from every format, type and compression.
func TestFormatsAgree(t *testing.T) {
	h := newHouse(t)
	s := h.session(t)
	if err := h.catalog.CreateNamespace(t.Context(), "ext", nil); err != nil {
		t.Fatal(err)
	}
	n := 0
	check := func(what string, w written, extension string, content []byte) {
		t.Helper()
		n++
		h.file(t, fmt.Sprintf("lake/f%d/data%s", n, extension), content)
		d := hive.Table{Storage: &hive.Storage{Location: fmt.Sprintf("s3://lake/f%d/", n), Serde: &hive.Serde{Library: w.library, Parameters: w.parameters}}}
		for _, c := range formatColumns {
			name, typ, _ := strings.Cut(c, " ")
			d.Storage.Columns = append(d.Storage.Columns, hive.Column{Name: name, Type: typ})
		}
		name := fmt.Sprintf("f%d", n)
		h.change(t, catalog.ExternalChange{Table: catalog.Name{Namespace: "ext", Table: name}, Define: &d})
		out, err := run(s, "SELECT * FROM ext."+name+" ORDER BY id")
		if err != nil {
			t.Errorf("%s%s: %v", what, extension, err)
			return
		}
		for i, want := range formatWant {
			if w.nulls && i == 2 { // an empty text is what it has for null
				want = `3 | NULL | NULL | NULL | NULL | NULL | NULL | NULL | NULL |  |  | NULL | NULL`
			}
			if len(out.rows) != 3 || strings.Join(out.rows[i], " | ") != want {
				t.Errorf("%s%s row %d:\n%v\nwant\n%s", what, extension, i+1, out.rows, want)
			}
		}
		// A part of the columns, and a sum that must be exact.
		if out, err := run(s, "SELECT sum(p), sum(q), count(x), count(*) FROM ext."+name); err != nil || !strings.HasPrefix(fmt.Sprint(out.rows), "[[12345678.89 1234567890123456789012345678.0123456790 ") {
			t.Errorf("%s%s: sums %v, %v", what, extension, out, err)
		}
	}
	for what, w := range formatFiles(t, t.TempDir()) {
		if w.own {
			check(what, w, ".parquet", w.content)
			continue
		}
		for extension, content := range compressed(t, w.content) {
			check(what, w, extension, content)
		}
	}
}

// TestReadsOwnConversions: what Firehose's record format conversion writes, with
// INT96 timestamps, decimals of bytes and nested columns, is read back.
func TestReadsOwnConversions(t *testing.T) {
	h := newHouse(t)
	s := h.session(t)
	if err := h.catalog.CreateNamespace(t.Context(), "ext", nil); err != nil {
		t.Fatal(err)
	}
	d := hive.Table{Storage: &hive.Storage{Location: "s3://lake/own/", Serde: &hive.Serde{Library: hive.ParquetSerde}}}
	var columns []serde.Column
	for _, c := range []string{"id bigint", "ts timestamp", "p decimal(38,4)", "st struct<a:int,b:array<decimal(9,2)>>", "m map<string,struct<x:date>>", "bin binary"} {
		name, typ, _ := strings.Cut(c, " ")
		parsed, err := serde.ParseType(typ)
		if err != nil {
			t.Fatal(err)
		}
		columns = append(columns, serde.Column{Name: name, Type: parsed})
		d.Storage.Columns = append(d.Storage.Columns, hive.Column{Name: name, Type: typ})
	}
	conv, err := serde.NewConverter(columns, serde.Deserializer{OpenX: &serde.OpenX{}})
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range []serde.ParquetOptions{{}, {WriterVersion: "V2", Compression: "GZIP", EnableDictionaryCompression: true}} {
		var b bytes.Buffer
		w, err := conv.NewWriter(&b, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range []string{
			fmt.Sprintf(`{"id":%d,"ts":"1969-12-31 23:59:59.000001","p":"-0.0001","st":{"a":1,"b":[1.25,null]},"m":{"k":{"x":"2026-01-02"}},"bin":"AP8="}`, 2*i+1), fmt.Sprintf(`{"id":%d}`, 2*i+2),
		} {
			if err := w.Append([]byte(doc)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		h.file(t, fmt.Sprintf("lake/own/%d", i), b.Bytes())
	}
	h.change(t, catalog.ExternalChange{Table: catalog.Name{Namespace: "ext", Table: "own"}, Define: &d})
	out, err := run(s, "SELECT * FROM ext.own ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range out.rows {
		want := fmt.Sprintf(`%d | 1969-12-31 23:59:59.000001 | -0.0001 | {"a":1,"b":[1.25,null]} | [{"key":"k","value":{"x":"2026-01-02"}}] | \x00ff`, i+1)
		if i%2 == 1 {
			want = fmt.Sprintf("%d | NULL | NULL | NULL | NULL | NULL", i+1)
		}
		if got := strings.Join(row, " | "); got != want {
			t.Errorf("row %d:\n%s\nwant\n%s", i+1, got, want)
		}
	}
}
