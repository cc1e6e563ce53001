package pgwire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/xdg-go/scram"
)

// rawClient speaks bytes, so that tests can say what no driver would.
type rawClient struct {
	t    testing.TB
	conn net.Conn
	pid  uint32
	key  []byte
}

func dialRaw(t testing.TB, ts *testServer) *rawClient {
	t.Helper()
	conn, err := net.Dial("tcp", ts.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &rawClient{t: t, conn: conn}
}

func startupPacket(t testing.TB, parameters map[string]string) []byte {
	t.Helper()
	b, err := (&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: parameters}).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func frame(kind byte, body string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4))
	return append(b, body...)
}

func encode(t testing.TB, messages ...pgproto3.FrontendMessage) []byte {
	t.Helper()
	var b []byte
	var err error
	for _, m := range messages {
		if b, err = m.Encode(b); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (r *rawClient) write(b []byte) {
	r.t.Helper()
	if len(b) == 0 {
		return
	}
	if _, err := r.conn.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rawClient) read() (kind byte, body []byte) {
	r.t.Helper()
	var head [5]byte
	if _, err := io.ReadFull(r.conn, head[:]); err != nil {
		r.t.Fatalf("read: %v", err)
	}
	body = make([]byte, binary.BigEndian.Uint32(head[1:])-4)
	if _, err := io.ReadFull(r.conn, body); err != nil {
		r.t.Fatalf("read: %v", err)
	}
	return head[0], body
}

// until reads messages up to one of a kind and returns the kinds, that one last.
func (r *rawClient) until(kind byte) (kinds string, last []byte) {
	r.t.Helper()
	for {
		k, body := r.read()
		kinds += string(k)
		if k == kind {
			return kinds, body
		}
		if k == 'E' && kind != 'Z' {
			r.t.Fatalf("after %q an error instead of %q: %q", kinds, kind, body)
		}
	}
}

func (r *rawClient) wantError(code string) {
	r.t.Helper()
	for {
		kind, body := r.read()
		if kind != 'E' {
			continue
		}
		if !bytes.Contains(body, []byte("C"+code+"\x00")) {
			r.t.Fatalf("error %q, want %s", body, code)
		}
		return
	}
}

func (r *rawClient) wantClosed() {
	r.t.Helper()
	if b, err := io.ReadAll(r.conn); err != nil && !errors.Is(err, net.ErrClosed) {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			r.t.Fatalf("the connection is still open; got %q", b)
		}
	}
}

// login authenticates in protocol 3.0 and reads up to the first ReadyForQuery.
func (r *rawClient) login() {
	r.t.Helper()
	r.write(startupPacket(r.t, map[string]string{"user": "billing", "database": "tapehouse"}))
	r.authenticate()
}

func (r *rawClient) authenticate() {
	r.t.Helper()
	client, err := scram.SHA256.NewClient("", testPassword, "")
	if err != nil {
		r.t.Fatal(err)
	}
	c := client.NewConversation()
	step := func(in string) string {
		out, err := c.Step(in)
		if err != nil {
			r.t.Fatal(err)
		}
		return out
	}
	r.until('R')
	r.write(encode(r.t, &pgproto3.SASLInitialResponse{AuthMechanism: "SCRAM-SHA-256", Data: []byte(step(""))}))
	_, body := r.until('R')
	r.write(encode(r.t, &pgproto3.SASLResponse{Data: []byte(step(string(body[4:])))}))
	_, body = r.until('R')
	step(string(body[4:]))
	_, key := r.until('K')
	r.pid, r.key = binary.BigEndian.Uint32(key), key[4:]
	r.until('Z')
}

func TestProtocolVersions(t *testing.T) {
	ts := startServer(t)
	for _, test := range []struct {
		minor   uint32
		answer  string
		keySize int
	}{{0, "R", 4}, {2, "R", 32}, {1, "R", 4}, {9999, "vR", 32}} {
		r := dialRaw(t, ts)
		p := startupPacket(t, map[string]string{"user": "billing", "database": "tapehouse"})
		binary.BigEndian.PutUint32(p[4:], 3<<16|test.minor)
		r.write(p)
		if test.answer == "vR" {
			kind, body := r.read()
			if kind != 'v' || binary.BigEndian.Uint32(body) != pgproto3.ProtocolVersion32 {
				t.Errorf("3.%d: %q %x", test.minor, kind, body)
			}
		}
		r.authenticate()
		if len(r.key) != test.keySize {
			t.Errorf("3.%d: key of %d bytes", test.minor, len(r.key))
		}
	}
	// An option that is not known is named.
	r := dialRaw(t, ts)
	r.write(startupPacket(t, map[string]string{"user": "billing", "_pq_.magic": "on"}))
	if kind, body := r.read(); kind != 'v' || !bytes.Contains(body, []byte("_pq_.magic\x00")) {
		t.Errorf("unknown option: %q %q", kind, body)
	}
	r.authenticate()

	old := dialRaw(t, ts)
	old.write([]byte{0, 0, 0, 9, 0, 2, 0, 0, 0})
	old.wantError("0A000")
	old.wantClosed()
}

func TestGarbage(t *testing.T) {
	ts := startServer(t)
	before := map[string][]byte{
		"http":             []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"short":            {0, 0, 0, 4, 0, 0, 0, 0},
		"huge":             {0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0},
		"no terminator":    {0, 0, 0, 12, 0, 3, 0, 0, 'u', 's', 'e', 'r'},
		"half a pair":      {0, 0, 0, 14, 0, 3, 0, 0, 'u', 's', 'e', 'r', 0, 0},
		"no user":          {0, 0, 0, 9, 0, 3, 0, 0, 0},
		"behind the end":   {0, 0, 0, 10, 0, 3, 0, 0, 0, 1},
		"not UTF-8":        append([]byte{0, 0, 0, 17, 0, 3, 0, 0}, "user\x00\xff\xfe\x00\x00"...),
		"GSS over and out": bytes.Repeat([]byte{0, 0, 0, 8, 4, 210, 22, 48}, 10),
		"TLS without":      {0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0},
		"cancel nobody":    {0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 99, 0, 0, 0, 0},
		"cancel too short": {0, 0, 0, 8, 4, 210, 22, 46},
	}
	for name, b := range before {
		t.Run("before/"+name, func(t *testing.T) {
			r := dialRaw(t, ts)
			r.write(b)
			r.wantClosed()
		})
	}
	during := map[string][]byte{
		"query instead":     frame('Q', "select 1\x00"),
		"unknown mechanism": frame('p', "PLAIN\x00\x00\x00\x00\x01x"),
		"plus without TLS":  frame('p', "SCRAM-SHA-256-PLUS\x00\x00\x00\x00\x01x"),
		"no mechanism":      frame('p', ""),
		"not SCRAM":         frame('p', "SCRAM-SHA-256\x00\x00\x00\x00\x03foo"),
		"flag and name":     frame('p', "SCRAM-SHA-256\x00\x00\x00\x00\x1ep=tls-server-end-point,,n=,r=x"),
		"too long":          {'p', 0, 1, 0, 0},
		"negative":          {'p', 0xff, 0xff, 0xff, 0xff},
	}
	for name, b := range during {
		t.Run("during/"+name, func(t *testing.T) {
			r := dialRaw(t, ts)
			r.write(startupPacket(t, map[string]string{"user": "billing"}))
			r.until('R')
			r.write(b)
			r.wantError("08P01")
			r.wantClosed()
		})
	}
	for name, test := range map[string]struct {
		b     []byte
		code  string
		fatal bool
	}{
		"unknown kind":       {frame('?', ""), "08P01", true},
		"password":           {frame('p', "x\x00"), "08P01", true},
		"negative length":    {[]byte{'Q', 0xff, 0xff, 0xff, 0xff}, "08P01", true},
		"length 3":           {[]byte{'Q', 0, 0, 0, 3}, "08P01", true},
		"17 MiB":             {[]byte{'Q', 1, 0x10, 0, 5}, "08P01", true},
		"long Sync":          {[]byte{'S', 0, 1, 0, 0}, "08P01", true},
		"query without zero": {frame('Q', "select 1"), "08P01", true},
		"query not UTF-8":    {frame('Q', "select '\xff'\x00"), "22021", false},
		"function call":      {frame('F', "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00"), "0A000", false},
		"bad Parse":          {frame('P', "x"), "08P01", false},
		"bad Bind":           {frame('B', "\x00\x00\xff\xff"), "08P01", false},
		"bad Describe":       {frame('D', "Zx\x00"), "08P01", false},
		"empty Describe":     {frame('D', ""), "08P01", false},
		"bad Execute":        {frame('E', "\x00"), "08P01", false},
		"bad Close":          {frame('C', "Zx\x00"), "08P01", false},
	} {
		t.Run("after/"+name, func(t *testing.T) {
			r := dialRaw(t, ts)
			r.login()
			r.write(test.b)
			r.wantError(test.code)
			if test.fatal {
				r.wantClosed()
				return
			}
			if test.b[0] != 'Q' && test.b[0] != 'F' {
				r.write(frame('Q', "skipped\x00"))
				r.write(frame('S', ""))
			}
			if kinds, _ := r.until('Z'); kinds != "Z" {
				t.Errorf("got %q on the way to ReadyForQuery", kinds)
			}
			r.write(frame('Q', "select 1\x00"))
			if kinds, _ := r.until('Z'); kinds != "TDCZ" {
				t.Errorf("got %q afterwards", kinds)
			}
		})
	}
}

// A connection that is cut in the middle of any message ends its session.
func TestCutConnection(t *testing.T) {
	ts := startServer(t)
	conversation := encode(t,
		&pgproto3.Query{String: "create table cut (a int4)"},
		&pgproto3.Parse{Name: "s", Query: "select $1::text, $2::int4"},
		&pgproto3.Bind{PreparedStatement: "s", Parameters: [][]byte{[]byte("x"), []byte("1")}},
		&pgproto3.Execute{}, &pgproto3.Sync{},
		&pgproto3.Query{String: "copy cut from stdin"}, &pgproto3.CopyData{Data: []byte("1\n2\n")}, &pgproto3.CopyDone{})
	for cut := 0; cut <= len(conversation); cut += 3 {
		r := dialRaw(t, ts)
		r.login()
		r.write(conversation[:cut])
		if cut%2 == 0 { // reset instead of an orderly end
			_ = r.conn.(*net.TCPConn).SetLinger(0)
		}
		_ = r.conn.Close()
	}
	waitUntil(t, "all sessions end", func() bool { return ts.backend.open() == 0 })
}

// A client that does not read stops its own query, and after SendTimeout is
// disconnected; memory stays bounded meanwhile.
func TestSlowClient(t *testing.T) {
	ts := startServer(t, func(o *Options) { o.SendTimeout = 100 * time.Millisecond })
	r := dialRaw(t, ts)
	r.login()
	r.write(frame('Q', "series 100000000\x00"))
	waitUntil(t, "the session ends", func() bool { return ts.backend.open() == 0 })
}

func TestExtendedProtocol(t *testing.T) {
	ts := startServer(t)
	r := dialRaw(t, ts)
	r.login()
	run := func(want string, messages ...pgproto3.FrontendMessage) {
		t.Helper()
		r.write(encode(t, append(messages, &pgproto3.Sync{})...))
		if kinds, _ := r.until('Z'); kinds != want {
			t.Errorf("got %q, want %q", kinds, want)
		}
	}
	bind := func(portal, st string, args ...string) *pgproto3.Bind {
		b := &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: st}
		for _, a := range args {
			b.Parameters = append(b.Parameters, []byte(a))
		}
		return b
	}
	run("1tTZ", &pgproto3.Parse{Name: "s", Query: "series 5"}, &pgproto3.Describe{ObjectType: 'S', Name: "s"})
	run("EZ", &pgproto3.Parse{Name: "s", Query: "series 5"})                                        // the name is taken
	run("EZ", bind("", "nope"))                                                                     // no such statement
	run("EZ", &pgproto3.Execute{Portal: "nope"}, &pgproto3.Execute{})                               // one error, the rest skipped
	run("2TDDDDDCZ", bind("", "s"), &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{})       //
	run("2DDsDDsDCCZ", bind("", "s"), &pgproto3.Execute{MaxRows: 2}, &pgproto3.Execute{MaxRows: 2}, //
		&pgproto3.Execute{MaxRows: 2}, &pgproto3.Execute{MaxRows: 2}) // the last of a portal that is done
	run("EZ", &pgproto3.Execute{})                                                                           // Sync ended the transaction and the portal
	run("13Z", &pgproto3.Parse{Name: "", Query: ""}, &pgproto3.Close{ObjectType: 'S', Name: "never was"})    //
	run("2nIZ", bind("", ""), &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{})                      // empty query
	run("EZ", bind("", "s", "superfluous"))                                                                  //
	run("2EZ", bind("p", "s"), bind("p", "s"))                                                               // cursor exists
	run("23EZ", bind("p", "s"), &pgproto3.Close{ObjectType: 'S', Name: "s"}, &pgproto3.Execute{Portal: "p"}) // closed with its statement
	run("1EZ", &pgproto3.Parse{Query: "select $1::int4"}, &pgproto3.Bind{Parameters: [][]byte{[]byte("x")}}) // 22P02
	run("1EZ", &pgproto3.Parse{Query: "select $1::int4"}, &pgproto3.Bind{ParameterFormatCodes: []int16{2}, Parameters: [][]byte{{1}}})
	run("1EZ", &pgproto3.Parse{Query: "select 1, 2"}, &pgproto3.Bind{ResultFormatCodes: []int16{1, 1, 1}})      //
	run("1EZ", &pgproto3.Parse{Query: "select '1'::int2vector"}, &pgproto3.Bind{ResultFormatCodes: []int16{1}}) // has no binary form here
	run("12EZ", &pgproto3.Parse{Query: "failrow 0"}, bind("", ""), &pgproto3.Execute{}, &pgproto3.Execute{})
	run("12DDDEZ", &pgproto3.Parse{Query: "failrow 3"}, bind("", ""), &pgproto3.Execute{})
	run("12CEZ", &pgproto3.Parse{Query: "create table once (a int4)"}, bind("", ""), &pgproto3.Execute{}, &pgproto3.Execute{}) // cannot be run again, rolls back

	// Portals outlive Sync within a transaction, several at a time, until the
	// transaction ends.
	run("12CZ", &pgproto3.Parse{Query: "begin"}, bind("", ""), &pgproto3.Execute{})
	run("1Z", &pgproto3.Parse{Name: "s", Query: "series 5"})
	run("2DsZ", bind("p", "s"), &pgproto3.Execute{Portal: "p", MaxRows: 1})
	run("2DDDsZ", bind("q", "s"), &pgproto3.Execute{Portal: "q", MaxRows: 3})
	run("DsDDCZ", &pgproto3.Execute{Portal: "p", MaxRows: 1}, &pgproto3.Execute{Portal: "q"})
	run("12CZ", &pgproto3.Parse{Query: "commit"}, bind("", ""), &pgproto3.Execute{})
	run("EZ", &pgproto3.Execute{Portal: "p"})

	// Flush sends what there is without ending the cycle.
	r.write(encode(t, &pgproto3.Parse{Query: "select 1"}, &pgproto3.Flush{}))
	r.until('1')
	run("2DCZ", bind("", ""), &pgproto3.Execute{})

	// DEALLOCATE drops statements of the protocol too, itself included.
	run("12CZ", &pgproto3.Parse{Name: "d", Query: "deallocate all"}, bind("", "d"), &pgproto3.Execute{})
	run("EZ", bind("", "s"))
	run("EZ", bind("", "d"))
}

