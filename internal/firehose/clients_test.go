package firehose

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/awsapi"
	"github.com/tapehouse/tapehouse/internal/producer"
)

// boto3Script drives the API with boto3 and prints what the user of it sees.
const boto3Script = `
import json, sys, boto3
from botocore.config import Config
from botocore.exceptions import ClientError
url, key, secret = sys.argv[1:4]
def client(service, k=key, s=secret):
    return boto3.client(service, endpoint_url=url, region_name="us-east-1", aws_access_key_id=k, aws_secret_access_key=s,
        config=Config(retries={"max_attempts": 0}, parameter_validation=False))
out = {}
def call(name, f):
    try:
        r = f()
        r["requestId"] = bool(r["ResponseMetadata"].get("RequestId")); r.pop("ResponseMetadata")
        out[name] = r
    except ClientError as e:
        out[name] = [e.response["Error"]["Code"], e.response["Error"]["Message"], e.response["ResponseMetadata"]["HTTPStatusCode"]]
    except Exception as e:
        out[name] = [type(e).__name__, str(e), 0]
f = client("firehose")
role = "arn:aws:iam::000000000000:role/tapehouse"
create = dict(DeliveryStreamName="trades", DeliveryStreamType="DirectPut", IcebergDestinationConfiguration=dict(RoleARN=role,
    CatalogConfiguration=dict(CatalogARN="arn:aws:glue:us-east-1:000000000000:catalog"),
    DestinationTableConfigurationList=[dict(DestinationDatabaseName="equities", DestinationTableName="executions")],
    BufferingHints=dict(SizeInMBs=64, IntervalInSeconds=60), S3Configuration=dict(RoleARN=role, BucketARN="arn:aws:s3:::lake")))
call("create", lambda: f.create_delivery_stream(**create))
call("again", lambda: f.create_delivery_stream(**create))
call("list", lambda: f.list_delivery_streams())
call("describe", lambda: f.describe_delivery_stream(DeliveryStreamName="trades"))
call("put", lambda: f.put_record(DeliveryStreamName="trades", Record=dict(Data=b'{"n":0}')))
call("batch", lambda: f.put_record_batch(DeliveryStreamName="trades", Records=[dict(Data=json.dumps(dict(n=n)).encode()) for n in range(1, 501)]))
call("501", lambda: f.put_record_batch(DeliveryStreamName="trades", Records=[dict(Data=b"{}")] * 501))
call("record", lambda: f.put_record(DeliveryStreamName="trades", Record=dict(Data=b"x" * 1024001)))
call("batchrecord", lambda: f.put_record_batch(DeliveryStreamName="trades", Records=[dict(Data=b"{}"), dict(Data=b"x" * 1024001)]))
call("batchsize", lambda: f.put_record_batch(DeliveryStreamName="trades", Records=[dict(Data=b"x" * 1000000)] * 5))
call("huge", lambda: f.put_record_batch(DeliveryStreamName="trades", Records=[dict(Data=b"x" * 1000000)] * 12))
call("partial", lambda: f.put_record_batch(DeliveryStreamName="trades", Records=[dict(Data=b"{}"), dict(Data=b"bad")]))
call("notfound", lambda: f.put_record(DeliveryStreamName="nobody", Record=dict(Data=b"{}")))
call("update", lambda: f.update_destination(DeliveryStreamName="trades", CurrentDeliveryStreamVersionId="1", DestinationId="d"))
call("secret", lambda: client("firehose", s="wrong").list_delivery_streams())
call("key", lambda: client("firehose", k="AKIAUNKNOWN").put_record_batch(DeliveryStreamName="trades", Records=[dict(Data=b"x" * 1000000)] * 4))
call("glue", lambda: client("glue").get_databases())
call("sts", lambda: client("sts").get_caller_identity())
call("delete", lambda: f.delete_delivery_stream(DeliveryStreamName="trades"))
call("gone", lambda: f.describe_delivery_stream(DeliveryStreamName="trades"))
json.dump(out, sys.stdout, default=str)
`

