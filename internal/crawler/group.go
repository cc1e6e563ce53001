package crawler

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// group is files that make one table.
type group struct {
	root    *folder // where the table lies
	file    string  // of a table of one file in root: its name
	finding *finding
	keys    []string // the partition keys below root, as the folders name them; "": bare folders
	leaves  []leaf
	pinned  bool // a table that the crawler made before lies here
	// origins says which file made a column what it is.
	origins map[string]string
	notes   []string
	odd     []string // files below root that do not fit, to be excluded by readers
}

// leaf is a folder of files of one layout. cluster is nil if they were not read.
type leaf struct {
	folder  *folder
	cluster *cluster
	total   *stats // of a folder with what is below it; nil: of its own files
}

// grouper makes tables of a target's folders, from the leaves up.
//
// A folder's own files make a table. Folders side by side whose tables fit are
// partitions of one table of the folder above: if their names are KEY=VALUE with one
// KEY, or if they are two at least, similar, and more than 70 in 100. A table that the
// crawler made before keeps its root: what fits it joins it, and it does not dissolve
// into a table above, or fall apart, because other files came.
type grouper struct {
	intern  *interner
	prefix  string
	base    int // level of the target's root: 1 is the bucket
	level   int // TableLevelConfiguration; 0: none
	combine bool
	// existing returns the table of this crawler that lies exactly at a folder, by its
	// path within the source.
	existing func(path string) *existing
	// partition returns the table of this crawler of which a folder is a partition.
	partition func(path string) *existing
	notes     []string // about folders that make no table
}

func (g *grouper) note(format string, args ...any) {
	if len(g.notes) < reasonsMax {
		g.notes = append(g.notes, fmt.Sprintf(format, args...))
	}
}

func (g *grouper) rel(f *folder) string {
	return strings.TrimPrefix(f.path(g.prefix), g.prefix)
}

// where names a folder in a note.
func (g *grouper) where(f *folder) string {
	if f.parent == nil {
		return "the target's own folder"
	}
	return g.rel(f)
}

// owner is the existing table at the folder or nearest above it.
func (g *grouper) owner(f *folder) *existing {
	for ; f != nil; f = f.parent {
		if e := g.existing(f.path(g.prefix)); e != nil {
			return e
		}
	}
	return nil
}

// group returns the tables of a folder and what is below it.
func (g *grouper) group(f *folder) []*group {
	if f.foreign != "" {
		g.note("%s: %s, whose files alone are not its rows: it is not crawled", g.where(f), f.foreign)
		return nil
	}
	e := g.existing(f.path(g.prefix))
	own, out := g.own(f)
	var candidates []*group
	for _, c := range f.children {
		for _, sub := range g.group(c) {
			if sub.root.parent == f && sub.file == "" {
				candidates = append(candidates, sub)
			} else {
				out = append(out, sub)
			}
		}
	}
	if own != nil && e != nil && !g.remains(own, f, e, len(candidates) > 0) {
		own = nil
	}
	depth := g.base + f.depth
	if len(candidates) == 0 || g.level > depth {
		if own != nil {
			own.pinned = e != nil
			out = append(out, own)
		}
		return append(out, candidates...)
	}
	forced := g.level > 0 // at the level or below it
	byKey := slices.ContainsFunc(candidates, func(c *group) bool { return c.root.level.key != "" })
	if own != nil && !byKey && (e == nil || len(e.keys) == 0) {
		return append(out, g.flat(own, candidates, e, forced)...)
	}
	table, rest := g.partitioned(f, candidates, e, forced)
	switch {
	case table == nil && own != nil:
		own.pinned = e != nil
		rest = append(rest, own)
	case own != nil && !own.known():
		table.notes = append(table.notes, fmt.Sprintf("%d files, %s for one, lie beside the partitions of %s and are in none of them: move them into one", own.stats().objects, own.leaves[0].cluster.first, g.where(f)))
	}
	if table != nil {
		rest = append(rest, table)
	}
	return append(out, rest...)
}

