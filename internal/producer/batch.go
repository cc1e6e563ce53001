package producer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cloudwego/base64x"

	"github.com/tapehouse/tapehouse/internal/record"
)

// The limits of a put in the Firehose API.
const (
	recordBytesMax  = 1_024_000
	batchBytesMax   = 4 << 20
	batchRecordsMax = 500
)

// ErrTooLarge refuses a document beyond the API's limit.
var ErrTooLarge = fmt.Errorf("a record may have at most %d bytes", recordBytesMax)

// batch is the body of one PutRecordBatch as it grows:
//
//	{"DeliveryStreamName":"s","Records":[{"Data":"…"},{"Data":"…"}
//	                                    ^head        ^ends[0]     ^ends[1]
//
// finish adds the closing brackets behind it.
type batch struct {
	stream string
	body   []byte
	head   int
	ends   []int32 // where each entry ends; the next begins behind a comma
	sizes  []int32 // of each document, before base64
	bytes  int     // their sum
}

// reset makes an empty batch for the stream.
func (b *batch) reset(stream string) error {
	if _, err := record.ParseStreamName(stream); err != nil {
		return err
	}
	b.stream = stream
	b.body = append(b.body[:0], `{"DeliveryStreamName":"`...)
	b.body = append(b.body, stream...) // letters, digits, '_', '.', '-': no escape
	b.body = append(b.body, `","Records":[`...)
	b.head, b.ends, b.sizes, b.bytes = len(b.body), b.ends[:0], b.sizes[:0], 0
	return nil
}

// add appends a document; false if the batch is full. The document is copied.
func (b *batch) add(doc []byte) bool {
	if len(b.ends) == batchRecordsMax || b.bytes+len(doc) > batchBytesMax {
		return false
	}
	if len(b.ends) > 0 {
		b.body = append(b.body, ',')
	}
	b.body = append(b.body, `{"Data":"`...)
	const slack = 64 // the encoder stores whole vectors
	n, at := base64x.StdEncoding.EncodedLen(len(doc)), len(b.body)
	if cap(b.body)-at < n+slack {
		grown := make([]byte, at, max(2*cap(b.body), at+n+slack, 256<<10))
		copy(grown, b.body)
		b.body = grown
	}
	if n > 0 {
		out := b.body[at:at:cap(b.body)]
		base64x.StdEncoding.EncodeUnsafe(&out, doc)
	}
	b.body = append(b.body[:at+n], '"', '}')
	b.ends = append(b.ends, int32(len(b.body)))
	b.sizes = append(b.sizes, int32(len(doc)))
	b.bytes += len(doc)
	return true
}

// finish returns the whole body. It is valid until the batch changes.
func (b *batch) finish() []byte {
	n := len(b.body)
	b.body = append(b.body, ']', '}')
	whole := b.body
	b.body = b.body[:n]
	return whole
}

// keep drops all entries but those at the given indices, which ascend.
func (b *batch) keep(indices []int) {
	at, kept := b.head, 0
	bytes := 0
	for _, i := range indices {
		from := b.head
		if i > 0 {
			from = int(b.ends[i-1]) + 1
		}
		entry := b.body[from:b.ends[i]]
		if kept > 0 {
			b.body[at] = ','
			at++
		}
		at += copy(b.body[at:], entry) // entries only move to the front
		b.ends[kept], b.sizes[kept] = int32(at), b.sizes[i]
		bytes += int(b.sizes[i])
		kept++
	}
	b.body, b.ends, b.sizes, b.bytes = b.body[:at], b.ends[:kept], b.sizes[:kept], bytes
}

// Result counts what was acknowledged.
type Result struct {
	Records int
	Bytes   int64 // of the documents
}

// PutBatch puts documents in as few requests as the limits allow, one after
// another, and returns when all are acknowledged. With an error, the result
// counts those that were.
func (c *Client) PutBatch(ctx context.Context, stream string, docs [][]byte) (Result, error) {
	b := c.batches.Get().(*batch)
	defer c.batches.Put(b)
	var total Result
	for len(docs) > 0 {
		if err := b.reset(stream); err != nil {
			return total, err
		}
		n := 0
		for n < len(docs) {
			if len(docs[n]) > recordBytesMax {
				return total, fmt.Errorf("document of %d bytes: %w", len(docs[n]), ErrTooLarge)
			}
			if !b.add(docs[n]) {
				break
			}
			n++
		}
		sent, err := c.send(ctx, b)
		total.Records += sent.Records
		total.Bytes += sent.Bytes
		if err != nil {
			return total, err
		}
		docs = docs[n:]
	}
	return total, nil
}

// send puts the batch until every record of it is acknowledged. It leaves in b
// what was not.
func (c *Client) send(ctx context.Context, b *batch) (Result, error) {
	answer := c.answers.Get().(*bytes.Buffer)
	defer c.answers.Put(answer)
	retry := newBackoff(c.config.RetryFor)
	var done Result
	for {
		records, size := len(b.ends), b.bytes
		err := c.attempt(ctx, "PutRecordBatch", b.finish(), answer)
		if err == nil {
			var failed []int
			if failed, err = failures(answer.Bytes(), records); err == nil && len(failed) == 0 {
				b.keep(nil)
				return Result{done.Records + records, done.Bytes + int64(size)}, nil
			}
			var partial *PartialError
			if errors.As(err, &partial) {
				b.keep(failed)
				if len(failed) < records {
					retry.progress()
				}
				done.Records += records - len(b.ends)
				done.Bytes += int64(size - b.bytes)
			}
		}
		if err := c.again(ctx, retry, err); err != nil {
			return done, fmt.Errorf("put to %s: %d of %d records are not acknowledged: %w", b.stream, len(b.ends), done.Records+len(b.ends), err)
		}
	}
}

// PartialError says that a batch was stored in part. Code and Message are
// those of the first record that failed.
type PartialError struct {
	Failed, Records int
	Code, Message   string
}

// Error implements error.
func (e *PartialError) Error() string {
	return fmt.Sprintf("%d of %d records failed: %s: %s", e.Failed, e.Records, e.Code, e.Message)
}

// failures returns the indices of the records that the answer reports as
// failed, with a *PartialError if there are any.
func failures(answer []byte, records int) ([]int, error) {
	// The common answer is recognised by its beginning; 500 RecordIds need not
	// be parsed to be ignored. The count comes first in our answers, second in AWS's.
	if bytes.Contains(answer[:min(len(answer), 64)], []byte(`"FailedPutCount":0,`)) {
		return nil, nil
	}
	var a struct {
		FailedPutCount   int
		RequestResponses []struct{ ErrorCode, ErrorMessage string }
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return nil, fmt.Errorf("PutRecordBatch: decode the answer: %w", err)
	}
	if a.FailedPutCount == 0 {
		return nil, nil
	}
	if len(a.RequestResponses) != records {
		return nil, fmt.Errorf("PutRecordBatch: the answer has %d entries for %d records", len(a.RequestResponses), records)
	}
	e := &PartialError{Records: records}
	var failed []int
	for i, r := range a.RequestResponses {
		if r.ErrorCode != "" {
			if failed == nil {
				e.Code, e.Message = r.ErrorCode, r.ErrorMessage
			}
			failed = append(failed, i)
		}
	}
	e.Failed = len(failed)
	if e.Failed == 0 {
		return nil, fmt.Errorf("PutRecordBatch: the answer counts %d failures and names none", a.FailedPutCount)
	}
	return failed, e
}
