package producer

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ErrClosed is returned by a pipeline that was closed.
var ErrClosed = errors.New("pipeline is closed")

// PipelineOptions configure a pipeline. Zero values mean the defaults.
type PipelineOptions struct {
	Workers    int           // concurrent requests; 8
	QueueDepth int           // full batches that wait for each worker; 2
	Linger     time.Duration // how long a batch may wait to become full; 20 ms
	// OnAck is called after every batch, by the workers, concurrently.
	OnAck func(Ack)
}

// Ack reports an acknowledged batch.
type Ack struct {
	Stream  string
	Records int
	Bytes   int64
	Took    time.Duration // from the first attempt to the acknowledgement
}

// Progress is what a pipeline has done so far.
type Progress struct {
	Submitted    int64 // records given to Put
	Acknowledged int64
	Bytes        int64 // of the acknowledged records
	Batches      int64 // acknowledged
}

// Pipeline batches records of many sources and keeps several requests in
// flight. It is safe for concurrent use.
type Pipeline struct {
	client *Client
	o      PipelineOptions
	seed   maphash.Seed
	lanes  []*lane
	ctx    context.Context
	cancel context.CancelCauseFunc
	wait   sync.WaitGroup

	submitted, acknowledged, bytes, batches atomic.Int64

	mu   sync.Mutex
	idle chan struct{} // closed and replaced whenever everything is acknowledged
}

// lane is what one worker serves.
type lane struct {
	// turn is held by whoever changes open or sends to queue. It is a channel
	// because waiting for it must end with the waiter's context.
	turn  chan struct{}
	open  map[string]*batch // by stream: not yet full
	queue chan *batch       // full, in order
}

// NewPipeline starts the workers. They stop with Close, or when a record is
// refused for good: every later call then returns that error.
func NewPipeline(c *Client, o PipelineOptions) *Pipeline {
	if o.Workers == 0 {
		o.Workers = 8
	}
	if o.QueueDepth == 0 {
		o.QueueDepth = 2
	}
	if o.Linger == 0 {
		o.Linger = 20 * time.Millisecond
	}
	p := &Pipeline{client: c, o: o, seed: maphash.MakeSeed(), idle: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	for range o.Workers {
		l := &lane{turn: make(chan struct{}, 1), open: map[string]*batch{}, queue: make(chan *batch, o.QueueDepth)}
		p.lanes = append(p.lanes, l)
		p.wait.Go(func() { p.work(l) })
	}
	return p
}

// Put hands over documents of one source to one stream; they are copied. It
// blocks while the pipeline is full. Records of one source and stream are sent
// in the order of the calls. With an error, some of the documents may have
// been taken.
func (p *Pipeline) Put(ctx context.Context, stream, source string, docs ...[]byte) error {
	var h maphash.Hash
	h.SetSeed(p.seed)
	_, _ = h.WriteString(stream) // never fails
	_ = h.WriteByte(0)
	_, _ = h.WriteString(source)
	l := p.lanes[h.Sum64()%uint64(len(p.lanes))]
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
	defer func() { <-l.turn }()
	if p.ctx.Err() != nil {
		return context.Cause(p.ctx)
	}
	for _, doc := range docs {
		if len(doc) > recordBytesMax {
			return fmt.Errorf("document of %d bytes: %w", len(doc), ErrTooLarge)
		}
		if err := p.add(ctx, l, stream, doc); err != nil {
			return err
		}
	}
	return nil
}

// add appends one document to the stream's open batch. REQUIRES: l.turn is held.
func (p *Pipeline) add(ctx context.Context, l *lane, stream string, doc []byte) error {
	b := l.open[stream]
	if b == nil {
		b = p.client.batches.Get().(*batch)
		if err := b.reset(stream); err != nil {
			p.client.batches.Put(b)
			return err
		}
		l.open[stream] = b
	}
	if b.add(doc) {
		p.submitted.Add(1)
		return nil
	}
	select {
	case l.queue <- b:
		delete(l.open, stream)
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
	return p.add(ctx, l, stream, doc) // a fresh batch takes any document
}

func (p *Pipeline) work(l *lane) {
	tick := time.NewTicker(p.o.Linger)
	defer tick.Stop()
	for {
		select {
		case b := <-l.queue:
			if !p.send(b) {
				return
			}
		case <-tick.C:
			for _, b := range p.take(l) {
				if !p.send(b) {
					return
				}
			}
		case <-p.ctx.Done():
			return
		}
	}
}

// take removes everything that waits, full batches first, as they were filled
// first. If a Put holds the lane, it is filling it, and there is no need to.
func (p *Pipeline) take(l *lane) []*batch {
	select {
	case l.turn <- struct{}{}:
	default:
		return nil
	}
	defer func() { <-l.turn }()
	var out []*batch
	for len(l.queue) > 0 {
		out = append(out, <-l.queue)
	}
	if len(l.open) == 0 {
		return out
	}
	streams := make([]string, 0, len(l.open))
	for s := range l.open {
		streams = append(streams, s)
	}
	slices.Sort(streams)
	for _, s := range streams {
		out = append(out, l.open[s])
	}
	clear(l.open)
	return out
}

func (p *Pipeline) send(b *batch) bool {
	began, stream := time.Now(), b.stream
	done, err := p.client.send(p.ctx, b)
	p.client.batches.Put(b)
	p.bytes.Add(done.Bytes)
	acknowledged := p.acknowledged.Add(int64(done.Records))
	if err != nil {
		p.cancel(err)
		return false
	}
	p.batches.Add(1)
	if p.o.OnAck != nil {
		p.o.OnAck(Ack{stream, done.Records, done.Bytes, time.Since(began)})
	}
	if acknowledged == p.submitted.Load() {
		p.mu.Lock()
		close(p.idle)
		p.idle = make(chan struct{})
		p.mu.Unlock()
	}
	return true
}

// Progress returns the counters.
func (p *Pipeline) Progress() Progress {
	// Acknowledged first: it may never be seen ahead of submitted.
	a := p.acknowledged.Load()
	return Progress{Submitted: p.submitted.Load(), Acknowledged: a, Bytes: p.bytes.Load(), Batches: p.batches.Load()}
}

// Flush waits until nothing is outstanding. While others go on putting, that
// may never be.
func (p *Pipeline) Flush(ctx context.Context) error {
	for {
		p.mu.Lock()
		idle := p.idle
		p.mu.Unlock()
		if p.ctx.Err() != nil {
			return context.Cause(p.ctx)
		}
		if p.acknowledged.Load() == p.submitted.Load() {
			return nil
		}
		select {
		case <-idle:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		}
	}
}

// Close flushes and stops the workers; if ctx ends first, what is not
// acknowledged is given up. It returns the error that stopped the pipeline, if
// one did.
func (p *Pipeline) Close(ctx context.Context) error {
	err := p.Flush(ctx)
	p.cancel(ErrClosed)
	p.wait.Wait()
	if errors.Is(err, ErrClosed) {
		return nil // closed before
	}
	return err
}
