package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/delivery"
	"github.com/tapehouse/tapehouse/internal/firehose"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/jq"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/object"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/internal/serde"
	"github.com/tapehouse/tapehouse/internal/transform"
)

// destinations makes what delivery streams deliver into, and through.
type destinations struct {
	s       *Server
	metrics *transform.Metrics

	mu      sync.Mutex
	buckets map[string]lake.Store // that are not the lake
}

func newDestinations(s *Server) (*destinations, error) {
	m, err := transform.NewMetrics(s.metrics)
	if err != nil {
		return nil, err
	}
	return &destinations{s: s, metrics: m, buckets: map[string]lake.Store{}}, nil
}

// lakeBucket is the bucket that the lake is.
const lakeBucket = "lake"

var bucketRE = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// bucket opens a bucket: the lake, or one where the lake is: a directory of
// buckets/, or a bucket on S3, which must exist.
func (d *destinations) bucket(name string) (lake.Store, error) {
	if name == lakeBucket {
		return d.s.lake, nil
	}
	if !bucketRE.MatchString(name) || strings.Contains(name, "..") {
		return nil, fmt.Errorf("bucket %q: want 3 to 63 of a-z 0-9 . - as S3 has it", name)
	}
	d.mu.Lock()
	b := d.buckets[name]
	d.mu.Unlock()
	if b != nil {
		return b, nil
	}
	b, err := d.openBucket(name) // not behind the lock: S3 may take its time
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if other := d.buckets[name]; other != nil {
		shut(b)
		return other, nil
	}
	d.buckets[name] = b
	return b, nil
}

// close ends what the buckets may still be waiting for.
func (d *destinations) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range d.buckets {
		shut(b)
	}
}

func shut(b lake.Store) {
	if s, ok := b.(*lake.S3); ok {
		s.Shut()
	}
}

func (d *destinations) openBucket(name string) (lake.Store, error) {
	if d.s.cfg.Lake.URL == "" {
		return lake.OpenLocal(fsys.OS, filepath.Join(d.s.dir("buckets"), name))
	}
	ctx, cancel := context.WithTimeout(context.Background(), lakeStartWait)
	defer cancel()
	store, err := lake.OpenS3(ctx, d.s.s3Options(name, ""))
	if err != nil {
		return nil, err
	}
	if err := store.Check(ctx); err != nil {
		store.Shut()
		return nil, err
	}
	return store, nil
}

// bucketOf is the name in a bucket's ARN.
func bucketOf(arn *string) string {
	if arn == nil {
		return ""
	}
	return (*arn)[strings.LastIndexByte(*arn, ':')+1:]
}

// table is delivery's destination of that kind.
func (d *destinations) table(c delivery.Config, t catalog.Name) (delivery.Destination, error) {
	return &delivery.Iceberg{Catalog: d.s.catalog, Lake: d.s.lake, FS: fsys.OS, Staging: d.s.dir("staging"), Table: t, Stream: c.Name,
		Keys: c.Keys[t.String()], Engine: d.s.engine}, nil
}

// createTable makes a table of a stream's records, which name its columns.
func (d *destinations) createTable(ctx context.Context, _ delivery.Config, name catalog.Name, fields []record.Field) error {
	if err := d.s.catalog.CreateNamespace(ctx, name.Namespace, nil); err != nil && !errors.Is(err, catalog.ErrExists) {
		return err
	}
	fields = slices.Clone(fields)
	for _, f := range []record.Field{
		{Name: "record_stream", Type: record.Type{Kind: record.String}, Derive: record.RecordStream},
		{Name: "record_offset", Type: record.Type{Kind: record.Long}, Derive: record.RecordOffset},
		{Name: "arrived_at", Type: record.Type{Kind: record.TimestampTZ}, Derive: record.ArrivedAt},
	} {
		if !slices.ContainsFunc(fields, func(have record.Field) bool { return strings.EqualFold(have.Name, f.Name) }) {
			fields = append(fields, f)
		}
	}
	_, err := d.s.catalog.CreateTable(ctx, catalog.TableSpec{Name: name, Fields: fields})
	if errors.Is(err, catalog.ErrExists) {
		return nil
	}
	return err
}

