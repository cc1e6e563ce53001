package producer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/auth"
)

var testKey = auth.AccessKey{ID: "AKIATESTTESTTESTTEST", Secret: "a secret of the test, long enough"}

// service is a Firehose that verifies signatures and fails as told.
type service struct {
	t        testing.TB
	verifier *auth.Verifier

	mu       sync.Mutex
	docs     map[string][]string
	requests int
	// fault is asked before each put, with its number from 0. It may answer by
	// itself (true), and name the documents to fail.
	fault func(n int, w http.ResponseWriter) bool
	fail  func(n int, doc string) bool
	// after is called when the records are stored, before the answer: true
	// means that the answer is lost.
	after func(n int) bool
	extra func(w http.ResponseWriter, operation string, body []byte)
}

func newService(t testing.TB) (*service, Config) {
	s := &service{t: t, verifier: auth.NewVerifier(&auth.Credentials{Keys: []auth.AccessKey{testKey}}, nil), docs: map[string][]string{}}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, Config{Endpoint: server.URL, AccessKey: testKey.ID, Secret: testKey.Secret, RetryFor: 5 * time.Second, Timeout: 5 * time.Second}
}

func (s *service) refuse(w http.ResponseWriter, status int, code, message string) {
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"__type":"prefix#%s","message":%q}`, code, message)
}

// ordered tells the race detector what a socket orders and it does not see: what a
// test set of its service comes before a request, what the service did before the
// answer.
type ordered struct{ *direct }

var orderedMu sync.Mutex

func order() {
	orderedMu.Lock()
	defer orderedMu.Unlock()
}

func (o ordered) RoundTrip(r *http.Request) (*http.Response, error) {
	order()
	defer order()
	return o.direct.RoundTrip(r)
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	order()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var a auth.Authorization
	if err = s.verifier.Parse(r, &a); err == nil {
		err = s.verifier.Check(r, &a, sha256.Sum256(body))
	}
	if err != nil {
		var e *auth.Error
		errors.As(err, &e)
		s.refuse(w, 400, e.Code, e.Message)
		return
	}
	operation := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "Firehose_20150804.")
	if operation != "PutRecordBatch" {
		s.extra(w, operation, body)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.requests
	s.requests++
	if s.fault != nil && s.fault(n, w) {
		return
	}
	var in struct {
		DeliveryStreamName string
		Records            []struct{ Data []byte }
	}
	if err := json.Unmarshal(body, &in); err != nil {
		s.t.Errorf("%v: %.200s", err, body)
	}
	total, failed := 0, 0
	var answer bytes.Buffer
	for i, r := range in.Records {
		total += len(r.Data)
		if i > 0 {
			answer.WriteByte(',')
		}
		if s.fail != nil && s.fail(n, string(r.Data)) {
			failed++
			answer.WriteString(`{"ErrorCode":"ServiceUnavailableException","ErrorMessage":"Slow down."}`)
			continue
		}
		s.docs[in.DeliveryStreamName] = append(s.docs[in.DeliveryStreamName], string(r.Data))
		answer.WriteString(`{"RecordId":"id"}`)
	}
	if len(in.Records) < 1 || len(in.Records) > batchRecordsMax || total > batchBytesMax {
		s.t.Errorf("%d records, %d bytes in a request", len(in.Records), total)
	}
	defer order()
	order()
	if s.after != nil && s.after(n) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte(`{"FailedPutCount":0,`))
		return // the connection is closed in the midst of the answer
	}
	_, _ = fmt.Fprintf(w, `{"Encrypted":false,"FailedPutCount":%d,"RequestResponses":[%s]}`, failed, answer.Bytes())
}

func newClient(t testing.TB, c Config) *Client {
	t.Helper()
	client, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if d, ok := client.http.Transport.(*direct); ok {
		client.http.Transport = ordered{d}
	}
	t.Cleanup(client.Close)
	return client
}

func numbered(n int) [][]byte {
	docs := make([][]byte, n)
	for i := range docs {
		docs[i] = fmt.Appendf(nil, `{"n":%d}`, i)
	}
	return docs
}

func wantAll(t *testing.T, got []string, docs [][]byte) {
	t.Helper()
	want := make([]string, len(docs))
	for i := range docs {
		want[i] = string(docs[i])
	}
	got = slices.Clone(got)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("%d documents arrived, want %d, each once", len(got), len(want))
	}
}

func TestPutBatchSplits(t *testing.T) {
	s, config := newService(t)
	c := newClient(t, config)
	docs := numbered(1234)
	docs[7] = nil
	result, err := c.PutBatch(t.Context(), "s", docs)
	if err != nil || result.Records != 1234 || s.requests != 3 {
		t.Fatal(result, err, s.requests)
	}
	wantAll(t, s.docs["s"], docs)
	for i, d := range s.docs["s"] { // in order
		if d != string(docs[i]) {
			t.Fatalf("%d: %s", i, d)
		}
	}
	large := make([][]byte, 9)
	for i := range large {
		large[i] = bytes.Repeat([]byte{byte(i)}, recordBytesMax)
	}
	s.requests = 0
	if result, err = c.PutBatch(t.Context(), "large", large); err != nil || result.Bytes != 9*recordBytesMax || s.requests != 3 {
		t.Fatal(result, err, s.requests)
	}
	wantAll(t, s.docs["large"], large)
	if _, err := c.PutBatch(t.Context(), "s", [][]byte{make([]byte, recordBytesMax+1)}); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	if _, err := c.PutBatch(t.Context(), `a"b`, docs); err == nil {
		t.Fatal("a name that would break the body is accepted")
	}
	if result, err := c.PutBatch(t.Context(), "s", nil); err != nil || result.Records != 0 {
		t.Fatal(result, err)
	}
}

