// Package fsys is the file system of everything that must survive a crash: the
// operating system's, one in memory that can crash, and one that fails on
// demand.
//
// Durability is part of the interface's contract, because it is what callers
// are written against and what Mem takes away in a crash:
//
//   - Bytes written to a file are durable after Sync or Datasync of it returned.
//   - A name (created, renamed, removed) is durable after SyncDir of its
//     directory returned. Until then a crash may keep or lose it.
//   - A directory made by MkdirAll is durable when MkdirAll returns.
//   - After a failed Sync or Datasync nobody knows what is durable.
package fsys

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// FS is a file system. Names are paths as the operating system writes them. All
// methods may be called concurrently.
type FS interface {
	// OpenFile takes the os package's O_RDONLY, O_RDWR, O_CREATE, O_EXCL and
	// O_TRUNC. The errors match fs.ErrExist and fs.ErrNotExist.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	// Rename replaces newName if it exists. Both names are durable after
	// SyncDir of their directories.
	Rename(oldName, newName string) error
	Remove(name string) error
	// MkdirAll makes the directory and its parents, durably.
	MkdirAll(name string, perm fs.FileMode) error
	// ReadDir returns the entries sorted by name.
	ReadDir(name string) ([]fs.DirEntry, error)
	Stat(name string) (fs.FileInfo, error)
	// SyncDir makes the names in a directory durable.
	SyncDir(name string) error
	// Free is the number of bytes that may still be written under dir.
	Free(dir string) (bytes uint64, err error)
	// Lock takes the exclusive advisory lock of a file, which it creates and
	// which then holds our process id. Held by another process, or by this one,
	// it returns ErrLocked. The lock goes with Close, or with the process.
	Lock(name string) (io.Closer, error)
}

// File is an open file. ReadAt and WriteAt may be called concurrently.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Reader
	io.Writer
	io.Closer
	// Sync makes content and attributes durable.
	Sync() error
	// Datasync makes content, and the size where it changed, durable.
	Datasync() error
	Truncate(size int64) error
	Size() (int64, error)
	// Name is the name that the file was opened with; a Rename does not change it.
	Name() string
}

// ErrLocked says who holds a lock.
type ErrLocked struct {
	Name string
	PID  int // 0 if the holder did not write it yet
}

// Error names the holder and the remedy.
func (e ErrLocked) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("%s is locked by another process; stop it first", e.Name)
	}
	return fmt.Sprintf("%s is locked by process %d; stop it first", e.Name, e.PID)
}

// ReadFile reads a whole file.
func ReadFile(fsys FS, name string) ([]byte, error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// WriteFileAtomic replaces name by a file with the given content, durably: a
// crash leaves the old file or the new one, whole. It writes name + ".tmp"
// first, so a name has one writer at a time. An error leaves the old file,
// except one of SyncDir, after which either may be there.
func WriteFileAtomic(fsys FS, name string, data []byte, perm fs.FileMode) error {
	tmp := name + ".tmp"
	if err := writeSynced(fsys, tmp, data, perm); err != nil {
		_ = fsys.Remove(tmp) // the first error is the one to tell
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := fsys.Rename(tmp, name); err != nil {
		_ = fsys.Remove(tmp)
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := fsys.SyncDir(filepath.Dir(name)); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func writeSynced(fsys FS, name string, data []byte, perm fs.FileMode) error {
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
