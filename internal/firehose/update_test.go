package firehose

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/tapehouse/tapehouse/internal/record"
)

func updateBody(version, destination, update string) string {
	return `{"DeliveryStreamName":"s","CurrentDeliveryStreamVersionId":"` + version + `","DestinationId":"` + destination + `",` + update + `}`
}

// created returns a handler with the stream s and its fake.
func created(t *testing.T, body string) (*Handler, *fakeStreams) {
	t.Helper()
	fake := newFake()
	h, _ := newHandler(t, fake)
	if _, err := call(t, h, "CreateDeliveryStream", body); err != nil {
		t.Fatal(err)
	}
	return h, fake
}

func (f *fakeStreams) config(name string) StreamConfig {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.streams[record.StreamName(name)].info.Config
}

func TestUpdateRefusals(t *testing.T) {
	const s3 = `"ExtendedS3DestinationUpdate"`
	cases := []struct{ name, create, body, code, message string }{
		{"nothing", s3Body("s", ""), `{}`, "ValidationException", "3 validation errors detected: Value null at 'deliveryStreamName' failed to satisfy constraint: Member must not be null; Value null at 'currentDeliveryStreamVersionId' failed to satisfy constraint: Member must not be null; Value null at 'destinationId' failed to satisfy constraint: Member must not be null"},
		{"constraints", s3Body("s", ""), updateBody("v1", "a b", s3+`:{"CompressionFormat":"x","S3BackupUpdate":{"RoleARN":"r"}}`), "ValidationException", "4 validation errors detected: Value 'v1' at 'currentDeliveryStreamVersionId' failed to satisfy constraint: Member must satisfy regular expression pattern: [0-9]+; Value 'a b' at 'destinationId'"},
		{"backup's path", s3Body("s", ""), updateBody("1", destinationID, s3+`:{"S3BackupUpdate":{"RoleARN":"r"}}`), "ValidationException", "Value 'r' at 'extendedS3DestinationUpdate.s3BackupUpdate.roleARN'"},
		{"legacy path", s3Body("s", ""), updateBody("1", destinationID, `"S3DestinationUpdate":{"CompressionFormat":"x"}`), "ValidationException", "at 's3DestinationUpdate.compressionFormat'"},
		{"iceberg path", createBody("s"), updateBody("1", destinationID, `"IcebergDestinationUpdate":{"BufferingHints":{"SizeInMBs":0}}`), "ValidationException", "Value '0' at 'icebergDestinationUpdate.bufferingHints.sizeInMBs'"},
		{"no update", s3Body("s", ""), updateBody("1", destinationID, `"x":1`), codeInvalidArgument, "Exactly one destination configuration is supported for a Firehose"},
		{"two updates", s3Body("s", ""), updateBody("1", destinationID, s3+`:{},"S3DestinationUpdate":{}`), codeInvalidArgument, "Exactly one destination configuration"},
		{"splunk", s3Body("s", ""), updateBody("1", destinationID, `"SplunkDestinationUpdate":{}`), codeInvalidArgument, "SplunkDestinationUpdate is not supported: use IcebergDestinationUpdate"},
		{"version", s3Body("s", ""), updateBody("7", destinationID, s3+`:{}`), codeConcurrent, "Cannot update firehose: s since the current version id: 1 and specified version id: 7 do not match"},
		{"version with a zero", s3Body("s", ""), updateBody("01", destinationID, s3+`:{}`), codeConcurrent, "do not match"},
		{"version of fifty digits", s3Body("s", ""), updateBody(strings.Repeat("9", 50), destinationID, s3+`:{}`), codeConcurrent, "do not match"},
		{"destination", s3Body("s", ""), updateBody("1", "destinationId-000000000002", s3+`:{}`), codeInvalidArgument, "Destination Id destinationId-000000000002 not found"},
		{"version before destination", s3Body("s", ""), updateBody("2", "x", s3+`:{}`), codeConcurrent, "do not match"},
		{"one hint", s3Body("s", withoutPrefix), updateBody("1", destinationID, s3+`:{"BufferingHints":{"SizeInMBs":9}}`), codeInvalidArgument, "you must also provide a value for the other"},
		{"the whole is checked: compression", s3Body("s", conversion), updateBody("1", destinationID, s3+`:{"CompressionFormat":"GZIP"}`), codeInvalidArgument, "must be set to UNCOMPRESSED"},
		{"the whole is checked: stored size", s3Body("s", ""), updateBody("1", destinationID, s3+`:{`+conversion+`}`), codeInvalidArgument, "BufferingHints.SizeInMBs must be at least 64"},
		{"the whole is checked: prefix", s3Body("s", ""), updateBody("1", destinationID, s3+`:{"Prefix":"!{timestamp:yyyy}"}`), codeInvalidArgument, "ErrorOutputPrefix cannot be null or empty"},
		{"kms", s3Body("s", ""), updateBody("1", destinationID, s3+`:{"EncryptionConfiguration":{"KMSEncryptionConfig":{"AWSKMSKeyARN":"`+kmsKey+`"}}}`), codeInvalidArgument, "KMSEncryptionConfig is not supported"},
		{"partitioning on", s3Body("s", withoutPrefix), updateBody("1", destinationID, s3+`:{`+partitioned+`,`+queryPrefix+`,`+processors(jq)+`}`), codeInvalidArgument, "can be enabled or disabled only when a Firehose is created"},
		{"partitioning off", s3Body("s", partitioned+","+queryPrefix+","+processors(jq)), updateBody("1", destinationID, s3+`:{"DynamicPartitioningConfiguration":{"Enabled":false}}`), codeInvalidArgument, "can be enabled or disabled only when a Firehose is created"},
		{"partitioning with the type", createBody("s"), updateBody("1", destinationID, s3+`:{"RoleARN":"`+roleARN+`","BucketARN":"arn:aws:s3:::b",`+partitioned+`,`+queryPrefix+`,`+processors(jq)+`}`), codeInvalidArgument, "can be enabled or disabled only when a Firehose is created"},
		{"backup off", s3Body("s", `"S3BackupMode":"Enabled","S3BackupConfiguration":{"RoleARN":"`+roleARN+`","BucketARN":"arn:aws:s3:::b"}`), updateBody("1", destinationID, s3+`:{"S3BackupMode":"Disabled"}`), codeInvalidArgument, "Disabling S3 backup is not currently supported."},
		{"backup without a place", s3Body("s", ""), updateBody("1", destinationID, s3+`:{"S3BackupMode":"Enabled"}`), codeInvalidArgument, "S3 backup destination configuration is required when enabling S3 backup."},
		{"backup without a bucket", s3Body("s", ""), updateBody("1", destinationID, s3+`:{"S3BackupMode":"Enabled","S3BackupUpdate":{"RoleARN":"`+roleARN+`"}}`), codeInvalidArgument, "S3BackupConfiguration.BucketARN must not be null or empty"},
		{"another type, not whole", createBody("s"), updateBody("1", destinationID, s3+`:{"Prefix":"a/"}`), codeInvalidArgument, "All parameters must be specified when the destination type changes"},
		{"iceberg, not whole", s3Body("s", ""), updateBody("1", destinationID, `"IcebergDestinationUpdate":{"RoleARN":"`+roleARN+`"}`), codeInvalidArgument, "All parameters must be specified when the destination type changes"},
		{"no tables left", createBody("s"), updateBody("1", destinationID, `"IcebergDestinationUpdate":{"DestinationTableConfigurationList":[]}`), codeInvalidArgument, "A single default destination table"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h, fake := created(t, c.create)
			before := fake.config("s")
			_, err := call(t, h, "UpdateDestination", c.body)
			wantError(t, err, c.code, c.message)
			if info := fake.streams["s"].info; info.Version != 1 || !reflect.DeepEqual(info.Config, before) {
				t.Errorf("the stream was changed: %+v", info)
			}
		})
	}
}

