package market

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/ledger"
	"github.com/tapehouse/tapehouse/internal/record"
)

// Readiness tells whether the trade date is complete, by everything that was
// acknowledged before the call.
func (m *Market) Readiness(ctx context.Context, d calendar.TradeDate) (*Report, error) {
	if m.o.Ledger == nil {
		return nil, ErrReadOnly
	}
	if _, err := m.day(d); err != nil {
		return nil, err
	}
	pin, err := m.pinFresh(ctx)
	if err != nil {
		return nil, fmt.Errorf("readiness of %s: %w", d, err)
	}
	defer pin.Release()
	return m.evaluate(ctx, d, pin)
}

// pinFresh pins what a readiness reads, with everything that was acknowledged
// before the call. The ledger's accounts are then at least as far.
func (m *Market) pinFresh(ctx context.Context) (*engine.Pin, error) {
	var names []engine.Name
	for _, r := range m.tables() {
		if r.role != RoleReference || r.table == m.pack.Close.Roster {
			names = append(names, engine.Name(m.name(r.table)))
		}
	}
	return m.o.Engine.PinFresh(ctx, names, nil)
}

// evaluate judges what a pin shows, with the ledger as it stands.
func (m *Market) evaluate(ctx context.Context, d calendar.TradeDate, pin *engine.Pin) (*Report, error) {
	e := evaluation{m: m, d: d, pin: pin, report: &Report{TradeDate: d.String(), At: m.o.Now().UTC(), date: d},
		markers: map[ledger.Feed]*Marker{}, accounts: map[ledger.Feed]*ledger.Account{}}
	for _, step := range []func(context.Context) error{e.readRoster, e.readMarkers, e.readLedger, e.readFacts} {
		if err := step(ctx); err != nil {
			return nil, fmt.Errorf("readiness of %s: %w", d, err)
		}
	}
	e.judge()
	if err := e.references(ctx); err != nil {
		return nil, fmt.Errorf("readiness of %s: %w", d, err)
	}
	waivers, err := m.Waivers(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("readiness of %s: %w", d, err)
	}
	e.report.waive(waivers)
	e.report.finish()
	return e.report, nil
}

// expected is a roster row that holds on the trade date.
type expected struct {
	source, pattern, stream string
	session                 *regexp.Regexp
	heard                   bool
}

// evaluation gathers what a report says.
type evaluation struct {
	m      *Market
	d      calendar.TradeDate
	pin    *engine.Pin
	report *Report

	roster    []*expected
	markers   map[ledger.Feed]*Marker
	conflicts map[ledger.Feed][]Marker // differing markers, as received
	accounts  map[ledger.Feed]*ledger.Account
	feeds     []*feedState
}

// feedState is a feed of one fact on the trade date.
type feedState struct {
	SourceAccount
	fact               *fact
	all                int64 // rows of the trade date, those outside the marker's range too
	least              int64 // among all
	greatest           int64
	quantity, notional engine.Decimal
	numbers            *big.Int  // sum of the sequence numbers of Rows
	absent             []Range   // rejected or missing
	on                 *expected // nil: the roster does not name it
}

func (e *evaluation) readRoster(ctx context.Context) error {
	day := dateLiteral(e.d)
	y, mon, dom := e.d.Civil()
	ymd := fmt.Sprintf("%04d%02d%02d", y, int(mon), dom)
	return e.m.query(ctx, e.pin, "SELECT source, session_pattern, stream FROM "+quoteName(e.m.name(e.m.pack.Close.Roster))+
		" WHERE effective_from <= "+day+" AND (effective_to IS NULL OR "+day+" < effective_to) ORDER BY stream, source, session_pattern", func(row []any) error {
		x := &expected{source: text(row[0]), stream: text(row[2])}
		x.pattern = strings.ReplaceAll(text(row[1]), "{trade_date}", ymd)
		parts := strings.Split(x.pattern, "*")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		var err error
		if x.session, err = regexp.Compile("^(?s:" + strings.Join(parts, ".*") + ")$"); err != nil {
			return fmt.Errorf("roster: session pattern %q: %w", x.pattern, err)
		}
		e.roster = append(e.roster, x)
		return nil
	})
}