// remains reports whether a folder's own files are the table that lies there: they fit
// it, or are more than 70 in 100 of the files. Beside partitions they never are.
func (g *grouper) remains(own *group, f *folder, e *existing, partitions bool) bool {
	fits := e.finding.fits(own.finding, byForm) == ""
	files := f.objects
	if len(e.keys) > 0 {
		files = f.total
	}
	n := own.stats().objects
	switch {
	case own.known(), fits && len(e.keys) == 0:
		return true
	case len(e.keys) > 0 && (partitions || n*100 <= similarMin*files):
		g.note("%s: %d files, %s for one, lie beside the partitions of %s and are in none of them: move them into one", g.where(f), n, own.leaves[0].cluster.first, e.Name.Table)
		return false
	case n*100 <= similarMin*files:
		g.note("%s: %d of %d files are %s: they are not the table %s, and are in no table", g.where(f), n, files, own.finding.describe(), e.Name.Table)
		return false
	}
	return true
}

// replaced reports whether tables of folders side by side are the table from now on that
// lies above them, though they do not fit it: because more than 70 in 100 of the
// partitions that still have files were written anew, or because none of its files is
// left.
func (g *grouper) replaced(s *siblings, f *folder, e *existing) bool {
	former := map[*folder]bool{}
	var files int64
	for _, m := range s.members {
		files += m.stats().objects
		for _, l := range m.leaves {
			for c := l.folder; c != f; c = c.parent {
				if g.partition(c.path(g.prefix)) == e {
					former[c] = true
				}
			}
		}
	}
	living := g.living(f, e)
	if living == 0 {
		return files*100 > similarMin*f.total
	}
	return len(former)*100 > similarMin*living
}

// living counts the table's partitions below a folder that still have files.
func (g *grouper) living(f *folder, e *existing) (n int) {
	for _, c := range f.children {
		if c.total > 0 && g.partition(c.path(g.prefix)) == e {
			n++
		} else {
			n += g.living(c, e)
		}
	}
	return n
}

func (gr *group) known() bool { return len(gr.leaves) > 0 && gr.leaves[0].cluster == nil }

// own makes the table of a folder's own files, or a table of each file where they
// have nothing in common.
func (g *grouper) own(f *folder) (table *group, files []*group) {
	if f.known != nil {
		return &group{root: f, finding: f.known, leaves: []leaf{{folder: f}}}, nil
	}
	if f.overflow > 0 {
		g.note("%s: %d files have other layouts than the first %d that were met: part them into folders", g.where(f), f.overflow, clustersMax)
	}
	if len(f.clusters) == 0 {
		return nil, nil
	}
	lead, total := g.lead(f)
	if lead == nil {
		for _, c := range f.clusters {
			if c.files > clusterNames {
				g.note("%s: %d files like %s lie among files of other layouts: part them into folders, or exclude some", g.where(f), c.files, c.first)
				continue
			}
			for _, name := range c.names {
				one := *c
				one.files, one.bytes, one.rows, one.first, one.names = 1, c.bytes/c.files, c.rows/c.files, name, []string{name}
				gr := &group{root: f, file: name, finding: c.finding, leaves: []leaf{{folder: f, cluster: &one}}}
				gr.addOrigins(g, nil, &one, f)
				files = append(files, gr)
			}
		}
		return nil, files
	}
	all := *lead
	all.origins = maps.Clone(lead.origins)
	table = &group{root: f}
	for _, c := range f.clusters {
		if c == lead {
			continue
		}
		as := byForm
		if c.Format == formatCSV {
			as = all.beside()
		}
		why := all.fits(c.finding, as)
		if why == "" { // read by names: the columns that some files lack are null
			joined := g.intern.join(all.finding, c.finding)
			all.noteOrigins(joined, c.first)
			all.finding = joined
			all.files, all.bytes, all.rows = all.files+c.files, all.bytes+c.bytes, all.rows+c.rows
			continue
		}
		table.notes = append(table.notes, fmt.Sprintf("%d of %d files in %s, %s for one, do not fit: %s", c.files, total, g.where(f), c.first, why))
		for _, n := range c.names {
			table.odd = append(table.odd, g.rel(f)+n)
		}
	}
	table.finding = all.finding
	table.leaves = []leaf{{folder: f, cluster: &all}}
	table.addOrigins(g, nil, &all, f)
	return table, nil
}

