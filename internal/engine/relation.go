package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/tapehouse/tapehouse/internal/record"
)

// pinSchema holds the views of pinned relations. No statement can name it:
// table references are resolved through a pin.
const pinSchema = "tapehouse_pin"

// Name is a table's name.
type Name struct{ Namespace, Table string }

func (n Name) String() string { return n.Namespace + "." + n.Table }

// At chooses a state of a table: a snapshot, or the one that a tag names. The
// zero value is the current state with its tail.
type At struct {
	Snapshot int64
	Tag      string
}

// IsZero reports whether a is the current state.
func (a At) IsZero() bool { return a == At{} }

// File is one immutable Parquet file.
type File struct {
	Path               string // local, absolute; or a location that Options.Files knows
	Rows               int64
	SchemaID           int
	PartitionTradeDate *int32 // days since 1970-01-01 that all rows have; nil: no such partition
	// Deletes are paths of Iceberg position-delete files (columns
	// file_path and pos). URI is the name by which they call this file; ""
	// means Path.
	Deletes []string
	URI     string
	Ranges  Ranges // nil: nothing is known of the columns
	// Fleeting is set for a file that will be deleted soon: what is in its footer
	// is not kept.
	Fleeting bool
	// Foreign is set for a file that others wrote; Constants are the values of the
	// fields that it has no column for.
	Foreign   *Foreign
	Constants []Constant
	// Order is the file's place among those that Removals come between: a removal
	// takes rows away from files of a lower one. Data files have 0.
	Order int
}

// Removal is a local Parquet file of keys, none of them null: rows with one of
// them are gone from the files before it.
type Removal struct {
	Path     string
	Order    int // from 1
	SchemaID int
	Rows     int64
}

// Relation is what a table reference stands for: a schema over files. Columns
// are found in the files by field id, so that files written under a former
// schema read right: a missing column is NULL, a promoted type is cast, a
// dropped one is not seen.
type Relation struct {
	Schema record.Schema
	// Types overrides the DuckDB type of Schema.Fields[i] where it is not "":
	// for tables whose types a stream cannot have.
	Types []string
	// ByName is set for foreign files, which have no field ids: columns are
	// found by name, and a hive partition (key=value in the path) is a column.
	ByName bool
	// PartitionBy is the date column whose value File.PartitionTradeDate is; "":
	// none. Conditions on it choose the files that a statement brings here.
	PartitionBy string
	Files       []File
	// Keys are the columns of Removals.
	Keys     []string
	Removals []Removal
	// Positions adds the columns PositionFile and PositionRow, by which position
	// deletes call a row. Not together with Removals.
	Positions bool
	// Source finds the files, all of which are foreign, when a statement reads them;
	// Files is empty then. Conditions on the fields whose values a partition's
	// Ranges give choose the partitions.
	Source Source
	// Hidden is how many of the last fields only stand in the relation when a
	// statement names one of them.
	Hidden int

	places []int // of the fields among Foreign.Columns and File.Constants; nil: all in order
}

// columnType is the DuckDB type of field i.
func (r *Relation) columnType(i int) string {
	if i < len(r.Types) && r.Types[i] != "" {
		return r.Types[i]
	}
	return TypeOf(r.Schema.Fields[i].Type).SQL()
}

// paths lists every file that a query of r may open.
func (r *Relation) paths() []string {
	var out []string
	for i := range r.Files {
		out = append(out, r.Files[i].Path)
		out = append(out, r.Files[i].Deletes...)
	}
	for i := range r.Removals {
		out = append(out, r.Removals[i].Path)
	}
	return out
}

// localized is r with its files where f has them while they are held, and the
// paths of those that must be.
func localized(r Relation, f Files) (local Relation, remote []string) {
	if f == nil {
		return r, nil
	}
	place := func(path string) string {
		if at, ok := f.Local(path); ok {
			remote = append(remote, path)
			return at
		}
		return path
	}
	files := make([]File, len(r.Files))
	for i, x := range r.Files {
		if x.URI == "" {
			x.URI = x.Path // by which position deletes call it
		}
		x.Path = place(x.Path)
		x.Deletes = slices.Clone(x.Deletes)
		for j, d := range x.Deletes {
			x.Deletes[j] = place(d)
		}
		files[i] = x
	}
	if len(remote) == 0 {
		return r, nil
	}
	r.Files = files
	return r, remote
}

