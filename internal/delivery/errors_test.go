package delivery

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/record"
)

// sameBytes is an error output that no execution of a plan may write otherwise than
// the first did, and no object of which is larger than the bound.
type sameBytes struct {
	lake.Store
	disk  fsys.FS
	bound int64
	fail  func() error // nil, or asked before each object
}

func (e sameBytes) PutFile(ctx context.Context, name, path string) error {
	data, err := readAll(e.disk, path)
	if err != nil {
		return err
	}
	if e.bound > 0 && int64(len(data)) > e.bound && bytes.Count(data, []byte("\n")) > 1 {
		panic(fmt.Sprintf("%s has %d bytes", name, len(data)))
	}
	if e.fail != nil {
		if err := e.fail(); err != nil {
			return err
		}
	}
	err = e.Store.PutFile(ctx, name, path)
	if errors.Is(err, lake.ErrExists) {
		had, gerr := e.Get(ctx, name)
		if gerr != nil {
			return gerr
		}
		if !bytes.Equal(had, data) {
			panic(fmt.Sprintf("a replay of %s would write other bytes", name))
		}
	}
	return err
}

func readAll(disk fsys.FS, path string) ([]byte, error) {
	f, err := disk.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	data := make([]byte, size)
	_, err = f.ReadAt(data, 0)
	return data, err
}

func badDoc(seq int64) string {
	return fmt.Sprintf(`{"source":"A","session":"1","epoch":0,"seq":%d,"price":"x"}`, seq)
}

// TestFailedLines holds the lines to what encoding/json makes of them.
func TestFailedLines(t *testing.T) {
	arn := `arn:aws:lambda:us-east-1:1:function:"é"`
	for i, text := range []string{"", "plain", `member "price": is a string`, "back\\slash", "<html>&amp;", "é\u2028\x00\x1f", "\xff broken", strings.Repeat("x", 3000)} {
		key := record.Key{Incarnation: record.Incarnation{1, byte(i)}}
		x := failure{arrivedAt: 1_700_000_000_123_456, endedAt: time.UnixMilli(1_700_000_000_999), offset: record.Offset(1 << (7 * i)), raw: []byte(text), aws: "Code." + text, message: text, code: text}
		w := newFailedLine(key, "db"+text, text)
		encode := func(v any) string {
			var out bytes.Buffer
			enc := json.NewEncoder(&out)
			enc.SetEscapeHTML(false)
			if err := enc.Encode(v); err != nil {
				t.Fatal(err)
			}
			return out.String()
		}
		table, err := json.Marshal(failTable{DatabaseName: "db" + text, TableName: text, VersionID: "LATEST"})
		if err != nil {
			t.Fatal(err)
		}
		id := record.ID{Key: key, Offset: x.offset}.String()
		raw := base64.StdEncoding.EncodeToString(x.raw)
		want := encode(failedRecord{AttemptsMade: 1, ArrivalTimestamp: 1_700_000_000_123, LastErrorCode: x.aws, LastErrorMessage: text, AttemptEnding: 1_700_000_000_999,
			RawData: raw, SequenceNumber: fmt.Sprint(uint64(x.offset)), RecordID: id, Code: text})
		// The table's name is escaped once, as Marshal does it.
		blank, err := json.Marshal(failTable{})
		if err != nil {
			t.Fatal(err)
		}
		want = strings.Replace(want, string(blank), string(table), 1)
		if got := string(w.appendConversion([]byte("before"), &x)); got != "before"+want {
			t.Errorf("conversion of %q:\n%s\nwant\n%s", text, got, want)
		}
		p := failedProcessing{AttemptsMade: 1, ArrivalTimestamp: 1_700_000_000_123, ErrorCode: x.aws, ErrorMessage: text, AttemptEnding: 1_700_000_000_999, RawData: raw, RecordID: id}
		for _, a := range []string{"", arn} {
			if w.arn = a; a != "" {
				p.LambdaARN = &arn
			}
			if got, want := string(w.appendProcessing(nil, &x)), encode(p); got != want {
				t.Errorf("processing of %q:\n%s\nwant\n%s", text, got, want)
			}
		}
	}
}

