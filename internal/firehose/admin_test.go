package firehose

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/awsapi"
)

func wantError(t *testing.T, err error, code, message string) {
	t.Helper()
	var e *awsapi.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Message, message) {
		t.Errorf("got  %v\nwant %s: …%s…", err, code, message)
	}
}

const kmsKey = "arn:aws:kms:us-east-1:000000000000:key/0"

// routed gives a valid CreateDeliveryStream a jq query that routes.
func routed(body string) string {
	return swap(body, `"BufferingHints"`, `"ProcessingConfiguration":{"Enabled":true,"Processors":[{"Type":"MetadataExtraction","Parameters":[`+
		`{"ParameterName":"JsonParsingEngine","ParameterValue":"JQ-1.6"},{"ParameterName":"MetadataExtractionQuery","ParameterValue":"{destinationTableName:.t}"}]}]},"BufferingHints"`)
}

func TestCreateRefusals(t *testing.T) {
	good := createBody("s")
	const table = `[{"DestinationDatabaseName":"equities","DestinationTableName":"executions"}]`
	cases := []struct{ name, body, code, message string }{
		{"no JSON", "{", "SerializationException", "not valid JSON"},
		{"wrong type", `{"DeliveryStreamName":1}`, "SerializationException", "A number can not be converted to the type of DeliveryStreamName."},
		{"nothing", `{}`, "ValidationException", "1 validation error detected: Value null at 'deliveryStreamName' failed to satisfy constraint: Member must not be null"},
		{"name", swap(good, `"s"`, `"a b"`), "ValidationException", "1 validation error detected: Value 'a b' at 'deliveryStreamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"},
		{"long name", createBody(strings.Repeat("x", 65)), "ValidationException", "Member must have length less than or equal to 64"},
		{"two errors", swap(swap(good, `"SizeInMBs":64`, `"SizeInMBs":129`), `"IntervalInSeconds":60`, `"IntervalInSeconds":901`), "ValidationException",
			"2 validation errors detected: Value '129' at 'icebergDestinationConfiguration.bufferingHints.sizeInMBs' failed to satisfy constraint: Member must have value less than or equal to 128; Value '901' at 'icebergDestinationConfiguration.bufferingHints.intervalInSeconds' failed"},
		{"type", swap(good, `"DirectPut"`, `"Pull"`), "ValidationException", "Value 'Pull' at 'deliveryStreamType' failed to satisfy constraint: Member must satisfy enum value set: [DirectPut, KinesisStreamAsSource, MSKAsSource, DatabaseAsSource]"},
		{"role", swap(good, roleARN, "role"), "ValidationException", `at 'icebergDestinationConfiguration.roleARN' failed to satisfy constraint: Member must satisfy regular expression pattern: arn:.*:iam::\d{12}:role/`},
		{"no catalog", swap(good, `"CatalogConfiguration"`, `"Catalog"`), "ValidationException", "Value null at 'icebergDestinationConfiguration.catalogConfiguration'"},
		{"no S3", swap(good, `"S3Configuration"`, `"S3"`), "ValidationException", "Value null at 'icebergDestinationConfiguration.s3Configuration'"},
		{"table name", swap(good, `"executions"`, `"a-b"`), "ValidationException", "'icebergDestinationConfiguration.destinationTableConfigurationList.1.member.destinationTableName'"},
		{"tags", swap(good, `{"Del`, `{"Tags":[{"Key":"aws:x"}],"Del`), "ValidationException", "Value 'aws:x' at 'tags.1.member.key'"},
		{"no tags", swap(good, `{"Del`, `{"Tags":[],"Del`), "ValidationException", "at 'tags' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		{"kinesis", swap(good, `"DirectPut"`, `"KinesisStreamAsSource"`), codeInvalidArgument, "KinesisStreamAsSource is not supported: use DirectPut"},
		{"kinesis source", swap(good, `{"Del`, `{"KinesisStreamSourceConfiguration":{},"Del`), codeInvalidArgument, "KinesisStreamSourceConfiguration is not supported"},
		{"encryption", swap(good, `{"Del`, `{"DeliveryStreamEncryptionConfigurationInput":{"KeyType":"AWS_OWNED_CMK"},"Del`), codeInvalidArgument, "not encrypted at rest"},
		{"encryption with a key", swap(good, `{"Del`, `{"DeliveryStreamEncryptionConfigurationInput":{"KeyType":"CUSTOMER_MANAGED_CMK","KeyARN":"`+kmsKey+`"},"Del`), codeInvalidKMS, "The key " + kmsKey + " cannot be used"},
		{"encryption without a type", swap(good, `{"Del`, `{"DeliveryStreamEncryptionConfigurationInput":{},"Del`), "ValidationException", "Value null at 'deliveryStreamEncryptionConfigurationInput.keyType'"},
		{"no destination", `{"DeliveryStreamName":"s"}`, codeInvalidArgument, "Exactly one destination configuration"},
		{"two destinations", swap(good, `{"Del`, `{"ExtendedS3DestinationConfiguration":{"RoleARN":"`+roleARN+`","BucketARN":"arn:aws:s3:::lake"},"Del`), codeInvalidArgument, "Exactly one destination configuration"},
		{"splunk", `{"DeliveryStreamName":"s","SplunkDestinationConfiguration":{}}`, codeInvalidArgument, "SplunkDestinationConfiguration is not supported: use IcebergDestinationConfiguration"},
		{"redshift", `{"DeliveryStreamName":"s","RedshiftDestinationConfiguration":{}}`, codeInvalidArgument, "Redshift-compatible endpoint"},
		{"no table", swap(good, table, "[]"), codeInvalidArgument, "A single default destination table configuration must be provided when both Lambda and MetadataExtraction processors are not provided"},
		{"two tables", swap(good, table, table[:len(table)-1]+`,{"DestinationDatabaseName":"equities","DestinationTableName":"quotes"}]`), codeInvalidArgument, "A single default destination table"},
		{"a table twice", swap(routed(good), table, table[:len(table)-1]+","+table[1:]), codeInvalidArgument, "names the table equities.executions twice"},
		{"a key twice", swap(good, `"executions"`, `"executions","UniqueKeys":["k","k"]`), codeInvalidArgument, "UniqueKeys of the table equities.executions names k twice."},
		{"keys, appended only", swap(swap(good, `"executions"`, `"executions","UniqueKeys":["k"]`), `"BufferingHints"`, `"AppendOnly":true,"BufferingHints"`), codeInvalidArgument, "AppendOnly must be false or left out when a table has UniqueKeys"},
		{"key with a space", swap(good, `"executions"`, `"executions","UniqueKeys":["a b"]`), "ValidationException", "Value 'a b' at 'icebergDestinationConfiguration.destinationTableConfigurationList.1.member.uniqueKeys.1.member' failed"},
		{"table's error prefix", swap(good, `"executions"`, `"executions","S3ErrorOutputPrefix":"e/!{timestamp:yyyy}/"`), codeInvalidArgument, "S3ErrorOutputPrefix must contain at least one occurrence of !{firehose:error-output-type}"},
		{"one hint", swap(good, `"SizeInMBs":64,`, ``), codeInvalidArgument, "you must also provide a value for the other"},
		{"one S3 hint", swap(good, `"BucketARN"`, `"BufferingHints":{"SizeInMBs":5},"BucketARN"`), codeInvalidArgument, "S3Configuration.BufferingHints"},
		{"evolution unset", swap(good, `"BufferingHints"`, `"SchemaEvolutionConfiguration":{},"BufferingHints"`), "ValidationException", "'icebergDestinationConfiguration.schemaEvolutionConfiguration.enabled'"},
		{"delimiter", swap(good, `"BufferingHints"`, `"ProcessingConfiguration":{"Enabled":true,"Processors":[{"Type":"AppendDelimiterToRecord"}]},"BufferingHints"`), codeInvalidArgument, "AppendDelimiterToRecord has no effect on an Iceberg destination"},
		{"backup", swap(good, `"BufferingHints"`, `"S3BackupMode":"AllData","BufferingHints"`), codeInvalidArgument, "S3BackupMode.AllData is not supported for Iceberg as destination. Use FailedDataOnly"},
		{"kms", swap(good, `"BucketARN"`, `"EncryptionConfiguration":{"KMSEncryptionConfig":{"AWSKMSKeyARN":"`+kmsKey+`"}},"BucketARN"`), codeInvalidArgument, "KMSEncryptionConfig is not supported"},
		{"missing table", swap(good, `"executions"`, `"missing"`), codeInvalidArgument, "The table equities.missing does not exist"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			fake := newFake()
			h, _ := newHandler(t, fake)
			_, err := call(t, h, "CreateDeliveryStream", c.body)
			wantError(t, err, c.code, c.message)
			if len(fake.streams) != 0 {
				t.Fatal("the stream was created")
			}
		})
	}
}

