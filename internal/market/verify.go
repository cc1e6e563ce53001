package market

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/ledger"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/packs"
)

// VerifyResult is what Verify found right.
type VerifyResult struct {
	Certificate *Certificate
	Tables      int   // whose rows were hashed again
	Rows        int64 // in them
	Figures     int   // counts, sums and hashes that were compared
	Took        time.Duration
}

// Verify computes everything that the certificate of a version (0: the one in
// force) states from the data at its tag, and compares. *MismatchError names
// every difference; a data file that is gone or unreadable is one too.
// ErrNotSealed. It only reads.
func (m *Market) Verify(ctx context.Context, d calendar.TradeDate, version int) (res *VerifyResult, err error) {
	start := m.o.Now()
	defer func() {
		var mismatch *MismatchError
		result := "verified"
		if errors.As(err, &mismatch) {
			result = "mismatch"
			m.o.Logger.Error("sealed trade date does not verify", "trade_date", d.String(), "version", mismatch.Version, "mismatches", len(mismatch.Items), "first", mismatch.Items[0].Object+" "+mismatch.Items[0].What)
		} else if err != nil {
			result = "error"
		}
		m.metrics.verifies.WithLabelValues(result).Inc()
	}()
	c, _, err := m.Certificate(ctx, d, version)
	if err != nil {
		return nil, err
	}
	v := verification{Market: m, d: d, c: c, res: &VerifyResult{Certificate: c}}
	if err := v.run(ctx); err != nil {
		return nil, fmt.Errorf("verify %s version %d: %w", d, c.Version, err)
	}
	v.res.Took = m.o.Now().Sub(start)
	if len(v.items) > 0 {
		return v.res, &MismatchError{c.TradeDate, c.Version, v.items}
	}
	return v.res, nil
}

type verification struct {
	*Market
	d     calendar.TradeDate
	c     *Certificate
	res   *VerifyResult
	items []Mismatch
}

func (v *verification) compare(object, what string, want, have any) {
	v.res.Figures++
	if !reflect.DeepEqual(want, have) {
		v.items = append(v.items, Mismatch{object, what, fmt.Sprint(want), fmt.Sprint(have)})
	}
}

func (v *verification) run(ctx context.Context) error {
	st, err := v.atTag(ctx, v.c)
	if err != nil {
		return err
	}
	if len(v.items) > 0 {
		return nil // a table or its tag is not as certified: nothing more to compare
	}
	if err := v.progress(st); err != nil {
		return err
	}
	pin := v.pinDate(st, v.d)
	defer pin.Release()
	for _, p := range v.c.Tables {
		s := st[strings.TrimPrefix(p.Table, v.pack.Namespace+".")]
		rows, hash, err := v.rowHash(ctx, pin, s, v.d)
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			v.items = append(v.items, Mismatch{p.Table, "data", "readable files", err.Error()})
			continue
		}
		v.res.Tables++
		v.res.Rows += rows
		v.compare(p.Table, "rows", p.Rows, rows)
		v.compare(p.Table, "row hash", p.RowHash, hash)
	}
	if len(v.items) > 0 && v.res.Tables < len(v.c.Tables) {
		return nil
	}
	controls, err := v.Market.controls(ctx, pin, st, v.d)
	if err != nil {
		return err
	}
	v.compareControls(controls)
	e := evaluation{m: v.Market, d: v.d, pin: pin, report: &Report{}, markers: map[ledger.Feed]*Marker{}, accounts: map[ledger.Feed]*ledger.Account{}}
	for _, step := range []func(context.Context) error{e.readRoster, e.readMarkers, e.readFacts} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	v.compareSources(&e)
	return nil
}

// atTag loads the tables that the certificate names, at its tag.
func (v *verification) atTag(ctx context.Context, c *Certificate) (states, error) {
	st := states{}
	for _, p := range c.Tables {
		table, ok := strings.CutPrefix(p.Table, v.pack.Namespace+".")
		role := slices.IndexFunc(v.tables(), func(r tableRole) bool { return r.table == table })
		if !ok || role < 0 {
			v.items = append(v.items, Mismatch{p.Table, "table", "a table of the pack", "the pack " + v.pack.Name + " " + v.pack.Version + " has none of that name"})
			continue
		}
		one, err := v.load(ctx, v.tables()[role:role+1], map[string]string{table: c.Tag})
		if err != nil {
			v.items = append(v.items, Mismatch{p.Table, "tag " + c.Tag, "snapshot " + strconv.FormatInt(p.Snapshot, 10), err.Error()})
			continue
		}
		st[table] = one[table]
		if p.Snapshot != 0 { // 0: the table was empty, and the tag made its first snapshot
			v.compare(p.Table, "snapshot", p.Snapshot, one[table].snapshot)
		}
		v.compare(p.Table, "schema", p.SchemaID, one[table].schema.ID)
	}
	return st, nil
}

// progress checks that the snapshots contain everything below the cut. A flush
// whose records were all rejected leaves no snapshot, so a snapshot may say
// less than the cut; the table must not.
func (v *verification) progress(st states) error {
	cut, err := record.ParseVector(v.c.Log)
	if err != nil {
		return err
	}
	have := record.Vector{}
	for _, s := range st {
		for k, o := range s.table.Through() {
			have[k] = max(have[k], o)
		}
	}
	v.res.Figures++
	if !have.Covers(cut) {
		v.items = append(v.items, Mismatch{"tables", "progress", "at least " + cut.String(), have.String()})
	}
	return nil
}

