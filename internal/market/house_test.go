package market

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/delivery"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/exchange"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/ledger"
	"github.com/tapehouse/tapehouse/internal/maintain"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/internal/wal"
	"github.com/tapehouse/tapehouse/packs"
)

var tradeDate = calendar.Date(2026, 11, 20)

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
		files, err := r.c.Files(ctx, t, catalog.At{SnapshotID: at[names[i]].Snapshot, Tag: at[names[i]].Tag})
		if err != nil {
			return nil, err
		}
		out[i] = engine.Resolved{Name: names[i], Relation: maintain.Relation(t.Schema, files), Snapshot: t.Snapshot(), Through: t.Through()}
	}
	return out, nil
}

type documents struct{ catalog *catalog.Catalog }

func (d documents) List(ctx context.Context, kind string) (map[string]json.RawMessage, error) {
	docs, err := d.catalog.ListDocuments(ctx, kind, "")
	out := make(map[string]json.RawMessage, len(docs))
	for _, doc := range docs {
		out[doc.Key] = doc.Body
	}
	return out, err
}

func (d documents) Put(ctx context.Context, kind, key string, body json.RawMessage) error {
	_, err := d.catalog.PutDocument(ctx, catalog.DocumentWrite{Kind: kind, Key: key, IfVersion: catalog.AnyVersion, Body: body})
	return err
}

func (d documents) History(context.Context, string, string) ([]json.RawMessage, error) {
	return nil, nil
}

func (d documents) Delete(ctx context.Context, kind, key string) error {
	_, err := d.catalog.PutDocument(ctx, catalog.DocumentWrite{Kind: kind, Key: key, IfVersion: catalog.AnyVersion, Delete: true})
	return err
}

// house is the whole stack in a temporary directory.
type house struct {
	t    testing.TB
	dir  string
	pack *packs.Pack

	store    lake.Store
	catalog  *catalog.Catalog
	engine   *engine.Engine
	log      *wal.Log
	ledger   *ledger.Ledger
	delivery *delivery.Manager
	maintain *maintain.Maintainer
	market   *Market

	mu  sync.Mutex
	now time.Time
}

func (h *house) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(time.Millisecond)
	return h.now
}

