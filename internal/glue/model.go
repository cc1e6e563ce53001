package glue

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tapehouse/tapehouse/internal/awsapi"
)

//go:embed model.txt
var modelText string

// shape is a type of the service model.
type shape struct {
	kind    string // structure, list, map, string, enum, integer, long, double, boolean, timestamp, blob, document
	name    string
	members []member // of a structure
	element *shape   // of a list, or the values of a map
	key     *shape   // of a map
	words   []string // of an enum
	low     string   // "" is unbounded
	high    string
	pattern *pattern // of a string; nil is any
}

type member struct {
	name     string
	path     string // as AWS's messages spell it
	required bool
	shape    *shape
}

// pattern is a constraint of the model in Java's words and as a check.
type pattern struct {
	text string
	re   *regexp.Regexp
}

// inputs are the shapes that operations take, by the operation's name.
var inputs = parseModel(modelText)

// parseModel reads model.txt. It panics on a text that testdata/model.py does not
// write.
func parseModel(text string) map[string]*shape {
	shapes := map[string]*shape{}
	named := func(name string) *shape {
		if shapes[name] == nil {
			shapes[name] = &shape{name: name}
		}
		return shapes[name]
	}
	bound := func(s string) string {
		if s == "-" {
			return ""
		}
		return strings.TrimSuffix(s, ".0")
	}
	patterns := map[string]*pattern{}
	operations := map[string]*shape{}
	var last *shape
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) == 0 || f[0] == "#":
			continue
		case line[0] == ' ':
			name, required := strings.CutSuffix(f[0], "!")
			last.members = append(last.members, member{name, lowerFirst(name), required, named(f[1])})
			continue
		case f[0] == "operation":
			operations[f[1]] = named(f[2])
			continue
		}
		last = named(f[1])
		last.kind = f[0]
		switch f[0] {
		case "structure", "document", "boolean", "timestamp", "blob":
		case "enum":
			last.words = f[2:]
		case "list":
			last.low, last.high, last.element = bound(f[2]), bound(f[3]), named(f[4])
		case "map":
			last.low, last.high, last.key, last.element = bound(f[2]), bound(f[3]), named(f[4]), named(f[5])
		default:
			last.low, last.high = bound(f[2]), bound(f[3])
			if len(f) > 4 {
				p := patterns[f[4]]
				if p == nil {
					p = &pattern{f[4], regexp.MustCompile("^(?:" + goPattern(f[4]) + ")$")}
					patterns[f[4]] = p
				}
				last.pattern = p
			}
		}
	}
	for _, s := range shapes {
		if s.kind == "" {
			panic("glue: model.txt lacks the shape " + s.name)
		}
	}
	return operations
}

// goPattern spells a pattern of Java's for Go, where a character above U+FFFF is
// one and not two.
func goPattern(java string) string {
	java = strings.ReplaceAll(java, `\uD800\uDC00-\uDBFF\uDFFF`, `\x{10000}-\x{10FFFF}`)
	return regexp.MustCompile(`\\u([0-9A-F]{4})`).ReplaceAllString(java, `\x{$1}`)
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }

// catalogIDShape is the shape of every CatalogId.
const catalogIDShape = "CatalogIdString"

// Bounds of a body's content, beside those of the model.
const (
	nestingMax   = 100
	elementsMax  = 10_000 // of a list or a map without a bound
	membersOfMax = 1_000  // of a structure, with those that are ignored
)

