package firehose

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

// s3Body is a valid CreateDeliveryStream with members of the destination
// besides the required ones.
func s3Body(name, members string) string {
	if members != "" {
		members = "," + members
	}
	return `{"DeliveryStreamName":"` + name + `","ExtendedS3DestinationConfiguration":{"RoleARN":"` + roleARN + `","BucketARN":"arn:aws:s3:::lake"` + members + `}}`
}

// conversion is a valid DataFormatConversionConfiguration.
const conversion = `"DataFormatConversionConfiguration":{"SchemaConfiguration":{"RoleARN":"` + roleARN + `","DatabaseName":"equities","TableName":"executions"},` +
	`"InputFormatConfiguration":{"Deserializer":{"OpenXJsonSerDe":{}}},"OutputFormatConfiguration":{"Serializer":{"ParquetSerDe":{}}}}`

func processors(list string) string {
	return `"ProcessingConfiguration":{"Enabled":true,"Processors":[` + list + `]}`
}

// processor renders one, with parameters as name, value, name, value…
func processor(kind string, parameters ...string) string {
	var b strings.Builder
	b.WriteString(`{"Type":"` + kind + `","Parameters":[`)
	for i := 0; i < len(parameters); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		value, err := json.Marshal(parameters[i+1])
		if err != nil {
			panic(err)
		}
		b.WriteString(`{"ParameterName":"` + parameters[i] + `","ParameterValue":` + string(value) + `}`)
	}
	return b.String() + "]}"
}

const lambdaARN = "arn:aws:lambda:us-east-1:000000000000:function:mask:$LATEST"

var jq = processor("MetadataExtraction", "JsonParsingEngine", "JQ-1.6", "MetadataExtractionQuery", "{symbol:.symbol}")

const (
	partitioned   = `"DynamicPartitioningConfiguration":{"Enabled":true}`
	queryPrefix   = `"Prefix":"d/!{partitionKeyFromQuery:symbol}/","ErrorOutputPrefix":"e/!{firehose:error-output-type}/"`
	lambdaPrefix  = `"Prefix":"d/!{partitionKeyFromLambda:symbol}/","ErrorOutputPrefix":"e/"`
	withoutPrefix = `"BufferingHints":{"SizeInMBs":64,"IntervalInSeconds":60}`
)