func TestBoto3(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil || exec.Command(python, "-c", "import boto3").Run() != nil {
		t.Skip("SKIPPED: no python3 with boto3 on this machine: the API was not tried with AWS's Python client")
	}
	fake := newFake()
	fake.failing = func(doc []byte) bool { return string(doc) == "bad" }
	url := serve(t, fake, nil)
	cmd := exec.Command(python, "-c", boto3Script, url, testKey.ID, testKey.Secret)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	raw, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var got map[string]json.RawMessage
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	const slow = `{"FailedPutCount": 1, "Encrypted": false, "RequestResponses": [{"RecordId": "`
	const heap = "1 validation error detected: Value 'java.nio.HeapByteBuffer[pos=0 lim=1024001 cap=1024001]' at '"
	const long = "' failed to satisfy constraint: Member must have length less than or equal to 1024000"
	for name, want := range map[string]string{
		"create":      `{"DeliveryStreamARN": "arn:aws:firehose:us-east-1:000000000000:deliverystream/trades", "requestId": true}`,
		"again":       `["ResourceInUseException", "Firehose trades under accountId 000000000000 already exists", 400]`,
		"list":        `{"DeliveryStreamNames": ["trades"], "HasMoreDeliveryStreams": false, "requestId": true}`,
		"describe":    `"CreateTimestamp": "2025-11-24 `,
		"put":         `"Encrypted": false`,
		"batch":       `{"FailedPutCount": 0, "Encrypted": false, "RequestResponses": [{"RecordId": "`,
		"501":         `["ValidationException", "1 validation error detected: Value '[501 members]' at 'records' failed to satisfy constraint: Member must have length less than or equal to 500", 400]`,
		"record":      `["ValidationException", "` + heap + `record.data` + long + `", 400]`,
		"batchrecord": `["ValidationException", "` + heap + `records.2.member.data` + long + `", 400]`,
		"batchsize":   `["InvalidArgumentException", "Records size exceeds 4 MB limit", 400]`,
		"huge":        `["RequestEntityTooLargeException", "The request body is larger than the 8388608 bytes that this operation takes.", 413]`,
		"partial":     slow,
		"notfound":    `["ResourceNotFoundException", "Firehose nobody under account 000000000000 not found.", 400]`,
		"update":      `["InvalidArgumentException", "Exactly one destination configuration is supported for a Firehose", 400]`,
		"secret":      `["InvalidSignatureException", "The request signature we calculated does not match the signature you provided.`,
		"key":         `["UnrecognizedClientException", "The security token included in the request is invalid.", 400]`,
		"glue":        `["UnknownServiceException", "The request is signed for the service \"glue\"; this endpoint serves: firehose.", 400]`,
		"sts":         `["UnknownServiceException", "The request is signed for the service \"sts\"; this endpoint serves: firehose.", 400]`,
		"delete":      `{"requestId": true}`,
		"gone":        `["ResourceNotFoundException", "Firehose trades under account 000000000000 not found.", 400]`,
	} {
		if !strings.Contains(string(got[name]), want) {
			t.Errorf("%s\n got %.400s\nwant %s", name, got[name], want)
		}
	}
	if n := strings.Count(string(got["batch"]), "RecordId"); n != 500 {
		t.Errorf("%d RecordIds for a batch of 500", n)
	}
}

// aws runs the CLI with nothing of this machine's configuration.
func aws(t *testing.T, url, secret string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("aws")
	if err != nil {
		t.Skip("SKIPPED: no aws CLI on this machine: the API was not tried with it")
	}
	cmd := exec.Command(path, append([]string{"firehose"}, args...)...)
	none := filepath.Join(t.TempDir(), "none")
	cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL="+url, "AWS_ACCESS_KEY_ID="+testKey.ID, "AWS_SECRET_ACCESS_KEY="+secret, "AWS_DEFAULT_REGION=us-east-1",
		"AWS_REGION=us-east-1", "AWS_CONFIG_FILE="+none, "AWS_SHARED_CREDENTIALS_FILE="+none, "AWS_MAX_ATTEMPTS=1", "AWS_PAGER=", "AWS_EC2_METADATA_DISABLED=true")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestCLI(t *testing.T) {
	fake := newFake()
	url := serve(t, fake, nil)
	file := filepath.Join(t.TempDir(), "records.json")
	records := make([]map[string]string, 501)
	for i := range records {
		records[i] = map[string]string{"Data": "e30="}
	}
	data, err := json.Marshal(records)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		secret string
		args   []string
		want   string
	}{
		{testKey.Secret, []string{"create-delivery-stream", "--cli-input-json", createBody("trades")}, "deliverystream/trades"},
		{testKey.Secret, []string{"list-delivery-streams"}, `"trades"`},
		{testKey.Secret, []string{"put-record", "--delivery-stream-name", "trades", "--record", `{"Data":"eyJuIjoxfQ=="}`}, `"RecordId": "01`},
		{testKey.Secret, []string{"put-record-batch", "--delivery-stream-name", "trades", "--records", "file://" + file}, "An error occurred (ValidationException) when calling the PutRecordBatch operation: 1 validation error detected: Value '[501 members]' at 'records' failed to satisfy constraint: Member must have length less than or equal to 500"},
		{"another", []string{"list-delivery-streams"}, "An error occurred (InvalidSignatureException) when calling the ListDeliveryStreams operation: The request signature we calculated does not match"},
	} {
		if out, _ := aws(t, url, c.secret, c.args...); !strings.Contains(out, c.want) {
			t.Errorf("aws firehose %.80v\n got %.600s\nwant %s", c.args, out, c.want)
		}
	}
	skewed := serve(t, fake, func() time.Time { return time.Now().Add(10 * time.Minute) })
	if out, _ := aws(t, skewed, testKey.Secret, "list-delivery-streams"); !strings.Contains(out, "(InvalidSignatureException)") || !strings.Contains(out, "Signature expired: ") {
		t.Errorf("with a clock ten minutes off:\n%s", out)
	}
}

