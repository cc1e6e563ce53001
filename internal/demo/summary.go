package demo

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/tapehouse/tapehouse/internal/terminal"
)

// realDayMessages is what one market's feed (Nasdaq TotalView-ITCH) carried on
// realDay: the scale that a demo is told against.
const (
	realDayMessages = 268_700_000
	realDay         = "2019-12-30"
)

// ShareOfRealDay says what part of a real day so many records are.
func ShareOfRealDay(records int64) string {
	share := float64(records) / realDayMessages * 100
	digits := 1
	for limit := 0.95; share < limit && digits < 4; limit /= 10 {
		digits++
	}
	return fmt.Sprintf("%.*f %%", digits-1, share)
}

// verdict is the last word.
func (d *demo) verdict() string {
	r := &d.result
	if !r.OK {
		return "FAILED: see above"
	}
	switch d.o.Sabotage {
	case Kill:
		return fmt.Sprintf("killed %d times under load: nothing lost, nothing twice", r.Kills)
	case Gap:
		return "a lost record refused the seal by name; sent again, it sealed"
	case Reject:
		return "a malformed record refused the seal by name; corrected, it sealed"
	case SilentSource:
		return "a silent source refused the seal by name; it came, and it sealed"
	case Bust:
		return fmt.Sprintf("a broken trade became %s; the sealed bills stand", terminal.Plural(int64(r.Adjustments), "adjustment line"))
	}
	return "nothing lost, nothing twice, proven complete"
}

// summarize prints what the demo came to, and the JSON line if it is wanted.
func (d *demo) summarize() error {
	r := &d.result
	rule := strings.Repeat("─", terminal.Width-2)
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-14s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&b, "\n%s\n  %s\n%s\n", rule, d.verdict(), rule)
	line("records", "%s sent, %s acknowledged", terminal.Count(r.RecordsSent), terminal.Count(r.RecordsAcknowledged))
	line("lake", "%s rows: %s lost, %s twice, %s altered", terminal.Count(r.RowsInLake), terminal.Count(r.Lost), terminal.Count(r.Duplicates), terminal.Count(r.Altered))
	line("rate", "%s records/s over %s, durable when acknowledged", terminal.Count(r.RecordsPerSecond), terminal.Took(d.streamed))
	line("freshness", "%.0f ms median, %.0f ms p99: acknowledged to visible in SQL", r.FreshnessP50, r.FreshnessP99)
	line("seal", "%.1f s; certificate %.16s… %s", r.SealSeconds, r.Certificate, map[bool]string{true: "verified", false: "DOES NOT VERIFY"}[r.Verified])
	line("bills", "%d statements (fees are illustrative)", r.Statements)
	if r.MemoryPeakBytes > 0 {
		line("memory", "%s resident at most (the server)", terminal.Bytes(r.MemoryPeakBytes))
	}
	line("scale", "%s of a real day: one market's feed had 268.7 M messages", ShareOfRealDay(d.o.Records))
	line("", "on %s. Producer and server shared this machine.", realDay)
	line("data", "%s", d.o.Data)
	if !d.o.Exit && r.OK {
		d.next(&b)
	}
	if _, err := fmt.Fprint(d.o.Out, b.String()); err != nil {
		return fmt.Errorf("write the summary: %w", err)
	}
	if !d.o.JSON {
		return nil
	}
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the result: %w", err)
	}
	if _, err := fmt.Fprintf(d.o.Out, "%s\n", text); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// next says what to type.
func (d *demo) next(b *strings.Builder) {
	program := d.o.Invocation
	if program == "" {
		program = "tapehouse"
	}
	data := d.o.Data
	if here, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(here, data); err == nil && len(rel) < len(data) {
			data = rel
		}
	}
	data = terminal.ShellWord(data)
	fmt.Fprintf(b, "\n  What to type next, in another terminal:\n\n")
	fmt.Fprintf(b, "    eval \"$(%s env --data %s)\"\n", program, data)
	fmt.Fprintf(b, "    psql -c 'select * from equities.symbol_daily_stats limit 10'\n")
	fmt.Fprintf(b, "    aws firehose list-delivery-streams\n")
	fmt.Fprintf(b, "    %s status --data %s\n", program, data)
	if len(d.run.Statements) > 0 {
		fmt.Fprintf(b, "    %s explain-charge %s 1 --data %s\n", program, terminal.ShellWord(d.run.Statements[0].ID), data)
	}
	fmt.Fprintln(b)
}
