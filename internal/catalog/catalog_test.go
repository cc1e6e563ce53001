package catalog

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/pgtest"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/internal/s3test"
)

// TestMain runs all tests and benchmarks twice: with the catalog in SQLite, then
// in PostgreSQL.
func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if fuzz := flag.Lookup("test.fuzz"); code == 0 && os.Getenv(killDirEnv) == "" && (fuzz == nil || fuzz.Value.String() == "") {
		if _, err := pgtest.Get(); err != nil {
			fmt.Printf("SKIPPED: the same tests with the catalog in PostgreSQL: %v\n", err)
		} else {
			fmt.Println("=== the same tests with the catalog in PostgreSQL")
			inPostgres = true
			code = m.Run()
		}
	}
	pgtest.Stop()
	s3test.Clean()
	os.Exit(code)
}

// inPostgres says in which database the worlds keep their catalogs.
var inPostgres bool

// world is a directory with a catalog and a lake, which a test may reopen.
type world struct {
	t        testing.TB
	dir      string
	postgres string // URL; "": SQLite
	database string // its name
	store    lake.Store
	now      atomic.Int64 // added to the real time, ns
}

func newWorld(t testing.TB) *world {
	dir := t.TempDir()
	store, err := lake.OpenLocal(fsys.OS, filepath.Join(dir, "lake"))
	if err != nil {
		t.Fatal(err)
	}
	return emptyWorld(t, dir, store)
}

func emptyWorld(t testing.TB, dir string, store lake.Store) *world {
	w := &world{t: t, dir: dir, store: store}
	if inPostgres {
		server := pgtest.Start(t)
		w.database = server.Database(t)
		w.postgres = pgtest.URL(server.Addr, w.database)
	}
	return w
}

// newPostgresWorld is for tests that are about PostgreSQL alone, and run once.
func newPostgresWorld(t testing.TB) *world {
	if !inPostgres {
		t.Skip("it is about PostgreSQL")
	}
	return newWorld(t)
}

// newSQLiteWorld is for tests that are about SQLite alone, and run once.
func newSQLiteWorld(t testing.TB) *world {
	if inPostgres {
		t.Skip("it is about SQLite")
	}
	return newWorld(t)
}

// beside is another data directory with the same catalog and lake.
func (w *world) beside() *world {
	return &world{t: w.t, dir: w.t.TempDir(), postgres: w.postgres, database: w.database, store: w.store}
}

