package market

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/exchange"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/maintain"
	"github.com/tapehouse/tapehouse/internal/record"
)

func TestCompleteDaySealsAndVerifies(t *testing.T) {
	h := newHouse(t)
	docs := h.play(4000, nil, nil)
	c := h.seal()
	if c.Version != 1 || c.Tag != "eod-2026-11-20" || c.SealedBy != "tester" || len(c.Waivers) != 0 {
		t.Fatalf("%+v", c)
	}
	for _, f := range c.Findings {
		if f.Status != Passed {
			t.Errorf("%s", f)
		}
	}
	var total int64
	for _, p := range c.Tables {
		for _, s := range h.pack.Streams {
			if p.Table != h.name(s.Table).String() {
				continue
			}
			total += p.Rows
			if p.Rows != int64(len(docs[string(s.Name)])) {
				t.Errorf("%s: %d rows, %d documents", p.Table, p.Rows, len(docs[string(s.Name)]))
			}
		}
	}
	if total < 4000 || c.factRows() != 4000 {
		t.Fatalf("%d rows, %d of facts", total, c.factRows())
	}
	v := h.verify(0)
	if v.Tables != len(c.Tables) || v.Figures < 300 {
		t.Fatalf("%+v", v)
	}
	// Sealing again answers with the same certificate.
	again := must[*SealResult](t)(h.market.Seal(t.Context(), tradeDate, SealOptions{By: "other"}))
	if !again.Existing || again.Certificate.Hash != c.Hash {
		t.Fatalf("%+v", again)
	}
	// Each fact's partition is one sorted file.
	for _, f := range h.market.facts {
		tbl := must[*catalog.Table](t)(h.catalog.Load(t.Context(), h.name(f.stream.Table)))
		files := must[[]catalog.DataFile](t)(h.catalog.Files(t.Context(), tbl, catalog.At{Tag: c.Tag}))
		if len(files) != 1 || !strings.HasPrefix(filepath.Base(files[0].Path), "compact-") {
			t.Errorf("%s: %d files", f.stream.Table, len(files))
		}
	}
	// What happens later does not disturb it; a restart neither.
	h.put(exchange.StreamExecutions, alter(docs[exchange.StreamExecutions][0], "seq", json.Number("999999")))
	check(t, h.delivery.Flush(t.Context()))
	h.crash()
	h.verify(1)
	audit := must[[]AuditEntry](t)(h.market.Audit(t.Context(), tradeDate))
	if len(audit) != 1 || audit[0].Action != "seal" || audit[0].By != "tester" {
		t.Fatalf("%+v", audit)
	}
}

// alter changes one member of a document, or removes it (nil).
func alter(doc, name string, v any) string {
	d := json.NewDecoder(strings.NewReader(doc))
	d.UseNumber()
	m := map[string]any{}
	if err := d.Decode(&m); err != nil {
		panic(err)
	}
	m[name] = v
	if v == nil {
		delete(m, name)
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// the findings of one check.
func of(findings []Finding, c Check) []Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f Finding) bool { return f.Check != c })
}

func TestGapRefusesAndResendHeals(t *testing.T) {
	h := newHouse(t)
	var withheld []string
	h.play(3000, nil, func(r exchange.Record, doc string) bool {
		if r.Key.Source == "ME2-ORD" && r.Key.Epoch == 1 && (r.Key.Seq == 17 || r.Key.Seq == 40 || r.Key.Seq == 41) {
			withheld = append(withheld, doc)
			return true
		}
		return false
	})
	failed := h.refused()
	if len(failed) != 1 || failed[0].Check != CheckGap {
		t.Fatalf("%v", failed)
	}
	f := failed[0]
	if f.Source != "ME2-ORD" || f.Session != "ME2-20261120-1" || f.Epoch != 1 || !slices.Equal(f.Ranges, []Range{{17, 17}, {40, 41}}) || f.Count != 3 {
		t.Fatalf("%+v", f)
	}
	if !strings.Contains(f.Message, "17, 40-41") || !strings.Contains(f.Remedy, "ask ME2-ORD to resend 17, 40-41") || !strings.Contains(f.Remedy, "tapehouse seal --trade-date 2026-11-20") {
		t.Fatalf("%s", f)
	}
	// Nothing was tagged or kept but the refusal.
	if _, _, err := h.market.Certificate(t.Context(), tradeDate, 0); !errors.Is(err, ErrNotSealed) {
		t.Fatal(err)
	}
	h.put(exchange.StreamOrders, withheld...)
	h.seal()
	h.verify(0)
}

