package external

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/hive"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/serde"
)

// File is a local Parquet file with the rows of one file of a table.
type File struct {
	Path      string // local
	URI       string // s3://bucket/name, of the table's file
	SizeBytes int64  // of the table's file
	Rows      int64
	Values    []string // of the partition keys
	Layout    *Layout  // shared by files whose columns are laid out alike
}

// Files are what a statement reads of a table. They stay as they are until
// Release.
type Files struct {
	Files []File

	r      *Reader
	held   []*staged
	linked []linkedFile
	once   sync.Once
}

type linkedFile struct {
	path, name string
	size       int64
	modified   int64
}

// Release gives the files back. Further calls do nothing.
func (f *Files) Release() {
	f.once.Do(func() {
		for _, s := range f.held {
			f.r.stage.release(s)
		}
	})
}

// Unchanged returns nil if nobody wrote to a file while it was read: an *Error of
// kind ErrChanged otherwise.
func (f *Files) Unchanged() error {
	for _, l := range f.linked {
		fi, err := os.Stat(l.path)
		if err != nil || fi.Size() != l.size || fi.ModTime().UnixNano() != l.modified {
			return changed(l.name, lake.ErrChanged)
		}
	}
	return nil
}

func changed(name string, err error) error {
	what := "was written to while the statement read it"
	if errors.Is(err, lake.ErrNotFound) {
		what = "was removed while the statement read it"
	}
	return fail(ErrChanged, "run the statement again; write files under a new name and rename them when they are complete", "file %s %s: %v", name, what, err)
}

// part is a place where files of one form lie: an unpartitioned table's, or a
// partition's.
type part struct {
	values    []string
	format    *format
	converter *serde.Converter
	locations []string
}

// listed is a file of a part.
type listed struct {
	part   *part
	bucket lake.Foreign
	uri    string
	again  int // how many times the same file came before
	file   lake.ForeignFile
}

