package lake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/s3test"
)

// cacheHouse is a cache before a server whose requests are counted.
type cacheHouse struct {
	*Cache
	t       *testing.T
	server  *s3test.Server
	proxy   *s3test.Proxy
	fetches atomic.Int64 // ranges asked for
	content map[string][]byte
}

func newCacheHouse(t *testing.T, sizeMax int64) *cacheHouse {
	server := s3test.Start(t)
	h := &cacheHouse{t: t, server: server, proxy: s3test.StartProxy(t, server.Endpoint, giveUp), content: map[string][]byte{}}
	h.count(nil)
	s := openS3(t, server, h.proxy.Endpoint, "c", impatient)
	var err error
	if h.Cache, err = OpenCache(s, CacheOptions{Dir: filepath.Join(t.TempDir(), "cache"), SizeBytesMax: sizeMax, WaitMax: 300 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	return h
}

// count counts fetches, and lets then decide their faults.
func (h *cacheHouse) count(then func(s3test.Request) s3test.Fault) {
	h.proxy.Plan(func(r s3test.Request) s3test.Fault {
		if r.Is("GetObject") {
			h.fetches.Add(1)
		}
		if then == nil {
			return s3test.None
		}
		return then(r)
	})
}

// object puts an object behind the cache's back.
func (h *cacheHouse) object(name string, size int) string {
	h.t.Helper()
	h.content[name] = random(uint64(len(h.content)+1), size)
	if err := h.S3.Put(h.t.Context(), name, bytes.NewReader(h.content[name]), int64(size)); err != nil {
		h.t.Fatal(err)
	}
	return h.URI(name)
}

func (h *cacheHouse) hold(names ...string) (release func(), err error) {
	uris := make([]string, len(names))
	for i, n := range names {
		uris[i] = h.URI(n)
	}
	return h.Hold(h.t.Context(), uris)
}

// check reads the copies of held names.
func (h *cacheHouse) check(names ...string) {
	h.t.Helper()
	for _, n := range names {
		path, ok := h.Local(h.URI(n))
		if b, err := os.ReadFile(path); !ok || err != nil || !bytes.Equal(b, h.content[n]) {
			h.t.Errorf("the copy of %s has %d bytes: %v", n, len(b), err)
		}
	}
}

// bytesOnDisk is what the directory really holds.
func (h *cacheHouse) bytesOnDisk() (n int64) {
	entries, err := os.ReadDir(h.Dir())
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range entries {
		if fi, err := e.Info(); err == nil {
			n += fi.Size()
		}
	}
	return n
}

func TestCacheFetchesOnceAndEvicts(t *testing.T) {
	h := newCacheHouse(t, 40<<10)
	for _, n := range []string{"a", "b", "c", "d"} {
		h.object(n+".parquet", 10<<10) // counts 12 KiB
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			release, err := h.hold("a.parquet", "b.parquet", "a.parquet")
			if err != nil {
				t.Error(err)
				return
			}
			defer release()
			h.check("a.parquet", "b.parquet")
		})
	}
	wg.Wait()
	if n := h.fetches.Load(); n != 2 {
		t.Errorf("two objects were fetched %d times", n)
	}
	step := func(name string, fetches int64) {
		t.Helper()
		h.fetches.Store(0)
		release, err := h.hold(name)
		if err != nil {
			t.Fatal(err)
		}
		h.check(name)
		release()
		release() // does nothing
		if n := h.fetches.Load(); n != fetches {
			t.Errorf("%s was fetched %d times, want %d", name, n, fetches)
		}
	}
	step("a.parquet", 0)
	step("c.parquet", 1) // 36 KiB are full now
	step("d.parquet", 1) // evicts b, the longest unused
	step("a.parquet", 0)
	step("c.parquet", 0)
	step("b.parquet", 1)
	if n := h.bytesOnDisk(); n > 40<<10 {
		t.Errorf("%d bytes on disk", n)
	}
}