func TestRejectRefusesAndGoodResendHeals(t *testing.T) {
	h := newHouse(t)
	var bad exchange.Record
	h.play(3000, func(c *exchange.Config) { c.Sabotage.MalformRecord = true }, func(r exchange.Record, doc string) bool {
		if r.Malformed {
			bad = r
		}
		return false
	})
	failed := h.refused()
	if len(failed) != 1 || failed[0].Check != CheckRejected {
		t.Fatalf("%v", failed)
	}
	f := failed[0]
	if f.Source != bad.Key.Source || f.Ranges[0] != (Range{bad.Key.Seq, bad.Key.Seq}) || len(f.Records) != 1 || f.Records[0].Code == "" || !strings.Contains(f.Message, f.Records[0].RecordID) {
		t.Fatalf("%+v", f)
	}
	if _, err := record.ParseID(f.Records[0].RecordID); err != nil {
		t.Fatal(err)
	}
	// The same record, as it should have been.
	e := must[*exchange.Exchange](t)(exchange.New(func() exchange.Config {
		c := exchange.DefaultConfig(h.pack.Calendar, tradeDate, 7, 3000)
		c.Corrections, c.Restarts = 4, 1
		return c
	}()))
	for {
		doc, r, err := e.Next(nil)
		check(t, err)
		if r.Key == bad.Key {
			h.put(exchange.StreamExecutions, string(doc))
			break
		}
	}
	h.seal()
	h.verify(0)
}

func TestConflictRefusesUntilWaived(t *testing.T) {
	h := newHouse(t)
	docs := h.play(3000, nil, nil)
	h.put(exchange.StreamExecutions, alter(docs[exchange.StreamExecutions][5], "price", json.Number("77.7700")))
	failed := h.refused()
	if len(failed) != 1 || failed[0].Check != CheckConflict || failed[0].Count != 1 || len(failed[0].Records) != 1 {
		t.Fatalf("%v", failed)
	}
	must[Waiver](t)(h.market.Waive(t.Context(), tradeDate, Waiver{Check: CheckConflict, Source: failed[0].Source, Ranges: failed[0].Ranges, Reason: "first one is right", By: "ann"}))
	c := h.seal()
	if len(c.Waivers) != 1 || len(of(c.Findings, CheckConflict)) == 0 {
		t.Fatalf("%+v", c.Waivers)
	}
	h.verify(0)
}

func TestSilentSourceWaiverAndSecondPerson(t *testing.T) {
	h := newHouse(t)
	h.play(3000, func(c *exchange.Config) { c.Sabotage.SilentSource = "ME2-EXE" }, nil)
	failed := h.refused()
	silent := of(failed, CheckSilent)
	if len(silent) != 1 || silent[0].Source != "ME2-EXE" || silent[0].Session != "ME2-20261120-*" || !strings.Contains(silent[0].Remedy, "start ME2-EXE") {
		t.Fatalf("%v", failed)
	}
	check(t, h.market.Close())
	h.market = h.newMarket(func(o *Options) { o.SecondPerson = true })
	w := Waiver{Check: CheckSilent, Source: "ME2-EXE", Reason: "was down all day, by the operator's log", By: "ann"}
	for _, second := range []string{"", "ann", " Ann "} {
		w.Second = second
		if _, err := h.market.Waive(t.Context(), tradeDate, w); !errors.Is(err, ErrInvalid) {
			t.Fatalf("second person %q: %v", second, err)
		}
	}
	w.Second = "ben"
	other := w
	other.Source = "ME9-EXE"
	if _, err := h.market.Waive(t.Context(), tradeDate, other); !errors.Is(err, ErrNothingToWaive) {
		t.Fatal(err)
	}
	given := must[Waiver](t)(h.market.Waive(t.Context(), tradeDate, w))
	// Corrections of executions that ME2-EXE never sent are another finding.
	for _, f := range of(h.market.mustReport(t).Failures(), CheckReference) {
		must[Waiver](t)(h.market.Waive(t.Context(), tradeDate, Waiver{Check: f.Check, Reason: "of the silent source", By: "ann", Second: "ben"}))
	}
	c := h.seal()
	f := of(c.Findings, CheckSilent)
	i := slices.IndexFunc(f, func(f Finding) bool { return f.Status == Waived })
	if i < 0 || f[i].Waiver != given.Key || c.Waivers[0].Second != "ben" || c.Waivers[0].Reason == "" {
		t.Fatalf("%+v %+v", f, c.Waivers)
	}
	h.verify(0)
}

