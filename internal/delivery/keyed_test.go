package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/record"
)

// The little table with keys of the tests.
var keyedSchema = record.Schema{Fields: []record.Field{
	{ID: 1, Name: "a", Type: record.Type{Kind: record.String}},
	{ID: 2, Name: "b", Type: record.Type{Kind: record.Decimal, Precision: 9, Scale: 2}},
	{ID: 3, Name: "v", Type: record.Type{Kind: record.Long}, Required: true},
	{ID: 4, Name: "record_offset", Type: record.Type{Kind: record.Long}, Derive: record.RecordOffset},
}}

var keyedConfig = Config{Name: "s", Namespace: "n", Table: "t", SizeBytes: 1 << 30, Interval: time.Hour, Processing: json.RawMessage(`"keyed"`), Failed: &objectHints,
	Tables: []catalog.Name{{Namespace: "n", Table: "t"}}, Keys: map[string][]string{"n.t": {"a", "b"}}}

// keyedRow is a row as the tests compare it: key and value.
type keyedRow struct{ key, value string }

// foldDelivery is what changes make of rows: removals take away what stands
// before them.
func foldRows(rows []keyedRow, parts map[int][]keyedRow, removals map[int][]string) []keyedRow {
	var orders []int
	for o := range parts {
		orders = append(orders, o)
	}
	for o := range removals {
		if parts[o] == nil {
			orders = append(orders, o)
		}
	}
	slices.Sort(orders)
	for _, o := range orders {
		gone := map[string]bool{}
		for _, k := range removals[o] {
			gone[k] = true
		}
		kept := []keyedRow{}
		for _, r := range rows {
			if !gone[r.key] {
				kept = append(kept, r)
			}
		}
		rows = append(kept, parts[o]...)
	}
	return rows
}

// keyedDest is a table with keys in memory. Where it is numbered, a row's value is
// its sequence number.
type keyedDest struct {
	w        *world
	fs       fsys.FS
	rows     *[]keyedRow
	numbered bool
}

var numberedSchema = record.Schema{Fields: append(slices.Clone(keyedSchema.Fields),
	record.Field{ID: 5, Name: "source", Type: record.Type{Kind: record.String}, Required: true},
	record.Field{ID: 6, Name: "epoch", Type: record.Type{Kind: record.Long}, Required: true},
	record.Field{ID: 7, Name: "seq", Type: record.Type{Kind: record.Long}, Required: true})}

// Standing implements Finder.
func (d keyedDest) Standing(ctx context.Context, keys TailFile, from TailFrom) (out []Standing, err error) {
	rows, err := seen(ctx, d.w, d.fs, d.rows, from)
	if err != nil {
		return nil, err
	}
	wanted, err := readKeyed(d.fs, keys.Path)
	if err != nil {
		return nil, err
	}
	for i, k := range wanted {
		for _, r := range rows {
			if r.key == k.key {
				n, err := strconv.ParseInt(r.value, 10, 64)
				if err != nil {
					return nil, err
				}
				out = append(out, NumberedRow(int64(i), "A", "", 0, n))
			}
		}
	}
	return out, nil
}

func (d keyedDest) State(_ context.Context, key record.Key) (State, error) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	if d.numbered {
		return State{Schema: numberedSchema, Sequence: record.SequenceColumns{Source: "source", Epoch: "epoch", Sequence: "seq"}, Through: d.w.through[key]}, nil
	}
	return State{Schema: keyedSchema, Through: d.w.through[key]}, nil
}

func (d keyedDest) Deliver(_ context.Context, dl Delivery) error {
	parts, removals := map[int][]keyedRow{}, map[int][]string{}
	for _, p := range dl.Parts {
		rows, err := readKeyed(d.fs, p.Path)
		if err != nil {
			return err
		}
		parts[p.Order] = append(parts[p.Order], rows...)
	}
	for _, p := range dl.Removals {
		rows, err := readKeyed(d.fs, p.Path)
		if err != nil {
			return err
		}
		for _, r := range rows {
			removals[p.Order] = append(removals[p.Order], r.key)
		}
	}
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	how := d.w.outcomes()
	if how == commitBefore {
		return errCommit
	}
	if d.w.through[dl.Key] != dl.From {
		return fmt.Errorf("conflict: through is %d, required %d", d.w.through[dl.Key], dl.From)
	}
	*d.rows = foldRows(*d.rows, parts, removals)
	d.w.through[dl.Key] = dl.To
	d.w.commits++
	if how == commitAfter {
		return errCommit
	}
	return nil
}

