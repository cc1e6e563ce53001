// Package delivery takes records in, keeps them safe, makes them visible, and
// moves them to their tables.
//
//	Put ─▶ decode ─▶ ledger ─▶ log ─fsync─▶ acknowledged
//	                            │
//	one pump a stream:          └▶ queue ─▶ row groups ─▶ tail entries (visible)
//	                                                       │ at the buffer hint
//	                                                       ▼
//	                                        destination: files + progress, one step
//
// The protocol, its invariants and the crash cases are in
// docs/protocols/delivery.md. In short: what is acknowledged is on disk; a
// destination's data and its through move together; the tail holds exactly what
// is synced and not yet in the destination; entries never straddle a through.
//
// Ownership: a Manager owns its streams, a Stream its pump and flusher
// goroutines; Close waits for them. A data directory has one owner (the server
// holds its lock); a second owner of a table is fenced by the catalog.
package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/ledger"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/internal/wal"
)

// Errors that front doors map to their protocol's codes.
var (
	ErrNotFound = errors.New("no such delivery stream")
	ErrExists   = errors.New("delivery stream exists")
	// ErrChanged: the definition is no longer at the version that the caller saw.
	ErrChanged = errors.New("delivery stream was changed meanwhile")
	// ErrChanging: a change of the destination is still taking effect.
	ErrChanging    = errors.New("the delivery stream's destination is being changed")
	ErrUnavailable = errors.New("delivery stream cannot take records now")
	// ErrThrottled: more than the stream's quota, or than becomes visible in time.
	// It is ErrUnavailable too.
	ErrThrottled = fmt.Errorf("%w: too much at once", ErrUnavailable)
	ErrClosed    = errors.New("delivery is shutting down")
	// ErrSuperseded: another owner has moved the table on. The stream stops.
	ErrSuperseded = errors.New("another owner has taken over the table")
	// ErrLogBehind: the log ends before what a table already contains.
	ErrLogBehind = errors.New("the log is older than the table")
	// ErrTailMoved: the tail no longer reaches down to the offset asked for,
	// because a newer commit contains it: load the table again.
	ErrTailMoved = errors.New("tail has moved on")
)

// Log is what delivery needs of a log. *wal.Log meets it.
type Log interface {
	Enqueue(k record.Key, e wal.Entry) (wal.Ticket, error)
	Next(k record.Key) record.Offset
	Synced(k record.Key) record.Offset
	Oldest(k record.Key) record.Offset
	Read(ctx context.Context, k record.Key, from record.Offset, fn func(wal.Frame) error) error
	Trim(ctx context.Context, upTo map[record.Key]record.Offset) error
	Forget(k record.Key)
}

// State is what a stream must know of its destination to begin.
type State struct {
	Schema    record.Schema
	Schemas   []record.Schema // former ones, that frames of the log may have been written under
	Sequence  record.SequenceColumns
	Partition string        // Date column that splits data files, or ""
	Through   record.Offset // of this stream's key: every record below it is contained
}

// Delivery is one flush: the parts hold exactly the accepted rows of [From, To).
type Delivery struct {
	Key      record.Key
	From, To record.Offset
	Parts    []TailFile // in offset order; none where every record was rejected
	// Removals are files of keys: each takes away the rows with these keys that
	// stand in the table, and in the parts of a lower Order.
	Removals []TailFile
}

// Destination is where a stream's rows go.
type Destination interface {
	// State loads the present state.
	State(ctx context.Context, key record.Key) (State, error)
	// Deliver makes d's rows and the through d.To visible in one step, given
	// that the through is d.From. An error says nothing about the outcome: the
	// caller loads the state and looks.
	Deliver(ctx context.Context, d Delivery) error
}

// Evolver is a Destination whose schema records may change.
type Evolver interface {
	// Evolve adds optional columns and widens others.
	Evolve(ctx context.Context, add, widen []record.Field) error
}

// Documents keeps the stream definitions and flush plans.
type Documents interface {
	List(ctx context.Context, kind string) (map[string]json.RawMessage, error)
	Put(ctx context.Context, kind, key string, body json.RawMessage) error
	Delete(ctx context.Context, kind, key string) error
	// History returns the versions that are kept, newest first.
	History(ctx context.Context, kind, key string) ([]json.RawMessage, error)
}

