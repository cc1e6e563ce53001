package firehose

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/tapehouse/tapehouse/internal/awsapi"
	"github.com/tapehouse/tapehouse/internal/record"
)

// put is the pooled state of one PutRecord or PutRecordBatch.
type put struct {
	envelope envelope
	request  PutRequest
}

func (h *Handler) putRecordBatch(ctx context.Context, c *awsapi.Call) error {
	return h.put(ctx, c, (*envelope).scanBatch, checkBatch, appendBatchAnswer)
}

func (h *Handler) putRecord(ctx context.Context, c *awsapi.Call) error {
	return h.put(ctx, c, (*envelope).scanSingle, checkSingle, appendSingleAnswer)
}

func (h *Handler) put(ctx context.Context, c *awsapi.Call, scan, check func(*envelope) error,
	answer func(dst []byte, result PutResult, n int) ([]byte, error)) error {
	arrived := h.now().UnixMicro()
	p := h.puts.Get().(*put)
	defer h.puts.Put(p)
	arena := h.buffers.Get(len(c.Body)/4*3 + 3)
	defer h.buffers.Put(arena)
	e := &p.envelope
	e.reset(c.Body, arena)
	if err := scan(e); err != nil {
		return err
	}
	if err := check(e); err != nil {
		return err
	}
	series := h.metrics.find(e.stream)
	var name record.StreamName
	if series != nil {
		name = series.name
	} else {
		name = record.StreamName(e.stream)
	}
	p.request = PutRequest{Docs{e.arena, e.ends}, arrived}
	result, err := h.streams.Put(ctx, name, &p.request)
	p.request = PutRequest{}
	if err != nil {
		if series != nil && errors.Is(err, ErrThrottled) {
			series.throttled.Add(float64(len(e.ends)))
		}
		if errors.Is(err, ErrNotFound) {
			return h.notFound(name)
		}
		return answerTo(fmt.Errorf("put to %s: %w", name, err))
	}
	if series == nil {
		series = h.metrics.add(name)
	}
	failed := result.Failed()
	series.requests.Inc()
	series.bytes.Add(float64(len(e.arena)))
	series.records.Add(float64(len(e.ends) - failed))
	if failed > 0 {
		series.failed.Add(float64(failed))
	}
	c.Out, err = answer(c.Out, result, len(e.ends))
	return err
}

// checkStream holds the constraints that both operations share.
func (v *violations) checkStream(e *envelope) {
	if e.stream == nil {
		v.missing("deliveryStreamName")
		return
	}
	if !validName(e.stream) {
		s := string(e.stream)
		v.streamName("deliveryStreamName", &s, true)
	}
}

func validName(b []byte) bool {
	for _, c := range b {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return len(b) >= 1 && len(b) <= 64
}

// data adds what is wrong with single records. AWS prints the buffer as its
// Java service sees it, and clients know the message by that.
func (v *violations) data(e *envelope, path func(i int) string) {
	for _, d := range e.violations {
		if d.bytes < 0 {
			v.missing(path(d.record))
			continue
		}
		n := strconv.Itoa(d.bytes)
		v.add("'java.nio.HeapByteBuffer[pos=0 lim="+n+" cap="+n+"]'", path(d.record), "Member must have length less than or equal to "+strconv.Itoa(recordBytesMax))
	}
	v.n += e.violated - len(e.violations)
}

func checkBatch(e *envelope) error {
	var v violations
	v.checkStream(e)
	switch {
	case !e.hasRecords:
		v.missing("records")
	default:
		v.length("records", "'["+strconv.Itoa(e.records)+" members]'", e.records, 1, batchRecordsMax)
		if e.violated > 0 {
			v.data(e, func(i int) string { return "records." + strconv.Itoa(i) + ".member.data" })
		}
	}
	if err := v.err(); err != nil {
		return err
	}
	if e.dataBytes > batchBytesMax {
		return invalid("Records size exceeds 4 MB limit")
	}
	return nil
}

func checkSingle(e *envelope) error {
	var v violations
	v.checkStream(e)
	switch {
	case !e.hasRecords:
		v.missing("record")
	case e.violated > 0:
		v.data(e, func(int) string { return "record.data" })
	}
	return v.err()
}

func appendBatchAnswer(dst []byte, result PutResult, n int) ([]byte, error) {
	failed := result.Failed()
	dst = append(dst, `{"FailedPutCount":`...)
	dst = strconv.AppendInt(dst, int64(failed), 10)
	dst = append(dst, `,"Encrypted":false,"RequestResponses":[`...)
	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}
		if failed > 0 {
			if code, message := result.Failure(i); code != "" {
				dst = append(dst, `{"ErrorCode":`...)
				dst = awsapi.AppendString(dst, code)
				dst = append(dst, `,"ErrorMessage":`...)
				dst = awsapi.AppendString(dst, message)
				dst = append(dst, '}')
				continue
			}
		}
		dst = append(dst, `{"RecordId":"`...)
		dst = result.AppendRecordID(dst, i)
		dst = append(dst, '"', '}')
	}
	return append(dst, ']', '}'), nil
}

func appendSingleAnswer(dst []byte, result PutResult, _ int) ([]byte, error) {
	if result.Failed() > 0 {
		code, message := result.Failure(0)
		return dst, &awsapi.Error{Status: 500, Code: code, Message: message}
	}
	dst = append(dst, `{"RecordId":"`...)
	dst = result.AppendRecordID(dst, 0)
	return append(dst, `","Encrypted":false}`...), nil
}
