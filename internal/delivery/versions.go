package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/ledger"
	"github.com/tapehouse/tapehouse/internal/record"
)

// This file and change.go change the destination of a stream that runs: "Changed
// destinations" of docs/protocols/delivery.md.

// errForm: the form of the stream's frames was changed while a put was decoded.
// Nothing of the put is logged.
var errForm = errors.New("the form of the stream's records was changed")

// errHalfLogged: it was changed between a put's two frames. The ledger knows
// the records of the first one, so the producer may send all again.
var errHalfLogged = fmt.Errorf("%w: the destination was changed meanwhile", ErrUnavailable)

// formerMax bounds the ended lanes that are remembered, for Trace and for
// reading the log; the oldest are forgotten first.
const formerMax = 64

// changeWait bounds how long puts wait while a boundary is drawn: for the log
// to sync what was enqueued.
const changeWait = 5 * time.Second

// ChangeProgress is what delivery notes in a stream's definition about changes
// of the destination.
type ChangeProgress struct {
	// Begun are the present lanes that did not begin at offset 0.
	Begun []LaneSpan `json:"begun,omitempty"`
	// Ending are the lanes that have yet to deliver what is below their Until.
	Ending []LaneSpan `json:"ending,omitempty"`
	// StageEnds: the stage goes on to the Until of Ending, and no further.
	StageEnds bool          `json:"stage_ends,omitempty"`
	Boundary  record.Offset `json:"boundary,omitempty"` // of the last change that had one
	// Former are the lanes that ended, oldest first.
	Former []LaneSpan `json:"former,omitempty"`
}

// LaneSpan is a stretch [From, Until) of the log that is, or was, a lane's.
type LaneSpan struct {
	Shard record.Shard  `json:"shard"`
	Table catalog.Name  `json:"table,omitzero"`
	Role  string        `json:"role,omitempty"` // of objects
	From  record.Offset `json:"from"`
	Until record.Offset `json:"until,omitempty"`
	// Objects is how an ending lane of objects ends, where the definition has
	// none of its role.
	Objects *ObjectConfig `json:"objects,omitempty"`
}

func (x *LaneSpan) id() laneID { return laneID{x.Shard, x.Table, x.Role} }

func (x *LaneSpan) has(at record.Offset) bool { return x.From <= at && at < x.Until }

// changing reports whether a change is still taking effect.
func (p *ChangeProgress) changing() bool { return p != nil && (p.StageEnds || len(p.Ending) > 0) }

// begin is where a lane of the definition begins.
func (p *ChangeProgress) begin(id laneID) record.Offset {
	if p != nil {
		for i := range p.Begun {
			if p.Begun[i].id() == id {
				return p.Begun[i].From
			}
		}
	}
	return 0
}

// laneID names a lane among those that a stream has at one time.
type laneID struct {
	shard record.Shard
	table catalog.Name // of a table's
	role  string       // of one of objects
}

func (id laneID) String() string {
	if id.role == "" {
		return "the table " + id.table.String()
	}
	return "the " + map[string]string{roleObjects: "objects", roleErrors: "error output", roleBackup: "backup"}[id.role]
}

// laneIDs are the lanes of a definition. REQUIRES: it is settled.
func (c *Config) laneIDs() (out []laneID) {
	if c.direct() {
		return []laneID{{table: c.Tables[0]}}
	}
	shard := record.Shard(0)
	if c.staged() {
		shard = stagedShard
	}
	for _, t := range c.Tables {
		out = append(out, laneID{shard: shard, table: t})
	}
	for _, role := range []string{roleObjects, roleErrors, roleBackup} {
		if c.part(role) == nil {
			continue
		}
		id := laneID{shard: shard, role: role}
		if role == roleBackup { // as producers sent it
			id.shard = 0
		}
		out = append(out, id)
	}
	return out
}

// part is the definition of the object lane of a role; nil: none.
func (c *Config) part(role string) *ObjectConfig {
	switch role {
	case roleObjects:
		return c.Objects
	case roleErrors:
		return c.Failed
	default:
		return c.Backup
	}
}

