package exchange_test

import (
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/exchange"
	"github.com/tapehouse/tapehouse/packs"
)

func pack(t testing.TB) *packs.Pack {
	t.Helper()
	p, err := packs.Load(packs.Equities())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var tradeDate = calendar.Date(2026, 11, 20)

func generate(t testing.TB, records int64, edit func(*exchange.Config)) *exchange.Exchange {
	t.Helper()
	cfg := exchange.DefaultConfig(pack(t).Calendar, tradeDate, 7, records)
	if edit != nil {
		edit(&cfg)
	}
	e, err := exchange.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// row is a document of any stream.
type row struct {
	Source      string `json:"source"`
	Session     string `json:"session"`
	Epoch       int64  `json:"epoch"`
	Seq         int64  `json:"seq"`
	EventType   string `json:"event_type"`
	Symbol      string `json:"symbol"`
	OrderRef    int64  `json:"order_ref"`
	NewOrderRef int64  `json:"new_order_ref"`
	Side        string `json:"side"`
	Quantity    *int64 `json:"quantity"`
	Price       number `json:"price"`
	Match       int64  `json:"match_number"`
	Leg         int32  `json:"leg"`
	MPID        string `json:"mpid"`
	FeeCode     string `json:"fee_code"`
	Tape        string `json:"tape"`
	Attribution string `json:"attribution"`
	Detail      string `json:"detail"`
	OccurredAt  string `json:"occurred_at"`
	ExecutedAt  string `json:"executed_at"`
	KnownAt     string `json:"known_at"`
	Action      string `json:"action"`
	TradeDate   string `json:"trade_date"`
	FirstSeq    int64  `json:"first_seq"`
	LastSeq     int64  `json:"last_seq"`
	Count       int64  `json:"record_count"`
	QuantitySum int64  `json:"quantity_total"`
	NotionalSum number `json:"notional_total"`
	SentAt      string `json:"sent_at"`
}

// number is a JSON number as it is written.
type number string

func (n *number) UnmarshalJSON(b []byte) error {
	*n = number(b)
	return nil
}

// unscaled returns the number times 10,000, which must be whole.
func (n number) unscaled(t testing.TB) int64 {
	t.Helper()
	r, ok := new(big.Rat).SetString(string(n))
	if !ok {
		t.Fatalf("%q is no number", n)
	}
	r.Mul(r, big.NewRat(10000, 1))
	if !r.IsInt() {
		t.Fatalf("%q has more than four digits after the point", n)
	}
	return r.Num().Int64()
}

func (r *row) at(t testing.TB) int64 {
	t.Helper()
	for _, s := range []string{r.OccurredAt, r.ExecutedAt, r.KnownAt, r.SentAt} {
		if s != "" {
			at, err := time.Parse(time.RFC3339Nano, s)
			if err != nil {
				t.Fatal(err)
			}
			return at.UnixNano()
		}
	}
	t.Fatal("no time")
	return 0
}

// each plays p to its end.
func each(t testing.TB, p exchange.Player, fn func(exchange.Record, row, []byte)) {
	t.Helper()
	var buf []byte
	for {
		doc, rec, err := p.Next(buf[:0])
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		var r row
		if err := json.Unmarshal(doc, &r); err != nil {
			t.Fatalf("%s: %v", doc, err)
		}
		fn(rec, r, doc)
		buf = doc
	}
}

// testData opens a real capture. Those files keep their owners' terms and are
// not part of the project: TAPEHOUSE_TEST_DATA names their directory.
func testData(t testing.TB, name string) *os.File {
	t.Helper()
	dir := os.Getenv("TAPEHOUSE_TEST_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	f, err := os.Open(filepath.Join(dir, name))
	if os.IsNotExist(err) {
		t.Skipf("SKIPPED: the real capture %s is missing; set TAPEHOUSE_TEST_DATA to the directory that has it", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// checkFuzzed plays a fuzzed capture: whatever it is, documents are JSON, sequences
// have no gap, and an error says that the capture is to blame.
func checkFuzzed(t *testing.T, p exchange.Player) {
	t.Helper()
	seqs := map[string]int64{}
	for {
		doc, rec, err := p.Next(nil)
		if err == io.EOF {
			return
		}
		if err != nil {
			if !errors.Is(err, exchange.ErrCapture) && !errors.Is(err, exchange.ErrTotals) {
				t.Errorf("err = %v", err)
			}
			return
		}
		if !json.Valid(doc) {
			t.Fatalf("no JSON: %s", doc)
		}
		p.Hash()
		if rec.Marker {
			continue
		}
		if seqs[rec.Key.Source]++; rec.Key.Seq != seqs[rec.Key.Source] {
			t.Fatalf("sequence: %s", doc)
		}
	}
}
