package crawler

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// The bounds of a scan.
const (
	foldersMax     = 250_000
	folderDepthMax = 64 // below the target
	nameLengthMax  = 1_024
	clustersMax    = 5 // layouts in one folder, as Glue has it
	clusterNames   = 8 // files of a layout that are named
	originsMax     = 200
	reasonsMax     = 200
	examplesMax    = 5
	slotsMax       = 512 // files between the listing and the last one that is in order
)

// folder is a folder of a target, with what its own files add up to. It holds no
// files: memory grows with folders, not with files.
type folder struct {
	parent   *folder
	name     string // "" of the target itself
	level    level
	children []*folder
	depth    int // segments below the target

	clusters []*cluster
	known    *finding // of a folder whose files are not read, because a table has it
	// knownBelow says that it has what is below as well.
	knownBelow bool
	objects    int64 // files, whatever they are, but hidden, excluded and refused ones
	bytes      int64
	total      int64 // objects here and below
	bad        int64 // of objects: cannot be read
	pending    int64
	overflow   int64 // files beyond clustersMax layouts
	sampled    int
	foreign    string // what kind of table lies here that is more than its files
}

// cluster is the files of one layout in one folder.
type cluster struct {
	*finding
	files, bytes, rows int64
	first              string            // a file's name
	names              []string          // of the files, if they are few
	origins            map[string]string // column → the file that made it what it is
}

// path is the folder's name within its source, ending in '/'; the target's prefix is
// the root's.
func (f *folder) path(prefix string) string {
	if f.parent == nil {
		return prefix
	}
	return f.parent.path(prefix) + f.name + "/"
}

// Skip says which files, or folders, a crawl passed over.
type Skip struct {
	Reason   string
	Count    int64
	Examples []string // the first few
}

type skips struct {
	byReason map[string]*Skip
	order    []*Skip
	hidden   int64
	excluded int64
}

func (s *skips) add(reason, name string) {
	e, ok := s.byReason[reason]
	if !ok {
		if len(s.order) >= reasonsMax {
			reason = "other reasons"
			if e, ok = s.byReason[reason]; ok {
				e.Count++
				return
			}
		}
		e = &Skip{Reason: reason}
		if s.byReason == nil {
			s.byReason = map[string]*Skip{}
		}
		s.byReason[reason] = e
		s.order = append(s.order, e)
	}
	e.Count++
	if len(e.Examples) < examplesMax {
		e.Examples = append(e.Examples, printable(name))
	}
}

// printable is a name as it can stand in a line of text.
func printable(name string) string {
	if !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return strconv.Quote(name)
	}
	return name
}

// scanner lists a target and learns what its files are.
type scanner struct {
	source     Source
	prefix     string // of names; "" or ending in '/'
	exclude    exclusions
	sampleSize int // files read in each folder; 0: all
	recognise  *recogniser
	memory     *memory
	workers    int
	only       string // of a target that is one file: its name below prefix
	now        time.Time
	settle     time.Duration
	// knownFolder, if set, returns the finding of a folder's table: its files are
	// counted and not read.
	knownFolder func(f *folder) (known *finding, below bool)
	step        func(name string) error // a test's; never nil

	// Of the listing goroutine:
	last    string
	started bool
	at      *folder
	folders int

	root     *folder
	skips    skips
	objects  int64
	bytes    int64
	examined int64
	reused   int64
	young    bool // files were seen that may still be written
}

// slot is an object on its way from the listing to its folder, in order.
type slot struct {
	Object
	folder *folder
	base   string
	refuse string // why it is passed over
	count  bool   // it is only counted
	reused bool
	learnt learnt
	err    error
	done   chan struct{} // closed when learnt or err is set; nil: they are
}

// run scans the target. An error means that what was seen is not all.
func (s *scanner) run(ctx context.Context) (*folder, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.root = &folder{}
	s.at = s.root
	if s.knownFolder != nil {
		s.root.known, s.root.knownBelow = s.knownFolder(s.root)
	}
	slots := make(chan *slot, slotsMax)
	jobs := make(chan *slot, slotsMax)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(slots)
		defer close(jobs)
		err := s.source.List(ctx, s.prefix, func(o Object) error { return s.list(ctx, o, slots, jobs) })
		if err != nil {
			cancel(fmt.Errorf("list %s: %w", s.source.URI(s.prefix), err))
		}
	})
	for range s.workers {
		wg.Go(func() {
			for sl := range jobs {
				if ctx.Err() == nil {
					sl.learnt, sl.err = s.recognise.recognise(ctx, s.source, sl.Object)
				} else {
					sl.err = context.Cause(ctx)
				}
				close(sl.done)
			}
		})
	}
	var err error
	for sl := range slots {
		if err != nil {
			continue // the others end by themselves
		}
		if err = s.collect(sl); err != nil {
			cancel(err)
		}
	}
	wg.Wait()
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	s.root.sum()
	return s.root, nil
}

