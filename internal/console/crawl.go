package console

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/terminal"
)

// CrawlRequest asks for a crawl of files that others wrote.
type CrawlRequest struct {
	Name        string   `json:"name"` // of the crawler, which is made or changed
	Path        string   `json:"path"` // s3://bucket/folder/
	Database    string   `json:"database"`
	TablePrefix string   `json:"table_prefix,omitempty"`
	Exclusions  []string `json:"exclusions,omitempty"`
	Watch       bool     `json:"watch,omitempty"`   // crawl again whenever files come or go
	DryRun      bool     `json:"dry_run,omitempty"` // say what would be done
}

// Crawl is what a crawl found and did, or would do.
type Crawl struct {
	Crawler    string         `json:"crawler"`
	CrawlID    string         `json:"crawl_id,omitempty"`
	Database   string         `json:"database"`
	DryRun     bool           `json:"dry_run,omitempty"`
	Objects    int64          `json:"objects"`
	Bytes      int64          `json:"bytes"`
	Examined   int64          `json:"objects_read"`
	Known      int64          `json:"objects_known"` // unchanged since an earlier crawl
	Seconds    float64        `json:"seconds"`
	Tables     []CrawledTable `json:"tables"`
	TablesLeft int            `json:"tables_left,omitempty"` // beyond those listed
	Skipped    []CrawlSkip    `json:"skipped,omitempty"`
	Notes      []string       `json:"notes,omitempty"`
}

// CrawledTable says what became of one table, and why.
type CrawledTable struct {
	Name              string   `json:"name"`
	Location          string   `json:"location"`
	Action            string   `json:"action"` // create, update, refresh, unchanged, logged, delete, deprecate, kept
	Reason            string   `json:"reason,omitempty"`
	Columns           []string `json:"columns,omitempty"` // what changed
	PartitionsAdded   int      `json:"partitions_added"`
	PartitionsUpdated int      `json:"partitions_updated"`
	PartitionsRemoved int      `json:"partitions_removed"`
	Objects           int64    `json:"objects"`
	Bytes             int64    `json:"bytes"`
	Rows              int64    `json:"rows"` // an estimate for texts
	Notes             []string `json:"notes,omitempty"`
}

// CrawlSkip names files that are in no table.
type CrawlSkip struct {
	Reason   string   `json:"reason"`
	Count    int64    `json:"count"`
	Examples []string `json:"examples"`
}

// crawlColumnsShown bounds the columns that the text of a new table lists.
const crawlColumnsShown = 30

// WriteText writes the report for people.
func (c Crawl) WriteText(w io.Writer) error {
	verb := "Crawled"
	if c.DryRun {
		verb = "Would crawl"
	}
	fmt.Fprintf(w, "%s %s, %s into %s: %s read, %s known, in %s\n", verb, terminal.Plural(c.Objects, "file"), terminal.Bytes(c.Bytes), c.Database,
		terminal.Count(c.Examined), terminal.Count(c.Known), terminal.Took(time.Duration(c.Seconds*float64(time.Second))))
	for _, t := range c.Tables {
		fmt.Fprintf(w, "\n%s.%s: %s\n", c.Database, t.Name, t.Action)
		if t.Reason != "" {
			fmt.Fprintf(w, "  why          %s\n", wrap(t.Reason, 15))
		}
		fmt.Fprintf(w, "  location     %s\n  holds        %s, %s, about %s\n", t.Location, terminal.Plural(t.Objects, "file"), terminal.Bytes(t.Bytes), terminal.Plural(t.Rows, "row"))
		if t.PartitionsAdded+t.PartitionsUpdated+t.PartitionsRemoved > 0 {
			fmt.Fprintf(w, "  partitions   %s added, %s updated, %s removed\n", terminal.Count(int64(t.PartitionsAdded)), terminal.Count(int64(t.PartitionsUpdated)), terminal.Count(int64(t.PartitionsRemoved)))
		}
		for i, column := range t.Columns {
			if i == crawlColumnsShown {
				fmt.Fprintf(w, "               and %d more\n", len(t.Columns)-i)
				break
			}
			fmt.Fprintf(w, "  %s\n", wrap(column, 4))
		}
		for _, n := range t.Notes {
			fmt.Fprintf(w, "  → %s\n", wrap(n, 4))
		}
	}
	if c.TablesLeft > 0 {
		fmt.Fprintf(w, "\nand %s more tables\n", terminal.Count(int64(c.TablesLeft)))
	}
	if len(c.Skipped) > 0 {
		fmt.Fprintln(w)
	}
	for _, s := range c.Skipped {
		fmt.Fprintf(w, "skipped %s: %s\n", terminal.Plural(s.Count, "file"), wrap(s.Reason+" ("+strings.Join(s.Examples, ", ")+")", 2))
	}
	for _, n := range c.Notes {
		fmt.Fprintf(w, "→ %s\n", wrap(n, 2))
	}
	return nil
}
