package columnar

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/tapehouse/tapehouse/internal/record"
)

var keysSchema = record.Schema{Fields: []record.Field{
	{ID: 1, Name: "text", Type: record.Type{Kind: record.String}},
	{ID: 2, Name: "price", Type: record.Type{Kind: record.Decimal, Precision: 9, Scale: 2}, Required: true},
	{ID: 3, Name: "at", Type: record.Type{Kind: record.TimestampTZ}},
	{ID: 4, Name: "at_ns", Type: record.Type{Kind: record.Long}, Derive: record.EpochNanos, From: "at"},
	{ID: 5, Name: "day", Type: record.Type{Kind: record.Date}},
	{ID: 6, Name: "ratio", Type: record.Type{Kind: record.Double}},
	{ID: 7, Name: "flag", Type: record.Type{Kind: record.Boolean}},
}}

func TestKeys(t *testing.T) {
	l, err := Compile(keysSchema, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, names := range [][]string{{"nothing"}, {"at_ns"}, {"ratio"}} {
		if _, err := l.Keys(names); !errors.Is(err, ErrSchema) {
			t.Errorf("%v: %v", names, err)
		}
	}
	k, err := l.Keys([]string{"day", "text", "price", "at", "flag"})
	if err != nil {
		t.Fatal(err)
	}
	doc := func(text, price, at, day, flag string) []byte {
		return fmt.Appendf(nil, `{"text":%s,"price":%s,"at":%s,"day":%s,"flag":%s}`, text, price, at, day, flag)
	}
	const at, later = `"2026-11-27T10:00:00.000001"`, `"2026-11-27T10:00:00.000002"`
	zone := func(s string) string { return s[:len(s)-1] + `Z"` }
	docs := [][]byte{
		doc(`"ab"`, `1.5`, zone(at), `"2026-11-27"`, `true`),
		doc(`"\u0061b"`, `"1.50"`, `"2026-11-27T05:00:00.000001999-05:00"`, `"2026-11-27"`, `true`), // the same, to the microsecond
		doc(`"a"`, `1.5`, zone(at), `"2026-11-27"`, `true`),
		doc(`"ab"`, `-1.5`, zone(at), `"2026-11-27"`, `true`),
		doc(`"ab"`, `1.5`, zone(later), `"2026-11-27"`, `true`),
		doc(`"ab"`, `1.5`, zone(at), `"2026-11-28"`, `true`),
		doc(`"ab"`, `1.5`, zone(at), `"2026-11-27"`, `false`),
		doc(`""`, `1.5`, zone(at), `"2026-11-27"`, `true`),
		doc(`null`, `1.5`, zone(at), `"2026-11-27"`, `true`),
	}
	b := l.NewDecoder().DecodeDocs(docs, 0)
	defer b.Release()
	if b.Rows != len(docs) {
		t.Fatalf("%d rows, %+v", b.Rows, b.Rejects)
	}
	seen := map[string]int{}
	for row := range b.Rows {
		key, ok := k.Append(nil, b, row)
		if ok != (row != 8) {
			t.Errorf("row %d: %t", row, ok)
		}
		if was, had := seen[string(key)]; had != (row == 1) || row == 1 && was != 0 {
			t.Errorf("row %d has the key of row %d", row, was)
		}
		seen[string(key)] = row
	}

	// What a record needs that only names a row: nothing but to be a document.
	loose, err := Compile(KeySchema(keysSchema), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if b := loose.NewDecoder().DecodeDocs([][]byte{[]byte(`{"text":"ab"}`)}, 0); b.Rows != 1 || loose.Fingerprint() == l.Fingerprint() {
		t.Errorf("%+v", b.Rejects)
	}

	// Rows in a file of keys are the keys, as a batch of that layout has them.
	file := record.Schema{Fields: []record.Field{keysSchema.Fields[2], keysSchema.Fields[0], keysSchema.Fields[1]}}
	to, err := Compile(file, Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := b.Project(to, []int32{7, 0, 4, 1})
	defer p.Release()
	of, err := l.Keys([]string{"at", "text", "price"})
	if err != nil {
		t.Fatal(err)
	}
	have, err := to.Keys([]string{"at", "text", "price"})
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range []int{7, 0, 4, 1} {
		want, _ := of.Append(nil, b, row)
		if got, ok := have.Append(nil, p, i); !ok || !bytes.Equal(got, want) {
			t.Errorf("row %d is projected to %x, want %x", row, got, want)
		}
	}
	builder := to.NewBuilder()
	builder.Append(p)
	parts, err := builder.Flush()
	if err != nil || len(parts) != 1 || parts[0].Meta.Rows != 4 {
		t.Fatalf("%+v %v", parts, err)
	}
}