func TestLifeOfAStream(t *testing.T) {
	fake := newFake()
	h, registry := newHandler(t, fake)
	out, err := call(t, h, "CreateDeliveryStream", swap(createBody("trades"), `{"Del`, `{"DirectPutSourceConfiguration":{"ThroughputHintInMBs":7},"Tags":[{"Key":"a","Value":"b"}],"Del`))
	if err != nil || out != `{"DeliveryStreamARN":"arn:aws:firehose:us-east-1:000000000000:deliverystream/trades"}` {
		t.Fatal(out, err)
	}
	_, err = call(t, h, "CreateDeliveryStream", createBody("trades"))
	wantError(t, err, codeInUse, "Firehose trades under accountId 000000000000 already exists")

	config := fake.streams["trades"].info.Config
	if size, interval := config.Hints(); size != 64<<20 || interval != time.Minute {
		t.Fatal(size, interval)
	}
	if database, table := config.Table(); database != "equities" || table != "executions" {
		t.Fatal(database, table)
	}
	// What is stored as JSON is read back the same.
	data, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	var again StreamConfig
	if err := json.Unmarshal(data, &again); err != nil || again.Iceberg.S3 == nil || *again.Iceberg.S3.CompressionFormat != "UNCOMPRESSED" {
		t.Fatalf("%s: %v", data, err)
	}

	out, err = call(t, h, "DescribeDeliveryStream", `{"DeliveryStreamName":"trades","Limit":1}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"DeliveryStreamStatus":"ACTIVE"`, `"VersionId":"1"`, `"CreateTimestamp":1764000000.123`, `"DeliveryStreamEncryptionConfiguration":{"Status":"DISABLED"}`,
		`"DirectPutSourceDescription":{"ThroughputHintInMBs":7}`, `"HasMoreDestinations":false`, `"DestinationId":"destinationId-000000000001"`,
		`"S3BackupMode":"FailedDataOnly"`, `"S3DestinationDescription":{"RoleARN":"` + roleARN + `","BucketARN":"arn:aws:s3:::lake","BufferingHints":{"SizeInMBs":5,"IntervalInSeconds":300},"CompressionFormat":"UNCOMPRESSED","EncryptionConfiguration":{"NoEncryptionConfig":"NoEncryption"},"CloudWatchLoggingOptions":{"Enabled":false}}`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the description lacks %s:\n%s", want, out)
		}
	}
	for _, never := range []string{"S3Configuration", "LastUpdateTimestamp", "FailureDescription"} {
		if strings.Contains(out, never) {
			t.Errorf("the description has %s:\n%s", never, out)
		}
	}

	if _, err := call(t, h, "PutRecord", `{"DeliveryStreamName":"trades","Record":{"Data":"e30="}}`); err != nil {
		t.Fatal(err)
	}
	if families, err := registry.Gather(); err != nil || len(families) == 0 {
		t.Fatal("no metrics after a put", err)
	}
	if out, err := call(t, h, "DeleteDeliveryStream", `{"DeliveryStreamName":"trades","AllowForceDelete":true}`); err != nil || out != "" {
		t.Fatal(out, err)
	}
	if families, err := registry.Gather(); err != nil || len(families) != 0 {
		t.Fatalf("%d metric families are left after the delete, %v", len(families), err)
	}
	for _, operation := range []string{"DescribeDeliveryStream", "DeleteDeliveryStream"} {
		_, err = call(t, h, operation, `{"DeliveryStreamName":"trades"}`)
		wantError(t, err, codeNotFound, "Firehose trades under account 000000000000 not found.")
	}
}

