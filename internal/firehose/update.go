package firehose

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/tapehouse/tapehouse/internal/awsapi"
	"github.com/tapehouse/tapehouse/internal/record"
)

// update is UpdateDestination: the update is merged into the destination that
// the stream has, if it is of the same type; the whole is checked as at create;
// and it is stored if the stream is still at the version that was read.
func (h *Handler) update(ctx context.Context, c *awsapi.Call) error {
	var in updateInput
	if err := decode(c.Body, &in); err != nil {
		return err
	}
	if err := checkUpdate(&in); err != nil {
		return err
	}
	name := record.StreamName(*in.DeliveryStreamName)
	info, err := h.streams.Describe(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return h.notFoundForUpdate(name)
	}
	if err != nil {
		return answerTo(fmt.Errorf("describe %s: %w", name, err))
	}
	if info.Status != StatusActive {
		return awsapi.BadRequest(codeInUse, "Firehose "+string(name)+" is "+string(info.Status)+", not ACTIVE: it cannot be updated.")
	}
	if given, have := *in.CurrentDeliveryStreamVersionID, strconv.FormatInt(info.Version, 10); given != have {
		return awsapi.BadRequest(codeConcurrent, "Cannot update firehose: "+string(name)+" since the current version id: "+have+" and specified version id: "+given+" do not match")
	}
	if *in.DestinationID != destinationID {
		return invalid("Destination Id " + *in.DestinationID + " not found")
	}
	config, err := in.apply(withDefaults(info.Config))
	if err != nil {
		return err
	}
	if err := checkConfig(&config); err != nil {
		return err
	}
	_, err = h.streams.Update(ctx, name, info.Version, withDefaults(config))
	switch {
	case errors.Is(err, ErrNotFound):
		return h.notFoundForUpdate(name)
	case err != nil:
		return answerTo(fmt.Errorf("update %s: %w", name, err))
	}
	h.logger.Info("delivery stream updated", "delivery_stream", string(name), "version", info.Version+1, "principal", c.Principal, "request_id", c.RequestID)
	return nil
}

// notFoundForUpdate is worded as AWS words it for this one operation.
func (h *Handler) notFoundForUpdate(name record.StreamName) error {
	return awsapi.BadRequest(codeNotFound, "Firehose "+string(name)+" under accountId "+h.account+" not found.")
}

// checkUpdate holds the model's constraints and the choice of destination.
func checkUpdate(in *updateInput) error {
	if in.ExtendedS3 != nil {
		in.ExtendedS3.S3Backup = in.ExtendedS3.S3BackupUpdate
	}
	var v violations
	v.streamName("deliveryStreamName", in.DeliveryStreamName, true)
	v.string("currentDeliveryStreamVersionId", in.CurrentDeliveryStreamVersionID, true, 1, 50, versionPattern)
	v.string("destinationId", in.DestinationID, true, 1, 100, destinationPattern)
	if in.S3 != nil {
		v.s3("s3DestinationUpdate", in.S3, false)
	}
	if in.ExtendedS3 != nil {
		v.extendedS3("extendedS3DestinationUpdate", &in.ExtendedS3.ExtendedS3Destination, false)
	}
	if in.Iceberg != nil {
		v.iceberg("icebergDestinationUpdate", in.Iceberg, false)
	}
	if err := v.err(); err != nil {
		return err
	}
	return others{{"Redshift", in.Redshift}, {"Elasticsearch", in.Elasticsearch}, {"Amazonopensearchservice", in.OpenSearch},
		{"AmazonOpenSearchServerless", in.OpenSearchServerless}, {"Splunk", in.Splunk}, {"HttpEndpoint", in.HTTPEndpoint}, {"Snowflake", in.Snowflake},
	}.check("Update", in.S3 != nil, in.ExtendedS3 != nil, in.Iceberg != nil)
}

// apply returns the stream's configuration with the update in it.
func (in *updateInput) apply(c StreamConfig) (StreamConfig, error) {
	if in.Iceberg != nil {
		d := *in.Iceberg
		if c.Iceberg == nil {
			if d.RoleARN == nil || d.Catalog == nil || d.S3 == nil {
				return c, invalid("All parameters must be specified when the destination type changes: IcebergDestinationUpdate lacks RoleARN, CatalogConfiguration or S3Configuration.")
			}
			c.S3 = nil
		} else {
			mergeIceberg(&d, c.Iceberg)
		}
		c.Iceberg = &d
		return c, nil
	}
	var d ExtendedS3Destination
	if in.ExtendedS3 != nil {
		d = in.ExtendedS3.ExtendedS3Destination
	} else {
		d.S3Destination = *in.S3
	}
	stored := c.S3
	if stored == nil {
		if d.RoleARN == nil || d.BucketARN == nil {
			return c, invalid("All parameters must be specified when the destination type changes: the S3 destination lacks RoleARN or BucketARN.")
		}
		if d.DynamicPartitioning.On() {
			return c, invalid(partitionAtCreate)
		}
		c.Iceberg = nil
	} else {
		if err := checkChange(&d, stored); err != nil {
			return c, err
		}
		mergeExtendedS3(&d, stored)
	}
	c.S3 = &d
	return c, nil
}