// exec runs a statement in the database, behind the catalog's back.
func (w *world) exec(statement string) {
	w.t.Helper()
	if w.postgres != "" {
		pgtest.Start(w.t).Exec(w.t, w.database, statement)
		return
	}
	db, err := sql.Open("sqlite", filepath.Join(w.dir, databaseName))
	if err == nil {
		_, err = db.Exec(statement)
	}
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// onEachLake runs a test over a lake in a directory and one on S3.
func onEachLake(t *testing.T, test func(t *testing.T, w *world)) {
	t.Run("local", func(t *testing.T) { test(t, newWorld(t)) })
	t.Run("s3", func(t *testing.T) {
		server := s3test.Start(t)
		test(t, newS3World(t, server, server.Endpoint))
	})
}

func newS3World(t testing.TB, server *s3test.Server, endpoint string) *world {
	store, err := openS3(t.Context(), server.Bucket, endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return emptyWorld(t, t.TempDir(), store)
}

func openS3(ctx context.Context, bucket, endpoint string) (*lake.S3, error) {
	return lake.OpenS3(ctx, lake.S3Options{Bucket: bucket, Prefix: "warehouse", Region: s3test.Region, Endpoint: endpoint,
		PathStyle: true, AccessKeyID: s3test.AccessKeyID, SecretAccessKey: s3test.SecretAccessKey, Attempts: 2})
}

// path is a lake name as DataFile.Path has it.
func (w *world) path(name string) string {
	if p, ok := w.store.LocalPath(name); ok {
		return p
	}
	return w.store.URI(name)
}

// newFastWorld keeps the lake in memory: for tests of many commits, whose fsyncs
// are the file system's business.
func newFastWorld(t testing.TB) *world {
	w := newWorld(t)
	store, err := lake.OpenLocal(fsys.NewMem(), "/lake")
	if err != nil {
		t.Fatal(err)
	}
	w.store = store
	return w
}

func (w *world) open(change ...func(*Options)) *Catalog {
	w.t.Helper()
	o := Options{
		Dir: w.dir, Postgres: w.postgres, Warehouse: w.store, Owner: "test", Registerer: prometheus.NewRegistry(),
		Now: func() time.Time { return time.Now().Add(time.Duration(w.now.Load())) },
	}
	for _, f := range change {
		f(&o)
	}
	c, err := Open(context.Background(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return c
}

func (w *world) later(d time.Duration) { w.now.Add(int64(d)) }

var executions = Name{"equities", "executions"}

func executionsSpec(n Name) TableSpec {
	long, date := record.Type{Kind: record.Long}, record.Type{Kind: record.Date}
	str, tstz := record.Type{Kind: record.String}, record.Type{Kind: record.TimestampTZ}
	return TableSpec{
		Name: n,
		Fields: []record.Field{
			{Name: "source", Type: str}, {Name: "session", Type: str}, {Name: "epoch", Type: long},
			{Name: "seq", Type: long, Required: true},
			{Name: "price", Type: record.Type{Kind: record.Decimal, Precision: 18, Scale: 4}},
			{Name: "executed_at", Type: tstz},
			{Name: "trade_date", Type: date, Derive: record.TradeDate, From: "executed_at"},
			{Name: "record_stream", Type: str, Derive: record.RecordStream},
			{Name: "record_offset", Type: long, Derive: record.RecordOffset},
			{Name: "arrived_at", Type: tstz, Derive: record.ArrivedAt},
		},
		Sequence:    record.SequenceColumns{Source: "source", Session: "session", Epoch: "epoch", Sequence: "seq"},
		PartitionBy: "trade_date",
		Properties:  map[string]string{"owner": "test"},
	}
}

func mustCreate(t testing.TB, c *Catalog, spec TableSpec) *Table {
	t.Helper()
	tbl, err := c.CreateTable(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return tbl
}

const date0 = int32(20_780) // a trade date

func long(v int64) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(v)) }

var fileNumber atomic.Int64

// ghost describes a data file that nobody reads.
func ghost(t *Table, date int32, first, rows int64) NewFile {
	return NewFile{
		Path: fmt.Sprintf("%s/trade_date=%d/%08d-%d.parquet", t.DataDir(), date, fileNumber.Add(1), first), Partition: Partition{date, true},
		Stats: FileStats{Rows: rows, SizeBytes: 1000 * rows, SplitOffsets: []int64{4}, SchemaID: t.Schema.ID, Columns: []ColumnStats{
			{FieldID: 4, Values: rows, SizeBytes: 8 * rows, Lower: long(first), Upper: long(first + rows - 1)},
		}},
	}
}

// written writes a Parquet file with the rows seq = first … first+rows-1.
func written(t testing.TB, c *Catalog, tbl *Table, date int32, first, rows int64) NewFile {
	t.Helper()
	id := func(n int) arrow.Metadata {
		return arrow.NewMetadata([]string{"PARQUET:field_id"}, []string{strconv.Itoa(n)})
	}
	sc := arrow.NewSchema([]arrow.Field{
		{Name: "seq", Type: arrow.PrimitiveTypes.Int64, Metadata: id(4)},
		{Name: "trade_date", Type: arrow.FixedWidthTypes.Date32, Nullable: true, Metadata: id(7)},
	}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, sc)
	defer b.Release()
	for i := range rows {
		b.Field(0).(*array.Int64Builder).Append(first + i)
		b.Field(1).(*array.Date32Builder).Append(arrow.Date32(date))
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	f := ghost(tbl, date, first, rows)
	f.Stats.SizeBytes = writeParquet(t, c, f.Path, rec)
	return f
}

func writeParquet(t testing.TB, c *Catalog, name string, rec arrow.RecordBatch) int64 {
	t.Helper()
	var buf bytes.Buffer
	w, err := pqarrow.NewFileWriter(rec.Schema(), &buf, parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Zstd)), pqarrow.DefaultWriterProps())
	if err == nil {
		err = errors.Join(w.Write(rec), w.Close())
	}
	if err == nil {
		err = c.store.Put(context.Background(), name, bytes.NewReader(buf.Bytes()), int64(buf.Len()))
	}
	if err != nil {
		t.Fatal(err)
	}
	return int64(buf.Len())
}

func commit(t testing.TB, c *Catalog, m Commit) *Table {
	t.Helper()
	out, err := c.Commit(context.Background(), []Commit{m})
	if err != nil {
		t.Fatal(err)
	}
	return out[0]
}

func files(t testing.TB, c *Catalog, tbl *Table, at At) []DataFile {
	t.Helper()
	f, err := c.Files(context.Background(), tbl, at)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func rowsOf(files []DataFile) (n int64) {
	for _, f := range files {
		n += f.Rows
	}
	return n
}

var key0 = record.Key{Incarnation: uuid.MustParse("0b0e7a60-6a3f-4f3b-9a55-000000000001")}

func through(n int) record.Vector { return record.Vector{key0: record.Offset(n)} }

func TestCreateAndLoad(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	c := w.open()
	spec := executionsSpec(executions)
	mustCreate(t, c, spec)
	if _, err := c.CreateTable(ctx, spec); !errors.Is(err, ErrExists) {
		t.Errorf("second create: %v", err)
	}
	for _, reopen := range []bool{false, true} {
		if reopen {
			c = w.open()
		}
		tbl, err := c.Load(ctx, executions)
		if err != nil {
			t.Fatal(err)
		}
		want := slices.Clone(spec.Fields)
		for i := range want {
			want[i].ID = i + 1
		}
		if !slices.Equal(tbl.Schema.Fields, want) {
			t.Errorf("fields = %+v, want %+v", tbl.Schema.Fields, want)
		}
		if tbl.Sequence != spec.Sequence || tbl.PartitionBy != "trade_date" || tbl.Snapshot() != 0 || len(tbl.Through()) != 0 || len(tbl.Foreign()) != 0 {
			t.Errorf("table = %+v", tbl)
		}
		for k, v := range map[string]string{
			"owner": "test", "tapehouse.derive.trade_date": "trade-date(executed_at)", "tapehouse.derive.arrived_at": "arrived-at",
			"tapehouse.sequence": "source,session,epoch,seq", "commit.manifest-merge.enabled": "true",
			"write.metadata.delete-after-commit.enabled": "true", "write.metadata.previous-versions-max": "20",
			"write.metadata.compression-codec": "gzip", "write.parquet.compression-codec": "zstd",
		} {
			if tbl.Properties[k] != v {
				t.Errorf("property %s = %q, want %q", k, tbl.Properties[k], v)
			}
		}
		if tbl.meta.Version() != 2 {
			t.Errorf("format version %d", tbl.meta.Version())
		}
		if got := files(t, c, tbl, At{}); len(got) != 0 {
			t.Errorf("files = %v", got)
		}
		if !strings.HasPrefix(tbl.DataDir(), "equities/executions-") {
			t.Errorf("DataDir = %s", tbl.DataDir())
		}
	}
	if ns, err := c.Namespaces(ctx); err != nil || !slices.Equal(ns, []string{"equities"}) {
		t.Errorf("Namespaces = %v, %v", ns, err)
	}
	if l, err := c.List(ctx, "equities"); err != nil || !slices.Equal(l, []Name{executions}) {
		t.Errorf("List = %v, %v", l, err)
	}
	if _, err := c.Load(ctx, Name{"equities", "none"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("Load of nothing: %v", err)
	}
}

func TestCreateRefuses(t *testing.T) {
	c := newWorld(t).open()
	ok := executionsSpec(executions)
	for name, change := range map[string]func(*TableSpec){
		"no columns":        func(s *TableSpec) { s.Fields = nil; s.PartitionBy = "" },
		"bad table name":    func(s *TableSpec) { s.Name.Table = "a/b" },
		"bad namespace":     func(s *TableSpec) { s.Name.Namespace = "" },
		"column twice":      func(s *TableSpec) { s.Fields[1].Name = "Source" },
		"comma":             func(s *TableSpec) { s.Fields[2].Name = "a,b" },
		"unknown partition": func(s *TableSpec) { s.PartitionBy = "nope" },
		"partition type":    func(s *TableSpec) { s.PartitionBy = "seq" },
		"derivation type":   func(s *TableSpec) { s.Fields[6].Type.Kind = record.Long },
		"derivation source": func(s *TableSpec) { s.Fields[6].From = "nope" },
		"derived of derive": func(s *TableSpec) { s.Fields[6].From = "arrived_at" },
		"unknown derive":    func(s *TableSpec) { s.Fields[6].Derive = "guess" },
		"sequence column":   func(s *TableSpec) { s.Sequence.Epoch = "source" },
		"both":              func(s *TableSpec) { s.Columns = []Column{{Name: "x", Type: "long"}} },
		"unknown type": func(s *TableSpec) {
			s.Fields = nil
			s.PartitionBy = ""
			s.Columns = []Column{{Name: "x", Type: "bogus"}}
		},
		"huge property": func(s *TableSpec) { s.Properties = map[string]string{"x": strings.Repeat("y", propertyBytesMax)} },
	} {
		s := ok
		s.Fields = slices.Clone(ok.Fields)
		if name == "unknown type" || name == "no columns" {
			s.Sequence = record.SequenceColumns{}
		}
		change(&s)
		if _, err := c.CreateTable(t.Context(), s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

func TestForeignTypesLoad(t *testing.T) {
	c := newWorld(t).open()
	spec := TableSpec{Name: Name{"users", "odd"}, Columns: []Column{
		{Name: "a", Type: "long", Required: true}, {Name: "b", Type: "timestamp"}, {Name: "c", Type: "decimal(38, 9)"},
		{Name: "d", Type: "uuid"}, {Name: "e", Type: "binary"}, {Name: "f", Type: "float"}, {Name: "g", Type: "time"}, {Name: "h", Type: "fixed[4]"},
		{Name: "weird, (name)", Type: "string"},
		{Name: "l", Type: `{"type":"list","element-id":100,"element":"string","element-required":false}`},
	}}
	tbl := mustCreate(t, c, spec)
	if len(tbl.Columns) != 10 || len(tbl.Schema.Fields) != 2 || len(tbl.Foreign()) != 8 {
		t.Errorf("columns %v, schema %v", tbl.Columns, tbl.Schema)
	}
	for i, col := range tbl.Columns[:8] {
		if col.Type != spec.Columns[i].Type {
			t.Errorf("column %s has type %q, want %q", col.Name, col.Type, spec.Columns[i].Type)
		}
	}
	tbl = commit(t, c, Commit{Table: tbl.Name, Add: []NewFile{{Path: tbl.DataDir() + "/x.parquet", Stats: FileStats{Rows: 3, SizeBytes: 10}}}})
	if got := files(t, c, tbl, At{}); rowsOf(got) != 3 || got[0].Partition.Has {
		t.Errorf("files = %+v", got)
	}
}

func TestCommitMovesDataAndThrough(t *testing.T) { onEachLake(t, testCommitMovesDataAndThrough) }

func testCommitMovesDataAndThrough(t *testing.T, w *world) {
	ctx := t.Context()
	c := w.open()
	tbl := mustCreate(t, c, executionsSpec(executions))
	a, b := ghost(tbl, date0, 0, 10), ghost(tbl, date0+1, 10, 5)
	tbl = commit(t, c, Commit{Table: executions, Add: []NewFile{a, b}, Through: through(15), RequireThrough: &record.Vector{},
		Summary: map[string]string{"reason": "hint"}, Properties: map[string]string{"p": "q"}})
	if tbl.Through()[key0] != 15 || tbl.Properties["p"] != "q" || tbl.Snapshots()[0].Summary["reason"] != "hint" {
		t.Errorf("table = %+v", tbl)
	}
	got := files(t, c, tbl, At{})
	if len(got) != 2 || rowsOf(got) != 15 {
		t.Fatalf("files = %+v", got)
	}
	f := got[0]
	if f.Partition != (Partition{date0, true}) || f.SizeBytes != 10_000 || f.SchemaID != 0 || f.AddedBy != tbl.Snapshot() || !slices.Equal(f.SplitOffsets, []int64{4}) {
		t.Errorf("file = %+v", f)
	}
	if p := w.path(a.Path); f.Path != p {
		t.Errorf("path = %s, want %s", f.Path, p)
	}
	if len(f.Columns) != 1 || f.Columns[0].FieldID != 4 || !bytes.Equal(f.Columns[0].Lower, long(0)) || !bytes.Equal(f.Columns[0].Upper, long(9)) || f.Columns[0].Values != 10 {
		t.Errorf("stats = %+v", f.Columns)
	}
	if in := FilesIn(got, date0+1); len(in) != 1 || in[0].Rows != 5 {
		t.Errorf("FilesIn = %+v", in)
	}

	// Every record of a flush was rejected: progress alone moves.
	snapshot := tbl.Snapshot()
	tbl = commit(t, c, Commit{Table: executions, Through: through(20), RequireThrough: ptr(through(15))})
	if tbl.Through()[key0] != 20 || tbl.Snapshot() != snapshot {
		t.Errorf("through %v snapshot %d", tbl.Through(), tbl.Snapshot())
	}
	if v, err := tbl.ThroughAt(At{SnapshotID: snapshot}); err != nil || v[key0] != 15 {
		t.Errorf("ThroughAt = %v, %v", v, err)
	}

	// A second stream's progress leaves the first's alone.
	key1 := record.Key{Incarnation: key0.Incarnation, Shard: 1}
	tbl = commit(t, c, Commit{Table: executions, Through: record.Vector{key1: 3}, RequireThrough: &record.Vector{}})
	if tbl.Through()[key0] != 20 || tbl.Through()[key1] != 3 {
		t.Errorf("through = %v", tbl.Through())
	}

	for name, m := range map[string]Commit{
		"through required":   {Through: through(30), RequireThrough: ptr(through(15))},
		"through absent":     {Through: through(30), RequireThrough: &record.Vector{}},
		"through back":       {Through: through(19)},
		"snapshot required":  {Through: through(30), RequireSnapshot: ptr(int64(0))},
		"replace what's not": {Replace: []DataFile{{uri: "file:///nope"}}},
		"remove what's not":  {Remove: []DataFile{{uri: "file:///nope"}}},
	} {
		m.Table = executions
		_, err := c.Commit(ctx, []Commit{m})
		var conflict *ConflictError
		if !errors.Is(err, ErrConflict) || !errors.As(err, &conflict) {
			t.Errorf("%s: %v, want ErrConflict", name, err)
		}
	}
	for name, m := range map[string]Commit{
		"nothing":        {},
		"property":       {Properties: map[string]string{PropertyThrough: "x"}},
		"empty file":     {Add: []NewFile{{Path: "a/b"}}},
		"replace+remove": {Replace: got, Remove: got},
		"tag main":       {Tags: map[string]int64{"main": 0}},
	} {
		m.Table = executions
		if _, err := c.Commit(ctx, []Commit{m}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if after, err := c.Load(ctx, executions); err != nil || after.pointer != tbl.pointer {
		t.Errorf("refused commits changed the table: %v", err)
	}
}

func ptr[T any](v T) *T { return &v }

// TestReadByLibrary writes tables through us and reads them with the library's own scan.
func TestReadByLibrary(t *testing.T) { onEachLake(t, testReadByLibrary) }

func testReadByLibrary(t *testing.T, w *world) {
	ctx := t.Context()
	c := w.open()
	tbl := mustCreate(t, c, executionsSpec(executions))
	for i := range 5 {
		tbl = commit(t, c, Commit{Table: executions, Add: []NewFile{written(t, c, tbl, date0+int32(i%2), int64(i)*100, 100)}, Through: through((i + 1) * 100)})
	}
	check := func(want int64) {
		t.Helper()
		lt, err := c.Library().LoadTable(ctx, executions.identifier())
		if err != nil {
			t.Fatal(err)
		}
		data, err := lt.Scan(table.WithSelectedFields("seq", "trade_date")).ToArrowTable(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer data.Release()
		if data.NumRows() != want {
			t.Errorf("library reads %d rows, want %d", data.NumRows(), want)
		}
	}
	check(500)

	// Compaction of one partition: the same rows in one file.
	old := FilesIn(files(t, c, tbl, At{}), date0)
	tbl = commit(t, c, Commit{Table: executions, Replace: old, Add: []NewFile{written(t, c, tbl, date0, 10_000, 300)}})
	check(500)

	// A position delete.
	f := FilesIn(files(t, c, tbl, At{}), date0)[0]
	tbl = commit(t, c, Commit{Table: executions, Deletes: []NewDeletes{positions(t, c, tbl, f, 0, 7, 299)}})
	check(497)
	got := FilesIn(files(t, c, tbl, At{}), date0)[0]
	if len(got.Deletes) != 1 || got.Deletes[0].DataFile != got.URI() || got.Deletes[0].Rows != 3 {
		t.Errorf("deletes = %+v", got.Deletes)
	}

	// Compaction applies the delete, and the delete file goes with it.
	tbl = commit(t, c, Commit{Table: executions, Replace: []DataFile{got}, Add: []NewFile{written(t, c, tbl, date0, 20_000, 297)}})
	check(497)
	if got := FilesIn(files(t, c, tbl, At{}), date0); len(got) != 1 || len(got[0].Deletes) != 0 {
		t.Errorf("files = %+v", got)
	}
	live, err := c.live(ctx, tbl.meta.CurrentSnapshot())
	if err != nil {
		t.Fatal(err)
	}
	if len(live) != 3 {
		t.Errorf("%d live entries, want 3 data files and no delete file", len(live))
	}

	// The library appends through us, fenced and with its own retry.
	lt, err := c.Library().LoadTable(ctx, executions.identifier())
	if err != nil {
		t.Fatal(err)
	}
	tx := lt.NewTransaction()
	if err := tx.SetProperties(map[string]string{"by": "library"}); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if after, err := c.Load(ctx, executions); err != nil || after.Properties["by"] != "library" || after.Through()[key0] != 500 {
		t.Errorf("after the library's commit: %v, %v", after, err)
	}
}

// positions writes a position-delete file.
func positions(t testing.TB, c *Catalog, tbl *Table, f DataFile, rows ...int64) NewDeletes {
	t.Helper()
	id := func(n int) arrow.Metadata {
		return arrow.NewMetadata([]string{"PARQUET:field_id"}, []string{strconv.Itoa(n)})
	}
	sc := arrow.NewSchema([]arrow.Field{
		{Name: "file_path", Type: arrow.BinaryTypes.String, Metadata: id(2147483546)},
		{Name: "pos", Type: arrow.PrimitiveTypes.Int64, Metadata: id(2147483545)},
	}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, sc)
	defer b.Release()
	for _, r := range rows {
		b.Field(0).(*array.StringBuilder).Append(f.URI())
		b.Field(1).(*array.Int64Builder).Append(r)
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	d := NewDeletes{Path: fmt.Sprintf("%s/%08d-deletes.parquet", tbl.DataDir(), fileNumber.Add(1)), Rows: int64(len(rows)), From: f}
	d.SizeBytes = writeParquet(t, c, d.Path, rec)
	return d
}

func TestTags(t *testing.T) {
	ctx := t.Context()
	c := newWorld(t).open()
	mustCreate(t, c, executionsSpec(executions))

	// A seal of a day without any record: the empty state is tagged.
	tbl := commit(t, c, Commit{Table: executions, Tags: map[string]int64{"seal-0": 0}, Through: through(4)})
	if id, err := tbl.Resolve(At{Tag: "seal-0"}); err != nil || id != tbl.Snapshot() || id == 0 {
		t.Fatalf("Resolve = %d, %v", id, err)
	}
	tbl = commit(t, c, Commit{Table: executions, Add: []NewFile{ghost(tbl, date0, 0, 10)}, Tags: map[string]int64{"seal-1": 0}, Through: through(14)})
	one := tbl.Snapshot()
	commit(t, c, Commit{Table: executions, Add: []NewFile{ghost(tbl, date0, 10, 10)}, Through: through(24)})
	tbl = commit(t, c, Commit{Table: executions, Tags: map[string]int64{"again-1": one, "now": 0}})
	if got := tbl.Tags(); got["seal-1"] != one || got["again-1"] != one || got["now"] != tbl.Snapshot() {
		t.Errorf("tags = %v", got)
	}
	for at, rows := range map[At]int64{{Tag: "seal-0"}: 0, {Tag: "seal-1"}: 10, {SnapshotID: one}: 10, {}: 20} {
		if got := rowsOf(files(t, c, tbl, at)); got != rows {
			t.Errorf("%+v has %d rows, want %d", at, got, rows)
		}
	}
	if v, err := tbl.ThroughAt(At{Tag: "seal-0"}); err != nil || v[key0] != 4 {
		t.Errorf("ThroughAt = %v, %v", v, err)
	}
	if _, err := c.Commit(ctx, []Commit{{Table: executions, Tags: map[string]int64{"seal-1": tbl.Snapshot()}}}); !errors.Is(err, ErrConflict) {
		t.Errorf("moving a tag: %v", err)
	}
	if _, err := c.Commit(ctx, []Commit{{Table: executions, Tags: map[string]int64{"x": 12345}}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("tag of nothing: %v", err)
	}
	if _, err := c.Files(ctx, tbl, At{Tag: "none"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown tag: %v", err)
	}
	tbl = commit(t, c, Commit{Table: executions, DropTags: []string{"again-1"}})
	if _, ok := tbl.Tags()["again-1"]; ok {
		t.Error("the tag is still there")
	}
}

func TestSchemaEvolution(t *testing.T) {
	ctx := t.Context()
	c := newWorld(t).open()
	tbl := mustCreate(t, c, executionsSpec(executions))
	commit(t, c, Commit{Table: executions, Add: []NewFile{written(t, c, tbl, date0, 0, 10)}, Through: through(10)})
	tbl, err := c.AddColumn(ctx, executions, record.Field{Name: "executed_at_ns", Type: record.Type{Kind: record.Long}, Derive: record.EpochNanos, From: "executed_at"})
	if err != nil {
		t.Fatal(err)
	}
	f := tbl.Schema.Fields[len(tbl.Schema.Fields)-1]
	if f.ID != 11 || f.Derive != record.EpochNanos || f.From != "executed_at" || tbl.Schema.ID != 1 || tbl.Through()[key0] != 10 {
		t.Errorf("field = %+v, schema id %d", f, tbl.Schema.ID)
	}
	if old, ok := tbl.SchemaByID(0); !ok || len(old.Fields) != 10 {
		t.Errorf("old schema = %+v, %v", old, ok)
	}
	tbl = commit(t, c, Commit{Table: executions, Add: []NewFile{written(t, c, tbl, date0+1, 10, 5)}})
	got := files(t, c, tbl, At{})
	if got[0].SchemaID != 0 || got[1].SchemaID != 1 {
		t.Errorf("schema ids %d, %d", got[0].SchemaID, got[1].SchemaID)
	}
	if _, err := c.AddColumn(ctx, executions, record.Field{Name: "seq", Type: record.Type{Kind: record.Long}}); !errors.Is(err, ErrExists) {
		t.Errorf("column twice: %v", err)
	}
	if _, err := c.AddColumn(ctx, executions, record.Field{Name: "r", Type: record.Type{Kind: record.Long}, Required: true}); !errors.Is(err, ErrInvalid) {
		t.Errorf("required column: %v", err)
	}
	lt, err := c.Library().LoadTable(ctx, executions.identifier())
	if err != nil {
		t.Fatal(err)
	}
	data, err := lt.Scan().ToArrowTable(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Release()
	if data.NumRows() != 15 || data.NumCols() != 11 {
		t.Errorf("library reads %d rows of %d columns", data.NumRows(), data.NumCols())
	}
}

func TestDropRenameNamespaces(t *testing.T) { onEachLake(t, testDropRenameNamespaces) }

func testDropRenameNamespaces(t *testing.T, w *world) {
	ctx := t.Context()
	c := w.open()
	tbl := mustCreate(t, c, executionsSpec(executions))
	commit(t, c, Commit{Table: executions, Add: []NewFile{written(t, c, tbl, date0, 0, 10)}})
	if err := c.CreateNamespace(ctx, "equities", nil); !errors.Is(err, ErrExists) {
		t.Errorf("namespace twice: %v", err)
	}
	if err := c.CreateNamespace(ctx, "users", map[string]string{"a": "b"}); err != nil {
		t.Fatal(err)
	}
	if p, err := c.NamespaceProperties(ctx, "users"); err != nil || !maps.Equal(p, map[string]string{"a": "b", "exists": "true"}) {
		t.Errorf("properties = %v, %v", p, err)
	}
	if err := c.UpdateNamespace(ctx, "users", []string{"a"}, map[string]string{"c": "d"}); err != nil {
		t.Fatal(err)
	}
	if p, err := c.NamespaceProperties(ctx, "users"); err != nil || !maps.Equal(p, map[string]string{"c": "d", "exists": "true"}) {
		t.Errorf("properties = %v, %v", p, err)
	}
	if _, err := c.NamespaceProperties(ctx, "none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("properties of nothing: %v", err)
	}
	to := Name{"users", "copy"}
	if err := c.RenameTable(ctx, executions, to); err != nil {
		t.Fatal(err)
	}
	moved, err := c.Load(ctx, to)
	if err != nil || moved.UUID != tbl.UUID || rowsOf(files(t, c, moved, At{})) != 10 {
		t.Errorf("renamed table: %+v, %v", moved, err)
	}
	if err := c.DropNamespace(ctx, "users"); !errors.Is(err, ErrConflict) {
		t.Errorf("drop of a full namespace: %v", err)
	}
	if err := c.DropTable(ctx, to); err != nil {
		t.Fatal(err)
	}
	if err := c.DropTable(ctx, to); !errors.Is(err, ErrNotFound) {
		t.Errorf("second drop: %v", err)
	}
	if err := c.DropNamespace(ctx, "users"); err != nil {
		t.Error(err)
	}

	// A new table of the old name is another one; the sweep takes only the old files.
	again := mustCreate(t, c, executionsSpec(executions))
	if again.Location == tbl.Location {
		t.Error("the new table has the old one's place")
	}
	if r, err := c.Sweep(ctx, SweepPolicy{Grace: time.Hour}); err != nil || r.Deleted != 0 {
		t.Errorf("sweep within the grace: %+v, %v", r, err)
	}
	w.later(2 * time.Hour)
	pinned := ""
	for _, f := range files(t, c, moved, At{}) {
		pinned = f.Path
	}
	r, err := c.Sweep(ctx, SweepPolicy{Grace: time.Hour, Pinned: func(p string) bool { return p == pinned }})
	if err != nil || r.Deleted == 0 || r.Pinned != 1 {
		t.Errorf("sweep = %+v, %v", r, err)
	}
	if r, err = c.Sweep(ctx, SweepPolicy{Grace: time.Hour}); err != nil || r.Deleted != 1 {
		t.Errorf("second sweep = %+v, %v", r, err)
	}
	if n := countFiles(t, w.store, tbl.prefix+"/"); n != 0 {
		t.Errorf("%d files of the dropped table are left", n)
	}
	if _, err := c.Load(ctx, executions); err != nil {
		t.Error(err)
	}
}

func countFiles(t testing.TB, s lake.Store, prefix string) (n int) {
	t.Helper()
	if err := s.List(context.Background(), prefix, func(lake.Info) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}
