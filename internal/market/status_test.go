package market

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/exchange"
)

func TestStatusAndWatch(t *testing.T) {
	h := newHouse(t)
	var mu sync.Mutex
	var events []Event
	fail := 1
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if fail > 0 { // the first try fails, the second is heard
			fail--
			http.Error(w, "no", http.StatusServiceUnavailable)
			return
		}
		var e Event
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			t.Error(err)
		}
		events = append(events, e)
	}))
	defer server.Close()
	check(t, h.market.Close())
	h.market = h.newMarket(func(o *Options) { o.Webhook = server.URL })
	if s := must[[]DateStatus](t)(h.market.Status(t.Context())); len(s) != 0 {
		t.Fatalf("nothing has come: %+v", s)
	}
	look := func(want int) *Event {
		t.Helper()
		check(t, h.market.look(t.Context()))
		mu.Lock()
		defer mu.Unlock()
		if len(events) != want {
			t.Fatalf("%d events, want %d: %+v", len(events), want, events)
		}
		if want == 0 {
			return nil
		}
		return &events[want-1]
	}
	var gap []string
	docs := h.play(3000, nil, func(r exchange.Record, doc string) bool {
		if r.Key.Source == "ME1-ORD" && r.Key.Epoch == 1 && r.Key.Seq == 5 {
			gap = append(gap, doc)
			return true
		}
		return false
	})
	h.setClock(time.Date(2026, 11, 20, 22, 0, 0, 0, time.UTC)) // the last session is open
	s := must[[]DateStatus](t)(h.market.Status(t.Context()))
	if len(s) != 1 || s[0].State != StateIncomplete || s[0].DeadlineIs != DeadlineOnTrack || s[0].Expected == nil || s[0].Report == nil || s[0].Rows != 2999 {
		t.Fatalf("%+v", s)
	}
	look(0)
	// The deadline is Monday 04:00 in New York: half an hour before it a gap is
	// a predicted miss, told once.
	h.setClock(time.Date(2026, 11, 23, 8, 30, 0, 0, time.UTC))
	e := look(1)
	if e.State != DeadlinePredicted || e.TradeDate != "2026-11-20" || len(e.Findings) != 1 || e.Findings[0].Check != CheckGap {
		t.Fatalf("%+v", e)
	}
	look(1)
	check(t, h.market.Close())
	h.market = h.newMarket(func(o *Options) { o.Webhook = server.URL })
	look(1) // a restart does not repeat it
	h.setClock(time.Date(2026, 11, 23, 9, 30, 0, 0, time.UTC))
	if e := look(2); e.State != DeadlineMissed || e.Former != DeadlinePredicted {
		t.Fatalf("%+v", e)
	}
	h.put(exchange.StreamOrders, gap...)
	s = must[[]DateStatus](t)(h.market.Status(t.Context()))
	at := len(s) - 1
	if s[at].State != StateReady || s[at].Expected == nil || s[at].DeadlineIs != DeadlineMissed {
		t.Fatalf("%+v", s[at])
	}
	h.seal()
	s = must[[]DateStatus](t)(h.market.Status(t.Context()))
	at = len(s) - 1
	if s[at].State != StateSealed || s[at].DeadlineIs != DeadlineMissed || s[at].Certificate == "" {
		t.Fatalf("%+v", s[at])
	}
	look(2)
	// A late original is an alarm of its own.
	h.put(exchange.StreamExecutions, alter(docs[exchange.StreamExecutions][0], "seq", json.Number("900001")))
	if e := look(3); e.LateOriginals != 1 || e.Event != "late_originals" {
		t.Fatalf("%+v", e)
	}
	look(3)
}

