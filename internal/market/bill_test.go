package market

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/exchange"
	"github.com/tapehouse/tapehouse/packs"
)

// leg and correction are documents as the exchange sent them.
type leg struct {
	Match    int64       `json:"match_number"`
	Leg      int64       `json:"leg"`
	MPID     string      `json:"mpid"`
	Side     string      `json:"side"`
	FeeCode  string      `json:"fee_code"`
	Tape     string      `json:"tape"`
	Quantity json.Number `json:"quantity"`
	Price    json.Number `json:"price"`
}

type correction struct {
	Action   string      `json:"action"`
	Match    int64       `json:"match_number"`
	Leg      *int64      `json:"leg"`
	Price    json.Number `json:"new_price"`
	Quantity json.Number `json:"new_quantity"`
	KnownAt  string      `json:"known_at"`
	Seq      int64       `json:"seq"`
}

// bill computes every line of every statement from the documents alone: the
// test's own reading of the fee schedule, with math/big.
func bill(t testing.TB, p *packs.Pack, docs map[string][]string) map[string]*big.Rat {
	t.Helper()
	var corrections []correction
	for _, d := range docs[exchange.StreamCorrections] {
		var c correction
		check(t, json.Unmarshal([]byte(d), &c))
		corrections = append(corrections, c)
	}
	slices.SortStableFunc(corrections, func(a, b correction) int { return strings.Compare(a.KnownAt, b.KnownAt) })
	type sums struct{ shares, notional *big.Rat }
	lines := map[string]*sums{}
	for _, d := range docs[exchange.StreamExecutions] {
		var l leg
		check(t, json.Unmarshal([]byte(d), &l))
		quantity, price, busted := parse(l.Quantity.String()), parse(l.Price.String()), false
		for _, c := range corrections { // the last one known holds, against the original
			if c.Match != l.Match || c.Leg != nil && *c.Leg != l.Leg {
				continue
			}
			if c.Action == "bust" {
				busted = true
				continue
			}
			quantity, price = parse(l.Quantity.String()), parse(l.Price.String())
			if c.Quantity != "" {
				quantity = parse(c.Quantity.String())
			}
			if c.Price != "" {
				price = parse(c.Price.String())
			}
		}
		if busted {
			continue
		}
		band := "over-1"
		if price.Cmp(big.NewRat(1, 1)) < 0 {
			band = "under-1"
		}
		if l.Tape == "" {
			l.Tape = "?"
		}
		keys := []string{strings.Join([]string{l.MPID, "transaction", l.FeeCode, l.Tape, band}, "|")}
		if l.Side != "B" {
			keys = append(keys, strings.Join([]string{l.MPID, "section-31", "*", "*", "*"}, "|"))
		}
		for _, k := range keys {
			if lines[k] == nil {
				lines[k] = &sums{new(big.Rat), new(big.Rat)}
			}
			lines[k].shares.Add(lines[k].shares, quantity)
			lines[k].notional.Add(lines[k].notional, new(big.Rat).Mul(quantity, price))
		}
	}
	holds := func(r *packs.Reference, row []string) bool {
		from, to := row[r.Column("effective_from")], row[r.Column("effective_to")]
		return from <= tradeDate.String() && (to == "" || tradeDate.String() < to)
	}
	mpids, _ := p.Reference("mpids")
	fees, _ := p.Reference("fee_schedule")
	out := map[string]*big.Rat{}
	for k, s := range lines {
		part := strings.Split(k, "|")
		member := ""
		for _, row := range mpids.Rows {
			if row[mpids.Column("mpid")] == part[0] && holds(mpids, row) {
				member = row[mpids.Column("member_id")]
			}
		}
		var amount *big.Rat
		for _, row := range fees.Rows {
			cell := func(c string) string { return row[fees.Column(c)] }
			if cell("charge") != part[1] || cell("fee_code") != part[2] || cell("tape") != "*" && cell("tape") != part[3] || cell("price_band") != "*" && cell("price_band") != part[4] || !holds(fees, row) {
				continue
			}
			if amount != nil {
				t.Fatalf("two rates for %s", k)
			}
			exact := parse(cell("rate"))
			switch cell("rate_type") {
			case "per_share":
				exact.Mul(exact, s.shares)
			case "basis_points":
				exact.Mul(exact, s.notional).Mul(exact, big.NewRat(1, 10_000))
			case "per_million":
				exact.Mul(exact, s.notional).Mul(exact, big.NewRat(1, 1_000_000))
			}
			digits := 2
			if cell("rounding_place") == "4" {
				digits = 4
			}
			amount = roundByText(t, exact, digits, cell("rounding_mode"))
		}
		if amount == nil {
			t.Fatalf("no rate for %s", k)
		}
		out[member+"|"+k] = amount
	}
	return out
}

