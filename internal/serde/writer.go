package serde

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/arrow-go/v18/parquet/schema"
)

// Extension is what the names of converted objects end in, unless the destination
// has a FileExtension.
const Extension = ".parquet"

// ParquetOptions are ParquetSerDe's. The zero value of each is AWS's default.
type ParquetOptions struct {
	// BlockSizeBytes bounds a row group, measured in bytes of JSON: default 256 MiB,
	// at least 64 MiB. Row groups are never above rowGroupBytesMax, for the sake of
	// memory, so that values above it change nothing.
	BlockSizeBytes int64
	// PageSizeBytes bounds a page before compression: default 1 MiB, at least 64 KiB.
	PageSizeBytes int64
	// Compression is SNAPPY (default), GZIP or UNCOMPRESSED.
	Compression string
	// EnableDictionaryCompression writes dictionaries where they are smaller.
	EnableDictionaryCompression bool
	// MaxPaddingBytes is accepted and changes nothing: it aligns row groups with the
	// blocks of HDFS, which objects do not have.
	MaxPaddingBytes int64
	// WriterVersion is V1 (default) or V2: data pages of version 2, with delta
	// encodings for integers of 64 bits, texts and binaries.
	WriterVersion string
}

const (
	blockBytesMin    = 64 << 20
	pageBytesMin     = 64 << 10
	pageBytesDefault = 1 << 20
	pageBytesMax     = 1 << 30 // a page's size is an int32
	rowGroupBytesMax = 64 << 20
	// A batch is what is built in memory before it is encoded.
	batchBytesMax = 4 << 20
	batchRowsMax  = 16 << 10
	// cellBytes is what a cell counts at least, so that documents of few bytes and
	// many columns are bounded too.
	cellBytes = 4
	createdBy = "tapehouse serde version 1"
)

var codecs = map[string]compress.Compression{
	"": compress.Codecs.Snappy, "SNAPPY": compress.Codecs.Snappy, "GZIP": compress.Codecs.Gzip, "UNCOMPRESSED": compress.Codecs.Uncompressed,
}

// Check returns ErrInvalid unless the options are in the API's ranges.
func (o ParquetOptions) Check() error {
	_, known := codecs[o.Compression]
	switch {
	case o.BlockSizeBytes != 0 && o.BlockSizeBytes < blockBytesMin:
		return fmt.Errorf("%w BlockSizeBytes %d: want at least %d", ErrInvalid, o.BlockSizeBytes, blockBytesMin)
	case o.PageSizeBytes != 0 && (o.PageSizeBytes < pageBytesMin || o.PageSizeBytes > pageBytesMax):
		return fmt.Errorf("%w PageSizeBytes %d: want %d to %d", ErrInvalid, o.PageSizeBytes, pageBytesMin, pageBytesMax)
	case !known:
		return fmt.Errorf("%w Compression %q: want SNAPPY, GZIP or UNCOMPRESSED", ErrInvalid, o.Compression)
	case o.MaxPaddingBytes < 0:
		return fmt.Errorf("%w MaxPaddingBytes %d: want at least 0", ErrInvalid, o.MaxPaddingBytes)
	case o.WriterVersion != "" && o.WriterVersion != "V1" && o.WriterVersion != "V2":
		return fmt.Errorf("%w WriterVersion %q: want V1 or V2", ErrInvalid, o.WriterVersion)
	}
	return nil
}

// Writer converts records into one Parquet file. The file depends on the records'
// documents, the columns and the options alone: the same in gives the same bytes.
// It holds one row group, encoded, and one batch that is not yet; so it takes a
// bounded amount of memory, whatever the file's size. It is not safe for concurrent
// use.
type Writer struct {
	d        *Decoder
	builder  *array.RecordBuilder
	file     *pqarrow.FileWriter
	rows     int64
	records  int64
	size     int64 // of the records
	batch    int64 // bytes that the rows in builder count
	batched  int   // rows in builder
	group    int64 // bytes that the rows in the row group count
	groupMax int64
	err      error // of writing: final
}

// errClosed is what a closed Writer answers.
var errClosed = errors.New("file is closed")

// NewWriter begins a file on w, which stays the caller's to close. The Writer has a
// Decoder of its own.
func (c *Converter) NewWriter(w io.Writer, o ParquetOptions) (*Writer, error) {
	return c.newWriter(w, o)
}

