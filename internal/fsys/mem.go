package fsys

import (
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Mem is a file system in memory that remembers what is durable, so that a test
// can crash it between any two operations. See the package comment for what
// survives. All methods may be called concurrently.
type Mem struct {
	mu       sync.Mutex
	root     *memDir
	locks    map[string]bool
	ops      int
	hook     func(op, name string, n int) error
	capacity int64 // 0: unbounded
	used     int64 // sum of the sizes of the named files
}

var _ FS = (*Mem)(nil)

// memFreeUnbounded is what Free answers when no capacity is set.
const memFreeUnbounded = 1 << 50

// NewMem returns an empty file system.
func NewMem() *Mem { return &Mem{root: newMemDir(), locks: map[string]bool{}} }

// memNode is a *memFile or a *memDir.
type memNode interface{ isDir() bool }

// memDir is a directory: its names now, and those that are durable. pending
// leads from the second to the first.
type memDir struct {
	names, durable map[string]memNode
	pending        []dirOp
}

func newMemDir() *memDir {
	return &memDir{names: map[string]memNode{}, durable: map[string]memNode{}}
}

func (*memDir) isDir() bool { return true }

// dirOp is one atomic change of a directory: gone loses its node, then name
// gets node. Either may be "".
type dirOp struct {
	gone, name string
	node       memNode
}

func (o dirOp) apply(to map[string]memNode) {
	if o.gone != "" {
		delete(to, o.gone)
	}
	if o.name != "" {
		to[o.name] = o.node
	}
}

func (d *memDir) change(o dirOp) {
	o.apply(d.names)
	d.pending = append(d.pending, o)
}

// Ops is the number of mutating operations so far.
func (m *Mem) Ops() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ops
}

// SetHook makes hook run before each mutating operation; n is the operation's
// number, from 1. An error makes the operation fail without effect. The hook may
// call Crash. It is called concurrently if the operations are.
func (m *Mem) SetHook(hook func(op, name string, n int) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hook = hook
}

// SetCapacity bounds the sum of all file sizes; writes beyond fail with ENOSPC
// after writing what fits. 0 lifts the bound.
func (m *Mem) SetCapacity(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = bytes
}

// Crash returns what a machine would find after losing its power now. What was
// synced is there. Of the rest, by seed: nothing, everything, or a random
// subset of 4 KiB pages and a random prefix of each directory's changes. m
// itself goes on unharmed; its open files and locks do not exist in the copy.
func (m *Mem) Crash(seed uint64) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &crash{rng: rand.New(rand.NewPCG(seed, 0x7a9e)), files: map[*memFile]*memFile{}}
	switch seed % 4 {
	case 0:
		c.keep = func() bool { return false }
	case 1:
		c.keep = func() bool { return true }
	default:
		c.keep = func() bool { return c.rng.IntN(2) == 0 }
	}
	n := NewMem()
	n.capacity = m.capacity
	n.root = c.dir(m.root)
	n.used = n.root.size()
	return n
}

type crash struct {
	rng   *rand.Rand
	keep  func() bool
	files map[*memFile]*memFile // a file with two names stays one
}

func (c *crash) dir(d *memDir) *memDir {
	left := maps.Clone(d.durable)
	for _, o := range d.pending {
		if !c.keep() {
			break // journals keep order: what follows is lost too
		}
		o.apply(left)
	}
	n := newMemDir()
	for _, name := range slices.Sorted(maps.Keys(left)) {
		switch node := left[name].(type) {
		case *memDir:
			n.names[name] = c.dir(node)
		case *memFile:
			f, ok := c.files[node]
			if !ok {
				f = node.crash(c.keep)
				c.files[node] = f
			}
			n.names[name] = f
		}
	}
	n.durable = maps.Clone(n.names)
	return n
}

func (d *memDir) size() int64 {
	var sum int64
	for _, node := range d.names {
		switch node := node.(type) {
		case *memDir:
			sum += node.size()
		case *memFile:
			sum += node.size
		}
	}
	return sum
}

