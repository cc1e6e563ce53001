package transform

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tapehouse/tapehouse/internal/record"
)

// StatementError is a SQL transform that is refused. Position is the byte
// offset in the statement plus one of what is to blame, or 0.
type StatementError struct {
	Message  string
	Position int
	sql      string
}

// Error gives the place as people count it: in characters, from 1.
func (e *StatementError) Error() string {
	if e.Position == 0 {
		return "transform statement: " + e.Message
	}
	return fmt.Sprintf("transform statement, character %d: %s", utf8.RuneCountInString(e.sql[:e.Position-1])+1, e.Message)
}

// A statement's text, before DuckDB parses it:
//
//	SELECT … FROM records [AS] r(symbol varchar, price decimal(18,4), …) [WHERE …]
//	                            └──────── column definition list ────────┘
//
// The list is PostgreSQL's form for functions that return records. DuckDB has
// no such form for tables, so it is read here and blanked out; everything else
// stands where it stood, so that positions are the user's.

// table is the only table of a statement.
const table = "records"

// definition is a statement without its column definition list.
type definition struct {
	text    string // of the same length
	columns []record.Field
	list    bool // there was one; else the column is data
	words   []token
}

// dataColumn is the column of a statement without a list: the record's text.
const dataColumn = "data"

// reservedPrefix begins the names of what a statement has beside its columns.
const reservedPrefix = "_transform_"

// indexColumn is the hidden column by which rows find their records.
const indexColumn = reservedPrefix + "index"

// token is one lexical element outside of comments.
type token struct {
	text     string // as written
	from, to int
	depth    int  // of parentheses around it
	word     bool // an identifier, quoted or not, or a keyword
}

// name is the identifier that t stands for.
func (t token) name() string {
	if t.text[0] == '"' {
		return strings.ReplaceAll(t.text[1:len(t.text)-1], `""`, `"`)
	}
	return t.text
}

func (t token) is(keyword string) bool { return t.word && strings.EqualFold(t.text, keyword) }

// lex cuts sql into tokens. What it cannot read it leaves to DuckDB's parser:
// the rest of an unended string or comment is one token.
func lex(sql string) []token {
	var out []token
	depth := 0
	for i := 0; i < len(sql); {
		c := sql[i]
		from := i
		switch {
		case c == ' ' || c >= '\t' && c <= '\r':
			i++
			continue
		case strings.HasPrefix(sql[i:], "--"):
			for i < len(sql) && sql[i] != '\n' {
				i++
			}
			continue
		case strings.HasPrefix(sql[i:], "/*"):
			i = commentEnd(sql, i)
			continue
		case c == '\'':
			escapes := len(out) > 0 && out[len(out)-1].to == i && out[len(out)-1].is("e")
			i = quoteEnd(sql, i, escapes)
		case c == '"':
			i = quoteEnd(sql, i, false)
			out = append(out, token{sql[from:i], from, i, depth, i-from > 1 && sql[i-1] == '"'})
			continue
		case c == '$':
			i = dollarEnd(sql, i)
		case wordByte(c):
			for i < len(sql) && wordByte(sql[i]) {
				i++
			}
			out = append(out, token{sql[from:i], from, i, depth, c < '0' || c > '9'})
			continue
		case c == '(':
			out = append(out, token{"(", i, i + 1, depth, false})
			depth++
			i++
			continue
		case c == ')':
			depth--
			i++
		default:
			i++
		}
		out = append(out, token{sql[from:i], from, i, depth, false})
	}
	return out
}

func wordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= 0x80
}

// quoteEnd is behind the quoted text that starts at i.
func quoteEnd(sql string, i int, escapes bool) int {
	q := sql[i]
	for i++; i < len(sql); i++ {
		switch {
		case escapes && sql[i] == '\\':
			i++
		case sql[i] == q:
			if i+1 < len(sql) && sql[i+1] == q {
				i++
				continue
			}
			return i + 1
		}
	}
	return len(sql)
}

func commentEnd(sql string, i int) int {
	for depth := 0; i < len(sql); i++ {
		switch {
		case strings.HasPrefix(sql[i:], "/*"):
			depth++
			i++
		case strings.HasPrefix(sql[i:], "*/"):
			depth--
			i++
			if depth == 0 {
				return i + 1
			}
		}
	}
	return len(sql)
}

// dollarEnd is behind $tag$…$tag$, or behind the dollar.
func dollarEnd(sql string, i int) int {
	end := i + 1
	for end < len(sql) && wordByte(sql[end]) {
		end++
	}
	if end == len(sql) || sql[end] != '$' {
		return i + 1
	}
	tag := sql[i : end+1]
	if n := strings.Index(sql[end+1:], tag); n >= 0 {
		return end + 1 + n + len(tag)
	}
	return len(sql)
}

// define reads the column definition list of sql, if there is one.
func define(sql string) (*definition, error) {
	d := &definition{text: sql, columns: []record.Field{{ID: 1, Name: dataColumn, Type: record.Type{Kind: record.String}}}}
	d.words = lex(sql)
	open := d.listStart()
	if open < 0 {
		return d, nil
	}
	t := d.words
	end := open + 1
	for end < len(t) && t[end].depth > t[open].depth {
		end++
	}
	if end == len(t) {
		return nil, &StatementError{"the column definition list does not end", t[open].from + 1, sql}
	}
	columns, err := defineColumns(sql, t[open+1:end], t[open])
	if err != nil {
		return nil, err
	}
	d.columns, d.list = columns, true
	blank := []byte(sql)
	for i := t[open].from; i < t[end].to; i++ {
		blank[i] = ' '
	}
	d.text = string(blank)
	return d, nil
}

