package pgwire

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/auth"
)

// ErrServerClosed is what Serve returns after Shutdown or Close.
var ErrServerClosed = errors.New("pgwire: server closed")

// Credentials finds the verifier of a user's password. ok is false for a user
// who does not exist; the client cannot tell that from a wrong password.
type Credentials interface {
	SCRAMVerifier(ctx context.Context, user string) (v auth.SCRAMVerifier, ok bool, err error)
}

// Options configure a Server. A zero duration or number is the default named
// beside it; a negative duration is none.
type Options struct {
	Backend     Backend               // required
	Credentials Credentials           // required
	Logger      *slog.Logger          // nil: discards
	Registerer  prometheus.Registerer // nil: the metrics are kept but not registered
	// TLS answers SSLRequest and direct TLS; nil refuses both. ALPN is set here.
	TLS *tls.Config
	// RequireTLS refuses sessions and cancel requests in plain text.
	RequireTLS bool

	MaxConnections           int           // sessions; 100
	MaxMessageBytes          int           // of one message from a client; 16 MiB
	SendBufferBytes          int           // rows gathered before a write; 64 KiB
	StartupTimeout           time.Duration // from accept to the first ReadyForQuery; 30 s
	IdleTimeout              time.Duration // between statements outside a transaction; none
	IdleInTransactionTimeout time.Duration // between statements within one; 30 min
	SendTimeout              time.Duration // a client that takes nothing for so long is gone; 10 min
}

const (
	maxConnectionsDefault  = 100
	maxMessageBytesDefault = 16 << 20
	sendBufferBytesDefault = 64 << 10
	startupTimeoutDefault  = 30 * time.Second
	idleInTxTimeoutDefault = 30 * time.Minute
	sendTimeoutDefault     = 10 * time.Minute

	// Sockets that have not become a session yet: cancel requests, handshakes,
	// and who just opens sockets.
	startingMax = 128
	// What a connection gets, after Shutdown's context has ended, to tell its
	// client why, before the socket is closed under it.
	farewell = time.Second
)

// A Server accepts connections and runs a session on each.
type Server struct {
	o          Options
	log        *slog.Logger
	metrics    *metrics
	tls        *tls.Config
	certHash   *certBinding
	decoyKey   []byte
	background context.Context // ends with Close; parent of all sessions
	kill       context.CancelCauseFunc
	wg         sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	sessions  map[uint32]*conn // by process id; holds a place of MaxConnections each
	lastPID   uint32
}

// NewServer checks the options.
func NewServer(o Options) (*Server, error) {
	switch {
	case o.Backend == nil:
		return nil, errors.New("pgwire: Options.Backend is missing")
	case o.Credentials == nil:
		return nil, errors.New("pgwire: Options.Credentials is missing")
	case o.RequireTLS && o.TLS == nil:
		return nil, errors.New("pgwire: TLS is required but there is no certificate")
	case o.MaxMessageBytes < 0 || o.MaxMessageBytes > sendMessageSizeBytesMax:
		return nil, fmt.Errorf("pgwire: MaxMessageBytes %d: want 1 to %d", o.MaxMessageBytes, sendMessageSizeBytesMax)
	case o.MaxConnections < 0 || o.SendBufferBytes < 0:
		return nil, errors.New("pgwire: a limit is negative")
	}
	o.MaxConnections = orDefault(o.MaxConnections, maxConnectionsDefault)
	o.MaxMessageBytes = orDefault(o.MaxMessageBytes, maxMessageBytesDefault)
	o.SendBufferBytes = orDefault(o.SendBufferBytes, sendBufferBytesDefault)
	o.StartupTimeout = orDefault(o.StartupTimeout, startupTimeoutDefault)
	o.IdleInTransactionTimeout = orDefault(o.IdleInTransactionTimeout, idleInTxTimeoutDefault)
	o.SendTimeout = orDefault(o.SendTimeout, sendTimeoutDefault)
	s := &Server{
		o: o, log: o.Logger, metrics: newMetrics(o.Registerer), decoyKey: make([]byte, 32),
		listeners: map[net.Listener]struct{}{}, conns: map[*conn]struct{}{}, sessions: map[uint32]*conn{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	_, _ = rand.Read(s.decoyKey) // never fails: crypto/rand aborts the program instead
	if o.TLS != nil {
		s.tls = o.TLS.Clone()
		s.tls.NextProtos = []string{alpnProtocol}
		s.certHash = bindingOf(s.tls)
	}
	s.background, s.kill = context.WithCancelCause(context.Background())
	return s, nil
}

func orDefault[T int | time.Duration](v, d T) T {
	if v == 0 {
		return d
	}
	return v
}

// Serve accepts connections on l until Shutdown or Close, and closes it. A
// passing error of accept, such as too many open files, is waited out.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		_ = l.Close()
		return ErrServerClosed
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
		_ = l.Close()
	}()
	const pauseMax = time.Second
	pause := 5 * time.Millisecond
	for {
		socket, err := l.Accept()
		if err != nil {
			s.mu.Lock()
			closed := s.closed
			s.mu.Unlock()
			switch {
			case closed:
				return ErrServerClosed
			case errors.Is(err, net.ErrClosed):
				return fmt.Errorf("accept SQL connection: %w", err)
			}
			s.log.Error("SQL connection not accepted", "err", err, "retry_in", pause)
			select {
			case <-time.After(pause):
			case <-s.background.Done():
			}
			pause = min(2*pause, pauseMax)
			continue
		}
		pause = 5 * time.Millisecond
		s.start(socket)
	}
}

