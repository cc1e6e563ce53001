package market

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
)

// DateState says where a trade date stands.
type DateState string

// The states of a trade date.
const (
	StateSealed     DateState = "sealed"
	StateReady      DateState = "ready"      // complete, not sealed yet
	StateIncomplete DateState = "incomplete" // a check fails
)

// DeadlineState says how a trade date stands against its deadline.
type DeadlineState string

// The states of a deadline.
const (
	DeadlineNone      DeadlineState = "none"     // the calendar knows no next trade date
	DeadlineOnTrack   DeadlineState = "on_track" // not due yet
	DeadlineMet       DeadlineState = "met"      // sealed in time
	DeadlinePredicted DeadlineState = "predicted_miss"
	DeadlineMissed    DeadlineState = "missed"
)

// DateStatus is one trade date as Status tells it.
type DateStatus struct {
	TradeDate   string        `json:"trade_date"`
	State       DateState     `json:"state"`
	ClosesAt    time.Time     `json:"closes_at"` // end of its last session
	Deadline    time.Time     `json:"deadline"`  // zero: none
	DeadlineIs  DeadlineState `json:"deadline_state"`
	Rows        int64         `json:"rows"`            // of facts
	RowsPerSec  float64       `json:"rows_per_second"` // arriving now
	Expected    *time.Time    `json:"expected"`        // when it can be sealed, null if that depends on someone
	Basis       string        `json:"basis"`           // of Expected
	Version     int           `json:"version,omitempty"`
	SealedAt    *time.Time    `json:"sealed_at,omitempty"`
	Certificate string        `json:"certificate,omitempty"` // hash
	// Of a sealed trade date: what became known since.
	LaterCorrections int64 `json:"later_corrections,omitempty"`
	LateOriginals    int64 `json:"late_originals,omitempty"`
	// Of one that is not sealed: its report, each source and what is missing.
	Report *Report `json:"report,omitempty"`
}

// statusDatesMax bounds how many trade dates one Status tells of.
const statusDatesMax = 10

// sealRowsPerSecond and sealSecondsMin estimate a seal as long as none was made.
const (
	sealRowsPerSecond = 500_000
	sealSecondsMin    = 1.0
)

// paceMemory weighs a new measurement of the pace against the former ones.
const paceMemory = 0.5

// Status tells of the recent and open trade dates, newest first: those that
// have records, and, up to today's, those since the first of them that the
// server can have seen or that the roster asks for.
func (m *Market) Status(ctx context.Context) ([]DateStatus, error) {
	if m.o.Ledger == nil {
		return nil, ErrReadOnly
	}
	// The ledger's accounts follow the log: what was acknowledged before this
	// call is in them once the streams' tails have it.
	pin, err := m.pinFresh(ctx)
	if err != nil {
		return nil, fmt.Errorf("status: %w", err)
	}
	dates, err := m.recent(ctx, pin)
	pin.Release()
	if err != nil {
		return nil, fmt.Errorf("status: %w", err)
	}
	var out []DateStatus
	for _, d := range dates {
		s, err := m.dateStatus(ctx, d)
		if err != nil {
			return nil, fmt.Errorf("status of %s: %w", d, err)
		}
		out = append(out, *s)
	}
	return out, nil
}

