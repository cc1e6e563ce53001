package lake

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Files of others lie in the same buckets as objects, but nothing of what this
// package promises of objects holds for them: their names have any characters,
// and they are replaced, changed and removed at any time, by anybody.

// ErrChanged is returned for a file that is not what it was when it was listed.
var ErrChanged = errors.New("the file was changed or replaced meanwhile")

const (
	// foreignNameBytesMax is S3's bound of a key.
	foreignNameBytesMax = 1024
	// foreignDepthMax bounds the nesting of folders, which symbolic links could
	// otherwise make endless.
	foreignDepthMax = 64
)

// ForeignFile is a file as it was when it was listed.
type ForeignFile struct {
	// Name is the name in its bucket: a key of S3, or a path relative to the
	// bucket's directory. It is not escaped.
	Name       string
	SizeBytes  int64
	ModifiedAt time.Time // UTC
	// Version differs when the content does: S3's ETag, or what the file system
	// knows the file by.
	Version string
}

// Foreign reads the files that others wrote to one bucket. Implementations are
// safe for concurrent use.
type Foreign interface {
	// ListFiles calls fn for every file at a location, until fn returns an error,
	// which it returns: all files below the folder of that name, in no particular
	// order, and the file of that name, if there is one. "" is the whole bucket; a
	// slash at the end makes it a folder only. A location that does not exist has
	// no files. Folders and files whose names begin with '.' or '_' are passed
	// over, as Hive has it. ErrName: a location that no file can have, or a name
	// that cannot be read.
	ListFiles(ctx context.Context, location string, fn func(ForeignFile) error) error

	// OpenFile opens a file that was listed, and fails with ErrChanged or
	// ErrNotFound if it is not that file any more. ctx also governs the reader.
	OpenFile(ctx context.Context, f ForeignFile) (Reader, error)

	// Unchanged returns nil if the file still is what was listed, or ErrChanged or
	// ErrNotFound.
	Unchanged(ctx context.Context, f ForeignFile) error
}

// hiddenName reports whether Hive passes over a file or folder.
func hiddenName(segment string) bool { return segment[0] == '.' || segment[0] == '_' }

// hiddenBelow reports whether one of the segments of a path is hidden. Empty
// segments, which keys can have, are not.
func hiddenBelow(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		if segment != "" && hiddenName(segment) {
			return true
		}
	}
	return false
}

// checkLocation returns ErrName, with the reason, for a location that leads out
// of its bucket or that no file has.
func checkLocation(location string) error {
	switch {
	case len(location) > foreignNameBytesMax:
		return fmt.Errorf("%w: a location of %d bytes, the limit is %d", ErrName, len(location), foreignNameBytesMax)
	case strings.IndexByte(location, 0) >= 0:
		return fmt.Errorf("%w: the location %q holds a zero byte", ErrName, location)
	case strings.HasPrefix(location, "/"):
		return fmt.Errorf("%w: the location %q begins with a slash: it is relative to its bucket", ErrName, location)
	}
	for segment := range strings.SplitSeq(location, "/") {
		if segment == "." || segment == ".." {
			return fmt.Errorf("%w: the location %q has the segment %q: write it without", ErrName, location, segment)
		}
	}
	return nil
}

// ParseForeignLocation splits s3://bucket/location, also spelt s3a: and s3n:. The
// location is taken as it stands: %20 is three characters. ErrName for another
// scheme, such as file:, and for a location that leads out of the bucket.
func ParseForeignLocation(uri string) (bucket, location string, err error) {
	scheme, rest, ok := strings.Cut(uri, "://")
	if !ok || scheme != "s3" && scheme != "s3a" && scheme != "s3n" {
		return "", "", fmt.Errorf("%w: the location %q: want s3://BUCKET/PATH; files beside the lake and its buckets are not read", ErrName, uri)
	}
	bucket, location, _ = strings.Cut(rest, "/")
	if bucket == "" {
		return "", "", fmt.Errorf("%w: the location %q names no bucket", ErrName, uri)
	}
	return bucket, location, checkLocation(location)
}
