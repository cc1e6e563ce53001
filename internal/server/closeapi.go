package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/ledger"
	"github.com/tapehouse/tapehouse/internal/market"
)

// closeBackend gives the console the close of trade dates.
type closeBackend struct{ *Server }

// Info implements console.Backend.
func (s closeBackend) Info(context.Context) (console.Info, error) {
	info := console.Info{Version: s.version, PID: s.addresses.PID, Data: s.cfg.Data, Pack: s.pack.Name + " " + s.pack.Version, StartedAt: s.startedAt}
	for _, st := range s.delivery.Streams() {
		f := st.Stats()
		info.Streams = append(info.Streams, console.Stream{Name: string(f.Stream), Table: f.Table,
			Acknowledged: int64(f.Acknowledged), Visible: int64(f.Visible), Committed: int64(f.Through)})
	}
	return info, nil
}

// tradeDate reads a request's trade date.
func tradeDate(s string) (calendar.TradeDate, error) {
	d, err := calendar.ParseTradeDate(s)
	if err != nil {
		return 0, console.Errorf(console.CodeInvalid, "%v: want YYYY-MM-DD", err)
	}
	return d, nil
}

// closeError gives the close's errors the console's codes.
func closeError(err error) error {
	var refused *market.RefusedError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		head, _, _ := strings.Cut(refused.Error(), "\n") // the rest is in Problems
		return &console.Error{Code: console.CodeRefused, Message: head, Problems: problems(refused.Report.Findings)}
	case errors.Is(err, market.ErrNotSealed):
		return &console.Error{Code: console.CodeConflict, Message: err.Error(), Remedy: "seal it first: tapehouse seal --trade-date"}
	case errors.Is(err, market.ErrNotTradeDate), errors.Is(err, market.ErrInvalid), errors.Is(err, market.ErrNothingToWaive):
		return &console.Error{Code: console.CodeInvalid, Message: err.Error()}
	case errors.Is(err, market.ErrClosed), errors.Is(err, market.ErrReadOnly):
		return &console.Error{Code: console.CodeUnavailable, Message: err.Error()}
	}
	return err
}

// problems lists the findings that failed or are waived. A check's name is the
// problem's kind.
func problems(findings []market.Finding) []console.Problem {
	var out []console.Problem
	for _, f := range findings {
		if f.Status == market.Passed {
			continue
		}
		p := console.Problem{Kind: string(f.Check), Source: f.Source, Session: f.Session, Epoch: f.Epoch, Stream: f.Stream,
			Message: f.Message, Remedy: f.Remedy, Waived: f.Status == market.Waived}
		if len(f.Ranges) > 0 {
			p.FirstSeq, p.LastSeq = f.Ranges[0].First, f.Ranges[len(f.Ranges)-1].Last
		}
		out = append(out, p)
	}
	return out
}

// Seal implements console.Backend.
func (s closeBackend) Seal(ctx context.Context, q console.SealRequest) (console.Seal, error) {
	d, err := tradeDate(q.TradeDate)
	if err != nil {
		return console.Seal{}, err
	}
	r, err := s.market.Seal(ctx, d, market.SealOptions{By: q.By, Reseal: q.Again})
	if err != nil {
		return console.Seal{}, closeError(err)
	}
	c := r.Certificate
	out := console.Seal{TradeDate: c.TradeDate, Version: c.Version, Certificate: c.Hash, Tag: c.Tag, SealedAt: c.SealedAt,
		Sources: len(c.Sources), Waivers: len(c.Waivers), Existed: r.Existing}
	for _, t := range c.Tables {
		if t.Role == market.RoleFact {
			out.Rows += t.Rows
		}
	}
	if c.Difference != nil {
		for _, m := range c.Difference.Members {
			out.Differences = append(out.Differences, console.Difference{Member: m.Member, Amount: m.Change})
		}
	}
	return out, nil
}

