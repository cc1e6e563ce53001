package external

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"github.com/tapehouse/tapehouse/internal/hive"
)

func field(name string, t arrow.DataType) arrow.Field {
	return arrow.Field{Name: name, Type: t, Nullable: true}
}

// TestParquetTypes holds for each type of a file into which declared types it is
// read, and that it is refused into all others with both types' names.
func TestParquetTypes(t *testing.T) {
	all := []string{"boolean", "tinyint", "smallint", "int", "bigint", "float", "double", "decimal(5,2)", "decimal(12,2)", "decimal(20,0)", "decimal(22,2)", "decimal(38,10)", "string", "varchar(10)", "binary",
		"date", "timestamp", "array<int>", "map<string,int>", "struct<a:int>"}
	decimal := func(p, s int32) arrow.DataType { return &arrow.Decimal128Type{Precision: p, Scale: s} }
	for _, c := range []struct {
		typ   arrow.DataType
		value string
		want  string // declared types, with the step where it is another than a cast
	}{
		{arrow.FixedWidthTypes.Boolean, "true", "boolean"},
		{arrow.PrimitiveTypes.Int8, "1", "tinyint smallint int bigint float double decimal(5,2) decimal(12,2) decimal(20,0) decimal(22,2) decimal(38,10)"},
		{arrow.PrimitiveTypes.Int16, "1", "smallint int bigint float double decimal(12,2) decimal(20,0) decimal(22,2) decimal(38,10)"},
		{arrow.PrimitiveTypes.Int32, "1", "int bigint double decimal(12,2) decimal(20,0) decimal(22,2) decimal(38,10)"},
		{arrow.PrimitiveTypes.Int64, "1", "bigint decimal(20,0) decimal(22,2) decimal(38,10)"},
		{arrow.PrimitiveTypes.Uint8, "1", "smallint int bigint float double decimal(5,2) decimal(12,2) decimal(20,0) decimal(22,2) decimal(38,10)"},
		{arrow.PrimitiveTypes.Uint16, "1", "int bigint float double decimal(12,2) decimal(20,0) decimal(22,2) decimal(38,10)"},
		{arrow.PrimitiveTypes.Uint32, "1", "bigint double decimal(12,2) decimal(20,0) decimal(22,2) decimal(38,10)"},
		{arrow.PrimitiveTypes.Uint64, "1", "decimal(20,0) decimal(22,2) decimal(38,10)"},
		{arrow.PrimitiveTypes.Float32, "1", "float double"},
		{arrow.PrimitiveTypes.Float64, "1", "double"},
		{decimal(5, 2), `"1.25"`, "decimal(5,2) decimal(12,2) decimal(22,2) decimal(38,10)"},
		{decimal(9, 0), `"1"`, "int bigint decimal(12,2) decimal(20,0) decimal(22,2) decimal(38,10)"},
		{decimal(18, 0), `"1"`, "bigint decimal(20,0) decimal(22,2) decimal(38,10)"},
		{decimal(20, 4), `"1.2500"`, "decimal(38,10)"},
		{decimal(38, 18), `"1"`, ""},
		{arrow.BinaryTypes.String, `"x"`, "string varchar(10)"},
		{arrow.BinaryTypes.Binary, `"eA=="`, "string:2 varchar(10):2 binary"},
		{&arrow.FixedSizeBinaryType{ByteWidth: 1}, `"eA=="`, "string:2 varchar(10):2 binary"},
		{arrow.FixedWidthTypes.Date32, `"2026-01-02"`, "date timestamp"},
		{&arrow.TimestampType{Unit: arrow.Microsecond}, `"2026-01-02 03:04:05"`, "timestamp"},
		{&arrow.TimestampType{Unit: arrow.Millisecond, TimeZone: "UTC"}, `"2026-01-02T03:04:05Z"`, "timestamp"},
		{&arrow.TimestampType{Unit: arrow.Nanosecond}, `"2026-01-02 03:04:05"`, "timestamp"},
		{arrow.FixedWidthTypes.Time64us, `"03:04:05"`, ""},
		{arrow.ListOf(arrow.PrimitiveTypes.Int16), `[1]`, "array<int>"},
		{arrow.ListOf(arrow.PrimitiveTypes.Int64), `[1]`, ""},
		{arrow.MapOf(arrow.BinaryTypes.String, arrow.PrimitiveTypes.Int32), `[{"key":"a","value":1}]`, "map<string,int>"},
		{arrow.StructOf(field("A", arrow.PrimitiveTypes.Int8), field("b", arrow.BinaryTypes.String)), `{"A":1}`, "struct<a:int>"},
		{arrow.StructOf(field("a", arrow.PrimitiveTypes.Float64)), `{"a":1}`, ""},
		{extensions.NewUUIDType(), `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`, "string varchar(10)"},
	} {
		b := newBucketDir(t, nil, nil)
		b.write("t/f.parquet", parquetFile(t, []arrow.Field{field("C", c.typ)}, `[{"C":`+c.value+`}]`))
		wanted := map[string]bool{}
		decoded := map[string]bool{}
		for _, w := range strings.Fields(c.want) {
			name, step, _ := strings.Cut(w, ":2")
			if strings.HasSuffix(w, ":2") {
				decoded[name] = true
			}
			if strings.HasPrefix(w, "struct") || strings.HasPrefix(w, "map") {
				name, step = w, ""
			}
			_ = step
			wanted[name] = true
		}
		for _, declared := range all {
			d := definition(hive.ParquetSerde, nil, "c "+declared)
			if !wanted[declared] {
				b.refused(d, ErrData, "s3://lake/t/f.parquet", `"c" is `, spelt(c.typ)+" in the file", declared, "declare")
				continue
			}
			table, err := b.table(d)
			if err != nil {
				t.Fatal(err)
			}
			f, err := table.Files(t.Context(), nil)
			if err != nil {
				t.Errorf("%s into %s: %v", c.typ, declared, err)
				continue
			}
			if l := f.Files[0].Layout.Columns[0]; l.Name != "C" || decoded[declared] != (l.Step.Kind == Decode) {
				t.Errorf("%s into %s: %+v", c.typ, declared, l)
			}
			f.Release()
		}
	}
}

