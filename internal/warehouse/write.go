package warehouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/record"
)

// stagedWrite is what a transaction will add to one table: data files that lie
// in the lake already, durable and named by nobody.
type stagedWrite struct {
	add   []catalog.NewFile
	local []engine.File // the same, for the transaction's own queries
	names []string      // lake names, to be deleted if the transaction fails
}

// partitionsMax bounds the partitions that one INSERT writes.
const partitionsMax = 1000

// insertTarget loads the table that an INSERT or COPY writes and the columns
// that it names.
func (s *Session) insertTarget(ctx context.Context, schema, name string, columns []string) (*catalog.Table, []catalogColumn, error) {
	if _, err := s.environment(ctx); err != nil {
		return nil, nil, err
	}
	rel, err := s.lookup(ctx, schema, name)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case rel == nil:
		return nil, nil, errorf(codeUndefinedTable, "relation %q does not exist", name)
	case rel.external != nil:
		return nil, nil, refuseExternal(rel)
	case rel.system:
		return nil, nil, errorf(codePrivilege, "permission denied for relation %s", name)
	case rel.view != nil:
		if rel.view.Release != nil {
			rel.view.Release()
		}
		return nil, nil, errorf(codeWrongObjectType, "cannot change materialized view %q", name)
	}
	t, err := s.w.o.Catalog.Load(ctx, catalog.Name{Namespace: rel.schema, Table: rel.name})
	if err != nil {
		return nil, nil, err
	}
	fed := len(t.Through()) > 0 || !t.Sequence.IsZero()
	if !fed && s.w.o.Unfed != nil { // a stream that has delivered nothing yet feeds it as well
		stream, err := s.w.o.Unfed(t.Name, func() error { return nil })
		if err != nil {
			return nil, nil, err
		}
		fed = stream != ""
	}
	if fed {
		return nil, nil, errorf(codeWrongObjectType, "table %s is fed by a delivery stream", t.Name).
			hint("put records through the Firehose API, so that they are numbered and proven; or insert into a table of your own")
	}
	all := tableColumns(t)
	if columns == nil {
		return t, all, nil
	}
	var chosen []catalogColumn
	for i, n := range columns {
		found := false
		for _, c := range all {
			if c.name == n {
				chosen, found = append(chosen, c), true
			}
		}
		if !found {
			return nil, nil, errorf(codeUndefinedColumn, "column %q of relation %q does not exist", n, name)
		}
		for _, earlier := range columns[:i] {
			if earlier == n {
				return nil, nil, errorf(codeDuplicateColumn, "column %q specified more than once", n)
			}
		}
	}
	return t, chosen, nil
}

// assignment is the SELECT that casts a query's columns to a table's: the
// assignment of SQL, which PostgreSQL does with rounding. Columns that are not
// named are NULL.
func assignment(query []token, chosen []catalogColumn, all []catalogColumn, given int) []token {
	var out []token
	word := func(s string) { out = append(out, token{kind: tokenIdent, value: s, space: true}) }
	punct := func(s string) { out = append(out, token{kind: tokenPunct, value: s, space: true}) }
	name := func(s string) { out = append(out, token{kind: tokenQuoted, value: s, space: true}) }
	word("select")
	for i, c := range all {
		if i > 0 {
			punct(",")
		}
		word("cast")
		punct("(")
		at := -1
		for j := range chosen {
			if chosen[j].name == c.name && j < given {
				at = j
			}
		}
		if at >= 0 {
			name(fmt.Sprintf("c%d", at+1))
		} else {
			word("null")
		}
		word("as")
		t := c.typ
		if t.kind == kindUUID || t.kind == kindJSON {
			t.kind = kindText
		}
		tokens, _ := tokenize(t.String()) // our own spelling
		for _, tt := range tokens[:len(tokens)-1] {
			tt.space = true
			out = append(out, tt)
		}
		punct(")")
		word("as")
		name(c.name)
	}
	word("from")
	punct("(")
	for _, t := range query {
		if t.kind != tokenEOF {
			t.space = true
			out = append(out, t)
		}
	}
	punct(")")
	word("as")
	name("q")
	punct("(")
	for i := range given {
		if i > 0 {
			punct(",")
		}
		name(fmt.Sprintf("c%d", i+1))
	}
	punct(")")
	return append(out, token{kind: tokenEOF})
}

// given counts the columns of an INSERT's query and checks them against the
// target's.
func checkGiven(given int, chosen []catalogColumn, named bool) error {
	if given > len(chosen) {
		return errorf(codeSyntax, "INSERT has more expressions than target columns")
	}
	if given < len(chosen) && named {
		return errorf(codeSyntax, "INSERT has more target columns than expressions")
	}
	return nil
}

func (s *Session) describeInsert(ctx context.Context, st *Statement, p insertStatement, declared []sqlType) error {
	if err := s.writable(); err != nil {
		return err
	}
	_, chosen, err := s.insertTarget(ctx, p.schema, p.name, p.columns)
	if err != nil {
		return err
	}
	q := &Statement{sql: st.sql}
	if err := s.describe(ctx, q, p.query, typedValues(p.query, chosen, declared)); err != nil {
		return err
	}
	st.params = q.params
	return checkGiven(len(q.Columns), chosen, p.columns != nil)
}

