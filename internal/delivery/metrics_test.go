package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/prefix"
)

// series returns the values of a stream's series by name, without the
// namespace; counters at 0 are there too.
func series(t *testing.T, r *prometheus.Registry, stream string) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		name := strings.TrimPrefix(f.GetName(), "tapehouse_")
		for _, m := range f.GetMetric() {
			of, more := "", ""
			for _, l := range m.GetLabel() {
				if l.GetName() == "stream" || l.GetName() == "delivery_stream" {
					of = l.GetValue()
				} else {
					more += " " + l.GetValue()
				}
			}
			if of == stream {
				out[name+more] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return out
}

// moved checks which series of AWS/Firehose an event moved, and by how much;
// bytes need only rise.
func moved(t *testing.T, event string, before, after, want map[string]float64) {
	t.Helper()
	for name, v := range after {
		short, ok := strings.CutPrefix(name, "firehose_")
		if !ok {
			continue
		}
		short = strings.TrimSuffix(short, "_total")
		if _, known := before[name]; !known {
			t.Errorf("%s: %s was not there before", event, name)
		}
		by := v - before[name]
		switch w, named := want[short]; {
		case strings.HasSuffix(short, "_bytes") && w == rises && by > 0:
		case by != w || !named && by != 0:
			t.Errorf("%s: %s moved by %v, want %v", event, name, by, w)
		}
	}
	for short := range want {
		_, counter := after["firehose_"+short+"_total"]
		if _, gauge := after["firehose_"+short]; !counter && !gauge {
			t.Errorf("%s: there is no %s", event, short)
		}
	}
}

// rises stands for any increase of bytes.
const rises = -1

func TestMetricsOfTables(t *testing.T) {
	reg := prometheus.NewRegistry()
	h := start(t, func(o *Options) {
		o.Registerer = reg
		o.Quota = func(string) Quota { return Quota{RecordsPerSecond: 1000, BytesPerSecond: 1 << 20} }
	})
	step := func(event string, want map[string]float64, fn func()) {
		t.Helper()
		before := series(t, reg, "s")
		fn()
		moved(t, event, before, series(t, reg, "s"), want)
	}
	put := func(docs ...string) {
		t.Helper()
		if _, err := h.put(docs...); err != nil {
			t.Fatal(err)
		}
	}
	flush := func() {
		t.Helper()
		if err := h.m.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := series(t, reg, "s"); got["firehose_records_per_second_limit"] != 1000 || got["firehose_bytes_per_second_limit"] != 1<<20 {
		t.Errorf("limits: %v", got)
	}
	step("good records, a reject, a conflict", map[string]float64{
		"delivery_to_iceberg_incoming_row_count": 5, "delivery_to_iceberg_successful_row_count": 3, "delivery_to_iceberg_failed_row_count": 2,
		"delivery_to_iceberg_bytes": rises, "delivery_to_iceberg_attempts": 1, "delivery_to_iceberg_success": 1,
		"succeed_conversion_records": 3, "succeed_conversion_bytes": rises, "failed_conversion_records": 1, "failed_conversion_bytes": float64(len(badDoc(4))),
	}, func() {
		put(doc(1, 1), doc(2, 2), doc(3, 3), badDoc(4))
		put(doc(1, 9)) // other content
		flush()
	})
	fails := int32(2)
	var n atomic.Int32
	step("two failures of the destination", map[string]float64{
		"delivery_to_iceberg_incoming_row_count": 1, "delivery_to_iceberg_successful_row_count": 1, "delivery_to_iceberg_bytes": rises,
		"delivery_to_iceberg_attempts": 3, "delivery_to_iceberg_success": 1, "succeed_conversion_records": 1, "succeed_conversion_bytes": rises,
	}, func() {
		h.w.decide(func() outcome {
			if n.Add(1) <= fails {
				return commitBefore
			}
			return commitDone
		})
		put(doc(5, 5))
		flush()
	})
	if got := series(t, reg, "s")["delivery_failed_flushes_total"]; got != float64(fails) {
		t.Errorf("%v failed flushes, want %d", got, fails)
	}
	if err := h.m.Delete(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	if left := series(t, reg, "s"); len(left) != 0 {
		t.Errorf("series of a deleted stream: %v", left)
	}
}

// keyed gives each record its text as partition key; "fail" fails, and while
// down is set nothing can be processed.
type keyed struct {
	identity
	down *atomic.Bool
}

func (k keyed) Process(_ context.Context, records []SourceRecord) ([][]Outcome, error) {
	if k.down.Load() {
		return nil, errors.New("down")
	}
	out := make([][]Outcome, len(records))
	for i, r := range records {
		text := string(r.Data)
		switch {
		case strings.HasPrefix(text, "drop"):
			out[i] = []Outcome{{Kind: Dropped}}
		case strings.HasPrefix(text, "fail"):
			out[i] = []Outcome{{Kind: Failed, Code: "Lambda.FunctionError", Message: "no"}}
		default:
			out[i] = []Outcome{{Data: r.Data, Keys: map[string]string{partitionKey(prefix.FromQuery, "k"): text}}}
		}
	}
	return out, nil
}

func TestMetricsOfObjects(t *testing.T) {
	reg := prometheus.NewRegistry()
	mem, w := fsys.NewMem(), newWorld()
	var down, away atomic.Bool
	h, err := openHouse(t, mem, w, func(o *Options) {
		o.Registerer = reg
		store := o.Errors
		o.Objects = func(_ Config, role string) (ObjectDestination, error) {
			return &Prefix{Stream: "s", FS: mem, Staging: "/d/tail", Bucket: func(string) (lake.Store, error) {
				if away.Load() {
					return nil, errors.New("no such bucket")
				}
				return store, nil
			}, Columns: func(context.Context, string, string, string) ([][2]string, error) {
				return [][2]string{{"n", "int"}}, nil
			}}, nil
		}
		o.Processor = func(context.Context, Config) (Processor, error) { return keyed{down: &down}, nil }
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.abandon)
	part := func(target string) *ObjectConfig {
		return &ObjectConfig{SizeBytes: 1 << 30, Interval: time.Hour, Target: json.RawMessage(target)}
	}
	create := func(name string, c Config) *Stream {
		t.Helper()
		c.Name = "s"
		if name != "s" {
			c.Name = "conversion"
		}
		if _, err := h.m.Create(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		s, err := h.m.Stream(c.Name)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := create("s", Config{Processing: json.RawMessage(`1`),
		Objects: part(`{"bucket":"b","prefix":"p/!{partitionKeyFromQuery:k}/","error_prefix":"e/!{firehose:error-output-type}/"}`),
		Backup:  part(`{"bucket":"b","prefix":"backup/"}`)})
	step := func(event string, want map[string]float64, docs ...string) {
		t.Helper()
		before := series(t, reg, string(s.name))
		for len(docs) > 0 {
			n := min(len(docs), 500)
			if _, err := s.Put(t.Context(), docsOf(docs[:n]...)); err != nil {
				t.Fatal(err)
			}
			docs = docs[n:]
		}
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		moved(t, event, before, series(t, reg, string(s.name)), want)
	}
	step("two partitions", map[string]float64{
		"delivery_to_s3_records": 3, "delivery_to_s3_bytes": rises, "delivery_to_s3_object_count": 3, "delivery_to_s3_attempts": 1, "delivery_to_s3_success": 1,
		"backup_to_s3_records": 5, "backup_to_s3_bytes": 14, "backup_to_s3_attempts": 1, "backup_to_s3_success": 1,
		"partition_count": 2, "succeed_processing_records": 3, "succeed_processing_bytes": 6,
	}, "aa", "bb", "aa", "drop", "fail")
	got := series(t, reg, "s")
	if got["firehose_active_partitions_limit"] != PartitionsMax || got["delivery_failed_object_records_total"] != 1 || got["delivery_processed_records_total failed"] != 1 {
		t.Errorf("%v", got)
	}
	many := make([]string, PartitionsMax+3)
	for i := range many {
		many[i] = fmt.Sprintf("%06d", i)
	}
	step("too many partitions", map[string]float64{
		"delivery_to_s3_records": PartitionsMax, "delivery_to_s3_bytes": rises, "delivery_to_s3_object_count": PartitionsMax + 1, "delivery_to_s3_attempts": 1, "delivery_to_s3_success": 1,
		"backup_to_s3_records": PartitionsMax + 3, "backup_to_s3_bytes": rises, "backup_to_s3_attempts": 1, "backup_to_s3_success": 1,
		"partition_count": PartitionsMax - 2, "partition_count_exceeded": 1, "succeed_processing_records": PartitionsMax + 3, "succeed_processing_bytes": 6 * (PartitionsMax + 3),
	}, many...)

	// A bucket that is away, and a processor that is down: both are tried again.
	rise := func(name string, flag *atomic.Bool, docs ...string) {
		t.Helper()
		before := series(t, reg, "s")
		flag.Store(true)
		if _, err := s.Put(t.Context(), docsOf(docs...)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if err := s.Flush(ctx); err == nil {
			t.Fatal("flushed")
		}
		flag.Store(false)
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		after := series(t, reg, "s")
		changed := maps.Clone(after)
		maps.DeleteFunc(changed, func(n string, v float64) bool { return v == before[n] })
		if changed[name] == 0 {
			t.Errorf("%s did not rise: %v", name, changed)
		}
		if name == "delivery_failed_object_flushes_total" && after["firehose_delivery_to_s3_attempts_total"]-after["firehose_delivery_to_s3_success_total"] < 1 {
			t.Errorf("failures do not show: %v", changed)
		}
	}
	rise("delivery_failed_object_flushes_total", &away, "cc")
	rise("delivery_failed_processings_total", &down, "dd")

	s = create("conversion", Config{Objects: part(`{"bucket":"b","prefix":"parquet/","conversion":{"database":"d","table":"t","deserializer":{"OpenX":{}},"parquet":{}}}`)})
	step("a conversion", map[string]float64{
		"delivery_to_s3_records": 2, "delivery_to_s3_bytes": rises, "delivery_to_s3_object_count": 2, "delivery_to_s3_attempts": 1, "delivery_to_s3_success": 1, "partition_count": 1,
		"succeed_conversion_records": 2, "succeed_conversion_bytes": rises, "failed_conversion_records": 1, "failed_conversion_bytes": 9,
	}, `{"n":1}`, `{"n":2}`, `{"n":"x"}`)
}