func TestFailedEntriesAloneAreSentAgain(t *testing.T) {
	s, config := newService(t)
	c := newClient(t, config)
	s.fail = func(n int, doc string) bool { return n < 3 && len(doc)%3 == n%3 }
	docs := numbered(500)
	result, err := c.PutBatch(t.Context(), "s", docs)
	if err != nil || result.Records != 500 {
		t.Fatal(result, err)
	}
	wantAll(t, s.docs["s"], docs)
	if sent, retried := c.Requests(); sent != int64(s.requests) || retried != sent-1 || retried == 0 {
		t.Fatal(sent, retried)
	}
}

func TestRetries(t *testing.T) {
	for name, fault := range map[string]func(s *service, n int, w http.ResponseWriter) bool{
		"slow down": func(s *service, n int, w http.ResponseWriter) bool {
			if n < 2 {
				s.refuse(w, 500, "ServiceUnavailableException", "Slow down.")
			}
			return n < 2
		},
		"no JSON": func(_ *service, n int, w http.ResponseWriter) bool {
			if n < 2 {
				http.Error(w, "bad gateway", http.StatusBadGateway)
			}
			return n < 2
		},
		"reset": func(_ *service, n int, w http.ResponseWriter) bool {
			if n >= 2 {
				return false
			}
			if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_ = c.Close()
			}
			return true
		},
		"silence": func(_ *service, n int, _ http.ResponseWriter) bool {
			if n < 1 {
				time.Sleep(500 * time.Millisecond)
			}
			return false
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, config := newService(t)
			config.Timeout = 300 * time.Millisecond
			s.fault = func(n int, w http.ResponseWriter) bool { return fault(s, n, w) }
			docs := numbered(10)
			if result, err := newClient(t, config).PutBatch(t.Context(), "s", docs); err != nil || result.Records != 10 {
				t.Fatal(result, err)
			}
			if name != "silence" { // there the first attempt was stored too: at least once
				wantAll(t, s.docs["s"], docs)
			}
		})
	}
}

func TestLostAnswerIsSentAgain(t *testing.T) {
	s, config := newService(t)
	s.after = func(n int) bool { return n == 0 }
	docs := numbered(10)
	if result, err := newClient(t, config).PutBatch(t.Context(), "s", docs); err != nil || result.Records != 10 {
		t.Fatal(result, err)
	}
	if n := len(s.docs["s"]); n != 20 {
		t.Fatalf("%d documents arrived; an unknown outcome must be sent again", n)
	}
}

