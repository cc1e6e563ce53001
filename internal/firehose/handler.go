package firehose

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/awsapi"
	"github.com/tapehouse/tapehouse/internal/record"
)

const (
	signingName  = "firehose"
	targetPrefix = "Firehose_20150804."

	// bodyBytesMax leaves room for the base64 of the largest batch (5.6 MB),
	// for white space and for escapes.
	bodyBytesMax = 8 << 20

	// arenaRetainBytes is what the pool of arenas keeps of each size.
	arenaRetainBytes = 8 << 20
)

// Options configure a Handler.
type Options struct {
	Streams    Streams
	Region     string // of the ARNs
	AccountID  string // of the ARNs: 12 digits
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time // nil is time.Now
}

// Handler answers the operations of Amazon Data Firehose. It is safe for
// concurrent use.
type Handler struct {
	streams   Streams
	arnPrefix string
	account   string
	logger    *slog.Logger
	metrics   *metrics
	now       func() time.Time
	buffers   *awsapi.Buffers
	puts      sync.Pool
}

// New returns a handler over o.Streams.
func New(o Options) (*Handler, error) {
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register firehose metrics: %w", err)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	h := &Handler{streams: o.Streams, arnPrefix: "arn:aws:firehose:" + o.Region + ":" + o.AccountID + ":deliverystream/", account: o.AccountID,
		logger: o.Logger, metrics: m, now: o.Now, buffers: awsapi.NewBuffers(arenaRetainBytes)}
	h.puts.New = func() any { return &put{envelope: envelope{ends: make([]int32, 0, batchRecordsMax)}} }
	return h, nil
}

// Service returns what awsapi's Mux registers: all twelve operations of the
// model, those not carried out yet included, so that they are refused by name.
func (h *Handler) Service() awsapi.Service {
	return awsapi.Service{
		SigningName: signingName, TargetPrefix: targetPrefix, BodyBytesMax: bodyBytesMax, MessageMember: "message",
		ResourceMember: "DeliveryStreamName", ResourceType: "deliverystream",
		Operations: map[string]awsapi.Operation{
			"CreateDeliveryStream":          h.create,
			"DeleteDeliveryStream":          h.delete,
			"DescribeDeliveryStream":        h.describe,
			"ListDeliveryStreams":           h.list,
			"PutRecord":                     h.putRecord,
			"PutRecordBatch":                h.putRecordBatch,
			"UpdateDestination":             refused("To change a destination, delete the delivery stream and create it again with the new configuration."),
			"StartDeliveryStreamEncryption": refused("Records are not encrypted at rest: encrypt the file system under the data directory."),
			"StopDeliveryStreamEncryption":  refused("Records are not encrypted at rest, so there is nothing to stop."),
			"TagDeliveryStream":             refused("Give the tags to CreateDeliveryStream."),
			"UntagDeliveryStream":           refused("Tags are given to CreateDeliveryStream and cannot be changed."),
			"ListTagsForDeliveryStream":     refused("Tags given to CreateDeliveryStream are kept but cannot be listed."),
		},
	}
}

// refused answers an operation of the model that this version does not have.
func refused(instead string) awsapi.Operation {
	return func(_ context.Context, c *awsapi.Call) error {
		return invalid("The operation " + c.Operation + " is not supported by this version of Tapehouse. " + instead)
	}
}

func (h *Handler) arn(name record.StreamName) string { return h.arnPrefix + string(name) }

func (h *Handler) notFound(name record.StreamName) error {
	return awsapi.BadRequest(codeNotFound, "Firehose "+string(name)+" under account "+h.account+" not found.")
}
