package jq

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/itchyny/gojq"
)

// steps is a context that is done after a number of looks at it. gojq looks once for
// each instruction, which makes it a count of instructions.
type steps struct {
	context.Context
	left  int
	until time.Time
	err   error
}

var (
	errSteps = fmt.Errorf("the program takes more than %d steps", StepsMax)
	errTime  = fmt.Errorf("the program takes longer than %s", TimeMax)
	over     = func() chan struct{} {
		c := make(chan struct{})
		close(c)
		return c
	}()
)

func newSteps() *steps {
	return &steps{Context: context.Background(), left: StepsMax, until: time.Now().Add(TimeMax)}
}

func (s *steps) Done() <-chan struct{} {
	s.left--
	switch {
	case s.err != nil:
	case s.left < 0:
		s.err = errSteps
	case s.left%256 == 0 && time.Now().After(s.until):
		s.err = errTime
	default:
		return nil // blocks for ever: not done
	}
	return over
}

func (s *steps) Err() error { return s.err }

// budget is what an evaluation may still make, in bytes. It travels through the
// program as the value of a variable that no program can name.
type budget struct{ left int }

// digitsMax bounds the digits of integers that are multiplied.
const digitsMax = 10_000

const (
	budgetVariable = "$__tapehouse_budget"
	chargeFunction = "_tapehouse_charge"
	regexFunction  = "_tapehouse_regex"
	timesFunction  = "_tapehouse_times"
	minusFunction  = "_tapehouse_minus"
	pairPrefix     = "_tapehouse_pair_"
)

var errBytes = fmt.Errorf("the program makes more than %d bytes", BytesMax)

// take charges n bytes.
func (b *budget) take(n int) error {
	if n < 0 || n > b.left {
		b.left = 0
		return errBytes
	}
	b.left -= n
	return nil
}

// charge charges a value: what it takes when it is written out, with a value that
// stands twice counted twice.
func (b *budget) charge(v any) error {
	const each = 16
	switch v := v.(type) {
	case string:
		return b.take(len(v) + each)
	case json.Number:
		return b.take(len(v) + each)
	case *big.Int:
		return b.take(v.BitLen()/8 + each)
	case []any:
		if err := b.take(each * (1 + len(v))); err != nil {
			return err
		}
		for _, x := range v {
			if err := b.charge(x); err != nil {
				return err
			}
		}
		return nil
	case map[string]any:
		if err := b.take(each); err != nil {
			return err
		}
		for k, x := range v {
			if err := b.take(len(k) + 2*each); err != nil {
				return err
			}
			if err := b.charge(x); err != nil {
				return err
			}
		}
		return nil
	}
	return b.take(each)
}

// guards are the functions that confine puts into programs. The programs' own
// operations run behind them, in programs of one line.
var guards = func() []gojq.CompilerOption {
	options := []gojq.CompilerOption{
		gojq.WithVariables([]string{budgetVariable}),
		gojq.WithFunction(chargeFunction, 1, 1, func(v any, args []any) any {
			if err := args[0].(*budget).charge(v); err != nil {
				return err
			}
			return v
		}),
	}
	options = append(options, gojq.WithFunction(regexFunction, 1, 1, func(v any, args []any) any {
		text, _ := v.(string)
		if err := args[0].(*budget).take(len(text) * regexBytes); err != nil {
			return err
		}
		return v
	}))
	behind := func(name, program string, arity int, cost func(l, r any, b *budget) error) {
		code := must(program)
		options = append(options, gojq.WithFunction(name, arity+1, arity+1, func(v any, args []any) any {
			pair := append([]any{v}, args[:arity]...)[arity-1:]
			if err := cost(pair[0], pair[1], args[arity].(*budget)); err != nil {
				return err
			}
			v, _ = code.Run(pair).Next()
			return v
		}))
	}
	behind(timesFunction, ".[0] * .[1]", 2, func(l, r any, b *budget) error { return b.take(timesBytes(l, r)) })
	behind(minusFunction, ".[0] - .[1]", 2, compares)
	behind(pairPrefix+"join", ".[1] as $x | .[0] | join($x)", 1, func(list, separator any, b *budget) error {
		n, _ := list.([]any)
		text, _ := separator.(string)
		if err := b.charge(list); err != nil {
			return err
		}
		return b.take(len(n) * len(text))
	})
	for _, name := range comparers {
		behind(pairPrefix+name, ".[1] as $x | .[0] | "+name+"($x)", 1, compares)
	}
	return options
}()

// regexes are the functions that may find a match at each byte of a text, in a single
// step. A match is an object of about regexBytes.
var regexes = []string{"match", "capture", "scan", "splits", "sub", "gsub"}

const regexBytes = 256

// comparers are the functions that compare each element of one array with each of
// another in a single step.
var comparers = []string{"contains", "inside", "indices", "index", "rindex"}

// compares charges the comparisons of two arrays, a byte for sixteen.
func compares(l, r any, b *budget) error {
	x, _ := l.([]any)
	y, _ := r.([]any)
	return b.take(len(x) * len(y) / 16)
}

