package checker

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
)

// metadataSizeBytesMax bounds a metadata file, unpacked.
const metadataSizeBytesMax = 256 << 20

var (
	tableDirRE = regexp.MustCompile(`^-[0-9a-f]{12}$`)
	metadataRE = regexp.MustCompile(`^(\d{5,18})-.*\.metadata\.json$`)
)

// dataFile is one live Parquet file.
type dataFile struct {
	path string
	rows int64
}

// field is one column of a table's current schema.
type field struct {
	id       int
	name     string
	required bool
}

// place is a lake's directory, and the location that it stands for.
type place struct{ dir, location string }

// path is where the file lies that metadata names.
func (p place) path(uri string) (string, error) {
	if p.location == "" {
		return strings.TrimPrefix(uri, "file://"), nil
	}
	name, ok := strings.CutPrefix(uri, p.location+"/")
	if !ok || !filepath.IsLocal(name) {
		return "", fmt.Errorf("%s lies outside of %s", uri, p.location)
	}
	return filepath.Join(p.dir, name), nil
}

// Open implements iceio.IO.
func (p place) Open(uri string) (iceio.File, error) {
	path, err := p.path(uri)
	if err != nil {
		return nil, err
	}
	return iceio.LocalFS{}.Open(path)
}

// Remove implements iceio.IO; the checker removes nothing.
func (p place) Remove(uri string) error { return fmt.Errorf("remove %s: the checker only reads", uri) }

// liveFiles lists the files of the table's current snapshot, as the newest
// metadata on disk has it. A file that stands there twice is listed twice: its
// rows are.
func liveFiles(ctx context.Context, lake place, t Table) ([]dataFile, []field, error) {
	meta, err := newestMetadata(filepath.Join(lake.dir, t.Namespace), t.Name)
	if err != nil {
		return nil, nil, err
	}
	var columns []field
	for _, f := range meta.CurrentSchema().Fields() {
		columns = append(columns, field{f.ID, f.Name, f.Required})
	}
	snapshot := meta.CurrentSnapshot()
	if snapshot == nil {
		return nil, columns, nil
	}
	manifests, err := snapshot.Manifests(lake)
	if err != nil {
		return nil, nil, fmt.Errorf("read manifest list: %w", err)
	}
	var live []dataFile
	for _, m := range manifests {
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		for entry, err := range m.Entries(lake, true) {
			if err != nil {
				return nil, nil, fmt.Errorf("read manifest %s: %w", m.FilePath(), err)
			}
			d := entry.DataFile()
			if d.ContentType() != iceberg.EntryContentData {
				return nil, nil, errors.New("rows were deleted from it: a stream's table is only ever appended to")
			}
			path, err := lake.path(d.FilePath())
			if err != nil {
				return nil, nil, err
			}
			live = append(live, dataFile{path, d.Count()})
		}
	}
	return live, columns, nil
}

// newestMetadata finds the table's directory, <name>-<12 hex digits>, and in it
// the metadata file of the greatest version; of several of one version, as a
// crash between writing and committing leaves them, the one written last.
// Of a table that was dropped and made again, the directory changed last counts.
func newestMetadata(namespace, name string) (table.Metadata, error) {
	entries, err := os.ReadDir(namespace)
	if err != nil {
		return nil, err
	}
	var newest table.Metadata
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), name)
		if !ok || !e.IsDir() || !tableDirRE.MatchString(rest) {
			continue
		}
		meta, err := newestIn(filepath.Join(namespace, e.Name(), "metadata"))
		if err != nil {
			return nil, err
		}
		if meta != nil && (newest == nil || meta.LastUpdatedMillis() > newest.LastUpdatedMillis()) {
			newest = meta
		}
	}
	if newest == nil {
		return nil, fmt.Errorf("no metadata of it below %s", namespace)
	}
	return newest, nil
}

func newestIn(dir string) (table.Metadata, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // being made, or being swept
	}
	if err != nil {
		return nil, err
	}
	greatest, names := int64(-1), []string(nil)
	for _, e := range entries {
		m := metadataRE.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		version, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil || version < greatest {
			continue
		}
		if version > greatest {
			greatest, names = version, names[:0]
		}
		names = append(names, e.Name())
	}
	var newest table.Metadata
	for _, name := range names {
		meta, err := readMetadata(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("metadata %s: %w", name, err)
		}
		if newest == nil || meta.LastUpdatedMillis() > newest.LastUpdatedMillis() {
			newest = meta
		}
	}
	return newest, nil
}

func readMetadata(path string) (table.Metadata, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		if data, err = io.ReadAll(io.LimitReader(z, metadataSizeBytesMax+1)); err != nil {
			return nil, err
		}
		if len(data) > metadataSizeBytesMax {
			return nil, fmt.Errorf("longer than %d bytes", metadataSizeBytesMax)
		}
	}
	return table.ParseMetadataBytes(data)
}
