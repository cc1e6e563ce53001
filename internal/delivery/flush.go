package delivery

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/prefix"
	"github.com/tapehouse/tapehouse/internal/record"
)

// retryWaitMax bounds the wait between attempts of a flush that fails.
const retryWaitMax = 30 * time.Second

// plan is a flush: a stretch of the log and, where records of it were rejected,
// the name of the object that gets them. It is stored before that object is
// written, so that a replay executes exactly it.
type plan struct {
	From        record.Offset `json:"from"`
	To          record.Offset `json:"to"`
	ErrorObject string        `json:"error_object,omitempty"`
	At          time.Time     `json:"at"`
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
	if l.s.direct == l {
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
		if l.rejectsBelow(p.To) {
			var err error
			if p.ErrorObject, err = l.errorObjectName(p.At); err != nil {
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
	var rows int64
	flush := func() error {
		old := run
		run, rows = nil, 0
		if len(old) < 2 {
			return nil
		}
		return l.merge(old, d)
	}
	for _, e := range l.tail.span(p.From, p.To) {
		if e.rows >= mergeRowsMax || rows+e.rows > columnar.MaxRowGroupRows || len(run) > 0 && e.layout != run[0].layout {
			if err := flush(); err != nil {
				return err
			}
		}
		if e.rows < mergeRowsMax {
			run, rows = append(run, e), rows+e.rows
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
	entries := l.tail.span(p.From, p.To)
	for _, e := range entries {
		dl.Parts = append(dl.Parts, e.files...)
		rows, size = rows+e.rows, size+e.sizeBytes
	}
	if l.keys != nil {
		dl.Parts, dl.Removals = ordered(entries)
	}
	if p.ErrorObject != "" {
		if err := l.writeErrors(ctx, p); err != nil {
			return flushResult{p, superseded(fmt.Errorf("write the error output: %w", err)), false}
		}
	}
	err := l.dest.Deliver(ctx, dl)
	if err != nil {
		// The error does not tell the outcome; the table does.
		st, serr := l.dest.State(ctx, l.key)
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
	kept := l.rejects[:0]
	for _, o := range l.rejects {
		if o >= res.plan.To {
			kept = append(kept, o)
		}
	}
	l.rejects = kept
	if record.Offset(l.appended.Load()) == res.plan.To {
		l.rejectsAll = false
	}
}

func (l *tableLane) rejectsBelow(to record.Offset) bool {
	return l.rejectsAll || len(l.rejects) > 0 && l.rejects[0] < to
}

// errorObjectName is Firehose's object key under the error prefix.
func (l *tableLane) errorObjectName(at time.Time) (string, error) {
	cfg := l.s.Config()
	text := cfg.ErrorPrefix
	if text == "" {
		text = "errors/" + string(l.s.name) + "/"
	}
	expr, err := prefix.Parse(text, prefix.Error, "")
	if err != nil {
		return "", fmt.Errorf("error prefix: %w", err)
	}
	return expr.Name(prefix.Object{Stream: string(cfg.Name), Version: int(cfg.Version), OldestAt: at, Seed: prefix.NewSeed(), ErrorType: errorConversion})
}

// failedRecord is a line of the error output, as Firehose writes it, with the
// record id and this program's own code and message added.
type failedRecord struct {
	AttemptsMade     int       `json:"attemptsMade"`
	ArrivalTimestamp int64     `json:"arrivalTimestamp"` // ms
	LastErrorCode    string    `json:"lastErrorCode"`
	LastErrorMessage string    `json:"lastErrorMessage"`
	AttemptEnding    int64     `json:"attemptEndingTimestamp"` // ms
	RawData          string    `json:"rawData"`                // base64
	SequenceNumber   string    `json:"sequenceNumber"`
	SubSequence      *int64    `json:"subSequenceNumber"`
	Table            failTable `json:"dataCatalogTable"`
	RecordID         string    `json:"recordId"`
	Code             string    `json:"tapehouseCode"`
}

type failTable struct {
	CatalogID    *string `json:"catalogId"`
	DatabaseName string  `json:"databaseName"`
	TableName    string  `json:"tableName"`
	Region       *string `json:"region"`
	VersionID    string  `json:"versionId"`
	CatalogARN   *string `json:"catalogArn"`
}

// SequenceConflict is the code of a record whose key is known with other content.
const SequenceConflict = "SequenceConflict"

// writeErrors stores the plan and writes its error object: the rejected and
// conflicting records of the stretch, read again from the log.
func (l *tableLane) writeErrors(ctx context.Context, p *plan) error {
	body, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode flush plan: %w", err)
	}
	if err := l.m.o.Documents.Put(ctx, kindPlan, l.planKey(), body); err != nil {
		return fmt.Errorf("store flush plan: %w", err)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	d := l.newDecoders()
	line := func(f frame, offset record.Offset, raw []byte, code, aws, message string) error {
		return enc.Encode(failedRecord{
			AttemptsMade: 1, ArrivalTimestamp: f.ArrivedAt / 1000, LastErrorCode: aws, LastErrorMessage: message,
			AttemptEnding: p.At.UnixMilli(), RawData: base64.StdEncoding.EncodeToString(raw),
			SequenceNumber: fmt.Sprint(offset), Table: failTable{DatabaseName: l.table.Namespace, TableName: l.table.Table, VersionID: "LATEST"},
			RecordID: record.ID{Key: l.s.key, Offset: offset}.String(), Code: code,
		})
	}
	err = l.m.read(ctx, l.key, p.From, func(f frame) error {
		if f.First >= p.To {
			return errStop
		}
		return l.eachBatch(d, f, func(b *columnar.Batch, conflict bool) error {
			for i := range b.Rejects {
				r := &b.Rejects[i]
				aws := "DataFormatConversion.MalformedData"
				if r.Code == columnar.MalformedJSON || r.Code == columnar.NotAnObject || r.Code == columnar.InvalidUTF8 {
					aws = "DataFormatConversion.ParseError"
				}
				if err := line(f, f.First+record.Offset(r.Doc), r.Raw, r.Code, aws, r.Message); err != nil {
					return err
				}
			}
			if conflict {
				for row := range b.Rows {
					if err := line(f, b.Offset(row), b.Document(row), SequenceConflict, "Tapehouse."+SequenceConflict, "a record with this source, session, epoch and sequence number but other content is stored already; both are kept"); err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
	if err != nil && !errors.Is(err, errStop) {
		return fmt.Errorf("read the rejected records: %w", err)
	}
	store, err := l.m.errorStore(l.s.Config())
	if err != nil {
		return fmt.Errorf("open the error output: %w", err)
	}
	err = store.Put(ctx, p.ErrorObject, &out, int64(out.Len()))
	if errors.Is(err, lake.ErrExists) { // by this plan, before a crash
		return nil
	}
	return err
}

// errorStore is where a stream's error output goes.
func (m *Manager) errorStore(c Config) (lake.Store, error) {
	if c.ErrorBucket == "" {
		return m.o.Errors, nil
	}
	return m.o.Bucket(c.ErrorBucket)
}

// ErrorOutput is where a stream's failed records go: the bucket, and what every
// object's name begins with.
func (m *Manager) ErrorOutput(s *Stream) (lake.Store, string, error) {
	cfg := s.Config()
	bucket, text := cfg.ErrorBucket, cfg.ErrorPrefix
	if cfg.Objects != nil {
		var t Target
		if err := json.Unmarshal(cfg.Objects.Target, &t); err != nil {
			return nil, "", fmt.Errorf("read the target: %w", err)
		}
		bucket, text = t.Bucket, t.Prefix
		if t.ErrorPrefix != nil {
			text = *t.ErrorPrefix
		}
	} else if text == "" {
		text = "errors/" + string(cfg.Name) + "/"
	}
	store := m.o.Errors
	if bucket != "" {
		var err error
		if store, err = m.o.Bucket(bucket); err != nil {
			return nil, "", err
		}
	}
	text, _, _ = strings.Cut(text, "!{")
	return store, text, nil
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
