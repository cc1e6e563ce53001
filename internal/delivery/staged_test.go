package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/record"
)

// objects is an object destination that writes one object a plan. A second
// writing must find the same bytes.
type objects struct {
	role  string
	store *lake.Local
	w     *world
}

type objectLine struct {
	Offset record.Offset
	Data   string
	Keys   map[string]string `json:",omitempty"`
	Code   string            `json:",omitempty"`
}

func (objects) Prepare(_ context.Context, target json.RawMessage) (json.RawMessage, error) {
	return target, nil
}

func (o objects) Write(ctx context.Context, p ObjectPlan, each func(func(ObjectRecord) error) error) (r ObjectResult, err error) {
	var out bytes.Buffer
	err = each(func(x ObjectRecord) error {
		if o.role == roleErrors && x.Code == "" {
			return nil
		}
		line, err := json.Marshal(objectLine{x.Offset, string(x.Data), x.Keys, x.Code})
		out.Write(append(line, '\n'))
		r.Records++
		return err
	})
	if err != nil {
		return r, err
	}
	name := o.name(p)
	r.Bytes, r.Objects, r.Names = int64(out.Len()), 1, []string{name}
	err = o.store.Put(ctx, name, bytes.NewReader(out.Bytes()), int64(out.Len()))
	if errors.Is(err, lake.ErrExists) {
		var had []byte
		if had, err = o.store.Get(ctx, name); err != nil {
			return r, err
		}
		if !bytes.Equal(had, out.Bytes()) {
			panic(fmt.Sprintf("a replay of %s would write other bytes", name))
		}
	}
	if err == nil && o.broken(p) { // what is written may be there, or not
		err = errBroken
	}
	return r, err
}

var errBroken = errors.New("the bucket does not answer")

func (o objects) name(p ObjectPlan) string {
	return fmt.Sprintf("objects/%s/%d-%d-%s", o.role, p.From, p.To, p.Seed)
}

// broken reports whether the plan's target is one that fails.
func (o objects) broken(p ObjectPlan) bool {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	return len(p.Target) > 0 && o.w.broken == string(p.Target)
}

// Retract implements Retractor.
func (o objects) Retract(ctx context.Context, p ObjectPlan, _ func(func(ObjectRecord) error) error) error {
	o.w.mu.Lock()
	mute := o.w.mute
	o.w.mu.Unlock()
	if mute && o.broken(p) {
		return errBroken
	}
	return o.store.Delete(ctx, o.name(p))
}

// lines returns what the objects of a role hold, by offset and data.
func (h *house) lines(role string) (map[string]int, error) {
	got := map[string]int{}
	err := h.errors.List(context.Background(), "objects/"+role+"/", func(i lake.Info) error {
		b, err := h.errors.Get(context.Background(), i.Name)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			var l objectLine
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				return err
			}
			got[fmt.Sprintf("%d %s%s%s", l.Offset, l.Code, l.Keys["k"], l.Data)]++
		}
		return nil
	})
	return got, err
}

// script is a processor that does what a record's text says. It answers
// differently each time it is asked: only what was logged may count.
type script struct {
	w     *world
	fails bool // now and then, as a whole
	calls int
}

func newScript(body json.RawMessage, w *world) (Processor, error) {
	var name string
	if err := json.Unmarshal(body, &name); err != nil {
		return nil, err
	}
	return &script{w: w, fails: name == "flaky"}, nil
}

func (s *script) Process(_ context.Context, records []SourceRecord) ([][]Outcome, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	out := make([][]Outcome, len(records))
	for i, r := range records {
		s.w.asked++
		text := string(r.Data)
		switch {
		case strings.HasPrefix(text, "drop"):
			out[i] = []Outcome{{Kind: Dropped}}
		case strings.HasPrefix(text, "fail"):
			out[i] = []Outcome{{Kind: Failed, Code: "Lambda.FunctionError", Message: "no"}}
		case strings.HasPrefix(text, "two"):
			out[i] = []Outcome{{Data: []byte(text + "/1")}, {Data: []byte(text + "/2"), Keys: map[string]string{"k": "key-"}}}
		case strings.HasPrefix(text, "big"):
			out[i] = []Outcome{{Data: fmt.Appendf(nil, "%s, asked %d times%s", text, s.w.asked, strings.Repeat(".", 12<<10))}}
		case strings.HasPrefix(text, "huge"):
			out[i] = []Outcome{{Data: bytes.Repeat(r.Data, 64<<10)}}
		case strings.HasPrefix(text, "ask"):
			out[i] = []Outcome{{Data: fmt.Appendf(nil, "asked %d times", s.w.asked)}}
		case strings.HasPrefix(text, "u:"):
			out[i] = []Outcome{{Data: []byte(text[2:]), Table: catalog.Name{Namespace: "n", Table: "u"}}}
		case strings.HasPrefix(text, "x:"):
			out[i] = []Outcome{{Data: []byte(text[2:]), Table: catalog.Name{Namespace: "n", Table: "x"}}}
		default:
			out[i] = []Outcome{{Data: r.Data, Table: catalog.Name{Namespace: "n", Table: "t"}}}
		}
	}
	s.calls++
	if s.fails && s.calls%3 == 1 {
		return nil, errors.New("try again")
	}
	return out, nil
}

