package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/exchange"
	"github.com/tapehouse/tapehouse/internal/terminal"
)

// silentSource is the source that SilentSource silences.
const silentSource = "ME3-EXE"

// refusal is what the seal must answer to a sabotage.
type refusal struct {
	kind   string
	source string
	seq    int64 // 0 for a source as a whole
}

// expected is the refusal that the sabotage must lead to; false for none.
func (d *demo) expected() (refusal, bool) {
	switch faults := d.exchange.Faults(); {
	case d.o.Sabotage == SilentSource:
		return refusal{console.ProblemSilent, silentSource, 0}, true
	case len(faults) == 0:
		return refusal{}, false
	case d.o.Sabotage == Gap:
		return refusal{console.ProblemGap, faults[0].Key.Source, faults[0].Key.Seq}, true
	case d.o.Sabotage == Reject:
		return refusal{console.ProblemRejected, faults[0].Key.Source, faults[0].Key.Seq}, true
	}
	return refusal{}, false
}

// names reports whether a problem is the one that must be named.
func (r refusal) names(p console.Problem) bool {
	return p.Kind == r.kind && p.Source == r.source && (r.seq == 0 || p.FirstSeq <= r.seq && r.seq <= p.LastSeq)
}

// refuse shows that the sabotaged trade date cannot be sealed, and takes the
// remedy.
func (d *demo) refuse(ctx context.Context) error {
	want, ok := d.expected()
	if !ok {
		switch d.o.Sabotage {
		case Gap, Reject, SilentSource:
			return fmt.Errorf("%w: the sabotage %s did not come about: play more records", ErrMismatch, d.o.Sabotage)
		}
		return nil
	}
	d.head("Seal", "refused, as it must be")
	switch d.o.Sabotage {
	case Gap:
		d.say("   sabotage: %s withheld the record with sequence number %d\n", want.source, want.seq)
	case Reject:
		d.say("   sabotage: %s sent sequence number %d with a price of six decimals\n", want.source, want.seq)
		if err := d.showErrorOutput(); err != nil {
			return err
		}
	case SilentSource:
		d.say("   sabotage: %s, which the roster expects, never spoke\n", want.source)
	}
	_, err := d.seal(ctx)
	var refused *console.Error
	switch {
	case err == nil:
		return fmt.Errorf("%w: the seal was not refused", ErrMismatch)
	case !errors.As(err, &refused) || refused.Code != console.CodeRefused:
		return err
	case !slices.ContainsFunc(refused.Problems, want.names):
		return fmt.Errorf("%w: the seal was refused, but not for %s of %s: %w", ErrMismatch, want.kind, want.source, err)
	}
	return d.remedy(ctx, want)
}

// remedy sends what is missing: the same trade date, generated without sabotage,
// has it.
func (d *demo) remedy(ctx context.Context, want refusal) error {
	clean, err := exchange.New(d.config())
	if err != nil {
		return err
	}
	faults := d.exchange.Faults()
	missing := func(r exchange.Record) bool {
		if d.o.Sabotage == SilentSource {
			return r.Key.Source == want.source
		}
		return !r.Marker && r.Stream == faults[0].Stream && r.Key == faults[0].Key
	}
	sent, err := d.put(ctx, clean, missing)
	if err != nil {
		return fmt.Errorf("remedy: %w", err)
	}
	d.result.RecordsSent += sent
	d.result.RecordsAcknowledged = d.pipeline.Progress().Acknowledged
	switch d.o.Sabotage {
	case Gap:
		d.head("Remedy", "%s sends number %d again; the ledger closes the gap", want.source, want.seq)
	case Reject:
		d.head("Remedy", "%s sends number %d again, corrected", want.source, want.seq)
	case SilentSource:
		d.head("Remedy", "%s comes after all: %s records and its marker", want.source, terminal.Count(sent-1))
		d.say("   (had the venue been closed: tapehouse waive %s --source %s\n    --kind %s --reason \"…\", and the certificate would say so)\n", d.date, want.source, want.kind)
	}
	return nil
}

// put puts the records of a player that keep chooses, and notes them.
func (d *demo) put(ctx context.Context, p exchange.Player, keep func(exchange.Record) bool) (int64, error) {
	var buf []byte
	sent := int64(0)
	for {
		doc, rec, err := p.Next(buf[:0])
		if errors.Is(err, io.EOF) {
			return sent, d.flush(ctx)
		}
		if err != nil {
			return sent, err
		}
		if buf = doc; !keep(rec) {
			continue
		}
		if err := d.manifest.Append(rec.Stream, rec.Key, p.Hash()); err != nil {
			return sent, fmt.Errorf("write the manifest: %w", err)
		}
		if err := d.pipeline.Put(ctx, rec.Stream, rec.Key.Source, doc); err != nil {
			return sent, err
		}
		sent++
	}
}

