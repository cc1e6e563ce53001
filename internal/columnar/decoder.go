package columnar

import (
	"math"
	"slices"
	"unsafe"
)

// Decoder turns documents into batches. One goroutine uses it at a time; the
// caller pools decoders, because they learn: the members' order, minutes,
// sessions.
type Decoder struct {
	layout  *Layout
	program *program // ours: its ops remember times
	parser  parser
	inexact bool // the scanner lost digits, or members, of the document at hand
	loose   bool // the scanner found its members in another order than the program's

	givenUp int // documents that the scanner left to the general parser

	// Members' order as the general parser last saw it, and how many documents
	// in a row had it.
	order  []int
	streak int

	trade []trade
	// Decisions that a raw payload carried, by trade-date column and document;
	// nil outside its replay.
	decided [][]int64
}

// trade is a trade-date column with the calendar's last answer for it.
type trade struct {
	col, from       int
	nanos, optional bool   // of the column it reads
	start, length   uint64 // ns; length 0: no answer yet
	date            int64
	inside          bool
}

// undecided stands in a raw payload for a document without a trade date.
const undecided = math.MinInt32

// learnAfter is how many documents in a row must have come in another members'
// order before the scanner is compiled anew for it.
const learnAfter = 8

// NewDecoder returns a decoder for the layout.
func (l *Layout) NewDecoder() *Decoder {
	d := &Decoder{layout: l}
	for _, i := range l.trade {
		from := l.columns[i].from
		d.trade = append(d.trade, trade{col: i, from: from, nanos: l.columns[from].nanos, optional: !l.columns[from].required})
	}
	d.program = l.compileProgram(l.json)
	d.parser.seen = make([]uint32, len(l.columns))
	return d
}

// Decode decodes the documents arena[0:ends[0]], arena[ends[0]:ends[1]], …, one
// JSON object each, white space around it allowed. It never fails: documents
// that make no row become Rejects. arrivedAt is in µs UTC.
//
// The batch aliases arena until Release. If cap(arena) exceeds len(arena) by
// Slack or more, the bytes in between are read (and mean nothing), so nobody may
// write them meanwhile; otherwise arena is copied.
//
// REQUIRES: ends ascend within arena, len(ends) ≤ MaxDocs.
func (d *Decoder) Decode(arena []byte, ends []int32, arrivedAt int64) *Batch {
	b := d.layout.batch(len(ends), arrivedAt)
	from := int32(0)
	for _, to := range ends {
		b.spans = append(b.spans, span{from, to})
		from = to
	}
	d.decode(b, arena)
	return b
}

// DecodeDocs is Decode for documents that are not adjacent; it copies them.
// REQUIRES: len(docs) ≤ MaxDocs, less than 2 GiB in all.
func (d *Decoder) DecodeDocs(docs [][]byte, arrivedAt int64) *Batch {
	b := d.layout.batch(len(docs), arrivedAt)
	b.own = b.own[:0]
	for _, doc := range docs {
		from := len(b.own)
		b.own = append(b.own, doc...)
		b.spans = append(b.spans, span{int32(from), int32(len(b.own))})
	}
	b.own = slices.Grow(b.own, Slack)
	d.decode(b, b.own)
	return b
}

func (d *Decoder) decode(b *Batch, arena []byte) {
	if cap(arena)-len(arena) < Slack {
		b.own = append(b.own[:0], arena...)
		b.own = slices.Grow(b.own, Slack)
		arena = b.own
	}
	b.arena = arena
	base := unsafe.Pointer(unsafe.SliceData(arena))
	row := 0
	for i, s := range b.spans {
		start, end := int(s.from), int(s.to)
		// A line feed behind the object is usual; other white space is not.
		if end > start && arena[end-1] == '\n' {
			end--
		}
		b.Doc[row] = int32(i)
		d.inexact = false
		if d.scan(b, base, start, end, row) && d.derive(b, row, int32(i)) {
			b.Exact = b.Exact && !d.inexact
			if d.loose {
				d.learn()
			}
			row++
			continue
		}
		doc := arena[s.from:s.to:s.to]
		d.givenUp++
		if d.general(b, doc, row) {
			d.learn()
			row++
			continue
		}
		b.clearNulls(row)
		b.reject(d, doc, int32(i))
	}
	b.Rows = row
	b.seal()
}

// clearNulls takes back what a document given up has left in row.
func (b *Batch) clearNulls(row int) {
	for _, i := range b.layout.json {
		if v := &b.cols[i]; !b.layout.columns[i].required {
			v.nulls[row] = 0
		}
	}
	for _, i := range b.layout.trade {
		if v := &b.cols[i]; !b.layout.columns[i].required {
			v.nulls[row] = 0
		}
	}
}

