package crawler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/catalog"
)

var (
	errStopped = errors.New("the crawler was stopped")
	errClosing = errors.New("the program stopped")
)

const (
	// conflictsMax bounds how often a crawl plans again because somebody changed one
	// of its tables meanwhile. What it learnt of the files it remembers.
	conflictsMax = 5
	// reportBytesMax bounds a report's document.
	reportBytesMax = 4 << 20
	// finishTimeout bounds what is written after a crawl was stopped.
	finishTimeout = 30 * time.Second
)

// run is a crawl of a crawler, from its start to its entry in the history.
type run struct {
	Crawl              // of the goroutine that crawls, until done
	began    time.Time // StartedAt, for everybody
	id       string    // Crawl.ID, which the goroutine writes anew
	byEvent  bool      // it leaves no entry unless it changes something
	stopping bool      // under Manager.mu
	cancel   context.CancelCauseFunc
	done     chan struct{}
	report   *Report
	err      error
	pending  bool
}

func crawlKey(c *Crawl) string {
	return fmt.Sprintf("%s/%03d", c.Crawler, c.Sequence%historyMax)
}

func crawlWrite(c *Crawl) (catalog.DocumentWrite, error) {
	body, err := json.Marshal(c)
	return catalog.DocumentWrite{Kind: kindCrawl, Key: crawlKey(c), IfVersion: catalog.AnyVersion, Body: body, KeepVersions: 1}, err
}

func (m *Manager) writeCrawl(ctx context.Context, c *Crawl) error {
	w, err := crawlWrite(c)
	if err == nil {
		_, err = m.o.Catalog.PutDocument(ctx, w)
	}
	if err != nil {
		return fmt.Errorf("write crawl %s of %s: %w", c.ID, c.Crawler, err)
	}
	return nil
}

// step lets a test end everything at a step.
func (m *Manager) step(name string) error {
	if m.hook == nil {
		return nil
	}
	return m.hook(name)
}

// Start begins a crawl; it has an entry in the history when Start returns. Where
// CrawlsMax crawls run, it waits its turn, RUNNING. Errors: ErrNotFound, ErrRunning,
// ErrStopping.
func (m *Manager) Start(ctx context.Context, name string) (crawlID string, err error) {
	r, err := m.start(ctx, name, false)
	if err != nil {
		return "", err
	}
	return r.id, nil
}

// Run is Start, and waits for the end. A cancelled ctx stops the crawl.
func (m *Manager) Run(ctx context.Context, name string) (*Report, error) {
	r, err := m.start(ctx, name, false)
	if err != nil {
		return nil, err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		r.cancel(context.Cause(ctx))
		<-r.done
	}
	return r.report, r.err
}

func (m *Manager) start(ctx context.Context, name string, byEvent bool) (*run, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, err := m.find(name)
	if err != nil {
		return nil, err
	}
	if e.run != nil {
		if e.run.stopping {
			return nil, fmt.Errorf("crawler %s: %w", name, ErrStopping)
		}
		return nil, fmt.Errorf("crawler %s: %w", name, ErrRunning)
	}
	r := &run{byEvent: byEvent, done: make(chan struct{}), Crawl: Crawl{Crawler: name, ID: uuid.NewString(), Sequence: 1, State: CrawlRunning, StartedAt: m.o.Now().UTC()}}
	r.began, r.id = r.StartedAt, r.ID
	if n := len(e.crawls); n > 0 {
		r.Sequence = e.crawls[n-1].Sequence + 1
	}
	if !byEvent {
		if err := m.writeCrawl(ctx, &r.Crawl); err != nil {
			return nil, err
		}
		e.crawls = append(e.crawls, r.Crawl)
		e.crawls = e.crawls[max(0, len(e.crawls)-historyMax):]
	}
	e.run = r
	var runCtx context.Context
	runCtx, r.cancel = context.WithCancelCause(m.ctx)
	def := e.Definition
	m.wg.Go(func() { m.perform(runCtx, r, def) })
	return r, nil
}

