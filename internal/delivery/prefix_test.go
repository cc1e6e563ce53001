package delivery

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/object"
	"github.com/tapehouse/tapehouse/internal/prefix"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/internal/serde"
)

func newPrefix(t *testing.T) (*Prefix, *lake.Local) {
	t.Helper()
	mem := fsys.NewMem()
	if err := mem.MkdirAll("/staging", 0o700); err != nil {
		t.Fatal(err)
	}
	store, err := lake.OpenLocal(mem, "/bucket")
	if err != nil {
		t.Fatal(err)
	}
	return &Prefix{Stream: "s", FS: mem, Staging: "/staging",
		Bucket: func(name string) (lake.Store, error) {
			if name != "b" {
				return nil, fmt.Errorf("no bucket %s", name)
			}
			return store, nil
		},
		Columns: func(_ context.Context, database, table, _ string) ([][2]string, error) {
			if database != "d" || table != "t" {
				return nil, fmt.Errorf("table %s.%s does not exist", database, table)
			}
			return [][2]string{{"symbol", "string"}, {"price", "decimal(18,4)"}}, nil
		}}, store
}

func planOf(t *testing.T, d *Prefix, target Target) ObjectPlan {
	t.Helper()
	raw, err := json.Marshal(target)
	if err != nil {
		t.Fatal(err)
	}
	raw, err = d.Prepare(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	return ObjectPlan{From: 10, To: 20, At: time.Date(2026, 11, 20, 15, 1, 0, 0, time.UTC), Seed: uuid.UUID{7}, Version: 3, Target: raw, Prepared: true}
}

// records yields text records, "!" before one that processing failed, "k=v "
// before one with a partition key.
func records(texts ...string) func(func(ObjectRecord) error) error {
	return func(fn func(ObjectRecord) error) error {
		for i, text := range texts {
			r := ObjectRecord{Offset: record.Offset(10 + i), ArrivedAt: time.Date(2026, 11, 20, 14, 59, i%60, 0, time.UTC).UnixMicro(), Data: []byte(text)}
			r.ID = record.ID{Key: record.Key{Incarnation: record.Incarnation{9}}, Offset: r.Offset}
			if rest, ok := strings.CutPrefix(text, "!"); ok {
				r.Data, r.Code, r.Message = []byte(rest), "Lambda.FunctionError", "it broke"
			} else if key, rest, ok := strings.Cut(text, " "); ok && strings.Contains(key, "=") {
				k, v, _ := strings.Cut(key, "=")
				r.Keys, r.Data = map[string]string{partitionKey(prefix.FromQuery, k): v}, []byte(rest)
			}
			if err := fn(r); err != nil {
				return err
			}
		}
		return nil
	}
}

func contents(t *testing.T, store *lake.Local) map[string]string {
	t.Helper()
	out := map[string]string{}
	if err := store.List(t.Context(), "", func(i lake.Info) error {
		b, err := store.Get(t.Context(), i.Name)
		out[i.Name] = string(b)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPrefixWritesCompressedObjectsOnce(t *testing.T) {
	d, store := newPrefix(t)
	plan := planOf(t, d, Target{Bucket: "b", Prefix: "raw/", Compression: object.Gzip, Delimiter: []byte("\n"), TransformARN: "arn:x"})
	for range 2 { // the second finds everything there
		r, err := d.Write(t.Context(), plan, records("a", "!broken", "b"))
		if err != nil || r.Objects != 2 || r.Records != 3 || r.Failed != 1 {
			t.Fatalf("%+v %v", r, err)
		}
	}
	got := contents(t, store)
	if len(got) != 2 {
		t.Fatal(got)
	}
	for name, body := range got {
		if strings.HasPrefix(name, "raw/processing-failed/2026/11/20/14/s-3-2026-11-20-14-59-01-") {
			var line failedProcessing
			if err := json.Unmarshal([]byte(body), &line); err != nil {
				t.Fatal(err)
			}
			raw, _ := base64.StdEncoding.DecodeString(line.RawData)
			if string(raw) != "broken" || line.ErrorCode != "Lambda.FunctionError" || *line.LambdaARN != "arn:x" || line.RecordID == "" {
				t.Fatal(body)
			}
			item, _, err := ParseFailed([]byte(strings.TrimSpace(body)))
			if err != nil || string(item.Data) != "broken" {
				t.Fatal(item, err)
			}
			continue
		}
		if !strings.HasPrefix(name, "raw/2026/11/20/14/s-3-2026-11-20-14-59-00-") || !strings.HasSuffix(name, ".gz") {
			t.Fatal(name)
		}
		z, err := gzip.NewReader(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(z); err != nil || string(text) != "a\nb\n" {
			t.Fatalf("%q %v", text, err)
		}
	}
	left, err := d.FS.ReadDir("/staging")
	if err != nil || len(left) != 0 {
		t.Fatal("left in staging", left, err)
	}
}

// TestPrefixCompressesLater: objects that are compressed in the end have the bytes
// that they would have had at once.
func TestPrefixCompressesLater(t *testing.T) {
	for _, c := range []object.Compression{object.Gzip, object.Zip, object.Snappy, object.Uncompressed} {
		d, store := newPrefix(t)
		errs := "failed/"
		plan := planOf(t, d, Target{Bucket: "b", Prefix: "p=!{partitionKeyFromQuery:p}/", ErrorPrefix: &errs, Compression: c, Delimiter: []byte("|")})
		var texts []string
		for i := range 4000 {
			texts = append(texts, fmt.Sprintf("p=%d %d %s", i%(2*deflatersMax), i, strings.Repeat("x", i*i%97)))
		}
		if r, err := d.Write(t.Context(), plan, records(texts...)); err != nil || r.Objects != 2*deflatersMax || r.Failed != 0 {
			t.Fatalf("%s: %+v %v", c, r, err)
		}
		got := contents(t, store)
		for p := range 2 * deflatersMax {
			var want bytes.Buffer
			w, err := object.NewWriter(&want, object.Options{Compression: c, Delimiter: []byte("|"), EntryName: "records"})
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range texts {
				if key, rest, _ := strings.Cut(text, " "); key == fmt.Sprintf("p=%d", p) {
					if err := w.Append([]byte(rest)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			found := 0
			for name, body := range got {
				if strings.HasPrefix(name, fmt.Sprintf("p=%d/", p)) {
					found++
					if body != want.String() {
						t.Errorf("%s: %s has %d bytes, want %d", c, name, len(body), want.Len())
					}
				}
			}
			if found != 1 {
				t.Errorf("%s: partition %d has %d objects", c, p, found)
			}
		}
		if left, err := d.FS.ReadDir("/staging"); err != nil || len(left) != 0 {
			t.Errorf("%s: %v, %v is left", c, left, err)
		}
	}
}

func TestPrefixPartitions(t *testing.T) {
	d, store := newPrefix(t)
	errs := "bad/!{firehose:error-output-type}/"
	plan := planOf(t, d, Target{Bucket: "b", Prefix: "by/symbol=!{partitionKeyFromQuery:symbol}/", ErrorPrefix: &errs})
	texts := []string{"no key", "symbol=ABC 1", "symbol=../x 2", "symbol=ABC 3"}
	for i := range PartitionsMax {
		texts = append(texts, fmt.Sprintf("symbol=Z%d z", i))
	}
	r, err := d.Write(t.Context(), plan, records(texts...))
	if err != nil || r.Objects != PartitionsMax+1 || r.Failed != 3 {
		t.Fatalf("%+v %v", r, err)
	}
	abc, codes := "", map[string]int{}
	for name, body := range contents(t, store) {
		switch {
		case strings.HasPrefix(name, "by/symbol=ABC/"):
			abc += body
		case strings.HasPrefix(name, "bad/processing-failed/"):
			for line := range strings.Lines(body) {
				var f failedProcessing
				if err := json.Unmarshal([]byte(line), &f); err != nil {
					t.Fatal(err)
				}
				codes[f.ErrorCode]++
			}
		case !strings.HasPrefix(name, "by/symbol="):
			t.Fatalf("%s is outside the prefix", name)
		}
	}
	if abc != "13" || codes[codePartition] != 1 || codes[codePartitions] != 2 {
		t.Fatal(abc, codes)
	}
}

func TestPrefixConverts(t *testing.T) {
	d, store := newPrefix(t)
	plan := planOf(t, d, Target{Bucket: "b", Prefix: "p/", Conversion: &Conversion{Database: "d", Table: "t", Deserializer: serde.Deserializer{OpenX: &serde.OpenX{}}}})
	first := map[string]string{}
	for i := range 2 {
		r, err := d.Write(t.Context(), plan, records(`{"SYMBOL":"A","price":1.5}`, `{"price":1.00005}`, `nothing`, `{"symbol":"B"}`))
		if err != nil || r.Objects != 2 || r.Failed != 2 {
			t.Fatalf("%+v %v", r, err)
		}
		if got := contents(t, store); i == 0 {
			first = got
		} else if fmt.Sprint(got) != fmt.Sprint(first) {
			t.Fatal("a replay wrote something else")
		}
	}
	for name, body := range first {
		if strings.HasPrefix(name, "p/format-conversion-failed/") {
			if !strings.Contains(body, `"lastErrorCode":"DataFormatConversion.MalformedData"`) || !strings.Contains(body, `"lastErrorCode":"DataFormatConversion.ParseError"`) || !strings.Contains(body, `"databaseName":"d"`) {
				t.Fatal(body)
			}
			continue
		}
		r, err := file.NewParquetReader(bytes.NewReader([]byte(body)))
		if err != nil || r.NumRows() != 2 || !strings.HasSuffix(name, ".parquet") {
			t.Fatal(name, err)
		}
	}
	// Only failures: no empty file.
	d, store = newPrefix(t)
	if r, err := d.Write(t.Context(), plan, records(`nothing`)); err != nil || r.Objects != 1 || len(contents(t, store)) != 1 {
		t.Fatalf("%+v %v", r, err)
	}
}

func TestPrefixRefusesAtCreate(t *testing.T) {
	d, _ := newPrefix(t)
	text := "x/!{timestamp:yyyy}/"
	for name, target := range map[string]Target{
		"expression":   {Bucket: "b", Prefix: "x/!{timestamp:}/"},
		"error prefix": {Bucket: "b", Prefix: "x/!{timestamp:yyyy}/"},
		"type":         {Bucket: "b", Prefix: "x/", ErrorPrefix: &text},
		"bucket":       {Bucket: "other", Prefix: "x/"},
		"table":        {Bucket: "b", Conversion: &Conversion{Database: "d", Table: "no"}},
		"extension":    {Bucket: "b", Extension: "gz"},
		"zone":         {Bucket: "b", Zone: "Mars/Base"},
		"serde":        {Bucket: "b", Conversion: &Conversion{Database: "d", Table: "t", Deserializer: serde.Deserializer{OpenX: &serde.OpenX{}}, Parquet: serde.ParquetOptions{Compression: "LZO"}}},
	} {
		err := d.Check(t.Context(), target)
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if name == "expression" && !errors.Is(err, prefix.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := d.Check(t.Context(), Target{Bucket: "b", Prefix: "x/"}); err != nil {
		t.Error(err)
	}
}

// The error output of a plan is parted by the plan's own bound; a plan without
// one has one object.
func TestPrefixPartsTheErrorOutput(t *testing.T) {
	const n = 40
	texts := make([]string, n)
	for i := range texts {
		texts[i] = fmt.Sprintf("!broken %d", i)
	}
	for bound, least := range map[int64]int64{0: 1, 1000: 8, 1: n} {
		d, store := newPrefix(t)
		d.Bucket = func(string) (lake.Store, error) { return sameBytes{Store: store, disk: d.FS, bound: bound}, nil }
		plan := planOf(t, d, Target{Bucket: "b", Prefix: "raw/"})
		plan.ErrorObjectBytes = bound
		for range 2 { // the second finds everything there
			r, err := d.Write(t.Context(), plan, records(texts...))
			if err != nil || r.Objects < least || bound == 0 && r.Objects != 1 || r.Failed != n {
				t.Fatalf("bound %d: %+v %v", bound, r, err)
			}
		}
		lines := map[string]int{}
		for _, body := range contents(t, store) {
			for line := range strings.Lines(body) {
				item, _, err := ParseFailed([]byte(line))
				if err != nil {
					t.Fatal(err)
				}
				lines[string(item.Data)]++
			}
		}
		for i := range n {
			if text := fmt.Sprintf("broken %d", i); lines[text] != 1 {
				t.Fatalf("bound %d: %q stands %d times", bound, text, lines[text])
			}
		}
	}
}
