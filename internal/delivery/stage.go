package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/ledger"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/internal/wal"
)

// stagedShard is the shard of what processing made: its offsets are those of
// shard 0, so that its end is also the stage's progress.
const stagedShard = record.Shard(1)

// SourceRecord is a record as a producer sent it. Data is valid until Process
// returns.
type SourceRecord struct {
	ID        record.ID
	ArrivedAt int64 // µs UTC
	Data      []byte
}

// Outcome is one thing that processing made of a record.
type Outcome struct {
	Kind OutcomeKind
	Data []byte            // Processed: the record as it goes on
	Keys map[string]string // Processed: partition keys of objects, as SOURCE:NAME
	// Table is where the row belongs, of a stream into tables; the zero Name is
	// the stream's own.
	Table catalog.Name
	// Operation is what the record does to a table: insert, update or delete; "":
	// insert.
	Operation string
	// Code and Message say why processing failed.
	Code, Message string
}

// OutcomeKind says what became of a record.
type OutcomeKind uint8

// The kinds of outcomes.
const (
	Processed OutcomeKind = iota
	Dropped               // by a rule: it goes nowhere, and that is right
	Failed                // it goes to the error output
)

// Processor turns records into others. It is used by one goroutine.
type Processor interface {
	// Process returns the outcomes of each record, at least one, in the order
	// of records; or those of the first records only, at least one's, where all
	// would take too much memory. What it cannot process is a Failed outcome; an
	// error says nothing about any record, and all are given again.
	Process(ctx context.Context, records []SourceRecord) ([][]Outcome, error)
	// BatchBytesMax bounds the records of one Process, as far as frames allow.
	BatchBytesMax() int
	// Local reports whether Process takes no longer than its computing: a query
	// that wants what was acknowledged before it then waits for it.
	Local() bool
	Close() error
}

// identity passes records on as they are.
type identity struct{}

func (identity) Process(_ context.Context, records []SourceRecord) ([][]Outcome, error) {
	all := make([]Outcome, len(records))
	out := make([][]Outcome, len(records))
	for i := range records {
		all[i].Data = records[i].Data
		out[i] = all[i : i+1 : i+1]
	}
	return out, nil
}

func (identity) BatchBytesMax() int { return 4 << 20 }
func (identity) Local() bool        { return true }
func (identity) Close() error       { return nil }

// stageDef is what a stage works by.
type stageDef struct {
	cfg       *Config
	processor Processor
}

// stage processes a stream's records, once: what came out is logged, frame by
// frame at the same offsets, before any lane sees it. So a replay never asks a
// transform again, however it may answer today.
type stage struct {
	s       *Stream
	m       *Manager
	in, out record.Key
	span    span
	def     atomic.Pointer[stageDef] // what it works by; the goroutine's own to change
	objects bool                     // outcomes are documents for an object lane, not rows

	mu        sync.Mutex
	pending   *stageDef          // what it is to work by next; or nil
	interrupt context.CancelFunc // ends the call of a processor; or nil

	fatal    atomic.Pointer[error]
	retryAt  time.Time
	wait     time.Duration
	wake     chan struct{}
	stop     chan struct{}
	done     sync.WaitGroup
	stopOnce sync.Once
	decoders map[*tableLane]*decoders
	latest   map[session]numbered // what sources have brought, for tables with keys
	lookups  int                  // of rows, so far
}

func newStage(s *Stream, def *stageDef) *stage {
	g := &stage{s: s, m: s.m, in: s.key, out: s.staged(), objects: def.cfg.Objects != nil,
		wake: make(chan struct{}, 1), stop: make(chan struct{}), decoders: map[*tableLane]*decoders{}}
	g.def.Store(def)
	return g
}

func (g *stage) start() { g.done.Go(g.run) }

func (g *stage) close() error {
	g.stopOnce.Do(func() { close(g.stop) })
	g.done.Wait()
	return g.closeProcessor()
}

// shut closes the stage and logs what went wrong in it.
func (g *stage) shut() {
	if err := g.close(); err != nil {
		g.m.o.Logger.Warn("close a stream's processor", "stream", g.s.name, "err", err)
	}
}

// closeProcessor closes what the stage works with, and what it was to work with.
func (g *stage) closeProcessor() error {
	err := g.present().processor.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.pending; p != nil {
		g.pending = nil
		err = errors.Join(err, p.processor.Close())
	}
	return err
}

// present is what the stage works by.
func (g *stage) present() *stageDef { return g.def.Load() }

