package icebergrest

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/record"
)

var streamKey = record.Key{Incarnation: uuid.MustParse("0b0e7a60-6a3f-4f3b-9a55-000000000001")}

// TestProtection: what a client must not take away, one refusal after the other,
// and after each of them the table is as it was.
func TestProtection(t *testing.T) {
	ctx := t.Context()
	const path = "/v1/namespaces/desk/tables/trades"
	var needed []int64
	pinned := map[string]bool{}
	kept := ""
	w := newWorld(t, func(o *Options) {
		g := &o.Guard
		g.Needed = func(context.Context, catalog.Name) ([]int64, error) { return needed, nil }
		g.Pinned = func(path string) bool { return pinned[path] }
		g.Kept = func(*catalog.Table) string { return kept }
		g.Stream = func(n catalog.Name) (string, error) {
			if n.Table == "awaited" {
				return "orders", nil
			}
			return "", nil
		}
		g.Release = func(_ context.Context, n catalog.Name, fn func() error) error {
			if n.Table == "awaited" {
				return errors.Join(catalog.ErrProtected, errors.New("delivery stream orders feeds it"))
			}
			return fn()
		}
	})
	w.newTable("desk", "trades")
	w.newTable("desk", "other")
	w.newTable("desk", "awaited")
	c := w.client("admin", false)
	foreign, err := c.LoadTable(ctx, table.Identifier{"desk", "trades"})
	if err != nil {
		t.Fatal(err)
	}
	foreign = appendRows(t, foreign, 0, 10)
	s1 := foreign.CurrentSnapshot().SnapshotID
	commit := func(m catalog.Commit) *catalog.Table {
		t.Helper()
		m.Table = catalog.Name{Namespace: "desk", Table: "trades"}
		out, err := w.catalog.Commit(ctx, []catalog.Commit{m})
		if err != nil {
			t.Fatal(err)
		}
		return out[0]
	}
	tbl := commit(catalog.Commit{Add: []catalog.NewFile{w.file(w.load("desk", "trades"), 10, 10)}, Through: record.Vector{streamKey: 10}, Tags: map[string]int64{"eod-2026-11-20": 0}})
	s2 := tbl.Snapshot()
	tbl = commit(catalog.Commit{Add: []catalog.NewFile{w.file(tbl, 20, 10)}, Through: record.Vector{streamKey: 20}})
	s3 := tbl.Snapshot()
	other := w.load("desk", "other")

	update := func(updates ...o) string { return object(t, o{"requirements": []o{}, "updates": updates}) }
	before := w.load("desk", "trades").MetadataLocation()
	refuse := func(status int, kind, message string, updates ...o) {
		t.Helper()
		w.refused("admin", "POST", path, update(updates...), status, kind, message)
		if now := w.load("desk", "trades").MetadataLocation(); now != before {
			t.Fatalf("%v: the table has changed", updates)
		}
	}
	protected := func(message string, updates ...o) {
		t.Helper()
		refuse(400, typeBadRequest, message, updates...)
	}
	ref := func(name, kind string, snapshot int64) o {
		return o{"action": "set-snapshot-ref", "ref-name": name, "type": kind, "snapshot-id": snapshot}
	}
	set := func(k, v string) o { return o{"action": "set-properties", "updates": o{k: v}} }

	// Progress.
	lower := record.Vector{streamKey: 5}.String()
	protected("Tapehouse's own", set("tapehouse.through", lower))
	protected("tapehouse.through", set("tapehouse.through", "nonsense"))
	protected("Tapehouse's own", set("tapehouse.derive.note", "record-stream"))
	protected("Tapehouse's own", o{"action": "remove-properties", "removals": []string{"tapehouse.through"}})
	protected("Tapehouse's own", set("tapehouse.through", record.Vector{streamKey: 99}.String()))

	// Sealed dates.
	protected("sealed trade date", o{"action": "remove-snapshot-ref", "ref-name": "eod-2026-11-20"})
	protected("sealed trade date", ref("eod-2026-11-20", "tag", s1))
	protected("sealed trade date", ref("eod-2026-11-20", "branch", s2))
	protected("sealed trade date", o{"action": "set-snapshot-ref", "ref-name": "eod-2026-11-20", "type": "tag", "snapshot-id": s2, "max-ref-age-ms": 1})
	protected("for sealed trade dates", ref("eod-2026-11-21", "tag", s3))
	protected("sealed trade date", o{"action": "remove-snapshots", "snapshot-ids": []int64{s2}})

	// A stream's records, and that it can go on.
	protected("main can only go on", ref("main", "branch", s1))
	protected("main can only go on", o{"action": "remove-snapshot-ref", "ref-name": "main"})
	refuse(400, typeBadRequest, "branch", ref("main", "tag", s3))
	schema := func(fields string) []o {
		return []o{{"action": "add-schema", "schema": jsonRaw(`{"type":"struct","fields":[` + fields + `]}`)}, {"action": "set-current-schema", "schema-id": -1}}
	}
	const n, note = `{"id":1,"name":"n","required":true,"type":"long"}`, `{"id":2,"name":"note","required":false,"type":"string"}`
	for _, fields := range []string{n, note + "," + n, n + "," + strings.Replace(note, `"note"`, `"remark"`, 1), n + "," + strings.Replace(note, `"string"`, `"long"`, 1),
		strings.Replace(n, "true", "false", 1) + "," + note, n + "," + note + `,{"id":3,"name":"must","required":true,"type":"string"}`} {
		protected("has fed it", schema(fields)...)
	}
	refuse(400, typeBadRequest, "differ only by case", schema(n+","+note+`,{"id":3,"name":"Note","required":false,"type":"string"}`)...)
	protected("partitions cannot be changed", o{"action": "add-spec", "spec": o{"fields": []o{{"name": "n_bucket", "transform": "bucket[4]", "source-id": 1}}}}, o{"action": "set-default-spec", "spec-id": -1})
	w.refused("admin", "POST", "/v1/namespaces/desk/tables/awaited", update(o{"action": "add-spec", "spec": o{"fields": []o{{"name": "n_bucket", "transform": "bucket[4]", "source-id": 1}}}}, o{"action": "set-default-spec", "spec-id": -1}), 400, typeBadRequest, "orders feeds it")
	w.refused("admin", "DELETE", "/v1/namespaces/desk/tables/awaited", "", 400, typeBadRequest, "orders feeds it")
	w.refused("admin", "POST", "/v1/tables/rename", `{"source":{"namespace":["desk"],"name":"awaited"},"destination":{"namespace":["desk"],"name":"x"}}`, 400, typeBadRequest, "orders feeds it")

	// What somebody needs.
	w.must(200, "admin", "POST", path, update(ref("mine", "tag", s1)))
	before = w.load("desk", "trades").MetadataLocation()
	protected("kept by tag mine", o{"action": "remove-snapshots", "snapshot-ids": []int64{s1}})
	w.must(200, "admin", "POST", path, update(o{"action": "remove-snapshot-ref", "ref-name": "mine"}))
	before = w.load("desk", "trades").MetadataLocation()
	needed = []int64{s1}
	protected("view still needs", o{"action": "remove-snapshots", "snapshot-ids": []int64{s1}})
	needed = nil
	files, err := w.catalog.Files(ctx, tbl, catalog.At{SnapshotID: s1})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		pinned[f.Path] = true // still a file of the current snapshot: no hindrance
	}
	kept = "it is the state of a view"
	protected("state of a view", set("a", "b"))
	w.refused("admin", "DELETE", path, "", 400, typeBadRequest, "state of a view")
	kept = ""
	w.refused("admin", "DELETE", path, "", 400, typeBadRequest, "sealed trade date")
	w.refused("admin", "POST", "/v1/tables/rename", `{"source":{"namespace":["desk"],"name":"trades"},"destination":{"namespace":["desk"],"name":"x"}}`, 400, typeBadRequest, "sealed trade date")

	// Places.
	for _, l := range []string{"file:///etc", "s3://bucket/x", w.lake.URI("desk/../../x"), other.Location, w.lake.URI("desk/elsewhere"), ""} {
		protected("cannot be changed", o{"action": "set-location", "location": l})
	}
	for _, k := range []string{"write.data.path", "write.metadata.path"} {
		for _, p := range []string{"file:///tmp", other.Location, tbl.Location + "/../x", tbl.Location + "x"} {
			protected("outside the table's location", set(k, p))
		}
	}
	protected("outside the table's location", o{"action": "set-statistics", "snapshot-id": s3, "statistics": o{"snapshot-id": s3, "statistics-path": other.Location + "/metadata/x.puffin", "file-size-in-bytes": 1, "file-footer-size-in-bytes": 1, "blob-metadata": []o{}}})

	// Forms.
	refuse(406, typeUnsupported, "format version 3", o{"action": "upgrade-format-version", "format-version": 3})
	refuse(400, typeBadRequest, "unknown update action", o{"action": "make-coffee"})
	refuse(400, typeBadRequest, "snapshot-id", o{"action": "set-snapshot-ref", "ref-name": "x", "type": "tag"})
	w.refused("admin", "POST", path, object(t, o{"requirements": []o{{"type": "assert-weather"}}, "updates": []o{}}), 400, typeBadRequest, "assert-weather")
	w.refused("admin", "POST", path, object(t, o{"requirements": []o{{"type": "assert-table-uuid", "uuid": uuid.NewString()}}, "updates": []o{set("a", "b")}}), 409, typeCommitFailed, "UUID mismatch")
	w.refused("admin", "POST", path, object(t, o{"requirements": []o{{"type": "assert-ref-snapshot-id", "ref": "main", "snapshot-id": s1}}, "updates": []o{set("a", "b")}}), 409, typeCommitFailed, "has changed")
	w.refused("admin", "POST", path, object(t, o{"requirements": []o{{"type": "assert-create"}}, "updates": []o{}}), 409, typeAlreadyExists, "exists")

	// And what a client may do, beside a stream and a seal.
	w.must(200, "admin", "POST", path, update(ref("mine", "tag", s3), set("owner", "desk")))
	w.must(200, "admin", "POST", path, update(o{"action": "remove-snapshot-ref", "ref-name": "mine"}))
	w.must(200, "admin", "POST", path, update(schema(n+","+note+`,{"id":3,"name":"venue","required":false,"type":"string"}`)...))
	w.must(200, "admin", "POST", path, update(o{"action": "remove-snapshots", "snapshot-ids": []int64{s1}}))
	if foreign, err = c.LoadTable(ctx, table.Identifier{"desk", "trades"}); err != nil {
		t.Fatal(err)
	}
	foreign = appendRows(t, foreign, 30, 40)
	if count, total := sum(t, foreign); count != 40 || total != 39*40/2 {
		t.Errorf("%d rows, sum %d", count, total)
	}
	after := w.load("desk", "trades")
	if after.Through()[streamKey] != 20 || after.Tags()["eod-2026-11-20"] != s2 || after.Properties["owner"] != "desk" {
		t.Errorf("progress %v, tags %v", after.Through(), after.Tags())
	}
	commit(catalog.Commit{Add: []catalog.NewFile{w.file(after, 40, 10)}, Through: record.Vector{streamKey: 30}, RequireThrough: &record.Vector{streamKey: 20}})
}

