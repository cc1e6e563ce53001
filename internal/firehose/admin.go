package firehose

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/tapehouse/tapehouse/internal/awsapi"
	"github.com/tapehouse/tapehouse/internal/record"
)

// Defaults of the service model.
const (
	defaultSizeMBs         = 5
	defaultIntervalSeconds = 300
	defaultRetrySeconds    = 300
	defaultListLimit       = 10
	listLimitMax           = 10_000
)

const destinationID = "destinationId-000000000001"

func (h *Handler) create(ctx context.Context, c *awsapi.Call) error {
	var in createInput
	if err := decode(c.Body, &in); err != nil {
		return err
	}
	if err := checkCreate(&in); err != nil {
		return err
	}
	config := StreamConfig{Name: record.StreamName(*in.DeliveryStreamName), Iceberg: withDefaults(*in.Iceberg)}
	if in.DirectPutSource != nil {
		config.ThroughputHintInMBs = in.DirectPutSource.ThroughputHintInMBs
	}
	if in.Tags != nil {
		config.Tags = *in.Tags
	}
	_, err := h.streams.Create(ctx, config)
	if errors.Is(err, ErrInUse) {
		return awsapi.BadRequest(codeInUse, "Firehose "+string(config.Name)+" under accountId "+h.account+" already exists")
	}
	if err != nil {
		return answerTo(fmt.Errorf("create %s: %w", config.Name, err))
	}
	h.logger.Info("delivery stream created", "delivery_stream", string(config.Name), "principal", c.Principal, "request_id", c.RequestID)
	return answerJSON(c, createOutput{h.arn(config.Name)})
}

// absent reports whether a member that is kept unparsed was left out.
func absent(m json.RawMessage) bool { return len(m) == 0 || string(m) == "null" }

// checkCreate validates in AWS's order: first the model's constraints, then
// the source, the destination and its members.
func checkCreate(in *createInput) error {
	var v violations
	v.streamName("deliveryStreamName", in.DeliveryStreamName, true)
	v.enum("deliveryStreamType", in.DeliveryStreamType, "DirectPut", "KinesisStreamAsSource", "MSKAsSource", "DatabaseAsSource")
	if in.DirectPutSource != nil {
		v.integer("directPutSourceConfiguration.throughputHintInMBs", in.DirectPutSource.ThroughputHintInMBs, true, 1, 100)
	}
	if in.Iceberg != nil {
		v.iceberg("icebergDestinationConfiguration", in.Iceberg)
	}
	v.tags("tags", in.Tags)
	if err := v.err(); err != nil {
		return err
	}
	if err := checkSource(in); err != nil {
		return err
	}
	if err := checkDestination(in); err != nil {
		return err
	}
	return checkIceberg(in.Iceberg)
}

func checkSource(in *createInput) error {
	if t := in.DeliveryStreamType; t != nil && *t != "DirectPut" {
		return invalid("DeliveryStreamType " + *t + " is not supported: use DirectPut and put the records with PutRecord or PutRecordBatch; for a database, run tapehouse-agent beside it.")
	}
	for _, s := range []struct {
		member string
		value  json.RawMessage
	}{{"KinesisStreamSourceConfiguration", in.KinesisSource}, {"MSKSourceConfiguration", in.MSKSource}, {"DatabaseSourceConfiguration", in.DatabaseSource}} {
		if !absent(s.value) {
			return invalid(s.member + " is not supported: leave it out and put the records with PutRecord or PutRecordBatch.")
		}
	}
	if !absent(in.Encryption) {
		return invalid("DeliveryStreamEncryptionConfigurationInput is not supported: records are not encrypted at rest here, and nothing should claim that they are. Encrypt the file system under the data directory.")
	}
	return nil
}

func checkDestination(in *createInput) error {
	n := 0
	other := ""
	for _, d := range []struct {
		member string
		value  json.RawMessage
	}{
		{"S3DestinationConfiguration", in.S3}, {"ExtendedS3DestinationConfiguration", in.ExtendedS3}, {"RedshiftDestinationConfiguration", in.Redshift},
		{"ElasticsearchDestinationConfiguration", in.Elasticsearch}, {"AmazonopensearchserviceDestinationConfiguration", in.OpenSearch},
		{"AmazonOpenSearchServerlessDestinationConfiguration", in.OpenSearchServerless}, {"SplunkDestinationConfiguration", in.Splunk},
		{"HttpEndpointDestinationConfiguration", in.HTTPEndpoint}, {"SnowflakeDestinationConfiguration", in.Snowflake},
	} {
		if !absent(d.value) {
			n++
			other = d.member
		}
	}
	if in.Iceberg != nil {
		n++
	}
	switch {
	case n != 1:
		return invalid("Exactly one destination configuration is supported for a Firehose")
	case in.Iceberg != nil:
		return nil
	case other == "RedshiftDestinationConfiguration":
		return invalid(other + " is not supported: use IcebergDestinationConfiguration; its table can be queried by SQL on the Redshift-compatible endpoint, without a COPY.")
	}
	return invalid(other + " is not supported by this version: use IcebergDestinationConfiguration, whose tables are Parquet files that any engine reads.")
}

