package fsys

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
)

// The operations that hooks and faults are told about. Those up to OpSyncDir
// change something; Mem counts only these.
const (
	OpCreate   = "create"   // OpenFile that makes a file, or cuts one with O_TRUNC
	OpWrite    = "write"    // Write and WriteAt
	OpTruncate = "truncate" // Truncate
	OpSync     = "sync"
	OpDatasync = "datasync"
	OpRename   = "rename" // named by the old name
	OpRemove   = "remove"
	OpMkdir    = "mkdir"
	OpSyncDir  = "syncdir"

	OpOpen    = "open" // OpenFile that does not make a file
	OpRead    = "read" // Read and ReadAt
	OpReadDir = "readdir"
	OpStat    = "stat"
	OpFree    = "free"
	OpLock    = "lock"
)

// Fault decides the fate of an operation: nil lets it happen, an error makes it
// fail without effect. A *ShortWrite returned for OpWrite lets the first N
// bytes through. n counts the calls of this op, from 1. It is called
// concurrently.
type Fault func(op, name string, n int) error

// ShortWrite is the fault of a write that stops half way.
type ShortWrite struct {
	N   int
	Err error // what the writer sees; io.ErrShortWrite if nil
}

// Error is the writer's error.
func (s *ShortWrite) Error() string { return s.Unwrap().Error() }

// Unwrap is the writer's error.
func (s *ShortWrite) Unwrap() error {
	if s.Err == nil {
		return io.ErrShortWrite
	}
	return s.Err
}

// NewFaulty returns fsys with faults put into it.
func NewFaulty(fsys FS, fault Fault) FS {
	return &faulty{fs: fsys, fault: fault, calls: map[string]int{}}
}

type faulty struct {
	fs    FS
	fault Fault

	mu    sync.Mutex
	calls map[string]int
}

func (f *faulty) check(op, name string) error {
	f.mu.Lock()
	f.calls[op]++
	n := f.calls[op]
	f.mu.Unlock()
	return f.fault(op, name, n)
}

func (f *faulty) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	op := OpOpen
	if flag&os.O_TRUNC != 0 {
		op = OpCreate
	} else if flag&os.O_CREATE != 0 {
		if _, err := f.fs.Stat(name); errors.Is(err, fs.ErrNotExist) {
			op = OpCreate
		}
	}
	if err := f.check(op, name); err != nil {
		return nil, err
	}
	inner, err := f.fs.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &faultyFile{inner, f}, nil
}

func (f *faulty) Rename(oldName, newName string) error {
	if err := f.check(OpRename, oldName); err != nil {
		return err
	}
	return f.fs.Rename(oldName, newName)
}

func (f *faulty) Remove(name string) error {
	if err := f.check(OpRemove, name); err != nil {
		return err
	}
	return f.fs.Remove(name)
}

func (f *faulty) MkdirAll(name string, perm fs.FileMode) error {
	if err := f.check(OpMkdir, name); err != nil {
		return err
	}
	return f.fs.MkdirAll(name, perm)
}

func (f *faulty) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := f.check(OpReadDir, name); err != nil {
		return nil, err
	}
	return f.fs.ReadDir(name)
}

func (f *faulty) Stat(name string) (fs.FileInfo, error) {
	if err := f.check(OpStat, name); err != nil {
		return nil, err
	}
	return f.fs.Stat(name)
}

func (f *faulty) SyncDir(name string) error {
	if err := f.check(OpSyncDir, name); err != nil {
		return err
	}
	return f.fs.SyncDir(name)
}

func (f *faulty) Free(dir string) (uint64, error) {
	if err := f.check(OpFree, dir); err != nil {
		return 0, err
	}
	return f.fs.Free(dir)
}

func (f *faulty) Lock(name string) (io.Closer, error) {
	if err := f.check(OpLock, name); err != nil {
		return nil, err
	}
	return f.fs.Lock(name)
}

type faultyFile struct {
	File
	fs *faulty
}

func (f *faultyFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.fs.check(OpRead, f.Name()); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f *faultyFile) Read(p []byte) (int, error) {
	if err := f.fs.check(OpRead, f.Name()); err != nil {
		return 0, err
	}
	return f.File.Read(p)
}

// write lets through what the fault leaves of p.
func (f *faultyFile) write(p []byte, to func([]byte) (int, error)) (int, error) {
	err := f.fs.check(OpWrite, f.Name())
	var short *ShortWrite
	switch {
	case err == nil:
		return to(p)
	case errors.As(err, &short):
		n, werr := to(p[:min(max(short.N, 0), len(p))])
		if werr != nil {
			return n, werr
		}
		return n, short.Unwrap()
	}
	return 0, err
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	return f.write(p, func(p []byte) (int, error) { return f.File.WriteAt(p, off) })
}

func (f *faultyFile) Write(p []byte) (int, error) { return f.write(p, f.File.Write) }

func (f *faultyFile) Sync() error {
	if err := f.fs.check(OpSync, f.Name()); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultyFile) Datasync() error {
	if err := f.fs.check(OpDatasync, f.Name()); err != nil {
		return err
	}
	return f.File.Datasync()
}

func (f *faultyFile) Truncate(size int64) error {
	if err := f.fs.check(OpTruncate, f.Name()); err != nil {
		return err
	}
	return f.File.Truncate(size)
}
