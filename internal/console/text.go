package console

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/terminal"
)

// instant is how text shows an instant: to the second, in UTC.
func instant(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// WriteText writes the status for people.
func (s Status) WriteText(w io.Writer) error {
	if len(s.TradeDates) == 0 {
		_, err := fmt.Fprintln(w, "No trade date yet: nothing was put.")
		return err
	}
	for i, d := range s.TradeDates {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := d.WriteText(w); err != nil {
			return err
		}
	}
	return nil
}

// WriteText writes one trade date for people.
func (d TradeDateStatus) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "Trade date %s: %s\n", d.TradeDate, d.State)
	if d.SealedAt != nil {
		fmt.Fprintf(w, "  sealed       %s, version %d\n  certificate  %s\n", instant(*d.SealedAt), d.Version, d.Certificate)
	}
	if d.ExpectedSealAt != nil {
		fmt.Fprintf(w, "  seal expected %s\n", instant(*d.ExpectedSealAt))
	}
	if !d.DeadlineAt.IsZero() {
		fmt.Fprintf(w, "  deadline     %s (%s)\n", instant(d.DeadlineAt), d.DeadlineState)
	}
	if d.Late > 0 {
		fmt.Fprintf(w, "  late         %s original records came after the seal\n", terminal.Count(d.Late))
	}
	if d.Corrections > 0 {
		fmt.Fprintf(w, "  corrections  %s came after the seal: see tapehouse statements --adjustments\n", terminal.Count(d.Corrections))
	}
	if len(d.Sources) > 0 {
		fmt.Fprintln(w)
		if err := d.writeSources(w); err != nil {
			return err
		}
	}
	if len(d.Problems) > 0 {
		fmt.Fprintln(w)
	}
	return WriteProblems(w, d.Problems)
}

// writeSources writes a line a source; * marks one that the roster does not name.
func (d TradeDateStatus) writeSources(w io.Writer) error {
	t := terminal.Table{Indent: "  ", Columns: []terminal.Column{terminal.Left("source"), terminal.Right("epoch"), terminal.Left("state"),
		terminal.Right("announced"), terminal.Right("rows"), terminal.Right("missing"), terminal.Right("rejected")}}
	for _, s := range d.Sources {
		announced, epoch := "-", "-"
		if s.Announced >= 0 {
			announced = terminal.Count(s.Announced)
		}
		if s.Epoch != 0 {
			epoch = fmt.Sprint(s.Epoch)
		}
		name := s.Source
		if !s.Expected {
			name += " *"
		}
		t.Add(name, epoch, s.State, announced, terminal.Count(s.Rows), terminal.Count(s.Missing), terminal.Count(s.Rejected))
	}
	return t.Write(w)
}

// WriteProblems lists problems with their remedies.
func WriteProblems(w io.Writer, problems []Problem) error {
	for _, p := range gathered(problems) {
		mark := "✗"
		if p.Waived {
			mark = "~"
		}
		if _, err := fmt.Fprintf(w, "  %s %s\n", mark, wrap(p.Message, 4)); err != nil {
			return err
		}
		if p.Remedy != "" && !p.Waived {
			if _, err := fmt.Fprintf(w, "    → %s\n", wrap(p.Remedy, 6)); err != nil {
				return err
			}
		}
	}
	return nil
}

// gathered tells several silent sources as one problem: before the open, and on
// a trade date on which nothing was put, all of them are.
func gathered(problems []Problem) []Problem {
	var out []Problem
	var silent []string
	at := 0
	for _, p := range problems {
		if p.Kind != ProblemSilent || p.Waived {
			out = append(out, p)
			continue
		}
		if len(silent) == 0 {
			at = len(out)
			out = append(out, p)
		}
		silent = append(silent, p.Source)
	}
	if len(silent) > 1 {
		slices.Sort(silent)
		out[at].Message = fmt.Sprintf("%d expected sources sent nothing, no record and no marker: %s", len(silent), strings.Join(silent, ", "))
		out[at].Remedy = "start them, or ask them to send the trade date with its end-of-trade-date markers; for one that did not trade, a marker with record_count 0 is enough"
	}
	return out
}

