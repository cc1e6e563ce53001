package columnar

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"

	"github.com/klauspost/compress/zstd"

	"github.com/tapehouse/tapehouse/internal/record"
)

const (
	pageRows  = 1 << 17 // rows of a data page
	pageBytes = 1 << 20 // about where a page of plain strings ends
	// statBytes is how long a string may be in a chunk's statistics.
	statBytes = 128
	// stringEntriesMax and stringBytesMax bound a string column's dictionary in a
	// row group; beyond them its strings are written plainly.
	stringEntriesMax = 1 << 16
	stringBytesMax   = 1 << 20
)

// encoder writes row groups. One goroutine uses it at a time; layouts pool them
// because of zstd's and the dictionaries' memory.
type encoder struct {
	layout *Layout
	zstd   *zstd.Encoder

	raw    []byte // the pages of a chunk, not compressed
	comp   []byte // the same, compressed
	pages  []page
	codes  []uint32
	dense  []int64  // the values that are not null
	dcodes []uint32 // the codes of those

	numbers table // value → code, for numeric dictionaries
	values  []int64
	direct  []uint32 // value - min → code + 1, for small ranges
	sample  table
	counts  []int
	lengths []int64 // of a string dictionary's entries
	skip    []uint8 // by column: chunks for which compression is not tried
}

// page is a page of the chunk at hand: raw[from:to], comp[cfrom:cto].
type page struct {
	kind, values, encoding int
	from, to, cfrom, cto   int
}

func newEncoder(l *Layout) *encoder {
	level := zstd.EncoderLevel(max(1, l.opts.ZstdLevel))
	// The options are constants of the package, so no error can come back.
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic("columnar: zstd refuses its options: " + err.Error())
	}
	e := &encoder{layout: l, zstd: z, direct: make([]uint32, directRange), skip: make([]uint8, len(l.columns))}
	e.numbers.init(1 << 12)
	e.sample.init(1 << 10)
	return e
}

// rowGroup appends the group's column chunks to dst, whose first byte stands at
// offset base of the file.
func (e *encoder) rowGroup(dst []byte, base int64, g *group) ([]byte, rowGroup) {
	rg := rowGroup{rows: int64(g.rows), chunks: make([]chunk, len(g.cols))}
	for i := range g.cols {
		c := &rg.chunks[i]
		col, v := &e.layout.columns[i], &g.cols[i]
		*c = chunk{physical: physicalType(col.field.Type), path: []string{col.field.Name}, values: int64(g.rows), nulls: int64(v.nullCount), stringBytes: -1}
		if !col.field.Required {
			c.levels = []int64{c.nulls, c.values - c.nulls}
		}
		e.raw, e.pages = e.raw[:0], e.pages[:0]
		switch {
		case col.isString:
			e.stringColumn(c, col, v, g.rows)
		case col.field.Type.Kind == record.Boolean:
			e.booleanColumn(c, col, v, g.rows)
		default:
			e.numberColumn(c, col, v, g.rows)
		}
		dst = e.emit(dst, base, c, i)
	}
	return dst, rg
}

// hopeless is for how many chunks of a column compression is not tried after
// it did not pay.
const hopeless = 15

// emit appends the chunk's pages to dst, compressed if that pays.
func (e *encoder) emit(dst []byte, base int64, c *chunk, col int) []byte {
	c.codec = codecNone
	if e.skip[col] > 0 {
		e.skip[col]--
	} else {
		e.comp = e.comp[:0]
		for i := range e.pages {
			p := &e.pages[i]
			p.cfrom = len(e.comp)
			e.comp = e.zstd.EncodeAll(e.raw[p.from:p.to], e.comp)
			p.cto = len(e.comp)
		}
		if len(e.comp) < len(e.raw)-len(e.raw)/16 {
			c.codec = codecZstd
		} else if len(e.raw) > 1<<12 { // Of small chunks nothing can be learnt.
			e.skip[col] = hopeless
		}
	}
	for i := range e.pages {
		p := &e.pages[i]
		body := e.raw[p.from:p.to]
		if c.codec == codecZstd {
			body = e.comp[p.cfrom:p.cto]
		}
		at := base + int64(len(dst))
		if p.kind == pageDictionary {
			c.dictOffset = at
			c.pages[0]++
		} else {
			if c.dataOffset == 0 {
				c.dataOffset = at
			}
			c.pages[1]++
			c.dataEncoding = p.encoding
		}
		before := len(dst)
		dst = appendPageHeader(dst, p, body)
		c.uncompressed += int64(len(dst) - before + p.to - p.from)
		dst = append(dst, body...)
		c.compressed += int64(len(dst) - before)
	}
	switch {
	case c.dictOffset > 0:
		c.encodings = []int{encPlain, encRLE, encDictionary}
	default:
		c.encodings = []int{encRLE, c.dataEncoding}
	}
	return dst
}

