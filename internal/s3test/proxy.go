package s3test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Fault is what happens to one request.
type Fault int

// The faults. In the first group the server never sees the whole request; in
// the second it carries the request out, and the client does not learn so.
const (
	None         Fault = iota
	InternalErr        // 500 at once
	SlowDown           // 503 at once
	ResetUpload        // the connection is reset in the middle of the request's body
	TornUpload         // the same, but the server gets the half
	FlipUpload         // a bit of the request's body is wrong
	Stall              // no answer until the client gives up; the server sees nothing
	ResetAnswer        // the connection is reset in the middle of the answer's body
	FlipAnswer         // a bit of the answer's body is wrong
	LostAnswer         // carried out, then the connection is reset
	LostAnswer5x       // carried out, then 500
	LateAnswer         // carried out at once, answered after the client has given up
	LateRequest        // carried out only after the client has given up
	faults
)

var faultNames = [...]string{"none", "500", "503", "reset-upload", "torn-upload", "flip-upload", "stall", "reset-answer", "flip-answer", "lost-answer", "lost-answer-500", "late-answer", "late-request"}

func (f Fault) String() string { return faultNames[f] }

// Request is what a plan decides by.
type Request struct {
	Method string
	Path   string
	Query  url.Values
	Header http.Header
}

// Is reports whether the request is the named operation of S3, of those that a
// lake uses.
func (r Request) Is(operation string) bool {
	q := r.Query
	switch operation {
	case "PutObject":
		return r.Method == http.MethodPut && !q.Has("partNumber")
	case "UploadPart":
		return r.Method == http.MethodPut && q.Has("partNumber")
	case "CreateMultipartUpload":
		return r.Method == http.MethodPost && q.Has("uploads")
	case "CompleteMultipartUpload":
		return r.Method == http.MethodPost && q.Has("uploadId")
	case "AbortMultipartUpload":
		return r.Method == http.MethodDelete && q.Has("uploadId")
	case "DeleteObjects":
		return r.Method == http.MethodPost && q.Has("delete")
	case "HeadObject":
		return r.Method == http.MethodHead
	case "GetObject":
		return r.Method == http.MethodGet && !q.Has("list-type") && !q.Has("uploads")
	case "ListObjectsV2":
		return r.Method == http.MethodGet && q.Has("list-type")
	case "ListMultipartUploads":
		return r.Method == http.MethodGet && q.Has("uploads")
	}
	panic("s3test: unknown operation " + operation)
}

// Proxy forwards to a server and injects faults. The plan may be replaced at
// any time; without one everything passes.
type Proxy struct {
	Endpoint string
	// GiveUp must exceed the client's time-out for one attempt.
	GiveUp time.Duration

	target string // host:port
	client *http.Client
	plan   atomic.Pointer[func(Request) Fault]

	mu     sync.Mutex
	counts [faults]int
	busy   int        // requests in progress, those included whose client has gone
	quiet  *sync.Cond // busy is 0
}

// StartProxy runs a proxy before endpoint until the test ends.
func StartProxy(t testing.TB, endpoint string, giveUp time.Duration) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Endpoint: "http://" + l.Addr().String(), GiveUp: giveUp, target: strings.TrimPrefix(endpoint, "http://"),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32, DisableCompression: true}}}
	p.quiet = sync.NewCond(&p.mu)
	srv := &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		_ = srv.Serve(l)
		close(served)
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
		p.Settle()
		p.client.CloseIdleConnections()
	})
	return p
}

// Plan sets what decides the fault of each request; nil lets all pass.
func (p *Proxy) Plan(plan func(Request) Fault) {
	if plan == nil {
		p.plan.Store(nil)
		return
	}
	p.plan.Store(&plan)
}

// Random is a plan that injects one of the faults in a share of the requests.
// Several goroutines may be asked in any order, so that a seed gives the same
// faults, not the same history.
func Random(seed uint64, share float64, among ...Fault) func(Request) Fault {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 0x7461706568757365))
	return func(Request) Fault {
		mu.Lock()
		defer mu.Unlock()
		if r.Float64() >= share {
			return None
		}
		return among[r.IntN(len(among))]
	}
}

// All are all faults.
func All() []Fault {
	var out []Fault
	for f := InternalErr; f < faults; f++ {
		out = append(out, f)
	}
	return out
}

