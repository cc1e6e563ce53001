// Package jq evaluates the jq programs of delivery streams: partition keys and routes
// out of records.
//
// The language is jq 1.6's, as github.com/itchyny/gojq implements it, with what that
// documents as different: objects are ordered by their keys, integers are exact
// however large, regular expressions are RE2's (no look-around, no back-references), and
// functions of later versions are there as well. Numbers that a program passes on
// unchanged keep the text that the record has.
//
// A program is a function of the record: it sees no environment, no other input, no
// file, no clock and no local time zone, so that a replay finds what the first run
// found. Compile refuses by name what would: env, $ENV, input, inputs, debug, stderr,
// halt, halt_error, now, localtime, strflocaltime, input_filename, input_line_number,
// get_search_list, modulemeta, import and include.
//
// Evaluation is bounded, by counts rather than by the clock, so that it ends alike each
// time: at most StepsMax instructions, and at most BytesMax of texts and collections
// made. (TimeMax stands behind them for programs whose single steps each go through a
// whole large record.) To hold that, Compile also refuses += and *= (write
// .a |= (. + 1)), transpose, fromstream and pick, and programs that assign to an index
// that is not a constant: one large number in a record would make an array of that
// length.
package jq

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/itchyny/gojq"
)

var (
	// ErrInvalid is the root of every error about a program, for whoever configures
	// the stream.
	ErrInvalid = errors.New("invalid jq program")
	// ErrRecord is the root of every error about one record: it goes to the error
	// output.
	ErrRecord = errors.New("jq program failed on the record")
)

const (
	// ProgramBytesMax bounds a program's text, as the API's parameters are.
	ProgramBytesMax = 5120
	// StepsMax bounds the instructions of one evaluation.
	StepsMax = 200_000
	// TimeMax bounds an evaluation that the other limits do not.
	TimeMax = 5 * time.Second
	// BytesMax bounds what one evaluation makes, its record not counted.
	BytesMax = 16 << 20
	// DepthMax bounds the nesting of a record.
	DepthMax = 64
	// KeysMax and ValueBytesMax bound a result.
	KeysMax       = 50
	ValueBytesMax = 1024
	// indexMax is the largest index that a program with assignments may name.
	indexMax = 1000
)

// Program is a compiled program. It is immutable and safe for concurrent use.
type Program struct {
	text  string
	code  *gojq.Code
	names []string
	known bool
}

// Compile reads a program. Errors wrap ErrInvalid and say where the fault is, or what
// is not supported and what to do instead.
func Compile(program string) (*Program, error) {
	if len(program) > ProgramBytesMax {
		return nil, fmt.Errorf("%w: %d bytes, above the limit of %d", ErrInvalid, len(program), ProgramBytesMax)
	}
	q, err := gojq.Parse(program)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrInvalid, position(program, err))
	}
	p := &Program{text: program}
	p.names, p.known = objectKeys(q)
	if err := confine(q); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if p.code, err = gojq.Compile(q, guards...); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return p, nil
}

// position words a parse error with its line and column.
func position(program string, err error) string {
	var at *gojq.ParseError
	if !errors.As(err, &at) {
		return err.Error()
	}
	offset := max(0, min(at.Offset-len(at.Token), len(program)))
	before := program[:offset]
	line := 1 + strings.Count(before, "\n")
	column := 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
	return fmt.Sprintf("%v at line %d, column %d", err, line, column)
}

// String is the program's text.
func (p *Program) String() string { return p.text }

// Names are the keys of the program's result, if they can be told from the program:
// it ends in an object with constant keys.
func (p *Program) Names() (names []string, known bool) { return p.names, p.known }

// objectKeys looks for the constant keys of the object that a program ends in.
func objectKeys(q *gojq.Query) ([]string, bool) {
	for q.Op == gojq.OpPipe && q.Term == nil {
		q = q.Right
	}
	if q.Term == nil || len(q.Term.SuffixList) > 0 {
		return nil, false
	}
	switch q.Term.Type {
	case gojq.TermTypeQuery:
		return objectKeys(q.Term.Query)
	case gojq.TermTypeObject:
	default:
		return nil, false
	}
	var names []string
	for _, kv := range q.Term.Object.KeyVals {
		switch {
		case kv.Key != "":
			names = append(names, strings.TrimPrefix(kv.Key, "$"))
		case kv.KeyString != nil && kv.KeyString.Queries == nil:
			names = append(names, kv.KeyString.Str)
		default:
			return nil, false
		}
	}
	return names, true
}

// Keys evaluates the program on one record, which is one JSON document, and returns
// the object that it gives as texts: strings as they are, numbers and booleans as JSON
// writes them. An error wraps ErrRecord: the record is no JSON, the program fails,
// gives no object or several, or a value that is null, an object or an array.
func (p *Program) Keys(record []byte) (map[string]string, error) {
	keys, err := p.keys(record)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	return keys, nil
}

