package crawler

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
)

// similarMin is the share of columns, in percent, that files of one table have in
// common beyond: Glue's threshold.
const similarMin = 70

// interner keeps one copy of equal findings, so that a hundred thousand files of one
// layout share it, and remembers what two of them make together.
type interner struct {
	mu     sync.Mutex
	byText map[string]*finding
	joined map[[2]*finding]*finding
	fitted map[[2]*finding]bool
}

// internMax bounds the copies; beyond it they are made anew, and nothing else changes.
const internMax = 20_000

func newInterner() *interner {
	return &interner{byText: map[string]*finding{}, joined: map[[2]*finding]*finding{}, fitted: map[[2]*finding]bool{}}
}

func (in *interner) intern(f finding) *finding {
	text, err := json.Marshal(f)
	if err != nil {
		panic(fmt.Sprintf("a finding has no text: %v", err))
	}
	return in.internText(string(text), &f)
}

func (in *interner) internText(text string, f *finding) *finding {
	in.mu.Lock()
	defer in.mu.Unlock()
	if have, ok := in.byText[text]; ok {
		return have
	}
	if len(in.byText) >= internMax {
		clear(in.byText)
		clear(in.joined)
		clear(in.fitted)
	}
	in.byText[text] = f
	return f
}

// join is what files of two findings, which fit, are together. It returns a itself
// if b adds nothing.
func (in *interner) join(a, b *finding) *finding {
	if a == b {
		return a
	}
	key := [2]*finding{a, b}
	in.mu.Lock()
	have, ok := in.joined[key]
	in.mu.Unlock()
	if ok {
		return have
	}
	out := joinFindings(a, b)
	in.mu.Lock()
	if len(in.joined) >= internMax {
		clear(in.joined)
	}
	in.joined[key] = out
	in.mu.Unlock()
	return out
}

// beside is how much files in one folder must have in common: names, where they are
// names; what their types have not in common widens.
func (f *finding) beside() alike {
	if f.CSV != nil && !f.CSV.Header {
		return byTypes
	}
	return byNames
}

// fit reports whether files in one folder are of one layout.
func (in *interner) fit(a, b *finding) bool {
	if a == b {
		return true
	}
	key := [2]*finding{a, b}
	in.mu.Lock()
	have, ok := in.fitted[key]
	in.mu.Unlock()
	if ok {
		return have
	}
	fits := a.fits(b, a.beside()) == ""
	in.mu.Lock()
	if len(in.fitted) >= internMax {
		clear(in.fitted)
	}
	in.fitted[key] = fits
	in.mu.Unlock()
	return fits
}

func joinFindings(a, b *finding) *finding {
	first := a
	out := *a
	if a.Format == formatCSV {
		a, b = a.besideHeader(b), b.besideHeader(a)
		if a.headless() && b.headless() && a.CSV.First != b.CSV.First {
			a, b = a.firstIsData(), b.firstIsData()
		}
		form := *a.CSV
		if form.Quote == "" {
			form.Quote = b.CSV.Quote
		}
		if form.Escape == "" {
			form.Escape = b.CSV.Escape
		}
		if form.First != b.CSV.First {
			form.First = ""
		}
		out.CSV = &form
		out.Columns = joinPositions(a.Columns, b.Columns)
		if form.equal(a.CSV) {
			out.CSV = a.CSV
		}
	} else {
		out.Columns = joinFields(a.Columns, b.Columns)
	}
	if a.Compression != b.Compression {
		out.Compression = mixed
	}
	out.Multiline = a.Multiline || b.Multiline
	out.Notes = joinNotes(a.Notes, b.Notes)
	if out.CSV == first.CSV && slices.Equal(out.Columns, first.Columns) && out.Compression == first.Compression &&
		out.Multiline == first.Multiline && len(out.Notes) == len(first.Notes) {
		return first
	}
	return &out
}

func (f *csvForm) equal(o *csvForm) bool {
	return f.Delimiter == o.Delimiter && f.Quote == o.Quote && f.Escape == o.Escape && f.Header == o.Header &&
		f.Serde == o.Serde && f.First == o.First
}

// mixed is the compression of files that differ in it. A reader sees each file's
// from its name or its bytes, so that it parts no table.
const mixed = "mixed"

func joinNotes(a, b []string) []string {
	for _, n := range b {
		if len(a) < notesMax && !slices.Contains(a, n) {
			a = append(a[:len(a):len(a)], n)
		}
	}
	return a
}

// joinPositions joins the columns of CSV, which have places rather than names.
func joinPositions(a, b []Field) []Field {
	out := slices.Clone(a)
	for i, f := range b {
		if i >= len(out) {
			if slices.ContainsFunc(out, func(o Field) bool { return o.Name == f.Name }) {
				f.Name = fmt.Sprintf("%.*s_%d", nameBytesMax-8, f.Name, i)
			}
			out = append(out, f)
			continue
		}
		out[i].State = join(out[i].State, f.State)
	}
	if slices.Equal(out, a) {
		return a
	}
	return out
}

// headless reports that the file's first row may be a header after all.
func (f *finding) headless() bool { return f.CSV != nil && !f.CSV.Header && f.CSV.First != "" }

