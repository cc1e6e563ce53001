package serde

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
)

// columns reads "name type; name type".
func columns(t testing.TB, s string) []Column {
	t.Helper()
	var cols []Column
	for part := range strings.SplitSeq(s, ";") {
		name, typ, _ := strings.Cut(strings.TrimSpace(part), " ")
		x, err := ParseType(typ)
		if err != nil {
			t.Fatal(err)
		}
		cols = append(cols, Column{name, x})
	}
	return cols
}

func converter(t testing.TB, cols string, d Deserializer) *Converter {
	t.Helper()
	c, err := NewConverter(columns(t, cols), d)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var (
	openX = Deserializer{OpenX: &OpenX{}}
	hive  = Deserializer{Hive: &Hive{}}
)

// write makes a file of the records, all of which must convert.
func write(t testing.TB, c *Converter, o ParquetOptions, records ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := c.NewWriter(&b, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if err := w.Append([]byte(r)); err != nil {
			t.Fatalf("%s: %v", r, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// read returns the rows of a file as JSON, by arrow-go's reader.
func read(t testing.TB, parquet []byte) []string {
	t.Helper()
	f, err := file.NewParquetReader(bytes.NewReader(parquet))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{BatchSize: 1 << 16}, memory.DefaultAllocator)
	if err != nil {
		t.Fatal(err)
	}
	table, err := r.ReadTable(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer table.Release()
	var rows []string
	batches := array.NewTableReader(table, 0)
	defer batches.Release()
	for batches.Next() {
		var b bytes.Buffer
		if err := array.RecordToJSON(batches.RecordBatch(), &b); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			rows = append(rows, strings.TrimSpace(line))
		}
	}
	return rows
}

// sameJSON compares two texts as JSON, numbers as they are written.
func sameJSON(t testing.TB, a, b string) bool {
	t.Helper()
	norm := func(s string) string {
		d := json.NewDecoder(strings.NewReader(s))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	return norm(a) == norm(b)
}