const partitionAtCreate = "Dynamic Partitioning can be enabled or disabled only when a Firehose is created: create another one."

// checkChange refuses what AWS lets nobody change.
func checkChange(d, stored *ExtendedS3Destination) error {
	if p := d.DynamicPartitioning; p != nil && p.Enabled != nil && *p.Enabled != stored.DynamicPartitioning.On() {
		return invalid(partitionAtCreate)
	}
	if d.S3BackupMode != nil && *d.S3BackupMode == "Disabled" && stored.S3BackupMode != nil && *stored.S3BackupMode == "Enabled" {
		return invalid("Disabling S3 backup is not currently supported.")
	}
	return nil
}

// keep gives *p the stored value if the update has none.
func keep[T any](p **T, stored *T) {
	if *p == nil {
		*p = stored
	}
}

// merged returns the update with what it lacks from stored, by merge; an
// absent one is the stored one. Neither is changed.
func merged[T any](update, stored *T, merge func(into, stored *T)) *T {
	switch {
	case update == nil:
		return stored
	case stored == nil:
		return update
	}
	d := *update
	merge(&d, stored)
	return &d
}

// The merges below keep a stored member where the update has none. Lists,
// ProcessingConfiguration, the SerDes and EncryptionConfiguration are replaced
// as a whole, as AWS replaces them.

func mergeCloudWatch(d, stored *CloudWatchLogging) {
	keep(&d.Enabled, stored.Enabled)
	keep(&d.LogGroupName, stored.LogGroupName)
	keep(&d.LogStreamName, stored.LogStreamName)
}

func mergeRetry(d, stored *RetryOptions) { keep(&d.DurationInSeconds, stored.DurationInSeconds) }

func mergeS3(d, stored *S3Destination) {
	keep(&d.RoleARN, stored.RoleARN)
	keep(&d.BucketARN, stored.BucketARN)
	keep(&d.Prefix, stored.Prefix)
	keep(&d.ErrorOutputPrefix, stored.ErrorOutputPrefix)
	keep(&d.BufferingHints, stored.BufferingHints)
	keep(&d.CompressionFormat, stored.CompressionFormat)
	keep(&d.Encryption, stored.Encryption)
	d.CloudWatch = merged(d.CloudWatch, stored.CloudWatch, mergeCloudWatch)
}

func mergeExtendedS3(d, stored *ExtendedS3Destination) {
	mergeS3(&d.S3Destination, &stored.S3Destination)
	keep(&d.Processing, stored.Processing)
	keep(&d.S3BackupMode, stored.S3BackupMode)
	d.S3Backup = merged(d.S3Backup, stored.S3Backup, mergeS3)
	d.Conversion = merged(d.Conversion, stored.Conversion, mergeConversion)
	d.DynamicPartitioning = merged(d.DynamicPartitioning, stored.DynamicPartitioning, func(d, stored *DynamicPartitioning) {
		keep(&d.Enabled, stored.Enabled)
		d.RetryOptions = merged(d.RetryOptions, stored.RetryOptions, mergeRetry)
	})
	keep(&d.FileExtension, stored.FileExtension)
	keep(&d.CustomTimeZone, stored.CustomTimeZone)
}

func mergeConversion(d, stored *Conversion) {
	keep(&d.Enabled, stored.Enabled)
	keep(&d.Input, stored.Input)
	keep(&d.Output, stored.Output)
	d.Schema = merged(d.Schema, stored.Schema, func(d, stored *SchemaConfig) {
		keep(&d.RoleARN, stored.RoleARN)
		keep(&d.CatalogID, stored.CatalogID)
		keep(&d.DatabaseName, stored.DatabaseName)
		keep(&d.TableName, stored.TableName)
		keep(&d.Region, stored.Region)
		keep(&d.VersionID, stored.VersionID)
	})
}

func mergeIceberg(d, stored *IcebergDestination) {
	if d.Tables == nil {
		d.Tables = stored.Tables
	}
	keep(&d.SchemaEvolution, stored.SchemaEvolution)
	keep(&d.TableCreation, stored.TableCreation)
	keep(&d.BufferingHints, stored.BufferingHints)
	d.CloudWatch = merged(d.CloudWatch, stored.CloudWatch, mergeCloudWatch)
	keep(&d.Processing, stored.Processing)
	keep(&d.S3BackupMode, stored.S3BackupMode)
	d.RetryOptions = merged(d.RetryOptions, stored.RetryOptions, mergeRetry)
	keep(&d.RoleARN, stored.RoleARN)
	keep(&d.AppendOnly, stored.AppendOnly)
	d.Catalog = merged(d.Catalog, stored.Catalog, func(d, stored *CatalogConfig) {
		keep(&d.CatalogARN, stored.CatalogARN)
		keep(&d.WarehouseLocation, stored.WarehouseLocation)
	})
	d.S3 = merged(d.S3, stored.S3, mergeS3)
}
