package warehouse

import (
	"strings"

	"github.com/tapehouse/tapehouse/internal/engine"
)

// Exact numerics. Division and avg are made exact by the engine, which knows
// from DuckDB's binder what the operands are (engine.Query.Exact). Here stands
// what the parser's tree can decide: that no operation gives up digits because
// a 64-bit decimal meets another, that a zero divisor of % is an error, and
// which types sums have. The result types of all of them are Redshift's
// ("Computations with numeric values"). What does not fit 38 digits is an
// error, never an approximation.

const divideByZero = "division by zero"

// quotientType is Redshift's DECIMAL(p1,s1) / DECIMAL(p2,s2).
func quotientType(a, b sqlType) sqlType {
	scale := max(4, a.scale+b.precision-b.scale+1)
	precision := a.precision - a.scale + b.scale + scale
	if precision > decimalDigitsMax {
		scale = max(decimalDigitsMax+scale-precision, 4)
		precision = decimalDigitsMax
	}
	return decimal(precision, scale)
}

// nonZero is e, or a division by zero. The error is the conversion of a text
// that no number looks like, because DuckDB's integer division by zero is NULL
// and its error() is not open to statements.
func nonZero(e node, t sqlType) node {
	if class(e) == "CONSTANT" && !flag(child(e, "value"), "is_null") {
		if i, ok := constantInt(e); ok && i != 0 {
			return e
		}
	}
	fail := castTo(stringConstant(divideByZero), t)
	return caseNode(copyOf(e), comparison("COMPARE_EQUAL", copyOf(e), castTo(stringConstant("0"), t)), fail)
}

// arithmetic rewrites a binary + - * / %.
func (r *rewriter) arithmetic(n node, op string, ops []operand) (node, sqlType, error) {
	a, b := &ops[0], &ops[1]
	for i, o := range ops {
		other := ops[1-i].t
		if (o.t.kind == kindNull || o.t.kind == kindLiteral) && other.numeric() {
			was := ops[i].n
			ops[i].n = r.assign(o.n, o.t, other)
			switch {
			case class(was) == "PARAMETER":
				ops[i].t = other
				if other.kind == kindDecimal {
					ops[i].t = parameterDecimal
				}
			case o.t.kind == kindLiteral:
				if d, ok := literalOf(o); ok {
					ops[i].n, ops[i].t = place(numberConstant(constantTrimmed(o.n), d), o.n), d
				} else {
					ops[i].n, ops[i].t = castTo(o.n, other), other
				}
			}
		}
	}
	keep := func(t sqlType) (node, sqlType, error) {
		n["children"] = []any{bare(a.n), bare(b.n)}
		return n, t, nil
	}
	switch {
	case op == "%":
		return r.modulo(n, ops)
	case a.t.integer() && b.t.integer():
		t := sqlType{kind: max(a.t.kind, b.t.kind)}
		return keep(t)
	case a.t.exact() && b.t.exact():
		return r.decimalArithmetic(n, op, *a, *b)
	case a.t.numeric() && b.t.numeric():
		if a.t.kind == kindReal && b.t.kind == kindReal && op != "/" {
			return keep(sqlType{kind: kindReal})
		}
		if a.t.kind == kindReal || b.t.kind == kindReal {
			a.n, b.n = castTo(a.n, sqlType{kind: kindDouble}), castTo(b.n, sqlType{kind: kindDouble})
		}
		return keep(sqlType{kind: kindDouble})
	case a.t.kind == kindNull || b.t.kind == kindNull:
		if a.t.kind == kindNull && b.t.kind == kindNull {
			return keep(sqlType{kind: kindNull})
		}
		if a.t.numeric() || b.t.numeric() {
			// NULL with a number: the number's type, and no division in doubles.
			t := a.t
			if t.kind == kindNull {
				t = b.t
			}
			return keep(t)
		}
	}
	return r.timeArithmetic(n, op, ops)
}

func constantTrimmed(n node) string {
	text, _ := constantText(n)
	return strings.TrimSpace(text)
}

