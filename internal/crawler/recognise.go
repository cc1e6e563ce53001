package crawler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// The formats, as Glue's classification spells them.
const (
	formatParquet = "parquet"
	formatCSV     = "csv"
	formatJSON    = "json"
)

// The samples of text files.
const (
	sampleBytes    = 1 << 20
	sampleBytesMax = 10 << 20
	notesMax       = 20
)

var (
	errEmpty         = errors.New("it has no rows")
	errMore          = errors.New("its first row is longer than the sample")
	errUnknownFormat = errors.New("its format is not known; a classifier can say how it is to be read")
)

// outcome says what became of a file.
type outcome uint8

const (
	outcomeTable   outcome = iota // it is a table's
	outcomeEmpty                  // no rows: it neither makes nor changes a table
	outcomeRefused                // a format that is not supported, by name
	outcomeBad                    // it cannot be read
	outcomePending                // it is still being written, it seems
)

// finding is what is learnt of a file, or of files together. It is immutable once it
// is shared.
type finding struct {
	Outcome     outcome  `json:"o,omitempty"`
	Reason      string   `json:"r,omitempty"` // unless outcomeTable
	Format      string   `json:"f,omitempty"`
	Compression string   `json:"c,omitempty"` // mixed, where files differ
	CSV         *csvForm `json:"v,omitempty"`
	Path        string   `json:"p,omitempty"` // of JSON: a classifier's path, $[*] for the elements of one array
	Multiline   bool     `json:"m,omitempty"` // JSON rows that do not have a line each
	Columns     []Field  `json:"t,omitempty"`
	Notes       []string `json:"n,omitempty"`
}

// learnt is a finding of one file with what differs from file to file.
type learnt struct {
	*finding
	rows int64 // of texts that are larger than the sample, an estimate
	// again means that the next crawl reads the file again though it did not change:
	// it was the store's fault, or the file was young.
	again bool
}

// recogniser reads samples. It is safe for concurrent use.
type recogniser struct {
	classifiers []classifier
	now         func() time.Time
	settle      time.Duration // a file changed less than that ago may still be written
	intern      *interner
}

type classifier struct {
	*Classifier
	path jsonPath
}

// recognise examines a file. It returns an error only for what is not the file's
// fault: the crawl ends.
func (r *recogniser) recognise(ctx context.Context, src Source, o Object) (learnt, error) {
	f, rows, err := r.examine(ctx, src, o)
	if err == nil {
		return learnt{finding: r.intern.intern(f), rows: rows}, nil
	}
	if ctx.Err() != nil {
		return learnt{}, context.Cause(ctx)
	}
	var store *storeError
	again := errors.As(err, &store)
	f = finding{Outcome: outcomeBad, Reason: oneLine(err)}
	var refused *refusedError
	switch {
	case errors.Is(err, errEmpty):
		f.Outcome = outcomeEmpty
	case errors.As(err, &refused), errors.Is(err, errUnknownFormat), errors.Is(err, errNotCSV):
		f.Outcome = outcomeRefused
	}
	// Whatever a young file looks like, it may yet become something else. One that
	// grew while it was read is young, whatever its time says.
	if young(o, r.now(), r.settle) || errors.Is(err, errGrown) {
		f.Outcome = outcomePending
	}
	again = again || f.Outcome == outcomePending
	return learnt{finding: r.intern.intern(f), again: again}, nil
}

// storeError is an error of the source, not of the file's content.
type storeError struct{ err error }

func (e *storeError) Error() string { return e.err.Error() }
func (e *storeError) Unwrap() error { return e.err }

// storeReader tells the source's errors from those of what it reads.
type storeReader struct{ Reader }

func (s storeReader) ReadAt(p []byte, at int64) (int, error) {
	n, err := s.Reader.ReadAt(p, at)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &storeError{err}
	}
	return n, err
}

// young reports whether a file changed so lately that it may still be written. A time
// in the future is a clock's fault, and says nothing.
func young(o Object, now time.Time, settle time.Duration) bool {
	age := now.Sub(o.ModifiedAt)
	return age < settle && age > -settle
}

