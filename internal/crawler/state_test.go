package crawler

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/serde"
)

// randomState makes states of all kinds, nested ones too.
func randomState(r *rand.Rand, depth int) *State {
	n := 12
	if depth > 2 {
		n = 9
	}
	switch r.IntN(n) {
	case 0:
		return unknown
	case 1:
		return stateBoolean
	case 2:
		return integer([]uint8{8, 16, 32, 64}[r.IntN(4)])
	case 3:
		return textDecimal(r.IntN(45), r.IntN(14))
	case 4:
		return decimal(r.IntN(20), r.IntN(19))
	case 5:
		return []*State{stateNumber, stateNumber19, stateDouble, {Kinds: kindFloat}}[r.IntN(4)]
	case 6:
		return []*State{stateDate, stateTimestamp, stateDay}[r.IntN(3)]
	case 7:
		return []*State{stateString, {Kinds: kindBinary}}[r.IntN(2)]
	case 8:
		return &State{Kinds: kindVarchar, Length: 1 + r.IntN(50)}
	case 9:
		return &State{Kinds: kindArray, Elem: randomState(r, depth+1)}
	case 10:
		return &State{Kinds: kindMap, Key: randomState(r, 9), Elem: randomState(r, depth+1)}
	}
	s := &State{Kinds: kindStruct}
	for _, name := range []string{"a", "b", "c", "d"} {
		if r.IntN(2) == 0 {
			s.Fields = append(s.Fields, Field{name, randomState(r, depth+1)})
		}
	}
	r.Shuffle(len(s.Fields), func(i, j int) { s.Fields[i], s.Fields[j] = s.Fields[j], s.Fields[i] })
	return s
}

// canonical is a state's text, whatever the order of its members.
func canonical(s *State) string {
	var sorted func(*State) *State
	sorted = func(s *State) *State {
		if s == nil {
			return nil
		}
		c := *s
		c.Key, c.Elem, c.Fields = sorted(s.Key), sorted(s.Elem), slices.Clone(s.Fields)
		for i := range c.Fields {
			c.Fields[i].State = sorted(c.Fields[i].State)
		}
		slices.SortFunc(c.Fields, func(a, b Field) int { return cmp.Compare(a.Name, b.Name) })
		return &c
	}
	b, err := json.Marshal(sorted(s))
	if err != nil {
		panic(err)
	}
	return string(b)
}

// TestJoinIsALattice holds the laws that make a table's types independent of the
// order of its files.
func TestJoinIsALattice(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		a, b, c := randomState(r, 0), randomState(r, 0), randomState(r, 0)
		if join(a, a) != a {
			t.Fatalf("join of %s with itself is another", canonical(a))
		}
		if x, y := canonical(join(a, b)), canonical(join(b, a)); x != y {
			t.Fatalf("join does not commute: %s, %s: %s and %s", canonical(a), canonical(b), x, y)
		}
		if x, y := canonical(join(join(a, b), c)), canonical(join(a, join(b, c))); x != y {
			t.Fatalf("join does not associate: %s, %s, %s: %s and %s", canonical(a), canonical(b), canonical(c), x, y)
		}
		ab := join(a, b)
		if join(ab, a) != ab || join(ab, b) != ab {
			t.Fatalf("%s and %s: their join grows when it is joined with them again", canonical(a), canonical(b))
		}
	}
}

