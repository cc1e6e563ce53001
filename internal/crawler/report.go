package crawler

import (
	"strings"
	"time"
)

// What a crawl does with a table.
const (
	ActionCreate     = "create"
	ActionUpdate     = "update"    // its columns or its form change: a new version
	ActionRefresh    = "refresh"   // its figures or its partitions change
	ActionNone       = "unchanged" //
	ActionLogged     = "logged"    // it would change; the policy is LOG
	ActionDelete     = "delete"    // its files are gone
	ActionDeprecate  = "deprecate" // its files are gone
	ActionKept       = "kept"      // its files are there, and none can be read
	partitionsListed = 20
)

// Report is what a crawl found and did, or, as a plan, would do.
type Report struct {
	Crawler    string
	CrawlID    string `json:",omitempty"`
	Database   string
	DryRun     bool      `json:",omitempty"`
	StartedAt  time.Time // UTC
	EndedAt    time.Time // UTC
	Totals     Totals
	Tables     []TableReport `json:",omitempty"`
	TablesLeft int           `json:",omitempty"` // beyond those listed
	Skipped    []Skip        `json:",omitempty"` // files, by reason
	Notes      []string      `json:",omitempty"`
}

// TableReport says what changed about one table, and why.
type TableReport struct {
	Name              string
	Location          string
	Action            string
	Reason            string         `json:",omitempty"`
	Columns           []ColumnChange `json:",omitempty"`
	PartitionsAdded   int            `json:",omitempty"`
	PartitionsUpdated int            `json:",omitempty"`
	PartitionsRemoved int            `json:",omitempty"` // or deprecated
	Partitions        []string       `json:",omitempty"` // the first that changed, with what became of them
	Objects           int64
	Bytes             int64
	Rows              int64    // of texts that are larger than the sample, an estimate
	Notes             []string `json:",omitempty"`
}

func (t *TableReport) partition(what string, values []string) {
	if len(t.Partitions) < partitionsListed {
		t.Partitions = append(t.Partitions, what+" "+strings.Join(values, "/"))
	}
}

// Changed reports whether the catalog changes by it.
func (t *TableReport) Changed() bool {
	switch t.Action {
	case ActionCreate, ActionUpdate, ActionRefresh, ActionDelete, ActionDeprecate:
		return true
	}
	return t.PartitionsAdded+t.PartitionsUpdated+t.PartitionsRemoved > 0
}
