package firehose

import (
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

	// documentBytesMax bounds the body of an operation that is not a put: far
	// above what the model's limits let through, far below what parsing could
	// blow up.
	documentBytesMax = 512 << 10

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
	// StreamsMax is how many streams there may be; 0 is AWS's own quota, 5,000.
	StreamsMax int
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

	streamsMax int
	creates    sync.Mutex

	buffers *awsapi.Buffers
	puts    sync.Pool
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
	if o.StreamsMax <= 0 {
		o.StreamsMax = 5000
	}
	h := &Handler{streams: o.Streams, arnPrefix: "arn:aws:firehose:" + o.Region + ":" + o.AccountID + ":deliverystream/", account: o.AccountID,
		logger: o.Logger, metrics: m, now: o.Now, streamsMax: o.StreamsMax, buffers: awsapi.NewBuffers(arenaRetainBytes)}
	h.puts.New = func() any { return &put{envelope: envelope{ends: make([]int32, 0, batchRecordsMax)}} }
	return h, nil
}

// Service returns what awsapi's Mux registers: all twelve operations of the
// model.
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
			"UpdateDestination":             h.update,
			"StartDeliveryStreamEncryption": h.startEncryption,
			"StopDeliveryStreamEncryption":  h.stopEncryption,
			"TagDeliveryStream":             h.tag,
			"UntagDeliveryStream":           h.untag,
			"ListTagsForDeliveryStream":     h.listTags,
		},
	}
}

func (h *Handler) arn(name record.StreamName) string { return h.arnPrefix + string(name) }

func (h *Handler) notFound(name record.StreamName) error {
	return awsapi.BadRequest(codeNotFound, "Firehose "+string(name)+" under account "+h.account+" not found.")
}
