package demo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/fsys"
)

const (
	// readyWait bounds how long a server may take to become ready, with the
	// replay of its log.
	readyWait = 2 * time.Minute
	// stopWait bounds how long it may take to drain.
	stopWait = time.Minute

	readyPoll   = 10 * time.Millisecond
	logLinesMax = 12

	// LogFile is the name of the server's log in the demo's directory.
	LogFile = "serve.log"
)

// Addresses are where a server is to listen; a port 0 is any that is free.
type Addresses struct{ AWS, SQL, HTTP string }

// Server is a server process.
type Server struct {
	Dir         string
	Endpoints   console.Endpoints
	Credentials *auth.Credentials
	Console     *console.Client

	command *exec.Cmd
	done    chan struct{} // closed when the process has ended
	ended   error         // valid then
}

// Launch says how to run a server.
type Launch struct {
	Program   string // run with `serve`
	Dir       string // the data directory
	Addresses Addresses
	Config    string // configuration file; "" is none
}

// StartServer runs a server, its output appended to LogFile, and waits until it
// is ready; if ctx ends before that, it is killed. It is also killed if this
// process dies.
func StartServer(ctx context.Context, l Launch) (*Server, error) {
	dir := l.Dir
	log, err := os.OpenFile(filepath.Join(dir, LogFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	s := &Server{Dir: dir, done: make(chan struct{})}
	s.command = exec.Command(l.Program, "serve", "--data", dir, "--aws-addr", l.Addresses.AWS, "--sql-addr", l.Addresses.SQL, "--http-addr", l.Addresses.HTTP)
	if l.Config != "" {
		s.command.Args = append(s.command.Args, "--config", l.Config)
	}
	s.command.Stdout, s.command.Stderr = log, log
	s.command.SysProcAttr = childAttributes()
	started := make(chan error, 1)
	go func() {
		// The child is told when the *thread* that made it dies: it must live on.
		runtime.LockOSThread()
		err := s.command.Start()
		started <- err
		if err == nil {
			s.ended = s.command.Wait()
		}
		_ = log.Close() // the child has its own
		close(s.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	if err := s.waitReady(ctx); err != nil {
		s.Kill()
		return nil, err
	}
	return s, nil
}

// PID is the process.
func (s *Server) PID() int { return s.command.Process.Pid }

func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyWait, fmt.Errorf("the server is not ready after %s; its log is %s", readyWait, filepath.Join(s.Dir, LogFile)))
	defer cancel()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.done:
			return fmt.Errorf("the server ended at once (%w):\n%s", errors.Join(s.ended, errEnded), s.logTail())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		e, err := console.ReadEndpoints(fsys.OS, s.Dir)
		if err != nil || e.PID != s.PID() {
			continue // not there yet, or that of a server that was killed
		}
		if s.Credentials, err = auth.Load(fsys.OS, s.Dir); err != nil {
			return err
		}
		s.Endpoints, s.Console = e, console.NewClient(e, s.Credentials.Users[0])
		if s.Console.Ready(ctx) == nil {
			return nil
		}
	}
}

var errEnded = errors.New("process ended")

// logTail is the end of the server's log.
func (s *Server) logTail() string {
	data, err := os.ReadFile(filepath.Join(s.Dir, LogFile))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(lines) > logLinesMax {
		lines = lines[len(lines)-logLinesMax:]
	}
	return "  " + strings.Join(lines, "\n  ")
}

// Addresses are those that a successor must take for clients to find it.
func (s *Server) Addresses() Addresses {
	return Addresses{s.Endpoints.AWS, s.Endpoints.SQL, s.Endpoints.HTTP}
}

// Kill ends the process without a chance to do anything, and waits for its end.
func (s *Server) Kill() {
	_ = s.command.Process.Kill() // it may have ended
	<-s.done
	s.closeConsole()
}

// Stop asks the process to drain, and waits for its end.
func (s *Server) Stop() error {
	defer s.closeConsole()
	if err := s.command.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the server: %w", err)
	}
	select {
	case <-s.done:
		if s.ended != nil {
			return fmt.Errorf("the server did not end well (%w):\n%s", s.ended, s.logTail())
		}
		return nil
	case <-time.After(stopWait):
		s.Kill()
		return fmt.Errorf("the server did not end within %s; it was killed; its log is %s", stopWait, filepath.Join(s.Dir, LogFile))
	}
}

func (s *Server) closeConsole() {
	if s.Console != nil {
		s.Console.Close()
	}
}

// Done is closed when the process has ended.
func (s *Server) Done() <-chan struct{} { return s.done }

// MemoryPeakBytes is the most resident memory that the process has had; 0 where
// the system does not tell.
func (s *Server) MemoryPeakBytes() int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
	if err != nil {
		return 0
	}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err == nil {
				return kib << 10
			}
		}
	}
	return 0
}

// freeAddresses are the wanted ones, or any port where one is taken.
func freeAddresses(want Addresses) Addresses {
	free := func(addr string) string {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return "127.0.0.1:0"
		}
		_ = l.Close() // it was only to look
		return addr
	}
	return Addresses{free(want.AWS), free(want.SQL), free(want.HTTP)}
}
