package crawler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/hive"
)

// partitionChangesMax bounds what one crawl changes: the catalog's bound.
const partitionChangesMax = 100_000

// partitionsKnownMax bounds the partitions whose places a crawl keeps in memory, 16
// bytes each.
const partitionsKnownMax = 1_000_000

// tablesListed bounds the tables of a report.
const tablesListed = 2_000

// planner compares the tables that a crawl found with those of the catalog.
type planner struct {
	crawler Definition
	config  config
	catalog *catalog.Catalog
	now     time.Time

	target    *target
	locations map[string]*existing // this crawler's tables
	inside    map[uint64]*existing // by the hash of a partition's place: this crawler's table
	taken     map[string]bool      // names in the database
	placed    map[string]bool      // locations that a table of this crawl has
	taking    map[*folder]bool     // folders that a table of this crawl has
	report    *Report
	changes   []catalog.ExternalChange
	parts     int // partition changes
	tables    int // that groups make
}

// target is a resolved Target.
type target struct {
	Target
	source  Source
	prefix  string // of names; "" or ending in '/'
	uri     string // of prefix
	file    string // of a target that is one file: its base name
	exclude exclusions
	root    *folder
	skips   *skips
}

func newPlanner(ctx context.Context, d Definition, c config, cat *catalog.Catalog, r *Report, now time.Time) (*planner, error) {
	p := &planner{crawler: d, config: c, catalog: cat, now: now, report: r,
		locations: map[string]*existing{}, inside: map[uint64]*existing{}, taken: map[string]bool{}, placed: map[string]bool{}, taking: map[*folder]bool{}}
	externals, err := cat.Externals(ctx, d.Database)
	if err != nil {
		return nil, err
	}
	for _, e := range externals {
		p.taken[strings.ToLower(e.Name.Table)] = true
		if s := e.Definition.Storage; s != nil && e.Definition.Parameters[paramCrawler] == d.Name {
			p.locations[place(s.Location)] = openExisting(e)
		}
	}
	if err := p.readPartitions(ctx); err != nil {
		return nil, err
	}
	names, err := cat.List(ctx, d.Database)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		p.taken[strings.ToLower(n.Table)] = true
	}
	return p, nil
}

// readPartitions learns where the partitions of this crawler's tables are.
func (p *planner) readPartitions(ctx context.Context) error {
	for _, location := range slices.Sorted(maps.Keys(p.locations)) {
		e := p.locations[location]
		if len(e.keys) == 0 {
			continue
		}
		if err := p.catalog.ExternalPartitions(ctx, e.Name, catalog.PartitionsPage{}, func(have catalog.ExternalPartition) bool {
			if have.Storage != nil && len(p.inside) < partitionsKnownMax {
				p.inside[xxh3.HashString(place(have.Storage.Location))] = e
			}
			return true
		}); err != nil {
			return err
		}
	}
	return nil
}

// partitionOf names the table of which a group's folder is a partition, unless the
// group is that table or the configured level parts it.
func (p *planner) partitionOf(gr *group) string {
	e := p.inside[xxh3.HashString(place(p.target.source.URI(gr.root.path(p.target.prefix))))]
	if e == nil {
		return ""
	}
	level := p.config.Grouping.TableLevelConfiguration
	if at, covered := p.target.find(e.Definition.Storage.Location); level > 0 && covered && at != nil && 1+strings.Count(at.path(p.target.prefix), "/") < level {
		return ""
	}
	return e.Name.Table
}

// place is a location by which tables are compared.
func place(location string) string { return strings.TrimRight(location, "/") }

// at returns this crawler's table at a path of the target's source.
func (p *planner) at(path string) *existing { return p.locations[place(p.target.source.URI(path))] }

// add plans the tables of one target.
func (p *planner) add(ctx context.Context, t *target) error {
	p.target = t
	groups := p.group(t)
	slices.SortStableFunc(groups, func(a, b *group) int {
		return strings.Compare(a.root.path(t.prefix)+a.file, b.root.path(t.prefix)+b.file)
	})
	for _, gr := range groups {
		if err := p.table(ctx, gr); err != nil {
			return err
		}
	}
	return nil
}

// groupingsMax bounds how often a target is grouped.
const groupingsMax = 4

