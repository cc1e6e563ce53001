package catalog

import (
	"fmt"
	"os"

	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/record"
)

// StatsOf is what a manifest holds of a file, from the file's description.
func StatsOf(m columnar.FileMeta) FileStats {
	s := FileStats{SchemaID: m.SchemaID, Rows: m.Rows, SizeBytes: m.SizeBytes, SplitOffsets: m.SplitOffsets}
	for _, c := range m.Columns {
		s.Columns = append(s.Columns, ColumnStats(c))
	}
	return s
}

// ReadStats reads it from the footer of a local Parquet file whose columns bear
// the field ids of schema.
func ReadStats(path string, schema record.Schema) (FileStats, error) {
	f, err := os.Open(path)
	if err != nil {
		return FileStats{}, err
	}
	defer func() { _ = f.Close() }() // it is only read
	info, err := f.Stat()
	if err != nil {
		return FileStats{}, err
	}
	m, err := columnar.MetaFromParquet(f, info.Size(), schema)
	if err != nil {
		return FileStats{}, fmt.Errorf("read the footer of %s: %w", path, err)
	}
	return StatsOf(m), nil
}
