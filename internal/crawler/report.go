package crawler

import (
	"fmt"
	"io"
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

// WriteTo writes the report as people read it.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	verb := "crawled"
	if r.DryRun {
		verb = "would crawl"
	}
	fmt.Fprintf(&b, "%s %s into %s: %d files, %d bytes, %d folders; %d files read, %d known\n", r.Crawler, verb, r.Database,
		r.Totals.Objects, r.Totals.Bytes, r.Totals.Folders, r.Totals.Examined, r.Totals.Reused)
	for i := range r.Tables {
		t := &r.Tables[i]
		fmt.Fprintf(&b, "%-10s %s  %s\n", t.Action, t.Name, t.Location)
		if t.Reason != "" {
			fmt.Fprintf(&b, "           %s\n", t.Reason)
		}
		for _, c := range t.Columns {
			fmt.Fprintf(&b, "           %s\n", c)
		}
		if t.PartitionsAdded+t.PartitionsUpdated+t.PartitionsRemoved > 0 {
			fmt.Fprintf(&b, "           partitions: %d added, %d updated, %d removed\n", t.PartitionsAdded, t.PartitionsUpdated, t.PartitionsRemoved)
		}
		for _, p := range t.Partitions {
			fmt.Fprintf(&b, "             %s\n", p)
		}
		for _, n := range t.Notes {
			fmt.Fprintf(&b, "           note: %s\n", n)
		}
	}
	if r.TablesLeft > 0 {
		fmt.Fprintf(&b, "and %d more tables\n", r.TablesLeft)
	}
	for _, s := range r.Skipped {
		fmt.Fprintf(&b, "skipped    %d: %s (%s)\n", s.Count, s.Reason, strings.Join(s.Examples, ", "))
	}
	if n := r.Totals.Hidden + r.Totals.Excluded; n > 0 {
		fmt.Fprintf(&b, "passed     %d hidden, %d excluded\n", r.Totals.Hidden, r.Totals.Excluded)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "note       %s\n", n)
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}