// Our own producer against our own front door: what is acknowledged is there,
// through throttling and partial failures, and nothing twice, because every
// outcome here is known.
func TestProducer(t *testing.T) {
	fake := newFake()
	var puts atomic.Int64
	fake.failing = func(doc []byte) bool { return doc[len(doc)-2] == '7' && puts.Add(1)%2 == 1 }
	client, err := producer.New(producer.Config{Endpoint: serve(t, fake, nil), AccessKey: testKey.ID, Secret: testKey.Secret, RetryFor: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.CreateStream(t.Context(), producer.StreamSpec{Name: "s", Database: "equities", Table: "executions"}); err != nil {
		t.Fatal(err)
	}
	if s, err := client.Describe(t.Context(), "s"); err != nil || s.Status != "ACTIVE" || s.Database != "equities" || s.Table != "executions" {
		t.Fatal(s, err)
	}
	if _, err := client.PutBatch(t.Context(), "nobody", [][]byte{[]byte("{}")}); !producer.IsCode(err, "ResourceNotFoundException") {
		t.Fatal(err)
	}
	p := producer.NewPipeline(client, producer.PipelineOptions{Workers: 4, Linger: time.Millisecond})
	const records = 5000
	for i := range records {
		if i == records/2 {
			fake.mu.Lock()
			fake.putErr = ErrThrottled
			fake.mu.Unlock()
			time.AfterFunc(100*time.Millisecond, func() {
				fake.mu.Lock()
				fake.putErr = nil
				fake.mu.Unlock()
			})
		}
		if err := p.Put(t.Context(), "s", strconv.Itoa(i%10), fmt.Appendf(nil, `{"n":%d}`, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := p.Progress(); got.Acknowledged != records || got.Submitted != records {
		t.Fatalf("%+v", got)
	}
	seen := map[string]int{}
	for _, d := range fake.docs("s") {
		seen[d]++
	}
	if len(seen) != records || len(fake.docs("s")) != records {
		t.Fatalf("%d documents, %d different, want %d", len(fake.docs("s")), len(seen), records)
	}
}

// BenchmarkServe is the whole way of a put over loopback HTTP: signature,
// SHA-256, envelope and answer; the client's share (one signed body sent again
// and again) is in it.
func BenchmarkServe(b *testing.B) {
	h, _ := newHandler(b, sink{})
	mux, err := awsapi.NewMux(awsapi.Options{Verifier: auth.NewVerifier(&auth.Credentials{Keys: []auth.AccessKey{testKey}}, nil), Registerer: prometheus.NewRegistry()})
	if err != nil {
		b.Fatal(err)
	}
	if err := mux.Register(h.Service()); err != nil {
		b.Fatal(err)
	}
	server := httptest.NewServer(mux)
	defer server.Close()
	body := batch(500)
	r, err := http.NewRequest(http.MethodPost, server.URL+"/", nil)
	if err != nil {
		b.Fatal(err)
	}
	r.Header["X-Amz-Target"] = []string{"Firehose_20150804.PutRecordBatch"}
	auth.NewSigner(testKey, "us-east-1", "firehose").Sign(r, sha256.Sum256(body), time.Now())
	r.ContentLength = int64(len(body))
	b.ReportAllocs()
	for b.Loop() {
		r.Body = io.NopCloser(bytes.NewReader(body))
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.Copy(io.Discard, answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK || n < 500*62 {
			b.Fatal(answer.Status, n, err)
		}
		_ = answer.Body.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/500, "ns/record")
}

// BenchmarkProducer is producer and front door together on this machine, with
// distinct documents of 290 bytes, signed, hashed and decoded, and nothing
// behind the front door: the ceiling of what a put can reach here.
func BenchmarkProducer(b *testing.B) {
	client, err := producer.New(producer.Config{Endpoint: serve(b, sink{}, nil), AccessKey: testKey.ID, Secret: testKey.Secret})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	p := producer.NewPipeline(client, producer.PipelineOptions{Workers: 4})
	docs := make([][]byte, 500)
	for i := range docs {
		docs[i] = fmt.Appendf(nil, `{"n":%d,"x":%q}`, i, strings.Repeat("x", 280))[:290]
	}
	n := 0
	for b.Loop() {
		n++
		if err := p.Put(b.Context(), "s", strconv.Itoa(n%16), docs...); err != nil {
			b.Fatal(err)
		}
	}
	if err := p.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)*500/b.Elapsed().Seconds(), "records/s")
}
