package transform

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/record"
)

// Bounds of a SQL transform.
const (
	// SQLBatchBytes is what one Apply of a SQL transform takes: enough that
	// planning is a small part of it.
	SQLBatchBytes = 4 << 20
	// statementMax bounds a statement's text.
	statementMax = 64 << 10
	// itemsMax bounds the select list, as columnar bounds columns.
	itemsMax = columnar.MaxFields
	// chunkRecords bounds the records of one run.
	chunkRecords = 1 << 16
	// outputMax bounds the documents of one Apply. Only a statement that makes
	// documents a dozen times as large as its records comes near.
	outputMax = 64 << 20
	// explainedMax bounds the records of one run whose failure is looked into;
	// a run with more bad records says of the others only that they fail.
	explainedMax = 16
)

// The reserved names of a select list. They are no members of the document.
const (
	partitionPrefix = "_partition_" // and the key: Keys
	databaseName    = "_database"
	tableName       = "_table"
	operationName   = "_operation"
	documentName    = "_document" // the whole document, instead of members
)

// SQLOptions configure NewSQL.
type SQLOptions struct {
	// Statement is SELECT … FROM records [AS r(column type, …)] [WHERE …].
	Statement string
	Engine    *engine.Engine
	// Dir is one of the engine's AllowedDirs, for files that live for a moment.
	// It exists; the transform makes a directory transform-* of its own in it and
	// removes it when it is closed. What a crash leaves, its owner clears at start.
	Dir string

	Stream  record.StreamName // of metrics and log
	Logger  *slog.Logger      // nil: discard
	Metrics *Metrics          // nil: none
}

// SQL evaluates one SELECT for each record. A batch is decoded into columns as
// a stream's table would be, and written to one small Parquet file that the
// statement reads in one run; each row carries the index of its record.
//
// A row whose evaluation fails does not end the run: the statement that runs is
//
//	SELECT _transform_index, _transform_w.v, _transform_s.c0, _transform_s.c1, … FROM (
//	  SELECT _transform_index, _transform_w, TRY(CASE WHEN _transform_w.v THEN {c0: expression, c1: …} END) AS _transform_s FROM (
//	    SELECT *, TRY({v: CASE WHEN true THEN predicate END}) AS _transform_w FROM records))
//
// in which a struct is null only if its evaluation failed. Why it failed is
// then asked for the record alone, without TRY. CASE and the levels keep DuckDB
// from computing an expression that occurs twice once, outside of TRY.
type SQL struct {
	o      SQLOptions
	layout *columnar.Layout
	list   bool // the statement has a column definition list
	strict bool // records must be JSON whose numbers are doubles without loss

	tried string // the statement above
	part  string // the same of the records with indexes from $1 below $2
	alone string // without TRY, of the record with the index $1

	outputs  []output
	members  int // of outputs
	document int // the output that is the document, or -1

	dir     string
	serial  atomic.Uint64
	workers sync.Pool // of *worker
	life    life
}

// output is one column of the select list: column resultColumns + its index of
// what runs.
type output struct {
	name  string // of a reserved name, the partition key
	label []byte // of a member: "name": with its comma or brace
	kind  outputKind
	text  bool // a column of text, JSON included
}

type outputKind uint8

const (
	member outputKind = iota
	partitionKey
	database
	tableOf
	operation
	wholeDocument
)

// The columns before the outputs.
const (
	indexAt = iota
	triedAt // whether the predicate was evaluated
	whereAt // its value
	givenAt // whether the outputs were evaluated
	resultColumns
)

// worker holds what one run needs and the next can use again.
type worker struct {
	decoder *columnar.Decoder
	builder *columnar.Builder
	arena   []byte
	ends    []int32
	docs    [][]byte
}

