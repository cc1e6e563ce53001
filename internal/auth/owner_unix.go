//go:build unix

package auth

import (
	"fmt"
	"os"
	"syscall"

	"github.com/tapehouse/tapehouse/internal/fsys"
)

// checkOwner refuses to replace a file that belongs to another user: the new
// one would belong to us, with mode 0600, and its owner's server could not read
// it any more.
func checkOwner(files fsys.FS, name string) error {
	info, err := files.Stat(name)
	if err != nil {
		return fmt.Errorf("change credentials: %w", err)
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(s.Uid) == os.Geteuid() {
		return nil
	}
	return fmt.Errorf("%s belongs to the user with the id %d, who runs the server: run this command as that user, for instance with sudo -u '#%d'", name, s.Uid, s.Uid)
}
