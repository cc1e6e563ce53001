package checker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/exchange"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/packs"
)

// house is a lake written by the catalog and the encoder, without a log, a
// ledger or a server.
type house struct {
	t       *testing.T
	dir     string
	store   *lake.Local
	catalog *catalog.Catalog
	pack    *packs.Pack
	decoder map[string]*columnar.Decoder
	layout  map[string]*columnar.Layout
	table   map[string]*catalog.Table
	files   int
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, dir: filepath.Join(t.TempDir(), "lake"), decoder: map[string]*columnar.Decoder{}, layout: map[string]*columnar.Layout{}, table: map[string]*catalog.Table{}}
	var err error
	if h.pack, err = packs.Load(packs.Equities()); err != nil {
		t.Fatal(err)
	}
	if h.store, err = lake.OpenLocal(fsys.OS, h.dir); err != nil {
		t.Fatal(err)
	}
	if h.catalog, err = catalog.Open(t.Context(), catalog.Options{Dir: t.TempDir(), Warehouse: h.store, Owner: "test"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.catalog.Close() })
	for _, s := range h.pack.Streams {
		name := string(s.Name)
		if h.table[name], err = h.catalog.CreateTable(t.Context(), catalog.TableSpec{Name: catalog.Name{Namespace: "equities", Table: s.Table},
			Fields: s.Schema.Fields, Sequence: s.Sequence, PartitionBy: s.Partition}); err != nil {
			t.Fatal(err)
		}
		if h.layout[name], err = columnar.Compile(h.table[name].Schema, columnar.Options{Calendar: columnar.CalendarOf(h.pack.Calendar), Sequence: s.Sequence, Partition: s.Partition}); err != nil {
			t.Fatal(err)
		}
		h.decoder[name] = h.layout[name].NewDecoder()
	}
	return h
}

// commit stores documents of a stream as one file a partition.
func (h *house) commit(stream string, docs ...[]byte) {
	h.t.Helper()
	b := h.layout[stream].NewBuilder()
	for len(docs) > 0 {
		n := min(len(docs), 500)
		var arena []byte
		var ends []int32
		for _, d := range docs[:n] {
			arena = append(arena, d...)
			ends = append(ends, int32(len(arena)))
		}
		batch := h.decoder[stream].Decode(arena, ends, 1)
		for _, r := range batch.Rejects {
			h.t.Fatalf("%s: %s", r.Code, r.Message)
		}
		batch.SetOrigin(record.Key{}, 0)
		b.Append(batch)
		batch.Release()
		docs = docs[n:]
	}
	parts, err := b.Flush()
	if err != nil {
		h.t.Fatal(err)
	}
	t := h.table[stream]
	c := catalog.Commit{Table: t.Name}
	for _, p := range parts {
		h.files++
		name := fmt.Sprintf("%s/%d.parquet", t.DataDir(), h.files)
		if err := h.store.Put(h.t.Context(), name, bytes.NewReader(p.Data), int64(len(p.Data))); err != nil {
			h.t.Fatal(err)
		}
		c.Add = append(c.Add, catalog.NewFile{Path: name, Partition: catalog.Partition{Value: p.Partition, Has: p.HasPartition}, Stats: catalog.StatsOf(p.Meta)})
	}
	if _, err := h.catalog.Commit(h.t.Context(), []catalog.Commit{c}); err != nil {
		h.t.Fatal(err)
	}
}

type played struct {
	rec  exchange.Record
	doc  []byte
	hash uint64
}

func play(t testing.TB, pack *packs.Pack, records int64) []played {
	t.Helper()
	x, err := exchange.New(exchange.DefaultConfig(pack.Calendar, calendar.Date(2026, time.November, 20), 7, records))
	if err != nil {
		t.Fatal(err)
	}
	var out []played
	for {
		doc, rec, err := x.Next(nil)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, played{rec, doc, x.Hash()})
	}
}

