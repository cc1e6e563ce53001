package checker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapehouse/tapehouse/internal/exchange"
)

var (
	// ErrLake is the root of errors about a lake that is not as it must be.
	ErrLake = errors.New("check the lake")
	// ErrTooMany says that the manifest exceeds Options.PagesMax.
	ErrTooMany = errors.New("the manifest has more records than the checker may hold")
	// ErrContradiction says that the manifest gives one key two hashes.
	ErrContradiction = errors.New("the manifest contradicts itself")
)

const (
	pagesMaxDefault = 1 << 18 // 268 million consecutive records, 2.3 GB
	examplesMax     = 8       // of each kind
)

// Table names the table of a stream.
type Table struct{ Namespace, Name string }

// EquitiesTables are the tables of the streams that an exchange feeds.
func EquitiesTables() map[string]Table {
	return map[string]Table{
		exchange.StreamOrders:      {"equities", "order_events"},
		exchange.StreamExecutions:  {"equities", "executions"},
		exchange.StreamCorrections: {"equities", "corrections"},
		exchange.StreamMarkers:     {"equities", "markers"},
	}
}

// Options say what is held against what. Manifest and Lake are required.
type Options struct {
	Manifest io.Reader
	// Truncated accepts a manifest without an end: its writer died, and what it
	// had written until then is checked.
	Truncated bool
	Lake      string           // the lake's directory, or a copy of a lake elsewhere
	Location  string           // as metadata spells the place of a lake elsewhere, s3://BUCKET/PREFIX; "": Lake itself
	Tables    map[string]Table // by stream; nil is EquitiesTables
	Workers   int              // 0 is one a core
	PagesMax  int              // 0 is 262,144
}

// The kinds of faults.
const (
	Lost       = "lost"
	Duplicate  = "duplicate"
	Altered    = "altered"
	Unexpected = "unexpected"
)

// Example is one fault.
type Example struct {
	Kind   string       `json:"kind"`
	Stream string       `json:"stream"`
	Key    exchange.Key `json:"key"`
	File   string       `json:"file,omitempty"` // where the row is
	Row    int64        `json:"row,omitempty"`  // in the file, from 0
}

func (e Example) String() string {
	s := fmt.Sprintf("%s: %s %s %s epoch %d sequence %d", e.Kind, e.Stream, e.Key.Source, e.Key.Session, e.Key.Epoch, e.Key.Seq)
	if e.File != "" {
		s += fmt.Sprintf(" (row %d of %s)", e.Row, e.File)
	}
	return s
}

// Counts are the totals of one stream or of all.
type Counts struct {
	Records    int64 `json:"records"` // in the manifest
	Rows       int64 `json:"rows"`    // in the lake
	Lost       int64 `json:"lost"`
	Duplicates int64 `json:"duplicates"`
	Altered    int64 `json:"altered"`
	Unexpected int64 `json:"unexpected"` // rows of no record of the manifest
	Repeated   int64 `json:"repeated"`   // control records that came again
}

func (c *Counts) add(o Counts) {
	c.Records += o.Records
	c.Rows += o.Rows
	c.Lost += o.Lost
	c.Duplicates += o.Duplicates
	c.Altered += o.Altered
	c.Unexpected += o.Unexpected
	c.Repeated += o.Repeated
}

// OK reports whether the lake has exactly what the manifest says.
func (c Counts) OK() bool {
	return c.Lost == 0 && c.Duplicates == 0 && c.Altered == 0 && c.Unexpected == 0
}

// StreamCounts are the counts of one stream.
type StreamCounts struct {
	Stream string `json:"stream"`
	Files  int    `json:"files"`
	Counts
}

// Report is the outcome of a check. Examples are the first few of each kind.
type Report struct {
	Counts
	Streams  []StreamCounts `json:"streams"` // in the order of their names
	Examples []Example      `json:"examples,omitempty"`
	Took     time.Duration  `json:"took_ns"`
}