// What Streams decides, and what state the stream is in.
func TestUpdateDecisions(t *testing.T) {
	h, fake := created(t, s3Body("s", ""))
	update := func() error {
		_, err := call(t, h, "UpdateDestination", updateBody("1", destinationID, `"S3DestinationUpdate":{}`))
		return err
	}
	fake.updateErr = ErrConcurrent
	wantError(t, update(), codeConcurrent, "Another call changed the delivery stream meanwhile.")
	fake.updateErr = &Refusal{ErrInvalid, "The prefix cannot be evaluated."}
	wantError(t, update(), codeInvalidArgument, "The prefix cannot be evaluated.")
	fake.updateErr = ErrNotFound
	wantError(t, update(), codeNotFound, "Firehose s under accountId 000000000000 not found.")
	for _, status := range []Status{StatusCreating, StatusCreatingFailed, StatusDeleting, StatusDeletingFailed} {
		fake.streams["s"].info.Status = status
		wantError(t, update(), codeInUse, "Firehose s is "+string(status)+", not ACTIVE")
	}
}

// set of an update is merged member by member, and only what AWS replaces as a
// whole is replaced.
func TestUpdateMerges(t *testing.T) {
	log := `"CloudWatchLoggingOptions":{"Enabled":true,"LogGroupName":"g","LogStreamName":"l"}`
	h, fake := created(t, s3Body("s", strings.Join([]string{conversion, log, `"Prefix":"a/"`, `"ErrorOutputPrefix":"e/"`, `"CustomTimeZone":"Asia/Tokyo"`,
		processors(processor("Lambda", "LambdaArn", lambdaARN, "NumberOfRetries", "7"))}, ",")))
	steps := []struct {
		update string
		check  func(d *ExtendedS3Destination) bool
	}{
		{`{}`, func(d *ExtendedS3Destination) bool {
			return *d.Prefix == "a/" && *d.BufferingHints.SizeInMBs == 128 && *d.CustomTimeZone == "Asia/Tokyo"
		}},
		{`{"Prefix":"b/","BucketARN":"arn:aws:s3:::other","FileExtension":".parquet"}`, func(d *ExtendedS3Destination) bool {
			return *d.Prefix == "b/" && *d.BucketARN == "arn:aws:s3:::other" && *d.ErrorOutputPrefix == "e/" && *d.RoleARN == roleARN && *d.FileExtension == ".parquet"
		}},
		{`{"CloudWatchLoggingOptions":{"LogStreamName":"m"}}`, func(d *ExtendedS3Destination) bool {
			return *d.CloudWatch.Enabled && *d.CloudWatch.LogGroupName == "g" && *d.CloudWatch.LogStreamName == "m"
		}},
		{`{"DataFormatConversionConfiguration":{"SchemaConfiguration":{"TableName":"quotes"}}}`, func(d *ExtendedS3Destination) bool {
			return *d.Conversion.Schema.TableName == "quotes" && *d.Conversion.Schema.DatabaseName == "equities" && d.Conversion.Input.Deserializer.OpenX != nil
		}},
		{`{"DataFormatConversionConfiguration":{"InputFormatConfiguration":{"Deserializer":{"HiveJsonSerDe":{"TimestampFormats":["millis"]}}}}}`, func(d *ExtendedS3Destination) bool {
			in := d.Conversion.Input.Deserializer
			return in.OpenX == nil && in.Hive.TimestampFormats[0] == "millis" && d.Conversion.Output.Serializer.Parquet != nil
		}},
		{`{"DataFormatConversionConfiguration":{"Enabled":false}}`, func(d *ExtendedS3Destination) bool {
			return !d.Conversion.On() && *d.Conversion.Schema.TableName == "quotes"
		}},
		{`{"CompressionFormat":"GZIP","BufferingHints":{"SizeInMBs":1,"IntervalInSeconds":0}}`, func(d *ExtendedS3Destination) bool {
			return *d.CompressionFormat == "GZIP" && *d.BufferingHints.SizeInMBs == 1 && *d.BufferingHints.IntervalInSeconds == 0
		}},
		{`{"ProcessingConfiguration":{"Enabled":true,"Processors":[` + processor("AppendDelimiterToRecord") + `]}}`, func(d *ExtendedS3Destination) bool {
			return len(d.Processing.Processors) == 1 && d.Processing.Processors[0].Type == "AppendDelimiterToRecord"
		}},
		{`{"S3BackupMode":"Enabled","S3BackupUpdate":{"RoleARN":"` + roleARN + `","BucketARN":"arn:aws:s3:::backup","Prefix":"p/"}}`, func(d *ExtendedS3Destination) bool {
			return *d.S3BackupMode == "Enabled" && *d.S3Backup.Prefix == "p/" && *d.S3Backup.CompressionFormat == "UNCOMPRESSED" && *d.S3Backup.BufferingHints.SizeInMBs == 5
		}},
		{`{"S3BackupUpdate":{"Prefix":"q/"},"S3BackupConfiguration":{"Prefix":"not a member of the update"}}`, func(d *ExtendedS3Destination) bool {
			return *d.S3Backup.Prefix == "q/" && *d.S3Backup.BucketARN == "arn:aws:s3:::backup"
		}},
	}
	for i, s := range steps {
		if _, err := call(t, h, "UpdateDestination", updateBody(fmt.Sprint(i+1), destinationID, `"ExtendedS3DestinationUpdate":`+s.update)); err != nil {
			t.Fatalf("%s: %v", s.update, err)
		}
		if d := fake.config("s").S3; !s.check(d) {
			got, _ := json.Marshal(d)
			t.Fatalf("after %s:\n%s", s.update, got)
		}
	}
	// The legacy form changes the common members and nothing else.
	before := fake.config("s")
	if _, err := call(t, h, "UpdateDestination", updateBody(fmt.Sprint(len(steps)+1), destinationID, `"S3DestinationUpdate":{"Prefix":"legacy/"}`)); err != nil {
		t.Fatal(err)
	}
	after := fake.config("s")
	if *after.S3.Prefix != "legacy/" {
		t.Error(*after.S3.Prefix)
	}
	after.S3.Prefix = before.S3.Prefix
	if !reflect.DeepEqual(after, before) {
		t.Errorf("%+v\n%+v", after.S3, before.S3)
	}
	out, err := call(t, h, "DescribeDeliveryStream", `{"DeliveryStreamName":"s"}`)
	if err != nil || !strings.Contains(out, fmt.Sprintf(`"VersionId":"%d"`, len(steps)+2)) || !strings.Contains(out, `"LastUpdateTimestamp":1764000060.123`) {
		t.Error(out, err)
	}
}

