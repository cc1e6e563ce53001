package pgwire

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/xdg-go/scram"

	"github.com/tapehouse/tapehouse/internal/auth"
)

// Codes in the place of a protocol version (src/include/libpq/pqcomm.h).
const (
	codeCancel     = 1234<<16 | 5678
	codeSSLRequest = 1234<<16 | 5679
	codeGSSRequest = 1234<<16 | 5680

	protocolMajor       = 3
	protocolMinorNewest = 2 // 3.2 has longer cancel keys

	startupSizeBytesMax = 10_000 // MAX_STARTUP_PACKET_LENGTH
	tlsHandshake        = 0x16   // first byte of a TLS record
	alpnProtocol        = "postgresql"

	mechanismSCRAM     = "SCRAM-SHA-256"
	mechanismSCRAMPlus = "SCRAM-SHA-256-PLUS"
)

// errHandled ends a connection that has got all the answer it gets.
var errHandled = errors.New("connection needs no session")

// startup is what the client said before it became a session.
type startup struct {
	minor      uint32
	parameters map[string]string
	options    []string // _pq_.… that are not known here
}

// handshake reads packets until one asks for a session. The socket has a
// deadline for all of it.
func (c *conn) handshake() (startup, error) {
	tried := 0
	for {
		if tried++; tried > 4 { // SSL, GSS, startup, and one for luck
			return startup{}, fatalf(codeProtocolViolation, "too many negotiation requests")
		}
		var head [8]byte
		if _, err := io.ReadFull(c.socket, head[:1]); err != nil {
			return startup{}, &socketError{"read from", err}
		}
		if head[0] == tlsHandshake && !c.secure && c.server.tls != nil {
			if err := c.directTLS(head[:1]); err != nil {
				return startup{}, err
			}
			continue
		}
		if _, err := io.ReadFull(c.socket, head[1:]); err != nil {
			return startup{}, &socketError{"read from", err}
		}
		size, code := binary.BigEndian.Uint32(head[:]), binary.BigEndian.Uint32(head[4:])
		if size < 8 || size > startupSizeBytesMax {
			return startup{}, fatalf(codeProtocolViolation, "invalid length of startup packet")
		}
		// Exactly this packet is read, not a byte more: what follows an
		// SSLRequest belongs to TLS.
		body := make([]byte, size-8)
		if _, err := io.ReadFull(c.socket, body); err != nil {
			return startup{}, &socketError{"read from", err}
		}
		switch {
		case code == codeCancel:
			if c.secure || !c.server.o.RequireTLS {
				c.server.cancelRequest(body)
			}
			c.outcome = outcomeCancel
			return startup{}, errHandled
		case code == codeSSLRequest && len(body) == 0:
			if err := c.upgrade(); err != nil {
				return startup{}, err
			}
		case code == codeGSSRequest && len(body) == 0:
			if err := c.answer('N'); err != nil {
				return startup{}, err
			}
		case code>>16 == protocolMajor:
			return parseStartup(code&0xffff, body)
		default:
			return startup{}, fatalf(codeFeatureNotSupported, "unsupported frontend protocol %d.%d: server supports %d.0 to %d.%d",
				code>>16, code&0xffff, protocolMajor, protocolMajor, protocolMinorNewest)
		}
	}
}

// answer sends the single byte that answers a negotiation request.
func (c *conn) answer(b byte) error {
	if _, err := c.socket.Write([]byte{b}); err != nil {
		return &socketError{"write to", err}
	}
	return nil
}

// upgrade answers an SSLRequest.
func (c *conn) upgrade() error {
	if c.secure || c.server.tls == nil {
		return c.answer('N')
	}
	if err := c.answer('S'); err != nil {
		return err
	}
	return c.useTLS(tls.Server(c.socket, c.server.tls))
}

