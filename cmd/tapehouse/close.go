package main

import (
	"encoding/json"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapehouse/tapehouse/internal/console"
)

// texter is an answer that can show itself to people.
type texter interface{ WriteText(w io.Writer) error }

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func show(c *cobra.Command, asJSON bool, v texter) error {
	if asJSON {
		return printJSON(c.OutOrStdout(), v)
	}
	return v.WriteText(c.OutOrStdout())
}

// operator is who seals or waives, unless the command line says.
func operator() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	if name := os.Getenv("USER"); name != "" {
		return name
	}
	return "unknown"
}

// dateFlags take a trade date, as an argument or as --trade-date.
type dateFlags struct {
	dataFlags
	tradeDate string
	asJSON    bool
}

func (f *dateFlags) add(c *cobra.Command) {
	f.dataFlags.add(c)
	c.Args = atMostOne
	c.Flags().StringVar(&f.tradeDate, "trade-date", "", "the trade date, instead of the argument")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
}

// date returns the trade date given; none is an error if it is required.
func (f *dateFlags) date(args []string, required bool) (string, error) {
	date := f.tradeDate
	if len(args) == 1 {
		if date != "" && date != args[0] {
			return "", usagef("two trade dates: %s and %s", args[0], date)
		}
		date = args[0]
	}
	if date == "" {
		if required {
			return "", usagef("which trade date?")
		}
		return "", nil
	}
	if _, err := time.Parse(time.DateOnly, date); err != nil {
		return "", usagef("trade date %q: want the form 2026-11-20", date)
	}
	return date, nil
}

func newStatus() *cobra.Command {
	var f dateFlags
	c := &cobra.Command{
		Use:     "status [TRADE_DATE]",
		GroupID: groupClose,
		Short:   "Show each expected source, what is missing, and the deadline",
		Long: `Shows for one trade date, or for all that have records, what the roster expects,
what came, what is missing with its remedy, when the seal is expected and when
the bills are due.

Without a running server the command opens the data directory itself.

` + exitCodes,
		Example: `  tapehouse status
  tapehouse status 2026-11-20 --json`,
		RunE: func(c *cobra.Command, args []string) error {
			var q console.StatusRequest
			var err error
			if q.TradeDate, err = f.date(args, false); err != nil {
				return err
			}
			return withServer(c.Context(), f.dataFlags, true, c.ErrOrStderr(), func(s *console.Client) error {
				v, err := s.Status(c.Context(), q)
				if err != nil {
					return err
				}
				return show(c, f.asJSON, v)
			})
		},
	}
	f.add(c)
	return c
}

func newSeal() *cobra.Command {
	var f dateFlags
	var q console.SealRequest
	c := &cobra.Command{
		Use:     "seal TRADE_DATE",
		GroupID: groupClose,
		Short:   "Prove that a trade date is complete, and seal it",
		Long: `Proves that every source of the roster sent everything it says it sent, flushes,
tags the tables, and stores a certificate that pins all that a bill depends on.
If something is missing the seal is refused (exit code 3), and every problem is
named with its remedy.

` + exitCodes,
		Example: `  tapehouse seal 2026-11-20
  tapehouse seal 2026-11-20 --again --by "A. Operator"`,
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			if q.TradeDate, err = f.date(args, true); err != nil {
				return err
			}
			return withServer(c.Context(), f.dataFlags, false, c.ErrOrStderr(), func(s *console.Client) error {
				v, err := s.Seal(c.Context(), q)
				if err != nil {
					return err
				}
				return show(c, f.asJSON, v)
			})
		},
	}
	f.add(c)
	c.Flags().BoolVar(&q.Again, "again", false, "make a new version of a seal that exists; the former is kept")
	c.Flags().StringVar(&q.By, "by", operator(), "who seals")
	c.Flags().Lookup("by").DefValue = "you"
	return c
}

