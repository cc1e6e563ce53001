// Package serde converts records from JSON to Parquet as Data Firehose's record
// format conversion does: by a table's columns of Hive types, with the semantics of
// the OpenX or the Hive JSON SerDe, and the Parquet SerDe's options.
//
// A record holds one document, or several, one behind the other; each is one row. A
// record is converted whole or not at all: the first document that does not fit makes
// the whole record an error, a *RecordError with Firehose's code.
//
// # Reading
//
// Documents are read by RFC 8259. Of a member that stands twice the last counts.
// Refused as ParseError: bytes that are no UTF-8, escaped halves of surrogate pairs,
// nesting beyond DepthMax, NaN and Infinity, and an empty record. Missing
// members and null are null; members that no column has are passed over.
//
// What a type takes (OpenX / Hive; "number" is a JSON number, "text" a JSON string):
//
//	boolean           true, false; OpenX also text "true", "false" in any case
//	tinyint … bigint  number whose value is an integer in range (1.0 and 1e2 are); OpenX also as text
//	float, double     number, to the nearest value; OpenX also as text
//	decimal(p,s)      number of exactly that value; OpenX also as text
//	string            text; number and boolean as they are written; OpenX also objects and arrays, as JSON
//	varchar, char     the same, of at most n characters; char is not padded
//	binary            text: base64 (RFC 4648, padded)
//	date              text yyyy-[M]M-[d]d
//	timestamp         OpenX: yyyy-MM-ddTHH:mm:ss[.f][Z], yyyy-[M]M-[d]d [H]H:[m]m:[s]s[.f], and epochs as
//	                  number or text: seconds below 10¹², milliseconds from there on
//	                  Hive: TimestampFormats (see joda.go), then the second form of OpenX
//	array             array; OpenX: anything else becomes an array of one
//	map               object
//	struct            object; OpenX also an array, by position
//
// Nothing is changed unseen: numbers out of range, digits beyond a decimal's scale,
// instants beyond 64 bits of nanoseconds (which AWS wraps into another century) and texts
// longer than a varchar (which Hive cuts) are refused as MalformedData.
//
// Names are compared without regard to case at every depth, unless OpenX's
// CaseInsensitive is false; with it, OpenX also lowers the keys of maps.
//
// # Writing
//
// See Writer, and docs/formats/object.md.
package serde

import (
	"errors"
	"fmt"
	"strings"
)

// ErrInvalid is the root of every error about types, columns and options, for
// whoever configures the stream.
var ErrInvalid = errors.New("invalid")

// The codes of Firehose's error output.
const (
	ParseError    = "DataFormatConversion.ParseError"    // not JSON
	MalformedData = "DataFormatConversion.MalformedData" // JSON that does not fit the columns
)

// RecordError says why a record was not converted.
type RecordError struct {
	Code    string // ParseError or MalformedData
	Member  string // the member at fault, as in "order.legs[2].price"; "" if none
	Message string // Firehose's lastErrorMessage: what, where and why
}

func (e *RecordError) Error() string { return e.Code + ": " + e.Message }

// OpenX is OpenXJsonSerDe.
type OpenX struct {
	// ConvertDotsInJSONKeysToUnderscores compares names with '.' read as '_'.
	ConvertDotsInJSONKeysToUnderscores bool
	// CaseSensitive is the opposite of the API's CaseInsensitive, whose default
	// is true.
	CaseSensitive bool
	// ColumnToJSONKeyMappings names the JSON key of columns whose name is
	// another. It speaks of columns, not of the fields of structs; a mapping of a
	// column that the table has not is passed over.
	ColumnToJSONKeyMappings map[string]string
}

// Hive is HiveJsonSerDe.
type Hive struct {
	// TimestampFormats are tried in order: Joda patterns, and "millis".
	TimestampFormats []string
}

// Deserializer is one of the two.
type Deserializer struct {
	OpenX *OpenX
	Hive  *Hive
}

// Converter reads records by a table's columns. It is immutable and safe for
// concurrent use.
type Converter struct {
	columns []Column
	root    plan // a struct of the columns
	rules   rules
	formats []*jodaFormat
	text    Text // of AppendText
}

