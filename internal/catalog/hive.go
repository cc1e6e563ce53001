package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/hive"
	"github.com/tapehouse/tapehouse/internal/serde"
)

// PropertyComment is the property that holds a table's, or a namespace's,
// description, as Iceberg's catalogs over Glue have it.
const PropertyComment = "comment"

// propertyOurs begins the names of properties that no client sets through Hive's model.
const propertyOurs = "tapehouse."

// The parameters by which a column of Hive's model says which field it is.
const (
	paramFieldID       = "iceberg.field.id"
	paramFieldOptional = "iceberg.field.optional"
	paramFieldCurrent  = "iceberg.field.current"
)

// MetadataVersion counts the table's commits: each one raises it.
func (t *Table) MetadataVersion() int { return metadataVersion(t.pointer) }

// Hive describes the table as catalogs of Hive's model show tables of Iceberg's:
// the columns of the current schema in Hive's types, and the place of its metadata.
// It has no partition keys, because Iceberg's partitions are not Hive's. The
// result is the caller's.
func (t *Table) Hive() hive.Table {
	out := hive.Table{
		Description: t.Properties[PropertyComment], Type: hive.ExternalTable,
		Storage:    &hive.Storage{Location: t.Location},
		Parameters: map[string]string{hive.ParamTableType: "ICEBERG", hive.ParamMetadata: t.pointer},
	}
	for f := range t.meta.PreviousFiles() {
		out.Parameters[hive.ParamFormerMetadata] = f.MetadataFile // the last is the newest
	}
	for k, v := range t.Properties {
		_, taken := out.Parameters[k]
		if standard, ok := defaultProperties[k]; !taken && k != PropertyComment && !strings.HasPrefix(k, propertyOurs) && (!ok || v != standard) {
			out.Parameters[k] = v
		}
	}
	for _, f := range t.meta.CurrentSchema().Fields() {
		out.Storage.Columns = append(out.Storage.Columns, hive.Column{Name: f.Name, Type: hiveType(f.Type), Comment: f.Doc, Parameters: map[string]string{
			paramFieldID: strconv.Itoa(f.ID), paramFieldOptional: strconv.FormatBool(!f.Required), paramFieldCurrent: "true",
		}})
	}
	return out
}

// hiveType spells an Iceberg type as Hive does. What Hive has not is a string, and
// a timestamp has no zone.
func hiveType(t iceberg.Type) string {
	switch t := t.(type) {
	case iceberg.BooleanType:
		return "boolean"
	case iceberg.Int32Type:
		return "int"
	case iceberg.Int64Type:
		return "bigint"
	case iceberg.Float32Type:
		return "float"
	case iceberg.Float64Type:
		return "double"
	case iceberg.DateType:
		return "date"
	case iceberg.TimestampType, iceberg.TimestampTzType, iceberg.TimestampNsType, iceberg.TimestampTzNsType:
		return "timestamp"
	case iceberg.BinaryType, iceberg.FixedType:
		return "binary"
	case iceberg.DecimalType:
		return fmt.Sprintf("decimal(%d,%d)", t.Precision(), t.Scale())
	case *iceberg.ListType:
		return "array<" + hiveType(t.Element) + ">"
	case *iceberg.MapType:
		return "map<" + hiveType(t.KeyType) + "," + hiveType(t.ValueType) + ">"
	case *iceberg.StructType:
		fields := make([]string, len(t.FieldList))
		for i, f := range t.FieldList {
			fields[i] = f.Name + ":" + hiveType(f.Type)
		}
		return "struct<" + strings.Join(fields, ",") + ">"
	}
	return "string"
}

// icebergTypes spells the scalars of Hive's types as Iceberg does.
var icebergTypes = map[serde.Kind]string{
	serde.Boolean: "boolean", serde.TinyInt: "int", serde.SmallInt: "int", serde.Int: "int", serde.BigInt: "long", serde.Float: "float", serde.Double: "double",
	serde.String: "string", serde.Varchar: "string", serde.Char: "string", serde.Binary: "binary", serde.Date: "date", serde.Timestamp: "timestamp",
}

// icebergType spells a Hive type as Iceberg's JSON does. next gives field ids,
// which are assigned anew when the table is made.
func icebergType(t *serde.Type, next func() int) any {
	switch t.Kind {
	case serde.Decimal:
		return fmt.Sprintf("decimal(%d, %d)", t.Precision, t.Scale)
	case serde.Array:
		return map[string]any{"type": "list", "element-id": next(), "element": icebergType(t.Element, next), "element-required": false}
	case serde.Map:
		return map[string]any{"type": "map", "key-id": next(), "key": icebergType(t.Key, next), "value-id": next(), "value": icebergType(t.Element, next), "value-required": false}
	case serde.Struct:
		fields := make([]map[string]any, len(t.Fields))
		for i, f := range t.Fields {
			fields[i] = map[string]any{"id": next(), "name": f.Name, "required": false, "type": icebergType(f.Type, next)}
		}
		return map[string]any{"type": "struct", "fields": fields}
	}
	return icebergTypes[t.Kind]
}

