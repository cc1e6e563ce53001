package main

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapehouse/tapehouse/internal/capacity"
	"github.com/tapehouse/tapehouse/internal/terminal"
)

func newPlan() *cobra.Command {
	var l capacity.Load
	var asJSON bool
	c := &cobra.Command{
		Use:     "plan --records-per-day N --retain DAYS",
		GroupID: groupOther,
		Short:   "Say what a load needs: disks, memory, cores, requests to S3",
		Long: `Says what a load needs, by constants that were measured (docs/BENCHMARKS.md) on
records of 300 bytes: half of each processor is left free for statements, views
and the day that is twice as long as the others. It asks no server.

` + exitCodes,
		Example: `  tapehouse plan --records-per-day 1000000000 --retain 250
  tapehouse plan --records-per-day 5000000 --retain 30 --record-bytes 450 --session 23h`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			n, err := capacity.Plan(l)
			if err != nil {
				return usagef("%v", err)
			}
			return show(c, asJSON, plan{n, l})
		},
	}
	c.Flags().Int64Var(&l.RecordsPerDay, "records-per-day", 0, "records of a trade date, all streams")
	c.Flags().IntVar(&l.RetainDays, "retain", 0, "trade dates that stay in the lake")
	c.Flags().Int64Var(&l.RecordBytes, "record-bytes", 300, "bytes of a record's JSON")
	c.Flags().DurationVar(&l.Session, "session", 6*time.Hour+30*time.Minute, "time in which a day's records come")
	c.Flags().Float64Var(&l.PeakFactor, "peak", 6, "peak rate by the mean rate")
	c.Flags().DurationVar(&l.Outage, "outage", 4*time.Hour, "how long the lake may be away")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// plan is what a load needs, for show.
type plan struct {
	capacity.Needs
	load capacity.Load
}

// WriteText writes it for people.
func (p plan) WriteText(w io.Writer) error {
	rate := func(v float64) string { return terminal.Count(int64(v)) }
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-13s%s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(w, "%s records of %d bytes a trade date, %s of them kept\n\n", terminal.Count(p.load.RecordsPerDay), p.load.RecordBytes, terminal.Plural(int64(p.load.RetainDays), "date"))
	row("rate", "%s records/s in the mean, %s at the peak", rate(p.MeanRate), rate(p.PeakRate))
	row("network", "%s/s at the peak", terminal.Bytes(int64(p.NetworkBytes)))
	row("cores", "%d", p.Cores)
	row("memory", "%s", terminal.Bytes(p.MemoryBytes))
	row("lake", "%s; %s and %s data files a date", terminal.Bytes(p.LakeBytes), terminal.Bytes(p.LakeBytesDay), terminal.Count(p.DataFilesDay))
	row("local disk", "%s beside the lake, written at up to %s/s", terminal.Bytes(p.LocalBytes), terminal.Bytes(int64(p.DiskWriteRate)))
	row("  of it log", "%s, for %s h without the lake (%s with processing)", terminal.Bytes(p.LogBytes), strconv.FormatFloat(p.load.Outage.Hours(), 'f', -1, 64), terminal.Bytes(p.LogBytesRaw))
	row("commits", "%s a date", terminal.Count(p.FlushesPerDay))
	row("S3", "%s PUT and %s GET requests a date, if the lake is on it", terminal.Count(p.S3Puts), terminal.Count(p.S3Gets))
	row("the close", "about %s of compaction, hashes and statements", terminal.Took(time.Duration(p.SealSeconds*float64(time.Second))))
	return nil
}
