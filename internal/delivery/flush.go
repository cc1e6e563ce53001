package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/record"
)

// retryWaitMax bounds the wait between attempts of a flush that fails.
const retryWaitMax = 30 * time.Second

// plan is a flush: a stretch of the log and, where records of it were rejected,
// the objects that get them. It is stored before the first of these is written,
// so that a replay executes exactly it.
type plan struct {
	From   record.Offset `json:"from"`
	To     record.Offset `json:"to"`
	At     time.Time     `json:"at"`
	Errors *errorPlan    `json:"errors,omitempty"`
	// ErrorObject is the one object of a plan stored by a version that did not
	// have Errors.
	ErrorObject string `json:"error_object,omitempty"`

	errorsStored int  // objects of the error output that this process has stored
	tried        bool // by this process
}

type flushResult struct {
	plan *plan
	err  error
	done bool // the table contains the plan's records
}

// adoptPlan takes a stored plan into account at start: if the table still
// stands where the plan begins, the plan is executed before anything else.
func (l *tableLane) adoptPlan(body json.RawMessage) error {
	var p plan
	if err := json.Unmarshal(body, &p); err != nil {
		return fmt.Errorf("stream %s: read its flush plan: %w", l.s.name, err)
	}
	if p.From == l.Through() && p.To > p.From && p.To <= l.m.o.Log.Next(l.key) {
		l.planned = &p
	}
	return nil
}

// planKey names the lane among the stored flush plans.
func (l *tableLane) planKey() string {
	if l.direct() && l.span.from == 0 {
		return l.key.String()
	}
	return l.key.String() + " " + l.table.String()
}

// executePlan executes the plan found at start, until it succeeds.
func (l *tableLane) executePlan(d *decoders) error {
	p := l.planned
	if p == nil {
		return nil
	}
	for {
		err := l.absorb(d, p.To)
		if err == nil {
			err = l.encode(d)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, errTailWrite) {
			return err
		}
		l.stall(err)
		select {
		case <-l.stop:
			return nil
		case <-time.After(l.m.o.RetryWait):
		}
	}
	for {
		res := l.deliver(p)
		l.finishFlush(res)
		if res.done {
			l.planned = nil
			return nil
		}
		if err := l.failure(); err != nil {
			return err
		}
		select {
		case <-l.stop:
			return nil
		case <-time.After(l.retryWait):
		}
	}
}

// beginFlush starts a flush beside the pump. Entries below its end are left
// alone until it is finished.
func (l *tableLane) beginFlush(p *plan, d *decoders, running *sync.WaitGroup) error {
	if l.retry == nil {
		// Small row groups are a cost, not a fault: a full disk does not keep
		// what there is from being delivered.
		if err := l.compactFor(p, d); err != nil && !errors.Is(err, errTailWrite) {
			return err
		}
		if l.tail.faults(p.From, p.To).records > 0 {
			var err error
			if p.Errors, err = l.planErrors(); err != nil {
				return err
			}
		}
	}
	l.flushing, l.flushEnd = true, max(l.flushEnd, p.To)
	l.firstAt = time.Time{}
	if l.pending() || record.Offset(l.appended.Load()) > p.To {
		l.firstAt = l.m.o.Now()
	}
	running.Go(func() { l.flushed <- l.deliver(p) })
	return nil
}

// compactFor merges runs of small entries of a flush, so that a slow stream's
// data file has few row groups.
func (l *tableLane) compactFor(p *plan, d *decoders) error {
	var run []*entry
	var work int64
	flush := func() error {
		old := run
		run, work = nil, 0
		if len(old) < 2 {
			return nil
		}
		return l.merge(old, d)
	}
	for _, e := range l.tail.span(p.From, p.To) {
		if e.work() >= mergeRowsMax || work+e.work() > columnar.MaxRowGroupRows || len(run) > 0 && e.layout != run[0].layout {
			if err := flush(); err != nil {
				return err
			}
		}
		if e.work() < mergeRowsMax {
			run, work = append(run, e), work+e.work()
		}
	}
	return flush()
}

// deliver executes a plan. It is safe to execute again, in this process or the
// next: names are fixed by the plan or never referenced before the commit.
func (l *tableLane) deliver(p *plan) flushResult {
	ctx := context.Background()
	started := l.m.o.Now()
	dl := Delivery{Key: l.key, From: p.From, To: p.To}
	var rows, size int64
	var faulty faults
	entries := l.tail.span(p.From, p.To)
	for _, e := range entries {
		dl.Parts = append(dl.Parts, e.files...)
		rows, size = rows+e.rows, size+e.sizeBytes
		faulty.add(e.faults)
	}
	if l.keys != nil {
		dl.Parts, dl.Removals = ordered(entries)
	}
	first := !p.tried
	p.tried = true
	count := func(ok bool) { l.m.metrics.firehose.rows(l.s.name, first, ok, rows, size, faulty) }
	if p.Errors != nil || p.ErrorObject != "" {
		if err := l.writeErrors(ctx, p); err != nil {
			count(false)
			return flushResult{p, superseded(fmt.Errorf("write the error output: %w", err)), false}
		}
	}
	err := l.dest.Deliver(ctx, dl)
	if err != nil {
		// The error does not tell the outcome; the table does.
		st, serr := l.dest.State(ctx, l.key)
		if serr != nil || st.Through != p.To {
			count(false)
		}
		switch {
		case serr != nil:
			return flushResult{p, errors.Join(err, serr), false}
		case st.Through == p.To: // done after all
		case st.Through != p.From:
			return flushResult{p, fmt.Errorf("%w: %s.%s contains records up to offset %d, this server delivered %d to %d", ErrSuperseded, l.table.Namespace, l.table.Table, st.Through, p.From, p.To), false}
		default:
			return flushResult{p, superseded(err), false}
		}
	}
	count(true)
	l.m.metrics.delivered(l.s.name, rows, size, l.m.o.Now().Sub(started))
	return flushResult{p, nil, true}
}

// superseded marks an error of a commit that was not done: a fenced owner can
// never commit again, so that trying on would be in vain.
func superseded(err error) error {
	if errors.Is(err, catalog.ErrFenced) {
		return fmt.Errorf("%w: %w", ErrSuperseded, err)
	}
	return err
}

// finishFlush takes a flush's outcome into account.
func (l *tableLane) finishFlush(res flushResult) {
	l.flushing = false
	l.lastFlush = l.m.o.Now()
	if !res.done {
		if errors.Is(res.err, ErrSuperseded) {
			l.fail(res.err)
			return
		}
		l.retry = res.plan
		l.retryWait = min(max(2*l.retryWait, l.m.o.RetryWait), retryWaitMax)
		l.retryAt = l.lastFlush.Add(l.retryWait)
		l.m.metrics.failedFlush(l.s.name)
		l.m.o.Logger.Error("delivery failed, will be tried again", "stream", l.s.name, "from", res.plan.From, "to", res.plan.To, "wait", l.retryWait, "err", res.err)
		return
	}
	l.retry, l.retryAt, l.retryWait = nil, time.Time{}, 0
	l.through.Store(uint64(res.plan.To))
	l.tail.drop(res.plan.To)
}

// writeTail writes a tail file, not fsynced.
func (m *Manager) writeTail(name string, data []byte) error {
	f, err := m.o.FS.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
