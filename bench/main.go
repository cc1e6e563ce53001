// Command bench measures Tapehouse beside its peers, in one run on one machine:
// the log beside NATS JetStream, the raw signed client beside the AWS SDK's. It is
// a module of its own, so that the product does not depend on them.
//
//	go run . log
//	go run . sdk --server ../bin/tapehouse --seconds 30
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/tapehouse/tapehouse/internal/benchmark"
)

const usage = `usage: bench log [flags]   the log alone beside NATS JetStream, sync_interval: always
       bench sdk [flags]   ingestion by the AWS SDK's client beside the raw signed one
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("which one?\n%s", usage)
	}
	var o benchmark.Options
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	f.IntVar(&o.Seconds, "seconds", 5, "length of a run")
	f.IntVar(&o.Runs, "runs", 3, "runs of each, of which the median counts")
	f.IntVar(&o.Connections, "connections", 16, "sdk: producers with one put outstanding each")
	f.StringVar(&o.Dir, "dir", "", "where data is written, and removed (default: the system's temporary directory)")
	server := f.String("server", "../bin/tapehouse", "sdk: the program whose server is measured")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	o.JSON = true
	switch args[0] {
	case "log":
		return logs(ctx, o, out)
	case "sdk":
		o.Server = []string{*server, "serve"}
		return clients(ctx, o, out)
	}
	return fmt.Errorf("no such benchmark: %q\n%s", args[0], usage)
}

// measured runs one of Tapehouse's benchmarks, passes on what it prints, and
// decodes its report.
func measured[T any](ctx context.Context, name string, o benchmark.Options, out io.Writer) (T, error) {
	var report struct{ Result T }
	var printed bytes.Buffer
	if err := benchmark.Run(ctx, name, o, io.MultiWriter(out, &printed)); err != nil {
		return report.Result, err
	}
	lines := strings.Split(strings.TrimSpace(printed.String()), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &report); err != nil {
		return report.Result, fmt.Errorf("read the report of %s: %w", name, err)
	}
	return report.Result, nil
}

// clients measures ingestion by the SDK's client and by the raw one, in turn.
func clients(ctx context.Context, o benchmark.Options, out io.Writer) error {
	type ingested struct {
		Rate   float64 `json:"records_per_second"`
		Server float64 `json:"server_cpu_ns_per_record"`
		Client float64 `json:"client_cpu_ns_per_record"`
	}
	fmt.Fprintln(out, "the raw signed client:")
	raw, err := measured[ingested](ctx, "ingest", o, out)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "aws-sdk-go-v2:")
	o.Client = newSDK
	sdk, err := measured[ingested](ctx, "ingest", o, out)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "raw client %.0f records/s (client %.0f ns CPU a record), SDK %.0f records/s (%.0f ns)\n", raw.Rate, raw.Client, sdk.Rate, sdk.Client)
	return nil
}
