package awsapi

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/auth"
)

var testKey = auth.AccessKey{Name: "test", ID: "AKIATESTTESTTESTTEST", Secret: "a secret of the test, long enough", Policy: auth.Administrator}

// echoService answers with its body; its other operations fail in their ways.
func echoService(gate chan struct{}) Service {
	return Service{SigningName: "echo", TargetPrefix: "Echo_1.", BodyBytesMax: 1 << 20, Operations: map[string]Operation{
		"Echo": func(_ context.Context, c *Call) error {
			if cap(c.Body)-len(c.Body) < SlackBytes {
				return fmt.Errorf("only %d bytes of slack", cap(c.Body)-len(c.Body))
			}
			c.Out = append(c.Out, c.Body...)
			return nil
		},
		"Who": func(_ context.Context, c *Call) error {
			c.Out = append(c.Out, c.Principal+" "+c.Region+" "+c.Operation...)
			return nil
		},
		"Empty":  func(context.Context, *Call) error { return nil },
		"Wait":   func(context.Context, *Call) error { <-gate; return nil },
		"Refuse": func(context.Context, *Call) error { return fmt.Errorf("op: %w", BadRequest("No", `because "no"`)) },
		"Panic":  func(context.Context, *Call) error { panic("at the disco") },
		"Break":  func(context.Context, *Call) error { return errors.New("the secret inside") },
	}}
}

type world struct {
	url  string
	mux  *Mux
	logs *bytes.Buffer
	gate chan struct{}
}

func newWorld(t *testing.T, inFlight int64) *world {
	t.Helper()
	w := &world{logs: &bytes.Buffer{}, gate: make(chan struct{})}
	var err error
	w.mux, err = NewMux(Options{Verifier: auth.NewVerifier(&auth.Credentials{Keys: []auth.AccessKey{testKey}}, nil),
		Logger: slog.New(slog.NewTextHandler(w.logs, nil)), Registerer: prometheus.NewRegistry(), InFlightBytesMax: inFlight})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.mux.Register(echoService(w.gate)); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(w.mux)
	server.Config.ConnContext = ConnContext
	server.Start()
	t.Cleanup(server.Close)
	w.url = server.URL
	return w
}

func (w *world) request(t *testing.T, service, target, body string, change func(*http.Request)) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, w.url+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if target != "" {
		r.Header.Set("X-Amz-Target", target)
	}
	auth.NewSigner(testKey, "eu-west-1", service).Sign(r, sha256.Sum256([]byte(body)), time.Now())
	if change != nil {
		change(r)
	}
	return r
}

func do(t *testing.T, r *http.Request) (int, string, http.Header) {
	t.Helper()
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body), answer.Header
}

