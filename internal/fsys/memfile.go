package fsys

import (
	"bytes"
	"io"
	"io/fs"
	"slices"
	"syscall"
	"time"
)

// memPageBytes is the unit in which a crash keeps or loses unsynced bytes: the
// page of the operating system's cache, and the block of most file systems.
const memPageBytes = 4096

type memPage [memPageBytes]byte

var zeroPage memPage

// memFile is the content of a file: its pages now, and those that are durable.
// A nil page is zeros. A page that both share is never written to.
type memFile struct {
	pages, durable    []*memPage
	size, durableSize int64
	dirty             map[int]struct{} // pages that may differ
	modified          time.Time
}

func (*memFile) isDir() bool { return false }

func pageAt(pages []*memPage, i int) *memPage {
	if i >= len(pages) {
		return nil
	}
	return pages[i]
}

func pagesOf(size int64) int { return int((size + memPageBytes - 1) / memPageBytes) }

func (f *memFile) touch(i int) {
	if f.dirty == nil {
		f.dirty = map[int]struct{}{}
	}
	f.dirty[i] = struct{}{}
	f.modified = time.Now()
}

func (f *memFile) readAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	if off >= f.size {
		return 0, io.EOF
	}
	want := len(p)
	p = p[:min(int64(want), f.size-off)]
	for done := 0; done < len(p); {
		i, at := int((off+int64(done))/memPageBytes), int((off+int64(done))%memPageBytes)
		n := min(memPageBytes-at, len(p)-done)
		if page := pageAt(f.pages, i); page != nil {
			copy(p[done:done+n], page[at:])
		} else {
			clear(p[done : done+n])
		}
		done += n
	}
	if len(p) < want {
		return len(p), io.EOF
	}
	return len(p), nil
}

func (f *memFile) writeAt(p []byte, off int64) {
	f.size = max(f.size, off+int64(len(p)))
	for n := pagesOf(f.size); len(f.pages) < n; {
		f.pages = append(f.pages, nil)
	}
	for len(p) > 0 {
		i, at := int(off/memPageBytes), int(off%memPageBytes)
		n := min(memPageBytes-at, len(p))
		f.touch(i)
		switch {
		case n == memPageBytes && bytes.Equal(p[:n], zeroPage[:]):
			f.pages[i] = nil // preallocation costs nothing
		default:
			page := f.pages[i]
			if page == nil || page == pageAt(f.durable, i) {
				fresh := new(memPage)
				if page != nil {
					*fresh = *page
				}
				page, f.pages[i] = fresh, fresh
			}
			copy(page[at:], p[:n])
		}
		p, off = p[n:], off+int64(n)
	}
}

func (f *memFile) truncate(size int64) {
	old := f.size
	f.size = size
	n := pagesOf(size)
	for i := n; i < len(f.pages); i++ {
		f.touch(i)
	}
	f.pages = f.pages[:min(n, len(f.pages))]
	for len(f.pages) < n {
		f.pages = append(f.pages, nil)
	}
	// What lies behind the end must read as zeros if the file grows again.
	if at := int(size % memPageBytes); size < old && at != 0 && f.pages[n-1] != nil {
		fresh := *f.pages[n-1]
		clear(fresh[at:])
		f.pages[n-1] = &fresh
		f.touch(n - 1)
	}
	f.modified = time.Now()
}

func (f *memFile) sync() {
	n := pagesOf(f.size)
	for len(f.durable) < n {
		f.durable = append(f.durable, nil)
	}
	f.durable = f.durable[:n]
	for i := range f.dirty {
		if i < n {
			f.durable[i] = pageAt(f.pages, i)
		}
	}
	f.dirty, f.durableSize = nil, f.size
}

// crash is the file after a loss of power; keep says of each unsynced page
// whether it was written.
func (f *memFile) crash(keep func() bool) *memFile {
	n := &memFile{size: f.durableSize, modified: f.modified}
	if f.size != f.durableSize && keep() {
		n.size = f.size
	}
	n.pages = make([]*memPage, pagesOf(n.size))
	copy(n.pages, f.durable)
	for i := range n.pages { // in order: keep must not depend on a map's
		if _, dirty := f.dirty[i]; dirty && keep() {
			n.pages[i] = pageAt(f.pages, i)
		}
	}
	if at := int(n.size % memPageBytes); at != 0 && n.pages[len(n.pages)-1] != nil {
		last := *n.pages[len(n.pages)-1] // kept from a time when the file was longer
		clear(last[at:])
		n.pages[len(n.pages)-1] = &last
	}
	n.durable, n.durableSize = slices.Clone(n.pages), n.size
	return n
}

