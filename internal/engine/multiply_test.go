package engine

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"testing"
)

// TestProduct holds products to math/big: ends of the range, signs, nulls, and
// as many random ones as fill several of DuckDB's chunks.
func TestProduct(t *testing.T) {
	e, _ := newEngine(t)
	s := newSession(t, e)
	limit := int64(999_999_999_999_999_999)
	factors := []int64{0, 1, -1, 9, limit, -limit, limit - 1, 1 << 32, -1 << 32, 1<<59 - 1}
	r := rand.New(rand.NewPCG(3, 4))
	for range 5000 {
		factors = append(factors, r.Int64N(2*limit)-limit, r.Int64N(20_000)-10_000)
	}
	values := ""
	var want []string
	for i := range factors {
		a, b := factors[i], factors[(i*7+3)%len(factors)]
		if i%11 == 5 {
			values += fmt.Sprintf("(%d, NULL, %d),", i, b)
			want = append(want, "NULL")
			continue
		}
		values += fmt.Sprintf("(%d, %d, %d),", i, a, b)
		want = append(want, new(big.Int).Mul(big.NewInt(a), big.NewInt(b)).String())
	}
	name := ProductName(0, 0, 36)
	sql := fmt.Sprintf("SELECT coalesce(%s(a::DECIMAL(18,0), b::DECIMAL(18,0))::VARCHAR, 'NULL') FROM (VALUES %s) AS v(i, a, b) ORDER BY i", name, values[:len(values)-1])
	got := mustRows(t, s, Query{SQL: sql})
	if len(got) != len(want) {
		t.Fatalf("%d rows, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("product %d of %d and %d is %s, want %s", i, factors[i], factors[(i*7+3)%len(factors)], got[i], want[i])
		}
	}
	// The type, and constants.
	sql = "SELECT typeof(x), x, " + ProductName(4, 2, 24) + "(1.5, -2) FROM (SELECT " + ProductName(18, 18, 38) + "(-0.999999999999999999, 0.000000000000000001) AS x)"
	if got := mustRows(t, s, Query{SQL: sql}); got[0] != "DECIMAL(38,36)|-0.000000000000000000999999999999999999|-3.000000" {
		t.Errorf("%q", got)
	}
	for _, name := range []string{"tapehouse_mul_4_2", "tapehouse_mul_4_19_38", "tapehouse_mul_4_2_39", "tapehouse_mul_04_2_38", "tapehouse_mul_-1_2_38"} {
		if _, err := collectRows(t.Context(), s, Query{SQL: "SELECT " + QuoteIdentifier(name) + "(1, 2)"}); err == nil {
			t.Errorf("%s is a function", name)
		}
	}
}

// BenchmarkProduct is the cost of sum(quantity * price) a row, against DuckDB's
// own product in 128 bits.
func BenchmarkProduct(b *testing.B) {
	e, _ := newEngine(b)
	s := newSession(b, e)
	for _, product := range []string{"CAST(q AS DECIMAL(19,0)) * p", ProductName(0, 4, 37) + "(q, p)"} {
		b.Run(product, func(b *testing.B) {
			for b.Loop() {
				mustRows(b, s, Query{SQL: "SELECT sum(" + product + ") FROM (SELECT CAST(range % 1000 - 500 AS INTEGER) AS q, CAST(range AS DECIMAL(18,4)) AS p FROM range(10000000))"})
			}
		})
	}
}
