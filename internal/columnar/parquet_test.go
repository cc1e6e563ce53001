package columnar

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"github.com/tapehouse/tapehouse/internal/record"
)

// readParquet reads a file with arrow-go into the cells that Batch.rows gives.
func readParquet(t testing.TB, data []byte) [][]any {
	t.Helper()
	pf, err := file.NewParquetReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pf.Close() }()
	r, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{BatchSize: 1 << 16}, memory.DefaultAllocator)
	if err != nil {
		t.Fatal(err)
	}
	table, err := r.ReadTable(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer table.Release()
	rows := make([][]any, table.NumRows())
	for c := range int(table.NumCols()) {
		row := 0
		for _, chunk := range table.Column(c).Data().Chunks() {
			for i := range chunk.Len() {
				rows[row] = append(rows[row], arrowCell(t, chunk, i))
				row++
			}
		}
	}
	return rows
}

func arrowCell(t testing.TB, a arrow.Array, i int) any {
	if a.IsNull(i) {
		return nil
	}
	switch a := a.(type) {
	case *array.Boolean:
		if a.Value(i) {
			return int64(1)
		}
		return int64(0)
	case *array.Int32:
		return int64(a.Value(i))
	case *array.Int64:
		return a.Value(i)
	case *array.Float64:
		return int64(math.Float64bits(a.Value(i)))
	case *array.String:
		return strings.Clone(a.Value(i))
	case *array.Date32:
		return int64(a.Value(i))
	case *array.Timestamp:
		return int64(a.Value(i))
	case *array.Decimal128:
		return int64(a.Value(i).LowBits())
	case *array.Decimal32:
		return int64(a.Value(i))
	case *array.Decimal64:
		return int64(a.Value(i))
	}
	t.Fatalf("unexpected arrow type %T", a)
	return nil
}

func build(t testing.TB, l *Layout, batches ...*Batch) []Part {
	t.Helper()
	b := l.NewBuilder()
	for _, batch := range batches {
		b.Append(batch)
	}
	parts, err := b.Flush()
	if err != nil {
		t.Fatal(err)
	}
	if b.Rows() != 0 || b.Bytes() != 0 {
		t.Fatalf("%d rows, %d bytes after Flush", b.Rows(), b.Bytes())
	}
	return parts
}