func manifestOf(t testing.TB, all []played) []byte {
	t.Helper()
	var b bytes.Buffer
	m, err := exchange.NewManifestWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if err := m.Append(p.rec.Stream, p.rec.Key, p.hash); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// put stores the records of all, in several files and commits a stream.
func (h *house) put(all []played) {
	h.t.Helper()
	byStream := map[string][][]byte{}
	for _, p := range all {
		byStream[p.rec.Stream] = append(byStream[p.rec.Stream], p.doc)
	}
	for stream, docs := range byStream {
		for len(docs) > 0 {
			n := min(len(docs), 4000)
			h.commit(stream, docs[:n]...)
			docs = docs[n:]
		}
	}
}

func (h *house) check(manifest []byte) *Report {
	h.t.Helper()
	r, err := Check(h.t.Context(), Options{Manifest: bytes.NewReader(manifest), Lake: h.dir})
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

func TestWholeLakeIsRight(t *testing.T) {
	h := newHouse(t)
	all := play(t, h.pack, 12_000)
	h.put(all)
	r := h.check(manifestOf(t, all))
	if !r.OK() || r.Records != int64(len(all)) || r.Rows != r.Records || r.Repeated != 0 || len(r.Examples) != 0 {
		t.Fatalf("%+v", r)
	}
	for _, s := range r.Streams {
		if s.Stream == exchange.StreamOrders && s.Files < 2 {
			t.Errorf("only %d files: the test wants several", s.Files)
		}
	}
}

// TestCopyOfALake: metadata names places of a lake elsewhere, the files are here.
func TestCopyOfALake(t *testing.T) {
	h := newHouse(t)
	all := play(t, h.pack, 1_000)
	h.put(all)
	manifest, location := manifestOf(t, all), "file://"+h.dir
	away := filepath.Join(t.TempDir(), "copy")
	if err := os.Rename(h.dir, away); err != nil {
		t.Fatal(err)
	}
	for _, l := range []string{location, location + "/"} {
		if r, err := Check(t.Context(), Options{Manifest: bytes.NewReader(manifest), Lake: away, Location: l}); err != nil || !r.OK() || r.Rows != int64(len(all)) {
			t.Errorf("%+v, %v", r, err)
		}
	}
	if _, err := Check(t.Context(), Options{Manifest: bytes.NewReader(manifest), Lake: away, Location: "s3://elsewhere/x"}); !errors.Is(err, ErrLake) || !strings.Contains(err.Error(), "outside") {
		t.Errorf("a copy of another lake: %v", err)
	}
}

func TestEveryFaultIsCounted(t *testing.T) {
	h := newHouse(t)
	all := play(t, h.pack, 3_000)
	var kept []played
	var lost, doubled, altered, markers int
	for i, p := range all {
		switch {
		case p.rec.Marker:
			kept = append(kept, p, p) // a marker may come again
			markers++
		case p.rec.Stream == exchange.StreamOrders && i%500 == 0:
			lost++
		case p.rec.Stream == exchange.StreamOrders && i%501 == 0:
			kept = append(kept, p, p)
			doubled++
		case p.rec.Stream == exchange.StreamExecutions && altered < 3:
			p.doc = bytes.Replace(p.doc, []byte(`"capacity":"`), []byte(`"capacity":"x`), 1)
			kept = append(kept, p)
			altered++
		default:
			kept = append(kept, p)
		}
	}
	h.put(kept)
	h.commit(exchange.StreamOrders, []byte(`{"source":"X","session":"X-1","epoch":1,"seq":1,"event_type":"system","occurred_at":"2026-11-20T15:00:00Z"}`))
	r := h.check(manifestOf(t, all))
	want := Counts{Records: int64(len(all)), Rows: int64(len(kept)) + 1, Lost: int64(lost), Duplicates: int64(doubled), Altered: int64(altered), Unexpected: 1, Repeated: int64(markers)}
	if r.Counts != want || r.OK() {
		t.Fatalf("have %+v, want %+v", r.Counts, want)
	}
	kinds := map[string]int{}
	for _, e := range r.Examples {
		kinds[e.Kind]++
		if (e.Kind == Lost) != (e.File == "") {
			t.Errorf("%s", e)
		}
	}
	for kind, n := range map[string]int{Lost: lost, Duplicate: doubled, Altered: altered, Unexpected: 1} {
		if kinds[kind] != min(n, examplesMax) {
			t.Errorf("%d examples of %s, want %d", kinds[kind], kind, min(n, examplesMax))
		}
	}
}

func TestEmptyTablesLoseEverything(t *testing.T) {
	h := newHouse(t)
	all := play(t, h.pack, 1_000)
	if r := h.check(manifestOf(t, all)); r.Lost != int64(len(all)) || r.Rows != 0 {
		t.Fatalf("%+v", r)
	}
}

func TestResendIsOneRecord(t *testing.T) {
	h := newHouse(t)
	all := play(t, h.pack, 1_000)
	h.put(all)
	// A source that sends again notes again.
	if r := h.check(manifestOf(t, append(all[:len(all):len(all)], all[10:20]...))); !r.OK() || r.Records != int64(len(all)) {
		t.Fatalf("%+v", r)
	}
	twisted := all[10]
	twisted.hash++
	_, err := Check(t.Context(), Options{Manifest: bytes.NewReader(manifestOf(t, append(all[:len(all):len(all)], twisted))), Lake: h.dir})
	if !errors.Is(err, ErrContradiction) {
		t.Fatal(err)
	}
}

func TestTruncatedManifest(t *testing.T) {
	h := newHouse(t)
	all := play(t, h.pack, 1_000)
	h.put(all)
	m := manifestOf(t, all)
	m = m[:len(m)-100]
	if _, err := Check(t.Context(), Options{Manifest: bytes.NewReader(m), Lake: h.dir}); !errors.Is(err, exchange.ErrManifestTruncated) {
		t.Fatal(err)
	}
	r, err := Check(t.Context(), Options{Manifest: bytes.NewReader(m), Lake: h.dir, Truncated: true})
	if err != nil || r.Lost != 0 || r.Unexpected == 0 {
		t.Fatalf("%+v %v", r, err)
	}
}

func TestManifestIsBounded(t *testing.T) {
	h := newHouse(t)
	all := play(t, h.pack, 5_000)
	_, err := Check(t.Context(), Options{Manifest: bytes.NewReader(manifestOf(t, all)), Lake: h.dir, PagesMax: 2})
	if !errors.Is(err, ErrTooMany) {
		t.Fatal(err)
	}
}

func TestDamagedFilesAreErrors(t *testing.T) {
	h := newHouse(t)
	all := play(t, h.pack, 1_000)
	h.put(all)
	m := manifestOf(t, all)
	files, err := filepath.Glob(filepath.Join(h.dir, "equities", "executions-*", "data", "*.parquet"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	good, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{"cut": good[:len(good)/2], "empty": {}, "noise": bytes.Repeat([]byte{7}, len(good))} {
		if err := os.WriteFile(files[0], bad, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Check(t.Context(), Options{Manifest: bytes.NewReader(m), Lake: h.dir}); !errors.Is(err, ErrLake) || !strings.Contains(err.Error(), files[0]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := Check(t.Context(), Options{Manifest: bytes.NewReader(m), Lake: h.dir}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := Check(t.Context(), Options{Manifest: bytes.NewReader(m), Lake: t.TempDir()}); !errors.Is(err, ErrLake) {
		t.Error(err)
	}
}

func TestUnknownStream(t *testing.T) {
	h := newHouse(t)
	var b bytes.Buffer
	m, err := exchange.NewManifestWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Append("elsewhere", exchange.Key{Source: "A", Seq: 1}, 1), m.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Check(t.Context(), Options{Manifest: &b, Lake: h.dir}); !errors.Is(err, ErrLake) || !strings.Contains(err.Error(), "elsewhere") {
		t.Fatal(err)
	}
}

// An orphaned metadata file of the same version, left by a crash between the
// write and the commit, is older than the one that took its place.
func TestNewestMetadataWins(t *testing.T) {
	h := newHouse(t)
	all := play(t, h.pack, 1_000)
	h.put(all)
	dirs, err := filepath.Glob(filepath.Join(h.dir, "equities", "markers-*", "metadata"))
	if err != nil || len(dirs) != 1 {
		t.Fatal(dirs, err)
	}
	old, err := filepath.Glob(filepath.Join(dirs[0], "00000-*.metadata.json"))
	if err != nil || len(old) != 1 {
		t.Fatal(old, err)
	}
	text, err := os.ReadFile(old[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dirs[0], "00001-ffffffff-0000-0000-0000-000000000000.gz.metadata.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	if r := h.check(manifestOf(t, all)); !r.OK() {
		t.Fatalf("%+v", r)
	}
}

func TestMark(t *testing.T) {
	x := &expected{}
	f := &feed{pages: map[int64]*page{}}
	for _, seq := range []int64{0, 1, 1023, 1024, 5000, -1, 1 << 40} {
		if added, err := x.add(f, seq, uint64(seq)+7, 100); !added || err != nil {
			t.Fatal(seq, added, err)
		}
		if added, err := x.add(f, seq, uint64(seq)+7, 100); added || err != nil {
			t.Fatal(seq, added, err)
		}
	}
	for _, c := range []struct {
		seq  int64
		hash uint64
		want string
	}{
		{1, 8, ""}, {1, 8, Duplicate}, {1, 9, Duplicate}, {2, 9, Unexpected}, {1023, 0, Altered}, {1023, 1030, Duplicate},
		{1024, 1031, ""}, {1 << 41, 1, Unexpected}, {0, 7, ""}, {0, 7, repeated}, {0, 8, Altered}, {-1, 6, ""},
	} {
		if have := f.mark(c.seq, c.hash); have != c.want {
			t.Errorf("mark(%d, %d) = %q, want %q", c.seq, c.hash, have, c.want)
		}
	}
	var missing []int64
	f.missing(func(seq int64) { missing = append(missing, seq) })
	if fmt.Sprint(missing) != fmt.Sprint([]int64{5000, 1 << 40}) {
		t.Error(missing)
	}
}

func BenchmarkCheck(b *testing.B) {
	pack, err := packs.Load(packs.Equities())
	if err != nil {
		b.Fatal(err)
	}
	m := manifestOf(b, play(b, pack, 100_000))
	b.ResetTimer()
	for b.Loop() {
		if _, err := readManifest(b.Context(), Options{Manifest: bytes.NewReader(m), PagesMax: pagesMaxDefault}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100_000, "ns/record")
}