func TestUpdateIceberg(t *testing.T) {
	h, fake := created(t, swap(createBody("s"), `{"Del`, `{"Tags":[{"Key":"a","Value":"b"}],"DirectPutSourceConfiguration":{"ThroughputHintInMBs":7},"Del`))
	for i, update := range []string{
		`{"BufferingHints":{"SizeInMBs":1,"IntervalInSeconds":0}}`,
		`{"RetryOptions":{"DurationInSeconds":10},"S3Configuration":{"RoleARN":"` + roleARN + `","BucketARN":"arn:aws:s3:::other","CompressionFormat":"GZIP"}}`,
		`{"CatalogConfiguration":{"WarehouseLocation":"s3://lake/w"},"SchemaEvolutionConfiguration":{"Enabled":true},"AppendOnly":false}`,
		`{"DestinationTableConfigurationList":[{"DestinationDatabaseName":"equities","DestinationTableName":"executions","UniqueKeys":["id"]}]}`,
	} {
		if _, err := call(t, h, "UpdateDestination", updateBody(fmt.Sprint(i+1), destinationID, `"IcebergDestinationUpdate":`+update)); err != nil {
			t.Fatalf("%s: %v", update, err)
		}
	}
	config := fake.config("s")
	d := config.Iceberg
	if *d.BufferingHints.SizeInMBs != 1 || *d.RetryOptions.DurationInSeconds != 10 || *d.S3.BucketARN != "arn:aws:s3:::other" || *d.S3.CompressionFormat != "GZIP" ||
		*d.Catalog.CatalogARN == "" || *d.Catalog.WarehouseLocation != "s3://lake/w" || !d.SchemaEvolution.On() || d.Tables[0].UniqueKeys[0] != "id" || *d.RoleARN != roleARN {
		got, _ := json.Marshal(d)
		t.Errorf("%s", got)
	}
	if len(config.Tags) != 1 || *config.ThroughputHintInMBs != 7 {
		t.Errorf("%+v", config)
	}
}

