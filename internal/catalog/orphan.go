package catalog

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/lake"
)

// Orphan is a file in a table's directory that no snapshot refers to and no
// garbage list names: a crash came between its writing and its commit.
type Orphan struct {
	Name       string // in the lake
	Path       string // as DataFile.Path
	SizeBytes  int64
	ModifiedAt time.Time
}

const (
	orphansMax   = 100_000
	namesListMax = 1_000_000
)

// tableDirRE is the form of the directories that CreateTable makes.
var tableDirRE = regexp.MustCompile(`^([^/]+)/[^/]+-[0-9a-f]{12}/`)

// Orphans lists files that were never committed and are older than minAge, in
// the named table's directory or, with the zero Name, in all that are or look
// like a table's. minAge must exceed the longest time from the writing of a
// file to its commit. At most 100,000 are listed; the rest is found next time.
func (c *Catalog) Orphans(ctx context.Context, name Name, minAge time.Duration) ([]Orphan, error) {
	if err := c.usable(false); err != nil {
		return nil, err
	}
	if name != (Name{}) {
		t, err := c.Load(ctx, name)
		if err != nil {
			return nil, err
		}
		if t.prefix == "" {
			return nil, nil
		}
		return c.orphansBelow(ctx, t.prefix+"/", []Name{name}, minAge)
	}
	var out []Orphan
	namespaces, err := c.Namespaces(ctx)
	if err != nil {
		return nil, err
	}
	for _, ns := range namespaces {
		names, err := c.List(ctx, "")
		if err != nil {
			return nil, err
		}
		found, err := c.orphansBelow(ctx, ns+"/", names, minAge)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// DeleteOrphans deletes what Orphans lists, but for pinned files, and returns
// what it deleted. A named table takes no commit meanwhile.
func (c *Catalog) DeleteOrphans(ctx context.Context, name Name, minAge time.Duration, pinned func(path string) bool) ([]Orphan, error) {
	if err := c.usable(true); err != nil {
		return nil, err
	}
	if name != (Name{}) {
		unlock, err := c.lock(ctx, []Name{name})
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	orphans, err := c.Orphans(ctx, name, minAge)
	if err != nil {
		return nil, err
	}
	var deleted []Orphan
	for _, o := range orphans {
		if pinned != nil && pinned(o.Path) {
			continue
		}
		if err := c.store.Delete(ctx, o.Name); err != nil {
			return deleted, err
		}
		c.metrics.filesDeleted.Inc()
		deleted = append(deleted, o)
	}
	return deleted, nil
}

func (c *Catalog) orphansBelow(ctx context.Context, prefix string, tables []Name, minAge time.Duration) ([]Orphan, error) {
	// First the files, then what refers to them: a file committed in between is
	// listed and referred to, and so stays.
	var found []Orphan
	before := c.now().Add(-minAge)
	if err := c.store.List(ctx, prefix, func(i lake.Info) error {
		if len(found) < orphansMax && !i.ModifiedAt.After(before) && tableDirRE.MatchString(i.Name) {
			found = append(found, Orphan{i.Name, c.pathOf(c.store.URI(i.Name)), i.SizeBytes, i.ModifiedAt})
		}
		return nil
	}); err != nil || len(found) == 0 {
		return nil, err
	}
	used := make(map[string]bool)
	for _, n := range tables {
		if err := c.addReferenced(ctx, n, used); err != nil {
			return nil, err
		}
	}
	garbage, err := c.allGarbage(ctx)
	if err != nil {
		return nil, err
	}
	out := found[:0]
	for _, o := range found {
		if used[o.Name] || garbage.holds(o.Name) {
			continue
		}
		out = append(out, o)
	}
	return out, nil
}

// addReferenced adds the lake names of every file that the table refers to.
func (c *Catalog) addReferenced(ctx context.Context, name Name, used map[string]bool) error {
	t, err := c.Load(ctx, name)
	if isNotFound(err) {
		return nil // dropped meanwhile: its files are garbage
	}
	if err != nil {
		return err
	}
	add := func(uri string) {
		if n, ok := c.store.Name(uri); ok {
			used[n] = true
		}
	}
	add(t.pointer)
	for f := range t.meta.PreviousFiles() {
		add(f.MetadataFile)
	}
	eachStatistics(t.meta, add)
	seen := make(map[string]bool)
	for _, s := range t.meta.Snapshots() {
		add(s.ManifestList)
		list, err := c.manifestList(ctx, &s)
		if err != nil {
			return fmt.Errorf("orphans of table %s: %w", name, err)
		}
		for _, m := range list {
			if seen[m.FilePath()] {
				continue
			}
			seen[m.FilePath()] = true
			add(m.FilePath())
			if err := c.eachLive(ctx, m, add); err != nil {
				return fmt.Errorf("orphans of table %s: %w", name, err)
			}
		}
	}
	return nil
}

// garbageSet holds lake names, and prefixes that end in '/'.
type garbageSet struct {
	names    map[string]bool
	prefixes []string
}

func (g garbageSet) holds(name string) bool {
	if g.names[name] {
		return true
	}
	for _, p := range g.prefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

func (c *Catalog) allGarbage(ctx context.Context) (garbageSet, error) {
	g := garbageSet{names: make(map[string]bool)}
	due := c.now().Add(time.Hour).UnixMicro()
	for after := ""; ; {
		paths, err := c.garbage(ctx, "", due, after)
		if err != nil || len(paths) == 0 {
			return g, err
		}
		after = paths[len(paths)-1]
		for _, uri := range paths {
			n, ok := c.store.Name(uri)
			switch {
			case !ok:
			case strings.HasSuffix(n, "/"):
				g.prefixes = append(g.prefixes, n)
			default:
				g.names[n] = true
			}
		}
	}
}

func (c *Catalog) namesBelow(ctx context.Context, prefix string) (names []string, err error) {
	err = c.store.List(ctx, prefix, func(i lake.Info) error {
		if len(names) == namesListMax {
			return fmt.Errorf("%w: more than %d files below %s", ErrUnsupported, namesListMax, prefix)
		}
		names = append(names, i.Name)
		return nil
	})
	return names, err
}
