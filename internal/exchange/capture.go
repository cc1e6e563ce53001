package exchange

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/tapehouse/tapehouse/internal/calendar"
)

// ErrCapture is the root of every error about a capture that cannot be read on.
var ErrCapture = errors.New("invalid capture")

// CaptureError says where a capture is malformed.
type CaptureError struct {
	Message int64 // number of the message or line, from 1
	Offset  int64 // byte offset of the (unpacked) capture at which it begins
	Err     error
}

// Error names the place.
func (e *CaptureError) Error() string {
	return fmt.Sprintf("%s: message %d at byte %d: %s", ErrCapture, e.Message, e.Offset, e.Err)
}

// Unwrap gives ErrCapture and the cause.
func (e *CaptureError) Unwrap() []error { return []error{ErrCapture, e.Err} }

// PlayConfig says how a capture is played. The seed assigns what the capture
// lacks: members, capacities, sale marks, and tapes where the directory is
// missing. All depend on the seed and the order alone.
type PlayConfig struct {
	Seed      uint64
	Calendar  *calendar.Calendar
	TradeDate calendar.TradeDate
	MPIDs     []string // DefaultMPIDs if nil
	// LiveOrdersMax bounds the memory: 0 means 50 million.
	LiveOrdersMax int
}

const liveOrdersMax = 50_000_000

// UnknownReference is an event that names an order which the capture never
// added: it began in mid-stream, or lost messages.
type UnknownReference struct {
	Message int64 // number of the message or line, from 1
	Type    byte  // of the message
	Ref     int64
}

// unknownListedMax bounds the list, not the count.
const unknownListedMax = 10_000

// Report is a player's account of its capture.
type Report struct {
	Messages int64
	// Counts is the number of messages of each type: ITCH's letter, or LOBSTER's
	// digit as a character.
	Counts [256]int64
	// Unknown counts the events whose order is unknown; the first 10,000 are
	// listed. They are emitted, with nulls for what only the order could tell.
	Unknown       int64
	UnknownListed []UnknownReference
	// LegsWithheld counts executions of unknown orders, whose side, symbol or
	// price no one can tell: there are no legs to emit for them.
	LegsWithheld int64
	// Overfills counts executions and cancels of more shares than were left.
	Overfills int64
	// LiveOrders is the number of orders that rest now.
	LiveOrders int
}

func (r *Report) unknown(typ byte, ref int64) {
	r.Unknown++
	if len(r.UnknownListed) < unknownListedMax {
		r.UnknownListed = append(r.UnknownListed, UnknownReference{r.Messages, typ, ref})
	}
}

// playedOrder is a resting order of a capture. side and symbol are "" where the
// capture began after the order.
type playedOrder struct {
	symbol   string
	side     string
	mpid     string
	price    int64
	quantity int64
	sell     uint8
	capacity byte
	tape     byte
	hasPrice bool
}

// player is what the players have in common.
type player struct {
	outbox
	cfg      PlayConfig
	midnight int64 // nanoseconds since the epoch
	members  alias
	ordersIn *feed
	legsIn   *feed
	deskIn   *feed // nil until something is broken
	live     map[int64]playedOrder
	report   Report
	match    int64 // of captures that do not number their matches
	lastAt   int64
	ended    bool
	err      error // of the capture; it stays
}

// newPlayer makes the state that all players share. part, if not "", is what of
// the trade date the capture holds: it tells the sessions of several captures of
// one date apart.
func newPlayer(name, part string, cfg PlayConfig) (*player, error) {
	if cfg.MPIDs == nil {
		cfg.MPIDs = DefaultMPIDs
	}
	if cfg.LiveOrdersMax == 0 {
		cfg.LiveOrdersMax = liveOrdersMax
	}
	if cfg.Calendar == nil {
		return nil, fmt.Errorf("%w: no calendar", ErrConfig)
	}
	if len(cfg.MPIDs) < 1 || len(cfg.MPIDs) > mpidsMax {
		return nil, fmt.Errorf("%w: %d MPIDs: want 1 to %d", ErrConfig, len(cfg.MPIDs), mpidsMax)
	}
	if _, ok := cfg.Calendar.Session(cfg.TradeDate); !ok {
		return nil, fmt.Errorf("%w: %s is not a trade date of the calendar %s", ErrConfig, cfg.TradeDate, cfg.Calendar.Name())
	}
	weights := make([]int64, len(cfg.MPIDs))
	for i := range weights {
		weights[i] = int64(1_000_000 / (i + 2))
	}
	session := sessionID(name, cfg.TradeDate, 1)
	if part != "" {
		session = strings.TrimSuffix(session, "1") + part + "-1"
	}
	p := &player{
		cfg: cfg, midnight: cfg.Calendar.Midnight(cfg.TradeDate).UnixNano(), members: newAlias(weights),
		ordersIn: newFeed(orders, name+"-ORD", session), legsIn: newFeed(executions, name+"-EXE", session),
		live: map[int64]playedOrder{},
	}
	p.tradeDate = cfg.TradeDate
	return p, nil
}

// Report returns the player's account up to the record that Next returned last.
func (p *player) Report() Report {
	r := p.report
	r.LiveOrders = len(p.live)
	return r
}

// next drives a player: read makes the events of one message, io.EOF at the end.
func (p *player) next(dst []byte, read func() error) ([]byte, Record, error) {
	for !p.take() {
		if p.err != nil {
			return dst, Record{}, p.err
		}
		if p.ended {
			return dst, Record{}, io.EOF
		}
		err := read()
		if errors.Is(err, io.EOF) {
			p.ended = true
			feeds := []*feed{p.ordersIn, p.legsIn}
			if p.deskIn != nil {
				feeds = append(feeds, p.deskIn)
			}
			err = p.pushMarkers(feeds, p.lastAt)
		}
		// What the message had queued before its fault is still good.
		p.err = err
	}
	dst, rec := p.encode(dst)
	return dst, rec, nil
}

