package crawler

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/hive"
)

// Parameters that Glue's crawler writes.
const (
	paramCrawler      = "UPDATED_BY_CRAWLER"
	paramDeprecated   = "DEPRECATED_BY_CRAWLER" // ms since 1970
	paramSerializer   = "CrawlerSchemaSerializerVersion"
	paramDeserializer = "CrawlerSchemaDeserializerVersion"
	paramObjects      = "objectCount"
	paramRecords      = "recordCount"
	paramRecordSize   = "averageRecordSize"
	paramSize         = "sizeKey"
	paramTypeOfData   = "typeOfData"
	paramExclusions   = "exclusions"
	paramOrdered      = "columnsOrdered"
	paramQuoted       = "areColumnsQuoted"
	paramDelimiter    = "delimiter"
	paramJSONPath     = "jsonPath"
)

// existing is a table that the crawler made before.
type existing struct {
	catalog.External
	keys    []string // its partition keys
	finding *finding
	used    bool // a group continues it
}

// openExisting reads what a table's definition says of its files.
func openExisting(e catalog.External) *existing {
	x := &existing{External: e, finding: &finding{}}
	for _, k := range e.Definition.PartitionKeys {
		x.keys = append(x.keys, k.Name)
	}
	p := e.Definition.Parameters
	f := x.finding
	f.Format, f.Compression = p[hive.ParamClassification], p[hive.ParamCompression]
	s := e.Definition.Storage
	if s == nil {
		return x
	}
	switch f.Format {
	case formatCSV:
		form := csvForm{Delimiter: p[paramDelimiter], Header: p[hive.ParamSkipHeader] == "1"}
		if s.Serde != nil {
			form.Quote, form.Escape = s.Serde.Parameters["quoteChar"], s.Serde.Parameters["escapeChar"]
			form.Serde = p[paramSerde]
		}
		if len(form.Delimiter) != 1 {
			form.Delimiter = ","
		}
		f.CSV = &form
	case formatJSON:
		f.Path = p[paramJSONPath]
	}
	for _, c := range s.Columns {
		f.Columns = append(f.Columns, Field{c.Name, parseType(c.Type)})
	}
	return x
}

// continues reports whether the table's columns are those of the files: of another
// format their types mean nothing, of CSV with other names their places neither.
func (x *existing) continues(f *finding) bool {
	return x.finding.Format == f.Format && (f.CSV == nil || !f.CSV.Header || x.finding.fits(f, byNames) == "")
}

// paramSerde keeps which SerDe a classifier asked for.
const paramSerde = "tapehouse.classifier.serde"

// stats are the figures of a leaf, or of a table.
type stats struct{ objects, bytes, rows int64 }

func (l leaf) stats() stats {
	c := l.cluster
	switch {
	case c == nil:
		return stats{}
	case l.total != nil:
		return *l.total
	}
	s := stats{c.files, c.bytes, c.rows}
	if counted := l.folder.objects - int64(l.folder.sampled); counted > 0 && c.files > 0 {
		// Files beyond the sample are taken to be like those in it.
		s.objects, s.bytes = l.folder.objects, l.folder.bytes
		s.rows = int64(float64(c.rows) / float64(c.files) * float64(s.objects))
	}
	return s
}

func (gr *group) stats() (sum stats) {
	for _, l := range gr.leaves {
		s := l.stats()
		sum.objects, sum.bytes, sum.rows = sum.objects+s.objects, sum.bytes+s.bytes, sum.rows+s.rows
	}
	return sum
}

func (s stats) parameters(p map[string]string) {
	p[paramObjects] = strconv.FormatInt(s.objects, 10)
	p[paramSize] = strconv.FormatInt(s.bytes, 10)
	p[paramRecords] = strconv.FormatInt(s.rows, 10)
	p[paramRecordSize] = strconv.FormatInt(s.bytes/max(1, s.rows), 10)
}

// form is the parameters that say how files of the finding are read.
func (f *finding) form() map[string]string {
	p := map[string]string{hive.ParamClassification: f.Format, hive.ParamCompression: f.Compression, paramTypeOfData: "file"}
	switch f.Format {
	case formatCSV:
		p[paramDelimiter], p[paramOrdered] = f.CSV.Delimiter, "true"
		p[paramQuoted] = strconv.FormatBool(f.CSV.Quote != "")
		if f.CSV.Header {
			p[hive.ParamSkipHeader] = "1"
		}
		if f.CSV.Serde != "" {
			p[paramSerde] = f.CSV.Serde
		}
	case formatJSON:
		if f.Path != "" {
			p[paramJSONPath] = f.Path
		}
	}
	return p
}

