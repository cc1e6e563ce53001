//go:build interop

package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/readertest"
)

// TestGlueOperations tries every operation of the Data Catalog that is supported with
// boto3, and those that people use by hand with the command line.
func TestGlueOperations(t *testing.T) {
	const untested = "the Data Catalog was not tried with AWS's clients"
	python := look(t, "python3", untested)
	if exec.Command(python, "-c", "import boto3").Run() != nil {
		t.Skip("SKIPPED: python3 has no boto3 on this machine: " + untested)
	}
	s := open(t, testConfig(t))
	env := environ(t, s)
	dropFile(t, filepath.Join(s.cfg.Data, "lake", "boto", "quotes", "q.csv"), "symbol|lot\nABC|100\nDEF|1\n")
	cmd := exec.CommandContext(t.Context(), python, "testdata/glue.py")
	cmd.Env = env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, stderr.String())
	}
	for line := range strings.Lines(string(out)) {
		t.Error("boto3: ", line)
	}
	var tried []string
	if err := json.Unmarshal(stderr.Bytes(), &tried); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	// internal/glue holds these names against what is supported.
	if want := slices.Sorted(maps.Keys(auth.Operations("glue"))); !slices.Equal(tried, want) {
		for _, name := range want {
			if !slices.Contains(tried, name) {
				t.Errorf("boto3: %s was not tried", name)
			}
		}
	}

	program := look(t, "aws", untested)
	const trades = `{"Name":"trades","TableType":"EXTERNAL_TABLE","PartitionKeys":[{"Name":"trade_date","Type":"date"}],"StorageDescriptor":{"Columns":[{"Name":"price","Type":"decimal(18,4)"}],"Location":"s3://lake/trades/"}}`
	for _, c := range []struct {
		want string // of the output; "" that there is none
		args []string
	}{
		{"", []string{"create-database", "--database-input", `{"Name":"cli","Description":"by hand"}`, "--tags", "team=ops"}},
		{`"Description": "by hand"`, []string{"get-database", "--name", "cli"}},
		{`"Name": "equities"`, []string{"get-databases", "--max-items", "100"}},
		{"", []string{"create-table", "--database-name", "cli", "--table-input", trades}},
		{"(AlreadyExistsException) when calling the CreateTable operation: Table already exists.", []string{"create-table", "--database-name", "cli", "--table-input", trades}},
		{`"Type": "decimal(18,4)"`, []string{"get-table", "--database-name", "cli", "--name", "trades"}},
		{`"VersionId": "0"`, []string{"get-tables", "--database-name", "cli", "--expression", "tr.*"}},
		{"", []string{"create-partition", "--database-name", "cli", "--table-name", "trades", "--partition-input", `{"Values":["2026-11-20"]}`}},
		{`"2026-11-20"`, []string{"get-partitions", "--database-name", "cli", "--table-name", "trades", "--expression", "trade_date > '2026-11-01'"}},
		{"(InvalidInputException) when calling the GetPartitions operation: invalid expression: at character 14", []string{"get-partitions", "--database-name", "cli", "--table-name", "trades", "--expression", "trade_date > 20261101"}},
		{`"team": "ops"`, []string{"get-tags", "--resource-arn", "arn:aws:glue:us-east-1:000000000000:database/cli"}},
		{`"table_type": "ICEBERG"`, []string{"get-table", "--database-name", "equities", "--name", "executions"}},
		{"(OperationNotSupportedException) when calling the GetJobs operation: GetJobs is not supported: no jobs run here", []string{"get-jobs"}},
		{"(ValidationException) when calling the GetTables operation: 1 validation error detected: Value '101' at 'maxResults' failed to satisfy constraint: Member must have value less than or equal to 100", []string{"get-tables", "--database-name", "cli", "--page-size", "101"}},
		{"", []string{"delete-database", "--name", "cli"}},
		{"(EntityNotFoundException) when calling the GetDatabase operation: Database cli not found.", []string{"get-database", "--name", "cli"}},
	} {
		out, err := run(t, env, "", program, append([]string{"glue"}, c.args...)...)
		out = onlyTry(out)
		if failed := strings.Contains(out, "An error occurred ("); failed != (err != nil) || !strings.Contains(out, c.want) || c.want == "" && strings.TrimSpace(out) != "" {
			t.Errorf("aws glue %s: %v\n%s\nwant %s", c.args[0], err, out, c.want)
		}
	}
}

// icebergTable makes a managed table. As at AWS, the catalog gives its columns field
// ids, it a place, and each commit a parameter, which are no changes to be undone.
const icebergTable = `
resource "aws_glue_catalog_table" "iceberg" {
  name          = "iceberg"
  database_name = aws_glue_catalog_database.full.name
  catalog_id    = local.catalog
  table_type    = "EXTERNAL_TABLE"

  open_table_format_input {
    iceberg_input {
      metadata_operation = "CREATE"
    }
  }

  storage_descriptor {
    columns {
      name = "n"
      type = "bigint"
    }
  }

  lifecycle {
    ignore_changes = [parameters, storage_descriptor]
  }
}
`

