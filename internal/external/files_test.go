package external

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tapehouse/tapehouse/internal/hive"
	"github.com/tapehouse/tapehouse/internal/lake"
)

func newSection(b []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))
}

func keyed(d hive.Table, keys ...string) hive.Table {
	for _, k := range keys {
		name, typ, _ := strings.Cut(k, " ")
		d.PartitionKeys = append(d.PartitionKeys, hive.Column{Name: name, Type: typ})
	}
	return d
}

func TestPartitions(t *testing.T) {
	comma := definition(hive.LazySerde, map[string]string{"field.delim": ","}, "a int", "b string")
	b := newBucketDir(t, partitions{
		{Values: []string{"2026-01-01"}, Storage: &hive.Storage{Location: "s3://lake/t/dt=2026-01-01"}},
		{Values: []string{"2026-01-02"}}, // the place that Hive would give it
		{Values: []string{"2026-01-03"}, Storage: &hive.Storage{Location: "s3://lake/elsewhere/", Columns: []hive.Column{{Name: "B"}, {Name: "a"}},
			Serde: &hive.Serde{Library: hive.CSVSerde, Parameters: map[string]string{"separatorChar": ";"}}}},
		{Values: []string{hive.DefaultPartition}, Storage: &hive.Storage{Location: "s3://lake/none/"}},
		{Values: []string{"2026-01-05"}, Storage: &hive.Storage{Location: "s3://lake/absent/"}},
	}, nil)
	b.write("t/dt=2026-01-01/x", []byte("1,one\n"))
	b.write("t/dt=2026-01-02/x/y.gz", compressions[".gz"](t, []byte("2,two\n")))
	b.write("elsewhere/z.csv", []byte("three;3\n"))
	b.write("none/x", []byte("4,four\n"))
	b.write("t/dt=2026-01-09/x", []byte("9,not a partition\n"))
	d := keyed(comma, "dt date")
	b.want(d, "1|one|2026-01-01", "2|two|2026-01-02", "3|three|2026-01-03", "4|four|"+hive.DefaultPartition)
	got, err := b.rows(d, func(v []string) bool { return v[0] == "2026-01-02" })
	if err != nil || len(got) != 1 {
		t.Errorf("%q, %v", got, err)
	}
	b.refused(keyed(comma, "dt date", "sym string"), ErrDefinition, "2 partition keys")
	b.refused(keyed(comma, "dt double"), ErrUnsupported, "double")
}

// TestOddFiles reads files of every odd name through to their rows.
func TestOddFiles(t *testing.T) {
	for _, name := range []string{"with space", "percent%20", "ünïcødé/世界", `quo"te`, "it's", "back\\slash", "line\nfeed", "k=v/x", "hash#?&", "[*]", "a..b", "trailing.", "-dash"} {
		b := newBucketDir(t, nil, nil)
		d := definition(hive.CSVSerde, nil, "a int")
		b.write("t/"+name, []byte("1\n"))
		b.want(d, "1")
		d.Storage.Location = "s3://lake/t/" + name // the file itself
		b.want(d, "1")
		d.Storage.Location = "s3://lake/t" // no slash
		b.want(d, "1")
	}
	b := newBucketDir(t, nil, nil)
	b.write("t/\xff\xfe", []byte("1\n"))
	b.refused(definition(hive.CSVSerde, nil, "a int"), ErrData, "UTF-8")
}

func TestLocations(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBucketDir(t, nil, nil)
	b.write("t/x", []byte("1\n"))
	for _, location := range []string{"", "/etc", outside, "file://" + outside, "s3://lake/../" + filepath.Base(outside), "s3://lake/t/..", "s3://lake/./t", "s3://other/t", "hdfs://lake/t", "s3://lake/t//x", "s3://", "s3://lake//etc"} {
		d := definition(hive.CSVSerde, nil, "a int")
		d.Storage.Location = location
		b.refused(d, ErrDefinition)
	}
	for _, target := range []string{outside, filepath.Join(outside, "secret")} {
		if err := os.Symlink(target, filepath.Join(b.dir, "t", "link")); err != nil {
			t.Skipf("SKIPPED: no symbolic links here: %v", err)
		}
		b.refused(definition(hive.CSVSerde, nil, "a int"), ErrDefinition, "t/link", "symbolic link")
		if err := os.Remove(filepath.Join(b.dir, "t", "link")); err != nil {
			t.Fatal(err)
		}
	}
	d := definition(hive.CSVSerde, nil, "a int")
	d.Storage.AdditionalLocations = []string{"s3://lake/more/", "s3://lake/t/"}
	b.write("more/y", []byte("2\n"))
	b.want(d, "2", "1", "1")
}

