package pgwire

import (
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// FuzzFrontend feeds bytes to the loop of an authenticated connection. Whatever
// they are, the connection ends soon after its input does, the session is
// closed, and nothing panics.
func FuzzFrontend(f *testing.F) {
	seeds := [][]pgproto3.FrontendMessage{
		{&pgproto3.Query{String: "create table t (a int4, b text); insert into t values (1, 'x'); select * from t"}, &pgproto3.Terminate{}},
		{&pgproto3.Parse{Name: "s", Query: "select $1::numeric, $2::timestamptz[]"}, &pgproto3.Describe{ObjectType: 'S', Name: "s"},
			&pgproto3.Bind{DestinationPortal: "p", PreparedStatement: "s", ParameterFormatCodes: []int16{0}, Parameters: [][]byte{[]byte("1.5"), nil}, ResultFormatCodes: []int16{1}},
			&pgproto3.Describe{ObjectType: 'P', Name: "p"}, &pgproto3.Execute{Portal: "p", MaxRows: 1}, &pgproto3.Close{ObjectType: 'P', Name: "p"}, &pgproto3.Flush{}, &pgproto3.Sync{}},
		{&pgproto3.Query{String: "create table t (a text)"}, &pgproto3.Query{String: "copy t from stdin"}, &pgproto3.CopyData{Data: []byte("x\n")}, &pgproto3.CopyDone{}, &pgproto3.Query{String: "copy t to stdout binary"}},
		{&pgproto3.Query{String: "create table t (a text)"}, &pgproto3.Query{String: "copy t from stdin csv"}, &pgproto3.CopyFail{Message: "no"}, &pgproto3.FunctionCall{}},
		{&pgproto3.Parse{Query: "series 9"}, &pgproto3.Bind{}, &pgproto3.Execute{MaxRows: 2}, &pgproto3.Execute{}, &pgproto3.Sync{}, &pgproto3.Query{String: "begin; fail 22012"}},
	}
	for _, s := range seeds {
		f.Add(encode(f, s...))
	}
	backend := newFakeBackend()
	log := &lockedBuffer{}
	server, err := NewServer(Options{Backend: backend, Credentials: testCredentials(), Logger: slog.New(slog.NewTextHandler(log, nil)), MaxMessageBytes: 1 << 16, SendBufferBytes: 256,
		IdleTimeout: time.Second, IdleInTransactionTimeout: time.Second, SendTimeout: time.Second})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		backend.mu.Lock()
		backend.tables = map[string]*fakeTable{}
		backend.mu.Unlock()
		near, far := net.Pipe()
		c := newConn(server, far)
		session, err := backend.NewSession(t.Context(), SessionOptions{User: "billing", Database: "tapehouse", Deallocate: c.deallocate})
		if err != nil {
			t.Fatal(err)
		}
		c.session, c.outcome, c.kill = session, outcomeSession, func(error) {}
		c.out.timeout = time.Second
		c.in = newInlet(far, server.o.MaxMessageBytes, func(int) {}, c.clientGone)
		ended := make(chan error, 1)
		go func() {
			err := c.guard(t.Context(), c.loop)
			_ = far.Close()
			_ = c.guard(t.Context(), c.closeSession)
			c.in.close()
			ended <- err
		}()
		go func() { _, _ = io.Copy(io.Discard, near) }()
		_ = near.SetWriteDeadline(time.Now().Add(5 * time.Second))
		for len(input) > 0 { // in pieces, as from a network
			n := min(len(input), 17)
			if _, err := near.Write(input[:n]); err != nil {
				break
			}
			input = input[n:]
		}
		_ = near.Close()
		select {
		case err := <-ended:
			if e, internal := describe(err); err != nil && !internal && e.Code == codeInternal {
				t.Fatalf("panic: %v\n%s", err, log)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the connection hangs")
		}
		if n := backend.open(); n != 0 {
			t.Fatalf("%d sessions left open", n)
		}
	})
}

// FuzzStartup feeds bytes to a connection that has not authenticated.
func FuzzStartup(f *testing.F) {
	f.Add(startupPacket(f, map[string]string{"user": "billing", "options": `-c a=b --c-d=e\ f`}))
	f.Add([]byte{0, 0, 0, 8, 4, 210, 22, 47})
	f.Add(append([]byte{0, 0, 0, 8, 4, 210, 22, 48}, startupPacket(f, map[string]string{"user": "x", "_pq_.y": "z"})...))
	backend := newFakeBackend()
	config, _ := testCertificate(f)
	server, err := NewServer(Options{Backend: backend, Credentials: testCredentials(), TLS: config, StartupTimeout: time.Second})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		near, far := net.Pipe()
		c := newConn(server, far)
		ended := make(chan struct{})
		go func() { c.run(t.Context()); close(ended) }()
		go func() { _, _ = io.Copy(io.Discard, near) }()
		_ = near.SetWriteDeadline(time.Now().Add(5 * time.Second))
		_, _ = near.Write(input)
		_ = near.Close()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatal("the connection hangs")
		}
		if backend.open() != 0 {
			t.Fatal("a session was opened without a password")
		}
	})
}
