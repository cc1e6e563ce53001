package delivery

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/ledger"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/internal/wal"
)

// The kinds of payloads that this package writes itself; columnar's are below
// them. docs/formats/frame.md draws them all.
const (
	payloadPlain  uint8 = 3 // records as they came, whatever they hold
	payloadStaged uint8 = 4 // what processing made of the frame at the same offsets
	payloadGap    uint8 = 5 // nothing: the records at these offsets were not for the stage
)

const payloadVersion = 1

// errPayload is the root of errors about payload bytes that do not hold what
// docs/formats/frame.md says.
var errPayload = errors.New("malformed payload")

// appendPlain appends the payload of records as they came.
func appendPlain(dst []byte, docs Docs) []byte {
	dst = append(dst, payloadVersion)
	dst = binary.AppendUvarint(dst, uint64(len(docs.Ends)))
	from := int32(0)
	for _, end := range docs.Ends {
		dst = appendBytes(dst, docs.Arena[from:end])
		from = end
	}
	return dst
}

// readPlain returns the records of a plain payload; they alias it.
func readPlain(payload []byte, count int) ([][]byte, error) {
	r := payloadReader{b: payload}
	r.version()
	if n := r.count(count); r.err == nil && n != count {
		r.fail("%d records in a frame of %d", n, count)
	}
	out := make([][]byte, 0, count)
	for range count {
		out = append(out, r.bytes())
	}
	return out, r.end()
}

// kindReplay marks a frame whose records were replayed: before the payload it
// says which earlier records they stand for.
const kindReplay uint8 = 0x40

// replayed is an earlier record that a record of the frame stands for.
type replayed struct {
	Key      record.Key
	Offset   record.Offset
	Resolves *ledger.Reject // what the earlier record was, if it was rejected
}

// appendReplayed appends what stands before the payload of a replay's frame.
func appendReplayed(dst []byte, list []replayed) []byte {
	dst = append(dst, payloadVersion)
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for i := range list {
		r := &list[i]
		dst = appendBytes(dst, r.Key.String())
		dst = binary.AppendUvarint(dst, uint64(r.Offset))
		if r.Resolves == nil {
			dst = append(dst, 0)
			continue
		}
		x := r.Resolves
		flags := byte(1)
		if x.HasSequence {
			flags |= 2
		}
		dst = append(dst, flags)
		dst = appendBytes(appendBytes(dst, x.Source), x.Session)
		dst = binary.AppendVarint(binary.AppendVarint(dst, x.Epoch), x.Sequence)
	}
	return dst
}

// frame is a frame of the log, without what marks a replay.
type frame struct {
	wal.Frame
	replays []replayed
}

// open takes the mark of a replay off a frame.
func openFrame(f wal.Frame) (frame, error) {
	out := frame{Frame: f}
	if f.Kind&kindReplay == 0 {
		return out, nil
	}
	r := payloadReader{b: f.Payload}
	r.version()
	for n := r.count(replayDocsMax); n > 0 && r.err == nil; n-- {
		out.replays = append(out.replays, r.replayed())
	}
	if r.err != nil {
		return out, fmt.Errorf("frame at offset %d: %w", f.First, r.err)
	}
	out.Kind, out.Payload = f.Kind&^kindReplay, r.b
	return out, nil
}

func (r *payloadReader) replayed() replayed {
	var x replayed
	key, err := record.ParseKey(string(r.bytes()))
	if err != nil {
		r.fail("%v", err)
	}
	x.Key, x.Offset = key, record.Offset(r.count(math.MaxInt))
	if flags := r.byte(); flags&1 != 0 {
		x.Resolves = &ledger.Reject{HasSequence: flags&2 != 0, Offset: x.Offset}
		x.Resolves.Source, x.Resolves.Session = string(r.bytes()), string(r.bytes())
		x.Resolves.Epoch, x.Resolves.Sequence = r.varint(), r.varint()
	}
	return x
}

func (r *payloadReader) varint() int64 {
	v, n := binary.Varint(r.b)
	if r.err != nil || n <= 0 {
		r.fail("it ends early")
		return 0
	}
	r.b = r.b[n:]
	return v
}

// effect begins what the frame does to the ledger.
func (f *frame) effect(k record.Key) ledger.Effect {
	return ledger.Effect{Key: k, First: f.First, Count: int(f.Count), Replayed: effects(f.replays)}
}

func effects(list []replayed) []ledger.Replayed {
	out := make([]ledger.Replayed, len(list))
	for i, r := range list {
		out[i] = ledger.Replayed(r)
	}
	return out
}

// read calls fn for the frames of a key from an offset on, as wal.Log.Read does.
func (m *Manager) read(ctx context.Context, k record.Key, from record.Offset, fn func(frame) error) error {
	return m.o.Log.Read(ctx, k, from, func(f wal.Frame) error {
		opened, err := openFrame(f)
		if err != nil {
			return err
		}
		return fn(opened)
	})
}

// What processing made of a record.
const (
	stagedDocument uint8 = 1 // a document for an object destination
	stagedFailed   uint8 = 2 // processing failed: it goes to the error output
	stagedDropped  uint8 = 3 // a rule dropped it
)

// stagedEntry is what processing made of the record at Place of its frame,
// where that is not a row of a table. A record may have several documents.
type stagedEntry struct {
	Place         int
	Kind          uint8
	Data          []byte            // of a document
	Keys          map[string]string // of a document: partition keys
	Code, Message string            // of a failure
}

