// Package s3test gives tests a real S3 server and a network that fails.
//
// Start builds and runs the server of the module testservers as a child
// process. Proxy stands before it and injects faults, by a seed, as a network
// and a busy service do them: errors, resets, slow answers, and answers that
// are lost although the request was carried out.
package s3test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// What the server is started with.
const (
	AccessKeyID     = "tapehouse-test"
	SecretAccessKey = "not-a-secret-of-anyone"
	Region          = "us-east-1"
)

const startWait = 30 * time.Second

// Server is a running S3 server without buckets but Bucket.
type Server struct {
	Endpoint string // http://127.0.0.1:PORT
	Root     string // the directory in which it keeps buckets as directories, objects as files
	Bucket   string
}

var built atomic.Bool // binary was called

// binary builds the server once in this process; "" with the reason if that
// cannot be done here.
var binary = sync.OnceValues(func() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		return "", errors.New("the source's directory is not known")
	}
	module := filepath.Join(filepath.Dir(file), "..", "..", "testservers")
	dir, err := os.MkdirTemp("", "tapehouse-s3test-")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "versitygw")
	build := exec.Command("go", "build", "-o", out, "./versitygw")
	build.Dir = module
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-buildvcs=false")
	if text, err := build.CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		return "", fmt.Errorf("go build in %s: %w: %s", module, err, bytes.TrimSpace(text))
	}
	return out, nil
})

// Main runs a package's tests and cleans up: call it from TestMain.
func Main(m *testing.M) {
	code := m.Run()
	Clean()
	os.Exit(code)
}

// Clean removes the server's binary, for a TestMain that has more to do.
func Clean() {
	if !built.Load() {
		return
	}
	if path, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
}

// Start runs a server over a fresh directory until the test ends, or skips the
// test, loudly, where the server cannot be built or run.
func Start(t testing.TB) *Server {
	t.Helper()
	built.Store(true)
	path, err := binary()
	if err != nil {
		t.Skipf("SKIPPED: no S3 server to test against: %v", err)
	}
	s := &Server{Root: t.TempDir(), Bucket: "lake"}
	if err := os.Mkdir(filepath.Join(s.Root, s.Bucket), 0o755); err != nil {
		t.Fatal(err)
	}
	var text lockedBuffer
	for attempt := 0; ; attempt++ {
		addr := freeAddr(t)
		if s.run(t, path, addr, &text) {
			s.Endpoint = "http://" + addr
			return s
		}
		if attempt == 2 {
			if strings.Contains(text.String(), "xattr") {
				t.Skipf("SKIPPED: the S3 server needs a file system with extended attributes: %s", text.String())
			}
			t.Fatalf("the S3 server did not start: %s", text.String())
		}
	}
}

// run starts the child and waits until it accepts connections.
func (s *Server) run(t testing.TB, path, addr string, text *lockedBuffer) bool {
	ctx, cancel := context.WithCancel(context.Background())
	child := exec.CommandContext(ctx, path, "-root", s.Root, "-listen", addr, "-region", Region)
	child.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+AccessKeyID, "AWS_SECRET_ACCESS_KEY="+SecretAccessKey)
	child.Stdout, child.Stderr = text, text
	stdin, err := child.StdinPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		_ = child.Wait()
		close(gone)
	}()
	stop := func() {
		_ = stdin.Close()
		cancel()
		<-gone
	}
	deadline := time.After(startWait)
	for {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			t.Cleanup(stop)
			return true
		}
		select {
		case <-gone:
			stop()
			return false
		case <-deadline:
			stop()
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func freeAddr(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// lockedBuffer keeps the first bytes of what the child says.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

var _ io.Writer = (*lockedBuffer)(nil)

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.b.Len() < 16<<10 {
		b.b.Write(p)
	}
	return len(p), nil
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
