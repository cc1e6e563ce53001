package serde

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// TestValues is the table of what each type takes and what it becomes: want is the
// value as arrow-go reads it from the file, or the beginning of a message after "!".
func TestValues(t *testing.T) {
	for _, c := range []struct {
		typ, value, openX, hive string
	}{
		{"boolean", `true`, `true`, `true`},
		{"boolean", `null`, `null`, `null`},
		{"boolean", `"FALSE"`, `false`, `!the text "FALSE" does not fit boolean`},
		{"boolean", `"yes"`, `!the text "yes" does not fit boolean`, `!the text`},
		{"boolean", `1`, `!the number "1" does not fit boolean`, `!the number`},

		{"tinyint", `-128`, `-128`, `-128`},
		{"tinyint", `128`, `!the number "128" is out of the range of tinyint`, `!the number "128" is out`},
		{"smallint", `32767`, `32767`, `32767`},
		{"smallint", `-32769`, `!the number`, `!the number`},
		{"int", `2147483647`, `2147483647`, `2147483647`},
		{"int", `2147483648`, `!the number "2147483648" is out of the range of int`, `!the number`},
		{"int", `"123"`, `123`, `!the text "123" does not fit int`},
		{"int", `"+0123"`, `123`, `!the text`},
		{"int", `"-007"`, `-7`, `!the text`},
		{"int", `""`, `!the text "" does not fit int`, `!the text`},
		{"int", `"1x"`, `!the text "1x" does not fit int`, `!the text`},
		{"int", `" 1"`, `!the text`, `!the text`},
		{"int", `1.0`, `1`, `1`},
		{"int", `1e2`, `100`, `100`},
		{"int", `1.5`, `!the number "1.5" is no integer, as int is`, `!the number "1.5" is no integer`},
		{"int", `1e-400`, `!the number`, `!the number`},
		{"int", `1e999999999999`, `!the number`, `!the number`},
		{"int", `0e999999999999`, `0`, `0`},
		{"int", `-0`, `0`, `0`},
		{"int", `true`, `!a boolean does not fit int`, `!a boolean`},
		{"int", `{}`, `!an object does not fit int`, `!an object`},
		{"bigint", `-9223372036854775808`, `-9223372036854775808`, `-9223372036854775808`},
		{"bigint", `9223372036854775807`, `9223372036854775807`, `9223372036854775807`},
		{"bigint", `9223372036854775808`, `!the number`, `!the number`},
		{"bigint", `99999999999999999999999999999999999999999`, `!the number`, `!the number`},

		{"double", `0.1`, `0.1`, `0.1`},
		{"double", `1e308`, `1e+308`, `1e+308`},
		{"double", `1e309`, `!the number "1e309" is out of the range of double`, `!the number`},
		{"double", `"1.5e3"`, `1500`, `!the text "1.5e3" does not fit double`},
		{"double", `"NaN"`, `!the text "NaN" does not fit double`, `!the text`},
		{"double", `"Infinity"`, `!the text`, `!the text`},
		{"float", `0.5`, `0.5`, `0.5`},
		{"float", `1e39`, `!the number "1e39" is out of the range of float`, `!the number`},

		{"decimal(10,2)", `1.50`, `"1.5"`, `"1.5"`},
		{"decimal(10,2)", `-15e-1`, `"-1.5"`, `"-1.5"`},
		{"decimal(10,2)", `"12345678.99"`, `"12345678.99"`, `!the text`},
		{"decimal(10,2)", `1.005`, `!the number "1.005" has digits beyond the scale of decimal(10,2)`, `!the number "1.005" has digits`},
		{"decimal(10,2)", `1.0050e1`, `"10.05"`, `"10.05"`},
		{"decimal(10,2)", `100000000`, `!the number "100000000" is out of the range of decimal(10,2)`, `!the number`},
		{"decimal(10,2)", `99999999.99`, `"99999999.99"`, `"99999999.99"`},
		{"decimal(38,0)", `-99999999999999999999999999999999999999`, `"-99999999999999999999999999999999999999"`, `"-99999999999999999999999999999999999999"`},
		{"decimal(38,0)", `100000000000000000000000000000000000000`, `!the number`, `!the number`},
		{"decimal(38,38)", `0.00000000000000000000000000000000000001`, `"1e-38"`, `"1e-38"`},

		{"string", `"é\n\u0000"`, `"é\n\u0000"`, `"é\n\u0000"`},
		{"string", `"\ud83d\ude00"`, `"😀"`, `"😀"`},
		{"string", `1.50`, `"1.50"`, `"1.50"`},
		{"string", `true`, `"true"`, `"true"`},
		{"string", `{"A": [1, 2]}`, `"{\"A\":[1,2]}"`, `!an object does not fit string`},
		{"string", `[ "x" ]`, `"[\"x\"]"`, `!an array does not fit string`},
		{"varchar(3)", `"éab"`, `"éab"`, `"éab"`},
		{"varchar(3)", `"abcd"`, `!the text "abcd" has 4 characters, above the length of varchar(3)`, `!the text`},
		{"char(3)", `"a"`, `"a"`, `"a"`},
		{"binary", `"AAECAw=="`, `"AAECAw=="`, `"AAECAw=="`},
		{"binary", `"AAEC Aw"`, `!the text "AAEC Aw" is no base64`, `!the text`},
		{"binary", `"AAEC\n"`, `!the text`, `!the text`},
		{"binary", `1`, `!the number`, `!the number`},

		{"date", `"2026-11-03"`, `"2026-11-03"`, `"2026-11-03"`},
		{"date", `"2026-1-3"`, `"2026-01-03"`, `"2026-01-03"`},
		{"date", `"1969-12-31"`, `"1969-12-31"`, `"1969-12-31"`},
		{"date", `"2026-02-29"`, `!the text "2026-02-29" does not fit date`, `!the text`},
		{"date", `"2026-11-03T00:00:00Z"`, `!the text`, `!the text`},
		{"date", `20261103`, `!the number "20261103" does not fit date`, `!the number`},

		{"timestamp", `"2017-02-07T15:13:01.39256Z"`, `"2017-02-07T15:13:01.39256Z"`, `!the text`},
		{"timestamp", `"2017-02-07T15:13:01"`, `"2017-02-07T15:13:01Z"`, `!the text`},
		{"timestamp", `"2017-2-07T15:13:01Z"`, `!the text`, `!the text`},
		{"timestamp", `"2017-02-07T15:13:01+01:00"`, `!the text "2017-02-07T15:13:01+01:00" does not fit timestamp`, `!the text`},
		{"timestamp", `"2017-02-07 15:13:01.14"`, `"2017-02-07T15:13:01.14Z"`, `"2017-02-07T15:13:01.14Z"`},
		{"timestamp", `"2017-2-7 1:3:1"`, `"2017-02-07T01:03:01Z"`, `"2017-02-07T01:03:01Z"`},
		{"timestamp", `"2017-02-07 15:13:01.123456789"`, `"2017-02-07T15:13:01.123456789Z"`, `"2017-02-07T15:13:01.123456789Z"`},
		{"timestamp", `"2017-02-07 15:13:01.1234567891"`, `!the text`, `!the text`},
		{"timestamp", `"2017-02-30 00:00:00"`, `!the text`, `!the text`},
		{"timestamp", `"2017-02-07 24:00:00"`, `!the text`, `!the text`},
		{"timestamp", `"1677-01-01 00:00:00"`, `!the time "1677-01-01 00:00:00" is outside 1677-09-21 to 2262-04-11`, `!the time`},
		{"timestamp", `1518033528`, `"2018-02-07T19:58:48Z"`, `!the number "1518033528" does not fit timestamp`},
		{"timestamp", `1518033528123`, `"2018-02-07T19:58:48.123Z"`, `!the number`},
		{"timestamp", `1518033528.123`, `"2018-02-07T19:58:48.123Z"`, `!the number`},
		{"timestamp", `1518033528123.5`, `"2018-02-07T19:58:48.1235Z"`, `!the number`},
		{"timestamp", `1.518033528e9`, `"2018-02-07T19:58:48Z"`, `!the number`},
		{"timestamp", `"1518033528"`, `"2018-02-07T19:58:48Z"`, `!the text`},
		{"timestamp", `-1`, `"1969-12-31T23:59:59Z"`, `!the number`},
		{"timestamp", `-1000000000000`, `"1938-04-24T22:13:20Z"`, `!the number`},
		{"timestamp", `999999999999`, `!the time "999999999999" is outside`, `!the number`},
		{"timestamp", `1.0000000001`, `!the time "1.0000000001" is finer than a nanosecond`, `!the number`},
		{"timestamp", `1e300`, `!the time "1e300" is outside`, `!the number`},
		{"timestamp", `true`, `!a boolean does not fit timestamp`, `!a boolean`},

		{"array<int>", `[1,null,3]`, `[1,null,3]`, `[1,null,3]`},
		{"array<int>", `[]`, `[]`, `[]`},
		{"array<int>", `7`, `[7]`, `!the number "7" does not fit array<int>`},
		{"array<int>", `["7"]`, `[7]`, `!the text`},
		{"array<string>", `{"a":1}`, `["{\"a\":1}"]`, `!an object does not fit array<string>`},
		{"array<array<int>>", `[[1],[],null]`, `[[1],[],null]`, `[[1],[],null]`},
		{"map<string,int>", `{"A":1,"b":2}`, `[{"key":"a","value":1},{"key":"b","value":2}]`, `[{"key":"A","value":1},{"key":"b","value":2}]`},
		{"map<string,int>", `{"a":1,"b":2,"a":3}`, `[{"key":"b","value":2},{"key":"a","value":3}]`, `[{"key":"b","value":2},{"key":"a","value":3}]`},
		{"map<int,string>", `{"1":"x"}`, `[{"key":1,"value":"x"}]`, `[{"key":1,"value":"x"}]`},
		{"map<int,string>", `{"x":"x"}`, `!the text "x" does not fit int`, `!the text`},
		{"map<string,int>", `[1]`, `!an array does not fit map<string,int>`, `!an array`},
		{"map<string,int>", `{}`, `[]`, `[]`},
		{"struct<a:int,b:struct<c:string>>", `{"B":{"C":"x","z":0},"a":1}`, `{"a":1,"b":{"c":"x"}}`, `{"a":1,"b":{"c":"x"}}`},
		{"struct<a:int,b:string>", `{}`, `{"a":null,"b":null}`, `{"a":null,"b":null}`},
		{"struct<a:int,b:string>", `[1]`, `{"a":1,"b":null}`, `!an array does not fit struct<a:int,b:string>`},
		{"struct<a:int,b:string>", `[1,"x",3]`, `!3 elements for the 2 fields`, `!an array`},
		{"struct<a:int,b:string>", `"x"`, `!the text "x" does not fit struct<a:int,b:string>`, `!the text`},
		{"array<struct<a:decimal(4,1)>>", `[{"a":1.5},{"a":"x"}]`, `!the text "x" does not fit decimal(4,1)`, `!the text`},
	} {
		for name, d := range map[string]Deserializer{"OpenX": openX, "Hive": hive} {
			want := c.openX
			if name == "Hive" {
				want = c.hive
			}
			conv := converter(t, "x "+c.typ, d)
			record := `{"x":` + c.value + `}`
			if text, refused := strings.CutPrefix(want, "!"); refused {
				_, err := conv.NewDecoder().Check([]byte(record))
				var bad *RecordError
				if !errors.As(err, &bad) || bad.Code != MalformedData || !strings.HasPrefix(bad.Member, "x") || !strings.Contains(bad.Message, text) ||
					!strings.HasPrefix(bad.Message, "Data does not match the schema. member \"x") {
					t.Errorf("%s %s %s: %v, want %q", name, c.typ, c.value, err, text)
				}
				continue
			}
			for _, o := range []ParquetOptions{{}, {WriterVersion: "V2"}} {
				rows := read(t, write(t, conv, o, record))
				if len(rows) != 1 || !sameJSON(t, rows[0], `{"x":`+want+`}`) {
					t.Errorf("%s %s %s: %s, want %s", name, c.typ, c.value, rows, want)
				}
			}
		}
	}
}