// recent lists the trade dates to tell of, newest first. A source that says
// nothing on a trade date is a gap, but not before the server was there to hear
// it: of the trade dates before its first, those count that have records, or
// that a roster row asks for.
func (m *Market) recent(ctx context.Context, pin *engine.Pin) ([]calendar.TradeDate, error) {
	dates := map[calendar.TradeDate]bool{}
	accounts, _ := m.o.Ledger.Accounts()
	var oldest calendar.TradeDate
	for i := range accounts {
		for d := range accounts[i].Dates {
			dates[calendar.TradeDate(d)] = true
			if oldest == 0 || calendar.TradeDate(d) < oldest {
				oldest = calendar.TradeDate(d)
			}
		}
	}
	first := m.firstDate()
	var unseen []calendar.TradeDate // newest first
	d, ok := m.today()
	for n := 0; ok && n < m.o.WatchDates && oldest != 0 && d >= oldest; n++ {
		if d >= first {
			dates[d] = true
		} else if !dates[d] {
			unseen = append(unseen, d)
		}
		d, ok = m.pack.Calendar.Prev(d)
	}
	if err := m.askedFor(ctx, pin, unseen, dates); err != nil {
		return nil, err
	}
	out := make([]calendar.TradeDate, 0, len(dates))
	for d := range dates {
		if _, ok := m.pack.Calendar.Session(d); ok {
			out = append(out, d)
		}
	}
	slices.Sort(out)
	slices.Reverse(out)
	return out[:min(len(out), statusDatesMax)], nil
}

// firstDate is the trade date that traded when the first of the pack's streams
// was created, or the next one; 0 where that cannot be told.
func (m *Market) firstDate() calendar.TradeDate {
	at := m.o.Since()
	if at.IsZero() {
		return 0
	}
	if d, ok := m.pack.Calendar.TradeDate(at.UnixNano()); ok {
		return d
	}
	y, mon, day := at.In(m.pack.Calendar.Location()).Date()
	d, ok := m.pack.Calendar.Next(calendar.Date(y, mon, day) - 1)
	for ; ok; d, ok = m.pack.Calendar.Next(d) {
		if s, _ := m.pack.Calendar.Session(d); at.Before(s.Sessions[len(s.Sessions)-1].CloseAt) {
			return d
		}
	}
	return 0
}

// since is when the first of the pack's streams was created.
func (m *Market) since() (at time.Time) {
	if m.o.Streams == nil {
		return at
	}
	for _, s := range m.o.Streams.Streams() {
		c := s.Config()
		if _, ok := m.pack.Stream(c.Name); ok && (at.IsZero() || c.CreatedAt.Before(at)) {
			at = c.CreatedAt
		}
	}
	return at
}

// askedFor adds those of the trade dates that a roster row asks for which begins
// among them. A row that held long before asks nothing of a server that was not
// there.
func (m *Market) askedFor(ctx context.Context, pin *engine.Pin, unseen []calendar.TradeDate, dates map[calendar.TradeDate]bool) error {
	if len(unseen) == 0 {
		return nil
	}
	var list []string
	for _, d := range unseen {
		list = append(list, "("+dateLiteral(d)+")")
	}
	return m.query(ctx, pin, "SELECT DISTINCT CAST(v.d AS varchar) FROM (VALUES "+strings.Join(list, ",")+") AS v(d) JOIN "+quoteName(m.name(m.pack.Close.Roster))+
		" AS r ON r.effective_from <= v.d AND (r.effective_to IS NULL OR v.d < r.effective_to) WHERE r.effective_from >= "+dateLiteral(unseen[len(unseen)-1]), func(row []any) error {
		d, err := calendar.ParseTradeDate(text(row[0]))
		if err != nil {
			return fmt.Errorf("roster: %w", err)
		}
		dates[d] = true
		return nil
	})
}

// today is the trade date that trades now, or traded last.
func (m *Market) today() (calendar.TradeDate, bool) {
	now := m.o.Now()
	if d, ok := m.pack.Calendar.TradeDate(now.UnixNano()); ok {
		return d, true
	}
	y, mon, day := now.In(m.pack.Calendar.Location()).Date()
	return m.pack.Calendar.Prev(calendar.Date(y, mon, day) + 1)
}

