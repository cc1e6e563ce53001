package crawler

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The values of CSVClassifier.ContainsHeader.
const (
	HeaderUnknown = "UNKNOWN"
	HeaderPresent = "PRESENT"
	HeaderAbsent  = "ABSENT"
)

// Classifier says how files are read that the built-in recognition reads otherwise
// or not at all. One of CSV and JSON is set.
type Classifier struct {
	CSV       *CSVClassifier  `json:",omitempty"`
	JSON      *JSONClassifier `json:",omitempty"`
	Version   int64           // from 1
	CreatedAt time.Time       // UTC
	UpdatedAt time.Time       // UTC
}

// Name is the classifier's name.
func (c *Classifier) Name() string {
	if c.CSV != nil {
		return c.CSV.Name
	}
	if c.JSON != nil {
		return c.JSON.Name
	}
	return ""
}

// CSVClassifier is Glue's.
type CSVClassifier struct {
	Name              string
	Delimiter         string   `json:",omitempty"` // one character; "": detected
	QuoteSymbol       string   `json:",omitempty"` // one character
	ContainsHeader    string   `json:",omitempty"` // UNKNOWN, PRESENT, ABSENT; "": UNKNOWN
	Header            []string `json:",omitempty"` // the columns' names
	AllowSingleColumn bool     `json:",omitempty"`
	// DisableValueTrimming takes blanks around a value for a part of it, so that it is
	// text.
	DisableValueTrimming bool     `json:",omitempty"`
	CustomDatatypes      []string `json:",omitempty"` // of the columns, in their order
	Serde                string   `json:",omitempty"` // OpenCSVSerDe, LazySimpleSerDe, None; "": by the quotes
}

// JSONClassifier is Glue's: the path's values are rows.
type JSONClassifier struct {
	Name     string
	JSONPath string
}

var customDatatypes = map[string]*State{
	"BINARY": {Kinds: kindBinary}, "BOOLEAN": stateBoolean, "DATE": stateDate, "DECIMAL": decimal(28, 10),
	"DOUBLE": stateDouble, "FLOAT": {Kinds: kindFloat}, "INT": integer(32), "LONG": integer(64), "SHORT": integer(16),
	"STRING": stateString, "TIMESTAMP": stateTimestamp,
}

var nameRE = regexp.MustCompile(`^[^\x00-\x1f\x7f\x{fffd}/]{1,255}$`)

// check returns ErrInvalid unless the classifier can be used.
func (c *Classifier) check() error {
	name := c.Name()
	if !nameRE.MatchString(name) {
		return fmt.Errorf("%w: classifier name %q: want 1 to 255 characters, no control characters, no '/'", ErrInvalid, name)
	}
	if c.JSON != nil {
		if c.CSV != nil {
			return fmt.Errorf("%w: classifier %s: it is for CSV and for JSON", ErrInvalid, name)
		}
		_, err := parseJSONPath(c.JSON.JSONPath)
		return err
	}
	v := c.CSV
	oneByte := func(what, s string) error {
		if len(s) != 1 || s[0] == '\n' || s[0] == '\r' || s[0] >= 0x80 {
			return fmt.Errorf("%w: classifier %s: %s %q: want one ASCII character", ErrInvalid, name, what, s)
		}
		return nil
	}
	if v.Delimiter != "" {
		if err := oneByte("Delimiter", v.Delimiter); err != nil {
			return err
		}
	}
	if v.QuoteSymbol != "" {
		if err := oneByte("QuoteSymbol", v.QuoteSymbol); err != nil {
			return err
		}
		if v.QuoteSymbol == v.Delimiter {
			return fmt.Errorf("%w: classifier %s: Delimiter and QuoteSymbol are the same", ErrInvalid, name)
		}
	}
	if !slices.Contains([]string{"", HeaderUnknown, HeaderPresent, HeaderAbsent}, v.ContainsHeader) {
		return fmt.Errorf("%w: classifier %s: ContainsHeader %q: want UNKNOWN, PRESENT or ABSENT", ErrInvalid, name, v.ContainsHeader)
	}
	if !slices.Contains([]string{"", "OpenCSVSerDe", "LazySimpleSerDe", "None"}, v.Serde) {
		return fmt.Errorf("%w: classifier %s: Serde %q: want OpenCSVSerDe, LazySimpleSerDe or None", ErrInvalid, name, v.Serde)
	}
	for _, t := range v.CustomDatatypes {
		if customDatatypes[t] == nil {
			return fmt.Errorf("%w: classifier %s: CustomDatatypes %q is none of Glue's", ErrInvalid, name, t)
		}
	}
	if len(v.CustomDatatypes) > 0 && len(v.CustomDatatypes) != len(v.Header) {
		return fmt.Errorf("%w: classifier %s: %d CustomDatatypes for %d columns of Header", ErrInvalid, name, len(v.CustomDatatypes), len(v.Header))
	}
	if len(v.Header) > columnsMax {
		return fmt.Errorf("%w: classifier %s: %d columns, the limit is %d", ErrInvalid, name, len(v.Header), columnsMax)
	}
	return nil
}

// jsonPath is a path of the subset that Glue's classifiers have: members, indexes
// and [*].
type jsonPath []jsonStep

type jsonStep struct {
	member string
	index  int
	each   bool // of an array's elements, or an object's members
}

func parseJSONPath(text string) (jsonPath, error) {
	bad := func(why string) (jsonPath, error) {
		return nil, fmt.Errorf("%w: JsonPath %q: %s; want $ followed by .name, ['name'], [n] or [*]", ErrInvalid, text, why)
	}
	if len(text) > 2_048 || !strings.HasPrefix(text, "$") {
		return bad("it does not begin with $")
	}
	var path jsonPath
	for rest := text[1:]; rest != ""; {
		switch {
		case strings.HasPrefix(rest, "[*]"):
			path, rest = append(path, jsonStep{each: true}), rest[3:]
		case strings.HasPrefix(rest, ".*"):
			path, rest = append(path, jsonStep{each: true}), rest[2:]
		case strings.HasPrefix(rest, "['"):
			end := strings.Index(rest, "']")
			if end < 3 {
				return bad("a name is not closed")
			}
			path, rest = append(path, jsonStep{member: rest[2:end]}), rest[end+2:]
		case rest[0] == '[':
			end := strings.IndexByte(rest, ']')
			if end < 2 {
				return bad("an index is not closed")
			}
			n, err := strconv.ParseUint(rest[1:end], 10, 31)
			if err != nil {
				return bad("an index is no number")
			}
			path, rest = append(path, jsonStep{index: int(n)}), rest[end+1:]
		case rest[0] == '.':
			end := strings.IndexAny(rest[1:], ".[") + 1
			if end == 0 {
				end = len(rest)
			}
			if end < 2 {
				return bad("a name is missing")
			}
			path, rest = append(path, jsonStep{member: rest[1:end]}), rest[end:]
		default:
			return bad(fmt.Sprintf("%q is not known", rest[0]))
		}
	}
	return path, nil
}

// choose returns what the path leads to.
func (p jsonPath) choose(doc any) []any {
	at := []any{doc}
	for _, step := range p {
		var next []any
		for _, v := range at {
			switch v := v.(type) {
			case map[string]any:
				if step.each {
					for _, name := range slices.Sorted(maps.Keys(v)) {
						next = append(next, v[name])
					}
				} else if member, ok := v[step.member]; ok && step.member != "" {
					next = append(next, member)
				}
			case []any:
				if step.each {
					next = append(next, v...)
				} else if step.member == "" && step.index < len(v) {
					next = append(next, v[step.index])
				}
			}
		}
		at = next
	}
	return at
}
