package firehose

// The shapes below are those of AWS's model, member for member; a pointer is
// nil where the member was absent, and is left out again where it is shown.

// Tag is a tag of a stream.
type Tag struct {
	Key   string  `json:"Key"`
	Value *string `json:"Value,omitempty"`
}

// IcebergDestination is IcebergDestinationConfiguration,
// IcebergDestinationUpdate and, with S3Configuration under its other name,
// IcebergDestinationDescription.
type IcebergDestination struct {
	Tables          []DestinationTable `json:"DestinationTableConfigurationList,omitempty"`
	SchemaEvolution *Enabled           `json:"SchemaEvolutionConfiguration,omitempty"`
	TableCreation   *Enabled           `json:"TableCreationConfiguration,omitempty"`
	BufferingHints  *BufferingHints    `json:"BufferingHints,omitempty"`
	CloudWatch      *CloudWatchLogging `json:"CloudWatchLoggingOptions,omitempty"`
	Processing      *Processing        `json:"ProcessingConfiguration,omitempty"`
	S3BackupMode    *string            `json:"S3BackupMode,omitempty"`
	RetryOptions    *RetryOptions      `json:"RetryOptions,omitempty"`
	RoleARN         *string            `json:"RoleARN,omitempty"`
	AppendOnly      *bool              `json:"AppendOnly,omitempty"`
	Catalog         *CatalogConfig     `json:"CatalogConfiguration,omitempty"`
	S3              *S3Destination     `json:"S3Configuration,omitempty"`
}

// DestinationTable names a table of an Iceberg destination.
type DestinationTable struct {
	Table         string         `json:"DestinationTableName"`
	Database      string         `json:"DestinationDatabaseName"`
	UniqueKeys    []string       `json:"UniqueKeys,omitempty"`
	PartitionSpec *PartitionSpec `json:"PartitionSpec,omitempty"`
	ErrorPrefix   *string        `json:"S3ErrorOutputPrefix,omitempty"`
}

// PartitionSpec lists the columns by whose values the table is partitioned
// when it is created by the stream.
type PartitionSpec struct {
	Identity []PartitionField `json:"Identity,omitempty"`
}

// PartitionField names one such column.
type PartitionField struct {
	SourceName string `json:"SourceName"`
}

// Enabled is a switch.
type Enabled struct {
	Enabled *bool `json:"Enabled"`
}

// On tells whether the switch is there and on.
func (e *Enabled) On() bool { return e != nil && isTrue(e.Enabled) }

func isTrue(b *bool) bool { return b != nil && *b }

// BufferingHints bound a buffer. MB means MiB, as in AWS.
type BufferingHints struct {
	SizeInMBs         *int32 `json:"SizeInMBs,omitempty"`
	IntervalInSeconds *int32 `json:"IntervalInSeconds,omitempty"`
}

// CloudWatchLogging is stored and echoed; delivery errors go to our own log.
type CloudWatchLogging struct {
	Enabled       *bool   `json:"Enabled,omitempty"`
	LogGroupName  *string `json:"LogGroupName,omitempty"`
	LogStreamName *string `json:"LogStreamName,omitempty"`
}

// Processing lists what happens to records between put and delivery. Steps
// says what it comes to.
type Processing struct {
	Enabled    *bool       `json:"Enabled,omitempty"`
	Processors []Processor `json:"Processors,omitzero"` // AWS shows an empty list
}

// On tells whether the processors are in effect.
func (p *Processing) On() bool { return p != nil && isTrue(p.Enabled) }

// Processor is one such step.
type Processor struct {
	Type       string               `json:"Type"`
	Parameters []ProcessorParameter `json:"Parameters,omitempty"`
}

// ProcessorParameter is one setting of a Processor.
type ProcessorParameter struct {
	Name  string `json:"ParameterName"`
	Value string `json:"ParameterValue"`
}

// RetryOptions bound how long a delivery is tried again.
type RetryOptions struct {
	DurationInSeconds *int32 `json:"DurationInSeconds,omitempty"`
}

// CatalogConfig says which catalog the tables are in.
type CatalogConfig struct {
	CatalogARN        *string `json:"CatalogARN,omitempty"`
	WarehouseLocation *string `json:"WarehouseLocation,omitempty"`
}

// S3Destination is S3DestinationConfiguration, S3DestinationUpdate and
// S3DestinationDescription: a destination of its own in the legacy form, the
// backup of source records, or the place of an Iceberg destination's error
// output.
type S3Destination struct {
	RoleARN           *string            `json:"RoleARN,omitempty"`
	BucketARN         *string            `json:"BucketARN,omitempty"`
	Prefix            *string            `json:"Prefix,omitempty"`
	ErrorOutputPrefix *string            `json:"ErrorOutputPrefix,omitempty"`
	BufferingHints    *BufferingHints    `json:"BufferingHints,omitempty"`
	CompressionFormat *string            `json:"CompressionFormat,omitempty"`
	Encryption        *S3Encryption      `json:"EncryptionConfiguration,omitempty"`
	CloudWatch        *CloudWatchLogging `json:"CloudWatchLoggingOptions,omitempty"`
}

// S3Encryption is EncryptionConfiguration.
type S3Encryption struct {
	NoEncryptionConfig  *string        `json:"NoEncryptionConfig,omitempty"`
	KMSEncryptionConfig *KMSEncryption `json:"KMSEncryptionConfig,omitempty"`
}

// KMSEncryption names a key. It is read only to be refused: nothing here
// encrypts with it.
type KMSEncryption struct {
	AWSKMSKeyARN *string `json:"AWSKMSKeyARN,omitempty"`
}

