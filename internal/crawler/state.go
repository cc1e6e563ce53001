package crawler

import (
	"slices"
	"strings"

	"github.com/tapehouse/tapehouse/internal/serde"
)

// kinds is a set of the kinds of values that a column was seen to hold.
type kinds uint16

const (
	kindBoolean kinds = 1 << iota
	kindInteger       // of typed files: bits is the width
	kindNumber        // of texts: a whole number that 64 bits hold
	kindDecimal       // digits and scale are the bounds
	kindFloat         // 32 bits
	kindDouble
	kindDate
	kindDay // a date that is no timestamp at midnight to its reader
	kindTimestamp
	kindString
	kindVarchar // of tables that somebody else typed: length is the bound
	kindBinary
	kindArray
	kindMap
	kindStruct
)

const (
	kindsWhole   = kindInteger | kindNumber
	kindsExact   = kindsWhole | kindDecimal
	kindsNumeric = kindsExact | kindFloat | kindDouble
	kindsTime    = kindDate | kindTimestamp
)

// The bounds of a state.
const (
	depthMax      = 32    // of nested types
	fieldsMax     = 1_000 // of a struct; an object with more is a map
	columnsMax    = 2_000 // of a table
	precisionMax  = 38
	nameBytesMax  = 255 // of a column, as Glue has it
	typeBytesMax  = 131_072
	longDigits    = 19 // of the greatest bigint
	digitsUnknown = 1_000
)

// State is what is known of the values of one column: which kinds there were, and
// the greatest of each kind's bounds. The zero State has seen no value.
//
// States are joined component by component (union, maximum), so the join is
// commutative, associative and idempotent by construction, whatever order the files
// come in, and nothing that was seen is forgotten: a type that is made from a joined
// state reads everything that its parts read. A State is immutable once it is shared.
type State struct {
	Kinds  kinds   `json:"k,omitempty"`
	Bits   uint8   `json:"b,omitempty"` // of kindInteger: 8, 16, 32, 64
	Digits uint16  `json:"d,omitempty"` // before the point
	Scale  uint16  `json:"s,omitempty"` // digits after the point
	Length int     `json:"l,omitempty"` // of kindVarchar
	Key    *State  `json:"m,omitempty"` // of kindMap
	Elem   *State  `json:"e,omitempty"` // of kindArray and kindMap
	Fields []Field `json:"f,omitempty"` // of kindStruct, in the order of their appearance
}

// Field is a column or a member of a struct.
type Field struct {
	Name  string `json:"n"`
	State *State `json:"t"`
}

var unknown = &State{}

// join returns what both together have seen. It returns a or b itself where the
// other one adds nothing, so that callers see by the pointer whether it did.
func join(a, b *State) *State {
	switch {
	case b == nil || a == b:
		return a
	case a == nil:
		return b
	}
	out := State{
		Kinds: a.Kinds | b.Kinds, Bits: max(a.Bits, b.Bits), Digits: max(a.Digits, b.Digits), Scale: max(a.Scale, b.Scale),
		Length: max(a.Length, b.Length), Key: join(a.Key, b.Key), Elem: join(a.Elem, b.Elem), Fields: joinFields(a.Fields, b.Fields),
	}
	if len(out.Fields) > fieldsMax {
		out.collapse()
	}
	switch {
	case out.same(a):
		return a
	case out.same(b):
		return b
	}
	return &out
}

// collapse makes a map of a struct of too many members: its names are values.
func (s *State) collapse() {
	for _, f := range s.Fields {
		s.Elem = join(s.Elem, f.State)
	}
	s.Key = join(s.Key, &State{Kinds: kindString})
	s.Kinds = s.Kinds&^kindStruct | kindMap
	s.Fields = nil
}

// same compares shallowly: join hands back the parts that did not change.
func (s *State) same(o *State) bool {
	return s.Kinds == o.Kinds && s.Bits == o.Bits && s.Digits == o.Digits && s.Scale == o.Scale && s.Length == o.Length &&
		s.Key == o.Key && s.Elem == o.Elem && slices.Equal(s.Fields, o.Fields)
}

