package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/internal/wal"
)

// redefinition is a new definition and what it takes to get there.
type redefinition struct {
	old, next *Config
	end       []lane
	fresh     []beginner // the lanes of next that old does not have
	drain     beginner   // or nil: where an ending stage's rows go, if old has no such lane
	def       *stageDef  // what the stage works by from now on, if not as before
}

// redefine stores a stream's new definition and puts it in force. REQUIRES:
// s.definition; next inherited from old.
func (s *Stream) redefine(ctx context.Context, old, next *Config) error {
	if (old.Objects == nil) != (next.Objects == nil) {
		return fmt.Errorf("%w destination: it cannot change between tables and objects", record.ErrInvalid)
	}
	if s.closing {
		return ErrClosed
	}
	c := &redefinition{old: old, next: next}
	before, after := old.laneIDs(), next.laneIDs()
	var add []laneID
	for _, id := range after {
		if !slices.Contains(before, id) {
			add = append(add, id)
		}
	}
	for _, id := range before {
		if l := s.laneOf(id); l != nil && !slices.Contains(after, id) {
			c.end = append(c.end, l)
		}
	}
	cuts := len(add)+len(c.end) > 0 || old.staged() != next.staged()
	switch {
	case cuts && old.Progress.changing():
		return s.waits(old.Progress)
	case cuts && s.frozen > 0:
		return fmt.Errorf("%w: a seal holds the stream; try again when it has ended", ErrChanging)
	}
	if next.staged() != old.staged() || next.staged() && string(old.Processing) != string(next.Processing) {
		p, err := s.m.processor(ctx, next)
		if err != nil {
			return err
		}
		c.def = &stageDef{next, p}
	}
	err := s.open(ctx, c, add, cuts)
	if err != nil && c.def != nil {
		err = errors.Join(err, c.def.processor.Close())
	}
	return err
}

// open opens what is new and puts the change in force.
func (s *Stream) open(ctx context.Context, c *redefinition, add []laneID, cuts bool) error {
	if !cuts {
		if err := s.store(ctx, c.next); err != nil {
			return err
		}
		s.stage.Load().instruct(c.def)
		s.cfg.Store(c.next)
		return nil
	}
	// Whoever drops a table looks first whether a stream feeds it.
	s.m.mu.RLock()
	defer s.m.mu.RUnlock()
	if err := s.m.alone(*c.next); err != nil {
		return err
	}
	for _, id := range add {
		l, err := s.openLane(ctx, id, c.next.part(id.role), nil)
		if c.next.CreateTables && id.role == "" && errors.Is(err, catalog.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		c.fresh = append(c.fresh, l)
	}
	if id := (laneID{shard: stagedShard}); c.old.staged() && c.next.direct() {
		id.table = c.next.Tables[0]
		if s.laneOf(id) == nil {
			l, err := s.openLane(ctx, id, nil, nil)
			if err != nil {
				return err
			}
			c.drain = l
		}
	}
	return s.cut(ctx, c)
}

// cut draws the boundary of a change. Puts wait meanwhile.
func (s *Stream) cut(ctx context.Context, c *redefinition) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused != nil { // it is being deleted, for example
		return s.refused
	}
	wait, cancel := context.WithTimeout(ctx, changeWait)
	defer cancel()
	if err := s.settle(wait); err != nil {
		return fmt.Errorf("%w: wait for the log: %w", ErrUnavailable, err)
	}
	at := s.m.o.Log.Next(s.key)
	if c.next.staged() && !c.old.staged() {
		if err := s.fill(ctx, at); err != nil {
			return err
		}
	}
	s.draw(c, at)
	if err := s.storeSurely(ctx, c); err != nil {
		return err
	}
	s.enact(c, at)
	return nil
}

// fill logs a gap in shard 1 up to an offset.
func (s *Stream) fill(ctx context.Context, to record.Offset) error {
	out := s.staged()
	for at := s.m.o.Log.Next(out); at < to; at = s.m.o.Log.Next(out) {
		n := min(to-at, 1<<30)
		if err := s.m.pass(out, at); err != nil {
			return err
		}
		t, err := s.m.o.Log.Enqueue(out, wal.Entry{Kind: payloadGap, Count: uint32(n), ArrivedAt: s.m.o.Now().UnixMicro()})
		if err == nil {
			err = t.Wait(context.WithoutCancel(ctx))
		}
		if err != nil {
			return fmt.Errorf("%w: log where the stage begins: %w", ErrUnavailable, err)
		}
		if err := s.m.pass(out, at+n); err != nil {
			return err
		}
	}
	return nil
}

