package catalog

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"strings"

	"github.com/apache/iceberg-go"

	"github.com/tapehouse/tapehouse/internal/record"
)

// Table properties of this program. See docs/formats/catalog.md.
const (
	PropertyThrough  = "tapehouse.through"
	PropertySequence = "tapehouse.sequence"
	propertyDerive   = "tapehouse.derive." // followed by the column's name
)

// Bounds of a table specification.
const (
	columnsMax       = 2_000
	columnBytesMax   = 255
	propertiesMax    = 500
	propertyBytesMax = 64 << 10
)

// defaultProperties are set on creation unless the creator says otherwise. The
// library's own defaults let a commit grow from 9 to 270 ms over 500 commits.
var defaultProperties = iceberg.Properties{
	"write.parquet.compression-codec":            "zstd",
	"write.metadata.compression-codec":           "gzip",
	"write.metadata.delete-after-commit.enabled": "true",
	"write.metadata.previous-versions-max":       "20",
	"commit.manifest-merge.enabled":              "true",
	"commit.manifest.min-count-to-merge":         "50",
	"commit.manifest.target-size-bytes":          "65536",
	"write.delete.mode":                          "merge-on-read",
	"write.update.mode":                          "merge-on-read",
	"write.merge.mode":                           "merge-on-read",
}

// Column is a column of any Iceberg type.
type Column struct {
	ID       int
	Name     string
	Type     string // Iceberg's spelling; a nested type is its JSON form
	Required bool
}

// TableSpec describes a table to be created. Exactly one of Fields and Columns
// is given. Field ids are assigned in order, from 1; ids given are ignored.
type TableSpec struct {
	Name        Name
	Fields      []record.Field         // a stream's or a view's table
	Columns     []Column               // a user's table, of any Iceberg primitive type
	Sequence    record.SequenceColumns // columns among Fields
	PartitionBy string                 // a Date column, or "" for no partitions
	Properties  map[string]string      // added to the defaults, or in their place
}

// derivationType is the type that a derived column must have.
var derivationType = map[record.Derivation]record.Kind{
	record.TradeDate: record.Date, record.EpochNanos: record.Long, record.RecordStream: record.String,
	record.RecordOffset: record.Long, record.ArrivedAt: record.TimestampTZ,
}

func (s TableSpec) schema() (*iceberg.Schema, error) {
	if (len(s.Fields) == 0) == (len(s.Columns) == 0) {
		return nil, fmt.Errorf("%w table %s: give either fields or columns", ErrInvalid, s.Name)
	}
	columns := s.Columns
	if len(s.Fields) > 0 {
		columns = make([]Column, len(s.Fields))
		for i, f := range s.Fields {
			if err := s.checkField(f); err != nil {
				return nil, err
			}
			columns[i] = Column{Name: f.Name, Type: f.Type.String(), Required: f.Required}
		}
	}
	if len(columns) > columnsMax {
		return nil, fmt.Errorf("%w table %s: %d columns, the limit is %d", ErrInvalid, s.Name, len(columns), columnsMax)
	}
	seen := make(map[string]bool, len(columns))
	fields := make([]iceberg.NestedField, len(columns))
	for i, col := range columns {
		if col.Name == "" || len(col.Name) > columnBytesMax {
			return nil, fmt.Errorf("%w table %s: column name %q: want 1 to %d bytes", ErrInvalid, s.Name, col.Name, columnBytesMax)
		}
		lower := strings.ToLower(col.Name)
		if seen[lower] {
			return nil, fmt.Errorf("%w table %s: column %q stands twice", ErrInvalid, s.Name, col.Name)
		}
		seen[lower] = true
		t, err := parseType(col.Type)
		if err != nil {
			return nil, fmt.Errorf("%w table %s: column %q: %w", ErrInvalid, s.Name, col.Name, err)
		}
		fields[i] = iceberg.NestedField{ID: i + 1, Name: col.Name, Type: t, Required: col.Required}
	}
	return iceberg.NewSchema(0, fields...), nil
}

func (s TableSpec) checkField(f record.Field) error {
	if strings.ContainsAny(f.Name, ",()") {
		return fmt.Errorf("%w table %s: column %q: a stream's column name has no comma or parenthesis", ErrInvalid, s.Name, f.Name)
	}
	if f.Derive == record.FromJSON {
		return nil
	}
	want, ok := derivationType[f.Derive]
	if !ok || f.Type.Kind != want {
		return fmt.Errorf("%w table %s: column %q of type %s cannot be derived by %q", ErrInvalid, s.Name, f.Name, f.Type, f.Derive)
	}
	if f.Derive == record.TradeDate || f.Derive == record.EpochNanos {
		if i := (record.Schema{Fields: s.Fields}).Index(f.From); i < 0 || s.Fields[i].Derive != record.FromJSON {
			return fmt.Errorf("%w table %s: column %q is derived from %q, which is not a column of the records", ErrInvalid, s.Name, f.Name, f.From)
		}
	}
	return nil
}