func checkIceberg(d *IcebergDestination) error {
	if len(d.Tables) != 1 {
		return invalid("IcebergDestinationConfiguration.DestinationTableConfigurationList must name exactly one table, because records are not routed by content; create one delivery stream a table.")
	}
	t := &d.Tables[0]
	switch {
	case len(t.UniqueKeys) > 0:
		return invalid("DestinationTableConfigurationList.UniqueKeys is not supported: records are appended, never updated or deleted.")
	case d.AppendOnly != nil && !*d.AppendOnly:
		return invalid("AppendOnly must be true or left out: records are appended, never updated or deleted.")
	case d.SchemaEvolution.on():
		return invalid("SchemaEvolutionConfiguration is not supported: change the table's columns by SQL.")
	case d.TableCreation.on():
		return invalid("TableCreationConfiguration is not supported: create the table by SQL before the delivery stream.")
	case d.Processing != nil && d.Processing.Enabled != nil && *d.Processing.Enabled && len(d.Processing.Processors) > 0:
		return invalid("ProcessingConfiguration is not supported: leave it out, or set Enabled to false.")
	case d.S3BackupMode != nil && *d.S3BackupMode != "FailedDataOnly":
		return invalid("S3BackupMode " + *d.S3BackupMode + " is not supported: use FailedDataOnly; the log keeps every record for its retention.")
	case d.S3.Encryption != nil && !absent(d.S3.Encryption.KMSEncryptionConfig):
		return invalid("KMSEncryptionConfig is not supported: use NoEncryptionConfig; error output is not encrypted at rest here.")
	}
	if err := checkHints("IcebergDestinationConfiguration", d.BufferingHints); err != nil {
		return err
	}
	return checkHints("S3Configuration", d.S3.BufferingHints)
}

func checkHints(where string, h *BufferingHints) error {
	if h != nil && (h.SizeInMBs == nil) != (h.IntervalInSeconds == nil) {
		return invalid(where + ".BufferingHints: if you specify a value for one of SizeInMBs and IntervalInSeconds, you must also provide a value for the other.")
	}
	return nil
}

// withDefaults fills in what AWS answers for members that were left out, so
// that Describe never depends on the version that created a stream.
func withDefaults(d IcebergDestination) IcebergDestination {
	set(&d.S3BackupMode, "FailedDataOnly")
	d.BufferingHints = hintsOrDefault(d.BufferingHints)
	if d.RetryOptions == nil || d.RetryOptions.DurationInSeconds == nil {
		d.RetryOptions = &RetryOptions{ptr(int32(defaultRetrySeconds))}
	}
	d.CloudWatch = loggingOrDefault(d.CloudWatch)
	if d.Processing == nil {
		d.Processing = &Processing{Enabled: ptr(false)}
	}
	s3 := *d.S3
	s3.BufferingHints = hintsOrDefault(s3.BufferingHints)
	set(&s3.CompressionFormat, "UNCOMPRESSED")
	if s3.Encryption == nil || s3.Encryption.NoEncryptionConfig == nil {
		s3.Encryption = &S3Encryption{NoEncryptionConfig: ptr("NoEncryption")}
	}
	s3.CloudWatch = loggingOrDefault(s3.CloudWatch)
	d.S3 = &s3
	return d
}

func ptr[T any](v T) *T { return &v }

func set(p **string, value string) {
	if *p == nil {
		*p = &value
	}
}

func hintsOrDefault(h *BufferingHints) *BufferingHints {
	if h == nil || h.SizeInMBs == nil {
		return &BufferingHints{ptr(int32(defaultSizeMBs)), ptr(int32(defaultIntervalSeconds))}
	}
	return h
}

func loggingOrDefault(c *CloudWatchLogging) *CloudWatchLogging {
	if c == nil || c.Enabled == nil {
		return &CloudWatchLogging{Enabled: ptr(false)}
	}
	return c
}