// The kinds of documents that delivery keeps.
const (
	kindStream = "stream"
	kindPlan   = "flush-plan"
)

// Options configure a Manager. FS, Dir, Log, Ledger, Documents, Destination,
// Errors, Calendar and Logger are required.
type Options struct {
	FS          fsys.FS
	Dir         string // holds tail/ and ledger/
	Log         Log
	Ledger      *ledger.Ledger
	Documents   Documents
	Destination func(Config, catalog.Name) (Destination, error)
	// Objects makes the destination of a stream's object lane, by its role.
	Objects func(c Config, role string) (ObjectDestination, error)
	// CreateTable makes a table with the columns, and its namespace, unless it is
	// there.
	CreateTable func(ctx context.Context, c Config, table catalog.Name, fields []record.Field) error
	// Quota bounds the puts of a stream; nil: none.
	Quota func(stream string) Quota
	// Processor makes what Config.Processing defines.
	Processor func(ctx context.Context, c Config) (Processor, error)
	Errors    lake.Store // the error output of streams that name no bucket
	// Bucket opens the bucket of a stream's error output.
	Bucket     func(name string) (lake.Store, error)
	Calendar   columnar.Calendar
	Logger     *slog.Logger
	Registerer prometheus.Registerer

	TailInterval       time.Duration // default 200 ms
	CheckpointInterval time.Duration // default 10 s
	QueueRows          int           // decoded rows waiting for a pump, a stream; default 256 Ki
	LagRows            int           // records that visibility may lag behind the log, a stream, before puts are turned away; default 8 Mi
	QueueBytes         int64         // bytes of the documents behind these, a stream; default 128 MiB
	ErrorObjectBytes   int64         // an object of the error output; default 64 MiB
	PutWait            time.Duration // how long a put waits for room; default 5 s
	RetryWait          time.Duration // before a failed flush is tried again, doubling up to 30 s; default 250 ms
	Now                func() time.Time
}