// Check reads the manifest to its end, then every live row of the tables. The
// error says that something could not be read; faults are in the report.
func Check(ctx context.Context, o Options) (*Report, error) {
	began := time.Now()
	if o.Tables == nil {
		o.Tables = EquitiesTables()
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.PagesMax <= 0 {
		o.PagesMax = pagesMaxDefault
	}
	want, err := readManifest(ctx, o)
	if err != nil {
		return nil, err
	}
	c := &check{want: want, counts: map[string]*tally{}}
	var units []unit
	for stream, t := range o.Tables {
		c.counts[stream] = &tally{}
		files, columns, err := liveFiles(ctx, place{o.Lake, strings.TrimSuffix(o.Location, "/")}, t)
		if err != nil {
			return nil, fmt.Errorf("%w: table %s.%s: %w", ErrLake, t.Namespace, t.Name, err)
		}
		c.counts[stream].files = len(files)
		for _, f := range files {
			units = append(units, unit{stream, f, columns})
		}
	}
	for stream := range want.streams {
		if c.counts[stream] == nil {
			return nil, fmt.Errorf("%w: the manifest has records of the stream %q, which fills no table that is known", ErrLake, stream)
		}
	}
	if err := c.run(ctx, units, o.Workers); err != nil {
		return nil, err
	}
	r := c.report(want)
	r.Took = time.Since(began)
	return r, nil
}

// unit is one file to be read.
type unit struct {
	stream  string
	file    dataFile
	columns []field
}

// tally counts concurrently.
type tally struct {
	files                                           int
	rows, duplicates, altered, unexpected, repeated atomic.Int64
}

type check struct {
	want   *expected
	counts map[string]*tally

	mu       sync.Mutex
	examples []Example
}

func (c *check) run(ctx context.Context, units []unit, workers int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan unit)
	var wait sync.WaitGroup
	for range min(workers, len(units)) {
		wait.Go(func() {
			for u := range queue {
				if err := c.read(ctx, u); err != nil {
					cancel(fmt.Errorf("%w: %s: %w", ErrLake, u.file.path, err))
				}
			}
		})
	}
feed:
	for _, u := range units {
		select {
		case queue <- u:
		case <-ctx.Done():
			break feed
		}
	}
	close(queue)
	wait.Wait()
	return context.Cause(ctx)
}

// read holds each row of one file against the manifest.
func (c *check) read(ctx context.Context, u unit) error {
	t := c.counts[u.stream]
	var last *feed
	var lastID feedID
	return readRows(ctx, u.file, u.columns, func(row int64, k exchange.Key, hash uint64) {
		t.rows.Add(1)
		id := feedID{u.stream, k.Source, k.Session, k.Epoch}
		if last == nil || id != lastID {
			last, lastID = c.want.feeds[id], id
		}
		kind := Unexpected
		if last != nil {
			kind = last.mark(k.Seq, hash)
		}
		switch kind {
		case "":
			return
		case repeated:
			t.repeated.Add(1)
			return
		case Duplicate:
			t.duplicates.Add(1)
		case Altered:
			t.altered.Add(1)
		case Unexpected:
			t.unexpected.Add(1)
		}
		k.Source, k.Session = strings.Clone(k.Source), strings.Clone(k.Session)
		c.example(Example{kind, u.stream, k, u.file.path, row})
	})
}

func (c *check) example(e Example) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, x := range c.examples {
		if x.Kind == e.Kind {
			n++
		}
	}
	if n < examplesMax {
		c.examples = append(c.examples, e)
	}
}

func (c *check) report(want *expected) *Report {
	r := &Report{}
	streams := make([]string, 0, len(c.counts))
	for s := range c.counts {
		streams = append(streams, s)
	}
	slices.Sort(streams)
	for _, s := range streams {
		t := c.counts[s]
		counts := Counts{
			Records: want.streams[s], Rows: t.rows.Load(), Duplicates: t.duplicates.Load(),
			Altered: t.altered.Load(), Unexpected: t.unexpected.Load(), Repeated: t.repeated.Load(),
		}
		for _, id := range want.order {
			if id.stream != s {
				continue
			}
			want.feeds[id].missing(func(seq int64) {
				counts.Lost++
				if counts.Lost <= examplesMax {
					c.example(Example{Kind: Lost, Stream: s, Key: exchange.Key{Source: id.source, Session: id.session, Epoch: id.epoch, Seq: seq}})
				}
			})
		}
		r.Streams = append(r.Streams, StreamCounts{s, t.files, counts})
		r.add(counts)
	}
	slices.SortFunc(c.examples, func(a, b Example) int { return strings.Compare(a.String(), b.String()) })
	r.Examples = c.examples
	return r
}
