package firehose

import (
	"context"
	"errors"
	"time"

	"github.com/tapehouse/tapehouse/internal/record"
)

// The decisions that Streams can take against a call. An implementation
// returns errors that are one of these (a *Refusal carries a message for the
// client); anything else becomes InternalFailure.
var (
	ErrNotFound    = errors.New("delivery stream not found")
	ErrInUse       = errors.New("delivery stream in use")
	ErrLimit       = errors.New("limit exceeded")
	ErrInvalid     = errors.New("invalid argument")
	ErrConcurrent  = errors.New("concurrent modification")
	ErrThrottled   = errors.New("throttled")           // too much at once: "Slow down."
	ErrUnavailable = errors.New("service unavailable") // disk full, log poisoned, shutting down
)

// Refusal is one of the decisions above with the text that the client reads.
type Refusal struct {
	Kind    error
	Message string
}

// Error implements error.
func (r *Refusal) Error() string { return r.Kind.Error() + ": " + r.Message }

// Unwrap returns the kind.
func (r *Refusal) Unwrap() error { return r.Kind }

// Streams are the delivery streams. All methods are safe for concurrent use.
type Streams interface {
	// Create makes the stream durable before it returns. ErrInUse if the name
	// is taken, ErrLimit, ErrInvalid (a table that does not exist).
	Create(ctx context.Context, c StreamConfig) (StreamInfo, error)
	// Describe returns ErrNotFound for an unknown name.
	Describe(ctx context.Context, name record.StreamName) (StreamInfo, error)
	// Update gives a stream another destination if it is still at the version,
	// which it raises; else ErrConcurrent. c.Tags is ignored. The new definition
	// is durable when it returns. ErrNotFound, ErrInUse (the stream is not
	// ACTIVE), ErrInvalid.
	Update(ctx context.Context, name record.StreamName, version int64, c StreamConfig) (StreamInfo, error)
	// ChangeTags replaces a stream's tags by what change makes of them, in one
	// step; an error of change is returned as it is and changes nothing. The
	// version stays. ErrNotFound, ErrInUse.
	ChangeTags(ctx context.Context, name record.StreamName, change func([]Tag) ([]Tag, error)) error
	// List returns at most limit names greater than after, in ascending order
	// of their bytes, and whether there are more.
	List(ctx context.Context, after string, limit int) (names []record.StreamName, more bool, err error)
	// Delete returns when the stream is gone, or when it is DELETING and will
	// go by itself. What was acknowledged is delivered first, force or not: a
	// stream for which that fails is DELETING_FAILED and can be deleted again.
	// ErrNotFound, ErrInUse (it is CREATING).
	Delete(ctx context.Context, name record.StreamName, force bool) error
	// Put stores the records and returns when every record that the result
	// does not report as failed is durable. It must not keep p, or anything in
	// it, after it has returned, also when ctx ends first. An error means that
	// no record was acknowledged.
	Put(ctx context.Context, name record.StreamName, p *PutRequest) (PutResult, error)
}

// PutRequest is one put: 1 to 500 documents.
type PutRequest struct {
	Docs      Docs
	ArrivedAt int64 // microseconds since the epoch, UTC
}

// Docs are documents in one buffer, without any separator: document i is
// Arena[Ends[i-1]:Ends[i]], from 0 for the first. Arena has at least 64 bytes
// of capacity behind its length.
type Docs struct {
	Arena []byte
	Ends  []int32
}

// Len returns the number of documents.
func (d Docs) Len() int { return len(d.Ends) }

// Doc returns document i.
func (d Docs) Doc(i int) []byte {
	from := int32(0)
	if i > 0 {
		from = d.Ends[i-1]
	}
	return d.Arena[from:d.Ends[i]]
}

// PutResult is the fate of the records of one put, in their order.
type PutResult interface {
	// Failed returns how many records were not stored.
	Failed() int
	// Failure returns why record i was not stored: FailureUnavailable or
	// FailureInternal and a message; "" if it is acknowledged.
	Failure(i int) (code, message string)
	// AppendRecordID appends the RecordId of the acknowledged record i. A
	// duplicate has one of its own, which names its sequence number.
	AppendRecordID(dst []byte, i int) []byte
}

// The error codes of a single record (AWS knows no others).
const (
	FailureUnavailable = "ServiceUnavailableException"
	FailureInternal    = "InternalFailure"
)

// Status is a stream's place in its life.
type Status string

// The statuses of AWS's model.
const (
	StatusCreating       Status = "CREATING"
	StatusCreatingFailed Status = "CREATING_FAILED"
	StatusActive         Status = "ACTIVE"
	StatusDeleting       Status = "DELETING"
	StatusDeletingFailed Status = "DELETING_FAILED"
)

// StreamConfig is what a stream was created with, or updated to, defaults
// filled in. It has exactly one destination. Its JSON form is AWS's, so that it
// can be stored and shown as it is.
type StreamConfig struct {
	Name                record.StreamName      `json:"DeliveryStreamName"`
	ThroughputHintInMBs *int32                 `json:"ThroughputHintInMBs,omitempty"`
	Iceberg             *IcebergDestination    `json:"IcebergDestination,omitempty"`
	S3                  *ExtendedS3Destination `json:"ExtendedS3Destination,omitempty"`
	Tags                []Tag                  `json:"Tags,omitempty"`
}

// Table returns the first table that an Iceberg destination names; "" for
// other destinations, and where records are routed to tables by content only.
func (c StreamConfig) Table() (database, table string) {
	if c.Iceberg == nil || len(c.Iceberg.Tables) == 0 {
		return "", ""
	}
	t := c.Iceberg.Tables[0]
	return t.Database, t.Table
}

// Processing returns what happens to the records before delivery, or nil.
func (c StreamConfig) Processing() *Processing {
	if c.S3 != nil {
		return c.S3.Processing
	}
	return c.Iceberg.Processing
}

// Hints returns the buffer hints: a flush is due at whichever comes first.
func (c StreamConfig) Hints() (sizeBytes int64, interval time.Duration) {
	var h *BufferingHints
	if c.S3 != nil {
		h = c.S3.BufferingHints
	} else {
		h = c.Iceberg.BufferingHints
	}
	return int64(*h.SizeInMBs) << 20, time.Duration(*h.IntervalInSeconds) * time.Second
}

// StreamInfo is a stream as Describe shows it.
type StreamInfo struct {
	Config    StreamConfig
	Status    Status
	Version   int64 // from 1, raised by every change of the destination
	CreatedAt time.Time
	UpdatedAt time.Time
	Failure   *Failure // set for the two failed statuses
}

// Failure says why a stream could not be created or deleted. Type is one of
// AWS's DeliveryStreamFailureType, usually UNKNOWN_ERROR.
type Failure struct {
	Type    string
	Details string
}
