package jq

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/itchyny/gojq"
)

const record = `{"type":{"device":"mobile","event":"click"},"customer_id":"1234567890","event_timestamp":1565382027,"region":null,
 "price":10.50,"sequence":12345678901234567890,"ok":true,"tags":["a","b"],"qty":3}`

func TestKeys(t *testing.T) {
	for program, want := range map[string]map[string]string{
		// The example of AWS's documentation.
		`{customer_id: .customer_id, device: .type.device, year: .event_timestamp|strftime("%Y"), hour: .event_timestamp|strftime("%H")}`: {
			"customer_id": "1234567890", "device": "mobile", "year": "2019", "hour": "20"},
		`{customer_id, "k": .tags[1], price, sequence, ok}`:                    {"customer_id": "1234567890", "k": "b", "price": "10.50", "sequence": "12345678901234567890", "ok": "true"},
		`{region: (.region // "none")}`:                                        {"region": "none"},
		`{big: (.sequence + 1), half: (.price / 2), n: (.qty * 2)}`:            {"big": "12345678901234567891", "half": "5.25", "n": "6"},
		`{a: "\(.type.device)/\(.qty)", b: (.tags | join("-")), c: ("x" * 3)}`: {"a": "mobile/3", "b": "a-b", "c": "xxx"},
		`if .qty > 2 then {size: "large"} else {size: "small"} end`:            {"size": "large"},
		`.type.device as $d | {d: ($d | ascii_upcase | .[0:3])}`:               {"d": "MOB"},
		`(.type.device |= ascii_upcase) | {d: .type.device}`:                   {"d": "MOBILE"},
		`.tags[5] = "x" | {n: (.tags | length)}`:                               {"n": "6"},
		`def f(x): x + "!"; {a: f(.type.event)}`:                               {"a": "click!"},
		`def _f: "own"; {a: _f}`:                                               {"a": "own"},
		`{a: ([.tags[] | explode[]] | add)}`:                                   {"a": "195"},
		`{a: (.customer_id | gsub("[0-4]"; "x")), b: (.customer_id | tojson)}`: {"a": "xxxx56789x", "b": `"1234567890"`},
		`{a: (reduce range(0; 1000) as $i (0; . + $i))}`:                       {"a": "499500"},
		`{}`: {},
	} {
		p, err := Compile(program)
		if err != nil {
			t.Error(err)
			continue
		}
		if got, err := p.Keys([]byte(record)); err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v %v, want %v", program, got, err, want)
		}
	}
}

