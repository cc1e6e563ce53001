package crawler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/fsys"
)

// The kinds of documents that the catalog keeps for crawlers.
const (
	kindCrawler    = "crawler"
	kindClassifier = "crawler-classifier"
	kindCrawl      = "crawler-crawl"  // key crawler/slot: one of the last crawls
	kindReport     = "crawler-report" // of the same key
)

// The bounds of a manager.
const (
	crawlersMax  = 500
	historyMax   = 100 // crawls kept of each crawler
	versionsKept = 20  // of a definition
	// minScheduleGap is the least time between scheduled crawls, as in Glue.
	minScheduleGap = 5 * time.Minute
)

// The states of a crawler.
const (
	StateReady    = "READY"
	StateRunning  = "RUNNING"
	StateStopping = "STOPPING"
)

// The states of a schedule.
const (
	Scheduled    = "SCHEDULED"
	NotScheduled = "NOT_SCHEDULED"
)

// The states of a crawl.
const (
	CrawlRunning   = "RUNNING"
	CrawlSucceeded = "SUCCEEDED"
	CrawlCancelled = "CANCELLED"
	CrawlFailed    = "FAILED"
)

// Options configures a Manager.
type Options struct {
	Catalog *catalog.Catalog
	// Open resolves a target's path into a source and a name within it, without a
	// slash at either end; "" is all of it. The source stays the caller's. A path that
	// nobody serves is an error that says so.
	Open func(ctx context.Context, path string) (Source, string, error)
	// FS and Dir hold what was learnt of files, a cache that may be removed; Dir ""
	// keeps nothing, and every crawl reads every file.
	FS  fsys.FS
	Dir string

	// CrawlsMax is how many crawls run at a time; others wait. 0 is 2.
	CrawlsMax int
	// Workers is how many files a crawl reads at a time. 0 is four for each processor.
	Workers int
	// Settle is how young a file that cannot be read is taken to be unfinished. 0 is
	// 30 seconds.
	Settle time.Duration
	// WatchInterval is how often the folders of crawlers in event mode are looked at.
	// 0 is one second.
	WatchInterval time.Duration

	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil registers nothing
	Now        func() time.Time      // nil is time.Now
}