func (s TableSpec) properties() (iceberg.Properties, error) {
	p := maps.Clone(defaultProperties)
	maps.Copy(p, s.Properties)
	p["format-version"] = "2"
	for _, f := range s.Fields {
		if f.Derive != record.FromJSON {
			p[propertyDerive+f.Name] = formatDerivation(f)
		}
	}
	if !s.Sequence.IsZero() {
		for _, c := range []struct {
			name string
			kind record.Kind
		}{{s.Sequence.Source, record.String}, {s.Sequence.Session, record.String}, {s.Sequence.Epoch, record.Long}, {s.Sequence.Sequence, record.Long}} {
			i := (record.Schema{Fields: s.Fields}).Index(c.name)
			if i < 0 || s.Fields[i].Type.Kind != c.kind {
				return nil, fmt.Errorf("%w table %s: sequence column %q must be a column of type %s", ErrInvalid, s.Name, c.name, record.Type{Kind: c.kind})
			}
		}
		p[PropertySequence] = strings.Join([]string{s.Sequence.Source, s.Sequence.Session, s.Sequence.Epoch, s.Sequence.Sequence}, ",")
	}
	return p, checkProperties(p)
}

func checkProperties(p map[string]string) error {
	if len(p) > propertiesMax {
		return fmt.Errorf("%w: %d table properties, the limit is %d", ErrInvalid, len(p), propertiesMax)
	}
	for k, v := range p {
		if k == "" || len(k)+len(v) > propertyBytesMax {
			return fmt.Errorf("%w: table property %q: %d bytes, the limit is %d", ErrInvalid, k, len(k)+len(v), propertyBytesMax)
		}
	}
	return nil
}

func (s TableSpec) partition(sc *iceberg.Schema) (*iceberg.PartitionSpec, error) {
	if s.PartitionBy == "" {
		return iceberg.UnpartitionedSpec, nil
	}
	f, ok := sc.FindFieldByName(s.PartitionBy)
	if !ok || !f.Type.Equals(iceberg.PrimitiveTypes.Date) {
		return nil, fmt.Errorf("%w table %s: partition column %q must be a column of type date", ErrInvalid, s.Name, s.PartitionBy)
	}
	spec := iceberg.NewPartitionSpec(iceberg.PartitionField{
		SourceIDs: []int{f.ID}, FieldID: partitionFieldID, Name: f.Name, Transform: iceberg.IdentityTransform{},
	})
	return &spec, nil
}

// partitionFieldID is the first id that Iceberg gives to partition fields.
const partitionFieldID = 1000

// parseType reads Iceberg's spelling of a type, or the JSON form of a nested one.
func parseType(s string) (iceberg.Type, error) {
	word := json.RawMessage(s)
	if !strings.HasPrefix(strings.TrimSpace(s), "{") {
		b, err := json.Marshal(strings.ToLower(strings.TrimSpace(s)))
		if err != nil {
			return nil, err
		}
		word = b
	}
	b, err := json.Marshal(map[string]any{"id": 1, "name": "x", "required": false, "type": word})
	if err != nil {
		return nil, fmt.Errorf("type %q: %w", s, err)
	}
	var f iceberg.NestedField
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("type %q: %w", s, err)
	}
	if f.Type == nil {
		return nil, fmt.Errorf("type %q is not known", s)
	}
	return f.Type, nil
}

// formatType is Iceberg's spelling of t, or its JSON form if nested.
func formatType(t iceberg.Type) string {
	if _, nested := t.(iceberg.NestedType); nested {
		if b, err := json.Marshal(t); err == nil {
			return string(b)
		}
	}
	return t.String()
}

func formatDerivation(f record.Field) string {
	if f.From == "" {
		return string(f.Derive)
	}
	return string(f.Derive) + "(" + f.From + ")"
}

var derivationRE = regexp.MustCompile(`^([a-z-]+)(?:\(([^()]+)\))?$`)

// parseDerivation fills f from the property's value. One that this program does
// not know, or that does not fit the column, is an error: to ignore it would be
// to look for the column's value in the JSON.
func parseDerivation(f *record.Field, s string) error {
	m := derivationRE.FindStringSubmatch(s)
	if m == nil || derivationType[record.Derivation(m[1])] != f.Type.Kind {
		return fmt.Errorf("%w: property %s%s = %q for a column of type %s", ErrInvalid, propertyDerive, f.Name, s, f.Type)
	}
	f.Derive, f.From = record.Derivation(m[1]), m[2]
	return nil
}

func parseSequence(s string) (record.SequenceColumns, error) {
	if s == "" {
		return record.SequenceColumns{}, nil
	}
	p := strings.Split(s, ",")
	if len(p) != 4 {
		return record.SequenceColumns{}, fmt.Errorf("%w: property %s = %q: want source,session,epoch,sequence", ErrInvalid, PropertySequence, s)
	}
	return record.SequenceColumns{Source: p[0], Session: p[1], Epoch: p[2], Sequence: p[3]}, nil
}

// columnsOf lists every column of sc; recordSchema those that record can say.
func columnsOf(sc *iceberg.Schema) []Column {
	columns := make([]Column, 0, sc.NumFields())
	for _, f := range sc.Fields() {
		columns = append(columns, Column{f.ID, f.Name, formatType(f.Type), f.Required})
	}
	return columns
}

func recordSchema(sc *iceberg.Schema, properties iceberg.Properties) (record.Schema, error) {
	out := record.Schema{ID: sc.ID}
	for _, f := range sc.Fields() {
		t, err := record.ParseType(f.Type.String())
		if err != nil {
			continue // a foreign column: Table.Columns has it
		}
		field := record.Field{ID: f.ID, Name: f.Name, Type: t, Required: f.Required}
		if d, ok := properties[propertyDerive+f.Name]; ok {
			if err := parseDerivation(&field, d); err != nil {
				return record.Schema{}, err
			}
		}
		out.Fields = append(out.Fields, field)
	}
	return out, nil
}