func TestCreateS3Refusals(t *testing.T) {
	const where = "extendedS3DestinationConfiguration"
	long := strings.Repeat("x", 500)
	cases := []struct{ name, members, code, message string }{
		{"enum", `"CompressionFormat":"SNAPPY"`, "ValidationException", "Value 'SNAPPY' at '" + where + ".compressionFormat' failed to satisfy constraint: Member must satisfy enum value set: [ZIP, HADOOP_SNAPPY, Snappy, GZIP, UNCOMPRESSED]"},
		{"extension", `"FileExtension":"gz"`, "ValidationException", `at '` + where + `.fileExtension' failed to satisfy constraint: Member must satisfy regular expression pattern: ^(|\.[0-9a-z!\-_.*'()]+)$`},
		{"time zone's form", `"CustomTimeZone":"GMT+1"`, "ValidationException", "'" + where + ".customTimeZone'"},
		{"backup's bucket", `"S3BackupConfiguration":{"RoleARN":"` + roleARN + `"}`, "ValidationException", "1 validation error detected: Value null at '" + where + ".s3BackupConfiguration.bucketARN'"},
		{"parquet", `"DataFormatConversionConfiguration":{"Enabled":false,"OutputFormatConfiguration":{"Serializer":{"ParquetSerDe":{"BlockSizeBytes":1,"PageSizeBytes":1,"Compression":"ZSTD","MaxPaddingBytes":-1,"WriterVersion":"V3"}}}}`, "ValidationException",
			"5 validation errors detected: Value '-1' at '" + where + ".dataFormatConversionConfiguration.outputFormatConfiguration.serializer.parquetSerDe.maxPaddingBytes' failed to satisfy constraint: Member must have value greater than or equal to 0; Value '1' at '" +
				where + ".dataFormatConversionConfiguration.outputFormatConfiguration.serializer.parquetSerDe.blockSizeBytes' failed to satisfy constraint: Member must have value greater than or equal to 67108864; "},
		{"orc", `"DataFormatConversionConfiguration":{"OutputFormatConfiguration":{"Serializer":{"OrcSerDe":{"PaddingTolerance":1.5,"BloomFilterFalsePositiveProbability":-0.5,"RowIndexStride":1,"BloomFilterColumns":["a b"]}}}}`, "ValidationException", "4 validation errors detected: Value '1' at"},
		{"mappings", `"DataFormatConversionConfiguration":{"InputFormatConfiguration":{"Deserializer":{"OpenXJsonSerDe":{"ColumnToJsonKeyMappings":{"a b":" ","c d":""}}}}}`, "ValidationException",
			`2 validation errors detected: Value '{2 entries}' at '` + where + `.dataFormatConversionConfiguration.inputFormatConfiguration.deserializer.openXJsonSerDe.columnToJsonKeyMappings' failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length less than or equal to 1024, Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: ^\S+$]; `},
		{"processor type", processors(`{"Type":"Bogus"}`), "ValidationException", "Value 'Bogus' at '" + where + ".processingConfiguration.processors.1.member.type' failed to satisfy constraint: Member must satisfy enum value set: [Decompression, Lambda, RecordDeAggregation, MetadataExtraction, AppendDelimiterToRecord, CloudWatchLogProcessing]"},
		{"processor without", processors(`{},null`), "ValidationException", "2 validation errors detected: Value null at '" + where + ".processingConfiguration.processors.1.member.type' failed to satisfy constraint: Member must not be null; "},
		{"parameter", processors(processor("Lambda", "LambdaArn", lambdaARN, "Bogus", "x")), "ValidationException", "Value 'Bogus' at '" + where + ".processingConfiguration.processors.1.member.parameters.2.member.parameterName'"},
		{"blank parameter", processors(processor("Lambda", "LambdaArn", " ")), "ValidationException", `processors.1.member.parameters.1.member.parameterValue' failed to satisfy constraint: Member must satisfy regular expression pattern: ^(?!\s*$).+`},
		{"too large an integer", `"BufferingHints":{"SizeInMBs":3000000000}`, "SerializationException", "can not be converted"},

		{"no encryption at all", `"EncryptionConfiguration":{}`, codeInvalidArgument, "Exactly one of NoEncryptionConfig or KMSEncryptionConfig must be specified"},
		{"both encryptions", `"EncryptionConfiguration":{"NoEncryptionConfig":"NoEncryption","KMSEncryptionConfig":{"AWSKMSKeyARN":"` + kmsKey + `"}}`, codeInvalidArgument, "Exactly one of"},
		{"kms", `"EncryptionConfiguration":{"KMSEncryptionConfig":{"AWSKMSKeyARN":"` + kmsKey + `"}}`, codeInvalidArgument, "KMSEncryptionConfig is not supported: use NoEncryptionConfig"},
		{"log group", `"CloudWatchLoggingOptions":{"Enabled":true}`, codeInvalidArgument, "CloudWatch Log Group Name is required if CloudWatch Logging is enabled"},
		{"log stream", `"CloudWatchLoggingOptions":{"Enabled":true,"LogGroupName":"g"}`, codeInvalidArgument, "CloudWatch Log Stream Name is required"},
		{"one hint", `"BufferingHints":{"SizeInMBs":64}`, codeInvalidArgument, "you must also provide a value for the other"},
		{"time zone", `"CustomTimeZone":"EST"`, codeInvalidArgument, "Provided custom time zone is not supported. Custom time zones are limited to UTC and non-3-letter IANA time zones."},
		{"no such zone", `"CustomTimeZone":"America/Gotham"`, codeInvalidArgument, "Provided custom time zone"},

		{"stray expression", `"Prefix":"a/!{timestamp/","ErrorOutputPrefix":"e/"`, codeInvalidArgument, "Invalid expression usage in Prefix"},
		{"no value", `"Prefix":"a/!{timestamp:}/","ErrorOutputPrefix":"e/"`, codeInvalidArgument, "Invalid expression usage"},
		{"namespace", `"Prefix":"a/!{time:yyyy}/","ErrorOutputPrefix":"e/"`, codeInvalidArgument, "Namespace to the left of colon (time) is an invalid keyword!"},
		{"value", `"Prefix":"a/!{firehose:x}/","ErrorOutputPrefix":"e/"`, codeInvalidArgument, "Invalid conversion character used in the value of the expression in Prefix"},
		{"error type in prefix", `"Prefix":"a/!{firehose:error-output-type}/","ErrorOutputPrefix":"e/"`, codeInvalidArgument, "Prefix must not contain any occurrence of !{firehose:error-output-type}"},
		{"no error prefix", `"Prefix":"a/!{timestamp:yyyy}/"`, codeInvalidArgument, "ErrorOutputPrefix cannot be null or empty when Prefix contains expressions"},
		{"empty error prefix", `"Prefix":"a/!{timestamp:yyyy}/","ErrorOutputPrefix":""`, codeInvalidArgument, "ErrorOutputPrefix cannot be null or empty"},
		{"error prefix without type", `"ErrorOutputPrefix":"e/!{timestamp:yyyy}/"`, codeInvalidArgument, "ErrorOutputPrefix must contain at least one occurrence of !{firehose:error-output-type}"},
		{"keys in error prefix", `"ErrorOutputPrefix":"e/!{firehose:error-output-type}/!{partitionKeyFromQuery:a}"`, codeInvalidArgument, "Dynamic Partitioning Namespaces can't be part of an error prefix expression"},
		{"long prefix", `"Prefix":"` + long + `/!{firehose:random-string}!{timestamp:yyyy}","ErrorOutputPrefix":"e/"`, codeInvalidArgument, "Length of evaluated prefix cannot be greater than 512"},
		{"long error prefix", `"ErrorOutputPrefix":"` + long + `!{firehose:error-output-type}!{firehose:random-string}!"`, codeInvalidArgument, "Length of evaluated ErrorOutputPrefix cannot be greater than 512"},

		{"conversion: compression before all", swap(conversion, `"SchemaConfiguration"`, `"Other"`) + `,"CompressionFormat":"GZIP","BufferingHints":{"SizeInMBs":5,"IntervalInSeconds":60}`, codeInvalidArgument,
			"The S3 destination's compression format must be set to UNCOMPRESSED when data format conversion is enabled. To enable compression within the converted output format, set the appropriate serialization option in the output format configuration."},
		{"conversion: size before members", `"DataFormatConversionConfiguration":{},"BufferingHints":{"SizeInMBs":63,"IntervalInSeconds":60}`, codeInvalidArgument, "BufferingHints.SizeInMBs must be at least 64 when data format conversion is enabled."},
		{"conversion: input", `"DataFormatConversionConfiguration":{}`, codeInvalidArgument, "InputFormatConfiguration must not be null"},
		{"conversion: output", `"DataFormatConversionConfiguration":{"InputFormatConfiguration":{}}`, codeInvalidArgument, "OutputFormatConfiguration must not be null"},
		{"conversion: schema", swap(conversion, `"SchemaConfiguration"`, `"Other"`), codeInvalidArgument, "SchemaConfiguration must not be null"},
		{"conversion: deserializer", swap(conversion, `{"OpenXJsonSerDe":{}}`, `{}`), codeInvalidArgument, "Deserializer must not be null"},
		{"conversion: two deserializers", swap(conversion, `{"OpenXJsonSerDe":{}}`, `{"OpenXJsonSerDe":{},"HiveJsonSerDe":{}}`), codeInvalidArgument, "More than one deserializer specified. Only one may be chosen."},
		{"conversion: serializer", swap(conversion, `{"ParquetSerDe":{}}`, `{}`), codeInvalidArgument, "Serializer must not be null"},
		{"conversion: two serializers", swap(conversion, `{"ParquetSerDe":{}}`, `{"ParquetSerDe":{},"OrcSerDe":{}}`), codeInvalidArgument, "More than one serializer specified. Only one may be chosen."},
		{"conversion: orc", swap(conversion, `{"ParquetSerDe":{}}`, `{"OrcSerDe":{}}`), codeInvalidArgument, "OrcSerDe is not supported: use ParquetSerDe."},
		{"conversion: role", swap(conversion, `"RoleARN"`, `"Role"`), codeInvalidArgument, "SchemaConfiguration.RoleArn must not be null or empty"},
		{"conversion: database", swap(conversion, `"DatabaseName"`, `"Database"`), codeInvalidArgument, "SchemaConfiguration.DatabaseName must not be null or empty"},
		{"conversion: table", swap(conversion, `"TableName"`, `"Table"`), codeInvalidArgument, "SchemaConfiguration.TableName must not be null or empty"},

		{"partitioned: size", partitioned + "," + queryPrefix + "," + processors(jq) + `,"BufferingHints":{"SizeInMBs":63,"IntervalInSeconds":60}`, codeInvalidArgument, "BufferingHints.SizeInMBs must be at least 64 when Dynamic Partitioning is enabled."},
		{"partitioned: no keys", partitioned + "," + withoutPrefix, codeInvalidArgument, "S3 Prefix should contain Dynamic Partitioning namespaces when Dynamic Partitioning is enabled"},
		{"partitioned: no jq", partitioned + "," + queryPrefix, codeInvalidArgument, "MetadataExtraction processor should be present when S3 Prefix has partitionKeyFromQuery namespace."},
		{"partitioned: no function", partitioned + "," + lambdaPrefix + "," + processors(jq), codeInvalidArgument, "Lambda processor should be present when S3 Prefix has partitionKeyFromLambda namespace."},
		{"keys, not partitioned", queryPrefix, codeInvalidArgument, "Dynamic Partitioning Namespaces can only be part of a prefix expression when Dynamic Partitioning is enabled."},
		{"jq, not partitioned", processors(jq), codeInvalidArgument, "MetadataExtractionProcessor can only be present when Dynamic Partitioning is enabled."},
		{"de-aggregation, not partitioned", processors(processor("RecordDeAggregation", "SubRecordType", "JSON")), codeInvalidArgument, "RecordDeAggregationProcessor can only be present when Dynamic Partitioning is enabled."},
		{"keys in backup", `"S3BackupMode":"Enabled","S3BackupConfiguration":{"RoleARN":"` + roleARN + `","BucketARN":"arn:aws:s3:::b",` + queryPrefix + `}`, codeInvalidArgument, "can't be part of the prefix of S3BackupConfiguration"},

		{"backup without a place", `"S3BackupMode":"Enabled"`, codeInvalidArgument, "S3 backup destination configuration is required when enabling S3 backup."},
		{"backup's prefix", `"S3BackupMode":"Enabled","S3BackupConfiguration":{"RoleARN":"` + roleARN + `","BucketARN":"arn:aws:s3:::b","Prefix":"!{timestamp:yyyy}"}`, codeInvalidArgument, "ErrorOutputPrefix cannot be null or empty"},

		{"no processor", processors(""), codeInvalidArgument, "A maximum of 5 and a minimum of 1 processor needs to be supplied when processing is enabled."},
		{"two functions", processors(processor("Lambda", "LambdaArn", lambdaARN) + "," + processor("Lambda", "LambdaArn", lambdaARN)), codeInvalidArgument, "Cannot have more than 1 Lambda processor."},
		{"foreign parameter", processors(processor("AppendDelimiterToRecord", "LambdaArn", lambdaARN)), codeInvalidArgument, "The parameter LambdaArn is not one of the processor AppendDelimiterToRecord: it takes Delimiter."},
		{"parameter twice", processors(processor("AppendDelimiterToRecord", "Delimiter", "a", "Delimiter", "b")), codeInvalidArgument, "is given twice"},
		{"no function", processors(processor("Lambda")), codeInvalidArgument, "LambdaArn is required when Lambda processor is used."},
		{"URL", processors(processor("Lambda", "LambdaArn", "https://example.com/f")), codeInvalidArgument, "LambdaArn must be the ARN of a Lambda function, which the section transforms of the configuration gives a URL, or sql:SELECT"},
		{"no query", processors(processor("Lambda", "LambdaArn", "sql: ")), codeInvalidArgument, "LambdaArn holds no query after sql:"},
		{"retries", processors(processor("Lambda", "LambdaArn", lambdaARN, "NumberOfRetries", "301")), codeInvalidArgument, "Number of retries for lambda must be between 0 and 300."},
		{"one lambda hint", processors(processor("Lambda", "LambdaArn", lambdaARN, "BufferSizeInMBs", "1")), codeInvalidArgument, "Both BufferSizeInMBs and BufferIntervalInSeconds are required to configure buffering for lambda processor."},
		{"lambda size", processors(processor("Lambda", "LambdaArn", lambdaARN, "BufferSizeInMBs", "NaN", "BufferIntervalInSeconds", "60")), codeInvalidArgument, "BufferSizeInMBs for lambda processor must be between 0.2 and 3."},
		{"lambda interval", processors(processor("Lambda", "LambdaArn", lambdaARN, "BufferSizeInMBs", "0.2", "BufferIntervalInSeconds", "901")), codeInvalidArgument, "BufferIntervalInSeconds for lambda processor must be between 0 and 900."},
		{"jq engine", partitioned + "," + queryPrefix + "," + processors(processor("MetadataExtraction", "MetadataExtractionQuery", "{a:.a}", "JsonParsingEngine", "JQ-1.7")), codeInvalidArgument, "MetaDataExtraction JSON Parsing Engine has to be one of JQ-1.6"},
		{"jq query", partitioned + "," + queryPrefix + "," + processors(processor("MetadataExtraction", "JsonParsingEngine", "JQ-1.6")), codeInvalidArgument, "MetadataExtractionQuery is required"},
		{"sub-records", processors(processor("RecordDeAggregation", "SubRecordType", "XML")), codeInvalidArgument, "SubRecordType has to be one of JSON, DELIMITED"},
		{"no delimiter", processors(processor("RecordDeAggregation", "SubRecordType", "DELIMITED")), codeInvalidArgument, "Delimiter should be present for DELIMITED"},
		{"bad delimiter", processors(processor("RecordDeAggregation", "SubRecordType", "DELIMITED", "Delimiter", "|")), codeInvalidArgument, "must be base64-encoded"},
		{"JSON with delimiter", processors(processor("RecordDeAggregation", "SubRecordType", "JSON", "Delimiter", "Cg==")), codeInvalidArgument, "Delimiter should not be present for JSON"},
		{"decompression", processors(processor("Decompression", "CompressionFormat", "ZIP")), codeInvalidArgument, "has to be GZIP"},
		{"logs alone", processors(processor("CloudWatchLogProcessing", "DataMessageExtraction", "True")), codeInvalidArgument, "CloudWatchLogProcessingProcessor can only be enabled with DecompressionProcessor"},
		{"logs' value", processors(processor("CloudWatchLogProcessing", "DataMessageExtraction", "maybe")), codeInvalidArgument, "Invalid parameter value for DataMessageExtraction. Allowed values are True and False."},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			fake := newFake()
			h, _ := newHandler(t, fake)
			_, err := call(t, h, "CreateDeliveryStream", s3Body("s", c.members))
			wantError(t, err, c.code, c.message)
			if len(fake.streams) != 0 {
				t.Fatal("the stream was created")
			}
		})
	}
	// The legacy form has the common members, at its own path.
	h, _ := newHandler(t, newFake())
	_, err := call(t, h, "CreateDeliveryStream", `{"DeliveryStreamName":"s","S3DestinationConfiguration":{"RoleARN":"`+roleARN+`"}}`)
	wantError(t, err, "ValidationException", "Value null at 's3DestinationConfiguration.bucketARN'")
	_, err = call(t, h, "CreateDeliveryStream", swap(s3Body("s", `"Prefix":"!{timestamp:yyyy}"`), "ExtendedS3", "S3"))
	wantError(t, err, codeInvalidArgument, "ErrorOutputPrefix cannot be null or empty")
}