// listStart is the token that opens the list, or -1: the parenthesis that
// follows FROM records [AS] [alias] outside of all others.
func (d *definition) listStart() int {
	t := d.words
	for i := 0; i+1 < len(t); i++ {
		if t[i].depth != 0 || !t[i].is("from") || !t[i+1].word || !strings.EqualFold(t[i+1].name(), table) {
			continue
		}
		k := i + 2
		if k < len(t) && t[k].is("as") {
			k++
		}
		if k < len(t) && t[k].word && !t[k].is("where") {
			k++
		}
		if k < len(t) && t[k].text == "(" {
			return k
		}
	}
	return -1
}

// keyword is the position plus one of the first of the words outside of all
// parentheses, or 0.
func (d *definition) keyword(words ...string) int {
	for _, t := range d.words {
		if t.depth != 0 {
			continue
		}
		for _, w := range words {
			if t.is(w) {
				return t.from + 1
			}
		}
	}
	return 0
}

const typesHint = "want boolean, integer, bigint, decimal(p,s) with p up to 18, double precision, varchar, date or timestamptz"

// typeNames maps the spellings of types without arguments.
var typeNames = map[string]record.Kind{
	"boolean": record.Boolean, "bool": record.Boolean,
	"integer": record.Int, "int": record.Int, "int4": record.Int,
	"bigint": record.Long, "int8": record.Long,
	"double precision": record.Double, "double": record.Double, "float8": record.Double,
	"varchar": record.String, "text": record.String, "character varying": record.String, "string": record.String,
	"date":        record.Date,
	"timestamptz": record.TimestampTZ, "timestamp with time zone": record.TimestampTZ,
}

func defineColumns(sql string, t []token, open token) ([]record.Field, error) {
	var fields []record.Field
	seen := map[string]bool{}
	for len(t) > 0 || len(fields) == 0 {
		n := slices.IndexFunc(t, func(t token) bool { return t.depth == open.depth+1 && t.text == "," })
		last := n < 0
		if last {
			n = len(t)
		}
		if n == 0 {
			return nil, &StatementError{"the column definition list lacks a column", open.from + 1, sql}
		}
		f, err := defineColumn(sql, t[:n])
		if err != nil {
			return nil, err
		}
		f.ID = len(fields) + 1
		if key := strings.ToLower(f.Name); seen[key] {
			return nil, &StatementError{fmt.Sprintf("column %q is declared twice; names are compared without regard to case", f.Name), t[0].from + 1, sql}
		} else if strings.HasPrefix(key, reservedPrefix) {
			return nil, &StatementError{"names that begin with " + reservedPrefix + " are reserved", t[0].from + 1, sql}
		} else {
			seen[key] = true
		}
		fields = append(fields, f)
		if last {
			break
		}
		if t = t[n+1:]; len(t) == 0 {
			return nil, &StatementError{"the column definition list lacks a column behind its last comma", open.from + 1, sql}
		}
	}
	return fields, nil
}

func defineColumn(sql string, t []token) (record.Field, error) {
	fail := func(at token, format string, args ...any) (record.Field, error) {
		return record.Field{}, &StatementError{fmt.Sprintf(format, args...), at.from + 1, sql}
	}
	if !t[0].word {
		return fail(t[0], "%s is no column name", t[0].text)
	}
	f := record.Field{Name: t[0].name()}
	if len(t) == 1 {
		return fail(t[0], "column %q has no type: %s", f.Name, typesHint)
	}
	var words []string
	k := 1
	for ; k < len(t) && t[k].word && t[k].text[0] != '"'; k++ {
		words = append(words, strings.ToLower(t[k].text))
	}
	arguments := ""
	if k < len(t) && t[k].text == "(" {
		from := k
		for k < len(t) && t[k].text != ")" {
			k++
		}
		if k < len(t) {
			arguments = sql[t[from].from:t[k].to]
			k++
		}
		for ; k < len(t) && t[k].word; k++ { // timestamp(6) with time zone
			words = append(words, strings.ToLower(t[k].text))
		}
	}
	name := strings.Join(words, " ")
	written := sql[t[1].from:t[len(t)-1].to]
	if k < len(t) {
		return fail(t[1], "column %q: the type %s is not supported: %s", f.Name, written, typesHint)
	}
	if name == "decimal" || name == "numeric" {
		switch {
		case arguments == "":
			arguments = "(18,0)"
		case !strings.Contains(arguments, ","):
			arguments = strings.TrimSuffix(arguments, ")") + ",0)"
		}
		typ, err := record.ParseType("decimal" + arguments)
		if err != nil {
			return fail(t[1], "column %q: %s: precision 1 to 18 and a scale within it; read more digits from the text of the record (FROM records without a list)", f.Name, written)
		}
		f.Type = typ
		return f, nil
	}
	kind, ok := typeNames[name]
	if arguments != "" && kind != record.String {
		ok = false
	}
	if !ok {
		hint := typesHint
		switch {
		case strings.HasPrefix(name, "timestamp"):
			hint = "a local time names no instant; declare timestamptz, or varchar and cast it"
		case name == "json" || name == "jsonb" || name == "super" || strings.HasPrefix(name, "struct") || name == "map":
			hint = "read nested members from the text of the record: FROM records without a list, data->'member'"
		}
		return fail(t[1], "column %q: the type %s is not supported: %s", f.Name, written, hint)
	}
	f.Type.Kind = kind
	return f, nil
}
