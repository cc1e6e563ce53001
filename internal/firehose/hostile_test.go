package firehose

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/awsapi"
)

// port is the AWS port as the server sets it up, with shorter time-outs, over
// the fake streams; the stream s is there.
type port struct {
	address  string
	fake     *fakeStreams
	registry *prometheus.Registry
	logs     *syncBuffer
	clock    atomic.Int64 // how far the server's clock is ahead
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

const (
	testBodyTimeout   = 400 * time.Millisecond // where bodies are slow on purpose
	testHeaderTimeout = 400 * time.Millisecond
	testInFlight      = 24 << 20
)

func openPort(t *testing.T, bodyTimeout time.Duration) *port {
	t.Helper()
	p := &port{fake: newFake(), logs: &syncBuffer{}}
	var h *Handler
	h, p.registry = newHandler(t, p.fake)
	if _, err := call(t, h, "CreateDeliveryStream", createBody("s")); err != nil {
		t.Fatal(err)
	}
	now := func() time.Time { return time.Now().Add(time.Duration(p.clock.Load())) }
	logger := slog.New(slog.NewTextHandler(p.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	mux, err := awsapi.NewMux(awsapi.Options{Verifier: auth.NewVerifier(&auth.Credentials{Keys: []auth.AccessKey{testKey}}, now), Logger: logger, Registerer: p.registry,
		InFlightBytesMax: testInFlight, BodyTimeout: bodyTimeout})
	if err != nil {
		t.Fatal(err)
	}
	if err := mux.Register(h.Service()); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(mux)
	server.Config.ReadHeaderTimeout, server.Config.MaxHeaderBytes = testHeaderTimeout, 64<<10
	server.Config.ErrorLog = slog.NewLogLogger(logger.Handler(), slog.LevelError)
	server.Start()
	p.address = server.Listener.Addr().String()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		p.settled(t, before)
		server.Close()
	})
	return p
}

// settled checks, after whatever was done to it, that the port still takes a
// put, that it holds no bytes and no goroutines, and that nothing panicked.
func (p *port) settled(t *testing.T, before int) {
	t.Helper()
	p.clock.Store(0)
	deadline := time.Now().Add(20 * time.Second)
	for p.inFlight(t) != 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	p.fake.mu.Lock()
	docs := len(p.fake.streams["s"].docs)
	p.fake.mu.Unlock()
	status, body := p.send(t, p.signed("PutRecord", `{"DeliveryStreamName":"s","Record":{"Data":"bGFzdA=="}}`, nil))
	if stored := p.fake.docs("s"); status != http.StatusOK || len(stored) != docs+1 || stored[docs] != "last" {
		t.Errorf("after it all a good put: %d %s", status, body)
	}
	http.DefaultClient.CloseIdleConnections()
	for p.inFlight(t) != 0 || runtime.NumGoroutine() > before+3 {
		if time.Now().After(deadline) {
			t.Errorf("%v bytes in flight are not given back, %d goroutines, %d before", p.inFlight(t), runtime.NumGoroutine(), before)
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if logs := p.logs.String(); strings.Contains(logs, "panic") || strings.Contains(logs, "aws request failed") {
		t.Errorf("logged: %.2000s", logs)
	}
}

func (p *port) inFlight(t *testing.T) float64 {
	t.Helper()
	families, err := p.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "tapehouse_aws_in_flight_bytes" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("no gauge of the bytes in flight")
	return 0
}

// signed returns a request with a good signature over its body; change runs
// before it is signed.
func (p *port) signed(operation, body string, change func(*http.Request)) *http.Request {
	r, err := http.NewRequest(http.MethodPost, "http://"+p.address+"/", strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	r.Header.Set("X-Amz-Target", targetPrefix+operation)
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	if change != nil {
		change(r)
	}
	auth.NewSigner(testKey, "us-east-1", "firehose").Sign(r, sha256.Sum256([]byte(body)), time.Now())
	return r
}

func (p *port) send(t *testing.T, r *http.Request) (int, string) {
	t.Helper()
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Error(err)
	}
	if answer.Header.Get("X-Amzn-Requestid") == "" && answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("an answer without a request id: %d %s", answer.StatusCode, body)
	}
	return answer.StatusCode, string(body)
}

// head renders the head of a signed request whose body is announced as n bytes
// (-1: chunked), for a raw connection.
func (p *port) head(operation, body string, n int) string {
	r := p.signed(operation, body, nil)
	var b strings.Builder
	fmt.Fprintf(&b, "POST / HTTP/1.1\r\nHost: %s\r\n", p.address)
	for name, values := range r.Header {
		for _, v := range values {
			fmt.Fprintf(&b, "%s: %s\r\n", name, v)
		}
	}
	if n >= 0 {
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n", n)
	} else {
		b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
	}
	return b.String()
}

func (p *port) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

// answer reads an answer from a raw connection.
func answer(t *testing.T, c net.Conn) (int, string) {
	t.Helper()
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

func wantAnswer(t *testing.T, what string, status int, body string, wantStatus int, code, message string) {
	t.Helper()
	var e struct {
		Type    string `json:"__type"`
		Message string `json:"message"`
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil || status != wantStatus || e.Type != code || !strings.Contains(e.Message, message) {
		t.Errorf("%s\n got %d %.500s\nwant %d %s …%s…", what, status, body, wantStatus, code, message)
	}
}

const goodPut = `{"DeliveryStreamName":"s","Records":[{"Data":"e30="}]}`

func TestHostileBodies(t *testing.T) {
	p := openPort(t, 0)
	nested := func(open string, n int) string { return strings.Repeat(open, n) }
	for _, c := range []struct {
		name, operation, body string
		status                int
		code, message         string
	}{
		{"empty", "PutRecordBatch", "", 400, "SerializationException", "expected an object at byte 0"},
		{"empty create", "CreateDeliveryStream", "", 400, "SerializationException", "not valid JSON"},
		{"truncated JSON", "PutRecordBatch", goodPut[:len(goodPut)-2], 400, "SerializationException", "expected"},
		{"truncated in a string", "PutRecordBatch", goodPut[:10], 400, "SerializationException", "the end of a string"},
		{"truncated in base64", "PutRecordBatch", `{"DeliveryStreamName":"s","Records":[{"Data":"e30`, 400, "SerializationException", "the end of a string"},
		{"trailing garbage", "PutRecordBatch", goodPut + "x", 400, "SerializationException", "the end"},
		{"two documents", "CreateDeliveryStream", "{}{}", 400, "SerializationException", "not valid JSON"},
		{"NUL bytes", "PutRecordBatch", goodPut + "\x00", 400, "SerializationException", "the end"},
		{"control character", "PutRecordBatch", "{\"DeliveryStreamName\":\"s\n\"}", 400, "SerializationException", "no control character"},
		{"UTF-16", "PutRecordBatch", "\xff\xfe{\x00}\x00", 400, "SerializationException", "an object"},
		{"byte order mark", "DescribeDeliveryStream", "\ufeff{}", 400, "SerializationException", "not valid JSON"},
		{"invalid UTF-8 in the name", "PutRecordBatch", "{\"DeliveryStreamName\":\"s\xff\",\"Records\":[{\"Data\":\"e30=\"}]}", 400, "ValidationException", "at 'deliveryStreamName'"},
		{"invalid UTF-8 in a document", "TagDeliveryStream", "{\"DeliveryStreamName\":\"s\",\"Tags\":[{\"Key\":\"\xc3\x28\"}]}", 400, "SerializationException", "not valid UTF-8"},
		{"half a surrogate", "DescribeDeliveryStream", `{"DeliveryStreamName":"\ud800"}`, 400, "ValidationException", "at 'deliveryStreamName'"},
		{"deep lists beside the records", "PutRecordBatch", `{"DeliveryStreamName":"s","x":` + nested("[", 2_000_000), 400, "SerializationException", "less nesting"},
		{"deep objects beside the records", "PutRecordBatch", `{"DeliveryStreamName":"s","x":` + nested(`{"a":`, 1_000_000), 400, "SerializationException", "less nesting"},
		{"deep lists as a record", "PutRecordBatch", `{"DeliveryStreamName":"s","Records":` + nested("[", 2_000_000), 400, "SerializationException", "an object"},
		{"deep lists in a document", "CreateDeliveryStream", nested("[", 500_000), 400, "SerializationException", "not valid JSON"},
		{"deep objects in a document", "CreateDeliveryStream", `{"SplunkDestinationConfiguration":` + nested(`{"a":`, 100_000), 400, "SerializationException", "not valid JSON"},
		{"large document", "CreateDeliveryStream", `{"x":"` + strings.Repeat("x", 600<<10) + `"}`, 413, "RequestEntityTooLargeException", "524288 bytes"},
		{"bad base64", "PutRecord", `{"DeliveryStreamName":"s","Record":{"Data":"e30"}}`, 400, "SerializationException", "is not valid base64"},
		{"URL base64", "PutRecord", `{"DeliveryStreamName":"s","Record":{"Data":"_-=="}}`, 400, "SerializationException", "is not valid base64"},
		{"base64 with breaks", "PutRecord", `{"DeliveryStreamName":"s","Record":{"Data":"e3\n0="}}`, 400, "SerializationException", "is not valid base64"},
		{"wrong types", "PutRecordBatch", `{"DeliveryStreamName":["s"],"Records":{}}`, 400, "SerializationException", "a string"},
		{"a number as data", "PutRecord", `{"DeliveryStreamName":"s","Record":{"Data":1}}`, 400, "SerializationException", "a string"},
		{"NaN", "ListDeliveryStreams", `{"Limit":NaN}`, 400, "SerializationException", "not valid JSON"},
		{"a number out of range", "ListDeliveryStreams", `{"Limit":1e400}`, 400, "SerializationException", "can not be converted"},
		{"a number beyond int32", "ListDeliveryStreams", `{"Limit":4294967297}`, 400, "SerializationException", "can not be converted"},
		{"a fraction", "ListDeliveryStreams", `{"Limit":1.5}`, 400, "SerializationException", "can not be converted"},
		{"many records", "PutRecordBatch", `{"DeliveryStreamName":"s","Records":[` + strings.Repeat(`{"Data":""},`, 600_000) + `{"Data":""}]}`, 400, "ValidationException", "Value '[600001 members]' at 'records'"},
		{"many tags", "TagDeliveryStream", `{"DeliveryStreamName":"s","Tags":[` + strings.Repeat(`{},`, 150_000) + `{}]}`, 400, "ValidationException", "150002 validation errors detected"},
		{"many processors", "CreateDeliveryStream", s3Body("x", processors(strings.Repeat(`{},`, 150_000)+`{}`)), 400, "ValidationException", "150001 validation errors detected"},
		{"a script as a name", "DescribeDeliveryStream", `{"DeliveryStreamName":"<script>alert(1)</script>"}`, 400, "ValidationException", "Value '<script>alert(1)</script>' at"},
		{"a long value is cut", "DescribeDeliveryStream", `{"DeliveryStreamName":"` + strings.Repeat("é", 100_000) + `"}`, 400, "ValidationException", "…' at 'deliveryStreamName'"},
	} {
		status, body := p.send(t, p.signed(c.operation, c.body, nil))
		wantAnswer(t, c.name, status, body, c.status, c.code, c.message)
		if len(body) > 20_000 {
			t.Errorf("%s: an answer of %d bytes", c.name, len(body))
		}
	}
	if docs := p.fake.docs("s"); len(docs) != 0 {
		t.Errorf("%d documents were stored", len(docs))
	}
	// Of several members of one name the last counts, and only it is stored.
	status, body := p.send(t, p.signed("PutRecordBatch", `{"Records":[{"Data":"YQ=="},{"Data":"Yg=="}],"DeliveryStreamName":"nobody","Records":[{"Data":"Yw==","Data":"ZA=="}],"DeliveryStreamName":"s"}`, nil))
	if docs := p.fake.docs("s"); status != 200 || len(docs) != 1 || docs[0] != "d" {
		t.Errorf("duplicate members: %d %s, stored %q", status, body, docs)
	}
}

func TestHostileTransport(t *testing.T) {
	p := openPort(t, 0)
	large := strings.Repeat(" ", bodyBytesMax+1)

	status, body := p.send(t, p.signed("PutRecordBatch", large, nil))
	wantAnswer(t, "oversized", status, body, 413, "RequestEntityTooLargeException", "larger than the 8388608 bytes")
	status, body = p.send(t, p.signed("PutRecordBatch", large, func(r *http.Request) { r.ContentLength = -1 }))
	wantAnswer(t, "oversized, length unknown", status, body, 413, "RequestEntityTooLargeException", "")
	status, body = p.send(t, p.signed("PutRecordBatch", large, func(r *http.Request) { r.Header.Set("Expect", "100-continue") }))
	wantAnswer(t, "oversized, asked before", status, body, 413, "RequestEntityTooLargeException", "")

	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for range 64 {
		_, _ = z.Write(make([]byte, 1<<20))
	}
	_ = z.Close()
	for _, encodings := range [][]string{{"gzip"}, {"GZIP"}, {"deflate"}, {"br"}, {"zstd"}, {"aws-chunked"}, {"identity, gzip"}, {"identity", "gzip"}} {
		status, body = p.send(t, p.signed("PutRecordBatch", bomb.String(), func(r *http.Request) { r.Header["Content-Encoding"] = encodings }))
		wantAnswer(t, fmt.Sprint(encodings), status, body, 415, "UnsupportedMediaTypeException", "send the body uncompressed")
	}
	status, body = p.send(t, p.signed("PutRecordBatch", bomb.String(), nil))
	wantAnswer(t, "a bomb that does not say so", status, body, 400, "SerializationException", "an object")
	if status, body = p.send(t, p.signed("PutRecordBatch", goodPut, func(r *http.Request) { r.Header.Set("Content-Encoding", "identity") })); status != 200 {
		t.Errorf("identity: %d %s", status, body)
	}

	if status, _ = p.send(t, p.signed("PutRecordBatch", goodPut, func(r *http.Request) { r.Header.Set("X-Filler", strings.Repeat("x", 256<<10)) })); status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("huge header: %d", status)
	}
	if status, _ = p.send(t, p.signed("PutRecordBatch", goodPut, func(r *http.Request) {
		for i := range 4000 {
			r.Header.Set("X-Filler-"+strconv.Itoa(i), "some value that adds up")
		}
	})); status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("many headers: %d", status)
	}
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		status, body = p.send(t, p.signed("PutRecordBatch", goodPut, func(r *http.Request) { r.Method = method }))
		wantAnswer(t, method, status, body, 400, "UnknownOperationException", "PutRecordBatch")
	}
	for _, target := range []string{"", "Firehose_20150804.", "Firehose_20150804.putRecord", "Firehose_20150804.PutRecord\u00a0", "DynamoDB_20120810.PutItem", strings.Repeat("x", 10_000)} {
		status, body = p.send(t, p.signed("PutRecordBatch", goodPut, func(r *http.Request) { r.Header.Set("X-Amz-Target", target) }))
		wantAnswer(t, "target "+target, status, body, 400, "UnknownOperationException", "is not one of firehose's")
	}
	// Two lengths, or a length and chunks, are how requests are smuggled.
	for _, extra := range []string{"Content-Length: 3\r\nContent-Length: 50\r\n", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: identity\r\n", "Content-Length: -1\r\n"} {
		c := p.dial(t)
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\n%s\r\n{}", p.address, extra)
		if status, _ := answer(t, c); status < 400 || status >= 500 && status != http.StatusNotImplemented {
			t.Errorf("%q: %d", extra, status)
		}
	}
	if docs := p.fake.docs("s"); len(docs) != 1 {
		t.Errorf("%d documents were stored", len(docs))
	}
}

// What is announced and does not come, or comes too slowly, is refused in time,
// and what was reserved for it is given back.
func TestHostileClients(t *testing.T) {
	p := openPort(t, testBodyTimeout)
	started := time.Now()
	var wg sync.WaitGroup

	wg.Go(func() { // ends early
		c := p.dial(t)
		_, _ = io.WriteString(c, p.head("PutRecordBatch", goodPut, len(goodPut))+goodPut[:20])
		_ = c.CloseWrite()
		status, body := answer(t, c)
		wantAnswer(t, "truncated body", status, body, 400, "RequestTimeout", "did not arrive as announced")
	})
	wg.Go(func() { // a chunk that is cut off
		c := p.dial(t)
		_, _ = io.WriteString(c, p.head("PutRecordBatch", goodPut, -1)+"ff\r\n"+goodPut[:20])
		_ = c.CloseWrite()
		status, body := answer(t, c)
		wantAnswer(t, "truncated chunk", status, body, 400, "RequestTimeout", "did not arrive as announced")
	})
	wg.Go(func() { // a chunk size that is none
		c := p.dial(t)
		_, _ = io.WriteString(c, p.head("PutRecordBatch", goodPut, -1)+"zz\r\n"+goodPut)
		status, body := answer(t, c)
		wantAnswer(t, "malformed chunk", status, body, 400, "RequestTimeout", "did not arrive as announced")
	})
	for range 4 {
		wg.Go(func() { // drips its body
			c := p.dial(t)
			_, _ = io.WriteString(c, p.head("PutRecordBatch", goodPut, 1<<20))
			stop := make(chan struct{})
			defer close(stop)
			go func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(20 * time.Millisecond):
						if _, err := c.Write([]byte{' '}); err != nil {
							return
						}
					}
				}
			}()
			status, body := answer(t, c)
			wantAnswer(t, "slow body", status, body, 400, "RequestTimeout", "did not arrive as announced")
		})
		wg.Go(func() { // drips its head
			c := p.dial(t)
			for _, b := range []byte(p.head("PutRecordBatch", goodPut, len(goodPut)) + goodPut) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
			t.Error("a slow head was read to its end")
		})
	}
	// One asks for large answers and does not read them.
	p.fake.failing = func(doc []byte) bool { return string(doc) == "x" }
	deaf := p.dial(t)
	wg.Go(func() {
		_ = deaf.SetReadBuffer(4 << 10)
		_ = deaf.SetWriteDeadline(time.Now().Add(3 * time.Second))
		body := `{"DeliveryStreamName":"s","Records":[{"Data":"eA=="}` + strings.Repeat(`,{"Data":"eA=="}`, 499) + "]}"
		request := p.head("PutRecordBatch", body, len(body)) + body
		for sent := 0; ; sent++ {
			if _, err := io.WriteString(deaf, request); err != nil {
				if sent < 10 {
					t.Errorf("cut off after %d requests: %v", sent, err)
				}
				return
			}
		}
	})
	for range 50 {
		wg.Go(func() { // goes away
			c := p.dial(t)
			_, _ = io.WriteString(c, p.head("PutRecordBatch", goodPut, 1<<10)+goodPut)
			_ = c.SetLinger(0)
			c.Close()
		})
	}
	wg.Wait()
	if took := time.Since(started); took > 15*time.Second {
		t.Errorf("it took %s", took)
	}
	// The one that does not read is still there, and holds nothing.
	deadline := time.Now().Add(10 * time.Second)
	for p.inFlight(t) != 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%v bytes are held by a client that does not read", p.inFlight(t))
		}
		time.Sleep(time.Millisecond)
	}
	if docs := p.fake.docs("s"); len(docs) != 0 {
		t.Errorf("%d documents were stored", len(docs))
	}

	// Announced bodies are bounded together: beyond the bound a request is told
	// to slow down at once, and is taken when there is room again.
	full := strings.Repeat(" ", 1<<20)
	for attempt := 0; ; attempt++ { // the bodies that fill it time out meanwhile
		var held []*net.TCPConn
		for range testInFlight / bodyBytesMax {
			c := p.dial(t)
			_, _ = io.WriteString(c, p.head("PutRecordBatch", goodPut, bodyBytesMax))
			held = append(held, c)
		}
		for wait := 0; p.inFlight(t) < testInFlight && wait < 200; wait++ {
			time.Sleep(time.Millisecond)
		}
		status, body := p.send(t, p.signed("PutRecordBatch", full, nil))
		for _, c := range held {
			c.Close()
		}
		if status == 500 || attempt == 20 {
			wantAnswer(t, "beyond the bound", status, body, 500, "ServiceUnavailableException", "Slow down.")
			return
		}
	}
}

