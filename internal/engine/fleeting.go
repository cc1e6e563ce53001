package engine

import (
	"context"
	"fmt"
)

// Connections for files that are soon gone. DuckDB keeps the footer of each file
// that a statement opened, which spares 5 ms for a data file of 200 row groups;
// but a tail's newest files are opened once or twice, and their footers, 30 KB
// each, would fill the memory limit; so would those of data files that a view's
// refresh or a compaction reads once. Whether footers are kept is a connection's
// setting, and none can be set once the instance is locked: so a few connections
// are made before.

const (
	fleetingConns = 8
	// lockSettings is the last setting.
	lockSettings = "SET GLOBAL lock_configuration = true"
)

func (e *Engine) openFleeting(ctx context.Context) error {
	e.fleeting = make(chan *conn, fleetingConns)
	for range fleetingConns {
		c, err := connect(e.db)
		if err != nil {
			e.closeFleeting()
			return err
		}
		e.fleeting <- c
		if err := c.exec(ctx, "SET SESSION parquet_metadata_cache = false"); err != nil {
			e.closeFleeting()
			return fmt.Errorf("prepare a connection: %w", err)
		}
	}
	return nil
}

// closeFleeting closes them; none is in use.
func (e *Engine) closeFleeting() {
	for {
		select {
		case c := <-e.fleeting:
			c.close()
		default:
			return
		}
	}
}

// swap returns the connection to run a statement on instead of c, one that keeps
// no footers if fleeting, and what gives it back. c is the caller's still.
func (e *Engine) swap(c *conn, fleeting bool) (*conn, func()) {
	if !fleeting {
		return c, func() {}
	}
	select {
	case f := <-e.fleeting:
		return f, func() {
			if err := f.settle(); err != nil {
				e.log.Warn("connection was not settled", "error", err)
				f.close()
				return
			}
			e.fleeting <- f
		}
	default:
		return c, func() {}
	}
}

// fleeting reports whether p has files, and all of them are soon gone.
func (p *Pin) fleeting() bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	files := 0
	for _, t := range p.tables {
		for i := range t.relation.Files {
			if !t.relation.Files[i].Fleeting {
				return false
			}
			files++
		}
	}
	return files > 0
}