func (f *folder) sum() int64 {
	f.total = f.objects
	for _, c := range f.children {
		f.total += c.sum()
	}
	return f.total
}

// list takes one object of the listing.
func (s *scanner) list(ctx context.Context, o Object, slots, jobs chan<- *slot) error {
	if s.started && o.Name <= s.last {
		return fmt.Errorf("the source lists %q after %q: names must come in their order", o.Name, s.last)
	}
	s.last, s.started = o.Name, true
	rest, ok := strings.CutPrefix(o.Name, s.prefix)
	if !ok {
		return fmt.Errorf("the source lists %q, which does not begin with %q", o.Name, s.prefix)
	}
	if rest == "" || strings.HasSuffix(rest, "/") && o.SizeBytes == 0 {
		return nil // a store's mark of an empty folder
	}
	if s.only != "" && rest != s.only {
		return nil
	}
	sl := &slot{Object: o}
	if err := s.place(sl, rest); err != nil {
		return err
	}
	if sl.folder != nil && sl.refuse == "" {
		switch f := sl.folder; {
		case f.known != nil:
			sl.count = true
		case s.sampleSize > 0 && f.sampled >= s.sampleSize:
			sl.count = true
		default:
			f.sampled++
			if sl.learnt, sl.reused = s.memory.lookup(o); !sl.reused {
				sl.done = make(chan struct{})
			}
		}
	}
	select {
	case slots <- sl:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if sl.done != nil {
		select {
		case jobs <- sl:
		case <-ctx.Done():
			sl.err = context.Cause(ctx)
			close(sl.done)
			return sl.err
		}
	}
	return nil
}

const (
	skipHidden   = "hidden"
	skipExcluded = "excluded"
)

// place finds the object's folder, or says why it has none.
func (s *scanner) place(sl *slot, rest string) error {
	segments := strings.Split(rest, "/")
	for i, seg := range segments {
		if why := refusedSegment(seg); why != "" {
			sl.refuse = why
			return nil
		}
		if hidden(seg) {
			sl.refuse = skipHidden
			if what, ok := foreignTables[seg]; ok && i < len(segments)-1 {
				return s.foreign(segments[:i], what)
			}
			return nil
		}
	}
	if n := len(segments); n >= 2 && segments[n-2] == "metadata" && strings.HasSuffix(rest, ".metadata.json") {
		if err := s.foreign(segments[:n-2], "an Iceberg table"); err != nil {
			return err
		}
	}
	switch {
	case s.exclude.match(rest):
		sl.refuse = skipExcluded
		return nil
	case sl.Refused != "":
		sl.refuse = sl.Refused
		return nil
	case len(segments)-1 > folderDepthMax:
		sl.refuse = fmt.Sprintf("more than %d folders deep", folderDepthMax)
		return nil
	case len(sl.Name) > nameLengthMax:
		sl.refuse = fmt.Sprintf("a name longer than %d bytes", nameLengthMax)
		return nil
	}
	f, why, err := s.folder(segments[:len(segments)-1])
	sl.folder, sl.refuse, sl.base = f, why, segments[len(segments)-1]
	return err
}

// foreignTables are the folders by which tables are known whose files alone are not
// their rows.
var foreignTables = map[string]string{"_delta_log": "a Delta Lake table", ".hoodie": "a Hudi table"}

// foreign marks a folder as the place of such a table.
func (s *scanner) foreign(segments []string, what string) error {
	if len(segments) > folderDepthMax {
		return nil
	}
	f, refused, err := s.folder(segments)
	if err == nil && refused == "" {
		f.foreign = what
	}
	return err
}

// folder finds or makes the folder. Names come in their order, so that a new folder
// is always below one of those that lead to the last one.
func (s *scanner) folder(segments []string) (f *folder, refuse string, err error) {
	var chain [folderDepthMax + 1]*folder
	n := s.at.depth
	for c := s.at; c != nil; c = c.parent {
		chain[c.depth] = c
	}
	shared := 0
	for shared < min(n, len(segments)) && chain[shared+1].name == segments[shared] {
		shared++
	}
	f = chain[shared]
	for _, seg := range segments[shared:] {
		l, why := levelOf(seg)
		if why != "" {
			return nil, why, nil
		}
		if s.folders++; s.folders > foldersMax {
			return nil, "", fmt.Errorf("%w folders below %s: more than %d; crawl them in several targets", ErrTooMany, s.source.URI(s.prefix), foldersMax)
		}
		child := &folder{parent: f, name: seg, level: l, depth: f.depth + 1}
		f.children = append(f.children, child)
		if s.knownFolder != nil {
			child.known, child.knownBelow = s.knownFolder(child)
		}
		f = child
	}
	s.at = f
	return f, "", nil
}

// collect adds a slot, in order, to its folder.
func (s *scanner) collect(sl *slot) error {
	if sl.done != nil {
		<-sl.done
		if sl.err != nil {
			return sl.err
		}
	}
	rel := strings.TrimPrefix(sl.Name, s.prefix)
	switch sl.refuse {
	case "":
	case skipHidden:
		s.skips.hidden++
		return nil
	case skipExcluded:
		s.skips.excluded++
		return nil
	default:
		s.skips.add(sl.refuse, rel)
		return nil
	}
	s.objects++
	s.bytes += sl.SizeBytes
	s.young = s.young || young(sl.Object, s.now, s.settle)
	f := sl.folder
	f.objects++
	f.bytes += sl.SizeBytes
	if sl.count {
		return nil
	}
	if sl.reused {
		s.reused++
	} else {
		s.examined++
		if err := s.step("file " + sl.Name); err != nil {
			return err
		}
	}
	s.memory.keep(sl.Object, sl.learnt, sl.reused)
	switch sl.learnt.Outcome {
	case outcomeTable:
		f.add(s.recognise.intern, sl)
	case outcomePending:
		f.pending++
		s.skips.add(pendingReason+sl.learnt.Reason, rel)
	case outcomeBad:
		f.bad++
		s.skips.add(sl.learnt.Reason, rel)
	default:
		s.skips.add(sl.learnt.Reason, rel)
	}
	return nil
}

// add puts a file beside those of its layout.
func (f *folder) add(in *interner, sl *slot) {
	l := sl.learnt
	var c *cluster
	for _, have := range f.clusters {
		if in.fit(have.finding, l.finding) {
			c = have
			break
		}
	}
	switch {
	case c == nil && len(f.clusters) >= clustersMax:
		f.overflow++
		return
	case c == nil:
		c = &cluster{finding: l.finding, first: sl.base}
		f.clusters = append(f.clusters, c)
	default:
		joined := in.join(c.finding, l.finding)
		c.noteOrigins(joined, sl.base)
		c.finding = joined
	}
	c.files++
	c.bytes += sl.SizeBytes
	c.rows += l.rows
	if len(c.names) < clusterNames {
		c.names = append(c.names, sl.base)
	}
}

// noteOrigins remembers which file changed a column.
func (c *cluster) noteOrigins(joined *finding, file string) {
	if joined == c.finding {
		return
	}
	for i, f := range joined.Columns {
		if i < len(c.Columns) && (c.Columns[i].State == f.State || c.Columns[i].State.typeText() == f.State.typeText()) {
			continue
		}
		if c.origins == nil {
			c.origins = map[string]string{}
		}
		if len(c.origins) < originsMax {
			c.origins[f.Name] = file
		}
	}
}

// origin is the file that made a column what it is, as far as that is known.
func (c *cluster) origin(column string) string {
	if file, ok := c.origins[column]; ok {
		return file
	}
	return c.first
}

// Totals counts what a scan saw.
type Totals struct {
	Objects  int64 // files, but hidden, excluded and refused ones
	Bytes    int64
	Examined int64 // read: new or changed
	Reused   int64 // known from an earlier crawl, unchanged
	Hidden   int64
	Excluded int64
	Folders  int64
}

func (t *Totals) add(s *scanner) {
	t.Objects += s.objects
	t.Bytes += s.bytes
	t.Examined += s.examined
	t.Reused += s.reused
	t.Hidden += s.skips.hidden
	t.Excluded += s.skips.excluded
	t.Folders += int64(s.folders)
}

// memoryName names the memory of a crawler's target.
func memoryName(crawler, target string) string {
	return memoryPrefix(crawler) + shortHash(target)
}

func memoryPrefix(crawler string) string { return shortHash("crawler "+crawler) + "-" }