// holds reports whether every value of type b is one of type a, text being the form
// that holds everything.
func holds(a, b *serde.Type) bool {
	rank := map[serde.Kind]int{serde.TinyInt: 3, serde.SmallInt: 5, serde.Int: 10, serde.BigInt: 19}
	switch {
	case a.Kind == serde.String:
		return true
	case a.Kind == serde.Double:
		return rank[b.Kind] > 0 || b.Kind == serde.Decimal || b.Kind == serde.Float || b.Kind == serde.Double
	case a.Kind == serde.Decimal && rank[b.Kind] > 0:
		return a.Precision-a.Scale >= rank[b.Kind]
	case a.Kind == serde.Decimal && b.Kind == serde.Decimal:
		return a.Precision-a.Scale >= b.Precision-b.Scale && a.Scale >= b.Scale
	case rank[a.Kind] > 0:
		return rank[b.Kind] > 0 && rank[a.Kind] >= rank[b.Kind]
	case a.Kind == serde.Timestamp:
		return b.Kind == serde.Timestamp || b.Kind == serde.Date
	case a.Kind != b.Kind:
		return a.Kind == serde.Map && b.Kind == serde.Struct && a.Key.Kind == serde.String
	case a.Kind == serde.Varchar:
		return a.Length >= b.Length
	case a.Kind == serde.Array:
		return holds(a.Element, b.Element)
	case a.Kind == serde.Map:
		return holds(a.Key, b.Key) && holds(a.Element, b.Element)
	case a.Kind == serde.Struct:
		for _, f := range b.Fields {
			i := slices.IndexFunc(a.Fields, func(g serde.Column) bool { return g.Name == f.Name })
			if i < 0 || !holds(a.Fields[i].Type, f.Type) {
				return false
			}
		}
	}
	return true
}

// TestTypesOnlyWiden: a table's type, joined with whatever files come, holds what it
// held.
func TestTypesOnlyWiden(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		table := parseType(randomState(r, 0).typeText())
		next := join(table, randomState(r, 0))
		if !holds(next.Type(), table.Type()) {
			t.Fatalf("%s became %s", table.typeText(), next.typeText())
		}
		again := parseType(next.typeText())
		if again.typeText() != next.typeText() {
			t.Fatalf("%s is read back as %s", next.typeText(), again.typeText())
		}
	}
}

// TestMeet: what columns of Parquet files can be one.
func TestMeet(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"int", "bigint", true}, {"int", "double", true}, {"bigint", "double", false}, {"decimal(8,2)", "double", false}, {"bigint", "decimal(8,2)", true},
		{"bigint", "decimal(38,30)", false}, {"decimal(30,0)", "decimal(30,20)", false}, {"date", "timestamp", true}, {"string", "int", false}, {"string", "binary", true},
		{"boolean", "int", false}, {"tinyint", "float", true}, {"array<int>", "array<bigint>", true}, {"array<int>", "int", false},
		{"struct<a:int,b:string>", "struct<b:string,c:date>", true}, {"struct<a:int>", "struct<a:string>", false}, {"map<string,int>", "map<string,bigint>", true},
	} {
		if got := meet(parseType(c.a), parseType(c.b)); got != c.want {
			t.Errorf("%s, %s: %t", c.a, c.b, got)
		}
	}
}

func TestTypes(t *testing.T) {
	for _, c := range []struct {
		states []*State
		want   string
	}{
		{nil, "string"},
		{[]*State{integer(8), integer(16)}, "smallint"},
		{[]*State{integer(32), stateNumber}, "bigint"},
		{[]*State{stateNumber, textDecimal(3, 2)}, "decimal(18,4)"},
		{[]*State{integer(64), textDecimal(3, 2)}, "decimal(23,4)"},
		{[]*State{decimal(8, 2), decimal(3, 5)}, "decimal(13,5)"},
		{[]*State{decimal(30, 2), decimal(3, 9)}, "string"},
		{[]*State{decimal(30, 2), decimal(3, 9), stateDouble}, "string"},
		{[]*State{decimal(8, 2), stateDouble}, "double"},
		{[]*State{{Kinds: kindFloat}, integer(8)}, "double"},
		{[]*State{{Kinds: kindFloat}}, "float"},
		{[]*State{stateBoolean, stateNumber}, "string"},
		{[]*State{stateDate, stateTimestamp}, "timestamp"},
		{[]*State{stateDay, stateDate}, "date"},
		{[]*State{stateDay, stateTimestamp}, "string"},
		{[]*State{stateDate, stateNumber}, "string"},
		{[]*State{{Kinds: kindVarchar, Length: 3}, {Kinds: kindVarchar, Length: 9}}, "varchar(9)"},
		{[]*State{{Kinds: kindVarchar, Length: 3}, stateString}, "string"},
		{[]*State{{Kinds: kindArray, Elem: stateNumber}, {Kinds: kindArray, Elem: stateDate}}, "array<string>"},
		{[]*State{{Kinds: kindArray, Elem: stateNumber}, stateNumber}, "string"},
		{[]*State{{Kinds: kindStruct, Fields: []Field{{"a", stateNumber}}}, {Kinds: kindStruct, Fields: []Field{{"b", stateDate}, {"a", unknown}}}}, "struct<a:bigint,b:date>"},
		{[]*State{{Kinds: kindStruct}}, "string"},
		{[]*State{{Kinds: kindStruct, Fields: []Field{{"a", stateNumber}}}, {Kinds: kindMap, Key: stateString, Elem: stateDouble}}, "map<string,double>"},
		{[]*State{{Kinds: kindMap, Key: integer(32), Elem: stateDouble}, {Kinds: kindStruct, Fields: []Field{{"a", stateNumber}}}}, "string"},
	} {
		s := unknown
		for _, o := range c.states {
			s = join(s, o)
		}
		if got := s.typeText(); got != c.want {
			t.Errorf("%s: %s, want %s", canonical(s), got, c.want)
		}
	}
}

