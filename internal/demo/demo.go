package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/checker"
	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/exchange"
	"github.com/tapehouse/tapehouse/internal/producer"
	"github.com/tapehouse/tapehouse/internal/terminal"
	"github.com/tapehouse/tapehouse/packs"
)

// Sabotage is something that goes wrong during the demo.
type Sabotage string

// The sabotages.
const (
	NoSabotage   Sabotage = ""
	Kill         Sabotage = "kill"          // the server is killed under load
	Gap          Sabotage = "gap"           // a source loses one record
	Reject       Sabotage = "reject"        // a record is malformed
	SilentSource Sabotage = "silent-source" // a source never comes
	Bust         Sabotage = "bust"          // a trade is broken after the seal
)

// Sabotages lists the words that --sabotage takes.
func Sabotages() []Sabotage { return []Sabotage{Kill, Gap, Bust, Reject, SilentSource} }

var (
	// ErrOptions is the root of errors about the options.
	ErrOptions = errors.New("invalid option")
	// ErrMismatch says that the demo ended, and the product did not do what it
	// should: records are lost or doubled, or a certificate does not verify.
	ErrMismatch = errors.New("the demo did not end as it should")
)

// Options configure a demo. Program, Data and Records are required.
type Options struct {
	Program   string // of the server; it is run with `serve`
	Data      string
	Addresses Addresses // wanted; a port that is taken is replaced by a free one
	Records   int64
	Seed      uint64
	TradeDate string // "" is the last one that has ended
	Sabotage  Sabotage
	Exit      bool // do not serve on
	JSON      bool // print the result as the last line
	// Invocation is how the user calls the program, for what to type next.
	Invocation string

	Out  io.Writer // the story
	Errs io.Writer // progress
}

// The bounds of a demo's size. Sabotage needs room for something to go wrong.
const (
	recordsMin = 2_000
	recordsMax = 2_000_000_000
)

// workers is the number of concurrent puts.
const workers = 8

// Result is what a demo came to. Its JSON is the last line of --json.
type Result struct {
	RecordsSent         int64   `json:"records_sent"`
	RecordsAcknowledged int64   `json:"records_acknowledged"`
	RowsInLake          int64   `json:"rows_in_lake"`
	Lost                int64   `json:"lost"`
	Duplicates          int64   `json:"duplicates"`
	RecordsPerSecond    int64   `json:"records_per_second"`
	FreshnessP50        float64 `json:"freshness_p50_ms"`
	FreshnessP99        float64 `json:"freshness_p99_ms"`
	SealSeconds         float64 `json:"seal_seconds"`
	Statements          int     `json:"statements"`
	Certificate         string  `json:"certificate"`

	Verified        bool    `json:"verified"`
	Altered         int64   `json:"altered"`
	Unexpected      int64   `json:"unexpected"`
	Rejected        int64   `json:"rejected"`
	TradeDate       string  `json:"trade_date"`
	Seed            uint64  `json:"seed"`
	StreamSeconds   float64 `json:"stream_seconds"`
	MemoryPeakBytes int64   `json:"memory_peak_bytes"`
	Sabotage        string  `json:"sabotage,omitempty"`
	Kills           int     `json:"kills,omitempty"`
	Adjustments     int     `json:"adjustments,omitempty"`
	ForeignTables   int     `json:"foreign_tables"`  // of files that others wrote
	ForeignSymbols  int64   `json:"foreign_symbols"` // joined with them
	OK              bool    `json:"ok"`
}

// demo is one run.
type demo struct {
	o        Options
	pack     *packs.Pack
	date     calendar.TradeDate
	exchange *exchange.Exchange
	sources  []string
	client   *producer.Client
	pipeline *producer.Pipeline
	manifest *exchange.ManifestWriter
	fresh    *freshness
	progress *terminal.Progress
	down     atomic.Bool // the server was killed and is not back

	server atomic.Pointer[Server] // the one that runs; kill replaces it

	streamed time.Duration
	result   Result
	run      console.StatementRun
	check    *checker.Report
	step     int
}

// Run plays the demo. The error is ErrMismatch if the product failed,
// ErrDirectory or ErrOptions if it could not begin.
func Run(ctx context.Context, o Options) (Result, error) {
	d := &demo{o: o, fresh: newFreshness(), progress: terminal.NewProgress(o.Errs, 2*time.Second)}
	if err := d.configure(); err != nil {
		return d.result, err
	}
	err := d.play(ctx)
	return d.result, err
}

