package columnar

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/record"
)

// weekdays is a calendar of the tests: every UTC day but Saturday and Sunday is
// one session from 04:00 to 20:00.
type weekdays struct{}

func (weekdays) Version() string { return "weekdays" }

func (weekdays) Interval(ns int64) (from, to int64, date int32, ok bool) {
	const day, hour = int64(24 * time.Hour), int64(time.Hour)
	d := ns / day
	if ns < d*day {
		d--
	}
	if d <= math.MinInt64/day+1 || d >= math.MaxInt64/day-1 {
		return ns, ns + 1, 0, false
	}
	start := d * day
	weekday := ((d+4)%7 + 7) % 7
	switch {
	case weekday == 0 || weekday == 6:
		return start, start + day, 0, false
	case ns < start+4*hour:
		return start, start + 4*hour, 0, false
	case ns >= start+20*hour:
		return start + 20*hour, start + day, 0, false
	}
	return start + 4*hour, start + 20*hour, int32(d), true
}

func dec(p, s int) record.Type { return record.Type{Kind: record.Decimal, Precision: p, Scale: s} }

func typ(k record.Kind) record.Type { return record.Type{Kind: k} }

// tradeSchema is a trade-like record: 15 members, 5 derived columns.
func tradeSchema() record.Schema {
	f := []record.Field{
		{Name: "source", Type: typ(record.String), Required: true},
		{Name: "session", Type: typ(record.String), Required: true},
		{Name: "epoch", Type: typ(record.Long), Required: true},
		{Name: "seq", Type: typ(record.Long), Required: true},
		{Name: "symbol", Type: typ(record.String), Required: true},
		{Name: "executed_at", Type: typ(record.TimestampTZ), Required: true},
		{Name: "price", Type: dec(18, 4), Required: true},
		{Name: "quantity", Type: typ(record.Int), Required: true},
		{Name: "side", Type: typ(record.String), Required: true},
		{Name: "liquidity", Type: typ(record.String), Required: true},
		{Name: "buyer_mpid", Type: typ(record.String), Required: true},
		{Name: "seller_mpid", Type: typ(record.String), Required: true},
		{Name: "buy_order_id", Type: typ(record.Long), Required: true},
		{Name: "sell_order_id", Type: typ(record.Long), Required: true},
		{Name: "match_no", Type: typ(record.Long), Required: true},
		{Name: "executed_at_ns", Type: typ(record.Long), Required: true, Derive: record.EpochNanos, From: "executed_at"},
		{Name: "trade_date", Type: typ(record.Date), Required: true, Derive: record.TradeDate, From: "executed_at"},
		{Name: "record_stream", Type: typ(record.String), Required: true, Derive: record.RecordStream},
		{Name: "record_offset", Type: typ(record.Long), Required: true, Derive: record.RecordOffset},
		{Name: "arrived_at", Type: typ(record.TimestampTZ), Required: true, Derive: record.ArrivedAt},
	}
	for i := range f {
		f[i].ID = i + 1
	}
	return record.Schema{ID: 3, Fields: f}
}

var sequence = record.SequenceColumns{Source: "source", Session: "session", Epoch: "epoch", Sequence: "seq"}

// wideSchema has every type, all optional but the sequence.
func wideSchema() record.Schema {
	f := []record.Field{
		{Name: "source", Type: typ(record.String), Required: true},
		{Name: "session", Type: typ(record.String)},
		{Name: "epoch", Type: typ(record.Long)},
		{Name: "seq", Type: typ(record.Long)},
		{Name: "flag", Type: typ(record.Boolean)},
		{Name: "count", Type: typ(record.Int)},
		{Name: "big", Type: typ(record.Long)},
		{Name: "fee", Type: dec(9, 4)},
		{Name: "price", Type: dec(18, 6)},
		{Name: "ratio", Type: typ(record.Double)},
		{Name: "note", Type: typ(record.String)},
		{Name: "settled", Type: typ(record.Date)},
		{Name: "at", Type: typ(record.TimestampTZ)},
		{Name: "seen_at_the_gateway_of_the_exchange", Type: typ(record.TimestampTZ)},
		{Name: "at_ns", Type: typ(record.Long), Derive: record.EpochNanos, From: "at"},
		{Name: "trade_date", Type: typ(record.Date), Derive: record.TradeDate, From: "at"},
		{Name: "record_stream", Type: typ(record.String), Derive: record.RecordStream},
		{Name: "record_offset", Type: typ(record.Long), Derive: record.RecordOffset},
		{Name: "arrived_at", Type: typ(record.TimestampTZ), Derive: record.ArrivedAt},
		{Name: "fraction", Type: dec(4, 4)},
	}
	for i := range f {
		f[i].ID = 100 + i
	}
	return record.Schema{ID: 7, Fields: f}
}

