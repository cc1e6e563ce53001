package firehose

import (
	"fmt"
	"strings"
	"time"
)

// What the model's constraints do not say is checked here, on the whole
// destination, as it was created or as an update leaves it. Messages are AWS's
// where they are known. What takes the rest of the system (whether a table
// exists, a query compiles, a time pattern can be evaluated) is for Streams.

// convertedSizeMBsMin is the least buffer of a stream that converts or
// partitions.
const convertedSizeMBsMin = 64

func checkConfig(c *StreamConfig) error {
	if c.S3 != nil {
		return checkExtendedS3(c.S3)
	}
	return checkIceberg(c.Iceberg)
}

// checkS3 checks what every place in S3 has in common.
func checkS3(where string, d *S3Destination) (prefix, error) {
	for _, m := range []struct {
		name  string
		value *string
	}{{"RoleARN", d.RoleARN}, {"BucketARN", d.BucketARN}} {
		if m.value == nil {
			return prefix{}, invalid(where + "." + m.name + " must not be null or empty")
		}
	}
	if e := d.Encryption; e != nil {
		switch {
		case (e.NoEncryptionConfig == nil) == (e.KMSEncryptionConfig == nil):
			return prefix{}, invalid("Exactly one of NoEncryptionConfig or KMSEncryptionConfig must be specified")
		case e.KMSEncryptionConfig != nil:
			return prefix{}, invalid("KMSEncryptionConfig is not supported: use NoEncryptionConfig, because objects are not encrypted with a KMS key here and nothing should claim it; encrypt the bucket, or the file system under the lake's directory.")
		}
	}
	if err := checkCloudWatch(d.CloudWatch); err != nil {
		return prefix{}, err
	}
	if err := checkHints(where, d.BufferingHints); err != nil {
		return prefix{}, err
	}
	return checkPrefixes(d)
}

func checkCloudWatch(c *CloudWatchLogging) error {
	switch {
	case c == nil || !isTrue(c.Enabled):
		return nil
	case c.LogGroupName == nil || *c.LogGroupName == "":
		return invalid("CloudWatch Log Group Name is required if CloudWatch Logging is enabled")
	case c.LogStreamName == nil || *c.LogStreamName == "":
		return invalid("CloudWatch Log Stream Name is required if CloudWatch Logging is enabled")
	}
	return nil
}

func checkHints(where string, h *BufferingHints) error {
	if h != nil && (h.SizeInMBs == nil) != (h.IntervalInSeconds == nil) {
		return invalid(where + ".BufferingHints: if you specify a value for one of SizeInMBs and IntervalInSeconds, you must also provide a value for the other.")
	}
	return nil
}

func checkExtendedS3(d *ExtendedS3Destination) error {
	p, err := checkS3("ExtendedS3Destination", &d.S3Destination)
	if err != nil {
		return err
	}
	if err := checkTimeZone(d.CustomTimeZone); err != nil {
		return err
	}
	if d.Conversion.On() {
		if err := checkConversion(d); err != nil {
			return err
		}
	}
	steps, err := d.Processing.Steps()
	if err != nil {
		return err
	}
	if err := checkPartitioning(d, &p, &steps); err != nil {
		return err
	}
	if d.S3BackupMode != nil && *d.S3BackupMode == "Enabled" && d.S3Backup == nil {
		return invalid("S3 backup destination configuration is required when enabling S3 backup.")
	}
	if d.S3Backup == nil {
		return nil
	}
	backup, err := checkS3("S3BackupConfiguration", d.S3Backup)
	if err == nil && backup.partitioned() {
		err = invalid("Dynamic Partitioning Namespaces can't be part of the prefix of S3BackupConfiguration: the backup holds the records as they were put.")
	}
	return err
}

// checkTimeZone takes the zones that AWS takes, and those that were named since.
func checkTimeZone(zone *string) error {
	if zone == nil || *zone == "" || *zone == "UTC" {
		return nil
	}
	if strings.Contains(*zone, "/") {
		if _, err := time.LoadLocation(*zone); err == nil {
			return nil
		}
	}
	return invalid("Provided custom time zone is not supported. Custom time zones are limited to UTC and non-3-letter IANA time zones.")
}