func (p *Program) keys(record []byte) (map[string]string, error) {
	input, err := decode(record)
	if err != nil {
		return nil, err
	}
	object, err := p.run(input)
	if err != nil {
		return nil, err
	}
	if len(object) > KeysMax {
		return nil, fmt.Errorf("the result has %d keys, above the limit of %d", len(object), KeysMax)
	}
	keys := make(map[string]string, len(object))
	for k, v := range object {
		text, err := scalar(v)
		if err != nil {
			return nil, fmt.Errorf("key %.100q %w", k, err)
		}
		if len(text) > ValueBytesMax {
			return nil, fmt.Errorf("key %.100q has a value of %d bytes, above the limit of %d", k, len(text), ValueBytesMax)
		}
		keys[k] = text
	}
	return keys, nil
}

// run evaluates the program and returns its only result.
func (p *Program) run(input any) (result map[string]any, err error) {
	// The interpreter is not ours: should it fail on a record, that is the record's
	// error and not the server's end.
	defer func() {
		if r := recover(); r != nil {
			result, err = nil, plain(fmt.Errorf("the program's interpreter failed: %v", r))
		}
	}()
	budget := &budget{left: BytesMax}
	iter := p.code.RunWithContext(newSteps(), input, budget)
	v, ok := iter.Next()
	if !ok {
		return nil, errors.New("the program gives no result")
	}
	if err, failed := v.(error); failed {
		return nil, plain(err)
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("the program gives %s, not an object", kind(v))
	}
	if v, ok := iter.Next(); ok {
		if err, failed := v.(error); failed {
			return nil, plain(err)
		}
		return nil, errors.New("the program gives more than one result")
	}
	return object, nil
}

// plain cuts a message short: it may hold the record's values.
func plain(err error) error {
	text := err.Error()
	if len(text) > 300 {
		n := 300
		for !utf8.RuneStart(text[n]) {
			n--
		}
		return errors.New(text[:n] + "…")
	}
	return err
}

func kind(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case string:
		return "a string"
	case []any:
		return "an array"
	case map[string]any:
		return "an object"
	}
	return "a number"
}

// scalar is a value's text.
func scalar(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", errors.New("is null: give a default, as in .a // \"none\"")
	case []any, map[string]any:
		return "", fmt.Errorf("is %s: want a string, a number or a boolean", kind(v))
	case string:
		return v, nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return "", errors.New("is no number")
		}
	}
	b, err := gojq.Marshal(v)
	return string(b), err
}

// decode reads a record: one document, in UTF-8, not nested too deep. Of a member
// that stands twice the last counts.
func decode(record []byte) (any, error) {
	if !utf8.Valid(record) {
		return nil, errors.New("the record is no UTF-8")
	}
	if err := checkDepth(record); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(record))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the record is empty")
		}
		return nil, fmt.Errorf("the record is no JSON: %w", err)
	}
	if d.More() {
		return nil, fmt.Errorf("the record has something after its document, at byte %d: several documents need deaggregation", d.InputOffset())
	}
	return v, nil
}

// checkDepth counts braces outside strings, before anything recurses.
func checkDepth(record []byte) error {
	depth, quoted := 0, false
	for i := 0; i < len(record); i++ {
		switch c := record[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > DepthMax {
				return fmt.Errorf("the record is nested deeper than %d", DepthMax)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// The operations of a route.
const (
	Insert = "insert"
	Update = "update"
	Delete = "delete"
)

// Route says where an Iceberg destination puts a record.
type Route struct {
	Database, Table string
	Operation       string // Insert, Update or Delete
}

// Route evaluates a program whose object names destinationDatabaseName,
// destinationTableName and operation, as Firehose's routing does. Without an
// operation it is Insert. Errors wrap ErrRecord.
func (p *Program) Route(record []byte) (Route, error) {
	keys, err := p.Keys(record)
	if err != nil {
		return Route{}, err
	}
	r := Route{keys["destinationDatabaseName"], keys["destinationTableName"], strings.ToLower(keys["operation"])}
	if r.Operation == "" {
		r.Operation = Insert
	}
	switch {
	case r.Database == "":
		return Route{}, fmt.Errorf("%w: destinationDatabaseName is missing", ErrRecord)
	case r.Table == "":
		return Route{}, fmt.Errorf("%w: destinationTableName is missing", ErrRecord)
	case r.Operation != Insert && r.Operation != Update && r.Operation != Delete:
		return Route{}, fmt.Errorf("%w: operation %.100q: want insert, update or delete", ErrRecord, keys["operation"])
	}
	return r, nil
}