// inherit keeps what no change of a definition touches.
func (c *Config) inherit(old *Config) {
	c.Name, c.Incarnation = old.Name, old.Incarnation
	c.CreatedAt, c.Version, c.UpdatedAt, c.Progress = old.CreatedAt, old.Version, old.UpdatedAt, old.Progress
	if c.CreateTables && old.CreateTables { // tables that records made stay
		c.Tables = slices.Clone(c.Tables)
		for _, t := range old.Tables {
			if !slices.Contains(c.Tables, t) {
				c.Tables = append(c.Tables, t)
			}
		}
	}
	c.settle()
	if len(c.Tables) > 0 {
		c.Namespace, c.Table = c.Tables[0].Namespace, c.Tables[0].Table
	}
}

// span is the stretch [from, until) of its log that is a lane's, or a stage's.
type span struct {
	from  record.Offset // fixed before the lane starts
	until atomic.Uint64 // one more than it; 0: without end
}

func (s *span) end(at record.Offset) { s.until.Store(uint64(at) + 1) }

// last is where the span ends; the greatest offset if it does not.
func (s *span) last() record.Offset { return s.cap(^record.Offset(0)) }

func (s *span) ends() bool { return s.until.Load() != 0 }

// cap is at, but no more than where the span ends.
func (s *span) cap(at record.Offset) record.Offset {
	if u := s.until.Load(); u != 0 {
		return min(at, record.Offset(u-1))
	}
	return at
}

func (s *span) has(at record.Offset) bool { return s.from <= at && s.cap(at+1) > at }

func (l *tableLane) bounds() *span { return &l.span }
func (l *tableLane) id() laneID    { return laneID{shard: l.key.Shard, table: l.table} }

// direct reports whether the lane takes frames that puts decoded.
func (l *tableLane) direct() bool { return l.key.Shard == 0 }

// limit is the offset up to which the lane may take records now.
func (l *tableLane) limit() record.Offset { return l.span.cap(l.m.o.Log.Synced(l.key)) }

func (l *objectLane) bounds() *span        { return &l.span }
func (l *objectLane) id() laneID           { return laneID{shard: l.key.Shard, role: l.role} }
func (l *objectLane) limit() record.Offset { return l.span.cap(l.m.o.Log.Synced(l.key)) }

// begin makes the lane pass over what is below an offset, of which nothing is
// for it: an empty entry of the tail, which the first flush takes along.
// REQUIRES: the lane is not started.
func (l *tableLane) begin(from record.Offset) {
	l.span.from = from
	if at := l.taken(); at < from {
		l.tail.push(&entry{first: at, next: from})
		l.appended.Store(uint64(from))
	}
}

// begin makes the lane pass over what is below an offset. REQUIRES: the lane is
// not started.
func (l *objectLane) begin(from record.Offset) {
	l.span.from = from
	if l.Through() < from {
		l.through.Store(uint64(from))
		l.appended.Store(uint64(from))
		l.retry = nil
	}
}

// await waits until the ledger's account has what is below the lane's span: a
// direct lane before this one may still be reading it.
func (l *tableLane) await() error {
	for p := l.after; p != nil && p.taken() < p.span.last(); {
		if err := p.failure(); err != nil {
			return err
		}
		select {
		case <-l.stop:
			return nil
		case <-time.After(time.Millisecond):
		}
	}
	l.after = nil
	if !l.direct() {
		return nil
	}
	return l.m.pass(l.key, l.span.from)
}

// waits reports whether an ending lane has yet to commit what the table gets
// before this lane's records: a table has them in the order of the boundary.
func (l *tableLane) waits() bool {
	if p := l.behind; p != nil && p.Through() < p.span.last() {
		return true
	}
	l.behind = nil
	return false
}

// follow makes a lane that is not started commit after an ending one into its table.
func (s *Stream) follow(l lane, ending []lane) {
	t, ok := l.(*tableLane)
	if !ok {
		return
	}
	for _, e := range ending {
		if e, ok := e.(*tableLane); ok && e.table == t.table {
			t.behind = e
		}
	}
}

// pass enters into the ledger's account that nothing of a key below an offset
// is for it.
func (m *Manager) pass(key record.Key, to record.Offset) error {
	if at := m.o.Ledger.Applied()[key]; at < to {
		return m.o.Ledger.Apply(ledger.Effect{Key: key, First: at, Count: int(to - at)})
	}
	return nil
}

