package producer

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

const (
	// idleMax is how long a connection is used again after its last answer; well
	// below the time after which servers close one, because a request on a closed
	// connection has an unknown outcome.
	idleMax = 15 * time.Second

	readBufferBytes = 32 << 10
)

// direct is a transport for plain HTTP without a proxy, in which the caller's
// goroutine writes the request and reads the answer. http.Transport hands both
// to goroutines of the connection, which costs four switches between threads a
// request.
type direct struct {
	dialer  net.Dialer
	idleMax int // connections

	mu   sync.Mutex
	idle []*directConn // the last used at the end
}

// directConn is a connection of direct.
type directConn struct {
	net.Conn
	r    *bufio.Reader
	head []byte
	used time.Time
}

// RoundTrip implements http.RoundTripper. The request's body must be a
// *requestBody or nil. The answer's body must be closed; if it was read to its
// end, the connection is used again.
func (d *direct) RoundTrip(r *http.Request) (*http.Response, error) {
	sent, _ := r.Body.(*requestBody)
	if sent == nil {
		return nil, errors.New("send a request: its body is of another kind")
	}
	defer func() { _ = sent.Close() }()
	ctx := r.Context()
	c, err := d.get(ctx, r.URL)
	if err != nil {
		return nil, err
	}
	// A deadline in the past ends reads and writes that wait, and all after them.
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	answer, err := c.exchange(r, sent)
	if err != nil {
		stop()
		_ = c.Close()
		if ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx), err)
		}
		return nil, err
	}
	answer.Body = &directBody{ReadCloser: answer.Body, d: d, c: c, stop: stop, last: answer.Close}
	return answer, nil
}

// exchange writes the request and reads the head of its answer.
func (c *directConn) exchange(r *http.Request, body *requestBody) (*http.Response, error) {
	path := r.URL.RequestURI()
	head := append(c.head[:0], r.Method...)
	head = append(append(append(head, ' '), path...), " HTTP/1.1\r\nHost: "...)
	head = append(append(head, r.Host...), "\r\nContent-Length: "...)
	head = append(strconv.AppendInt(head, r.ContentLength, 10), "\r\n"...)
	for name, values := range r.Header {
		for _, v := range values {
			head = append(append(append(append(head, name...), ": "...), v...), "\r\n"...)
		}
	}
	head = append(head, "\r\n"...)
	c.head = head
	// One system call for both, from where the body lies.
	both := net.Buffers{head, body.rest()}
	if _, err := both.WriteTo(c.Conn); err != nil {
		return nil, err
	}
	answer, err := http.ReadResponse(c.r, r)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the server closed the connection before it answered")
	}
	return answer, err
}

// get returns a connection that was used lately, or a new one.
func (d *direct) get(ctx context.Context, u *url.URL) (*directConn, error) {
	oldest := time.Now().Add(-idleMax)
	d.mu.Lock()
	if n := len(d.idle); n > 0 && d.idle[n-1].used.After(oldest) {
		c := d.idle[n-1]
		d.idle[n-1] = nil
		d.idle = d.idle[:n-1]
		d.mu.Unlock()
		return c, nil
	}
	stale := d.idle // the last used is too old, and so are the others
	d.idle = nil
	d.mu.Unlock()
	for _, c := range stale {
		_ = c.Close()
	}
	address := u.Host
	if u.Port() == "" {
		address = net.JoinHostPort(u.Hostname(), "80")
	}
	conn, err := d.dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &directConn{Conn: conn, r: bufio.NewReaderSize(conn, readBufferBytes)}, nil
}

func (d *direct) put(c *directConn) {
	c.used = time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.idle) < d.idleMax {
		d.idle = append(d.idle, c)
		return
	}
	_ = c.Close()
}

// CloseIdleConnections is what http.Client calls.
func (d *direct) CloseIdleConnections() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.idle {
		_ = c.Close()
	}
	d.idle = nil
}

// directBody is an answer's body.
type directBody struct {
	io.ReadCloser
	d     *direct
	c     *directConn
	stop  func() bool // reports whether the deadline was left alone
	last  bool        // no request may follow this answer
	ended bool
	once  sync.Once
}

// Read implements io.Reader.
func (b *directBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.ended = b.ended || errors.Is(err, io.EOF)
	return n, err
}

// Close implements io.Closer.
func (b *directBody) Close() error {
	b.once.Do(func() {
		if b.stop() && b.ended && !b.last {
			b.d.put(b.c)
			return
		}
		_ = b.c.Close()
	})
	return nil
}
