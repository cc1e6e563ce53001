package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/checker"
	"github.com/tapehouse/tapehouse/internal/demo"
	"github.com/tapehouse/tapehouse/internal/exchange"
	"github.com/tapehouse/tapehouse/internal/producer"
	"github.com/tapehouse/tapehouse/internal/s3test"
	"github.com/tapehouse/tapehouse/packs"
)

const (
	killRounds   = 50
	killRoundsS3 = 20
	killRate     = 15_000 // records/s: load without end
)

// stoppable is a player that can be told to end.
type stoppable struct {
	exchange.Player
	stop atomic.Bool
}

func (s *stoppable) Next(dst []byte) ([]byte, exchange.Record, error) {
	if s.stop.Load() {
		return dst, exchange.Record{}, io.EOF
	}
	return s.Player.Next(dst)
}

// fastPack writes the embedded pack without a buffer interval, so that kills also
// fall into flushes and commits, and returns a configuration that uses it, with
// more YAML added.
func fastPack(t *testing.T, dir, more string) string {
	t.Helper()
	pack := filepath.Join(dir, "pack")
	if err := os.CopyFS(pack, packs.Equities()); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(pack, "pack.yaml")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.ReplaceAll(text, []byte("interval_seconds: 60"), []byte("interval_seconds: 0"))
	if err := os.WriteFile(name, text, 0o644); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "tapehouse.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "pack: %s\ndelivery: {checkpoint_interval: 1s}\n%s", pack, more), 0o644); err != nil {
		t.Fatal(err)
	}
	return config
}

// TestKillRounds kills the real program at random moments: under load, in
// flushes, and while it recovers from the kill before. What was acknowledged is
// visible after every restart, and in the end the lake has every record once.
func TestKillRounds(t *testing.T) {
	killAtRandom(t, killRounds, "", func(launch demo.Launch) checker.Options { return checker.Options{Lake: demo.LakeDir(launch.Dir)} })
}

// TestKillRoundsS3 is the same over a lake on S3 and a network that fails.
func TestKillRoundsS3(t *testing.T) {
	s3 := s3test.Start(t)
	p := s3test.StartProxy(t, s3.Endpoint, 2*time.Second)
	p.Plan(s3test.Random(uint64(time.Now().UnixNano()), 0.15, s3test.Quick()...))
	lake := "s3://" + s3.Bucket + "/killed"
	more := fmt.Sprintf("lake: {url: %s, endpoint: %q, path_style: true, access_key_id: %s, secret_access_key: %s, attempt_timeout: 2s}\n",
		lake, p.Endpoint, s3test.AccessKeyID, s3test.SecretAccessKey)
	killAtRandom(t, killRoundsS3, more, func(demo.Launch) checker.Options {
		p.Plan(nil)
		p.Settle()
		return checker.Options{Lake: filepath.Join(s3.Root, s3.Bucket, "killed"), Location: lake}
	})
	t.Logf("%d faults", p.Injected())
}

// killAtRandom kills for so many rounds and has the lake checked.
func killAtRandom(t *testing.T, rounds int, more string, lake func(demo.Launch) checker.Options) {
	dir := t.TempDir()
	launch := demo.Launch{Program: build(t), Dir: filepath.Join(dir, "data"), Config: fastPack(t, dir, more),
		Addresses: demo.Addresses{AWS: "127.0.0.1:0", SQL: "127.0.0.1:0", HTTP: "127.0.0.1:0"}}
	if err := os.Mkdir(launch.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	server := start(t, launch)
	launch.Addresses = server.Addresses()

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	pack, err := packs.Load(packs.Equities())
	if err != nil {
		t.Fatal(err)
	}
	x, err := exchange.New(exchange.DefaultConfig(pack.Calendar, calendar.Date(2026, time.November, 20), seed, 50_000_000))
	if err != nil {
		t.Fatal(err)
	}
	var manifest bytes.Buffer
	m, err := exchange.NewManifestWriter(&manifest)
	if err != nil {
		t.Fatal(err)
	}
	key := server.Credentials.Keys[0]
	client, err := producer.New(producer.Config{Endpoint: server.Endpoints.AWSURL(), AccessKey: key.ID, Secret: key.Secret, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var orders atomic.Int64 // acknowledged
	pipeline := producer.NewPipeline(client, producer.PipelineOptions{Workers: 8, Linger: 5 * time.Millisecond, OnAck: func(a producer.Ack) {
		if a.Stream == exchange.StreamOrders {
			orders.Add(int64(a.Records))
		}
	}})
	player := &stoppable{Player: x}
	played := make(chan error, 1)
	go func() {
		_, err := (&demo.Play{Player: player, Pipeline: pipeline, Manifest: m, Rate: killRate}).Run(context.Background())
		played <- err
	}()

	recoveries := 0
	for round := range rounds {
		if round%5 == 4 {
			// Kill it while it recovers, perhaps.
			server.Kill()
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(500))*time.Millisecond)
			server, err = demo.StartServer(ctx, launch)
			cancel()
			if err != nil {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("round %d: %v", round, err)
				}
				recoveries++
				server = start(t, launch)
			}
			continue
		}
		time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond)
		before := orders.Load()
		server.Kill()
		server = start(t, launch)
		if visible := count(t, server); visible < before {
			t.Fatalf("round %d: %d records were acknowledged, and %d are visible", round, before, visible)
		}
	}
	player.stop.Store(true)
	if err := <-played; err != nil {
		t.Fatal(err)
	}
	if err := pipeline.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := server.Stop(); err != nil { // drains into the lake
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	_, retried := client.Requests()
	options := lake(launch)
	options.Manifest = &manifest
	r, err := checker.Check(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for _, s := range r.Streams {
		files += s.Files
	}
	t.Logf("%d rounds, %d in recovery: %d records, %d requests sent again, %d data files", rounds, recoveries, r.Records, retried, files)
	if !r.OK() || r.Repeated > 0 || r.Records != pipeline.Progress().Acknowledged {
		t.Errorf("%+v (acknowledged %d)", r, pipeline.Progress().Acknowledged)
	}
	if r.Records == 0 || retried == 0 || files < 4 {
		t.Error("the test did not test much")
	}
}

func start(t *testing.T, l demo.Launch) *demo.Server {
	t.Helper()
	s, err := demo.StartServer(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

// putter is a client of the server, wherever it is started again.
func putter(t *testing.T, s *demo.Server) *producer.Client {
	t.Helper()
	key := s.Credentials.Keys[0]
	c, err := producer.New(producer.Config{Endpoint: s.Endpoints.AWSURL(), AccessKey: key.ID, Secret: key.Secret, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func count(t *testing.T, s *demo.Server) int64 {
	t.Helper()
	conn, err := demo.Connect(t.Context(), s.Endpoints, s.Credentials.Users[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var n int64
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM equities.order_events").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