func (m *Market) dateStatus(ctx context.Context, d calendar.TradeDate) (*DateStatus, error) {
	day, err := m.day(d)
	if err != nil {
		return nil, err
	}
	s := &DateStatus{TradeDate: d.String(), ClosesAt: day.Sessions[len(day.Sessions)-1].CloseAt, Deadline: m.o.Deadline(d)}
	now := m.o.Now().UTC()
	seal, _, err := m.sealed(ctx, d)
	if err == nil {
		s.State, s.Version, s.SealedAt, s.Certificate, s.Rows = StateSealed, seal.Version, &seal.SealedAt, seal.Hash, seal.Rows
		later, err := m.Later(ctx, d)
		if err != nil {
			return nil, err
		}
		s.LaterCorrections, s.LateOriginals = later.CorrectionCount, later.LateOriginalCount
		first, err := m.firstSealedAt(ctx, d, seal)
		if err != nil {
			return nil, err
		}
		s.DeadlineIs = DeadlineMet
		if !s.Deadline.IsZero() && first.After(s.Deadline) {
			s.DeadlineIs = DeadlineMissed
		}
		return s, nil
	}
	if !errors.Is(err, ErrNotSealed) {
		return nil, err
	}
	if s.Report, err = m.Readiness(ctx, d); err != nil {
		return nil, err
	}
	for _, a := range s.Report.Sources {
		s.Rows += a.Rows
	}
	s.State = StateIncomplete
	if s.Report.Ready {
		s.State = StateReady
	}
	s.RowsPerSec = m.measure(d, s.Rows, now)
	m.expect(ctx, s, now)
	s.DeadlineIs = deadlineState(s, now, m.o.DeadlineWarn)
	return s, nil
}

// firstSealedAt is when the first version was sealed: a re-seal misses nothing.
func (m *Market) firstSealedAt(ctx context.Context, d calendar.TradeDate, seal sealDocument) (time.Time, error) {
	if seal.Version == 1 {
		return seal.SealedAt, nil
	}
	c, _, err := m.Certificate(ctx, d, 1)
	if err != nil {
		return time.Time{}, err
	}
	return c.SealedAt, nil
}

// measure updates a trade date's pace with what is here now.
func (m *Market) measure(d calendar.TradeDate, rows int64, now time.Time) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.pace[d]
	if p == nil {
		if len(m.pace) > 10*statusDatesMax {
			clear(m.pace)
		}
		m.pace[d] = &pace{at: now, rows: rows}
		return 0
	}
	took := now.Sub(p.at).Seconds()
	if took < 0.5 { // too short to tell
		return p.rate
	}
	p.rate = paceMemory*float64(rows-p.rows)/took + (1-paceMemory)*p.rate
	p.at, p.rows = now, rows
	if p.rate < 0.01 {
		p.rate = 0
	}
	return p.rate
}

// pace is how fast a trade date's rows arrive.
type pace struct {
	at   time.Time
	rows int64
	rate float64 // rows a second, smoothed
}

// expect says when the trade date can be sealed.
func (m *Market) expect(ctx context.Context, s *DateStatus, now time.Time) {
	seal := time.Duration(m.sealSeconds(ctx, s.Rows) * float64(time.Second))
	at := func(t time.Time, basis string, args ...any) {
		t = t.Add(seal).UTC().Truncate(time.Second)
		s.Expected, s.Basis = &t, fmt.Sprintf(basis, args...)
	}
	if s.Report.Ready {
		at(now, "it is complete; a seal takes about %s", seal.Round(time.Second))
		return
	}
	if now.Before(s.ClosesAt) {
		at(s.ClosesAt, "its last session closes at %s", s.ClosesAt.Format(time.RFC3339))
		return
	}
	var remaining int64
	open := 0
	for _, a := range s.Report.Sources {
		if a.Marker == nil {
			open++
			continue
		}
		remaining += max(a.Marker.Count-a.Rows-a.Rejected, 0)
	}
	switch {
	case remaining > 0 && s.RowsPerSec > 0:
		at(now.Add(time.Duration(float64(remaining)/s.RowsPerSec*float64(time.Second))), "%d records are outstanding, %.0f arrive a second", remaining, s.RowsPerSec)
	case s.RowsPerSec > 0 && open > 0:
		s.Basis = fmt.Sprintf("%.0f records arrive a second; %d sources have not said how many there will be", s.RowsPerSec, open)
	default:
		s.Basis = fmt.Sprintf("it waits for what %d failed checks ask for", len(s.Report.Failures()))
	}
}

