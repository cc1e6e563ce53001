package glue

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/awsapi"
)

var rewrite = flag.Bool("rewrite", false, "write model.txt anew from AWS's service model")

// interpreter is a Python that has botocore, or "".
func interpreter() string {
	program, err := exec.LookPath("python3")
	if err != nil || exec.Command(program, "-c", "import botocore").Run() != nil {
		return ""
	}
	return program
}

// python runs a script of testdata, or skips the test.
func python(t *testing.T, args ...string) string {
	t.Helper()
	program := interpreter()
	if program == "" {
		t.Skip("SKIPPED: no python3 with botocore on this machine: the API was not held against AWS's service model")
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	return string(out)
}

// TestModel fails when AWS's model has an operation more, or changes what one takes.
func TestModel(t *testing.T) {
	var supported []string
	for name := range operations {
		supported = append(supported, name)
	}
	slices.Sort(supported)
	text := python(t, append([]string{"testdata/model.py"}, supported...)...)
	if *rewrite {
		if err := os.WriteFile("model.txt", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if text != modelText {
		t.Error("model.txt is not what AWS's model says: look at what is new in it, and run the tests with -rewrite")
	}
	all := strings.Fields(python(t, "testdata/model.py"))
	for _, name := range all {
		_, is := operations[name]
		if refusals[name] == "" && !is {
			t.Errorf("the operation %s is neither supported nor refused", name)
		}
	}
	if n := len(operations) + len(refusals); n != len(all) {
		t.Errorf("%d operations are supported or refused, the model has %d", n, len(all))
	}
	for _, f := range refusedFamilies {
		for name := range strings.FieldsSeq(f.operations) {
			if !slices.Contains(all, name) {
				t.Errorf("%s is refused, and no operation", name)
			}
		}
	}
}

// answered are the answers of the other tests, by operation.
var answered struct {
	sync.Mutex
	list [][2]any
}

func note(operation, answer string) {
	answered.Lock()
	defer answered.Unlock()
	if len(answer) < 100_000 && len(answered.list) < 5000 && json.Valid([]byte(answer)) {
		answered.list = append(answered.list, [2]any{operation, json.RawMessage(answer)})
	}
}

// TestMain holds the answers that the tests got against the model, once they ran.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 && len(answered.list) > 0 {
		if err := checkAnswers(); err != nil {
			fmt.Println("answers are not what AWS's model says:", err)
			code = 1
		}
	}
	os.Exit(code)
}

func checkAnswers() error {
	program := interpreter()
	if program == "" {
		fmt.Println("SKIPPED: no python3 with botocore on this machine: the answers were not held against AWS's service model")
		return nil
	}
	in, err := json.Marshal(answered.list)
	if err != nil {
		return err
	}
	cmd := exec.Command(program, "testdata/answers.py")
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.CombinedOutput()
	if err != nil || len(out) > 0 {
		return errors.Join(err, errors.New(string(out)))
	}
	return nil
}

// ignored are members that change no answer: they are for AWS's own records, or ask
// for what is never there.
var ignored = []string{"AuditContext", "QuerySessionContext", "IncludeStatusDetails", "IcebergInput.MetadataOperation", "GetUserDefinedFunctionsRequest.Pattern", "GetUserDefinedFunctionsRequest.FunctionType",
	"GetUserDefinedFunctionsRequest.NextToken", "GetUserDefinedFunctionsRequest.MaxResults"}

// fieldsOf are the members of a Go type, as encoding/json knows them.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			for k, v := range fieldsOf(f.Type) {
				if _, ok := out[k]; !ok {
					out[k] = v
				}
			}
			continue
		}
		if name == "" {
			name = f.Name
		}
		out[name] = f.Type
	}
	return out
}