func checkConversion(d *ExtendedS3Destination) error {
	c := d.Conversion
	if f := d.CompressionFormat; f != nil && *f != "UNCOMPRESSED" {
		return invalid("The S3 destination's compression format must be set to UNCOMPRESSED when data format conversion is enabled. " +
			"To enable compression within the converted output format, set the appropriate serialization option in the output format configuration.")
	}
	if h := d.BufferingHints; h != nil && h.SizeInMBs != nil && *h.SizeInMBs < convertedSizeMBsMin {
		return invalid("BufferingHints.SizeInMBs must be at least 64 when data format conversion is enabled.")
	}
	switch {
	case c.Input == nil:
		return invalid("InputFormatConfiguration must not be null")
	case c.Output == nil:
		return invalid("OutputFormatConfiguration must not be null")
	case c.Schema == nil:
		return invalid("SchemaConfiguration must not be null")
	}
	switch in := c.Input.Deserializer; {
	case in == nil || in.OpenX == nil && in.Hive == nil:
		return invalid("Deserializer must not be null")
	case in.OpenX != nil && in.Hive != nil:
		return invalid("More than one deserializer specified. Only one may be chosen.")
	}
	switch out := c.Output.Serializer; {
	case out == nil || out.Parquet == nil && out.ORC == nil:
		return invalid("Serializer must not be null")
	case out.Parquet != nil && out.ORC != nil:
		return invalid("More than one serializer specified. Only one may be chosen.")
	case out.ORC != nil:
		return invalid("OrcSerDe is not supported: use ParquetSerDe.")
	}
	for _, m := range []struct {
		name  string
		value *string
	}{{"RoleArn", c.Schema.RoleARN}, {"DatabaseName", c.Schema.DatabaseName}, {"TableName", c.Schema.TableName}} {
		if m.value == nil || *m.value == "" {
			return invalid("SchemaConfiguration." + m.name + " must not be null or empty")
		}
	}
	return nil
}

func checkPartitioning(d *ExtendedS3Destination, p *prefix, steps *Steps) error {
	if !d.DynamicPartitioning.On() {
		switch {
		case p.partitioned():
			return invalid("Dynamic Partitioning Namespaces can only be part of a prefix expression when Dynamic Partitioning is enabled.")
		case steps.Query != "":
			return onlyPartitioned("MetadataExtraction")
		case steps.DeAggregation != nil:
			return onlyPartitioned("RecordDeAggregation")
		}
		return nil
	}
	switch h := d.BufferingHints; {
	case h != nil && h.SizeInMBs != nil && *h.SizeInMBs < convertedSizeMBsMin:
		return invalid("BufferingHints.SizeInMBs must be at least 64 when Dynamic Partitioning is enabled.")
	case !p.partitioned():
		return invalid("S3 Prefix should contain Dynamic Partitioning namespaces when Dynamic Partitioning is enabled")
	case len(p.query) > 0 && steps.Query == "":
		return invalid("MetadataExtraction processor should be present when S3 Prefix has partitionKeyFromQuery namespace.")
	case len(p.lambda) > 0 && steps.Lambda == nil:
		return invalid("Lambda processor should be present when S3 Prefix has partitionKeyFromLambda namespace.")
	}
	return nil
}

func onlyPartitioned(processor string) error {
	return invalid("class com.amazonaws.services.firehose.internal.model." + processor + "Processor can only be present when Dynamic Partitioning is enabled.")
}

func checkIceberg(d *IcebergDestination) error {
	if d.S3BackupMode != nil && *d.S3BackupMode != "FailedDataOnly" {
		return invalid("S3BackupMode." + *d.S3BackupMode + " is not supported for Iceberg as destination. Use FailedDataOnly; the log keeps every record for its retention.")
	}
	if err := checkCloudWatch(d.CloudWatch); err != nil {
		return err
	}
	if err := checkHints("IcebergDestination", d.BufferingHints); err != nil {
		return err
	}
	steps, err := d.Processing.Steps()
	if err != nil {
		return err
	}
	if steps.Delimiter != nil {
		return invalid("The processor AppendDelimiterToRecord has no effect on an Iceberg destination: leave it out.")
	}
	if len(d.Tables) != 1 && steps.Lambda == nil && steps.Query == "" {
		return invalid("A single default destination table configuration must be provided when both Lambda and MetadataExtraction processors are not provided")
	}
	if err := checkTables(d); err != nil || d.S3 == nil { // a pack's stream has no S3Configuration
		return err
	}
	p, err := checkS3("S3Configuration", d.S3)
	if err == nil && p.partitioned() {
		err = invalid("Dynamic Partitioning Namespaces can only be part of a prefix expression when Dynamic Partitioning is enabled.")
	}
	return err
}

func checkTables(d *IcebergDestination) error {
	type name struct{ database, table string }
	seen := map[name]bool{}
	for i := range d.Tables {
		t := &d.Tables[i]
		n := name{t.Database, t.Table}
		if seen[n] {
			return invalid(fmt.Sprintf("DestinationTableConfigurationList names the table %s.%s twice.", t.Database, t.Table))
		}
		seen[n] = true
		keys := map[string]bool{}
		for _, k := range t.UniqueKeys {
			if keys[k] {
				return invalid("UniqueKeys of the table " + t.Database + "." + t.Table + " names " + k + " twice.")
			}
			keys[k] = true
		}
		if len(t.UniqueKeys) > 0 && isTrue(d.AppendOnly) {
			return invalid("AppendOnly must be false or left out when a table has UniqueKeys: records that update and delete are not only appended.")
		}
		p, err := parsePrefix("S3ErrorOutputPrefix", t.ErrorPrefix)
		switch {
		case err != nil:
			return err
		case p.partitioned():
			return invalid("Dynamic Partitioning Namespaces can't be part of an error prefix expression")
		case p.expressions > 0 && !p.errorType:
			return invalid("S3ErrorOutputPrefix must contain at least one occurrence of " + errorOutputType)
		}
	}
	return nil
}