func (o *Options) setDefaults() {
	if o.TailInterval <= 0 {
		o.TailInterval = 200 * time.Millisecond
	}
	if o.CheckpointInterval <= 0 {
		o.CheckpointInterval = 10 * time.Second
	}
	if o.QueueRows <= 0 {
		o.QueueRows = 256 << 10
	}
	if o.LagRows <= 0 {
		o.LagRows = 8 << 20
	}
	if o.QueueBytes <= 0 {
		o.QueueBytes = 128 << 20
	}
	if o.ErrorObjectBytes <= 0 {
		o.ErrorObjectBytes = errorObjectBytesMax
	}
	if o.PutWait <= 0 {
		o.PutWait = 5 * time.Second
	}
	if o.RetryWait <= 0 {
		o.RetryWait = 250 * time.Millisecond
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
}

// Config defines a delivery stream. It is stored as a document.
type Config struct {
	Name        record.StreamName  `json:"name"`
	Incarnation record.Incarnation `json:"incarnation"`
	Namespace   string             `json:"namespace"` // of the destination table
	Table       string             `json:"table"`
	SizeBytes   int64              `json:"size_bytes"`  // buffer hint
	Interval    time.Duration      `json:"interval_ns"` // buffer hint
	ErrorPrefix string             `json:"error_prefix"`
	ErrorBucket string             `json:"error_bucket,omitempty"` // "": Options.Errors
	// Tables are those that records may be routed to; none stands for the one
	// of Namespace and Table.
	Tables []catalog.Name `json:"tables,omitempty"`
	// Keys are the columns by which records update and delete rows, by the name
	// of their table.
	Keys map[string][]string `json:"keys,omitempty"`
	// Objects makes objects the destination, instead of tables.
	Objects *ObjectConfig `json:"objects,omitempty"`
	// Failed is the error output of records that processing could not handle,
	// of a stream into tables.
	Failed *ObjectConfig `json:"failed,omitempty"`
	// Backup keeps what producers sent.
	Backup *ObjectConfig `json:"backup,omitempty"`
	// Evolve lets records add columns to their table, and widen them.
	Evolve bool `json:"evolve,omitempty"`
	// CreateTables lets records make the table that they are for.
	CreateTables bool `json:"create_tables,omitempty"`
	// Processing defines what records go through before their destination.
	Processing json.RawMessage `json:"processing,omitempty"`
	CreatedAt  time.Time       `json:"created_at"`
	Version    int64           `json:"version,omitempty"` // from 1, raised by every change of the destination
	UpdatedAt  time.Time       `json:"updated_at,omitzero"`
	// API is the front door's own description of the stream, echoed by Describe.
	API json.RawMessage `json:"api,omitempty"`
	// Progress is what delivery notes about changes of the destination.
	Progress *ChangeProgress `json:"progress,omitempty"`
}

// settle gives Tables its meaning.
func (c *Config) settle() {
	if c.Objects == nil && len(c.Tables) == 0 && !c.CreateTables {
		c.Tables = []catalog.Name{{Namespace: c.Namespace, Table: c.Table}}
	}
}

// direct reports whether puts are decoded before they are logged.
func (c *Config) direct() bool { return c.Objects == nil && !c.staged() }

// staged reports whether records are processed between the intake and the
// lanes. A table beside a backup counts: its rows are then decoded after the
// log, because the backup needs the records as they came.
func (c *Config) staged() bool {
	return len(c.Processing) > 0 || c.Objects == nil && (c.Backup != nil || len(c.Tables) > 1 || c.Evolve || c.CreateTables)
}

// Manager holds the delivery streams of a data directory.
type Manager struct {
	o       Options
	metrics *metrics

	mu      sync.RWMutex
	streams map[record.StreamName]*Stream
	gone    map[departedKey]departed // lanes of streams that were deleted lately
	closed  bool

	checkpointMu sync.Mutex
	stop         chan struct{}
	wg           sync.WaitGroup
}

// departed is a deleted stream, remembered for departedFor: a query that loaded
// its table before the last flush must load it again.
type departed struct {
	end record.Offset
	at  time.Time
}

type departedKey struct {
	key   record.Key
	table catalog.Name
}

// departedFor is far above what passes between the load of a table and the look
// at its tail.
const departedFor = 10 * time.Minute

// Open loads the stream definitions, recovers the ledger and every stream from
// the log, and starts the pumps. When it returns puts may begin; queries that
// ask for fresh rows wait until the replay has caught up.
func Open(ctx context.Context, o Options) (*Manager, error) {
	o.setDefaults()
	m := &Manager{o: o, metrics: newMetrics(o.Registerer), streams: map[record.StreamName]*Stream{}, gone: map[departedKey]departed{}, stop: make(chan struct{})}
	for _, dir := range []string{m.tailDir(), m.ledgerDir()} {
		if err := o.FS.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make %s: %w", dir, err)
		}
	}
	if err := m.clearTail(); err != nil {
		return nil, err
	}
	docs, err := o.Documents.List(ctx, kindStream)
	if err != nil {
		return nil, fmt.Errorf("load streams: %w", err)
	}
	plans, err := o.Documents.List(ctx, kindPlan)
	if err != nil {
		return nil, fmt.Errorf("load flush plans: %w", err)
	}
	states, err := o.Documents.List(ctx, KindProgress)
	if err != nil {
		return nil, fmt.Errorf("load object progress: %w", err)
	}
	for name, body := range docs {
		var cfg Config
		if err := json.Unmarshal(body, &cfg); err != nil {
			return nil, fmt.Errorf("stream %s: read its definition: %w", name, err)
		}
		if cfg.Version == 0 { // stored before there were versions
			cfg.Version, cfg.UpdatedAt = 1, cfg.CreatedAt
		}
		s, err := m.openStream(ctx, cfg, states)
		if err != nil {
			m.shutdown()
			return nil, err
		}
		for _, l := range s.objects() {
			if l.keeper {
				if err := l.recover(ctx); err != nil {
					m.shutdown()
					return nil, err
				}
			}
		}
		for _, l := range s.tables() {
			if body, ok := plans[l.planKey()]; ok {
				if err := l.adoptPlan(body); err != nil {
					m.shutdown()
					return nil, err
				}
			}
			if l.direct() {
				err = l.recoverLedger(ctx)
			}
			if err != nil {
				m.shutdown()
				return nil, err
			}
		}
		if g := s.stage.Load(); g != nil {
			if err := g.recover(ctx); err != nil {
				m.shutdown()
				return nil, err
			}
		}
		m.streams[cfg.Name] = s
	}
	for _, s := range m.streams {
		s.start()
	}
	m.wg.Go(m.checkpoints)
	return m, nil
}