// rules are the switches of the deserializer.
type rules struct {
	lenient  bool // OpenX: text in numbers, single values in arrays, …
	fold     bool // names without regard to case
	foldKeys bool // maps' keys are lowered
	dots     bool // names with '.' read as '_'
	micros   bool // timestamps are microseconds
}

// name is the form in which names are compared.
func (r rules) name(s string) string {
	if r.fold {
		s = strings.ToLower(s)
	}
	if r.dots {
		s = strings.ReplaceAll(s, ".", "_")
	}
	return s
}

// plan is a type, compiled.
type plan struct {
	typ    *Type
	fields map[string]int // struct: name in compared form → field
	parts  []plan         // struct: fields; array: element; map: key, element
	limit  uint128        // decimal: 10^precision
}

// NewConverter compiles a table's columns, partition keys not among them. Errors wrap
// ErrInvalid.
func NewConverter(columns []Column, d Deserializer) (*Converter, error) {
	c := &Converter{columns: columns}
	mappings := map[string]string{}
	switch {
	case d.OpenX != nil && d.Hive == nil:
		c.rules = rules{lenient: true, fold: !d.OpenX.CaseSensitive, foldKeys: !d.OpenX.CaseSensitive, dots: d.OpenX.ConvertDotsInJSONKeysToUnderscores}
		mappings = d.OpenX.ColumnToJSONKeyMappings
	case d.Hive != nil && d.OpenX == nil:
		c.rules = rules{fold: true}
		for _, s := range d.Hive.TimestampFormats {
			f, err := parseJoda(s)
			if err != nil {
				return nil, err
			}
			c.formats = append(c.formats, f)
		}
	default:
		return nil, fmt.Errorf("%w deserializer: want exactly one of OpenXJsonSerDe and HiveJsonSerDe", ErrInvalid)
	}
	if len(columns) == 0 {
		return nil, fmt.Errorf("%w table: it has no columns", ErrInvalid)
	}
	leaves := 0
	seen := map[string]bool{}
	for _, col := range columns {
		if col.Name == "" {
			return nil, fmt.Errorf("%w column: it has no name", ErrInvalid)
		}
		if key := strings.ToLower(col.Name); seen[key] {
			return nil, fmt.Errorf("%w column %q: stands twice", ErrInvalid, col.Name)
		} else {
			seen[key] = true
		}
		if d.Hive != nil && strings.Contains(col.Name, ".") {
			return nil, fmt.Errorf("%w column %q: HiveJsonSerDe does not allow periods in column names: use OpenXJsonSerDe", ErrInvalid, col.Name)
		}
		leaves += col.Type.leaves()
	}
	if leaves > leavesMax {
		return nil, fmt.Errorf("%w table: %d scalars in its columns, above the limit of %d", ErrInvalid, leaves, leavesMax)
	}
	root, err := compile(&Type{Kind: Struct, Fields: columns}, c.rules, mappings)
	if err != nil {
		return nil, err
	}
	c.root = root
	return c, nil
}

// compile resolves names. mappings are those of columns; nil within them.
func compile(t *Type, r rules, mappings map[string]string) (plan, error) {
	p := plan{typ: t}
	switch t.Kind {
	case Decimal:
		p.limit = pow10(t.Precision)
	case Array, Map:
		for _, part := range []*Type{t.Key, t.Element} {
			if part == nil {
				continue
			}
			x, err := compile(part, r, nil)
			if err != nil {
				return plan{}, err
			}
			p.parts = append(p.parts, x)
		}
	case Struct:
		p.fields = make(map[string]int, len(t.Fields))
		for i, f := range t.Fields {
			key := f.Name
			if mapped, ok := mappings[f.Name]; ok {
				key = mapped
			}
			key = r.name(key)
			if other, taken := p.fields[key]; taken {
				return plan{}, fmt.Errorf("%w columns: %q and %q both read the JSON key %q", ErrInvalid, t.Fields[other].Name, f.Name, key)
			}
			p.fields[key] = i
			x, err := compile(f.Type, r, nil)
			if err != nil {
				return plan{}, err
			}
			p.parts = append(p.parts, x)
		}
	}
	return p, nil
}

// Columns are the table's. The caller does not change them.
func (c *Converter) Columns() []Column { return c.columns }
