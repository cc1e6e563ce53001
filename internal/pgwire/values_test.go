package pgwire

import (
	"encoding/binary"
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

func wireCode(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func number(unscaled *big.Int, scale int32) Decimal { return Decimal{Unscaled: unscaled, Scale: scale} }

func span(months, days int32, micros int64) Interval {
	return Interval{Months: months, Days: days, Micros: micros}
}

func dec(unscaled string, scale int32) Decimal {
	n, ok := new(big.Int).SetString(unscaled, 10)
	if !ok {
		panic(unscaled)
	}
	return number(n, scale)
}

// Property: what this package writes in binary, pgtype reads as the same
// number, and back.
func TestNumericBinaryAgainstPgtype(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	m := pgtype.NewMap()
	check := func(d Decimal) {
		t.Helper()
		b, err := appendNumericBinary(nil, d)
		if err != nil {
			t.Fatalf("%v e-%d: %v", d.Unscaled, d.Scale, err)
		}
		var n pgtype.Numeric
		if err := m.Scan(OIDNumeric, pgtype.BinaryFormatCode, b, &n); err != nil {
			t.Fatalf("%v e-%d: pgtype: %v", d.Unscaled, d.Scale, err)
		}
		got := new(big.Rat).SetInt(n.Int)
		exp := new(big.Rat).SetInt(new(big.Int).Exp(bigTen, big.NewInt(int64(max(n.Exp, -n.Exp))), nil))
		if n.Exp < 0 {
			got.Quo(got, exp)
		} else {
			got.Mul(got, exp)
		}
		if want := ratOf(d); got.Cmp(want) != 0 {
			t.Fatalf("%v e-%d travels as %v", d.Unscaled, d.Scale, got)
		}
		if scale := binary.BigEndian.Uint16(b[6:]); d.Scale >= 0 && int32(scale) != d.Scale {
			t.Fatalf("dscale %d, want %d", scale, d.Scale)
		}
		if ndigits := binary.BigEndian.Uint16(b); ndigits > 0 { // canonical: no zeros at either end
			if binary.BigEndian.Uint16(b[8:]) == 0 || binary.BigEndian.Uint16(b[len(b)-2:]) == 0 {
				t.Fatalf("%v e-%d: leading or trailing zero digit: %x", d.Unscaled, d.Scale, b)
			}
		}
		back, err := parseNumericBinary(b)
		if err != nil || ratOf(back).Cmp(ratOf(d)) != 0 {
			t.Fatalf("%v e-%d reads back as %v: %v", d.Unscaled, d.Scale, back, err)
		}
		text, err := parseNumericText(string(appendNumericText(nil, d)))
		if err != nil || ratOf(text).Cmp(ratOf(d)) != 0 || d.Scale >= 0 && text.Scale != d.Scale {
			t.Fatalf("%v e-%d: text %s reads back as %v: %v", d.Unscaled, d.Scale, appendNumericText(nil, d), text, err)
		}
		// What pgtype writes, this package reads.
		theirs, err := m.Encode(OIDNumeric, pgtype.BinaryFormatCode, pgtype.Numeric{Int: d.Unscaled, Exp: -d.Scale, Valid: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := parseNumericBinary(theirs); err != nil || ratOf(back).Cmp(ratOf(d)) != 0 {
			t.Fatalf("pgtype's %v e-%d reads as %v: %v", d.Unscaled, d.Scale, back, err)
		}
	}
	for _, edge := range []string{"0", "1", "-1", "9999", "10000", "10001", "-99999999", "100000000", "9223372036854775807", "-9223372036854775808",
		"99999999999999999999999999999999999999", "-170141183460469231731687303715884105728", "18446744073709551616", "1000000000000000000000"} {
		for scale := int32(-9); scale <= 38; scale++ {
			check(dec(edge, scale))
		}
	}
	for range 20_000 {
		words := make([]byte, rnd.IntN(20))
		for i := range words {
			words[i] = byte(rnd.Uint32())
		}
		n := new(big.Int).SetBytes(words)
		if rnd.IntN(2) == 0 {
			n.Neg(n)
		}
		if rnd.IntN(4) == 0 { // many trailing zeros
			n.Mul(n, new(big.Int).Exp(bigTen, big.NewInt(int64(rnd.IntN(30))), nil))
		}
		check(number(n, int32(rnd.IntN(45)-3)))
	}
}

func ratOf(d Decimal) *big.Rat {
	r := new(big.Rat).SetInt(d.Unscaled)
	p := new(big.Rat).SetInt(new(big.Int).Exp(bigTen, big.NewInt(int64(max(d.Scale, -d.Scale))), nil))
	if d.Scale < 0 {
		return r.Mul(r, p)
	}
	return r.Quo(r, p)
}

func TestNumericRefusals(t *testing.T) {
	for name, b := range map[string][]byte{
		"short":      {0, 1, 0, 0, 0, 0, 0},
		"cut":        {0, 2, 0, 0, 0, 0, 0, 0, 0, 1},
		"long":       {0, 0, 0, 0, 0, 0, 0, 0, 0, 1},
		"bad sign":   {0, 0, 0, 0, 0x12, 0, 0, 0},
		"bad digit":  {0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10},
		"NaN":        {0, 0, 0, 0, 0xc0, 0, 0, 0},
		"infinity":   {0, 0, 0, 0, 0xd0, 0, 0, 0},
		"huge scale": {0, 0, 0, 0, 0, 0, 0xff, 0xff},
	} {
		if _, err := parseNumericBinary(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// The most that ten bytes may ask for is bounded.
	if d, err := parseNumericBinary([]byte{0, 1, 0x7f, 0xff, 0, 0, 0, 0, 0, 1}); err != nil || d.Unscaled.BitLen() > 450_000 {
		t.Errorf("weight 32767: %v", err)
	}
	for text, code := range map[string]string{
		"": "22P02", "x": "22P02", ".": "22P02", "1..2": "22P02", "1e": "22P02", "1e5x": "22P02", "--1": "22P02", "0x10": "22P02", "1_000": "22P02",
		"1e999999999": "22003", "1e-999999999": "22003", "NaN": "0A000", "-Infinity": "0A000",
	} {
		if _, err := parseNumericText(text); wireCode(err) != code {
			t.Errorf("%q: %v, want %s", text, err, code)
		}
	}
	for text, want := range map[string]string{" 1.50 ": "1.50", "+.5": "0.5", "5.": "5", "-1.25e2": "-125", "1.25e-3": "0.00125", "1e3": "1000", "-0": "0", "007": "7"} {
		d, err := parseNumericText(text)
		if got := string(appendNumericText(nil, d)); err != nil || got != want {
			t.Errorf("%q: %s %v, want %s", text, got, err, want)
		}
	}
}

// Expected texts are those of PostgreSQL 15.
func TestText(t *testing.T) {
	const second = microsPerSecond
	at := TimestampTZ(time.Date(2026, 11, 23, 14, 30, 5, 120_000_000, time.UTC).UnixMicro())
	july := TimestampTZ(time.Date(2026, 7, 1, 4, 0, 0, 0, time.UTC).UnixMicro())
	ny, kolkata := map[string]string{"TimeZone": "America/New_York"}, map[string]string{"TimeZone": "Asia/Kolkata"}
	style := func(date string) map[string]string {
		return map[string]string{"TimeZone": "America/New_York", "DateStyle": date}
	}
	for _, test := range []struct {
		v          any
		parameters map[string]string
		want       string
	}{
		{true, nil, "t"}, {false, nil, "f"}, {int16(-7), nil, "-7"}, {int32(math.MinInt32), nil, "-2147483648"},
		{int64(math.MaxInt64), nil, "9223372036854775807"}, {uint64(math.MaxUint64), nil, "18446744073709551615"},
		{"naïve", nil, "naïve"}, {[]byte{0, 0xde, 0xad}, nil, `\x00dead`}, {[]byte{}, nil, `\x`},
		{1.0, nil, "1"}, {0.1, nil, "0.1"}, {1e15, nil, "1e+15"}, {123456789012345.0, nil, "123456789012345"}, {1e-5, nil, "1e-05"}, {0.0001, nil, "0.0001"},
		{1e100, nil, "1e+100"}, {math.Copysign(0, -1), nil, "-0"}, {math.NaN(), nil, "NaN"}, {math.Inf(-1), nil, "-Infinity"},
		{float32(0.1), nil, "0.1"}, {float32(1e6), nil, "1e+06"}, {float32(999999), nil, "999999"}, {float32(16777216), nil, "1.6777216e+07"},
		{dec("-5", 4), nil, "-0.0005"}, {dec("123456", 2), nil, "1234.56"}, {dec("0", 4), nil, "0.0000"}, {dec("12", -3), nil, "12000"}, {dec("7", 0), nil, "7"},
		{dec("-123456789012345678901234567890", 10), nil, "-12345678901234567890.1234567890"}, {big.NewInt(-12), nil, "-12"},
		{Date(0), nil, "1970-01-01"}, {Date(20780), nil, "2026-11-23"}, {Date(-1), nil, "1969-12-31"}, {Date(-719_163), nil, "0001-12-31 BC"}, {Date(2932897), nil, "10000-01-01"},
		{Date(math.MaxInt32), nil, "infinity"}, {Date(-math.MaxInt32), nil, "-infinity"},
		{Date(20780), style("SQL, MDY"), "11/23/2026"}, {Date(20780), style("SQL, DMY"), "23/11/2026"}, {Date(20780), style("Postgres, MDY"), "11-23-2026"},
		{Date(20780), style("German"), "23.11.2026"},
		{Time(0), nil, "00:00:00"}, {Time(microsPerDay), nil, "24:00:00"}, {Time(3661*second + 5), nil, "01:01:01.000005"},
		{Timestamp(at), ny, "2026-11-23 14:30:05.12"}, {Timestamp(-1), nil, "1969-12-31 23:59:59.999999"}, {Timestamp(math.MaxInt64), nil, "infinity"},
		{at, nil, "2026-11-23 14:30:05.12+00"}, {at, ny, "2026-11-23 09:30:05.12-05"}, {july, ny, "2026-07-01 00:00:00-04"}, {at, kolkata, "2026-11-23 20:00:05.12+05:30"},
		{at, map[string]string{"TimeZone": "Nowhere/Land"}, "2026-11-23 14:30:05.12+00"}, {at, map[string]string{"TimeZone": "-03:30"}, "2026-11-23 11:00:05.12-03:30"},
		{TimestampTZ(time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()), ny, "0001-12-31 19:03:58-04:56:02 BC"}, {TimestampTZ(math.MinInt64), ny, "-infinity"},
		{at, style("SQL, MDY"), "11/23/2026 09:30:05.12 EST"}, {at, style("Postgres, MDY"), "Mon Nov 23 09:30:05.12 2026 EST"},
		{at, style("Postgres, DMY"), "Mon 23 Nov 09:30:05.12 2026 EST"}, {at, style("German"), "23.11.2026 09:30:05.12 EST"}, {july, style("SQL, DMY"), "01/07/2026 00:00:00 EDT"},
		{Interval{}, nil, "00:00:00"}, {Interval{Months: 14, Days: 3, Micros: 4*3600*second + 5*60*second + 6*second + 700_000}, nil, "1 year 2 mons 3 days 04:05:06.7"},
		{Interval{Months: -14, Days: 3, Micros: -second}, nil, "-1 years -2 mons +3 days -00:00:01"}, {Interval{Days: -1, Micros: second}, nil, "-1 days +00:00:01"},
		{Interval{Months: 1}, nil, "1 mon"}, {Interval{Micros: 100 * 3600 * second}, nil, "100:00:00"}, {Interval{Micros: math.MinInt64}, nil, "-2562047788:00:54.775808"},
		{Interval{Months: 14, Days: 3, Micros: -6_700_000}, map[string]string{"IntervalStyle": "iso_8601"}, "P1Y2M3DT-6.7S"}, {Interval{}, map[string]string{"IntervalStyle": "iso_8601"}, "PT0S"},
		{[]any{int32(1), nil, int32(3)}, nil, "{1,NULL,3}"}, {[]any{}, nil, "{}"}, {[]any{"a b", "", `q"\`, "NULL", "plain", "a,b", "{"}, nil, `{"a b","","q\"\\","NULL",plain,"a,b","{"}`},
		{[]any{[]any{int32(1), int32(2)}, []any{int32(3), nil}}, nil, "{{1,2},{3,NULL}}"}, {[]any{at}, ny, `{"2026-11-23 09:30:05.12-05"}`},
	} {
		got, err := NewStyle(test.parameters).AppendText([]byte("x"), test.v)
		if err != nil || string(got) != "x"+test.want {
			t.Errorf("%T %v %v: %q %v, want %q", test.v, test.v, test.parameters, got, err, test.want)
		}
	}
	if _, err := NewStyle(nil).AppendText(nil, struct{}{}); err == nil {
		t.Error("a struct has a text form")
	}
}

// Property: binary → value → text agrees with what pgtype makes of the binary,
// and text and binary parameters decode to the same value.
func TestFormatsAgree(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	m := pgtype.NewMap()
	style := NewStyle(map[string]string{"TimeZone": "America/New_York"})
	someText := func() string {
		alphabet := []rune(`aB0 ,{}"\'_éß—` + "\t\n\r\v\f\b")
		r := make([]rune, rnd.IntN(12))
		for i := range r {
			r[i] = alphabet[rnd.IntN(len(alphabet))]
		}
		return string(r)
	}
	// Within what time.Time and pgtype take.
	micros := func() int64 { return rnd.Int64N(400*365*microsPerDay) - 200*365*microsPerDay }
	gen := map[uint32]func() any{
		OIDBool: func() any { return rnd.IntN(2) == 0 }, OIDInt2: func() any { return int16(rnd.Uint32()) }, OIDInt4: func() any { return int32(rnd.Uint32()) },
		OIDInt8: func() any { return int64(rnd.Uint64()) }, OIDOid: func() any { return int64(rnd.Uint32()) },
		OIDFloat4:  func() any { return float32(rnd.NormFloat64() * math.Pow(10, float64(rnd.IntN(30)-15))) },
		OIDFloat8:  func() any { return rnd.NormFloat64() * math.Pow(10, float64(rnd.IntN(60)-30)) },
		OIDNumeric: func() any { return number(big.NewInt(int64(rnd.Uint64())), int32(rnd.IntN(20))) },
		OIDText:    func() any { return someText() }, OIDVarchar: func() any { return someText() }, OIDBytea: func() any { return []byte(someText()) },
		OIDJSON: func() any { return `{"a": 1}` }, OIDJSONB: func() any { return `[1, "x"]` }, OIDUUID: func() any { return "123e4567-e89b-12d3-a456-426614174000" },
		OIDDate: func() any { return Date(rnd.Int32N(200_000) - 100_000) }, OIDTime: func() any { return Time(rnd.Int64N(microsPerDay)) },
		OIDTimestamp: func() any { return Timestamp(micros()) }, OIDTimestampTZ: func() any { return TimestampTZ(micros()) },
		OIDInterval: func() any {
			return span(int32(rnd.IntN(2000)-1000), int32(rnd.IntN(2000)-1000), rnd.Int64N(1e12)-5e11)
		},
	}
	for oid, info := range types {
		if info.class != classArray || gen[info.elem] == nil {
			continue
		}
		elem := gen[info.elem]
		gen[oid] = func() any {
			n := rnd.IntN(4)
			out := make([]any, n)
			for i := range out {
				if rnd.IntN(5) > 0 {
					out[i] = elem()
				}
			}
			if n > 0 && rnd.IntN(4) == 0 {
				return []any{out, out}
			}
			return out
		}
	}
	for oid, make := range gen {
		for range 200 {
			v := make()
			bin, err := style.appendBinary(nil, oid, v)
			if err != nil {
				t.Fatalf("%s %v: %v", typeName(oid), v, err)
			}
			text, err := style.AppendText(nil, v)
			if err != nil {
				t.Fatalf("%s %v: %v", typeName(oid), v, err)
			}
			fromBinary, err := style.DecodeParameter(oid, formatBinary, bin)
			if err != nil {
				t.Fatalf("%s %v: from binary: %v", typeName(oid), v, err)
			}
			fromText, err := style.DecodeParameter(oid, formatText, text)
			if err != nil {
				t.Fatalf("%s %q: from text: %v", typeName(oid), text, err)
			}
			again, err := style.appendBinary(nil, oid, fromText)
			if err != nil || string(again) != string(bin) {
				t.Fatalf("%s %q: text decodes to %v, binary to %v", typeName(oid), text, fromText, fromBinary)
			}
			if !reflect.DeepEqual(fromBinary, v) && oid != OIDNumeric && oid != 1231 {
				t.Fatalf("%s: %#v came back as %#v", typeName(oid), v, fromBinary)
			}
			// pgtype reads both forms as the same.
			if oid == OIDChar || oid == 1002 {
				continue
			}
			a, errA := m.TypeForOID(oid)
			if !errA {
				t.Fatalf("pgtype does not know %s", typeName(oid))
			}
			x, err := a.Codec.DecodeValue(m, oid, pgtype.BinaryFormatCode, bin)
			if err != nil {
				t.Fatalf("%s %v: pgtype, binary %x: %v", typeName(oid), v, bin, err)
			}
			y, err := a.Codec.DecodeValue(m, oid, pgtype.TextFormatCode, text)
			if err != nil {
				t.Fatalf("%s %v: pgtype, text %q: %v", typeName(oid), v, text, err)
			}
			if b, ok := v.([]byte); ok && len(b) == 0 {
				continue // pgtype reads an empty bytea as nil in one of the forms
			}
			if !sameValue(x, y) {
				t.Fatalf("%s %v: pgtype reads %v in binary, %v in text %q", typeName(oid), v, x, y, text)
			}
		}
	}
}

func sameValue(x, y any) bool {
	switch a := x.(type) {
	case time.Time:
		return a.Equal(y.(time.Time))
	case pgtype.Numeric:
		b := y.(pgtype.Numeric)
		return ratOf(number(a.Int, -a.Exp)).Cmp(ratOf(number(b.Int, -b.Exp))) == 0
	case pgtype.Interval:
		return a == y.(pgtype.Interval)
	case []any:
		b, ok := y.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !sameValue(a[i], b[i]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(x, y)
}

func TestBinaryConversions(t *testing.T) {
	s := NewStyle(nil)
	for _, test := range []struct {
		oid  uint32
		v    any
		want string
		code string
	}{
		{OIDInt4, int64(5), "\x00\x00\x00\x05", ""}, {OIDInt4, int64(1) << 40, "", "22003"}, {OIDInt2, int32(40000), "", "22003"}, {OIDInt8, dec("5", 0), "\x00\x00\x00\x00\x00\x00\x00\x05", ""},
		{OIDInt4, "5", "", "42804"}, {OIDText, int32(5), "5", ""}, {OIDText, []byte("x"), "x", ""}, {OIDOid, "25", "\x00\x00\x00\x19", ""}, {OIDRegclass, "pg_class", "", "42804"},
		{OIDBool, int32(1), "", "42804"}, {OIDNumeric, int32(0), "\x00\x00\x00\x00\x00\x00\x00\x00", ""}, {OIDNumeric, "1.5", "\x00\x02\x00\x00\x00\x00\x00\x01\x00\x01\x13\x88", ""},
		{OIDNumeric, math.NaN(), "", "0A000"}, {OIDUUID, "nope", "", "42804"}, {OIDInt2Vector, "1 2", "", "42883"}, {987654, "x", "", "42883"}, {OIDDate, Date(10957), "\x00\x00\x00\x00", ""},
		{OIDDate, Date(math.MinInt32), "\x80\x00\x00\x00", ""}, {OIDDate, Date(math.MinInt32 + 2), "", "22008"}, {OIDTimestamp, Timestamp(math.MinInt64 + 2), "", "22008"},
		{1007, []any{[]any{int32(1)}, int32(2)}, "", "2202E"}, {1007, []any{[]any{int32(1)}, []any{}}, "", "2202E"}, {1007, []any{}, "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x17", ""},
		{OIDJSONB, "1", "\x011", ""}, {OIDFloat4, int32(1), "\x3f\x80\x00\x00", ""}, {OIDFloat8, 1.0, "\x3f\xf0\x00\x00\x00\x00\x00\x00", ""},
	} {
		got, err := s.appendBinary(nil, test.oid, test.v)
		if wireCode(err) != test.code || err == nil && string(got) != test.want {
			t.Errorf("%s %v: %q %v, want %q %s", typeName(test.oid), test.v, got, err, test.want, test.code)
		}
	}
}

func TestTextParameters(t *testing.T) {
	ny := NewStyle(map[string]string{"TimeZone": "America/New_York"})
	utc := func(y int, mo time.Month, d, h, mi, s, us int) TimestampTZ {
		return TimestampTZ(time.Date(y, mo, d, h, mi, s, us*1000, time.UTC).UnixMicro())
	}
	for _, test := range []struct {
		oid  uint32
		text string
		want any
		code string
	}{
		{OIDBool, " TRUE ", true, ""}, {OIDBool, "f", false, ""}, {OIDBool, "of", false, ""}, {OIDBool, "y", true, ""}, {OIDBool, "", nil, "22P02"}, {OIDBool, "2", nil, "22P02"},
		{OIDInt2, "32768", nil, "22003"}, {OIDInt4, " -12 ", int32(-12), ""}, {OIDInt4, "1.0", nil, "22P02"}, {OIDInt8, "9223372036854775807", int64(math.MaxInt64), ""}, {OIDOid, "4294967295", int64(math.MaxUint32), ""},
		{OIDFloat8, "1e400", nil, "22003"}, {OIDFloat8, "Infinity", math.Inf(1), ""}, {OIDFloat8, "0x1p4", nil, "22P02"}, {OIDFloat4, "1.5", float32(1.5), ""},
		{OIDBytea, `\xDEAD`, []byte{0xde, 0xad}, ""}, {OIDBytea, `\xabc`, nil, "22P02"}, {OIDBytea, `a\\b\001`, []byte("a\\b\x01"), ""}, {OIDBytea, `a\9`, nil, "22P02"},
		{OIDUUID, "{123E4567-e89b-12d3-a456-426614174000}", "123e4567-e89b-12d3-a456-426614174000", ""}, {OIDUUID, "x", nil, "22P02"},
		{OIDText, "", "", ""}, {OIDText, "a\x00b", nil, "22021"}, {OIDText, "\xff", nil, "22021"}, {999999, "whatever", "whatever", ""}, {OIDRegclass, "equities.x", "equities.x", ""},
		{OIDDate, "2026-11-23", Date(20780), ""}, {OIDDate, "20261123", Date(20780), ""}, {OIDDate, "0001-12-31 BC", Date(-719_163), ""}, {OIDDate, "2026-02-29", nil, "22007"}, {OIDDate, "2026-11-23 10:00", Date(20780), ""},
		{OIDDate, "0000-01-01", nil, "22007"}, {OIDDate, "infinity", Date(math.MaxInt32), ""}, {OIDDate, "tomorrow", nil, "22007"}, {OIDDate, "9999999-01-01", nil, "22008"},
		{OIDTime, "24:00:00", Time(microsPerDay), ""}, {OIDTime, "24:00:01", nil, "22007"}, {OIDTime, "1:02", Time(3720 * microsPerSecond), ""}, {OIDTime, "01:02:03.4567895", Time(3723*microsPerSecond + 456790), ""},
		{OIDTimestamp, "2026-11-23T14:30:05.12Z", Timestamp(utc(2026, 11, 23, 14, 30, 5, 120000)), ""}, {OIDTimestamp, "2026-11-23 14:30+05", Timestamp(utc(2026, 11, 23, 14, 30, 0, 0)), ""},
		{OIDTimestampTZ, "2026-11-23 09:30:05", utc(2026, 11, 23, 14, 30, 5, 0), ""}, {OIDTimestampTZ, "2026-07-01", utc(2026, 7, 1, 4, 0, 0, 0), ""}, {OIDTimestampTZ, "2026-11-23 09:30:05 Asia/Kolkata", utc(2026, 11, 23, 4, 0, 5, 0), ""},
		{OIDTimestampTZ, "2026-11-23 09:30:05-0530", utc(2026, 11, 23, 15, 0, 5, 0), ""}, {OIDTimestampTZ, "2026-11-23 09:30:05.9999999+00", utc(2026, 11, 23, 9, 30, 6, 0), ""}, {OIDTimestampTZ, "2026-11-23 09:30 Mars/Base", nil, "22007"},
		{OIDTimestampTZ, "0044-03-15 12:00:00+00 BC", TimestampTZ(time.Date(-43, 3, 15, 12, 0, 0, 0, time.UTC).UnixMicro()), ""}, {OIDTimestampTZ, "-infinity", TimestampTZ(-math.MaxInt64), ""}, {OIDTimestampTZ, "2026-11-23x", nil, "22007"},
		{OIDTimestampTZ, "400000-01-01 00:00:00+00", nil, "22008"},
		{OIDInterval, "1 year 2 mons -3 days +04:05:06.7", span(14, -3, 14706_700_000), ""}, {OIDInterval, "P1Y2M3DT4H5M6.5S", span(14, 3, 14706_500_000), ""}, {OIDInterval, "PT-1.5S", span(0, 0, -1_500_000), ""},
		{OIDInterval, "@ 2 hours 30 mins ago", span(0, 0, -9_000_000_000), ""}, {OIDInterval, "1.5 hours", span(0, 0, 5_400_000_000), ""}, {OIDInterval, "30", span(0, 0, 30_000_000), ""}, {OIDInterval, "0 years 0 mons 3 days 0 hours 0 mins 1.25 secs", span(0, 3, 1_250_000), ""},
		{OIDInterval, "100:00:00", span(0, 0, 360_000_000_000), ""}, {OIDInterval, "1.5 months", nil, "22007"}, {OIDInterval, "", nil, "22007"}, {OIDInterval, "5 furlongs", nil, "22007"}, {OIDInterval, "P", nil, "22007"}, {OIDInterval, "PT1D", nil, "22007"},
		{OIDInterval, "9999999999 years", nil, "22008"}, {OIDInterval, "99999999999999999999 s", nil, "22007"},
		{1007, "{1,NULL,3}", []any{int32(1), nil, int32(3)}, ""}, {1007, " { } ", []any{}, ""}, {1007, "[1:2]={1,2}", []any{int32(1), int32(2)}, ""}, {1007, "{{1,2},{3,4}}", []any{[]any{int32(1), int32(2)}, []any{int32(3), int32(4)}}, ""},
		{1007, "{{1,2},{3}}", nil, "22P02"}, {1007, "{1,{2}}", nil, "22P02"}, {1007, "{1", nil, "22P02"}, {1007, "{1,}", nil, "22P02"}, {1007, "{1} x", nil, "22P02"}, {1007, "{{{{{{{1}}}}}}}", nil, "22P02"}, {1007, "{x}", nil, "22P02"},
		{1009, `{a b, "c,\"d" ,"NULL",null}`, []any{"a b", `c,"d`, "NULL", nil}, ""}, {1009, `{a"b}`, nil, "22P02"}, {1009, `{a\,b\ }`, []any{"a,b "}, ""},
	} {
		got, err := ny.DecodeParameter(test.oid, formatText, []byte(test.text))
		if wireCode(err) != test.code || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s %q: %#v %v, want %#v %s", typeName(test.oid), test.text, got, err, test.want, test.code)
		}
	}
}

func TestCivil(t *testing.T) {
	for days := int64(-1_000_000); days < 4_000_000; days += 97 {
		want := time.Unix(days*86_400, 0).UTC()
		y, m, d := civil(days)
		if int(y) != want.Year() || m != int(want.Month()) || d != want.Day() || daysOf(y, m, d) != days {
			t.Fatalf("day %d is %d-%d-%d, want %v", days, y, m, d, want)
		}
	}
}

func FuzzDecodeParameter(f *testing.F) {
	style := NewStyle(map[string]string{"TimeZone": "America/New_York"})
	for oid := range types {
		f.Add(oid, int16(0), []byte("{1,2}"))
		f.Add(oid, int16(1), []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 23, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 7})
	}
	f.Add(OIDTimestampTZ, int16(0), []byte("2026-11-23 09:30:05.12-05"))
	f.Add(OIDInterval, int16(0), []byte("1 year -2 mons 3 days 04:05:06.7 ago"))
	f.Add(OIDNumeric, int16(0), []byte("-12345.6789e-3"))
	f.Fuzz(func(t *testing.T, oid uint32, format int16, raw []byte) {
		v, err := style.DecodeParameter(oid, format&1, raw)
		if err != nil || v == nil {
			return
		}
		// What was taken can be sent, and comes back the same.
		if types[oid].class == classUnknown || types[oid].class == classOID {
			return
		}
		bin, err := style.appendBinary(nil, oid, v)
		if err != nil {
			if wireCode(err) == "" {
				t.Fatalf("%s %v: %v", typeName(oid), v, err)
			}
			return
		}
		w, err := style.DecodeParameter(oid, formatBinary, bin)
		if err != nil {
			t.Fatalf("%s %#v: sent as %x, not read back: %v", typeName(oid), v, bin, err)
		}
		again, err := style.appendBinary(nil, oid, w)
		if err != nil || string(again) != string(bin) {
			t.Fatalf("%s: %x, then %x (%v)", typeName(oid), bin, again, err)
		}
	})
}
