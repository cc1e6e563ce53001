package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/record"
)

// A producer that numbers its records may be overtaken by itself. What comes late
// must not win over a row that carries a later number of the same source: the
// stage finds that out when the record is processed, and logs what it found. Only
// records below the greatest number that their source and session have brought
// are looked up, which are none as long as they come in order.

// Finder is a Destination that finds the rows that stand, its tail included.
type Finder interface {
	// Standing returns the numbers of the rows with one of the keys in a file of
	// keys, such as Delivery.Removals are. tail gives the table's tail from a
	// progress on, or engine.ErrTailMoved.
	Standing(ctx context.Context, keys TailFile, tail TailFrom) ([]Standing, error)
}

// TailFrom is TailSource.Tail of one table.
type TailFrom func(ctx context.Context, through record.Vector) (engine.Tail, error)

// Standing is what a row carries: At is the place of its key in the file of keys.
type Standing struct {
	At int64
	numbered
}

// numbered is a record's number.
type numbered struct {
	feed            session
	Epoch, Sequence int64
}

// session is whom the numbers of a producer are compared within.
type session struct{ source, session string }

// after reports whether n is a later number of the same source and session.
func (n numbered) after(o numbered) bool {
	return n.feed == o.feed && (n.Epoch > o.Epoch || n.Epoch == o.Epoch && n.Sequence > o.Sequence)
}

// NumberedRow is a Standing of the given parts.
func NumberedRow(at int64, source, sessionName string, epoch, sequence int64) Standing {
	return Standing{at, numbered{session{source, sessionName}, epoch, sequence}}
}

// written are the rows that a frame's changes of one table have written so far.
type written map[string][]writtenRow

type writtenRow struct {
	order int32
	numbered
}

// numbersOf are the numbers of a batch's rows.
func numbersOf(b *columnar.Batch) []numbered {
	out := make([]numbered, b.Rows)
	for r := range b.Runs {
		for i := range r.N {
			out[r.Row+i] = numbered{session{r.Source, r.Session}, r.Epoch, r.Sequence + int64(i)}
		}
	}
	return out
}

// greatest is the greatest number of a source and session that was processed.
func (g *stage) greatest(s session) (n numbered, ok bool) {
	if g.latest == nil {
		g.latest = map[session]numbered{}
		accounts, _ := g.m.o.Ledger.Accounts()
		for i := range accounts {
			a := &accounts[i]
			if seen := a.Seen; len(seen) > 0 {
				g.reach(numbered{session{a.Source, a.Session}, a.Epoch, seen[len(seen)-1].Hi - 1})
			}
		}
	}
	n, ok = g.latest[s]
	return n, ok
}

func (g *stage) reach(n numbered) {
	if have, ok := g.latest[n.feed]; !ok || n.after(have) {
		g.latest[n.feed] = n
	}
}

// supersede makes nothing of the updates and deletes of a part that come late.
// b holds the part's documents; rows are what the frame has written before.
func (g *stage) supersede(ctx context.Context, t *routed, b *columnar.Batch, rows written) error {
	numbers := numbersOf(b)
	keys := t.lane.layouts.keysOf(b.Layout()).keys
	var suspects []int32
	var buf []byte
	for row := range b.Rows {
		n, c := numbers[row], &t.changes[b.Doc[row]]
		if latest, ok := g.greatest(n.feed); ok && latest.after(n) && c.op.removes() {
			suspects = append(suspects, int32(row))
		}
		g.reach(n)
		key, ok := keys.Append(buf[:0], b, row)
		buf = key
		if ok && (c.op == opInsert || c.op == opUpdate) {
			rows[string(key)] = append(rows[string(key)], writtenRow{c.order, n})
		}
	}
	if len(suspects) == 0 {
		return nil
	}
	standing, err := g.standing(ctx, t, b, suspects)
	if err != nil {
		return fmt.Errorf("look up rows of %s: %w", t.lane.table, err)
	}
	for _, s := range standing {
		if row := suspects[s.At]; s.after(numbers[row]) {
			t.changes[b.Doc[row]].op = opNothing
		}
	}
	for _, row := range suspects {
		key, _ := keys.Append(buf[:0], b, int(row))
		c := &t.changes[b.Doc[row]]
		for _, w := range rows[string(key)] {
			if w.order < c.order && w.after(numbers[row]) {
				c.op = opNothing
			}
		}
	}
	return nil
}

