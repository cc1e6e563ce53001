package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapehouse/tapehouse/internal/console"
)

func newCrawl() *cobra.Command {
	var f dataFlags
	var q console.CrawlRequest
	var asJSON bool
	c := &cobra.Command{
		Use:     "crawl PATH --database NAME",
		GroupID: groupData,
		Short:   "Make tables of files that others wrote: Parquet, JSON, CSV",
		Long: `Recognises the files below PATH, groups them into tables and partitions, and notes
them in the catalog, where SQL and other engines find them. The files stay as they
are. What is known from an earlier crawl is not read again; --dry-run says what
would be done; --watch crawls again whenever files come or go.

PATH is s3://BUCKET/FOLDER, or a directory below the data directory's lake/ (the
bucket "lake") or buckets/NAME/ (the bucket of that name).

` + exitCodes,
		Example: `  cp -r symbols tapehouse-data/lake/
  tapehouse crawl s3://lake/symbols --database files
  tapehouse sql 'SELECT * FROM files.symbols LIMIT 5'`,
		Args: argsExactly(1, "a path"),
		RunE: func(c *cobra.Command, args []string) error {
			if q.Database == "" {
				return usagef("want --database: the database, or schema, that the tables are put into")
			}
			cfg, err := f.load()
			if err != nil {
				return err
			}
			if q.Path, err = crawlPath(cfg.Data, args[0]); err != nil {
				return err
			}
			if q.Name == "" {
				q.Name = crawlerName(q.Path)
			}
			return withServer(c.Context(), f, true, c.ErrOrStderr(), func(s *console.Client) error {
				v, err := s.Crawl(c.Context(), q)
				if err != nil {
					return err
				}
				return show(c, asJSON, v)
			})
		},
	}
	f.add(c)
	c.Flags().StringVar(&q.Database, "database", "", "database of the tables, made if absent")
	c.Flags().StringVar(&q.Name, "name", "", "name of the crawler that is kept (default: by the path)")
	c.Flags().StringVar(&q.TablePrefix, "table-prefix", "", "what the tables' names begin with")
	c.Flags().StringArrayVar(&q.Exclusions, "exclude", nil, "pattern of names below PATH that are passed over: * ** ? [] {}; may be given again")
	c.Flags().BoolVar(&q.Watch, "watch", false, "crawl again whenever files come or go")
	c.Flags().BoolVar(&q.DryRun, "dry-run", false, "say what would be done, and do nothing")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// crawlPath makes a location of a directory in the lake or in a bucket.
func crawlPath(data, path string) (string, error) {
	if strings.Contains(path, "://") {
		return path, nil
	}
	data, err := filepath.Abs(data)
	if err != nil {
		return "", err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	slash := ""
	if fi, err := os.Stat(abs); err == nil && fi.IsDir() {
		slash = "/"
	}
	if rel, err := filepath.Rel(filepath.Join(data, "lake"), abs); err == nil && filepath.IsLocal(rel) {
		if rel == "." {
			return "s3://lake/", nil
		}
		return "s3://lake/" + filepath.ToSlash(rel) + slash, nil
	}
	if rel, err := filepath.Rel(filepath.Join(data, "buckets"), abs); err == nil && filepath.IsLocal(rel) && rel != "." {
		return "s3://" + filepath.ToSlash(rel) + slash, nil
	}
	return "", fmt.Errorf("%s is neither in %s nor in a bucket of %s: copy it there", path, filepath.Join(data, "lake"), filepath.Join(data, "buckets"))
}

var notInName = regexp.MustCompile(`[^a-zA-Z0-9._-]+`)

// crawlerName is a crawler's name by its path.
func crawlerName(path string) string {
	return strings.Trim(notInName.ReplaceAllString(strings.TrimPrefix(path, "s3://"), "-"), "-")
}