// joinFields joins members by their names; those that only b has come last.
func joinFields(a, b []Field) []Field {
	if len(b) == 0 {
		return a
	}
	if len(a) == 0 {
		return b
	}
	at := make(map[string]int, len(a))
	for i, f := range a {
		at[f.Name] = i
	}
	out, cloned := a, false
	for _, f := range b {
		i, ok := at[f.Name]
		if !ok {
			out = append(out[:len(out):len(out)], f)
			cloned = true
			continue
		}
		if j := join(out[i].State, f.State); j != out[i].State {
			if !cloned {
				out, cloned = slices.Clone(out), true
			}
			out[i].State = j
		}
	}
	// b itself, if a adds nothing to it and no order of its own.
	if cloned && slices.Equal(out, b) {
		return b
	}
	return out
}

// Type is the narrowest Hive type that reads all that was seen, and string, which
// reads everything, where no other does, or where nothing was seen.
func (s *State) Type() *serde.Type { return s.typ(1) }

func (s *State) typ(depth int) *serde.Type {
	str := &serde.Type{Kind: serde.String}
	if s == nil || s.Kinds == 0 || depth > depthMax-2 {
		return str
	}
	k := s.Kinds
	within := func(set kinds) bool { return k&^set == 0 }
	switch {
	case within(kindBoolean):
		return &serde.Type{Kind: serde.Boolean}
	case within(kindsWhole):
		return &serde.Type{Kind: s.whole()}
	case within(kindsExact):
		if int(s.Digits)+int(s.Scale) <= precisionMax {
			return &serde.Type{Kind: serde.Decimal, Precision: max(1, int(s.Digits)+int(s.Scale)), Scale: int(s.Scale)}
		}
	case within(kindFloat):
		return &serde.Type{Kind: serde.Float}
	case within(kindsNumeric):
		// A decimal of more than 38 digits stays text: a double would round it.
		if int(s.Digits)+int(s.Scale) <= precisionMax {
			return &serde.Type{Kind: serde.Double}
		}
	case within(kindDate | kindDay):
		return &serde.Type{Kind: serde.Date}
	case within(kindsTime):
		return &serde.Type{Kind: serde.Timestamp}
	case within(kindVarchar):
		return &serde.Type{Kind: serde.Varchar, Length: s.Length}
	case within(kindBinary):
		return &serde.Type{Kind: serde.Binary}
	case within(kindArray):
		return &serde.Type{Kind: serde.Array, Element: s.Elem.typ(depth + 1)}
	case within(kindStruct):
		if len(s.Fields) > 0 {
			return s.structure(depth)
		}
	case within(kindMap | kindStruct):
		key := s.Key.typ(depth + 1)
		elem := s.Elem
		for _, f := range s.Fields {
			elem = join(elem, f.State)
		}
		if key.Kind < serde.Array && (len(s.Fields) == 0 || key.Kind == serde.String) {
			return &serde.Type{Kind: serde.Map, Key: key, Element: elem.typ(depth + 1)}
		}
	}
	return str
}

func (s *State) structure(depth int) *serde.Type {
	t := &serde.Type{Kind: serde.Struct}
	for _, f := range s.Fields {
		t.Fields = append(t.Fields, serde.Column{Name: f.Name, Type: f.State.typ(depth + 1)})
	}
	return t
}

func (s *State) whole() serde.Kind {
	if s.Kinds&kindNumber != 0 {
		return serde.BigInt
	}
	switch s.Bits {
	case 8:
		return serde.TinyInt
	case 16:
		return serde.SmallInt
	case 32:
		return serde.Int
	}
	return serde.BigInt
}

// typeText is the Hive type as a table has it.
func (s *State) typeText() string {
	text := s.Type().String()
	if len(text) > typeBytesMax {
		return "string"
	}
	return text
}