func newWaive() *cobra.Command {
	var f dateFlags
	var seqs string
	var q console.WaiveRequest
	c := &cobra.Command{
		Use:     "waive TRADE_DATE",
		GroupID: groupClose,
		Short:   "Accept a named problem of a trade date, with a reason",
		Long: `Accepts what a seal was refused for: the problem's kind and source, and a range
of sequence numbers where it has one. The waiver, who gave it and why become part
of the certificate. Where the configuration asks for it, a second person has to
agree.

` + exitCodes,
		Example: `  tapehouse waive 2026-11-20 --source ME3-ORD --kind silent-source \
      --reason "venue closed"
  tapehouse waive 2026-11-20 --source ME1-ORD --kind gap --epoch 1 --seq 1017-1019 \
      --reason "lost at the source, ticket 4711" --second "B. Supervisor"`,
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			if q.TradeDate, err = f.date(args, true); err != nil {
				return err
			}
			if q.Source == "" || q.Kind == "" || strings.TrimSpace(q.Reason) == "" {
				return usagef("--source, --kind and --reason are required")
			}
			if seqs != "" {
				first, last, ok := strings.Cut(seqs, "-")
				if !ok {
					last = first
				}
				var err1, err2 error
				q.FirstSeq, err1 = strconv.ParseInt(first, 10, 64)
				q.LastSeq, err2 = strconv.ParseInt(last, 10, 64)
				if err1 != nil || err2 != nil || q.FirstSeq < 1 || q.LastSeq < q.FirstSeq {
					return usagef("--seq %q: want N or FIRST-LAST", seqs)
				}
			}
			return withServer(c.Context(), f.dataFlags, false, c.ErrOrStderr(), func(s *console.Client) error {
				v, err := s.Waive(c.Context(), q)
				if err != nil {
					return err
				}
				return show(c, f.asJSON, v)
			})
		},
	}
	f.add(c)
	c.Flags().StringVar(&q.Source, "source", "", "the source")
	c.Flags().StringVar(&q.Kind, "kind", "", "kind of the problem, as the refusal names it")
	c.Flags().StringVar(&q.Session, "session", "", "one session only")
	c.Flags().Int64Var(&q.Epoch, "epoch", 0, "one epoch only")
	c.Flags().StringVar(&seqs, "seq", "", "sequence numbers: N or FIRST-LAST")
	c.Flags().StringVar(&q.Reason, "reason", "", "why")
	c.Flags().StringVar(&q.By, "by", operator(), "who waives")
	c.Flags().Lookup("by").DefValue = "you"
	c.Flags().StringVar(&q.Second, "second", "", "the second person who agrees")
	return c
}

func newVerify() *cobra.Command {
	var f dateFlags
	var q console.VerifyRequest
	c := &cobra.Command{
		Use:     "verify TRADE_DATE",
		GroupID: groupClose,
		Short:   "Recompute a certificate from the data",
		Long: `Reads the sealed data again and compares it with the certificate: rows, row
hashes, control totals, sources. Exit code 4 means that they differ.

Without a running server the command opens the data directory itself.

` + exitCodes,
		Example: `  tapehouse verify 2026-11-20
  tapehouse verify 2026-11-20 --version-number 1 --json`,
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			if q.TradeDate, err = f.date(args, true); err != nil {
				return err
			}
			return withServer(c.Context(), f.dataFlags, true, c.ErrOrStderr(), func(s *console.Client) error {
				v, err := s.Verify(c.Context(), q)
				if err != nil {
					return err
				}
				if err := show(c, f.asJSON, v); err != nil {
					return err
				}
				if !v.OK {
					return &codeError{code: exitMismatch}
				}
				return nil
			})
		},
	}
	f.add(c)
	c.Flags().IntVar(&q.Version, "version-number", 0, "version of the seal (default: the latest)")
	return c
}

func newStatements() *cobra.Command {
	var f dateFlags
	var q console.StatementsRequest
	c := &cobra.Command{
		Use:     "statements TRADE_DATE",
		GroupID: groupClose,
		Short:   "Write the members' bills of a sealed trade date",
		Long: `Computes every member's bill from the sealed data and the fee schedule as they
were at the seal, and writes them below DIR/statements. A second run gives the
same bytes. With --adjustments: the lines that breaks, corrections and late
records since the seal make due; a sealed bill never changes.

Without a running server the command opens the data directory itself.

` + exitCodes,
		Example: `  tapehouse statements 2026-11-20
  tapehouse statements 2026-11-20 --adjustments --json`,
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			if q.TradeDate, err = f.date(args, true); err != nil {
				return err
			}
			return withServer(c.Context(), f.dataFlags, true, c.ErrOrStderr(), func(s *console.Client) error {
				v, err := s.Statements(c.Context(), q)
				if err != nil {
					return err
				}
				return show(c, f.asJSON, v)
			})
		},
	}
	f.add(c)
	c.Flags().BoolVar(&q.Adjustments, "adjustments", false, "what came due since the seal")
	c.Flags().IntVar(&q.Version, "version-number", 0, "version of the seal (default: the latest)")
	return c
}

func newExplain() *cobra.Command {
	var f dataFlags
	var asJSON bool
	var q console.ExplainRequest
	c := &cobra.Command{
		Use:     "explain-charge STATEMENT LINE",
		GroupID: groupClose,
		Short:   "List the executions and record ids behind a line of a bill",
		Long: `Lists the legs that one line of a statement adds up, each with the identity of
its record in the log. Lines count from 1.

Without a running server the command opens the data directory itself.

` + exitCodes,
		Example: `  tapehouse statements 2026-11-20
  tapehouse explain-charge 2026-11-20/v1/M001 3`,
		Args: argsExactly(2, "a statement and a line"),
		RunE: func(c *cobra.Command, args []string) error {
			q.Statement = args[0]
			line, err := strconv.ParseInt(args[1], 10, 64)
			if err != nil || line < 1 {
				return usagef("line %q: want a number from 1", args[1])
			}
			q.Line = line
			return withServer(c.Context(), f, true, c.ErrOrStderr(), func(s *console.Client) error {
				v, err := s.Explain(c.Context(), q)
				if err != nil {
					return err
				}
				return show(c, asJSON, v)
			})
		},
	}
	f.add(c)
	c.Flags().IntVar(&q.Limit, "limit", 0, "legs to list (default 1000)")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