// TestPinnedSnapshot: a snapshot whose files a query reads goes when it has read them.
func TestPinnedSnapshot(t *testing.T) {
	ctx := t.Context()
	pinned := map[string]bool{}
	w := newWorld(t, func(o *Options) { o.Guard.Pinned = func(path string) bool { return pinned[path] } })
	w.newTable("desk", "trades")
	tbl, err := w.client("admin", false).LoadTable(ctx, table.Identifier{"desk", "trades"})
	if err != nil {
		t.Fatal(err)
	}
	tbl = appendRows(t, tbl, 0, 10)
	first := tbl.CurrentSnapshot().SnapshotID
	files, err := w.catalog.Files(ctx, w.load("desk", "trades"), catalog.At{})
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if tbl, err = tbl.OverwriteTable(ctx, rows(10, 20), 1<<16, nil); err != nil {
		t.Fatal(err)
	}
	pinned[files[0].Path] = true
	var older []int64
	for _, s := range tbl.Metadata().Snapshots() {
		if s.SnapshotID != tbl.CurrentSnapshot().SnapshotID {
			older = append(older, s.SnapshotID)
		}
	}
	body := object(t, o{"updates": []o{{"action": "remove-snapshots", "snapshot-ids": older}}})
	w.refused("admin", "POST", "/v1/namespaces/desk/tables/trades", body, 409, typeCommitFailed, "query")
	clear(pinned)
	w.must(200, "admin", "POST", "/v1/namespaces/desk/tables/trades", body)
	if _, err := w.load("desk", "trades").Resolve(catalog.At{SnapshotID: first}); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("the snapshot is still there: %v", err)
	}
	// Nobody but the table's own garbage list deletes the file now.
	r, err := w.catalog.Sweep(ctx, catalog.SweepPolicy{})
	if err != nil || r.Deleted == 0 {
		t.Fatal(r, err)
	}
	if _, err := os.Stat(files[0].Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the removed snapshot's file: %v", err)
	}
	if count, total := sum(t, tbl); count != 10 || total != 145 {
		t.Errorf("%d rows, sum %d", count, total)
	}
}