func TestCacheKeepsWhatIsHeld(t *testing.T) {
	h := newCacheHouse(t, 40<<10)
	for _, n := range []string{"a", "b", "c", "d"} {
		h.object(n, 10<<10)
	}
	if _, err := h.hold("a", "b", "c", "d"); !errors.Is(err, ErrCacheFull) || h.fetches.Load() != 0 {
		t.Fatalf("more than the cache holds: %v, %d fetches", err, h.fetches.Load())
	}
	release, err := h.hold("a", "b")
	if err != nil {
		t.Fatal(err)
	}
	again, err := h.hold("b")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.hold("c", "d"); !errors.Is(err, ErrCacheFull) {
		t.Fatalf("beside what is held: %v", err)
	}
	h.check("a", "b")
	done := make(chan error)
	go func() {
		r, err := h.hold("c", "d") // waits
		if err == nil {
			h.check("b", "c", "d")
			r()
		}
		done <- err
	}()
	time.Sleep(50 * time.Millisecond)
	release()
	if err := <-done; err != nil {
		t.Errorf("after a release: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Hold(ctx, []string{h.URI("a")}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	again()
	if _, err := h.hold("none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("of nothing: %v", err)
	}
	if _, err := h.Hold(t.Context(), []string{"file:///etc/passwd"}); !errors.Is(err, ErrName) {
		t.Errorf("outside the lake: %v", err)
	}
	if h.held != 0 || h.used != int64(len(h.copies))*(12<<10) || h.idle.Len() != len(h.copies) {
		t.Errorf("held %d, used %d, %d copies, %d idle", h.held, h.used, len(h.copies), h.idle.Len())
	}
}

// TestCacheAdoptsAndForgets: what is put by file is there at once, what is
// deleted goes, and a restart begins empty.
func TestCacheAdoptsAndForgets(t *testing.T) {
	h := newCacheHouse(t, 64<<20)
	path := filepath.Join(filepath.Dir(h.Dir()), "flush.parquet")
	for _, size := range []int{1000, partBytesMin + 5} {
		name := fmt.Sprint("data/", size)
		h.content[name] = random(9, size)
		if err := os.WriteFile(path, h.content[name], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := h.PutFile(t.Context(), name, path); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the source is still there: %v", err)
		}
		release, err := h.hold(name)
		if err != nil {
			t.Fatal(err)
		}
		h.check(name)
		if n := h.fetches.Load(); n != 0 {
			t.Errorf("what was just put was fetched %d times", n)
		}
		if err := h.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		h.check(name) // held
		release()
	}
	if err := os.WriteFile(path, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.object("taken", 100)
	if err := h.PutFile(t.Context(), "taken", path); !errors.Is(err, ErrExists) {
		t.Errorf("PutFile over an object: %v", err)
	}
	release, err := h.hold("taken")
	if err != nil {
		t.Fatal(err)
	}
	h.check("taken") // not the refused content
	release()
	if err := h.Delete(t.Context(), "taken"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.hold("taken"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a deleted object: %v", err)
	}
	if err := os.WriteFile(filepath.Join(h.Dir(), "fetch-77"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCache(h.S3, CacheOptions{Dir: h.Dir()}); err != nil || h.bytesOnDisk() != 0 {
		t.Errorf("after a restart %d bytes are there: %v", h.bytesOnDisk(), err)
	}
}

// TestCacheAbandonedFetch: a query that gives up does not take along another
// that waits for the same object.
func TestCacheAbandonedFetch(t *testing.T) {
	h := newCacheHouse(t, 64<<20)
	uri := h.object("slow", 3*partBytesMin)
	var stalled atomic.Int64
	h.count(func(r s3test.Request) s3test.Fault {
		if r.Is("GetObject") && stalled.Add(1) <= 3 {
			return s3test.Stall
		}
		return s3test.None
	})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := h.Hold(ctx, []string{uri}); !errors.Is(err, context.Canceled) {
			t.Errorf("the query that gave up: %v", err)
		}
	})
	for stalled.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	wg.Go(func() {
		release, err := h.hold("slow")
		if err != nil {
			t.Errorf("the query that waited: %v", err)
			return
		}
		h.check("slow")
		release()
	})
	time.Sleep(20 * time.Millisecond)
	cancel()
	wg.Wait()
}

// TestCacheUnderFaults: whatever the network does, a copy is right or is not
// there, and the bound holds.
func TestCacheUnderFaults(t *testing.T) {
	h := newCacheHouse(t, 40<<20)
	var names []string
	for i := range 12 {
		name := fmt.Sprintf("o-%d", i)
		size := 50_000 * (i + 1)
		if i%4 == 0 {
			size = 2*partBytesMin + i
		}
		h.object(name, size)
		names = append(names, name)
	}
	h.count(s3test.Random(3, 0.5, s3test.InternalErr, s3test.SlowDown, s3test.ResetAnswer, s3test.FlipAnswer, s3test.LostAnswer, s3test.LostAnswer5x, s3test.LateAnswer))
	var failed, held atomic.Int64
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(worker)))
			for range 12 {
				some := []string{names[r.IntN(len(names))], names[r.IntN(len(names))], names[r.IntN(len(names))]}
				ctx, cancel := context.WithCancel(t.Context())
				if r.IntN(4) == 0 {
					time.AfterFunc(time.Duration(r.IntN(40))*time.Millisecond, cancel)
				}
				release, err := h.Hold(ctx, []string{h.URI(some[0]), h.URI(some[1]), h.URI(some[2])})
				if err != nil {
					failed.Add(1)
				} else {
					held.Add(1)
					h.check(some...)
					release()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	t.Logf("%d held, %d failed, %d faults", held.Load(), failed.Load(), h.proxy.Injected())
	if h.proxy.Injected() < 15 || held.Load() < 15 {
		t.Errorf("the test proves little: %d faults, %d held", h.proxy.Injected(), held.Load())
	}
	if h.held != 0 || h.used > 40<<20 || h.idle.Len() != len(h.copies) || h.bytesOnDisk() > h.used {
		t.Errorf("held %d, used %d, on disk %d, %d copies, %d idle", h.held, h.used, h.bytesOnDisk(), len(h.copies), h.idle.Len())
	}
}
