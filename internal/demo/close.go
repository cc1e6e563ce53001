package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tapehouse/tapehouse/internal/checker"
	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/terminal"
)

// operator is who seals, in the certificate.
const operator = "tapehouse demo"

// close seals the trade date, after the refusal that a sabotage asks for,
// verifies the certificate and writes the statements.
func (d *demo) close(ctx context.Context) error {
	if err := d.refuse(ctx); err != nil {
		return err
	}
	d.head("Seal", "every source against its own count")
	began := time.Now()
	seal, err := d.seal(ctx)
	if err != nil {
		return err
	}
	d.result.SealSeconds = time.Since(began).Seconds()
	if d.o.Sabotage == Reject && d.result.Rejected == 0 {
		if err := d.showErrorOutput(); err != nil {
			return err
		}
	}
	d.result.Certificate = seal.Certificate
	d.say("   proven complete in %.1f s: %s rows of %d feeds\n   certificate %s\n", d.result.SealSeconds, terminal.Count(seal.Rows), seal.Sources, seal.Certificate)

	d.head("Verify", "the certificate, recomputed from the data")
	v, err := d.console().Verify(ctx, console.VerifyRequest{TradeDate: d.date.String()})
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	d.result.Verified = v.OK && v.Certificate == seal.Certificate
	if d.result.Verified {
		d.say("   it holds: %d comparisons\n", len(v.Checks))
	} else {
		d.progress.Above(func() { _ = v.WriteText(d.o.Out) }) // the story goes on, and ends badly
	}

	d.head("Bills", "statements from the sealed data alone (illustrative fees)")
	if d.run, err = d.console().Statements(ctx, console.StatementsRequest{TradeDate: d.date.String()}); err != nil {
		return fmt.Errorf("statements: %w", err)
	}
	d.result.Statements = len(d.run.Statements)
	d.say("   %d statements, %s lines, total %s USD\n   in %s\n", len(d.run.Statements), terminal.Count(d.run.Lines), terminal.Amount(d.run.Total), d.run.Directory)
	if d.o.Sabotage == Bust {
		return d.bust(ctx)
	}
	return nil
}

func (d *demo) console() *console.Client { return d.server.Load().Console }

// seal seals; a refusal is shown in full.
func (d *demo) seal(ctx context.Context) (console.Seal, error) {
	s, err := d.console().Seal(ctx, console.SealRequest{TradeDate: d.date.String(), By: operator})
	var refused *console.Error
	if errors.As(err, &refused) && refused.Code == console.CodeRefused {
		d.progress.Above(func() { _ = console.WriteProblems(d.o.Out, refused.Problems) }) // the error says it again
	}
	if err != nil {
		return s, fmt.Errorf("seal: %w", err)
	}
	return s, nil
}

// count lets the checker compare the lake with the manifest.
func (d *demo) count(ctx context.Context) error {
	d.head("Check", "the lake's Parquet against the generator's manifest")
	if err := d.manifest.Close(); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	f, err := os.Open(d.manifestPath())
	if err != nil {
		return fmt.Errorf("read the manifest: %w", err)
	}
	defer f.Close()
	r, err := checker.Check(ctx, checker.Options{Manifest: f, Lake: LakeDir(d.o.Data)})
	if err != nil {
		return err
	}
	d.check = r
	d.result.RowsInLake, d.result.Lost, d.result.Duplicates = r.Rows, r.Lost, r.Duplicates
	d.result.Altered, d.result.Unexpected = r.Altered, r.Unexpected
	d.notePeak()
	d.result.OK = r.OK() && d.result.Verified && d.result.RecordsAcknowledged == d.result.RecordsSent
	d.say("   %s rows: lost %d, twice %d, altered %d (%s)\n", terminal.Count(r.Rows), r.Lost, r.Duplicates, r.Altered, terminal.Took(r.Took))
	for _, e := range r.Examples {
		d.say("   ✗ %s\n", e)
	}
	return nil
}