// CreateHiveTable makes a table of Iceberg's out of a definition in Hive's model:
// its columns, then its partition keys, of which there is none or one, a date. The
// parameters become properties. Errors are those of CreateTable, and ErrNotFound
// if there is no such namespace.
func (c *Catalog) CreateHiveTable(ctx context.Context, name Name, def *hive.Table) (*Table, error) {
	if err := errors.Join(name.check(), c.usable(true)); err != nil {
		return nil, err
	}
	spec := TableSpec{Name: name, Properties: map[string]string{}}
	for k, v := range def.Parameters {
		switch {
		case k == hive.ParamTableType, k == hive.ParamMetadata, k == hive.ParamFormerMetadata:
		case strings.HasPrefix(k, propertyOurs), k == PropertyComment:
			return nil, fmt.Errorf("%w table %s: the parameter %s is not a client's to set", ErrInvalid, name, k)
		default:
			spec.Properties[k] = v
		}
	}
	if def.Description != "" {
		spec.Properties[PropertyComment] = def.Description
	}
	if v := def.Parameters["format-version"]; v != "" && v != "2" {
		return nil, fmt.Errorf("%w: table %s of format version %s: want 2", ErrUnsupported, name, v)
	}
	var columns []hive.Column
	if def.Storage != nil {
		columns = append(columns, def.Storage.Columns...)
	}
	columns = append(columns, def.PartitionKeys...)
	id := columnsMax
	for _, col := range columns {
		t, err := serde.ParseType(col.Type)
		if err != nil {
			return nil, fmt.Errorf("%w table %s: column %q: %w", ErrInvalid, name, col.Name, err)
		}
		text, err := json.Marshal(icebergType(t, func() int { id++; return id }))
		if err != nil {
			return nil, fmt.Errorf("create table %s: %w", name, err)
		}
		spec.Columns = append(spec.Columns, Column{Name: col.Name, Type: strings.Trim(string(text), `"`)})
	}
	switch keys := def.PartitionKeys; {
	case len(keys) > 1 || len(keys) == 1 && spec.Columns[len(columns)-1].Type != "date":
		return nil, fmt.Errorf("%w: table %s: want no partition key, or one of type date", ErrUnsupported, name)
	case len(keys) == 1:
		spec.PartitionBy = keys[0].Name
	}
	sc, err := spec.schema()
	if err != nil {
		return nil, err
	}
	fields := sc.Fields()
	for i := range fields {
		fields[i].Doc = columns[i].Comment
	}
	sc = iceberg.NewSchema(0, fields...)
	properties, err := spec.properties()
	if err != nil {
		return nil, err
	}
	partition, err := spec.partition(sc)
	if err != nil {
		return nil, err
	}
	if ok, err := namespaceExists(ctx, c.reader, name.Namespace); err != nil || !ok {
		return nil, errors.Join(err, fmt.Errorf("namespace %s: %w", name.Namespace, ErrNotFound))
	}
	uid := uuid.New()
	meta, err := table.NewMetadataWithUUID(sc, partition, table.UnsortedSortOrder, c.defaultLocation(name, uid), properties, uid)
	if err != nil {
		return nil, fmt.Errorf("create table %s: %w", name, err)
	}
	return c.createTable(ctx, name, meta)
}

