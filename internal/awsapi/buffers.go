package awsapi

import "math/bits"

// SlackBytes is the room behind the length of a pooled buffer: decoders that
// work on whole vectors may read and write that far past the end.
const SlackBytes = 64

const (
	classSmallest = 16 // 64 KiB
	classLargest  = 24 // 16 MiB
)

// Buffers is a pool of byte buffers in classes of powers of two. Unlike a
// sync.Pool it survives garbage collections: on virtual machines the first
// touch of a page costs microseconds, so a buffer that is warm is worth
// keeping. It is safe for concurrent use.
type Buffers struct {
	classes [classLargest - classSmallest + 1]chan []byte
}

// NewBuffers returns a pool that keeps at most retainBytes in each of its nine
// classes, and at least one buffer.
func NewBuffers(retainBytes int) *Buffers {
	p := &Buffers{}
	for i := range p.classes {
		p.classes[i] = make(chan []byte, min(256, max(1, retainBytes>>(classSmallest+i))))
	}
	return p
}

// Get returns an empty buffer with room for n bytes and SlackBytes more. Its
// content beyond its length is arbitrary.
func (p *Buffers) Get(n int) []byte {
	class := max(classSmallest, bits.Len(uint(max(n, 1)-1)))
	if class > classLargest {
		return make([]byte, 0, n+SlackBytes)
	}
	select {
	case b := <-p.classes[class-classSmallest]:
		return b
	default:
		return make([]byte, 0, 1<<class+SlackBytes)
	}
}

// Put gives a buffer back. The caller must not use it afterwards. A buffer
// that is not one of Get's, or that grew, is left to the garbage collector.
func (p *Buffers) Put(b []byte) {
	n := cap(b) - SlackBytes
	if n < 1<<classSmallest || n > 1<<classLargest || n&(n-1) != 0 {
		return
	}
	select {
	case p.classes[bits.Len(uint(n))-1-classSmallest] <- b[:0]:
	default:
	}
}