func TestMux(t *testing.T) {
	w := newWorld(t, 0)
	long := strings.Repeat("x", 1<<20)
	chunked := func(r *http.Request) { r.ContentLength = -1 }
	for _, c := range []struct {
		name, service, target, body string
		change                      func(*http.Request)
		status                      int
		want                        string
	}{
		{"echo", "echo", "Echo_1.Echo", `{"a":1}`, nil, 200, `{"a":1}`},
		{"largest", "echo", "Echo_1.Echo", long, nil, 200, long},
		{"largest, chunked", "echo", "Echo_1.Echo", long, chunked, 200, long},
		{"small, chunked", "echo", "Echo_1.Echo", "x", chunked, 200, "x"},
		{"no body", "echo", "Echo_1.Echo", "", nil, 200, "{}"},
		{"who", "echo", "Echo_1.Who", "", nil, 200, "test eu-west-1 Who"},
		{"empty", "echo", "Echo_1.Empty", "", nil, 200, "{}"},
		{"refused", "echo", "Echo_1.Refuse", "", nil, 400, `{"__type":"No","message":"because \"no\""}`},
		{"broken", "echo", "Echo_1.Break", "", nil, 500, `{"__type":"InternalFailure","message":"The request processing has failed because of an unknown error, exception or failure."}`},
		{"too large", "echo", "Echo_1.Echo", long + "x", nil, 413, `{"__type":"RequestEntityTooLargeException","message":"The request body is larger than the 1048576 bytes that this operation takes."}`},
		{"too large, chunked", "echo", "Echo_1.Echo", long + "x", chunked, 413, `{"__type":"RequestEntityTooLargeException","message":"The request body is larger than the 1048576 bytes that this operation takes."}`},
		{"operation", "echo", "Echo_1.Nothing", "", nil, 400, `{"__type":"UnknownOperationException","message":"The operation \"Echo_1.Nothing\" is not one of echo's."}`},
		{"prefix", "echo", "Other_1.Echo", "", nil, 400, `{"__type":"UnknownOperationException","message":"The operation \"Other_1.Echo\" is not one of echo's."}`},
		{"service", "other", "Other_1.Echo", "", nil, 400, `{"__type":"UnknownServiceException","message":"The request is signed for the service \"other\"; this endpoint serves: echo."}`},
		{"unsigned", "echo", "Echo_1.Echo", "", func(r *http.Request) { r.Header.Del("Authorization") }, 400, `{"__type":"MissingAuthenticationTokenException","message":"Missing Authentication Token"}`},
		{"another body", "echo", "Echo_1.Echo", "ab", func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("cd")) }, 400, `{"__type":"InvalidSignatureException","message":"The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."}`},
		{"gzip", "echo", "Echo_1.Echo", "", func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, 415, `{"__type":"UnsupportedMediaTypeException","message":"Content-Encoding is not supported: send the body uncompressed."}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body, header := do(t, w.request(t, c.service, c.target, c.body, c.change))
			if status != c.status || body != c.want {
				t.Fatalf("%d %.300s\nwant %d %.300s", status, body, c.status, c.want)
			}
			if header.Get("X-Amzn-Requestid") == "" || header.Get("Content-Type") != "application/x-amz-json-1.1" {
				t.Fatal(header)
			}
		})
	}
	if log := w.logs.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "the secret inside") || !strings.Contains(log, "request_id=") {
		t.Fatalf("the internal error must be logged once, with the request's id:\n%s", log)
	}
	if n := w.mux.inFlight.Load(); n != 0 {
		t.Fatalf("%d bytes are still reserved", n)
	}
}

func TestXMLClientsGetXML(t *testing.T) {
	w := newWorld(t, 0)
	status, body, header := do(t, w.request(t, "sts", "", "Action=GetCallerIdentity&Version=2011-06-15", nil))
	var e struct {
		Error     struct{ Type, Code, Message string }
		RequestID string `xml:"RequestId"`
	}
	if err := xml.Unmarshal([]byte(body), &e); err != nil || status != 400 || header.Get("Content-Type") != "text/xml" ||
		e.Error.Code != CodeUnknownService || !strings.Contains(e.Error.Message, `"sts"`) || e.Error.Type != "Sender" || e.RequestID == "" {
		t.Fatalf("%d %s: %v", status, body, err)
	}
}

func TestInFlightBound(t *testing.T) {
	w := newWorld(t, 1<<20)
	var wait sync.WaitGroup
	wait.Add(1)
	go func() {
		defer wait.Done()
		if status, body, _ := do(t, w.request(t, "echo", "Echo_1.Wait", strings.Repeat("x", 1<<20-10), nil)); status != 200 {
			t.Errorf("%d %s", status, body)
		}
	}()
	for w.mux.inFlight.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	status, body, _ := do(t, w.request(t, "echo", "Echo_1.Echo", strings.Repeat("x", 11), nil))
	if status != 500 || body != `{"__type":"ServiceUnavailableException","message":"Slow down."}` {
		t.Errorf("%d %s", status, body)
	}
	if status, _, _ := do(t, w.request(t, "echo", "Echo_1.Echo", "x", nil)); status != 200 {
		t.Errorf("a small request that fits was refused: %d", status)
	}
	close(w.gate)
	wait.Wait()
	if status, _, _ := do(t, w.request(t, "echo", "Echo_1.Echo", strings.Repeat("x", 11), nil)); status != 200 {
		t.Errorf("refused after the other was answered: %d", status)
	}
}

// A body that never comes must not hold its reservation when its client goes.
func TestTruncatedBody(t *testing.T) {
	w := newWorld(t, 0)
	r := w.request(t, "echo", "Echo_1.Echo", "0123456789", nil)
	c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\nX-Amz-Target: Echo_1.Echo\r\nX-Amz-Date: %s\r\nAuthorization: %s\r\nContent-Length: 10\r\n\r\n0123",
		strings.TrimPrefix(w.url, "http://"), r.Header.Get("X-Amz-Date"), r.Header.Get("Authorization")); err != nil {
		t.Fatal(err)
	}
	for w.mux.inFlight.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); w.mux.inFlight.Load() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the reservation is kept")
		}
	}
}

// Bodies in pieces of any size, large and small by turns on one connection: the
// mark below which the kernel wakes nobody is never above what is still to come.
func TestBodiesInPieces(t *testing.T) {
	w := newWorld(t, 0)
	host := strings.TrimPrefix(w.url, "http://")
	c, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(c)
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{300_000, 1, 0, 16 << 10, 20_000, 700_000, 5, 4096, 100_000} {
		body := strings.Repeat("0123456789abcdef", size/16+1)[:size]
		r := w.request(t, "echo", "Echo_1.Echo", body, nil)
		message := fmt.Sprintf("POST / HTTP/1.1\r\nHost: %s\r\nX-Amz-Target: Echo_1.Echo\r\nX-Amz-Date: %s\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n%s",
			host, r.Header.Get("X-Amz-Date"), r.Header.Get("Authorization"), size, body)
		for len(message) > 0 {
			n := min(1+random.IntN(60_000), len(message))
			if _, err := io.WriteString(c, message[:n]); err != nil {
				t.Fatal(err)
			}
			message = message[n:]
			if random.IntN(3) == 0 {
				time.Sleep(2 * time.Millisecond)
			}
		}
		answer, err := http.ReadResponse(answers, r)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		got, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK || size > 0 && string(got) != body {
			t.Fatalf("%d bytes: status %d, %d bytes back, %v", size, answer.StatusCode, len(got), err)
		}
	}
}

func TestPanicGivesBack(t *testing.T) {
	w := newWorld(t, 0)
	if answer, err := http.DefaultClient.Do(w.request(t, "echo", "Echo_1.Panic", "xxx", nil)); err == nil {
		_ = answer.Body.Close()
		t.Fatal("a panic was answered")
	}
	if n := w.mux.inFlight.Load(); n != 0 {
		t.Fatalf("%d bytes are still reserved", n)
	}
}

func TestRegisterRefusals(t *testing.T) {
	w := newWorld(t, 1<<20)
	if err := w.mux.Register(echoService(nil)); err == nil {
		t.Error("the same service twice")
	}
	if err := w.mux.Register(Service{SigningName: "big", BodyBytesMax: 2 << 20}); err == nil {
		t.Error("a body that never fits")
	}
}

func TestBuffers(t *testing.T) {
	p := NewBuffers(1 << 20)
	for _, n := range []int{0, 1, 1 << 16, 1<<16 + 1, 200_000, 1 << 24, 1<<24 + 1} {
		b := p.Get(n)
		if len(b) != 0 || cap(b) < n+SlackBytes {
			t.Fatalf("Get(%d): length %d, capacity %d", n, len(b), cap(b))
		}
		p.Put(append(b, make([]byte, n)...))
		p.Put(make([]byte, 0, n)) // not one of ours: ignored
	}
	a := p.Get(200_000)
	p.Put(a)
	if b := p.Get(150_000); &a[:1][0] != &b[:1][0] {
		t.Error("the buffer was not used again")
	}
	for range 1000 {
		p.Put(make([]byte, 0, 1<<16+SlackBytes))
	}
	if n := len(p.classes[0]); n != 16 {
		t.Errorf("%d buffers of 64 KiB kept of at most 1 MiB", n)
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add("plain")
	f.Add("\x00\x1f\x7f\"\\\n\u2028\xff\ud7ff")
	f.Fuzz(func(t *testing.T, s string) {
		var back string
		if err := json.Unmarshal(AppendString(nil, s), &back); err != nil || back != strings.ToValidUTF8(s, "\uFFFD") && !strings.Contains(back, "\uFFFD") {
			t.Fatalf("%q: %q, %v", s, back, err)
		}
	})
}
