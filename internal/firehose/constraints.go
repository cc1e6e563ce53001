package firehose

import (
	"strconv"
	"unicode/utf8"
)

// The constraints of the model, shape by shape. Members, the words of enums
// and the two rules of a string come in the order in which AWS prints them.

var (
	streamTypes       = []string{"DirectPut", "KinesisStreamAsSource", "MSKAsSource", "DatabaseAsSource"}
	keyTypes          = []string{"AWS_OWNED_CMK", "CUSTOMER_MANAGED_CMK"}
	compressions      = []string{"ZIP", "HADOOP_SNAPPY", "Snappy", "GZIP", "UNCOMPRESSED"}
	processorTypes    = []string{"Decompression", "Lambda", "RecordDeAggregation", "MetadataExtraction", "AppendDelimiterToRecord", "CloudWatchLogProcessing"}
	processorSettings = []string{"DataMessageExtraction", "NumberOfRetries", "Delimiter", "RoleArn", "JsonParsingEngine", "SubRecordType",
		"MetadataExtractionQuery", "BufferIntervalInSeconds", "LambdaArn", "BufferSizeInMBs", "CompressionFormat"}
)

func member(path string, i int) string { return path + "." + strconv.Itoa(i+1) + ".member" }

func (v *violations) tags(path string, tags *[]Tag) {
	if tags == nil {
		return
	}
	v.length(path, "'["+strconv.Itoa(len(*tags))+" members]'", len(*tags), 1, tagsMax)
	for i := range *tags {
		t := &(*tags)[i]
		v.present(member(path, i)+".key", t.Key, 128, tagKeyPattern)
		v.string(member(path, i)+".value", t.Value, false, 0, 256, tagValuePattern)
	}
}

func (v *violations) encryptionInput(path string, e *encryptionInput) {
	if e == nil {
		return
	}
	v.string(path+".keyARN", e.KeyARN, false, 1, 512, kmsKeyPattern)
	if e.KeyType == nil {
		v.missing(path + ".keyType")
	}
	v.enum(path+".keyType", e.KeyType, keyTypes...)
}

func (v *violations) hints(path string, h *BufferingHints) {
	if h == nil {
		return
	}
	v.integer(path+".sizeInMBs", h.SizeInMBs, false, 1, 128)
	v.integer(path+".intervalInSeconds", h.IntervalInSeconds, false, 0, 900)
}

func (v *violations) cloudWatch(path string, c *CloudWatchLogging) {
	if c == nil {
		return
	}
	v.string(path+".logGroupName", c.LogGroupName, false, 0, 512, logGroupPattern)
	v.string(path+".logStreamName", c.LogStreamName, false, 0, 512, logStreamPattern)
}

func (v *violations) retry(path string, r *RetryOptions) {
	if r != nil {
		v.integer(path+".durationInSeconds", r.DurationInSeconds, false, 0, 7200)
	}
}

