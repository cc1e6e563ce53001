package exchange

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// The length of each ITCH 5.0 message, and what it is called as an order event.
// Nasdaq TotalView-ITCH 5.0 specification.
var itchTypes = [256]struct {
	size int
	kind string
}{
	'S': {12, eventSystem},
	'R': {39, "directory"},
	'H': {25, eventStatus},
	'Y': {20, "reg-sho"},
	'L': {26, "participant"},
	'V': {35, "breaker-levels"},
	'W': {12, "breaker"},
	'K': {28, "ipo"},
	'J': {35, "luld-collar"},
	'h': {21, "halt"},
	'A': {36, eventAdd},
	'F': {40, eventAdd},
	'E': {31, eventExecute},
	'C': {36, eventExecute},
	'X': {23, eventCancel},
	'D': {19, eventDelete},
	'U': {35, eventReplace},
	'P': {44, eventHidden},
	'Q': {40, eventCross},
	'B': {19, eventBust},
	'I': {50, "imbalance"},
	'N': {20, "retail-interest"},
	'O': {48, "direct-listing"},
}

// itchHeaderSize is type(1) locate(2) tracking(2) time(6).
const itchHeaderSize = 11

// nanosPerDay bounds a message's time; a day of 25 hours has more, but no
// trading in its last.
const nanosPerDay = 24 * 3600 * 1_000_000_000

// itchMessage is a decoded message; fields that its type lacks are zero.
type itchMessage struct {
	typ       byte
	locate    uint16
	sinceNS   int64 // nanoseconds since midnight
	stock     []byte
	mpid      []byte
	code      []byte // flags of administrative messages
	ref       int64
	newRef    int64
	shares    int64
	price     int64
	match     int64
	side      byte
	category  byte // market category, cross type
	hasShares bool
	hasPrice  bool
}

var (
	errITCHShort  = errors.New("shorter than the header")
	errITCHLength = errors.New("length does not fit its type")
	errITCHValue  = errors.New("value beyond 63 bits")
	errITCHTime   = errors.New("time beyond a day")
)

// decodeITCH decodes one message. m's slices alias b. A type that the
// specification does not name is no error: its header is decoded.
func decodeITCH(b []byte, m *itchMessage) error {
	*m = itchMessage{}
	if len(b) < itchHeaderSize {
		return fmt.Errorf("%w: %d bytes", errITCHShort, len(b))
	}
	m.typ = b[0]
	m.locate = binary.BigEndian.Uint16(b[1:])
	m.sinceNS = int64(binary.BigEndian.Uint16(b[5:]))<<32 | int64(binary.BigEndian.Uint32(b[7:]))
	if m.sinceNS >= nanosPerDay {
		return fmt.Errorf("%w: %d ns", errITCHTime, m.sinceNS)
	}
	t := &itchTypes[m.typ]
	if t.size == 0 {
		return nil
	}
	if len(b) != t.size {
		return fmt.Errorf("%w: %q of %d bytes, want %d", errITCHLength, m.typ, len(b), t.size)
	}
	u32 := func(at int) int64 { return int64(binary.BigEndian.Uint32(b[at:])) }
	over := uint64(0)
	u64 := func(at int) int64 {
		v := binary.BigEndian.Uint64(b[at:])
		over |= v
		return int64(v)
	}
	quantity := func(v int64) { m.shares, m.hasShares = v, true }
	price := func(v int64) { m.price, m.hasPrice = v, true }
	switch m.typ {
	case 'S', 'W':
		m.code = b[11:12]
	case 'R':
		m.stock, m.category = b[11:19], b[19]
		quantity(u32(21)) // the round lot
		m.code = b[19:21]
	case 'H':
		m.stock, m.code = b[11:19], b[19:25]
	case 'Y', 'N':
		m.stock, m.code = b[11:19], b[19:20]
	case 'L':
		m.mpid, m.stock, m.code = b[11:15], b[15:23], b[23:26]
	case 'K':
		m.stock, m.code = b[11:19], b[23:24]
		price(u32(24))
	case 'J':
		m.stock = b[11:19]
		price(u32(19))
	case 'h':
		m.stock, m.code = b[11:19], b[19:21]
	case 'A', 'F':
		m.ref, m.side = u64(11), b[19]
		quantity(u32(20))
		m.stock = b[24:32]
		price(u32(32))
		if m.typ == 'F' {
			m.mpid = b[36:40]
		}
	case 'E', 'C':
		m.ref = u64(11)
		quantity(u32(19))
		m.match = u64(23)
		if m.typ == 'C' {
			m.code = b[31:32]
			price(u32(32))
		}
	case 'X':
		m.ref = u64(11)
		quantity(u32(19))
	case 'D':
		m.ref = u64(11)
	case 'U':
		m.ref, m.newRef = u64(11), u64(19)
		quantity(u32(27))
		price(u32(31))
	case 'P':
		m.ref, m.side = u64(11), b[19]
		quantity(u32(20))
		m.stock = b[24:32]
		price(u32(32))
		m.match = u64(36)
	case 'Q':
		quantity(u64(11))
		m.stock = b[19:27]
		price(u32(27))
		m.match, m.category, m.code = u64(31), b[39], b[39:40]
	case 'B':
		m.match = u64(11)
	case 'I':
		quantity(u64(11))
		m.code, m.stock = b[27:28], b[28:36]
		price(u32(44))
		m.category = b[48]
	case 'O':
		m.stock, m.code = b[11:19], b[19:20]
		price(u32(28))
	}
	if over > math.MaxInt64 {
		return fmt.Errorf("%w in %q", errITCHValue, m.typ)
	}
	return nil
}