func (d *destinations) prefix(name record.StreamName) *delivery.Prefix {
	return &delivery.Prefix{Stream: name, FS: fsys.OS, Staging: d.s.dir("staging"), Bucket: d.bucket, Columns: d.columns}
}

func (d *destinations) objects(c delivery.Config, _ string) (delivery.ObjectDestination, error) {
	return d.prefix(c.Name), nil
}

var decimalType = regexp.MustCompile(`^decimal\((\d+), ?(\d+)\)$`)

// hiveTypes are the Hive types of Iceberg's.
var hiveTypes = map[string]string{"boolean": "boolean", "int": "int", "long": "bigint", "float": "float", "double": "double", "string": "string",
	"date": "date", "timestamp": "timestamp", "timestamptz": "timestamp", "binary": "binary"}

// columns are those of a table that records can fill, by name and Hive type.
func (d *destinations) columns(ctx context.Context, database, table, version string) ([][2]string, error) {
	name := catalog.Name{Namespace: database, Table: table}
	t, err := d.s.catalog.Load(ctx, name)
	if err != nil {
		return nil, err
	}
	columns, id := t.Columns, t.Schema.ID
	if version != "" && version != "LATEST" {
		if _, err := fmt.Sscan(version, &id); err != nil {
			return nil, fmt.Errorf("%w version %q of table %s: want LATEST or a schema id", record.ErrInvalid, version, name)
		}
		var ok bool
		if columns, ok = t.ColumnsByID(id); !ok {
			return nil, fmt.Errorf("%w version %q: table %s has no such schema", record.ErrInvalid, version, name)
		}
	}
	derived := map[string]bool{}
	if s, ok := t.SchemaByID(id); ok {
		for _, f := range s.Fields {
			derived[f.Name] = f.Derive != record.FromJSON
		}
	}
	var out [][2]string
	for _, c := range columns {
		text := c.Type
		hive, ok := hiveTypes[text]
		if m := decimalType.FindStringSubmatch(text); m != nil {
			hive, ok = "decimal("+m[1]+","+m[2]+")", true
		}
		switch {
		case derived[c.Name]:
		case !ok:
			return nil, fmt.Errorf("%w column %q of table %s: records cannot be converted to %s", record.ErrInvalid, c.Name, name, text)
		default:
			out = append(out, [2]string{c.Name, hive})
		}
	}
	return out, nil
}

// processing is delivery.Config.Processing: Firehose's processors, and whether
// the program routes records to tables.
type processing struct {
	Processors *firehose.Processing `json:"processors"`
	Routes     bool                 `json:"routes"`
}

// processor makes what a definition's processing says.
func (d *destinations) processor(ctx context.Context, c delivery.Config) (delivery.Processor, error) {
	var def processing
	if err := json.Unmarshal(c.Processing, &def); err != nil {
		return nil, fmt.Errorf("read the processing: %w", err)
	}
	steps, err := def.Processors.Steps()
	if err != nil {
		return nil, err
	}
	p := &delivery.Pipeline{Gunzip: steps.Gunzip, Messages: steps.CloudWatchMessages}
	if a := steps.DeAggregation; a != nil {
		p.Split = &delivery.Split{Delimiter: a.Delimiter}
	}
	if steps.Query != "" {
		program, err := jq.Compile(steps.Query)
		if err != nil {
			return nil, &firehose.Refusal{Kind: firehose.ErrInvalid, Message: "MetadataExtractionQuery: " + err.Error()}
		}
		p.Extract = extract(program, def.Routes)
	}
	if steps.Lambda != nil {
		t, err := d.transform(ctx, c.Name, steps.Lambda)
		if err != nil {
			return nil, err
		}
		p.Function = t
	}
	return p, nil
}

func extract(program *jq.Program, routes bool) delivery.Extract {
	return func(data []byte) (delivery.Extracted, error) {
		if !routes {
			keys, err := program.Keys(data)
			return delivery.Extracted{Keys: keys}, err
		}
		r, err := program.Route(data)
		return delivery.Extracted{Table: catalog.Name{Namespace: r.Database, Table: r.Table}, Operation: r.Operation}, err
	}
}

