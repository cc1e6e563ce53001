package serde

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"math/rand/v2"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// The reference reads records with encoding/json and converts with math/big and
// package time, as plainly as can be. The converter must give the same rows, and
// refuse the same records.

const referenceColumns = "b boolean; i int; t tinyint; l bigint; f float; d double; m decimal(20,4); x string; v varchar(3); y binary; " +
	"e date; ts timestamp; a array<int>; k map<string,int>; z struct<p:int,q:array<string>>"

var errUnclear = errors.New("the reference does not tell")

// jsonText is a text that the reference made from an object or an array.
type jsonText string

type reference struct{ lenient bool }

func (r reference) rows(record []byte, cols []Column) (rows []any, err error) {
	if !utf8.Valid(record) {
		return nil, errors.New("no UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(record))
	d.UseNumber()
	for {
		var raw json.RawMessage
		if err := d.Decode(&raw); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		if depthOf(raw) > DepthMax {
			return nil, errors.New("too deep")
		}
		var v any
		one := json.NewDecoder(bytes.NewReader(raw))
		one.UseNumber()
		if err := one.Decode(&v); err != nil {
			return nil, err
		}
		object, ok := v.(map[string]any)
		if !ok {
			return nil, errors.New("no object")
		}
		row, err := r.convert(&Type{Kind: Struct, Fields: cols}, object)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return nil, errors.New("empty")
	}
	return rows, nil
}

func depthOf(raw []byte) (deepest int) {
	depth := 0
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	for {
		tok, err := d.Token()
		if err != nil {
			return deepest
		}
		if delim, ok := tok.(json.Delim); ok {
			if strings.ContainsRune("[{", rune(delim)) {
				depth++
			} else {
				depth--
			}
			deepest = max(deepest, depth)
		}
	}
}

var (
	textNumber = regexp.MustCompile(`^[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)
	errNo      = errors.New("does not fit")
)

// number is the value of v as a rational, and its text.
func (r reference) number(v any) (*big.Rat, string, error) {
	var tok string
	switch v := v.(type) {
	case json.Number:
		tok = string(v)
	case string:
		if !r.lenient || !textNumber.MatchString(v) {
			return nil, "", errNo
		}
		tok = v
	default:
		return nil, "", errNo
	}
	if at := strings.IndexAny(tok, "eE"); at >= 0 && len(tok)-at > 6 {
		return nil, "", errUnclear // math/big would write it out
	}
	x, ok := new(big.Rat).SetString(tok)
	if !ok {
		return nil, "", errUnclear
	}
	return x, tok, nil
}

func (r reference) integer(v any, unit *big.Int, bits uint) (int64, error) {
	x, _, err := r.number(v)
	if err != nil {
		return 0, err
	}
	x.Mul(x, new(big.Rat).SetInt(unit))
	limit := new(big.Int).Lsh(big.NewInt(1), bits-1)
	if !x.IsInt() || x.Num().Cmp(limit) >= 0 || x.Num().Cmp(new(big.Int).Neg(limit)) < 0 {
		return 0, errNo
	}
	return x.Num().Int64(), nil
}

func (r reference) convert(t *Type, v any) (any, error) {
	if v == nil {
		return nil, nil
	}
	text, isText := v.(string)
	switch t.Kind {
	case Boolean:
		if x, ok := v.(bool); ok {
			return x, nil
		}
		if r.lenient && isText && (strings.EqualFold(text, "true") || strings.EqualFold(text, "false")) {
			return strings.EqualFold(text, "true"), nil
		}
	case TinyInt, Int, BigInt:
		return r.integer(v, big.NewInt(1), map[Kind]uint{TinyInt: 8, Int: 32, BigInt: 64}[t.Kind])
	case Float, Double:
		_, tok, err := r.number(v)
		if err != nil {
			return nil, err
		}
		bits := 64
		if t.Kind == Float {
			bits = 32
		}
		return strconv.ParseFloat(tok, bits)
	case Decimal:
		x, _, err := r.number(v)
		if err != nil {
			return nil, err
		}
		ten := big.NewInt(10)
		x.Mul(x, new(big.Rat).SetInt(new(big.Int).Exp(ten, big.NewInt(int64(t.Scale)), nil)))
		if !x.IsInt() || x.Num().CmpAbs(new(big.Int).Exp(ten, big.NewInt(int64(t.Precision)), nil)) >= 0 {
			return nil, errNo
		}
		return x.Num().String(), nil
	case String, Varchar:
		var s any
		switch x := v.(type) {
		case string:
			if strings.Contains(x, "\ufffd") {
				return nil, errUnclear // perhaps half of a pair
			}
			s = x
		case json.Number:
			s = string(x)
		case bool:
			s = strconv.FormatBool(x)
		default:
			if !r.lenient {
				return nil, errNo
			}
			if t.Kind == Varchar {
				return nil, errUnclear // how long it is depends on how it is written
			}
			canonical, err := json.Marshal(x)
			if err != nil {
				return nil, err
			}
			return jsonText(canonical), nil
		}
		if t.Kind == Varchar && utf8.RuneCountInString(s.(string)) > t.Length {
			return nil, errNo
		}
		return s, nil
	case Binary:
		b, err := base64.StdEncoding.Strict().DecodeString(text)
		if !isText || err != nil || strings.ContainsAny(text, "\r\n") {
			return nil, errNo
		}
		return string(b), nil
	case Date:
		return r.layout(text, isText, "2006-1-2", `^\d{4}-\d\d?-\d\d?$`, 86400)
	case Timestamp:
		if x, err := r.layout(text, isText, "2006-1-2 15:4:5", `^\d{4}-\d\d?-\d\d? \d\d?:\d\d?:\d\d?(\.\d{1,9})?$`, 0); err == nil || !r.lenient {
			return x, err
		}
		if x, err := r.layout(strings.TrimSuffix(text, "Z"), isText, "2006-01-02T15:04:05", `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?$`, 0); err == nil {
			return x, nil
		}
		seconds, _, err := r.number(v)
		if err != nil {
			return nil, err
		}
		if seconds.Abs(seconds).Cmp(new(big.Rat).SetInt64(1e12)) < 0 {
			return r.integer(v, big.NewInt(1e9), 64)
		}
		return r.integer(v, big.NewInt(1e6), 64)
	case Array:
		list, ok := v.([]any)
		if !ok {
			if !r.lenient {
				return nil, errNo
			}
			list = []any{v}
		}
		out := []any{}
		for _, x := range list {
			y, err := r.convert(t.Element, x)
			if err != nil {
				return nil, err
			}
			out = append(out, y)
		}
		return out, nil
	case Map, Struct:
		return r.object(t, v)
	}
	return nil, errNo
}

func (r reference) object(t *Type, v any) (any, error) {
	object, ok := v.(map[string]any)
	if list, isList := v.([]any); isList && r.lenient && t.Kind == Struct {
		if len(list) > len(t.Fields) {
			return nil, errNo
		}
		object, ok = map[string]any{}, true
		for i, x := range list {
			object[t.Fields[i].Name] = x
		}
	}
	if !ok {
		return nil, errNo
	}
	folded := map[string]any{}
	for k, x := range object {
		if strings.Contains(k, "\ufffd") {
			return nil, errUnclear
		}
		if t.Kind == Struct || r.lenient {
			k = strings.ToLower(k)
		}
		if _, twice := folded[k]; twice {
			return nil, errUnclear // the order is lost
		}
		folded[k] = x
	}
	out := map[string]any{}
	if t.Kind == Map {
		for k, x := range folded {
			y, err := r.convert(t.Element, x)
			if err != nil {
				return nil, err
			}
			out[k] = y
		}
		return out, nil
	}
	for _, f := range t.Fields {
		y, err := r.convert(f.Type, folded[f.Name])
		if err != nil {
			return nil, err
		}
		out[f.Name] = y
	}
	return out, nil
}

func (r reference) layout(s string, isText bool, layout, form string, unit int64) (any, error) {
	if !isText || !regexp.MustCompile(form).MatchString(s) {
		return nil, errNo
	}
	at, err := time.Parse(layout, s)
	if err != nil {
		return nil, errNo
	}
	if unit > 0 {
		return at.Unix() / unit, nil
	}
	if at.Before(time.Unix(-9223372036, 0)) || !at.Before(time.Unix(9223372036, 0)) {
		return nil, errNo
	}
	return at.UnixNano(), nil
}

// show renders cells as the reference does.
func show(p *plan, cells []cell, at int) any {
	c := &cells[at]
	if !c.valid {
		return nil
	}
	switch p.typ.Kind {
	case Boolean:
		return c.lo != 0
	case Float, Double:
		return floatOf(c)
	case Decimal:
		x := new(big.Int).Lsh(big.NewInt(int64(c.hi)), 64)
		return x.Add(x, new(big.Int).SetUint64(c.lo)).String()
	case String, Varchar, Char, Binary:
		return string(c.text)
	case Array:
		out := []any{}
		for i := range int(c.count) {
			out = append(out, show(&p.parts[0], cells, int(c.first)+i))
		}
		return out
	case Map:
		out := map[string]any{}
		for i := 0; i < int(c.count); i += 2 {
			out[show(&p.parts[0], cells, int(c.first)+i).(string)] = show(&p.parts[1], cells, int(c.first)+i+1)
		}
		return out
	case Struct:
		out := map[string]any{}
		for i := range p.parts {
			out[p.typ.Fields[i].Name] = show(&p.parts[i], cells, int(c.first)+i)
		}
		return out
	}
	return int64(c.lo)
}

// equal compares a row with the reference's.
func equal(got, want any) bool {
	switch want := want.(type) {
	case jsonText:
		s, ok := got.(string)
		d := json.NewDecoder(strings.NewReader(s))
		d.UseNumber()
		var v any
		if !ok || d.Decode(&v) != nil {
			return false
		}
		canonical, err := json.Marshal(v)
		return err == nil && string(canonical) == string(want)
	case map[string]any:
		x, ok := got.(map[string]any)
		if !ok || len(x) != len(want) {
			return false
		}
		for k := range want {
			if !equal(x[k], want[k]) {
				return false
			}
		}
		return true
	case []any:
		x, ok := got.([]any)
		if !ok || len(x) != len(want) {
			return false
		}
		for i := range want {
			if !equal(x[i], want[i]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(got, want)
}

func againstReference(t *testing.T, record []byte, lenient bool) (converted bool) {
	t.Helper()
	d := hive
	if lenient {
		d = openX
	}
	c := converter(t, referenceColumns, d)
	dec := c.NewDecoder()
	var got []any
	_, err := dec.each(record, func() { got = append(got, show(&c.root, dec.cells, 0)) })
	var bad *RecordError
	if err != nil && !errors.As(err, &bad) {
		t.Fatal(err)
	}
	want, wantErr := reference{lenient}.rows(record, c.columns)
	switch {
	case errors.Is(wantErr, errUnclear):
	case err == nil && wantErr != nil:
		t.Fatalf("%q (lenient %v): converted to %v, the reference says %v", record, lenient, got, wantErr)
	case err != nil && wantErr == nil:
		if bad.Code == ParseError && strings.Contains(bad.Message, "surrogate") {
			return false // encoding/json puts U+FFFD there
		}
		t.Fatalf("%q (lenient %v): %v, the reference has %v", record, lenient, err, want)
	case err == nil && !equal(got, want):
		t.Fatalf("%q (lenient %v):\n%v, the reference has\n%v", record, lenient, got, want)
	}
	return err == nil
}

func floatOf(c *cell) float64 { return math.Float64frombits(c.lo) }

// TestAgainstReference makes records that fit, that almost fit and that do not.
func TestAgainstReference(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	values := []string{
		"true", "null", "0", "-0", "1.0", "1e2", "127", "128", "-2147483649", "9223372036854775807", "1.00005", "12345678901234567.8901", "1e400", "3.5e38",
		`"7"`, `"+07"`, `"1.5"`, `""`, `"true"`, `"abcd"`, `"é"`, `"AAEC"`, `"AAE"`, `"2026-02-28"`, `"2026-2-29"`, `"2026-11-03 1:02:03.5"`,
		`"2026-11-03T01:02:03Z"`, `"1518033528"`, "1518033528.123", "999999999999", "1000000000000", "{}", "[]", `[1,"2",null]`, `{"p":1,"Q":["x",{"y":[ 1 ]}]}`,
		`[5,"x"]`, `[1,2,3]`, `{"a":1,"B":"2"}`, `{"a":{}}`, `"\u00e9\ud83d\ude00"`, `"\ud800"`,
	}
	names := []string{"b", "i", "t", "l", "f", "d", "m", "x", "v", "y", "e", "ts", "a", "k", "z", "other", "X", "Ts"}
	converted := 0
	const n = 40_000
	for range n {
		var b strings.Builder
		for range 1 + r.IntN(8)/7 {
			b.WriteByte('{')
			for i := range r.IntN(4) {
				if i > 0 {
					b.WriteByte(',')
				}
				fmt.Fprintf(&b, "%q:%s", names[r.IntN(len(names))], values[r.IntN(len(values))])
			}
			b.WriteByte('}')
		}
		record := []byte(b.String())
		if r.IntN(10) == 0 && len(record) > 0 {
			record[r.IntN(len(record))] = byte(r.Uint32())
		}
		if againstReference(t, record, r.IntN(2) == 0) {
			converted++
		}
	}
	if converted < n/10 || converted > n*9/10 {
		t.Errorf("%d of %d converted: the records miss their purpose", converted, n)
	}
}

func FuzzConvert(f *testing.F) {
	for _, r := range sample(rand.New(rand.NewPCG(1, 9)), 20) {
		f.Add([]byte(r), true)
	}
	f.Add([]byte(`{"a":1}{"b":"true","ts":"2026-11-03T01:02:03Z"}`), true)
	f.Add([]byte(`{"x":"\ud83d\ude00","e":"2026-1-2","k":{"A":1},"z":[1,["q"]]}`), false)
	f.Fuzz(func(t *testing.T, record []byte, lenient bool) { againstReference(t, record, lenient) })
}

func FuzzParseType(f *testing.F) {
	f.Add("struct<a:int,`b c`:map<int,array<decimal(38,10)>>>")
	f.Add("double precision")
	f.Fuzz(func(t *testing.T, s string) {
		x, err := ParseType(s)
		if err != nil {
			return
		}
		again, err := ParseType(x.String())
		if err != nil || again.String() != x.String() {
			t.Fatalf("%q is %s, which is %v %v", s, x, again, err)
		}
	})
}
