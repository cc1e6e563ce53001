package hive

import "testing"

func TestParseSegment(t *testing.T) {
	for _, c := range []struct {
		segment, key, value string
		ok                  bool
	}{
		{"trade_date=2026-11-23", "trade_date", "2026-11-23", true},
		{"symbol=BRK%2FB", "symbol", "BRK/B", true},
		{"a%3Db=c=d", "a=b", "c=d", true},
		{"k=", "k", "", true},
		{"=v", "", "", false},
		{"plain", "", "", false},
		{"k=100%", "k", "", false},
		{"k=%zz", "k", "", false},
	} {
		key, value, ok := ParseSegment(c.segment)
		if ok != c.ok || ok && (key != c.key || value != c.value) {
			t.Errorf("ParseSegment(%q) = %q, %q, %t; want %q, %q, %t", c.segment, key, value, ok, c.key, c.value, c.ok)
		}
	}
}

func FuzzSegment(f *testing.F) {
	f.Add("trade date", "2026/11/23 %41")
	f.Add("k", "\x00\x7fü=")
	f.Fuzz(func(t *testing.T, key, value string) {
		if key == "" {
			return
		}
		want := value
		if want == "" {
			want = DefaultPartition
		}
		k, v, ok := ParseSegment(Segment(key, value))
		if !ok || k != key || v != want {
			t.Errorf("%q, %q: parsed back as %q, %q, %t", key, value, k, v, ok)
		}
	})
}
