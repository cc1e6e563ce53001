package engine

/*
#include <stdint.h>
#include <stdlib.h>

void tapehouse_divide(void *, void *, void *);

// tapehouse_division is a function's extra information. It lives in C memory
// as long as the function.
typedef struct { int32_t kind, exponent, left, right, result; } tapehouse_division;
*/
import "C"

import (
	"fmt"
	"math/big"
	"math/bits"
	"sync"
	"unsafe"

	bindings "github.com/duckdb/duckdb-go-bindings"
)

// The functions that exact rewrites divisions to. They are native scalar
// functions, because DuckDB's own division of decimals is in floating point
// and its HUGEINT cannot hold the scaled dividend:
//
//	tapehouse_divide(T, U) → the wider             truncated toward zero; T and U are
//	                                               SMALLINT, INTEGER, BIGINT or HUGEINT
//	tapehouse_divide(INTERVAL, N) → INTERVAL       a placeholder: it is never run
//	tapehouse_divide(ANY, ANY) → DOUBLE            a placeholder
//	tapehouse_avg(…)                               the same, of sum and count, and
//	                                               never wider than BIGINT
//	tapehouse_divide_float(DOUBLE, DOUBLE) → DOUBLE
//	tapehouse_div_L_R_S(DECIMAL(38,L), DECIMAL(38,R)) → DECIMAL(38,S)
//
// All of them give NULL for NULL and fail on a zero divisor. Decimals are
// rounded half away from zero, at any size up to 38 digits.
const (
	divideName      = "tapehouse_divide"
	averageName     = "tapehouse_avg"
	divideFloatName = "tapehouse_divide_float"

	divideByZero    = "division by zero"
	decimalOverflow = "numeric value out of range"
)

const (
	divisionPlaceholder = iota
	divisionInteger
	divisionFloat
	divisionDecimal
)

// divisionInfo is what a function's callback needs: the widths in bytes of
// integers, and the exponent of quotient.
type divisionInfo struct{ kind, exponent, left, right, result int }

// division is one tapehouse_div function by the scales of its dividend,
// divisor and result.
type division struct{ left, right, result int }

func (d division) name() string {
	return fmt.Sprintf("tapehouse_div_%d_%d_%d", d.left, d.right, d.result)
}

// divisions are the functions that an engine has registered so far: at most
// 39³, in practice a handful.
type divisions struct {
	mu         sync.Mutex
	base       bool
	registered map[division]bool
}

// prepare registers the functions that do not depend on scales.
func (ds *divisions) prepare(c *conn) error {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.base {
		return nil
	}
	types := map[bindings.Type]bindings.LogicalType{}
	for _, id := range []bindings.Type{bindings.TypeAny, bindings.TypeDouble, bindings.TypeInterval, bindings.TypeSmallInt, bindings.TypeInteger, bindings.TypeBigInt, bindings.TypeHugeInt} {
		t := bindings.CreateLogicalType(id)
		defer bindings.DestroyLogicalType(&t)
		types[id] = t
	}
	integers := []bindings.Type{bindings.TypeSmallInt, bindings.TypeInteger, bindings.TypeBigInt, bindings.TypeHugeInt}
	for _, name := range []string{divideName, averageName} {
		set := bindings.CreateScalarFunctionSet(name)
		add := func(left, right, result bindings.Type, i divisionInfo) {
			f := newDivision(name, types[left], types[right], types[result], i)
			bindings.AddScalarFunctionToSet(set, f)
			bindings.DestroyScalarFunction(&f)
		}
		for l, left := range integers {
			for r, right := range integers {
				w := max(l, r)
				if name == averageName {
					w = min(w, 2)
				}
				add(left, right, integers[w], divisionInfo{kind: divisionInteger, left: 2 << l, right: 2 << r, result: 2 << w})
			}
		}
		for _, right := range []bindings.Type{bindings.TypeInteger, bindings.TypeBigInt, bindings.TypeDouble} {
			add(bindings.TypeInterval, right, bindings.TypeInterval, divisionInfo{})
		}
		add(bindings.TypeAny, bindings.TypeAny, bindings.TypeDouble, divisionInfo{})
		state := bindings.RegisterScalarFunctionSet(c.c, set)
		bindings.DestroyScalarFunctionSet(&set)
		if state == bindings.StateError {
			return &Error{Kind: Internal, Message: "DuckDB refused function " + name}
		}
	}
	double := types[bindings.TypeDouble]
	if err := register(c, newDivision(divideFloatName, double, double, double, divisionInfo{kind: divisionFloat}), divideFloatName); err != nil {
		return err
	}
	ds.base = true
	return nil
}