func (v *verification) compareControls(have []ControlTotal) {
	key := func(c ControlTotal) string { return c.Table + " " + c.Dimension + " " + c.Value }
	found := map[string]ControlTotal{}
	for _, c := range have {
		found[key(c)] = c
	}
	for _, want := range v.c.Controls {
		c, ok := found[key(want)]
		delete(found, key(want))
		object := strings.TrimSpace("control total " + key(want))
		if !ok {
			v.compare(object, "exists", true, false)
			continue
		}
		v.compare(object, "rows", want.Rows, c.Rows)
		v.compare(object, "quantity", want.Quantity, c.Quantity)
		v.compare(object, "notional", want.Notional, c.Notional)
	}
	for k := range found {
		v.compare("control total "+k, "exists", false, true)
	}
}

func (v *verification) compareSources(e *evaluation) {
	key := func(a *SourceAccount) string {
		return strings.TrimSpace(a.Stream + " " + a.feed().String())
	}
	found := map[string]*SourceAccount{}
	for _, s := range e.feeds {
		e.complete(s)
		found[key(&s.SourceAccount)] = &s.SourceAccount
	}
	for i := range v.c.Sources {
		want := &v.c.Sources[i]
		object := "source " + key(want)
		have, ok := found[key(want)]
		if !ok {
			// A feed that brought nothing but rejects is known to the ledger only.
			have = &SourceAccount{Quantity: "0", Notional: "0"}
		}
		v.compare(object, "rows", want.Rows, have.Rows)
		v.compare(object, "first", want.First, have.First)
		v.compare(object, "last", want.Last, have.Last)
		v.compare(object, "quantity", want.Quantity, have.Quantity)
		v.compare(object, "notional", want.Notional, have.Notional)
		v.compare(object, "marker", markerText(want.Marker), markerText(have.Marker))
	}
}

func markerText(k *Marker) string {
	if k == nil {
		return "none"
	}
	return fmt.Sprintf("%d-%d count %d quantity %s notional %s record %s", k.First, k.Last, k.Count, k.QuantityTotal, k.NotionalTotal, k.RecordID)
}

// illustrative names the reference tables that the pack calls illustrative.
func illustrative(p *packs.Pack) []string {
	var out []string
	for _, r := range p.References {
		if strings.Contains(strings.ToLower(r.Comment), "illustrative") {
			out = append(out, r.Table)
		}
	}
	return out
}

// compareFormer fills in what a re-seal changed.
func (s *sealing) compareFormer(ctx context.Context, c *Certificate) error {
	former, _, err := s.Certificate(ctx, s.d, s.former.Version)
	if err != nil {
		return err
	}
	c.Former = &FormerSeal{former.Version, former.Hash}
	diff := &Difference{}
	for _, t := range c.Tables {
		i := slices.IndexFunc(former.Tables, func(o TableProof) bool { return o.Table == t.Table })
		if i < 0 {
			diff.Tables = append(diff.Tables, TableDifference{t.Table, 0, t.Rows})
		} else if o := former.Tables[i]; o.Rows != t.Rows || o.RowHash != t.RowHash {
			diff.Tables = append(diff.Tables, TableDifference{t.Table, o.Rows, t.Rows})
		}
	}
	diff.Totals = totalDifferences(former.Controls, c.Controls)
	before, err := s.amounts(ctx, former)
	if err != nil {
		return err
	}
	lines, err := s.statementLines(ctx, s.states, s.d)
	if err != nil {
		return err
	}
	diff.Members = memberDifferences(before, lines.byMember())
	c.Difference = diff
	return nil
}

// totalDifferences compares control totals of all rows and by source.
func totalDifferences(before, after []ControlTotal) []TotalDifference {
	type key struct{ table, dimension, value string }
	totals := map[key][2]ControlTotal{}
	var order []key
	for side, list := range [2][]ControlTotal{before, after} {
		for _, c := range list {
			if c.Dimension != "" && c.Dimension != "source" {
				continue
			}
			k := key{c.Table, c.Dimension, c.Value}
			pair, ok := totals[k]
			if !ok {
				order = append(order, k)
			}
			pair[side] = c
			totals[k] = pair
		}
	}
	var out []TotalDifference
	for _, k := range order {
		p := totals[k]
		t := TotalDifference{k.table, k.dimension, k.value, p[1].Rows - p[0].Rows, subtract(p[1].Quantity, p[0].Quantity), subtract(p[1].Notional, p[0].Notional)}
		if t.Rows != 0 || p[0].Quantity != p[1].Quantity || p[0].Notional != p[1].Notional {
			out = append(out, t)
		}
	}
	return out
}

// subtract is a − b, of decimals as texts; "" is 0.
func subtract(a, b string) string {
	x, y := parse(a), parse(b)
	digits := max(places(a), places(b))
	return x.Sub(x, y).FloatString(digits)
}

func parse(s string) *big.Rat {
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return new(big.Rat)
	}
	return r
}

// places is the number of digits after the point.
func places(s string) int {
	_, fraction, _ := strings.Cut(s, ".")
	return len(fraction)
}

func memberDifferences(before, after map[string]string) []MemberDifference {
	var out []MemberDifference
	for member, a := range after {
		b := before[member]
		if b == "" {
			b = "0"
		}
		if parse(a).Cmp(parse(b)) != 0 {
			out = append(out, MemberDifference{member, b, a, subtract(a, b)})
		}
	}
	for member, b := range before {
		if _, ok := after[member]; !ok && parse(b).Sign() != 0 {
			out = append(out, MemberDifference{member, b, "0", subtract("0", b)})
		}
	}
	slices.SortFunc(out, func(a, b MemberDifference) int { return strings.Compare(a.Member, b.Member) })
	return out
}
