package delivery

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/object"
	"github.com/tapehouse/tapehouse/internal/prefix"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/internal/serde"
)

// PartitionsMax is how many partitions one flush writes; records of further
// ones go to the error output, as at AWS.
const PartitionsMax = 500

// deflatersMax is how many GZIP or ZIP objects a flush compresses as their records
// come; further ones are compressed one after the other in the end. A compressor
// holds 0.8 MB: 390 MiB for all partitions there can be.
const deflatersMax = 8

// The codes of records that have no place among the partitions.
const (
	codePartition  = "DynamicPartitioning.MetadataExtractionFailed"
	codePartitions = "DynamicPartitioning.ActivePartitionLimitExceeded"
)

// The error output types of Firehose.
const (
	errorProcessing = "processing-failed"
	errorConversion = "format-conversion-failed"
)

// Target is what a destination under a prefix is: ObjectConfig.Target.
type Target struct {
	Bucket      string             `json:"bucket"`
	Prefix      string             `json:"prefix"`
	ErrorPrefix *string            `json:"error_prefix,omitempty"` // nil: derived from Prefix
	Zone        string             `json:"zone,omitempty"`
	Compression object.Compression `json:"compression,omitempty"`
	Delimiter   []byte             `json:"delimiter,omitempty"`
	Extension   string             `json:"extension,omitempty"`
	Conversion  *Conversion        `json:"conversion,omitempty"`
	// FailedOnly leaves out what processing did not fail: the error output of a
	// stream into tables.
	FailedOnly bool `json:"failed_only,omitempty"`
	// TransformARN is shown in the error output.
	TransformARN string `json:"transform_arn,omitempty"`
	// FormerPrefixes are for records that were processed under a former
	// definition, and so lack the partition keys of Prefix; the newest first.
	FormerPrefixes []string `json:"former_prefixes,omitempty"`
}

// Conversion makes Parquet of JSON by a table's columns.
type Conversion struct {
	Database     string               `json:"database"`
	Table        string               `json:"table"`
	Version      string               `json:"version,omitempty"` // "" or LATEST
	Deserializer serde.Deserializer   `json:"deserializer"`
	Parquet      serde.ParquetOptions `json:"parquet"`
	// Columns are the table's, name and Hive type, as Prepare found them.
	Columns [][2]string `json:"columns,omitempty"`
}

// Prefix delivers records into objects under a prefix.
type Prefix struct {
	Stream  record.StreamName
	FS      fsys.FS
	Staging string // local directory for files in the making
	// Bucket opens a bucket. It is asked at every flush.
	Bucket func(name string) (lake.Store, error)
	// Columns are a table's, name and Hive type, in the version.
	Columns func(ctx context.Context, database, table, version string) ([][2]string, error)
}

// compiled is a target made ready.
type compiled struct {
	Target
	data, failed *prefix.Expression
	former       []*prefix.Expression
	store        lake.Store
	converter    *serde.Converter
}

// Check reports what is wrong with a target, at create; it is complete but for
// what records hold.
func (d *Prefix) Check(ctx context.Context, t Target) error {
	full, err := d.complete(ctx, t)
	if err != nil {
		return err
	}
	_, err = d.compile(full)
	return err
}

// Prepare implements ObjectDestination.
func (d *Prefix) Prepare(ctx context.Context, target json.RawMessage) (json.RawMessage, error) {
	var t Target
	if err := json.Unmarshal(target, &t); err != nil {
		return nil, fmt.Errorf("read the target: %w", err)
	}
	t, err := d.complete(ctx, t)
	if err != nil {
		return nil, err
	}
	return json.Marshal(t)
}

func (d *Prefix) complete(ctx context.Context, t Target) (Target, error) {
	if t.Conversion == nil {
		return t, nil
	}
	c := *t.Conversion
	var err error
	if c.Columns, err = d.Columns(ctx, c.Database, c.Table, c.Version); err != nil {
		return t, err
	}
	t.Conversion = &c
	return t, nil
}

