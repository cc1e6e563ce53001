package transform

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"unicode/utf8"
)

// scanner walks over JSON by RFC 8259, once and without building values: an
// answer of 6 MB is checked and cut into its records in one pass. Names are
// compared byte by byte, and of several members of one name the last counts, as
// in the functions' own libraries.
type scanner struct {
	b   []byte
	pos int
	// number, if not nil, sees every number that is passed over.
	number func(text []byte)
}

// depthMax bounds nesting, so that recursion is bounded.
const depthMax = 64

func (s *scanner) space() {
	for s.pos < len(s.b) {
		switch s.b[s.pos] {
		case ' ', '\n', '\r', '\t':
			s.pos++
		default:
			return
		}
	}
}

// peek is the next byte, 0 at the end.
func (s *scanner) peek() byte {
	if s.pos < len(s.b) {
		return s.b[s.pos]
	}
	return 0
}

// take passes over c, with white space around it.
func (s *scanner) take(c byte) bool {
	s.space()
	if s.peek() != c {
		return false
	}
	s.pos++
	s.space()
	return true
}

// text passes over a string and returns it with its quotes.
func (s *scanner) text() (quoted []byte, ok bool) {
	from := s.pos
	if s.peek() != '"' {
		return nil, false
	}
	// Nearly all of an answer is base64: it is passed over eight bytes a step.
	if n := bytes.IndexByte(s.b[from+1:], '"'); n >= 0 {
		if odd := oddities(s.b[from+1 : from+1+n]); odd&(control|escape) == 0 {
			s.pos = from + n + 2
			return s.b[from:s.pos], true
		}
	}
	for s.pos++; s.pos < len(s.b); s.pos++ {
		switch c := s.b[s.pos]; {
		case c == '"':
			s.pos++
			return s.b[from:s.pos], true
		case c < 0x20:
			return nil, false
		case c == '\\':
			s.pos++
			switch s.peek() {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if s.pos+4 >= len(s.b) {
					return nil, false
				}
				for _, h := range s.b[s.pos+1 : s.pos+5] {
					if h-'0' > 9 && h|0x20-'a' > 5 {
						return nil, false
					}
				}
				s.pos += 4
			default:
				return nil, false
			}
		}
	}
	return nil, false
}

// What oddities finds in a text.
const (
	control = 1 << iota // a byte below a space
	escape              // a backslash
	high                // a byte that is not ASCII
)

// oddities tells which of them b may hold; none that it holds is left out.
func oddities(b []byte) (found int) {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	var low, slash, top uint64
	for len(b) >= 8 {
		x := binary.LittleEndian.Uint64(b)
		y := x ^ ones*'\\'
		low |= (x - ones*0x20) & ^x
		slash |= (y - ones) & ^y
		top |= x
		b = b[8:]
	}
	if low&tops != 0 {
		found |= control
	}
	if slash&tops != 0 {
		found |= escape
	}
	if top&tops != 0 {
		found |= high
	}
	for _, c := range b {
		switch {
		case c < 0x20:
			found |= control
		case c == '\\':
			found |= escape
		case c >= utf8.RuneSelf:
			found |= high
		}
	}
	return found
}

// plain reports whether a quoted string stands for itself.
func plain(quoted []byte) bool { return oddities(quoted)&(escape|high) == 0 }

// unquote is the string that quoted stands for. What is no UTF-8 becomes
// U+FFFD, as in encoding/json.
func unquote(quoted []byte) string {
	if plain(quoted) {
		return string(quoted[1 : len(quoted)-1])
	}
	var v string
	_ = json.Unmarshal(quoted, &v) // text has checked it
	return v
}

// object passes over an object and calls member at each value, which member
// passes over. name is valid during the call only.
func (s *scanner) object(depth int, member func(name []byte) bool) bool {
	if depth > depthMax || !s.take('{') {
		return false
	}
	if s.peek() == '}' {
		s.pos++
		return true
	}
	for {
		name, ok := s.text()
		if !ok || !s.take(':') {
			return false
		}
		if name = name[1 : len(name)-1]; !plain(name) {
			name = []byte(unquote(append(append([]byte{'"'}, name...), '"')))
		}
		if !member(name) {
			return false
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
			s.space()
		case '}':
			s.pos++
			return true
		default:
			return false
		}
	}
}

// array passes over an array and calls element at each value, which element
// passes over.
func (s *scanner) array(depth int, element func() bool) bool {
	if depth > depthMax || !s.take('[') {
		return false
	}
	if s.peek() == ']' {
		s.pos++
		return true
	}
	for {
		if !element() {
			return false
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
			s.space()
		case ']':
			s.pos++
			return true
		default:
			return false
		}
	}
}

// skip passes over one value.
func (s *scanner) skip(depth int) bool {
	switch s.peek() {
	case '{':
		return s.object(depth, func([]byte) bool { return s.skip(depth + 1) })
	case '[':
		return s.array(depth, func() bool { return s.skip(depth + 1) })
	case '"':
		_, ok := s.text()
		return ok
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	}
	n := numberLength(s.b[s.pos:])
	if n > 0 && s.number != nil {
		s.number(s.b[s.pos : s.pos+n])
	}
	s.pos += n
	return n > 0
}

// value passes over one value and returns its text.
func (s *scanner) value(depth int) ([]byte, bool) {
	from := s.pos
	ok := s.skip(depth)
	return s.b[from:s.pos], ok
}

// end reports whether nothing but white space is left.
func (s *scanner) end() bool {
	s.space()
	return s.pos == len(s.b)
}

func (s *scanner) word(w string) bool {
	if len(s.b)-s.pos < len(w) || string(s.b[s.pos:s.pos+len(w)]) != w {
		return false
	}
	s.pos += len(w)
	return true
}

// numberLength is the length of the JSON number that b begins with, 0 if it
// begins with none.
func numberLength(b []byte) int {
	i := 0
	digits := func() bool {
		from := i
		for i < len(b) && b[i]-'0' <= 9 {
			i++
		}
		return i > from
	}
	if i < len(b) && b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if !digits() {
		return 0
	}
	if i < len(b) && b[i] == '.' {
		i++
		if !digits() {
			return 0
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if !digits() {
			return 0
		}
	}
	return i
}
