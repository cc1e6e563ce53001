package market

import (
	"context"
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/packs"
)

// Field is one named value of a line.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Explanation is a statement line with the legs behind it.
type Explanation struct {
	Statement   string  `json:"statement"`
	Line        int     `json:"line"`
	Certificate string  `json:"certificate"` // hash
	Fields      []Field `json:"fields"`      // of the line, in the statement's order
	// Computation says how the amount comes from the legs' sums.
	Computation string         `json:"computation"`
	LegColumns  []string       `json:"leg_columns"`
	Legs        []ExplainedLeg `json:"legs"`
	// Counted legs and their sums, in exact arithmetic, proven equal to the line's.
	Counted  int    `json:"counted"`
	Shares   string `json:"shares"`
	Notional string `json:"notional"`
	Exact    string `json:"exact"` // before rounding; "" for a rule that is not known here
	Amount   string `json:"amount"`
}

// ExplainedLeg is one leg. A busted leg is shown and not counted.
type ExplainedLeg struct {
	RecordID string   `json:"record_id"`
	Counted  bool     `json:"counted"`
	Values   []string `json:"values"` // in the order of LegColumns
}

// ParseStatementID reads "<trade date>/v<version>/<member>".
func ParseStatementID(id string) (d calendar.TradeDate, version int, member string, err error) {
	parts := strings.SplitN(id, "/", 3)
	if len(parts) == 3 {
		if v, ok := strings.CutPrefix(parts[1], "v"); ok && parts[2] != "" {
			if version, err = strconv.Atoi(v); err == nil && version > 0 {
				if d, err = calendar.ParseTradeDate(parts[0]); err == nil {
					return d, version, parts[2], nil
				}
			}
		}
	}
	return 0, 0, "", fmt.Errorf("%w statement id %q: want <trade date>/v<version>/<member>, such as 2026-11-20/v1/M001", ErrInvalid, id)
}

// ExplainCharge lists the legs and record ids behind a line (from 1) of a
// statement, and proves that they sum to it: *MismatchError if they do not.
func (m *Market) ExplainCharge(ctx context.Context, id string, line int) (*Explanation, error) {
	d, version, member, err := ParseStatementID(id)
	if err != nil {
		return nil, err
	}
	c, _, err := m.Certificate(ctx, d, version)
	if err != nil {
		return nil, err
	}
	lines, st, err := m.billable(ctx, c, d)
	if err != nil {
		return nil, err
	}
	var l *statementLine
	count := 0
	for _, x := range lines.lines {
		if x.member == member {
			count++
			if x.number == line {
				l = x
			}
		}
	}
	if l == nil {
		return nil, fmt.Errorf("%w line %d of statement %s: it has %d lines", ErrInvalid, line, id, count)
	}
	legs, err := m.legs(ctx, st, d, lines, l)
	if err != nil {
		return nil, err
	}
	e := &Explanation{Statement: id, Line: line, Certificate: c.Hash}
	for i, col := range lines.columns {
		e.Fields = append(e.Fields, Field{col.Name, text(l.values[i])})
	}
	return e, e.prove(c, lines, l, legs)
}

// legs runs the pack's explain statement for a line.
func (m *Market) legs(ctx context.Context, st states, d calendar.TradeDate, lines *statementResult, l *statementLine) (*result, error) {
	s, err := m.only(packs.ExplainCharge)
	if err != nil {
		return nil, err
	}
	args := []any{engine.Date(d)}
	for _, k := range lines.statement.Key {
		for i, col := range lines.columns {
			if col.Name == k {
				args = append(args, l.values[i])
			}
		}
	}
	return m.execute(ctx, st, s, args...)
}

// standingBust is how an explain statement marks a leg that is in no sum.
const standingBust = "bust"