func TestKeysRefuses(t *testing.T) {
	for _, c := range []struct{ program, record, want string }{
		{`{a: .region}`, record, `key "a" is null: give a default`},
		{`{a: .nosuch}`, record, `key "a" is null`},
		{`{a: .tags}`, record, `key "a" is an array: want a string, a number or a boolean`},
		{`{a: .type}`, record, `key "a" is an object`},
		{`{a: nan}`, record, `key "a" is no number`},
		{`{a: infinite}`, record, `key "a" is no number`},
		{`{a: ("x" * 2000)}`, record, "2000 bytes, above the limit of 1024"},
		{`[range(51)] | map({(tostring): 1}) | add`, record, "51 keys, above the limit of 50"},
		{`.tags[] | {a: .}`, record, "more than one result"},
		{`empty`, record, "no result"},
		{`.tags`, record, "gives an array, not an object"},
		{`{a: (.qty.x)}`, record, "expected an object but got: number"},
		{`error("no")`, record, "no"},
		{`{a: 1}`, ``, "the record is empty"},
		{`{a: 1}`, `{"a":`, "the record is no JSON"},
		{`{a: 1}`, `{"a":1}{"a":2}`, "something after its document, at byte 7"},
		{`{a: 1}`, "{\"a\":\"\xff\"}", "no UTF-8"},
		{`{a: 1}`, strings.Repeat("[", 100) + strings.Repeat("]", 100), "nested deeper than 64"},
	} {
		p, err := Compile(c.program)
		if err != nil {
			t.Error(err)
			continue
		}
		if got, err := p.Keys([]byte(c.record)); !errors.Is(err, ErrRecord) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v %v, want %q", c.program, got, err, c.want)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	for program, want := range map[string]string{
		`{a: .b`:                         "unexpected EOF at line 1, column 7",
		"{\n a: ]}":                      `unexpected token "]" at line 2, column 5`,
		`{a: .b | nosuch(1)}`:            "function not defined: nosuch/1",
		`{a: $x}`:                        "variable not defined: $x",
		`{a: env.HOME}`:                  "env is not supported: a program sees only the record",
		`{a: $ENV.HOME}`:                 "$ENV is not supported",
		`{a: now}`:                       "now is not supported: use a time of the record",
		`{a: (.t | localtime)}`:          "localtime is not supported: use gmtime",
		`{a: input}`:                     "one record at a time",
		`[inputs]`:                       "one record at a time",
		`debug`:                          "debug is not supported",
		`halt_error`:                     "halt_error is not supported",
		`import "a" as a; {}`:            "import and include are not supported",
		`include "a"; {}`:                "import and include are not supported",
		`.a += 1`:                        "write |= (. + …)",
		`.a *= 2`:                        "write |= (. * …)",
		`.a[.n] = 1`:                     "= together with the index .n is not supported",
		`.a[2000] |= 1`:                  "the index 2000",
		`setpath([.a]; 1)`:               "setpath together with its path",
		`getpath(["a", .n]) = 1`:         "getpath",
		`.a[1:.n] = []`:                  "the index .n",
		`transpose`:                      "transpose is not supported",
		`_multiply(1; 2)`:                "_multiply is not known",
		`$__tapehouse_budget`:            "is not known",
		`. as $__tapehouse_budget | 1`:   "is taken",
		`def _tapehouse_charge(x): .; .`: "is taken",
		strings.Repeat("1+", 3000) + "1": "above the limit of 5120",
	} {
		if p, err := Compile(program); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v %v, want %q", program, p, err, want)
		}
	}
}

func TestNames(t *testing.T) {
	for program, want := range map[string][]string{
		`{a: .x, "b": 1, c, $d}`:        {"a", "b", "c", "d"},
		`.x | {a: 1}`:                   {"a"},
		`def f: 1; .x as $d | ({a: f})`: {"a"},
		`{(.x): 1}`:                     nil,
		`{"\(.x)": 1}`:                  nil,
		`.x`:                            nil,
		`{a: 1}.a`:                      nil,
	} {
		if strings.Contains(program, "$d}") {
			program = `1 as $d | ` + program
		}
		p, err := Compile(program)
		if err != nil {
			t.Error(err)
			continue
		}
		if got, known := p.Names(); !slices.Equal(got, want) || known != (want != nil) {
			t.Errorf("%s: %v %v, want %v", program, got, known, want)
		}
	}
}

func TestRoute(t *testing.T) {
	p, err := Compile(`{destinationDatabaseName: .db, destinationTableName: .t, operation: (.op // "insert")}`)
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]any{
		`{"db":"a","t":"b"}`:                Route{"a", "b", Insert},
		`{"db":"a","t":"b","op":"DELETE"}`:  Route{"a", "b", Delete},
		`{"db":"a","t":"b","op":"update"}`:  Route{"a", "b", Update},
		`{"db":"","t":"b"}`:                 "destinationDatabaseName is missing",
		`{"db":"a","t":""}`:                 "destinationTableName is missing",
		`{"db":"a","t":"b","op":"replace"}`: `operation "replace": want insert, update or delete`,
		`{"t":"b"}`:                         "is null",
	} {
		got, err := p.Route([]byte(in))
		if text, refused := want.(string); refused {
			if !errors.Is(err, ErrRecord) || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v, want %q", in, err, text)
			}
		} else if err != nil || got != want {
			t.Errorf("%s: %v %v, want %v", in, got, err, want)
		}
	}
}

