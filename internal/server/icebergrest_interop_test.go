//go:build interop

package server

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tapehouse/tapehouse/internal/icebergrest"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/producer"
	"github.com/tapehouse/tapehouse/internal/readertest"
	"github.com/tapehouse/tapehouse/internal/s3test"
)

// Variables that tools/interop.sh sets: a Python with PySpark, and the jars of
// Iceberg's Spark connector and of the AWS SDK that it signs with, parted by commas.
const (
	sparkPython = "TAPEHOUSE_SPARK_PYTHON"
	sparkJars   = "TAPEHOUSE_ICEBERG_SPARK_JARS"
)

// catalogClients is what the tests of the catalog's clients share: a server with
// the table public.mixed, which a stream feeds.
type catalogClients struct {
	t     *testing.T
	s     *Server
	conn  *pgx.Conn
	aws   *producer.Client
	fed   int64 // records put
	alone int64 // rows that clients appended
}

func newCatalogClients(t *testing.T, cfg Config) *catalogClients {
	s := open(t, cfg)
	w := &catalogClients{t: t, s: s, conn: connect(t, s), aws: client(t, s)}
	execute1(t, w.conn, mixedTable)
	create := iceberg("mixed", jsonObject{"DestinationTableConfigurationList": []jsonObject{{"DestinationDatabaseName": "public", "DestinationTableName": "mixed"}}})
	if bucket, _, err := lake.ParseS3URL(cfg.Lake.URL); err == nil { // where the lake is S3, its bucket is the one that exists
		create["IcebergDestinationConfiguration"].(jsonObject)["S3Configuration"].(jsonObject)["BucketARN"] = "arn:aws:s3:::" + bucket
	}
	if err := w.aws.Call(t.Context(), "CreateDeliveryStream", create, nil); err != nil {
		t.Fatal(err)
	}
	w.feed(1000)
	w.feed(500)
	return w
}

// feed puts records and has them committed.
func (w *catalogClients) feed(n int64) {
	w.t.Helper()
	var docs [][]byte
	for end := w.fed + n; w.fed < end; w.fed++ {
		docs = append(docs, newMixed(w.fed).document(w.t, time.RFC3339Nano))
		if len(docs) == 500 || w.fed == end-1 {
			put(w.t, w.aws, "mixed", docs...)
			docs = nil
		}
	}
	if err := w.s.delivery.Flush(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// run has a program go through the catalog. Each line that it prints is a
// failure, but for those of log; what it left in the tables comes back.
func (w *catalogClients) run(program string, args ...string) (left map[string][]any) {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), program, args...)
	cmd.Env = environ(w.t, w.s)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	result := ""
	for line := range strings.Lines(stdout.String()) {
		if text, ok := strings.CutPrefix(line, "RESULT "); ok {
			result = text
		} else {
			w.t.Error(line)
		}
	}
	if err != nil {
		w.t.Fatalf("%v\n%s", err, stderr.String())
	}
	if result == "" { // the last line of the other stream
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		result = lines[len(lines)-1]
	}
	if err := json.Unmarshal([]byte(result), &left); err != nil {
		w.t.Fatalf("%v\n%s\n%s", err, result, stderr.String())
	}
	w.alone++
	return left
}

// check holds what a client says of its tables against SQL.
func (w *catalogClients) check(namespace string, left map[string][]any, tables map[string]string) {
	w.t.Helper()
	for name, table := range tables {
		want := fmt.Sprintf("%.0f|%.0f|%s", left[name][0], left[name][1], left[name][2])
		if got := strings.Join(tableRows(w, "SELECT count(*), sum(n), sum(price) FROM "+namespace+"."+table), "\n"); got != want {
			w.t.Errorf("%s.%s: SQL says %s, the client %s", namespace, table, got, want)
		}
	}
}

func tableRows(w *catalogClients, sql string) []string { return table(w.t, w.conn, sql) }