// Stop asks a crawl to end; it is STOPPING until it has, and CANCELLED then: nothing
// it found is in the catalog. Errors: ErrNotFound, ErrNotRunning, ErrStopping.
func (m *Manager) Stop(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, err := m.find(name)
	switch {
	case err != nil:
		return err
	case e.run == nil:
		return fmt.Errorf("crawler %s: %w", name, ErrNotRunning)
	case e.run.stopping:
		return fmt.Errorf("crawler %s: %w", name, ErrStopping)
	}
	e.run.stopping = true
	e.run.cancel(errStopped)
	return nil
}

// perform runs a crawl and ends its entry.
func (m *Manager) perform(ctx context.Context, r *run, def Definition) {
	defer close(r.done)
	defer r.cancel(nil)
	var c *crawl
	select {
	case m.slots <- struct{}{}:
		c, r.err = m.attempt(ctx, r, def)
		<-m.slots
	case <-ctx.Done():
		r.err = context.Cause(ctx)
	}
	if c != nil {
		r.report, r.pending = c.report, c.pending
	}
	if errors.Is(r.err, errCrash) {
		return // as if the process had ended
	}
	if r.err != nil {
		r.State, r.Error = CrawlFailed, oneLine(r.err)
		if errors.Is(r.err, errStopped) || errors.Is(r.err, errClosing) || errors.Is(r.err, context.Canceled) {
			r.State = CrawlCancelled
		}
		r.EndedAt = m.o.Now().UTC()
		if m.told(r) {
			m.end(r, false)
			return
		}
		ended, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
		if err := m.writeCrawl(ended, &r.Crawl); err != nil {
			m.o.Logger.Error("a crawl's end is not in its history; the next start of the program tells it", "crawler", r.Crawler, "crawl", r.ID, "err", err)
		}
		cancel()
		m.o.Logger.Warn("crawl ended", "crawler", r.Crawler, "crawl", r.ID, "state", r.State, "err", r.err)
	} else if !r.byEvent || r.changed() {
		m.o.Logger.Info("crawl ended", "crawler", r.Crawler, "crawl", r.ID, "tables_added", r.Summary.TablesAdded.Count, "tables_updated", r.Summary.TablesUpdated.Count,
			"tables_deleted", r.Summary.TablesDeleted.Count, "partitions_added", r.Summary.PartitionsAdded, "files_read", r.Summary.Examined, "took", r.EndedAt.Sub(r.StartedAt))
	}
	m.end(r, r.err != nil || r.changed())
}

// told reports whether a crawl by an event failed as the last one did: a folder that
// is not there, say, is told once and not every second.
func (m *Manager) told(r *run) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.crawlers[r.Crawler]
	if !r.byEvent || e == nil || len(e.crawls) == 0 {
		return false
	}
	last := e.crawls[len(e.crawls)-1]
	return last.State == r.State && last.Error == r.Error
}

// end makes the crawler READY; the crawl is in its history if it was from the start,
// or if it is worth an entry.
func (m *Manager) end(r *run, worth bool) {
	m.metrics.crawled(&r.Crawl, r.report)
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.crawlers[r.Crawler]; e != nil {
		e.run = nil
		n := len(e.crawls)
		switch {
		case n > 0 && e.crawls[n-1].ID == r.ID:
			e.crawls[n-1] = r.Crawl
		case worth:
			e.crawls = append(e.crawls, r.Crawl)
			e.crawls = e.crawls[max(0, len(e.crawls)-historyMax):]
		}
	}
	m.poke()
}

// changed reports whether a crawl that succeeded changed the catalog.
func (r *run) changed() bool {
	s := &r.Summary
	return s.TablesAdded.Count+s.TablesUpdated.Count+s.TablesDeleted.Count+s.PartitionsAdded+s.PartitionsUpdated+s.PartitionsDeleted > 0
}