// group makes the groups of a target. Tables that are there decide what joins them, so
// the tables that this crawl makes are taken as there, and the folders are grouped again,
// until that changes nothing: the next crawl would otherwise make other tables of the
// same files.
func (p *planner) group(t *target) (groups []*group) {
	in := newInterner()
	made := map[string]*existing{}       // by place: of the grouping before
	inside := map[uint64]*existing{}     // by the hash of a partition's place
	instead := map[*existing]*existing{} // of the catalog's tables
	var last xxh3.Uint128
	for range groupingsMax {
		g := &grouper{intern: in, prefix: t.prefix, base: 1 + strings.Count(t.prefix, "/"), level: p.config.Grouping.TableLevelConfiguration, combine: p.config.combine(),
			existing: func(path string) *existing {
				if e := made[path]; e != nil {
					return e
				}
				return p.at(path)
			},
			partition: func(path string) *existing {
				if e := inside[xxh3.HashString(path)]; e != nil {
					return e
				}
				e := p.inside[xxh3.HashString(place(t.source.URI(path)))]
				if i := instead[e]; i != nil {
					return i
				}
				return e
			}}
		if f := t.root; t.file == "" {
			groups = g.group(f)
		} else if len(f.clusters) > 0 {
			gr := &group{root: f, file: t.file, finding: f.clusters[0].finding, leaves: []leaf{{folder: f, cluster: f.clusters[0]}}}
			gr.addOrigins(g, nil, f.clusters[0], f)
			groups = []*group{gr}
		}
		outline := xxh3.New()
		clear(made)
		clear(inside)
		clear(instead)
		for _, gr := range groups {
			path := gr.root.path(t.prefix)
			old := p.at(path + gr.file)
			def, _, _ := p.define(gr, old, t.source.URI(path+gr.file))
			e := openExisting(catalog.External{Definition: def})
			e.Name.Table = cmp.Or(gr.file, gr.root.name)
			if old != nil {
				e.Name = old.Name
				instead[old] = e
			}
			if gr.file == "" {
				made[path] = e
			}
			_, _ = fmt.Fprintf(outline, "%q %q %q %s\n", path, gr.file, gr.keys, gr.finding.class()) // a hash's Write never fails
			for _, l := range gr.leaves {
				leaf := l.folder.path(t.prefix)
				if len(gr.keys) > 0 {
					inside[xxh3.HashString(leaf)] = e
				}
				_, _ = outline.WriteString(leaf + "\n")
			}
		}
		if outline.Sum128() == last {
			for _, n := range g.notes {
				p.note("%s", n)
			}
			return groups
		}
		last = outline.Sum128()
	}
	p.note("%s: the tables that lie there decide too differently what joins them; the next crawl may change them", t.uri)
	return groups
}

func (p *planner) note(format string, args ...any) {
	if len(p.report.Notes) < reasonsMax {
		p.report.Notes = append(p.report.Notes, fmt.Sprintf(format, args...))
	}
}

// table plans one group.
func (p *planner) table(ctx context.Context, gr *group) error {
	t := p.target
	if owner := p.partitionOf(gr); owner != "" {
		p.note("%s: %d files of another kind lie in a partition of %s, and are in no table: %s", t.rel(gr.root), gr.stats().objects, owner, gr.finding.describe())
		return nil
	}
	path := gr.root.path(t.prefix) + gr.file
	location := t.source.URI(path)
	if p.placed[place(location)] {
		p.note("%s is in two targets, or a file beside a folder of its name: the first one counts", location)
		return nil
	}
	p.placed[place(location)] = true
	for _, l := range gr.leaves {
		p.taking[l.folder] = true
	}
	if p.tables++; p.config.TableThreshold > 0 && p.tables > p.config.TableThreshold {
		return fmt.Errorf("%w tables: the crawl makes more than the %d of TableThreshold; see TableLevelConfiguration and TableGroupingPolicy", ErrTooMany, p.config.TableThreshold)
	}
	old := p.at(path)
	if old != nil {
		old.used = true
	}
	def, columns, notes := p.define(gr, old, location)
	r := TableReport{Location: location, Columns: columns, Notes: append(append(notes, gr.notes...), gr.finding.Notes...)}
	if gr.finding.Multiline {
		r.Notes = append(r.Notes, "JSON rows that do not have a line each: engines that read by lines cannot read them")
	}
	if gr.finding.Compression == mixed {
		r.Notes = append(r.Notes, "files of several compressions")
	}
	sum := gr.stats()
	known := slices.ContainsFunc(gr.leaves, func(l leaf) bool { return l.cluster == nil })
	r.Objects, r.Bytes, r.Rows = sum.objects, sum.bytes, sum.rows
	change := catalog.ExternalChange{}
	if old == nil {
		sum.parameters(def.Parameters)
		name := p.newName(gr, location)
		change = catalog.ExternalChange{Table: catalog.Name{Namespace: p.crawler.Database, Table: name}, Define: &def}
		r.Name, r.Action = name, ActionCreate
		files := "files"
		if sum.objects == 1 {
			files = "file"
		}
		r.Reason = fmt.Sprintf("%d %s, %s", sum.objects, files, gr.finding.describe())
		r.Columns = nil
		for _, c := range def.Storage.Columns {
			r.Columns = append(r.Columns, ColumnChange{Name: c.Name, To: c.Type, File: gr.origins[c.Name]})
		}
	} else {
		r.Name = old.Name.Table
		change = catalog.ExternalChange{Table: old.Name, IfVersion: old.Version}
		if known {
			keepStats(def.Parameters, old.Definition.Parameters) // not all files were read
		} else {
			sum.parameters(def.Parameters)
		}
		p.redefine(&r, &change, &def, old)
	}
	if err := p.partitions(ctx, gr, &def, old, &r, &change); err != nil {
		return err
	}
	p.finish(r, change)
	return nil
}

