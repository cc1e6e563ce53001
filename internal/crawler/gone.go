package crawler

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/zeebo/xxh3"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/hive"
)

func (t *target) rel(f *folder) string { return strings.TrimPrefix(f.path(t.prefix), t.prefix) }

// find returns the folder at a location and whether the target covers it.
func (t *target) find(location string) (f *folder, covered bool) {
	rest, ok := strings.CutPrefix(place(location)+"/", t.uri)
	if !ok {
		return nil, false
	}
	if t.file != "" && place(location) != place(t.source.URI(t.prefix+t.file)) {
		return nil, false
	}
	f = t.root
	for seg := range strings.SplitSeq(strings.Trim(rest, "/"), "/") {
		if seg == "" {
			continue
		}
		if f = t.child(f, seg); f == nil {
			return nil, true
		}
	}
	return f, true
}

// child is the folder below f that a location's segment names.
func (t *target) child(f *folder, segment string) *folder {
	// Children are in the order of the listing, in which a folder ends in '/'.
	i := sort.Search(len(f.children), func(i int) bool { return f.children[i].name+"/" >= segment+"/" })
	if i < len(f.children) && f.children[i].name == segment {
		return f.children[i]
	}
	if !strings.Contains(segment, "%") {
		return nil
	}
	base := t.source.URI(f.path(t.prefix)) // the source's locations have escapes
	for _, c := range f.children {
		if t.source.URI(c.path(t.prefix)) == base+segment+"/" {
			return c
		}
	}
	return nil
}

// there reports whether any object lies at a location that the crawl covers.
func (p *planner) there(ctx context.Context, t *target, location string, folderOf *folder) (bool, error) {
	if folderOf != nil {
		return folderOf.total > 0, nil
	}
	if strings.HasSuffix(location, "/") {
		return false, nil
	}
	name := t.prefix + strings.TrimPrefix(location, t.uri)
	if t.exclude.match(strings.TrimPrefix(name, t.prefix)) {
		return false, nil
	}
	r, err := t.source.Open(ctx, name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return true, nil //nolint:nilerr // a file that cannot be read is there, and no reason to drop its table
	}
	return true, r.Close()
}

// goneOrKept plans what becomes of a partition of which no folder is left.
func (p *planner) goneOrKept(ctx context.Context, have hive.Partition, r *TableReport, change *catalog.ExternalChange) error {
	if have.Storage == nil {
		return nil
	}
	f, covered := p.target.find(have.Storage.Location)
	if !covered {
		return nil // somebody put it elsewhere
	}
	if ok, err := p.there(ctx, p.target, have.Storage.Location, f); err != nil || ok {
		return err // its files are there, and no reader understands them now
	}
	switch p.crawler.Policy.DeleteBehavior {
	case Log:
		r.partition("gone, kept by LOG:", have.Values)
		return nil
	case Delete:
		change.Remove = append(change.Remove, have.Values)
		r.partition("removed", have.Values)
	default:
		if have.Parameters[paramDeprecated] != "" {
			return nil
		}
		have.Parameters = maps.Clone(have.Parameters)
		if have.Parameters == nil {
			have.Parameters = map[string]string{}
		}
		have.Parameters[paramDeprecated] = strconv.FormatInt(p.now.UnixMilli(), 10)
		change.Put = append(change.Put, have)
		r.partition("deprecated", have.Values)
	}
	r.PartitionsRemoved++
	return p.count(r.Name)
}

// gone plans what becomes of the crawler's tables that no group continues.
func (p *planner) gone(ctx context.Context, targets []*target) error {
	var left []*existing
	for _, e := range p.locations {
		if !e.used {
			left = append(left, e)
		}
	}
	slices.SortFunc(left, func(a, b *existing) int { return strings.Compare(a.Name.Table, b.Name.Table) })
	for _, e := range left {
		location := e.Definition.Storage.Location
		r := TableReport{Name: e.Name.Table, Location: location, Action: ActionKept}
		change := catalog.ExternalChange{Table: e.Name, IfVersion: e.Version}
		covered, err := p.goneTable(ctx, targets, e, &r)
		if err != nil {
			return err
		}
		if !covered {
			continue // its target is no longer crawled
		}
		if r.Action == ActionDelete {
			switch p.crawler.Policy.DeleteBehavior {
			case Log:
				r.Action, r.Reason = ActionLogged, r.Reason+"; DeleteBehavior is LOG: it stays"
			case Delete:
				change.Drop = true
			default:
				r.Action = ActionDeprecate
				if e.Definition.Parameters[paramDeprecated] != "" {
					r.Action, r.Reason = ActionNone, "it is deprecated already"
					break
				}
				def := cloneTable(e.Definition)
				def.Parameters[paramDeprecated] = strconv.FormatInt(p.now.UnixMilli(), 10)
				change.Define = &def
			}
		}
		p.finish(r, change)
	}
	return nil
}

// goneTable says why no group continues a table: r.Action is ActionDelete if its
// files are gone or are another table's now.
func (p *planner) goneTable(ctx context.Context, targets []*target, e *existing, r *TableReport) (covered bool, err error) {
	location := e.Definition.Storage.Location
	for _, t := range targets {
		f, ok := t.find(location)
		if !ok {
			continue
		}
		there, err := p.there(ctx, t, location, f)
		if err != nil {
			return false, err
		}
		switch {
		case !there:
			r.Action, r.Reason = ActionDelete, "its files are gone"
		case f != nil && p.absorbed(t, e, f):
			r.Action, r.Reason = ActionDelete, "its files are in other tables now"
		default:
			r.Reason = "its files are there, and none can be read as they are now: it stays"
			if f == nil {
				r.Reason = "its file is there, among others that are a table now, or cannot be read: it stays"
			}
		}
		return true, nil
	}
	return false, nil
}

// absorbed reports whether the files of a table are in other tables of this crawl: its
// own folder's, or those of more than 70 in 100 of its partitions that have files.
func (p *planner) absorbed(t *target, e *existing, f *folder) bool {
	if len(e.keys) == 0 {
		return p.taking[f]
	}
	living, taken := 0, 0
	var visit func(f *folder)
	visit = func(f *folder) {
		for _, c := range f.children {
			if c.total == 0 || p.inside[xxh3.HashString(place(t.source.URI(c.path(t.prefix))))] != e {
				visit(c)
				continue
			}
			living++
			if n, all := p.takenBelow(c); all && n > 0 {
				taken++
			}
		}
	}
	visit(f)
	return taken*100 > similarMin*living
}

// takenBelow counts the files of folders that tables of this crawl have; all is false
// if a folder is left that can be read.
func (p *planner) takenBelow(f *folder) (files int64, all bool) {
	all = true
	switch {
	case p.taking[f]:
		files = f.objects - f.bad - f.pending
	case len(f.clusters) > 0:
		all = false
	}
	for _, c := range f.children {
		n, ok := p.takenBelow(c)
		files += n
		all = all && ok
	}
	return files, all
}
