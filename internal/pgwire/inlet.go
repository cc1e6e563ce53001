package pgwire

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	inletChunkSizeBytes = 16 << 10
	// One chunk is with the reader, one waits, one is being filled: so much is
	// read ahead of what the session has asked for, and no more.
	inletChunks = 3
	// A body buffer that grew beyond this is given back after its message.
	bodySizeBytesKept = 256 << 10
	// The bound of messages that carry names and flags only, as PostgreSQL's
	// PQ_SMALL_MESSAGE_LIMIT.
	smallMessageSizeBytes = 10_000
	frameHeaderSizeBytes  = 5
)

var (
	errStop        = errors.New("asked to stop between messages")
	errWaitTimeout = errors.New("no message in time")
)

// An inlet reads a socket ahead of the session, so that the end of the
// connection is seen while a statement runs, and cuts the bytes into messages.
// Its pump is one goroutine; all other methods belong to the session's.
//
// A message that is interrupted by a time-out or a cancelled context is
// resumed by the next call of next.
type inlet struct {
	socket        net.Conn
	bodySizeMax   int
	received      func(n int)
	onEnd         func(*inlet) // once, from the pump: nothing more will arrive
	full, free    chan []byte
	quit          chan struct{}
	done          chan struct{}
	closeOnce     sync.Once
	err           error        // of the socket; set before full is closed
	unread        atomic.Int64 // bytes that next has not consumed
	justTerminate atomic.Bool  // the last bytes received are a Terminate

	chunk, rest []byte // rest is what is left of chunk
	head        [frameHeaderSizeBytes]byte
	headLen     int
	body        []byte
	bodySize    int
}

func newInlet(socket net.Conn, bodySizeMax int, received func(int), onEnd func(*inlet)) *inlet {
	in := &inlet{
		socket: socket, bodySizeMax: bodySizeMax, received: received, onEnd: onEnd,
		full: make(chan []byte, 1), free: make(chan []byte, inletChunks),
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	for range inletChunks {
		in.free <- make([]byte, inletChunkSizeBytes)
	}
	go in.pump()
	return in
}

// close ends the pump. The socket must have been closed: it interrupts a read.
func (in *inlet) close() {
	in.closeOnce.Do(func() { close(in.quit) })
	<-in.done
}

var terminateFrame = [frameHeaderSizeBytes]byte{'X', 0, 0, 0, 4}

func (in *inlet) pump() {
	defer close(in.done)
	defer in.onEnd(in)
	defer close(in.full)
	for {
		var buf []byte
		select {
		case buf = <-in.free:
		case <-in.quit:
			return
		}
		n, err := in.socket.Read(buf[:cap(buf)])
		if n > 0 {
			in.received(n)
			in.justTerminate.Store(n >= len(terminateFrame) && [frameHeaderSizeBytes]byte(buf[n-len(terminateFrame):n]) == terminateFrame)
			in.unread.Add(int64(n))
			select {
			case in.full <- buf[:n]:
			case <-in.quit:
				return
			}
		}
		if err != nil {
			in.err = err
			return
		}
	}
}

// abandoned reports whether the client, which has closed its side, asked for
// nothing beyond the message in hand.
func (in *inlet) abandoned() bool {
	n := in.unread.Load()
	return n == 0 || n == frameHeaderSizeBytes && in.justTerminate.Load()
}

// fill makes rest non-empty. stop is heeded only between messages.
func (in *inlet) fill(ctx context.Context, timeout <-chan time.Time, stop <-chan struct{}) error {
	if in.chunk != nil {
		in.free <- in.chunk[:0]
		in.chunk = nil
	}
	if in.headLen > 0 {
		stop = nil
	}
	select { // what has arrived goes before reasons to leave
	case chunk, ok := <-in.full:
		return in.take(chunk, ok)
	default:
	}
	select {
	case chunk, ok := <-in.full:
		return in.take(chunk, ok)
	case <-timeout:
		return errWaitTimeout
	case <-stop:
		return errStop
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (in *inlet) take(chunk []byte, ok bool) error {
	if ok {
		in.chunk, in.rest = chunk, chunk
		return nil
	}
	err := in.err
	if err == nil {
		err = net.ErrClosed
	}
	if errors.Is(err, io.EOF) && in.headLen > 0 {
		err = io.ErrUnexpectedEOF
	}
	return &socketError{"read from", err}
}

func (in *inlet) consume(n int) []byte {
	b := in.rest[:n]
	in.rest = in.rest[n:]
	in.unread.Add(int64(-n))
	return b
}

// next returns the next message; body is valid until the next call. An error
// that is an *Error should be told to the client; a *socketError is the end.
func (in *inlet) next(ctx context.Context, timeout <-chan time.Time, stop <-chan struct{}) (kind byte, body []byte, err error) {
	for in.headLen < len(in.head) {
		if len(in.rest) == 0 {
			if err := in.fill(ctx, timeout, stop); err != nil {
				return 0, nil, err
			}
		}
		in.headLen += copy(in.head[in.headLen:], in.consume(min(len(in.rest), len(in.head)-in.headLen)))
		if in.headLen == len(in.head) {
			if err := in.begin(); err != nil {
				return 0, nil, err
			}
		}
	}
	for len(in.body) < in.bodySize {
		if len(in.rest) == 0 {
			if err := in.fill(ctx, timeout, nil); err != nil {
				return 0, nil, err
			}
		}
		in.body = append(in.body, in.consume(min(len(in.rest), in.bodySize-len(in.body)))...)
	}
	in.headLen = 0
	return in.head[0], in.body, nil
}

// begin checks a complete header and readies the body's buffer.
func (in *inlet) begin() error {
	kind := in.head[0]
	sizeMax := smallMessageSizeBytes
	switch kind {
	case 'Q', 'P', 'B', 'd', 'F':
		sizeMax = in.bodySizeMax
	case 'C', 'D', 'E', 'H', 'S', 'X', 'c', 'f', 'p':
	default:
		return fatalf(codeProtocolViolation, "invalid frontend message type %d", kind)
	}
	size := int64(binary.BigEndian.Uint32(in.head[1:])) - 4
	if size < 0 {
		return fatalf(codeProtocolViolation, "invalid message length")
	}
	if size > int64(sizeMax) {
		return &Error{Severity: severityFatal, Code: codeProtocolViolation, Message: "invalid message length",
			Detail: "The message is longer than this server accepts.", Hint: "Send large data by COPY, or raise the server's limit of message size."}
	}
	if cap(in.body) > bodySizeBytesKept {
		in.body = nil
	}
	in.body, in.bodySize = in.body[:0], int(size)
	return nil
}