func compile(t testing.TB, s record.Schema, partition string) *Layout {
	t.Helper()
	l, err := Compile(s, Options{Calendar: weekdays{}, Sequence: sequence, Partition: partition})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

type generator struct {
	r       *rand.Rand
	symbols []string
	mpids   []string
	zs, zm  *rand.Zipf
	at      int64
	price   []int64
	order   int64
	match   int64
	seq     int64
}

func newGenerator(seed uint64) *generator {
	r := rand.New(rand.NewPCG(seed, 7))
	g := &generator{r: r, at: time.Date(2026, 11, 23, 14, 30, 0, 0, time.UTC).UnixNano(), order: 840192837465, match: 1000000}
	letters := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte('A' + r.IntN(26))
		}
		return string(b)
	}
	for range 8000 {
		g.symbols = append(g.symbols, letters(2+r.IntN(4)))
		g.price = append(g.price, 100*int64(100+r.IntN(40000)))
	}
	for range 300 {
		g.mpids = append(g.mpids, letters(4))
	}
	g.zs, g.zm = rand.NewZipf(r, 1.1, 8, 7999), rand.NewZipf(r, 1.2, 4, 299)
	return g
}

func (g *generator) append(b []byte) []byte {
	r := g.r
	s := int(g.zs.Uint64())
	g.at += int64(r.ExpFloat64() * 20000)
	g.price[s] = max(100, g.price[s]+100*int64(r.IntN(5)-2))
	p := g.price[s]
	if r.IntN(20) == 0 {
		p += 50
	}
	quantity := 100 * (1 + r.IntN(5))
	if r.IntN(10) < 4 {
		quantity = 1 + r.IntN(99)
	}
	g.order += int64(1 + r.IntN(40))
	g.match += int64(1 + r.IntN(2))
	g.seq++
	b = append(b, `{"source":"match-1","session":"20261123","epoch":1,"seq":`...)
	b = strconv.AppendInt(b, g.seq, 10)
	b = append(b, `,"symbol":"`...)
	b = append(b, g.symbols[s]...)
	b = append(b, `","executed_at":"`...)
	b = time.Unix(0, g.at).UTC().AppendFormat(b, "2006-01-02T15:04:05.000000000Z")
	b = fmt.Appendf(b, `","price":"%d.%04d","quantity":%d,"side":"%c","liquidity":"%c"`, p/10000, p%10000, quantity, "BS"[r.IntN(2)], "ARX"[min(2, r.IntN(21)/10)])
	return fmt.Appendf(b, `,"buyer_mpid":"%s","seller_mpid":"%s","buy_order_id":%d,"sell_order_id":%d,"match_no":%d}`,
		g.mpids[g.zm.Uint64()], g.mpids[g.zm.Uint64()], g.order-int64(r.IntN(100000)), g.order, g.match)
}

// trades returns n documents in one arena with slack.
func trades(n int, seed uint64) (arena []byte, ends []int32) {
	g := newGenerator(seed)
	for range n {
		arena = g.append(arena)
		ends = append(ends, int32(len(arena)))
	}
	return append(arena, make([]byte, Slack)...)[:len(arena)], ends
}

func split(arena []byte, ends []int32) [][]byte {
	var docs [][]byte
	from := int32(0)
	for _, to := range ends {
		docs = append(docs, bytes.Clone(arena[from:to]))
		from = to
	}
	return docs
}

// cell is a row's value for comparison, derived columns included.
func (b *Batch) cell(row, col int) any {
	c, v := &b.layout.columns[col], &b.cols[col]
	if c.field.Derive == record.EpochNanos {
		v = &b.cols[c.from]
	}
	switch c.field.Derive {
	case record.RecordStream:
		return b.key.String()
	case record.RecordOffset:
		return int64(b.Offset(row))
	case record.ArrivedAt:
		return b.arrivedAt
	}
	if v.hasNull && v.nulls[row] != 0 {
		return nil
	}
	if c.isString {
		return string(v.dict.entry(v.codes[row]))
	}
	x := v.ints[row]
	if c.nanos {
		x = floorMicros(x)
	}
	return x
}

func (b *Batch) rows() [][]any {
	var rows [][]any
	for r := range b.Rows {
		var row []any
		for c := range b.layout.columns {
			row = append(row, b.cell(r, c))
		}
		rows = append(rows, row)
	}
	return rows
}