func appendPageHeader(dst []byte, p *page, body []byte) []byte {
	var last [4]int16
	t := thriftWriter{b: dst, last: last[:0]}
	t.begin()
	t.i32(1, p.kind)
	t.i32(2, p.to-p.from)
	t.i32(3, len(body))
	t.i32(4, int(int32(crc32.ChecksumIEEE(body))))
	if p.kind == pageDictionary {
		t.field(7, thriftStruct)
		t.begin()
		t.i32(1, p.values)
		t.i32(2, encPlain)
		t.end()
	} else {
		t.field(5, thriftStruct)
		t.begin()
		t.i32(1, p.values)
		t.i32(2, p.encoding)
		t.i32(3, encRLE)
		t.i32(4, encRLE)
		t.end()
	}
	t.end()
	return t.b
}

// close ends the page that began at raw[from].
func (e *encoder) close(kind, values, encoding, from int) {
	e.pages = append(e.pages, page{kind: kind, values: values, encoding: encoding, from: from, to: len(e.raw)})
}

// levels appends the definition levels of a page's rows; nulls is nil if none
// is null. Required columns have none.
func (e *encoder) levels(col *column, nulls []byte, rows int) {
	if col.field.Required {
		return
	}
	at := len(e.raw)
	e.raw = append(e.raw, 0, 0, 0, 0)
	if nulls == nil {
		e.raw = binary.AppendUvarint(e.raw, uint64(rows)<<1)
		e.raw = append(e.raw, 1)
	} else {
		e.raw = binary.AppendUvarint(e.raw, uint64((rows+7)/8)<<1|1)
		e.raw = appendBitmap(e.raw, nulls, 0)
	}
	binary.LittleEndian.PutUint32(e.raw[at:], uint32(len(e.raw)-at-4))
}

// dataPages calls body for each page's range of non-null values, after the
// page's levels.
func (e *encoder) dataPages(col *column, v *growing, rows, encoding int, body func(from, to int)) {
	value := 0
	for row := 0; row < rows; row += pageRows {
		end := min(rows, row+pageRows)
		at := len(e.raw)
		var nulls []byte
		values := end - row
		if v.nullCount > 0 {
			nulls = v.nulls[row:end]
			values = bytes.Count(nulls, []byte{0})
		}
		e.levels(col, nulls, end-row)
		body(value, value+values)
		value += values
		e.close(pageData, end-row, encoding, at)
	}
}

// codePages writes data pages of dictionary codes.
func (e *encoder) codePages(col *column, v *growing, rows int, codes []uint32, entries int) {
	w := codeWidth(entries)
	e.dataPages(col, v, rows, encDictionary, func(from, to int) {
		e.raw = append(e.raw, byte(w))
		e.raw = appendCodes(e.raw, codes[from:to], w)
	})
}

// appendCodes appends codes in Parquet's RLE / bit-packing hybrid: RLE runs
// only, or a single bit-packed run, whichever is smaller.
func appendCodes(dst []byte, codes []uint32, w uint) []byte {
	if len(codes) == 0 {
		return dst
	}
	runs := 1
	if w > 0 {
		limit := len(codes) * int(w) / 8 / 4 // A run takes 2 to 6 bytes.
		for i := 1; i < len(codes) && runs <= limit; i++ {
			if codes[i] != codes[i-1] {
				runs++
			}
		}
		if runs > limit {
			groups := (len(codes) + 7) / 8
			dst = binary.AppendUvarint(dst, uint64(groups)<<1|1)
			end := len(dst) + groups*int(w)
			dst = packCodes(dst, codes, w)
			for len(dst) < end {
				dst = append(dst, 0)
			}
			return dst
		}
	}
	for from := 0; from < len(codes); {
		to := from + 1
		for to < len(codes) && codes[to] == codes[from] {
			to++
		}
		if w == 0 {
			to = len(codes)
		}
		dst = binary.AppendUvarint(dst, uint64(to-from)<<1)
		for k := uint(0); k < w; k += 8 {
			dst = append(dst, byte(codes[from]>>k))
		}
		from = to
	}
	return dst
}

