package main

import (
	"github.com/spf13/cobra"

	"github.com/tapehouse/tapehouse/internal/console"
)

func newFlush() *cobra.Command {
	var f dataFlags
	var asJSON bool
	c := &cobra.Command{
		Use:     "flush",
		GroupID: groupData,
		Short:   "Write what was acknowledged to the lake now, before its buffer hint",
		Long: `Writes what the streams have acknowledged to their tables and objects now. SQL sees
it in any case; other engines that read the lake see it from then on.

` + exitCodes,
		Example: `  tapehouse flush`,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return withServer(c.Context(), f, false, c.ErrOrStderr(), func(s *console.Client) error {
				v, err := s.Flush(c.Context())
				if err != nil {
					return err
				}
				return show(c, asJSON, v)
			})
		},
	}
	f.add(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func newMaintain() *cobra.Command {
	var f dataFlags
	var dry, asJSON bool
	c := &cobra.Command{
		Use:     "maintain",
		GroupID: groupData,
		Short:   "Merge small files, expire snapshots, remove what nothing needs",
		Long: `Does at once what the server does by itself every maintain.interval: it merges
small files into large sorted ones, rewrites files of which many rows are deleted,
expires old snapshots, and removes files that nothing refers to. What a tag, a
running statement or a view needs is kept. --dry-run says what would be done.

Without a running server the command opens the data directory itself.

` + exitCodes,
		Example: `  tapehouse maintain --dry-run
  tapehouse maintain`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return withServer(c.Context(), f, true, c.ErrOrStderr(), func(s *console.Client) error {
				if dry {
					v, err := s.PlanMaintenance(c.Context())
					if err != nil {
						return err
					}
					return show(c, asJSON, v)
				}
				v, err := s.Maintain(c.Context())
				if err != nil {
					return err
				}
				return show(c, asJSON, v)
			})
		},
	}
	f.add(c)
	c.Flags().BoolVar(&dry, "dry-run", false, "say what would be done, and do nothing")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
