package market

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/record"
)

// LateOriginal is a row that should have been there at the seal.
type LateOriginal struct {
	RecordID  string `json:"record_id"`
	Stream    string `json:"stream"`
	Source    string `json:"source"`
	Session   string `json:"session"`
	Epoch     int64  `json:"epoch"`
	Sequence  int64  `json:"sequence"`
	ArrivedAt string `json:"arrived_at"`
}

// laterMax bounds each list of LaterResult.
const laterMax = 10_000

// LaterResult is what became known of a trade date after its seal. The lists
// hold the first laterMax, the counts count all.
type LaterResult struct {
	TradeDate         string         `json:"trade_date"`
	Version           int            `json:"version"`
	Corrections       []Correction   `json:"corrections"`
	CorrectionCount   int64          `json:"correction_count"`
	LateOriginals     []LateOriginal `json:"late_originals"`
	LateOriginalCount int64          `json:"late_original_count"`
}

// IsEmpty reports whether nothing became known.
func (r *LaterResult) IsEmpty() bool { return r.CorrectionCount == 0 && r.LateOriginalCount == 0 }

// Later lists the corrections of a sealed trade date and the late originals
// that its version in force does not contain. ErrNotSealed.
func (m *Market) Later(ctx context.Context, d calendar.TradeDate) (*LaterResult, error) {
	c, _, err := m.Certificate(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	roles := m.factRoles()
	below, err := m.progressAt(ctx, roles, c.Tag)
	if err != nil {
		return nil, err
	}
	cut, err := record.ParseVector(c.Log)
	if err != nil {
		return nil, err
	}
	merge(below, cut)
	names := make([]engine.Name, len(roles))
	for i, r := range roles {
		names[i] = engine.Name(m.name(r.table))
	}
	pin, err := m.o.Engine.PinFresh(ctx, names, nil)
	if err != nil {
		return nil, fmt.Errorf("later records of %s: %w", d, err)
	}
	defer pin.Release()
	return m.later(ctx, d, c.Version, pin, below)
}

func (m *Market) factRoles() []tableRole {
	return slices.DeleteFunc(m.tables(), func(r tableRole) bool { return r.role != RoleFact })
}

// progressAt is the progress of the tagged snapshots of tables.
func (m *Market) progressAt(ctx context.Context, roles []tableRole, tag string) (record.Vector, error) {
	out := record.Vector{}
	for _, r := range roles {
		t, err := m.o.Catalog.Load(ctx, m.name(r.table))
		if err != nil {
			return nil, err
		}
		v, err := t.ThroughAt(catalog.At{Tag: tag})
		if err != nil {
			return nil, err
		}
		merge(out, v)
	}
	return out, nil
}

func merge(into, v record.Vector) {
	for k, o := range v {
		into[k] = max(into[k], o)
	}
}

// beyond is the SQL condition that a row's record is not below v.
func beyond(alias string, v record.Vector) string {
	if len(v) == 0 {
		return "true"
	}
	var parts []string
	for k, o := range v {
		parts = append(parts, fmt.Sprintf("(%srecord_stream = %s AND %srecord_offset < %d)", alias, engine.QuoteLiteral(k.String()), alias, uint64(o)))
	}
	slices.Sort(parts)
	return "NOT coalesce(" + strings.Join(parts, " OR ") + ", false)"
}

// later lists what a pin shows beyond a progress.
func (m *Market) later(ctx context.Context, d calendar.TradeDate, version int, pin *engine.Pin, below record.Vector) (*LaterResult, error) {
	res := &LaterResult{TradeDate: d.String(), Version: version, Corrections: []Correction{}, LateOriginals: []LateOriginal{}}
	for i := range m.facts {
		f := &m.facts[i]
		q := f.stream.Sequence
		where := " FROM " + quoteName(m.name(f.stream.Table)) + " AS f WHERE f." + engine.QuoteIdentifier(f.stream.Partition) + " = " + dateLiteral(d) + " AND " + beyond("f.", below)
		var count int64
		if err := m.query(ctx, pin, "SELECT count(*)"+where, func(row []any) error {
			count = integer(row[0])
			return nil
		}); err != nil {
			return nil, err
		}
		if count == 0 {
			continue
		}
		var err error
		order := fmt.Sprintf(" ORDER BY f.%s, f.%s, f.%s, f.%s LIMIT %d", engine.QuoteIdentifier(q.Source), engine.QuoteIdentifier(q.Session), engine.QuoteIdentifier(q.Epoch), engine.QuoteIdentifier(q.Sequence), laterMax)
		switch {
		case f.Stream == m.pack.Close.Corrections:
			res.CorrectionCount += count
			err = m.query(ctx, pin, correctionColumns("f")+where+order, func(row []any) error {
				res.Corrections = append(res.Corrections, correctionOf(row))
				return nil
			})
		case f.derived:
			res.LateOriginalCount += count
			sql := fmt.Sprintf("SELECT f.record_stream, f.record_offset, f.%s, f.%s, f.%s, f.%s, f.arrived_at", engine.QuoteIdentifier(q.Source), engine.QuoteIdentifier(q.Session), engine.QuoteIdentifier(q.Epoch), engine.QuoteIdentifier(q.Sequence))
			err = m.query(ctx, pin, sql+where+order, func(row []any) error {
				if len(res.LateOriginals) < laterMax {
					res.LateOriginals = append(res.LateOriginals, LateOriginal{recordID(row[0], row[1]), string(f.Stream), text(row[2]), text(row[3]), integer(row[4]), integer(row[5]), text(row[6])})
				}
				return nil
			})
		}
		if err != nil {
			return nil, err
		}
	}
	return res, nil
}