func (e *evaluation) readMarkers(ctx context.Context) error {
	s, _ := e.m.pack.Stream(e.m.pack.Close.Markers)
	e.conflicts = map[ledger.Feed][]Marker{}
	where := " WHERE trade_date = " + dateLiteral(e.d)
	return e.m.query(ctx, e.pin, "SELECT source, session, epoch, first_seq, last_seq, record_count, quantity_total, notional_total, sent_at, record_stream, record_offset FROM "+
		quoteName(e.m.name(s.Table))+where+" ORDER BY source, session, epoch, record_stream, record_offset", func(row []any) error {
		f := ledger.Feed{Source: text(row[0]), Session: text(row[1]), Epoch: integer(row[2])}
		k := Marker{First: integer(row[3]), Last: integer(row[4]), Count: integer(row[5]), QuantityTotal: text(row[6]), NotionalTotal: text(row[7]), RecordID: recordID(row[9], row[10])}
		if at, ok := row[8].(engine.TimestampTZ); ok {
			k.SentAt = instant(int64(at))
		}
		former := e.markers[f]
		if former != nil && !former.same(k) {
			if len(e.conflicts[f]) == 0 {
				e.conflicts[f] = append(e.conflicts[f], *former)
			}
			e.conflicts[f] = append(e.conflicts[f], k)
		}
		if former == nil || !former.same(k) {
			e.markers[f] = &k
		}
		return nil
	})
}

// same reports whether two markers say the same, whenever they were sent.
func (k Marker) same(o Marker) bool {
	k.SentAt, k.RecordID = o.SentAt, o.RecordID
	return k == o
}

func (e *evaluation) readLedger(context.Context) error {
	accounts, _ := e.m.o.Ledger.Accounts()
	for i := range accounts {
		e.accounts[accounts[i].Feed] = &accounts[i].Account
	}
	if u := e.m.o.Ledger.Unkeyed(); len(u) > 0 {
		e.report.Unnumbered = u
	}
	return nil
}

// readFacts reads each fact's rows by feed.
func (e *evaluation) readFacts(ctx context.Context) error {
	for i := range e.m.facts {
		f := &e.m.facts[i]
		seen := map[ledger.Feed]bool{}
		err := e.m.query(ctx, e.pin, e.feedSQL(f), func(row []any) error {
			s := &feedState{fact: f, all: integer(row[3]), least: integer(row[4]), greatest: integer(row[5])}
			s.SourceAccount = SourceAccount{Stream: string(f.Stream), Source: text(row[0]), Session: text(row[1]), Epoch: integer(row[2]),
				Rows: integer(row[6]), First: integer(row[7]), Last: integer(row[8])}
			s.quantity, s.notional, s.numbers = decimal(row[9]), decimal(row[10]), decimal(row[11]).Unscaled
			s.on = e.rosterOf(f, s.Source, s.Session)
			if !f.derived && s.on == nil && e.markers[s.feed()] == nil && (s.all == 0 || e.sourceOn(f, s.Source)) {
				return nil // a session of another date, whose close proves it
			}
			seen[s.feed()] = true
			e.feeds = append(e.feeds, s)
			return nil
		})
		if err != nil {
			return err
		}
		e.addSilentFeeds(f, seen)
	}
	for feed := range e.markers {
		if !slices.ContainsFunc(e.feeds, func(s *feedState) bool { return s.feed() == feed }) {
			e.feeds = append(e.feeds, &feedState{SourceAccount: SourceAccount{Source: feed.Source, Session: feed.Session, Epoch: feed.Epoch}})
		}
	}
	slices.SortFunc(e.feeds, func(a, b *feedState) int {
		return cmp.Or(cmp.Compare(a.Stream, b.Stream), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Session, b.Session), cmp.Compare(a.Epoch, b.Epoch))
	})
	return nil
}