// NewSQL checks the statement against everything that can be known without a
// record, and compiles it. A statement that is refused is a *StatementError.
func NewSQL(ctx context.Context, o SQLOptions) (_ *SQL, err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if len(o.Statement) > statementMax {
		return nil, &StatementError{Message: fmt.Sprintf("it is longer than %d bytes", statementMax)}
	}
	if !utf8.ValidString(o.Statement) || strings.IndexByte(o.Statement, 0) >= 0 {
		return nil, &StatementError{Message: "it is no UTF-8 text"}
	}
	d, err := define(o.Statement)
	if err != nil {
		return nil, err
	}
	s := &SQL{o: o, list: d.list, document: -1}
	schema := record.Schema{ID: 1, Fields: append(slices.Clone(d.columns), record.Field{ID: len(d.columns) + 1, Name: indexColumn, Type: record.Type{Kind: record.Long}, Derive: record.RecordOffset})}
	if s.layout, err = columnar.Compile(schema, columnar.Options{}); err != nil {
		return nil, &StatementError{Message: err.Error(), sql: o.Statement}
	}
	if err := s.compile(ctx, d); err != nil {
		return nil, err
	}
	s.workers.New = func() any { return &worker{decoder: s.layout.NewDecoder(), builder: s.layout.NewBuilder()} }
	if s.dir, err = os.MkdirTemp(o.Dir, "transform-"); err != nil {
		return nil, fmt.Errorf("make a directory for a transform: %w", err)
	}
	if err := s.rehearse(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	o.Metrics.open(o.Stream)
	return s, nil
}

// samples are documents' members by kind.
var samples = map[record.Kind]string{record.Boolean: "true", record.Int: "1", record.Long: "1", record.Decimal: "0", record.Double: "1", record.String: `"1"`,
	record.Date: `"2001-01-01"`, record.TimestampTZ: `"2001-01-01T00:00:00Z"`}

// rehearse runs the whole path once: what works for no record at all, such as a
// cast between types that have none, is refused now.
func (s *SQL) rehearse(ctx context.Context) error {
	doc := []byte{'{'}
	for i, f := range s.layout.Schema().Fields {
		if f.Derive == record.FromJSON {
			if i > 0 {
				doc = append(doc, ',')
			}
			doc = append(append(engine.AppendJSONString(doc, f.Name), ':'), samples[f.Type.Kind]...)
		}
	}
	r := &run{s: s, records: []Record{{ID: "rehearsal", Data: append(doc, '}')}}, results: make([]Result, 1), room: outputMax}
	w := s.workers.Get().(*worker)
	defer s.workers.Put(w)
	if err := r.apply(ctx, w); err != nil {
		return fmt.Errorf("rehearse a transform: %w", err)
	}
	if m := r.results[0].Message; strings.Contains(m, "Unimplemented type for cast") {
		return &StatementError{Message: strings.TrimPrefix(m, "record rehearsal: "), sql: s.o.Statement}
	}
	return nil
}

// relation is the table records over files.
func (s *SQL) relation(schema record.Schema, files ...engine.File) *engine.Pin {
	return engine.NewPin(map[engine.Name]engine.Relation{{Table: table}: {Schema: schema, Files: files}})
}

// compile checks the statement and makes the texts that run.
func (s *SQL) compile(ctx context.Context, d *definition) error {
	sql := s.o.Statement
	text, err := s.convert(ctx, "SELECT json_serialize_sql($1::VARCHAR)", d.text)
	if err != nil {
		return err
	}
	tree, err := parseTree(sql, text)
	if err != nil {
		return err
	}
	sel, err := (&checker{d: d, sql: sql}).check(tree)
	if err != nil {
		return err
	}
	s.strict = sel.readsJSON
	// The engine's own fences, and the binder: columns, signatures, types. The
	// relation has no file and so no rows.
	pin := s.relation(s.layout.Schema())
	defer pin.Release()
	session, err := s.o.Engine.Session(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = session.Close() }() // it never fails
	shown := s.relation(record.Schema{Fields: d.columns})
	defer shown.Release()
	_, columns, err := session.Describe(ctx, engine.Query{SQL: d.text, Pin: shown, Exact: true})
	if err != nil {
		return s.refusal(err)
	}
	if err := s.name(sel, columns); err != nil {
		return err
	}
	if sel.where != nil {
		text, err := s.build(ctx, "SELECT _where AS a FROM "+table+" AS "+engine.QuoteIdentifier(sel.alias), map[string]node{"_where": sel.where})
		if err != nil {
			return err
		}
		_, columns, err := session.Describe(ctx, engine.Query{SQL: text, Pin: shown, Exact: true})
		if err != nil {
			return s.refusal(err)
		}
		if k := columns[0].Type.Kind; k != engine.Boolean && k != engine.Null {
			return &StatementError{"WHERE takes a boolean, not " + columns[0].Type.String(), place(sel.where), sql}
		}
	}
	for _, x := range []struct {
		to         *string
		try, where string
	}{{&s.tried, "TRY", ""}, {&s.part, "TRY", " WHERE " + indexColumn + " >= $1 AND " + indexColumn + " < $2"}, {&s.alone, "", " WHERE " + indexColumn + " = $1"}} {
		if *x.to, err = s.wrap(ctx, sel, x.try, x.where); err != nil {
			return err
		}
	}
	var params []engine.Type
	for _, q := range []string{s.tried, s.alone, s.part} {
		if _, _, err := session.Describe(ctx, engine.Query{SQL: q, Pin: pin, Exact: true, ParamTypes: params}); err != nil {
			return s.refusal(err)
		}
		params = append(params, engine.Type{Kind: engine.BigInt})
	}
	return nil
}

// refusal is an engine's error about the statement's text.
func (s *SQL) refusal(err error) error {
	var e *engine.Error
	var denied *engine.DeniedError
	switch {
	case errors.As(err, &denied):
		return &StatementError{denied.What + " is refused", min(denied.Position, len(s.o.Statement)), s.o.Statement}
	case errors.As(err, &e) && !transient(e.Kind):
		return &StatementError{e.Message, min(e.Position, len(s.o.Statement)), s.o.Statement}
	}
	return fmt.Errorf("check a transform's statement: %w", err)
}

// transient reports whether a failure says nothing about statement or records.
func transient(k engine.ErrorKind) bool {
	return k == engine.Interrupted || k == engine.Busy || k == engine.IO || k == engine.Internal
}

// convert runs one of the parser's functions; its argument is no part of the
// statement.
func (s *SQL) convert(ctx context.Context, sql, argument string) (string, error) {
	session, err := s.o.Engine.InternalSession(ctx)
	if err != nil {
		return "", err
	}
	defer func() { _ = session.Close() }() // it never fails
	rows, err := session.Query(ctx, engine.Query{SQL: sql, Args: []any{argument}})
	if err != nil {
		return "", err
	}
	defer func() { _ = rows.Close() }()
	if err := rows.Step(); err != nil {
		return "", err
	}
	out, _ := rows.Value(0).(string)
	return out, nil
}

// name makes the outputs of the select list.
func (s *SQL) name(sel *selection, columns []engine.Column) error {
	if len(columns) != len(sel.items) || len(columns) > itemsMax {
		return &StatementError{Message: fmt.Sprintf("the select list has %d elements: want at most %d", len(columns), itemsMax)}
	}
	refuse := func(i int, format string, args ...any) error {
		return &StatementError{fmt.Sprintf(format, args...), place(sel.items[i].expr), s.o.Statement}
	}
	keys := 0
	for i, x := range sel.items {
		kind := columns[i].Type.Kind
		switch kind {
		case engine.Blob:
			return refuse(i, "%q is bytes, which a document cannot hold: use to_base64 or to_hex", x.name)
		case engine.IntervalType:
			return refuse(i, "%q is an interval, which a document cannot hold: cast it to varchar, or take its epoch", x.name)
		}
		o := output{name: x.name, text: kind == engine.Varchar}
		switch {
		case strings.HasPrefix(x.name, partitionPrefix) && len(x.name) > len(partitionPrefix):
			o.kind, o.name = partitionKey, x.name[len(partitionPrefix):]
			if keys++; keys > keysMax {
				return refuse(i, "there are more than %d partition keys", keysMax)
			}
		case x.name == databaseName:
			o.kind = database
		case x.name == tableName:
			o.kind = tableOf
		case x.name == operationName:
			o.kind = operation
		case x.name == documentName:
			o.kind, s.document = wholeDocument, i
		default:
			lead := byte(',')
			if s.members == 0 {
				lead = '{'
			}
			o.label = append(engine.AppendJSONString([]byte{lead}, x.name), ':')
			s.members++
		}
		if o.kind != member && kind == engine.Nested {
			return refuse(i, "%q is a list or a struct: use to_json", x.name)
		}
		s.outputs = append(s.outputs, o)
	}
	if s.document >= 0 && s.members > 0 {
		return refuse(s.document, "%s is the whole document: beside it only %skey, %s, %s and %s may stand", documentName, partitionPrefix, databaseName, tableName, operationName)
	}
	return nil
}

// wrap makes the statement that runs.
func (s *SQL) wrap(ctx context.Context, sel *selection, try, where string) (string, error) {
	// A skeleton is parsed, and the user's expressions take the places of its
	// placeholders, so that no text is put together from theirs.
	var fields, outputs strings.Builder
	place := map[string]node{"_where": sel.where}
	for i, x := range sel.items {
		if i > 0 {
			fields.WriteString(", ")
		}
		c := "c" + strconv.Itoa(i)
		fmt.Fprintf(&fields, "%s := _e%d", c, i)
		fmt.Fprintf(&outputs, ", _transform_s.%s", c)
		place["_e"+strconv.Itoa(i)] = x.expr
	}
	predicate := "true"
	if sel.where != nil {
		// A condition that is always true, and that DuckDB does not know to be.
		predicate = "CASE WHEN " + indexColumn + " | 1 > 0 THEN _where END"
	}
	alias := " AS " + engine.QuoteIdentifier(sel.alias)
	skeleton := "SELECT * , " + try + "(struct_pack(v := " + predicate + ")) AS _transform_w FROM " + table + alias + where
	skeleton = "SELECT " + indexColumn + ", _transform_w, " + try + "(CASE WHEN _transform_w.v THEN struct_pack(" + fields.String() + ") END) AS _transform_s FROM (" + skeleton + ")" + alias
	skeleton = "SELECT t." + indexColumn + ", t._transform_w IS NOT NULL, _transform_w.v, t._transform_s IS NOT NULL" + outputs.String() + " FROM (" + skeleton + ") AS t"
	return s.build(ctx, skeleton, place)
}

// build is skeleton with expressions in the places of its column references.
func (s *SQL) build(ctx context.Context, skeleton string, place map[string]node) (string, error) {
	text, err := s.convert(ctx, "SELECT json_serialize_sql($1::VARCHAR)", skeleton)
	if err != nil {
		return "", err
	}
	tree, err := parseTree(skeleton, text)
	if err != nil {
		return "", err
	}
	if text, err = treeText(fill(tree, place).(node)); err != nil {
		return "", err
	}
	return s.convert(ctx, "SELECT json_deserialize_sql($1::JSON)", text)
}

// fill puts expressions in the places of the column references that name them.
func fill(v any, place map[string]node) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = fill(v[i], place)
		}
	case node:
		if names := list(v, "column_names"); str(v, "class") == "COLUMN_REF" && len(names) == 1 {
			name, _ := names[0].(string)
			if x := place[name]; x != nil {
				x = copyTree(x).(node)
				x["alias"] = v["alias"]
				return x
			}
		}
		for k, m := range v {
			v[k] = fill(m, place)
		}
	}
	return v
}