func (c *Converter) newWriter(w io.Writer, o ParquetOptions, more ...parquet.WriterProperty) (*Writer, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	columns := arrow.NewSchema(arrowFields(c.columns, c.rules.micros), nil)
	// Timestamps are INT96, as Hive and so Firehose writes them: it is the form in
	// which every engine on Hive tables reads nanoseconds.
	arrows := pqarrow.NewArrowWriterProperties(pqarrow.WithDeprecatedInt96Timestamps(!c.rules.micros))
	properties := []parquet.WriterProperty{
		parquet.WithCreatedBy(createdBy),
		parquet.WithCompression(codecs[o.Compression]),
		parquet.WithDictionaryDefault(o.EnableDictionaryCompression),
		parquet.WithDataPageSize(pageBytesDefault),
		parquet.WithMaxRowGroupLength(math.MaxInt64),
		parquet.WithVersion(parquet.V1_0),
		parquet.WithDataPageVersion(parquet.DataPageV1),
	}
	properties = append(properties, more...)
	if o.PageSizeBytes != 0 {
		properties = append(properties, parquet.WithDataPageSize(o.PageSizeBytes))
	}
	if o.WriterVersion == "V2" {
		properties = append(properties, parquet.WithVersion(parquet.V2_LATEST), parquet.WithDataPageVersion(parquet.DataPageV2))
		leaves, err := pqarrow.ToParquet(columns, parquet.NewWriterProperties(properties...), arrows)
		if err != nil {
			return nil, fmt.Errorf("lay out Parquet columns: %w", err)
		}
		for i := range leaves.NumColumns() {
			if e, ok := deltaEncoding(leaves.Column(i)); ok {
				properties = append(properties, parquet.WithEncodingPath(leaves.Column(i).ColumnPath(), e))
			}
		}
	}
	x := &Writer{d: c.NewDecoder(), groupMax: rowGroupBytesMax}
	if o.BlockSizeBytes != 0 {
		x.groupMax = min(x.groupMax, o.BlockSizeBytes)
	}
	var err error
	if x.file, err = pqarrow.NewFileWriter(columns, onlyWriter{w}, parquet.NewWriterProperties(properties...), arrows); err != nil {
		return nil, fmt.Errorf("begin Parquet file: %w", err)
	}
	x.builder = array.NewRecordBuilder(memory.NewGoAllocator(), columns)
	return x, nil
}

// onlyWriter hides a Close, which pqarrow would call.
type onlyWriter struct{ io.Writer }

func deltaEncoding(c *schema.Column) (parquet.Encoding, bool) {
	switch c.PhysicalType() {
	case parquet.Types.Int64:
		return parquet.Encodings.DeltaBinaryPacked, true
	case parquet.Types.ByteArray:
		return parquet.Encodings.DeltaByteArray, true
	}
	return 0, false
}

func arrowFields(columns []Column, micros bool) []arrow.Field {
	fields := make([]arrow.Field, len(columns))
	for i, c := range columns {
		fields[i] = arrow.Field{Name: c.Name, Type: arrowType(c.Type, micros), Nullable: true}
	}
	return fields
}

var arrowScalars = map[Kind]arrow.DataType{
	Boolean: arrow.FixedWidthTypes.Boolean, TinyInt: arrow.PrimitiveTypes.Int8, SmallInt: arrow.PrimitiveTypes.Int16,
	Int: arrow.PrimitiveTypes.Int32, BigInt: arrow.PrimitiveTypes.Int64, Float: arrow.PrimitiveTypes.Float32,
	Double: arrow.PrimitiveTypes.Float64, String: arrow.BinaryTypes.String, Varchar: arrow.BinaryTypes.String,
	Char: arrow.BinaryTypes.String, Binary: arrow.BinaryTypes.Binary, Date: arrow.FixedWidthTypes.Date32,
	Timestamp: &arrow.TimestampType{Unit: arrow.Nanosecond},
}

func arrowType(t *Type, micros bool) arrow.DataType {
	switch t.Kind {
	case Timestamp:
		if micros {
			return &arrow.TimestampType{Unit: arrow.Microsecond}
		}
	case Decimal:
		return &arrow.Decimal128Type{Precision: int32(t.Precision), Scale: int32(t.Scale)}
	case Array:
		return arrow.ListOfField(arrow.Field{Name: "element", Type: arrowType(t.Element, micros), Nullable: true})
	case Map:
		return arrow.MapOf(arrowType(t.Key, micros), arrowType(t.Element, micros))
	case Struct:
		return arrow.StructOf(arrowFields(t.Fields, micros)...)
	}
	return arrowScalars[t.Kind]
}