type memHandle struct {
	fs       *Mem
	file     *memFile
	name     string
	pos      int64 // of Read and Write
	writable bool
	closed   bool
}

func (h *memHandle) Name() string { return h.name }

func (h *memHandle) err(op string, err error) error {
	return &fs.PathError{Op: op, Path: h.name, Err: err}
}

func (h *memHandle) ReadAt(p []byte, off int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.closed {
		return 0, h.err(OpRead, fs.ErrClosed)
	}
	return h.file.readAt(p, off)
}

func (h *memHandle) Read(p []byte) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.closed {
		return 0, h.err(OpRead, fs.ErrClosed)
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := h.file.readAt(p, h.pos)
	h.pos += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (h *memHandle) WriteAt(p []byte, off int64) (int, error) {
	if err := h.fs.mutate(OpWrite, h.name); err != nil {
		return 0, err
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	return h.write(p, off)
}

func (h *memHandle) Write(p []byte) (int, error) {
	if err := h.fs.mutate(OpWrite, h.name); err != nil {
		return 0, err
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	n, err := h.write(p, h.pos)
	h.pos += int64(n)
	return n, err
}

// write is bounded by the file system's capacity. REQUIRES: h.fs.mu.
func (h *memHandle) write(p []byte, off int64) (int, error) {
	switch {
	case h.closed:
		return 0, h.err(OpWrite, fs.ErrClosed)
	case !h.writable:
		return 0, h.err(OpWrite, syscall.EBADF)
	case off < 0:
		return 0, h.err(OpWrite, fs.ErrInvalid)
	}
	fits := len(p)
	if grow := off + int64(len(p)) - h.file.size; h.fs.capacity > 0 && grow > 0 {
		if room := max(h.fs.capacity-h.fs.used, 0); grow > room {
			fits = int(max(int64(len(p))-(grow-room), 0))
		}
	}
	if fits > 0 {
		old := h.file.size
		h.file.writeAt(p[:fits], off)
		h.fs.used += h.file.size - old
	}
	if fits < len(p) {
		return fits, h.err(OpWrite, syscall.ENOSPC)
	}
	return fits, nil
}

func (h *memHandle) Sync() error     { return h.sync(OpSync) }
func (h *memHandle) Datasync() error { return h.sync(OpDatasync) }

func (h *memHandle) sync(op string) error {
	if err := h.fs.mutate(op, h.name); err != nil {
		return err
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.closed {
		return h.err(op, fs.ErrClosed)
	}
	h.file.sync()
	return nil
}

func (h *memHandle) Truncate(size int64) error {
	if err := h.fs.mutate(OpTruncate, h.name); err != nil {
		return err
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	switch {
	case h.closed:
		return h.err(OpTruncate, fs.ErrClosed)
	case !h.writable || size < 0:
		return h.err(OpTruncate, fs.ErrInvalid)
	}
	if grow := size - h.file.size; h.fs.capacity > 0 && grow > max(h.fs.capacity-h.fs.used, 0) {
		return h.err(OpTruncate, syscall.ENOSPC)
	}
	h.fs.used += size - h.file.size
	h.file.truncate(size)
	return nil
}

func (h *memHandle) Size() (int64, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.closed {
		return 0, h.err(OpStat, fs.ErrClosed)
	}
	return h.file.size, nil
}

func (h *memHandle) Close() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.closed {
		return h.err("close", fs.ErrClosed)
	}
	h.closed = true
	return nil
}

// memInfo is the FileInfo of a node at the time of the call.
type memInfo struct {
	name     string
	size     int64
	dir      bool
	modified time.Time
}

func infoOf(name string, node memNode) memInfo {
	if f, ok := node.(*memFile); ok {
		return memInfo{name: name, size: f.size, modified: f.modified}
	}
	return memInfo{name: name, dir: true}
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) ModTime() time.Time { return i.modified }
func (i memInfo) IsDir() bool        { return i.dir }
func (i memInfo) Sys() any           { return nil }

func (i memInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o755
	}
	return 0o644
}
