package pgwire

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
)

const (
	arrayDimensionsMax = 6         // PostgreSQL's MAXDIM
	arrayElementsMax   = 1_000_000 // of one parameter
)

// lower folds ASCII; names and keywords of the protocol have nothing else.
func lower(s string) string {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			b := []byte(s)
			for j, c := range b {
				if c >= 'A' && c <= 'Z' {
					b[j] = c + ('a' - 'A')
				}
			}
			return string(b)
		}
	}
	return s
}

// trimSpace removes what PostgreSQL's input functions call space.
func trimSpace(s string) string { return strings.Trim(s, " \t\n\r\v\f") }

// clip shortens a value that is quoted in an error.
func clip(s string) string {
	const runesMax = 80
	if len(s) <= runesMax {
		return s
	}
	n := 0
	for i := range s {
		if n++; n > runesMax {
			return s[:i] + "…"
		}
	}
	return s
}

// DecodeParameter turns a parameter or a field of COPY data into a Go value by
// its type: bool; int16, int32, int64 (also for OIDs); float32, float64;
// Decimal; string (text, json, uuid in canonical form, and every type not
// known here); []byte for bytea; Date, Time, Timestamp, TimestampTZ, Interval;
// []any, nested for several dimensions, with nil for NULL, for an array. raw is
// not kept. Timestamps that name no zone are in the style's zone.
func (s *Style) DecodeParameter(oid uint32, format int16, raw []byte) (any, error) {
	if format == formatBinary {
		return decodeBinary(oid, raw)
	}
	if !validText(raw) {
		return nil, errEncoding
	}
	return s.decodeText(oid, string(raw))
}

var errEncoding = errorf(codeCharacterRepertoire, `invalid byte sequence for encoding "UTF8"`)

func validText(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	for _, c := range b {
		if c == 0 {
			return false
		}
	}
	return true
}

func badBinary(oid uint32) error {
	return errorf(codeInvalidBinary, "incorrect binary data format for type %s", typeName(oid))
}

func decodeBinary(oid uint32, b []byte) (any, error) {
	info := types[oid]
	if n := info.class.wireSize(); n != 0 && len(b) != n {
		return nil, badBinary(oid)
	}
	switch info.class {
	case classBool:
		return b[0] != 0, nil
	case classInt2:
		return int16(binary.BigEndian.Uint16(b)), nil
	case classInt4:
		return int32(binary.BigEndian.Uint32(b)), nil
	case classInt8:
		return int64(binary.BigEndian.Uint64(b)), nil
	case classOID:
		return int64(binary.BigEndian.Uint32(b)), nil
	case classFloat4:
		return math.Float32frombits(binary.BigEndian.Uint32(b)), nil
	case classFloat8:
		return math.Float64frombits(binary.BigEndian.Uint64(b)), nil
	case classNumeric:
		return asAny(parseNumericBinary(b))
	case classText:
		if !validText(b) {
			return nil, errEncoding
		}
		return string(b), nil
	case classJSONB:
		if len(b) < 1 || b[0] != 1 {
			return nil, errorf(codeInvalidBinary, "unsupported jsonb version number")
		}
		if !validText(b[1:]) {
			return nil, errEncoding
		}
		return string(b[1:]), nil
	case classBytea:
		return append([]byte{}, b...), nil
	case classUUID:
		return uuid.UUID(b).String(), nil
	case classDate:
		d := int32(binary.BigEndian.Uint32(b))
		switch {
		case infiniteDays(d) != 0:
			return Date(infiniteDays(d) * infinityDays), nil
		case d > math.MaxInt32-1-epochDays:
			return nil, errorf(codeDatetimeOverflow, "date out of range")
		}
		return Date(d + epochDays), nil
	case classTime:
		t := int64(binary.BigEndian.Uint64(b))
		if t < 0 || t > microsPerDay {
			return nil, errorf(codeDatetimeOverflow, "time out of range")
		}
		return Time(t), nil
	case classTimestamp:
		t, err := decodeInstant(b)
		return Timestamp(t), err
	case classTimestampTZ:
		t, err := decodeInstant(b)
		return TimestampTZ(t), err
	case classInterval:
		return Interval{
			Micros: int64(binary.BigEndian.Uint64(b)),
			Days:   int32(binary.BigEndian.Uint32(b[8:])),
			Months: int32(binary.BigEndian.Uint32(b[12:])),
		}, nil
	case classArray:
		return decodeArrayBinary(oid, info.elem, b)
	}
	return nil, noBinary(oid)
}

