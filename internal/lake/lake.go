// Package lake stores immutable objects: the data and metadata files of tables.
//
// An object has a name, is written once as a whole and never changed. Put
// returns when the object is durable, and fails with ErrExists rather than
// replace one, so that a name that was handed out stands for one content for
// ever. A reader sees an object whole or not at all.
//
// Names are relative, in segments parted by '/', each of 1 to 255 characters of
// [a-zA-Z0-9._=+@~-], not beginning with '.'. That is the set that file systems,
// URIs and object stores spell alike: Iceberg's implementations disagree on how
// other characters are escaped. A URI names the object to any Iceberg reader.
package lake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

var (
	// ErrExists is returned by a Put of a name that is taken.
	ErrExists = errors.New("object exists")
	// ErrNotFound is returned for a name that no object has.
	ErrNotFound = errors.New("object not found")
	// ErrName is returned for a name outside the set that the package allows.
	ErrName = errors.New("invalid object name")
	// ErrTooLarge is returned by Get for an object above GetBytesMax.
	ErrTooLarge = errors.New("object too large to read whole")
)

const (
	// NameBytesMax bounds an object's name; S3 allows 1,024 with the prefix.
	NameBytesMax = 900
	// GetBytesMax bounds what Get reads into memory. Manifests and metadata are
	// far below it; data files are read in ranges.
	GetBytesMax = 256 << 20
)

// Object is a small object to be put, held in memory.
type Object struct {
	Name string
	Data []byte
}

// Info describes a stored object.
type Info struct {
	Name       string
	SizeBytes  int64
	ModifiedAt time.Time // UTC
}

// Reader reads ranges of one object. It is safe for concurrent ReadAt.
type Reader interface {
	io.ReaderAt
	io.Closer
	SizeBytes() int64
}

// Store holds objects. Implementations are safe for concurrent use.
type Store interface {
	// Put stores sizeBytes bytes of r under name. When it returns nil the object
	// is durable. ErrExists: the name is taken, by an object that is durable, and
	// nothing was changed. After any other error the object may be there, but
	// then whole; the name may be used again for the same bytes only. The store
	// does not keep r.
	Put(ctx context.Context, name string, r io.Reader, sizeBytes int64) error

	// PutAll stores several objects and makes them durable together, which is
	// cheaper than one after the other. On an error some may be stored.
	PutAll(ctx context.Context, objects []Object) error

	// PutFile stores the finished local file at path (absolute) under name and
	// consumes it: on success the file is gone from path.
	PutFile(ctx context.Context, name, path string) error

	// Get returns the whole object; ErrTooLarge above GetBytesMax.
	Get(ctx context.Context, name string) ([]byte, error)

	// Open returns a reader of ranges, which the caller closes.
	Open(ctx context.Context, name string) (Reader, error)

	// Stat describes one object.
	Stat(ctx context.Context, name string) (Info, error)

	// List calls fn for every object whose name begins with prefix, in no
	// particular order, until fn returns an error, which List returns.
	List(ctx context.Context, prefix string, fn func(Info) error) error

	// Delete removes objects. A name that no object has is no error. When it
	// returns nil they stay away, after a crash as well.
	Delete(ctx context.Context, names ...string) error

	// URI is the object's location as it stands in Iceberg metadata.
	URI(name string) string

	// Name is the inverse of URI; false when the location is outside the store.
	Name(uri string) (string, bool)

	// LocalPath is where the object lies in the local file system; false when
	// it does not.
	LocalPath(name string) (string, bool)
}

// CheckName returns ErrName, with the reason, unless name is allowed.
func CheckName(name string) error {
	if name == "" || len(name) > NameBytesMax {
		return fmt.Errorf("%w %q: want 1 to %d characters", ErrName, name, NameBytesMax)
	}
	for segment := range strings.SplitSeq(name, "/") {
		if err := checkSegment(segment); err != nil {
			return fmt.Errorf("%w %q: %w", ErrName, name, err)
		}
	}
	return nil
}

func checkSegment(s string) error {
	switch {
	case s == "":
		return errors.New("empty segment")
	case len(s) > 255:
		return errors.New("segment longer than 255 characters")
	case s[0] == '.':
		return errors.New("segment begins with '.'")
	}
	for i := range len(s) {
		if !allowedByte(s[i]) {
			return fmt.Errorf("character %q", s[i])
		}
	}
	return nil
}

func allowedByte(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' ||
		strings.IndexByte("._=+@~-", b) >= 0
}
