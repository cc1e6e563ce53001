package crawler

import (
	"bytes"
	"cmp"
	"compress/bzip2"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	arrowmemory "github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
)

// bucket is a source in memory, as a bucket is: no folders, only names.
type bucket struct {
	mu    sync.Mutex
	files map[string]bucketFile
	fail  map[string]error // of names: their Open fails
	lists error            // List fails after the first object
	opens []string
	now   time.Time // of files that are put
	gone  bool
}

type bucketFile struct {
	data     []byte
	modified time.Time
	etag     string
}

var epoch = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func newBucket() *bucket {
	return &bucket{files: map[string]bucketFile{}, fail: map[string]error{}, now: epoch.Add(-time.Hour)}
}

func (b *bucket) put(name, data string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.files[name] = bucketFile{[]byte(data), b.now, fmt.Sprintf("%x-%d", len(data), b.now.UnixNano())}
}

func (b *bucket) remove(prefix string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name := range b.files {
		if strings.HasPrefix(name, prefix) {
			delete(b.files, name)
		}
	}
}

// opened returns the names that were opened since the last call, sorted.
func (b *bucket) opened() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.opens
	b.opens = nil
	slices.Sort(out)
	return out
}

func (b *bucket) List(ctx context.Context, prefix string, fn func(Object) error) error {
	b.mu.Lock()
	var list []Object
	for name, f := range b.files {
		if strings.HasPrefix(name, prefix) {
			o := Object{Name: name, SizeBytes: int64(len(f.data)), ModifiedAt: f.modified, ETag: f.etag}
			if strings.HasSuffix(name, ".link") {
				o.Refused = "a symbolic link"
			}
			list = append(list, o)
		}
	}
	fails, gone := b.lists, b.gone
	b.mu.Unlock()
	if gone {
		return fs.ErrNotExist
	}
	slices.SortFunc(list, func(a, b Object) int { return cmp.Compare(a.Name, b.Name) })
	for i, o := range list {
		if i == 1 && fails != nil {
			return fails
		}
		if err := fn(o); err != nil {
			return err
		}
	}
	return ctx.Err()
}

type bucketReader struct{ *bytes.Reader }

func (bucketReader) Close() error { return nil }

func (b *bucket) Open(_ context.Context, name string) (Reader, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opens = append(b.opens, name)
	if err := b.fail[name]; err != nil {
		return nil, err
	}
	f, ok := b.files[name]
	if !ok {
		return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
	}
	return bucketReader{bytes.NewReader(f.data)}, nil
}

func (b *bucket) URI(name string) string { return "s3://lake/" + name }

// world is a catalog with a manager over a bucket.
type world struct {
	t      testing.TB
	dir    string
	bucket *bucket
	cat    *catalog.Catalog
	m      *Manager
	ticks  sync.Mutex
	clock  time.Time
}

func (w *world) now() time.Time {
	w.ticks.Lock()
	defer w.ticks.Unlock()
	return w.clock
}

func (w *world) tick(d time.Duration) {
	w.ticks.Lock()
	defer w.ticks.Unlock()
	w.clock = w.clock.Add(d)
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, dir: t.TempDir(), bucket: newBucket(), clock: epoch}
	w.open()
	t.Cleanup(w.close)
	return w
}

func (w *world) open() {
	w.t.Helper()
	store, err := lake.OpenLocal(fsys.OS, filepath.Join(w.dir, "lake"))
	must(w.t, err)
	w.cat, err = catalog.Open(context.Background(), catalog.Options{Dir: filepath.Join(w.dir, "catalog"), Warehouse: store, Owner: "test"})
	must(w.t, err)
	w.m, err = New(context.Background(), w.options())
	must(w.t, err)
}

func (w *world) options() Options {
	return Options{Catalog: w.cat, Dir: filepath.Join(w.dir, "crawler"), Now: w.now, Workers: 4,
		Logger: slog.New(slog.DiscardHandler), Open: func(_ context.Context, path string) (Source, string, error) {
			rest, ok := strings.CutPrefix(path, "s3://lake")
			if !ok || rest != "" && rest[0] != '/' {
				return nil, "", fmt.Errorf("no bucket serves %s", path)
			}
			return w.bucket, strings.Trim(rest, "/"), nil
		}}
}

func (w *world) close() {
	if w.m != nil {
		must(w.t, w.m.Close())
		must(w.t, w.cat.Close())
		w.m = nil
	}
}

