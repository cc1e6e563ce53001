package market

import (
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/ledger"
)

// judge makes the findings of all feeds.
func (e *evaluation) judge() {
	for _, s := range e.feeds {
		if s.on != nil {
			s.on.heard = true
		}
		e.judgeFeed(s)
		e.report.Sources = append(e.report.Sources, s.SourceAccount)
	}
	for _, x := range e.roster {
		f := Finding{Check: CheckSilent, Stream: x.stream, Source: x.source, Session: x.pattern, Status: Passed,
			Message: fmt.Sprintf("%s was heard on %s", x.source, e.d)}
		if !x.heard {
			f.Status = Failed
			f.Message = fmt.Sprintf("%s (sessions %s, stream %s) is expected on %s and sent nothing: no record, no marker", x.source, x.pattern, x.stream, e.d)
			f.Remedy = fmt.Sprintf("start %s, or ask it to send trade date %s with its end-of-trade-date marker; if it did not trade, a marker with record_count 0 is enough; %s", x.source, e.d, e.then())
		}
		e.report.Findings = append(e.report.Findings, f)
	}
}

// find begins a finding about a feed.
func (s *feedState) find(c Check) Finding {
	return Finding{Check: c, Status: Passed, Stream: s.Stream, Source: s.Source, Session: s.Session, Epoch: s.Epoch}
}

func (s *feedState) label() string {
	return fmt.Sprintf("%s session %s epoch %d", s.Source, s.Session, s.Epoch)
}

// judgeFeed makes the findings of one feed, and completes its account.
func (e *evaluation) judgeFeed(s *feedState) {
	e.complete(s)
	add := func(f Finding) { e.report.Findings = append(e.report.Findings, f) }

	if s.on == nil {
		f := s.find(CheckUnexpected)
		f.Status, f.Count = Failed, s.all
		f.Message = fmt.Sprintf("%s has %d rows of %s in %s, and no roster row names it", s.label(), s.all, e.d, orElse(s.Stream, "no stream of the close"))
		f.Remedy = fmt.Sprintf("add the source and its session pattern to the roster from %s on, or waive %s; %s", e.d, CheckUnexpected, e.then())
		add(f)
	}
	add(e.judgeMarker(s))
	if c := e.conflicts[s.feed()]; len(c) > 0 {
		f := s.find(CheckMarkers)
		f.Status, f.Count = Failed, int64(len(c))
		var say []string
		for _, k := range c {
			say = append(say, fmt.Sprintf("%d to %d, %d records, quantity %s, notional %s, sent %s", k.First, k.Last, k.Count, k.QuantityTotal, k.NotionalTotal, k.SentAt.Format("15:04:05.000000Z")))
			f.Records = append(f.Records, RecordSample{RecordID: k.RecordID})
		}
		f.Message = fmt.Sprintf("%s sent markers that differ: %s", s.label(), strings.Join(say, "; "))
		f.Remedy = fmt.Sprintf("ask %s which one holds; if the last, waive %s", s.Source, CheckMarkers)
		add(f)
	}
	if s.fact == nil {
		return
	}
	a := e.accounts[s.feed()]
	if a == nil {
		a = &ledger.Account{}
	}
	lo, hi := s.span(a)
	add(e.judgeRejected(s, a, lo, hi))
	add(e.judgeConflicts(s, a, lo, hi))
	add(e.judgeGaps(s, a, lo, hi))
	if s.Marker != nil {
		add(e.judgeCount(s))
		if s.Missing == 0 && s.Rejected == 0 {
			add(e.judgeTotals(s))
		}
	}
}

// complete fills in what the account says of itself.
func (e *evaluation) complete(s *feedState) {
	s.Quantity, s.Notional = "0", "0"
	if s.quantity.Unscaled != nil {
		s.Quantity, s.Notional = s.quantity.String(), s.notional.String()
	}
	if s.numbers == nil {
		s.numbers = new(big.Int)
	}
	s.Marker = e.markers[s.feed()]
}

