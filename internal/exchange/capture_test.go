package exchange_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/exchange"
)

func playConfig(t testing.TB, d calendar.TradeDate) exchange.PlayConfig {
	return exchange.PlayConfig{Seed: 7, Calendar: pack(t).Calendar, TradeDate: d}
}

// checkPlayed plays a capture to its end and checks what holds for all: gapless
// sequences, the trade date, agreeing legs and markers. It returns the number of
// order events and legs.
func checkPlayed(t *testing.T, p exchange.Player, d calendar.TradeDate) (events, legs int64) {
	t.Helper()
	cal := pack(t).Calendar
	seqs := map[string]int64{}
	bought, sold, markers := map[int64]int64{}, map[int64]int64{}, 0
	each(t, p, func(rec exchange.Record, r row, doc []byte) {
		if rec.Marker {
			markers++
			if r.Count != seqs[r.Source] || r.LastSeq != seqs[r.Source] {
				t.Errorf("marker %s, sequence %d", doc, seqs[r.Source])
			}
			return
		}
		if seqs[r.Source]++; r.Seq != seqs[r.Source] {
			t.Fatalf("sequence: %s", doc)
		}
		if got, ok := cal.TradeDate(r.at(t)); !ok || got != d {
			t.Fatalf("outside the trade date %s: %s", d, doc)
		}
		if rec.Stream == exchange.StreamOrders {
			events++
			return
		}
		legs++
		if r.Symbol == "" || r.MPID == "" || r.Price == "" || r.FeeCode == "" || r.Tape == "" || r.Match == 0 {
			t.Fatalf("incomplete leg: %s", doc)
		}
		if r.Side == "B" {
			bought[r.Match] += *r.Quantity
		} else {
			sold[r.Match] += *r.Quantity
		}
	})
	if markers != 2 {
		t.Errorf("%d markers", markers)
	}
	for m := range bought {
		if bought[m] != sold[m] {
			t.Errorf("match %d: %d bought, %d sold", m, bought[m], sold[m])
		}
	}
	return events, legs
}

func TestPlayRealITCH(t *testing.T) {
	for _, tt := range []struct {
		file     string
		date     calendar.TradeDate
		counts   map[byte]int64
		messages int64
		unknown  int64
	}{
		{"itch50/AAPL_locate13_10k_2020-01-30.itch50", calendar.Date(2020, 1, 30),
			map[byte]int64{'A': 4758, 'D': 4083, 'E': 849, 'P': 240, 'L': 52, 'U': 7, 'X': 6, 'F': 2, 'R': 1, 'H': 1, 'Y': 1}, 10_000, 0},
		{"itch50/12302019_SNIPPET.NASDAQ_ITCH50", calendar.Date(2019, 12, 30),
			map[byte]int64{'A': 367, 'U': 225, 'F': 193, 'D': 167, 'E': 28, 'X': 6, 'I': 4, 'P': 4, 'Q': 4, 'C': 1, 'S': 1}, 1000, 394},
		{"itch50/stock_directory_1k.itch50", calendar.Date(2019, 12, 30),
			map[byte]int64{'R': 993, 'H': 3, 'Y': 3, 'S': 1}, 1000, 0},
	} {
		t.Run(tt.file, func(t *testing.T) {
			p, err := exchange.NewITCH(testData(t, tt.file), playConfig(t, tt.date))
			if err != nil {
				t.Fatal(err)
			}
			events, legs := checkPlayed(t, p, tt.date)
			r := p.Report()
			for c, n := range r.Counts {
				if n != tt.counts[byte(c)] {
					t.Errorf("%d messages of type %c, want %d", n, c, tt.counts[byte(c)])
				}
			}
			if r.Messages != tt.messages || events != tt.messages {
				t.Errorf("%d messages, %d order events, want %d", r.Messages, events, tt.messages)
			}
			if r.Unknown != tt.unknown || int64(len(r.UnknownListed)) != tt.unknown {
				t.Errorf("%d unknown references, %d listed, want %d", r.Unknown, len(r.UnknownListed), tt.unknown)
			}
			if r.Overfills != 0 {
				t.Errorf("%d overfills", r.Overfills)
			}
			t.Logf("%d legs, %d withheld, %d orders live", legs, r.LegsWithheld, r.LiveOrders)
		})
	}
}

