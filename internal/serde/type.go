package serde

import (
	"fmt"
	"strconv"
	"strings"
)

// Kind is a Hive type's kind.
type Kind uint8

// The kinds.
const (
	Boolean   Kind = iota + 1
	TinyInt        // 8 bits
	SmallInt       // 16 bits
	Int            // 32 bits
	BigInt         // 64 bits
	Float          // 32 bits
	Double         // 64 bits
	Decimal        // exact, Precision and Scale
	String         // UTF-8
	Varchar        // UTF-8 of at most Length characters
	Char           // the same; never padded
	Binary         // base64 in JSON
	Date           // days
	Timestamp      // nanoseconds, without a zone
	Array          // of Element
	Map            // of Key, a scalar, to Element
	Struct         // of Fields
)

// Type is a column's type in the Glue Data Catalog, which is Hive's.
type Type struct {
	Kind             Kind
	Precision, Scale int
	Length           int
	Key, Element     *Type
	Fields           []Column
}

// Column is a column of a table, or a field of a struct.
type Column struct {
	Name string
	Type *Type
}

// The limits of types.
const (
	typeBytesMax        = 131072 // of a type's text, as Glue has it
	typeDepthMax        = 32
	leavesMax           = 10_000 // scalars in a table's columns
	decimalPrecisionMax = 38
	varcharLengthMax    = 65535
	charLengthMax       = 255
)

var scalarKinds = map[string]Kind{
	"boolean": Boolean, "tinyint": TinyInt, "smallint": SmallInt, "int": Int, "integer": Int, "bigint": BigInt,
	"float": Float, "real": Float, "double": Double, "double precision": Double, "string": String, "binary": Binary,
	"date": Date, "timestamp": Timestamp,
}

var kindNames = map[Kind]string{
	Boolean: "boolean", TinyInt: "tinyint", SmallInt: "smallint", Int: "int", BigInt: "bigint", Float: "float",
	Double: "double", String: "string", Binary: "binary", Date: "date", Timestamp: "timestamp",
}

// String is Hive's spelling of the type.
func (t *Type) String() string {
	switch t.Kind {
	case Decimal:
		return fmt.Sprintf("decimal(%d,%d)", t.Precision, t.Scale)
	case Varchar:
		return fmt.Sprintf("varchar(%d)", t.Length)
	case Char:
		return fmt.Sprintf("char(%d)", t.Length)
	case Array:
		return "array<" + t.Element.String() + ">"
	case Map:
		return "map<" + t.Key.String() + "," + t.Element.String() + ">"
	case Struct:
		var b strings.Builder
		b.WriteString("struct<")
		for i, f := range t.Fields {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(f.Name + ":" + f.Type.String())
		}
		b.WriteByte('>')
		return b.String()
	}
	return kindNames[t.Kind]
}

// scalar reports whether the type has no parts.
func (t *Type) scalar() bool { return t.Kind < Array }

// leaves counts the scalars in the type.
func (t *Type) leaves() int {
	switch t.Kind {
	case Array:
		return t.Element.leaves()
	case Map:
		return 1 + t.Element.leaves()
	case Struct:
		n := 0
		for _, f := range t.Fields {
			n += f.Type.leaves()
		}
		return n
	}
	return 1
}

// ParseType reads Hive's spelling of a type, in any case and with spaces between
// its parts. Errors wrap ErrInvalid and name what is not supported.
func ParseType(s string) (*Type, error) {
	if len(s) > typeBytesMax {
		return nil, fmt.Errorf("%w type: %d bytes, above the limit of %d", ErrInvalid, len(s), typeBytesMax)
	}
	p := typeParser{rest: s}
	t, err := p.parse(1)
	if err == nil && p.rest != "" {
		err = fmt.Errorf("%q follows the type", p.rest)
	}
	if err != nil {
		return nil, fmt.Errorf("%w type %.200q: %w", ErrInvalid, s, err)
	}
	return t, nil
}

type typeParser struct{ rest string }

func (p *typeParser) space() { p.rest = strings.TrimLeft(p.rest, " \t\r\n") }

// take consumes c, if it comes next.
func (p *typeParser) take(c byte) bool {
	p.space()
	if p.rest != "" && p.rest[0] == c {
		p.rest = p.rest[1:]
		p.space()
		return true
	}
	return false
}

func (p *typeParser) want(c byte) error {
	if !p.take(c) {
		if p.rest == "" {
			return fmt.Errorf("ends where %q should follow", c)
		}
		return fmt.Errorf("want %q before %.40q", c, p.rest)
	}
	return nil
}