// assign draws a participant by the seed and a number that stands for it.
func (p *player) assign(ref int64, salt uint64) (mpid string, capacity byte, sell uint8) {
	r := newRandom(p.cfg.Seed^mix(uint64(ref)), salt)
	mpid = p.cfg.MPIDs[p.members.draw(&r)]
	capacity = "AAAAAPPPPPPR"[r.below(12)]
	switch n := r.below(100); {
	case n >= 98:
		sell = 2
	case n >= 55:
		sell = 1
	}
	return mpid, capacity, sell
}

// The salts of assign.
const (
	saltOrder = 11 + iota
	saltAggressor
	saltHidden
	saltCross
	saltTape
)

// tapeOf assigns a tape to a symbol whose listing the capture does not tell.
func (p *player) tapeOf(symbol string) byte {
	r := newRandom(p.cfg.Seed^hashOf(symbol), saltTape)
	return "CCCCCAAAABB"[r.below(11)]
}

func (p *player) rest(ref int64, o playedOrder) error {
	if len(p.live) >= p.cfg.LiveOrdersMax {
		return fmt.Errorf("more than %d live orders", p.cfg.LiveOrdersMax)
	}
	p.live[ref] = o
	return nil
}

// reduce takes shares off an order, which goes when none are left.
func (p *player) reduce(ref int64, o playedOrder, n int64) {
	if n > o.quantity {
		p.report.Overfills++
	}
	if o.quantity -= n; o.quantity <= 0 {
		delete(p.live, ref)
		return
	}
	p.live[ref] = o
}

// legs emits the two legs of an execution: whoever rested, and whoever came.
func (p *player) legs(at, match, ref int64, o playedOrder, quantity, price int64, fee string) {
	buy := o.side == sideBuy
	p.push(p.legsIn, event{match: match, leg: 1, symbol: o.symbol, mpid: o.mpid, side: legSide(buy, o.sell), capacity: o.capacity,
		fee: fee, tape: o.tape, orderRef: ref, quantity: quantity, hasQuantity: true, price: price, hasPrice: true, at: at})
	mpid, capacity, sell := p.assign(match, saltAggressor)
	p.push(p.legsIn, event{match: match, leg: 2, symbol: o.symbol, mpid: mpid, side: legSide(!buy, sell), capacity: capacity,
		fee: feeRemove, tape: o.tape, quantity: quantity, hasQuantity: true, price: price, hasPrice: true, at: at})
}

// crossLegs emits the legs of a cross: two to sixteen, bought and sold shares
// equal.
func (p *player) crossLegs(at, match int64, symbol string, tape byte, shares, price int64, fee string) {
	r := newRandom(p.cfg.Seed^mix(uint64(match)), saltCross)
	number := int32(0)
	for _, buy := range []bool{true, false} {
		left := shares
		for k := 1 + r.below(8); left > 0; k-- {
			n := left
			if k > 1 {
				// Two thirds of an even part, so that something is left.
				n = max(1, left/int64(k)*2/3)
			}
			left -= n
			number++
			mpid, capacity, sell := p.assign(match+int64(number)<<40, saltCross)
			p.push(p.legsIn, event{match: match, leg: number, symbol: symbol, mpid: mpid, side: legSide(buy, sell), capacity: capacity,
				fee: fee, tape: tape, quantity: n, hasQuantity: true, price: price, hasPrice: true, at: at})
		}
	}
}

// bust emits what the break of an execution means for the books.
func (p *player) bust(at, match int64) {
	if p.deskIn == nil {
		name, _ := strings.CutSuffix(p.ordersIn.source, "-ORD")
		p.deskIn = newFeed(corrections, name+"-DESK", sessionID(name, p.cfg.TradeDate, 1))
	}
	p.push(p.deskIn, event{kind: actionBust, match: match, detail: "broken by the market", at: at})
}

// unpack returns the capture's bytes, whether or not r is gzip.
func unpack(r io.Reader) (*bufio.Reader, error) {
	b := bufio.NewReaderSize(r, 1<<16)
	if magic, _ := b.Peek(2); len(magic) < 2 || magic[0] != 0x1f || magic[1] != 0x8b {
		return b, nil // too short for gzip, or plain: the decoder will say
	}
	z, err := gzip.NewReader(b)
	if err != nil {
		return nil, &CaptureError{Message: 1, Err: err}
	}
	return bufio.NewReaderSize(z, 1<<16), nil
}

var (
	isoDateRE = regexp.MustCompile(`(?:^|[^0-9])((?:19|20)\d{2})-?(\d{2})-?(\d{2})(?:[^0-9]|$)`)
	usDateRE  = regexp.MustCompile(`(?:^|[^0-9])(\d{2})(\d{2})((?:19|20)\d{2})(?:[^0-9]|$)`)
)

// TradeDateOfFile reads the trade date from a capture's file name: 2020-01-30 or
// 20200130 anywhere, or 12302019 as Nasdaq names its files.
func TradeDateOfFile(name string) (calendar.TradeDate, bool) {
	base := filepath.Base(name)
	var text string
	if m := isoDateRE.FindStringSubmatch(base); m != nil {
		text = m[1] + "-" + m[2] + "-" + m[3]
	} else if m := usDateRE.FindStringSubmatch(base); m != nil {
		text = m[3] + "-" + m[1] + "-" + m[2]
	}
	d, err := calendar.ParseTradeDate(text)
	return d, err == nil
}