func (d *destinations) transform(ctx context.Context, name record.StreamName, step *firehose.LambdaStep) (delivery.Transform, error) {
	refuse := func(err error) error {
		return &firehose.Refusal{Kind: firehose.ErrInvalid, Message: "LambdaArn: " + err.Error()}
	}
	if step.SQL != "" {
		t, err := transform.NewSQL(ctx, transform.SQLOptions{Statement: step.SQL, Engine: d.s.engine, Dir: d.s.dir("staging"), Stream: name, Logger: d.s.logger, Metrics: d.metrics})
		if err != nil {
			return nil, refuse(err)
		}
		return function{t, true}, nil
	}
	for _, c := range d.s.cfg.Transforms {
		if c.ARN != step.ARN {
			continue
		}
		t, err := transform.NewHTTP(transform.HTTPOptions{URL: c.URL, TokenFile: c.TokenFile, Timeout: time.Duration(c.Timeout), Retries: step.Retries,
			BatchBytesMax: int(step.BufferBytes), Stream: name, StreamARN: "arn:aws:firehose:" + d.s.cfg.Region + ":" + accountID + ":deliverystream/" + string(name),
			Region: d.s.cfg.Region, Logger: d.s.logger, Metrics: d.metrics})
		if err != nil {
			return nil, refuse(err)
		}
		return function{t, false}, nil
	}
	return nil, refuse(fmt.Errorf("%s has no URL: add it to the section transforms of the server's configuration, or write sql:SELECT …", step.ARN))
}

// function gives delivery a transform.
type function struct {
	transform.Transformer
	local bool
}

// Local implements delivery.Transform.
func (f function) Local() bool { return f.local }

// Apply implements delivery.Transform.
func (f function) Apply(ctx context.Context, records []delivery.TransformRecord) ([]delivery.TransformResult, error) {
	in := make([]transform.Record, len(records))
	for i, r := range records {
		in[i] = transform.Record(r)
	}
	results, err := f.Transformer.Apply(ctx, in)
	if err != nil {
		return nil, err
	}
	kinds := map[transform.Kind]delivery.OutcomeKind{transform.Ok: delivery.Processed, transform.Dropped: delivery.Dropped, transform.Failed: delivery.Failed}
	out := make([]delivery.TransformResult, len(results))
	for i, r := range results {
		out[i] = delivery.TransformResult{Kind: kinds[r.Kind], Data: r.Data, Keys: r.Keys, Table: catalog.Name{Namespace: r.Database, Table: r.Table},
			Operation: r.Operation, Code: r.Code, Message: r.Message}
	}
	return out, nil
}

// config makes delivery's definition of the API's. What the front door could
// not judge by itself is judged here.
func (d *destinations) config(ctx context.Context, c firehose.StreamConfig) (cfg delivery.Config, err error) {
	cfg = delivery.Config{Name: c.Name}
	if cfg.API, err = json.Marshal(c); err != nil {
		return cfg, err
	}
	steps, err := c.Processing().Steps()
	if err != nil {
		return cfg, err
	}
	def := processing{Processors: c.Processing(), Routes: c.Iceberg != nil}
	if steps.Gunzip || steps.CloudWatchMessages || steps.DeAggregation != nil || steps.Lambda != nil || steps.Query != "" {
		if cfg.Processing, err = json.Marshal(def); err != nil {
			return cfg, err
		}
		p, err := d.processor(ctx, cfg) // to refuse what does not compile
		if err != nil {
			return cfg, err
		}
		if err := p.Close(); err != nil {
			return cfg, err
		}
	}
	if c.S3 != nil {
		return cfg, d.objectConfig(ctx, &cfg, c.S3, &steps)
	}
	return cfg, d.icebergConfig(ctx, &cfg, c.Iceberg)
}

func hints(h *firehose.BufferingHints) (sizeBytes int64, interval time.Duration) {
	return int64(*h.SizeInMBs) << 20, time.Duration(*h.IntervalInSeconds) * time.Second
}

