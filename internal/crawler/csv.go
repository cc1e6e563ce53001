package crawler

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/zeebo/xxh3"
)

const (
	// csvRowsMax is how many rows of a file are looked at.
	csvRowsMax = 1_000
	// csvDetectRows is how many of them decide the dialect.
	csvDetectRows = 200
	// csvEven is the share of rows, in percent, that must have as many fields as
	// most: reports have title and trailer lines.
	csvEven = 90
	// headerCellMax bounds a header's cell, as Glue has it.
	headerCellMax = 150
)

// delimiters are tried in this order.
const delimiters = ",\t|;\x01"

// csvForm is a dialect of CSV.
type csvForm struct {
	Delimiter string `json:"d"`
	Quote     string `json:"q,omitempty"` // "": nothing is quoted
	Escape    string `json:"e,omitempty"` // "": a quote within quotes is doubled
	Header    bool   `json:"h,omitempty"`
	// First stands for the names that the first row would make, in a file of which all
	// columns are text and that seems to have no header: beside files with these names
	// as their header, it is one.
	First string `json:"f,omitempty"`
	Serde string `json:"s,omitempty"` // OpenCSVSerDe, LazySimpleSerDe, if a classifier says so
}

// csvRows parses up to most rows. last reports that data is all there is: otherwise
// a last row without a line end is left out. odd counts rows that are not well-formed.
func csvRows(data string, form csvForm, last bool, most int) (rows [][]string, odd int, quoted bool) {
	p := csvParser{data: data, last: last, delimiter: form.Delimiter[0]}
	if form.Quote != "" {
		p.quote, p.quotes = form.Quote[0], true
	}
	if form.Escape != "" {
		p.escape, p.escapes = form.Escape[0], true
	}
	for len(rows) < most {
		row, ok := p.row()
		if !ok {
			break
		}
		if len(row) == 1 && strings.TrimSpace(row[0]) == "" {
			continue
		}
		rows = append(rows, row)
	}
	return rows, p.odd, p.quoted
}

type csvParser struct {
	data             string
	width            int // of the last row
	at               int
	last             bool
	delimiter, quote byte
	escape           byte
	quotes, escapes  bool
	odd              int
	quoted           bool
}

func (p *csvParser) row() (row []string, ok bool) {
	if p.at >= len(p.data) {
		return nil, false
	}
	row = make([]string, 0, max(p.width, 4))
	for {
		field, end := p.field()
		row = append(row, field)
		if end == endField {
			continue
		}
		p.width = len(row)
		return row, end == endRow || p.last
	}
}

type csvEnd int

const (
	endField csvEnd = iota
	endRow
	endData
)

func (p *csvParser) field() (string, csvEnd) {
	if p.quotes && p.at < len(p.data) && p.data[p.at] == p.quote {
		return p.quotedField()
	}
	start := p.at
	for p.at < len(p.data) {
		switch c := p.data[p.at]; {
		case c == p.delimiter || c == '\n' || c == '\r':
			text := p.data[start:p.at]
			return text, p.end()
		case p.quotes && c == p.quote:
			p.odd++ // a quote within a bare field is kept as it is
		case p.escapes && c == p.escape && p.at+1 < len(p.data):
			p.at++
		}
		p.at++
	}
	return p.data[start:], endData
}

// end passes over a delimiter or a line end: LF, CR LF or CR.
func (p *csvParser) end() csvEnd {
	c := p.data[p.at]
	p.at++
	if c == p.delimiter {
		return endField
	}
	if c == '\r' && p.at < len(p.data) && p.data[p.at] == '\n' {
		p.at++
	}
	return endRow
}

func (p *csvParser) quotedField() (string, csvEnd) {
	p.at++
	var text []byte
	for p.at < len(p.data) {
		c := p.data[p.at]
		switch {
		case p.escapes && c == p.escape && p.at+1 < len(p.data):
			text = append(text, p.data[p.at+1])
			p.at += 2
			continue
		case c != p.quote:
			text = append(text, c)
			p.at++
			continue
		case p.at+1 < len(p.data) && p.data[p.at+1] == p.quote:
			text = append(text, c)
			p.at += 2
			continue
		}
		p.at++ // the closing quote
		p.quoted = true
		if p.at >= len(p.data) {
			return string(text), endData
		}
		if c := p.data[p.at]; c == p.delimiter || c == '\n' || c == '\r' {
			return string(text), p.end()
		}
		p.odd++
		start := p.at
		for p.at < len(p.data) {
			if c := p.data[p.at]; c == p.delimiter || c == '\n' || c == '\r' {
				return string(text) + p.data[start:p.at], p.end()
			}
			p.at++
		}
		return string(text) + p.data[start:], endData
	}
	if p.last {
		p.odd++
	}
	return string(text), endData
}

var errOnlyHeader = fmt.Errorf("%w: one line of names, a header it seems", errEmpty)

var errNotCSV = errors.New("no delimiter parts its lines evenly into two columns or more; a CSV classifier can say how it is to be read")