func (m *Market) mustReport(t testing.TB) *Report {
	t.Helper()
	return must[*Report](t)(m.Readiness(context.Background(), tradeDate))
}

func TestMarkers(t *testing.T) {
	h := newHouse(t)
	var markers []string
	h.play(3000, nil, func(r exchange.Record, doc string) bool {
		if r.Marker {
			markers = append(markers, doc)
		}
		return r.Marker
	})
	failed := h.refused()
	if len(of(failed, CheckMarker)) == 0 || len(of(failed, CheckMarker))+len(of(failed, CheckSilent)) != len(failed) {
		t.Fatalf("%v", failed)
	}
	first := markers[0]
	h.put(exchange.StreamMarkers, markers[1:]...)
	h.put(exchange.StreamMarkers, markers[1:]...) // re-sent identically: one
	if failed := h.refused(); len(failed) != 1 || failed[0].Check != CheckMarker {
		t.Fatalf("%v", failed)
	}
	// Totals that are not those of the rows.
	wrong := alter(first, "notional_total", json.Number("1.0000"))
	h.put(exchange.StreamMarkers, wrong)
	if failed := h.refused(); len(failed) != 1 || failed[0].Check != CheckTotals || !strings.Contains(failed[0].Message, "1.0000") {
		t.Fatalf("%v", failed)
	}
	// The right one contradicts it; the last one counts once that is waived.
	h.put(exchange.StreamMarkers, alter(first, "sent_at", "2026-11-21T01:30:00Z"))
	failed = h.refused()
	if len(failed) != 1 || failed[0].Check != CheckMarkers || failed[0].Count != 2 {
		t.Fatalf("%v", failed)
	}
	must[Waiver](t)(h.market.Waive(t.Context(), tradeDate, Waiver{Check: CheckMarkers, Source: failed[0].Source, Session: failed[0].Session, Epoch: failed[0].Epoch, Reason: "the first was wrong", By: "ann"}))
	h.seal()
	h.verify(0)
}

func TestMarkerCountMismatchAndRange(t *testing.T) {
	h := newHouse(t)
	h.play(2000, nil, func(r exchange.Record, doc string) bool { return r.Marker && r.Key.Source == "ME1-ORD" })
	report := h.market.mustReport(t)
	var feeds []SourceAccount
	for _, s := range report.Sources {
		if s.Source == "ME1-ORD" {
			feeds = append(feeds, s)
		}
	}
	for _, s := range feeds {
		// It counts one record more than its range has, and leaves its last row out.
		h.put(exchange.StreamMarkers, fmt.Sprintf(`{"source":%q,"session":%q,"epoch":%d,"trade_date":"2026-11-20","first_seq":1,"last_seq":%d,"record_count":%d,"quantity_total":%s,"notional_total":%s,"sent_at":"2026-11-21T01:00:00Z"}`,
			s.Source, s.Session, s.Epoch, s.Last-1, s.Rows, s.Quantity, s.Notional))
	}
	failed := of(h.refused(), CheckCount)
	if len(failed) != len(feeds) || !strings.Contains(failed[0].Message, "1 rows of 2026-11-20 have numbers outside") || !strings.Contains(failed[0].Message, "its marker counts") {
		t.Fatalf("%v", failed)
	}
}