// draw notes in the new definition what begins and ends at the boundary.
func (s *Stream) draw(c *redefinition, at record.Offset) {
	p := &ChangeProgress{Boundary: at, StageEnds: c.old.staged() && !c.next.staged()}
	if c.old.Progress != nil {
		p.Former = c.old.Progress.Former
	}
	for _, id := range c.next.laneIDs() {
		if from := c.old.Progress.begin(id); from > 0 && !slices.ContainsFunc(c.fresh, func(l beginner) bool { return l.id() == id }) {
			p.Begun = append(p.Begun, LaneSpan{Shard: id.shard, Table: id.table, Role: id.role, From: from})
		}
	}
	// A lane behind a stage that goes on may get what the stage logs from now on.
	// What is not synced may be lost: no table may say that it contains it.
	begin := func(l beginner) {
		from := at
		if l.log() != s.key && c.old.staged() {
			from = s.m.o.Log.Synced(l.log())
		}
		l.begin(from)
	}
	for _, l := range c.fresh {
		begin(l)
		id := l.id()
		p.Begun = append(p.Begun, LaneSpan{Shard: id.shard, Table: id.table, Role: id.role, From: l.bounds().from})
	}
	ending := c.end
	if c.drain != nil {
		begin(c.drain)
		ending = append(slices.Clone(ending), c.drain)
	}
	for _, l := range ending {
		id := l.id()
		x := LaneSpan{Shard: id.shard, Table: id.table, Role: id.role, From: l.bounds().from, Until: at}
		if id.role != "" {
			x.Objects = c.old.part(id.role)
		}
		p.Ending = append(p.Ending, x)
	}
	c.next.Progress = p
}

// store writes a definition down.
func (s *Stream) store(ctx context.Context, c *Config) error {
	body, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode stream %s: %w", s.name, err)
	}
	if err := s.m.o.Documents.Put(ctx, kindStream, string(s.name), body); err != nil {
		return fmt.Errorf("store stream %s: %w", s.name, err)
	}
	return nil
}

// storeSurely stores a change's definition. An error means that it is not
// stored, or that the stream takes no more records. REQUIRES: mu.
func (s *Stream) storeSurely(ctx context.Context, c *redefinition) error {
	err := s.store(ctx, c.next)
	if err == nil {
		return nil
	}
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeWait)
	defer cancel()
	docs, lerr := s.m.o.Documents.List(wait, kindStream)
	if lerr == nil {
		var stored Config
		if lerr = json.Unmarshal(docs[string(s.name)], &stored); lerr == nil {
			if stored.Version == c.next.Version && stored.Progress != nil && stored.Progress.Boundary == c.next.Progress.Boundary && stored.UpdatedAt.Equal(c.next.UpdatedAt) {
				return nil
			}
			return err
		}
	}
	s.unsure = fmt.Errorf("%w: it is not known whether a change of the destination is stored: restart the server: %w", ErrUnavailable, errors.Join(err, lerr))
	s.refused = s.unsure
	s.m.o.Logger.Error("stream takes no records", "stream", s.name, "err", s.unsure)
	return s.unsure
}

