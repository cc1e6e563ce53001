// Package prefix evaluates Data Firehose's object prefixes and names the objects
// of a plain-prefix destination.
//
// A prefix is text with expressions !{namespace:value}, which are evaluated when
// an object is named:
//
//	!{timestamp:PATTERN}            the oldest record's arrival, by Java's DateTimeFormatter (see pattern.go)
//	!{firehose:random-string}       11 characters, others at each occurrence
//	!{firehose:error-output-type}   error prefix only, and there needed beside any other expression
//	!{partitionKeyFromQuery:KEY}    data prefix only: a value that the jq program found
//	!{partitionKeyFromLambda:KEY}   data prefix only: a value that the transformation returned
//
// Everything that can be known when a stream is created is refused there, by
// Parse and CheckPair; what depends on a record is refused for that record alone,
// by Partition. A prefix that passed both can be evaluated for ever: Partition
// judges with the widest text that each timestamp can become.
//
// Names are deterministic: random strings and UUIDs derive from a Seed, so that a
// logged flush plan, carried out again, writes the same names.
//
// Names hold to the rules of package lake, which are stricter than S3's: segments
// of 1 to 255 characters of [a-zA-Z0-9._=+@~-] that do not begin with '.'. Text
// and patterns that break them are refused by Parse. A partition key's value may be
// any string: its '/' part segments, as on S3, and every other byte outside the
// set, a '~', and a '.' that begins a segment are written as '~' and two
// hexadecimal digits. So no value reaches out of its place, and two values never
// become one.
package prefix

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

var (
	// ErrInvalid is the root of every error about a prefix, for whoever
	// configures the stream.
	ErrInvalid = errors.New("invalid prefix")
	// ErrRecord is the root of every error about one record's partition keys: the
	// record goes to the error output.
	ErrRecord = errors.New("record has no valid partition")
)

const (
	// TextCharactersMax bounds a prefix as it is configured (the API's model).
	TextCharactersMax = 1024
	// EvaluatedCharactersMax bounds a prefix when it is evaluated.
	EvaluatedCharactersMax = 512
	// segmentBytesMax is lake's bound of a name's segment. The last segment of a
	// prefix is followed by the stream's name, time, UUID and extension, which
	// take up to fileBytesMax of it.
	segmentBytesMax = 255
	fileBytesMax    = 64 + 1 + 10 + 1 + 19 + 1 + 36
	// timePath is appended to a prefix that says nothing of when or for whom.
	timePath = "yyyy/MM/dd/HH/"
)

// Kind says which of a destination's two prefixes an expression is.
type Kind uint8

// The kinds.
const (
	Data  Kind = iota + 1 // Prefix
	Error                 // ErrorOutputPrefix
)

// member is the API's name of the kind, for messages.
func (k Kind) member() string {
	if k == Error {
		return "ErrorOutputPrefix"
	}
	return "Prefix"
}

// Source says who provides a partition key. Its text is the namespace.
type Source string

// The sources of partition keys.
const (
	FromQuery  Source = "partitionKeyFromQuery"
	FromLambda Source = "partitionKeyFromLambda"
)

// Key names a partition key.
type Key struct {
	Source Source
	Name   string
}

// partKind says what a part of an expression becomes.
type partKind uint8

const (
	literalPart partKind = iota
	timePart
	randomPart
	errorTypePart
	keyPart
)

type part struct {
	kind    partKind
	text    string   // literal: the text
	pattern *pattern // time
	widest  string   // time: each segment as wide as it gets
	key     Key
}

// Expression is a parsed prefix. It is immutable and safe for concurrent use.
type Expression struct {
	kind        Kind
	text        string
	zone        *time.Location
	parts       []part
	keys        []Key
	expressions bool // has any, as it was configured
}

// Parse reads a prefix. zone is the destination's CustomTimeZone, an IANA name; ""
// is UTC. An empty text is a valid prefix. Errors wrap ErrInvalid and name the API's
// member and what to write instead.
//
// A data prefix without a timestamp or a partition key ends in the time path
// yyyy/MM/dd/HH/. An error prefix without expressions ends in the error output type
// and the time path.
func Parse(text string, kind Kind, zone string) (*Expression, error) {
	if kind != Data && kind != Error {
		panic(fmt.Sprintf("prefix: kind %d", kind))
	}
	e := &Expression{kind: kind, text: text}
	var err error
	if e.zone, err = loadZone(zone); err != nil {
		return nil, err
	}
	if n := utf8.RuneCountInString(text); n > TextCharactersMax {
		return nil, e.invalid("%d characters, above the limit of %d", n, TextCharactersMax)
	}
	if err := e.parse(); err != nil {
		return nil, err
	}
	e.complete()
	// What does not depend on records is judged now, with the shortest value that
	// a partition key can have.
	sample := map[Key]string{}
	for _, k := range e.keys {
		sample[k] = "x"
	}
	if _, err := e.join(evaluation{widest: true, values: sample, errorType: "processing-failed"}); err != nil {
		return nil, e.invalid("%w", err)
	}
	return e, nil
}

// loadZone refuses "Local", which package time takes for the machine's own.
func loadZone(name string) (*time.Location, error) {
	if name == "" {
		return time.UTC, nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		return nil, fmt.Errorf("%w: CustomTimeZone %q is no time zone: use an IANA name such as America/New_York", ErrInvalid, name)
	}
	return zone, nil
}

