package market

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/delivery"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/maintain"
	"github.com/tapehouse/tapehouse/internal/record"
)

// SealOptions say who seals and how.
type SealOptions struct {
	By string // who, for the certificate; required
	// Reseal makes a new version of a sealed trade date, of what is here now.
	// Without it sealing again answers with the certificate in force.
	Reseal bool
}

// SealResult is what Seal did.
type SealResult struct {
	Certificate *Certificate
	Existing    bool // the trade date was sealed already; nothing was done
	Took        time.Duration
}

// Seal proves the trade date complete, cuts, tags and certifies it:
// docs/protocols/seal.md. *RefusedError if it is not complete. After any other
// error nothing or everything was done; seal again to learn which.
func (m *Market) Seal(ctx context.Context, d calendar.TradeDate, o SealOptions) (res *SealResult, err error) {
	start := m.o.Now()
	if strings.TrimSpace(o.By) == "" {
		return nil, fmt.Errorf("%w seal: who seals must be named", ErrInvalid)
	}
	if _, err := m.day(d); err != nil {
		return nil, err
	}
	release, err := m.take(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	defer func() { m.observe(d, res, err) }()

	former, version, err := m.sealed(ctx, d)
	switch {
	case errors.Is(err, ErrNotSealed):
	case err != nil:
		return nil, err
	case !o.Reseal:
		c, _, err := m.Certificate(ctx, d, former.Version)
		if err != nil {
			return nil, err
		}
		return &SealResult{Certificate: c, Existing: true, Took: m.o.Now().Sub(start)}, nil
	}
	report, err := m.Readiness(ctx, d)
	if err != nil {
		return nil, err
	}
	if !report.Ready {
		return nil, m.refuse(ctx, d, o.By, report)
	}
	if err := m.step("ready"); err != nil {
		return nil, err
	}
	frozen, err := m.o.Streams.Freeze(ctx)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", d, err)
	}
	defer frozen.Release()
	if err := m.step("frozen"); err != nil {
		return nil, err
	}
	s := sealing{Market: m, d: d, by: o.By, former: former, formerDocument: version, start: start}
	if err := s.cut(ctx, frozen); err != nil {
		return nil, err
	}
	c, err := s.certify(ctx)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", d, err)
	}
	return &SealResult{Certificate: c, Took: m.o.Now().Sub(start)}, nil
}

// refuse records a refusal and returns it.
func (m *Market) refuse(ctx context.Context, d calendar.TradeDate, by string, report *Report) error {
	refused := &RefusedError{d, report}
	doc, err := m.audit(by, "refused", d, report.Failures())
	if err == nil {
		_, err = m.o.Catalog.PutDocument(ctx, doc)
	}
	if err != nil {
		return errors.Join(refused, fmt.Errorf("record the refusal: %w", err))
	}
	return refused
}

// observe counts and logs the outcome of a seal.
func (m *Market) observe(d calendar.TradeDate, res *SealResult, err error) {
	var refused *RefusedError
	switch {
	case errors.As(err, &refused):
		m.metrics.seals.WithLabelValues("refused").Inc()
		m.o.Logger.Warn("seal refused", "trade_date", d.String(), "failed_checks", len(refused.Report.Failures()))
	case err != nil:
		m.metrics.seals.WithLabelValues("error").Inc()
	case res.Existing:
		m.metrics.seals.WithLabelValues("existing").Inc()
	default:
		m.metrics.seals.WithLabelValues("sealed").Inc()
		m.metrics.sealSeconds.Observe(res.Took.Seconds())
		c := res.Certificate
		m.o.Logger.Info("trade date sealed", "trade_date", d.String(), "version", c.Version, "tag", c.Tag, "certificate", c.Hash, "rows", c.factRows(), "by", c.SealedBy, "took", res.Took)
	}
}

// factRows is the number of rows of all facts.
func (c *Certificate) factRows() (n int64) {
	for _, t := range c.Tables {
		if t.Role == RoleFact {
			n += t.Rows
		}
	}
	return n
}

// sealing is one seal under way, behind the freeze.
type sealing struct {
	*Market
	d              calendar.TradeDate
	by             string
	former         sealDocument
	formerDocument int64 // version of the seal document, 0 if none
	start          time.Time
	at             record.Vector
	report         *Report
	states         states
}

