package checker

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"github.com/tapehouse/tapehouse/internal/exchange"
)

// handmade writes a Parquet file as another program would: plain strings in
// small pages, decimals as byte arrays, nulls.
func handmade(t *testing.T, rows int, options ...parquet.WriterProperty) (dataFile, []field) {
	t.Helper()
	id := func(n string) arrow.Metadata { return arrow.NewMetadata([]string{"PARQUET:field_id"}, []string{n}) }
	s := arrow.NewSchema([]arrow.Field{
		{Name: "source", Type: arrow.BinaryTypes.String, Metadata: id("1")},
		{Name: "session", Type: arrow.BinaryTypes.String, Metadata: id("2")},
		{Name: "epoch", Type: arrow.PrimitiveTypes.Int64, Metadata: id("3")},
		{Name: "seq", Type: arrow.PrimitiveTypes.Int64, Metadata: id("4")},
		{Name: "leg", Type: arrow.PrimitiveTypes.Int32, Nullable: true, Metadata: id("5")},
		{Name: "note", Type: arrow.BinaryTypes.String, Nullable: true, Metadata: id("6")},
		{Name: "price", Type: &arrow.Decimal128Type{Precision: 18, Scale: 4}, Nullable: true, Metadata: id("7")},
		{Name: "at", Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, Metadata: id("8")},
		{Name: "day", Type: arrow.FixedWidthTypes.Date32, Metadata: id("9")},
		{Name: "flag", Type: arrow.FixedWidthTypes.Boolean, Metadata: id("10")},
	}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, s)
	defer b.Release()
	for i := range rows {
		b.Field(0).(*array.StringBuilder).Append([]string{"A", "B"}[i%2])
		b.Field(1).(*array.StringBuilder).Append("s")
		b.Field(2).(*array.Int64Builder).Append(1)
		b.Field(3).(*array.Int64Builder).Append(int64(i + 1))
		note := b.Field(5).(*array.StringBuilder)
		price := b.Field(6).(*array.Decimal128Builder)
		if i%3 == 0 {
			b.Field(4).(*array.Int32Builder).AppendNull()
			note.AppendNull()
			price.AppendNull()
		} else {
			b.Field(4).(*array.Int32Builder).Append(int32(i))
			note.Append(noteOf(i))
			price.Append(decimal128.FromI64(priceOf(i)))
		}
		b.Field(7).(*array.TimestampBuilder).Append(arrow.Timestamp(int64(i) * 1000))
		b.Field(8).(*array.Date32Builder).Append(arrow.Date32(20777))
		b.Field(9).(*array.BooleanBuilder).Append(i%2 == 0)
	}
	batch := b.NewRecordBatch()
	defer batch.Release()
	path := filepath.Join(t.TempDir(), "x.parquet")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w, err := pqarrow.NewFileWriter(s, out, parquet.NewWriterProperties(options...), pqarrow.DefaultWriterProps())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(batch); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var fields []field
	for i, f := range s.Fields() {
		fields = append(fields, field{id: i + 1, name: f.Name})
	}
	return dataFile{path, int64(rows)}, fields
}

func noteOf(i int) string { return string(rune('a'+i%26)) + "-note-of-a-length-that-fills-pages" }

func priceOf(i int) int64 {
	switch i % 5 {
	case 1:
		return -123400
	case 2:
		return math.MaxInt64 / 10
	}
	return int64(i)
}

func TestHandmadeParquet(t *testing.T) {
	const rows = 10_000
	for name, options := range map[string][]parquet.WriterProperty{
		"dictionary": nil,
		"plain":      {parquet.WithDictionaryDefault(false), parquet.WithDataPageSize(2048), parquet.WithBatchSize(64), parquet.WithMaxRowGroupLength(3001)},
		"v2":         {parquet.WithDataPageVersion(parquet.DataPageV2), parquet.WithDataPageSize(4096)},
		"decimal":    {parquet.WithStoreDecimalAsInteger(true)},
	} {
		t.Run(name, func(t *testing.T) {
			f, fields := handmade(t, rows, options...)
			n := 0
			var h exchange.RowHash
			err := readRows(t.Context(), f, fields, func(row int64, k exchange.Key, hash uint64) {
				i := n
				n++
				source := []string{"A", "B"}[i%2]
				if row != int64(i) || k != (exchange.Key{Source: source, Session: "s", Epoch: 1, Seq: int64(i + 1)}) {
					t.Fatalf("row %d: %d %+v", i, row, k)
				}
				h.Reset()
				h.Text("source", source)
				h.Text("session", "s")
				h.Integer("epoch", 1)
				h.Integer("seq", int64(i+1))
				if i%3 != 0 {
					h.Integer("leg", int64(i))
					h.Text("note", noteOf(i))
					h.Integer("price", priceOf(i))
				}
				h.Integer("at", int64(i)*1000)
				h.Integer("day", 20777)
				h.Integer("flag", int64(1-i%2))
				if h.Sum() != hash {
					t.Fatalf("row %d hashes otherwise", i)
				}
			})
			if err != nil || n != rows {
				t.Fatal(n, err)
			}
		})
	}
}

func TestColumnsThatAreNotThere(t *testing.T) {
	f, fields := handmade(t, 10)
	// A column that was added after the file was written is null in it.
	err := readRows(t.Context(), f, append(fields, field{id: 99, name: "later"}), func(int64, exchange.Key, uint64) {})
	if err != nil {
		t.Error(err)
	}
	for name, fields := range map[string][]field{
		"required": append(fields, field{id: 99, name: "later", required: true}),
		"no key":   fields[2:],
	} {
		if err := readRows(t.Context(), f, fields, func(int64, exchange.Key, uint64) {}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	f.rows++
	if err := readRows(t.Context(), f, fields, func(int64, exchange.Key, uint64) {}); err == nil {
		t.Error("a row is missing, and there is no error")
	}
}

func TestBigEndian(t *testing.T) {
	for _, c := range []struct {
		b    []byte
		want int64
		ok   bool
	}{
		{[]byte{0, 1}, 1, true}, {[]byte{0xff}, -1, true}, {[]byte{0xff, 0xff, 0xfe}, -2, true}, {nil, 0, true},
		{[]byte{0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, math.MaxInt64, true},
		{[]byte{1, 0, 0, 0, 0, 0, 0, 0, 0}, 0, false}, {[]byte{0xfe, 0, 0, 0, 0, 0, 0, 0, 0}, 0, false},
	} {
		v, err := bigEndian(c.b)
		if (err == nil) != c.ok || c.ok && v != c.want {
			t.Errorf("%x: %d %v", c.b, v, err)
		}
	}
}