// TestObjectsOfManyNames: an object used as a map becomes one.
func TestObjectsOfManyNames(t *testing.T) {
	var b strings.Builder
	for i := range 3 {
		b.WriteString(`{"by_symbol":{`)
		for j := range 600 {
			if j > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `"s%d":%d`, i*600+j, j)
		}
		b.WriteString("}}\n")
	}
	f, err := readJSON([]byte(b.String()), true)
	if err != nil {
		t.Fatal(err)
	}
	if got := f.columns[0].State.typeText(); got != "map<string,bigint>" {
		t.Errorf("%.80s, want map<string,bigint>", got)
	}
}

func TestTextState(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "string"}, {"  ", "string"},
		{"0", "bigint"}, {"-17", "bigint"}, {"9223372036854775807", "bigint"}, {"-9223372036854775808", "bigint"},
		{"9223372036854775808", "decimal(28,0)"}, {"99999999999999999999999999999999999999", "decimal(38,0)"},
		{"999999999999999999999999999999999999999", "string"},
		{"007", "string"}, {"-01", "string"}, {"+5", "string"}, {"1,000", "string"}, {"0x1F", "string"}, {"5.", "string"}, {"-", "string"}, {".", "string"},
		{"0.5", "decimal(18,4)"}, {".5", "decimal(18,4)"}, {"-187.4200", "decimal(18,4)"}, {"1.123456", "decimal(24,10)"},
		{"123456789012345.5", "decimal(32,4)"}, {"0.12345678901234567890", "decimal(34,20)"},
		{"0.1234567890123456789012345", "string"}, // 14 + 25 digits
		{"1e5", "double"}, {"-1.5E-300", "double"}, {"1e", "string"}, {"1e1234", "string"}, {"NaN", "double"}, {"-Infinity", "double"}, {"nan", "string"}, {"inf", "string"},
		{"true", "boolean"}, {"FALSE", "boolean"}, {"t", "string"}, {"yes", "string"},
		{"2026-11-25", "date"}, {"2024-02-29", "date"}, {"2023-02-29", "string"}, {"2026-13-01", "string"}, {"11/25/2026", "string"}, {"20261125", "bigint"},
		{"2026-11-25 09:30:00", "timestamp"}, {"2026-11-25T09:30:00.123456789Z", "timestamp"}, {"2026-11-25T09:30:00+01:00", "string"},
		{"2026-11-25 09:30:00Z", "string"}, {"2026-11-25T24:00:00", "string"}, {"2026-11-25 09:30:00.1234567890", "string"}, {"2026-11-25 09:30", "string"}, {"0000-01-01", "string"},
		{"12:30:00", "string"}, {"AAPL", "string"}, {"192.168.0.1", "string"},
	} {
		if got := textState(c.text).typeText(); got != c.want {
			t.Errorf("%q: %s, want %s", c.text, got, c.want)
		}
	}
}

func FuzzTextState(f *testing.F) {
	for _, s := range []string{"1", "-0.50", "2026-11-25 09:30:00.1Z", "1e5", "00", "NaN", "true", "é", "-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := textState(text)
		if _, err := serde.ParseType(s.typeText()); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}