func spelt(t arrow.DataType) string {
	switch t := t.(type) {
	case *arrow.Decimal128Type:
		return fmt.Sprintf("decimal(%d,%d)", t.Precision, t.Scale)
	case *arrow.ListType:
		return "list<" + spelt(t.Elem()) + ">"
	case *arrow.TimestampType:
		return "timestamp"
	}
	if arrow.IsInteger(t.ID()) {
		sign := ""
		if arrow.IsUnsignedInteger(t.ID()) {
			sign = "unsigned "
		}
		return fmt.Sprintf("%sinteger of %d bits", sign, t.(arrow.FixedWidthDataType).BitWidth())
	}
	return map[arrow.Type]string{arrow.BOOL: "boolean", arrow.FLOAT32: "float", arrow.FLOAT64: "double", arrow.STRING: "string", arrow.BINARY: "binary", arrow.FIXED_SIZE_BINARY: "binary",
		arrow.DATE32: "date", arrow.TIME64: "time64[us]", arrow.MAP: "map<string,integer of 32 bits>", arrow.STRUCT: ">", arrow.EXTENSION: "uuid"}[t.ID()]
}

func TestParquetFiles(t *testing.T) {
	b := newBucketDir(t, nil, nil)
	old := []arrow.Field{field("ID", arrow.PrimitiveTypes.Int32), field("px", &arrow.Decimal128Type{Precision: 9, Scale: 2})}
	b.write("t/1.parquet", parquetFile(t, old, `[{"ID":1,"px":"1.25"},{"ID":2}]`))
	b.write("t/2", parquetFile(t, append(old, field("note", arrow.BinaryTypes.String), field("other", arrow.BinaryTypes.String)), `[{"ID":3,"note":"x"}]`))
	b.write("t/3.parquet", parquetFile(t, old, `[]`))
	b.write("t/4.parquet", nil)
	b.write("t/_SUCCESS", []byte("x"))
	b.write("t/5.parquet", parquetFile(t, []arrow.Field{field("ts", &arrow.TimestampType{Unit: arrow.Nanosecond})}, `[{"ts":"2026-01-02 03:04:05.123456789"}]`, pqarrow.WithDeprecatedInt96Timestamps(true)))
	d := definition(hive.ParquetSerde, nil, "id bigint", "px decimal(18,4)", "note string", "ts timestamp")
	got, err := b.rows(d, nil)
	if err != nil || len(got) != 4 || got[0] != "1|1.25|∅|∅" || got[2] != "3|∅|x|∅" || !strings.HasPrefix(got[3], "∅|∅|∅|2026-01-02T03:04:05.123456789") {
		t.Errorf("%q, %v", got, err)
	}

	b.write("t/6.parquet", parquetFile(t, []arrow.Field{field("id", arrow.PrimitiveTypes.Int32), field("Id", arrow.PrimitiveTypes.Int32)}, `[{"id":3}]`))
	b.refused(d, ErrData, "t/6.parquet", `"id" and "Id"`)
	b.write("t/6.parquet", []byte("PAR1 and nothing of it"))
	b.refused(d, ErrData, "t/6.parquet", "no readable Parquet")
	b.write("t/6.parquet", append([]byte("PAR1"), []byte("\x15\x00garbage\xff\xff\xff\x7fPAR1")...))
	b.refused(d, ErrData, "t/6.parquet")
	b.write("t/6.parquet", []byte("a,b\n1,2\n"))
	b.refused(d, ErrData, "t/6.parquet")
}

