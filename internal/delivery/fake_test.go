package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/ledger"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/internal/wal"
)

// The little table of the tests: numbered records with one value.
var testSchema = record.Schema{Fields: []record.Field{
	{ID: 1, Name: "source", Type: record.Type{Kind: record.String}, Required: true},
	{ID: 2, Name: "session", Type: record.Type{Kind: record.String}, Required: true},
	{ID: 3, Name: "epoch", Type: record.Type{Kind: record.Long}, Required: true},
	{ID: 4, Name: "seq", Type: record.Type{Kind: record.Long}, Required: true},
	{ID: 5, Name: "price", Type: record.Type{Kind: record.Decimal, Precision: 18, Scale: 4}, Required: true},
	{ID: 6, Name: "record_offset", Type: record.Type{Kind: record.Long}, Derive: record.RecordOffset},
}}

var testSequence = record.SequenceColumns{Source: "source", Session: "session", Epoch: "epoch", Sequence: "seq"}

// row is what the fake table keeps of a row.
type row struct {
	seq, price int64
	offset     record.Offset
}

// outcome is what a commit of the fake catalog does.
type outcome int

const (
	commitDone   outcome = iota
	commitBefore         // fails, nothing done
	commitAfter          // done, but the answer is an error: unknown to the caller
	commitFenced         // another owner has taken the catalog
)

// world is what survives a crash beside the file system: the catalog.
type world struct {
	mu       sync.Mutex
	rows     []row
	through  record.Vector
	docs     map[string]map[string]json.RawMessage
	outcomes func() outcome
	commits  int
	others   map[catalog.Name]*world // tables beside the first
	history  map[string][]json.RawMessage
	store    func() outcome // of definitions; nil: done
	asked    int            // records that the scripted processor was given
	listing  error          // of List, if not nil
	broken   string         // target of objects that fails, or ""
	mute     bool           // and cannot be asked either
}

// of is the part of the world that a table is.
func (w *world) of(n catalog.Name) *world {
	if n == (catalog.Name{Namespace: "n", Table: "t"}) {
		return w
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.others == nil {
		w.others = map[catalog.Name]*world{}
	}
	o := w.others[n]
	if o == nil {
		o = newWorld()
		o.outcomes = func() outcome { w.mu.Lock(); defer w.mu.Unlock(); return w.outcomes() }
		w.others[n] = o
	}
	return o
}

func newWorld() *world {
	return &world{through: record.Vector{}, docs: map[string]map[string]json.RawMessage{}, outcomes: func() outcome { return commitDone }}
}

// decide sets what becomes of the commits from now on.
func (w *world) decide(f func() outcome) {
	w.mu.Lock()
	w.outcomes = f
	w.mu.Unlock()
}

func (w *world) List(_ context.Context, kind string) (map[string]json.RawMessage, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listing != nil {
		return nil, w.listing
	}
	return maps.Clone(w.docs[kind]), nil
}

func (w *world) Put(_ context.Context, kind, key string, body json.RawMessage) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	how := commitDone
	if kind == kindStream && w.store != nil {
		how = w.store()
	}
	if how == commitBefore {
		return errCommit
	}
	if w.docs[kind] == nil {
		w.docs[kind] = map[string]json.RawMessage{}
	}
	w.docs[kind][key] = body
	if w.history == nil {
		w.history = map[string][]json.RawMessage{}
	}
	w.history[kind+key] = append([]json.RawMessage{body}, w.history[kind+key]...)
	if how == commitAfter {
		return errCommit
	}
	return nil
}

func (w *world) History(_ context.Context, kind, key string) ([]json.RawMessage, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.history[kind+key], nil
}

func (w *world) Delete(_ context.Context, kind, key string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.docs[kind], key)
	return nil
}

// dest is the fake destination: it reads the parts' Parquet and commits rows
// and through in one step.
type dest struct {
	w  *world
	fs fsys.FS
}

func (d dest) State(_ context.Context, key record.Key) (State, error) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	return State{Schema: testSchema, Sequence: testSequence, Through: d.w.through[key]}, nil
}

var errCommit = errors.New("the catalog did not answer")

func (d dest) Deliver(_ context.Context, dl Delivery) error {
	var rows []row
	for _, p := range dl.Parts {
		got, err := readParquet(d.fs, p.Path)
		if err != nil {
			return err
		}
		rows = append(rows, got...)
	}
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	how := d.w.outcomes()
	if how == commitBefore {
		return errCommit
	}
	if how == commitFenced {
		return fmt.Errorf("epoch 1: %w", catalog.ErrFenced)
	}
	if d.w.through[dl.Key] != dl.From {
		return fmt.Errorf("conflict: through is %d, required %d", d.w.through[dl.Key], dl.From)
	}
	d.w.rows = append(d.w.rows, rows...)
	d.w.through[dl.Key] = dl.To
	d.w.commits++
	if how == commitAfter {
		return errCommit
	}
	return nil
}

func readParquet(fs fsys.FS, path string) ([]row, error) {
	f, err := fs.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	pr, err := file.NewParquetReader(io.NewSectionReader(f, 0, size))
	if err != nil {
		return nil, err
	}
	ar, err := pqarrow.NewFileReader(pr, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		return nil, err
	}
	tab, err := ar.ReadTable(context.Background())
	if err != nil {
		return nil, err
	}
	defer tab.Release()
	tr := array.NewTableReader(tab, 1<<20)
	defer tr.Release()
	var out []row
	for tr.Next() {
		b := tr.RecordBatch()
		seq := b.Column(3).(*array.Int64)
		price := b.Column(4)
		offset := b.Column(5).(*array.Int64)
		for i := range int(b.NumRows()) {
			var p int64
			switch c := price.(type) {
			case *array.Decimal128:
				p = int64(c.Value(i).LowBits())
			case *array.Decimal64:
				p = int64(c.Value(i))
			default:
				return nil, fmt.Errorf("price is %T", price)
			}
			out = append(out, row{seq.Value(i), p, record.Offset(offset.Value(i))})
		}
	}
	return out, nil
}