// Waive implements console.Backend.
func (s closeBackend) Waive(ctx context.Context, q console.WaiveRequest) (console.Waiver, error) {
	d, err := tradeDate(q.TradeDate)
	if err != nil {
		return console.Waiver{}, err
	}
	w := market.Waiver{Check: market.Check(q.Kind), Source: q.Source, Session: q.Session, Epoch: q.Epoch, Reason: q.Reason, By: q.By, Second: q.Second}
	if q.FirstSeq != 0 || q.LastSeq != 0 {
		w.Ranges = []market.Range{{First: q.FirstSeq, Last: q.LastSeq}}
	}
	done, err := s.market.Waive(ctx, d, w)
	if err != nil {
		return console.Waiver{}, closeError(err)
	}
	return waiver(done), nil
}

func waiver(w market.Waiver) console.Waiver {
	out := console.Waiver{ID: w.Key, WaivedAt: w.At, WaiveRequest: console.WaiveRequest{TradeDate: w.TradeDate, Kind: string(w.Check),
		Source: w.Source, Session: w.Session, Epoch: w.Epoch, Reason: w.Reason, By: w.By, Second: w.Second}}
	if len(w.Ranges) > 0 {
		out.FirstSeq, out.LastSeq = w.Ranges[0].First, w.Ranges[len(w.Ranges)-1].Last
	}
	return out
}

// Verify implements console.Backend.
func (s closeBackend) Verify(ctx context.Context, q console.VerifyRequest) (console.Verification, error) {
	d, err := tradeDate(q.TradeDate)
	if err != nil {
		return console.Verification{}, err
	}
	r, err := s.market.Verify(ctx, d, q.Version)
	var mismatch *market.MismatchError
	switch {
	case errors.As(err, &mismatch):
		v := console.Verification{TradeDate: mismatch.TradeDate, Version: mismatch.Version}
		for _, it := range mismatch.Items {
			v.Checks = append(v.Checks, console.Check{Name: it.Object + ": " + it.What, Want: it.Want, Have: it.Have})
		}
		if r != nil && r.Certificate != nil {
			v.Certificate, v.Rows = r.Certificate.Hash, r.Rows
		}
		return v, nil
	case err != nil:
		return console.Verification{}, closeError(err)
	}
	v := console.Verification{TradeDate: r.Certificate.TradeDate, Version: r.Certificate.Version, Certificate: r.Certificate.Hash, OK: true, Rows: r.Rows}
	for _, t := range r.Certificate.Tables {
		v.Checks = append(v.Checks, console.Check{Name: t.Table + " rows", Want: fmt.Sprint(t.Rows), Have: fmt.Sprint(t.Rows), OK: true},
			console.Check{Name: t.Table + " row hash", Want: t.RowHash, Have: t.RowHash, OK: true})
	}
	return v, nil
}

// Statements implements console.Backend.
func (s closeBackend) Statements(ctx context.Context, q console.StatementsRequest) (console.StatementRun, error) {
	d, err := tradeDate(q.TradeDate)
	if err != nil {
		return console.StatementRun{}, err
	}
	if q.Adjustments {
		return s.adjustments(ctx, d)
	}
	r, err := s.market.Statements(ctx, d, q.Version)
	if err != nil {
		return console.StatementRun{}, closeError(err)
	}
	m := r.Manifest
	out := console.StatementRun{TradeDate: m.TradeDate, Version: m.Version, Run: fmt.Sprintf("%s/v%d", m.TradeDate, m.Version), Tag: m.Tag,
		Directory: r.Dir, Existed: r.Identical, Total: m.Amount, Lines: int64(m.Lines)}
	sum := sha256.New()
	for _, st := range m.Statements {
		out.Statements = append(out.Statements, console.Statement{ID: st.ID, Member: st.Member, Lines: int64(st.Lines), Amount: st.Amount,
			File: filepath.Join(r.Dir, st.File), SHA256: st.SHA256})
		_, _ = io.WriteString(sum, st.SHA256) // a hash never fails
	}
	out.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return out, nil
}

