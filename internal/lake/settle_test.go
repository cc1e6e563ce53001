package lake

import (
	"errors"
	"os"
	"testing"

	"github.com/tapehouse/tapehouse/internal/fsys"
)

// TestSettle crashes the machine after another program wrote into the store
// without syncing anything.
func TestSettle(t *testing.T) {
	for _, settle := range []bool{false, true} {
		mem := fsys.NewMem()
		l, err := OpenLocal(mem, "/lake")
		if err != nil {
			t.Fatal(err)
		}
		if err := mem.MkdirAll("/lake/ns/t/data", 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := mem.OpenFile("/lake/ns/t/data/x.parquet", os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("rows")); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if settle {
			if err := l.Settle(t.Context(), "ns/t/data/x.parquet"); err != nil {
				t.Fatal(err)
			}
		}
		kept := 0
		for seed := range uint64(50) {
			after, err := OpenLocal(mem.Crash(seed), "/lake")
			if err != nil {
				t.Fatal(err)
			}
			if b, err := after.Get(t.Context(), "ns/t/data/x.parquet"); err == nil && string(b) == "rows" {
				kept++
			}
		}
		if settle && kept != 50 || !settle && kept == 50 {
			t.Errorf("settled: %v; the file is there after %d of 50 crashes", settle, kept)
		}
		if err := l.Settle(t.Context(), "ns/t/data/x.parquet", "ns/none"); !errors.Is(err, ErrNotFound) {
			t.Errorf("a file that is not there: %v", err)
		}
		if err := l.Settle(t.Context(), "../x"); !errors.Is(err, ErrName) {
			t.Errorf("a bad name: %v", err)
		}
	}
}