// part makes an object lane's definition, and judges it.
func (d *destinations) part(ctx context.Context, name record.StreamName, h *firehose.BufferingHints, t delivery.Target) (*delivery.ObjectConfig, error) {
	if err := d.prefix(name).Check(ctx, t); err != nil {
		if errors.Is(err, catalog.ErrNotFound) {
			return nil, err
		}
		return nil, &firehose.Refusal{Kind: firehose.ErrInvalid, Message: err.Error()}
	}
	target, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	out := &delivery.ObjectConfig{Target: target}
	out.SizeBytes, out.Interval = hints(h)
	return out, nil
}

func (d *destinations) objectConfig(ctx context.Context, cfg *delivery.Config, c *firehose.ExtendedS3Destination, steps *firehose.Steps) (err error) {
	t := s3Target(&c.S3Destination)
	t.Delimiter = steps.Delimiter
	t.TransformARN = transformARN(steps)
	setText(&t.Zone, c.CustomTimeZone)
	setText(&t.Extension, c.FileExtension)
	if c.Conversion.On() {
		t.Compression = "" // Parquet compresses its own pages
		t.Conversion = conversion(c.Conversion)
	}
	if cfg.Objects, err = d.part(ctx, cfg.Name, c.BufferingHints, t); err != nil {
		return err
	}
	if c.S3BackupMode != nil && *c.S3BackupMode == "Enabled" && c.S3Backup != nil {
		cfg.Backup, err = d.part(ctx, cfg.Name, c.S3Backup.BufferingHints, s3Target(c.S3Backup))
	}
	return err
}

func (d *destinations) icebergConfig(ctx context.Context, cfg *delivery.Config, c *firehose.IcebergDestination) (err error) {
	refuse := func(message string) error { return &firehose.Refusal{Kind: firehose.ErrInvalid, Message: message} }
	cfg.Evolve, cfg.CreateTables = c.SchemaEvolution.On(), c.TableCreation.On()
	if len(c.Tables) == 0 && !cfg.CreateTables {
		return refuse("DestinationTableConfigurationList must name at least one table, or TableCreationConfiguration be enabled: records are routed to the tables that it names.")
	}
	for _, t := range c.Tables {
		if len(t.UniqueKeys) > 0 {
			if err := d.uniqueKeys(ctx, cfg, t); err != nil {
				return err
			}
		}
		if cfg.CreateTables && t.PartitionSpec != nil && len(t.PartitionSpec.Identity) > 0 {
			return refuse("DestinationTableConfigurationList.PartitionSpec is not supported with TableCreationConfiguration: create the partitioned table by SQL before the delivery stream.")
		}
		cfg.Tables = append(cfg.Tables, catalog.Name{Namespace: t.Database, Table: t.Table})
	}
	if len(cfg.Tables) > 0 {
		cfg.Namespace, cfg.Table = cfg.Tables[0].Namespace, cfg.Tables[0].Table
	}
	cfg.SizeBytes, cfg.Interval = hints(c.BufferingHints)
	failed := delivery.Target{Bucket: lakeBucket} // a pack's stream says nothing
	if c.S3 != nil {
		failed = s3Target(c.S3)
	}
	if len(c.Tables) > 0 && c.Tables[0].ErrorPrefix != nil && failed.ErrorPrefix == nil {
		failed.ErrorPrefix = c.Tables[0].ErrorPrefix
	}
	if failed.ErrorPrefix == nil {
		failed.ErrorPrefix = new(string)
		*failed.ErrorPrefix = "errors/" + string(cfg.Name) + "/"
	}
	failed.FailedOnly, failed.Compression, failed.Prefix = true, "", ""
	cfg.ErrorBucket, cfg.ErrorPrefix = failed.Bucket, *failed.ErrorPrefix
	cfg.Failed, err = d.part(ctx, cfg.Name, c.BufferingHints, failed)
	return err
}

