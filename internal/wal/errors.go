package wal

import (
	"errors"
	"fmt"

	"github.com/tapehouse/tapehouse/internal/record"
)

var (
	// ErrFull means that the log takes nothing now but will later: its queue is
	// full, or, then it is also ErrDiskFull, the disk.
	ErrFull = errors.New("log full")

	// ErrDiskFull means that there is no room for the next segment. The log
	// recovers by itself when there is.
	ErrDiskFull = fmt.Errorf("%w: no room on disk for the next segment", ErrFull)

	// ErrPoisoned means that a write or an fsync failed, so that nobody knows
	// what is on disk. Only a restart, which reads it, helps. It wraps the cause.
	ErrPoisoned = errors.New("log poisoned by a failed write; restart to recover")

	// ErrClosed is returned after Close.
	ErrClosed = errors.New("log closed")

	// ErrTooLarge means a payload above the log's limit: MaxPayloadBytes, or
	// less where segments are small.
	ErrTooLarge = errors.New("payload too large for the log")

	// ErrTooManyKeys means that a new key does not fit the table in a segment's header.
	ErrTooManyKeys = errors.New("too many keys in the log")

	// ErrForgotten means that the key was given to Forget and that the log still
	// holds frames of it on their way to disk.
	ErrForgotten = errors.New("key was forgotten")

	// ErrInvalidEntry means an entry without records.
	ErrInvalidEntry = errors.New("entry has no records")
)

// CorruptionError says where the log is damaged. The log does not open, or the
// read stops there: nothing is skipped.
type CorruptionError struct {
	Segment string // file name
	Offset  int64  // byte position in it
	Err     error
}

// Error names the place and the remedy.
func (e *CorruptionError) Error() string {
	return fmt.Sprintf("log segment %s is corrupt at byte %d: %v; restore the log's directory from a copy, "+
		"or move it away and have the sources send again what the tables lack", e.Segment, e.Offset, e.Err)
}

func (e *CorruptionError) Unwrap() error { return e.Err }

// TrimmedError says that the frames asked for are gone.
type TrimmedError struct {
	Key    record.Key
	Wanted record.Offset
	Oldest record.Offset // what is still there starts here
}

func (e *TrimmedError) Error() string {
	return fmt.Sprintf("offset %d of %s is no longer in the log; the oldest is %d", e.Wanted, e.Key, e.Oldest)
}
