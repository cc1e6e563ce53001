package lake

import (
	"bytes"
	"encoding/pem"
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/s3test"
)

// TestOverTLS uses a store over https, where the SDK signs requests otherwise
// than over http. The certificate is trusted by SSL_CERT_FILE, which a process
// reads once: so it is a process of its own.
func TestOverTLS(t *testing.T) {
	const endpoint, bucket = "TAPEHOUSE_TEST_TLS_ENDPOINT", "TAPEHOUSE_TEST_TLS_BUCKET"
	if os.Getenv(endpoint) != "" {
		server := &s3test.Server{Endpoint: os.Getenv(endpoint), Bucket: os.Getenv(bucket)}
		s := openS3(t, server, server.Endpoint, "tls", nil)
		if err := s.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		for name, size := range map[string]int{"small": 1000, "large": 2*partBytesMin + 7} {
			data := random(1, size)
			if err := s.Put(t.Context(), name, iotestReader(data), int64(size)); err != nil {
				t.Fatal(err)
			}
			if b, err := s.Get(t.Context(), name); err != nil || !bytes.Equal(b, data) {
				t.Errorf("%s: %d bytes, %v", name, len(b), err)
			}
			if err := s.Put(t.Context(), name, iotestReader(data), int64(size)); !errors.Is(err, ErrExists) {
				t.Errorf("%s again: %v", name, err)
			}
		}
		return
	}
	server := s3test.Start(t)
	front := httptest.NewTLSServer(s3test.StartProxy(t, server.Endpoint, time.Second))
	defer front.Close()
	cert := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOverTLS$")
	child.Env = append(os.Environ(), "SSL_CERT_FILE="+cert, endpoint+"="+front.URL, bucket+"="+server.Bucket)
	if text, err := child.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, text)
	}
}