// addSilentFeeds adds feeds that have no rows, but a marker, or rejects or
// conflicts in the ledger.
func (e *evaluation) addSilentFeeds(f *fact, seen map[ledger.Feed]bool) {
	add := func(feed ledger.Feed) {
		on := e.rosterOf(f, feed.Source, feed.Session)
		if seen[feed] || on == nil {
			return
		}
		seen[feed] = true
		e.feeds = append(e.feeds, &feedState{fact: f, on: on, SourceAccount: SourceAccount{Stream: string(f.Stream), Source: feed.Source, Session: feed.Session, Epoch: feed.Epoch}})
	}
	for feed := range e.markers {
		add(feed)
	}
	for feed, a := range e.accounts {
		if len(a.Seen)+len(a.Rejected) > 0 || a.RejectedUnnumbered > 0 || a.ConflictCount > 0 {
			add(feed)
		}
	}
}

// feedSQL counts and sums a fact's rows by feed: all of the trade date, and
// those within the marker's range, which is the whole where there is no marker.
func (e *evaluation) feedSQL(f *fact) string {
	seq := f.stream.Sequence
	q := engine.QuoteIdentifier
	var marks strings.Builder
	for _, feed := range slices.SortedFunc(maps.Keys(e.markers), compareFeeds) {
		k := e.markers[feed]
		if marks.Len() > 0 {
			marks.WriteByte(',')
		}
		fmt.Fprintf(&marks, "(%s, %s, CAST(%d AS BIGINT), CAST(%d AS BIGINT), CAST(%d AS BIGINT))", engine.QuoteLiteral(feed.Source), engine.QuoteLiteral(feed.Session), feed.Epoch, k.First, k.Last)
	}
	join := " CROSS JOIN (SELECT CAST(NULL AS BIGINT) AS lo, CAST(NULL AS BIGINT) AS hi) AS m"
	if marks.Len() > 0 {
		join = fmt.Sprintf(" LEFT JOIN (VALUES %s) AS m(a, b, c, lo, hi) ON f.%s = m.a AND f.%s = m.b AND f.%s = m.c", marks.String(), q(seq.Source), q(seq.Session), q(seq.Epoch))
	}
	n := "f." + q(seq.Sequence)
	within := " FILTER (WHERE m.lo IS NULL OR " + n + " BETWEEN m.lo AND m.hi)"
	quantity, notional := "CAST(0 AS HUGEINT)", "CAST(0 AS HUGEINT)"
	if f.Quantity != "" {
		quantity = "coalesce(sum(CAST(f." + q(f.Quantity) + " AS HUGEINT))" + within + ", 0)"
		if f.Price != "" {
			notional = "coalesce(sum(f." + q(f.Quantity) + " * f." + q(f.Price) + ")" + within + ", 0)"
		}
	}
	dated := "WHERE f." + q(f.stream.Partition) + " = " + dateLiteral(e.d)
	where, all := " "+dated, "count(*)"
	if !f.derived {
		where, all = "", "count(*) FILTER ("+dated+")"
	}
	return fmt.Sprintf("SELECT f.%s, f.%s, f.%s, %s, min(%s), max(%s), count(*)%s, min(%s)%s, max(%s)%s, %s, %s, coalesce(sum(CAST(%s AS HUGEINT))%s, 0) FROM %s AS f%s%s GROUP BY 1, 2, 3",
		q(seq.Source), q(seq.Session), q(seq.Epoch), all, n, n, within, n, within, n, within, quantity, notional, n, within, quoteName(e.m.name(f.stream.Table)), join, where)
}

func compareFeeds(a, b ledger.Feed) int {
	return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Session, b.Session), cmp.Compare(a.Epoch, b.Epoch))
}

// rosterOf finds the roster row that expects the feed.
func (e *evaluation) rosterOf(f *fact, source, session string) *expected {
	for _, x := range e.roster {
		if x.stream == string(f.Stream) && x.source == source && x.session.MatchString(session) {
			return x
		}
	}
	return nil
}

func (e *evaluation) sourceOn(f *fact, source string) bool {
	return slices.ContainsFunc(e.roster, func(x *expected) bool { return x.stream == string(f.Stream) && x.source == source })
}

