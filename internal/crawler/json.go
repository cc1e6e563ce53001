package crawler

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

const jsonRowsMax = 10_000

// jsonFinding is what a sample of JSON shows.
type jsonFinding struct {
	columns   []Field
	rows      int
	array     bool // the rows are the elements of one array
	multiline bool // a row spans lines, or a line holds rows
	badLines  int
	used      int // bytes that the rows took
	notes     map[string]bool
}

var errNotRows = errors.New("JSON whose rows are not objects")

// readJSON reads the columns of rows that are objects: one a line, one after the
// other, or the elements of one array.
func readJSON(data []byte, last bool) (f jsonFinding, err error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	s := &jsonScanner{b: data, notes: map[string]bool{}}
	f.notes = s.notes
	s.space()
	if s.i == len(s.b) {
		return f, errEmpty
	}
	if s.b[s.i] == '[' {
		return readArray(s, f, last)
	}
	for f.rows < jsonRowsMax {
		s.space()
		start := s.i
		if start == len(s.b) {
			break
		}
		state, err := s.value(1)
		if err == nil && state.Kinds != kindStruct {
			err = errNotRows
		}
		if errors.Is(err, errUnfinished) {
			if last {
				return f, errUnfinished
			}
			break
		}
		if err != nil {
			if f.rows == 0 {
				return f, err
			}
			f.badLines++
			next := bytes.IndexByte(s.b[s.i:], '\n')
			if next < 0 {
				break
			}
			s.i += next + 1
			continue
		}
		if bytes.IndexByte(s.b[start:s.i], '\n') >= 0 || !s.lineEnds() {
			f.multiline = true
		}
		f.add(state)
		f.used = s.i
	}
	switch {
	case f.badLines*10 > f.rows:
		return f, fmt.Errorf("%d of %d lines are not JSON", f.badLines, f.rows+f.badLines)
	case f.rows == 0 && !last:
		return f, errMore
	}
	return f, nil
}

func (f *jsonFinding) add(row *State) {
	f.rows++
	f.columns = joinFields(f.columns, row.Fields)
}

// lineEnds reports whether nothing but space follows on the line.
func (s *jsonScanner) lineEnds() bool {
	for _, c := range s.b[s.i:] {
		switch c {
		case '\n':
			return true
		case ' ', '\t', '\r':
		default:
			return false
		}
	}
	return true
}

func readArray(s *jsonScanner, f jsonFinding, last bool) (jsonFinding, error) {
	f.array = true
	s.i++
	for first := true; f.rows < jsonRowsMax; first = false {
		s.space()
		if s.i < len(s.b) && s.b[s.i] == ']' && first {
			return f, errEmpty
		}
		state, err := s.value(1)
		if err == nil && state.Kinds != kindStruct {
			err = errNotRows
		}
		if errors.Is(err, errUnfinished) && !last {
			break
		}
		if err != nil {
			return f, err
		}
		f.add(state)
		f.used = s.i
		s.space()
		if s.i == len(s.b) {
			if last {
				return f, errUnfinished
			}
			break
		}
		c := s.b[s.i]
		s.i++
		if c == ']' {
			f.used = s.i
			return f, nil
		}
		if c != ',' {
			return f, s.syntax()
		}
	}
	if f.rows == 0 {
		return f, errMore
	}
	return f, nil
}

// jsonScanner reads JSON into states, without keeping values. It is strict, as RFC
// 8259 has it.
type jsonScanner struct {
	b     []byte
	i     int
	notes map[string]bool
}

