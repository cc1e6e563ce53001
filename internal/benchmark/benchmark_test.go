package benchmark

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"strings"
	"syscall"
	"testing"

	"github.com/tapehouse/tapehouse/internal/server"
)

// TestMain makes this test's binary the server that it measures, when it is
// started as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		if err := serve(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 2 && os.Args[1] == "bench" {
		o := Options{Server: []string{os.Args[0], "serve"}, JSON: true, CPUProfile: os.Getenv("P")}
		for _, a := range os.Args[3:] {
			k, v, _ := strings.Cut(a, "=")
			n := 0
			fmt.Sscan(v, &n)
			switch k {
			case "seconds":
				o.Seconds = n
			case "runs":
				o.Runs = n
			case "conns":
				o.Connections = n
			case "rate":
				o.Rate = n
			case "records":
				o.Records = n
			case "threads":
				o.Threads = n
			case "inproc":
				o.Server = nil
			}
		}
		if n := os.Getenv("P2"); n != "" {
			f, _ := os.Create(n)
			pprof.StartCPUProfile(f)
		}
		err := Run(context.Background(), os.Args[2], o, os.Stdout)
		pprof.StopCPUProfile()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func serve(args []string) error {
	stop, err := StartProfile()
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	c := server.DefaultConfig()
	for i := 0; i+1 < len(args); i += 2 {
		switch args[i] {
		case "--data":
			c.Data = args[i+1]
		case "--aws-addr":
			c.Listen.AWS = args[i+1]
		case "--sql-addr":
			c.Listen.SQL = args[i+1]
		case "--http-addr":
			c.Listen.HTTP = args[i+1]
		}
	}
	s, err := server.Open(ctx, c, server.Options{Version: "test"})
	if err != nil {
		return err
	}
	if err := s.Wait(ctx); err != nil {
		return err
	}
	if err := s.Close(context.Background()); err != nil {
		return err
	}
	return stop()
}