// byPartition sorts rows as Flush does: parts in order of the date, nulls first.
func byPartition(rows [][]any, col int) [][]any {
	out := slices.Clone(rows)
	slices.SortStableFunc(out, func(a, b []any) int {
		x, y := int64(math.MinInt64), int64(math.MinInt64)
		if a[col] != nil {
			x = a[col].(int64)
		}
		if b[col] != nil {
			y = b[col].(int64)
		}
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	return out
}

// TestParquetAgainstReference goes the whole way: documents to rows by the
// reference, and to Parquet by us, read by arrow-go.
func TestParquetAgainstReference(t *testing.T) {
	for _, partition := range []string{"", "trade_date"} {
		l := compile(t, wideSchema(), partition)
		d := l.NewDecoder()
		r := rand.New(rand.NewPCG(8, 8))
		for round := range 30 {
			var want [][]any
			builder := l.NewBuilder()
			offset := int64(0)
			for range 1 + r.IntN(6) {
				var docs [][]byte
				for range r.IntN(400) {
					docs = append(docs, randomDoc(r, r.IntN(5) == 0))
				}
				b := d.DecodeDocs(docs, 77)
				b.SetOrigin(record.Key{Shard: 1}, record.Offset(offset))
				for i, doc := range docs {
					row, code := reference(l, doc)
					if code == "" {
						row[l.schema.Index("record_stream")] = record.Key{Shard: 1}.String()
						row[l.schema.Index("record_offset")] = offset + int64(i)
						row[l.schema.Index("arrived_at")] = int64(77)
						want = append(want, row)
					}
				}
				offset += int64(len(docs))
				builder.Append(b)
				b.Release()
			}
			parts, err := builder.Flush()
			if err != nil {
				t.Fatal(err)
			}
			if partition != "" {
				want = byPartition(want, l.schema.Index(partition))
			}
			var got [][]any
			for _, p := range parts {
				rows := readParquet(t, p.Data)
				got = append(got, rows...)
				checkMeta(t, l, p, rows)
			}
			if len(got) != len(want) {
				t.Fatalf("round %d: %d rows, want %d", round, len(got), len(want))
			}
			for i := range got {
				if !reflect.DeepEqual(got[i], want[i]) {
					t.Fatalf("round %d row %d:\n%v\nwant\n%v", round, i, got[i], want[i])
				}
			}
		}
	}
}

// checkMeta holds the description against the rows, and against what the footer
// says when it is read again.
func checkMeta(t *testing.T, l *Layout, p Part, rows [][]any) {
	t.Helper()
	again, err := ReadMeta(bytes.NewReader(p.Data), int64(len(p.Data)))
	if err != nil {
		t.Fatal(err)
	}
	other, err := MetaFromParquet(bytes.NewReader(p.Data), int64(len(p.Data)), l.schema)
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := again, p.Meta, other
	a.footer, b.footer, c.footer = nil, nil, nil
	if !reflect.DeepEqual(a, b) || !reflect.DeepEqual(c, b) {
		t.Fatalf("descriptions differ:\n%+v\n%+v\n%+v", a, b, c)
	}
	if b.Rows != int64(len(rows)) || b.SizeBytes != int64(len(p.Data)) || b.SchemaID != l.schema.ID || len(b.SplitOffsets) == 0 || b.SplitOffsets[0] != 4 {
		t.Fatalf("description %+v of %d rows", b, len(rows))
	}
	for i, s := range b.Columns {
		f := l.columns[i].field
		var lo, hi any
		nulls := int64(0)
		for _, row := range rows {
			v := row[i]
			if v == nil {
				nulls++
				continue
			}
			if lo == nil || less(f.Type, v, lo) {
				lo = v
			}
			if hi == nil || less(f.Type, hi, v) {
				hi = v
			}
		}
		if s.FieldID != f.ID || s.Values != int64(len(rows)) || s.Nulls != nulls || s.SizeBytes <= 0 {
			t.Fatalf("column %s: %+v, want %d nulls of %d", f.Name, s, nulls, len(rows))
		}
		if lo == nil {
			if s.Lower != nil || s.Upper != nil {
				t.Fatalf("column %s: bounds of nothing", f.Name)
			}
			continue
		}
		if !bytes.Equal(s.Lower, single(f.Type, lo, false)) || !bytes.Equal(s.Upper, single(f.Type, hi, true)) {
			t.Fatalf("column %s: bounds %x %x, want of %v %v", f.Name, s.Lower, s.Upper, lo, hi)
		}
	}
}

func less(t record.Type, a, b any) bool {
	if t.Kind == record.String {
		return a.(string) < b.(string)
	}
	if t.Kind == record.Double {
		return math.Float64frombits(uint64(a.(int64))) < math.Float64frombits(uint64(b.(int64)))
	}
	return a.(int64) < b.(int64)
}

// single is Iceberg's single-value serialisation, written from the spec.
func single(t record.Type, v any, upper bool) []byte {
	switch t.Kind {
	case record.String:
		s := v.(string)
		if len(s) <= 16 {
			return []byte(s)
		}
		if !upper {
			return []byte(s[:16])
		}
		return append([]byte(s[:15]), s[15]+1) // The tests' long strings are ASCII.
	case record.Boolean:
		return []byte{byte(v.(int64))}
	case record.Int, record.Date:
		return binary.LittleEndian.AppendUint32(nil, uint32(v.(int64)))
	case record.Decimal:
		x := v.(int64)
		for n := 1; ; n++ {
			if x >= -1<<(8*n-1) && x < 1<<(8*n-1) || n == 8 {
				b := binary.BigEndian.AppendUint64(nil, uint64(x))
				return b[8-n:]
			}
		}
	}
	return binary.LittleEndian.AppendUint64(nil, uint64(v.(int64)))
}

// TestParquetManyRows crosses pages and row groups, with every encoding.
func TestParquetManyRows(t *testing.T) {
	schema := wideSchema()
	schema.Fields = slices.DeleteFunc(schema.Fields, func(f record.Field) bool {
		return !slices.Contains([]string{"seq", "flag", "count", "big", "fee", "ratio", "note", "record_offset"}, f.Name)
	})
	l, err := Compile(schema, Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := l.NewDecoder()
	builder := l.NewBuilder()
	const n, per = 320000, 20000 // more than MaxRowGroupRows
	r := rand.New(rand.NewPCG(1, 1))
	want := map[int][][]any{} // some of the batches, by first row
	for from := 0; from < n; from += per {
		var arena []byte
		var ends []int32
		for i := from; i < from+per; i++ {
			arena = fmt.Appendf(arena, `{"seq":%d,"flag":%t,"count":%d,"big":%d,"ratio":%d.25,"note":"unique note %d"`,
				i, i%3 == 0, r.Int32()*int32(1-2*(i&1)), r.Int64()*int64(1-2*(i&1)), i%7, i)
			if i%1000 > 10 {
				arena = fmt.Appendf(arena, `,"fee":%d`, r.IntN(9999))
			}
			arena = append(arena, '}')
			ends = append(ends, int32(len(arena)))
		}
		b := d.Decode(arena, ends, int64(from))
		if b.Rows != per {
			t.Fatal(b.Rejects[0])
		}
		b.SetOrigin(record.Key{}, record.Offset(from))
		builder.Append(b)
		if from%(4*per) == 0 || from+per == n {
			want[from] = b.rows()
		}
		b.Release()
	}
	parts, err := builder.Flush()
	if err != nil {
		t.Fatal(err)
	}
	if len(parts) != 1 || len(parts[0].Meta.SplitOffsets) != 2 {
		t.Fatalf("%d parts, %v", len(parts), parts[0].Meta.SplitOffsets)
	}
	got := readParquet(t, parts[0].Data)
	if len(got) != n {
		t.Fatalf("%d rows", len(got))
	}
	for from, rows := range want {
		for i := range rows {
			if !slices.Equal(got[from+i], rows[i]) {
				t.Fatalf("row %d: %v, want %v", from+i, got[from+i], rows[i])
			}
		}
	}
	seen := map[int]bool{}
	for _, g := range parts[0].Meta.footer.groups {
		for _, c := range g.chunks {
			seen[c.dataEncoding] = true
		}
	}
	if !seen[encPlain] || !seen[encDelta] || !seen[encDictionary] {
		t.Errorf("encodings %v", seen)
	}
}

func TestParquetSchema(t *testing.T) {
	l := compile(t, tradeSchema(), "trade_date")
	arena, ends := trades(100, 1)
	parts := build(t, l, l.NewDecoder().Decode(arena, ends, 1))
	pf, err := file.NewParquetReader(bytes.NewReader(parts[0].Data))
	if err != nil {
		t.Fatal(err)
	}
	s := pf.MetaData().Schema
	for i, f := range l.schema.Fields {
		c := s.Column(i)
		if c.Name() != f.Name || int(c.SchemaNode().FieldID()) != f.ID {
			t.Errorf("column %d: %s id %d, want %s %d", i, c.Name(), c.SchemaNode().FieldID(), f.Name, f.ID)
		}
	}
	for i, want := range map[int]string{5: "Timestamp(isAdjustedToUTC=true, timeUnit=microseconds", 6: "Decimal(precision=18, scale=4)", 16: "Date", 0: "String"} {
		if got := s.Column(i).LogicalType().String(); !strings.HasPrefix(got, want) {
			t.Errorf("column %d: %s, want %s", i, got, want)
		}
	}
	if v := *pf.MetaData().KeyValueMetadata().FindValue(icebergKey); !strings.Contains(v, `{"id":7,"name":"price","required":true,"type":"decimal(18, 4)"}`) {
		t.Errorf("iceberg.schema %s", v)
	}
	stats, err := pf.MetaData().RowGroup(0).ColumnChunk(0)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := stats.StatsSet(); !ok || err != nil {
		t.Errorf("arrow-go sees no statistics: %v", err)
	}
	if parts[0].Partition != 20780 || !parts[0].HasPartition {
		t.Errorf("partition %d %t", parts[0].Partition, parts[0].HasPartition)
	}
}

func TestConcat(t *testing.T) {
	l := compile(t, wideSchema(), "")
	d := l.NewDecoder()
	r := rand.New(rand.NewPCG(8, 9))
	var sources []Source
	var want [][]any
	for i := range 5 {
		var docs [][]byte
		for range 50 + r.IntN(100) {
			docs = append(docs, randomDoc(r, false))
		}
		b := d.DecodeDocs(docs, int64(i))
		b.SetOrigin(record.Key{}, record.Offset(1000*i))
		want = append(want, b.rows()...)
		p := build(t, l, b)[0]
		name := filepath.Join(t.TempDir(), "part")
		if err := os.WriteFile(name, p.Data, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		s := Source{ReaderAt: f, Size: int64(len(p.Data))}
		if i%2 == 0 {
			s.Meta = p.Meta
		}
		sources = append(sources, s)
	}
	var out bytes.Buffer
	m, err := Concat(&out, sources)
	if err != nil {
		t.Fatal(err)
	}
	got := readParquet(t, out.Bytes())
	if !reflect.DeepEqual(got, want) {
		t.Error("rows differ after Concat")
	}
	if len(m.SplitOffsets) != 5 {
		t.Errorf("split offsets %v", m.SplitOffsets)
	}
	checkMeta(t, l, Part{Data: out.Bytes(), Meta: m}, got)
	// What Concat wrote can be concatenated again.
	var twice bytes.Buffer
	whole := Source{ReaderAt: bytes.NewReader(out.Bytes()), Size: int64(out.Len())}
	if _, err := Concat(&twice, []Source{whole, whole}); err != nil {
		t.Fatal(err)
	}
	if got := readParquet(t, twice.Bytes()); !reflect.DeepEqual(got, append(slices.Clone(want), want...)) {
		t.Error("rows differ after the second Concat")
	}
	arena, ends := trades(10, 1)
	other := compile(t, tradeSchema(), "")
	p := build(t, other, other.NewDecoder().Decode(arena, ends, 1))[0]
	if _, err := Concat(&twice, []Source{whole, {ReaderAt: bytes.NewReader(p.Data), Size: int64(len(p.Data))}}); !errors.Is(err, ErrSchemaDiffers) {
		t.Errorf("files of different schemas: %v", err)
	}
}

// TestMetaFromParquet reads the footer of a file that another writer made.
func TestMetaFromParquet(t *testing.T) {
	id := func(n int) arrow.Metadata {
		return arrow.NewMetadata([]string{"PARQUET:field_id"}, []string{fmt.Sprint(n)})
	}
	sc := arrow.NewSchema([]arrow.Field{
		{Name: "n", Type: arrow.PrimitiveTypes.Int32, Nullable: true, Metadata: id(1)},
		{Name: "amount", Type: &arrow.Decimal128Type{Precision: 18, Scale: 4}, Nullable: true, Metadata: id(2)},
		{Name: "extra", Type: arrow.BinaryTypes.String, Metadata: id(9)},
		{Name: "name", Type: arrow.BinaryTypes.String, Nullable: true, Metadata: id(3)},
	}, nil)
	var out bytes.Buffer
	w, err := pqarrow.NewFileWriter(sc, &out, parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Zstd)), pqarrow.DefaultWriterProps())
	if err != nil {
		t.Fatal(err)
	}
	rb := array.NewRecordBuilder(memory.DefaultAllocator, sc)
	for i := range 10 {
		rb.Field(0).(*array.Int32Builder).Append(int32(i - 5))
		if err := rb.Field(1).(*array.Decimal128Builder).AppendValueFromString(fmt.Sprintf("%d.5", 100*i-200)); err != nil {
			t.Fatal(err)
		}
		rb.Field(2).(*array.StringBuilder).Append("x")
		rb.Field(3).(*array.StringBuilder).AppendNull()
	}
	if err := w.Write(rb.NewRecordBatch()); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	schema := record.Schema{ID: 4, Fields: []record.Field{{ID: 1, Name: "n", Type: typ(record.Long)}, {ID: 2, Name: "amount", Type: dec(18, 4)}, {ID: 3, Name: "name", Type: typ(record.String)}, {ID: 5, Name: "later", Type: typ(record.Date)}}}
	m, err := MetaFromParquet(bytes.NewReader(out.Bytes()), int64(out.Len()), schema)
	if err != nil {
		t.Fatal(err)
	}
	if m.SchemaID != 4 || m.Rows != 10 || len(m.Columns) != 3 {
		t.Fatalf("%+v", m)
	}
	if c := m.Columns[0]; !bytes.Equal(c.Lower, single(typ(record.Long), int64(-5), false)) || !bytes.Equal(c.Upper, single(typ(record.Long), int64(4), true)) {
		t.Errorf("%+v", c)
	}
	if c := m.Columns[1]; !bytes.Equal(c.Lower, single(dec(18, 4), int64(-2005000), false)) || !bytes.Equal(c.Upper, single(dec(18, 4), int64(7005000), true)) {
		t.Errorf("%x %x", c.Lower, c.Upper)
	}
	if c := m.Columns[2]; c.Nulls != 10 || c.Lower != nil {
		t.Errorf("%+v", c)
	}
	schema.Fields[3].Required = true
	if _, err := MetaFromParquet(bytes.NewReader(out.Bytes()), int64(out.Len()), schema); !errors.Is(err, ErrFooter) {
		t.Errorf("a required field that is not there: %v", err)
	}
	if _, err := ReadMeta(bytes.NewReader(out.Bytes()), int64(out.Len())); !errors.Is(err, ErrFooter) {
		t.Errorf("ReadMeta of a foreign file: %v", err)
	}
}

func TestTruncateUp(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"short", "short"},
		{"0123456789abcdef", "0123456789abcdef"},
		{"0123456789abcdefg", "0123456789abcdeg"},
		{"0123456789abcd€x", "0123456789abce"},
		{"0123456789abcde\U0010FFFFx", "0123456789abcdf"},
		{"0123456789ab\U0010FFFFx", "0123456789ac"},
		{"0123456789abc\uD7FFx", "0123456789abc\uE000"},
		{strings.Repeat("\U0010FFFF", 5), ""},
	} {
		if got := string(truncateUp([]byte(c.in), 16)); got != c.want || got != "" && got < c.in {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
}

// TestCompareSigned compares numbers of different lengths.
func TestCompareSigned(t *testing.T) {
	enc := func(x int64, n int) []byte {
		return binary.BigEndian.AppendUint64(nil, uint64(x))[8-n:]
	}
	values := [][]byte{enc(-70000, 8), enc(-300, 4), enc(-129, 2), enc(-128, 1), enc(-1, 8), enc(0, 1), enc(1, 4), enc(127, 1), enc(128, 2), enc(70000, 4)}
	for i, a := range values {
		for k, b := range values {
			if got := compareSigned(a, b); (got < 0) != (i < k) || (got > 0) != (i > k) {
				t.Errorf("compare %x %x: %d", a, b, got)
			}
		}
	}
}

func FuzzReadMeta(f *testing.F) {
	l := compile(f, wideSchema(), "")
	r := rand.New(rand.NewPCG(5, 5))
	var docs [][]byte
	for range 20 {
		docs = append(docs, randomDoc(r, false))
	}
	p := build(f, l, l.NewDecoder().DecodeDocs(docs, 1))[0]
	f.Add(p.Data)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ReadMeta(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		var out bytes.Buffer
		if _, err := Concat(&out, []Source{{bytes.NewReader(data), int64(len(data)), m}}); err != nil {
			t.Fatal(err)
		}
		if _, err := MetaFromParquet(bytes.NewReader(out.Bytes()), int64(out.Len()), l.schema); err != nil && !errors.Is(err, ErrFooter) {
			t.Fatal(err)
		}
	})
}