func (o *Options) setDefaults() {
	if o.FS == nil {
		o.FS = fsys.OS
	}
	if o.CrawlsMax <= 0 {
		o.CrawlsMax = 2
	}
	if o.Workers <= 0 {
		o.Workers = 4 * runtime.GOMAXPROCS(0)
	}
	if o.Settle <= 0 {
		o.Settle = 30 * time.Second
	}
	if o.WatchInterval <= 0 {
		o.WatchInterval = time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Info is a crawler as it is now.
type Info struct {
	Definition
	State                string // READY, RUNNING, STOPPING
	ScheduleState        string // SCHEDULED, NOT_SCHEDULED
	Version              int64  // of the definition, from 1
	CreatedAt, UpdatedAt time.Time
	Elapsed              time.Duration // of the crawl that runs
	LastCrawl            *Crawl        // the last one that ended
}

// Crawl is one crawl of a crawler.
type Crawl struct {
	Crawler   string
	ID        string
	Sequence  int64  // counts a crawler's crawls, from 1
	State     string // RUNNING, SUCCEEDED, CANCELLED, FAILED
	Error     string `json:",omitempty"`
	StartedAt time.Time
	EndedAt   time.Time `json:",omitzero"`
	Summary   Summary
}

// Summary counts what a crawl did, and names the first of each.
type Summary struct {
	Totals
	TablesAdded, TablesUpdated, TablesDeleted             Named // deprecated ones count as deleted
	PartitionsAdded, PartitionsUpdated, PartitionsDeleted int
	Skipped                                               int64 // files
}

// Named counts things and names the first hundred.
type Named struct {
	Count int
	Names []string `json:",omitempty"`
}

func (n *Named) add(name string) {
	if n.Count++; len(n.Names) < 100 {
		n.Names = append(n.Names, name)
	}
}

// record is a crawler's document.
type record struct {
	Definition           Definition
	ScheduleState        string
	Version              int64
	CreatedAt, UpdatedAt time.Time
}

// entry is a crawler in memory.
type entry struct {
	record
	document int64     // the document's version
	schedule *Schedule // nil: on demand
	next     time.Time // of the schedule
	crawls   []Crawl   // oldest first, at most historyMax
	run      *run      // nil: READY
	watch    *watch
}

// Manager keeps crawlers and runs them. It is safe for concurrent use.
type Manager struct {
	o       Options
	metrics *metrics
	slots   chan struct{} // CrawlsMax tokens
	hook    func(step string) error

	mu       sync.Mutex
	crawlers map[string]*entry
	closed   bool
	wake     chan struct{} // the loop looks again
	wg       sync.WaitGroup
	ctx      context.Context // ends at Close; for goroutines that belong to the manager
	cancel   context.CancelCauseFunc
}

// New reads the crawlers. A crawl that the last process left running is FAILED: what
// it found was not put into the catalog.
func New(ctx context.Context, o Options) (*Manager, error) {
	if o.Catalog == nil || o.Open == nil {
		return nil, errors.New("crawler: catalog and sources are required")
	}
	o.setDefaults()
	m := &Manager{o: o, slots: make(chan struct{}, o.CrawlsMax), crawlers: map[string]*entry{}, wake: make(chan struct{}, 1)}
	m.ctx, m.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	var err error
	if m.metrics, err = newMetrics(o.Registerer); err != nil {
		return nil, fmt.Errorf("register the crawler's metrics: %w", err)
	}
	if err := m.load(ctx); err != nil {
		return nil, fmt.Errorf("read crawlers: %w", err)
	}
	return m, nil
}

func (m *Manager) load(ctx context.Context) error {
	docs, err := m.o.Catalog.ListDocuments(ctx, kindCrawler, "")
	if err != nil {
		return err
	}
	now := m.o.Now().UTC()
	for _, d := range docs {
		e := &entry{document: d.Version}
		if err := json.Unmarshal(d.Body, &e.record); err != nil {
			return fmt.Errorf("crawler %s: %w", d.Key, err)
		}
		if err := e.setSchedule(now); err != nil {
			return fmt.Errorf("crawler %s: %w", d.Key, err)
		}
		m.crawlers[d.Key] = e
	}
	docs, err = m.o.Catalog.ListDocuments(ctx, kindCrawl, "")
	if err != nil {
		return err
	}
	for _, d := range docs {
		var c Crawl
		if err := json.Unmarshal(d.Body, &c); err != nil {
			return fmt.Errorf("crawl %s: %w", d.Key, err)
		}
		e := m.crawlers[c.Crawler]
		if e == nil {
			continue
		}
		if c.State == CrawlRunning {
			c.State, c.EndedAt = CrawlFailed, now
			c.Error = "the program ended while the crawl ran; nothing was put into the catalog"
			if !m.readOnly() {
				if err := m.writeCrawl(ctx, &c); err != nil {
					return err
				}
			}
		}
		e.crawls = append(e.crawls, c)
	}
	for _, e := range m.crawlers {
		slices.SortFunc(e.crawls, func(a, b Crawl) int { return int(a.Sequence - b.Sequence) })
		// A former crawler of the name may have left slots that were not used again.
		e.crawls = slices.DeleteFunc(e.crawls, func(c Crawl) bool { return c.StartedAt.Before(e.CreatedAt.Add(-time.Second)) })
	}
	return nil
}

func (m *Manager) readOnly() bool { return m.o.Catalog.Epoch() == 0 }

func (e *entry) setSchedule(now time.Time) (err error) {
	e.schedule, e.next = nil, time.Time{}
	if e.Definition.Schedule != "" {
		e.schedule, err = ParseSchedule(e.Definition.Schedule)
	}
	if err == nil && e.schedule != nil && e.ScheduleState == Scheduled {
		e.next = e.schedule.Next(now)
	}
	return err
}

// write writes a crawler's document. m.mu is held.
func (m *Manager) write(ctx context.Context, e *entry) error {
	body, err := json.Marshal(&e.record)
	if err != nil {
		return err
	}
	d, err := m.o.Catalog.PutDocument(ctx, catalog.DocumentWrite{Kind: kindCrawler, Key: e.Definition.Name, IfVersion: e.document, Body: body, KeepVersions: versionsKept})
	if err != nil {
		return fmt.Errorf("write crawler %s: %w", e.Definition.Name, err)
	}
	e.document = d.Version
	m.poke()
	return nil
}

func (m *Manager) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Create makes a crawler. Errors: ErrInvalid, ErrExists, ErrTooMany, ErrNotFound of a
// classifier.
func (m *Manager) Create(ctx context.Context, d Definition) error {
	if err := d.normalize(); err != nil {
		return err
	}
	if err := m.resolvable(ctx, d); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return ErrClosed
	case m.crawlers[d.Name] != nil:
		return fmt.Errorf("crawler %s: %w", d.Name, ErrExists)
	case len(m.crawlers) >= crawlersMax:
		return fmt.Errorf("%w crawlers: the limit is %d", ErrTooMany, crawlersMax)
	}
	now := m.o.Now().UTC()
	e := &entry{record: record{Definition: d, Version: 1, CreatedAt: now, UpdatedAt: now, ScheduleState: NotScheduled}}
	if d.Schedule != "" {
		e.ScheduleState = Scheduled
	}
	if err := e.setSchedule(now); err != nil {
		return err
	}
	if err := m.write(ctx, e); err != nil {
		return err
	}
	m.crawlers[d.Name] = e
	return nil
}

// resolvable checks what a definition names: classifiers and paths.
func (m *Manager) resolvable(ctx context.Context, d Definition) error {
	if _, _, err := m.classifiersOf(ctx, d.Classifiers); err != nil {
		return err
	}
	for _, t := range d.Targets {
		if _, _, err := m.o.Open(ctx, t.Path); err != nil {
			return fmt.Errorf("%w %s: path %s: %w", ErrInvalid, d.Name, t.Path, err)
		}
	}
	return nil
}

// find returns a crawler that may be changed. m.mu is held.
func (m *Manager) find(name string) (*entry, error) {
	if m.closed {
		return nil, ErrClosed
	}
	e := m.crawlers[name]
	if e == nil {
		return nil, fmt.Errorf("crawler %s: %w", name, ErrNotFound)
	}
	return e, nil
}

// Update replaces a crawler's definition. Errors: ErrInvalid, ErrNotFound, ErrRunning.
func (m *Manager) Update(ctx context.Context, d Definition) error {
	if err := d.normalize(); err != nil {
		return err
	}
	if err := m.resolvable(ctx, d); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e, err := m.find(d.Name)
	if err != nil {
		return err
	}
	if e.run != nil && !e.run.byEvent {
		return fmt.Errorf("crawler %s: %w", d.Name, ErrRunning)
	}
	next := *e
	next.watch = nil
	next.Definition, next.UpdatedAt = d, m.o.Now().UTC()
	next.Version++
	if d.Schedule != e.Definition.Schedule {
		next.ScheduleState = NotScheduled
		if d.Schedule != "" {
			next.ScheduleState = Scheduled
		}
	}
	return m.replace(ctx, e, &next)
}

// replace writes next in the place of e. m.mu is held.
func (m *Manager) replace(ctx context.Context, e, next *entry) error {
	if err := next.setSchedule(m.o.Now().UTC()); err != nil {
		return err
	}
	if err := m.write(ctx, next); err != nil {
		return err
	}
	*e = *next
	return nil
}

// Delete removes a crawler and what it learnt; its tables stay. Errors: ErrNotFound,
// ErrRunning.
func (m *Manager) Delete(ctx context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, err := m.find(name)
	if err != nil {
		return err
	}
	if e.run != nil {
		return fmt.Errorf("crawler %s: %w", name, ErrRunning)
	}
	writes := []catalog.DocumentWrite{{Kind: kindCrawler, Key: name, IfVersion: e.document, Delete: true, KeepVersions: 1}}
	for _, kind := range []string{kindCrawl, kindReport} {
		docs, err := m.o.Catalog.ListDocuments(ctx, kind, name+"/")
		if err != nil {
			return err
		}
		for _, d := range docs {
			writes = append(writes, catalog.DocumentWrite{Kind: kind, Key: d.Key, IfVersion: catalog.AnyVersion, Delete: true, KeepVersions: 1})
		}
	}
	if err := m.o.Catalog.ChangeExternals(ctx, nil, writes...); err != nil {
		return fmt.Errorf("delete crawler %s: %w", name, err)
	}
	delete(m.crawlers, name)
	m.poke()
	if err := forget(m.o.FS, m.o.Dir, memoryPrefix(name)); err != nil {
		m.o.Logger.Warn("what a deleted crawler learnt stays behind", "crawler", name, "err", err)
	}
	return nil
}

func (m *Manager) info(e *entry) Info {
	i := Info{Definition: e.Definition, State: StateReady, ScheduleState: e.ScheduleState, Version: e.Version, CreatedAt: e.CreatedAt, UpdatedAt: e.UpdatedAt}
	if r := e.run; r != nil {
		i.State, i.Elapsed = StateRunning, m.o.Now().Sub(r.began)
		if r.stopping {
			i.State = StateStopping
		}
	}
	for k := len(e.crawls) - 1; k >= 0; k-- {
		if c := e.crawls[k]; c.State != CrawlRunning {
			i.LastCrawl = &c
			break
		}
	}
	return i
}

// Get returns a crawler; ErrNotFound if there is none of that name.
func (m *Manager) Get(name string) (Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.crawlers[name]
	if e == nil {
		return Info{}, fmt.Errorf("crawler %s: %w", name, ErrNotFound)
	}
	return m.info(e), nil
}

// List returns the crawlers, sorted by name.
func (m *Manager) List() []Info {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Info, 0, len(m.crawlers))
	for _, name := range slices.Sorted(maps.Keys(m.crawlers)) {
		out = append(out, m.info(m.crawlers[name]))
	}
	return out
}

