package benchmark

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestNine: digits of every place, and numbers that begin again.
func TestNine(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	values := []uint64{0, 1, 9, 10, 99, 100, 9_999, 10_000, 99_999_999, 100_000_000, 999_999_999}
	for range 200_000 {
		values = append(values, r.Uint64N(1_000_000_000))
	}
	for _, v := range values {
		b := []byte("..........")
		nine(b, v)
		if want := fmt.Sprintf("%09d.", v); string(b) != want {
			t.Fatalf("%d: %s, want %s", v, b, want)
		}
	}
}

// TestLongRun: the documents of a run of days are JSON as those of its first
// second, and as long.
func TestLongRun(t *testing.T) {
	s := newSource(newMarket(seed), 3, seed)
	for _, order := range []uint64{s.order, 899_999_900, 900_000_000, 999_999_000, 1_000_000_100, 99_999_999_999} {
		s.order, s.match = order, order
		for range 2 * puts {
			for _, doc := range s.put() {
				var r struct {
					Seq   int64 `json:"seq"`
					Buy   int64 `json:"buy_order_id"`
					Sell  int64 `json:"sell_order_id"`
					Match int64 `json:"match_no"`
				}
				if err := json.Unmarshal(doc, &r); err != nil {
					t.Fatalf("after order %d: %v: %s", order, err, doc)
				}
				for _, n := range []int64{r.Buy, r.Sell, r.Match} {
					if n < 100_000_000 || n > 999_999_999 {
						t.Fatalf("after order %d: number %d: %s", order, n, doc)
					}
				}
			}
		}
	}
}
