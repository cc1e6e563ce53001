// Command tapehouse is the product: a server for streaming exchange records,
// and the commands that a person or a script uses beside it. This package holds
// flags, their checks and the choice of an exit code; what the commands do is
// in the packages below it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	_ "time/tzdata" // trade dates need New York's clock wherever the program runs

	"github.com/spf13/cobra"

	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/terminal"
)

// version is set by the linker.
var version = "dev"

// The exit codes, as every --help says.
const (
	exitOK       = 0
	exitFailure  = 1
	exitUsage    = 2
	exitRefused  = 3
	exitMismatch = 4
)

const exitCodes = `Exit codes:
  0  done
  1  failed; the message says why and what to do
  2  wrong usage
  3  refused: the trade date is not complete; every problem is named
  4  mismatch: the data is not what the certificate, or the manifest, says`

// codeError carries the exit code of an error. A nil err prints nothing: the
// command has said what there is to say.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *codeError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &codeError{exitUsage, fmt.Errorf(format, args...)}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks, the second ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the program without its process.
func run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	started := false
	root := newRoot(&started)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errs)
	cmd, err := root.ExecuteContextC(ctx)
	return report(err, started, cmd, errs)
}

// report prints an error and chooses the exit code.
func report(err error, started bool, cmd *cobra.Command, errs io.Writer) int {
	if err == nil {
		return exitOK
	}
	code := exitFailure
	var c *codeError
	var refused *console.Error
	switch {
	case errors.As(err, &c):
		code = c.code
		if c.err == nil {
			return code
		}
	case !started: // cobra refused the arguments
		code = exitUsage
	case errors.As(err, &refused):
		if refused.Code == console.CodeRefused {
			code = exitRefused
		}
	}
	fmt.Fprintf(errs, "tapehouse: %s\n", err)
	if refused != nil {
		_ = console.WriteProblems(errs, refused.Problems) // to where the message went
		if refused.Remedy != "" {
			fmt.Fprintf(errs, "  → %s\n", refused.Remedy)
		}
	}
	if code == exitUsage && cmd != nil {
		fmt.Fprintf(errs, "Run '%s --help' for usage.\n", cmd.CommandPath())
	}
	return code
}

// The groups of the commands in --help.
const (
	groupStart = "start"
	groupClose = "close"
	groupData  = "data"
	groupOther = "other"
)

func newRoot(started *bool) *cobra.Command {
	root := &cobra.Command{
		Use:   "tapehouse",
		Short: "From the exchange's tape to the morning's bills",
		Long: `Tapehouse takes streaming exchange records by the Firehose API, answers SQL about
them within a second, keeps them as Parquet in Apache Iceberg tables, and proves
at the close that a trade date is complete, so that bills are ready before the
market opens.

` + exitCodes,
		Example: `  tapehouse demo                           one simulated trade date, end to end
  tapehouse serve --data ./data            a server of your own
  eval "$(tapehouse env --data ./data)"    so that aws and psql find it`,
		Version:           version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		PersistentPreRun:  func(*cobra.Command, []string) { *started = true },
	}
	root.SetVersionTemplate("tapehouse {{.Version}}\n")
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages |", fmt.Sprintf(".FlagUsagesWrapped %d |", terminal.Width)))
	root.AddGroup(
		&cobra.Group{ID: groupStart, Title: "To start with:"},
		&cobra.Group{ID: groupClose, Title: "The close of a trade date:"},
		&cobra.Group{ID: groupData, Title: "Data:"},
		&cobra.Group{ID: groupOther, Title: "More:"},
	)
	root.SetHelpCommandGroupID(groupOther)
	root.AddCommand(
		newDemo(), newServe(), newReady(), newEnv(), newCredentials(),
		newStatus(), newSeal(), newWaive(), newVerify(), newStatements(), newExplain(),
		newSQL(), newGenerate(), newTrace(), newReplay(), newCrawl(), newFlush(), newMaintain(), newBackup(), newRestore(), newCheck(),
		newPlan(), newBench(), newConfig(), newVersion(),
	)
	return root
}

// argsExactly is cobra.ExactArgs with a message that says what is missing.
func argsExactly(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return usagef("want %s, got %d arguments", what, len(args))
		}
		return nil
	}
}

func atMostOne(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usagef("unexpected argument %q", args[1])
	}
	return nil
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unexpected argument %q", args[0])
	}
	return nil
}
