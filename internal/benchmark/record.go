package benchmark

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/tapehouse/tapehouse/internal/record"
)

// The record that is measured with: a trade of 15 members, just below 300 bytes
// of JSON.
//
//	{"source":"b03","session":"20261123","epoch":1,"seq":100123456,"symbol":"ABCD",
//	 "executed_at":"2026-11-23T14:31:07.123456789Z","price":"123.4500","quantity":300,"side":"B","liquidity":"A",
//	 "buyer_mpid":"ABCD","seller_mpid":"EFGH","buy_order_id":840192837,"sell_order_id":840192899,"match_no":100000123}

const (
	stream    = "bench-trades"
	schema    = "bench"
	table     = "bench.trades"
	viewName  = "bench.symbol_totals"
	batchSize = 500 // records a put: the API's limit

	symbols = 8000
	members = 300
)

// members of a record, in its order.
func recordFields() []record.Field {
	f := []record.Field{
		{Name: "source", Type: record.Type{Kind: record.String}},
		{Name: "session", Type: record.Type{Kind: record.String}},
		{Name: "epoch", Type: record.Type{Kind: record.Long}},
		{Name: "seq", Type: record.Type{Kind: record.Long}},
		{Name: "symbol", Type: record.Type{Kind: record.String}},
		{Name: "executed_at", Type: record.Type{Kind: record.TimestampTZ}},
		{Name: "price", Type: record.Type{Kind: record.Decimal, Precision: 18, Scale: 4}},
		{Name: "quantity", Type: record.Type{Kind: record.Int}},
		{Name: "side", Type: record.Type{Kind: record.String}},
		{Name: "liquidity", Type: record.Type{Kind: record.String}},
		{Name: "buyer_mpid", Type: record.Type{Kind: record.String}},
		{Name: "seller_mpid", Type: record.Type{Kind: record.String}},
		{Name: "buy_order_id", Type: record.Type{Kind: record.Long}},
		{Name: "sell_order_id", Type: record.Type{Kind: record.Long}},
		{Name: "match_no", Type: record.Type{Kind: record.Long}},
	}
	for i := range f {
		f[i].ID, f[i].Required = i+1, true
	}
	return f
}

// createTable is the DDL of the measured table: the record's members and what
// the equities pack derives from its own.
const createTable = `CREATE TABLE bench.trades (
	source varchar NOT NULL, session varchar NOT NULL, epoch bigint NOT NULL, seq bigint NOT NULL,
	symbol varchar NOT NULL, executed_at timestamptz NOT NULL, price decimal(18,4) NOT NULL, quantity int NOT NULL,
	side varchar NOT NULL, liquidity varchar NOT NULL, buyer_mpid varchar NOT NULL, seller_mpid varchar NOT NULL,
	buy_order_id bigint NOT NULL, sell_order_id bigint NOT NULL, match_no bigint NOT NULL,
	executed_at_ns bigint NOT NULL, trade_date date NOT NULL, record_stream varchar NOT NULL, record_offset bigint NOT NULL, arrived_at timestamptz NOT NULL)
PARTITIONED BY (trade_date)
TBLPROPERTIES ('tapehouse.sequence' = 'source,session,epoch,seq',
	'tapehouse.derive.executed_at_ns' = 'epoch-ns(executed_at)', 'tapehouse.derive.trade_date' = 'trade-date(executed_at)',
	'tapehouse.derive.record_stream' = 'record-stream', 'tapehouse.derive.record_offset' = 'record-offset', 'tapehouse.derive.arrived_at' = 'arrived-at')`

const viewQuery = `SELECT trade_date, symbol, side, count(*) AS trades, sum(quantity) AS shares, sum(quantity * price) AS notional, min(price) AS low, max(price) AS high
FROM bench.trades GROUP BY trade_date, symbol, side`

// numberFirst is the sequence number that every source begins with: all numbers
// of a run have as many digits.
const numberFirst = 100_000_000

// market is what the sources have in common: names, and skewed choices of them.
type market struct {
	symbol [symbols]string
	price  [symbols]int // of the first trade, in cents
	mpid   [members]string
}

func newMarket(seed uint64) *market {
	r := rand.New(rand.NewPCG(seed, 7))
	letters := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte('A' + r.IntN(26))
		}
		return string(b)
	}
	m := &market{}
	for i := range m.symbol {
		m.symbol[i] = letters(2 + r.IntN(4))
		m.price[i] = 100 + r.IntN(40000)
	}
	for i := range m.mpid {
		m.mpid[i] = letters(4)
	}
	return m
}

// puts is how many different puts a source cycles through. Its records never
// repeat: numbers, ids, times and the price's cents are new in every cycle.
const puts = 16

