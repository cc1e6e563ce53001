package benchmark

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/internal/wal"
)

const (
	logProducers   = 32
	logOutstanding = 16
	logMessage     = 300 // bytes
)

// logged is one run of the log alone.
type logged struct {
	MessagesPerSecond float64   `json:"messages_per_second"`
	Messages          int64     `json:"messages"`
	Seconds           float64   `json:"seconds"`
	CPUNanos          float64   `json:"cpu_ns_per_message"`
	Durable           quantiles `json:"durable"` // from Enqueue to the fsync
}

// logAlone appends messages one by one, with no batching by the producers: each
// has sixteen on their way and waits for the oldest.
func logAlone(ctx context.Context, o Options, r *reporter) (any, error) {
	length := time.Duration(orDefault(o.Seconds, 5)) * time.Second
	r.printf("%d producers with %d messages of %d bytes outstanding each, %s a run\n", logProducers, logOutstanding, logMessage, length)
	var runs []logged
	for i := range orDefault(o.Runs, 3) {
		one, err := logOnce(ctx, o, length)
		if err != nil {
			return nil, err
		}
		runs = append(runs, one)
		r.printf("run %d: %s messages/s, %.0f ns CPU each, durable after %s\n", i+1, grouped(one.MessagesPerSecond), one.CPUNanos, one.Durable)
	}
	m := medianBy(runs, func(l logged) float64 { return l.MessagesPerSecond })
	r.printf("median: %s messages/s\n", grouped(m.MessagesPerSecond))
	return m, nil
}

func logOnce(ctx context.Context, o Options, length time.Duration) (_ logged, err error) {
	dir, err := os.MkdirTemp(o.Dir, "tapehouse-bench-")
	if err != nil {
		return logged{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	log, err := wal.Open(ctx, fsys.OS, dir, wal.Options{Retention: -1, RetentionBytes: -1})
	if err != nil {
		return logged{}, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()

	cpu, began := ownCPU(), time.Now()
	var mu sync.Mutex
	var all []time.Duration
	var total int64
	errs := make([]error, logProducers)
	keys := make([]record.Key, logProducers)
	var producing, trimming sync.WaitGroup
	stop := make(chan struct{})
	trimming.Go(func() { // what is synced is let go, as if a table had it
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				if log.Trim(ctx, log.Ends()) != nil {
					return // the producers will find out
				}
			}
		}
	})
	for i := range errs {
		keys[i] = record.Key{Incarnation: uuid.New()}
		producing.Go(func() {
			took, n, err := produce(ctx, log, keys[i], began.Add(length))
			mu.Lock()
			defer mu.Unlock()
			all, total, errs[i] = append(all, took...), total+n, err
		})
	}
	producing.Wait()
	wall := time.Since(began)
	close(stop)
	trimming.Wait()
	if err := errors.Join(errs...); err != nil {
		return logged{}, err
	}
	end := record.Offset(0)
	for _, k := range keys {
		end += log.Synced(k)
	}
	if int64(end) != total {
		return logged{}, fmt.Errorf("the log has %d messages, %d were acknowledged", end, total)
	}
	return logged{MessagesPerSecond: float64(total) / wall.Seconds(), Messages: total, Seconds: wall.Seconds(),
		CPUNanos: float64(ownCPU()-cpu) / float64(total), Durable: quantilesOf(all)}, nil
}

// produce returns every hundredth message's time, and how many there were.
func produce(ctx context.Context, log *wal.Log, k record.Key, until time.Time) (took []time.Duration, n int64, err error) {
	type sent struct {
		ticket wal.Ticket
		at     time.Time
	}
	var ring [logOutstanding]sent
	payload := make([]byte, logMessage) // never changed: all messages may share it
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	for i := 0; ; i++ {
		slot := &ring[i%logOutstanding]
		if i >= logOutstanding {
			if err := slot.ticket.Wait(ctx); err != nil {
				return took, n, err
			}
			n++
			if n%100 == 0 {
				took = append(took, time.Since(slot.at))
			}
		}
		now := time.Now()
		if now.After(until) {
			for j := i + 1; j < i+logOutstanding; j++ { // i's own slot was waited for
				if j < logOutstanding {
					continue // never filled: the time was over at once
				}
				if err := ring[j%logOutstanding].ticket.Wait(ctx); err != nil {
					return took, n, err
				}
				n++
			}
			return took, n, nil
		}
		t, err := log.Enqueue(k, wal.Entry{Count: 1, ArrivedAt: now.UnixMicro(), Payload: payload})
		if err != nil {
			return took, n, err
		}
		*slot = sent{t, now}
	}
}