// TestBounds has programs that would run or grow for ever, by themselves or by what a
// record says.
func TestBounds(t *testing.T) {
	large, err := json.Marshal(map[string]any{"n": 400_000_000, "s": strings.Repeat("x", 500_000), "a": make([]int, 100_000), "q": strings.Repeat(`"`, 300_000)})
	if err != nil {
		t.Fatal(err)
	}
	for program, want := range map[string]string{
		`def f: f; f`:                                           "steps",
		`def f: 1 + f; f`:                                       "steps",
		`[repeat(1)]`:                                           "steps",
		`[range(1e9)] | length`:                                 "steps",
		`[limit(1e9; repeat(1))]`:                               "steps",
		`last(range(1e12))`:                                     "steps",
		`{a: (.s * .n)}`:                                        "bytes",
		`{a: ("x" * .n)}`:                                       "bytes",
		`{a: ("x" * 1e300)}`:                                    "bytes",
		`reduce range(100) as $i ("x"; . + .)`:                  "bytes",
		`reduce range(100) as $i ("x"; "\(.)\(.)")`:             "bytes",
		`reduce range(100) as $i ([1]; . + .)`:                  "bytes",
		`reduce range(60) as $i (1; [., .]) | tojson`:           "bytes",
		`reduce range(60) as $i (1; [., .]) | tostring`:         "bytes",
		`reduce range(60) as $i (1; [., .]) | @json`:            "bytes",
		`reduce range(60) as $i (1; [., .]) | flatten`:          "bytes",
		`reduce range(60) as $i (1; [., .]) | . == .`:           "bytes",
		`reduce range(60) as $i (1; {a: ., b: .}) | error`:      "bytes",
		`reduce range(60) as $i ([1, 2]; . as $d | map($d))`:    "bytes",
		`reduce range(60) as $i ([1, 2]; . as $d | .[] |= $d)`:  "bytes",
		`.a as $a | .a | sort_by($a)`:                           "bytes",
		`.a - .a`:                                               "bytes",
		`.a | contains(.)`:                                      "bytes",
		`.a | {n: (indices(.) | length)}`:                       "bytes",
		`reduce range(60) as $i ("\""; tojson)`:                 "bytes",
		`.s as $s | [range(1000) | $s] | add`:                   "bytes",
		`.s as $s | [range(5000) | "x"] | join($s)`:             "bytes",
		`.s as $s | .q | gsub("\""; $s)`:                        "bytes",
		`reduce range(60) as $i (7; . * . )`:                    "",
		`reduce range(30) as $i (123456789012345678901; . * .)`: "bytes",
		`[.a[] | [1]] | map(.[0]) | {n: length}`:                "steps",
	} {
		t.Run(program, func(t *testing.T) {
			p, err := Compile(program)
			if err != nil {
				t.Fatal(err)
			}
			if _, err = p.Keys(large); !errors.Is(err, ErrRecord) || !strings.Contains(err.Error(), want) {
				t.Errorf("%.200v, want %q", err, want)
			}
		})
	}
}

func TestConcurrentUse(t *testing.T) {
	p, err := Compile(`{a: ("x" * .n), b: ([range(.n)] | length)}`)
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for n := 1; n <= 8; n++ {
		wait.Go(func() {
			for range 100 {
				keys, err := p.Keys(fmt.Appendf(nil, `{"n":%d}`, n))
				if err != nil || len(keys["a"]) != n || keys["b"] != fmt.Sprint(n) {
					t.Errorf("%d: %v %v", n, keys, err)
				}
			}
		})
	}
	wait.Wait()
}

