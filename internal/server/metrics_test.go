package server

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/fsys"
)

func TestAge(t *testing.T) {
	start := time.Date(2026, 11, 23, 14, 30, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	var a age
	step := func(second int, end, bound uint64, want float64) {
		t.Helper()
		a.observe(at(second), end, bound)
		if got := a.seconds(at(second)); got != want {
			t.Errorf("at %d s, end %d, bound %d: %v s, want %v", second, end, bound, got, want)
		}
	}
	step(0, 0, 0, 0)
	step(1, 10, 10, 0)
	step(2, 20, 10, 0) // seen now for the first time
	step(5, 30, 10, 3)
	step(6, 30, 15, 4) // record 15 was there at 2 s
	step(7, 30, 20, 2) // record 20 at 5 s
	step(9, 30, 30, 0)
	step(10, 40, 30, 0)
	step(3600, 40, 30, 3590)

	// Bounded, however long it lasts; the oldest is exact, the rest to a thousandth.
	a = age{}
	for s := range 100_000 {
		a.observe(at(s), uint64(s+1), 0)
	}
	if len(a.marks) > marksMax || a.seconds(at(99_999)) != 99_999 {
		t.Errorf("%d marks, %v s", len(a.marks), a.seconds(at(99_999)))
	}
	a.observe(at(100_000), 100_000, 50_000)
	if got := a.seconds(at(100_000)); got < 49_900 || got > 50_000 {
		t.Errorf("%v s for a record that came at 50,000 s of 100,000", got)
	}
}

// gauge returns the value of a metric, with its label stream if it has one.
func gauge(t *testing.T, s *Server, name, stream string) float64 {
	t.Helper()
	families, err := s.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if stream == "" || label(m, "stream") == stream || label(m, "delivery_stream") == stream {
				return m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("no metric %s of %q", name, stream)
	return 0
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

func TestServerMetrics(t *testing.T) {
	cfg := testConfig(t)
	cfg.TLS.Cert, cfg.TLS.Key, _ = certificate(t)
	s := open(t, cfg)
	if gauge(t, s, "tapehouse_server_ready", "") != 1 || gauge(t, s, "tapehouse_server_data_free_bytes", "") <= 0 {
		t.Error("not ready, or no room")
	}
	pair, err := tls.LoadX509KeyPair(cfg.TLS.Cert, cfg.TLS.Key)
	if err != nil {
		t.Fatal(err)
	}
	if got := gauge(t, s, "tapehouse_server_tls_expiry_timestamp_seconds", ""); got != float64(endOf(pair).Unix()) || got < float64(time.Now().Unix()) {
		t.Errorf("the certificate ends at %v", got)
	}
	// The commands of the data directory know the server by its certificate,
	// whatever name and authority that has, and no other.
	c, err := console.Dial(t.Context(), fsys.OS, cfg.Data)
	if err != nil {
		t.Fatal(err)
	}
	e := c.Endpoints()
	c.Close()
	e.CertificateSHA256 = console.CertificateHash([]byte("another"))
	other := console.NewClient(e, s.Credentials().Users[0])
	if err := other.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "not that of this data directory's server") {
		t.Errorf("another certificate: %v", err)
	}
	other.Close()
	closeNow(t, s)

	cfg = testConfig(t)
	s = open(t, cfg)
	putLegs(t, s, "A", 1, 10)
	if got := gauge(t, s, "tapehouse_stream_undelivered_records", "executions"); got != 10 {
		t.Errorf("%v records are not delivered, right after a put of 10", got)
	}
	text(t, connect(t, s), "SELECT count(*) FROM executions")
	if got := gauge(t, s, "tapehouse_stream_invisible_records", "executions"); got != 0 {
		t.Errorf("%v records are invisible after they were seen", got)
	}
	fresh := []string{"tapehouse_stream_data_freshness_seconds", "tapehouse_stream_lane_data_freshness_seconds", "tapehouse_firehose_delivery_to_iceberg_data_freshness_seconds"}
	for _, name := range fresh {
		waitFor(t, "the freshness rises", func() bool { return gauge(t, s, name, "executions") > 0 })
	}
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range append(fresh, "tapehouse_stream_undelivered_records", "tapehouse_stream_lane_undelivered_records", "tapehouse_stream_invisible_seconds") {
		if got := gauge(t, s, name, "executions"); got != 0 {
			t.Errorf("%s is %v when all is delivered", name, got)
		}
	}
	if gauge(t, s, "tapehouse_server_tls_expiry_timestamp_seconds", "") != 0 {
		t.Error("a certificate ends where there is none")
	}

	// Each destination of a stream has an age of its own: the backup is delivered
	// once a quarter of an hour, the destination at once.
	aws := client(t, s)
	if err := aws.Call(t.Context(), "CreateDeliveryStream", extended("copy", jsonObject{"Prefix": "copy/", "S3BackupMode": "Enabled", "BufferingHints": jsonObject{"SizeInMBs": 1, "IntervalInSeconds": 0},
		"S3BackupConfiguration": jsonObject{"RoleARN": "arn:aws:iam::000000000000:role/r", "BucketARN": "arn:aws:s3:::archive", "Prefix": "backup/", "BufferingHints": jsonObject{"SizeInMBs": 64, "IntervalInSeconds": 900}}}), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := aws.PutBatch(t.Context(), "copy", [][]byte{[]byte("a")}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the backup's freshness rises", func() bool {
		return gauge(t, s, "tapehouse_firehose_backup_to_s3_data_freshness_seconds", "copy") > 0 && gauge(t, s, "tapehouse_firehose_delivery_to_s3_data_freshness_seconds", "copy") == 0
	})
}

// delivery.streams_max bounds the streams, and is AWS's own quota by default.
func TestStreamsMax(t *testing.T) {
	cfg := testConfig(t)
	if cfg.Delivery.StreamsMax != 5000 {
		t.Errorf("the default is %d", cfg.Delivery.StreamsMax)
	}
	cfg.Delivery.StreamsMax = 0
	if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), "delivery.streams_max") {
		t.Errorf("0 streams: %v", err)
	}
	cfg.Delivery.StreamsMax = 1 // the pack's are there already
	s := open(t, cfg)
	refusal(t, "one more", client(t, s).Call(t.Context(), "CreateDeliveryStream", extended("more", jsonObject{"Prefix": "p/"}), nil), "LimitExceededException", "quota of 1 hoses")
}
