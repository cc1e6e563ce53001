package warehouse

import (
	"context"
	"encoding/binary"
	"errors"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/external"
	"github.com/tapehouse/tapehouse/internal/hive"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/internal/serde"
)

// External tables are those whose files others write. The engine finds their
// files when a statement reads them, so that they are not pinned: a transaction
// that reads one twice may see it change.

// The pseudo-columns of external tables, which * does not have, as Redshift
// Spectrum has them: where a row's file lies and how large it is.
const (
	columnPath = "$path"
	columnSize = "$size"
)

var pseudoColumns = []relColumn{{columnPath, sqlType{kind: kindText}}, {columnSize, sqlType{kind: kindBigint}}}

// externalRelation is what an external table's name stands for. Why it cannot be
// read, if it cannot, is said when it is.
func (s *Session) externalRelation(e *catalog.External) *relation {
	rel := &relation{schema: e.Name.Namespace, name: e.Name.Table, external: &externalTable{}}
	if s.w.o.External == nil {
		rel.external.err = unsupported("external table "+e.Name.String(), "this server reads no files of others")
		return rel
	}
	t, err := s.w.o.External.Table(e)
	if err != nil {
		rel.external.err = externalError(err)
		return rel
	}
	rel.external.relation = ForeignRelation(t)
	for _, c := range slices.Concat(t.Columns, t.Keys) {
		rel.columns = append(rel.columns, relColumn{c.Name, fromHive(c.Type)})
	}
	return rel
}

// externalTable is the part of a relation that external tables have.
type externalTable struct {
	relation engine.Relation
	err      error // why it cannot be read
}

// refuseExternal refuses to change an external table's rows or columns.
func refuseExternal(rel *relation) error {
	if rel == nil || rel.external == nil {
		return nil
	}
	return errorf(codeWrongObjectType, "%q is an external table: its files are others' and are only read", rel.schema+"."+rel.name).
		hint("INSERT INTO a table of your own SELECT … FROM it; its definition is changed through the Glue API or by a crawler")
}

// externalCodes is the table of the external tables' kinds of error.
var externalCodes = []struct {
	kind error
	code string
}{
	{external.ErrUnsupported, codeFeatureNotSupported}, {external.ErrDefinition, "42P16"}, {external.ErrData, codeInvalidText},
	{external.ErrChanged, "55000"}, {external.ErrLimit, codeLimitExceeded}, {external.ErrUnreadable, codeIO},
}

func externalError(err error) error {
	var x *external.Error
	if !errors.As(err, &x) {
		return err
	}
	e := errorf(codeIO, "%s", x.Message)
	for _, c := range externalCodes {
		if errors.Is(x.Kind, c.kind) {
			e.Code = c.code
		}
	}
	e.Hint = x.Hint
	return e.because(err)
}

// fromHive is the SQL type of a Hive type. Nested ones are read as text, and
// their parts by names.
func fromHive(t *serde.Type) sqlType {
	switch t.Kind {
	case serde.Boolean:
		return sqlType{kind: kindBool}
	case serde.TinyInt, serde.SmallInt:
		return sqlType{kind: kindSmallint}
	case serde.Int:
		return sqlType{kind: kindInt}
	case serde.BigInt:
		return sqlType{kind: kindBigint}
	case serde.Float:
		return sqlType{kind: kindReal}
	case serde.Double:
		return sqlType{kind: kindDouble}
	case serde.Decimal:
		return decimal(t.Precision, t.Scale)
	case serde.Binary:
		return sqlType{kind: kindBytes}
	case serde.Date:
		return sqlType{kind: kindDate}
	case serde.Timestamp:
		return sqlType{kind: kindTimestamp}
	case serde.Array, serde.Map, serde.Struct:
		return sqlType{kind: kindStruct}
	}
	return sqlType{kind: kindText}
}

// duckdbType spells a Hive type for the engine.
func duckdbType(t *serde.Type) string {
	switch t.Kind {
	case serde.Array:
		return duckdbType(t.Element) + "[]"
	case serde.Map:
		return "MAP(" + duckdbType(t.Key) + ", " + duckdbType(t.Element) + ")"
	case serde.Struct:
		fields := make([]string, len(t.Fields))
		for i, f := range t.Fields {
			fields[i] = engine.QuoteIdentifier(f.Name) + " " + duckdbType(f.Type)
		}
		return "STRUCT(" + strings.Join(fields, ", ") + ")"
	}
	return fromHive(t).String()
}

// recordKinds are the Hive types whose values in partitions the engine compares
// with a statement's conditions.
var recordKinds = map[serde.Kind]record.Kind{serde.TinyInt: record.Int, serde.SmallInt: record.Int, serde.Int: record.Int, serde.BigInt: record.Long,
	serde.String: record.String, serde.Varchar: record.String, serde.Char: record.String, serde.Date: record.Date, serde.Boolean: record.Boolean}

