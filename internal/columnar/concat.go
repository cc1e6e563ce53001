package columnar

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Source is a Parquet file that this package wrote, to be concatenated.
type Source struct {
	ReaderAt io.ReaderAt
	Size     int64
	Meta     FileMeta // as Flush or ReadMeta gave it; zero: read from the footer
}

// ErrSchemaDiffers says that files of different schemas cannot be concatenated.
var ErrSchemaDiffers = errors.New("files have different schemas")

// Concat writes one Parquet file that holds the row groups of all parts, in
// order: their bytes are copied and the footer is written anew. Nothing is
// decoded. After an error, what was written to w is no Parquet file.
func Concat(w io.Writer, parts []Source) (FileMeta, error) {
	if len(parts) == 0 {
		return FileMeta{}, errors.New("no files to concatenate")
	}
	var out footer
	if _, err := io.WriteString(w, magic); err != nil {
		return FileMeta{}, fmt.Errorf("write Parquet file: %w", err)
	}
	at := int64(len(magic))
	schemaID := 0
	for i, part := range parts {
		f := part.Meta.footer
		id := part.Meta.SchemaID
		if f == nil {
			m, err := ReadMeta(part.ReaderAt, part.Size)
			if err != nil {
				return FileMeta{}, fmt.Errorf("file %d of %d: %w", i+1, len(parts), err)
			}
			f, id = m.footer, m.SchemaID
		}
		if i == 0 {
			out = footer{schema: f.schema, elements: f.elements, leaves: f.leaves, keyValues: f.keyValues, ours: true}
			schemaID = id
		} else if !bytes.Equal(f.schema, out.schema) {
			return FileMeta{}, fmt.Errorf("file %d of %d: %w", i+1, len(parts), ErrSchemaDiffers)
		}
		from, to := f.extent()
		n, err := io.Copy(w, io.NewSectionReader(part.ReaderAt, from, to-from))
		if err == nil && n < to-from {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return FileMeta{}, fmt.Errorf("copy row groups of file %d of %d: %w", i+1, len(parts), err)
		}
		for g := range f.groups {
			out.groups = append(out.groups, f.groups[g].moved(at-from))
		}
		out.rows += f.rows
		at += to - from
	}
	tail := out.appendTo(nil)
	if _, err := w.Write(tail); err != nil {
		return FileMeta{}, fmt.Errorf("write Parquet footer: %w", err)
	}
	return out.meta(schemaID, at+int64(len(tail)), nil), nil
}

// extent returns the range of the file that the row groups take.
func (f *footer) extent() (from, to int64) {
	if len(f.groups) == 0 {
		return int64(len(magic)), int64(len(magic))
	}
	from = f.groups[0].offset()
	for i := range f.groups {
		from = min(from, f.groups[i].offset())
		for k := range f.groups[i].chunks {
			c := &f.groups[i].chunks[k]
			to = max(to, c.start()+c.compressed)
		}
	}
	return from, to
}

// moved is the row group with its offsets shifted.
func (g *rowGroup) moved(by int64) rowGroup {
	m := rowGroup{rows: g.rows, chunks: slices.Clone(g.chunks)}
	for i := range m.chunks {
		c := &m.chunks[i]
		c.dataOffset += by
		if c.dictOffset > 0 {
			c.dictOffset += by
		}
	}
	return m
}