func must(program string) *gojq.Code {
	q, err := gojq.Parse(program)
	if err != nil {
		panic(err)
	}
	code, err := gojq.Compile(q)
	if err != nil {
		panic(err)
	}
	return code
}

// timesBytes is about what l * r makes: a text repeated, two objects merged, or the
// product of large integers.
func timesBytes(l, r any) int {
	text, ok := l.(string)
	count := r
	if !ok {
		text, ok = r.(string)
		count = l
	}
	if ok {
		n, isNumber := gojq.ToFloat64(count)
		if !isNumber || n <= 0 || text == "" {
			return 0
		}
		if n > BytesMax {
			return -1
		}
		return int(float64(len(text))*n) + 1
	}
	size, digits := 0, 0
	for _, v := range []any{l, r} {
		switch v := v.(type) {
		case *big.Int:
			digits += v.BitLen() / 3
		case json.Number:
			digits += len(v)
		case map[string]any:
			size += 48 * len(v)
		}
	}
	if digits > digitsMax { // the work grows with the square
		return -1
	}
	return size + digits
}

// refused are the functions that a program cannot have, and what to do instead.
var refused = map[string]string{
	"env": "a program sees only the record", "$ENV": "a program sees only the record",
	"input": "a program sees one record at a time", "inputs": "a program sees one record at a time",
	"debug": "try the program with the jq command", "stderr": "try the program with the jq command",
	"halt": "use error or empty", "halt_error": "use error or empty",
	"now":       "use a time of the record, or !{timestamp:…} in the prefix",
	"localtime": "use gmtime", "strflocaltime": "use strftime",
	"input_filename": "a program sees only the record", "input_line_number": "a program sees only the record",
	"get_search_list": "a program sees only the record", "modulemeta": "write the definitions into the program",
	"$__loc__": "leave it out", "transpose": "use the arrays as they are", "fromstream": "build the value with {…} and […]",
	"pick": "build the object with {…}",
}

// makers are the functions whose result, or whose work, can be much more than what
// they are given: what goes in and what comes out is charged, and each value that an
// argument gives, however often.
var makers = []string{
	"add", "tojson", "fromjson", "tostring", "format", "error", "strftime", "implode", "explode", "flatten", "split", "splits",
	"sub", "gsub", "scan", "match", "capture", "tostream", "to_entries", "with_entries", "combinations", "map", "map_values",
	"walk", "sort_by", "group_by", "unique_by", "min_by", "max_by",
}

// confine judges a parsed program and puts the guards into it.
func confine(q *gojq.Query) error {
	c := confinement{defined: map[string]bool{}}
	c.define(q)
	c.visit(reflect.ValueOf(q))
	if c.err == nil && c.assigns != "" && c.computed != "" {
		c.err = fmt.Errorf("%s together with %s is not supported: assign to constant indexes up to %d, or build the value with {…} and […]", c.assigns, c.computed, indexMax)
	}
	return c.err
}

type confinement struct {
	err      error
	defined  map[string]bool // functions and parameters of the program's own
	assigns  string          // an assignment that was seen
	computed string          // an index that is no small constant
}

func (c *confinement) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

// define notes the names that the program defines.
func (c *confinement) define(q *gojq.Query) {
	each(reflect.ValueOf(q), func(node any) {
		if d, ok := node.(*gojq.FuncDef); ok {
			c.defined[d.Name] = true
			for _, a := range d.Args {
				c.defined[a] = true
			}
		}
	})
}

// each calls fn with every node of a syntax tree, whose nodes are pointers to structs.
func each(v reflect.Value, fn func(node any)) {
	switch v.Kind() {
	case reflect.Slice:
		for i := range v.Len() {
			each(v.Index(i), fn)
		}
	case reflect.Pointer:
		if v.IsNil() {
			return
		}
		fn(v.Interface())
		for i := range v.Elem().NumField() {
			each(v.Elem().Field(i), fn)
		}
	}
}

// visit goes through a syntax tree, whose nodes are pointers to structs, and changes
// queries and terms where they stand, after what is in them.
func (c *confinement) visit(v reflect.Value) {
	switch v.Kind() {
	case reflect.Slice:
		for i := range v.Len() {
			c.visit(v.Index(i))
		}
	case reflect.Pointer:
		if v.IsNil() {
			return
		}
		c.judge(v.Interface())
		if c.err != nil {
			return
		}
		for i := range v.Elem().NumField() {
			c.visit(v.Elem().Field(i))
		}
		switch node := v.Interface().(type) {
		case *gojq.Query:
			guardQuery(node)
		case *gojq.Term:
			guardTerm(node)
		}
	}
}

