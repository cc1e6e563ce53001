package demo

import "syscall"

// childAttributes put the server into a process group of its own, so that
// Ctrl-C reaches the demo alone, which then stops the server in order; and let
// the kernel end it if the demo dies.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