// readKeyed reads the key's columns and, where the file has it, the value.
func readKeyed(disk fsys.FS, path string) (out []keyedRow, err error) {
	f, err := disk.OpenFile(path, os.O_RDONLY, 0)
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
	cell := func(c, row int) string {
		for _, chunk := range tab.Column(c).Data().Chunks() {
			if row < chunk.Len() {
				return chunk.ValueStr(row)
			}
			row -= chunk.Len()
		}
		panic("no such row")
	}
	for row := range int(tab.NumRows()) {
		r := keyedRow{key: cell(0, row) + "/" + cell(1, row)}
		if tab.NumCols() > 2 {
			r.value = cell(2, row)
		}
		out = append(out, r)
	}
	return out, nil
}

// operator is a processor whose records say what they do: "insert {…}".
type operator struct{}

func (operator) Process(_ context.Context, records []SourceRecord) ([][]Outcome, error) {
	out := make([][]Outcome, len(records))
	for i, r := range records {
		for part := range strings.SplitSeq(string(r.Data), ";") {
			op, doc, _ := strings.Cut(part, " ")
			out[i] = append(out[i], Outcome{Data: []byte(doc), Operation: op})
		}
	}
	return out, nil
}

func (operator) BatchBytesMax() int { return 1000 }
func (operator) Local() bool        { return true }
func (operator) Close() error       { return nil }

func openKeyed(t *testing.T, mem *fsys.Mem, w *world, rows *[]keyedRow, numbered bool) (*house, error) {
	return openHouse(t, mem, w, func(o *Options) {
		o.Destination = func(Config, catalog.Name) (Destination, error) { return keyedDest{w, mem, rows, numbered}, nil }
		o.Processor = func(context.Context, Config) (Processor, error) { return operator{}, nil }
	})
}

func startKeyed(t *testing.T) (*house, *[]keyedRow) {
	t.Helper()
	rows := &[]keyedRow{}
	h, err := openKeyed(t, fsys.NewMem(), newWorld(), rows, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.abandon)
	if _, err := h.m.Create(t.Context(), keyedConfig); err != nil {
		t.Fatal(err)
	}
	return h, rows
}

// keyedSeen is what a query sees of a table with keys.
func (h *house) keyedSeen(stored *[]keyedRow) ([]keyedRow, error) {
	return seen(context.Background(), h.w, h.mem, stored, func(ctx context.Context, through record.Vector) (engine.Tail, error) {
		return h.m.Tail(ctx, engineName, through, true)
	})
}

func seen(ctx context.Context, w *world, disk fsys.FS, stored *[]keyedRow, from TailFrom) ([]keyedRow, error) {
	for {
		w.mu.Lock()
		rows := slices.Clone(*stored)
		through := w.through.Clone()
		w.mu.Unlock()
		tail, err := from(ctx, through)
		if errors.Is(err, engine.ErrTailMoved) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer tail.Release()
		parts, removals := map[int][]keyedRow{}, map[int][]string{}
		for _, f := range tail.Files {
			got, err := readKeyed(disk, f.Path)
			if err != nil {
				return nil, err
			}
			parts[f.Order] = append(parts[f.Order], got...)
		}
		for _, f := range tail.Removals {
			got, err := readKeyed(disk, f.Path)
			if err != nil {
				return nil, err
			}
			for _, r := range got {
				removals[f.Order] = append(removals[f.Order], r.key)
			}
		}
		return foldRows(rows, parts, removals), nil
	}
}

// keyedModel is the table as its changes make it, one after the other.
type keyedModel struct{ rows []keyedRow }

func (m *keyedModel) apply(op, key, value string) {
	if op != "insert" {
		m.rows = slices.DeleteFunc(m.rows, func(r keyedRow) bool { return r.key == key })
	}
	if op != "delete" {
		m.rows = append(m.rows, keyedRow{key, value})
	}
}

func (m *keyedModel) clone() *keyedModel { return &keyedModel{slices.Clone(m.rows)} }

func sortedRows(rows []keyedRow) string {
	lines := make([]string, len(rows))
	for i, r := range rows {
		lines[i] = r.key + "=" + r.value
	}
	slices.Sort(lines)
	return strings.Join(lines, " ")
}

