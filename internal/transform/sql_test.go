package transform

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/engine"
)

func newEngine(t testing.TB) (e *engine.Engine, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "stage")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(t.Context(), engine.Options{TempDir: t.TempDir(), AllowedDirs: []string{dir}, MemoryLimitBytes: 400_000_000, Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e, dir
}

func newSQL(t testing.TB, e *engine.Engine, dir, statement string) *SQL {
	t.Helper()
	s, err := NewSQL(t.Context(), SQLOptions{Statement: statement, Engine: e, Dir: dir})
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

const tradeColumns = `(symbol varchar, price decimal(18,4), qty bigint, executed_at timestamptz, trade_date date, member varchar, ok boolean, n integer, x double precision)`

func TestQuick(t *testing.T) {
	e, dir := newEngine(t)
	s := newSQL(t, e, dir, "SELECT symbol, price * qty AS notional, price / 3 AS third, executed_at, trade_date, x, ok, 100 / n AS n, md5(member) AS _partition_m, 'd' AS _database FROM records AS r "+tradeColumns+" WHERE r.qty > 0")
	fmt.Println(s.tried)
	fmt.Println(s.alone)
	got, err := s.Apply(t.Context(), records(
		`{"symbol":"AB\"C","price":1.5,"qty":2,"executed_at":"2026-11-27T10:00:00.5+02:00","trade_date":"2026-11-27","x":0.1,"ok":true,"n":7,"member":"m"}`,
		`{"qty":0}`, `{"qty":1,"n":0}`, `{"qty":"x"}`, `nope`, `{"price":99999999999999.9999,"qty":9223372036854775807}`))
	for i := range got { fmt.Println(describe(got[i])) }
	fmt.Println(err)
}

func trade(i int) []byte {
	return fmt.Appendf(nil, `{"symbol":"S%03d","price":%d.%04d,"qty":%d,"executed_at":"2026-11-27T14:30:%02d.%06dZ","trade_date":"2026-11-27","member":"MEMBER%02d","ok":true,"n":%d,"x":%d.25,"match":%d,"venue":"XNAS","leg":"B","currency":"USD","account":"A-%08d","comment":"none"}`+"\n",
		i%500, i%1000, i%10000, i%900+100, i%60, i%1000000, i%40, i%9+1, i, i, i)
}

func tradeBatch(n int) []Record {
	out := make([]Record, n)
	for i := range out {
		out[i] = Record{ID: fmt.Sprintf("%062d", i), ArrivedAt: time.Now(), Data: trade(i)}
	}
	return out
}

func BenchmarkSQL(b *testing.B) {
	e, dir := newEngine(b)
	for _, bc := range []struct{ name, sql string }{
		{"list", "SELECT symbol, price, qty, price * qty AS notional, executed_at, trade_date, md5(member) AS member, n, x FROM records AS r " + tradeColumns + " WHERE qty > 150"},
		{"filter", "SELECT symbol AS _partition_symbol FROM records AS r (symbol varchar, qty bigint) WHERE qty > 150"},
		{"data", "SELECT data->>'symbol' AS symbol, CAST(data->>'price' AS decimal(18,4)) AS price, data->'match' AS match FROM records WHERE CAST(data->>'qty' AS bigint) > 150"},
	} {
		s := newSQL(b, e, dir, bc.sql)
		for _, n := range []int{500, 3300, 13000} {
			in := tradeBatch(n)
			size := 0
			for i := range in {
				size += len(in[i].Data)
			}
			b.Run(fmt.Sprintf("%s/%d", bc.name, n), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := s.Apply(b.Context(), in); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "records/s")
			})
		}
	}
}
