package transform

import (
	"context"
	"sync"
)

// life is what Close ends: the Applies that run.
type life struct {
	mu      sync.Mutex
	closed  bool
	running map[*context.CancelCauseFunc]struct{}
	gone    sync.WaitGroup
}

// enter starts an Apply. Its context ends with ErrClosed when the transformer
// is closed; leave must be called.
func (l *life) enter(ctx context.Context) (_ context.Context, leave func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, nil, ErrClosed
	}
	if err := context.Cause(ctx); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	if l.running == nil {
		l.running = map[*context.CancelCauseFunc]struct{}{}
	}
	l.running[&cancel] = struct{}{}
	l.gone.Add(1)
	return ctx, func() {
		l.mu.Lock()
		delete(l.running, &cancel)
		l.mu.Unlock()
		cancel(nil)
		l.gone.Done()
	}, nil
}

// end cancels what runs and waits for it. It reports whether it was the first.
func (l *life) end() bool {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	for cancel := range l.running {
		(*cancel)(ErrClosed)
	}
	l.mu.Unlock()
	l.gone.Wait()
	return first
}
