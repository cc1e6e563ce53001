package transform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// One bad record fails alone, however many there are, and in whichever way.
func TestBadRecordsFailAlone(t *testing.T) {
	e, dir := newEngine(t)
	s := newSQL(t, e, dir, "SELECT n, CAST(symbol AS integer) AS s, 100 / n AS q FROM records AS r (symbol varchar, n integer) WHERE 10 / (n - 1) < 100")
	const count = 5000
	in := make([]Record, count)
	want := make([]string, count)
	bad := 0
	for i := range in {
		doc, line := fmt.Sprintf(`{"symbol":"%d","n":5}`, i), fmt.Sprintf(`Ok {"n":5,"s":%d,"q":20}`, i)
		switch i % 100 {
		case 1:
			doc, line = `{"symbol":"1","n":0}`, CastError
		case 2:
			doc, line = `{"symbol":"x","n":2}`, CastError
		case 3:
			doc, line = `{"symbol":"1","n":1}`, CastError
		case 4:
			doc, line = `{"symbol":1,"n":1}`, MalformedData
		case 5:
			doc, line = `{"symbol":"x"}`, "Dropped" // the predicate is null
		}
		if strings.HasPrefix(line, "SQL.") {
			bad++
		}
		in[i] = Record{ID: fmt.Sprintf("r%d", i), Data: []byte(doc)}
		want[i] = line
	}
	got, err := s.Apply(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	explained := 0
	for i, r := range got {
		d := describe(r)
		if d != want[i] && (r.Kind != Failed || r.Code != want[i] || !strings.HasPrefix(r.Message, fmt.Sprintf("record r%d: ", i))) {
			t.Fatalf("record %d, %s: %s, want %s", i, in[i].Data, d, want[i])
		}
		if r.Code == CastError && !strings.Contains(r.Message, "as for record r1") {
			explained++
		}
	}
	if bad != 200 || explained != explainedMax {
		t.Errorf("%d bad records, %d explained", bad, explained)
	}
	for i, message := range map[int]string{1: "division by zero", 2: "Could not convert string 'x' to INT32", 3: "division by zero"} {
		if !strings.Contains(got[i].Message, message) {
			t.Errorf("record %d: %s, want %s", i, got[i].Message, message)
		}
	}
}

// What TRY does not catch is found by halving.
func TestUncaughtFailuresAreHalved(t *testing.T) {
	e, dir := newEngine(t)
	s := newSQL(t, e, dir, "SELECT CAST(symbol AS integer) AS s FROM records AS r (symbol varchar) WHERE symbol <> 'drop'")
	s.tried, s.part = strings.ReplaceAll(s.tried, "TRY(", "("), strings.ReplaceAll(s.part, "TRY(", "(")
	in := make([]Record, 100)
	for i := range in {
		in[i] = Record{ID: fmt.Sprintf("r%d", i), Data: fmt.Appendf(nil, `{"symbol":"%d"}`, i)}
	}
	for i, symbol := range map[int]string{0: "x", 50: "y", 51: "z", 99: "", 70: "drop"} {
		in[i].Data = fmt.Appendf(nil, `{"symbol":"%s"}`, symbol)
	}
	in[71].Data = []byte(`!`)
	got, err := s.Apply(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range got {
		want := fmt.Sprintf(`Ok {"s":%d}`, i)
		switch i {
		case 0, 50, 51, 99:
			want = CastError + ": record " + in[i].ID + ": Could not convert string"
		case 70:
			want = "Dropped"
		case 71:
			want = MalformedData
		}
		if d := describe(r); !strings.HasPrefix(d, want) {
			t.Errorf("record %d: %s, want %s", i, d, want)
		}
	}
}

// DuckDB computes an expression that occurs twice once, and takes it out of TRY
// unless it is kept from that.
func TestRepeatedExpressionsStayInTry(t *testing.T) {
	e, dir := newEngine(t)
	for _, sql := range []string{
		"SELECT 100 / n AS a, 100 / n + 1 AS b, 1 + 100 / n AS c FROM records AS r (n bigint)",
		"SELECT 100 / n AS a, 100 / n + 1 AS b FROM records AS r (n bigint) WHERE 100 / n > 1 OR 100 / n < 1 OR 100 / n = 1",
		"SELECT CAST(CAST(n AS varchar) || s AS integer) AS a, CAST(CAST(n AS varchar) || s AS integer) AS b FROM records AS r (n bigint, s varchar) WHERE CAST(CAST(n AS varchar) || s AS integer) > 0 AND CAST(CAST(n AS varchar) || s AS integer) < 100",
	} {
		s := newSQL(t, e, dir, sql)
		in := records(`{"n":1,"s":"1"}`, `{"n":0,"s":"x"}`, `{"n":3,"s":"1"}`)
		r := &run{s: s, records: in, results: make([]Result, len(in)), room: outputMax}
		if err := r.apply(t.Context(), s.workers.Get().(*worker)); err != nil {
			t.Fatal(err)
		}
		if r.halvings != 0 || r.results[0].Kind != Ok || r.results[1].Code != CastError || r.results[2].Kind != Ok {
			t.Errorf("%s: halved %d times: %v", sql, r.halvings, r.results)
		}
	}
}

// The same records give the same results in whatever batches they come, and
// from several goroutines at once.
func TestSQLIsDeterministic(t *testing.T) {
	e, dir := newEngine(t)
	s := newSQL(t, e, dir, "SELECT symbol, price * qty AS notional, price / qty AS each, executed_at, md5(member) AS _partition_m, x * 3 AS x FROM records AS r "+tradeColumns+" WHERE qty > 150")
	in := tradeBatch(3000)
	in[7].Data, in[2000].Data = []byte(`{"qty":151,"price":1e40}`), []byte(`{`)
	want, err := s.Apply(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[Kind]int{}
	for _, r := range want {
		kinds[r.Kind]++
	}
	if kinds[Ok] < 2000 || kinds[Dropped] < 100 || kinds[Failed] != 2 {
		t.Fatalf("kinds %v", kinds)
	}
	var group sync.WaitGroup
	for _, size := range []int{1, 7, 500, 2999, 3000} {
		group.Go(func() {
			var got []Result
			last := len(in)
			if size < 10 {
				last = 70
			}
			for from := 0; from < last; from += size {
				part, err := s.Apply(t.Context(), in[from:min(from+size, last)])
				if err != nil {
					t.Error(err)
					return
				}
				got = append(got, part...)
			}
			if !reflect.DeepEqual(got, want[:last]) {
				t.Errorf("in batches of %d the results differ", size)
			}
		})
	}
	group.Wait()
}

// The data of a result is its own: a record's memory may be used again at once.
func TestResultsDoNotShareTheRecords(t *testing.T) {
	e, dir := newEngine(t)
	for _, sql := range []string{"SELECT data AS _document FROM records", "SELECT 'x' AS _table FROM records", "SELECT data FROM records"} {
		s := newSQL(t, e, dir, sql)
		in := records("first", "second")
		got, err := s.Apply(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		before := describe(got[0]) + describe(got[1])
		copy(in[0].Data, "XXXXX")
		_ = append(got[0].Data, "overrun"...)
		if after := describe(got[0]) + describe(got[1]); after != before || !strings.Contains(after, "first") {
			t.Errorf("%s: %s became %s", sql, before, after)
		}
	}
}

func TestSQLCancelAndClose(t *testing.T) {
	e, dir := newEngine(t)
	s := newSQL(t, e, dir, "SELECT md5(md5(md5(symbol))) AS a FROM records AS r "+tradeColumns)
	in := tradeBatch(20_000)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Apply(ctx, in); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	for {
		got, err := s.Apply(short, in)
		if err == nil {
			continue // a very fast machine
		}
		if got != nil || !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		break
	}
	done := make(chan error)
	for range 4 {
		go func() {
			for {
				if got, err := s.Apply(t.Context(), in); err != nil {
					if got != nil {
						t.Error("results beside an error")
					}
					done <- err
					return
				}
			}
		}()
	}
	time.Sleep(30 * time.Millisecond)
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	for range 4 {
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("a closed transform left %v, %v", entries, err)
	}
	if _, err := s.Apply(t.Context(), in); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestNoFileOutlivesAnApply(t *testing.T) {
	e, dir := newEngine(t)
	s := newSQL(t, e, dir, "SELECT n FROM records AS r "+tradeColumns)
	for _, in := range [][]Record{tradeBatch(10), records("x"), nil, records(`{}`, `[]`)} {
		got, err := s.Apply(t.Context(), in)
		if err != nil || len(got) != len(in) {
			t.Fatal(got, err)
		}
	}
	if entries, err := os.ReadDir(s.dir); err != nil || len(entries) != 0 {
		t.Errorf("files left: %v, %v", entries, err)
	}
	// A place that cannot be written to is an error, no failure of records.
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Apply(t.Context(), tradeBatch(1)); err == nil || got != nil {
		t.Error(got, err)
	}
}

// An engine that has no room, or is gone, is an error and no record's failure.
func TestTheEnginesTroubleFailsNoRecord(t *testing.T) {
	e, dir := newEngine(t)
	s := newSQL(t, e, dir, "SELECT n FROM records AS r "+tradeColumns)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Apply(t.Context(), tradeBatch(3)); err == nil || got != nil {
		t.Error(got, err)
	}
}

// Documents that grow are bounded for the batch, too.
func TestOutputOfABatchIsBounded(t *testing.T) {
	e, dir := newEngine(t)
	s := newSQL(t, e, dir, "SELECT repeat(data, 100) AS a FROM records")
	in := make([]Record, 150)
	for i := range in {
		in[i] = Record{ID: fmt.Sprint(i), Data: bytes.Repeat([]byte("x"), 9_000)}
	}
	got, err := s.Apply(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	size, failed := 0, 0
	for _, r := range got {
		size += len(r.Data)
		if r.Kind == Failed {
			failed++
			if r.Code != OutputTooLarge {
				t.Fatal(describe(r))
			}
		}
	}
	if size > outputMax || size < outputMax*9/10 || failed == 0 {
		t.Errorf("%d bytes came out, %d records failed", size, failed)
	}
}

// Batches larger than a run are cut; each record keeps its place.
func TestLargeBatchesAreCut(t *testing.T) {
	e, dir := newEngine(t)
	s := newSQL(t, e, dir, "SELECT n FROM records AS r (n bigint)")
	in := make([]Record, chunkRecords+1000)
	for i := range in {
		in[i] = Record{ID: fmt.Sprint(i), Data: fmt.Appendf(nil, `{"n":%d}`, i)}
	}
	in[chunkRecords].Data = append(in[chunkRecords].Data, bytes.Repeat([]byte(" "), SQLBatchBytes)...)
	got, err := s.Apply(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range got {
		if want := fmt.Sprintf(`Ok {"n":%d}`, i); describe(r) != want {
			t.Fatalf("record %d: %s", i, describe(r))
		}
	}
}

// FuzzSQLDocument: whatever a record is, it has one result, and what comes out
// is what encoding/json takes for JSON.
func FuzzSQLDocument(f *testing.F) {
	e, dir := newEngine(f)
	listed := newSQL(f, e, dir, "SELECT *, price * 2 AS twice, upper(symbol) AS up FROM records AS r "+tradeColumns+" WHERE n IS NULL OR n <> 3")
	text := newSQL(f, e, dir, "SELECT data, data->'a' AS a, data->>'b' AS b FROM records")
	for _, s := range []string{`{"symbol":"A","price":1.5,"n":3}`, `{"a":[1.50,{"b":null}],"b":"\u00e9"}`, `{"x":1e308,"a":1e400}`, "\xff", `{"a":"\ud800"}`, `{"executed_at":"0001-01-01T00:00:00Z","trade_date":"9999-12-31"}`, `{"a":-0.0,"b":1E5}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, s := range []*SQL{listed, text} {
			got, err := s.Apply(t.Context(), []Record{{ID: "x", Data: data}})
			if err != nil || len(got) != 1 {
				t.Fatalf("%q: %v %v", data, got, err)
			}
			r := got[0]
			if r.Kind == Ok {
				if x := (&scanner{b: r.Data}); !x.skip(1) || !x.end() {
					t.Fatalf("%q gave %q", data, r.Data)
				}
			} else if r.Kind == Failed && (r.Code == "" || r.Message == "") {
				t.Fatalf("%q: %+v", data, r)
			}
		}
	})
}
