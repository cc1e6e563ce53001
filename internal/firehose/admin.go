package firehose

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/tapehouse/tapehouse/internal/awsapi"
	"github.com/tapehouse/tapehouse/internal/record"
)

const (
	defaultListLimit = 10
	listLimitMax     = 10_000
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
	config := in.config()
	// Creates are serial, so that the quota is exact.
	h.creates.Lock()
	defer h.creates.Unlock()
	if err := h.checkQuota(ctx, config.Name); err != nil {
		return err
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
	v.enum("deliveryStreamType", in.DeliveryStreamType, streamTypes...)
	if in.DirectPutSource != nil {
		v.integer("directPutSourceConfiguration.throughputHintInMBs", in.DirectPutSource.ThroughputHintInMBs, true, 1, 100)
	}
	v.encryptionInput("deliveryStreamEncryptionConfigurationInput", in.Encryption)
	if in.S3 != nil {
		v.s3("s3DestinationConfiguration", in.S3, true)
	}
	if in.ExtendedS3 != nil {
		v.extendedS3("extendedS3DestinationConfiguration", in.ExtendedS3, true)
	}
	if in.Iceberg != nil {
		v.iceberg("icebergDestinationConfiguration", in.Iceberg, true)
	}
	v.tags("tags", in.Tags)
	if err := v.err(); err != nil {
		return err
	}
	if err := checkSource(in); err != nil {
		return err
	}
	if err := in.others().check("Configuration", in.S3 != nil, in.ExtendedS3 != nil, in.Iceberg != nil); err != nil {
		return err
	}
	config := in.destination()
	return checkConfig(&config)
}

// destination returns the destination as it was given, without defaults.
func (in *createInput) destination() StreamConfig {
	c := StreamConfig{Iceberg: in.Iceberg, S3: in.ExtendedS3}
	if in.S3 != nil {
		c.S3 = &ExtendedS3Destination{S3Destination: *in.S3}
	}
	return c
}

func (in *createInput) config() StreamConfig {
	c := withDefaults(in.destination())
	c.Name = record.StreamName(*in.DeliveryStreamName)
	if in.DirectPutSource != nil {
		c.ThroughputHintInMBs = in.DirectPutSource.ThroughputHintInMBs
	}
	if in.Tags != nil {
		c.Tags = addTags(nil, *in.Tags)
	}
	return c
}

// checkQuota bounds the number of streams. A name that is taken is for Create
// to refuse.
func (h *Handler) checkQuota(ctx context.Context, name record.StreamName) error {
	names, _, err := h.streams.List(ctx, "", h.streamsMax)
	if err != nil {
		return answerTo(fmt.Errorf("list delivery streams: %w", err))
	}
	if len(names) < h.streamsMax || slices.Contains(names, name) {
		return nil
	}
	return awsapi.BadRequest(codeLimit, fmt.Sprintf("You have already consumed your firehose quota of %d hoses.", h.streamsMax))
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
	if in.Encryption != nil {
		return refuseEncryption(in.Encryption)
	}
	return nil
}

// others are the destinations that are refused by name.
type others []struct {
	name  string
	value json.RawMessage
}

func (in *createInput) others() others {
	return others{{"Redshift", in.Redshift}, {"Elasticsearch", in.Elasticsearch}, {"Amazonopensearchservice", in.OpenSearch},
		{"AmazonOpenSearchServerless", in.OpenSearchServerless}, {"Splunk", in.Splunk}, {"HttpEndpoint", in.HTTPEndpoint}, {"Snowflake", in.Snowflake}}
}

// check sees to it that there is exactly one destination, and one of ours.
// suffix is "Configuration" or "Update".
func (o others) check(suffix string, ours ...bool) error {
	n := 0
	other := ""
	for _, d := range o {
		if !absent(d.value) {
			n++
			other = d.name
		}
	}
	for _, has := range ours {
		if has {
			n++
		}
	}
	switch {
	case n != 1:
		return invalid("Exactly one destination configuration is supported for a Firehose")
	case other == "":
		return nil
	case other == "Redshift":
		return invalid(other + "Destination" + suffix + " is not supported: use IcebergDestination" + suffix + "; its table can be queried by SQL on the Redshift-compatible endpoint, without a COPY.")
	}
	return invalid(other + "Destination" + suffix + " is not supported: use IcebergDestination" + suffix + ", whose tables are Parquet files that any engine reads, or ExtendedS3Destination" + suffix + ".")
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
	return answerJSON(c, describeOutput{h.description(info, in.ExclusiveStartDestinationID)})
}

// description renders a stream with its one destination; what a former version
// stored without them is shown with defaults too.
func (h *Handler) description(info StreamInfo, after *string) streamDescription {
	config := withDefaults(info.Config)
	d := streamDescription{
		DeliveryStreamName:                    string(config.Name),
		DeliveryStreamARN:                     h.arn(config.Name),
		DeliveryStreamStatus:                  info.Status,
		FailureDescription:                    info.Failure,
		DeliveryStreamEncryptionConfiguration: encryptionDescription{"DISABLED"},
		DeliveryStreamType:                    "DirectPut",
		VersionID:                             strconv.FormatInt(info.Version, 10),
		CreateTimestamp:                       timestamp(info.CreatedAt),
		Destinations:                          []destinationDescription{},
	}
	if info.UpdatedAt.After(info.CreatedAt) {
		d.LastUpdateTimestamp = ptr(timestamp(info.UpdatedAt))
	}
	if hint := config.ThroughputHintInMBs; hint != nil {
		d.Source = &sourceDescription{}
		d.Source.DirectPutSourceDescription.ThroughputHintInMBs = *hint
	}
	if after == nil || *after < destinationID {
		d.Destinations = append(d.Destinations, describeDestination(&config))
	}
	return d
}

// describeDestination shows an S3 destination in both forms, as AWS does
// whichever of them it was created with.
func describeDestination(c *StreamConfig) destinationDescription {
	d := destinationDescription{DestinationID: destinationID}
	if c.S3 != nil {
		d.S3DestinationDescription = &c.S3.S3Destination
		s3 := *c.S3
		// Shown, not stored: an update that configures a conversion without
		// saying Enabled switches it on.
		set(&s3.Conversion, Conversion{Enabled: ptr(false)})
		d.ExtendedS3DestinationDescription = &extendedS3Description{ExtendedS3Destination: s3, S3BackupDescription: c.S3.S3Backup}
	}
	if c.Iceberg != nil {
		d.IcebergDestinationDescription = &icebergDescription{IcebergDestination: *c.Iceberg, S3DestinationDescription: c.Iceberg.S3}
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
	v.enum("deliveryStreamType", in.DeliveryStreamType, streamTypes...)
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
