package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tapehouse/tapehouse/internal/record"
)

// Foreign files are those that others wrote: they have no field ids, their columns
// are found by name, and what they are is only known when a statement reads them.

// Source finds the files of a relation when a statement reads it.
type Source interface {
	// Files returns local files with the rows of the partitions for which may is
	// true, at least. They are the statement's until Release is called, once. An
	// error is given to whoever sent the statement.
	Files(ctx context.Context, may func(partition Ranges) bool) (SourceFiles, error)
}

// SourceFiles are what a Source found.
type SourceFiles struct {
	Files   []File
	Release func()
	// Unchanged is asked when all rows were read: an error says that they may be
	// wrong. nil: they cannot be.
	Unchanged func() error
}

// Foreign says how the columns of foreign files become a relation's. It is shared
// by files that are laid out alike, in all their columns.
type Foreign struct {
	// Columns are the origins of the first fields of Relation.Schema; the others
	// are File.Constants.
	Columns []Origin
	// Shadowed is set when the files have a column called file_index, which
	// otherwise is DuckDB's own.
	Shadowed bool
}

// Origin is where a value comes from.
type Origin struct {
	Name string // of the file's column, or the struct's field; "": the value is NULL
	Step Step
}

// Step makes a value of the declared type of one that a file holds.
type Step struct {
	Kind  StepKind
	Type  string   // the declared type, in DuckDB's spelling
	Parts []Origin // StepStruct: its fields, named by Fields; StepList: the element; StepMap: key and value
	// Fields are the declared names of a struct's fields.
	Fields []string
}

// StepKind is a kind of Step.
type StepKind uint8

// The kinds of Step.
const (
	StepSame   StepKind = iota // it is that value
	StepCast                   // a cast
	StepDecode                 // bytes that are text
	StepStruct
	StepList
	StepMap
)

// Constant is a value that all rows of a file have.
type Constant struct {
	Text string // as SQL casts it to the field's type
	Null bool
}

// foreign reports whether r's files are foreign.
func (r *Relation) foreign() bool { return len(r.Files) > 0 && r.Files[0].Foreign != nil }

// place is field i's place in Foreign.Columns and File.Constants.
func (r *Relation) place(i int) int {
	if r.places == nil {
		return i
	}
	return r.places[i]
}

// keep is r with the fields for which wanted is true.
func (r *Relation) keep(wanted func(i int) bool) *Relation {
	out := *r
	out.Schema.Fields, out.Types, out.places = nil, nil, []int{}
	for i, f := range r.Schema.Fields {
		if wanted(i) {
			out.Schema.Fields = append(out.Schema.Fields, f)
			out.Types = append(out.Types, r.columnType(i))
			out.places = append(out.places, r.place(i))
		}
	}
	return &out
}

// foreignSQL is viewSQL for foreign files: a scan for those that are laid out
// alike.
func (r *Relation) foreignSQL() string {
	var groups [][]*File
	at := map[*Foreign]int{}
	for i := range r.Files {
		f := &r.Files[i]
		g, ok := at[f.Foreign]
		if !ok || f.Foreign.Shadowed && !r.sameConstants(groups[g][0], f) {
			g = len(groups)
			at[f.Foreign] = g
			groups = append(groups, nil)
		}
		groups[g] = append(groups[g], f)
	}
	parts := make([]string, len(groups))
	for i, g := range groups {
		parts[i] = r.foreignScan(g)
	}
	return strings.Join(parts, " UNION ALL ")
}

// sameConstants reports whether two files have the same values for all of r's
// fields that are constants.
func (r *Relation) sameConstants(a, b *File) bool {
	for i := range r.Schema.Fields {
		if c := r.place(i) - len(a.Foreign.Columns); c >= 0 && a.Constants[c] != b.Constants[c] {
			return false
		}
	}
	return true
}

func (r *Relation) foreignScan(files []*File) string {
	var b strings.Builder
	b.WriteString("SELECT ")
	columns := files[0].Foreign.Columns
	for i, f := range r.Schema.Fields {
		if i > 0 {
			b.WriteString(", ")
		}
		if at := r.place(i); at < len(columns) {
			b.WriteString(columns[at].sql("f.", r.columnType(i)))
		} else {
			b.WriteString(constantSQL(files, at-len(columns), r.columnType(i)))
		}
		b.WriteString(" AS " + QuoteIdentifier(f.Name))
	}
	b.WriteString(" FROM read_parquet([")
	var rows int64
	for i, f := range files {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(QuoteLiteral(f.Path))
		rows += f.Rows
	}
	b.WriteString("], hive_partitioning=false")
	if rows > 0 {
		fmt.Fprintf(&b, ", explicit_cardinality=%d", rows)
	}
	b.WriteString(") AS f")
	return b.String()
}

