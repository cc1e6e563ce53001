package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/demo"
	"github.com/tapehouse/tapehouse/internal/exchange"
	"github.com/tapehouse/tapehouse/internal/producer"
	"github.com/tapehouse/tapehouse/internal/terminal"
	"github.com/tapehouse/tapehouse/packs"
)

// generateFlags are what `generate` takes.
type generateFlags struct {
	dataFlags
	seed        uint64
	records     int64
	tradeDate   string
	itch        string
	lobster     string
	symbol      string
	endpoint    string
	ndjson      string
	manifest    string
	from        int64
	rate        int
	connections int
	asJSON      bool
}

func newGenerate() *cobra.Command {
	var f generateFlags
	c := &cobra.Command{
		Use:     "generate",
		GroupID: groupData,
		Short:   "Play a simulated trade date, or a real capture",
		Long: `Plays one trade date: a seeded simulated exchange, a Nasdaq TotalView-ITCH 5.0
file, or a LOBSTER message file (both plain or gzip). The same seed gives the same
bytes. Members and fee codes, which captures lack, are assigned by the seed. LOBSTER
files of several symbols may share a trade date. Play one ITCH file a trade date:
two would give their records the same numbers, which the close reports as conflicts.

It puts the records to the streams order-events, executions, corrections and
markers, which must exist: of the server of --data DIR, or of --endpoint URL with
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION from the environment; or
it writes them to --ndjson DIR (a file a stream) or - (standard output). A put is
sent again until it is acknowledged; so is a whole run, without harm: sources
number their records, and the server knows what it has.

` + exitCodes,
		Example: `  tapehouse generate --data ./data --records 1000000 --manifest day.manifest
  tapehouse generate --itch 12302019.NASDAQ_ITCH50.gz --data ./data
  tapehouse generate --lobster GOOG_2012-06-21_message_1.csv.gz --ndjson out
  tapehouse generate --records 5 --ndjson - | jq .`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	f.add(c)
	p := c.Flags()
	p.Uint64Var(&f.seed, "seed", 1, "seed")
	p.Int64Var(&f.records, "records", 2_000_000, "records of the simulated exchange, markers apart")
	p.StringVar(&f.tradeDate, "trade-date", "", "trade date (default: the capture's name, or the last one that has ended)")
	p.StringVar(&f.itch, "itch", "", "play a Nasdaq TotalView-ITCH 5.0 file")
	p.StringVar(&f.lobster, "lobster", "", "play a LOBSTER message file")
	p.StringVar(&f.symbol, "symbol", "", "the LOBSTER file's symbol (default: from its name)")
	p.StringVar(&f.endpoint, "endpoint", "", "Firehose endpoint, http://host:port")
	p.StringVar(&f.ndjson, "ndjson", "", "write NDJSON to a directory, or to standard output (-)")
	p.StringVar(&f.manifest, "manifest", "", "write the keys and hashes of all records, for tapehouse check")
	p.Int64Var(&f.from, "from", 0, "leave out so many records at the beginning (the manifest has them)")
	p.IntVar(&f.rate, "rate", 0, "records a second (default: as fast as they are taken)")
	p.IntVar(&f.connections, "connections", 8, "puts in flight")
	p.BoolVar(&f.asJSON, "json", false, "print the outcome as JSON")
	return c
}

func (f *generateFlags) check() error {
	switch {
	case f.itch != "" && f.lobster != "":
		return usagef("--itch or --lobster, not both")
	case f.endpoint != "" && f.ndjson != "":
		return usagef("--endpoint or --ndjson, not both")
	case f.from < 0 || f.rate < 0 || f.records < 0:
		return usagef("--from, --rate and --records must not be negative")
	case f.connections < 1 || f.connections > 1024:
		return usagef("--connections: want 1 to 1024")
	case f.ndjson == "-" && f.asJSON:
		return usagef("--json would mix with the records on standard output")
	}
	return nil
}

// player opens what is played. close must be called after the last Next.
func (f *generateFlags) player() (p exchange.Player, close func() error, err error) {
	pack, err := packs.Load(packs.Equities())
	if err != nil {
		return nil, nil, err
	}
	name := f.itch + f.lobster
	if name == "" {
		d, err := demo.TradeDate(pack.Calendar, f.tradeDate, time.Now())
		if err != nil {
			return nil, nil, &codeError{exitUsage, err}
		}
		x, err := exchange.New(exchange.DefaultConfig(pack.Calendar, d, f.seed, f.records))
		if err != nil {
			return nil, nil, &codeError{exitUsage, err}
		}
		return x, func() error { return nil }, nil
	}
	cfg := exchange.PlayConfig{Seed: f.seed, Calendar: pack.Calendar}
	if f.tradeDate != "" {
		cfg.TradeDate, err = calendar.ParseTradeDate(f.tradeDate)
	} else if d, ok := exchange.TradeDateOfFile(name); ok {
		cfg.TradeDate = d
	} else {
		err = fmt.Errorf("the name of %s tells no trade date: give --trade-date", name)
	}
	if err != nil {
		return nil, nil, &codeError{exitUsage, err}
	}
	in, err := os.Open(name)
	if err != nil {
		return nil, nil, fmt.Errorf("open the capture: %w", err)
	}
	if f.itch != "" {
		p, err = exchange.NewITCH(in, cfg)
	} else {
		symbol, ok := f.symbol, f.symbol != ""
		if !ok {
			if symbol, ok = exchange.SymbolOfFile(name); !ok {
				return nil, nil, errors.Join(usagef("the name of %s tells no symbol: give --symbol", name), in.Close())
			}
		}
		p, err = exchange.NewLOBSTER(in, symbol, cfg)
	}
	if err != nil {
		return nil, nil, errors.Join(err, in.Close())
	}
	return p, in.Close, nil
}

// outcome is what generate prints.
type outcome struct {
	Records          int64   `json:"records"`
	Markers          int64   `json:"markers"`
	Acknowledged     int64   `json:"acknowledged"`
	Seconds          float64 `json:"seconds"`
	RecordsPerSecond int64   `json:"records_per_second"`
	Manifest         uint64  `json:"manifest_records,omitempty"`
	// Messages and the following are a capture's.
	Messages          int64            `json:"messages,omitempty"`
	Counts            map[string]int64 `json:"message_counts,omitempty"`
	UnknownReferences int64            `json:"unknown_references,omitempty"`
	LegsWithheld      int64            `json:"legs_withheld,omitempty"`
}

func (f *generateFlags) run(c *cobra.Command) (err error) {
	if err := f.check(); err != nil {
		return err
	}
	player, closePlayer, err := f.player()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closePlayer()) }()
	play := demo.Play{Player: player, Skip: f.from, Rate: f.rate}
	if f.manifest != "" {
		out, err := os.Create(f.manifest)
		if err != nil {
			return fmt.Errorf("make the manifest: %w", err)
		}
		defer out.Close()
		if play.Manifest, err = exchange.NewManifestWriter(out); err != nil {
			return fmt.Errorf("write the manifest: %w", err)
		}
	}
	began := time.Now()
	var o outcome
	if f.ndjson != "" {
		o, err = f.write(c, &play)
	} else {
		o, err = f.put(c, &play)
	}
	if err != nil {
		return err
	}
	if play.Manifest != nil {
		if err := play.Manifest.Close(); err != nil {
			return fmt.Errorf("write the manifest: %w", err)
		}
		o.Manifest = play.Manifest.Count()
	}
	o.Seconds = time.Since(began).Seconds()
	o.RecordsPerSecond = int64(float64(o.Records) / o.Seconds)
	if r, ok := player.(interface{ Report() exchange.Report }); ok {
		o.capture(r.Report())
	}
	return f.tell(c, o)
}

