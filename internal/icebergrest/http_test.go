package icebergrest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/catalog"
)

func jsonRaw(s string) json.RawMessage { return json.RawMessage(s) }

// TestAnswers: each operation's answers, and its errors by status and type.
func TestAnswers(t *testing.T) {
	w := newWorld(t)
	config := w.must(200, "put", "GET", "/v1/config?warehouse=000000000000", "")
	if config["overrides"].(o)["prefix"] != Warehouse || len(config["endpoints"].([]any)) < 15 {
		t.Errorf("config %v", config)
	}
	w.refused("admin", "GET", "/v1/config?warehouse=other", "", 404, typeNoSuchWarehouse, "other")

	const ns = "/v1/tapehouse/namespaces"
	w.must(200, "admin", "POST", ns, `{"namespace":["desk"],"properties":{"owner":"me","team":"x"}}`)
	w.refused("admin", "POST", ns, `{"namespace":["desk"]}`, 409, typeAlreadyExists, "desk")
	w.refused("admin", "POST", ns, `{"namespace":["a","b"]}`, 400, typeBadRequest, "levels")
	w.refused("admin", "POST", ns, `{"namespace":[]}`, 400, typeBadRequest, "levels")
	w.refused("admin", "POST", ns, `{"namespace":["a b"]}`, 400, typeBadRequest, "namespace")
	w.refused("admin", "POST", ns, `{"namespace":["../x"]}`, 400, typeBadRequest, "namespace")
	w.refused("admin", "POST", ns, `{"namespace":"x"}`, 400, typeBadRequest, "body")
	w.refused("admin", "POST", ns, `not JSON`, 400, typeBadRequest, "body")
	if p := w.must(200, "reader", "GET", ns+"/desk", "")["properties"].(o); p["owner"] != "me" || len(p) != 2 {
		t.Errorf("properties %v", p)
	}
	w.must(204, "reader", "HEAD", ns+"/desk", "")
	w.refused("reader", "HEAD", ns+"/none", "", 404, "", "")
	w.refused("reader", "GET", ns+"/none", "", 404, typeNoSuchNamespace, "none")
	w.refused("reader", "GET", ns+"/desk%1Fdeeper", "", 404, typeNoSuchNamespace, "deeper")
	if l := w.must(200, "reader", "GET", ns+"?parent=desk", "")["namespaces"].([]any); len(l) != 0 {
		t.Errorf("children %v", l)
	}
	w.refused("reader", "GET", ns+"?parent=none", "", 404, typeNoSuchNamespace, "none")
	changed := w.must(200, "admin", "POST", ns+"/desk/properties", `{"removals":["team","nothing"],"updates":{"owner":"you"}}`)
	if fmt.Sprint(changed) != "map[missing:[nothing] removed:[team] updated:[owner]]" {
		t.Errorf("properties: %v", changed)
	}
	w.refused("admin", "POST", ns+"/desk/properties", `{"removals":["a"],"updates":{"a":"b"}}`, 422, typeUnprocessable, "both")
	w.refused("admin", "POST", ns+"/none/properties", `{}`, 404, typeNoSuchNamespace, "none")

	w.newTable("desk", "trades")
	const tables = ns + "/desk/tables"
	w.refused("admin", "DELETE", ns+"/desk", "", 409, typeNamespaceNotEmpty, "desk")
	w.refused("admin", "DELETE", ns+"/none", "", 404, typeNoSuchNamespace, "none")
	w.refused("reader", "GET", ns+"/none/tables", "", 404, typeNoSuchNamespace, "none")
	w.refused("reader", "GET", tables+"/none", "", 404, typeNoSuchTable, "none")
	w.refused("reader", "GET", ns+"/a%1Fb/tables/none", "", 404, typeNoSuchTable, "none")
	w.refused("reader", "HEAD", tables+"/none", "", 404, "", "")
	w.refused("admin", "DELETE", tables+"/none", "", 404, typeNoSuchTable, "none")
	w.refused("admin", "DELETE", tables+"/trades?purgeRequested=perhaps", "", 400, typeBadRequest, "purgeRequested")
	w.refused("admin", "POST", tables+"/none", `{"requirements":[],"updates":[]}`, 404, typeNoSuchTable, "none")
	w.refused("admin", "POST", tables+"/trades", `{"identifier":{"namespace":["desk"],"name":"other"},"updates":[]}`, 400, typeBadRequest, "identifier")
	w.refused("admin", "POST", ns+"/none/tables/x", `{"requirements":[{"type":"assert-create"}],"updates":[]}`, 400, typeBadRequest, "")
	w.must(200, "admin", "POST", tables+"/trades", `{"requirements":[],"updates":[]}`)
	rename := func(from, to string) string {
		return `{"source":{"namespace":["desk"],"name":"` + from + `"},"destination":{"namespace":["` + to + `"],"name":"trades2"}}`
	}
	w.refused("admin", "POST", "/v1/tables/rename", rename("none", "desk"), 404, typeNoSuchTable, "none")
	w.refused("admin", "POST", "/v1/tables/rename", rename("trades", "none"), 404, typeNoSuchNamespace, "none")
	w.must(204, "admin", "POST", "/v1/tapehouse/tables/rename", rename("trades", "desk"))
	w.newTable("desk", "trades")
	w.refused("admin", "POST", "/v1/tables/rename", rename("trades", "desk"), 409, typeAlreadyExists, "trades2")
	w.must(204, "reader", "POST", tables+"/trades/metrics", `{"report-type":"scan-report","table-name":"x"}`)
	w.refused("reader", "POST", tables+"/trades/metrics", `{}`, 400, typeBadRequest, "report-type")
	w.refused("admin", "POST", "/v1/transactions/commit", `{"table-changes":[]}`, 400, typeBadRequest, "table-changes")
	w.refused("admin", "POST", "/v1/transactions/commit", `{"table-changes":[{"updates":[]}]}`, 400, typeBadRequest, "identifier")

	// Refused by name.
	for path, message := range map[string]string{
		ns + "/desk/views": "materialized view", ns + "/desk/views/x": "materialized view", "/v1/views/rename": "materialized view", ns + "/desk/register-view": "materialized view",
		tables + "/trades/credentials": "Credentials", "/v1/aws/s3/sign": "Credentials", tables + "/trades/plan": "Scans", tables + "/trades/plan/7": "Scans", tables + "/trades/tasks": "Scans",
		ns + "/desk/functions": "Functions",
	} {
		for _, method := range []string{"GET", "POST"} {
			w.refused("reader", method, path, "", 406, typeUnsupported, message)
		}
	}
	for _, path := range []string{"/v1/nothing", "/v1/", "/v2/config", "/", "/v1/tapehouse", "/v1/other/namespaces", "/v1/a/b/c/d/e/f/g/h/i/j", tables + "/trades/x/y"} {
		w.refused("reader", "GET", path, "", 404, typeNotFound, "uri")
	}
	w.refused("reader", "PUT", tables, "", 405, typeUnsupported, "PUT")
}