// LakeDir is the lake's directory in a data directory.
func LakeDir(data string) string { return filepath.Join(data, "lake") }

// showErrorOutput shows the rejected record as it lies in the error output.
func (d *demo) showErrorOutput() error {
	root := filepath.Join(LakeDir(d.o.Data), "errors")
	var object string
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			object = path
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) || err == nil && object == "" {
		// It is written with the next flush, which the seal makes at the latest.
		d.say("   the record is acknowledged and kept for the error output\n")
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for the error output: %w", err)
	}
	data, err := os.ReadFile(object)
	if err != nil {
		return fmt.Errorf("read the error output: %w", err)
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	d.result.Rejected = int64(bytes.Count(bytes.TrimSpace(data), []byte("\n")) + 1)
	rel, err := filepath.Rel(d.o.Data, object)
	if err != nil {
		rel = object
	}
	d.say("   in the error output, counted against its source:\n     %s\n", rel)
	d.quote(string(line))
	return nil
}

// quote shows a document, broken between members where there is one to break at.
func (d *demo) quote(text string) {
	const indent = "     "
	for len(text) > 0 {
		n := min(len(text), terminal.Width-len(indent))
		if comma := strings.LastIndexByte(text[:n], ','); n < len(text) && comma > 0 {
			n = comma + 1
		}
		d.say("%s%s\n", indent, text[:n])
		text = text[n:]
	}
}

// bust breaks a trade after the seal and the bills, and shows what it changes:
// one adjustment, and not a byte of a sealed bill.
func (d *demo) bust(ctx context.Context) error {
	d.head("Bust", "a trade of the sealed trade date is broken")
	before, err := d.hashBills()
	if err != nil {
		return err
	}
	doc, rec, ok := d.exchange.BustAfterClose(nil)
	if !ok {
		return fmt.Errorf("%w: there is no trade to break: play more records", ErrMismatch)
	}
	if err := d.manifest.Append(rec.Stream, rec.Key, d.exchange.Hash()); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	if err := d.pipeline.Put(ctx, rec.Stream, rec.Key.Source, doc); err != nil {
		return err
	}
	if err := d.flush(ctx); err != nil {
		return err
	}
	d.result.RecordsSent++
	d.result.RecordsAcknowledged = d.pipeline.Progress().Acknowledged
	d.quote(string(doc))
	run, err := d.console().Statements(ctx, console.StatementsRequest{TradeDate: d.date.String(), Adjustments: true})
	if err != nil {
		return fmt.Errorf("adjustments: %w", err)
	}
	d.result.Adjustments = len(run.Adjustments)
	d.progress.Above(func() { _ = run.WriteText(d.o.Out) }) // the story's own writer fails on its next line, too
	again, err := d.console().Statements(ctx, console.StatementsRequest{TradeDate: d.date.String()})
	if err != nil {
		return fmt.Errorf("statements again: %w", err)
	}
	after, err := d.hashBills()
	if err != nil {
		return err
	}
	if len(run.Adjustments) == 0 || slices.ContainsFunc(run.Adjustments, func(a console.Adjustment) bool { return a.MatchNumber != run.Adjustments[0].MatchNumber }) {
		return fmt.Errorf("%w: the adjustments are not those of the broken trade", ErrMismatch)
	}
	if before != after || again.SHA256 != d.run.SHA256 {
		return fmt.Errorf("%w: a sealed bill has changed", ErrMismatch)
	}
	d.say("   the %d sealed bills are byte for byte what they were: SHA-256\n   %s\n", len(d.run.Statements), after)
	return nil
}

// hashBills hashes the bills' files as they lie on disk.
func (d *demo) hashBills() (string, error) {
	h := sha256.New()
	for _, s := range d.run.Statements {
		name := s.File
		if !filepath.IsAbs(name) {
			name = filepath.Join(d.run.Directory, name)
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("read a bill: %w", err)
		}
		sum := sha256.Sum256(data)
		if have := hex.EncodeToString(sum[:]); !strings.EqualFold(have, s.SHA256) {
			return "", fmt.Errorf("%w: the bill %s has the SHA-256 %s, not %s", ErrMismatch, s.ID, have, s.SHA256)
		}
		_, _ = h.Write(sum[:]) // never fails
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