// Rejects are delivered in bounded objects and bounded flushes, without waiting
// for the interval; every one stands in the error output once, and can be put
// again from there.
func TestRejectsAreBounded(t *testing.T) {
	const objectBytes, batches, each = 4 << 10, 60, 20
	h := start(t, func(o *Options) {
		o.ErrorObjectBytes = objectBytes
		o.Errors = sameBytes{Store: o.Errors, disk: o.FS, bound: objectBytes}
	})
	ids := map[string]string{}
	for i := range batches {
		docs := make([]string, each)
		for k := range docs {
			if seq := int64(i*each + k); k == 0 {
				docs[k] = doc(seq, 1)
			} else {
				docs[k] = badDoc(seq)
			}
		}
		r, err := h.put(docs...)
		if err != nil {
			t.Fatal(err)
		}
		for k := 1; k < each; k++ {
			ids[string(r.AppendRecordID(nil, k))] = docs[k]
		}
	}
	if err := h.m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines, err := h.errorLines()
	if err != nil || len(lines) != len(ids) {
		t.Fatalf("%d of %d rejects are in the error output: %v", len(lines), len(ids), err)
	}
	for id, n := range lines {
		if n != 1 || ids[id] == "" {
			t.Fatalf("%s stands %d times", id, n)
		}
	}
	if len(h.w.rows) != batches {
		t.Fatalf("%d rows of %d", len(h.w.rows), batches)
	}
	if h.w.commits < 3 { // 70 KiB of rejects, at most 16 a flush but for an entry's rest
		t.Fatalf("the rejects were delivered in %d flushes", h.w.commits)
	}
	s, err := h.m.Stream("s")
	if err != nil {
		t.Fatal(err)
	}
	objects := 0
	var items []ReplayItem
	if err := h.errors.List(t.Context(), "errors/", func(i lake.Info) error {
		objects++
		body, err := h.errors.Get(t.Context(), i.Name)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(body)) {
			item, original, err := ParseFailed([]byte(line))
			if err != nil {
				return err
			}
			if string(original) != ids[item.ID.String()] {
				return fmt.Errorf("%s holds %q", item.ID, original)
			}
			item.Data = bytes.Replace(original, []byte(`"x"`), []byte(`"2.5"`), 1)
			items = append(items, item)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if objects < len(ids)*300/objectBytes {
		t.Fatalf("%d objects for %d lines", objects, len(ids))
	}
	for len(items) > 0 {
		n := min(len(items), replayDocsMax)
		if res, err := s.Replay(t.Context(), items[:n]); err != nil || res.Put != n {
			t.Fatalf("replay of %d: %+v %v", n, res, err)
		}
		items = items[n:]
	}
	if err := h.m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(h.w.rows) != batches*each {
		t.Fatalf("%d rows of %d after the replay", len(h.w.rows), batches*each)
	}
	accounts, _ := h.m.o.Ledger.Accounts()
	if n := accounts[0].Rejected.Total(); n != 0 {
		t.Fatalf("%d rejects are unresolved after the replay", n)
	}
}

// Rejects alone reach the buffer hint.
func TestRejectsReachTheHint(t *testing.T) {
	h := start(t, nil)
	if _, err := h.m.Create(t.Context(), Config{Name: "small", Namespace: "n", Table: "t", SizeBytes: 200, Interval: time.Hour}); err != nil {
		t.Fatal(err)
	}
	s, err := h.m.Stream("small")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), docsOf(badDoc(1), badDoc(2), badDoc(3), badDoc(4))); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); s.Through() < 4; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("rejects beyond the size hint wait for the interval")
		}
	}
}

// Entries of nothing but rejects are merged without reading the log, and tell of
// their faults; nothing else is kept of a reject.
func TestRejectsAreCountedOnly(t *testing.T) {
	h := start(t, nil)
	const puts = 300
	for i := range int64(puts) {
		if _, err := h.put(badDoc(2*i), badDoc(2*i+1)); err != nil {
			t.Fatal(err)
		}
		if _, err := h.visible(true); err != nil { // an entry each
			t.Fatal(err)
		}
	}
	s, err := h.m.Stream("s")
	if err != nil {
		t.Fatal(err)
	}
	l := s.direct.Load()
	entries, rows, size, end := l.tail.stats()
	if f := l.tail.faults(0, end); rows != 0 || size != 0 || f.records != 2*puts || f.bytes < 2*puts*50 {
		t.Fatalf("%d rows, %d bytes, faults %+v", rows, size, f)
	}
	if entries > 40 {
		t.Fatalf("%d puts left %d entries", puts, entries)
	}
	files, err := h.mem.ReadDir(l.m.tailDir())
	if err != nil || len(files) != 0 {
		t.Fatalf("%d files in the tail: %v", len(files), err)
	}
}