func TestPlayRealLOBSTER(t *testing.T) {
	for _, tt := range []struct {
		file     string
		symbol   string
		counts   [8]int64
		messages int64
	}{
		{"lobster/GOOG_2012-06-21_34200000_57600000_message_1.csv.gz", "GOOG", [8]int64{0, 24368, 7, 13429, 7765, 3913}, 49_482},
		{"lobster/AAPL_2012-06-21_34200000_37800000_message_50.csv.gz", "AAPL", [8]int64{0, 44256, 469, 41004, 4067, 2201}, 91_997},
	} {
		t.Run(tt.symbol, func(t *testing.T) {
			f := testData(t, tt.file)
			symbol, ok := exchange.SymbolOfFile(tt.file)
			date, ok2 := exchange.TradeDateOfFile(tt.file)
			if !ok || !ok2 || symbol != tt.symbol || date.String() != "2012-06-21" {
				t.Fatalf("symbol %q, trade date %s of the name", symbol, date)
			}
			p, err := exchange.NewLOBSTER(f, symbol, playConfig(t, date))
			if err != nil {
				t.Fatal(err)
			}
			events, legs := checkPlayed(t, p, date)
			r := p.Report()
			for typ, want := range tt.counts {
				if got := r.Counts['0'+typ]; got != want {
					t.Errorf("%d messages of type %d, want %d", got, typ, want)
				}
			}
			if r.Messages != tt.messages || events != tt.messages || legs != 2*(tt.counts[4]+tt.counts[5]) {
				t.Errorf("%d messages, %d order events, %d legs", r.Messages, events, legs)
			}
			t.Logf("%d orders from before the file, %d overfills, %d live", r.Unknown, r.Overfills, r.LiveOrders)
		})
	}
}

func TestTradeDateOfFile(t *testing.T) {
	for name, want := range map[string]string{
		"12302019_SNIPPET.NASDAQ_ITCH50":              "2019-12-30",
		"/x/01302020.NASDAQ_ITCH50.gz":                "2020-01-30",
		"S071321-v50-20210713.txt":                    "2021-07-13",
		"AAPL_locate13_10k_2020-01-30.itch50":         "2020-01-30",
		"AAPL_2012-06-21_34200000_37800000_message_1": "2012-06-21",
		"stock_directory_1k.itch50":                   "",
		"13452019.itch":                               "",
	} {
		d, ok := exchange.TradeDateOfFile(name)
		if ok != (want != "") || ok && d.String() != want {
			t.Errorf("%s: %s, %v, want %q", name, d, ok, want)
		}
	}
}

// itch frames messages as a file does.
func itch(messages ...[]byte) []byte {
	var out []byte
	for _, m := range messages {
		out = binary.BigEndian.AppendUint16(out, uint16(len(m)))
		out = append(out, m...)
	}
	return out
}

// message begins a message at 10:00 on stock locate 5.
func message(typ byte, rest ...any) []byte {
	ns := uint64(10 * 3600 * 1e9)
	b := []byte{typ, 0, 5, 0, 0}
	b = append(b, binary.BigEndian.AppendUint64(nil, ns)[2:]...)
	for _, v := range rest {
		switch v := v.(type) {
		case uint64:
			b = binary.BigEndian.AppendUint64(b, v)
		case uint32:
			b = binary.BigEndian.AppendUint32(b, v)
		case byte:
			b = append(b, v)
		case string:
			b = append(b, v...)
		}
	}
	return b
}

func play(t *testing.T, capture []byte) (docs []string, r exchange.Report, err error) {
	t.Helper()
	p, err := exchange.NewITCH(bytes.NewReader(capture), playConfig(t, calendar.Date(2020, 1, 30)))
	if err != nil {
		t.Fatal(err)
	}
	for {
		doc, _, err := p.Next(nil)
		if err == io.EOF {
			return docs, p.Report(), nil
		}
		if err != nil {
			return docs, p.Report(), err
		}
		docs = append(docs, string(doc))
	}
}

