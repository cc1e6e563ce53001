package view

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/record"
)

var (
	trades  = catalog.Name{Namespace: "eq", Table: "trades"}
	members = catalog.Name{Namespace: "eq", Table: "members"}
)

// world is a catalog, an engine and views over them in a directory.
type world struct {
	t       testing.TB
	dir     string
	store   *lake.Local
	catalog *catalog.Catalog
	engine  *engine.Engine
	views   *Manager
	tail    map[catalog.Name][]engine.TailFile
	schemas map[catalog.Name]record.Schema // as created
}

// Resolve implements engine.Tables as the server does.
func (w *world) Resolve(ctx context.Context, names []engine.Name, at map[engine.Name]engine.At) ([]engine.Resolved, error) {
	want := make([]catalog.Name, len(names))
	for i, n := range names {
		want[i] = catalog.Name(n)
	}
	tables, err := w.catalog.LoadAll(ctx, want)
	if err != nil {
		return nil, err
	}
	out := make([]engine.Resolved, len(tables))
	for i, t := range tables {
		a := catalog.At{SnapshotID: at[names[i]].Snapshot}
		id, err := t.Resolve(a)
		if err != nil {
			return nil, err
		}
		files, err := w.catalog.Files(ctx, t, a)
		if err != nil {
			return nil, err
		}
		rel := engine.Relation{Files: gainedFiles(files).gained}
		for _, c := range t.Columns {
			rel.Schema.Fields = append(rel.Schema.Fields, record.Field{ID: c.ID, Name: c.Name, Type: storedType(c.Type)})
		}
		out[i] = engine.Resolved{Name: names[i], Relation: rel, Snapshot: id, Through: t.Through(), Version: fmt.Sprint(t.UUID, id)}
	}
	return out, nil
}