func (d *Prefix) compile(t Target) (c *compiled, err error) {
	c = &compiled{Target: t}
	if c.data, err = prefix.Parse(t.Prefix, prefix.Data, t.Zone); err != nil {
		return nil, err
	}
	for _, text := range t.FormerPrefixes {
		x, err := prefix.Parse(text, prefix.Data, t.Zone)
		if err != nil {
			return nil, err
		}
		c.former = append(c.former, x)
	}
	if t.ErrorPrefix != nil {
		if c.failed, err = prefix.Parse(*t.ErrorPrefix, prefix.Error, t.Zone); err != nil {
			return nil, err
		}
	}
	if err := prefix.CheckPair(c.data, c.failed); err != nil {
		return nil, err
	}
	if c.failed == nil {
		c.failed = c.data.ErrorDefault()
	}
	if err := prefix.CheckExtension(t.Extension); err != nil {
		return nil, err
	}
	if c.Compression, err = object.ParseCompression(string(t.Compression)); err != nil {
		return nil, err
	}
	if c.store, err = d.Bucket(t.Bucket); err != nil {
		return nil, err
	}
	if t.Conversion == nil {
		return c, nil
	}
	columns := make([]serde.Column, len(t.Conversion.Columns))
	for i, col := range t.Conversion.Columns {
		columns[i].Name = col[0]
		if columns[i].Type, err = serde.ParseType(col[1]); err != nil {
			return nil, fmt.Errorf("table %s.%s: column %q: %w", t.Conversion.Database, t.Conversion.Table, col[0], err)
		}
	}
	if err := t.Conversion.Parquet.Check(); err != nil {
		return nil, err
	}
	c.converter, err = serde.NewConverter(columns, t.Conversion.Deserializer)
	return c, err
}

// Write implements ObjectDestination.
func (d *Prefix) Write(ctx context.Context, plan ObjectPlan, each func(func(ObjectRecord) error) error) (ObjectResult, error) {
	return d.execute(ctx, plan, each, (*prefixWriter).finish)
}

// Retract implements Retractor: the names derive from the plan and its records,
// as when they were written.
func (d *Prefix) Retract(ctx context.Context, plan ObjectPlan, each func(func(ObjectRecord) error) error) error {
	_, err := d.execute(ctx, plan, each, (*prefixWriter).remove)
	return err
}

// remove removes every object that finish would store.
func (w *prefixWriter) remove(ctx context.Context) error {
	names := make([]string, 0, len(w.order))
	for _, o := range w.order {
		name, err := o.expr.Name(o.object)
		if err != nil {
			return fmt.Errorf("name an object: %w", err)
		}
		names = append(names, path.Clean(name))
	}
	return w.store.Delete(ctx, names...)
}

func (d *Prefix) execute(ctx context.Context, plan ObjectPlan, each func(func(ObjectRecord) error) error, end func(*prefixWriter, context.Context) error) (ObjectResult, error) {
	var t Target
	if err := json.Unmarshal(plan.Target, &t); err != nil {
		return ObjectResult{}, fmt.Errorf("read the plan's target: %w", err)
	}
	c, err := d.compile(t)
	if err != nil {
		return ObjectResult{}, err
	}
	w := &prefixWriter{Prefix: d, compiled: c, plan: plan, data: map[string]*openObject{}, failed: map[string]*openObject{}}
	defer w.discard()
	if err := each(func(r ObjectRecord) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return w.add(r)
	}); err != nil {
		return w.result, err
	}
	err = end(w, ctx)
	return w.result, err
}

// prefixWriter executes one plan.
type prefixWriter struct {
	*Prefix
	*compiled
	plan   ObjectPlan
	order  []*openObject
	data   map[string]*openObject // by partition
	failed map[string]*openObject // by error output type: the one that is being written
	line   *failedLine
	buf    []byte
	result ObjectResult
}