// adjustments makes an adjustment run, or answers with the former ones where
// nothing new is known.
func (s closeBackend) adjustments(ctx context.Context, d calendar.TradeDate) (console.StatementRun, error) {
	run, err := s.market.Adjust(ctx, d, adminUser)
	if err != nil {
		return console.StatementRun{}, closeError(err)
	}
	c, _, err := s.market.Certificate(ctx, d, 0)
	if err != nil {
		return console.StatementRun{}, closeError(err)
	}
	out := console.StatementRun{TradeDate: c.TradeDate, Version: c.Version, Tag: c.Tag, Directory: filepath.Join(s.dir("statements"), c.TradeDate, fmt.Sprintf("v%d", c.Version)),
		Run: fmt.Sprintf("%s/v%d", c.TradeDate, c.Version), Total: "0"}
	if run == nil {
		runs, err := s.market.Adjustments(ctx, d, c.Version)
		if err != nil {
			return console.StatementRun{}, closeError(err)
		}
		out.Existed = true
		if len(runs) == 0 {
			return out, nil
		}
		run = &runs[len(runs)-1]
	}
	out.Run, out.Total, out.SHA256, out.Lines = fmt.Sprintf("%s/adjustments-%d", out.Run, run.Run), run.Amount, run.SHA256, int64(len(run.Lines))
	for i, l := range run.Lines {
		a := console.Adjustment{ID: fmt.Sprintf("%s/%d", out.Run, i+1), Statement: fmt.Sprintf("%s/v%d/%s", run.TradeDate, run.Version, l.Member),
			Member: l.Member, Amount: l.Amount}
		var key []string
		for _, f := range l.Key {
			if f.Name == "mpid" {
				a.MPID = f.Value
				continue
			}
			key = append(key, f.Value)
		}
		a.Charge = strings.Join(key, " ")
		if len(l.Records) > 0 {
			r := l.Records[0]
			a.Cause, a.MatchNumber, a.Reason = r.Action, r.MatchNumber, r.Reason
		}
		out.Adjustments = append(out.Adjustments, a)
	}
	return out, nil
}

// Explain implements console.Backend.
func (s closeBackend) Explain(ctx context.Context, q console.ExplainRequest) (console.Explanation, error) {
	e, err := s.market.ExplainCharge(ctx, q.Statement, int(q.Line))
	if err != nil {
		return console.Explanation{}, closeError(err)
	}
	out := console.Explanation{Statement: e.Statement, Line: int64(e.Line), Charge: e.Computation, Amount: e.Amount, Legs: int64(len(e.Legs)),
		Columns: append([]string{"record_id", "counted"}, e.LegColumns...)}
	for i, l := range e.Legs {
		if q.Limit > 0 && i == q.Limit {
			break
		}
		counted := fmt.Sprint(l.Counted)
		row := []*string{&l.RecordID, &counted}
		for k := range l.Values {
			row = append(row, &l.Values[k])
		}
		out.Rows = append(out.Rows, row)
	}
	return out, nil
}

// Status implements console.Backend.
func (s closeBackend) Status(ctx context.Context, q console.StatusRequest) (console.Status, error) {
	dates, err := s.market.Status(ctx)
	if err != nil {
		return console.Status{}, closeError(err)
	}
	resends := map[ledger.Feed]int64{}
	accounts, _ := s.ledger.Accounts()
	for _, a := range accounts {
		resends[a.Feed] = a.Duplicates
	}
	out := console.Status{TradeDates: []console.TradeDateStatus{}}
	for _, d := range dates {
		if q.TradeDate != "" && d.TradeDate != q.TradeDate {
			continue
		}
		st := dateStatus(d, resends)
		if d.State == market.StateSealed {
			if err := s.sealedSources(ctx, &st); err != nil {
				return out, closeError(err)
			}
		}
		out.TradeDates = append(out.TradeDates, st)
	}
	if len(out.TradeDates) == 0 && q.TradeDate != "" {
		d, err := tradeDate(q.TradeDate)
		if err != nil {
			return out, err
		}
		report, err := s.market.Readiness(ctx, d)
		if err != nil {
			return out, closeError(err)
		}
		state := market.StateIncomplete
		if report.Ready {
			state = market.StateReady
		}
		out.TradeDates = append(out.TradeDates, dateStatus(market.DateStatus{TradeDate: d.String(), State: state, DeadlineIs: market.DeadlineOnTrack, Report: report}, resends))
	}
	return out, nil
}

