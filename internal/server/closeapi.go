package server

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/console"
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
		return &console.Error{Code: console.CodeRefused, Message: refused.Error(), Problems: problems(refused.Report.Findings)}
	case errors.Is(err, market.ErrNotSealed):
		return &console.Error{Code: console.CodeConflict, Message: err.Error(), Remedy: "seal it first: tapehouse seal --trade-date"}
	case errors.Is(err, market.ErrNotTradeDate), errors.Is(err, market.ErrInvalid), errors.Is(err, market.ErrNothingToWaive):
		return &console.Error{Code: console.CodeInvalid, Message: err.Error()}
	case errors.Is(err, market.ErrClosed), errors.Is(err, market.ErrReadOnly):
		return &console.Error{Code: console.CodeUnavailable, Message: err.Error()}
	}
	return err
}

// problemKind is the console's word for a check.
func problemKind(c market.Check) string { return string(c) }

// problems lists the findings that failed or are waived.
func problems(findings []market.Finding) []console.Problem {
	var out []console.Problem
	for _, f := range findings {
		if f.Status == market.Passed {
			continue
		}
		p := console.Problem{Kind: problemKind(f.Check), Source: f.Source, Session: f.Session, Epoch: f.Epoch, Stream: f.Stream,
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
	return console.StatementRun{}, errors.New("statements: " + strings.TrimSpace(q.TradeDate))
}

// Explain implements console.Backend.
func (s closeBackend) Explain(ctx context.Context, q console.ExplainRequest) (console.Explanation, error) {
	return console.Explanation{}, errors.New("explain")
}

// Status implements console.Backend.
func (s closeBackend) Status(ctx context.Context, q console.StatusRequest) (console.Status, error) {
	return console.Status{}, errors.New("status")
}