func copyTree(v any) any {
	switch v := v.(type) {
	case []any:
		c := make([]any, len(v))
		for i := range v {
			c[i] = copyTree(v[i])
		}
		return c
	case node:
		c := make(node, len(v))
		for k, m := range v {
			c[k] = copyTree(m)
		}
		return c
	}
	return v
}

// BatchBytesMax is as the Transformer's.
func (s *SQL) BatchBytesMax() int { return SQLBatchBytes }

// Close ends what runs and removes the transform's directory.
func (s *SQL) Close() error {
	if !s.life.end() {
		return nil
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("remove a transform's directory: %w", err)
	}
	return nil
}

// Apply is as the Transformer's.
func (s *SQL) Apply(ctx context.Context, records []Record) ([]Result, error) {
	ctx, leave, err := s.life.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	results := make([]Result, len(records))
	w := s.workers.Get().(*worker)
	defer s.workers.Put(w)
	room := outputMax
	for from := 0; from < len(records); {
		to, size := from, 0
		for to < len(records) && to-from < chunkRecords && (to == from || size+len(records[to].Data) <= SQLBatchBytes) {
			size += len(records[to].Data)
			to++
		}
		r := &run{s: s, records: records[from:to], results: results[from:to], room: room}
		start := time.Now()
		err := r.apply(ctx, w)
		s.o.Metrics.called(s.o.Stream, start, err == nil)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return nil, cause
			}
			return nil, err
		}
		room = r.room
		from = to
	}
	s.o.Metrics.done(s.o.Stream, results)
	return results, nil
}