// comparableDigits is up to how many digits decimals are compared.
const comparableDigits = 18

// ForeignRelation is an external table as the engine reads it.
func ForeignRelation(t *external.Table) engine.Relation {
	r := engine.Relation{Hidden: len(pseudoColumns), Source: foreignSource{t}}
	add := func(name string, typ record.Type, spelling string) {
		r.Schema.Fields = append(r.Schema.Fields, record.Field{ID: len(r.Schema.Fields) + 1, Name: name, Type: typ})
		r.Types = append(r.Types, spelling)
	}
	for _, c := range slices.Concat(t.Columns, t.Keys) {
		kind, simple := recordKinds[c.Type.Kind]
		spelling := duckdbType(c.Type)
		switch {
		case simple && spelling == engine.TypeOf(record.Type{Kind: kind}).SQL():
			add(c.Name, record.Type{Kind: kind}, "")
		case simple:
			add(c.Name, record.Type{Kind: kind}, spelling)
		case c.Type.Kind == serde.Decimal && c.Type.Precision <= comparableDigits:
			add(c.Name, record.Type{Kind: record.Decimal, Precision: c.Type.Precision, Scale: c.Type.Scale}, "")
		default:
			add(c.Name, record.Type{}, spelling)
		}
	}
	add(columnPath, record.Type{Kind: record.String}, "")
	add(columnSize, record.Type{Kind: record.Long}, "")
	return r
}

// foreignSource gives the engine an external table's files.
type foreignSource struct{ t *external.Table }

// Files implements engine.Source.
func (s foreignSource) Files(ctx context.Context, may func(engine.Ranges) bool) (engine.SourceFiles, error) {
	found, err := s.t.Files(ctx, func(values []string) bool { return may(partitionValues{s.t, values}) })
	if err != nil {
		return engine.SourceFiles{}, externalError(err)
	}
	out := engine.SourceFiles{Files: make([]engine.File, len(found.Files)), Release: found.Release, Unchanged: func() error { return externalError(found.Unchanged()) }}
	layouts := map[*external.Layout]*engine.Foreign{}
	for i := range found.Files {
		f := &found.Files[i]
		l := layouts[f.Layout]
		if l == nil {
			l = foreignLayout(s.t, f.Layout)
			layouts[f.Layout] = l
		}
		x := engine.File{Path: f.Path, Rows: f.Rows, Foreign: l, Fleeting: true}
		for j, k := range s.t.Keys {
			c, err := partitionConstant(k.Type, f.Values[j])
			if err != nil {
				found.Release()
				return engine.SourceFiles{}, errorf("42P16", "table %s has a partition with the value %q for the key %q, which is no %s", s.t.Name, f.Values[j], k.Name, k.Type).
					hint("correct the partition, or declare the key as string")
			}
			x.Constants = append(x.Constants, c)
		}
		x.Constants = append(x.Constants, engine.Constant{Text: f.URI}, engine.Constant{Text: strconv.FormatInt(f.SizeBytes, 10)})
		out.Files[i] = x
	}
	return out, nil
}

func foreignLayout(t *external.Table, l *external.Layout) *engine.Foreign {
	out := &engine.Foreign{Columns: make([]engine.Origin, len(l.Columns))}
	for i := range l.Columns {
		out.Columns[i] = origin(t.Columns[i].Type, &l.Columns[i])
	}
	out.Shadowed = slices.ContainsFunc(l.Names, func(name string) bool { return strings.EqualFold(name, "file_index") })
	return out
}

// origin is a source of an external table as the engine has it.
func origin(t *serde.Type, s *external.Source) engine.Origin {
	step := engine.Step{Type: duckdbType(t)}
	switch s.Step.Kind {
	case external.Same:
		if t.Kind == serde.TinyInt { // SQL has none
			step.Kind = engine.StepCast
		}
	case external.Cast:
		step.Kind = engine.StepCast
	case external.Decode:
		step.Kind = engine.StepDecode
	case external.Struct:
		step.Kind = engine.StepStruct
		for i, f := range t.Fields {
			step.Fields = append(step.Fields, f.Name)
			step.Parts = append(step.Parts, origin(f.Type, &s.Step.Parts[i]))
		}
	case external.List:
		step.Kind, step.Parts = engine.StepList, []engine.Origin{origin(t.Element, &s.Step.Parts[0])}
	case external.Map:
		step.Kind, step.Parts = engine.StepMap, []engine.Origin{origin(t.Key, &s.Step.Parts[0]), origin(t.Element, &s.Step.Parts[1])}
	}
	return engine.Origin{Name: s.Name, Step: step}
}

// partitionValues are a partition's values as bounds: the least and the greatest
// value are the same.
type partitionValues struct {
	t      *external.Table
	values []string
}

