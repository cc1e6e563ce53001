package glue

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tapehouse/tapehouse/internal/awsapi"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/hive"
)

const tablesPage = 100

// iceberg is the table_type of Iceberg's tables, in any case.
const iceberg = "ICEBERG"

// entry is a table: one of the two.
type entry struct {
	managed  *catalog.Table
	external *catalog.External
}

func (e entry) name() catalog.Name {
	if e.managed != nil {
		return e.managed.Name
	}
	return e.external.Name
}

// id is the table's identity, by which what hangs on it is kept.
func (e entry) id() string {
	if e.managed != nil {
		return e.managed.UUID.String()
	}
	return e.external.ID
}

// definition is the table in Hive's model.
func (e entry) definition() hive.Table {
	if e.managed != nil {
		return e.managed.Hive()
	}
	return e.external.Definition
}

// version is the table's VersionId: Glue's begin with 0.
func (e entry) version() string {
	if e.managed != nil {
		return strconv.Itoa(e.managed.MetadataVersion())
	}
	return versionID(e.external)
}

func versionID(e *catalog.External) string { return strconv.FormatInt(e.Version-1, 10) }

// tableOutput is Table.
type tableOutput struct {
	Name         string
	DatabaseName string
	CreateTime   *epoch `json:",omitempty"`
	UpdateTime   *epoch `json:",omitempty"`
	hive.Table
	PartitionKeys []hive.Column // shown also if there are none, as Glue does
	Registered    bool          `json:"IsRegisteredWithLakeFormation"`
	CatalogID     string        `json:"CatalogId"`
	VersionID     string        `json:"VersionId"`
}

func (h *Handler) show(e entry) tableOutput {
	n := e.name()
	out := tableOutput{Name: n.Table, DatabaseName: n.Namespace, Table: e.definition(), CatalogID: h.account, VersionID: e.version()}
	if out.PartitionKeys = out.Table.PartitionKeys; out.PartitionKeys == nil {
		out.PartitionKeys = []hive.Column{}
	}
	if e.managed != nil {
		out.UpdateTime = epochOf(e.managed.UpdatedAt())
	} else {
		out.CreateTime, out.UpdateTime = epochOf(e.external.CreatedAt), epochOf(e.external.UpdatedAt)
	}
	return out
}

// find returns a table.
func (h *Handler) find(ctx context.Context, database, table string) (entry, error) {
	for _, ns := range spellings(database) {
		for _, t := range spellings(table) {
			e, err := h.load(ctx, catalog.Name{Namespace: ns, Table: t})
			if !errors.Is(err, catalog.ErrNotFound) {
				return e, err
			}
		}
	}
	if _, _, err := h.findDatabase(ctx, database); err != nil {
		return entry{}, err
	}
	return entry{}, notFound("Table " + table + " not found.")
}

// load returns the table of exactly that name, or ErrNotFound.
func (h *Handler) load(ctx context.Context, name catalog.Name) (entry, error) {
	external, err := h.catalog.External(ctx, name)
	if err == nil {
		return entry{external: &external}, nil
	}
	if !errors.Is(err, catalog.ErrNotFound) {
		return entry{}, err
	}
	managed, err := h.catalog.Load(ctx, name)
	if err != nil {
		return entry{}, err
	}
	if h.guard.Hidden(managed) {
		return entry{}, catalog.ErrNotFound
	}
	return entry{managed: managed}, nil
}

// findExternal returns an external table, whose partitions are Hive's.
func (h *Handler) findExternal(ctx context.Context, database, table string) (*catalog.External, error) {
	e, err := h.find(ctx, database, table)
	if err == nil && e.external == nil {
		err = invalid("The table " + e.managed.Name.String() + " is an Iceberg table, which keeps its partitions in its own metadata: they come and go with its commits. Read them by an Iceberg client or by SQL.")
	}
	return e.external, err
}

// names lists the tables of a database, sorted: "" is all databases. State of views
// is among them.
func (h *Handler) names(ctx context.Context, database string) ([]catalog.Name, error) {
	names, err := h.catalog.List(ctx, database)
	if err != nil {
		return nil, err
	}
	external, err := h.catalog.ExternalNames(ctx, database)
	if err != nil {
		return nil, err
	}
	names = append(names, external...)
	slices.SortFunc(names, func(a, b catalog.Name) int {
		if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
			return c
		}
		return strings.Compare(a.Table, b.Table)
	})
	return names, nil
}

type tableInput struct {
	Name string
	hive.Table
}

type createTableInput struct {
	catalogOf
	DatabaseName         string
	Name                 string
	TableInput           *tableInput
	PartitionIndexes     []partitionIndex
	OpenTableFormatInput *struct {
		IcebergInput *struct{ Version string }
	}
}