// staged is the key of what processing made, whether there is any.
func (s *Stream) staged() record.Key {
	out := s.key
	out.Shard = stagedShard
	return out
}

// followed is the offset up to which the ledger's account will follow shard 0
// of what is synced now; 0 where no lane of it does.
func (s *Stream) followed() (at record.Offset) {
	s.each(func(l lane) {
		switch l := l.(type) {
		case *tableLane:
			if l.direct() {
				at = max(at, l.limit())
			}
		case *objectLane:
			if l.keeper {
				at = max(at, l.limit())
			}
		}
	})
	return at
}

// progresses are the keys of the documents that the stream's object lanes have,
// or had.
func (s *Stream) progresses() (out []string) {
	add := func(id laneID) {
		if id.role != "" {
			key := record.Key{Incarnation: s.key.Incarnation, Shard: id.shard}.String() + " " + id.role
			if !slices.Contains(out, key) {
				out = append(out, key)
			}
		}
	}
	for _, l := range s.objects() {
		add(l.id())
	}
	if p := s.Config().Progress; p != nil {
		for i := range p.Former {
			add(p.Former[i].id())
		}
	}
	return out
}

// processor makes what a definition's stage works with.
func (m *Manager) processor(ctx context.Context, c *Config) (Processor, error) {
	if len(c.Processing) == 0 {
		return identity{}, nil
	}
	p, err := m.o.Processor(ctx, *c)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", c.Name, err)
	}
	return p, nil
}

// openLanes opens the stage and the lanes of a definition, the ending ones
// first: the ledger follows them before the others.
func (s *Stream) openLanes(ctx context.Context, cfg *Config, states map[string]json.RawMessage) error {
	p := cfg.Progress
	if cfg.staged() || p != nil && p.StageEnds {
		proc, err := s.m.processor(ctx, cfg)
		if err != nil {
			return err
		}
		g := newStage(s, &stageDef{s.cfg.Load(), proc})
		if !cfg.staged() {
			g.span.end(p.Boundary)
		}
		s.stage.Store(g)
	}
	if p != nil {
		for i := range p.Ending {
			x := &p.Ending[i]
			l, err := s.openLane(ctx, x.id(), x.Objects, states)
			if err != nil {
				return err
			}
			l.begin(x.From)
			l.bounds().end(x.Until)
			s.lanes = append(s.lanes, l)
		}
	}
	ending := s.lanes
	for _, id := range cfg.laneIDs() {
		l, err := s.openLane(ctx, id, nil, states)
		if cfg.CreateTables && id.role == "" && errors.Is(err, catalog.ErrNotFound) { // until a record is for it
			continue
		}
		if err != nil {
			return err
		}
		from := p.begin(id)
		if cfg.CreateTables && id.role == "" {
			// What the log has let go of was not for it: an open lane would have held it.
			from = max(from, s.m.o.Log.Oldest(l.log()))
		}
		l.begin(from)
		s.follow(l, ending)
		s.enter(l)
		s.lanes = append(s.lanes, l)
	}
	return nil
}

// enter makes a lane of the present definition known to the intake. REQUIRES:
// mu, or the stream is not started.
func (s *Stream) enter(l lane) {
	switch l := l.(type) {
	case *tableLane:
		if l.direct() {
			s.direct.Store(l)
		}
	case *objectLane:
		if l.key == s.key {
			s.following = append(s.following, l)
		}
	}
}

// beginner is a lane that is not started.
type beginner interface {
	lane
	begin(from record.Offset)
}

// openLane opens one lane, from offset 0 on. last is its definition where the
// stream's has none of its role.
func (s *Stream) openLane(ctx context.Context, id laneID, last *ObjectConfig, states map[string]json.RawMessage) (beginner, error) {
	key := record.Key{Incarnation: s.key.Incarnation, Shard: id.shard}
	if id.role == "" {
		return s.m.openTable(ctx, s, key, id.table)
	}
	dest, err := s.m.o.Objects(s.Config(), id.role)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", s.name, err)
	}
	if last == nil {
		last = s.cfg.Load().part(id.role)
	}
	var l *objectLane
	cfg := func() ObjectConfig {
		if c := s.cfg.Load().part(id.role); c != nil {
			return *c
		}
		return *l.last.Load()
	}
	if l, err = s.m.openObjects(s, key, id.role, cfg, dest, states); err != nil {
		return nil, err
	}
	l.last.Store(last)
	l.keeper = id.role == roleObjects && id.shard == 0
	return l, nil
}

