package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/delivery"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/wal"
)

// refuses checks that a server does not start on cfg, that the error says all
// of wants, and that it leaves the directory free.
func refuses(t *testing.T, cfg Config, wants ...string) error {
	t.Helper()
	s, err := Open(t.Context(), cfg, Options{Version: "test"})
	if err == nil {
		_ = s.Close(context.Background())
		t.Fatalf("a server started; want an error with %q", wants)
	}
	for _, want := range wants {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
	}
	return err
}

func closeNow(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// legs puts n legs of source from sequence number from on.
func putLegs(t *testing.T, s *Server, source string, from, n int64) {
	t.Helper()
	docs := make([][]byte, n)
	for i := range docs {
		docs[i] = newLeg(source, from+int64(i)).document(t)
	}
	put(t, client(t, s), "executions", docs...)
}

func TestSecondServerIsRefused(t *testing.T) {
	cfg := testConfig(t)
	s := open(t, cfg)
	err := refuses(t, cfg, "data directory "+cfg.Data+" is in use")
	if locked, ok := errors.AsType[fsys.ErrLocked](err); !ok || locked.PID != os.Getpid() {
		t.Errorf("%v does not say who has it", err)
	}
	putLegs(t, s, "A", 1, 10) // the first is unharmed
	if got := text(t, connect(t, s), "SELECT count(*) FROM executions"); got != "10" {
		t.Errorf("%s rows", got)
	}
	// The log has a lock of its own, should LOCK be removed, and the attempt does
	// not fence the first server.
	if err := os.Remove(filepath.Join(cfg.Data, "LOCK")); err != nil {
		t.Fatal(err)
	}
	refuses(t, cfg, "is locked by process")
	putLegs(t, s, "A", 11, 10)
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestCorruptLogIsRefused(t *testing.T) {
	cfg := testConfig(t)
	cfg.Log.SegmentBytes = 16 << 20
	s := open(t, cfg)
	putLegs(t, s, "A", 1, 50)
	putLegs(t, s, "A", 51, 50)
	closeNow(t, s)
	segments, err := filepath.Glob(filepath.Join(cfg.Data, "log", "*.wal"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("segments %v %v", segments, err)
	}
	name := segments[len(segments)-1]
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, []byte("GRP1")) // the first group; that of the second put says that it is synced
	if at < 0 {
		t.Fatal("the segment has no group")
	}
	clean := bytes.Clone(b)
	for _, i := range []int{at + 10, at + 48 + 20, at + 48 + 56 + 30} { // group header, frame header, payload
		copy(b, clean)
		b[i] ^= 0x10
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		err := refuses(t, cfg, filepath.Base(name))
		corrupt, ok := errors.AsType[*wal.CorruptionError](err)
		if !ok || corrupt.Offset < int64(at) || corrupt.Offset > int64(i) {
			t.Errorf("byte %d of the group at %d: %v", i, at, err)
		}
		if now, err := os.ReadFile(name); err != nil || !bytes.Equal(now, b) {
			t.Errorf("the refusal changed the damaged segment: %v", err)
		}
	}
	if err := os.WriteFile(name, clean, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	if got := text(t, connect(t, s), "SELECT count(*) FROM executions"); got != "100" {
		t.Errorf("%s rows after the segment was restored", got)
	}
}

func TestOlderLogIsRefused(t *testing.T) {
	cfg := testConfig(t)
	cfg.Log.SegmentBytes = 16 << 20
	s := open(t, cfg)
	putLegs(t, s, "A", 1, 20)
	closeNow(t, s)
	older := filepath.Join(t.TempDir(), "log")
	live := filepath.Join(cfg.Data, "log")
	if err := os.CopyFS(older, os.DirFS(live)); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	putLegs(t, s, "A", 21, 20)
	closeNow(t, s) // its flush puts the 40 into the table
	newer := live + "-newer"
	if err := errors.Join(os.Rename(live, newer), os.CopyFS(live, os.DirFS(older))); err != nil {
		t.Fatal(err)
	}
	if err := refuses(t, cfg, "executions", "contains records up to offset 40, the log ends at 20"); !errors.Is(err, delivery.ErrLogBehind) {
		t.Errorf("%v is not ErrLogBehind", err)
	}
	// No log at all is as old as can be.
	if err := os.RemoveAll(live); err != nil {
		t.Fatal(err)
	}
	if err := refuses(t, cfg, "the log ends at 0"); !errors.Is(err, delivery.ErrLogBehind) {
		t.Errorf("%v is not ErrLogBehind", err)
	}
	if err := errors.Join(os.RemoveAll(live), os.Rename(newer, live)); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	if got := text(t, connect(t, s), "SELECT count(*) FROM executions"); got != "40" {
		t.Errorf("%s rows with the log that belongs to it", got)
	}
}

func TestUnknownVersionsAreRefused(t *testing.T) {
	cfg := testConfig(t)
	closeNow(t, open(t, cfg))
	version := filepath.Join(cfg.Data, "VERSION")
	write := func(name, body string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(version, "tapehouse data 2\n")
	refuses(t, cfg, "the data directory has version 2, this program knows up to 1", "run the newer program")
	for _, body := range []string{"tapehouse data x\n", "tapehouse data 0\n", "something else", ""} {
		write(version, body)
		refuses(t, cfg, "this is not a Tapehouse data directory")
	}
	write(version, "tapehouse data 1\n")
	closeNow(t, open(t, cfg))
}

func TestOpenCredentialsAreRefused(t *testing.T) {
	cfg := testConfig(t)
	s := open(t, cfg)
	secret := s.Credentials().Keys[0].Secret
	closeNow(t, s)
	name := filepath.Join(cfg.Data, auth.CredentialsFile)
	for _, mode := range []os.FileMode{0o644, 0o640, 0o604, 0o660} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		if err := refuses(t, cfg, name, "chmod 600"); !errors.Is(err, auth.ErrCredentials) || strings.Contains(err.Error(), secret) {
			t.Error(err)
		}
	}
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(`{"version": 1, "keys": [`), 0o600); err != nil {
		t.Fatal(err)
	}
	refuses(t, cfg, name)
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
}

func TestListenersOffLoopbackNeedTLS(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:0", "example.com:0"} {
		for name, set := range map[string]func(*ListenConfig){
			"aws": func(l *ListenConfig) { l.AWS = addr }, "sql": func(l *ListenConfig) { l.SQL = addr }, "http": func(l *ListenConfig) { l.HTTP = addr },
		} {
			cfg := testConfig(t)
			set(&cfg.Listen)
			refuses(t, cfg, "listen."+name, "not a loopback address", "tls.cert")
			if entries, err := os.ReadDir(cfg.Data); err != nil || len(entries) != 0 {
				t.Errorf("the refusal touched the directory: %v %v", entries, err)
			}
		}
	}
	cfg := testConfig(t)
	cfg.TLS.Cert, cfg.TLS.Key = filepath.Join(cfg.Data, "none.pem"), filepath.Join(cfg.Data, "none.key")
	refuses(t, cfg, "none.pem")
	cfg.TLS.Key = ""
	refuses(t, cfg, "both cert and key")
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close() //nolint:errcheck // nothing was written
	cfg = testConfig(t)
	cfg.Listen.SQL = busy.Addr().String()
	refuses(t, cfg, "listen.sql", "address already in use", "choose another address or port 0")
}

// certificate makes a self-signed certificate of 127.0.0.1 and returns the
// names of its files and the pool that trusts it.
func certificate(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tapehouse test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := errors.Join(os.WriteFile(cert, certPEM, 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600)); err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return cert, key, pool
}

func TestTLSOnEveryPort(t *testing.T) {
	cert, key, pool := certificate(t)
	cfg := testConfig(t)
	cfg.TLS = TLSConfig{Cert: cert, Key: key}
	cfg.Listen.SQL = "0.0.0.0:0" // off loopback, so that plain SQL is refused
	s := open(t, cfg)
	a := s.Addresses()
	trust := &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
	secure := &http.Client{Transport: &http.Transport{TLSClientConfig: trust}, Timeout: 20 * time.Second}
	defer secure.CloseIdleConnections()
	get := func(c *http.Client, url string) (int, string, error) {
		r, err := c.Get(url)
		if err != nil {
			return 0, "", err
		}
		defer r.Body.Close() //nolint:errcheck // read to its end
		b, err := io.ReadAll(r.Body)
		return r.StatusCode, string(b), err
	}
	if code, body, err := get(secure, "https://"+a.HTTP+"/healthz"); err != nil || code != http.StatusOK {
		t.Errorf("https /healthz: %d %s %v", code, body, err)
	}
	if code, _, err := get(secure, "https://"+a.AWS+"/"); err != nil || code == http.StatusOK {
		t.Errorf("https without a signature: %d %v", code, err)
	}
	for _, addr := range []string{a.HTTP, a.AWS} {
		if code, body, err := get(&http.Client{Timeout: 20 * time.Second}, "http://"+addr+"/healthz"); err == nil && (code != http.StatusBadRequest || !strings.Contains(body, "HTTPS")) {
			t.Errorf("plain http on %s: %d %s", addr, code, body)
		}
		old := &tls.Config{RootCAs: pool, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10} //nolint:gosec // what must be refused
		if c, err := tls.Dial("tcp", addr, old); err == nil {
			_ = c.Close()
			t.Errorf("%s speaks TLS 1.1", addr)
		}
	}

	_, port, err := net.SplitHostPort(a.SQL)
	if err != nil {
		t.Fatal(err)
	}
	u := s.Credentials().Users[0]
	base := "host=127.0.0.1 port=" + port + " user=" + u.Name + " password=" + u.Password + " dbname=tapehouse "
	conn, err := pgx.Connect(t.Context(), base+"sslmode=verify-full sslrootcert="+cert)
	if err != nil {
		t.Fatal(err)
	}
	if got := text(t, conn, "SELECT count(*) FROM executions"); got != "0" {
		t.Errorf("%s rows", got)
	}
	_ = conn.Close(t.Context())
	if conn, err := pgx.Connect(t.Context(), base+"sslmode=disable"); err == nil {
		_ = conn.Close(t.Context())
		t.Error("plain SQL was let in from off loopback")
	} else if !strings.Contains(err.Error(), "28000") && !strings.Contains(strings.ToLower(err.Error()), "tls") && !strings.Contains(err.Error(), "SSL") {
		t.Errorf("plain SQL: %v", err)
	}

	// The clients that nobody here wrote, where they are.
	env := append(environ(t, s), "AWS_CA_BUNDLE="+cert, "PGHOST=127.0.0.1", "PGSSLMODE=verify-full", "PGSSLROOTCERT="+cert)
	t.Run("aws", func(t *testing.T) {
		if out, err := run(t, env, "", look(t, "aws", "TLS was not tried with it"), "firehose", "list-delivery-streams"); err != nil || !strings.Contains(out, `"executions"`) {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("psql", func(t *testing.T) {
		psql := look(t, "psql", "TLS was not tried with it")
		if out, err := run(t, env, "\\conninfo\n", psql, "-X"); err != nil || !strings.Contains(out, "SSL connection (protocol: TLSv1.3") {
			t.Errorf("%v\n%s", err, out)
		}
		if out, err := run(t, append(env, "PGSSLMODE=disable"), "select 1", psql, "-X"); err == nil {
			t.Errorf("plain psql was let in: %s", out)
		}
	})
}