// Quick are the faults that a client notices without a time-out.
func Quick() []Fault {
	return []Fault{InternalErr, SlowDown, ResetUpload, TornUpload, FlipUpload, ResetAnswer, FlipAnswer, LostAnswer, LostAnswer5x}
}

// Count is how often a fault was injected.
func (p *Proxy) Count(f Fault) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts[f]
}

// Injected is how often any was.
func (p *Proxy) Injected() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, c := range p.counts[1:] {
		n += c
	}
	return n
}

// Settle waits for requests that are carried out late.
func (p *Proxy) Settle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.busy > 0 {
		p.quiet.Wait()
	}
}

// began and ended count a request in progress.
func (p *Proxy) began(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[f]++
	p.busy++
}

func (p *Proxy) ended() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy--; p.busy == 0 {
		p.quiet.Broadcast()
	}
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fault, request := None, Request{r.Method, r.URL.Path, r.URL.Query(), r.Header}
	if plan := p.plan.Load(); plan != nil {
		fault = (*plan)(request)
	}
	if fault == FlipAnswer && !request.Is("GetObject") {
		fault = LostAnswer // only an object's content carries a checksum; what else comes over TLS has its own
	}
	p.began(fault)
	defer p.ended()
	switch fault {
	case InternalErr:
		refuse(w, http.StatusInternalServerError, "InternalError")
		return
	case SlowDown:
		refuse(w, http.StatusServiceUnavailable, "SlowDown")
		return
	case ResetUpload:
		_, _ = io.CopyN(io.Discard, r.Body, r.ContentLength/2)
		reset(w)
		return
	case TornUpload:
		p.tear(r)
		reset(w)
		return
	case Stall:
		_, _ = io.Copy(io.Discard, r.Body) // else the server does not notice that the client has gone
		p.wait(r)
		reset(w)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		reset(w)
		return
	}
	if fault == FlipUpload && len(body) > 0 {
		body[len(body)/2] ^= 0x10
	}
	if fault == LateRequest {
		began := time.Now()
		p.wait(r)
		reset(w)
		time.Sleep(time.Until(began.Add(p.GiveUp)))
		if answer, err := p.forward(context.Background(), r, body); err == nil {
			_, _ = io.Copy(io.Discard, answer.Body)
			_ = answer.Body.Close()
		}
		return
	}
	answer, err := p.forward(context.WithoutCancel(r.Context()), r, body)
	if err != nil {
		reset(w)
		return
	}
	defer answer.Body.Close() //nolint:errcheck // nothing to be done
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		reset(w)
		return
	}
	switch fault {
	case LostAnswer:
		reset(w)
		return
	case LostAnswer5x:
		refuse(w, http.StatusInternalServerError, "InternalError")
		return
	case LateAnswer:
		p.wait(r)
		reset(w)
		return
	case FlipAnswer:
		if len(content) > 0 {
			content[len(content)/2] ^= 0x10
		}
	}
	for k, v := range answer.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(answer.StatusCode)
	if fault == ResetAnswer {
		_, _ = w.Write(content[:len(content)/2])
		_ = http.NewResponseController(w).Flush()
		reset(w)
		return
	}
	_, _ = w.Write(content)
}

// wait returns when the client is gone, or should be.
func (p *Proxy) wait(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-time.After(p.GiveUp):
	}
}

func (p *Proxy) forward(ctx context.Context, r *http.Request, body []byte) (*http.Response, error) {
	u := *r.URL
	u.Scheme, u.Host = "http", p.target
	out, err := http.NewRequestWithContext(ctx, r.Method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	out.Header, out.Host, out.ContentLength = r.Header.Clone(), r.Host, int64(len(body)) // Host is signed
	if len(body) == 0 {
		out.Body = http.NoBody
	}
	return p.client.Do(out)
}

// tear sends the head and half of the body to the server and hangs up.
func (p *Proxy) tear(r *http.Request) {
	c, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer c.Close() //nolint:errcheck // nothing to be done
	half, _ := io.ReadAll(io.LimitReader(r.Body, r.ContentLength/2))
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", r.Method, r.URL.RequestURI(), r.Host, r.ContentLength)
	_ = r.Header.Write(c)
	_, _ = io.WriteString(c, "\r\n")
	_, _ = c.Write(half)
	time.Sleep(5 * time.Millisecond)
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>injected</Message></Error>`, code)
}

// reset ends the client's connection with RST, so that it is an error and not
// an end.
func reset(w http.ResponseWriter) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