// source makes the puts of one feed: distinct records, numbered without a gap,
// the same for the same seed. The documents lie rendered in memory, and each
// put writes new digits over the old ones. That costs 50 ns a record where
// rendering costs 240: what a client does before a put takes the server's time.
type source struct {
	name   string
	random *rand.PCG
	puts   [puts]renderedPut
	turn   int

	at     int64 // ns since 1970
	second int64 // of clock
	clock  [20]byte

	first, next int64 // sequence numbers
	order       uint64
	match       uint64
	quantity    int64 // sum over all records of all puts
}

// renderedPut holds documents and where their digits stand.
type renderedPut struct {
	docs     [][]byte
	places   [batchSize]places
	quantity int64
}

// places are the offsets of a document's changing digits.
type places struct{ sequence, clock, cents, buy, sell, match uint16 }

const (
	clockForm  = "2006-01-02T15:04:05."
	orderFirst = 840_192_837
	matchFirst = 100_000_000
)

func newSource(m *market, number int, seed uint64) *source {
	r := rand.New(rand.NewPCG(seed, uint64(number)+100))
	symbol, member := rand.NewZipf(r, 1.1, 8, symbols-1), rand.NewZipf(r, 1.2, 4, members-1)
	s := &source{name: fmt.Sprintf("b%02d", number), random: rand.NewPCG(seed, uint64(number)+1),
		at:    time.Date(2026, time.November, 23, 14, 30, 0, 0, time.UTC).UnixNano(),
		first: numberFirst, next: numberFirst, order: orderFirst, match: matchFirst}
	for i := range s.puts {
		p := &s.puts[i]
		p.docs = make([][]byte, batchSize)
		arena := make([]byte, 0, batchSize*320)
		for k := range p.docs {
			from := len(arena)
			here := func() uint16 { return uint16(len(arena) - from) }
			at := &p.places[k]
			arena = append(arena, `{"source":"`+s.name+`","session":"20261123","epoch":1,"seq":`...)
			at.sequence = here()
			y := symbol.Uint64()
			arena = append(arena, `000000000,"symbol":"`+m.symbol[y]+`","executed_at":"`...)
			at.clock = here()
			arena = append(arena, clockForm+`000000000Z","price":"`...)
			arena = strconv.AppendInt(arena, int64(m.price[y]/100), 10)
			arena = append(arena, '.')
			at.cents = here()
			quantity := 100 * (1 + r.IntN(5))
			if r.IntN(10) < 4 {
				quantity = 1 + r.IntN(99)
			}
			p.quantity += int64(quantity)
			arena = fmt.Appendf(arena, `0000","quantity":%d,"side":"%c","liquidity":"%c","buyer_mpid":"%s","seller_mpid":"%s","buy_order_id":`,
				quantity, "BS"[r.IntN(2)], "ARX"[min(2, r.IntN(21)/10)], m.mpid[member.Uint64()], m.mpid[member.Uint64()])
			at.buy = here()
			arena = append(arena, `000000000,"sell_order_id":`...)
			at.sell = here()
			arena = append(arena, `000000000,"match_no":`...)
			at.match = here()
			arena = append(arena, `000000000}`...)
			p.docs[k] = arena[from:len(arena):len(arena)]
		}
	}
	return s
}

// records is how many records all puts so far have.
func (s *source) records() int64 { return s.next - s.first }

// put returns the next put's documents, valid until the call after the next
// puts-1.
func (s *source) put() [][]byte {
	p := &s.puts[s.turn]
	s.turn = (s.turn + 1) % puts
	for k, doc := range p.docs {
		at := &p.places[k]
		r := s.random.Uint64()
		s.at += int64(r & 0x7fff)
		if sec := s.at / int64(time.Second); sec != s.second {
			s.second = sec
			time.Unix(sec, 0).UTC().AppendFormat(s.clock[:0], clockForm)
		}
		s.order += 1 + r>>16&31
		s.match += 1 + r>>24&1
		nine(doc[at.sequence:], uint64(s.next))
		s.next++
		copy(doc[at.clock:], s.clock[:])
		nine(doc[int(at.clock)+len(s.clock):], uint64(s.at%int64(time.Second)))
		two(doc[at.cents:], r>>32%100)
		number(doc[at.buy:], s.order-r>>40%100_000)
		number(doc[at.sell:], s.order)
		number(doc[at.match:], s.match)
	}
	s.quantity += p.quantity
	return p.docs
}

const pairs = "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748495051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899"

// two writes v < 100 as two digits.
func two(b []byte, v uint64) { copy(b[:2], pairs[2*v:2*v+2]) }

// number writes an order's number, which begins again when its nine digits are
// spent: a tenth one would overwrite what follows, and a leading zero is no JSON.
func number(b []byte, v uint64) { nine(b, 100_000_000+v%900_000_000) }

// nine writes v < 10⁹ as nine digits.
func nine(b []byte, v uint64) {
	b = b[:9]
	high, low := v/10_000, v%10_000
	two(b[7:], low%100)
	two(b[5:], low/100)
	two(b[3:], high%100)
	high /= 100
	two(b[1:], high%100)
	b[0] = byte('0' + high/100)
}