var errGrown = errors.New("it changed while it was read")

// refusedError names a format that is recognised and not supported.
type refusedError struct{ format, instead string }

func (e *refusedError) Error() string {
	return fmt.Sprintf("%s is not supported: %s", e.format, e.instead)
}

func oneLine(err error) string {
	s := strings.Join(strings.Fields(err.Error()), " ")
	if len(s) > 300 {
		s = s[:300] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// magics are the formats that are recognised to be named.
var magics = []struct {
	magic string
	err   error
}{
	{"Obj\x01", &refusedError{"Avro", "write it as Parquet"}},
	{"ORC", &refusedError{"ORC", "write it as Parquet"}},
	{"PK\x03\x04", &refusedError{"ZIP", "compress each file with gzip or zstd"}},
	{"\xfd7zXZ\x00", &refusedError{"xz", "compress with gzip or zstd"}},
	{"\x04\x22\x4d\x18", &refusedError{"LZ4", "compress with gzip or zstd"}},
	{"7z\xbc\xaf\x27\x1c", &refusedError{"7-Zip", "compress each file with gzip or zstd"}},
	{"ARROW1", &refusedError{"Arrow IPC", "write it as Parquet"}},
	{"FEA1", &refusedError{"Feather", "write it as Parquet"}},
	{"SQLite format 3", &refusedError{"SQLite", "export its tables as Parquet or CSV"}},
	{"SEQ\x06", &refusedError{"Hadoop's SequenceFile", "write it as Parquet"}},
	{"%PDF", &refusedError{"PDF", "it holds no rows"}},
	{parquetEncrypted, &refusedError{"encrypted Parquet", "write it with a plaintext footer"}},
}

func (r *recogniser) examine(ctx context.Context, src Source, o Object) (f finding, rows int64, err error) {
	if o.SizeBytes == 0 {
		return f, 0, errEmpty
	}
	opened, err := src.Open(ctx, o.Name)
	if err != nil {
		return f, 0, &storeError{err}
	}
	in := storeReader{opened}
	defer func() { _ = in.Close() }() // it was only read
	head := make([]byte, min(o.SizeBytes, 32))
	if err := readFull(in, head, 0); err != nil {
		return f, 0, err
	}
	if bytes.HasPrefix(head, []byte(parquetMagic)) {
		columns, rows, notes, err := readParquet(in, o.SizeBytes)
		switch {
		case err != nil:
			return f, 0, err
		case rows == 0:
			return f, 0, errEmpty
		case len(columns) == 0 || len(columns) > columnsMax:
			return f, 0, fmt.Errorf("%d columns, want 1 to %d", len(columns), columnsMax)
		}
		return finding{Format: formatParquet, Compression: plain, Columns: columns, Notes: limitNotes(notes)}, rows, nil
	}
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return f, 0, m.err
		}
	}
	compression := compressionOf(o.Name, head)
	for limit := sampleBytes; ; limit = min(limit*4, sampleBytesMax) {
		data, used, done, err := decompress(compression, io.NewSectionReader(in, 0, o.SizeBytes), o.SizeBytes, limit)
		switch {
		case errors.Is(err, errUnfinished) && len(data) > 0:
			// What is there decides the columns; that it is cut short is told.
			done = false
		case err != nil:
			return f, 0, err
		}
		cut := err
		f, n, took, err := r.text(o.Name, data, done)
		if errors.Is(err, errMore) && cut == nil && !done && limit < sampleBytesMax {
			continue
		}
		if err == nil && cut != nil {
			err = cut
		}
		if err == nil {
			if compression == plain && done {
				err = unchanged(in, o.SizeBytes)
			}
		}
		if err != nil {
			return f, 0, err
		}
		f.Compression = compression
		return f, estimate(n, took, len(data), used, o.SizeBytes, done), nil
	}
}

// unchanged returns errGrown if the file is longer than its listing said.
func unchanged(in io.ReaderAt, size int64) error {
	var b [1]byte
	if n, _ := in.ReadAt(b[:], size); n > 0 {
		return errGrown
	}
	return nil
}

