package engine

import (
	"math"
	"math/big"
	"strings"
	"testing"
	"time"
)

func TestAppendText(t *testing.T) {
	ny, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	kolkata := time.FixedZone("", 5*3600+1800)
	instant := TimestampTZ(time.Date(2026, 11, 23, 14, 30, 0, 120_000_000, time.UTC).UnixMicro())
	for _, tc := range []struct {
		v    any
		loc  *time.Location
		want string
	}{
		{true, nil, "t"}, {false, nil, "f"}, {int16(-5), nil, "-5"}, {int32(7), nil, "7"}, {int64(math.MinInt64), nil, "-9223372036854775808"}, {"a'b", nil, "a'b"}, {[]byte{0, 255}, nil, `\x00ff`},
		{1e20, nil, "1e+20"}, {1e15, nil, "1e+15"}, {1e14, nil, "100000000000000"}, {0.0001, nil, "0.0001"}, {0.00001, nil, "1e-05"}, {0.1, nil, "0.1"}, {-2.5, nil, "-2.5"}, {0.0, nil, "0"},
		{math.Copysign(0, -1), nil, "-0"}, {math.NaN(), nil, "NaN"}, {math.Inf(1), nil, "Infinity"}, {math.Inf(-1), nil, "-Infinity"}, {float32(0.1), nil, "0.1"}, {float32(1e6), nil, "1e+06"}, {float32(123456), nil, "123456"},
		{Decimal{big.NewInt(-12345), 4}, nil, "-1.2345"}, {Decimal{big.NewInt(5), 3}, nil, "0.005"}, {Decimal{big.NewInt(0), 2}, nil, "0.00"}, {Decimal{big.NewInt(-7), 0}, nil, "-7"},
		{Decimal{pow10(37), 37}, nil, "1.0000000000000000000000000000000000000"}, {Decimal{big.NewInt(math.MinInt64), 1}, nil, "-922337203685477580.8"},
		{Date(0), nil, "1970-01-01"}, {Date(20780), nil, "2026-11-23"}, {Date(-719529), nil, "0002-12-31 BC"}, {Date(math.MaxInt32), nil, "infinity"}, {Date(-math.MaxInt32), nil, "-infinity"}, {Date(2932897), nil, "10000-01-01"},
		{Time(0), nil, "00:00:00"}, {Time(86399_999_999), nil, "23:59:59.999999"}, {Time(86400_000_000), nil, "24:00:00"},
		{Timestamp(1), nil, "1970-01-01 00:00:00.000001"}, {Timestamp(-1), nil, "1969-12-31 23:59:59.999999"}, {Timestamp(math.MaxInt64), nil, "infinity"},
		{instant, nil, "2026-11-23 14:30:00.12+00"}, {instant, ny, "2026-11-23 09:30:00.12-05"}, {instant, kolkata, "2026-11-23 20:00:00.12+05:30"}, {TimestampTZ(-math.MaxInt64), ny, "-infinity"},
		{TimestampTZ(-62167219200000001), nil, "0002-12-31 23:59:59.999999+00 BC"},
		{Interval{}, nil, "00:00:00"}, {Interval{14, 3, 14706_700_000}, nil, "1 year 2 mons 3 days 04:05:06.7"}, {Interval{-1, 0, 0}, nil, "-1 mons"}, {Interval{0, -1, 1}, nil, "-1 days +00:00:00.000001"},
		{Interval{0, 0, -3600_000_000}, nil, "-01:00:00"}, {Interval{0, 1, 0}, nil, "1 day"},
	} {
		if got := string(AppendText(nil, tc.v, tc.loc)); got != tc.want {
			t.Errorf("%T %v: %q, want %q", tc.v, tc.v, got, tc.want)
		}
	}
}

func TestResultValues(t *testing.T) {
	e, _ := newEngine(t)
	s := newSession(t, e)
	for sql, want := range map[string]string{
		`SELECT 1::TINYINT, 255::UTINYINT, 65535::USMALLINT, 4294967295::UINTEGER, 18446744073709551615::UBIGINT`:                                                  "1|255|65535|4294967295|18446744073709551615",
		`SELECT (-170141183460469231731687303715884105728)::HUGEINT, 340282366920938463463374607431768211455::UHUGEINT`:                                            "-170141183460469231731687303715884105728|340282366920938463463374607431768211455",
		`SELECT 1.5::DECIMAL(4,1), -1.5::DECIMAL(9,2), 1.5::DECIMAL(18,3), -1.5::DECIMAL(38,4)`:                                                                    "1.5|-1.50|1.500|-1.5000",
		`SELECT '00112233-4455-6677-8899-aabbccddeeff'::UUID, 'ff112233-4455-6677-8899-aabbccddeeff'::UUID`:                                                        "00112233-4455-6677-8899-aabbccddeeff|ff112233-4455-6677-8899-aabbccddeeff",
		`SELECT [1, NULL, 3], ['a"b'], {'a': 1, 'b': [DATE '2026-01-01']}, MAP {'k': 1.50}, [[1], []]`:                                                             `[1,null,3]|["a\"b"]|{"a":1,"b":["2026-01-01"]}|[{"key":"k","value":1.50}]|[[1],[]]`,
		`SELECT TIMESTAMP '2026-01-01 00:00:00.123'::TIMESTAMP_S, TIMESTAMP '2026-01-01 00:00:00.123'::TIMESTAMP_MS, '1969-12-31 23:59:59.9999995'::TIMESTAMP_NS`:  "2026-01-01 00:00:00|2026-01-01 00:00:00.123|1969-12-31 23:59:59.999999",
		`SELECT NULL, NULL::INTEGER[], TIME '01:02:03', INTERVAL '1 month', 'infinity'::DATE, '-infinity'::TIMESTAMPTZ, '\xAA'::BLOB`:                              `NULL|NULL|01:02:03|1 mon|infinity|-infinity|\xaa`,
		`SELECT TIMESTAMPTZ '2026-11-23 09:30:00-05', extract(hour FROM TIMESTAMPTZ '2026-11-23 09:30:00-05'), CAST(TIMESTAMPTZ '2026-11-23 23:30:00-05' AS DATE)`: "2026-11-23 14:30:00+00|14|2026-11-24",
	} {
		wantRows(t, s, Query{SQL: sql}, want)
	}
	if _, err := collectRows(t.Context(), s, Query{SQL: `SELECT TIMETZ '01:02:03+01'`}); err == nil || !strings.Contains(err.Error(), "VARCHAR") {
		t.Errorf("a type that is not returned: %v", err)
	}
}

func FuzzParseDecimal(f *testing.F) {
	for _, s := range []string{"0", "-1.50", "1e3", "+.5", "1.", "1e-400", "x", "", "--1", "1e", "9999999999999999999999999999999999999999.1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDecimal(s)
		if err != nil {
			return
		}
		back, err := ParseDecimal(d.String())
		if err != nil || back.Scale != d.Scale || back.Unscaled.Cmp(d.Unscaled) != 0 {
			t.Fatalf("%q is %v, which reads back as %v (%v)", s, d, back, err)
		}
		if r, ok := new(big.Rat).SetString(strings.TrimSpace(s)); ok && r.Cmp(new(big.Rat).SetFrac(d.Unscaled, pow10(int(d.Scale)))) != 0 {
			t.Fatalf("%q is %v", s, d)
		}
	})
}