// sealedSources tells a sealed trade date's sources from its certificate.
func (s closeBackend) sealedSources(ctx context.Context, st *console.TradeDateStatus) error {
	d, err := tradeDate(st.TradeDate)
	if err != nil {
		return err
	}
	c, _, err := s.market.Certificate(ctx, d, st.Version)
	if err != nil {
		return err
	}
	for _, a := range c.Sources {
		st.Sources = append(st.Sources, source(a, c.Findings))
	}
	slices.SortStableFunc(st.Sources, func(a, b console.Source) int { return strings.Compare(a.Source, b.Source) })
	for _, w := range c.Waivers {
		st.Waivers = append(st.Waivers, waiver(w))
	}
	return nil
}

// deadlineWords are the console's words for the state of a deadline.
var deadlineWords = map[market.DeadlineState]string{market.DeadlineNone: "none", market.DeadlineOnTrack: "expected",
	market.DeadlineMet: "met", market.DeadlinePredicted: "at-risk", market.DeadlineMissed: "missed"}

func dateStatus(d market.DateStatus, resends map[ledger.Feed]int64) console.TradeDateStatus {
	out := console.TradeDateStatus{TradeDate: d.TradeDate, Version: d.Version, Certificate: d.Certificate, SealedAt: d.SealedAt, ExpectedSealAt: d.Expected,
		DeadlineAt: d.Deadline, DeadlineState: deadlineWords[d.DeadlineIs], Late: d.LateOriginals, Corrections: d.LaterCorrections}
	switch d.State {
	case market.StateSealed:
		out.State = console.StateSealed
	case market.StateReady:
		out.State = console.StateReady
	default:
		out.State = console.StateBlocked
	}
	if d.Report == nil {
		return out
	}
	out.Problems = problems(d.Report.Findings)
	for _, w := range d.Report.Waivers {
		out.Waivers = append(out.Waivers, waiver(w))
	}
	for _, a := range d.Report.Sources {
		src := source(a, d.Report.Findings)
		src.Duplicates = resends[ledger.Feed{Source: a.Source, Session: a.Session, Epoch: a.Epoch}]
		out.Sources = append(out.Sources, src)
	}
	for _, f := range d.Report.Findings {
		if f.Check == market.CheckSilent && f.Status != market.Passed {
			st := console.SourceSilent
			if f.Status == market.Waived {
				st = console.SourceWaived
			}
			out.Sources = append(out.Sources, console.Source{Source: f.Source, Session: f.Session, Stream: f.Stream, Expected: true, State: st, Announced: -1})
		}
	}
	slices.SortStableFunc(out.Sources, func(a, b console.Source) int { return strings.Compare(a.Source, b.Source) })
	for _, src := range out.Sources {
		if out.State == console.StateBlocked && (src.State == console.SourceSilent || src.State == console.SourceSpeaking) {
			out.State = console.StateOpen
		}
	}
	return out
}

// source tells a source's account, and by its findings how it stands.
func source(a market.SourceAccount, findings []market.Finding) console.Source {
	out := console.Source{Source: a.Source, Session: a.Session, Epoch: a.Epoch, Stream: a.Stream, Expected: true, State: console.SourceSpeaking,
		Announced: -1, Rows: a.Rows, Rejected: a.Rejected, Missing: a.Missing, FirstSeq: a.First, LastSeq: a.Last}
	if a.Marker != nil {
		out.State, out.Announced = console.SourceComplete, a.Marker.Count
	}
	for _, f := range findings {
		if f.Source != a.Source || f.Session != "" && f.Session != a.Session || f.Epoch != 0 && f.Epoch != a.Epoch || f.Status == market.Passed {
			continue
		}
		switch f.Check {
		case market.CheckUnexpected:
			out.Expected = false
		case market.CheckConflict:
			out.Conflicts = f.Count
		}
		switch {
		case f.Status == market.Failed && a.Marker != nil:
			out.State = console.SourceDefect
		case f.Status == market.Waived && out.State != console.SourceDefect:
			out.State = console.SourceWaived
		}
	}
	return out
}