// span is the range [lo, hi) of sequence numbers that the feed has on the trade
// date: by its marker, or else by what is here.
func (s *feedState) span(a *ledger.Account) (lo, hi int64) {
	if s.Marker != nil {
		return s.Marker.First, s.Marker.Last + 1
	}
	lo, hi = s.least, s.greatest+1
	if s.Rows == 0 {
		lo, hi = 0, 0
	}
	if n := len(a.Rejected); n > 0 && s.Rows == 0 {
		lo, hi = a.Rejected[0].Lo, a.Rejected[n-1].Hi
	} else if n > 0 {
		lo, hi = min(lo, a.Rejected[0].Lo), max(hi, a.Rejected[n-1].Hi)
	}
	return lo, hi
}

func (e *evaluation) judgeMarker(s *feedState) Finding {
	f := s.find(CheckMarker)
	if s.Marker != nil {
		f.Message = fmt.Sprintf("%s says: %d to %d, %d records", s.label(), s.Marker.First, s.Marker.Last, s.Marker.Count)
		return f
	}
	f.Status = Failed
	f.Message = fmt.Sprintf("%s sent %d rows of %s (up to number %d) and no end-of-trade-date marker", s.label(), s.all, e.d, s.greatest)
	f.Remedy = fmt.Sprintf("wait until %s has sent everything, or ask it to send its marker for %s; %s", s.Source, e.d, e.then())
	return f
}

func (e *evaluation) judgeRejected(s *feedState, a *ledger.Account, lo, hi int64) Finding {
	f := s.find(CheckRejected)
	f.Message = fmt.Sprintf("%s has no unresolved reject", s.label())
	for _, i := range a.Rejected.Within(lo, hi) {
		s.Rejected += i.Len()
		f.Ranges = append(f.Ranges, Range{i.Lo, i.Hi - 1})
		s.absent = append(s.absent, Range{i.Lo, i.Hi - 1})
	}
	if s.Rejected == 0 {
		return f
	}
	f.Status, f.Count = Failed, s.Rejected
	code, message := "", ""
	for _, r := range a.Samples {
		if r.HasSequence && r.Sequence >= lo && r.Sequence < hi && len(f.Records) < samplesMax {
			f.Records = append(f.Records, RecordSample{RecordID: e.sampleID(s.fact, r.Offset), Sequence: r.Sequence, Code: r.Code, Message: r.Message})
			if code == "" {
				code, message = r.Code, r.Message
			}
		}
	}
	numbers := join(f.Ranges)
	f.Message = fmt.Sprintf("%s: %d records were rejected and not sent again: %s", s.label(), s.Rejected, numbers)
	if code != "" {
		f.Message += fmt.Sprintf(" (%s: %s; record %s)", code, message, f.Records[0].RecordID)
	}
	f.Message += e.shortfall(s)
	f.Remedy = fmt.Sprintf("ask %s to correct and resend %s under the same numbers; the rejected text is in the stream's error output; %s", s.Source, numbers, e.then())
	return f
}

func (e *evaluation) judgeConflicts(s *feedState, a *ledger.Account, lo, hi int64) Finding {
	f := s.find(CheckConflict)
	f.Message = fmt.Sprintf("%s has no number with two contents", s.label())
	numbers := ledger.Intervals{}
	for _, c := range a.Conflicts {
		if c.Sequence >= lo && c.Sequence < hi {
			f.Count++
			numbers.Add(c.Sequence, c.Sequence+1)
			if len(f.Records) < samplesMax {
				f.Records = append(f.Records, RecordSample{RecordID: e.sampleID(s.fact, c.Offset), Sequence: c.Sequence, Code: "SequenceConflict", Message: c.Reason})
			}
		}
	}
	// Of more than it keeps the ledger knows the number only: they count here.
	f.Count += max(a.ConflictCount-int64(len(a.Conflicts)), 0)
	if f.Count == 0 {
		return f
	}
	f.Status = Failed
	for _, i := range numbers {
		f.Ranges = append(f.Ranges, Range{i.Lo, i.Hi - 1})
	}
	f.Message = fmt.Sprintf("%s: %d records bear a number whose first record said something else: %s; the first is in the table, the others in the stream's error output", s.label(), f.Count, join(f.Ranges))
	f.Remedy = fmt.Sprintf("ask %s which content of %s is right: if the first, waive %s with these ranges; if another, it must be corrected under a new number", s.Source, join(f.Ranges), CheckConflict)
	return f
}

