package firehose

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/tapehouse/tapehouse/internal/awsapi"
	"github.com/tapehouse/tapehouse/internal/record"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func putBody(stream string, docs ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"DeliveryStreamName":%q,"Records":[`, stream)
	for i, d := range docs {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`{"Data":"` + b64(d) + `"}`)
	}
	return b.String() + `]}`
}

func value(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

func repeat(doc string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = doc
	}
	return out
}

func TestPutRefusals(t *testing.T) {
	big, huge := strings.Repeat("x", 1_024_000), strings.Repeat("x", 1_024_001)
	const heap = "Value 'java.nio.HeapByteBuffer[pos=0 lim=1024001 cap=1024001]' at '"
	cases := []struct{ name, operation, body, code, message string }{
		{"no JSON", "PutRecordBatch", `{"DeliveryStreamName`, awsapi.CodeSerialization, "expected the end of a string at byte 20"},
		{"base64", "PutRecordBatch", `{"DeliveryStreamName":"s","Records":[{"Data":"e30"}]}`, awsapi.CodeSerialization, "The Data at byte 45 is not valid base64."},
		{"nothing", "PutRecordBatch", `{}`, "ValidationException", "2 validation errors detected: Value null at 'deliveryStreamName' failed to satisfy constraint: Member must not be null; Value null at 'records' failed to satisfy constraint: Member must not be null"},
		{"nothing single", "PutRecord", `{}`, "ValidationException", "2 validation errors detected: Value null at 'deliveryStreamName' failed to satisfy constraint: Member must not be null; Value null at 'record' failed to satisfy constraint: Member must not be null"},
		{"name", "PutRecordBatch", putBody("a b", "{}"), "ValidationException", "1 validation error detected: Value 'a b' at 'deliveryStreamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"},
		{"empty name", "PutRecord", `{"DeliveryStreamName":"","Record":{"Data":""}}`, "ValidationException", "Member must have length greater than or equal to 1"},
		{"long name", "PutRecordBatch", putBody(strings.Repeat("n", 65), "{}"), "ValidationException", "Member must have length less than or equal to 64"},
		{"no records", "PutRecordBatch", putBody("s"), "ValidationException", "1 validation error detected: Value '[0 members]' at 'records' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		{"501 records", "PutRecordBatch", putBody("s", repeat("{}", 501)...), "ValidationException", "1 validation error detected: Value '[501 members]' at 'records' failed to satisfy constraint: Member must have length less than or equal to 500"},
		{"no data", "PutRecordBatch", `{"DeliveryStreamName":"s","Records":[{"Data":"e30="},{},null]}`, "ValidationException", "2 validation errors detected: Value null at 'records.2.member.data' failed to satisfy constraint: Member must not be null; Value null at 'records.3.member.data'"},
		{"no data single", "PutRecord", `{"DeliveryStreamName":"s","Record":{}}`, "ValidationException", "Value null at 'record.data'"},
		{"large record", "PutRecordBatch", putBody("s", "{}", huge), "ValidationException", "1 validation error detected: " + heap + "records.2.member.data' failed to satisfy constraint: Member must have length less than or equal to 1024000"},
		{"large single", "PutRecord", `{"DeliveryStreamName":"s","Record":{"Data":"` + b64(huge) + `"}}`, "ValidationException", heap + "record.data' failed"},
		{"large batch", "PutRecordBatch", putBody("s", big, big, big, big, strings.Repeat("x", 4<<20-4*1_024_000+1)), codeInvalidArgument, "Records size exceeds 4 MB limit"},
		{"unknown stream", "PutRecordBatch", putBody("nobody", "{}"), codeNotFound, "Firehose nobody under account 000000000000 not found."},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			fake := newFake()
			h, _ := newHandler(t, fake)
			if _, err := call(t, h, "CreateDeliveryStream", createBody("s")); err != nil {
				t.Fatal(err)
			}
			_, err := call(t, h, c.operation, c.body)
			wantError(t, err, c.code, c.message)
			if len(fake.docs("s")) != 0 {
				t.Fatal("a refused put left records")
			}
		})
	}
	t.Run("at the limits", func(t *testing.T) {
		fake := newFake()
		h, _ := newHandler(t, fake)
		if _, err := call(t, h, "CreateDeliveryStream", createBody("s")); err != nil {
			t.Fatal(err)
		}
		if _, err := call(t, h, "PutRecordBatch", putBody("s", big, big, big, big, strings.Repeat("x", 4<<20-4*1_024_000))); err != nil {
			t.Fatal(err)
		}
		if _, err := call(t, h, "PutRecordBatch", putBody("s", repeat("{}", 500)...)); err != nil {
			t.Fatal(err)
		}
		if n := len(fake.docs("s")); n != 505 {
			t.Fatal(n)
		}
	})
}