// TestAuthentication: nobody gets in without a key, and nothing is said before.
func TestAuthentication(t *testing.T) {
	w := newWorld(t)
	w.newTable("desk", "trades")
	const path = "/v1/namespaces/desk/tables/trades"
	get := func(header string) int {
		t.Helper()
		r, err := http.NewRequest("GET", w.url+Mount+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if header != "" {
			r.Header.Set("Authorization", header)
		}
		status, answer, h := w.send(r)
		if status == 401 && (answer["error"].(o)["type"] != typeNotAuthorized || h.Get("Www-Authenticate") == "") {
			t.Errorf("%s: %v", header, answer)
		}
		return status
	}
	token := func(id, secret string, basic bool) (int, o) {
		form := url.Values{"grant_type": {"client_credentials"}, "scope": {"catalog"}}
		if !basic {
			form.Set("client_id", id)
			form.Set("client_secret", secret)
		}
		r, err := http.NewRequest("POST", w.url+Mount+"/v1/oauth/tokens", strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if basic {
			r.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
		}
		status, answer, _ := w.send(r)
		return status, answer
	}
	k := w.key("reader")
	for _, basic := range []bool{false, true} {
		status, answer := token(k.ID, k.Secret, basic)
		if status != 200 || answer["token_type"] != "bearer" || answer["expires_in"] != float64(3600) || answer["scope"] != "catalog" {
			t.Fatalf("%d %v", status, answer)
		}
		if got := get("Bearer " + answer["access_token"].(string)); got != 200 {
			t.Errorf("with the token: %d", got)
		}
		for _, c := range [][2]string{{k.ID, "wrong"}, {"AKIANOBODY", k.Secret}, {"", ""}} {
			if status, answer := token(c[0], c[1], basic); status != 401 || answer["error"] != "invalid_client" {
				t.Errorf("%v: %d %v", c, status, answer)
			}
		}
	}
	for body, want := range map[string]string{"grant_type=password": "unsupported_grant_type", "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token=x": "unsupported_grant_type", "%zz": "invalid_request"} {
		r, _ := http.NewRequest("POST", w.url+Mount+"/v1/oauth/tokens", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if status, answer, _ := w.send(r); status != 400 || answer["error"] != want {
			t.Errorf("%s: %d %v", body, status, answer)
		}
	}
	for _, header := range []string{"", "Bearer", "Bearer x", "Bearer th1.e30.AAAA", "Basic eDp5", "AWS4-HMAC-SHA256 x", "Negotiate y"} {
		if got := get(header); got != 401 {
			t.Errorf("%q: %d", header, got)
		}
	}

	// Signatures.
	if status, _, _ := w.send(w.signed("reader", "GET", path, "")); status != 200 {
		t.Errorf("signed: %d", status)
	}
	r := w.signed("admin", "POST", "/v1/namespaces", `{"namespace":["ok"]}`)
	r.Body = http.NoBody
	r.ContentLength = 0
	if status, _, _ := w.send(r); status != 401 {
		t.Errorf("another body than was signed: %d", status)
	}
	r = w.signed("admin", "GET", path, "")
	r.URL.Path += "2"
	if status, _, _ := w.send(r); status != 401 {
		t.Errorf("another path than was signed: %d", status)
	}
	r, _ = http.NewRequest("GET", w.url+Mount+path, nil)
	auth.NewSigner(w.key("admin"), "us-east-1", "firehose").Sign(r, [32]byte{}, time.Now())
	if status, answer, _ := w.send(r); status != 401 || !strings.Contains(answer["error"].(o)["message"].(string), "rest.signing-name") {
		t.Errorf("signed for another service: %d %v", status, answer)
	}

	// A key that is revoked takes its tokens with it.
	_, answer := token(k.ID, k.Secret, false)
	text := answer["access_token"].(string)
	for i := range w.keys.Keys {
		if w.keys.Keys[i].ID == k.ID {
			w.keys.Keys[i].ID = "AKIAREVOKED"
		}
	}
	if got := get("Bearer " + text); got != 401 {
		t.Errorf("after the key was revoked: %d", got)
	}
}

// TestAuthorization: every operation, by keys that may do parts of it.
func TestAuthorization(t *testing.T) {
	w := newWorld(t)
	w.newTable("team", "one")
	w.newTable("desk", "trades")
	set := `{"updates":[{"action":"set-properties","updates":{"a":"b"}}]}`
	change := func(ns, name string) string {
		return `{"table-changes":[{"identifier":{"namespace":["team"],"name":"one"},"updates":[]},{"identifier":{"namespace":["` + ns + `"],"name":"` + name + `"},"updates":[]}]}`
	}
	table := func(name string) string { return `{"name":"` + name + `","schema":` + tradesSchemaJSON + `}` }
	rename := func(from, to string) string {
		return `{"source":{"namespace":["` + from + `"],"name":"x"},"destination":{"namespace":["` + to + `"],"name":"y"}}`
	}
	for _, c := range []struct{ method, path, body, allowed string }{ // who may; the others get 403
		{"GET", "/v1/namespaces", "", "admin reader"},
		{"POST", "/v1/namespaces", `{"namespace":["fresh"]}`, "admin"},
		{"GET", "/v1/namespaces/desk", "", "admin reader"},
		{"HEAD", "/v1/namespaces/desk", "", "admin reader"},
		{"GET", "/v1/namespaces/team", "", "admin reader team names"},
		{"DELETE", "/v1/namespaces/desk", "", "admin"},
		{"POST", "/v1/namespaces/team/properties", `{}`, "admin team names"},
		{"GET", "/v1/namespaces/team/tables", "", "admin reader team"},
		{"POST", "/v1/namespaces/team/tables", table("two"), "admin team"},
		{"POST", "/v1/namespaces/desk/tables", table("two"), "admin"},
		{"POST", "/v1/namespaces/desk/register", `{"name":"x"}`, "admin"},
		{"GET", "/v1/namespaces/team/tables/one", "", "admin reader team one"},
		{"HEAD", "/v1/namespaces/team/tables/one", "", "admin reader team one"},
		{"GET", "/v1/namespaces/desk/tables/trades", "", "admin reader"},
		{"GET", "/v1/namespaces/desk/tables/none", "", "admin reader"},
		{"POST", "/v1/namespaces/team/tables/one", set, "admin team one"},
		{"POST", "/v1/namespaces/team/tables/three", `{"requirements":[{"type":"assert-create"}],"updates":[]}`, "admin team"},
		{"POST", "/v1/namespaces/team/tables/one", `{"requirements":[{"type":"assert-create"}],"updates":[]}`, "admin team"},
		{"POST", "/v1/transactions/commit", change("desk", "trades"), "admin"},
		{"POST", "/v1/transactions/commit", change("team", "two"), "admin team"},
		{"POST", "/v1/tables/rename", rename("team", "desk"), "admin"},
		{"POST", "/v1/tables/rename", rename("desk", "team"), "admin"},
		{"POST", "/v1/tables/rename", rename("team", "team"), "admin team"},
		{"POST", "/v1/namespaces/team/tables/one/metrics", `{"report-type":"scan-report"}`, "admin reader team one"},
		{"GET", "/v1/namespaces/*/tables/*", "", "admin reader"},
		{"GET", "/v1/namespaces/team.one/tables/x", "", "admin reader"},
		{"DELETE", "/v1/namespaces/team/tables/none", "", "admin team"},
		{"GET", "/v1/config", "", "admin reader team one put names"},
	} {
		for _, key := range []string{"put", "reader", "one", "names", "team", "admin"} {
			status, answer, _ := w.do(key, c.method, c.path, c.body)
			may := strings.Contains(" "+c.allowed+" ", " "+key+" ")
			if (status != http.StatusForbidden) != may {
				t.Errorf("%s %s %s by %s: %d %v", c.method, c.path, c.body, key, status, answer)
			}
			if !may && c.method != "HEAD" && answer["error"].(o)["type"] != typeForbidden {
				t.Errorf("%s %s by %s: %v", c.method, c.path, key, answer)
			}
		}
	}
}

// TestBounds: size, time and number of requests.
func TestBounds(t *testing.T) {
	gate, entered := make(chan struct{}), make(chan struct{}, 10)
	w := newWorld(t, func(o *Options) {
		o.BodyTimeout = 200 * time.Millisecond
		o.Timeout = 300 * time.Millisecond
		o.Guard.Kept = func(*catalog.Table) string { entered <- struct{}{}; <-gate; return "" }
	})
	w.newTable("desk", "trades")
	large := `{"updates":[],"x":"` + strings.Repeat("x", bodyBytesMax) + `"}`
	w.refused("admin", "POST", "/v1/namespaces/desk/tables/trades", large, 413, typeBadRequest, "bytes")
	r := w.signed("admin", "POST", "/v1/namespaces", large)
	r.ContentLength = -1 // chunked
	if status, _, _ := w.send(r); status != 413 {
		t.Errorf("a chunked body: %d", status)
	}
	r = w.signed("admin", "POST", "/v1/namespaces", `{}`)
	r.Header.Set("Content-Encoding", "gzip")
	if status, _, _ := w.send(r); status != 415 {
		t.Errorf("a compressed body: %d", status)
	}
	// A body that never comes.
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	signed := w.signed("admin", "POST", "/v1/namespaces", `{"namespace":["late"]}`)
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nX-Amz-Date: %s\r\nAuthorization: %s\r\nContent-Length: 22\r\n\r\n{", Mount+"/v1/namespaces", signed.URL.Host, signed.Header.Get("X-Amz-Date"), signed.Header.Get("Authorization"))
	res, err := http.ReadResponse(bufio.NewReader(conn), signed)
	if err != nil || res.StatusCode != 400 {
		t.Errorf("a body that never comes: %v %v", res, err)
	}
	if n := w.handler.inFlight.Load(); n != 0 {
		t.Errorf("%d bytes are still reserved", n)
	}

	// As many requests as there may be.
	w.handler.requests.Store(requestsMax)
	w.refused("admin", "GET", "/v1/config", "", 503, typeUnavailable, "try again")
	w.handler.requests.Store(0)
	w.handler.inFlight.Store(inFlightBytesMax)
	w.refused("admin", "POST", "/v1/namespaces", `{"namespace":["x"]}`, 503, typeUnavailable, "try again")
	w.handler.inFlight.Store(0)

	// One that waits for another's lock gives up, and has done nothing.
	done := make(chan int)
	set := func(v string) string {
		return `{"updates":[{"action":"set-properties","updates":{"k":"` + v + `"}}]}`
	}
	go func() {
		status, _, _ := w.do("admin", "POST", "/v1/namespaces/desk/tables/trades", set("first"))
		done <- status
	}()
	<-entered // the first has the lock
	w.refused("admin", "POST", "/v1/namespaces/desk/tables/trades", set("second"), 503, typeUnavailable, "deadline")
	close(gate)
	<-done
	if v := w.load("desk", "trades").Properties["k"]; v == "second" {
		t.Error("what was answered 503 was done")
	}
}

// FuzzCommit sends commits of any form: none brings the server down, none does
// half of what it says, and the tables can be loaded afterwards.
func FuzzCommit(f *testing.F) {
	w := newWorld(f)
	w.newTable("desk", "a")
	w.newTable("desk", "b")
	seeds := []string{
		`{"action":"set-properties","updates":{"k":"v"}}`, `{"action":"remove-properties","removals":["owner"]}`, `{"action":"set-location","location":"file:///tmp"}`,
		`{"action":"add-schema","schema":` + tradesSchemaJSON + `},{"action":"set-current-schema","schema-id":-1}`,
		`{"action":"add-schema","schema":{"type":"struct","fields":[{"id":1,"name":"n","required":true,"type":{"type":"list","element-id":1,"element":"int","element-required":true}}]}}`,
		`{"action":"add-spec","spec":{"fields":[{"name":"p","transform":"bucket[0]","source-id":1,"field-id":-5}]}},{"action":"set-default-spec","spec-id":-1}`,
		`{"action":"add-sort-order","sort-order":{"order-id":1,"fields":[{"source-id":1,"transform":"truncate[2]","direction":"asc","null-order":"nulls-first"}]}},{"action":"set-default-sort-order","sort-order-id":-1}`,
		`{"action":"add-snapshot","snapshot":{"snapshot-id":1,"sequence-number":1,"timestamp-ms":1795780800000,"manifest-list":"x","summary":{"operation":"append"}}},{"action":"set-snapshot-ref","ref-name":"main","type":"branch","snapshot-id":1}`,
		`{"action":"remove-snapshots","snapshot-ids":[1]}`, `{"action":"remove-snapshot-ref","ref-name":"main"}`, `{"action":"assign-uuid","uuid":"0b0e7a60-6a3f-4f3b-9a55-000000000001"}`,
		`{"action":"upgrade-format-version","format-version":3}`, `{"action":"remove-schemas","schema-ids":[0]}`, `{"action":"remove-partition-specs","spec-ids":[0]}`,
		`{"action":"set-statistics","snapshot-id":1,"statistics":{"snapshot-id":1,"statistics-path":"x","file-size-in-bytes":1,"file-footer-size-in-bytes":1,"blob-metadata":[]}}`,
		`{"action":"remove-statistics","snapshot-id":1}`, `{"action":"set-partition-statistics","partition-statistics":{"snapshot-id":1,"statistics-path":"x","file-size-in-bytes":1}}`,
		`{"action":"add-encryption-key","encryption-key":{"key-id":"a","encrypted-key-metadata":"eA=="}}`, `null`, `{}`, `{"action":null}`, `7`, ``,
	}
	for _, s := range seeds {
		f.Add(`[{"type":"assert-ref-snapshot-id","ref":"main","snapshot-id":null}]`, "["+s+"]")
	}
	for _, r := range []string{`[{"type":"assert-create"}]`, `[{"type":"assert-current-schema-id","current-schema-id":0}]`, `[null]`, `{}`, `[{"type":"assert-table-uuid","uuid":"x"}]`, ``} {
		f.Add(r, `[{"action":"set-properties","updates":{"k":"v"}}]`)
	}
	a, b := catalog.Name{Namespace: "desk", Table: "a"}, catalog.Name{Namespace: "desk", Table: "b"}
	f.Fuzz(func(t *testing.T, requirements, updates string) {
		at := func(n catalog.Name) string {
			tbl, err := w.catalog.Load(context.Background(), n)
			if err != nil {
				t.Fatalf("%s %s: the table cannot be loaded: %v", requirements, updates, err)
			}
			if _, err := tbl.Metadata(true); err != nil {
				t.Fatal(err)
			}
			return tbl.MetadataLocation()
		}
		before, other := at(a), at(b)
		changes := []catalog.Foreign{
			{Table: a, Requirements: jsonRaw(requirements), Updates: jsonRaw(updates)},
			{Table: b, Updates: jsonRaw(`[{"action":"set-properties","updates":{"n":"1"}}]`)},
		}
		_, err := w.catalog.CommitForeign(context.Background(), changes, w.handler.o.Guard)
		e, internal := visible(err, typeNoSuchTable)
		if err != nil && internal {
			t.Fatalf("%s %s: an error that has no answer: %v", requirements, updates, err)
		}
		if moved := at(b) != other; moved != (err == nil) {
			t.Fatalf("%s %s: %v, and the other table moved: %v", requirements, updates, e, moved)
		}
		if err != nil && at(a) != before {
			t.Fatalf("%s %s: %v, and the table moved", requirements, updates, e)
		}
	})
}
