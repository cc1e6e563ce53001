package warehouse

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/external"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
)

// resolver gives the engine the catalog's tables, as the server wires it.
type resolver struct{ c *catalog.Catalog }

func (r resolver) Resolve(ctx context.Context, names []engine.Name, at map[engine.Name]engine.At) ([]engine.Resolved, error) {
	want := make([]catalog.Name, len(names))
	for i, n := range names {
		want[i] = catalog.Name(n)
	}
	tables, err := r.c.LoadAll(ctx, want)
	if err != nil {
		return nil, err
	}
	out := make([]engine.Resolved, len(tables))
	for i, t := range tables {
		files, err := r.c.Files(ctx, t, catalog.At{})
		if err != nil {
			return nil, err
		}
		schema, types := RelationSchema(t)
		res := engine.Resolved{Name: names[i], Relation: engine.Relation{Schema: schema, Types: types}, Snapshot: t.Snapshot(), Through: t.Through()}
		for _, f := range files {
			res.Files = append(res.Files, engine.File{Path: f.Path, Rows: f.Rows, SchemaID: f.SchemaID})
		}
		out[i] = res
	}
	return out, nil
}

// house is a warehouse over a real engine and catalog in a temporary directory.
type house struct {
	w       *Warehouse
	catalog *catalog.Catalog
	engine  *engine.Engine
	dir     string
	buckets *countedBuckets
}

var testNow = time.Date(2026, 11, 23, 14, 30, 0, 0, time.UTC)

func newHouse(t testing.TB) *house {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"lake", "staging", "spill", "meta"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	store, err := lake.OpenLocal(fsys.OS, filepath.Join(dir, "lake"))
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	c, err := catalog.Open(ctx, catalog.Options{Dir: filepath.Join(dir, "meta"), Warehouse: store, Owner: "test"})
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(ctx, engine.Options{Tables: resolver{c}, TempDir: filepath.Join(dir, "spill"), Threads: 2,
		AllowedDirs: []string{filepath.Join(dir, "lake"), filepath.Join(dir, "staging"), filepath.Join(dir, "external")}})
	if err != nil {
		t.Fatal(err)
	}
	buckets := &countedBuckets{dir: dir, open: map[string]*countedBucket{}}
	x, err := external.Open(external.Options{Catalog: c, Bucket: buckets.bucket, Dir: filepath.Join(dir, "external")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	w := New(Options{Engine: e, Catalog: c, Store: store, External: x, Staging: filepath.Join(dir, "staging"), Now: func() time.Time { return testNow }, Version: "test"})
	return &house{w, c, e, dir, buckets}
}

func (h *house) session(t testing.TB) *Session {
	t.Helper()
	s, err := h.w.NewSession(context.Background(), SessionOptions{User: "admin", ProcessID: 42})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// outcome is what a statement answered, as text.
type outcome struct {
	columns []Column
	rows    [][]string
	tag     string
	notices []Notice
}

// run executes one statement as a simple query does.
func run(s *Session, sql string, args ...any) (*outcome, error) {
	ctx := context.Background()
	oids := make([]uint32, len(args))
	for i, a := range args {
		switch a.(type) {
		case int64:
			oids[i] = 20
		case engine.Decimal:
			oids[i] = 1700
		}
	}
	out := &outcome{}
	err := func() error {
		st, err := s.Prepare(ctx, sql, oids)
		if err != nil {
			return err
		}
		res, err := s.Execute(ctx, st, args)
		if err != nil {
			return err
		}
		defer func() { _ = res.Close() }()
		out.columns = res.Columns()
		if len(st.Columns) != len(out.columns) {
			return errors.New("described and executed columns differ")
		}
		loc, err := loadZone(s.Parameters()["TimeZone"])
		if err != nil {
			return err
		}
		row := make([]any, len(out.columns))
		for {
			err := res.Next(row)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			texts := make([]string, len(row))
			for i, v := range row {
				texts[i] = "NULL"
				if v != nil {
					texts[i] = string(engine.AppendText(nil, v, loc))
				}
			}
			out.rows = append(out.rows, texts)
		}
		out.tag = res.Tag()
		return nil
	}()
	out.notices = s.TakeNotices()
	if e := s.SyncPoint(ctx, err == nil); err == nil {
		err = e
	}
	return out, err
}