// Tail implements engine.TailSource.
func (w *world) Tail(_ context.Context, n engine.Name, _ record.Vector, _ bool) (engine.Tail, error) {
	return engine.Tail{Files: slices.Clone(w.tail[catalog.Name(n)])}, nil
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), tail: map[catalog.Name][]engine.TailFile{}, schemas: map[catalog.Name]record.Schema{}}
	for _, d := range []string{"lake", "staging", "spill", "meta"} {
		if err := os.Mkdir(filepath.Join(w.dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if w.store, err = lake.OpenLocal(fsys.OS, filepath.Join(w.dir, "lake")); err != nil {
		t.Fatal(err)
	}
	if w.catalog, err = catalog.Open(t.Context(), catalog.Options{Dir: filepath.Join(w.dir, "meta"), Warehouse: w.store, Owner: "test"}); err != nil {
		t.Fatal(err)
	}
	w.engine, err = engine.Open(t.Context(), engine.Options{Tables: w, Tail: w, TempDir: filepath.Join(w.dir, "spill"), Threads: 2,
		AllowedDirs: []string{filepath.Join(w.dir, "lake"), filepath.Join(w.dir, "staging")}})
	if err != nil {
		t.Fatal(err)
	}
	w.reopen(Options{Interval: -1})
	t.Cleanup(func() {
		if err := errors.Join(w.views.Close(), w.engine.Close(), w.catalog.Close()); err != nil {
			t.Error(err)
		}
	})
	w.create(trades,
		record.Field{Name: "trade_date", Type: record.Type{Kind: record.Date}}, record.Field{Name: "symbol", Type: record.Type{Kind: record.String}},
		record.Field{Name: "mpid", Type: record.Type{Kind: record.String}}, record.Field{Name: "price", Type: record.Type{Kind: record.Decimal, Precision: 18, Scale: 4}},
		record.Field{Name: "qty", Type: record.Type{Kind: record.Int}}, record.Field{Name: "fee", Type: record.Type{Kind: record.Decimal, Precision: 9, Scale: 2}},
		record.Field{Name: "ratio", Type: record.Type{Kind: record.Double}}, record.Field{Name: "ts", Type: record.Type{Kind: record.TimestampTZ}})
	w.create(members, record.Field{Name: "mpid", Type: record.Type{Kind: record.String}}, record.Field{Name: "firm", Type: record.Type{Kind: record.String}},
		record.Field{Name: "tier", Type: record.Type{Kind: record.Int}})
	return w
}

// reopen opens the views anew, as after a restart.
func (w *world) reopen(o Options) {
	w.t.Helper()
	if w.views != nil {
		if err := w.views.Close(); err != nil {
			w.t.Fatal(err)
		}
	}
	o.Catalog, o.Engine, o.Store, o.Staging = w.catalog, w.engine, w.store, filepath.Join(w.dir, "staging")
	var err error
	if w.views, err = Open(w.t.Context(), o); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) create(n catalog.Name, fields ...record.Field) {
	w.t.Helper()
	t, err := w.catalog.CreateTable(w.t.Context(), catalog.TableSpec{Name: n, Fields: fields})
	if err != nil {
		w.t.Fatal(err)
	}
	w.schemas[n] = t.Schema
}

func (w *world) load(n catalog.Name) *catalog.Table {
	w.t.Helper()
	t, err := w.catalog.Load(w.t.Context(), n)
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

// export writes a query's rows to a local file with n's field ids.
func (w *world) export(n catalog.Name, q engine.Query) (path string, rows int64) {
	w.t.Helper()
	path = filepath.Join(w.dir, "staging", "test-"+uuid.NewString()+".parquet")
	x, err := w.engine.Export(w.t.Context(), q, engine.ExportSpec{Path: path, Schema: w.schemas[n]})
	if err != nil {
		w.t.Fatal(err)
	}
	return path, x.Rows
}

// put moves a local file into the lake.
func (w *world) put(n catalog.Name, path string) catalog.NewFile {
	w.t.Helper()
	t := w.load(n)
	f, err := os.Open(path)
	if err != nil {
		w.t.Fatal(err)
	}
	fi, err := f.Stat()
	if err != nil {
		w.t.Fatal(err)
	}
	meta, err := columnar.MetaFromParquet(f, fi.Size(), t.Schema)
	_ = f.Close()
	if err != nil {
		w.t.Fatal(err)
	}
	name := t.DataDir() + "/" + uuid.NewString() + ".parquet"
	if err := w.store.PutFile(w.t.Context(), name, path); err != nil {
		w.t.Fatal(err)
	}
	return catalog.NewFile{Path: name, Stats: catalog.FileStats{Rows: meta.Rows, SizeBytes: meta.SizeBytes, SplitOffsets: meta.SplitOffsets, SchemaID: meta.SchemaID}}
}

func (w *world) commit(c catalog.Commit) {
	w.t.Helper()
	if _, err := w.catalog.Commit(w.t.Context(), []catalog.Commit{c}); err != nil {
		w.t.Fatal(err)
	}
}

// add commits the rows of a SELECT as one file.
func (w *world) add(n catalog.Name, sql string) {
	w.t.Helper()
	path, _ := w.export(n, engine.Query{SQL: sql})
	w.commit(catalog.Commit{Table: n, Add: []catalog.NewFile{w.put(n, path)}})
}

// addTail makes the rows of a SELECT part of the tail.
func (w *world) addTail(n catalog.Name, sql string) {
	w.t.Helper()
	path, rows := w.export(n, engine.Query{SQL: sql})
	w.tail[n] = append(w.tail[n], engine.TailFile{Path: path, Rows: rows})
}

// flush commits the tail. Its files stay: a pin may hold them.
func (w *world) flush(n catalog.Name) {
	w.t.Helper()
	c := catalog.Commit{Table: n}
	for _, f := range w.tail[n] {
		data, err := os.ReadFile(f.Path)
		if err != nil {
			w.t.Fatal(err)
		}
		path := f.Path + ".flushed"
		if err := os.WriteFile(path, data, 0o600); err != nil {
			w.t.Fatal(err)
		}
		c.Add = append(c.Add, w.put(n, path))
	}
	if len(c.Add) > 0 {
		w.commit(c)
	}
	w.tail[n] = nil
}

func (w *world) files(n catalog.Name) []catalog.DataFile {
	w.t.Helper()
	files, err := w.catalog.Files(w.t.Context(), w.load(n), catalog.At{})
	if err != nil {
		w.t.Fatal(err)
	}
	return files
}

// rewrite exchanges files for one with the same rows.
func (w *world) rewrite(n catalog.Name, files []catalog.DataFile) {
	w.t.Helper()
	pin := engine.NewPin(map[engine.Name]engine.Relation{{Namespace: "x", Table: "x"}: {Schema: w.load(n).Schema, Files: gainedFiles(files).gained}})
	defer pin.Release()
	path, _ := w.export(n, engine.Query{SQL: `SELECT * FROM "x"."x"`, Pin: pin})
	w.commit(catalog.Commit{Table: n, Add: []catalog.NewFile{w.put(n, path)}, Replace: files})
}

// deleteRows takes the first rows of a file away by position.
func (w *world) deleteRows(n catalog.Name, f catalog.DataFile, rows int) {
	w.t.Helper()
	path := filepath.Join(w.dir, "staging", "test-"+uuid.NewString()+".parquet")
	schema := record.Schema{Fields: []record.Field{{ID: 2147483546, Name: "file_path", Type: record.Type{Kind: record.String}}, {ID: 2147483545, Name: "pos", Type: record.Type{Kind: record.Long}}}}
	x, err := w.engine.Export(w.t.Context(), engine.Query{SQL: fmt.Sprintf("SELECT %s AS file_path, i AS pos FROM range(%d) t(i)", engine.QuoteLiteral(f.URI()), rows)},
		engine.ExportSpec{Path: path, Schema: schema})
	if err != nil {
		w.t.Fatal(err)
	}
	name := w.load(n).DataDir() + "/" + uuid.NewString() + ".parquet"
	if err := w.store.PutFile(w.t.Context(), name, path); err != nil {
		w.t.Fatal(err)
	}
	w.commit(catalog.Commit{Table: n, Deletes: []catalog.NewDeletes{{Path: name, Rows: x.Rows, SizeBytes: x.SizeBytes, From: f}}})
}

// define describes a view of the query as the warehouse does.
func (w *world) define(name, sql string, tables ...catalog.Name) Definition {
	w.t.Helper()
	if len(tables) == 0 {
		tables = []catalog.Name{trades}
	}
	d := Definition{Name: catalog.Name{Namespace: "eq", Table: name}, Text: sql, Query: sql, Tables: tables, Owner: "test", AutoRefresh: true}
	pin := w.pin(tables...)
	defer pin.Release()
	s, err := w.engine.Session(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	_, columns, err := s.Describe(w.t.Context(), engine.Query{SQL: sql, Pin: pin, Exact: true})
	if err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	spelling := map[engine.TypeKind]string{engine.Boolean: "boolean", engine.SmallInt: "int", engine.Integer: "int", engine.BigInt: "long", engine.Real: "float", engine.Double: "double",
		engine.Varchar: "string", engine.DateType: "date", engine.TimestampType: "timestamp", engine.TimestampTZType: "timestamptz", engine.TimeType: "time", engine.Nested: "list"}
	for _, c := range columns {
		t := spelling[c.Type.Kind]
		if c.Type.Kind == engine.Numeric {
			t = fmt.Sprintf("decimal(%d, %d)", c.Type.Precision, c.Type.Scale)
		}
		d.Columns = append(d.Columns, catalog.Column{Name: c.Name, Type: t})
	}
	return d
}

func (w *world) createView(name, sql string, tables ...catalog.Name) Definition {
	w.t.Helper()
	d := w.define(name, sql, tables...)
	if err := w.views.Create(w.t.Context(), d); err != nil {
		w.t.Fatalf("create %s: %v", sql, err)
	}
	return d
}

func (w *world) pin(names ...catalog.Name) *engine.Pin {
	w.t.Helper()
	all := make([]engine.Name, len(names))
	for i, n := range names {
		all[i] = engine.Name(n)
	}
	pin, err := w.engine.PinFresh(w.t.Context(), all, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return pin
}

func (w *world) info(name catalog.Name) Info {
	w.t.Helper()
	all, err := w.views.List(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, i := range all {
		if i.Name == name {
			return i
		}
	}
	w.t.Fatalf("view %s is not listed", name)
	return Info{}
}

// pinView pins what reading d takes.
func (w *world) pinView(d Definition) *engine.Pin {
	w.t.Helper()
	r, err := w.views.Read(w.t.Context(), d.Name)
	if err != nil || r == nil {
		w.t.Fatalf("read %s: %v, %v", d.Name, r, err)
	}
	return w.pin(r.Tables...)
}

// readAt reads d through a pin, with rows of the reader's transaction added.
func (w *world) readAt(d Definition, pin *engine.Pin, own ...engine.File) ([]string, error) {
	w.t.Helper()
	r, err := w.views.Read(w.t.Context(), d.Name)
	if err != nil || r == nil {
		w.t.Fatalf("read %s: %v, %v", d.Name, r, err)
	}
	relations := map[engine.Name]engine.Relation{}
	for _, n := range r.Tables {
		rel, ok := pin.Relation(engine.Name(n))
		if !ok {
			w.t.Fatalf("%s is not pinned", n)
		}
		if n == trades {
			rel.Files = append(slices.Clone(rel.Files), own...)
		}
		relations[engine.Name(n)] = rel
	}
	if err := r.Bind(w.t.Context(), pin, relations); err != nil {
		return nil, err
	}
	made := engine.NewPin(relations)
	defer made.Release()
	return w.rows(`WITH v AS (`+r.Query+`) SELECT * FROM v`, made)
}

// scratchAt runs d's query itself.
func (w *world) scratchAt(d Definition, pin *engine.Pin, own ...engine.File) ([]string, error) {
	w.t.Helper()
	relations := map[engine.Name]engine.Relation{}
	for _, n := range d.Tables {
		rel, _ := pin.Relation(engine.Name(n))
		if n == trades {
			rel.Files = append(slices.Clone(rel.Files), own...)
		}
		relations[engine.Name(n)] = rel
	}
	made := engine.NewPin(relations)
	defer made.Release()
	return w.rows(d.Query, made)
}

// rows runs a user's statement and returns its rows, sorted, with their names
// and types first.
func (w *world) rows(sql string, pin *engine.Pin) ([]string, error) {
	s, err := w.engine.Session(w.t.Context())
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }()
	rows, err := s.Query(w.t.Context(), engine.Query{SQL: sql, Pin: pin, Exact: true})
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	head := make([]string, len(rows.Columns))
	for i, c := range rows.Columns {
		if c.Type.Kind == engine.SmallInt {
			c.Type.Kind = engine.Integer // a view's columns have Iceberg's types
		}
		head[i] = c.Name + " " + c.Type.String()
	}
	var out []string
	dst := make([]any, len(rows.Columns))
	for {
		err := rows.Next(dst)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		line := make([]string, len(dst))
		for i, v := range dst {
			line[i] = "NULL"
			if v != nil {
				line[i] = string(engine.AppendText(nil, v, nil))
			}
		}
		out = append(out, strings.Join(line, "|"))
	}
	slices.Sort(out)
	return append([]string{strings.Join(head, "|")}, out...), nil
}

// check compares the view with its query through one pin.
func (w *world) check(d Definition, pin *engine.Pin, own ...engine.File) {
	w.t.Helper()
	got, err := w.readAt(d, pin, own...)
	want, e := w.scratchAt(d, pin, own...)
	if err != nil || e != nil {
		w.t.Fatalf("%s: read %v, query %v", d.Name, err, e)
	}
	if !slices.Equal(got, want) {
		w.t.Fatalf("%s\n%s\n got %s\nwant %s", d.Name, d.Query, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}

// checkNow is check through a pin of the present.
func (w *world) checkNow(views ...Definition) {
	w.t.Helper()
	for _, d := range views {
		pin := w.pinView(d)
		w.check(d, pin)
		pin.Release()
	}
}

func (w *world) refresh(d Definition) Result {
	w.t.Helper()
	r, err := w.views.Refresh(w.t.Context(), d.Name)
	if err != nil {
		w.t.Fatalf("refresh %s: %v", d.Name, err)
	}
	return r
}
