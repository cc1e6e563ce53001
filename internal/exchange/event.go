package exchange

import (
	"strconv"
	"time"
)

// streamID numbers the streams.
type streamID uint8

const (
	orders streamID = iota
	executions
	corrections
	markers
)

var streamNames = [...]string{StreamOrders, StreamExecutions, StreamCorrections, StreamMarkers}

// What happened to an order, as order_events.event_type has it.
const (
	eventAdd     = "add"
	eventReplace = "replace"
	eventCancel  = "cancel"
	eventDelete  = "delete"
	eventExecute = "execute"
	eventHidden  = "hidden"
	eventCross   = "cross"
	eventBust    = "bust"
	eventSystem  = "system"
	eventStatus  = "status"
)

// Fee codes of execution legs.
const (
	feeAdd      = "add"
	feeRemove   = "remove"
	feeHidden   = "hidden"
	feeMidpoint = "midpoint"
	feeOpen     = "open"
	feeClose    = "close"
	feeRouted   = "routed"
)

// Sides of execution legs. Orders have sideBuy and sideSell only.
const (
	sideBuy         = "B"
	sideSell        = "S"
	sideShort       = "SS"
	sideShortExempt = "SX"
)

// What a correction does.
const (
	actionBust    = "bust"
	actionCorrect = "correct"
)

// event is one record before it is encoded. Empty strings and zero references
// are null; hasQuantity, hasPrice and hasLeg tell a null from a zero.
type event struct {
	feed   *feed
	epoch  int64
	seq    int64
	at     int64  // nanoseconds since the epoch: occurred, executed, known or sent
	kind   string // event_type or action
	symbol string
	side   string
	mpid   string
	fee    string
	// attribution, detail: order events; detail is the reason of a correction.
	attribution string
	detail      string
	orderRef    int64
	newOrderRef int64
	quantity    int64 // new_quantity of a correction
	price       int64 // $0.0001; new_price of a correction
	match       int64
	tradeDate   int32 // of a correction, the execution's; of others, the player's
	leg         int32
	capacity    byte
	tape        byte
	hasQuantity bool
	hasPrice    bool
	hasLeg      bool
	malformed   bool
	marker      *marker
}

// marker is a source's own account of one epoch on a trade date. An epoch
// without records has FirstSeq 1 and LastSeq 0.
type marker struct {
	firstSeq, lastSeq int64
	count             int64
	quantity          int64
	notional          int64 // $0.0001
}

// encoder renders events as JSON. It remembers the text of the last second.
type encoder struct {
	second     int64
	secondText []byte // "2026-11-20T14:30:00."
}

// append appends the event's document to dst. prefix is the feed's, which ends
// where the sequence number stands.
func (enc *encoder) append(dst []byte, e *event) []byte {
	dst = append(dst, e.feed.prefix...)
	switch {
	case e.marker != nil:
		return enc.appendMarker(dst, e)
	case e.feed.stream == orders:
		return enc.appendOrder(dst, e)
	case e.feed.stream == executions:
		return enc.appendExecution(dst, e)
	default:
		return enc.appendCorrection(dst, e)
	}
}

func (enc *encoder) appendOrder(dst []byte, e *event) []byte {
	dst = strconv.AppendInt(dst, e.seq, 10)
	dst = appendText(dst, `,"event_type":"`, e.kind)
	dst = appendText(dst, `,"symbol":"`, e.symbol)
	dst = appendNonZero(dst, `,"order_ref":`, e.orderRef)
	dst = appendNonZero(dst, `,"new_order_ref":`, e.newOrderRef)
	dst = appendText(dst, `,"side":"`, e.side)
	dst = appendQuantityPrice(dst, `,"quantity":`, `,"price":`, e)
	dst = appendNonZero(dst, `,"match_number":`, e.match)
	dst = appendText(dst, `,"mpid":"`, e.mpid)
	dst = appendLetter(dst, `,"capacity":"`, e.capacity)
	dst = appendLetter(dst, `,"tape":"`, e.tape)
	dst = appendText(dst, `,"attribution":"`, e.attribution)
	dst = appendText(dst, `,"detail":"`, e.detail)
	return enc.appendTime(dst, `,"occurred_at":"`, e.at)
}

