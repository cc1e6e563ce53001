package exchange_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/exchange"
)

func TestSameSeedSameBytes(t *testing.T) {
	sum := func(seed uint64) (string, int64) {
		h := fnv.New64a()
		n, err := exchange.WriteNDJSON(h, generate(t, 30_000, func(c *exchange.Config) { c.Seed = seed }), nil)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%x", h.Sum64()), n
	}
	a, n := sum(1)
	b, _ := sum(1)
	c, _ := sum(2)
	if a != b {
		t.Error("the same seed gave other bytes")
	}
	if a == c {
		t.Error("another seed gave the same bytes")
	}
	// A marker for each of nine feeds, and two more of the engine that restarted.
	if n != 30_000+9+2 {
		t.Errorf("%d documents", n)
	}
}

func TestRecordsAreExact(t *testing.T) {
	for _, n := range []int64{0, 1, 2, 3, 10, 99, 1000, 12_345} {
		got := int64(0)
		each(t, generate(t, n, nil), func(r exchange.Record, _ row, _ []byte) {
			if !r.Marker {
				got++
			}
		})
		if got != n {
			t.Errorf("%d records, want %d", got, n)
		}
	}
}

// TestEveryRuleOfTheExchange replays a trade date against a simple model: what
// the close of a real one demands must hold for the generator's.
func TestEveryRuleOfTheExchange(t *testing.T) {
	for _, date := range []calendar.TradeDate{tradeDate, calendar.Date(2026, 11, 27), calendar.Date(2019, 12, 30)} {
		t.Run(date.String(), func(t *testing.T) { checkRules(t, date) })
	}
}

func checkRules(t *testing.T, date calendar.TradeDate) {
	cal := pack(t).Calendar
	type resting struct {
		symbol, side string
		quantity     int64
		price        int64
	}
	type feed struct {
		source, session string
		epoch           int64
	}
	type total struct{ last, count, quantity, notional int64 }
	live := map[int64]resting{}
	totals := map[feed]*total{}
	marked := map[feed]bool{}
	legs := map[int64]map[string]int64{} // by match: bought and sold
	matchKey := map[[2]int64]bool{}
	crosses, routed, busts, corrects, self, selfLeg := 0, 0, 0, 0, 0, map[int64]string{}
	last := map[feed]int64{}
	e := generate(t, 60_000, func(c *exchange.Config) { c.TradeDate = date; c.Corrections = 5 })
	each(t, e, func(rec exchange.Record, r row, doc []byte) {
		f := feed{r.Source, r.Session, r.Epoch}
		if rec.Key != (exchange.Key{Source: r.Source, Session: r.Session, Epoch: r.Epoch, Seq: r.Seq}) {
			t.Fatalf("key %+v of %s", rec.Key, doc)
		}
		if rec.Marker {
			got := total{r.LastSeq, r.Count, r.QuantitySum, r.NotionalSum.unscaled(t)}
			want := totals[f]
			if want == nil {
				want = &total{}
			}
			if got != *want || r.FirstSeq != 1 || r.TradeDate != date.String() {
				t.Errorf("marker %s, want %+v", doc, *want)
			}
			marked[f] = true
			return
		}
		s := totals[f]
		if s == nil {
			s = &total{}
			totals[f] = s
		}
		if s.last++; r.Seq != s.last {
			t.Fatalf("sequence %d after %d: %s", r.Seq, s.last-1, doc)
		}
		s.count++
		if r.Quantity != nil {
			s.quantity += *r.Quantity
			if r.Price != "" {
				s.notional += *r.Quantity * r.Price.unscaled(t)
			}
		}
		at := r.at(t)
		if at < last[f] {
			t.Errorf("time goes back: %s", doc)
		}
		last[f] = at
		if d, ok := cal.TradeDate(at); !ok || d != date {
			t.Fatalf("outside the trade date: %s", doc)
		}
		switch rec.Stream {
		case exchange.StreamOrders:
			o, known := live[r.OrderRef]
			switch r.EventType {
			case "add":
				live[r.OrderRef] = resting{r.Symbol, r.Side, *r.Quantity, r.Price.unscaled(t)}
			case "delete", "cancel", "execute":
				if !known || o.symbol != r.Symbol || o.side != r.Side || o.price != r.Price.unscaled(t) || *r.Quantity > o.quantity {
					t.Fatalf("%s does not fit the order %+v", doc, o)
				}
				if o.quantity -= *r.Quantity; o.quantity == 0 {
					delete(live, r.OrderRef)
				} else if r.EventType == "delete" {
					t.Fatalf("%s leaves %d shares", doc, o.quantity)
				} else {
					live[r.OrderRef] = o
				}
			case "replace":
				if !known {
					t.Fatalf("%s names no live order", doc)
				}
				delete(live, r.OrderRef)
				live[r.NewOrderRef] = resting{r.Symbol, r.Side, *r.Quantity, r.Price.unscaled(t)}
			case "cross":
				crosses++
			}
		case exchange.StreamExecutions:
			if matchKey[[2]int64{r.Match, int64(r.Leg)}] {
				t.Fatalf("match and leg stand twice: %s", doc)
			}
			matchKey[[2]int64{r.Match, int64(r.Leg)}] = true
			if *r.Quantity <= 0 || r.Price.unscaled(t) <= 0 {
				t.Fatalf("nothing executed: %s", doc)
			}
			if r.FeeCode == "routed" {
				routed++
				return
			}
			if legs[r.Match] == nil {
				legs[r.Match] = map[string]int64{}
			}
			legs[r.Match][r.Side[:1]] += *r.Quantity
			if r.Leg == 1 {
				selfLeg[r.Match] = r.MPID
			} else if selfLeg[r.Match] == r.MPID {
				self++
			}
		case exchange.StreamCorrections:
			if legs[r.Match] == nil || r.TradeDate != date.String() {
				t.Errorf("correction of nothing: %s", doc)
			}
			if r.Action == "bust" {
				busts++
			} else {
				corrects++
			}
		}
	})
	if len(live) != 0 {
		t.Errorf("%d orders live on", len(live))
	}
	for m, s := range legs {
		if s["B"] != s["S"] {
			t.Errorf("match %d: %d bought, %d sold", m, s["B"], s["S"])
		}
	}
	for f := range totals {
		if !marked[f] {
			t.Errorf("no marker of %+v", f)
		}
	}
	if len(marked) != 11 || crosses < 2 || routed == 0 || self == 0 || busts != 3 || corrects != 2 {
		t.Errorf("%d markers, %d crosses, %d routed, %d self-trades, %d busts, %d corrections", len(marked), crosses, routed, self, busts, corrects)
	}
}

