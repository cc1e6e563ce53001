package checker

import (
	"context"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"github.com/tapehouse/tapehouse/internal/exchange"
)

// blockRows is the number of rows that are read at once.
const blockRows = 4096

// unhashed are the columns that say where a record went, not what it says.
var unhashed = map[string]bool{"record_stream": true, "record_offset": true, "arrived_at": true}

// column reads one column of a row group, a block at a time. Every kind but
// text is an integer: that is how they are hashed.
type column struct {
	name     string
	index    int // in the file
	defined  int16
	isText   bool
	hashed   bool
	reader   file.ColumnChunkReader
	levels   []int16
	null     []bool
	integers []int64
	texts    []string

	int32s []int32
	arrays []parquet.ByteArray
	fixed  []parquet.FixedLenByteArray
	bools  []bool
	arena  []byte
	ends   []int
}

// readRows calls fn with every row's position, key and hash, in the order of the
// file. The key's texts are valid during the call.
func readRows(ctx context.Context, f dataFile, fields []field, fn func(row int64, k exchange.Key, hash uint64)) (err error) {
	r, err := file.OpenParquetFile(f.path, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if r.NumRows() != f.rows {
		return fmt.Errorf("it has %d rows, and the table's manifest says %d", r.NumRows(), f.rows)
	}
	columns, err := openColumns(r.MetaData().Schema, fields)
	if err != nil {
		return err
	}
	var key keyColumns
	if err := key.find(columns); err != nil {
		return err
	}
	var hash exchange.RowHash
	row := int64(0)
	for g := range r.NumRowGroups() {
		group := r.RowGroup(g)
		for _, c := range columns {
			if c.reader, err = group.Column(c.index); err != nil {
				return fmt.Errorf("row group %d, column %s: %w", g, c.name, err)
			}
		}
		for left := group.NumRows(); left > 0; {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			n := int(min(left, blockRows))
			for _, c := range columns {
				if err := c.read(n); err != nil {
					return fmt.Errorf("row group %d, column %s: %w", g, c.name, err)
				}
			}
			for i := range n {
				hash.Reset()
				for _, c := range columns {
					switch {
					case !c.hashed || c.null[i]:
					case c.isText:
						hash.Text(c.name, c.texts[i])
					default:
						hash.Integer(c.name, c.integers[i])
					}
				}
				fn(row, key.of(i), hash.Sum())
				row++
			}
			left -= int64(n)
		}
	}
	return nil
}

// openColumns finds the table's columns in the file, by their field ids. A
// column that the file lacks is null in all its rows.
func openColumns(s *schema.Schema, fields []field) ([]*column, error) {
	byID := map[int32]int{}
	for i := range s.NumColumns() {
		byID[s.Column(i).SchemaNode().FieldID()] = i
	}
	var out []*column
	for _, f := range fields {
		i, ok := byID[int32(f.id)]
		if !ok {
			if f.required {
				return nil, fmt.Errorf("it lacks the required column %s (field id %d)", f.name, f.id)
			}
			continue
		}
		d := s.Column(i)
		if d.MaxRepetitionLevel() != 0 {
			return nil, fmt.Errorf("column %s is nested", f.name)
		}
		c := &column{
			name: f.name, index: i, defined: d.MaxDefinitionLevel(), hashed: !unhashed[f.name],
			levels: make([]int16, blockRows), null: make([]bool, blockRows),
			integers: make([]int64, blockRows), texts: make([]string, blockRows),
		}
		switch d.PhysicalType() {
		case parquet.Types.Int32:
			c.int32s = make([]int32, blockRows)
		case parquet.Types.Int64:
		case parquet.Types.Boolean:
			c.bools = make([]bool, blockRows)
		case parquet.Types.ByteArray:
			c.isText, c.arrays = true, make([]parquet.ByteArray, blockRows)
		case parquet.Types.FixedLenByteArray:
			c.fixed = make([]parquet.FixedLenByteArray, blockRows)
		default:
			return nil, fmt.Errorf("column %s is of the type %s, which has no canonical text", f.name, d.PhysicalType())
		}
		if t, ok := d.LogicalType().(schema.TimestampLogicalType); ok && t.TimeUnit() != schema.TimeUnitMicros {
			return nil, fmt.Errorf("column %s counts no microseconds", f.name)
		}
		if !c.hashed {
			continue // where the record went is nobody's business here
		}
		out = append(out, c)
	}
	return out, nil
}

// read reads the next n rows, which the row group has.
func (c *column) read(n int) error {
	// A required column has no levels; all its rows are defined.
	if c.defined == 0 {
		for i := range n {
			c.levels[i] = 0
		}
	}
	values := 0
	c.arena, c.ends = c.arena[:0], c.ends[:0]
	for rows := 0; rows < n; {
		levels := c.levels[rows:n]
		if c.defined == 0 {
			levels = nil
		}
		got, read, err := c.batch(int64(n-rows), values, levels)
		if err != nil {
			return err
		}
		if got == 0 {
			return fmt.Errorf("it ends %d rows too early", n-rows)
		}
		rows += int(got)
		values += read
	}
	c.spread(n)
	return nil
}

// batch reads into the buffers from the given value on.
func (c *column) batch(n int64, from int, levels []int16) (rows int64, values int, err error) {
	switch r := c.reader.(type) {
	case *file.Int64ColumnChunkReader:
		return r.ReadBatch(n, c.integers[from:], levels, nil)
	case *file.Int32ColumnChunkReader:
		rows, values, err = r.ReadBatch(n, c.int32s[from:], levels, nil)
		for i := from; i < from+values; i++ {
			c.integers[i] = int64(c.int32s[i])
		}
	case *file.BooleanColumnChunkReader:
		rows, values, err = r.ReadBatch(n, c.bools[from:], levels, nil)
		for i := from; i < from+values; i++ {
			c.integers[i] = 0
			if c.bools[i] {
				c.integers[i] = 1
			}
		}
	case *file.ByteArrayColumnChunkReader:
		// Within one page: its bytes are gone with the next.
		rows, values, err = r.ReadBatchInPage(n, c.arrays[from:], levels, nil)
		for i := from; i < from+values; i++ {
			c.arena = append(c.arena, c.arrays[i]...)
			c.ends = append(c.ends, len(c.arena))
		}
	case *file.FixedLenByteArrayColumnChunkReader:
		rows, values, err = r.ReadBatchInPage(n, c.fixed[from:], levels, nil)
		for i := from; i < from+values && err == nil; i++ {
			c.integers[i], err = bigEndian(c.fixed[i])
		}
	default:
		err = fmt.Errorf("no reader of %T", r)
	}
	return rows, values, err
}

// spread moves the values, which stand side by side, to their rows, from the
// last to the first.
func (c *column) spread(n int) {
	values := 0
	for i := range n {
		if c.null[i] = c.levels[i] < c.defined; !c.null[i] {
			values++
		}
	}
	if c.isText {
		text := string(c.arena)
		for i := n - 1; i >= 0; i-- {
			if c.null[i] {
				c.texts[i] = ""
				continue
			}
			values--
			begin := 0
			if values > 0 {
				begin = c.ends[values-1]
			}
			c.texts[i] = text[begin:c.ends[values]]
		}
		return
	}
	for i := n - 1; i >= 0; i-- {
		if c.null[i] {
			c.integers[i] = 0
			continue
		}
		values--
		c.integers[i] = c.integers[values]
	}
}

// bigEndian reads a decimal's unscaled integer.
func bigEndian(b []byte) (int64, error) {
	v, bytes := int64(0), len(b)
	for i, x := range b {
		if i == 0 {
			v = int64(int8(x))
			continue
		}
		if bytes-i >= 8 && v != 0 && v != -1 {
			return 0, errors.New("a decimal exceeds 18 digits")
		}
		v = v<<8 | int64(x)
	}
	return v, nil
}

// keyColumns are the columns that identify a record at its source.
type keyColumns struct{ source, session, epoch, seq *column }

func (k *keyColumns) find(columns []*column) error {
	for _, c := range columns {
		switch c.name {
		case "source":
			k.source = c
		case "session":
			k.session = c
		case "epoch":
			k.epoch = c
		case "seq":
			k.seq = c
		}
	}
	if k.source == nil || k.session == nil || k.epoch == nil || !k.source.isText || !k.session.isText {
		return errors.New("it lacks a column of source, session and epoch")
	}
	return nil
}

func (k *keyColumns) of(i int) exchange.Key {
	key := exchange.Key{Source: k.source.texts[i], Session: k.session.texts[i], Epoch: k.epoch.integers[i]}
	if k.seq != nil {
		key.Seq = k.seq.integers[i]
	}
	return key
}
