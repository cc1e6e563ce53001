package server

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/s3test"
)

// TestS3Outage: while S3 does not answer, records are acknowledged and visible
// all the same, a stop ends, and nothing is lost.
func TestS3Outage(t *testing.T) {
	cfg, _, p := s3Config(t)
	s, err := Open(t.Context(), cfg, Options{Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	p.Plan(func(s3test.Request) s3test.Fault { return s3test.Stall })
	putLegs(t, s, "A", 1, 100)
	if got := text(t, connect(t, s), `SELECT count(*) FROM executions`); got != "100" {
		t.Errorf("%s rows of 100 are visible during an outage", got)
	}
	start := time.Now()
	patience, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := s.Close(patience); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the stop says %v", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("the stop took %s", took)
	}
	p.Plan(nil)
	s = open(t, cfg)
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := text(t, connect(t, s), `SELECT count(DISTINCT seq) || ' of ' || count(*) FROM executions`); got != "100 of 100" {
		t.Errorf("%s rows are there after the outage", got)
	}
}
