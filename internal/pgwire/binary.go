package pgwire

import (
	"encoding/binary"
	"math"
	"math/big"
	"strconv"

	"github.com/google/uuid"
)

// hasBinary reports whether values of a type can be sent and taken in binary.
func hasBinary(oid uint32) bool { return types[oid].class != classUnknown }

// appendBinary appends the binary form of v, which is not nil, as a value of
// type oid. The kind of v may differ from the type's own where the value is
// representable: the engine is free to answer an int4 column with an int64.
func (s *Style) appendBinary(dst []byte, oid uint32, v any) ([]byte, error) {
	info := types[oid]
	switch info.class {
	case classInt8:
		n, ok := toInt64(v)
		if !ok {
			return dst, misfit(v, oid)
		}
		return binary.BigEndian.AppendUint64(dst, uint64(n)), nil
	case classInt4:
		n, ok := toInt64(v)
		if !ok || n != int64(int32(n)) {
			return dst, misfit(v, oid)
		}
		return binary.BigEndian.AppendUint32(dst, uint32(n)), nil
	case classInt2:
		n, ok := toInt64(v)
		if !ok || n != int64(int16(n)) {
			return dst, misfit(v, oid)
		}
		return binary.BigEndian.AppendUint16(dst, uint16(n)), nil
	case classOID:
		n, ok := toInt64(v)
		if t, isText := v.(string); isText {
			u, err := strconv.ParseUint(t, 10, 32)
			n, ok = int64(u), err == nil
		}
		if !ok || n < math.MinInt32 || n > math.MaxUint32 {
			return dst, misfit(v, oid)
		}
		return binary.BigEndian.AppendUint32(dst, uint32(n)), nil
	case classText:
		if b, ok := v.([]byte); ok { // text held as bytes, not bytea
			return append(dst, b...), nil
		}
		return s.AppendText(dst, v)
	case classNumeric:
		d, err := toDecimal(v)
		if err != nil {
			return dst, err
		}
		return appendNumericBinary(dst, d)
	case classTimestampTZ:
		if t, ok := v.(TimestampTZ); ok {
			return appendInstant(dst, int64(t))
		}
	case classTimestamp:
		if t, ok := v.(Timestamp); ok {
			return appendInstant(dst, int64(t))
		}
	case classDate:
		if d, ok := v.(Date); ok {
			days := int64(d) - epochDays
			switch infiniteDays(int32(d)) {
			case 1:
				days = math.MaxInt32
			case -1:
				days = math.MinInt32
			default:
				if days < math.MinInt32 {
					return dst, errorf(codeDatetimeOverflow, "date out of range")
				}
			}
			return binary.BigEndian.AppendUint32(dst, uint32(int32(days))), nil
		}
	case classTime:
		if t, ok := v.(Time); ok {
			return binary.BigEndian.AppendUint64(dst, uint64(t)), nil
		}
	case classInterval:
		if t, ok := v.(Interval); ok {
			dst = binary.BigEndian.AppendUint64(dst, uint64(t.Micros))
			dst = binary.BigEndian.AppendUint32(dst, uint32(t.Days))
			return binary.BigEndian.AppendUint32(dst, uint32(t.Months)), nil
		}
	case classFloat8:
		if f, ok := toFloat(v); ok {
			return binary.BigEndian.AppendUint64(dst, math.Float64bits(f)), nil
		}
	case classFloat4:
		if f, ok := toFloat(v); ok {
			return binary.BigEndian.AppendUint32(dst, math.Float32bits(float32(f))), nil
		}
	case classBool:
		if b, ok := v.(bool); ok {
			if b {
				return append(dst, 1), nil
			}
			return append(dst, 0), nil
		}
	case classBytea:
		switch v := v.(type) {
		case []byte:
			return append(dst, v...), nil
		case string:
			return append(dst, v...), nil
		}
	case classUUID:
		switch v := v.(type) {
		case string:
			if u, err := uuid.Parse(v); err == nil {
				return append(dst, u[:]...), nil
			}
		case []byte:
			if len(v) == len(uuid.UUID{}) {
				return append(dst, v...), nil
			}
		}
	case classJSONB:
		const version = 1
		if b, ok := v.([]byte); ok {
			return append(append(dst, version), b...), nil
		}
		return s.AppendText(append(dst, version), v)
	case classArray:
		if elems, ok := v.([]any); ok {
			return s.appendArrayBinary(dst, info.elem, elems)
		}
	case classUnknown:
		return dst, noBinary(oid)
	}
	return dst, misfit(v, oid)
}

