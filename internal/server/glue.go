package server

import (
	"context"
	"slices"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/glue"
	"github.com/tapehouse/tapehouse/internal/view"
)

// glue is the front door of the Data Catalog's API.
func (s *Server) glue() *glue.Handler {
	return glue.New(glue.Options{Catalog: s.catalog, Crawlers: s.crawler, Guard: guard{s}, Region: s.cfg.Region, AccountID: accountID, Logger: s.logger})
}

// guard keeps tables that streams feed, views read, or trade dates are sealed in.
type guard struct{ s *Server }

// Hidden implements glue.Guard.
func (g guard) Hidden(t *catalog.Table) bool { return t.Properties[view.PropertyView] != "" }

// NeededDatabase implements glue.Guard.
func (g guard) NeededDatabase(ctx context.Context, database string) error {
	views, err := g.s.views.List(ctx)
	for _, v := range views {
		if v.Name.Namespace == database {
			return &glue.NeededError{Table: catalog.Name{Namespace: database}, Reason: "the materialized view " + v.Name.String() + " is in it: DROP MATERIALIZED VIEW in SQL first"}
		}
	}
	return err
}

// Needed implements glue.Guard.
func (g guard) Needed(ctx context.Context, table catalog.Name) error {
	return g.drop(ctx, table, func() error { return nil })
}

// Drop implements glue.Guard.
func (g guard) Drop(ctx context.Context, table catalog.Name) error {
	return g.drop(ctx, table, func() error { return g.s.catalog.DropTable(ctx, table) })
}

func (g guard) drop(ctx context.Context, table catalog.Name, drop func() error) error {
	needed := func(reason string) error { return &glue.NeededError{Table: table, Reason: reason} }
	views, err := g.s.views.List(ctx)
	if err != nil {
		return err
	}
	for _, v := range views {
		if slices.Contains(v.Tables, table) {
			return needed("the materialized view " + v.Name.String() + " reads it: DROP MATERIALIZED VIEW in SQL first")
		}
	}
	t, err := g.s.catalog.Load(ctx, table)
	switch {
	case err != nil:
		return err
	case g.Hidden(t):
		return needed("it is the state of the materialized view " + t.Properties[view.PropertyView] + ": DROP MATERIALIZED VIEW in SQL")
	case len(t.Tags()) > 0:
		return needed("trade dates are sealed in it")
	case len(t.Through()) > 0:
		return needed("a delivery stream has fed it, and it is the record of what was delivered")
	}
	// A stream that has delivered nothing yet may hold acknowledged records.
	stream, err := g.s.unfed(table, drop)
	if stream != "" {
		return needed("the delivery stream " + stream + " feeds it: delete the stream first")
	}
	return err
}