func (h *house) setClock(at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = at
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newHouse starts the whole stack in a temporary directory with the equities
// pack's tables, streams and reference data.
func newHouse(t testing.TB, edit ...func(*packs.Pack)) *house {
	t.Helper()
	if p, ok := t.(*testing.T); ok {
		p.Parallel() // much of it waits for fsyncs
	}
	h := &house{t: t, dir: t.TempDir(), now: time.Date(2026, 11, 21, 2, 0, 0, 0, time.UTC)}
	h.pack = must[*packs.Pack](t)(packs.Load(packs.Equities()))
	for _, e := range edit {
		e(h.pack)
	}
	h.open()
	ctx := context.Background()
	check(t, h.catalog.CreateNamespace(ctx, h.pack.Namespace, nil))
	for _, s := range h.pack.Streams {
		must[*catalog.Table](t)(h.catalog.CreateTable(ctx, catalog.TableSpec{Name: h.name(s.Table), Fields: s.Schema.Fields, Sequence: s.Sequence, PartitionBy: s.Partition}))
		must[delivery.Config](t)(h.delivery.Create(ctx, delivery.Config{Name: s.Name, Namespace: h.pack.Namespace, Table: s.Table, SizeBytes: 64 << 20, Interval: time.Hour}))
	}
	for i := range h.pack.References {
		r := &h.pack.References[i]
		must[*catalog.Table](t)(h.catalog.CreateTable(ctx, catalog.TableSpec{Name: h.name(r.Table), Fields: r.Schema.Fields}))
		h.addReference(r, r.Rows)
	}
	t.Cleanup(h.close)
	return h
}

func (h *house) name(table string) catalog.Name {
	return catalog.Name{Namespace: h.pack.Namespace, Table: table}
}

func (h *house) logger() *slog.Logger {
	if !testing.Verbose() {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// open starts everything in the directory, as a server does.
func (h *house) open() {
	t := h.t
	t.Helper()
	ctx := context.Background()
	for _, d := range []string{"lake", "errors", "staging", "spill", "meta", "delivery", "wal"} {
		check(t, os.MkdirAll(filepath.Join(h.dir, d), 0o700))
	}
	h.store = must[*lake.Local](t)(lake.OpenLocal(fsys.OS, filepath.Join(h.dir, "lake")))
	errors := must[*lake.Local](t)(lake.OpenLocal(fsys.OS, filepath.Join(h.dir, "errors")))
	h.catalog = must[*catalog.Catalog](t)(catalog.Open(ctx, catalog.Options{Dir: filepath.Join(h.dir, "meta"), Warehouse: h.store, Owner: "test", Now: h.clock}))
	h.log = must[*wal.Log](t)(wal.Open(ctx, fsys.OS, filepath.Join(h.dir, "wal"), wal.Options{SegmentBytes: 4 << 20, ReserveBytes: -1}))
	h.ledger = must[*ledger.Ledger](t)(ledger.Open(fsys.OS, delivery.LedgerCheckpoint(filepath.Join(h.dir, "delivery")), ledger.Options{}))
	h.delivery = must[*delivery.Manager](t)(delivery.Open(ctx, delivery.Options{
		FS: fsys.OS, Dir: filepath.Join(h.dir, "delivery"), Log: h.log, Ledger: h.ledger, Documents: documents{h.catalog},
		Destination: func(c delivery.Config, n catalog.Name) (delivery.Destination, error) {
			return &delivery.Iceberg{Catalog: h.catalog, Lake: h.store, FS: fsys.OS, Staging: filepath.Join(h.dir, "staging"), Table: n, Stream: c.Name}, nil
		},
		Errors: errors, Calendar: h.pack.Calendar, Logger: h.logger(),
	}))
	h.engine = must[*engine.Engine](t)(engine.Open(ctx, engine.Options{Tables: resolver{h.catalog}, Tail: h.delivery, TempDir: filepath.Join(h.dir, "spill"), Threads: 2, MemoryLimitBytes: 400 << 20,
		AllowedDirs: []string{filepath.Join(h.dir, "lake"), filepath.Join(h.dir, "staging"), filepath.Join(h.dir, "delivery")}}))
	h.maintain = must[*maintain.Maintainer](t)(maintain.New(maintain.Options{Catalog: h.catalog, Engine: h.engine, Store: h.store, Staging: filepath.Join(h.dir, "staging"), Logger: h.logger()}))
	h.market = h.newMarket(nil)
}

// newMarket makes a market over the house's parts.
func (h *house) newMarket(edit func(*Options)) *Market {
	o := Options{Catalog: h.catalog, Engine: h.engine, Pack: h.pack, Streams: h.delivery, Ledger: h.ledger, Compactor: h.maintain,
		StatementsDir: filepath.Join(h.dir, "statements"), Program: "test", Logger: h.logger(), Now: h.clock, Since: func() time.Time { return time.Time{} }}
	if edit != nil {
		edit(&o)
	}
	return must[*Market](h.t)(New(o))
}

func (h *house) close() {
	check(h.t, h.market.Close())
	check(h.t, h.delivery.Close(context.Background()))
	check(h.t, h.engine.Close())
	check(h.t, h.maintain.Close())
	check(h.t, h.log.Close())
	check(h.t, h.catalog.Close())
}

// crash stops everything as a killed process would, and starts anew.
func (h *house) crash() {
	check(h.t, h.market.Close())
	h.delivery.Abandon()
	check(h.t, h.engine.Close())
	check(h.t, h.log.Close())
	check(h.t, h.catalog.Close())
	h.open()
}

// addReference appends rows to a reference table.
func (h *house) addReference(r *packs.Reference, rows [][]string) {
	t := h.t
	t.Helper()
	ctx := context.Background()
	var values []string
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, c := range row {
			cells[i] = "NULL"
			if c != "" {
				cells[i] = engine.QuoteLiteral(c)
			}
		}
		values = append(values, "("+strings.Join(cells, ",")+")")
	}
	columns := make([]string, len(r.Schema.Fields))
	for i, f := range r.Schema.Fields {
		columns[i] = engine.QuoteIdentifier(f.Name)
	}
	local := filepath.Join(h.dir, "staging", uuid.NewString()+".parquet")
	tbl := must[*catalog.Table](t)(h.catalog.Load(ctx, h.name(r.Table)))
	must[engine.Exported](t)(h.engine.Export(ctx, engine.Query{SQL: "SELECT * FROM (VALUES " + strings.Join(values, ",") + ") AS v(" + strings.Join(columns, ",") + ")"},
		engine.ExportSpec{Path: local, Schema: tbl.Schema}))
	f := must[*os.File](t)(os.Open(local))
	info := must[os.FileInfo](t)(f.Stat())
	meta := must[columnar.FileMeta](t)(columnar.MetaFromParquet(f, info.Size(), tbl.Schema))
	check(t, f.Close())
	name := tbl.DataDir() + "/" + filepath.Base(local)
	check(t, h.store.PutFile(ctx, name, local))
	path, _ := h.store.LocalPath(name)
	must[[]*catalog.Table](t)(h.catalog.Commit(ctx, []catalog.Commit{{Table: tbl.Name, Add: []catalog.NewFile{{Path: path, Stats: catalog.StatsOf(meta)}}}}))
}

// put sends documents to a stream and returns their record ids.
func (h *house) put(stream string, docs ...string) []string {
	h.t.Helper()
	s := must[*delivery.Stream](h.t)(h.delivery.Stream(record.StreamName(stream)))
	var d delivery.Docs
	for _, doc := range docs {
		d.Arena = append(d.Arena, doc...)
		d.Ends = append(d.Ends, int32(len(d.Arena)))
	}
	d.Arena = append(d.Arena, make([]byte, columnar.Slack)...)[:len(d.Arena)]
	r := must[delivery.Receipt](h.t)(s.Put(context.Background(), d))
	ids := make([]string, len(docs))
	for i := range docs {
		ids[i] = string(r.AppendRecordID(nil, i))
	}
	return ids
}

// play generates a trade date and puts it, all but what skip says.
func (h *house) play(records int64, edit func(*exchange.Config), skip func(r exchange.Record, doc string) bool) map[string][]string {
	h.t.Helper()
	cfg := exchange.DefaultConfig(h.pack.Calendar, tradeDate, 7, records)
	cfg.Corrections = 4
	cfg.Restarts = 1
	if edit != nil {
		edit(&cfg)
	}
	e := must[*exchange.Exchange](h.t)(exchange.New(cfg))
	all := map[string][]string{}
	batches := map[string][]string{}
	var buf []byte
	for {
		doc, rec, err := e.Next(buf[:0])
		if errors.Is(err, io.EOF) {
			break
		}
		check(h.t, err)
		buf = doc
		text := string(doc)
		all[rec.Stream] = append(all[rec.Stream], text)
		if skip != nil && skip(rec, text) {
			continue
		}
		batches[rec.Stream] = append(batches[rec.Stream], text)
		if len(batches[rec.Stream]) == 500 {
			h.put(rec.Stream, batches[rec.Stream]...)
			batches[rec.Stream] = nil
		}
	}
	for s, docs := range batches {
		if len(docs) > 0 {
			h.put(s, docs...)
		}
	}
	return all
}

// seal seals the trade date.
func (h *house) seal() *Certificate {
	h.t.Helper()
	return must[*SealResult](h.t)(h.market.Seal(context.Background(), tradeDate, SealOptions{By: "tester"})).Certificate
}

// refused seals and returns what refused it.
func (h *house) refused() []Finding {
	h.t.Helper()
	_, err := h.market.Seal(context.Background(), tradeDate, SealOptions{By: "tester"})
	var refused *RefusedError
	if !errors.As(err, &refused) {
		h.t.Fatalf("not refused: %v", err)
	}
	return refused.Report.Failures()
}

func (h *house) verify(version int) *VerifyResult {
	h.t.Helper()
	return must[*VerifyResult](h.t)(h.market.Verify(context.Background(), tradeDate, version))
}
