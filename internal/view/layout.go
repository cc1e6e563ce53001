package view

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/record"
)

// mode is how a view is kept.
type mode string

const (
	modeDelta  mode = "delta"  // partial rows, by deltas
	modeStored mode = "stored" // the stored result, recomputed
	modeQuery  mode = "query"  // nothing: computed at each reading
)

// layoutVersion is the version of layout's form. A program refuses views of a
// newer one.
const layoutVersion = 1

// layout is what the analysis of a definition found: the state's columns and
// the SQL over it. It is part of the view's document.
//
// The SQL names hand-made relations in the view's namespace beside the tables:
// __partials_<view>, the state's rows (or none), and __delta_<view>, what the
// fact gained; or, for a stored result, __stored_<view> and __full_<i>_<view>,
// which stands for Definition.Tables[i].
type layout struct {
	Version int           `json:"version"`
	Mode    mode          `json:"mode"`
	Reason  string        `json:"reason,omitempty"` // why not modeDelta
	Fact    catalog.Name  `json:"fact"`             // of modeDelta
	State   []stateColumn `json:"state,omitempty"`
	// Fill makes the state's rows: of a delta, or the whole result.
	Fill string `json:"fill,omitempty"`
	Fold string `json:"fold,omitempty"` // merges partial rows
	Read string `json:"read"`           // answers the view
}

// stateColumn is a column of the state table.
type stateColumn struct {
	Name  string `json:"name"`
	Merge string `json:"merge"` // key, weight, value (of a stored result), or the aggregate that merges it
	Type  string `json:"type"`  // DuckDB's type of what it stands for
	Store string `json:"store"` // Iceberg's type that it is stored as
}

// The names of relations that Read.Bind adds, and of the state table.
const (
	prefixState    = "__state_"
	prefixPartials = "__partials_"
	prefixDelta    = "__delta_"
	prefixStored   = "__stored_"
	prefixFull     = "__full_"
)

func partialsName(view catalog.Name) engine.Name {
	return engine.Name{Namespace: view.Namespace, Table: prefixPartials + view.Table}
}

func deltaName(view catalog.Name) engine.Name {
	return engine.Name{Namespace: view.Namespace, Table: prefixDelta + view.Table}
}

func storedName(view catalog.Name) engine.Name {
	return engine.Name{Namespace: view.Namespace, Table: prefixStored + view.Table}
}

func fullName(view catalog.Name, i int) engine.Name {
	return engine.Name{Namespace: view.Namespace, Table: prefixFull + strconv.Itoa(i) + "_" + view.Table}
}

func stateName(view catalog.Name) catalog.Name {
	return catalog.Name{Namespace: view.Namespace, Table: prefixState + view.Table}
}

func quoteName(n engine.Name) string {
	return engine.QuoteIdentifier(n.Namespace) + "." + engine.QuoteIdentifier(n.Table)
}

var decimalRE = regexp.MustCompile(`(?i)^decimal\((\d+), ?(\d+)\)$`)

// decimalOf reads "DECIMAL(p,s)" in either spelling.
func decimalOf(s string) (precision, scale int, ok bool) {
	m := decimalRE.FindStringSubmatch(s)
	if m == nil {
		return 0, 0, false
	}
	precision, err1 := strconv.Atoi(m[1])
	scale, err2 := strconv.Atoi(m[2])
	return precision, scale, err1 == nil && err2 == nil
}

// storage is the type that values of a DuckDB type are stored as, without loss:
// false for those that have none.
func storage(duckType string) (record.Type, bool) {
	if p, s, ok := decimalOf(duckType); ok {
		return record.Type{Kind: record.Decimal, Precision: p, Scale: s}, true
	}
	switch duckType {
	case "BOOLEAN":
		return record.Type{Kind: record.Boolean}, true
	case "TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT":
		return record.Type{Kind: record.Int}, true
	case "BIGINT", "UINTEGER":
		return record.Type{Kind: record.Long}, true
	case "UBIGINT":
		return record.Type{Kind: record.Decimal, Precision: 20}, true
	case "HUGEINT": // what has 39 digits is refused by the cast
		return record.Type{Kind: record.Decimal, Precision: 38}, true
	case "FLOAT", "DOUBLE":
		return record.Type{Kind: record.Double}, true
	case "VARCHAR":
		return record.Type{Kind: record.String}, true
	case "DATE":
		return record.Type{Kind: record.Date}, true
	case "TIMESTAMP", "TIMESTAMP WITH TIME ZONE": // the engine's zone is UTC
		return record.Type{Kind: record.TimestampTZ}, true
	}
	return record.Type{}, false
}