func TestITCHOrderLife(t *testing.T) {
	capture := itch(
		message('F', uint64(77), byte('S'), uint32(300), "ZXYZ    ", uint32(101500), "NSDQ"),
		message('E', uint64(77), uint32(100), uint64(900)),
		message('X', uint64(77), uint32(50)),
		message('U', uint64(77), uint64(78), uint32(120), uint32(101600)),
		message('C', uint64(78), uint32(20), uint64(901), byte('Y'), uint32(101700)),
		message('D', uint64(78)),
		message('E', uint64(99), uint32(10), uint64(902)),
		message('B', uint64(900)),
		message('Q', uint64(5000), "ZXYZ    ", uint32(101000), uint64(903), byte('C')),
		message('Q', uint64(0), "ZXYZ    ", uint32(0), uint64(904), byte('O')),
		message('?', "whatever"),
	)
	for name, c := range map[string][]byte{"plain": capture, "gzip": zip(t, capture), "ended by length 0": append(itch(capture[2:2+40]), append(capture[42:], 0, 0)...)} {
		docs, r, err := play(t, c)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all := strings.Join(docs, "\n")
		for _, want := range []string{
			`"event_type":"add","symbol":"ZXYZ","order_ref":77,"side":"S","quantity":300,"price":10.1500,`,
			`"attribution":"NSDQ","occurred_at":"2020-01-30T15:00:00.000000000Z"}`,
			`"event_type":"execute","symbol":"ZXYZ","order_ref":77,"side":"S","quantity":100,"price":10.1500,"match_number":900,`,
			`"match_number":900,"leg":1,"symbol":"ZXYZ",`,
			`"match_number":900,"leg":2,"symbol":"ZXYZ",`,
			`"event_type":"replace","symbol":"ZXYZ","order_ref":77,"new_order_ref":78,"side":"S","quantity":120,"price":10.1600,`,
			`"order_ref":78,"side":"S","quantity":20,"price":10.1700,"match_number":901,`,
			`"event_type":"delete","symbol":"ZXYZ","order_ref":78,"side":"S","quantity":100,"price":10.1600,`,
			`"event_type":"execute","symbol":"ZXYZ","order_ref":99,"quantity":10,"match_number":902,`,
			`"action":"bust","trade_date":"2020-01-30","match_number":900,`,
			`"event_type":"cross","symbol":"ZXYZ","quantity":5000,"price":10.1000,"match_number":903,`,
			`"event_type":"unknown","symbol":"ZXYZ",`,
		} {
			if !strings.Contains(all, want) {
				t.Errorf("%s: %s is not in\n%s", name, want, all)
			}
		}
		if r.Messages != 11 || r.Unknown != 1 || r.LegsWithheld != 1 || r.LiveOrders != 0 || r.Overfills != 0 ||
			r.UnknownListed[0] != (exchange.UnknownReference{Message: 7, Type: 'E', Ref: 99}) {
			t.Errorf("%s: report %+v", name, r)
		}
		if strings.Contains(all, `"match_number":904,"leg"`) || !strings.Contains(all, `"match_number":903,"leg":2`) {
			t.Errorf("%s: legs of the crosses", name)
		}
	}
}

func zip(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestITCHRefuses(t *testing.T) {
	good := message('D', uint64(1))
	for name, capture := range map[string][]byte{
		"truncated frame":   append(itch(good), 0),
		"truncated message": append(itch(good), itch(good)[:10]...),
		"short message":     itch(good, good[:8]),
		"wrong length":      itch(good, good[:18]),
		"beyond 63 bits":    itch(good, message('D', uint64(1)<<63)),
		"beyond a day":      itch(good, append([]byte{'D', 0, 5, 0, 0, 0xff}, make([]byte, 13)...)),
		"side":              itch(good, message('A', uint64(7), byte('Z'), uint32(1), "ZXYZ    ", uint32(1))),
		"truncated gzip":    zip(t, append(itch(good), itch(good)...))[:30],
	} {
		docs, _, err := play(t, capture)
		var at *exchange.CaptureError
		if !errors.As(err, &at) || !errors.Is(err, exchange.ErrCapture) {
			t.Errorf("%s: err = %v", name, err)
			continue
		}
		if name != "truncated gzip" && (at.Message != 2 || at.Offset != 21) {
			t.Errorf("%s: %v", name, err)
		}
		if name != "truncated gzip" && len(docs) < 1 {
			t.Errorf("%s: what stood before the fault is lost", name)
		}
	}
}

func TestCaptureErrorStays(t *testing.T) {
	p, err := exchange.NewITCH(bytes.NewReader(itch(message('D')[:8], message('D', uint64(1)))), playConfig(t, tradeDate))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, _, err := p.Next(nil); !errors.Is(err, exchange.ErrCapture) {
			t.Errorf("err = %v", err)
		}
	}
}

func TestLiveOrdersAreBounded(t *testing.T) {
	cfg := playConfig(t, calendar.Date(2020, 1, 30))
	cfg.LiveOrdersMax = 1
	add := func(ref uint64) []byte {
		return message('A', ref, byte('B'), uint32(1), "ZXYZ    ", uint32(10000))
	}
	p, err := exchange.NewITCH(bytes.NewReader(itch(add(1), add(2))), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, _, err = p.Next(nil)
	}
	if !errors.Is(err, exchange.ErrCapture) {
		t.Errorf("err = %v", err)
	}
}