// A flush that fails midway through its error output goes on where it stood, and
// the process after it writes the same objects.
func TestErrorOutputGoesOn(t *testing.T) {
	asked := 0
	broken := true
	h := start(t, func(o *Options) {
		o.ErrorObjectBytes = 500
		o.Errors = sameBytes{Store: o.Errors, disk: o.FS, bound: 500, fail: func() error {
			if asked++; broken && asked > 3 {
				return errors.New("the bucket is away")
			}
			return nil
		}}
	})
	docs := make([]string, 12)
	for i := range docs {
		docs[i] = badDoc(int64(i))
	}
	if _, err := h.put(docs...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := h.m.Flush(ctx); err == nil {
		t.Fatal("the flush did not fail")
	}
	h.abandon()
	if asked > 60 {
		t.Fatalf("objects that were there were written again: %d times", asked)
	}
	lines, err := h.errorLines()
	if err != nil || len(lines) != 3 {
		t.Fatalf("%d lines before the restart: %v", len(lines), err)
	}
	// The definition of the error output changes; the plan does not.
	again, err := openHouse(t, h.mem, h.w, func(o *Options) {
		o.ErrorObjectBytes = 64 << 10
		o.Errors = sameBytes{Store: o.Errors, disk: o.FS, bound: 500}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer again.abandon()
	if err := again.m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if lines, err = again.errorLines(); err != nil || len(lines) != len(docs) {
		t.Fatalf("%d lines of %d: %v", len(lines), len(docs), err)
	}
	for id, n := range lines {
		if n != 1 {
			t.Fatalf("%s stands %d times", id, n)
		}
	}
}

// A plan stored by a version that wrote one object is executed as it stands.
func TestPlanWithOneErrorObject(t *testing.T) {
	h := start(t, nil)
	if _, err := h.put(badDoc(1), badDoc(2)); err != nil {
		t.Fatal(err)
	}
	s, err := h.m.Stream("s")
	if err != nil {
		t.Fatal(err)
	}
	h.abandon()
	body := fmt.Sprintf(`{"from":0,"to":2,"error_object":"errors/s/as-it-was","at":%q}`, time.Now().UTC().Format(time.RFC3339))
	if err := h.w.Put(t.Context(), kindPlan, s.key.String(), json.RawMessage(body)); err != nil {
		t.Fatal(err)
	}
	again, err := openHouse(t, h.mem, h.w, func(o *Options) { o.ErrorObjectBytes = 10 })
	if err != nil {
		t.Fatal(err)
	}
	defer again.abandon()
	if err := again.m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := again.errors.Get(t.Context(), "errors/s/as-it-was")
	if err != nil || bytes.Count(got, []byte("\n")) != 2 {
		t.Fatalf("%q %v", got, err)
	}
	if lines, err := again.errorLines(); err != nil || len(lines) != 2 {
		t.Fatalf("%v %v", lines, err)
	}
}

// The documents behind decoded puts are bounded: what exceeds the bound is read
// from the log.
func TestQueueIsBoundedInBytes(t *testing.T) {
	h := start(t, func(o *Options) { o.QueueBytes = 1000 })
	s, err := h.m.Stream("s")
	if err != nil {
		t.Fatal(err)
	}
	l := s.direct.Load()
	held := s.newest(s.direct.Load()).layout.NewDecoder()
	for i := range record.Offset(10) {
		d := docsOf(badDoc(int64(i)), strings.Repeat("x", 300))
		b := held.Decode(d.Arena, d.Ends, 0)
		l.push(pending{first: 1000 + 2*i, count: 2, bytes: b.HeldBytes(), batch: b})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queuedBytes > 1000 || len(l.queue) != 2 {
		t.Fatalf("%d frames with %d bytes wait", len(l.queue), l.queuedBytes)
	}
	for _, p := range l.queue {
		p.batch.Release()
	}
	l.queue, l.queuedRows, l.queuedBytes = nil, 0, 0
}

// failedRecord is a line of the error output, as Firehose writes it, with the
// record id and this program's own code and message added.
type failedRecord struct {
	AttemptsMade     int       `json:"attemptsMade"`
	ArrivalTimestamp int64     `json:"arrivalTimestamp"` // ms
	LastErrorCode    string    `json:"lastErrorCode"`
	LastErrorMessage string    `json:"lastErrorMessage"`
	AttemptEnding    int64     `json:"attemptEndingTimestamp"` // ms
	RawData          string    `json:"rawData"`                // base64
	SequenceNumber   string    `json:"sequenceNumber"`
	SubSequence      *int64    `json:"subSequenceNumber"`
	Table            failTable `json:"dataCatalogTable"`
	RecordID         string    `json:"recordId"`
	Code             string    `json:"tapehouseCode"`
}

// failedProcessing is a line of the error output of records that processing
// could not handle, as Firehose writes it, with the record id added.
type failedProcessing struct {
	AttemptsMade     int     `json:"attemptsMade"`
	ArrivalTimestamp int64   `json:"arrivalTimestamp"` // ms
	ErrorCode        string  `json:"errorCode"`
	ErrorMessage     string  `json:"errorMessage"`
	AttemptEnding    int64   `json:"attemptEndingTimestamp"` // ms
	RawData          string  `json:"rawData"`                // base64
	LambdaARN        *string `json:"lambdaArn,omitempty"`
	RecordID         string  `json:"recordId"`
}
