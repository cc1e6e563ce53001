package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/exchange"
	"github.com/tapehouse/tapehouse/internal/producer"
)

func testConfig(t *testing.T) Config {
	c := DefaultConfig()
	c.Data = t.TempDir()
	c.Listen = ListenConfig{AWS: "127.0.0.1:0", SQL: "127.0.0.1:0", HTTP: "127.0.0.1:0"}
	return c
}

func open(t *testing.T, c Config) *Server {
	t.Helper()
	s, err := Open(t.Context(), c, Options{Version: "test", Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func connect(t *testing.T, s *Server) *pgx.Conn {
	t.Helper()
	u := s.Credentials().Users[0]
	conn, err := pgx.Connect(t.Context(), "postgres://"+u.Name+":"+u.Password+"@"+s.Addresses().SQL+"/tapehouse")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func client(t *testing.T, s *Server) *producer.Client {
	t.Helper()
	k := s.Credentials().Keys[0]
	c, err := producer.New(producer.Config{Endpoint: "http://" + s.Addresses().AWS, Region: s.cfg.Region, AccessKey: k.ID, Secret: k.Secret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// play puts a small trade date and returns the records by stream.
func play(t *testing.T, s *Server, records int64) map[string]int {
	t.Helper()
	x, err := exchange.New(exchange.DefaultConfig(s.pack.Calendar, calendar.Date(2026, time.November, 20), 1, records))
	if err != nil {
		t.Fatal(err)
	}
	c := client(t, s)
	counts := map[string]int{}
	batches := map[string][][]byte{}
	put := func(stream string) {
		if _, err := c.PutBatch(t.Context(), stream, batches[stream]); err != nil {
			t.Fatal(err)
		}
		batches[stream] = nil
	}
	for {
		doc, rec, err := x.Next(nil)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		counts[rec.Stream]++
		batches[rec.Stream] = append(batches[rec.Stream], doc)
		if len(batches[rec.Stream]) == 500 {
			put(rec.Stream)
		}
	}
	for stream, b := range batches {
		if len(b) > 0 {
			put(stream)
		}
	}
	return counts
}

func TestPutIsQueryableAtOnceAndAfterRestart(t *testing.T) {
	cfg := testConfig(t)
	s := open(t, cfg)
	counts := play(t, s, 20_000)
	check := func(s *Server) {
		t.Helper()
		conn := connect(t, s)
		for stream, table := range map[string]string{exchange.StreamOrders: "order_events", exchange.StreamExecutions: "executions", exchange.StreamMarkers: "markers"} {
			var n int
			if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM equities."+table).Scan(&n); err != nil {
				t.Fatal(err)
			}
			if n != counts[stream] {
				t.Errorf("%s: %d rows of %d", table, n, counts[stream])
			}
		}
		var members int
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM members").Scan(&members); err != nil || members == 0 {
			t.Errorf("members: %d %v", members, err)
		}
	}
	check(s)
	if _, err := Open(t.Context(), cfg, Options{}); err == nil {
		t.Error("a second server opened the same data directory")
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	check(s)
}
