package columnar

import (
	"cmp"
	"math"
	"slices"

	"github.com/tapehouse/tapehouse/internal/record"
)

// Part is one Parquet file of one partition.
type Part struct {
	Partition    int32 // the value of the partition column, days since 1970-01-01
	HasPartition bool  // false: the layout has no partition column, or its value is null
	Data         []byte
	Meta         FileMeta
}

// Builder gathers batches into Parquet files. One goroutine uses it at a time.
type Builder struct {
	layout *Layout
	groups map[int64]*group
	last   *group // the group appended to last
	spare  []*group
	rows   int
	// rowBytes is what a row of the last row group took in Parquet.
	rowBytes int
	key      record.Key
	stream   []byte // key's text
}

// nullPartition is the key of rows whose partition column is null; no date has
// this value.
const nullPartition = math.MinInt64

// spareGroups is how many groups' memory a builder keeps for reuse.
const spareGroups = 2

// group is the part of one partition: finished row groups, and rows gathered
// for the next.
type group struct {
	partition int64
	rows      int // gathered
	cols      []growing
	data      []byte
	done      []rowGroup
	total     int64 // rows of done
}

// growing is one column of the rows gathered.
type growing struct {
	ints      []int64
	codes     []uint32
	dict      dictionary
	nulls     []byte // 1 where null; nil as long as none is
	nullCount int
	remap     []uint32 // a batch's codes + 1 → ours
}

// NewBuilder returns an empty builder.
func (l *Layout) NewBuilder() *Builder {
	return &Builder{layout: l, groups: map[int64]*group{}}
}

// Layout is that of the batches which the builder takes.
func (b *Builder) Layout() *Layout { return b.layout }

// Rows returns how many rows Flush would write.
func (b *Builder) Rows() int { return b.rows }

// Bytes estimates the memory that the builder's rows take.
func (b *Builder) Bytes() int {
	n := 0
	for _, g := range b.groups {
		n += len(g.data)
		for i := range g.cols {
			c := &g.cols[i]
			n += 8*len(c.ints) + 4*len(c.codes) + len(c.nulls) + len(c.dict.data) + 20*c.dict.len()
		}
	}
	return n
}

// Append copies the batch's rows. REQUIRES: SetOrigin was called.
func (b *Builder) Append(batch *Batch) {
	if batch.Rows == 0 {
		return
	}
	if batch.key != b.key || b.stream == nil {
		b.key, b.stream = batch.key, []byte(batch.key.String())
	}
	b.rows += batch.Rows
	if b.layout.partition < 0 {
		b.appendRange(b.group(0), batch, 0, batch.Rows)
		return
	}
	v := &batch.cols[b.layout.partition]
	value := func(row int) int64 {
		if v.hasNull && v.nulls[row] != 0 {
			return nullPartition
		}
		return v.ints[row]
	}
	for from := 0; from < batch.Rows; {
		x := value(from)
		to := from + 1
		for to < batch.Rows && value(to) == x {
			to++
		}
		b.appendRange(b.group(x), batch, from, to)
		from = to
	}
}

func (b *Builder) group(partition int64) *group {
	if b.last != nil && b.last.partition == partition {
		return b.last
	}
	g := b.groups[partition]
	if g == nil {
		if n := len(b.spare); n > 0 {
			g, b.spare = b.spare[n-1], b.spare[:n-1]
		} else {
			g = &group{cols: make([]growing, len(b.layout.columns))}
			for i := range g.cols {
				if b.layout.columns[i].isString {
					g.cols[i].dict.init(8192)
				}
			}
		}
		g.partition = partition
		b.groups[partition] = g
	}
	b.last = g
	return g
}

// appendRange copies rows [from, to) of the batch, ending row groups as they
// fill.
func (b *Builder) appendRange(g *group, batch *Batch, from, to int) {
	for from < to {
		n := min(to-from, MaxRowGroupRows-g.rows)
		for i := range g.cols {
			b.appendColumn(&g.cols[i], batch, i, g.rows, from, from+n)
		}
		g.rows += n
		from += n
		if g.rows == MaxRowGroupRows {
			b.endRowGroup(g)
		}
	}
}

func (b *Builder) appendColumn(c *growing, batch *Batch, i, have, from, to int) {
	col := &b.layout.columns[i]
	n := to - from
	switch col.field.Derive {
	case record.RecordStream:
		code := c.dict.code(b.stream, have)
		c.codes = room(c.codes, n)
		for range n {
			c.codes = append(c.codes, code)
		}
		return
	case record.RecordOffset:
		c.ints = room(c.ints, n)
		for row := from; row < to; row++ {
			c.ints = append(c.ints, int64(batch.Offset(row)))
		}
		return
	case record.ArrivedAt:
		c.ints = room(c.ints, n)
		for range n {
			c.ints = append(c.ints, batch.arrivedAt)
		}
		return
	}
	v := &batch.cols[i]
	if col.field.Derive == record.EpochNanos {
		v = &batch.cols[col.from]
	}
	c.appendNulls(v, have, from, to)
	switch {
	case col.isString:
		c.appendStrings(v, have, from, to)
	case col.nanos:
		c.ints = room(c.ints, n)
		for _, ns := range v.ints[from:to] {
			c.ints = append(c.ints, floorMicros(ns))
		}
	default:
		c.ints = append(room(c.ints, n), v.ints[from:to]...)
	}
}