func (m *Manager) tailDir() string        { return filepath.Join(m.o.Dir, "tail") }
func (m *Manager) ledgerDir() string      { return filepath.Join(m.o.Dir, "ledger") }
func (m *Manager) checkpointName() string { return LedgerCheckpoint(m.o.Dir) }

// LedgerCheckpoint is the name of the ledger's checkpoint below a delivery's
// directory.
func LedgerCheckpoint(dir string) string { return filepath.Join(dir, "ledger", "checkpoint") }

// clearTail removes what a former process left: the tail is rebuilt from the log.
func (m *Manager) clearTail() error {
	entries, err := m.o.FS.ReadDir(m.tailDir())
	if err != nil {
		return fmt.Errorf("list %s: %w", m.tailDir(), err)
	}
	for _, e := range entries {
		if err := m.o.FS.Remove(filepath.Join(m.tailDir(), e.Name())); err != nil {
			return fmt.Errorf("clear the tail: %w", err)
		}
	}
	return nil
}

// Create defines a stream and starts it. The destination table must exist.
func (m *Manager) Create(ctx context.Context, cfg Config) (Config, error) {
	if _, err := record.ParseStreamName(string(cfg.Name)); err != nil {
		return cfg, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return cfg, ErrClosed
	}
	if _, ok := m.streams[cfg.Name]; ok {
		return cfg, fmt.Errorf("%w: %s", ErrExists, cfg.Name)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return cfg, fmt.Errorf("name the stream's incarnation: %w", err)
	}
	cfg.Incarnation, cfg.CreatedAt, cfg.Version = id, m.o.Now().UTC(), 1
	cfg.UpdatedAt = cfg.CreatedAt
	if err := m.alone(cfg); err != nil {
		return cfg, err
	}
	s, err := m.openStream(ctx, cfg, nil)
	if err != nil {
		return cfg, err
	}
	body, err := json.Marshal(cfg)
	if err != nil {
		return cfg, fmt.Errorf("encode stream %s: %w", cfg.Name, err)
	}
	if err := m.o.Documents.Put(ctx, kindStream, string(cfg.Name), body); err != nil {
		return cfg, fmt.Errorf("store stream %s: %w", cfg.Name, err)
	}
	m.streams[cfg.Name] = s
	s.start()
	m.o.Logger.Info("stream created", "stream", cfg.Name, "table", cfg.Namespace+"."+cfg.Table, "incarnation", cfg.Incarnation)
	return cfg, nil
}

// Update changes a stream's definition: change gets the present one and returns
// the new one, of which name, incarnation and creation stay as they are; objects
// do not become tables, nor tables objects. docs/protocols/delivery.md says what
// becomes of the records that are on their way. ErrChanging if another change
// must be complete first.
// With a version, ErrChanged is returned unless the stream is still at it, and
// the version is raised; version 0 stands for a change beside the destination
// (tags), which leaves the version alone. An error of change is returned as it
// is and changes nothing; of another error the outcome is open until the next
// start. What is returned is durable, and its buffer hints are in effect.
func (m *Manager) Update(ctx context.Context, name record.StreamName, version int64, change func(Config) (Config, error)) (Config, error) {
	s, err := m.Stream(name)
	if err != nil {
		return Config{}, err
	}
	s.definition.Lock()
	defer s.definition.Unlock()
	m.mu.RLock()
	closed := m.closed
	m.mu.RUnlock()
	old := s.Config()
	switch {
	case closed:
		return old, ErrClosed
	case s.deleted:
		return old, fmt.Errorf("%w: %s", ErrNotFound, name)
	case version != 0 && version != old.Version:
		return old, fmt.Errorf("%w: %s is at version %d, not %d", ErrChanged, name, old.Version, version)
	}
	cfg, err := change(old)
	if err != nil {
		return old, err
	}
	cfg.inherit(&old)
	if version != 0 {
		cfg.Version, cfg.UpdatedAt = old.Version+1, m.o.Now().UTC()
	}
	if err := s.redefine(ctx, &old, &cfg); err != nil {
		return old, err
	}
	s.signal()
	m.o.Logger.Info("stream changed", "stream", name, "version", cfg.Version)
	return cfg, nil
}