// cut judges the state at the cut, compacts, and loads what is to be tagged.
func (s *sealing) cut(ctx context.Context, frozen *delivery.Frozen) error {
	s.at = frozen.At
	st, err := s.load(ctx, s.tables(), nil)
	if err != nil {
		return fmt.Errorf("seal %s: load the tables at the cut: %w", s.d, err)
	}
	for _, t := range st {
		for _, stream := range s.o.Streams.Streams() {
			for _, p := range stream.Tables() {
				if through := t.table.Through()[p.Key]; p.Table == t.table.Name && through != s.at[p.Key] {
					return fmt.Errorf("seal %s: stream %s was cut at %d, table %s contains %d", s.d, stream.Config().Name, s.at[p.Key], p.Table, through)
				}
			}
		}
	}
	pin := s.pinDate(st, s.d)
	s.report, err = s.evaluate(ctx, s.d, pin)
	pin.Release()
	if err != nil {
		return err
	}
	if !s.report.Ready {
		return s.refuse(ctx, s.d, s.by, s.report)
	}
	if err := s.step("proven"); err != nil {
		return err
	}
	for i := range s.facts {
		f := &s.facts[i]
		if _, err := s.o.Compactor.Compact(ctx, s.name(f.stream.Table), catalog.Partition{Value: int32(s.d), Has: true}, maintain.CompactOptions{}); err != nil {
			return fmt.Errorf("seal %s: %w", s.d, err)
		}
		if err := s.step("compacted " + f.stream.Table); err != nil {
			return err
		}
	}
	if s.states, err = s.load(ctx, s.tables(), nil); err != nil {
		return fmt.Errorf("seal %s: load the tables to be tagged: %w", s.d, err)
	}
	for name, t := range s.states {
		if was, is := st[name].rowsIn(s.d), t.rowsIn(s.d); was != is {
			return fmt.Errorf("seal %s: table %s had %d rows at the cut and has %d", s.d, t.table.Name, was, is)
		}
	}
	return nil
}

// certify computes the certificate and commits it with the tags.
func (s *sealing) certify(ctx context.Context) (*Certificate, error) {
	c := &Certificate{
		Format: certificateFormat, TradeDate: s.d.String(), Version: s.former.Version + 1, SealedBy: s.by, Program: s.o.Program,
		Pack:     PackName{s.pack.Name, s.pack.Version, s.pack.Hash},
		Calendar: s.pack.Calendar.Version(), Tag: Tag(s.d, s.former.Version+1), Log: s.at.String(), Illustrative: illustrative(s.pack),
		Findings: s.report.Findings, Waivers: s.report.Waivers, Sources: s.report.Sources,
	}
	if c.Waivers == nil {
		c.Waivers = []Waiver{}
	}
	pin := s.pinDate(s.states, s.d)
	defer pin.Release()
	var err error
	if c.Tables, err = s.tableProofs(ctx, pin, s.states, s.d); err != nil {
		return nil, err
	}
	if c.Controls, err = s.controls(ctx, pin, s.states, s.d); err != nil {
		return nil, err
	}
	if s.former.Version > 0 {
		if err := s.compareFormer(ctx, c); err != nil {
			return nil, err
		}
	}
	if err := s.step("computed"); err != nil {
		return nil, err
	}
	c.SealedAt = s.o.Now().UTC().Truncate(time.Microsecond)
	if err := s.commit(ctx, c); err != nil {
		return nil, err
	}
	return c, s.step("committed")
}

// commit is the one step: tags, certificate, seal and audit entry.
func (s *sealing) commit(ctx context.Context, c *Certificate) error {
	body, err := c.seal()
	if err != nil {
		return err
	}
	seal := sealDocument{TradeDate: c.TradeDate, Version: c.Version, Hash: c.Hash, Tag: c.Tag, SealedAt: c.SealedAt, Rows: c.factRows(), Took: s.o.Now().Sub(s.start).Seconds()}
	sealDoc, err := document(KindSeal, c.TradeDate, s.formerDocument, seal)
	if err != nil {
		return err
	}
	action := "seal"
	if c.Version > 1 {
		action = "reseal"
	}
	audit, err := s.audit(s.by, action, s.d, seal)
	if err != nil {
		return err
	}
	commits := make([]catalog.Commit, 0, len(c.Tables))
	for _, r := range s.tables() {
		t := s.states[r.table]
		commits = append(commits, catalog.Commit{Table: t.table.Name, RequireSnapshot: &t.snapshot, Tags: map[string]int64{c.Tag: t.snapshot}})
	}
	if err := s.step("before commit"); err != nil {
		return err
	}
	_, err = s.o.Catalog.Commit(ctx, commits, catalog.DocumentWrite{Kind: KindCertificate, Key: certificateKey(s.d, c.Version), Body: body}, sealDoc, audit)
	return err
}

