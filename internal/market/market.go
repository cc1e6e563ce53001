// Package market closes trade dates: it proves that every expected source has
// sent everything, seals what is proven under a tag with a certificate, and
// makes the members' statements from the sealed state alone.
//
//	roster, markers, ledger ─▶ Readiness ─▶ findings (waivers)
//	                                           │ none failed
//	delivery.Freeze ─▶ cut L ─▶ Readiness ─▶ compact ─▶ totals, row hashes
//	                                           │ one catalog transaction
//	                     tags eod-<D>, certificate, seal, audit ─▶ Release
//	tag ─▶ Verify, Statements, ExplainCharge;  tag and now ─▶ Later, Adjust
//
// The protocol and its invariants are in docs/protocols/seal.md. In short:
//
//   - A certificate states only what was computed from the tagged snapshots,
//     and Verify computes it again from nothing but the lake.
//   - A sealed state never changes. What becomes known later appears in
//     adjustment runs; a re-seal is a new version beside the former.
//   - A failed finding refuses the seal unless a waiver covers all of it.
//   - No float touches an amount.
//
// The package knows no exchange: tables, statements and what is proven come
// from the pack; the few columns it needs are listed in the protocol.
package market

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/delivery"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/ledger"
	"github.com/tapehouse/tapehouse/internal/maintain"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/packs"
)

// Errors that decide what a command answers.
var (
	// ErrNotSealed: the trade date, or that version of it, has no certificate.
	ErrNotSealed = errors.New("trade date is not sealed")
	// ErrNotTradeDate: the calendar has no such trade date.
	ErrNotTradeDate = errors.New("not a trade date of the calendar")
	// ErrReadOnly: this process has no streams, so it cannot seal.
	ErrReadOnly = errors.New("not possible on a catalog that is open read-only")
	// ErrInvalid: a malformed waiver, statement id or line number.
	ErrInvalid = errors.New("invalid")
	// ErrNothingToWaive: no failed finding answers to the waiver.
	ErrNothingToWaive = errors.New("no failed finding matches the waiver")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("market is closed")
)

// Catalog is what the close needs of the catalog. *catalog.Catalog meets it.
type Catalog interface {
	Load(ctx context.Context, name catalog.Name) (*catalog.Table, error)
	LoadAll(ctx context.Context, names []catalog.Name) ([]*catalog.Table, error)
	Files(ctx context.Context, t *catalog.Table, at catalog.At) ([]catalog.DataFile, error)
	Commit(ctx context.Context, commits []catalog.Commit, documents ...catalog.DocumentWrite) ([]*catalog.Table, error)
	GetDocument(ctx context.Context, kind, key string) (catalog.Document, error)
	ListDocuments(ctx context.Context, kind, prefix string) ([]catalog.Document, error)
	PutDocument(ctx context.Context, w catalog.DocumentWrite) (catalog.Document, error)
}

// Streams is what the close needs of delivery. *delivery.Manager meets it.
type Streams interface {
	Freeze(ctx context.Context) (*delivery.Frozen, error)
	Flush(ctx context.Context) error
	Streams() []*delivery.Stream
}

// Ledger is what the close needs of the sequence ledger. *ledger.Ledger meets it.
type Ledger interface {
	Accounts() ([]ledger.FeedAccount, record.Vector)
	Unkeyed() map[string]int64
}

// Compactor sorts a partition's files into few. *maintain.Maintainer meets it.
type Compactor interface {
	Compact(ctx context.Context, table catalog.Name, partition catalog.Partition, o maintain.CompactOptions) (maintain.CompactResult, error)
}

// Options configure New. Catalog, Engine and Pack are required; without
// Streams, Ledger and Compactor the market only reads: Verify, Certificate,
// Statements and ExplainCharge work, the rest returns ErrReadOnly.
type Options struct {
	Catalog   Catalog
	Engine    *engine.Engine
	Pack      *packs.Pack
	Streams   Streams
	Ledger    Ledger
	Compactor Compactor

	FS            fsys.FS // nil: fsys.OS
	StatementsDir string  // below it: <trade date>/v<version>/<member>.csv
	Program       string  // the program's version, part of every certificate
	SecondPerson  bool    // a waiver needs a second person

	// Deadline is when the bills of a trade date are due; nil: the calendar's.
	Deadline      func(calendar.TradeDate) time.Time
	DeadlineWarn  time.Duration // an incomplete trade date this close to its deadline is a predicted miss; default 1 h
	WatchInterval time.Duration // default 30 s
	WatchDates    int           // trade dates that Status looks back on; default 3
	// Since is when the server began to listen; nil: when the first of the pack's
	// streams was created.
	Since func() time.Time

	Webhook        string        // URL that deadline events are posted to; "": none
	WebhookTimeout time.Duration // of one try; default 5 s
	WebhookTries   int           // default 3
	WebhookClient  *http.Client  // nil: one of our own, without redirects

	Logger     *slog.Logger          // nil: discard
	Registerer prometheus.Registerer // nil: no metrics
	Now        func() time.Time      // nil: time.Now
}