// change makes a random change, applies it to the model and returns its record.
func (m *keyedModel) change(r *rand.Rand, keys int, serial *int) string {
	one := func() string {
		*serial++
		op := []string{"insert", "update", "delete", "update"}[r.IntN(4)]
		a, b := r.IntN(keys), r.IntN(2)
		m.apply(op, fmt.Sprintf("k%d/%d.5", a, b), fmt.Sprint(*serial))
		if op == "delete" {
			return fmt.Sprintf(`delete {"a":"k%d","b":%d.5}`, a, b) // needs no more than its key
		}
		return fmt.Sprintf(`%s {"a":"k%d","b":%d.50,"v":%d}`, op, a, b, *serial)
	}
	text := one()
	for r.IntN(4) == 0 { // a record that is taken apart
		text += ";" + one()
	}
	return text
}

// numbered makes a random change of a source that is overtaken by itself now and
// then: free are the numbers that it has left out.
func (m *keyedModel) numbered(r *rand.Rand, serial *int, free *[]int) string {
	*serial++
	n := *serial
	switch {
	case r.IntN(3) == 0:
		*free = append(*free, n)
		*serial++
		n = *serial
	case len(*free) > 0 && r.IntN(2) == 0:
		n, *free = (*free)[0], (*free)[1:]
		*serial--
	}
	op, a := []string{"insert", "update", "delete", "update", "update"}[r.IntN(5)], r.IntN(2)
	key := fmt.Sprintf("k%d/1.5", a)
	late := op != "insert" && slices.ContainsFunc(m.rows, func(x keyedRow) bool {
		v, _ := strconv.Atoi(x.value)
		return x.key == key && v > n
	})
	if !late {
		m.apply(op, key, fmt.Sprint(n))
	}
	v := fmt.Sprintf(`,"v":%d`, n)
	if op == "delete" {
		v = ""
	}
	return fmt.Sprintf(`%s {"a":"k%d","b":1.5,"source":"A","epoch":0,"seq":%d%s}`, op, a, n, v)
}

// TestKeyedHistory holds random histories against the model, in the tail, across
// merges and flushes.
func TestKeyedHistory(t *testing.T) {
	for seed := range uint64(6) {
		r := rng(seed)
		h, stored := startKeyed(t)
		h.w.decide(func() outcome { return outcome(r.IntN(3)) })
		var m keyedModel
		serial := 0
		for i := range 60 {
			var docs []string
			for range 1 + r.IntN(6) {
				docs = append(docs, m.change(r, 1+int(seed), &serial))
			}
			if _, err := h.put(docs...); err != nil {
				t.Fatal(err)
			}
			if r.IntN(3) == 0 {
				got, err := h.keyedSeen(stored)
				if err != nil {
					t.Fatal(err)
				}
				if sortedRows(got) != sortedRows(m.rows) {
					t.Fatalf("seed %d, put %d:\n%s\nwant\n%s", seed, i, sortedRows(got), sortedRows(m.rows))
				}
			}
			if r.IntN(12) == 0 {
				if err := h.m.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				if sortedRows(*stored) != sortedRows(m.rows) {
					t.Fatalf("seed %d, put %d, published:\n%s\nwant\n%s", seed, i, sortedRows(*stored), sortedRows(m.rows))
				}
			}
		}
	}
}

// TestKeyedCrash crashes after every operation: the table is the fold of what was
// acknowledged, and of the put under way or not.
func TestKeyedCrash(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 7
	}
	for name, numbered := range map[string]bool{"by arrival": false, "by numbers": true} {
		t.Run(name, func(t *testing.T) {
			end := false
			for n := 1; !end; n += step {
				done, err := crashKeyed(t, n, numbered)
				if err != nil {
					t.Fatalf("crash after operation %d: %v", n, err)
				}
				end = done
			}
		})
	}
}