// sealSeconds estimates a seal from the last one made.
func (m *Market) sealSeconds(ctx context.Context, rows int64) float64 {
	rate := float64(sealRowsPerSecond)
	if docs, err := m.o.Catalog.ListDocuments(ctx, KindSeal, ""); err == nil && len(docs) > 0 {
		var last sealDocument
		if unmarshal(docs[len(docs)-1], &last) == nil && last.Rows > 0 && last.Took > 0 {
			rate = float64(last.Rows) / last.Took
		}
	}
	return max(float64(rows)/rate, sealSecondsMin)
}

// deadlineState judges a trade date that is not sealed.
func deadlineState(s *DateStatus, now time.Time, warn time.Duration) DeadlineState {
	switch {
	case s.Deadline.IsZero():
		return DeadlineNone
	case now.After(s.Deadline):
		return DeadlineMissed
	case s.Expected != nil && s.Expected.After(s.Deadline):
		return DeadlinePredicted
	case s.Expected == nil && s.Deadline.Sub(now) < warn:
		return DeadlinePredicted
	}
	return DeadlineOnTrack
}

// Watch starts the watcher: at intervals it looks at Status, sets the metrics,
// and tells of each change of a deadline's state once: as an event of the log,
// an audit entry and a webhook call. Close ends it. It is called at most once.
func (m *Market) Watch() { m.wg.Go(m.watch) }

func (m *Market) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-m.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	t := time.NewTimer(m.o.WatchInterval)
	defer t.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-t.C:
			start := time.Now()
			if err := m.look(ctx); err != nil && ctx.Err() == nil {
				m.o.Logger.Error("watch the close", "err", err)
			}
			t.Reset(max(m.o.WatchInterval, watchShare*time.Since(start)))
		}
	}
}

// watchShare keeps the watcher, which counts every row of its dates, below this
// part of one core on a big trade date.
const watchShare = 10

// look is one round of the watcher.
func (m *Market) look(ctx context.Context) error {
	dates, err := m.Status(ctx)
	if err != nil {
		return err
	}
	counts := map[string]int{string(StateSealed): 0, "open": 0, string(StateReady): 0, string(DeadlinePredicted): 0, string(DeadlineMissed): 0}
	failed := map[Check]int{}
	var late int64
	var errs []error
	for i := range dates {
		s := &dates[i]
		switch s.State {
		case StateSealed, StateReady:
			counts[string(s.State)]++
		default:
			counts["open"]++
		}
		if s.State != StateSealed && (s.DeadlineIs == DeadlinePredicted || s.DeadlineIs == DeadlineMissed) {
			counts[string(s.DeadlineIs)]++
		}
		late += s.LateOriginals
		if s.Report != nil {
			for _, f := range s.Report.Failures() {
				failed[f.Check]++
			}
		}
		errs = append(errs, m.tell(ctx, s))
	}
	for state, n := range counts {
		m.metrics.deadline.WithLabelValues(state).Set(float64(n))
	}
	m.metrics.failed.Reset()
	for c, n := range failed {
		m.metrics.failed.WithLabelValues(string(c)).Set(float64(n))
	}
	m.metrics.late.Set(float64(late))
	return errors.Join(errs...)
}

// told is the last state of a trade date that was told.
type told struct {
	Deadline      DeadlineState `json:"deadline_state"`
	LateOriginals int64         `json:"late_originals"`
}

// Event is what a webhook is told, as JSON.
type Event struct {
	Event     string        `json:"event"` // deadline, late_originals
	TradeDate string        `json:"trade_date"`
	State     DeadlineState `json:"deadline_state"`
	Former    DeadlineState `json:"former_state"`
	At        time.Time     `json:"at"`
	Deadline  time.Time     `json:"deadline"`
	Expected  *time.Time    `json:"expected"`
	Basis     string        `json:"basis"`
	// LateOriginals counts rows that arrived after the seal.
	LateOriginals int64     `json:"late_originals,omitempty"`
	Findings      []Finding `json:"findings,omitempty"` // that failed; at most samplesMax
}