// typedValues gives the parameters that stand alone in a VALUES list the types
// of their columns.
func typedValues(query []token, chosen []catalogColumn, declared []sqlType) []sqlType {
	if len(query) == 0 || !query[0].is("values") {
		return declared
	}
	out := append([]sqlType(nil), declared...)
	depth, column := 0, 0
	for i, t := range query {
		switch {
		case t.punct("("):
			if depth++; depth == 1 {
				column = 0
			}
		case t.punct(")"):
			depth--
		case t.punct(",") && depth == 1:
			column++
		case t.kind == tokenParam && depth == 1 && i > 0 && i+1 < len(query) && column < len(chosen):
			before, after := query[i-1], query[i+1]
			if (before.punct("(") || before.punct(",")) && (after.punct(")") || after.punct(",")) {
				n := atoi(t.value)
				if n < 1 || n > parametersMax {
					continue
				}
				for len(out) < n {
					out = append(out, sqlType{})
				}
				if !out[n-1].known() {
					out[n-1] = chosen[column].typ
				}
			}
		}
	}
	return out
}

func (s *Session) writable() error {
	ro, _ := s.setting("default_transaction_read_only")
	if s.tx != nil && s.tx.readOnly || ro == "on" {
		return errorf(codeReadOnlyTransaction, "cannot write in a read-only transaction")
	}
	return nil
}

func (s *Session) insert(ctx context.Context, st *Statement, p insertStatement, args []any) (*Result, error) {
	if err := s.writable(); err != nil {
		return nil, err
	}
	t, chosen, err := s.insertTarget(ctx, p.schema, p.name, p.columns)
	if err != nil {
		return nil, err
	}
	if p.columns == nil {
		chosen = nil
	}
	rows, err := s.write(ctx, st, t.Name, chosen, p.query, args)
	if err != nil {
		return nil, err
	}
	return done(fmt.Sprintf("INSERT 0 %d", rows)), nil
}

// write stages a query's rows for a table. chosen are the columns that it
// gives, nil: all in order.
func (s *Session) write(ctx context.Context, st *Statement, name catalog.Name, chosen []catalogColumn, query []token, args []any) (int64, error) {
	t, err := s.w.o.Catalog.Load(ctx, name)
	if err != nil {
		return 0, err
	}
	all := tableColumns(t)
	named := chosen != nil
	if !named {
		chosen = all
	}
	inner, err := s.plan(ctx, st.sql, query, valueTypes(st.params, args))
	if err != nil {
		return 0, err
	}
	given := len(inner.columns)
	if err := checkGiven(given, chosen, named); err != nil {
		return 0, err
	}
	p, err := s.plan(ctx, st.sql, assignment(query, chosen, all, given), valueTypes(st.params, args))
	if err != nil {
		return 0, err
	}
	// Export runs what it is given; the allow-list is asked before.
	if err := s.w.o.Engine.Check(ctx, p.text); err != nil {
		return 0, err
	}
	pin, release, err := s.pin(ctx, p, true)
	if err != nil {
		return 0, err
	}
	defer release()
	return s.stage(ctx, t, engine.Query{SQL: p.text, Args: p.args(args), Pin: pin, Exact: true})
}

// stage writes a query's rows to data files of a table and leaves them with
// the transaction.
func (s *Session) stage(ctx context.Context, t *catalog.Table, q engine.Query) (int64, error) {
	schema, types := RelationSchema(t)
	path := s.stagingPath()
	defer func() { _ = os.Remove(path) }() // PutFile has consumed it, or it is of no use
	written, err := s.w.o.Engine.Export(ctx, q, engine.ExportSpec{Path: path, Schema: schema, Types: types})
	if err != nil {
		return 0, err
	}
	if written.Rows == 0 {
		return 0, nil
	}
	if t.PartitionBy == "" {
		return written.Rows, s.stageFile(ctx, t, path, written, catalog.Partition{})
	}
	return written.Rows, s.stagePartitions(ctx, t, path, schema, types)
}

func (s *Session) stagingPath() string {
	return filepath.Join(s.w.o.Staging, fmt.Sprintf("sql-%d-%s.parquet", s.w.serial.Add(1), uuid.NewString()))
}

// RelationSchema is a table's schema as the engine's relations have it: every
// column with its field id, and the DuckDB types of those that streams cannot
// have.
func RelationSchema(t *catalog.Table) (record.Schema, []string) {
	schema := record.Schema{ID: t.Schema.ID}
	types := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		f := record.Field{ID: c.ID, Name: c.Name, Required: c.Required}
		if j := t.Schema.Index(c.Name); j >= 0 {
			f.Type = t.Schema.Fields[j].Type
		} else {
			types[i] = fromIceberg(c.Type).String()
		}
		schema.Fields = append(schema.Fields, f)
	}
	return schema, types
}

