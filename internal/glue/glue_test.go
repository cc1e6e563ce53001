package glue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/awsapi"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/crawler"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/record"
)

// fakeGuard keeps the tables in needed, and hides those with the property "hidden".
type fakeGuard struct {
	catalog *catalog.Catalog
	needed  map[string]string
}

func (g *fakeGuard) Needed(_ context.Context, t catalog.Name) error {
	if why := g.needed[t.String()]; why != "" {
		return &NeededError{t, why}
	}
	return nil
}

func (g *fakeGuard) NeededDatabase(_ context.Context, database string) error {
	if why := g.needed[database]; why != "" {
		return &NeededError{catalog.Name{Namespace: database}, why}
	}
	return nil
}

func (g *fakeGuard) Drop(ctx context.Context, t catalog.Name) error {
	if err := g.Needed(ctx, t); err != nil {
		return err
	}
	return g.catalog.DropTable(ctx, t)
}

func (g *fakeGuard) Hidden(t *catalog.Table) bool { return t.Properties["hidden"] != "" }

type world struct {
	t       testing.TB
	catalog *catalog.Catalog
	store   lake.Store
	guard   *fakeGuard
	h       *Handler

	crawlers *crawler.Manager
	files    string // the directory that s3://lake/ is to crawlers
}

func newWorld(t testing.TB) *world {
	t.Helper()
	store, err := lake.OpenLocal(fsys.NewMem(), "/lake")
	if err != nil {
		t.Fatal(err)
	}
	c, err := catalog.Open(t.Context(), catalog.Options{Dir: t.TempDir(), Warehouse: store, Owner: "test", Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{t: t, catalog: c, store: store, guard: &fakeGuard{c, map[string]string{}}}
	files := t.TempDir()
	dir, err := crawler.OpenDir(files, "s3://lake/")
	if err != nil {
		t.Fatal(err)
	}
	w.files = files
	m, err := crawler.New(t.Context(), crawler.Options{Catalog: c, FS: fsys.NewMem(), Dir: "/crawler", Settle: time.Nanosecond, Open: func(_ context.Context, path string) (crawler.Source, string, error) {
		name, ok := strings.CutPrefix(path, "s3://lake/")
		if !ok {
			return nil, "", fmt.Errorf("there is no bucket of %s", path)
		}
		return dir, strings.Trim(name, "/"), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(m.Close(), dir.Close()); err != nil {
			t.Error(err)
		}
	})
	w.crawlers = m
	w.h = New(Options{Catalog: c, Crawlers: m, Guard: w.guard, Region: "us-east-1", AccountID: "000000000000", Logger: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.Date(2026, 11, 20, 9, 30, 0, 250e6, time.UTC) }})
	return w
}

// call runs one operation without HTTP and returns its answer, or "Code: message".
func (w *world) call(operation, body string) string {
	w.t.Helper()
	c := &awsapi.Call{Operation: operation, RequestID: "r", Principal: "p", Body: append(make([]byte, 0, len(body)+awsapi.SlackBytes), body...)}
	service := w.h.Service()
	run, refusal := service.Operations[operation], service.Refusals[operation]
	if run == nil && refusal == nil {
		w.t.Fatalf("no operation %s", operation)
	}
	var err error = refusal
	if run != nil {
		err = run(w.t.Context(), c)
	}
	var e *awsapi.Error
	switch {
	case errors.As(err, &e):
		return e.Error()
	case err != nil:
		w.t.Fatalf("%s %.300s: %v", operation, body, err)
	case len(c.Out) == 0:
		return "{}"
	case !json.Valid(c.Out):
		w.t.Fatalf("%s: not JSON: %s", operation, c.Out)
	}
	note(operation, string(c.Out))
	return string(c.Out)
}

// step is an operation and what its answer must be, or, from "…" on, must hold.
type step struct{ operation, body, want string }

var changing = regexp.MustCompile(`"(CreateTime|UpdateTime|CreationTime)":[0-9.]+`)

func (w *world) steps(steps ...step) {
	w.t.Helper()
	for i, s := range steps {
		got := changing.ReplaceAllString(w.call(s.operation, s.body), `"$1":0`)
		if part, ok := strings.CutPrefix(s.want, "…"); ok && strings.Contains(got, part) || got == s.want {
			continue
		}
		w.t.Errorf("step %d: %s %.300s\n got %s\nwant %s", i, s.operation, s.body, got, s.want)
	}
}

const defaults = `"CreateTableDefaultPermissions":[{"Principal":{"DataLakePrincipalIdentifier":"IAM_ALLOWED_PRINCIPALS"},"Permissions":["ALL"]}],"CatalogId":"000000000000"`

func TestDatabases(t *testing.T) {
	w := newWorld(t)
	if err := w.catalog.CreateNamespace(t.Context(), "Mixed", map[string]string{"tapehouse.owner": "x"}); err != nil {
		t.Fatal(err)
	}
	w.steps(
		step{"GetDatabases", `{}`, `{"DatabaseList":[{"Name":"Mixed",` + defaults + `}]}`},
		step{"CreateDatabase", `{"DatabaseInput":{"Name":"Desk","Description":"notes","LocationUri":"s3://b/d","Parameters":{"a":"1","comment":"mine","tapehouse.x":"y","exists":"no"}},"Tags":{"team":"ops"}}`, `{}`},
		step{"GetDatabase", `{"Name":"DESK"}`, `{"Database":{"Name":"desk","Description":"notes","LocationUri":"s3://b/d","Parameters":{"a":"1","comment":"mine","exists":"no","tapehouse.x":"y"},"CreateTime":0,` + defaults + `}}`},
		step{"CreateDatabase", `{"DatabaseInput":{"Name":"desk"}}`, `AlreadyExistsException: Database already exists.`},
		step{"CreateDatabase", `{"DatabaseInput":{"Name":"a.b"}}`, `…InvalidInputException: invalid namespace "a.b"`},
		step{"GetDatabase", `{"Name":"none"}`, `EntityNotFoundException: Database none not found.`},
		step{"GetDatabase", `{"Name":"desk","CatalogId":"000000000000"}`, `…"Name":"desk"`},
		step{"GetDatabase", `{"Name":"desk","CatalogId":"123456789012"}`, `EntityNotFoundException: The catalog 123456789012 is not here: this endpoint has one, 000000000000.`},
		step{"GetDatabase", `{"Name":"Mixed"}`, `…"Name":"Mixed"`},
		step{"GetDatabases", `{"MaxResults":1}`, `{"DatabaseList":[{"Name":"Mixed",` + defaults + `}],"NextToken":"Ik1peGVkIg"}`},
		step{"GetDatabases", `{"MaxResults":1,"NextToken":"Ik1peGVkIg","AttributesToGet":["NAME"]}`, `{"DatabaseList":[{"Name":"desk"}]}`},
		step{"GetDatabases", `{"NextToken":"?"}`, `InvalidInputException: The NextToken is none that this operation has given.`},
		step{"GetDatabases", `{"ResourceShareType":"FOREIGN"}`, `{"DatabaseList":[]}`},
		step{"UpdateDatabase", `{"Name":"desk","DatabaseInput":{"Name":"desk","Parameters":{"b":"2"},"CreateTableDefaultPermissions":[]}}`, `{}`},
		step{"GetDatabase", `{"Name":"desk"}`, `{"Database":{"Name":"desk","Parameters":{"b":"2"},"CreateTime":0,"CreateTableDefaultPermissions":[],"CatalogId":"000000000000"}}`},
		step{"GetTags", `{"ResourceArn":"arn:aws:glue:us-east-1:000000000000:database/desk"}`, `{"Tags":{"team":"ops"}}`},
		step{"UpdateDatabase", `{"Name":"desk","DatabaseInput":{"Name":"other"}}`, `…InvalidInputException: A database cannot be renamed`},
		step{"UpdateDatabase", `{"Name":"none","DatabaseInput":{"Name":"none"}}`, `EntityNotFoundException: Database none not found.`},
		step{"CreateDatabase", `{"DatabaseInput":{"Name":"p","CreateTableDefaultPermissions":[{"Principal":{"DataLakePrincipalIdentifier":"arn:x"},"Permissions":["SELECT"]}]}}`, `…InvalidInputException: CreateTableDefaultPermissions other than`},
		step{"CreateDatabase", `{"DatabaseInput":{"Name":"p","TargetDatabase":{"DatabaseName":"x"}}}`, `…InvalidInputException: TargetDatabase is not supported`},
		step{"DeleteDatabase", `{"Name":"desk"}`, `{}`},
		step{"DeleteDatabase", `{"Name":"desk"}`, `EntityNotFoundException: Database desk not found.`},
		step{"CreateDatabase", `{"DatabaseInput":{"Name":"desk"}}`, `{}`},
		step{"GetTags", `{"ResourceArn":"arn:aws:glue:us-east-1:000000000000:database/desk"}`, `{"Tags":{}}`},
	)
	p, err := w.catalog.NamespaceProperties(t.Context(), "Mixed")
	if err != nil || !maps.Equal(p, map[string]string{"exists": "true", "tapehouse.owner": "x"}) {
		t.Errorf("%v %v", p, err)
	}
}

// partitioned creates the external table desk.trades with keys of several types.
func (w *world) partitioned() {
	w.t.Helper()
	w.steps(
		step{"CreateDatabase", `{"DatabaseInput":{"Name":"desk"}}`, `{}`},
		step{"CreateTable", `{"DatabaseName":"desk","TableInput":` + tradesInput + `}`, `{}`},
	)
}

const tradesInput = `{"Name":"Trades","Description":"d","Retention":0,"TableType":"EXTERNAL_TABLE","Parameters":{"classification":"parquet"},` +
	`"PartitionKeys":[{"Name":"trade_date","Type":"date"},{"Name":"n","Type":"int"}],` +
	`"StorageDescriptor":{"Columns":[{"Name":"price","Type":"decimal(18,4)","Comment":"c"},{"Name":"symbol","Type":"string"}],"Location":"s3://b/trades/",` +
	`"SerdeInfo":{"SerializationLibrary":"org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe","Parameters":{"serialization.format":"1"}}}}`

func TestTables(t *testing.T) {
	w := newWorld(t)
	w.partitioned()
	const table = `"Description":"d","Retention":0,"StorageDescriptor":{"Columns":[{"Name":"price","Type":"decimal(18,4)","Comment":"c"},{"Name":"symbol","Type":"string"}],"Location":"s3://b/trades/","Compressed":false,"NumberOfBuckets":0,` +
		`"SerdeInfo":{"SerializationLibrary":"org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe","Parameters":{"serialization.format":"1"}},"StoredAsSubDirectories":false},"TableType":"EXTERNAL_TABLE","Parameters":{"classification":"parquet"},` +
		`"PartitionKeys":[{"Name":"trade_date","Type":"date"},{"Name":"n","Type":"int"}],"IsRegisteredWithLakeFormation":false,"CatalogId":"000000000000","VersionId":"0"`
	changed := strings.Replace(tradesInput, `"d"`, `"changed"`, 1)
	w.steps(
		step{"GetTable", `{"DatabaseName":"Desk","Name":"TRADES"}`, `{"Table":{"Name":"trades","DatabaseName":"desk","CreateTime":0,"UpdateTime":0,` + table + `}}`},
		step{"CreateTable", `{"DatabaseName":"desk","TableInput":` + tradesInput + `}`, `AlreadyExistsException: Table already exists.`},
		step{"CreateTable", `{"DatabaseName":"none","TableInput":` + tradesInput + `}`, `EntityNotFoundException: Database none not found.`},
		step{"CreateTable", `{"DatabaseName":"desk"}`, `InvalidInputException: TableInput must not be null.`},
		step{"CreateTable", `{"DatabaseName":"desk","Name":"x","TableInput":{"Name":"y"}}`, `InvalidInputException: Name and TableInput.Name differ.`},
		step{"CreateTable", `{"DatabaseName":"desk","TableInput":{"Name":"x","PartitionKeys":[{"Name":"A"}],"StorageDescriptor":{"Columns":[{"Name":"a"}]}}}`, `…The column A stands twice`},
		step{"CreateTable", `{"DatabaseName":"desk","TableInput":{"Name":"x","Parameters":{"table_type":"iceberg","metadata_location":"s3://x"}}}`, `…cannot be created by its metadata_location: use OpenTableFormatInput`},
		step{"CreateTable", `{"DatabaseName":"desk","TableInput":{"Name":"x","StorageDescriptor":{"SchemaReference":{}}}}`, `…SchemaReference is not supported`},
		step{"CreateTable", `{"DatabaseName":"desk","TransactionId":"t","TableInput":{"Name":"x"}}`, `…TransactionId is not supported`},
		step{"CreateTable", `{"DatabaseName":"desk","TableInput":{"Name":"plain"}}`, `{}`},
		step{"GetTable", `{"DatabaseName":"desk","Name":"none"}`, `EntityNotFoundException: Table none not found.`},
		step{"GetTable", `{"DatabaseName":"none","Name":"none"}`, `EntityNotFoundException: Database none not found.`},
		step{"GetTables", `{"DatabaseName":"desk","AttributesToGet":["NAME","TABLE_TYPE"]}`, `{"TableList":[{"Name":"plain","DatabaseName":"desk"},{"Name":"trades","DatabaseName":"desk","TableType":"EXTERNAL_TABLE"}]}`},
		step{"GetTables", `{"DatabaseName":"desk","AttributesToGet":["NAME"],"Expression":"tra.*|x"}`, `{"TableList":[{"Name":"trades","DatabaseName":"desk"}]}`},
		step{"GetTables", `{"DatabaseName":"desk","AttributesToGet":["NAME"],"Expression":"ra"}`, `{"TableList":[]}`},
		step{"GetTables", `{"DatabaseName":"desk","Expression":"(*"}`, `…InvalidInputException: Expression is not a regular expression over names`},
		step{"GetTables", `{"DatabaseName":"desk","AttributesToGet":["NAME"],"MaxResults":1}`, `{"TableList":[{"Name":"plain","DatabaseName":"desk"}],"NextToken":"InBsYWluIg"}`},
		step{"GetTables", `{"DatabaseName":"desk","AttributesToGet":["NAME"],"MaxResults":1,"NextToken":"InBsYWluIg"}`, `{"TableList":[{"Name":"trades","DatabaseName":"desk"}]}`},
		step{"UpdateTable", `{"DatabaseName":"desk","TableInput":` + changed + `,"VersionId":"5"}`, `ConcurrentModificationException: Update table failed due to concurrent modifications: the version is 0, not 5.`},
		step{"UpdateTable", `{"DatabaseName":"desk","TableInput":` + changed + `,"VersionId":"0"}`, `{}`},
		step{"UpdateTable", `{"DatabaseName":"desk","TableInput":` + changed + `,"SkipArchive":true}`, `{}`},
		step{"UpdateTable", `{"DatabaseName":"desk","TableInput":{"Name":"none"}}`, `EntityNotFoundException: Table none not found.`},
		step{"UpdateTable", `{"DatabaseName":"desk","TableInput":{"Name":"trades"},"Force":true}`, `…Force is not supported`},
		step{"GetTable", `{"DatabaseName":"desk","Name":"trades"}`, `…"VersionId":"2"`},
		step{"GetTableVersions", `{"DatabaseName":"desk","TableName":"trades","MaxResults":1}`, `…"VersionId":"2"}],"NextToken":"Mw"}`},
		step{"GetTableVersions", `{"DatabaseName":"desk","TableName":"trades","MaxResults":1,"NextToken":"Mw"}`, `…"VersionId":"0"},"VersionId":"0"}]}`}, // 1 was not archived
		step{"GetTableVersion", `{"DatabaseName":"desk","TableName":"trades","VersionId":"0"}`, `…"Description":"d"`},
		step{"GetTableVersion", `{"DatabaseName":"desk","TableName":"trades"}`, `…"Description":"changed"`},
		step{"GetTableVersion", `{"DatabaseName":"desk","TableName":"trades","VersionId":"1"}`, `EntityNotFoundException: Version 1 of table trades not found.`},
		step{"GetTableVersion", `{"DatabaseName":"desk","TableName":"trades","VersionId":"x"}`, `EntityNotFoundException: Version x not found.`},
		step{"DeleteTableVersion", `{"DatabaseName":"desk","TableName":"trades","VersionId":"2"}`, `…the current one, which cannot be deleted`},
		step{"BatchDeleteTableVersion", `{"DatabaseName":"desk","TableName":"trades","VersionIds":["0","1"]}`, `{"Errors":[{"TableName":"trades","VersionId":"1","ErrorDetail":{"ErrorCode":"EntityNotFoundException","ErrorMessage":"Version 1 of table trades not found."}}]}`},
		step{"DeleteTableVersion", `{"DatabaseName":"desk","TableName":"trades","VersionId":"0"}`, `EntityNotFoundException: Version 0 of table trades not found.`},
		step{"TagResource", `{"ResourceArn":"arn:aws:glue:us-east-1:000000000000:table/desk/trades","TagsToAdd":{"a":"1","b":""}}`, `{}`},
		step{"UntagResource", `{"ResourceArn":"arn:aws:glue:us-east-1:000000000000:table/desk/Trades","TagsToRemove":["a","x"]}`, `{}`},
		step{"GetTags", `{"ResourceArn":"arn:aws:glue:us-east-1:000000000000:table/desk/trades"}`, `{"Tags":{"b":""}}`},
		step{"GetTags", `{"ResourceArn":"arn:aws:glue:us-east-1::table/desk/trades"}`, `{"Tags":{"b":""}}`},
		step{"GetTags", `{"ResourceArn":"arn:aws:glue:us-east-1:000000000000:table/desk/none"}`, `EntityNotFoundException: Table none not found.`},
		step{"GetTags", `{"ResourceArn":"arn:aws:glue:eu-west-1:000000000000:table/desk/trades"}`, `…EntityNotFoundException: The resource arn:aws:glue:eu-west-1`},
		step{"GetTags", `{"ResourceArn":"arn:aws:glue:us-east-1:000000000000:job/x"}`, `…InvalidInputException: The ARN arn:aws:glue:us-east-1:000000000000:job/x is of no database`},
		step{"BatchDeleteTable", `{"DatabaseName":"desk","TablesToDelete":["plain","none"]}`, `{"Errors":[{"TableName":"none","ErrorDetail":{"ErrorCode":"EntityNotFoundException","ErrorMessage":"Table none not found."}}]}`},
		step{"DeleteTable", `{"DatabaseName":"desk","Name":"trades"}`, `{}`},
		step{"DeleteTable", `{"DatabaseName":"desk","Name":"trades"}`, `EntityNotFoundException: Table trades not found.`},
		step{"CreateTable", `{"DatabaseName":"desk","TableInput":` + tradesInput + `}`, `{}`},
		step{"GetTags", `{"ResourceArn":"arn:aws:glue:us-east-1:000000000000:table/desk/trades"}`, `{"Tags":{}}`},
		step{"DeleteDatabase", `{"Name":"desk"}`, `{}`},
	)
	if names, err := w.catalog.ExternalNames(t.Context(), ""); err != nil || len(names) != 0 {
		t.Errorf("%v %v", names, err)
	}
	for _, kind := range []string{kindTags, kindIndexes, kindStatistics} {
		if docs, err := w.catalog.ListDocuments(t.Context(), kind, ""); err != nil || len(docs) != 0 {
			t.Errorf("%s: %v %v", kind, docs, err)
		}
	}
}

func TestManagedTables(t *testing.T) {
	w := newWorld(t)
	w.steps(step{"CreateDatabase", `{"DatabaseInput":{"Name":"desk"}}`, `{}`})
	spec := catalog.TableSpec{Name: catalog.Name{Namespace: "desk", Table: "Legs"}, PartitionBy: "trade_date", Fields: []record.Field{
		{Name: "n", Type: record.Type{Kind: record.Long}, Required: true}, {Name: "price", Type: record.Type{Kind: record.Decimal, Precision: 18, Scale: 4}}, {Name: "trade_date", Type: record.Type{Kind: record.Date}}}}
	legs, err := w.catalog.CreateTable(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	spec.Name.Table, spec.Properties = "state", map[string]string{"hidden": "1"}
	if _, err := w.catalog.CreateTable(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	w.guard.needed["desk.Legs"] = "the delivery stream legs feeds it: delete the stream first"
	w.steps(
		step{"GetTable", `{"DatabaseName":"desk","Name":"Legs"}`, fmt.Sprintf(`{"Table":{"Name":"Legs","DatabaseName":"desk","UpdateTime":0,"Retention":0,"StorageDescriptor":{"Columns":[`+
			`{"Name":"n","Type":"bigint","Parameters":{"iceberg.field.current":"true","iceberg.field.id":"1","iceberg.field.optional":"false"}},`+
			`{"Name":"price","Type":"decimal(18,4)","Parameters":{"iceberg.field.current":"true","iceberg.field.id":"2","iceberg.field.optional":"true"}},`+
			`{"Name":"trade_date","Type":"date","Parameters":{"iceberg.field.current":"true","iceberg.field.id":"3","iceberg.field.optional":"true"}}],`+
			`"Location":%q,"Compressed":false,"NumberOfBuckets":0,"StoredAsSubDirectories":false},"TableType":"EXTERNAL_TABLE","Parameters":{"metadata_location":%q,"table_type":"ICEBERG"},`+
			`"PartitionKeys":[],"IsRegisteredWithLakeFormation":false,"CatalogId":"000000000000","VersionId":"0"}}`, legs.Location, legs.MetadataLocation())},
		step{"GetTables", `{"DatabaseName":"desk","AttributesToGet":["NAME"]}`, `{"TableList":[{"Name":"Legs","DatabaseName":"desk"}]}`},
		step{"GetTable", `{"DatabaseName":"desk","Name":"state"}`, `EntityNotFoundException: Table state not found.`},
		step{"GetPartitions", `{"DatabaseName":"desk","TableName":"Legs"}`, `{"Partitions":[]}`},
		step{"GetPartitionIndexes", `{"DatabaseName":"desk","TableName":"Legs"}`, `{"PartitionIndexDescriptorList":[]}`},
		step{"CreatePartition", `{"DatabaseName":"desk","TableName":"Legs","PartitionInput":{"Values":["x"]}}`, `…InvalidInputException: The table desk.Legs is an Iceberg table, which keeps its partitions in its own metadata`},
		step{"GetTableVersions", `{"DatabaseName":"desk","TableName":"Legs"}`, `…"VersionId":"0"}]}`},
		step{"DeleteTableVersion", `{"DatabaseName":"desk","TableName":"Legs","VersionId":"0"}`, `…are its snapshots, which expire by themselves`},
		step{"CreateTable", `{"DatabaseName":"desk","TableInput":{"Name":"notes","Description":"d","StorageDescriptor":{"Columns":[{"Name":"n","Type":"bigint","Comment":"c"},{"Name":"tags","Type":"array<string>"}]},"PartitionKeys":[{"Name":"trade_date","Type":"date"}]},"OpenTableFormatInput":{"IcebergInput":{"MetadataOperation":"CREATE","Version":"2"}}}`, `{}`},
		step{"CreateTable", `{"DatabaseName":"desk","TableInput":{"Name":"notes","StorageDescriptor":{"Columns":[{"Name":"n","Type":"bigint"}]}},"OpenTableFormatInput":{"IcebergInput":{"MetadataOperation":"CREATE"}}}`, `AlreadyExistsException: Table already exists.`},
		step{"CreateTable", `{"DatabaseName":"desk","TableInput":{"Name":"notes","StorageDescriptor":{"Columns":[{"Name":"n","Type":"bigint"}]}}}`, `AlreadyExistsException: Table already exists.`},
		step{"CreateTable", `{"DatabaseName":"desk","TableInput":{"Name":"x","StorageDescriptor":{"Columns":[{"Name":"n","Type":"money"}]}},"OpenTableFormatInput":{"IcebergInput":{"MetadataOperation":"CREATE"}}}`, `…type "money" is not known`},
		step{"CreateTable", `{"DatabaseName":"desk","TableInput":{"Name":"x","StorageDescriptor":{"Location":"s3://x","Columns":[{"Name":"n","Type":"bigint"}]}},"OpenTableFormatInput":{"IcebergInput":{"MetadataOperation":"CREATE"}}}`, `…StorageDescriptor.Location of an Iceberg table is not supported`},
		step{"CreateTable", `{"DatabaseName":"desk","TableInput":{"Name":"x"},"OpenTableFormatInput":{"IcebergInput":{"MetadataOperation":"CREATE","Version":"3"}}}`, `…IcebergInput.Version 3 is not supported`},
		step{"CreateTable", `{"DatabaseName":"desk","TableInput":{"Name":"x"},"OpenTableFormatInput":{"IcebergInput":{"MetadataOperation":"CREATE","CreateIcebergTableInput":{"Location":"x","Schema":{"Fields":[{"Id":1,"Name":"a","Type":{"any":["thing",1]},"Required":true}]}}}}}`, `…CreateIcebergTableInput is not supported`},
		step{"GetTable", `{"DatabaseName":"desk","Name":"notes"}`, `…"Description":"d"`},
		step{"GetTable", `{"DatabaseName":"desk","Name":"notes"}`, `…{"Name":"tags","Type":"array<string>"`},
		step{"UpdateTable", `{"DatabaseName":"desk","TableInput":{"Name":"notes","Description":"x"}}`, `…is an Iceberg table: UpdateTable takes table_type=ICEBERG with metadata_location`},
		step{"DeleteTable", `{"DatabaseName":"desk","Name":"legs"}`, `EntityNotFoundException: Table legs not found.`}, // only its own spelling, or the folded one, is it
		step{"DeleteTable", `{"DatabaseName":"desk","Name":"Legs"}`, `InvalidInputException: The table desk.Legs cannot be deleted: the delivery stream legs feeds it: delete the stream first.`},
		step{"BatchDeleteTable", `{"DatabaseName":"desk","TablesToDelete":["Legs","notes"]}`, `…"ErrorMessage":"The table desk.Legs cannot be deleted`},
		step{"CreateTable", `{"DatabaseName":"desk","TableInput":{"Name":"plain"}}`, `{}`},
		step{"DeleteDatabase", `{"Name":"desk"}`, `InvalidInputException: The database desk cannot be deleted: the table desk.Legs must stay, the delivery stream legs feeds it: delete the stream first.`},
		step{"GetTables", `{"DatabaseName":"desk","AttributesToGet":["NAME"]}`, `{"TableList":[{"Name":"Legs","DatabaseName":"desk"},{"Name":"plain","DatabaseName":"desk"}]}`}, // nothing went
	)
	delete(w.guard.needed, "desk.Legs")
	w.guard.needed["desk"] = "the materialized view desk.sums is in it"
	w.steps(step{"DeleteDatabase", `{"Name":"desk"}`, `InvalidInputException: The database desk cannot be deleted: the materialized view desk.sums is in it.`})
	delete(w.guard.needed, "desk")
	w.steps(
		step{"DeleteDatabase", `{"Name":"desk"}`, `{}`},
		step{"GetDatabases", `{}`, `{"DatabaseList":[]}`},
	)
	if names, err := w.catalog.List(t.Context(), ""); err != nil || len(names) != 0 {
		t.Errorf("%v %v", names, err)
	}
}

// Iceberg's clients commit by moving the metadata_location that they read.
func TestCommits(t *testing.T) {
	w := newWorld(t)
	w.steps(
		step{"CreateDatabase", `{"DatabaseInput":{"Name":"desk"}}`, `{}`},
		step{"CreateTable", `{"DatabaseName":"desk","TableInput":{"Name":"notes","StorageDescriptor":{"Columns":[{"Name":"n","Type":"bigint"}]}},"OpenTableFormatInput":{"IcebergInput":{"MetadataOperation":"CREATE"}}}`, `{}`},
	)
	name := catalog.Name{Namespace: "desk", Table: "notes"}
	tbl, err := w.catalog.Load(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	first := tbl.MetadataLocation()
	other, err := w.catalog.Commit(t.Context(), []catalog.Commit{{Table: name, Properties: map[string]string{"a": "b"}}})
	if err != nil {
		t.Fatal(err)
	}
	second := other[0].MetadataLocation()
	update := func(previous, next, version string) string {
		return fmt.Sprintf(`{"DatabaseName":"desk","TableInput":{"Name":"notes","Parameters":{"table_type":"ICEBERG","metadata_location":%q,"previous_metadata_location":%q}},"SkipArchive":true%s}`, next, previous, version)
	}
	w.steps(
		step{"UpdateTable", update(first, second, ""), `…The metadata_location is the one that the table desk.notes has`},
		step{"UpdateTable", update(first, first, `,"VersionId":"0"`), `ConcurrentModificationException: Update table failed due to concurrent modifications: the version is 1, not 0.`},
		step{"UpdateTable", update(first, first, ""), `…ConcurrentModificationException: Update table failed`},
		step{"UpdateTable", update("", first, ""), `…previous_metadata_location must say which state`},
		step{"UpdateTable", update(second, "file:///etc/passwd", ""), `…does not lie below the table's location`},
		step{"UpdateTable", update(second, tbl.Location+"/metadata/00002-x.metadata.json", ""), `…InvalidInputException: invalid commit of desk.notes: read the metadata`},
		step{"GetTable", `{"DatabaseName":"desk","Name":"notes"}`, `…"a":"b","metadata_location":"` + second + `","previous_metadata_location":"` + first + `"`},
	)
}

func TestSearchTables(t *testing.T) {
	w := newWorld(t)
	w.partitioned()
	w.steps(
		step{"CreateDatabase", `{"DatabaseInput":{"Name":"other"}}`, `{}`},
		step{"CreateTable", `{"DatabaseName":"other","TableInput":{"Name":"trades-2026","Owner":"ops","LastAccessTime":1700000000.5}}`, `{}`},
		step{"CreateTable", `{"DatabaseName":"other","TableInput":{"Name":"mytrades","Owner":"ops","LastAccessTime":1600000000}}`, `{}`},
	)
	names := func(body string) string {
		t.Helper()
		var out struct {
			TableList []struct{ Name string }
			NextToken string
		}
		answer := w.call("SearchTables", body)
		if json.Unmarshal([]byte(answer), &out) != nil {
			return answer
		}
		var list []string
		for _, t := range out.TableList {
			list = append(list, t.Name)
		}
		if out.NextToken != "" {
			list = append(list, out.NextToken)
		}
		return strings.Join(list, " ")
	}
	for body, want := range map[string]string{
		`{}`:                              "trades mytrades trades-2026",
		`{"ResourceShareType":"FOREIGN"}`: "",
		`{"Filters":[{"Key":"Name","Value":"Trades"}]}`:                                                            "trades trades-2026",
		`{"Filters":[{"Key":"Name","Value":"trades-2026"}]}`:                                                       "trades-2026",
		`{"Filters":[{"Key":"DatabaseName","Value":"other"},{"Key":"Owner","Value":"ops","Comparator":"EQUALS"}]}`: "mytrades trades-2026",
		`{"Filters":[{"Key":"LastAccessTime","Value":"1600000001","Comparator":"GREATER_THAN"}]}`:                  "trades-2026",
		`{"Filters":[{"Key":"LastAccessTime","Value":"2023-11-14T22:13:20.5Z","Comparator":"EQUALS"}]}`:            "trades-2026",
		`{"Filters":[{"Key":"CreateTime","Value":"2000-01-01","Comparator":"LESS_THAN"}]}`:                         "",
		`{"Filters":[{"Key":"Venue","Value":"x"}]}`:                                                                "InvalidInputException: Filters: the key Venue is not supported: " + fieldNames + ".",
		`{"Filters":[{"Key":"Name","Value":"x","Comparator":"LESS_THAN"}]}`:                                        "InvalidInputException: Filters: the comparator LESS_THAN is for times, and Name is text.",
		`{"Filters":[{"Key":"UpdateTime","Value":"soon"}]}`:                                                        `InvalidInputException: Filters: UpdateTime: "soon" is no time: want 2026-11-20T09:30:00Z, or seconds since 1970.`,
		`{"SearchText":"SYMB"}`:                                                "trades",
		`{"SearchText":"\"symbol\""}`:                                          "trades",
		`{"SearchText":"\"symb\""}`:                                            "",
		`{"SearchText":"parquet"}`:                                             "trades",
		`{"SortCriteria":[{"FieldName":"Name","Sort":"DESC"}]}`:                "trades-2026 trades mytrades",
		`{"SortCriteria":[{"FieldName":"LastAccessTime"}]}`:                    "trades mytrades trades-2026",
		`{"SortCriteria":[{"FieldName":"Venue"}]}`:                             "InvalidInputException: SortCriteria: the field Venue is not supported: " + fieldNames + ".",
		`{"SortCriteria":[{"FieldName":"Name","Sort":"DESC"}],"MaxResults":1}`: "trades-2026 eyJ0IjoidHJhZGVzLTIwMjYiLCJkIjoib3RoZXIiLCJuIjoidHJhZGVzLTIwMjYifQ",
		`{"SortCriteria":[{"FieldName":"Name","Sort":"DESC"}],"NextToken":"eyJ0IjoidHJhZGVzLTIwMjYiLCJkIjoib3RoZXIiLCJuIjoidHJhZGVzLTIwMjYifQ"}`: "trades mytrades",
	} {
		if got := names(body); got != want {
			t.Errorf("%s\n got %s\nwant %s", body, got, want)
		}
	}
}

func TestConcurrentChanges(t *testing.T) {
	w := newWorld(t)
	w.partitioned()
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			w.call("TagResource", fmt.Sprintf(`{"ResourceArn":"arn:aws:glue:us-east-1:000000000000:table/desk/trades","TagsToAdd":{"t%d":"1"}}`, i))
			w.call("TagResource", fmt.Sprintf(`{"ResourceArn":"arn:aws:glue:us-east-1:000000000000:database/desk","TagsToAdd":{"t%d":"1"}}`, i))
			w.call("UpdateDatabase", `{"Name":"desk","DatabaseInput":{"Name":"desk"}}`)
		})
	}
	wait.Wait()
	for _, resource := range []string{"table/desk/trades", "database/desk"} {
		w.steps(step{"GetTags", `{"ResourceArn":"arn:aws:glue:us-east-1:000000000000:` + resource + `"}`, `{"Tags":{"t0":"1","t1":"1","t2":"1","t3":"1","t4":"1","t5":"1","t6":"1","t7":"1"}}`})
	}
	// Of updates that were made from one version, one is done.
	var done, refused int
	var mu sync.Mutex
	for range 8 {
		wait.Go(func() {
			got := w.call("UpdateTable", `{"DatabaseName":"desk","TableInput":`+tradesInput+`,"VersionId":"0"}`)
			mu.Lock()
			defer mu.Unlock()
			if got == "{}" {
				done++
			} else if strings.HasPrefix(got, codeConcurrent) {
				refused++
			}
		})
	}
	wait.Wait()
	if done != 1 || refused != 7 {
		t.Errorf("%d done, %d refused", done, refused)
	}
}
