package icebergrest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/iceberg-go"
	icebergcatalog "github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/catalog/catalogtest"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/record"
)

// TestConformance runs the suite of Iceberg's library, through its own client.
func TestConformance(t *testing.T) {
	catalogtest.RunCatalogTests(t, catalogtest.Config{
		SupportsNamespaceProperties: true,
		NewCatalog:                  func(t *testing.T) icebergcatalog.Catalog { return newWorld(t).client("admin", false) },
	})
}

// TestClient goes through a table's life with a client that nobody here wrote,
// once with tokens, once with signatures.
func TestClient(t *testing.T) {
	for _, sign := range []bool{false, true} {
		t.Run(fmt.Sprintf("signed=%v", sign), func(t *testing.T) {
			ctx := t.Context()
			w := newWorld(t)
			c := w.client("admin", sign)
			id := table.Identifier{"desk", "trades"}
			if err := c.CreateNamespace(ctx, id[:1], iceberg.Properties{"owner": "desk"}); err != nil {
				t.Fatal(err)
			}
			tbl, err := c.CreateTable(ctx, id, tradesSchema, icebergcatalog.WithProperties(iceberg.Properties{"write.metadata.compression-codec": "none"}))
			if err != nil {
				t.Fatal(err)
			}
			tbl = appendRows(t, tbl, 0, 100)
			first := tbl.CurrentSnapshot().SnapshotID
			tbl = appendRows(t, tbl, 100, 300)
			tx := tbl.NewTransaction()
			if err := tx.UpdateSchema(true, false).AddColumn([]string{"venue"}, iceberg.PrimitiveTypes.String, "where", false, nil).Commit(); err != nil {
				t.Fatal(err)
			}
			if tbl, err = tx.Commit(ctx); err != nil {
				t.Fatal(err)
			}
			if count, total := sum(t, tbl); count != 300 || total != 299*300/2 {
				t.Errorf("%d rows, sum %d", count, total)
			}
			if count, _ := sum(t, tbl, table.WithSnapshotID(first)); count != 100 {
				t.Errorf("at the first snapshot: %d rows", count)
			}
			tx = tbl.NewTransaction()
			if err := tx.Delete(ctx, iceberg.LessThan(iceberg.Reference("n"), int64(50)), nil); err != nil {
				t.Fatal(err)
			}
			if tbl, err = tx.Commit(ctx); err != nil {
				t.Fatal(err)
			}
			if count, _ := sum(t, tbl); count != 250 {
				t.Errorf("after the deletion: %d rows", count)
			}
			ours := w.load("desk", "trades")
			files, err := w.catalog.Files(ctx, ours, catalog.At{})
			if err != nil || len(files) == 0 || ours.Snapshot() != tbl.CurrentSnapshot().SnapshotID {
				t.Errorf("%d files, %v", len(files), err)
			}
			if _, err := c.RenameTable(ctx, id, table.Identifier{"desk", "renamed"}); err != nil {
				t.Fatal(err)
			}
			if ok, err := c.CheckTableExists(ctx, id); ok || err != nil {
				t.Errorf("the former name: %v %v", ok, err)
			}

			// Dropped without its files, and taken over again.
			at := w.load("desk", "renamed").MetadataLocation()
			if err := c.DropTable(ctx, table.Identifier{"desk", "renamed"}); err != nil {
				t.Fatal(err)
			}
			if tbl, err = c.RegisterTable(ctx, id, at); err != nil {
				t.Fatal(err)
			}
			if count, _ := sum(t, tbl); count != 250 {
				t.Errorf("registered: %d rows", count)
			}
			if err := c.PurgeTable(ctx, id); err != nil {
				t.Fatal(err)
			}
			if _, err := c.RegisterTable(ctx, id, at); err == nil {
				t.Error("a table whose files are about to be deleted was registered")
			}
			if err := c.DropNamespace(ctx, id[:1]); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestManyTablesInOneTransaction changes two tables and makes a third, or none.
func TestManyTablesInOneTransaction(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	w.newTable("desk", "a")
	w.newTable("desk", "b")
	c := w.client("admin", true)
	set := []table.Update{table.NewSetPropertiesUpdate(iceberg.Properties{"k": "v"})}
	stale := int64(7)
	a, b := table.Identifier{"desk", "a"}, table.Identifier{"desk", "b"}
	err := c.CommitTransaction(ctx, []table.TableCommit{{Identifier: a, Updates: set}, {Identifier: b, Updates: set, Requirements: []table.Requirement{table.AssertRefSnapshotID("main", &stale)}}})
	if !errors.Is(err, table.ErrCommitFailed) {
		t.Errorf("a stale requirement: %v", err)
	}
	if w.load("desk", "a").Properties["k"] != "" {
		t.Error("half a transaction was done")
	}
	if err := c.CommitTransaction(ctx, []table.TableCommit{{Identifier: a, Updates: set}, {Identifier: b, Updates: set}}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"a", "b"} {
		if w.load("desk", n).Properties["k"] != "v" {
			t.Errorf("%s was not changed", n)
		}
	}

	// A staged table comes with the transaction that changes another.
	staged := w.must(200, "admin", "POST", "/v1/tapehouse/namespaces/desk/tables", `{"name":"c","stage-create":true,"schema":`+tradesSchemaJSON+`}`)
	m := staged["metadata"].(o)
	if staged["metadata-location"] != nil {
		t.Error("a staged table has a metadata file")
	}
	w.refused("admin", "GET", "/v1/namespaces/desk/tables/c", "", 404, typeNoSuchTable, "not found")
	create := o{"identifier": o{"namespace": []string{"desk"}, "name": "c"}, "requirements": []o{{"type": "assert-create"}}, "updates": []o{
		{"action": "assign-uuid", "uuid": m["table-uuid"]}, {"action": "upgrade-format-version", "format-version": 2},
		{"action": "add-schema", "schema": m["schemas"].([]any)[0], "last-column-id": 2}, {"action": "set-current-schema", "schema-id": -1},
		{"action": "add-spec", "spec": o{"spec-id": 0, "fields": []o{}}}, {"action": "set-default-spec", "spec-id": -1},
		{"action": "add-sort-order", "sort-order": o{"order-id": 0, "fields": []o{}}}, {"action": "set-default-sort-order", "sort-order-id": -1},
		{"action": "set-location", "location": m["location"]}, {"action": "set-properties", "updates": m["properties"]}}}
	other := o{"identifier": o{"namespace": []string{"desk"}, "name": "a"}, "requirements": []o{}, "updates": []o{{"action": "set-properties", "updates": o{"k": "w"}}}}
	elsewhere := o{}
	for k, v := range create {
		elsewhere[k] = v
	}
	elsewhere["updates"] = append(slices.Clone(create["updates"].([]o)), o{"action": "set-location", "location": w.lake.URI("desk/" + w.load("desk", "a").Name.Table)})
	w.refused("admin", "POST", "/v1/transactions/commit", object(t, o{"table-changes": []o{other, elsewhere}}), 400, typeBadRequest, "stage-create")
	w.must(204, "admin", "POST", "/v1/transactions/commit", object(t, o{"table-changes": []o{other, create}}))
	if w.load("desk", "c").UUID.String() != m["table-uuid"] || w.load("desk", "a").Properties["k"] != "w" {
		t.Error("the transaction was not done")
	}
	w.refused("admin", "POST", "/v1/transactions/commit", object(t, o{"table-changes": []o{create}}), 409, typeAlreadyExists, "exists")
	w.refused("admin", "POST", "/v1/namespaces/desk/tables/c", object(t, create), 409, typeAlreadyExists, "exists")
	w.refused("admin", "POST", "/v1/transactions/commit", object(t, o{"table-changes": []o{other, other}}), 400, typeBadRequest, "twice")
}

// TestConcurrentCommitters has clients append through HTTP beside our own commit
// loop: no row is lost, none comes twice, progress only grows.
func TestConcurrentCommitters(t *testing.T) {
	const clients, appends, batch, ours = 6, 5, 20, 15
	ctx := t.Context()
	w := newWorld(t)
	w.newTable("desk", "trades")
	id := table.Identifier{"desk", "trades"}
	start := w.client("admin", false)
	tbl, err := start.LoadTable(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	tx := tbl.NewTransaction()
	if err := tx.SetProperties(iceberg.Properties{table.CommitNumRetriesKey: "200", table.CommitMinRetryWaitMsKey: "5", table.CommitMaxRetryWaitMsKey: "100", table.CommitTotalRetryTimeoutMsKey: "300000"}); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range clients {
		c := w.client("admin", i%2 == 0)
		wg.Go(func() {
			for j := range appends {
				tbl, err := c.LoadTable(ctx, id)
				if err != nil {
					t.Error(err)
					return
				}
				from := int64(i*appends+j) * batch
				data := rows(from, from+batch)
				_, err = tbl.AppendTable(ctx, data, 1<<16, nil)
				data.Release()
				if err != nil {
					t.Errorf("client %d, append %d: %v", i, j, err)
				}
			}
		})
	}
	key := record.Key{Incarnation: uuid.MustParse("0b0e7a60-6a3f-4f3b-9a55-000000000001")}
	wg.Go(func() { // a stream's: files and progress, with the former progress required
		for n := range ours {
			tbl := w.load("desk", "trades")
			former := record.Vector{key: record.Offset(n)}
			if n == 0 {
				former = record.Vector{}
			}
			f := w.file(tbl, int64(clients*appends+n)*batch, batch)
			_, err := w.catalog.Commit(ctx, []catalog.Commit{{Table: tbl.Name, Add: []catalog.NewFile{f}, Through: record.Vector{key: record.Offset(n + 1)}, RequireThrough: &former}})
			if err != nil {
				t.Errorf("our commit %d: %v", n, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	wg.Wait()
	if tbl, err = start.LoadTable(ctx, id); err != nil {
		t.Fatal(err)
	}
	const all = int64(clients*appends+ours) * batch
	if count, total := sum(t, tbl); count != all || total != all*(all-1)/2 {
		t.Errorf("%d rows with sum %d, want %d and %d", count, total, all, all*(all-1)/2)
	}
	if got := w.load("desk", "trades").Through()[key]; got != ours {
		t.Errorf("progress %d, want %d", got, ours)
	}
	if n := len(slices.Collect(tbl.Metadata().SnapshotLogs())); n != clients*appends+ours {
		t.Errorf("%d snapshots, want %d", n, clients*appends+ours)
	}
}

// TestPages walks lists in pages while names come and go.
func TestPages(t *testing.T) {
	w := newWorld(t)
	for i := range 7 {
		w.newTable("desk", fmt.Sprintf("t%d", i))
	}
	walk := func(path, member, size string) (got []string) {
		token := ""
		for range 20 {
			answer := w.must(200, "reader", "GET", path+"?pageSize="+size+"&pageToken="+token, "")
			for _, e := range answer[member].([]any) {
				if m, ok := e.(o); ok {
					got = append(got, m["name"].(string))
				} else {
					got = append(got, e.([]any)[0].(string))
				}
			}
			next, ok := answer["next-page-token"].(string)
			if !ok {
				return got
			}
			token = next
		}
		t.Fatal("the pages do not end")
		return nil
	}
	want := []string{"t0", "t1", "t2", "t3", "t4", "t5", "t6"}
	for _, size := range []string{"1", "3", "7", "1000000"} {
		if got := walk("/v1/namespaces/desk/tables", "identifiers", size); !slices.Equal(got, want) {
			t.Errorf("pages of %s: %v", size, got)
		}
	}
	if got := walk("/v1/namespaces", "namespaces", "1"); !slices.Equal(got, []string{"desk"}) {
		t.Errorf("namespaces: %v", got)
	}
	if n := len(w.must(200, "reader", "GET", "/v1/namespaces/desk/tables", "")["identifiers"].([]any)); n != 7 {
		t.Errorf("without pages: %d", n)
	}
	next := w.must(200, "reader", "GET", "/v1/namespaces/desk/tables?pageSize=3", "")["next-page-token"].(string)
	w.must(204, "admin", "DELETE", "/v1/namespaces/desk/tables/t2", "")
	if got := w.must(200, "reader", "GET", "/v1/namespaces/desk/tables?pageSize=1&pageToken="+next, "")["identifiers"].([]any)[0].(o)["name"]; got != "t3" {
		t.Errorf("after a table that is gone comes %v", got)
	}
	for _, q := range []string{"pageSize=0", "pageSize=-1", "pageSize=x", "pageToken=%25"} {
		w.refused("reader", "GET", "/v1/namespaces/desk/tables?"+q, "", 400, typeBadRequest, "page")
	}
}

// TestServerFindsWhatClientsSkip loads by reference and by ETag.
func TestLoadOptions(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Files = map[string]string{"s3.endpoint": "http://127.0.0.1:9000"} })
	w.newTable("desk", "trades")
	c := w.client("admin", false)
	tbl, err := c.LoadTable(t.Context(), table.Identifier{"desk", "trades"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(3) {
		tbl = appendRows(t, tbl, i, i+1)
	}
	const path = "/v1/namespaces/desk/tables/trades"
	all := w.must(200, "reader", "GET", path+"?snapshots=all", "")
	refs := w.must(200, "reader", "GET", path+"?snapshots=refs", "")
	if a, b := len(all["metadata"].(o)["snapshots"].([]any)), len(refs["metadata"].(o)["snapshots"].([]any)); a != 3 || b != 1 {
		t.Errorf("%d snapshots, by reference %d", a, b)
	}
	if refs["config"].(o)["s3.endpoint"] != "http://127.0.0.1:9000" {
		t.Errorf("config %v", refs["config"])
	}
	w.refused("reader", "GET", path+"?snapshots=some", "", 400, typeBadRequest, "refs")
	_, _, header := w.do("reader", "GET", path, "")
	again := func(match string) (int, string) {
		r := w.signed("reader", "GET", path, "")
		r.Header.Set("If-None-Match", match)
		status, _, header := w.send(r)
		return status, header.Get("Etag")
	}
	have := header.Get("Etag")
	for match, want := range map[string]int{have: 304, "W/" + have: 304, `"x", ` + have: 304, `"x"`: 200} {
		if status, tag := again(match); status != want || tag != have {
			t.Errorf("If-None-Match %s: %d %s", match, status, tag)
		}
	}
	appendRows(t, tbl, 3, 4)
	if status, tag := again(have); status != 200 || tag == have {
		t.Errorf("after a commit: %d", status)
	}
	if status, _, header := w.do("reader", "HEAD", path, ""); status != 204 || strings.Contains(header.Get("Content-Type"), "json") {
		t.Errorf("HEAD: %d", status)
	}
}

func (w *world) count() int {
	tables, err := w.catalog.List(context.Background(), "")
	if err != nil {
		w.t.Fatal(err)
	}
	return len(tables)
}
