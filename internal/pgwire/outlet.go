package pgwire

import (
	"encoding/binary"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// A message may have at most 1 GiB, as in PostgreSQL (MaxAllocSize); clients
// give up beyond.
const sendMessageSizeBytesMax = 1<<30 - 1

// An outlet is the send buffer of one connection. After the first error of the
// socket everything is dropped: the error is sticky.
type outlet struct {
	socket    net.Conn
	buf       []byte
	sizeBytes int // write out from here on
	timeout   time.Duration
	sent      func(n int)
	err       error
}

// send appends a message to the buffer.
func (o *outlet) send(m pgproto3.BackendMessage) error {
	buf, err := m.Encode(o.buf)
	if err != nil {
		return errorf(codeLimitExceeded, "message too long")
	}
	o.buf = buf
	return nil
}

// begin appends the header of a message; end fills in the length.
func (o *outlet) begin(kind byte) (start int) {
	start = len(o.buf)
	o.buf = append(o.buf, kind, 0, 0, 0, 0)
	return start
}

// end completes the message that began at start, and takes it back if it is
// too long or if the making of it failed.
func (o *outlet) end(start int, err error) error {
	size := len(o.buf) - start - 1
	if err == nil && size > sendMessageSizeBytesMax {
		err = errorf(codeLimitExceeded, "row of %d bytes exceeds the limit of %d bytes", size, sendMessageSizeBytesMax)
	}
	if err != nil {
		o.buf = o.buf[:start]
		return err
	}
	binary.BigEndian.PutUint32(o.buf[start+1:], uint32(size))
	return nil
}

// drain writes the buffer out if it is full.
func (o *outlet) drain() error {
	if len(o.buf) < o.sizeBytes {
		return nil
	}
	return o.flush()
}

// flush writes the buffer out; it waits for the client, up to the time-out.
func (o *outlet) flush() error {
	if o.err == nil && len(o.buf) > 0 {
		if o.timeout > 0 {
			o.err = o.socket.SetWriteDeadline(time.Now().Add(o.timeout))
		}
		if o.err == nil {
			var n int
			n, o.err = o.socket.Write(o.buf)
			o.sent(n)
		}
	}
	// One row of many megabytes must not pin its buffer for the connection's life.
	if cap(o.buf) > 4*o.sizeBytes {
		o.buf = make([]byte, 0, o.sizeBytes)
	}
	o.buf = o.buf[:0]
	if o.err != nil {
		return &socketError{"write to", o.err}
	}
	return nil
}