// room makes room for n more elements, doubling: append's own growth by a
// quarter would copy a column five times on its way to a full row group.
func room[T any](s []T, n int) []T {
	if cap(s)-len(s) >= n {
		return s
	}
	return slices.Grow(s, max(n, len(s)))
}

func (c *growing) appendNulls(v *vector, have, from, to int) {
	if !v.hasNull {
		if c.nulls != nil {
			c.nulls = append(c.nulls, make([]byte, to-from)...)
		}
		return
	}
	if c.nulls == nil {
		c.nulls = make([]byte, have, max(2*have, to-from))
	}
	for _, x := range v.nulls[from:to] {
		c.nulls = append(c.nulls, x)
		c.nullCount += int(x)
	}
}

// appendStrings translates the batch's codes. Entries that no row uses are left
// out, so that the statistics are exact.
func (c *growing) appendStrings(v *vector, have, from, to int) {
	if c.dict.len() >= stringEntriesMax || len(c.dict.data) >= stringBytesMax {
		c.dict.plain = true
	}
	rows := have + to - from
	c.remap = sized(c.remap, v.dict.len())
	remap := c.remap
	clear(remap)
	c.codes = room(c.codes, to-from)
	codes := c.codes[len(c.codes) : len(c.codes)+to-from]
	c.codes = c.codes[:len(c.codes)+to-from]
	translate := func(code uint32) uint32 {
		e := v.dict.list[code]
		m := c.dict.codeOf(v.dict.entry(code), e.key, e.long, rows) + 1
		remap[code] = m
		return m
	}
	if v.dict.len() == 1 && !v.hasNull {
		m := translate(0) - 1
		for i := range codes {
			codes[i] = m
		}
		return
	}
	if !v.hasNull {
		for i, code := range v.codes[from:to] {
			m := remap[code]
			if m == 0 {
				m = translate(code)
			}
			codes[i] = m - 1
		}
		return
	}
	for i, code := range v.codes[from:to] {
		if v.nulls[from+i] != 0 {
			codes[i] = 0
			continue
		}
		m := remap[code]
		if m == 0 {
			m = translate(code)
		}
		codes[i] = m - 1
	}
}

// endRowGroup encodes the rows gathered.
func (b *Builder) endRowGroup(g *group) {
	if g.rows == 0 {
		return
	}
	if len(g.data) == 0 {
		// As much as the rows of late took, so that it does not grow in steps.
		g.data = make([]byte, 0, 1<<12+g.rows*b.rowBytes*9/8)
		g.data = append(g.data, magic...)
	}
	e := b.layout.encoders.Get().(*encoder)
	data, rg := e.rowGroup(g.data, 0, g)
	b.layout.encoders.Put(e)
	b.rowBytes = min(1024, (len(data)-len(g.data))/g.rows+1)
	g.data = data
	g.done = append(g.done, rg)
	g.total += int64(g.rows)
	g.clear()
}

// clear forgets the rows gathered.
func (g *group) clear() {
	g.rows = 0
	for i := range g.cols {
		c := &g.cols[i]
		c.ints, c.codes, c.nulls, c.nullCount = c.ints[:0], c.codes[:0], nil, 0
		if c.dict.len() > 0 {
			c.dict.reset()
		}
	}
}

// Flush encodes everything appended since the last Flush into one Parquet file
// a partition, in ascending order of the partition, and empties the builder.
// The caller owns the parts.
func (b *Builder) Flush() ([]Part, error) {
	parts := make([]Part, 0, len(b.groups))
	for _, g := range b.groups {
		b.endRowGroup(g)
		f := *b.layout.footer
		f.groups, f.rows = g.done, g.total
		data := f.appendTo(g.data)
		p := Part{Data: data, Meta: f.meta(b.layout.schema.ID, int64(len(data)), nil)}
		if b.layout.partition >= 0 && g.partition != nullPartition {
			p.Partition, p.HasPartition = int32(g.partition), true
		}
		parts = append(parts, p)
		g.data, g.done, g.total = nil, nil, 0
		if len(b.spare) < spareGroups {
			b.spare = append(b.spare, g)
		}
	}
	clear(b.groups)
	b.last, b.rows = nil, 0
	slices.SortFunc(parts, func(x, y Part) int {
		if x.HasPartition != y.HasPartition {
			if y.HasPartition {
				return -1
			}
			return 1
		}
		return cmp.Compare(x.Partition, y.Partition)
	})
	return parts, nil
}