func TestRecords(t *testing.T) {
	c := converter(t, "a int; b string", openX)
	for _, x := range []struct {
		record string
		want   []string // rows, or a message after the code
	}{
		{`{"a":1}{"b":"x"}`, []string{`{"a":1,"b":null}`, `{"a":null,"b":"x"}`}},
		{"\n{\"a\":1}\r\n\t{\"a\":2}\n", []string{`{"a":1,"b":null}`, `{"a":2,"b":null}`}},
		{`{"a":1,"A":2,"c":{"a":[null]}}`, []string{`{"a":2,"b":null}`}},
		{`{"a":"bad","a":2}`, []string{`{"a":2,"b":null}`}},
		{`{}`, []string{`{"a":null,"b":null}`}},
		{`{"a":1}{"a":"x"}`, []string{MalformedData, `member "a": the text "x" does not fit int`}},
		{`{"a":1}{"a"`, []string{ParseError, "want a colon at byte 11"}},
		{`[{"a":1},{"a":2}]`, []string{MalformedData, "A JSON object is required, not an array at byte 0"}},
		{`{"a":1} 5`, []string{MalformedData, "not the number at byte 8"}},
		{``, []string{ParseError, "the record is empty"}},
		{" \n", []string{ParseError, "the record is empty"}},
		{`{"a":NaN}`, []string{ParseError, `want a value, not 'N' at byte 5`}},
		{`{"a":-Infinity}`, []string{ParseError, `a malformed number at byte 5`}},
		{`{"a":01}`, []string{ParseError, `want a comma or '}' at byte 6`}},
		{`{"a":1,}`, []string{ParseError, `want a member's name at byte 7`}},
		{`{"a":"` + "\xff" + `"}`, []string{ParseError, `no UTF-8 at byte 6`}},
		{`{"a":"\ud800x"}`, []string{ParseError, `half of a surrogate pair at byte 6`}},
		{`{"a":"` + "\n" + `"}`, []string{ParseError, `a control character in a string at byte 6`}},
		{`{"a":"x`, []string{ParseError, `a string without an end at byte 5`}},
		{`{"z":` + strings.Repeat("[", DepthMax) + strings.Repeat("]", DepthMax) + `}`, []string{ParseError, `nested deeper than 64 at byte 68`}},
	} {
		if strings.HasPrefix(x.want[0], "DataFormatConversion.") {
			_, err := c.NewDecoder().Check([]byte(x.record))
			var bad *RecordError
			if !errors.As(err, &bad) || bad.Code != x.want[0] || !strings.Contains(bad.Message, x.want[1]) {
				t.Errorf("%.60q: %v, want %q", x.record, err, x.want)
			}
			continue
		}
		rows := read(t, write(t, c, ParquetOptions{}, x.record))
		if len(rows) != len(x.want) {
			t.Errorf("%q: %q, want %q", x.record, rows, x.want)
			continue
		}
		for i := range rows {
			if !sameJSON(t, rows[i], x.want[i]) {
				t.Errorf("%q: %s, want %s", x.record, rows[i], x.want[i])
			}
		}
	}
}