func (s *jsonScanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

func (s *jsonScanner) syntax() error { return fmt.Errorf("not JSON at byte %d", s.i) }

func (s *jsonScanner) value(depth int) (*State, error) {
	s.space()
	if s.i == len(s.b) {
		return nil, errUnfinished
	}
	switch c := s.b[s.i]; c {
	case '{', '[':
		if depth > 4*depthMax {
			return nil, fmt.Errorf("nested deeper than %d", 4*depthMax)
		}
		if c == '{' {
			return s.object(depth)
		}
		return s.array(depth)
	case '"':
		text, err := s.text()
		if err != nil {
			return nil, err
		}
		return jsonText(text), nil
	case 't':
		return s.word("true", stateBoolean)
	case 'f':
		return s.word("false", stateBoolean)
	case 'n':
		return s.word("null", unknown)
	}
	return s.number()
}

// jsonText is the state of a JSON string: a time, or text. Numbers within quotes
// were meant as text.
func jsonText(text string) *State {
	if len(text) < 10 || text[0]-'0' > 9 || text[4] != '-' {
		return stateString
	}
	if s := timeState(text); s != stateDate {
		return s
	}
	return stateDay // which no reader of JSON takes for a timestamp
}

func (s *jsonScanner) word(w string, state *State) (*State, error) {
	rest := s.b[s.i:]
	if len(rest) < len(w) && strings.HasPrefix(w, string(rest)) {
		return nil, errUnfinished
	}
	if !bytes.HasPrefix(rest, []byte(w)) {
		return nil, s.syntax()
	}
	s.i += len(w)
	return state, nil
}

func (s *jsonScanner) number() (*State, error) {
	start := s.i
	for s.i < len(s.b) && strings.IndexByte("+-.0123456789eE", s.b[s.i]) >= 0 {
		s.i++
	}
	text := s.b[start:s.i]
	if s.i == len(s.b) {
		return nil, errUnfinished // more digits may follow
	}
	if len(text) == 0 || !json.Valid(text) {
		s.i = start
		return nil, s.syntax()
	}
	if n := numberState(string(text)); n != nil {
		return n, nil
	}
	return stateDouble, nil // an exponent of more digits than we read
}

// text reads a string. Escapes are kept where they do not matter.
func (s *jsonScanner) text() (string, error) {
	start := s.i
	s.i++
	escaped := false
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			raw := s.b[start:s.i]
			if !escaped && utf8.Valid(raw) {
				return string(raw[1 : len(raw)-1]), nil
			}
			var text string
			if err := json.Unmarshal(raw, &text); err != nil {
				s.i = start
				return "", s.syntax()
			}
			return text, nil
		case c == '\\':
			escaped = true
			s.i++
		case c < ' ':
			return "", s.syntax()
		}
		s.i++
	}
	return "", errUnfinished
}

func (s *jsonScanner) object(depth int) (*State, error) {
	s.i++
	out := &State{Kinds: kindStruct}
	for first := true; ; first = false {
		s.space()
		if s.i == len(s.b) {
			return nil, errUnfinished
		}
		if s.b[s.i] == '}' && first {
			s.i++
			return out, nil
		}
		if s.b[s.i] != '"' {
			return nil, s.syntax()
		}
		name, err := s.text()
		if err != nil {
			return nil, err
		}
		s.space()
		if s.i == len(s.b) {
			return nil, errUnfinished
		}
		if s.b[s.i] != ':' {
			return nil, s.syntax()
		}
		s.i++
		member, err := s.value(depth + 1)
		if err != nil {
			return nil, err
		}
		s.member(out, strings.ToLower(name), member, depth)
		s.space()
		if s.i == len(s.b) {
			return nil, errUnfinished
		}
		c := s.b[s.i]
		s.i++
		switch c {
		case '}':
			return out, nil
		case ',':
		default:
			s.i--
			return nil, s.syntax()
		}
	}
}

func (s *jsonScanner) member(out *State, name string, state *State, depth int) {
	why := badColumn(name)
	if depth > 1 {
		why = badMember(name)
	}
	if why != "" {
		if len(s.notes) < notesMax {
			s.notes[why] = true
		}
		return
	}
	if out.Kinds == kindMap {
		out.Elem = join(out.Elem, state)
		return
	}
	out.Fields = joinFields(out.Fields, []Field{{name, state}})
	if len(out.Fields) > fieldsMax && depth > 1 {
		out.collapse()
	}
}

func (s *jsonScanner) array(depth int) (*State, error) {
	s.i++
	out := &State{Kinds: kindArray, Elem: unknown}
	for first := true; ; first = false {
		s.space()
		if s.i == len(s.b) {
			return nil, errUnfinished
		}
		if s.b[s.i] == ']' && first {
			s.i++
			return out, nil
		}
		elem, err := s.value(depth + 1)
		if err != nil {
			return nil, err
		}
		out.Elem = join(out.Elem, elem)
		s.space()
		if s.i == len(s.b) {
			return nil, errUnfinished
		}
		c := s.b[s.i]
		s.i++
		switch c {
		case ']':
			return out, nil
		case ',':
		default:
			s.i--
			return nil, s.syntax()
		}
	}
}

// readJSONPath reads the rows that a JSON classifier's path chooses.
func readJSONPath(data []byte, last bool, path jsonPath) (f jsonFinding, err error) {
	f.notes = map[string]bool{}
	dec := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))))
	dec.UseNumber()
	for f.rows < jsonRowsMax {
		var doc any
		if err := dec.Decode(&doc); err != nil {
			if f.rows > 0 && !last {
				break
			}
			if f.rows > 0 && dec.More() || f.rows == 0 {
				if !last {
					return f, errMore
				}
				return f, readError(err)
			}
			break
		}
		for _, v := range path.choose(doc) {
			text, err := json.Marshal(v)
			if err != nil {
				return f, err
			}
			s := &jsonScanner{b: append(text, '\n'), notes: f.notes}
			row, err := s.value(1)
			if err != nil {
				return f, err
			}
			if row.Kinds != kindStruct {
				return f, errNotRows
			}
			f.add(row)
		}
		f.used = int(dec.InputOffset())
	}
	if f.rows == 0 {
		return f, errEmpty
	}
	return f, nil
}