// tell tells of a change once. What was told is a document, so that a restart
// does not repeat it.
func (m *Market) tell(ctx context.Context, s *DateStatus) error {
	var former told
	doc, err := m.o.Catalog.GetDocument(ctx, KindDeadline, s.TradeDate)
	switch {
	case errors.Is(err, catalog.ErrNotFound):
	case err != nil:
		return err
	default:
		if err := unmarshal(doc, &former); err != nil {
			return err
		}
	}
	now := told{s.DeadlineIs, s.LateOriginals}
	alarming := func(d DeadlineState) bool { return d == DeadlinePredicted || d == DeadlineMissed }
	turned := former.Deadline != now.Deadline && (alarming(former.Deadline) || alarming(now.Deadline))
	lateMore := now.LateOriginals > former.LateOriginals
	if !turned && !lateMore {
		return nil
	}
	event := Event{Event: "deadline", TradeDate: s.TradeDate, State: s.DeadlineIs, Former: former.Deadline, At: m.o.Now().UTC(), Deadline: s.Deadline, Expected: s.Expected, Basis: s.Basis, LateOriginals: s.LateOriginals}
	if s.Report != nil {
		event.Findings = s.Report.Failures()
		event.Findings = event.Findings[:min(len(event.Findings), samplesMax)]
	}
	if turned {
		m.tellDeadline(&event)
	}
	if lateMore {
		if !turned {
			event.Event = "late_originals"
		}
		m.o.Logger.Error("late originals after the seal", "trade_date", s.TradeDate, "rows", s.LateOriginals, "version", s.Version)
	}
	next, err := document(KindDeadline, s.TradeDate, catalog.AnyVersion, now)
	if err != nil {
		return err
	}
	next.KeepVersions = 10
	d, err := calendar.ParseTradeDate(s.TradeDate)
	if err != nil {
		return err
	}
	entry, err := m.audit("tapehouse", event.Event, d, now)
	if err != nil {
		return err
	}
	if _, err := m.o.Catalog.Commit(ctx, nil, next, entry); err != nil {
		return fmt.Errorf("record the deadline's state: %w", err)
	}
	return m.post(ctx, &event)
}

func (m *Market) tellDeadline(e *Event) {
	state := string(e.State)
	if e.State != DeadlinePredicted && e.State != DeadlineMissed {
		state = "recovered"
	}
	m.metrics.misses.WithLabelValues(state).Inc()
	log, message := m.o.Logger.Error, "deadline of a trade date"
	if state == "recovered" {
		log = m.o.Logger.Info
	}
	log(message, "trade_date", e.TradeDate, "state", e.State, "former", e.Former, "deadline", e.Deadline, "basis", e.Basis, "failed_checks", len(e.Findings))
}

// post sends an event to the webhook: a few tries, each with a time-out. What
// the receiver answers is not read beyond its status.
func (m *Market) post(ctx context.Context, e *Event) error {
	if m.o.Webhook == "" {
		return nil
	}
	body, err := marshal(e)
	if err != nil {
		return fmt.Errorf("encode webhook event: %w", err)
	}
	wait := time.Second
	for try := 1; ; try++ {
		if err = m.postOnce(ctx, body); err == nil {
			m.metrics.webhooks.WithLabelValues("done").Inc()
			return nil
		}
		if try == m.o.WebhookTries {
			m.metrics.webhooks.WithLabelValues("failed").Inc()
			return fmt.Errorf("webhook, %d tries: %w", try, err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
			wait *= 2
		}
	}
}

func (m *Market) postOnce(ctx context.Context, body []byte) (err error) {
	ctx, cancel := context.WithTimeout(ctx, m.o.WebhookTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.o.Webhook, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "tapehouse")
	res, err := m.o.WebhookClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	_, _ = io.CopyN(io.Discard, res.Body, 4096) // so that the connection can be used again
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("status %s", res.Status)
	}
	return nil
}