func keepStats(p, old map[string]string) {
	for _, k := range []string{paramObjects, paramSize, paramRecords, paramRecordSize} {
		if v, ok := old[k]; ok {
			p[k] = v
		}
	}
}

// redefine decides whether an existing table gets a new version.
func (p *planner) redefine(r *TableReport, change *catalog.ExternalChange, def *hive.Table, old *existing) {
	was := &old.Definition
	formed := len(r.Columns) > 0 || !sameForm(was, def)
	switch {
	case !formed && maps.Equal(was.Parameters, def.Parameters):
		r.Action = ActionNone
	case p.crawler.Policy.UpdateBehavior == Log:
		r.Action, r.Reason = ActionLogged, "UpdateBehavior is LOG: the table stays as it is"
		*def = cloneTable(*was)
	case formed:
		r.Action, r.Reason = ActionUpdate, formReason(was, def, len(r.Columns))
		change.Define = def
	default:
		r.Action, r.Reason = ActionRefresh, "its files changed; its columns did not"
		if was.Parameters[paramDeprecated] != "" {
			r.Reason = "its files are back"
		}
		// The version that only had other figures is not worth keeping.
		change.Define, change.Unarchived = def, true
	}
}

func formReason(was, def *hive.Table, columns int) string {
	var why []string
	if a, b := was.Parameters[hive.ParamClassification], def.Parameters[hive.ParamClassification]; a != b {
		why = append(why, fmt.Sprintf("its files are %s, no longer %s", b, a))
	}
	if columns > 0 {
		why = append(why, fmt.Sprintf("columns that are new or wider: %d", columns))
	}
	if len(was.PartitionKeys) != len(def.PartitionKeys) {
		why = append(why, fmt.Sprintf("it has %d partition keys, no longer %d", len(def.PartitionKeys), len(was.PartitionKeys)))
	}
	if len(why) == 0 {
		why = []string{"its files are read otherwise: the dialect, the columns' places or the compression changed"}
	}
	return strings.Join(why, "; ")
}

// sameForm compares what readers depend on.
func sameForm(a, b *hive.Table) bool {
	return a.Storage != nil && sameColumns(a.PartitionKeys, b.PartitionKeys) && sameColumns(a.Storage.Columns, b.Storage.Columns) &&
		sameStorage(a.Storage, b.Storage) && a.Parameters[hive.ParamSkipHeader] == b.Parameters[hive.ParamSkipHeader]
}

func sameColumns(a, b []hive.Column) bool {
	return slices.EqualFunc(a, b, func(x, y hive.Column) bool { return x.Name == y.Name && x.Type == y.Type })
}

// sameStorage compares all but the columns.
func sameStorage(a, b *hive.Storage) bool {
	sameSerde := a.Serde == b.Serde || a.Serde != nil && b.Serde != nil && a.Serde.Library == b.Serde.Library && maps.Equal(a.Serde.Parameters, b.Serde.Parameters)
	return sameSerde && a.Location == b.Location && a.InputFormat == b.InputFormat && a.Compressed == b.Compressed && maps.Equal(a.Parameters, b.Parameters)
}