// TestAgainstJq holds programs to the jq command: the guards change nothing.
func TestAgainstJq(t *testing.T) {
	command, err := exec.LookPath("jq")
	if err != nil {
		t.Skip("SKIPPED: jq is not installed")
	}
	for _, program := range []string{
		`{customer_id, device: .type.device, year: (.event_timestamp|strftime("%Y"))}`,
		`{a: (.tags | join("/")), b: (.tags + ["c"] | length), c: (.type + {x: 1} | keys | tojson)}`,
		`{a: ([.tags[] | . + "x"] | add), b: (.price * 2), c: ("ab" * 3), d: ({a:{b:1}} * {a:{c:2}} | tostring)}`,
		`{a: "\(.qty + 1)-\(.tags | map(ascii_upcase) | join(","))", b: @base64 "x\(.customer_id)", c: (.customer_id | @uri)}`,
		`{a: (.customer_id | gsub("[0-4]"; "x")), b: ([.customer_id | scan("[0-9]{3}")] | join("|")), c: (.customer_id | sub("1"; "y"))}`,
		`[.tags, [1, 2]] | {a: ([combinations | map(tostring) | join("")] | join(" "))}`,
		`{a: ([paths | map(tostring) | join(".")] | sort | join(" "))}`,
		`{a: ((1, 2) + (10, 20) | tostring)} | select(.a == "22")`,
		`[(1, 2) * (10, 20)] | {a: (map(tostring) | join(","))}`,
		`[(1, 2) + (10, 20)] | {a: (map(tostring) | join(","))}`,
		`(.tags[1] |= . + "z") | {a: .tags[1], b: (.type | to_entries | map(.key + "=" + .value) | join("&"))}`,
		`{a: ([limit(3; range(10))] | add), b: ([.tags | indices("a")] | flatten | length), c: ("a,b" | split(",") | length)}`,
		`.type | with_entries(.value |= . + "!") | {device}`,
		`{a: (.tags - ["a"] | length), b: (.tags | contains(["a"])), c: ("abc" | index("c")), d: (["a"] | inside(["a", "b"])), e: (5 - 3)}`,
		`[(1, 2) - (10, 20)] | {a: (map(tostring) | join(","))}`,
		`{a: (try error("x") catch . + "y"), b: (.nosuch? // "d"), c: (if .ok then "t" else "f" end)}`,
		`{a: (.tags | map(explode) | flatten | implode), b: (.event_timestamp | todate), c: ([.tags[] | {(.): 1}] | add | keys | add)}`,
	} {
		p, err := Compile(program)
		if err != nil {
			t.Error(err)
			continue
		}
		got, err := p.Keys([]byte(record))
		cmd := exec.Command(command, "-c", program)
		cmd.Stdin = strings.NewReader(record)
		out, jqErr := cmd.Output()
		if err != nil || jqErr != nil {
			t.Errorf("%s: %v; jq: %v", program, err, jqErr)
			continue
		}
		var values map[string]any
		if err := json.Unmarshal(out, &values); err != nil {
			t.Errorf("%s: %v", program, err)
			continue
		}
		want := map[string]string{}
		for k, v := range values {
			want[k] = fmt.Sprint(v)
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: %v, jq gives %v", program, got, want)
		}
	}
}

// FuzzProgram: no program and no record panics, hangs or grows without bound.
func FuzzProgram(f *testing.F) {
	f.Add(`{a: .b, c: ("x" * .n)}`, `{"b":1,"n":3}`)
	f.Add(`.a[1:] |= map(. + 1) | {a: "\(.a)"}`, `{"a":[1,2]}`)
	f.Add(`def f($x; y): reduce y as $z ($x; . + $z); {a: f(1; .b[])} as {a: $q} | {$q}`, `{"b":[1.5,2]}`)
	f.Add(`{a: ([.[] | tojson | @html] | add | gsub("a"; "b"))}`, `["a"]`)
	f.Fuzz(func(t *testing.T, program, record string) {
		p, err := Compile(program)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		first, err1 := p.Keys([]byte(record))
		second, err2 := p.Keys([]byte(record))
		if (err1 == nil) != (err2 == nil) && !strings.Contains(fmt.Sprint(err1, err2), errTime.Error()) || !maps.Equal(first, second) {
			t.Fatalf("%v %v, then %v %v", first, err1, second, err2)
		}
		if err1 == nil { // then the program is harmless as it stands, too
			if plain, err := unconfined(program).Keys([]byte(record)); err != nil || !maps.Equal(first, plain) {
				t.Fatalf("%v, without the guards %v %v", first, plain, err)
			}
		}
	})
}

// unconfined compiles a program without the guards.
func unconfined(program string) *Program {
	q, err := gojq.Parse(program)
	if err != nil {
		panic(err)
	}
	code, err := gojq.Compile(q, gojq.WithVariables([]string{budgetVariable}))
	if err != nil {
		panic(err)
	}
	return &Program{code: code}
}

func BenchmarkKeys(b *testing.B) {
	p, err := Compile(`{customer_id: .customer_id, device: .type.device, year: .event_timestamp|strftime("%Y")}`)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := p.Keys([]byte(record)); err != nil {
			b.Fatal(err)
		}
	}
}