// stagedSection holds the rows of one table among a frame's records.
type stagedSection struct {
	Table    catalog.Name
	Conflict bool    // its records bear known keys with other content
	Places   []int32 // the place in the frame of each of the payload's documents
	Kind     uint8   // of Payload, as columnar has it
	Payload  []byte
	// Changes says what each document does, of a table with keys; nil: all are
	// rows, in their order.
	Changes []change
}

type staged struct {
	Entries  []stagedEntry
	Sections []stagedSection
}

// append appends the payload of a frame of count records.
func (s *staged) append(dst []byte, count int) []byte {
	dst = append(dst, payloadVersion)
	dst = binary.AppendUvarint(dst, uint64(count))
	dst = binary.AppendUvarint(dst, uint64(len(s.Entries)))
	for i := range s.Entries {
		e := &s.Entries[i]
		dst = binary.AppendUvarint(dst, uint64(e.Place))
		dst = append(dst, e.Kind)
		switch e.Kind {
		case stagedDocument:
			dst = binary.AppendUvarint(dst, uint64(len(e.Keys)))
			for _, k := range slices.Sorted(maps.Keys(e.Keys)) {
				dst = appendBytes(appendBytes(dst, k), e.Keys[k])
			}
			dst = appendBytes(dst, e.Data)
		case stagedFailed:
			dst = appendBytes(appendBytes(dst, e.Code), e.Message)
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(s.Sections)))
	for i := range s.Sections {
		c := &s.Sections[i]
		dst = append(dst, c.flags())
		dst = appendBytes(appendBytes(dst, c.Table.Namespace), c.Table.Table)
		dst = binary.AppendUvarint(dst, uint64(len(c.Places)))
		last := int32(0)
		for _, p := range c.Places { // ascending, a place may repeat
			dst = binary.AppendUvarint(dst, uint64(p-last))
			last = p
		}
		dst = append(dst, c.Kind)
		dst = appendBytes(dst, c.Payload)
		dst = appendChanges(dst, c.Changes)
	}
	return dst
}

// readStaged reads a staged payload; its bytes are aliased.
func readStaged(payload []byte, count int) (staged, error) {
	var s staged
	r := payloadReader{b: payload}
	r.version()
	if n := r.count(columnar.MaxDocs); r.err == nil && n != count {
		r.fail("%d records in a frame of %d", n, count)
	}
	for n := r.count(len(payload)); n > 0 && r.err == nil; n-- {
		s.Entries = append(s.Entries, r.entry(count))
	}
	for n := r.count(len(payload)); n > 0 && r.err == nil; n-- {
		s.Sections = append(s.Sections, r.section(count))
	}
	return s, r.end()
}

func (r *payloadReader) entry(count int) stagedEntry {
	e := stagedEntry{Place: r.count(count - 1), Kind: r.byte()}
	switch e.Kind {
	case stagedDocument:
		if n := r.count(len(r.b)); n > 0 {
			e.Keys = make(map[string]string, min(n, 64))
			for ; n > 0 && r.err == nil; n-- {
				k := r.bytes()
				e.Keys[string(k)] = string(r.bytes())
			}
		}
		e.Data = r.bytes()
	case stagedFailed:
		e.Code, e.Message = string(r.bytes()), string(r.bytes())
	case stagedDropped:
	default:
		r.fail("unknown entry %d", e.Kind)
	}
	return e
}

func (r *payloadReader) section(count int) stagedSection {
	flags := r.byte()
	if flags&^(sectionConflict|sectionChanges) != 0 {
		r.fail("unknown flags %#x of a section", flags)
	}
	c := stagedSection{Conflict: flags&sectionConflict != 0}
	c.Table = catalog.Name{Namespace: string(r.bytes()), Table: string(r.bytes())}
	n := r.count(len(r.b))
	c.Places = make([]int32, 0, min(n, columnar.MaxDocs))
	last := 0
	for ; n > 0 && r.err == nil; n-- {
		if last += r.count(count - 1); last >= count {
			r.fail("place %d in a frame of %d records", last, count)
		}
		c.Places = append(c.Places, int32(last))
	}
	c.Kind = r.byte()
	c.Payload = r.bytes()
	if flags&sectionChanges != 0 {
		c.Changes = r.changes(len(c.Places))
	}
	return c
}

func appendBytes[T []byte | string](dst []byte, s T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// payloadReader reads what append wrote and remembers its first error.
type payloadReader struct {
	b   []byte
	err error
}

func (r *payloadReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", errPayload, fmt.Sprintf(format, args...))
	}
}

func (r *payloadReader) version() {
	if v := r.byte(); r.err == nil && v != payloadVersion {
		r.fail("version %d, this program reads %d", v, payloadVersion)
	}
}

func (r *payloadReader) byte() byte {
	if r.err != nil || len(r.b) == 0 {
		r.fail("it ends early")
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

// count reads a number of at most most.
func (r *payloadReader) count(most int) int {
	v, n := binary.Uvarint(r.b)
	if r.err != nil || n <= 0 {
		r.fail("it ends early")
		return 0
	}
	if v > uint64(max(most, 0)) {
		r.fail("%d where at most %d is possible", v, most)
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}

func (r *payloadReader) bytes() []byte {
	n := r.count(len(r.b))
	if r.err != nil || n > len(r.b) {
		r.fail("it ends early")
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *payloadReader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes follow its end", len(r.b))
	}
	return r.err
}