func TestUnsupported(t *testing.T) {
	b := newBucketDir(t, nil, nil)
	base := func() hive.Table { return definition(hive.CSVSerde, nil, "a int") }
	for what, change := range map[string]func(*hive.Table){
		"a view of Hive's":  func(d *hive.Table) { d.Type = hive.VirtualView },
		"Iceberg":           func(d *hive.Table) { d.Parameters = map[string]string{"table_type": "ICEBERG"} },
		"Delta Lake":        func(d *hive.Table) { d.Parameters = map[string]string{"spark.sql.sources.provider": "delta"} },
		"partition project": func(d *hive.Table) { d.Parameters = map[string]string{"projection.enabled": "true"} },
		"transactional":     func(d *hive.Table) { d.Parameters = map[string]string{"transactional": "true"} },
		"ORC":               func(d *hive.Table) { d.Storage.InputFormat = "org.apache.hadoop.hive.ql.io.orc.OrcInputFormat" },
		"Avro":              func(d *hive.Table) { d.Storage.Serde.Library = "org.apache.hadoop.hive.serde2.avro.AvroSerDe" },
		"RegexSerDe":        func(d *hive.Table) { d.Storage.Serde.Library = "org.apache.hadoop.hive.serde2.RegexSerDe" },
		"symbolic links": func(d *hive.Table) {
			d.Storage.InputFormat = "org.apache.hadoop.hive.ql.io.SymlinkTextInputFormat"
		},
		"com.example.Own":        func(d *hive.Table) { d.Storage.Serde.Library = "com.example.Own" },
		"neither a SerDe":        func(d *hive.Table) { d.Storage.Serde = nil },
		"skip.footer.line.count": func(d *hive.Table) { d.Parameters = map[string]string{"skip.footer.line.count": "1"} },
		"separatorChar":          func(d *hive.Table) { d.Storage.Serde.Parameters = map[string]string{"separatorChar": "||"} },
		"serialization.encoding": func(d *hive.Table) {
			d.Storage.Serde.Parameters = map[string]string{"serialization.encoding": "latin1"}
		},
		"declare it as string": func(d *hive.Table) { d.Storage.Columns[0].Type = "array<int>" },
		"line.delim":           func(d *hive.Table) { d.Storage.Serde.Parameters = map[string]string{"line.delim": ";"} },
	} {
		d := base()
		change(&d)
		b.refused(d, ErrUnsupported, what)
	}
	for what, change := range map[string]func(*hive.Table){
		"no storage": func(d *hive.Table) { d.Storage = nil },
		"no columns": func(d *hive.Table) { d.Storage.Columns = nil },
		"stands tw": func(d *hive.Table) {
			d.Storage.Columns = append(d.Storage.Columns, hive.Column{Name: "A", Type: "int"})
		},
		"uniontype":   func(d *hive.Table) { d.Storage.Columns[0].Type = "uniontype<int,string>" },
		"no location": func(d *hive.Table) { d.Storage.Location = "" },
		"partition key": func(d *hive.Table) {
			d.PartitionKeys = []hive.Column{{Name: "a", Type: "string"}}
		},
	} {
		d := base()
		change(&d)
		b.refused(d, ErrDefinition, what)
	}
	// What a crawler notes chooses the format where there is no SerDe.
	b.write("t/x", []byte("1\x012\n"))
	d := base()
	d.Storage.Serde, d.Storage.InputFormat = nil, hive.TextInput
	b.want(d, "1")
}