// decimalArithmetic rewrites an operation whose operands are exact and not
// both integers.
func (r *rewriter) decimalArithmetic(n node, op string, a, b operand) (node, sqlType, error) {
	da, db := a.t.asDecimal(), b.t.asDecimal()
	narrow := da.precision <= 18 && db.precision <= 18
	widen := func() {
		// From 19 digits on, DuckDB computes in 128 bits.
		a.n, da = castTo(a.n, decimal(19, da.scale)), decimal(19, da.scale)
	}
	var t sqlType
	switch op {
	case "/":
		t = quotientType(da, db)
	case "*":
		if da.scale+db.scale > decimalDigitsMax {
			return nil, t, errorf(codeNumericOutOfRange, "a product of scales %d and %d needs more than 38 digits", da.scale, db.scale).
				hint("round one factor first, for instance round(x, 8)").at(r.src.position(location(n)))
		}
		if narrow && da.precision+db.precision > 18 {
			// The type is that of DuckDB's product of 19 digits and the other's.
			t = decimal(19+db.precision, da.scale+db.scale)
			name := engine.ProductName(da.scale, db.scale, t.precision)
			return place(call(name, castTo(a.n, decimal(18, da.scale)), castTo(b.n, decimal(18, db.scale))), n), t, nil
		}
		t = decimal(min(da.precision+db.precision, decimalDigitsMax), da.scale+db.scale)
	case "+", "-":
		need := func() int {
			s, w := max(da.scale, db.scale), max(da.precision-da.scale, db.precision-db.scale)
			return max(s+w, da.precision, db.precision) + 1
		}
		p := need()
		if narrow && p > 18 {
			if da.scale != db.scale {
				widen()
				p = need()
			} else {
				p = 18
			}
		}
		t = decimal(min(p, decimalDigitsMax), max(da.scale, db.scale))
	}
	n["children"] = []any{bare(a.n), bare(b.n)}
	return n, t, nil
}

// modulo makes a zero divisor an error. DuckDB's decimal modulo takes the wider
// operand's type, so both are brought to the common one first.
func (r *rewriter) modulo(n node, ops []operand) (node, sqlType, error) {
	a, b := ops[0], ops[1]
	t, _, ok := common(a.t, b.t)
	if !ok || !t.numeric() {
		n["children"] = []any{bare(a.n), bare(b.n)}
		return n, sqlType{}, nil
	}
	left, right := a.n, b.n
	if t.kind == kindDecimal || t.kind == kindDouble {
		left, right = castTo(left, t), castTo(right, t)
	}
	return place(call("%", left, nonZero(right, t)), n), t, nil
}

// average types avg: DECIMAL(38,s) for decimals, and for integers the truncated
// BIGINT that Redshift answers.
func (r *rewriter) average(n node, arg operand) (node, sqlType, error) {
	switch t := arg.t; {
	case t.integer():
		return n, sqlType{kind: kindBigint}, nil
	case t.kind == kindDecimal:
		return n, decimal(decimalDigitsMax, t.scale), nil
	case t.float():
		return n, sqlType{kind: kindDouble}, nil
	}
	return n, sqlType{}, nil
}

// total rewrites sum: BIGINT for the smaller integers, DECIMAL(38,s) for exact
// numbers beyond.
func (r *rewriter) total(n node, arg operand) (node, sqlType, error) {
	t := arg.t
	switch {
	case t.kind == kindBigint || t.kind == kindHugeint:
		out := decimal(decimalDigitsMax, 0)
		return place(castTo(n, out), n), out, nil
	case t.integer():
		out := sqlType{kind: kindBigint}
		return place(castTo(n, out), n), out, nil
	case t.kind == kindDecimal:
		return n, decimal(decimalDigitsMax, t.scale), nil
	case t.kind == kindReal || t.kind == kindDouble:
		return n, sqlType{kind: kindDouble}, nil
	}
	return n, sqlType{}, nil
}