// directTLS serves a client that begins with TLS (sslnegotiation=direct). Such
// a client must name the protocol, so that no other protocol's client can be
// led here.
func (c *conn) directTLS(first []byte) error {
	t := tls.Server(&replayConn{Conn: c.socket, first: first}, c.server.tls)
	if err := c.useTLS(t); err != nil {
		return err
	}
	if t.ConnectionState().NegotiatedProtocol != alpnProtocol {
		return fatalf(codeProtocolViolation, "received direct SSL connection without ALPN protocol negotiation extension")
	}
	return nil
}

func (c *conn) useTLS(t *tls.Conn) error {
	if err := t.Handshake(); err != nil {
		return &socketError{"TLS handshake with", err}
	}
	c.socket, c.out.socket, c.secure = t, t, true
	return nil
}

// replayConn gives back bytes that were read to look at them.
type replayConn struct {
	net.Conn
	first []byte
}

func (r *replayConn) Read(b []byte) (int, error) {
	if len(r.first) > 0 {
		n := copy(b, r.first)
		r.first = r.first[n:]
		return n, nil
	}
	return r.Conn.Read(b)
}

// parseStartup reads pairs of zero-terminated strings up to an empty name.
func parseStartup(minor uint32, body []byte) (startup, error) {
	invalid := fatalf(codeProtocolViolation, "invalid startup packet layout: expected terminator as last byte")
	s := startup{minor: minor, parameters: map[string]string{}}
	next := func() (string, bool) {
		i := slices.Index(body, 0)
		if i < 0 {
			return "", false
		}
		word := string(body[:i])
		body = body[i+1:]
		return word, true
	}
	for {
		name, ok := next()
		if !ok {
			return startup{}, invalid
		}
		if name == "" {
			break
		}
		value, ok := next()
		if !ok {
			return startup{}, invalid
		}
		if !validText([]byte(name)) || !validText([]byte(value)) {
			return startup{}, &Error{Severity: severityFatal, Code: errEncoding.Code, Message: errEncoding.Message}
		}
		if strings.HasPrefix(name, "_pq_.") {
			s.options = append(s.options, name)
			continue
		}
		s.parameters[name] = value
	}
	if len(body) != 0 {
		return startup{}, invalid
	}
	return s, nil
}

// sessionOptions turns startup parameters into a session's.
func (s startup) sessionOptions() (SessionOptions, error) {
	o := SessionOptions{Parameters: map[string]string{}}
	for name, value := range s.parameters {
		switch name {
		case "user":
			o.User = value
		case "database":
			o.Database = value
		case "options":
		case "replication":
			if b, err := parseBool(value); err != nil || b.(bool) {
				return o, fatalf(codeFeatureNotSupported, "replication connections are not supported")
			}
		default:
			o.Parameters[name] = value
		}
	}
	if o.User == "" {
		return o, fatalf(codeInvalidAuthorization, "no PostgreSQL user name specified in startup packet")
	}
	if o.Database == "" {
		o.Database = o.User
	}
	settings, err := parseOptions(s.parameters["options"])
	if err != nil {
		return o, err
	}
	for name, value := range settings {
		o.Parameters[name] = value
	}
	o.ApplicationName = o.Parameters["application_name"]
	return o, nil
}

// parseOptions reads the server's command-line options that a client may give:
// -c name=value, -cname=value and --name=value; a backslash quotes a space.
func parseOptions(text string) (map[string]string, error) {
	var words []string
	var word []byte
	inWord := false
	for i := 0; i < len(text); i++ {
		switch ch := text[i]; {
		case ch == '\\' && i+1 < len(text):
			i++
			word, inWord = append(word, text[i]), true
		case strings.IndexByte(" \t\n\r\v\f", ch) >= 0:
			if inWord {
				words = append(words, string(word))
			}
			word, inWord = word[:0], false
		default:
			word, inWord = append(word, ch), true
		}
	}
	if inWord {
		words = append(words, string(word))
	}
	settings := map[string]string{}
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w == "-c" && i+1 < len(words):
			i++
			w = words[i]
		case strings.HasPrefix(w, "-c"):
			w = w[2:]
		case strings.HasPrefix(w, "--"):
			w = w[2:]
		default:
			return nil, fatalf("42601", "invalid command-line argument for server process: %s", clip(w))
		}
		name, value, ok := strings.Cut(w, "=")
		if !ok || name == "" {
			return nil, fatalf("42601", "-c %s requires a value", clip(w))
		}
		settings[strings.ReplaceAll(name, "-", "_")] = value
	}
	return settings, nil
}

