package exchange_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/tapehouse/tapehouse/internal/exchange"
)

func writeManifest(t testing.TB, entries []exchange.Entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := exchange.NewManifestWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := w.Append(e.Stream, e.Key, e.Hash); err != nil {
			t.Fatal(err)
		}
	}
	if w.Count() != uint64(len(entries)) {
		t.Errorf("count %d", w.Count())
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func readManifest(b []byte) (entries []exchange.Entry, err error) {
	r, err := exchange.NewManifestReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	for {
		e, err := r.Next()
		if err == io.EOF {
			return entries, nil
		}
		if err != nil {
			return entries, err
		}
		entries = append(entries, e)
	}
}

func TestManifestRoundTrip(t *testing.T) {
	var want []exchange.Entry
	e := generate(t, 5000, nil)
	each(t, e, func(rec exchange.Record, _ row, _ []byte) {
		want = append(want, exchange.Entry{Stream: rec.Stream, Key: rec.Key, Hash: e.Hash()})
	})
	b := writeManifest(t, want)
	got, err := readManifest(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("entry %d is %+v, want %+v", i, got[i], want[i])
		}
	}
	if perRecord := len(b) / len(got); perRecord > 12 {
		t.Errorf("%d bytes a record", perRecord)
	}
}

func TestManifestDefects(t *testing.T) {
	entries := []exchange.Entry{
		{Stream: "executions", Key: exchange.Key{Source: "A", Session: "A-1", Epoch: 1, Seq: 1}, Hash: 5},
		{Stream: "executions", Key: exchange.Key{Source: "A", Session: "A-1", Epoch: 2, Seq: -9}, Hash: 6},
		{Stream: "markers", Key: exchange.Key{Source: "A", Session: "A-1", Epoch: 1}, Hash: 7},
	}
	b := writeManifest(t, entries)
	if got, err := readManifest(b); err != nil || len(got) != 3 || got[1] != entries[1] {
		t.Fatalf("%+v, %v", got, err)
	}
	for n := range b {
		if _, err := readManifest(b[:n]); !errors.Is(err, exchange.ErrManifestTruncated) {
			t.Errorf("cut at %d: err = %v", n, err)
		}
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 0x10
		if _, err := readManifest(bad); !errors.Is(err, exchange.ErrManifest) {
			t.Errorf("byte %d changed: err = %v", i, err)
		}
	}
	if _, err := readManifest(append(bytes.Clone(b), 0)); !errors.Is(err, exchange.ErrManifest) {
		t.Errorf("a byte more: err = %v", err)
	}
}

// TestHashIsOfTheCanonicalText recomputes hashes from the documents, as a
// checker does from the rows.
func TestHashIsOfTheCanonicalText(t *testing.T) {
	p := pack(t)
	e := generate(t, 3000, nil)
	each(t, e, func(rec exchange.Record, _ row, doc []byte) {
		s, _ := p.Stream(recordStream(rec.Stream))
		text := canonicalText(t, p.Calendar, s, doc)
		if got, want := e.Hash(), xxhash.Sum64String(text); got != want {
			t.Fatalf("%s\nhash %x, want %x of\n%s", doc, got, want, text)
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add(writeManifest(f, []exchange.Entry{{Stream: "executions", Key: exchange.Key{Source: "A", Session: "A-1", Epoch: 1, Seq: 1}, Hash: 5}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := readManifest(b); err != nil && !errors.Is(err, exchange.ErrManifest) {
			t.Errorf("err = %v", err)
		}
	})
}