// wireSize is the length of a type's binary form, 0 where it varies.
func (c class) wireSize() int {
	switch c {
	case classBool:
		return 1
	case classInt2:
		return 2
	case classInt4, classFloat4, classDate, classOID:
		return 4
	case classInt8, classFloat8, classTime, classTimestamp, classTimestampTZ:
		return 8
	case classInterval, classUUID:
		return 16
	}
	return 0
}

func asAny[T any](v T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

func decodeInstant(b []byte) (int64, error) {
	t := int64(binary.BigEndian.Uint64(b))
	switch sign := infiniteMicros(t); {
	case sign != 0:
		return int64(sign) * infinityMicros, nil
	case t > math.MaxInt64-1-epochMicros:
		return 0, errorf(codeDatetimeOverflow, "timestamp out of range")
	}
	return t + epochMicros, nil
}

func decodeArrayBinary(oid, elem uint32, b []byte) (any, error) {
	if len(b) < 12 {
		return nil, badBinary(oid)
	}
	dimensions := binary.BigEndian.Uint32(b)
	if got := binary.BigEndian.Uint32(b[8:]); got != elem {
		return nil, errorf(codeDatatypeMismatch, "binary data has array element type %d (%s) instead of expected %d (%s)",
			got, typeName(got), elem, typeName(elem))
	}
	b = b[12:]
	if dimensions > arrayDimensionsMax {
		return nil, errorf(codeLimitExceeded, "number of array dimensions (%d) exceeds the maximum allowed (%d)", dimensions, arrayDimensionsMax)
	}
	if len(b) < 8*int(dimensions) {
		return nil, badBinary(oid)
	}
	if dimensions == 0 {
		if len(b) != 0 {
			return nil, badBinary(oid)
		}
		return []any{}, nil
	}
	dims := make([]int, dimensions)
	total := 1
	for i := range dims {
		n := binary.BigEndian.Uint32(b)
		b = b[8:]
		if n > arrayElementsMax || total*int(n) > arrayElementsMax {
			return nil, errorf(codeLimitExceeded, "array size exceeds the maximum allowed (%d)", arrayElementsMax)
		}
		dims[i] = int(n)
		total *= int(n)
	}
	if len(b) < 4*total {
		return nil, badBinary(oid)
	}
	if total == 0 { // a dimension of no elements makes the whole array empty
		if len(b) != 0 {
			return nil, badBinary(oid)
		}
		return []any{}, nil
	}
	var read func(depth int) ([]any, error)
	read = func(depth int) ([]any, error) {
		elems := make([]any, dims[depth])
		for i := range elems {
			if depth+1 < len(dims) {
				sub, err := read(depth + 1)
				if err != nil {
					return nil, err
				}
				elems[i] = sub
				continue
			}
			if len(b) < 4 {
				return nil, badBinary(oid)
			}
			n := int(int32(binary.BigEndian.Uint32(b)))
			b = b[4:]
			if n == -1 {
				continue
			}
			if n < 0 || n > len(b) {
				return nil, badBinary(oid)
			}
			v, err := decodeBinary(elem, b[:n])
			if err != nil {
				return nil, err
			}
			elems[i], b = v, b[n:]
		}
		return elems, nil
	}
	elems, err := read(0)
	if err == nil && len(b) != 0 {
		err = badBinary(oid)
	}
	return asAny(elems, err)
}

func badText(oid uint32, text string) error {
	return errorf(codeInvalidText, "invalid input syntax for type %s: %q", typeName(oid), clip(text))
}

func (s *Style) decodeText(oid uint32, text string) (any, error) {
	info := types[oid]
	switch info.class {
	case classBool:
		return parseBool(text)
	case classInt2, classInt4, classInt8, classOID:
		if info.class == classOID && oid != OIDOid && oid != OIDXid {
			return text, nil // a regclass is a name: the session resolves it
		}
		return parseInt(oid, info, text)
	case classFloat4, classFloat8:
		return parseFloat(oid, info, text)
	case classNumeric:
		return asAny(parseNumericText(text))
	case classBytea:
		return parseBytea(text)
	case classUUID:
		u, err := uuid.Parse(text)
		if err != nil {
			return nil, badText(oid, text)
		}
		return u.String(), nil
	case classDate:
		return asAny(parseDate(text))
	case classTime:
		return asAny(parseTime(text))
	case classTimestamp:
		t, err := parseTimestamp(text, nil)
		return asAny(Timestamp(t), err)
	case classTimestampTZ:
		t, err := parseTimestamp(text, s.zone)
		return asAny(TimestampTZ(t), err)
	case classInterval:
		return asAny(parseInterval(text))
	case classArray:
		return s.parseArray(oid, info.elem, text)
	}
	return text, nil
}

func parseBool(text string) (any, error) {
	t := lower(trimSpace(text))
	switch t {
	case "1", "on":
		return true, nil
	case "0", "of", "off":
		return false, nil
	case "":
		return nil, badText(OIDBool, text)
	}
	switch {
	case strings.HasPrefix("true", t), strings.HasPrefix("yes", t):
		return true, nil
	case strings.HasPrefix("false", t), strings.HasPrefix("no", t):
		return false, nil
	}
	return nil, badText(OIDBool, text)
}

func parseInt(oid uint32, info typeInfo, text string) (any, error) {
	if oid == OIDOid || oid == OIDXid {
		n, err := strconv.ParseUint(trimSpace(text), 10, 32)
		if err != nil {
			return nil, numberError(oid, text, err)
		}
		return int64(n), nil
	}
	n, err := strconv.ParseInt(trimSpace(text), 10, int(info.size)*8)
	if err != nil {
		return nil, numberError(oid, text, err)
	}
	switch info.class {
	case classInt2:
		return int16(n), nil
	case classInt4:
		return int32(n), nil
	}
	return n, nil
}

func numberError(oid uint32, text string, err error) error {
	if errors.Is(err, strconv.ErrRange) {
		return errorf(codeNumericOutOfRange, "value %q is out of range for type %s", clip(text), typeName(oid))
	}
	return badText(oid, text)
}

func parseFloat(oid uint32, info typeInfo, text string) (any, error) {
	t := trimSpace(text)
	if strings.ContainsAny(t, "xXpP_") { // Go's own notations
		return nil, badText(oid, text)
	}
	f, err := strconv.ParseFloat(t, int(info.size)*8)
	if err != nil {
		return nil, numberError(oid, text, err)
	}
	if info.class == classFloat4 {
		return float32(f), nil
	}
	return f, nil
}

// parseBytea reads the hex form \x… and the older escape form.
func parseBytea(text string) (any, error) {
	if h, ok := strings.CutPrefix(text, `\x`); ok {
		b, err := hex.DecodeString(h)
		if err != nil {
			return nil, errorf(codeInvalidText, "invalid hexadecimal data for type bytea")
		}
		return b, nil
	}
	b := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			b = append(b, text[i])
			continue
		}
		if i+1 < len(text) && text[i+1] == '\\' {
			b = append(b, '\\')
			i++
			continue
		}
		if i+3 >= len(text) {
			return nil, badText(OIDBytea, text)
		}
		n, err := strconv.ParseUint(text[i+1:i+4], 8, 8)
		if err != nil {
			return nil, badText(OIDBytea, text)
		}
		b = append(b, byte(n))
		i += 3
	}
	return b, nil
}