func TestCreateS3(t *testing.T) {
	cases := []struct{ name, members string }{
		{"least", ""},
		{"every compression", `"CompressionFormat":"HADOOP_SNAPPY","FileExtension":".log..gz","CustomTimeZone":"America/New_York"`},
		{"static prefixes", `"Prefix":"a/","ErrorOutputPrefix":"e/"`},
		{"expressions", `"Prefix":"a=!{timestamp:yyyy-MM-dd'T'HH}/!{firehose:random-string}/","ErrorOutputPrefix":"e/!{firehose:error-output-type}/!{timestamp:yyyy}/!{firehose:random-string}"`},
		{"conversion without hints", conversion},
		{"conversion switched off is not looked at", swap(conversion, `{"SchemaConfiguration"`, `{"Enabled":false,"SchemaConfiguration"`) + `,"CompressionFormat":"GZIP"`},
		{"partitioned by query", partitioned + "," + queryPrefix + "," + processors(jq)},
		{"partitioned by function", partitioned + "," + lambdaPrefix + "," + processors(processor("Lambda", "LambdaArn", lambdaARN))},
		{"processing switched off is not looked at", `"ProcessingConfiguration":{"Enabled":false,"Processors":[{"Type":"Lambda"}]}`},
		{"backup", `"S3BackupMode":"Enabled","S3BackupConfiguration":{"RoleARN":"` + roleARN + `","BucketARN":"arn:aws:s3:::backup","CompressionFormat":"GZIP"}`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			fake := newFake()
			h, _ := newHandler(t, fake)
			if _, err := call(t, h, "CreateDeliveryStream", s3Body("s", c.members)); err != nil {
				t.Fatal(err)
			}
			config := fake.streams["s"].info.Config
			size, interval := config.Hints()
			want := int64(5 << 20)
			if config.S3.Conversion.On() || config.S3.DynamicPartitioning.On() {
				want = 128 << 20
			}
			if size != want || interval != 5*time.Minute {
				t.Errorf("hints %d %s", size, interval)
			}
			if database, table := config.Table(); database != "" || table != "" {
				t.Error(database, table)
			}
			// What is stored as JSON is read back the same.
			data, err := json.Marshal(config)
			if err != nil {
				t.Fatal(err)
			}
			var again StreamConfig
			if err := json.Unmarshal(data, &again); err != nil || !reflect.DeepEqual(config, again) {
				t.Errorf("stored %s\nread back %+v: %v", data, again, err)
			}
		})
	}
}

