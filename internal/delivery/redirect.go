package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/prefix"
)

// Retractor is an ObjectDestination that can take back what a plan wrote.
type Retractor interface {
	// Retract removes every object that Write of the same plan may have written.
	// When it returns nil there is none of them.
	Retract(ctx context.Context, plan ObjectPlan, each func(func(ObjectRecord) error) error) error
}

// retractionsMax is how often the old place of a plan is asked before the plan
// is given up without it.
const retractionsMax = 3

// redirect returns the plan to execute: p, or, where p has failed and the
// definition has another target by now, one for the same stretch and that
// target. What p may have written is removed first; if the old place does not
// answer it stays there, which the log tells.
func (l *objectLane) redirect(ctx context.Context, p *ObjectPlan) (*ObjectPlan, error) {
	version := l.s.Config().Version
	if p.failures == 0 || p.Version == version {
		return p, nil
	}
	target := l.cfg().Target
	if !p.Prepared { // nothing of it is stored
		q := *p
		q.Version, q.Target = version, target
		return &q, nil
	}
	target, err := l.dest.Prepare(ctx, target)
	if err != nil { // neither works: the old one may be mended first
		l.m.o.Logger.Warn("the changed destination cannot be used", "stream", l.s.name, "lane", l.role, "err", err)
		return p, nil
	}
	if bytes.Equal(target, p.Target) {
		return p, nil
	}
	retractor, ok := l.dest.(Retractor)
	if !ok {
		return p, nil
	}
	if err := retractor.Retract(ctx, *p, func(fn func(ObjectRecord) error) error { return l.eachRecord(ctx, p, fn) }); err != nil {
		if p.retractions++; p.retractions < retractionsMax {
			return p, fmt.Errorf("take back what a former destination may have: %w", err)
		}
		l.m.o.Logger.Warn("records may stand in a former destination as well: it could not be asked", "stream", l.s.name, "lane", l.role,
			"from", p.From, "to", p.To, "target", string(p.Target), "err", err)
	}
	seed, err := uuid.NewRandom()
	if err != nil {
		panic(fmt.Sprintf("delivery: no randomness: %v", err)) // crypto/rand never fails
	}
	l.m.o.Logger.Info("a delivery that failed goes to the changed destination", "stream", l.s.name, "lane", l.role, "from", p.From, "to", p.To, "version", version)
	return &ObjectPlan{From: p.From, To: p.To, At: p.At, OldestAt: p.OldestAt, Seed: seed, Version: version, Target: target, Prepared: true}, nil
}

// formerPrefixesMax bounds the prefixes for records of former definitions: these
// wait for one delivery at most, so that few changes lie between.
const formerPrefixesMax = 4

// Succeed notes in the target of c, which takes the place of old's, the prefix
// by which records are placed that were processed for old's and lack the
// partition keys of c's.
func (c *ObjectConfig) Succeed(old *ObjectConfig) error {
	var was, is Target
	if err := json.Unmarshal(old.Target, &was); err != nil {
		return fmt.Errorf("read the target: %w", err)
	}
	if err := json.Unmarshal(c.Target, &is); err != nil {
		return fmt.Errorf("read the target: %w", err)
	}
	is.FormerPrefixes = was.FormerPrefixes
	if was.Prefix != is.Prefix {
		x, err := prefix.Parse(was.Prefix, prefix.Data, was.Zone)
		if err != nil {
			return fmt.Errorf("read the target: %w", err)
		}
		if len(x.Keys()) > 0 {
			is.FormerPrefixes = append([]string{was.Prefix}, was.FormerPrefixes...)
			is.FormerPrefixes = is.FormerPrefixes[:min(len(is.FormerPrefixes), formerPrefixesMax)]
		}
	}
	var err error
	c.Target, err = json.Marshal(is)
	return err
}
