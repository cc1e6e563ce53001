package exchange

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
)

// LOBSTER plays a message file of LOBSTER: lines of time (seconds after
// midnight, to the nanosecond), type (1 add, 2 partial cancel, 3
// delete, 4 visible execution, 5 hidden execution, 6 cross, 7 halt), order id,
// size, price ($0.0001) and direction (1: the order buys; -1: it sells), plain or
// gzip. The file covers one symbol, which its name carries. It is not safe for
// concurrent use.
type LOBSTER struct {
	*player
	lines  *bufio.Reader
	symbol string
	tape   byte
	offset int64
}

// lobsterLineSizeMax bounds a line.
const lobsterLineSizeMax = 1 << 10

// NewLOBSTER returns a player of the message file in r, which it reads as it
// goes.
func NewLOBSTER(r io.Reader, symbol string, cfg PlayConfig) (*LOBSTER, error) {
	if symbol == "" || len(symbol) > 16 || printable(symbol) != symbol {
		return nil, fmt.Errorf("%w: symbol %q", ErrConfig, symbol)
	}
	p, err := newPlayer("LOBSTER", symbol, cfg)
	if err != nil {
		return nil, err
	}
	b, err := unpack(r)
	if err != nil {
		return nil, err
	}
	// LOBSTER is made of Nasdaq's feed, its samples of Nasdaq's listings.
	return &LOBSTER{player: p, lines: b, symbol: symbol, tape: 'C'}, nil
}

var lobsterNameRE = regexp.MustCompile(`^([A-Za-z0-9.]+)_\d{4}-\d{2}-\d{2}_`)

// SymbolOfFile reads the symbol from a LOBSTER file's name:
// GOOG_2012-06-21_34200000_57600000_message_1.csv.gz.
func SymbolOfFile(name string) (string, bool) {
	m := lobsterNameRE.FindStringSubmatch(filepath.Base(name))
	if m == nil {
		return "", false
	}
	return m[1], true
}

// Next appends the next record's document: see Player. A malformed line is a
// *CaptureError, on and on; what was read before it is good.
func (p *LOBSTER) Next(dst []byte) ([]byte, Record, error) { return p.next(dst, p.read) }

// lobsterMessage is one line.
type lobsterMessage struct {
	sinceNS            int64
	typ                int64
	ref, shares, price int64
	direction          int64
}

var errLOBSTERFields = errors.New("want time,type,order id,size,price,direction")

// decodeLOBSTER decodes a line without its end. Further fields, as some files
// have them for halts, are ignored.
func decodeLOBSTER(line []byte, m *lobsterMessage) error {
	var f [6][]byte
	for i := range f {
		var ok bool
		f[i], line, ok = bytes.Cut(line, []byte{','})
		if !ok && i < len(f)-1 {
			return errLOBSTERFields
		}
	}
	var err error
	if m.sinceNS, err = parseSeconds(f[0]); err != nil {
		return err
	}
	for i, v := range []*int64{&m.typ, &m.ref, &m.shares, &m.price, &m.direction} {
		if *v, err = strconv.ParseInt(string(f[i+1]), 10, 64); err != nil {
			return fmt.Errorf("field %d: %w", i+2, err)
		}
	}
	switch {
	case m.typ < 1 || m.typ > 7:
		return fmt.Errorf("type %d: want 1 to 7", m.typ)
	case m.direction != 1 && m.direction != -1:
		return fmt.Errorf("direction %d: want 1 or -1", m.direction)
	case m.typ != 7 && (m.shares < 0 || m.price < 0):
		return fmt.Errorf("size %d, price %d: want none negative", m.shares, m.price)
	}
	return nil
}

// fractionDigitsMax bounds the digits of a time's fraction. Some files carry the
// noise of a binary fraction behind the nine that are measured.
const fractionDigitsMax = 18

var errLOBSTERTime = errors.New("want seconds after midnight and a fraction of at most 18 digits")

