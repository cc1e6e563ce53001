package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/tapehouse/tapehouse/internal/record"
)

// ExportSpec says what file Export writes.
type ExportSpec struct {
	// Path is the new file, in one of the engine's AllowedDirs. It must not
	// exist.
	Path string
	// Schema gives the file's columns, which the query must have by name:
	// order, field ids and types. Types overrides as in Relation.
	Schema record.Schema
	Types  []string
	// OrderBy are columns of Schema, ascending, nulls last; nil keeps the
	// query's order.
	OrderBy []string
	// RowGroupRows is the size of a row group; default 122880.
	RowGroupRows int
}

const rowGroupRowsDefault = 122_880

// Exported is what Export wrote. Field ids, statistics and the row groups are
// in the file's footer, which the caller reads.
type Exported struct {
	Rows      int64
	SizeBytes int64
}

// Export writes a query's rows to one Parquet file with zstd, field ids and
// exact decimals. The query is trusted: it must not be a user's text. The file
// is not fsynced; if Export fails there is none.
func (e *Engine) Export(ctx context.Context, q Query, spec ExportSpec) (Exported, error) {
	if len(spec.Schema.Fields) == 0 {
		return Exported{}, &Error{Kind: Internal, Message: "export without columns"}
	}
	path, err := filepath.Abs(spec.Path)
	if err != nil {
		return Exported{}, fmt.Errorf("export: %w", err)
	}
	if _, err := os.Lstat(path); err == nil {
		return Exported{}, fmt.Errorf("export %s: %w", path, os.ErrExist)
	}
	s, err := e.InternalSession(ctx)
	if err != nil {
		return Exported{}, err
	}
	defer func() { _ = s.Close() }() // it never fails
	c, _, done, err := s.conn()
	if err != nil {
		return Exported{}, err
	}
	defer done()
	c, back := e.swap(c, q.Once)
	defer back()
	prefix, suffix := spec.copyStatement(path)
	rows, err := s.run(ctx, c, q, prefix, suffix)
	if err != nil {
		_ = os.Remove(path) // it may not have been created
		return Exported{}, fmt.Errorf("export: %w", err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		return Exported{}, fmt.Errorf("export: %w", err)
	}
	return Exported{Rows: rows, SizeBytes: fi.Size()}, nil
}

// copyStatement is the COPY around the query's text.
func (spec *ExportSpec) copyStatement(path string) (prefix, suffix string) {
	shape := Relation{Schema: spec.Schema, Types: spec.Types}
	cols := make([]string, len(spec.Schema.Fields))
	ids := make([]string, len(spec.Schema.Fields))
	for i, f := range spec.Schema.Fields {
		name := QuoteIdentifier(f.Name)
		cols[i] = "CAST(q." + name + " AS " + shape.columnType(i) + ") AS " + name
		ids[i] = fmt.Sprintf("%s: %d", QuoteLiteral(f.Name), f.ID)
	}
	order := ""
	if len(spec.OrderBy) > 0 {
		by := make([]string, len(spec.OrderBy))
		for i, c := range spec.OrderBy {
			by[i] = "q." + QuoteIdentifier(c) + " ASC NULLS LAST"
		}
		order = " ORDER BY " + strings.Join(by, ", ")
	}
	rows := spec.RowGroupRows
	if rows <= 0 {
		rows = rowGroupRowsDefault
	}
	return "COPY (SELECT " + strings.Join(cols, ", ") + " FROM (",
		") AS q" + order + ") TO " + QuoteLiteral(path) + fmt.Sprintf(" (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE %d, FIELD_IDS {%s})", rows, strings.Join(ids, ", "))
}
