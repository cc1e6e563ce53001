package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/crawler"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
)

// crawlers is the lease of the server that runs the crawlers of a shared catalog,
// and crawlersLease how long it may be away before another one, when it starts,
// takes them.
const (
	crawlers      = "crawlers"
	crawlersLease = 10 * time.Minute
)

// errCrawlersElsewhere is told by a server that does not run the crawlers.
var errCrawlersElsewhere = errors.New("the crawlers run on another server of this catalog: ask that one")

// openCrawler opens the crawlers and begins their schedules and watches.
func (s *Server) openCrawler(ctx context.Context) error {
	ours, err := s.catalog.Lease(ctx, crawlers, crawlersLease)
	if err != nil {
		return err
	}
	if !ours {
		s.logger.Info(errCrawlersElsewhere.Error())
		return nil
	}
	done := make(chan struct{})
	s.serving.Go(func() {
		tick := time.NewTicker(crawlersLease / 10)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			if ours, err := s.catalog.Lease(context.Background(), crawlers, crawlersLease); err != nil || !ours {
				s.logger.Warn("the crawlers' lease was not renewed", "ours", ours, "error", err)
			}
		}
	})
	s.onClose(func(ctx context.Context) error {
		close(done)
		_, err := s.catalog.Lease(context.WithoutCancel(ctx), crawlers, 0)
		return err
	})
	sources := &crawlSources{s: s, open: map[string]crawler.Source{}}
	s.onClose(func(context.Context) error { return sources.close() })
	s.crawler, err = crawler.New(ctx, crawler.Options{Catalog: s.catalog, Open: sources.path, FS: fsys.OS, Dir: s.dir("crawler"), Logger: s.logger, Registerer: s.metrics})
	if err != nil {
		return err
	}
	s.onClose(func(context.Context) error { return s.crawler.Close() })
	s.crawler.Serve()
	return nil
}

// crawlSources are the buckets as a crawler sees them. The directories of managed
// tables are not there: what lies in them is in the catalog already.
type crawlSources struct {
	s *Server

	mu   sync.Mutex
	open map[string]crawler.Source // by bucket
	dirs []*crawler.Dir
	own  []*lake.S3
}

// path is crawler.Options.Open.
func (c *crawlSources) path(ctx context.Context, path string) (crawler.Source, string, error) {
	bucket, name, err := lake.ParseForeignLocation(path)
	if err != nil {
		return nil, "", err
	}
	source, err := c.bucket(ctx, bucket)
	return source, name, err
}

func (c *crawlSources) bucket(ctx context.Context, name string) (crawler.Source, error) {
	if name != lakeBucket && (!bucketRE.MatchString(name) || strings.Contains(name, "..")) {
		return nil, fmt.Errorf("%w: the bucket %q: want 3 to 63 of a-z 0-9 . - as S3 has it", lake.ErrName, name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if source := c.open[name]; source != nil {
		return source, nil
	}
	var source crawler.Source
	uri := "s3://" + name + "/"
	switch {
	case c.s.cfg.Lake.URL == "":
		dir := c.s.dir("lake")
		if name != lakeBucket {
			dir = filepath.Join(c.s.dir("buckets"), name)
		}
		d, err := crawler.OpenDir(dir, uri)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no bucket %s: make the directory %s, or deliver into it", name, dir)
		}
		if err != nil {
			return nil, err
		}
		c.dirs = append(c.dirs, d)
		source = d
		if name == lakeBucket {
			source = lakeDir{d}
		}
	case name == lakeBucket:
		source = s3Source{c.s.cache.S3, uri, true}
	default:
		store, err := lake.OpenS3(ctx, c.s.s3Options(name, ""))
		if err != nil {
			return nil, err
		}
		c.own = append(c.own, store)
		source = s3Source{store, uri, false}
	}
	c.open[name] = source
	return source, nil
}

func (c *crawlSources) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, d := range c.dirs {
		errs = append(errs, d.Close())
	}
	for _, s := range c.own {
		s.Shut()
	}
	return errors.Join(errs...)
}

// lakeDir is the lake's directory without the managed tables.
type lakeDir struct{ *crawler.Dir }

// List implements crawler.Source.
func (l lakeDir) List(ctx context.Context, prefix string, fn func(crawler.Object) error) error {
	return l.Dir.List(ctx, prefix, func(o crawler.Object) error {
		if catalog.InTableDirectory(o.Name) {
			return nil
		}
		return fn(o)
	})
}