func TestHostileSignatures(t *testing.T) {
	p := openPort(t, 0)
	mismatch := func(name string, r *http.Request) {
		t.Helper()
		status, body := p.send(t, r)
		wantAnswer(t, name, status, body, 400, "InvalidSignatureException", "The request signature we calculated does not match")
	}
	replaceBody := func(r *http.Request, body string) *http.Request {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		return r
	}
	header := func(r *http.Request, name, value string) *http.Request { r.Header.Set(name, value); return r }

	mismatch("another body", replaceBody(p.signed("PutRecordBatch", goodPut, nil), strings.Replace(goodPut, "e30=", "e31=", 1)))
	mismatch("no body", replaceBody(p.signed("PutRecordBatch", goodPut, nil), ""))
	mismatch("another operation", header(p.signed("PutRecordBatch", goodPut, nil), "X-Amz-Target", targetPrefix+"DeleteDeliveryStream"))
	r := p.signed("PutRecordBatch", goodPut, nil)
	r.Host = "elsewhere"
	mismatch("another host", r)
	r = p.signed("PutRecordBatch", goodPut, nil)
	r.URL.Path = "/x"
	mismatch("another path", r)
	r = p.signed("PutRecordBatch", goodPut, nil)
	r.URL.RawQuery = "a=b"
	mismatch("another query", r)
	r = p.signed("PutRecordBatch", goodPut, nil)
	mismatch("one bit", header(r, "Authorization", r.Header.Get("Authorization")[:len(r.Header.Get("Authorization"))-1]+"x"))
	mismatch("unsigned payload", header(p.signed("PutRecordBatch", goodPut, nil), "X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"))
	r = p.signed("PutRecordBatch", goodPut, nil)
	auth.NewSigner(auth.AccessKey{ID: testKey.ID, Secret: "another secret"}, "us-east-1", "firehose").Sign(r, sha256.Sum256([]byte(goodPut)), time.Now())
	mismatch("another secret", r)

	for _, c := range []struct {
		name          string
		change        func(*http.Request)
		code, message string
	}{
		{"no authorization", func(r *http.Request) { r.Header.Del("Authorization") }, "MissingAuthenticationTokenException", ""},
		{"basic", func(r *http.Request) { r.SetBasicAuth("a", "b") }, "IncompleteSignatureException", ""},
		{"garbage", func(r *http.Request) { r.Header.Set("Authorization", "AWS4-HMAC-SHA256 "+strings.Repeat("=,", 10_000)) }, "IncompleteSignatureException", ""},
		{"unknown key", func(r *http.Request) {
			auth.NewSigner(auth.AccessKey{ID: "AKIAUNKNOWN", Secret: "x"}, "us-east-1", "firehose").Sign(r, sha256.Sum256([]byte(goodPut)), time.Now())
		}, "UnrecognizedClientException", "The security token included in the request is invalid."},
		{"another service", func(r *http.Request) {
			auth.NewSigner(testKey, "us-east-1", "s3").Sign(r, sha256.Sum256([]byte(goodPut)), time.Now())
		}, "UnknownServiceException", "this endpoint serves: firehose"},
		{"of an hour ago", func(r *http.Request) {
			auth.NewSigner(testKey, "us-east-1", "firehose").Sign(r, sha256.Sum256([]byte(goodPut)), time.Now().Add(-time.Hour))
		}, "InvalidSignatureException", "Signature expired: "},
		{"of tomorrow", func(r *http.Request) {
			auth.NewSigner(testKey, "us-east-1", "firehose").Sign(r, sha256.Sum256([]byte(goodPut)), time.Now().Add(24*time.Hour))
		}, "InvalidSignatureException", "Signature not yet current: "},
		{"date of another day", func(r *http.Request) {
			r.Header.Set("X-Amz-Date", time.Now().AddDate(0, 0, 2).UTC().Format("20060102T150405Z"))
		}, "InvalidSignatureException", ""},
	} {
		r := p.signed("PutRecordBatch", goodPut, nil)
		c.change(r)
		status, body := p.send(t, r)
		wantAnswer(t, c.name, status, body, 400, c.code, c.message)
	}
	if docs := p.fake.docs("s"); len(docs) != 0 {
		t.Fatalf("%d documents were stored", len(docs))
	}

	// A request that was seen on the wire can be sent again as it is for five
	// minutes, as with AWS: only what numbers its records is safe from that. It
	// is good for nothing else and for no longer.
	seen := p.signed("PutRecordBatch", goodPut, nil)
	replay := func() *http.Request { return replaceBody(seen.Clone(t.Context()), goodPut) }
	for range 2 {
		if status, body := p.send(t, replay()); status != 200 {
			t.Fatal(status, body)
		}
	}
	mismatch("replayed with another body", replaceBody(seen.Clone(t.Context()), strings.Replace(goodPut, "e30=", "e31=", 1)))
	mismatch("replayed to another operation", header(replay(), "X-Amz-Target", targetPrefix+"PutRecord"))
	mismatch("replayed with a later date", header(replay(), "X-Amz-Date", time.Now().Add(time.Second).UTC().Format("20060102T150405Z")))
	p.clock.Store(int64(6 * time.Minute))
	status, body := p.send(t, replay())
	wantAnswer(t, "replayed later", status, body, 400, "InvalidSignatureException", "Signature expired: ")
	if docs := p.fake.docs("s"); len(docs) != 2 {
		t.Fatalf("%d documents were stored", len(docs))
	}
}