// readPassword reads the one kind of message that is allowed while the client
// authenticates.
func (c *conn) readPassword() ([]byte, error) {
	var head [frameHeaderSizeBytes]byte
	if _, err := io.ReadFull(c.socket, head[:]); err != nil {
		return nil, &socketError{"read from", err}
	}
	size := int64(binary.BigEndian.Uint32(head[1:])) - 4
	if head[0] != 'p' {
		return nil, fatalf(codeProtocolViolation, "expected SASL response, got message type %d", head[0])
	}
	if size < 0 || size > smallMessageSizeBytes {
		return nil, fatalf(codeProtocolViolation, "invalid message length")
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(c.socket, body); err != nil {
		return nil, &socketError{"read from", err}
	}
	return body, nil
}

// authenticate runs SCRAM-SHA-256 (RFC 5802, RFC 7677). The name inside SCRAM
// is ignored, as in PostgreSQL: the user is the one of the startup packet.
// A user who does not exist goes the same way with a verifier that no password
// meets, and fails at the same step with the same words.
func (c *conn) authenticate(ctx context.Context, user string) error {
	verifier, known, err := c.server.o.Credentials.SCRAMVerifier(ctx, user)
	if err != nil {
		return fmt.Errorf("look up credentials: %w", err)
	}
	decoy := auth.DecoySCRAMVerifier(c.server.decoyKey, user)
	if !known {
		verifier = decoy
	}
	lookup, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) {
		return scram.StoredCredentials{
			KeyFactors: scram.KeyFactors{Salt: string(verifier.Salt), Iters: verifier.Iterations},
			StoredKey:  verifier.StoredKey[:], ServerKey: verifier.ServerKey[:],
		}, nil
	})
	if err != nil {
		return fmt.Errorf("start SCRAM: %w", err)
	}
	mechanisms := []string{mechanismSCRAM}
	conversation := lookup.NewConversation()
	binding, bound := c.channelBinding()
	if bound {
		mechanisms = []string{mechanismSCRAMPlus, mechanismSCRAM}
		conversation = lookup.NewConversationWithChannelBinding(binding)
	}
	if err := c.sendNow(&pgproto3.AuthenticationSASL{AuthMechanisms: mechanisms}); err != nil {
		return err
	}
	body, err := c.readPassword()
	if err != nil {
		return err
	}
	var first pgproto3.SASLInitialResponse
	if err := first.Decode(body); err != nil {
		return fatalf(codeProtocolViolation, "malformed SASL message")
	}
	if !slices.Contains(mechanisms, first.AuthMechanism) {
		return fatalf(codeProtocolViolation, "client selected an invalid SASL authentication mechanism")
	}
	flagged := strings.HasPrefix(string(first.Data), "p=")
	if flagged != (first.AuthMechanism == mechanismSCRAMPlus) {
		return fatalf(codeProtocolViolation, "malformed SCRAM message: channel binding and mechanism disagree")
	}
	refused := &Error{Severity: severityFatal, Code: codeInvalidPassword,
		Message: fmt.Sprintf("password authentication failed for user %q", clip(user))}
	challenge, err := conversation.Step(string(first.Data))
	if err != nil {
		return fatalf(codeProtocolViolation, "malformed SCRAM message")
	}
	if err := c.sendNow(&pgproto3.AuthenticationSASLContinue{Data: []byte(challenge)}); err != nil {
		return err
	}
	if body, err = c.readPassword(); err != nil {
		return err
	}
	final, err := conversation.Step(string(body))
	if err != nil || !conversation.Valid() || !known {
		c.outcome = outcomePassword
		return refused
	}
	if err := c.out.send(&pgproto3.AuthenticationSASLFinal{Data: []byte(final)}); err != nil {
		return err
	}
	return c.out.send(&pgproto3.AuthenticationOk{})
}