func TestDocuments(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":1}{"b":"}{"}`:      `{"a":1}|{"b":"}{"}`,
		" {\"a\": [1]}\n{} \r\n": `{"a": [1]}|{}`,
		`{"a":1}[1]`:             "!an array at byte 7",
		`{"a":1}x`:               "!want a value, not 'x' at byte 7",
		`{"a":1`:                 "!want a comma",
		` `:                      "!the record is empty",
		"{\"a\":\"\xff\"}":       "!no UTF-8",
	} {
		documents, err := Documents([]byte(in))
		if text, refused := strings.CutPrefix(want, "!"); refused {
			var bad *RecordError
			if !errors.As(err, &bad) || !strings.Contains(bad.Message, text) {
				t.Errorf("%q: %v, want %q", in, err, text)
			}
		} else if got := string(bytes.Join(documents, []byte("|"))); err != nil || got != want {
			t.Errorf("%q: %s %v, want %s", in, got, err, want)
		}
	}
}

func TestOpenXOptions(t *testing.T) {
	for _, x := range []struct {
		cols         string
		options      OpenX
		record, want string
	}{
		{"a_b int; ts string", OpenX{ConvertDotsInJSONKeysToUnderscores: true, ColumnToJSONKeyMappings: map[string]string{"ts": "timestamp", "nosuch": "x"}}, `{"A.b":1,"Timestamp":"x","ts":"y"}`, `{"a_b":1,"ts":"x"}`},
		{"a_b int", OpenX{}, `{"a.b":1}`, `{"a_b":null}`},
		{"a int; b int", OpenX{CaseSensitive: true, ColumnToJSONKeyMappings: map[string]string{"b": "B"}}, `{"A":1,"a":2,"b":3,"B":4}`, `{"a":2,"b":4}`},
		{"a struct<ts:int>", OpenX{ColumnToJSONKeyMappings: map[string]string{"ts": "timestamp"}}, `{"a":{"ts":1,"timestamp":2}}`, `{"a":{"ts":1}}`},
		{"m map<string,int>", OpenX{CaseSensitive: true}, `{"m":{"A":1}}`, `{"m":[{"key":"A","value":1}]}`},
		{"É int", OpenX{}, `{"é":1}`, `{"É":1}`},
	} {
		c := converter(t, x.cols, Deserializer{OpenX: &x.options})
		if rows := read(t, write(t, c, ParquetOptions{}, x.record)); len(rows) != 1 || !sameJSON(t, rows[0], x.want) {
			t.Errorf("%s: %s, want %s", x.record, rows, x.want)
		}
	}
}