// constantSQL is the value that each file has for a field.
func constantSQL(files []*File, at int, typ string) string {
	text := func(f *File) string {
		if f.Constants[at].Null {
			return "NULL"
		}
		return QuoteLiteral(f.Constants[at].Text)
	}
	first, same := text(files[0]), true
	for _, f := range files[1:] {
		if text(f) != first {
			same = false
			break
		}
	}
	if same {
		return "CAST(" + first + " AS " + typ + ")"
	}
	var b strings.Builder
	b.WriteString("(CAST([")
	for i, f := range files {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(text(f))
	}
	b.WriteString("] AS " + typ + "[]))[CAST(f.file_index AS BIGINT) + 1]")
	return b.String()
}

// sql is the expression for an origin within a row or a struct, which stands in
// front of its field as prefix.
func (o *Origin) sql(prefix, typ string) string {
	if o.Name == "" {
		return "CAST(NULL AS " + typ + ")"
	}
	return o.Step.sql(prefix+QuoteIdentifier(o.Name), 0)
}

// plain reports whether a cast does all of it. A cast matches the fields of
// structs by place, or by name with those that are missing an error.
func (s *Step) plain() bool {
	switch s.Kind {
	case StepSame, StepCast:
		return true
	case StepList, StepMap:
		for i := range s.Parts {
			if !s.Parts[i].Step.plain() {
				return false
			}
		}
		return true
	}
	return false
}

// sql is the expression for a value x. depth tells the parameters of nested
// lambdas apart.
func (s *Step) sql(x string, depth int) string {
	switch {
	case s.Kind == StepSame:
		return x
	case s.plain():
		return "CAST(" + x + " AS " + s.Type + ")"
	case s.Kind == StepDecode:
		return "decode(" + x + ")"
	}
	element := fmt.Sprintf("e%d", depth)
	var b strings.Builder
	switch s.Kind {
	case StepStruct:
		b.WriteString("CASE WHEN " + x + " IS NULL THEN NULL ELSE struct_pack(")
		for i := range s.Parts {
			if i > 0 {
				b.WriteString(", ")
			}
			p := &s.Parts[i]
			b.WriteString(QuoteIdentifier(s.Fields[i]) + " := ")
			if p.Name == "" {
				b.WriteString("CAST(NULL AS " + p.Step.Type + ")")
			} else {
				b.WriteString(p.Step.sql("struct_extract("+x+", "+QuoteLiteral(p.Name)+")", depth+1))
			}
		}
		b.WriteString(") END")
	case StepList:
		b.WriteString("list_transform(" + x + ", lambda " + element + ": " + s.Parts[0].Step.sql(element, depth+1) + ")")
	case StepMap:
		key, value := s.Parts[0].Step.sql("struct_extract("+element+", 'key')", depth+1), s.Parts[1].Step.sql("struct_extract("+element+", 'value')", depth+1)
		b.WriteString("map_from_entries(list_transform(map_entries(" + x + "), lambda " + element + ": struct_pack(\"key\" := " + key + ", \"value\" := " + value + ")))")
	}
	return "CAST(" + b.String() + " AS " + s.Type + ")"
}

// visible is r without its hidden columns, unless the statement names one.
func (r *Relation) visible(m *mention) Relation {
	shown := len(r.Schema.Fields) - r.Hidden
	if slices.ContainsFunc(r.Schema.Fields[shown:], func(f record.Field) bool { return m.words[strings.ToLower(f.Name)] }) {
		shown = len(r.Schema.Fields)
	}
	out := r.keep(func(i int) bool { return i < shown })
	out.Hidden = 0
	return *out
}

// unchanged asks the sources of p's files whether they still are what they were.
func (p *Pin) unchanged() error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.tables {
		if t.unchanged != nil {
			if err := t.unchanged(); err != nil {
				return err
			}
		}
	}
	return nil
}
