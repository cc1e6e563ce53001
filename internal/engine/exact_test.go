package engine

import (
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
)

func TestExact(t *testing.T) {
	e, dir := newEngine(t)
	f := writeTrades(t, e, filepath.Join(dir, "a.parquet"), 0, 10) // prices 0.5 … 9.5, quantities 0 … 9
	pin := NewPin(map[Name]Relation{tradesName: {Schema: trades, Files: []File{f}}})
	defer pin.Release()
	s := newSession(t, e)
	const ex = ` FROM equities.executions`
	for _, tc := range []struct {
		sql   string
		args  []any
		types string
		want  []string
	}{
		{sql: `SELECT 1.00 / 3`, types: "DECIMAL(14,13)", want: []string{"0.3333333333333"}},
		{sql: `SELECT 7 / 2, -7 / 2, 7 / -2`, types: "INTEGER INTEGER INTEGER", want: []string{"3|-3|-3"}},
		{sql: `SELECT 7::BIGINT / 2::SMALLINT, 9::SMALLINT / 2::SMALLINT`, types: "BIGINT SMALLINT", want: []string{"3|4"}},
		{sql: `SELECT price / qty` + ex + ` WHERE id = 3`, types: "DECIMAL(29,15)", want: []string{"1.166666666666667"}},
		{sql: `SELECT sum(price) / sum(qty)` + ex, types: "DECIMAL(38,4)", want: []string{"1.1111"}},
		{sql: `SELECT avg(price), avg(qty), avg(id)` + ex, types: "DECIMAL(38,4) BIGINT BIGINT", want: []string{"5.0000|4|4"}},
		{sql: `SELECT AVG(price) AS m` + ex + ` WHERE id IN (0, 1, 2, 4)`, types: "DECIMAL(38,4)", want: []string{"2.2500"}},
		{sql: `SELECT avg(DISTINCT price) FILTER (WHERE id < 2)` + ex, types: "DECIMAL(38,4)", want: []string{"1.0000"}},
		{sql: `SELECT id, avg(price) OVER (ORDER BY id ROWS 1 PRECEDING)` + ex + ` WHERE id < 3 ORDER BY id`, types: "BIGINT DECIMAL(38,4)", want: []string{"0|0.5000", "1|1.0000", "2|2.0000"}},
		{sql: `SELECT avg(price)` + ex + ` WHERE false`, types: "DECIMAL(38,4)", want: []string{"NULL"}},
		{sql: `SELECT qty / 4, count(*)` + ex + ` GROUP BY qty / 4 ORDER BY qty / 4`, types: "INTEGER BIGINT", want: []string{"0|4", "1|4", "2|2"}},
		{sql: `SELECT price / 4 AS p, count(*)` + ex + ` WHERE id < 2 GROUP BY price / 4 HAVING price / 4 > 0 ORDER BY price / 4`, types: "DECIMAL(29,15) BIGINT", want: []string{"0.125000000000000|1", "0.375000000000000|1"}},
		{sql: `SELECT x / 2.0 FROM (SELECT price / 4 AS x` + ex + ` WHERE id = 1) t`, types: "DECIMAL(32,17)", want: []string{"0.18750000000000000"}},
		{sql: `SELECT 1.0 / 4 / 2.0 / 2`, types: "DECIMAL(27,25)", want: []string{"0.0625000000000000000000000"}},
		{sql: `SELECT CAST(1 AS DOUBLE) / 4, 1e0 / 8`, types: "DOUBLE DECIMAL(13,12)", want: []string{"0.25|0.125000000000"}},
		{sql: `SELECT price / CAST(4 AS DOUBLE)` + ex + ` WHERE id = 1`, types: "DOUBLE", want: []string{"0.375"}},
		{sql: `SELECT substr('abcdef', 6 / 2, 1)`, types: "VARCHAR", want: []string{"c"}},
		{sql: `SELECT TIMESTAMP '2026-01-01' + INTERVAL 2 DAY / 2`, types: "TIMESTAMP", want: []string{"2026-01-02 00:00:00"}},
		{sql: `SELECT NULL / 2, 2 / NULL, price / NULL` + ex + ` WHERE id = 1`, want: []string{"NULL|NULL|NULL"}},
		{sql: `SELECT price / $1` + ex + ` WHERE id = $2`, args: []any{int32(4), int64(1)}, types: "DECIMAL(29,15)", want: []string{"0.375000000000000"}},
		{sql: `SELECT round(price / 3, 2), CASE WHEN qty > 0 THEN price / qty END` + ex + ` WHERE id < 2 ORDER BY id`, want: []string{"0.17|NULL", "0.50|1.500000000000000"}},
		{sql: `WITH a AS (SELECT avg(price) AS m` + ex + `) SELECT id` + ex + `, a WHERE price = m + 0.5`, types: "BIGINT", want: []string{"5"}},
		{sql: `SELECT sum(qty) / count(*), sum(qty) / 7::SMALLINT, 7::UTINYINT / 2, length('abcdef') / 4` + ex, want: []string{"4|6|3|1"}},
		{sql: `SELECT substr('abcdef', length('abcdef') / 2, 2)`, want: []string{"cd"}},
		{sql: `SELECT '10' / 4, '10' / 4.0`, types: "INTEGER DECIMAL(6,4)", want: []string{"2|2.5000"}},
	} {
		q := Query{SQL: tc.sql, Args: tc.args, Pin: pin, Exact: true}
		for _, a := range tc.args {
			q.ParamTypes = append(q.ParamTypes, map[bool]Type{true: {Kind: Integer}, false: {Kind: BigInt}}[fmt.Sprintf("%T", a) == "int32"])
		}
		rows, err := s.Query(t.Context(), q)
		if err != nil {
			t.Errorf("%s: %v", tc.sql, err)
			continue
		}
		var types []string
		for _, c := range rows.Columns {
			types = append(types, c.Type.String())
		}
		_ = rows.Close()
		if got := strings.Join(types, " "); tc.types != "" && got != tc.types {
			t.Errorf("%s: types %s, want %s", tc.sql, got, tc.types)
		}
		wantRows(t, s, q, tc.want...)
	}
	for _, tc := range []struct {
		sql  string
		kind ErrorKind
	}{
		{`SELECT price / qty` + ex, DivisionByZero}, {`SELECT 1 / 0`, DivisionByZero}, {`SELECT 1.5 / 0.0`, DivisionByZero}, {`SELECT 1e0 / 0`, DivisionByZero},
		{`SELECT (-9223372036854775808)::BIGINT / -1::BIGINT`, OutOfRange}, {`SELECT 99999999999999999999999999999999.0 / 0.000001`, OutOfRange},
		{`SELECT 1.5` + strings.Repeat(" / 1.0", exactPasses+2), Unsupported},
		{`SELECT nosuch / 2` + ex, Binder}, {`SELECT sum(symbol) / 2` + ex, Binder},
	} {
		_, err := collectRows(t.Context(), s, Query{SQL: tc.sql, Pin: pin, Exact: true})
		var x *Error
		if !errors.As(err, &x) || x.Kind != tc.kind {
			t.Errorf("%s: %v, want %v", tc.sql, err, tc.kind)
		}
	}
	rows, err := s.Query(t.Context(), Query{SQL: `SELECT avg(price), 1 / 2, 1 / 2 AS x` + ex, Pin: pin, Exact: true})
	if err != nil {
		t.Fatal(err)
	}
	_ = rows.Close()
	if n := rows.Columns; n[0].Name != "avg" || n[1].Name != "?column?" || n[2].Name != "x" {
		t.Errorf("names: %v", n)
	}
}