// parseArray reads array_in's form {a,"b c",NULL,{…}}; an explicit lower bound
// [1:3]= is skipped.
func (s *Style) parseArray(oid, elem uint32, text string) (any, error) {
	malformed := errorf(codeInvalidText, "malformed array literal: %q", clip(text))
	t := trimSpace(text)
	if strings.HasPrefix(t, "[") {
		_, rest, ok := strings.Cut(t, "=")
		if !ok {
			return nil, malformed
		}
		t = trimSpace(rest)
	}
	i, total := 0, 0
	space := func() {
		for i < len(t) && strings.IndexByte(" \t\n\r\v\f", t[i]) >= 0 {
			i++
		}
	}
	var read func(depth int) ([]any, error)
	read = func(depth int) ([]any, error) {
		if depth > arrayDimensionsMax || i >= len(t) || t[i] != '{' {
			return nil, malformed
		}
		i++
		elems := []any{}
		if space(); i < len(t) && t[i] == '}' {
			i++
			return elems, nil
		}
		for {
			space()
			if i >= len(t) {
				return nil, malformed
			}
			if total++; total > arrayElementsMax {
				return nil, errorf(codeLimitExceeded, "array size exceeds the maximum allowed (%d)", arrayElementsMax)
			}
			if t[i] == '{' {
				sub, err := read(depth + 1)
				if err != nil {
					return nil, err
				}
				elems = append(elems, sub)
			} else {
				word, quoted, ok := arrayWord(t, &i)
				if !ok {
					return nil, malformed
				}
				if !quoted && strings.EqualFold(word, "null") {
					elems = append(elems, nil)
				} else {
					v, err := s.decodeText(elem, word)
					if err != nil {
						return nil, err
					}
					elems = append(elems, v)
				}
			}
			space()
			switch {
			case i >= len(t):
				return nil, malformed
			case t[i] == ',':
				i++
			case t[i] == '}':
				i++
				return elems, nil
			default:
				return nil, malformed
			}
		}
	}
	elems, err := read(1)
	if err == nil {
		if space(); i != len(t) || !rectangular(elems) {
			err = malformed
		}
	}
	return asAny(elems, err)
}

