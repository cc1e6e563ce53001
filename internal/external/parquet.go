package external

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	parquetgo "github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"github.com/tapehouse/tapehouse/internal/serde"
)

// StepKind says what is done to a value of a file.
type StepKind uint8

// The kinds of Step.
const (
	Same   StepKind = iota // nothing
	Cast                   // a cast that loses nothing
	Decode                 // bytes that are text
	Struct                 // Parts are the fields, in their declared order
	List                   // Parts[0] is the element
	Map                    // Parts are key and value
)

// Step makes a value of the declared type of one that a file holds.
type Step struct {
	Kind  StepKind
	Parts []Source
}

// Source is where a column's values come from.
type Source struct {
	Name string // of the file's column or the struct's field; "": there is none, and the value is null
	Step Step
}

// Layout says how a file's columns become the table's.
type Layout struct {
	Columns []Source // one for each of Table.Columns
	Names   []string // of all columns of the file
}

// footer is what is known of a Parquet file.
type footer struct {
	rows   int64
	schema *fileSchema
}

// fileSchema is a Parquet file's schema.
type fileSchema struct {
	fingerprint string
	fields      []column
}

// column is a column of a Parquet file, or a part of one.
type column struct {
	name  string
	class class
	parts []column // of struct, list, map
	bits  int      // integers
	// unsigned, and precision and scale of decimals
	unsigned         bool
	precision, scale int
	other            string // how Arrow spells the type
}

type class uint8

const (
	classOther class = iota
	classNull
	classBoolean
	classInteger
	classFloat
	classDouble
	classDecimal
	classText  // annotated as text
	classBytes // not annotated
	classDate
	classTimestamp
	classUUID
	classStruct
	classList
	classMap
)

var classNames = map[class]string{classNull: "null", classBoolean: "boolean", classFloat: "float", classDouble: "double", classText: "string", classBytes: "binary", classDate: "date",
	classTimestamp: "timestamp", classUUID: "uuid"}

// String spells the type, for messages.
func (c *column) String() string {
	switch c.class {
	case classInteger:
		sign := ""
		if c.unsigned {
			sign = "unsigned "
		}
		return fmt.Sprintf("%sinteger of %d bits", sign, c.bits)
	case classDecimal:
		return fmt.Sprintf("decimal(%d,%d)", c.precision, c.scale)
	case classList:
		return "list<" + c.parts[0].String() + ">"
	case classMap:
		return "map<" + c.parts[0].String() + "," + c.parts[1].String() + ">"
	case classStruct:
		fields := make([]string, len(c.parts))
		for i := range c.parts {
			fields[i] = c.parts[i].name + ":" + c.parts[i].String()
		}
		return "struct<" + strings.Join(fields, ",") + ">"
	}
	if name, ok := classNames[c.class]; ok {
		return name
	}
	return c.other
}

