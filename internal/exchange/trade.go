package exchange

import (
	"time"
)

// recentTrade is an execution that may yet be broken or corrected.
type recentTrade struct {
	match      int64
	price      int64
	quantity   int64
	instrument int32
}

// fillsMax bounds the resting orders that one aggressor takes: 8 fills of three
// records and a routed leg stay within roomMulti.
const fillsMax = 8

// participant is one side of an execution.
type participant struct {
	mpid     int16
	capacity byte
	buy      bool
	sell     uint8
	orderRef int64
	fee      string
}

// leg emits one leg of a match.
func (e *Exchange) leg(i int32, match int64, leg int32, p participant, quantity, price int64) {
	in := &e.instruments[i]
	e.emit(e.engines[in.engine].executions, event{
		match: match, leg: leg, symbol: in.symbol, mpid: e.cfg.MPIDs[p.mpid], side: legSide(p.buy, p.sell),
		capacity: p.capacity, fee: p.fee, tape: in.tape, orderRef: p.orderRef,
		quantity: quantity, hasQuantity: true, price: price, hasPrice: true, at: e.now})
}

// aggressor draws who takes liquidity.
func (e *Exchange) aggressor(buy bool) participant {
	p := participant{buy: buy, fee: feeRemove}
	p.mpid, p.capacity, p.sell = e.trader()
	p.orderRef = e.newRef()
	return p
}

// tradeSize draws an aggressor's quantity: mean about 125, most are odd lots.
func (e *Exchange) tradeSize() int64 {
	n := e.rng.below(100)
	switch {
	case n < 47:
		return int64(1 + e.rng.below(99))
	case n < 78:
		return 100
	case n < 90:
		return int64(100 * (2 + e.rng.below(3)))
	default:
		return int64(100 * (5 + e.rng.below(26)))
	}
}

// trade lets an aggressor take the best orders of a book, by price and time.
// What the book cannot fill is sometimes routed to another market. It reports
// whether anything was executed.
func (e *Exchange) trade() bool {
	i := int32(e.symbols.draw(&e.rng))
	in := &e.instruments[i]
	buy := e.rng.next()&1 == 0
	if len(*in.side(!buy)) == 0 {
		if buy = !buy; len(*in.side(!buy)) == 0 {
			return false
		}
	}
	a := e.aggressor(buy)
	quantity := e.tradeSize()
	for fills := 0; quantity > 0 && fills < fillsMax; fills++ {
		levels := *in.side(!buy)
		if len(levels) == 0 {
			break
		}
		slot := levels[len(levels)-1].head
		o := &e.orders[slot]
		// Near the touch only: nobody pays whatever a thin book asks.
		if far := in.last / 20; fills > 0 && (o.price > in.last+far || o.price < in.last-far) {
			break
		}
		n := min(quantity, int64(o.quantity))
		e.match++
		v := e.orderEvent(eventExecute, o)
		v.quantity, v.match = n, e.match
		e.emit(e.feedOf(i), v)
		resting := participant{o.mpid, o.capacity, o.buy, o.sell, o.ref, feeAdd}
		e.leg(i, e.match, 1, resting, n, o.price)
		e.leg(i, e.match, 2, a, n, o.price)
		e.remember(recentTrade{e.match, o.price, n, i})
		in.last = o.price
		if fills > 0 {
			e.debt[doExecute]++
		}
		if quantity -= n; int64(o.quantity) == n {
			e.remove(slot)
		} else {
			o.quantity -= int32(n)
		}
	}
	if quantity > 0 && e.rng.chance(3000) {
		e.match++
		a.fee = feeRouted
		e.leg(i, e.match, 1, a, quantity, in.last)
		if buy {
			e.routedBuy = e.match
		}
	}
	return true
}

// hidden executes against an order that the book does not show, within the
// spread: at the midpoint if that is where it falls.
func (e *Exchange) hidden() {
	i := int32(e.symbols.draw(&e.rng))
	in := &e.instruments[i]
	bid, ok := in.best(true)
	if !ok {
		bid = in.last
	}
	ask, ok := in.best(false)
	if !ok {
		ask = max(bid, in.last)
	}
	price, fee := bid, feeHidden
	if e.rng.below(3) > 0 && (bid+ask)%2 == 0 && in.tick > 1 {
		price, fee = (bid+ask)/2, feeMidpoint
	} else if e.rng.next()&1 == 0 {
		price = ask
	}
	quantity := e.tradeSize()
	e.match++
	buy := e.rng.next()&1 == 0
	passive := e.aggressor(buy)
	passive.fee = fee
	e.emit(e.feedOf(i), event{kind: eventHidden, symbol: in.symbol, side: orderSide(buy), quantity: quantity, hasQuantity: true,
		price: price, hasPrice: true, match: e.match, mpid: e.cfg.MPIDs[passive.mpid], capacity: passive.capacity, tape: in.tape, at: e.now})
	e.leg(i, e.match, 1, passive, quantity, price)
	e.leg(i, e.match, 2, e.aggressor(!buy), quantity, price)
	e.remember(recentTrade{e.match, price, quantity, i})
}

// recordsPerCross makes the auctions about 12 % of the volume, as measured.
const recordsPerCross = 900

// crossLegsMax bounds the legs of one cross.
const crossLegsMax = 48

