package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/benchmark"
	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/server"
	"github.com/tapehouse/tapehouse/internal/terminal"
)

// disk is where data directories are.
var disk = fsys.OS

// dataFlags choose the data directory and the configuration behind it.
type dataFlags struct {
	data   string
	config string
}

func (f *dataFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.data, "data", "", "data directory (default: the configuration's, tapehouse-data)")
	c.Flags().StringVar(&f.config, "config", "", "configuration file; see tapehouse config")
}

// load reads the configuration, over which the flags win.
func (f *dataFlags) load() (server.Config, error) {
	cfg := server.DefaultConfig()
	if f.config != "" {
		var err error
		if cfg, err = server.LoadConfig(f.config); err != nil {
			return cfg, err
		}
	}
	if f.data != "" {
		cfg.Data = f.data
	}
	if url := os.Getenv(server.CatalogEnv); url != "" {
		cfg.Catalog = url
	}
	return cfg, nil
}

func newServe() *cobra.Command {
	var f dataFlags
	var aws, sql, http string
	c := &cobra.Command{
		Use:     "serve",
		GroupID: groupStart,
		Short:   "Run the server on a data directory",
		Long: `Runs the server until SIGINT or SIGTERM, which drains it: requests in progress
are answered, and everything acknowledged is flushed to the lake.

The first start creates the data directory, random credentials in it (mode 0600)
and the equities pack's streams, tables and views. When the server is ready it
prints its addresses and writes them to DIR/server.json. Port 0 takes a free
port. A listener that is not on loopback needs TLS.

` + exitCodes,
		Example: `  tapehouse serve
  tapehouse serve --data /srv/tapehouse --config /etc/tapehouse.yaml
  tapehouse serve --data ./data --aws-addr 127.0.0.1:0 \
      --sql-addr 127.0.0.1:0 --http-addr 127.0.0.1:0`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := f.load()
			if err != nil {
				return err
			}
			for _, a := range []struct {
				flag *string
				to   *string
			}{{&aws, &cfg.Listen.AWS}, {&sql, &cfg.Listen.SQL}, {&http, &cfg.Listen.HTTP}} {
				if *a.flag != "" {
					*a.to = *a.flag
				}
			}
			return serve(c.Context(), cfg, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f.add(c)
	c.Flags().StringVar(&aws, "aws-addr", "", "address of the AWS APIs (default 127.0.0.1:4566)")
	c.Flags().StringVar(&sql, "sql-addr", "", "address of the PostgreSQL protocol (default 127.0.0.1:5439)")
	c.Flags().StringVar(&http, "http-addr", "", "address of console, health and metrics (default 127.0.0.1:8080)")
	return c
}

// newLogger makes the logger that the configuration describes.
func newLogger(cfg server.LoggingConfig, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.Level)) // Config.Check knows the words
	o := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

func serve(ctx context.Context, cfg server.Config, out, errs io.Writer) (err error) {
	if err := cfg.Check(); err != nil {
		return &codeError{exitUsage, err}
	}
	stopProfile, err := benchmark.StartProfile() // if a benchmark asks for one
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopProfile()) }()
	s, err := server.Open(ctx, cfg, server.Options{Version: version, Logger: newLogger(cfg.Logging, errs)})
	if err != nil {
		return err
	}
	a := s.Addresses()
	scheme := "http"
	if cfg.TLS.Cert != "" {
		scheme = "https"
	}
	fmt.Fprintf(out, `Tapehouse %s is ready on %s
  AWS APIs  %s://%s
  SQL       %s
  console   %s://%s
`, version, cfg.Data, scheme, a.AWS, a.SQL, scheme, a.HTTP)
	waited := s.Wait(ctx)
	// The signal ended ctx; stopping has its own time.
	return errors.Join(waited, s.Close(context.WithoutCancel(ctx)))
}

// readyWait bounds how long `ready` waits for an answer.
const readyWait = 4 * time.Second

func newReady() *cobra.Command {
	var f dataFlags
	c := &cobra.Command{
		Use:     "ready",
		GroupID: groupStart,
		Short:   "Say whether the server takes requests; for health checks",
		Long: `Asks the server of the data directory whether it takes requests, and ends with 0
if it does. It needs no credentials, and waits four seconds at most.

` + exitCodes,
		Example: `  tapehouse ready --data ./data`,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := f.load()
			if err != nil {
				return err
			}
			e, err := console.ReadEndpoints(disk, cfg.Data)
			if err != nil {
				return err
			}
			client := console.NewClient(e, auth.SQLUser{})
			defer client.Close()
			ctx, cancel := context.WithTimeout(c.Context(), readyWait)
			defer cancel()
			if err := client.Ready(ctx); err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), "ready")
			return err
		},
	}
	f.add(c)
	return c
}

