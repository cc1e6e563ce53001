package exchange

import (
	"fmt"
	"io"
	"time"

	"github.com/tapehouse/tapehouse/internal/calendar"
)

// engine is one matching engine: its feed of orders and its feed of execution
// legs number their records apart.
type engine struct {
	orders, executions *feed
}

// phase is a stretch of the trade date with its share of the records.
type phase struct {
	open, close int64 // nanoseconds since the epoch
	until       int64 // the number of records numbered when it ends
	auction     string
}

// Exchange generates one trade date. It is not safe for concurrent use.
type Exchange struct {
	cfg Config
	day calendar.Day
	rng random
	outbox
	books
	engines []engine
	desk    *feed
	late    *feed   // the desk, after the close
	feeds   []*feed // all, in the order of their markers

	symbols    alias
	members    alias
	phases     []phase
	phase      int
	now        int64
	nextAt     int64 // of the next action; before now: not drawn yet
	numbered   int64
	liveTarget int
	due        dueHeap
	debt       [len(mix100)]int // events that came as a side effect of others
	orderRef   int64
	match      int64

	recent      [64]recentTrade
	corrected   int
	routedBuy   int64 // match number of the last routed purchase
	nextCorrect int64
	restarted   int
	crossQuota  int64
	faults      []Fault
	dropped     bool
	malformed   bool
	purging     bool
}

// Fault is one defect that sabotage made.
type Fault struct {
	Kind   string // "dropped" or "malformed"
	Stream string
	Key    Key
}

// The measured mix of order events, per 10,000 messages of a whole day. Cross
// events come from the auctions.
const (
	doAdd = iota
	doDelete
	doReplace
	doExecute
	doCancel
	doHidden
)

var mix100 = [...]int64{doAdd: 4414, doDelete: 4255, doReplace: 805, doExecute: 217, doCancel: 104, doHidden: 45}

var mixTable = newAlias(mix100[:])

// The measured share of trades in each half hour of the core session, in 1/1000.
var intraday = [...]int64{101, 72, 87, 71, 84, 60, 49, 47, 45, 84, 57, 79, 140}

// The shares of the sessions around the core, in 1/10000 of the records.
const (
	nightShare = 40
	preShare   = 360
	postShare  = 200
	// burstShare comes in the first 2.4 ms of the core session, which at two
	// million records is the measured 423,000 messages a second.
	burstShare  = 5
	burstLength = 2400 * time.Microsecond
)

// Orders that are deleted within a second of their arrival, of 10,000; the
// measured median life is 0.14 to 0.37 s.
const fleetingShare = 5800

// actionShare is the percentage of records that an action of their own causes;
// the others are deletes that were due, and legs. It spreads the actions evenly
// over a session.
const actionShare = 68

// roomMulti is the number of records that an action of several records needs.
const roomMulti = 32

// New returns the exchange at the beginning of its trade date. Errors wrap
// ErrConfig.
func New(cfg Config) (*Exchange, error) {
	day, err := cfg.check()
	if err != nil {
		return nil, err
	}
	e := &Exchange{cfg: cfg, day: day, rng: newRandom(cfg.Seed, 1)}
	e.outbox.tradeDate = cfg.TradeDate
	for i := range cfg.Sources {
		session := sessionID(engineName(i), cfg.TradeDate, 1)
		g := engine{newFeed(orders, engineName(i)+"-ORD", session), newFeed(executions, engineName(i)+"-EXE", session)}
		e.engines = append(e.engines, g)
		e.feeds = append(e.feeds, g.orders, g.executions)
	}
	e.desk = newFeed(corrections, deskSource, sessionID(deskSource, cfg.TradeDate, 1))
	e.feeds = append(e.feeds, e.desk)
	e.symbols = newAlias(symbolWeights(cfg.Symbols))
	weights := make([]int64, len(cfg.MPIDs))
	for i := range weights {
		// A few members make most of the market.
		weights[i] = int64(1_000_000 / (i + 2))
	}
	e.members = newAlias(weights)
	e.listInstruments()
	e.liveTarget = int(min(max(cfg.Records/60, 8), int64(cfg.Symbols)*40))
	e.crossQuota = cfg.Records / recordsPerCross
	e.nextCorrect = cfg.Records * 3 / 10
	e.plan()
	e.now = e.phases[0].open
	return e, nil
}

