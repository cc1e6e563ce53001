package delivery

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/record"
)

func itemsOf(t *testing.T, r Receipt, docs, corrected []string) []ReplayItem {
	t.Helper()
	var out []ReplayItem
	for i := range docs {
		id, err := record.ParseID(string(r.AppendRecordID(nil, i)))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, ReplayItem{ID: id, Rejected: []byte(docs[i]), Data: []byte(corrected[i])})
	}
	return out
}

func TestReplayResolvesRejectsOnce(t *testing.T) {
	h := start(t, nil)
	bad := []string{`{"source":"A","session":"1","epoch":0,"seq":7,"price":"x"}`, `{"source":"B","price":"1.5"}`, `no json`}
	r, err := h.put(bad...)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := h.m.o.Ledger.Unkeyed(); n["B"] != 1 || n[""] != 1 {
		t.Fatal(n)
	}
	good := []string{doc(7, 7), doc(8, 8), doc(9, 9)}
	items := itemsOf(t, r, bad, good)
	s, _ := h.m.Stream("s")
	replay := func(s *Stream, want ReplayResult) {
		t.Helper()
		got, err := s.Replay(t.Context(), items)
		if err != nil || got != want {
			t.Fatalf("%+v %v", got, err)
		}
	}
	replay(s, ReplayResult{Put: 3})
	replay(s, ReplayResult{Known: 3})
	if err := h.m.checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.abandon()
	h2, err := openHouse(t, h.mem.Crash(1), h.w, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h2.abandon()
	s, _ = h2.m.Stream("s")
	replay(s, ReplayResult{Known: 3})
	if n := h2.m.o.Ledger.Unkeyed(); len(n) != 0 {
		t.Fatalf("unresolved: %v", n)
	}
	acc, _ := h2.m.o.Ledger.Accounts()
	for _, a := range acc {
		if a.Rejected.Total() != 0 || a.RejectedUnnumbered != 0 || len(a.Samples) != 0 {
			t.Errorf("unresolved: %+v", a)
		}
	}
	if err := h2.m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := map[int64]int64{7: 75000, 8: 85000, 9: 95000}
	if err := once(h.w.rows, want); err != nil || len(h.w.rows) != 3 {
		t.Fatal(err, h.w.rows)
	}
}

// Records without numbers are replayed once all the same: into a stream of
// objects, with and without processing, across crashes at every operation.
func TestReplayIsOnceAcrossCrashes(t *testing.T) {
	for name, cfg := range map[string]Config{"plain": {Name: "s", Objects: &objectHints}, "processed": objectStream} {
		t.Run(name, func(t *testing.T) {
			for n := 1; ; n++ {
				if done := crashReplay(t, cfg, n); done {
					return
				}
			}
		})
	}
}

func crashReplay(t *testing.T, cfg Config, n int) (finished bool) {
	mem, w := fsys.NewMem(), newWorld()
	h, err := openHouse(t, mem, w, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.m.Create(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	r, err := h.put("a", "b", "c")
	if err != nil {
		t.Fatal(err)
	}
	items := itemsOf(t, r, []string{"a", "b", "c"}, []string{"A", "B", "C"})
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
	s, _ := h.m.Stream("s")
	for i := range items {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, _ = s.Replay(ctx, items[i:i+1])
		cancel()
		if i == 1 {
			_ = h.m.checkpoint(t.Context())
		}
	}
	h.abandon()
	mu.Lock()
	finished = ops <= n
	mu.Unlock()
	h, err = openHouse(t, mem.Crash(uint64(n)), w, nil)
	if err != nil {
		t.Fatal(n, err)
	}
	defer h.abandon()
	s, _ = h.m.Stream("s")
	for range 2 {
		if _, err = s.Replay(t.Context(), items); err != nil {
			t.Fatal(n, err)
		}
	}
	if err := h.m.Close(t.Context()); err != nil {
		t.Fatal(n, err)
	}
	lines, err := h.lines(roleObjects)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for line, k := range lines {
		_, data, _ := strings.Cut(line, " ")
		count[data] += k
	}
	if fmt.Sprint(count) != "map[A:1 B:1 C:1 a:1 b:1 c:1]" {
		t.Fatalf("crash after operation %d: %v", n, count)
	}
	return finished
}

// A range of one stream's log is put through another.
func TestDocumentsOfTheLog(t *testing.T) {
	h := start(t, nil)
	for _, docs := range [][]string{{doc(1, 1), doc(2, 2)}, {doc(3, 3), "no json"}, {doc(4, 4)}} {
		if _, err := h.put(docs...); err != nil {
			t.Fatal(err)
		}
	}
	cfg := routedStream
	cfg.Name, cfg.Tables, cfg.Processing = "other", nil, nil
	if _, err := h.m.Create(t.Context(), Config{Name: "o", Objects: &objectHints}); err != nil {
		t.Fatal(err)
	}
	s, _ := h.m.Stream("s")
	o, _ := h.m.Stream("o")
	var items []ReplayItem
	if err := s.Documents(t.Context(), 1, 4, func(id record.ID, doc []byte, rejected bool) error {
		if rejected != (string(doc) == "no json") {
			t.Errorf("%s: rejected %t", doc, rejected)
		}
		items = append(items, ReplayItem{ID: id, Data: append([]byte(nil), doc...)})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := o.Replay(t.Context(), items); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := h.lines(roleObjects)
	if err != nil || len(got) != 3 {
		t.Fatal(got, err)
	}
	for line := range got {
		if !strings.Contains(line, `"seq":2`) && !strings.Contains(line, `"seq":3`) && !strings.Contains(line, "no json") {
			t.Error(line)
		}
	}
}

func TestParseFailed(t *testing.T) {
	id := record.ID{Key: record.Key{Incarnation: record.Incarnation{1}}, Offset: 5}
	line := func(v map[string]any) []byte {
		v["recordId"] = id.String()
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	raw := base64.StdEncoding.EncodeToString([]byte("bad"))
	for _, c := range []struct {
		line []byte
		data string
		err  string
	}{
		{line(map[string]any{"rawData": raw}), "bad", ""},
		{line(map[string]any{"rawData": raw, "data": map[string]any{"a": 1}}), `{"a":1}`, ""},
		{line(map[string]any{"data": "text"}), "text", ""},
		{line(map[string]any{}), "", "neither"},
		{line(map[string]any{"rawData": "!"}), "", "rawData"},
		{line(map[string]any{"rawData": raw, "tapehouseCode": SequenceConflict}), "", "is a conflict"},
		{[]byte(`{"recordId":"x","data":1}`), "", "recordId"},
		{[]byte(`x`), "", "not a line"},
	} {
		item, _, err := ParseFailed(c.line)
		if c.err != "" {
			if err == nil || !errors.Is(err, ErrReplay) || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", c.line, err)
			}
			continue
		}
		if err != nil || string(item.Data) != c.data || item.ID != id {
			t.Errorf("%s: %+v %v", c.line, item, err)
		}
	}
}
