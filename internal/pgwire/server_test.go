package pgwire

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/auth"
)

const testPassword = "corrèct horse" // not ASCII, so that SASLprep is in play

type fakeCredentials struct{ verifier auth.SCRAMVerifier }

func (f fakeCredentials) SCRAMVerifier(_ context.Context, user string) (auth.SCRAMVerifier, bool, error) {
	switch user {
	case "billing":
		return f.verifier, true, nil
	case "broken":
		return auth.SCRAMVerifier{}, false, errors.New("the credentials file is on fire")
	}
	return auth.SCRAMVerifier{}, false, nil
}

var testCredentials = sync.OnceValue(func() fakeCredentials {
	v, err := auth.NewSCRAMVerifier(testPassword)
	if err != nil {
		panic(err)
	}
	return fakeCredentials{v}
})

// lockedBuffer collects a log.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type testServer struct {
	*Server
	backend *fakeBackend
	addr    string
	log     *lockedBuffer
	metrics *prometheus.Registry
}

func startServer(t testing.TB, change ...func(*Options)) *testServer {
	t.Helper()
	ts := &testServer{backend: newFakeBackend(), log: &lockedBuffer{}, metrics: prometheus.NewRegistry()}
	o := Options{
		Backend: ts.backend, Credentials: testCredentials(), Registerer: ts.metrics,
		Logger: slog.New(slog.NewTextHandler(ts.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range change {
		f(&o)
	}
	s, err := NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	ts.Server = s
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ts.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-served; !errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		if n := ts.backend.open(); n != 0 {
			t.Errorf("%d sessions left open", n)
		}
	})
	return ts
}

func (ts *testServer) port() string { return ts.addr[strings.LastIndexByte(ts.addr, ':')+1:] }

func (ts *testServer) dsn(more string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%s user=billing password='%s' dbname=tapehouse connect_timeout=10 %s", ts.port(), testPassword, more)
}

func connect(t testing.TB, ts *testServer, more string) *pgx.Conn {
	t.Helper()
	if !strings.Contains(more, "sslmode") {
		more += " sslmode=disable"
	}
	c, err := pgx.Connect(t.Context(), ts.dsn(more))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func wantCode(t *testing.T, err error, code string) *pgconn.PgError {
	t.Helper()
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		t.Fatalf("error %v, want SQLSTATE %s", err, code)
	}
	if pe.Code != code {
		t.Fatalf("SQLSTATE %s (%s), want %s", pe.Code, pe.Message, code)
	}
	return pe
}

func TestAuthentication(t *testing.T) {
	ts := startServer(t)
	c := connect(t, ts, "application_name=tests options='-c search_path=equities -c timezone=America/New_York'")
	if c.PgConn().ParameterStatus("TimeZone") != "America/New_York" || c.PgConn().ParameterStatus("extra") != "" {
		t.Error("parameters were not reported as they should")
	}
	o := ts.backend.options[0]
	if o.User != "billing" || o.Database != "tapehouse" || o.ApplicationName != "tests" || o.Parameters["search_path"] != "equities" ||
		o.ProcessID != c.PgConn().PID() || o.RemoteAddr == "" {
		t.Errorf("session options: %+v", o)
	}
	for _, test := range []struct{ dsn, code string }{
		{strings.Replace(ts.dsn("sslmode=disable"), testPassword, "wrong", 1), "28P01"},
		{strings.Replace(ts.dsn("sslmode=disable"), "billing", "nobody", 1), "28P01"},
		{strings.Replace(ts.dsn("sslmode=disable"), "billing", "broken", 1), "XX000"},
		{strings.Replace(ts.dsn("sslmode=disable"), "dbname=tapehouse", "dbname=nowhere", 1), "3D000"},
		{strings.Replace(ts.dsn("sslmode=disable"), "dbname=tapehouse", "dbname=explode", 1), "XX000"},
		{ts.dsn("sslmode=disable replication=database"), "0A000"},
		{ts.dsn("sslmode=disable options='-X'"), "42601"},
	} {
		_, err := pgx.Connect(t.Context(), test.dsn)
		pe := wantCode(t, err, test.code)
		if pe.Severity != "FATAL" {
			t.Errorf("%s: severity %s", test.code, pe.Severity)
		}
		if strings.Contains(pe.Message, "fire") {
			t.Errorf("an internal error reached the client: %s", pe.Message)
		}
	}
	if !strings.Contains(ts.log.String(), "on fire") {
		t.Error("the credentials error was not logged")
	}
	// SSL is refused in an orderly way where there is no certificate.
	if _, err := pgx.Connect(t.Context(), ts.dsn("sslmode=require")); err == nil || !strings.Contains(err.Error(), "refused TLS") {
		t.Errorf("sslmode=require without a certificate: %v", err)
	}
	connect(t, ts, "sslmode=prefer")
}

func testCertificate(t testing.TB) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, pool
}