// TestTerraformGlue has Terraform and AWS's own provider make, change, import and
// destroy databases, tables, crawlers and classifiers: a plan that follows an apply finds nothing to do.
func TestTerraformGlue(t *testing.T) {
	const untested = "the catalog was not made with it"
	program := "terraform"
	if _, err := exec.LookPath("tofu"); err == nil {
		program = "tofu"
	}
	program = look(t, program, untested)
	mirror := os.Getenv(providerMirror)
	if mirror == "" {
		t.Skipf("SKIPPED: %s does not name a directory with Terraform's AWS provider: %s", providerMirror, untested)
	}
	s := open(t, testConfig(t))
	root := s.Credentials().Keys[0]
	described := func(operation, body string) string {
		t.Helper()
		answer, code := glueCall(t, s, root.ID, root.Secret, operation, body)
		return strings.TrimSpace(code + " " + answer)
	}
	fresh := func(extra string) *terraform {
		t.Helper()
		tf := &terraform{t: t, program: program, dir: t.TempDir()}
		text, err := os.ReadFile("testdata/terraform-glue/glue.tf")
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"glue.tf": string(text), "extra.tf": extra, "cli.rc": "disable_checkpoint = true\n"} {
			if err := os.WriteFile(filepath.Join(tf.dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		tf.env = append(environ(t, s), "TF_CLI_CONFIG_FILE="+filepath.Join(tf.dir, "cli.rc"), "TF_IN_AUTOMATION=1")
		tf.run(0, "init", "-plugin-dir="+mirror)
		return tf
	}
	tf := fresh(icebergTable)
	tf.run(0, "apply", "-auto-approve")
	tf.run(0, "plan", "-detailed-exitcode")
	tf.run(2, "plan", "-detailed-exitcode", "-var=changed=true")
	out := tf.run(0, "apply", "-auto-approve", "-var=changed=true")
	if want := "0 added, 3 changed, 0 destroyed"; !strings.Contains(out, want) { // in place
		t.Errorf("no %q in\n%s", want, out)
	}
	tf.run(0, "plan", "-detailed-exitcode", "-var=changed=true")
	for operation, want := range map[string][2]string{
		"GetTags":             {`{"ResourceArn":"arn:aws:glue:us-east-1:000000000000:database/tf_full"}`, `{"Tags":{"team":"night"}}`},
		"GetDatabase":         {`{"Name":"tf_full"}`, `"Description":"changed","LocationUri":"s3://lake/tf/","Parameters":{"b":"2"}`},
		"GetTable":            {`{"DatabaseName":"tf_full","Name":"full"}`, `{"Name":"size","Type":"bigint"`},
		"GetPartitionIndexes": {`{"DatabaseName":"tf_full","TableName":"full"}`, `"IndexName":"by_date"`},
		"GetCrawler":          {`{"Name":"tf-full"}`, `"DeleteBehavior":"DELETE_FROM_DATABASE"`},
		"GetTableVersions":    {`{"DatabaseName":"tf_full","TableName":"full"}`, `"VersionId":"1"`},
	} {
		if got := described(operation, want[0]); !strings.Contains(got, want[1]) {
			t.Errorf("%s: %s, want %s", operation, got, want[1])
		}
	}

	execute1(t, connect(t, s), `INSERT INTO tf_full.iceberg VALUES (1)`)
	tf.run(0, "plan", "-detailed-exitcode", "-var=changed=true")

	// A state that knows nothing: all of it is read from the server.
	var imports strings.Builder
	for resource, id := range map[string]string{"aws_glue_catalog_database.least": ":tf_least", "aws_glue_catalog_database.full": "000000000000:tf_full", "aws_glue_catalog_table.least": ":tf_least:least",
		"aws_glue_catalog_table.full": "000000000000:tf_full:full", "aws_glue_catalog_table.view": "000000000000:tf_full:view",
		"aws_glue_crawler.least": "tf-least", "aws_glue_crawler.full": "tf-full", "aws_glue_classifier.pipes": "tf-pipes", "aws_glue_classifier.rows": "tf-rows"} {
		imports.WriteString("import {\n  to = " + resource + "\n  id = \"" + id + "\"\n}\n")
	}
	out = fresh(imports.String()).run(2, "plan", "-detailed-exitcode", "-var=changed=true")
	if want := "9 to import, 0 to add, 0 to change, 0 to destroy"; !strings.Contains(out, want) {
		t.Errorf("no %q in\n%s", want, out)
	}

	// What was changed behind Terraform's back is found.
	if got := described("UpdateDatabase", `{"Name":"tf_least","DatabaseInput":{"Name":"tf_least","Description":"by hand"}}`); got != "{}" {
		t.Error(got)
	}
	if out = tf.run(2, "plan", "-detailed-exitcode", "-var=changed=true"); !strings.Contains(out, `"by hand" -> null`) {
		t.Errorf("the change was not found:\n%s", out)
	}
	tf.run(0, "destroy", "-auto-approve", "-var=changed=true")
	if got := described("GetDatabase", `{"Name":"tf_full"}`); !strings.HasPrefix(got, "EntityNotFoundException") {
		t.Error(got)
	}
}

// glueReader is a program of PyIceberg's catalog over Glue: it reads a table, appends
// to one and reads it again.
const glueReader = `
import sys
import pyarrow as pa
from pyiceberg.catalog.glue import GlueCatalog
catalog = GlueCatalog("glue", **{"glue.endpoint": sys.argv[1], "glue.region": "us-east-1", "glue.access-key-id": sys.argv[2], "glue.secret-access-key": sys.argv[3]})
print(sorted(n[0] for n in catalog.list_namespaces() if n[0] in ("equities", "public")))
notes = catalog.load_table("public.notes")
print([(f.name, str(f.field_type)) for f in notes.schema().fields])
print(sorted(notes.scan().to_arrow().to_pylist(), key=lambda r: r["n"]))

# Beside SQL, and many at once: who comes late is refused, and tries again.
import threading
from pyiceberg.exceptions import CommitFailedException
refused = []
def append(numbers, note):
    own = GlueCatalog("own", **catalog.properties)
    for n in numbers:
        while True:
            try:
                t = own.load_table("public.notes")
                t.append(pa.table({"n": pa.array([n], pa.int64()), "note": pa.array([note], pa.string())}, schema=t.schema().as_arrow()))
                break
            except CommitFailedException as e:
                refused.append(e)
append([3], "by PyIceberg")
print(sorted(r["n"] for r in catalog.load_table("public.notes").scan().to_arrow().to_pylist()))
threads = [threading.Thread(target=append, args=(range(100 + 10 * i, 104 + 10 * i), None)) for i in range(3)]
[t.start() for t in threads]
[t.join() for t in threads]
# A stream's table keeps its columns.
from pyiceberg.types import StringType
try:
    with catalog.load_table("equities.executions").update_schema() as u:
        u.add_column("more", StringType())
    print("a column was added")
except Exception as e:
    print("kept:", e)
print("refused", len(refused))
`

// TestPyIcebergGlue has PyIceberg's GlueCatalog read a table that SQL made, and commit
// to it; SQL reads what it wrote.
func TestPyIcebergGlue(t *testing.T) {
	python := os.Getenv(readertest.PythonEnv)
	if python == "" {
		t.Skipf("SKIPPED: %s names no Python with PyIceberg: its catalog over Glue was not tried", readertest.PythonEnv)
	}
	if exec.Command(python, "-c", "import pyiceberg.catalog.glue, pyarrow").Run() != nil {
		t.Skip("SKIPPED: that Python has no PyIceberg with boto3: its catalog over Glue was not tried")
	}
	s := open(t, testConfig(t))
	conn := connect(t, s)
	execute1(t, conn, `CREATE TABLE public.notes (n bigint, note varchar)`)
	execute1(t, conn, `INSERT INTO public.notes VALUES (1, 'one'), (2, NULL)`)
	root := s.Credentials().Keys[0]
	inserted, stop := make(chan int), make(chan struct{})
	go func() {
		n := 0
		defer func() { inserted <- n }()
		other, err := pgx.ConnectConfig(t.Context(), conn.Config())
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = other.Close(context.Background()) }()
		for ; ; time.Sleep(time.Second) {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := other.Exec(t.Context(), fmt.Sprintf("INSERT INTO public.notes VALUES (%d, 'beside')", 1000+n)); err == nil {
				n++
			} else if pg := (*pgconn.PgError)(nil); !errors.As(err, &pg) || pg.Code != "40001" {
				t.Error(err)
				return
			}
		}
	}()
	out, err := run(t, environ(t, s), glueReader, python, "-", "http://"+s.Addresses().AWS, root.ID, root.Secret)
	close(stop)
	beside := <-inserted
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%d rows inserted beside; %s", beside, out[strings.LastIndex(out, "refused"):])
	for _, want := range []string{"['equities', 'public']", "[('n', 'long'), ('note', 'string')]", "{'n': 1, 'note': 'one'}, {'n': 2, 'note': None}", "[1, 2, 3", "(InvalidInputException) when calling the UpdateTable operation: unsupported: a commit of equities.executions, which streams feed or views read, that changes its schema"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
	if got := table(t, conn, `SELECT n, note FROM public.notes WHERE n < 100 ORDER BY n`); strings.Join(got, "; ") != "1|one; 2|NULL; 3|by PyIceberg" {
		t.Errorf("%q", got)
	}
	// Every commit that was acknowledged is there, once.
	if got := text(t, conn, `SELECT count(*) || ' ' || count(DISTINCT n) FROM public.notes WHERE n BETWEEN 100 AND 999`); got != "12 12" {
		t.Error(got)
	}
	if got, want := text(t, conn, `SELECT count(*) || ' ' || count(DISTINCT n) FROM public.notes WHERE n >= 1000`), fmt.Sprintf("%d %d", beside, beside); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	execute1(t, conn, `INSERT INTO public.notes VALUES (4, 'by SQL')`)
	if got := text(t, conn, `SELECT note FROM public.notes WHERE n = 4`); got != "by SQL" {
		t.Error(got)
	}
}