// certBinding is the tls-server-end-point channel binding (RFC 5929 §4): the
// hash of the certificate, by the hash function of its signature.
type certBinding struct{ hash []byte }

// bindingOf computes the binding where the certificate is the same for every
// client; else channel binding is not offered.
func bindingOf(t *tls.Config) *certBinding {
	if t.GetCertificate != nil || t.GetConfigForClient != nil || len(t.Certificates) != 1 || len(t.Certificates[0].Certificate) == 0 {
		return nil
	}
	der := t.Certificates[0].Certificate[0]
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil
	}
	switch cert.SignatureAlgorithm {
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS:
		h := sha512.Sum384(der)
		return &certBinding{h[:]}
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512, x509.SHA512WithRSAPSS:
		h := sha512.Sum512(der)
		return &certBinding{h[:]}
	case x509.PureEd25519: // has no hash of its own; clients differ in what they take
		return nil
	}
	h := sha256.Sum256(der) // MD5 and SHA-1 are lifted to SHA-256
	return &certBinding{h[:]}
}

func (c *conn) channelBinding() (scram.ChannelBinding, bool) {
	if !c.secure || c.server.certHash == nil {
		return scram.ChannelBinding{}, false
	}
	return scram.ChannelBinding{Type: scram.ChannelBindingTLSServerEndpoint, Data: c.server.certHash.hash}, true
}

// greet turns a socket into a session, up to but without the first
// ReadyForQuery.
func (c *conn) greet(ctx context.Context) error {
	if t := c.server.o.StartupTimeout; t > 0 {
		if err := c.raw.SetDeadline(time.Now().Add(t)); err != nil {
			return &socketError{"set deadline of", err}
		}
	}
	// Shutdown does not wait for a handshake.
	defer context.AfterFunc(ctx, func() { _ = c.raw.SetDeadline(time.Unix(1, 0)) })()
	hello, err := c.handshake()
	if err != nil {
		return err
	}
	if c.server.o.RequireTLS && !c.secure {
		return &Error{Severity: severityFatal, Code: codeInvalidAuthorization,
			Message: "connection is not encrypted", Hint: "This server takes connections with TLS only: use sslmode=require or stricter."}
	}
	if hello.minor > protocolMinorNewest || len(hello.options) > 0 {
		newest := min(hello.minor, protocolMinorNewest)
		if err := c.out.send(&pgproto3.NegotiateProtocolVersion{
			NewestMinorProtocol: protocolMajor<<16 | newest, UnrecognizedOptions: hello.options}); err != nil {
			return err
		}
	}
	o, err := hello.sessionOptions()
	if err != nil {
		return err
	}
	if err := c.authenticate(ctx, o.User); err != nil {
		return err
	}
	if err := c.server.enter(c, o.User); err != nil {
		c.outcome = outcomeOverflow
		return err
	}
	o.RemoteAddr, o.ProcessID, o.Deallocate = c.raw.RemoteAddr().String(), c.pid, c.deallocate
	session, err := c.server.o.Backend.NewSession(ctx, o)
	if err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	c.session = session
	c.reportParameters()
	secret := make([]byte, 4)
	if hello.minor >= 2 {
		secret = make([]byte, 32)
	}
	_, _ = rand.Read(secret)
	c.mu.Lock()
	c.secret = secret
	c.mu.Unlock()
	if err := c.out.send(&pgproto3.BackendKeyData{ProcessID: c.pid, SecretKey: secret}); err != nil {
		return err
	}
	c.outcome = outcomeSession
	c.log = c.log.With("user", o.User, "database", o.Database, "pid", c.pid)
	return nil
}