// checkMixed holds the stream's table: every record once, and the clients' rows.
func (w *catalogClients) checkMixed(when string) {
	w.t.Helper()
	want := strconv.FormatInt(w.fed+w.alone, 10) + "|" + strconv.FormatInt(w.fed, 10) + "|" + strconv.FormatInt(w.fed*(w.fed-1)/2, 10)
	if got := tableRows(w, "SELECT count(*), count(CASE WHEN n < 1000000 THEN 1 END), sum(CASE WHEN n < 1000000 THEN n END) FROM public.mixed"); len(got) != 1 || got[0] != want {
		w.t.Errorf("%s: public.mixed has %v, want %s", when, got, want)
	}
}

// catalogPython finds a Python with PyIceberg, or skips the test.
func catalogPython(t *testing.T) string {
	const untested = "the Iceberg REST catalog was not tried with PyIceberg"
	python := look(t, cmp.Or(os.Getenv(readertest.PythonEnv), "python3"), untested)
	if exec.Command(python, "-c", "import pyiceberg, pyarrow, boto3").Run() != nil {
		t.Skip("SKIPPED: python3 has no pyiceberg with pyarrow and boto3: " + untested)
	}
	return python
}

// TestIcebergRESTPython has PyIceberg create, append, evolve, travel in time, and
// read what Tapehouse wrote; SQL reads what PyIceberg wrote.
func TestIcebergRESTPython(t *testing.T) {
	python := catalogPython(t)
	w := newCatalogClients(t, testConfig(t))
	for _, mode := range []string{"token", "sigv4"} {
		fed := w.fed + w.alone
		left := w.run(python, "testdata/icebergrest.py", mode, "http://"+w.s.Addresses().AWS+icebergrest.Mount)
		w.check("py_"+mode, left, map[string]string{"trades": "trades", "staged": "staged"})
		if got := left["mixed"][0].(float64); int64(got) != fed {
			t.Errorf("%s: PyIceberg reads %.0f rows of public.mixed, want %d", mode, got, fed)
		}
		w.checkMixed(mode)
		w.feed(500) // the stream goes on behind the client's commits
		w.checkMixed(mode + ", fed again")
	}
}

// TestIcebergRESTPythonS3 is the same over a lake on S3, whose service the catalog
// names and whose keys are the client's own.
func TestIcebergRESTPythonS3(t *testing.T) {
	python := catalogPython(t)
	cfg, _, _ := s3Config(t)
	w := newCatalogClients(t, cfg)
	properties, err := json.Marshal(map[string]string{"s3.access-key-id": s3test.AccessKeyID, "s3.secret-access-key": s3test.SecretAccessKey})
	if err != nil {
		t.Fatal(err)
	}
	left := w.run(python, "testdata/icebergrest.py", "token", "http://"+w.s.Addresses().AWS+icebergrest.Mount, string(properties))
	w.check("py_token", left, map[string]string{"trades": "trades", "staged": "staged"})
	w.feed(500)
	w.checkMixed("on S3")
}

// TestIcebergRESTSpark is the same with Spark's Iceberg connector, which also
// deletes by position, merges, rewrites and expires.
func TestIcebergRESTSpark(t *testing.T) {
	const untested = "the Iceberg REST catalog was not tried with Spark"
	look(t, "java", untested)
	python, jars := os.Getenv(sparkPython), os.Getenv(sparkJars)
	if python == "" || jars == "" {
		t.Skipf("SKIPPED: %s and %s do not name PySpark and Iceberg's jars: %s", sparkPython, sparkJars, untested)
	}
	w := newCatalogClients(t, testConfig(t))
	for _, mode := range []string{"token", "sigv4"} {
		fed := w.fed + w.alone
		left := w.run(python, "testdata/icebergrest_spark.py", "http://"+w.s.Addresses().AWS+icebergrest.Mount, jars, mode)
		w.check("spark_"+mode, left, map[string]string{"trades": "trades", "copied": "renamed"})
		if got := left["mixed"][0].(float64); int64(got) != fed {
			t.Errorf("%s: Spark reads %.0f rows of public.mixed, want %d", mode, got, fed)
		}
		w.checkMixed(mode)
		w.feed(500)
		w.checkMixed(mode + ", fed again")
	}
}