// judge refuses what a program cannot have.
func (c *confinement) judge(node any) {
	switch n := node.(type) {
	case *gojq.Import:
		c.fail("import and include are not supported: write the definitions into the program")
	case *gojq.Query:
		if n.Meta != nil {
			c.fail("module is not supported: leave it out")
		}
		switch n.Op {
		case gojq.OpUpdateAdd, gojq.OpUpdateMul:
			c.fail("%s is not supported: write |= (. %s …)", n.Op, strings.TrimSuffix(n.Op.String(), "="))
		case gojq.OpAssign, gojq.OpModify, gojq.OpUpdateSub, gojq.OpUpdateDiv, gojq.OpUpdateMod, gojq.OpUpdateAlt:
			c.assigns = n.Op.String()
		}
	case *gojq.FuncDef:
		for _, name := range append(n.Args, n.Name) {
			if strings.HasPrefix(name, "_tapehouse") || name == budgetVariable {
				c.fail("the name %s is taken", name)
			}
		}
	case *gojq.Func:
		switch {
		case n.Name == budgetVariable, n.Name[0] == '_' && !c.defined[n.Name]:
			c.fail("%s is not known", n.Name)
		case refused[n.Name] != "":
			c.fail("%s is not supported: %s", n.Name, refused[n.Name])
		case n.Name == "setpath":
			c.assigns, c.computed = "setpath", "its path"
		case n.Name == "getpath" || n.Name == "nth":
			if c.computed == "" {
				c.computed = n.Name
			}
		}
	case *gojq.Pattern:
		if n.Name == budgetVariable {
			c.fail("the name %s is taken", n.Name)
		}
	case *gojq.Index:
		for _, q := range []*gojq.Query{n.Start, n.End} {
			if q != nil && !constantIndex(q) && c.computed == "" {
				c.computed = "the index " + short(q.String())
			}
		}
	}
}

func short(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}

// constantIndex reports whether an index is a text, or a number up to indexMax.
func constantIndex(q *gojq.Query) bool {
	t := q.Term
	if t == nil || len(t.SuffixList) > 0 {
		return false
	}
	if t.Type == gojq.TermTypeUnary {
		t = t.Unary.Term
	}
	switch t.Type {
	case gojq.TermTypeString:
		return t.Str.Queries == nil
	case gojq.TermTypeNumber:
		n, err := strconv.Atoi(t.Number)
		return err == nil && n <= indexMax
	}
	return false
}

func call(name string, args ...*gojq.Query) *gojq.Query {
	args = append(args, &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeFunc, Func: &gojq.Func{Name: budgetVariable}}})
	return &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeFunc, Func: &gojq.Func{Name: name, Args: args}}}
}

func pipe(l, r *gojq.Query) *gojq.Query { return &gojq.Query{Left: l, Op: gojq.OpPipe, Right: r} }

// guardQuery puts the guards around operators. Everything that can put values together
// is charged, so that a value is never larger than the budget, even where it stands
// in many places: comparing it or writing it out in a single step stays bounded too.
func guardQuery(q *gojq.Query) {
	if q.Term != nil {
		return
	}
	defs := q.FuncDefs
	switch q.Op {
	case gojq.OpAdd:
		*q = *charged(&gojq.Query{Left: q.Left, Op: q.Op, Right: q.Right})
	case gojq.OpMul:
		*q = *charged(call(timesFunction, q.Left, q.Right))
	case gojq.OpSub:
		*q = *call(minusFunction, q.Left, q.Right)
	case gojq.OpAssign, gojq.OpModify, gojq.OpUpdateAlt:
		q.Right = charged(q.Right)
	default:
		return
	}
	q.FuncDefs = defs
}

func charged(q *gojq.Query) *gojq.Query { return pipe(q, call(chargeFunction)) }

// guardTerm puts the guards around what a term makes.
func guardTerm(t *gojq.Term) {
	inner := &gojq.Term{Type: t.Type, Func: t.Func, Object: t.Object, Array: t.Array, Format: t.Format, Str: t.Str}
	guarded := &gojq.Query{Term: inner}
	switch t.Type {
	case gojq.TermTypeObject, gojq.TermTypeArray:
		guarded = charged(guarded)
	case gojq.TermTypeString, gojq.TermTypeFormat:
		if t.Str == nil { // a format alone
			guarded = pipe(call(chargeFunction), charged(guarded))
			break
		}
		if t.Str.Queries == nil {
			return
		}
		for i, q := range t.Str.Queries {
			if q.Term.Str == nil { // else the text between
				t.Str.Queries[i] = &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeQuery, Query: charged(q)}}
			}
		}
		guarded = charged(guarded)
	case gojq.TermTypeFunc:
		switch name, args := t.Func.Name, t.Func.Args; {
		case len(args) == 1 && (name == "join" || slices.Contains(comparers, name)):
			guarded = call(pairPrefix+name, args[0])
		case slices.Contains(makers, name):
			for i := range args {
				args[i] = charged(args[i])
			}
			guarded = pipe(call(chargeFunction), charged(guarded))
			if slices.Contains(regexes, name) {
				guarded = pipe(call(regexFunction), guarded)
			}
		default:
			return
		}
	default:
		return
	}
	*t = gojq.Term{Type: gojq.TermTypeQuery, Query: guarded, SuffixList: t.SuffixList}
}