// TestShapeOfFlow holds the generator against the measured shape of real flow.
// The seed is fixed, so that the figures are, too.
func TestShapeOfFlow(t *testing.T) {
	const records = 200_000
	e := generate(t, records, func(c *exchange.Config) { c.Symbols = 2000; c.Restarts = 0 })
	day, _ := pack(t).Calendar.Session(tradeDate)
	core, _ := day.Find("core")
	types := map[string]int{}
	bySymbol := map[string]int{}
	slots := make([]int, 13)
	born := map[int64]int64{}
	var lives []int64
	var gaps []float64
	var tradeSizes []int64
	ordersTotal, adds, hundred, odd, sameAt, stubs, sizeSum := 0, 0, 0, 0, 0, 0, int64(0)
	trades, tradesPost, volume, crossVolume := 0, 0, int64(0), int64(0)
	lastAt := int64(0)
	var bytesTotal, docs int
	each(t, e, func(rec exchange.Record, r row, doc []byte) {
		bytesTotal += len(doc)
		docs++
		if rec.Stream == exchange.StreamExecutions && r.Side == "B" && r.FeeCode != "routed" {
			volume += *r.Quantity
			if r.FeeCode == "open" || r.FeeCode == "close" {
				crossVolume += *r.Quantity
			}
		}
		if rec.Stream != exchange.StreamOrders {
			return
		}
		ordersTotal++
		types[r.EventType]++
		bySymbol[r.Symbol]++
		at := r.at(t)
		if r.EventType == "add" {
			adds++
			switch {
			case *r.Quantity == 100:
				hundred++
			case *r.Quantity < 100:
				odd++
			}
			if p := r.Price.unscaled(t); p == 1 || p == 1_999_999_900 {
				stubs++
			}
			born[r.OrderRef] = at
		}
		if b, ok := born[r.OrderRef]; ok && r.EventType == "delete" {
			lives = append(lives, at-b)
		}
		if r.EventType == "execute" || r.EventType == "hidden" {
			trades++
			tradeSizes = append(tradeSizes, *r.Quantity)
			sizeSum += *r.Quantity
			if n := at - core.OpenAt.UnixNano(); n >= 0 && at < core.CloseAt.UnixNano() {
				slots[n/int64(30*time.Minute)]++
			} else if n > 0 {
				tradesPost++
			}
		}
		// One half hour at noon: the day's own shape is no burst.
		if n := (at - core.OpenAt.UnixNano()) / int64(30*time.Minute); n == 5 {
			if lastAt != 0 {
				gaps = append(gaps, float64(at-lastAt))
				if at == lastAt {
					sameAt++
				}
			}
			lastAt = at
		}
	})
	near := func(what string, got, want, tolerance float64) {
		t.Helper()
		t.Logf("%-28s %8.3f (measured %.3f)", what, got, want)
		if math.Abs(got-want) > tolerance {
			t.Errorf("%s is %.3f, want %.3f ± %.3f", what, got, want, tolerance)
		}
	}
	percent := func(n int) float64 { return 100 * float64(n) / float64(ordersTotal) }
	near("adds %", percent(types["add"]), 44.1, 2.5)
	near("deletes %", percent(types["delete"]), 42.6, 2.5)
	near("replaces %", percent(types["replace"]), 8.05, 0.8)
	near("executes %", percent(types["execute"]), 2.17, 0.4)
	near("cancels %", percent(types["cancel"]), 1.04, 0.2)
	near("hidden %", percent(types["hidden"]), 0.45, 0.1)
	near("adds of 100 shares %", 100*float64(hundred)/float64(adds), 56, 3)
	near("odd lots %", 100*float64(odd)/float64(adds), 35, 3)
	near("hidden share of prints %", 100*float64(types["hidden"])/float64(trades), 17, 4)
	near("cross share of volume %", 100*float64(crossVolume)/float64(volume), 12, 5)
	slices.Sort(tradeSizes)
	near("median execution", float64(tradeSizes[len(tradeSizes)/2]), 72, 20)
	near("mean execution", float64(sizeSum)/float64(trades), 122, 35)
	if stubs == 0 {
		t.Error("no stub quotes")
	}
	counts := []int{}
	for _, n := range bySymbol {
		counts = append(counts, n)
	}
	sort.Sort(sort.Reverse(sort.IntSlice(counts)))
	top := func(n int) (sum float64) {
		for _, c := range counts[:n] {
			sum += float64(c)
		}
		return 100 * sum / float64(ordersTotal)
	}
	// The measured shares are of all 8,906 symbols: here the first 2,000 are all.
	near("top 10 symbols %", top(10), 5.7/.836, 1)
	near("top 100 symbols %", top(100), 23.1/.836, 2)
	near("top 500 symbols %", top(500), 52.5/.836, 3)
	inCore := 0
	for _, n := range slots {
		inCore += n
	}
	for i, want := range []float64{10.1, 7.2, 8.7, 7.1, 8.4, 6.0, 4.9, 4.7, 4.5, 8.4, 5.7, 7.9, 14.0} {
		near(fmt.Sprintf("trades of half hour %d %%", i), 100*float64(slots[i])/float64(inCore), want/0.976, 1.5)
	}
	near("trades after the close %", 100*float64(tradesPost)/float64(trades), 2, 1)
	slices.Sort(lives)
	near("median life s", float64(lives[len(lives)/2])/1e9, 0.25, 0.12)
	mean, square := 0.0, 0.0
	for _, g := range gaps {
		mean += g / float64(len(gaps))
	}
	for _, g := range gaps {
		square += (g - mean) * (g - mean) / float64(len(gaps))
	}
	near("variation of intervals", math.Sqrt(square)/mean, 3.2, 0.6)
	near("same timestamp %", 100*float64(sameAt)/float64(len(gaps)), 8, 3)
	near("bytes a document", float64(bytesTotal)/float64(docs), 270, 30)
}

