package market

import (
	"bytes"
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"math/big"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/record"
)

// Adjustment is one adjustment run of a sealed version.
type Adjustment struct {
	TradeDate     string           `json:"trade_date"`
	Version       int              `json:"version"`
	Run           int              `json:"run"` // from 1
	At            time.Time        `json:"at"`
	By            string           `json:"by"`
	Certificate   string           `json:"certificate"` // hash
	Tag           string           `json:"tag"`         // of the facts' snapshots that it read
	Log           string           `json:"log"`         // what they contain: record.Vector's text
	Corrections   []Correction     `json:"corrections"`
	LateOriginals []LateOriginal   `json:"late_originals"`
	Lines         []AdjustmentLine `json:"lines"`
	Amount        string           `json:"amount"` // sum of the lines
	File          string           `json:"file"`   // base name of the CSV
	SHA256        string           `json:"sha256"`
}

// AdjustmentLine is the change of one statement line.
type AdjustmentLine struct {
	Member string  `json:"member"`
	Key    []Field `json:"key"`    // the pack's key columns
	Before string  `json:"before"` // sealed and adjusted so far
	After  string  `json:"after"`
	Amount string  `json:"amount"` // After less Before
	// Records are the corrections and late originals behind the change.
	Records []AdjustmentRecord `json:"records"`
}

// AdjustmentRecord names a record behind an adjustment line.
type AdjustmentRecord struct {
	RecordID    string `json:"record_id"`
	Action      string `json:"action"` // bust, correct…, or late-original
	MatchNumber int64  `json:"match_number,omitempty"`
	Reason      string `json:"reason,omitempty"`
}

// actionLate marks a late original among the records of an adjustment.
const actionLate = "late-original"

func adjustmentKey(d calendar.TradeDate, version, run int) string {
	return fmt.Sprintf("%s/v%d/%06d", d, version, run)
}

