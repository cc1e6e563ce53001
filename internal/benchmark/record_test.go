package benchmark

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestNine: digits of every place, and numbers that begin again.
func TestNine(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	values := []uint64{0, 1, 9, 10, 99, 100, 9_999, 10_000, 99_999_999, 100_000_000, 999_999_999, 1_000_000_000, 12_345_678_901}
	for range 200_000 {
		values = append(values, r.Uint64N(1_000_000_000))
	}
	for _, v := range values {
		b := []byte("..........")
		nine(b, v)
		if want := fmt.Sprintf("%09d.", v%1_000_000_000); string(b) != want {
			t.Fatalf("%d: %s, want %s", v, b, want)
		}
	}
}