func TestSabotage(t *testing.T) {
	clean := map[exchange.Key]string{}
	each(t, generate(t, 20_000, nil), func(rec exchange.Record, _ row, doc []byte) {
		if !rec.Marker {
			clean[rec.Key] = string(doc)
		}
	})
	t.Run("drop", func(t *testing.T) {
		e := generate(t, 20_000, func(c *exchange.Config) { c.Sabotage.DropSequence = true })
		seen := map[exchange.Key]bool{}
		each(t, e, func(rec exchange.Record, _ row, _ []byte) { seen[rec.Key] = true })
		if len(e.Faults()) != 1 || e.Faults()[0].Kind != "dropped" {
			t.Fatalf("faults %+v", e.Faults())
		}
		for k := range clean {
			if seen[k] == (k == e.Faults()[0].Key) {
				t.Errorf("%+v: seen %v", k, seen[k])
			}
		}
	})
	t.Run("malform", func(t *testing.T) {
		e := generate(t, 20_000, func(c *exchange.Config) { c.Sabotage.MalformRecord = true })
		n := 0
		each(t, e, func(rec exchange.Record, r row, doc []byte) {
			if rec.Marker || string(doc) == clean[rec.Key] {
				return
			}
			n++
			if !rec.Malformed || rec.Key != e.Faults()[0].Key || len(r.Price)-bytes.IndexByte([]byte(r.Price), '.') != 7 {
				t.Errorf("%s", doc)
			}
		})
		if n != 1 {
			t.Errorf("%d documents differ", n)
		}
	})
	t.Run("silence", func(t *testing.T) {
		e := generate(t, 20_000, func(c *exchange.Config) { c.Sabotage.SilentSource = "ME3-EXE" })
		n := 0
		each(t, e, func(rec exchange.Record, _ row, doc []byte) {
			if rec.Key.Source == "ME3-EXE" {
				t.Fatalf("it speaks: %s", doc)
			}
			if !rec.Marker {
				n++
			}
		})
		if n >= 20_000 || n < 15_000 {
			t.Errorf("%d records", n)
		}
	})
}