func (enc *encoder) appendExecution(dst []byte, e *event) []byte {
	dst = strconv.AppendInt(dst, e.seq, 10)
	dst = append(dst, `,"match_number":`...)
	dst = strconv.AppendInt(dst, e.match, 10)
	dst = append(dst, `,"leg":`...)
	dst = strconv.AppendInt(dst, int64(e.leg), 10)
	dst = appendText(dst, `,"symbol":"`, e.symbol)
	dst = appendText(dst, `,"mpid":"`, e.mpid)
	dst = appendText(dst, `,"side":"`, e.side)
	dst = appendLetter(dst, `,"capacity":"`, e.capacity)
	dst = appendText(dst, `,"fee_code":"`, e.fee)
	dst = appendLetter(dst, `,"tape":"`, e.tape)
	dst = appendNonZero(dst, `,"order_ref":`, e.orderRef)
	dst = appendQuantityPrice(dst, `,"quantity":`, `,"price":`, e)
	return enc.appendTime(dst, `,"executed_at":"`, e.at)
}

func (enc *encoder) appendCorrection(dst []byte, e *event) []byte {
	dst = strconv.AppendInt(dst, e.seq, 10)
	dst = appendText(dst, `,"action":"`, e.kind)
	dst = append(dst, `,"trade_date":"`...)
	dst = appendDate(dst, e.tradeDate)
	dst = append(dst, `","match_number":`...)
	dst = strconv.AppendInt(dst, e.match, 10)
	if e.hasLeg {
		dst = append(dst, `,"leg":`...)
		dst = strconv.AppendInt(dst, int64(e.leg), 10)
	}
	if e.hasPrice {
		dst = append(dst, `,"new_price":`...)
		dst = appendPrice(dst, e.price)
	}
	if e.hasQuantity {
		dst = append(dst, `,"new_quantity":`...)
		dst = strconv.AppendInt(dst, e.quantity, 10)
	}
	dst = appendText(dst, `,"reason":"`, e.detail)
	return enc.appendTime(dst, `,"known_at":"`, e.at)
}

func (enc *encoder) appendMarker(dst []byte, e *event) []byte {
	m := e.marker
	dst = appendText(dst, `{"source":"`, e.feed.source)
	dst = appendText(dst, `,"session":"`, e.feed.session)
	dst = append(dst, `,"epoch":`...)
	dst = strconv.AppendInt(dst, e.epoch, 10)
	dst = append(dst, `,"trade_date":"`...)
	dst = appendDate(dst, e.tradeDate)
	dst = append(dst, `","first_seq":`...)
	dst = strconv.AppendInt(dst, m.firstSeq, 10)
	dst = append(dst, `,"last_seq":`...)
	dst = strconv.AppendInt(dst, m.lastSeq, 10)
	dst = append(dst, `,"record_count":`...)
	dst = strconv.AppendInt(dst, m.count, 10)
	dst = append(dst, `,"quantity_total":`...)
	dst = strconv.AppendInt(dst, m.quantity, 10)
	dst = append(dst, `,"notional_total":`...)
	dst = appendPrice(dst, m.notional)
	return enc.appendTime(dst, `,"sent_at":"`, e.at)
}

// appendTime ends the document with its instant.
func (enc *encoder) appendTime(dst []byte, member string, at int64) []byte {
	dst = append(dst, member...)
	if s := at / 1e9; s != enc.second || enc.secondText == nil {
		enc.second = s
		enc.secondText = time.Unix(s, 0).UTC().AppendFormat(enc.secondText[:0], "2006-01-02T15:04:05.")
	}
	dst = append(dst, enc.secondText...)
	return append(appendDigits(dst, at%1e9, 9), `Z"}`...)
}

func appendQuantityPrice(dst []byte, quantity, price string, e *event) []byte {
	if e.hasQuantity {
		dst = append(dst, quantity...)
		dst = strconv.AppendInt(dst, e.quantity, 10)
	}
	if e.hasPrice {
		dst = append(dst, price...)
		dst = appendPrice(dst, e.price)
		if e.malformed {
			// Two digits more than the column holds, and not zeros.
			dst = append(dst, "37"...)
		}
	}
	return dst
}

// appendPrice appends v, in $0.0001, as a decimal with four digits.
func appendPrice(dst []byte, v int64) []byte {
	if v < 0 {
		dst, v = append(dst, '-'), -v
	}
	dst = strconv.AppendInt(dst, v/10000, 10)
	return appendDigits(append(dst, '.'), v%10000, 4)
}

// appendDigits appends v with leading zeros.
func appendDigits(dst []byte, v int64, width int) []byte {
	n := len(dst)
	dst = append(dst, "000000000"[:width]...)
	for i := n + width - 1; v > 0; i-- {
		dst[i] = byte('0' + v%10)
		v /= 10
	}
	return dst
}

