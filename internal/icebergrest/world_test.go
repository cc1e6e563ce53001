package icebergrest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog/rest"
	_ "github.com/apache/iceberg-go/io" // file://
	"github.com/apache/iceberg-go/table"
	"github.com/aws/aws-sdk-go-v2/aws"
	awscredentials "github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
)

// world is a catalog on a lake in a directory, served.
type world struct {
	t       testing.TB
	lake    *lake.Local
	catalog *catalog.Catalog
	handler *Handler
	keys    *auth.Credentials
	url     string
}

// The keys: one that may do everything, and what others may.
var grants = map[string][]auth.Grant{
	"reader": {{Service: "glue", Operations: []string{"read"}, Streams: []string{"*"}}},
	"team":   {{Service: "glue", Operations: []string{"read", "admin"}, Streams: []string{"team", "team.*"}}},
	"names":  {{Service: "glue", Operations: []string{"read", "admin"}, Streams: []string{"team"}}},
	"one":    {{Service: "glue", Operations: []string{"GetTable", "UpdateTable"}, Streams: []string{"team.one"}}},
	"put":    {{Service: "firehose", Operations: []string{"put"}, Streams: []string{"*"}}},
}

func newWorld(t testing.TB, change ...func(*Options)) *world {
	t.Helper()
	dir := t.TempDir()
	store, err := lake.OpenLocal(fsys.OS, filepath.Join(dir, "lake"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := catalog.Open(context.Background(), catalog.Options{Dir: filepath.Join(dir, "catalog"), Warehouse: store, Owner: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	keys := &auth.Credentials{Keys: []auth.AccessKey{{Name: "admin", ID: "AKIAADMIN", Secret: "the administrator's secret key", Policy: auth.Administrator}}}
	for name, g := range grants {
		p, err := auth.NewPolicy(g...)
		if err != nil {
			t.Fatal(err)
		}
		keys.Keys = append(keys.Keys, auth.AccessKey{Name: name, ID: "AKIA" + strings.ToUpper(name), Secret: "the secret key of " + name, Policy: p})
	}
	o := Options{Catalog: c, Verifier: auth.NewVerifier(keys, nil), Tokens: auth.NewTokens(keys, nil), AccountID: "000000000000",
		Guard:      catalog.Guard{Sealed: func(tag string) bool { return strings.HasPrefix(tag, "eod-") }},
		Registerer: prometheus.NewRegistry()}
	for _, f := range change {
		f(&o)
	}
	h, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return &world{t: t, lake: store, catalog: c, handler: h, keys: keys, url: server.URL}
}

func (w *world) key(name string) auth.AccessKey {
	for _, k := range w.keys.Keys {
		if k.Name == name {
			return k
		}
	}
	w.t.Fatal("no key " + name)
	return auth.AccessKey{}
}

// client is Iceberg's own client with a bearer token, or with signatures.
func (w *world) client(name string, sign bool) *rest.Catalog {
	w.t.Helper()
	k := w.key(name)
	option := rest.WithCredential(k.ID + ":" + k.Secret)
	options := []rest.Option{option}
	if sign {
		options = []rest.Option{rest.WithSigV4RegionSvc("us-east-1", "glue"),
			rest.WithAwsConfig(aws.Config{Region: "us-east-1", Credentials: awscredentials.NewStaticCredentialsProvider(k.ID, k.Secret, "")})}
	}
	c, err := rest.NewCatalog(context.Background(), "test", w.url+Mount, options...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// do sends a request with a token of the key ("" sends none) and returns status,
// headers and the answer.
func (w *world) do(key, method, path, body string) (status int, answer map[string]any, header http.Header) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, w.url+Mount+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if key != "" {
		k := w.key(key)
		token, _, err := w.handler.o.Tokens.Issue(k.ID, k.Secret)
		if err != nil {
			w.t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return w.send(r)
}

func (w *world) send(r *http.Request) (status int, answer map[string]any, header http.Header) {
	w.t.Helper()
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil {
		w.t.Fatal(err)
	}
	if len(b) > 0 {
		if err := json.Unmarshal(b, &answer); err != nil {
			w.t.Fatalf("%s: %v", b, err)
		}
	}
	return res.StatusCode, answer, res.Header
}

// must is do that has to have the status.
func (w *world) must(want int, key, method, path, body string) map[string]any {
	w.t.Helper()
	status, answer, _ := w.do(key, method, path, body)
	if status != want {
		w.t.Fatalf("%s %s: %d %v, want %d", method, path, status, answer, want)
	}
	return answer
}

// refused checks status, type and a part of the message.
func (w *world) refused(key, method, path, body string, status int, kind, message string) {
	w.t.Helper()
	got, answer, header := w.do(key, method, path, body)
	e, _ := answer["error"].(map[string]any)
	if method == http.MethodHead {
		if got != status {
			w.t.Errorf("%s %s: %d, want %d", method, path, got, status)
		}
		return
	}
	text, _ := e["message"].(string)
	if got != status || e["type"] != kind || e["code"] != float64(status) || !strings.Contains(text, message) || header.Get("Content-Type") != "application/json" {
		w.t.Errorf("%s %s %.200s: %d %v, want %d %s … %s …", method, path, body, got, answer, status, kind, message)
	}
}

func object(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

type o = map[string]any

var tradesSchema = iceberg.NewSchema(0,
	iceberg.NestedField{ID: 1, Name: "n", Type: iceberg.PrimitiveTypes.Int64, Required: true},
	iceberg.NestedField{ID: 2, Name: "note", Type: iceberg.PrimitiveTypes.String},
)

const tradesSchemaJSON = `{"type":"struct","schema-id":0,"fields":[{"id":1,"name":"n","required":true,"type":"long"},{"id":2,"name":"note","required":false,"type":"string"}]}`

// newTable makes a table over HTTP.
func (w *world) newTable(namespace, name string) {
	w.t.Helper()
	if status, answer, _ := w.do("admin", "POST", "/v1/namespaces", object(w.t, o{"namespace": []string{namespace}})); status != 200 && status != 409 {
		w.t.Fatal(status, answer)
	}
	w.must(200, "admin", "POST", "/v1/namespaces/"+namespace+"/tables", `{"name":"`+name+`","schema":`+tradesSchemaJSON+`}`)
}

// rows makes the rows n = from … to-1.
func rows(from, to int64) arrow.Table {
	sc := arrow.NewSchema([]arrow.Field{{Name: "n", Type: arrow.PrimitiveTypes.Int64}, {Name: "note", Type: arrow.BinaryTypes.String, Nullable: true}}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, sc)
	defer b.Release()
	for n := from; n < to; n++ {
		b.Field(0).(*array.Int64Builder).Append(n)
		b.Field(1).(*array.StringBuilder).Append(fmt.Sprint("row ", n))
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	return array.NewTableFromRecords(sc, []arrow.RecordBatch{rec})
}

// sum scans a table by the client: how many rows, and the sum of n.
func sum(t testing.TB, tbl *table.Table, options ...table.ScanOption) (count, total int64) {
	t.Helper()
	all, err := tbl.Scan(options...).ToArrowTable(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer all.Release()
	i := all.Schema().FieldIndices("n")[0]
	for _, chunk := range all.Column(i).Data().Chunks() {
		for _, n := range chunk.(*array.Int64).Int64Values() {
			count++
			total += n
		}
	}
	return count, total
}

func (w *world) load(namespace, name string) *catalog.Table {
	w.t.Helper()
	tbl, err := w.catalog.Load(context.Background(), catalog.Name{Namespace: namespace, Table: name})
	if err != nil {
		w.t.Fatal(err)
	}
	return tbl
}

func appendRows(t testing.TB, tbl *table.Table, from, to int64) *table.Table {
	t.Helper()
	data := rows(from, to)
	defer data.Release()
	out, err := tbl.AppendTable(context.Background(), data, 1<<16, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func put(t testing.TB, store lake.Store, name string, b []byte) {
	t.Helper()
	if err := store.Put(context.Background(), name, bytes.NewReader(b), int64(len(b))); err != nil {
		t.Fatal(err)
	}
}

// signed is a request with a signature of the key.
func (w *world) signed(key, method, path, body string) *http.Request {
	w.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, w.url+Mount+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	auth.NewSigner(w.key(key), "us-east-1", "glue").Sign(r, sha256.Sum256([]byte(body)), time.Now())
	return r
}

// file writes a data file of the table as a stream would, for our own commit.
func (w *world) file(tbl *catalog.Table, from, n int64) catalog.NewFile {
	w.t.Helper()
	id := func(n string) arrow.Metadata {
		return arrow.NewMetadata([]string{"PARQUET:field_id"}, []string{n})
	}
	sc := arrow.NewSchema([]arrow.Field{{Name: "n", Type: arrow.PrimitiveTypes.Int64, Metadata: id("1")}, {Name: "note", Type: arrow.BinaryTypes.String, Nullable: true, Metadata: id("2")}}, nil)
	data := rows(from, from+n)
	defer data.Release()
	var buf bytes.Buffer
	pw, err := pqarrow.NewFileWriter(sc, &buf, nil, pqarrow.DefaultWriterProps())
	if err != nil {
		w.t.Fatal(err)
	}
	rec := array.NewTableFromSlice(sc, [][]arrow.Array{data.Column(0).Data().Chunks(), data.Column(1).Data().Chunks()})
	defer rec.Release()
	if err := errors.Join(pw.WriteTable(rec, 1<<16), pw.Close()); err != nil {
		w.t.Fatal(err)
	}
	name := fmt.Sprintf("%s/%d-%s.parquet", tbl.DataDir(), from, uuid.NewString())
	put(w.t, w.lake, name, buf.Bytes())
	return catalog.NewFile{Path: name, Stats: catalog.FileStats{Rows: n, SizeBytes: int64(buf.Len()), SchemaID: tbl.Schema.ID}}
}
