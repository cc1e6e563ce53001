package benchmark

import (
	"bufio"
	"io/fs"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/capacity"
	"github.com/tapehouse/tapehouse/internal/console"
)

// TestCapacityConstants holds the sizes that tapehouse plan multiplies with against
// what a server writes.
func TestCapacityConstants(t *testing.T) {
	s, err := start(t.Context(), Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := prepare(t.Context(), s, false); err != nil {
		t.Fatal(err)
	}
	client, err := s.producer(1)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	logged := appendedBytes(t, s)
	m := newMarket(1)
	var sources []*source
	for i := range 16 {
		sources = append(sources, newSource(m, i, 1))
	}
	n := 0.0
	for put := range 800 {
		docs := sources[put%len(sources)].put()
		if _, err := client.PutBatch(t.Context(), stream, docs); err != nil {
			t.Fatal(err)
		}
		n += float64(len(docs))
	}
	logged = appendedBytes(t, s) - logged
	operator := console.NewClient(console.Endpoints{HTTP: s.addresses.HTTP}, s.credentials.Users[0])
	defer operator.Close()
	if _, err := operator.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	var stored int64
	if err := filepath.WalkDir(filepath.Join(s.dir, "data", "lake", schema), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".parquet") {
			return err
		}
		info, err := d.Info()
		if err == nil {
			stored += info.Size()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string][2]float64{"lake": {float64(stored) / n, capacity.LakeBytes}, "log": {logged / n, capacity.LogBytes}} {
		if got, want := c[0], c[1]; got < 0.7*want || got > 1.3*want {
			t.Errorf("%s: %.1f bytes a record, tapehouse plan takes %.1f", what, got, want)
		}
	}
}

// appendedBytes is what the log has written so far.
func appendedBytes(t *testing.T, s *subject) float64 {
	t.Helper()
	answer, err := http.Get("http://" + s.addresses.HTTP + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "tapehouse_wal_appended_bytes_total "); ok {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatal("the log's metric is missing")
	return 0
}
