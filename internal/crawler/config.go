package crawler

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// The values of SchemaChangePolicy and of Definition.Recrawl, as Glue spells them.
const (
	Log        = "LOG"
	Update     = "UPDATE_IN_DATABASE"
	Delete     = "DELETE_FROM_DATABASE"
	Deprecate  = "DEPRECATE_IN_DATABASE"
	Everything = "CRAWL_EVERYTHING"
	NewFolders = "CRAWL_NEW_FOLDERS_ONLY"
	EventMode  = "CRAWL_EVENT_MODE"
)

// The bounds of a definition.
const (
	targetsMax        = 100
	classifiersMax    = 100
	pathBytesMax      = 1_024
	descriptionMax    = 2_048
	prefixBytesMax    = 64
	configurationMax  = 16 << 10
	sampleSizeMax     = 249
	tableThresholdMax = 100_000
)

// Target is what is crawled: a folder of a source, or one file.
type Target struct {
	// Path is a location as Options.Open understands it, s3://bucket/folder/ for one.
	// With or without a slash at its end it is the folder of that name, never another
	// one whose name begins with it.
	Path string
	// Exclusions are patterns of names relative to Path: * ** ? [] [!] {}.
	Exclusions []string `json:",omitempty"`
	// SampleSize is how many files of each folder are read, 1 to 249; 0: all.
	SampleSize int `json:",omitempty"`
}

// SchemaChangePolicy says what a crawl does with what changed.
type SchemaChangePolicy struct {
	UpdateBehavior string `json:",omitempty"` // LOG or UPDATE_IN_DATABASE, the default
	DeleteBehavior string `json:",omitempty"` // LOG, DELETE_FROM_DATABASE or DEPRECATE_IN_DATABASE, the default
}

// Definition is what the user decides of a crawler.
type Definition struct {
	Name        string
	Role        string `json:",omitempty"` // kept for those who ask; nothing depends on it
	Database    string
	Description string   `json:",omitempty"`
	Targets     []Target `json:",omitempty"`
	Schedule    string   `json:",omitempty"` // cron(…); "": on demand
	Classifiers []string `json:",omitempty"` // names, asked in this order
	TablePrefix string   `json:",omitempty"`
	Policy      SchemaChangePolicy
	Recrawl     string `json:",omitempty"` // CRAWL_EVERYTHING, the default, CRAWL_NEW_FOLDERS_ONLY or CRAWL_EVENT_MODE
	// Configuration is Glue's JSON: CrawlerOutput and Grouping.
	Configuration string `json:",omitempty"`
}

// config is a Definition.Configuration.
type config struct {
	Version       json.Number
	CrawlerOutput struct {
		Tables     struct{ AddOrUpdateBehavior string }
		Partitions struct{ AddOrUpdateBehavior string }
	}
	Grouping struct {
		TableGroupingPolicy     string
		TableLevelConfiguration int
	}
	// TableThreshold is the greatest number of tables; a crawl that finds more fails.
	TableThreshold int
	// CreatePartitionIndex is accepted: partitions are found by their values anyway.
	CreatePartitionIndex bool
}

const (
	mergeNewColumns   = "MergeNewColumns"
	inheritFromTable  = "InheritFromTable"
	combineCompatible = "CombineCompatibleSchemas"
)

func (c *config) addColumnsOnly() bool {
	return c.CrawlerOutput.Tables.AddOrUpdateBehavior == mergeNewColumns
}

func (c *config) inherit() bool {
	return c.CrawlerOutput.Partitions.AddOrUpdateBehavior == inheritFromTable
}

func (c *config) combine() bool { return c.Grouping.TableGroupingPolicy == combineCompatible }

// parseConfiguration reads the JSON; what it does not know is refused by name.
func parseConfiguration(text string) (c config, err error) {
	if text == "" {
		return c, nil
	}
	if len(text) > configurationMax {
		return c, fmt.Errorf("%w: Configuration has %d bytes, the limit is %d", ErrInvalid, len(text), configurationMax)
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return c, fmt.Errorf("%w: Configuration: %s", ErrInvalid, strings.TrimPrefix(err.Error(), "json: "))
	}
	if dec.More() {
		return c, fmt.Errorf("%w: Configuration: more than one JSON value", ErrInvalid)
	}
	refuse := func(what, have string, want ...string) error {
		if have == "" || slices.Contains(want, have) {
			return nil
		}
		return fmt.Errorf("%w: Configuration: %s %q: want %s", ErrInvalid, what, have, strings.Join(want, " or "))
	}
	switch {
	case c.Version != "" && c.Version != "1" && c.Version != "1.0":
		return c, fmt.Errorf("%w: Configuration: Version %s: want 1.0", ErrInvalid, c.Version)
	case c.Grouping.TableLevelConfiguration < 0 || c.Grouping.TableLevelConfiguration > folderDepthMax:
		return c, fmt.Errorf("%w: Configuration: TableLevelConfiguration %d: want 1 to %d; the bucket is 1", ErrInvalid, c.Grouping.TableLevelConfiguration, folderDepthMax)
	case c.TableThreshold < 0 || c.TableThreshold > tableThresholdMax:
		return c, fmt.Errorf("%w: Configuration: TableThreshold %d: want 1 to %d", ErrInvalid, c.TableThreshold, tableThresholdMax)
	}
	if err := refuse("Tables.AddOrUpdateBehavior", c.CrawlerOutput.Tables.AddOrUpdateBehavior, mergeNewColumns); err != nil {
		return c, err
	}
	if err := refuse("Partitions.AddOrUpdateBehavior", c.CrawlerOutput.Partitions.AddOrUpdateBehavior, inheritFromTable); err != nil {
		return c, err
	}
	return c, refuse("TableGroupingPolicy", c.Grouping.TableGroupingPolicy, combineCompatible)
}