// TestEveryMember: each member that a client can send is read by the operation,
// refused by name, or known to change nothing.
func TestEveryMember(t *testing.T) {
	var walk func(s *shape, typ reflect.Type)
	walk = func(s *shape, typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice && s.kind != "blob" {
			typ = typ.Elem()
			if s.kind == "list" {
				s = s.element
			}
		}
		if s.kind != "structure" {
			return
		}
		if typ.Kind() != reflect.Struct {
			t.Errorf("%s is read into %s", s.name, typ)
			return
		}
		fields := fieldsOf(typ)
		for _, m := range s.members {
			name := s.name + "." + m.name
			field, read := fields[m.name]
			_, refused := refusedMembers[name]
			if known := slices.Contains(ignored, name) || slices.Contains(ignored, m.name); read && (refused || known) || !read && !refused && !known {
				t.Errorf("%s: read %v, refused %v, ignored %v", name, read, refused, known)
			}
			if read {
				walk(m.shape, field)
			}
		}
	}
	for name, o := range operations {
		walk(inputs[name], o.input)
	}
	for name := range refusedMembers {
		structure, member, _ := strings.Cut(name, ".")
		if !regexp.MustCompile(`(?m)^structure ` + structure + `\n(  .*\n)*  ` + member + `!? `).MatchString(modelText) {
			t.Errorf("%s is refused, and no member", name)
		}
	}
}

// least is the least valid value of a shape.
func least(s *shape) any {
	switch s.kind {
	case "structure":
		out := map[string]any{}
		for _, m := range s.members {
			if m.required {
				out[m.name] = least(m.shape)
			}
		}
		return out
	case "list":
		out := []any{}
		for n, _ := strconv.Atoi(s.low); n > 0; n-- {
			out = append(out, least(s.element))
		}
		return out
	case "map":
		return map[string]any{}
	case "enum":
		return s.words[0]
	case "boolean":
		return true
	case "blob":
		return "AA=="
	case "document":
		return "long"
	case "integer", "long", "double", "timestamp":
		if s.low != "" {
			return json.Number(s.low)
		}
		return 1
	}
	n, _ := strconv.Atoi(s.low)
	for _, text := range []string{strings.Repeat("x", max(n, 1)), "arn:aws:glue:us-east-1:000000000000:database/x", "00000000-0000-0000-0000-000000000000"} {
		if constraints, _ := s.check(text); len(constraints) == 0 {
			return text
		}
	}
	panic("no least value of " + s.name)
}

type breach struct {
	body        any
	path, words string
}

// breaches breaks each constraint of a shape once, and nothing else.
func breaches(s *shape, path string, put func(any) any) (out []breach) {
	add := func(value any, words string) { out = append(out, breach{put(value), path, words}) }
	number := func(bound string, by int) any { n, _ := strconv.Atoi(bound); return n + by }
	switch s.kind {
	case "integer", "long", "double":
		if s.low != "" {
			add(number(s.low, -1), "Member must have value greater than or equal to "+s.low)
		}
		if s.high != "" {
			add(number(s.high, 1), "Member must have value less than or equal to "+s.high)
		}
	case "enum":
		add("no such word", "Member must satisfy enum value set: ["+strings.Join(s.words, ", ")+"]")
	case "string":
		if n, _ := strconv.Atoi(s.low); n > 0 && s.name != catalogIDShape {
			add("", "Member must have length greater than or equal to "+s.low)
		}
		if n, _ := strconv.Atoi(s.high); n > 0 {
			add(strings.Repeat("x", n+1), "Member must have length less than or equal to "+s.high)
		}
		if s.pattern != nil {
			add("\u0001\u0002", "Member must satisfy regular expression pattern: "+s.pattern.text)
		}
	case "list":
		if n, _ := strconv.Atoi(s.low); n > 0 {
			add([]any{}, "Member must have length greater than or equal to "+s.low)
		}
		if n, _ := strconv.Atoi(s.high); n > 0 {
			many := make([]any, n+1)
			for i := range many {
				many[i] = least(s.element)
			}
			add(many, "Member must have length less than or equal to "+s.high)
		}
		out = append(out, breach{put([]any{nil}), path + ".1.member", "Member must not be null"})
		out = append(out, breaches(s.element, path+".1.member", func(v any) any { return put([]any{v}) })...)
	case "map":
		if n, _ := strconv.Atoi(s.high); n > 0 {
			many := map[string]any{}
			for i := range n + 1 {
				many[fmt.Sprint("k", i)] = least(s.element)
			}
			add(many, "Member must have length less than or equal to "+s.high)
		}
		if s.key.low != "" {
			add(map[string]any{"": least(s.element)}, "Map keys must satisfy constraint: [Member must have length greater than or equal to "+s.key.low)
		}
		if n, _ := strconv.Atoi(s.element.high); n > 0 {
			add(map[string]any{"k": strings.Repeat("x", n+1)}, "Map value must satisfy constraint: [Member must have length less than or equal to "+s.element.high)
		}
	case "structure":
		for _, m := range s.members {
			with := func(v any) any {
				base := least(s).(map[string]any)
				base[m.name] = v
				return put(base)
			}
			if m.required {
				out = append(out, breach{with(nil), join(path, m.path), "Member must not be null"})
			}
			out = append(out, breaches(m.shape, join(path, m.path), with)...)
		}
	}
	return out
}