// mutate counts an operation and asks the hook.
func (m *Mem) mutate(op, name string) error {
	m.mu.Lock()
	m.ops++
	n, hook := m.ops, m.hook
	m.mu.Unlock()
	if hook == nil {
		return nil
	}
	if err := hook(op, name, n); err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

func memParts(name string) []string {
	name = strings.Trim(path.Clean(filepath.ToSlash(name)), "/")
	if name == "." || name == "" {
		return nil
	}
	return strings.Split(name, "/")
}

// lookup finds a node. REQUIRES: m.mu.
func (m *Mem) lookup(op, name string) (memNode, error) {
	var node memNode = m.root
	for _, part := range memParts(name) {
		d, ok := node.(*memDir)
		if !ok {
			return nil, &fs.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
		}
		if node, ok = d.names[part]; !ok {
			return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
	}
	return node, nil
}

// parent finds the directory that holds, or would hold, a name. REQUIRES: m.mu.
func (m *Mem) parent(op, name string) (*memDir, string, error) {
	parts := memParts(name)
	if len(parts) == 0 {
		return nil, "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	last := len(parts) - 1
	node, err := m.lookup(op, strings.Join(parts[:last], "/"))
	if err != nil {
		return nil, "", err
	}
	d, ok := node.(*memDir)
	if !ok {
		return nil, "", &fs.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
	}
	return d, parts[last], nil
}

// OpenFile implements FS.
func (m *Mem) OpenFile(name string, flag int, _ fs.FileMode) (File, error) {
	m.mu.Lock()
	_, err := m.lookup(OpOpen, name)
	m.mu.Unlock()
	creates := err != nil && flag&os.O_CREATE != 0
	if creates || (err == nil && flag&os.O_TRUNC != 0) {
		if err := m.mutate(OpCreate, name); err != nil {
			return nil, err
		}
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	node, err := m.lookup(OpOpen, name)
	switch {
	case err == nil && flag&(os.O_CREATE|os.O_EXCL) == os.O_CREATE|os.O_EXCL:
		return nil, &fs.PathError{Op: OpOpen, Path: name, Err: fs.ErrExist}
	case err != nil && !creates:
		return nil, err
	case err != nil:
		d, base, err := m.parent(OpOpen, name)
		if err != nil {
			return nil, err
		}
		node = &memFile{modified: time.Now()}
		d.change(dirOp{name: base, node: node})
	}
	f, ok := node.(*memFile)
	if !ok {
		return nil, &fs.PathError{Op: OpOpen, Path: name, Err: syscall.EISDIR}
	}
	writable := flag&(os.O_RDWR|os.O_WRONLY) != 0
	if flag&os.O_TRUNC != 0 && writable {
		m.used -= f.size
		f.truncate(0)
	}
	return &memHandle{fs: m, file: f, name: name, writable: writable}, nil
}

// Rename implements FS.
func (m *Mem) Rename(oldName, newName string) error {
	if err := m.mutate(OpRename, oldName); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	from, oldBase, err := m.parent(OpRename, oldName)
	if err != nil {
		return err
	}
	node, ok := from.names[oldBase]
	if !ok {
		return &fs.PathError{Op: OpRename, Path: oldName, Err: fs.ErrNotExist}
	}
	to, newBase, err := m.parent(OpRename, newName)
	if err != nil {
		return err
	}
	former, ok := to.names[newBase]
	if ok {
		if former == node {
			return nil
		}
		if former.isDir() {
			return &fs.PathError{Op: OpRename, Path: newName, Err: fs.ErrExist}
		}
		m.used -= former.(*memFile).size
	}
	if from == to {
		from.change(dirOp{gone: oldBase, name: newBase, node: node})
		return nil
	}
	from.change(dirOp{gone: oldBase})
	to.change(dirOp{name: newBase, node: node})
	return nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	if err := m.mutate(OpRemove, name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.parent(OpRemove, name)
	if err != nil {
		return err
	}
	switch node := d.names[base].(type) {
	case nil:
		return &fs.PathError{Op: OpRemove, Path: name, Err: fs.ErrNotExist}
	case *memDir:
		if len(node.names) != 0 {
			return &fs.PathError{Op: OpRemove, Path: name, Err: syscall.ENOTEMPTY}
		}
	case *memFile:
		m.used -= node.size
	}
	d.change(dirOp{gone: base})
	return nil
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(name string, _ fs.FileMode) error {
	m.mu.Lock()
	node, err := m.lookup(OpMkdir, name)
	m.mu.Unlock()
	if err == nil {
		if !node.isDir() {
			return &fs.PathError{Op: OpMkdir, Path: name, Err: syscall.ENOTDIR}
		}
		return nil
	}
	if err := m.mutate(OpMkdir, name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.root
	for _, part := range memParts(name) {
		node, ok := d.names[part]
		if !ok {
			node = newMemDir()
			// Durable at once, without waiting for the changes that came before.
			d.names[part], d.durable[part] = node, node
		}
		next, ok := node.(*memDir)
		if !ok {
			return &fs.PathError{Op: OpMkdir, Path: name, Err: syscall.ENOTDIR}
		}
		d = next
	}
	return nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(name string) error {
	if err := m.mutate(OpSyncDir, name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	node, err := m.lookup(OpSyncDir, name)
	if err != nil {
		return err
	}
	d, ok := node.(*memDir)
	if !ok {
		return &fs.PathError{Op: OpSyncDir, Path: name, Err: syscall.ENOTDIR}
	}
	d.durable, d.pending = maps.Clone(d.names), nil
	return nil
}

// ReadDir implements FS.
func (m *Mem) ReadDir(name string) ([]fs.DirEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	node, err := m.lookup(OpReadDir, name)
	if err != nil {
		return nil, err
	}
	d, ok := node.(*memDir)
	if !ok {
		return nil, &fs.PathError{Op: OpReadDir, Path: name, Err: syscall.ENOTDIR}
	}
	var out []fs.DirEntry
	for _, base := range slices.Sorted(maps.Keys(d.names)) {
		out = append(out, fs.FileInfoToDirEntry(infoOf(base, d.names[base])))
	}
	return out, nil
}

// Stat implements FS.
func (m *Mem) Stat(name string) (fs.FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	node, err := m.lookup(OpStat, name)
	if err != nil {
		return nil, err
	}
	return infoOf(filepath.Base(name), node), nil
}

// Free implements FS.
func (m *Mem) Free(string) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.capacity == 0 {
		return memFreeUnbounded, nil
	}
	return uint64(max(m.capacity-m.used, 0)), nil
}

// Lock implements FS. The lock file itself is not made: a test's directory
// stays as the code under test left it.
func (m *Mem) Lock(name string) (io.Closer, error) {
	key := strings.Join(memParts(name), "/")
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[key] {
		return nil, ErrLocked{Name: name, PID: os.Getpid()}
	}
	if _, _, err := m.parent(OpLock, name); err != nil {
		return nil, err
	}
	m.locks[key] = true
	return &memLock{m, key}, nil
}

type memLock struct {
	fs  *Mem
	key string
}

func (l *memLock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	if l.key == "" {
		return fs.ErrClosed
	}
	delete(l.fs.locks, l.key)
	l.key = ""
	return nil
}