// roundByText rounds by looking at the decimal digits.
func roundByText(t testing.TB, r *big.Rat, digits int, mode string) *big.Rat {
	t.Helper()
	s := new(big.Rat).Abs(r).FloatString(24)
	if parse(s).Cmp(new(big.Rat).Abs(r)) != 0 {
		t.Fatalf("%s has more than 24 digits", r)
	}
	cut := strings.IndexByte(s, '.') + 1 + digits
	head, rest := parse(s[:cut]), s[cut:]
	odd := (s[cut-1]-'0')%2 == 1
	if rest[0] > '5' || rest[0] == '5' && (mode == "half-up" || strings.Trim(rest[1:], "0") != "" || odd) {
		head.Add(head, new(big.Rat).SetFrac(big.NewInt(1), new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits)), nil)))
	}
	if r.Sign() < 0 {
		head.Neg(head)
	}
	return head
}

// billed reads the statement files back.
func billed(t testing.TB, dir string, manifest *Manifest) map[string]*big.Rat {
	t.Helper()
	out := map[string]*big.Rat{}
	for _, s := range manifest.Statements {
		data := must[[]byte](t)(os.ReadFile(filepath.Join(dir, s.File)))
		if hashOf(data) != s.SHA256 {
			t.Fatalf("%s is not what the manifest says", s.File)
		}
		rows := must[[][]string](t)(csv.NewReader(strings.NewReader(string(data))).ReadAll())
		column := func(row []string, name string) string { return row[slices.Index(rows[0], name)] }
		sum := new(big.Rat)
		for i, row := range rows[1:] {
			if column(row, "line") != fmt.Sprint(i+1) || column(row, "member_id") != s.Member || column(row, "statement") != s.ID || column(row, "fees") != "illustrative" {
				t.Fatalf("%s line %d: %v", s.File, i+1, row)
			}
			amount := parse(column(row, "amount"))
			sum.Add(sum, amount)
			key := strings.Join([]string{s.Member, column(row, "mpid"), column(row, "charge"), column(row, "fee_code"), column(row, "tape"), column(row, "price_band")}, "|")
			if out[key] != nil {
				t.Fatalf("%s stands twice", key)
			}
			out[key] = amount
		}
		if sum.Cmp(parse(s.Amount)) != 0 || len(rows)-1 != s.Lines {
			t.Fatalf("%s: lines sum to %s, the manifest says %s", s.File, sum.FloatString(4), s.Amount)
		}
	}
	return out
}