// instruct gives the stage a new definition to work by, if there is one: a call
// under way is cut short. What the stage was given before, it never uses.
func (g *stage) instruct(def *stageDef) {
	if g == nil || def == nil {
		return
	}
	g.mu.Lock()
	former := g.pending
	g.pending = def
	if g.interrupt != nil {
		g.interrupt()
	}
	g.mu.Unlock()
	if former != nil {
		if err := former.processor.Close(); err != nil {
			g.m.o.Logger.Warn("close a stream's processor", "stream", g.s.name, "err", err)
		}
	}
	g.signal()
}

// outdated reports whether there is another definition to work by.
func (g *stage) outdated() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pending != nil
}

// adopt takes the newest definition up.
func (g *stage) adopt() {
	cfg := g.s.cfg.Load() // first: of what it says, the rest is pending by now
	g.mu.Lock()
	next := g.pending
	g.pending = nil
	g.mu.Unlock()
	was := g.present()
	if next == nil {
		if cfg != was.cfg {
			g.def.Store(&stageDef{cfg, was.processor})
			clear(g.decoders) // lanes may have gone
		}
		return
	}
	g.def.Store(next)
	g.wait, g.retryAt = 0, time.Time{}
	clear(g.decoders)
	if err := was.processor.Close(); err != nil {
		g.m.o.Logger.Warn("close a stream's processor", "stream", g.s.name, "err", err)
	}
}

// process asks the processor; a new definition ends the call.
func (g *stage) process(ctx context.Context, records []SourceRecord) ([][]Outcome, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g.mu.Lock()
	g.interrupt = cancel
	if g.pending != nil {
		cancel()
	}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		g.interrupt = nil
		g.mu.Unlock()
	}()
	return g.present().processor.Process(ctx, records)
}

func (g *stage) signal() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

func (g *stage) failure() error {
	if p := g.fatal.Load(); p != nil {
		return *p
	}
	return nil
}

// taken is the offset below which everything is processed and on disk.
func (g *stage) taken() record.Offset { return g.m.o.Log.Synced(g.out) }