// references finds corrections of executions that are not here.
func (e *evaluation) references(ctx context.Context) error {
	c := e.m.fact(e.m.pack.Close.Corrections)
	i := slices.IndexFunc(e.m.facts, func(f fact) bool { return f.legs })
	if c == nil || i < 0 {
		return nil
	}
	legs := &e.m.facts[i]
	sql := correctionColumns("c") + " FROM " + quoteName(e.m.name(c.stream.Table)) + " AS c ANTI JOIN " + quoteName(e.m.name(legs.stream.Table)) +
		" AS x ON x.match_number = c.match_number AND (c.leg IS NULL OR x.leg = c.leg) AND x." + engine.QuoteIdentifier(legs.stream.Partition) + " = " + dateLiteral(e.d) +
		" WHERE c." + engine.QuoteIdentifier(c.stream.Partition) + " = " + dateLiteral(e.d) + " ORDER BY c.source, c.session, c.epoch, c.seq"
	err := e.m.query(ctx, e.pin, sql, func(row []any) error {
		e.report.UnknownReferences = append(e.report.UnknownReferences, correctionOf(row))
		return nil
	})
	f := Finding{Check: CheckReference, Stream: string(c.Stream), Status: Passed, Message: fmt.Sprintf("every correction of %s names an execution of that date", e.d)}
	if n := len(e.report.UnknownReferences); n > 0 {
		f.Status, f.Count = Failed, int64(n)
		var names []string
		for i, u := range e.report.UnknownReferences {
			if i == samplesMax {
				break
			}
			names = append(names, fmt.Sprintf("%s of match %d", u.Action, u.MatchNumber))
			f.Records = append(f.Records, RecordSample{RecordID: u.RecordID, Sequence: u.Sequence, Message: u.Source + ": " + names[i]})
		}
		f.Message = fmt.Sprintf("%d corrections name executions that are not here: %s", n, strings.Join(names, ", "))
		f.Remedy = "ask the desk which execution is meant; correct it there, or waive " + string(CheckReference)
	}
	e.report.Findings = append(e.report.Findings, f)
	return err
}

// correctionColumns begins a SELECT that correctionOf reads.
func correctionColumns(alias string) string {
	columns := []string{"record_stream", "record_offset", "action", "match_number", "leg", "new_price", "new_quantity", "reason", "known_at", "source", "session", "epoch", "seq"}
	return "SELECT " + alias + "." + strings.Join(columns, ", "+alias+".")
}

func correctionOf(row []any) Correction {
	c := Correction{RecordID: recordID(row[0], row[1]), Action: text(row[2]), MatchNumber: integer(row[3]), NewPrice: text(row[5]), NewQuantity: text(row[6]),
		Reason: text(row[7]), KnownAt: text(row[8]), Source: text(row[9]), Session: text(row[10]), Epoch: integer(row[11]), Sequence: integer(row[12])}
	if row[4] != nil {
		leg := integer(row[4])
		c.Leg = &leg
	}
	return c
}

// then is a remedy's last part.
func (e *evaluation) then() string { return "then: tapehouse seal --trade-date " + e.d.String() }

func instant(micros int64) time.Time { return time.UnixMicro(micros).UTC() }

// sampleID is the RecordId of a record that the ledger knows by its offset. The
// ledger does not say which stream's: the feed's fact does.
func (e *evaluation) sampleID(f *fact, o record.Offset) string {
	if e.m.o.Streams == nil || f == nil {
		return ""
	}
	for _, s := range e.m.o.Streams.Streams() {
		if s.Config().Name == f.Stream && s.Config().Namespace == e.m.pack.Namespace {
			return record.ID{Key: s.Key(), Offset: o}.String()
		}
	}
	return ""
}

// Waivers returns the waivers of a trade date, oldest first.
func (m *Market) Waivers(ctx context.Context, d calendar.TradeDate) ([]Waiver, error) {
	docs, err := m.o.Catalog.ListDocuments(ctx, KindWaiver, d.String()+"/")
	if err != nil {
		return nil, err
	}
	return parseWaivers(docs)
}

func parseWaivers(docs []catalog.Document) ([]Waiver, error) {
	out := make([]Waiver, 0, len(docs))
	for _, doc := range docs {
		var w Waiver
		if err := unmarshal(doc, &w); err != nil {
			return nil, err
		}
		out = append(out, w)
	}
	return out, nil
}
