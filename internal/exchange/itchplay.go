package exchange

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// ITCH plays a capture of Nasdaq TotalView-ITCH 5.0: repeated u16 big-endian
// length and message, plain or gzip, ended by a length of 0 or the end of the
// file. Every message becomes one order event, in the order of the file; an
// execution becomes its legs, too. It is not safe for concurrent use.
type ITCH struct {
	*player
	r       *bufio.Reader
	buf     []byte
	offset  int64
	message itchMessage
	// symbols and tapes are by stock locate code.
	symbols [1 << 16]string
	tapes   [1 << 16]byte
}

// NewITCH returns a player of the capture in r, which it reads as it goes.
func NewITCH(r io.Reader, cfg PlayConfig) (*ITCH, error) {
	p, err := newPlayer("ITCH", "", cfg)
	if err != nil {
		return nil, err
	}
	b, err := unpack(r)
	if err != nil {
		return nil, err
	}
	return &ITCH{player: p, r: b, buf: make([]byte, 1<<16)}, nil
}

// Next appends the next record's document: see Player. A malformed capture is a
// *CaptureError, on and on; what was read before it is good.
func (p *ITCH) Next(dst []byte) ([]byte, Record, error) { return p.next(dst, p.read) }

// read makes the events of one message.
func (p *ITCH) read() error {
	fault := func(err error) error { return &CaptureError{p.report.Messages + 1, p.offset, err} }
	var head [2]byte
	if _, err := io.ReadFull(p.r, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		return fault(err)
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n == 0 {
		return io.EOF
	}
	b := p.buf[:n]
	if _, err := io.ReadFull(p.r, b); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fault(err)
	}
	if err := decodeITCH(b, &p.message); err != nil {
		return fault(err)
	}
	p.report.Messages++
	p.report.Counts[p.message.typ]++
	if err := p.play(&p.message); err != nil {
		return &CaptureError{p.report.Messages, p.offset, err}
	}
	p.offset += int64(n) + 2
	return nil
}

// symbolOf returns the symbol of a message that names its stock, and learns the
// locate code; or that of the locate code, "" if it was never named.
func (p *ITCH) symbolOf(m *itchMessage) string {
	if m.stock == nil {
		return p.symbols[m.locate]
	}
	name := bytes.TrimRight(m.stock, " ")
	if known := p.symbols[m.locate]; known == string(name) {
		return known
	}
	symbol := printable(string(name))
	// Locate 0 is the market's own and names no stock.
	if m.locate != 0 && symbol != "" {
		p.symbols[m.locate] = symbol
		if p.tapes[m.locate] == 0 {
			p.tapes[m.locate] = p.tapeOf(symbol)
		}
	}
	return symbol
}

// tapeOfListing is the tape of a listing market: Nasdaq's tiers are tape C, NYSE
// is A, all others are B.
func tapeOfListing(category byte) byte {
	switch category {
	case 'Q', 'G', 'S':
		return 'C'
	case 'N':
		return 'A'
	case 'A', 'P', 'Z', 'V':
		return 'B'
	}
	return 0
}