// need registers one decimal division.
func (ds *divisions) need(c *conn, d division) error {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.registered[d] {
		return nil
	}
	left, right := bindings.CreateDecimalType(38, uint8(d.left)), bindings.CreateDecimalType(38, uint8(d.right))
	result := bindings.CreateDecimalType(38, uint8(d.result))
	defer bindings.DestroyLogicalType(&left)
	defer bindings.DestroyLogicalType(&right)
	defer bindings.DestroyLogicalType(&result)
	// unscaled result = unscaled left × 10^exponent / unscaled right
	f := newDivision(d.name(), left, right, result, divisionInfo{kind: divisionDecimal, exponent: d.result + d.right - d.left})
	if err := register(c, f, d.name()); err != nil {
		return err
	}
	ds.registered[d] = true
	return nil
}

func register(c *conn, f bindings.ScalarFunction, name string) error {
	state := bindings.RegisterScalarFunction(c.c, f)
	bindings.DestroyScalarFunction(&f)
	if state == bindings.StateError {
		return &Error{Kind: Internal, Message: "DuckDB refused function " + name}
	}
	return nil
}

func newDivision(name string, left, right, result bindings.LogicalType, i divisionInfo) bindings.ScalarFunction {
	f := bindings.CreateScalarFunction()
	bindings.ScalarFunctionSetName(f, name)
	bindings.ScalarFunctionAddParameter(f, left)
	bindings.ScalarFunctionAddParameter(f, right)
	bindings.ScalarFunctionSetReturnType(f, result)
	info := (*C.tapehouse_division)(C.malloc(C.size_t(unsafe.Sizeof(C.tapehouse_division{}))))
	info.kind, info.exponent = C.int32_t(i.kind), C.int32_t(i.exponent)
	info.left, info.right, info.result = C.int32_t(i.left), C.int32_t(i.right), C.int32_t(i.result)
	bindings.ScalarFunctionSetExtraInfo(f, unsafe.Pointer(info), C.free)
	bindings.ScalarFunctionSetFunction(f, C.tapehouse_divide)
	return f
}

// tapehouse_divide computes one chunk. DuckDB calls it from its threads, with
// flat vectors.
//
//export tapehouse_divide
func tapehouse_divide(infoPtr, inputPtr, outputPtr unsafe.Pointer) {
	info := bindings.FunctionInfo{Ptr: infoPtr}
	chunk, output := bindings.DataChunk{Ptr: inputPtr}, bindings.Vector{Ptr: outputPtr}
	d := (*C.tapehouse_division)(bindings.ScalarFunctionGetExtraInfo(info))
	var left, right flat
	left.reset(bindings.DataChunkGetVector(chunk, 0))
	right.reset(bindings.DataChunkGetVector(chunk, 1))
	n := int(bindings.DataChunkGetSize(chunk))
	out := bindings.VectorGetData(output)
	bindings.VectorEnsureValidityWritable(output)
	validity := bindings.VectorGetValidity(output)
	for row := range n {
		if left.null(row) || right.null(row) {
			*(*uint64)(unsafe.Add(validity, row/64*8)) &^= 1 << (row % 64)
			continue
		}
		problem := ""
		switch d.kind {
		case divisionInteger:
			problem = divideIntegers(out, row, integerAt(&left, row, d.left), integerAt(&right, row, d.right), d.result)
		case divisionFloat:
			problem = divideFloats(out, row, at[float64](&left, row), at[float64](&right, row))
		case divisionDecimal:
			var q int128
			q, problem = at[int128](&left, row).quotient(at[int128](&right, row), int(d.exponent), true)
			put(out, row, q)
		default:
			problem = "the types of a division could not be told; cast its operands"
		}
		if problem != "" {
			bindings.ScalarFunctionSetError(info, problem)
			return
		}
	}
}

func put[T any](out unsafe.Pointer, row int, v T) {
	*(*T)(unsafe.Add(out, uintptr(row)*unsafe.Sizeof(v))) = v
}