// newName names a new table.
func (p *planner) newName(gr *group, location string) string {
	base := gr.file
	if base == "" {
		base = gr.root.name
	}
	if base == "" { // the target itself
		base = place(location)
		base = base[strings.LastIndexByte(base, '/')+1:]
	}
	name := tableName(p.crawler.TablePrefix, base, location)
	if p.taken[name] {
		name = withHash(name, location)
		for n := 2; p.taken[name]; n++ {
			name = withHash(name[:min(len(name), tableNameMax-12)], location+"#"+strconv.Itoa(n))
		}
	}
	p.taken[name] = true
	return name
}

// finish adds a table's plan.
func (p *planner) finish(r TableReport, change catalog.ExternalChange) {
	if change.Define != nil || change.Drop || len(change.Put)+len(change.Remove) > 0 {
		if r.Action == ActionNone {
			r.Action, r.Reason = ActionRefresh, "its partitions changed"
		}
		p.changes = append(p.changes, change)
	}
	if len(p.report.Tables) < tablesListed {
		p.report.Tables = append(p.report.Tables, r)
	} else {
		p.report.TablesLeft++
	}
}

// partitions plans the partitions of a table.
func (p *planner) partitions(ctx context.Context, gr *group, def *hive.Table, old *existing, r *TableReport, change *catalog.ExternalChange) error {
	rekeyed := old != nil && len(old.keys) != len(def.PartitionKeys)
	if old != nil && rekeyed && change.Define == nil {
		return nil // UpdateBehavior is LOG: the folders do not match the table
	}
	wanted := make(map[string]leaf, len(gr.leaves))
	if len(def.PartitionKeys) > 0 {
		for _, l := range gr.leaves {
			wanted[strings.Join(gr.values(l), "\x00")] = l
		}
		if len(wanted) != len(gr.leaves) {
			r.Notes = append(r.Notes, "folders whose names differ in escapes only are one partition: the last one counts")
		}
	}
	put := func(what string, part hive.Partition) error {
		change.Put = append(change.Put, part)
		r.partition(what, part.Values)
		return p.count(r.Name)
	}
	if old != nil && len(old.keys) > 0 {
		var err error
		visit := func(have catalog.ExternalPartition) bool {
			if rekeyed {
				change.Remove = append(change.Remove, have.Values)
				r.PartitionsRemoved++
				err = p.count(r.Name)
				return err == nil
			}
			key := strings.Join(have.Values, "\x00")
			l, ok := wanted[key]
			delete(wanted, key)
			if !ok {
				err = p.goneOrKept(ctx, have.Partition, r, change)
				return err == nil
			}
			if l.cluster == nil {
				return true
			}
			next := p.partition(gr, l, def)
			if !p.config.inherit() && have.Storage != nil && len(have.Storage.Columns) > 0 && old.continues(gr.finding) {
				next.Storage.Columns = have.Storage.Columns
			}
			if have.Storage != nil && maps.Equal(have.Parameters, next.Parameters) && sameColumns(have.Storage.Columns, next.Storage.Columns) && sameStorage(have.Storage, next.Storage) {
				return true
			}
			r.PartitionsUpdated++
			err = put("updated", next)
			return err == nil
		}
		if e := p.catalog.ExternalPartitions(ctx, old.Name, catalog.PartitionsPage{}, visit); e != nil || err != nil {
			return errors.Join(e, err)
		}
	}
	for _, l := range gr.leaves {
		key := strings.Join(gr.values(l), "\x00")
		if have, ok := wanted[key]; !ok || have != l {
			continue
		}
		r.PartitionsAdded++
		if err := put("added", p.partition(gr, l, def)); err != nil {
			return err
		}
	}
	return nil
}

// count bounds the changes of partitions.
func (p *planner) count(table string) error {
	if p.parts++; p.parts > partitionChangesMax {
		return fmt.Errorf("%w partitions to change, up to table %s: more than %d in one crawl; crawl in several targets", ErrTooMany, table, partitionChangesMax)
	}
	return nil
}

// partition is a leaf's definition.
func (p *planner) partition(gr *group, l leaf, def *hive.Table) hive.Partition {
	s := *def.Storage
	s.Location = p.target.source.URI(l.folder.path(p.target.prefix))
	params := map[string]string{}
	if l.cluster != nil {
		maps.Copy(params, l.cluster.form())
		l.stats().parameters(params)
	} else {
		maps.Copy(params, gr.finding.form())
	}
	return hive.Partition{Values: gr.values(l), Storage: &s, Parameters: params}
}