// listInstruments gives each symbol its engine, tape and first price. Symbols
// are four letters that begin with Z, as test symbols do.
func (e *Exchange) listInstruments() {
	r := newRandom(e.cfg.Seed, 2)
	tapes := "CCCCCCCCCAAAAAAABBBB"
	for i := range e.cfg.Symbols {
		n := i * 7919 % (26 * 26 * 26) // 7919 is prime: every symbol is its own
		in := instrument{
			symbol: string([]byte{'Z', byte('A' + n/676), byte('A' + n/26%26), byte('A' + n%26)}),
			tape:   tapes[r.below(len(tapes))],
			engine: uint8(i % e.cfg.Sources),
		}
		if r.chance(250) {
			in.tick, in.low, in.high = 1, 100, 9999
			in.last = int64(1000 + r.below(8900))
		} else {
			// From $1.50 in steps of a tenth; two dice, so that $25 is common.
			price := int64(15000)
			for range r.below(29) + r.below(29) {
				price += price / 10
			}
			in.tick, in.low, in.high = 100, 10100, 99_000_000
			in.last = price / 100 * 100
		}
		e.instruments = append(e.instruments, in)
	}
}

// whole is the unit of the plan's shares.
const whole = 10_000_000

// portion is the part of records that share, of whole, comes to.
func portion(records, share int64) int64 {
	return records/whole*share + records%whole*share/whole
}

// plan lays the records over the sessions.
func (e *Exchange) plan() {
	const unit = whole / 10000 // of the sessions' shares
	planned, crosses := int64(0), int64(0)
	// The auctions and the expiry of orders at the end are not of the shape.
	shaped := max(e.cfg.Records-2*e.crossQuota-int64(e.liveTarget)*9/8, 0)
	add := func(open, close time.Time, share int64, auction string) {
		planned += share
		if auction != "" {
			crosses += e.crossQuota
		}
		e.phases = append(e.phases, phase{open.UnixNano(), close.UnixNano(), portion(shaped, planned) + crosses, auction})
	}
	core, _ := e.day.Find(sessionCore)
	post, hasPost := e.day.Find(sessionPost)
	coreShare := int64(10000 - burstShare)
	if hasPost {
		coreShare -= postShare
	}
	if s, ok := e.day.Find(sessionNight); ok {
		add(s.OpenAt, s.CloseAt, nightShare*unit, "")
		coreShare -= nightShare
	}
	if s, ok := e.day.Find(sessionPre); ok {
		add(s.OpenAt, s.CloseAt, preShare*unit, "")
		coreShare -= preShare
	}
	add(core.OpenAt, core.OpenAt.Add(burstLength), burstShare*unit, feeOpen)
	// A half day keeps the shape of the first half hours and of the last.
	slots := max(1, min(int(core.CloseAt.Sub(core.OpenAt)/(30*time.Minute)), len(intraday)))
	shares := append(append([]int64{}, intraday[:slots-1]...), intraday[len(intraday)-1])
	sum := int64(0)
	for _, s := range shares {
		sum += s
	}
	for i, s := range shares {
		open := core.OpenAt.Add(time.Duration(i) * 30 * time.Minute)
		end := open.Add(30 * time.Minute)
		if i == slots-1 {
			end = core.CloseAt
		}
		if i == 0 {
			open = open.Add(burstLength)
		}
		add(open, end, coreShare*unit*s/sum, "")
	}
	if hasPost {
		add(post.OpenAt, post.CloseAt, postShare*unit, feeClose)
	} else {
		add(core.CloseAt.Add(-time.Second), core.CloseAt, 0, feeClose)
	}
	last := &e.phases[len(e.phases)-1]
	last.until = e.cfg.Records
	// The last half second is for the orders that expire.
	last.close -= int64(500 * time.Millisecond)
}

// Next appends the next record's document: see Player.
func (e *Exchange) Next(dst []byte) ([]byte, Record, error) {
	for {
		for e.take() {
			if e.spoil(&e.last) {
				continue
			}
			dst, rec := e.encode(dst)
			return dst, rec, nil
		}
		if e.numbered == e.cfg.Records {
			if e.markersQueued {
				return dst, Record{}, io.EOF
			}
			if err := e.pushMarkers(e.feeds, closeOf(e.day).Add(time.Second).UnixNano()); err != nil {
				return dst, Record{}, err
			}
			continue
		}
		e.step()
	}
}

// spoil applies sabotage to the event that is about to leave, and reports
// whether it is withheld.
func (e *Exchange) spoil(v *event) bool {
	s := &e.cfg.Sabotage
	if s.SilentSource == v.feed.source {
		return true
	}
	if v.marker != nil || e.numbered < e.cfg.Records/2 {
		return false
	}
	key := Key{v.feed.source, v.feed.session, v.epoch, v.seq}
	if s.DropSequence && !e.dropped && v.feed.stream == orders {
		e.dropped = true
		e.faults = append(e.faults, Fault{"dropped", streamNames[v.feed.stream], key})
		return true
	}
	if s.MalformRecord && !e.malformed && v.feed.stream == executions {
		e.malformed, v.malformed = true, true
		e.faults = append(e.faults, Fault{"malformed", streamNames[v.feed.stream], key})
	}
	return false
}

