package engine

import (
	"fmt"
	"math/big"

	bindings "github.com/duckdb/duckdb-go-bindings"
)

// bind gives the statement its parameters, which are values of a row.
func (s *stmt) bind(args []any) error {
	if n := int(bindings.NParams(s.p)); n != len(args) {
		return &Error{Kind: Binder, Message: fmt.Sprintf("the statement has %d parameters, and %d values were given", n, len(args))}
	}
	for i, a := range args {
		state, err := s.bindOne(bindings.IdxT(i+1), a)
		if err != nil {
			return err
		}
		if state == bindings.StateError {
			return &Error{Kind: Conversion, Message: fmt.Sprintf("parameter $%d: a value of type %T cannot be bound", i+1, a)}
		}
	}
	return nil
}

func (s *stmt) bindOne(i bindings.IdxT, a any) (bindings.State, error) {
	switch v := a.(type) {
	case nil:
		return bindings.BindNull(s.p, i), nil
	case bool:
		return bindings.BindBoolean(s.p, i, v), nil
	case int16:
		return bindings.BindInt16(s.p, i, v), nil
	case int32:
		return bindings.BindInt32(s.p, i, v), nil
	case int64:
		return bindings.BindInt64(s.p, i, v), nil
	case float32:
		return bindings.BindFloat(s.p, i, v), nil
	case float64:
		return bindings.BindDouble(s.p, i, v), nil
	case string:
		return bindings.BindVarchar(s.p, i, v), nil
	case []byte:
		return bindings.BindBlob(s.p, i, v), nil
	case Date:
		return bindings.BindDate(s.p, i, bindings.NewDate(int32(v))), nil
	case Time:
		return bindings.BindTime(s.p, i, bindings.NewTime(int64(v))), nil
	case Timestamp:
		return bindings.BindTimestamp(s.p, i, bindings.NewTimestamp(int64(v))), nil
	case TimestampTZ:
		return bindings.BindTimestampTZ(s.p, i, bindings.NewTimestamp(int64(v))), nil
	case Interval:
		return bindings.BindInterval(s.p, i, bindings.NewInterval(v.Months, v.Days, v.Micros)), nil
	case Decimal:
		d, err := duckDecimal(v)
		if err != nil {
			return bindings.StateError, err
		}
		return bindings.BindDecimal(s.p, i, d), nil
	}
	return bindings.StateError, &Error{Kind: Internal, Message: fmt.Sprintf("parameter $%d: %T is no row value", i, a)}
}

var decimalLimit = pow10(38)

func duckDecimal(d Decimal) (bindings.Decimal, error) {
	scale := max(int(d.Scale), 0)
	abs := new(big.Int).Abs(d.Unscaled)
	digits := len(abs.String())
	if abs.Cmp(decimalLimit) >= 0 || scale > 38 {
		return bindings.Decimal{}, &Error{Kind: OutOfRange, Message: "a numeric parameter has more than 38 digits"}
	}
	m := new(big.Int).And(d.Unscaled, new(big.Int).SetUint64(^uint64(0))) // two's complement, as big.Int's And has it
	hi := new(big.Int).Rsh(d.Unscaled, 64)
	return bindings.NewDecimal(uint8(max(digits, scale, 1)), uint8(scale), bindings.NewHugeInt(m.Uint64(), hi.Int64())), nil
}
