package firehose

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

// operationsScript takes a stream through its life with boto3 as its users
// have it: what it sends is checked by its own model first.
const operationsScript = `
import json, sys, boto3
from botocore.config import Config
from botocore.exceptions import ClientError
url, key, secret = sys.argv[1:4]
f = boto3.client("firehose", endpoint_url=url, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret, config=Config(retries={"max_attempts": 0}))
out = []
def call(name, f, **args):
    try:
        r = f(**args)
        r.pop("ResponseMetadata")
        out.append([name, r])
        return r
    except ClientError as e:
        out.append([name, [e.response["Error"]["Code"], e.response["Error"]["Message"], e.response["ResponseMetadata"]["HTTPStatusCode"], type(e).__name__]])
role, s = "arn:aws:iam::000000000000:role/tapehouse", dict(DeliveryStreamName="s3")
call("create", f.create_delivery_stream, ExtendedS3DestinationConfiguration=dict(RoleARN=role, BucketARN="arn:aws:s3:::lake", Prefix="d/"), Tags=[dict(Key="a", Value="1")], **s)
call("describe", f.describe_delivery_stream, **s)
call("list", f.list_delivery_streams, DeliveryStreamType="DirectPut", Limit=5)
call("update", f.update_destination, CurrentDeliveryStreamVersionId="1", DestinationId="destinationId-000000000001",
    ExtendedS3DestinationUpdate=dict(CompressionFormat="GZIP", BufferingHints=dict(SizeInMBs=9, IntervalInSeconds=61)), **s)
call("stale", f.update_destination, CurrentDeliveryStreamVersionId="1", DestinationId="destinationId-000000000001", ExtendedS3DestinationUpdate=dict(CompressionFormat="ZIP"), **s)
call("updated", f.describe_delivery_stream, **s)
call("tag", f.tag_delivery_stream, Tags=[dict(Key="b", Value="2"), dict(Key="c")], **s)
call("tags", f.list_tags_for_delivery_stream, Limit=2, **s)
call("more tags", f.list_tags_for_delivery_stream, ExclusiveStartTagKey="b", **s)
call("untag", f.untag_delivery_stream, TagKeys=["a", "c"], **s)
call("tags left", f.list_tags_for_delivery_stream, **s)
call("start", f.start_delivery_stream_encryption, **s)
call("start with key", f.start_delivery_stream_encryption, DeliveryStreamEncryptionConfigurationInput=dict(KeyType="CUSTOMER_MANAGED_CMK", KeyARN="arn:aws:kms:us-east-1:000000000000:key/0"), **s)
call("stop", f.stop_delivery_stream_encryption, **s)
call("put", f.put_record, Record=dict(Data=b"{}"), **s)
call("batch", f.put_record_batch, Records=[dict(Data=b"{}")] * 2, **s)
call("delete", f.delete_delivery_stream, AllowForceDelete=True, **s)
call("gone", f.list_tags_for_delivery_stream, **s)
json.dump(out, sys.stdout, default=str)
`