// FuzzDocuments puts any body to the operations that are not puts: whatever it
// is, the answer is an answer, and an error is one for the client.
func FuzzDocuments(f *testing.F) {
	operations := []string{"CreateDeliveryStream", "UpdateDestination", "DescribeDeliveryStream", "ListDeliveryStreams", "DeleteDeliveryStream", "TagDeliveryStream",
		"UntagDeliveryStream", "ListTagsForDeliveryStream", "StartDeliveryStreamEncryption", "StopDeliveryStreamEncryption"}
	f.Add(0, createBody("s"))
	f.Add(0, s3Body("s", partitioned+","+queryPrefix+","+processors(jq)+","+conversion))
	f.Add(1, updateBody("1", destinationID, `"ExtendedS3DestinationUpdate":{`+conversion+`,"S3BackupUpdate":{"Prefix":"!{timestamp:yyyy}"}}`))
	f.Add(1, updateBody("1", destinationID, `"IcebergDestinationUpdate":{"S3Configuration":null,"DestinationTableConfigurationList":[null]}`))
	f.Add(5, `{"DeliveryStreamName":"s","Tags":[{"Key":"k","Value":"v"}]}`)
	f.Add(6, `{"DeliveryStreamName":"s","TagKeys":["k"]}`)
	f.Add(8, `{"DeliveryStreamName":"s","DeliveryStreamEncryptionConfigurationInput":{"KeyType":"CUSTOMER_MANAGED_CMK","KeyARN":"`+kmsKey+`"}}`)
	h, _ := newHandler(f, newFake())
	var configs []StreamConfig
	for _, create := range []string{createBody("s"), s3Body("s", conversion)} {
		fake := newFake()
		h.streams = fake
		if _, err := call(f, h, "CreateDeliveryStream", create); err != nil {
			f.Fatal(err)
		}
		configs = append(configs, fake.streams["s"].info.Config)
	}
	f.Fuzz(func(t *testing.T, n int, body string) {
		operation := operations[uint(n)%uint(len(operations))]
		for _, c := range configs {
			fake := newFake()
			h.streams = fake
			if _, err := fake.Create(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			out, err := call(t, h, operation, body)
			var e *awsapi.Error
			if err != nil && (!errors.As(err, &e) || e.Message == "" || e.Status < 400) {
				t.Fatalf("%s: %v", operation, err)
			}
			if out != "" && !json.Valid([]byte(out)) {
				t.Fatalf("%s: %s", operation, out)
			}
			// Whatever was accepted can be shown.
			for name := range fake.streams {
				if out, err := call(t, h, "DescribeDeliveryStream", `{"DeliveryStreamName":"`+string(name)+`"}`); err != nil || !json.Valid([]byte(out)) {
					t.Fatalf("after %s: %s %v", operation, out, err)
				}
			}
		}
	})
}