func (e *evaluation) judgeGaps(s *feedState, a *ledger.Account, lo, hi int64) Finding {
	f := s.find(CheckGap)
	holes := a.Seen.Gaps(lo, hi)
	for _, i := range a.Rejected.Within(lo, hi) {
		holes.Remove(i.Lo, i.Hi)
	}
	for _, i := range holes {
		s.Missing += i.Len()
		f.Ranges = append(f.Ranges, Range{i.Lo, i.Hi - 1})
		s.absent = append(s.absent, Range{i.Lo, i.Hi - 1})
	}
	if s.Missing == 0 {
		f.Message = fmt.Sprintf("%s has no gap", s.label())
		if hi > lo {
			f.Message += fmt.Sprintf(" from %d to %d", lo, hi-1)
		}
		return f
	}
	f.Status, f.Count = Failed, s.Missing
	numbers := join(f.Ranges)
	f.Message = fmt.Sprintf("%s: %d records of %d to %d were never received: %s", s.label(), s.Missing, lo, hi-1, numbers)
	if n := a.RejectedUnnumbered; n > 0 {
		f.Message += fmt.Sprintf("; %d records of this source were rejected without a readable number and may be among them", n)
	}
	if s.Rejected == 0 {
		f.Message += e.shortfall(s)
	}
	f.Remedy = fmt.Sprintf("ask %s to resend %s; %s", s.Source, numbers, e.then())
	return f
}

// shortfall says by how much the sums of what is here fall short of the
// marker's: what the missing records are worth.
func (e *evaluation) shortfall(s *feedState) string {
	if s.Marker == nil {
		return ""
	}
	q, n, ok := s.difference()
	if !ok || q.Sign() == 0 && n.Sign() == 0 {
		return ""
	}
	return fmt.Sprintf("; by its marker quantity %s and notional %s are missing", q.Neg(q).FloatString(0), n.Neg(n).FloatString(4))
}

// difference is what is here less what the marker says.
func (s *feedState) difference() (quantity, notional *big.Rat, ok bool) {
	want, ok1 := new(big.Rat).SetString(s.Marker.QuantityTotal)
	wantN, ok2 := new(big.Rat).SetString(s.Marker.NotionalTotal)
	have, ok3 := new(big.Rat).SetString(s.Quantity)
	haveN, ok4 := new(big.Rat).SetString(s.Notional)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return nil, nil, false
	}
	return have.Sub(have, want), haveN.Sub(haveN, wantN), true
}

func (e *evaluation) judgeCount(s *feedState) Finding {
	f := s.find(CheckCount)
	k := s.Marker
	var wrong []string
	if k.Last-k.First+1 != k.Count {
		wrong = append(wrong, fmt.Sprintf("its marker counts %d records from %d to %d, which are %d numbers", k.Count, k.First, k.Last, k.Last-k.First+1))
	}
	if got := s.Rows + s.Rejected + s.Missing; got != k.Count {
		wrong = append(wrong, fmt.Sprintf("its marker counts %d, here are %d: %d rows, %d rejected, %d missing", k.Count, got, s.Rows, s.Rejected, s.Missing))
	}
	// The numbers of the rows are exactly those received: a row that stands
	// twice cannot make up for one that is not there.
	if got := s.Rows + s.Rejected + s.Missing; got == k.Count && len(wrong) == 0 {
		want := sumOf(k.First, k.Last)
		for _, r := range s.absent {
			want.Sub(want, sumOf(r.First, r.Last))
		}
		if want.Cmp(s.numbers) != 0 {
			wrong = append(wrong, fmt.Sprintf("its %d rows do not bear the numbers received: one stands twice and another is not there", s.Rows))
		}
	}
	if s.all > s.Rows && s.fact.derived {
		wrong = append(wrong, fmt.Sprintf("%d rows of %s have numbers outside %d to %d", s.all-s.Rows, e.d, k.First, k.Last))
	}
	if len(wrong) == 0 {
		f.Message = fmt.Sprintf("%s: %d rows, %d rejected, %d missing are its %d records", s.label(), s.Rows, s.Rejected, s.Missing, k.Count)
		return f
	}
	f.Status = Failed
	f.Count = k.Count - s.Rows - s.Rejected - s.Missing
	f.Message = s.label() + ": " + strings.Join(wrong, "; ")
	f.Remedy = fmt.Sprintf("if records are still arriving, wait; else ask %s for its own account of %s: a record there may bear another trade date, or the marker is wrong; %s", s.Source, e.d, e.then())
	return f
}