func TestPermanentErrors(t *testing.T) {
	s, config := newService(t)
	s.fault = func(_ int, w http.ResponseWriter) bool {
		s.refuse(w, 400, "ResourceNotFoundException", "Firehose s under account 000000000000 not found.")
		return true
	}
	_, err := newClient(t, config).PutBatch(t.Context(), "s", numbered(3))
	var e *APIError
	if !errors.As(err, &e) || e.Code != "ResourceNotFoundException" || e.Status != 400 || s.requests != 1 || !strings.Contains(err.Error(), "3 of 3 records are not acknowledged") {
		t.Fatal(err, s.requests)
	}
	wrong := config
	wrong.Secret = "wrong"
	if _, err := newClient(t, wrong).PutBatch(t.Context(), "s", numbered(1)); !IsCode(err, "InvalidSignatureException") {
		t.Fatal(err)
	}
	// A server that fails for ever is given up.
	s.fault = func(_ int, w http.ResponseWriter) bool {
		s.refuse(w, 500, "InternalFailure", "no")
		return true
	}
	config.RetryFor = 200 * time.Millisecond
	if _, err := newClient(t, config).PutBatch(t.Context(), "s", numbered(1)); !IsCode(err, "InternalFailure") || !strings.Contains(err.Error(), "gave up after 200ms") {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	config.RetryFor = time.Minute
	if _, err := newClient(t, config).PutBatch(ctx, "s", numbered(1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []Config{
		{}, {Endpoint: "localhost:4566", AccessKey: "a", Secret: "b"}, {Endpoint: "ftp://x", AccessKey: "a", Secret: "b"},
		{Endpoint: "http://x?y=1", AccessKey: "a", Secret: "b"}, {Endpoint: "http://x"},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

func TestAnswers(t *testing.T) {
	for answer, want := range map[string]string{
		`{"FailedPutCount":0,"RequestResponses":[]}`:                                   "",
		`{"RequestResponses":[{"RecordId":"FailedPutCount"}],"FailedPutCount": 0}`:     "",
		`{"FailedPutCount":1,"RequestResponses":[{"RecordId":"a"},{"ErrorCode":"E"}]}`: "1 of 2 records failed: E: ",
		`{"FailedPutCount":1,"RequestResponses":[{"RecordId":"a"}]}`:                   "1 entries for 2 records",
		`{"FailedPutCount":1,"RequestResponses":[{"RecordId":"a"},{"RecordId":"b"}]}`:  "names none",
		`{"FailedPutCount":`: "decode the answer",
	} {
		_, err := failures([]byte(answer), 2)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", answer, err)
		}
	}
}

func TestStreams(t *testing.T) {
	s, config := newService(t)
	s.extra = func(w http.ResponseWriter, operation string, body []byte) {
		switch operation {
		case "CreateDeliveryStream":
			if !strings.Contains(string(body), `"BufferingHints":{"IntervalInSeconds":60,"SizeInMBs":64}`) {
				s.t.Errorf("%s", body)
			}
			_, _ = io.WriteString(w, `{"DeliveryStreamARN":"arn"}`)
		case "DescribeDeliveryStream":
			if strings.Contains(string(body), "nobody") {
				s.refuse(w, 400, "ResourceNotFoundException", "no")
				return
			}
			_, _ = io.WriteString(w, `{"DeliveryStreamDescription":{"DeliveryStreamName":"s","DeliveryStreamARN":"arn","DeliveryStreamStatus":"ACTIVE","Destinations":[{"IcebergDestinationDescription":{"DestinationTableConfigurationList":[{"DestinationDatabaseName":"d","DestinationTableName":"t"}]}}]}}`)
		}
	}
	c := newClient(t, config)
	if err := c.CreateStream(t.Context(), StreamSpec{Name: "s", Database: "d", Table: "t"}); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Describe(t.Context(), "s"); err != nil || got != (StreamStatus{"s", "arn", "ACTIVE", "d", "t"}) {
		t.Fatal(got, err)
	}
	if _, err := c.Describe(t.Context(), "nobody"); !IsCode(err, "ResourceNotFoundException") {
		t.Fatal(err)
	}
}

func TestPipelineKeepsOrderUnderFaults(t *testing.T) {
	s, config := newService(t)
	s.fault = func(n int, w http.ResponseWriter) bool {
		switch n % 7 {
		case 2:
			s.refuse(w, 500, "ServiceUnavailableException", "Slow down.")
			return true
		case 5:
			if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_ = c.Close()
			}
			return true
		}
		return false
	}
	var acked sync.Map
	p := NewPipeline(newClient(t, config), PipelineOptions{Workers: 3, QueueDepth: 1, Linger: 5 * time.Millisecond, OnAck: func(a Ack) {
		n, _ := acked.LoadOrStore(a.Stream, new(int64))
		s.mu.Lock()
		*n.(*int64) += int64(a.Records)
		s.mu.Unlock()
	}})
	const sources, each = 8, 1500
	var wait sync.WaitGroup
	for source := range sources {
		wait.Go(func() {
			name := fmt.Sprint("source", source)
			for i := range each {
				if err := p.Put(t.Context(), []string{"a", "b"}[source%2], name, fmt.Appendf(nil, "%d %d", source, i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	progress := p.Progress()
	if progress.Submitted != sources*each || progress.Acknowledged != sources*each || progress.Bytes == 0 || progress.Batches == 0 {
		t.Fatalf("%+v", progress)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Put(t.Context(), "a", "x", nil); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	next := map[int]int{}
	for _, stream := range []string{"a", "b"} {
		for _, d := range s.docs[stream] {
			var source, i int
			if _, err := fmt.Sscan(d, &source, &i); err != nil {
				t.Fatal(err)
			}
			if next[source] != i {
				t.Fatalf("source %d: record %d arrived when %d was due", source, i, next[source])
			}
			next[source]++
		}
		if n, ok := acked.Load(stream); !ok || *n.(*int64) != sources/2*each {
			t.Fatal(stream, n)
		}
	}
	for source := range sources {
		if next[source] != each {
			t.Fatalf("source %d: %d records arrived", source, next[source])
		}
	}
}

func TestPipelineStopsOnPermanentError(t *testing.T) {
	s, config := newService(t)
	s.fault = func(_ int, w http.ResponseWriter) bool {
		s.refuse(w, 400, "ResourceNotFoundException", "no such stream")
		return true
	}
	p := NewPipeline(newClient(t, config), PipelineOptions{Workers: 1, QueueDepth: 1})
	var err error
	for range 5000 {
		if err = p.Put(t.Context(), "s", "x", []byte("{}")); err != nil {
			break
		}
	}
	if err == nil {
		err = p.Flush(t.Context())
	}
	if !IsCode(err, "ResourceNotFoundException") {
		t.Fatal(err)
	}
	if err := p.Close(t.Context()); !IsCode(err, "ResourceNotFoundException") {
		t.Fatal(err)
	}
}

func TestPipelineIsBounded(t *testing.T) {
	s, config := newService(t)
	gate := make(chan struct{})
	s.fault = func(int, http.ResponseWriter) bool { <-gate; return false }
	p := NewPipeline(newClient(t, config), PipelineOptions{Workers: 1, QueueDepth: 2})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var err error
	for err == nil {
		err = p.Put(ctx, "s", "x", []byte("{}"))
	}
	// In flight, two in the queue, one open.
	if n := p.Progress().Submitted; !errors.Is(err, context.DeadlineExceeded) || n > 4*batchRecordsMax || n < 3*batchRecordsMax {
		t.Fatal(n, err)
	}
	close(gate)
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(s.docs["s"]); int64(n) != p.Progress().Submitted {
		t.Fatal(n)
	}
}

func TestKeep(t *testing.T) {
	docs := numbered(20)
	for _, indices := range [][]int{nil, {0}, {19}, {0, 19}, {3, 4, 5}, {1, 3, 5, 7, 9, 11, 13, 15, 17}} {
		var b batch
		if err := b.reset("s"); err != nil {
			t.Fatal(err)
		}
		for _, d := range docs {
			if !b.add(d) {
				t.Fatal("full")
			}
		}
		b.keep(indices)
		if !b.add([]byte("more")) {
			t.Fatal("full")
		}
		var in struct{ Records []struct{ Data []byte } }
		if err := json.Unmarshal(b.finish(), &in); err != nil {
			t.Fatalf("%s: %v", b.finish(), err)
		}
		if len(in.Records) != len(indices)+1 || string(in.Records[len(indices)].Data) != "more" {
			t.Fatalf("%s", b.finish())
		}
		size := len("more")
		for k, i := range indices {
			if size += len(docs[i]); !bytes.Equal(in.Records[k].Data, docs[i]) {
				t.Fatalf("%v: %s", indices, b.finish())
			}
		}
		if b.bytes != size {
			t.Fatal(b.bytes, size)
		}
	}
}

func BenchmarkBatch(b *testing.B) {
	doc := bytes.Repeat([]byte("x"), 290)
	var batch batch
	b.ReportAllocs()
	for b.Loop() {
		if err := batch.reset("s"); err != nil {
			b.Fatal(err)
		}
		for batch.add(doc) {
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batchRecordsMax, "ns/record")
}