// iceberg checks a configuration, or an update, where nothing is required.
func (v *violations) iceberg(path string, d *IcebergDestination, required bool) {
	v.string(path+".roleARN", d.RoleARN, required, 1, 512, roleARNPattern)
	if d.Catalog != nil {
		v.string(path+".catalogConfiguration.catalogARN", d.Catalog.CatalogARN, false, 1, 512, catalogARNPattern)
		v.string(path+".catalogConfiguration.warehouseLocation", d.Catalog.WarehouseLocation, false, 1, 2048, warehousePattern)
	} else if required {
		v.missing(path + ".catalogConfiguration")
	}
	for i := range d.Tables {
		t := &d.Tables[i]
		p := member(path+".destinationTableConfigurationList", i)
		v.present(p+".destinationTableName", t.Table, 255, tableNamePattern)
		v.present(p+".destinationDatabaseName", t.Database, 255, tableNamePattern)
		for j, key := range t.UniqueKeys {
			v.string(member(p+".uniqueKeys", j), &key, true, 1, 1024, noSpacePattern)
		}
		if t.PartitionSpec != nil {
			for j, f := range t.PartitionSpec.Identity {
				v.present(member(p+".partitionSpec.identity", j)+".sourceName", f.SourceName, 1024, noSpacePattern)
			}
		}
		v.string(p+".s3ErrorOutputPrefix", t.ErrorPrefix, false, 0, 1024, anyPattern)
	}
	v.enabled(path+".schemaEvolutionConfiguration", d.SchemaEvolution)
	v.enabled(path+".tableCreationConfiguration", d.TableCreation)
	v.hints(path+".bufferingHints", d.BufferingHints)
	v.cloudWatch(path+".cloudWatchLoggingOptions", d.CloudWatch)
	v.processing(path+".processingConfiguration", d.Processing)
	v.enum(path+".s3BackupMode", d.S3BackupMode, "FailedDataOnly", "AllData")
	v.retry(path+".retryOptions", d.RetryOptions)
	if d.S3 != nil {
		v.s3(path+".s3Configuration", d.S3, true)
	} else if required {
		v.missing(path + ".s3Configuration")
	}
}

func (v *violations) enabled(path string, e *Enabled) {
	if e != nil && e.Enabled == nil {
		v.missing(path + ".enabled")
	}
}

func (v *violations) processing(path string, p *Processing) {
	if p == nil {
		return
	}
	for i := range p.Processors {
		q := member(path+".processors", i)
		v.word(q+".type", p.Processors[i].Type, processorTypes...)
		for j, a := range p.Processors[i].Parameters {
			r := member(q+".parameters", j)
			v.word(r+".parameterName", a.Name, processorSettings...)
			v.present(r+".parameterValue", a.Value, 5120, notBlankPattern)
		}
	}
}

// s3 checks a configuration, or an update, where nothing is required.
func (v *violations) s3(path string, d *S3Destination, required bool) {
	v.string(path+".roleARN", d.RoleARN, required, 1, 512, roleARNPattern)
	v.string(path+".bucketARN", d.BucketARN, required, 1, 2048, bucketARNPattern)
	v.string(path+".prefix", d.Prefix, false, 0, 1024, anyPattern)
	v.string(path+".errorOutputPrefix", d.ErrorOutputPrefix, false, 0, 1024, anyPattern)
	v.hints(path+".bufferingHints", d.BufferingHints)
	v.enum(path+".compressionFormat", d.CompressionFormat, compressions...)
	if e := d.Encryption; e != nil {
		v.enum(path+".encryptionConfiguration.noEncryptionConfig", e.NoEncryptionConfig, "NoEncryption")
		if e.KMSEncryptionConfig != nil {
			v.string(path+".encryptionConfiguration.kMSEncryptionConfig.aWSKMSKeyARN", e.KMSEncryptionConfig.AWSKMSKeyARN, true, 1, 512, kmsKeyPattern)
		}
	}
	v.cloudWatch(path+".cloudWatchLoggingOptions", d.CloudWatch)
}

// extendedS3 checks a configuration, or an update, where nothing is required
// and the backup bears another name.
func (v *violations) extendedS3(path string, d *ExtendedS3Destination, required bool) {
	v.s3(path, &d.S3Destination, required)
	v.processing(path+".processingConfiguration", d.Processing)
	v.enum(path+".s3BackupMode", d.S3BackupMode, "Disabled", "Enabled")
	if d.S3Backup != nil {
		backup := ".s3BackupConfiguration"
		if !required {
			backup = ".s3BackupUpdate"
		}
		v.s3(path+backup, d.S3Backup, required)
	}
	if d.Conversion != nil {
		v.conversion(path+".dataFormatConversionConfiguration", d.Conversion)
	}
	if d.DynamicPartitioning != nil {
		v.retry(path+".dynamicPartitioningConfiguration.retryOptions", d.DynamicPartitioning.RetryOptions)
	}
	v.string(path+".fileExtension", d.FileExtension, false, 0, 128, extensionPattern)
	v.string(path+".customTimeZone", d.CustomTimeZone, false, 0, 50, timeZonePattern)
}