// enact puts a stored change in force. REQUIRES: mu.
func (s *Stream) enact(c *redefinition, at record.Offset) {
	former := s.direct.Load()
	s.following = slices.DeleteFunc(slices.Clone(s.following), func(l *objectLane) bool { return slices.Contains(c.end, lane(l)) })
	lanes := make([]lane, 0, len(c.fresh)+1)
	for _, l := range c.fresh {
		s.enter(l)
		lanes = append(lanes, l)
	}
	if former != nil && slices.Contains(c.end, lane(former)) {
		if l := s.direct.Load(); l != former {
			l.after = former
		} else {
			s.direct.Store(nil)
		}
	}
	ending := slices.Clone(c.end)
	if c.drain != nil {
		lanes, ending = append(lanes, c.drain), append(ending, c.drain)
	}
	for _, l := range ending {
		l.bounds().end(at)
		if o, ok := l.(*objectLane); ok {
			o.last.Store(c.old.part(o.role))
		}
	}
	for _, l := range c.fresh {
		s.follow(l, ending)
	}
	// The lanes before the definition: a stage that has it finds them.
	s.addLanes(lanes...)
	g := s.stage.Load()
	switch {
	case g == nil && c.def != nil:
		g = newStage(s, c.def)
		s.stage.Store(g)
		defer g.start()
	case g != nil && c.next.Progress.StageEnds:
		g.span.end(at)
		fallthrough
	default:
		g.instruct(c.def)
	}
	s.cfg.Store(c.next)
	for _, l := range lanes {
		l.start()
	}
	s.watch()
}

// watch completes the change that is taking effect, if one is.
func (s *Stream) watch() {
	if !s.Config().Progress.changing() {
		return
	}
	s.background.Go(func() {
		tick := time.NewTicker(s.m.o.TailInterval)
		defer tick.Stop()
		var wait time.Duration
		var notBefore time.Time
		for {
			select {
			case <-s.stop:
				return
			case <-tick.C:
			}
			if !s.reached() || s.m.o.Now().Before(notBefore) {
				continue
			}
			err := s.complete(context.Background())
			if err == nil {
				return
			}
			wait = min(max(2*wait, s.m.o.RetryWait), retryWaitMax)
			notBefore = s.m.o.Now().Add(wait)
			s.m.o.Logger.Error("a changed destination is not complete, will be tried again", "stream", s.name, "wait", wait, "err", err)
		}
	})
}

// reached reports whether everything below the boundary is delivered, and in
// the ledger's account.
func (s *Stream) reached() bool {
	p := s.Config().Progress
	applied := s.m.o.Ledger.Applied()
	if p.StageEnds && s.m.o.Log.Synced(s.staged()) < p.Boundary {
		return false
	}
	for i := range p.Ending {
		x := &p.Ending[i]
		l := s.laneOf(x.id())
		if l == nil || l.Through() < x.Until {
			return false
		}
		o, objects := l.(*objectLane)
		if (!objects || o.keeper || x.Shard == stagedShard) && applied[l.log()] < x.Until {
			return false
		}
	}
	return true
}

// complete takes the ended lanes and the ended stage away.
func (s *Stream) complete(ctx context.Context) error {
	// A restart will not follow the log for them again.
	if err := s.m.checkpoint(ctx); err != nil {
		return err
	}
	s.definition.Lock()
	defer s.definition.Unlock()
	next := s.Config()
	if s.deleted {
		return nil
	}
	p := *next.Progress
	ended := p.Ending
	p.Former = append(slices.Clone(p.Former), ended...)
	for i := range p.Former {
		p.Former[i].Objects = nil
	}
	p.Former = p.Former[max(0, len(p.Former)-formerMax):]
	stageEnds := p.StageEnds
	p.Ending, p.StageEnds = nil, false
	next.Progress = &p
	if err := s.store(ctx, &next); err != nil { // whichever is stored: the next start ends them, or finds them ended
		return err
	}
	var gone []lane
	for i := range ended {
		gone = append(gone, s.laneOf(ended[i].id()))
	}
	s.m.mu.Lock()
	for _, l := range gone {
		if t, ok := l.(*tableLane); ok {
			s.m.gone[departedKey{t.key, t.table}] = departed{t.Through(), s.m.o.Now()}
		}
	}
	s.lanesMu.Lock()
	s.lanes = slices.DeleteFunc(slices.Clone(s.lanes), func(l lane) bool { return slices.Contains(gone, l) })
	s.lanesMu.Unlock()
	s.m.mu.Unlock()
	s.cfg.Store(&next)
	if g := s.stage.Load(); stageEnds && g != nil {
		s.stage.Store(nil)
		g.shut()
	}
	for _, l := range gone {
		l.close()
	}
	s.m.o.Logger.Info("changed destination is complete", "stream", s.name, "version", next.Version, "boundary", p.Boundary)
	return nil
}