// Range implements engine.Ranges. Values that are null or none of their type have
// no bounds.
func (p partitionValues) Range(fieldID int) (lower, upper []byte) {
	i := fieldID - 1 - len(p.t.Columns)
	if i < 0 || i >= len(p.t.Keys) || i >= len(p.values) {
		return nil, nil
	}
	k := p.t.Keys[i].Type
	c, err := partitionConstant(k, p.values[i])
	if err != nil || c.Null {
		return nil, nil
	}
	var b []byte
	switch k.Kind {
	case serde.TinyInt, serde.SmallInt, serde.Int:
		n, _ := strconv.ParseInt(c.Text, 10, 32) // it was checked
		b = binary.LittleEndian.AppendUint32(nil, uint32(n))
	case serde.BigInt:
		n, _ := strconv.ParseInt(c.Text, 10, 64)
		b = binary.LittleEndian.AppendUint64(nil, uint64(n))
	case serde.Date:
		at, _ := time.Parse(time.DateOnly, c.Text)
		b = binary.LittleEndian.AppendUint32(nil, uint32(at.Unix()/86_400))
	case serde.Decimal:
		unscaled, ok := unscaledOf(c.Text, k.Scale)
		if !ok || !unscaled.IsInt64() {
			return nil, nil
		}
		b = binary.BigEndian.AppendUint64(nil, uint64(unscaled.Int64()))
	case serde.String, serde.Varchar, serde.Char:
		b = append([]byte{}, c.Text...)
	default:
		return nil, nil
	}
	return b, b
}

// AllNull reports that the partition's value of a key is null.
func (p partitionValues) AllNull(fieldID int) bool {
	i := fieldID - 1 - len(p.t.Columns)
	if i < 0 || i >= len(p.t.Keys) || i >= len(p.values) {
		return false
	}
	c, err := partitionConstant(p.t.Keys[i].Type, p.values[i])
	return err == nil && c.Null
}

var (
	numberRE    = regexp.MustCompile(`^[+-]?[0-9]+(\.[0-9]*)?$`)
	timestampRE = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}:\d{2}(\.\d{1,9})?)?$`)
)

// unscaledOf reads a decimal's text in units of its scale; false if it has
// further digits that are not zero.
func unscaledOf(text string, scale int) (*big.Int, bool) {
	whole, fraction, _ := strings.Cut(text, ".")
	fraction = strings.TrimRight(fraction, "0")
	if len(fraction) > scale {
		return nil, false
	}
	return new(big.Int).SetString(strings.TrimPrefix(whole, "+")+fraction+strings.Repeat("0", scale-len(fraction)), 10)
}

var errPartitionValue = errors.New("no value of the type")

// partitionConstant is a partition's value, by the key's type. Hive's default
// partition is null, and so is an empty value of what is no text.
func partitionConstant(t *serde.Type, value string) (engine.Constant, error) {
	text := t.Kind == serde.String || t.Kind == serde.Varchar || t.Kind == serde.Char
	if value == hive.DefaultPartition || value == "" && !text {
		return engine.Constant{Null: true}, nil
	}
	ok := true
	switch t.Kind {
	case serde.TinyInt, serde.SmallInt, serde.Int, serde.BigInt:
		n, err := strconv.ParseInt(value, 10, 8<<(t.Kind-serde.TinyInt))
		value, ok = strconv.FormatInt(n, 10), err == nil
	case serde.Decimal:
		unscaled, exact := (*big.Int)(nil), false
		if numberRE.MatchString(value) {
			unscaled, exact = unscaledOf(value, t.Scale)
		}
		ok = exact && len(new(big.Int).Abs(unscaled).String()) <= t.Precision
	case serde.Date:
		_, err := time.Parse(time.DateOnly, value)
		ok = err == nil
	case serde.Timestamp:
		ok = timestampRE.MatchString(value)
		if ok {
			_, err := time.Parse(time.DateOnly, value[:10])
			ok = err == nil
		}
	case serde.Boolean:
		value = strings.ToLower(value)
		ok = value == "true" || value == "false"
	}
	if !ok {
		return engine.Constant{}, errPartitionValue
	}
	return engine.Constant{Text: value}, nil
}

// namesPseudo reports whether a statement names one of the pseudo-columns.
func namesPseudo(tokens []token) bool {
	return slices.ContainsFunc(tokens, func(t token) bool {
		return t.kind == tokenQuoted && (strings.EqualFold(t.value, columnPath) || strings.EqualFold(t.value, columnSize))
	})
}

// dropExternal takes an external table out of the catalog. Its files stay.
func (s *Session) dropExternal(ctx context.Context, name catalog.Name) error {
	return s.w.o.Catalog.ChangeExternals(ctx, []catalog.ExternalChange{{Table: name, IfVersion: catalog.AnyVersion, Drop: true}})
}

// excludePseudo takes the pseudo-columns out of a star.
func excludePseudo(star node) {
	var names []any
	for _, c := range pseudoColumns {
		names = append(names, c.name)
	}
	star["exclude_list"] = names
}
