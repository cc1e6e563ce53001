package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
)

const (
	// lakeStartWait bounds how long a start waits for S3, or for PostgreSQL, to answer.
	lakeStartWait = time.Minute
	// Uploads that were begun so long ago and not completed are a crash's; the
	// longest upload takes minutes.
	leftoverAge      = 24 * time.Hour
	leftoverInterval = 6 * time.Hour
)

// openLake opens the store of tables: the data directory's own, or S3.
func (s *Server) openLake(ctx context.Context) error {
	c := s.cfg.Lake
	if c.URL == "" && s.cfg.Catalog != "" { // which knows where its tables are
		local, err := lake.OpenLocal(fsys.OS, s.dir("lake"))
		s.lake = local
		return err
	}
	if c.URL == "" {
		bound, err := readBinding(fsys.OS, s.dir("LAKE"))
		if err != nil {
			return err
		}
		switch used, err := s.hasTables(); {
		case err != nil:
			return err
		case used && bound.url != "":
			return boundElsewhere(bound.url, "its directory lake/ (lake.url is empty)")
		}
		local, err := lake.OpenLocal(fsys.OS, s.dir("lake"))
		s.lake = local
		return err
	}
	bucket, prefix, err := lake.ParseS3URL(c.URL)
	if err != nil {
		return fmt.Errorf("lake.url: %w", err)
	}
	o := s.s3Options(bucket, prefix)
	o.Registerer = s.metrics
	store, err := lake.OpenS3(ctx, o)
	if err != nil {
		return err
	}
	s.onClose(func(context.Context) error { store.Shut(); return nil }) // last
	start, cancel := context.WithTimeout(ctx, lakeStartWait)
	defer cancel()
	if err := store.Check(start); err != nil {
		return fmt.Errorf("%w; see the keys of lake: in the configuration", err)
	}
	s.s3 = store
	if s.cfg.Catalog == "" {
		if err := s.bindLake(start, store, strings.TrimSuffix(store.URI(""), "/")); err != nil {
			return err
		}
	}
	s.cache, err = lake.OpenCache(store, lake.CacheOptions{Dir: s.dir("cache"), SizeBytesMax: int64(c.Cache), Registerer: s.metrics})
	if err != nil {
		return err
	}
	s.lake = s.cache
	s.sweepUploads(store)
	s.logger.Info("lake opened", "url", c.URL, "endpoint", c.Endpoint, "cache_bytes", int64(c.Cache))
	return nil
}

// s3Options are those of a bucket where the lake is.
func (s *Server) s3Options(bucket, prefix string) lake.S3Options {
	c := s.cfg.Lake
	region := c.Region
	if region == "" {
		region = s.cfg.Region
	}
	return lake.S3Options{Bucket: bucket, Prefix: prefix, Region: region, Endpoint: c.Endpoint, PathStyle: c.PathStyle,
		AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, Attempts: c.Attempts, AttemptTimeout: time.Duration(c.AttemptTimeout),
		PartBytes: int64(c.Part), TransfersMax: c.Transfers, Logger: s.logger}
}

// binding is what the file LAKE says: where this directory's tables lie, and
// under which name it owns that place.
type binding struct{ url, owner string }

func (b binding) String() string { return "tapehouse lake 1\n" + b.url + "\n" + b.owner + "\n" }

// readBinding returns the zero binding for a directory without the file, whose
// tables lie in it.
func readBinding(disk fsys.FS, name string) (binding, error) {
	b, err := fsys.ReadFile(disk, name)
	if errors.Is(err, fs.ErrNotExist) {
		return binding{}, nil
	}
	if err != nil {
		return binding{}, fmt.Errorf("read where the lake is: %w", err)
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) != 4 || lines[0] != "tapehouse lake 1" || lines[3] != "" {
		return binding{}, fmt.Errorf("%s holds %q: run the program that wrote it", name, b)
	}
	return binding{lines[1], lines[2]}, nil
}

func boundElsewhere(at, configured string) error {
	if at == "" {
		at = "its directory lake/"
	}
	return fmt.Errorf("the tables of this data directory lie in %s, and the configuration says %s: change lake.url back, or choose another data directory", at, configured)
}

// bindLake makes sure that the directory's tables lie at url and at no other
// place, and that no other directory has that place.
func (s *Server) bindLake(ctx context.Context, store *lake.S3, url string) error {
	bound, err := readBinding(fsys.OS, s.dir("LAKE"))
	if err != nil {
		return err
	}
	if bound.url != url {
		switch used, err := s.hasTables(); {
		case err != nil:
			return err
		case used:
			return boundElsewhere(bound.url, url)
		}
		bound = binding{url, uuid.NewString()}
		if err := fsys.WriteFileAtomic(fsys.OS, s.dir("LAKE"), []byte(bound.String()), 0o600); err != nil {
			return fmt.Errorf("note where the lake is: %w", err)
		}
	}
	return store.Own(ctx, bound.owner)
}

// claimLake takes a lake on S3 for a catalog in PostgreSQL. It is the catalog
// that owns the place, for all servers that share it: another catalog there would
// find its files to be orphans.
func (s *Server) claimLake(ctx context.Context) error {
	if s.cfg.Catalog == "" || s.s3 == nil {
		return nil
	}
	start, cancel := context.WithTimeout(ctx, lakeStartWait)
	defer cancel()
	return s.s3.Own(start, s.catalog.Identity().Catalog)
}

// own is the kind of documents, or the key of one, that are this data directory's
// alone among those of the servers that share the catalog.
func (s *Server) own(name string) string {
	if d := s.catalog.Identity().Directory; d != "" {
		return name + "@" + d
	}
	return name
}

// hasTables reports whether the directory has a catalog, and so tables that lie
// somewhere. Before, its lake can be chosen anew.
func (s *Server) hasTables() (bool, error) {
	_, err := fsys.OS.Stat(s.dir("catalog/catalog.db"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the catalog: %w", err)
	}
	return true, nil
}

// sweepUploads removes what crashes left of uploads, now and from time to time.
func (s *Server) sweepUploads(store *lake.S3) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			switch n, err := store.AbortLeftovers(ctx, leftoverAge); {
			case ctx.Err() != nil:
				return
			case err != nil:
				s.logger.Warn("unfinished uploads were not swept", "error", err)
			case n > 0:
				s.logger.Info("unfinished uploads swept", "uploads", n)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(leftoverInterval):
			}
		}
	}()
	s.onClose(func(context.Context) error {
		cancel()
		<-done
		return nil
	})
}

// files gives the engine the local copies of a lake on S3.
func (s *Server) files() engine.Files {
	if s.cache == nil {
		return nil
	}
	return localCopies{s.cache}
}

type localCopies struct{ *lake.Cache }

// Hold implements engine.Files.
func (c localCopies) Hold(ctx context.Context, paths []string) (func(), error) {
	release, err := c.Cache.Hold(ctx, paths)
	if errors.Is(err, lake.ErrCacheFull) {
		return nil, &engine.Error{Kind: engine.OutOfMemory, Message: err.Error() + " (lake.cache)"}
	}
	return release, err
}