// arrayWord reads one element at *i.
func arrayWord(t string, i *int) (word string, quoted, ok bool) {
	var b []byte
	if t[*i] == '"' {
		for *i++; *i < len(t); *i++ {
			switch t[*i] {
			case '"':
				*i++
				return string(b), true, true
			case '\\':
				if *i++; *i >= len(t) {
					return "", true, false
				}
			}
			b = append(b, t[*i])
		}
		return "", true, false
	}
	keep := 0 // trailing space is dropped, unless escaped
	for ; *i < len(t); *i++ {
		switch t[*i] {
		case ',', '}':
			return string(b[:keep]), false, keep > 0
		case '{', '"':
			return "", false, false
		case '\\':
			if *i++; *i >= len(t) {
				return "", false, false
			}
			b = append(b, t[*i])
			keep = len(b)
			continue
		}
		b = append(b, t[*i])
		if strings.IndexByte(" \t\n\r\v\f", t[*i]) < 0 {
			keep = len(b)
		}
	}
	return "", false, false
}

// rectangular reports whether sub-arrays have equal shapes.
func rectangular(elems []any) bool {
	first := -1
	for _, e := range elems {
		n := -2 // a scalar
		if sub, ok := e.([]any); ok {
			if n = len(sub); !rectangular(sub) {
				return false
			}
		}
		if first == -1 {
			first = n
		}
		if n != first {
			return false
		}
	}
	return true
}