// uniqueKeys takes a table's keys into the definition, if records can have them.
func (d *destinations) uniqueKeys(ctx context.Context, cfg *delivery.Config, c firehose.DestinationTable) error {
	name := catalog.Name{Namespace: c.Database, Table: c.Table}
	refuse := func(format string, args ...any) error {
		return &firehose.Refusal{Kind: firehose.ErrInvalid, Message: "UniqueKeys of the table " + name.String() + ": " + fmt.Sprintf(format, args...)}
	}
	t, err := d.s.catalog.Load(ctx, name)
	if errors.Is(err, catalog.ErrNotFound) {
		return refuse("the table must exist before the delivery stream is created.")
	}
	if err != nil {
		return err
	}
	for _, k := range c.UniqueKeys {
		i := t.Schema.Index(k)
		switch {
		case i < 0:
			return refuse("the column %s does not exist; the columns are %s.", k, columnNames(t))
		case t.Schema.Fields[i].Derive != record.FromJSON && t.Schema.Fields[i].Derive != record.TradeDate:
			return refuse("the column %s is not in the records: it is derived by %s.", k, t.Schema.Fields[i].Derive)
		case t.Schema.Fields[i].Type.Kind == record.Double:
			return refuse("the column %s is a double, whose values are not exact: use a decimal.", k)
		}
	}
	for _, column := range t.Columns {
		if lower := strings.ToLower(column.Name); lower == "filename" || lower == "file_row_number" {
			return refuse("a table with a column %s cannot be updated: name it otherwise.", column.Name)
		}
	}
	if cfg.Keys == nil {
		cfg.Keys = map[string][]string{}
	}
	cfg.Keys[name.String()] = c.UniqueKeys
	return nil
}

func columnNames(t *catalog.Table) string {
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = c.Name
	}
	return strings.Join(names, ", ")
}

func setText(dst, src *string) {
	if src != nil {
		*dst = *src
	}
}

func s3Target(c *firehose.S3Destination) delivery.Target {
	t := delivery.Target{Bucket: bucketOf(c.BucketARN), ErrorPrefix: c.ErrorOutputPrefix}
	setText(&t.Prefix, c.Prefix)
	if c.CompressionFormat != nil {
		t.Compression = object.Compression(*c.CompressionFormat)
	}
	if t.ErrorPrefix != nil && *t.ErrorPrefix == "" {
		t.ErrorPrefix = nil
	}
	return t
}

func transformARN(s *firehose.Steps) string {
	switch {
	case s.Lambda == nil:
		return ""
	case s.Lambda.SQL != "":
		return transform.SQLPrefix + s.Lambda.SQL
	}
	return s.Lambda.ARN
}

func conversion(c *firehose.Conversion) *delivery.Conversion {
	out := &delivery.Conversion{}
	if s := c.Schema; s != nil {
		setText(&out.Database, s.DatabaseName)
		setText(&out.Table, s.TableName)
		setText(&out.Version, s.VersionID)
	}
	if x := c.Input.Deserializer.Hive; x != nil {
		out.Deserializer.Hive = &serde.Hive{TimestampFormats: x.TimestampFormats}
	} else {
		out.Deserializer.OpenX = &serde.OpenX{}
		if x := c.Input.Deserializer.OpenX; x != nil {
			o := out.Deserializer.OpenX
			o.ConvertDotsInJSONKeysToUnderscores = x.ConvertDots != nil && *x.ConvertDots
			o.CaseSensitive = x.CaseInsensitive != nil && !*x.CaseInsensitive
			o.ColumnToJSONKeyMappings = x.ColumnKeys
		}
	}
	if p := c.Output.Serializer.Parquet; p != nil {
		number := func(n *int32) int64 {
			if n == nil {
				return 0
			}
			return int64(*n)
		}
		out.Parquet = serde.ParquetOptions{BlockSizeBytes: number(p.BlockSizeBytes), PageSizeBytes: number(p.PageSizeBytes), MaxPaddingBytes: number(p.MaxPaddingBytes),
			EnableDictionaryCompression: p.EnableDictionary != nil && *p.EnableDictionary}
		setText(&out.Parquet.Compression, p.Compression)
		setText(&out.Parquet.WriterVersion, p.WriterVersion)
	}
	return out
}
