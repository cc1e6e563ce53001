package server

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// notesTable is a table of a user's own, which the tests of AWS's clients feed.
const notesTable = `CREATE TABLE equities.notes (n bigint NOT NULL, note text, price numeric(18,4))`

// notesStream is what aws firehose create-delivery-stream is given.
const notesStream = `{"RoleARN":"arn:aws:iam::000000000000:role/tapehouse",
	"CatalogConfiguration":{"CatalogARN":"arn:aws:glue:us-east-1:000000000000:catalog"},
	"DestinationTableConfigurationList":[{"DestinationDatabaseName":"equities","DestinationTableName":"notes"}],
	"S3Configuration":{"RoleARN":"arn:aws:iam::000000000000:role/tapehouse","BucketARN":"arn:aws:s3:::lake"}}`

// The errors that AWS itself answers, as its clients show them.
const (
	tooMany   = `Value '[501 members]' at 'records' failed to satisfy constraint: Member must have length less than or equal to 500`
	tooLong   = `failed to satisfy constraint: Member must have length less than or equal to 1024000`
	tooLarge  = `Records size exceeds 4 MB limit`
	badSecret = `The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method.`
)

// onlyTry takes away what newer clients add to an error after they were told to
// try once.
func onlyTry(s string) string { return strings.ReplaceAll(s, " (reached max retries: 0)", "") }

// recordsFile writes n records of size bytes as the CLI's --records takes them.
// The second version of the CLI wants base64, the first makes it itself; what
// is refused is refused either way, and so these records are all letters.
func recordsFile(t *testing.T, n, size int) string {
	t.Helper()
	records := make([]map[string]string, n)
	for i := range records {
		records[i] = map[string]string{"Data": strings.Repeat("abcd", size/4)}
	}
	body, err := json.Marshal(records)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "records.json")
	if err := os.WriteFile(name, body, 0o600); err != nil {
		t.Fatal(err)
	}
	return "file://" + name
}

func recordFile(t *testing.T, doc string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "record.json")
	if err := os.WriteFile(name, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	return "Data@=fileb://" + name
}