func (h *Handler) createTable(ctx context.Context, c *awsapi.Call, in *createTableInput) (any, error) {
	if in.TableInput == nil {
		return nil, invalid("TableInput must not be null.")
	}
	if in.Name != "" && !strings.EqualFold(in.Name, in.TableInput.Name) {
		return nil, invalid("Name and TableInput.Name differ.")
	}
	database, _, err := h.findDatabase(ctx, in.DatabaseName)
	if err != nil {
		return nil, err
	}
	name := catalog.Name{Namespace: database, Table: strings.ToLower(in.TableInput.Name)}
	def := &in.TableInput.Table
	switch {
	case in.OpenTableFormatInput != nil && in.OpenTableFormatInput.IcebergInput != nil:
		if len(in.PartitionIndexes) > 0 {
			return nil, invalid("PartitionIndexes are for external tables: an Iceberg table keeps its partitions in its own metadata.")
		}
		return nil, h.createManaged(ctx, c, name, def, in.OpenTableFormatInput.IcebergInput.Version)
	case strings.EqualFold(def.Parameters[hive.ParamTableType], iceberg):
		return nil, invalid("A table with the parameter table_type=ICEBERG cannot be created by its metadata_location: use OpenTableFormatInput with the MetadataOperation CREATE, register it by Iceberg REST (/iceberg), or CREATE TABLE in SQL.")
	}
	if err := checkDefinition(def); err != nil {
		return nil, err
	}
	indexes, err := indexesOf(def, in.PartitionIndexes)
	if err != nil {
		return nil, err
	}
	err = h.catalog.ChangeExternals(ctx, []catalog.ExternalChange{{Table: name, IfVersion: 0, Define: def}})
	if errors.Is(err, catalog.ErrExists) {
		return nil, awsapi.BadRequest(codeExists, "Table already exists.")
	}
	if err != nil {
		return nil, err
	}
	h.log(c, "glue table created", "table", name.String())
	if len(indexes) == 0 {
		return nil, nil
	}
	made, err := h.catalog.External(ctx, name)
	if err != nil {
		return nil, err
	}
	return nil, h.writeIndexes(ctx, made.ID, indexes)
}

// checkDefinition checks what the model's constraints do not say.
func checkDefinition(t *hive.Table) error {
	seen := map[string]bool{}
	columns := t.PartitionKeys
	if t.Storage != nil {
		columns = append(slices.Clone(t.Storage.Columns), columns...)
	}
	for _, c := range columns {
		folded := strings.ToLower(c.Name)
		if seen[folded] {
			return invalid("The column " + c.Name + " stands twice among the columns and the partition keys.")
		}
		seen[folded] = true
	}
	return nil
}

// createManaged makes an Iceberg table out of columns.
func (h *Handler) createManaged(ctx context.Context, c *awsapi.Call, name catalog.Name, def *hive.Table, version string) error {
	if version != "" && version != "2" {
		return invalid("IcebergInput.Version " + version + " is not supported: leave it out, or say 2.")
	}
	if def.Storage != nil && def.Storage.Location != "" {
		return invalid("StorageDescriptor.Location of an Iceberg table is not supported: leave it out, because the lake gives each of its tables a place of its own.")
	}
	_, err := h.catalog.CreateHiveTable(ctx, name, def)
	if errors.Is(err, catalog.ErrExists) {
		return awsapi.BadRequest(codeExists, "Table already exists.")
	}
	if err == nil {
		h.log(c, "glue table created", "table", name.String(), "format", "iceberg")
	}
	return err
}

type getTableInput struct {
	catalogOf
	DatabaseName string
	Name         string
}

func (h *Handler) getTable(ctx context.Context, _ *awsapi.Call, in *getTableInput) (any, error) {
	e, err := h.find(ctx, in.DatabaseName, in.Name)
	if err != nil {
		return nil, err
	}
	return struct{ Table tableOutput }{h.show(e)}, nil
}

type getTablesInput struct {
	catalogOf
	DatabaseName    string
	Expression      string
	NextToken       string
	MaxResults      *int
	AttributesToGet []string
}

type tableList struct {
	TableList []json.RawMessage
	NextToken string `json:",omitempty"`
}