// s3Source is a bucket on S3.
type s3Source struct {
	store lake.Foreign
	uri   string
	lake  bool
}

// List implements crawler.Source. S3 lists in the byte order of keys.
func (s s3Source) List(ctx context.Context, prefix string, fn func(crawler.Object) error) error {
	return s.store.ListFiles(ctx, prefix, func(f lake.ForeignFile) error {
		if !strings.HasPrefix(f.Name, prefix) || s.lake && catalog.InTableDirectory(f.Name) {
			return nil
		}
		return fn(crawler.Object{Name: f.Name, SizeBytes: f.SizeBytes, ModifiedAt: f.ModifiedAt, ETag: f.Version})
	})
}

// Open implements crawler.Source.
func (s s3Source) Open(ctx context.Context, name string) (crawler.Reader, error) {
	var found *lake.ForeignFile
	stop := errors.New("seen")
	err := s.store.ListFiles(ctx, name, func(f lake.ForeignFile) error {
		if f.Name == name {
			found = &f
			return stop
		}
		return nil
	})
	switch {
	case err != nil && !errors.Is(err, stop):
		return nil, err
	case found == nil:
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return s.store.OpenFile(ctx, *found)
}

// URI implements crawler.Source.
func (s s3Source) URI(name string) string { return s.uri + name }

// Crawl implements console.Backend.
func (s closeBackend) Crawl(ctx context.Context, q console.CrawlRequest) (console.Crawl, error) {
	if s.crawler == nil {
		return console.Crawl{}, console.Errorf(console.CodeUnavailable, "%v", errCrawlersElsewhere)
	}
	d := crawler.Definition{Name: q.Name, Database: q.Database, TablePrefix: q.TablePrefix, Targets: []crawler.Target{{Path: q.Path, Exclusions: q.Exclusions}}}
	if q.Watch {
		d.Recrawl = crawler.EventMode
	}
	report := func(r *crawler.Report, err error) (console.Crawl, error) {
		if err != nil {
			return console.Crawl{}, crawlError(err)
		}
		return crawlOf(r), nil
	}
	if q.DryRun {
		return report(s.crawler.Plan(ctx, d))
	}
	err := s.crawler.Create(ctx, d)
	if errors.Is(err, crawler.ErrExists) {
		err = s.crawler.Update(ctx, d)
	}
	if err != nil {
		return console.Crawl{}, crawlError(err)
	}
	return report(s.crawler.Run(ctx, d.Name))
}

func crawlError(err error) error {
	switch {
	case errors.Is(err, crawler.ErrInvalid), errors.Is(err, lake.ErrName):
		return console.Errorf(console.CodeInvalid, "%v", err)
	case errors.Is(err, crawler.ErrRunning), errors.Is(err, crawler.ErrStopping):
		return console.Errorf(console.CodeConflict, "%v", err)
	}
	return err
}

func crawlOf(r *crawler.Report) console.Crawl {
	out := console.Crawl{Crawler: r.Crawler, CrawlID: r.CrawlID, Database: r.Database, DryRun: r.DryRun, Objects: r.Totals.Objects, Bytes: r.Totals.Bytes,
		Examined: r.Totals.Examined, Known: r.Totals.Reused, TablesLeft: r.TablesLeft, Notes: r.Notes, Tables: []console.CrawledTable{}, Seconds: r.EndedAt.Sub(r.StartedAt).Round(time.Millisecond).Seconds()}
	for i := range r.Tables {
		t := &r.Tables[i]
		c := console.CrawledTable{Name: t.Name, Location: t.Location, Action: t.Action, Reason: t.Reason, PartitionsAdded: t.PartitionsAdded, PartitionsUpdated: t.PartitionsUpdated,
			PartitionsRemoved: t.PartitionsRemoved, Objects: t.Objects, Bytes: t.Bytes, Rows: t.Rows, Notes: t.Notes}
		for _, column := range t.Columns {
			c.Columns = append(c.Columns, fmt.Sprint(column))
		}
		out.Tables = append(out.Tables, c)
	}
	for _, k := range r.Skipped {
		out.Skipped = append(out.Skipped, console.CrawlSkip{Reason: k.Reason, Count: k.Count, Examples: k.Examples})
	}
	return out
}