// A conversion that is configured later is in effect unless it says otherwise.
func TestUpdateSwitchesConversionOn(t *testing.T) {
	h, fake := created(t, s3Body("s", withoutPrefix))
	if out, err := call(t, h, "DescribeDeliveryStream", `{"DeliveryStreamName":"s"}`); err != nil || !strings.Contains(out, `"DataFormatConversionConfiguration":{"Enabled":false}`) {
		t.Fatal(out, err)
	}
	if _, err := call(t, h, "UpdateDestination", updateBody("1", destinationID, `"ExtendedS3DestinationUpdate":{`+conversion+`}`)); err != nil {
		t.Fatal(err)
	}
	if !fake.config("s").S3.Conversion.On() {
		t.Error("the conversion is off")
	}
}

// A destination of another type is not merged into the former.
func TestUpdateChangesTheType(t *testing.T) {
	h, fake := created(t, createBody("s"))
	if _, err := call(t, h, "UpdateDestination", updateBody("1", destinationID, `"ExtendedS3DestinationUpdate":{"RoleARN":"`+roleARN+`","BucketARN":"arn:aws:s3:::b"}`)); err != nil {
		t.Fatal(err)
	}
	c := fake.config("s")
	if c.Iceberg != nil || c.S3 == nil || *c.S3.BufferingHints.SizeInMBs != 5 || *c.S3.CompressionFormat != "UNCOMPRESSED" {
		t.Fatalf("%+v", c)
	}
	body := createBody("s")
	iceberg := strings.Replace(body[strings.Index(body, `"Iceberg`):len(body)-1], "Configuration", "Update", 1)
	if _, err := call(t, h, "UpdateDestination", updateBody("2", destinationID, iceberg)); err != nil {
		t.Fatal(err)
	}
	if c := fake.config("s"); c.Iceberg == nil || c.S3 != nil {
		t.Fatalf("%+v", c)
	}
}

