// Package external reads tables whose files others write, as internal/hive
// describes them, for an engine that knows Parquet on the local disk and nothing
// else.
//
// The files of the partitions that a statement chooses are listed when it runs,
// and each becomes a local Parquet file that stays what it is until the statement
// has ended: a Parquet file by a second name (a hard link, or a copy where that
// is impossible, or a download), any other by converting its rows. The
// conversion is exact: it has the columns' declared types, no number goes through
// a float but to a column that is one, and what does not fit is null or an error
// that names file, line and column, as docs/external-tables.md says.
//
// Invariants:
//   - Only files below the locations of the definition are read, and locations
//     lie in buckets: no path, link or name leads elsewhere.
//   - A statement reads each file as it was listed, or fails and names it.
//   - Memory and disk are bounded: files, partitions and layouts of a statement by
//     number, what is converted by the size of the staging directory, a row by
//     rowBytesMax.
package external

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/hive"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/serde"
)

// The kinds of Error.
var (
	ErrUnsupported = errors.New("not supported")      // of a definition
	ErrDefinition  = errors.New("invalid definition") // of a table or partition
	ErrData        = errors.New("invalid data")       // in a file
	ErrChanged     = errors.New("files were changed") // while a statement read them
	ErrLimit       = errors.New("above a limit")      // of files, partitions or staged bytes
	ErrUnreadable  = errors.New("could not be read")  // a file, for another reason
)

// Error is for whoever sent the statement.
type Error struct {
	Kind    error
	Message string
	Hint    string // what to do, or ""
	cause   error
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the kind and, where there is one, the error below.
func (e *Error) Unwrap() []error {
	if e.cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.cause}
}

func fail(kind error, hint, format string, args ...any) *Error {
	e := &Error{Kind: kind, Hint: hint, Message: fmt.Sprintf(format, args...)}
	for _, a := range args {
		if err, ok := a.(error); ok {
			e.cause = err
		}
	}
	return e
}

// Catalog is what the package needs of the catalog; *catalog.Catalog has it.
type Catalog interface {
	ExternalPartitions(ctx context.Context, name catalog.Name, page catalog.PartitionsPage, fn func(catalog.ExternalPartition) bool) error
}

// Options configure Open.
type Options struct {
	Catalog Catalog
	// Bucket opens a bucket to read others' files from.
	Bucket func(ctx context.Context, name string) (lake.Foreign, error)
	// Dir holds staged files; it is emptied. It lies on the file system of local
	// buckets, so that their Parquet files need not be copied.
	Dir string
	// StageBytesMax bounds the files in Dir; default 10 GiB.
	StageBytesMax int64
	// FilesMax and PartitionsMax bound what one statement reads of one table;
	// default 20,000 each.
	FilesMax, PartitionsMax int
	Logger                  *slog.Logger          // nil: discard
	Registerer              prometheus.Registerer // nil: no metrics
}

const (
	stageBytesDefault    = 10 << 30
	filesDefault         = 20_000
	partitionsDefault    = 20_000
	layoutsMax           = 200 // different Parquet schemas in one statement's files of a table
	footersMax           = 100_000
	schemasMax           = 2_000
	rowBytesMax          = 16 << 20
	columnsMax           = 5_000
	listWidth, readWidth = 8, 4
)

// Reader reads external tables. It is safe for concurrent use.
type Reader struct {
	o       Options
	stage   *stage
	footers *lru.Cache[string, footer]
	schemas *lru.Cache[string, *fileSchema]
	metrics *metrics
	slots   chan struct{} // of conversions, which are the machine's work
}