// declaredType is the DuckDB type of a result column by its Iceberg type; ""
// if there is none to cast to.
func declaredType(iceberg string) string {
	if p, s, ok := decimalOf(iceberg); ok {
		return fmt.Sprintf("DECIMAL(%d,%d)", p, s)
	}
	return map[string]string{"boolean": "BOOLEAN", "int": "INTEGER", "long": "BIGINT", "float": "FLOAT", "double": "DOUBLE", "string": "VARCHAR", "date": "DATE",
		"time": "TIME", "timestamp": "TIMESTAMP", "timestamptz": "TIMESTAMP WITH TIME ZONE", "uuid": "UUID", "binary": "BLOB"}[iceberg]
}

// storedType is Iceberg's type read back.
func storedType(iceberg string) record.Type {
	if p, s, ok := decimalOf(iceberg); ok {
		return record.Type{Kind: record.Decimal, Precision: p, Scale: s}
	}
	t, err := record.ParseType(iceberg)
	if err != nil {
		return record.Type{} // no state has been written with such a type
	}
	return t
}

// schema is the state table's schema. The catalog numbers fields from 1.
func (l *layout) schema(id int) record.Schema {
	s := record.Schema{ID: id}
	for i, c := range l.State {
		s.Fields = append(s.Fields, record.Field{ID: i + 1, Name: c.Name, Type: storedType(c.Store)})
	}
	return s
}

// columns is the state table's specification.
func (l *layout) columns() []catalog.Column {
	out := make([]catalog.Column, len(l.State))
	for i, c := range l.State {
		out[i] = catalog.Column{Name: c.Name, Type: c.Store}
	}
	return out
}

// keys are the names of the state's key columns.
func (l *layout) keys() []string {
	var out []string
	for _, c := range l.State {
		if c.Merge == mergeKey {
			out = append(out, c.Name)
		}
	}
	return out
}

// add appends a column; false if its type cannot be stored.
func (l *layout) add(name, merge, duckType string) bool {
	t, ok := storage(duckType)
	if ok {
		l.State = append(l.State, stateColumn{Name: name, Merge: merge, Type: duckType, Store: t.String()})
	}
	return ok
}

// storeSQL is the DuckDB type that the column is stored as.
func (c stateColumn) storeSQL() string { return engine.TypeOf(storedType(c.Store)).SQL() }

// The merges that are not the name of an aggregate.
const (
	mergeKey    = "key"
	mergeCount  = "count"
	mergeWeight = "weight"
	mergeValue  = "value"
)

// merged is the aggregate over several partial rows of alias u, in the
// column's own type.
func (c stateColumn) merged() string {
	column := "u." + engine.QuoteIdentifier(c.Name)
	switch c.Merge {
	case mergeKey:
		return "CAST(" + column + " AS " + c.Type + ")"
	case mergeCount, mergeWeight:
		return "CAST(coalesce(sum(" + column + "), 0) AS BIGINT)"
	}
	return "CAST(" + c.Merge + "(" + column + ") AS " + c.Type + ")"
}

// averageSQL is the mean of a merged sum and count, as the engine's exact avg
// has it: truncated for integers, else rounded once, half away from zero, to
// the scale of the sum.
func averageSQL(sum stateColumn, count stateColumn) string {
	s, c := sum.merged(), count.merged()
	_, scale, ok := decimalOf(sum.Type)
	if !ok {
		return "CAST(" + s + " / " + c + " AS BIGINT)"
	}
	const least = 4 // a quotient's scale is at least that
	if scale >= least {
		return fmt.Sprintf("CAST(%s / %s AS DECIMAL(38,%d))", s, c, scale)
	}
	// Shifted so that the one rounding is at the sum's own scale.
	shift := least - scale
	return fmt.Sprintf("CAST((%s * 0.%s1) / %s * 1%s AS DECIMAL(38,%d))", s, strings.Repeat("0", shift-1), c, strings.Repeat("0", shift), scale)
}