// decode reads the body of an operation into in, whose members have the model's
// names. It checks the constraints of the model, then whether a member that is
// refused by name is there. Members that the model does not have are ignored, and
// so are those that have another case. It may change the body.
func decode(operation string, body []byte, in any) error {
	if !utf8.Valid(body) {
		return awsapi.BadRequest(awsapi.CodeSerialization, "The body is not valid UTF-8.")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	c := &checker{body: body, d: d}
	present, err := c.value(inputs[operation], "", "", 0)
	if err == nil {
		if _, e := d.Token(); !errors.Is(e, io.EOF) {
			err = errSyntax
		} else if !present {
			err = awsapi.BadRequest(awsapi.CodeSerialization, "The body is null, not an object.")
		}
	}
	if err == nil {
		err = c.err()
	}
	if err != nil {
		return err
	}
	if c.refusal != "" {
		return invalid(c.refusal)
	}
	if err := json.Unmarshal(body, in); err != nil {
		return errSyntax
	}
	return nil
}

var errSyntax = awsapi.BadRequest(awsapi.CodeSerialization, "The body is not valid JSON.")

// checker holds a body against the model while it reads it once.
type checker struct {
	violations
	body    []byte
	d       *json.Decoder
	refusal string // of the first member that is refused by name
}

func (c *checker) token() (json.Token, error) {
	t, err := c.d.Token()
	if err != nil {
		return nil, errSyntax
	}
	return t, nil
}

// value checks the value that comes next. present is false for null. of names the
// structure's member that it is the value of.
func (c *checker) value(s *shape, path, of string, depth int) (present bool, err error) {
	t, err := c.token()
	if err != nil || t == nil {
		return false, err
	}
	if depth > nestingMax {
		return false, awsapi.BadRequest(awsapi.CodeSerialization, fmt.Sprintf("The body is nested deeper than %d.", nestingMax))
	}
	if why, ok := refusedMembers[of]; ok && c.refusal == "" {
		c.refusal = why
	}
	mismatch := func() error {
		return awsapi.BadRequest(awsapi.CodeSerialization, "A "+kindOf(t)+" can not be converted to the type of "+path+", which is "+s.kind+".")
	}
	switch s.kind {
	case "document":
		return true, c.skip(t, depth)
	case "structure":
		if t != json.Delim('{') {
			return false, mismatch()
		}
		return true, c.structure(s, path, depth)
	case "list":
		if t != json.Delim('[') {
			return false, mismatch()
		}
		return true, c.list(s, path, depth)
	case "map":
		if t != json.Delim('{') {
			return false, mismatch()
		}
		return true, c.mapping(s, path, depth)
	}
	constraints, ok := s.check(t)
	if !ok {
		return false, mismatch()
	}
	if s.name == catalogIDShape && t == "" {
		return true, nil // Terraform sends it where it may not ask for the account
	}
	for _, constraint := range constraints {
		c.add(shown(t), path, constraint)
	}
	return true, nil
}

func kindOf(t json.Token) string {
	switch t.(type) {
	case string:
		return "string"
	case json.Number:
		return "number"
	case bool:
		return "boolean"
	}
	if t == json.Delim('[') {
		return "list"
	}
	return "structure"
}

// check holds a scalar against its constraints; ok is false if it is of another
// type.
func (s *shape) check(t json.Token) (constraints []string, ok bool) {
	text, isText := t.(string)
	number, isNumber := t.(json.Number)
	switch s.kind {
	case "boolean":
		_, ok = t.(bool)
		return nil, ok
	case "timestamp":
		return nil, isNumber
	case "blob":
		_, err := base64.StdEncoding.DecodeString(text)
		return nil, isText && err == nil
	case "double":
		if isText {
			return nil, text == "NaN" || text == "Infinity" || text == "-Infinity"
		}
		n, err := number.Float64()
		if err != nil {
			return nil, false
		}
		return s.bounds(func(bound string) int { b, _ := strconv.ParseFloat(bound, 64); return compare(n, b) }, "value"), isNumber
	case "integer", "long":
		bits := 64
		if s.kind == "integer" {
			bits = 32
		}
		n, err := strconv.ParseInt(string(number), 10, bits)
		if err != nil || !isNumber {
			return nil, false
		}
		return s.bounds(func(bound string) int { b, _ := strconv.ParseInt(bound, 10, 64); return compare(n, b) }, "value"), true
	}
	if !isText {
		return nil, false
	}
	if s.kind == "enum" {
		for _, w := range s.words {
			if w == text {
				return nil, true
			}
		}
		return []string{"Member must satisfy enum value set: [" + strings.Join(s.words, ", ") + "]"}, true
	}
	constraints = s.lengths(utf8.RuneCountInString(text))
	if s.pattern != nil && !s.pattern.re.MatchString(text) {
		constraints = append(constraints, "Member must satisfy regular expression pattern: "+s.pattern.text)
	}
	return constraints, true
}

func compare[N int64 | float64](a, b N) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (s *shape) lengths(n int) []string {
	return s.bounds(func(bound string) int { b, _ := strconv.Atoi(bound); return compare(int64(n), int64(b)) }, "length")
}

// bounds words the bounds that are broken; to compares with one of them.
func (s *shape) bounds(to func(bound string) int, what string) (out []string) {
	if s.low != "" && to(s.low) < 0 {
		out = append(out, "Member must have "+what+" greater than or equal to "+s.low)
	}
	if s.high != "" && to(s.high) > 0 {
		out = append(out, "Member must have "+what+" less than or equal to "+s.high)
	}
	return out
}

func (c *checker) structure(s *shape, path string, depth int) error {
	present := make([]bool, len(s.members))
	seen := make([]bool, len(s.members))
	for n := 0; c.d.More(); n++ {
		t, err := c.token()
		if err != nil {
			return err
		}
		name, _ := t.(string)
		if n == membersOfMax {
			return awsapi.BadRequest(awsapi.CodeSerialization, fmt.Sprintf("The body has a structure of more than %d members.", membersOfMax))
		}
		i := s.member(name)
		if i < 0 {
			c.spoil(s, name)
			if t, err = c.token(); err == nil {
				err = c.skip(t, depth)
			}
			if err != nil {
				return err
			}
			continue
		}
		m := &s.members[i]
		if seen[i] {
			return awsapi.BadRequest(awsapi.CodeSerialization, "The member "+m.name+" stands twice.")
		}
		seen[i] = true
		if present[i], err = c.value(m.shape, join(path, m.path), s.name+"."+m.name, depth+1); err != nil {
			return err
		}
	}
	for i := range s.members {
		if m := &s.members[i]; m.required && !present[i] {
			c.add("null", join(path, m.path), "Member must not be null")
		}
	}
	_, err := c.token()
	return err
}

// member returns the index of a structure's member, or -1.
func (s *shape) member(name string) int {
	for i := range s.members {
		if s.members[i].name == name {
			return i
		}
	}
	return -1
}

// spoil makes a name that differs from a member's in case only, which
// encoding/json would take for it, into one that nobody knows: whoever authorizes
// by a member must not see another one than the operation does.
func (c *checker) spoil(s *shape, name string) {
	folded := fold(name)
	for i := range s.members {
		if fold(s.members[i].name) != folded {
			continue
		}
		end := int(c.d.InputOffset()) - 1 // at the closing quote; such a name holds none, however it is written
		if start := bytes.LastIndexByte(c.body[:end], '"') + 1; start < end {
			c.body[start] = 0x7f
		}
	}
}

// fold gives names that differ in case only one form, as encoding/json does.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				return next
			}
			r = next
		}
	}, s)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func (c *checker) list(s *shape, path string, depth int) error {
	n := 0
	for ; c.d.More(); n++ {
		if n == elementsMax {
			return awsapi.BadRequest(awsapi.CodeSerialization, fmt.Sprintf("The list %s has more than %d members.", path, elementsMax))
		}
		at := path + "." + strconv.Itoa(n+1) + ".member"
		present, err := c.value(s.element, at, "", depth+1)
		if err != nil {
			return err
		}
		if !present {
			c.add("null", at, "Member must not be null")
		}
	}
	for _, constraint := range s.lengths(n) {
		c.add("'["+strconv.Itoa(n)+" members]'", path, constraint)
	}
	_, err := c.token()
	return err
}