func (w *world) reopen() {
	w.close()
	w.open()
}

func (w *world) define(d Definition) Definition {
	w.t.Helper()
	if d.Name == "" {
		d.Name = "c"
	}
	if d.Database == "" {
		d.Database = "files"
	}
	if len(d.Targets) == 0 {
		d.Targets = []Target{{Path: "s3://lake/"}}
	}
	must(w.t, w.m.Create(context.Background(), d))
	return d
}

func (w *world) crawl(name string) *Report {
	w.t.Helper()
	r, err := w.m.Run(context.Background(), name)
	must(w.t, err)
	return r
}

func (w *world) table(name string) catalog.External {
	w.t.Helper()
	e, err := w.cat.External(context.Background(), catalog.Name{Namespace: "files", Table: name})
	must(w.t, err)
	return e
}

func (w *world) tables() []string {
	w.t.Helper()
	list, err := w.cat.Externals(context.Background(), "files")
	must(w.t, err)
	var out []string
	for _, e := range list {
		out = append(out, e.Name.Table)
	}
	return out
}

func (w *world) partitions(name string) (out []catalog.ExternalPartition) {
	w.t.Helper()
	must(w.t, w.cat.ExternalPartitions(context.Background(), catalog.Name{Namespace: "files", Table: name}, catalog.PartitionsPage{}, func(p catalog.ExternalPartition) bool {
		out = append(out, p)
		return true
	}))
	return out
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// parquetFile is a file of one row of nulls, or of more.
func parquetFile(t testing.TB, rows int, fields ...arrow.Field) string {
	t.Helper()
	for i := range fields {
		fields[i].Nullable = true
	}
	schema := arrow.NewSchema(fields, nil)
	var b bytes.Buffer
	w, err := pqarrow.NewFileWriter(schema, &b, parquet.NewWriterProperties(), pqarrow.DefaultWriterProps())
	must(t, err)
	if rows > 0 {
		builder := array.NewRecordBuilder(arrowmemory.DefaultAllocator, schema)
		for i := range fields {
			builder.Field(i).AppendNulls(rows)
		}
		must(t, w.Write(builder.NewRecordBatch()))
	}
	must(t, w.Close())
	return b.String()
}

// arrowType reads a few names, for scripts.
func arrowType(t testing.TB, name string) arrow.DataType {
	t.Helper()
	types := map[string]arrow.DataType{"boolean": arrow.FixedWidthTypes.Boolean, "int": arrow.PrimitiveTypes.Int32, "bigint": arrow.PrimitiveTypes.Int64,
		"double": arrow.PrimitiveTypes.Float64, "string": arrow.BinaryTypes.String, "date": arrow.FixedWidthTypes.Date32, "timestamp": arrow.FixedWidthTypes.Timestamp_us}
	if typ, ok := types[name]; ok {
		return typ
	}
	var p, s int32
	if _, err := fmt.Sscanf(name, "decimal(%d,%d)", &p, &s); err != nil {
		t.Fatalf("type %s: %v", name, err)
	}
	return &arrow.Decimal128Type{Precision: p, Scale: s}
}

func compressed(t testing.TB, how, data string) string {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch how {
	case gzipC:
		w = gzip.NewWriter(&b)
	case zstdC:
		w, err = zstd.NewWriter(&b)
	case snappy:
		w = s2.NewWriter(&b, s2.WriterSnappyCompat())
	case "java":
		block := s2.EncodeSnappy(nil, []byte(data))
		b.WriteString("\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01")
		b.Write(binary.BigEndian.AppendUint32(nil, uint32(len(block))))
		b.Write(block)
		return b.String()
	case "hadoop":
		block := s2.EncodeSnappy(nil, []byte(data))
		b.Write(binary.BigEndian.AppendUint32(nil, uint32(len(data))))
		b.Write(binary.BigEndian.AppendUint32(nil, uint32(len(block))))
		b.Write(block)
		return b.String()
	case bzip2C:
		cmd := exec.Command("bzip2", "-c")
		cmd.Stdin = strings.NewReader(data)
		out, err := cmd.Output()
		if err != nil {
			t.Skipf("SKIPPED: bzip2: %v", err)
		}
		if _, err := io.ReadAll(bzip2.NewReader(bytes.NewReader(out))); err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	must(t, err)
	_, err = io.WriteString(w, data)
	must(t, errors.Join(err, w.Close()))
	return b.String()
}