// addLanes makes lanes known to whoever goes through them.
func (s *Stream) addLanes(lanes ...lane) {
	s.lanesMu.Lock()
	s.lanes = append(slices.Clone(s.lanes), lanes...)
	s.lanesMu.Unlock()
}

// laneOf finds the stream's lane of an id; nil: none.
func (s *Stream) laneOf(id laneID) (found lane) {
	s.each(func(l lane) {
		if l.id() == id {
			found = l
		}
	})
	return found
}

// hold counts the seals that hold the stream: no lane begins or ends meanwhile.
func (s *Stream) hold(n int) {
	s.definition.Lock()
	s.frozen += n
	s.definition.Unlock()
}

// changed waits until no change of the destination is taking effect any more.
func (s *Stream) changed(ctx context.Context) error {
	for s.Config().Progress.changing() {
		if err := s.failure(); err != nil {
			return err
		}
		s.signal()
		select {
		case <-s.stop:
			return ErrClosed
		case <-ctx.Done():
			return errors.Join(ctx.Err(), s.waits(s.Config().Progress))
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// waits says what a change waits for.
func (s *Stream) waits(p *ChangeProgress) error {
	var list []string
	for i := range p.Ending {
		x := &p.Ending[i]
		if l := s.laneOf(x.id()); l != nil && l.Through() < x.Until {
			list = append(list, fmt.Sprintf("%s is delivered up to offset %d of %d", x.id(), l.Through(), x.Until))
		}
	}
	if g := s.stage.Load(); p.StageEnds && g != nil && g.taken() < p.Boundary {
		list = append(list, fmt.Sprintf("records are processed up to offset %d of %d", g.taken(), p.Boundary))
	}
	if len(list) == 0 {
		list = []string{"it is complete in a moment"}
	}
	return fmt.Errorf("%w: what was put before the last change of %s is not delivered yet: %s", ErrChanging, s.name, strings.Join(list, "; "))
}

// former opens the ended lanes that had the offset, to read what the log still
// has for them. They are not started.
func (s *Stream) former(ctx context.Context, at record.Offset) (out []lane) {
	p := s.Config().Progress
	if p == nil {
		return nil
	}
	for i := range p.Former {
		x := &p.Former[i]
		if !x.has(at) {
			continue
		}
		key := record.Key{Incarnation: s.key.Incarnation, Shard: x.Shard}
		if x.Role != "" {
			l := &objectLane{s: s, m: s.m, key: key, role: x.Role}
			l.span.from = x.From
			l.span.end(x.Until)
			l.through.Store(uint64(x.Until))
			out = append(out, l)
			continue
		}
		l, err := s.m.openTable(ctx, s, key, x.Table)
		if err != nil { // the table may be gone, which is nobody's fault
			s.m.o.Logger.Warn("a former table cannot be read", "stream", s.name, "table", x.Table.String(), "err", err)
			continue
		}
		l.span.from = x.From
		l.span.end(x.Until)
		out = append(out, l)
	}
	return out
}

// tablesAt are the tables' lanes, former ones as well, that have the offset.
func (s *Stream) tablesAt(ctx context.Context, at record.Offset) (out []*tableLane) {
	for _, l := range s.tables() {
		if l.span.has(at) {
			out = append(out, l)
		}
	}
	for _, l := range s.former(ctx, at) {
		if t, ok := l.(*tableLane); ok {
			out = append(out, t)
		}
	}
	return out
}

// directAt is the lane whose table decoded the frame at the offset of shard 0.
func (s *Stream) directAt(ctx context.Context, at record.Offset) (*tableLane, error) {
	for _, l := range s.tablesAt(ctx, at) {
		if l.direct() {
			return l, nil
		}
	}
	return nil, fmt.Errorf("%w: the record at offset %d of %s was put for a table that the stream does not feed any more, and that is not there", ErrReplay, at, s.name)
}