// appendDate appends days since 1970-01-01 as 2006-01-02.
func appendDate(dst []byte, days int32) []byte {
	return time.Unix(int64(days)*86400, 0).UTC().AppendFormat(dst, time.DateOnly)
}

func appendNonZero(dst []byte, member string, v int64) []byte {
	if v == 0 {
		return dst
	}
	return strconv.AppendInt(append(dst, member...), v, 10)
}

func appendLetter(dst []byte, member string, c byte) []byte {
	if c == 0 {
		return dst
	}
	return append(append(append(dst, member...), c), '"')
}

// appendText appends a member whose opening quote ends the given text; nothing
// for an empty value. Values are printable ASCII: players replace what is not.
func appendText(dst []byte, member, v string) []byte {
	if v == "" {
		return dst
	}
	dst = append(dst, member...)
	for i := 0; i < len(v); i++ {
		if v[i] == '"' || v[i] == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, v[i])
	}
	return append(dst, '"')
}

// hashRow writes the event's canonical text: see RowHash.
func (e *event) hashRow(h *RowHash) {
	h.Reset()
	h.Text("source", e.feed.source)
	h.Text("session", e.feed.session)
	h.Integer("epoch", e.epoch)
	if m := e.marker; m != nil {
		h.Integer("trade_date", int64(e.tradeDate))
		h.Integer("first_seq", m.firstSeq)
		h.Integer("last_seq", m.lastSeq)
		h.Integer("record_count", m.count)
		h.Integer("quantity_total", m.quantity)
		h.Integer("notional_total", m.notional)
		h.Integer("sent_at", floorMicros(e.at))
		return
	}
	h.Integer("seq", e.seq)
	switch e.feed.stream {
	case orders:
		h.Text("event_type", e.kind)
		hashText(h, "symbol", e.symbol)
		hashNonZero(h, "order_ref", e.orderRef)
		hashNonZero(h, "new_order_ref", e.newOrderRef)
		hashText(h, "side", e.side)
		e.hashQuantityPrice(h)
		hashNonZero(h, "match_number", e.match)
		hashText(h, "mpid", e.mpid)
		hashLetter(h, "capacity", e.capacity)
		hashLetter(h, "tape", e.tape)
		hashText(h, "attribution", e.attribution)
		hashText(h, "detail", e.detail)
		h.Integer("occurred_at", floorMicros(e.at))
		h.Integer("occurred_at_ns", e.at)
		h.Integer("trade_date", int64(e.tradeDate))
	case executions:
		h.Integer("match_number", e.match)
		h.Integer("leg", int64(e.leg))
		h.Text("symbol", e.symbol)
		h.Text("mpid", e.mpid)
		h.Text("side", e.side)
		hashLetter(h, "capacity", e.capacity)
		h.Text("fee_code", e.fee)
		hashLetter(h, "tape", e.tape)
		hashNonZero(h, "order_ref", e.orderRef)
		e.hashQuantityPrice(h)
		h.Integer("executed_at", floorMicros(e.at))
		h.Integer("executed_at_ns", e.at)
		h.Integer("trade_date", int64(e.tradeDate))
	default:
		h.Text("action", e.kind)
		h.Integer("trade_date", int64(e.tradeDate))
		h.Integer("match_number", e.match)
		if e.hasLeg {
			h.Integer("leg", int64(e.leg))
		}
		if e.hasPrice {
			h.Integer("new_price", e.price)
		}
		if e.hasQuantity {
			h.Integer("new_quantity", e.quantity)
		}
		hashText(h, "reason", e.detail)
		h.Integer("known_at", floorMicros(e.at))
	}
}

func (e *event) hashQuantityPrice(h *RowHash) {
	if e.hasQuantity {
		h.Integer("quantity", e.quantity)
	}
	if e.hasPrice {
		h.Integer("price", e.price)
	}
}

func hashText(h *RowHash, column, v string) {
	if v != "" {
		h.Text(column, v)
	}
}

func hashNonZero(h *RowHash, column string, v int64) {
	if v != 0 {
		h.Integer(column, v)
	}
}

func hashLetter(h *RowHash, column string, c byte) {
	if c != 0 {
		h.Letter(column, c)
	}
}

// floorMicros is the timestamptz column's value of an instant. Instants of
// trade dates are after 1970, so that division floors.
func floorMicros(ns int64) int64 { return ns / 1000 }