func (h *Handler) describe(ctx context.Context, c *awsapi.Call) error {
	var in describeInput
	if err := decode(c.Body, &in); err != nil {
		return err
	}
	var v violations
	v.streamName("deliveryStreamName", in.DeliveryStreamName, true)
	v.integer("limit", in.Limit, false, 1, listLimitMax)
	v.string("exclusiveStartDestinationId", in.ExclusiveStartDestinationID, false, 1, 100, destinationPattern)
	if err := v.err(); err != nil {
		return err
	}
	name := record.StreamName(*in.DeliveryStreamName)
	info, err := h.streams.Describe(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return h.notFound(name)
	}
	if err != nil {
		return answerTo(fmt.Errorf("describe %s: %w", name, err))
	}
	return answerJSON(c, describeOutput{h.description(info)})
}

// description renders a stream. A stream has exactly one destination, so that
// AWS's paging of destinations has nothing to do.
func (h *Handler) description(info StreamInfo) streamDescription {
	iceberg := icebergDescription{IcebergDestination: info.Config.Iceberg, S3DestinationDescription: info.Config.Iceberg.S3}
	d := streamDescription{
		DeliveryStreamName:                    string(info.Config.Name),
		DeliveryStreamARN:                     h.arn(info.Config.Name),
		DeliveryStreamStatus:                  info.Status,
		FailureDescription:                    info.Failure,
		DeliveryStreamEncryptionConfiguration: encryptionDescription{"DISABLED"},
		DeliveryStreamType:                    "DirectPut",
		VersionID:                             strconv.FormatInt(info.Version, 10),
		CreateTimestamp:                       timestamp(info.CreatedAt),
		Destinations:                          []destinationDescription{{destinationID, iceberg}},
	}
	if info.UpdatedAt.After(info.CreatedAt) {
		d.LastUpdateTimestamp = ptr(timestamp(info.UpdatedAt))
	}
	if hint := info.Config.ThroughputHintInMBs; hint != nil {
		d.Source = &sourceDescription{}
		d.Source.DirectPutSourceDescription.ThroughputHintInMBs = *hint
	}
	return d
}

// timestamp renders seconds since the epoch with milliseconds, as AWS does.
func timestamp(t time.Time) json.Number {
	ms := t.UnixMilli()
	return json.Number(fmt.Sprintf("%d.%03d", ms/1000, ms%1000))
}

func (h *Handler) list(ctx context.Context, c *awsapi.Call) error {
	var in listInput
	if err := decode(c.Body, &in); err != nil {
		return err
	}
	var v violations
	v.integer("limit", in.Limit, false, 1, listLimitMax)
	v.enum("deliveryStreamType", in.DeliveryStreamType, "DirectPut", "KinesisStreamAsSource", "MSKAsSource", "DatabaseAsSource")
	v.streamName("exclusiveStartDeliveryStreamName", in.ExclusiveStartDeliveryStreamName, false)
	if err := v.err(); err != nil {
		return err
	}
	out := listOutput{DeliveryStreamNames: []string{}}
	if t := in.DeliveryStreamType; t != nil && *t != "DirectPut" {
		return answerJSON(c, out)
	}
	limit, after := defaultListLimit, ""
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	if in.ExclusiveStartDeliveryStreamName != nil {
		after = *in.ExclusiveStartDeliveryStreamName
	}
	names, more, err := h.streams.List(ctx, after, limit)
	if err != nil {
		return answerTo(fmt.Errorf("list delivery streams: %w", err))
	}
	for _, n := range names {
		out.DeliveryStreamNames = append(out.DeliveryStreamNames, string(n))
	}
	out.HasMoreDeliveryStreams = more
	return answerJSON(c, out)
}

func (h *Handler) delete(ctx context.Context, c *awsapi.Call) error {
	var in deleteInput
	if err := decode(c.Body, &in); err != nil {
		return err
	}
	var v violations
	v.streamName("deliveryStreamName", in.DeliveryStreamName, true)
	if err := v.err(); err != nil {
		return err
	}
	name := record.StreamName(*in.DeliveryStreamName)
	err := h.streams.Delete(ctx, name, in.AllowForceDelete != nil && *in.AllowForceDelete)
	if errors.Is(err, ErrNotFound) {
		return h.notFound(name)
	}
	if err != nil {
		return answerTo(fmt.Errorf("delete %s: %w", name, err))
	}
	h.metrics.remove(name)
	h.logger.Info("delivery stream deleted", "delivery_stream", string(name), "principal", c.Principal, "request_id", c.RequestID)
	return nil
}

func answerJSON(c *awsapi.Call, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the answer of %s: %w", c.Operation, err)
	}
	c.Out = append(c.Out, data...)
	return nil
}