// Faults lists what sabotage did so far. A silent source is not listed.
func (e *Exchange) Faults() []Fault { return e.faults }

// Sources lists the sources in the order of their markers.
func (e *Exchange) Sources() []string {
	var s []string
	for _, f := range e.feeds {
		s = append(s, f.source)
	}
	return s
}

// room is the number of records that may still be numbered while every live
// order keeps one for its end.
func (e *Exchange) room() int64 { return e.cfg.Records - e.numbered - int64(len(e.live)) }

// step makes at least one event, or moves to the next phase.
func (e *Exchange) step() {
	room := e.room()
	if room == 0 || e.purging {
		e.purge()
		return
	}
	p := &e.phases[e.phase]
	if e.numbered >= p.until && e.phase < len(e.phases)-1 {
		e.phase++
		p = &e.phases[e.phase]
		e.now = max(e.now, p.open)
		if p.auction != "" {
			e.cross(p.auction)
		}
		return
	}
	if e.restarted < e.cfg.Restarts && e.numbered > e.cfg.Records*int64(55+e.restarted)/100 {
		// The second engine first: the first stays as it is most looked at.
		e.restarted++
		g := e.engines[e.restarted%len(e.engines)]
		g.orders.restart()
		g.executions.restart()
	}
	if e.corrected < e.cfg.Corrections && e.numbered >= e.nextCorrect && room >= 4 {
		e.correct()
		return
	}
	if e.nextAt < e.now {
		left := max((p.until-e.numbered)*actionShare/100, 1)
		e.nextAt = e.now + e.rng.interval(max(p.close-e.now, 0)/left)
	}
	at := min(e.nextAt, max(p.close-1, e.now))
	if len(e.due) > 0 && e.due[0].at <= at {
		d := e.due.pop()
		if o := &e.orders[d.slot]; o.ref == d.ref {
			e.now = max(e.now, min(d.at, p.close-1))
			e.delete(d.slot)
			e.debt[doDelete]++
		}
		return
	}
	e.now, e.nextAt = at, 0
	e.act(room)
}

// act does one thing of the mix. What cannot be done becomes an add, or, where
// no record may be spared for the new order's end, a replace.
func (e *Exchange) act(room int64) {
	action := doAdd
	for {
		action = mixTable.draw(&e.rng)
		if e.debt[action] == 0 {
			break
		}
		e.debt[action]--
	}
	switch {
	case action == doAdd && len(e.live) > e.liveTarget*5/4:
		action = doDelete
	case action == doDelete && len(e.live) < e.liveTarget:
		action = doAdd
	}
	switch {
	case action == doExecute && room >= roomMulti && e.trade():
		return
	case action == doHidden && room >= roomMulti:
		e.hidden()
		return
	case len(e.live) == 0 || action == doAdd || action == doExecute || action == doHidden:
	default:
		slot := e.live[e.rng.below(len(e.live))]
		o := &e.orders[slot]
		switch {
		case action == doDelete && !o.stub:
			e.delete(slot)
			return
		case action == doReplace && !o.stub:
			e.replaceOrder(slot)
			return
		case action == doCancel && !o.stub && o.quantity > 1:
			e.cancel(slot)
			return
		}
	}
	if room >= 2 {
		e.add()
		return
	}
	if len(e.live) > 0 && !e.orders[e.live[0]].stub {
		e.replaceOrder(e.live[0])
		return
	}
	g := &e.engines[0]
	e.emit(g.orders, event{kind: eventSystem, detail: "heartbeat", at: e.now})
}

// emit numbers an event and counts it against the trade date's records.
func (e *Exchange) emit(f *feed, v event) {
	e.push(f, v)
	e.numbered++
}

// purge deletes every live order: none is carried over.
func (e *Exchange) purge() {
	if !e.purging {
		e.purging = true
		e.now = max(e.now, e.phases[len(e.phases)-1].close)
	}
	e.now += int64(e.rng.below(1000))
	e.delete(e.live[len(e.live)-1])
}

// orderEvent is what all events of an order have in common.
func (e *Exchange) orderEvent(kind string, o *order) event {
	in := &e.instruments[o.instrument]
	return event{kind: kind, symbol: in.symbol, orderRef: o.ref, side: orderSide(o.buy),
		quantity: int64(o.quantity), hasQuantity: true, price: o.price, hasPrice: true,
		mpid: e.cfg.MPIDs[o.mpid], capacity: o.capacity, tape: in.tape, at: e.now}
}

func orderSide(buy bool) string {
	if buy {
		return sideBuy
	}
	return sideSell
}

func (e *Exchange) feedOf(instrument int32) *feed {
	return e.engines[e.instruments[instrument].engine].orders
}

