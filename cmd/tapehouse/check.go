package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/tapehouse/tapehouse/internal/checker"
	"github.com/tapehouse/tapehouse/internal/demo"
	"github.com/tapehouse/tapehouse/internal/terminal"
)

func newCheck() *cobra.Command {
	var f dataFlags
	var manifest, copied string
	var asJSON, truncated bool
	c := &cobra.Command{
		Use:     "check",
		GroupID: groupData,
		Short:   "Count what the lake lost, doubled or altered, against a manifest",
		Long: `Reads the manifest that tapehouse generate --manifest wrote, and the rows of the
lake's Parquet files, and counts what is lost, there twice, altered or unexpected.
It reads nothing else of the data directory, and needs no server. What is only in
the log is not in the lake yet: stop the server, or seal, first. Of a lake on S3
it reads a copy: aws s3 sync s3://BUCKET/PREFIX DIR, then --lake DIR.

` + exitCodes,
		Example: `  tapehouse check --data ./data --manifest day.manifest`,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if manifest == "" {
				return usagef("--manifest is required")
			}
			cfg, err := f.load()
			if err != nil {
				return err
			}
			lake := demo.LakeDir(cfg.Data)
			switch {
			case cfg.Lake.URL != "" && copied == "":
				return usagef("the lake is at %s: copy it (aws s3 sync %s DIR) and give the copy with --lake DIR", cfg.Lake.URL, cfg.Lake.URL)
			case cfg.Lake.URL != "":
				lake = copied
			case copied != "":
				return usagef("--lake is for a copy of a lake on S3, and lake.url is empty")
			}
			in, err := os.Open(manifest)
			if err != nil {
				return fmt.Errorf("read the manifest: %w", err)
			}
			defer in.Close()
			r, err := checker.Check(c.Context(), checker.Options{Manifest: in, Truncated: truncated, Lake: lake, Location: cfg.Lake.URL})
			if err != nil {
				return err
			}
			if err := showCheck(c, asJSON, r); err != nil {
				return err
			}
			if !r.OK() {
				return &codeError{code: exitMismatch}
			}
			return nil
		},
	}
	f.add(c)
	c.Flags().StringVar(&manifest, "manifest", "", "the manifest")
	c.Flags().StringVar(&copied, "lake", "", "directory with a copy of a lake on S3")
	c.Flags().BoolVar(&truncated, "truncated", false, "accept a manifest whose writer died, as far as it goes")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func showCheck(c *cobra.Command, asJSON bool, r *checker.Report) error {
	out := c.OutOrStdout()
	if asJSON {
		return json.NewEncoder(out).Encode(struct {
			*checker.Report
			OK bool `json:"ok"`
		}{r, r.OK()})
	}
	t := terminal.Table{Columns: []terminal.Column{terminal.Left("stream"), terminal.Right("manifest"), terminal.Right("rows"), terminal.Right("lost"),
		terminal.Right("twice"), terminal.Right("altered"), terminal.Right("unexpected"), terminal.Right("files")}}
	for _, s := range r.Streams {
		t.Add(s.Stream, terminal.Count(s.Records), terminal.Count(s.Rows), terminal.Count(s.Lost), terminal.Count(s.Duplicates),
			terminal.Count(s.Altered), terminal.Count(s.Unexpected), terminal.Count(int64(s.Files)))
	}
	if err := t.Write(out); err != nil {
		return err
	}
	for _, e := range r.Examples {
		fmt.Fprintf(out, "✗ %s\n", e)
	}
	verdict := "the lake has exactly what the manifest says"
	if !r.OK() {
		verdict = "the lake is NOT what the manifest says"
	}
	_, err := fmt.Fprintf(out, "%s (%s)\n", verdict, terminal.Took(r.Took))
	return err
}
