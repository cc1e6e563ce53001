package delivery

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/record"
)

func TestInferSchema(t *testing.T) {
	schema := record.Schema{Fields: []record.Field{
		{Name: "n", Type: record.Type{Kind: record.Int}}, {Name: "big", Type: record.Type{Kind: record.Long}},
		{Name: "price", Type: record.Type{Kind: record.Decimal, Precision: 6, Scale: 4}}, {Name: "text", Type: record.Type{Kind: record.String}},
		{Name: "record_offset", Type: record.Type{Kind: record.Long}, Derive: record.RecordOffset},
	}}
	for docs, want := range map[string]string{
		`{"n":1,"price":12.5,"text":"x"}`:                        "",
		`{"a":"x","b":true,"c":7,"d":-0.25,"e":1e2}`:             "+a string +b boolean +c long +d decimal(18, 4) +e decimal(18, 4)",
		`{"a":0.000000001}|{"b":0.0000000001}`:                   "+a decimal(18, 9) +b double",
		`{"a":123456789012345.5}|{"b":1e400}`:                    "+a double +b double",
		`{"a":9223372036854775807}|{"b":9223372036854775808}`:    "+a long +b double",
		`{"a":null,"b":[1],"c":{"d":1}}`:                         "",
		`{"a":1}|{"a":1.5}|{"a":"x"}`:                            "+a decimal(18, 4)",
		`{"a":1.5}|{"a":1}|{"a":1e300}`:                          "+a double",
		`{"a":"x"}|{"a":1}`:                                      "+a string",
		`{"N":1,"A":1,"a":2}`:                                    "+A long",
		`{"":1,"a,b":1,"(":1}`:                                   "",
		`{"n":2147483648}|{"n":-2147483649}`:                     "^n long",
		`{"n":1.5,"n":"9999999999"}`:                             "",
		`{"price":100}|{"price":12345.6789}|{"price":99.99999}`:  "^price decimal(9, 4)",
		`{"price":"100"}|{"price":"12345.6789"}`:                 "^price decimal(9, 4)",
		`{"price":"1/1000"}|{"price":"0x100000"}|{"price":"a"}`:  "",
		`{"price":123456789012345.5}`:                            "",
		`{"record_offset":"x","text":5,"big":99999999999999999}`: "",
		`[1]|nothing|{"a":1`:                                     "+a long",
		``:                                                       "",
	} {
		var list [][]byte
		for doc := range strings.SplitSeq(docs, "|") {
			list = append(list, []byte(doc))
		}
		c := inferSchema(schema, list)
		var got []string
		for _, f := range c.add {
			got = append(got, fmt.Sprintf("+%s %s", f.Name, f.Type))
		}
		for _, f := range c.widen {
			got = append(got, fmt.Sprintf("^%s %s", f.Name, f.Type))
		}
		if text := strings.Join(got, " "); text != want {
			t.Errorf("%s\n got %s\nwant %s", docs, text, want)
		}
	}
	var many [][]byte
	for i := range 2 * inferredColumnsMax {
		many = append(many, fmt.Appendf(nil, `{"c%d":1}`, i))
	}
	if c := inferSchema(schema, many); len(c.add) != inferredColumnsMax-len(schema.Fields) {
		t.Errorf("%d columns", len(c.add))
	}
}