func TestSteps(t *testing.T) {
	parse := func(text string) (Steps, error) {
		t.Helper()
		var d ExtendedS3Destination
		if err := json.Unmarshal([]byte("{"+text+"}"), &d); err != nil {
			t.Fatal(err)
		}
		return d.Processing.Steps()
	}
	got, err := parse(processors(strings.Join([]string{
		processor("AppendDelimiterToRecord", "Delimiter", `|\n`),
		processor("Lambda", "LambdaArn", "sql: SELECT * FROM records ", "NumberOfRetries", "0", "BufferSizeInMBs", "0.5", "BufferIntervalInSeconds", "7"),
		jq,
		processor("RecordDeAggregation", "SubRecordType", "DELIMITED", "Delimiter", "XG4="), // \n as two characters
		processor("Decompression", "CompressionFormat", "GZIP"),
	}, ",")))
	want := Steps{Gunzip: true, DeAggregation: &DeAggregation{Delimiter: []byte("\n")}, Query: "{symbol:.symbol}", Delimiter: []byte("|\n"),
		Lambda: &LambdaStep{SQL: "SELECT * FROM records", Retries: 0, BufferBytes: 512 << 10, BufferInterval: 7 * time.Second}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %+v %v", got, got.Lambda, err)
	}
	got, err = parse(processors(processor("Lambda", "LambdaArn", lambdaARN) + "," + processor("AppendDelimiterToRecord") + "," +
		processor("Decompression", "CompressionFormat", "GZIP") + "," + processor("CloudWatchLogProcessing", "DataMessageExtraction", "True")))
	want = Steps{Gunzip: true, CloudWatchMessages: true, Delimiter: []byte("\n"), Lambda: &LambdaStep{ARN: lambdaARN, Retries: 3, BufferBytes: 1 << 20, BufferInterval: time.Minute}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %+v %v", got, got.Lambda, err)
	}
	if got, err := parse(""); err != nil || !reflect.DeepEqual(got, Steps{}) {
		t.Errorf("%+v %v", got, err)
	}
}