func TestBoto3Operations(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil || exec.Command(python, "-c", "import boto3").Run() != nil {
		t.Skip("SKIPPED: no python3 with boto3 on this machine: the operations were not tried with AWS's Python client")
	}
	url := serve(t, newFake(), nil)
	cmd := exec.Command(python, "-c", operationsScript, url, testKey.ID, testKey.Secret)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	raw, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var answers [][2]json.RawMessage
	if err := json.Unmarshal(raw, &answers); err != nil {
		t.Fatal(err)
	}
	want := [][]string{
		{"create", `{"DeliveryStreamARN": "arn:aws:firehose:us-east-1:000000000000:deliverystream/s3"}`},
		{"describe", `"VersionId": "1", "CreateTimestamp": "2025-11-24 `, `"S3DestinationDescription": {"RoleARN"`, `"ExtendedS3DestinationDescription": {"RoleARN"`, `"Prefix": "d/"`, `"SizeInMBs": 5`},
		{"list", `{"DeliveryStreamNames": ["s3"], "HasMoreDeliveryStreams": false}`},
		{"update", `{}`},
		{"stale", `["ConcurrentModificationException", "Cannot update firehose: s3 since the current version id: 2 and specified version id: 1 do not match", 400, "ConcurrentModificationException"]`},
		{"updated", `"VersionId": "2"`, `"LastUpdateTimestamp": "2025-11-24 `, `"CompressionFormat": "GZIP"`, `"SizeInMBs": 9, "IntervalInSeconds": 61`, `"Prefix": "d/"`},
		{"tag", `{}`},
		{"tags", `{"Tags": [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}], "HasMoreTags": true}`},
		{"more tags", `{"Tags": [{"Key": "c"}], "HasMoreTags": false}`},
		{"untag", `{}`},
		{"tags left", `{"Tags": [{"Key": "b", "Value": "2"}], "HasMoreTags": false}`},
		{"start", `["InvalidArgumentException", "Server-side encryption is not supported: `, `"InvalidArgumentException"]`},
		{"start with key", `["InvalidKMSResourceException", "The key arn:aws:kms:us-east-1:000000000000:key/0 cannot be used: `, `"InvalidKMSResourceException"]`},
		{"stop", `{}`},
		{"put", `"Encrypted": false`},
		{"batch", `{"FailedPutCount": 0, "Encrypted": false, "RequestResponses": [{"RecordId": "`},
		{"delete", `{}`},
		{"gone", `["ResourceNotFoundException", "Firehose s3 under account 000000000000 not found.", 400, "ResourceNotFoundException"]`},
	}
	if len(answers) != len(want) {
		t.Fatalf("%d answers of %d: %s", len(answers), len(want), raw)
	}
	for i, w := range want {
		if string(answers[i][0]) != `"`+w[0]+`"` {
			t.Fatalf("answer %d is to %s, not to %s", i, answers[i][0], w[0])
		}
		for _, part := range w[1:] {
			if !strings.Contains(string(answers[i][1]), part) {
				t.Errorf("%s\n got %s\nwant … %s …", w[0], answers[i][1], part)
			}
		}
	}
}

// The same with the command line.
func TestCLIOperations(t *testing.T) {
	url := serve(t, newFake(), nil)
	const destination = `{"RoleARN":"` + roleARN + `","BucketARN":"arn:aws:s3:::lake",` + conversion + `}`
	update := []string{"update-destination", "--current-delivery-stream-version-id", "1", "--destination-id", destinationID,
		"--extended-s3-destination-update", `{"DataFormatConversionConfiguration":{"SchemaConfiguration":{"TableName":"quotes"}}}`}
	for _, c := range []struct {
		args  []string
		wants []string
	}{
		{[]string{"create-delivery-stream", "--delivery-stream-type", "DirectPut", "--extended-s3-destination-configuration", destination, "--tags", "Key=a,Value=1"}, []string{"deliverystream/s"}},
		{update, nil},
		{update, []string{"An error occurred (ConcurrentModificationException) when calling the UpdateDestination operation: Cannot update firehose: s since the current version id: 2 and specified version id: 1 do not match"}},
		{[]string{"describe-delivery-stream"}, []string{`"VersionId": "2"`, `"TableName": "quotes"`, `"DatabaseName": "equities"`, `"SizeInMBs": 128`, `"OpenXJsonSerDe": {}`}},
		{[]string{"tag-delivery-stream", "--tags", "Key=b,Value=2"}, nil},
		{[]string{"untag-delivery-stream", "--tag-keys", "a"}, nil},
		{[]string{"list-tags-for-delivery-stream"}, []string{`"Key": "b"`, `"HasMoreTags": false`}},
		{[]string{"start-delivery-stream-encryption", "--delivery-stream-encryption-configuration-input", "KeyType=AWS_OWNED_CMK"}, []string{"(InvalidArgumentException) when calling the StartDeliveryStreamEncryption operation: Server-side encryption is not supported"}},
		{[]string{"stop-delivery-stream-encryption"}, nil},
		{[]string{"delete-delivery-stream", "--allow-force-delete"}, nil},
		{[]string{"describe-delivery-stream"}, []string{"(ResourceNotFoundException) when calling the DescribeDeliveryStream operation: Firehose s under account 000000000000 not found."}},
	} {
		out, err := aws(t, url, testKey.Secret, append(c.args, "--delivery-stream-name", "s")...)
		if failed := strings.Contains(out, "An error occurred ("); failed != (err != nil) || c.wants == nil && strings.TrimSpace(out) != "" {
			t.Errorf("aws firehose %s: %v\n%s", c.args[0], err, out)
		}
		for _, want := range c.wants {
			if !strings.Contains(out, want) {
				t.Errorf("aws firehose %s\n got %.900s\nwant … %s …", c.args[0], out, want)
			}
		}
	}
}
