package crawler

import (
	"context"
	"errors"
	"strings"
	"time"
)

// longestSleep bounds a wait for the next scheduled crawl, in case the clock is set.
const longestSleep = time.Minute

// Serve begins what runs by itself: schedules, and crawlers in event mode. It ends
// with Close, and is called at most once.
func (m *Manager) Serve() {
	m.wg.Go(m.scheduleLoop)
	m.wg.Go(m.watchLoop)
}

func (m *Manager) scheduleLoop() {
	for {
		wait := m.startDue()
		t := time.NewTimer(wait)
		select {
		case <-m.ctx.Done():
			t.Stop()
			return
		case <-m.wake:
		case <-t.C:
		}
		t.Stop()
	}
}

// startDue starts the crawls that are due, and returns how long until the next one.
// A time that passes while the crawler runs, or the program does not, is left out.
func (m *Manager) startDue() time.Duration {
	now := m.o.Now().UTC()
	var due []string
	wait := longestSleep
	m.mu.Lock()
	for name, e := range m.crawlers {
		if e.next.IsZero() {
			continue
		}
		if !e.next.After(now) {
			due = append(due, name)
			e.next = e.schedule.Next(now.Add(minScheduleGap - time.Minute))
		}
		if !e.next.IsZero() {
			wait = min(wait, max(0, e.next.Sub(now)))
		}
	}
	m.mu.Unlock()
	for _, name := range due {
		if _, err := m.start(m.ctx, name, false); err != nil && m.ctx.Err() == nil {
			m.o.Logger.Warn("a scheduled crawl does not start", "crawler", name, "err", err)
		}
	}
	return wait
}

// watch is what the manager knows of a crawler in event mode.
type watch struct {
	// Of the loop alone:
	polls   []func(context.Context) (bool, error)
	open    bool // polls are there
	failing bool // and it is logged

	// Under Manager.mu:
	dirty bool      // something changed since the last crawl began
	again time.Time // when files that were young are looked at again; zero: never
}

// watchLoop crawls what changed in the folders of crawlers in event mode. A crawl
// under way delays the next one, and changes meanwhile are not lost.
func (m *Manager) watchLoop() {
	t := time.NewTicker(m.o.WatchInterval)
	defer t.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-t.C:
		}
		for _, d := range m.watched() {
			m.poll(d)
		}
	}
}

// watched returns the crawlers in event mode.
func (m *Manager) watched() (out []Definition) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.crawlers {
		if e.Definition.Recrawl == EventMode && !m.closed {
			out = append(out, e.Definition)
		}
	}
	return out
}

// poll looks at one crawler's folders, and starts a crawl if they changed.
func (m *Manager) poll(d Definition) {
	m.mu.Lock()
	e := m.crawlers[d.Name]
	if e == nil {
		m.mu.Unlock()
		return
	}
	if e.watch == nil {
		e.watch = &watch{dirty: true} // files may have come while nobody looked
	}
	w := e.watch
	m.mu.Unlock()

	if !w.open {
		polls, err := m.openWatch(d)
		if err != nil {
			if !w.failing && m.ctx.Err() == nil {
				m.o.Logger.Warn("a crawler in event mode cannot watch its folders", "crawler", d.Name, "err", err)
			}
			w.failing = true
			return
		}
		w.polls, w.open = polls, true
	}
	changed := false
	var failed error
	for _, p := range w.polls {
		c, err := p(m.ctx)
		changed = changed || c
		failed = errors.Join(failed, err)
	}
	if m.ctx.Err() != nil {
		return
	}
	if failed != nil && !w.failing {
		m.o.Logger.Warn("a crawler in event mode cannot look at its folders", "crawler", d.Name, "err", failed)
	}
	w.failing = failed != nil

	m.mu.Lock()
	now := m.o.Now()
	if changed {
		w.dirty = true
	}
	if !w.again.IsZero() && !now.Before(w.again) {
		w.dirty, w.again = true, time.Time{}
	}
	start := w.dirty && e.run == nil
	if start {
		w.dirty = false
	}
	m.mu.Unlock()
	if start {
		m.crawlChanged(d.Name, w)
	}
}

// crawlChanged crawls because of a change, and looks again later at files that were
// young, as they may have been unfinished.
func (m *Manager) crawlChanged(name string, w *watch) {
	r, err := m.start(m.ctx, name, true)
	if err != nil {
		m.mu.Lock()
		w.dirty = true
		m.mu.Unlock()
		return
	}
	m.wg.Go(func() {
		<-r.done
		m.mu.Lock()
		defer m.mu.Unlock()
		switch {
		case r.err != nil:
			w.again = m.o.Now().Add(m.o.Settle)
		case len(r.unfinished()) > 0:
			w.again = m.o.Now().Add(2 * m.o.WatchInterval)
		case r.pending:
			w.again = m.o.Now().Add(m.o.Settle)
		}
	})
}

// unfinished are the skips of files that could not be read because they are young.
func (r *run) unfinished() (out []Skip) {
	if r.report != nil {
		for _, s := range r.report.Skipped {
			if strings.HasPrefix(s.Reason, pendingReason) {
				out = append(out, s)
			}
		}
	}
	return out
}

const pendingReason = "it may still be being written: "

func (m *Manager) openWatch(d Definition) (polls []func(context.Context) (bool, error), err error) {
	for _, t := range d.Targets {
		r, err := m.resolve(m.ctx, t)
		if err != nil {
			return nil, err
		}
		if w, ok := r.source.(Watcher); ok {
			polls = append(polls, w.Watch(r.prefix))
		}
	}
	return polls, nil
}

// Notify tells that objects came or went at a location, for sources that cannot be
// watched. It starts the crawlers in event mode that have it in a target, once the
// next look at the folders is due; it does not wait.
func (m *Manager) Notify(location string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.crawlers {
		if e.Definition.Recrawl != EventMode {
			continue
		}
		for _, t := range e.Definition.Targets {
			if strings.HasPrefix(place(location)+"/", place(t.Path)+"/") {
				if e.watch != nil { // otherwise the first look crawls
					e.watch.dirty = true
				}
			}
		}
	}
}