// await waits until everything below at is processed.
func (g *stage) await(ctx context.Context, at record.Offset) error {
	g.signal()
	for g.taken() < at {
		if err := g.failure(); err != nil {
			return err
		}
		select {
		case <-g.stop:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// recover brings the ledger up to what was processed before.
func (g *stage) recover(ctx context.Context) error {
	lanes := g.s.tables()
	lanes = slices.DeleteFunc(lanes, func(l *tableLane) bool { return l.key != g.out })
	applied := g.m.o.Ledger.Applied()[g.out]
	from := g.m.o.Log.Oldest(g.out)
	if len(lanes) == 0 { // no content is compared
		from = max(from, applied)
	}
	if from > applied && g.m.o.Log.Synced(g.out) > applied {
		return fmt.Errorf("%w: stream %s: processed records from offset %d on are needed, the log begins at %d", ErrLogBehind, g.s.name, applied, from)
	}
	err := g.m.read(ctx, g.out, from, func(f frame) error {
		e := f.effect(g.out)
		for _, l := range lanes {
			if err := l.eachBatch(g.decoder(l), f, func(b *columnar.Batch, conflict bool) error {
				if l.sequence && !conflict {
					if err := g.m.o.Ledger.Learn(runsOf(b), b.Hash); err != nil && !errors.Is(err, ledger.ErrBusy) {
						return err
					}
				}
				l.addEffect(&e, b, conflict)
				return nil
			}); err != nil {
				return err
			}
		}
		return g.m.o.Ledger.Apply(e)
	})
	if err != nil {
		return fmt.Errorf("stream %s: recover from the log: %w", g.s.name, err)
	}
	return nil
}

func (g *stage) decoder(l *tableLane) *decoders {
	d := g.decoders[l]
	if d == nil {
		d = l.newDecoders()
		g.decoders[l] = d
	}
	return d
}

func (g *stage) run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // a transform under way is cut short
		select {
		case <-g.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	tick := time.NewTicker(g.m.o.TailInterval)
	defer tick.Stop()
	for {
		select {
		case <-g.stop:
			return
		case <-g.wake:
		case <-tick.C:
		}
		for g.failure() == nil && (g.outdated() || !g.m.o.Now().Before(g.retryAt)) {
			more, err := g.step(ctx)
			if err != nil && g.outdated() { // by the new definition, then
				continue
			}
			if err != nil && ctx.Err() == nil {
				g.hold(err)
			}
			if !more || err != nil {
				break
			}
		}
	}
}

// hold waits before the next try: nothing of the batch was logged, so nothing
// is lost or done twice.
func (g *stage) hold(err error) {
	g.wait = min(max(2*g.wait, g.m.o.RetryWait), retryWaitMax)
	g.retryAt = g.m.o.Now().Add(g.wait)
	g.m.o.Logger.Error("processing failed, will be tried again", "stream", g.s.name, "wait", g.wait, "err", err)
	g.m.metrics.held(g.s.name)
}

// step processes the next frames; more tells whether it found any.
func (g *stage) step(ctx context.Context) (more bool, err error) {
	// The limit first: a frame from the boundary of a change on is below it only
	// if that change is seen.
	from, limit := g.m.o.Log.Next(g.out), g.span.cap(g.m.o.Log.Synced(g.in))
	g.adopt()
	if from >= limit {
		return false, nil
	}
	frames, records, err := g.read(ctx, from, limit)
	if err != nil {
		return false, err
	}
	outcomes, err := g.process(ctx, records)
	if err != nil {
		return false, err
	}
	if n := len(outcomes); n > len(records) || n == 0 {
		return false, fmt.Errorf("the processor answered %d of %d records", n, len(records))
	}
	for _, f := range frames {
		if len(outcomes) == 0 {
			break
		}
		f.Count = min(f.Count, uint32(len(outcomes))) // the rest follows as a frame of its own
		if err := g.emit(ctx, f, outcomes[:f.Count]); err != nil {
			return false, err
		}
		outcomes = outcomes[f.Count:]
	}
	g.wait, g.retryAt = 0, time.Time{}
	g.s.each(lane.signal)
	return true, nil
}

// read takes whole frames from the source, up to the processor's bound.
func (g *stage) read(ctx context.Context, from, limit record.Offset) (frames []frame, records []SourceRecord, err error) {
	size := 0
	rerr := g.m.read(ctx, g.in, from, func(f frame) error {
		if f.First >= limit || size > 0 && size+len(f.Payload) > g.present().processor.BatchBytesMax() {
			return errStop
		}
		if f.Kind != payloadPlain {
			return fmt.Errorf("frame at offset %d: %w: kind %d cannot be processed", f.First, errPayload, f.Kind)
		}
		f.Payload = slices.Clone(f.Payload) // the log's buffer is used again
		docs, err := readPlain(f.Payload, int(f.Count))
		if err != nil {
			return fmt.Errorf("frame at offset %d: %w", f.First, err)
		}
		if f.First < from { // of this one, the first records are logged already, and that they stand for others
			docs = docs[from-f.First:]
			f.First, f.Count, f.replays = from, uint32(len(docs)), nil
		}
		for i, d := range docs {
			records = append(records, SourceRecord{ID: record.ID{Key: g.in, Offset: f.First + record.Offset(i)}, ArrivedAt: f.ArrivedAt, Data: d})
		}
		frames = append(frames, f)
		size += len(f.Payload)
		return nil
	})
	if rerr != nil && !errors.Is(rerr, errStop) {
		return nil, nil, fmt.Errorf("read the log: %w", rerr)
	}
	return frames, records, nil
}

// Codes of records that a stream into tables cannot place.
const (
	codeNoTable = "Iceberg.TableNotFound"
)

// routed are the documents of one table among a frame's outcomes.
type routed struct {
	name   catalog.Name
	lane   *tableLane
	docs   [][]byte
	places []int32
	ops    []operation

	// Of a part with changes of a table with keys:
	layout  *columnar.Layout // of its documents; nil: the table's present one
	changes []change
	written written // by the frame, so far
	keyless int     // documents that were taken out, because they lack a part of their key
}

// codeTooLarge is the code of a record of which processing makes more than a
// frame of the log can hold.
const codeTooLarge = "Processing.OutputTooLarge"

// emit logs what became of one frame's records. Where that is too large for a
// frame, it logs several in its place.
func (g *stage) emit(ctx context.Context, f frame, outcomes [][]Outcome) error {
	err := g.emitFrame(ctx, f, outcomes)
	if !errors.Is(err, wal.ErrTooLarge) {
		return err
	}
	if f.Count == 1 {
		return g.emitFrame(ctx, f, [][]Outcome{{{Kind: Failed, Code: codeTooLarge, Message: fmt.Sprintf("What processing makes of the record cannot be kept: %v", err)}}})
	}
	head, rest := f, f
	head.Count = f.Count / 2
	rest.First, rest.Count, rest.replays = f.First+record.Offset(head.Count), f.Count-head.Count, nil
	if err := g.emit(ctx, head, outcomes[:head.Count]); err != nil {
		return err
	}
	return g.emit(ctx, rest, outcomes[head.Count:])
}

// emitFrame logs what became of a frame's records, and enters it into the ledger.
func (g *stage) emitFrame(ctx context.Context, f frame, outcomes [][]Outcome) error {
	var st staged
	var tables []*routed
	var dropped, failed int
	var size int64
	for place, list := range outcomes {
		for i := range list {
			o := &list[i]
			switch {
			case o.Kind == Dropped:
				dropped++
				st.Entries = append(st.Entries, stagedEntry{Place: place, Kind: stagedDropped})
			case o.Kind == Failed:
				failed++
				st.Entries = append(st.Entries, stagedEntry{Place: place, Kind: stagedFailed, Code: o.Code, Message: o.Message})
			case g.objects:
				size += int64(len(o.Data))
				st.Entries = append(st.Entries, stagedEntry{Place: place, Kind: stagedDocument, Data: o.Data, Keys: o.Keys})
			default:
				t := g.route(&tables, o.Table)
				t.docs, t.places, t.ops = append(t.docs, o.Data), append(t.places, int32(place)), append(t.ops, operations[o.Operation])
				size += int64(len(o.Data))
			}
		}
	}
	effect := f.effect(g.out)
	var reserved []*ledger.Reservation
	release := func() {
		for _, r := range reserved {
			r.Release()
		}
	}
	for _, t := range tables {
		if err := g.open(ctx, t); err != nil {
			var none *noTableError
			if !errors.As(err, &none) {
				release()
				return err
			}
			for _, p := range t.places {
				failed++
				st.Entries = append(st.Entries, stagedEntry{Place: int(p), Kind: stagedFailed, Code: codeNoTable, Message: none.Error()})
			}
			continue
		}
		if g.present().cfg.Evolve {
			if err := g.evolve(ctx, t); err != nil {
				release()
				return err
			}
		}
		parts, refused := g.changes(&st, t)
		failed += refused
		for _, part := range parts {
			res, err := g.rows(ctx, &st, &effect, f, part)
			if err != nil {
				release()
				return err
			}
			if res != nil {
				reserved = append(reserved, res)
			}
			failed += part.keyless
		}
	}
	kind, payload := payloadStaged, []byte(nil)
	if len(f.replays) > 0 {
		kind, payload = kind|kindReplay, appendReplayed(payload, f.replays)
	}
	ticket, err := g.m.o.Log.Enqueue(g.out, wal.Entry{Kind: kind, Count: f.Count, ArrivedAt: f.ArrivedAt, Payload: st.append(payload, int(f.Count))})
	if err == nil {
		err = ticket.Wait(context.WithoutCancel(ctx))
	}
	if err != nil {
		release()
		return fmt.Errorf("log what was processed: %w", err)
	}
	if ticket.First() != f.First {
		panic(fmt.Sprintf("delivery: stage of %s logged offset %d at %d", g.s.name, f.First, ticket.First()))
	}
	for _, r := range reserved {
		r.Confirm()
	}
	for _, r := range reserved { // a duplicate of another stream's put on its way
		if err := r.Wait(ctx); err != nil {
			return fmt.Errorf("log what was processed: %w", err)
		}
	}
	g.m.metrics.processed(g.s.name, int(f.Count), dropped, failed)
	if len(g.s.Config().Processing) > 0 {
		g.m.metrics.firehose.processed.add(string(g.s.name), int64(max(int(f.Count)-dropped-failed, 0)), size)
	}
	return g.m.o.Ledger.Apply(effect)
}

// route finds the documents of an outcome's table.
func (g *stage) route(tables *[]*routed, name catalog.Name) *routed {
	if cfg := g.present().cfg; name == (catalog.Name{}) && len(cfg.Tables) == 1 {
		name = cfg.Tables[0]
	}
	for _, t := range *tables {
		if t.name == name {
			return t
		}
	}
	t := &routed{name: name}
	*tables = append(*tables, t)
	return t
}

// noTableError says why records have no table.
type noTableError struct{ err error }

func (e *noTableError) Error() string { return e.err.Error() }

// open finds the lane of the documents' table; where the stream may, it makes
// the table. A *noTableError concerns these documents only.
func (g *stage) open(ctx context.Context, t *routed) (err error) {
	if t.lane, err = g.tableOf(t.name); err == nil {
		return nil
	}
	if !g.present().cfg.CreateTables || t.name == (catalog.Name{}) {
		return &noTableError{err}
	}
	change := inferSchema(record.Schema{}, t.docs)
	if len(change.add) == 0 {
		return &noTableError{fmt.Errorf("the table %s does not exist, and no column of it can be told from the record", t.name)}
	}
	if t.lane, err = g.s.addTable(ctx, g.out, t.name, change.add); errors.Is(err, catalog.ErrInvalid) {
		return &noTableError{err}
	} else if err != nil {
		return fmt.Errorf("make the table %s: %w", t.name, err)
	}
	return nil
}

// evolve changes the table so that it takes the documents, as far as it may.
func (g *stage) evolve(ctx context.Context, t *routed) error {
	e, ok := t.lane.dest.(Evolver)
	for round := 0; ok && round < schemaChangesAtOnce; round++ {
		b := g.decoder(t.lane).present().DecodeDocs(t.docs, 0)
		asks := wants(b)
		b.Release()
		if !asks {
			return nil
		}
		change := inferSchema(t.lane.layouts.present().Schema(), t.docs)
		if change.empty() {
			return nil
		}
		if err := e.Evolve(ctx, change.add, change.widen); errors.Is(err, catalog.ErrInvalid) { // the records fit or are rejected, as without
			g.m.o.Logger.Warn("the schema was not changed", "stream", g.s.name, "table", t.name.String(), "err", err)
			return nil
		} else if err != nil {
			return fmt.Errorf("change the schema of %s: %w", t.name, err)
		}
		if err := t.lane.renew(ctx); err != nil {
			return err
		}
	}
	return nil
}

// rows decodes one table's documents, asks the ledger about them, and adds
// their sections and effects. Duplicates vanish: they are here already.
func (g *stage) rows(ctx context.Context, st *staged, e *ledger.Effect, f frame, t *routed) (res *ledger.Reservation, err error) {
	d := g.decoder(t.lane).by(t.layoutOf())
	b := g.keyed(st, t, d, d.DecodeDocs(t.docs, f.ArrivedAt), f.ArrivedAt)
	defer b.Release()
	if b.Docs() == 0 {
		return nil, nil
	}
	if t.lane.sequence && b.Rows > 0 {
		if res, err = g.m.o.Ledger.Reserve(runsOf(b), b.Hash); err != nil {
			return nil, err
		}
	}
	if res != nil && len(res.Duplicates)+len(res.Conflicts) > 0 {
		if rows := res.Conflicts; len(rows) > 0 {
			c := &routed{name: t.name, lane: t.lane}
			for _, r := range rows {
				c.docs, c.places = append(c.docs, t.docs[b.Doc[r]]), append(c.places, t.places[b.Doc[r]])
			}
			g.conflicts(st, e, f, c, d)
		}
		gone := mergeRows(res.Duplicates, res.Conflicts)
		drop := make(map[int32]bool, len(gone))
		for _, r := range gone {
			drop[b.Doc[r]] = true
		}
		b.Drop(gone)
		t.keep(func(i int) bool { return !drop[int32(i)] })
		if b.Docs() == 0 {
			return res, nil
		}
		// Documents are numbered anew without the dropped ones, as a reader of
		// the payload will number them.
		again, err := g.reread(d, b, len(t.places), f.ArrivedAt)
		if err != nil {
			res.Release()
			return nil, err
		}
		defer again.Release()
		b = again
	}
	if t.lane.sequence && t.changes != nil {
		if err := g.supersede(ctx, t, b, t.written); err != nil {
			if res != nil {
				res.Release()
			}
			return nil, err
		}
	}
	g.section(st, e, f, t, b, false)
	return res, nil
}

func (g *stage) reread(d *columnar.Decoder, b *columnar.Batch, count int, arrivedAt int64) (*columnar.Batch, error) {
	kind, payload := b.AppendPayload(nil)
	return d.DecodePayload(kind, payload, count, arrivedAt)
}

// conflicts adds records whose keys are known with other content.
func (g *stage) conflicts(st *staged, e *ledger.Effect, f frame, c *routed, d *columnar.Decoder) {
	b := d.DecodeDocs(c.docs, f.ArrivedAt)
	defer b.Release()
	b.Exact = false // logged as they came: the error output shows them so
	g.section(st, e, f, c, b, true)
}

func (g *stage) section(st *staged, e *ledger.Effect, f frame, t *routed, b *columnar.Batch, conflict bool) {
	kind, payload := b.AppendPayload(nil)
	st.Sections = append(st.Sections, stagedSection{Table: t.lane.table, Conflict: conflict, Places: t.places, Kind: kind, Payload: payload, Changes: t.changes})
	b.SetPlaces(g.in, f.First, t.places)
	t.lane.addEffect(e, b, conflict)
}