func TestUnexpectedSourceAndUnknownReference(t *testing.T) {
	h := newHouse(t)
	docs := h.play(2000, nil, nil)
	h.put(exchange.StreamExecutions, alter(alter(docs[exchange.StreamExecutions][0], "source", "ROGUE"), "match_number", json.Number("900000001")))
	h.put(exchange.StreamCorrections, `{"source":"TRADEDESK","session":"TRADEDESK-20261123-1","epoch":1,"seq":1,"action":"bust","trade_date":"2026-11-20","match_number":123456789,"known_at":"2026-11-23T15:00:00Z"}`)
	failed := h.refused()
	if len(of(failed, CheckUnexpected)) != 1 || len(of(failed, CheckReference)) != 1 {
		t.Fatalf("%v", failed)
	}
	report := h.market.mustReport(t)
	if len(report.UnknownReferences) != 1 || report.UnknownReferences[0].MatchNumber != 123456789 || report.UnknownReferences[0].RecordID == "" {
		t.Fatalf("%+v", report.UnknownReferences)
	}
}

func TestWaivedGapNeedsEveryNumber(t *testing.T) {
	h := newHouse(t)
	h.play(3000, nil, func(r exchange.Record, _ string) bool {
		return r.Key.Source == "ME3-ORD" && r.Key.Epoch == 1 && r.Key.Seq >= 10 && r.Key.Seq <= 12
	})
	w := Waiver{Check: CheckGap, Source: "ME3-ORD", Ranges: []Range{{10, 11}}, Reason: "lost at the source", By: "ann"}
	for _, bad := range []Waiver{{}, {Check: CheckGap, Source: "ME3-ORD", Reason: "r", By: "a"}, {Check: "nonsense", Source: "x", Reason: "r", By: "a"}, {Check: CheckGap, Source: "ME3-ORD", Ranges: []Range{{12, 10}}, Reason: "r", By: "a"}} {
		if _, err := h.market.Waive(t.Context(), tradeDate, bad); !errors.Is(err, ErrInvalid) {
			t.Fatalf("%+v: %v", bad, err)
		}
	}
	must[Waiver](t)(h.market.Waive(t.Context(), tradeDate, w))
	if failed := h.refused(); len(failed) != 1 || failed[0].Check != CheckGap || !strings.Contains(failed[0].Message, "by its marker quantity") {
		t.Fatalf("%v", failed)
	}
	w.Ranges = []Range{{12, 12}}
	must[Waiver](t)(h.market.Waive(t.Context(), tradeDate, w))
	c := h.seal()
	if len(c.Waivers) != 2 {
		t.Fatalf("%+v", c.Waivers)
	}
	h.verify(0)
}

func TestCrashAtEveryStepOfSeal(t *testing.T) {
	h := newHouse(t)
	h.play(2000, nil, nil)
	boom := errors.New("crash")
	var hashes []string
	for stop := 0; ; stop++ {
		n := 0
		h.market.step = func(string) error {
			n++
			if n == stop+1 {
				return boom
			}
			return nil
		}
		res, err := h.market.Seal(t.Context(), tradeDate, SealOptions{By: "tester"})
		if err == nil {
			if stop < 8 {
				t.Fatalf("only %d steps", stop)
			}
			c := res.Certificate
			for _, p := range c.Tables {
				hashes = append(hashes, p.RowHash)
			}
			if !res.Existing || c.Version != 1 {
				t.Fatalf("the step after the commit: %+v", res)
			}
			break
		}
		if !errors.Is(err, boom) {
			t.Fatalf("step %d: %v", stop, err)
		}
		_, _, certErr := h.market.Certificate(t.Context(), tradeDate, 0)
		sealed := certErr == nil
		for _, r := range h.market.tables() {
			tbl := must[*catalog.Table](t)(h.catalog.Load(t.Context(), h.name(r.table)))
			if _, tagged := tbl.Tags()["eod-2026-11-20"]; tagged != sealed {
				t.Fatalf("step %d: table %s tagged: %v, sealed: %v", stop, r.table, tagged, sealed)
			}
		}
		h.crash()
	}
	h.verify(0)
	if len(hashes) == 0 {
		t.Fatal("no hashes")
	}
}

