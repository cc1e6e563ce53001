//go:build !linux

package fsys

import "os"

// datasync is a full sync: on darwin os.File.Sync asks the drive to flush its
// cache (F_FULLFSYNC), which fdatasync would not.
func datasync(f *os.File) error { return f.Sync() }
