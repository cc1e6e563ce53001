package server

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/icebergrest"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/market"
	"github.com/tapehouse/tapehouse/internal/view"
)

// openIceberg makes the Iceberg REST catalog.
func (s *Server) openIceberg(verifier *auth.Verifier) (http.Handler, error) {
	files, err := s.lakeClientConfig()
	if err != nil {
		return nil, err
	}
	return icebergrest.New(icebergrest.Options{Catalog: s.catalog, Verifier: verifier, Tokens: auth.NewTokens(s.credentials, nil),
		Guard: s.guard(), Files: files, AccountID: accountID, Logger: s.logger, Registerer: s.metrics})
}

// beside serves the Iceberg REST catalog on the port of the AWS APIs, all of
// which are at its root.
func beside(aws, iceberg http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := r.URL.Path; p == icebergrest.Mount || strings.HasPrefix(p, icebergrest.Mount+"/") {
			iceberg.ServeHTTP(w, r)
			return
		}
		aws.ServeHTTP(w, r)
	})
}

// guard says what clients of the catalog must leave alone.
func (s *Server) guard() catalog.Guard {
	return catalog.Guard{
		Stream: func(n catalog.Name) (string, error) { return s.unfed(n, func() error { return nil }) },
		Kept: func(t *catalog.Table) string {
			if v := t.Properties[view.PropertyView]; v != "" {
				return "it is the state of materialized view " + v
			}
			return ""
		},
		Sealed: market.OwnTag,
		Needed: func(ctx context.Context, n catalog.Name) ([]int64, error) {
			needs, err := s.viewsNeed(ctx)
			return needs[n], err
		},
		Pinned:  s.engine.Pinned,
		Release: s.release,
	}
}

// release lets a table be dropped or renamed when no view reads it and no stream
// has fed it, as SQL's DROP TABLE does.
func (s *Server) release(ctx context.Context, name catalog.Name, fn func() error) error {
	views, err := s.views.List(ctx)
	if err != nil {
		return err
	}
	for _, v := range views {
		if slices.Contains(v.Tables, name) {
			return fmt.Errorf("%w: table %s: materialized view %s depends on it: drop that first", catalog.ErrProtected, name, v.Name)
		}
	}
	t, err := s.catalog.Load(ctx, name)
	if err != nil {
		return err
	}
	if len(t.Through()) > 0 {
		return fmt.Errorf("%w: table %s: a delivery stream has fed it: it is kept as the record of what was delivered", catalog.ErrProtected, name)
	}
	stream, err := s.unfed(name, fn)
	if stream != "" {
		return fmt.Errorf("%w: table %s: delivery stream %s feeds it: delete the stream first", catalog.ErrProtected, name, stream)
	}
	return err
}

// lakeClientConfig is how the catalog's clients reach the lake's files: nothing
// for a local lake, whose locations say it, and the service for one on S3. Keys
// are never part of it.
func (s *Server) lakeClientConfig() (map[string]string, error) {
	c := s.cfg.Lake
	if c.URL == "" {
		return nil, nil
	}
	bucket, prefix, err := lake.ParseS3URL(c.URL)
	if err != nil {
		return nil, fmt.Errorf("lake.url: %w", err)
	}
	o := s.s3Options(bucket, prefix)
	out := map[string]string{"s3.region": o.Region, "client.region": o.Region, "s3.path-style-access": strconv.FormatBool(o.PathStyle),
		"s3.force-virtual-addressing": strconv.FormatBool(!o.PathStyle)} // PyIceberg's name for it
	if o.Endpoint != "" {
		out["s3.endpoint"] = o.Endpoint
	}
	return out, nil
}