func TestResealKeepsFormerAndTellsDifference(t *testing.T) {
	h := newHouse(t)
	docs := h.play(3000, nil, nil)
	first := h.seal()
	one := must[*StatementsResult](t)(h.market.Statements(t.Context(), tradeDate, 0))
	// A bust becomes known, and the date is sealed again.
	bust := bustOf(docs[exchange.StreamExecutions][0], 1)
	h.put(exchange.StreamCorrections, bust)
	res := must[*SealResult](t)(h.market.Seal(t.Context(), tradeDate, SealOptions{By: "ben", Reseal: true}))
	c := res.Certificate
	if c.Version != 2 || c.Tag != "eod-2026-11-20-v2" || c.Former == nil || c.Former.Hash != first.Hash {
		t.Fatalf("%+v", c.Former)
	}
	if len(c.Difference.Tables) != 1 || c.Difference.Tables[0].Table != "equities.corrections" || c.Difference.Tables[0].RowsAfter != c.Difference.Tables[0].RowsBefore+1 || len(c.Difference.Members) == 0 {
		t.Fatalf("%+v", c.Difference)
	}
	h.verify(1)
	h.verify(2)
	h.verify(0)
	again := must[*StatementsResult](t)(h.market.Statements(t.Context(), tradeDate, 1))
	if !again.Identical {
		t.Fatal("version 1 was written again")
	}
	two := must[*StatementsResult](t)(h.market.Statements(t.Context(), tradeDate, 2))
	change := new(big.Rat)
	for _, m := range c.Difference.Members {
		change.Add(change, parse(m.Change))
	}
	if parse(subtract(two.Manifest.Amount, one.Manifest.Amount)).Cmp(change) != 0 {
		t.Fatalf("statements differ by %s, the certificate says %s", subtract(two.Manifest.Amount, one.Manifest.Amount), change.FloatString(4))
	}
}