// TestPlaces: where tables may be made, and from where they may be taken over.
func TestPlaces(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	w.newTable("desk", "trades")
	tbl := w.load("desk", "trades")
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(w.lake.Dir(), "desk", "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(w.lake.Dir(), "away")); err != nil {
		t.Fatal(err)
	}
	put(t, w.lake, "raw/files/day.csv", []byte("a,b\n"))
	create := func(location string) string {
		return object(t, o{"name": "placed", "schema": jsonRaw(tradesSchemaJSON), "location": location})
	}
	const tables = "/v1/namespaces/desk/tables"
	for location, message := range map[string]string{
		"file:///etc/x": "outside the lake", "s3://bucket/desk/x": "outside the lake", "desk/x": "outside the lake", "/etc/passwd": "outside the lake",
		w.lake.URI("desk/../../x"): "outside the lake", w.lake.URI("desk/.hidden"): "outside the lake", w.lake.URI("desk/a b"): "outside the lake", w.lake.URI("desk/%2e%2e"): "outside the lake",
		w.lake.URI("desk"): "want", w.lake.URI("desk/a/b"): "want", w.lake.URI(""): "outside the lake",
		tbl.Location: "files lie there", tbl.Location + "/": "files lie there", tbl.Location + "/data": "want", w.lake.URI("raw/files"): "files lie there",
		w.lake.URI("desk/link"): "symbolic link", w.lake.URI("away/x"): "symbolic link",
	} {
		w.refused("admin", "POST", tables, create(location), 400, typeBadRequest, message)
	}
	w.refused("admin", "POST", tables, object(t, o{"name": "placed", "schema": jsonRaw(tradesSchemaJSON), "stage-create": true, "location": w.lake.URI("desk/mine")}), 406, typeUnsupported, "leave it out")
	placed := w.must(200, "admin", "POST", tables, create(w.lake.URI("desk/mine")+"/"))
	if got := placed["metadata"].(o)["location"]; got != w.lake.URI("desk/mine") {
		t.Errorf("location %v", got)
	}

	// Foreign metadata.
	register := func(location string) string {
		return object(t, o{"name": "taken", "metadata-location": location})
	}
	const registers = "/v1/namespaces/desk/register"
	raw, err := tbl.Metadata(false)
	if err != nil {
		t.Fatal(err)
	}
	put(t, w.lake, "desk/stray/metadata/00001-x.metadata.json", raw)
	put(t, w.lake, "desk/stray/metadata/00002-x.metadata.json", []byte("not JSON"))
	put(t, w.lake, "desk/stray/metadata/00003-x.metadata.json", []byte(strings.Replace(string(raw), `"format-version":2`, `"format-version":3`, 1)))
	if err := os.WriteFile(filepath.Join(outside, "x.metadata.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	for location, message := range map[string]string{
		"file:///etc/passwd": "outside the lake", w.lake.URI("desk/none.metadata.json"): "no such file", w.lake.URI("desk/link/x.metadata.json"): "symbolic link",
		w.lake.URI("desk/stray/metadata/00001-x.metadata.json"): "own place", w.lake.URI("desk/stray/metadata/00002-x.metadata.json"): "metadata",
		tbl.MetadataLocation(): "another table's files", w.lake.URI("raw/files/day.csv"): "",
	} {
		w.refused("admin", "POST", registers, register(location), 400, typeBadRequest, message)
	}
	w.refused("admin", "POST", registers, object(t, o{"name": "trades", "metadata-location": tbl.MetadataLocation(), "overwrite": true}), 406, typeUnsupported, "drop it")

	// A former stream's table is taken over without its progress, with its seals.
	if _, err := w.catalog.Commit(ctx, []catalog.Commit{{Table: tbl.Name, Add: []catalog.NewFile{w.file(tbl, 0, 5)}, Through: record.Vector{streamKey: 5}}}); err != nil {
		t.Fatal(err)
	}
	at := w.load("desk", "trades").MetadataLocation()
	w.must(204, "admin", "DELETE", tables+"/trades?purgeRequested=false", "")
	w.must(200, "admin", "POST", registers, register(at))
	taken := w.load("desk", "taken")
	if len(taken.Through()) != 0 {
		t.Errorf("progress %v of a stream that does not feed it", taken.Through())
	}
	files, err := w.catalog.Files(ctx, taken, catalog.At{})
	if err != nil || len(files) != 1 || files[0].Rows != 5 {
		t.Errorf("%v %v", files, err)
	}

	// A place that is being deleted is nobody's.
	w.must(204, "admin", "DELETE", tables+"/placed?purgeRequested=true", "")
	if err := w.lake.Delete(ctx, names(t, w.lake, "desk/mine/")...); err != nil {
		t.Fatal(err)
	}
	w.refused("admin", "POST", tables, create(w.lake.URI("desk/mine")), 400, typeBadRequest, "another table's files")
}

func names(t *testing.T, l *lake.Local, prefix string) (out []string) {
	t.Helper()
	if err := l.List(t.Context(), prefix, func(i lake.Info) error { out = append(out, i.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestForeignFiles: a snapshot whose files are not there, are another table's, or
// of a kind that is not read here, is not taken.
func TestForeignFiles(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	w.newTable("desk", "trades")
	w.newTable("desk", "secret")
	c := w.client("admin", false)
	open := func(name string) *table.Table {
		tbl, err := c.LoadTable(ctx, table.Identifier{"desk", name})
		if err != nil {
			t.Fatal(err)
		}
		return tbl
	}
	secret := appendRows(t, open("secret"), 0, 10)
	files, err := w.catalog.Files(ctx, w.load("desk", "secret"), catalog.At{})
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	rejected := func(what, message string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), message) {
			t.Errorf("%s: %v, want … %s …", what, err, message)
		}
		if tbl := w.load("desk", "trades"); tbl.Snapshot() != 0 {
			t.Fatalf("%s: the table has changed", what)
		}
	}
	dataFile := func(uri string, format iceberg.FileFormat, content iceberg.ManifestEntryContent, size int64) iceberg.DataFile {
		b, err := iceberg.NewDataFileBuilder(*iceberg.UnpartitionedSpec, content, uri, format, nil, nil, nil, 10, size)
		if err != nil {
			t.Fatal(err)
		}
		if content == iceberg.EntryContentEqDeletes {
			b = b.EqualityFieldIDs([]int{1})
		}
		return b.Build()
	}
	add := func(f iceberg.DataFile) error {
		tx := open("trades").NewTransaction()
		if err := tx.AddDataFiles(ctx, []iceberg.DataFile{f}, nil, table.WithoutDuplicateCheck(), table.WithoutAutoNameMapping()); err != nil {
			return err
		}
		_, err := tx.Commit(ctx)
		return err
	}
	here := w.load("desk", "trades").Location + "/data/"
	size := files[0].SizeBytes
	rejected("another table's file", "belongs to one table", add(dataFile(files[0].URI(), iceberg.ParquetFile, iceberg.EntryContentData, size)))
	rejected("a file outside the lake", "outside the table's location", add(dataFile("file:///etc/passwd", iceberg.ParquetFile, iceberg.EntryContentData, size)))
	rejected("a file by ..", "outside the table's location", add(dataFile(here+"../../"+filepath.Base(secret.Location())+"/data/"+filepath.Base(files[0].Path), iceberg.ParquetFile, iceberg.EntryContentData, size)))
	rejected("a file that is not there", "is not there", add(dataFile(here+"none.parquet", iceberg.ParquetFile, iceberg.EntryContentData, size)))
	put(t, w.lake, lakeName(t, w, here+"short.parquet"), []byte("PAR1"))
	rejected("a file of another size", "the commit says", add(dataFile(here+"short.parquet", iceberg.ParquetFile, iceberg.EntryContentData, size)))
	rejected("a file in ORC", "write Parquet", add(dataFile(here+"short.parquet", iceberg.OrcFile, iceberg.EntryContentData, 4)))
	if err := os.Symlink(files[0].Path, filepath.Join(strings.TrimPrefix(here, "file://"), "link.parquet")); err != nil {
		t.Fatal(err)
	}
	rejected("a symbolic link", "symbolic link", add(dataFile(here+"link.parquet", iceberg.ParquetFile, iceberg.EntryContentData, size)))

	tx := open("trades").NewTransaction()
	if err := tx.NewRowDelta(nil).AddDeletes(dataFile(here+"short.parquet", iceberg.ParquetFile, iceberg.EntryContentEqDeletes, 4)).Commit(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = tx.Commit(ctx)
	rejected("equality deletes", "delete by position", err)

	tx = open("trades").NewTransaction()
	if err := tx.AppendTable(ctx, rows(0, 1), 10, iceberg.Properties{"tapehouse.through": "x"}); err != nil {
		t.Fatal(err)
	}
	_, err = tx.Commit(ctx)
	rejected("a summary with progress", "Tapehouse's own", err)

	// The manifest list of another table, and one that is none.
	snapshot := func(list string) string {
		return object(t, o{"updates": []o{{"action": "add-snapshot", "snapshot": o{"snapshot-id": 77, "sequence-number": 1, "timestamp-ms": secret.CurrentSnapshot().TimestampMs, "manifest-list": list,
			"summary": o{"operation": "append"}, "schema-id": 0}}, {"action": "set-snapshot-ref", "ref-name": "main", "type": "branch", "snapshot-id": 77}}})
	}
	put(t, w.lake, lakeName(t, w, here+"garbage.avro"), []byte("Obj\x01not a manifest list"))
	const path = "/v1/namespaces/desk/tables/trades"
	w.refused("admin", "POST", path, snapshot(secret.CurrentSnapshot().ManifestList), 400, typeBadRequest, "belongs to one table")
	w.refused("admin", "POST", path, snapshot(here+"none.avro"), 400, typeBadRequest, "not found")
	w.refused("admin", "POST", path, snapshot(here+"garbage.avro"), 400, typeBadRequest, "")
	rejected("all of that", "", errors.New(""))
	if got := w.load("desk", "secret"); got.Snapshot() != secret.CurrentSnapshot().SnapshotID {
		t.Error("the other table has changed")
	}
}

func lakeName(t *testing.T, w *world, uri string) string {
	t.Helper()
	name, ok := w.lake.Name(uri)
	if !ok {
		t.Fatal(uri)
	}
	return name
}

// TestCreateRefuses: tables that this program could not read.
func TestCreateRefuses(t *testing.T) {
	w := newWorld(t)
	w.newTable("desk", "trades")
	good := o{"name": "x", "schema": jsonRaw(tradesSchemaJSON)}
	with := func(change o) string {
		m := maps.Clone(good)
		maps.Copy(m, change)
		return object(t, m)
	}
	const path = "/v1/namespaces/desk/tables"
	for _, c := range []struct {
		change  o
		status  int
		kind    string
		message string
	}{
		{o{"name": "trades"}, 409, typeAlreadyExists, "exists"},
		{o{"name": ""}, 400, typeBadRequest, "table name"},
		{o{"name": "a/b"}, 400, typeBadRequest, "table name"},
		{o{"name": "../x"}, 400, typeBadRequest, "table name"},
		{o{"schema": nil}, 400, typeBadRequest, "schema"},
		{o{"schema": o{"type": "struct", "fields": []o{}}}, 400, typeBadRequest, "columns"},
		{o{"schema": o{"type": "struct", "fields": []o{{"id": 1, "name": "a", "required": false, "type": "wonder"}}}}, 400, typeBadRequest, ""},
		{o{"schema": o{"type": "struct", "fields": []o{{"id": 1, "name": "a", "required": false, "type": "variant"}}}}, 400, typeBadRequest, ""},
		{o{"partition-spec": o{"fields": []o{{"source-id": 9, "field-id": 1000, "name": "p", "transform": "identity"}}}}, 400, typeBadRequest, ""},
		{o{"write-order": o{"order-id": 1, "fields": []o{{"source-id": 9, "transform": "identity", "direction": "asc", "null-order": "nulls-first"}}}}, 400, typeBadRequest, ""},
		{o{"properties": o{"format-version": "3"}}, 406, typeUnsupported, "format version 3"},
		{o{"properties": o{"format-version": "1"}}, 406, typeUnsupported, "format version 1"},
		{o{"properties": o{"tapehouse.through": "x"}}, 400, typeBadRequest, ""},
		{o{"properties": o{"tapehouse.view": "x"}}, 400, typeBadRequest, "Tapehouse's own"},
		{o{"properties": o{"write.data.path": "file:///tmp"}}, 400, typeBadRequest, "outside"},
		{o{"properties": o{"write.metadata.compression-codec": "zstd"}}, 406, typeUnsupported, "compression"},
	} {
		w.refused("admin", "POST", path, with(c.change), c.status, c.kind, c.message)
	}
	w.refused("admin", "POST", "/v1/namespaces/nobody/tables", object(t, good), 404, typeNoSuchNamespace, "nobody")
	if n := w.count(); n != 1 {
		t.Errorf("%d tables", n)
	}
}
