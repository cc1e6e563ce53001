package benchmark

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/tapehouse/tapehouse/internal/record"
)

// The record that is measured with: a trade of 15 members, 290 bytes of JSON.
//
//	{"source":"bench-03","session":"20261123","epoch":1,"seq":123456,"symbol":"ABCD",
//	 "executed_at":"2026-11-23T14:31:07.123456789Z","price":"123.4500","quantity":300,"side":"B","liquidity":"A",
//	 "buyer_mpid":"ABCD","seller_mpid":"EFGH","buy_order_id":840192837465,"sell_order_id":840192837499,"match_no":1000123}

const (
	stream    = "bench-trades"
	schema    = "bench"
	table     = "bench.trades"
	viewName  = "bench.symbol_totals"
	batchSize = 500 // records a put: the API's limit

	symbols = 8000
	members = 300
	// draws is the size of the tables that skewed choices are drawn from.
	draws = 1 << 16
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

// market is what the sources have in common: names, and skewed choices of them.
type market struct {
	symbol [symbols]string
	price  [symbols]int64     // of the first trade, in ten-thousandths
	pick   [draws]uint16      // of a symbol: few have most of the trades
	tails  [draws >> 4][]byte // `","side":…` up to the order ids
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
		m.price[i] = 100 * int64(100+r.IntN(40000))
	}
	zipf := rand.NewZipf(r, 1.1, 8, symbols-1)
	for i := range m.pick {
		m.pick[i] = uint16(zipf.Uint64())
	}
	mpids := make([]string, members)
	for i := range mpids {
		mpids[i] = letters(4)
	}
	zipf = rand.NewZipf(r, 1.2, 4, members-1)
	for i := range m.tails {
		m.tails[i] = fmt.Appendf(nil, `,"side":"%c","liquidity":"%c","buyer_mpid":"%s","seller_mpid":"%s","buy_order_id":`,
			"BS"[r.IntN(2)], "ARX"[min(2, r.IntN(21)/10)], mpids[zipf.Uint64()], mpids[zipf.Uint64()])
	}
	return m
}

// source writes the records of one feed: distinct, numbered from 1 without a
// gap, the same for the same seed.
type source struct {
	name   string
	market *market
	random *rand.PCG
	head   []byte // up to the sequence number
	at     int64  // ns since 1970
	second int64  // of clock
	clock  []byte // `","executed_at":"2026-11-23T14:31:07.`
	price  [symbols]int32

	seq   int64 // of the last record
	order int64
	match int64

	quantity int64 // sum over all records
}

func newSource(m *market, number int, seed uint64) *source {
	s := &source{name: fmt.Sprintf("bench-%02d", number), market: m, random: rand.NewPCG(seed, uint64(number)+1),
		at: time.Date(2026, time.November, 23, 14, 30, 0, 0, time.UTC).UnixNano(), order: 8401928, match: 1000000}
	s.head = fmt.Appendf(nil, `{"source":"%s","session":"20261123","epoch":1,"seq":`, s.name)
	for i := range s.price {
		s.price[i] = int32(m.price[i])
	}
	return s
}

// append appends the next record to b. It costs about 100 ns: what a client
// does before a put is on the same cores as the server.
func (s *source) append(b []byte) []byte {
	m := s.market
	r, q := s.random.Uint64(), s.random.Uint64()
	symbol := m.pick[r%draws]
	tail := m.tails[r>>16%uint64(len(m.tails))]
	s.at += int64(r >> 32 & 0x7fff)
	if sec := s.at / int64(time.Second); sec != s.second {
		s.second = sec
		s.clock = append(s.clock[:0], `","executed_at":"`...)
		s.clock = time.Unix(sec, 0).UTC().AppendFormat(s.clock, "2006-01-02T15:04:05.")
	}
	p := max(100, s.price[symbol]+100*(int32(q&7)-3))
	s.price[symbol] = p
	quantity := 100 * int64(1+q>>8%5)
	if q>>16%10 < 4 {
		quantity = int64(1 + q>>24%99)
	}
	s.seq++
	s.order += 1 + int64(q>>32%40)
	s.match += 1 + int64(q>>40&1)
	s.quantity += quantity

	b = append(b, s.head...)
	b = strconv.AppendInt(b, s.seq, 10)
	b = append(b, `,"symbol":"`...)
	b = append(b, m.symbol[symbol]...)
	b = append(b, s.clock...)
	b = appendDigits(b, uint64(s.at%int64(time.Second)), 9)
	b = append(b, `Z","price":"`...)
	b = strconv.AppendInt(b, int64(p/10000), 10)
	b = append(b, '.')
	b = appendDigits(b, uint64(p%10000), 4)
	b = append(b, `","quantity":`...)
	b = strconv.AppendInt(b, quantity, 10)
	b = append(b, tail...)
	b = strconv.AppendInt(b, s.order-int64(q>>44%100000), 10)
	b = append(b, `,"sell_order_id":`...)
	b = strconv.AppendInt(b, s.order, 10)
	b = append(b, `,"match_no":`...)
	b = strconv.AppendInt(b, s.match, 10)
	return append(b, '}')
}

// appendDigits appends v with leading zeros.
func appendDigits(b []byte, v uint64, digits int) []byte {
	n := len(b) + digits
	b = append(b, "000000000"[:digits]...)
	for i := n - 1; v > 0; i-- {
		b[i] = byte('0' + v%10)
		v /= 10
	}
	return b
}