// quotientByBig is what quotient must give, by math/big's rationals.
func quotientByBig(a, b *big.Int, exponent int) *big.Int {
	r := new(big.Rat).SetFrac(a, b)
	p := new(big.Rat).SetInt(pow10(max(exponent, -exponent)))
	if exponent >= 0 {
		r.Mul(r, p)
	} else {
		r.Quo(r, p)
	}
	text := new(big.Rat).Abs(r).FloatString(0) // half away from zero
	q, _ := new(big.Int).SetString(text, 10)
	if r.Sign() < 0 {
		q.Neg(q)
	}
	return q
}

func randomInt128(r *rand.Rand) *big.Int {
	limit := pow10(1 + r.IntN(38))
	n := new(big.Int).SetUint64(r.Uint64())
	n.Lsh(n, 64).Add(n, new(big.Int).SetUint64(r.Uint64())).Mod(n, limit)
	if r.IntN(2) == 0 {
		n.Neg(n)
	}
	return n
}

func fromBig(v *big.Int) int128 {
	lo := new(big.Int).And(v, new(big.Int).SetUint64(^uint64(0)))
	return int128{lo.Uint64(), new(big.Int).Rsh(v, 64).Int64()}
}

func TestQuotientAgainstBig(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	overflows := 0
	for range 200_000 {
		a, b, exponent := randomInt128(r), randomInt128(r), r.IntN(60)-20
		if r.IntN(3) == 0 {
			b = big.NewInt(r.Int64N(1000) - 500)
		}
		got, problem := fromBig(a).quotient(fromBig(b), exponent, true)
		if b.Sign() == 0 {
			if problem != divideByZero {
				t.Fatalf("%v / 0: %q", a, problem)
			}
			continue
		}
		want := quotientByBig(a, b, exponent)
		if new(big.Int).Abs(want).Cmp(decimalLimit) >= 0 {
			overflows++
			if problem != decimalOverflow {
				t.Fatalf("%v e%d / %v: %v %q, want overflow", a, exponent, b, got.big(), problem)
			}
			continue
		}
		if problem != "" || got.big().Cmp(want) != 0 {
			t.Fatalf("%v e%d / %v = %v %q, want %v", a, exponent, b, got.big(), problem, want)
		}
		if back := fromBig(a); back.big().Cmp(a) != 0 {
			t.Fatalf("%v does not survive its halves", a)
		}
	}
	if overflows == 0 {
		t.Error("no case overflowed")
	}
}