// attempt crawls and puts what it found into the catalog, in one step with the
// crawl's entry and report.
func (m *Manager) attempt(ctx context.Context, r *run, def Definition) (c *crawl, err error) {
	if err := m.step("started"); err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		c = &crawl{m: m, def: def, report: &Report{Crawler: def.Name, CrawlID: r.ID, Database: def.Database}}
		if c.config, err = parseConfiguration(def.Configuration); err != nil {
			return c, err
		}
		if err = c.run(ctx); err != nil {
			return c, err
		}
		err = m.apply(ctx, r, c)
		if err == nil || try == conflictsMax || !errors.Is(err, catalog.ErrConflict) && !errors.Is(err, catalog.ErrExists) && !errors.Is(err, catalog.ErrNotFound) {
			return c, err
		}
		m.o.Logger.Info("somebody changed a table while it was crawled; planning again", "crawler", def.Name, "err", err)
	}
}

func (m *Manager) apply(ctx context.Context, r *run, c *crawl) error {
	if len(c.changes) > 0 {
		err := m.o.Catalog.CreateNamespace(ctx, c.def.Database, nil)
		if err != nil && !errors.Is(err, catalog.ErrExists) {
			return err
		}
	}
	ended := r.Crawl
	ended.State, ended.EndedAt, ended.Summary = CrawlSucceeded, m.o.Now().UTC(), c.report.summary()
	var documents []catalog.DocumentWrite
	if !r.byEvent || len(c.changes) > 0 {
		entry, err := crawlWrite(&ended)
		if err != nil {
			return err
		}
		body, err := c.report.document()
		if err != nil {
			return err
		}
		documents = append(documents, entry, catalog.DocumentWrite{Kind: kindReport, Key: crawlKey(&ended), IfVersion: catalog.AnyVersion, Body: body, KeepVersions: 1})
		if err := m.step("before apply"); err != nil {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := m.o.Catalog.ChangeExternals(ctx, c.changes, documents...); err != nil {
			return err
		}
	}
	r.Crawl = ended
	return m.step("applied")
}

// document is the report's JSON, with less detail where it is too large.
func (r *Report) document() ([]byte, error) {
	body, err := json.Marshal(r)
	if err != nil || len(body) <= reportBytesMax {
		return body, err
	}
	small := *r
	small.Tables = nil
	size := 0
	for i := range r.Tables {
		t := r.Tables[i]
		t.Columns, t.Notes = t.Columns[:min(len(t.Columns), 10)], t.Notes[:min(len(t.Notes), 3)]
		text, err := json.Marshal(&t)
		if err != nil {
			return nil, err
		}
		if size += len(text); size > reportBytesMax/2 {
			break
		}
		small.Tables = append(small.Tables, t)
	}
	small.TablesLeft = r.TablesLeft + len(r.Tables) - len(small.Tables)
	small.Notes = append(small.Notes[:min(len(small.Notes), 100):min(len(small.Notes), 100)], "the report was too large to be kept with all its details")
	return json.Marshal(&small)
}

func (r *Report) summary() Summary {
	s := Summary{Totals: r.Totals}
	for i := range r.Tables {
		t := &r.Tables[i]
		switch t.Action {
		case ActionCreate:
			s.TablesAdded.add(t.Name)
		case ActionUpdate, ActionRefresh:
			s.TablesUpdated.add(t.Name)
		case ActionDelete, ActionDeprecate:
			s.TablesDeleted.add(t.Name)
		}
		s.PartitionsAdded += t.PartitionsAdded
		s.PartitionsUpdated += t.PartitionsUpdated
		s.PartitionsDeleted += t.PartitionsRemoved
	}
	for _, k := range r.Skipped {
		s.Skipped += k.Count
	}
	return s
}

// Plan is what a crawl by the definition would do now. The crawler need not exist; the
// catalog, the history and the memory stay as they are.
func (m *Manager) Plan(ctx context.Context, d Definition) (*Report, error) {
	if err := d.normalize(); err != nil {
		return nil, err
	}
	c := &crawl{m: m, def: d, report: &Report{Crawler: d.Name, Database: d.Database, DryRun: true}}
	var err error
	if c.config, err = parseConfiguration(d.Configuration); err != nil {
		return nil, err
	}
	return c.report, c.run(ctx)
}

// errCrash is what a test's hook returns to end everything.
var errCrash = errors.New("crash")

// Close stops what runs and waits for it. Crawls that ran are CANCELLED.
func (m *Manager) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.cancel(errClosing)
	m.wg.Wait()
	return nil
}
