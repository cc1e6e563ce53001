package pgtest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// StartPooler runs PgBouncer in transaction mode before the server until the
// test ends, with so few sessions that each transaction takes another one's, or
// skips the test, loudly, where there is none. It returns its address.
func (s *Server) StartPooler(t testing.TB) (addr string) {
	t.Helper()
	path, err := exec.LookPath("pgbouncer")
	if err != nil {
		t.Skip("SKIPPED: no pgbouncer (Debian: apt install pgbouncer): the catalog was not tried behind a pooler")
	}
	as, err := unprivileged()
	if err != nil {
		t.Skipf("SKIPPED: the catalog was not tried behind a pooler: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	_ = l.Close()
	dir, err := os.MkdirTemp("", "tapehouse-pooler-")
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := strings.Cut(s.Addr, ":")
	_, own, _ := strings.Cut(addr, ":")
	ini := fmt.Sprintf(`[databases]
* = host=%s port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s
pool_mode = transaction
default_pool_size = 2
server_lifetime = 1
server_round_robin = 1
`, host, port, own, filepath.Join(dir, "users"))
	for name, text := range map[string]string{"pooler.ini": ini, "users": fmt.Sprintf("%q \"%s\"\n", User, strings.ReplaceAll(Password, `"`, `""`))} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if as != nil {
		for _, name := range []string{dir, filepath.Join(dir, "pooler.ini"), filepath.Join(dir, "users")} {
			if err := os.Chown(name, int(as.Credential.Uid), int(as.Credential.Gid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, filepath.Join(dir, "pooler.ini"))
	cmd.Dir, cmd.SysProcAttr = dir, as
	var text lockedBuffer
	cmd.Stdout, cmd.Stderr = &text, &text
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed
		_ = os.RemoveAll(dir)
	})
	for deadline := time.Now().Add(startWait); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			return addr
		}
		if time.Now().After(deadline) {
			t.Fatalf("pgbouncer does not answer: %v: %s", err, text.String())
		}
	}
}
