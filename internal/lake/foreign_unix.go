//go:build unix

package lake

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// openNonblock keeps an open from waiting for the other end of a pipe that took
// a file's place.
const openNonblock = syscall.O_NONBLOCK

func notADirectory(err error) bool { return errors.Is(err, syscall.ENOTDIR) }

// localVersion is what a file is known by: another file of the same name has
// another one, and so has the same file when it was written to. The time of the
// last change of its entry is not part of it, because a second name changes it.
func localVersion(fi fs.FileInfo) string {
	var device, inode uint64
	if s, ok := fi.Sys().(*syscall.Stat_t); ok {
		device, inode = uint64(s.Dev), uint64(s.Ino) //nolint:unconvert // their types differ between systems
	}
	return fmt.Sprintf("%x-%x-%x", device, inode, fi.ModTime().UnixNano())
}
