package market

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/catalog"
)

// Bounds of a waiver.
const (
	waiverRangesMax = 10_000
	waiverTextMax   = 4_000 // bytes of the reason and of a name
)

// Waive accepts failed findings: those of check w.Check about w.Source (and
// session and epoch, where named). Ranges must be given for gap, rejected and
// conflict; the finding is waived once the waivers together cover it. Key and
// At are assigned. ErrInvalid for a malformed waiver; ErrNothingToWaive if no
// finding that fails now answers to it.
func (m *Market) Waive(ctx context.Context, d calendar.TradeDate, w Waiver) (Waiver, error) {
	release, err := m.take(ctx)
	if err != nil {
		return Waiver{}, err
	}
	defer release()
	w.TradeDate, w.At = d.String(), m.o.Now().UTC()
	if err := m.checkWaiver(&w); err != nil {
		return Waiver{}, err
	}
	report, err := m.Readiness(ctx, d)
	if err != nil {
		return Waiver{}, err
	}
	found := false
	for _, f := range report.Failures() {
		found = found || w.about(&f) && (!f.Check.byRange() || touches(f.Ranges, w.Ranges) || len(f.Ranges) == 0)
	}
	if !found {
		return Waiver{}, fmt.Errorf("%w: %s of source %q on %s; `tapehouse status` lists what fails", ErrNothingToWaive, w.Check, w.Source, d)
	}
	former, err := m.Waivers(ctx, d)
	if err != nil {
		return Waiver{}, err
	}
	w.Key = fmt.Sprintf("%s/%04d", d, len(former)+1)
	doc, err := document(KindWaiver, w.Key, 0, w)
	if err != nil {
		return Waiver{}, err
	}
	audit, err := m.audit(w.By, "waive", d, w)
	if err != nil {
		return Waiver{}, err
	}
	if _, err := m.o.Catalog.Commit(ctx, nil, doc, audit); err != nil {
		return Waiver{}, fmt.Errorf("store waiver: %w", err)
	}
	m.o.Logger.Warn("finding waived", "trade_date", w.TradeDate, "check", w.Check, "source", w.Source, "session", w.Session, "by", w.By, "second", w.Second, "reason", w.Reason)
	return w, nil
}

func (m *Market) checkWaiver(w *Waiver) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w waiver: "+format, append([]any{ErrInvalid}, args...)...)
	}
	switch w.Check {
	case CheckSilent, CheckUnexpected, CheckMarker, CheckMarkers, CheckGap, CheckRejected, CheckConflict, CheckCount, CheckTotals, CheckReference:
	default:
		return bad("check %q is not known", w.Check)
	}
	for _, s := range []string{w.Reason, w.By, w.Second, w.Source, w.Session} {
		if len(s) > waiverTextMax {
			return bad("a text is longer than %d bytes", waiverTextMax)
		}
	}
	switch {
	case strings.TrimSpace(w.Reason) == "" || strings.TrimSpace(w.By) == "":
		return bad("reason and who are required")
	case m.o.SecondPerson && strings.TrimSpace(w.Second) == "":
		return bad("a second person is required")
	case w.Second != "" && strings.EqualFold(strings.TrimSpace(w.Second), strings.TrimSpace(w.By)):
		return bad("the second person must be another than %s", w.By)
	case w.Source == "" && w.Check != CheckReference:
		return bad("source is required")
	case w.Check.byRange() != (len(w.Ranges) > 0):
		return bad("ranges are required for %s, %s and %s, and for nothing else", CheckGap, CheckRejected, CheckConflict)
	case len(w.Ranges) > waiverRangesMax:
		return bad("more than %d ranges", waiverRangesMax)
	}
	for _, r := range w.Ranges {
		if r.First < 0 || r.Last < r.First {
			return bad("range %d-%d", r.First, r.Last)
		}
	}
	return nil
}

func touches(a, b []Range) bool {
	for _, x := range a {
		for _, y := range b {
			if x.First <= y.Last && y.First <= x.Last {
				return true
			}
		}
	}
	return false
}

// document encodes a document write.
func document(kind, key string, ifVersion int64, v any) (catalog.DocumentWrite, error) {
	body, err := marshal(v)
	if err != nil {
		return catalog.DocumentWrite{}, fmt.Errorf("encode %s %s: %w", kind, key, err)
	}
	return catalog.DocumentWrite{Kind: kind, Key: key, IfVersion: ifVersion, Body: body}, nil
}

func unmarshal(doc catalog.Document, v any) error {
	if err := json.Unmarshal(doc.Body, v); err != nil {
		return fmt.Errorf("read %s %s: %w", doc.Kind, doc.Key, err)
	}
	return nil
}

// AuditEntry says who did what to a trade date.
type AuditEntry struct {
	At        string          `json:"at"`
	By        string          `json:"by"`
	Action    string          `json:"action"` // seal, reseal, refused, waive, adjust, deadline, late_originals
	TradeDate string          `json:"trade_date"`
	Detail    json.RawMessage `json:"detail,omitempty"`
}

// audit makes an audit entry. Its key sorts by time and never repeats: it ends
// with this process's mark and a count.
func (m *Market) audit(by, action string, d calendar.TradeDate, detail any) (catalog.DocumentWrite, error) {
	body, err := marshal(detail)
	if err != nil {
		return catalog.DocumentWrite{}, fmt.Errorf("encode audit entry: %w", err)
	}
	at := m.o.Now().UTC()
	n := m.audits.Add(1)
	e := AuditEntry{At: at.Format("2006-01-02T15:04:05.000000000Z"), By: by, Action: action, TradeDate: d.String(), Detail: body}
	return document(KindAudit, fmt.Sprintf("%s-%s-%06d", e.At, m.life, n), 0, e)
}

// Audit returns the audit entries of a trade date, oldest first; of all trade
// dates if d is 0.
func (m *Market) Audit(ctx context.Context, d calendar.TradeDate) ([]AuditEntry, error) {
	docs, err := m.o.Catalog.ListDocuments(ctx, KindAudit, "")
	if err != nil {
		return nil, err
	}
	var out []AuditEntry
	for _, doc := range docs {
		var e AuditEntry
		if err := unmarshal(doc, &e); err != nil {
			return nil, err
		}
		if d == 0 || e.TradeDate == d.String() {
			out = append(out, e)
		}
	}
	return out, nil
}
