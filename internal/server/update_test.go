package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/delivery"
	"github.com/tapehouse/tapehouse/internal/producer"
	"github.com/tapehouse/tapehouse/internal/record"
)

// updater changes one stream over the API.
type updater struct {
	t       *testing.T
	aws     *producer.Client
	name    string
	version int
}

func (u *updater) send(kind string, members jsonObject) error {
	return u.aws.Call(u.t.Context(), "UpdateDestination", jsonObject{"DeliveryStreamName": u.name, "CurrentDeliveryStreamVersionId": strconv.Itoa(u.version),
		"DestinationId": "destinationId-000000000001", kind: members}, nil)
}

// must sends an update, again while the one before is taking effect.
func (u *updater) must(kind string, members jsonObject) {
	u.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		err := u.send(kind, members)
		if err == nil {
			u.version++
			return
		}
		if !producer.IsCode(err, "ConcurrentModificationException") || !strings.Contains(err.Error(), "is not delivered yet") || time.Now().After(deadline) {
			u.t.Fatal(err)
		}
	}
}

// describe returns the stream's one destination as DescribeDeliveryStream shows it.
func (u *updater) describe(kind string) (out jsonObject) {
	u.t.Helper()
	var d struct {
		DeliveryStreamDescription struct {
			VersionID    string `json:"VersionId"`
			Destinations []map[string]json.RawMessage
		}
	}
	if err := u.aws.Call(u.t.Context(), "DescribeDeliveryStream", jsonObject{"DeliveryStreamName": u.name}, &d); err != nil {
		u.t.Fatal(err)
	}
	if got := d.DeliveryStreamDescription.VersionID; got != strconv.Itoa(u.version) {
		u.t.Errorf("version %s, want %d", got, u.version)
	}
	if err := json.Unmarshal(d.DeliveryStreamDescription.Destinations[0][kind+"DestinationDescription"], &out); err != nil {
		u.t.Fatal(err)
	}
	return out
}

// The tables of a stream and what its records go through change while it runs.
func TestTablesChangeByTheAPI(t *testing.T) {
	c := testConfig(t)
	s := open(t, c)
	conn := connect(t, s)
	for _, name := range []string{"a", "b"} {
		execute1(t, conn, "CREATE TABLE public."+name+" (n bigint)")
	}
	tables := func(names ...string) []jsonObject {
		var out []jsonObject
		for _, n := range names {
			out = append(out, jsonObject{"DestinationDatabaseName": "public", "DestinationTableName": n})
		}
		return out
	}
	aws := client(t, s)
	if err := aws.Call(t.Context(), "CreateDeliveryStream", iceberg("moves", jsonObject{"DestinationTableConfigurationList": tables("a")}), nil); err != nil {
		t.Fatal(err)
	}
	u := &updater{t: t, aws: aws, name: "moves", version: 1}
	const all = "SELECT (SELECT string_agg(n::varchar, ',' ORDER BY n) FROM public.a) || ' ' || coalesce((SELECT string_agg(n::varchar, ',' ORDER BY n) FROM public.b), '-')"
	want := func(when, rows string) {
		t.Helper()
		if got := text(t, conn, all); got != rows {
			t.Fatalf("%s: %s, want %s", when, got, rows)
		}
	}
	put(t, aws, "moves", []byte(`{"n":1}`))
	refusal(t, "no table", u.send("IcebergDestinationUpdate", jsonObject{"DestinationTableConfigurationList": tables("nobody")}), "InvalidArgumentException", "nobody")
	refusal(t, "two tables without routing", u.send("IcebergDestinationUpdate", jsonObject{"DestinationTableConfigurationList": tables("a", "b")}), "InvalidArgumentException", "A single default destination table")
	u.must("IcebergDestinationUpdate", jsonObject{"DestinationTableConfigurationList": tables("b")})
	put(t, aws, "moves", []byte(`{"n":2}`))
	want("another table", "1 2")
	refusal(t, "bad SQL", u.send("IcebergDestinationUpdate", jsonObject{"ProcessingConfiguration": processors(processor("Lambda", "LambdaArn", "sql:SELECT count(*) AS n FROM records"))}), "InvalidArgumentException", "LambdaArn")
	u.must("IcebergDestinationUpdate", jsonObject{"ProcessingConfiguration": processors(processor("Lambda", "LambdaArn", "sql:SELECT n * 10 AS n FROM records AS r(n bigint)"))})
	put(t, aws, "moves", []byte(`{"n":3}`))
	want("processed", "1 2,30")
	u.must("IcebergDestinationUpdate", jsonObject{"DestinationTableConfigurationList": tables("a", "b"), "ProcessingConfiguration": processors(processor("MetadataExtraction", "JsonParsingEngine", "JQ-1.6",
		"MetadataExtractionQuery", `{destinationDatabaseName: "public", destinationTableName: .t, operation: "insert"}`))})
	put(t, aws, "moves", []byte(`{"t":"a","n":4}`), []byte(`{"t":"b","n":5}`), []byte(`{"t":"c","n":6}`))
	want("routed", "1,4 2,5,30")
	u.must("IcebergDestinationUpdate", jsonObject{"DestinationTableConfigurationList": tables("a"), "ProcessingConfiguration": jsonObject{"Enabled": false}})
	put(t, aws, "moves", []byte(`{"n":7}`))
	want("one table again", "1,4,7 2,5,30")
	s.delivery.Abandon() // as in a crash
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = open(t, c)
	conn = connect(t, s)
	u.aws = client(t, s)
	want("after a restart", "1,4,7 2,5,30")
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("delivered", "1,4,7 2,5,30")
	d := u.describe("Iceberg")
	if list, ok := d["DestinationTableConfigurationList"].([]any); !ok || len(list) != 1 {
		t.Errorf("%v", d)
	}
	lost := ""
	for _, body := range flushed(t, s, "moves", "") {
		lost += body
	}
	if strings.Count(lost, "recordId") != 1 || !strings.Contains(lost, "Iceberg.TableNotFound") {
		t.Errorf("%q", lost)
	}

	// Records may change their table, then make others, then neither any more.
	u.must("IcebergDestinationUpdate", jsonObject{"SchemaEvolutionConfiguration": jsonObject{"Enabled": true}})
	put(t, u.aws, "moves", []byte(`{"n":8,"extra":"x"}`))
	if got := appeared(t, conn, "SELECT n || extra FROM public.a WHERE extra IS NOT NULL"); len(got) != 1 || got[0] != "8x" {
		t.Fatal(got)
	}
	u.must("IcebergDestinationUpdate", jsonObject{"TableCreationConfiguration": jsonObject{"Enabled": true}, "ProcessingConfiguration": processors(processor("MetadataExtraction",
		"JsonParsingEngine", "JQ-1.6", "MetadataExtractionQuery", `{destinationDatabaseName: "public", destinationTableName: .t, operation: "insert"}`))})
	put(t, u.aws, "moves", []byte(`{"t":"made","n":9}`), []byte(`{"t":"a","n":10}`))
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) { // the table is there a moment before the stream feeds it
		if got := appeared(t, conn, "SELECT n FROM public.made"); len(got) == 1 && got[0] == "9" {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(got)
		}
	}
	u.must("IcebergDestinationUpdate", jsonObject{"TableCreationConfiguration": jsonObject{"Enabled": false}, "SchemaEvolutionConfiguration": jsonObject{"Enabled": false},
		"ProcessingConfiguration": jsonObject{"Enabled": false}, "DestinationTableConfigurationList": tables("a")})
	put(t, u.aws, "moves", []byte(`{"n":11,"t":"made","another":1}`))
	want("made and unmade", "1,4,7,8,10,11 2,5,30")
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("all delivered", "1,4,7,8,10,11 2,5,30")
}

