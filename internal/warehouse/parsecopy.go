package warehouse

import (
	"strings"
)

// CopyFormat is the format of COPY's stream.
type CopyFormat uint8

// The formats of COPY.
const (
	CopyText CopyFormat = iota
	CopyCSV
	CopyBinary
)

// Copy describes a COPY statement to the protocol, which encodes and decodes
// its rows: of COPY TO STDOUT they are the Result, those of COPY FROM STDIN go
// to Session.CopyIn.
type Copy struct {
	In           bool // FROM STDIN; else TO STDOUT
	Format       CopyFormat
	Delimiter    byte    // 0: tab for text, comma for CSV
	Null         *string // nil: \N for text, empty for CSV
	Quote        byte    // CSV; 0: "
	Escape       byte    // CSV; 0: as Quote
	Header       bool
	MatchHeader  bool
	ForceQuote   []bool // per column
	ForceNotNull []bool
	ForceNull    []bool
	Columns      []Column
}

// copy reads COPY {table [(columns)] | (query)} {FROM STDIN | TO STDOUT}
// [[WITH] (options)], and the options' older spelling without parentheses.
func (p *parser) copy() (statement, error) {
	s := copyStatement{}
	var err error
	if p.peek().punct("(") {
		depth, from := 0, p.pos+1
		for {
			t := p.next()
			if t.kind == tokenEOF {
				p.pos--
				return nil, p.unexpected()
			}
			if t.punct("(") {
				depth++
			}
			if t.punct(")") {
				if depth--; depth == 0 {
					break
				}
			}
		}
		s.query = append(append([]token{}, p.tokens[from:p.pos-1]...), token{kind: tokenEOF, start: p.tokens[p.pos-1].start, end: p.tokens[p.pos-1].start})
		if len(s.query) < 2 || !startsQuery(s.query[0]) {
			return nil, syntaxError(p.sql, s.query[0].start, "COPY of a query takes a SELECT")
		}
	} else {
		if s.schema, s.name, err = p.qualified(); err != nil {
			return nil, err
		}
		if p.peek().punct("(") {
			if s.columns, err = p.names(true); err != nil {
				return nil, err
			}
		}
	}
	at := position(p.sql, p.peek().start)
	switch {
	case p.accept("from"):
		s.in = true
		if s.query != nil {
			return nil, syntaxError(p.sql, p.tokens[p.pos-1].start, "a query cannot be copied into")
		}
		if !p.accept("stdin") {
			return nil, unsupported("COPY FROM anything but STDIN", "use \\copy in psql, or the Firehose API").at(at)
		}
	case p.accept("to"):
		if !p.accept("stdout") {
			return nil, unsupported("COPY TO anything but STDOUT", "use \\copy in psql").at(at)
		}
	default:
		return nil, p.unexpected()
	}
	p.accept("with")
	if p.accept("(") {
		err = p.copyOptions(&s, true)
	} else {
		err = p.copyOptions(&s, false)
	}
	s.options.In = s.in
	return s, err
}

func (p *parser) copyOptions(s *copyStatement, parens bool) error {
	for {
		t := p.peek()
		if !parens && (t.kind == tokenEOF || t.punct(";")) {
			return nil
		}
		if parens && p.accept(")") {
			return nil
		}
		if err := p.copyOption(s, parens); err != nil {
			return err
		}
		if parens && !p.peek().punct(")") {
			if err := p.expect(","); err != nil {
				return err
			}
		}
	}
}

func (p *parser) copyOption(s *copyStatement, parens bool) error {
	at := position(p.sql, p.peek().start)
	o := &s.options
	char := func(into *byte) error {
		p.accept("as")
		t := p.next()
		if t.kind != tokenString || len(t.value) != 1 || t.value == "\n" || t.value == "\r" {
			return errorf(codeInvalidParameter, "COPY takes a single one-byte character here").at(at)
		}
		*into = t.value[0]
		return nil
	}
	columns := func(into *[]string) error {
		if p.accept("*") {
			*into = []string{"*"}
			return nil
		}
		var err error
		if parens {
			*into, err = p.names(true)
			return err
		}
		for {
			n, err := p.ident()
			if err != nil {
				return err
			}
			*into = append(*into, n)
			if !p.accept(",") {
				return nil
			}
		}
	}
	switch {
	case p.accept("format"):
		p.accept("as")
		name := p.next()
		return setFormat(o, name.value, at)
	case p.accept("csv"):
		return setFormat(o, "csv", at)
	case p.accept("binary"):
		return setFormat(o, "binary", at)
	case p.accept("delimiter"), p.accept("delimiters"):
		return char(&o.Delimiter)
	case p.accept("quote"):
		return char(&o.Quote)
	case p.accept("escape"):
		return char(&o.Escape)
	case p.accept("null"):
		p.accept("as")
		t := p.next()
		if t.kind != tokenString {
			p.pos--
			return p.unexpected()
		}
		o.Null = &t.value
	case p.accept("header"):
		o.Header = true
		switch {
		case p.accept("false"), p.accept("off"):
			o.Header = false
		case p.accept("match"):
			o.MatchHeader = true
		case p.accept("true"), p.accept("on"):
		}
	case p.accept("encoding"):
		t := p.next()
		if v := strings.ToUpper(strings.ReplaceAll(t.value, "-", "")); v != "UTF8" {
			return errorf(codeInvalidParameter, "COPY encoding %q is not supported", t.value).hint("the server speaks UTF8 only").at(at)
		}
	case p.accept("force_quote"), p.accept("force", "quote"):
		return columns(&s.forceQuote)
	case p.accept("force_not_null"), p.accept("force", "not", "null"):
		return columns(&s.forceNotNull)
	case p.accept("force_null"), p.accept("force", "null"):
		return columns(&s.forceNull)
	case p.accept("freeze"):
		p.accept("true")
	default:
		return p.unexpected()
	}
	return nil
}

func setFormat(o *Copy, name string, at int) error {
	switch strings.ToLower(name) {
	case "text":
		o.Format = CopyText
	case "csv":
		o.Format = CopyCSV
	case "binary":
		o.Format = CopyBinary
	default:
		return errorf(codeInvalidParameter, "COPY format %q not recognized", name).hint("text, csv or binary").at(at)
	}
	return nil
}

// finish checks the options against each other and against the columns.
func (s *copyStatement) finish(columns []Column) (*Copy, error) {
	o := s.options
	o.Columns = columns
	if o.Format != CopyCSV && (o.Quote != 0 || o.Escape != 0 || s.forceQuote != nil || s.forceNotNull != nil || s.forceNull != nil) {
		return nil, errorf(codeFeatureNotSupported, "COPY quote, escape and force options are available only in CSV mode")
	}
	if o.Format == CopyBinary && (o.Delimiter != 0 || o.Null != nil || o.Header) {
		return nil, errorf(codeSyntax, "cannot specify DELIMITER, NULL or HEADER in BINARY mode")
	}
	pick := func(names []string) ([]bool, error) {
		if names == nil {
			return nil, nil
		}
		out := make([]bool, len(columns))
		for _, n := range names {
			found := false
			for i := range columns {
				if n == "*" || columns[i].Name == n {
					out[i], found = true, true
				}
			}
			if !found {
				return nil, errorf(codeUndefinedColumn, "column %q of a COPY option does not exist", n)
			}
		}
		return out, nil
	}
	var err error
	if o.ForceQuote, err = pick(s.forceQuote); err != nil {
		return nil, err
	}
	if o.ForceNotNull, err = pick(s.forceNotNull); err != nil {
		return nil, err
	}
	o.ForceNull, err = pick(s.forceNull)
	return &o, err
}
