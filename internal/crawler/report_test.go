package crawler

import (
	"fmt"
	"io"
	"strings"
)

// WriteTo writes all of the report, for the golden crawls.
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