// Adjustments returns the runs of a sealed version, oldest first.
func (m *Market) Adjustments(ctx context.Context, d calendar.TradeDate, version int) ([]Adjustment, error) {
	docs, err := m.o.Catalog.ListDocuments(ctx, KindAdjustment, certificateKey(d, version)+"/")
	if err != nil {
		return nil, err
	}
	out := make([]Adjustment, len(docs))
	for i, doc := range docs {
		if err := unmarshal(doc, &out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Adjust makes an adjustment run of the version in force: what the corrections
// and late originals that became known since the seal, or since the last run,
// change in each line. It returns nil, nil when nothing new is known. The sealed
// statements are not touched. The run is stored, and its lines are written to
// <trade date>/v<version>-adjustments/adjustments-<n>.csv below StatementsDir.
func (m *Market) Adjust(ctx context.Context, d calendar.TradeDate, by string) (*Adjustment, error) {
	if strings.TrimSpace(by) == "" {
		return nil, fmt.Errorf("%w adjustment run: who runs it must be named", ErrInvalid)
	}
	release, err := m.take(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	c, _, err := m.Certificate(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	runs, err := m.Adjustments(ctx, d, c.Version)
	if err != nil {
		return nil, err
	}
	if err := m.completeFiles(runs); err != nil {
		return nil, err
	}
	if err := m.o.Streams.Flush(ctx); err != nil {
		return nil, fmt.Errorf("adjust %s: %w", d, err)
	}
	a := adjusting{Market: m, d: d, c: c, run: Adjustment{TradeDate: c.TradeDate, Version: c.Version, Run: len(runs) + 1, By: by, Certificate: c.Hash}}
	if err := a.states(ctx, runs); err != nil {
		return nil, fmt.Errorf("adjust %s: %w", d, err)
	}
	if a.new.IsEmpty() {
		return nil, nil
	}
	if err := a.lines(ctx); err != nil {
		return nil, fmt.Errorf("adjust %s: %w", d, err)
	}
	return &a.run, a.commit(ctx)
}

// adjusting is one run under way.
type adjusting struct {
	*Market
	d           calendar.TradeDate
	c           *Certificate
	run         Adjustment
	former, now states // facts at the last run or seal, and now; references at the seal
	new         *LaterResult
	below       record.Vector // of former
}

// states loads what the run compares.
func (a *adjusting) states(ctx context.Context, runs []Adjustment) error {
	var err error
	if a.former, err = a.sealedStates(ctx, a.c); err != nil {
		return err
	}
	a.now = states{}
	for k, s := range a.former {
		a.now[k] = s
	}
	tag, log := a.c.Tag, a.c.Log
	roles := a.factRoles()
	if n := len(runs); n > 0 {
		tag, log = runs[n-1].Tag, runs[n-1].Log
		tags := map[string]string{}
		for _, r := range roles {
			tags[r.table] = tag
		}
		at, err := a.load(ctx, roles, tags)
		if err != nil {
			return err
		}
		for k, s := range at {
			a.former[k] = s
		}
	}
	current, err := a.load(ctx, roles, nil)
	if err != nil {
		return err
	}
	through := record.Vector{}
	for k, s := range current {
		a.now[k] = s
		merge(through, s.table.Through())
	}
	a.run.Log = through.String()
	if a.below, err = a.progressAt(ctx, roles, tag); err != nil {
		return err
	}
	cut, err := record.ParseVector(log)
	if err != nil {
		return err
	}
	merge(a.below, cut)
	pin := a.pinDate(current, a.d)
	defer pin.Release()
	a.new, err = a.later(ctx, a.d, a.c.Version, pin, a.below)
	return err
}

// lines computes what changed, line by line.
func (a *adjusting) lines(ctx context.Context) error {
	before, err := a.statementLines(ctx, a.former, a.d)
	if err != nil {
		return err
	}
	after, err := a.statementLines(ctx, a.now, a.d)
	if err != nil {
		return err
	}
	if faults := append(slices.Clone(before.faults), after.faults...); len(faults) > 0 {
		return &UnbillableError{a.c.TradeDate, a.c.Version, faults}
	}
	type pair struct{ before, after *statementLine }
	pairs := map[string]*pair{}
	for _, l := range before.lines {
		pairs[l.id()] = &pair{before: l}
	}
	for _, l := range after.lines {
		if pairs[l.id()] == nil {
			pairs[l.id()] = &pair{}
		}
		pairs[l.id()].after = l
	}
	total, digits := new(big.Rat), max(before.places, after.places)
	a.run.Lines = []AdjustmentLine{}
	for _, p := range pairs {
		was, is := amountOf(p.before), amountOf(p.after)
		change := new(big.Rat).Sub(is, was)
		if change.Sign() == 0 {
			continue
		}
		total.Add(total, change)
		l := p.after
		if l == nil {
			l = p.before
		}
		line := AdjustmentLine{Member: l.member, Before: was.FloatString(digits), After: is.FloatString(digits), Amount: change.FloatString(digits)}
		for i, k := range before.statement.Key {
			line.Key = append(line.Key, Field{k, l.key[i]})
		}
		if line.Records, err = a.behind(ctx, before, p.before, after, p.after); err != nil {
			return err
		}
		a.run.Lines = append(a.run.Lines, line)
	}
	slices.SortFunc(a.run.Lines, func(x, y AdjustmentLine) int {
		return cmp.Or(strings.Compare(x.Member, y.Member), slices.CompareFunc(x.Key, y.Key, func(f, g Field) int { return strings.Compare(f.Value, g.Value) }))
	})
	a.run.Amount = total.FloatString(digits)
	a.run.Corrections, a.run.LateOriginals = a.new.Corrections, a.new.LateOriginals
	return nil
}

func amountOf(l *statementLine) *big.Rat {
	if l == nil {
		return new(big.Rat)
	}
	return l.amount
}

// behind finds the records that changed a line: the new corrections of its legs
// that changed, and the legs that are new themselves.
func (a *adjusting) behind(ctx context.Context, before *statementResult, was *statementLine, after *statementResult, is *statementLine) ([]AdjustmentRecord, error) {
	old, err := a.legsOf(ctx, a.former, before, was)
	if err != nil {
		return nil, err
	}
	now, err := a.legsOf(ctx, a.now, after, is)
	if err != nil {
		return nil, err
	}
	changed := map[string]legState{}
	for id, l := range old {
		if now[id] != l {
			changed[id] = l
		}
	}
	for id, l := range now {
		if old[id] != l {
			changed[id] = l
		}
	}
	out := []AdjustmentRecord{}
	for _, c := range a.new.Corrections {
		for _, l := range changed {
			if l.match == c.MatchNumber && (c.Leg == nil || *c.Leg == l.leg) {
				out = append(out, AdjustmentRecord{c.RecordID, c.Action, c.MatchNumber, c.Reason})
				break
			}
		}
	}
	for id, l := range changed {
		if r, err := record.ParseID(id); err == nil && r.Offset >= a.below[r.Key] {
			out = append(out, AdjustmentRecord{RecordID: id, Action: actionLate, MatchNumber: l.match})
		}
	}
	slices.SortFunc(out, func(x, y AdjustmentRecord) int { return strings.Compare(x.RecordID, y.RecordID) })
	return out, nil
}

// legState is a leg as a statement counts it.
type legState struct {
	match, leg                int64
	quantity, price, standing string
}

// legsOf are the legs of a line, by record id; none of no line.
func (a *adjusting) legsOf(ctx context.Context, st states, lines *statementResult, l *statementLine) (map[string]legState, error) {
	out := map[string]legState{}
	if l == nil {
		return out, nil
	}
	r, err := a.legs(ctx, st, a.d, lines, l)
	if err != nil {
		return nil, err
	}
	value := func(row []any, column string) any {
		if i := r.index(column); i >= 0 {
			return row[i]
		}
		return nil
	}
	for _, row := range r.rows {
		out[recordID(value(row, "record_stream"), value(row, "record_offset"))] = legState{integer(value(row, "match_number")), integer(value(row, "leg")),
			text(value(row, "quantity")), text(value(row, "price")), text(value(row, "standing"))}
	}
	return out, nil
}

// commit stores the run, with tags on what it read, then writes its file. A
// crash in between is made good by the next call of Adjust.
func (a *adjusting) commit(ctx context.Context) error {
	a.run.At = a.o.Now().UTC().Truncate(time.Microsecond)
	a.run.Tag = fmt.Sprintf("adj-%s-v%d-%d", a.d, a.c.Version, a.run.Run)
	a.run.File = "adjustments-" + strconv.Itoa(a.run.Run) + ".csv"
	data, err := a.run.csv()
	if err != nil {
		return err
	}
	a.run.SHA256 = hashOf(data)
	doc, err := document(KindAdjustment, adjustmentKey(a.d, a.c.Version, a.run.Run), 0, a.run)
	if err != nil {
		return err
	}
	audit, err := a.audit(a.run.By, "adjust", a.d, map[string]any{"run": a.run.Run, "lines": len(a.run.Lines), "amount": a.run.Amount})
	if err != nil {
		return err
	}
	var commits []catalog.Commit
	for _, r := range a.factRoles() {
		s := a.now[r.table]
		commits = append(commits, catalog.Commit{Table: s.table.Name, Tags: map[string]int64{a.run.Tag: s.snapshot}})
	}
	if _, err := a.o.Catalog.Commit(ctx, commits, doc, audit); err != nil {
		return fmt.Errorf("store adjustment run %d of %s: %w", a.run.Run, a.d, err)
	}
	a.o.Logger.Info("adjustment run", "trade_date", a.run.TradeDate, "version", a.run.Version, "run", a.run.Run, "lines", len(a.run.Lines), "amount", a.run.Amount,
		"corrections", a.new.CorrectionCount, "late_originals", a.new.LateOriginalCount)
	return a.completeFiles([]Adjustment{a.run})
}

// completeFiles writes the runs' files that are not there, and checks those that are.
func (m *Market) completeFiles(runs []Adjustment) error {
	if m.o.StatementsDir == "" {
		return nil
	}
	for i := range runs {
		r := &runs[i]
		d, err := calendar.ParseTradeDate(r.TradeDate)
		if err != nil {
			return err
		}
		data, err := r.csv()
		if err != nil {
			return err
		}
		// Beside the version's directory, whose files are those of the seal and
		// appear together: an adjustment may come before anyone writes them.
		dir := filepath.Join(m.o.StatementsDir, d.String(), "v"+strconv.Itoa(r.Version)+"-adjustments")
		if err := m.o.FS.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("write %s: %w", r.File, err)
		}
		name := filepath.Join(dir, r.File)
		if _, err := m.o.FS.Stat(name); err == nil {
			if err := m.compareFiles(dir, []file{{r.File, data}}); err != nil {
				return err
			}
			continue
		}
		if err := fsys.WriteFileAtomic(m.o.FS, name, data, 0o644); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

// csv renders the run's lines.
func (r *Adjustment) csv() ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	head := []string{"statement", "adjustment", "line", "trade_date", "member_id"}
	if len(r.Lines) > 0 {
		for _, k := range r.Lines[0].Key {
			head = append(head, k.Name)
		}
	}
	if err := w.Write(append(head, "before", "after", "amount", "records", "actions", "match_numbers")); err != nil {
		return nil, err
	}
	for i, l := range r.Lines {
		row := []string{fmt.Sprintf("%s/v%d/%s", r.TradeDate, r.Version, l.Member), strconv.Itoa(r.Run), strconv.Itoa(i + 1), r.TradeDate, l.Member}
		for _, k := range l.Key {
			row = append(row, k.Value)
		}
		var ids, actions, matches []string
		for _, x := range l.Records {
			ids, actions, matches = append(ids, x.RecordID), append(actions, x.Action), append(matches, strconv.FormatInt(x.MatchNumber, 10))
		}
		if err := w.Write(append(row, l.Before, l.After, l.Amount, strings.Join(ids, " "), strings.Join(actions, " "), strings.Join(matches, " "))); err != nil {
			return nil, err
		}
	}
	w.Flush()
	return b.Bytes(), w.Error()
}
