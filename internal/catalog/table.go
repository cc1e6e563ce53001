package catalog

import (
	"bytes"
	"compress/gzip"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/record"
)

// Name names a table.
type Name struct{ Namespace, Table string }

// String is "namespace.table".
func (n Name) String() string { return n.Namespace + "." + n.Table }

func compareNames(a, b Name) int {
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	return strings.Compare(a.Table, b.Table)
}

// A name becomes part of object names, so its characters are those of lake names.
var nameRE = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_-]{0,127}$`)

func checkNamespace(ns string) error {
	if !nameRE.MatchString(ns) {
		return fmt.Errorf("%w namespace %q: want 1 to 128 of a-z A-Z 0-9 _ -, not beginning with -", ErrInvalid, ns)
	}
	return nil
}

func (n Name) check() error {
	if err := checkNamespace(n.Namespace); err != nil {
		return err
	}
	if !nameRE.MatchString(n.Table) {
		return fmt.Errorf("%w table name %q: want 1 to 128 of a-z A-Z 0-9 _ -, not beginning with -", ErrInvalid, n.Table)
	}
	return nil
}

// Table is a table's state when it was loaded. It never changes; its maps and
// slices are shared and must not be modified.
type Table struct {
	Name        Name
	UUID        uuid.UUID
	Location    string // URI of the table's directory
	Properties  map[string]string
	Schema      record.Schema          // the columns that record can express
	Columns     []Column               // every column, in order
	Sequence    record.SequenceColumns // zero if the records are not numbered
	PartitionBy string                 // the Date column of the identity partition, or ""

	meta     table.Metadata
	pointer  string // metadata location
	current  int64  // snapshot
	through  record.Vector
	schemas  map[int]record.Schema
	prefix   string // lake name of Location, "" if outside
	specDate int    // partition field id of PartitionBy
}

// Snapshot is the current snapshot's id; 0 when there is none yet.
func (t *Table) Snapshot() int64 { return t.current }

// UpdatedAt is when this state was committed, by the committer's clock.
func (t *Table) UpdatedAt() time.Time { return time.UnixMilli(t.meta.LastUpdatedMillis()).UTC() }

// Through is the progress of the streams that feed the table: it contains every
// record below it. The caller must not modify it.
func (t *Table) Through() record.Vector { return t.through }

// SchemaByID returns a former or the current schema.
func (t *Table) SchemaByID(id int) (record.Schema, bool) {
	s, ok := t.schemas[id]
	return s, ok
}

// FormerSchemas returns the schemas that the table had before, oldest first.
func (t *Table) FormerSchemas() []record.Schema {
	var out []record.Schema
	for _, id := range slices.Sorted(maps.Keys(t.schemas)) {
		if id != t.Schema.ID {
			out = append(out, t.schemas[id])
		}
	}
	return out
}

// ColumnsByID returns every column of a former or the current schema.
func (t *Table) ColumnsByID(id int) ([]Column, bool) {
	for _, s := range t.meta.Schemas() {
		if s.ID == id {
			return columnsOf(s), true
		}
	}
	return nil, false
}

// Foreign lists the columns whose type record cannot express.
func (t *Table) Foreign() []Column {
	var out []Column
	for _, c := range t.Columns {
		if t.Schema.Index(c.Name) < 0 {
			out = append(out, c)
		}
	}
	return out
}

// DataDir is the lake name under which the table's data files are put, without a
// trailing '/'. It is "" for a table that lies outside the lake.
func (t *Table) DataDir() string {
	if t.prefix == "" {
		return ""
	}
	return t.prefix + "/data"
}

// Snapshot describes one retained snapshot.
type Snapshot struct {
	ID, Parent  int64 // Parent is 0 for the first
	CommittedAt time.Time
	Operation   string // append, replace, overwrite, delete
	SchemaID    int    // -1 if not recorded
	Summary     map[string]string
}

// Snapshots lists the retained snapshots, in order of commit.
func (t *Table) Snapshots() []Snapshot {
	all := t.meta.Snapshots()
	out := make([]Snapshot, len(all))
	for i := range all {
		out[i] = snapshotOf(&all[i])
	}
	return out
}

func snapshotOf(s *table.Snapshot) Snapshot {
	out := Snapshot{ID: s.SnapshotID, CommittedAt: time.UnixMilli(s.TimestampMs).UTC(), SchemaID: -1}
	if s.ParentSnapshotID != nil {
		out.Parent = *s.ParentSnapshotID
	}
	if s.SchemaID != nil {
		out.SchemaID = *s.SchemaID
	}
	if s.Summary != nil {
		out.Operation, out.Summary = string(s.Summary.Operation), s.Summary.Properties
	}
	return out
}

// Tags returns the table's tags and the snapshots that they keep.
func (t *Table) Tags() map[string]int64 {
	tags := make(map[string]int64)
	for name, ref := range t.meta.Refs() {
		if ref.SnapshotRefType == table.TagRef {
			tags[name] = ref.SnapshotID
		}
	}
	return tags
}

// At selects a state of a table: a snapshot, a tag, or, when zero, the current.
type At struct {
	SnapshotID int64
	Tag        string
}

// Resolve returns the id of the snapshot that at selects, 0 for the current
// state of a table that has none. ErrNotFound if it does not exist (any more).
func (t *Table) Resolve(at At) (int64, error) {
	switch {
	case at.Tag != "" && at.SnapshotID != 0:
		return 0, fmt.Errorf("%w: both snapshot %d and tag %q", ErrInvalid, at.SnapshotID, at.Tag)
	case at.Tag != "":
		id, ok := t.Tags()[at.Tag]
		if !ok {
			return 0, fmt.Errorf("table %s: tag %q: %w", t.Name, at.Tag, ErrNotFound)
		}
		return id, nil
	case at.SnapshotID != 0:
		if t.meta.SnapshotByID(at.SnapshotID) == nil {
			return 0, fmt.Errorf("table %s: snapshot %d: %w", t.Name, at.SnapshotID, ErrNotFound)
		}
		return at.SnapshotID, nil
	}
	return t.Snapshot(), nil
}

// ThroughAt is the progress that a snapshot carries. Snapshots of other writers
// carry none; theirs is that of the nearest ancestor that does.
func (t *Table) ThroughAt(at At) (record.Vector, error) {
	id, err := t.Resolve(at)
	if err != nil {
		return nil, err
	}
	if at == (At{}) {
		return t.through, nil
	}
	for s := t.meta.SnapshotByID(id); s != nil; s = t.parent(s) {
		if s.Summary != nil {
			if v, ok := s.Summary.Properties[PropertyThrough]; ok {
				return record.ParseVector(v)
			}
		}
	}
	return record.Vector{}, nil
}

func (t *Table) parent(s *table.Snapshot) *table.Snapshot {
	if s.ParentSnapshotID == nil {
		return nil
	}
	return t.meta.SnapshotByID(*s.ParentSnapshotID)
}

// newTable reads what this program needs from Iceberg's metadata.
func (c *Catalog) newTable(name Name, pointer string, meta table.Metadata) (*Table, error) {
	t := &Table{
		Name: name, UUID: meta.TableUUID(), Location: strings.TrimSuffix(meta.Location(), "/"), Properties: meta.Properties(),
		Columns: columnsOf(meta.CurrentSchema()), meta: meta, pointer: pointer, schemas: make(map[int]record.Schema),
	}
	t.prefix, _ = c.store.Name(t.Location)
	if s := meta.CurrentSnapshot(); s != nil {
		t.current = s.SnapshotID
	}
	var err error
	if t.through, err = record.ParseVector(t.Properties[PropertyThrough]); err != nil {
		return nil, fmt.Errorf("table %s: property %s: %w", name, PropertyThrough, err)
	}
	if t.Sequence, err = parseSequence(t.Properties[PropertySequence]); err != nil {
		return nil, fmt.Errorf("table %s: %w", name, err)
	}
	for _, s := range meta.Schemas() {
		rs, err := recordSchema(s, meta.Properties())
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", name, err)
		}
		t.schemas[s.ID] = rs
	}
	t.Schema = t.schemas[meta.CurrentSchema().ID]
	spec := meta.PartitionSpec()
	if spec.NumFields() == 1 {
		f := spec.Field(0)
		if _, identity := f.Transform.(iceberg.IdentityTransform); identity && len(f.SourceIDs) == 1 {
			if source, ok := meta.CurrentSchema().FindFieldByID(f.SourceIDs[0]); ok && source.Type.Equals(iceberg.PrimitiveTypes.Date) {
				t.PartitionBy, t.specDate = source.Name, f.FieldID
			}
		}
	}
	return t, nil
}

// Load returns the table's current state.
func (c *Catalog) Load(ctx context.Context, name Name) (*Table, error) {
	ts, err := c.LoadAll(ctx, []Name{name})
	if err != nil {
		return nil, err
	}
	return ts[0], nil
}

// LoadAll returns the state of several tables at one instant: tables that one
// commit wrote are all from before it or all from after it.
func (c *Catalog) LoadAll(ctx context.Context, names []Name) ([]*Table, error) {
	if err := c.usable(false); err != nil {
		return nil, err
	}
	// An old pointer's metadata file may be deleted between our reading the
	// pointer and the file: then the pointer has moved, and we read it again.
	for try := 1; ; try++ {
		pointers, err := c.pointers(ctx, names)
		if err != nil {
			return nil, err
		}
		out := make([]*Table, len(names))
		for i, n := range names {
			if out[i], err = c.tableAt(ctx, n, pointers[i]); err != nil {
				break
			}
		}
		if err == nil {
			return out, nil
		}
		if try == loadTriesMax || !isNotFound(err) {
			return nil, err
		}
	}
}

const loadTriesMax = 5

func (c *Catalog) pointers(ctx context.Context, names []Name) (_ []string, err error) {
	tx, err := c.reader.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("load tables: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	out := make([]string, len(names))
	for i, n := range names {
		if out[i], err = pointer(ctx, tx, n); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// pointer reads one table's metadata location.
func pointer(ctx context.Context, tx *sql.Tx, n Name) (string, error) {
	var location sql.NullString
	err := tx.QueryRowContext(ctx, `SELECT metadata_location FROM iceberg_tables
		WHERE catalog_name = ? AND table_namespace = ? AND table_name = ?`, catalogName, n.Namespace, n.Table).Scan(&location)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "", fmt.Errorf("table %s: %w", n, ErrNotFound)
	case err != nil:
		return "", fmt.Errorf("load table %s: %w", n, err)
	}
	return location.String, nil
}

// tableAt returns the table that a metadata location describes.
func (c *Catalog) tableAt(ctx context.Context, name Name, location string) (*Table, error) {
	key := name.String() + "\x00" + location
	if t, ok := c.tables.get(key); ok {
		return t, nil
	}
	b, err := c.readFile(ctx, location)
	if err != nil {
		return nil, fmt.Errorf("load table %s: %w", name, err)
	}
	if strings.HasSuffix(location, ".gz.metadata.json") || bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
		if b, err = gunzip(b); err != nil {
			return nil, fmt.Errorf("load table %s: %s: %w", name, location, err)
		}
	}
	meta, err := table.ParseMetadataBytes(b)
	if err != nil {
		return nil, fmt.Errorf("load table %s: %s: %w", name, location, err)
	}
	t, err := c.newTable(name, location, meta)
	if err != nil {
		return nil, err
	}
	c.tables.put(key, t)
	return t, nil
}

// metadataBytesMax bounds a metadata file once decompressed.
const metadataBytesMax = 512 << 20

func gunzip(b []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(r, metadataBytesMax+1))
	if err == nil && len(out) > metadataBytesMax {
		err = fmt.Errorf("metadata above %d bytes", metadataBytesMax)
	}
	return out, err
}

// List returns the names of the namespace's tables, sorted. "" is all namespaces.
func (c *Catalog) List(ctx context.Context, namespace string) (_ []Name, err error) {
	if err := c.usable(false); err != nil {
		return nil, err
	}
	rows, err := c.reader.QueryContext(ctx, `SELECT table_namespace, table_name FROM iceberg_tables
		WHERE catalog_name = ? AND (? = '' OR table_namespace = ?)`, catalogName, namespace, namespace)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var out []Name
	for rows.Next() {
		var n Name
		if err := rows.Scan(&n.Namespace, &n.Table); err != nil {
			return nil, fmt.Errorf("list tables: %w", err)
		}
		out = append(out, n)
	}
	slices.SortFunc(out, compareNames)
	return out, rows.Err()
}