// estimate is a file's rows, by those of its sample.
func estimate(rows, took, sample int, used, size int64, done bool) int64 {
	if done && took >= sample || took == 0 || used == 0 {
		return int64(rows)
	}
	share := float64(took) / float64(sample) * float64(used) / float64(size)
	return max(int64(rows), int64(float64(rows)/share))
}

// text recognises decompressed text: by the classifiers, then JSON, then CSV. took is
// how many bytes the rows have.
func (r *recogniser) text(name string, data []byte, last bool) (f finding, rows, took int, err error) {
	for i := range r.classifiers {
		c := &r.classifiers[i]
		if f, rows, took, err = c.classify(data, last); err == nil || errors.Is(err, errMore) {
			return f, rows, took, err
		}
	}
	trimmed := bytes.TrimLeft(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), " \t\r\n")
	switch {
	case len(trimmed) == 0 && last:
		return f, 0, 0, errEmpty
	case len(trimmed) == 0:
		return f, 0, 0, errMore
	case trimmed[0] == '{' || trimmed[0] == '[':
		if err := checkText(data, last); err != nil {
			return f, 0, 0, err
		}
		j, err := readJSON(data, last)
		if err != nil {
			return f, 0, 0, err
		}
		f, err = j.finding("")
		return f, j.rows, j.used, err
	case trimmed[0] == '<':
		return f, 0, 0, &refusedError{"XML", "write it as NDJSON or Parquet"}
	case bytes.HasPrefix(trimmed, []byte(parquetMagic)):
		return f, 0, 0, &refusedError{"Parquet within " + compressionOf(name, nil), "Parquet compresses its pages itself"}
	}
	form, columns, rows, err := readCSV(data, last, nil)
	if err != nil {
		return f, 0, 0, err
	}
	return finding{Format: formatCSV, CSV: &form, Columns: columns}, rows, csvTook(data, rows, last), nil
}

// csvTook is how many bytes the rows that were looked at have, if they are not all.
func csvTook(data []byte, rows int, last bool) int {
	if rows < csvRowsMax-1 {
		return len(data)
	}
	at := 0
	for range rows {
		n := bytes.IndexByte(data[at:], '\n')
		if n < 0 {
			return len(data)
		}
		at += n + 1
	}
	return at
}

func (c *classifier) classify(data []byte, last bool) (f finding, rows, took int, err error) {
	if c.JSON != nil {
		first := bytes.TrimLeft(data, "\xef\xbb\xbf \t\r\n")
		if len(first) == 0 || first[0] != '{' && first[0] != '[' {
			return f, 0, 0, errUnknownFormat
		}
		j, err := readJSONPath(data, last, c.path)
		if err != nil {
			return f, 0, 0, err
		}
		f, err = j.finding(c.JSON.JSONPath)
		return f, j.rows, j.used, err
	}
	form, columns, rows, err := readCSV(data, last, c.CSV)
	if err != nil {
		return f, 0, 0, err
	}
	return finding{Format: formatCSV, CSV: &form, Columns: columns}, rows, csvTook(data, rows, last), nil
}

func (j *jsonFinding) finding(path string) (finding, error) {
	f := finding{Format: formatJSON, Path: path, Multiline: j.multiline && !j.array, Columns: j.columns}
	if j.array && path == "" {
		f.Path = arrayPath
	}
	if len(j.columns) == 0 || len(j.columns) > columnsMax {
		return f, fmt.Errorf("%d columns, want 1 to %d", len(j.columns), columnsMax)
	}
	f.Notes = limitNotes(slices.Sorted(maps.Keys(j.notes)))
	if j.badLines > 0 {
		f.Notes = append(f.Notes, fmt.Sprintf("%d lines of the sample are not JSON", j.badLines))
	}
	return f, nil
}

// arrayPath is the path of the rows of a file that is one array.
const arrayPath = "$[*]"

func limitNotes(notes []string) []string { return notes[:min(len(notes), notesMax)] }