func TestTLS(t *testing.T) {
	config, pool := testCertificate(t)
	ts := startServer(t, func(o *Options) { o.TLS, o.RequireTLS = config, true })
	for _, mode := range []string{"sslmode=require", "sslmode=require sslnegotiation=direct", "sslmode=require channel_binding=require"} {
		cc, err := pgx.ParseConfig(ts.dsn(mode))
		if err != nil {
			t.Fatal(err)
		}
		cc.TLSConfig.RootCAs, cc.TLSConfig.InsecureSkipVerify, cc.TLSConfig.ServerName = pool, false, "localhost"
		c, err := pgx.ConnectConfig(t.Context(), cc)
		if err != nil {
			t.Fatalf("%s: %v", mode, err)
		}
		var n int
		if err := c.QueryRow(t.Context(), "select $1::int4", 42).Scan(&n); err != nil || n != 42 {
			t.Errorf("%s: %d, %v", mode, n, err)
		}
		_ = c.Close(t.Context())
	}
	_, err := pgx.Connect(t.Context(), ts.dsn("sslmode=disable"))
	wantCode(t, err, "28000")

	// Direct TLS of a client that speaks another protocol is turned away.
	raw, err := tls.Dial("tcp", ts.addr, &tls.Config{RootCAs: pool, ServerName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	b := make([]byte, 1)
	if _, err := raw.Read(b); err != nil || b[0] != 'E' {
		t.Errorf("direct TLS without ALPN: %q %v", b, err)
	}
}

// What stands in the clear behind an SSLRequest must not be read as if it had
// come encrypted (CVE-2021-23214).
func TestTLSInjection(t *testing.T) {
	config, _ := testCertificate(t)
	ts := startServer(t, func(o *Options) { o.TLS = config })
	raw := dialRaw(t, ts)
	startup := startupPacket(t, map[string]string{"user": "billing"})
	raw.write(append([]byte{0, 0, 0, 8, 4, 210, 22, 47}, startup...))
	b := make([]byte, 64)
	n, err := raw.conn.Read(b)
	if n != 1 || b[0] != 'S' {
		t.Fatalf("answer to SSLRequest: %q %v", b[:n], err)
	}
	for err == nil { // at most a TLS alert, then the end
		n, err = raw.conn.Read(b)
		if n > 0 && (b[0] == 'R' || b[0] == 'E') {
			t.Fatalf("the server went on in the clear: %q", b[:n])
		}
	}
}

func TestConnectionLimit(t *testing.T) {
	ts := startServer(t, func(o *Options) { o.MaxConnections = 2 })
	a := connect(t, ts, "")
	b := connect(t, ts, "")
	_, err := pgx.Connect(t.Context(), ts.dsn("sslmode=disable"))
	wantCode(t, err, "53300")
	// A cancel request takes no place.
	cancelled := make(chan error, 1)
	go func() {
		_, err := a.Exec(context.Background(), "sleep")
		cancelled <- err
	}()
	waitUntil(t, "the statement runs", func() bool { return ts.running(a.PgConn().PID()) })
	if err := a.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCode(t, <-cancelled, "57014")
	_ = b.Close(t.Context())
	waitUntil(t, "a place is free", func() bool {
		c, err := pgx.Connect(t.Context(), ts.dsn("sslmode=disable"))
		if err == nil {
			_ = c.Close(t.Context())
		}
		return err == nil
	})
}

// running reports whether the session runs a statement.
func (s *Server) running(pid uint32) bool {
	s.mu.Lock()
	c := s.sessions[pid]
	s.mu.Unlock()
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running != nil
}

func TestCancel(t *testing.T) {
	ts := startServer(t)
	c := connect(t, ts, "")
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement} {
		result := make(chan error, 1)
		go func() {
			_, err := c.Exec(context.Background(), "sleep", mode)
			result <- err
		}()
		waitUntil(t, "the statement runs", func() bool { return ts.running(c.PgConn().PID()) })

		// Not with a wrong secret.
		raw := dialRaw(t, ts)
		pid := c.PgConn().PID()
		raw.write([]byte{0, 0, 0, 16, 4, 210, 22, 46, byte(pid >> 24), byte(pid >> 16), byte(pid >> 8), byte(pid), 1, 2, 3, 4})
		raw.wantClosed()
		select {
		case err := <-result:
			t.Fatalf("cancelled by a stranger: %v", err)
		case <-time.After(20 * time.Millisecond):
		}

		if err := c.PgConn().CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		if pe := wantCode(t, <-result, "57014"); pe.Message != "canceling statement due to user request" {
			t.Error(pe.Message)
		}
		// The session lives on, and a cancel between statements hits nothing.
		if err := c.PgConn().CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		var n int
		if err := c.QueryRow(t.Context(), "select 7").Scan(&n); err != nil || n != 7 {
			t.Errorf("after the cancel: %d %v", n, err)
		}
	}
}

func TestClientGoneCancels(t *testing.T) {
	ts := startServer(t)
	for _, farewell := range [][]byte{nil, terminateFrame[:]} {
		raw := dialRaw(t, ts)
		raw.login()
		raw.write(frame('Q', "sleep\x00"))
		waitUntil(t, "the statement runs", func() bool { return ts.running(raw.pid) })
		raw.write(farewell)
		_ = raw.conn.Close()
		waitUntil(t, "the session ends", func() bool { return ts.backend.open() == 0 })
	}
}

func TestShutdown(t *testing.T) {
	ts := startServer(t)
	idle, busy, stuck := connect(t, ts, ""), connect(t, ts, ""), dialRaw(t, ts)
	busyErr := make(chan error, 1)
	go func() {
		_, err := busy.Exec(context.Background(), "sleep")
		busyErr <- err
	}()
	waitUntil(t, "the statement runs", func() bool { return ts.running(busy.PgConn().PID()) })
	stuck.write([]byte{0, 0}) // half a startup packet
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	started := time.Now()
	if err := ts.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	if d := time.Since(started); d > 5*time.Second {
		t.Errorf("Shutdown took %v", d)
	}
	wantCode(t, <-busyErr, "57P01")
	if _, err := idle.Exec(t.Context(), "select 1"); err == nil {
		t.Error("an idle connection survived")
	}
	if _, err := pgx.Connect(t.Context(), ts.dsn("sslmode=disable")); err == nil {
		t.Error("a connection was accepted after Shutdown")
	}
}

// A statement that ends in time is not cut short by Shutdown.
func TestShutdownWaitsForStatements(t *testing.T) {
	ts := startServer(t)
	c := connect(t, ts, "")
	result := make(chan error, 1)
	go func() {
		_, err := c.Exec(context.Background(), "sleep")
		result <- err
	}()
	waitUntil(t, "the statement runs", func() bool { return ts.running(c.PgConn().PID()) })
	down := make(chan error, 1)
	go func() { down <- ts.Shutdown(context.Background()) }()
	select {
	case err := <-down:
		t.Fatalf("Shutdown did not wait: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	ts.mu.Lock()
	conn := ts.sessions[c.PgConn().PID()]
	ts.mu.Unlock()
	conn.interrupt(causeCancelRequest) // stands for its end
	wantCode(t, <-result, "57014")
	if err := <-down; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

func TestTimeouts(t *testing.T) {
	ts := startServer(t, func(o *Options) {
		o.StartupTimeout, o.IdleTimeout, o.IdleInTransactionTimeout = 50*time.Millisecond, 60*time.Millisecond, 30*time.Millisecond
	})
	silent := dialRaw(t, ts)
	silent.wantClosed()

	idle := dialRaw(t, ts)
	idle.login()
	idle.wantError("57P05")
	idle.wantClosed()

	open := dialRaw(t, ts)
	open.login()
	open.write(frame('Q', "begin\x00"))
	open.until('Z')
	open.wantError("25P03")
	open.wantClosed()

	half := dialRaw(t, ts) // stops in the middle of a message
	half.login()
	half.write([]byte{'Q', 0, 0, 0, 100, 's'})
	half.wantError("57P05")
}

func TestPanicIsContained(t *testing.T) {
	ts := startServer(t)
	other, c := connect(t, ts, ""), connect(t, ts, "")
	_, err := c.Exec(t.Context(), "panic", pgx.QueryExecModeSimpleProtocol)
	pe := wantCode(t, err, "XX000")
	if pe.Severity != "FATAL" || strings.Contains(pe.Message, "broken") {
		t.Errorf("%s: %s", pe.Severity, pe.Message)
	}
	if _, err := other.Exec(t.Context(), "select 1"); err != nil {
		t.Errorf("another connection: %v", err)
	}
	if l := ts.log.String(); !strings.Contains(l, "the session is broken") || !strings.Contains(l, "fake_test.go") {
		t.Errorf("the panic was not logged with its stack:\n%s", l)
	}
}

func TestInternalErrorsAreWithheld(t *testing.T) {
	ts := startServer(t)
	c := connect(t, ts, "")
	_, err := c.Exec(t.Context(), "internal")
	if pe := wantCode(t, err, "XX000"); strings.Contains(pe.Message, "secret") {
		t.Errorf("leaked: %s", pe.Message)
	}
	if !strings.Contains(ts.log.String(), "secret") {
		t.Error("not logged")
	}
}

func TestMetrics(t *testing.T) {
	ts := startServer(t)
	c := connect(t, ts, "")
	for _, sql := range []string{"select 1", "create table m (a int4)", "fail 22012", "notice x"} {
		_, _ = c.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
	}
	families, err := ts.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			key := f.GetName()
			for _, l := range m.GetLabel() {
				key += "," + l.GetValue()
			}
			got[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for key, want := range map[string]float64{
		"tapehouse_pgwire_connections": 1, "tapehouse_pgwire_statements_total,SELECT": 1, "tapehouse_pgwire_statements_total,CREATE": 1,
		"tapehouse_pgwire_statements_total,other": 1, "tapehouse_pgwire_errors_total,22": 1, "tapehouse_pgwire_rows_sent_total": 1,
		"tapehouse_pgwire_statement_seconds,SELECT": 1,
	} {
		if got[key] != want {
			t.Errorf("%s = %v, want %v", key, got[key], want)
		}
	}
	if got["tapehouse_pgwire_received_bytes_total"] == 0 || got["tapehouse_pgwire_sent_bytes_total"] == 0 {
		t.Error("bytes are not counted")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	good := Options{Backend: newFakeBackend(), Credentials: testCredentials()}
	for what, change := range map[string]func(*Options){
		"backend":     func(o *Options) { o.Backend = nil },
		"credentials": func(o *Options) { o.Credentials = nil },
		"TLS":         func(o *Options) { o.RequireTLS = true },
		"message":     func(o *Options) { o.MaxMessageBytes = 1 << 30 },
		"negative":    func(o *Options) { o.MaxConnections = -1 },
	} {
		o := good
		change(&o)
		if _, err := NewServer(o); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	if _, err := NewServer(good); err != nil {
		t.Error(err)
	}
}