func newEnv() *cobra.Command {
	var f dataFlags
	var name string
	c := &cobra.Command{
		Use:     "env",
		GroupID: groupStart,
		Short:   "Print the variables with which aws, psql and SDKs find the server",
		Long: `Prints export commands for a POSIX shell: AWS_ENDPOINT_URL, the AWS keys and
region, PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE. The addresses are those
of the running server, or of the configuration if none runs.

Without --credential they are the administrator's. With it they are those of that
name: the AWS variables if it has an access key, the PG ones if it is a SQL user.

The output holds secrets: eval it, do not log it.`,
		Example: `  eval "$(tapehouse env --data ./data)"
  aws firehose list-delivery-streams
  psql -c 'select count(*) from equities.executions'
  eval "$(tapehouse env --credential feed)"`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := f.load()
			if err != nil {
				return err
			}
			credentials, err := loadCredentials(cfg.Data)
			if err != nil {
				return err
			}
			if name != "" {
				if credentials = credentials.Named(name); len(credentials.Keys)+len(credentials.Users) == 0 {
					return fmt.Errorf("no access key and no SQL user is named %s; tapehouse credentials list shows what there is", name)
				}
			}
			e, err := endpoints(cfg)
			if err != nil {
				return err
			}
			vars, err := credentials.Env(auth.Endpoints{AWSURL: e.AWSURL(), Region: e.Region, SQLAddr: e.SQL, Database: e.Database})
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(auth.AppendShell(nil, vars))
			return err
		},
	}
	f.add(c)
	c.Flags().StringVar(&name, "credential", "", "the name of an access key or SQL user (default: the administrator)")
	return c
}

// loadCredentials reads a data directory's credentials, or says how to get some.
func loadCredentials(dir string) (*auth.Credentials, error) {
	c, err := auth.Load(disk, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no credentials: no server was ever started on it; run: tapehouse serve --data %s", dir, terminal.ShellWord(dir))
	}
	return c, err
}

// endpoints are those of the running server, or where it would listen.
func endpoints(cfg server.Config) (console.Endpoints, error) {
	e, err := console.ReadEndpoints(disk, cfg.Data)
	if errors.Is(err, console.ErrNotRunning) {
		e, err = console.Endpoints{AWS: cfg.Listen.AWS, SQL: cfg.Listen.SQL, HTTP: cfg.Listen.HTTP, TLS: cfg.TLS.Cert != "", Region: cfg.Region, Database: console.DefaultDatabase}, nil
	}
	return e, err
}

// embeddedWait bounds how long a command waits for the server that it opened.
const embeddedWait = time.Minute

// withServer calls fn with a client of the server of the data directory. If none
// runs and the command only looks, it opens the directory itself for the
// duration, on free ports of the loopback interface.
func withServer(ctx context.Context, f dataFlags, embed bool, errs io.Writer, fn func(*console.Client) error) (err error) {
	cfg, err := f.load()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(cfg.Data, auth.CredentialsFile)); err != nil {
		_, err = loadCredentials(cfg.Data)
		return err
	}
	client, err := console.Dial(ctx, disk, cfg.Data)
	if err == nil {
		defer client.Close()
		return fn(client)
	}
	if !errors.Is(err, console.ErrNotRunning) {
		return err
	}
	if !embed {
		return fmt.Errorf("%w; start it with: tapehouse serve --data %s", err, terminal.ShellWord(cfg.Data))
	}
	cfg.Listen = server.ListenConfig{AWS: "127.0.0.1:0", SQL: "127.0.0.1:0", HTTP: "127.0.0.1:0"}
	cfg.TLS = server.TLSConfig{}
	cfg.Logging.Level = "error"
	s, err := server.Open(ctx, cfg, server.Options{Version: version, Logger: newLogger(cfg.Logging, errs)})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), embeddedWait)
		defer cancel()
		err = errors.Join(err, s.Close(ctx))
	}()
	a := s.Addresses()
	own := console.NewClient(console.Endpoints{AWS: a.AWS, SQL: a.SQL, HTTP: a.HTTP}, s.Credentials().Users[0])
	defer own.Close()
	return fn(own)
}

func newConfig() *cobra.Command {
	return &cobra.Command{
		Use:     "config",
		GroupID: groupOther,
		Short:   "Print the annotated configuration with every key at its default",
		Example: `  tapehouse config > tapehouse.yaml
  tapehouse serve --config tapehouse.yaml`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := io.WriteString(c.OutOrStdout(), server.Sample)
			return err
		},
	}
}

func newVersion() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "version",
		GroupID: groupOther,
		Short:   "Print the program's version",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if asJSON {
				return printJSON(c.OutOrStdout(), map[string]string{"version": version})
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "tapehouse %s\n", version)
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