// integerAt widens an integer of the given bytes.
func integerAt(f *flat, row int, width C.int32_t) int128 {
	var v int64
	switch width {
	case 2:
		v = int64(at[int16](f, row))
	case 4:
		v = int64(at[int32](f, row))
	case 8:
		v = at[int64](f, row)
	default:
		return at[int128](f, row)
	}
	return int128{uint64(v), v >> 63}
}

func divideIntegers(out unsafe.Pointer, row int, a, b int128, width C.int32_t) (problem string) {
	q, problem := a.quotient(b, 0, false)
	v := int64(q.lower)
	if width < 16 && problem == "" && (q.upper != v>>63 || v>>(8*width-1) != v>>63) {
		problem = decimalOverflow
	}
	switch width {
	case 2:
		put(out, row, int16(v))
	case 4:
		put(out, row, int32(v))
	case 8:
		put(out, row, v)
	default:
		put(out, row, q)
	}
	return problem
}

func divideFloats(out unsafe.Pointer, row int, a, b float64) (problem string) {
	if b == 0 {
		return divideByZero
	}
	put(out, row, a/b)
	return ""
}

// abs is |v| as two halves.
func (v int128) abs() (hi, lo uint64, negative bool) {
	hi, lo = uint64(v.upper), v.lower
	if v.upper < 0 {
		var borrow uint64
		lo, borrow = bits.Sub64(0, lo, 0)
		hi, _ = bits.Sub64(0, hi, borrow)
		return hi, lo, true
	}
	return hi, lo, false
}

func int128Of(hi, lo uint64, negative bool) int128 {
	if negative {
		var borrow uint64
		lo, borrow = bits.Sub64(0, lo, 0)
		hi, _ = bits.Sub64(0, hi, borrow)
	}
	return int128{lo, int64(hi)}
}

// powers64 are 10^0 … 10^19, all that fit uint64.
var powers64 = func() (p [20]uint64) {
	p[0] = 1
	for i := 1; i < len(p); i++ {
		p[i] = p[i-1] * 10
	}
	return p
}()

// quotient is a × 10^exponent / b, rounded half away from zero or truncated;
// a rounded result has at most 38 digits. What fits 128 bits with a 64-bit
// divisor, which is nearly everything, takes no allocation.
func (v int128) quotient(b int128, exponent int, round bool) (int128, string) {
	if b == (int128{}) {
		return int128{}, divideByZero
	}
	ahi, alo, aneg := v.abs()
	bhi, blo, bneg := b.abs()
	if bhi != 0 || exponent < 0 || exponent >= len(powers64) {
		return v.quotientBig(b, exponent, round)
	}
	p := powers64[exponent]
	c1, lo := bits.Mul64(alo, p)
	c2, mid := bits.Mul64(ahi, p)
	hi, carry := bits.Add64(c1, mid, 0)
	if c2 != 0 || carry != 0 {
		return v.quotientBig(b, exponent, round)
	}
	qhi, rem := hi/blo, hi%blo
	qlo, rem := bits.Div64(rem, lo, blo)
	if round && rem >= blo-rem {
		qlo, carry = bits.Add64(qlo, 1, 0)
		qhi += carry
	}
	if qhi>>62 != 0 { // near the limit of 10^38: the slow path decides
		return v.quotientBig(b, exponent, round)
	}
	return int128Of(qhi, qlo, aneg != bneg), ""
}

func (v int128) quotientBig(b int128, exponent int, round bool) (int128, string) {
	n, d := v.big(), b.big()
	if exponent >= 0 {
		n.Mul(n, pow10(exponent))
	} else {
		d.Mul(d, pow10(-exponent))
	}
	negative := n.Sign()*d.Sign() < 0
	n.Abs(n)
	d.Abs(d)
	q, r := n.QuoRem(n, d, new(big.Int))
	if round && r.Lsh(r, 1).Cmp(d) >= 0 {
		q.Add(q, big.NewInt(1))
	}
	if round && q.Cmp(decimalLimit) >= 0 || q.BitLen() > 127 {
		return int128{}, decimalOverflow
	}
	lo := new(big.Int).And(q, new(big.Int).SetUint64(^uint64(0))).Uint64()
	hi := new(big.Int).Rsh(q, 64).Uint64()
	return int128Of(hi, lo, negative), ""
}
