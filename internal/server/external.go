package server

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/tapehouse/tapehouse/internal/external"
	"github.com/tapehouse/tapehouse/internal/lake"
)

// openExternal makes what reads the files of external tables.
func (s *Server) openExternal(context.Context) error {
	b := &foreignBuckets{s: s, open: map[string]lake.Foreign{}}
	s.onClose(func(context.Context) error { return b.close() })
	var err error
	s.external, err = external.Open(external.Options{Catalog: s.catalog, Bucket: b.bucket, Dir: s.dir("external"), StageBytesMax: int64(s.cfg.External.Staging), Logger: s.logger, Registerer: s.metrics})
	return err
}

// foreignBuckets are the buckets as others' files in them are read: nothing is
// written to them, and so nothing but reading must be allowed.
type foreignBuckets struct {
	s *Server

	mu   sync.Mutex
	open map[string]lake.Foreign
}

func (b *foreignBuckets) bucket(ctx context.Context, name string) (lake.Foreign, error) {
	if name != lakeBucket && (!bucketRE.MatchString(name) || strings.Contains(name, "..")) {
		return nil, fmt.Errorf("%w: the bucket %q: want 3 to 63 of a-z 0-9 . - as S3 has it", lake.ErrName, name)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.open[name]; f != nil {
		return f, nil
	}
	var f lake.Foreign
	switch {
	case b.s.cfg.Lake.URL == "" && name == lakeBucket:
		f = lake.OpenLocalForeign(b.s.dir("lake"))
	case b.s.cfg.Lake.URL == "":
		f = lake.OpenLocalForeign(filepath.Join(b.s.dir("buckets"), name))
	case name == lakeBucket:
		f = b.s.cache.S3
	default:
		store, err := lake.OpenS3(ctx, b.s.s3Options(name, ""))
		if err != nil {
			return nil, err
		}
		f = store
	}
	b.open[name] = f
	return f, nil
}

func (b *foreignBuckets) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, f := range b.open {
		switch f := f.(type) {
		case *lake.LocalForeign:
			if err := f.Close(); err != nil {
				return err
			}
		case *lake.S3:
			if name != lakeBucket { // else it is others', too
				f.Shut()
			}
		}
	}
	return nil
}