func TestAWSCLI(t *testing.T) {
	program := look(t, "aws", "the server was not tried with AWS's own command line")
	s := open(t, testConfig(t))
	conn := connect(t, s)
	execute1(t, conn, notesTable)
	env := environ(t, s)
	firehose := func(env []string, args ...string) string {
		t.Helper()
		out, err := run(t, env, "", program, append([]string{"firehose"}, args...)...)
		out = onlyTry(out)
		if failed := strings.Contains(out, "An error occurred ("); failed != (err != nil) {
			t.Errorf("aws firehose %s: %v\n%s", args[0], err, out)
		}
		return out
	}
	expect := func(what, out string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in\n%s", what, want, out)
			}
		}
	}
	name := func(args ...string) []string { return append(args, "--delivery-stream-name", "notes") }

	expect("create", firehose(env, append(name("create-delivery-stream"), "--iceberg-destination-configuration", notesStream)...),
		`"DeliveryStreamARN": "arn:aws:firehose:us-east-1:000000000000:deliverystream/notes"`)
	expect("list", firehose(env, "list-delivery-streams"), `"corrections",`, `"executions",`, `"markers",`, `"notes",`, `"order-events"`, `"HasMoreDeliveryStreams": false`)
	expect("describe", firehose(env, name("describe-delivery-stream")...), `"DeliveryStreamStatus": "ACTIVE"`, `"DestinationTableName": "notes"`, `"SizeInMBs": 5`)

	expect("put-record", firehose(env, append(name("put-record"), "--record", recordFile(t, `{"n":1,"note":"hello","price":"12.5"}`))...), `"RecordId": "01`, `"Encrypted": false`)
	if got := table(t, conn, "SELECT n, note, price FROM notes"); !slices.Equal(got, []string{"1|hello|12.5000"}) {
		t.Errorf("right after the put: %q", got)
	}
	expect("malformed", firehose(env, append(name("put-record"), "--record", recordFile(t, `{"n":"two"}`))...), `"RecordId": "01`)

	expect("501 records", firehose(env, append(name("put-record-batch"), "--records", recordsFile(t, 501, 8))...), "(ValidationException) when calling the PutRecordBatch operation: ", tooMany)
	expect("large record", firehose(env, append(name("put-record-batch"), "--records", recordsFile(t, 1, 1_600_000))...), "(ValidationException)", "at 'records.1.member.data' ", tooLong)
	// 750,000 letters are 562,500 bytes for one version of the CLI: 8 are above 4 MiB for both.
	expect("large batch", firehose(env, append(name("put-record-batch"), "--records", recordsFile(t, 8, 750_000))...), "(InvalidArgumentException) when calling the PutRecordBatch operation: ", tooLarge)
	expect("unknown stream", firehose(env, "put-record", "--delivery-stream-name", "nobody", "--record", recordFile(t, `{}`)),
		"(ResourceNotFoundException) when calling the PutRecord operation: Firehose nobody under account 000000000000 not found.")
	expect("wrong secret", firehose(append(env, "AWS_SECRET_ACCESS_KEY=wrong"), "list-delivery-streams"), "(InvalidSignatureException)", badSecret)
	expect("unknown key", firehose(append(env, "AWS_ACCESS_KEY_ID=AKIAAAAAAAAAAAAAAAAA"), "list-delivery-streams"),
		"(UnrecognizedClientException) when calling the ListDeliveryStreams operation: The security token included in the request is invalid.")

	expect("delete", firehose(env, name("delete-delivery-stream")...), "")
	expect("deleted", firehose(env, name("describe-delivery-stream")...), "(ResourceNotFoundException) when calling the DescribeDeliveryStream operation: Firehose notes under account 000000000000 not found.")
	if got := text(t, conn, "SELECT count(*) FROM notes"); got != "1" {
		t.Errorf("%s rows after the stream was deleted", got)
	}
	lines := errorOutput(t, s)
	if len(lines) != 1 || lines[0].Raw != `{"n":"two"}` || lines[0].Code != "DataFormatConversion.MalformedData" || lines[0].Table.Table != "notes" || !strings.Contains(lines[0].Message, "n") {
		t.Errorf("error output: %+v", lines)
	}
}