// readFooter reads what a Parquet file says of itself.
func (r *Reader) readFooter(in parquetgo.ReaderAtSeeker) (f footer, err error) {
	defer func() {
		if p := recover(); p != nil { // the library's answer to some malformed footers
			err = fmt.Errorf("its footer is malformed: %v", p)
		}
	}()
	p, err := file.NewParquetReader(in)
	if err != nil {
		return footer{}, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	text := p.MetaData().Schema.String()
	sum := sha256.Sum256([]byte(text))
	key := string(sum[:])
	s, ok := r.schemas.Get(key)
	if !ok {
		if s, err = newFileSchema(key, p.MetaData().Schema); err != nil {
			return footer{}, err
		}
		r.schemas.Add(key, s)
	}
	return footer{rows: p.NumRows(), schema: s}, nil
}

func newFileSchema(key string, s *schema.Schema) (*fileSchema, error) {
	m, err := pqarrow.NewSchemaManifest(s, nil, nil)
	if err != nil {
		return nil, err
	}
	out := &fileSchema{fingerprint: key}
	for i := range m.Fields {
		out.fields = append(out.fields, columnOf(&m.Fields[i], s))
	}
	return out, nil
}

func columnOf(f *pqarrow.SchemaField, s *schema.Schema) column {
	c := column{name: f.Field.Name, other: f.Field.Type.String()}
	switch t := f.Field.Type.(type) {
	case *arrow.StructType:
		c.class = classStruct
		for i := range f.Children {
			c.parts = append(c.parts, columnOf(&f.Children[i], s))
		}
		return c
	case *arrow.MapType:
		if len(f.Children) == 1 && len(f.Children[0].Children) == 2 {
			c.class = classMap
			c.parts = []column{columnOf(&f.Children[0].Children[0], s), columnOf(&f.Children[0].Children[1], s)}
		}
		return c
	case *arrow.ListType, *arrow.FixedSizeListType:
		if len(f.Children) == 1 {
			c.class, c.parts = classList, []column{columnOf(&f.Children[0], s)}
		}
		return c
	case *arrow.TimestampType:
		c.class = classTimestamp
		return c
	case *arrow.Decimal128Type:
		c.class, c.precision, c.scale = classDecimal, int(t.Precision), int(t.Scale)
		return c
	}
	if f.ColIndex < 0 || f.ColIndex >= s.NumColumns() {
		return c
	}
	leaf := s.Column(f.ColIndex)
	switch leaf.PhysicalType() {
	case parquetgo.Types.Boolean:
		c.class = classBoolean
	case parquetgo.Types.Float:
		c.class = classFloat
	case parquetgo.Types.Double:
		c.class = classDouble
	case parquetgo.Types.Int32, parquetgo.Types.Int64:
		c.class = integerClass(f.Field.Type, &c)
	case parquetgo.Types.ByteArray:
		c.class = bytesClass(leaf)
	case parquetgo.Types.FixedLenByteArray:
		switch leaf.LogicalType().(type) {
		case schema.UUIDLogicalType, *schema.UUIDLogicalType:
			c.class = classUUID
		case nil, schema.NoLogicalType, *schema.NoLogicalType, schema.UnknownLogicalType:
			c.class = classBytes
		}
	}
	if f.Field.Type.ID() == arrow.NULL {
		c.class = classNull
	}
	return c
}

func integerClass(t arrow.DataType, c *column) class {
	switch t.ID() {
	case arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64, arrow.UINT8, arrow.UINT16, arrow.UINT32, arrow.UINT64:
		c.bits = t.(arrow.FixedWidthDataType).BitWidth()
		c.unsigned = arrow.IsUnsignedInteger(t.ID())
		return classInteger
	case arrow.DATE32:
		return classDate
	}
	return classOther
}

func bytesClass(leaf *schema.Column) class {
	switch leaf.LogicalType().(type) {
	case schema.StringLogicalType, *schema.StringLogicalType, schema.EnumLogicalType, *schema.EnumLogicalType, schema.JSONLogicalType, *schema.JSONLogicalType:
		return classText
	case nil, schema.NoLogicalType, *schema.NoLogicalType, schema.UnknownLogicalType:
		switch leaf.ConvertedType() {
		case schema.ConvertedTypes.UTF8, schema.ConvertedTypes.Enum, schema.ConvertedTypes.JSON:
			return classText
		}
		return classBytes
	}
	return classOther
}

// layout matches the table's columns with a file's, by name without regard to
// case. name is how messages call the file.
func (t *Table) layout(s *fileSchema, name string) (*Layout, error) {
	l := &Layout{Columns: make([]Source, len(t.Columns)), Names: make([]string, len(s.fields))}
	for i := range s.fields {
		l.Names[i] = s.fields[i].name
	}
	for i, c := range t.Columns {
		found, err := pick(s.fields, c.Name)
		if err != nil {
			return nil, fail(ErrData, "write the files with distinct names", "file %s: %v", name, err)
		}
		if found == nil || found.class == classNull {
			continue
		}
		step, why := match(c.Type, found)
		if why != "" {
			if why != incompatible {
				why = ": " + why
			} else {
				why = ""
			}
			return nil, fail(ErrData, "declare the column with a type that holds every value of the file's", "file %s: the column %q is %s in the file, and %s in table %s%s",
				name, c.Name, found, c.Type, t.Name, why)
		}
		l.Columns[i] = Source{found.name, step}
	}
	return l, nil
}

// pick finds the field of a name, without regard to case; nil if there is none.
func pick(fields []column, name string) (*column, error) {
	var found *column
	for i := range fields {
		if strings.EqualFold(fields[i].name, name) {
			if found != nil {
				return nil, fmt.Errorf("its columns %q and %q both stand for %q", found.name, fields[i].name, name)
			}
			found = &fields[i]
		}
	}
	return found, nil
}

const incompatible = "incompatible"

// match is how a file's column becomes the declared type, if no value can be lost
// by that; why it cannot otherwise.
func match(t *serde.Type, c *column) (step Step, why string) {
	same, cast := Step{Kind: Same}, Step{Kind: Cast}
	refuse := Step{}
	switch t.Kind {
	case serde.Boolean:
		if c.class == classBoolean {
			return same, ""
		}
	case serde.TinyInt, serde.SmallInt, serde.Int, serde.BigInt:
		bits := 8 << (t.Kind - serde.TinyInt)
		switch {
		case c.class == classInteger && (c.bits < bits || c.bits == bits && !c.unsigned):
			return cast, ""
		case c.class == classDecimal && c.scale == 0 && c.precision < integerDigits(bits, false):
			return cast, ""
		}
	case serde.Float:
		if c.class == classFloat || c.class == classInteger && c.bits <= 16 {
			return cast, ""
		}
	case serde.Double:
		if c.class == classDouble || c.class == classFloat || c.class == classInteger && c.bits <= 32 {
			return cast, ""
		}
	case serde.Decimal:
		switch {
		case c.class == classDecimal && c.scale <= t.Scale && c.precision-c.scale <= t.Precision-t.Scale:
			return cast, ""
		case c.class == classInteger && integerDigits(c.bits, c.unsigned) <= t.Precision-t.Scale:
			return cast, ""
		}
	case serde.String, serde.Varchar, serde.Char:
		switch c.class {
		case classText, classUUID:
			return cast, ""
		case classBytes:
			return Step{Kind: Decode}, ""
		}
	case serde.Binary:
		if c.class == classBytes {
			return same, ""
		}
	case serde.Date:
		if c.class == classDate {
			return same, ""
		}
	case serde.Timestamp:
		if c.class == classTimestamp || c.class == classDate {
			return cast, ""
		}
	case serde.Array:
		if c.class == classList {
			part, why := match(t.Element, &c.parts[0])
			if c.parts[0].class == classNull {
				part, why = cast, ""
			}
			return Step{Kind: List, Parts: []Source{{Name: "element", Step: part}}}, why
		}
	case serde.Map:
		if c.class == classMap {
			key, why := match(t.Key, &c.parts[0])
			if why != "" {
				return refuse, why
			}
			value, why := match(t.Element, &c.parts[1])
			if c.parts[1].class == classNull {
				value, why = cast, ""
			}
			return Step{Kind: Map, Parts: []Source{{"key", key}, {"value", value}}}, why
		}
	case serde.Struct:
		if c.class == classStruct {
			step := Step{Kind: Struct, Parts: make([]Source, len(t.Fields))}
			for i, f := range t.Fields {
				found, err := pick(c.parts, f.Name)
				if err != nil {
					return refuse, err.Error()
				}
				if found == nil || found.class == classNull {
					continue
				}
				part, why := match(f.Type, found)
				if why == incompatible {
					why = fmt.Sprintf("its field %q is %s and %s", f.Name, found, f.Type)
				}
				if why != "" {
					return refuse, why
				}
				step.Parts[i] = Source{found.name, part}
			}
			return step, ""
		}
	}
	return refuse, incompatible
}

// integerDigits is how many decimal digits integers of so many bits have at most.
func integerDigits(bits int, unsigned bool) int {
	switch {
	case bits == 64 && unsigned:
		return 20
	case bits == 64:
		return 19
	case bits == 32:
		return 10
	case bits == 16:
		return 5
	}
	return 3
}
