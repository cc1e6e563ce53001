package firehose

import "encoding/json"

// The inputs and outputs of the operations. Of what is always refused only the
// presence is kept.

type createInput struct {
	DeliveryStreamName *string
	DeliveryStreamType *string
	DirectPutSource    *struct {
		ThroughputHintInMBs *int32
	} `json:"DirectPutSourceConfiguration"`
	KinesisSource  json.RawMessage  `json:"KinesisStreamSourceConfiguration"`
	MSKSource      json.RawMessage  `json:"MSKSourceConfiguration"`
	DatabaseSource json.RawMessage  `json:"DatabaseSourceConfiguration"`
	Encryption     *encryptionInput `json:"DeliveryStreamEncryptionConfigurationInput"`

	S3         *S3Destination         `json:"S3DestinationConfiguration"`
	ExtendedS3 *ExtendedS3Destination `json:"ExtendedS3DestinationConfiguration"`
	Iceberg    *IcebergDestination    `json:"IcebergDestinationConfiguration"`

	Redshift             json.RawMessage `json:"RedshiftDestinationConfiguration"`
	Elasticsearch        json.RawMessage `json:"ElasticsearchDestinationConfiguration"`
	OpenSearch           json.RawMessage `json:"AmazonopensearchserviceDestinationConfiguration"`
	OpenSearchServerless json.RawMessage `json:"AmazonOpenSearchServerlessDestinationConfiguration"`
	Splunk               json.RawMessage `json:"SplunkDestinationConfiguration"`
	HTTPEndpoint         json.RawMessage `json:"HttpEndpointDestinationConfiguration"`
	Snowflake            json.RawMessage `json:"SnowflakeDestinationConfiguration"`

	Tags *[]Tag
}

type updateInput struct {
	DeliveryStreamName             *string
	CurrentDeliveryStreamVersionID *string `json:"CurrentDeliveryStreamVersionId"`
	DestinationID                  *string `json:"DestinationId"`

	S3         *S3Destination      `json:"S3DestinationUpdate"`
	ExtendedS3 *extendedS3Update   `json:"ExtendedS3DestinationUpdate"`
	Iceberg    *IcebergDestination `json:"IcebergDestinationUpdate"`

	Redshift             json.RawMessage `json:"RedshiftDestinationUpdate"`
	Elasticsearch        json.RawMessage `json:"ElasticsearchDestinationUpdate"`
	OpenSearch           json.RawMessage `json:"AmazonopensearchserviceDestinationUpdate"`
	OpenSearchServerless json.RawMessage `json:"AmazonOpenSearchServerlessDestinationUpdate"`
	Splunk               json.RawMessage `json:"SplunkDestinationUpdate"`
	HTTPEndpoint         json.RawMessage `json:"HttpEndpointDestinationUpdate"`
	Snowflake            json.RawMessage `json:"SnowflakeDestinationUpdate"`
}

// extendedS3Update has the backup under another name than the configuration.
type extendedS3Update struct {
	ExtendedS3Destination
	S3BackupConfiguration *struct{}      `json:"S3BackupConfiguration,omitempty"` // hides the embedded member
	S3BackupUpdate        *S3Destination `json:"S3BackupUpdate"`
}

type encryptionInput struct {
	KeyARN  *string
	KeyType *string
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

type startEncryptionInput struct {
	DeliveryStreamName *string
	Encryption         *encryptionInput `json:"DeliveryStreamEncryptionConfigurationInput"`
}

type stopEncryptionInput struct{ DeliveryStreamName *string }

type tagInput struct {
	DeliveryStreamName *string
	Tags               *[]Tag
}

type untagInput struct {
	DeliveryStreamName *string
	TagKeys            *[]string
}

type listTagsInput struct {
	DeliveryStreamName   *string
	ExclusiveStartTagKey *string
	Limit                *int32
}

type createOutput struct{ DeliveryStreamARN string }

type listOutput struct {
	DeliveryStreamNames    []string
	HasMoreDeliveryStreams bool
}

type listTagsOutput struct {
	Tags        []Tag
	HasMoreTags bool
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
	DestinationID                    string                 `json:"DestinationId"`
	S3DestinationDescription         *S3Destination         `json:",omitempty"`
	ExtendedS3DestinationDescription *extendedS3Description `json:",omitempty"`
	IcebergDestinationDescription    *icebergDescription    `json:",omitempty"`
}

// extendedS3Description shows S3BackupConfiguration as S3BackupDescription.
type extendedS3Description struct {
	ExtendedS3Destination
	S3BackupConfiguration *struct{}      `json:"S3BackupConfiguration,omitempty"` // hides the embedded member
	S3BackupDescription   *S3Destination `json:"S3BackupDescription,omitempty"`
}

// icebergDescription shows S3Configuration as S3DestinationDescription.
type icebergDescription struct {
	IcebergDestination
	S3Configuration          *struct{}      `json:"S3Configuration,omitempty"` // hides the embedded member
	S3DestinationDescription *S3Destination `json:"S3DestinationDescription,omitempty"`
}