// TestParquetPinned: what a statement holds stays what it was.
func TestParquetPinned(t *testing.T) {
	b := newBucketDir(t, nil, nil)
	one := parquetFile(t, []arrow.Field{field("a", arrow.PrimitiveTypes.Int32)}, `[{"a":1}]`)
	d := definition(hive.ParquetSerde, nil, "a int")
	table, err := b.table(d)
	if err != nil {
		t.Fatal(err)
	}
	hold := func() *Files {
		t.Helper()
		b.write("t/f", one)
		f, err := table.Files(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := hold()
	if err := os.Remove(b.dir + "/t/f"); err != nil {
		t.Fatal(err)
	}
	if held, err := os.ReadFile(f.Files[0].Path); err != nil || string(held) != string(one) {
		t.Errorf("a file that was removed: %d bytes, %v", len(held), err)
	}
	if err := f.Unchanged(); err != nil {
		t.Errorf("a file that was removed, and is held: %v", err)
	}
	f.Release()
	f.Release()
	if _, err := os.Stat(f.Files[0].Path); !os.IsNotExist(err) {
		t.Errorf("a released link stays, and with it the disk space of what its owner deleted: %v", err)
	}
	f = hold()
	b.write("t/f", append([]byte(nil), one[:len(one)-1]...)) // written over, in place
	if err := f.Unchanged(); err == nil || !strings.Contains(err.Error(), "s3://lake/t/f") {
		t.Errorf("a file that was written to: %v", err)
	}
	f.Release()
}

func FuzzFooter(f *testing.F) {
	f.Add(parquetFile(f, []arrow.Field{field("a", arrow.PrimitiveTypes.Int32), field("b", arrow.ListOf(arrow.BinaryTypes.String))}, `[{"a":1,"b":["x"]}]`))
	f.Add([]byte("PAR1PAR1"))
	r, err := Open(Options{Dir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = r.readFooter(newSection(b)) // an error, never a panic
	})
}
