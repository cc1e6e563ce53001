package crawler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/zeebo/xxh3"

	"github.com/tapehouse/tapehouse/internal/catalog"
)

// crawl is one crawl under way.
type crawl struct {
	m      *Manager
	def    Definition
	config config

	report  *Report
	changes []catalog.ExternalChange
	pending bool // files that may change soon were seen
}

// run scans the targets and plans the changes. It changes nothing but the memory.
func (c *crawl) run(ctx context.Context) error {
	c.report.StartedAt = c.m.o.Now().UTC()
	defer func() { c.report.EndedAt = c.m.o.Now().UTC() }()
	classifiers, stamp, err := c.m.classifiersOf(ctx, c.def.Classifiers)
	if err != nil {
		return err
	}
	p, err := newPlanner(ctx, c.def, c.config, c.m.o.Catalog, c.report, c.m.o.Now())
	if err != nil {
		return err
	}
	var known func(location string) (f *finding, below bool)
	if c.def.Recrawl == NewFolders {
		known = p.known
	}
	rec := &recogniser{classifiers: classifiers, now: c.m.o.Now, settle: c.m.o.Settle, intern: newInterner()}
	var targets []*target
	for _, t := range c.def.Targets {
		target, err := c.scan(ctx, t, rec, stamp, known)
		if err != nil {
			return err
		}
		targets = append(targets, target)
		if err := p.add(ctx, target); err != nil {
			return err
		}
		if err := c.m.step("target scanned"); err != nil {
			return err
		}
	}
	if err := p.gone(ctx, targets); err != nil {
		return err
	}
	for _, t := range targets {
		c.report.Skipped = mergeSkips(c.report.Skipped, t.skips.order)
	}
	c.changes = p.changes
	return c.m.step("planned")
}

func mergeSkips(all []Skip, more []*Skip) []Skip {
	for _, s := range more {
		if i := slices.IndexFunc(all, func(have Skip) bool { return have.Reason == s.Reason }); i >= 0 {
			all[i].Count += s.Count
		} else if len(all) < reasonsMax {
			all = append(all, *s)
		}
	}
	return all
}

// scan scans one target.
func (c *crawl) scan(ctx context.Context, t Target, rec *recogniser, stamp uint64, known func(location string) (*finding, bool)) (*target, error) {
	out, err := c.m.resolve(ctx, t)
	if err != nil {
		return nil, err
	}
	source := out.source
	if out.exclude, err = compileExclusions(t.Exclusions); err != nil {
		return nil, err
	}
	out.uri = source.URI(out.prefix)
	mem, err := openMemory(c.m.o.FS, c.m.o.Dir, memoryName(c.def.Name, t.Path), stamp, rec.intern, c.m.o.Logger, c.report.DryRun)
	if err != nil {
		return nil, err
	}
	s := &scanner{source: source, prefix: out.prefix, exclude: out.exclude, sampleSize: t.SampleSize, recognise: rec,
		memory: mem, workers: c.m.o.Workers, only: out.file, step: c.m.step, now: c.m.o.Now(), settle: c.m.o.Settle}
	if known != nil {
		s.knownFolder = func(f *folder) (*finding, bool) {
			if f.parent != nil && f.parent.knownBelow {
				return f.parent.known, true
			}
			return known(source.URI(f.path(out.prefix)))
		}
	}
	out.root, err = s.run(ctx)
	mem.close(err == nil)
	if err != nil {
		return nil, err
	}
	out.skips = &s.skips
	c.report.Totals.add(s)
	c.pending = c.pending || s.young
	return out, nil
}

// resolve finds the source and the prefix of a target, or the file that it is.
func (m *Manager) resolve(ctx context.Context, t Target) (*target, error) {
	source, name, err := m.o.Open(ctx, t.Path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", t.Path, err)
	}
	out := &target{Target: t, source: source}
	name = strings.Trim(name, "/")
	if name == "" {
		return out, nil
	}
	out.prefix = name + "/"
	if strings.HasSuffix(t.Path, "/") {
		return out, nil
	}
	isFile, err := isObject(ctx, source, name)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", t.Path, err)
	}
	if isFile {
		out.file = path.Base(name)
		out.prefix = strings.TrimSuffix(name, out.file)
	}
	return out, nil
}

// isObject reports whether an object has exactly the name.
func isObject(ctx context.Context, source Source, name string) (found bool, err error) {
	stop := errors.New("seen")
	err = source.List(ctx, name, func(o Object) error {
		found = o.Name == name
		return stop
	})
	if errors.Is(err, stop) {
		err = nil
	}
	return found, err
}

// known returns the finding of this crawler's table that has a folder: as a partition,
// with all that is below it, or as its place, if it has no partitions.
func (p *planner) known(location string) (f *finding, below bool) {
	if e := p.inside[xxh3.HashString(place(location))]; e != nil {
		return e.finding, true
	}
	if e := p.locations[place(location)]; e != nil && len(e.keys) == 0 {
		return e.finding, false
	}
	return nil, false
}

// classifiersOf reads the classifiers and a stamp that changes with them.
func (m *Manager) classifiersOf(ctx context.Context, names []string) (out []classifier, stamp uint64, err error) {
	h := xxh3.New()
	_, _ = fmt.Fprintf(h, "inference %d;", inferenceVersion) // a hash's Write never fails
	for _, n := range names {
		c, err := m.Classifier(ctx, n)
		if err != nil {
			return nil, 0, err
		}
		compiled := classifier{Classifier: &c}
		if c.JSON != nil {
			if compiled.path, err = parseJSONPath(c.JSON.JSONPath); err != nil {
				return nil, 0, err
			}
		}
		out = append(out, compiled)
		text, err := json.Marshal([]any{c.CSV, c.JSON})
		if err != nil {
			return nil, 0, err
		}
		_, _ = h.Write(text)
	}
	return out, h.Sum64(), nil
}
