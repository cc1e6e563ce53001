// Package pgtest gives tests a real PostgreSQL server and a network that fails.
//
// Start runs the machine's own postgres as a child process, once for a test
// binary, over a fresh cluster; Database makes a database for one test. Proxy
// stands before the server and cuts connections around COMMIT.
package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// User is the superuser.
	User = "tapehouse"
	// Password has what URLs, shells and connection strings trip over.
	Password = `p@ss: 'w/ord%20?#&=`

	startWait = time.Minute
)

// Server is a running PostgreSQL server.
type Server struct {
	Addr string // 127.0.0.1:PORT

	stop func()
	made atomic.Int64
}

var (
	mu      sync.Mutex
	running *Server
	reason  error // why there is none
	tried   bool
)

// Stop ends the server, if one was started: call it from TestMain, after the tests.
func Stop() {
	mu.Lock()
	defer mu.Unlock()
	if running != nil {
		running.stop()
		running = nil
	}
}

// Start returns this test binary's server, or skips the test, loudly, where
// PostgreSQL is not installed.
func Start(t testing.TB) *Server {
	t.Helper()
	s, err := Get()
	if err != nil {
		t.Skipf("SKIPPED: no PostgreSQL to test against: %v", err)
	}
	return s
}

// Get is Start for a TestMain.
func Get() (*Server, error) {
	mu.Lock()
	defer mu.Unlock()
	if !tried {
		tried = true
		for range 3 { // the port may be taken between our looking and its binding
			if running, reason = start(); reason == nil || errors.Is(reason, errMissing) {
				break
			}
		}
	}
	return running, reason
}

var errMissing = errors.New("is not installed")

// program finds postgres or initdb: in PATH, or where Debian and others put it.
func program(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return filepath.EvalSymlinks(path)
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	for _, pattern := range []string{"/usr/pgsql-*/bin/", "/opt/homebrew/opt/postgresql@*/bin/", "/usr/local/opt/postgresql@*/bin/"} {
		more, _ := filepath.Glob(pattern + name)
		found = append(found, more...)
	}
	if len(found) == 0 {
		return "", fmt.Errorf("%s %w (Debian: apt install postgresql)", name, errMissing)
	}
	slices.Sort(found)
	return found[len(found)-1], nil
}

// unprivileged is whom postgres runs as: it refuses root.
func unprivileged() (*syscall.SysProcAttr, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
	}
	return nil, errors.New("these tests run as root, whom postgres refuses, and there is neither a user postgres nor nobody")
}

func start() (_ *Server, err error) {
	postgres, err := program("postgres")
	if err != nil {
		return nil, err
	}
	initdb, err := program("initdb")
	if err != nil {
		return nil, err
	}
	as, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "tapehouse-pgtest-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(dir)
		}
	}()
	passwords := filepath.Join(dir, "password")
	if err := os.WriteFile(passwords, []byte(Password+"\n"), 0o600); err != nil {
		return nil, err
	}
	if as != nil {
		for _, name := range []string{dir, passwords} {
			if err := os.Chown(name, int(as.Credential.Uid), int(as.Credential.Gid)); err != nil {
				return nil, err
			}
		}
	}
	data := filepath.Join(dir, "data")
	// A collation that does not sort by bytes, where there is one: the catalog
	// must not rely on the database's.
	base := []string{"-D", data, "-U", User, "-E", "UTF8", "--auth=scram-sha-256", "--pwfile=" + passwords, "--no-sync"}
	for _, locale := range [][]string{{"--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"}, {"--locale=C"}} {
		cmd := exec.Command(initdb, append(slices.Clone(base), locale...)...)
		cmd.Dir, cmd.SysProcAttr = dir, as
		var text []byte
		if text, err = cmd.CombinedOutput(); err == nil {
			break
		}
		err = fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(text))
		_ = os.RemoveAll(data)
	}
	if err != nil {
		return nil, err
	}
	return run(postgres, dir, data, as)
}

// run starts the server and waits until it answers.
func run(postgres, dir, data string, as *syscall.SysProcAttr) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	if err := l.Close(); err != nil {
		return nil, err
	}
	// The shell ends the server, and removes what it leaves, when its own input
	// ends: however this process goes.
	const script = `exec 3<&0; dir=$1; shift; "$0" "$@" </dev/null & server=$!
(read -r line <&3; kill -INT $server; while kill -0 $server; do sleep 0.1; done; rm -rf -- "$dir") >/dev/null 2>&1 &
wait $server`
	cmd := exec.Command("/bin/sh", "-c", script, postgres, dir, "-D", data, "-p", port,
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=200", "-c", "shared_buffers=32MB",
		"-c", "max_prepared_transactions=10", "-c", "autovacuum_naptime=10s")
	cmd.Dir, cmd.SysProcAttr = dir, as
	var text lockedBuffer
	cmd.Stdout, cmd.Stderr = &text, &text
	input, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	gone := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(gone)
	}()
	s := &Server{Addr: addr}
	s.stop = func() {
		_ = input.Close()
		<-gone
		_ = os.RemoveAll(dir)
	}
	for deadline := time.Now().Add(startWait); ; time.Sleep(20 * time.Millisecond) {
		select {
		case <-gone:
			return nil, fmt.Errorf("postgres ended: %s", text.String())
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := s.exec(ctx, "postgres", "SELECT 1")
		cancel()
		if err == nil {
			return s, nil
		}
		if time.Now().After(deadline) {
			_ = input.Close()
			<-gone
			return nil, fmt.Errorf("postgres does not answer: %w: %s", err, text.String())
		}
	}
}

// URL is that of a database, at addr: the server's or a proxy's.
func URL(addr, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(User, Password), Host: addr, Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// Database makes an empty database, which goes with the test, and returns its name.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", s.made.Add(1))
	s.Exec(t, "postgres", "CREATE DATABASE "+name)
	t.Cleanup(func() { s.Exec(t, "postgres", "DROP DATABASE "+name+" WITH (FORCE)") })
	return name
}

// Exec runs statements in a database.
func (s *Server) Exec(t testing.TB, database, statements string) {
	t.Helper()
	if err := s.exec(context.Background(), database, statements); err != nil {
		t.Fatalf("%s: %v", statements, err)
	}
}

func (s *Server) exec(ctx context.Context, database, statements string) error {
	c, err := pgconn.Connect(ctx, URL(s.Addr, database))
	if err != nil {
		return err
	}
	_, err = c.Exec(ctx, statements).ReadAll()
	return errors.Join(err, c.Close(context.WithoutCancel(ctx)))
}

// lockedBuffer keeps the last of what the server says.
type lockedBuffer struct {
	mu sync.Mutex
	b  []byte
}

var _ io.Writer = (*lockedBuffer)(nil)

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b = append(b.b, p...)
	b.b = b.b[max(0, len(b.b)-16<<10):]
	return len(p), nil
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.TrimSpace(string(b.b))
}
