//go:build !linux

package demo

import "syscall"

// childAttributes has nothing to ask of other systems: Ctrl-C reaches the server
// too, which drains as well.
func childAttributes() *syscall.SysProcAttr { return nil }