func (v *violations) conversion(path string, c *Conversion) {
	if s := c.Schema; s != nil {
		for _, m := range []struct {
			name  string
			value *string
		}{{"roleARN", s.RoleARN}, {"catalogId", s.CatalogID}, {"databaseName", s.DatabaseName}, {"tableName", s.TableName}, {"region", s.Region}, {"versionId", s.VersionID}} {
			v.string(path+".schemaConfiguration."+m.name, m.value, false, 1, 1024, noSpacePattern)
		}
	}
	if c.Output != nil && c.Output.Serializer != nil {
		v.parquet(path+".outputFormatConfiguration.serializer.parquetSerDe", c.Output.Serializer.Parquet)
		v.orc(path+".outputFormatConfiguration.serializer.orcSerDe", c.Output.Serializer.ORC)
	}
	if c.Input == nil || c.Input.Deserializer == nil {
		return
	}
	path += ".inputFormatConfiguration.deserializer"
	if x := c.Input.Deserializer.OpenX; x != nil {
		v.columnKeys(path+".openXJsonSerDe.columnToJsonKeyMappings", x.ColumnKeys)
	}
	if h := c.Input.Deserializer.Hive; h != nil {
		for i, f := range h.TimestampFormats {
			v.string(member(path+".hiveJsonSerDe.timestampFormats", i), &f, true, 1, 1024, notBlankPattern)
		}
	}
}

func (v *violations) parquet(path string, p *ParquetSerDe) {
	if p == nil {
		return
	}
	v.atLeast(path+".maxPaddingBytes", p.MaxPaddingBytes, 0)
	v.atLeast(path+".blockSizeBytes", p.BlockSizeBytes, 64<<20)
	v.atLeast(path+".pageSizeBytes", p.PageSizeBytes, 64<<10)
	v.enum(path+".compression", p.Compression, "SNAPPY", "GZIP", "UNCOMPRESSED")
	v.enum(path+".writerVersion", p.WriterVersion, "V1", "V2")
}

func (v *violations) orc(path string, o *OrcSerDe) {
	if o == nil {
		return
	}
	v.proportion(path+".dictionaryKeyThreshold", o.DictionaryKeyThreshold)
	v.atLeast(path+".blockSizeBytes", o.BlockSizeBytes, 64<<20)
	v.atLeast(path+".rowIndexStride", o.RowIndexStride, 1000)
	v.proportion(path+".paddingTolerance", o.PaddingTolerance)
	v.atLeast(path+".stripeSizeBytes", o.StripeSizeBytes, 8<<20)
	v.enum(path+".compression", o.Compression, "ZLIB", "SNAPPY", "NONE")
	v.enum(path+".formatVersion", o.FormatVersion, "V0_11", "V0_12")
	v.proportion(path+".bloomFilterFalsePositiveProbability", o.BloomFilterFalseRate)
	for i, c := range o.BloomFilterColumns {
		v.string(member(path+".bloomFilterColumns", i), &c, true, 1, 1024, noSpacePattern)
	}
}

// columnKeys reports bad keys once and bad values once, however many there are.
func (v *violations) columnKeys(path string, keys map[string]string) {
	bad := func(s string, p pattern) bool {
		n := utf8.RuneCountInString(s)
		return n < 1 || n > 1024 || !p.matches(s)
	}
	badKey, badValue := false, false
	for column, key := range keys {
		badKey = badKey || bad(column, noSpacePattern)
		badValue = badValue || bad(key, notBlankPattern)
	}
	report := func(what string, p pattern) {
		v.add("'{"+strconv.Itoa(len(keys))+" entries}'", path, what+" must satisfy constraint: [Member must have length less than or equal to 1024, "+
			"Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: "+p.text+"]")
	}
	if badKey {
		report("Map keys", noSpacePattern)
	}
	if badValue {
		report("Map value", notBlankPattern)
	}
}
