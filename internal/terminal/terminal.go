// Package terminal writes for people: aligned tables, numbers with separators,
// and one line of progress that is redrawn in place on a terminal and is a
// plain line now and then anywhere else.
//
// Everything fits Width columns as long as its cells do; a column is as wide as
// its widest cell, counted in runes. Nothing here reads.
package terminal

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/mattn/go-isatty"
)

// Width is the number of columns that every output of this program fits.
const Width = 80

// Is reports whether w is a terminal.
func Is(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && (isatty.IsTerminal(f.Fd()) || isatty.IsCygwinTerminal(f.Fd()))
}

// Column is a table's column.
type Column struct {
	Name  string
	Right bool // numbers
}

// Table is a table with a head.
type Table struct {
	Indent  string
	Columns []Column
	Rows    [][]string
}

// Left makes a column of text.
func Left(name string) Column { return Column{Name: name} }

// Right makes a column of numbers.
func Right(name string) Column { return Column{Name: name, Right: true} }

// Add appends a row.
func (t *Table) Add(cells ...string) { t.Rows = append(t.Rows, cells) }

// Write writes the table: two blanks between columns, none at the end of a line.
func (t *Table) Write(w io.Writer) error {
	widths := make([]int, len(t.Columns))
	for i, c := range t.Columns {
		widths[i] = utf8.RuneCountInString(c.Name)
	}
	for _, row := range t.Rows {
		for i := range min(len(row), len(widths)) {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	var b strings.Builder
	line := func(cell func(int) string) {
		text := t.Indent
		for i, c := range t.Columns {
			if i > 0 {
				text += "  "
			}
			v := cell(i)
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(v))
			if c.Right {
				text += pad + v
			} else {
				text += v + pad
			}
		}
		b.WriteString(strings.TrimRight(text, " "))
		b.WriteByte('\n')
	}
	line(func(i int) string { return t.Columns[i].Name })
	line(func(i int) string { return strings.Repeat("─", widths[i]) })
	for _, row := range t.Rows {
		line(func(i int) string {
			if i < len(row) {
				return row[i]
			}
			return ""
		})
		if b.Len() > 1<<16 {
			if _, err := io.WriteString(w, b.String()); err != nil {
				return err
			}
			b.Reset()
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Count writes an integer with separators: 1,234,567.
func Count(n int64) string {
	s := fmt.Sprint(n)
	sign := ""
	if n < 0 {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// Plural writes a number of things: "1 line", "2,000 lines".
func Plural(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return Count(n) + " " + thing + "s"
}

// Amount writes a decimal with separators, as it stands otherwise: -1,234.5000.
func Amount(s string) string {
	digits, sign := s, ""
	if strings.HasPrefix(s, "-") {
		sign, digits = "-", s[1:]
	}
	whole, rest, hasPoint := strings.Cut(digits, ".")
	if whole == "" || strings.Trim(whole, "0123456789") != "" {
		return s
	}
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if hasPoint {
		whole += "." + rest
	}
	return sign + whole
}

// Bytes writes a size in a unit that leaves at most four digits.
func Bytes(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, u := float64(n), 0
	for v >= 1000 && u < len(units)-1 {
		v, u = v/1024, u+1
	}
	if u == 0 || v >= 100 {
		return fmt.Sprintf("%.0f %s", v, units[u])
	}
	return fmt.Sprintf("%.1f %s", v, units[u])
}

// Took writes a duration to about three digits.
func Took(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", float64(d)/1e6)
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	default:
		return d.Round(time.Second).String()
	}
}

// ShellWord writes s so that a POSIX shell reads it as one word, with quotes only
// if it needs them.
func ShellWord(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-:@%+="
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Bar draws a bar of the given width for a share from 0 to 1.
func Bar(share float64, width int) string {
	share = min(max(share, 0), 1)
	full := int(share * float64(width))
	return strings.Repeat("█", full) + strings.Repeat("░", width-full)
}

// Progress is a line that changes. Text that goes to the same terminal must be
// written through Above, or between Clear and the next Set. It is safe for
// concurrent use.
type Progress struct {
	mu       sync.Mutex
	w        io.Writer
	redraw   bool
	every    time.Duration
	shown    string
	printed  time.Time
	lastLine string
}

// NewProgress writes to w: on a terminal in place, else a line at most every so
// often.
func NewProgress(w io.Writer, every time.Duration) *Progress {
	return &Progress{w: w, redraw: Is(w), every: every, printed: time.Now()}
}

// Set changes the line.
func (p *Progress) Set(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.redraw {
		p.draw(fit(line))
		return
	}
	p.lastLine = line
	if now := time.Now(); now.Sub(p.printed) >= p.every {
		p.printed, p.lastLine = now, ""
		fmt.Fprintln(p.w, strings.TrimRight(line, " "))
	}
}

// fit cuts a line to what a terminal shows without wrapping.
func fit(line string) string {
	if utf8.RuneCountInString(line) < Width {
		return line
	}
	return string([]rune(line)[:Width-1])
}

func (p *Progress) draw(line string) {
	fmt.Fprintf(p.w, "\r%s\x1b[K", line)
	p.shown = line
}

// Clear takes the line away; what is written next begins in its place.
func (p *Progress) Clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

func (p *Progress) clear() {
	if p.redraw && p.shown != "" {
		p.draw("")
	}
}

// Above calls fn, which writes whole lines, and draws the line again below them.
func (p *Progress) Above(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	shown := p.shown
	p.clear()
	fn()
	if p.redraw && shown != "" {
		p.draw(shown)
	}
}

// Done ends the line: on a terminal it stays where it is, elsewhere the last one
// is written if it was not yet.
func (p *Progress) Done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.redraw && p.shown != "":
		fmt.Fprintln(p.w)
		p.shown = ""
	case !p.redraw && p.lastLine != "":
		fmt.Fprintln(p.w, strings.TrimRight(p.lastLine, " "))
		p.lastLine = ""
	}
}
