package crawler

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/serde"
)

func TestReadJSON(t *testing.T) {
	for _, c := range []struct{ name, data, want string }{
		{"lines", "{\"id\":1,\"Price\":2.5}\n{\"id\":2,\"price\":3,\"x\":null}\n", "id bigint, price decimal(18,4), x string"},
		{"one after the other", `{"a":1}{"a":2}` + "\n", "a bigint"},
		{"array", `[ {"a":1}, {"b":true} ]`, "a bigint, b boolean"},
		{"times", `{"d":"2026-11-25","t":"2026-11-25T09:30:00Z","s":"25.11.2026"}` + "\n", "d date, t timestamp, s string"},
		{"numbers in quotes are text", `{"a":"1","b":"007"}` + "\n", "a string, b string"},
		{"nested", `{"a":{"b":[1,2.5],"c":{"d":"x"}},"e":[]}` + "\n", "a struct<b:array<decimal(18,4)>,c:struct<d:string>>, e array<string>"},
		{"array of objects", `{"a":[{"x":1},{"y":"2026-11-25"}]}` + "\n", "a array<struct<x:bigint,y:date>>"},
		{"object and scalar", `{"a":{"x":1}}` + "\n" + `{"a":2}` + "\n", "a string"},
		{"exponent", `{"a":1e3,"b":123456789012345678901234567890}` + "\n", "a double, b decimal(30,0)"},
		{"escapes", `{"\u0041b":"\n\"x","c":"\ud83d\ude00"}` + "\n", "ab string, c string"},
		{"empty object members", `{"a":{},"b":1}` + "\n", "a string, b bigint"},
		{"a bad line among good ones", strings.Repeat("{\"a\":1}\n", 20) + "{\"a\":\n" + strings.Repeat("{\"a\":1}\n", 20), "a bigint"},
	} {
		f, err := readJSON([]byte(c.data), true)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if got := columnsText(f.columns); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestReadJSONEnds(t *testing.T) {
	for _, c := range []struct {
		name, data string
		last       bool
		rows       int
		err        error
	}{
		{"cut sample", `{"a":1}` + "\n" + `{"a":2`, false, 1, nil},
		{"cut file", `{"a":1}` + "\n" + `{"a":2`, true, 1, errUnfinished},
		{"cut array", `[{"a":1},{"a":2},{"a"`, false, 2, nil},
		{"cut array file", `[{"a":1},{"a":2}`, true, 2, errUnfinished},
		{"a row larger than the sample", `{"a":"xxxxxxx`, false, 0, errMore},
		{"empty array", `[]`, true, 0, errEmpty},
		{"scalars", `[1,2]`, true, 0, errNotRows},
		{"text", `"x"` + "\n", true, 0, errNotRows},
	} {
		f, err := readJSON([]byte(c.data), c.last)
		if !errors.Is(err, c.err) || err == nil && f.rows != c.rows {
			t.Errorf("%s: %d rows, %v; want %d, %v", c.name, f.rows, err, c.rows, c.err)
		}
	}
	for _, bad := range []string{`{"a":01}`, `{"a" 1}`, `{'a':1}`, `{"a":1,}`, `{"a":tru}`, "{\"a\":\"\x01\"}"} {
		if _, err := readJSON([]byte(bad+"\n"), true); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

func TestJSONPath(t *testing.T) {
	doc := `{"meta":{"n":2},"records":[{"id":1,"v":{"x":"a"}},{"id":2.5,"v":{"y":3}}]}`
	for _, c := range []struct{ path, want string }{
		{"$", "meta struct<n:bigint>, records array<struct<id:decimal(18,4),v:struct<x:string,y:bigint>>>"},
		{"$.records[*]", "id decimal(18,4), v struct<x:string,y:bigint>"},
		{"$['records'][0]", "id bigint, v struct<x:string>"},
		{"$.records[*].v", "x string, y bigint"},
	} {
		p, err := parseJSONPath(c.path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := readJSONPath([]byte(doc), true, p)
		if err != nil {
			t.Errorf("%s: %v", c.path, err)
		} else if got := columnsText(f.columns); got != c.want {
			t.Errorf("%s: %s, want %s", c.path, got, c.want)
		}
	}
	for _, bad := range []string{"", "records", "$records", "$.", "$[", "$[x]", "$['a", "$..a", "$.a[-1]"} {
		if _, err := parseJSONPath(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("path %q: %v, want ErrInvalid", bad, err)
		}
	}
}

// FuzzJSON holds the scanner against encoding/json: it accepts the same documents, and
// gives types that can be written down.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,{"b":null}],"c":"\u00e9"}`, `{"a":-0.5e+10}`, `{"":1,"A":{},"a":{}}`, `{"a":"\ud800"}`, `[{}]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := &jsonScanner{b: []byte(text + "\n"), notes: map[string]bool{}}
		state, err := s.value(1)
		if err == nil {
			s.space()
		}
		valid := json.Valid([]byte(text))
		if whole := err == nil && s.i == len(s.b); whole != valid && !(valid && err != nil && strings.Contains(err.Error(), "nested")) {
			t.Fatalf("%q: read %t (%v), encoding/json says %t", text, whole, err, valid)
		}
		if err == nil {
			if _, err := serde.ParseType(state.typeText()); err != nil && !strings.Contains(err.Error(), "above the limit") {
				t.Fatalf("%q: %v", text, err)
			}
		}
		for _, last := range []bool{true, false} {
			_, _ = readJSON([]byte(text), last)
		}
	})
}