// TestConstraints: each constraint of the model is refused by its path and in AWS's
// words, before anything is looked at.
func TestConstraints(t *testing.T) {
	w := newWorld(t)
	n := 0
	for operation := range operations {
		for _, b := range breaches(inputs[operation], "", func(v any) any { return v }) {
			n++
			body, err := json.Marshal(b.body)
			if err != nil {
				t.Fatal(err)
			}
			want := " at '" + b.path + "' failed to satisfy constraint: " + b.words
			if got := w.call(operation, string(body)); !strings.HasPrefix(got, "ValidationException: ") || !strings.Contains(got, want) {
				t.Errorf("%s %.300s\n got %.300s\nwant … %s", operation, body, got, want)
			}
		}
	}
	if n < 900 {
		t.Fatalf("only %d constraints were tried", n)
	}
	t.Logf("%d constraints tried", n)
	w.steps(
		step{"GetDatabase", `{}`, `ValidationException: 1 validation error detected: Value null at 'name' failed to satisfy constraint: Member must not be null`},
		step{"UpdateDatabase", `{"Name":"","DatabaseInput":{"Name":""}}`, "…ValidationException: 2 validation errors detected: Value '' at 'name' failed to satisfy constraint: Member must have length greater than or equal to 1; Value '' at 'databaseInput.name'"},
		step{"GetDatabase", `{"Name":"x","CatalogId":""}`, "EntityNotFoundException: Database x not found."},
		step{"GetTables", `{"DatabaseName":"x","MaxResults":101}`, `ValidationException: 1 validation error detected: Value '101' at 'maxResults' failed to satisfy constraint: Member must have value less than or equal to 100`},
	)
}