// Delete flushes a stream, stops it and forgets its definition. Its rows stay
// in the table.
func (m *Manager) Delete(ctx context.Context, name record.StreamName) error {
	s, err := m.Stream(name)
	if err != nil {
		return err
	}
	s.refuse(fmt.Errorf("%w: %s is being deleted", ErrNotFound, name))
	// What was enqueued before will be acknowledged: a flush takes it only once
	// it is synced.
	err = s.settle(ctx)
	if err == nil {
		err = s.Flush(ctx)
	}
	if err != nil {
		s.refuse(nil)
		return fmt.Errorf("flush before delete: %w", err)
	}
	if err := s.forget(ctx); err != nil {
		s.refuse(nil)
		return fmt.Errorf("delete stream %s: %w", name, err)
	}
	for _, key := range s.progresses() {
		if err := m.o.Documents.Delete(ctx, KindProgress, key); err != nil && !errors.Is(err, catalog.ErrNotFound) {
			m.o.Logger.Warn("the progress of a deleted stream stays", "stream", name, "lane", key, "err", err)
		}
	}
	m.mu.Lock()
	delete(m.streams, name)
	m.metrics.close(name) // before another of its name is created
	now := m.o.Now()
	for k, d := range m.gone {
		if age := now.Sub(d.at); age > departedFor || age < 0 {
			delete(m.gone, k)
		}
	}
	for _, l := range s.tables() {
		m.gone[departedKey{l.key, l.table}] = departed{l.Through(), now}
	}
	m.mu.Unlock()
	s.close()
	if err := m.checkpoint(ctx); err != nil {
		return err
	}
	for _, k := range []record.Key{s.key, s.staged()} {
		m.o.Ledger.Forget(k)
		m.o.Log.Forget(k)
	}
	m.o.Logger.Info("stream deleted", "stream", name)
	return nil
}

// Unfed runs fn, during which no stream can begin to feed the table. Where one
// does already, fn is not run and the stream is returned.
func (m *Manager) Unfed(table catalog.Name, fn func() error) (record.StreamName, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, s := range m.streams {
		for _, l := range s.tables() {
			if l.table == table {
				return name, nil
			}
		}
	}
	return "", fn()
}

// Stream returns the named stream or ErrNotFound.
func (m *Manager) Stream(name record.StreamName) (*Stream, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s, ok := m.streams[name]
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	return s, nil
}

// Streams returns every stream, by name.
func (m *Manager) Streams() []*Stream {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := make([]*Stream, 0, len(m.streams))
	for _, s := range m.streams {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *Stream) int { return strings.Compare(string(a.name), string(b.name)) })
	return out
}

// tailsOf returns the lanes whose tails stand above through; ErrTailMoved if
// one was deleted since.
func (m *Manager) tailsOf(table catalog.Name, through record.Vector) ([]*tableLane, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for k, d := range m.gone {
		if k.table == table && through[k.key] < d.end {
			return nil, ErrTailMoved
		}
	}
	var out []*tableLane
	for _, s := range m.streams {
		for _, l := range s.tables() {
			if l.table == table {
				out = append(out, l)
			}
		}
	}
	return out, nil
}

// invisible says why a stream's records cannot be made visible.
func (m *Manager) invisible(s *Stream, err error) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	switch {
	case !errors.Is(err, ErrClosed):
		return fmt.Errorf("make %s visible: %w", s.name, err)
	case m.closed:
		return fmt.Errorf("%w: %w", engine.ErrClosed, err)
	default: // it was deleted meanwhile: its table contains everything
		return fmt.Errorf("%w: %s was deleted", engine.ErrTailMoved, s.name)
	}
}

