package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/market"
)

// catalogToken exchanges a key for a bearer token.
func catalogToken(t *testing.T, s *Server, id, secret string) string {
	t.Helper()
	res, err := http.PostForm("http://"+s.Addresses().AWS+"/iceberg/v1/oauth/tokens", url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}})
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Token string `json:"access_token"`
	}
	err = json.NewDecoder(res.Body).Decode(&answer)
	if err = errors.Join(err, res.Body.Close()); err != nil || res.StatusCode != 200 || answer.Token == "" {
		t.Fatalf("%d, %v", res.StatusCode, err)
	}
	return answer.Token
}

// callCatalog sends a request with a token, and returns the status and the answer.
func callCatalog(t *testing.T, s *Server, token, method, path, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.Addresses().AWS+"/iceberg"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// TestIcebergREST: the catalog stands beside the AWS APIs on one port, sees what
// SQL and streams made, and does not take away what they rely on.
func TestIcebergREST(t *testing.T) {
	s := open(t, testConfig(t))
	conn := connect(t, s)
	admin := s.Credentials().Keys[0]
	token := catalogToken(t, s, admin.ID, admin.Secret)
	expect := func(status int, part, method, path, body string) {
		t.Helper()
		if got, answer := callCatalog(t, s, token, method, path, body); got != status || !strings.Contains(answer, part) {
			t.Errorf("%s %s: %d %s, want %d … %s …", method, path, got, answer, status, part)
		}
	}
	putLegs(t, s, "J", 1, 100)
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	execute1(t, conn, `CREATE TABLE public.own (a int, b varchar)`)
	execute1(t, conn, `INSERT INTO public.own VALUES (1, 'x')`)
	execute1(t, conn, `CREATE MATERIALIZED VIEW public.by_b AS SELECT b, count(*) AS n FROM public.own GROUP BY b`)

	expect(200, `"prefix":"tapehouse"`, "GET", "/v1/config", "")
	expect(200, `["equities"]`, "GET", "/v1/tapehouse/namespaces", "")
	expect(200, `"name":"executions"`, "GET", "/v1/tapehouse/namespaces/equities/tables", "")
	expect(200, `"metadata-location":"file://`, "GET", "/v1/tapehouse/namespaces/equities/tables/executions", "")
	expect(406, "Views are not served", "GET", "/v1/tapehouse/namespaces/public/views", "")

	// What a client makes, SQL has, and the other way round.
	expect(200, "", "POST", "/v1/namespaces/public/tables", `{"name":"theirs","schema":{"type":"struct","fields":[{"id":1,"name":"a","required":false,"type":"int"}]}}`)
	execute1(t, conn, `INSERT INTO public.theirs VALUES (7)`)
	if got := text(t, conn, `SELECT a FROM public.theirs`); got != "7" {
		t.Errorf("theirs has %s", got)
	}
	expect(200, `"added-records":"1"`, "GET", "/v1/namespaces/public/tables/theirs", "")
	expect(200, "", "POST", "/v1/namespaces/public/tables/theirs", `{"updates":[{"action":"add-schema","schema":{"type":"struct","fields":[{"id":1,"name":"a","required":false,"type":"long"},{"id":2,"name":"more","required":false,"type":"string"}]}},{"action":"set-current-schema","schema-id":-1}]}`)
	if got := text(t, conn, `SELECT a + 3000000000 || coalesce(more, '-') FROM public.theirs`); got != "3000000007-" {
		t.Errorf("after a change of the schema: %s", got)
	}

	// What is relied on.
	expect(400, "depends on it", "DELETE", "/v1/namespaces/equities/tables/executions?purgeRequested=true", "")
	expect(400, "depends on it", "POST", "/v1/tables/rename", `{"source":{"namespace":["equities"],"name":"executions"},"destination":{"namespace":["public"],"name":"x"}}`)
	expect(400, "has fed it", "POST", "/v1/namespaces/equities/tables/executions", `{"updates":[{"action":"remove-snapshot-ref","ref-name":"main"}]}`)
	expect(400, "materialized view public.by_b", "DELETE", "/v1/namespaces/public/tables/own", "")
	own, err := s.catalog.Load(t.Context(), catalog.Name{Namespace: "public", Table: "own"})
	if err != nil {
		t.Fatal(err)
	}
	seen := own.Snapshot()
	execute1(t, conn, `INSERT INTO public.own VALUES (2, 'y')`)
	expect(400, "view still needs", "POST", "/v1/namespaces/public/tables/own", fmt.Sprintf(`{"updates":[{"action":"remove-snapshots","snapshot-ids":[%d]}]}`, seen))
	names, err := s.catalog.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	states := 0
	for _, n := range names {
		tbl, err := s.catalog.Load(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		if tbl.Properties["tapehouse.view"] != "" {
			states++
			expect(400, "state of materialized view", "POST", "/v1/namespaces/"+n.Namespace+"/tables/"+n.Table, `{"updates":[{"action":"set-properties","updates":{"a":"b"}}]}`)
			expect(400, "state of materialized view", "DELETE", "/v1/namespaces/"+n.Namespace+"/tables/"+n.Table, "")
		}
	}
	if states == 0 {
		t.Error("no state of the view was found")
	}
	sealed := market.Tag(calendar.Date(2026, time.November, 20), 1)
	if _, err := s.catalog.Commit(t.Context(), []catalog.Commit{{Table: catalog.Name{Namespace: "public", Table: "theirs"}, Tags: map[string]int64{sealed: 0}}}); err != nil {
		t.Fatal(err)
	}
	expect(400, "sealed trade date", "POST", "/v1/namespaces/public/tables/theirs", `{"updates":[{"action":"remove-snapshot-ref","ref-name":"`+sealed+`"}]}`)
	expect(400, "sealed trade date", "DELETE", "/v1/namespaces/public/tables/theirs", "")

	// A dropped table is gone from SQL as well.
	expect(200, "", "POST", "/v1/namespaces/public/tables", `{"name":"brief","schema":{"type":"struct","fields":[{"id":1,"name":"a","required":false,"type":"int"}]}}`)
	expect(204, "", "DELETE", "/v1/namespaces/public/tables/brief?purgeRequested=true", "")
	if _, err := rowsOf(t.Context(), conn, `SELECT * FROM public.brief`); err == nil {
		t.Error("SQL still has the dropped table")
	}

	// Another key, its grants, and its end.
	key := issue(t, s, auth.KindAWS, "reader", auth.Grant{Service: "glue", Operations: []string{"read"}, Streams: []string{"public.*"}})
	theirs := catalogToken(t, s, key.ID, key.Secret)
	for path, want := range map[string]int{"/v1/namespaces/public/tables/own": 200, "/v1/namespaces/equities/tables/executions": 403, "/v1/namespaces": 403} {
		if got, answer := callCatalog(t, s, theirs, "GET", path, ""); got != want {
			t.Errorf("%s: %d %s, want %d", path, got, answer, want)
		}
	}
	if got, _ := callCatalog(t, s, theirs, "DELETE", "/v1/namespaces/public/tables/own", ""); got != 403 {
		t.Errorf("a reader's drop: %d", got)
	}
	if err := (&auth.Keeper{FS: fsys.OS, Dir: s.cfg.Data}).Revoke(t.Context(), auth.KindAWS, "reader", "", true); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		got, _ := callCatalog(t, s, theirs, "GET", "/v1/namespaces/public/tables/own", "")
		if got == 401 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the token of a revoked key: %d", got)
		}
	}
	putLegs(t, s, "J", 101, 100) // the AWS APIs are still at the root
}