func TestListPages(t *testing.T) {
	h, _ := newHandler(t, newFake())
	for i := range 25 {
		if _, err := call(t, h, "CreateDeliveryStream", createBody(fmt.Sprintf("s%02d", i))); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	body, pages := `{}`, 0
	for {
		out, err := call(t, h, "ListDeliveryStreams", body)
		if err != nil {
			t.Fatal(err)
		}
		var page listOutput
		if err := json.Unmarshal([]byte(out), &page); err != nil {
			t.Fatal(err)
		}
		names = append(names, page.DeliveryStreamNames...)
		pages++
		if !page.HasMoreDeliveryStreams {
			break
		}
		body = fmt.Sprintf(`{"ExclusiveStartDeliveryStreamName":%q}`, names[len(names)-1])
	}
	if len(names) != 25 || pages != 3 || names[0] != "s00" || names[24] != "s24" {
		t.Fatal(pages, names)
	}
	if out, err := call(t, h, "ListDeliveryStreams", `{"DeliveryStreamType":"MSKAsSource"}`); err != nil || out != `{"DeliveryStreamNames":[],"HasMoreDeliveryStreams":false}` {
		t.Fatal(out, err)
	}
	if out, err := call(t, h, "ListDeliveryStreams", `{"DeliveryStreamType":"DirectPut","Limit":1}`); err != nil || out != `{"DeliveryStreamNames":["s00"],"HasMoreDeliveryStreams":true}` {
		t.Fatal(out, err)
	}
	_, err := call(t, h, "ListDeliveryStreams", `{"Limit":0}`)
	wantError(t, err, "ValidationException", "Value '0' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1")
}

func TestQuota(t *testing.T) {
	fake := newFake()
	h, _ := newHandler(t, fake)
	h.streamsMax = 2
	for _, name := range []string{"a", "b"} {
		if _, err := call(t, h, "CreateDeliveryStream", createBody(name)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := call(t, h, "CreateDeliveryStream", createBody("c"))
	wantError(t, err, codeLimit, "You have already consumed your firehose quota of 2 hoses.")
	_, err = call(t, h, "CreateDeliveryStream", createBody("a"))
	wantError(t, err, codeInUse, "already exists")
	if _, err := call(t, h, "DeleteDeliveryStream", `{"DeliveryStreamName":"a"}`); err != nil {
		t.Fatal(err)
	}
	if _, err := call(t, h, "CreateDeliveryStream", createBody("c")); err != nil {
		t.Fatal(err)
	}
}

// All twelve operations are there, and every one that names a stream answers
// for one that is not.
func TestUnknownStream(t *testing.T) {
	h, _ := newHandler(t, newFake())
	if n := len(h.Service().Operations); n != 12 {
		t.Fatalf("%d operations, the model has 12", n)
	}
	for operation, rest := range map[string]string{
		"DescribeDeliveryStream": "", "DeleteDeliveryStream": "", "StopDeliveryStreamEncryption": "", "StartDeliveryStreamEncryption": "", "ListTagsForDeliveryStream": "",
		"PutRecord": `,"Record":{"Data":""}`, "PutRecordBatch": `,"Records":[{"Data":""}]`,
		"TagDeliveryStream": `,"Tags":[{"Key":"a"}]`, "UntagDeliveryStream": `,"TagKeys":["a"]`,
	} {
		_, err := call(t, h, operation, `{"DeliveryStreamName":"nobody"`+rest+`}`)
		wantError(t, err, codeNotFound, "Firehose nobody under account 000000000000 not found.")
		_, err = call(t, h, operation, `{"DeliveryStreamName":"no body"`+rest+`}`)
		wantError(t, err, "ValidationException", "Value 'no body' at 'deliveryStreamName'")
	}
	_, err := call(t, h, "UpdateDestination", `{"DeliveryStreamName":"nobody","CurrentDeliveryStreamVersionId":"1","DestinationId":"destinationId-000000000001","ExtendedS3DestinationUpdate":{}}`)
	wantError(t, err, codeNotFound, "Firehose nobody under accountId 000000000000 not found.")
}

// A page of destinations after the only one is empty.
func TestDescribePages(t *testing.T) {
	h, _ := newHandler(t, newFake())
	if _, err := call(t, h, "CreateDeliveryStream", createBody("s")); err != nil {
		t.Fatal(err)
	}
	for after, want := range map[string]bool{"destinationId-000000000000": true, destinationID: false, "z": false} {
		out, err := call(t, h, "DescribeDeliveryStream", `{"DeliveryStreamName":"s","ExclusiveStartDestinationId":"`+after+`"}`)
		if err != nil || strings.Contains(out, `"IcebergDestinationDescription"`) != want || !strings.Contains(out, `"Destinations":[`) {
			t.Errorf("after %s: %v %s", after, err, out)
		}
	}
}

func TestDocumentsAreBounded(t *testing.T) {
	h, _ := newHandler(t, newFake())
	_, err := call(t, h, "DescribeDeliveryStream", `{"DeliveryStreamName":"s","x":"`+strings.Repeat("x", documentBytesMax)+`"}`)
	wantError(t, err, awsapi.CodeTooLarge, "larger than the 524288 bytes")
	_, err = call(t, h, "DescribeDeliveryStream", `{"DeliveryStreamName":"s`+"\xff"+`"}`)
	wantError(t, err, awsapi.CodeSerialization, "not valid UTF-8")
	_, err = call(t, h, "DescribeDeliveryStream", `{"DeliveryStreamName":"s","x":`+strings.Repeat("[", 200_000)+`}`)
	wantError(t, err, awsapi.CodeSerialization, "not valid JSON")
	// The last of several members of one name counts; a member that nobody
	// knows does not.
	_, err = call(t, h, "DescribeDeliveryStream", `{"DeliveryStreamName":"a","DeliveryStreamName":"b","Other":[{"x":{}}]}`)
	wantError(t, err, codeNotFound, "Firehose b under")
}

// Names have the model's case, or are unknown: whoever looks at a body for its
// stream sees the one that is meant.
func TestCaseOfMembers(t *testing.T) {
	h, _ := newHandler(t, newFake())
	for _, c := range []struct{ body, stream string }{
		{`{"DeliveryStreamName":"a","deliverystreamname":"b"}`, "a"},
		{`{"deliverystreamname":"b","DeliveryStreamName":"a","DELIVERYSTREAMNAME":"c"}`, "a"},
		{`{"DeliveryStreamName":"a", "\u0064eliveryStreamName" : "b"}`, "a"},
		{`{"x":[{"y":{"DeliveryStreamName":1}},"z"],"DeliveryStreamName":"a","Delivery\u017ftreamName":"b"}`, "a"},
		{`{"\u0044eliveryStreamName":"a"}`, "a"},
	} {
		_, err := call(t, h, "DescribeDeliveryStream", c.body)
		wantError(t, err, codeNotFound, "Firehose "+c.stream+" under")
	}
	_, err := call(t, h, "DescribeDeliveryStream", `{"deliverystreamname":"a"}`)
	wantError(t, err, awsapi.CodeValidation, "Value null at 'deliveryStreamName'")

	// A user's own names are not the model's.
	var d ExtendedS3Destination
	body := []byte(`{"prefix":"x","DataFormatConversionConfiguration":{"InputFormatConfiguration":{"Deserializer":{"OpenXJsonSerDe":{"ColumnToJsonKeyMappings":{"type":"t","prefix":"p","tags":"g"},"caseinsensitive":true}}},"enabled":true},"FileExtension":".a"}`)
	if err := decode(body, &d); err != nil {
		t.Fatal(err)
	}
	x := d.Conversion.Input.Deserializer.OpenX
	if len(x.ColumnKeys) != 3 || x.ColumnKeys["type"] != "t" || x.CaseInsensitive != nil || d.Conversion.Enabled != nil || d.Prefix != nil || *d.FileExtension != ".a" {
		t.Errorf("%s", body)
	}
}