func TestStatementsToTheLastDigit(t *testing.T) {
	h := newHouse(t)
	docs := h.play(6000, func(c *exchange.Config) { c.Corrections = 12 }, nil)
	c := h.seal()
	r := must[*StatementsResult](t)(h.market.Statements(t.Context(), tradeDate, 0))
	want, have := bill(t, h.pack, docs), billed(t, r.Dir, r.Manifest)
	if len(want) != len(have) || len(want) < 100 {
		t.Fatalf("%d lines, want %d", len(have), len(want))
	}
	total := new(big.Rat)
	for k, w := range want {
		total.Add(total, w)
		if have[k] == nil || have[k].Cmp(w) != 0 {
			t.Errorf("%s: %v, want %s", k, have[k], w.FloatString(4))
		}
	}
	if parse(r.Manifest.Amount).Cmp(total) != 0 || r.Manifest.Certificate != c.Hash || r.Manifest.Notice == "" || len(r.Manifest.Reports) != 1 {
		t.Fatalf("%+v", r.Manifest)
	}
	// Every line is explained by its legs.
	for _, s := range r.Manifest.Statements[:2] {
		for line := 1; line <= s.Lines; line++ {
			e := must[*Explanation](t)(h.market.ExplainCharge(t.Context(), s.ID, line))
			if len(e.Legs) == 0 || e.Computation == "" || e.Exact == "" || e.Legs[0].RecordID == "" {
				t.Fatalf("%+v", e)
			}
		}
	}
	if _, err := h.market.ExplainCharge(t.Context(), r.Manifest.Statements[0].ID, 999); !errors.Is(err, ErrInvalid) {
		t.Fatal(err)
	}
	for _, id := range []string{"", "x", "2026-11-20/1/M001", "2026-11-20/v0/M001", "2026-11-20/v1/", "2026-99-20/v1/M001"} {
		if _, err := h.market.ExplainCharge(t.Context(), id, 1); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", id, err)
		}
	}
	// Written again: the same bytes, said so; a changed file is found.
	if again := must[*StatementsResult](t)(h.market.Statements(t.Context(), tradeDate, 0)); !again.Identical || r.Identical {
		t.Fatalf("%+v", again)
	}
	name := filepath.Join(r.Dir, r.Manifest.Statements[0].File)
	good := must[[]byte](t)(os.ReadFile(name))
	check(t, os.WriteFile(name, append(slices.Clone(good), '\n'), 0o600))
	var differ *StatementsError
	if _, err := h.market.Statements(t.Context(), tradeDate, 0); !errors.As(err, &differ) || !slices.Equal(differ.Files, []string{r.Manifest.Statements[0].File}) {
		t.Fatal(err)
	}
	// Written anew elsewhere, after a restart: the same bytes.
	h.crash()
	check(t, os.Rename(r.Dir, r.Dir+"-moved"))
	anew := must[*StatementsResult](t)(h.market.Statements(t.Context(), tradeDate, 0))
	if anew.Identical || !slices.Equal(good, must[[]byte](t)(os.ReadFile(name))) {
		t.Fatal("other bytes")
	}
}