// SetSchedule changes when a crawler runs; "" is on demand. Errors: ErrInvalid,
// ErrNotFound.
func (m *Manager) SetSchedule(ctx context.Context, name, schedule string) error {
	if schedule != "" {
		if _, err := ParseSchedule(schedule); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e, err := m.find(name)
	if err != nil {
		return err
	}
	next := *e
	next.Definition.Schedule, next.UpdatedAt = schedule, m.o.Now().UTC()
	next.Version++
	next.ScheduleState = NotScheduled
	if schedule != "" {
		next.ScheduleState = Scheduled
	}
	return m.replace(ctx, e, &next)
}

// StartSchedule puts a crawler's schedule into force, StopSchedule takes it out of
// force. Errors: ErrNotFound, ErrInvalid without a schedule, ErrScheduled.
func (m *Manager) StartSchedule(ctx context.Context, name string) error {
	return m.setScheduleState(ctx, name, Scheduled)
}

// StopSchedule: see StartSchedule. A crawl under way goes on.
func (m *Manager) StopSchedule(ctx context.Context, name string) error {
	return m.setScheduleState(ctx, name, NotScheduled)
}

func (m *Manager) setScheduleState(ctx context.Context, name, state string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, err := m.find(name)
	switch {
	case err != nil:
		return err
	case e.Definition.Schedule == "":
		return fmt.Errorf("%w %s: it has no schedule", ErrInvalid, name)
	case e.ScheduleState == state:
		return fmt.Errorf("crawler %s is %s: %w", name, state, ErrScheduled)
	}
	next := *e
	next.ScheduleState = state
	return m.replace(ctx, e, &next)
}

// Crawls returns the last crawls of a crawler, the newest first.
func (m *Manager) Crawls(name string) ([]Crawl, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.crawlers[name]
	if e == nil {
		return nil, fmt.Errorf("crawler %s: %w", name, ErrNotFound)
	}
	out := slices.Clone(e.crawls)
	slices.Reverse(out)
	return out, nil
}

// Report returns what a crawl found and did; ErrNotFound if it is not kept, or did
// not succeed.
func (m *Manager) Report(ctx context.Context, crawler, crawlID string) (r Report, err error) {
	crawls, err := m.Crawls(crawler)
	if err != nil {
		return r, err
	}
	i := slices.IndexFunc(crawls, func(c Crawl) bool { return c.ID == crawlID })
	if i < 0 {
		return r, fmt.Errorf("crawl %s of %s: %w", crawlID, crawler, ErrNotFound)
	}
	d, err := m.o.Catalog.GetDocument(ctx, kindReport, crawlKey(&crawls[i]))
	if errors.Is(err, catalog.ErrNotFound) {
		return r, fmt.Errorf("report of crawl %s: %w", crawlID, ErrNotFound)
	}
	if err == nil {
		err = json.Unmarshal(d.Body, &r)
	}
	if err == nil && r.CrawlID != crawlID {
		return Report{}, fmt.Errorf("report of crawl %s: %w", crawlID, ErrNotFound)
	}
	return r, err
}

// Metrics are a crawler's figures, as Glue's GetCrawlerMetrics has them.
type Metrics struct {
	Crawler                    string
	TimeLeft                   time.Duration // of the crawl that runs, by the median
	Estimating                 bool          // no crawl has ended yet
	LastRuntime, MedianRuntime time.Duration // of crawls that succeeded
	Created, Updated, Deleted  int           // tables, by the last crawl
}

// Metrics returns the figures of a crawler.
func (m *Manager) Metrics(name string) (Metrics, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.crawlers[name]
	if e == nil {
		return Metrics{}, fmt.Errorf("crawler %s: %w", name, ErrNotFound)
	}
	out := Metrics{Crawler: name}
	var took []time.Duration
	for _, c := range e.crawls {
		if c.State == CrawlSucceeded {
			took = append(took, c.EndedAt.Sub(c.StartedAt))
			out.Created, out.Updated, out.Deleted = c.Summary.TablesAdded.Count, c.Summary.TablesUpdated.Count, c.Summary.TablesDeleted.Count
		}
	}
	if len(took) > 0 {
		out.LastRuntime = took[len(took)-1]
		slices.Sort(took)
		out.MedianRuntime = took[len(took)/2]
	}
	if e.run != nil {
		out.Estimating = len(took) == 0
		out.TimeLeft = max(0, out.MedianRuntime-m.o.Now().Sub(e.run.began))
	}
	return out, nil
}