func (e *Expression) invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s %s: %w", ErrInvalid, e.kind.member(), strconv.Quote(e.text), fmt.Errorf(format, args...))
}

func (e *Expression) parse() error {
	rest := e.text
	for rest != "" {
		literal, expression, found := strings.Cut(rest, "!{")
		if literal != "" {
			if err := checkCharacters(literal); err != nil {
				return e.invalid("%w", err)
			}
			e.parts = append(e.parts, part{kind: literalPart, text: literal})
		}
		if !found {
			return nil
		}
		body, after, closed := strings.Cut(expression, "}")
		if !closed {
			return e.invalid("\"!{\" begins an expression that no \"}\" ends")
		}
		p, err := e.expression(body)
		if err != nil {
			return err
		}
		e.parts = append(e.parts, p)
		e.expressions = true
		rest = after
	}
	return nil
}

// expression parses what stands between !{ and }.
func (e *Expression) expression(body string) (part, error) {
	namespace, value, ok := strings.Cut(body, ":")
	if !ok {
		return part{}, e.invalid("!{%s} has no namespace: write !{namespace:value}", body)
	}
	switch namespace {
	case "timestamp":
		p, err := parsePattern(value, e.zone)
		if err == nil {
			var widest string
			if widest, err = p.widest(); err == nil {
				return part{kind: timePart, pattern: p, widest: widest}, nil
			}
		}
		return part{}, e.invalid("!{%s}: %w", body, err)
	case "firehose":
		switch value {
		case "random-string":
			return part{kind: randomPart}, nil
		case "error-output-type":
			if e.kind != Error {
				return part{}, e.invalid("!{firehose:error-output-type} can only be used in ErrorOutputPrefix")
			}
			return part{kind: errorTypePart}, nil
		}
		return part{}, e.invalid("!{%s} is not known: the namespace firehose has random-string and error-output-type", body)
	case string(FromQuery), string(FromLambda):
		if e.kind == Error {
			return part{}, e.invalid("!{%s}: a record that failed may have no partition keys: use them in Prefix only", body)
		}
		if value == "" {
			return part{}, e.invalid("!{%s} names no partition key", body)
		}
		k := Key{Source(namespace), value}
		if !slices.Contains(e.keys, k) {
			e.keys = append(e.keys, k)
		}
		return part{kind: keyPart, key: k}, nil
	}
	return part{}, e.invalid("namespace %q of !{%s} is not known: use timestamp, firehose, partitionKeyFromQuery or partitionKeyFromLambda", namespace, body)
}

// complete appends what a prefix gets when it does not say it itself.
func (e *Expression) complete() {
	has := func(kind partKind) bool {
		return slices.ContainsFunc(e.parts, func(p part) bool { return p.kind == kind })
	}
	switch e.kind {
	case Data:
		// AWS's rule speaks of a missing timestamp only, but its examples of
		// dynamic partitioning append nothing.
		if !has(timePart) && !has(keyPart) {
			e.appendTimePath()
		}
	case Error:
		if !e.expressions {
			e.parts = append(e.parts, part{kind: errorTypePart}, part{kind: literalPart, text: "/"})
			e.appendTimePath()
		}
	}
}

func (e *Expression) appendTimePath() {
	p, err := parsePattern(timePath, e.zone)
	if err != nil {
		panic(err)
	}
	widest, err := p.widest()
	if err != nil {
		panic(err)
	}
	e.parts = append(e.parts, part{kind: timePart, pattern: p, widest: widest})
}

// CheckPair judges a destination's two prefixes together; errorOutput is nil when
// ErrorOutputPrefix is not given. Errors wrap ErrInvalid.
func CheckPair(data, errorOutput *Expression) error {
	if errorOutput == nil || errorOutput.text == "" {
		if data.expressions {
			return data.invalid("ErrorOutputPrefix can't be null or empty when Prefix contains expressions: set it, for example to \"errors/!{firehose:error-output-type}/!{timestamp:yyyy/MM/dd}/\"")
		}
		return nil
	}
	if errorOutput.expressions && !slices.ContainsFunc(errorOutput.parts, func(p part) bool { return p.kind == errorTypePart }) {
		return errorOutput.invalid("an ErrorOutputPrefix with expressions must contain !{firehose:error-output-type}")
	}
	return nil
}

// ErrorDefault is the error prefix of a destination that configures none: the
// data prefix, which CheckPair found to have no expressions, the error output type
// and the time path.
func (e *Expression) ErrorDefault() *Expression {
	d := &Expression{kind: Error, text: e.text, zone: e.zone}
	if e.text != "" {
		d.parts = []part{{kind: literalPart, text: e.text}}
	}
	d.complete()
	return d
}

// String is the prefix as it was configured.
func (e *Expression) String() string { return e.text }

// HasExpressions reports whether the configured text has any expression.
func (e *Expression) HasExpressions() bool { return e.expressions }

// Keys are the partition keys that the expression uses, each once, in the order of
// their first occurrence. The caller does not change them.
func (e *Expression) Keys() []Key { return e.keys }

// Zone is the time zone that timestamps are written in.
func (e *Expression) Zone() *time.Location { return e.zone }