// fromType is the state of a column that a table declares.
func fromType(t *serde.Type) *State {
	switch t.Kind {
	case serde.Boolean:
		return &State{Kinds: kindBoolean}
	case serde.TinyInt:
		return integer(8)
	case serde.SmallInt:
		return integer(16)
	case serde.Int:
		return integer(32)
	case serde.BigInt:
		return integer(64)
	case serde.Float:
		return &State{Kinds: kindFloat}
	case serde.Double:
		return &State{Kinds: kindDouble}
	case serde.Decimal:
		return decimal(t.Precision-t.Scale, t.Scale)
	case serde.Varchar, serde.Char:
		return &State{Kinds: kindVarchar, Length: t.Length}
	case serde.Binary:
		return &State{Kinds: kindBinary}
	case serde.Date:
		return &State{Kinds: kindDate}
	case serde.Timestamp:
		return &State{Kinds: kindTimestamp}
	case serde.Array:
		return &State{Kinds: kindArray, Elem: fromType(t.Element)}
	case serde.Map:
		return &State{Kinds: kindMap, Key: fromType(t.Key), Elem: fromType(t.Element)}
	case serde.Struct:
		s := &State{Kinds: kindStruct}
		for _, f := range t.Fields {
			s.Fields = append(s.Fields, Field{strings.ToLower(f.Name), fromType(f.Type)})
		}
		return s
	}
	return &State{Kinds: kindString}
}

// parseType is the state of a table's column; string for a type that is not known,
// which is never narrowed then.
func parseType(text string) *State {
	t, err := serde.ParseType(text)
	if err != nil {
		return &State{Kinds: kindString}
	}
	return fromType(t)
}

// integer is the state of a typed whole number. The digits are those that a decimal
// needs to hold it.
func integer(bits uint8) *State {
	digits := map[uint8]uint16{8: 3, 16: 5, 32: 10, 64: longDigits}[bits]
	return &State{Kinds: kindInteger, Bits: bits, Digits: digits}
}

func decimal(digits, scale int) *State {
	return &State{Kinds: kindDecimal, Digits: uint16(min(max(digits, 0), digitsUnknown)), Scale: uint16(min(max(scale, 0), digitsUnknown))}
}

// agree reports whether two columns can be one without losing what they are: their
// common type is no refuge to text.
func agree(a, b *State) bool {
	if a.Kinds == 0 || b.Kinds == 0 {
		return true
	}
	isText := func(s *State) bool {
		k := s.Type().Kind
		return k == serde.String || k == serde.Varchar
	}
	return isText(a) == isText(b) && (isText(a) || !isText(join(a, b)))
}

// readable reports whether readers of typed files take a column of type u for one of
// type t: no value is lost, and none has to be printed or parsed.
func readable(t, u *serde.Type) bool {
	whole := map[serde.Kind]int{serde.TinyInt: 3, serde.SmallInt: 5, serde.Int: 10, serde.BigInt: 19} // digits
	digits, isWhole := whole[u.Kind]
	switch t.Kind {
	case serde.TinyInt, serde.SmallInt, serde.Int, serde.BigInt:
		return isWhole && digits <= whole[t.Kind]
	case serde.Float:
		return u.Kind == serde.Float || isWhole && digits <= 5
	case serde.Double:
		return u.Kind == serde.Double || u.Kind == serde.Float || isWhole && digits <= 10
	case serde.Decimal:
		return isWhole && digits <= t.Precision-t.Scale || u.Kind == serde.Decimal && u.Scale <= t.Scale && u.Precision-u.Scale <= t.Precision-t.Scale
	case serde.String, serde.Varchar, serde.Char:
		return u.Kind == serde.String || u.Kind == serde.Varchar || u.Kind == serde.Char || u.Kind == serde.Binary
	case serde.Timestamp:
		return u.Kind == serde.Timestamp || u.Kind == serde.Date
	case serde.Array:
		return u.Kind == serde.Array && readable(t.Element, u.Element)
	case serde.Map:
		return u.Kind == serde.Map && readable(t.Key, u.Key) && readable(t.Element, u.Element)
	case serde.Struct:
		if u.Kind != serde.Struct {
			return false
		}
		for _, f := range u.Fields {
			i := slices.IndexFunc(t.Fields, func(o serde.Column) bool { return o.Name == f.Name })
			if i >= 0 && !readable(t.Fields[i].Type, f.Type) {
				return false
			}
		}
		return true
	}
	return t.Kind == u.Kind
}

// meet reports whether readers of typed files take two columns for one.
func meet(a, b *State) bool {
	if a == b || a.Kinds == 0 || b.Kinds == 0 {
		return true
	}
	t := join(a, b).Type()
	return readable(t, a.Type()) && readable(t, b.Type())
}