// openObject is an object in the making, in a local file.
type openObject struct {
	object prefix.Object
	expr   *prefix.Expression
	path   string
	file   fsys.File
	out    *bufio.Writer
	plain  *object.Writer
	table  *serde.Writer
	later  *object.Options // plain is not compressed yet: end does it

	sizeBytes int64 // of an error output's lines
}

func (w *prefixWriter) add(r ObjectRecord) error {
	w.result.Records++
	if r.Code != "" {
		return w.fail(errorProcessing, r, r.Code, r.Message)
	}
	if w.FailedOnly {
		w.result.Records--
		return nil
	}
	values := make(map[prefix.Key]string, len(r.Keys))
	for k, v := range r.Keys {
		from, name, _ := strings.Cut(k, ":")
		values[prefix.Key{Source: prefix.Source(from), Name: name}] = v
	}
	expr := w.compiled.data
	partition, err := expr.Partition(values)
	for i := 0; err != nil && i < len(w.former); i++ { // it was processed for another prefix
		if p, ferr := w.former[i].Partition(values); ferr == nil {
			expr, partition, err = w.former[i], fmt.Sprintf("\x00%d %s", i, p), nil
		}
	}
	if err != nil {
		return w.fail(errorProcessing, r, codePartition, err.Error())
	}
	o := w.data[partition]
	if o == nil {
		if len(w.data) >= PartitionsMax {
			w.result.PartitionsExceeded = true
			return w.fail(errorProcessing, r, codePartitions, fmt.Sprintf("The records of this delivery have more than %d partitions.", PartitionsMax))
		}
		if o, err = w.open(expr, r, prefix.Object{Values: values, Extension: w.extension()}); err != nil {
			return err
		}
		w.data[partition] = o
	}
	if o.table == nil {
		return o.plain.Append(r.Data)
	}
	err = o.table.Append(r.Data)
	var bad *serde.RecordError
	if errors.As(err, &bad) {
		w.result.Unconverted++
		w.result.UnconvertedBytes += int64(len(r.Data))
		return w.fail(errorConversion, r, bad.Code, bad.Message)
	}
	return err
}

func (w *prefixWriter) extension() string {
	if w.converter == nil {
		return object.Extension(w.Compression, w.Extension)
	}
	if w.Extension != "" {
		return w.Extension
	}
	return serde.Extension
}

// open begins an object with a record. Its number in the plan seeds its name.
func (w *prefixWriter) open(expr *prefix.Expression, r ObjectRecord, o prefix.Object) (*openObject, error) {
	o.Stream, o.Version = string(w.Stream), int(w.plan.Version)
	o.OldestAt, o.Seed = arrival(r), prefix.Seed(w.plan.Seed).Object(len(w.order))
	x := &openObject{object: o, expr: expr, path: filepath.Join(w.Staging, fmt.Sprintf("object-%s-%d", w.plan.Seed, len(w.order)))}
	f, err := w.FS.OpenFile(x.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("begin an object: %w", err)
	}
	x.file, x.out = f, bufio.NewWriterSize(f, 64<<10)
	w.order = append(w.order, x)
	switch {
	case o.ErrorType != "":
		x.plain, err = object.NewWriter(x.out, object.Options{Compression: object.Uncompressed})
	case w.converter != nil:
		x.table, err = w.converter.NewWriter(x.out, w.Conversion.Parquet)
	default:
		options := object.Options{Compression: w.Compression, Delimiter: w.Delimiter, EntryName: "records"}
		if (w.Compression == object.Gzip || w.Compression == object.Zip) && len(w.data) >= deflatersMax {
			later := options
			x.later, options.Compression = &later, object.Uncompressed
		}
		x.plain, err = object.NewWriter(x.out, options)
	}
	return x, err
}