// house is a running delivery over a crashable disk.
type house struct {
	t      *testing.T
	mem    *fsys.Mem
	w      *world
	log    *wal.Log
	m      *Manager
	errors *lake.Local
}

func openHouse(t *testing.T, mem *fsys.Mem, w *world, tune func(*Options)) (*house, error) {
	ctx := context.Background()
	if err := mem.MkdirAll("/d", 0o700); err != nil {
		return nil, err
	}
	log, err := wal.Open(ctx, mem, "/d/log", wal.Options{SegmentBytes: 64 << 10, Linger: -1, ReserveBytes: -1, Retention: -1})
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	led, err := ledger.Open(mem, LedgerCheckpoint("/d"), ledger.Options{})
	if err != nil {
		_ = log.Close()
		return nil, err
	}
	errs, err := lake.OpenLocal(mem, "/d/lake")
	if err != nil {
		_ = log.Close()
		return nil, err
	}
	o := Options{
		FS: mem, Dir: "/d", Log: log, Ledger: led, Documents: w, Errors: errs,
		Destination: func(_ Config, n catalog.Name) (Destination, error) { return dest{w.of(n), mem}, nil },
		Objects: func(_ Config, role string) (ObjectDestination, error) {
			return objects{role, errs, w}, nil
		},
		Processor:    func(_ context.Context, c Config) (Processor, error) { return newScript(c.Processing, w) },
		Logger:       dbgLogger,
		TailInterval: time.Millisecond, CheckpointInterval: time.Hour, RetryWait: time.Millisecond,
	}
	if tune != nil {
		tune(&o)
	}
	m, err := Open(ctx, o)
	if err != nil {
		_ = log.Close()
		return nil, err
	}
	return &house{t, mem, w, log, m, errs}, nil
}

// abandon stops as a crash would.
func (h *house) abandon() {
	h.m.Abandon()
	_ = h.log.Close()
}

func (h *house) create() error {
	_, err := h.m.Create(context.Background(), Config{Name: "s", Namespace: "n", Table: "t", SizeBytes: 1 << 30, Interval: time.Hour})
	return err
}

func doc(seq int64, price int) string {
	return fmt.Sprintf(`{"source":"A","session":"1","epoch":0,"seq":%d,"price":"%d.5"}`, seq, price)
}

func docsOf(docs ...string) Docs {
	var d Docs
	for _, s := range docs {
		d.Arena = append(d.Arena, s...)
		d.Ends = append(d.Ends, int32(len(d.Arena)))
	}
	d.Arena = append(d.Arena, make([]byte, columnar.Slack)...)[:len(d.Arena)]
	return d
}

func (h *house) put(docs ...string) (Receipt, error) {
	s, err := h.m.Stream("s")
	if err != nil {
		return Receipt{}, err
	}
	return s.Put(context.Background(), docsOf(docs...))
}

// visible is what a query sees: the table's rows and the tail above its through.
func (h *house) visible(fresh bool) ([]row, error) {
	for {
		h.w.mu.Lock()
		rows := append([]row(nil), h.w.rows...)
		through := h.w.through.Clone()
		h.w.mu.Unlock()
		tail, err := h.m.Tail(context.Background(), engineName, through, fresh)
		if errors.Is(err, ErrTailMoved) {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer tail.Release()
		for _, f := range tail.Files {
			got, err := readParquet(h.mem, f.Path)
			if err != nil {
				return nil, err
			}
			rows = append(rows, got...)
		}
		return rows, nil
	}
}

// once checks that rows hold exactly the wanted sequence numbers, once each.
func once(rows []row, want map[int64]int64) error {
	seen := map[int64]int{}
	offsets := map[record.Offset]bool{}
	for _, r := range rows {
		seen[r.seq]++
		if seen[r.seq] > 1 {
			return fmt.Errorf("record %d is there twice", r.seq)
		}
		if offsets[r.offset] {
			return fmt.Errorf("offset %d is there twice", r.offset)
		}
		offsets[r.offset] = true
		if p, ok := want[r.seq]; !ok {
			return fmt.Errorf("record %d was never put", r.seq)
		} else if p != r.price {
			return fmt.Errorf("record %d has price %d, want %d", r.seq, r.price, p)
		}
	}
	return nil
}

func contains(rows []row, acked map[int64]bool) error {
	have := map[int64]bool{}
	for _, r := range rows {
		have[r.seq] = true
	}
	for s := range acked {
		if !have[s] {
			return fmt.Errorf("record %d was acknowledged and is missing", s)
		}
	}
	return nil
}

// errorLines counts the records in the error output, by record id.
func (h *house) errorLines() (map[string]int, error) {
	lines := map[string]int{}
	err := h.errors.List(context.Background(), "errors/", func(i lake.Info) error {
		b, err := h.errors.Get(context.Background(), i.Name)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			var f failedRecord
			if err := json.Unmarshal([]byte(line), &f); err != nil {
				return err
			}
			lines[f.RecordID]++
		}
		return nil
	})
	return lines, err
}

func rng(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

var dbgLogger = slog.New(slog.DiscardHandler)