// learn looks at the order in which the members were found, and compiles the
// scanner for it once it is seen to be the producer's habit.
func (d *Decoder) learn() {
	p := &d.parser
	if slices.Equal(p.order, d.program.order) {
		d.streak = 0
		return
	}
	if d.streak == 0 || !slices.Equal(p.order, d.order) {
		d.order = append(d.order[:0], p.order...)
		d.streak = 1
		return
	}
	if d.streak++; d.streak < learnAfter {
		return
	}
	d.streak = 0
	order := slices.Clone(p.order)
	for _, i := range d.layout.json { // Absent members are optional; they may come back.
		if !slices.Contains(order, i) {
			order = append(order, i)
		}
	}
	if !slices.Equal(order, d.program.order) {
		d.program = d.layout.compileProgram(order)
	}
}

// derive computes the trade dates of a row. It returns false, with the parser's
// fault set, if the time lies outside every session.
func (d *Decoder) derive(b *Batch, row int, doc int32) bool {
	for k := range d.trade {
		x := &d.trade[k]
		from := &b.cols[x.from]
		if x.optional && from.nulls[row] != 0 {
			b.setNull(x.col, row)
			continue
		}
		if d.decided != nil {
			date := d.decided[k][doc]
			if date == undecided {
				return d.outside(x)
			}
			b.cols[x.col].ints[row] = date
			continue
		}
		t := from.ints[row]
		if !x.nanos {
			if t > math.MaxInt64/1000 || t < math.MinInt64/1000 {
				return d.outside(x)
			}
			t *= 1000
		}
		if uint64(t)-x.start >= x.length {
			start, end, date, ok := d.layout.opts.Calendar.Interval(t)
			x.start, x.length, x.date, x.inside = uint64(start), uint64(end)-uint64(start), int64(date), ok
		}
		if !x.inside {
			return d.outside(x)
		}
		b.cols[x.col].ints[row] = x.date
	}
	return true
}

func (d *Decoder) outside(x *trade) bool {
	return d.parser.failMember(&d.layout.columns[x.from], OutsideSession, -1, "lies outside every session of the calendar")
}

// reject records the parser's fault.
func (b *Batch) reject(d *Decoder, doc []byte, i int32) {
	r := Reject{Doc: i, Code: d.parser.fault.code, Message: d.parser.fault.message(), Raw: doc}
	d.parser.salvage(d.layout, doc, &r, b.intern)
	b.Rejects = append(b.Rejects, r)
}

// salvageBytesMax bounds a source's or session's text that a bad document may make
// known: the ledger keeps it.
const salvageBytesMax = 1 << 10

// salvage looks for the sequence columns in a document that is rejected, as far
// as it can be read. intern makes strings that outlive the document.
func (p *parser) salvage(l *Layout, doc []byte, r *Reject, intern func([]byte) string) {
	if l.sequence < 0 {
		return
	}
	// In this order: source, session, epoch, sequence; what the layout lacks need
	// not be found.
	found := [4]bool{l.source < 0, l.session < 0, l.epoch < 0, false}
	p.doc, p.pos = doc, 0
	p.space()
	if p.peek() != '{' {
		return
	}
	for {
		p.pos++ // the brace or a comma
		p.space()
		key, ok := p.string(&p.key, "")
		if !ok {
			break
		}
		i, known := l.byName[string(key)]
		p.space()
		if p.peek() != ':' {
			break
		}
		p.pos++
		p.space()
		var text []byte
		quoted := p.peek() == '"'
		if quoted {
			text, ok = p.string(&p.scratch, "")
		} else {
			from := p.pos
			ok = p.skip(2)
			text = doc[from:p.pos]
		}
		if !ok {
			break
		}
		if known && (i == l.source || i == l.session) && quoted && len(text) <= salvageBytesMax {
			if i == l.source {
				found[0], r.Source = true, intern(text)
			} else {
				found[1], r.Session = true, intern(text)
			}
		}
		if known && (i == l.epoch || i == l.sequence) && len(text) > 0 && numberLength(text) == len(text) {
			if x, status := parseFixed(text, 0, math.MaxInt64, true); status == numberOK {
				if i == l.epoch {
					found[2], r.Epoch = true, x
				} else {
					found[3], r.Sequence = true, x
				}
			}
		}
		p.space()
		if p.peek() != ',' {
			break
		}
	}
	r.HasSequence = found == [4]bool{true, true, true, true}
}