// standing finds the rows with the keys of some of a batch's rows.
func (g *stage) standing(ctx context.Context, t *routed, b *columnar.Batch, rows []int32) ([]Standing, error) {
	finder, ok := t.lane.dest.(Finder)
	if !ok {
		return nil, errors.New("its destination cannot find rows")
	}
	if _, err := t.lane.ask(ctx, askVisible); err != nil { // what was processed before counts
		return nil, err
	}
	file := t.lane.layouts.keysOf(b.Layout()).file
	keys, builder := b.Project(file, rows), file.NewBuilder()
	builder.Append(keys)
	keys.Release()
	parts, err := builder.Flush()
	if err != nil {
		return nil, fmt.Errorf("encode keys: %w", err)
	}
	g.lookups++ // a name is never used twice: DuckDB keeps footers by name
	f := TailFile{Path: filepath.Join(g.m.tailDir(), fmt.Sprintf("%s-%d-%d-late.parquet", g.in.Incarnation, t.lane.ordinal, g.lookups)), Meta: parts[0].Meta}
	if err := g.m.writeTail(f.Path, parts[0].Data); err != nil {
		return nil, err
	}
	defer func() { _ = g.m.o.FS.Remove(f.Path) }() // one that stays is swept at the next start
	return finder.Standing(ctx, f, func(ctx context.Context, through record.Vector) (engine.Tail, error) {
		return g.m.Tail(ctx, engine.Name(t.lane.table), through, false)
	})
}

// lateKeys is the relation of a file of keys.
var lateKeys = engine.Name{Namespace: "flush", Table: "keys"}

// standingTriesMax bounds how often a table is loaded again because a commit has
// overtaken the look at its tail.
const standingTriesMax = 8

// Standing implements Finder.
func (d *Iceberg) Standing(ctx context.Context, keys TailFile, tail TailFrom) (out []Standing, err error) {
	var t *catalog.Table
	var above engine.Tail
	for try := 1; ; try++ {
		if t, err = d.Catalog.Load(ctx, d.Table); err != nil {
			return nil, err
		}
		if above, err = tail(ctx, t.Through()); err == nil {
			break
		}
		if !errors.Is(err, engine.ErrTailMoved) || try == standingTriesMax {
			return nil, err
		}
	}
	if above.Release != nil {
		defer above.Release()
	}
	files, err := d.Catalog.Files(ctx, t, catalog.At{})
	if err != nil {
		return nil, err
	}
	name := engine.Name(d.Table)
	table := engine.Relation{Schema: t.Schema, Keys: above.Keys, Removals: above.Removals}
	file := engine.Relation{Positions: true, Files: []engine.File{{Path: keys.Path, Rows: keys.Meta.Rows, SchemaID: keys.Meta.SchemaID}}}
	for _, k := range d.Keys {
		file.Schema.Fields = append(file.Schema.Fields, t.Schema.Fields[t.Schema.Index(k)])
	}
	for _, f := range candidates(files, []TailFile{keys}, file.Schema) {
		table.Files = append(table.Files, engineFile(f))
	}
	for _, f := range above.Files {
		table.Files = append(table.Files, engine.File{Path: f.Path, Rows: f.Rows, SchemaID: f.SchemaID, Order: f.Order})
	}
	both := engine.NewPin(map[engine.Name]engine.Relation{name: table, lateKeys: file})
	defer both.Release()
	column := func(c, none string) string {
		if c == "" {
			return none
		}
		return "t." + engine.QuoteIdentifier(c)
	}
	s := t.Sequence
	sql := fmt.Sprintf(`SELECT k.%s, %s, %s, %s, %s FROM %s.%s AS t JOIN "flush"."keys" AS k ON %s`, engine.QuoteIdentifier(engine.PositionRow),
		column(s.Source, "''"), column(s.Session, "''"), column(s.Epoch, "CAST(0 AS BIGINT)"), column(s.Sequence, ""),
		engine.QuoteIdentifier(name.Namespace), engine.QuoteIdentifier(name.Table), sameKey(d.Keys, "t", "k"))
	return out, d.query(ctx, engine.Query{SQL: sql, Pin: both}, 5, func(row []any) error {
		at, ok := row[0].(int64)
		source, ok1 := row[1].(string)
		session, ok2 := row[2].(string)
		epoch, ok3 := row[3].(int64)
		sequence, ok4 := row[4].(int64)
		if !ok || !ok1 || !ok2 || !ok3 || !ok4 {
			return fmt.Errorf("a row's numbers are of the types %T, %T, %T, %T, %T", row[0], row[1], row[2], row[3], row[4])
		}
		out = append(out, NumberedRow(at, source, session, epoch, sequence))
		return nil
	})
}

// query calls fn with each row of a query's columns.
func (d *Iceberg) query(ctx context.Context, q engine.Query, columns int, fn func(row []any) error) (err error) {
	s, err := d.Engine.InternalSession(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	rows, err := s.Query(ctx, q)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	row := make([]any, columns)
	for {
		err := rows.Next(row)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = fn(row)
		}
		if err != nil {
			return err
		}
	}
}

// sameKey is the condition that two relations have the same key in a row.
func sameKey(keys []string, a, b string) string {
	out := ""
	for i, k := range keys {
		if i > 0 {
			out += " AND "
		}
		q := engine.QuoteIdentifier(k)
		out += a + "." + q + " = " + b + "." + q
	}
	return out
}
