package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
)

// Temporary tables live in DuckDB's memory, within its limits, on the
// session's own connection, which no other session can see. They are named
// apart from what the user calls them, so that a statement which was rewritten
// for one incarnation cannot meet another.

// tempTablesMax bounds a session's temporary tables.
const tempTablesMax = 256

var tempSerial atomic.Uint64

// ErrExists is returned for a temporary table that is there already.
var ErrExists = errors.New("exists already")

// withOwn runs fn on the session's own connection.
func (s *Session) withOwn(fn func(c *conn) error) error {
	s.mu.Lock()
	switch {
	case s.closed:
		s.mu.Unlock()
		return ErrClosed
	case s.busy:
		s.mu.Unlock()
		return &Error{Kind: Busy, Message: "rows of a query over this session's temporary tables are still open"}
	case s.own == nil:
		c, err := s.e.acquire()
		if err != nil {
			s.mu.Unlock()
			return err
		}
		s.own = c
	}
	s.busy = true
	c := s.own
	s.mu.Unlock()
	defer s.ownDone()
	return fn(c)
}

// CreateTemp makes a temporary table of q's rows and returns how many there
// are. The name's case does not matter.
func (s *Session) CreateTemp(ctx context.Context, name string, q Query) (rows int64, err error) {
	return rows, s.create(name, func(c *conn, unique string) error {
		rows, err = s.run(ctx, c, q, "CREATE TEMPORARY TABLE "+unique+" AS ", "")
		return err
	})
}

// CreateTempColumns makes an empty temporary table.
func (s *Session) CreateTempColumns(ctx context.Context, name string, cols []Column) error {
	defs := make([]string, len(cols))
	for i, col := range cols {
		if col.Type.SQL() == "" {
			return &Error{Kind: Unsupported, Message: fmt.Sprintf("column %q has no type", col.Name)}
		}
		defs[i] = QuoteIdentifier(col.Name) + " " + col.Type.SQL()
	}
	return s.create(name, func(c *conn, unique string) error {
		return c.exec(ctx, "CREATE TEMPORARY TABLE "+unique+" ("+strings.Join(defs, ", ")+")")
	})
}

func (s *Session) create(name string, fn func(c *conn, unique string) error) error {
	key := strings.ToLower(name)
	if _, ok := s.temps[key]; ok {
		return fmt.Errorf("create temporary table %q: %w", name, ErrExists)
	}
	if len(s.temps) >= tempTablesMax {
		return &Error{Kind: Unsupported, Message: fmt.Sprintf("a session has at most %d temporary tables", tempTablesMax)}
	}
	unique := fmt.Sprintf("t_%d", tempSerial.Add(1))
	return s.withOwn(func(c *conn) error {
		if err := fn(c, unique); err != nil {
			return err
		}
		s.temps[key] = unique
		return nil
	})
}

// InsertTemp appends q's rows. columns names the ones that q gives, in order;
// nil means all.
func (s *Session) InsertTemp(ctx context.Context, name string, columns []string, q Query) (rows int64, err error) {
	unique, err := s.temp(name)
	if err != nil {
		return 0, err
	}
	list := ""
	if columns != nil {
		quoted := make([]string, len(columns))
		for i, c := range columns {
			quoted[i] = QuoteIdentifier(c)
		}
		list = " (" + strings.Join(quoted, ", ") + ")"
	}
	return rows, s.withOwn(func(c *conn) error {
		rows, err = s.run(ctx, c, q, "INSERT INTO temp.main."+unique+list+" ", "")
		return err
	})
}

// ReplaceTemp puts q's rows, which may be read from the table itself, in place
// of all rows of the table: the form that UPDATE and DELETE of a temporary
// table take.
func (s *Session) ReplaceTemp(ctx context.Context, name string, q Query) (rows int64, err error) {
	unique, err := s.temp(name)
	if err != nil {
		return 0, err
	}
	next := fmt.Sprintf("t_%d", tempSerial.Add(1))
	return rows, s.withOwn(func(c *conn) error {
		// Made with the old one's column types, so that nothing drifts.
		if err := c.exec(ctx, "CREATE TEMPORARY TABLE "+next+" AS SELECT * FROM temp.main."+unique+" WHERE false"); err != nil {
			return err
		}
		if rows, err = s.run(ctx, c, q, "INSERT INTO temp.main."+next+" ", ""); err != nil {
			return errors.Join(err, c.exec(context.WithoutCancel(ctx), "DROP TABLE temp.main."+next))
		}
		s.temps[strings.ToLower(name)] = next
		return c.exec(context.WithoutCancel(ctx), "DROP TABLE temp.main."+unique)
	})
}

// DropTemp removes a temporary table.
func (s *Session) DropTemp(ctx context.Context, name string) error {
	unique, err := s.temp(name)
	if err != nil {
		return err
	}
	return s.withOwn(func(c *conn) error {
		if err := c.exec(ctx, "DROP TABLE temp.main."+unique); err != nil {
			return err
		}
		delete(s.temps, strings.ToLower(name))
		return nil
	})
}

// HasTemp reports whether the session has a temporary table of that name.
func (s *Session) HasTemp(name string) bool {
	_, ok := s.temps[strings.ToLower(name)]
	return ok
}

func (s *Session) temp(name string) (string, error) {
	unique, ok := s.temps[strings.ToLower(name)]
	if !ok {
		return "", &Error{Kind: Catalog, Message: fmt.Sprintf("temporary table %q does not exist", name)}
	}
	return unique, nil
}

// run executes prefix + q + suffix, where q is checked and bound as a query
// is, and returns the number of rows that DuckDB counts.
func (s *Session) run(ctx context.Context, c *conn, q Query, prefix, suffix string) (int64, error) {
	if q.Pin != nil {
		if err := q.Pin.ref(); err != nil {
			return 0, err
		}
		defer q.Pin.unref()
	}
	narrow, err := s.e.narrowed(ctx, c, q)
	if err != nil {
		return 0, err
	}
	if narrow != nil {
		defer narrow.Release()
		q.Pin = narrow
	}
	b, err := s.e.bindStatement(ctx, c, q, s.temps, s.trusted)
	if err != nil {
		return 0, err
	}
	text := prefix + b.text + suffix
	p, err := c.prepare(ctx, text)
	if err != nil {
		return 0, locate(err, text, q.SQL)
	}
	defer p.close()
	if err := p.bind(q.Args); err != nil {
		return 0, err
	}
	st, err := p.stream(ctx)
	if err != nil {
		return 0, locate(err, text, q.SQL)
	}
	defer st.close()
	row := make([]any, len(st.cols))
	if err := st.next(row); err != nil {
		if errors.Is(err, io.EOF) {
			return 0, narrow.unchanged()
		}
		return 0, locate(err, text, q.SQL)
	}
	n, _ := row[0].(int64)
	if err := st.next(row); !errors.Is(err, io.EOF) {
		return 0, errors.Join(&Error{Kind: Internal, Message: "DuckDB counted twice"}, err)
	}
	return n, narrow.unchanged()
}