func TestStatementLimit(t *testing.T) {
	ts := startServer(t)
	r := dialRaw(t, ts)
	r.login()
	var b []byte
	for i := range statementsMax + 1 {
		b = append(b, encode(t, &pgproto3.Parse{Name: fmt.Sprintf("s%d", i), Query: "select 1"})...)
	}
	go r.write(append(b, encode(t, &pgproto3.Sync{})...))
	r.wantError("54000")
	if kinds, _ := r.until('Z'); kinds != "Z" {
		t.Errorf("got %q", kinds)
	}
	_ = r.conn.Close()
	waitUntil(t, "the session ends", func() bool { return ts.backend.open() == 0 })
	if ts.backend.released != statementsMax {
		t.Errorf("%d statements released, want %d", ts.backend.released, statementsMax)
	}
}

func TestInletResumesAfterTimeout(t *testing.T) {
	client, server := net.Pipe()
	defer func() { _ = client.Close() }()
	in := newInlet(server, 1<<20, func(int) {}, func(*inlet) {})
	defer in.close()
	defer func() { _ = server.Close() }()
	message := frame('Q', "select 1\x00")
	fired := make(chan time.Time)
	close(fired)
	for cut := 1; cut < len(message); cut++ {
		go func() { _, _ = client.Write(message[:cut]) }()
		waitUntil(t, "the first half", func() bool { return in.unread.Load() > 0 })
		if _, _, err := in.next(context.Background(), fired, nil); !errors.Is(err, errWaitTimeout) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		go func() { _, _ = client.Write(message[cut:]) }()
		kind, body, err := in.next(context.Background(), nil, nil)
		if err != nil || kind != 'Q' || string(body) != "select 1\x00" {
			t.Fatalf("cut at %d: %q %q %v", cut, kind, body, err)
		}
	}
}