// identity is a hash of everything that viewSQL depends on.
func (r *Relation) identity() string {
	h := sha256.New()
	r.hashColumns(h)
	for i := range r.Files {
		hashLine(h, r.Files[i].Path, r.Files[i].URI)
		hashLine(h, r.Files[i].Deletes...)
		hashLine(h, strconv.Itoa(r.Files[i].Order))
		for _, c := range r.Files[i].Constants {
			hashLine(h, c.Text, strconv.FormatBool(c.Null))
		}
	}
	for i := range r.Removals {
		hashLine(h, r.Removals[i].Path, strconv.Itoa(r.Removals[i].Order))
	}
	hashLine(h, r.Keys...)
	hashLine(h, strconv.FormatBool(r.Positions))
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// shape is a hash of the columns: what statements are rewritten by.
func (r *Relation) shape() string {
	h := sha256.New()
	r.hashColumns(h)
	return hex.EncodeToString(h.Sum(nil)[:12])
}

func (r *Relation) hashColumns(w io.Writer) {
	hashLine(w, strconv.FormatBool(r.ByName))
	for i, f := range r.Schema.Fields {
		hashLine(w, strconv.Itoa(f.ID), f.Name, r.columnType(i))
	}
}

func hashLine(w io.Writer, parts ...string) {
	for _, p := range parts {
		_, _ = io.WriteString(w, strconv.Itoa(len(p))+":"+p) // a hash never fails
	}
	_, _ = io.WriteString(w, "\n")
}

// QuoteIdentifier is name as a quoted SQL identifier.
func QuoteIdentifier(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// QuoteLiteral is s as an SQL string.
func QuoteLiteral(s string) string { return `'` + strings.ReplaceAll(s, `'`, `''`) + `'` }

// viewSQL is the SELECT that a pinned relation stands for. A relation without
// files gives typed columns and no rows.
func (r *Relation) viewSQL() (string, error) {
	if len(r.Schema.Fields) == 0 {
		return "", &Error{Kind: Catalog, Message: "the relation has no columns"}
	}
	for i, f := range r.Schema.Fields {
		if r.columnType(i) == "" {
			return "", &Error{Kind: Unsupported, Message: "column " + strconv.Quote(f.Name) + " has the type " + f.Type.String() + ", which has no DuckDB type"}
		}
	}
	if r.Source != nil {
		return "", &Error{Kind: Internal, Message: "the files of a foreign relation were not looked for"}
	}
	if r.foreign() {
		return r.foreignSQL(), nil
	}
	if len(r.Removals) > 0 && len(r.Files) > 0 {
		return r.removedSQL()
	}
	if r.Positions && len(r.Files) > 0 {
		return r.positionsSQL(), nil
	}
	if len(r.Files) == 0 {
		var b strings.Builder
		b.WriteString("SELECT ")
		for i, f := range r.Schema.Fields {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "CAST(NULL AS %s) AS %s", r.columnType(i), QuoteIdentifier(f.Name))
		}
		b.WriteString(" WHERE false")
		return b.String(), nil
	}
	var plain, deleted []File
	for _, f := range r.Files {
		if len(f.Deletes) > 0 {
			deleted = append(deleted, f)
		} else {
			plain = append(plain, f)
		}
	}
	var parts []string
	if len(plain) > 0 {
		parts = append(parts, "SELECT "+r.projection("")+" FROM "+r.scan(plain, false))
	}
	if len(deleted) > 0 {
		parts = append(parts, r.deleteJoin(deleted))
	}
	return strings.Join(parts, " UNION ALL "), nil
}

func (r *Relation) projection(alias string) string {
	var b strings.Builder
	for i, f := range r.Schema.Fields {
		if i > 0 {
			b.WriteString(", ")
		}
		q := alias + QuoteIdentifier(f.Name)
		if r.ByName {
			fmt.Fprintf(&b, "CAST(%s AS %s) AS %s", q, r.columnType(i), QuoteIdentifier(f.Name))
		} else {
			b.WriteString(q)
		}
	}
	return b.String()
}

// The columns that a scan adds to match position deletes. A table may have
// columns called filename or file_row_number: then it cannot have deletes.
const (
	scanFile = "filename"
	scanRow  = "file_row_number"
)

// scan is the table function over files.
func (r *Relation) scan(files []File, positions bool) string {
	var b strings.Builder
	b.WriteString("read_parquet([")
	var rows int64
	for i := range files {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(QuoteLiteral(files[i].Path))
		rows += files[i].Rows
	}
	b.WriteByte(']')
	if r.ByName {
		b.WriteString(", union_by_name=true, hive_partitioning=true, hive_types_autocast=false)")
		return b.String()
	}
	b.WriteString(", hive_partitioning=false, schema=MAP {")
	for i, f := range r.Schema.Fields {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d: {name: %s, type: %s, default_value: NULL}", f.ID, QuoteLiteral(f.Name), QuoteLiteral(r.columnType(i)))
	}
	b.WriteByte('}')
	if rows > 0 {
		// Known counts spare the planner a guess from the first file's size.
		fmt.Fprintf(&b, ", explicit_cardinality=%d", rows)
	}
	if positions {
		fmt.Fprintf(&b, ", filename=true, file_row_number=true")
	}
	b.WriteByte(')')
	return b.String()
}

// deleteJoin scans files without the rows that their position deletes name.
func (r *Relation) deleteJoin(files []File) string {
	seen := map[string]bool{}
	var deletes, uris strings.Builder
	for i, f := range files {
		for _, d := range f.Deletes {
			if !seen[d] {
				if len(seen) > 0 {
					deletes.WriteByte(',')
				}
				seen[d] = true
				deletes.WriteString(QuoteLiteral(d))
			}
		}
		if i > 0 {
			uris.WriteByte(',')
		}
		uri := f.URI
		if uri == "" {
			uri = f.Path
		}
		fmt.Fprintf(&uris, "(%s,%s)", QuoteLiteral(f.Path), QuoteLiteral(uri))
	}
	return "SELECT " + r.projection("d.") + " FROM " + r.scan(files, true) + " AS d ANTI JOIN (SELECT u.path AS path, p.pos AS pos FROM read_parquet([" + deletes.String() +
		"], hive_partitioning=false) AS p JOIN (VALUES " + uris.String() + ") AS u(path, uri) ON p.file_path = u.uri) AS x ON d." + scanFile + " = x.path AND d." + scanRow + " = x.pos"
}
