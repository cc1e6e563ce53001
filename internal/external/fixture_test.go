package external

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	parquetgo "github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/hive"
	"github.com/tapehouse/tapehouse/internal/lake"
)

// partitions is a catalog of partitions.
type partitions []hive.Partition

func (p partitions) ExternalPartitions(_ context.Context, _ catalog.Name, page catalog.PartitionsPage, fn func(catalog.ExternalPartition) bool) error {
	for _, x := range p {
		if page.Wanted != nil && !page.Wanted(x.Values) {
			continue
		}
		if !fn(catalog.ExternalPartition{Partition: x}) {
			return nil
		}
	}
	return nil
}

// bucketDir is a Reader over one directory that is the bucket lake.
type bucketDir struct {
	t   testing.TB
	dir string
	r   *Reader
}

func newBucketDir(t testing.TB, p partitions, change func(*Options)) *bucketDir {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "lake")
	local := lake.OpenLocalForeign(dir)
	t.Cleanup(func() { _ = local.Close() })
	o := Options{Catalog: p, Dir: filepath.Join(root, "staging"), Bucket: func(_ context.Context, name string) (lake.Foreign, error) {
		if name != "lake" {
			return nil, fmt.Errorf("%w: no bucket %q", lake.ErrName, name)
		}
		return local, nil
	}}
	if change != nil {
		change(&o)
	}
	r, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return &bucketDir{t, dir, r}
}

func (b *bucketDir) write(name string, content []byte) {
	b.t.Helper()
	p := filepath.Join(b.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(p, content, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// definition is a table of a format: library, and columns as "name type".
func definition(library string, parameters map[string]string, columns ...string) hive.Table {
	s := &hive.Storage{Location: "s3://lake/t/", Serde: &hive.Serde{Library: library, Parameters: parameters}}
	for _, c := range columns {
		name, typ, _ := strings.Cut(c, " ")
		s.Columns = append(s.Columns, hive.Column{Name: name, Type: typ})
	}
	return hive.Table{Type: hive.ExternalTable, Storage: s}
}

func (b *bucketDir) table(d hive.Table) (*Table, error) {
	return b.r.Table(&catalog.External{Name: catalog.Name{Namespace: "n", Table: "t"}, ID: "id", Version: 1, Definition: d})
}

// rows reads a table's rows, the files one behind the other, cells parted by '|',
// null as ∅. The layout is applied: what has no source is null.
func (b *bucketDir) rows(d hive.Table, wanted func([]string) bool) ([]string, error) {
	t, err := b.table(d)
	if err != nil {
		return nil, err
	}
	files, err := t.Files(context.Background(), wanted)
	if err != nil {
		return nil, err
	}
	defer files.Release()
	var out []string
	for _, f := range files.Files {
		r, err := file.OpenParquetFile(f.Path, false)
		if err != nil {
			return nil, err
		}
		a, err := pqarrow.NewFileReader(r, pqarrow.ArrowReadProperties{}, memory.NewGoAllocator())
		if err != nil {
			return nil, err
		}
		tab, err := a.ReadTable(context.Background())
		if err != nil {
			return nil, err
		}
		rows := make([][]string, tab.NumRows())
		for _, c := range f.Layout.Columns {
			at := -1
			for j := range int(tab.NumCols()) {
				if tab.Column(j).Name() == c.Name {
					at = j
				}
			}
			if at < 0 {
				for i := range rows {
					rows[i] = append(rows[i], "∅")
				}
				continue
			}
			i := 0
			for _, chunk := range tab.Column(at).Data().Chunks() {
				for j := range chunk.Len() {
					v := "∅"
					if !chunk.IsNull(j) {
						v = chunk.ValueStr(j)
					}
					rows[i] = append(rows[i], v)
					i++
				}
			}
		}
		for _, row := range rows {
			out = append(out, strings.Join(append(row, f.Values...), "|"))
		}
		tab.Release()
		if err := r.Close(); err != nil {
			return nil, err
		}
	}
	return out, files.Unchanged()
}

func (b *bucketDir) want(d hive.Table, want ...string) {
	b.t.Helper()
	got, err := b.rows(d, nil)
	if err != nil {
		b.t.Errorf("%v", err)
		return
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		b.t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func (b *bucketDir) refused(d hive.Table, kind error, words ...string) {
	b.t.Helper()
	got, err := b.rows(d, nil)
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, kind) {
		b.t.Errorf("%v, rows %q; want an *Error of kind %v", err, got, kind)
		return
	}
	for _, w := range words {
		if !strings.Contains(e.Message+"\n"+e.Hint, w) {
			b.t.Errorf("%q (hint %q) does not say %q", e.Message, e.Hint, w)
		}
	}
}

// compressions make each compressed form of a content.
var compressions = map[string]func(testing.TB, []byte) []byte{
	"": func(_ testing.TB, b []byte) []byte { return b },
	".gz": func(t testing.TB, b []byte) []byte { // two members
		var out bytes.Buffer
		for _, half := range [][]byte{b[:len(b)/2], b[len(b)/2:]} {
			w := gzip.NewWriter(&out)
			write(t, w, half)
		}
		return out.Bytes()
	},
	".zst": func(t testing.TB, b []byte) []byte {
		var out bytes.Buffer
		w, err := zstd.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		write(t, w, b)
		return out.Bytes()
	},
	".sz": func(t testing.TB, b []byte) []byte {
		var out bytes.Buffer
		write(t, snappy.NewBufferedWriter(&out), b)
		return out.Bytes()
	},
	".snappy": func(_ testing.TB, b []byte) []byte { // Hadoop's, of blocks of two chunks
		var out []byte
		for len(b) > 0 {
			n := min(len(b), 20)
			out = binary.BigEndian.AppendUint32(out, uint32(n))
			for _, chunk := range [][]byte{b[:n/2], b[n/2 : n]} {
				z := snappy.Encode(nil, chunk)
				out = append(binary.BigEndian.AppendUint32(out, uint32(len(z))), z...)
			}
			b = b[n:]
		}
		return out
	},
	".java.snappy": func(_ testing.TB, b []byte) []byte {
		out := append([]byte("\x82SNAPPY\x00"), 0, 0, 0, 1, 0, 0, 0, 1)
		for len(b) > 0 {
			n := min(len(b), 16)
			z := s2.EncodeSnappy(nil, b[:n])
			out = append(binary.BigEndian.AppendUint32(out, uint32(len(z))), z...)
			b = b[n:]
		}
		return out
	},
	".bz2": func(t testing.TB, b []byte) []byte {
		bzip2, err := exec.LookPath("bzip2")
		if err != nil {
			t.Log("SKIPPED: no bzip2 to write with")
			return nil
		}
		c := exec.Command(bzip2, "-c")
		c.Stdin = bytes.NewReader(b)
		out, err := c.Output()
		if err != nil {
			t.Fatal(err)
		}
		return out
	},
}

func write(t testing.TB, w io.WriteCloser, b []byte) {
	t.Helper()
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// parquetFile is a file of one row group, of columns of arrow types and their
// values in JSON.
func parquetFile(t testing.TB, fields []arrow.Field, rows string, options ...pqarrow.WriterOption) []byte {
	t.Helper()
	s := arrow.NewSchema(fields, nil)
	batch, _, err := array.RecordFromJSON(memory.NewGoAllocator(), s, strings.NewReader(rows))
	if err != nil {
		t.Fatal(err)
	}
	defer batch.Release()
	var b bytes.Buffer
	w, err := pqarrow.NewFileWriter(s, &b, parquetgo.NewWriterProperties(), pqarrow.NewArrowWriterProperties(options...))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(batch); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