// prove fills in the legs and compares their sums with the line's.
func (e *Explanation) prove(c *Certificate, lines *statementResult, l *statementLine, legs *result) error {
	for _, col := range legs.columns {
		e.LegColumns = append(e.LegColumns, col.Name)
	}
	stream, offset, standing := legs.index("record_stream"), legs.index("record_offset"), legs.index("standing")
	quantity, price := legs.index("quantity"), legs.index("price")
	if stream < 0 || offset < 0 || quantity < 0 || price < 0 {
		return fmt.Errorf("%w explain statement: it lacks one of record_stream, record_offset, quantity, price", ErrInvalid)
	}
	shares, notional := new(big.Rat), new(big.Rat)
	places := 0
	for _, row := range legs.rows {
		leg := ExplainedLeg{RecordID: recordID(row[stream], row[offset]), Counted: standing < 0 || text(row[standing]) != standingBust}
		for _, v := range row {
			leg.Values = append(leg.Values, text(v))
		}
		e.Legs = append(e.Legs, leg)
		if !leg.Counted {
			continue
		}
		e.Counted++
		q := parse(text(row[quantity]))
		shares.Add(shares, q)
		notional.Add(notional, q.Mul(q, parse(text(row[price]))))
		places = max(places, len(text(row[price]))-strings.IndexByte(text(row[price])+".", '.')-1)
	}
	e.Shares, e.Notional = shares.FloatString(0), notional.FloatString(max(places, 0))
	var wrong []Mismatch
	compare := func(what, want string, have *big.Rat) {
		if want != "" && parse(want).Cmp(have) != 0 {
			wrong = append(wrong, Mismatch{fmt.Sprintf("statement %s line %d", e.Statement, e.Line), what, want, have.RatString()})
		}
	}
	field := func(name string) string {
		for _, f := range e.Fields {
			if f.Name == name {
				return f.Value
			}
		}
		return ""
	}
	compare("legs", field("legs"), new(big.Rat).SetInt64(int64(e.Counted)))
	compare("shares", field("shares"), shares)
	compare("notional", field("notional"), notional)
	e.Amount = l.amount.FloatString(lines.places)
	rule := rateRule(field("rate_type"))
	if rule == nil {
		e.Computation = "the amount is computed by the pack's statement " + lines.statement.Name
	} else {
		exact := rule.amount(parse(field("rate")), shares, notional)
		digits, err := strconv.Atoi(field("rounding_place"))
		if err != nil || digits < 0 || digits > 18 {
			return fmt.Errorf("%w rounding place %q of statement %s line %d", ErrInvalid, field("rounding_place"), e.Statement, e.Line)
		}
		rounded, err := Round(exact, digits, field("rounding_mode"))
		if err != nil {
			return err
		}
		e.Exact = exact.FloatString(exactPlaces(exact))
		e.Computation = fmt.Sprintf("%s = %s, rounded %s to %d digits = %s", rule.text(field("rate"), e.Shares, e.Notional), e.Exact, field("rounding_mode"), digits, rounded.FloatString(lines.places))
		compare("amount", e.Amount, rounded)
	}
	if len(wrong) > 0 {
		return &MismatchError{c.TradeDate, c.Version, wrong}
	}
	return nil
}

// exactPlaces is the number of digits that a finite decimal has after the point.
func exactPlaces(r *big.Rat) int {
	const most = 24
	n, ten, scaled := 0, big.NewRat(10, 1), new(big.Rat).Set(r)
	for !scaled.IsInt() && n < most {
		scaled.Mul(scaled, ten)
		n++
	}
	return n
}

// rate is how a rate type makes an amount.
type rate struct {
	on    string // what the rate is of
	parts int64  // one over
}

// rateRule returns the rule of a rate type, nil if it is not known here.
func rateRule(kind string) *rate {
	switch kind {
	case "per_share":
		return &rate{"shares", 1}
	case "basis_points":
		return &rate{"notional", 10_000}
	case "per_million":
		return &rate{"notional", 1_000_000}
	}
	return nil
}

func (r *rate) amount(per, shares, notional *big.Rat) *big.Rat {
	base := notional
	if r.on == "shares" {
		base = shares
	}
	out := new(big.Rat).Mul(base, per)
	return out.Quo(out, new(big.Rat).SetInt64(r.parts))
}

func (r *rate) text(per, shares, notional string) string {
	switch {
	case r.on == "shares":
		return shares + " shares × " + per
	case r.parts == 10_000:
		return notional + " notional × " + per + " basis points"
	}
	return notional + " notional × " + per + " per million"
}

// Round rounds to digits after the point: half-up (away from zero), half-even or
// down (towards zero).
func Round(r *big.Rat, digits int, mode string) (*big.Rat, error) {
	scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits)), nil)
	scaled := new(big.Rat).Mul(r, new(big.Rat).SetInt(scale))
	q, rem := new(big.Int).QuoRem(scaled.Num(), scaled.Denom(), new(big.Int)) // towards zero
	twice := rem.Abs(rem).Lsh(rem, 1).Cmp(scaled.Denom())
	away := false
	switch mode {
	case "half-up":
		away = twice >= 0
	case "half-even":
		away = twice > 0 || twice == 0 && q.Bit(0) == 1
	case "down":
	default:
		return nil, fmt.Errorf("%w rounding mode %q", ErrInvalid, mode)
	}
	if away {
		q.Add(q, big.NewInt(int64(r.Sign())))
	}
	return new(big.Rat).SetFrac(q, scale), nil
}