// lead is the layout of which a folder is: the only one, that of the table that is
// there, or that of more than 70 in 100 files.
func (g *grouper) lead(f *folder) (lead *cluster, files int64) {
	var most *cluster
	for _, c := range f.clusters {
		files += c.files
		if most == nil || c.files > most.files {
			most = c
		}
	}
	if len(f.clusters) == 1 {
		return most, files
	}
	if e := g.owner(f); e != nil {
		for _, c := range f.clusters {
			if e.finding.fits(c.finding, byNames) == "" {
				return c, files
			}
		}
	}
	if most.files*100 > similarMin*files {
		return most, files
	}
	return nil, files
}

// flat adds to the table of a folder's own files those below that fit: a table
// without partitions, whose files lie at several depths.
func (g *grouper) flat(own *group, candidates []*group, e *existing, forced bool) []*group {
	own.pinned = e != nil
	out := []*group{own}
	for _, c := range candidates {
		if c.pinned && !forced || own.finding.fits(c.finding, g.as(own.finding, forced, e, false)) != "" {
			out = append(out, c)
			continue
		}
		own.absorb(g, c)
	}
	return out
}

// absorb adds another group's files. The findings fit.
func (gr *group) absorb(g *grouper, c *group) {
	for _, l := range c.leaves {
		if l.cluster == nil {
			gr.finding = g.intern.join(gr.finding, c.finding)
			continue
		}
		joined := g.intern.join(gr.finding, l.cluster.finding)
		gr.addOrigins(g, joined, l.cluster, l.folder)
		gr.finding = joined
	}
	gr.leaves = append(gr.leaves, c.leaves...)
	gr.notes = append(gr.notes, c.notes[:min(len(c.notes), max(0, reasonsMax-len(gr.notes)))]...)
	gr.odd = append(gr.odd, c.odd[:min(len(c.odd), max(0, reasonsMax-len(gr.odd)))]...)
}

// addOrigins notes which of a cluster's files changed which column of the group; all
// of them, if joined is nil.
func (gr *group) addOrigins(g *grouper, joined *finding, c *cluster, f *folder) {
	if joined == gr.finding && joined != nil {
		return
	}
	now := c.finding
	if joined != nil {
		now = joined
	}
	for i, field := range now.Columns {
		if joined != nil && i < len(gr.finding.Columns) {
			old := gr.finding.Columns[i]
			if old.State == field.State || old.State.typeText() == field.State.typeText() {
				continue
			}
		}
		if gr.origins == nil {
			gr.origins = map[string]string{}
		}
		if len(gr.origins) < columnsMax {
			gr.origins[field.Name] = g.rel(f) + c.origin(field.Name)
		}
	}
}

// siblings are tables of folders side by side that can be partitions of one.
type siblings struct {
	key     string
	members []*group
}

// leadOf chooses the tables that become one of the folder above: those that continue the
// table that lies there, or the most, if they are enough. nil: none.
func (g *grouper) leadOf(sets []*siblings, candidates int, f *folder, e *existing, forced bool) (lead *siblings) {
	if e != nil {
		named := false // lead has the table's keys by their names
		for _, s := range sets {
			if e.finding.fits(s.members[0].finding, g.as(e.finding, forced, e, s.key != "")) != "" || len(e.keys) != 1+len(s.members[0].keys) {
				if g.replaced(s, f, e) {
					return s
				}
				continue
			}
			if same := s.named(e); lead == nil || same && !named {
				lead, named = s, same
			}
		}
		return lead
	}
	for _, s := range sets {
		if lead == nil || len(s.members) > len(lead.members) {
			lead = s
		}
	}
	if lead == nil || forced || lead.key != "" {
		return lead
	}
	if len(lead.members) < 2 && !lead.counted() || len(lead.members)*100 <= similarMin*candidates {
		return nil
	}
	return lead
}

// named reports whether the folders' keys are the table's. Somebody may have given it
// others since.
func (s *siblings) named(e *existing) bool {
	for i, k := range append([]string{s.key}, s.members[0].keys...) {
		if e.keys[i] != k && (k != "" || e.keys[i] != "partition_"+strconv.Itoa(i)) {
			return false
		}
	}
	return true
}

