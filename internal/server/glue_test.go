package server

import (
	"crypto/sha256"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/auth"
)

// glueCall sends one operation of the Data Catalog's API and returns the answer, and
// the error's code if it is one.
func glueCall(t *testing.T, s *Server, id, secret, operation, body string) (answer, code string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.Addresses().AWS+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Amz-Target", "AWSGlue."+operation)
	auth.NewSigner(auth.AccessKey{ID: id, Secret: secret}, s.cfg.Region, "glue").Sign(r, sha256.Sum256([]byte(body)), time.Now())
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode == http.StatusOK {
		return string(text), ""
	}
	var e struct {
		Type    string `json:"__type"`
		Message *string
	}
	if err := json.Unmarshal(text, &e); err != nil || e.Message == nil {
		t.Fatalf("%v: %s", err, text)
	}
	return *e.Message, e.Type
}

// A key does in the catalog what it was made for; a producer's, nothing.
func TestGlueGrants(t *testing.T) {
	s := open(t, testConfig(t))
	root := s.Credentials().Keys[0]
	if answer, code := glueCall(t, s, root.ID, root.Secret, "CreateDatabase", `{"DatabaseInput":{"Name":"desk"}}`); code != "" {
		t.Fatal(answer)
	}
	of := func(service string, operations, streams []string) auth.Grant {
		return auth.Grant{Service: service, Operations: operations, Streams: streams}
	}
	all := []string{"*"}
	groups := auth.Operations("glue")
	for name, scope := range map[string]struct {
		grant   auth.Grant
		allowed func(operation, group string, ofDesk bool) bool
	}{
		"producer":       {of("firehose", []string{"put"}, all), func(string, string, bool) bool { return false }},
		"firehose-admin": {of("firehose", all, all), func(string, string, bool) bool { return false }},
		"console":        {of("console", all, all), func(string, string, bool) bool { return false }},
		"reader":         {of("glue", []string{"read"}, all), func(_, group string, _ bool) bool { return group == auth.GroupRead }},
		"of-desk":        {of("glue", []string{"read", "admin"}, []string{"desk", "desk.*"}), func(_, _ string, ofDesk bool) bool { return ofDesk }},
	} {
		key := issue(t, s, auth.KindAWS, name, scope.grant)
		for operation, group := range groups {
			for _, database := range []string{"desk", "equities"} {
				// None of them says what to do: an answer about the input is enough.
				member := "DatabaseName"
				if strings.HasSuffix(operation, "Database") && operation != "CreateDatabase" {
					member = "Name"
				}
				if operation == "DeleteDatabase" && database == "desk" {
					continue
				}
				answer, code := glueCall(t, s, key.ID, key.Secret, operation, `{"`+member+`":"`+database+`"}`)
				takesNone := strings.HasSuffix(operation, "Tags") || strings.HasSuffix(operation, "Resource") || operation == "CreateDatabase" || operation == "GetDatabases" || operation == "SearchTables" || operation == "GetCatalogImportStatus" ||
					strings.Contains(operation, "Crawl") || strings.Contains(operation, "Classifier")
				if want := scope.allowed(operation, group, database == "desk" && !takesNone); want != (code != "AccessDeniedException") {
					t.Errorf("%s: %s on %s: %s %s, allowed %v", name, operation, database, code, answer, want)
				}
			}
		}
		// What is not supported says so to whoever may do everything, and to nobody else.
		if answer, code := glueCall(t, s, key.ID, key.Secret, "CreateJob", `{}`); code != "AccessDeniedException" || !strings.Contains(answer, "is not authorized to perform: glue:CreateJob on resource: arn:aws:glue:us-east-1:000000000000:*") {
			t.Errorf("%s: %s %s", name, code, answer)
		}
	}
	if answer, code := glueCall(t, s, root.ID, root.Secret, "CreateJob", `{}`); code != "OperationNotSupportedException" {
		t.Error(code, answer)
	}
}

// The API shows what SQL and the streams made, and takes nothing from under them.
func TestGlueTables(t *testing.T) {
	s := open(t, testConfig(t))
	conn := connect(t, s)
	execute1(t, conn, `CREATE TABLE public.notes (n bigint NOT NULL, price numeric(18,4))`)
	execute1(t, conn, `CREATE TABLE public.loose (n bigint)`)
	execute1(t, conn, `CREATE MATERIALIZED VIEW public.sums AS SELECT n, count(*) AS c FROM public.notes GROUP BY n`)
	root := s.Credentials().Keys[0]
	check := func(operation, body, code, want string) {
		t.Helper()
		answer, got := glueCall(t, s, root.ID, root.Secret, operation, body)
		if got != code || !strings.Contains(answer, want) {
			t.Errorf("%s %s\n got %s %s\nwant %s … %s", operation, body, got, answer, code, want)
		}
	}
	check("GetTable", `{"DatabaseName":"public","Name":"notes"}`, "", `{"Name":"price","Type":"decimal(18,4)",`)
	check("GetTables", `{"DatabaseName":"public","AttributesToGet":["NAME"]}`, "", `{"TableList":[{"Name":"loose","DatabaseName":"public"},{"Name":"notes","DatabaseName":"public"}]}`) // and no state of the view
	check("DeleteTable", `{"DatabaseName":"public","Name":"notes"}`, "InvalidInputException", "the materialized view public.sums reads it: DROP MATERIALIZED VIEW in SQL first")
	check("DeleteTable", `{"DatabaseName":"equities","Name":"executions"}`, "InvalidInputException", "cannot be deleted")
	check("DeleteDatabase", `{"Name":"public"}`, "InvalidInputException", "The database public cannot be deleted: the materialized view public.sums is in it")
	check("DeleteDatabase", `{"Name":"equities"}`, "InvalidInputException", "The database equities cannot be deleted")
	check("DeleteTable", `{"DatabaseName":"public","Name":"loose"}`, "", "{}")
	if got := table(t, conn, `SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_name IN ('loose', 'notes')`); strings.Join(got, " ") != "notes" {
		t.Error(got)
	}
	check("CreateTable", `{"DatabaseName":"public","TableInput":{"Name":"made","StorageDescriptor":{"Columns":[{"Name":"n","Type":"bigint"},{"Name":"price","Type":"decimal(18,4)"}]}},"OpenTableFormatInput":{"IcebergInput":{"MetadataOperation":"CREATE"}}}`, "", "{}")
	execute1(t, conn, `INSERT INTO public.made VALUES (1, 2.5)`)
	if got := text(t, conn, `SELECT n || ' ' || price FROM public.made`); got != "1 2.5000" {
		t.Error(got)
	}
	check("GetTable", `{"DatabaseName":"public","Name":"made"}`, "", `"previous_metadata_location":`)
}