// CommitMetadata makes the metadata file at next, which a client wrote below the
// table's location on the base of the one at previous, the table's state: the
// commit of Iceberg's clients of catalogs that keep a pointer alone. The catalog
// writes a copy of its own, because nobody knows whether the client's is durable.
//
// With addOnly, for a table that streams feed or views read, next may add
// snapshots to the current one and change nothing else that they stand on.
//
// *ConflictError if previous is not the current state, or if next has not its
// progress, its tags and all other properties of this program; ErrInvalid if next
// is not of this table, or cannot be read; ErrUnsupported if addOnly forbids it;
// ErrNotFound, ErrFenced, ErrPoisoned.
func (c *Catalog) CommitMetadata(ctx context.Context, name Name, previous, next string, addOnly bool) (*Table, error) {
	if err := c.usable(true); err != nil {
		return nil, err
	}
	unlock, err := c.lock(ctx, []Name{name})
	if err != nil {
		return nil, err
	}
	defer unlock()
	t, err := c.Load(ctx, name)
	if err != nil {
		return nil, err
	}
	if t.pointer != previous {
		return nil, &ConflictError{name.String(), "metadata", previous, t.pointer}
	}
	if !strings.HasPrefix(next, t.Location+"/") {
		return nil, fmt.Errorf("%w commit of %s: the metadata %s does not lie below the table's location %s", ErrInvalid, name, next, t.Location)
	}
	b, err := c.readFile(ctx, next)
	if err == nil && len(b) > 1 && b[0] == 0x1f && b[1] == 0x8b {
		b, err = gunzip(b)
	}
	var meta table.Metadata
	if err == nil {
		meta, err = table.ParseMetadataBytes(b)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("%w commit of %s: read the metadata %s: %w", ErrInvalid, name, next, err)
	}
	if err := c.succeeds(t, meta); err != nil {
		return nil, err
	}
	if addOnly {
		if err := adds(t, meta); err != nil {
			return nil, err
		}
	}
	s := c.newStaging(ctx)
	pointer, err := writeMetadata(s, meta, metadataVersion(t.pointer)+1)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", name, err)
	}
	after, err := c.newTable(name, pointer, meta)
	if err != nil {
		return nil, err
	}
	out, err := c.swap(ctx, []*stagedCommit{{before: t, after: after, staging: s, write: []string{pointer}}}, nil, nil)
	if errors.Is(err, errMoved) {
		return nil, &ConflictError{name.String(), "metadata", previous, "moved by another writer"}
	}
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// succeeds checks that metadata is a later state of the table.
func (c *Catalog) succeeds(t *Table, meta table.Metadata) error {
	last := ""
	for f := range meta.PreviousFiles() {
		last = f.MetadataFile
	}
	refs := maps.Collect(meta.Refs())
	switch {
	case meta.TableUUID() != t.UUID, strings.TrimSuffix(meta.Location(), "/") != t.Location:
		return fmt.Errorf("%w commit of %s: the metadata is of another table, %s at %s", ErrInvalid, t.Name, meta.TableUUID(), meta.Location())
	case meta.Version() != t.meta.Version():
		return fmt.Errorf("%w commit of %s: format version %d, want %d", ErrInvalid, t.Name, meta.Version(), t.meta.Version())
	case last != t.pointer:
		return &ConflictError{t.Name.String(), "metadata", "made from " + t.pointer, "made from " + last}
	case meta.LastSequenceNumber() < t.meta.LastSequenceNumber(), meta.LastColumnID() < t.meta.LastColumnID():
		return fmt.Errorf("%w commit of %s: the metadata is older than the table's", ErrInvalid, t.Name)
	}
	before, after := t.Properties, meta.Properties()
	for _, properties := range []map[string]string{before, after} {
		for k := range properties {
			if strings.HasPrefix(k, propertyOurs) && before[k] != after[k] {
				return &ConflictError{t.Name.String(), "property", k + "=" + before[k], after[k]}
			}
		}
	}
	for tag, id := range t.Tags() {
		if ref, ok := refs[tag]; !ok || ref.SnapshotRefType != table.TagRef || ref.SnapshotID != id || meta.SnapshotByID(id) == nil {
			return &ConflictError{t.Name.String(), "tag", tag + "=" + strconv.FormatInt(id, 10), "dropped or moved"}
		}
	}
	return nil
}

// adds checks that metadata adds snapshots to a table's state, and changes neither
// its columns nor its partitions nor what it was.
func adds(t *Table, meta table.Metadata) error {
	unsupported := func(what string) error {
		return fmt.Errorf("%w: a commit of %s, which streams feed or views read, that %s", ErrUnsupported, t.Name, what)
	}
	before, after := t.meta, meta
	for _, s := range before.Schemas() {
		if !slices.ContainsFunc(after.Schemas(), func(o *iceberg.Schema) bool { return o.ID == s.ID && o.Equals(s) }) {
			return unsupported("changes its schemas")
		}
	}
	switch {
	case after.CurrentSchema().ID != before.CurrentSchema().ID, len(after.Schemas()) != len(before.Schemas()):
		return unsupported("changes its schema")
	case after.DefaultPartitionSpec() != before.DefaultPartitionSpec(), after.DefaultSortOrder() != before.DefaultSortOrder():
		return unsupported("changes its partitions or its order")
	}
	for _, s := range before.Snapshots() {
		if after.SnapshotByID(s.SnapshotID) == nil {
			return unsupported("drops snapshots")
		}
	}
	for s := after.CurrentSnapshot(); t.current != 0 && (s == nil || s.SnapshotID != t.current); {
		if s == nil || s.ParentSnapshotID == nil {
			return unsupported("goes back behind its current snapshot")
		}
		s = after.SnapshotByID(*s.ParentSnapshotID)
	}
	return nil
}
