package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/tapehouse/tapehouse/internal/benchmark"
)

func newBench() *cobra.Command {
	c := &cobra.Command{
		Use:     "bench",
		GroupID: groupOther,
		Short:   "Measure what docs/BENCHMARKS.md promises, on this machine",
		Long: `Measures and prints each run and the median. A benchmark fails if what it measured
was wrong. Servers are processes of their own, started with this program.

` + exitCodes,
		Example: `  tapehouse bench all
  tapehouse bench ingest --runs 3 --seconds 30 --json`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return usagef("which one? See: tapehouse bench --help") },
	}
	var o benchmark.Options
	add := func(name, short string) {
		c.AddCommand(&cobra.Command{
			Use: name, Short: short, Args: noArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				self, err := os.Executable()
				if err != nil {
					return err
				}
				o.Server = []string{self, "serve"}
				err = benchmark.Run(c.Context(), name, o, c.OutOrStdout())
				if errors.Is(err, benchmark.ErrUnknown) {
					return &codeError{exitUsage, err}
				}
				return err
			},
		})
	}
	for _, b := range benchmark.Commands() {
		add(b.Name, b.Summary)
	}
	add("all", "every benchmark but the soak, one after another")
	p := c.PersistentFlags()
	p.IntVar(&o.Runs, "runs", 0, "runs, of which the median counts (default 3)")
	p.IntVar(&o.Seconds, "seconds", 0, "length of a run (default: the benchmark's)")
	p.IntVar(&o.Connections, "connections", 0, "producers with one put outstanding each (default 16)")
	p.IntVar(&o.Rate, "rate", 0, "records a second in all (default: the benchmark's)")
	p.IntVar(&o.Records, "records", 0, "records of convert and view, and of a date of longrun (default: the benchmark's)")
	p.IntVar(&o.Days, "days", 0, "trade dates of longrun (default 30)")
	p.IntVar(&o.Threads, "threads", 0, "threads of convert (default: one a core)")
	p.BoolVar(&o.General, "general", false, "convert records of the general form: members in any order, nulls, escapes, unknown members")
	p.StringVar(&o.Dir, "dir", "", "where data directories are made, and removed (default: the system's temporary directory)")
	p.StringVar(&o.CPUProfile, "cpu-profile", "", "write the server's CPU profile of the last run to a file")
	p.StringVar(&o.OwnProfile, "own-profile", "", "write this process's CPU profile, of clients and of benchmarks without a server, to a file")
	p.BoolVar(&o.JSON, "json", false, "print the report as JSON on the last line")
	return c
}