func TestHiveTimestampFormats(t *testing.T) {
	c := converter(t, "x timestamp", Deserializer{Hive: &Hive{TimestampFormats: []string{"millis", "yyyy-MM-dd'T'HH:mm:ss.SSSZ", "dd/MMM/yyyy h:mm a"}}})
	for in, want := range map[string]string{
		`1518033528123`:                  `"2018-02-07T19:58:48.123Z"`,
		`"1518033528123"`:                `"2018-02-07T19:58:48.123Z"`,
		`"2026-11-23T10:00:00.5+0100"`:   `"2026-11-23T09:00:00.5Z"`,
		`"2026-11-23T10:00:00.500Z"`:     `"2026-11-23T10:00:00.5Z"`,
		`"7/feb/2018 7:58 pm"`:           `"2018-02-07T19:58:00Z"`,
		`"2018-02-07 19:58:48.12345678"`: `"2018-02-07T19:58:48.12345678Z"`,
	} {
		rows := read(t, write(t, c, ParquetOptions{}, `{"x":`+in+`}`))
		if len(rows) != 1 || !sameJSON(t, rows[0], `{"x":`+want+`}`) {
			t.Errorf("%s: %s, want %s", in, rows, want)
		}
	}
	for in, want := range map[string]string{
		`"23.11.2026"`:           "does not fit timestamp",
		`99999999999999`:         "is outside",
		`1518033528123.1234567`:  "finer than a nanosecond",
		`"7/feb/2018 13:58 pm"`:  "does not fit",
		`"30/Feb/2018 7:58 pm"`:  "does not fit",
		`"2999-01-01 00:00:00"`:  "is outside",
		`"2026-11-23T10:00:00Z"`: "does not fit",
	} {
		if _, err := c.NewDecoder().Check([]byte(`{"x":` + in + `}`)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
}

func TestMembersAreNamed(t *testing.T) {
	c := converter(t, "order struct<legs:array<struct<price:decimal(4,1),tags:map<string,int>>>>", openX)
	for record, want := range map[string]string{
		`{"order":{"legs":[{},{"price":"x"}]}}`:    "order.legs[1].price",
		`{"order":{"legs":[{"tags":{"a":true}}]}}`: "order.legs[0].tags.a",
		`{"ORDER":{"Legs":{"tags":{"a":{}}}}}`:     "order.legs.tags.a",
		`{"order":5}`:                              "order",
	} {
		var bad *RecordError
		if _, err := c.NewDecoder().Check([]byte(record)); !errors.As(err, &bad) || bad.Member != want {
			t.Errorf("%s: %v, want member %s", record, err, want)
		}
	}
}

func TestNewConverterRefuses(t *testing.T) {
	one := columns(t, "a int")
	for want, f := range map[string]func() error{
		"exactly one":        func() error { _, err := NewConverter(one, Deserializer{}); return err },
		"want exactly one":   func() error { _, err := NewConverter(one, Deserializer{OpenX: &OpenX{}, Hive: &Hive{}}); return err },
		"no columns":         func() error { _, err := NewConverter(nil, openX); return err },
		"no name":            func() error { _, err := NewConverter([]Column{{"", one[0].Type}}, openX); return err },
		"stands twice":       func() error { _, err := NewConverter(columns(t, "a int; A string"), openX); return err },
		"use OpenXJsonSerDe": func() error { _, err := NewConverter(columns(t, "a.b int"), hive); return err },
		"both read the JSON": func() error {
			_, err := NewConverter(columns(t, "a int; b int"), Deserializer{OpenX: &OpenX{ColumnToJSONKeyMappings: map[string]string{"b": "A"}}})
			return err
		},
		"has no year": func() error {
			_, err := NewConverter(one, Deserializer{Hive: &Hive{TimestampFormats: []string{"HH:mm"}}})
			return err
		},
		"letter z is not": func() error {
			_, err := NewConverter(one, Deserializer{Hive: &Hive{TimestampFormats: []string{"yyyy z"}}})
			return err
		},
		"illegal pattern": func() error {
			_, err := NewConverter(one, Deserializer{Hive: &Hive{TimestampFormats: []string{"yyyy bb"}}})
			return err
		},
		"BlockSizeBytes":  func() error { return ParquetOptions{BlockSizeBytes: 1 << 20}.Check() },
		"PageSizeBytes":   func() error { return ParquetOptions{PageSizeBytes: 1 << 10}.Check() },
		"Compression":     func() error { return ParquetOptions{Compression: "ZSTD"}.Check() },
		"MaxPaddingBytes": func() error { return ParquetOptions{MaxPaddingBytes: -1}.Check() },
		"WriterVersion":   func() error { return ParquetOptions{WriterVersion: "V3"}.Check() },
	} {
		if err := f(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestTypes(t *testing.T) {
	for in, want := range map[string]string{
		"INT":                     "int",
		"integer":                 "int",
		"double  precision":       "double",
		"decimal":                 "decimal(10,0)",
		"decimal(5)":              "decimal(5,0)",
		"DECIMAL( 38 , 10 )":      "decimal(38,10)",
		"numeric(4,2)":            "decimal(4,2)",
		"varchar(10)":             "varchar(10)",
		"array < string >":        "array<string>",
		"map<string, array<int>>": "map<string,array<int>>",
		"struct<a:int, `b c` : map<int,struct<x:char(3)>>>": "struct<a:int,b c:map<int,struct<x:char(3)>>>",
	} {
		x, err := ParseType(in)
		if err != nil || x.String() != want {
			t.Errorf("%q: %v %v, want %s", in, x, err, want)
		}
	}
	for in, want := range map[string]string{
		"":                               "a type is missing",
		"integers":                       `type "integers" is not known`,
		"uniontype<int,string>":          "use a struct",
		"timestamp with local time zone": "use timestamp",
		"int x":                          `type "int x" is not known`,
		"int>":                           "follows the type",
		"decimal(39,0)":                  "precision of 1 to 38",
		"decimal(5,6)":                   "a scale within it",
		"decimal(x)":                     "want a number",
		"varchar":                        "ends where '('",
		"varchar(65536)":                 "length of 1 to 65535",
		"char(0)":                        "length of 1 to 255",
		"array<int":                      "ends where '>'",
		"array<>":                        "a type is missing",
		"map<int>":                       "want ','",
		"map<array<int>,int>":            "want a scalar",
		"struct<>":                       "want NAME:TYPE",
		"struct<a int>":                  "want NAME:TYPE",
		"struct<a:int,A:int>":            "two fields",
		strings.Repeat("array<", 40) + "int" + strings.Repeat(">", 40): "deeper than 32",
	} {
		if x, err := ParseType(in); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v %v, want %q", in, x, err, want)
		}
	}
}

func TestDocumentsAreBounded(t *testing.T) {
	var fields strings.Builder
	for i := range 500 {
		if i > 0 {
			fields.WriteByte(',')
		}
		fields.WriteString("f" + strings.Repeat("x", i) + ":int")
	}
	c := converter(t, "a array<struct<"+fields.String()+">>", openX)
	record := `{"a":[` + strings.Repeat("{},", 300_000) + `{}]}`
	d := c.NewDecoder()
	if _, err := d.Check([]byte(record)); err == nil || !strings.Contains(err.Error(), "more than 1048576 values") {
		t.Errorf("%v", err)
	}
	if _, err := d.Check([]byte(`{"a":[]}`)); err != nil || cap(d.cells) > keepValues || cap(d.scan.values) > keepValues {
		t.Errorf("%v; %d cells and %d values kept", err, cap(d.cells), cap(d.scan.values))
	}
}