// play makes the events of one message.
func (p *ITCH) play(m *itchMessage) error {
	at := p.midnight + m.sinceNS
	p.lastAt = max(p.lastAt, at)
	symbol := p.symbolOf(m)
	if m.typ == 'R' {
		if tape := tapeOfListing(m.category); tape != 0 {
			p.tapes[m.locate] = tape
		}
	}
	v := event{kind: itchTypes[m.typ].kind, symbol: symbol, tape: p.tapes[m.locate], orderRef: m.ref, newOrderRef: m.newRef,
		match: m.match, quantity: m.shares, hasQuantity: m.hasShares, price: m.price, hasPrice: m.hasPrice, at: at}
	if symbol == "" && m.locate != 0 {
		v.detail = "locate " + strconv.Itoa(int(m.locate))
	}
	switch m.typ {
	case 'A', 'F':
		return p.playAdd(m, v)
	case 'E', 'C', 'X', 'D', 'U':
		return p.playOrder(m, v)
	case 'P':
		o := playedOrder{symbol: symbol, side: itchSide(m.side), tape: v.tape}
		o.mpid, o.capacity, o.sell = p.assign(m.match, saltHidden)
		v.side, v.mpid, v.capacity = o.side, o.mpid, o.capacity
		p.push(p.ordersIn, v)
		if o.side == "" || symbol == "" {
			p.report.LegsWithheld++
			return nil
		}
		p.legs(at, m.match, m.ref, o, m.shares, m.price, feeHidden)
	case 'Q':
		v.detail = "cross " + printable(string(m.code))
		p.push(p.ordersIn, v)
		fee := feeOpen
		if m.category == 'C' {
			fee = feeClose
		}
		// A cross in which nothing matched is announced with no shares.
		if m.shares > 0 {
			p.crossLegs(at, m.match, symbol, v.tape, m.shares, m.price, fee)
		}
	case 'B':
		p.push(p.ordersIn, v)
		p.bust(at, m.match)
	default:
		if v.kind == "" {
			v.kind = "unknown"
			m.code = []byte{m.typ}
		}
		if len(m.code) > 0 {
			v.detail = string(bytes.TrimRight([]byte(printable(string(m.code))), " "))
		}
		v.attribution = printable(string(bytes.TrimRight(m.mpid, " ")))
		p.push(p.ordersIn, v)
	}
	return nil
}

func itchSide(c byte) string {
	switch c {
	case 'B':
		return sideBuy
	case 'S':
		return sideSell
	}
	return ""
}

func (p *ITCH) playAdd(m *itchMessage, v event) error {
	o := playedOrder{symbol: v.symbol, side: itchSide(m.side), price: m.price, hasPrice: true, quantity: m.shares, tape: v.tape}
	if o.side == "" {
		return fmt.Errorf("add of order %d has side %q", m.ref, m.side)
	}
	o.mpid, o.capacity, o.sell = p.assign(m.ref, saltOrder)
	v.side, v.mpid, v.capacity = o.side, o.mpid, o.capacity
	v.attribution = printable(string(bytes.TrimRight(m.mpid, " ")))
	p.push(p.ordersIn, v)
	return p.rest(m.ref, o)
}

// playOrder makes the events of a message that names a resting order.
func (p *ITCH) playOrder(m *itchMessage, v event) error {
	o, known := p.live[m.ref]
	if known {
		v.side, v.mpid, v.capacity = o.side, o.mpid, o.capacity
		if v.symbol == "" {
			v.symbol, v.tape = o.symbol, o.tape
		}
		if !v.hasPrice {
			v.price, v.hasPrice = o.price, o.hasPrice
		}
		if m.typ == 'D' {
			v.quantity, v.hasQuantity = o.quantity, true
		}
	} else {
		p.report.unknown(m.typ, m.ref)
		o = playedOrder{symbol: v.symbol, tape: v.tape}
	}
	p.push(p.ordersIn, v)
	switch m.typ {
	case 'E', 'C':
		if o.side == "" || v.symbol == "" || !v.hasPrice {
			p.report.LegsWithheld++
		} else {
			o.symbol, o.tape = v.symbol, v.tape
			p.legs(v.at, m.match, m.ref, o, m.shares, v.price, feeAdd)
		}
		if known {
			p.reduce(m.ref, o, m.shares)
		}
	case 'X':
		if known {
			p.reduce(m.ref, o, m.shares)
		}
	case 'D':
		delete(p.live, m.ref)
	case 'U':
		delete(p.live, m.ref)
		if !known {
			o.mpid, o.capacity, o.sell = p.assign(m.newRef, saltOrder)
		}
		o.price, o.hasPrice, o.quantity = m.price, true, m.shares
		return p.rest(m.newRef, o)
	}
	return nil
}