// detectCSV finds the dialect by which most lines have equally many fields.
func detectCSV(data string, last bool) (csvForm, error) {
	var best csvForm
	bestScore, bestColumns := 0, 0
	for i := range delimiters {
		if strings.IndexByte(data, delimiters[i]) < 0 {
			continue
		}
		for _, form := range quotings(data, delimiters[i:i+1]) {
			rows, odd, _ := csvRows(data, form, last, csvDetectRows)
			columns, even := shape(rows)
			if columns < 2 || len(rows) == 0 || !evenEnough(even, len(rows)) {
				continue
			}
			score := 1_000*even/len(rows) - 1_000*odd/len(rows)
			if score > bestScore || score == bestScore && columns > bestColumns {
				best, bestScore, bestColumns = form, score, columns
			}
		}
	}
	if bestScore <= 0 {
		return csvForm{}, errNotCSV
	}
	return best, nil
}

// quotings are the ways in which the fields may be quoted, the likely one first.
func quotings(data string, delimiter string) []csvForm {
	var out []csvForm
	if strings.IndexByte(data, '"') >= 0 {
		out = append(out, csvForm{Delimiter: delimiter, Quote: `"`})
		if strings.Contains(data, `\"`) {
			out = append(out, csvForm{Delimiter: delimiter, Quote: `"`, Escape: `\`})
		}
	}
	if strings.Contains(data, delimiter+"'") || data[0] == '\'' {
		out = append(out, csvForm{Delimiter: delimiter, Quote: "'"})
	}
	return append(out, csvForm{Delimiter: delimiter})
}

// shape is the number of fields that most rows have, and how many rows have it.
func shape(rows [][]string) (columns, even int) {
	counts := map[int]int{}
	for _, r := range rows {
		counts[len(r)]++
	}
	for n, c := range counts {
		if c > even || c == even && n > columns {
			columns, even = n, c
		}
	}
	return columns, even
}

func evenEnough(even, rows int) bool {
	return even*100 >= rows*csvEven || rows >= 3 && even >= rows-1
}

// readCSV reads the columns of a file's sample. c may say more than can be detected.
func readCSV(sample []byte, last bool, c *CSVClassifier) (form csvForm, columns []Field, rows int, err error) {
	sample = bytes.TrimPrefix(sample, []byte("\xef\xbb\xbf"))
	if err := checkText(sample, last); err != nil {
		return form, nil, 0, err
	}
	if len(bytes.TrimSpace(sample)) == 0 {
		return form, nil, 0, errEmpty
	}
	data := string(sample) // fields are parts of it
	if c != nil && c.Delimiter != "" {
		form.Delimiter, form.Quote = c.Delimiter, c.QuoteSymbol
	} else if form, err = detectCSV(data, last); err != nil {
		if c == nil || !c.AllowSingleColumn {
			return form, nil, 0, err
		}
		form = csvForm{Delimiter: ","}
	}
	if c != nil && c.QuoteSymbol != "" {
		form.Quote = c.QuoteSymbol
	}
	cells, odd, quoted := csvRows(data, form, last, csvRowsMax)
	width, even := shape(cells)
	switch {
	case len(cells) == 0 && !last:
		return form, nil, 0, errMore
	case len(cells) == 0:
		return form, nil, 0, errEmpty
	case !evenEnough(even, len(cells)) || odd*100 > len(cells)*(100-csvEven):
		return form, nil, 0, errNotCSV
	case width < 2 && (c == nil || !c.AllowSingleColumn):
		return form, nil, 0, errNotCSV
	case width > columnsMax:
		return form, nil, 0, fmt.Errorf("%d columns, the limit is %d", width, columnsMax)
	}
	if !quoted && !quotedLater(data, form) && (c == nil || c.QuoteSymbol == "") {
		form.Quote, form.Escape = "", ""
	}
	head, body := cells[0], cells[1:]
	switch {
	case c != nil && c.ContainsHeader == HeaderPresent:
		form.Header = true
	case c != nil && c.ContainsHeader == HeaderAbsent:
	default:
		form.Header = len(head) == width && isHeader(head, body, width)
	}
	if form.Header {
		rows = len(body)
	} else {
		body, rows = cells, len(cells)
	}
	if form.Header && rows == 0 && (c == nil || len(c.Header) == 0) {
		return form, nil, 0, errEmpty
	}
	untrimmed := c != nil && c.DisableValueTrimming
	states := columnStates(body, width, untrimmed)
	names := make([]string, width)
	for i := range names {
		names[i] = "col" + strconv.Itoa(i)
	}
	switch {
	case c != nil && len(c.Header) > 0:
		if len(c.Header) != width {
			return form, nil, 0, fmt.Errorf("the classifier %s names %d columns, the file has %d", c.Name, len(c.Header), width)
		}
		names = columnNames(c.Header)
	case form.Header:
		names = columnNames(head)
	case len(head) == width && (c == nil || c.ContainsHeader != HeaderAbsent) && headerCells(head):
		// It may be a header beside other files, so that its cells are not in the
		// states, all of which are text or unknown.
		form.First = namesHash(columnNames(head))
		if states = columnStates(cells[1:], width, untrimmed); len(cells) == 1 {
			return form, nil, 0, errOnlyHeader
		}
	}
	for i, n := range names {
		s := states[i]
		if c != nil && i < len(c.CustomDatatypes) {
			s = customDatatypes[c.CustomDatatypes[i]]
		}
		columns = append(columns, Field{n, s})
	}
	if c != nil {
		form.Serde = c.Serde
	}
	return form, columns, rows, nil
}

// quotedLater reports whether a field of the whole sample begins with a quote: the rows
// that were parsed may be less, and a reader that knows no quotes would part it.
func quotedLater(data string, form csvForm) bool {
	quote := form.Quote
	if quote == "" {
		quote = `"`
	}
	return strings.Contains(data, form.Delimiter+quote) || strings.Contains(data, "\n"+quote)
}

// columnStates joins the states of each column's values. Untrimmed, a value with
// blanks around it is text.
func columnStates(rows [][]string, width int, untrimmed bool) []*State {
	states := make([]*State, width)
	for i := range states {
		states[i] = unknown
	}
	for _, r := range rows {
		for i, cell := range r[:min(len(r), width)] {
			if cell == `\N` {
				continue // Hive's null
			}
			switch {
			case states[i] == stateString:
			case untrimmed && cell != strings.TrimSpace(cell):
				states[i] = stateString
			default:
				states[i] = join(states[i], textState(cell))
			}
		}
	}
	return states
}

// checkText refuses what no text file holds.
func checkText(data []byte, last bool) error {
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")):
		return errors.New("UTF-16 is not supported: write it as UTF-8")
	case bytes.IndexByte(data, 0) >= 0:
		return errUnknownFormat
	}
	if !utf8.Valid(data) {
		end := len(data)
		if !last { // the sample may end within a character
			for range utf8.UTFMax - 1 {
				if end > 0 {
					end--
					if utf8.Valid(data[:end]) {
						return nil
					}
				}
			}
		}
		return errors.New("its text is not UTF-8")
	}
	return nil
}

// headerCells reports whether a row's cells may be names: short, not empty but for
// the last, distinct, none a number or a time, and letters in one at least.
func headerCells(cells []string) bool {
	seen := map[string]bool{}
	letters := false
	for i, cell := range cells {
		cell = strings.TrimSpace(cell)
		if cell == "" && i == len(cells)-1 {
			continue
		}
		if cell == "" || len(cell) >= headerCellMax || textState(cell) != stateString {
			return false
		}
		if key := strings.ToLower(cell); seen[key] {
			return false
		} else {
			seen[key] = true
		}
		letters = letters || strings.ContainsFunc(cell, unicode.IsLetter)
	}
	return letters
}

// isHeader is Glue's rule: the cells may be names, and the column of one of them
// holds something else than text. Where all columns are text, a header is one that
// looks unlike the cells of a column that look alike.
func isHeader(head []string, body [][]string, width int) bool {
	if !headerCells(head) || len(body) == 0 {
		return false
	}
	states := columnStates(body, width, false)
	for _, s := range states {
		if s.Kinds != 0 && s.Kinds&kindString == 0 {
			return true
		}
	}
	const alike = 3
	if len(body) < alike {
		return false
	}
	for i := range width {
		var shapes []string
		for _, r := range body {
			if i < len(r) && r[i] != "" {
				shapes = append(shapes, cellShape(r[i]))
			}
		}
		if len(shapes) < alike {
			continue
		}
		slices.Sort(shapes)
		if shapes[0] == shapes[len(shapes)-1] && shapes[0] != cellShape(head[i]) {
			return true
		}
	}
	return false
}

// cellShape tells cells of different make apart: by case and digits, without length.
func cellShape(s string) string {
	var lower, upper, digit, other bool
	for _, r := range s {
		switch {
		case unicode.IsLower(r):
			lower = true
		case unicode.IsUpper(r):
			upper = true
		case unicode.IsDigit(r):
			digit = true
		default:
			other = true
		}
	}
	return fmt.Sprint(lower, upper, digit, other)
}

func namesHash(names []string) string {
	return strconv.FormatUint(xxh3.HashString(strings.Join(names, "\x00")), 16)
}

// columnNames makes columns' names of a header: lower case, [a-z0-9_], distinct.
func columnNames(cells []string) []string {
	names := make([]string, len(cells))
	seen := map[string]bool{}
	for i, cell := range cells {
		base := plainName(strings.TrimSpace(cell))
		if strings.Trim(base, "_") == "" {
			base = "col" + strconv.Itoa(i)
		}
		if len(base) > nameBytesMax-8 {
			base = base[:nameBytesMax-8]
		}
		name := base
		for n := 2; seen[name]; n++ {
			name = base + "_" + strconv.Itoa(n)
		}
		seen[name] = true
		names[i] = name
	}
	return names
}