func TestTotalsThatDoNotFitAreRefused(t *testing.T) {
	q := message('Q', uint64(1)<<62, "ZXYZ    ", uint32(4_000_000_000), uint64(903), byte('C'))
	_, _, err := play(t, itch(q))
	if !errors.Is(err, exchange.ErrTotals) {
		t.Errorf("err = %v", err)
	}
}

func TestLOBSTERLines(t *testing.T) {
	const text = "34200.015105074,1,10,100,5794000,1\r\n" +
		"34200.1,4,10,40,5794000,1\n" +
		"34200.2,2,10,10,5794000,1\n" +
		"34200.299999999999,5,0,7,5795000,-1\n" +
		"34200.4,3,11,9,5795000,-1\n" +
		"34201,7,0,0,-1,-1\n" +
		"57600.5,6,-1,1200,5795000,-1"
	p, err := exchange.NewLOBSTER(strings.NewReader(text), "GOOG", playConfig(t, calendar.Date(2012, 6, 21)))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	n, err := exchange.WriteNDJSON(&out, p, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"order_ref":10,"side":"B","quantity":100,"price":579.4000,`,
		`"occurred_at":"2012-06-21T13:30:00.015105074Z"`,
		`"event_type":"hidden","symbol":"GOOG","side":"S","quantity":7,"price":579.5000,"match_number":2,`,
		`"occurred_at":"2012-06-21T13:30:00.300000000Z"`,
		`"event_type":"status","symbol":"GOOG","tape":"C","detail":"state -1",`,
		`"event_type":"cross","symbol":"GOOG","quantity":1200,`,
		`"fee_code":"close"`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s is not in\n%s", want, out.String())
		}
	}
	r := p.Report()
	if r.Messages != 7 || r.Unknown != 1 || r.UnknownListed[0] != (exchange.UnknownReference{Message: 5, Type: '3', Ref: 11}) || r.LiveOrders != 1 {
		t.Errorf("report %+v", r)
	}
	if n < 7+4+2+2 {
		t.Errorf("%d documents", n)
	}
	for _, line := range []string{
		"", "x", "34200,1,10,100,5794000", "34200,8,10,100,5794000,1", "34200,1,10,100,5794000,2", "86400,1,10,100,5794000,1",
		"34200.1234567890123456789,1,10,100,5794000,1", "-1,1,10,100,5794000,1", "34200.x,1,10,100,5794000,1", "34200,1,10,-5,5794000,1",
		strings.Repeat("1", 2000),
	} {
		p, err := exchange.NewLOBSTER(strings.NewReader("34200,1,9,1,10000,1\n"+line+"\n"), "GOOG", playConfig(t, calendar.Date(2012, 6, 21)))
		if err != nil {
			t.Fatal(err)
		}
		_, err = exchange.WriteNDJSON(io.Discard, p, nil)
		if line == "" {
			if err != nil {
				t.Errorf("an empty line: %v", err)
			}
			continue
		}
		var at *exchange.CaptureError
		if !errors.As(err, &at) || at.Message != 2 || at.Offset != 20 {
			t.Errorf("%q: err = %v", line, err)
		}
	}
}

func FuzzITCH(f *testing.F) {
	f.Add(itch(message('F', uint64(77), byte('S'), uint32(300), "ZXYZ    ", uint32(101500), "NSDQ"), message('E', uint64(77), uint32(100), uint64(900))))
	f.Add(itch(message('Q', uint64(5000), "ZXYZ    ", uint32(101000), uint64(903), byte('C')), message('B', uint64(900))))
	f.Add([]byte{0, 0})
	cfg := playConfig(f, calendar.Date(2020, 1, 30))
	f.Fuzz(func(t *testing.T, capture []byte) {
		p, err := exchange.NewITCH(bytes.NewReader(capture), cfg)
		if err != nil {
			return
		}
		checkFuzzed(t, p)
	})
}

func FuzzLOBSTER(f *testing.F) {
	f.Add([]byte("34200.015105074,1,10,100,5794000,1\n34200.1,4,10,40,5794000,1\n57600.5,6,-1,1200,5795000,-1"))
	cfg := playConfig(f, calendar.Date(2012, 6, 21))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := exchange.NewLOBSTER(bytes.NewReader(text), "GOOG", cfg)
		if err != nil {
			return
		}
		checkFuzzed(t, p)
	})
}
