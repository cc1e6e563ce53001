package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tapehouse/tapehouse/internal/benchmark"
)

// The load of `tapehouse bench log`.
const (
	producers   = 32
	outstanding = 16
	message     = 300 // bytes
	readyWait   = 10 * time.Second
)

// logs measures our log and NATS JetStream, one after the other.
func logs(ctx context.Context, o benchmark.Options, out io.Writer) error {
	type logged struct {
		Rate float64 `json:"messages_per_second"`
	}
	ours, err := measured[logged](ctx, "log", o, out)
	if err != nil {
		return err
	}
	var rates []float64
	for i := range o.Runs {
		one, err := natsOnce(ctx, o)
		if err != nil {
			return fmt.Errorf("NATS JetStream: %w", err)
		}
		rates = append(rates, one.rate)
		fmt.Fprintf(out, "NATS JetStream %s, sync_interval: always, run %d: %.0f messages/s, durable after p50 %.1f ms, p99 %.1f ms\n",
			server.VERSION, i+1, one.rate, one.p50.Seconds()*1000, one.p99.Seconds()*1000)
	}
	slices.Sort(rates)
	theirs := rates[(len(rates)-1)/2]
	fmt.Fprintf(out, "ours %.0f messages/s, NATS JetStream %.0f: ratio %.0f\n", ours.Rate, theirs, ours.Rate/theirs)
	return nil
}

type natsRun struct {
	rate     float64
	p50, p99 time.Duration
}

// natsOnce publishes to one stream on disk from 32 connections inside the
// process, so that no network is counted, each with 16 messages whose
// acknowledgements are outstanding. The server syncs before it acknowledges.
func natsOnce(ctx context.Context, o benchmark.Options) (_ natsRun, err error) {
	dir, err := os.MkdirTemp(o.Dir, "nats-bench-")
	if err != nil {
		return natsRun{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ns, err := server.NewServer(&server.Options{ServerName: "bench", DontListen: true, JetStream: true, StoreDir: dir, SyncAlways: true, NoLog: true, NoSigs: true})
	if err != nil {
		return natsRun{}, err
	}
	ns.Start()
	defer func() { ns.Shutdown(); ns.WaitForShutdown() }()
	if !ns.ReadyForConnections(readyWait) {
		return natsRun{}, errors.New("the server is not ready")
	}
	connect := func() (*nats.Conn, jetstream.JetStream, error) {
		nc, err := nats.Connect("", nats.InProcessServer(ns))
		if err != nil {
			return nil, nil, err
		}
		js, err := jetstream.New(nc)
		return nc, js, err
	}
	nc, js, err := connect()
	if err != nil {
		return natsRun{}, err
	}
	defer nc.Close()
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "bench", Subjects: []string{"bench.*"}, Storage: jetstream.FileStorage})
	if err != nil {
		return natsRun{}, err
	}
	var mu sync.Mutex
	var all []time.Duration
	var total int64
	errs := make([]error, producers)
	var wg sync.WaitGroup
	began := time.Now()
	until := began.Add(time.Duration(o.Seconds) * time.Second)
	for i := range producers {
		wg.Go(func() {
			took, n, err := publish(ctx, connect, fmt.Sprintf("bench.%d", i), until)
			mu.Lock()
			defer mu.Unlock()
			all, total, errs[i] = append(all, took...), total+n, err
		})
	}
	wg.Wait()
	wall := time.Since(began)
	if err := errors.Join(errs...); err != nil {
		return natsRun{}, err
	}
	info, err := stream.Info(ctx)
	if err != nil {
		return natsRun{}, err
	}
	if int64(info.State.Msgs) != total {
		return natsRun{}, fmt.Errorf("the stream has %d messages, %d were acknowledged", info.State.Msgs, total)
	}
	if len(all) == 0 {
		return natsRun{}, errors.New("nothing was acknowledged")
	}
	slices.Sort(all)
	return natsRun{rate: float64(total) / wall.Seconds(), p50: all[len(all)/2], p99: all[len(all)*99/100]}, nil
}

func publish(ctx context.Context, connect func() (*nats.Conn, jetstream.JetStream, error), subject string, until time.Time) (took []time.Duration, n int64, err error) {
	nc, js, err := connect()
	if err != nil {
		return nil, 0, err
	}
	defer nc.Close()
	type sent struct {
		ack jetstream.PubAckFuture
		at  time.Time
	}
	var ring []sent
	payload := make([]byte, message)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	wait := func() error {
		oldest := ring[0]
		ring = ring[1:]
		select {
		case <-oldest.ack.Ok():
			n++
			took = append(took, time.Since(oldest.at))
			return nil
		case err := <-oldest.ack.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for now := time.Now(); now.Before(until); now = time.Now() {
		if len(ring) == outstanding {
			if err := wait(); err != nil {
				return took, n, err
			}
		}
		f, err := js.PublishAsync(subject, payload)
		if err != nil {
			return took, n, err
		}
		ring = append(ring, sent{f, time.Now()})
	}
	for len(ring) > 0 {
		if err := wait(); err != nil {
			return took, n, err
		}
	}
	return took, n, nil
}