// cross holds the auction of the most active symbols: many legs under one match
// number, bought and sold shares equal. It keeps within the auction's quota of
// records.
func (e *Exchange) cross(fee string) {
	quota := min(max(e.crossQuota, 3), e.room())
	for i := range int32(len(e.instruments)) {
		// The event, at least a leg for each side, and the symbols behind.
		legs := int64(2 + e.rng.below(10))
		if i < 20 {
			legs = int64(12 + e.rng.below(crossLegsMax-12))
		}
		legs = min(legs, quota-1)
		if legs < 2 {
			return
		}
		quota -= legs + 1
		e.crossOne(i, fee, int(legs))
	}
}

// crossOne emits the cross of one symbol. One side's legs draw their sizes; the
// other side's share the sum.
func (e *Exchange) crossOne(i int32, fee string, legs int) {
	in := &e.instruments[i]
	price := in.last
	if bid, ok := in.best(true); ok {
		if ask, ok := in.best(false); ok {
			price = max((bid+ask)/2/in.tick*in.tick, in.low)
		}
	}
	e.match++
	e.now += int64(e.rng.below(2000))
	buys := 1 + e.rng.below(legs-1)
	sells := legs - buys
	total := int64(0)
	sizes := make([]int64, 0, crossLegsMax)
	for range max(buys, sells) {
		n := int64(50 * (1 + e.rng.below(9)))
		sizes = append(sizes, n)
		total += n
	}
	e.emit(e.feedOf(i), event{kind: eventCross, symbol: in.symbol, quantity: total, hasQuantity: true, price: price, hasPrice: true,
		match: e.match, tape: in.tape, detail: fee, at: e.now})
	number := int32(0)
	for _, side := range []struct {
		buy  bool
		legs int
	}{{true, buys}, {false, sells}} {
		left := total
		for k := range side.legs {
			n := left
			if k < side.legs-1 {
				// Each leg takes one size; the last takes what is left.
				n = sizes[k]
			}
			left -= n
			number++
			p := e.aggressor(side.buy)
			p.fee = fee
			e.leg(i, e.match, number, p, n, price)
		}
	}
	in.last = price
	e.remember(recentTrade{e.match, price, total, i})
}

// remember keeps some of the recent executions for corrections.
func (e *Exchange) remember(t recentTrade) {
	e.recent[e.rng.below(len(e.recent))] = t
}

// forget takes an execution that was not yet corrected.
func (e *Exchange) forget() (recentTrade, bool) {
	start := e.rng.below(len(e.recent))
	for k := range len(e.recent) {
		if t := &e.recent[(start+k)%len(e.recent)]; t.match != 0 {
			out := *t
			*t = recentTrade{}
			return out, true
		}
	}
	return recentTrade{}, false
}

var bustReasons = [...]string{"clearly erroneous", "mutual agreement", "system error"}

// correct breaks or corrects one recent execution: the first is broken, the
// second corrected, and so on. The matching engine announces a break, too.
func (e *Exchange) correct() {
	e.nextCorrect += max(1, e.cfg.Records*65/100/int64(e.cfg.Corrections))
	t, ok := e.forget()
	if !ok {
		return // nothing was executed yet: the next turn may find something
	}
	e.corrected++
	if e.corrected%2 == 1 {
		in := &e.instruments[t.instrument]
		e.emit(e.feedOf(t.instrument), event{kind: eventBust, symbol: in.symbol, match: t.match, tape: in.tape, at: e.now})
		e.emit(e.desk, event{kind: actionBust, match: t.match, detail: bustReasons[e.rng.below(len(bustReasons))], at: e.now})
		return
	}
	e.emit(e.desk, e.correction(t))
}

// correction moves the price of every leg by a tick.
func (e *Exchange) correction(t recentTrade) event {
	in := &e.instruments[t.instrument]
	price := t.price - in.tick
	if price < in.low {
		price = t.price + in.tick
	}
	return event{kind: actionCorrect, match: t.match, price: price, hasPrice: true, detail: "price correction", at: e.now}
}

// BustAfterClose breaks one of the last executions after the close, a routed
// purchase first: it has one leg, so that it touches one line of one bill. The
// record belongs to the trade desk's session of the next trade date, whose first it is.
// It appends the document to dst; Hash speaks of it until the next call of Next.
// ok is false if nothing was executed or the calendar ends.
func (e *Exchange) BustAfterClose(dst []byte) (doc []byte, rec Record, ok bool) {
	next, ok := e.cfg.Calendar.Next(e.cfg.TradeDate)
	if !ok {
		return dst, Record{}, false
	}
	match := e.routedBuy
	e.routedBuy = 0
	if match == 0 {
		t, ok := e.forget()
		if !ok {
			return dst, Record{}, false
		}
		match = t.match
	}
	if e.late == nil {
		e.late = newFeed(corrections, deskSource, sessionID(deskSource, next, 1))
	}
	v := event{kind: actionBust, match: match, detail: bustReasons[0], tradeDate: int32(e.cfg.TradeDate),
		at: closeOf(e.day).Add(15 * time.Minute).UnixNano()}
	e.late.number(&v)
	e.last = v
	dst, rec = e.encode(dst)
	return dst, rec, true
}
