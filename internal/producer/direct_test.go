package producer

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// serve answers requests by handler and counts connections.
func serve(t *testing.T, handler http.HandlerFunc) (Config, *atomic.Int64) {
	t.Helper()
	opened := &atomic.Int64{}
	server := httptest.NewUnstartedServer(handler)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	return Config{Endpoint: server.URL, AccessKey: testKey.ID, Secret: testKey.Secret, RetryFor: 5 * time.Second, Timeout: 5 * time.Second}, opened
}

// TestConnectionsAreUsedAgain: answers with a length and in chunks leave the
// connection to the next request; one that ends with the connection does not.
func TestConnectionsAreUsedAgain(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	config, opened := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("X-Amz-Target") {
		case targetPrefix + "Chunked":
			_, _ = w.Write([]byte(`{"A":"`))
			w.(http.Flusher).Flush()
			_, _ = w.Write([]byte(long + `"}`))
		case targetPrefix + "Last":
			w.Header().Set("Connection", "close")
			_, _ = w.Write([]byte(`{"A":"last"}`))
		default:
			_, _ = w.Write([]byte(`{"A":"b"}`))
		}
	})
	c := newClient(t, config)
	if _, ok := c.http.Transport.(ordered); !ok {
		t.Fatalf("the transport is %T", c.http.Transport)
	}
	call := func(operation, want string) {
		t.Helper()
		var out struct{ A string }
		if err := c.Call(t.Context(), operation, struct{}{}, &out); err != nil || out.A != want {
			t.Fatalf("%s: %.20q, %v", operation, out.A, err)
		}
	}
	for range 5 {
		call("Plain", "b")
		call("Chunked", long)
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections for ten calls one after the other", n)
	}
	call("Last", "last")
	call("Plain", "b")
	if n := opened.Load(); n != 2 {
		t.Errorf("%d connections, want a second one after the answer that closed the first", n)
	}
}

// TestClosedIdleConnection: what the server closed meanwhile costs a try, and is
// no error.
func TestClosedIdleConnection(t *testing.T) {
	s, config := newService(t)
	c := newClient(t, config)
	docs := numbered(3)
	if _, err := c.PutBatch(t.Context(), "s", docs); err != nil {
		t.Fatal(err)
	}
	d := c.http.Transport.(ordered)
	if len(d.idle) != 1 {
		t.Fatalf("%d idle connections", len(d.idle))
	}
	if err := d.idle[0].Conn.(*net.TCPConn).CloseWrite(); err != nil { // the server closes its side then
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
	if _, err := c.PutBatch(t.Context(), "t", docs); err != nil {
		t.Fatal(err)
	}
	wantAll(t, s.docs["t"], docs)
	d.idle[0].used = time.Now().Add(-2 * idleMax)
	if _, err := c.PutBatch(t.Context(), "u", docs); err != nil {
		t.Fatal(err)
	}
	if sent, retried := c.Requests(); sent != 4 || retried != 1 {
		t.Errorf("%d requests, %d again: an old connection is not tried at all", sent, retried)
	}
}

// TestCancelledCall: a call ends with its context, also in the midst of an answer,
// and its connection is not used again.
func TestCancelledCall(t *testing.T) {
	waiting := make(chan struct{}, 1)
	config, opened := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Amz-Target") != targetPrefix+"Slow" {
			_, _ = w.Write([]byte(`{}`))
			return
		}
		_, _ = w.Write([]byte(`{"A":`))
		w.(http.Flusher).Flush()
		waiting <- struct{}{}
		<-r.Context().Done()
	})
	c := newClient(t, config)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-waiting
		cancel()
	}()
	if err := c.Call(ctx, "Slow", struct{}{}, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if err := c.Call(t.Context(), "Quick", struct{}{}, nil); err != nil {
		t.Fatal(err)
	}
	if n := opened.Load(); n != 2 {
		t.Errorf("%d connections, want one for each call", n)
	}
}

// TestTransports: what direct does not do is left to net/http.
func TestTransports(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://proxy.example:3128")
	t.Setenv("NO_PROXY", "")
	for endpoint, plain := range map[string]bool{"http://127.0.0.1:4566": true, "https://firehose.us-east-1.amazonaws.com": false} {
		u, err := url.Parse(endpoint)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := newTransport(u, 1).(*direct); ok != plain {
			t.Errorf("%s: %T", endpoint, newTransport(u, 1))
		}
	}
}