// bustOf busts a whole match on the next trade date.
func bustOf(execution string, seq int) string {
	var x struct {
		Match int64 `json:"match_number"`
	}
	if err := json.Unmarshal([]byte(execution), &x); err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"source":"TRADEDESK","session":"TRADEDESK-20261123-1","epoch":1,"seq":%d,"action":"bust","trade_date":"2026-11-20","match_number":%d,"reason":"clearly erroneous","known_at":"2026-11-23T15:00:0%d.000000000Z"}`, seq, x.Match, seq)
}

func TestTamperedDataIsDetected(t *testing.T) {
	h := newHouse(t)
	h.play(2000, nil, nil)
	c := h.seal()
	ctx := t.Context()
	tbl := must[*catalog.Table](t)(h.catalog.Load(ctx, h.name("executions")))
	files := must[[]catalog.DataFile](t)(h.catalog.Files(ctx, tbl, catalog.At{Tag: c.Tag}))
	path := files[0].Path
	good := must[[]byte](t)(os.ReadFile(path))
	n := engine.Name{Namespace: "equities", Table: "executions"}
	rewrite := func(sql string) {
		t.Helper()
		pin := engine.NewPin(map[engine.Name]engine.Relation{n: maintain.Relation(tbl.Schema, files)})
		defer pin.Release()
		local := filepath.Join(h.dir, "staging", uuid.NewString())
		must[engine.Exported](t)(h.engine.Export(ctx, engine.Query{SQL: sql, Pin: pin}, engine.ExportSpec{Path: local, Schema: tbl.Schema}))
		check(t, os.Rename(local, path))
	}
	// Two members' prices are exchanged so that every sum stays: only the row
	// hash shows it. DuckDB caches footers, so a fresh engine reads.
	fresh := func() *Market {
		e := must[*engine.Engine](t)(engine.Open(ctx, engine.Options{Tables: resolver{h.catalog}, TempDir: filepath.Join(h.dir, "spill"), Threads: 1, AllowedDirs: []string{filepath.Join(h.dir, "lake")}}))
		t.Cleanup(func() { check(t, e.Close()) })
		return h.newMarket(func(o *Options) { o.Engine, o.Streams, o.Ledger, o.Compactor = e, nil, nil, nil })
	}
	rewrite(`SELECT * REPLACE (CASE WHEN capacity = 'A' THEN 'P' ELSE 'A' END AS capacity) FROM equities.executions`)
	_, err := fresh().Verify(ctx, tradeDate, 0)
	var mismatch *MismatchError
	if !errors.As(err, &mismatch) || len(mismatch.Items) != 1 || mismatch.Items[0].Object != "equities.executions" || mismatch.Items[0].What != "row hash" {
		t.Fatalf("%v", err)
	}
	check(t, os.WriteFile(path, good, 0o600))
	rewrite(`SELECT * REPLACE (quantity + 1 AS quantity) FROM equities.executions`)
	_, err = fresh().Verify(ctx, tradeDate, 0)
	if !errors.As(err, &mismatch) || len(mismatch.Items) < 20 {
		t.Fatalf("%v", err)
	}
	check(t, os.WriteFile(path, good[:len(good)/2], 0o600))
	_, err = fresh().Verify(ctx, tradeDate, 0)
	if !errors.As(err, &mismatch) || mismatch.Items[0].What != "data" {
		t.Fatalf("%v", err)
	}
	check(t, os.WriteFile(path, good, 0o600))
	must[*VerifyResult](t)(fresh().Verify(ctx, tradeDate, 0))
}

func TestVerifyReadOnlyBesideTheServer(t *testing.T) {
	h := newHouse(t)
	h.play(2000, nil, nil)
	h.seal()
	ctx := t.Context()
	store := must[*lake.Local](t)(lake.OpenLocal(fsys.OS, filepath.Join(h.dir, "lake")))
	ro := must[*catalog.Catalog](t)(catalog.Open(ctx, catalog.Options{Dir: filepath.Join(h.dir, "meta"), Warehouse: store, ReadOnly: true}))
	e := must[*engine.Engine](t)(engine.Open(ctx, engine.Options{Tables: resolver{ro}, TempDir: t.TempDir(), Threads: 1, AllowedDirs: []string{filepath.Join(h.dir, "lake")}}))
	m := must[*Market](t)(New(Options{Catalog: ro, Engine: e, Pack: h.pack, StatementsDir: t.TempDir()}))
	must[*VerifyResult](t)(m.Verify(ctx, tradeDate, 0))
	must[*StatementsResult](t)(m.Statements(ctx, tradeDate, 0))
	if _, err := m.Seal(ctx, tradeDate, SealOptions{By: "x"}); !errors.Is(err, ErrReadOnly) {
		t.Fatal(err)
	}
	if _, err := m.Status(ctx); !errors.Is(err, ErrReadOnly) {
		t.Fatal(err)
	}
	check(t, e.Close())
	check(t, ro.Close())
}

func TestNoSuchTradeDate(t *testing.T) {
	h := newHouse(t)
	saturday := calendar.Date(2026, 11, 21)
	if _, err := h.market.Seal(t.Context(), saturday, SealOptions{By: "x"}); !errors.Is(err, ErrNotTradeDate) {
		t.Fatal(err)
	}
	if _, err := h.market.Readiness(t.Context(), saturday); !errors.Is(err, ErrNotTradeDate) {
		t.Fatal(err)
	}
	if _, err := h.market.Verify(t.Context(), tradeDate, 0); !errors.Is(err, ErrNotSealed) {
		t.Fatal(err)
	}
	if _, err := h.market.Seal(t.Context(), tradeDate, SealOptions{}); !errors.Is(err, ErrInvalid) {
		t.Fatal(err)
	}
	// Nobody came: every source of the roster is named.
	failed := h.refused()
	if len(failed) != 9 || len(of(failed, CheckSilent)) != 9 {
		t.Fatalf("%v", failed)
	}
}

// Records go on arriving while a trade date is sealed: of the next date, and late
// ones of the same. The certificate tells of the cut, and of nothing else.
func TestPutsGoOnDuringASeal(t *testing.T) {
	h := newHouse(t)
	docs := h.play(3000, nil, nil)
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		defer func() { done <- n }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			n++
			next := alter(docs[exchange.StreamOrders][n%100], "session", "ME1-20261123-1")
			h.put(exchange.StreamOrders, alter(alter(next, "seq", json.Number(fmt.Sprint(n))), "occurred_at", "2026-11-23T15:00:00.000000000Z"))
		}
	}()
	c := h.seal()
	close(stop)
	n := <-done
	if c.factRows() != 3000 || n == 0 {
		t.Fatalf("%d rows, %d puts", c.factRows(), n)
	}
	check(t, h.delivery.Flush(t.Context()))
	h.verify(0)
	later := must[*LaterResult](t)(h.market.Later(t.Context(), tradeDate))
	if !later.IsEmpty() {
		t.Fatalf("%+v", later)
	}
	cut := must[record.Vector](t)(record.ParseVector(c.Log))
	for _, s := range h.delivery.Streams() {
		if _, ok := cut[s.Key()]; !ok {
			t.Errorf("the cut lacks %s", s.Config().Name)
		}
	}
}