func TestBustAfterClose(t *testing.T) {
	e := generate(t, 20_000, nil)
	legs := map[int64]bool{}
	each(t, e, func(rec exchange.Record, r row, _ []byte) {
		if rec.Stream == exchange.StreamExecutions {
			legs[r.Match] = true
		}
	})
	for seq := int64(1); seq <= 2; seq++ {
		doc, rec, ok := e.BustAfterClose(nil)
		want := exchange.Key{Source: "TRADEDESK", Session: "TRADEDESK-20261123-1", Epoch: 1, Seq: seq}
		if !ok || rec.Stream != exchange.StreamCorrections || rec.Key != want {
			t.Fatalf("%+v, %v", rec, ok)
		}
		if !bytes.Contains(doc, []byte(`"action":"bust","trade_date":"2026-11-20"`)) {
			t.Errorf("%s", doc)
		}
	}
	if len(legs) == 0 {
		t.Error("nothing was executed")
	}
}

func TestConfigRefuses(t *testing.T) {
	base := exchange.DefaultConfig(pack(t).Calendar, tradeDate, 1, 1000)
	for name, edit := range map[string]func(*exchange.Config){
		"records":   func(c *exchange.Config) { c.Records = -1 },
		"symbols":   func(c *exchange.Config) { c.Symbols = 8907 },
		"mpids":     func(c *exchange.Config) { c.MPIDs = nil },
		"mpid":      func(c *exchange.Config) { c.MPIDs = []string{"GOOD", "b\nd"} },
		"sources":   func(c *exchange.Config) { c.Sources = 0 },
		"restarts":  func(c *exchange.Config) { c.Restarts = 5 },
		"calendar":  func(c *exchange.Config) { c.Calendar = nil },
		"holiday":   func(c *exchange.Config) { c.TradeDate = calendar.Date(2026, 11, 26) },
		"uncovered": func(c *exchange.Config) { c.TradeDate = calendar.Date(2031, 1, 2) },
		"silent":    func(c *exchange.Config) { c.Sabotage.SilentSource = "ME9-ORD" },
		"sabotage":  func(c *exchange.Config) { c.Records = 10; c.Sabotage.DropSequence = true },
	} {
		cfg := base
		edit(&cfg)
		if _, err := exchange.New(cfg); !errors.Is(err, exchange.ErrConfig) {
			t.Errorf("%s: err = %v", name, err)
		}
	}
}

// TestPackKnowsTheExchange: the generator's sources are on the roster, its MPIDs
// in the pack, in one place each.
func TestPackKnowsTheExchange(t *testing.T) {
	p := pack(t)
	mpids, _ := p.Reference("mpids")
	known := map[string]bool{}
	for _, r := range mpids.Rows {
		known[r[mpids.Column("mpid")]] = true
	}
	for _, m := range exchange.DefaultMPIDs {
		if !known[m] {
			t.Errorf("the pack does not know the MPID %s", m)
		}
	}
	roster, _ := p.Reference("roster")
	var expected []string
	for _, r := range roster.Rows {
		if r[roster.Column("effective_from")] <= "2026-11-20" && r[roster.Column("effective_to")] == "" {
			expected = append(expected, r[roster.Column("source")])
		}
	}
	if got := generate(t, 10, nil).Sources(); !slices.Equal(got, expected) {
		t.Errorf("sources %v, roster %v", got, expected)
	}
}

func BenchmarkNext(b *testing.B) {
	e := generate(b, 1<<40, func(c *exchange.Config) { c.Symbols = 2000 })
	buf := make([]byte, 0, 1024)
	b.ResetTimer()
	for b.Loop() {
		doc, _, err := e.Next(buf[:0])
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(doc)))
	}
}

func BenchmarkNextAndHash(b *testing.B) {
	e := generate(b, 1<<40, func(c *exchange.Config) { c.Symbols = 2000 })
	buf := make([]byte, 0, 1024)
	b.ResetTimer()
	for b.Loop() {
		if _, _, err := e.Next(buf[:0]); err != nil {
			b.Fatal(err)
		}
		e.Hash()
	}
}
