package pgtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Fault is what happens to one message of a client.
type Fault int

// The faults. Of those in the second group the client cannot know whether the
// server carried the message out.
const (
	None     Fault = iota
	CutFirst       // the connection ends before the server sees the message

	CutAnswer  // carried out; the connection ends instead of the answer
	CutAtOnce  // the server gets the message and the connection's end together
	CarriedOut // the connection ends at once; the server gets the message later, and carries it out
	faults
)

var faultNames = [...]string{"none", "cut-first", "cut-answer", "cut-at-once", "carried-out-later"}

func (f Fault) String() string { return faultNames[f] }

// Message is what a plan decides by: Type is the protocol's letter, 'Q' or 'P',
// Statement the text of a query, nothing for other messages.
type Message struct {
	Type      byte
	Statement string
}

// Commit reports whether the message is a COMMIT.
func (m Message) Commit() bool { return bytes.EqualFold([]byte(m.Statement), []byte("commit")) }

// Proxy forwards to a server without TLS and injects faults. The plan may be
// replaced at any time; without one everything passes.
type Proxy struct {
	Addr string
	// Later is how long a message that is carried out later waits, and how long
	// an answer is waited for.
	Later time.Duration

	target string
	plan   atomic.Pointer[func(Message) Fault]
	refuse atomic.Bool
	open   sync.WaitGroup
	counts [faults]atomic.Int64
}

// StartProxy runs a proxy before a server until the test ends.
func (s *Server) StartProxy(t testing.TB) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), Later: 300 * time.Millisecond, target: s.Addr}
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if p.refuse.Load() {
				cut(c)
				continue
			}
			p.open.Go(func() { p.serve(c) })
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-accepting
		p.open.Wait()
	})
	return p
}

// Plan sets what decides the fault of each message; nil lets all pass. Connections
// ask it at the same time.
func (p *Proxy) Plan(plan func(Message) Fault) {
	if plan == nil {
		p.plan.Store(nil)
		return
	}
	p.plan.Store(&plan)
}

// Refuse ends new connections at once, or no longer.
func (p *Proxy) Refuse(yes bool) { p.refuse.Store(yes) }

// Count is how often a fault was injected.
func (p *Proxy) Count(f Fault) int { return int(p.counts[f].Load()) }

// Random is a plan that injects one of the faults in a share of the messages
// that which chooses.
func Random(seed uint64, share float64, which func(Message) bool, among ...Fault) func(Message) Fault {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 0x7461706568757365))
	return func(m Message) Fault {
		if !which(m) {
			return None
		}
		mu.Lock()
		defer mu.Unlock()
		if r.Float64() >= share {
			return None
		}
		return among[r.IntN(len(among))]
	}
}

// cut ends a connection so that it is an error and not an end.
func cut(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// serve carries one connection.
func (p *Proxy) serve(client net.Conn) {
	defer cut(client)
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	var mute atomic.Bool // the answers are lost
	answered := make(chan struct{}, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer client.Close() //nolint:errcheck // the server has ended the connection
		buf := make([]byte, 32<<10)
		for {
			n, err := server.Read(buf)
			if n > 0 {
				if mute.Load() {
					select {
					case answered <- struct{}{}:
					default:
					}
				} else if _, err := client.Write(buf[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	defer func() {
		_ = server.Close()
		<-ended
	}()
	for first := true; ; first = false {
		raw, m, err := readMessage(client, first)
		if err != nil {
			return
		}
		fault := None
		if plan := p.plan.Load(); plan != nil && !first {
			fault = (*plan)(m)
		}
		p.counts[fault].Add(1)
		switch fault {
		case CutFirst:
			return
		case CutAnswer:
			mute.Store(true)
			if _, err := server.Write(raw); err != nil {
				return
			}
			p.answer(answered, ended)
			return
		case CutAtOnce:
			mute.Store(true)
			_, _ = server.Write(raw)
			return
		case CarriedOut:
			mute.Store(true)
			cut(client)
			time.Sleep(p.Later)
			if _, err := server.Write(raw); err != nil {
				return
			}
			p.answer(answered, ended)
			return
		}
		if _, err := server.Write(raw); err != nil {
			return
		}
	}
}

// answer waits for the server's answer to a message, or for long enough for a
// message that has none of its own.
func (p *Proxy) answer(answered, ended <-chan struct{}) {
	select {
	case <-answered:
	case <-ended:
	case <-time.After(p.Later):
	}
}

// readMessage reads one message of a client; the first one has no letter.
func readMessage(r io.Reader, first bool) (raw []byte, m Message, err error) {
	head := make([]byte, 5)
	if first {
		head = head[:4]
	}
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, m, err
	}
	size := int(binary.BigEndian.Uint32(head[len(head)-4:])) - 4
	if size < 0 || size > 64<<20 {
		return nil, m, errors.New("not the protocol")
	}
	raw = append(head, make([]byte, size)...)
	body := raw[len(head):]
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, m, err
	}
	if first {
		return raw, m, nil
	}
	switch m.Type = raw[0]; m.Type {
	case 'Q':
		m.Statement = string(bytes.TrimRight(body, "\x00"))
	case 'P': // the name of the statement, then its text
		if _, rest, ok := bytes.Cut(body, []byte{0}); ok {
			text, _, _ := bytes.Cut(rest, []byte{0})
			m.Statement = string(text)
		}
	}
	return raw, m, nil
}
