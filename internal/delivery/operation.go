package delivery

import (
	"encoding/binary"

	"github.com/tapehouse/tapehouse/internal/columnar"
)

// operation is what a record does to a table with keys.
type operation uint8

const (
	opInsert operation = iota
	opUpdate
	opDelete
	opNothing // an update or delete that came late: it only counts as received
)

// operations are Firehose's words for them; "" is what it takes for granted.
var operations = map[string]operation{"": opInsert, "insert": opInsert, "update": opUpdate, "delete": opDelete}

// removes reports whether it takes away the rows with the record's key.
func (o operation) removes() bool { return o == opUpdate || o == opDelete }

// change is what one document does: order is its place among all changes that
// its frame has for the table.
type change struct {
	order int32
	op    operation
}

// Flags of a section.
const (
	sectionConflict = 1
	sectionChanges  = 2
)

func (c *stagedSection) flags() (f byte) {
	if c.Conflict {
		f |= sectionConflict
	}
	if c.Changes != nil {
		f |= sectionChanges
	}
	return f
}

func appendChanges(dst []byte, list []change) []byte {
	last := int32(0)
	for _, c := range list {
		dst = binary.AppendUvarint(dst, uint64(c.order-last)<<2|uint64(c.op))
		last = c.order
	}
	return dst
}

func (r *payloadReader) changes(n int) []change {
	out := make([]change, 0, min(n, columnar.MaxDocs))
	last := int32(0)
	for ; n > 0 && r.err == nil; n-- {
		v := r.count(columnar.MaxDocs << 2)
		c := change{order: last + int32(v>>2), op: operation(v & 3)}
		if c.order >= columnar.MaxDocs || c.order < last {
			r.fail("change %d follows %d", c.order, last)
		}
		last = c.order
		out = append(out, c)
	}
	return out
}