func (o *outcome) capture(r exchange.Report) {
	o.Messages, o.UnknownReferences, o.LegsWithheld = r.Messages, r.Unknown, r.LegsWithheld
	o.Counts = map[string]int64{}
	for typ, n := range r.Counts {
		if n > 0 {
			o.Counts[string(rune(typ))] = n
		}
	}
}

// put plays to a Firehose endpoint.
func (f *generateFlags) put(c *cobra.Command, play *demo.Play) (o outcome, err error) {
	cfg, err := f.target()
	if err != nil {
		return o, err
	}
	cfg.Connections = f.connections
	client, err := producer.New(cfg)
	if err != nil {
		return o, &codeError{exitUsage, err}
	}
	defer client.Close()
	play.Pipeline = producer.NewPipeline(client, producer.PipelineOptions{Workers: f.connections})
	progress := terminal.NewProgress(c.ErrOrStderr(), 5*time.Second)
	defer progress.Clear()
	began, next := time.Now(), time.Now()
	play.OnPut = func(n int64) {
		if n%1000 != 0 {
			return
		}
		if now := time.Now(); now.After(next) {
			next = now.Add(100 * time.Millisecond)
			a := play.Pipeline.Progress().Acknowledged
			progress.Set(fmt.Sprintf("%s acknowledged  %s/s", terminal.Count(a), terminal.Count(int64(float64(a)/now.Sub(began).Seconds()))))
		}
	}
	played, err := play.Run(c.Context())
	closed := play.Pipeline.Close(c.Context())
	o = outcome{Records: played.Records, Markers: played.Markers, Acknowledged: play.Pipeline.Progress().Acknowledged}
	if err == nil {
		err = closed
	}
	if err != nil {
		return o, fmt.Errorf("%s of %s records acknowledged: %w; run it again: what is there is not stored twice",
			terminal.Count(o.Acknowledged), terminal.Count(o.Records), err)
	}
	return o, nil
}

