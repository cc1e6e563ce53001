package delivery

import (
	"bytes"
	"encoding/json"
	"math"
	"math/big"
	"strings"

	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/record"
)

// Bounds of what records can make of a table.
const (
	inferredColumnsMax  = 500 // of a table; AWS's limit is of that order
	inferredNameMax     = 255 // bytes
	inferredScaleMin    = 4   // of a decimal, so that the next price fits as well
	inferredScaleMax    = 9
	inferredPrecision   = 18
	schemaChangesAtOnce = 3 // rounds of one frame
)

// schemaChange is what records ask of their table.
type schemaChange struct {
	add   []record.Field
	widen []record.Field // name and new type
}

func (c *schemaChange) empty() bool { return len(c.add)+len(c.widen) == 0 }

// inferSchema finds the columns that documents have and the schema lacks, and
// those of its columns that are too narrow for them. A text is a string, a
// whole number a long, a fraction an exact decimal; only what no decimal of 18
// digits holds is a double. Nulls, objects and arrays make no column.
func inferSchema(schema record.Schema, docs [][]byte) schemaChange {
	var c schemaChange
	taken := map[string]bool{}
	place := map[string]int{} // of a field among add or widen
	for _, f := range schema.Fields {
		taken[strings.ToLower(f.Name)] = true
	}
	for _, doc := range docs {
		d := json.NewDecoder(bytes.NewReader(doc))
		d.UseNumber()
		if t, err := d.Token(); err != nil || t != json.Delim('{') {
			continue
		}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				break
			}
			var v any
			if err := d.Decode(&v); err != nil {
				break
			}
			name := key.(string)
			if i := schema.Index(name); i >= 0 {
				if f := schema.Fields[i]; f.Derive == record.FromJSON {
					c.fit(f, v, place)
				}
				continue
			}
			c.take(name, v, taken, place, len(schema.Fields))
		}
	}
	return c
}

// take makes a column of a member that has none.
func (c *schemaChange) take(name string, v any, taken map[string]bool, place map[string]int, columns int) {
	t, ok := inferType(v)
	if !ok {
		return
	}
	if i, ok := place[name]; ok {
		c.add[i].Type = joinTypes(c.add[i].Type, t)
		return
	}
	lower := strings.ToLower(name)
	if name == "" || len(name) > inferredNameMax || strings.ContainsAny(name, ",()") || taken[lower] || columns+len(c.add) >= inferredColumnsMax {
		return
	}
	taken[lower] = true
	place[name] = len(c.add)
	c.add = append(c.add, record.Field{Name: name, Type: t})
}

// fit widens a column for a value.
func (c *schemaChange) fit(f record.Field, v any, place map[string]int) {
	var number string
	switch v := v.(type) {
	case json.Number:
		number = string(v)
	case string: // as decimals are often given, to be exact
		if f.Type.Kind != record.Decimal || !json.Valid([]byte(v)) {
			return
		}
		number = v
	default:
		return
	}
	if i, ok := place[f.Name]; ok {
		f.Type = c.widen[i].Type
	}
	x, ok := exact(number)
	if !ok {
		return
	}
	to := f.Type
	switch f.Type.Kind {
	case record.Int:
		if x.IsInt() && x.Num().IsInt64() && (x.Num().Int64() > math.MaxInt32 || x.Num().Int64() < math.MinInt32) {
			to = record.Type{Kind: record.Long}
		}
	case record.Decimal:
		if p := integerDigits(x) + f.Type.Scale; p > f.Type.Precision && p <= inferredPrecision {
			to.Precision = p
		}
	}
	if to == f.Type {
		return
	}
	i, ok := place[f.Name]
	if !ok {
		i = len(c.widen)
		place[f.Name] = i
		c.widen = append(c.widen, record.Field{Name: f.Name})
	}
	c.widen[i].Type = to
}

func inferType(v any) (record.Type, bool) {
	switch v := v.(type) {
	case string:
		return record.Type{Kind: record.String}, true
	case bool:
		return record.Type{Kind: record.Boolean}, true
	case json.Number:
		x, ok := exact(string(v))
		if !ok {
			return record.Type{Kind: record.Double}, true
		}
		if x.IsInt() && x.Num().IsInt64() && !strings.ContainsAny(string(v), ".eE") {
			return record.Type{Kind: record.Long}, true
		}
		return decimalFor(integerDigits(x), fractionDigits(x)), true
	}
	return record.Type{}, false
}

// decimalFor is a decimal with room for the digits, or a double.
func decimalFor(whole, fraction int) record.Type {
	scale := max(fraction, inferredScaleMin)
	if scale > inferredScaleMax || whole+scale > inferredPrecision {
		return record.Type{Kind: record.Double}
	}
	return record.Type{Kind: record.Decimal, Precision: inferredPrecision, Scale: scale}
}

// joinTypes is a type for the values of both; where there is none, the first.
func joinTypes(a, b record.Type) record.Type {
	number := func(t record.Type) bool {
		return t.Kind == record.Long || t.Kind == record.Decimal || t.Kind == record.Double
	}
	switch {
	case a == b || !number(a) || !number(b):
		return a
	case a.Kind == record.Double || b.Kind == record.Double:
		return record.Type{Kind: record.Double}
	case a.Kind == record.Long:
		return b
	case b.Kind == record.Long:
		return a
	}
	return decimalFor(0, max(a.Scale, b.Scale))
}

// exact reads a JSON number whose exponent is of a sane size.
func exact(s string) (*big.Rat, bool) {
	if i := strings.IndexAny(s, "eE"); i >= 0 && len(s)-i > 4 || len(s) > 64 {
		return nil, false
	}
	return new(big.Rat).SetString(s)
}

// integerDigits counts the digits before the point.
func integerDigits(x *big.Rat) int {
	q := new(big.Int).Quo(x.Num(), x.Denom())
	if q.Sign() == 0 {
		return 0
	}
	return len(q.Abs(q).String())
}

// fractionDigits counts the digits behind the point; JSON's numbers have
// finitely many.
func fractionDigits(x *big.Rat) int {
	n, _ := x.FloatPrec()
	return n
}

// wants reports whether a batch has something that its schema does not take.
func wants(b *columnar.Batch) bool {
	if !b.Exact {
		return true
	}
	for i := range b.Rejects {
		switch b.Rejects[i].Code {
		case columnar.OutOfRange, columnar.WrongType, columnar.Inexact:
			return true
		}
	}
	return false
}