// firstIsData is the finding of a CSV file whose first row is known to be data: its
// cells are text.
func (f *finding) firstIsData() *finding {
	out := *f
	form := *f.CSV
	form.First = ""
	out.CSV, out.Columns = &form, slices.Clone(f.Columns)
	for i := range out.Columns {
		out.Columns[i].State = join(out.Columns[i].State, stateString)
	}
	return &out
}

// besideHeader is the finding of a CSV file as it is beside files that have a header:
// where its own first row has the same names, that is one.
func (f *finding) besideHeader(o *finding) *finding {
	if !f.headless() || !o.CSV.Header {
		return f
	}
	n := len(f.Columns)
	if n > len(o.Columns) {
		return f
	}
	names := make([]string, n)
	for i := range names {
		names[i] = o.Columns[i].Name
	}
	if namesHash(names) != f.CSV.First {
		return f
	}
	out := *f
	form := *f.CSV
	form.Header, form.First = true, ""
	out.CSV = &form
	out.Columns = slices.Clone(f.Columns)
	for i := range out.Columns {
		out.Columns[i].Name = names[i]
	}
	return &out
}

// class names what files must agree in to be one table's at all.
func (f *finding) class() string {
	switch f.Format {
	case formatCSV:
		return fmt.Sprintf("csv %q header %t %s", f.CSV.Delimiter, f.CSV.Header, f.CSV.Serde)
	case formatJSON:
		return "json " + f.Path
	}
	return f.Format
}

// describe names the form for people.
func (f *finding) describe() string {
	switch {
	case f.Format == formatCSV && f.CSV.Header:
		return fmt.Sprintf("CSV parted by %q with a header", f.CSV.Delimiter)
	case f.Format == formatCSV:
		return fmt.Sprintf("CSV parted by %q without a header", f.CSV.Delimiter)
	case f.Format == formatJSON && f.Path == arrayPath:
		return "JSON arrays"
	case f.Format == formatJSON && f.Path != "":
		return "JSON at " + f.Path
	case f.Format == formatJSON:
		return "JSON"
	case f.Format == formatParquet:
		return "Parquet"
	}
	return f.Format
}

// alike is how much files must have in common to be one table's, beside format and,
// for CSV, the columns' places.
type alike int

const (
	byTypes alike = iota // similar, names and types
	byNames              // similar in names: a table's types may have widened to text
	byForm               // nothing more: the folders' names say that they belong together
)

// fits reports whether files of both findings can be one table's. why says what is in
// the way.
func (a *finding) fits(b *finding, as alike) (why string) {
	if a == b {
		return ""
	}
	if a.CSV != nil && b.CSV != nil {
		a, b = a.besideHeader(b), b.besideHeader(a)
	}
	if ca, cb := a.class(), b.class(); ca != cb {
		return fmt.Sprintf("%s beside %s", b.describe(), a.describe())
	}
	if a.CSV != nil && a.CSV.Header {
		at := map[string]int{}
		for i, f := range a.Columns {
			at[f.Name] = i
		}
		for i, f := range b.Columns {
			if j, ok := at[f.Name]; ok && i != j {
				return fmt.Sprintf("its column %s is the %s, not the %s: CSV is read by places", f.Name, ordinal(i), ordinal(j))
			}
		}
	}
	if a.Format == formatParquet {
		if why := a.unreadable(b); why != "" {
			return why
		}
	}
	if as == byForm {
		return ""
	}
	if n := similarity(a, b, as == byTypes); n <= similarMin {
		return fmt.Sprintf("%d %% of its columns are the table's; more than %d %% make one table", n, similarMin)
	}
	return ""
}

// unreadable names a column of Parquet files that no reader takes for the table's,
// whatever type that has.
func (a *finding) unreadable(b *finding) string {
	at := make(map[string]*State, len(a.Columns))
	for _, f := range a.Columns {
		at[f.Name] = f.State
	}
	for _, f := range b.Columns {
		if s, ok := at[f.Name]; ok && !meet(s, f.State) {
			return fmt.Sprintf("its column %s is %s beside %s, and no type reads both", f.Name, f.State.typeText(), s.typeText())
		}
	}
	return ""
}

func ordinal(i int) string {
	switch n := i + 1; {
	case n%100/10 == 1:
	case n%10 == 1:
		return fmt.Sprintf("%dst", n)
	case n%10 == 2:
		return fmt.Sprintf("%dnd", n)
	case n%10 == 3:
		return fmt.Sprintf("%drd", n)
	}
	return fmt.Sprintf("%dth", i+1)
}

// similarity is the share of columns in common, in percent of the mean number of
// columns: those of one name (of CSV, one place and name) count in full if their types go
// together, or types do not matter, and half otherwise.
func similarity(a, b *finding, types bool) int {
	common := 0
	if a.CSV != nil {
		for i := range min(len(a.Columns), len(b.Columns)) {
			fa, fb := a.Columns[i], b.Columns[i]
			if fa.Name == fb.Name {
				common++
				if !types || agree(fa.State, fb.State) {
					common++
				}
			}
		}
	} else {
		at := make(map[string]*State, len(a.Columns))
		for _, f := range a.Columns {
			at[f.Name] = f.State
		}
		for _, f := range b.Columns {
			if s, ok := at[f.Name]; ok {
				common++
				if !types || agree(s, f.State) {
					common++
				}
			}
		}
	}
	return 100 * common / max(1, len(a.Columns)+len(b.Columns))
}