// mapping reports bad keys once and bad values once, however many there are.
func (c *checker) mapping(s *shape, path string, depth int) error {
	var badKeys, badValues []string
	n := 0
	for ; c.d.More(); n++ {
		if n == elementsMax {
			return awsapi.BadRequest(awsapi.CodeSerialization, fmt.Sprintf("The map %s has more than %d entries.", path, elementsMax))
		}
		key, err := c.token()
		if err != nil {
			return err
		}
		value, err := c.token()
		if err != nil {
			return err
		}
		if value == nil {
			return awsapi.BadRequest(awsapi.CodeSerialization, "The map "+path+" has an entry without a value.")
		}
		if constraints, _ := s.key.check(key); len(badKeys) == 0 {
			badKeys = constraints
		}
		constraints, ok := s.element.check(value)
		if !ok {
			return awsapi.BadRequest(awsapi.CodeSerialization, "A "+kindOf(value)+" can not be converted to the type of the values of "+path+", which is "+s.element.kind+".")
		}
		if len(badValues) == 0 {
			badValues = constraints
		}
	}
	size := "'{" + strconv.Itoa(n) + " entries}'"
	if len(badKeys) > 0 {
		c.add(size, path, "Map keys must satisfy constraint: ["+strings.Join(badKeys, ", ")+"]")
	}
	if len(badValues) > 0 {
		c.add(size, path, "Map value must satisfy constraint: ["+strings.Join(badValues, ", ")+"]")
	}
	for _, constraint := range s.lengths(n) {
		c.add(size, path, constraint)
	}
	_, err := c.token()
	return err
}

// skip passes over the value that began with t.
func (c *checker) skip(t json.Token, depth int) error {
	for open := 0; ; {
		switch t {
		case json.Delim('{'), json.Delim('['):
			if open++; depth+open > nestingMax {
				return awsapi.BadRequest(awsapi.CodeSerialization, fmt.Sprintf("The body is nested deeper than %d.", nestingMax))
			}
		case json.Delim('}'), json.Delim(']'):
			open--
		}
		if open == 0 {
			return nil
		}
		var err error
		if t, err = c.token(); err != nil {
			return err
		}
	}
}
