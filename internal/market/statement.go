package market

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/packs"
)

// The columns that a member statement must have.
const (
	columnMember = "member_id"
	columnAmount = "amount"
)

// ErrNoStatement: the pack has not exactly one statement of the role wanted.
var ErrNoStatement = errors.New("pack has no such statement")

// LineFault is a statement line that must not be billed.
type LineFault struct {
	Line   string `json:"line"` // its member and key
	Reason string `json:"reason"`
}

// UnbillableError names the lines for which there is no member, rate or amount,
// or which stand twice. Nothing was written.
type UnbillableError struct {
	TradeDate string
	Version   int
	Faults    []LineFault
}

func (e *UnbillableError) Error() string {
	lines := []string{fmt.Sprintf("statements of %s version %d are refused: %d lines cannot be billed", e.TradeDate, e.Version, len(e.Faults))}
	for i, f := range e.Faults {
		if i == samplesMax {
			lines = append(lines, fmt.Sprintf("and %d more", len(e.Faults)-i))
			break
		}
		lines = append(lines, f.Line+": "+f.Reason)
	}
	return strings.Join(lines, "\n  ") + "\n  complete the reference data (members, MPIDs, fee schedule) and seal again"
}

// statementLine is one line of a member's statement.
type statementLine struct {
	member string
	number int      // within the member, from 1
	key    []string // the pack's key columns
	values []any
	amount *big.Rat // nil: null
}

func (l *statementLine) id() string { return l.member + "\x00" + strings.Join(l.key, "\x00") }

// name says which line it is, for people.
func (l *statementLine) name() string {
	return strings.Join(append([]string{orElse(l.member, "no member")}, l.key...), " ")
}

// statementResult is the member statement of a trade date.
type statementResult struct {
	statement *packs.Statement
	columns   []engine.Column
	lines     []*statementLine // by member, then key
	places    int              // digits after the point of the amounts
	faults    []LineFault
}

// only returns the pack's one statement of a role.
func (m *Market) only(role packs.Role) (*packs.Statement, error) {
	var found *packs.Statement
	for i := range m.pack.Statements {
		if m.pack.Statements[i].Role != role {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%w: pack %s has more than one %s", ErrNoStatement, m.pack.Name, role)
		}
		found = &m.pack.Statements[i]
	}
	if found == nil {
		return nil, fmt.Errorf("%w: pack %s, %s", ErrNoStatement, m.pack.Name, role)
	}
	return found, nil
}

// sealedStates loads every table at a certificate's tag.
func (m *Market) sealedStates(ctx context.Context, c *Certificate) (states, error) {
	tags := map[string]string{}
	for _, r := range m.tables() {
		tags[r.table] = c.Tag
	}
	return m.load(ctx, m.tables(), tags)
}

// execute runs a pack's statement over states: only the tables that it names,
// all of which must be among them.
func (m *Market) execute(ctx context.Context, st states, s *packs.Statement, args ...any) (*result, error) {
	names, err := m.o.Engine.References(ctx, s.SQL)
	if err != nil {
		return nil, fmt.Errorf("statement %s: %w", s.Name, err)
	}
	used := states{}
	for _, n := range names {
		t, ok := st[n.Table]
		if !ok || catalog.Name(n) != t.table.Name {
			return nil, fmt.Errorf("statement %s reads %s, which is not part of the close", s.Name, n)
		}
		used[n.Table] = t
	}
	pin := used.pin()
	defer pin.Release()
	return m.run(ctx, "statement "+s.Name, pin, s.SQL, args...)
}

// statementLines runs the member statement over states.
func (m *Market) statementLines(ctx context.Context, st states, d calendar.TradeDate) (*statementResult, error) {
	s, err := m.only(packs.MemberStatement)
	if err != nil {
		return nil, err
	}
	r, err := m.execute(ctx, st, s, engine.Date(d))
	if err != nil {
		return nil, err
	}
	out := &statementResult{statement: s, columns: r.columns}
	member, amount := r.index(columnMember), r.index(columnAmount)
	keys := make([]int, len(s.Key))
	for i, k := range s.Key {
		keys[i] = r.index(k)
	}
	if len(r.rows) > 0 && (member < 0 || amount < 0 || slices.Contains(keys, -1)) {
		return nil, fmt.Errorf("statement %s lacks a column: %s, %s and its key %v are required", s.Name, columnMember, columnAmount, s.Key)
	}
	for _, row := range r.rows {
		l := &statementLine{member: text(row[member]), values: row}
		for _, k := range keys {
			l.key = append(l.key, text(row[k]))
		}
		switch a := row[amount].(type) {
		case nil:
		case engine.Decimal:
			l.amount = rational(a)
			out.places = max(out.places, int(a.Scale))
		case int64:
			l.amount = new(big.Rat).SetInt64(a)
		default:
			return nil, fmt.Errorf("statement %s: amount of type %T: want an exact decimal", s.Name, a)
		}
		out.lines = append(out.lines, l)
	}
	out.number()
	return out, nil
}

func rational(d engine.Decimal) *big.Rat {
	return new(big.Rat).SetFrac(d.Unscaled, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(d.Scale)), nil))
}

// number sorts and numbers the lines and finds those that cannot be billed.
func (r *statementResult) number() {
	slices.SortStableFunc(r.lines, func(a, b *statementLine) int {
		return cmp.Or(strings.Compare(a.member, b.member), slices.Compare(a.key, b.key))
	})
	n := 0
	// A line whose member is null has the same key as no other: keys are
	// compared without the member.
	seen := map[string]bool{}
	for i, l := range r.lines {
		if i > 0 && r.lines[i-1].member != l.member {
			n = 0
		}
		n++
		l.number = n
		var null []string
		for c, v := range l.values {
			if v == nil {
				null = append(null, r.columns[c].Name)
			}
		}
		if len(null) > 0 {
			r.faults = append(r.faults, LineFault{l.name(), "there is no " + strings.Join(null, ", ")})
		}
		key := strings.Join(l.key, "\x00")
		if seen[key] {
			r.faults = append(r.faults, LineFault{l.name(), "the line stands twice: two rates or two members hold at once"})
		}
		seen[key] = true
	}
}

// byMember sums the amounts by member. Lines that cannot be billed are left out.
func (r *statementResult) byMember() map[string]string {
	sums := map[string]*big.Rat{}
	for _, l := range r.lines {
		if l.amount == nil || l.member == "" {
			continue
		}
		if sums[l.member] == nil {
			sums[l.member] = new(big.Rat)
		}
		sums[l.member].Add(sums[l.member], l.amount)
	}
	out := map[string]string{}
	for k, v := range sums {
		out[k] = v.FloatString(r.places)
	}
	return out
}

// amounts is the sealed amount of each member.
func (m *Market) amounts(ctx context.Context, c *Certificate) (map[string]string, error) {
	d, err := calendar.ParseTradeDate(c.TradeDate)
	if err != nil {
		return nil, err
	}
	st, err := m.sealedStates(ctx, c)
	if err != nil {
		return nil, err
	}
	lines, err := m.statementLines(ctx, st, d)
	if err != nil {
		return nil, err
	}
	return lines.byMember(), nil
}

// billable returns the lines of a sealed version, or *UnbillableError.
func (m *Market) billable(ctx context.Context, c *Certificate, d calendar.TradeDate) (*statementResult, states, error) {
	st, err := m.sealedStates(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	lines, err := m.statementLines(ctx, st, d)
	if err != nil {
		return nil, nil, err
	}
	if len(lines.faults) > 0 {
		return nil, nil, &UnbillableError{c.TradeDate, c.Version, lines.faults}
	}
	return lines, st, nil
}