// configure checks the options and makes the exchange.
func (d *demo) configure() error {
	if d.o.Records < recordsMin || d.o.Records > recordsMax {
		return fmt.Errorf("%w: %d records: want %d to %d", ErrOptions, d.o.Records, recordsMin, recordsMax)
	}
	var err error
	if d.pack, err = packs.Load(packs.Equities()); err != nil {
		return err
	}
	if d.date, err = TradeDate(d.pack.Calendar, d.o.TradeDate, time.Now()); err != nil {
		return fmt.Errorf("%w: %w", ErrOptions, err)
	}
	cfg := d.config()
	switch d.o.Sabotage {
	case NoSabotage, Kill, Bust:
	case Gap:
		cfg.Sabotage.DropSequence = true
	case Reject:
		cfg.Sabotage.MalformRecord = true
	case SilentSource:
		cfg.Sabotage.SilentSource = silentSource
	default:
		return fmt.Errorf("%w: sabotage %q: want one of %v", ErrOptions, d.o.Sabotage, Sabotages())
	}
	if d.exchange, err = exchange.New(cfg); err != nil {
		return fmt.Errorf("%w: %w", ErrOptions, err)
	}
	d.sources = d.exchange.Sources()
	d.result.TradeDate, d.result.Seed, d.result.Sabotage = d.date.String(), d.o.Seed, string(d.o.Sabotage)
	return nil
}

// config is the exchange without sabotage: the same records, whole.
func (d *demo) config() exchange.Config {
	return exchange.DefaultConfig(d.pack.Calendar, d.date, d.o.Seed, d.o.Records)
}

// TradeDate reads a trade date of the calendar; "" is the last one whose
// sessions have all closed at the instant now.
func TradeDate(c *calendar.Calendar, text string, now time.Time) (calendar.TradeDate, error) {
	if text != "" {
		t, err := calendar.ParseTradeDate(text)
		if err != nil {
			return 0, err
		}
		if _, ok := c.Session(t); !ok {
			return 0, fmt.Errorf("%s is not a trade date of the calendar %s", t, c.Name())
		}
		return t, nil
	}
	first, last := c.Covers()
	t := calendar.Date(now.UTC().Date())
	t = min(max(t, first), last)
	for {
		if day, ok := c.Session(t); ok && day.Sessions[len(day.Sessions)-1].CloseAt.Before(now) {
			return t, nil
		}
		prev, ok := c.Prev(t)
		if !ok {
			return 0, fmt.Errorf("the calendar %s has no trade date before %s", c.Name(), now.UTC().Format(time.DateOnly))
		}
		t = prev
	}
}

// play runs the demo from the first step to the last.
func (d *demo) play(ctx context.Context) (err error) {
	if d.o.Data, err = prepareDirectory(d.o.Data); err != nil {
		return err
	}
	d.say("Tapehouse demo: the trade date %s, simulated (seed %d)\n", d.date, d.o.Seed)
	if err := d.start(ctx); err != nil {
		return err
	}
	defer func() {
		if d.pipeline != nil {
			gone, cancel := context.WithCancel(ctx)
			cancel()
			_ = d.pipeline.Close(gone) // everything is acknowledged, or given up
		}
		if stopped := d.server.Load().Stop(); err == nil {
			err = stopped
		}
	}()
	manifest, err := os.Create(d.manifestPath())
	if err != nil {
		return fmt.Errorf("make the manifest: %w", err)
	}
	defer manifest.Close()
	if d.manifest, err = exchange.NewManifestWriter(manifest); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	if err := d.stream(ctx); err != nil {
		return err
	}
	if err := d.close(ctx); err != nil {
		return err
	}
	if err := d.count(ctx); err != nil {
		return err
	}
	if err := d.foreign(ctx); err != nil {
		return err
	}
	if err := d.summarize(); err != nil {
		return err
	}
	if d.o.Exit || !d.result.OK {
		if !d.result.OK {
			return ErrMismatch
		}
		return nil
	}
	fmt.Fprintln(d.o.Errs, "Serving on until Ctrl-C.")
	select {
	case <-ctx.Done():
	case <-d.server.Load().Done():
		return fmt.Errorf("the server ended by itself:\n%s", d.server.Load().logTail())
	}
	return nil
}

func (d *demo) manifestPath() string { return filepath.Join(d.o.Data, ManifestFile) }

// ManifestFile is the name of the manifest in the demo's directory.
const ManifestFile = "demo.manifest"

// start starts the server and the producer.
func (d *demo) start(ctx context.Context) error {
	began := time.Now()
	server, err := StartServer(ctx, Launch{Program: d.o.Program, Dir: d.o.Data, Addresses: freeAddresses(d.o.Addresses)})
	if err != nil {
		return err
	}
	d.server.Store(server)
	e := server.Endpoints
	d.head("Server", "ready in %s, in %s", terminal.Took(time.Since(began)), d.o.Data)
	d.say("   AWS APIs %s   SQL %s   console %s\n", e.AWSURL(), e.SQL, e.HTTPURL())
	key := server.Credentials.Keys[0]
	d.client, err = producer.New(producer.Config{Endpoint: e.AWSURL(), Region: e.Region, AccessKey: key.ID, Secret: key.Secret, Connections: workers})
	return err
}

// say writes to the story, above the progress.
func (d *demo) say(format string, args ...any) {
	d.progress.Above(func() { fmt.Fprintf(d.o.Out, format, args...) })
}

// head begins the next step.
func (d *demo) head(name, format string, args ...any) {
	d.step++
	d.say("\n%d  %-11s %s\n", d.step, name, fmt.Sprintf(format, args...))
}
