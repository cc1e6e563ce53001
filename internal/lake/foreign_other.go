//go:build !unix

package lake

import (
	"fmt"
	"io/fs"
)

const openNonblock = 0

func notADirectory(error) bool { return false }

// localVersion is what a file is known by.
func localVersion(fi fs.FileInfo) string { return fmt.Sprintf("%x", fi.ModTime().UnixNano()) }