var databaseRE = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_-]{0,127}$`)

// normalize fills the defaults and returns ErrInvalid unless the definition can be
// crawled.
func (d *Definition) normalize() error {
	if d.Policy.UpdateBehavior == "" {
		d.Policy.UpdateBehavior = Update
	}
	if d.Policy.DeleteBehavior == "" {
		d.Policy.DeleteBehavior = Deprecate
	}
	if d.Recrawl == "" {
		d.Recrawl = Everything
	}
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("%w %s: %s", ErrInvalid, d.Name, fmt.Sprintf(format, args...))
	}
	switch {
	case !nameRE.MatchString(d.Name):
		return fmt.Errorf("%w: name %q: want 1 to 255 characters, no control characters, no '/'", ErrInvalid, d.Name)
	case !databaseRE.MatchString(d.Database):
		return invalid("DatabaseName %q: want 1 to 128 of a-z A-Z 0-9 _ -, not beginning with -", d.Database)
	case len(d.Description) > descriptionMax:
		return invalid("Description has %d bytes, the limit is %d", len(d.Description), descriptionMax)
	case len(d.Targets) == 0 || len(d.Targets) > targetsMax:
		return invalid("%d targets: want 1 to %d", len(d.Targets), targetsMax)
	case len(d.Classifiers) > classifiersMax:
		return invalid("%d classifiers, the limit is %d", len(d.Classifiers), classifiersMax)
	case len(d.TablePrefix) > prefixBytesMax || plainName(d.TablePrefix) != d.TablePrefix:
		return invalid("TablePrefix %q: want up to %d of a-z 0-9 _", d.TablePrefix, prefixBytesMax)
	case !slices.Contains([]string{Log, Update}, d.Policy.UpdateBehavior):
		return invalid("UpdateBehavior %q: want LOG or UPDATE_IN_DATABASE", d.Policy.UpdateBehavior)
	case !slices.Contains([]string{Log, Delete, Deprecate}, d.Policy.DeleteBehavior):
		return invalid("DeleteBehavior %q: want LOG, DELETE_FROM_DATABASE or DEPRECATE_IN_DATABASE", d.Policy.DeleteBehavior)
	case !slices.Contains([]string{Everything, NewFolders, EventMode}, d.Recrawl):
		return invalid("RecrawlBehavior %q: want CRAWL_EVERYTHING, CRAWL_NEW_FOLDERS_ONLY or CRAWL_EVENT_MODE", d.Recrawl)
	case d.Recrawl == NewFolders && (d.Policy.UpdateBehavior != Log || d.Policy.DeleteBehavior != Log):
		return invalid("CRAWL_NEW_FOLDERS_ONLY reads no folder twice: UpdateBehavior and DeleteBehavior must be LOG")
	}
	paths := map[string]bool{}
	for _, t := range d.Targets {
		if t.Path == "" || len(t.Path) > pathBytesMax || refusedPath(t.Path) != "" {
			return invalid("path %q: want 1 to %d bytes: %s", t.Path, pathBytesMax, refusedPath(t.Path))
		}
		if key := strings.TrimSuffix(t.Path, "/"); paths[key] {
			return invalid("path %q is there twice", t.Path)
		} else {
			paths[key] = true
		}
		if t.SampleSize < 0 || t.SampleSize > sampleSizeMax {
			return invalid("SampleSize %d: want 1 to %d", t.SampleSize, sampleSizeMax)
		}
		if _, err := compileExclusions(t.Exclusions); err != nil {
			return err
		}
	}
	if d.Schedule != "" {
		if _, err := ParseSchedule(d.Schedule); err != nil {
			return err
		}
	}
	_, err := parseConfiguration(d.Configuration)
	return err
}

// refusedPath says what no target's path has; "": nothing of it.
func refusedPath(path string) string {
	rest := path
	if _, after, ok := strings.Cut(path, "://"); ok {
		rest = after
	}
	rest = strings.TrimSuffix(strings.TrimPrefix(rest, "/"), "/")
	if rest == "" {
		return ""
	}
	for seg := range strings.SplitSeq(rest, "/") {
		if why := refusedSegment(seg); why != "" {
			return why
		}
	}
	return ""
}