func (c class) integer() bool {
	return c == classInt2 || c == classInt4 || c == classInt8 || c == classOID
}

func misfit(v any, oid uint32) error {
	if _, ok := toInt64(v); ok && types[oid].class.integer() {
		return errorf(codeNumericOutOfRange, "%s out of range", typeName(oid))
	}
	return errorf(codeDatatypeMismatch, "a value of Go type %T cannot be sent as %s", v, typeName(oid))
}

func noBinary(oid uint32) error {
	return errorf(codeUndefinedFunction, "no binary format available for type %s (OID %d)", typeName(oid), oid)
}

func appendInstant(dst []byte, micros int64) ([]byte, error) {
	wire := micros - epochMicros
	switch infiniteMicros(micros) {
	case 1:
		wire = math.MaxInt64
	case -1:
		wire = math.MinInt64
	default:
		if wire > micros { // wrapped around
			return dst, errorf(codeDatetimeOverflow, "timestamp out of range")
		}
	}
	return binary.BigEndian.AppendUint64(dst, uint64(wire)), nil
}

func toFloat(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case float32:
		return float64(v), true
	}
	n, ok := toInt64(v)
	return float64(n), ok
}

func toDecimal(v any) (Decimal, error) {
	switch v := v.(type) {
	case Decimal:
		return v, nil
	case *big.Int:
		return Decimal{Unscaled: v}, nil
	case uint64:
		return Decimal{Unscaled: new(big.Int).SetUint64(v)}, nil
	case string:
		return parseNumericText(v)
	case float64:
		return parseNumericText(strconv.FormatFloat(v, 'e', -1, 64))
	case float32:
		return parseNumericText(strconv.FormatFloat(float64(v), 'e', -1, 32))
	}
	if n, ok := toInt64(v); ok {
		return Decimal{Unscaled: big.NewInt(n)}, nil
	}
	return Decimal{}, misfit(v, OIDNumeric)
}

// appendArrayBinary appends array_send's form:
//
//	ndim(4) has-null(4) element-type(4) { length(4) lower-bound(4) } × ndim
//	{ length(4, -1 = NULL) bytes } × elements
func (s *Style) appendArrayBinary(dst []byte, elem uint32, elems []any) ([]byte, error) {
	var dims []int
	for at := elems; len(at) > 0; {
		dims = append(dims, len(at))
		sub, ok := at[0].([]any)
		if !ok {
			break
		}
		at = sub
	}
	if len(dims) > arrayDimensionsMax {
		return dst, errorf(codeLimitExceeded, "number of array dimensions exceeds the maximum allowed (%d)", arrayDimensionsMax)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(dims)))
	nullAt := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, 0)
	dst = binary.BigEndian.AppendUint32(dst, elem)
	for _, n := range dims {
		dst = binary.BigEndian.AppendUint32(dst, uint32(n))
		dst = binary.BigEndian.AppendUint32(dst, 1)
	}
	var appendDimension func(elems []any, depth int) error
	appendDimension = func(elems []any, depth int) error {
		if len(elems) != dims[depth] {
			return errorf("2202E", "multidimensional arrays must have sub-arrays with matching dimensions")
		}
		for _, v := range elems {
			if depth+1 < len(dims) {
				sub, ok := v.([]any)
				if !ok {
					return errorf("2202E", "multidimensional arrays must have sub-arrays with matching dimensions")
				}
				if err := appendDimension(sub, depth+1); err != nil {
					return err
				}
				continue
			}
			if v == nil {
				binary.BigEndian.PutUint32(dst[nullAt:], 1)
				dst = binary.BigEndian.AppendUint32(dst, math.MaxUint32)
				continue
			}
			at := len(dst)
			var err error
			dst, err = s.appendBinary(append(dst, 0, 0, 0, 0), elem, v)
			if err != nil {
				return err
			}
			binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
		}
		return nil
	}
	if len(dims) == 0 {
		return dst, nil
	}
	err := appendDimension(elems, 0)
	return dst, err
}