func (h *Handler) getTables(ctx context.Context, _ *awsapi.Call, in *getTablesInput) (any, error) {
	database, _, err := h.findDatabase(ctx, in.DatabaseName)
	if err != nil {
		return nil, err
	}
	after := ""
	if err := readToken(in.NextToken, &after); err != nil {
		return nil, err
	}
	matches, err := namePattern(in.Expression)
	if err != nil {
		return nil, err
	}
	names, err := h.names(ctx, database)
	if err != nil {
		return nil, err
	}
	out := tableList{TableList: []json.RawMessage{}}
	limit, size, last := pageOf(in.MaxResults, tablesPage), 0, ""
	for _, n := range names {
		if n.Table <= after || !matches(n.Table) {
			continue
		}
		e, err := h.load(ctx, n)
		if errors.Is(err, catalog.ErrNotFound) {
			continue // dropped meanwhile, or the state of a view
		}
		if err != nil {
			return nil, err
		}
		if len(out.TableList) == limit || size > answerBytesMax {
			out.NextToken, err = tokenOf(last)
			return out, err
		}
		row, err := marshal(h.attributes(e, in.AttributesToGet))
		if err != nil {
			return nil, err
		}
		out.TableList = append(out.TableList, row)
		size += len(row)
		last = n.Table
	}
	return out, nil
}

// attributes shows of a table what is asked for; nothing is all.
func (h *Handler) attributes(e entry, wanted []string) any {
	all := h.show(e)
	if len(wanted) == 0 {
		return all
	}
	out := struct {
		Name         string
		DatabaseName string
		TableType    string `json:",omitempty"`
	}{all.Name, all.DatabaseName, ""}
	if slices.Contains(wanted, "TABLE_TYPE") {
		out.TableType = all.Type
	}
	return out
}

// namePattern compiles an expression over names, which must match the whole name.
func namePattern(expression string) (func(string) bool, error) {
	if expression == "" || expression == "*" {
		return func(string) bool { return true }, nil
	}
	re, err := regexp.Compile(`(?i)^(?:` + expression + `)$`)
	if err != nil {
		return nil, invalid("Expression is not a regular expression over names: " + err.Error())
	}
	return re.MatchString, nil
}

type updateTableInput struct {
	catalogOf
	DatabaseName string
	Name         string
	TableInput   *tableInput
	SkipArchive  bool
	VersionID    string `json:"VersionId"`
	Force        bool
}

func (h *Handler) updateTable(ctx context.Context, c *awsapi.Call, in *updateTableInput) (any, error) {
	switch {
	case in.TableInput == nil:
		return nil, invalid("TableInput must not be null.")
	case in.Name != "" && !strings.EqualFold(in.Name, in.TableInput.Name):
		return nil, invalid("Name and TableInput.Name differ: a table cannot be renamed.")
	case in.Force:
		return nil, invalid("Force is not supported: it is for views of several dialects.")
	}
	e, err := h.find(ctx, in.DatabaseName, in.TableInput.Name)
	if err != nil {
		return nil, err
	}
	if in.VersionID != "" && in.VersionID != e.version() {
		return nil, concurrent("Update table failed due to concurrent modifications: the version is " + e.version() + ", not " + in.VersionID + ".")
	}
	def := &in.TableInput.Table
	if e.managed != nil {
		return nil, h.updateManaged(ctx, c, e.managed, def)
	}
	if strings.EqualFold(def.Parameters[hive.ParamTableType], iceberg) {
		return nil, invalid("An external table does not become an Iceberg table by a change of its parameters: create another one.")
	}
	if err := checkDefinition(def); err != nil {
		return nil, err
	}
	if err := h.checkKeys(ctx, e.external, def); err != nil {
		return nil, err
	}
	err = h.catalog.ChangeExternals(ctx, []catalog.ExternalChange{{Table: e.name(), IfVersion: e.external.Version, Define: def, Unarchived: in.SkipArchive}})
	if errors.Is(err, catalog.ErrConflict) {
		return nil, concurrent("Update table failed due to concurrent modifications.")
	}
	if err == nil {
		h.log(c, "glue table changed", "table", e.name().String())
	}
	return nil, err
}

// checkKeys refuses another number of partition keys while there are partitions,
// whose values would have no key.
func (h *Handler) checkKeys(ctx context.Context, before *catalog.External, after *hive.Table) error {
	if len(before.Definition.PartitionKeys) == len(after.PartitionKeys) {
		return nil
	}
	some := false
	if err := h.catalog.ExternalPartitions(ctx, before.Name, catalog.PartitionsPage{}, func(catalog.ExternalPartition) bool { some = true; return false }); err != nil || !some {
		return err
	}
	return invalid("The number of partition keys cannot change while the table has partitions: delete them first.")
}