func (e *Exchange) newRef() int64 {
	e.orderRef++
	return e.orderRef
}

// trader draws a member's MPID, its capacity and how it marks a sale.
func (e *Exchange) trader() (mpid int16, capacity byte, sell uint8) {
	mpid = int16(e.members.draw(&e.rng))
	n := e.rng.below(100)
	switch {
	case n < 48:
		capacity = 'A'
	case n < 95:
		capacity = 'P'
	default:
		capacity = 'R'
	}
	switch n = e.rng.below(100); {
	case n < 55:
		sell = 0
	case n < 98:
		sell = 1
	default:
		sell = 2
	}
	return mpid, capacity, sell
}

var sellSides = [...]string{sideSell, sideShort, sideShortExempt}

func legSide(buy bool, sell uint8) string {
	if buy {
		return sideBuy
	}
	return sellSides[sell]
}

func (e *Exchange) add() {
	i := int32(e.symbols.draw(&e.rng))
	buy := e.rng.next()&1 == 0
	o := order{ref: e.newRef(), instrument: i, buy: buy}
	o.mpid, o.capacity, o.sell = e.trader()
	// A stub quote fulfils a market maker's duty and no more.
	if o.stub = e.rng.chance(10); o.stub {
		o.quantity, o.price = 100, 1
		if !buy {
			o.price = 1_999_999_900
		}
	} else {
		o.quantity = e.orderSize()
		o.price = e.quote(i, buy)
	}
	slot := e.insert(o)
	v := e.orderEvent(eventAdd, &e.orders[slot])
	if o.stub || e.rng.chance(125) {
		v.attribution = v.mpid
	}
	e.emit(e.feedOf(i), v)
	if !o.stub && e.rng.chance(fleetingShare) {
		e.due.push(dueDelete{e.now + fleeting[e.rng.below(len(fleeting))], o.ref, slot})
	}
}

// orderSize draws an order's quantity: 56 % are of 100 shares, 35 % odd lots.
func (e *Exchange) orderSize() int32 {
	n := e.rng.below(100)
	switch {
	case n < 56:
		return 100
	case n < 91:
		return int32(1 + e.rng.below(99))
	case n < 96:
		return int32(100 * (2 + e.rng.below(4)))
	default:
		return int32(100 * (10 + e.rng.below(41)))
	}
}

// quote draws the price of a passive order: near the best of its side, never
// through the other.
func (e *Exchange) quote(i int32, buy bool) int64 {
	in := &e.instruments[i]
	// Expensive shares have wider books.
	step := in.tick * (1 + in.last/1_000_000)
	base, ok := in.best(buy)
	sign := int64(1)
	if buy {
		sign = -1
	}
	if !ok {
		base = in.last + sign*step
	}
	n := int64(0)
	switch p := e.rng.below(100); {
	case p < 14:
		n = -1 // improves
	case p < 50:
		n = 0 // joins
	case p < 85:
		n = int64(1 + e.rng.below(5))
	default:
		n = int64(6 + e.rng.below(30))
	}
	price := base + sign*n*step
	if other, ok := in.best(!buy); ok {
		if buy {
			price = min(price, other-in.tick)
		} else {
			price = max(price, other+in.tick)
		}
	}
	// The bounds leave a tick for each side, so that books never cross.
	if buy {
		return max(min(price, in.high-in.tick), in.low)
	}
	return min(max(price, in.low+in.tick), in.high)
}

func (e *Exchange) delete(slot int32) {
	o := &e.orders[slot]
	e.emit(e.feedOf(o.instrument), e.orderEvent(eventDelete, o))
	e.remove(slot)
}

func (e *Exchange) cancel(slot int32) {
	o := &e.orders[slot]
	n := 1 + e.rng.below(int(o.quantity)-1)
	v := e.orderEvent(eventCancel, o)
	v.quantity = int64(n)
	e.emit(e.feedOf(o.instrument), v)
	o.quantity -= int32(n)
}

func (e *Exchange) replaceOrder(slot int32) {
	o := &e.orders[slot]
	v := e.orderEvent(eventReplace, o)
	v.newOrderRef = e.newRef()
	quantity := o.quantity
	if e.rng.below(3) == 0 {
		quantity = e.orderSize()
	}
	price := e.quote(o.instrument, o.buy)
	v.quantity, v.price = int64(quantity), price
	e.emit(e.feedOf(o.instrument), v)
	e.replace(slot, v.newOrderRef, price, quantity)
}

// String names the configuration for a log line.
func (e *Exchange) String() string {
	return fmt.Sprintf("%s of %d records, %d symbols, %d engines, seed %d", e.cfg.TradeDate, e.cfg.Records, e.cfg.Symbols, e.cfg.Sources, e.cfg.Seed)
}
