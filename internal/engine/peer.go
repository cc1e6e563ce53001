package engine

import (
	"context"
	"fmt"

	bindings "github.com/duckdb/duckdb-go-bindings"
)

// Peer is a DuckDB of its own, outside the sandbox and with DuckDB's own
// defaults, that benchmarks hold Tapehouse against and check its files with. It
// runs any statement and must never see a user's text. It is for one goroutine
// at a time.
type Peer struct {
	db bindings.Database
	c  *conn
}

// OpenPeer starts an in-memory DuckDB with so many threads.
func OpenPeer(ctx context.Context, threads int) (*Peer, error) {
	p := &Peer{}
	var config bindings.Config
	if bindings.CreateConfig(&config) == bindings.StateError {
		return nil, fmt.Errorf("open peer: DuckDB gave no configuration")
	}
	defer bindings.DestroyConfig(&config)
	var msg string
	if bindings.OpenExt(":memory:", &p.db, config, &msg) == bindings.StateError {
		bindings.Close(&p.db)
		return nil, fmt.Errorf("open peer: %s", msg)
	}
	var err error
	if p.c, err = connect(p.db); err == nil {
		err = p.c.exec(ctx, fmt.Sprintf("SET GLOBAL threads = %d", threads))
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("open peer: %w", err)
	}
	return p, nil
}

// Exec runs statements for their effect.
func (p *Peer) Exec(ctx context.Context, sql string) error { return p.c.exec(ctx, sql) }

// Strings runs a query of one VARCHAR column and returns its rows.
func (p *Peer) Strings(ctx context.Context, sql string) ([]string, error) {
	return p.c.strings(ctx, sql)
}

// Close stops the instance.
func (p *Peer) Close() {
	if p.c != nil {
		p.c.close()
	}
	bindings.Close(&p.db)
}