// TestIcebergRESTOnS3: a client is told where the lake's service is, and never by
// which key.
func TestIcebergRESTOnS3(t *testing.T) {
	cfg, server, _ := s3Config(t)
	s := open(t, cfg)
	admin := s.Credentials().Keys[0]
	token := catalogToken(t, s, admin.ID, admin.Secret)
	status, answer := callCatalog(t, s, token, "GET", "/v1/namespaces/equities/tables/executions", "")
	var loaded struct {
		Location string            `json:"metadata-location"`
		Config   map[string]string `json:"config"`
	}
	if err := json.Unmarshal([]byte(answer), &loaded); err != nil || status != 200 {
		t.Fatalf("%d %s: %v", status, answer, err)
	}
	if !strings.HasPrefix(loaded.Location, "s3://"+server.Bucket+"/tape/house/equities/executions-") {
		t.Errorf("location %s", loaded.Location)
	}
	if c := loaded.Config; c["s3.endpoint"] != cfg.Lake.Endpoint || c["s3.path-style-access"] != "true" || c["s3.region"] == "" {
		t.Errorf("config %v", c)
	}
	if strings.Contains(answer, cfg.Lake.SecretAccessKey) || strings.Contains(answer, cfg.Lake.AccessKeyID) {
		t.Error("the answer holds the lake's key")
	}
	if status, answer := callCatalog(t, s, token, "GET", "/v1/namespaces/equities/tables/executions/credentials", ""); status != 406 || !strings.Contains(answer, "not handed out") {
		t.Errorf("%d %s", status, answer)
	}
}
