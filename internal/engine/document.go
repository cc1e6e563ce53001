package engine

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"time"
	"unsafe"
)

// Rows as JSON. A result that becomes documents is read in place: its strings
// and numbers go from DuckDB's vectors to the text without a Go value between.
//
//	BOOLEAN           true, false
//	integers          the number, whatever its size
//	DECIMAL           the number with all digits of its scale: 1.50
//	FLOAT, DOUBLE     the shortest number that reads back as the same
//	JSON              as it is
//	DATE              "2006-01-02"
//	TIME              "15:04:05.000006", no trailing zeros
//	TIMESTAMP         "2006-01-02T15:04:05.000006", no trailing zeros
//	TIMESTAMPTZ       the same in UTC with a Z
//	LIST, ARRAY       an array
//	STRUCT            an object
//	MAP               an array of {"key": …, "value": …}
//	anything else     a string of its text form

// Step moves to the next row, for Null, Value and AppendJSON, or returns
// io.EOF. After another error the rows are only good for Close.
func (r *Rows) Step() error {
	if r.closed {
		return ErrClosed
	}
	if r.err != nil {
		return r.err
	}
	for r.st.row == r.st.rows {
		if err := r.st.fetch(); err != nil {
			return r.failed(err)
		}
	}
	r.st.row++
	r.count++
	return nil
}

// Value is column i of the row that Step moved to. REQUIRES: Step succeeded.
func (r *Rows) Value(i int) any { return r.st.readers[i].value(r.st.row - 1) }

// Null reports whether column i of the row is null. REQUIRES: as Value.
func (r *Rows) Null(i int) bool { return r.st.readers[i].null(r.st.row - 1) }

// ErrTooLong is returned by AppendJSON instead of a buffer beyond its limit.
var ErrTooLong = errors.New("the value is too long")

// AppendJSON appends column i of the row as JSON to dst and returns the new
// buffer. A value without a JSON form is an *Error of kind Conversion: a number
// that is infinite or none, a date outside of the years 1 to 9999, bytes, text
// of the type JSON that is none. Texts and elements that would make dst longer
// than limit bytes are not copied: ErrTooLong. REQUIRES: as Value.
func (r *Rows) AppendJSON(dst []byte, i, limit int) ([]byte, error) {
	return appendDocument(dst, r.st.readers[i], r.st.row-1, limit)
}

// AppendString is AppendJSON for a column of text, without quotes and escapes:
// the text itself, nothing for null. REQUIRES: as Value; the column is Varchar.
func (r *Rows) AppendString(dst []byte, i, limit int) ([]byte, error) {
	row := r.st.row - 1
	if t, ok := r.st.readers[i].(*text); ok && !t.null(row) {
		b := t.bytes(row)
		if len(dst)+len(b) > limit {
			return dst, ErrTooLong
		}
		return append(dst, b...), nil
	}
	s, _ := r.Value(i).(string)
	return append(dst, s...), nil
}

func noJSON(what string) error {
	return &Error{Kind: Conversion, Message: what + " has no JSON form"}
}

func appendDocument(dst []byte, r reader, row, limit int) ([]byte, error) {
	if r.null(row) {
		return append(dst, "null"...), nil
	}
	if len(dst) > limit {
		return dst, ErrTooLong
	}
	switch r := r.(type) {
	case *sequence:
		from, n := r.span(row)
		var err error
		dst = append(dst, '[')
		for i := range n {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = appendDocument(dst, r.child, from+i, limit); err != nil {
				return dst, err
			}
		}
		return append(dst, ']'), nil
	case *structure:
		var err error
		dst = append(dst, '{')
		for i, c := range r.children {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(AppendJSONString(dst, r.names[i]), ':')
			if dst, err = appendDocument(dst, c, row, limit); err != nil {
				return dst, err
			}
		}
		return append(dst, '}'), nil
	case *text:
		b := r.bytes(row)
		switch {
		case r.blob:
			return dst, noJSON("a value of bytes")
		case len(dst)+len(b) > limit:
			return dst, ErrTooLong
		case r.json:
			if !json.Valid(b) {
				return dst, noJSON("a value of the type JSON that JSON does not allow")
			}
			return append(dst, b...), nil
		}
		return AppendJSONString(dst, unsafe.String(unsafe.SliceData(b), len(b))), nil
	case *decimal:
		return r.appendTo(dst, row), nil
	case interface {
		document(dst []byte, row int) ([]byte, error)
	}:
		return r.document(dst, row)
	}
	return appendDocumentValue(dst, r.value(row))
}

func appendDocumentValue(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case bool:
		return strconv.AppendBool(dst, v), nil
	case int16, int32, int64, Decimal:
		return AppendText(dst, v, nil), nil
	case float32:
		return appendJSONFloat(dst, float64(v), 32)
	case float64:
		return appendJSONFloat(dst, v, 64)
	case Timestamp:
		return appendJSONTimestamp(dst, int64(v), false)
	case string:
		return AppendJSONString(dst, v), nil
	}
	return AppendJSONString(dst, string(AppendText(nil, v, time.UTC))), nil
}

// appendJSONFloat is the shortest form; an exponent stands where JavaScript
// puts one, so that numbers of everyday size have none.
func appendJSONFloat(dst []byte, f float64, bits int) ([]byte, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return dst, noJSON("a number that is infinite or none")
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, f, format, -1, bits), nil
}

func appendJSONInt[T int32 | int64](dst []byte, v T) ([]byte, error) {
	return strconv.AppendInt(dst, int64(v), 10), nil
}

func appendJSONDate(dst []byte, days int32) ([]byte, error) {
	if days == dateInfinity || days == -dateInfinity {
		return dst, noJSON("an infinite date")
	}
	dst, err := appendJSONDay(append(dst, '"'), time.Unix(int64(days)*86400, 0).UTC())
	return append(dst, '"'), err
}

func appendJSONDay(dst []byte, t time.Time) ([]byte, error) {
	y, m, d := t.Date()
	if y < 1 || y > 9999 {
		return dst, noJSON("a date outside of the years 1 to 9999")
	}
	dst = append(append(dst, digitPairs[y/100]...), digitPairs[y%100]...)
	dst = append(append(dst, '-'), digitPairs[m]...)
	return append(append(dst, '-'), digitPairs[d]...), nil
}

func appendJSONTimestamp(dst []byte, micros int64, zone bool) ([]byte, error) {
	if micros == timestampInfinity || micros == -timestampInfinity {
		return dst, noJSON("an infinite timestamp")
	}
	t := time.UnixMicro(micros).UTC()
	dst, err := appendJSONDay(append(dst, '"'), t)
	h, m, s := t.Clock()
	dst = append(append(dst, 'T'), digitPairs[h]...)
	dst = append(append(dst, ':'), digitPairs[m]...)
	dst = append(append(dst, ':'), digitPairs[s]...)
	dst = appendFraction(dst, int64(t.Nanosecond()/1000))
	if zone {
		dst = append(dst, 'Z')
	}
	return append(dst, '"'), err
}

// digitPairs are "00" to "99".
var digitPairs = func() (pairs [100]string) {
	for i := range pairs {
		pairs[i] = string([]byte{'0' + byte(i/10), '0' + byte(i%10)})
	}
	return pairs
}()

const hexDigits = "0123456789abcdef"

// AppendJSONString appends s, which is UTF-8, as a JSON string: only what JSON
// demands is escaped.
func AppendJSONString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(append(dst, s[from:]...), '"')
}
