package serde

import (
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// DepthMax bounds the nesting of a document; the document itself is level 1.
const DepthMax = 64

// value is a JSON value of a document: a node of a tree in one slice.
type value struct {
	kind  byte   // n t f " 0 [ {
	name  []byte // of a member, unescaped
	text  []byte // of a string: unescaped; of a number: as it stands; of [ and {: from brace to brace
	at    int32  // byte position in the record
	first int32  // [ and {: index of the first child; 0: none
	next  int32  // index of the next sibling; 0: none
	count int32  // [ and {: children
}

// scanner reads documents by RFC 8259. What it keeps aliases the record or its own
// buffer, and lasts until the next document.
type scanner struct {
	doc    []byte
	pos    int
	values []value
	text   []byte // unescaped strings
	fault  string
}

// fail notes the first fault, with its position.
func (s *scanner) fail(at int, format string, args ...any) bool {
	if s.fault == "" {
		s.fault = fmt.Sprintf(format, args...) + fmt.Sprintf(" at byte %d", at)
	}
	return false
}

// begin sets the record. It checks UTF-8 once for all its documents.
func (s *scanner) begin(record []byte) bool {
	s.doc, s.pos, s.fault = record, 0, ""
	if utf8.Valid(record) {
		return true
	}
	at := 0
	for {
		r, n := utf8.DecodeRune(record[at:])
		if r == utf8.RuneError && n == 1 {
			return s.fail(at, "bytes that are no UTF-8")
		}
		at += n
	}
}

// more reports whether another document follows.
func (s *scanner) more() bool {
	s.space()
	return s.pos < len(s.doc)
}

// document reads the next document into values; its root is values[0].
func (s *scanner) document() bool {
	s.values, s.text = s.values[:0], s.text[:0]
	_, ok := s.value(nil, 1)
	return ok
}

func (s *scanner) space() {
	for s.pos < len(s.doc) {
		switch s.doc[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

func (s *scanner) peek() byte {
	if s.pos < len(s.doc) {
		return s.doc[s.pos]
	}
	return 0
}

// value reads a value and returns its index. The caller has skipped spaces.
func (s *scanner) value(name []byte, depth int) (int32, bool) {
	i := int32(len(s.values))
	c := s.peek()
	s.values = append(s.values, value{kind: c, name: name, at: int32(s.pos)})
	switch {
	case c == '{' || c == '[':
		if depth > DepthMax {
			return i, s.fail(s.pos, "nested deeper than %d", DepthMax)
		}
		return i, s.parts(i, depth)
	case c == '"':
		text, ok := s.string()
		s.values[i].text = text
		return i, ok
	case c == '-' || c-'0' <= 9:
		n := numberLength(s.doc[s.pos:])
		if n == 0 {
			return i, s.fail(s.pos, "a malformed number")
		}
		s.values[i].kind = '0'
		s.values[i].text = s.doc[s.pos : s.pos+n]
		s.pos += n
		return i, true
	case c == 't':
		return i, s.literal("true")
	case c == 'f':
		return i, s.literal("false")
	case c == 'n':
		return i, s.literal("null")
	case s.pos == len(s.doc):
		return i, s.fail(s.pos, "the record ends where a value should follow")
	}
	return i, s.fail(s.pos, "want a value, not %q", c)
}

func (s *scanner) literal(word string) bool {
	if len(s.doc)-s.pos < len(word) || string(s.doc[s.pos:s.pos+len(word)]) != word {
		return s.fail(s.pos, "want %s", word)
	}
	s.pos += len(word)
	return true
}

// parts reads what the brace or bracket at pos holds, up to behind the closing one.
func (s *scanner) parts(i int32, depth int) bool {
	object := s.values[i].kind == '{'
	closing := byte(']')
	if object {
		closing = '}'
	}
	start := s.pos
	s.pos++
	last, count := int32(0), int32(0)
	s.space()
	if s.peek() == closing {
		s.pos++
		s.values[i].text = s.doc[start:s.pos]
		return true
	}
	for {
		s.space()
		var name []byte
		if object {
			if s.peek() != '"' {
				return s.fail(s.pos, "want a member's name")
			}
			var ok bool
			if name, ok = s.string(); !ok {
				return false
			}
			s.space()
			if s.peek() != ':' {
				return s.fail(s.pos, "want a colon")
			}
			s.pos++
			s.space()
		}
		child, ok := s.value(name, depth+1)
		if !ok {
			return false
		}
		if last == 0 {
			s.values[i].first = child
		} else {
			s.values[last].next = child
		}
		last = child
		count++
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
		case closing:
			s.pos++
			s.values[i].count = count
			s.values[i].text = s.doc[start:s.pos]
			return true
		default:
			return s.fail(s.pos, "want a comma or %q", closing)
		}
	}
}

// string reads the string at pos. The result aliases the record, or text if
// anything was escaped.
func (s *scanner) string() ([]byte, bool) {
	s.pos++
	start := s.pos
	for s.pos < len(s.doc) {
		switch c := s.doc[s.pos]; {
		case c == '"':
			s.pos++
			return s.doc[start : s.pos-1], true
		case c == '\\':
			return s.escaped(start)
		case c < ' ':
			return nil, s.fail(s.pos, "a control character in a string")
		}
		s.pos++
	}
	return nil, s.fail(start-1, "a string without an end")
}

// escaped goes on with a string from its first backslash on.
func (s *scanner) escaped(start int) ([]byte, bool) {
	begin := len(s.text)
	s.text = append(s.text, s.doc[start:s.pos]...)
	for s.pos < len(s.doc) {
		c := s.doc[s.pos]
		switch {
		case c == '"':
			s.pos++
			return s.text[begin:len(s.text):len(s.text)], true
		case c < ' ':
			return nil, s.fail(s.pos, "a control character in a string")
		case c != '\\':
			s.text = append(s.text, c)
			s.pos++
			continue
		}
		at := s.pos
		s.pos += 2
		if s.pos > len(s.doc) {
			break
		}
		switch c := s.doc[at+1]; c {
		case '"', '\\', '/':
			s.text = append(s.text, c)
		case 'b':
			s.text = append(s.text, '\b')
		case 'f':
			s.text = append(s.text, '\f')
		case 'n':
			s.text = append(s.text, '\n')
		case 'r':
			s.text = append(s.text, '\r')
		case 't':
			s.text = append(s.text, '\t')
		case 'u':
			r, ok := s.hex()
			if ok && utf16.IsSurrogate(r) {
				low := rune(0)
				if s.pos+1 < len(s.doc) && s.doc[s.pos] == '\\' && s.doc[s.pos+1] == 'u' {
					s.pos += 2
					low, ok = s.hex()
				}
				if r = utf16.DecodeRune(r, low); ok && r == utf8.RuneError {
					return nil, s.fail(at, "an escaped half of a surrogate pair")
				}
			}
			if !ok {
				return nil, s.fail(at, "a malformed escape")
			}
			s.text = utf8.AppendRune(s.text, r)
		default:
			return nil, s.fail(at, "a malformed escape")
		}
	}
	return nil, s.fail(start-1, "a string without an end")
}

// hex reads four hexadecimal digits at pos.
func (s *scanner) hex() (r rune, ok bool) {
	if len(s.doc)-s.pos < 4 {
		return 0, false
	}
	for _, c := range s.doc[s.pos : s.pos+4] {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c|0x20-'a' <= 5:
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	s.pos += 4
	return r, true
}

// numberLength is the length of the number that s begins with, by JSON's grammar;
// 0: none.
func numberLength(s []byte) int {
	i := 0
	digits := func() int {
		n := 0
		for i < len(s) && s[i]-'0' <= 9 {
			i++
			n++
		}
		return n
	}
	if i < len(s) && s[i] == '-' {
		i++
	}
	if i < len(s) && s[i] == '0' {
		i++
	} else if digits() == 0 {
		return 0
	}
	if i < len(s) && s[i] == '.' {
		i++
		if digits() == 0 {
			return 0
		}
	}
	if i < len(s) && s[i]|0x20 == 'e' {
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		if digits() == 0 {
			return 0
		}
	}
	return i
}