func (*script) BatchBytesMax() int { return 100 }
func (*script) Local() bool        { return true }
func (*script) Close() error       { return nil }

var (
	objectHints  = ObjectConfig{SizeBytes: 1 << 20, Interval: time.Hour}
	objectStream = Config{Name: "s", Objects: &objectHints, Backup: &objectHints, Processing: json.RawMessage(`"flaky"`)}
	routedStream = Config{Name: "s", Namespace: "n", Table: "t", SizeBytes: 1 << 30, Interval: time.Hour, Processing: json.RawMessage(`"flaky"`),
		Tables: []catalog.Name{{Namespace: "n", Table: "t"}, {Namespace: "n", Table: "u"}}, Failed: &objectHints}
)

func startStream(t *testing.T, cfg Config) *house {
	t.Helper()
	h, err := openHouse(t, fsys.NewMem(), newWorld(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.abandon)
	if _, err := h.m.Create(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	return h
}

func wantLines(t *testing.T, h *house, role string, want ...string) {
	t.Helper()
	got, err := h.lines(role)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		if got[w] != 1 {
			t.Errorf("%s: %q is there %d times", role, w, got[w])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d lines, want %d: %v", role, len(got), len(want), got)
	}
}

func TestObjectsGetWhatProcessingMade(t *testing.T) {
	h := startStream(t, objectStream)
	for _, docs := range [][]string{{"a", "drop b"}, {"two", "fail c", ""}} {
		if _, err := h.put(docs...); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantLines(t, h, roleObjects, "0 a", "2 two/1", "2 key-two/2", "3 Lambda.FunctionErrorfail c", "4 ")
	wantLines(t, h, roleBackup, "0 a", "1 drop b", "2 two", "3 fail c", "4 ")
	// The log keeps the source as long as a lane needs it, and no longer.
	if err := h.m.checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, _ := h.m.Stream("s")
	upTo := record.Vector{}
	s.trimmable(h.m.o.Ledger.Applied(), upTo)
	if upTo[s.key] != 5 || upTo[s.staged()] != 5 {
		t.Errorf("trimmed up to %v", upTo)
	}
	if err := h.m.Delete(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
}

// A buffer hint cuts: by size, and by age.
func TestObjectHints(t *testing.T) {
	hints := ObjectConfig{SizeBytes: 10, Interval: time.Hour}
	h := startStream(t, Config{Name: "s", Objects: &hints})
	for i := range 5 {
		if _, err := h.put(fmt.Sprintf("12345678-%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	s, _ := h.m.Stream("s")
	for deadline := time.Now().Add(time.Minute); s.Through() < 4; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("delivered up to %d", s.Through())
		}
	}
	if _, err := h.m.Update(t.Context(), "s", 1, func(c Config) (Config, error) {
		c.Objects = &ObjectConfig{SizeBytes: 1 << 20, Interval: time.Millisecond}
		return c, nil
	}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); s.Through() < 5; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the interval did not cut")
		}
	}
	names := 0
	if err := h.errors.List(t.Context(), "objects/", func(lake.Info) error { names++; return nil }); err != nil || names < 3 || names > 5 {
		t.Fatal(names, err)
	}
}

func TestRoutedToSeveralTables(t *testing.T) {
	h := startStream(t, routedStream)
	put := func(docs ...string) Receipt {
		t.Helper()
		r, err := h.put(docs...)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	put(doc(1, 1), "u:"+doc(2, 2), "fail", "x:"+doc(9, 9))
	put(doc(1, 1), "u:"+doc(2, 3), doc(3, 3), "no json", "drop") // a duplicate, a conflict, a reject
	rows, err := h.visible(true)
	if err != nil {
		t.Fatal(err)
	}
	want := map[int64]int64{1: 15000, 3: 35000}
	if err := once(rows, want); err != nil || len(rows) != 2 {
		t.Fatalf("%v %v", rows, err)
	}
	if rows[1].offset != 6 {
		t.Errorf("record 3 stands at offset %d", rows[1].offset)
	}
	if err := h.m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	u := h.w.of(catalog.Name{Namespace: "n", Table: "u"})
	if err := once(h.w.rows, want); err != nil || len(h.w.rows) != 2 || len(u.rows) != 1 || u.rows[0] != (row{2, 25000, 1}) {
		t.Fatalf("%v %v %v", err, h.w.rows, u.rows)
	}
	wantLines(t, h, roleErrors, "2 Lambda.FunctionErrorfail", "3 Iceberg.TableNotFoundx:"+doc(9, 9))
	lines, err := h.errorLines()
	if err != nil || len(lines) != 2 {
		t.Fatalf("%v %v", lines, err)
	}
	acc, _ := h.m.o.Ledger.Accounts()
	if a := acc[0]; a.Seen.Total() != 3 || a.Duplicates != 1 || a.ConflictCount != 1 {
		t.Fatalf("%+v", a)
	}
}

// TestCrashBetweenStages crashes after every operation of a processed stream:
// what was acknowledged comes out once, as it was first processed, however the
// processor answers later.
func TestCrashBetweenStages(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 7
	}
	for name, cfg := range map[string]Config{"objects": objectStream, "tables": routedStream} {
		t.Run(name, func(t *testing.T) {
			end := false
			for n := 1; !end; n += step {
				done, err := crashStaged(t, cfg, n)
				if err != nil {
					t.Fatalf("crash after operation %d: %v", n, err)
				}
				end = done
			}
		})
	}
}

func crashStaged(t *testing.T, cfg Config, n int) (finished bool, err error) {
	mem, w := fsys.NewMem(), newWorld()
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
	acked := map[int]bool{}
	text := func(i int) []string {
		if cfg.Objects != nil {
			return []string{fmt.Sprintf("a%d", i), fmt.Sprintf("two%d", i), fmt.Sprintf("ask%d", i), fmt.Sprintf("drop%d", i)}
		}
		return []string{doc(int64(2*i), i), "u:" + doc(int64(2*i+1), i), fmt.Sprintf("fail%d", i)}
	}
	const puts = 8
	h, openErr := openHouse(t, mem, w, nil)
	if openErr == nil {
		if _, err := h.m.Create(context.Background(), cfg); err == nil {
			for i := range puts {
				if dead() {
					break
				}
				if _, err := h.put(text(i)...); err == nil {
					acked[i] = true
				}
				if i%3 == 1 && !dead() {
					ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
					_ = h.m.Flush(ctx)
					cancel()
				}
				if i == 5 && !dead() {
					_ = h.m.checkpoint(context.Background())
				}
			}
		}
		h.abandon()
	}
	finished = !dead()
	h2, err := openHouse(t, mem.Crash(uint64(n)), w, nil)
	if err != nil {
		return finished, fmt.Errorf("reopen: %w", err)
	}
	defer h2.abandon()
	w.decide(func() outcome { return commitDone })
	if len(h2.m.Streams()) == 0 {
		if len(acked) > 0 {
			return finished, errors.New("the stream is gone")
		}
		return finished, nil
	}
	if err := h2.m.Close(context.Background()); err != nil {
		return finished, fmt.Errorf("close: %w", err)
	}
	return finished, h2.checkStaged(cfg, text, acked)
}

// checkStaged holds what came out against what was acknowledged.
func (h *house) checkStaged(cfg Config, text func(int) []string, acked map[int]bool) error {
	failed, err := h.lines(roleErrors)
	if err != nil {
		return err
	}
	objects, err := h.lines(roleObjects)
	if err != nil {
		return err
	}
	backup, err := h.lines(roleBackup)
	if err != nil {
		return err
	}
	data := map[string]int{} // by content alone
	for _, set := range []map[string]int{failed, objects, backup} {
		for line, n := range set {
			if n != 1 {
				return fmt.Errorf("%q is there %d times", line, n)
			}
		}
	}
	offsets := map[string]int{}
	for line := range objects {
		at, content, _ := strings.Cut(line, " ")
		data[content]++
		if strings.HasPrefix(content, "asked") {
			offsets[at]++
		}
	}
	for at, n := range offsets {
		if n != 1 {
			return fmt.Errorf("the record at offset %s was answered %d times", at, n)
		}
	}
	rows := append([]row(nil), h.w.rows...)
	for _, o := range h.w.others {
		rows = append(rows, o.rows...)
	}
	seen := map[int64]int{}
	for _, r := range rows {
		if seen[r.seq]++; seen[r.seq] > 1 {
			return fmt.Errorf("record %d is there twice", r.seq)
		}
	}
	for i := range acked {
		if cfg.Objects == nil {
			if seen[int64(2*i)] != 1 || seen[int64(2*i+1)] != 1 {
				return fmt.Errorf("put %d was acknowledged and is missing", i)
			}
			continue
		}
		for _, want := range []string{text(i)[0], text(i)[1] + "/1", "key-" + text(i)[1] + "/2"} {
			if data[want] != 1 {
				return fmt.Errorf("%q was acknowledged and is there %d times", want, data[want])
			}
		}
	}
	if cfg.Objects != nil && (len(backup) < 4*len(acked) || len(offsets) < len(acked)) || cfg.Objects == nil && len(failed) < len(acked) {
		return fmt.Errorf("%d puts were acknowledged; backup %d, answers %d, errors %d", len(acked), len(backup), len(offsets), len(failed))
	}
	return nil
}

func FuzzStagedPayload(f *testing.F) {
	s := staged{Entries: []stagedEntry{{Place: 0, Kind: stagedDocument, Data: []byte("x"), Keys: map[string]string{"a": "b"}}, {Place: 1, Kind: stagedFailed, Code: "c", Message: "m"}, {Place: 1, Kind: stagedDropped}},
		Sections: []stagedSection{{Table: catalog.Name{Namespace: "n", Table: "t"}, Conflict: true, Places: []int32{0, 2, 2}, Kind: 1, Payload: []byte("p")}}}
	f.Add(s.append(nil, 3), 3)
	s.Sections = append(s.Sections, stagedSection{Table: catalog.Name{Namespace: "n", Table: "k"}, Places: []int32{0, 0, 2}, Kind: 2, Payload: []byte("q"), Changes: []change{{0, opDelete}, {2, opNothing}, {300, opUpdate}}})
	f.Add(s.append(nil, 3), 3)
	f.Add([]byte{1, 0}, 0)
	f.Fuzz(func(t *testing.T, b []byte, count int) {
		if count < 0 || count > 1000 {
			return
		}
		_, _ = readPlain(b, count)
		got, err := readStaged(b, count)
		if err != nil {
			if !errors.Is(err, errPayload) {
				t.Fatal(err)
			}
			return
		}
		for _, e := range got.Entries {
			if e.Place >= count {
				t.Fatalf("place %d of %d", e.Place, count)
			}
		}
		again, err := readStaged(got.append(nil, count), count)
		if err != nil || fmt.Sprint(again) != fmt.Sprint(got) {
			t.Fatalf("%v\n%v\n%v", err, got, again)
		}
	})
}

// What processing makes of a frame may be larger than a frame: it is logged in
// parts, and a record that is too large alone is failed. The stream never stands
// for it, and each record is processed once, whatever crashes in between.
func TestOutcomesLargerThanAFrame(t *testing.T) {
	end := false
	for n := 1; !end; n += 3 {
		var err error
		if end, err = crashParted(t, n); err != nil {
			t.Fatalf("crash after operation %d: %v", n, err)
		}
	}
}

func crashParted(t *testing.T, n int) (finished bool, err error) {
	mem, w := fsys.NewMem(), newWorld()
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
	cfg := objectStream
	cfg.Processing = json.RawMessage(`"steady"`)
	const puts = 3
	acked := map[int]bool{}
	if h, err := openHouse(t, mem, w, nil); err == nil {
		if _, err := h.m.Create(context.Background(), cfg); err == nil {
			for i := range puts {
				docs := []string{"fail first", "small"}
				for k := range 6 {
					docs = append(docs, fmt.Sprintf("big %d", 10*i+k))
				}
				if _, err := h.put(append(docs, "huge", "fail last")...); err == nil {
					acked[i] = true
				}
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
				_ = h.m.Flush(ctx)
				cancel()
			}
		}
		h.abandon()
	}
	mu.Lock()
	finished = ops <= n
	mu.Unlock()
	h, err := openHouse(t, mem.Crash(uint64(n)), w, nil)
	if err != nil {
		return finished, fmt.Errorf("reopen: %w", err)
	}
	defer h.abandon()
	if len(h.m.Streams()) == 0 {
		return finished, nil
	}
	s, err := h.m.Stream("s")
	if err != nil {
		return finished, err
	}
	if err := s.Flush(context.Background()); err != nil {
		return finished, err
	}
	got, err := h.lines(roleObjects)
	if err != nil {
		return finished, err
	}
	count := map[string]int{}
	offsets := map[string]bool{}
	for line, k := range got {
		offset, text, _ := strings.Cut(line, " ")
		text, _, _ = strings.Cut(text, ",")
		if k != 1 || offsets[offset] {
			return finished, fmt.Errorf("the record at offset %s is there twice", offset)
		}
		offsets[offset] = true
		count[text]++
	}
	for i := range acked {
		for k := range 6 {
			if text := fmt.Sprintf("big %d", 10*i+k); count[text] != 1 {
				return finished, fmt.Errorf("%q is there %d times", text, count[text])
			}
		}
	}
	for text, least := range map[string]int{"small": len(acked), codeTooLarge + "huge": len(acked), "Lambda.FunctionErrorfail first": len(acked), "Lambda.FunctionErrorfail last": len(acked)} {
		if count[text] < least {
			return finished, fmt.Errorf("%q is there %d times, want %d: %v", text, count[text], least, count)
		}
	}
	return finished, nil
}