// Append converts one record. A *RecordError means that the record was not converted,
// that nothing of it is in the file and that the next may be appended; any other error
// is one of writing, and final. Append does not keep the record.
func (w *Writer) Append(record []byte) error {
	if w.err != nil {
		return w.err
	}
	documents, err := w.d.each(record, nil)
	if err != nil {
		return err
	}
	if documents == 1 {
		w.row(int64(len(record)))
	} else { // now that all are known to fit, once more
		share := int64(len(record) / documents)
		if _, err := w.d.each(record, func() { w.row(share) }); err != nil {
			panic(fmt.Sprintf("serde: a record that was converted is not: %v", err))
		}
	}
	w.records++
	w.size += int64(len(record))
	return w.err
}

// row puts the Decoder's row into the builder, and encodes the batch if it is full.
func (w *Writer) row(bytes int64) {
	if w.err != nil {
		return
	}
	cells := w.d.cells
	for i := range w.d.c.root.parts {
		w.put(w.builder.Field(i), &w.d.c.root.parts[i], cells, int(cells[0].first)+i)
	}
	w.rows++
	w.batched++
	w.batch += max(bytes, cellBytes*int64(len(cells)))
	if w.batched >= batchRowsMax || w.batch >= batchBytesMax {
		w.err = w.flush()
	}
}

func (w *Writer) put(b array.Builder, p *plan, cells []cell, at int) {
	c := &cells[at]
	if !c.valid {
		b.AppendNull()
		return
	}
	switch b := b.(type) {
	case *array.BooleanBuilder:
		b.Append(c.lo != 0)
	case *array.Int8Builder:
		b.Append(int8(c.lo))
	case *array.Int16Builder:
		b.Append(int16(c.lo))
	case *array.Int32Builder:
		b.Append(int32(c.lo))
	case *array.Int64Builder:
		b.Append(int64(c.lo))
	case *array.Float32Builder:
		b.Append(float32(math.Float64frombits(c.lo)))
	case *array.Float64Builder:
		b.Append(math.Float64frombits(c.lo))
	case *array.Decimal128Builder:
		b.Append(decimal128.New(int64(c.hi), c.lo))
	case *array.StringBuilder:
		b.BinaryBuilder.Append(c.text)
	case *array.BinaryBuilder:
		b.Append(c.text)
	case *array.Date32Builder:
		b.Append(arrow.Date32(int32(c.lo)))
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(int64(c.lo)))
	case *array.MapBuilder:
		b.Append(true)
		for i := 0; i < int(c.count); i += 2 {
			w.put(b.KeyBuilder(), &p.parts[0], cells, int(c.first)+i)
			w.put(b.ItemBuilder(), &p.parts[1], cells, int(c.first)+i+1)
		}
	case *array.ListBuilder:
		b.Append(true)
		for i := range int(c.count) {
			w.put(b.ValueBuilder(), &p.parts[0], cells, int(c.first)+i)
		}
	case *array.StructBuilder:
		b.Append(true)
		for i := range p.parts {
			w.put(b.FieldBuilder(i), &p.parts[i], cells, int(c.first)+i)
		}
	default:
		panic(fmt.Sprintf("serde: builder %T", b))
	}
}

// flush encodes the batch into the row group, after beginning another if this one is
// full.
func (w *Writer) flush() error {
	if w.batched == 0 {
		return nil
	}
	if w.group > 0 && w.group+w.batch > w.groupMax {
		if err := w.file.NewBufferedRowGroupChecked(); err != nil {
			return fmt.Errorf("write Parquet row group: %w", err)
		}
		w.group = 0
	}
	batch := w.builder.NewRecordBatch()
	defer batch.Release()
	if err := w.file.WriteBuffered(batch); err != nil {
		return fmt.Errorf("write Parquet batch: %w", err)
	}
	w.group += w.batch
	w.batch, w.batched = 0, 0
	return nil
}

// Records is the number of records converted, Rows that of their documents.
func (w *Writer) Records() int64 { return w.records }

// Rows is the number of rows, one for each document.
func (w *Writer) Rows() int64 { return w.rows }

// SizeBytes is the size of the converted records, which is what buffer hints
// measure.
func (w *Writer) SizeBytes() int64 { return w.size }

// Close ends the file. It does not close the writer underneath. A file without rows
// is valid.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	err := w.flush()
	if err == nil {
		if err = w.file.Close(); err != nil {
			err = fmt.Errorf("end Parquet file: %w", err)
		}
	}
	w.builder.Release()
	w.err = err
	if err == nil {
		w.err = errClosed
	}
	return err
}