// parseSeconds reads "34200.015105074" as nanoseconds, exactly; digits beyond
// the ninth round to the nearest nanosecond.
func parseSeconds(b []byte) (int64, error) {
	whole, fraction, _ := bytes.Cut(b, []byte{'.'})
	s, err := strconv.ParseUint(string(whole), 10, 32)
	if err != nil || s >= 24*3600 || len(fraction) > fractionDigitsMax {
		return 0, fmt.Errorf("time %q: %w", b, errLOBSTERTime)
	}
	for _, c := range fraction {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("time %q: %w", b, errLOBSTERTime)
		}
	}
	ns := int64(0)
	for i := range 9 {
		ns *= 10
		if i < len(fraction) {
			ns += int64(fraction[i] - '0')
		}
	}
	if len(fraction) > 9 && fraction[9] >= '5' {
		ns++
	}
	return int64(s)*1e9 + ns, nil
}

// read makes the events of one line.
func (p *LOBSTER) read() error {
	for {
		line, err := p.lines.ReadSlice('\n')
		if len(line) > lobsterLineSizeMax || errors.Is(err, bufio.ErrBufferFull) {
			return &CaptureError{p.report.Messages + 1, p.offset, fmt.Errorf("line longer than %d bytes", lobsterLineSizeMax)}
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return &CaptureError{p.report.Messages + 1, p.offset, err}
		}
		atEnd := err != nil
		text := bytes.TrimRight(line, "\r\n")
		if len(text) == 0 {
			if atEnd {
				return io.EOF
			}
			p.offset += int64(len(line))
			continue
		}
		var m lobsterMessage
		if err := decodeLOBSTER(text, &m); err != nil {
			return &CaptureError{p.report.Messages + 1, p.offset, err}
		}
		p.report.Messages++
		p.report.Counts['0'+m.typ]++
		if err := p.play(&m); err != nil {
			return &CaptureError{p.report.Messages, p.offset, err}
		}
		p.offset += int64(len(line))
		return nil
	}
}

// play makes the events of one message.
func (p *LOBSTER) play(m *lobsterMessage) error {
	at := p.midnight + m.sinceNS
	p.lastAt = max(p.lastAt, at)
	v := event{symbol: p.symbol, tape: p.tape, orderRef: max(m.ref, 0), side: orderSide(m.direction == 1),
		quantity: m.shares, hasQuantity: true, price: m.price, hasPrice: true, at: at}
	if m.typ == 7 {
		// The price says what happened: -1 halt, 0 quoting resumes, 1 trading.
		p.push(p.ordersIn, event{kind: eventStatus, symbol: p.symbol, tape: p.tape, detail: "state " + strconv.FormatInt(m.price, 10), at: at})
		return nil
	}
	if m.typ == 6 {
		p.match++
		v.kind, v.match, v.side, v.orderRef = eventCross, p.match, "", 0
		p.push(p.ordersIn, v)
		fee := feeOpen
		if m.sinceNS >= 12*3600*1e9 {
			fee = feeClose
		}
		if m.shares > 0 {
			p.crossLegs(at, p.match, p.symbol, p.tape, m.shares, m.price, fee)
		}
		return nil
	}
	// The line tells the whole order, so that an order from before the file is
	// known as well as any other; it is reported all the same.
	o, known := p.live[m.ref]
	if !known {
		o = playedOrder{symbol: p.symbol, side: v.side, price: m.price, hasPrice: true, quantity: m.shares, tape: p.tape}
		o.mpid, o.capacity, o.sell = p.assign(m.ref, saltOrder)
		if m.typ == 5 {
			// A hidden order has no id: its executions have.
			o.mpid, o.capacity, o.sell = p.assign(p.match+1, saltHidden)
		} else if m.typ != 1 {
			p.report.unknown(byte('0'+m.typ), m.ref)
		}
	}
	v.mpid, v.capacity = o.mpid, o.capacity
	switch m.typ {
	case 1:
		v.kind = eventAdd
		p.push(p.ordersIn, v)
		return p.rest(m.ref, o)
	case 2, 3:
		v.kind = eventCancel
		if m.typ == 3 {
			v.kind = eventDelete
		}
		p.push(p.ordersIn, v)
		switch {
		case m.typ == 3:
			delete(p.live, m.ref)
		case known:
			p.reduce(m.ref, o, m.shares)
		}
	case 4, 5:
		p.match++
		v.kind, v.match = eventExecute, p.match
		fee := feeAdd
		if m.typ == 5 {
			v.kind, fee = eventHidden, feeHidden
		}
		p.push(p.ordersIn, v)
		p.legs(at, p.match, v.orderRef, o, m.shares, m.price, fee)
		if known && m.typ == 4 {
			p.reduce(m.ref, o, m.shares)
		}
	}
	return nil
}