// start runs a connection in its goroutine, unless there are too many already.
func (s *Server) start(socket net.Conn) {
	c := newConn(s, socket)
	s.mu.Lock()
	if s.closed || len(s.conns) >= s.o.MaxConnections+startingMax {
		s.mu.Unlock()
		s.metrics.accepted.WithLabelValues(outcomeOverflow).Inc()
		_ = socket.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.wg.Done()
		defer func() {
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		}()
		ctx, cancel := context.WithCancelCause(s.background)
		defer cancel(nil)
		c.kill = cancel
		c.run(ctx)
	}()
}

// enter gives c its user, a process id and one of the places for sessions.
func (s *Server) enter(c *conn, user string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return fatalf(codeCannotConnectNow, "the database system is shutting down")
	case len(s.sessions) >= s.o.MaxConnections:
		return fatalf(codeTooManyConnections, "sorry, too many clients already")
	}
	for {
		s.lastPID = (s.lastPID + 1) & 0x7fffffff // clients read it as a signed number
		if _, taken := s.sessions[s.lastPID]; !taken && s.lastPID != 0 {
			break
		}
	}
	c.pid = s.lastPID
	c.user = user
	s.sessions[c.pid] = c
	s.metrics.open.Inc()
	return nil
}

// Evict ends the sessions of the users whom keep refuses, with 57P01; a
// statement that runs is cancelled. It returns how many there were, and does not
// wait for them to be gone. A user who is just logging in is for the backend to
// refuse.
func (s *Server) Evict(keep func(user string) bool) int {
	var out []*conn
	s.mu.Lock()
	for _, c := range s.sessions {
		if !keep(c.user) {
			out = append(out, c)
		}
	}
	s.mu.Unlock()
	for _, c := range out {
		c.stop()
		c.interrupt(causeShutdown)
	}
	return len(out)
}

func (s *Server) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[c.pid] == c {
		delete(s.sessions, c.pid)
		s.metrics.open.Dec()
	}
}

// cancelRequest interrupts the statement of the session that pid and secret
// name. The requester is told nothing, so that he cannot probe.
func (s *Server) cancelRequest(body []byte) {
	if len(body) < 4 {
		return
	}
	pid, secret := binary.BigEndian.Uint32(body), body[4:]
	s.mu.Lock()
	c := s.sessions[pid]
	s.mu.Unlock()
	if c == nil {
		return
	}
	c.mu.Lock()
	match := len(c.secret) > 0 && subtle.ConstantTimeCompare(c.secret, secret) == 1
	c.mu.Unlock()
	if match && c.interrupt(causeCancelRequest) {
		s.metrics.cancels.Inc()
	}
}

// Shutdown stops accepting, ends idle connections with 57P01, lets statements
// that run finish until ctx ends, then cancels them with 57P01 as well, and
// returns when every connection is gone. The error is ctx's if it had to
// cancel.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	for l := range s.listeners {
		_ = l.Close()
	}
	for c := range s.conns {
		c.stop()
	}
	s.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		s.kill(causeShutdown)
		return nil
	case <-ctx.Done():
	}
	s.kill(causeShutdown)
	select {
	case <-gone:
	case <-time.After(farewell):
		s.mu.Lock()
		for c := range s.conns {
			_ = c.raw.Close()
		}
		s.mu.Unlock()
		<-gone
	}
	return fmt.Errorf("drain SQL connections: %w", ctx.Err())
}

// Close ends every connection without waiting for statements.
func (s *Server) Close() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.Shutdown(ctx) // its error only says that it did not wait
	return nil
}