// counted reports whether the folders' names are numbers or dates, as those of years,
// months, days and hours are: a single one of them is a partition already.
func (s *siblings) counted() bool {
	for _, m := range s.members {
		name := m.root.name
		if strings.Trim(name, "0123456789-") != "" || strings.Trim(name, "-") == "" {
			return false
		}
	}
	return true
}

// as is how much files must have in common with those of f. Folders KEY=VALUE say that
// they belong together, which is enough where columns are found by their names.
func (g *grouper) as(f *finding, forced bool, e *existing, named bool) alike {
	switch {
	case forced || g.combine || named && f.CSV == nil:
		return byForm
	case e != nil || named:
		return byNames
	}
	return byTypes
}

// partitioned makes one table of the candidates that fit, and returns the others.
func (g *grouper) partitioned(f *folder, candidates []*group, e *existing, forced bool) (table *group, rest []*group) {
	var sets []*siblings
	for _, c := range candidates {
		if c.pinned && !forced {
			rest = append(rest, c)
			continue
		}
		key := plainName(c.root.level.key)
		i := slices.IndexFunc(sets, func(s *siblings) bool {
			first := s.members[0]
			return s.key == key && slices.Equal(first.keys, c.keys) && first.finding.fits(c.finding, g.as(first.finding, forced, e, key != "")) == ""
		})
		if i < 0 {
			sets = append(sets, &siblings{key: key})
			i = len(sets) - 1
		}
		sets[i].members = append(sets[i].members, c)
	}
	lead := g.leadOf(sets, len(candidates), f, e, forced)
	for _, s := range sets {
		switch {
		case s == lead:
		case e != nil && s.key != "":
			// Within a partitioned table they would only be in its way.
			m := s.members[0]
			g.note("%s: %d folders like %s hold %s: they are no partitions of %s, and are in no table", g.where(f), len(s.members), m.root.name, m.finding.describe(), e.Name.Table)
		default:
			rest = append(rest, s.members...)
		}
	}
	if lead == nil {
		g.noteAlike(f, rest)
		return nil, rest
	}
	for _, m := range lead.members {
		m.collapse(g)
	}
	first := lead.members[0]
	table = &group{root: f, keys: append([]string{lead.key}, first.keys...), finding: first.finding, pinned: e != nil,
		origins: maps.Clone(first.origins), leaves: slices.Clone(first.leaves), notes: slices.Clone(first.notes), odd: slices.Clone(first.odd)}
	for _, m := range lead.members[1:] {
		// Members were compared with the first one; the joined columns may be others.
		if why := table.finding.fits(m.finding, byForm); why != "" {
			rest = append(rest, m)
			continue
		}
		table.absorb(g, m)
	}
	return table, rest
}

// collapse makes one leaf of a group without keys, whose files may lie at several
// depths: it becomes a partition.
func (gr *group) collapse(g *grouper) {
	if len(gr.keys) > 0 || len(gr.leaves) == 1 && gr.leaves[0].folder == gr.root {
		return
	}
	one := leaf{folder: gr.root}
	if !gr.known() {
		sum := gr.stats()
		one.total = &sum
		one.cluster = &cluster{finding: gr.finding, files: sum.objects, bytes: sum.bytes, rows: sum.rows, origins: map[string]string{}}
		for column, file := range gr.origins {
			one.cluster.origins[column] = strings.TrimPrefix(file, g.rel(gr.root))
		}
	}
	gr.leaves = []leaf{one}
}

// noteAlike says that tables lie side by side that would have been one, had they come
// together.
func (g *grouper) noteAlike(f *folder, tables []*group) {
	if len(tables) == 0 {
		return
	}
	n := 0
	for _, t := range tables[1:] {
		if t.pinned && tables[0].pinned && tables[0].finding.fits(t.finding, byTypes) == "" {
			n++
		}
	}
	if n > 0 {
		g.note("%s: %d tables there are alike and keep their places: TableLevelConfiguration %d makes one of them", g.where(f), n+1, g.base+f.depth)
	}
}

// values are a leaf's partition values below the group's root.
func (gr *group) values(l leaf) []string {
	out := make([]string, len(gr.keys))
	f := l.folder
	for i := len(out) - 1; i >= 0; i-- {
		out[i] = f.level.value
		f = f.parent
	}
	return out
}