func (e *evaluation) judgeTotals(s *feedState) Finding {
	f := s.find(CheckTotals)
	q, n, ok := s.difference()
	f.Message = fmt.Sprintf("%s: quantity %s and notional %s are its own", s.label(), s.Quantity, s.Notional)
	if ok && q.Sign() == 0 && n.Sign() == 0 {
		return f
	}
	f.Status = Failed
	f.Message = fmt.Sprintf("%s: its marker says quantity %s and notional %s, the rows sum to %s and %s", s.label(), s.Marker.QuantityTotal, s.Marker.NotionalTotal, s.Quantity, s.Notional)
	f.Remedy = fmt.Sprintf("no record is missing: ask %s to compare its records of %s with the table, or to send a right marker; %s", s.Source, e.d, e.then())
	return f
}

// sumOf is first + … + last.
func sumOf(first, last int64) *big.Int {
	if last < first {
		return new(big.Int)
	}
	n := new(big.Int).Add(big.NewInt(first), big.NewInt(last))
	n.Mul(n, new(big.Int).Sub(big.NewInt(last), big.NewInt(first-1)))
	return n.Rsh(n, 1)
}

// join lists ranges, the first few of many.
func join(ranges []Range) string {
	const most = 10
	var out []string
	for i, r := range ranges {
		if i == most {
			out = append(out, fmt.Sprintf("and %d more ranges", len(ranges)-most))
			break
		}
		out = append(out, r.String())
	}
	return strings.Join(out, ", ")
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// decimal is a sum as a decimal; 0 for null.
func decimal(v any) engine.Decimal {
	switch v := v.(type) {
	case engine.Decimal:
		return v
	case int64:
		return engine.Decimal{Unscaled: big.NewInt(v)}
	case int32:
		return engine.Decimal{Unscaled: big.NewInt(int64(v))}
	}
	return engine.Decimal{Unscaled: new(big.Int)}
}

// waive marks the failed findings that waivers cover, and keeps those waivers.
func (r *Report) waive(waivers []Waiver) {
	used := map[string]bool{}
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.Status != Failed {
			continue
		}
		covered := ledger.Intervals{}
		for _, w := range waivers {
			if !w.about(f) {
				continue
			}
			if !f.Check.byRange() || len(f.Ranges) == 0 {
				f.Status, f.Waiver = Waived, w.Key
				used[w.Key] = true
				break
			}
			for _, x := range w.Ranges {
				covered.Add(x.First, x.Last+1)
			}
			if !slices.ContainsFunc(f.Ranges, func(x Range) bool { return !covered.Contains(x.First, x.Last+1) }) {
				f.Status, f.Waiver = Waived, w.Key
			}
		}
	}
	for _, w := range waivers {
		if slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Status == Waived && w.about(&f) }) {
			used[w.Key] = true
		}
		if used[w.Key] {
			r.Waivers = append(r.Waivers, w)
		}
	}
}

// about reports whether the waiver is about the finding, ranges apart.
func (w *Waiver) about(f *Finding) bool {
	return w.Check == f.Check && w.Source == f.Source && (w.Session == "" || w.Session == f.Session) && (w.Epoch == 0 || w.Epoch == f.Epoch)
}

// byRange reports whether a waiver of the check names sequence numbers.
func (c Check) byRange() bool { return c == CheckGap || c == CheckRejected || c == CheckConflict }

// finish bounds the lists and draws the conclusion.
func (r *Report) finish() {
	r.Ready = true
	for i := range r.Findings {
		f := &r.Findings[i]
		if len(f.Ranges) > rangesMax {
			f.Ranges = f.Ranges[:rangesMax]
		}
		if f.Status == Failed {
			r.Ready = false
		}
	}
}