// tableProofs counts and hashes every table.
func (m *Market) tableProofs(ctx context.Context, pin *engine.Pin, st states, d calendar.TradeDate) ([]TableProof, error) {
	var out []TableProof
	for _, r := range m.tables() {
		s := st[r.table]
		p := TableProof{Table: s.table.Name.String(), Role: r.role, Snapshot: s.snapshot, SchemaID: s.schema.ID}
		if r.partition != "" {
			p.Partition = d.String()
		}
		var err error
		if p.Rows, p.RowHash, err = m.rowHash(ctx, pin, s, d); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// controlDimensions are the columns that control totals are made by, where a
// fact has them.
var controlDimensions = []string{"source", "symbol", "mpid", "fee_code", "tape", "event_type", "action"}

// controls computes the control totals of every fact, each in one scan.
func (m *Market) controls(ctx context.Context, pin *engine.Pin, st states, d calendar.TradeDate) ([]ControlTotal, error) {
	out := []ControlTotal{}
	for i := range m.facts {
		f := &m.facts[i]
		s := st[f.stream.Table]
		var columns []string
		for _, c := range controlDimensions {
			if i := s.schema.Index(c); i >= 0 && s.schema.Fields[i].Type.Kind == record.String {
				columns = append(columns, c)
			}
		}
		from := len(out)
		err := m.query(ctx, pin, f.controlSQL(s, columns, d), func(row []any) error {
			c := ControlTotal{Table: s.table.Name.String(), Rows: integer(row[0]), Quantity: decimal(row[1]).String(), Notional: decimal(row[2]).String()}
			for i, name := range columns {
				if integer(row[3+2*i]) == 0 { // grouped by this one
					c.Dimension, c.Value = name, text(row[4+2*i])
				}
			}
			out = append(out, c)
			return nil
		})
		if err != nil {
			return nil, err
		}
		if len(out)-from > controlsMax {
			return nil, fmt.Errorf("control totals of %s: %d, the limit is %d", s.table.Name, len(out)-from, controlsMax)
		}
		slices.SortFunc(out[from:], compareControls)
	}
	return out, nil
}

// controlsMax keeps a certificate below the bound of a document.
const controlsMax = 40_000

func compareControls(a, b ControlTotal) int {
	if n := slices.Index(controlDimensions, a.Dimension) - slices.Index(controlDimensions, b.Dimension); n != 0 {
		return n
	}
	return strings.Compare(a.Value, b.Value)
}

func (f *fact) controlSQL(s *state, columns []string, d calendar.TradeDate) string {
	q := engine.QuoteIdentifier
	quantity, notional := "CAST(0 AS HUGEINT)", "CAST(0 AS HUGEINT)"
	if f.Quantity != "" {
		quantity = "coalesce(sum(CAST(" + q(f.Quantity) + " AS HUGEINT)), 0)"
		if f.Price != "" {
			notional = "coalesce(sum(" + q(f.Quantity) + " * " + q(f.Price) + "), 0)"
		}
	}
	list, sets := "", "()"
	for _, c := range columns {
		list += ", CAST(grouping(" + q("k_"+c) + ") AS BIGINT), " + q("k_"+c)
		sets += ", (" + q("k_"+c) + ")"
	}
	// A null and an empty text are one group.
	inner := make([]string, 0, len(columns)+2)
	for _, c := range columns {
		inner = append(inner, "coalesce("+q(c)+", '') AS "+q("k_"+c))
	}
	for _, c := range []string{f.Quantity, f.Price} {
		if c != "" {
			inner = append(inner, q(c))
		}
	}
	return "SELECT count(*), " + quantity + ", " + notional + list + " FROM (SELECT " + strings.Join(inner, ", ") + " FROM " + s.quoted() +
		" WHERE " + q(s.partition) + " = " + dateLiteral(d) + ") GROUP BY GROUPING SETS (" + sets + ")"
}
