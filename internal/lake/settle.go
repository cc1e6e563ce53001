package lake

import (
	"context"
	"fmt"
	"os"
	"path"
	"sync"
)

// settleWidth is how many files are synced at the same time.
const settleWidth = 16

// Settle makes objects durable that another program wrote into the store's
// directory by itself, whether or not it synced them: their content, their names
// and the directories on the way to them. A name that no object has is
// ErrNotFound.
func (l *Local) Settle(ctx context.Context, names ...string) error {
	dirs := map[string]bool{}
	for _, name := range names {
		if err := CheckName(name); err != nil {
			return err
		}
		for dir := path.Dir(name); !dirs[dir]; dir = path.Dir(dir) {
			dirs[dir] = true // "." is the store's own
		}
	}
	if err := l.settleAll(ctx, names); err != nil {
		return err
	}
	for dir := range dirs {
		if err := l.fs.SyncDir(l.path(dir)); err != nil {
			return fmt.Errorf("sync directory %s: %w", dir, err)
		}
	}
	return nil
}

func (l *Local) settleAll(ctx context.Context, names []string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan string)
	var wg sync.WaitGroup
	for range min(settleWidth, len(names)) {
		wg.Go(func() {
			for name := range next {
				if err := l.settle(name); err != nil {
					cancel(err)
				}
			}
		})
	}
feed:
	for _, name := range names {
		select {
		case next <- name:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

func (l *Local) settle(name string) error {
	f, err := l.fs.OpenFile(l.path(name), os.O_RDONLY, 0)
	if os.IsNotExist(err) {
		return fmt.Errorf("settle %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("settle %s: %w", name, err)
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("settle %s: %w", name, err)
	}
	return nil
}
