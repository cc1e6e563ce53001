package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/record"
)

// TestParquetGoReadsWhatWeWrite: a reader that none of the product's tests use
// sees the rows that were decoded, nulls included, over several row groups.
func TestParquetGoReadsWhatWeWrite(t *testing.T) {
	fields := []record.Field{
		{ID: 1, Name: "seq", Type: record.Type{Kind: record.Long}, Required: true},
		{ID: 2, Name: "symbol", Type: record.Type{Kind: record.String}},
		{ID: 3, Name: "price", Type: record.Type{Kind: record.Decimal, Precision: 18, Scale: 4}},
		{ID: 4, Name: "quantity", Type: record.Type{Kind: record.Int}, Required: true},
		{ID: 5, Name: "open", Type: record.Type{Kind: record.Boolean}},
		{ID: 6, Name: "ratio", Type: record.Type{Kind: record.Double}},
	}
	type row struct {
		Seq      int64    `parquet:"seq"`
		Symbol   *string  `parquet:"symbol,optional"`
		Price    *int64   `parquet:"price,optional"`
		Quantity int32    `parquet:"quantity"`
		Open     *bool    `parquet:"open,optional"`
		Ratio    *float64 `parquet:"ratio,optional"`
	}
	layout, err := columnar.Compile(record.Schema{Fields: fields}, columnar.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const rows, per = 30_000, 1000
	d, b := layout.NewDecoder(), layout.NewBuilder()
	var sources []columnar.Source
	for from := 0; from < rows; from += per {
		var docs [][]byte
		for i := from; i < from+per; i++ {
			doc := fmt.Appendf(nil, `{"quantity":%d,"seq":%d`, i%700, i)
			if i%3 > 0 {
				doc = fmt.Appendf(doc, `,"symbol":"S\u00e9%d","price":"%d.%04d","open":%t`, i%900, i, i%10000, i%2 == 0)
			} else {
				doc = fmt.Appendf(doc, `,"ratio":%d.5,"price":null`, i)
			}
			docs = append(docs, append(doc, '}'))
		}
		batch := d.DecodeDocs(docs, 1)
		if len(batch.Rejects) > 0 {
			t.Fatal(batch.Rejects[0].Message)
		}
		batch.SetOrigin(record.Key{}, record.Offset(from))
		b.Append(batch)
		batch.Release()
		if from%10_000 == 9000 {
			parts, err := b.Flush()
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range parts {
				sources = append(sources, columnar.Source{ReaderAt: bytes.NewReader(p.Data), Size: int64(len(p.Data)), Meta: p.Meta})
			}
		}
	}
	var file bytes.Buffer
	if _, err := columnar.Concat(&file, sources); err != nil {
		t.Fatal(err)
	}
	f, err := parquet.OpenFile(bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil {
		t.Fatal(err)
	}
	if f.NumRows() != rows || len(f.RowGroups()) != 3 {
		t.Fatalf("%d rows in %d row groups", f.NumRows(), len(f.RowGroups()))
	}
	r := parquet.NewGenericReader[row](f)
	defer r.Close() //nolint:errcheck // read only
	got := make([]row, rows)
	n := 0
	for n < rows {
		k, err := r.Read(got[n:])
		n += k
		if err != nil && (!errors.Is(err, io.EOF) || n < rows) {
			t.Fatal(n, err)
		}
	}
	for i, x := range got {
		if x.Seq != int64(i) || x.Quantity != int32(i%700) {
			t.Fatalf("row %d: %+v", i, x)
		}
		if i%3 == 0 {
			if x.Symbol != nil || x.Price != nil || x.Open != nil || *x.Ratio != float64(i)+0.5 {
				t.Fatalf("row %d: %+v", i, x)
			}
			continue
		}
		if *x.Symbol != fmt.Sprintf("Sé%d", i%900) || *x.Price != int64(i)*10000+int64(i%10000) || *x.Open != (i%2 == 0) || x.Ratio != nil {
			t.Fatalf("row %d: %q %d", i, *x.Symbol, *x.Price)
		}
	}
}
