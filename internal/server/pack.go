package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/delivery"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/firehose"
	"github.com/tapehouse/tapehouse/internal/warehouse"
	"github.com/tapehouse/tapehouse/packs"
)

// kindPack is the document that says which pack is installed.
const kindPack = "pack"

// installedPack is its body.
type installedPack struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Hash    string `json:"hash"`
}

// loadPack reads the embedded pack or the one in dir.
func loadPack(dir string) (*packs.Pack, error) {
	if dir == "" {
		return packs.Load(packs.Equities())
	}
	p, err := packs.Load(os.DirFS(dir))
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", dir, err)
	}
	return p, nil
}

// installation is the lease of what a server does before it is ready.
const (
	installation      = "installation"
	installationLease = 2 * time.Minute
	installationPoll  = 200 * time.Millisecond
)

// leaseInstallation waits until no other server installs.
func (s *Server) leaseInstallation(ctx context.Context) error {
	for waited := false; ; waited = true {
		ours, err := s.catalog.Lease(ctx, installation, installationLease)
		if err != nil {
			return fmt.Errorf("wait for the other servers' installation: %w", err)
		}
		if ours {
			return nil
		}
		if !waited {
			s.logger.Info("another server on this catalog is installing; waiting for it", "at_most", installationLease)
		}
		select {
		case <-time.After(installationPoll):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// installPack creates what the pack declares and is not there yet: tables,
// streams, reference data, views. Each step looks first, so that an
// installation that was cut off goes on where it stopped.
func (s *Server) installPack(ctx context.Context) error {
	p := s.pack
	doc, err := s.catalog.GetDocument(ctx, s.own(kindPack), p.Name)
	switch {
	case err == nil:
		var have installedPack
		if err := json.Unmarshal(doc.Body, &have); err != nil {
			return fmt.Errorf("pack %s: read what is installed: %w", p.Name, err)
		}
		if have.Hash == p.Hash {
			return nil
		}
	case !errors.Is(err, catalog.ErrNotFound):
		return fmt.Errorf("pack %s: %w", p.Name, err)
	}
	for i := range p.Streams {
		if err := s.installStream(ctx, &p.Streams[i]); err != nil {
			return fmt.Errorf("pack %s: stream %s: %w", p.Name, p.Streams[i].Name, err)
		}
	}
	session, err := s.warehouse.NewSession(ctx, warehouse.SessionOptions{User: adminUser})
	if err != nil {
		return fmt.Errorf("pack %s: %w", p.Name, err)
	}
	defer session.Close() //nolint:errcheck // nothing is left to lose
	for i := range p.References {
		if err := s.installReference(ctx, session, &p.References[i]); err != nil {
			return fmt.Errorf("pack %s: reference table %s: %w", p.Name, p.References[i].Table, err)
		}
	}
	if err := s.installViews(ctx, session); err != nil {
		return fmt.Errorf("pack %s: %w", p.Name, err)
	}
	body, err := json.Marshal(installedPack{p.Name, p.Version, p.Hash})
	if err != nil {
		return err
	}
	if _, err := s.catalog.PutDocument(ctx, catalog.DocumentWrite{Kind: s.own(kindPack), Key: p.Name, IfVersion: catalog.AnyVersion, Body: body}); err != nil {
		return fmt.Errorf("pack %s: %w", p.Name, err)
	}
	s.logger.Info("pack installed", "pack", p.Name, "version", p.Version)
	return nil
}

func (s *Server) installStream(ctx context.Context, st *packs.Stream) error {
	name := catalog.Name{Namespace: s.pack.Namespace, Table: st.Table}
	_, err := s.catalog.CreateTable(ctx, catalog.TableSpec{Name: name, Fields: st.Schema.Fields, Sequence: st.Sequence, PartitionBy: st.Partition,
		Properties: map[string]string{"comment": st.Comment}})
	if err != nil && !errors.Is(err, catalog.ErrExists) {
		return err
	}
	size, seconds := int32(st.BufferSizeMiB), int32(st.BufferInterval.Seconds())
	api, err := json.Marshal(firehose.StreamConfig{Name: st.Name, Iceberg: &firehose.IcebergDestination{
		Tables:         []firehose.DestinationTable{{Table: st.Table, Database: s.pack.Namespace}},
		BufferingHints: &firehose.BufferingHints{SizeInMBs: &size, IntervalInSeconds: &seconds},
	}})
	if err != nil {
		return err
	}
	_, err = s.delivery.Create(ctx, delivery.Config{Name: st.Name, Namespace: s.pack.Namespace, Table: st.Table,
		SizeBytes: int64(st.BufferSizeMiB) << 20, Interval: st.BufferInterval, API: api})
	if err != nil && !errors.Is(err, delivery.ErrExists) {
		return err
	}
	return nil
}

// installReference creates and fills a reference table. Rows and table come in
// one commit's distance: a table without a snapshot is filled again.
func (s *Server) installReference(ctx context.Context, session *warehouse.Session, r *packs.Reference) error {
	name := catalog.Name{Namespace: s.pack.Namespace, Table: r.Table}
	t, err := s.catalog.Load(ctx, name)
	if errors.Is(err, catalog.ErrNotFound) {
		t, err = s.catalog.CreateTable(ctx, catalog.TableSpec{Name: name, Fields: r.Schema.Fields, Properties: map[string]string{"comment": r.Comment}})
	}
	if err != nil {
		return err
	}
	if t.Snapshot() != 0 || len(r.Rows) == 0 {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "INSERT INTO %s.%s VALUES ", engine.QuoteIdentifier(name.Namespace), engine.QuoteIdentifier(name.Table))
	for i, row := range r.Rows {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteByte('(')
		for k, cell := range row {
			if k > 0 {
				b.WriteString(", ")
			}
			if cell == "" {
				b.WriteString("NULL")
			} else {
				fmt.Fprintf(&b, "CAST(%s AS %s)", engine.QuoteLiteral(cell), engine.TypeOf(r.Schema.Fields[k].Type).SQL())
			}
		}
		b.WriteByte(')')
	}
	return execute(ctx, session, b.String())
}

func (s *Server) installViews(ctx context.Context, session *warehouse.Session) error {
	have, err := s.views.List(ctx)
	if err != nil {
		return err
	}
	statements, err := warehouse.Split(s.pack.Views)
	if err != nil {
		return fmt.Errorf("views: %w", err)
	}
next:
	for _, sql := range statements {
		for _, v := range have {
			if strings.Contains(sql, "MATERIALIZED VIEW "+v.Name.String()+" ") {
				continue next
			}
		}
		if err := execute(ctx, session, sql); err != nil {
			return fmt.Errorf("views: %w", err)
		}
	}
	return nil
}

// execute runs one statement in a transaction of its own.
func execute(ctx context.Context, session *warehouse.Session, sql string) error {
	st, err := session.Prepare(ctx, sql, nil)
	if err != nil {
		return err
	}
	r, err := session.Execute(ctx, st, nil)
	if err == nil {
		err = r.Close()
	}
	if serr := session.SyncPoint(ctx, err == nil); err == nil {
		err = serr
	}
	return err
}