// updateManaged commits to an Iceberg table, as clients do that wrote its next
// metadata themselves.
func (h *Handler) updateManaged(ctx context.Context, c *awsapi.Call, t *catalog.Table, def *hive.Table) error {
	next, previous := def.Parameters[hive.ParamMetadata], def.Parameters[hive.ParamFormerMetadata]
	switch {
	case !strings.EqualFold(def.Parameters[hive.ParamTableType], iceberg) || next == "":
		return invalid("The table " + t.Name.String() + " is an Iceberg table: UpdateTable takes table_type=ICEBERG with metadata_location and previous_metadata_location, as Iceberg's clients send them. Change it by Iceberg REST (/iceberg) or by ALTER TABLE in SQL.")
	case next == t.MetadataLocation():
		return invalid("The metadata_location is the one that the table " + t.Name.String() + " has: an Iceberg table changes by its metadata alone. Change it by Iceberg REST (/iceberg) or by ALTER TABLE in SQL.")
	case previous == "":
		return invalid("previous_metadata_location must say which state the commit was made from.")
	}
	var needed *NeededError
	err := h.guard.Needed(ctx, t.Name)
	if err != nil && !errors.As(err, &needed) {
		return err
	}
	_, err = h.catalog.CommitMetadata(ctx, t.Name, previous, next, needed != nil)
	if errors.Is(err, catalog.ErrConflict) {
		return concurrent("Update table failed due to concurrent modifications: " + err.Error() + ".")
	}
	if err == nil {
		h.log(c, "glue table committed", "table", t.Name.String())
	}
	return err
}

// drop drops a table with what hangs on it.
func (h *Handler) drop(ctx context.Context, e entry) error {
	var err error
	if e.managed != nil {
		err = h.guard.Drop(ctx, e.managed.Name)
	} else {
		err = h.catalog.ChangeExternals(ctx, []catalog.ExternalChange{{Table: e.external.Name, IfVersion: catalog.AnyVersion, Drop: true}})
	}
	if err == nil {
		h.forget(ctx, e.id())
	}
	return err
}

func (h *Handler) deleteTable(ctx context.Context, c *awsapi.Call, in *getTableInput) (any, error) {
	e, err := h.find(ctx, in.DatabaseName, in.Name)
	if err == nil {
		err = h.drop(ctx, e)
	}
	if err == nil {
		h.log(c, "glue table deleted", "table", e.name().String())
	}
	return nil, err
}

type batchDeleteTableInput struct {
	catalogOf
	DatabaseName   string
	TablesToDelete []string
}

type tableError struct {
	TableName   string
	ErrorDetail errorDetail
}

func (h *Handler) batchDeleteTable(ctx context.Context, c *awsapi.Call, in *batchDeleteTableInput) (any, error) {
	if _, _, err := h.findDatabase(ctx, in.DatabaseName); err != nil {
		return nil, err
	}
	var out struct {
		Errors []tableError `json:",omitempty"`
	}
	for _, name := range in.TablesToDelete {
		_, err := h.deleteTable(ctx, c, &getTableInput{DatabaseName: in.DatabaseName, Name: name})
		if err == nil {
			continue
		}
		d, ok := detailOf(err)
		if !ok {
			return nil, err
		}
		out.Errors = append(out.Errors, tableError{name, d})
	}
	return out, nil
}

// forget deletes the documents that hang on a table which is gone. They are in
// nobody's way: no other table has its identity.
func (h *Handler) forget(ctx context.Context, id string) {
	ctx = context.WithoutCancel(ctx)
	for _, kind := range []string{kindTags, kindIndexes, kindStatistics} {
		docs, err := h.catalog.ListDocuments(ctx, kind, id)
		for _, d := range docs {
			if _, e := h.catalog.PutDocument(ctx, catalog.DocumentWrite{Kind: kind, Key: d.Key, IfVersion: catalog.AnyVersion, Delete: true, KeepVersions: 1}); e != nil && !errors.Is(e, catalog.ErrNotFound) {
				err = errors.Join(err, e)
			}
		}
		if err != nil {
			h.logger.Warn("what hung on a deleted table is left", "kind", kind, "table_id", id, "error", err)
		}
	}
}

// edit changes the JSON document of a kind and key in one step. change gets the
// zero value where there is none; what it makes of it is written, or deleted if
// empty says that nothing is left.
func edit[T any](ctx context.Context, h *Handler, kind, key string, change func(*T) error, empty func(*T) bool) error {
	h.changes.Lock()
	defer h.changes.Unlock()
	value, version, err := document[T](ctx, h, kind, key)
	if err != nil {
		return err
	}
	if err := change(&value); err != nil {
		return err
	}
	w := catalog.DocumentWrite{Kind: kind, Key: key, IfVersion: version, KeepVersions: 1}
	if empty(&value) {
		if version == 0 {
			return nil
		}
		w.Delete = true
	} else if w.Body, err = json.Marshal(value); err != nil {
		return err
	}
	_, err = h.catalog.PutDocument(ctx, w)
	return err
}

// document reads a JSON document; the zero value and version 0 if there is none.
func document[T any](ctx context.Context, h *Handler, kind, key string) (value T, version int64, err error) {
	d, err := h.catalog.GetDocument(ctx, kind, key)
	if errors.Is(err, catalog.ErrNotFound) {
		return value, 0, nil
	}
	if err == nil {
		err = json.Unmarshal(d.Body, &value)
	}
	return value, d.Version, err
}
