package auth

import (
	"crypto/sha256"
	"math/rand/v2"
	"sync"
	"testing"
)

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestTwoLanes holds both lanes to the standard library, for lengths around
// every boundary and for lanes of different length.
func TestTwoLanes(t *testing.T) {
	if !twoLanes {
		t.Skip("SKIPPED: this processor has no SHA extensions")
	}
	r := rand.New(rand.NewPCG(1, 1))
	check := func(a, b []byte) {
		t.Helper()
		gotA, gotB := sum2(a, b)
		if gotA != sha256.Sum256(a) || gotB != sha256.Sum256(b) {
			t.Fatalf("lengths %d and %d: wrong sum", len(a), len(b))
		}
	}
	for n := range 300 {
		check(randomBytes(r, n), randomBytes(r, n))
		check(randomBytes(r, n), randomBytes(r, r.IntN(1000)))
	}
	for range 50 {
		check(randomBytes(r, r.IntN(300_000)), randomBytes(r, r.IntN(300_000)))
	}
}

// TestPayloadSumOfMany hashes from many goroutines, which pair up as they
// happen to meet.
func TestPayloadSumOfMany(t *testing.T) {
	var p pairing
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(2, uint64(i)))
			for range 50 {
				body := randomBytes(r, r.IntN(20_000))
				if p.sum(body) != sha256.Sum256(body) || PayloadSum(body) != sha256.Sum256(body) {
					t.Errorf("%d bytes: wrong sum", len(body))
					return
				}
			}
		})
	}
	all.Wait()
	if p.waiting != nil {
		t.Error("an offer was left behind")
	}
	t.Logf("%d pairs", p.pairs.Load())
}

func FuzzTwoLanes(f *testing.F) {
	f.Add([]byte("abc"), []byte{})
	f.Add(make([]byte, 64), make([]byte, 129))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if !twoLanes {
			t.Skip("SKIPPED: this processor has no SHA extensions")
		}
		gotA, gotB := sum2(a, b)
		if gotA != sha256.Sum256(a) || gotB != sha256.Sum256(b) {
			t.Fatal("wrong sum")
		}
	})
}

const benchBody = 200_000 // 500 records of 300 bytes in base64

func BenchmarkSumOne(b *testing.B) {
	body := make([]byte, benchBody)
	b.SetBytes(benchBody)
	for b.Loop() {
		sha256.Sum256(body)
	}
}

func BenchmarkSumTwo(b *testing.B) {
	if !twoLanes {
		b.Skip("SKIPPED: this processor has no SHA extensions")
	}
	body, other := make([]byte, benchBody), make([]byte, benchBody)
	b.SetBytes(2 * benchBody)
	for b.Loop() {
		sum2(body, other)
	}
}
