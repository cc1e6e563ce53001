package crawler

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	globBytesMax = 1_024
	globsMax     = 100
	globDepthMax = 16 // of braces
)

// glob is an exclusion pattern, relative to a target's path, as Glue has it:
//
//   - any characters within a segment
//     **          any characters, '/' too
//     ?           one character, not '/'
//     [abc] [a-z] [!a]   one of these characters, or none of them; never '/'
//     {a,b}       one of these patterns
//     \           the next character as it is
//
// Matching takes time that is the product of the lengths at most.
type glob struct {
	text  string
	nodes []globNode
}

type globOp uint8

const (
	globChar globOp = iota
	globOne
	globSet
	globStar
	globDeep
	globSplit // goes on at next and at alternative
	globJump  // goes on at next
)

// globNode is an instruction; the program's end matches.
type globNode struct {
	op     globOp
	char   rune
	negate bool
	ranges [][2]rune
	next   []int // globSplit, globJump: where to go on
}

func compileGlob(text string) (*glob, error) {
	if text == "" || len(text) > globBytesMax || !utf8.ValidString(text) {
		return nil, fmt.Errorf("%w: exclusion %q: want 1 to %d bytes of UTF-8", ErrInvalid, text, globBytesMax)
	}
	c := globCompiler{rest: strings.TrimPrefix(text, "/")}
	if err := c.sequence(0); err != nil {
		return nil, fmt.Errorf("%w: exclusion %q: %w", ErrInvalid, text, err)
	}
	return &glob{text, c.nodes}, nil
}

type globCompiler struct {
	rest  string
	nodes []globNode
}

func (c *globCompiler) take() rune {
	r, n := utf8.DecodeRuneInString(c.rest)
	c.rest = c.rest[n:]
	return r
}

// sequence compiles up to the end, or within braces up to ',' or '}', which stays.
func (c *globCompiler) sequence(depth int) error {
	for c.rest != "" {
		if depth > 0 && (c.rest[0] == ',' || c.rest[0] == '}') {
			return nil
		}
		switch r := c.take(); r {
		case '*':
			if strings.HasPrefix(c.rest, "*") {
				c.rest = strings.TrimLeft(c.rest, "*")
				c.nodes = append(c.nodes, globNode{op: globDeep})
			} else {
				c.nodes = append(c.nodes, globNode{op: globStar})
			}
		case '?':
			c.nodes = append(c.nodes, globNode{op: globOne})
		case '[':
			if err := c.set(); err != nil {
				return err
			}
		case '{':
			if err := c.braces(depth + 1); err != nil {
				return err
			}
		case '\\':
			if c.rest == "" {
				return fmt.Errorf("it ends in a backslash")
			}
			c.nodes = append(c.nodes, globNode{op: globChar, char: c.take()})
		default:
			c.nodes = append(c.nodes, globNode{op: globChar, char: r})
		}
	}
	return nil
}

func (c *globCompiler) set() error {
	n := globNode{op: globSet}
	if strings.HasPrefix(c.rest, "!") {
		n.negate = true
		c.rest = c.rest[1:]
	}
	for first := true; ; first = false {
		if c.rest == "" {
			return fmt.Errorf("[ is not closed")
		}
		low := c.take()
		if low == ']' && !first {
			break
		}
		if low == '\\' && c.rest != "" {
			low = c.take()
		}
		high := low
		if strings.HasPrefix(c.rest, "-") && len(c.rest) > 1 && c.rest[1] != ']' {
			c.take()
			high = c.take()
		}
		if high < low {
			return fmt.Errorf("the range %c-%c is empty", low, high)
		}
		n.ranges = append(n.ranges, [2]rune{low, high})
	}
	c.nodes = append(c.nodes, n)
	return nil
}

func (c *globCompiler) braces(depth int) error {
	if depth > globDepthMax {
		return fmt.Errorf("braces nested deeper than %d", globDepthMax)
	}
	split := len(c.nodes)
	c.nodes = append(c.nodes, globNode{op: globSplit})
	var ends []int
	for {
		c.nodes[split].next = append(c.nodes[split].next, len(c.nodes))
		if err := c.sequence(depth); err != nil {
			return err
		}
		if c.rest == "" {
			return fmt.Errorf("{ is not closed")
		}
		ends = append(ends, len(c.nodes))
		c.nodes = append(c.nodes, globNode{op: globJump})
		if c.take() == '}' {
			break
		}
	}
	for _, e := range ends {
		c.nodes[e].next = []int{len(c.nodes)}
	}
	return nil
}

// match reports whether the pattern matches the whole name.
func (g *glob) match(name string) bool {
	s := globStates{nodes: g.nodes, in: make([]bool, len(g.nodes)+1)}
	s.add(0)
	for _, r := range name {
		from := s.list
		s = globStates{nodes: g.nodes, in: make([]bool, len(g.nodes)+1)}
		for _, i := range from {
			if i == len(g.nodes) {
				continue
			}
			switch n := &g.nodes[i]; n.op {
			case globChar:
				if r == n.char {
					s.add(i + 1)
				}
			case globOne:
				if r != '/' {
					s.add(i + 1)
				}
			case globSet:
				if r != '/' && n.has(r) != n.negate {
					s.add(i + 1)
				}
			case globStar:
				if r != '/' {
					s.add(i)
				}
			case globDeep:
				s.add(i)
			}
		}
		if len(s.list) == 0 {
			return false
		}
	}
	return s.in[len(g.nodes)]
}

func (n *globNode) has(r rune) bool {
	for _, x := range n.ranges {
		if x[0] <= r && r <= x[1] {
			return true
		}
	}
	return false
}

// globStates are the instructions at which a match may be.
type globStates struct {
	nodes []globNode
	in    []bool
	list  []int
}

func (s *globStates) add(i int) {
	if s.in[i] {
		return
	}
	s.in[i] = true
	if i < len(s.nodes) {
		switch n := &s.nodes[i]; n.op {
		case globSplit, globJump:
			for _, next := range n.next {
				s.add(next)
			}
			return
		case globStar, globDeep:
			s.add(i + 1)
		}
	}
	s.list = append(s.list, i)
}

// exclusions are the patterns of a target.
type exclusions []*glob

func compileExclusions(patterns []string) (exclusions, error) {
	if len(patterns) > globsMax {
		return nil, fmt.Errorf("%w: %d exclusions, the limit is %d", ErrInvalid, len(patterns), globsMax)
	}
	out := make(exclusions, len(patterns))
	for i, p := range patterns {
		g, err := compileGlob(p)
		if err != nil {
			return nil, err
		}
		out[i] = g
	}
	return out, nil
}

func (e exclusions) match(name string) bool {
	for _, g := range e {
		if g.match(name) {
			return true
		}
	}
	return false
}