// wrap breaks a text at blanks, so that it fits; lines after the first are
// indented. A word that is longer than a line stays whole: it may be a command.
func wrap(text string, indent int) string {
	var b strings.Builder
	at := indent
	for i, word := range strings.Fields(text) {
		n := len([]rune(word))
		switch {
		case i == 0:
		case at+1+n > terminal.Width:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			at = indent
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += n
	}
	return b.String()
}

// WriteText writes the seal for people.
func (s Seal) WriteText(w io.Writer) error {
	verb := "sealed"
	if s.Existed {
		verb = "was sealed before"
	}
	fmt.Fprintf(w, "Trade date %s %s: version %d\n", s.TradeDate, verb, s.Version)
	fmt.Fprintf(w, "  certificate  %s\n  tag          %s\n  proven       %s rows of %d feeds\n", s.Certificate, s.Tag, terminal.Count(s.Rows), s.Sources)
	if s.Waivers > 0 {
		fmt.Fprintf(w, "  waivers      %d\n", s.Waivers)
	}
	for _, d := range s.Differences {
		fmt.Fprintf(w, "  difference   %s: %s\n", d.Member, terminal.Amount(d.Amount))
	}
	_, err := fmt.Fprintf(w, "  sealed at    %s\n", instant(s.SealedAt))
	return err
}

// WriteText writes the verification for people.
func (v Verification) WriteText(w io.Writer) error {
	verdict := "verified: the data is what the certificate says"
	if !v.OK {
		verdict = "NOT verified: the data differs from the certificate"
	}
	fmt.Fprintf(w, "Trade date %s version %d %s\n  certificate  %s\n  rows         %s\n", v.TradeDate, v.Version, verdict, v.Certificate, terminal.Count(v.Rows))
	for _, c := range v.Checks {
		mark := "✓"
		if !c.OK {
			mark = "✗"
		}
		fmt.Fprintf(w, "  %s %s", mark, c.Name)
		if !c.OK {
			fmt.Fprintf(w, ": certified %s, found %s", c.Want, c.Have)
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
	}
	return nil
}

// WriteText writes the bills' list for people.
func (r StatementRun) WriteText(w io.Writer) error {
	if len(r.Statements) > 0 || len(r.Adjustments) == 0 {
		fmt.Fprintf(w, "Statements of %s, version %d (%s)\n", r.TradeDate, r.Version, r.Tag)
		t := terminal.Table{Indent: "  ", Columns: []terminal.Column{terminal.Left("statement"), terminal.Left("member"), terminal.Right("lines"),
			terminal.Right("amount"), terminal.Left("sha256")}}
		for _, s := range r.Statements {
			name := s.MemberName
			if name == "" {
				name = s.Member
			}
			t.Add(s.ID, short(name, 24), terminal.Count(s.Lines), terminal.Amount(s.Amount), short(s.SHA256, 12))
		}
		if err := t.Write(w); err != nil {
			return err
		}
	}
	if len(r.Adjustments) > 0 {
		fmt.Fprintf(w, "Adjustments to the statements of %s, run %s\n", r.TradeDate, r.Run)
		t := terminal.Table{Indent: "  ", Columns: []terminal.Column{terminal.Left("statement"), terminal.Left("mpid"), terminal.Left("line"), terminal.Left("cause"),
			terminal.Right("match"), terminal.Right("amount")}}
		for _, a := range r.Adjustments {
			t.Add(a.Statement, a.MPID, a.Charge, a.Cause, fmt.Sprint(a.MatchNumber), terminal.Amount(a.Amount))
		}
		if err := t.Write(w); err != nil {
			return err
		}
	}
	if len(r.Statements) > 0 {
		fmt.Fprintf(w, "  %s, ", terminal.Plural(int64(len(r.Statements)), "statement"))
	} else {
		fmt.Fprint(w, "  ")
	}
	if len(r.Adjustments) > 0 {
		fmt.Fprintf(w, "%s, ", terminal.Plural(int64(len(r.Adjustments)), "adjustment line"))
	} else {
		fmt.Fprintf(w, "%s, ", terminal.Plural(r.Lines, "line"))
	}
	_, err := fmt.Fprintf(w, "total %s\n  in %s\n", terminal.Amount(r.Total), r.Directory)
	return err
}

func short(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// WriteText writes the legs for people.
func (e Explanation) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "Statement %s, line %d: %s\n  amount %s, %s legs\n\n", e.Statement, e.Line, e.Charge, terminal.Amount(e.Amount), terminal.Count(e.Legs))
	t := terminal.Table{}
	for _, c := range e.Columns {
		t.Columns = append(t.Columns, terminal.Left(c))
	}
	for _, r := range e.Rows {
		cells := make([]string, len(r))
		for i, c := range r {
			if c != nil {
				cells[i] = *c
			}
		}
		t.Rows = append(t.Rows, cells)
	}
	if err := t.Write(w); err != nil {
		return err
	}
	if n := e.Legs - int64(len(e.Rows)); n > 0 {
		_, err := fmt.Fprintf(w, "… and %s more: use --limit\n", terminal.Count(n))
		return err
	}
	return nil
}

// WriteText writes the waiver for people.
func (v Waiver) WriteText(w io.Writer) error {
	what := v.Kind + " of " + v.Source
	if v.FirstSeq != 0 {
		what += fmt.Sprintf(", sequence %d to %d", v.FirstSeq, v.LastSeq)
	}
	by := v.By
	if v.Second != "" {
		by += " and " + v.Second
	}
	_, err := fmt.Fprintf(w, "Waived for %s: %s\n  by      %s\n  reason  %s\n  waiver  %s\n", v.TradeDate, what, by, v.Reason, v.ID)
	return err
}
