package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tapehouse/tapehouse/internal/exchange"
	"github.com/tapehouse/tapehouse/internal/producer"
)

// Play takes records from a player to a pipeline and notes them in a manifest.
type Play struct {
	Player   exchange.Player
	Pipeline *producer.Pipeline
	// Manifest gets every record that is well formed, in the order of the
	// player, also those that Skip and Keep leave out; nil for none.
	Manifest *exchange.ManifestWriter
	Skip     int64                      // records at the beginning that are not put
	Keep     func(exchange.Record) bool // records that are put; nil is all
	Rate     int                        // records/s; 0 is no limit
	// OnPut is called after every record that was put, with their number.
	OnPut func(n int64)
}

// Played counts what was put.
type Played struct {
	Records   int64 // all, markers too
	Markers   int64
	Malformed int64
}

// rateStep is how many records may pass before the clock is asked again.
const rateStep = 100

// Run plays to the end. The pipeline is left open, and not flushed.
func (p *Play) Run(ctx context.Context) (Played, error) {
	var done Played
	var buf []byte
	began := time.Now()
	for n := int64(0); ; n++ {
		doc, rec, err := p.Player.Next(buf[:0])
		if errors.Is(err, io.EOF) {
			return done, nil
		}
		if err != nil {
			return done, fmt.Errorf("record %d: %w", n, err)
		}
		buf = doc
		if p.Manifest != nil && !rec.Malformed {
			if err := p.Manifest.Append(rec.Stream, rec.Key, p.Player.Hash()); err != nil {
				return done, fmt.Errorf("write manifest: %w", err)
			}
		}
		if n < p.Skip || p.Keep != nil && !p.Keep(rec) {
			continue
		}
		if err := p.Pipeline.Put(ctx, rec.Stream, rec.Key.Source, doc); err != nil {
			return done, err
		}
		done.Records++
		if rec.Marker {
			done.Markers++
		}
		if rec.Malformed {
			done.Malformed++
		}
		if p.OnPut != nil {
			p.OnPut(done.Records)
		}
		if p.Rate > 0 && done.Records%rateStep == 0 {
			if err := sleepUntil(ctx, began.Add(time.Duration(float64(done.Records)/float64(p.Rate)*float64(time.Second)))); err != nil {
				return done, err
			}
		}
	}
}

func sleepUntil(ctx context.Context, t time.Time) error {
	d := time.Until(t)
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