// Open empties the staging directory.
func Open(o Options) (*Reader, error) {
	if o.StageBytesMax == 0 {
		o.StageBytesMax = stageBytesDefault
	}
	if o.FilesMax == 0 {
		o.FilesMax = filesDefault
	}
	if o.PartitionsMax == 0 {
		o.PartitionsMax = partitionsDefault
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	m := newMetrics(o.Registerer)
	s, err := openStage(o.Dir, o.StageBytesMax, m.usedBytes)
	if err != nil {
		return nil, err
	}
	r := &Reader{o: o, stage: s, metrics: m, slots: make(chan struct{}, runtime.GOMAXPROCS(0))}
	if r.footers, err = lru.New[string, footer](footersMax); err != nil {
		return nil, fmt.Errorf("open external tables: %w", err)
	}
	if r.schemas, err = lru.New[string, *fileSchema](schemasMax); err != nil {
		return nil, fmt.Errorf("open external tables: %w", err)
	}
	return r, nil
}

// Column is a column of an external table, or a partition key.
type Column struct {
	Name string
	Type *serde.Type
}

// Table is an external table as one version of its definition has it.
type Table struct {
	Name    catalog.Name
	Columns []Column // in the files
	Keys    []Column // of partitions; they follow Columns
	// Version changes whenever the definition does.
	Version string

	r          *Reader
	definition *hive.Table
}

// Table reads a definition. The error is an *Error that says what is not
// supported of it.
func (r *Reader) Table(e *catalog.External) (*Table, error) {
	t := &Table{Name: e.Name, Version: fmt.Sprintf("%s/%d", e.ID, e.Version), r: r, definition: &e.Definition}
	if err := t.supported(); err != nil {
		return nil, err
	}
	s := e.Definition.Storage
	if s == nil {
		return nil, fail(ErrDefinition, "give it columns, a location and a SerDe", "external table %s has no storage descriptor", e.Name)
	}
	if len(s.Columns)+len(e.Definition.PartitionKeys) > columnsMax {
		return nil, fail(ErrLimit, "", "external table %s has more than %d columns", e.Name, columnsMax)
	}
	seen := map[string]bool{}
	read := func(what string, columns []hive.Column) (out []Column, err error) {
		for _, c := range columns {
			typ, err := serde.ParseType(c.Type)
			if err != nil {
				return nil, fail(ErrDefinition, "docs/external-tables.md lists the types", "external table %s: %s %q: %v", e.Name, what, c.Name, err)
			}
			if lower := strings.ToLower(c.Name); seen[lower] || lower == "" {
				return nil, fail(ErrDefinition, "give it another name", "external table %s: the %s %q stands twice or has no name", e.Name, what, c.Name)
			} else {
				seen[lower] = true
			}
			out = append(out, Column{c.Name, typ})
		}
		return out, nil
	}
	var err error
	if t.Columns, err = read("column", s.Columns); err != nil {
		return nil, err
	}
	if t.Keys, err = read("partition key", e.Definition.PartitionKeys); err != nil {
		return nil, err
	}
	for _, k := range t.Keys {
		switch k.Type.Kind {
		case serde.Float, serde.Double, serde.Binary, serde.Array, serde.Map, serde.Struct:
			return nil, fail(ErrUnsupported, "declare it as string", "external table %s: a partition key of type %s, as %q is, is not supported", e.Name, k.Type, k.Name)
		}
	}
	if len(t.Columns) == 0 {
		return nil, fail(ErrDefinition, "declare the columns of its files", "external table %s has no columns", e.Name)
	}
	f, err := t.format(s, nil)
	if err != nil {
		return nil, err
	}
	if f.kind != parquet {
		if _, err := t.converter(f); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// supported refuses by name the kinds of tables whose rows are not those of the
// files below the location.
func (t *Table) supported() error {
	parameter := func(key string) string {
		for k, v := range t.definition.Parameters {
			if strings.EqualFold(k, key) {
				return strings.ToLower(v)
			}
		}
		return ""
	}
	refuse := func(what, instead string) error {
		return fail(ErrUnsupported, instead, "external table %s is %s, which is not supported", t.Name, what)
	}
	switch {
	case t.definition.Type == hive.VirtualView:
		return refuse("a view of Hive's", "query the tables that it reads")
	case parameter(hive.ParamTableType) == "iceberg":
		return refuse("a table of Iceberg's that another catalog commits to", "register its metadata file as a table, through the Iceberg REST API")
	case parameter(hive.ParamTableType) == "delta", parameter("spark.sql.sources.provider") == "delta":
		return refuse("a Delta Lake table", "convert it to Iceberg, or write it as plain Parquet")
	case parameter("spark.sql.sources.provider") == "hudi", parameter("hudi.metadata-listing-enabled") != "":
		return refuse("a Hudi table", "convert it to Iceberg, or write it as plain Parquet")
	case parameter("projection.enabled") == "true":
		return refuse("one with partition projection", "register its partitions, or crawl it")
	case parameter("transactional") == "true":
		return refuse("a transactional table of Hive's", "write it as plain Parquet")
	}
	return nil
}