// TestExactProperty sends random decimals through DuckDB and compares the
// quotient with math/big.
func TestExactProperty(t *testing.T) {
	e, _ := newEngine(t)
	s := newSession(t, e)
	r := rand.New(rand.NewPCG(3, 4))
	for range 60 {
		p1, p2 := 1+r.IntN(38), 1+r.IntN(38)
		s1, s2 := r.IntN(p1+1), r.IntN(p2+1)
		value := func(p int) *big.Int {
			n := randomInt128(r)
			return n.Rem(n, pow10(p))
		}
		a, b := Decimal{value(p1), int32(s1)}, Decimal{value(p2), int32(s2)}
		if b.Unscaled.Sign() == 0 {
			continue
		}
		q := Query{SQL: `SELECT $1 / $2`, Args: []any{a, b}, ParamTypes: []Type{{Numeric, p1, s1}, {Numeric, p2, s2}}, Exact: true}
		typ := quotientType(p1, s1, p2, s2)
		want := quotientByBig(a.Unscaled, b.Unscaled, typ.Scale+s2-s1)
		got, err := collectRows(t.Context(), s, q)
		if new(big.Int).Abs(want).Cmp(pow10(typ.Precision)) >= 0 {
			var x *Error
			if !errors.As(err, &x) || x.Kind != OutOfRange && x.Kind != Conversion {
				t.Errorf("%v / %v as %v: %v %v, want overflow", a, b, typ, got, err)
			}
			continue
		}
		if err != nil || got[0] != (Decimal{want, int32(typ.Scale)}).String() {
			t.Errorf("%v / %v as %v = %v %v, want %v", a, b, typ, got, err, Decimal{want, int32(typ.Scale)})
		}
	}
}
