package lake

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ErrCacheFull says that the files that are held leave no room for those asked
// for.
var ErrCacheFull = errors.New("the lake's cache is too small")

// errAbandoned is the end of a fetch whose caller gave up, or had another fail.
var errAbandoned = errors.New("fetch was abandoned")

// CacheOptions configure OpenCache. Dir is required.
type CacheOptions struct {
	// Dir is the cache's own: what lies in it is removed.
	Dir string
	// SizeBytesMax bounds the files in Dir; default 10 GiB.
	SizeBytesMax int64
	// WaitMax bounds how long Hold waits for others to release; default 30 s.
	WaitMax time.Duration

	Registerer prometheus.Registerer // nil: no metrics
}

const (
	cacheSizeDefault = 10 << 30
	cacheWaitDefault = 30 * time.Second
	// cacheBlockBytes is what the smallest file counts for, so that the bound on
	// bytes also bounds the number of files.
	cacheBlockBytes = 4 << 10
	// cacheWidth is the number of objects that one Hold fetches together.
	cacheWidth = 4
)

// Cache is an S3 store whose objects can be had as local files, for an engine
// that reads nothing else.
//
// A copy is fetched once however many ask, appears under its name only when it
// is complete and its checksum was found right, and is evicted, the longest
// unused first, only while nobody holds it. Files put through the cache enter it
// at once. Nothing is fsynced: the directory is emptied when the cache opens.
type Cache struct {
	*S3
	dir     string
	sizeMax int64
	waitMax time.Duration
	metrics *cacheMetrics
	temp    atomic.Uint64

	mu      sync.Mutex
	copies  map[string]*localCopy // by name
	idle    *list.List            // of *localCopy that nobody holds, the longest unused first
	used    int64                 // bytes of all copies, of those being fetched too
	held    int64                 // of these, what somebody holds
	changed chan struct{}         // closed, and made anew, when bytes become idle or free
}

// localCopy is one object's file, or the place of one that is being fetched.
type localCopy struct {
	name    string
	bytes   int64 // as counted
	holders int
	idle    *list.Element // in Cache.idle while it is complete and nobody holds it
	fetched chan struct{} // closed when the fetch has ended
	err     error         // of the fetch; then the copy is no longer in Cache.copies
}

var _ Store = (*Cache)(nil)

// OpenCache makes the cache and empties its directory.
func OpenCache(s *S3, o CacheOptions) (*Cache, error) {
	if o.SizeBytesMax == 0 {
		o.SizeBytesMax = cacheSizeDefault
	}
	if o.WaitMax == 0 {
		o.WaitMax = cacheWaitDefault
	}
	dir, err := filepath.Abs(o.Dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return nil, fmt.Errorf("empty cache: %w", err)
		}
	}
	return &Cache{S3: s, dir: dir, sizeMax: o.SizeBytesMax, waitMax: o.WaitMax, metrics: newCacheMetrics(o.Registerer),
		copies: map[string]*localCopy{}, idle: list.New(), changed: make(chan struct{})}, nil
}

// Dir is the directory of the copies.
func (c *Cache) Dir() string { return c.dir }

// Local is where the copy of the object at uri lies while it is held; false for
// a location outside the store. The place depends on the name alone.
func (c *Cache) Local(uri string) (string, bool) {
	name, ok := c.Name(uri)
	if !ok {
		return "", false
	}
	return c.copyPath(name), true
}

func (c *Cache) copyPath(name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(c.dir, hex.EncodeToString(sum[:16])+path.Ext(name))
}

func (c *Cache) tempPath() string {
	return filepath.Join(c.dir, "fetch-"+strconv.FormatUint(c.temp.Add(1), 10))
}