func (o *Options) setDefaults() {
	if o.FS == nil {
		o.FS = fsys.OS
	}
	if o.Deadline == nil {
		o.Deadline = o.Pack.Calendar.DeadlineAfter
	}
	if o.DeadlineWarn <= 0 {
		o.DeadlineWarn = time.Hour
	}
	if o.WatchInterval <= 0 {
		o.WatchInterval = 30 * time.Second
	}
	if o.WatchDates <= 0 {
		o.WatchDates = 3
	}
	if o.WebhookTimeout <= 0 {
		o.WebhookTimeout = 5 * time.Second
	}
	if o.WebhookTries <= 0 {
		o.WebhookTries = 3
	}
	if o.WebhookClient == nil {
		o.WebhookClient = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Market closes the trade dates of one pack. It is safe for concurrent use;
// seals, waivers and adjustment runs are serialised.
type Market struct {
	o       Options
	pack    *packs.Pack
	metrics *metrics
	facts   []fact

	life   string // makes this process's audit keys its own
	audits atomic.Int64

	turn chan struct{} // holds one token: the right to write documents of the close

	// step is called between the steps of a seal; tests crash there.
	step func(name string) error

	mu     sync.Mutex
	pace   map[calendar.TradeDate]*pace
	closed bool
	stop   chan struct{}
	wg     sync.WaitGroup
}

// fact is a stream whose completeness is proven, with its table.
type fact struct {
	packs.Fact
	stream *packs.Stream
	// derived says that the trade date is computed from the record's time, so
	// that it is the date on which the source sent it. Otherwise the record names
	// a trade date, perhaps an earlier one: corrections do.
	derived bool
	// legs says that the table's rows are legs that corrections refer to.
	legs bool
}

// New checks the options and the pack. It starts nothing: see Watch.
func New(o Options) (*Market, error) {
	if o.Catalog == nil || o.Engine == nil || o.Pack == nil {
		return nil, fmt.Errorf("%w options: catalog, engine and pack are required", ErrInvalid)
	}
	o.setDefaults()
	m := &Market{o: o, life: uuid.NewString()[:8], pack: o.Pack, turn: make(chan struct{}, 1), stop: make(chan struct{}), pace: map[calendar.TradeDate]*pace{}}
	m.step = func(string) error { return nil }
	if m.o.Since == nil {
		m.o.Since = m.since
	}
	for _, f := range o.Pack.Close.Facts {
		s, ok := o.Pack.Stream(f.Stream)
		if !ok || s.Partition == "" {
			return nil, fmt.Errorf("%w pack %s: fact %s has no stream with a trade date partition", ErrInvalid, o.Pack.Name, f.Stream)
		}
		c := s.Schema.Fields[s.Schema.Index(s.Partition)]
		m.facts = append(m.facts, fact{Fact: f, stream: s, derived: c.Derive == record.TradeDate,
			legs: f.Stream != o.Pack.Close.Corrections && s.Schema.Index("match_number") >= 0 && s.Schema.Index("leg") >= 0})
	}
	var err error
	if m.metrics, err = newMetrics(o.Registerer); err != nil {
		return nil, fmt.Errorf("register the market's metrics: %w", err)
	}
	return m, nil
}

// Close stops the watcher and waits for it.
func (m *Market) Close() error {
	m.mu.Lock()
	if !m.closed {
		m.closed = true
		close(m.stop)
	}
	m.mu.Unlock()
	m.wg.Wait()
	return nil
}

// take waits for the right to write documents of the close.
func (m *Market) take(ctx context.Context) (release func(), err error) {
	if m.o.Streams == nil || m.o.Ledger == nil || m.o.Compactor == nil {
		return nil, ErrReadOnly
	}
	select {
	case m.turn <- struct{}{}:
		return func() { <-m.turn }, nil
	case <-m.stop:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// day returns the calendar's trade date, or ErrNotTradeDate.
func (m *Market) day(d calendar.TradeDate) (calendar.Day, error) {
	day, ok := m.pack.Calendar.Session(d)
	if !ok {
		return day, fmt.Errorf("%s: %w %s", d, ErrNotTradeDate, m.pack.Calendar.Name())
	}
	return day, nil
}

// tables lists the close's tables: facts, then markers and other streams of the
// pack, then reference tables.
func (m *Market) tables() []tableRole {
	var out []tableRole
	for i := range m.facts {
		f := &m.facts[i]
		out = append(out, tableRole{f.stream.Table, RoleFact, f.stream.Partition})
	}
	for i := range m.pack.Streams {
		s := &m.pack.Streams[i]
		if m.fact(s.Name) == nil {
			out = append(out, tableRole{s.Table, RoleStream, s.Partition})
		}
	}
	for _, r := range m.pack.References {
		out = append(out, tableRole{r.Table, RoleReference, ""})
	}
	return out
}

type tableRole struct {
	table     string
	role      TableRole
	partition string // the trade date column, or ""
}

func (m *Market) fact(stream record.StreamName) *fact {
	for i := range m.facts {
		if m.facts[i].Stream == stream {
			return &m.facts[i]
		}
	}
	return nil
}

// name is a pack table's full name.
func (m *Market) name(table string) catalog.Name {
	return catalog.Name{Namespace: m.pack.Namespace, Table: table}
}