func TestLateOriginalsAndCorrectionsBecomeAdjustments(t *testing.T) {
	h := newHouse(t)
	docs := h.play(4000, func(c *exchange.Config) { c.Corrections = 0 }, nil)
	h.seal()
	r := must[*StatementsResult](t)(h.market.Statements(t.Context(), tradeDate, 0))
	sealed := billed(t, r.Dir, r.Manifest)
	if a := must[*Adjustment](t)(h.market.Adjust(t.Context(), tradeDate, "ann")); a != nil {
		t.Fatalf("nothing is new: %+v", a)
	}
	// known is what the bill would be now; the runs must sum to the difference.
	known := map[string][]string{exchange.StreamExecutions: docs[exchange.StreamExecutions]}
	adjusted := map[string]*big.Rat{}
	run := func(n, lines int) *Adjustment {
		t.Helper()
		a := must[*Adjustment](t)(h.market.Adjust(t.Context(), tradeDate, "ann"))
		if a == nil || a.Run != n || lines > 0 && len(a.Lines) != lines {
			t.Fatalf("run %d: %+v", n, a)
		}
		for _, l := range a.Lines {
			if len(l.Records) == 0 {
				t.Errorf("line %v names no record", l)
			}
			key := l.Member
			for _, k := range l.Key {
				key += "|" + k.Value
			}
			if adjusted[key] == nil {
				adjusted[key] = new(big.Rat)
			}
			adjusted[key].Add(adjusted[key], parse(l.Amount))
		}
		want := bill(t, h.pack, known)
		for k := range sealed {
			if want[k] == nil {
				want[k] = new(big.Rat)
			}
		}
		for k, w := range want {
			have := new(big.Rat)
			for _, part := range []*big.Rat{sealed[k], adjusted[k]} {
				if part != nil {
					have.Add(have, part)
				}
			}
			if have.Cmp(w) != 0 {
				t.Errorf("run %d: %s: sealed and adjusted %s, want %s", n, k, have.FloatString(4), w.FloatString(4))
			}
		}
		data := must[[]byte](t)(os.ReadFile(filepath.Join(h.dir, "statements", "2026-11-20", "v1-adjustments", a.File)))
		if hashOf(data) != a.SHA256 || strings.Count(string(data), "\n") != len(a.Lines)+1 {
			t.Fatalf("%s", data)
		}
		if again := must[*Adjustment](t)(h.market.Adjust(t.Context(), tradeDate, "ann")); again != nil {
			t.Fatalf("run twice: %+v", again)
		}
		if same := must[*StatementsResult](t)(h.market.Statements(t.Context(), tradeDate, 0)); !same.Identical {
			t.Fatal("statements were written again")
		}
		h.verify(0)
		return a
	}
	// A big remove leg whose bust changes exactly one line: a routed fill would
	// be one too. Its leg alone is busted.
	victim := ""
	var v leg
	for _, d := range docs[exchange.StreamExecutions] {
		check(t, json.Unmarshal([]byte(d), &v))
		if v.FeeCode == "remove" && v.Side == "B" && parse(v.Quantity.String()).Cmp(big.NewRat(100, 1)) >= 0 && parse(v.Price.String()).Cmp(big.NewRat(2, 1)) > 0 {
			victim = d
			break
		}
	}
	if victim == "" {
		t.Fatal("no leg to bust")
	}
	correct := fmt.Sprintf(`{"source":"TRADEDESK","session":"TRADEDESK-20261123-1","epoch":1,"seq":1,"action":"correct","trade_date":"2026-11-20","match_number":%d,"leg":%d,"new_quantity":%s00,"reason":"fat finger","known_at":"2026-11-23T15:00:00.000000000Z"}`, v.Match, v.Leg, v.Quantity)
	known[exchange.StreamCorrections] = append(known[exchange.StreamCorrections], correct)
	ids := h.put(exchange.StreamCorrections, correct)
	later := must[*LaterResult](t)(h.market.Later(t.Context(), tradeDate))
	if later.CorrectionCount != 1 || later.LateOriginalCount != 0 || later.Corrections[0].RecordID != ids[0] {
		t.Fatalf("%+v", later)
	}
	a := run(1, 1)
	if a.Lines[0].Records[0].RecordID != ids[0] || a.Lines[0].Records[0].Action != "correct" {
		t.Fatalf("%+v", a.Lines[0])
	}
	// The correction is followed by a bust of the same leg.
	bust := fmt.Sprintf(`{"source":"TRADEDESK","session":"TRADEDESK-20261123-1","epoch":1,"seq":2,"action":"bust","trade_date":"2026-11-20","match_number":%d,"leg":%d,"known_at":"2026-11-23T16:00:00.000000000Z"}`, v.Match, v.Leg)
	known[exchange.StreamCorrections] = append(known[exchange.StreamCorrections], bust)
	ids = h.put(exchange.StreamCorrections, bust)
	a = run(2, 1)
	if len(a.Lines[0].Records) != 1 || a.Lines[0].Records[0].RecordID != ids[0] || a.Lines[0].Records[0].Action != "bust" {
		t.Fatalf("%+v", a.Lines[0])
	}
	// A late original: accepted, listed, adjusted.
	late := alter(alter(alter(victim, "seq", json.Number("900001")), "match_number", json.Number("900000001")), "quantity", json.Number("5000"))
	known[exchange.StreamExecutions] = append(slices.Clone(known[exchange.StreamExecutions]), late)
	ids = h.put(exchange.StreamExecutions, late)
	later = must[*LaterResult](t)(h.market.Later(t.Context(), tradeDate))
	if later.CorrectionCount != 2 || later.LateOriginalCount != 1 || later.LateOriginals[0].RecordID != ids[0] || later.LateOriginals[0].Sequence != 900001 {
		t.Fatalf("%+v", later)
	}
	h.crash()
	a = run(3, 1)
	if a.Lines[0].Records[0].Action != actionLate || a.Lines[0].Records[0].RecordID != ids[0] {
		t.Fatalf("%+v", a.Lines[0])
	}
	runs := must[[]Adjustment](t)(h.market.Adjustments(t.Context(), tradeDate, 1))
	if len(runs) != 3 {
		t.Fatalf("%d runs", len(runs))
	}
}

