package console

import (
	"fmt"
	"io"

	"github.com/tapehouse/tapehouse/internal/terminal"
)

// Flushed says what a flush did.
type Flushed struct {
	Streams int   `json:"streams"`
	Records int64 `json:"records"` // that were not in the lake before
}

// WriteText writes it for people.
func (f Flushed) WriteText(w io.Writer) error {
	_, err := fmt.Fprintf(w, "Flushed %s of %s to the lake\n", terminal.Plural(f.Records, "record"), terminal.Plural(int64(f.Streams), "stream"))
	return err
}

// MaintainPlan is what maintenance would do now.
type MaintainPlan struct {
	Tables  []MaintainTable `json:"tables"`  // those with something to do
	Dropped int             `json:"dropped"` // files of dropped tables, to be removed
}

// MaintainTable is what maintenance would do with one table.
type MaintainTable struct {
	Table        string `json:"table"`
	Snapshots    int    `json:"snapshots_to_expire"`
	Unreferenced int    `json:"files_they_alone_hold"` // removed after the grace period
	Due          int    `json:"files_to_remove"`
	Pinned       int    `json:"files_in_use"` // due, and kept while statements read them
	Orphans      int    `json:"orphans_to_remove"`
	OrphanBytes  int64  `json:"orphan_bytes"`
	Deletes      int    `json:"groups_with_deletes_to_rewrite"`
	Merges       int    `json:"groups_to_merge"`
	MergeFiles   int    `json:"small_files_in_them"`
	MergeBytes   int64  `json:"small_file_bytes"`
}

// WriteText writes the plan for people.
func (p MaintainPlan) WriteText(w io.Writer) error {
	if len(p.Tables) == 0 && p.Dropped == 0 {
		_, err := fmt.Fprintln(w, "Nothing to do.")
		return err
	}
	if len(p.Tables) > 0 {
		t := terminal.Table{Columns: []terminal.Column{terminal.Left("table"), terminal.Right("expire"), terminal.Right("remove"), terminal.Right("orphans"),
			terminal.Right("rewrite"), terminal.Right("merge"), terminal.Right("small files")}}
		count := func(n int) string { return terminal.Count(int64(n)) }
		for _, p := range p.Tables {
			t.Add(p.Table, count(p.Snapshots), count(p.Due), count(p.Orphans), count(p.Deletes), count(p.Merges), count(p.MergeFiles))
		}
		if err := t.Write(w); err != nil {
			return err
		}
		fmt.Fprint(w, `
expire       snapshots; what they alone hold is removed after the grace period
remove       files unreferenced for longer than that; those in use wait
orphans      files that were written and never committed, to be removed
rewrite      groups of files with many deleted rows
merge        groups of small files, each to become one sorted file
`)
	}
	if p.Dropped > 0 {
		fmt.Fprintf(w, "\n%s of dropped tables to be removed.\n", terminal.Plural(int64(p.Dropped), "file"))
	}
	return nil
}

// Maintained is what a round did.
type Maintained struct {
	Snapshots int `json:"snapshots_expired"`
	Files     int `json:"files_removed"`
	Pinned    int `json:"files_in_use"`
	Orphans   int `json:"orphans_removed"`
	Deletes   int `json:"groups_with_deletes_rewritten"`
	Merges    int `json:"groups_merged"`
}

// WriteText writes it for people.
func (m Maintained) WriteText(w io.Writer) error {
	count := func(n int) string { return terminal.Count(int64(n)) }
	_, err := fmt.Fprintf(w, `Maintained
  snapshots    %s expired
  files        %s removed, %s in use and kept
  orphans      %s removed
  deletes      %s groups rewritten
  merges       %s groups of small files merged
`, count(m.Snapshots), count(m.Files), count(m.Pinned), count(m.Orphans), count(m.Deletes), count(m.Merges))
	return err
}