func TestLimits(t *testing.T) {
	var many partitions
	for i := range 30 {
		many = append(many, hive.Partition{Values: []string{fmt.Sprint(i)}})
	}
	d := keyed(definition(hive.CSVSerde, nil, "a int"), "k int")
	b := newBucketDir(t, many, func(o *Options) { o.PartitionsMax = 20 })
	b.refused(d, ErrLimit, "20 partitions", "keys: k")
	b = newBucketDir(t, many, func(o *Options) { o.FilesMax = 20 })
	for i := range 30 {
		b.write(fmt.Sprintf("t/k=%d/x", i), []byte("1\n"))
	}
	b.refused(d, ErrLimit, "20 files", "keys: k")
	if got, err := b.rows(d, func(v []string) bool { return len(v[0]) == 1 }); err != nil || len(got) != 10 {
		t.Errorf("a part within the limit: %d rows, %v", len(got), err)
	}

	b = newBucketDir(t, nil, func(o *Options) { o.StageBytesMax = 16 << 10 })
	for i := range 8 {
		b.write(fmt.Sprintf("t/%d", i), []byte(strings.Repeat(fmt.Sprintf("%d\n", i), 10)))
	}
	whole := definition(hive.CSVSerde, nil, "a int")
	b.refused(whole, ErrLimit, "16384 bytes of local staging", "external.staging")
	b = newBucketDir(t, nil, func(o *Options) { o.StageBytesMax = 3 << 20 })
	for i := range 40 { // far more than there is room for, but not at once
		b.write("t/x", []byte(strings.Repeat(fmt.Sprintf("%d\n", i), 10+i)))
		if got, err := b.rows(whole, nil); err != nil || len(got) != 10+i {
			t.Fatalf("%d rows, %v", len(got), err)
		}
	}
	if b.r.stage.used > 3<<20 {
		t.Errorf("%d bytes staged", b.r.stage.used)
	}
}

// TestConcurrently: many readers of the same files, some of which give up.
func TestConcurrently(t *testing.T) {
	b := newBucketDir(t, nil, nil)
	for i := range 10 {
		b.write(fmt.Sprintf("t/%d.csv", i), []byte(strings.Repeat("1,x\n", 2000)))
	}
	table, err := b.table(definition(hive.LazySerde, map[string]string{"field.delim": ","}, "a int", "b string"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%3 == 0 {
				cancel()
			}
			f, err := table.Files(ctx, nil)
			if i%3 == 0 {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("a reader that gave up: %v", err)
				}
				return
			}
			if err != nil {
				t.Errorf("a reader beside others that give up: %v", err)
				return
			}
			defer f.Release()
			rows := int64(0)
			for _, x := range f.Files {
				rows += x.Rows
			}
			if rows != 20_000 {
				t.Errorf("%d rows", rows)
			}
		})
	}
	wg.Wait()
	if kept := testutil.ToFloat64(b.r.metrics.files.WithLabelValues(fileKept)); kept < 100 {
		t.Errorf("%v of some 160 files were staged already", kept)
	}
	if got := testutil.ToFloat64(b.r.metrics.usedBytes); int64(got) != b.r.stage.used || got == 0 {
		t.Errorf("the metric says that %v bytes are staged, and there are %d", got, b.r.stage.used)
	}
	if n := len(b.r.stage.files); n != 10 || b.r.stage.idle.Len() != 10 {
		t.Errorf("%d staged files, %d idle", n, b.r.stage.idle.Len())
	}
}

// changing is a bucket whose files change between listing and opening.
type changing struct {
	lake.Foreign
	change func()
}

func (c changing) OpenFile(ctx context.Context, f lake.ForeignFile) (lake.Reader, error) {
	c.change()
	return c.Foreign.OpenFile(ctx, f)
}

func TestChanges(t *testing.T) {
	for name, c := range map[string]struct {
		change func(p string) error
		word   string
	}{
		"removed":  {os.Remove, "removed"},
		"appended": {func(p string) error { return os.WriteFile(p, []byte("1\n2\n3\n"), 0o600) }, "written to"},
	} {
		for _, library := range []string{hive.CSVSerde, hive.ParquetSerde} {
			var b *bucketDir
			b = newBucketDir(t, nil, func(o *Options) {
				open := o.Bucket
				o.Bucket = func(ctx context.Context, bucket string) (lake.Foreign, error) {
					l, err := open(ctx, bucket)
					return changing{l, func() {
						if err := c.change(filepath.Join(b.dir, "t/x")); err != nil {
							t.Error(err)
						}
					}}, err
				}
			})
			b.write("t/x", []byte("1\n"))
			d := definition(library, nil, "a int")
			t.Run(name+" "+library, func(*testing.T) { b.refused(d, ErrChanged, "s3://lake/t/x", c.word, "again") })
		}
	}
}