// Files lists and stages the files of the partitions that wanted chooses by
// their values; nil chooses all. Errors are *Error where whoever sent the
// statement can do something about it.
func (t *Table) Files(ctx context.Context, wanted func(values []string) bool) (_ *Files, err error) {
	parts, err := t.parts(ctx, wanted)
	if err != nil {
		return nil, err
	}
	files, err := t.list(ctx, parts)
	if err != nil {
		return nil, err
	}
	out := &Files{r: t.r, Files: make([]File, len(files)), held: make([]*staged, 0, len(files))}
	defer func() {
		if err != nil {
			out.Release()
		}
	}()
	var mu sync.Mutex
	layouts := map[string]*Layout{}
	err = lake.InParallel(ctx, readWidth, len(files), func(ctx context.Context, i int) error {
		f := &files[i]
		s, err := t.stageFile(ctx, f)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		out.held = append(out.held, s)
		l := layouts[s.schema.fingerprint]
		if l == nil {
			if len(layouts) >= layoutsMax {
				return fail(ErrLimit, "rewrite the older files with the newer ones' columns", "table %s: its files have more than %d different Parquet schemas", t.Name, layoutsMax)
			}
			if f.part.format.kind == parquet {
				if l, err = t.layout(s.schema, f.uri); err != nil {
					return err
				}
			} else {
				l = t.ownLayout()
			}
			layouts[s.schema.fingerprint] = l
		}
		out.Files[i] = File{Path: s.path, URI: f.uri, SizeBytes: f.file.SizeBytes, Rows: s.rows, Values: f.part.values, Layout: l}
		if s.linked {
			out.linked = append(out.linked, linkedFile{s.path, f.uri, f.file.SizeBytes, f.file.ModifiedAt.UnixNano()})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out.Files = slices.DeleteFunc(out.Files, func(f File) bool { return f.Rows == 0 })
	return out, nil
}

// ownLayout is that of what was converted: the columns as they are declared.
func (t *Table) ownLayout() *Layout {
	l := &Layout{Columns: make([]Source, len(t.Columns)), Names: make([]string, len(t.Columns))}
	for i, c := range t.Columns {
		l.Columns[i], l.Names[i] = Source{Name: c.Name}, c.Name
	}
	return l
}

// parts are the places whose files are read.
func (t *Table) parts(ctx context.Context, wanted func([]string) bool) ([]*part, error) {
	if len(t.Keys) == 0 {
		p, err := t.newPart(nil, t.definition.Storage, nil)
		if err != nil {
			return nil, err
		}
		return []*part{p}, nil
	}
	var parts []*part
	var failed error
	page := catalog.PartitionsPage{Wanted: func(values []string) bool {
		return len(values) != len(t.Keys) || wanted == nil || wanted(values)
	}}
	err := t.r.o.Catalog.ExternalPartitions(ctx, t.Name, page, func(x catalog.ExternalPartition) bool {
		switch {
		case len(x.Values) != len(t.Keys):
			failed = fail(ErrDefinition, "remove the partition", "table %s has %d partition keys, and a partition with the values %q", t.Name, len(t.Keys), x.Values)
		case len(parts) >= t.r.o.PartitionsMax:
			failed = fail(ErrLimit, "name fewer of them by conditions on the keys: "+t.keyNames(), "the statement reads more than %d partitions of table %s", t.r.o.PartitionsMax, t.Name)
		default:
			var p *part
			if p, failed = t.partitionPart(&x.Partition); failed == nil {
				parts = append(parts, p)
			}
		}
		return failed == nil
	})
	return parts, errors.Join(failed, err)
}

func (t *Table) keyNames() string {
	names := make([]string, len(t.Keys))
	for i, k := range t.Keys {
		names[i] = k.Name
	}
	return strings.Join(names, ", ")
}

// partitionPart is a partition's place. What its own descriptor does not say is
// the table's.
func (t *Table) partitionPart(p *hive.Partition) (*part, error) {
	s := hive.Storage{}
	if t.definition.Storage != nil {
		s = *t.definition.Storage
	}
	base := s.Location
	s.Location, s.AdditionalLocations = "", nil
	if o := p.Storage; o != nil {
		s.Location, s.AdditionalLocations, s.Parameters = o.Location, o.AdditionalLocations, o.Parameters
		if len(o.Columns) > 0 {
			s.Columns = o.Columns
		}
		if o.InputFormat != "" {
			s.InputFormat = o.InputFormat
		}
		if o.Serde != nil && (o.Serde.Library != "" || len(o.Serde.Parameters) > 0) {
			s.Serde = o.Serde
		}
	}
	if s.Location == "" {
		s.Location = strings.TrimSuffix(base, "/")
		for i, v := range p.Values {
			s.Location += "/" + hive.Segment(t.Keys[i].Name, v)
		}
		s.Location += "/"
	}
	return t.newPart(p.Values, &s, p.Parameters)
}

func (t *Table) newPart(values []string, s *hive.Storage, parameters map[string]string) (*part, error) {
	f, err := t.format(s, parameters)
	if err != nil {
		return nil, err
	}
	if s.Location == "" {
		return nil, fail(ErrDefinition, "give it a location such as s3://lake/folder/", "external table %s has no location", t.Name)
	}
	p := &part{values: values, format: f, locations: append([]string{s.Location}, s.AdditionalLocations...)}
	if f.kind != parquet {
		if p.converter, err = t.converter(f); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// list lists the files of parts, in the order of parts and names.
func (t *Table) list(ctx context.Context, parts []*part) ([]listed, error) {
	found := make([][]listed, len(parts))
	var mu sync.Mutex
	total := 0
	err := lake.InParallel(ctx, listWidth, len(parts), func(ctx context.Context, i int) error {
		for _, location := range parts[i].locations {
			bucketName, name, err := lake.ParseForeignLocation(location)
			if err != nil {
				return t.unlisted(location, err)
			}
			bucket, err := t.r.o.Bucket(ctx, bucketName)
			if err != nil {
				return t.unlisted(location, err)
			}
			err = bucket.ListFiles(ctx, name, func(f lake.ForeignFile) error {
				if f.SizeBytes == 0 {
					return nil // no rows, in any format
				}
				uri := "s3://" + bucketName + "/" + f.Name
				if !utf8.ValidString(f.Name) {
					return fail(ErrData, "rename it", "table %s: the file name %q is no UTF-8", t.Name, f.Name)
				}
				mu.Lock()
				total++
				tooMany := total > t.r.o.FilesMax
				mu.Unlock()
				if tooMany {
					hint := "write fewer and larger files, or give the table partition keys"
					if len(t.Keys) > 0 {
						hint = "name fewer partitions by conditions on the keys: " + t.keyNames()
					}
					return fail(ErrLimit, hint, "the statement reads more than %d files of table %s", t.r.o.FilesMax, t.Name)
				}
				found[i] = append(found[i], listed{part: parts[i], bucket: bucket, uri: uri, file: f})
				return nil
			})
			if err != nil {
				return t.unlisted(location, err)
			}
		}
		slices.SortFunc(found[i], func(a, b listed) int { return strings.Compare(a.uri, b.uri) })
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := slices.Concat(found...)
	seen := make(map[string]int, len(out))
	for i := range out {
		out[i].again = seen[out[i].uri]
		seen[out[i].uri]++
	}
	return out, nil
}

func (t *Table) unlisted(location string, err error) error {
	var known *Error
	switch {
	case errors.As(err, &known), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, lake.ErrName):
		return fail(ErrDefinition, "docs/external-tables.md says which locations are read", "table %s, location %s: %v", t.Name, location, err)
	}
	t.r.o.Logger.Error("an external table's location was not listed", "table", t.Name.String(), "location", location, "error", err)
	return fail(ErrUnreadable, "the server's log says more", "table %s: the location %s could not be listed: %v", t.Name, location, err)
}

// stageFile makes the local file that stands for a listed one, held.
func (t *Table) stageFile(ctx context.Context, f *listed) (*staged, error) {
	key := t.stageKey(f)
	result := fileKept
	s, err := t.r.stage.hold(ctx, key, func(s *staged) (err error) {
		result, err = t.makeStaged(ctx, f, key, s)
		return err
	})
	if err != nil {
		result = fileRefused
	}
	t.r.metrics.files.WithLabelValues(result).Inc()
	if result == fileCopied || result == fileConverted {
		t.r.metrics.readBytes.Add(float64(f.file.SizeBytes))
	}
	var known *Error
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, lake.ErrNotFound) || errors.Is(err, lake.ErrChanged):
		return nil, changed(f.uri, err)
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.As(err, &known):
		return nil, err
	}
	t.r.o.Logger.Error("a file of an external table was not read", "table", t.Name.String(), "file", f.uri, "error", err)
	return nil, fail(ErrUnreadable, "the server's log says more", "file %s of table %s could not be read: %v", f.uri, t.Name, err)
}

// stageKey is a hash of everything that the local file depends on.
func (t *Table) stageKey(f *listed) string {
	h := sha256.New()
	add := func(parts ...string) {
		for _, p := range parts {
			_, _ = io.WriteString(h, strconv.Itoa(len(p))+":"+p) // a hash never fails
		}
	}
	add(f.uri, f.file.Version, strconv.FormatInt(f.file.SizeBytes, 10), strconv.Itoa(f.again))
	if f.part.format.kind != parquet {
		add(f.part.format.fingerprint())
		for _, c := range t.Columns {
			add(c.Name, c.Type.String())
		}
	}
	return string(h.Sum(nil))
}

// makeStaged makes the local file and says how.
func (t *Table) makeStaged(ctx context.Context, f *listed, key string, s *staged) (result string, err error) {
	if f.part.format.kind != parquet {
		return fileConverted, t.makeConverted(ctx, f, s)
	}
	err = t.makeParquet(ctx, f, key, s)
	if s.linked {
		return fileLinked, err
	}
	return fileCopied, err
}

func (t *Table) makeConverted(ctx context.Context, f *listed, s *staged) error {
	in, err := f.bucket.OpenFile(ctx, f.file)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // it was read from only
	select {
	case t.r.slots <- struct{}{}:
		defer func() { <-t.r.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	out, err := t.r.stage.create(s)
	if err != nil {
		return err
	}
	w, err := f.part.converter.NewStage(out)
	if err == nil {
		err = t.convert(ctx, f.part.format, f.uri, in, f.file.SizeBytes, w)
	}
	if err = errors.Join(err, out.file.Close()); err != nil {
		// What was written to may also look malformed.
		if gone := f.bucket.Unchanged(ctx, f.file); errors.Is(gone, lake.ErrChanged) || errors.Is(gone, lake.ErrNotFound) {
			return gone
		}
		return err
	}
	if err := f.unchanged(ctx); err != nil {
		return err
	}
	s.rows, s.schema = w.Rows(), &fileSchema{fingerprint: "converted"}
	return nil
}

// linker gives a file a second name; a local bucket does.
type linker interface {
	LinkFile(f lake.ForeignFile, path string) error
}

// makeParquet brings a Parquet file here as it is.
func (t *Table) makeParquet(ctx context.Context, f *listed, key string, s *staged) error {
	if l, ok := f.bucket.(linker); ok {
		err := l.LinkFile(f.file, s.path)
		switch {
		case err == nil:
			if err := t.r.stage.grow(s, stageBlockBytes); err != nil {
				return err
			}
			s.linked = true
		case errors.Is(err, lake.ErrChanged) || errors.Is(err, lake.ErrNotFound):
			return err
		default:
			t.r.o.Logger.Debug("a file is copied because it cannot be linked", "file", f.uri, "error", err)
		}
	}
	if !s.linked {
		if err := t.copyParquet(ctx, f, s); err != nil {
			return err
		}
	}
	foot, ok := t.r.footers.Get(key)
	if !ok {
		local, err := os.Open(s.path)
		if err != nil {
			return fmt.Errorf("stage: %w", err)
		}
		defer local.Close() //nolint:errcheck // it was read from only
		foot, err = t.r.readFooter(io.NewSectionReader(local, 0, f.file.SizeBytes))
		if err != nil {
			if gone := f.bucket.Unchanged(ctx, f.file); gone != nil {
				return gone
			}
			return fail(ErrData, "", "file %s is no readable Parquet file: %v", f.uri, err)
		}
		t.r.footers.Add(key, foot)
	}
	s.rows, s.schema = foot.rows, foot.schema
	return nil
}

func (t *Table) copyParquet(ctx context.Context, f *listed, s *staged) error {
	in, err := f.bucket.OpenFile(ctx, f.file)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // it was read from only
	out, err := t.r.stage.create(s)
	if err != nil {
		return err
	}
	source := bufio.NewReaderSize(&cancelReader{ctx, io.NewSectionReader(in, 0, f.file.SizeBytes)}, int(min(f.file.SizeBytes, 8*readBytes)))
	n, err := source.WriteTo(out)
	if err == nil && n != f.file.SizeBytes {
		err = lake.ErrChanged
	}
	if err = errors.Join(err, out.file.Close()); err != nil {
		return err
	}
	return f.unchanged(ctx)
}

// unchanged returns nil if what was read to its end was one version of the file.
// Each range of an object is of the listed version in any case.
func (f *listed) unchanged(ctx context.Context) error {
	if _, local := f.bucket.(linker); !local {
		return nil
	}
	return f.bucket.Unchanged(ctx, f.file)
}

func sortedPairs(m map[string]string) []string {
	out := make([]string, 0, 2*len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k, m[k])
	}
	return out
}