// checkpoints writes the ledger's checkpoint and trims the log, at intervals.
func (m *Manager) checkpoints() {
	t := time.NewTicker(m.o.CheckpointInterval)
	defer t.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-t.C:
			if err := m.checkpoint(context.Background()); err != nil {
				m.o.Logger.Error("ledger checkpoint", "err", err)
			}
		}
	}
}

// checkpoint makes the account durable, then lets go of what both the account
// and the tables contain.
func (m *Manager) checkpoint(ctx context.Context) error {
	m.checkpointMu.Lock()
	defer m.checkpointMu.Unlock()
	applied, err := m.o.Ledger.Checkpoint(m.o.FS, m.checkpointName())
	if err != nil {
		return err
	}
	upTo := record.Vector{}
	for _, s := range m.Streams() {
		s.trimmable(applied, upTo)
	}
	if err := m.o.Log.Trim(ctx, upTo); err != nil {
		return fmt.Errorf("trim the log: %w", err)
	}
	return nil
}

// trimmable enters up to where nothing of the stream needs the log any more.
func (s *Stream) trimmable(applied, upTo record.Vector) {
	// The error output shows what producers sent, so the source stays as long
	// as any lane is behind it.
	source := s.Through()
	out := s.staged()
	if s.followed() > 0 {
		source = min(source, applied[s.key])
	}
	if g := s.stage.Load(); g != nil {
		source = min(source, g.taken())
	}
	if staged := s.m.o.Log.Synced(out); staged > 0 {
		s.each(func(l lane) {
			if l.log() == out {
				staged = min(staged, max(l.Through(), l.bounds().from))
			}
		})
		upTo[out] = min(staged, applied[out])
	}
	upTo[s.key] = source
}

// Flush delivers everything acknowledged so far, of every stream.
func (m *Manager) Flush(ctx context.Context) error {
	var wg sync.WaitGroup
	streams := m.Streams()
	errs := make([]error, len(streams))
	for i, s := range streams {
		wg.Go(func() { errs[i] = s.Flush(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Frozen holds the streams of a seal: each has delivered exactly up to At and
// commits nothing further until Release.
type Frozen struct {
	At    record.Vector
	lanes []*tableLane
	held  []*Stream
	once  sync.Once
}

// Release lets the streams go on.
func (f *Frozen) Release() {
	f.once.Do(func() {
		for _, l := range f.lanes {
			l.release()
		}
		for _, s := range f.held {
			s.hold(-1)
		}
	})
}

// Freeze cuts every stream at one vector of synced offsets, delivers up to it
// and holds further commits. Puts go on meanwhile.
func (m *Manager) Freeze(ctx context.Context) (*Frozen, error) {
	f := &Frozen{At: record.Vector{}}
	for _, s := range m.Streams() {
		if len(s.tables()) == 0 { // a seal is about tables: a slow transform elsewhere holds none up
			continue
		}
		s.hold(1)
		f.held = append(f.held, s)
		if err := s.changed(ctx); err != nil {
			f.Release()
			return nil, fmt.Errorf("freeze %s: %w", s.name, err)
		}
		if err := s.processed(ctx); err != nil {
			f.Release()
			return nil, fmt.Errorf("freeze %s: %w", s.name, err)
		}
		for _, l := range s.tables() {
			at, err := l.freeze(ctx)
			if err != nil {
				f.Release()
				return nil, fmt.Errorf("freeze %s: %w", s.name, err)
			}
			f.At[l.key] = at
			f.lanes = append(f.lanes, l)
		}
	}
	return f, nil
}

// Close flushes every stream, writes the checkpoint and stops. Puts are
// refused from its first moment.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	m.mu.Unlock()
	for _, s := range m.Streams() {
		s.refuse(ErrClosed)
	}
	flushed := m.Flush(ctx)
	m.shutdown()
	return errors.Join(flushed, m.checkpoint(ctx))
}

// shutdown stops every goroutine without flushing: what is in the log stays
// there for the next start.
func (m *Manager) shutdown() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	select {
	case <-m.stop:
	default:
		close(m.stop)
	}
	for _, s := range m.Streams() {
		s.close()
	}
	m.wg.Wait()
}

// Abandon stops without flushing or checkpointing, as a crash would; for tests
// and for a server that must stop at once.
func (m *Manager) Abandon() { m.shutdown() }