// A body that is not what a decoder of the model reads is refused, or read alike by
// everybody.
func TestBodies(t *testing.T) {
	w := newWorld(t)
	deep := strings.Repeat(`[`, 200) + strings.Repeat(`]`, 200)
	for body, want := range map[string]string{
		``:                                 "SerializationException: The body is not valid JSON.",
		`null`:                             "SerializationException: The body is null, not an object.",
		`[]`:                               "SerializationException: A list can not be converted to the type of , which is structure.",
		`{"Name":"x"`:                      "SerializationException: The body is not valid JSON.",
		`{"Name":"x"} {}`:                  "SerializationException: The body is not valid JSON.",
		`{"Name":"x",}`:                    "SerializationException: The body is not valid JSON.",
		`{"Name":1}`:                       "SerializationException: A number can not be converted to the type of name, which is string.",
		`{"Name":["x"]}`:                   "SerializationException: A list can not be converted to the type of name, which is string.",
		`{"Name":"x","Name":"y"}`:          "SerializationException: The member Name stands twice.",
		`{"Name":"` + "\xff" + `"}`:        "SerializationException: The body is not valid UTF-8.",
		`{"name":"x"}`:                     "ValidationException: 1 validation error detected: Value null at 'name' failed to satisfy constraint: Member must not be null",
		`{"Name":"x","name":"y"}`:          "EntityNotFoundException: Database x not found.",
		`{"Na\u006de":"x","NAME":"y"}`:     "EntityNotFoundException: Database x not found.",
		`{"Name":"x","More":` + deep + `}`: "SerializationException: The body is nested deeper than 100.",
		`{"Name":"x","More":{"a":[1,{}]}}`: "EntityNotFoundException: Database x not found.",
		`{"Name":"x","CatalogId":null}`:    "EntityNotFoundException: Database x not found.",
		`{"Name":"x` + "\U0001F600" + `"}`: "EntityNotFoundException: Database x\U0001F600 not found.",
	} {
		if got := w.call("GetDatabase", body); got != want {
			t.Errorf("%.100s\n got %s\nwant %s", body, got, want)
		}
	}
	w.steps(
		step{"GetTables", `{"DatabaseName":"x","MaxResults":1.5}`, "SerializationException: A number can not be converted to the type of maxResults, which is integer."},
		step{"GetTables", `{"DatabaseName":"x","MaxResults":99999999999}`, "SerializationException: A number can not be converted to the type of maxResults, which is integer."},
		step{"CreateDatabase", `{"DatabaseInput":{"Name":"x","Parameters":{"a":1}}}`, "SerializationException: A number can not be converted to the type of the values of databaseInput.parameters, which is string."},
		step{"CreateDatabase", `{"DatabaseInput":{"Name":"x","Parameters":{"a":null}}}`, "SerializationException: The map databaseInput.parameters has an entry without a value."},
		step{"UpdateTable", `{"DatabaseName":"x","SkipArchive":"true"}`, "SerializationException: A string can not be converted to the type of skipArchive, which is boolean."},
		step{"CreateTable", `{"DatabaseName":"x","TableInput":{"Name":"y","StorageDescriptor":{"Columns":[` + strings.Repeat("{},", 10_000) + `{}]}}}`, "SerializationException: The list tableInput.storageDescriptor.columns has more than 10000 members."},
	)
}

// TestDocumentation: docs/catalog.md names every operation of the model, and every
// member that is refused, with the words of its refusal.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/catalog.md")
	if err != nil {
		t.Fatal(err)
	}
	words := map[string]bool{}
	for _, w := range regexp.MustCompile(`[\w.]+\w`).FindAllString(string(text), -1) {
		words[w] = true
	}
	for name := range operations {
		if !words[name] {
			t.Errorf("docs/catalog.md lacks the operation %s", name)
		}
	}
	for name, why := range refusals {
		if !words[name] || !strings.Contains(string(text), why) {
			t.Errorf("docs/catalog.md lacks the operation %s, or that %s", name, why)
		}
	}
	for name, why := range refusedMembers {
		if !words[name] || !strings.Contains(string(text), why) {
			t.Errorf("docs/catalog.md lacks the member %s, or that %s", name, why)
		}
	}
}

// TestEveryOperationCanBeGranted: each operation that is supported stands in the one
// table of what grants can allow: one that does not would be open to administrators
// only.
func TestEveryOperationCanBeGranted(t *testing.T) {
	known := auth.Operations(signingName)
	for name := range operations {
		reads := strings.HasPrefix(name, "Get") || strings.HasPrefix(name, "BatchGet") || strings.HasPrefix(name, "Search") || strings.HasPrefix(name, "List")
		if want := map[bool]string{true: auth.GroupRead, false: auth.GroupAdmin}[reads]; known[name] != want {
			t.Errorf("%s is in the group %q, want %q", name, known[name], want)
		}
		delete(known, name)
	}
	for name := range known {
		t.Errorf("%s can be granted, but is not supported", name)
	}
}