// stringColumn encodes strings.
func (e *encoder) stringColumn(c *chunk, col *column, v *growing, rows int) {
	codes := v.codes[:rows]
	if v.nullCount > 0 {
		e.dcodes = e.dcodes[:0]
		for r, code := range codes {
			if v.nulls[r] == 0 {
				e.dcodes = append(e.dcodes, code)
			}
		}
		codes = e.dcodes
	}
	d := &v.dict
	n := d.len()
	if len(codes) > 0 {
		lo, hi := d.entry(0), d.entry(0)
		for i := range n {
			s := d.entry(uint32(i))
			if bytes.Compare(s, lo) < 0 {
				lo = s
			} else if bytes.Compare(s, hi) > 0 {
				hi = s
			}
		}
		stringBounds(c, lo, hi)
	}
	c.stringBytes = 0
	if len(codes) == 0 {
		e.dataPages(col, v, rows, encPlain, func(_, _ int) {})
		return
	}
	if d.plain {
		e.plainStrings(c, col, v, rows, codes)
		return
	}
	e.lengths = sized(e.lengths, n)
	lengths := e.lengths
	for i := range n {
		s := d.entry(uint32(i))
		lengths[i] = int64(len(s))
		e.raw = binary.LittleEndian.AppendUint32(e.raw, uint32(len(s)))
		e.raw = append(e.raw, s...)
	}
	e.close(pageDictionary, n, encPlain, 0)
	if n == 1 {
		c.stringBytes = lengths[0] * int64(len(codes))
	} else {
		for _, code := range codes {
			c.stringBytes += lengths[code]
		}
	}
	e.codePages(col, v, rows, codes, n)
}

func stringBounds(c *chunk, lo, hi []byte) {
	c.min, c.minInexact = truncateDown(lo, statBytes), len(lo) > statBytes
	c.max, c.maxInexact = truncateUp(hi, statBytes), len(hi) > statBytes
	c.hasBounds = c.max != nil
}

// plainStrings writes pages of at most about pageBytes.
func (e *encoder) plainStrings(c *chunk, col *column, v *growing, rows int, codes []uint32) {
	value := 0
	for row := 0; row < rows; {
		end, size, values := row, 0, 0
		for end < rows && end-row < pageRows && size < pageBytes {
			if v.nullCount == 0 || v.nulls[end] == 0 {
				n := len(v.dict.entry(codes[value+values]))
				size += 4 + n
				c.stringBytes += int64(n)
				values++
			}
			end++
		}
		at := len(e.raw)
		var nulls []byte
		if v.nullCount > 0 {
			nulls = v.nulls[row:end]
		}
		e.levels(col, nulls, end-row)
		for _, code := range codes[value : value+values] {
			s := v.dict.entry(code)
			e.raw = binary.LittleEndian.AppendUint32(e.raw, uint32(len(s)))
			e.raw = append(e.raw, s...)
		}
		e.close(pageData, end-row, encPlain, at)
		value += values
		row = end
	}
}

// present returns the values that are not null.
func (e *encoder) present(v *growing, rows int) []int64 {
	if v.nullCount == 0 {
		return v.ints[:rows]
	}
	e.dense = e.dense[:0]
	for r, x := range v.ints[:rows] {
		if v.nulls[r] == 0 {
			e.dense = append(e.dense, x)
		}
	}
	return e.dense
}

func (e *encoder) booleanColumn(c *chunk, col *column, v *growing, rows int) {
	values := e.present(v, rows)
	if len(values) > 0 {
		lo, hi := byte(1), byte(0)
		for _, x := range values {
			lo, hi = min(lo, byte(x)), max(hi, byte(x))
		}
		c.min, c.max, c.hasBounds = []byte{lo}, []byte{hi}, true
	}
	e.dataPages(col, v, rows, encPlain, func(from, to int) {
		e.raw = packOffsets(e.raw, values[from:to], 0, 1)
	})
}

// doubleBounds are the least and greatest of the doubles whose bits are given,
// with the zeros that Parquet's statistics want.
func doubleBounds(values []int64) (lo, hi int64) {
	l, h := math.Inf(1), math.Inf(-1)
	for _, x := range values {
		f := math.Float64frombits(uint64(x))
		l, h = min(l, f), max(h, f)
	}
	if l == 0 {
		l = math.Copysign(0, -1)
	}
	if h == 0 {
		h = 0
	}
	return int64(math.Float64bits(l)), int64(math.Float64bits(h))
}