// boto3 is configured by the environment alone, as a user's would be. The script
// prints what each call gave: the answer, or the error as boto3 shows it.
func TestBoto3(t *testing.T) {
	program := look(t, "python3", "the server was not tried with boto3")
	if exec.Command(program, "-c", "import boto3").Run() != nil {
		t.Skip("SKIPPED: python3 has no boto3 on this machine: the server was not tried with it")
	}
	s := open(t, testConfig(t))
	conn := connect(t, s)
	execute1(t, conn, notesTable)
	out, err := run(t, environ(t, s), "", program, "-c", `
import json, sys, boto3
from botocore.exceptions import ClientError
out = {}
def call(name, f):
    try:
        r = f(); r.pop("ResponseMetadata"); out[name] = json.dumps(r, default=str)
    except ClientError as e:
        out[name] = str(e)
f = boto3.client("firehose")
iceberg = json.loads(sys.argv[1])
batch = lambda records: f.put_record_batch(DeliveryStreamName="notes", Records=[dict(Data=d) for d in records])
call("create", lambda: f.create_delivery_stream(DeliveryStreamName="notes", DeliveryStreamType="DirectPut", IcebergDestinationConfiguration=iceberg))
call("again", lambda: f.create_delivery_stream(DeliveryStreamName="notes", DeliveryStreamType="DirectPut", IcebergDestinationConfiguration=iceberg))
call("list", lambda: f.list_delivery_streams(Limit=2))
call("describe", lambda: f.describe_delivery_stream(DeliveryStreamName="notes"))
call("put", lambda: f.put_record(DeliveryStreamName="notes", Record=dict(Data=b'{"n":0,"note":"z\xc3\xa9ro","price":0.1}')))
call("batch", lambda: batch(json.dumps(dict(n=n, price=str(n) + ".0001")).encode() for n in range(1, 500)))
call("largest", lambda: f.put_record(DeliveryStreamName="notes", Record=dict(Data=(b'{"n":500,"note":"' + b"x" * (1024000 - 19) + b'"}'))))
call("malformed", lambda: batch([b'{"n":1.5}', b'{"n":501}', b'{"note":"no n"}', b'no json', b'{"n":502,"price":"0.00001"}']))
call("501", lambda: batch([b"{}"] * 501))
call("record", lambda: f.put_record(DeliveryStreamName="notes", Record=dict(Data=b"x" * 1024001)))
call("batchrecord", lambda: batch([b"{}", b"x" * 1024001]))
call("batchsize", lambda: batch([b"x" * 1000000] * 5))
call("notfound", lambda: f.put_record(DeliveryStreamName="nobody", Record=dict(Data=b"{}")))
call("secret", lambda: boto3.client("firehose", aws_secret_access_key="wrong", aws_access_key_id=f._request_signer._credentials.access_key).list_delivery_streams())
json.dump(out, sys.stdout)
`, notesStream)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got map[string]string
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []struct{ call, text string }{
		{"create", `{"DeliveryStreamARN": "arn:aws:firehose:us-east-1:000000000000:deliverystream/notes"}`},
		{"again", "An error occurred (ResourceInUseException) when calling the CreateDeliveryStream operation: Firehose notes under accountId 000000000000 already exists"},
		{"list", `{"DeliveryStreamNames": ["corrections", "executions"], "HasMoreDeliveryStreams": true}`},
		{"describe", `"DeliveryStreamStatus": "ACTIVE"`},
		{"put", `"Encrypted": false`},
		{"batch", `{"FailedPutCount": 0, `},
		{"largest", `"RecordId": "01`},
		{"malformed", `{"FailedPutCount": 0, `},
		{"501", "(ValidationException) when calling the PutRecordBatch operation: 1 validation error detected: " + tooMany},
		{"record", "at 'record.data' " + tooLong},
		{"batchrecord", "at 'records.2.member.data' " + tooLong},
		{"batchsize", "(InvalidArgumentException) when calling the PutRecordBatch operation: " + tooLarge},
		{"notfound", "(ResourceNotFoundException) when calling the PutRecord operation: Firehose nobody under account 000000000000 not found."},
		{"secret", "(InvalidSignatureException) when calling the ListDeliveryStreams operation: " + badSecret},
	} {
		if got := onlyTry(got[want.call]); !strings.Contains(got, want.text) {
			t.Errorf("%s\n got %.400s\nwant %s", want.call, got, want.text)
		}
	}
	// Every good record is a row now, refused batches left nothing, and the
	// malformed ones are in the error output, each once.
	if got := text(t, conn, "SELECT count(*) || ' ' || sum(n) || ' ' || count(DISTINCT n) || ' ' || sum(price) || ' ' || max(len(note)) FROM notes"); got != fmt.Sprintf("502 %d 502 %s 1023981", 501*502/2, "124750.1499") {
		t.Errorf("rows: %s", got)
	}
	if got := text(t, conn, "SELECT note FROM notes WHERE n = 0"); got != "zéro" {
		t.Errorf("note %q", got)
	}
	var raw []string
	for _, f := range errorOutput(t, s) {
		raw = append(raw, f.Raw)
		if !strings.Contains(got["malformed"], f.RecordID) {
			t.Errorf("the error output's %s was never answered: %s", f.RecordID, got["malformed"])
		}
	}
	slices.Sort(raw)
	if want := []string{`no json`, `{"n":1.5}`, `{"n":502,"price":"0.00001"}`, `{"note":"no n"}`}; !slices.Equal(raw, want) {
		t.Errorf("error output: %q", raw)
	}
}