// A pack's stream has neither roles nor a catalog: its hints can be changed.
func TestUpdateOfAPacksStream(t *testing.T) {
	fake := newFake()
	h, _ := newHandler(t, fake)
	if _, err := fake.Create(t.Context(), StreamConfig{Name: "s", Iceberg: &IcebergDestination{Tables: []DestinationTable{{Table: "t", Database: "d"}}}}); err != nil {
		t.Fatal(err)
	}
	out, err := call(t, h, "DescribeDeliveryStream", `{"DeliveryStreamName":"s"}`)
	if err != nil || !strings.Contains(out, `"BufferingHints":{"SizeInMBs":5,"IntervalInSeconds":300}`) {
		t.Fatal(out, err)
	}
	if _, err := call(t, h, "UpdateDestination", updateBody("1", destinationID, `"IcebergDestinationUpdate":{"BufferingHints":{"SizeInMBs":9,"IntervalInSeconds":9}}`)); err != nil {
		t.Fatal(err)
	}
	if size, _ := fake.config("s").Hints(); size != 9<<20 {
		t.Fatal(size)
	}
}

// Of updates at one version one wins, and no tag is lost to an update.
func TestUpdatesRace(t *testing.T) {
	h, fake := created(t, s3Body("s", ""))
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range 16 {
		wg.Go(func() {
			if _, err := call(t, h, "TagDeliveryStream", fmt.Sprintf(`{"DeliveryStreamName":"s","Tags":[{"Key":"k%d","Value":""}]}`, i)); err != nil {
				t.Error(err)
			}
			_, err := call(t, h, "UpdateDestination", updateBody("1", destinationID, fmt.Sprintf(`"S3DestinationUpdate":{"Prefix":"%d/"}`, i)))
			if err == nil {
				mu.Lock()
				won++
				mu.Unlock()
				return
			}
			wantError(t, err, codeConcurrent, "")
		})
	}
	wg.Wait()
	if tags := fake.config("s").Tags; won != 1 || len(tags) != 16 {
		t.Fatalf("%d updates of one version, %d tags", won, len(tags))
	}
}