// Objects: another place, a backup, a transform; and a change that mends what
// could never be processed or delivered.
func TestObjectsChangeByTheAPI(t *testing.T) {
	c := testConfig(t)
	asked := make(chan struct{}, 1000)
	lambda := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/broken") {
			_, _ = io.Copy(io.Discard, r.Body)
			select {
			case asked <- struct{}{}:
			default:
			}
			<-r.Context().Done() // it never answers
			return
		}
		var in struct {
			Records []struct {
				RecordID string `json:"recordId"`
				Data     []byte `json:"data"`
			} `json:"records"`
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		out := []jsonObject{}
		for _, x := range in.Records {
			out = append(out, jsonObject{"recordId": x.RecordID, "result": "Ok", "data": []byte(strings.ToUpper(string(x.Data)))})
		}
		_ = json.NewEncoder(w).Encode(jsonObject{"records": out})
	}))
	defer lambda.Close()
	arn := func(name string) string { return "arn:aws:lambda:us-east-1:000000000000:function:" + name }
	c.Transforms = []TransformConfig{{ARN: arn("upper"), URL: lambda.URL}, {ARN: arn("broken"), URL: lambda.URL + "/broken"}}
	s := open(t, c)
	aws := client(t, s)
	if err := aws.Call(t.Context(), "CreateDeliveryStream", extended("objects", jsonObject{"Prefix": "one/"}), nil); err != nil {
		t.Fatal(err)
	}
	u := &updater{t: t, aws: aws, name: "objects", version: 1}
	put(t, aws, "objects", []byte("a;"))
	role := "arn:aws:iam::000000000000:role/r"
	refusal(t, "no backup configuration", u.send("ExtendedS3DestinationUpdate", jsonObject{"S3BackupMode": "Enabled"}), "InvalidArgumentException", "S3 backup destination configuration is required")
	refusal(t, "partitions", u.send("ExtendedS3DestinationUpdate", jsonObject{"DynamicPartitioningConfiguration": jsonObject{"Enabled": true}}), "InvalidArgumentException", "only when a Firehose is created")
	u.must("ExtendedS3DestinationUpdate", jsonObject{"Prefix": "two/", "S3BackupMode": "Enabled",
		"S3BackupUpdate":          jsonObject{"RoleARN": role, "BucketARN": "arn:aws:s3:::archive", "Prefix": "sent/"},
		"ProcessingConfiguration": processors(processor("Lambda", "LambdaArn", arn("broken")))})
	refusal(t, "the backup off", u.send("ExtendedS3DestinationUpdate", jsonObject{"S3BackupMode": "Disabled"}), "InvalidArgumentException", "Disabling S3 backup is not currently supported.")
	put(t, aws, "objects", []byte("b;"))
	<-asked // the broken one has it
	u.must("ExtendedS3DestinationUpdate", jsonObject{"ProcessingConfiguration": processors(processor("Lambda", "LambdaArn", arn("upper")))})
	put(t, aws, "objects", []byte("c;"))

	join := func(files map[string]string, under string) string {
		var all []string
		for name, body := range files {
			if strings.HasPrefix(name, under) {
				all = append(all, strings.Split(body, ";")...)
			}
		}
		slices.Sort(all)
		return strings.Trim(strings.Join(all, ""), " ")
	}
	files := flushed(t, s, "objects", "")
	if one, two := join(files, "one/"), join(files, "two/"); one+two != "aBC" && one+two != "BCa" && one+two != "ABC" || join(files, "sent/") != "bc" {
		t.Fatalf("%q", files)
	}

	// The bucket goes away: nothing can be delivered, until a change names another.
	u.must("ExtendedS3DestinationUpdate", jsonObject{"BucketARN": "arn:aws:s3:::gone", "BufferingHints": jsonObject{"SizeInMBs": 1, "IntervalInSeconds": 0}})
	gone := filepath.Join(s.dir("buckets"), "gone")
	if err := os.RemoveAll(gone); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(gone, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, aws, "objects", []byte("d;"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	st, err := s.delivery.Stream(record.StreamName("objects"))
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Flush(ctx); err == nil {
		t.Fatal("a bucket that is gone took the records")
	}
	cancel()
	u.must("ExtendedS3DestinationUpdate", jsonObject{"BucketARN": "arn:aws:s3:::archive", "Prefix": "three/", "ProcessingConfiguration": jsonObject{"Enabled": false}})
	put(t, aws, "objects", []byte("e;"))
	files = flushed(t, s, "objects", "")
	if got := join(files, "three/"); got != "De" || join(files, "sent/") != "bcde" {
		t.Errorf("%q", files)
	}
	if d := u.describe("ExtendedS3"); d["Prefix"] != "three/" || d["BucketARN"] != "arn:aws:s3:::archive" || d["S3BackupMode"] != "Enabled" {
		t.Errorf("%v", d)
	}
}

// Records that were processed for another prefix are placed by it: they lack
// the partition keys of the present one.
func TestPartitionsChangeByTheAPI(t *testing.T) {
	s := open(t, testConfig(t))
	aws := client(t, s)
	members := func(key string) jsonObject {
		return jsonObject{"Prefix": key + "=!{partitionKeyFromQuery:" + key + "}/", "ErrorOutputPrefix": "lost/!{firehose:error-output-type}/",
			"ProcessingConfiguration": processors(processor("MetadataExtraction", "MetadataExtractionQuery", "{"+key+": ."+key+"}", "JsonParsingEngine", "JQ-1.6"))}
	}
	first := members("venue")
	first["DynamicPartitioningConfiguration"] = jsonObject{"Enabled": true}
	if err := aws.Call(t.Context(), "CreateDeliveryStream", extended("parts", first), nil); err != nil {
		t.Fatal(err)
	}
	u := &updater{t: t, aws: aws, name: "parts", version: 1}
	for i, key := range []string{"venue", "symbol", "side"} {
		if i > 0 {
			u.must("ExtendedS3DestinationUpdate", members(key))
		}
		put(t, aws, "parts", []byte(`{"venue":"X","symbol":"S","side":"B","n":`+strconv.Itoa(i)+`}`))
		st, err := s.delivery.Stream("parts")
		if err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) { // it is processed, and not delivered
			if tr, err := s.delivery.Trace(t.Context(), record.ID{Key: st.Key(), Offset: record.Offset(i)}); err == nil && tr.Destinations[0].Outcome == delivery.TraceObject {
				break
			} else if time.Now().After(deadline) {
				t.Fatal(tr, err)
			}
		}
	}
	u.must("ExtendedS3DestinationUpdate", jsonObject{"CompressionFormat": "UNCOMPRESSED"})
	got := map[string]string{}
	for name, body := range flushed(t, s, "parts", "") {
		got[name[:strings.IndexByte(name, '/')]] += body[strings.LastIndexByte(body, ':')+1:]
	}
	if len(got) != 3 || got["venue=X"] != "0}" || got["symbol=S"] != "1}" || got["side=B"] != "2}" {
		t.Errorf("%v", got)
	}
}