func TestUnbillableLinesAreNamed(t *testing.T) {
	h := newHouse(t, func(p *packs.Pack) {
		mpids, _ := p.Reference("mpids")
		fees, _ := p.Reference("fee_schedule")
		mpids.Rows = slices.DeleteFunc(slices.Clone(mpids.Rows), func(r []string) bool { return r[0] == "ALDR" })
		fees.Rows = slices.DeleteFunc(slices.Clone(fees.Rows), func(r []string) bool { return r[1] == "close" })
		for _, r := range slices.Clone(fees.Rows) {
			if r[1] == "remove" && r[3] == "over-1" && r[9] == "" { // a second rate that holds
				fees.Rows = append(fees.Rows, r)
			}
		}
	})
	h.play(3000, nil, nil)
	h.seal()
	_, err := h.market.Statements(t.Context(), tradeDate, 0)
	var bad *UnbillableError
	if !errors.As(err, &bad) {
		t.Fatal(err)
	}
	var member, rate, twice int
	for _, f := range bad.Faults {
		switch {
		case strings.HasPrefix(f.Line, "no member ALDR") && strings.Contains(f.Reason, "member_id"):
			member++
		case strings.Contains(f.Line, " close ") && strings.Contains(f.Reason, "rate"):
			rate++
		case strings.Contains(f.Reason, "stands twice"):
			twice++
		}
	}
	if member == 0 || rate == 0 || twice == 0 {
		t.Fatalf("%v", err)
	}
	if _, err := os.Stat(filepath.Join(h.dir, "statements")); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("something was written: %v", err)
	}
}

func TestRound(t *testing.T) {
	for _, c := range []struct {
		in     string
		digits int
		mode   string
		want   string
	}{
		{"0.005", 2, "half-up", "0.01"}, {"-0.005", 2, "half-up", "-0.01"}, {"0.005", 2, "half-even", "0.00"}, {"0.015", 2, "half-even", "0.02"},
		{"-0.015", 2, "half-even", "-0.02"}, {"0.025", 2, "half-even", "0.02"}, {"0.0251", 2, "half-even", "0.03"}, {"0.009", 2, "down", "0.00"},
		{"-0.009", 2, "down", "0.00"}, {"1.23455", 4, "half-up", "1.2346"}, {"7", 0, "half-up", "7"}, {"0.5", 0, "half-even", "0"}, {"1.5", 0, "half-even", "2"},
	} {
		got, err := Round(parse(c.in), c.digits, c.mode)
		if err != nil || got.Cmp(parse(c.want)) != 0 {
			t.Errorf("%s to %d %s: %s, want %s (%v)", c.in, c.digits, c.mode, got.FloatString(6), c.want, err)
		}
	}
	if _, err := Round(parse("1"), 2, "up"); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}