// Hold makes sure that the objects at the URIs have local copies and keeps them
// until release is called, once. All of them must fit beside what others hold:
// it waits for that within WaitMax, and then fails with ErrCacheFull.
func (c *Cache) Hold(ctx context.Context, uris []string) (release func(), err error) {
	names := make([]string, 0, len(uris))
	seen := make(map[string]bool, len(uris))
	for _, uri := range uris {
		name, ok := c.Name(uri)
		if !ok {
			return nil, fmt.Errorf("hold %s: %w: outside the lake", uri, ErrName)
		}
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	waiting, cancel := context.WithTimeoutCause(ctx, c.waitMax, ErrCacheFull)
	defer cancel()
	for {
		missing, err := c.missing(ctx, names)
		if err != nil {
			return nil, err
		}
		held, fetch, changed, err := c.reserve(names, missing)
		if err != nil {
			return nil, err
		}
		if changed != nil { // no room yet
			select {
			case <-changed:
				continue
			case <-waiting.Done():
				if ctx.Err() != nil {
					return nil, context.Cause(ctx)
				}
				return nil, fmt.Errorf("%w: other queries hold too much of its %d bytes", ErrCacheFull, c.sizeMax)
			}
		}
		err = c.fill(ctx, held, fetch, missing)
		if err == nil {
			var once sync.Once
			return func() { once.Do(func() { c.release(held) }) }, nil
		}
		c.release(held)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if !errors.Is(err, errAbandoned) { // else it is ours to fetch now
			return nil, err
		}
	}
}

// missing describes the objects that have no copy, nor soon will.
func (c *Cache) missing(ctx context.Context, names []string) (map[string]objectHead, error) {
	var absent []string
	c.mu.Lock()
	for _, n := range names {
		if c.copies[n] == nil {
			absent = append(absent, n)
		}
	}
	c.mu.Unlock()
	heads := make([]objectHead, len(absent))
	if err := InParallel(ctx, 4*cacheWidth, len(absent), func(ctx context.Context, i int) (err error) {
		heads[i], err = c.head(ctx, c.key(absent[i]))
		return err
	}); err != nil {
		return nil, err
	}
	out := make(map[string]objectHead, len(absent))
	for i, n := range absent {
		out[n] = heads[i]
	}
	return out, nil
}

func countedBytes(sizeBytes int64) int64 {
	return (sizeBytes + cacheBlockBytes - 1) / cacheBlockBytes * cacheBlockBytes
}

// reserve holds all names or none: those that have a copy, and places for the
// missing ones, fetch. If that is not possible now it returns what will be
// closed when it may be.
func (c *Cache) reserve(names []string, missing map[string]objectHead) (held, fetch []*localCopy, changed <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var wanted, added int64 // bytes that are to be held, and those that are not held yet
	for _, n := range names {
		if cp := c.copies[n]; cp != nil {
			wanted += cp.bytes
			if cp.holders == 0 {
				added += cp.bytes
			}
			continue
		}
		h, ok := missing[n]
		if !ok {
			closed := make(chan struct{}) // evicted just now: look again
			close(closed)
			return nil, nil, closed, nil
		}
		wanted += countedBytes(h.sizeBytes)
		added += countedBytes(h.sizeBytes)
	}
	if wanted > c.sizeMax {
		return nil, nil, nil, fmt.Errorf("%w: %d files with %d bytes are read together, and it has %d: raise its size, or read less of the table at a time", ErrCacheFull, len(names), wanted, c.sizeMax)
	}
	if c.held+added > c.sizeMax {
		return nil, nil, c.changed, nil
	}
	for _, n := range names {
		cp := c.copies[n]
		if cp == nil {
			cp = &localCopy{name: n, bytes: countedBytes(missing[n].sizeBytes), fetched: make(chan struct{})}
			c.copies[n] = cp
			c.used += cp.bytes
			fetch = append(fetch, cp)
		}
		if cp.holders == 0 {
			c.held += cp.bytes
		}
		if cp.idle != nil {
			c.idle.Remove(cp.idle)
			cp.idle = nil
		}
		cp.holders++
		held = append(held, cp)
	}
	c.evict(0)
	c.metrics.held(len(held)-len(fetch), len(fetch), c.used)
	return held, fetch, nil, nil
}

// evict removes idle copies until there is room for so many bytes more; false
// if what is held does not allow it. c.mu is locked.
func (c *Cache) evict(room int64) bool {
	if c.held+room > c.sizeMax {
		return false
	}
	for c.used+room > c.sizeMax && c.idle.Len() > 0 {
		c.drop(c.idle.Front().Value.(*localCopy))
		c.metrics.evictions.Inc()
	}
	return c.used+room <= c.sizeMax
}

// drop removes an idle copy. c.mu is locked.
func (c *Cache) drop(cp *localCopy) {
	c.idle.Remove(cp.idle)
	cp.idle = nil
	delete(c.copies, cp.name)
	c.used -= cp.bytes
	_ = os.Remove(c.copyPath(cp.name)) // if it stays it is overwritten or emptied
}

// fill fetches what is ours to fetch and waits for what others do.
func (c *Cache) fill(ctx context.Context, held, fetch []*localCopy, heads map[string]objectHead) error {
	err := InParallel(ctx, cacheWidth, len(fetch), func(ctx context.Context, i int) error {
		cp := fetch[i]
		err := c.fetch(ctx, cp.name, heads[cp.name])
		if err != nil && ctx.Err() != nil {
			err = errAbandoned
		}
		return c.ended(cp, err)
	})
	if err != nil {
		for _, cp := range fetch { // those that were not begun
			_ = c.ended(cp, errAbandoned)
		}
		return err
	}
	for _, cp := range held {
		select {
		case <-cp.fetched:
			if cp.err != nil {
				return cp.err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// ended closes a fetch, once, and takes a copy that failed away.
func (c *Cache) ended(cp *localCopy, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-cp.fetched:
		return err
	default:
	}
	if err != nil {
		cp.err = err
		delete(c.copies, cp.name)
		c.used -= cp.bytes
		c.held -= cp.bytes
		c.signal()
	}
	close(cp.fetched)
	return err
}

// signal wakes those that wait for room. c.mu is locked.
func (c *Cache) signal() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// fetch writes one object's copy.
func (c *Cache) fetch(ctx context.Context, name string, h objectHead) (err error) {
	temp := c.tempPath()
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", name, err)
	}
	err = c.download(ctx, name, h, f)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(temp, c.copyPath(name))
	}
	if err != nil {
		_ = os.Remove(temp)
		return fmt.Errorf("fetch %s: %w", name, err)
	}
	c.metrics.fetchedBytes.Add(float64(h.sizeBytes))
	return nil
}

// release gives a Hold back.
func (c *Cache) release(held []*localCopy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cp := range held {
		cp.holders--
		if cp.holders > 0 || cp.err != nil {
			continue
		}
		c.held -= cp.bytes
		cp.idle = c.idle.PushBack(cp)
	}
	c.evict(0)
	c.signal()
}

// PutFile implements Store. The file becomes the copy, so that what was just
// written need not be fetched.
func (c *Cache) PutFile(ctx context.Context, name, path string) error {
	temp := c.tempPath()
	linked := os.Link(path, temp) == nil
	err := c.S3.PutFile(ctx, name, path)
	if linked && (err != nil || !c.adopt(name, temp)) {
		_ = os.Remove(temp)
	}
	return err
}

// adopt makes a finished file the copy of name; false if there is no room.
func (c *Cache) adopt(name, temp string) bool {
	fi, err := os.Stat(temp)
	if err != nil {
		return false
	}
	cp := &localCopy{name: name, bytes: countedBytes(fi.Size()), fetched: make(chan struct{})}
	close(cp.fetched)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.copies[name] != nil || !c.evict(cp.bytes) || os.Rename(temp, c.copyPath(name)) != nil {
		return false
	}
	c.copies[name] = cp
	c.used += cp.bytes
	cp.idle = c.idle.PushBack(cp)
	c.metrics.usedBytes.Set(float64(c.used))
	return true
}

// Delete implements Store. Copies that somebody holds stay until they are
// evicted.
func (c *Cache) Delete(ctx context.Context, names ...string) error {
	err := c.S3.Delete(ctx, names...)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range names {
		if cp := c.copies[n]; cp != nil && cp.idle != nil {
			c.drop(cp)
		}
	}
	c.metrics.usedBytes.Set(float64(c.used))
	return err
}