func TestPartitionKeys(t *testing.T) {
	d := ExtendedS3Destination{S3Destination: S3Destination{Prefix: ptr("!{partitionKeyFromQuery:b}/!{partitionKeyFromLambda:c}/!{partitionKeyFromQuery:a}/!{partitionKeyFromQuery:b}")}}
	if query, lambda := d.PartitionKeys(); !reflect.DeepEqual(query, []string{"b", "a"}) || !reflect.DeepEqual(lambda, []string{"c"}) {
		t.Error(query, lambda)
	}
}

// FuzzPrefix: whatever was accepted is made of whole expressions, and within
// the length.
func FuzzPrefix(f *testing.F) {
	for _, s := range []string{"", "a/", "!{timestamp:yyyy/MM/dd}/", "!{firehose:random-string}!{partitionKeyFromQuery:a}", "!{", "!{a:b", "!!{timestamp:}", "!{timestamp:'}'}", "é!{x:y}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePrefix("Prefix", &s)
		if err != nil {
			return
		}
		if n := strings.Count(s, "!{"); n != p.expressions || n > strings.Count(s, "}") {
			t.Errorf("%q: %d expressions of %d", s, p.expressions, n)
		}
		if p.expressions == 0 && len([]rune(s)) > prefixLengthMax {
			t.Errorf("%q is too long", s)
		}
		query, lambda := (&ExtendedS3Destination{S3Destination: S3Destination{Prefix: &s}}).PartitionKeys()
		if len(query)+len(lambda) > p.expressions {
			t.Errorf("%q: keys %v %v", s, query, lambda)
		}
	})
}
