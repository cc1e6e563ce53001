package awsapi

import (
	"context"
	"net"
	"syscall"
)

type connKey struct{}

// ConnContext is for http.Server: it lets a Mux tell the kernel how many bytes
// it waits for.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	tcp, ok := c.(*net.TCPConn)
	if !ok { // under TLS, the kernel's bytes are not the body's
		return ctx
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, connKey{}, &lowWater{raw: raw})
}

// lowWater sets a socket's SO_RCVLOWAT, below which the kernel wakes nobody: a
// body of 200 KB comes in pieces, each of which would wake a thread.
type lowWater struct {
	raw syscall.RawConn
	set int
}

func lowWaterOf(ctx context.Context) *lowWater {
	w, _ := ctx.Value(connKey{}).(*lowWater)
	return w
}

// lowWaterMin is a mark that is worth a system call.
const lowWaterMin = 16 << 10

// want makes reads wait for n bytes, or for a few if n is small. It must not be
// more than what is to come.
func (w *lowWater) want(n int) {
	if w == nil {
		return
	}
	if n < lowWaterMin {
		n = 1
	}
	if n == w.set || n == 1 && w.set == 0 {
		return
	}
	_ = w.raw.Control(func(fd uintptr) {
		if syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, n) == nil {
			w.set = n
		}
	})
}