func (p *typeParser) parse(depth int) (*Type, error) {
	if depth > typeDepthMax {
		return nil, fmt.Errorf("nested deeper than %d", typeDepthMax)
	}
	p.space()
	end := strings.IndexAny(p.rest, "<>(),:")
	if end < 0 {
		end = len(p.rest)
	}
	word := strings.ToLower(strings.Join(strings.Fields(p.rest[:end]), " "))
	p.rest = p.rest[end:]
	if k, ok := scalarKinds[word]; ok {
		return &Type{Kind: k}, nil
	}
	switch word {
	case "decimal", "numeric":
		return p.decimal()
	case "varchar":
		return p.sized(Varchar, varcharLengthMax)
	case "char":
		return p.sized(Char, charLengthMax)
	case "array":
		return p.array(depth)
	case "map":
		return p.mapping(depth)
	case "struct":
		return p.structure(depth)
	case "uniontype":
		return nil, fmt.Errorf("uniontype is not supported: use a struct with a field for each alternative")
	case "timestamp with local time zone", "interval", "interval_year_month", "interval_day_time":
		return nil, fmt.Errorf("%s is not supported: use timestamp or bigint", word)
	case "":
		return nil, fmt.Errorf("a type is missing before %.40q", p.rest)
	}
	return nil, fmt.Errorf("type %q is not known", word)
}

func (p *typeParser) number() (int, error) {
	p.space()
	n := 0
	for n < len(p.rest) && p.rest[n]-'0' <= 9 {
		n++
	}
	v, err := strconv.Atoi(p.rest[:n])
	if err != nil {
		return 0, fmt.Errorf("want a number before %.40q", p.rest)
	}
	p.rest = p.rest[n:]
	return v, nil
}

func (p *typeParser) decimal() (*Type, error) {
	t := &Type{Kind: Decimal, Precision: 10}
	if !p.take('(') {
		return t, nil
	}
	var err error
	if t.Precision, err = p.number(); err != nil {
		return nil, err
	}
	if p.take(',') {
		if t.Scale, err = p.number(); err != nil {
			return nil, err
		}
	}
	if err := p.want(')'); err != nil {
		return nil, err
	}
	if t.Precision < 1 || t.Precision > decimalPrecisionMax || t.Scale > t.Precision {
		return nil, fmt.Errorf("%s: want a precision of 1 to %d and a scale within it", t, decimalPrecisionMax)
	}
	return t, nil
}

func (p *typeParser) sized(k Kind, longest int) (*Type, error) {
	t := &Type{Kind: k}
	err := p.want('(')
	if err == nil {
		if t.Length, err = p.number(); err == nil {
			err = p.want(')')
		}
	}
	if err != nil {
		return nil, err
	}
	if t.Length < 1 || t.Length > longest {
		return nil, fmt.Errorf("%s: want a length of 1 to %d", t, longest)
	}
	return t, nil
}

func (p *typeParser) array(depth int) (*Type, error) {
	err := p.want('<')
	if err != nil {
		return nil, err
	}
	t := &Type{Kind: Array}
	if t.Element, err = p.parse(depth + 1); err != nil {
		return nil, err
	}
	return t, p.want('>')
}

func (p *typeParser) mapping(depth int) (*Type, error) {
	err := p.want('<')
	if err != nil {
		return nil, err
	}
	t := &Type{Kind: Map}
	if t.Key, err = p.parse(depth + 1); err != nil {
		return nil, err
	}
	if !t.Key.scalar() {
		return nil, fmt.Errorf("a map's key is %s: want a scalar", t.Key)
	}
	if err := p.want(','); err != nil {
		return nil, err
	}
	if t.Element, err = p.parse(depth + 1); err != nil {
		return nil, err
	}
	return t, p.want('>')
}

func (p *typeParser) structure(depth int) (*Type, error) {
	if err := p.want('<'); err != nil {
		return nil, err
	}
	t := &Type{Kind: Struct}
	seen := map[string]bool{}
	for {
		p.space()
		end := strings.IndexAny(p.rest, ":<>,")
		if end < 0 || p.rest[end] != ':' {
			return nil, fmt.Errorf("want NAME:TYPE before %.40q", p.rest)
		}
		name := strings.TrimSpace(p.rest[:end])
		if n := len(name); n >= 2 && name[0] == '`' && name[n-1] == '`' {
			name = name[1 : n-1]
		}
		if name == "" {
			return nil, fmt.Errorf("a struct's field has no name")
		}
		if key := strings.ToLower(name); seen[key] {
			return nil, fmt.Errorf("a struct has two fields %q", name)
		} else {
			seen[key] = true
		}
		p.rest = p.rest[end+1:]
		field, err := p.parse(depth + 1)
		if err != nil {
			return nil, err
		}
		t.Fields = append(t.Fields, Column{name, field})
		if !p.take(',') {
			return t, p.want('>')
		}
	}
}