// storage is how files of the finding are read, without place and columns.
func (f *finding) storage() *hive.Storage {
	s := &hive.Storage{Compressed: f.Compression != plain, NumberOfBuckets: -1, Parameters: f.form(),
		InputFormat: hive.TextInput, OutputFormat: hive.TextOutput}
	switch f.Format {
	case formatParquet:
		s.InputFormat, s.OutputFormat = hive.ParquetInput, hive.ParquetOutput
		s.Serde = &hive.Serde{Library: hive.ParquetSerde, Parameters: map[string]string{"serialization.format": "1"}}
	case formatJSON:
		names := make([]string, len(f.Columns))
		for i, c := range f.Columns {
			names[i] = c.Name
		}
		s.Serde = &hive.Serde{Library: hive.OpenXSerde, Parameters: map[string]string{"paths": strings.Join(names, ",")}}
	case formatCSV:
		quoted := f.CSV.Quote != ""
		if f.CSV.Serde == "OpenCSVSerDe" || f.CSV.Serde == "" && quoted {
			p := map[string]string{"separatorChar": f.CSV.Delimiter}
			if quoted {
				p["quoteChar"] = f.CSV.Quote
			}
			if f.CSV.Escape != "" {
				p["escapeChar"] = f.CSV.Escape
			}
			s.Serde = &hive.Serde{Library: hive.CSVSerde, Parameters: p}
		} else {
			s.Serde = &hive.Serde{Library: hive.LazySerde, Parameters: map[string]string{"field.delim": f.CSV.Delimiter}}
		}
	}
	return s
}

// ColumnChange is a column that is new, or whose type became wider.
type ColumnChange struct {
	Name string
	From string // "": the column is new
	To   string
	File string // that made it so, relative to the target
}

func (c ColumnChange) String() string {
	if c.From == "" {
		return fmt.Sprintf("column %s %s is new, by %s", c.Name, c.To, c.File)
	}
	return fmt.Sprintf("column %s: %s became %s, by %s", c.Name, c.From, c.To, c.File)
}

// mergeColumns continues a table's columns: those that it has stay, in their order,
// with types that only widen, and new ones come last.
func mergeColumns(old []hive.Column, gr *group, addOnly bool) (columns []hive.Column, changes []ColumnChange, notes []string) {
	columns = slices.Clone(old)
	widen := func(i int, s *State, file string) {
		c := &columns[i]
		joined := join(parseType(c.Type), s)
		if s.Kinds == 0 {
			return
		}
		to := joined.typeText()
		if to == c.Type || sameType(to, c.Type) {
			return
		}
		if addOnly {
			notes = append(notes, fmt.Sprintf("column %s stays %s, though %s needs %s: MergeNewColumns adds columns only", c.Name, c.Type, file, to))
			return
		}
		changes = append(changes, ColumnChange{c.Name, c.Type, to, file})
		c.Type = to
	}
	if gr.finding.Format == formatCSV {
		for i, f := range gr.finding.Columns {
			if i < len(columns) {
				if gr.finding.CSV.Header && columns[i].Name != f.Name {
					notes = append(notes, fmt.Sprintf("the files call the %s column %s; it stays %s", ordinal(i), f.Name, columns[i].Name))
				}
				widen(i, f.State, gr.origins[f.Name])
				continue
			}
			changes = append(changes, ColumnChange{f.Name, "", f.State.typeText(), gr.origins[f.Name]})
			columns = append(columns, hive.Column{Name: f.Name, Type: f.State.typeText()})
		}
		return columns, changes, notes
	}
	at := map[string]int{}
	for i, c := range columns {
		at[strings.ToLower(c.Name)] = i
	}
	seen := 0
	for _, f := range gr.finding.Columns {
		if i, ok := at[f.Name]; ok {
			seen++
			widen(i, f.State, gr.origins[f.Name])
			continue
		}
		changes = append(changes, ColumnChange{f.Name, "", f.State.typeText(), gr.origins[f.Name]})
		columns = append(columns, hive.Column{Name: f.Name, Type: f.State.typeText()})
	}
	if gone := len(old) - seen; gone > 0 {
		notes = append(notes, fmt.Sprintf("columns that no file has that was read: %d; they stay, and are null", gone))
	}
	return columns, changes, notes
}

// sameType reports whether two spellings are one type.
func sameType(a, b string) bool { return parseType(a).typeText() == b || a == parseType(b).typeText() }

