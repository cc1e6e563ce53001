package producer

import (
	"context"
	"time"
)

// StreamSpec describes a delivery stream into one Iceberg table. The ARNs
// matter on AWS only; empty ones are filled in with names that pass AWS's
// validation.
type StreamSpec struct {
	Name     string
	Database string
	Table    string

	BufferMB       int           // 64 if 0
	BufferInterval time.Duration // whole seconds; 60 s if 0

	RoleARN, CatalogARN, BucketARN string
}

// StreamStatus is what Describe tells.
type StreamStatus struct {
	Name     string
	ARN      string
	Status   string // ACTIVE, CREATING, …
	Database string
	Table    string
}

type object map[string]any

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// CreateStream creates a delivery stream. A stream that exists already answers
// ResourceInUseException, also when it was a first attempt with a lost answer
// that made it: ask Describe.
func (c *Client) CreateStream(ctx context.Context, s StreamSpec) error {
	if s.BufferMB == 0 {
		s.BufferMB = 64
	}
	if s.BufferInterval == 0 {
		s.BufferInterval = time.Minute
	}
	role := orElse(s.RoleARN, "arn:aws:iam::000000000000:role/tapehouse")
	return c.Call(ctx, "CreateDeliveryStream", object{
		"DeliveryStreamName": s.Name,
		"DeliveryStreamType": "DirectPut",
		"IcebergDestinationConfiguration": object{
			"RoleARN":                           role,
			"CatalogConfiguration":              object{"CatalogARN": orElse(s.CatalogARN, "arn:aws:glue:"+c.config.Region+":000000000000:catalog")},
			"DestinationTableConfigurationList": []object{{"DestinationDatabaseName": s.Database, "DestinationTableName": s.Table}},
			"BufferingHints":                    object{"SizeInMBs": s.BufferMB, "IntervalInSeconds": int(s.BufferInterval / time.Second)},
			"S3Configuration":                   object{"RoleARN": role, "BucketARN": orElse(s.BucketARN, "arn:aws:s3:::lake")},
		},
	}, nil)
}

// Describe returns a stream's status; IsCode(err, "ResourceNotFoundException")
// if there is none of that name.
func (c *Client) Describe(ctx context.Context, name string) (StreamStatus, error) {
	var out struct {
		DeliveryStreamDescription struct {
			DeliveryStreamName, DeliveryStreamARN, DeliveryStreamStatus string
			Destinations                                                []struct {
				IcebergDestinationDescription struct {
					DestinationTableConfigurationList []struct{ DestinationDatabaseName, DestinationTableName string }
				}
			}
		}
	}
	if err := c.Call(ctx, "DescribeDeliveryStream", object{"DeliveryStreamName": name}, &out); err != nil {
		return StreamStatus{}, err
	}
	d := out.DeliveryStreamDescription
	s := StreamStatus{Name: d.DeliveryStreamName, ARN: d.DeliveryStreamARN, Status: d.DeliveryStreamStatus}
	if len(d.Destinations) > 0 {
		if t := d.Destinations[0].IcebergDestinationDescription.DestinationTableConfigurationList; len(t) > 0 {
			s.Database, s.Table = t[0].DestinationDatabaseName, t[0].DestinationTableName
		}
	}
	return s, nil
}