func crashKeyed(t *testing.T, n int, numbered bool) (finished bool, err error) {
	mem, w, stored := fsys.NewMem(), newWorld(), &[]keyedRow{}
	r := rng(uint64(n))
	w.decide(func() outcome { return outcome(r.IntN(3)) })
	var mu sync.Mutex
	ops := 0
	mem.SetHook(func(string, string, int) error {
		mu.Lock()
		defer mu.Unlock()
		if ops++; ops > n {
			return errCrashed
		}
		return nil
	})
	dead := func() bool { mu.Lock(); defer mu.Unlock(); return ops > n }
	acked, maybe := &keyedModel{}, &keyedModel{}
	serial, puts, free := 0, rng(uint64(n)+1000), []int{}
	h, openErr := openKeyed(t, mem, w, stored, numbered)
	created := false
	if openErr == nil {
		if _, err := h.m.Create(context.Background(), keyedConfig); err == nil {
			created = true
			for i := range 14 {
				if dead() {
					break
				}
				maybe = acked.clone()
				var docs []string
				if numbered {
					docs = []string{maybe.numbered(puts, &serial, &free)}
				} else {
					docs = []string{maybe.change(puts, 3, &serial), maybe.change(puts, 3, &serial)}
				}
				if _, err := h.put(docs...); err != nil {
					break
				}
				acked = maybe.clone()
				if i%4 == 1 && !dead() {
					ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
					_ = h.m.Flush(ctx)
					cancel()
				}
				if i == 9 && !dead() {
					_ = h.m.checkpoint(context.Background())
				}
			}
		}
		h.abandon()
	}
	finished = !dead()
	mem2 := mem.Crash(uint64(n))
	h2, err := openKeyed(t, mem2, w, stored, numbered)
	if err != nil {
		return finished, fmt.Errorf("reopen: %w", err)
	}
	defer h2.abandon()
	w.decide(func() outcome { return commitDone })
	if len(h2.m.Streams()) == 0 {
		if created {
			return finished, errors.New("the stream is gone")
		}
		return finished, nil
	}
	check := func(when string, rows []keyedRow) error {
		if got := sortedRows(rows); got != sortedRows(acked.rows) && got != sortedRows(maybe.rows) {
			return fmt.Errorf("%s:\n%s\nwant\n%s\nor\n%s", when, got, sortedRows(acked.rows), sortedRows(maybe.rows))
		}
		return nil
	}
	rows, err := h2.keyedSeen(stored)
	if err == nil {
		err = check("after the crash", rows)
	}
	if err != nil {
		return finished, err
	}
	if err := h2.m.Close(context.Background()); err != nil {
		return finished, fmt.Errorf("close: %w", err)
	}
	return finished, check("published", *stored)
}

// Updates and deletes that cannot find their rows go to the error output; an
// insert with a null in its key is a row.
func TestKeyedRefusals(t *testing.T) {
	h, stored := startKeyed(t)
	if _, err := h.put(`insert {"a":"x","b":1,"v":1}`, `delete {"a":"x"}`, `update {"a":null,"b":1,"v":2}`, `insert {"a":"x","v":3}`,
		`update {"a":"x","b":1}`, `delete no json`, `merge {"a":"x","b":1,"v":4}`); err != nil {
		t.Fatal(err)
	}
	if err := h.m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := sortedRows(*stored); got != "x/(null)=3 x/1=1 x/1=4" { // an unknown word is Pipeline's to refuse
		t.Error(got)
	}
	wantLines(t, h, roleErrors, `1 Iceberg.InvalidUniqueKeysdelete {"a":"x"}`, `2 Iceberg.InvalidUniqueKeysupdate {"a":null,"b":1,"v":2}`)
	lines, err := h.errorLines()
	if err != nil || len(lines) != 2 {
		t.Fatalf("%v %v", lines, err)
	}
}

func TestKeyedTableIsFedByOneStream(t *testing.T) {
	h, _ := startKeyed(t)
	other := keyedConfig
	other.Name = "other"
	if _, err := h.m.Create(t.Context(), other); !errors.Is(err, record.ErrInvalid) || !strings.Contains(err.Error(), "the delivery stream s feeds n.t with UniqueKeys") {
		t.Error(err)
	}
	plain := Config{Name: "plain", Namespace: "n", Table: "t", SizeBytes: 1 << 20, Interval: time.Hour}
	if _, err := h.m.Create(t.Context(), plain); !errors.Is(err, record.ErrInvalid) {
		t.Error(err)
	}
	if err := h.m.Delete(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.m.Create(t.Context(), plain); err != nil {
		t.Fatal(err)
	}
	if _, err := h.m.Create(t.Context(), other); !errors.Is(err, record.ErrInvalid) || !strings.Contains(err.Error(), "records of two streams have no order") {
		t.Error(err)
	}
}