// keyNames names a group's partition keys: as the folders do, partition_N for bare
// ones, never as a column or each other. by-name formats leave a column out that a
// folder names as well, as its values are the folder's.
func (gr *group) keyNames(columns []hive.Column) (names []string, left []hive.Column) {
	left = columns
	for i, k := range gr.keys {
		name := k
		if strings.Trim(name, "_") == "" {
			name = "partition_" + strconv.Itoa(i)
		}
		if len(name) > nameBytesMax-16 {
			name = name[:nameBytesMax-16]
		}
		same := func(c hive.Column) bool { return strings.EqualFold(c.Name, name) }
		if gr.finding.Format == formatCSV {
			if slices.ContainsFunc(left, same) {
				name = "partition_" + name
			}
		} else {
			left = slices.DeleteFunc(slices.Clone(left), same)
		}
		base := name
		for n := 2; slices.Contains(names, name) || gr.finding.Format == formatCSV && slices.ContainsFunc(left, same); n++ {
			name = base + "_" + strconv.Itoa(n)
		}
		names = append(names, name)
	}
	return names, left
}

// define makes the table's next definition, and says what changed about its columns.
func (p *planner) define(gr *group, old *existing, location string) (t hive.Table, changes []ColumnChange, notes []string) {
	var before []hive.Column
	if old != nil {
		t = cloneTable(old.Definition)
		if t.Storage != nil && old.continues(gr.finding) {
			before = t.Storage.Columns
		}
	}
	columns, changes, notes := mergeColumns(before, gr, p.config.addColumnsOnly())
	names, columns := gr.keyNames(columns)
	if old != nil && len(old.keys) == len(names) {
		names = old.keys // perhaps renamed by somebody
		columns = slices.DeleteFunc(slices.Clone(columns), func(c hive.Column) bool {
			return gr.finding.Format != formatCSV && slices.Contains(names, c.Name)
		})
	}
	changes = slices.DeleteFunc(changes, func(c ColumnChange) bool {
		return !slices.ContainsFunc(columns, func(have hive.Column) bool { return have.Name == c.Name })
	})
	t.PartitionKeys = nil
	for i, n := range names {
		k := hive.Column{Name: n, Type: "string"}
		if old != nil && len(old.keys) == len(names) {
			k = old.Definition.PartitionKeys[i]
		}
		t.PartitionKeys = append(t.PartitionKeys, k)
	}
	s := gr.finding.storage()
	if t.Storage != nil { // what somebody added stays
		s.SortColumns, s.BucketColumns, s.Skewed, s.AdditionalLocations = t.Storage.SortColumns, t.Storage.BucketColumns, t.Storage.Skewed, t.Storage.AdditionalLocations
		s.NumberOfBuckets = t.Storage.NumberOfBuckets
	}
	s.Columns, s.Location = columns, location
	if s.Serde.Parameters["paths"] != "" {
		paths := make([]string, len(columns))
		for i, c := range columns {
			paths[i] = c.Name
		}
		s.Serde.Parameters["paths"] = strings.Join(paths, ",")
	}
	t.Storage = s
	t.Type = hive.ExternalTable
	if old == nil {
		t.Owner = "owner"
	}
	form := gr.finding.form()
	if t.Parameters == nil {
		t.Parameters = map[string]string{}
	}
	for _, k := range []string{hive.ParamSkipHeader, paramDelimiter, paramOrdered, paramQuoted, paramJSONPath, paramSerde, paramDeprecated} {
		delete(t.Parameters, k) // of the former files' form
	}
	maps.Copy(t.Parameters, form)
	t.Parameters[paramCrawler] = p.crawler.Name
	t.Parameters[paramSerializer], t.Parameters[paramDeserializer] = "1.0", "1.0"
	if excluded := p.exclusionsOf(gr); excluded != "" {
		t.Parameters[paramExclusions] = excluded
	} else {
		delete(t.Parameters, paramExclusions)
	}
	return t, changes, notes
}

// exclusionsOf is the JSON list of what a reader of the table leaves out: the
// target's patterns and the files that do not fit, as locations.
func (p *planner) exclusionsOf(gr *group) string {
	var list []string
	for _, g := range p.target.exclude {
		list = append(list, p.target.uri+g.text)
	}
	for _, name := range gr.odd {
		list = append(list, p.target.uri+escapeGlob(name))
	}
	if len(list) == 0 {
		return ""
	}
	b, err := json.Marshal(list)
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(b)
}

func escapeGlob(name string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `{`, `\{`).Replace(name)
}

func cloneTable(t hive.Table) hive.Table {
	t.Parameters = maps.Clone(t.Parameters)
	t.PartitionKeys = slices.Clone(t.PartitionKeys)
	if t.Storage != nil {
		s := *t.Storage
		s.Columns = slices.Clone(s.Columns)
		s.Parameters = maps.Clone(s.Parameters)
		t.Storage = &s
	}
	return t
}