// stagePartitions splits a written file by the partition column.
func (s *Session) stagePartitions(ctx context.Context, t *catalog.Table, path string, schema record.Schema, types []string) error {
	all := engine.Name{Namespace: "stage", Table: "rows"}
	pin := engine.NewPin(map[engine.Name]engine.Relation{all: {Schema: schema, Types: types, Files: []engine.File{{Path: path, SchemaID: schema.ID}}}})
	defer pin.Release()
	is, err := s.w.o.Engine.InternalSession(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = is.Close() }()
	column := quoteIdent(t.PartitionBy)
	rows, err := is.Query(ctx, engine.Query{SQL: "SELECT DISTINCT " + column + ` FROM "stage"."rows" ORDER BY 1 LIMIT ` + itoa(partitionsMax+1), Pin: pin})
	if err != nil {
		return err
	}
	var dates []any
	dst := make([]any, 1)
	for err == nil {
		if err = rows.Next(dst); err == nil {
			dates = append(dates, dst[0])
		}
	}
	_ = rows.Close()
	if !errors.Is(err, io.EOF) {
		return err
	}
	if len(dates) > partitionsMax {
		return errorf(codeLimitExceeded, "the rows are of more than %d partitions", partitionsMax).hint("insert a range of dates at a time")
	}
	for _, d := range dates {
		part := s.stagingPath()
		where, partition := column+" IS NULL", catalog.Partition{}
		if date, ok := d.(engine.Date); ok {
			where, partition = column+" = DATE "+quoteLiteral(date.String()), catalog.Partition{Value: int32(date), Has: true}
		}
		written, err := s.w.o.Engine.Export(ctx, engine.Query{SQL: `SELECT * FROM "stage"."rows" WHERE ` + where, Pin: pin}, engine.ExportSpec{Path: part, Schema: schema, Types: types})
		if err == nil {
			err = s.stageFile(ctx, t, part, written, partition)
		}
		_ = os.Remove(part)
		if err != nil {
			return err
		}
	}
	return nil
}

// stageFile puts one file into the lake and notes it for the commit.
func (s *Session) stageFile(ctx context.Context, t *catalog.Table, path string, written engine.Exported, partition catalog.Partition) error {
	stats, err := catalog.ReadStats(path, t.Schema)
	if err != nil {
		return err
	}
	if err := checkRequired(t, stats); err != nil {
		return err
	}
	if t.DataDir() == "" {
		return unsupported("INSERT into a table outside of the lake", "insert into a table of this server")
	}
	name := t.DataDir() + "/sql-" + uuid.NewString() + ".parquet"
	w := s.tx.writes[t.Name]
	if w == nil {
		w = &stagedWrite{}
		s.tx.writes[t.Name] = w
	}
	// Noted before it is put: if the outcome is unknown it is deleted all the same.
	w.names = append(w.names, name)
	if err := s.w.o.Store.PutFile(ctx, name, path); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	w.add = append(w.add, catalog.NewFile{Path: name, Partition: partition, Stats: stats})
	at, ok := s.w.o.Store.LocalPath(name)
	if !ok {
		at = s.w.o.Store.URI(name)
	}
	f := engine.File{Path: at, Rows: written.Rows, SchemaID: t.Schema.ID}
	if partition.Has {
		f.PartitionTradeDate = &partition.Value
	}
	w.local = append(w.local, f)
	return nil
}

// checkRequired refuses nulls in columns that are NOT NULL.
func checkRequired(t *catalog.Table, stats catalog.FileStats) error {
	for _, c := range t.Columns {
		if !c.Required {
			continue
		}
		for _, st := range stats.Columns {
			if st.FieldID == c.ID && st.Nulls > 0 {
				return errorf(codeNotNullViolation, "null value in column %q of relation %q violates not-null constraint", c.Name, t.Name.Table)
			}
		}
	}
	return nil
}

// commitWrites makes all of a transaction's rows visible at once.
func (s *Session) commitWrites(ctx context.Context, tx *transaction) error {
	var commits []catalog.Commit
	for name, w := range tx.writes {
		if len(w.add) > 0 {
			commits = append(commits, catalog.Commit{Table: name, Add: w.add, Summary: map[string]string{"tapehouse.source": "sql"}})
		}
	}
	if len(commits) == 0 {
		return nil
	}
	_, err := s.w.o.Catalog.Commit(ctx, commits)
	if errors.Is(err, catalog.ErrPoisoned) {
		tx.writes = nil // the outcome is unknown: nothing may be deleted
		return err
	}
	if err == nil {
		tx.writes = nil
	}
	return err
}

// dropWrites deletes the files of a transaction that did not commit. What it
// cannot delete is an orphan, which maintenance collects.
func (s *Session) dropWrites(ctx context.Context, tx *transaction) {
	for _, w := range tx.writes {
		if err := s.w.o.Store.Delete(ctx, w.names...); err != nil {
			s.w.o.Logger.Warn("staged files of a transaction are left as orphans", "files", len(w.names), "error", err)
		}
	}
	tx.writes = nil
}
