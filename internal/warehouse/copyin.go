package warehouse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
)

// copyBatchRows and copyBatchBytes bound what COPY FROM STDIN holds in memory
// before it writes it to a local file.
const (
	copyBatchRows  = 50_000
	copyBatchBytes = 16 << 20
)

func (s *Session) describeCopy(ctx context.Context, st *Statement, p copyStatement) error {
	if !p.in {
		query := p.query
		if query == nil {
			query = copyQuery(p)
			p.query = query
			st.parsed = p
		}
		if err := s.describe(ctx, st, query, nil); err != nil {
			return err
		}
		if len(st.params) > 0 {
			return errorf(codeUndefinedParameter, "there is no parameter $1")
		}
	} else {
		if err := s.writable(); err != nil {
			return err
		}
		_, chosen, err := s.insertTarget(ctx, p.schema, p.name, p.columns)
		if err != nil {
			return err
		}
		for _, c := range chosen {
			st.Columns = append(st.Columns, columnOf(c.name, c.typ))
		}
	}
	var err error
	st.Copy, err = p.finish(st.Columns)
	return err
}

// copyQuery is the SELECT of COPY table TO STDOUT.
func copyQuery(p copyStatement) []token {
	var out []token
	add := func(k tokenKind, v string) { out = append(out, token{kind: k, value: v, space: true}) }
	add(tokenIdent, "select")
	for i, c := range p.columns {
		if i > 0 {
			add(tokenPunct, ",")
		}
		add(tokenQuoted, c)
	}
	if p.columns == nil {
		add(tokenOperator, "*")
	}
	add(tokenIdent, "from")
	if p.schema != "" {
		add(tokenQuoted, p.schema)
		add(tokenPunct, ".")
	}
	add(tokenQuoted, p.name)
	return append(out, token{kind: tokenEOF})
}

// A RowReader yields the rows of COPY FROM STDIN.
type RowReader interface {
	// Next fills dst, one element for each of Copy.Columns, with row values,
	// and returns io.EOF after the last row.
	Next(dst []any) error
}

// CopyIn runs a COPY FROM STDIN and answers the command tag.
func (s *Session) CopyIn(ctx context.Context, st *Statement, rows RowReader) (string, error) {
	if err := s.guard(st.parsed); err != nil {
		return "", err
	}
	s.begin(false)
	n, err := s.copyIn(ctx, st, rows)
	if err != nil {
		return "", s.fail(err, st.sql)
	}
	return fmt.Sprintf("COPY %d", n), nil
}

func (s *Session) copyIn(ctx context.Context, st *Statement, rows RowReader) (int64, error) {
	p, ok := st.parsed.(copyStatement)
	if !ok || !p.in {
		return 0, errorf(codeInternal, "not a COPY FROM STDIN")
	}
	ctx, cancel, err := s.deadline(ctx)
	if err != nil {
		return 0, err
	}
	defer cancel()
	if err := s.writable(); err != nil {
		return 0, err
	}
	t, chosen, err := s.insertTarget(ctx, p.schema, p.name, p.columns)
	if err != nil {
		return 0, err
	}
	batch := copyBatch{s: s, t: t, chosen: chosen}
	defer batch.discard()
	dst := make([]any, len(chosen))
	for {
		err := rows.Next(dst)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		if err := batch.add(ctx, dst); err != nil {
			return 0, err
		}
	}
	return batch.finish(ctx)
}

// copyBatch turns rows into local files by way of one JSON text a batch, whose
// values are all text, so that no number passes through a float.
type copyBatch struct {
	s      *Session
	t      *catalog.Table
	chosen []catalogColumn

	text  strings.Builder
	rows  int
	total int64
	files []engine.File
}

func (b *copyBatch) add(ctx context.Context, row []any) error {
	if b.rows == 0 {
		b.text.Reset()
		b.text.WriteByte('[')
	} else {
		b.text.WriteByte(',')
	}
	b.text.WriteByte('{')
	first := true
	for i, v := range row {
		if v == nil {
			continue
		}
		var text []byte
		if raw, ok := v.([]byte); ok {
			text = fmt.Appendf(nil, "%x", raw)
		} else {
			text = engine.AppendText(nil, v, nil)
		}
		q, err := json.Marshal(string(text))
		if err != nil {
			return err
		}
		if !first {
			b.text.WriteByte(',')
		}
		first = false
		fmt.Fprintf(&b.text, `"c%d":%s`, i+1, q)
	}
	b.text.WriteByte('}')
	b.rows++
	if b.rows >= copyBatchRows || b.text.Len() >= copyBatchBytes {
		return b.flush(ctx)
	}
	return nil
}

// flush writes the batch to a local file.
func (b *copyBatch) flush(ctx context.Context) error {
	if b.rows == 0 {
		return nil
	}
	b.text.WriteByte(']')
	schema, types := RelationSchema(b.t)
	shape := make([]string, len(b.chosen))
	for i := range b.chosen {
		shape[i] = fmt.Sprintf(`"c%d":"VARCHAR"`, i+1)
	}
	items := make([]string, len(b.t.Columns))
	for i, c := range tableColumns(b.t) {
		items[i] = "NULL"
		for j := range b.chosen {
			if b.chosen[j].name == c.name {
				items[i] = fmt.Sprintf("q.c%d", j+1)
			}
		}
		switch {
		case c.typ.kind == kindBytes && items[i] != "NULL":
			items[i] = "unhex(" + items[i] + ")"
		default:
			items[i] = "CAST(" + items[i] + " AS " + c.typ.String() + ")"
		}
		items[i] += " AS " + quoteIdent(c.name)
	}
	sql := "SELECT " + strings.Join(items, ", ") + " FROM (SELECT unnest(from_json($1::VARCHAR, " + quoteLiteral(`[{`+strings.Join(shape, ",")+`}]`) + "), max_depth := 2)) q"
	path := b.s.stagingPath()
	written, err := b.s.w.o.Engine.Export(ctx, engine.Query{SQL: sql, Args: []any{b.text.String()}}, engine.ExportSpec{Path: path, Schema: schema, Types: types})
	if err != nil {
		return err
	}
	b.files = append(b.files, engine.File{Path: path, Rows: written.Rows, SchemaID: schema.ID})
	b.total += written.Rows
	b.rows = 0
	b.text.Reset()
	return nil
}

// finish writes the batches to the table's files and stages them.
func (b *copyBatch) finish(ctx context.Context) (int64, error) {
	if err := b.flush(ctx); err != nil {
		return 0, err
	}
	if b.total == 0 {
		return 0, nil
	}
	schema, types := RelationSchema(b.t)
	pin := engine.NewPin(map[engine.Name]engine.Relation{{Namespace: "stage", Table: "copy"}: {Schema: schema, Types: types, Files: b.files}})
	defer pin.Release()
	n, err := b.s.stage(ctx, b.t, engine.Query{SQL: `SELECT * FROM "stage"."copy"`, Pin: pin})
	if err == nil && n != b.total {
		err = errorf(codeInternal, "COPY wrote %d of %d rows", n, b.total)
	}
	return n, err
}

func (b *copyBatch) discard() {
	for _, f := range b.files {
		_ = os.Remove(f.Path) // the engine's staging directory is emptied at start
	}
}