func TestResource(t *testing.T) {
	h := newWorld(t).h
	one := func(streams ...string) *auth.Policy {
		p, err := auth.NewPolicy(auth.Grant{Service: "glue", Operations: []string{"read", "admin"}, Streams: streams})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	desk, trades, t1 := one("desk", "desk.*"), one("desk.tr?des"), one("desk.??????", "desk.t*")
	for _, c := range []struct {
		operation, body, arn string
		desk, trades, t1     bool
	}{
		{"GetDatabase", `{"Name":"Desk"}`, "database/desk", true, false, false},
		{"DeleteDatabase", `{"Name":"other"}`, "database/other", false, false, false},
		{"GetDatabase", `{"Name":"desk","name":"other"}`, "*", false, false, false},
		{"CreateDatabase", `{"DatabaseInput":{"Name":"desk"},"DatabaseName":"desk","TableName":"x"}`, "*", false, false, false},
		{"GetDatabases", `{}`, "*", false, false, false},
		{"SearchTables", `{"DatabaseName":"desk"}`, "*", false, false, false}, // it takes no such member
		{"GetTable", `{"DatabaseName":"DESK","Name":"Trades"}`, "table/desk/trades", true, true, true},
		{"DeleteTable", `{"DatabaseName":"desk","Name":"quotes"}`, "table/desk/quotes", true, false, true},
		{"GetTables", `{"DatabaseName":"desk"}`, "table/desk/*", true, false, false},
		{"UpdateTable", `{"DatabaseName":"desk","TableInput":{"Name":"trades"}}`, "table/desk/*", true, false, false},
		{"UpdateTable", `{"DatabaseName":"desk","Name":"trades","TableInput":{"Name":"quotes"}}`, "table/desk/*", true, false, false},
		{"BatchDeleteTable", `{"DatabaseName":"desk","TablesToDelete":["trades"]}`, "table/desk/*", true, false, false},
		{"GetPartitions", `{"DatabaseName":"desk","TableName":"trades"}`, "table/desk/trades", true, true, true},
		{"CreatePartition", `{"DatabaseName":"desk","TableName":"tr\u0061des"}`, "table/desk/*", true, false, false},
		{"TagResource", `{"ResourceArn":"arn:aws:glue:us-east-1:000000000000:table/desk/trades"}`, "*", false, false, false},
		{"TagResource", `{"ResourceArn":"x","DatabaseName":"desk","TableName":"trades"}`, "*", false, false, false},
	} {
		name, arn := h.resource(c.operation, []byte(c.body))
		allows := func(p *auth.Policy) bool { return p.Allows("glue", c.operation, name) }
		if got := [3]bool{allows(desk), allows(trades), allows(t1)}; arn != "arn:aws:glue:us-east-1:000000000000:"+c.arn || got != [3]bool{c.desk, c.trades, c.t1} {
			t.Errorf("%s %s: %s %v", c.operation, c.body, arn, got)
		}
	}
}

// FuzzDecode holds that any body is refused or read, and that an operation never
// reads another table than authorization does.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"DatabaseName":"a","Name":"b"}`, `{"databasename":"x","DatabaseName":"a","Name":"b","TableName":"c"}`, `{"DatabaseName":"a","TableInput":{"Name":"n","Parameters":{"a":"b"}}}`,
		`{"Na\u006de":"b","x":[{"DatabaseName":"q"}],"DatabaseName":"\u0061"}`, `{"DatabaseName":"a","TableName":"t","PartitionInputList":[{"Values":["1"]},{}]}`} {
		f.Add(s)
	}
	h := &Handler{region: "r", account: "a"}
	f.Fuzz(func(t *testing.T, body string) {
		for _, operation := range []string{"GetTable", "GetPartitions", "UpdateTable", "BatchCreatePartition", "UpdateColumnStatisticsForPartition"} {
			resource, _ := h.resource(operation, []byte(body))
			in := reflect.New(operations[operation].input).Interface()
			err := decode(operation, []byte(body), in)
			var e *awsapi.Error
			if err != nil {
				if !errors.As(err, &e) {
					t.Fatalf("%s %q: %v", operation, body, err)
				}
				continue
			}
			database, table := "", anyTable
			switch in := in.(type) {
			case *getTableInput:
				database, table = in.DatabaseName, in.Name
			case *getPartitionsInput:
				database, table = in.DatabaseName, in.TableName
			case *updateTableInput:
				database = in.DatabaseName
			case *partitionsInput:
				database, table = in.DatabaseName, in.TableName
			case *statisticsInput:
				database, table = in.DatabaseName, in.TableName
			}
			if resource != auth.AnyStream && resource != strings.ToLower(database+"."+table) && resource != strings.ToLower(database)+"."+anyTable {
				t.Fatalf("%s %q: authorized for %s, read %s.%s", operation, body, resource, database, table)
			}
		}
	})
}
