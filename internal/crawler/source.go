package crawler

import (
	"context"
	"errors"
	"io"
	"time"
)

var (
	// ErrInvalid is the root of errors about a definition, a classifier, a schedule
	// or a path.
	ErrInvalid = errors.New("invalid crawler")
	// ErrNotFound is returned for a crawler, classifier or crawl that does not exist.
	ErrNotFound = errors.New("not found")
	// ErrExists is returned when the name to be created is taken.
	ErrExists = errors.New("exists already")
	// ErrRunning is returned for a change of, or a second start of, a running crawler.
	ErrRunning = errors.New("the crawler is running")
	// ErrNotRunning is returned by Stop of a crawler that does not run.
	ErrNotRunning = errors.New("the crawler is not running")
	// ErrStopping is returned for a crawler that is being stopped.
	ErrStopping = errors.New("the crawler is stopping")
	// ErrScheduled is returned for a change of the schedule's state to what it is.
	ErrScheduled = errors.New("the schedule is in that state")
	// ErrTooMany is returned when a bound is reached: of crawlers, of crawls at a
	// time, of tables, folders or partitions of a crawl.
	ErrTooMany = errors.New("too many")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("the crawler's manager is closed")
)

// Object is a file of others.
type Object struct {
	Name       string // within its source; segments are parted by '/'
	SizeBytes  int64
	ModifiedAt time.Time
	ETag       string // or "", where the store has none
	// Refused, if not "", says why the source does not open the object: it is a
	// symbolic link, for example. The crawler names it in its report.
	Refused string
}

// Reader reads ranges of one object.
type Reader interface {
	io.ReaderAt
	io.Closer
}

// Source holds files that others write: a directory, a bucket. Implementations are
// safe for concurrent use. A name that List gave may be gone when it is opened.
type Source interface {
	// List calls fn for the objects whose names begin with prefix, in the byte order
	// of their names, until fn returns an error, which List returns. A source fetches
	// its listing in pages of its own, so that memory does not grow with it. It fails,
	// rather than list nothing, when it cannot be reached.
	List(ctx context.Context, prefix string, fn func(Object) error) error
	// Open opens an object for reading. The reader sees the object as it is now. The
	// error matches fs.ErrNotExist where there is no object of that name.
	Open(ctx context.Context, name string) (Reader, error)
	// URI is the location of a name, as it stands in tables. A name that ends in '/'
	// is a folder, and so is "".
	URI(name string) string
}

// Watcher is a Source that can tell cheaply whether files came or went.
type Watcher interface {
	Source
	// Watch returns a function that reports whether anything came or went below
	// prefix since the last call; the first call reports true. It is not safe for
	// concurrent use.
	Watch(prefix string) (poll func(context.Context) (changed bool, err error))
}