// ExtendedS3Destination is ExtendedS3DestinationConfiguration and, with
// S3BackupConfiguration under its other names, the update and the description.
type ExtendedS3Destination struct {
	S3Destination
	Processing          *Processing          `json:"ProcessingConfiguration,omitempty"`
	S3BackupMode        *string              `json:"S3BackupMode,omitempty"`
	S3Backup            *S3Destination       `json:"S3BackupConfiguration,omitempty"`
	Conversion          *Conversion          `json:"DataFormatConversionConfiguration,omitempty"`
	DynamicPartitioning *DynamicPartitioning `json:"DynamicPartitioningConfiguration,omitempty"`
	FileExtension       *string              `json:"FileExtension,omitempty"`
	CustomTimeZone      *string              `json:"CustomTimeZone,omitempty"`
}

// Conversion is DataFormatConversionConfiguration: JSON records become a
// columnar file by the schema of a table of the catalog.
type Conversion struct {
	Schema  *SchemaConfig `json:"SchemaConfiguration,omitempty"`
	Input   *InputFormat  `json:"InputFormatConfiguration,omitempty"`
	Output  *OutputFormat `json:"OutputFormatConfiguration,omitempty"`
	Enabled *bool         `json:"Enabled,omitempty"`
}

// On tells whether records are converted: the switch is on when it is absent.
func (c *Conversion) On() bool { return c != nil && (c.Enabled == nil || *c.Enabled) }

// SchemaConfig names the table whose columns are the schema.
type SchemaConfig struct {
	RoleARN      *string `json:"RoleARN,omitempty"`
	CatalogID    *string `json:"CatalogId,omitempty"`
	DatabaseName *string `json:"DatabaseName,omitempty"`
	TableName    *string `json:"TableName,omitempty"`
	Region       *string `json:"Region,omitempty"`
	VersionID    *string `json:"VersionId,omitempty"` // nil and "LATEST" are the newest
}

// InputFormat holds the deserializer.
type InputFormat struct {
	Deserializer *Deserializer `json:"Deserializer,omitempty"`
}

// Deserializer is exactly one of the two.
type Deserializer struct {
	OpenX *OpenXJSONSerDe `json:"OpenXJsonSerDe,omitempty"`
	Hive  *HiveJSONSerDe  `json:"HiveJsonSerDe,omitempty"`
}

// OpenXJSONSerDe are the options of the OpenX SerDe.
type OpenXJSONSerDe struct {
	ConvertDots     *bool             `json:"ConvertDotsInJsonKeysToUnderscores,omitempty"` // default false
	CaseInsensitive *bool             `json:"CaseInsensitive,omitempty"`                    // default true
	ColumnKeys      map[string]string `json:"ColumnToJsonKeyMappings,omitempty"`            // column → JSON key
}

// HiveJSONSerDe are the options of the Hive SerDe.
type HiveJSONSerDe struct {
	TimestampFormats []string `json:"TimestampFormats,omitempty"` // Joda patterns, or "millis"
}

// OutputFormat holds the serializer.
type OutputFormat struct {
	Serializer *Serializer `json:"Serializer,omitempty"`
}

// Serializer is exactly one of the two; ORC is refused where it is in effect.
type Serializer struct {
	Parquet *ParquetSerDe `json:"ParquetSerDe,omitempty"`
	ORC     *OrcSerDe     `json:"OrcSerDe,omitempty"`
}

// ParquetSerDe are the options of the Parquet files; the defaults are AWS's.
type ParquetSerDe struct {
	BlockSizeBytes   *int32  `json:"BlockSizeBytes,omitempty"` // of HDFS, for padding: 256 MiB
	PageSizeBytes    *int32  `json:"PageSizeBytes,omitempty"`  // 1 MiB
	Compression      *string `json:"Compression,omitempty"`    // UNCOMPRESSED, GZIP or SNAPPY, the default
	EnableDictionary *bool   `json:"EnableDictionaryCompression,omitempty"`
	MaxPaddingBytes  *int32  `json:"MaxPaddingBytes,omitempty"` // 0
	WriterVersion    *string `json:"WriterVersion,omitempty"`   // V1, the default, or V2
}

// OrcSerDe are the options of ORC files.
type OrcSerDe struct {
	StripeSizeBytes        *int32   `json:"StripeSizeBytes,omitempty"`
	BlockSizeBytes         *int32   `json:"BlockSizeBytes,omitempty"`
	RowIndexStride         *int32   `json:"RowIndexStride,omitempty"`
	EnablePadding          *bool    `json:"EnablePadding,omitempty"`
	PaddingTolerance       *float64 `json:"PaddingTolerance,omitempty"`
	Compression            *string  `json:"Compression,omitempty"`
	BloomFilterColumns     []string `json:"BloomFilterColumns,omitempty"`
	BloomFilterFalseRate   *float64 `json:"BloomFilterFalsePositiveProbability,omitempty"`
	DictionaryKeyThreshold *float64 `json:"DictionaryKeyThreshold,omitempty"`
	FormatVersion          *string  `json:"FormatVersion,omitempty"`
}

// DynamicPartitioning is DynamicPartitioningConfiguration.
type DynamicPartitioning struct {
	RetryOptions *RetryOptions `json:"RetryOptions,omitempty"`
	Enabled      *bool         `json:"Enabled,omitempty"`
}

// On tells whether records are partitioned by their content.
func (d *DynamicPartitioning) On() bool { return d != nil && isTrue(d.Enabled) }