func TestPutAnswers(t *testing.T) {
	fake := newFake()
	h, _ := newHandler(t, fake)
	if _, err := call(t, h, "CreateDeliveryStream", createBody("s")); err != nil {
		t.Fatal(err)
	}
	key := fake.streams["s"].key
	out, err := call(t, h, "PutRecord", `{"Record":{"Data":"e30="},"DeliveryStreamName":"s"}`)
	if want := `{"RecordId":"` + (record.ID{Key: key}).String() + `","Encrypted":false}`; err != nil || out != want {
		t.Fatalf("%s, %v; want %s", out, err, want)
	}
	fake.failing = func(doc []byte) bool { return strings.HasPrefix(string(doc), "bad") }
	out, err = call(t, h, "PutRecordBatch", putBody("s", "a", "bad", "b", "bad"))
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		FailedPutCount   int
		Encrypted        *bool
		RequestResponses []struct{ RecordID, ErrorCode, ErrorMessage string }
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	r := answer.RequestResponses
	if answer.FailedPutCount != 2 || answer.Encrypted == nil || *answer.Encrypted || len(r) != 4 ||
		r[0].RecordID != (record.ID{Key: key, Offset: 1}).String() || r[1].ErrorCode != FailureUnavailable || r[1].ErrorMessage != "Slow down." || r[1].RecordID != "" ||
		r[2].RecordID != (record.ID{Key: key, Offset: 2}).String() || r[3].ErrorCode != FailureUnavailable {
		t.Fatalf("%s", out)
	}
	_, err = call(t, h, "PutRecord", `{"Record":{"Data":"`+b64("bad")+`"},"DeliveryStreamName":"s"}`)
	wantError(t, err, FailureUnavailable, "Slow down.")

	series := h.metrics.find([]byte("s"))
	for name, c := range map[string]float64{"records": value(t, series.records), "failed": value(t, series.failed), "requests": value(t, series.requests), "bytes": value(t, series.bytes)} {
		if want := map[string]float64{"records": 3, "failed": 3, "requests": 3, "bytes": 13}[name]; c != want {
			t.Errorf("%s: %v, want %v", name, c, want)
		}
	}
	fake.putErr = ErrThrottled
	_, err = call(t, h, "PutRecordBatch", putBody("s", "a", "b"))
	wantError(t, err, awsapi.CodeServiceUnavailable, "Slow down.")
	if n := value(t, series.throttled); n != 2 {
		t.Errorf("throttled: %v", n)
	}
}

func TestEveryDecisionHasAnAnswer(t *testing.T) {
	for kind, want := range map[error]awsapi.Error{
		ErrNotFound:    {Status: 400, Code: codeNotFound},
		ErrInUse:       {Status: 400, Code: codeInUse},
		ErrLimit:       {Status: 400, Code: codeLimit},
		ErrInvalid:     {Status: 400, Code: codeInvalidArgument},
		ErrConcurrent:  {Status: 400, Code: codeConcurrent},
		ErrThrottled:   {Status: 500, Code: awsapi.CodeServiceUnavailable},
		ErrUnavailable: {Status: 500, Code: awsapi.CodeServiceUnavailable},
	} {
		var e *awsapi.Error
		if !errors.As(answerTo(fmt.Errorf("wrapped: %w", kind)), &e) || e.Status != want.Status || e.Code != want.Code || e.Message == "" {
			t.Errorf("%v: %+v", kind, e)
		}
		if !errors.As(answerTo(fmt.Errorf("wrapped: %w", &Refusal{kind, "for the client"})), &e) || e.Message != "for the client" {
			t.Errorf("%v: %+v", kind, e)
		}
	}
	inner := errors.New("inner")
	if answerTo(inner) != inner {
		t.Error("an unknown error must stay unknown")
	}
}

// sink acknowledges everything and keeps nothing: the handler alone.
type sink struct{ Streams }

type sinkResult struct{}

var sinkID = []byte(record.ID{}.String())

func (sinkResult) Failed() int                             { return 0 }
func (sinkResult) Failure(int) (string, string)            { return "", "" }
func (sinkResult) AppendRecordID(dst []byte, _ int) []byte { return append(dst, sinkID...) }
func (sink) Put(context.Context, record.StreamName, *PutRequest) (PutResult, error) {
	return sinkResult{}, nil
}

func TestPutDoesNotAllocatePerRecord(t *testing.T) {
	h, _ := newHandler(t, sink{})
	body := batch(500)
	c := &awsapi.Call{Operation: "PutRecordBatch"}
	operation := h.Service().Operations["PutRecordBatch"]
	n := testing.AllocsPerRun(50, func() {
		c.Body, c.Out = body, c.Out[:0]
		if err := operation(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	})
	if n > 10 {
		t.Fatalf("%.0f allocations for a put of 500 records", n)
	}
}

func BenchmarkPutRecordBatch(b *testing.B) {
	h, _ := newHandler(b, sink{})
	body := batch(500)
	c := &awsapi.Call{Operation: "PutRecordBatch"}
	operation := h.Service().Operations["PutRecordBatch"]
	b.ReportAllocs()
	for b.Loop() {
		c.Body, c.Out = body, c.Out[:0]
		if err := operation(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/500, "ns/record")
}
