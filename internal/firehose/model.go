package firehose

import "encoding/json"

// The shapes below are AWS's, member for member; a pointer is nil where the
// member was absent.

// Tag is a tag of a stream.
type Tag struct {
	Key   string  `json:"Key"`
	Value *string `json:"Value,omitempty"`
}

// IcebergDestination is IcebergDestinationConfiguration and, with
// S3Configuration under its other name, IcebergDestinationDescription.
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

// PartitionSpec lists the columns by whose values the table is partitioned.
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

func (e *Enabled) on() bool { return e != nil && e.Enabled != nil && *e.Enabled }

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

// Processing lists what happens to records between put and delivery.
type Processing struct {
	Enabled    *bool       `json:"Enabled,omitempty"`
	Processors []Processor `json:"Processors,omitempty"`
}

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

// S3Destination is S3DestinationConfiguration: for an Iceberg destination, the
// place of the error output.
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

// S3Encryption is EncryptionConfiguration. KMS settings are refused, so only
// their presence matters.
type S3Encryption struct {
	NoEncryptionConfig  *string         `json:"NoEncryptionConfig,omitempty"`
	KMSEncryptionConfig json.RawMessage `json:"KMSEncryptionConfig,omitempty"`
}

// createInput is CreateDeliveryStreamInput. Of what is refused only the
// presence is kept.
type createInput struct {
	DeliveryStreamName *string
	DeliveryStreamType *string
	DirectPutSource    *struct {
		ThroughputHintInMBs *int32
	} `json:"DirectPutSourceConfiguration"`
	KinesisSource  json.RawMessage `json:"KinesisStreamSourceConfiguration"`
	MSKSource      json.RawMessage `json:"MSKSourceConfiguration"`
	DatabaseSource json.RawMessage `json:"DatabaseSourceConfiguration"`
	Encryption     json.RawMessage `json:"DeliveryStreamEncryptionConfigurationInput"`

	Iceberg              *IcebergDestination `json:"IcebergDestinationConfiguration"`
	S3                   json.RawMessage     `json:"S3DestinationConfiguration"`
	ExtendedS3           json.RawMessage     `json:"ExtendedS3DestinationConfiguration"`
	Redshift             json.RawMessage     `json:"RedshiftDestinationConfiguration"`
	Elasticsearch        json.RawMessage     `json:"ElasticsearchDestinationConfiguration"`
	OpenSearch           json.RawMessage     `json:"AmazonopensearchserviceDestinationConfiguration"`
	OpenSearchServerless json.RawMessage     `json:"AmazonOpenSearchServerlessDestinationConfiguration"`
	Splunk               json.RawMessage     `json:"SplunkDestinationConfiguration"`
	HTTPEndpoint         json.RawMessage     `json:"HttpEndpointDestinationConfiguration"`
	Snowflake            json.RawMessage     `json:"SnowflakeDestinationConfiguration"`

	Tags *[]Tag
}

type describeInput struct {
	DeliveryStreamName          *string
	Limit                       *int32
	ExclusiveStartDestinationID *string `json:"ExclusiveStartDestinationId"`
}

type listInput struct {
	Limit                            *int32
	DeliveryStreamType               *string
	ExclusiveStartDeliveryStreamName *string
}

type deleteInput struct {
	DeliveryStreamName *string
	AllowForceDelete   *bool
}

type createOutput struct {
	DeliveryStreamARN string
}

type listOutput struct {
	DeliveryStreamNames    []string
	HasMoreDeliveryStreams bool
}

type describeOutput struct {
	DeliveryStreamDescription streamDescription
}

type streamDescription struct {
	DeliveryStreamName                    string
	DeliveryStreamARN                     string
	DeliveryStreamStatus                  Status
	FailureDescription                    *Failure `json:",omitempty"`
	DeliveryStreamEncryptionConfiguration encryptionDescription
	DeliveryStreamType                    string
	VersionID                             string             `json:"VersionId"`
	CreateTimestamp                       json.Number        // seconds since the epoch
	LastUpdateTimestamp                   *json.Number       `json:",omitempty"`
	Source                                *sourceDescription `json:",omitempty"`
	Destinations                          []destinationDescription
	HasMoreDestinations                   bool
}

type encryptionDescription struct{ Status string }

type sourceDescription struct {
	DirectPutSourceDescription struct{ ThroughputHintInMBs int32 }
}

type destinationDescription struct {
	DestinationID                 string `json:"DestinationId"`
	IcebergDestinationDescription icebergDescription
}

// icebergDescription shows S3Configuration as S3DestinationDescription.
type icebergDescription struct {
	IcebergDestination
	S3Configuration          *struct{}      `json:"S3Configuration,omitempty"` // hides the embedded member
	S3DestinationDescription *S3Destination `json:"S3DestinationDescription,omitempty"`
}