// fail adds a record to the error output of a type. An object of it that would
// exceed the plan's bound is followed by another.
func (w *prefixWriter) fail(kind string, r ObjectRecord, code, message string) error {
	w.result.Failed++
	if w.line == nil || w.line.ids.Key() != r.ID.Key {
		database, table := "", ""
		if w.Conversion != nil {
			database, table = w.Conversion.Database, w.Conversion.Table
		}
		w.line = newFailedLine(r.ID.Key, database, table)
		w.line.arn = w.TransformARN
	}
	x := failure{arrivedAt: r.ArrivedAt, endedAt: w.plan.At, offset: r.Offset, raw: r.Data, aws: code, message: message}
	if kind == errorProcessing {
		w.buf = w.line.appendProcessing(w.buf[:0], &x)
	} else {
		w.buf = w.line.appendConversion(w.buf[:0], &x)
	}
	o := w.failed[kind]
	if o == nil || w.plan.ErrorObjectBytes > 0 && o.sizeBytes+int64(len(w.buf)) > w.plan.ErrorObjectBytes {
		var err error
		if o, err = w.open(w.compiled.failed, r, prefix.Object{ErrorType: kind}); err != nil {
			return err
		}
		w.failed[kind] = o
	}
	o.sizeBytes += int64(len(w.buf))
	return o.plain.Append(w.buf)
}

// finish stores every object. One that is there already was stored by an
// earlier execution of the plan.
func (w *prefixWriter) finish(ctx context.Context) error {
	w.result.Partitions = len(w.data)
	for _, o := range w.order {
		if err := o.end(w.FS); err != nil {
			return fmt.Errorf("end an object: %w", err)
		}
		name, err := o.expr.Name(o.object)
		if err != nil {
			return fmt.Errorf("name an object: %w", err)
		}
		size, err := o.file.Size()
		if err != nil {
			return fmt.Errorf("store %s: %w", name, err)
		}
		if err := o.file.Close(); err != nil {
			return fmt.Errorf("store %s: %w", name, err)
		}
		o.file = nil
		if o.empty() { // every record of it failed
			continue
		}
		if err := w.store.PutFile(ctx, path.Clean(name), o.path); err != nil && !errors.Is(err, lake.ErrExists) {
			return fmt.Errorf("store an object: %w", err)
		}
		if o.table != nil {
			w.result.Converted += o.table.Rows()
			w.result.ConvertedBytes += size
		}
		w.result.Objects++
		if len(w.result.Names) < namesMax {
			w.result.Names = append(w.result.Names, path.Clean(name))
		}
		w.result.Bytes += size
	}
	return nil
}

func (o *openObject) empty() bool { return o.table != nil && o.table.Rows() == 0 }

func (o *openObject) end(at fsys.FS) error {
	var err error
	if o.table != nil {
		err = o.table.Close()
	} else {
		err = o.plain.Close()
	}
	if err = errors.Join(err, o.out.Flush()); err != nil || o.later == nil {
		return err
	}
	return o.compress(at)
}

// compress replaces the file by its compressed form, whose bytes do not depend on
// how records are cut into calls.
func (o *openObject) compress(at fsys.FS) error {
	size, err := o.file.Size()
	if err != nil {
		return err
	}
	plain, from := o.path, o.file
	defer func() {
		_ = from.Close() // it was only read
		_ = at.Remove(plain)
	}()
	o.path += "z"
	if o.file, err = at.OpenFile(o.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
		o.file = nil
		return err
	}
	o.out.Reset(o.file)
	o.later.Delimiter = nil // it is there already
	if o.plain, err = object.NewWriter(o.out, *o.later); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for off := int64(0); off < size; {
		n, err := from.ReadAt(buf[:min(int64(len(buf)), size-off)], off)
		if err != nil && (n == 0 || !errors.Is(err, io.EOF)) {
			return err
		}
		if err := o.plain.Append(buf[:n]); err != nil {
			return err
		}
		off += int64(n)
	}
	return errors.Join(o.plain.Close(), o.out.Flush())
}

// discard removes what was not stored.
func (w *prefixWriter) discard() {
	for _, o := range w.order {
		if o.file != nil {
			_ = o.file.Close()
		}
		_ = w.FS.Remove(o.path) // gone where it was stored
	}
}
