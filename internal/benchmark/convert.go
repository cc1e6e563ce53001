package benchmark

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/record"
)

// zstdLevel is what both sides compress with: ours by default.
const zstdLevel = 1

// side is one of the two that are compared.
type side struct {
	RecordsPerSecond float64 `json:"records_per_second"`
	Seconds          float64 `json:"seconds"` // median
	CPUNanos         float64 `json:"cpu_ns_per_record"`
	OutputBytes      int64   `json:"output_bytes"`
}

type converted struct {
	Ratio      float64 `json:"ratio"`     // DuckDB's time / ours
	CPURatio   float64 `json:"cpu_ratio"` // DuckDB's CPU time / ours
	General    bool    `json:"general"`
	Records    int     `json:"records"`
	InputBytes int64   `json:"input_bytes"`
	Threads    int     `json:"threads"`
	ZstdLevel  int     `json:"zstd_level"`
	Tapehouse  side    `json:"tapehouse"`
	DuckDB     side    `json:"duckdb"`
}

// convert turns one file of JSON lines into Parquet by both sides in turn: the
// same file (in the page cache after the first look), threads, compression and
// level, neither output sorted or fsynced. DuckDB is told columns and types, and
// that it need not keep the order, which is how it is fastest.
func convert(ctx context.Context, o Options, r *reporter) (_ any, err error) {
	c := converted{Records: orDefault(o.Records, 4_000_000), Threads: orDefault(o.Threads, runtime.NumCPU()), ZstdLevel: zstdLevel}
	dir, err := os.MkdirTemp(o.Dir, "tapehouse-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	input := filepath.Join(dir, "trades.json")
	if c.InputBytes, err = writeRecords(input, c.Records, o.General); err != nil {
		return nil, fmt.Errorf("write the input: %w", err)
	}
	fields := recordFields()
	if o.General {
		fields = generalFields()
		r.printf("members in random order, nulls, missing members, escapes, unicode, unknown nested members\n")
	}
	c.General = o.General
	r.printf("%s records, %d MiB of JSON, %d threads, zstd level %d\n", grouped(c.Records), c.InputBytes>>20, c.Threads, zstdLevel)
	layout, err := columnar.Compile(record.Schema{Fields: fields}, columnar.Options{ZstdLevel: zstdLevel})
	if err != nil {
		return nil, err
	}
	peer, err := engine.OpenPeer(ctx, c.Threads)
	if err != nil {
		return nil, err
	}
	defer peer.Close()
	if err := peer.Exec(ctx, "SET preserve_insertion_order = false; SET TimeZone = 'UTC'"); err != nil {
		return nil, err
	}
	ours, theirs := filepath.Join(dir, "tapehouse.parquet"), filepath.Join(dir, "duckdb.parquet")
	var a, b timings
	for i := range orDefault(o.Runs, 5) + 1 {
		if err := errors.Join(remove(ours), remove(theirs)); err != nil {
			return nil, err
		}
		one, err := timed(func() error { return convertFile(ctx, layout, input, ours, c.Threads) })
		if err != nil {
			return nil, fmt.Errorf("tapehouse: %w", err)
		}
		two, err := timed(func() error { return peer.Exec(ctx, copyStatement(fields, input, theirs)) })
		if err != nil {
			return nil, fmt.Errorf("duckdb: %w", err)
		}
		if i == 0 { // the first look warms file, pools and instance
			continue
		}
		a, b = append(a, one), append(b, two)
		r.printf("run %d: tapehouse %.3f s, duckdb %.3f s\n", i, one.wall.Seconds(), two.wall.Seconds())
	}
	c.Tapehouse, c.DuckDB = a.side(c.Records), b.side(c.Records)
	c.Ratio, c.CPURatio = c.DuckDB.Seconds/c.Tapehouse.Seconds, c.DuckDB.CPUNanos/c.Tapehouse.CPUNanos
	if c.Tapehouse.OutputBytes, err = sizeOf(ours); err != nil {
		return nil, err
	}
	if c.DuckDB.OutputBytes, err = sizeOf(theirs); err != nil {
		return nil, err
	}
	if err := sameSums(ctx, peer, fields, ours, theirs, c.Records); err != nil {
		return nil, err
	}
	r.printf("median: tapehouse %s records/s (%.0f ns CPU), duckdb %s records/s (%.0f ns CPU): ratio %.2f, by CPU time %.2f\n",
		grouped(c.Tapehouse.RecordsPerSecond), c.Tapehouse.CPUNanos, grouped(c.DuckDB.RecordsPerSecond), c.DuckDB.CPUNanos, c.Ratio, c.CPURatio)
	r.printf("output: tapehouse %.1f MiB, duckdb %.1f MiB; both hold the same rows by count and sums\n",
		float64(c.Tapehouse.OutputBytes)/(1<<20), float64(c.DuckDB.OutputBytes)/(1<<20))
	return c, nil
}

type timing struct{ wall, cpu time.Duration }

type timings []timing

func timed(run func() error) (timing, error) {
	began, cpu := time.Now(), ownCPU()
	err := run()
	return timing{time.Since(began), ownCPU() - cpu}, err
}

func (t timings) side(records int) side {
	m := medianBy(t, func(t timing) float64 { return t.wall.Seconds() })
	return side{RecordsPerSecond: float64(records) / m.wall.Seconds(), Seconds: m.wall.Seconds(), CPUNanos: float64(m.cpu) / float64(records)}
}

func remove(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func sizeOf(name string) (int64, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

// writeRecords writes the records of eight sources in turn, one a line.
func writeRecords(name string, records int, general bool) (int64, error) {
	f, err := os.Create(name)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // closed below where it matters
	w := bufio.NewWriterSize(f, 1<<20)
	m := newMarket(seed)
	sources := make([]*source, 8)
	for i := range sources {
		sources[i] = newSource(m, i, seed)
	}
	size := int64(0)
	random := rand.New(rand.NewPCG(seed, 3))
	members := make([][]byte, 0, 32)
	var text []byte
	for i := 0; records > 0; i++ {
		for _, doc := range sources[i%len(sources)].put() {
			if records == 0 {
				break
			}
			records--
			if general {
				text = generalize(text[:0], doc, random, members)
				doc = text
			}
			size += int64(len(doc)) + 1
			_, _ = w.Write(doc) // Flush reports
			_ = w.WriteByte('\n')
		}
	}
	if err := w.Flush(); err != nil {
		return 0, err
	}
	return size, f.Close()
}

const (
	chunkBytes = 512 << 10 // of JSON that a thread takes at a time
	lineMax    = 1 << 20
	// batchDocs is more than a chunk has of these records: dictionaries fill once a
	// chunk.
	batchDocs = 4096
)

// convertFile converts a file of JSON lines with so many threads. Each takes
// the next chunk of the file, cuts it at line ends, decodes, and gathers rows;
// what they have gathered is concatenated at the end.
func convertFile(ctx context.Context, layout *columnar.Layout, input, output string, threads int) error {
	in, err := os.Open(input)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // read only
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	mapped, err := unix.Mmap(int(in.Fd()), 0, int(fi.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %s: %w", input, err)
	}
	defer unix.Munmap(mapped) //nolint:errcheck // nothing to lose
	var mu sync.Mutex
	var next int64
	var parts []columnar.Part
	errs := make([]error, threads)
	var wg sync.WaitGroup
	for i := range threads {
		wg.Go(func() {
			c := converter{input: mapped, size: fi.Size(), decoder: layout.NewDecoder(), builder: layout.NewBuilder()}
			for errs[i] == nil && ctx.Err() == nil {
				mu.Lock()
				from := next
				next += chunkBytes
				mu.Unlock()
				if from >= fi.Size() {
					break
				}
				errs[i] = c.chunk(from)
			}
			errs[i] = errors.Join(errs[i], c.flush())
			mu.Lock()
			parts = append(parts, c.parts...)
			mu.Unlock()
		})
	}
	wg.Wait()
	if err := errors.Join(append(errs, ctx.Err())...); err != nil {
		return err
	}
	sources := make([]columnar.Source, len(parts))
	for i, p := range parts {
		sources[i] = columnar.Source{ReaderAt: bytes.NewReader(p.Data), Size: int64(len(p.Data)), Meta: p.Meta}
	}
	out, err := os.Create(output)
	if err != nil {
		return err
	}
	_, err = columnar.Concat(out, sources)
	return errors.Join(err, out.Close())
}

// converter is what one thread owns.
type converter struct {
	input   []byte // mapped
	size    int64
	decoder *columnar.Decoder
	builder *columnar.Builder
	buffer  []byte
	ends    []int32
	parts   []columnar.Part
}

// flush takes what the builder has: a row group at a time, so that no growing
// file is moved in memory.
func (c *converter) flush() error {
	parts, err := c.builder.Flush()
	c.parts = append(c.parts, parts...)
	return err
}

// window returns the bytes [start, end) of the input, with columnar.Slack readable
// bytes behind them. The pages up to `to` are mapped at once and not one fault
// after another: a fifth less CPU in all than reading into a buffer.
func (c *converter) window(start, end, to int64) []byte {
	page := int64(os.Getpagesize())
	_ = unix.Madvise(c.input[start&^(page-1):to], unix.MADV_POPULATE_READ) // an older kernel faults
	if end+columnar.Slack <= c.size {
		return c.input[start:end]
	}
	c.buffer = append(c.buffer[:0], c.input[start:end]...)
	return slices.Grow(c.buffer, columnar.Slack)
}

// chunk converts the lines that begin in [from, from+chunkBytes).
func (c *converter) chunk(from int64) error {
	start := max(0, from-1) // the byte before tells whether a line begins at from
	to := min(c.size, from+chunkBytes)
	b := c.window(start, min(c.size, to+lineMax), to)
	at := 0
	if from > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return fmt.Errorf("line longer than %d bytes at byte %d", lineMax, from)
		}
		at = i + 1
	}
	limit := int(to - start)
	for at < limit {
		c.ends = c.ends[:0]
		doc := at
		for at < limit && len(c.ends) < batchDocs {
			i := bytes.IndexByte(b[at:], '\n')
			if i < 0 {
				if int64(len(b))+start < c.size {
					return fmt.Errorf("line longer than %d bytes at byte %d", lineMax, start+int64(at))
				}
				i = len(b) - at - 1
			}
			at += i + 1
			c.ends = append(c.ends, int32(at-doc))
		}
		batch := c.decoder.Decode(b[doc:at:at+columnar.Slack], c.ends, 0)
		if len(batch.Rejects) > 0 {
			r := &batch.Rejects[0]
			err := fmt.Errorf("%s: %s: %s", r.Code, r.Message, r.Raw)
			batch.Release()
			return err
		}
		batch.SetOrigin(record.Key{}, 0)
		c.builder.Append(batch)
		batch.Release()
		if c.builder.Rows() >= columnar.MaxRowGroupRows-batchDocs {
			if err := c.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyStatement is what DuckDB does.
func copyStatement(fields []record.Field, input, output string) string {
	var columns []string
	for _, f := range fields {
		columns = append(columns, fmt.Sprintf("%s: '%s'", engine.QuoteLiteral(f.Name), engine.TypeOf(f.Type).SQL()))
	}
	return fmt.Sprintf("COPY (SELECT * FROM read_json(%s, format = 'newline_delimited', columns = {%s})) TO %s (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL %d)",
		engine.QuoteLiteral(input), strings.Join(columns, ", "), engine.QuoteLiteral(output), zstdLevel)
}

// sameSums holds the two files against each other, by a reader that neither of
// them was written for: counts, exact sums, and hashes of the texts.
func sameSums(ctx context.Context, peer *engine.Peer, fields []record.Field, ours, theirs string, records int) error {
	var sums []string
	for _, f := range fields {
		sums = append(sums, fmt.Sprintf("count(%s)", f.Name))
		switch f.Type.Kind {
		case record.String:
			sums = append(sums, fmt.Sprintf("sum(hash(%s)::hugeint)", f.Name))
		case record.TimestampTZ:
			sums = append(sums, fmt.Sprintf("sum(epoch_us(%s))", f.Name))
		default:
			sums = append(sums, fmt.Sprintf("sum(%s)", f.Name))
		}
	}
	read := func(name string) ([]string, error) {
		return peer.Strings(ctx, fmt.Sprintf("SELECT concat_ws(' ', count(*), %s) FROM read_parquet(%s)", strings.Join(sums, ", "), engine.QuoteLiteral(name)))
	}
	a, err := read(ours)
	if err != nil {
		return fmt.Errorf("read our file: %w", err)
	}
	b, err := read(theirs)
	if err != nil {
		return fmt.Errorf("read DuckDB's file: %w", err)
	}
	if !slices.Equal(a, b) || len(a) != 1 || !strings.HasPrefix(a[0], fmt.Sprint(records, " ")) {
		return fmt.Errorf("the files differ:\n  tapehouse %s\n  duckdb    %s", a, b)
	}
	return nil
}
