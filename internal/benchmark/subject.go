package benchmark

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/producer"
	"github.com/tapehouse/tapehouse/internal/server"
)

const (
	startWait = 30 * time.Second
	stopWait  = 60 * time.Second
)

// subject is a server under test with its shipped defaults, on a new data
// directory.
type subject struct {
	dir         string // removed by close
	addresses   server.Addresses
	credentials *auth.Credentials
	pid         int

	child   *exec.Cmd // nil: the server is in this process
	exited  chan error
	output  string // the child's standard error
	serving *server.Server

	// makeClient is Options.Client.
	makeClient func(endpoint, accessKey, secret string, connections int) (Client, error)
}

// start makes a data directory and starts a server on it.
func start(ctx context.Context, o Options) (_ *subject, err error) {
	s := &subject{makeClient: o.Client}
	if s.dir, err = os.MkdirTemp(o.Dir, "tapehouse-bench-"); err != nil {
		return nil, fmt.Errorf("make a data directory: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if o.Server == nil {
		c := server.DefaultConfig()
		c.Data = filepath.Join(s.dir, "data")
		c.Listen = server.ListenConfig{AWS: "127.0.0.1:0", SQL: "127.0.0.1:0", HTTP: "127.0.0.1:0"}
		if s.serving, err = server.Open(ctx, c, server.Options{Version: "bench"}); err != nil {
			return nil, err
		}
		s.addresses, s.credentials, s.pid = s.serving.Addresses(), s.serving.Credentials(), os.Getpid()
		return s, nil
	}
	return s, s.spawn(ctx, o)
}

// spawn starts the server as a process of its own and waits until it is ready.
func (s *subject) spawn(ctx context.Context, o Options) error {
	data := filepath.Join(s.dir, "data")
	s.output = filepath.Join(s.dir, "server.log")
	out, err := os.Create(s.output)
	if err != nil {
		return err
	}
	defer out.Close() //nolint:errcheck // the child has its own descriptor
	args := append(o.Server[1:len(o.Server):len(o.Server)], "--data", data,
		"--aws-addr", "127.0.0.1:0", "--sql-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0")
	s.child = exec.Command(o.Server[0], args...)
	s.child.Stdout, s.child.Stderr = out, out
	s.child.Env = os.Environ()
	if o.CPUProfile != "" {
		s.child.Env = append(s.child.Env, ProfileEnv+"="+o.CPUProfile)
	}
	if err := s.child.Start(); err != nil {
		s.child = nil
		return fmt.Errorf("start the server: %w", err)
	}
	s.pid = s.child.Process.Pid
	s.exited = make(chan error, 1)
	go func() { s.exited <- s.child.Wait() }()

	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		e, err := console.ReadEndpoints(fsys.OS, data)
		if err == nil && e.PID != s.pid { // what a killed server left
			err = console.ErrNotRunning
		}
		if err == nil {
			s.addresses = server.Addresses{AWS: e.AWS, SQL: e.SQL, HTTP: e.HTTP, PID: e.PID}
			break
		}
		if !errors.Is(err, console.ErrNotRunning) {
			return err
		}
		select {
		case err := <-s.exited:
			s.exited <- err
			return fmt.Errorf("the server ended while it started: %w\n%s", err, s.said())
		case <-ctx.Done():
			return fmt.Errorf("the server is not ready: %w\n%s", ctx.Err(), s.said())
		case <-poll.C:
		}
	}
	s.credentials, err = auth.Load(fsys.OS, data)
	return err
}

// kill ends the server's process as a power cut would, without a word.
func (s *subject) kill() error {
	if err := s.child.Process.Kill(); err != nil {
		return fmt.Errorf("kill the server: %w", err)
	}
	err := <-s.exited
	s.child = nil
	if err == nil {
		return errors.New("the server ended by itself before it could be killed")
	}
	return nil
}

// said is the end of what the server printed.
func (s *subject) said() string {
	const bytesMax = 4 << 10
	b, err := os.ReadFile(s.output)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-bytesMax):])
}

// close stops the server, which flushes, and removes the directory.
func (s *subject) close() error {
	var err error
	switch {
	case s.serving != nil:
		err = s.serving.Close(context.Background())
	case s.child != nil:
		err = s.child.Process.Signal(syscall.SIGTERM)
		select {
		case werr := <-s.exited:
			if werr != nil {
				err = fmt.Errorf("the server's end: %w\n%s", werr, s.said())
			}
		case <-time.After(stopWait):
			err = errors.Join(fmt.Errorf("the server did not stop within %s", stopWait), s.child.Process.Kill(), <-s.exited)
		}
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// client returns the client that puts the load.
func (s *subject) client(connections int) (Client, error) {
	if s.makeClient == nil {
		return s.producer(connections)
	}
	k := s.credentials.Keys[0]
	return s.makeClient("http://"+s.addresses.AWS, k.ID, k.Secret, connections)
}

// producer returns a Firehose client.
func (s *subject) producer(connections int) (*producer.Client, error) {
	k := s.credentials.Keys[0]
	return producer.New(producer.Config{Endpoint: "http://" + s.addresses.AWS, AccessKey: k.ID, Secret: k.Secret, Connections: connections})
}

// sql opens a SQL connection.
func (s *subject) sql(ctx context.Context) (*pgx.Conn, error) {
	u := s.credentials.Users[0]
	c, err := pgx.Connect(ctx, fmt.Sprintf("postgres://%s:%s@%s/tapehouse", u.Name, u.Password, s.addresses.SQL))
	if err != nil {
		return nil, fmt.Errorf("connect to SQL: %w", err)
	}
	return c, nil
}

// StartProfile begins a CPU profile if ProfileEnv asks for one. A server
// process calls it first, and stop last.
func StartProfile() (stop func() error, err error) { return profile(os.Getenv(ProfileEnv)) }

// profile writes a CPU profile of this process to the named file until stop is
// called; "" is no profile.
func profile(name string) (stop func() error, err error) {
	if name == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("CPU profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("CPU profile: %w", err), f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}
