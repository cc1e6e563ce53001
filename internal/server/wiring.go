package server

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/maintain"
	"github.com/tapehouse/tapehouse/internal/market"
	"github.com/tapehouse/tapehouse/internal/view"
	"github.com/tapehouse/tapehouse/internal/warehouse"
)

// maintenanceLease is how long the server that maintains a shared catalog may be
// silent before another one takes over.
const maintenanceLease = 10 * time.Minute

// openViews opens the materialized views and the maintenance that must know
// what they still need.
func (s *Server) openViews(ctx context.Context) error {
	m, err := view.Open(ctx, view.Options{Catalog: s.catalog, Engine: s.engine, Store: s.lake, Staging: s.dir("staging"), Busy: s.delivery.Busy, Shared: s.catalog.Identity().Directory != "", Logger: s.logger, Registerer: s.metrics})
	if err != nil {
		return fmt.Errorf("open views: %w", err)
	}
	s.onClose(func(context.Context) error { return m.Close() })
	s.views, s.viewsNeed = views{m}, m.KeepSnapshots
	c := s.cfg.Maintain
	s.maintainer, err = maintain.New(maintain.Options{Catalog: s.catalog, Engine: s.engine, Store: s.lake, Staging: s.dir("staging"),
		Interval: time.Duration(c.Interval), SnapshotAge: time.Duration(c.SnapshotAge), SnapshotsMin: c.SnapshotsMin, SnapshotsMax: c.SnapshotsMax, Grace: time.Duration(c.Grace),
		Ingested: s.acknowledged, Needs: m.KeepSnapshots, Turn: func(ctx context.Context) (bool, error) { return s.catalog.Lease(ctx, "maintenance", maintenanceLease) },
		Logger: s.logger, Registerer: s.metrics})
	if err != nil {
		return err
	}
	s.maintainer.Start()
	s.onClose(func(context.Context) error { return s.maintainer.Close() })
	return nil
}

// acknowledged is how many records all streams have acknowledged.
func (s *Server) acknowledged() (n int64) {
	for _, st := range s.delivery.Streams() {
		n += int64(st.Stats().Acknowledged)
	}
	return n
}

// openClose opens the close of trade dates and its watch over the deadlines.
func (s *Server) openClose(ctx context.Context) error {
	at, err := time.Parse("15:04", s.cfg.Close.Deadline)
	if err != nil {
		return fmt.Errorf("close.deadline: %w", err)
	}
	cal := s.pack.Calendar
	s.market, err = market.New(market.Options{
		Catalog: s.catalog, Engine: s.engine, Pack: s.pack, Streams: s.delivery, Ledger: s.ledger, Compactor: s.maintainer,
		StatementsDir: s.dir("statements"), Program: s.version, SecondPerson: s.cfg.Close.SecondPerson, Webhook: s.cfg.Close.Webhook,
		Deadline: func(d calendar.TradeDate) time.Time {
			next, ok := cal.Next(d)
			if !ok {
				return time.Time{}
			}
			year, month, day := next.Civil()
			return time.Date(year, month, day, at.Hour(), at.Minute(), 0, 0, cal.Location())
		},
		Logger: s.logger, Registerer: s.metrics,
	})
	if err != nil {
		return fmt.Errorf("open the close: %w", err)
	}
	s.market.Watch()
	s.onClose(func(context.Context) error { return s.market.Close() })
	return nil
}

// openHTTP opens the operators' port.
func (s *Server) openHTTP(l net.Listener, tlsConfig *tls.Config) error {
	handler := console.NewHandler(console.Options{
		Backend: closeBackend{s}, Gatherer: s.metrics, Logger: s.logger,
		Authenticate: s.authenticate,
		Authorize: func(user, operation string) bool {
			u, ok := s.Credentials().User(user)
			return ok && u.Policy.Allows(auth.ServiceConsole, operation, auth.AnyStream)
		},
		Ready: func() error {
			if !s.ready.Load() {
				return errors.New("starting or stopping")
			}
			return nil
		},
	})
	s.serveHTTP("http", l, handler, tlsConfig)
	return nil
}

// authenticate reports whether these are a SQL user's name and password, in the
// same time whoever it is.
func (s *Server) authenticate(user, password string) bool {
	s.credentials.Refresh() // a password that was just changed is in force
	ok := 0
	for _, u := range s.Credentials().Users {
		ok |= subtle.ConstantTimeCompare([]byte(u.Name), []byte(user)) & subtle.ConstantTimeCompare([]byte(u.Password), []byte(password))
	}
	if ok != 1 {
		return false
	}
	s.credentials.UsedBy(user)
	return true
}

// publish writes the file by which clients find the server.
func (s *Server) publish() error {
	e := console.Endpoints{AWS: s.addresses.AWS, SQL: s.addresses.SQL, HTTP: s.addresses.HTTP, TLS: s.cfg.TLS.Cert != "", CertificateSHA256: s.certificateHash,
		Region: s.cfg.Region, Database: warehouse.Database, PID: s.addresses.PID, Version: s.version}
	if err := console.WriteEndpoints(fsys.OS, s.cfg.Data, e); err != nil {
		return err
	}
	s.onClose(func(context.Context) error {
		s.ready.Store(false)
		return console.RemoveEndpoints(fsys.OS, s.cfg.Data)
	})
	return nil
}

// views gives the warehouse the materialized views.
type views struct{ m *view.Manager }

func (v views) Create(ctx context.Context, d warehouse.ViewDefinition) error {
	return viewError(v.m.Create(ctx, view.Definition(d)))
}

func (v views) Refresh(ctx context.Context, name catalog.Name) (string, error) {
	r, err := v.m.Refresh(ctx, name)
	if err != nil {
		return "", viewError(err)
	}
	return r.Notice(name.Table), nil
}

func (v views) Drop(ctx context.Context, name catalog.Name) error {
	return viewError(v.m.Drop(ctx, name))
}

func (v views) List(ctx context.Context) ([]warehouse.View, error) {
	infos, err := v.m.List(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]warehouse.View, len(infos))
	for i, in := range infos {
		out[i] = warehouse.View{ViewDefinition: warehouse.ViewDefinition(in.Definition), Incremental: in.Incremental, Stale: in.Stale}
	}
	return out, nil
}

func (v views) Read(ctx context.Context, name catalog.Name) (*warehouse.ViewRead, error) {
	r, err := v.m.Read(ctx, name)
	if err != nil || r == nil {
		return nil, viewError(err)
	}
	return &warehouse.ViewRead{Query: r.Query, Columns: r.Columns, Tables: r.Tables, Bind: r.Bind}, nil
}

// viewError gives a view's errors the catalog's words, which SQL knows.
func viewError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, view.ErrNotFound):
		return fmt.Errorf("%w: %w", catalog.ErrNotFound, err)
	case errors.Is(err, view.ErrExists):
		return fmt.Errorf("%w: %w", catalog.ErrExists, err)
	case errors.Is(err, view.ErrUnsupported):
		return fmt.Errorf("%w: %w", catalog.ErrUnsupported, err)
	}
	return err
}