// target is where to put: the endpoint given, or the server of the directory.
func (f *generateFlags) target() (producer.Config, error) {
	if f.endpoint != "" {
		c := producer.Config{Endpoint: f.endpoint, Region: os.Getenv("AWS_REGION"), AccessKey: os.Getenv("AWS_ACCESS_KEY_ID"), Secret: os.Getenv("AWS_SECRET_ACCESS_KEY")}
		if c.AccessKey == "" || c.Secret == "" {
			return c, usagef("--endpoint needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: see tapehouse env")
		}
		return c, nil
	}
	cfg, err := f.load()
	if err != nil {
		return producer.Config{}, err
	}
	credentials, err := loadCredentials(cfg.Data)
	if err != nil {
		return producer.Config{}, err
	}
	e, err := console.ReadEndpoints(disk, cfg.Data)
	if err != nil {
		return producer.Config{}, fmt.Errorf("%w; start it with: tapehouse serve --data %s", err, terminal.ShellWord(cfg.Data))
	}
	key := credentials.Keys[0]
	return producer.Config{Endpoint: e.AWSURL(), Region: e.Region, AccessKey: key.ID, Secret: key.Secret}, nil
}

// write plays to files.
func (f *generateFlags) write(c *cobra.Command, play *demo.Play) (o outcome, err error) {
	files := map[string]*bufio.Writer{}
	var open []*os.File
	defer func() {
		for _, w := range files {
			err = errors.Join(err, w.Flush())
		}
		for _, file := range open {
			err = errors.Join(err, file.Close())
		}
	}()
	to := func(stream string) (*bufio.Writer, error) {
		if f.ndjson == "-" {
			stream = ""
		}
		if w := files[stream]; w != nil {
			return w, nil
		}
		out := c.OutOrStdout()
		if stream != "" {
			if err := os.MkdirAll(f.ndjson, 0o755); err != nil {
				return nil, err
			}
			file, err := os.Create(filepath.Join(f.ndjson, stream+".ndjson"))
			if err != nil {
				return nil, err
			}
			open = append(open, file)
			out = file
		}
		files[stream] = bufio.NewWriterSize(out, 1<<18)
		return files[stream], nil
	}
	var buf []byte
	for n := int64(0); ; n++ {
		if n%4096 == 0 && c.Context().Err() != nil {
			return o, c.Context().Err()
		}
		doc, rec, err := play.Player.Next(buf[:0])
		if errors.Is(err, io.EOF) {
			return o, nil
		}
		if err != nil {
			return o, fmt.Errorf("record %d: %w", n, err)
		}
		if play.Manifest != nil {
			if err := play.Manifest.Append(rec.Stream, rec.Key, play.Player.Hash()); err != nil {
				return o, fmt.Errorf("write the manifest: %w", err)
			}
		}
		buf = doc
		if n < play.Skip {
			continue
		}
		w, err := to(rec.Stream)
		if err != nil {
			return o, fmt.Errorf("write NDJSON: %w", err)
		}
		if _, err := w.Write(append(doc, '\n')); err != nil {
			return o, fmt.Errorf("write NDJSON: %w", err)
		}
		o.Records++
		if rec.Marker {
			o.Markers++
		}
	}
}

func (f *generateFlags) tell(c *cobra.Command, o outcome) error {
	if f.asJSON {
		return printJSON(c.OutOrStdout(), o)
	}
	out := c.ErrOrStderr() // standard output may hold the records
	if f.ndjson == "" {
		fmt.Fprintf(out, "%s records acknowledged in %.1f s: %s/s\n", terminal.Count(o.Acknowledged), o.Seconds, terminal.Count(o.RecordsPerSecond))
	} else {
		fmt.Fprintf(out, "%s records written in %.1f s\n", terminal.Count(o.Records), o.Seconds)
	}
	if o.Messages > 0 {
		fmt.Fprintf(out, "  %s messages of the capture\n", terminal.Count(o.Messages))
	}
	if o.UnknownReferences > 0 {
		fmt.Fprintf(out, "  %s name orders that the capture never added: put with nulls, %s executions of them without legs\n",
			terminal.Count(o.UnknownReferences), terminal.Count(o.LegsWithheld))
	}
	return nil
}