func TestPaceMakesAnExpectation(t *testing.T) {
	h := newHouse(t)
	h.setClock(time.Date(2026, 11, 21, 2, 0, 0, 0, time.UTC)) // every session has closed
	held := map[string][]string{}
	h.play(3000, nil, func(r exchange.Record, doc string) bool {
		if r.Key.Source == "ME1-ORD" && r.Key.Seq > 20 && !r.Marker {
			held[r.Stream] = append(held[r.Stream], doc)
			return true
		}
		return false
	})
	first := must[[]DateStatus](t)(h.market.Status(t.Context()))[0]
	if first.Expected != nil || first.RowsPerSec != 0 {
		t.Fatalf("%+v", first)
	}
	h.setClock(time.Date(2026, 11, 21, 2, 0, 10, 0, time.UTC))
	h.put(exchange.StreamOrders, held[exchange.StreamOrders][:200]...)
	second := must[[]DateStatus](t)(h.market.Status(t.Context()))[0]
	if second.Expected == nil || second.RowsPerSec < 1 || second.DeadlineIs != DeadlineOnTrack {
		t.Fatalf("%+v", second)
	}
	// Watch and Close: the watcher ends with the market.
	h.market.o.WatchInterval = time.Millisecond
	h.market.Watch()
	time.Sleep(20 * time.Millisecond)
	check(t, h.market.Close())
}

// A server answers for the trade dates that it can have seen: of those before
// its first, for the ones that have records, or that a roster row asks for.
func TestStatusBeforeTheFirstTradeDate(t *testing.T) {
	h := newHouse(t)
	since := time.Date(2026, 11, 25, 15, 0, 0, 0, time.UTC) // Wednesday, in the session
	open := func() {
		t.Helper()
		check(t, h.market.Close())
		h.market = h.newMarket(func(o *Options) {
			o.WatchDates = 8
			o.Since = func() time.Time { return since }
		})
	}
	open()
	h.play(200, nil, func(exchange.Record, string) bool { return false }) // of Friday 2026-11-20, replayed
	h.setClock(time.Date(2026, 12, 1, 15, 0, 0, 0, time.UTC))
	dates := func() (out []string, missed int) {
		t.Helper()
		check(t, h.market.look(t.Context()))
		for _, s := range must[[]DateStatus](t)(h.market.Status(t.Context())) {
			out = append(out, s.TradeDate)
			if s.DeadlineIs == DeadlineMissed {
				missed++
			}
		}
		return out, missed
	}
	want := func(what string, missed int, want ...string) {
		t.Helper()
		if got, n := dates(); !slices.Equal(got, want) || n != missed {
			t.Errorf("%s: %v, of which %d are missed; want %v and %d", what, got, n, want, missed)
		}
	}
	// Monday and Tuesday before it are nobody's; Thanksgiving is no trade date.
	want("created on Wednesday", 4, "2026-12-01", "2026-11-30", "2026-11-27", "2026-11-25", "2026-11-20")
	since = time.Date(2026, 11, 26, 2, 0, 0, 0, time.UTC) // after Wednesday's last session
	want("created on Wednesday night", 3, "2026-12-01", "2026-11-30", "2026-11-27", "2026-11-20")
	since = time.Date(2026, 12, 1, 8, 30, 0, 0, time.UTC)
	want("created today", 1, "2026-12-01", "2026-11-20")
	// A roster row that begins on a date before the first asks for it, and for
	// those after; the pack's own, of long ago, do not.
	r, ok := h.pack.Reference(h.pack.Close.Roster)
	if !ok {
		t.Fatal("no roster")
	}
	h.addReference(r, [][]string{{"NEW", "NEW-{trade_date}-*", "executions", "2026-11-27", "2026-11-30", "it says so"}})
	want("asked for", 2, "2026-12-01", "2026-11-27", "2026-11-20")
}

// Without an option, a server began when the first of the pack's streams did.
func TestSinceIsTheFirstStream(t *testing.T) {
	h := newHouse(t)
	var first time.Time
	for _, s := range h.delivery.Streams() {
		if at := s.Config().CreatedAt; first.IsZero() || at.Before(first) {
			first = at
		}
	}
	if got := h.market.since(); first.IsZero() || !got.Equal(first) {
		t.Errorf("%v, want %v", got, first)
	}
}
